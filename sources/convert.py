"""From one event file to another, whole or a part, at bounded memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.data_path import expand_path
from sources.event_file import AS_IT_SAYS, OpenEvents, Reading, open_events
from sources.event_writer import open_writer, writable_format
from sources.recorded import RecordedStream
from stream.errors import ConfigError, FormatError
from stream.packet import End, Packet
from stream.record import MAGIC

__all__ = ["Converted", "convert"]


class Converted(NamedTuple):
    """What a conversion came to."""

    format: str  # that was written
    width: int  # pixels
    height: int
    read: int  # events
    written: int
    warnings: list[str]
    fault: str  # why the input could not be read to its end; empty if it could


def convert(
    source: str | Path,
    target: str | Path,
    *,
    reading: Reading = AS_IT_SAYS,
    format: str = "",
    start_us: int = 0,
    duration_us: int | None = None,
    rebase: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Converted:
    """Read a file and write what it holds to another.

    Parameters
    ----------
    source
        Any readable event file, or a recorder's file; ``-`` is standard input.
    target
        What stands there is replaced, but never the source.
    reading
        How to read it.
    format
        To write; default what the target's suffix tells.
    start_us, duration_us
        The part to keep, counted from the first event; half-open.
    rebase
        Let times begin at 0 (some formats hold no large ones).
    progress
        Called with bytes read and bytes in all, where the format lets them be told (else 0, 0).

    Returns
    -------
    Converted
        A fault of the source is told in it; what came before is written.

    Raises
    ------
    ConfigError
        The target's format is unknown, or source and target are the same file.
    FormatError
        Not even the source's beginning can be read, or the target's format cannot hold an event.
    """
    path_in, path_out = expand_path(str(source)), expand_path(str(target))
    writable_format(path_out, format)
    if path_out.exists() and path_in.exists() and path_in.samefile(path_out):
        raise ConfigError(f"{path_in}: would be read and replaced at once; write to another file")
    if start_us < 0 or (duration_us is not None and duration_us <= 0):
        raise ConfigError(f"part of {path_in}: got start {start_us} and duration {duration_us} us, wanted >= 0 and > 0")
    if _is_recording(path_in):
        width, height, chunks, losses = _recording(path_in, reading)
    else:
        opened = open_events(path_in, reading)
        width, height, chunks, losses = opened.width, opened.height, _faults(opened, progress), opened.losses
    writer = None
    n_read = n_written = 0
    fault = ""
    first = stop = shift = 0
    try:
        for events in chunks:
            if not len(events):
                continue
            if not n_read:
                first = int(events["t"][0]) + start_us
                stop = first + duration_us if duration_us is not None else 2**63 - 1
                shift = -first if rebase else 0
            n_read += len(events)
            kept = events
            if start_us or duration_us is not None:
                kept = events[(events["t"] >= first) & (events["t"] < stop)]
            if shift:
                kept = kept.copy()
                kept["t"] += shift
            if writer is None:
                writer = open_writer(path_out, width, height, format=format)
            if len(kept):
                writer.write(kept)
                n_written += len(kept)
            if int(events["t"][-1]) >= stop and reading.backward != "pass":
                break
    except _Torn as error:
        fault = str(error)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:  # an input without events becomes a file without events
        open_writer(path_out, width, height, format=format).close()
    return Converted(writable_format(path_out, format), width, height, n_read, n_written, losses(), fault)


class _Torn(Exception):
    """The source's fault, told apart from one of the target."""


def _faults(opened: OpenEvents, progress: Callable[[int, int], None]) -> Iterator[NDArray[np.void]]:
    try:
        for events in opened:
            progress(*opened.progress())
            yield events
    except FormatError as error:
        raise _Torn(str(error)) from error


def _is_recording(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False  # whoever reads it says why


def _recording(path: Path, reading: Reading) -> tuple[int, int, Iterator[NDArray[np.void]], Callable[[], list[str]]]:
    """Open the events of a recorder's file."""
    if reading.width is None or reading.height is None:
        raise ConfigError(f"{path}: a recording does not hold the sensor's size; give width and height")
    stream = RecordedStream(path=str(path), port=reading.content or None)
    n_marks = 0

    def chunks() -> Iterator[NDArray[np.void]]:
        nonlocal n_marks
        while not isinstance(message := stream.poll(1 << 16), End):
            if isinstance(message, Packet):
                yield message.items
            else:
                n_marks += 1
        if message.reason:
            raise _Torn(message.reason)

    return (
        reading.width,
        reading.height,
        chunks(),
        lambda: [f"{n_marks} marks (labels, resets) have no place in an event file"] if n_marks else [],
    )
