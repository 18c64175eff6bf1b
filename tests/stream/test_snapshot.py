"""Snapshots on disk: whole or not at all, under kills, torn files, flipped bits and full disks."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stream.errors import ConfigError
from stream.ledger import EdgeCounts
from stream.snapshot import (
    FINAL,
    Keeper,
    Kept,
    Manifest,
    Part,
    Shelf,
    forget_after,
    latest,
    read_manifest,
    read_snapshot,
    write_manifest,
    write_snapshot,
)

EDGES = {"a.events -> b.events": ("a", "b")}


def complete(folder: Path, number: int, n: int = 3) -> None:
    """Write a snapshot of two members whose content follows from its number."""
    parts = {}
    for name in ("a", "b"):
        size, digest = write_snapshot(folder, number, name, {"x": np.full(n, number), "y": np.array(number / 2)})
        parts[name] = Part(size, digest, 10 * number, False)
    write_manifest(folder, Manifest(number, parts, {name: EdgeCounts(sent_items=number) for name in EDGES}))


def assert_is(folder: Path, number: int) -> None:
    for name in ("a", "b"):
        found = read_snapshot(folder, number, name)
        assert set(found["x"].tolist()) == {number}
        assert found["y"].shape == ()
        assert found["y"] == number / 2


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    complete(tmp_path, 1)
    complete(tmp_path, 12)
    found, refused = latest(tmp_path)
    assert found is not None
    assert (found.number, found.stream_us, refused) == (12, 120, [])
    assert_is(tmp_path, 1)
    assert_is(tmp_path, 12)
    assert list(tmp_path.rglob("*.part")) == []
    forget_after(tmp_path, 1)
    assert latest(tmp_path)[0] == read_manifest(tmp_path, 1)


@pytest.mark.parametrize("file", ["manifest.json", "a.safetensors", "b.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_damage_at_any_byte_is_refused_and_the_one_before_is_taken(tmp_path: Path, file: str, damage: str) -> None:
    complete(tmp_path, 1)
    complete(tmp_path, 2)
    path = tmp_path / "000002" / file
    whole = path.read_bytes()
    chance = random.Random(5)
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1 << chance.randrange(8)
        path.write_bytes(whole[:at] if damage == "cut" else bytes(broken))
        found, refused = latest(tmp_path)
        assert found is not None
        assert found.number == 1, f"byte {at}"
        assert len(refused) == 1
        assert "000002" in refused[0]
    path.write_bytes(whole)
    assert latest(tmp_path)[1] == []


def test_a_missing_file_or_manifest_makes_it_incomplete(tmp_path: Path) -> None:
    complete(tmp_path, 1)
    complete(tmp_path, 2)
    (tmp_path / "000002" / "b.safetensors").unlink()
    assert latest(tmp_path)[0] == read_manifest(tmp_path, 1)
    (tmp_path / "000002" / "manifest.json").unlink()
    assert latest(tmp_path) == (read_manifest(tmp_path, 1), [])
    with pytest.raises(ConfigError, match="was never complete; kept are 000001"):
        read_manifest(tmp_path, 2)
    with pytest.raises(ConfigError, match="not there; kept are 000001"):
        read_snapshot(tmp_path, 7, "a")
    with pytest.raises(ConfigError, match="no 'c' in it; it has a, b"):
        read_snapshot(tmp_path, 1, "c")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "x" * 99])
def test_a_manifest_from_a_stranger_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "000001").mkdir()
    write_manifest(tmp_path, Manifest(1, {name: Part(1, "0" * 64, 0, False)}, {}))
    with pytest.raises(ConfigError, match="manifest damaged"):
        read_manifest(tmp_path, 1)


def test_killed_while_writing_the_last_complete_one_loads(tmp_path: Path) -> None:
    """120 times: a process writes one snapshot after the other, and is killed at a random moment."""
    script = f"""
