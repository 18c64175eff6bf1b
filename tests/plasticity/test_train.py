"""Global correction and batch training: losses, steps, any number of threads, going on after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import load_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from plasticity.correction import GlobalCorrection
from plasticity.hebbian import Hebbian
from plasticity.loss import cross_entropy, first_spike, mse, rate, spike_count
from plasticity.pair_stdp import PairSTDP
from plasticity.plastic_network import PlasticNetwork
from plasticity.short_term import ShortTerm
from plasticity.train import Recording, Trainer, train
from sources.atis_bin import write_atis_bin
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

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
        made.append(Recording(label, lambda items=items: items))  # type: ignore[misc]
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
    loss, d_spike = spike_count(units, 4, 1)
    share = np.exp([1.0, 2.0, 1.0, 0.0])
    share /= share.sum()
    assert loss == pytest.approx(-np.log(share[1]))
    np.testing.assert_allclose(d_spike, (share - np.eye(4)[1])[units])
    loss, d_spike = first_spike(units, t_us, 4, 1000, 2, tau_us=500.0)
    early = np.array([750.0, 900.0, 100.0, 0.0]) / 500.0
    share = np.exp(early) / np.exp(early).sum()
    assert loss == pytest.approx(-np.log(share[2]))
    assert d_spike[2] == 0, "a second spike does not count"
    assert d_spike[3] < 0 < d_spike[0], "the right unit's first spike helps, the others' harm"
    # by what the loss would be without them, to first order
    np.testing.assert_allclose(d_spike[[0, 1, 3]], ((share - np.eye(4)[2]) * early)[[1, 0, 2]])
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


def test_threads_change_no_bit(tmp_path: Path) -> None:
    weights = []
    for threads in (1, 3):
        trainer = Trainer(graph(), readout="scores", rules={(INPUT, "hidden"): Hebbian()}, lanes=4, threads=threads)
        train(trainer, recordings(50, 1), folder=tmp_path / str(threads), epochs=2, batch=16)
        weights.append(trainer.correction.snapshot())
    for name, value in weights[0].items():
        assert np.array_equal(value, weights[1][name]), name


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
        assert np.array_equal(mine.topology.weight, theirs.topology.weight)  # type: ignore[union-attr]
    assert json.loads(whole.stdout)["epochs"][-1]["held_back"] == 1.0
