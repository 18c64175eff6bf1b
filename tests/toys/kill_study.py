"""Kill nodes and supervisors of a run at random, until it is through, and compare with an undisturbed one.

Hypothesis draws the schedules. ``python -m tests.toys.kill_study --kills 50`` (in the checkout) is the study;
``tests/stream/test_recovery.py`` runs a short one.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from sources.recordings import make_recordings
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.run_folder import create
from stream.snapshot import FINAL, read_snapshot

SIZE = 16
NODES = ("camera", "learner", "chip", "recorder")
SUPERVISOR = "supervisor"


class Kill(NamedTuple):
    """Who dies, and when."""

    victims: tuple[str, ...]  # nodes, or the supervisor alone
    once_running: bool  # count from the moment all nodes run; else from now, be it while they start
    after_s: float


victims = st.one_of(
    st.sampled_from(NODES).map(lambda name: (name,)),
    st.sampled_from(NODES).map(lambda name: (name,)),
    st.permutations(NODES).map(lambda names: tuple(names[:2])),
    st.just((SUPERVISOR,)),
)
kills_any_time = st.builds(Kill, victims, st.just(False), st.floats(0.0, 1.5))
kills_running = st.builds(Kill, victims, st.just(True), st.floats(0.0, 0.5))


def schedules(n: int) -> "st.SearchStrategy[list[Kill]]":
    """Draw n kills; most wait until all nodes run, or the run would never get anywhere."""
    return st.lists(st.one_of(kills_running, kills_running, kills_running, kills_any_time), min_size=n, max_size=n)


def described(recordings: Path, *, speed: float | str = "max") -> Pipeline:
    """Describe a camera that plays recordings, a learner, a chip and a recorder, each in a process of its own."""
    size = {"width": SIZE, "height": SIZE}
    learner = {**size, "n_hidden": 20, "weight_scale": 0.2, "deploy_every": 5, "hebb_reset": False}
    parts = [{"path": f"{recordings}/train"}, {"path": f"{recordings}/test", "teach": False}]
    ports = {"learner": "answers", "chip": "answers", "hidden": "spikes", "chip_spikes": "spikes", "phases": "phases"}
    pipeline = Pipeline(
        name="killed",
        source=[
            SourceSpec(
                name="camera",
                kind="sources.folder.LabelledFolder",
                params={**size, "parts": parts, "barrier_every": 7},
                packet_items=200,
                speed=speed,
            )
        ],
        operator=[
            OperatorSpec(name="learner", kind="plasticity.learner.OnlineLearner", params=learner),
            OperatorSpec(name="chip", kind="chip.node.ChipNode", params=size),
            OperatorSpec(name="recorder", kind="stream.record.Recorder", params={"path": "r.hbs", "ports": ports}),
        ],
        edge=[
            EdgeSpec(source="camera.events", target="learner.events"),
            EdgeSpec(source="learner.forward", target="chip.events"),
            EdgeSpec(source="learner.answers", target="recorder.learner"),
            EdgeSpec(source="learner.hidden", target="recorder.hidden"),
            EdgeSpec(source="chip.answers", target="recorder.chip"),
            EdgeSpec(source="chip.spikes", target="recorder.chip_spikes"),
            EdgeSpec(source="chip.phases", target="recorder.phases"),
        ],
    )
    pipeline.recovery = msgspec.structs.replace(pipeline.recovery, snapshot_every_us=300_000, restarts=10_000)
    return pipeline


def outcome(run: Path) -> dict[str, bytes]:
    """Return what must be the same to the bit: items and marks of every port, final state of learner and chip."""
    recording = read_recording(run / "recordings" / "r.hbs")
    assert recording.torn == ""
    found = {f"items of {port}": recording.items(port).tobytes() for port in recording.ports}
    found |= {f"marks of {port}": repr(recording.marks(port)).encode() for port in recording.ports}
    for name in ("learner", "chip"):
        for key, array in read_snapshot(run / "snapshots", FINAL, name).items():
            found[f"{name}.{key}"] = np.asarray(array).tobytes()
    return found


def log(run: Path) -> list[dict[str, object]]:
    """Read a run's log, as far as it is written."""
    lines = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def node_pids(supervisor: int) -> dict[str, int]:
    """Find the nodes of a supervisor by name."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == supervisor and b"stream.node" in words:
                found[words[words.index(b"stream.node") + 1].decode()] = int(place.name)
    return found


def resumed(run: Path) -> "subprocess.Popen[str]":
    """Start a supervisor that goes on with a run."""
    command = [sys.executable, "-P", "-m", "stream", "run", "--resume", str(run), "--json", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def disturbed(recordings: Path, run: Path, schedule: list[Kill], *, speed: float = 3.0) -> tuple[int, dict[str, Any]]:
    """Run to the end under kills.

    Returns
    -------
    kills, summary
        How many processes were killed, and the summary of the last supervisor.
    """
    create(run, described(recordings, speed=speed)).close()
    process = resumed(run)
    done = 0
    began = 0  # lines of the log before the last kill
    try:
        for kill in schedule:
            while kill.once_running and process.poll() is None:
                if any(entry["event"] == "running" for entry in log(run)[began:]):
                    break
                time.sleep(0.01)
            time.sleep(kill.after_s)
            if process.poll() is not None:
                break
            began = len(log(run))
            if kill.victims == (SUPERVISOR,):
                process.kill()
                process.communicate()
                process = resumed(run)
                done += 1
                continue
            pids = node_pids(process.pid)
            for victim in kill.victims:
                with contextlib.suppress(ProcessLookupError, KeyError):
                    os.kill(pids[victim], signal.SIGKILL)
                    done += 1
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, f"{err}\n{(run / 'log.jsonl').read_text()}"
    return done, json.loads(out)


def undisturbed(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """Make recordings, run them in peace, and return where they are and what comes out."""
    recordings = make_recordings(
        folder / "digits", width=SIZE, height=SIZE, train_per_class=2, test_per_class=1, seed=3
    )
    disturbed(recordings, folder / "whole", [], speed=100.0)
    return recordings, outcome(folder / "whole")


def main() -> None:
    """Run the study, in rounds of ten kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0)
    wanted = parser.parse_args()
    killed, restarts, resumes, start_s = 0, 0, 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-study-") as name:
        folder = Path(name)
        recordings, whole = undisturbed(folder)

        @seed(wanted.seed)
        @settings(
            max_examples=10 * wanted.kills,
            phases=[Phase.generate],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(schedules(10))
        def study(schedule: list[Kill]) -> None:
            nonlocal killed, restarts, resumes
            if killed >= wanted.kills:
                return
            run = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
            killed += disturbed(recordings, run / "run", schedule, speed=wanted.speed)[0]
            assert outcome(run / "run") == whole, "not the same bits"
            events = [entry["event"] for entry in log(run / "run")]
            restarts, resumes = restarts + events.count("restart"), resumes + events.count("resume")
            print(
                f"{killed} kills, {restarts} restarts, {resumes} starts of a supervisor, {len(whole)} arrays of "
                f"spikes, answers, marks and state with the same bits; {time.monotonic() - start_s:.0f} s",
                flush=True,
            )

        study()


if __name__ == "__main__":
    main()
