"""Bytes of a file, of a file that still grows, or of standard input, as whole records.

Decoders ask here for the next records and get one of three answers: some bytes, none *yet* (an empty array; ask again
later), or the end. So each of them reads finished files, growing ones and pipes alike, at bounded memory, and none of
them ever waits: a source must not block the pipeline it feeds.

Standard input is called ``-``. It cannot be read twice, so the bytes that were looked at to recognise the format are
kept and handed out again as its first.
"""

import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import FormatError

__all__ = ["STANDARD_INPUT", "ByteStream", "Place", "peek"]

STANDARD_INPUT = Path("-")
_HEAD_PATIENCE_S = 0.5  # how long the first bytes of a pipe may dribble
_head = bytearray()  # of standard input: looked at, not handed out yet


class Place(NamedTuple):
    """Where a decoder of a flat format may begin again: between two chunks, with what it knew there."""

    position: int  # byte
    state: NDArray[np.int64]  # of its kernel


def peek(path: Path, n_bytes: int) -> bytes:
    """Look at the first bytes without using them up.

    From standard input these are fewer than ``n_bytes`` if it ends or pauses; the first of them are waited for.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    if path != STANDARD_INPUT:
        with path.open("rb") as file:
            return file.read(n_bytes)
    descriptor = sys.stdin.fileno()
    while len(_head) < n_bytes:
        ready, _, _ = select.select([descriptor], [], [], _HEAD_PATIENCE_S if _head else None)
        block = os.read(descriptor, n_bytes - len(_head)) if ready else b""
        if not block:
            break
        _head.extend(block)
    return bytes(_head[:n_bytes])


class ByteStream:
    """Read a path from a byte on, without ever waiting.

    Parameters
    ----------
    path
        A file, or ``-`` for standard input.
    begin
        The first byte wanted. Standard input is skipped up to it.
    follow_s
        A file counts as ended only when it has not grown for so long, seconds. 0 for a finished file.

    Attributes
    ----------
    position : int
        Byte in the file of the next record to be handed out.
    """

    def __init__(self, path: Path, *, begin: int = 0, follow_s: float = 0.0) -> None:
        self.path, self.position = path, begin
        self._follow_s = follow_s
        self._last_growth_s = time.monotonic()
        self._is_input = path == STANDARD_INPUT
        self._to_skip = begin if self._is_input else 0
        self._file = None if self._is_input else path.open("rb", buffering=0)
        if self._file is not None:
            self._file.seek(begin)

    def records(self, record_bytes: int, *, chunk_bytes: int = 1 << 17) -> Iterator[NDArray[np.uint8]]:
        """Hand out whole records.

        Parameters
        ----------
        record_bytes
            Size of one; 1 for formats whose records differ in length.
        chunk_bytes
            How much is read at a time, at least one record. Carries no meaning.

        Yields
        ------
        raw
            uint8, shape (n * record_bytes,), writable, its memory used again for the next; empty: nothing yet.

        Raises
        ------
        FormatError
            The file ends within a record, or reading failed; after everything before it was handed out.
        """
        buffer = np.empty(max(1, chunk_bytes // record_bytes) * record_bytes, np.uint8)
        torn = 0  # bytes at the front that are no whole record yet
        while True:
            try:
                n_bytes = self._read_into(buffer[torn:].data)
            except OSError as error:
                raise FormatError(
                    f"{self.path}: reading failed at byte {self.position + torn}: {error}; what came before was read"
                ) from error
            if n_bytes is None:
                yield buffer[:0]
                continue
            if not n_bytes:
                break
            whole = (torn + n_bytes) // record_bytes * record_bytes
            torn += n_bytes - whole
            if whole:
                self.position += whole
                yield buffer[:whole]
                buffer[:torn] = buffer[whole : whole + torn].copy()
        if torn:
            raise FormatError(
                f"{self.path}: torn record at byte {self.position} of {self.position + torn}: got {torn} bytes, "
                f"wanted {record_bytes}; everything before was read, copy the file again for the rest"
            )

    def _read_into(self, buffer: memoryview) -> int | None:
        """Fill what can be filled now; 0 = the end, None = nothing yet."""
        if self._file is not None:
            n_bytes = self._file.readinto(buffer)
            now = time.monotonic()
            if n_bytes:
                self._last_growth_s = now
            elif now - self._last_growth_s < self._follow_s:
                return None
            return n_bytes
        while self._to_skip:
            n_bytes = self._from_input(memoryview(bytearray(min(self._to_skip, 1 << 16))))
            if not n_bytes:
                return n_bytes
            self._to_skip -= n_bytes
        return self._from_input(buffer)

    def _from_input(self, buffer: memoryview) -> int | None:
        if _head:
            n_bytes = min(len(_head), len(buffer))
            buffer[:n_bytes] = _head[:n_bytes]
            del _head[:n_bytes]
            return n_bytes
        descriptor = sys.stdin.fileno()
        if not select.select([descriptor], [], [], 0)[0]:
            return None
        return os.readv(descriptor, [buffer])

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "ByteStream":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()
