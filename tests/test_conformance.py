"""One suite for every operator: whatever it computes, it keeps the contract of ``stream.operator``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chip.compiler import compile_network
from chip.node import ChipNode
from chip.profile import load_profile
from chip.program_file import save_program
from chip.quantise import quantise_graph
from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import QuantisedDense, quantised
from neurons.sparse import sparse_of
from neurons.threshold import ThresholdUnits
from plasticity.bcm import BCM
from plasticity.decolle import Decolle
from plasticity.error_modulated import ErrorModulated
from plasticity.hebbian import Hebbian
from plasticity.homeostasis import Homeostasis
from plasticity.learner import OnlineLearner
from plasticity.network_learner import NetworkLearner
from plasticity.oja import Oja
from plasticity.pair_stdp import PairSTDP
from plasticity.plastic_network import PlasticNetwork, Rule
from plasticity.reward_stdp import RewardSTDP
from plasticity.short_term import ShortTerm
from plasticity.surround import Surround
from plasticity.synaptic_scaling import SynapticScaling
from plasticity.triplet_stdp import TripletSTDP
from sources.added_noise import AddedNoise
from sources.filter_background import BackgroundActivity
from sources.filter_contrast import SpatioTemporalContrast, Trail
from sources.filter_crop import Crop
from sources.filter_damage import Damage
from sources.filter_downsample import Downsample
from sources.filter_hot_pixel import HotPixel
from sources.filter_jitter import TimeJitter
from sources.filter_mask import Mask, write_mask
from sources.filter_orientation import Orientation
from sources.filter_polarity import Polarity
from sources.filter_rate_limit import RateLimit
from sources.filter_refractory import Refractory
from sources.filter_time_window import TimeWindow
from sources.filter_undistort import Undistort
from stream.errors import ConfigError
from stream.merge import Merge
from stream.operator import Emit, Operator
from stream.packet import EVENT_DTYPE, Correct, Deploy, Forget, Label, Mark, Message, Packet, Reset, Show
from stream.record import Recorder

SIDE = 6
UNITS = 2 * SIDE * SIDE


def deploy(t_us: int, seed: int) -> Deploy:
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {
        "layer0.weight": rng.normal(0, 0.4, (UNITS, 8)).astype(np.float32),
        "layer0.tau_mem_us": np.array(5000.0),
        "layer0.v_threshold": np.array(1.0),
        "layer1.weight": rng.normal(0, 0.4, (8, 3)).astype(np.float32),
        "layer1.tau_mem_us": np.array(9000.0),
    }
    return Deploy(t_us, seed, arrays)


def learner(mode: Any, **more: Any) -> OnlineLearner:
    size = {"width": SIDE, "height": SIDE, "n_hidden": 8, "n_classes": 3, "weight_scale": 0.4, "window_events": 300}
    return OnlineLearner(**size, mode=mode, **more)


def mask(folder: Path) -> Mask:
    write_mask(folder / "mask.txt", np.eye(SIDE, dtype=np.bool_))
    return Mask(width=SIDE, height=SIDE, path=str(folder / "mask.txt"))


def undistort(folder: Path) -> Undistort:
    (folder / "lens.json").write_text('{"K": [3, 0, 2.5, 0, 3, 2.5, 0, 0, 1], "D": [-0.2, 0.02, 0.01, -0.01]}')
    return Undistort(width=SIDE, height=SIDE, calibration=str(folder / "lens.json"))


MODELS: dict[str, Any] = {
    "lif": LIFUnits(5000.0),
    "lif hard, held": LIFUnits(5000.0, v_reset=-0.2, reset="hard", refractory_us=700),
    "lif driven": LIFUnits(5000.0, v_leak=1.3, reset="hard", refractory_us=130),
    "current": CurrentLIFUnits(5000.0, 900.0, v_threshold=0.3),
    "current slow, held": CurrentLIFUnits(5000.0, 8000.0, refractory_us=310),
    "current equal, hard": CurrentLIFUnits(3000.0, 3000.0, v_threshold=0.6, reset="hard"),
    "adaptive": AdaptiveLIFUnits(5000.0, 15_000.0),
    "adaptive quick": AdaptiveLIFUnits(5000.0, 1000.0, adaptation=0.8, refractory_us=50),
    "integrate": IntegrateFireUnits(),
    "integrate driven": IntegrateFireUnits(drive_per_us=0.0002, v_reset=-0.3, reset="hard"),
    "izhikevich": IzhikevichUnits(d=2.0, step_us=500),
    "threshold": ThresholdUnits(0.3),
}


def network(model: Any, **more: Any) -> Network:
    """Make a network of every topology: maps, a recurrent layer that sends back, a readout that answers."""
    rng = np.random.default_rng(1)
    gain = {IzhikevichUnits: 30.0, CurrentLIFUnits: 2.5}.get(type(model), 1.0)

    def normal(*shape: int) -> NDArray[np.float64]:
        return rng.normal(0.2 * gain, 0.4 * gain, shape)

    graph = Graph(
        (SIDE, SIDE, 2),
        [
            Population("map", model, (3, 3, 4)),
            Population("pool", model, (2, 2, 4)),
            Population("hidden", model, (8,)),
            Population("scores", LeakyIntegratorUnits(9000.0), (3,)),
        ],
        [
            Projection(INPUT, "map", Convolution(normal(2, 2, 1, 4), (2, 2), groups=2)),
            Projection("map", "pool", Pooling((2, 2), (1, 1), weight=0.5 * gain)),
            Projection("pool", "hidden", Dense(normal(16, 8)), 137),
            Projection(INPUT, "hidden", sparse_of(normal(UNITS, 8) * (rng.random((UNITS, 8)) < 0.1))),
            Projection("hidden", "hidden", Inhibition(0.3 * gain), 1000),
            Projection("pool", "pool", OneToOne(-0.2 * gain), 20),
            Projection("hidden", "scores", Dense(normal(8, 3))),
        ],
    )
    return Network.of(graph, readout="scores", **more)


def layered_network(first: Dense | QuantisedDense, fade: Fade | None = None) -> Network:
    """Make a network whose input goes through the fast loop, unless it fades."""
    rng = np.random.default_rng(2)
    populations = [
        Population("hidden", LIFUnits(5000.0), (20,)),
        Population("more", LIFUnits(5000.0, refractory_us=900), (8,)),
        Population("scores", LeakyIntegratorUnits(9000.0), (3,)),
    ]
    projections = [
        Projection(INPUT, "hidden", first, fade=fade),
        Projection("hidden", "more", Dense(rng.normal(0.2, 0.5, (20, 8))), fade=fade),
        Projection("more", "hidden", Dense(rng.normal(-0.2, 0.1, (8, 20))), 50),
        Projection("more", "scores", Dense(rng.normal(0, 1, (8, 3)))),
    ]
    return Network.of(Graph((SIDE, SIDE, 2), populations, projections), readout="scores")


FIRST = Dense(np.random.default_rng(3).normal(0.1, 0.4, (UNITS, 20)))

RULES: dict[str, Rule] = {
    "hebbian": Hebbian(local_rate=0.05),
    "pair": PairSTDP(a_plus=0.01, a_minus=0.01, w_min=-3.0, w_max=3.0),
    "triplet": TripletSTDP(w_min=-3.0, w_max=3.0),
    "oja": Oja(),
    "bcm": BCM(w_min=-3.0, w_max=3.0),
    "reward": RewardSTDP(w_min=-3.0, w_max=3.0),
    "error": ErrorModulated(),
}


def learning_graph() -> Graph:
    model = LIFUnits(tau_mem_us=300.0)
    rng = np.random.default_rng(1)
    return Graph(
        (SIDE, SIDE, 2),
        [
            Population("map", model, (2, 2, 3)),
            Population("pool", model, (1, 1, 3)),
            Population("hidden", model, (8,)),
            Population("scores", LeakyIntegratorUnits(), (3,)),
        ],
        [
            Projection(INPUT, "map", Convolution(rng.normal(0.2, 0.4, (3, 3, 2, 3)), (2, 2))),
            Projection("map", "pool", Pooling((2, 2), (2, 2))),
            Projection("map", "hidden", Dense(rng.normal(0.2, 0.4, (12, 8))), 137),
            Projection("pool", "hidden", sparse_of(rng.normal(0, 0.4, (3, 8)) * (rng.random((3, 8)) < 0.6)), 50),
            Projection("hidden", "hidden", Inhibition(0.3), 1000),
            Projection("hidden", "scores", Dense(rng.normal(0, 1, (8, 3)))),
        ],
    )


def plastic(rule: Rule) -> PlasticNetwork:
    """Make a network in which every topology learns."""
    ways = [(INPUT, "map"), ("map", "hidden"), ("pool", "hidden"), ("hidden", "scores")]
    return PlasticNetwork.of(
        learning_graph(),
        rules=dict.fromkeys(ways, rule),
        terminals={(INPUT, "map"): ShortTerm()},
        surrounds={(INPUT, "map"): Surround(rate_hz=5000.0)},
        readout="scores",
    )


def coming_round() -> PlasticNetwork:
    """Make a network with all that happens at multiples of a period."""
    network = PlasticNetwork.of(
        learning_graph(),
        rules={(INPUT, "map"): RULES["pair"], ("map", "hidden"): Decolle(3, period_us=700)},
        scaling={(INPUT, "map"): SynapticScaling(period_us=900), ("pool", "hidden"): SynapticScaling(period_us=1100)},
        thresholds={"hidden": Homeostasis(period_us=1300)},
        readout="scores",
    )
    network.target("hidden", 1)
    return network


def network_learner(folder: Path, *, plastic: bool | str = False, **more: Any) -> NetworkLearner:
    """Make one that learns everywhere, by local rules and tired terminals too, if it is ``plastic``."""
    path = folder / "net.safetensors"
    save_graph(path, learning_graph())
    ways = [("input", "map"), ("map", "hidden"), ("hidden", "scores")]
    rules: list[dict[str, Any]] = []
    if plastic:
        ways = ways[:2] if plastic == "but the readout" else ways
        rules = [{"source": a, "target": b, "rule": "Hebbian"} for a, b in ways]
        rules.append({"source": "input", "target": "map", "rule": "ShortTerm"})
        rules.append({"source": "input", "target": "map", "rule": "Surround", "rate_hz": 5000.0})
    return NetworkLearner(path=str(path), readout="scores", rules=rules, weight_rate=0.05, **more)


class Undeployed(ChipNode):
    """A chip that runs the program of its file: there are marks of weights in the stream that suit another network.

    Parameters
    ----------
    program
        As for ``ChipNode``.
    """

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Leave weights out."""
        if not isinstance(mark, Deploy):
            super().on_mark(port, mark, emit)


