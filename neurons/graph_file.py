"""Networks on disk: one safetensors file, arrays by name and a description in JSON. No pickles: loading runs no code.

The file's metadata hold one key, ``hebbstream-graph``, whose value is JSON::

    {"version": 1, "inputs": [34, 34, 2],
     "populations": [{"name": "hidden", "model": "LIFUnits", "shape": [200], "values": {"tau_mem_us": 20000.0, ...}}],
     "projections": [{"source": "input", "target": "hidden", "topology": "Dense", "delay_us": 0, "values": {...}}]}

A projection that fades has ``"fade": {"tau_us": 40000.0, "onset_us": 1000}`` as well; others have null there.
A value that is an array stands under its place, ``population.0.tau_mem_us`` or ``projection.0.weight``, and not in the
JSON.
"""

import os
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from neurons.graph import Fade, Graph, Model, Population, Projection, Topology, check_graph
from stream.errors import FormatError

__all__ = ["load_graph", "save_graph"]

KEY = "hebbstream-graph"
MODELS = {kind.__name__: kind for kind in get_args(Model)}
TOPOLOGIES = {kind.__name__: kind for kind in get_args(Topology)}

Value = float | int | str | list[int]


class _Population(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    model: str
    shape: list[int]
    values: dict[str, Value]


class _Fade(msgspec.Struct, forbid_unknown_fields=True):
    tau_us: float
    onset_us: int


class _Projection(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    target: str
    topology: str
    delay_us: int
    values: dict[str, Value]
    fade: _Fade | None = None


class _Graph(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1]
    inputs: list[int]
    populations: list[_Population]
    projections: list[_Projection]


def _values(place: str, item: Any, arrays: dict[str, Any]) -> dict[str, Value]:
    """Split what a model or topology holds: arrays go to ``arrays``, the rest is returned."""
    values: dict[str, Value] = {}
    for name, value in item._asdict().items():
        if isinstance(value, np.ndarray) and value.ndim:
            arrays[f"{place}.{name}"] = np.ascontiguousarray(value)
        elif isinstance(value, str):
            values[name] = value
        elif isinstance(value, tuple | list):
            values[name] = [int(number) for number in value]
        else:
            values[name] = int(value) if isinstance(value, int | np.integer) else float(value)
    return values


def save_graph(path: str | Path, graph: Graph) -> None:
    """Write a network to a file, whole or not at all.

    Raises
    ------
    ConfigError
        If the network is not in order; nothing is written then.
    """
    check_graph(graph)
    arrays: dict[str, Any] = {}
    description = _Graph(
        1,
        [int(side) for side in graph.inputs],
        [
            _Population(
                p.name,
                type(p.model).__name__,
                [int(side) for side in p.shape],
                _values(f"population.{k}", p.model, arrays),
            )
            for k, p in enumerate(graph.populations)
        ],
        [
            _Projection(
                q.source,
                q.target,
                type(q.topology).__name__,
                int(q.delay_us),
                _values(f"projection.{k}", q.topology, arrays),
                None if q.fade is None else _Fade(float(q.fade.tau_us), int(q.fade.onset_us)),
            )
            for k, q in enumerate(graph.projections)
        ],
    )
    data = safetensors.numpy.save(arrays, {KEY: msgspec.json.encode(description).decode()})
    path = Path(path).expanduser()
    side = path.with_name(f"{path.name}.{os.getpid()}.part")
    with side.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    side.replace(path)


def load_graph(path: str | Path) -> Graph:
    """Read a network from a file.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or holds no network.
    ConfigError
        If the network in it is not in order.
    """
    path = Path(path).expanduser()
    try:
        with safetensors.safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError:
        raise FormatError(f"network {path}: not there") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise FormatError(f"network {path}: damaged, or not a safetensors file: {error}") from None
    if KEY not in metadata:
        raise FormatError(f"network {path}: no '{KEY}' in its metadata; wanted a file written by save_graph")
    try:
        description = msgspec.json.decode(metadata[KEY], type=_Graph)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise FormatError(f"network {path}: {error}") from None

    def build(kinds: dict[str, Any], kind: str, place: str, values: dict[str, Value]) -> Any:
        if kind not in kinds:
            raise FormatError(f"network {path}: {place} is a {kind}, wanted one of {', '.join(kinds)}")
        own = {name.removeprefix(f"{place}."): array for name, array in arrays.items() if name.startswith(f"{place}.")}
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()} | own
        fields = kinds[kind]._fields
        if set(given) != set(fields):
            raise FormatError(
                f"network {path}: {place} has {', '.join(given) or 'nothing'}, wanted {', '.join(fields)}"
            )
        return kinds[kind](**given)

    graph = Graph(
        tuple(description.inputs),
        tuple(
            Population(p.name, build(MODELS, p.model, f"population.{k}", p.values), tuple(p.shape))
            for k, p in enumerate(description.populations)
        ),
        tuple(
            Projection(
                q.source,
                q.target,
                build(TOPOLOGIES, q.topology, f"projection.{k}", q.values),
                q.delay_us,
                None if q.fade is None else Fade(q.fade.tau_us, q.fade.onset_us),
            )
            for k, q in enumerate(description.projections)
        ),
    )
    try:
        check_graph(graph)
    except (TypeError, ValueError) as error:  # a number where an array belongs, and the like
        raise FormatError(f"network {path}: {error}") from None
    return graph
