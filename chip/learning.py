"""Local plasticity beside the cores: an emulated co-design, not a feature of the chip.

Nothing public says that a core of this family learns. So here the cores do what they can, add up weights, and the host
does the rest, in integers, between two phases: it weighs the terminals of the input lines, keeps the fast change h of
the first layer, and writes rows of it into cores of their own. Everything that it reads and writes is counted.

Where what stands
-----------------
One group of cores holds w, as ever. With the Hebbian rule a second one of the same size holds h, gets the same packets,
and sends its sums to the same membranes: two links from the input to layer 0, and two independent sums. A row of h is
written before the phase that reads it, and only if a weight of it has changed.

Equations
---------
Numbers stand in 16 bits of fraction, ONE = 65536. ``left(n, tau)`` is what n phases leave of ONE: the product, floored
after each factor, of round(ONE * exp(-2^b * phase_us / tau)) over the bits b of n. So no gap is too long, and none
costs more than 32 multiplications. ``>>`` floors, and half is what makes it round.

Terminals of input i (:mod:`plasticity.short_term`), at each of its events, n phases after its last one (0: the same)::

    r <- ONE - ((ONE - r) * left(n, tau_rec) >> 16)     f <- f_rest + ((f - f_rest) * left(n, tau_fac) >> 16)
    amount += r * f >> 16
    r <- r - (r * depletion >> 16)                      f <- f + ((ONE - f) * f_step >> 16)
    a  = min(amount + half >> 16 - AMPLITUDE_BITS, 127)     goes to the chip at the phase's end; 0 is not sent

Without terminals a = 1, a spike, however many events there were. With them threshold and potentials of layer 0 are
2^AMPLITUDE_BITS times as large as without.

Hebbian rule (:mod:`plasticity.hebbian`, the form ``add`` with ``tanh``); H is mixing * h, in weights of the cores, with
8 bits of fraction; theta the threshold, v and s potential and spike as they stand after the phase in which the event's
weights reached the membrane::

    H[i,:] <- H[i,:] * left(n, tau_hebb) + half >> 16                 before a phase in which i is active, n phases
    core   <- clamp(H[i,:] + half >> 8, -127, 127)                        after the one before
    z_j     = table[clamp((v_j + theta * s_j >> shift) - eta_j, -128, 127)]            after it
    H[i,:] <- clamp(H[i,:] + (a * rate_i * z_j + half >> 23 + AMPLITUDE_BITS), -H_max, H_max)

    rate_i = round(256 * G * local_rate_i)    G = 256 * mixing * scale of w    H_max = min(round(|G| h_max), 127 * 256)
    table  = round(32767 * tanh((k + 1/2) * 2^shift / theta))    eta_j = round(sliding_threshold_j * theta / 2^shift)

``shift`` is the least with which a clamped index is 4 thresholds or more away from 0.

What differs from the float rule, which runs at every event: time is cut in phases; the potential is read after its
leak (and the threshold of a spike put back); where sums travel from core to core an update comes one phase later; and
the numbers are rounded.

The road not taken is a second core for each membrane that sends potentials to a core with the table, which would leave
the host nothing but the product: 200 potentials would cross the mesh in every phase in which anything happens.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program
from chip.grid import GridState, give_input, run_phases
from chip.network import INPUT_LAYER, Link, QuantisedNetwork
from chip.profile import Profile
from chip.program import GridProgram, neurons_of
from chip.quantise import QuantisedLayer, chain
from neurons.dense import Dense
from neurons.graph import Shape
from stream.errors import CapacityError, ConfigError
from stream.jit import inline_kernel, kernel

__all__ = [
    "AMPLITUDE_BITS",
    "LEARNING_DTYPE",
    "ONE",
    "Host",
    "Learner",
    "LearnerState",
    "LocalRule",
    "clear_host",
    "held_rows",
    "learning_network",
    "local_rule",
    "new_host",
    "rewritten",
    "run_learning_phases",
]

ONE = 1 << 16
AMPLITUDE_BITS = 6
MOST = 127  # largest amplitude, and weight
TAU_BITS = 32  # gaps of up to 2^32 phases decay, longer ones leave nothing
TERMINAL_FIELDS = 5  # depletion, tau_rec_us, f_rest, f_step, tau_fac_us

NUMBER_DTYPE = np.dtype(
    [
        (field, "<i8")
        for field in (
            "has_terminals",
            "has_fast",
            "latency",  # phases between the one that takes an event in and the one that moves the membrane
            "threshold",
            "shift",
            "fast_max",
            "first_watched",  # number by which the first unit's spikes are reported
        )
    ]
)
LEARNING_DTYPE = np.dtype(
    [
        (field, "<i8")
        for field in (
            "now",  # phases run, resets or not
            "n_waiting",  # lines with an amount for the phase that runs next
            "weak",  # amounts that were rounded to nothing
            "rows_written",
            "bytes_written",
            "bytes_read",
            "updates",  # synapses that the rule was applied to
        )
    ]
)


class LocalRule(NamedTuple):
    """What a ``Deploy`` mark says of the first layer's local plasticity, as trained."""

    terminal: NDArray[np.float64]  # shape (n_pre, 5), the fields of ``ShortTerm``; (0, 5): none
    local_rate: NDArray[np.float64]  # shape (n_pre,); (0,): no Hebbian rule
    sliding_threshold: NDArray[np.float64]  # shape (n_post,)
    hebb: NDArray[np.float64]  # shape (3,): mixing, tau_hebb_us, hebb_max


