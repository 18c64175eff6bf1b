"""Teaching by showing: classes are bound at once, the readout grows, any cut and any stop give the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from plasticity.network_learner import NetworkLearner
from plasticity.teaching import KEPT, PROTOTYPE
from plasticity.train import Recording
from stream.errors import ConfigError, StreamError
from stream.evaluate_teach import ask
from stream.packet import EVENT_DTYPE, Correct, Deploy, Forget, Label, Message, Packet, Reset, Show

SIDE, N_FEATURES = 8, 40


def learner(folder: Path, **more: Any) -> NetworkLearner:
    """Make one with random features and a readout of seven classes, which teaching leaves out."""
    rng = np.random.default_rng(1)
    path = folder / "features.safetensors"
    graph = Graph(
        (SIDE, SIDE, 2),
        [
            Population("features", LIFUnits(tau_mem_us=10_000.0), (N_FEATURES,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=30_000.0), (7,)),
        ],
        [
            Projection(INPUT, "features", Dense(rng.normal(0.1, 0.3, (2 * SIDE * SIDE, N_FEATURES)))),
            Projection("features", "scores", Dense(rng.normal(0.0, 1.0, (N_FEATURES, 7)))),
        ],
    )
    save_graph(path, graph)
    return NetworkLearner(path=str(path), readout="scores", **{"teach": True, "learn": ()} | more)


def thing(label: int, seed: int, start_us: int, n: int = 150) -> np.ndarray:
    """Return events of a bar: label is its column, or 4 + its row."""
    rng = np.random.default_rng([label, seed])
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = start_us + np.sort(rng.integers(0, 40_000, n))
    along, across = rng.integers(0, SIDE, n), 2 * (label % 4) + rng.integers(0, 2, n)
    events["x"], events["y"] = (across, along) if label < 4 else (along, across)
    events["p"] = rng.integers(0, 2, n)
    return events


def shows(
    labels: list[int], seed: int, start_us: int = 0, taught: bool = True, period_us: int = 50_000
) -> list[Message]:
    """Show things one after the other; while one is taught two labels stand in its stream, as ``Teach`` puts them."""
    messages: list[Message] = []
    for k, label in enumerate(labels):
        t = start_us + k * period_us
        events = thing(label, seed + k, t)
        half = len(events) // 2
        middle, end = int(events["t"][half]), t + 45_000
        told = label if taught else -1
        messages += [Reset(t), *([Show(t, label)] if taught else []), Packet(events[:half], t, middle)]
        messages += [
            Label(middle, told, t, taught),
            Packet(events[half:], middle, end),
            Label(end, told, middle, taught),
        ]
        messages += [Show(end, -1)] if taught else []
    return messages


class Heard:
    """What a learner emits."""

    def __init__(self, learner: NetworkLearner) -> None:
        self.learner, self.answers, self.deployed = learner, [], []

    def __call__(self, port: str, message: Message) -> None:
        if isinstance(message, Deploy):
            self.deployed.append(message)
        elif port == "answers" and isinstance(message, Packet):
            self.answers += message.items.tolist()

    def feed(self, messages: list[Message]) -> "Heard":
        for message in messages:
            if isinstance(message, Packet):
                self.learner.on_packet("events", message, self)
            else:
                self.learner.on_mark("events", message, self)
        return self

    def right(self, labels: list[int]) -> float:
        """Return how many of the last things were answered right, by their second half."""
        last = [row[3] for row in self.answers[1::2]][-len(labels) :]
        return float(np.mean(np.array(last) == labels))


QUERIES = [k % 8 for k in range(24)]


def test_one_show_binds_a_class_and_the_readout_grows(tmp_path: Path) -> None:
    heard = Heard(learner(tmp_path, deploy_every=1))
    assert heard.learner.statistics()["classes"] == 1
    for label in range(8):
        heard.feed(shows([label], seed=100, start_us=label * 50_000))
        assert heard.learner.statistics()["classes"] == label + 1
        assert heard.deployed[-1].arrays["layer1.weight"].shape == (N_FEATURES, label + 1)
    heard.feed(shows(QUERIES, seed=500, start_us=10**6, taught=False))
    assert heard.right(QUERIES) > 0.9
    columns = heard.deployed[-1].arrays["layer1.weight"]
    np.testing.assert_allclose(np.linalg.norm(columns, axis=0), 1.0, rtol=1e-5)


def test_recordings_are_taught_and_asked_as_eval_teach_does(tmp_path: Path) -> None:
    def recording(label: int, seed: int) -> Recording:
        return Recording(label, lambda: thing(label, seed, 0))

    lessons = [(k, recording(k, seed)) for k in range(5) for seed in (1, 2)]
    asked = [(k, recording(k, 10 + seed)) for seed in range(4) for k in range(5)]
    answers = ask(learner(tmp_path), lessons, asked)
    assert len(answers) == 20
    assert np.mean([label == answer for (label, _), answer in zip(asked, answers, strict=True)]) > 0.9


def test_the_rule_counts_what_each_feature_fired(tmp_path: Path) -> None:
    one = learner(tmp_path)
    spikes: list[Any] = []

    def emit(port: str, message: Message) -> None:
        if port == "features" and isinstance(message, Packet):
            spikes.extend(message.items["unit"].tolist())

    for message in shows([2], seed=1):
        (one.on_packet if isinstance(message, Packet) else one.on_mark)("events", message, emit)
    prototype = one.taught()[PROTOTYPE]
    assert spikes
    np.testing.assert_allclose(prototype[:, 2], np.bincount(spikes, minlength=N_FEATURES), atol=0.02)
    assert not prototype[:, :2].any(), "what the softmax leaves for others is dropped"


def test_forget_and_correct(tmp_path: Path) -> None:
    heard = Heard(learner(tmp_path)).feed(shows([0, 1, 5], seed=1))
    heard.feed([Forget(150_000, 1)])
    taught = heard.learner.taught()[PROTOTYPE]
    assert not taught[:, 1].any()
    assert taught[:, 0].any()
    # a lesson given to the wrong class goes to the right one
    heard.feed([*shows([3], seed=9, start_us=200_000), Correct(250_000, 1)])
    moved = heard.learner.taught()[PROTOTYPE]
    assert not moved[:, 3].any()
    other = Heard(learner(tmp_path)).feed(shows([3], seed=9, start_us=200_000)).learner.taught()[PROTOTYPE]
    np.testing.assert_allclose(moved[:, 1], other[:, 3], atol=0.02)
    # and so do the features of a question
    asked = shows([7], seed=4, start_us=300_000, taught=False)
    heard.feed([*asked, Correct(350_000, 7)])
    assert heard.learner.taught()[PROTOTYPE][:, 7].sum() > 10
    heard.feed(shows([7], seed=77, start_us=400_000, taught=False))
    assert heard.right([7]) == 1.0


LESSON: list[Message] = [
    *shows([0, 1, 2, 6], seed=3),
    Forget(250_000, 1),
    *shows([3, 2], seed=5, start_us=300_000, taught=False),
    Correct(400_000, 4),
    *shows([1, 9], seed=7, start_us=500_000),
    *shows([0, 1], seed=8, start_us=700_000, taught=False),
]
FADES: dict[str, Any] = {"teach_tau_us": 200_000.0}
JOINED: dict[str, Any] = FADES | {"consolidate": 0.5}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"learn": ("weights",), "deploy_every": 2},
    JOINED,
    JOINED | {"learn": ("weights",), "held": ("scores",), "correction_period_us": 70_000, "deploy_every": 2},
]


def cut(messages: list[Message], seed: int) -> list[Message]:
    """Cut packets into pieces anywhere, some of them empty."""
    rng = np.random.default_rng(seed)
    pieces: list[Message] = []
    for message in messages:
        if not isinstance(message, Packet):
            pieces.append(message)
            continue
        start_us, items = message.start_us, message.items
        for stop_us in [*np.sort(rng.integers(message.start_us, message.end_us, 4)).tolist(), message.end_us]:
            k = int(np.searchsorted(items["t"], stop_us))
            pieces.append(Packet(items[:k], start_us, stop_us))
            start_us, items = stop_us, items[k:]
    return pieces


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_lesson_cut_anywhere_gives_the_same_bits(variant: dict[str, Any], tmp_path: Path) -> None:
    whole = Heard(learner(tmp_path, **variant)).feed(LESSON)
    for seed in range(3):
        other = Heard(learner(tmp_path, **variant)).feed(cut(LESSON, seed))
        assert other.answers == whole.answers
        for name, array in whole.learner.snapshot().items():
            assert array.tobytes() == other.learner.snapshot()[name].tobytes(), (seed, name)


def test_corrections_keep_what_would_fade(tmp_path: Path) -> None:
    """Alone a class is gone after six time constants; corrected at the labels of two shows it is in the weights."""
    found = {}
    for name, options in (("alone", FADES), ("corrected", JOINED)):
        heard = Heard(learner(tmp_path, **options | {"teach_tau_us": 5e6}))
        heard.feed(shows([k % 8 for k in range(16)], seed=100))
        heard.feed(shows(QUERIES, seed=500, start_us=800_000, taught=False))
        soon = heard.right(QUERIES)
        heard.feed(shows(QUERIES, seed=600, start_us=32_000_000, taught=False))
        found[name] = soon, heard.right(QUERIES)
        assert not heard.learner.hebb("features", "scores").any(), "the trace is gone"
        known = heard.learner.weights("features", "scores").any(axis=0)
        assert known.all() if name == "corrected" else not known.any()
    assert found["alone"][0] > 0.9
    assert found["alone"][1] < 0.3, "chance is 1 of 8"
    assert min(found["corrected"]) > 0.9


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_to_consolidate_changes_no_answer_when_it_happens(share: float, tmp_path: Path) -> None:
    lesson = [*shows(list(range(8)), seed=100), *shows(QUERIES, seed=500, start_us=10**6, taught=False)]
    plain = Heard(learner(tmp_path)).feed(lesson)
    joined = Heard(learner(tmp_path, consolidate=share)).feed(lesson)
    assert [row[3] for row in joined.answers] == [row[3] for row in plain.answers]
    of_weights, of_trace = joined.learner.weights("features", "scores"), joined.learner.hebb("features", "scores")
    np.testing.assert_allclose(of_weights + of_trace, plain.learner.hebb("features", "scores"), atol=1e-5)
    assert (np.linalg.norm(of_weights, axis=0) >= 0.99 * share).all()
    # what was moved is forgotten and corrected like what was not
    before = joined.learner.statistics()["consolidated"]
    assert share - 1e-6 <= before <= 1.0
    joined.feed([Forget(10**7, 3), *shows([6], seed=9, start_us=10**7), Correct(11 * 10**6, 8)])
    assert not joined.learner.weights("features", "scores")[:, 3].any()
    joined.feed(shows([8, 3], seed=10, start_us=12 * 10**6))
    assert joined.learner.taught()[KEPT].shape == (N_FEATURES, 9)


def test_what_was_consolidated_is_saved_and_loaded(tmp_path: Path) -> None:
    first = Heard(learner(tmp_path, **JOINED)).feed(shows([k % 8 for k in range(16)], seed=100))
    second = Heard(learner(tmp_path, **JOINED)).feed(shows([9], seed=1))  # is to be forgotten
    second.feed([Deploy(800_000, 0, first.learner.taught())])
    for one in (first, second):
        one.answers.clear()
        one.feed(shows(QUERIES, seed=500, start_us=6_000_000, taught=False))
    assert [row[3] for row in first.answers] == [row[3] for row in second.answers]
    assert second.right(QUERIES) > 0.9
    assert not second.learner.weights("features", "scores")[:, 8:].any()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_lesson_stopped_anywhere_goes_on_to_the_same_bits(variant: dict[str, Any], tmp_path: Path) -> None:
    whole = Heard(learner(tmp_path, **variant)).feed(LESSON)
    assert whole.learner.statistics()["classes"] == 10
    for stop in range(0, len(LESSON), 3):
        first = Heard(learner(tmp_path, **variant)).feed(LESSON[:stop])
        kept = first.learner.snapshot()
        other = learner(tmp_path, **variant)
        other.restore(kept)
        rest = Heard(other).feed(LESSON[stop:])
        for name, array in whole.learner.snapshot().items():
            assert array.tobytes() == other.snapshot()[name].tobytes(), (stop, name)
        assert first.answers + rest.answers == whole.answers


def test_what_was_taught_is_loaded_elsewhere_by_a_mark(tmp_path: Path) -> None:
    first = Heard(learner(tmp_path)).feed(shows(list(range(8)), seed=100))
    second = Heard(learner(tmp_path, deploy_every=1))
    second.feed([Reset(0), Deploy(0, 0, first.learner.taught())])
    assert PROTOTYPE not in second.deployed[-1].arrays, "prototypes end here; weights go on"
    for one in (first, second):
        one.answers.clear()
        one.feed(shows(QUERIES, seed=500, start_us=10**6, taught=False))
    assert [row[3] for row in first.answers] == [row[3] for row in second.answers]
    assert second.right(QUERIES) > 0.9


def test_faults_are_named(tmp_path: Path) -> None:
    one = learner(tmp_path, most_classes=3)
    heard = Heard(one).feed([Reset(0), Show(0, 2)])
    before = one.snapshot()
    with pytest.raises(StreamError, match="class 3 at 0 us, wanted 0 to 2; forget a class, or raise most_classes"):
        heard.feed([Show(0, 3)])
    with pytest.raises(StreamError, match="wanted finite ones of 40 features"):
        heard.feed([Deploy(0, 0, {PROTOTYPE: np.ones((4, 2), np.float32)})])
    with pytest.raises(ConfigError, match="9 classes, wanted 3"):
        one.restore(Heard(learner(tmp_path)).feed([Show(0, 8)]).learner.snapshot())
    assert all(np.array_equal(array, before[name]) for name, array in one.snapshot().items())
    with pytest.raises(ConfigError, match="above 0"):
        learner(tmp_path, teach_rate=0.0)
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        learner(tmp_path, consolidate=1.5)
    with pytest.raises(ConfigError, match="does not go back to its best"):
        learner(tmp_path, consolidate=0.5, margin=0.1)
    with pytest.raises(ConfigError, match="steps on their way"):
        learner(tmp_path, beside_us=0)
    with pytest.raises(StreamError, match="its readout is not taught"):
        Heard(learner(tmp_path, teach=False)).feed([Deploy(0, 0, {PROTOTYPE: np.ones((N_FEATURES, 2), np.float32)})])
