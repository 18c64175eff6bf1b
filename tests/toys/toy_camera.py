"""A camera on a desk that is not there: the real source over a played driver, also in a process of its own."""

import time

import numpy as np

from sources import camera as camera_module
from sources.camera_driver import DriverPacket, FoundCamera
from stream.packet import EVENT_DTYPE


class PlayedDriver:
    """A camera whose events follow the wall clock: one each 100 us; ``lives`` reads, then its plug is pulled."""

    width = height = 10
    serial = "played"
    epoch_s = time.monotonic()

    def __init__(self, lives: int) -> None:
        self.left, self.last_us = lives, 0

    def read(self) -> DriverPacket:
        time.sleep(0.01)
        self.left -= 1
        if not self.left:
            raise OSError("no such device")
        now_us = int((time.monotonic() - self.epoch_s) * 1e6)
        events = np.zeros((now_us - self.last_us) // 100, EVENT_DTYPE)
        events["t"] = self.last_us + 100 * np.arange(len(events))
        self.last_us += 100 * len(events)
        return DriverPacket(events, time.monotonic_ns())

    def close(self) -> None:
        pass


class PlayedCamera(camera_module.Camera):
    """The real source; its driver is played."""

    def __init__(self, *, lives: int = -1) -> None:
        found = [FoundCamera("neuromorphic_drivers", "played", "played", "")]
        camera_module._LIBRARIES["neuromorphic_drivers"] = camera_module._Library(
            lambda: "1", lambda: found, lambda serial: PlayedDriver(lives), ""
        )
        super().__init__(driver="neuromorphic_drivers", retry_s=0.05)