import os, random, signal, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_snapshot import assert_is, complete
from stream.snapshot import latest
folder, chance = Path({str(tmp_path)!r}) / "s", random.Random(7)
folder.mkdir()
number, torn, reached = 0, 0, set()
for _ in range(120):
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        for at in range(number + 1, number + 10_000):
            complete(folder, at, n=5_000)
            os.write(tell, at.to_bytes(4, "little"))
    os.close(tell)
    time.sleep(chance.uniform(0.001, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    said = b""
    while data := os.read(told, 1 << 16):
        said += data
    os.close(told)
    torn += bool(list(folder.rglob("*.part"))) or any(not (f / "manifest.json").exists() for f in folder.iterdir())
    found, refused = latest(folder)
    last = int.from_bytes(said[-4:], "little") if said else number
    assert not refused, refused
    now = found.number if found else 0
    assert now >= last, (now, last)          # what was told to be safe is safe
    if now:
        assert_is(folder, now)
    number = now
    reached.add(now)
    for part in folder.rglob("*.part"):
        part.unlink()
print(len(reached), torn)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    reached, torn = (int(word) for word in done.stdout.split())
    assert reached > 20  # it did get on between kills,
    assert torn > 20  # and kills did hit the middle of writing


def kept(folder: Path, number: int, member: str, *, error: str = "", messages: int = 0, items: int = 0) -> Kept:
    size, digest = write_snapshot(folder, number, member, {"x": np.array([number])})
    counts = {name: (messages, items, 8 * items) for name in EDGES} if member == "a" else {}
    delivered = {name: (messages + 1, items) for name in EDGES} if member == "b" else {}
    return Kept(number, member, 100 * number, counts, delivered, size, digest, error)


def test_a_snapshot_is_complete_when_all_have_written(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, ["a", "b"], EDGES, keep=2, begin=None)
    assert shelf.note(kept(tmp_path, 1, "a", messages=4, items=40)) == []
    assert shelf.is_waiting(1)
    assert latest(tmp_path) == (None, [])
    (manifest,) = shelf.note(kept(tmp_path, 1, "b", messages=4, items=40))
    assert not shelf.is_waiting(1)
    assert manifest == latest(tmp_path)[0]
    counts = manifest.ledger["a.events -> b.events"]
    assert (counts.sent_messages, counts.delivered_messages, counts.dropped_messages) == (5, 5, 0)  # with the barrier
    assert (counts.sent_items, counts.delivered_items, counts.dropped_items) == (40, 40, 0)
    for number in (2, 3):
        shelf.note(kept(tmp_path, number, "a"))
        shelf.note(kept(tmp_path, number, "b"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["000002", "000003"]
    again = Shelf(tmp_path, ["a", "b"], EDGES, keep=2, begin=manifest)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == []  # all lie behind barrier 1
    again.note(kept(tmp_path, 2, "a", messages=1, items=7))
    (later,) = again.note(kept(tmp_path, 2, "b", messages=1, items=5))
    counts = later.ledger["a.events -> b.events"]
    assert (counts.sent_items, counts.delivered_items, counts.dropped_items) == (47, 45, 2)


def test_who_has_ended_stands_in_later_snapshots(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, ["a", "b"], {}, keep=5, begin=None)
    shelf.note(kept(tmp_path, FINAL, "a"))
    (manifest,) = shelf.note(kept(tmp_path, 4, "b"))
    assert manifest.members["a"].ended
    assert not manifest.members["b"].ended
    assert read_snapshot(tmp_path, 4, "a")["x"] == [FINAL]
    assert shelf.finish() is None  # b goes on
    shelf.note(kept(tmp_path, FINAL, "b"))
    assert shelf.finish() is not None
    assert read_manifest(tmp_path, FINAL).members.keys() == {"a", "b"}
    assert latest(tmp_path)[0] == manifest  # the end is no barrier


def test_a_part_that_could_not_be_written_costs_its_snapshot_alone(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, ["a", "b"], {}, keep=5, begin=None)
    shelf.note(kept(tmp_path, 1, "a"))
    shelf.note(kept(tmp_path, 1, "b", error="No space left on device"))
    shelf.note(kept(tmp_path, 2, "a"))
    (manifest,) = shelf.note(kept(tmp_path, 2, "b"))
    assert manifest.number == 2
    assert shelf.n_failed == 1
    assert shelf.failure == "snapshot 1 of 'b' not written: No space left on device"
    assert not (tmp_path / "000001").exists()


def test_the_keeper_writes_in_order_and_tells_what_went_wrong(tmp_path: Path) -> None:
    told: list[Kept] = []
    settled: list[int] = []
    keeper = Keeper(tmp_path / "s", told.append)
    for number in range(1, 6):
        keeper.put(Kept(number, "a", 0), {"x": np.array([number])}, lambda number=number: settled.append(number))
    (tmp_path / "s" / "000006").parent.mkdir(exist_ok=True)
    (tmp_path / "s" / "000006").write_text("in the way")
    keeper.put(Kept(6, "a", 0), {"x": np.array([6])}, lambda: None)
    keeper.close(finish=True)
    assert [note.number for note in told] == [1, 2, 3, 4, 5, 6]
    assert settled == [1, 2, 3, 4, 5]
    assert [bool(note.error) for note in told] == [False] * 5 + [True]
    assert json.dumps(told[5].error)
