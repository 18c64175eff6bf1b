"""Speeds of the learning layer, each beside a plain float32 row-add loop over the same rows.

The row add reads one row of the weights and adds it to one vector: what any dense event-driven layer must do at least.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.lif import LIFUnits
from plasticity.adjoint import SPIKES, network_adjoint, new_gradients, new_scratch, new_window
from plasticity.hebbian import Hebbian
from plasticity.network import network_run, new_network, new_state, new_tape
from plasticity.pair_stdp import PairSTDP
from plasticity.plastic_network import PlasticNetwork, Rule
from stream.bench import Measurement, alternate
from stream.jit import kernel
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

__all__ = ["measurements"]

WIDTH, HEIGHT, N_HIDDEN, N_CLASSES = 34, 34, 256, 10


@kernel
def add_rows(total: Any, weight: Any, units: Any) -> int:
    """Add a row for each unit."""
    for k in range(len(units)):
        i = units[k]
        for j in range(len(total)):
            total[j] += weight[i, j]
    return len(units)


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure forward and backward, with and without plasticity, on 2312 x 256 synapses.

    Parameters
    ----------
    quick
        Fewer events and rounds: to see that it runs.

    Notes
    -----
    Events come from a blob that wanders over the sensor, 75 us apart, which is the rate of N-MNIST; hidden units fire
    at about the rate that an untrained ``OnlineLearner`` has there (0.3 spikes an event).
    """
    n_events, rounds = (4_000, 2) if quick else (16_000, 7)
    rng = np.random.default_rng(1)
    events = np.zeros(n_events, EVENT_DTYPE)
    events["t"] = np.arange(n_events) * 75
    phase = np.arange(n_events) / 700
    events["x"] = np.clip(17 + 9 * np.cos(phase) + rng.normal(0, 4, n_events), 0, WIDTH - 1)
    events["y"] = np.clip(17 + 9 * np.sin(1.3 * phase) + rng.normal(0, 4, n_events), 0, HEIGHT - 1)
    events["p"] = rng.integers(0, 2, n_events)
    events.flags.writeable = False
    units = (events["y"].astype(np.int64) * WIDTH + events["x"]) * 2 + events["p"]
    params = new_network(
        rng.normal(0, 0.07, (WIDTH * HEIGHT * 2, N_HIDDEN)).astype(np.float32),
        rng.normal(0, 0.06, (N_HIDDEN, N_CLASSES)).astype(np.float32),
        mixing=0.12,
        local_rate=0.013,
        sliding_threshold=0.0,
        tau_hebb_us=100_000.0,
        tau_mem_us=20_000.0,
        tau_readout_us=60_000.0,
        v_threshold=1.0,
        hebb_max=1.0,
    )
    fired, spikes = np.zeros(N_HIDDEN, np.int64), np.zeros(n_events * 8, SPIKE_DTYPE)
    total = np.zeros(N_HIDDEN, np.float32)
    end_us = int(events["t"][-1]) + 1
    d_score = np.linspace(-1.0, 1.0, N_CLASSES)

    def limit() -> None:
        total.fill(0)  # large sums would end in inf, which some machines add more slowly
        add_rows(total, params.hidden.weight, units)

    def compare(name: str, call: Callable[[], object]) -> Iterator[Measurement]:
        call_s, limit_s = alternate(call, limit, rounds=rounds)
        for unit, per_event in (("events", 1), ("synaptic operations", N_HIDDEN)):
            rates = (n_events * per_event / seconds for seconds in (call_s, limit_s))
            yield Measurement(f"{name}, {unit}", next(rates), unit, "float32 row add", next(rates))

    for mode, is_plastic in (("GP", False), ("HP", True)):
        state = new_state(params, is_plastic=is_plastic)
        tape = new_tape(params, n_events, is_plastic=is_plastic)
        window = new_window(state)
        gradients, scratch = new_gradients(params), new_scratch(params, is_plastic=is_plastic)

        def forward(is_taping: bool, state: Any = state, is_plastic: bool = is_plastic, tape: Any = tape) -> None:
            for array in (*state.hidden, *state.readout):
                array.fill(0)
            k = 0
            n_taped = 0
            while k < n_events:
                k, _, n_taped = network_run(
                    params, state, is_plastic, events, k, 2**62, WIDTH, tape, n_taped, is_taping, fired, spikes
                )

        def backward(
            is_plastic: bool = is_plastic,
            tape: Any = tape,
            window: Any = window,
            gradients: Any = gradients,
            scratch: Any = scratch,
        ) -> None:
            network_adjoint(
                params, is_plastic, tape, n_events, window, end_us, d_score, SPIKES, 0.5, gradients, scratch
            )

        yield from compare(f"{mode} forward", lambda forward=forward: forward(False))  # type: ignore[misc]
        yield from compare(f"{mode} forward with tape", lambda forward=forward: forward(True))  # type: ignore[misc]
        yield from compare(f"{mode} adjoint", backward)
    yield from _rules(10_000 if quick else 100_000, rounds)


def _rules(n: int, rounds: int) -> Iterator[Measurement]:
    """Measure local rules on 2312 x 400 synapses, 100 k random events a second, about ten spikes a second and unit.

    What counts as a synaptic operation: a weight read for an input event, and for STDP one changed by a spike.
    """
    rng = np.random.default_rng(2)
    n_pre, n_post, rate_hz, threshold = 2312, 400, 1e5, 20.0
    items = np.zeros(n, SPIKE_DTYPE)
    items["t"], items["unit"] = np.sort(rng.integers(0, round(n / rate_hz * 1e6), n)), rng.integers(0, n_pre, n)
    weight = rng.uniform(0, 0.02, (n_pre, n_post)).astype(np.float32)
    total = np.zeros(n_post, np.float32)

    def limit() -> None:
        total.fill(0)
        add_rows(total, weight, items["unit"].astype(np.int64))

    rules: dict[str, Rule] = {
        "pair STDP": PairSTDP(1e-4, 1.05e-4, w_max=0.04),
        "Hebbian": Hebbian(mixing=0.1, local_rate=1e-3),
    }
    for name, rule in rules.items():
        population = Population("out", LIFUnits(20_000.0, threshold), (n_post,))
        graph = Graph((n_pre,), [population], [Projection(INPUT, "out", Dense(weight))])
        network = PlasticNetwork.of(graph, rules={(INPUT, "out"): rule})
        runs: list[int] = []

        def run(network: PlasticNetwork = network, runs: list[int] = runs) -> None:
            later = items.copy()
            later["t"] += len(runs) * round(n / rate_hz * 1e6)
            runs.append(len(network.run(later)["out"]))

        run_s, limit_s = alternate(run, limit, rounds=rounds)
        n_changed = max(runs) * n_pre if isinstance(rule, PairSTDP) else 0
        rates = (n * n_post + n_changed) / run_s, n * n_post / limit_s
        yield Measurement(f"{name} 2312-400", rates[0], "synaptic operations", "float32 row add", rates[1])
