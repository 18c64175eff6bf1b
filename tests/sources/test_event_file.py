"""Event files against the ground truth of real recordings, and every kind of bad file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sources import event_file
from sources.atis_bin import write_atis_bin
from sources.event_file import DECODERS, EventFile, Reading, _adapter, file_info, read_events
from sources.event_writer import open_writer
from sources.file_format import _MAGIC
from sources.policy import POLICIES, apply_policies
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, End, Packet

DATA = Path(os.environ.get("HEBBSTREAM_DATA") or Path(__file__).parents[3] / "shared" / "data")

KEYS = ["events", "on_events", "width", "height", "t_first_us", "t_last_us", "sum_x", "sum_y"]
REFUSED = {"es/color.es": "color", "es/generic.es": "generic"}


def described():
    """All recordings of the manifest, but only every fortieth of the labelled N-MNIST ones."""
    path = DATA / "MANIFEST.json"
    listed = json.loads(path.read_text())["files"] if path.is_file() else []
    files = [file for file in listed if isinstance(file.get("truth"), dict) and "events" in file["truth"]]
    nmnist = [file for file in files if file["file"].startswith("nmnist/")]
    rest = [file for file in files if not file["file"].startswith("nmnist/") and file["file"] not in REFUSED]
    return [pytest.param(file, id=file["file"]) for file in rest + nmnist[::40]]


def as_stated(file):
    """Return the truth in our convention: 1 = brighter, origin top left (the manifest counts stored bits)."""
    truth = {key: file["truth"].get(key) for key in KEYS}
    right, bottom = truth["width"] - 1, truth["height"] - 1
    if file["file"].startswith(("aedat2/", "dvs128_objects/")) and truth["sum_x"] is not None:
        # jAER's cameras store x from the right and y from the bottom, and the DVS128 has 0 for brighter
        truth["sum_x"] = right * truth["events"] - truth["sum_x"]
        truth["sum_y"] = bottom * truth["events"] - truth["sum_y"]
        if truth["width"] == 128:
            truth["on_events"] = truth["events"] - truth["on_events"]
    if file["file"].startswith("es/"):
        truth["sum_y"] = bottom * truth["events"] - truth["sum_y"]  # stored from the bottom
    return truth


def how_to_read(file, **more):
    """What a user has to say because the file does not: here the order of columns of one text file."""
    reading = Reading(backward="pass", **more)  # the manifest's last time is the last one stored
    if "evlibrary_event" in file["file"]:  # ten made-up events on a DAVIS240, some below its last row
        reading = reading._replace(width=240, height=180, outside="pass")
    return reading._replace(columns="tyxp") if file["file"].startswith("txt/evlib") else reading


@pytest.mark.parametrize("file", described())
def test_every_recording_matches_its_ground_truth(data, file):
    info = file_info(data / file["file"], reading=how_to_read(file))
    truth = as_stated(file)
    assert {key: info[key] for key in KEYS if truth[key] is not None} == {
        key: value for key, value in truth.items() if value is not None
    }
    raw = file_info(data / file["file"], reading=how_to_read(file, raw=True))
    stored = {key: file["truth"].get(key) for key in KEYS}
    assert {key: raw[key] for key in KEYS if stored[key] is not None} == {
        key: value for key, value in stored.items() if value is not None
    }


@pytest.mark.parametrize(("name", "words"), REFUSED.items())
def test_other_events_are_refused_by_name(data, name, words):
    with pytest.raises(FormatError, match=words) as error:
        file_info(data / name)
    assert "wanted dvs" in str(error.value)


@pytest.mark.parametrize(("magic", "name"), _MAGIC)
def test_containers_are_recognised_by_their_content(tmp_path, monkeypatch, magic, name):
    path = tmp_path / "a.xyz"
    path.write_bytes(magic + bytes(100))
    events = np.zeros(3, EVENT_DTYPE)
    monkeypatch.setitem(DECODERS, name, lambda path, kind, reading: [events])
    assert file_info(path)["format"] == name
    assert len(read_events(path).events) == 3


def test_a_container_without_its_library_is_refused_with_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "a.xyz"
    path.write_bytes(_MAGIC[0][0])
    (tmp_path / "needs_a_library.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(DECODERS, "hdf5", _adapter("needs_a_library", "read"))
    for size in (None, 10):
        with pytest.raises(FormatError, match=r"is HDF5, .* package a_library_that_is_not_there; install it"):
            read_events(path, width=size, height=size)


@pytest.mark.parametrize("name", ["aedat4/tonic_sample.aedat4", "evt2/expelliarmus_evt2_sample.raw", "es/dvs.es"])
def test_a_torn_file_is_read_up_to_the_tear(data, tmp_path, name):
    whole = (data / name).read_bytes()
    torn = tmp_path / f"torn{(data / name).suffix}"
    torn.write_bytes(whole[: len(whole) // 2 + 1])
    full, part = read_events(data / name), read_events(torn, width=2048, height=2048)
    assert 0 < len(part.events) < len(full.events)
    np.testing.assert_array_equal(part.events, full.events[: len(part.events)])
    assert "torn" in part.fault or "damaged" in part.fault or "ends" in part.fault
    assert any("everything before was read" in warning for warning in file_info(torn)["warnings"])
    source = EventFile(path=str(torn))
    while not isinstance(message := source.poll(100_000), End):
        pass
    assert "everything before was read" in message.reason


@pytest.mark.parametrize("name", ["aedat4/tonic_sample.aedat4", "evt3/expelliarmus_evt3_sample.raw", "es/dvs.es"])
def test_damage_in_the_middle_never_escapes_as_another_exception(data, tmp_path, name):
    rng = np.random.default_rng(1)
    whole = bytearray((data / name).read_bytes()[:200_000])
    bad = tmp_path / f"bad{(data / name).suffix}"
    for _ in range(6):
        at = int(rng.integers(0, len(whole) - 50))
        bad.write_bytes(whole[:at] + rng.bytes(50) + whole[at + 50 :])
        try:
            events = read_events(bad).events
        except FormatError:
            continue
        assert (np.diff(events["t"]) >= 0).all()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.bin", None, "no such file"),
        ("empty.bin", b"", "empty"),
        ("short.bin", b"\x01\x02", "wanted at least one event"),
        ("noise.raw", bytes(range(256)), "unknown format"),
        ("prose.txt", b"This is a letter.\n", "unknown format"),
        ("cut.raw", b"% evt 3.0\n% Date", "cut off"),
        ("cut.aedat4", b"#!AER-DAT4.0\r\n\x0c", "header ends"),
        ("cut.es", b"Event Stream\x02\x00", "header ends"),
        ("cut.dat", b"% Version 2\n% Width 304\n", "header ends"),
        ("trigger.dat", b"% Version 2\n\x0e\x08" + bytes(16), "type 0x0e"),
        ("evt4.raw", b"% evt 4.0\n" + bytes(16), "evt4"),
    ],
)
def test_files_that_cannot_begin_are_refused(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for read in (file_info, read_events, lambda path: EventFile(path=str(path))):
        with pytest.raises(FormatError, match=words):
            read(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(FormatError, match="is a folder"):
        file_info(tmp_path)


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("HEBBSTREAM_NOWHERE", raising=False)
    with pytest.raises(ConfigError, match="HEBBSTREAM_NOWHERE is not set"):
        EventFile(path="${HEBBSTREAM_NOWHERE}/a.bin")


def test_policies_are_counted_and_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,x,y,p\n10,1,2,1\n5,3,4,0\n7,200,4,0\n12,5,6,-1\n")
    recording = read_events(path, width=100, height=100)
    assert recording.events.tolist() == [(10, 1, 2, 1), (10, 3, 4, 0), (12, 5, 6, 0)]
    assert (recording.backward, recording.outside) == (1, 1)
    warnings = " ".join(file_info(path, reading=Reading(100, 100))["warnings"])
    assert "1 events went back" in warnings
    assert "1 events outside" in warnings
    source = EventFile(path=str(path), width=100, height=100)
    source.poll(10)
    assert {key: source.statistics()[key] for key in ("events", "went back", "outside")} == {
        "events": 3,
        "went back": 1,
        "outside": 1,
    }


def test_other_policies(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("t,x,y,p\n10,1,2,1\n5,3,4,0\n11,200,4,0\n12,5,6,-1\n")

    def read(**policies):
        return read_events(path, width=100, height=100, **policies)

    assert read(backward="drop").events["t"].tolist() == [10, 12]
    assert read(backward="pass", outside="pass").events["t"].tolist() == [10, 5, 11, 12]
    assert read(outside="clamp").events["x"].tolist() == [1, 3, 99, 5]
    stopped = read(backward="error")
    assert stopped.events["t"].tolist() == [10]
    assert "event 1 at 5 us, x 3, y 4 goes back in time" in stopped.fault
    stopped = read(outside="error")
    assert len(stopped.events) == 2
    assert "event 2 at 11 us, x 200, y 4 lies outside of 100x100" in stopped.fault
    for wrong in ("pass", "sort"):
        with pytest.raises(ConfigError, match="wanted"):
            EventFile(path=str(path), width=100, height=100, outside=wrong)


@pytest.mark.parametrize("backward", POLICIES)
@pytest.mark.parametrize("outside", POLICIES)
def test_policies_agree_with_plain_python(backward, outside):
    rng = np.random.default_rng(2)
    events = np.zeros(500, EVENT_DTYPE)
    events["t"] = np.arange(500) + rng.integers(-3, 3, 500)
    events["x"], events["y"], events["p"] = rng.integers(0, 12, 500), rng.integers(0, 12, 500), 1
    wanted, highest, n_backward, n_outside, stop = [], 0, 0, 0, 0
    for index, (t, x, y, p) in enumerate(events.tolist()):
        if x >= 10 or y >= 11:
            n_outside += 1
            if outside == "drop":
                continue
            if outside == "error":
                stop = index + 1
                break
            if outside == "clamp":
                x, y = min(x, 9), min(y, 10)
        if t < highest:
            n_backward += 1
            if backward == "drop":
                continue
            if backward == "error":
                stop = index + 1
                break
            if backward == "clamp":
                t = highest
        highest = max(highest, t)
        wanted.append((t, x, y, p))
    kept, counts = np.empty(500, EVENT_DTYPE), np.zeros(4, np.int64)
    n = apply_policies(events, kept, 10, 11, POLICIES.index(backward), POLICIES.index(outside), counts)
    assert kept[:n].tolist() == wanted
    assert counts.tolist() == [highest, n_backward, n_outside, stop]


def test_a_file_that_grows_is_followed(tmp_path):
    events = np.zeros(1000, EVENT_DTYPE)
    events["t"], events["x"] = np.arange(1000), np.arange(1000) % 30
    write_atis_bin(tmp_path / "whole.bin", events)
    raw = (tmp_path / "whole.bin").read_bytes()
    path = tmp_path / "growing.bin"
    path.write_bytes(raw[:123])
    source = EventFile(path=str(path), width=34, height=34, follow_s=1.0)
    parts = []
    for at in [*range(123, len(raw), 777), len(raw)]:
        with path.open("ab") as file:
            file.write(raw[path.stat().st_size : at])
        while (message := source.poll(100)) is not None:
            parts.append(message.items)
    while not isinstance(message := source.poll(100), End):
        assert message is None
    assert message.reason == ""
    np.testing.assert_array_equal(np.concatenate(parts), events)


@pytest.mark.parametrize(
    "name", ["evt3/expelliarmus_evt3_sample.raw", "es/dvs.es", "txt/slider_depth_events_chunk.txt"]
)
def test_standard_input(data, name):
    command = [sys.executable, "-P", "-m", "stream", "info", "-", "--json", "--size", "1280x720"]
    piped = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    whole = (data / name).read_bytes()
    for at in range(0, len(whole), 300_001):  # in dribbles
        piped.stdin.write(whole[at : at + 300_001])
        piped.stdin.flush()
    out, _ = piped.communicate(timeout=60)
    info = file_info(data / name, reading=Reading(1280, 720))
    assert {key: json.loads(out)[key] for key in KEYS} == {key: info[key] for key in KEYS}


def test_standard_input_without_a_size_is_refused():
    command = [sys.executable, "-P", "-m", "stream", "info", "-"]
    piped = subprocess.run(command, input=b"t,x,y,p\n1,2,3,1\n", capture_output=True, check=False, timeout=60)
    assert piped.returncode == 2
    assert b"give width and height" in piped.stderr


@pytest.mark.parametrize("format", ["evt2", "evt3", "dat", "bin", "csv", "aedat2"])
def test_the_index_changes_nothing_but_the_time_it_takes(tmp_path, monkeypatch, format):
    monkeypatch.setattr(event_file, "_ENTRY_BYTES", 1)
    rng = np.random.default_rng(7)
    events = np.zeros(300_000, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.choice([0, 1, 60, 400], len(events), p=[0.3, 0.3, 0.3, 0.1]))
    events["x"], events["y"] = rng.integers(0, 200, (2, len(events)))
    events["p"] = rng.integers(0, 2, len(events))
    width = 190
    if format == "aedat2":
        width = 100
        words = np.zeros((len(events), 2), ">u4")
        words[:, 0] = (events["y"].astype(int) % 128 << 8) | (events["x"].astype(int) % 128 << 1) | events["p"]
        words[:, 1] = events["t"]
        (tmp_path / "a").write_bytes(b"#!AER-DAT2.0\r\n# AEChip: DVS128\r\n" + words.tobytes())
        events = read_events(tmp_path / "a").events
    else:
        writer = open_writer(tmp_path / "a", 240, 240, format=format)
        writer.write(events)
        writer.close()
    source = EventFile(path=str(tmp_path / "a"), width=width, height=240, format=format if format == "bin" else "auto")
    kept = events[events["x"] < width]

    def rest(n=1000):
        parts = []
        while n and isinstance(message := source.poll(100_000), Packet):
            parts.append(message.items)
            n -= 1
        return np.concatenate(parts) if parts else kept[:0]

    np.testing.assert_array_equal(rest(), kept)
    assert len(source._index) > 3 or format == "csv"
    for place in [*rng.integers(0, len(kept), 12), 0, len(kept)]:
        source.restore({"n_out": np.array(place)})
        found = rest(2)
        np.testing.assert_array_equal(found, kept[place:][: len(found)])
        assert len(found) or place == len(kept)
        source.restore({"n_out": np.array(0)})
        t_us = int(kept["t"][min(place, len(kept) - 1)])
        source.skip_to(t_us)
        first = int(np.searchsorted(kept["t"], t_us))
        found = rest(2)
        np.testing.assert_array_equal(found, kept[first:][: len(found)])
        assert len(found)


def test_skipping_hands_out_what_comes_later(tmp_path):
    events = np.zeros(3000, EVENT_DTYPE)
    events["t"], events["x"] = np.sort(np.random.default_rng(1).integers(0, 5000, 3000)), np.arange(3000) % 30
    write_atis_bin(tmp_path / "a.bin", events)
    for t_us in (0, 17, 2500, 4999, 9000):
        source = EventFile(path=str(tmp_path / "a.bin"))
        source.poll(5)
        source.skip_to(t_us)
        rest = []
        while isinstance(message := source.poll(100), Packet):
            rest.append(message.items)
        wanted = events[5:][events["t"][5:] >= t_us]
        np.testing.assert_array_equal(np.concatenate(rest) if rest else wanted[:0], wanted)


def test_text_layouts(tmp_path):
    for text, wanted in [
        ("0.0000029999 1 2 1\n0.5 3 4 0\n", [(3, 1, 2, 1), (500000, 3, 4, 0)]),  # rounded, not truncated
        ("x;y;on;t\n1;2;true;7\n3;4;false;9\n", [(7, 1, 2, 1), (9, 3, 4, 0)]),
        ("# comment\n\n7, 1, 2, 1\r\n9, 3, 4, 0\r\n", [(7, 1, 2, 1), (9, 3, 4, 0)]),
    ]:
        path = tmp_path / "a.csv"
        path.write_text(text)
        assert read_events(path).events.tolist() == wanted
    path.write_text("1,2,3,1\n2,3,4,0\n3,bad,4,0\n4,5,6,1\n")
    recording = read_events(path)
    assert len(recording.events) == 2
    assert "line 3: got '3,bad,4,0'" in recording.fault


def test_dat_times_unwrap_and_tails_are_told(tmp_path):
    path = tmp_path / "a.dat"
    records = np.array([(4294967290, 5 | 6 << 14 | 1 << 28), (3, 7 | 8 << 14)], "<u4,<u4")
    path.write_bytes(b"% Version 2\n% Height 240\n% Width 304\n\x0c\x08" + records.tobytes() + b"abc")
    recording = read_events(path)
    assert recording.events.tolist() == [(4294967290, 5, 6, 1), (4294967299, 7, 8, 0)]
    assert (recording.width, recording.height) == (304, 240)
    assert "got 3 bytes, wanted 8" in recording.fault


def test_a_position_past_the_end_is_refused(tmp_path):
    write_atis_bin(tmp_path / "a.bin", np.zeros(3, EVENT_DTYPE))
    write_atis_bin(tmp_path / "b.bin", np.zeros(9, EVENT_DTYPE))
    long = EventFile(path=str(tmp_path / "b.bin"))
    long.poll(8)
    short = EventFile(path=str(tmp_path / "a.bin"))
    with pytest.raises(ConfigError, match="stands at event 8, but the file has 3"):
        short.restore(long.snapshot())
    message = short.poll(10)
    assert isinstance(message, Packet)
    assert len(message.items) == 3
