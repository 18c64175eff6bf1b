"""Cameras through dv-processing: DAVIS, DVS128, DVXplorer and their kin, of iniVation.

The library (Apache-2.0) tells neither what waits nor what it dropped, so neither is shown. Its times are microseconds
since 1970.
"""

import importlib
import time
from typing import Any

from sources.camera_driver import READ_S, DriverPacket, FoundCamera, library_version, pack_events, wait_a_little

__all__ = ["check", "find", "open_camera"]

_NAME = "dv_processing"


def check() -> str:
    """Return the library's version; ImportError with the reason if it cannot be used."""
    return library_version(_NAME, "dv-processing")


def find() -> list[FoundCamera]:
    """List what is plugged in."""
    library = importlib.import_module(_NAME)
    return [
        FoundCamera(_NAME, str(found.cameraModel.name), str(found.serialNumber), "")
        for found in library.io.camera.discover()
    ]


class _Camera:
    def __init__(self, serial: str) -> None:
        camera = importlib.import_module(_NAME).io.camera
        # asked for first: to open what is not there raises an IndexError without a word of sense
        found = [device for device in camera.discover() if not serial or device.serialNumber == serial]
        if not found:
            raise ConnectionError("no such camera is plugged in")
        self._camera: Any = camera.open(found[0])
        size = self._camera.getEventResolution()
        if size is None:
            raise ConnectionError("the camera has no event stream")
        self.width: int | None = int(size[0])
        self.height: int | None = int(size[1])
        self.serial = str(found[0].serialNumber)

    def read(self) -> DriverPacket | None:
        until_s = time.monotonic() + READ_S
        while True:
            batch = self._camera.getNextEventBatch()
            if batch is not None and batch.size():
                found = batch.numpy()
                events = pack_events(found["timestamp"], found["x"], found["y"], found["polarity"])
                return DriverPacket(events, time.monotonic_ns())
            if not self._camera.isRunning():
                raise ConnectionError("dv-processing says that the camera no longer runs")
            if not wait_a_little(until_s):
                return None

    def close(self) -> None:
        self._camera = None  # the library closes it with its last reference


def open_camera(serial: str) -> _Camera:
    """Open the camera of that serial, or the first one; whatever the library raises if that fails."""
    return _Camera(serial)
