"""Global correction and batch training: losses, steps, any number of threads, going on after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from chip.profile import load_profile
from chip.quantise import FloatLayer, quantise
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection, dequantised
from neurons.graph_file import load_graph, save_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.program import WEIGHT
from neurons.quantised_dense import QuantisedDense, quantised
from neurons.sparse import sparse_of
from plasticity.correction import GlobalCorrection
from plasticity.hebbian import Hebbian
from plasticity.loss import cross_entropy, first_spike, mse, rate, spike_count
from plasticity.network_learner import NetworkLearner
from plasticity.pair_stdp import PairSTDP
from plasticity.plastic_network import PlasticNetwork
from plasticity.quantised import on_grid, scale_of
from plasticity.short_term import ShortTerm
from plasticity.train import Recording, Trainer, train
from sources.atis_bin import write_atis_bin
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Label, packet_of

N_CLASSES = 3


def graph(seed: int = 1, n_hidden: int = 24) -> Graph:
    rng = np.random.default_rng(seed)
    return Graph(
        (30,),
        [
            Population("hidden", LIFUnits(tau_mem_us=10_000.0), (n_hidden,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=30_000.0), (N_CLASSES,)),
        ],
        [
            Projection(INPUT, "hidden", Dense(rng.normal(0.05, 0.3, (30, n_hidden)))),
            Projection("hidden", "scores", Dense(rng.normal(0.0, 0.2, (n_hidden, N_CLASSES)))),
        ],
    )


def recordings(n: int, seed: int) -> list[Recording]:
    """Three classes: each prefers other inputs, at its own moment."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        label = k % N_CLASSES
        items = np.zeros(60, SPIKE_DTYPE)
        items["t"] = np.sort(rng.integers(0, 50_000, len(items)))
        own = rng.random(len(items)) < 0.6
        items["unit"] = np.where(own, 10 * label + rng.integers(0, 10, 60), rng.integers(0, 30, 60))
        made.append(Recording(label, lambda items=items: items))
    return made


@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_derivatives_of_losses(name: str) -> None:
    score = np.array([0.3, 1.4, -0.2, 0.9])
    if name == "cross_entropy":
        loss, d_score = cross_entropy(score, 2, gain=1.7)

        def again(x: Any) -> Any:
            return anp.log(anp.sum(anp.exp(1.7 * x))) - 1.7 * x[2]
    else:
        loss, d_score = mse(score, 2, highest=1.1)

        def again(x: Any) -> Any:
            return anp.mean((anp.minimum(x, 1.1) - np.eye(4)[2]) ** 2)

    assert loss == pytest.approx(again(score))
    np.testing.assert_allclose(d_score, grad(again)(score), rtol=1e-12)


def test_losses_on_spikes() -> None:
    units, t_us = np.array([1, 0, 1, 2]), np.array([100, 250, 300, 900])
    score, worth = spike_count(units, 4)
    np.testing.assert_array_equal(score, [1.0, 2.0, 1.0, 0.0])
    np.testing.assert_array_equal(worth, np.ones(4))
    score, worth = first_spike(units, t_us, 4, 1000, tau_us=500.0)
    np.testing.assert_allclose(score, np.array([750.0, 900.0, 100.0, 0.0]) / 500.0)
    # by what the score would be without them; a second spike does not count
    np.testing.assert_allclose(worth, [score[1], score[0], 0.0, score[2]])
    _, d_spike = rate(units, 4, 1_000_000, wanted_hz=1.5, strength=2.0)
    assert d_spike[0] == d_spike[2] > 0 > d_spike[1], "who fires too often is held back, who fires too little is not"


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("mode", ["GP", "HP", "STP"])
def test_networks_learn(optimiser: Any, mode: str, tmp_path: Path) -> None:
    ends = (INPUT, "hidden")
    trainer = Trainer(
        graph(),
        readout="scores",
        rules={ends: Hebbian()} if mode == "HP" else {},
        terminals={ends: ShortTerm(f_rest=0.5, f_step=0.3)} if mode == "STP" else {},
        lanes=2,
        optimiser=optimiser,
        weight_rate=0.01 if optimiser == "adam" else 1.0,
        longest=1.0,
        learn=("weights", "rules", "times") if mode != "GP" else ("weights",),
    )
    before = {it.name: it.value.copy() for it in trainer.correction.metas}
    done = train(trainer, recordings(120, 1), recordings(90, 2), folder=tmp_path, epochs=6, batch=12)
    assert done[-1].loss < 0.7 * done[0].loss
    assert max(epoch.held_back for epoch in done) > 0.8, done
    for it in trainer.correction.metas:
        assert not np.array_equal(it.value, before[it.name]), f"{it.name} is learned as well"
    # the network that was kept answers as it did in training
    best = max(done, key=lambda epoch: epoch.held_back)
    if mode == "GP":
        network = Network.of(load_graph(tmp_path / "best.safetensors"), readout="scores")
        right = 0
        for recording in recordings(90, 2):
            network.begin(int(recording.read()["t"][0]))
            network.run(recording.read())
            right += int(np.argmax(network.averages("scores"))) == recording.label
        assert right / 90 == best.held_back


