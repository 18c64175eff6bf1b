"""What a camera's driver is to us: a small boundary, so that one source serves every library.

A driver module (``sources.camera_*``) has three functions: ``check()`` returns the library's version or raises
ImportError with the reason; ``find()`` lists what is plugged in; ``open_camera(serial)`` opens one. Whatever a driver
raises while it looks, opens or reads is, to the source, the reason why there is no camera.
"""

import importlib
import importlib.metadata
import time
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.packet import EVENT_DTYPE

__all__ = ["READ_S", "Driver", "DriverPacket", "FoundCamera", "library_version", "pack_events", "wait_a_little"]

READ_S = 0.1
"""How long ``Driver.read`` waits at most, s: how fast a source can be closed."""


class DriverPacket(NamedTuple):
    """What a camera handed over at once."""

    events: NDArray[np.void]  # EVENT_DTYPE, (n,), writeable, the reader's own; times and places as the device gave them
    host_ns: int  # when the host received it, monotonic clock
    backlog: int | None = None  # packets that wait in the driver; None = it does not tell
    dropped: int | None = None  # packets that the driver has dropped since the camera was opened; None = not told


class FoundCamera(NamedTuple):
    """A camera that a driver sees."""

    driver: str
    name: str
    serial: str  # empty if it could not be read
    fault: str  # why it cannot be opened; empty if it can


class Driver(Protocol):
    """An open camera."""

    width: int | None  # pixels; None = the driver does not tell
    height: int | None
    serial: str  # empty if the driver does not tell

    def read(self) -> DriverPacket | None:
        """Return what came; None after ``READ_S`` of nothing. Raises, whatever it likes, if the camera is lost."""

    def close(self) -> None:
        """Let go of the camera."""


def library_version(module: str, distribution: str) -> str:
    """Import a library and return its version; ImportError with the reason if that cannot be."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module:
            raise ImportError("not installed") from None
        raise
    except Exception as error:  # a broken native library raises what it likes
        raise ImportError(f"cannot be loaded: {error}") from error
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def pack_events(t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any]) -> NDArray[np.void]:
    """Put columns of integers together, each shape (n,); negative coordinates become too large to be inside."""
    events = np.empty(len(t), EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = t, x.astype(np.uint16), y.astype(np.uint16), p != 0
    return events


def wait_a_little(until_s: float) -> bool:
    """Sleep a millisecond; False if a point of the monotonic clock has passed. For libraries that cannot wait."""
    time.sleep(0.001)
    return time.monotonic() < until_s
