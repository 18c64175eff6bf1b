"""HDF5 files: every layout, missing filters, lies about size, damage; and the writer, read back by h5py."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.hdf5 import Hdf5Writer, read_hdf5
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

h5py = pytest.importorskip("h5py")

FIELDS = {"x": "<u2", "y": "<u2", "p": "<i2", "t": "<i8"}


def some_events(n, seed=0, last_us=10**7):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, last_us, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 640, n), rng.integers(0, 480, n), rng.integers(0, 2, n)
    return events


def drain(path, **options):
    """Return what was read and the fault's text."""
    parts, fault = [np.empty(0, EVENT_DTYPE)], ""
    try:
        for events in read_hdf5(path, **options):
            assert events.dtype == EVENT_DTYPE
            assert len(events) > 0
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), fault


def table(events):
    rows = np.zeros(len(events), list(FIELDS.items()))
    for name in FIELDS:
        rows[name] = events[name]
    return rows


def put(group, events, names="txyp", **options):
    for name, key in zip(names.split(",") if "," in names else names, "txyp", strict=True):
        group.create_dataset(name, data=events[key], **options)


STORED = {
    "contiguous": {},
    "chunked": {"chunks": (100,)},
    "packed": {"chunks": (70_000,), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "small chunks": {"chunks": (7,), "compression": "lzf"},
}


@pytest.mark.parametrize("n", [0, 1, 65537, 150_000])
@pytest.mark.parametrize("stored", STORED)
def test_four_arrays_however_they_are_stored(tmp_path, stored, n):
    events = some_events(n)
    options = {**STORED[stored], "maxshape": (None,)} if STORED[stored] else {}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put(file.create_group("davis/left"), events, "ts,xs,ys,pol", **options)
    read, fault = drain(tmp_path / "a.h5")
    assert not fault
    np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize("stored", ["contiguous", "packed"])
def test_the_layout_of_dsec(tmp_path, stored):
    events = some_events(100_000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("events")
        group.create_dataset("t", data=events["t"].astype("<u4"), **STORED[stored])
        for name in "xyp":
            group.create_dataset(name, data=events[name], **STORED[stored])
        file["t_offset"] = np.int64(5_849_902_811)
        file["ms_to_idx"] = np.arange(10_000, dtype="<u8")
        file["more/ts"] = np.zeros(3)  # of no interest
    read, fault = drain(tmp_path / "a.h5")
    assert not fault
    assert read["t"][0] == events["t"][0] + 5_849_902_811
    read["t"] -= 5_849_902_811
    np.testing.assert_array_equal(read, events)
    np.testing.assert_array_equal(drain(tmp_path / "a.h5", raw=True)[0], events)


@pytest.mark.parametrize("stored", ["contiguous", "packed"])
def test_the_layout_of_prophesee(tmp_path, stored):
    events = some_events(80_000)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("CD/events", data=table(events), **STORED[stored])
        file.create_dataset("CD/indexes", data=np.zeros(5, [("id", "<u8"), ("ts", "<i8")]))
        file.create_dataset("EXT_TRIGGER/events", data=np.zeros(2, [("p", "<i2"), ("t", "<i8"), ("id", "<i2")]))
        file.attrs["geometry"] = "1280x720"
    decoder = read_hdf5(tmp_path / "a.hdf5")
    assert (decoder.width, decoder.height) == (1280, 720)
    np.testing.assert_array_equal(np.concatenate(list(decoder)), events)


def test_a_missing_filter_is_named(tmp_path):
    """The number of ECF in place of deflate's; nothing is unpacked, so it does not matter whose bytes these are."""
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("CD/events", data=table(some_events(1000)), chunks=(100,), compression="gzip")
    raw = (tmp_path / "a.hdf5").read_bytes()
    place = raw.find(b"\x01\x00\x08\x00\x01\x00\x01\x00deflate\x00")  # filter 1, with its name
    assert place > 0
    (tmp_path / "a.hdf5").write_bytes(raw[:place] + (0x8ECF).to_bytes(2, "little") + raw[place + 2 :])
    read, fault = drain(tmp_path / "a.hdf5")
    assert len(read) == 0
    assert "ECF" in fault
    assert "HDF5_PLUGIN_PATH" in fault


def test_several_cameras_need_a_mapping(tmp_path):
    left, right = some_events(50, 1), some_events(60, 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put(file.create_group("prophesee/left"), left)
        put(file.create_group("prophesee/right"), right)
        file["table"] = table(left)
        file["odd/when"], file["odd/a"], file["odd/b"], file["odd/c"] = (right[key] for key in "txyp")
    read, fault = drain(tmp_path / "a.h5")
    assert len(read) == 0
    assert all(words in fault for words in ("prophesee/left", "prophesee/right", "table", "mapping"))
    for mapping, wanted in (
        ("prophesee/left", left),
        ("/prophesee/right", right),
        ("table", left),
        ("t=odd/when, x=odd/a, y=odd/b, p=odd/c", right),
    ):
        read, fault = drain(tmp_path / "a.h5", mapping=mapping)
        assert not fault
        np.testing.assert_array_equal(read, wanted)
    for mapping in ("nowhere", "odd", "t=odd/when,x=odd/a", "t=odd/when,x=odd/a,y=odd/b,p=none", "t=odd,x=a,y=b,p=c"):
        read, fault = drain(tmp_path / "a.h5", mapping=mapping)
        assert len(read) == 0
        assert "mapping" in fault


@pytest.mark.parametrize("order", ["txyp", "xypt", "xytp"])
def test_a_matrix(tmp_path, order):
    events = some_events(70_000, last_us=10**9)
    events["x"][:2], events["t"][0] = 300, 0
    matrix = np.stack([events[key].astype(float) for key in order], axis=1)
    matrix[:, order.index("p")] = np.where(events["p"], 1, -1)
    matrix[:, order.index("t")] = events["t"] / 1e6 + 0.25
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("davis/left/events", data=matrix, chunks=(1000, 3))
    read, fault = drain(tmp_path / "a.h5")
    assert not fault
    read["t"] -= 250_000
    np.testing.assert_array_equal(read, events)
    assert len(drain(tmp_path / "a.h5", columns=order)[0]) == len(events)


@pytest.mark.parametrize("origin", [0, 1])
@pytest.mark.parametrize("layout", ["struct", "matrix"])
def test_matlab_7_3(tmp_path, layout, origin):
    """MATLAB writes columns as rows, a name of the class at each, and 512 bytes of its own before."""
    events = some_events(90_000, last_us=10**9)
    events["x"][:2], events["y"][:2] = (0, 639), (479, 0)
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        if layout == "struct":
            for key in "txyp":
                column = events[key].astype(float) + (origin if key in "xy" else 0)
                file.create_dataset(f"TD/{'ts' if key == 't' else key}", data=column[None, :], chunks=(1, 5000))
                file[f"TD/{'ts' if key == 't' else key}"].attrs["MATLAB_class"] = np.bytes_("double")
            file["#refs#/t"] = np.zeros(3)
        else:
            columns = [events[key].astype("<i4") + (origin if key in "xy" else 0) for key in "xypt"]
            file.create_dataset("events", data=np.stack(columns))
            file["events"].attrs["MATLAB_class"] = np.bytes_("int32")
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    decoder = read_hdf5(tmp_path / "a.mat")
    np.testing.assert_array_equal(np.concatenate(list(decoder)), events)
    assert bool(decoder.losses()) == bool(origin)
    events["x"] += origin
    events["y"] += origin
    np.testing.assert_array_equal(drain(tmp_path / "a.mat", raw=True)[0], events)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"width": 640, "height": 480}, (640, 480)),
        ({"sensor_width": [640], "sensor_height": [480]}, (640, 480)),
        ({"geometry": b"640x480"}, (640, 480)),
        ({"sensor_resolution": [480, 640]}, (640, 480)),
        ({"width": 640}, (None, None)),
        ({"geometry": "wide"}, (None, None)),
        ({"width": -3, "height": 2**40}, (None, None)),
    ],
)
@pytest.mark.parametrize("place", ["/", "a/b", "a/b/t"])
def test_declared_sizes(tmp_path, attributes, size, place):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put(file.create_group("a/b"), some_events(3))
        file[place].attrs.update(attributes)
    decoder = read_hdf5(tmp_path / "a.h5")
    assert (decoder.width, decoder.height) == size