class Learner(NamedTuple):
    """The rule in integers, and where on the chip what it needs stands."""

    number: NDArray[np.void]  # NUMBER_DTYPE, shape (1,)
    terminal: NDArray[np.int64]  # shape (n_pre or 0, 3): depletion, f_rest, f_step
    left_rec: NDArray[np.int64]  # shape (n_pre or 0, 32): what 2^b phases leave
    left_fac: NDArray[np.int64]
    rate: NDArray[np.int64]  # shape (n_pre or 0,)
    sliding: NDArray[np.int64]  # shape (n_post or 0,)
    left_fast: NDArray[np.int64]  # shape (1, 32)
    table: NDArray[np.int64]  # shape (256,): z of -128 to 127
    group: NDArray[np.int64]  # shape (n_groups, 2): units of layer 0 whose rows stand on a core of their own
    place: NDArray[np.int64]  # shape (n_groups, n_pre, 2): core and axon of each row of h
    potential: NDArray[np.int64]  # shape (n_post,): where in ``GridState.soma.v``


class LearnerState(NamedTuple):
    """What the host remembers."""

    terminal: NDArray[np.int64]  # shape (n_pre or 0, 2): r and f
    terminal_phase: NDArray[np.int64]  # shape (n_pre,): of the last event
    fast: NDArray[np.int32]  # shape (n_pre or 0, n_post): H
    fast_phase: NDArray[np.int64]  # shape (n_pre,): that it is of
    amount: NDArray[np.int64]  # shape (n_pre,): of the phase that runs next
    waiting: NDArray[np.int32]  # shape (n_pre,): lines that have one, in order of arrival
    seen: NDArray[np.int32]  # shape (2, n_pre): lines that were active in the last phases
    seen_amplitude: NDArray[np.int32]  # shape (2, n_pre)
    n_seen: NDArray[np.int64]  # shape (2,)
    counts: NDArray[np.void]  # LEARNING_DTYPE, shape (1,)
    sent: NDArray[np.int32]  # scratch, shape (n_pre,)
    z: NDArray[np.int64]  # scratch, shape (n_post,)


class Host(NamedTuple):
    """What stands beside the chip."""

    learner: Learner
    state: LearnerState
    per_unit: float  # integers of H for one of h


# -- from a mark to integers -------------------------------------------------------------------------------------------


