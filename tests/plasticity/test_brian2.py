"""Pair and triplet STDP here and in Brian2 (the extra ``simulators``), an independent simulator; skipped if absent.

Both sides are given all spikes: here, a second set of inputs makes the units fire, one each, through synapses that are
a thousand times as strong as those that learn. Brian2 runs on a grid of 100 us, on which all times lie, no two alike.
"""

import warnings
from typing import Any

import numpy as np
import pytest

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.lif import LIFUnits
from neurons.sparse import sparse_of
from plasticity.pair_stdp import PairSTDP
from plasticity.plastic_network import PlasticNetwork
from plasticity.triplet_stdp import TripletSTDP
from stream.packet import SPIKE_DTYPE

N_PRE, N_POST, STEP_US = 8, 5, 100

RULES = {
    "pair": PairSTDP(2e-5, 3e-5, 17_000.0, 29_000.0, 0.0, 1e-3),
    "pair nearest": PairSTDP(2e-5, 3e-5, 17_000.0, 29_000.0, 0.0, 1e-3, True),
    "triplet": TripletSTDP(1e-5, 2e-5, 2e-5, 1e-5, 17_000.0, 101_000.0, 29_000.0, 125_000.0, 0.0, 1e-3),
}


def spikes(rng: np.random.Generator) -> np.ndarray:
    items = np.zeros(600, SPIKE_DTYPE)
    items["t"] = np.sort(rng.choice(np.arange(1, 6000), len(items), replace=False)) * STEP_US
    items["unit"] = rng.integers(0, N_PRE + N_POST, len(items))
    return items


def here(rule: Any, items: np.ndarray, weight: np.ndarray) -> np.ndarray:
    learning = np.concatenate([weight, np.zeros((N_POST, N_POST))])
    forcing = np.concatenate([np.zeros((N_PRE, N_POST)), 1.5 * np.eye(N_POST)])
    graph = Graph(
        (N_PRE + N_POST,),
        [Population("forced", LIFUnits(tau_mem_us=50.0), (N_POST,)), Population("out", LIFUnits(50.0), (N_POST,))],
        [
            Projection(INPUT, "forced", sparse_of(forcing)),
            Projection("forced", "out", sparse_of(1.5 * np.eye(N_POST))),
            Projection(INPUT, "out", Dense(learning)),
        ],
    )
    network = PlasticNetwork.of(graph, rules={(INPUT, "out"): rule}, precision="float64")
    fired = network.run(items)["out"]
    assert np.array_equal(fired["t"], items["t"][items["unit"] >= N_PRE]), "all spikes are those that were forced"
    return network.weights(INPUT, "out")[:N_PRE]


def there(rule: Any, items: np.ndarray, weight: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            b2 = pytest.importorskip("brian2", reason="needs Brian2 (pip install brian2), an independent simulator")
        except AttributeError as error:
            pytest.skip(f"this Brian2 does not load with NumPy {np.__version__}: {error}; Brian2 2.9 wants NumPy < 2.4")
        b2.prefs.codegen.target = "numpy"
        b2.start_scope()
        b2.defaultclock.dt = STEP_US * b2.us
        is_pre = items["unit"] < N_PRE
        t = items["t"] * b2.us
        pre = b2.SpikeGeneratorGroup(N_PRE, items["unit"][is_pre], t[is_pre])
        post = b2.SpikeGeneratorGroup(N_POST, items["unit"][~is_pre] - N_PRE, t[~is_pre])
        grown = "1" if getattr(rule, "nearest", False) else "x + 1", "1" if getattr(rule, "nearest", False) else "y + 1"
        names: dict[str, Any] = {"w_min": rule.w_min, "w_max": rule.w_max}
        names |= {"tau_x": rule.tau_plus_us * b2.us, "tau_y": rule.tau_minus_us * b2.us}
        model = "w : 1\ndx/dt = -x / tau_x : 1 (event-driven)\ndy/dt = -y / tau_y : 1 (event-driven)\n"
        if isinstance(rule, PairSTDP):
            names |= {"up": rule.a_plus, "down": rule.a_minus}
            on_pre = f"w = clip(w - down * y, w_min, w_max)\nx = {grown[0]}"
            on_post = f"w = clip(w + up * x, w_min, w_max)\ny = {grown[1]}"
        else:
            names |= {"up": rule.a2_plus, "down": rule.a2_minus, "up_3": rule.a3_plus, "down_3": rule.a3_minus}
            names |= {"tau_x2": rule.tau_x_us * b2.us, "tau_y2": rule.tau_y_us * b2.us}
            model += "dx2/dt = -x2 / tau_x2 : 1 (event-driven)\ndy2/dt = -y2 / tau_y2 : 1 (event-driven)\n"
            on_pre = "w = clip(w - y * (down + down_3 * x2), w_min, w_max)\nx += 1\nx2 += 1"
            on_post = "w = clip(w + x * (up + up_3 * y2), w_min, w_max)\ny += 1\ny2 += 1"
        synapses = b2.Synapses(pre, post, model, on_pre=on_pre, on_post=on_post, namespace=names)
        synapses.connect()
        synapses.w = weight.reshape(-1)
        b2.Network(pre, post, synapses).run((int(items["t"][-1]) + STEP_US) * b2.us)
        return np.asarray(synapses.w).reshape(weight.shape)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brian2 calls its own dependencies by old names
@pytest.mark.parametrize("name", RULES)
def test_weights_are_those_of_brian2(name: str) -> None:
    rng = np.random.default_rng(3)
    items, weight = spikes(rng), rng.uniform(0, 1e-3, (N_PRE, N_POST))
    wanted = there(RULES[name], items, weight)
    got = here(RULES[name], items, weight)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    assert np.abs(got - weight).max() > 1e-4
