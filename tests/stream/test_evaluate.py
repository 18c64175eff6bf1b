"""``hebbstream eval``: it trains, asks, goes on where it stopped, and draws what it found."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sources.recordings import make_recordings
from stream.__main__ import app
from stream.errors import ConfigError
from stream.evaluate_accuracy import _convolutions, _fan_out
from stream.evaluate_faults import _damaged
from stream.evaluate_sensor import by_spans
from stream.evaluation import read_results
from stream.train import labelled


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    return make_recordings(folder, width=16, height=16, train_per_class=2, test_per_class=1, seed=3)


def evaluate(recordings: Path, out: Path, methods: str, *more: str) -> dict[str, object]:
    arguments = ["eval", "fault-tolerance", f"{recordings}/train", f"{recordings}/test", "--out", str(out)]
    arguments += ["--methods", methods, "--sensor", "16x16", "--hidden", "20", "--quick", "--json", *more]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found: dict[str, object] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def test_it_asks_every_method_about_every_damage_and_goes_on(recordings: Path, tmp_path: Path) -> None:
    first = evaluate(recordings, tmp_path, "GP,LP")
    rows = first["results"]
    assert isinstance(rows, list)
    # clean and eight damages, fresh and carried
    assert len(rows) == 2 * 2 * 9
    assert {row["method"] for row in rows} == {"GP", "LP"}
    assert all(0.0 <= row["right"] <= 1.0 for row in rows)
    # nothing local to be carried: the same answers
    of_gp = [row for row in rows if row["method"] == "GP"]
    assert [row["right"] for row in of_gp[:9]] == [row["right"] for row in of_gp[9:]]
    assert (tmp_path / "results.png").stat().st_size > 1000
    more = evaluate(recordings, tmp_path, "GP,LP,HP+STP")
    assert isinstance(more["results"], list)
    assert more["results"][: len(rows)] == rows
    assert len(more["results"]) == len(rows) + 18
    again = evaluate(recordings, tmp_path / "again", "LP")
    assert again["results"] == [row for row in rows if row["method"] == "LP"]


def test_lessons_may_be_damaged_and_are_so_alike_every_time(recordings: Path, tmp_path: Path) -> None:
    clean = evaluate(recordings, tmp_path / "clean", "GP")
    damaged = evaluate(recordings, tmp_path / "one", "GP", "--damaged")
    assert damaged["settings"] == {**clean["settings"], "damaged": True}
    assert damaged["results"] == evaluate(recordings, tmp_path / "two", "GP", "--damaged")["results"]
    with pytest.raises(ConfigError, match="give another --out"):
        evaluate(recordings, tmp_path / "clean", "GP", "--damaged")


def test_every_lesson_comes_clean_and_three_times_damaged(recordings: Path) -> None:
    lessons = labelled(recordings / "train", None, 16, 16)[0][:2]
    damaged = _damaged(lessons, 16, 16, seed=1)
    assert len(damaged) == 8
    for k, lesson in enumerate(lessons):
        clean, noisy, hot, lossy = (each.read() for each in damaged[4 * k : 4 * k + 4])
        assert np.array_equal(clean, lesson.read())
        assert len(lossy) < len(clean) < min(len(noisy), len(hot))
        assert {each.label for each in damaged[4 * k : 4 * k + 4]} == {lesson.label}
        assert all(np.array_equal(each.read(), each.read()) for each in damaged[4 * k : 4 * k + 4])


def test_results_of_something_else_are_not_mixed_in(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"settings": {}, "results": [{"seed": 1}]}))
    with pytest.raises(ConfigError, match="give another --out"):
        evaluate(recordings, tmp_path, "GP")
    with pytest.raises(ConfigError, match="wanted some of GP, LP, HP, STP"):
        evaluate(recordings, tmp_path / "x", "GP,XP")


def test_what_was_begun_is_not_gone_on_with_in_another_way(tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    assert read_results(kept, {"epochs": 1}) == []
    assert read_results(kept, {"epochs": 2}) == []  # nothing had been made
    (tmp_path / "GP-1.npz").touch()
    assert read_results(kept, {"epochs": 2}) == []
    with pytest.raises(ConfigError, match="epochs"):
        read_results(kept, {"epochs": 1})


def test_a_network_of_one_camera_goes_on_learning_in_the_stream_of_another(recordings: Path, tmp_path: Path) -> None:
    other = make_recordings(tmp_path / "other", width=16, height=16, train_per_class=2, test_per_class=1, seed=9)
    arguments = [
        "eval",
        "sensor",
        f"{recordings}/train",
        f"{other}/train",
        f"{other}/test",
        "--out",
        str(tmp_path / "o"),
    ]
    arguments += ["--out", str(tmp_path / "o"), "--sensor", "16x16", "--hidden", "20", "--quick", "--json", "--methods"]

    def run(methods: str) -> list[dict[str, object]]:
        done = CliRunner().invoke(app, [*arguments, methods], catch_exceptions=False)
        assert done.exit_code == 0
        found: list[dict[str, object]] = json.loads(done.stdout[done.stdout.index("{") :])["results"]
        return found

    first = run("GP")
    assert [row["stage"] for row in first] == ["before", "held back", "stream", "after"]
    assert run("GP,HP+STP")[:4] == first
    assert (tmp_path / "o" / "results.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="give another --out"):
        CliRunner().invoke(app, [*arguments, "GP", "--every", "2"], catch_exceptions=False)


def test_a_short_rest_of_a_stream_is_no_point_of_its_own() -> None:
    right = [True] * 100 + [False] * 100
    assert by_spans(right) == [(0, 1.0), (100, 0.0)]
    assert by_spans([*right, *[True] * 25]) == [(0, 1.0), (100, 0.2)]
    assert by_spans([*right, *[True] * 51]) == [(0, 1.0), (100, 0.0), (200, 1.0)]
    assert by_spans([True, False]) == [(0, 0.5)]


def test_accuracy_counts_what_a_chip_would_do(recordings: Path, tmp_path: Path) -> None:
    arguments = ["eval", "accuracy", f"{recordings}/train", f"{recordings}/test", "--out", str(tmp_path), "--quick"]
    arguments += ["--sensor", "16x16", "--hidden", "20", "--channels", "2,3", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    dense, conv = json.loads(done.stdout[done.stdout.index("{") :])["results"]
    assert dense["operations"] == pytest.approx(20 * dense["events"] + 10 * dense["spikes"])
    assert conv["events"] == dense["events"]
    assert (tmp_path / "results.png").stat().st_size > 1000
    assert 4 * 2 * conv["events"] < conv["operations"]  # at least 2x2 windows of 2 channels, but for the border
    with pytest.raises(ConfigError, match="wanted some of dense, conv"):
        CliRunner().invoke(app, [*arguments, "--nets", "deep"], catch_exceptions=False)


def test_teach_keeps_what_it_found(recordings: Path, tmp_path: Path) -> None:
    folder = str(recordings / "train")
    more = ["--sensor", "16x16", "--json"]
    learned = ["train", folder, "--out", str(tmp_path / "net"), "--hidden", "20", "--epochs", "1", *more]
    assert CliRunner().invoke(app, learned, catch_exceptions=False).exit_code == 0
    arguments = ["eval", "teach", str(tmp_path / "net" / "best.safetensors"), folder, "--out", str(tmp_path / "o")]
    arguments += ["--classes", "2", "--shows", "1", "--queries", "1", "--quick", *more]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(done.stdout[done.stdout.index("{") :])["right"]
    assert list(found) == ["1"]
    assert all(len(it) == 1 and 0 <= it[0] <= 1 for it in found.values())
    rows = json.loads((tmp_path / "o" / "results.json").read_text())["results"]
    assert [(row["shows"], [row["right"]]) for row in rows] == [(int(shows), it) for shows, it in found.items()]
    assert (tmp_path / "o" / "results.png").stat().st_size > 1000


def test_fan_out_counts_every_synapse_of_a_convolution() -> None:
    graph = _convolutions("2,3", (9, 8, 2), 10, 1)
    counts = _fan_out(graph)
    maps = {it.name: it.shape for it in graph.populations}
    assert maps == {"map1": (5, 4, 2), "map2": (3, 2, 3), "scores": (10,)}
    for it in graph.projections[:2]:
        before = (9, 8, 2) if it.source == "input" else maps[it.source]
        side, pad, (high, wide, c) = it.topology.weight.shape[0], it.topology.padding[0], maps[it.target]
        expected = np.zeros(before, int)
        for y, x in np.ndindex(high, wide):
            top, left = 2 * y - pad, 2 * x - pad
            expected[max(0, top) : top + side, max(0, left) : left + side] += c
        np.testing.assert_array_equal(counts[it.source], expected.reshape(-1))
    assert set(counts["map2"]) == {10}


def test_recordings_may_be_left_out(recordings: Path) -> None:
    def items(*numbers: Any) -> list[bytes]:
        return sorted(it.read().tobytes() for it in labelled(recordings / "train", *numbers)[0])

    everything = items(None, 16, 16)
    assert sorted(items(3, 16, 16) + items(None, 16, 16, 3)) == everything
    assert items(2, 16, 16, 3) == sorted(set(items(5, 16, 16)) - set(items(3, 16, 16)))
