"""Event files against the ground truth of real recordings, and every kind of bad file."""

import numpy as np
import pytest

from sources.atis_bin import write_atis_bin
from sources.event_file import DECODERS, EventFile, _container, file_info, keep_in_order, read_events
from sources.file_format import _MAGIC
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, End, Packet

EXACT = [
    "aedat4/tonic_sample.aedat4",
    "aedat4/aestream_davis.aedat4",
    "aedat4/dvs128_2024_06_13_16_16_25.aedat4",
    "evt2/expelliarmus_evt2_sample.raw",
    "evt2/genx320_left2_headerless.bin",
    "evt3/expelliarmus_evt3_sample.raw",
    "dat/ncars_sample.dat",
    "bin40/nmnist_sample.bin",
    "bin40/ncaltech101_faces_easy_0001.bin",
    "nmnist/train/1/00007.bin",
    "txt/slider_depth_events_chunk.txt",
]
KEYS = ["events", "on_events", "width", "height", "t_first_us", "t_last_us", "sum_x", "sum_y"]
REFUSED = [
    ("aedat2/dvs128_2017_short.aedat", "AEDAT 2"),
    ("es/color.es", "color"),
    ("es/generic.es", "generic"),
    ("evt21/kv260_tc_001_in.evt", "unknown format"),
]


def truth_of(data, name):
    import json

    files = json.loads((data / "MANIFEST.json").read_text())["files"]
    return next(file["truth"] for file in files if file["file"] == name)


@pytest.mark.parametrize("name", EXACT)
def test_recordings_match_their_ground_truth(data, name):
    truth, info = truth_of(data, name), file_info(data / name)
    assert {key: info[key] for key in KEYS} == {key: truth[key] for key in KEYS}


def test_event_stream_files_are_turned_upright(data):
    truth, info = truth_of(data, "es/dvs.es"), file_info(data / "es/dvs.es")
    truth["sum_y"] = (truth["height"] - 1) * truth["events"] - truth["sum_y"]  # stored from the bottom
    assert {key: info[key] for key in KEYS} == {key: truth[key] for key in KEYS}


@pytest.mark.parametrize(("name", "words"), REFUSED)
def test_other_formats_are_refused_by_name(data, name, words):
    with pytest.raises(FormatError, match=words) as error:
        file_info(data / name)
    assert "AEDAT4" in str(error.value) or "wanted dvs" in str(error.value)


@pytest.mark.parametrize(("magic", "name"), _MAGIC)
def test_containers_are_recognised_by_their_content(tmp_path, monkeypatch, magic, name):
    path = tmp_path / "a.xyz"
    path.write_bytes(magic + bytes(100))
    events = np.zeros(3, EVENT_DTYPE)
    monkeypatch.setitem(DECODERS, name, lambda path, kind: [events])
    assert file_info(path)["format"] == name
    assert len(read_events(path).events) == 3


def test_a_container_without_its_library_is_refused_with_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "a.xyz"
    path.write_bytes(_MAGIC[0][0])
    (tmp_path / "needs_a_library.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, words in [("sources.none", "HDF5, which cannot be read yet"), ("needs_a_library", "install a")]:
        monkeypatch.setitem(DECODERS, "hdf5", _container(module, "read"))
        for size in (None, 10):
            with pytest.raises(FormatError, match=words):
                read_events(path, width=size, height=size)


@pytest.mark.parametrize("name", ["aedat4/tonic_sample.aedat4", "evt2/expelliarmus_evt2_sample.raw", "es/dvs.es"])
def test_a_torn_file_is_read_up_to_the_tear(data, tmp_path, name):
    whole = (data / name).read_bytes()
    torn = tmp_path / f"torn{(data / name).suffix}"
    torn.write_bytes(whole[: len(whole) // 2 + 1])
    full, part = read_events(data / name), read_events(torn, width=2048, height=2048)
    assert 0 < len(part.events) < len(full.events)
    np.testing.assert_array_equal(part.events, full.events[: len(part.events)])
    if not name.endswith(".es"):  # faery leaves a torn .es record out without telling
        assert "torn" in part.fault or "damaged after event" in part.fault
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
        ("cut.aedat4", b"#!AER-DAT4.0\r\n\x0c", "header cannot be read"),
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
    assert (recording.clamped, recording.outside) == (1, 1)
    warnings = " ".join(file_info(path, width=100, height=100)["warnings"])
    assert "1 events went back" in warnings
    assert "1 events outside" in warnings
    source = EventFile(path=str(path), width=100, height=100)
    source.poll(10)
    assert source.statistics() == {"events": 3, "times raised": 1, "outside dropped": 1}


def test_keep_in_order_agrees_with_plain_python():
    rng = np.random.default_rng(2)
    events = np.zeros(500, EVENT_DTYPE)
    events["t"] = np.arange(500) + rng.integers(-3, 3, 500)
    events["x"], events["y"], events["p"] = rng.integers(0, 12, 500), rng.integers(0, 12, 500), 1
    wanted, last = [], 0
    for t, x, y, p in events.tolist():
        if x < 10 and y < 11:
            last = max(last, t)
            wanted.append((last, x, y, p))
    kept = np.empty(500, EVENT_DTYPE)
    n = keep_in_order(events, kept, 10, 11, np.zeros(3, np.int64))
    assert kept[:n].tolist() == wanted


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
