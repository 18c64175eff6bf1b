"""Leaky integrate-and-fire layer, dense, driven event by event.

Equations
---------
Between events, and at an event of input i::

    tau_mem dv/dt = -v                             leak: v <- v * exp(-dt / tau_mem), exact for any gap
    u_j = v_j + weight[i, j]                       delta synapse: the event is a jump
    s_j = 1 if u_j > v_threshold else 0            strict threshold
    v_j = u_j - v_threshold * s_j                  soft reset: what was above the threshold is kept

A unit fires at most once for an event, however large the weight.

Every event reaches every unit, so one time serves the whole layer and the leak costs one exponential an event. It is
computed in float64 and rounded once. The road not taken, letting the potentials stand and scaling the incoming
weights by a growing exp(t / tau), saves a multiplication per unit but needs rescaling before it overflows, and no
longer gives the same bits when the stream starts at another time.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.encode import check_events, n_input_units, read_only, unit_of
from stream.errors import ConfigError
from stream.jit import kernel
from stream.lanes import above_16, above_64, lowest_bit
from stream.packet import SPIKE_DTYPE

__all__ = [
    "LIF",
    "LIFParams",
    "LIFState",
    "LIFUnits",
    "leak",
    "leak_add",
    "lif_fire",
    "lif_jump",
    "lif_run",
    "next_above",
]


class LIFUnits(NamedTuple):
    """What a population of a network is (``neurons.graph``); numbers, or one for each unit."""

    tau_mem_us: float | NDArray[Any] = 20_000.0
    v_threshold: float | NDArray[Any] = 1.0
    v_leak: float | NDArray[Any] = (
        0.0  # where the membrane rests without input; above the threshold: it fires by itself
    )
    v_reset: float | NDArray[Any] = 0.0
    reset: Literal["soft", "hard"] = "soft"  # soft: v <- v - (v_threshold - v_reset);  hard: v <- v_reset
    refractory_us: int = 0  # after a spike v stands still and input is lost


class LIFParams(NamedTuple):
    """What a layer is."""

    weight: NDArray[Any]  # real, shape (n_pre, n_post)
    tau_mem_us: NDArray[Any]  # real, shape (1,)
    v_threshold: NDArray[Any]  # real, shape (1,)


class LIFState(NamedTuple):
    """Where a layer stands."""

    v: NDArray[Any]  # real, shape (n_post,): membrane potentials right after ``t_us``
    t_us: NDArray[np.int64]  # int64, shape (1,): the time of ``v``


@kernel
def lif_jump(v: Any, weight: Any, pre: int, decay: float) -> None:
    """Leak, then add the row of input ``pre``: afterwards ``v`` holds the potentials before a possible reset.

    Potentials below 1e-30 become 0. Left alone they would sink into the denormal numbers, stay there (rounding stops
    the decay), and make every later multiplication about a hundred times slower.
    """
    real = v.dtype.type
    factor, tiny, zero = real(decay), real(1e-30), real(0)
    for j in range(len(v)):
        u = v[j] * factor + weight[pre, j]
        v[j] = u if abs(u) > tiny else zero


@kernel
def lif_fire(v: Any, threshold: float, fired: Any) -> int:
    """Reset what is above the threshold; write the units that fired, ascending, and return how many.

    Firing is rare, so a first pass without branches only asks whether there is anything to do.
    """
    real = v.dtype.type
    theta = real(threshold)
    anyone = False  # a bool, not a count: 32 lanes a comparison instead of 4
    for j in range(len(v)):
        anyone |= v[j] > theta
    n_fired = 0
    if anyone:
        for j in range(len(v)):
            if v[j] > theta:
                v[j] -= theta
                fired[n_fired] = j
                n_fired += 1
    return n_fired


@kernel
def leak(v: Any, first: int, last: int, factor: float) -> None:
    """Let ``v[first:last]`` leak; no denormals."""
    real = v.dtype.type
    decay, tiny, zero = real(factor), real(1e-30), real(0)
    here = v[first:last]
    for j in range(len(here)):
        u = here[j] * decay
        here[j] = u if abs(u) > tiny else zero


@kernel
def leak_add(v: Any, first: int, last: int, factor: float, weight: Any, at: int, threshold: float) -> bool:
    """Leak, add weights and test, in one pass over memory. Denormals are the caller's business.

    Parameters
    ----------
    v
        real, shape (n_all,): potentials of all populations. ``v[first:last]`` is written to.
    factor
        What is left of a potential.
    weight, at
        real, shape (n_weights,): ``weight[at]`` belongs to unit ``first``.
    threshold
        Of all these units.

    Returns
    -------
    bool
        Whether any unit is above the threshold.
    """
    real = v.dtype.type
    decay, theta = real(factor), real(threshold)
    here, row = v[first:last], weight[at : at + last - first]
    anyone = False
    for j in range(len(here)):
        u = here[j] * decay + row[j]
        here[j] = u
        anyone |= u > theta
    return anyone


@kernel
def next_above(v: Any, first: int, last: int, threshold: float) -> Any:
    """Find the first unit of ``v[first:last]`` above the threshold; ``last`` if there is none."""
    theta = v.dtype.type(threshold)
    j: Any = np.int64(first)
    while j + 64 <= last:
        mask: Any = above_64(v, j, theta)
        if mask != 0:
            return j + lowest_bit(mask)
        j += 64
    while j + 16 <= last:
        mask = above_16(v, j, theta)
        if mask != 0:
            return j + lowest_bit(mask)
        j += 16
    while j < last and not v[j] > theta:
        j += 1
    return j


@kernel
def lif_run(
    params: LIFParams, state: LIFState, events: Any, first: int, width: int, fired: Any, spikes: Any
) -> tuple[int, int]:
    """Run through ``events[first:]`` until the events or the room for spikes run out.

    Parameters
    ----------
    params, state
        ``state`` is written to.
    events
        EVENT_DTYPE, shape (n,), read-only.
    first
        Where to begin.
    width
        Sensor's width, pixels.
    fired
        int64, shape (n_post,). Scratch.
    spikes
        SPIKE_DTYPE, shape (at least n_post,). Output.

    Returns
    -------
    k, n_spikes
        The first event not yet handled (``len(events)`` when through) and the count of spikes written.
    """
    tau_us = np.float64(params.tau_mem_us[0])
    threshold = params.v_threshold[0]
    n_spikes = 0
    for k in range(first, len(events)):
        if n_spikes + len(state.v) > len(spikes):
            return k, n_spikes
        event = events[k]
        t = np.int64(event["t"])
        decay = math.exp(-np.float64(t - state.t_us[0]) / tau_us)
        state.t_us[0] = t
        lif_jump(state.v, params.weight, unit_of(event, width), decay)
        n_fired = lif_fire(state.v, threshold, fired)
        for f in range(n_fired):
            spikes[n_spikes]["t"] = t
            spikes[n_spikes]["unit"] = fired[f]
            n_spikes += 1
    return len(events), n_spikes


class LIF:
    """A dense layer of leaky integrate-and-fire units on a sensor.

    Parameters
    ----------
    weight
        Shape (width * height * 2, n_post); row order as in ``neurons.encode``. Taken over as a float32 copy.
    width, height
        Sensor's size, pixels.
    tau_mem_us
        Membrane time constant, us.
    v_threshold
        Firing threshold, in units of the weights.

    Raises
    ------
    ConfigError
        If the weights do not fit the sensor, or a constant is not positive.
    """

    def __init__(
        self, weight: NDArray[Any], *, width: int, height: int, tau_mem_us: float = 20_000.0, v_threshold: float = 1.0
    ) -> None:
        if weight.ndim != 2 or len(weight) != n_input_units(width, height):
            raise ConfigError(
                f"LIF weight: got shape {weight.shape}, wanted ({n_input_units(width, height)}, n_post) for a sensor "
                f"of {width}x{height} pixels and two polarities; check width and height"
            )
        for name, value in (("tau_mem_us", tau_mem_us), ("v_threshold", v_threshold)):
            if not value > 0:
                raise ConfigError(f"LIF {name}: got {value}, wanted a number above 0")
        self.width, self.height = width, height
        self.params = LIFParams(
            np.array(weight, np.float32, order="C"),
            np.array([tau_mem_us], np.float32),
            np.array([v_threshold], np.float32),
        )
        n_post = weight.shape[1]
        self.state = LIFState(np.zeros(n_post, np.float32), np.zeros(1, np.int64))
        self._fired = np.zeros(n_post, np.int64)
        self._buffer = np.zeros(max(4 * n_post, 4096), SPIKE_DTYPE)

    def reset(self, t_us: int) -> None:
        """Put the membranes to rest at ``t_us``."""
        self.state.v.fill(0)
        self.state.t_us[0] = t_us

    def run(self, events: NDArray[np.void]) -> NDArray[np.void]:
        """Take in events and return the spikes they caused.

        Parameters
        ----------
        events
            EVENT_DTYPE, shape (n,), sorted by ``t``, not earlier than the last ones.

        Returns
        -------
        spikes
            SPIKE_DTYPE, shape (n_spikes,), sorted by ``t``, units of one event ascending.

        Raises
        ------
        StreamError
            If an event lies outside the sensor or goes back in time; the state is then as before the call.
        """
        events = read_only(events)
        last_t_us = int(self.state.t_us[0]) if self.state.v.any() else np.iinfo(np.int64).min
        check_events("LIF", events, self.width, self.height, int(last_t_us))
        parts = []
        k = 0
        while k < len(events):
            k, n_spikes = lif_run(self.params, self.state, events, k, self.width, self._fired, self._buffer)
            parts.append(self._buffer[:n_spikes].copy())
        return np.concatenate(parts) if parts else np.zeros(0, SPIKE_DTYPE)
