"""The grid: cores that compute and send, one phase after another.

Phases
------
Phase k takes in what arrived before it, computes, and sends; a packet sent in phase k is visible in phase k + 1, copies
of a multicast too. All cores compute from what waited when the phase began, so their order cannot show, except where
values add up on one axon: there it is the order of the cores in the program, not of their places on the grid; and what
one core sends is in the order of its routing table, destination by destination (:mod:`chip.program`).

Packets
-------
A spike is one packet. A value of zero is not sent, which is counted. Other values, of w bits, with P bits of payload:

* w > P: the value goes as its digits to the base 2^P, each from -2^(P-1) to 2^(P-1) - 1; a digit of zero is not sent.
  So a small sum is one packet, however wide it might be (24 bits with 8 of payload: 1 to 4 packets, mostly 1 or 2).
* w <= P: P // w neighbours of a run (:mod:`chip.program`) share a packet, which is not sent if all of them are zero.

An input line holds a number too: what was put on it in a phase, added up. It reaches axons in mode S as one spike,
whatever it is (more than one arrival have merged), and axons in mode A as a value, as its digits, each a packet.

What the silicon of 2019 does with sums wider than its payload is not public; TianjicX sends two int32 in a packet, and
sends zeros too. Links take one packet a clock (chosen; nothing public says).

What a silent chip costs
------------------------
A core without input whose soma moved nothing and which sent nothing would do the same again: it is skipped until
something arrives. A phase in which that holds for the whole chip is *still*: every phase after it is the same until an
input comes, and n of them are one multiplication. Leaks that stick (floor keeps small negative potentials where they
are), adaptive thresholds, windows and shift registers all count as state, so none of this is an approximation.

Everything runs on one thread: a whole chip with every axon active takes less than a phase of 1 ms on one core, and
threads would cost a meeting in every phase.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import add_axons, add_spikes, add_values
from chip.program import GridProgram, neurons_of
from chip.soma import SomaState, cut, look_up, soma_phase, soma_rest
from stream.errors import CapacityError
from stream.jit import inline_kernel, kernel

__all__ = [
    "COUNT_DTYPE",
    "DONE",
    "FULL",
    "NOWHERE",
    "OVERFLOW",
    "GridState",
    "Probe",
    "clear",
    "fault",
    "give_input",
    "new_state",
    "probe",
    "run_phases",
    "spike_room",
]

CLOCK_DTYPE = np.dtype(
    [
        ("end_us", "<i8"),  # of the phase that runs next
        ("phase_us", "<i8"),
        ("phase", "<i8"),  # number of the phase that runs next, since the last clear
        ("buffer", "<i8"),  # which half of the axon buffers it reads
        ("n_input", "<i8"),  # input lines with a spike waiting
        ("merged", "<i8"),  # spikes that met one of these
        ("still", "<i8"),  # the last phase changed nothing
    ]
)
COUNT_DTYPE = np.dtype(
    [
        ("phases", "<i8"),
        ("spikes_in", "<i8"),
        ("merged", "<i8"),
        ("spikes_out", "<i8"),
        ("packets", "<i8"),  # put on the mesh: by cores, by the host, and copies
        ("copies", "<i8"),  # of these, sent on by a router
        ("hops", "<i8"),
        ("crossings", "<i8"),  # of these, from chip to chip
        ("busiest_link", "<i8"),
        ("clocks", "<i8"),
        ("synaptic_ops", "<i8"),
        ("zeros", "<i8"),
        ("overruns", "<i8"),
        ("overflows", "<i8"),
        ("overflow_core", "<i8"),  # the first core that overflowed; -1
    ]
)

DONE, FULL, OVERFLOW, NOWHERE = 0, 1, 2, 3
NOTHING = np.int64(-(2**63))  # on an input line: no sum of numbers of 32 bits comes there


class GridState(NamedTuple):
    """Everything a chip remembers, and its scratch."""

    axon: NDArray[np.int32]  # shape (2, n_axons), the axons of all cores: being read, being filled
    active: NDArray[np.int32]  # shape (2, n_axons): which axons of a core hold a spike, in order of arrival
    n_terms: NDArray[np.int64]  # shape (2, n_cores): what arrived there
    soma: SomaState
    idle: NDArray[np.uint8]  # shape (n_cores,): would do nothing without input
    input_value: NDArray[np.int64]  # shape (n_inputs,): what waits there, or NOTHING; a spike counts 1, sums are whole
    input_list: NDArray[np.int32]  # shape (n_inputs,): those waiting, in order of arrival
    output: NDArray[np.int32]  # shape (n_outputs,): values that left in the last phase
    score: NDArray[np.int64]  # shape (n_outputs,): their sum since the last clear
    core_ops: NDArray[np.int64]  # shape (n_cores,): synaptic operations, running total
    core_packets: NDArray[np.int64]  # shape (n_cores,): packets that it sent, copies not counted, running total
    link_load: NDArray[np.int64]  # shape (n_used,), as ``GridProgram.links``: packets in the last phase
    link_total: NDArray[np.int64]  # shape (n_used,): running total
    clock: NDArray[np.void]  # CLOCK_DTYPE, shape (1,)
    phase: NDArray[np.void]  # COUNT_DTYPE, shape (1,): the last phase
    totals: NDArray[np.void]  # COUNT_DTYPE, shape (1,): running totals; busiest_link and clocks are maxima
    link_change: NDArray[np.int64]  # scratch, shape (n_used + 1,): load of a link less that of the one before
    input_packets: NDArray[np.int64]  # scratch, shape (n_input_trees,)
    current: NDArray[np.int32]  # scratch, shape (most neurons of a core,)
    fired: NDArray[np.uint8]  # scratch, as ``current``
    firing: NDArray[np.int32]  # scratch, as ``current``: numbers of the neurons that fired


class Probe(NamedTuple):
    """A look at one core."""

    v: NDArray[np.int32]  # shape (n_neurons,)
    v_theta: NDArray[np.int32]
    refractory: NDArray[np.uint8]
    waiting: NDArray[np.int32]  # shape (n_axons,): what the next phase will read


# A kernel counts a reference to each array that it is given, on entry and on leaving, which is 5 to 10 ns an array. So
# what runs for each core takes the arrays and records that it needs and not the whole program and state.


@inline_kernel
def _travel(trees: Any, stretches: Any, change: Any, tree: Any, n: Any, phase: Any) -> None:
    """Send ``n`` packets along a tree."""
    row = trees[tree]
    phase["packets"] += n * (1 + row["copies"])
    phase["copies"] += n * row["copies"]
    phase["hops"] += n * row["hops"]
    phase["crossings"] += n * row["crossings"]
    for k in range(row["first_stretch"], row["last_stretch"]):
        change[stretches[k]["first"]] += n
        change[stretches[k]["last"]] -= n


@inline_kernel
def _gather(incoming: Any, taken: Any, clock: Any, value: Any, units: Any) -> Any:
    """Take in the spikes before the end of the next phase, each line once. Returns how many are taken in all."""
    end_us, merged = clock["end_us"], clock["merged"]
    # unsigned, here and below: Numba looks at the sign of every other index
    at, n_input = np.uint64(taken), np.uint64(clock["n_input"])
    while at < np.uint64(len(incoming)) and incoming[at]["t"] < end_us:
        unit = incoming[at]["unit"]
        if unit >= np.uint64(len(value)):
            break
        given = value[unit]
        if given != NOTHING:
            merged += 1
        else:
            given = np.int64(0)
            units[n_input] = unit
            n_input += np.uint64(1)
        value[unit] = given + 1
        at += np.uint64(1)
    clock["n_input"], clock["merged"] = np.int64(n_input), merged
    return np.int64(at)


@inline_kernel
def _n_digits(value: Any, payload: int) -> Any:
    """Count the digits of a value, to the base 2^payload, that are not zero."""
    if payload > 60:
        return np.int64(value != 0)  # it is a sum of some numbers of 32 bits
    half, mask = (np.int64(1) << payload) >> 1, (np.int64(1) << payload) - 1
    left, n = np.int64(value), np.int64(0)
    while left != 0:
        n += np.int64(left & mask != 0)
        left = (left + half) >> payload
    return n


@inline_kernel
def _take_input(
    cores: Any,
    value: Any,
    units: Any,
    input_start: Any,
    lines: Any,
    axon: Any,
    active: Any,
    n_terms: Any,
    packets: Any,
    payload: int,
    phase: Any,
) -> tuple[Any, Any, Any]:
    """Bring what waits on the input lines onto axons. Returns what reached one, overflows, the first core of these."""
    n_reached, n_saturated, first_core, merged = np.int64(0), np.int64(0), np.int64(-1), np.int64(0)
    takes_values = False
    core, tree, start = np.int32(-1), np.int32(0), np.uint64(0)
    before, count, in_tree = np.uint64(0), np.uint64(0), np.uint64(0)  # axons active before and now; packets
    for k in range(len(units)):
        unit = np.uint64(units[k])
        given = value[unit]
        value[unit] = NOTHING
        at, end = np.uint64(input_start[unit]), np.uint64(input_start[unit + np.uint64(1)])
        while at != end:
            line = lines[at]
            at += np.uint64(1)
            if line["core"] != core:
                if core >= 0:
                    n_terms[core] = np.int64(count)
                    packets[tree] += np.int64(in_tree)
                    if not takes_values:
                        n_reached += np.int64(in_tree)
                        merged += np.int64(in_tree + before - count)
                core, tree, in_tree = line["core"], line["tree"], np.uint64(0)
                start, before = np.uint64(cores[core]["axon"]), np.uint64(n_terms[core])
                count = before
                takes_values = cores[core]["axon_mode"] == 1
            i = np.uint64(line["axon"])
            if takes_values:
                if given == 0:
                    continue
                n_reached += 1
                total = np.int64(axon[start + i]) + given
                bounded = min(max(total, np.int64(-(2**31))), np.int64(2**31 - 1))
                if total != bounded:
                    n_saturated += 1
                    if first_core < 0:
                        first_core = np.int64(core)
                axon[start + i] = np.int32(bounded)
                in_tree += np.uint64(_n_digits(given, payload))
                count += np.uint64(1)
                continue
            in_tree += np.uint64(1)
            if axon[start + i] == 0:
                axon[start + i] = 1
                active[start + count] = line["axon"]
                count += np.uint64(1)
    if core >= 0:
        n_terms[core] = np.int64(count)
        packets[tree] += np.int64(in_tree)
        if not takes_values:
            n_reached += np.int64(in_tree)
            merged += np.int64(in_tree + before - count)
    phase["merged"] += merged
    return n_reached, n_saturated, first_core


@kernel
def _put_spikes(
    fired: Any,
    firing: Any,
    n_firing: int,
    first: Any,
    count: Any,
    whole: bool,
    shift: Any,
    axon: Any,
    active: Any,
    n_active: Any,
) -> tuple[Any, Any]:
    """Put the spikes of neurons ``first`` and on onto axons ``neuron + shift``. Returns n_active, how many merged."""
    merged = 0
    if n_active == 0 and whole:
        # nothing waits there, and no two neurons of a run share an axon: nothing can merge
        for k in range(n_firing):
            i = firing[k] + shift
            axon[i] = 1
            active[k] = i
        n_active += n_firing
    elif count > n_firing:
        for k in range(n_firing):
            j = firing[k]
            if first <= j < first + count:
                if axon[j + shift] != 0:
                    merged += 1
                else:
                    axon[j + shift] = 1
                    active[n_active] = j + shift
                    n_active += 1
    else:
        for j in range(first, first + count):
            if fired[j] != 0:
                if axon[j + shift] != 0:
                    merged += 1
                else:
                    axon[j + shift] = 1
                    active[n_active] = j + shift
                    n_active += 1
    return n_active, merged


@kernel
def _send_spikes(
    row: Any,
    runs: Any,
    trees: Any,
    targets: Any,
    stretches: Any,
    change: Any,
    starts: Any,
    axon: Any,
    active: Any,
    n_terms: Any,
    fired: Any,
    firing: Any,
    n_fired: Any,
    phase: Any,
) -> Any:
    """Send the spikes of a core. Returns how many packets."""
    n_neurons, last_run = row["n_neurons"], row["last_run"]
    n_firing = 0
    for j in range(n_neurons):
        firing[n_firing] = j
        n_firing += fired[j]
    n_sent, in_tree, merged = np.int64(0), np.int64(0), np.int64(0)
    for r in range(row["first_run"], last_run):
        run = runs[r]
        first, count, tree = np.int64(run["neuron"]), np.int64(run["count"]), np.int64(run["tree"])
        n = np.int64(n_fired)
        if count != n_neurons:
            n = np.int64(0)
            for j in range(first, first + count):
                n += np.int64(fired[j])
        if n != 0:
            shift = np.int64(run["axon"]) - first
            for k in range(trees[tree]["first_target"], trees[tree]["last_target"]):
                target = targets[k]
                start, end = starts[target], starts[target + 1]
                n_active, n_merged = _put_spikes(
                    fired,
                    firing,
                    n_firing,
                    first,
                    count,
                    n == n_firing,
                    shift,
                    axon[start:end],
                    active[start:end],
                    n_terms[target],
                )
                n_terms[target] = n_active
                merged += n_merged
            in_tree += n
        if in_tree != 0 and (r + 1 == last_run or runs[r + 1]["tree"] != tree):
            _travel(trees, stretches, change, tree, in_tree, phase)
            n_sent += in_tree
            in_tree = np.int64(0)
    phase["merged"] += merged
    return n_sent


@kernel
def _count_packets(values: Any, bits: int, payload: int) -> tuple[Any, Any]:
    """Count the values that are not zero, and the packets that carry them."""
    n_values, n_packets = np.int64(0), np.int64(0)
    if bits > payload:
        half, mask = (np.int64(1) << payload) >> 1, (np.int64(1) << payload) - 1
        for j in range(len(values)):
            n_values += np.int64(values[j] != 0)
        # digit by digit: once every digit but the lowest is zero, for all values, that is it
        shifted, carried, left = np.int64(0), np.int64(0), np.int64(1)
        while left != 0 and shifted < 64:
            left = np.int64(0)
            for j in range(len(values)):
                # half + half 2^P + ... is what the digits above the lowest, each from -half, take away
                digits = (np.int64(values[j]) + carried) >> shifted
                n_packets += np.int64(digits & mask != 0)
                left |= (digits + half) >> payload
            carried += half << shifted
            shifted += payload
        return n_values, n_packets
    together = payload // bits
    if together == 1:
        for j in range(len(values)):
            n_values += np.int64(values[j] != 0)
        return n_values, n_values
    for j in range(0, len(values), together):
        in_packet = np.int64(0)
        for k in range(j, min(j + together, len(values))):
            in_packet += np.int64(values[k] != 0)
        n_values += in_packet
        n_packets += np.int64(in_packet != 0)
    return n_values, n_packets


@kernel
def _put_values(values: Any, axon: Any) -> Any:
    """Add values to axons, saturating. Returns how many sums did not fit."""
    n_saturated = np.int64(0)
    for j in range(len(values)):
        total = np.int64(axon[j]) + np.int64(values[j])
        bounded = min(max(total, np.int64(-(2**31))), np.int64(2**31 - 1))
        n_saturated += np.int64(total != bounded)
        axon[j] = np.int32(bounded)
    return n_saturated


@kernel
def _send_values(
    row: Any,
    runs: Any,
    trees: Any,
    targets: Any,
    stretches: Any,
    change: Any,
    starts: Any,
    axon: Any,
    n_terms: Any,
    current: Any,
    output: Any,
    payload: int,
    given: bool,
    phase: Any,
) -> tuple[Any, Any, Any]:
    """Send what a core's soma says. Returns packets, values that reached a core, and sums that saturated there."""
    n_sent, n_reached, n_saturated, in_tree = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    last_run = row["last_run"]
    for r in range(row["first_run"], last_run):
        run = runs[r]
        first, count, tree = np.int64(run["neuron"]), np.int64(run["count"]), np.int64(run["tree"])
        values = current[first : first + count]
        n_values, n_packets = _count_packets(values, row["value_bits"], payload)
        if given:
            # counted only for a core that was given something: one that is skipped would have counted it too
            phase["zeros"] += count - n_values
        if n_values != 0:
            a = np.int64(run["axon"])
            for k in range(trees[tree]["first_target"], trees[tree]["last_target"]):
                target = targets[k]
                if target < 0:
                    for j in range(count):
                        if values[j] != 0:
                            output[a + j] = values[j]
                    continue
                start = starts[target] + a
                n_saturated += _put_values(values, axon[start : start + count])
                n_terms[target] += n_values
                n_reached += n_values
            in_tree += n_packets
        if in_tree != 0 and (r + 1 == last_run or runs[r + 1]["tree"] != tree):
            _travel(trees, stretches, change, tree, in_tree, phase)
            n_sent += in_tree
            in_tree = np.int64(0)
    return n_sent, n_reached, n_saturated


