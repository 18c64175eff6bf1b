"""From any file to any other: what is written is read back the same, by our reader and by the command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sources.convert import convert
from sources.event_file import Reading, read_events
from sources.event_writer import SUFFIXES, WRITERS, FileWriter, open_writer, writable_format
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, Label, Packet, packet_of
from stream.record import recorded_messages


def some_events(n: int, width: int, height: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.choice([0, 1, 7, 300], n))
    events["x"], events["y"] = rng.integers(0, width, n), rng.integers(0, height, n)
    events["p"] = rng.integers(0, 2, n)
    return events


def written(path: Path, events: np.ndarray, width: int, height: int, format: str = "") -> Path:
    writer = open_writer(path, width, height, format=format)
    for part in np.array_split(events, 7):
        writer.write(part)
    writer.close()
    writer.close()
    return path


SIZES = {"bin": (200, 200)}


@pytest.mark.parametrize("format", sorted(WRITERS))
def test_every_format_through_every_other(tmp_path: Path, format: str) -> None:
    if format == "hdf5":
        pytest.importorskip("h5py")
    width, height = SIZES.get(format, (320, 240))
    suffix = next(suffix for suffix, name in SUFFIXES.items() if name == format.replace("evt2", "evt3"))
    events = some_events(5000, 200, 200)
    first = written(tmp_path / f"a{suffix}", events, width, height, format)
    second = tmp_path / "b.csv"
    done = convert(first, second)
    assert (done.read, done.written, done.fault) == (5000, 5000, "")
    third = tmp_path / f"c{suffix}"
    convert(second, third, format=format, reading=Reading(width, height))
    for path in (first, second, third):
        np.testing.assert_array_equal(read_events(path).events, events)


def test_a_part_rebased(tmp_path: Path) -> None:
    events = some_events(3000, 100, 80)
    path = written(tmp_path / "a.raw", events, 320, 320)
    middle = int(events["t"][1500])
    start = middle - int(events["t"][0])
    done = convert(path, tmp_path / "b.npz", start_us=start, duration_us=20_000, rebase=True)
    wanted = events[(events["t"] >= middle) & (events["t"] < middle + 20_000)].copy()
    wanted["t"] -= middle
    assert done.written == len(wanted) > 10
    np.testing.assert_array_equal(read_events(tmp_path / "b.npz").events, wanted)


def test_a_torn_file_keeps_what_was_read(tmp_path: Path) -> None:
    events = some_events(3000, 100, 80)
    path = written(tmp_path / "a.dat", events, 304, 240)
    path.write_bytes(path.read_bytes()[:-3])
    done = convert(path, tmp_path / "b.csv")
    assert "everything before was read" in done.fault
    np.testing.assert_array_equal(read_events(tmp_path / "b.csv").events, events[:-1])


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", some_events(10, 300, 200), 320, 240)
    with pytest.raises(ConfigError, match="another file"):
        convert(path, path)
    with pytest.raises(ConfigError, match=r"nothing that can be written; wanted one of aedat4, bin"):
        convert(path, tmp_path / "b.xyz")
    with pytest.raises(ConfigError, match="wanted >= 0"):
        convert(path, tmp_path / "b.csv", start_us=-1)
    with pytest.raises((ConfigError, FormatError), match="1 to 256 each way"):
        convert(path, tmp_path / "b.bin")  # columns up to 299
    assert writable_format(tmp_path / "b.xyz", "evt2") == "evt2"


def test_the_writer_at_the_end_of_a_pipeline(tmp_path: Path) -> None:
    events = some_events(500, 34, 34)
    writer = FileWriter(path=str(tmp_path / "a.raw"), width=34, height=34)
    for part in np.array_split(events, 3):
        writer.on_packet("events", packet_of(part), lambda port, message: None)
        writer.on_mark("events", Label(int(part["t"][-1]), 1, 0), lambda port, message: None)
    writer.on_end(lambda port, message: None)
    writer.close()
    assert writer.statistics() == {"written": 500.0, "marks not written": 3.0}
    np.testing.assert_array_equal(read_events(tmp_path / "a.raw", width=34, height=34).events, events)
    with pytest.raises(ConfigError, match="cannot be gone on with"):
        writer.restore(writer.snapshot())


def command(*words: object, code: int = 0) -> str:
    """Run the command line; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stream", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_the_command_line(tmp_path: Path) -> None:
    """Convert, cut, replay into a recording, record that into a file: the events are those of the beginning."""
    events = some_events(4000, 34, 34)
    path = written(tmp_path / "a.csv", events, 34, 34)
    done = json.loads(command("convert", path, tmp_path / "b.aedat4", "--size", "34x34", "--json"))
    assert (done["format"], done["written"]) == ("aedat4", 4000)
    half_s = int(events["t"][2000] - events["t"][0]) / 1e6
    command("cut", tmp_path / "b.aedat4", tmp_path / "c.csv", "--start", half_s)
    np.testing.assert_array_equal(
        read_events(tmp_path / "c.csv").events, events[events["t"] >= events["t"][0] + round(half_s * 1e6)]
    )
    assert "wanted --start or --duration" in command("cut", path, tmp_path / "d.csv", code=2)
    command("replay", tmp_path / "b.aedat4", "--to", tmp_path / "e.hbs", "--speed", "max", "--loop", "2")
    items = [m.items for _, m, _ in recorded_messages(tmp_path / "e.hbs") if isinstance(m, Packet)]
    assert np.concatenate(items)[["x", "y", "p"]].tolist() == 2 * events[["x", "y", "p"]].tolist()
    command("record", tmp_path / "e.hbs", tmp_path / "f.es", "--size", "34x34", "--duration", "0.1")
    kept = read_events(tmp_path / "f.es").events
    np.testing.assert_array_equal(kept, events[events["t"] < events["t"][0] + 100_000])
    assert "no such file or folder; or say 'simulated'" in command("replay", tmp_path / "none", code=2)
    info = json.loads(command("info", tmp_path / "c.csv", "--json"))
    assert info["events"] == len(read_events(tmp_path / "c.csv").events)


MEMORY = """
import json, resource, sys
from sources.event_file import file_info, open_events
def peak_kb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = iter(open_events(sys.argv[1]))
n_events, early_kb = len(next(parts)), peak_kb()
for part in parts:
    n_events += len(part)
seen = []
found = file_info(sys.argv[1], progress=lambda done, total: seen.append((done, total)))
print(json.dumps([n_events, found["events"], peak_kb() - early_kb, seen == sorted(seen), seen[-1]]))
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Read 2 GB in a process whose memory, once it reads, grows by less than a twentieth of that."""
    if shutil.disk_usage(tmp_path).free < 8_000_000_000:
        pytest.skip("fewer than 8 GB free on the disk")
    path = tmp_path / "a.raw"
    writer = open_writer(path, 640, 480, format="evt2")
    events = some_events(1_000_000, 640, 480)
    span = int(events["t"][-1]) + 1
    for _ in range(500):
        writer.write(events)
        events["t"] += span
    writer.close()
    n_bytes = path.stat().st_size
    assert n_bytes > 2_000_000_000
    told = subprocess.run([sys.executable, "-P", "-c", MEMORY, path], capture_output=True, text=True, check=True)
    path.unlink()
    n_read, n_found, growth_kb, is_forward, last = json.loads(told.stdout)
    assert n_read == n_found == 500_000_000
    assert is_forward
    assert last == [n_bytes, n_bytes], "progress tells how far it is"
    assert growth_kb < 100_000
