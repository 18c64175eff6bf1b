"""NumPy files: any field order and name, torn and hostile ones; and the writer, read back by NumPy alone."""

import io
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.numpy_file import NpzWriter, column_events, find_columns, guess_order, read_numpy
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE


def some_events(n, seed=0):
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 2**40, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 65536, n), rng.integers(0, 480, n), rng.integers(0, 2, n)
    return events


def drain(path, **options):
    """Return what was read and the fault's text."""
    parts, fault = [np.empty(0, EVENT_DTYPE)], ""
    try:
        for events in read_numpy(path, **options):
            assert events.dtype == EVENT_DTYPE
            assert 0 < len(events) <= 65536
            parts.append(events)
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), fault


@pytest.mark.parametrize("n", [0, 1, 65536, 150_000])
@pytest.mark.parametrize("order", ["txyp", "xypt", "ptyx"])
def test_structured_arrays_in_any_order(tmp_path, n, order):
    names = {"t": "timestamp", "x": "x", "y": "y", "p": "polarity"}
    events = some_events(n)
    array = np.zeros(n, [(names[key], "i8") for key in order])
    for key, name in names.items():
        array[name] = events[key]
    for suffix, save in ((".npy", np.save), (".npz", np.savez), ("c.npz", np.savez_compressed)):
        save(tmp_path / f"a{suffix}", array)
        read, fault = drain(tmp_path / f"a{suffix}")
        assert not fault
        np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_separate_arrays(tmp_path, save):
    events = some_events(100_000)
    save(tmp_path / "a.npz", ts=events["t"], x=events["x"], y=events["y"], pol=events["p"] == 1)
    read, fault = drain(tmp_path / "a.npz")
    assert not fault
    np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize("order", ["txyp", "xypt"])
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_plain_arrays_of_four_columns(tmp_path, order, layout, suffix):
    events = some_events(70_000)
    array = np.array(np.stack([events[key].astype(np.int64) for key in order], axis=1), order=layout)
    (np.save if suffix == ".npy" else np.savez)(tmp_path / f"a{suffix}", array)
    read, fault = drain(tmp_path / f"a{suffix}", columns=order)
    assert not fault
    np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize(
    ("times", "unit", "wanted"),
    [
        (np.array([0.0, 0.000011, 1.0000015]), "auto", [0, 11, 1000002]),
        (np.array([0.0, 11.0, 12.0]), "auto", [0, 11, 12]),
        (np.array([0.0, 11.0, 12.0]), "s", [0, 11_000_000, 12_000_000]),
        (np.array([3, 2**53 + 1], np.uint64), "auto", [3, 2**53 + 1]),
        (np.array([1, 2], np.int32), "s", [1_000_000, 2_000_000]),
        (np.array([1999, 2000]), "ns", [1, 2]),
        (np.array([1500.0, 2000.4]), "ns", [2, 2]),
        (np.array([1, 2]), "ms", [1000, 2000]),
        (np.array([-5, 2]), "us", [-5, 2]),
    ],
)
def test_units_of_time(tmp_path, times, unit, wanted):
    ones = np.ones(len(times), np.int8)
    events = np.concatenate(list(column_events(tmp_path, [(times, ones, ones, ones)], time_unit=unit)))
    assert events["t"].tolist() == wanted


def test_polarity_and_coordinates(tmp_path):
    columns = (np.arange(4), np.array([-1, 70000, 3, 4]), np.array([0, 1, 65535, 2]), np.array([-1, 0, 1, 1]))
    events = np.concatenate(list(column_events(tmp_path, [columns])))
    assert events["p"].tolist() == [0, 0, 1, 1]
    assert events["x"].tolist() == [65535, 65535, 3, 4]
    assert events["y"].tolist() == [0, 1, 65535, 2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_stands_before_a_bad_time_is_kept(tmp_path, bad):
    np.savez(tmp_path / "a.npz", t=np.array([1.0, 2.0, bad, 4.0]), x=np.ones(4), y=np.ones(4), p=np.ones(4))
    read, fault = drain(tmp_path / "a.npz")
    assert read["t"].tolist() == [1, 2]
    assert "event 2" in fault


def test_a_time_that_int64_cannot_hold(tmp_path):
    np.savez(tmp_path / "a.npz", t=np.array([1, 2**64 - 1], np.uint64), x=np.ones(2), y=np.ones(2), p=np.ones(2))
    read, fault = drain(tmp_path / "a.npz")
    assert read["t"].tolist() == [1]
    assert "event 1" in fault


def test_a_torn_file_is_read_to_the_tear(tmp_path):
    events = some_events(70_000)
    np.save(tmp_path / "a.npy", events)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[: -5 * EVENT_DTYPE.itemsize - 3])
    read, fault = drain(tmp_path / "a.npy")
    np.testing.assert_array_equal(read, events[:-6])
    assert "6 rows before" in fault


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_torn_array_whose_columns_stand_apart(tmp_path, suffix):
    """Torn within the last column, polarity."""
    events = some_events(70_000)
    array = np.asfortranarray(np.stack([events[key].astype(np.int64) for key in "txyp"], axis=1))
    np.save(tmp_path / "a.npy", array)
    whole = (tmp_path / "a.npy").read_bytes()[:-81]
    (tmp_path / "a.npy").write_bytes(whole)
    if suffix == ".npz":
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("events.npy", whole)
    read, fault = drain(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read, events[:-11])
    assert "11 rows before" in fault


