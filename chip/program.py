"""From cores to flat arrays: check what was asked for, lay the routes, put it all where the kernels can read it.

A routing table is worked off destination by destination, in the order in which the table first names them, and for
each in ascending order of neurons. Lines of neurons n, n + 1, ... to axons a, a + 1, ... of one destination are one
*run*: a layer joined to the next takes one run a core pair instead of hundreds of lines, delivered with one loop.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import (
    ALONG_X,
    ALONG_Y,
    AXON_SPIKES,
    AXON_VALUES,
    FLAGGED,
    FORWARD_OFF,
    FORWARD_RELAY,
    LANES,
    OFF_CHIP,
    SYNAPSE_MATRIX,
    SYNAPSE_VECTOR_ADD,
    TO_CORE,
    VALUE_SIGNED,
    VALUE_TERNARY,
    VALUE_UNSIGNED,
    Core,
    weigh,
)
from chip.mesh import PORT, Plane, Tree, lay_tree, n_links, plane_of
from chip.profile import Profile
from chip.soma import (
    FIRE_CUT_AFTER_LEAK,
    FIRE_CUT_BEFORE_RESET,
    FIRE_MASK_BYTE,
    FIRE_SPIKE,
    FIRE_TABLE,
    SOMA_DTYPE,
    Soma,
)
from stream.errors import CapacityError

__all__ = [
    "INPUT_DTYPE",
    "GridProgram",
    "assemble",
    "core_memory",
    "neurons_of",
    "value_range",
    "weigh_core",
    "write_soma",
]

INPUT_DTYPE = np.dtype([("unit", "<i4"), ("core", "<i4"), ("axon", "<i4")])
"""Where spikes of an input line go; several rows of a unit are several packets."""

CORE_DTYPE = np.dtype(
    [
        (field, "<i8")
        for field in (
            "axon_mode",
            "synapse",
            "n_axons",
            "n_neurons",
            "padded",  # n_neurons, up to a multiple of LANES
            "axon",  # where its axons start
            "neuron",  # where its neurons start
            "weight",  # where its weights start
            "table",  # where its lookup table starts
            "table_size",
            "bias_reach",  # largest magnitude of a bias
            "value_bits",
            "value_low",
            "value_high",
            "watched",  # 1 if any of its spikes is reported
            "first_run",
            "last_run",  # one past
        )
    ]
)
RUN_DTYPE = np.dtype([("neuron", "<i4"), ("count", "<i4"), ("axon", "<i4"), ("tree", "<i4")])
TREE_DTYPE = np.dtype(
    [
        (field, "<i8")
        for field in ("first_target", "last_target", "first_stretch", "last_stretch", "hops", "crossings", "copies")
    ]
)
STRETCH_DTYPE = np.dtype([("first", "<i8"), ("last", "<i8")])
LINE_DTYPE = np.dtype([("core", "<i4"), ("axon", "<i4"), ("tree", "<i4")])
LIMIT_DTYPE = np.dtype(
    [
        (field, "<i8")
        for field in (
            "membrane_bits",
            "payload_bits",
            "macs_per_clock",
            "overhead_clocks",
            "phase_clocks",
            "n_watched",
            "n_input_trees",
            "n_outputs",
        )
    ]
)


class GridProgram(NamedTuple):
    """All cores and routes, flat. Built by :func:`assemble`; nothing but weights and somas is ever written again."""

    cores: NDArray[np.void]  # CORE_DTYPE, shape (n_cores,)
    somas: NDArray[np.void]  # SOMA_DTYPE, shape (n_cores,)
    neurons: NDArray[np.int64]  # shape (n_cores + 1,): where neurons start, padded
    axons: NDArray[np.int64]  # shape (n_cores + 1,): where axons start
    weight: NDArray[np.int8]  # shape (n,): of each core (n_axons, padded) in C order
    n_zero: NDArray[np.int32]  # per axon: weights that are zero in its row
    bias: NDArray[np.int32]  # per neuron
    table: NDArray[np.int32]
    spike_unit: NDArray[np.int32]  # per neuron: number by which a watched one is known, or -1
    runs: NDArray[np.void]  # RUN_DTYPE
    trees: NDArray[np.void]  # TREE_DTYPE; those of the inputs come first
    targets: NDArray[np.int32]  # of trees: numbers of cores, PORT = the output port
    stretches: NDArray[np.void]  # STRETCH_DTYPE, of trees: half-open intervals of ``links``
    links: NDArray[np.int64]  # shape (n_used,): numbers of the links that any tree uses, ascending; see chip.mesh
    input_start: NDArray[np.int64]  # shape (n_inputs + 1,)
    input_lines: NDArray[np.void]  # LINE_DTYPE
    limits: NDArray[np.void]  # LIMIT_DTYPE, shape (1,)


def neurons_of(program: GridProgram, core: int) -> slice:
    """Tell where the neurons of a core stand in arrays of all neurons, such as ``GridState.soma.v``."""
    start = int(program.neurons[core])
    return slice(start, start + int(program.cores["n_neurons"][core]))


def value_range(core: Core, profile: Profile) -> tuple[int, int, int]:
    """Tell the width of the values that a core sends, and the lowest and highest one."""
    narrow = core.soma.fire_type in (FIRE_CUT_BEFORE_RESET, FIRE_CUT_AFTER_LEAK, FIRE_MASK_BYTE, FIRE_TABLE)
    bits = core.value_bits or (8 if narrow else profile.membrane_bits.value)
    if core.value_kind == VALUE_TERNARY:
        return 2, -1, 1
    if core.value_kind == VALUE_UNSIGNED:
        bits = min(bits, 31)  # an axon holds int32
        return bits, 0, (1 << bits) - 1
    return bits, -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def core_memory(core: Core) -> int:
    """Estimate the bytes that a core needs; an estimate, because how a real program lays its buffers is its own affair.

    Weights of one byte, outputs padded to 32 as TianjicX asks for; biases, potentials and table entries of four; axons
    twice (being read, being filled), of four bytes for values and one for spikes.
    """
    padded = -(-core.n_neurons // 32) * 32
    n_weights = core.n_axons * padded if core.synapse == SYNAPSE_MATRIX else 0
    per_axon = 2 * (4 if core.axon_mode == AXON_VALUES else 1)
    return n_weights + per_axon * core.n_axons + 8 * core.n_neurons + 4 * len(core.table)


def weigh_core(program: GridProgram, core: int, weight: NDArray[np.int8]) -> None:
    """Write the weights of a core, int8 of shape (n_axons, n_neurons)."""
    row = program.cores[core]
    n_axons, padded = int(row["n_axons"]), int(row["padded"])
    block = program.weight[row["weight"] : row["weight"] + n_axons * padded].reshape(n_axons, padded)
    weight = np.ascontiguousarray(weight)
    weight = weight if weight.flags.writeable else weight.copy()  # one kind of array in, one compiled kernel
    weigh(weight, block, program.n_zero[row["axon"] : row["axon"] + n_axons])


def write_soma(program: GridProgram, core: int, soma: Soma) -> None:
    """Program the soma of a core."""
    program.somas[core] = tuple(int(value) for value in soma)


def _check_core(where: str, core: Core, profile: Profile) -> None:
    """Raise CapacityError where a core asks for more than there is."""
    half = 1 << (profile.membrane_bits.value - 1)
    soma = core.soma
    limits = [
        ("axons", core.n_axons, 0, profile.axons_per_core.value),
        ("neurons", core.n_neurons, 0, profile.neurons_per_core.value),
        ("axon mode", core.axon_mode, AXON_SPIKES, AXON_VALUES),
        ("synapse", core.synapse, SYNAPSE_MATRIX, SYNAPSE_VECTOR_ADD),
        ("reset mode", soma.reset_mode, 0, 3),
        ("leak mode", soma.leak_mode, 0, 1),
        ("mode of the adaptive threshold", soma.theta_mode, 0, 1),
        ("alpha of the leak", soma.alpha, 0, 255),
        ("alpha of the adaptive threshold", soma.theta_alpha, 0, 255),
        ("refractory phases", soma.refractory_phases, 0, (1 << profile.refractory_bits.value) - 1),
        ("window length", soma.window_length, 0, 255),
        ("shift register", soma.seed, 0, 2**32 - 1),
        ("mask", soma.mask, 0, 2 * half - 1),
        ("shift of the cut", soma.cut_shift, 0, 30),
        ("kind of value", core.value_kind, VALUE_SIGNED, VALUE_TERNARY),
        ("bits of a value", core.value_bits, 0, 31 if core.value_kind == VALUE_UNSIGNED else 32),
        ("mode of the forward register", core.forward.mode, FORWARD_OFF, FORWARD_RELAY),
        *(
            (f"{axis} of the forward register", abs(offset), 0, profile.forward_reach.value)
            for axis, offset in (("dx", core.forward.dx), ("dy", core.forward.dy))
        ),
        *(
            (name.replace("_", " "), int(getattr(soma, name)), -half, half - 1)
            for name in ("v_threshold", "floor", "v_reset", "v_decrement", "beta", "theta_beta", "theta_increment")
        ),
        ("initial potential", soma.v_init, max(soma.floor, -half), half - 1),
    ]
    if profile.core_memory_bytes.value:
        limits.append(("bytes of memory", core_memory(core), 0, profile.core_memory_bytes.value))
    for name, got, low, high in limits:
        if not low <= got <= high:
            raise CapacityError(
                f"{where}: {name} {got}, {profile.name} has {low} to {high}; split the layer, or rescale it"
            )
    if profile.forward_reach.value == 1 and abs(core.forward.dx) + abs(core.forward.dy) > 1:
        raise CapacityError(
            f"{where}: forwards by ({core.forward.dx}, {core.forward.dy}), {profile.name} has (1, 0), (-1, 0), (0, 1) "
            f"and (0, -1): a neighbour"
        )
    if soma.cut_shift % profile.cut_step.value:
        raise CapacityError(f"{where}: cuts {soma.cut_shift} bits, {profile.name} has {profile.cut_step.value} k")
    if soma.fire_type not in (0, 1, 2, 3, 4, 6, 7, 8):
        raise CapacityError(f"{where}: fire type {soma.fire_type}, wanted 0 to 4 or 6 to 8")
    sizes = [1 << bits for bits in profile.table_address_bits.value]
    if (len(core.table) not in sizes) if soma.fire_type == FIRE_TABLE else len(core.table):
        raise CapacityError(
            f"{where}: a lookup table of {len(core.table)} entries with fire type {soma.fire_type}, "
            f"{profile.name} has {sizes} with fire type {FIRE_TABLE}, and none with others"
        )
    bits, low, high = value_range(core, profile)
    if len(core.table) and not low <= int(core.table.min()) <= int(core.table.max()) <= high:
        raise CapacityError(
            f"{where}: lookup table from {core.table.min()} to {core.table.max()}, its values of {bits} bits "
            f"go from {low} to {high}"
        )
    wanted = (core.n_axons, core.n_neurons) if core.synapse == SYNAPSE_MATRIX else (0, 0)
    if core.weight.shape != wanted or core.bias.shape != (core.n_neurons,):
        raise CapacityError(
            f"{where}: weight {core.weight.shape} and bias {core.bias.shape}, wanted {wanted} and ({core.n_neurons},)"
        )
    if core.synapse != SYNAPSE_MATRIX and core.n_axons != core.n_neurons:
        raise CapacityError(f"{where}: vector-add with {core.n_axons} axons and {core.n_neurons} neurons, wanted equal")
    if core.watch.shape not in ((0,), (core.n_neurons,)):
        raise CapacityError(f"{where}: numbers for {len(core.watch)} watched neurons, wanted {core.n_neurons} or none")


class _Layout:
    """What :func:`assemble` gathers: trees, runs, and the checks that need all cores at once."""

    def __init__(
        self, cores: Sequence[Core], places: Sequence[tuple[int, int]], n_outputs: int, profile: Profile, plane: Plane
    ) -> None:
        self.cores, self.places, self.profile, self.plane = cores, places, profile, plane
        self.n_outputs = n_outputs
        self.at: dict[tuple[int, int], int] = {}
        self.trees: list[Tree] = []
        self.runs: list[NDArray[np.void]] = []
        for number, (x, y) in enumerate(places):
            if not (0 <= x < plane.width and 0 <= y < plane.height) or (x, y) in self.at:
                raise CapacityError(
                    f"core {number} ({cores[number].name}): place ({x}, {y}) is taken or off the "
                    f"{plane.width} x {plane.height} grid of {profile.name}"
                )
            self.at[x, y] = number

    def where(self, number: int) -> str:
        """Name a core in messages."""
        x, y = self.places[number]
        return f"core {number} ({self.cores[number].name}) at ({x}, {y})"

    def check_axons(self, where: str, target: int, axons: NDArray[np.int32], spikes: bool) -> int | None:
        """Raise CapacityError where packets do not suit a core; return the place of the first axon it has not."""
        core = self.cores[target]
        if spikes != (core.axon_mode == AXON_SPIKES):
            kind = "spike" if spikes else "value"
            raise CapacityError(f"{where}: {kind} for {self.where(target)}, whose axons are set to the other mode")
        wrong = np.flatnonzero((axons < 0) | (axons >= core.n_axons))
        return int(wrong[0]) if len(wrong) else None

    def check_lines(self, source: int, tree: Tree, lines: NDArray[np.void]) -> None:
        """Raise CapacityError where a packet would reach an axon that is not there, or cannot read it."""
        spikes = self.cores[source].soma.fire_type == FIRE_SPIKE
        first = f"{self.where(source)}, neuron {lines['neuron'][0]}"
        for target in tree.targets:
            if target == PORT:
                wrong = np.flatnonzero((lines["axon"] < 0) | (lines["axon"] >= self.n_outputs))
                if spikes or len(wrong):
                    k = 0 if spikes else int(wrong[0])
                    raise CapacityError(
                        f"{self.where(source)}, neuron {lines['neuron'][k]}: output line {lines['axon'][k]}, "
                        f"wanted a value on one of {self.n_outputs}"
                    )
                continue
            k_or_none = self.check_axons(first, target, lines["axon"], spikes)
            if k_or_none is not None:
                raise CapacityError(
                    f"{self.where(source)}, neuron {lines['neuron'][k_or_none]}: packet for axon "
                    f"{lines['axon'][k_or_none]} of {self.where(target)}, which has {self.cores[target].n_axons}"
                )

    def lay(self, source: int) -> int:
        """Lay the routes of a core. Returns how many runs they are."""
        core, routes = self.cores[source], self.cores[source].routes
        neurons = routes["neuron"].astype(np.int64)
        if len(routes) == 0:
            return 0
        if np.any(np.diff(neurons) < 0):
            raise CapacityError(
                f"{self.where(source)}: routes are not in ascending order of neurons; sort them (stable)"
            )
        wrong = neurons[(neurons < 0) | (neurons >= core.n_neurons)]
        if len(wrong):
            raise CapacityError(
                f"{self.where(source)}, neuron {wrong[0]}: a route, but the core has {core.n_neurons} neurons"
            )
        keys = np.stack([routes[name] for name in ("dx", "dy", "port", "steps")], axis=1)
        ways, first, way = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(ways), np.int64)
        rank[np.argsort(first)] = np.arange(len(ways))
        way = rank[way.reshape(-1)]
        for k in np.argsort(first):
            dx, dy, port, steps = (int(number) for number in ways[k])
            lines = routes[way == rank[k]]
            tree = self.tree(source, dx, dy, port, steps, f"{self.where(source)}, neuron {lines['neuron'][0]}")
            self.check_lines(source, tree, lines)
            self.trees.append(tree)
        # Within a destination, lines of the same axon stay in the order of their neurons.
        diagonal = neurons - routes["axon"]
        order = np.lexsort((neurons, diagonal, way))
        neurons, diagonal, way = neurons[order], diagonal[order], way[order]
        begins = np.ones(len(order), bool)
        begins[1:] = (np.diff(way) != 0) | (np.diff(diagonal) != 0) | (np.diff(neurons) != 1)
        starts = np.flatnonzero(begins)
        runs = np.zeros(len(starts), RUN_DTYPE)
        runs["neuron"] = neurons[starts]
        runs["count"] = np.diff(np.append(starts, len(order)))
        runs["axon"] = routes["axon"][order][starts]
        runs["tree"] = len(self.trees) - len(ways) + way[starts]
        self.runs.append(runs)
        return len(runs)

    def tree(self, source: int, dx: int, dy: int, port: int, steps: int, where: str) -> Tree:
        """Lay the tree of one destination."""
        target = PORT
        if port not in (TO_CORE, OFF_CHIP, FLAGGED, ALONG_X, ALONG_Y):
            raise CapacityError(f"{where}: port {port}, wanted 0 to 4")
        most = self.profile.multicast_steps.value if port in (ALONG_X, ALONG_Y) else 0
        if abs(steps) > most:
            raise CapacityError(f"{where}: packet to {steps} cores beyond its target, {self.profile.name} has {most}")
        if port != OFF_CHIP:
            reach = 1 << (self.profile.address_bits.value - 1)
            if not (-reach <= dx < reach and -reach <= dy < reach):
                raise CapacityError(
                    f"{where}: relative address ({dx}, {dy}), {self.profile.name} has {-reach} to {reach - 1}; "
                    f"place the cores nearer to each other"
                )
            x, y = self.places[source][0] + dx, self.places[source][1] + dy
            if (x, y) not in self.at:
                raise CapacityError(f"{where}: packet to nowhere, there is no core at ({x}, {y})")
            target = self.at[x, y]
        return lay_tree(self.plane, self.cores, self.places, self.at, source, target, port, steps, where)


def assemble(
    cores: Sequence[Core],
    positions: Sequence[tuple[int, int]],
    inputs: NDArray[np.void],
    n_inputs: int,
    n_outputs: int,
    profile: Profile,
    *,
    chips: tuple[int, int] = (1, 1),
    routing: str | None = None,
) -> GridProgram:
    """Put cores on the grid and lay the routes.

    Parameters
    ----------
    cores
        What each core does; their order is the order in which values add up.
    positions
        (x, y) of each, on the plane of all chips.
    inputs
        INPUT_DTYPE, ascending in unit: where input lines go.
    n_inputs, n_outputs
        Input lines; values that may leave the chip.
    profile
        The chip.
    chips
        Columns and rows of chips, side by side.
    routing
        ``x_first`` or ``y_first``; default what the profile says.

    Raises
    ------
    CapacityError
        Naming core and limit, if something does not fit, or a packet would go nowhere.
    """
    plane = plane_of(profile, chips, routing)
    n_cores = len(cores)
    if len(positions) != n_cores:
        raise CapacityError(f"{n_cores} cores and {len(positions)} places, wanted one place for each")
    layout = _Layout(cores, positions, n_outputs, profile, plane)
    for number, core in enumerate(cores):
        _check_core(layout.where(number), core, profile)

    table = np.zeros(n_cores, CORE_DTYPE)
    for name in ("axon_mode", "synapse", "n_axons", "n_neurons"):
        table[name] = [getattr(core, name) for core in cores]
    table["padded"] = -(-table["n_neurons"] // LANES) * LANES
    n_weights = np.where(table["synapse"] == SYNAPSE_MATRIX, table["n_axons"] * table["padded"], 0)
    starts = {}
    for name, sizes in (
        ("axon", table["n_axons"]),
        ("neuron", table["padded"]),
        ("weight", n_weights),
        ("table", np.array([len(core.table) for core in cores], np.int64)),
    ):
        starts[name] = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        table[name] = starts[name][:-1]
    table["table_size"] = np.diff(starts["table"])
    ranges = np.array([value_range(core, profile) for core in cores], np.int64).reshape(n_cores, 3)
    table["value_bits"], table["value_low"], table["value_high"] = ranges.T

    input_core, input_axon = inputs["core"], inputs["axon"]
    if np.any(np.diff(inputs["unit"]) < 0):
        raise CapacityError("input lines are not in ascending order of units; sort them (stable)")
    lines = np.zeros(len(inputs), LINE_DTYPE)
    lines["core"], lines["axon"] = input_core, input_axon
    wrong = (inputs["unit"] < 0) | (inputs["unit"] >= n_inputs) | (input_core < 0) | (input_core >= n_cores)
    if wrong.any():
        unit, target, _ = inputs[wrong][0].tolist()
        raise CapacityError(f"input line {unit} to core {target}: there are {n_inputs} lines and {n_cores} cores")
    reached = np.unique(input_core)
    for target in reached.tolist():
        mine = inputs[input_core == target]
        spikes = cores[target].axon_mode == AXON_SPIKES  # the host speaks either way
        k = layout.check_axons(f"input line {mine['unit'][0]}", target, mine["axon"], spikes)
        if k is not None:
            raise CapacityError(
                f"input line {mine['unit'][k]}: packet for axon {mine['axon'][k]} of {layout.where(target)}, "
                f"which has {cores[target].n_axons}"
            )
        layout.trees.append(lay_tree(plane, cores, positions, layout.at, PORT, target, TO_CORE, 0, "input"))
    lines["tree"] = np.searchsorted(reached, input_core)

    for number in range(n_cores):
        table["first_run"][number] = sum_before = 0 if number == 0 else table["last_run"][number - 1]
        table["last_run"][number] = sum_before + layout.lay(number)

    trees = np.zeros(len(layout.trees), TREE_DTYPE)
    for name in ("hops", "crossings", "copies"):
        trees[name] = [getattr(tree, name) for tree in layout.trees]
    for name, pieces in (
        ("target", [len(tree.targets) for tree in layout.trees]),
        ("stretch", [len(tree.stretches) for tree in layout.trees]),
    ):
        trees[f"last_{name}"] = np.cumsum(pieces)
        trees[f"first_{name}"] = trees[f"last_{name}"] - pieces
    # Only links that some tree uses are kept: what a phase costs goes with them, not with the size of the plane.
    ends = np.array([pair for tree in layout.trees for pair in tree.stretches], np.int64).reshape(-1, 2)
    steps = np.zeros(n_links(plane) + 1, np.int64)
    np.add.at(steps, ends[:, 0], 1)
    np.add.at(steps, ends[:, 1], -1)
    used = np.cumsum(steps[:-1]) > 0
    number_of = np.concatenate([np.zeros(1, np.int64), np.cumsum(used)])
    stretches = np.zeros(len(ends), STRETCH_DTYPE)
    stretches["first"] = number_of[ends[:, 0]]
    stretches["last"] = stretches["first"] + ends[:, 1] - ends[:, 0]

    n_neurons = int(starts["neuron"][-1])
    bias, spike_unit = np.zeros(n_neurons, np.int32), np.full(n_neurons, -1, np.int32)
    for number, core in enumerate(cores):
        at = slice(int(table["neuron"][number]), int(table["neuron"][number]) + core.n_neurons)
        bias[at] = core.bias
        table["bias_reach"][number] = int(np.abs(core.bias.astype(np.int64)).max(initial=0))
        if len(core.watch):
            spike_unit[at] = core.watch
            table["watched"][number] = bool((core.watch >= 0).any())
    limits = np.zeros(1, LIMIT_DTYPE)
    for name in ("membrane_bits", "payload_bits", "macs_per_clock", "overhead_clocks"):
        limits[name] = getattr(profile, name).value
    limits["phase_clocks"] = profile.phase_clocks.value or 2**62  # no fixed length: no overrun
    limits["n_watched"] = (spike_unit >= 0).sum()
    limits["n_input_trees"], limits["n_outputs"] = len(reached), n_outputs
    tables = [core.table for core in cores if len(core.table)]
    program = GridProgram(
        cores=table,
        somas=np.zeros(n_cores, SOMA_DTYPE),
        neurons=starts["neuron"],
        axons=starts["axon"],
        weight=np.zeros(int(starts["weight"][-1]), np.int8),
        n_zero=np.zeros(int(starts["axon"][-1]), np.int32),
        bias=bias,
        table=np.concatenate(tables).astype(np.int32) if tables else np.zeros(0, np.int32),
        spike_unit=spike_unit,
        runs=np.concatenate(layout.runs) if layout.runs else np.zeros(0, RUN_DTYPE),
        trees=trees,
        targets=np.array([target for tree in layout.trees for target in tree.targets], np.int32),
        stretches=stretches,
        links=np.flatnonzero(used),
        input_start=np.searchsorted(inputs["unit"], np.arange(n_inputs + 1)).astype(np.int64),
        input_lines=lines,
        limits=limits,
    )
    for number, core in enumerate(cores):
        if core.synapse == SYNAPSE_MATRIX:
            weigh_core(program, number, core.weight)
        write_soma(program, number, core.soma)
    return program
