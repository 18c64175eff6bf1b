"""What a recorded stream does to a float network in phases: currents, potentials, spikes, values. For calibration.

Equations
---------
Those of ``neurons.network`` with discipline ``phase``, one step a phase, for many recordings at once::

    u_q(k) = sum over projections  weight^T x_p(k - 1 - delay)             from the input: of phase k itself
    v(k)   = decay * reset(v(k - 1)) + drive + u(k);   fires if v > v_threshold

Readouts (leaky integrators) are read after they leaked, as on the chip. Artificial units (``neurons.activation``) make
a value of u. Refractory units lose the phases that begin in their refractory time, while v stands still.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.activation import ActivationUnits, activation
from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.crossing import drift
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Shape, Topology, n_units, shape_of, unit_values
from neurons.inhibition import Inhibition
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import QuantisedDense, dense
from neurons.sparse import Sparse
from neurons.threshold import ThresholdUnits
from stream.errors import ConfigError

__all__ = ["Observed", "answers", "apply", "in_phases", "observe"]

MOST_NUMBERS = 100_000_000  # kept of an observation; beyond it, fewer recordings are looked at


class Observed(NamedTuple):
    """What was seen. Arrays of shape (n_recordings, n_phases, n_units)."""

    current: dict[str, NDArray[np.float32]]  # u of each population
    sent: dict[str, NDArray[np.float32]]  # spikes (0, 1) or values, of each population and of ``input``
    is_there: NDArray[np.bool_]  # shape (n_recordings, n_phases): the recording has not ended yet

    @property
    def spikes_per_phase(self) -> dict[str, NDArray[np.float64]]:
        """Return the mean of what each unit sent in a phase."""
        n = max(int(self.is_there.sum()), 1)
        return {name: (sent * self.is_there[..., None]).sum((0, 1)) / n for name, sent in self.sent.items()}


def in_phases(recordings: Sequence[NDArray[np.void]], n_inputs: int, phase_us: int) -> list[NDArray[np.bool_]]:
    """Cut recordings in phases.

    Parameters
    ----------
    recordings
        SPIKE_DTYPE each: ``t``, us, sorted, and ``unit``, an input line. The first phase begins at the first item.
    n_inputs, phase_us
        Input lines; length of a phase.

    Returns
    -------
    list of bool, shape (n_phases, n_inputs)
        Which lines had anything; several in a phase count once, as on an axon.
    """
    cut = []
    for items in recordings:
        phase = (items["t"] - items["t"][0]) // phase_us if len(items) else np.zeros(0, np.int64)
        there = np.zeros((int(phase[-1]) + 1 if len(phase) else 1, n_inputs), bool)
        there[phase, items["unit"]] = True
        cut.append(there)
    return cut


def apply(topology: Topology, source: Shape, target: Shape, x: NDArray[Any]) -> NDArray[Any]:
    """Send what units sent through a topology.

    Parameters
    ----------
    topology, source, target
        Float or integer weights; shapes on both sides.
    x
        real, shape (n, n_pre).

    Returns
    -------
    real, shape (n, n_post)
    """
    n, n_post = len(x), n_units(target)
    out: NDArray[Any]
    match topology:
        case QuantisedDense():
            return apply(dense(topology), source, target, x)
        case Dense(weight):
            out = x @ np.asarray(weight, x.dtype)
            return out
        case OneToOne(weight):
            out = x * np.asarray(weight, x.dtype)
            return out
        case Inhibition(strength):
            out = (x - x.sum(axis=1, keepdims=True)) * x.dtype.type(strength)
            return out
        case Sparse(start, unit, weight):
            pre = np.repeat(np.arange(n_units(source)), np.diff(start))
            out = np.zeros((n_post, n), x.dtype)
            np.add.at(out, np.asarray(unit), (x[:, pre] * np.asarray(weight, x.dtype)).T)
            return out.T
    size = topology.size if isinstance(topology, Pooling) else np.shape(topology.weight)[:2]
    (pad_y, pad_x), (step_y, step_x) = topology.padding, topology.stride
    maps = np.pad(x.reshape(n, *source), [(0, 0), (pad_y, pad_y), (pad_x, pad_x), (0, 0)])
    out = np.zeros((n, *target), x.dtype)
    for ky in range(size[0]):
        for kx in range(size[1]):
            seen = maps[
                :, ky : ky + (target[0] - 1) * step_y + 1 : step_y, kx : kx + (target[1] - 1) * step_x + 1 : step_x
            ]
            if isinstance(topology, Pooling):
                out += seen * x.dtype.type(topology.weight)
                continue
            taps = np.asarray(topology.weight, x.dtype)[ky, kx]
            n_in, n_out = source[2] // topology.groups, target[2] // topology.groups
            for g in range(topology.groups):
                made = slice(g * n_out, (g + 1) * n_out)
                out[..., made] += seen[..., g * n_in : (g + 1) * n_in] @ taps[:, made]
    return out.reshape(n, n_post)


class _Units:
    """The state of a population in all recordings, shape (n_recordings, n)."""

    def __init__(self, name: str, model: Any, shape: Shape, n: int, phase_us: int) -> None:
        if isinstance(model, IzhikevichUnits):
            raise ConfigError(f"population '{name}': the chip has no Izhikevich neurons; use one of the other models")
        self.model, self.phase_us = model, phase_us

        def spread(word: str, default: float = 0.0) -> NDArray[np.float64]:
            return unit_values(getattr(model, word, default), shape)

        self.v = np.zeros((n, n_units(shape)))
        self.w = np.zeros_like(self.v)
        self.held = np.zeros(self.v.shape, np.int64)
        self.rest = spread("v_leak")
        self.threshold = spread("v_threshold", math.inf) - self.rest
        self.reset = spread("v_reset") - self.rest
        self.down = spread("v_threshold") - spread("v_reset")
        self.is_hard = getattr(model, "reset", "soft") == "hard"
        tau = spread("tau_mem_us", math.inf)
        self.decay = np.exp(-phase_us / tau)
        self.hold = -(-int(getattr(model, "refractory_us", 0)) // phase_us)
        self.drive = spread("drive_per_us") * phase_us
        if isinstance(model, CurrentLIFUnits):
            syn = spread("tau_syn_us")
            self.decay_w = np.exp(-phase_us / syn)
            self.gain = np.array([drift(0.0, 1.0, phase_us, float(m), float(s)) for m, s in zip(tau, syn, strict=True)])
        if isinstance(model, AdaptiveLIFUnits):
            self.decay_w = np.exp(-phase_us / spread("tau_adapt_us"))
            self.adaptation = spread("adaptation")

    def step(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take in a phase; return what is sent at its end."""
        model = self.model
        if isinstance(model, ActivationUnits):
            return activation(model.function, u + np.asarray(model.bias).reshape(-1))
        if isinstance(model, ThresholdUnits):
            return (u > self.threshold).astype(np.float64)
        if isinstance(model, LeakyIntegratorUnits):
            self.v = (self.v + u) * self.decay
            return self.v + self.rest
        free = self.held == 0
        before = self.w
        if isinstance(model, CurrentLIFUnits):
            self.v = np.where(free, self.v + self.gain * before, self.v)
            self.w = self.w * self.decay_w + u
        else:
            self.v = np.where(free, self.v + u, self.v)
        theta = self.threshold + self.w if isinstance(model, AdaptiveLIFUnits) else self.threshold
        fired = free & (self.v > theta)
        after = np.broadcast_to(self.reset, self.v.shape) if self.is_hard else self.v - self.down
        self.v = np.where(fired, after, self.v)
        self.held = np.where(fired, self.hold, np.maximum(self.held - 1, 0))
        self.v = np.where(self.held > 0, self.v, self.v * self.decay + self.drive)
        if isinstance(model, AdaptiveLIFUnits):
            self.w = (self.w + self.adaptation * fired) * self.decay_w
        spikes: NDArray[np.float64] = fired.astype(np.float64)
        return spikes


