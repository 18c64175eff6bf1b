"""Networks on disk: one safetensors file, arrays by name and a description in JSON. No pickles: loading runs no code.

The file's metadata hold one key, ``hebbstream-graph``, whose value is JSON::

    {"version": 1, "inputs": [34, 34, 2],
     "populations": [{"name": "hidden", "model": "LIFUnits", "shape": [200], "values": {"tau_mem_us": 20000.0, ...}}],
     "projections": [{"source": "input", "target": "hidden", "topology": "Dense", "delay_us": 0, "values": {...}}]}

A projection that fades has ``"fade": {"tau_us": 40000.0, "onset_us": 1000}`` as well; others have null there.
A value that is an array stands under its place, ``population.0.tau_mem_us`` or ``projection.0.weight``, and not in the
JSON.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
from numpy.typing import NDArray

from neurons.graph import Fade, Graph, Model, Population, Projection, Topology, check_graph
from stream.array_file import Value, apart, read_arrays, together, write_arrays
from stream.errors import FormatError

__all__ = ["load_graph", "save_graph"]

KEY = "hebbstream-graph"
MODELS = {kind.__name__: kind for kind in get_args(Model)}
TOPOLOGIES = {kind.__name__: kind for kind in get_args(Topology)}


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


def save_graph(path: str | Path, graph: Graph) -> None:
    """Write a network to a file, whole or not at all.

    Raises
    ------
    ConfigError
        If the network is not in order; nothing is written then.
    """
    check_graph(graph)
    arrays: dict[str, NDArray[Any]] = {}
    description = _Graph(
        1,
        [int(side) for side in graph.inputs],
        [
            _Population(
                p.name,
                type(p.model).__name__,
                [int(side) for side in p.shape],
                apart(f"population.{k}", p.model, arrays),
            )
            for k, p in enumerate(graph.populations)
        ],
        [
            _Projection(
                q.source,
                q.target,
                type(q.topology).__name__,
                int(q.delay_us),
                apart(f"projection.{k}", q.topology, arrays),
                None if q.fade is None else _Fade(float(q.fade.tau_us), int(q.fade.onset_us)),
            )
            for k, q in enumerate(graph.projections)
        ],
    )
    write_arrays(path, KEY, description, arrays)


def load_graph(path: str | Path) -> Graph:
    """Read a network from a file.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or holds no network.
    ConfigError
        If the network in it is not in order.
    """
    subject = f"network {Path(path).expanduser()}"
    description, arrays = read_arrays(path, KEY, _Graph, "network", "save_graph")

    def build(kinds: Mapping[str, Any], kind: str, place: str, values: Mapping[str, Value]) -> Any:
        return together(subject, kinds, kind, place, values, arrays)

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
        raise FormatError(f"{subject}: {error}") from None
    return graph