def local_rule(arrays: Mapping[str, NDArray[Any]]) -> LocalRule | None:
    """Read the local rule of a ``Deploy`` mark; None if it has none.

    Parameters
    ----------
    arrays
        ``layer0.terminal`` float64 (n_pre, 5); ``layer0.local_rate`` float64 (n_pre,), ``layer0.sliding_threshold``
        float64 (n_post,) and ``layer0.hebb`` float64 (3,): mixing, tau_hebb_us, hebb_max.

    Raises
    ------
    ConfigError
        If a number is not what it should be, or another layer than the first has a rule.
    """
    names = ("terminal", "local_rate", "sliding_threshold", "hebb")
    strange = [name for name in arrays if name.split(".")[-1] in names and not name.startswith("layer0.")]
    if strange:
        raise ConfigError(
            f"{strange[0]}: local plasticity of a layer that the chip's host does not feed; wanted layer0"
        )
    n_pre, n_post = np.shape(arrays["layer0.weight"])
    given = {name: np.asarray(arrays[f"layer0.{name}"], np.float64) for name in names if f"layer0.{name}" in arrays}
    if not given:
        return None
    hebbian = set(given) - {"terminal"}
    if hebbian and len(hebbian) != 3:
        raise ConfigError(f"layer0: got {', '.join(sorted(hebbian))}, wanted local_rate, sliding_threshold and hebb")
    empty = np.zeros(0)
    rule = LocalRule(
        given.get("terminal", np.zeros((0, TERMINAL_FIELDS))),
        given.get("local_rate", empty),
        given.get("sliding_threshold", empty),
        given.get("hebb", empty),
    )
    wanted = {"terminal": (n_pre, 5), "local_rate": (n_pre,), "sliding_threshold": (n_post,), "hebb": (3,)}
    for name, array in given.items():
        if array.shape != wanted[name] or np.isnan(array).any():
            raise ConfigError(f"layer0.{name}: shape {array.shape}, wanted numbers of shape {wanted[name]}")
    times = [*rule.terminal[:, 1], *rule.terminal[:, 4], *rule.hebb[1:2]]
    if times and not min(times) > 0:
        raise ConfigError(f"layer0: a time constant of {min(times)} us in a local rule, wanted above 0")
    shares = rule.terminal[:, [0, 2, 3]]
    if shares.size and not (shares.min() >= 0 and shares.max() <= 1):
        raise ConfigError(
            f"layer0.terminal: depletion, f_rest and f_step go from {shares.min():g} to {shares.max():g}, wanted 0 to 1"
        )
    if len(rule.hebb) and not rule.hebb[2] > 0:
        raise ConfigError(f"layer0.hebb: hebb_max {rule.hebb[2]}, wanted above 0")
    return rule


def learning_network(
    layers: Sequence[QuantisedLayer],
    rule: LocalRule,
    profile: Profile,
    inputs: Shape | None = None,
    held: NDArray[np.int8] | None = None,
) -> QuantisedNetwork:
    """Make a network of dense layers whose first one has room for what the rule needs.

    Parameters
    ----------
    layers, rule, profile, inputs
        The chain; the first layer's rule; the chip; shape of the input, if not a row.
    held
        Rows of h that stand on the cores, int8, as the first layer's weights; default zeros.

    Raises
    ------
    CapacityError
        If the first layer's threshold does not fit a membrane any more.
    """
    network = chain(layers, profile, inputs)
    if len(rule.terminal):
        first = network.layers[0]
        threshold, top = first.soma.v_threshold << AMPLITUDE_BITS, (1 << (profile.membrane_bits.value - 1)) - 1
        if threshold > top:
            raise CapacityError(
                f"{first.name}: threshold {threshold} with amplitudes of {AMPLITUDE_BITS} bits, {profile.name} holds "
                f"up to {top}; the weights are far too small for it"
            )
        network.layers[0] = first._replace(
            soma=first.soma._replace(v_threshold=threshold), scale=first.scale * (1 << AMPLITUDE_BITS)
        )
        network = network._replace(input_values=True)
    if len(rule.local_rate):
        rows = np.zeros(layers[0].weight.shape, np.int8) if held is None else held
        network.links.append(Link(INPUT_LAYER, 0, Dense(rows)))
    return network


