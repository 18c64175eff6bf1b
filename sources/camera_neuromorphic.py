"""Cameras through neuromorphic-drivers: EVK3 HD, EVK4, SilkyEvCam, IDS uEye EVS, Lucid Triton, DVXplorer, DAVIS346.

The library (MIT) tells with every packet how many USB packets wait in its ring, how
many it has dropped since it was opened, and when the first of them was received.
"""

import importlib
import time
from typing import Any

import numpy as np

from sources.camera_driver import READ_S, DriverPacket, FoundCamera, library_version, pack_events
from stream.packet import EVENT_DTYPE

__all__ = ["check", "find", "open_camera"]

_NAME = "neuromorphic_drivers"


def check() -> str:
    """Return the library's version; ImportError with the reason if it cannot be used."""
    return library_version(_NAME, _NAME)


def find() -> list[FoundCamera]:
    """List what is plugged in; RuntimeError where the system has no USB at all."""
    try:
        devices = importlib.import_module(_NAME).list_devices()
    except RuntimeError as error:
        # "Other error" is all that it says on a machine or in a container without USB
        raise RuntimeError(f"no USB that it can use ({error})") from error
    return [FoundCamera(_NAME, device.name.value, device.serial or "", device.error or "") for device in devices]


class _Camera:
    def __init__(self, serial: str) -> None:
        library = importlib.import_module(_NAME)
        self._device: Any = library.open(iterator_timeout=READ_S, serial=serial or None)
        try:
            properties = self._device.properties()
            self.width: int | None = int(properties.width)
            self.height: int | None = int(properties.height)
            self.serial: str = self._device.serial()
        except BaseException:
            self._device.close()
            raise

    def read(self) -> DriverPacket | None:
        status, packet = next(self._device)
        found = None if packet is None else packet.polarity_events
        if status.ring is None and found is None:
            return None
        events = np.empty(0, EVENT_DTYPE)
        if found is not None:
            events = pack_events(found["t"], found["x"], found["y"], found["on"])
        if status.ring is None:
            return DriverPacket(events, time.monotonic_ns())
        # both are wall times, close together: their difference survives a step of that clock almost always
        age_s = max(0.0, status.system_time - status.ring.system_time)
        host_ns = time.monotonic_ns() - int(age_s * 1e9)
        return DriverPacket(events, host_ns, int(status.ring.backlog), int(status.ring.dropped_packets))

    def close(self) -> None:
        self._device.close()


def open_camera(serial: str) -> _Camera:
    """Open the camera of that serial, or the first one; whatever the library raises if that fails."""
    return _Camera(serial)