def test_one_torn_array_of_four(tmp_path):
    """What stands in all four is read; a row more would mix events."""
    events = some_events(150_000)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in "txyp":
            file = io.BytesIO()
            np.save(file, events[name])
            archive.writestr(f"{name}.npy", file.getvalue()[: -2 * 10_001 if name == "y" else None])
    read, fault = drain(tmp_path / "a.npz")
    np.testing.assert_array_equal(read, events[:-10_001])
    assert "y" in fault
    assert "10001 rows before" in fault


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_without_bounds_is_refused(tmp_path, packing):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", packing) as archive:
        archive.writestr("events.npy", bytes(1000))
    assert "packed by" in drain(tmp_path / "a.npz")[1]


@pytest.mark.parametrize("kind", ["array", "four"])
def test_a_cut_file_wherever_it_is_cut(tmp_path, kind):
    events = some_events(50)
    if kind == "array":
        np.save(tmp_path / "a", events)
    else:
        np.savez(tmp_path / "a", **{name: events[name] for name in "txyp"})
    path = next(tmp_path.iterdir())
    raw = path.read_bytes()
    for end in range(len(raw)):
        path.write_bytes(raw[:end])
        read, fault = drain(path)
        assert fault
        np.testing.assert_array_equal(read, events[: len(read)])
        assert kind == "four" or len(read) == max(0, end - (len(raw) - 50 * 13)) // 13


def test_an_array_from_standard_input(tmp_path):
    """Slowly, so that there are moments without any bytes."""
    events = some_events(200_000)
    np.save(tmp_path / "a.npy", events)
    program = (
        "import numpy as np; from pathlib import Path; from sources.numpy_file import read_numpy\n"
        "parts = [part.copy() for part in read_numpy(Path('-'))]\n"
        "print(sum(len(part) for part in parts), sum(part['t'].sum() for part in parts))"
    )
    slow = f"head -c 5000 {tmp_path}/a.npy; sleep 0.3; tail -c +5001 {tmp_path}/a.npy"
    child = subprocess.run(
        ["sh", "-c", f'({slow}) | {sys.executable} -c "$0"', program], capture_output=True, text=True, check=False
    )
    assert child.stdout.split() == [str(len(events)), str(events["t"].sum())], child.stderr


class Loud:
    def __reduce__(self):
        return (print, ("ran",))


def test_pickled_objects_are_refused(tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.array([Loud(), Loud()], object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Loud()))
    for name in ("a.npy", "b.npy"):
        read, fault = drain(tmp_path / name)
        assert len(read) == 0
        assert fault
    assert "ran" not in capsys.readouterr().out


def test_a_header_that_promises_too_much_takes_no_memory(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (2**50, 4)})
    (tmp_path / "a.npy").write_bytes(file.getvalue() + np.array([1, 2, 3, 1], "<i8").tobytes())
    read, fault = drain(tmp_path / "a.npy")
    assert read.tolist() == [(1, 2, 3, 1)]
    assert "promises" in fault


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("<i8", (2**62,)),
        ("<i8", (2**40, 2**40)),
        ("<i8", (5, 2**60)),
        (("<i8", (2**40,)), (5,)),
        ([("t", "<i8", (2**20,)), ("x", "u2"), ("y", "u2"), ("p", "u1")], (9,)),
        ("S10000000", (2**50, 4)),
        ("<i8", (-1,)),
        ("<i8", (4, 2**50)),
        ("V0", (3,)),
    ],
)
@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_hostile_headers_take_no_memory(tmp_path, dtype, shape, fortran, suffix):
    literal = repr({"descr": dtype, "fortran_order": fortran, "shape": shape}).encode()
    raw = b"\x93NUMPY\x01\x00" + len(literal).to_bytes(2, "little") + literal + bytes(1000)
    if suffix == ".npy":
        (tmp_path / "a.npy").write_bytes(raw)
    else:
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", raw)
    tracemalloc.start()
    read, fault = drain(tmp_path / f"a{suffix}")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read) == 0
    assert fault
    assert most < 64 << 20


def test_a_header_that_claims_gigabytes(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100))
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY\x09\x09" + bytes(100))
    for path in tmp_path.iterdir():
        assert "header" in drain(path)[1]


