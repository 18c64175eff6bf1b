"""Writing a flat event file: events in, bytes out, nothing that has to be mended at the end.

Each format gives its header, the first event that it cannot hold, and the bytes of events. What is common stands here:
a file is opened once, ``write`` takes events in any pieces, and where the pieces are cut changes no byte of the file.
An event that the format cannot hold ends the writing: what came before it is in the file, and the error names it by its
place in the whole recording. So does a full disk. A file that was left without ``close`` reads up to its last
write.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError, FormatError
from stream.jit import kernel
from stream.packet import EVENT_DTYPE

__all__ = ["FlatWriter", "own"]


@kernel
def first_unfit(events: NDArray[np.void], last_us: int, width: int, height: int) -> int:
    """Return the index of the first event that steps back in time or lies outside of the sensor, else their number.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,).
    last_us
        Time of the event before the first, us.
    width, height
        The sensor, pixels.
    """
    for index in range(len(events)):
        event = events[index]
        if event["t"] < last_us or event["x"] >= width or event["y"] >= height or event["p"] > 1:
            return index
        last_us = event["t"]
    return len(events)


def own(events: NDArray[np.void]) -> NDArray[np.void]:
    """Make events contiguous and writable, so that each kernel has a single signature."""
    events = np.ascontiguousarray(events, EVENT_DTYPE)
    return events if events.flags.writeable else events.copy()


class FlatWriter:
    """Base of the writers of flat formats.

    Parameters
    ----------
    path
        The file; replaced if it is there.
    width, height
        The sensor, pixels.

    Raises
    ------
    ConfigError
        The sensor's size is none that the format can hold, or the file cannot be opened.
    """

    name = ""  # of the format, for messages
    most_pixels = 65536  # width and height at most
    first_us = 0  # the lowest time that can be written
    holds = "sorted times from 0 on"  # what the format can hold, for messages

    def __init__(self, path: Path, width: int, height: int) -> None:
        if not (0 < width <= self.most_pixels and 0 < height <= self.most_pixels):
            raise ConfigError(
                f"{path}: got a sensor of {width}x{height} pixels, wanted 1 to {self.most_pixels} each way for "
                f"{self.name}; give its true size, or write another format"
            )
        self.path, self.width, self.height = path, width, height
        self.n_events = 0  # written so far
        self._last_us = self.first_us
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}; name another file") from error
        self._put(self._header())

    def _header(self) -> bytes:
        """Give the bytes before the first event."""
        return b""

    def _first_unfit(self, events: NDArray[np.void], last_us: int) -> int:
        """Return the index of the first event that the format cannot hold for a reason of its own."""
        return len(events)

    def _encode(self, events: NDArray[np.void]) -> Iterator[bytes]:
        """Give the bytes of events that fit."""
        raise NotImplementedError

    def _tail(self) -> Iterator[bytes]:
        """Give what was held back."""
        return iter(())

    def write(self, events: NDArray[np.void]) -> None:
        """Append events.

        Parameters
        ----------
        events
            EVENT_DTYPE, shape (n,), sorted by time, inside of the sensor, not before those of the last call.

        Raises
        ------
        FormatError
            The format cannot hold an event, or the disk failed. The events before it were written.
        """
        events = own(events)
        n_fit = first_unfit(events, self._last_us, self.width, self.height)
        n_fit = self._first_unfit(events[:n_fit], self._last_us)
        for block in self._encode(events[:n_fit]):
            self._put(block)
        if n_fit:
            self._last_us = int(events["t"][n_fit - 1])
            self.n_events += n_fit
        if n_fit < len(events):
            event = events[n_fit]
            raise FormatError(
                f"{self.path}: event {self.n_events} (t {event['t']} us, x {event['x']}, y {event['y']}, p "
                f"{event['p']}), after one at {self._last_us} us: {self.name} of {self.width}x{self.height} pixels "
                f"holds {self.holds}, polarity 0 or 1; sort, crop or shift the events; those before were written"
            )

    def _put(self, block: bytes) -> None:
        try:
            self._file.write(block)
        except OSError as error:
            raise FormatError(
                f"{self.path}: writing failed at event {self.n_events}: {error.strerror or error}; what came before "
                f"was written; make room, or write elsewhere"
            ) from error

    def close(self) -> None:
        """Write what was held back and close the file. Idempotent."""
        if not self._file.closed:
            try:
                for block in self._tail():
                    self._put(block)
            finally:
                try:
                    self._file.close()
                except OSError as error:
                    raise FormatError(
                        f"{self.path}: writing failed at its end: {error.strerror or error}; make room, or write "
                        f"elsewhere"
                    ) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()
