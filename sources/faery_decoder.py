"""AEDAT4 and Event Stream files through faery (LGPL-3, used as a library).

faery is imported when the first such file is opened, not before: it costs 0.2 s that ``hebbstream --help`` need not
pay.

Its conventions become ours: unsigned times turn signed, ``on`` is ``p`` with 1 = brighter, the origin is top left.
(Event Stream files store y from the bottom; faery turns it, so ``y = height - 1 - stored``.)

It can also fail in ways that are not exceptions of its own: a panic of its Rust core is a BaseException. All of them
become FormatError here, but for Ctrl-C.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.file_format import FileFormat
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["FaeryDecoder"]


class FaeryDecoder:
    """One file, opened.

    Parameters
    ----------
    path, kind
        The file, and what ``recognise`` said of it.

    Raises
    ------
    FormatError
        faery cannot make sense of the header.
    """

    def __init__(self, path: Path, kind: FileFormat) -> None:
        import faery

        self.path = path
        self.kind = kind
        try:
            self._stream: Any = faery.events_stream_from_file(
                path,
                file_type={"aedat4": "aedat", "es": "es"}[kind.name],
            )
            self.width, self.height = (int(size) for size in self._stream.dimensions())
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise FormatError(
                f"{path}: the {kind.name} header cannot be read ({_words(error)}); the file has "
                f"{kind.size_bytes} bytes and may be cut off: copy it again"
            ) from error

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Yield EVENT_DTYPE arrays as they stand in the file; FormatError at a torn tail, after what was read."""
        n_events = 0
        try:
            for events in self._stream:
                n_events += len(events)
                yield np.ascontiguousarray(events).view(EVENT_DTYPE)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            raise FormatError(
                f"{self.path}: damaged after event {n_events}, somewhere in its {self.kind.size_bytes} bytes "
                f"({_words(error)}); everything before was read, copy the file again for the rest"
            ) from error


def _words(error: BaseException) -> str:
    """Give the first line of an error's text, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
