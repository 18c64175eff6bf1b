"""Discipline ``phase`` gives the T-step equations of Wu et al., as their authors coded them, to float rounding.

For layers l and steps t = 0 ... T - 1, u and s beginning at 0 (without the local rule, so the weights stand still)::

    k_t = exp(-t / tau_w)                        counts from the onset of the stimulus, in every layer
    I_t = (k_t x_t) W + b                        x_t: pixels, or this step's spikes of the layer below
    u_t = decay (u_{t-1} - thr s_{t-1}) + I_t    soft reset, one step later, then leak
    s_t = 1 if u_t > thr else 0                  strict

What corresponds:

- ``phase_us`` is a step, ``decay = exp(-phase_us / tau_mem_us)``. A row that arrives in a phase is added to a potential
  that leaked to its begin, and a reset at its end leaks into the next one: the same order of leak, reset and sum.
- There all layers run within a step; here a spike is delivered into the next phase. So step t of layer l (from 0) is
  phase t + l. Without feedback nothing else changes: a layer's input comes l phases later, all of it.
- k_t is ``Fade(tau_w * phase_us, l * phase_us)`` of the projection to layer l.
- A pixel of 8 bits is eight input lines, one for each bit, with weights ``2^bit / 255 W[i]``: those of the bits that
  are set fire in every step. A bias is one line that fires in every phase, through a projection to layer l that is
  delayed by l phases and does not fade.
- The next stimulus begins at a ``Reset`` mark.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.lif import LIFUnits
from neurons.network import Network
from stream.packet import SPIKE_DTYPE, Reset

THR, DECAY, PHASE_US = 0.35, 0.4, 1000
BITS = 8

Steps = list[list[np.ndarray]]


def discrete(x: np.ndarray, weights: list[np.ndarray], bias: list[np.ndarray], tau_w: float) -> tuple[Steps, Steps]:
    """Run the equations; x: float64, shape (T, n_in). Returns u and s by layer and step."""
    u = [[np.zeros(len(b))] for b in bias]
    s = [[np.zeros(len(b))] for b in bias]
    for t, x_t in enumerate(x):
        k_t = math.exp(-t / tau_w)
        below = x_t
        for k, (weight, b) in enumerate(zip(weights, bias, strict=True)):
            u[k].append(DECAY * (u[k][-1] - THR * s[k][-1]) + (k_t * below) @ weight + b)
            s[k].append((u[k][-1] > THR).astype(float))
            below = s[k][-1]
    return [steps[1:] for steps in u], [steps[1:] for steps in s]


def network_of(weights: list[np.ndarray], bias: list[np.ndarray], tau_w: float, n_bits: int) -> Network:
    """Build what the equations describe; input lines are (bit, pixel), and the last one is the bias."""
    of_bits = [2.0**bit / (2**n_bits - 1) * weights[0] for bit in range(n_bits)]
    n_lines = n_bits * len(weights[0]) + 1
    populations, projections = [], []
    for k, b in enumerate(bias):
        name = f"l{k}"
        populations.append(Population(name, LIFUnits(-PHASE_US / math.log(DECAY), THR), (len(b),)))
        fade = None if math.isinf(tau_w) else Fade(tau_w * PHASE_US, k * PHASE_US)
        if k == 0:
            rows = np.vstack([*of_bits, np.zeros(len(b))])
            projections.append(Projection(INPUT, name, Dense(rows), fade=fade))
        else:
            projections.append(Projection(f"l{k - 1}", name, Dense(weights[k]), fade=fade))
        rows = np.vstack([np.zeros((n_lines - 1, len(b))), b])
        projections.append(Projection(INPUT, name, Dense(rows), k * PHASE_US))
    graph = Graph((n_lines,), populations, projections)
    return Network.of(graph, discipline="phase", phase_us=PHASE_US, precision="float64")


@pytest.mark.parametrize("sizes", [(20, 12), (24, 16, 10), (16, 14, 12, 6)])
@pytest.mark.parametrize("coding", ["binary", "analog"])
@pytest.mark.parametrize("tau_w", [math.inf, 40.0, 6.0])
@pytest.mark.parametrize("seed", range(2))
def test_phases_are_the_authors_equations(sizes: tuple[int, ...], coding: str, tau_w: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_steps, n_in, n_layers = 25, sizes[0], len(sizes) - 1
    # as a linear layer is begun, a little to the exciting side so that the last layer fires too
    weights = [
        rng.uniform(-1, 1, (n_pre, n_post)) / math.sqrt(n_pre) + 0.8 / n_pre
        for n_pre, n_post in itertools.pairwise(sizes)
    ]
    bias = [rng.uniform(-0.1, 0.1, n) for n in sizes[1:]]
    network = network_of(weights, bias, tau_w, BITS if coding == "analog" else 1)
    begin_us = 0
    for stimulus in range(2):
        if coding == "binary":
            x = (rng.random((n_steps, n_in)) < 0.3).astype(float)
            lines = [np.flatnonzero(step) for step in x]
        else:  # the same picture in every step
            picture = rng.integers(0, 2**BITS, n_in)
            x = np.tile(picture / (2**BITS - 1), (n_steps, 1))
            lines = [np.flatnonzero(picture >> np.arange(BITS)[:, None] & 1)] * n_steps
        u, s = discrete(x, weights, bias, tau_w)
        assert min(np.abs(np.array(layer) - THR).min() for layer in u) > 1e-9
        want = [[(t, int(j)) for t in range(n_steps) for j in np.flatnonzero(s[k][t])] for k in range(n_layers)]
        assert all(len(fired) > 0 for fired in want)
        assert sum(len(fired) for fired in want) < 0.95 * n_steps * sum(sizes[1:])
        # rows come at the begin of their phase, or anywhere in it
        begin_us = check(network, begin_us, lines, rng if stimulus else None, u, want)


def check(network: Network, begin_us: int, lines: Any, rng: Any, u: Steps, want: list[list[tuple[int, int]]]) -> int:
    """Show a stimulus and compare; returns when the next one may begin. ``rng``: draws when lines fire in a phase."""
    n_steps, n_layers = len(u[0]), len(u)
    n_lines = network._n_inputs
    network.on_mark("spikes", Reset(begin_us), lambda port, message: None)
    found: list[list[tuple[int, int]]] = [[] for _ in range(n_layers)]
    for phase in range(n_steps + n_layers):
        now_us = begin_us + phase * PHASE_US
        items = []
        if phase < n_steps:
            at_us = now_us + (0 if rng is None else int(rng.integers(PHASE_US)))
            items = [(at_us, int(i)) for i in [*lines[phase], n_lines - 1]]
        got = network.run(np.array(items, SPIKE_DTYPE), None if rng is not None and items else now_us)
        for k in range(n_layers):
            found[k] += [((int(t) - begin_us) // PHASE_US - 1 - k, int(j)) for t, j in got[f"l{k}"].tolist()]
            if rng is None and 0 <= phase - k < n_steps:
                assert network.potentials(f"l{k}") == pytest.approx(u[k][phase - k], rel=1e-12, abs=1e-13)
    for k in range(n_layers):
        assert [spike for spike in found[k] if spike[0] < n_steps] == want[k]
    return begin_us + (n_steps + n_layers) * PHASE_US
