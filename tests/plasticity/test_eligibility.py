"""The eligibility form: its formula, how it lies to the adjoint, what it refuses, and that networks learn by it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.program import DELIVERED, FIRED, WEIGHT
from plasticity.correction import GlobalCorrection
from plasticity.hebbian import Hebbian
from plasticity.plastic_network import PlasticNetwork
from plasticity.train import Recording, Trainer, train
from stream.errors import ConfigError
from stream.packet import SPIKE_DTYPE

TAU_US = {"a": 9_000.0, "b": 15_000.0, "scores": 30_000.0}


def graph(n_hidden: int = 1, delay_us: int = 0) -> Graph:
    """One or two hidden layers, and one that goes around."""
    rng = np.random.default_rng(2)
    hidden = ["a", "b"][:n_hidden]
    populations = [Population(name, LIFUnits(tau_mem_us=TAU_US[name]), (12,)) for name in hidden]
    populations.append(Population("scores", LeakyIntegratorUnits(tau_mem_us=TAU_US["scores"]), (3,)))
    ways = [Projection(INPUT, "a", Dense(rng.normal(0.05, 0.4, (20, 12))))]
    if n_hidden == 2:
        ways.append(Projection("a", "b", Dense(rng.normal(0.2, 0.5, (12, 12))), delay_us))
        ways.append(Projection("b", "b", Dense(rng.normal(0.0, 0.2, (12, 12))), 700))
    ways.append(Projection(hidden[-1], "scores", Dense(rng.normal(0.0, 0.5, (12, 3)))))
    return Graph((20,), populations, ways)


def spikes(seed: int, n: int = 150) -> np.ndarray:
    rng = np.random.default_rng(seed)
    items = np.zeros(n, SPIKE_DTYPE)
    items["t"] = 5_000 + np.sort(rng.integers(0, 400_000, n))
    items["t"][n // 2 :] += 900_000  # a silence of many time constants
    items["unit"] = rng.integers(0, 20, n)
    return items


def by_the_formula(
    network: PlasticNetwork, tape: np.ndarray, d_scores: np.ndarray, end_us: int, begin_us: int
) -> dict[int, np.ndarray]:
    """Sum over pairs of spikes, as it stands in the docstring."""
    names, ways = network._names, network.graph.projections
    weights = [np.asarray(network._weights(q), np.float64) for q in range(len(ways))]
    told: dict[str, np.ndarray] = {"scores": d_scores}
    for _ in names:
        for q, way in enumerate(ways):
            if way.target in told and way.source != INPUT and way.source not in told:
                told[way.source] = weights[q] @ told[way.target]
    made = {q: np.zeros_like(weights[q]) for q in range(len(ways))}
    arrived: dict[tuple[int, int], list[int]] = {}
    for t, what, place, unit in ((int(r[0]), *map(int, r[1:])) for r in tape):
        if what == DELIVERED:
            arrived.setdefault((place, unit), []).append(t)
        elif what == FIRED:
            name = names[place]
            f = TAU_US["scores"] * (1 - math.exp(-(end_us - t) / TAU_US["scores"])) / (end_us - begin_us)
            for q, way in enumerate(ways):
                if way.target == name:
                    for pre in range(weights[q].shape[0]):
                        x = sum(math.exp(-(t - s) / TAU_US[name]) for s in arrived.get((q, pre), []))
                        made[q][pre, unit] += told[name][unit] * f * x
                elif way.source == name and way.target == "scores":
                    made[q][unit] += f * d_scores
    return made


@pytest.mark.parametrize(("n_hidden", "delay_us"), [(1, 0), (2, 0), (2, 333)])
def test_it_is_its_formula(n_hidden: int, delay_us: int) -> None:
    network = PlasticNetwork.of(graph(n_hidden, delay_us), readout="scores", precision="float64")
    correction = GlobalCorrection(network, learn=("weights",), form="eligibility")
    network.run(spikes(1), until_us=1_400_000)
    d_scores = np.array([0.3, -0.7, 0.4])
    tape = network.state.tape[: correction.window.n_entries]
    wanted = by_the_formula(network, tape, d_scores, 1_400_000, int(spikes(1)["t"][0]))
    correction.add(d_scores)
    for q, values in wanted.items():
        first = int(network._program.projection[q, WEIGHT])
        got = correction.window.gradients.weight[first : first + values.size].reshape(values.shape)
        assert np.any(values)
        np.testing.assert_allclose(got, values, rtol=1e-9, atol=1e-15, err_msg=str(q))


def test_it_points_where_the_adjoint_does() -> None:
    """The readout's gradient is the adjoint's; that of the layer below differs by the resets it leaves out."""
    found = []
    for form in ("adjoint", "eligibility"):
        network = PlasticNetwork.of(graph(), readout="scores", precision="float64")
        correction = GlobalCorrection(network, learn=("weights",), form=form)
        network.run(spikes(1), until_us=1_400_000)
        correction.add(np.array([0.3, -0.7, 0.4]))
        found.append(correction.window.gradients.weight.copy())
    n = 20 * 12
    np.testing.assert_allclose(found[1][n:], found[0][n:], rtol=1e-9, atol=1e-15)
    cosine = found[0][:n] @ found[1][:n] / np.linalg.norm(found[0][:n]) / np.linalg.norm(found[1][:n])
    assert 0.5 < cosine < 0.999


def test_networks_learn_by_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def recordings(n: int) -> list[Recording]:
        made = []
        for k in range(n):
            items = np.zeros(60, SPIKE_DTYPE)
            items["t"] = np.sort(rng.integers(0, 50_000, 60))
            own = 6 * (k % 3) + rng.integers(0, 6, 60)
            items["unit"] = np.where(rng.random(60) < 0.6, own, rng.integers(0, 20, 60))
            made.append(Recording(k % 3, lambda items=items: items))
        return made

    trainer = Trainer(graph(), readout="scores", lanes=2, learn=("weights",), form="eligibility", weight_rate=0.01)
    done = train(trainer, recordings(120), recordings(90), folder=tmp_path, epochs=5, batch=12)
    assert done[-1].loss < 0.7 * done[0].loss
    assert max(epoch.held_back for epoch in done) > 0.8


def test_what_it_cannot_do_is_refused() -> None:
    plain = PlasticNetwork.of(graph(), readout="scores")
    wrong: list[dict[str, Any]] = [{"learn": ("weights", "times")}, {"surrogate": "rectangle", "width": 0.5}]
    for more in wrong:
        with pytest.raises(ConfigError, match="learns weights alone"):
            GlobalCorrection(plain, **{"learn": ("weights",), "form": "eligibility"} | more)
    hebbian = PlasticNetwork.of(graph(), rules={(INPUT, "a"): Hebbian()}, readout="scores")
    with pytest.raises(ConfigError, match="want the adjoint"):
        GlobalCorrection(hebbian, learn=("weights",), form="eligibility")
    with pytest.raises(ConfigError, match="wanted 'adjoint' or 'eligibility'"):
        GlobalCorrection(plain, form="backwards")