@inline_kernel
def _load_links(change: Any, load: Any, total: Any) -> Any:
    """Turn the changes from link to link into loads. Returns the load of the busiest link."""
    running, busiest = np.int64(0), np.int64(0)
    for link in range(len(load)):
        running += change[link]
        change[link] = 0
        load[link] = running
        total[link] += running
        busiest = max(busiest, running)
    change[len(load)] = 0
    return busiest


@inline_kernel
def _add_totals(totals: Any, phase: Any, n: int) -> None:
    """Add ``n`` phases that were all like this one."""
    totals["phases"] += n
    totals["spikes_in"] += n * phase["spikes_in"]
    totals["merged"] += n * phase["merged"]
    totals["spikes_out"] += n * phase["spikes_out"]
    totals["packets"] += n * phase["packets"]
    totals["copies"] += n * phase["copies"]
    totals["hops"] += n * phase["hops"]
    totals["crossings"] += n * phase["crossings"]
    totals["synaptic_ops"] += n * phase["synaptic_ops"]
    totals["zeros"] += n * phase["zeros"]
    totals["overruns"] += n * phase["overruns"]
    totals["overflows"] += n * phase["overflows"]
    totals["busiest_link"] = max(totals["busiest_link"], phase["busiest_link"])
    totals["clocks"] = max(totals["clocks"], phase["clocks"])


