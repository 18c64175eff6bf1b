"""Cameras through OpenEB or the Metavision SDK, where one of them is installed: Prophesee's own cameras and their kin.

There are no wheels: the user installs or compiles it, and its Python folder must be on the path. (The package
``metavision`` on PyPI is something else.) Only its hardware layer is used. It tells neither what waits nor what was
dropped, so neither is shown.
"""

import importlib
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.camera_driver import READ_S, DriverPacket, FoundCamera, library_version, pack_events, wait_a_little

__all__ = ["check", "find", "open_camera"]

_NAME = "openeb"
_MODULE = "metavision_hal"


def check() -> str:
    """Return the library's version; ImportError with the reason if it cannot be used."""
    return library_version(_MODULE, _MODULE)


def find() -> list[FoundCamera]:
    """List what is plugged in; the library names a camera ``integrator:plugin:serial``."""
    library = importlib.import_module(_MODULE)
    found = [str(name).split(":") for name in library.DeviceDiscovery.list()]
    return [FoundCamera(_NAME, " ".join(parts[:-1]) or "camera", parts[-1], "") for parts in found]


class _Camera:
    def __init__(self, serial: str) -> None:
        library = importlib.import_module(_MODULE)
        device = library.DeviceDiscovery.open(serial)
        if device is None:
            raise ConnectionError("no such camera could be opened")
        geometry = device.get_i_geometry()
        self.width: int | None = int(geometry.get_width())
        self.height: int | None = int(geometry.get_height())
        self.serial = str(device.get_i_hw_identification().get_serial())
        self._parts: list[NDArray[np.void]] = []
        self._decoder: Any = device.get_i_events_stream_decoder()
        device.get_i_event_cd_decoder().add_event_buffer_callback(self._keep)
        self._stream: Any = device.get_i_events_stream()
        self._device: Any = device  # what was got from it lives only as long as it
        self._stream.start()

    def _keep(self, found: NDArray[Any]) -> None:
        """Keep a decoded buffer (the library calls this from within ``decode``)."""
        if len(found):
            self._parts.append(pack_events(found["t"], found["x"], found["y"], found["p"]))

    def read(self) -> DriverPacket | None:
        until_s = time.monotonic() + READ_S
        while True:
            # `wait_next_buffer` would hold the interpreter while it waits
            state = self._stream.poll_buffer()
            if state < 0:
                raise ConnectionError("OpenEB says that the camera sends no more")
            if state > 0:
                host_ns = time.monotonic_ns()
                self._decoder.decode(self._stream.get_latest_raw_data())
                if self._parts:
                    events = np.concatenate(self._parts)
                    self._parts.clear()
                    return DriverPacket(events, host_ns)
            elif not wait_a_little(until_s):
                return None
            if time.monotonic() >= until_s:
                return None

    def close(self) -> None:
        self._stream.stop()
        self._stream = self._decoder = self._device = None


def open_camera(serial: str) -> _Camera:
    """Open the camera of that serial, or the first one; whatever the library raises if that fails."""
    return _Camera(serial)