def test_the_recorded_file(data):
    events, fault = drain(data / "hdf5" / "evlibrary_event.hdf5")
    assert not fault
    assert (len(events), events["p"].sum(), events["t"][0], events["t"][-1]) == (17, 0, 0, 5748)
    assert (events["x"].sum(), events["y"].sum()) == (1103, 1801)


# damage


def test_arrays_that_claim_more_than_is_stored(tmp_path):
    """A chunk that was never written reads as zeros, 2^40 of them here."""
    events = some_events(2500)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put(file.create_group("events"), events, chunks=(1000,), maxshape=(None,))
        for name in "txyp":
            file["events"][name].resize((2**40,))
        file.create_dataset("never/t", (2**30,), "<i8")
        for name in "xyp":
            file.create_dataset(f"never/{name}", (2**30,), "<i8", chunks=(1000,))
    read, fault = drain(tmp_path / "a.h5")
    np.testing.assert_array_equal(read[:2500], events)
    assert len(read) == 3000  # to the end of the last chunk: where in it the writing ended, nothing tells
    assert f"row 3000 of {2**40}" in fault
    assert "never written" in drain(tmp_path / "a.h5", mapping="never")[1]


def test_what_stands_before_a_bad_chunk_is_read(tmp_path):
    events = some_events(10_000)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put(file.create_group("events"), events, chunks=(100,), compression="gzip", fletcher32=True)
        place = file["events/y"].id.get_chunk_info_by_coord((7200,))
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(place.byte_offset + 5)
        file.write(b"\xff\x00\xff\x00\xff")
    read, fault = drain(tmp_path / "a.h5")
    np.testing.assert_array_equal(read, events[:7200])
    assert "row 7200 of 10000" in fault