@inline_kernel
def _dendrites(
    row: Any,
    phase: Any,
    n_terms: Any,
    weight: Any,
    zeros: Any,
    axon: Any,
    active: Any,
    bias: Any,
    current: Any,
) -> tuple[Any, Any, Any, Any]:
    """Add up what waits at one core. Returns sums that saturated, a bound of all sums, operations, additions."""
    first, n_axons, reach = row["axon"], row["n_axons"], row["bias_reach"]
    n_macs, n_zero, n_saturated = n_terms, np.int64(0), np.int64(0)
    mine = axon[first : first + n_axons]
    if row["synapse"] == 1 or row["axon_mode"] != 0:
        for j in range(len(current)):
            current[j] = bias[j]
    if row["synapse"] == 1:
        n_saturated, reach = add_axons(mine, reach, current)
    else:
        block = weight[row["weight"] : row["weight"] + n_axons * row["padded"]]
        which = active[first : first + n_axons]
        if row["axon_mode"] == 0:
            n_zero, n_saturated, reach = add_spikes(
                block, zeros[first : first + n_axons], mine, which, n_terms, bias, reach, current
            )
            n_macs = n_terms * row["n_neurons"]
        else:
            n_active, n_zero, n_saturated, reach = add_values(
                block, zeros[first : first + n_axons], mine, which, reach, current
            )
            n_macs = n_active * row["n_neurons"]
    phase["synaptic_ops"] += n_macs - n_zero
    phase["zeros"] += n_zero
    return n_saturated, reach, n_macs - n_zero, n_macs


