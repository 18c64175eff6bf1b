"""Discipline ``phase`` gives the T-step equations of Wu et al., as their authors coded them, to float rounding.

For layers l and steps t = 0 ... T - 1, u and s beginning at 0 (without the local rule, so the weights stand still)::

    I_t = (k_t x_t) W + b                        x_t: pixels, or this step's spikes of the layer below
    u_t = decay (u_{t-1} - thr s_{t-1}) + I_t    soft reset, one step later, then leak
    s_t = 1 if u_t > thr else 0                  strict

What corresponds:

- ``phase_us`` is a step, ``decay = exp(-phase_us / tau_mem_us)``. A row that arrives in a phase is added to a potential
  that leaked to its begin, and a reset at its end leaks into the next one: the same order of leak, reset and sum.
- There all layers run within a step; here a spike is delivered into the next phase. So step t of layer l (from 0) is
  phase t + l. Without feedback nothing else changes: a layer's input comes l phases later, all of it.
- An amplitude is a line of its own: pixel i in step t is the input line (t, i) with weights k_t x[i] W[i]. A bias is
  one line that fires in every phase, through a projection to layer l that is delayed by l phases.

What has no counterpart: k_t = exp(-t / tau_w) from the second layer on, where it would weaken spikes by the step in
which they come. So k_t acts on the first layer only here, or is 1; the authors' tau_w is 40 steps and more.
"""

import itertools
import math

import numpy as np
import pytest

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.lif import LIFUnits
from neurons.network import Network
from stream.packet import SPIKE_DTYPE, Reset

THR, DECAY, PHASE_US = 0.35, 0.4, 1000


def discrete(
    x: np.ndarray, weights: list[np.ndarray], bias: list[np.ndarray]
) -> tuple[list[list[np.ndarray]], list[list[np.ndarray]]]:
    """Run the equations; x: float64, shape (T, n_in), k_t included. Returns u and s by layer and step."""
    u = [[np.zeros(len(b))] for b in bias]
    s = [[np.zeros(len(b))] for b in bias]
    for x_t in x:
        below = x_t
        for k, (weight, b) in enumerate(zip(weights, bias, strict=True)):
            u[k].append(DECAY * (u[k][-1] - THR * s[k][-1]) + below @ weight + b)
            s[k].append((u[k][-1] > THR).astype(float))
            below = s[k][-1]
    return [steps[1:] for steps in u], [steps[1:] for steps in s]


@pytest.mark.parametrize("sizes", [(20, 12), (24, 16, 10), (16, 14, 12, 6)])
@pytest.mark.parametrize("coding", ["binary", "analog"])
@pytest.mark.parametrize("seed", range(4))
def test_phases_are_the_authors_equations(sizes: tuple[int, ...], coding: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_steps, n_in, n_layers = 25, sizes[0], len(sizes) - 1
    # as a linear layer is begun, a little to the exciting side so that the last layer fires too
    weights = [
        rng.uniform(-1, 1, (n_pre, n_post)) / math.sqrt(n_pre) + 0.4 / n_pre
        for n_pre, n_post in itertools.pairwise(sizes)
    ]
    bias = [rng.uniform(-0.1, 0.1, n) for n in sizes[1:]]
    if coding == "binary":
        x = (rng.random((n_steps, n_in)) < 0.3).astype(float)
    else:  # the same picture in every step, weakened as time goes on
        x = np.exp(-np.arange(n_steps) / 40)[:, None] * rng.random(n_in)
    u, s = discrete(x, weights, bias)
    assert min(np.abs(np.array(layer) - THR).min() for layer in u) > 1e-9

    tau_us = -PHASE_US / math.log(DECAY)
    rows = weights[0] if coding == "binary" else (x.reshape(-1, 1) * np.tile(weights[0], (n_steps, 1)))
    n_lines = len(rows) + 1  # the last one is the bias
    populations, projections = [], [Projection(INPUT, "l0", Dense(np.vstack([rows, bias[0]])))]
    for k, n in enumerate(sizes[1:]):
        populations.append(Population(f"l{k}", LIFUnits(tau_us, THR), (n,)))
        if k:
            projections.append(Projection(f"l{k - 1}", f"l{k}", Dense(weights[k])))
            silent = np.zeros((n_lines - 1, n))
            projections.append(Projection(INPUT, f"l{k}", Dense(np.vstack([silent, bias[k]])), k * PHASE_US))
    graph = Graph((n_lines,), populations, projections)

    def lines(t: int) -> list[int]:
        active = np.flatnonzero(x[t]) if coding == "binary" else t * n_in + np.arange(n_in)
        return [*(int(i) for i in active), n_lines - 1]

    want = [[(t, int(j)) for t in range(n_steps) for j in np.flatnonzero(s[k][t])] for k in range(n_layers)]
    assert all(len(fired) > 5 for fired in want)
    assert sum(len(fired) for fired in want) < 0.95 * n_steps * sum(sizes[1:])
    for anywhere in (False, True):  # rows come at the begin of their phase, or anywhere in it
        network = Network.of(graph, discipline="phase", phase_us=PHASE_US, precision="float64")
        network.on_mark("spikes", Reset(0), lambda port, message: None)
        found: list[list[tuple[int, int]]] = [[] for _ in range(n_layers)]
        for phase in range(n_steps + n_layers):
            items = []
            if phase < n_steps:
                items = [(phase * PHASE_US + anywhere * int(rng.integers(PHASE_US)), i) for i in lines(phase)]
            got = network.run(np.array(sorted(items), SPIKE_DTYPE), None if anywhere and items else phase * PHASE_US)
            for k in range(n_layers):
                found[k] += [(int(t) // PHASE_US - 1 - k, int(j)) for t, j in got[f"l{k}"].tolist()]
                if not anywhere and 0 <= phase - k < n_steps:
                    assert network.potentials(f"l{k}") == pytest.approx(u[k][phase - k], rel=1e-12, abs=1e-13)
        for k in range(n_layers):
            assert [spike for spike in found[k] if spike[0] < n_steps] == want[k]