def _left(tau_us: NDArray[np.float64], phase_us: int) -> NDArray[np.int64]:
    """Tabulate what 1, 2, 4, ... phases leave of ONE, shape (n, 32)."""
    gap_us = phase_us * 2.0 ** np.arange(TAU_BITS)
    left: NDArray[np.int64] = np.rint(ONE * np.exp(-gap_us / tau_us[:, None])).astype(np.int64)
    return left


def _scale(layer: QuantisedLayer, rule: LocalRule) -> float:
    """Return G: integers of H for one of h."""
    return 256.0 * float(rule.hebb[0]) * layer.scale


def _learner_of(program: Program, layer: QuantisedLayer, rule: LocalRule, phase_us: int) -> Learner:
    """Bring a rule to integers.

    Parameters
    ----------
    program
        Compiled from what :func:`learning_network` made.
    layer
        The first layer, quantised.
    rule, phase_us
        The rule as trained; length of a phase, us.

    Raises
    ------
    ConfigError
        If a rate does not fit (the update of a synapse is computed in 64 bits), or the spikes of the layer are not
        reported: it has to be the last before the readout.
    """
    n_pre, n_post = layer.weight.shape
    network = program.network
    number = np.zeros(1, NUMBER_DTYPE)
    number["has_terminals"], number["has_fast"] = len(rule.terminal) > 0, len(rule.local_rate) > 0
    threshold = network.layers[0].soma.v_threshold
    number["latency"], number["threshold"] = program.offsets[0], threshold
    terminal = np.rint(rule.terminal[:, [0, 2, 3]] * ONE).astype(np.int64)
    empty = np.zeros(0, np.int64)
    learner = Learner(
        number,
        np.ascontiguousarray(terminal),
        _left(rule.terminal[:, 1], phase_us),
        _left(rule.terminal[:, 4], phase_us),
        empty,
        empty,
        np.zeros((1, TAU_BITS), np.int64),
        np.zeros(256, np.int64),
        np.zeros((0, 2), np.int64),
        np.zeros((0, n_pre, 2), np.int64),
        _potentials(program, n_post),
    )
    if not len(rule.local_rate):
        return learner
    per_unit = _scale(layer, rule)
    shift = max(0, math.ceil(math.log2(max(4 * threshold, 1) / MOST)))
    number["shift"] = shift
    number["fast_max"] = round(min(abs(per_unit) * float(rule.hebb[2]), MOST * 256.0))
    if network.layers[0].name not in program.watched:
        raise ConfigError(
            f"{network.layers[0].name}: a Hebbian rule on the chip wants its layer to be the last before the readout, "
            f"got {len(network.layers)} layers"
        )
    number["first_watched"] = program.watched[network.layers[0].name].start
    rate = np.rint(256.0 * per_unit * rule.local_rate)
    if not np.abs(rate).max(initial=0.0) < 2.0**40:
        raise ConfigError(f"layer0.local_rate: up to {np.abs(rule.local_rate).max():g} in size, far too fast a rule")
    step = 2.0**shift / max(threshold, 1)
    table = np.rint(32767 * np.tanh((np.arange(-128, 128) + 0.5) * step)).astype(np.int64)
    sliding = np.clip(np.rint(rule.sliding_threshold / step), -(2**30), 2**30).astype(np.int64)
    group, place = _places(program, n_pre)
    return learner._replace(
        rate=rate.astype(np.int64),
        sliding=sliding,
        left_fast=_left(rule.hebb[1:2], phase_us),
        table=table,
        group=group,
        place=place,
    )


def _potentials(program: Program, n_post: int) -> NDArray[np.int64]:
    """Find the potentials of the first layer's units."""
    at = np.zeros(n_post, np.int64)
    for number, part in enumerate(program.parts):
        if part.layer == 0 and part.holds_neurons:
            at[part.post] = neurons_of(program.grid, number).start + np.arange(len(part.post))
    return at


