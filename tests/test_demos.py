"""Each demo runs, ends by itself, and leaves a picture."""

import subprocess
import sys
from pathlib import Path

import pytest

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
