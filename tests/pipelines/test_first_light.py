"""The whole system on simulated recordings, camera to chip: the same bits however it is cut or spread."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.recordings import make_recordings
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec, play_instead, record_too
from stream.record import Recording, read_recording
from stream.run import RunResult, run
from stream.snapshot import read_snapshot
from stream.summary import draw, summarise

SIZE = 16  # pixels a side


class Outcome(NamedTuple):
    """What must be the same: every item of every port, and every array of the learner and the chip at the end."""

    items: dict[str, bytes]
    state: dict[str, bytes]
    result: RunResult
    recording: Recording


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings") / "digits"
    return make_recordings(folder, width=SIZE, height=SIZE, train_per_class=2, test_per_class=1, seed=3)


def described(
    recordings: Path, out: Path, *, mode: str, packet_items: int, recut: int | None, carried: bool = False
) -> Pipeline:
    """Describe the pipeline of the demo, smaller; with ``recut`` an operator that cuts packets at random stands in."""
    size = {"width": SIZE, "height": SIZE}
    parts = [{"path": f"{recordings}/train"}, {"path": f"{recordings}/test", "teach": False}]
    learner = {**size, "n_hidden": 20, "mode": mode, "weight_scale": 0.2, "deploy_every": 5, "hebb_reset": not carried}
    ports = {"learner": "answers", "chip": "answers", "hidden": "spikes", "chip_spikes": "spikes", "phases": "phases"}
    first = "camera" if recut is None else "recut"
    pipeline = Pipeline(
        name="small",
        snapshots=str(out / "snapshots"),
        source=[
            SourceSpec(
                name="camera",
                kind="sources.folder.LabelledFolder",
                params={**size, "parts": parts, "barrier_every": 30},
                packet_items=packet_items,
            )
        ],
        operator=[
            OperatorSpec(name="learner", kind="plasticity.learner.OnlineLearner", params=learner),
            OperatorSpec(name="chip", kind="chip.node.ChipNode", params=size),
            OperatorSpec(
                name="recorder", kind="stream.record.Recorder", params={"path": str(out / "r.hbs"), "ports": ports}
            ),
        ],
        edge=[
            EdgeSpec(source=f"{first}.events", target="learner.events"),
            EdgeSpec(source="learner.forward", target="chip.events"),
            EdgeSpec(source="learner.answers", target="recorder.learner"),
            EdgeSpec(source="learner.hidden", target="recorder.hidden"),
            EdgeSpec(source="chip.answers", target="recorder.chip"),
            EdgeSpec(source="chip.spikes", target="recorder.chip_spikes"),
            EdgeSpec(source="chip.phases", target="recorder.phases"),
        ],
    )
    if recut is not None:
        params = {**size, "seed": recut}
        pipeline.operator.append(OperatorSpec(name="recut", kind="toy_members.Recut", node="camera", params=params))
        pipeline.edge.append(EdgeSpec(source="camera.events", target="recut.events"))
    return pipeline


def outcome(
    recordings: Path,
    out: Path,
    toys: list[str],
    *,
    mode: str = "HP",
    packet_items: int = 4096,
    recut: int | None = None,
    carried: bool = False,
    processes: bool = False,
    transport: str = "ipc",
) -> Outcome:
    out.mkdir(exist_ok=True)
    pipeline = described(recordings, out, mode=mode, packet_items=packet_items, recut=recut, carried=carried)
    pipeline.transport = transport
    result = run(pipeline, processes=processes, plugins=toys)
    assert all(ledger.is_balanced for ledger in result.ledgers)
    assert all(ledger.items[2] == 0 for ledger in result.ledgers)
    recording = read_recording(out / "r.hbs")
    state = {}
    for name in ("learner", "chip"):
        for key, array in read_snapshot(out / "snapshots", 1, name).items():
            state[f"{name}.{key}"] = np.asarray(array).tobytes()
    return Outcome({port: recording.items(port).tobytes() for port in recording.ports}, state, result, recording)


def assert_same(one: Outcome, other: Outcome) -> None:
    assert [port for port in one.items if one.items[port] != other.items[port]] == []
    assert one.state.keys() == other.state.keys()
    assert [name for name in one.state if one.state[name] != other.state[name]] == []


@pytest.fixture(scope="module")
def whole(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome(recordings, tmp_path_factory.mktemp("whole"), [])


def test_something_happens_at_every_joint(whole: Outcome) -> None:
    """Else the comparisons below would compare nothing with nothing."""
    recording = whole.recording
    assert len(recording.items("learner")) == len(recording.items("chip")) == 30
    assert len(recording.items("hidden")) > 1000
    assert len(recording.items("chip_spikes")) > 1000
    phases = recording.items("phases")
    assert phases["packets"].sum() > 1000
    assert phases["hops"].sum() > phases["packets"].sum()
    assert whole.result.members["learner"]["corrections"] == 20
    assert whole.result.members["chip"]["deploys"] >= 3
    assert {"learner.weight", "learner.fast"} <= whole.state.keys()
    assert np.frombuffer(whole.state["learner.fast"], np.float32).any()


@settings(max_examples=8)
@given(packet_items=st.integers(1, 6000), recut=st.none() | st.integers(0, 2**32))
def test_any_packets_give_the_same_bits(
    recordings: Path,
    whole: Outcome,
    tmp_path_factory: pytest.TempPathFactory,
    packet_items: int,
    recut: int | None,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "toys"))
        out = tmp_path_factory.mktemp("cut")
        again = outcome(recordings, out, ["toy_members"], packet_items=packet_items, recut=recut)
    assert_same(whole, again)


@pytest.mark.parametrize("mode", ["GP", "LP"])
def test_any_packets_in_the_other_modes(recordings: Path, tmp_path: Path, toys: list[str], mode: str) -> None:
    one = outcome(recordings, tmp_path / "one", toys, mode=mode)
    other = outcome(recordings, tmp_path / "other", toys, mode=mode, packet_items=77, recut=5)
    assert_same(one, other)


def test_any_packets_with_carried_hebb(recordings: Path, tmp_path: Path, toys: list[str]) -> None:
    one = outcome(recordings, tmp_path / "one", toys, carried=True)
    other = outcome(recordings, tmp_path / "other", toys, carried=True, packet_items=500, recut=9)
    assert_same(one, other)


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_four_processes_give_the_same_bits(
    recordings: Path, whole: Outcome, tmp_path: Path, toys: list[str], transport: str
) -> None:
    spread = outcome(recordings, tmp_path, toys, processes=True, transport=transport, packet_items=1000)
    assert_same(whole, spread)


def test_five_processes_and_random_cuts_give_the_same_bits(
    recordings: Path, whole: Outcome, tmp_path: Path, toys: list[str]
) -> None:
    assert_same(whole, outcome(recordings, tmp_path, toys, processes=True, recut=11, packet_items=333))


def test_a_recorded_edge_played_again_gives_the_same_bits(
    recordings: Path, whole: Outcome, tmp_path: Path, toys: list[str]
) -> None:
    first = described(recordings, tmp_path, mode="HP", packet_items=700, recut=None)
    record_too(first, "camera.events", str(tmp_path / "camera.hbs"))
    run(first, plugins=toys)
    again = described(recordings, tmp_path, mode="HP", packet_items=300, recut=None)
    play_instead(again, str(tmp_path / "camera.hbs"))
    run(again, processes=False, plugins=toys)
    played = read_recording(tmp_path / "r.hbs")
    assert {port: played.items(port).tobytes() for port in played.ports} == whole.items


def test_the_summary_agrees_with_the_recording(whole: Outcome, tmp_path: Path) -> None:
    summary = summarise(whole.recording)
    assert [(part.name, part.first, part.stop) for part in summary.parts] == [
        ("while learning", 0, 20),
        ("after learning", 20, 30),
    ]
    answers = whole.recording.items("learner")[20:]
    right = sum(int(row["label"]) == int(row["answer"]) for row in answers)
    assert summary.accuracy("learner", summary.parts[1]) == pytest.approx(right / 10)
    both = whole.recording.items("chip")[20:]["answer"] == answers["answer"]
    assert summary.agreement["after learning"] == pytest.approx(both.mean())
    draw(summary, tmp_path / "p.png", title="t")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_each_kernel_keeps_one_signature(recordings: Path, tmp_path: Path) -> None:
    """In a process of its own: a second compiled signature means a hot path that compiles twice."""
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_first_light import outcome
from stream.jit import kernels
outcome(Path({str(recordings)!r}), Path({str(tmp_path)!r}), [])
compiled = [kernel for kernel in kernels() if kernel.signatures]
assert len(compiled) > 10
print({{kernel.__name__: len(kernel.signatures) for kernel in compiled if len(kernel.signatures) > 1}})
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "{}", done.stdout + done.stderr


@pytest.mark.timeout(900)  # compiling takes minutes, more beside other work
def test_kernels_just_compiled_and_from_the_cache_give_the_same_bits(recordings: Path, tmp_path: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from hashlib import sha256
from pathlib import Path
from test_first_light import outcome
found = outcome(Path({str(recordings)!r}), Path({str(tmp_path)!r}), [])
print(sha256(repr((found.items, sorted(found.state.items()))).encode()).hexdigest())
"""
    command = [sys.executable, "-P", "-c", script]
    environment = {**os.environ, "HEBBSTREAM_CACHE": str(tmp_path / "cache")}
    runs = [subprocess.run(command, capture_output=True, text=True, env=environment, timeout=800) for _ in range(2)]
    assert runs[0].stdout, runs[0].stderr
    assert runs[0].stdout == runs[1].stdout


def test_demo_runs_and_reports(tmp_path: Path) -> None:
    """The command that the README opens with, in its small form."""
    command = [sys.executable, "-P", "-m", "stream", "demo", "--small", "--json", "--out", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert all(ledger["balanced"] and ledger["items"][2] == 0 for ledger in report["ledger"])
    assert [part["name"] for part in report["summary"]["parts"]] == [
        "before learning",
        "while learning",
        "after learning",
    ]
    assert Path(report["picture"]).read_bytes().startswith(b"\x89PNG")