def observe(graph: Graph, phases: Sequence[NDArray[np.bool_]], phase_us: int) -> Observed:
    """Run a float network through recordings, phase by phase.

    Parameters
    ----------
    graph
        The network; its populations may be artificial units too.
    phases
        Of each recording: bool, shape (n_phases, n_inputs), see :func:`in_phases`. More than fit 100 million kept
        numbers are left out, from the end.
    phase_us
        Length of a phase, us.
    """
    n_all = n_units(graph.inputs) + 2 * sum(n_units(population.shape) for population in graph.populations)
    longest = max(len(recording) for recording in phases)
    phases = phases[: max(MOST_NUMBERS // (n_all * longest), 1)]
    n = len(phases)
    is_there = np.arange(longest) < np.array([len(recording) for recording in phases])[:, None]
    came = np.zeros((n, longest, n_units(graph.inputs)), np.float32)
    for r, recording in enumerate(phases):
        came[r, : len(recording)] = recording
    sent, current = {INPUT: came}, {}
    units = {}
    for population in graph.populations:
        shape = (n, longest, n_units(population.shape))
        sent[population.name], current[population.name] = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        units[population.name] = _Units(population.name, population.model, population.shape, n, phase_us)
    for k in range(longest):
        for projection in graph.projections:
            at = k - projection.delay_us // phase_us - (projection.source != INPUT)
            if at >= 0 and (x := sent[projection.source][:, at]).any():
                target = shape_of(graph, projection.target)
                current[projection.target][:, k] += apply(
                    projection.topology, shape_of(graph, projection.source), target, x
                )
        for name, unit in units.items():
            sent[name][:, k] = unit.step(current[name][:, k].astype(np.float64))
    return Observed(current, sent, is_there)


def answers(graph: Graph, phases: Sequence[NDArray[np.bool_]], phase_us: int, readout: str) -> NDArray[np.int64]:
    """Return the unit of a population with the largest mean of what it sent, for each recording: int64, shape (n,).

    Parameters
    ----------
    graph, phases, phase_us
        As for :func:`observe`; as many recordings as there are.
    readout
        The population.
    """
    found = np.zeros(0, np.int64)
    while len(found) < len(phases):
        seen = observe(graph, phases[len(found) :], phase_us)
        sent = (seen.sent[readout] * seen.is_there[..., None]).sum(axis=1)
        found = np.concatenate([found, np.argmax(sent, axis=1)])
    return found
