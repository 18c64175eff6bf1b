"""Recordings made on the spot."""

import json

import numpy as np
import pytest

from sources.event_file import read_events
from sources.recordings import make_recordings
from stream.errors import ConfigError


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_they_look_like_n_mnist_and_are_the_same_each_time(tmp_path):
    seen = []
    one = make_recordings(
        tmp_path / "one",
        train_per_class=2,
        test_per_class=1,
        seed=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(index + 1, 30) for index in range(30)]
    other = make_recordings(tmp_path / "other", train_per_class=2, test_per_class=1, seed=1)
    files = tree(one)
    assert files == tree(other)
    assert len(files) == 31
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]  # nothing left beside
    recordings = [read_events(path, width=34, height=34) for path in one.rglob("*.bin")]
    assert not any(recording.fault or recording.outside or recording.backward for recording in recordings)
    counts = [len(recording.events) for recording in recordings]
    assert 2500 < np.mean(counts) < 5000
    assert 0.45 < np.mean([recording.events["p"].mean() for recording in recordings]) < 0.55
    assert all(recording.events["t"][-1] < 300_000 for recording in recordings)


def test_what_is_made_is_kept_and_nothing_else_is_touched(tmp_path):
    make_recordings(tmp_path / "a", train_per_class=1, test_per_class=0, seed=1)
    before = (tmp_path / "a" / "recordings.json").stat().st_mtime_ns
    make_recordings(
        tmp_path / "a", train_per_class=1, test_per_class=0, seed=1, progress=lambda *_: pytest.fail("made")
    )
    assert (tmp_path / "a" / "recordings.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="name another folder"):
        make_recordings(tmp_path / "a", train_per_class=1, test_per_class=0, seed=2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "diary.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        make_recordings(tmp_path / "b", train_per_class=1, test_per_class=0, seed=1)
    assert json.loads((tmp_path / "a" / "recordings.json").read_text())["seed"] == 1


def test_an_interrupted_making_leaves_nothing(tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_recordings(tmp_path / "a", train_per_class=1, test_per_class=0, seed=1, progress=stop)
    assert list(tmp_path.iterdir()) == []