def _places(program: Program, n_pre: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the cores and axons that hold rows of h."""
    link = len(program.network.links) - 1
    groups = sorted({(int(part.post[0]), int(part.post[-1]) + 1) for part in program.parts if part.layer == 0})
    place = np.zeros((len(groups), n_pre, 2), np.int64)
    for number, part in enumerate(program.parts):
        if part.layer == 0 and part.holds_weights:
            axons = np.flatnonzero(part.axon_link == link)
            mine = place[groups.index((int(part.post[0]), int(part.post[-1]) + 1))]
            mine[part.axon_unit[axons], 0] = number
            mine[part.axon_unit[axons], 1] = axons
    return np.array(groups, np.int64), place


def new_host(program: Program, layer: QuantisedLayer, rule: LocalRule, phase_us: int) -> Host:
    """Put a host at rest beside a program, compiled from what :func:`learning_network` made.

    Parameters
    ----------
    program, layer
        The program, and its first layer, quantised.
    rule, phase_us
        The rule as trained; length of a phase, us.

    Raises
    ------
    ConfigError
        If the chip's host cannot follow the rule.
    """
    learner = _learner_of(program, layer, rule, phase_us)
    n_pre, n_post = layer.weight.shape
    state = LearnerState(
        terminal=np.zeros((len(learner.terminal), 2), np.int64),
        terminal_phase=np.zeros(n_pre, np.int64),
        fast=np.zeros((len(learner.rate), n_post), np.int32),
        fast_phase=np.zeros(n_pre, np.int64),
        amount=np.zeros(n_pre, np.int64),
        waiting=np.zeros(n_pre, np.int32),
        seen=np.zeros((2, n_pre), np.int32),
        seen_amplitude=np.zeros((2, n_pre), np.int32),
        n_seen=np.zeros(2, np.int64),
        counts=np.zeros(1, LEARNING_DTYPE),
        sent=np.zeros(n_pre, np.int32),
        z=np.zeros(n_post, np.int64),
    )
    host = Host(learner, state, _scale(layer, rule) if len(rule.local_rate) else 0.0)
    _rest(host)
    return host


def rewritten(host: Host, program: Program, layer: QuantisedLayer, rule: LocalRule, phase_us: int) -> Host:
    """Follow new weights and a new rule of the same kind; H is brought to the scale of the new weights."""
    learner = _learner_of(program, layer, rule, phase_us)
    if not len(rule.local_rate):
        return host._replace(learner=learner)
    per_unit, most = _scale(layer, rule), int(learner.number["fast_max"][0])
    fast = host.state.fast
    ratio = round(ONE * per_unit / host.per_unit) if host.per_unit else 0
    fast[:] = np.clip((fast.astype(np.int64) * ratio + ONE // 2) >> 16, -most, most)
    return Host(learner, host.state, per_unit)


def _rest(host: Host) -> None:
    learner, state = host.learner, host.state
    if len(state.terminal):
        state.terminal[:, 0], state.terminal[:, 1] = ONE, learner.terminal[:, 1]
    state.terminal_phase[:] = state.fast_phase[:] = state.counts["now"][0]
    state.fast[:] = 0


def clear_host(host: Host, local: bool) -> None:
    """Drop what waits for the next phase; with ``local``, put terminals and fast change to rest too.

    Rows of h on the cores stay as they are: each is written before it is read.
    """
    host.state.amount[:] = 0
    host.state.counts["n_waiting"] = 0
    host.state.n_seen[:] = 0
    if local:
        _rest(host)


def held_rows(program: GridProgram, host: Host) -> NDArray[np.int8]:
    """Read back the rows of h that stand on the cores, int8, shape (n_pre, n_post); (0, n_post) without any."""
    learner, state = host.learner, host.state
    held = np.zeros(state.fast.shape, np.int8)
    for (first, last), places in zip(learner.group.tolist(), learner.place, strict=True):
        core, axon = places[:, 0], places[:, 1]
        start = program.cores["weight"][core] + axon * program.cores["padded"][core]
        held[:, first:last] = program.weight[start[:, None] + np.arange(last - first)]
    return held


# -- phases ------------------------------------------------------------------------------------------------------------


@inline_kernel
def _left_of(factor: Any, row: Any, n: Any) -> Any:
    """Multiply what the bits of ``n`` phases leave."""
    left, b, gap = np.int64(65536), 0, np.int64(n)
    if gap >> 32 != 0:
        return np.int64(0)
    while gap != 0:
        if gap & 1 != 0:
            left = left * factor[row, b] >> 16
        gap >>= 1
        b += 1
    return left


@inline_kernel
def _release(learner: Learner, state: LearnerState, i: Any) -> Any:
    """Return the amplitude of an event of input i, 16 bits of fraction, and tire its terminal."""
    one = np.int64(65536)
    n = state.counts[0]["now"] - state.terminal_phase[i]
    f_rest = learner.terminal[i, 1]
    r, f = state.terminal[i, 0], state.terminal[i, 1]
    r = one - ((one - r) * _left_of(learner.left_rec, i, n) >> 16)
    f = f_rest + ((f - f_rest) * _left_of(learner.left_fac, i, n) >> 16)
    state.terminal[i, 0] = r - (r * learner.terminal[i, 0] >> 16)
    state.terminal[i, 1] = f + ((one - f) * learner.terminal[i, 2] >> 16)
    state.terminal_phase[i] = state.counts[0]["now"]
    return r * f >> 16


@inline_kernel
def _write_row(program: GridProgram, learner: Learner, state: LearnerState, i: Any) -> None:
    """Let a row of H decay up to now, and bring it onto its cores where it differs from what is there."""
    count, now, half = state.counts[0], state.counts[0]["now"], np.int64(32768)
    n = now - state.fast_phase[i]
    row = state.fast[i]
    if n != 0:
        left = _left_of(learner.left_fast, np.int64(0), n)
        for j in range(len(row)):
            row[j] = np.int32(np.int64(row[j]) * left + half >> 16)
        state.fast_phase[i] = now
    for g in range(len(learner.group)):
        core, axon = learner.place[g, i, 0], learner.place[g, i, 1]
        first, last = learner.group[g, 0], learner.group[g, 1]
        start = program.cores[core]["weight"] + axon * program.cores[core]["padded"]
        n_zero, changed = np.int32(0), np.int64(0)
        for j in range(last - first):
            h: Any = min(max(np.int32(row[first + j] + 128) >> 8, -127), 127)
            changed |= np.int64(program.weight[start + j]) ^ np.int64(h)
            program.weight[start + j] = h
            n_zero += np.int32(h == 0)
        program.n_zero[program.axons[core] + axon] = n_zero
        if changed != 0:
            count["rows_written"] += 1
            count["bytes_written"] += last - first


@inline_kernel
def _prepare(program: GridProgram, chip: GridState, learner: Learner, state: LearnerState, bits: int) -> None:
    """Bring amplitudes, and the rows that they will meet, to the chip."""
    number, count = learner.number[0], state.counts[0]
    slot = count["now"] & 1
    n = np.int64(0)
    for k in range(count["n_waiting"]):
        i = state.waiting[k]
        a = np.int64(1)
        if number["has_terminals"] != 0:
            a = min(state.amount[i] + (np.int64(1) << (15 - bits)) >> (16 - bits), np.int64(127))
        state.amount[i] = 0
        if a == 0:
            count["weak"] += 1
            continue
        if number["has_fast"] != 0:
            _write_row(program, learner, state, i)
        state.seen[slot, n], state.seen_amplitude[slot, n] = i, a
        state.sent[n] = a
        n += 1
    count["n_waiting"] = 0
    state.n_seen[slot] = n
    give_input(chip, state.seen[slot, :n], state.sent[:n])


@inline_kernel
def _learn(chip: GridState, learner: Learner, state: LearnerState, fired: Any, slot: Any, bits: int) -> None:
    """Apply the rule to the lines of a phase whose weights have reached the membranes."""
    number, count = learner.number[0], state.counts[0]
    n_post = len(learner.potential)
    threshold, shift, most = number["threshold"], number["shift"], number["fast_max"]
    for j in range(n_post):
        state.z[j] = np.int64(chip.soma.v[learner.potential[j]])
    for k in range(len(fired)):
        j = np.int64(fired[k]["unit"]) - number["first_watched"]
        if 0 <= j < n_post:
            state.z[j] += threshold
    for j in range(n_post):
        at = (state.z[j] >> shift) - learner.sliding[j]
        state.z[j] = learner.table[min(max(at, np.int64(-128)), np.int64(127)) + 128]
    down = 23 + bits
    half = np.int64(1) << (down - 1)
    for k in range(state.n_seen[slot]):
        i = state.seen[slot, k]
        step, row = np.int64(state.seen_amplitude[slot, k]) * learner.rate[i], state.fast[i]
        for j in range(n_post):
            h = np.int64(row[j]) + (step * state.z[j] + half >> down)
            row[j] = np.int32(min(max(h, -most), most))
    count["bytes_read"] += 4 * n_post
    count["updates"] += state.n_seen[slot] * n_post


@kernel
def run_learning_phases(
    program: GridProgram,
    chip: GridState,
    learner: Learner,
    state: LearnerState,
    incoming: Any,
    until_us: int,
    strict: bool,
    spikes: Any,
    rows: Any,
    progress: Any,
    inner: Any,
) -> int:
    """As :func:`chip.grid.run_phases`, with the host at work between phases.

    Parameters
    ----------
    learner, state
        The rule and what it remembers; its rows of h in ``program`` are written to.
    inner
        Scratch, int64, shape (3,).
    """
    clock, limits, count = chip.clock[0], program.limits[0], state.counts[0]
    number, n_watched = learner.number[0], limits["n_watched"]
    bits = 6 if number["has_terminals"] != 0 else 0
    taken = progress[0]
    inner[0], inner[1], inner[2] = 0, progress[1], progress[2]
    status = 0
    while True:
        while taken < len(incoming) and incoming[taken]["t"] < clock["end_us"]:
            i = np.int64(incoming[taken]["unit"])
            if i >= len(state.amount):
                break
            amount = np.int64(65536)
            if number["has_terminals"] != 0:
                amount = _release(learner, state, i)
                # an amount of nothing still makes the line one that waits
                if state.amount[i] == 0:
                    amount = max(amount, np.int64(1))
            if state.amount[i] == 0:
                state.waiting[count["n_waiting"]] = i
                count["n_waiting"] += 1
            else:
                clock["merged"] += 1
            state.amount[i] += amount
            taken += 1
        at_us = incoming[taken]["t"] if taken < len(incoming) else until_us
        if at_us < clock["end_us"]:
            status = 3 if taken < len(incoming) else 0
            break
        before = clock["phase"]
        if count["n_waiting"] == 0 and state.n_seen[0] + state.n_seen[1] == 0:
            # nothing for the host to do until the next event
            status = run_phases(program, chip, incoming[:0], at_us, strict, spikes, rows, inner)
            count["now"] += clock["phase"] - before
            if status != 0:
                break
            continue
        if inner[2] == len(rows) or inner[1] + n_watched > len(spikes):
            status = 1
            break
        _prepare(program, chip, learner, state, bits)
        first = inner[1]
        status = run_phases(program, chip, incoming[:0], clock["end_us"], strict, spikes, rows, inner)
        count["now"] += 1
        slot = (count["now"] - 1 - number["latency"]) & 1
        if number["has_fast"] != 0 and state.n_seen[slot] != 0:
            _learn(chip, learner, state, spikes[first : inner[1]], slot, bits)
        state.n_seen[slot] = 0
        if status != 0:
            break
    progress[0], progress[1], progress[2] = taken, inner[1], inner[2]
    return status
