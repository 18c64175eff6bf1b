"""MATLAB 5 files: what SciPy writes, what authors published, counting from 1, damage."""

import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.mat_file import read_mat
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def some_events(n, seed=0, last_us=10**7):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, last_us, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 640, n), rng.integers(0, 480, n), rng.integers(0, 2, n)
    if n > 2:
        events["x"][:2], events["y"][:2] = (0, 639), (479, 0)
    return events


def drain(path, **options):
    """Return what was read, the fault's text and what was told."""
    parts, fault, told = [np.empty(0, EVENT_DTYPE)], "", []
    try:
        decoder = read_mat(path, **options)
        told = decoder.losses()
        for events in decoder:
            assert events.dtype == EVENT_DTYPE
            assert len(events) > 0
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), fault, told


def save(path, content, **options):
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(path, content, **options)
    return path


def struct_of(events, origin=0, dtype=float):
    return {
        "ts": events["t"].astype(dtype),
        "x": events["x"].astype(dtype) + origin,
        "y": events["y"].astype(dtype) + origin,
        "p": events["p"].astype(np.int8) * 2 - 1,
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("n", [0, 1, 3, 65537, 150_000])
@pytest.mark.parametrize("layout", ["struct", "columns", "four"])
def test_vectors(tmp_path, layout, n, packed):
    events = some_events(n)
    content = struct_of(events, dtype=np.uint32)
    if layout == "struct":
        content = {
            "note": "words",
            "TD": {**content, "meta": {"deep": [1, "two"]}},
            "cells": np.array([1, "a"], object),
        }
    path = save(tmp_path / "a.mat", content, do_compression=packed, oned_as="column" if layout == "columns" else "row")
    read, fault, told = drain(path)
    assert not fault
    assert not told
    np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lying", [False, True])
@pytest.mark.parametrize("order", ["txyp", "xypt", "xytp"])
def test_a_matrix(tmp_path, order, lying, packed):
    events = some_events(100_000)
    matrix = np.stack([events[key].astype(np.int64) for key in order], axis=1)
    path = save(
        tmp_path / "a.mat", {"events": matrix.T if lying else matrix, "roi": [0, 0, 9, 9]}, do_compression=packed
    )
    for options in ({}, {"columns": order}, {"variable": "events"}):
        read, fault, _ = drain(path, **options)
        assert not fault
        np.testing.assert_array_equal(read, events)


def test_an_order_that_cannot_be_told(tmp_path):
    rows = np.array([[0, 0, 0, 0], [1, 1, 1, 1]])
    path = save(tmp_path / "a.mat", {"events": rows})
    read, fault, _ = drain(path)
    assert len(read) == 0
    assert "columns = " in fault
    assert drain(path, columns="xypt")[0].tolist() == [(0, 0, 0, 0), (1, 1, 1, 1)]
    assert "columns" in drain(path, columns="xyp")[1]


def test_counting_from_one(tmp_path):
    events = some_events(70_000)
    path = save(tmp_path / "a.mat", {"TD": struct_of(events, origin=1)}, do_compression=True)
    read, fault, told = drain(path)
    assert not fault
    assert "1 was subtracted" in told[0]
    np.testing.assert_array_equal(read, events)
    read, _, told = drain(path, raw=True)
    assert not told
    np.testing.assert_array_equal(read["x"], events["x"] + 1)
    np.testing.assert_array_equal(read["y"], events["y"] + 1)
    events["x"] += 1  # from 1 on one axis only: not by convention
    read, _, told = drain(save(tmp_path / "b.mat", {"TD": struct_of(events)}))
    assert not told
    np.testing.assert_array_equal(read, events)


def test_several_sets_of_events(tmp_path):
    left, right = some_events(30, 1), some_events(40, 2)
    path = save(tmp_path / "a.mat", {"left": struct_of(left), "right": struct_of(right)})
    read, fault, _ = drain(path)
    assert len(read) == 0
    assert all(words in fault for words in ("left (30)", "right (40)", "variable = "))
    np.testing.assert_array_equal(drain(path, variable="right")[0], right)
    assert "variable 'up'" in drain(path, variable="up")[1]
    path = save(tmp_path / "b.mat", {"EM": struct_of(left), "TD": struct_of(right)})
    read, fault, told = drain(path)
    np.testing.assert_array_equal(read, right)
    assert "EM (30 events)" in told[0]


def test_seconds_and_other_units(tmp_path):
    content = struct_of(some_events(3)) | {"ts": [0.5, 1.0000015, 2.0]}
    path = save(tmp_path / "a.mat", content)
    assert drain(path)[0]["t"].tolist() == [500_000, 1_000_002, 2_000_000]
    assert drain(path, time_unit="ms")[0]["t"].tolist() == [500, 1000, 2000]


def test_big_endian(tmp_path):
    """Written by hand: no program at hand does it."""

    def element(kind, raw):
        return struct.pack(">II", kind, len(raw)) + raw + bytes(-len(raw) % 8)

    events = some_events(100)
    raw = HEAD[:124] + b"\x01\x00MI"
    for key in "txyp":
        flags, shape = element(6, struct.pack(">II", 6, 0)), element(5, struct.pack(">ii", 100, 1))
        name = key.encode()
        short = struct.pack(">HH", len(name), 1) + name.ljust(4, b"\x00")
        raw += element(14, flags + shape + short + element(9, events[key].astype(">f8").tobytes()))
    (tmp_path / "a.mat").write_bytes(raw)
    np.testing.assert_array_equal(drain(tmp_path / "a.mat")[0], events)


@pytest.mark.parametrize(
    ("name", "options", "pick"),
    [
        ("rpg_lifetime_stripes", {}, None),
        ("rpg_lifetime_garfield", {}, None),
        ("gorchard_example_data", {"raw": True}, "TD"),
        ("gorchard_example_data", {"raw": True, "variable": "EM"}, "EM"),
        ("gorchard_example_data", {}, "TD"),
    ],
)
def test_the_recorded_files(data, name, options, pick):
    files = json.loads((data / "MANIFEST.json").read_text())["files"]
    truth = next(file["truth"] for file in files if file["file"] == f"mat/{name}.mat")
    truth = truth[pick] if pick else truth
    events, fault, told = drain(data / "mat" / f"{name}.mat", **options)
    assert not fault
    # the manifest sums what is stored: from 1 on in this file, and one was subtracted from each
    shift = len(events) if pick and not options else 0
    assert any("subtracted" in words for words in told) == bool(shift)
    assert (len(events), int(events["p"].sum(dtype=np.int64))) == (truth["events"], truth["on_events"])
    assert (events["t"][0], events["t"][-1]) == (truth["t_first_us"], truth["t_last_us"])
    sums = [int(events[axis].sum(dtype=np.int64)) + shift for axis in "xy"]
    assert sums == [truth["sum_x"], truth["sum_y"]]
    assert (np.diff(events["t"]) < 0).sum() == truth["backward_steps"]


def test_the_recorded_touch(data):
    scipy_io = pytest.importorskip("scipy.io")
    train = scipy_io.loadmat(data / "mat" / "stmnist_sample.mat")["spiketrain"]
    decoder = read_mat(data / "mat" / "stmnist_sample.mat")
    events = np.concatenate(list(decoder))
    assert (decoder.width, decoder.height, len(events)) == (10, 10, np.count_nonzero(train[:100]))
    rebuilt = np.zeros((100, train.shape[1]))
    sample = np.searchsorted(np.rint(train[100] * 1e6), events["t"])
    later = np.arange(len(events)) - np.searchsorted(events["t"], events["t"])  # events of the same microsecond
    rebuilt[events["y"] * 10 + events["x"], sample + later] = np.where(events["p"], 1, -1)
    np.testing.assert_array_equal(rebuilt, train[:100])


# damage


def made(kind):
    memory = io.BytesIO()
    events = some_events(300)
    if kind.startswith("struct"):
        content = {"note": "x" * 50, "TD": struct_of(events, dtype=np.uint32)}
    else:
        content = {"events": np.stack([events[key].astype(np.int32) for key in "xypt"], axis=1)}
    save(memory, content, do_compression=kind.endswith("packed"))
    return memory.getvalue(), events


@pytest.mark.parametrize("kind", ["struct", "struct packed", "matrix", "matrix packed"])
def test_a_cut_file_is_read_as_far_as_all_columns_reach(tmp_path, kind):
    raw, events = made(kind)
    path = tmp_path / "a.mat"
    lengths = set()
    for end in [*range(400), *range(400, len(raw), 3), len(raw) - 1]:
        path.write_bytes(raw[:end])
        read, fault, _ = drain(path)
        assert fault or (end == 128 + 8 and not len(read)), end
        np.testing.assert_array_equal(read, events[: len(read)])
        lengths.add(len(read))
    assert len(lengths) > 10


@settings(max_examples=300)
@given(st.sampled_from(["struct", "struct packed", "matrix", "matrix packed"]), st.data())
def test_damage_is_told_and_never_crashes(tmp_path_factory, kind, data):
    raw = bytearray(made(kind)[0])
    reach = data.draw(st.sampled_from([400, len(raw)]))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, min(reach, len(raw)) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    path.write_bytes(raw)
    tracemalloc.start()
    try:
        assert len(drain(path)[0]) < 10_000
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def element(kind, raw):
    return struct.pack("<II", kind, len(raw)) + raw + bytes(-len(raw) % 8)


def test_thousands_of_nested_cells(tmp_path):
    """SciPy 1.17 crashes on these."""
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"")
    heads, size = [], 0
    for _ in range(100_000):
        heads.append(struct.pack("<II", 14, len(head) + size) + head)
        size += len(heads[-1])
    (tmp_path / "a.mat").write_bytes(HEAD + b"".join(reversed(heads)))
    assert "none of its arrays" in drain(tmp_path / "a.mat")[1]


