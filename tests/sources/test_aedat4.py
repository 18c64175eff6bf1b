"""AEDAT 4: real recordings, files of dv-processing and faery, theirs read by us and ours by them, and damage."""

import contextlib
import json
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sources.aedat4
from sources.aedat4 import (
    Aedat4Decoder,
    Aedat4Writer,
    aedat4_header,
    read_aedat4_frames,
    read_aedat4_imu,
)
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

RECORDINGS = [
    "aestream_davis",
    "dvs128_2024_06_13_16_16_25",
    "dvs128_2024_06_13_16_32_14",
    "dvs128_2024_06_20_15_59_41",
    "dvs128_2024_06_20_16_06_00",
    "dvs128_2024_06_20_16_13_00",
    "evlibrary_sample",
    "tonic_sample",
]
COMPRESSIONS = ["none", "lz4", "zstd"]
START_US = 1_700_000_000_000_000


@pytest.fixture(autouse=True)
def libraries():
    pytest.importorskip("lz4.frame")
    pytest.importorskip("backports.zstd")


def read(path, **options):
    parts, fault = [np.empty(0, EVENT_DTYPE)], ""
    try:
        for events in Aedat4Decoder(path, **options):
            assert events.dtype == EVENT_DTYPE
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), fault


def some(n, seed=1, start_us=START_US):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = start_us + np.sort(rng.integers(0, 10 * n + 1, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 346, n), rng.integers(0, 260, n), rng.integers(0, 2, n)
    return events


def write(path, events, compression="lz4"):
    with Aedat4Writer(path, 346, 260, compression) as writer:
        writer.write(events)


@pytest.fixture
def small_packets(monkeypatch):
    monkeypatch.setattr(sources.aedat4, "_PACKET_EVENTS", 5)


def dv_events(path, name="events"):
    dv = pytest.importorskip("dv_processing")
    recording = dv.io.MonoCameraRecording(str(path))
    parts = [np.empty(0, EVENT_DTYPE)]
    while (batch := recording.getNextEventBatch(name)) is not None:
        theirs = batch.numpy()
        events = np.empty(len(theirs), EVENT_DTYPE)
        for ours, their in (("t", "timestamp"), ("x", "x"), ("y", "y"), ("p", "polarity")):
            events[ours] = theirs[their]
        parts.append(events)
    return np.concatenate(parts)


# --- Recordings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_hold_what_the_manifest_says(data, name):
    files = json.loads((data / "MANIFEST.json").read_text())["files"]
    truth = next(file["truth"] for file in files if file["file"] == f"aedat4/{name}.aedat4")
    path = data / "aedat4" / f"{name}.aedat4"
    events, fault = read(path)
    header = aedat4_header(path)
    kinds = {stream.kind for stream in header.streams.values()}
    assert fault == ""
    assert {
        "events": len(events),
        "on_events": int(events["p"].sum()),
        "t_first_us": int(events["t"][0]),
        "t_last_us": int(events["t"][-1]),
        "sum_x": int(events["x"].sum(dtype=np.int64)),
        "sum_y": int(events["y"].sum(dtype=np.int64)),
        "backward_steps": int((np.diff(events["t"]) < 0).sum()),
        "width": header.streams[0].width,
        "height": header.streams[0].height,
        "frames": len(list(read_aedat4_frames(path))) if "FRME" in kinds else 0,
        "imu_samples": sum(map(len, read_aedat4_imu(path))) if "IMUS" in kinds else 0,
    } == {key: value for key, value in truth.items() if key not in ("duration_us", "max_x", "max_y")}


@pytest.mark.parametrize("name", RECORDINGS)
def test_dv_processing_reads_the_same_events(data, name):
    path = data / "aedat4" / f"{name}.aedat4"
    np.testing.assert_array_equal(read(path)[0], dv_events(path))


def test_dv_processing_reads_the_same_frames_and_motion(data):
    dv = pytest.importorskip("dv_processing")
    path = data / "aedat4/aestream_davis.aedat4"
    recording = dv.io.MonoCameraRecording(str(path))
    frames = 0
    for ours in read_aedat4_frames(path):
        theirs = recording.getNextFrame()
        np.testing.assert_array_equal(ours.pixels, theirs.image)
        assert ours.exposure_start_us == theirs.timestamp
        frames += 1
    assert frames == 3
    assert recording.getNextFrame() is None
    for ours in read_aedat4_imu(path):
        theirs = recording.getNextImuBatch()
        for row, sample in zip(ours, theirs, strict=True):
            assert row["t"] == sample.timestamp
            assert row["temperature"] == np.float32(sample.temperature)
            assert row["accelerometer_y"] == np.float32(sample.accelerometerY)
            assert row["gyroscope_z"] == np.float32(sample.gyroscopeZ)


# --- Files of other writers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["NONE", "LZ4", "LZ4_HIGH", "ZSTD", "ZSTD_HIGH"])
def test_we_read_what_dv_processing_writes(tmp_path, compression):
    dv = pytest.importorskip("dv_processing")
    path = tmp_path / "a.aedat4"
    config = dv.io.MonoCameraWriter.Config("camera", getattr(dv.CompressionType, compression))
    config.addEventStream((346, 260), "events")
    config.addEventStream((64, 48), "more")
    config.addImuStream("imu")
    config.addFrameStream((7, 5), "frames")
    config.addTriggerStream("triggers")
    writer = dv.io.MonoCameraWriter(str(path), config)
    events = some(3000)
    store = dv.EventStore()
    for t, x, y, p in events.tolist():
        store.push_back(t, x, y, bool(p))
    writer.writeEvents(store, "events")
    store = dv.EventStore()
    store.push_back(START_US, 63, 47, True)
    writer.writeEvents(store, "more")
    image = np.random.default_rng(2).integers(0, 256, (5, 7, 3), np.uint8)
    writer.writeFrame(dv.Frame(START_US, image), "frames")
    writer.writeTrigger(dv.Trigger(START_US, dv.TriggerType.EXTERNAL_SIGNAL_RISING_EDGE), "triggers")
    del writer
    got, fault = read(path)
    np.testing.assert_array_equal(got, events)
    assert fault == ""
    more = Aedat4Decoder(path, stream=3)  # numbered by name
    assert (more.width, more.height, more.stream.camera) == (64, 48, "camera")
    assert [part.tolist() for part in more] == [[(START_US, 63, 47, 1)]]
    assert more.losses()[0].endswith("packets of events (stream 0) were passed over")
    assert len(more.losses()) == 3
    (frame,) = read_aedat4_frames(path)
    np.testing.assert_array_equal(frame.pixels, image)
    assert frame.t_us == START_US
    with pytest.raises(FormatError, match=r"no stream 2 of events, only 0 \(events\), 1 \(frames\), 2 \(motion"):
        Aedat4Decoder(path, stream=2)


@pytest.mark.parametrize("compression", ["LZ4_DEFAULT", "ZSTD_DEFAULT", None])
def test_we_read_what_faery_writes(tmp_path, compression):
    faery = pytest.importorskip("faery")
    events = some(12_345)
    path = tmp_path / "a.aedat4"
    setting = None if compression is None else getattr(faery.aedat, compression)
    faery.events_stream_from_array(events.view(faery.EVENTS_DTYPE), dimensions=(346, 260)).to_file(
        path, zero_t0=False, compression=setting
    )
    got, fault = read(path)
    np.testing.assert_array_equal(got, events)
    assert fault == ""


# --- Our writer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("n", [0, 1, 9_999, 10_000, 25_001])
def test_others_read_what_we_write(tmp_path, compression, n):
    path, events = tmp_path / "a.aedat4", some(n)
    write(path, events, compression)
    got, fault = read(path)
    np.testing.assert_array_equal(got, events)
    assert (fault, Aedat4Decoder(path).width, Aedat4Decoder(path).height) == ("", 346, 260)
    np.testing.assert_array_equal(dv_events(path), events)
    recording = pytest.importorskip("dv_processing").io.MonoCameraRecording(str(path))
    assert recording.getEventResolution() == (346, 260)
    if n:
        assert recording.getTimeRange() == (events["t"][0], events["t"][-1])
    faery = pytest.importorskip("faery")
    theirs = faery.events_stream_from_file(path).to_array()
    np.testing.assert_array_equal(theirs.view(EVENT_DTYPE), events)


@given(cuts=st.lists(st.integers(0, 23_000), max_size=6))
def test_where_writes_are_cut_changes_no_byte(tmp_path_factory, cuts):
    home = tmp_path_factory.getbasetemp()
    events = some(23_000)
    write(home / "whole.aedat4", events)
    with Aedat4Writer(home / "cut.aedat4", 346, 260) as writer:
        for part in np.split(events, sorted(cuts)):
            writer.write(part)
    assert (home / "cut.aedat4").read_bytes() == (home / "whole.aedat4").read_bytes()


def test_a_writer_that_was_never_closed_leaves_whole_packets(tmp_path):
    path, events = tmp_path / "a.aedat4", some(25_000)
    writer = Aedat4Writer(path, 346, 260)
    writer.write(events)
    writer._file.flush()
    got, fault = read(path)
    np.testing.assert_array_equal(got, events[:20_000])
    assert fault == ""
    writer.close()
    writer.close()
    np.testing.assert_array_equal(read(path)[0], events)


@pytest.mark.parametrize("bad", [(START_US, 346, 0, 1), (START_US, 0, 260, 1), (START_US, 0, 0, 2), (5, 0, 0, 1)])
def test_what_the_format_cannot_hold_is_refused(tmp_path, bad):
    path = tmp_path / "a.aedat4"
    writer = Aedat4Writer(path, 346, 260)
    good = np.array([(START_US, 1, 2, 1)] * 3, EVENT_DTYPE)
    writer.write(good)
    with pytest.raises(FormatError, match="event 4 "):
        writer.write(np.array([(START_US, 5, 6, 0), bad], EVENT_DTYPE))
    writer.close()
    assert read(path)[0].tolist() == [*good.tolist(), (START_US, 5, 6, 0)]


def test_impossible_writers_are_refused(tmp_path):
    for width, height, compression in ((0, 5, "lz4"), (32769, 5, "lz4"), (5, 5, "gzip")):
        with pytest.raises(ConfigError):
            Aedat4Writer(tmp_path / "a.aedat4", width, height, compression)
    with pytest.raises(ConfigError, match="cannot be written"):
        Aedat4Writer(tmp_path / "no" / "a.aedat4", 5, 5)


# --- Damage ----------------------------------------------------------------------------------------------------------


def packets_of(whole):
    """Walk the container: the end of the header, then that of each packet, and of the file."""
    ends = [18 + int.from_bytes(whole[14:18], "little")]
    (index_at,) = struct.unpack_from("<q", whole, 46)
    while ends[-1] < index_at:
        ends.append(ends[-1] + 8 + struct.unpack_from("<i", whole, ends[-1] + 4)[0])
    return ends, index_at


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_file_cut_at_any_byte_gives_its_beginning_and_says_so(tmp_path, small_packets, compression):
    path, events = tmp_path / "a.aedat4", some(13)
    write(path, events, compression)
    whole = path.read_bytes()
    ends, index_at = packets_of(whole)
    assert len(ends) == 4
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        if size < ends[0]:
            with pytest.raises(FormatError, match="header ends at byte"):
                Aedat4Decoder(path)
            continue
        got, fault = read(path)
        np.testing.assert_array_equal(got, events[: 5 * sum(end <= size for end in ends[1:])])
        if size >= index_at:
            assert f"the index at byte {index_at} is torn" in fault
        else:
            assert f"torn packet at byte {max(end for end in ends if end <= size)} of {size}" in fault
            assert f"an index at byte {index_at}" in fault


@pytest.mark.parametrize("compression", COMPRESSIONS)
@given(data=st.data())
def test_flipped_bits_give_events_or_an_error_of_ours(tmp_path_factory, compression, data):
    home = tmp_path_factory.getbasetemp()
    path, intact = home / "flipped.aedat4", home / f"intact_{compression}.aedat4"
    if not intact.exists():
        write(intact, some(40), compression)
    whole = bytearray(intact.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    with contextlib.suppress(FormatError):
        events, fault = read(path)
        assert len(events) == 40 or fault  # nothing is lost in silence


def test_no_single_flipped_bit_loses_events_in_silence(tmp_path, small_packets):
    path, events = tmp_path / "a.aedat4", some(13)
    write(path, events, "none")
    whole = bytearray(path.read_bytes())
    header_bytes = aedat4_header(path).header_bytes
    for at in range(8 * header_bytes, 8 * len(whole)):
        whole[at // 8] ^= 1 << at % 8
        path.write_bytes(whole)
        got, fault = read(path)
        assert len(got) == 13 or fault
        whole[at // 8] ^= 1 << at % 8


@given(noise=st.binary(max_size=200), kind=st.sampled_from(["EVTS", "FRME", "IMUS"]), as_buffer=st.booleans())
def test_any_bytes_in_a_packet_give_something_or_an_error_of_ours(tmp_path_factory, noise, kind, as_buffer):
    path = tmp_path_factory.getbasetemp() / "noise.aedat4"
    Aedat4Writer(path, 346, 260, "none")._file.close()
    header = path.read_bytes().replace(b"EVTS", kind.encode())
    if as_buffer:  # past the first checks
        noise = struct.pack("<II4s", 8 + len(noise), 8, kind.encode()) + noise
    path.write_bytes(header + struct.pack("<ii", 0, len(noise)) + noise)
    readers = {"EVTS": lambda path: Aedat4Decoder(path), "FRME": read_aedat4_frames, "IMUS": read_aedat4_imu}
    with contextlib.suppress(FormatError):
        for _ in readers[kind](path):
            pass


def test_packets_that_are_missing_or_moved_to_another_stream_are_noticed(tmp_path, small_packets):
    path, events = tmp_path / "a.aedat4", some(13)
    write(path, events, "none")
    whole = path.read_bytes()
    ends, index_at = packets_of(whole)
    gone = ends[2] - ends[1]
    shorter = bytearray(whole[: ends[1]] + whole[ends[2] :])
    shorter[46:54] = struct.pack("<q", index_at - gone)
    path.write_bytes(shorter)
    got, fault = read(path)
    np.testing.assert_array_equal(got, np.delete(events, range(5, 10)))
    assert "holds 2 packets of stream 0, but its index tells of 3 packets of stream 0" in fault
    moved = bytearray(whole)
    moved[ends[1]] = 1
    path.write_bytes(moved)
    got, fault = read(path)
    np.testing.assert_array_equal(got, events[:5])
    assert f"damaged at byte {ends[1]}: got a packet of stream 1" in fault


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_packet_that_swells_is_refused(tmp_path, monkeypatch, compression):
    path = tmp_path / "a.aedat4"
    monkeypatch.setattr(sources.aedat4, "_MOST_BYTES", 1 << 22)
    writer = Aedat4Writer(path, 346, 260, compression)
    bomb = writer._library.compress(bytes(1 << 24))
    writer._put(struct.pack("<ii", 0, len(bomb)) + bomb)
    writer._file.close()
    assert len(bomb) < 1 << 17
    assert "grows to more than 4194304 bytes" in read(path)[1]


def test_other_files_and_streams_are_refused(tmp_path):
    path = tmp_path / "a.aedat4"
    write(path, some(5))
    with pytest.raises(FormatError, match="has no stream of frames, only 0"):
        list(read_aedat4_frames(path))
    with pytest.raises(FormatError, match="has no stream of motion samples"):
        list(read_aedat4_imu(path))
    path.write_bytes(path.read_bytes().replace(b"<dv ", b"<!v "))
    with pytest.raises(FormatError, match="header of .* is damaged"):
        Aedat4Decoder(path)
    path.write_bytes(b"#!AER-DAT2.0\r\n")
    with pytest.raises(FormatError, match="it is not AEDAT 4"):
        Aedat4Decoder(path)
    with pytest.raises(FormatError, match="cannot be read"):
        Aedat4Decoder(tmp_path / "missing")


# --- Growing files and standard input --------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_growing_file_is_followed_until_it_is_closed(tmp_path, small_packets, compression):
    path, events = tmp_path / "a.aedat4", some(23)
    writer = Aedat4Writer(path, 346, 260, compression)
    writer._file.flush()

    def grow():
        for part in np.split(events, [3, 9, 14]):
            time.sleep(0.05)
            writer.write(part)
            writer._file.flush()
        writer.close()

    thread = threading.Thread(target=grow)
    thread.start()
    got, fault = read(path, follow_s=0.5)
    thread.join()
    np.testing.assert_array_equal(got, events)
    assert fault == ""


def test_standard_input_is_read(tmp_path):
    path = tmp_path / "a.aedat4"
    write(path, some(30_000))
    script = (
        "from sources.aedat4 import Aedat4Decoder\nfrom sources.byte_stream import STANDARD_INPUT\n"
        "print(sum(len(events) for events in Aedat4Decoder(STANDARD_INPUT)))"
    )
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", script], stdin=file, capture_output=True, text=True, check=True, timeout=120
        )
    assert int(done.stdout) == 30_000
