"""The search for bad inputs finds what was planted, and the decoders bear a short one."""

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from sources.event_file import read_events
from sources.event_writer import WRITERS
from sources.fuzz import explore, mutate, reached, seeds, supervise
from stream.errors import ConfigError

ROOT = Path(__file__).parents[2]

VICTIM = """
def read(data):
    total = 0
    if data[:1] == b"H":
        total += 1
        if data[1:2] == b"B":
            total += 1
            if data[2:3] == b"S":
                total += 1
                if data[3:4] == b"!":
                    raise ValueError("planted")
    return total
"""


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim.py"
    path.write_text(VICTIM)
    spec = importlib.util.spec_from_file_location("victim", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_four_comparisons_in_a_row_are_found_because_lines_guide(victim, tmp_path):
    # by chance alone: one input in 10^9
    found = None
    for found in explore(victim.read, [b"abcdef"], 60.0, folder=tmp_path, seed=1):
        if found is not None:
            break
    assert found is not None
    assert found.data.startswith(b"HBS!")
    assert found.cause == "ValueError at victim.py:11"


def test_steps_and_how_often_they_are_taken_are_told(victim, tmp_path):
    def steps(data):
        return reached(lambda: victim.read(data), tmp_path)

    assert steps(b"abc") == steps(b"xyz")
    assert steps(b"abc") < steps(b"abc") | steps(b"Hbc")
    assert not reached(lambda: victim.read(b"abc"), tmp_path / "elsewhere")


def test_damage_keeps_to_the_bound_and_is_the_same_each_time():
    def some():
        rng = random.Random(4)
        return [mutate(b"0123456789" * 20, [b"ab", b""], rng, 250) for _ in range(500)]

    assert some() == some()
    assert max(map(len, some())) <= 250
    assert len(set(some())) > 400


@pytest.mark.parametrize("name", [*sorted({"csv": "text"}.get(name, name) for name in WRITERS), "npy", "evt2.1"])
def test_seeds_are_what_they_should_be(tmp_path, name):
    try:
        suffix, files = seeds(name, tmp_path)
    except ConfigError as error:
        pytest.skip(str(error))
    assert max(map(len, files)) < 1 << 16
    n_events = 0
    for data in files:
        (tmp_path / f"again{suffix}").write_bytes(data)
        if not data:  # .bin without an event
            continue
        recording = read_events(tmp_path / f"again{suffix}", format=name if name == "evt2.1" else "auto")
        assert (recording.format, recording.fault) == (name, "")
        n_events += len(recording.events)
    assert n_events >= 100


@pytest.mark.skipif(not hasattr(os, "abort"), reason="no abort here")
@pytest.mark.parametrize(
    ("last", "cause"), [("os.abort()", "killed by SIGABRT"), ("time.sleep(60)", "hangs for 1 s in machine code")]
)
def test_a_process_that_dies_or_hangs_leaves_its_last_input(tmp_path, last, cause):
    code = f"import os, time; open({str(tmp_path / 'input.es')!r}, 'wb').write(b'bad'); {last}"
    found = supervise([sys.executable, "-c", code], tmp_path / "input", silence_s=1.0)
    assert (found.data, found.cause) == (b"bad", cause)


def test_a_process_that_cannot_begin_is_told(tmp_path):
    with pytest.raises(ConfigError, match="code 3"):
        supervise([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "input")


def test_a_short_search_from_the_command_line(tmp_path):
    command = [sys.executable, "-m", "sources.fuzz", "es", "--seconds", "4", "--findings", str(tmp_path / "found")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "es: " in done.stdout
    assert not (tmp_path / "found").exists()
