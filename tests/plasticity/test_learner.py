"""The learner: any cut and any stop give the same bits, it learns, and it says what is wrong."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity.learner import OnlineLearner
from stream.errors import ConfigError, StreamError
from stream.packet import ANSWER_DTYPE, EVENT_DTYPE, Deploy, Label, Message, Packet, Reset, packet_of

SIDE = 8
ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "width": SIDE,
    "height": SIDE,
    "n_hidden": 24,
    "n_classes": 2,
    "weight_scale": 0.25,
    "deploy_every": 3,
}


def show_of(rng: np.random.Generator, label: int, start_us: int, n: int = 250) -> np.ndarray:
    """Return a bar that moves right (0) or down (1), with noise."""
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = start_us + np.sort(rng.integers(0, 50_000, n))
    along = ((events["t"] - start_us) * SIDE // 50_000).astype(np.int64)
    across = rng.integers(0, SIDE, n)
    events["x"], events["y"] = (along, across) if label == 0 else (across, along)
    noise = rng.random(n) < 0.2
    events["x"][noise], events["y"][noise] = rng.integers(0, SIDE, noise.sum()), rng.integers(0, SIDE, noise.sum())
    events["p"] = rng.integers(0, 2, n)
    return events


def messages_of(n_shows: int, seed: int = 0, n_taught: int = 10**9, start_us: int = 0) -> list[Message]:
    rng = np.random.default_rng(seed)
    messages: list[Message] = []
    t = start_us
    for k in range(n_shows):
        label, teach = int(rng.integers(0, 2)), k < n_taught
        events = show_of(rng, label, t + 10)
        messages += [Reset(t, teach), packet_of(events), Label(t + 60_000, label, t, teach)]
        t += 70_000
    return messages


def cut(messages: list[Message], points: list[int]) -> list[Message]:
    """Cut packets at positions of the whole stream of events; a position given twice makes an empty packet."""
    out: list[Message] = []
    at = 0
    for message in messages:
        if not isinstance(message, Packet):
            out.append(message)
            continue
        n = len(message.items)
        inside = [point - at for point in sorted(points) if at <= point <= at + n]
        start = message.start_us
        for part in np.split(message.items, inside):
            end = int(part["t"][-1]) + 1 if len(part) else start
            out.append(Packet(part, start, end))
            start = int(part["t"][-1]) if len(part) else start
        at += n
    return out


class Run:
    """Everything that came out of a learner, with positions in the streams instead of packets."""

    def __init__(self, learner: OnlineLearner) -> None:
        self.learner = learner
        self.items: dict[str, list[Any]] = {name: [] for name in learner.outputs}
        self.marks: dict[str, list[Any]] = {name: [] for name in learner.outputs}

    def emit(self, port: str, message: Message) -> None:
        if isinstance(message, Packet):
            if len(message.items):
                assert message.start_us <= message.items["t"][0]
                assert message.items["t"][-1] < message.end_us
            self.items[port] += message.items.tolist()
        elif isinstance(message, Deploy):
            arrays = {name: array.tobytes() for name, array in message.arrays.items()}
            self.marks[port].append((len(self.items[port]), message.t_us, message.version, arrays))
        else:
            self.marks[port].append((len(self.items[port]), message))

    def feed(self, messages: list[Message]) -> "Run":
        for message in messages:
            if isinstance(message, Packet):
                self.learner.on_packet("events", message, self.emit)
            else:
                self.learner.on_mark("events", message, self.emit)
        return self

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Run)
        mine, theirs = self.learner.snapshot(), other.learner.snapshot()
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].tobytes() == theirs[name].tobytes(), name
        return self.items == other.items and self.marks == other.marks

    __hash__ = None


def weight_of(learner: OnlineLearner, layer: int) -> np.ndarray:
    """Return a copy of a layer's weights, without what its local rule adds."""
    return learner._weight_of(layer, learner._program.weight)


