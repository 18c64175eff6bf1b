"""What a run has shown: only what has a label can be right or wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from stream.packet import ANSWER_DTYPE, PHASE_DTYPE, SPIKE_DTYPE
from stream.summary import Part, Summary, draw, summary_table, to_json


def answers(labels: list[int], said: list[int]) -> np.ndarray:
    rows = np.zeros(len(labels), ANSWER_DTYPE)
    rows["t"] = 10_000_000 + 100_000 * np.arange(len(labels))
    rows["start"], rows["label"], rows["answer"] = rows["t"] - 100_000, labels, said
    return rows


def summary(labels: list[int], said: list[int], phases: int = 0) -> Summary:
    spikes = np.zeros(3, SPIKE_DTYPE)
    spikes["t"] = 10_000_000 + 100_000 * (len(labels) - 1) - np.array([30, 20, 10])
    part = Part("before learning", False, 0, len(labels))
    return Summary([part], {"answers": answers(labels, said)}, {}, spikes, np.zeros(phases, PHASE_DTYPE), "")


def printed(it: Summary) -> str:
    console = Console(width=80, record=True)
    console.print(summary_table(it))
    return console.export_text()


def test_answers_without_a_label_are_neither_right_nor_wrong(tmp_path: Path) -> None:
    it = summary([-1, 3, 1, -1], [3, 3, 3, 1])
    assert it.accuracy("answers", it.parts[0]) == 0.5
    assert "50.0%" in printed(it)
    told = json.loads(json.dumps(to_json(it), allow_nan=False))
    assert told["parts"][0]["accuracy"] == {"answers": 0.5}
    assert told["answers"] == {"answers": [0, 1, 0, 3]}
    draw(it, tmp_path / "some.png", title="some")
    assert (tmp_path / "some.png").stat().st_size > 10_000


@pytest.mark.parametrize("phases", [0, 4])
def test_a_run_without_labels_tells_how_often_each_answer_came(tmp_path: Path, phases: int) -> None:
    it = summary([-1] * 5, [2, 2, 0, 2, 1], phases)
    words = printed(it)
    assert "answers, without labels" in words
    assert "%" not in words
    assert [line.split() for line in words.splitlines() if line.strip()[:1].isdigit()] == [
        ["0", "1"],
        ["1", "1"],
        ["2", "3"],
    ]
    assert json.loads(json.dumps(to_json(it), allow_nan=False))["parts"][0]["accuracy"] == {"answers": None}
    draw(it, tmp_path / "none.png", title="none")
    assert (tmp_path / "none.png").stat().st_size > 10_000
