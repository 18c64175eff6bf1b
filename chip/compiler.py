"""From a network in integers to cores: align, split, place, route.

Time
----
A layer takes one phase, and one more where its sums are made on other cores (:mod:`chip.split`). So that spikes which
belong together meet, every layer has an *offset*: phases that it is behind a network of whole layers. With d the delay
of a link and split = 1 where the target's sums are made elsewhere, a link waits for

    wait = d + (offset of target - split) - offset of source >= 0

phases, and offsets are the least ones for which that holds. Who waits goes through *relays*, layers without memory that
hand on what they get a phase later. Along a cycle offsets cancel: its delays must pay for its splits, or it cannot be
compiled, and the error names it.

Then come :mod:`chip.split`, :mod:`chip.placement` and the routing tables, and :func:`chip.program.assemble` checks
everything once more, as it would a program made by hand.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import (
    AXON_VALUES,
    OFF_CHIP,
    ROUTE_DTYPE,
    SYNAPSE_MATRIX,
    SYNAPSE_VECTOR_ADD,
    Core,
)
from chip.fold import Folded, check_rows, fold, rows_per_phase
from chip.mesh import PORT
from chip.network import (
    INPUT_LAYER,
    Layer,
    Link,
    QuantisedNetwork,
    check_links,
    incoming,
    is_spiking,
    sender_shape,
    weight_of,
    weights_between,
)
from chip.placement import Way, lines_through, place
from chip.profile import Profile
from chip.program import INPUT_DTYPE, GridProgram, assemble, neurons_of, weigh_core, write_soma
from chip.soma import FIRE_MEMBRANE_BEFORE_RESET, FIRE_SPIKE, RESET_NONE, Soma
from chip.split import LayerPlan, Part, parts_of, plan_layer
from neurons.graph import Shape, n_units
from neurons.one_to_one import OneToOne
from stream.errors import CapacityError, ConfigError

__all__ = ["Program", "compile_network", "count_cores", "fits", "latencies", "program_bytes", "reweigh"]

SOMA_BYTES = 16  # a parameter block of four words
SPIKES_PER_PHASE = 0.02  # of a unit, where nobody measured: 20 Hz in phases of 1 ms
PACKETS_PER_VALUE = 1.0  # of a partial sum or a potential in a phase, likewise
MOST_TERMS = 2**31 // 128


class Program(NamedTuple):
    """A compiled network."""

    profile: Profile
    network: QuantisedNetwork  # as given
    woven: QuantisedNetwork  # the same with relays; layers of the given one come first
    offsets: list[int]  # of each woven layer: phases behind a network of whole layers
    parts: list[Part]  # one for each core
    cores: list[Core]  # as first compiled; weights in force are those of ``grid``
    positions: list[tuple[int, int]]  # (x, y) of each core
    grid: GridProgram
    n_inputs: int
    n_outputs: int
    outputs: dict[str, slice]  # layers whose values leave, and on which lines
    watched: dict[str, slice]  # layers whose spikes are reported, and by which numbers
    multicast: bool
    folded: Folded | None = None  # semi-folded: ``network`` is that of rows, and :mod:`chip.frames` runs it

    @property
    def whole(self) -> QuantisedNetwork:
        """The network that was to be brought onto the chip; its phase is a step of the float network."""
        return self.network if self.folded is None else self.folded.whole


def _relay(layer_name: str, source: Layer | None, shape: Shape, number: int) -> Layer:
    """Make a layer that hands on what it gets."""
    name, n = f"{layer_name} later by {number}", n_units(shape)
    if source is None or is_spiking(source):
        soma = Soma(reset_mode=RESET_NONE, window_length=0, fire_type=FIRE_SPIKE)
        return Layer(name, shape, soma, np.zeros(n, np.int32))
    half = 1 << 27
    soma = Soma(v_threshold=half - 1, reset_mode=RESET_NONE, window_length=0, fire_type=FIRE_MEMBRANE_BEFORE_RESET)
    bits = source.value_bits or (8 if len(source.table) else 0)
    return Layer(name, shape, soma, np.zeros(n, np.int32), value_bits=bits, sent_scale=source.sent_scale)


def _name(network: QuantisedNetwork, number: int) -> str:
    return "input" if number == INPUT_LAYER else network.layers[number].name


def _offsets(network: QuantisedNetwork, plans: Sequence[LayerPlan]) -> list[int]:
    """Find the least offsets for which no link would have to go back in time.

    Raises
    ------
    CapacityError
        Naming a layer in a cycle whose delays are too short.
    """
    offsets = [plan.latency for plan in plans]
    for _ in range(len(offsets) + 1):
        is_settled = True
        for link in network.links:
            source = 0 if link.source == INPUT_LAYER else offsets[link.source]
            wanted = source + plans[link.target].latency - link.delay
            if wanted > offsets[link.target]:
                offsets[link.target] = wanted
                is_settled = False
        if is_settled:
            return offsets
    stuck = next(
        link
        for link in network.links
        if plans[link.target].latency > link.delay and link.source in _reached(network, link.target)
    )
    target = network.layers[stuck.target]
    raise CapacityError(
        f"{target.name}: has more inputs than a core has axons, so its sums take a phase more, and the cycle through "
        f"{_name(network, stuck.source)} -> {target.name} leaves no time for it; give that projection a delay of one "
        f"phase more ({network.phase_us} us), or let fewer units reach it"
    )


def _reached(network: QuantisedNetwork, number: int) -> set[int]:
    """Find the layers that a layer leads to, itself too."""
    found, left = {number}, [number]
    while left:
        at = left.pop()
        more = {link.target for link in network.links if link.source == at} - found
        found |= more
        left += more
    return found


def _is_end(network: QuantisedNetwork, number: int) -> bool:
    """Tell whether a layer leads to nothing but what leads back to it: whoever listens, listens here."""
    return all(number in _reached(network, other) for other in _reached(network, number))


def _weave(network: QuantisedNetwork, plans: list[LayerPlan], offsets: list[int], profile: Profile) -> QuantisedNetwork:
    """Put relays where links wait; plans and offsets are lengthened."""
    layers, links = list(network.layers), list(network.links)
    relays: dict[tuple[int, int], int] = {}  # (layer, phases later): the layer that says it then

    def later(source: int, wait: int) -> int:
        if wait == 0:
            return source
        if source == INPUT_LAYER and network.input_values:
            raise CapacityError(
                f"{network.layers[link.target].name}: its input would have to wait {wait} phases, and values from "
                f"outside cannot; let nothing but the first layer read the input"
            )
        if (source, wait) not in relays:
            before = later(source, wait - 1)
            shape = sender_shape(network, source)
            sender = None if source == INPUT_LAYER else network.layers[source]
            layers.append(_relay(_name(network, source), sender, shape, wait))
            number = relays[source, wait] = len(layers) - 1
            links.append(Link(before, number, OneToOne(1)))
            # input is there at once, so its first relay has no phase to gain; see below
            offsets.append((0 if source == INPUT_LAYER else offsets[source]) + wait)
        return relays[source, wait]

    for k, link in enumerate(network.links):
        source = 0 if link.source == INPUT_LAYER else offsets[link.source]
        wait = link.delay + offsets[link.target] - plans[link.target].latency - source
        links[k] = link._replace(source=later(link.source, wait), delay=0)
    woven = network._replace(layers=layers, links=links)
    for number in range(len(network.layers), len(layers)):
        plans.append(plan_layer(woven, number, profile))
    return woven


def _check_fit(parts: Sequence[Part], network: QuantisedNetwork, profile: Profile) -> None:
    """Raise CapacityError, naming the layer that goes over the edge, unless there are cores enough."""
    if len(parts) <= profile.n_cores:
        return
    over = parts[profile.n_cores].layer

    def words(number: int) -> str:
        layer = network.layers[number]
        n_pre = sum(n_units(sender_shape(network, network.links[k].source)) for k in incoming(network, number))
        return f"{layer.name} {n_pre}-{n_units(layer.shape)} {sum(part.layer == number for part in parts)}"

    raise CapacityError(
        f"{network.layers[over].name}: does not fit, the network takes {len(parts)} cores and {profile.name} has "
        f"{profile.n_cores} (cores: {', '.join(words(number) for number in range(len(network.layers)))}); make layers "
        f"narrower, pool the input, or use a larger profile"
    )


def _block(network: QuantisedNetwork, part: Part) -> NDArray[np.int8]:
    """Write out the weights of a core, int8, shape (n_axons, n_neurons)."""
    blocks = []
    target = network.layers[part.layer].shape
    for k in _in_order(part.axon_link):
        link = network.links[k]
        pre = part.axon_unit[part.axon_link == k]
        blocks.append(weights_between(link.topology, sender_shape(network, link.source), target, pre, part.post))
    if not blocks:
        return np.zeros((0, len(part.post)), np.int8)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _in_order(numbers: NDArray[np.int64]) -> list[int]:
    """List what occurs, in order of first occurrence."""
    return list(dict.fromkeys(numbers.tolist()))


def _soma(part: Part, layer: Layer, profile: Profile) -> Soma:
    """Say what the soma of a part does."""
    if part.holds_neurons:
        return layer.soma
    half = 1 << (profile.membrane_bits.value - 1)
    # a potential never exceeds half - 1, and firing is strict: this threshold is never passed
    return Soma(
        v_threshold=half - 1,
        floor=-half,
        reset_mode=RESET_NONE,
        window_length=0,
        fire_type=FIRE_MEMBRANE_BEFORE_RESET,
    )


class _Owners(NamedTuple):
    """Which core holds a unit, and as which neuron."""

    core: NDArray[np.int64]
    neuron: NDArray[np.int64]


def _owners(network: QuantisedNetwork, parts: Sequence[Part]) -> list[_Owners]:
    owners = [
        _Owners(np.zeros(n_units(layer.shape), np.int64), np.zeros(n_units(layer.shape), np.int64))
        for layer in network.layers
    ]
    for number, part in enumerate(parts):
        if part.holds_neurons:
            owners[part.layer].core[part.post] = number
            owners[part.layer].neuron[part.post] = np.arange(len(part.post))
    return owners


class _Wire(NamedTuple):
    """Neurons of a core that reach axons of another."""

    source: int  # a core, or PORT
    target: int  # likewise
    neuron: NDArray[np.int64]  # of the source core; from outside: the input line
    axon: NDArray[np.int64]  # of the target core; to the outside: the output line


def _wires(network: QuantisedNetwork, parts: Sequence[Part], outputs: dict[int, int]) -> Iterator[_Wire]:
    """List who reaches whom; ``outputs``: the first output line of layers whose values leave."""
    owners = _owners(network, parts)
    adders: dict[tuple[int, int], int] = {
        (part.layer, int(part.post[0])): number for number, part in enumerate(parts) if not part.holds_weights
    }
    for number, part in enumerate(parts):
        if part.holds_weights:
            for k in _in_order(part.axon_link):
                axons = np.flatnonzero((part.axon_link == k) & (part.axon_unit >= 0))
                unit = part.axon_unit[axons]
                source = network.links[k].source
                if source == INPUT_LAYER:
                    yield _Wire(PORT, number, unit, axons)
                    continue
                cores, neurons = owners[source].core[unit], owners[source].neuron[unit]
                for core in _in_order(cores):
                    mine = cores == core
                    yield _Wire(core, number, neurons[mine], axons[mine])
        if not part.holds_neurons:
            every = np.arange(len(part.post))
            yield _Wire(number, adders[part.layer, int(part.post[0])], every, every)
        elif part.layer in outputs:
            yield _Wire(number, PORT, np.arange(len(part.post)), outputs[part.layer] + part.post)


def _ways(
    wires: Sequence[_Wire],
    parts: Sequence[Part],
    network: QuantisedNetwork,
    spikes: dict[str, NDArray[np.float64]] | None,
) -> list[Way]:
    """Estimate who sends how many packets to whom in a phase."""
    ways = []
    for wire in wires:
        if wire.source == PORT:
            rate = spikes.get("input") if spikes else None
            amount = SPIKES_PER_PHASE * len(wire.neuron) if rate is None else float(rate[wire.neuron].sum())
        else:
            part = parts[wire.source]
            layer = network.layers[part.layer]
            if part.holds_neurons and is_spiking(layer):
                rate = spikes.get(layer.name) if spikes else None
                units = part.post[wire.neuron]
                amount = SPIKES_PER_PHASE * len(units) if rate is None else float(rate[units].sum())
            else:
                amount = PACKETS_PER_VALUE * len(wire.neuron)
        ways.append(Way(wire.source, wire.target, amount))
    return ways


def _routes(
    n_cores: int, wires: Sequence[_Wire], places: Sequence[tuple[int, int]], most_steps: int
) -> list[NDArray[np.void]]:
    """Write the routing table of every core."""
    routes: list[NDArray[np.void]] = []
    by_source: list[list[_Wire]] = [[] for _ in range(n_cores)]
    for wire in wires:
        if wire.source != PORT:
            by_source[wire.source].append(wire)
    for source, mine in enumerate(by_source):
        tables = [np.zeros(0, ROUTE_DTYPE)]
        here = places[source]
        for wire in mine:
            if wire.target == PORT:
                table = np.zeros(len(wire.neuron), ROUTE_DTYPE)
                table["neuron"], table["axon"], table["port"] = wire.neuron, wire.axon, OFF_CHIP
                tables.append(table)
        for neurons, axons, targets in _shared([wire for wire in mine if wire.target != PORT]):
            for line in lines_through(here, targets, list(places), most_steps):
                table = np.zeros(len(neurons), ROUTE_DTYPE)
                table["neuron"], table["axon"] = neurons, axons
                table["dx"], table["dy"] = places[line.target][0] - here[0], places[line.target][1] - here[1]
                table["port"], table["steps"] = line.port, line.steps
                tables.append(table)
        joined = np.concatenate(tables)
        routes.append(joined[np.argsort(joined["neuron"], kind="stable")])
    return routes


def _shared(wires: Sequence[_Wire]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], list[int]]]:
    """Gather the (neuron, axon) pairs that go to the same cores: neurons, axons, cores."""
    if len(wires) == 1:
        yield wires[0].neuron, wires[0].axon, [wires[0].target]
        return
    reached: dict[tuple[int, int], list[int]] = {}
    for wire in wires:
        for pair in zip(wire.neuron.tolist(), wire.axon.tolist(), strict=True):
            reached.setdefault(pair, []).append(wire.target)
    alike: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for pair, targets in reached.items():
        alike.setdefault(tuple(targets), []).append(pair)
    for targets_of, pairs in alike.items():
        both = np.array(sorted(pairs), np.int64)
        yield both[:, 0], both[:, 1], list(targets_of)


def _cut(network: QuantisedNetwork, profile: Profile) -> tuple[QuantisedNetwork, list[int], list[Part]]:
    """Align the layers in time and cut them; returns the woven network, its offsets, its parts."""
    plans = [plan_layer(network, number, profile) for number in range(len(network.layers))]
    offsets = _offsets(network, plans)
    woven = _weave(network, plans, offsets, profile)
    parts: list[Part] = []
    for number, plan in enumerate(plans):
        parts += parts_of(woven, number, plan)
    return woven, offsets, parts


def latencies(program: Program) -> list[int]:
    """Count the phases from an event to what each woven layer first says of it, that of the event included.

    Semi-folded: from the first row of a frame to the last row of each layer of the network.
    """
    if program.folded is not None:
        rows = zip(program.folded.rows, program.offsets, strict=False)
        return [it.first + late + (it.n - 1) * it.every + 1 for it, late in rows]
    links, never = program.woven.links, 1 << 30
    late = [never] * len(program.woven.layers)
    for _ in late:
        for link in links:
            # of woven layers: a phase each, and one where sums are made elsewhere
            split = any(not part.holds_neurons and part.layer == link.target for part in program.parts)
            before = 0 if link.source == INPUT_LAYER else late[link.source]
            late[link.target] = min(late[link.target], before + 1 + split)
    return [1 if phases == never else phases for phases in late]


def count_cores(network: QuantisedNetwork, profile: Profile) -> int:
    """Count the cores that a network would take, however many there are."""
    return len(_cut(network, profile)[2])


def compile_network(
    network: QuantisedNetwork,
    profile: Profile,
    positions: Sequence[tuple[int, int]] | None = None,
    *,
    placement: str = "annealed",
    seed: int = 1,
    spikes: dict[str, NDArray[np.float64]] | None = None,
    multicast: bool = True,
    folded: bool = False,
) -> Program:
    """Cut a network into cores, place them and lay the routes.

    Parameters
    ----------
    network
        In integers.
    profile
        The chip.
    positions
        (x, y) of each core, in the order of ``Program.parts``; default: see ``placement``.
    placement, seed
        As for :func:`chip.placement.place`.
    spikes
        Measured spikes of each unit in a phase, by name of the layer (``input``: of what comes in), for the placement;
        default: all units alike.
    multicast
        Let packets that go to cores in a straight line share the way.
    folded
        Semi-fold it (:mod:`chip.fold`): fewer cores, and a phase for each row of a frame.

    Raises
    ------
    CapacityError
        Naming layer or core and the limit.
    ConfigError
        If a topology does not fit its layers, or a layer cannot be folded.
    """
    check_links(network)
    if folded:
        made = fold(network)
        check_rows(made, profile)
        rates = None if spikes is None else rows_per_phase(made, spikes)
        program = compile_network(
            made.network, profile, positions, placement=placement, seed=seed, spikes=rates, multicast=multicast
        )
        return program._replace(folded=made)
    for layer in network.layers:
        terms = sum(
            n_units(sender_shape(network, link.source))
            * (
                128
                if (network.input_values if link.source == INPUT_LAYER else not is_spiking(network.layers[link.source]))
                else 1
            )
            for link in network.links
            if network.layers[link.target] is layer
        )
        # beyond it an axon of the vector-add core could saturate, and the split layer would differ from the whole
        if terms >= MOST_TERMS:
            raise CapacityError(f"{layer.name}: {terms} inputs overflow a 32-bit sum; split the layer")
    woven, offsets, parts = _cut(network, profile)
    _check_fit(parts, woven, profile)

    sources = {link.source for link in woven.links}
    outputs: dict[int, int] = {}
    n_outputs = 0
    for number, layer in enumerate(network.layers):
        if not is_spiking(layer) and number not in sources:
            outputs[number] = n_outputs
            n_outputs += n_units(layer.shape)
    watched: dict[int, int] = {}
    n_watched = 0
    last = {link.source for link in network.links if link.target in outputs}
    for number, layer in enumerate(network.layers):
        if is_spiking(layer) and (number in last or _is_end(network, number)):
            watched[number] = n_watched
            n_watched += n_units(layer.shape)

    wires = list(_wires(woven, parts, outputs))
    if positions is None:
        places = place(placement, _ways(wires, parts, woven, spikes), profile, len(parts), seed)
    else:
        places = [(int(x), int(y)) for x, y in positions]
    if len(places) != len(parts):
        raise CapacityError(f"{len(parts)} cores and {len(places)} places, wanted one place for each")
    tables = _routes(len(parts), wires, places, profile.multicast_steps.value if multicast else 0)
    cores = []
    for number, part in enumerate(parts):
        layer = woven.layers[part.layer]
        n_neurons = len(part.post)
        cores.append(
            Core(
                name=_core_name(woven, part),
                axon_mode=part.axon_mode if part.holds_weights else AXON_VALUES,
                synapse=SYNAPSE_MATRIX if part.holds_weights else SYNAPSE_VECTOR_ADD,
                n_axons=len(part.axon_unit) if part.holds_weights else n_neurons,
                n_neurons=n_neurons,
                weight=np.ascontiguousarray(_block(woven, part), np.int8)
                if part.holds_weights
                else np.zeros((0, 0), np.int8),
                bias=layer.bias[part.post] if part.holds_neurons else np.zeros(n_neurons, np.int32),
                soma=_soma(part, layer, profile),
                routes=tables[number],
                value_bits=layer.value_bits if part.holds_neurons else profile.partial_sum_bits.value,
                value_kind=layer.value_kind if part.holds_neurons else 0,
                table=layer.table if part.holds_neurons else np.zeros(0, np.int32),
                watch=(watched[part.layer] + part.post).astype(np.int32)
                if part.holds_neurons and part.layer in watched
                else np.zeros(0, np.int32),
            )
        )
    n_inputs = n_units(network.inputs)
    rows = [np.zeros(0, INPUT_DTYPE)]
    for wire in wires:
        if wire.source == PORT:
            table = np.zeros(len(wire.neuron), INPUT_DTYPE)
            table["unit"], table["core"], table["axon"] = wire.neuron, wire.target, wire.axon
            rows.append(table)
    inputs = np.concatenate(rows)
    inputs = inputs[np.lexsort((inputs["core"], inputs["unit"]))]
    grid = assemble(cores, places, inputs, n_inputs, n_outputs, profile)

    def named(firsts: dict[int, int]) -> dict[str, slice]:
        layers = network.layers
        return {layers[k].name: slice(first, first + n_units(layers[k].shape)) for k, first in firsts.items()}

    return Program(
        profile,
        network,
        woven,
        offsets,
        parts,
        cores,
        places,
        grid,
        n_inputs,
        n_outputs,
        named(outputs),
        named(watched),
        multicast,
    )


def _core_name(network: QuantisedNetwork, part: Part) -> str:
    """Say which part of which layer a core is, for messages."""
    units = part.axon_unit[part.axon_unit >= 0]
    came = f"{units.min()}:{units.max() + 1}" if len(units) else "sums"
    return f"{network.layers[part.layer].name} {came} to {part.post.min()}:{part.post.max() + 1}"


def fits(program: Program, network: QuantisedNetwork) -> bool:
    """Tell whether a network has the structure of the one compiled, so that :func:`reweigh` can write it."""
    old = program.network
    return (
        program.folded is None
        and network.input_values == old.input_values
        and len(network.layers) == len(old.layers)
        and len(network.links) == len(old.links)
        and all(
            (n_units(new.shape), new.soma.fire_type) == (n_units(was.shape), was.soma.fire_type)
            for new, was in zip(network.layers, old.layers, strict=True)
        )
        and all(
            (new.source, new.target, new.delay, type(new.topology), np.shape(weight_of(new.topology)))
            == (was.source, was.target, was.delay, type(was.topology), np.shape(weight_of(was.topology)))
            for new, was in zip(network.links, old.links, strict=True)
        )
    )


def reweigh(program: Program, network: QuantisedNetwork) -> int:
    """Write new weights, thresholds, leaks and biases into a program, in place; no route changes.

    Returns
    -------
    int
        Bytes that would go to the chip: one for each weight, a parameter block for each soma that holds neurons.

    Raises
    ------
    ConfigError
        If the network has another structure than the one compiled.
    """
    old = program.network
    if not fits(program, network):
        raise ConfigError(
            f"new weights of shapes {[np.shape(weight_of(link.topology)) for link in network.links]}, wanted "
            f"{[np.shape(weight_of(link.topology)) for link in old.links]}; compile the network anew"
        )
    old.layers[:] = network.layers
    old.links[:] = network.links
    program.woven.layers[: len(old.layers)] = network.layers
    for k, link in enumerate(network.links):
        program.woven.links[k] = program.woven.links[k]._replace(topology=link.topology)
    for number, part in enumerate(program.parts):
        if part.holds_weights and part.layer < len(old.layers):
            weigh_core(program.grid, number, _block(program.woven, part))
        layer = program.woven.layers[part.layer]
        write_soma(program.grid, number, _soma(part, layer, program.profile))
        if part.holds_neurons:
            program.grid.bias[neurons_of(program.grid, number)] = layer.bias[part.post]
            reach = np.abs(layer.bias[part.post].astype(np.int64)).max(initial=0)
            program.grid.cores["bias_reach"][number] = int(reach)
    return program_bytes(program)


def program_bytes(program: Program) -> int:
    """Count the bytes of weights and soma parameters."""
    n_weights = sum(int(np.size(weight_of(link.topology))) for link in program.network.links)
    return n_weights + SOMA_BYTES * sum(
        part.holds_neurons and part.layer < len(program.network.layers) for part in program.parts
    )
