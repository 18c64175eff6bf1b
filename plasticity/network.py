"""Plastic hidden layer and linear readout, fused and run event by event.

Each hidden spike is at once an event of the readout, in ascending order of the units, before the next input event is
read. The readout is linear and does not spike, so nothing flows back from it within an event.

While it runs, the network may write a *tape*: for each event what the backward walk of ``plasticity.adjoint`` needs.
Writing it costs two row copies an event; the road not taken, replaying the window from its start when a correction is
due, costs a whole second forward pass.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.encode import unit_of
from neurons.lif import lif_fire, lif_jump
from neurons.readout import ReadoutParams, ReadoutState, readout_spike
from plasticity.layer import PlasticParams, PlasticState, hebb_decay, plastic_jump
from stream.jit import kernel

__all__ = ["NetworkParams", "NetworkState", "Tape", "network_run", "new_network", "new_state", "new_tape"]


class NetworkParams(NamedTuple):
    """What a network is."""

    hidden: PlasticParams
    readout: ReadoutParams


class NetworkState(NamedTuple):
    """Where a network stands."""

    hidden: PlasticState
    readout: ReadoutState


class Tape(NamedTuple):
    """What happened, event by event. 28 + 8 n_post bytes an event in float32 (28 + 4 n_post without plasticity)."""

    t_us: NDArray[np.int64]  # int64, shape (n_events,)
    unit: NDArray[np.int32]  # int32, shape (n_events,): the input that fired
    dt_v_us: NDArray[np.int64]  # int64, shape (n_events,): since the layer's last event
    dt_hebb_us: NDArray[np.int64]  # int64, shape (n_events,): since this input's last event
    u: NDArray[Any]  # real, shape (n_events, n_post): potentials before the reset
    hebb: NDArray[Any]  # real, shape as u, or (0, n_post): the input's row, decayed, before this event's change


def new_network(
    weight: NDArray[Any],
    readout_weight: NDArray[Any],
    *,
    mixing: float,
    local_rate: float,
    sliding_threshold: float,
    tau_hebb_us: float,
    tau_mem_us: float,
    tau_readout_us: float,
    v_threshold: float,
    hebb_max: float,
) -> NetworkParams:
    """Build parameters of the type of ``weight``, which are free to be changed in place.

    Parameters
    ----------
    weight
        float32 or float64, shape (n_pre, n_hidden).
    readout_weight
        Shape (n_hidden, n_classes).
    mixing, local_rate, sliding_threshold, tau_hebb_us, tau_mem_us, tau_readout_us, v_threshold, hebb_max
        See ``plasticity.layer`` and ``neurons.readout``; one number for all inputs and all units to begin with.
    """
    n_pre, n_hidden = weight.shape
    real = weight.dtype

    def one(value: float) -> NDArray[Any]:
        return np.full(1, value, real)

    return NetworkParams(
        PlasticParams(
            np.array(weight, order="C"),
            one(mixing),
            np.full(n_pre, local_rate, real),
            np.full(n_hidden, sliding_threshold, real),
            one(tau_hebb_us),
            one(tau_mem_us),
            one(v_threshold),
            one(hebb_max),
        ),
        ReadoutParams(np.array(readout_weight, real, order="C"), one(tau_readout_us)),
    )


def new_state(params: NetworkParams, *, is_plastic: bool) -> NetworkState:
    """Return a network at rest at time 0; without plasticity there is no table of hebb."""
    n_pre, n_hidden = params.hidden.weight.shape
    n_classes = params.readout.weight.shape[1]
    real = params.hidden.weight.dtype
    return NetworkState(
        PlasticState(
            np.zeros(n_hidden, real),
            np.zeros((n_pre if is_plastic else 0, n_hidden), real),
            np.zeros(1, np.int64),
            np.zeros(n_pre, np.int64),
        ),
        ReadoutState(np.zeros(n_classes, real), np.zeros(n_classes), np.zeros(1, np.int64)),
    )


def new_tape(params: NetworkParams, n_events: int, *, is_plastic: bool) -> Tape:
    """Return room for ``n_events``."""
    n_hidden = params.hidden.weight.shape[1]
    real = params.hidden.weight.dtype
    return Tape(
        np.zeros(n_events, np.int64),
        np.zeros(n_events, np.int32),
        np.zeros(n_events, np.int64),
        np.zeros(n_events, np.int64),
        np.zeros((n_events, n_hidden), real),
        np.zeros((n_events if is_plastic else 0, n_hidden), real),
    )


@kernel
def network_run(
    params: NetworkParams,
    state: NetworkState,
    is_plastic: bool,
    events: Any,
    first: int,
    until_us: int,
    width: int,
    tape: Tape,
    n_taped: int,
    is_taping: bool,
    fired: Any,
    spikes: Any,
) -> tuple[int, int, int]:
    """Run through ``events[first:]``.

    Stops where the events end, at the first event at or after ``until_us``, before a full tape, or where the spikes
    of one more event might not find room.

    Parameters
    ----------
    params, state
        ``state`` is written to.
    is_plastic
        False: hebb is taken as 0 and not touched (``neurons.lif`` with a readout).
    events
        EVENT_DTYPE, shape (n,), read-only.
    first
        Where to begin.
    until_us
        Time at which to stop, us.
    width
        Sensor's width, pixels.
    tape, n_taped, is_taping
        Where to write from row ``n_taped`` on, if ``is_taping``.
    fired
        int64, shape (n_hidden,). Scratch.
    spikes
        SPIKE_DTYPE, shape (at least n_hidden,). Output.

    Returns
    -------
    k, n_spikes, n_taped
        The first event not yet handled, the count of spikes written, the rows of the tape in use.
    """
    hidden, readout = state
    n_hidden = len(hidden.v)
    tau_v_us = np.float64(params.hidden.tau_mem_us[0])
    tau_h_us = np.float64(params.hidden.tau_hebb_us[0])
    theta = params.hidden.v_threshold[0]
    n_spikes = 0
    for k in range(first, len(events)):
        event = events[k]
        t: Any = np.int64(event["t"])
        if t >= until_us or n_spikes + n_hidden > len(spikes) or (is_taping and n_taped == len(tape.t_us)):
            return k, n_spikes, n_taped
        pre = unit_of(event, width)
        dt_v_us = t - hidden.t_us[0]
        dt_h_us = t - hidden.t_hebb_us[pre]
        hidden.t_us[0] = t
        hidden.t_hebb_us[pre] = t
        decay_v = math.exp(-np.float64(dt_v_us) / tau_v_us)
        if is_plastic:
            decay_h = math.exp(-np.float64(dt_h_us) / tau_h_us)
            if is_taping:
                hebb_decay(hidden.hebb, pre, decay_h, tape.hebb, n_taped)
                decay_h = 1.0  # done; a product with 1 is exact, so a tape changes no bits
            plastic_jump(params.hidden, hidden, pre, decay_v, decay_h)
        else:
            lif_jump(hidden.v, params.hidden.weight, pre, decay_v)
        if is_taping:
            tape.t_us[n_taped] = t
            tape.unit[n_taped] = pre
            tape.dt_v_us[n_taped] = dt_v_us
            tape.dt_hebb_us[n_taped] = dt_h_us
            for j in range(n_hidden):
                tape.u[n_taped, j] = hidden.v[j]
            n_taped += 1
        n_fired = lif_fire(hidden.v, theta, fired)
        for f in range(n_fired):
            j = fired[f]
            readout_spike(params.readout, readout, j, t)
            spikes[n_spikes]["t"] = t
            spikes[n_spikes]["unit"] = j
            n_spikes += 1
    return len(events), n_spikes, n_taped
