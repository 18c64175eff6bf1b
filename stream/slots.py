"""Shared memory of an edge between two processes of one machine: ZeroMQ carries the hand-over, memory the payload.

The sender makes an anonymous file in memory (``memfd_create``, Linux) of ``n`` slots and names it in its hello as
``/proc/PID/fd/N``; the receiver opens that, if it can. There is no name in any file system, so nothing stays behind
however a process ends. A slot is written again only when its message has been acknowledged: the credit of the edge is
the lock. Where there is no such thing (another machine, another user, another system) payloads travel in the message.

The receiver maps the file only if it is sealed against shrinking: a peer that cut it would otherwise kill us (SIGBUS).
"""

import contextlib
import mmap
import os
import re
import stat

import numpy as np
from numpy.typing import NDArray

__all__ = ["Slots"]

SLOT_BYTES = 1 << 20  # memory is taken when written to, not before
_PLACE = re.compile(r"/proc/[0-9]{1,10}/fd/[0-9]{1,6}")


class Slots:
    """Slots of shared memory; made by :meth:`create` or :meth:`open`.

    Parameters
    ----------
    memory
        The mapped file.
    place
        Where another process finds it.
    fd
        To be closed with it.
    """

    def __init__(self, memory: mmap.mmap, place: str, fd: int) -> None:
        self.place, self.n = place, len(memory) // SLOT_BYTES
        self._memory, self._fd = memory, fd
        self._bytes = np.frombuffer(memory, np.uint8)

    @classmethod
    def create(cls, n: int) -> "Slots | None":
        """Make n slots; None where the system has no such memory."""
        import fcntl

        if not hasattr(os, "memfd_create") or not hasattr(fcntl, "F_ADD_SEALS"):
            return None
        fd = -1
        try:
            fd = os.memfd_create("hebbstream", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, n * SLOT_BYTES)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            return cls(mmap.mmap(fd, n * SLOT_BYTES), f"/proc/{os.getpid()}/fd/{fd}", fd)
        except OSError:
            if fd >= 0:
                os.close(fd)
            return None

    @classmethod
    def open(cls, place: str) -> "Slots | None":
        """Map a peer's slots; None if that cannot be done safely."""
        if not _PLACE.fullmatch(place):
            return None
        with contextlib.suppress(OSError, ValueError, ImportError):
            import fcntl

            # non-blocking: what stands there may be anything that the peer has open
            fd = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
                size = status.st_size
                if stat.S_ISREG(status.st_mode) and seals & fcntl.F_SEAL_SHRINK and SLOT_BYTES <= size <= 1 << 33:
                    return cls(mmap.mmap(fd, size // SLOT_BYTES * SLOT_BYTES, prot=mmap.PROT_READ), place, -1)
            finally:
                os.close(fd)
        return None

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return slot ``index % n``, uint8, shape (SLOT_BYTES,)."""
        at = index % self.n * SLOT_BYTES
        return self._bytes[at : at + SLOT_BYTES]

    def close(self) -> None:
        """Give the memory back, unless an array still looks at it. Idempotent."""
        self._bytes = np.zeros(0, np.uint8)
        with contextlib.suppress(BufferError):
            self._memory.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
