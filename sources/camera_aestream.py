"""Cameras through aestream, where it was compiled with USB inputs (its wheels were not).

From Python such an aestream gives frames of counts: no times, no polarities. Its *program* prints every event, so that
is what is run, in a process of its own, and read here: ``time,x,y,polarity``, a line each. Good for a million events a
second or so; neither the sensor's size nor anything lost is told. It lists no cameras either, so it is used only where
``driver = "aestream"`` asks for it.
"""

import importlib
import io
import os
import shutil
import sysconfig
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sources.camera_driver import READ_S, DriverPacket, FoundCamera, library_version, pack_events, wait_a_little
from sources.child_events import ChildEvents

__all__ = ["AestreamProgram", "check", "find", "open_camera"]

_INPUTS = {"metavision": "prophesee", "caer": "inivation"}  # what it was compiled with: what its program calls that


def check() -> str:
    """Return aestream's version; ImportError with the reason if it cannot be used."""
    version = library_version("aestream", "aestream")
    _inputs()
    return version


def _inputs() -> list[str]:
    """Return the names of the inputs that are cameras."""
    built_in = list(importlib.import_module("aestream").drivers)
    inputs = [word for driver, word in _INPUTS.items() if driver in built_in]
    if not inputs:
        raise ImportError("installed without USB inputs, as its wheels are")
    return inputs


def find() -> list[FoundCamera]:
    """Return nothing: aestream cannot list cameras."""
    return []


class AestreamProgram:
    """Events that aestream's program prints.

    Parameters
    ----------
    arguments
        Its command line.
    serial
        Of the camera, as far as known.
    """

    width: int | None = None
    height: int | None = None

    def __init__(self, arguments: Sequence[str], serial: str = "") -> None:
        path = os.pathsep.join([os.environ.get("PATH", ""), sysconfig.get_path("scripts")])
        program = shutil.which("aestream", path=path)
        if program is None:
            raise ConnectionError("the program aestream is not on the path")
        self.serial = serial
        self._torn = b""  # the beginning of a line
        self._child = ChildEvents([program, *arguments], silence_s=0)

    def read(self) -> DriverPacket | None:
        """Return what was printed; see ``Driver``."""
        until_s = time.monotonic() + READ_S
        while True:
            got = self._child.read_bytes(1 << 16)
            if got:
                lines, _, self._torn = (self._torn + got).rpartition(b"\n")
                events = parse_lines(lines)
                if len(events):
                    return DriverPacket(events, time.monotonic_ns())
            elif self._child.fault is not None:
                raise ConnectionError(f"aestream {self._child.fault or 'came to its end'}")
            elif not wait_a_little(until_s):
                return None

    def close(self) -> None:
        """End the program."""
        self._child.close()


def parse_lines(lines: bytes) -> NDArray[np.void]:
    """Take lines apart, ``time,x,y,polarity`` each; what else the program says is passed over."""
    if not lines.strip():
        return pack_events(*np.empty((4, 0), np.int64))
    try:
        rows = np.loadtxt(io.BytesIO(lines), np.int64, delimiter=",", comments=None, usecols=range(4), ndmin=2)
    except ValueError:
        words = [line.split(b",") for line in lines.splitlines()]
        good = [word for word in words if len(word) == 4 and all(part.isdigit() and len(part) < 19 for part in word)]
        rows = np.array(good, dtype="S20").astype(np.int64).reshape(-1, 4)
    coordinates = np.where((rows >= 0) & (rows < 1 << 16), rows, (1 << 16) - 1)
    return pack_events(rows[:, 0], coordinates[:, 1], coordinates[:, 2], rows[:, 3])


def open_camera(serial: str) -> AestreamProgram:
    """Run aestream on the camera of that serial, or on the first one."""
    word, *others = _inputs()
    if serial and word != "prophesee":
        raise ConnectionError("aestream finds iniVation's cameras by USB address, not by serial; give none")
    camera = AestreamProgram(["input", word, *([serial] if serial else []), "output", "stdout"], serial)
    if others and not serial:  # compiled for both makers: it is the other's camera if the program gives up at once
        try:
            camera.read()
        except ConnectionError:
            camera.close()
            return AestreamProgram(["input", others[0], "output", "stdout"])
    return camera
