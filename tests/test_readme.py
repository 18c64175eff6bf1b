"""The README's commands and code, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sources.recordings import make_recordings
from stream.jit import cache_root

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_pipeline_and_the_python_of_the_readme_run(tmp_path: Path) -> None:
    make_recordings(tmp_path / "recordings", train_per_class=2, test_per_class=1, seed=1)
    (described,), (running, network, training) = blocks("toml"), blocks("python")
    (tmp_path / "digits.toml").write_text(described)
    (tmp_path / "readme.py").write_text(running)
    environment = {**os.environ, "HOME": str(tmp_path), "HEBBSTREAM_CACHE": str(cache_root())}
    done = subprocess.run(
        [sys.executable, "-P", "readme.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    accuracy, balanced = done.stdout.split()
    assert 0 <= float(accuracy) <= 1
    assert balanced == "True"
    assert (tmp_path / "runs" / "digits.hbs").stat().st_size > 1000

    names: dict[str, Any] = {}
    exec(network, names)
    assert 100 < len(names["spikes"]) < 20_000
    assert np.ptp(names["weight"]) > 0.5, "weights were learned"
    exec(training, names)
    assert names["loss"] > 0
    assert names["answer"].shape == (3,)
    assert names["correction"].n_steps == 1


def test_every_command_of_the_readme_exists() -> None:
    commands = set(re.findall(r"^hebbstream (\w+)", README.read_text(), re.MULTILINE))
    assert commands >= {"info", "run", "check", "doctor", "bench"}
    for command in sorted(commands):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "stream", command, "--help"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (README.parent / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make (\w+)", README.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