VARIANTS: list[dict[str, Any]] = [
    {"mode": "GP"},
    {"mode": "LP"},
    {"mode": "HP"},
    {"mode": "HP", "correction_period_us": 90_000},
    {"mode": "HP", "hebb_reset": False, "window_events": 101},
    {"mode": "HP", "weight_bits": 8, "hold_back": 2, "margin": 0.0, "judge_labels": 1},
    {"mode": "GP", "surrogate": "rectangle", "correction_period_us": 7_000, "window_events": 64},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@settings(max_examples=8, deadline=None)
@given(points=st.lists(st.integers(0, 2000), max_size=12))
def test_cut_anywhere(variant: dict[str, Any], points: list[int]) -> None:
    messages = messages_of(8, n_taught=6, start_us=10**10)
    whole = Run(OnlineLearner(**SMALL | variant)).feed(messages)
    parted = Run(OnlineLearner(**SMALL | variant)).feed(cut(messages, points))
    assert whole == parted
    assert len(whole.items["hidden"]) > 100
    assert len(whole.items["answers"]) == 8


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_one_event_a_packet(variant: dict[str, Any]) -> None:
    messages = messages_of(3)
    whole = Run(OnlineLearner(**SMALL | variant)).feed(messages)
    assert whole == Run(OnlineLearner(**SMALL | variant)).feed(cut(messages, list(range(750))))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_snapshot_anywhere_then_restore_is_never_stopped(variant: dict[str, Any]) -> None:
    messages = cut(messages_of(6, n_taught=5), [100, 300, 301, 900])
    whole = Run(OnlineLearner(**SMALL | variant)).feed(messages)
    for stop in range(len(messages) + 1):
        first = Run(OnlineLearner(**SMALL | variant)).feed(messages[:stop])
        kept = first.learner.snapshot()
        first.feed(messages[stop:])  # a snapshot is a copy: going on does not change it
        other = OnlineLearner(**SMALL | variant | {"seed": 99})
        other.restore(kept)
        rest = Run(other).feed(messages[stop:])
        for port in whole.items:
            if rest.items[port]:
                assert whole.items[port][-len(rest.items[port]) :] == rest.items[port]
        for name, array in whole.learner.snapshot().items():
            assert array.tobytes() == other.snapshot()[name].tobytes(), name
        assert whole.learner.statistics() == other.statistics()


@pytest.mark.parametrize("mode", ["GP", "LP", "HP"])
def test_learns_two_classes(mode: Any) -> None:
    # LP has only random features to read, so all get enough of them
    learner = OnlineLearner(**SMALL | {"mode": mode, "n_hidden": 100, "weight_rate": 5e-3})
    run = Run(learner).feed(messages_of(160, n_taught=120))
    answers = np.array([(row[2], row[3], row[4]) for row in run.items["answers"]])
    held_out = answers[answers[:, 2] == 0]
    assert len(held_out) == 40
    assert (held_out[:, 0] == held_out[:, 1]).mean() > 0.9
    assert run.learner.statistics()["corrections"] == 120


def test_modes_hold_still_what_they_promise() -> None:
    messages = messages_of(10)
    for mode in ("GP", "LP", "HP"):
        learner = OnlineLearner(**SMALL | {"mode": mode})
        before = {"hidden": weight_of(learner, 0), "scores": weight_of(learner, 1)}
        metas = {it.name: it.value.copy() for it in learner.correction.metas}
        Run(learner).feed(messages)
        moved = {it.name for it in learner.correction.metas if (it.value != metas[it.name]).any()}
        assert moved == set(metas)
        assert (weight_of(learner, 1) != before["scores"]).any()
        assert (weight_of(learner, 0) != before["hidden"]).any() == (mode != "LP")
        times = {"scores tau_mem_us"} if mode == "LP" else {"hidden tau_mem_us", "scores tau_mem_us"}
        rule = ("mixing", "local_rate", "sliding_threshold", "tau_hebb_us") if mode == "HP" else ()
        assert moved == times | {f"input>hidden {name}" for name in rule}
        assert learner._memory.fast.any() == (mode != "GP")


def test_the_answer_comes_before_the_lesson() -> None:
    messages = messages_of(5)
    taught = Run(OnlineLearner(**SMALL)).feed(messages)
    other = [Label(m.t_us, 1 - m.label, m.start_us, m.teach) if m is messages[-1] else m for m in messages]
    lied_to = Run(OnlineLearner(**SMALL)).feed(other)
    assert [row[3] for row in taught.items["answers"]] == [row[3] for row in lied_to.items["answers"]]
    assert not np.array_equal(weight_of(taught.learner, 0), weight_of(lied_to.learner, 0))


def test_nothing_is_learned_where_teaching_is_forbidden() -> None:
    messages = messages_of(6, n_taught=0)
    learner = OnlineLearner(**SMALL)
    weight = weight_of(learner, 0)
    Run(learner).feed(messages)
    assert np.array_equal(weight_of(learner, 0), weight)
    # a label that may be taught, after a reset that forbids it, is judged and not learned
    Run(learner).feed([Reset(10**7, False), Label(10**7 + 5, 0, 10**7, True)])
    assert np.array_equal(weight_of(learner, 0), weight)
    assert learner.statistics()["corrections"] == 0


def test_deployments_stand_where_they_should_and_carry_the_weights() -> None:
    run = Run(OnlineLearner(**SMALL)).feed(messages_of(10, n_taught=8))
    deploys = [(t, version) for _, t, version, _ in (m for m in run.marks["forward"] if len(m) == 4)]
    # first reset; 3 and 6 corrections; the reset that begins the test, because 2 more happened
    assert deploys == [(0, 1), (3 * 70_000, 2), (6 * 70_000, 3), (8 * 70_000, 4)]
    last = [m for m in run.marks["forward"] if len(m) == 4][-1][3]
    assert last["layer0.weight"] == weight_of(run.learner, 0).tobytes()
    assert last["layer1.weight"] == weight_of(run.learner, 1).tobytes()
    after = [m[1] for m in run.marks["forward"][:2]]
    assert isinstance(after[0], Reset)
    assert after[1] == 0
    assert not any(len(m) == 4 for port in ("hidden", "answers") for m in run.marks[port])


def test_carried_hebb_is_deployed_as_it_stands() -> None:
    seen: list[Deploy] = []
    learner = OnlineLearner(**SMALL | {"hebb_reset": False, "mode": "LP"})

    def emit(port: str, message: Message) -> None:
        if isinstance(message, Deploy):
            seen.append(message)

    for message in messages_of(1):
        (learner.on_packet if isinstance(message, Packet) else learner.on_mark)("events", message, emit)
    t = 200_000
    learner.on_mark("events", Reset(t, False), emit)
    mixing, tau_hebb_us = 0.12, 100_000.0  # held in LP
    hebb = learner._memory.fast.reshape(-1, SMALL["n_hidden"])
    decay = np.exp(-(t - learner._memory.fast_us) / tau_hebb_us)[:, None]
    assert hebb.any()
    assert seen[-1].arrays["layer0.weight"] == pytest.approx(weight_of(learner, 0) + mixing * hebb * decay, abs=1e-6)


def test_corrections_by_the_clock_sum_up_in_between() -> None:
    run = Run(OnlineLearner(**SMALL | {"correction_period_us": 210_000})).feed(messages_of(10))
    # labels end at 60,000 + 70,000 k us: the first one steps, then the first at or after each multiple
    steps = [t for t in range(60_000, 700_000, 70_000) if t // 210_000 > (t - 70_000) // 210_000]
    assert run.learner.statistics()["corrections"] == len(steps) == 4
    assert run.learner.correction.n_summed == 0


def test_windows_longer_than_the_tape_are_counted_and_still_averaged_whole() -> None:
    short = Run(OnlineLearner(**SMALL | {"window_events": 100})).feed(messages_of(4, n_taught=0))
    long = Run(OnlineLearner(**SMALL)).feed(messages_of(4, n_taught=0))
    assert short.items == long.items
    taught = Run(OnlineLearner(**SMALL | {"window_events": 100})).feed(messages_of(4))
    assert taught.learner.statistics()["windows cut"] >= 8  # input and spikes are taped


def test_origin_is_kept() -> None:
    learner = OnlineLearner(**SMALL)
    origins = []
    packet = messages_of(1)[1]
    assert isinstance(packet, Packet)
    learner.on_packet(
        "events", Packet(packet.items, packet.start_us, packet.end_us, 77), lambda _, m: origins.append(m)
    )
    learner.on_mark("events", Label(packet.end_us, 0, 0), lambda _, m: origins.append(m))
    assert [m.origin_ns for m in origins[:2]] == [77, 77]
    assert [m.origin_ns for m in origins if isinstance(m, Packet) and m.items.dtype == ANSWER_DTYPE] == [77]
    assert origins[0].items is packet.items


def test_bits_do_not_depend_on_writeability_and_events_stay_as_they_were() -> None:
    messages = messages_of(2)
    packet = messages[1]
    assert isinstance(packet, Packet)
    before = packet.items.copy()
    Run(OnlineLearner(**SMALL)).feed(messages)
    assert packet.items.flags.writeable
    assert np.array_equal(packet.items, before)


def test_faults_are_named() -> None:
    for wrong, said in (
        ({"mode": "XP"}, "mode: got 'XP', wanted one of GP, LP, HP"),
        ({"n_hidden": 0}, "n_hidden: got 0, wanted 1 or more"),
        ({"tau_mem_us": -1.0}, "tau_mem_us: got -1.0"),
        ({"surrogate": "none"}, "surrogate: got 'none'"),
    ):
        with pytest.raises(ConfigError, match=said):
            OnlineLearner(**SMALL | wrong)
    learner = OnlineLearner(**SMALL)
    sent: list[Any] = []
    with pytest.raises(StreamError, match=f"x={SIDE}"):
        learner.on_packet("events", packet_of(np.array([(5, SIDE, 0, 0)], EVENT_DTYPE)), lambda *a: sent.append(a))
    assert not sent
    learner.on_mark("events", Reset(1000), lambda *a: None)
    with pytest.raises(StreamError, match="Reset mark at 999 us, wanted 1000 us or later"):
        learner.on_mark("events", Reset(999), lambda *a: None)
    with pytest.raises(StreamError, match="label 2 at 2000 us, wanted 0 to 1"):
        learner.on_mark("events", Label(2000, 2, 0), lambda *a: None)
    kept = learner.snapshot()
    other = OnlineLearner(**SMALL | {"n_hidden": 5})
    before = other.snapshot()
    with pytest.raises(ConfigError, match="wanted float32"):
        other.restore(kept)
    with pytest.raises(ConfigError, match="tape has shapes"):
        other.restore(before | {"tape": np.zeros((3, 3), np.int64)})
    assert all(np.array_equal(before[name], array) for name, array in other.snapshot().items())


# -- corrections beside the stream -------------------------------------------------------------------------------------

HP: dict[str, Any] = SMALL | {"mode": "HP"}
BESIDE: list[dict[str, Any]] = [
    {"beside_us": 0},
    {"beside_us": 100_000, "weight_bits": 4, "hold_back": 3, "margin": 0.0, "judge_labels": 1},
    {"beside_us": 30_000, "correction_period_us": 150_000, "window_events": 101},
]


def beside_of(learner: OnlineLearner) -> Any:
    assert learner._beside is not None
    return learner._beside


def test_where_no_event_lies_between_it_is_as_without_a_thread() -> None:
    """A ``Reset`` follows each label before anything happens, so what is in force at events is the same."""
    messages = messages_of(8, n_taught=6)
    without = Run(OnlineLearner(**HP)).feed(messages)
    beside = Run(OnlineLearner(**HP | {"beside_us": 0})).feed(messages)
    assert beside.items == without.items
    assert beside.marks == without.marks
    for layer in (0, 1):
        assert np.array_equal(weight_of(beside.learner, layer), weight_of(without.learner, layer))
    assert beside.learner.statistics()["corrections"] == without.learner.statistics()["corrections"] == 6
    beside.learner.close()


@pytest.mark.parametrize("variant", BESIDE, ids=str)
def test_a_slow_worker_makes_the_stream_wait_and_changes_no_bit(
    variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = messages_of(7)
    quick = Run(OnlineLearner(**HP | variant)).feed(messages)
    slow = Run(OnlineLearner(**HP | variant))
    walk = beside_of(slow.learner)._walk

    def late(*given: Any) -> None:
        time.sleep(0.03)
        walk(*given)

    monkeypatch.setattr(beside_of(slow.learner), "_walk", late)
    slow.feed(cut(messages, [3, 400, 401, 1000]))
    counts = slow.learner.statistics()
    assert counts["waits"] > 0
    assert counts["waited ms"] > 10
    assert slow == quick
    for run in (slow, quick):
        run.learner.close()


@pytest.mark.parametrize("variant", BESIDE, ids=str)
def test_stopped_anywhere_with_steps_on_their_way(variant: dict[str, Any]) -> None:
    messages = cut(messages_of(6, n_taught=5), [100, 900])
    whole = Run(OnlineLearner(**HP | variant)).feed(messages)
    n_waiting = 0
    for stop in range(1, len(messages), 2):
        first = Run(OnlineLearner(**HP | variant)).feed(messages[:stop])
        kept = first.learner.snapshot()
        n_waiting += len(kept["waiting_us"])
        first.learner.close()
        other = OnlineLearner(**HP | variant | {"seed": 99})
        other.restore(kept)
        Run(other).feed(messages[stop:])
        for name, array in whole.learner.snapshot().items():
            assert array.tobytes() == other.snapshot()[name].tobytes(), (stop, name)
        other.close()
    assert n_waiting > 0
    whole.learner.close()


def test_a_step_comes_into_force_where_it_should() -> None:
    messages = messages_of(5)
    learner = OnlineLearner(**HP | {"beside_us": 100_000})
    run, before, changed = Run(learner), weight_of(learner, 0), []
    for message in messages:
        run.feed([message])
        if not np.array_equal(weight_of(learner, 0), before):
            changed.append((type(message).__name__, message.t_us))
            before = weight_of(learner, 0)
    # labels at 60,000 + 70,000 k us; 100,000 us later, at the first mark from there on
    assert changed == [("Label", 200_000), ("Label", 270_000), ("Label", 340_000)]
    learner.close()


def test_a_fault_of_the_worker_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = OnlineLearner(**HP | {"beside_us": 0})

    def broken(*given: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(beside_of(learner), "_walk", broken)
    with pytest.raises(MemoryError):
        Run(learner).feed(messages_of(3))
    learner.close()


SIGNATURES = """
import sys
import numpy as np
from numba.core.types import unliteral
sys.path.insert(0, sys.argv[1])
import importlib.util
spec = importlib.util.spec_from_file_location("test_learner", sys.argv[2])
learner_test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(learner_test)
from neurons.lif import LIF
from stream.jit import kernels
from stream.packet import Packet
for variant in learner_test.VARIANTS:
    messages = learner_test.cut(learner_test.messages_of(4), [7, 8, 8])
    for k, message in enumerate(messages):
        if isinstance(message, Packet) and k % 2:
            message.items.flags.writeable = False
    learner = learner_test.OnlineLearner(**learner_test.SMALL | variant)
    learner_test.Run(learner).feed(messages)
    kept = learner.snapshot()
    learner.restore(kept)
lif = LIF(np.ones((learner_test.SIDE**2 * 2, 4)), width=learner_test.SIDE, height=learner_test.SIDE)
for message in messages:
    if isinstance(message, Packet):
        lif.run(message.items)
for one in kernels():
    # 0: only called by a kernel that came ready from the cache; a helper may have a copy for a literal
    assert len({tuple(map(unliteral, them)) for them in one.signatures}) <= 1, (one.__name__, one.signatures)
print(sum(len(one.signatures) for one in kernels()))
"""


def test_each_kernel_is_compiled_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNATURES, str(ROOT), __file__], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 7  # those that Python calls
