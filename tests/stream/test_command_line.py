"""Commands as a user types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sources.atis_bin import write_atis_bin
from stream.packet import EVENT_DTYPE
from stream.record import read_recording


def hebbstream(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "stream", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("command", ["", "demo", "run", "check", "info", "doctor", "bench"])
def test_help(command: str) -> None:
    assert "Usage" in hebbstream(*filter(None, [command, "--help"])).stdout


def test_help_imports_nothing_heavy() -> None:
    """The reason why `--help` answers at once."""
    script = "import sys, stream.__main__; print([m for m in ('numpy', 'numba', 'zmq', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_info_of_a_file(tmp_path: Path) -> None:
    events = np.zeros(3, EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = [10, 20, 30], [1, 2, 3], [4, 5, 6], [1, 0, 1]
    write_atis_bin(tmp_path / "f.bin", events)
    found = json.loads(hebbstream("info", str(tmp_path / "f.bin"), "--json").stdout)
    assert set(found) == {
        "format", "width", "height", "events", "on_events", "t_first_us", "t_last_us", "sum_x", "sum_y", "warnings",
    }  # fmt: skip
    assert (found["events"], found["on_events"], found["sum_x"], found["sum_y"]) == (3, 2, 6, 15)
    assert "events" in hebbstream("info", str(tmp_path / "f.bin")).stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"just some text that is no event file\n" * 3, "f.bin")],
)
def test_info_of_what_is_no_event_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "f.bin.xyz"
    path.write_bytes(content)
    done = hebbstream("info", str(path), code=2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("processes", [[], ["--one-process"]])
def test_a_truncated_file_is_an_error_and_what_was_read_is_kept(tmp_path: Path, processes: list[str]) -> None:
    events = np.zeros(1000, EVENT_DTYPE)
    events["t"] = np.arange(1000) * 10
    write_atis_bin(tmp_path / "f.bin", events)
    whole = (tmp_path / "f.bin").read_bytes()
    (tmp_path / "f.bin").write_bytes(whole[:-502])
    (tmp_path / "p.toml").write_text(f"""
name = "torn"
[[source]]
name = "file"
kind = "sources.event_file.EventFile"
params = {{ path = "{tmp_path}/f.bin", width = 34, height = 34 }}
[[operator]]
name = "recorder"
kind = "stream.record.Recorder"
params = {{ path = "{tmp_path}/r.hbs", ports = {{ events = "events" }} }}
[[edge]]
from = "file.events"
to = "recorder.events"
""")
    done = hebbstream("run", str(tmp_path / "p.toml"), "--json", *processes, code=1)
    assert "a source ended early" in done.stderr
    assert "f.bin" in done.stderr
    assert all(ledger["balanced"] for ledger in json.loads(done.stdout)["ledger"])
    assert len(read_recording(tmp_path / "r.hbs").items("events")) == 899  # 4,498 of 5,000 bytes hold 899 events


def test_doctor_finds_no_fault_here() -> None:
    findings = json.loads(hebbstream("doctor", "--json").stdout)
    assert {finding["subject"] for finding in findings} >= {
        "Python",
        "numba",
        "kernel cache",
        "ZeroMQ",
        "import stream",
    }
    assert all(finding["state"] != "fault" for finding in findings)
    assert "ok" in hebbstream("doctor").stdout


def test_check_shows_processes_and_edges() -> None:
    path = Path(__file__).parents[2] / "stream" / "pipelines" / "demo.toml"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stream", "check", str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "HEBBSTREAM_DEMO": "/nowhere"},
    )
    assert done.returncode == 2
    assert "/nowhere" in done.stderr


def test_bench_runs_and_keeps_a_baseline(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    found = json.loads(hebbstream("bench", "--quick", "--json", "--save", str(kept)).stdout)
    names = [measurement["name"] for measurement in found]
    assert len(set(names)) == len(names) >= 8
    assert all(measurement["ratio"] > 0 for measurement in found)
    assert set(json.loads(kept.read_text())["ratios"]) == set(names)
    some = json.loads(hebbstream("bench", "--quick", "--json", "--only", "chip.bench,sources.filter_bench").stdout)
    assert {it["name"].partition(" ")[0] for it in some} == {"chip:", "filter"}
    done = hebbstream("bench", "--quick", "--only", "sources.filter_bench", "--baseline", str(kept))
    assert "baseline" in done.stdout
    for word in ("chip.bench,nothing", "chip.bench,"):
        assert "wanted suites of stream.bench, " in hebbstream("bench", "--only", word, code=2).stderr
    assert "make one with --save" in hebbstream("bench", "--baseline", str(tmp_path / "none"), code=2).stderr


def test_the_kept_baseline_is_of_todays_measurements() -> None:
    path = Path(__file__).parents[1] / "bench_baseline.json"
    ratios = json.loads(path.read_text())["ratios"]
    assert len(ratios) >= 8
    assert all(ratio > 0 for ratio in ratios.values())