@pytest.mark.parametrize("loss", ["spike_count", "first_spike"])
def test_networks_learn_by_what_their_spikes_say(loss: Any, tmp_path: Path) -> None:
    fires = [it._replace(model=LIFUnits(tau_mem_us=10_000.0)) for it in graph().populations]
    ways = [it._replace(topology=Dense(3.0 * it.topology.weight)) for it in graph().projections[1:]]
    spiking = graph()._replace(populations=fires, projections=[graph().projections[0], *ways])
    options: dict[str, Any] = {"loss": loss, "output": "scores", "lanes": 2, "weight_rate": 0.01}
    trainer = Trainer(spiking, readout="", tau_us=20_000.0, rate_strength=0.01, learn=("weights",), **options)
    done = train(trainer, recordings(120, 1), recordings(90, 2), folder=tmp_path, epochs=6, batch=12)
    assert done[-1].loss < 0.7 * done[0].loss
    assert max(epoch.held_back for epoch in done) > 0.75, done
    network, recording = trainer.lanes[0], recordings(1, 5)[0]
    trainer._see(0, recording)
    spikes = network.run(recording.read()[:0])  # nothing more: the tape holds the recording's
    assert not len(spikes["scores"])
    scores = trainer.correction.scores()
    units, at = trainer.correction.window.spikes("scores")
    if loss == "spike_count":
        np.testing.assert_array_equal(scores, np.bincount(units, minlength=N_CLASSES))
    else:
        end_us, t_us = int(network._clock[0]), network.state.tape[at, 0]
        wanted = [(end_us - t_us[units == k].min()) / 20_000.0 if (units == k).any() else 0.0 for k in range(N_CLASSES)]
        np.testing.assert_allclose(scores, wanted)


def test_losses_of_spikes_want_an_output() -> None:
    for options in ({"loss": "spike_count"}, {"loss": "first_spike", "output": "hidden", "form": "eligibility"}):
        with pytest.raises(ConfigError, match="wanted one of the spiking populations"):
            Trainer(graph(), readout="scores", learn=("weights",), **options)
    with pytest.raises(ConfigError, match="wanted an output for spike_count"):
        Trainer(graph(), readout="scores", output="hidden")


def test_threads_change_no_bit(tmp_path: Path) -> None:
    weights = []
    for threads in (1, 3):
        trainer = Trainer(graph(), readout="scores", rules={(INPUT, "hidden"): Hebbian()}, lanes=4, threads=threads)
        train(trainer, recordings(50, 1), folder=tmp_path / str(threads), epochs=2, batch=16)
        weights.append(trainer.correction.snapshot())
    for name, value in weights[0].items():
        assert np.array_equal(value, weights[1][name]), name


