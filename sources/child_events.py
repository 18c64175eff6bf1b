"""Another process that hands over events through a pipe.

Some libraries crash or hang on what a stranger sends them, and would take the node with them. So they read in a process
of their own and write event records to its standard output. Here its end is told as it was: a clean end, an exit code
with the last words, a signal by its name, or a silence that was too long.

The pipe is the queue: it holds 64 KiB or so, then the child waits.
"""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stream.packet import EVENT_DTYPE

__all__ = ["ChildEvents"]

_READ_BYTES = 1 << 20
_WORDS_BYTES = 2000  # of a child's last words, what fits into an error message


class ChildEvents:
    """Event records that another process writes to a pipe.

    Parameters
    ----------
    command
        Program and arguments. It writes EVENT_DTYPE records to its standard output and ends with code 0.
    silence_s
        Kill it after so much silence, s; 0 = never.
    """

    def __init__(self, command: Sequence[str], *, silence_s: float) -> None:
        self._silence_s = silence_s
        self._torn = b""  # the first bytes of a record whose rest is still in the pipe
        # a file, because a pipe that nobody reads fills up and stalls the child
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the child
        self.process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._words
        )
        assert self.process.stdout is not None
        self._pipe = self.process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self._heard_s = time.monotonic()
        self.fault: str | None = None  # None while it runs, then why it ended; "" = it simply came to its end

    def read(self, max_items: int) -> NDArray[np.void] | None:
        """Return the next records, unchecked, shape (n,); None if nothing is there yet, or no more (see ``fault``)."""
        got = self.read_bytes(max(1, max_items) * EVENT_DTYPE.itemsize - len(self._torn))
        if got is None:
            return None
        got = self._torn + got
        whole = len(got) // EVENT_DTYPE.itemsize * EVENT_DTYPE.itemsize
        self._torn = got[whole:]
        # a copy, because kernels are compiled for writeable arrays
        return np.frombuffer(got[:whole], EVENT_DTYPE).copy() if whole else None

    def read_bytes(self, wanted: int) -> bytes | None:
        """Return what is there, at most so many bytes, for a child that writes something else than records."""
        if self.fault is not None:
            return None
        try:
            got = os.read(self._pipe.fileno(), min(wanted, _READ_BYTES))
        except BlockingIOError:
            if self._silence_s and time.monotonic() - self._heard_s > self._silence_s:
                self.process.kill()
                self.fault = f"said nothing for {self._silence_s:g} s and was killed{self._last_words()}"
                self._release()
            return None
        if not got:
            self.fault = self._verdict()
            self._release()
            return None
        self._heard_s = time.monotonic()
        return got

    def _verdict(self) -> str:
        """Tell why the pipe was closed."""
        try:
            code = self.process.wait(timeout=5)  # it closed its pipe, so it is about to end
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "closed its pipe but did not end, and was killed"
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = "unknown"
            return f"was ended by signal {-code} ({name}){self._last_words()}"
        if code:
            return f"failed with exit code {code}{self._last_words()}"
        return f"ended inside of an event ({len(self._torn)} of {EVENT_DTYPE.itemsize} bytes)" if self._torn else ""

    def _last_words(self) -> str:
        size = self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, size - _WORDS_BYTES))
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def _release(self) -> None:
        self.process.wait()
        self._pipe.close()
        self._words.close()

    def close(self) -> None:
        """End the process. Idempotent."""
        if self.fault is None:
            self.fault = "closed"
            self.process.kill()
            self._release()
