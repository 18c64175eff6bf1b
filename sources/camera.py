"""A live event camera as a source.

One thread reads the camera as fast as it comes and puts what it gets into a bounded queue; the pipeline takes it from
there (see ``sources.live_stream``). What is dropped is counted, here and, where it tells, in the driver.

A camera that is lost (a pulled plug, a tired hub) is looked for again, the same serial, after waits that double from
``retry_s`` to five seconds. What then comes continues the stream after a ``Reset`` mark; the rule for its times is in
``sources.live_stream``. After ``patience_s`` in vain the stream ends with its reason.

Which driver
------------
``auto`` takes the first that is installed and sees the camera, in this order: ``neuromorphic_drivers`` (most cameras,
and the only one that tells what it drops), ``dv_processing`` (iniVation's own), ``openeb`` (if it is importable).
``aestream`` must be asked for: see ``sources.camera_aestream``.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

from sources import camera_aestream, camera_dv, camera_neuromorphic, camera_openeb
from sources.camera_driver import Driver, FoundCamera
from sources.camera_usb import has_usb, permission_advice, usb_cameras
from sources.live_stream import LiveStream, PacketQueue, Queued
from stream.errors import ConfigError
from stream.operator import Port, Snapshot, Source
from stream.packet import End, Message

__all__ = ["Camera", "DriverName", "DriverReport", "list_cameras"]

DriverName: TypeAlias = Literal["auto", "neuromorphic_drivers", "dv_processing", "openeb", "aestream"]

RETRY_LIMIT_S = 5.0
_STABLE_S = 1.0  # a camera that was found again and lives so long is no longer lost, even if it has nothing to say


class _Library(NamedTuple):
    """A driver library."""

    check: Callable[[], str]
    find: Callable[[], list[FoundCamera]]
    open_camera: Callable[[str], Driver]
    way_out: str


_EXTRA = "pip install 'hebbstream[camera]'"
_LIBRARIES: dict[str, _Library] = {
    "neuromorphic_drivers": _Library(
        camera_neuromorphic.check, camera_neuromorphic.find, camera_neuromorphic.open_camera, _EXTRA
    ),
    "dv_processing": _Library(camera_dv.check, camera_dv.find, camera_dv.open_camera, _EXTRA),
    "openeb": _Library(
        camera_openeb.check,
        camera_openeb.find,
        camera_openeb.open_camera,
        "install OpenEB or the Metavision SDK of Prophesee, with its Python folder on PYTHONPATH",
    ),
    "aestream": _Library(
        camera_aestream.check,
        camera_aestream.find,
        camera_aestream.open_camera,
        "compile aestream with libcaer or OpenEB",
    ),
}


class DriverReport(NamedTuple):
    """What a driver library says of this machine."""

    driver: str
    version: str  # empty if it cannot be used
    fault: str  # why it cannot be used, or cannot look for cameras; else empty
    way_out: str  # how to get it
    cameras: list[FoundCamera]


def list_cameras() -> list[DriverReport]:
    """Ask every driver what it sees. A camera that two drivers know stands under both."""
    return [_ask(name) for name in _LIBRARIES]


def _ask(name: str) -> DriverReport:
    library = _LIBRARIES[name]
    try:
        version = library.check()
    except ImportError as error:
        return DriverReport(name, "", str(error), library.way_out, [])
    try:
        return DriverReport(name, version, "", library.way_out, library.find())
    except Exception as error:  # a native library raises what it likes
        return DriverReport(name, version, f"cannot look for cameras: {_words(error)}", library.way_out, [])


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _open_first(driver: DriverName, serial: str) -> tuple[str, Driver]:
    """Open the first camera that can be opened; ConfigError with the way out if none can."""
    who = f"camera {serial}" if serial else "camera"
    reports = [_ask(name) for name in (_LIBRARIES if driver == "auto" else [driver])]
    usable = [report for report in reports if report.version]
    if not usable and driver != "auto":
        raise ConfigError(f"{who}: the driver {driver} cannot be used: {reports[0].fault}; {reports[0].way_out}")
    if not usable:
        told = ", ".join(f"{report.driver} {report.fault}" for report in reports)
        raise ConfigError(f"{who}: got no driver that can be used ({told}), wanted one of them; {_EXTRA}")
    troubles: list[str] = []
    others: list[str] = []  # serials of cameras that were not asked for
    was_seen = False
    for report in usable:
        found = report.cameras
        if report.fault:
            troubles.append(f"{report.driver} {report.fault}")
        elif report.driver == "aestream" and driver == "aestream":
            found = [FoundCamera("aestream", "camera", serial, "")]
        for camera in found:
            fault = camera.fault
            if camera.serial and serial not in ("", camera.serial):
                others.append(camera.serial)
                continue
            if not fault and camera.serial != serial and serial:
                fault = "does not tell its serial"
            if not fault:
                try:
                    return report.driver, _LIBRARIES[report.driver].open_camera(camera.serial)
                except Exception as error:
                    fault = _words(error)
            was_seen = True
            troubles.append(f"{report.driver}: {camera.name} {camera.serial}: {fault}".replace(" :", ":"))
    raise ConfigError(
        f"{who}: got none ({'; '.join(troubles) or 'none is plugged in'}), looked with "
        f"{', '.join(report.driver for report in usable)}; {_way_out([] if was_seen else sorted(set(others)))}"
    )


def _way_out(others: list[str]) -> str:
    """Say what to do when no camera could be opened."""
    if others:
        return f"take one of these serials: {', '.join(others)}"
    if not has_usb():
        return "this machine shows no USB at all; in a container, pass it in (docker run --device /dev/bus/usb)"
    plugged = usb_cameras()
    for camera in plugged:
        if not camera.may_open:
            return f"{camera.maker} ({camera.ids}) is plugged in, but you may not open it: {permission_advice()}"
    if plugged:
        return f"{plugged[0].maker} ({plugged[0].ids}) is plugged in: close other programs that use it"
    return "plug it in, look at `hebbstream doctor`, or play a file or the simulated camera instead"


class Camera(Source):
    """Stream from a camera.

    Parameters
    ----------
    serial
        Which one; empty = the first that can be opened. `hebbstream doctor` lists them.
    driver
        Library to use; see the module.
    width, height
        Sensor's size, pixels; both or neither. Needed only where the driver does not tell it (aestream).
    queue_events, queue_bytes
        What may wait for a slow pipeline; beyond either, the oldest packets are dropped and counted. One packet of
        the driver is kept however large it is.
    patience_s
        How long to look for a camera that was lost before the stream ends, s; 0 = do not look, ``inf`` = for ever.
    retry_s
        First wait before looking, s; doubles up to five seconds.

    Raises
    ------
    ConfigError
        No driver is installed, no camera is there, it may not be opened, or its size is not known.

    Notes
    -----
    ``origin_ns`` of a packet is when the host received it. A live camera cannot go back: a snapshot holds the state of
    its clock alone, and what comes after a restore continues behind a ``Reset`` mark, by the wall clock.

    Drivers hold Python's interpreter while they open a camera, so the process of this source stands still for a part of
    a second when a lost camera is found again.
    """

    def __init__(
        self,
        *,
        serial: str = "",
        driver: DriverName = "auto",
        width: int | None = None,
        height: int | None = None,
        queue_events: int = 4_000_000,
        queue_bytes: int = 64 << 20,
        patience_s: float = 60.0,
        retry_s: float = 0.25,
    ) -> None:
        if driver not in get_args(DriverName):
            raise ConfigError(f"camera: got driver {driver!r}, wanted one of {', '.join(get_args(DriverName))}")
        if (width is None) != (height is None) or not all(
            side is None or 1 <= side <= 1 << 16 for side in (width, height)
        ):
            raise ConfigError(f"camera: got width {width} and height {height}, wanted both from 1 to 65536, or neither")
        if not patience_s >= 0 or not retry_s > 0:
            raise ConfigError(
                f"camera: got patience_s {patience_s} and retry_s {retry_s}; wanted 0 s or more, and more than 0 s"
            )
        self._queue = PacketQueue(queue_events, queue_bytes)
        self.driver, camera = _open_first(driver, serial)
        try:
            self.serial = camera.serial or serial
            self._subject = f"camera {self.serial}".strip()
            self._size = self._settle_size(camera, width, height)
            self.outputs = {"events": Port("events", *self._size)}
            self._live = LiveStream(self._subject, *self._size)
        except BaseException:
            camera.close()
            raise
        self._patience_s, self._retry_s, self._wait_s = patience_s, retry_s, retry_s
        self._backlog: int | None = None
        self._most_backlog = 0
        self._driver_dropped: int | None = None  # by the driver since it was opened
        self._driver_dropped_before = 0  # in earlier epochs
        self._losses = self._reopened = 0
        self._lost_s: float | None = None  # since when the camera is lost, monotonic; None = it is there
        self._last_loss_s: float | None = None
        self._fault: str | None = None  # why the reader gave up
        self._end: End | None = None
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(camera,), name=self._subject, daemon=True)
        self._reader.start()

    def _settle_size(self, camera: Driver, width: int | None, height: int | None) -> tuple[int, int]:
        if camera.width is not None and camera.height is not None:
            told = camera.width, camera.height
            if width is not None and (width, height) != told:
                raise ConfigError(
                    f"{self._subject}: has {told[0]}x{told[1]} pixels, not {width}x{height}; give no size"
                )
            return told
        if width is None or height is None:
            raise ConfigError(f"{self._subject}: {self.driver} does not tell the sensor's size; set width and height")
        return width, height

    # The reader's thread

    def _read(self, camera: Driver) -> None:
        """Read the camera, and find it again when it is lost, until told to stop or out of patience."""
        try:
            while not self._stopping.is_set():
                words = self._read_until_lost(camera)
                if words is None:
                    return
                found = self._find_again(words)
                if found is None:
                    return
                camera = found
        except BaseException as error:  # nobody else would notice: the stream would be silent for ever
            self._fault = f"{self._subject}: {error!r}"
            raise

    def _read_until_lost(self, camera: Driver) -> str | None:
        """Fill the queue; returns why the camera is lost, None if told to stop."""
        opened_s = time.monotonic()
        try:
            while not self._stopping.is_set():
                packet = camera.read()
                if self._lost_s is not None and (packet is not None or time.monotonic() - opened_s > _STABLE_S):
                    self._lost_s, self._wait_s = None, self._retry_s
                if packet is None:
                    continue
                if packet.backlog is not None:
                    self._backlog, self._most_backlog = packet.backlog, max(self._most_backlog, packet.backlog)
                if packet.dropped is not None:
                    self._driver_dropped = packet.dropped
                if len(packet.events):
                    self._queue.put(Queued(packet.events, packet.host_ns, self._reopened))
            return None
        except Exception as error:  # a native library raises what it likes
            return _words(error)
        finally:
            with contextlib.suppress(Exception):  # a lost camera may fail to close too: nothing is left to be saved
                camera.close()

    def _find_again(self, words: str) -> Driver | None:
        """Open the same camera again; None if told to stop, or if patience is at its end."""
        now_s = time.monotonic()
        self._losses += 1
        self._last_loss_s = now_s
        if self._lost_s is None:
            self._lost_s = now_s
        failure = ""
        while (left_s := self._lost_s + self._patience_s - time.monotonic()) > 0:
            if self._stopping.wait(min(self._wait_s, left_s)):
                return None
            self._wait_s = min(2 * self._wait_s, RETRY_LIMIT_S)
            try:
                camera = _LIBRARIES[self.driver].open_camera(self.serial)
            except Exception as error:
                failure = f" (last: {_words(error)})"
                continue
            if camera.width is not None and (camera.width, camera.height) != self._size:
                failure = f" (last: another camera, of {camera.width}x{camera.height} pixels)"
                camera.close()
                continue
            self._reopened += 1
            self._driver_dropped_before += self._driver_dropped or 0
            self._driver_dropped = None
            return camera
        self._fault = (
            f"{self._subject}: lost ({words}) and not found again within {self._patience_s:g} s{failure}; look at its "
            f"cable and hub"
        )
        return None

    # The pipeline's thread

    def poll(self, max_items: int) -> Message | None:
        """Hand out what came, at most ``max_items``; ``End`` once the camera is lost for good."""
        if self._end is not None:
            return self._end
        while (message := self._live.pop(max_items)) is None:
            fault = self._fault  # looked at first: what came before the fault is in the queue
            packet = self._queue.take()
            if packet is not None:
                self._live.push(packet)
            elif fault is None:
                return None
            else:
                self._end = self._live.end(fault)
                return self._end
        return message

    def snapshot(self) -> Snapshot:
        """Return the state of the clock."""
        return self._live.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Go on in time; what was recorded in between is the gap before the next ``Reset`` mark."""
        self._live.restore(snapshot)

    def statistics(self) -> dict[str, float]:
        """Return what came, what was lost, where, and how long the camera was away."""
        now_s = time.monotonic()
        lost_s, last_s = self._lost_s, self._last_loss_s
        shown: dict[str, float] = {
            **self._live.statistics(),
            **self._queue.statistics(),
            "times lost": self._losses,
            "times found again": self._reopened,
            "seconds lost now": now_s - lost_s if lost_s is not None else 0.0,
        }
        if last_s is not None:
            shown["seconds since last loss"] = now_s - last_s
        if self._backlog is not None:
            shown["driver's backlog"] = self._backlog
            shown["driver's greatest backlog"] = self._most_backlog
        if self._driver_dropped is not None or self._driver_dropped_before:
            shown["driver's packets dropped"] = self._driver_dropped_before + (self._driver_dropped or 0)
        return shown

    def close(self) -> None:
        """Let go of the camera; a later ``poll`` says End."""
        self._stopping.set()
        self._reader.join(timeout=5)  # a driver that hangs is left behind, as a daemon
        self._end = self._end or self._live.end("closed")
