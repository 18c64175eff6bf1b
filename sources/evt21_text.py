"""EVT 2.1 words as hexadecimal text, one a line: the test vectors of Prophesee's FPGA blocks (``.evt``).

::

    8000000000000000        TIME_HIGH 0
    101CF23D0000039E        ON, time 0, first x 926, y 573, one bit a pixel

Each line is a word of 64 bits, the most significant digit first; what the words mean stands in ``sources.evt``, whose
kernel decodes them. The lines are those of https://github.com/prophesee-ai/fpga-projects, folders ``tb/*/pattern``; no
document describes them. Empty lines are skipped, lines may end with CR LF.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.byte_runs import NOTHING_YET
from sources.byte_stream import ByteStream
from sources.evt import evt21_decode, fresh_state
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["Evt21TextDecoder", "is_evt21_text", "read_evt21_text"]

_LINES = re.compile(rb"(?:(?:[0-9A-Fa-f]{16})?\r?\n)*")
_WORD = re.compile(rb"[0-9A-Fa-f]{16}\r?")
_MOST_LINE_BYTES = 18
_KNOWN_TYPES = frozenset(b"018AEFaef")
_BUFFER_EVENTS = 1 << 15


def is_evt21_text(head: bytes) -> bool:
    """Tell whether the first bytes of a file are such lines.

    All whole lines are 16 hexadecimal digits, the first of which is a type of EVT 2.1, and one at least is a TIME_HIGH:
    decimal numbers of 16 digits, such as times since 1970, begin with other digits.
    """
    end = head.rfind(b"\n") + 1
    if end < _MOST_LINE_BYTES or _LINES.fullmatch(head, 0, end) is None:
        return False
    types = {line[0] for line in head[:end].split()}
    return types <= _KNOWN_TYPES and ord("8") in types


class Evt21TextDecoder:
    """One file, read from its first line each time it is iterated over.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    follow_s
        A file counts as ended only when it has not grown for so long, seconds.
    """

    def __init__(self, path: Path, *, follow_s: float = 0.0) -> None:
        self.path, self._follow_s = path, follow_s
        self.counts = np.zeros(3, np.int64)

    def __iter__(self) -> Iterator[NDArray[np.void]]:
        """Decode the file.

        Yields
        ------
        events
            EVENT_DTYPE, shape (n,): as they stand in the file, times may step back. The memory is used again for the
            next array. Empty: nothing yet.

        Raises
        ------
        FormatError
            After everything that could be read was yielded: a line is no word, or torn, or reading failed.
        """
        state, self.counts = fresh_state(), np.zeros(3, np.int64)
        events = np.empty(_BUFFER_EVENTS, EVENT_DTYPE)
        kept, at = b"", 0  # a line that is not whole yet, and its place
        try:
            stream = ByteStream(self.path, follow_s=self._follow_s)
        except OSError as error:
            raise FormatError(
                f"{self.path}: cannot be read: {error.strerror or error}; check path and permissions"
            ) from error
        with stream:
            for block in stream.records(1):
                if not len(block):
                    yield NOTHING_YET
                    continue
                text = kept + block.tobytes()
                good = _LINES.match(text)
                end = 0 if good is None else good.end()
                yield from self._decoded(text[:end], state, events)
                kept, at = text[end:], at + end
                if b"\n" in kept or len(kept) > _MOST_LINE_BYTES:
                    raise self._damaged(kept, at)
        if _WORD.fullmatch(kept) is None and kept.strip():
            raise self._damaged(kept, at)
        yield from self._decoded(kept, state, events)

    def _decoded(self, text: bytes, state: NDArray[np.int64], events: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
        words = np.frombuffer(bytes.fromhex(text.decode("ascii")), ">u8").astype("<u8")
        while len(words):
            n_events = evt21_decode(words, state, self.counts, events)
            words = words[int(state[0]) :]
            if n_events:
                yield events[:n_events]

    def _damaged(self, line: bytes, at: int) -> FormatError:
        return FormatError(
            f"{self.path}: damaged at byte {at}: got the line {line.splitlines()[0][:40]!r}, wanted 16 hexadecimal "
            f"digits; everything before was read, copy the file again for the rest"
        )

    def losses(self) -> list[str]:
        """Put into words what the file holds (as far as it was read) that is no event of the stream."""
        said = (
            "events before the first time were dropped",
            "events past column 2047 were dropped",
            "words of a type that EVT2.1 does not know were skipped",
        )
        return [f"{count} {words}" for count, words in zip(self.counts.tolist(), said, strict=True) if count]


def read_evt21_text(path: Path, *, follow_s: float = 0.0) -> Evt21TextDecoder:
    """Read a file piece by piece; see ``Evt21TextDecoder``."""
    return Evt21TextDecoder(path, follow_s=follow_s)
