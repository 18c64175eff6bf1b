"""Speeds of local rules, each beside a plain float32 row-add loop over the same rows.

The row add reads one row of the weights and adds it to one vector: what any dense event-driven layer must do at least.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.lif import LIFUnits
from plasticity.hebbian import Hebbian
from plasticity.pair_stdp import PairSTDP
from plasticity.plastic_network import PlasticNetwork, Rule
from stream.bench import Measurement, alternate
from stream.jit import kernel
from stream.packet import SPIKE_DTYPE

__all__ = ["measurements"]


@kernel
def add_rows(total: Any, weight: Any, units: Any) -> int:
    """Add a row for each unit."""
    for k in range(len(units)):
        i = units[k]
        for j in range(len(total)):
            total[j] += weight[i, j]
    return len(units)


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure local rules on 2312 x 400 synapses, 100 k random events a second, about ten spikes a second and unit.

    The units' threshold is 1, as by default. What counts as a synaptic operation: a weight read for an input event, and
    for STDP one changed by a spike. Forward and backward passes of learning networks are in ``plasticity.train_bench``.

    Parameters
    ----------
    quick
        Fewer events and rounds: to see that it runs.
    """
    n, rounds = (10_000, 2) if quick else (100_000, 7)
    rng = np.random.default_rng(2)
    n_pre, n_post, rate_hz, threshold = 2312, 400, 1e5, 1.0
    items = np.zeros(n, SPIKE_DTYPE)
    items["t"], items["unit"] = np.sort(rng.integers(0, round(n / rate_hz * 1e6), n)), rng.integers(0, n_pre, n)
    weight = rng.uniform(0, 0.001, (n_pre, n_post)).astype(np.float32)
    total = np.zeros(n_post, np.float32)

    order = items["unit"].astype(np.int64)
    later = [items.copy() for _ in range(rounds + 1)]  # the same events, again and again
    for k, again in enumerate(later):
        again["t"] += k * round(n / rate_hz * 1e6)

    def limit() -> None:
        total.fill(0)
        add_rows(total, weight, order)

    rules: dict[str, Rule] = {
        "pair STDP": PairSTDP(5e-6, 5.25e-6, w_max=0.002),
        "Hebbian": Hebbian(mixing=0.005, local_rate=1e-3),
    }
    for name, rule in rules.items():
        population = Population("out", LIFUnits(20_000.0, threshold), (n_post,))
        graph = Graph((n_pre,), [population], [Projection(INPUT, "out", Dense(weight))])
        network = PlasticNetwork.of(graph, rules={(INPUT, "out"): rule})
        runs: list[int] = []

        def run(network: PlasticNetwork = network, runs: list[int] = runs) -> None:
            runs.append(len(network.run(later[len(runs)])["out"]))

        run_s, limit_s = alternate(run, limit, rounds=rounds)
        n_changed = max(runs) * n_pre if isinstance(rule, PairSTDP) else 0
        rates = (n * n_post + n_changed) / run_s, n * n_post / limit_s
        yield Measurement(f"{name} 2312-400", rates[0], "synaptic operations", "float32 row add", rates[1])