def test_a_small_file_that_unpacks_to_much(tmp_path):
    n = 40_000_000
    head = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", n, 4)) + element(1, b"events")
    packer = zlib.compressobj(9)
    packed = packer.compress(struct.pack("<II", 14, len(head) + 8 + 4 * n) + head + struct.pack("<II", 2, 4 * n))
    for _ in range(4 * n >> 20):
        packed += packer.compress(bytes(1 << 20))
    packed += packer.flush()
    assert len(packed) < 1 << 18
    (tmp_path / "a.mat").write_bytes(HEAD + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    parts = iter(read_mat(tmp_path / "a.mat", columns="txyp", raw=True))
    n_read = sum(len(next(parts)) for _ in range(600))
    with pytest.raises(FormatError, match="before"):
        list(parts)
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert n_read == 600 * 65536


def test_what_holds_no_events(tmp_path):
    save(tmp_path / "a.mat", {"image": np.zeros((5, 6)), "t": [1, 2], "z": np.zeros(3) + 1j})
    save(tmp_path / "b.mat", {"TD": {"t": [1, 2, 3], "x": [1, 2], "y": [1, 2, 3], "p": [1, 2, 3]}})
    save(tmp_path / "c.mat", {"TD": np.array([(1, 2, 3, 4), (1, 2, 3, 4)], [(name, float) for name in "txyp"])})
    (tmp_path / "d.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    for path in [*tmp_path.iterdir(), tmp_path / "missing.mat", tmp_path]:
        read, fault, _ = drain(path)
        assert len(read) == 0
        assert fault, path
