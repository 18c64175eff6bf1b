"""Cameras that are not there, and cameras played at the boundary of the driver libraries.

No camera is plugged into a machine that runs tests, so cameras are played: two functions of the real
neuromorphic-drivers are replaced, the rest (its records, names and signatures) is its own, so what is played here
cannot drift from it unnoticed. dv-processing likewise. OpenEB is played whole: nobody can install it from a wheel.
"""

import importlib
import inspect
import os
import queue
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest

from sources import camera as camera_module
from sources import camera_usb
from sources.camera import Camera, list_cameras
from sources.camera_aestream import AestreamProgram, parse_lines
from sources.camera_usb import udev_rules, usb_cameras
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, End, Packet, Reset
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.run import run

# how neuromorphic-drivers lays polarity events out (its python/src/structured_array.rs)
ND_EVENTS = np.dtype([("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])


def events_at(*times, x=3, y=4):
    events = np.zeros(len(times), EVENT_DTYPE)
    events["t"], events["x"], events["y"] = times, x, y
    events["p"] = np.arange(len(times)) % 2
    return events


def some_events(n, start_us=0, seed=5):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = start_us + np.sort(rng.integers(0, 10_000, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 1280, n), rng.integers(0, 720, n), rng.integers(0, 2, n)
    return events


class PlayedCamera:
    """An EVK4 on the bus. ``show`` makes it send, ``unplug`` and ``plug`` do what they say."""

    def __init__(self, library, serial, name):
        self.library, self.serial, self.name = library, serial, name
        self.error = None
        self.is_plugged, self.opened, self.closed = True, 0, 0
        self.sent = queue.Queue()
        self.backlog = self.dropped = 0
        self.age_s = 0.0

    def show(self, events):
        self.sent.put(events)

    def unplug(self):
        self.is_plugged = False
        self.sent.put(None)  # what came before is still read

    def plug(self):
        self.sent = queue.Queue()
        self.is_plugged = True


class PlayedDevice:
    def __init__(self, camera, timeout):
        self.camera, self.timeout = camera, timeout
        camera.opened += 1

    def serial(self):
        return self.camera.serial

    def properties(self):
        return self.camera.library.prophesee_evk4.Properties()

    def close(self):
        self.camera.closed += 1

    def __iter__(self):
        return self

    def __next__(self):
        library, camera = self.camera.library, self.camera
        status = importlib.import_module("neuromorphic_drivers.status")
        try:
            events = camera.sent.get(timeout=self.timeout)
        except queue.Empty:
            if not camera.is_plugged:
                raise RuntimeError("No such device (it may have been disconnected)") from None
            packet = library.Evt3Packet()
            packet.polarity_events = None
            return status.Status(system_time=time.time(), ring=None), packet
        if events is None:
            raise RuntimeError("No such device (it may have been disconnected)")
        packet = library.Evt3Packet()
        packet.polarity_events = None
        if len(events):
            packet.polarity_events = np.empty(len(events), ND_EVENTS)
            for ours, theirs in zip("txyp", ("t", "x", "y", "on"), strict=True):
                packet.polarity_events[theirs] = events[ours]
        now_s = time.time()
        ring = status.RingStatus(
            system_time=now_s - camera.age_s,
            backlog=camera.backlog,
            raw_packets=1,
            clutch_engaged=False,
            current_t=0,
            dropped_packets=camera.dropped,
        )
        return status.Status(system_time=now_s, ring=ring), packet


@pytest.fixture
def bus(monkeypatch):
    """Return a way to plug in cameras that neuromorphic-drivers sees."""
    library = pytest.importorskip("neuromorphic_drivers")
    signature = inspect.signature(library.open)
    device_type = importlib.import_module("neuromorphic_drivers.device").Device
    assert all(hasattr(device_type, name) for name in ("serial", "properties", "close", "__iter__", "__next__"))
    assert "polarity_events" in library.Evt3Packet.__annotations__
    cameras = []

    def list_devices():
        return [
            library.ListedDevice(
                name=library.Name.PROPHESEE_EVK4,
                connection=library.Connection.USB_SUPER,
                address="",
                serial=None if camera.error else camera.serial,
                error=camera.error,
            )
            for camera in cameras
            if camera.is_plugged
        ]

    def open_device(*arguments, **named):
        asked = signature.bind(*arguments, **named).arguments
        for camera in cameras:
            if camera.is_plugged and asked.get("serial") in (None, camera.serial):
                if camera.error:
                    raise RuntimeError(camera.error)
                return PlayedDevice(camera, asked["iterator_timeout"])
        raise RuntimeError("device with serial not found")

    monkeypatch.setattr(library, "list_devices", list_devices)
    monkeypatch.setattr(library, "open", open_device)

    def plug(serial="00050001"):
        cameras.append(PlayedCamera(library, serial, "Prophesee EVK4"))
        return cameras[-1]

    return plug


@pytest.fixture
def start():
    """Return a way to open sources, which are closed at the end, and leave no thread."""
    sources = []

    def build(**parameters):
        sources.append(Camera(**({"driver": "neuromorphic_drivers", "retry_s": 0.02} | parameters)))
        return sources[-1]

    yield build
    for source in sources:
        source.close()
        source.close()
        assert isinstance(source.poll(1), End)
        assert not source._reader.is_alive()


def receive(source, n, max_items=100_000, limit_s=20.0):
    """Return messages up to so many events."""
    messages, got, until = [], 0, time.monotonic() + limit_s
    while got < n and time.monotonic() < until:
        message = source.poll(max_items)
        assert not isinstance(message, End), message
        if message is None:
            time.sleep(0.001)
            continue
        messages.append(message)
        got += len(message.items) if isinstance(message, Packet) else 0
    assert got == n, source.statistics()
    return messages


def events_of(messages):
    return np.concatenate([message.items for message in messages if isinstance(message, Packet)])


def end_of(source, limit_s=20.0):
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if isinstance(message := source.poll(1000), End):
            assert source.poll(1000) == message
            return message
        time.sleep(0.001)
    raise AssertionError("no End")


def wait_for(condition, limit_s=10.0):
    until = time.monotonic() + limit_s
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    assert condition()


@pytest.mark.parametrize("max_items", [7, 100_000])
def test_what_a_camera_shows_comes_out(bus, start, max_items):
    camera = bus()
    source = start(serial="00050001")
    assert (source.outputs["events"].width, source.outputs["events"].height) == (1280, 720)
    shown = [some_events(500, start_us=k * 10_000, seed=k) for k in range(4)]
    for events in shown:
        camera.show(events)
    messages = receive(source, 2000, max_items)
    assert all(len(message.items) <= max_items for message in messages)
    assert events_of(messages).tobytes() == np.concatenate(shown).tobytes()
    assert source.poll(max_items) is None


def test_packets_carry_the_time_of_their_receipt_and_the_drivers_counts_are_shown(bus, start):
    camera = bus()
    camera.age_s, camera.backlog, camera.dropped = 0.5, 7, 3
    source = start()
    before_ns = time.monotonic_ns()
    camera.show(events_at(1, 2))
    (packet,) = receive(source, 2)
    assert before_ns - 0.5e9 - 0.1e9 < packet.origin_ns < time.monotonic_ns() - 0.4e9
    camera.backlog = 2
    camera.show(events_at())
    wait_for(lambda: source.statistics()["driver's backlog"] == 2)
    assert source.statistics()["driver's greatest backlog"] == 7
    assert source.statistics()["driver's packets dropped"] == 3


def test_poll_never_waits(bus, start):
    bus()
    source = start()
    begin = time.monotonic()
    for _ in range(50):
        assert source.poll(100) is None
    assert time.monotonic() - begin < 1  # it would take five seconds if it waited for the driver


def test_a_camera_that_is_unplugged_and_plugged_in_again_goes_on_behind_a_mark(bus, start):
    other, camera = bus("other"), bus("mine")
    source = start(serial="mine")
    camera.dropped = 2
    camera.show(events_at(1_000_000, 1_000_500))
    first_ns = receive(source, 2)[0].origin_ns
    camera.unplug()
    wait_for(lambda: source.statistics()["times lost"] == 1)
    assert source.poll(10) is None
    assert source.statistics()["seconds lost now"] > 0
    time.sleep(0.2)
    other.show(events_at(7))  # another camera is not taken for it
    camera.plug()
    camera.dropped = 5
    camera.show(events_at(100, 150))  # its clock starts anew
    mark, packet = receive(source, 2)
    gap_us = (packet.origin_ns - first_ns) // 1000
    assert mark == Reset(1_000_500 + gap_us)
    assert packet.items["t"].tolist() == [mark.t_us, mark.t_us + 50]
    assert gap_us >= 200_000
    statistics = source.statistics()
    assert statistics["times lost"] == statistics["times found again"] == statistics["seams"] == 1
    assert statistics["seconds missing"] == pytest.approx(gap_us / 1e6)
    assert statistics["seconds lost now"] == 0
    assert 0 < statistics["seconds since last loss"] < 20
    assert statistics["driver's packets dropped"] == 7
    assert (camera.opened, camera.closed, other.opened) == (2, 1, 0)


def test_a_camera_that_never_comes_back_ends_the_stream_after_what_came(bus, start):
    camera = bus()
    source = start(patience_s=0.3)
    camera.show(events_at(10, 20))
    camera.show(events_at(30))
    camera.unplug()
    begin = time.monotonic()
    wait_for(lambda: not source._reader.is_alive())
    assert 0.25 < time.monotonic() - begin < 5
    assert events_of(receive(source, 3))["t"].tolist() == [10, 20, 30]
    end = end_of(source)
    assert end.t_us == 31
    assert end.reason == (
        "camera 00050001: lost (No such device (it may have been disconnected)) and not found again within 0.3 s "
        "(last: device with serial not found); look at its cable and hub"
    )


def test_a_camera_that_opens_but_fails_at_once_ends_the_stream_too(bus, start, monkeypatch):
    camera = bus()
    source = start(patience_s=0.5)
    camera.is_plugged = True
    monkeypatch.setattr(PlayedDevice, "__next__", lambda self: (_ for _ in ()).throw(RuntimeError("bad firmware")))
    assert "lost (bad firmware) and not found again within 0.5 s" in end_of(source).reason
    assert 2 < camera.opened < 12  # the waits double
    assert camera.closed == camera.opened


def test_a_camera_in_the_dark_is_not_lost(bus, start):
    camera = bus()
    source = start(patience_s=0.2)
    time.sleep(0.6)
    assert source.poll(10) is None
    camera.show(events_at(5))
    assert events_of(receive(source, 1))["t"].tolist() == [5]


def test_a_slow_consumer_gets_the_newest_and_the_rest_is_counted(bus, start):
    camera = bus()
    source = start(queue_events=1000)
    for k in range(50):
        camera.show(some_events(100, start_us=k * 10_000, seed=k))
    wait_for(lambda: camera.sent.empty() and source.statistics()["events dropped"] == 4000)
    assert source.statistics()["packets dropped"] == 40
    got = events_of(receive(source, 1000))
    assert got["t"][0] >= 400_000
    assert got[-100:].tobytes() == some_events(100, start_us=490_000, seed=49).tobytes()


def test_two_cameras_are_told_apart_by_their_serials(bus, start):
    left, right = bus("L"), bus("R")
    first, second = start(serial="R"), start(serial="L")
    left.show(events_at(1))
    right.show(events_at(2))
    assert events_of(receive(first, 1))["t"].tolist() == [2]
    assert events_of(receive(second, 1))["t"].tolist() == [1]
    with pytest.raises(ConfigError, match="camera X: got none .* take one of these serials: L, R"):
        start(serial="X")


def test_a_backward_clock_is_clamped_or_a_seam(bus, start):
    camera = bus()
    source = start()
    camera.show(events_at(8_000_000, 7_999_990))
    camera.show(events_at(20, 30))  # a reset cable was pulled
    messages = receive(source, 4)
    times = events_of(messages)["t"]
    assert [type(message) for message in messages] == [Packet, Reset, Packet]
    assert times[:2].tolist() == [8_000_000, 8_000_000]
    assert times[3] - times[2] == 10
    assert times[2] == messages[1].t_us < 10_000_000
    assert source.statistics() | {"clock jumps": 1, "times raised": 1, "seams": 0} == source.statistics()


def test_events_outside_are_dropped_and_counted(bus, start):
    camera = bus()
    source = start()
    camera.show(events_at(1, x=1280))
    camera.show(events_at(2, x=1279, y=719))
    assert events_of(receive(source, 1))["t"].tolist() == [2]
    assert source.statistics()["outside dropped"] == 1


def test_a_restored_source_goes_on_in_time(bus, start):
    camera = bus()
    source = start()
    camera.show(events_at(5_000_000))
    receive(source, 1)
    snapshot = source.snapshot()
    source.close()
    time.sleep(0.2)
    camera.plug()
    fresh = start()
    fresh.restore(snapshot)
    camera.show(events_at(40))
    mark, packet = receive(fresh, 1)
    assert 5_200_000 <= mark.t_us < 10_000_000
    assert packet.items["t"].tolist() == [mark.t_us]
    with pytest.raises(ConfigError, match="snapshot of camera 00050001"):
        fresh.restore({"n_out": np.array(3)})


def test_it_runs_in_a_pipeline(bus, tmp_path):
    camera = bus()
    pipeline = Pipeline(
        name="live",
        source=[
            SourceSpec(
                name="camera",
                kind="sources.camera.Camera",
                params={"driver": "neuromorphic_drivers", "patience_s": 0.2, "retry_s": 0.05},
            )
        ],
        operator=[
            OperatorSpec(
                name="recorder",
                kind="stream.record.Recorder",
                params={"path": str(tmp_path / "r.hbs"), "ports": {"events": "events"}},
            )
        ],
        edge=[EdgeSpec(source="camera.events", target="recorder.events")],
    )
    shown = some_events(5000)

    def show():
        for part in np.split(shown, 10):
            camera.show(part)
            time.sleep(0.01)
        camera.unplug()

    player = threading.Thread(target=show)
    player.start()
    result = run(pipeline, processes=False)
    player.join()
    assert "camera 00050001: lost" in result.reason
    assert read_recording(tmp_path / "r.hbs").items("events").tobytes() == shown.tobytes()


class TestNothingThere:
    """With what is really installed on this machine, and no camera."""

    def test_every_driver_reports_or_says_why_not(self):
        reports = {report.driver: report for report in list_cameras()}
        assert list(reports) == ["neuromorphic_drivers", "dv_processing", "openeb", "aestream"]
        for report in reports.values():
            assert report.version or report.fault
            assert report.way_out
            assert isinstance(report.cameras, list)

    @pytest.mark.parametrize("driver", ["neuromorphic_drivers", "dv_processing"])
    def test_a_serial_that_nobody_has_is_refused(self, driver):
        pytest.importorskip(driver)
        with pytest.raises(ConfigError, match=f"camera no-such-serial: got none .*looked with {driver}; "):
            Camera(serial="no-such-serial", driver=driver)

    def test_with_no_driver_at_all_the_way_out_is_told(self, monkeypatch):
        for name in ("neuromorphic_drivers", "dv_processing", "metavision_hal", "aestream"):
            monkeypatch.setitem(sys.modules, name, None)  # as if not installed
        with pytest.raises(
            ConfigError, match=r"got no driver that can be used \(.* not installed.*hebbstream\[camera\]"
        ):
            Camera()
        with pytest.raises(ConfigError, match=r"openeb cannot be used: .*; install OpenEB"):
            Camera(driver="openeb")

    def test_the_wheel_of_aestream_has_no_usb_inputs_and_that_is_told(self):
        if pytest.importorskip("aestream", reason="aestream has wheels for Linux and Python 3.11 only").drivers:
            pytest.skip("this aestream has USB inputs")
        with pytest.raises(ConfigError, match="aestream cannot be used: installed without USB inputs"):
            Camera(driver="aestream", width=640, height=480)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"driver": "caer"},
            {"width": 5},
            {"width": 0, "height": 0},
            {"patience_s": -1},
            {"retry_s": 0},
            {"queue_events": 0},
            {"queue_bytes": 0},
        ],
    )
    def test_wrong_parameters_are_told(self, wrong):
        with pytest.raises(ConfigError, match="wanted"):
            Camera(**wrong)


def test_a_size_that_the_camera_does_not_have_is_refused_and_the_camera_let_go(bus, start):
    camera = bus()
    with pytest.raises(ConfigError, match="has 1280x720 pixels, not 640x480"):
        start(width=640, height=480)
    assert camera.closed == camera.opened == 1


def test_a_camera_that_may_not_be_opened_is_told_with_the_rule(bus, start, monkeypatch, tmp_path):
    camera = bus()
    camera.error = "Access denied (insufficient permissions)"
    plug_into(tmp_path, "2-1", "04b4", "00f5", "EVK4", 2, 11)
    monkeypatch.setattr(camera_module, "has_usb", lambda: True)
    monkeypatch.setattr(camera_module, "usb_cameras", lambda: usb_cameras(tmp_path / "sys", tmp_path / "dev"))
    with pytest.raises(ConfigError) as caught:
        start()
    assert "Access denied" in str(caught.value)
    assert "you may not open it" in str(caught.value)
    assert 'ATTR{idVendor}=="04b4", ATTR{idProduct}=="00f[45]", MODE="0666"' in str(caught.value)


class TestUsb:
    def test_cameras_are_known_by_product_because_vendors_make_other_things_too(self, tmp_path):
        plug_into(tmp_path, "1-1", "152a", "8419", "DVXplorer", 1, 5)
        plug_into(tmp_path, "1-2", "152a", "8750", "a sound card", 1, 6)
        plug_into(tmp_path, "2-1", "04b4", "00f5", "EVK4", 2, 11)
        plug_into(tmp_path, "2-2", "04b4", "6560", "a hub", 2, 12)
        (tmp_path / "sys" / "usb1").mkdir()  # a bus, which has no ids
        (tmp_path / "dev" / "002").mkdir(parents=True)
        (tmp_path / "dev" / "002" / "011").touch()
        found = usb_cameras(tmp_path / "sys", tmp_path / "dev")
        assert [(camera.product, camera.ids, camera.may_open) for camera in found] == [
            ("DVXplorer", "152a:8419", False),
            ("EVK4", "04b4:00f5", True),
        ]
        assert found[0].node == str(tmp_path / "dev" / "001" / "005")

    def test_no_bus_is_no_camera(self, tmp_path):
        assert usb_cameras(tmp_path / "none", tmp_path) == []

    def test_the_rules_cover_what_is_known_and_those_of_the_drivers(self):
        rules = udev_rules()
        assert len(rules.splitlines()) == len(camera_usb._KNOWN)
        library = pytest.importorskip("neuromorphic_drivers")
        theirs = Path(inspect.getsourcefile(library)).with_name("udev.py").read_text()
        for vendor in ("152a", "04b4", "31f7", "1409"):
            assert f'idVendor}}=="{vendor}"' in theirs
            assert f'ATTR{{idVendor}}=="{vendor}"' in rules


def plug_into(folder, place, vendor, product, name, bus, number):
    device = folder / "sys" / place
    device.mkdir(parents=True)
    for file, text in (("idVendor", vendor), ("idProduct", product), ("product", name), ("busnum", bus)):
        (device / file).write_text(f"{text}\n")
    (device / "devnum").write_text(f"{number}\n")


class PlayedDv:
    """What dv-processing opens; its events are kept in the library's own store."""

    def __init__(self, library, batches):
        self.library, self.batches, self.is_plugged = library, batches, True

    def getEventResolution(self):
        return (640, 480)

    def isRunning(self):
        return self.is_plugged

    def getNextEventBatch(self):
        if not self.batches:
            return None
        store = self.library.EventStore()
        for event in self.batches.pop(0):
            store.push_back(int(event["t"]), int(event["x"]), int(event["y"]), bool(event["p"]))
        return store


def test_dv_processing(start, monkeypatch):
    library = pytest.importorskip("dv_processing")
    real = library.io.camera
    assert all(hasattr(real.CameraInputBase, name) for name in vars(PlayedDv) if name.startswith(("get", "is")))
    assert all(hasattr(real.USBDevice.DeviceDescriptor, name) for name in ("cameraModel", "serialNumber"))
    assert "descriptor: dv_processing.io.camera.USBDevice.DeviceDescriptor" in real.open.__doc__
    plugged = types.SimpleNamespace(cameraModel=real.CameraModel.DVXPLORER, serialNumber="DXA00001")
    shown = some_events(300, start_us=1_700_000_000_000_000)
    shown["x"], shown["y"] = shown["x"] % 640, shown["y"] % 480
    opened = []

    def open_camera(descriptor):
        assert descriptor is plugged
        opened.append(PlayedDv(library, [shown[:100], shown[100:]] if not opened else [events_at(5)]))
        return opened[-1]

    monkeypatch.setattr(real, "discover", lambda: [plugged])
    monkeypatch.setattr(real, "open", open_camera)
    reports = {report.driver: report for report in list_cameras()}
    assert reports["dv_processing"].cameras == [("dv_processing", "DVXPLORER", "DXA00001", "")]
    source = start(driver="dv_processing")
    assert (source.serial, source.outputs["events"].width) == ("DXA00001", 640)
    assert events_of(receive(source, 300)).tobytes() == shown.tobytes()
    assert "driver's backlog" not in source.statistics()  # it does not tell
    opened[0].is_plugged = False
    mark, packet = receive(source, 1)
    assert isinstance(mark, Reset)
    assert packet.items["t"][0] == mark.t_us > shown["t"][-1]


class PlayedHal(types.ModuleType):
    """OpenEB's hardware layer: the names that its Python bindings have (hal/python/bindings in its repository)."""

    def __init__(self, buffers):
        super().__init__("metavision_hal")
        self.buffers, self.callback, self.is_started = buffers, None, False
        self.DeviceDiscovery = types.SimpleNamespace(
            list=lambda: ["Prophesee:hal_plugin_imx636_evk4:00ca0009"],
            open=lambda serial: self if serial in ("", "00ca0009") else None,
        )
        self.stopped = 0

    def get_i_geometry(self):
        return types.SimpleNamespace(get_width=lambda: 1280, get_height=lambda: 720)

    def get_i_hw_identification(self):
        return types.SimpleNamespace(get_serial=lambda: "00ca0009")

    def get_i_event_cd_decoder(self):
        return types.SimpleNamespace(add_event_buffer_callback=lambda callback: setattr(self, "callback", callback))

    def get_i_events_stream_decoder(self):
        def decode(raw):
            for half in np.split(raw, 2):
                buffer = np.zeros(
                    len(half), np.dtype([("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")], align=True)
                )
                for name in "txyp":
                    buffer[name] = half[name]
                self.callback(buffer)

        return types.SimpleNamespace(decode=decode)

    def get_i_events_stream(self):
        return types.SimpleNamespace(
            start=lambda: None,
            stop=lambda: setattr(self, "stopped", self.stopped + 1),
            poll_buffer=lambda: 1 if self.buffers else 0 if self.buffers is not None else -1,
            get_latest_raw_data=lambda: self.buffers.pop(0),
        )


def test_openeb(start, monkeypatch):
    shown = some_events(600)
    library = PlayedHal([shown[:200], shown[200:]])
    monkeypatch.setitem(sys.modules, "metavision_hal", library)
    source = start(driver="openeb", patience_s=0)
    assert (source.serial, source.outputs["events"].width) == ("00ca0009", 1280)
    assert events_of(receive(source, 600)).tobytes() == shown.tobytes()
    library.buffers = None
    assert "OpenEB says that the camera sends no more" in end_of(source).reason
    assert library.stopped == 1


class TestAestream:
    def test_the_lines_of_its_program(self):
        lines = b"5,1,2,1\n6,-1,3,0\n7,99999,3,0"
        assert parse_lines(lines).tolist() == [(5, 1, 2, 1), (6, 65535, 3, 0), (7, 65535, 3, 0)]
        assert parse_lines(b"5,1,2,1\nSent a total of 1 events\n1,2,3\n").tolist() == [(5, 1, 2, 1)]
        assert parse_lines(b"\n\n").tolist() == []

    def test_the_real_program_prints_what_is_read(self, tmp_path):
        pytest.importorskip("aestream", reason="aestream has wheels for Linux x86-64 and Python 3.11 only")
        events = events_at(*range(0, 5000, 5))
        words = np.zeros(len(events), [("t", "<u4"), ("address", "<u4")])
        x, y, p = (events[name].astype(np.uint32) for name in "xyp")
        words["t"], words["address"] = events["t"], x | y << 14 | p << 28
        path = tmp_path / "a.dat"
        path.write_bytes(b"% Version 2\n% Width 304\n% Height 240\n" + bytes([0, 8]) + words.tobytes())
        program = AestreamProgram(["input", "file", str(path), "output", "stdout"])
        parts = [np.empty(0, EVENT_DTYPE)]
        while sum(map(len, parts)) < len(events):
            packet = program.read()
            parts += [packet.events] if packet else []
        with pytest.raises(ConnectionError, match="aestream came to its end"):
            program.read()
        assert np.concatenate(parts).tobytes() == events.tobytes()

    def test_a_program_that_cannot_is_the_end_with_its_own_words(self, start, monkeypatch):
        library = pytest.importorskip("aestream", reason="aestream has wheels for Linux x86-64 and Python 3.11 only")
        monkeypatch.setattr(library, "drivers", ["metavision"])  # a lie, which the program then uncovers
        with pytest.raises(ConfigError, match="does not tell the sensor's size; set width and height"):
            start(driver="aestream")
        source = start(driver="aestream", width=640, height=480, patience_s=0)
        assert "Prophesee cameras unavailable" in end_of(source).reason

    @pytest.mark.skipif(os.name != "posix", reason="a shell script is played")
    def test_a_program_that_can(self, start, monkeypatch, tmp_path):
        library = types.ModuleType("aestream")
        library.drivers = ["caer", "metavision"]
        monkeypatch.setitem(sys.modules, "aestream", library)
        program = tmp_path / "aestream"
        program.write_text(
            '#!/bin/sh\n[ "$*" = "input prophesee 0005 output stdout" ] || exit 3\necho 9,1,2,1\nsleep 60\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        source = start(driver="aestream", serial="0005", width=640, height=480)
        assert events_of(receive(source, 1)).tolist() == [(9, 1, 2, 1)]
