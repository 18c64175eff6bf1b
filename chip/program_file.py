"""Programs on disk: one safetensors file, arrays by name and a description in JSON. No pickles: loading runs no code.

What is kept is the network in integers, unfolded, the chip's profile with the provenance of every number, and the place
of every core. Folding, splits, relays and routing tables follow from these, and are made again when a program is
loaded, by the same compiler: so a damaged or hostile file meets the same checks as a network that is compiled, and
cannot hold a route that leads nowhere.

The file's metadata hold one key, ``hebbstream-program``, whose value is JSON::

    {"version": 1, "phase_us": 1000, "inputs": [34, 34, 2], "multicast": true, "profile": {...},
     "layers": [{"name": "hidden1", "shape": [200], "soma": {"v_threshold": 512, ...}, "scale": 512.3, ...}],
     "links": [{"source": -1, "target": 0, "delay": 0, "topology": "Dense", "values": {}}], "folded": false}

Arrays: ``layer.0.bias`` int32, ``layer.0.table`` int32, ``link.0.weight`` int8 (and what else a topology holds),
``positions`` int32, shape (n_cores, 2). If recordings were run when it was compiled: what they took, in JSON and in
``measured.core_ops``, ``measured.core_packets``, ``measured.link_total``, ``measured.answers`` (int64).
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program, compile_network
from chip.network import Layer, Link, QuantisedNetwork, weight_of
from chip.profile import Profile, check_profile
from chip.run import TOTALS, Measured
from chip.soma import Soma
from chip.trade import Trade
from neurons.graph import Topology
from stream.array_file import apart, read_arrays, together, write_arrays
from stream.errors import FormatError

__all__ = ["Expected", "Saved", "load_program", "save_program"]

KEY = "hebbstream-program"
TOPOLOGIES = {kind.__name__: kind for kind in get_args(Topology)}
MOST_UNITS = 2**24
MEASURED = ("core_ops", "core_packets", "link_total", "answers")


class _Layer(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    shape: list[int]
    soma: dict[str, int]
    scale: float
    sent_scale: float
    value_bits: int
    value_kind: int


class _Link(msgspec.Struct, forbid_unknown_fields=True):
    source: int
    target: int
    delay: int
    topology: str
    values: dict[str, int | list[int]]


class _Measured(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    recordings: int
    phases: int
    totals: dict[str, int]
    agreement: float | None
    accuracy: float | None  # of the chip, where the recordings had labels
    float_accuracy: float | None


class _Program(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1]
    phase_us: int
    inputs: list[int]
    multicast: bool
    profile: Profile
    layers: list[_Layer]
    links: list[_Link]
    measured: _Measured | None
    folded: bool = False
    trade: Trade | None = None


class Expected(NamedTuple):
    """How a program compares with the float network, on recordings that were run when it was compiled."""

    agreement: float | None  # share of equal answers
    accuracy: float | None  # share of right answers of the chip, where there are labels
    float_accuracy: float | None


NOT_COMPARED = Expected(None, None, None)


class Saved(NamedTuple):
    """What a file holds."""

    program: Program
    measured: Measured | None
    expected: Expected
    trade: Trade | None = None  # unfolded and semi-folded, where recordings were run


def save_program(
    path: str | Path,
    program: Program,
    measured: Measured | None = None,
    expected: Expected = NOT_COMPARED,
    trade: Trade | None = None,
) -> None:
    """Write a program to a file, whole or not at all."""
    network = program.whole
    arrays: dict[str, NDArray[Any]] = {"positions": np.array(program.positions, np.int32).reshape(-1, 2)}
    layers, links = [], []
    for k, layer in enumerate(network.layers):
        arrays[f"layer.{k}.bias"], arrays[f"layer.{k}.table"] = layer.bias, layer.table
        soma = {name: int(value) for name, value in layer.soma._asdict().items()}
        shape = [int(side) for side in layer.shape]
        links_of = (layer.scale, layer.sent_scale, layer.value_bits, layer.value_kind)
        layers.append(_Layer(layer.name, shape, soma, *links_of))
    for k, link in enumerate(network.links):
        values: Any = apart(f"link.{k}", link.topology, arrays)  # whole numbers, for weights are
        links.append(_Link(link.source, link.target, link.delay, type(link.topology).__name__, values))
    taken = None
    if measured is not None:
        taken = _Measured(measured.source, measured.recordings, measured.phases, measured.totals, *expected)
        arrays |= {f"measured.{name}": getattr(measured, name) for name in MEASURED}
    inputs = [int(side) for side in network.inputs]
    is_folded = program.folded is not None
    head = _Program(
        1, network.phase_us, inputs, program.multicast, program.profile, layers, links, taken, is_folded, trade
    )
    write_arrays(path, KEY, head, arrays)


def load_program(path: str | Path) -> Saved:
    """Read a program from a file, and compile it.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or holds no program.
    CapacityError, ConfigError
        If what it holds does not fit the chip that it names.
    """
    path = Path(path).expanduser()
    head, arrays = read_arrays(path, KEY, _Program, "program", "`hebbstream chip compile`")
    check_profile(path.name, head.profile)

    def array(name: str, kind: Any, n_dims: int) -> NDArray[Any]:
        found = arrays.get(name)
        if found is None or found.dtype != kind or found.ndim != n_dims:
            got = "nothing" if found is None else f"{found.dtype} of shape {found.shape}"
            raise FormatError(f"program {path}: {name} is {got}, wanted {np.dtype(kind)} of {n_dims} dimensions")
        exact: NDArray[Any] = found
        return exact

    def sides(words: list[int]) -> tuple[int, ...]:
        shape = tuple(words)
        if len(shape) not in (1, 3) or min(shape) < 1 or int(np.prod([float(n) for n in shape])) > MOST_UNITS:
            raise FormatError(f"program {path}: shape {shape}, wanted (n,) or (height, width, channels)")
        return shape

    layers, links = [], []
    for k, layer in enumerate(head.layers):
        shape = sides(layer.shape)
        bias = array(f"layer.{k}.bias", np.int32, 1)
        if set(layer.soma) != set(Soma._fields) or len(bias) != int(np.prod(shape)):
            raise FormatError(f"program {path}: layer '{layer.name}' wants {Soma._fields}, and a bias for each unit")
        table = array(f"layer.{k}.table", np.int32, 1)
        numbers = (layer.scale, layer.sent_scale, layer.value_bits, layer.value_kind)
        layers.append(Layer(layer.name, shape, Soma(**layer.soma), bias, *numbers, table=table))
    if len({layer.name for layer in layers}) != len(layers) or not layers:
        raise FormatError(f"program {path}: wanted layers, each with a name of its own")
    for k, link in enumerate(head.links):
        topology = together(f"program {path}", TOPOLOGIES, link.topology, f"link.{k}", link.values, arrays)
        if not (-1 <= link.source < len(layers) and 0 <= link.target < len(layers) and 0 <= link.delay < 2**16):
            raise FormatError(f"program {path}: link {k} from {link.source} to {link.target}, delay {link.delay}")
        weight = weight_of(topology)
        is_whole = -127 <= weight <= 127 if np.ndim(weight) == 0 else np.asarray(weight).dtype == np.int8
        if not is_whole:
            raise FormatError(f"program {path}: link {k} has weights that are not int8")
        links.append(Link(link.source, link.target, topology, link.delay))
    if not 1 <= head.phase_us <= 2**40:
        raise FormatError(f"program {path}: phases of {head.phase_us} us")
    network = QuantisedNetwork(sides(head.inputs), layers, links, head.phase_us)
    places = array("positions", np.int32, 2)
    if places.shape[1:] != (2,):
        raise FormatError(f"program {path}: positions of shape {places.shape}, wanted (n_cores, 2)")
    try:
        program = compile_network(
            network,
            head.profile,
            [(x, y) for x, y in places.tolist()],
            multicast=head.multicast,
            folded=head.folded,
        )
    except (TypeError, ValueError, IndexError, OverflowError) as error:  # a number where an array belongs
        raise FormatError(f"program {path}: {error}") from None
    if head.measured is None:
        return Saved(program, None, NOT_COMPARED, head.trade)
    taken = head.measured
    found = {name: array(f"measured.{name}", np.int64, 1) for name in MEASURED}
    wanted = (len(program.cores), len(program.cores), len(program.grid.links), taken.recordings)
    if tuple(len(found[name]) for name in MEASURED) != wanted or set(taken.totals) != set(TOTALS):
        raise FormatError(f"program {path}: was written by another version of the compiler; compile the network anew")
    measured = Measured(taken.source, taken.recordings, taken.phases, taken.totals, **found)
    return Saved(program, measured, Expected(taken.agreement, taken.accuracy, taken.float_accuracy), head.trade)