def test_what_holds_no_events_says_what_is_wanted(tmp_path):
    np.save(tmp_path / "scalar.npy", np.float64(3))
    np.save(tmp_path / "image.npy", np.zeros((4, 5)))
    np.save(tmp_path / "fields.npy", np.zeros(3, [("t", "i8"), ("u", "i8")]))
    np.savez(tmp_path / "names.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez(tmp_path / "lengths.npz", t=np.zeros(3), x=np.zeros(3), y=np.zeros(2), p=np.zeros(3))
    np.save(tmp_path / "text.npy", np.array([["a", "b", "c", "d"]]))
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    for path in tmp_path.iterdir():
        read, fault = drain(path)
        assert len(read) == 0
        assert "wanted" in fault, path
    assert "cannot be read" in drain(tmp_path / "missing.npy")[1]
    assert "wanted" in drain(tmp_path / "image.npy", columns="txy")[1]


@settings(max_examples=150)
@given(st.data())
def test_damage_is_told_and_never_crashes(tmp_path_factory, data):
    home = tmp_path_factory.mktemp("npy")
    events = some_events(50)
    if data.draw(st.booleans()):
        np.save(home / "a", events)
    else:
        np.savez_compressed(home / "a", t=events["t"], x=events["x"], y=events["y"], p=events["p"])
    path = next(home.iterdir())
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    assert len(drain(path)[0]) < 10_000


def test_names():
    assert find_columns(["X", "y", "TS", "Pol"]) == {"t": "TS", "x": "X", "y": "y", "p": "Pol"}
    assert find_columns(["x", "y", "t"]) is None


def test_the_recorded_array(data):
    read, fault = drain(data / "evt3" / "expelliarmus_evt3_sample.npy")
    assert not fault
    assert len(read) == 219596
    assert (read["t"][0], read["t"][-1], read["p"].sum()) == (11718656, 11772513, 115532)
    assert (int(read["x"].sum(dtype=np.int64)), int(read["y"].sum(dtype=np.int64))) == (159113225, 85638051)


@pytest.mark.parametrize("order", ["txyp", "xypt", "xytp"])
def test_the_order_of_columns_is_guessed_or_not(order):
    events = some_events(100)
    rows = np.stack([events[key].astype(np.int64) for key in order], axis=1)
    assert guess_order(rows) == order
    assert guess_order(rows[:0]) == ""
    assert guess_order(rows[:1]) == ""  # one row fits every order
    assert guess_order(rows[::-1]) == ""  # no time goes on
    rows[50, order.index("p")] = 2
    assert guess_order(rows) == ""


# the writer


def inside(n, seed=0):
    events = some_events(n, seed)
    events["x"] %= 640
    return events


def cuts(n, seed):
    return sorted(np.random.default_rng(seed).integers(0, n + 1, 20).tolist())


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("n", [0, 1, 200_000])
def test_what_is_written_is_read_by_numpy_and_by_us(tmp_path, n, compress):
    events = inside(n)
    with NpzWriter(tmp_path / "a.npz", 640, 480, compress=compress) as writer:
        for part in np.split(events, cuts(n, 3)):
            writer.write(part)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert set(archive) == {"t", "x", "y", "p", "width", "height"}
        assert (archive["width"], archive["height"]) == (640, 480)
        for name in "txyp":
            assert archive[name].dtype == EVENT_DTYPE[name]
            np.testing.assert_array_equal(archive[name], events[name])
    decoder = read_numpy(tmp_path / "a.npz")
    assert (decoder.width, decoder.height) == (640, 480)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate([np.empty(0, EVENT_DTYPE), *decoder]), events)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_where_the_pieces_are_cut_changes_no_byte(tmp_path):
    events = inside(50_000)
    for name, seed in (("a", 1), ("b", 2)):
        with NpzWriter(tmp_path / name, 640, 480) as writer:
            for part in np.split(events, cuts(len(events), seed)):
                writer.write(part)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("field", "value"), [("t", 5), ("x", 640), ("y", 480), ("p", 2)])
def test_an_event_that_does_not_fit_ends_the_writing(tmp_path, field, value):
    events = inside(100)
    events["t"] += 10
    events[field][60] = value
    writer = NpzWriter(tmp_path / "a.npz", 640, 480)
    writer.write(events[:30])
    with pytest.raises(FormatError, match="event 60"):
        writer.write(events[30:])
    writer.close()
    writer.close()
    np.testing.assert_array_equal(drain(tmp_path / "a.npz")[0], events[:60])


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="640x0"):
        NpzWriter(tmp_path / "a.npz", 640, 0)
    with pytest.raises(ConfigError, match="cannot be written"):
        NpzWriter(tmp_path / "no" / "a.npz", 640, 480)


@pytest.mark.parametrize("size", [(0, 480), (640,), (2**40, 3), (640.0, 480.0)])
def test_a_declared_size_that_is_none(tmp_path, size):
    np.savez(
        tmp_path / "a.npz",
        **{name: np.ones(3) for name in "txyp"},
        **dict(zip(("width", "height"), size, strict=False)),
    )
    decoder = read_numpy(tmp_path / "a.npz")
    assert (decoder.width, decoder.height) == (None, None)
    assert len(np.concatenate(list(decoder))) == 3