def test_what_cannot_be_read_is_refused(tmp_path):
    with h5py.File(tmp_path / "huge_chunk.h5", "w") as file:
        for name in "txyp":
            file.create_dataset(name, (10,), "<i8", chunks=(2**28,), maxshape=(None,), compression="gzip")
    with h5py.File(tmp_path / "lengths.h5", "w") as file:
        file["t"], file["x"], file["y"], file["p"] = np.zeros(3), np.zeros(3), np.zeros(4), np.zeros(3)
    with h5py.File(tmp_path / "words.h5", "w") as file:
        for name in "txyp":
            file[name] = ["a", "b"]
    with h5py.File(tmp_path / "nothing.h5", "w") as file:
        file["image"] = np.zeros((5, 5))
        file["null/t"] = h5py.Empty("f")
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        for name in "txyp":
            file.create_dataset(name, (10,), "<i8", external=[(str(tmp_path / "words.h5"), 0, 80)])
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["events"] = h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "events")
        file["dangling"] = h5py.SoftLink("/no/such/place")
    with h5py.File(tmp_path / "ambiguous.h5", "w") as file:
        file["events"] = np.zeros((10, 4))
    with h5py.File(tmp_path / "fields.h5", "w") as file:
        file["events"] = np.zeros(10, [("t", "i8", (3,)), ("x", "i2"), ("y", "i2"), ("p", "S3")])
    (tmp_path / "text.h5").write_text("t,x,y,p")
    for path in [*sorted(tmp_path.iterdir()), tmp_path / "missing.h5", tmp_path]:
        read, fault = drain(path)
        assert len(read) == 0, path
        assert fault, path
    assert "columns" in drain(tmp_path / "nothing.h5", columns="txy")[1]


def test_a_group_that_contains_itself(tmp_path):
    events = some_events(5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put(file.create_group("a/b"), events)
        file["a/again"] = file["/"]
        file["a/b/up"] = h5py.SoftLink("/a")
    np.testing.assert_array_equal(drain(tmp_path / "a.h5")[0], events)


def made(kind):
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        if kind == "table":
            file.create_dataset("CD/events", data=table(some_events(300)), chunks=(100,), compression="gzip")
        else:
            put(file.create_group("events"), some_events(300), **STORED["small chunks" if kind == "packed" else kind])
            file["t_offset"] = 7
    return memory.getvalue()


@pytest.mark.parametrize("kind", ["table", "contiguous", "chunked", "packed"])
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path, kind):
    raw = made(kind)
    for end in [*range(0, 100), *range(100, len(raw), 101), len(raw) - 1]:
        (tmp_path / "a.h5").write_bytes(raw[:end])
        read, fault = drain(tmp_path / "a.h5")
        assert fault or len(read) == 300, end  # HDF5 may end a file with space that it does not use


