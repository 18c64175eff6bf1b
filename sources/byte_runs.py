"""Runs of bytes of any length, from a file, a growing file or standard input.

``sources.byte_stream`` hands out records of one size. Formats made of packets say in each packet how long it is: they
ask here, in a generator, with ``run = yield from runs.take(n_bytes)``. While there are no bytes yet, that yields empty
event arrays, as a decoder has to.
"""

from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.byte_stream import ByteStream
from stream.packet import EVENT_DTYPE

__all__ = ["NOTHING_YET", "ByteRuns"]

NOTHING_YET: NDArray[np.void] = np.empty(0, EVENT_DTYPE)


class ByteRuns:
    """Read a path from a byte on.

    Parameters
    ----------
    path, begin, follow_s
        As for ``ByteStream``.

    Attributes
    ----------
    position : int
        Byte in the file of the next run.
    """

    def __init__(self, path: Path, *, begin: int = 0, follow_s: float = 0.0) -> None:
        self.position = begin
        self._stream = ByteStream(path, begin=begin, follow_s=follow_s)
        self._blocks: Iterator[NDArray[np.uint8]] = self._stream.records(1)
        self._block = np.empty(0, np.uint8)

    def take(self, n_bytes: int) -> Generator[NDArray[np.void], None, NDArray[np.uint8]]:
        """Return the next bytes: uint8, shape (n_bytes,), writable; fewer only at the end of the file.

        Memory grows with what is there, not with what is asked for: a damaged length costs nothing.
        """
        taken = bytearray()
        while len(taken) < n_bytes:
            if not len(self._block):
                block = next(self._blocks, None)
                if block is None:
                    break
                if not len(block):
                    yield NOTHING_YET
                    continue
                self._block = block
            part = self._block[: n_bytes - len(taken)]
            taken += part.data
            self._block = self._block[len(part) :]
        self.position += len(taken)
        return np.frombuffer(taken, np.uint8)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._stream.close()

    def __enter__(self) -> "ByteRuns":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()