def programmed(folder: Path, kind: str) -> ChipNode:
    """Make a chip that runs a network in integers, from a file."""
    path, rng = folder / f"{kind}.prog", np.random.default_rng(1)
    if kind == "chain":  # what the stream deploys
        graph = Graph(
            (SIDE, SIDE, 2),
            [
                Population("hidden", LIFUnits(5000.0), (8,)),
                Population("scores", LeakyIntegratorUnits(9000.0), (3,)),
            ],
            [
                Projection(INPUT, "hidden", Dense(rng.normal(0, 0.4, (UNITS, 8)))),
                Projection("hidden", "scores", Dense(rng.normal(0, 0.4, (8, 3)))),
            ],
        )
    elif kind == "folded":
        graph = Graph(
            (SIDE, SIDE, 2),
            [
                Population("map", ThresholdUnits(0.5), (5, 5, 4)),
                Population("scores", LeakyIntegratorUnits(9000.0), (3,)),
            ],
            [
                Projection(INPUT, "map", Convolution(rng.normal(0.4, 0.4, (2, 2, 2, 4)))),
                Projection("map", "scores", Dense(rng.normal(0, 0.4, (100, 3)))),
            ],
        )
    else:
        populations, projections = network(LIFUnits(5000.0)).graph[1:]
        graph = Graph((SIDE, SIDE, 2), populations, projections)
    profile = load_profile("tianjic-2019")
    save_program(path, compile_network(quantise_graph(graph, profile), profile, folded=kind == "folded"))
    return (ChipNode if kind == "chain" else Undeployed)(program=str(path))