def test_rates_cool_and_go_on_where_they_were(tmp_path: Path) -> None:
    def trained(folder: str, stop_at: int = 0) -> Trainer:
        trainer = Trainer(graph(), readout="scores")
        step, factors = trainer.correction.step, []

        def noted() -> None:
            factors.append(trainer.correction.rate_factor)
            step()

        def watch(epoch: int, done: int, total: int, right: float) -> None:
            if epoch == stop_at:
                raise KeyboardInterrupt

        trainer.correction.step = noted  # type: ignore[method-assign] # to see the factor at each step
        train(trainer, recordings(20, 1), folder=tmp_path / folder, epochs=3, batch=8, cool=2 / 3, progress=watch)
        if folder == "whole":  # 20 recordings in batches of 8: three steps an epoch
            assert factors == pytest.approx([1, 1, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
        assert trainer.correction.rate_factor == 1.0
        return trainer

    whole = trained("whole").correction.snapshot()
    with pytest.raises(KeyboardInterrupt):
        trained("halves", stop_at=2)
    for name, value in trained("halves").correction.snapshot().items():
        assert np.array_equal(value, whole[name]), name
    with pytest.raises(ConfigError, match="share of all steps"):
        train(Trainer(graph(), readout="scores"), recordings(9, 1), folder=tmp_path / "hot", cool=1.5)


def test_patience_and_refusals(tmp_path: Path) -> None:
    trainer = Trainer(graph(), readout="scores", weight_rate=0.0)
    done = train(trainer, recordings(9, 1), recordings(9, 2), folder=tmp_path, epochs=9, patience=2)
    assert len(done) == 3, "a rate of 0 makes nothing better"
    with pytest.raises(ConfigError, match="0 recordings"):
        train(trainer, [], folder=tmp_path / "none")
    with pytest.raises(ConfigError, match="readout"):
        GlobalCorrection(PlasticNetwork.of(graph()))
    with pytest.raises(ConfigError, match="Hebbian and ShortTerm alone"):
        Trainer(graph(), readout="scores", rules={(INPUT, "hidden"): PairSTDP(w_min=-9.0, w_max=9.0)})
    (tmp_path / "epochs.json").write_text("[1]")
    with pytest.raises(ConfigError, match="table of epochs"):
        train(trainer, recordings(9, 1), folder=tmp_path)


def test_a_cut_window_counts_as_cut() -> None:
    network = PlasticNetwork.of(graph(), readout="scores")
    correction = GlobalCorrection(network, window_events=20)
    items = recordings(1, 1)[0].read()
    network.run(items)
    n_cut = correction.window.n_cut
    assert n_cut >= 2
    assert correction.window.n_entries <= 20 + 24 * 2 + 1
    # wherever the stream is cut, windows are cut at the same events
    other = PlasticNetwork.of(graph(), readout="scores")
    again = GlobalCorrection(other, window_events=20)
    for part in np.split(items, [7, 8, 31]):
        other.run(part)
    assert again.window.n_cut == n_cut
    for one in (correction, again):
        one.take(1)
    for mine, theirs in zip(correction.window.gradients, again.window.gradients, strict=True):
        assert np.array_equal(mine, theirs)


def test_weights_are_learned_on_the_grid_of_the_chip() -> None:
    """What the chip's compiler makes of them is what they are; and learning goes on below the grid's steps."""
    rng = np.random.default_rng(3)
    for weight in (rng.normal(0, 0.3, (40, 7)), rng.standard_t(2, (30, 5)), np.zeros((3, 3))):
        layer = FloatLayer(weight.astype(np.float32), 20_000.0, None)
        theirs = quantise(layer, 1000, load_profile("tianjic-2019"), "layer")
        assert scale_of([layer.weight]) == pytest.approx(theirs.scale, rel=1e-6)
        ours = on_grid(layer.weight, scale_of([layer.weight]))
        np.testing.assert_allclose(ours, theirs.weight / theirs.scale, rtol=1e-5, atol=1e-7)
    trainer = Trainer(graph(), readout="scores", lanes=1, weight_bits=4, weight_rate=3e-3, learn=("weights",))
    network = trainer.lanes[0]
    items = recordings(60, 1)
    losses = []
    for _ in range(4):
        with ThreadPoolExecutor(1) as pool:
            losses.append(sum(trainer.learn(items[k : k + 12], pool)[0] for k in range(0, 60, 12)))
        for source, target in ((INPUT, "hidden"), ("hidden", "scores")):
            q = [(it.source, it.target) for it in network.graph.projections].index((source, target))
            first, shape = int(network._program.projection[q, WEIGHT]), np.shape(network._weights(q))
            weight = network._program.weight[first : first + shape[0] * shape[1]]
            assert len(np.unique(weight)) <= 15
    assert losses[-1] < 0.8 * losses[0]
    whole = trainer.correction.weight
    assert len(np.unique(whole)) > 100
    one = trainer.correction.snapshot()
    trainer.correction.restore(one)
    assert len(np.unique(network._program.weight)) <= 30


def test_weights_of_8_bits_are_not_learned_in_silence() -> None:
    """Whole numbers are no weights that a step could move: refused by name, unless they are to stay as they are."""
    made = graph()
    first = made.projections[0]
    made = made._replace(projections=[first._replace(topology=quantised(first.topology)), made.projections[1]])
    with pytest.raises(ConfigError, match="projection input -> hidden: its weights are whole numbers of 8 bits"):
        Trainer(made, readout="scores", lanes=1, learn=("weights",))
    trainer = Trainer(made, readout="scores", lanes=1, learn=("weights",), held=("hidden",))
    with ThreadPoolExecutor(1) as pool:
        trainer.learn(recordings(12, 1), pool)
    kept, learned = (it.topology for it in trainer.learned().projections)
    assert isinstance(kept, QuantisedDense)
    np.testing.assert_array_equal(kept.weight, made.projections[0].topology.weight)
    assert np.any(learned.weight != made.projections[1].topology.weight)
    Trainer(dequantised(made), readout="scores", lanes=1, weight_bits=8, learn=("weights",))


def test_rates_are_held() -> None:
    """The regulariser alone, with no label to learn, brings units that fire too much down."""
    rates = []
    for strength in (0.0, 3.0):
        network = PlasticNetwork.of(graph(), readout="scores")
        correction = GlobalCorrection(
            network, learn=("weights",), rate_hz=5.0, rate_strength=strength, loss=lambda s, _: (0.0, np.zeros(len(s)))
        )
        for _ in range(60):
            network.begin(0)
            out = network.run(recordings(3, 4)[0].read(), until_us=60_000)
            correction.take(0)
            correction.step()
        rates.append(len(out["hidden"]) / 24 / 0.06)
    assert abs(rates[1] - 5.0) < 0.5 * abs(rates[0] - 5.0), rates
    with pytest.raises(ConfigError, match="wanted one of cross_entropy, mse"):
        GlobalCorrection(network, loss="hinge")


def test_steps_by_the_count_of_events(tmp_path: Path) -> None:
    save_graph(tmp_path / "net.safetensors", graph())
    learner = NetworkLearner(path=str(tmp_path / "net.safetensors"), readout="scores", correction_events=130)
    stepped = []
    for k, it in enumerate(recordings(12, 1)):  # 60 spikes each
        items = it.read().copy()
        items["t"] += k * 100_000
        before = learner.correction.n_steps
        learner.on_packet("spikes", packet_of(items), lambda *_: None)
        learner.on_mark("spikes", Label(k * 100_000 + 60_000, it.label, k * 100_000), lambda *_: None)
        stepped += [k] * (learner.correction.n_steps - before)
    assert stepped == [2, 5, 8, 11]


def test_what_has_become_worse_is_rolled_back() -> None:
    network = PlasticNetwork.of(graph(), rules={(INPUT, "hidden"): Hebbian()}, readout="scores")
    correction = GlobalCorrection(
        network, weight_rate=0.5, learn=("weights", "rules"), margin=0.2, judge_labels=2, optimiser="adam"
    )
    items = recordings(6, 1)

    def learn(k: int) -> None:
        network.begin(0)
        network.run(items[k].read())
        correction.take(items[k].label)
        correction.step()

    def state() -> dict[str, bytes]:
        return {name: it.tobytes() for name, it in correction._learnable().items()} | {
            "force": bytes(network._program.weight)
        }

    learn(0)
    good = state()
    assert not any(correction.hold_back(loss) for loss in (1.0, 1.1))
    for k in (1, 2):
        learn(k)
    assert state() != good
    assert not any(correction.hold_back(loss) for loss in (1.2, 1.25)), "worse, but within the margin"
    assert [correction.hold_back(loss) for loss in (9.0, 1.0)] == [False, True]
    assert state() == good
    assert correction.n_steps == 1
    learn(3)
    assert not any(correction.hold_back(loss) for loss in (5.1, 5.1)), "what cannot be had any more is not asked for"
    kept = correction.snapshot()
    assert not any(correction.hold_back(loss) for loss in (3.0, 3.0))
    correction.restore(kept)
    assert [correction.hold_back(loss) for loss in (6.0, 6.0)] == [False, True]


WAYS: dict[str, dict[str, Any]] = {
    "weights": {},
    "all": {"learn": ("weights", "rules", "times")},
    "rectangle": {"surrogate": "rectangle", "width": 0.5, "learn": ("weights", "times")},
}


@pytest.mark.parametrize(
    ("topology", "name"), [*(("dense", name) for name in WAYS), ("sparse", "weights"), ("sparse", "rectangle")]
)
def test_a_window_in_pieces_has_the_gradient_of_the_whole(topology: str, name: str) -> None:
    made = graph()
    if topology == "sparse":
        rng = np.random.default_rng(5)
        weight = rng.normal(0.05, 0.3, (30, 24)) * (rng.random((30, 24)) < 0.5)
        made = made._replace(projections=[Projection(INPUT, "hidden", sparse_of(weight)), made.projections[1]])
    found = []
    for window_events, window_pieces in ((1 << 16, 1), (30, 100), (30, 2)):
        rules = {(INPUT, "hidden"): Hebbian(tau_hebb_us=20_000.0, local_rate=0.1)} if name == "all" else {}
        network = PlasticNetwork.of(made, rules=rules, readout="scores", precision="float64")
        correction = GlobalCorrection(
            network, window_events=window_events, window_pieces=window_pieces, rate_strength=0.5, **WAYS[name]
        )
        for k in range(3):  # the second and third window go on where the one before ended
            items = recordings(3, 2)[k].read().copy()
            items["t"] += 60_000 * k
            network.run(items, until_us=60_000 * (k + 1))
            correction.take(k)
        found.append((correction.window, [array.copy() for array in correction.window.gradients]))
    (whole, gradients), (parts, in_parts), (short, cut) = found
    assert whole.n_cut == parts.n_cut == 0
    assert short.n_cut > 0
    assert any(np.any(array) for array in gradients)
    for field, mine, theirs in zip(gradients_of(whole), gradients, in_parts, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-8, atol=1e-12, err_msg=field)
    assert not np.allclose(gradients[0], cut[0], rtol=1e-3, atol=0.0), "a window that is cut is another one"
    assert len(parts._rows.u) <= len(whole._rows.u)
    if name != "weights":
        assert len(parts._rows.u) < 0.7 * len(whole._rows.u), "rows are made for a piece at a time"
    with pytest.raises(ConfigError, match="tired terminals"):
        Trainer(graph(), readout="scores", terminals={(INPUT, "hidden"): ShortTerm()}, window_pieces=2)


def gradients_of(window: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = window.gradients._fields
    return names


def _make_folder(folder: Path) -> None:
    rng = np.random.default_rng(5)
    for split, n in (("train", 12), ("test", 4)):
        for label in range(2):
            (folder / split / str(label)).mkdir(parents=True)
            for k in range(n):
                events = np.zeros(150, EVENT_DTYPE)
                events["t"] = np.sort(rng.integers(0, 40_000, 150))
                events["x"], events["y"] = rng.integers(0, 5, 150) + 5 * label, rng.integers(0, 10, 150)
                events["p"] = rng.integers(0, 2, 150)
                write_atis_bin(folder / split / str(label) / f"{k}.bin", events)


def test_the_command_goes_on_after_kill(tmp_path: Path) -> None:
    _make_folder(tmp_path)
    words = [sys.executable, "-P", "-m", "stream", "train", str(tmp_path / "train"), "--test", str(tmp_path / "test")]
    words += ["--sensor", "10x10", "--hidden", "20", "--batch", "4", "--json", "--mode", "HP"]

    def command(out: str, epochs: int) -> list[str]:
        return [*words, "--out", str(tmp_path / out), "--epochs", str(epochs)]

    whole = subprocess.run(command("whole", 4), capture_output=True, text=True, timeout=300)
    assert whole.returncode == 0, whole.stderr
    with subprocess.Popen(command("killed", 400), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        table = tmp_path / "killed" / "epochs.json"
        deadline = time.monotonic() + 200
        while not table.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    n_done = len(json.loads(table.read_text()))
    assert 1 <= n_done < 400
    epochs = max(4, n_done + 1)
    if epochs > 4:  # it was fast: let the undisturbed run catch up
        whole = subprocess.run(command("whole", epochs), capture_output=True, text=True, timeout=300)
    again = subprocess.run(command("killed", epochs), capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(whole.stdout)
    one, other = (load_graph(tmp_path / name / "best.safetensors") for name in ("whole", "killed"))
    for mine, theirs in zip(one.projections, other.projections, strict=True):
        assert np.array_equal(mine.topology.weight, theirs.topology.weight)
    assert json.loads(whole.stdout)["epochs"][-1]["held_back"] == 1.0


def test_warming_up_compiles_what_will_run_and_nothing_else() -> None:
    """The plain network's kernel takes as long to compile as the one with rules, and would never be called."""
    lines = (
        "import test_train as t",
        "from neurons.engine import run",
        "from plasticity.rules import plastic_run",
        "t.Trainer(t.graph(), readout='scores')",
        "assert not run.signatures and len(plastic_run.signatures) == 1",
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env={**os.environ, "PYTHONPATH": path, "NUMBA_DISABLE_JIT": "0"},
        check=True,
    )