@kernel
def _repeat(state: GridState, n: int) -> None:
    """Let ``n`` phases pass that are all like the last one, which was still."""
    clock, phase = state.clock[0], state.phase[0]
    _add_totals(state.totals[0], phase, n)
    for k in range(len(state.output)):
        state.score[k] += n * np.int64(state.output[k])
    for link in range(len(state.link_load)):
        state.link_total[link] += n * state.link_load[link]
    clock["buffer"] = (clock["buffer"] + n) & 1
    clock["phase"] += n
    clock["end_us"] += n * clock["phase_us"]


@inline_kernel
def _begin_phase(clock: Any, phase: Any) -> None:
    """Set the counts of a phase to zero."""
    phase["phases"] = 1
    phase["merged"] = clock["merged"]
    phase["spikes_out"], phase["synaptic_ops"], phase["zeros"] = 0, 0, 0
    phase["packets"], phase["copies"], phase["hops"], phase["crossings"] = 0, 0, 0, 0
    phase["overflows"], phase["overflow_core"] = 0, -1
    clock["merged"] = 0


@inline_kernel
def _end_phase(clock: Any, phase: Any, totals: Any, limits: Any, slowest: Any, busiest: Any, alive: Any) -> None:
    """Close the counts of a phase, and go on to the next."""
    phase["busiest_link"] = busiest
    clocks = np.int64(0)
    if slowest >= 0:
        clocks = (slowest + limits["macs_per_clock"] - 1) // limits["macs_per_clock"] + limits["overhead_clocks"]
    phase["clocks"] = max(clocks, busiest)
    phase["overruns"] = 1 if phase["clocks"] > limits["phase_clocks"] else 0
    _add_totals(totals, phase, 1)
    clock["buffer"] = 1 - clock["buffer"]
    clock["phase"] += 1
    clock["end_us"] += clock["phase_us"]
    clock["still"] = 1 if alive == 0 else 0


