"""Kill nodes and supervisors of a run at random, until it is through, and compare with an undisturbed one.

``python tests/toys/kill_study.py --kills 500 --seed 1`` is the long study; the tests call :func:`disturbed` with few.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from sources.recordings import make_recordings
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.run_folder import create
from stream.snapshot import FINAL, read_snapshot

SIZE = 16
NODES = ("camera", "learner", "chip", "recorder")


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
    command = [sys.executable, "-P", "-m", "stream", "run", "--resume", str(run), "--json", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def disturbed(
    recordings: Path, run: Path, *, kills: int, seed: int, speed: float = 3.0
) -> tuple[int, dict[str, object]]:
    """Run to the end under kills.

    Most kills wait until all nodes run and then some hundredths of a second; the others come at any time, also while
    nodes start. Now and then it hits two nodes at once, or the supervisor, which is then resumed.

    Returns
    -------
    kills, summary
        How many processes were killed, and the summary of the last supervisor.
    """
    chance = random.Random(seed)
    create(run, described(recordings, speed=speed)).close()
    process = resumed(run)
    done = 0
    began = 0  # lines of the log before the last kill
    deadline_s = time.monotonic() + 60 + 30 * kills
    while process.poll() is None:
        assert time.monotonic() < deadline_s, f"seed {seed}: does not come to its end; see {run}/log.jsonl"
        if done >= kills:
            time.sleep(0.05)
            continue
        waits = chance.random() < 0.8
        victims = chance.sample(NODES, 2 if chance.random() < 0.1 else 1)
        hits_supervisor = chance.random() < 0.08
        while waits and process.poll() is None:
            if any(entry["event"] == "running" for entry in log(run)[began:]):
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.4 if waits else 1.5))
        pids = node_pids(process.pid)
        if hits_supervisor and process.poll() is None:
            began = len(log(run))
            process.kill()
            process.communicate()
            done += 1
            process = resumed(run)
            continue
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                if victim in pids:
                    began = len(log(run))
                    os.kill(pids[victim], signal.SIGKILL)
                    done += 1
    out, err = process.communicate()
    assert process.returncode == 0, f"seed {seed}: {err}"
    return done, json.loads(out)


def main() -> None:
    """Run the study, in rounds of at most 25 kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-study-") as name:
        folder = Path(name)
        recordings = make_recordings(
            folder / "digits", width=SIZE, height=SIZE, train_per_class=2, test_per_class=1, seed=3
        )
        _, _ = disturbed(recordings, folder / "whole", kills=0, seed=0, speed=100.0)
        whole = outcome(folder / "whole")
        done, seed, start_s = 0, wanted.seed, time.monotonic()
        while done < wanted.kills:
            run = folder / f"run-{seed}"
            kills, _ = disturbed(recordings, run, kills=25, seed=seed, speed=wanted.speed)
            assert outcome(run) == whole, f"seed {seed}: not the same bits"
            done += kills
            events = [entry["event"] for entry in log(run)]
            print(
                f"seed {seed}: {kills} kills, {events.count('restart')} restarts, {events.count('resume')} resumes, "
                f"{events.count('snapshot')} snapshots, same bits ({done} kills, {time.monotonic() - start_s:.0f} s)",
                flush=True,
            )
            seed += 1


if __name__ == "__main__":
    main()
