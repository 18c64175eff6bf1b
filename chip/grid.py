"""The mesh: cores on a grid, packets between them, one phase after another.

Phases
------
Phase k takes in what arrived before it, computes, and sends; a packet sent in phase k is visible in phase k + 1. All
cores compute from what waited when the phase began, so their order cannot show, except where values add up on one
axon: there it is the order of the cores in the program, not of their places on the grid.

Routing
-------
Dimension order, along x first or y first, as the profile says. Routing tables hold relative addresses. The one way in
and the one way out are links beside core (0, 0); each counts as a hop, as every link does. A packet carries one spike,
or one payload of a value: a value of n bits is ceil(n / payload) packets. A value of zero is not sent, which is
counted. Links take one packet a clock (chosen; nothing public says).

Paths are fixed, so they are found once, when a program is put on the grid: a *flow* is a pair (from, to) with its list
of links. In a phase packets are counted per flow, and each flow is walked once, however many packets it carries.

What a silent chip costs
------------------------
A core without input whose soma moved nothing and which sent nothing would do the same again: it is skipped until
something arrives. A phase in which that holds for the whole chip is *still*: every phase after it is the same until an
input comes, and n of them are one multiplication. Leaks that stick (floor keeps small negative potentials where they
are), adaptive thresholds, windows and shift registers all count as state, so none of this is an approximation.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import (
    AXON_SPIKES,
    OFF_CHIP,
    SYNAPSE_MATRIX,
    Core,
    Synapses,
    add_saturating,
    dendrite_phase,
    weigh_core,
)
from chip.profile import Profile
from chip.soma import FIRE_SPIKE, Soma, SomaParams, SomaState, soma_phase, soma_rest
from stream.errors import CapacityError
from stream.jit import kernel

__all__ = [
    "DONE",
    "FULL",
    "INPUT_DTYPE",
    "OVERFLOW",
    "GridProgram",
    "GridState",
    "assemble",
    "clear",
    "grid_phase",
    "new_state",
    "run_phases",
    "write_soma",
]

INPUT_DTYPE = np.dtype([("unit", "<i4"), ("core", "<i4"), ("axon", "<i4")])
"""Where spikes of an input line go; several rows of a unit are several packets."""

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
        ("packets", "<i8"),
        ("hops", "<i8"),
        ("busiest_link", "<i8"),
        ("clocks", "<i8"),
        ("synaptic_ops", "<i8"),
        ("zeros", "<i8"),
        ("overruns", "<i8"),
        ("overflows", "<i8"),
        ("overflow_core", "<i8"),  # the first core that overflowed; -1
    ]
)

DONE, FULL, OVERFLOW = 0, 1, 2


class GridProgram(NamedTuple):
    """All cores and routes, flat. Built by :func:`assemble`; nothing but weights and somas is ever written again."""

    synapses: Synapses
    soma: SomaParams
    value_bits: NDArray[np.int64]  # shape (n_cores,)
    value_packets: NDArray[np.int64]  # shape (n_cores,)
    spike_unit: NDArray[np.int32]  # shape (n_cores, neurons_per_core): number a watched neuron is known by, or -1
    route_start: NDArray[np.int64]  # shape (n_cores * neurons_per_core + 1,)
    route_core: NDArray[np.int32]  # shape (n_routes,): target, or -1 for the output port
    route_axon: NDArray[np.int32]  # shape (n_routes,)
    route_flow: NDArray[np.int32]  # shape (n_routes,)
    input_start: NDArray[np.int64]  # shape (n_inputs + 1,)
    input_core: NDArray[np.int32]
    input_axon: NDArray[np.int32]
    input_flow: NDArray[np.int32]
    flow_start: NDArray[np.int64]  # shape (n_flows + 1,)
    flow_link: NDArray[np.int32]  # links of each flow: 4 * (y * width + x) + direction, then the way in, the way out
    limits: NDArray[np.int64]  # macs_per_clock, overhead_clocks, phase_clocks


class GridState(NamedTuple):
    """Everything a chip remembers, and its scratch."""

    axon: NDArray[np.int32]  # shape (2, n_cores, axons_per_core): being read, being filled
    n_terms: NDArray[np.int64]  # shape (2, n_cores): what arrived there
    soma: SomaState
    idle: NDArray[np.uint8]  # shape (n_cores,): would do nothing without input
    input_waiting: NDArray[np.uint8]  # shape (n_inputs,)
    input_list: NDArray[np.int32]  # shape (n_inputs,): those waiting, in order of arrival
    output: NDArray[np.int32]  # shape (n_outputs,): values that left in the last phase
    score: NDArray[np.int64]  # shape (n_outputs,): their sum since the last clear
    core_ops: NDArray[np.int64]  # shape (n_cores,): synaptic operations, running total
    link_load: NDArray[np.int64]  # shape (n_links,): packets in the last phase
    link_total: NDArray[np.int64]  # shape (n_links,): running total
    clock: NDArray[np.void]  # CLOCK_DTYPE, shape (1,)
    phase: NDArray[np.void]  # COUNT_DTYPE, shape (1,): the last phase
    totals: NDArray[np.void]  # COUNT_DTYPE, shape (1,): running totals; busiest_link and clocks are maxima
    flow_packets: NDArray[np.int64]  # scratch, shape (n_flows,)
    current: NDArray[np.int32]  # scratch, shape (neurons_per_core,)
    fired: NDArray[np.uint8]  # scratch, shape (neurons_per_core,)
    membrane: NDArray[np.int32]  # scratch, shape (neurons_per_core,)


@kernel
def _deliver(program: GridProgram, state: GridState, buffer: int, core: int, axon: int, value: Any) -> tuple[Any, Any]:
    """Put a spike (value 1) or a value on an axon. Returns 1 if it merged with a spike, 1 if it saturated."""
    before = np.int64(state.axon[buffer, core, axon])
    if program.synapses.axon_mode[core] == 0:
        if before != 0:
            return 1, 0
        state.axon[buffer, core, axon] = 1
        state.n_terms[buffer, core] += 1
        return 0, 0
    after = add_saturating(before, value)
    state.axon[buffer, core, axon] = after
    state.n_terms[buffer, core] += 1
    return 0, np.int64(after != before + value)


@kernel
def _take_input(program: GridProgram, state: GridState) -> int:
    """Bring the waiting input spikes onto their axons. Returns how many packets that took."""
    clock, phase = state.clock[0], state.phase[0]
    n_packets = 0
    for k in range(clock["n_input"]):
        unit = state.input_list[k]
        state.input_waiting[unit] = 0
        for route in range(program.input_start[unit], program.input_start[unit + 1]):
            state.flow_packets[program.input_flow[route]] += 1
            merged, _ = _deliver(
                program, state, clock["buffer"], program.input_core[route], program.input_axon[route], 1
            )
            phase["merged"] += merged
            n_packets += 1
    clock["n_input"] = 0
    return n_packets


@kernel
def _count_traffic(program: GridProgram, state: GridState) -> Any:
    """Walk every flow that carried something along its links. Returns the load of the busiest link."""
    phase = state.phase[0]
    state.link_load[:] = 0
    for flow in range(len(state.flow_packets)):
        n_packets = state.flow_packets[flow]
        if n_packets == 0:
            continue
        state.flow_packets[flow] = 0
        for k in range(program.flow_start[flow], program.flow_start[flow + 1]):
            state.link_load[program.flow_link[k]] += n_packets
            phase["hops"] += n_packets
    busiest = np.int64(0)
    for link in range(len(state.link_load)):
        busiest = max(busiest, state.link_load[link])
        state.link_total[link] += state.link_load[link]
    return busiest


@kernel
def _add_totals(totals: Any, phase: Any, n: int) -> None:
    """Add ``n`` phases that were all like this one."""
    totals["phases"] += n
    totals["spikes_in"] += n * phase["spikes_in"]
    totals["merged"] += n * phase["merged"]
    totals["spikes_out"] += n * phase["spikes_out"]
    totals["packets"] += n * phase["packets"]
    totals["hops"] += n * phase["hops"]
    totals["synaptic_ops"] += n * phase["synaptic_ops"]
    totals["zeros"] += n * phase["zeros"]
    totals["overruns"] += n * phase["overruns"]
    totals["overflows"] += n * phase["overflows"]
    totals["busiest_link"] = max(totals["busiest_link"], phase["busiest_link"])
    totals["clocks"] = max(totals["clocks"], phase["clocks"])


@kernel
def grid_phase(program: GridProgram, state: GridState, spikes: Any, n_spikes: int) -> int:
    """Run one phase of the whole chip.

    Parameters
    ----------
    program, state
        The chip; ``state.phase`` holds the counts of this phase afterwards.
    spikes
        SPIKE_DTYPE, shape (n,), out: what the watched neurons fired, time = end of the phase, by core and neuron.
    n_spikes
        How many are in there already. There must be room for all watched neurons.

    Returns
    -------
    int
        The new number of spikes.
    """
    clock, phase = state.clock[0], state.phase[0]
    phase["phases"] = 1
    phase["merged"] = clock["merged"]
    phase["spikes_out"], phase["hops"], phase["synaptic_ops"], phase["zeros"] = 0, 0, 0, 0
    phase["overflows"], phase["overflow_core"] = 0, -1
    clock["merged"] = 0
    now = clock["buffer"]
    later = 1 - now
    n_packets = _take_input(program, state)
    phase["spikes_in"] = n_packets
    alive = n_packets  # anything that keeps this phase from being still
    slowest = np.int64(0)
    state.output[:] = 0
    n_columns = program.spike_unit.shape[1]
    for core in range(len(state.idle)):
        n_terms = state.n_terms[now, core]
        if n_terms == 0 and state.idle[core] != 0:
            continue
        state.n_terms[now, core] = 0
        n_neurons = program.synapses.n_neurons[core]
        n_added, n_zero, n_overflows = dendrite_phase(
            program.synapses, core, state.axon[now, core], n_terms, state.current
        )
        n_fired, changed, clamped = soma_phase(
            program.soma, state.soma, core, n_neurons, state.current, state.fired, state.membrane
        )
        n_overflows += clamped
        if n_terms != 0:
            macs = program.limits[0]
            slowest = max(slowest, (n_added + n_zero + macs - 1) // macs + program.limits[1])
        phase["synaptic_ops"] += n_added
        phase["zeros"] += n_zero
        state.core_ops[core] += n_added
        is_spiking = program.soma.fire_type[core] == 4
        if is_spiking:
            phase["spikes_out"] += n_fired
            alive += n_fired
        n_sent = 0
        if not is_spiking or n_fired != 0:
            highest = (np.int64(1) << (program.value_bits[core] - 1)) - 1
            for j in range(n_neurons):
                value = np.int64(state.fired[j]) if is_spiking else np.int64(state.membrane[j])
                first, last = program.route_start[core * n_columns + j], program.route_start[core * n_columns + j + 1]
                if value == 0:
                    # counted only for a core that was given something: one that is skipped would have counted it too
                    if not is_spiking and n_terms != 0:
                        phase["zeros"] += last - first
                    continue
                cost: Any = np.int64(1)
                if is_spiking:
                    unit = program.spike_unit[core, j]
                    if unit >= 0:
                        spikes[n_spikes]["t"] = clock["end_us"]
                        spikes[n_spikes]["unit"] = unit
                        n_spikes += 1
                else:
                    cost = program.value_packets[core]
                    if value > highest or value < -highest - 1:
                        n_overflows += 1
                        value = min(max(value, -highest - 1), highest)
                for route in range(first, last):
                    state.flow_packets[program.route_flow[route]] += cost
                    n_packets += cost
                    n_sent += 1
                    target = program.route_core[route]
                    if target < 0:
                        state.output[program.route_axon[route]] = value
                        continue
                    alive += 1
                    merged, saturated = _deliver(program, state, later, target, program.route_axon[route], value)
                    phase["merged"] += merged
                    n_overflows += saturated
        if n_overflows != 0 and phase["overflows"] == 0:
            phase["overflow_core"] = core
        phase["overflows"] += n_overflows
        alive += n_terms + changed + n_overflows
        state.idle[core] = 1 if n_terms + changed + n_fired + n_sent + n_overflows == 0 else 0
    busiest = _count_traffic(program, state)
    phase["packets"] = n_packets
    phase["busiest_link"] = busiest
    phase["clocks"] = max(slowest, busiest)
    phase["overruns"] = 1 if phase["clocks"] > program.limits[2] else 0
    _add_totals(state.totals[0], phase, 1)
    for k in range(len(state.output)):
        state.score[k] += np.int64(state.output[k])
    clock["buffer"] = later
    clock["phase"] += 1
    clock["end_us"] += clock["phase_us"]
    clock["still"] = 1 if alive == 0 else 0
    return n_spikes


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
        SPIKE_DTYPE, shape (n,), sorted by time, none before the phase that runs next.
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
        DONE; FULL: ``spikes`` or ``rows`` has no room for another phase; OVERFLOW: ``state.phase`` tells.
    """
    clock = state.clock[0]
    taken, n_spikes, n_rows = progress[0], progress[1], progress[2]
    n_watched = state.idle.shape[0] * program.spike_unit.shape[1]
    status = 0
    while True:
        at_us = incoming[taken]["t"] if taken < len(incoming) else until_us
        while clock["end_us"] <= at_us:
            if clock["still"] != 0 and clock["n_input"] == 0:
                _repeat(state, (at_us - clock["end_us"]) // clock["phase_us"] + 1)
                break
            if n_rows == len(rows) or n_spikes + n_watched > len(spikes):
                status = 1
                break
            end_us = clock["end_us"]
            n_spikes = grid_phase(program, state, spikes, n_spikes)
            if clock["still"] == 0:
                phase, row = state.phase[0], rows[n_rows]
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
                n_rows += 1
            if strict and state.phase[0]["overflows"] != 0:
                status = 2
                break
        if status != 0 or taken == len(incoming):
            break
        unit = incoming[taken]["unit"]
        if state.input_waiting[unit] != 0:
            clock["merged"] += 1
        else:
            state.input_waiting[unit] = 1
            state.input_list[clock["n_input"]] = unit
            clock["n_input"] += 1
        taken += 1
    progress[0], progress[1], progress[2] = taken, n_spikes, n_rows
    return status


def new_state(program: GridProgram, n_links: int, n_outputs: int, phase_us: int, end_us: int) -> GridState:
    """Allocate a chip at rest.

    Parameters
    ----------
    program
        What it runs.
    n_links, n_outputs
        Links of the mesh, the two ports included (``4 * width * height + 2``); values that may leave.
    phase_us, end_us
        Length of a phase, us, and end of the first one.
    """
    n_cores, n_axons, n_neurons = program.synapses.weight.shape
    n_inputs = len(program.input_start) - 1
    state = GridState(
        axon=np.zeros((2, n_cores, n_axons), np.int32),
        n_terms=np.zeros((2, n_cores), np.int64),
        soma=SomaState(
            v=np.zeros((n_cores, n_neurons), np.int32),
            v_theta=np.zeros((n_cores, n_neurons), np.int32),
            refractory=np.zeros((n_cores, n_neurons), np.uint8),
            lfsr=np.zeros(n_cores, np.int64),
            window=np.zeros(n_cores, np.int64),
        ),
        idle=np.zeros(n_cores, np.uint8),
        input_waiting=np.zeros(n_inputs, np.uint8),
        input_list=np.zeros(n_inputs, np.int32),
        output=np.zeros(n_outputs, np.int32),
        score=np.zeros(n_outputs, np.int64),
        core_ops=np.zeros(n_cores, np.int64),
        link_load=np.zeros(n_links, np.int64),
        link_total=np.zeros(n_links, np.int64),
        clock=np.zeros(1, CLOCK_DTYPE),
        phase=np.zeros(1, COUNT_DTYPE),
        totals=np.zeros(1, COUNT_DTYPE),
        flow_packets=np.zeros(len(program.flow_start) - 1, np.int64),
        current=np.zeros(n_neurons, np.int32),
        fired=np.zeros(n_neurons, np.uint8),
        membrane=np.zeros(n_neurons, np.int32),
    )
    state.clock["phase_us"] = phase_us
    clear(program, state, end_us)
    return state


def clear(program: GridProgram, state: GridState, end_us: int) -> None:
    """Put a chip at rest: somas, axons, waiting input, score. Totals go on. The next phase ends at ``end_us``."""
    soma_rest(program.soma, state.soma)
    for array in (state.axon, state.n_terms, state.idle, state.input_waiting, state.input_list, state.output):
        array[...] = 0
    state.score[:] = 0
    state.link_load[:] = 0
    state.phase[:] = np.zeros(1, COUNT_DTYPE)
    for field in ("phase", "buffer", "n_input", "merged", "still"):
        state.clock[field] = 0
    state.clock["end_us"] = end_us


def write_soma(program: GridProgram, core: int, soma: Soma) -> None:
    """Program the soma of a core."""
    for field, value in soma._asdict().items():
        getattr(program.soma, field)[core] = value


def links_of(profile: Profile, start: tuple[int, int], end: tuple[int, int]) -> list[int]:
    """List the links from core to core: along one axis, then along the other."""
    axes = (0, 1) if profile.routing.value == "x_first" else (1, 0)
    at, links = list(start), []
    for axis in axes:
        while at[axis] != end[axis]:
            step = 1 if end[axis] > at[axis] else -1
            links.append(4 * (at[1] * profile.grid_width.value + at[0]) + 2 * axis + (step < 0))
            at[axis] += step
    return links


class _Flows:
    """Number the pairs (from, to) as they turn up, and remember the links of each."""

    def __init__(self, profile: Profile, positions: Sequence[tuple[int, int]]) -> None:
        self.profile, self.positions = profile, positions
        self.numbers: dict[tuple[int, int], int] = {}
        self.links: list[list[int]] = []

    def number(self, source: int, target: int) -> int:
        """Return the number of the flow from core to core; -1 is the port."""
        if (source, target) not in self.numbers:
            self.numbers[source, target] = len(self.links)
            start = self.positions[source] if source >= 0 else (0, 0)
            end = self.positions[target] if target >= 0 else (0, 0)
            links = links_of(self.profile, start, end)
            way_in = 4 * self.profile.n_cores
            self.links.append([way_in] * (source < 0) + links + [way_in + 1] * (target < 0))
        return self.numbers[source, target]


def _check_core(number: int, core: Core, profile: Profile) -> None:
    """Raise CapacityError where a core asks for more than there is."""
    where = f"core {number} ({core.name})"
    half = 1 << (profile.membrane_bits.value - 1)
    soma = core.soma
    limits = [
        ("axons", core.n_axons, 0, profile.axons_per_core.value),
        ("neurons", core.n_neurons, 0, profile.neurons_per_core.value),
        ("alpha of the leak", soma.alpha, 0, 255),
        ("alpha of the adaptive threshold", soma.theta_alpha, 0, 255),
        ("refractory phases", soma.refractory_phases, 0, (1 << profile.refractory_bits.value) - 1),
        ("window length", soma.window_length, 0, 255),
        ("shift register", soma.seed, 0, 2**32 - 1),
        ("mask", soma.mask, 0, 2 * half - 1),
        ("bits of a value", core.value_bits, 0, 32),
        *(
            (name.replace("_", " "), int(getattr(soma, name)), -half, half - 1)
            for name in ("v_threshold", "floor", "v_reset", "v_decrement", "beta", "theta_beta", "theta_increment")
        ),
        ("initial potential", soma.v_init, max(soma.floor, -half), half - 1),
    ]
    for name, got, low, high in limits:
        if not low <= got <= high:
            raise CapacityError(
                f"{where}: {name} {got}, {profile.name} has {low} to {high}; split the layer, or rescale it"
            )
    wanted = (core.n_axons, core.n_neurons) if core.synapse == SYNAPSE_MATRIX else (0, 0)
    if core.weight.shape != wanted or core.bias.shape != (core.n_neurons,):
        raise CapacityError(
            f"{where}: weight {core.weight.shape} and bias {core.bias.shape}, wanted {wanted} and ({core.n_neurons},)"
        )
    if core.synapse != SYNAPSE_MATRIX and core.n_axons != core.n_neurons:
        raise CapacityError(f"{where}: vector-add with {core.n_axons} axons and {core.n_neurons} neurons, wanted equal")


def _check_target(where: str, target: int, axon: int, spikes: bool, cores: Sequence[Core]) -> None:
    """Raise CapacityError where a packet would reach an axon that does not exist or does not understand it."""
    core = cores[target]
    if not 0 <= axon < core.n_axons:
        raise CapacityError(f"{where}: packet for axon {axon} of core {target} ({core.name}), which has {core.n_axons}")
    if spikes != (core.axon_mode == AXON_SPIKES):
        kind = "spike" if spikes else "value"
        raise CapacityError(f"{where}: {kind} for core {target} ({core.name}), whose axons are set to the other mode")


def assemble(
    cores: Sequence[Core],
    positions: Sequence[tuple[int, int]],
    inputs: NDArray[np.void],
    n_inputs: int,
    n_outputs: int,
    spike_unit: NDArray[np.int32],
    profile: Profile,
) -> GridProgram:
    """Put cores on the grid and lay the routes.

    Parameters
    ----------
    cores
        What each core does; their order is the order in which values add up.
    positions
        (x, y) of each.
    inputs
        INPUT_DTYPE, ascending in unit: where input lines go.
    n_inputs, n_outputs
        Input lines; values that may leave the chip.
    spike_unit
        int32, shape (n_cores, neurons_per_core): the number under which a neuron's spikes are reported, -1 = not.
        Watching costs no packet and changes nothing.
    profile
        The chip.

    Raises
    ------
    CapacityError
        Naming core and limit, if something does not fit, or a packet would go nowhere.
    """
    width, height = profile.grid_width.value, profile.grid_height.value
    n_cores, n_axons, n_neurons = len(cores), profile.axons_per_core.value, profile.neurons_per_core.value
    at: dict[tuple[int, int], int] = {}
    for number, (x, y) in enumerate(positions):
        if not (0 <= x < width and 0 <= y < height) or (x, y) in at:
            raise CapacityError(
                f"core {number} ({cores[number].name}): place ({x}, {y}) is taken or off the "
                f"{width} x {height} grid of {profile.name}"
            )
        at[x, y] = number
    if len(positions) != n_cores:
        raise CapacityError(f"{n_cores} cores and {len(positions)} places, wanted one place for each")
    if np.any(np.diff(inputs["unit"]) < 0) or any(np.any(np.diff(core.routes["neuron"]) < 0) for core in cores):
        raise CapacityError("routes are not in ascending order of input line or neuron; sort them (stable)")

    synapses = Synapses(
        axon_mode=np.array([core.axon_mode for core in cores], np.int64),
        kind=np.array([core.synapse for core in cores], np.int64),
        n_axons=np.array([core.n_axons for core in cores], np.int64),
        n_neurons=np.array([core.n_neurons for core in cores], np.int64),
        weight=np.zeros((n_cores, n_axons, n_neurons), np.int8),
        n_zero=np.zeros((n_cores, n_axons), np.int32),
        bias=np.zeros((n_cores, n_neurons), np.int32),
        bias_reach=np.zeros(n_cores, np.int64),
    )
    soma = SomaParams(
        **{field: np.zeros(n_cores, np.int64) for field in Soma._fields},
        membrane_bits=np.array([profile.membrane_bits.value], np.int64),
    )
    value_bits = np.array([core.value_bits or profile.membrane_bits.value for core in cores], np.int64)
    flows = _Flows(profile, positions)
    route_start = np.zeros(n_cores * n_neurons + 1, np.int64)
    route_core, route_axon, route_flow = [], [], []
    for number, core in enumerate(cores):
        _check_core(number, core, profile)
        if core.synapse == SYNAPSE_MATRIX:
            weigh_core(synapses, number, np.ascontiguousarray(core.weight))
        synapses.bias[number, : core.n_neurons] = core.bias
        synapses.bias_reach[number] = int(np.abs(core.bias.astype(np.int64)).max(initial=0))
        spikes = core.soma.fire_type == FIRE_SPIKE
        for neuron, dx, dy, axon, port in core.routes.tolist():
            where = f"core {number} ({core.name}), neuron {neuron}"
            target = -1
            if not 0 <= neuron < core.n_neurons:
                raise CapacityError(f"{where}: a route, but the core has {core.n_neurons} neurons")
            if port != OFF_CHIP:
                x, y = positions[number][0] + dx, positions[number][1] + dy
                if (x, y) not in at:
                    raise CapacityError(f"{where}: packet to nowhere, there is no core at ({x}, {y})")
                target = at[x, y]
                _check_target(where, target, axon, spikes, cores)
            elif spikes or not 0 <= axon < n_outputs:
                raise CapacityError(f"{where}: output line {axon}, wanted a value on one of {n_outputs}")
            route_start[number * n_neurons + neuron + 1] += 1
            route_core.append(target)
            route_axon.append(axon)
            route_flow.append(flows.number(number, target))
    input_start = np.zeros(n_inputs + 1, np.int64)
    input_flow = []
    for unit, target, axon in inputs.tolist():
        if not (0 <= unit < n_inputs and 0 <= target < n_cores):
            raise CapacityError(f"input line {unit} to core {target}: there are {n_inputs} lines and {n_cores} cores")
        _check_target(f"input line {unit}", target, axon, True, cores)
        input_start[unit + 1] += 1
        input_flow.append(flows.number(-1, target))

    program = GridProgram(
        synapses=synapses,
        soma=soma,
        value_bits=value_bits,
        value_packets=-(-value_bits // profile.payload_bits.value),
        spike_unit=np.ascontiguousarray(spike_unit, np.int32),
        route_start=np.cumsum(route_start),
        route_core=np.array(route_core, np.int32),
        route_axon=np.array(route_axon, np.int32),
        route_flow=np.array(route_flow, np.int32),
        input_start=np.cumsum(input_start),
        input_core=np.ascontiguousarray(inputs["core"]),
        input_axon=np.ascontiguousarray(inputs["axon"]),
        input_flow=np.array(input_flow, np.int32),
        flow_start=np.cumsum([0, *(len(links) for links in flows.links)], dtype=np.int64),
        flow_link=np.array([link for links in flows.links for link in links], np.int32),
        limits=np.array(
            [profile.macs_per_clock.value, profile.overhead_clocks.value, profile.phase_clocks.value], np.int64
        ),
    )
    for number, core in enumerate(cores):
        write_soma(program, number, core.soma)
    return program
