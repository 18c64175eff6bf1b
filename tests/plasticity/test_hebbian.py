"""The Hebbian rule: its tanh, and long silences. Its equations are tested with those of all rules (``test_rules``)."""

import math

import numpy as np
import pytest

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.lif import LIFUnits
from plasticity.hebbian import Hebbian, tanh_all
from plasticity.plastic_network import PlasticNetwork
from stream.packet import SPIKE_DTYPE


@pytest.mark.parametrize(("real", "error"), [(np.float64, 2e-10), (np.float32, 4e-7)])
def test_tanh(real: type, error: float) -> None:
    x = np.concatenate([np.linspace(-40, 40, 80_001), np.geomspace(1e-30, 1, 2001), [0.0, 1e30, -1e30]]).astype(real)
    got = np.empty_like(x)
    tanh_all(x, got)
    want = np.array([math.tanh(float(one)) for one in x])
    assert np.abs(got - want).max() < error
    small = (np.abs(x) < 1) & (x != 0)
    assert np.abs(got[small] / want[small] - 1).max() < error  # relative: exact slope at 0
    assert np.abs(got).max() <= 1 + np.finfo(real).eps
    mirrored = np.empty_like(x)
    tanh_all(-x, mirrored)
    assert np.array_equal(mirrored, -got)


def network(weight: float, rule: Hebbian) -> PlasticNetwork:
    graph = Graph(
        (3,), [Population("out", LIFUnits(), (5,))], [Projection(INPUT, "out", Dense(np.full((3, 5), weight)))]
    )
    return PlasticNetwork.of(graph, rules={(INPUT, "out"): rule})


def spikes_of(t_us: np.ndarray) -> np.ndarray:
    spikes = np.zeros(len(t_us), SPIKE_DTYPE)
    spikes["t"] = t_us
    return spikes


def test_hebb_of_a_row_decays_alone_for_hours() -> None:
    made = network(0.1, Hebbian(local_rate=0.0))
    made.begin(0)
    hebb = made._memory.fast.reshape(3, 5)
    hebb[:] = 0.1
    made.run(spikes_of(np.array([7 * 3600 * 10**6])))
    assert not hebb[0].any()
    assert (hebb[1:] == np.float32(0.1)).all()


def test_no_denormals_after_long_silence() -> None:
    made = network(0.0, Hebbian(local_rate=0.0, mixing=0.0))
    made.begin(0)
    made._memory.fast[:] = 0.1
    made.state.v[:] = 0.9
    made.run(spikes_of(np.arange(6000) * 2000))
    assert not made.potentials("out").any()
    assert not made._memory.fast.reshape(3, 5)[0].any()
