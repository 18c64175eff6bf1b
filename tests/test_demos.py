"""Each demo runs, ends by itself, and leaves a picture."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

DEMOS = Path(__file__).parents[1] / "demos"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options", "picture"),
    [
        ("replay_file.py", ["--seconds", "0.4"], "replay.png"),
        ("two_cameras.py", ["--seconds", "0.3"], "two-cameras.png"),
        ("chain_by_hand.py", [], "chain.png"),
        ("growth.py", [], "growth.png"),
        ("live_camera.py", ["--seconds", "0.5"], "confirmed.png"),
        ("chip_in_the_loop.py", ["--per-class", "3", "--asked", "2", "--hidden", "20"], "chip.png"),
        (
            "chip_learning.py",
            ["--per-class", "2", "--asked", "1", "--hidden", "20", "--quick", "--epochs", "1", "--methods", "STP"],
            "chip-learning.png",
        ),
        ("survive_damage.py", ["--per-class", "2", "--asked", "1", "--hidden", "20"], "survive.png"),
        ("teach_by_showing.py", ["--objects", "30", "--shows", "2", "--hidden", "50"], "teach.png"),
        ("task_sequence.py", ["--shows", "1", "--asked", "1", "--hidden", "20", "--seeds", "1"], "tasks.png"),
    ],
)
def test_a_demo_leaves_a_picture(script: str, options: list[str], picture: str, tmp_path: Path) -> None:
    if not DEMOS.is_dir():
        pytest.skip("demos are not part of an installed build")
    done = subprocess.run(
        [sys.executable, str(DEMOS / script), *options, "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / picture).stat().st_size > 5000


@pytest.mark.slow
def test_few_shots_on_the_chip(tmp_path: Path) -> None:
    if not DEMOS.is_dir():
        pytest.skip("demos are not part of an installed build")
    rng = np.random.default_rng(1)
    for number in range(20):  # characters of three strokes, drawn 4 times by a hand that trembles
        points = rng.uniform(15, 90, (4, 2))
        home = tmp_path / "pictures" / f"alphabet{number % 2}" / f"character{number:02d}"
        home.mkdir(parents=True)
        for copy in range(4):
            picture = Image.new("L", (105, 105), 255)
            line = [tuple(point) for point in points + rng.normal(0, 2, points.shape)]
            ImageDraw.Draw(picture).line(line, fill=0, width=4)
            picture.save(home / f"{copy}.png")
    options = ["--method", "LP", "--ways", "5", "--no-turned", "--share", "0.05", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(DEMOS / "chip_few_shot.py"), str(tmp_path / "pictures"), *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "chip.json").read_text())["rows"]
    assert row["answers"] == 50
    assert row["float"] > 0.4
    assert row["chip"] > 0.4
    assert row["equal"] > 0.6
    assert row["last_episode"]["bytes_written"] > 0
    assert (tmp_path / "chip-few-shot.png").read_bytes().startswith(b"\x89PNG")