MAKERS: dict[str, Callable[[Path], Operator]] = {
    "network learner": lambda folder: network_learner(folder),
    "network learner, short windows": lambda folder: network_learner(folder, window_events=37),
    "network learner, all": lambda folder: network_learner(folder, plastic=True, learn=("weights", "rules", "times")),
    "network learner, by the clock": lambda folder: network_learner(
        folder, plastic=True, correction_period_us=200_000, optimiser="sgd"
    ),
    "network learner, taught": lambda folder: network_learner(folder, teach=True, learn=()),
    "network learner, taught and corrected": lambda folder: network_learner(
        folder, teach=True, plastic="but the readout", learn=("weights", "rules", "times"), reset_local=False
    ),
    "network learner, by events": lambda folder: network_learner(
        folder, plastic=True, correction_events=700, loss="mse", rate_strength=0.3
    ),
    "network learner, beside": lambda folder: network_learner(
        folder, plastic=True, beside_us=60_000, correction_period_us=200_000, learn=("weights", "rules", "times")
    ),
    "learner HP beside": lambda folder: learner("HP", beside_us=0, deploy_every=2),
    "learner GP": lambda folder: learner("GP"),
    "learner LP": lambda folder: learner("LP"),
    "learner HP": lambda folder: learner("HP", deploy_every=2),
    "learner HP carried": lambda folder: learner("HP", hebb_reset=False),
    "learner HP by the clock": lambda folder: learner("HP", correction_period_us=7000),
    "chip": lambda folder: ChipNode(width=SIDE, height=SIDE),
    "chip slow phases": lambda folder: ChipNode(width=SIDE, height=SIDE, phase_us=3333),
    "chip, a program and its weights": lambda folder: programmed(folder, "chain"),
    "chip, a program of every topology": lambda folder: programmed(folder, "every"),
    "chip, a semi-folded program": lambda folder: programmed(folder, "folded"),
    "refractory": lambda folder: Refractory(width=SIDE, height=SIDE),
    "background": lambda folder: BackgroundActivity(width=SIDE, height=SIDE, dt_us=200),
    "hot pixel": lambda folder: HotPixel(width=SIDE, height=SIDE, window_us=10_000),
    "rate limit": lambda folder: RateLimit(width=SIDE, height=SIDE, max_hz=2000, burst=5),
    "damage loss": lambda folder: Damage(width=SIDE, height=SIDE, kind="loss", level=0.4),
    "damage bar": lambda folder: Damage(width=SIDE, height=SIDE, kind="bar", level=2, period_us=7000),
    "damage dead area": lambda folder: Damage(width=SIDE, height=SIDE, kind="dead area", level=2),
    "damage mismatch": lambda folder: Damage(width=SIDE, height=SIDE, kind="mismatch", clear_on_reset=True),
    "damage contrast": lambda folder: Damage(width=SIDE, height=SIDE, kind="contrast", period_us=9000),
    "jitter": lambda folder: TimeJitter(width=SIDE, height=SIDE, longest_us=3000),
    "added noise": lambda folder: AddedNoise(width=SIDE, height=SIDE, rate_hz=20_000, n_hot=2, hot_rate_hz=9000),
    "crop": lambda folder: Crop(width=SIDE, height=SIDE, left=1, top=2, crop_width=3, crop_height=4),
    "polarity": lambda folder: Polarity(width=SIDE, height=SIDE, keep="on", invert=True),
    "mask": mask,
    "orientation": lambda folder: Orientation(width=SIDE, height=SIDE, flip_x=True, turn=90),
    "downsample": lambda folder: Downsample(width=SIDE, height=SIDE, factor=4),
    "downsample difference": lambda folder: Downsample(width=SIDE, height=SIDE, factor=2, law="difference"),
    "contrast": lambda folder: SpatioTemporalContrast(width=SIDE, height=SIDE, window_us=5000),
    "trail": lambda folder: Trail(width=SIDE, height=SIDE, window_us=5000),
    "time window": lambda folder: TimeWindow(width=SIDE, height=SIDE, duration_us=3000, period_us=7000),
    "undistort": undistort,
    "merge": lambda folder: Merge(inputs=["events"], width=SIDE, height=SIDE, lateness_us=3000),
    **{f"plastic {name}": lambda folder, rule=rule: plastic(rule) for name, rule in RULES.items()},
    "plastic, coming round": lambda folder: coming_round(),
    "recorder": lambda folder: Recorder(path=str(folder / "r.hbs"), ports={"events": "events"}),
}