@settings(max_examples=200)
@given(st.sampled_from(["table", "contiguous", "chunked", "packed"]), st.data())
def test_damage_is_told_and_never_crashes(tmp_path_factory, kind, data):
    raw = bytearray(made(kind))
    reach = data.draw(st.sampled_from([700, 3000, len(raw)]))  # what describes the data stands in front
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, min(reach, len(raw)) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("h5") / "a.h5"
    path.write_bytes(raw)
    assert len(drain(path)[0]) < 100_000


# the writer


def cuts(n, seed):
    return sorted(np.random.default_rng(seed).integers(0, n + 1, 20).tolist())


@pytest.mark.parametrize("n", [0, 1, 65536, 200_000])
def test_what_is_written_is_read_by_h5py_and_by_us(tmp_path, n):
    events = some_events(n)
    events["t"] += 1_700_000_000_000_000
    with Hdf5Writer(tmp_path / "a.h5", 640, 480) as writer:
        for part in np.split(events, cuts(n, 3)):
            writer.write(part)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        offset = int(file["t_offset"][()])
        for name in "xyp":
            np.testing.assert_array_equal(file["events"][name][:], events[name])
        t_us, index = file["events/t"][:], file["ms_to_idx"][:]
        np.testing.assert_array_equal(t_us + offset, events["t"])
        marks = np.arange(len(index)) * 1000
        np.testing.assert_array_equal(index, np.searchsorted(t_us, marks))
        assert len(index) == (t_us[-1] // 1000 + 1 if n else 0)
    decoder = read_hdf5(tmp_path / "a.h5")
    assert (decoder.width, decoder.height) == (640, 480)
    np.testing.assert_array_equal(np.concatenate([np.empty(0, EVENT_DTYPE), *decoder]), events)


def test_where_the_pieces_are_cut_changes_no_byte(tmp_path):
    events = some_events(150_000)
    for name, seed in (("a", 1), ("b", 2)):
        with Hdf5Writer(tmp_path / name, 640, 480) as writer:
            for part in np.split(events, cuts(len(events), seed)):
                writer.write(part)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_a_crash_leaves(tmp_path):
    events = some_events(70_000)
    writer = Hdf5Writer(tmp_path / "a.h5", 640, 480)
    writer.write(events)
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes())  # as the disk has it now
    writer.close()
    read, fault = drain(tmp_path / "b.h5")
    assert not fault
    np.testing.assert_array_equal(read, events[:65536])


def test_a_silence_of_years(tmp_path):
    events = some_events(4)
    events["t"] = [-(2**59), 0, 1, 2**60]
    with Hdf5Writer(tmp_path / "a.h5", 640, 480) as writer:
        writer.write(events)
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert "ms_to_idx" not in file
    np.testing.assert_array_equal(drain(tmp_path / "a.h5")[0], events)


@pytest.mark.parametrize(
    ("field", "value"), [("t", 5), ("t", 2**61), ("x", 640), ("y", 480), ("p", 2)], ids=lambda value: str(value)
)
def test_an_event_that_does_not_fit_ends_the_writing(tmp_path, field, value):
    events = some_events(100)
    events["t"] += 10
    events[field][60] = value
    writer = Hdf5Writer(tmp_path / "a.h5", 640, 480)
    writer.write(events[:30])
    with pytest.raises(FormatError, match="event 60"):
        writer.write(events[30:])
    writer.close()
    writer.close()
    np.testing.assert_array_equal(drain(tmp_path / "a.h5")[0], events[:60])


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="0x480"):
        Hdf5Writer(tmp_path / "a.h5", 0, 480)
    with pytest.raises(ConfigError, match="cannot be written"):
        Hdf5Writer(tmp_path / "no" / "a.h5", 640, 480)