@inline_kernel
def _write_row(row: Any, end_us: int, phase: Any) -> None:
    """Write the counts of a phase as an item of the stream of phases."""
    row["t"] = end_us
    row["spikes_in"] = phase["spikes_in"]
    row["merged"] = phase["merged"]
    row["spikes_out"] = phase["spikes_out"]
    row["packets"] = phase["packets"]
    row["hops"] = phase["hops"]
    row["busiest_link"] = phase["busiest_link"]
    row["clocks"] = phase["clocks"]
    row["synaptic_ops"] = phase["synaptic_ops"]
    row["zeros"] = phase["zeros"]


@kernel
def give_input(state: GridState, units: Any, values: Any) -> None:
    """Put values, int32, on input lines for the phase that runs next, added to what waits there."""
    clock = state.clock[0]
    n_input = clock["n_input"]
    for k in range(len(units)):
        unit = units[k]
        given = state.input_value[unit]
        if given != NOTHING:
            clock["merged"] += 1
        else:
            given = np.int64(0)
            state.input_list[n_input] = unit
            n_input += 1
        state.input_value[unit] = given + values[k]
    clock["n_input"] = n_input


@kernel
def run_phases(
    program: GridProgram,
    state: GridState,
    incoming: Any,
    until_us: int,
    strict: bool,
    spikes: Any,
    rows: Any,
    progress: Any,
) -> int:
    """Take in spikes, and run every phase that ends by ``until_us``.

    Parameters
    ----------
    program, state
        The chip.
    incoming
        SPIKE_DTYPE, shape (n,), sorted by time, none before the phase that runs next; ``unit`` is an input line.
    until_us
        The time that the stream has come to, not before the last spike.
    strict
        Stop after a phase in which anything overflowed.
    spikes, rows
        SPIKE_DTYPE and PHASE_DTYPE, out; one row for each phase that was not still.
    progress
        int64, shape (3,): spikes taken in, spikes out, rows. Set it to zeros; as long as the status is FULL, call
        again with the two latter back at 0.

    Returns
    -------
    int
        DONE; FULL: ``spikes`` or ``rows`` has no room for another phase; OVERFLOW, NOWHERE (an input line that does not
        exist, at ``incoming[progress[0]]``): :func:`fault` says it in words.
    """
    clock, phase, limits = state.clock[0], state.phase[0], program.limits[0]
    bits, n_watched = limits["membrane_bits"], limits["n_watched"]
    taken, n_spikes, n_rows = progress[0], progress[1], progress[2]
    status = 0
    while True:
        taken = _gather(incoming, taken, clock, state.input_value, state.input_list)
        at_us = incoming[taken]["t"] if taken < len(incoming) else until_us
        if at_us < clock["end_us"]:
            status = 3 if taken < len(incoming) else 0
            break
        if clock["still"] != 0 and clock["n_input"] == 0:
            _repeat(state, (at_us - clock["end_us"]) // clock["phase_us"] + 1)
            continue
        if n_rows == len(rows) or n_spikes + n_watched > len(spikes):
            status = 1
            break
        end_us = clock["end_us"]
        _begin_phase(clock, phase)
        now = clock["buffer"]
        later = 1 - now
        axon, active, n_waiting = state.axon[now], state.active[now], state.n_terms[now]
        later_axon, later_active, later_n = state.axon[later], state.active[later], state.n_terms[later]
        alive = np.int64(0)  # anything that keeps this phase from being still
        n_reached = np.int64(0)
        if clock["n_input"] != 0:
            n_reached, n_saturated, first_core = _take_input(
                program.cores,
                state.input_value,
                state.input_list[: clock["n_input"]],
                program.input_start,
                program.input_lines,
                axon,
                active,
                n_waiting,
                state.input_packets,
                limits["payload_bits"],
                phase,
            )
            alive += n_reached + n_saturated
            phase["overflows"], phase["overflow_core"] = n_saturated, first_core
            for tree in range(len(state.input_packets)):
                if state.input_packets[tree] != 0:
                    n = state.input_packets[tree]
                    _travel(program.trees, program.stretches, state.link_change, tree, n, phase)
                    state.input_packets[tree] = 0
            clock["n_input"] = 0
        phase["spikes_in"] = n_reached
        slowest = np.int64(-1)  # most additions of any core that was given something
        for k in range(len(state.output)):
            state.output[k] = 0
        for core in range(len(state.idle)):
            n_terms = n_waiting[core]
            if n_terms == 0 and state.idle[core] != 0:
                continue
            n_waiting[core] = 0
            row, soma = program.cores[core], program.somas[core]
            start, n_neurons, padded, fire_type = row["neuron"], row["n_neurons"], row["padded"], soma["fire_type"]
            current, bias = state.current[:padded], program.bias[start : start + padded]
            n_overflows, reach = np.int64(0), row["bias_reach"]
            if n_terms != 0:
                n_overflows, reach, n_ops, n_macs = _dendrites(
                    row,
                    phase,
                    n_terms,
                    program.weight,
                    program.n_zero,
                    axon,
                    active,
                    bias,
                    current,
                )
                state.core_ops[core] += n_ops
                slowest = max(slowest, n_macs)
            else:
                for j in range(padded):
                    current[j] = bias[j]
            used = current[:n_neurons]
            n_fired, changed, n_sent, n_reached = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
            if fire_type == 8:
                look_up(program.table[row["table"] : row["table"] + row["table_size"]], soma["cut_shift"], used)
            else:
                n_fired, changed, clamped, r, window = soma_phase(
                    soma,
                    state.soma.v[start : start + n_neurons],
                    state.soma.v_theta[start : start + n_neurons],
                    state.soma.refractory[start : start + n_neurons],
                    state.soma.lfsr[core],
                    state.soma.window[core],
                    used,
                    state.fired,
                    bits,
                    reach,
                )
                state.soma.lfsr[core], state.soma.window[core] = r, window
                n_overflows += clamped
                if fire_type == 2 or fire_type == 3:
                    cut(used, soma["cut_shift"], row["value_low"], row["value_high"])
                elif fire_type != 4:
                    n_overflows += cut(used, 0, row["value_low"], row["value_high"])
            if fire_type != 4:
                n_sent, n_reached, n_saturated = _send_values(
                    row,
                    program.runs,
                    program.trees,
                    program.targets,
                    program.stretches,
                    state.link_change,
                    program.axons,
                    later_axon,
                    later_n,
                    current,
                    state.output,
                    limits["payload_bits"],
                    n_terms != 0,
                    phase,
                )
                n_overflows += n_saturated
            elif n_fired != 0:
                phase["spikes_out"] += n_fired
                if row["watched"] != 0:
                    for j in range(n_neurons):
                        unit = program.spike_unit[start + j]
                        if state.fired[j] != 0 and unit >= 0:
                            spikes[n_spikes]["t"] = end_us
                            spikes[n_spikes]["unit"] = unit
                            n_spikes += 1
                n_sent = _send_spikes(
                    row,
                    program.runs,
                    program.trees,
                    program.targets,
                    program.stretches,
                    state.link_change,
                    program.axons,
                    later_axon,
                    later_active,
                    later_n,
                    state.fired,
                    state.firing,
                    n_fired,
                    phase,
                )
                n_reached = n_fired
            state.core_packets[core] += n_sent
            if n_overflows != 0 and phase["overflows"] == 0:
                phase["overflow_core"] = core
            phase["overflows"] += n_overflows
            alive += n_terms + changed + n_reached + n_overflows
            state.idle[core] = 1 if n_terms + changed + n_fired + n_sent + n_overflows == 0 else 0
        busiest = _load_links(state.link_change, state.link_load, state.link_total)
        for k in range(len(state.output)):
            state.score[k] += np.int64(state.output[k])
        _end_phase(clock, phase, state.totals[0], limits, slowest, busiest, alive)
        if clock["still"] == 0:
            _write_row(rows[n_rows], end_us, phase)
            n_rows += 1
        if strict and phase["overflows"] != 0:
            status = 2
            break
    progress[0], progress[1], progress[2] = taken, n_spikes, n_rows
    return status


def new_state(program: GridProgram, phase_us: int, end_us: int) -> GridState:
    """Allocate a chip at rest.

    Parameters
    ----------
    program
        What it runs.
    phase_us, end_us
        Length of a phase, us, and end of the first one.
    """
    n_cores, n_axons, n_neurons = len(program.cores), int(program.axons[-1]), int(program.neurons[-1])
    n_inputs, limits = len(program.input_start) - 1, program.limits[0]
    most = int(program.cores["padded"].max(initial=0))
    state = GridState(
        axon=np.zeros((2, n_axons), np.int32),
        active=np.zeros((2, n_axons), np.int32),
        n_terms=np.zeros((2, n_cores), np.int64),
        soma=SomaState(
            v=np.zeros(n_neurons, np.int32),
            v_theta=np.zeros(n_neurons, np.int32),
            refractory=np.zeros(n_neurons, np.uint8),
            lfsr=np.zeros(n_cores, np.int64),
            window=np.zeros(n_cores, np.int64),
        ),
        idle=np.zeros(n_cores, np.uint8),
        input_value=np.full(n_inputs, NOTHING, np.int64),
        input_list=np.zeros(n_inputs, np.int32),
        output=np.zeros(int(limits["n_outputs"]), np.int32),
        score=np.zeros(int(limits["n_outputs"]), np.int64),
        core_ops=np.zeros(n_cores, np.int64),
        core_packets=np.zeros(n_cores, np.int64),
        link_load=np.zeros(len(program.links), np.int64),
        link_total=np.zeros(len(program.links), np.int64),
        clock=np.zeros(1, CLOCK_DTYPE),
        phase=np.zeros(1, COUNT_DTYPE),
        totals=np.zeros(1, COUNT_DTYPE),
        link_change=np.zeros(len(program.links) + 1, np.int64),
        input_packets=np.zeros(int(limits["n_input_trees"]), np.int64),
        current=np.zeros(most, np.int32),
        fired=np.zeros(most, np.uint8),
        firing=np.zeros(most, np.int32),
    )
    state.clock["phase_us"] = phase_us
    clear(program, state, end_us)
    return state


def spike_room(program: GridProgram) -> int:
    """Tell how long ``spikes`` of :func:`run_phases` has to be at least: what one phase may fire, and never 0."""
    return max(int(program.limits["n_watched"][0]), 1)


def clear(program: GridProgram, state: GridState, end_us: int) -> None:
    """Put a chip at rest: somas, axons, waiting input, score. Totals go on. The next phase ends at ``end_us``."""
    soma_rest(program.somas, program.neurons, state.soma)
    for array in (state.axon, state.active, state.n_terms, state.idle):
        array[...] = 0
    state.input_value[:] = NOTHING
    state.input_list[:] = 0
    state.output[:] = 0
    state.score[:] = 0
    state.link_load[:] = 0
    state.phase[:] = np.zeros(1, COUNT_DTYPE)
    for field in ("phase", "buffer", "n_input", "merged", "still"):
        state.clock[field] = 0
    state.clock["end_us"] = end_us


def probe(program: GridProgram, state: GridState, core: int) -> Probe:
    """Copy what a core holds between two phases. Looking changes nothing."""
    neurons = neurons_of(program, core)
    axons = slice(int(program.axons[core]), int(program.axons[core + 1]))
    return Probe(
        state.soma.v[neurons].copy(),
        state.soma.v_theta[neurons].copy(),
        state.soma.refractory[neurons].copy(),
        state.axon[int(state.clock["buffer"][0]), axons].copy(),
    )


def fault(
    status: int,
    state: GridState,
    names: list[str],
    positions: list[tuple[int, int]],
    incoming: NDArray[np.void],
    taken: int,
) -> CapacityError:
    """Say in words why a run stopped.

    Parameters
    ----------
    status
        OVERFLOW or NOWHERE, from :func:`run_phases`.
    state
        As it was left.
    names, positions
        Of the cores.
    incoming, taken
        As given to :func:`run_phases`, and its ``progress[0]``.
    """
    phase = int(state.clock["phase"][0])
    if status == NOWHERE:
        unit = int(incoming["unit"][taken])
        return CapacityError(
            f"chip: phase {phase} since the last reset: a spike for input line {unit} at "
            f"{int(incoming['t'][taken])} us, there are {len(state.input_value)} lines, the first is 0"
        )
    number = int(state.phase["overflow_core"][0])
    return CapacityError(
        f"chip: core {number} at {positions[number]}, {names[number]}, phase {phase - 1} since the last reset: "
        f"{int(state.phase['overflows'][0])} sums, potentials or values did not fit their width; "
        f"reset more often, rescale the weights, or set strict = false"
    )