MAKERS["network of layers"] = lambda folder: layered_network(FIRST)
MAKERS["network of 8 bits"] = lambda folder: layered_network(quantised(FIRST))
MAKERS["network that fades"] = lambda folder: layered_network(FIRST, Fade(30_000.0, 500))
for name, model in MODELS.items():
    MAKERS[f"network {name}"] = lambda folder, model=model: network(model)
    if not isinstance(model, IzhikevichUnits):
        MAKERS[f"network {name}, phases"] = lambda folder, model=model: network(model, discipline="phase", phase_us=700)


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Operator]:
    return lambda: MAKERS[request.param](tmp_path)


def stream(n_windows: int = 5, n_events: int = 400) -> list[Message]:
    """Make a labelled stream with weights on the way, bursts, equal times and a long silence."""
    rng = np.random.default_rng(4)
    messages: list[Message] = [Reset(0), deploy(0, 1)]
    t = 0
    for window in range(n_windows):
        start = t
        messages.append(Reset(start, teach=window != 3))
        if window < 3:
            messages.append(Show(start, (1, 2, 0)[window]))
        events = np.zeros(n_events, EVENT_DTYPE)
        gaps = rng.choice([0, 1, 20, 100, 700], n_events)
        gaps[n_events // 2] = 40_000
        events["t"] = start + np.cumsum(gaps)
        events["x"], events["y"] = rng.integers(0, SIDE, (2, n_events))
        events["p"] = rng.integers(0, 2, n_events)
        t = int(events["t"][-1]) + 1
        messages.append(Packet(events, start, t))
        messages.append(Label(t, window % 3, start, teach=window != 3))
        messages += [[Show(t, -1)], [Correct(t, 3)], [Forget(t, 0), Show(t, -1)], [], []][window]
        t += 50_000
        if window == 2:
            messages.append(deploy(t, 2))
    return messages


def recut(messages: list[Message], seed: int) -> list[Message]:
    """Cut the packets elsewhere, with empty ones in between."""
    rng = np.random.default_rng(seed)
    out: list[Message] = []
    for message in messages:
        if not isinstance(message, Packet):
            out.append(message)
            continue
        start = message.start_us
        for part in np.split(message.items, np.flatnonzero(rng.random(len(message.items)) < 0.03)):
            end = int(part["t"][-1]) + 1 if len(part) else start
            out.append(Packet(part.copy(), start, end))
            start = end - 1 if len(part) else end
        out.append(Packet(message.items[:0], message.end_us, message.end_us))
    return out


class Collector:
    """Takes what an operator emits: items of each port as bytes, cut only by marks."""

    def __init__(self, operator: Operator) -> None:
        self.ports: dict[str, list[Any]] = {port: [b""] for port in operator.outputs}

    def __call__(self, port: str, message: Message) -> None:
        out = self.ports[port]
        if isinstance(message, Packet):
            assert message.start_us <= message.end_us
            t = message.items["t"]
            assert np.all(np.diff(t) >= 0)
            assert np.all((t >= message.start_us) & (t < message.end_us))
            out[-1] += message.items.tobytes()
        else:
            shown = [(name, array.tobytes()) for name, array in getattr(message, "arrays", {}).items()]
            out.extend([(type(message).__name__, message.t_us, shown), b""])


def feed(operator: Operator, messages: list[Message], emit: Callable[[str, Message], None]) -> None:
    port = next(iter(operator.inputs))
    for message in messages:
        if isinstance(message, Packet):
            operator.on_packet(port, message, emit)
        else:
            operator.on_mark(port, message, emit)


def result(operator: Operator, messages: list[Message]) -> tuple[dict[str, list[Any]], dict[str, bytes]]:
    collector = Collector(operator)
    feed(operator, messages, collector)
    operator.on_end(collector)
    # a recording remembers how it was cut: that is its job, and its readers join the packets
    state = {} if isinstance(operator, Recorder) else {k: v.tobytes() for k, v in operator.snapshot().items()}
    operator.close()
    return collector.ports, state


@pytest.mark.parametrize("seed", range(4))
def test_where_packets_are_cut_does_not_matter(make: Callable[[], Operator], seed: int) -> None:
    assert result(make(), stream()) == result(make(), recut(stream(), seed))


def test_the_same_stream_gives_the_same_bits(make: Callable[[], Operator]) -> None:
    assert result(make(), stream()) == result(make(), stream())


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_restored_anywhere_it_goes_on_as_if_never_stopped(make: Callable[[], Operator], share: float) -> None:
    messages = recut(stream(), 1)
    at = int(share * len(messages))
    first = make()
    collector = Collector(first)
    feed(first, messages[:at], collector)
    snapshot = {name: np.array(array) for name, array in first.snapshot().items()}
    first.close()
    second = make()
    second.restore(snapshot)
    second.warm_up()  # as a node does that is started again
    feed(second, messages[at:], collector)
    second.on_end(collector)
    state = {} if isinstance(second, Recorder) else {k: v.tobytes() for k, v in second.snapshot().items()}
    second.close()
    assert (collector.ports, state) == result(make(), messages)


def test_a_snapshot_is_a_copy(make: Callable[[], Operator]) -> None:
    operator = make()
    feed(operator, stream()[:3], Collector(operator))
    snapshot = operator.snapshot()
    before = {name: np.array(array).tobytes() for name, array in snapshot.items()}
    feed(
        operator, [message for message in stream()[3:] if isinstance(message, Packet | Label)][:2], Collector(operator)
    )
    assert {name: np.asarray(array).tobytes() for name, array in snapshot.items()} == before
    operator.close()


def test_a_foreign_snapshot_is_refused_and_changes_nothing(make: Callable[[], Operator]) -> None:
    operator = make()
    feed(operator, stream()[:4], Collector(operator))
    before = {name: np.asarray(array).tobytes() for name, array in operator.snapshot().items()}
    with pytest.raises(ConfigError, match="wanted"):
        operator.restore({"something": np.zeros(3)})
    assert {name: np.asarray(array).tobytes() for name, array in operator.snapshot().items()} == before
    operator.close()


def test_inputs_are_left_as_they_are(make: Callable[[], Operator]) -> None:
    messages = stream()
    before = [message.items.tobytes() for message in messages if isinstance(message, Packet)]
    operator = make()
    feed(operator, messages, Collector(operator))
    operator.close()
    assert [message.items.tobytes() for message in messages if isinstance(message, Packet)] == before


def test_read_only_packets_are_as_good(make: Callable[[], Operator]) -> None:
    frozen = stream()
    for message in frozen:
        if isinstance(message, Packet):
            message.items.flags.writeable = False
    assert result(make(), frozen) == result(make(), stream())


def test_warming_up_changes_nothing(make: Callable[[], Operator]) -> None:
    operator = make()
    before = {name: np.asarray(array).tobytes() for name, array in operator.snapshot().items()}
    operator.warm_up()
    assert {name: np.asarray(array).tobytes() for name, array in operator.snapshot().items()} == before
    operator.close()


def test_marks_pass_in_order(make: Callable[[], Operator]) -> None:
    operator = make()
    marks: dict[str, list[Mark]] = {port: [] for port in operator.outputs}

    def note(port: str, message: Message) -> None:
        if isinstance(message, Reset | Label):
            marks[port].append(message)

    feed(operator, stream(), note)
    operator.on_end(note)  # one that sorts by time holds the last ones until then
    wanted = [message for message in stream() if isinstance(message, Reset | Label)]
    assert all(passed == wanted for passed in marks.values())
    operator.close()


def test_statistics_are_numbers_for_people(make: Callable[[], Operator]) -> None:
    operator = make()
    feed(operator, stream(), Collector(operator))
    counts = operator.statistics()
    assert counts
    assert all(isinstance(key, str) and np.isfinite(float(value)) for key, value in counts.items())
    operator.close()
    operator.close()  # idempotent


def test_public_things_are_documented(make: Callable[[], Operator]) -> None:
    kind = type(make())
    assert kind.__doc__
    assert "Parameters" in kind.__doc__
