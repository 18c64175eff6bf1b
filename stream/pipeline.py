"""A pipeline: sources, operators and edges, written as a TOML file or built in Python.

::

    name = "first-light"
    transport = "ipc"                      # between processes: "ipc" or "tcp"

    [[source]]
    name = "camera"
    kind = "sources.folder.LabelledFolder" # module.Class
    params = { width = 34, height = 34, parts = [{ path = "${HEBBSTREAM_DATA}/nmnist/train" }] }

    [[operator]]
    name = "learner"
    kind = "plasticity.learner.OnlineLearner"
    node = "learner"                       # operators with the same node share a process; default: the name
    params = { width = 34, height = 34 }

    [[edge]]
    from = "camera.events"
    to = "learner.events"
    delivery = "lossless"                  # or "live", with policy = "drop-oldest" | "drop-newest" | "sample",
                                           # max_count (packets), max_bytes, max_age_ms

    [recovery]                             # see ``Recovery``
    snapshot_every_us = 10_000_000

Unknown keys and wrong types are errors that name the place. The parameters that a source or operator takes are the
keyword arguments of its constructor, checked against their annotations. Names in ``kind`` are resolved when the
pipeline is built: that is how the ground floor runs upper floors without importing them. Only our own packages are
looked into, and ``plugins`` that the caller (not the file) names: a pipeline file from a stranger runs no foreign code.
"""

import functools
import importlib
import inspect
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from stream.backlog import Bounds, Policy
from stream.curve import guard_endpoint
from stream.edge import Delivery
from stream.errors import ConfigError, GraphError
from stream.jit import PACKAGES
from stream.operator import Operator, Port, Source
from stream.record import MAGIC
from stream.replay import Replay
from stream.teach import Teach

__all__ = [
    "EdgeSpec",
    "NodeSpec",
    "OperatorSpec",
    "Pipeline",
    "Ports",
    "Recovery",
    "SourceSpec",
    "TapSpec",
    "build",
    "check",
    "load",
    "play_instead",
    "ports_of",
    "record_too",
    "source_of",
]

Name: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]
Address: TypeAlias = Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]*[.][A-Za-z][A-Za-z0-9_-]*$")]
Speed: TypeAlias = Literal["max"] | Annotated[float, Meta(gt=0)]


class SourceSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A source as a pipeline file describes it."""

    name: Name
    kind: str
    node: Name | None = None
    params: dict[str, Any] = {}
    speed: Speed = "max"
    """Pace: ``"max"``, or how many stream seconds pass in a second of wall time. Never changes a timestamp."""
    packet_items: Annotated[int, Meta(ge=1, le=1 << 20)] = 1024
    """Most items of a packet."""
    packet_us: Annotated[int, Meta(ge=1)] = 10_000
    """Longest span of a packet when paced; it bounds the latency that packing adds. At ``"max"`` only items count."""
    start_us: Annotated[int, Meta(ge=0)] = 0
    """Where to begin, counted from the source's first item."""
    duration_us: Annotated[int, Meta(ge=1)] | None = None
    """How much to play; default up to its end."""
    loop: Annotated[int, Meta(ge=0)] = 1
    """How often to play it; 0 until stopped. From the second round on times go on where they were."""
    seekable: bool = False
    """Whether a running pipeline may be told to jump in it."""
    teach_us: Annotated[int, Meta(ge=0)] = 0
    """Stream time between label marks that ask for an answer and teach what is shown; 0: none. See ``stream.teach``"""


class OperatorSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An operator as a pipeline file describes it."""

    name: Name
    kind: str
    node: Name | None = None
    params: dict[str, Any] = {}


class EdgeSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename={"source": "from", "target": "to"}):
    """An edge as a pipeline file describes it: from an output port to an input port, each ``name.port``."""

    source: Address
    target: Address
    delivery: Delivery = "lossless"
    window: Annotated[int, Meta(ge=1, le=4096)] = 4
    """Most messages in flight between two processes."""
    policy: Policy = "drop-oldest"
    """What a `live` edge drops when too much waits; see ``stream.backlog``."""
    max_count: Annotated[int, Meta(ge=1, le=1 << 20)] = 64
    """Most messages that a `live` edge keeps waiting."""
    max_bytes: Annotated[int, Meta(ge=1)] = 16 << 20
    """Most bytes of items that it keeps waiting."""
    max_age_ms: Annotated[float, Meta(gt=0)] = 100.0
    """Longest that it keeps a packet waiting, wall time."""

    @property
    def bounds(self) -> Bounds:
        """What a `live` edge may keep waiting."""
        return Bounds(self.max_count, self.max_bytes, round(self.max_age_ms * 1000))

    @property
    def name(self) -> str:
        """``camera.events -> learner.events``."""
        return f"{self.source} -> {self.target}"


class Recovery(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run does about nodes that die or hang; restarts need a run directory."""

    snapshot_every_us: Annotated[int, Meta(ge=1)] | None = None
    """Stream time between two snapshots. None: 10 s in a run directory, and elsewhere only where sources mark them."""
    keep: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    """Complete snapshots that are kept. None: 3 in a run directory, and elsewhere all."""
    restarts: Annotated[int, Meta(ge=0)] = 5
    """Restarts within ``within_s`` seconds after which the run gives up."""
    within_s: Annotated[float, Meta(gt=0)] = 60.0
    hang_s: Annotated[float, Meta(ge=1)] = 30.0
    """A process that says nothing for so long hangs, as does one whose members do not return: it counts as dead."""


class TapSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, rename={"source": "from"}):
    """A place where viewers and recorders may look at an output while the pipeline runs; see ``stream.tap``."""

    source: Address
    endpoint: Annotated[str, Meta(pattern="^(ipc|tcp)://.+$")]
    policy: Policy = "drop-oldest"
    max_count: Annotated[int, Meta(ge=1, le=1 << 20)] = 64
    max_bytes: Annotated[int, Meta(ge=1)] = 16 << 20
    max_age_ms: Annotated[float, Meta(gt=0)] = 1000.0

    @property
    def bounds(self) -> Bounds:
        """What may wait for a viewer."""
        return Bounds(self.max_count, self.max_bytes, round(self.max_age_ms * 1000))


class NodeSpec(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a node asks for where a pipeline runs on several machines (``run --on ray``); one machine looks at none."""

    name: Name
    cpus: Annotated[float, Meta(gt=0)] = 0.5
    """Processor cores that are kept for it."""
    memory_mb: Annotated[int, Meta(ge=0)] = 0
    """Memory that is kept for it, MiB; 0 keeps none."""
    host: str = ""
    """Label of the machines on which it may run, such as that of the one that holds the camera; "" takes any."""


class Pipeline(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A pipeline's description. Nothing is imported or opened before it is built.

    Examples
    --------
    >>> pipeline = Pipeline(name="demo")
    >>> pipeline.source.append(SourceSpec(name="camera", kind="sources.simulated.SimulatedCamera"))
    >>> pipeline.node_of("camera")
    'camera'
    """

    name: Name
    transport: Literal["ipc", "tcp"] = "ipc"
    snapshots: str | None = None
    """Folder for what `barrier` marks ask to be kept; None keeps nothing. A run that begins anew empties it."""
    recovery: Recovery = Recovery()
    taps: str | None = None
    """Folder in which every output gets a tap, called ``MEMBER.PORT``; None opens none but those listed."""
    source: list[SourceSpec] = []
    operator: list[OperatorSpec] = []
    edge: list[EdgeSpec] = []
    tap: list[TapSpec] = []
    node: list[NodeSpec] = []

    @property
    def members(self) -> list[SourceSpec | OperatorSpec]:
        """Sources, then operators, in the order of the file."""
        return [*self.source, *self.operator]

    @property
    def nodes(self) -> list[str]:
        """The names of the processes, in the order of the file."""
        return list(dict.fromkeys(self.node_of(member.name) for member in self.members))

    def node_of(self, name: str) -> str:
        """Return the process in which a source or operator lives."""
        return next(member.node or member.name for member in self.members if member.name == name)


def load(path: str | Path) -> Pipeline:
    """Read a pipeline file.

    Raises
    ------
    ConfigError
        If the file is missing, is no TOML, or has an unknown key, a wrong type or a missing key; the message names the
        place.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"pipeline {path}: no such file; `hebbstream demo` runs one that is shipped") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"pipeline {path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"pipeline {path}: not TOML: {error}") from None
    try:
        return msgspec.convert(raw, Pipeline)
    except msgspec.ValidationError as error:
        raise ConfigError(f"pipeline {path}: {_placed(str(error), raw)}") from None


def _placed(message: str, raw: Mapping[str, Any]) -> str:
    """Say ``operator 'learner'`` where msgspec says ``$.operator[0]``."""
    text, _, place = message.partition(" - at `$")
    if not place:
        return message
    where = place.rstrip("`").lstrip(".")
    head, _, rest = where.partition("]")
    table, _, index = head.partition("[")
    entries = raw.get(table)
    if index.isdigit() and isinstance(entries, list) and isinstance(entries[int(index)], dict):
        entry = entries[int(index)]
        label = entry.get("name") or f"{entry.get('from', '?')} -> {entry.get('to', '?')}"
        where = f"{table} '{label}' ({table}[{index}]){rest}"
    return f"{where}: {text}"


@functools.cache
def _params_type(kind: type) -> type[msgspec.Struct]:
    """Make a strict record of a constructor's keyword arguments."""
    hints = typing.get_type_hints(kind.__init__, include_extras=True)  # type: ignore[misc] # a class's constructor, read and not called
    fields: list[Any] = []
    for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]:  # type: ignore[misc] # a class's constructor, read and not called
        annotation = hints.get(parameter.name, Any)
        if parameter.default is inspect.Parameter.empty:
            fields.append((parameter.name, annotation))
        elif isinstance(parameter.default, list | dict | set):
            fields.append((parameter.name, annotation, msgspec.field(default_factory=parameter.default.copy)))
        else:
            fields.append((parameter.name, annotation, parameter.default))
    return msgspec.defstruct("Params", fields, kw_only=True, forbid_unknown_fields=True)


def _resolve(spec: SourceSpec | OperatorSpec, plugins: Sequence[str]) -> type:
    role = Source if isinstance(spec, SourceSpec) else Operator
    word = "source" if role is Source else "operator"
    module_name, _, class_name = spec.kind.rpartition(".")
    allowed = (*PACKAGES, *plugins)
    if not module_name or module_name.split(".")[0] not in allowed:
        raise ConfigError(
            f"{word} '{spec.name}': kind '{spec.kind}' is outside {', '.join(allowed)}; "
            f"a module of your own must be named by you, with --plugin, not by the file"
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{word} '{spec.name}': kind '{spec.kind}': {error}; check the spelling") from None
    if not (isinstance(found, type) and issubclass(found, role)):
        raise ConfigError(f"{word} '{spec.name}': kind '{spec.kind}' is no {word}; check the spelling")
    return found


def _place_param(message: str) -> str:
    text, _, place = message.partition(" - at `$")
    return f"params{place.rstrip('`')}: {text}" if place else f"params: {text}"


def build(pipeline: Pipeline, names: Sequence[str] | None = None, plugins: Sequence[str] = ()) -> dict[str, Any]:
    """Make the sources and operators of a pipeline.

    Parameters
    ----------
    pipeline
        What to build.
    names
        Only these members (a process builds its own); default all.
    plugins
        Packages of the caller's that ``kind`` may name, beside ours.

    Returns
    -------
    dict of str to Source or Operator

    Raises
    ------
    ConfigError
        If a kind is unknown or a parameter is unknown, missing, or of the wrong type.
    """
    members: dict[str, Any] = {}
    try:
        for spec in pipeline.members:
            if names is not None and spec.name not in names:
                continue
            kind = _resolve(spec, plugins)
            word = "source" if issubclass(kind, Source) else "operator"
            try:
                params = msgspec.convert(spec.params, _params_type(kind))
            except msgspec.ValidationError as error:
                raise ConfigError(f"{word} '{spec.name}' ({spec.kind}): {_place_param(str(error))}") from None
            member = kind(**{name: getattr(params, name) for name in params.__struct_fields__})
            members[spec.name] = _part(spec, member) if isinstance(spec, SourceSpec) else member
    except BaseException:
        for member in members.values():
            member.close()
        raise
    return members


def _part(spec: SourceSpec, source: Source) -> Source:
    """Play a part of a source, or several times, or with jumps, or teach with it, if its description says so."""
    if spec.start_us or spec.duration_us or spec.loop != 1 or spec.seekable:
        source = Replay(
            source, start_us=spec.start_us, duration_us=spec.duration_us, loop=spec.loop, name=f"source '{spec.name}'"
        )
    return Teach(source, period_us=spec.teach_us) if spec.teach_us else source


class Ports(msgspec.Struct, frozen=True):
    """The ports of a member, as its process reports them."""

    inputs: dict[str, Port]
    outputs: dict[str, Port]


def ports_of(member: Any) -> Ports:
    """Return the ports of a source or operator."""
    return Ports(dict(getattr(member, "inputs", {})), dict(getattr(member, "outputs", {})))


def check(pipeline: Pipeline, ports: Mapping[str, Ports]) -> None:
    """Check that the members of a pipeline and its edges fit together.

    Raises
    ------
    GraphError
        If a name is used twice, an edge leads from or to nowhere, ports do not fit, an input has two edges or none, or
        the edges form a cycle.
    """
    names = [member.name for member in pipeline.members]
    if not pipeline.source:
        raise GraphError(f"pipeline '{pipeline.name}' has no source; add a [[source]]")
    for name in names:
        if names.count(name) > 1:
            raise GraphError(f"two members are called '{name}'; give each its own name")
    fed: dict[str, str] = {}
    for edge in pipeline.edge:
        out, into = _port(edge, edge.source, ports, "outputs"), _port(edge, edge.target, ports, "inputs")
        if not into.accepts(out):
            raise GraphError(f"edge {edge.name}: it brings {out}, but {edge.target} takes {into}")
        if edge.target in fed:
            raise GraphError(
                f"{edge.target} is fed by {fed[edge.target]} and by {edge.source}; an input takes one edge"
            )
        fed[edge.target] = edge.source
    for name in names:
        for port in ports[name].inputs:
            if f"{name}.{port}" not in fed:
                raise GraphError(f'input {name}.{port} has no edge; add an [[edge]] with to = "{name}.{port}"')
    for node in pipeline.node:
        if node.name not in pipeline.nodes:
            raise GraphError(f"node '{node.name}': no member runs there; there are {', '.join(pipeline.nodes)}")
    for tap in pipeline.tap:
        name, _, port = tap.source.partition(".")
        if name not in ports or port not in ports[name].outputs:
            raise GraphError(f"tap of {tap.source}: there is no such output")
        guard_endpoint(tap.endpoint, curve=None, insecure=False)
    _check_acyclic(pipeline)


def source_of(what: str) -> tuple[str, dict[str, Any]]:
    """Say which source plays a thing that a person named.

    Parameters
    ----------
    what
        ``simulated``; ``camera``, ``camera:SERIAL``; ``udp://HOST:PORT`` (listen for SPIF), ``dv://HOST:PORT`` (DV's
        network stream); ``tap:ENDPOINT`` (an output of a running pipeline); ``-`` (an event file on standard input); or
        the path of a folder of labelled recordings, of a recorder's file, or of an event file.

    Returns
    -------
    kind, params
        As for a ``SourceSpec``.

    Raises
    ------
    ConfigError
        There is no such file, or the address is none.
    """
    word, _, rest = what.partition("://")
    if what == "simulated":
        return "sources.simulated.SimulatedCamera", {"duration_us": 10_000_000}
    if what == "camera" or what.startswith("camera:"):
        serial = what.partition(":")[2]
        return "sources.camera.Camera", {"serial": serial} if serial else {}
    if what.startswith("tap:"):
        return "stream.tap.TapSource", {"endpoint": what.removeprefix("tap:")}
    if word in ("udp", "dv") and rest:
        host, _, port = rest.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigError(f"source '{what}': wanted {word}://HOST:PORT, such as {word}://127.0.0.1:7777")
        if word == "dv":
            return "sources.dv_network.DvNetwork", {"address": host, "port": int(port)}
        return "sources.udp.UdpSource", {"host": host, "port": int(port)}
    if what == "-":
        return "sources.event_file.EventFile", {"path": what}
    path = Path(what).expanduser()
    if path.is_dir() and not (path / "metadata.yaml").is_file():  # that is a ROS 2 bag's
        return "sources.folder.LabelledFolder", {"parts": [{"path": what}]}
    if path.is_dir():
        return "sources.event_file.EventFile", {"path": what}
    if path.is_file():
        with path.open("rb") as file:
            is_recording = file.read(len(MAGIC)) == MAGIC
        return "sources.recorded.RecordedStream" if is_recording else "sources.event_file.EventFile", {"path": what}
    raise ConfigError(
        f"source '{what}': no such file or folder; or say 'simulated', 'camera', 'camera:SERIAL', 'udp://HOST:PORT', "
        f"'dv://HOST:PORT' or '-'"
    )


def play_instead(pipeline: Pipeline, what: str) -> None:
    """Let something else take the place of a pipeline's source, at the same sensor size.

    Parameters
    ----------
    pipeline
        Has exactly one source; changed in place.
    what
        See ``source_of``.

    Raises
    ------
    ConfigError
        If the pipeline has several sources, or there is no such file.
    """
    if len(pipeline.source) != 1:
        raise ConfigError(
            f"pipeline '{pipeline.name}' has {len(pipeline.source)} sources, so which one should '{what}' replace? "
            f"change the file instead"
        )
    spec = pipeline.source[0]
    size: dict[str, Any] = {name: spec.params[name] for name in ("width", "height") if name in spec.params}
    spec.kind, params = source_of(what)
    if what.startswith(("camera", "dv:")):
        size = {}  # these tell it themselves
    if what.startswith(("camera", "dv:", "udp:")):
        spec.speed = "max"  # what is live has its own pace
    spec.params = {**size, **params}


def record_too(pipeline: Pipeline, address: str, path: str, *, plugins: Sequence[str] = ()) -> None:
    """Add a recorder to an output of a pipeline, which does not notice.

    Parameters
    ----------
    pipeline
        Changed in place.
    address
        ``member.port``.
    path
        The recording to write.
    plugins
        As for :func:`build`.

    Raises
    ------
    ConfigError
        If there is no such output, or no path.
    """
    name, _, port = address.partition(".")
    if not path or name not in [member.name for member in pipeline.members]:
        members = ", ".join(member.name for member in pipeline.members)
        raise ConfigError(f"recording of '{address}' into '{path}': wanted MEMBER.PORT=FILE, MEMBER one of {members}")
    member = build(pipeline, [name], plugins)[name]
    member.close()
    if port not in member.outputs:
        raise ConfigError(f"recording of '{address}': '{name}' has outputs {', '.join(member.outputs) or '(none)'}")
    recorder = f"recorder-of-{name}-{port}".replace("_", "-")
    ports = {port: member.outputs[port].item}
    pipeline.operator.append(
        OperatorSpec(name=recorder, kind="stream.record.Recorder", params={"path": path, "ports": ports})
    )
    pipeline.edge.append(EdgeSpec(source=address, target=f"{recorder}.{port}"))


def _port(edge: EdgeSpec, address: str, ports: Mapping[str, Ports], side: Literal["inputs", "outputs"]) -> Port:
    name, _, port = address.partition(".")
    if name not in ports:
        raise GraphError(f"edge {edge.name}: there is no '{name}'; there are {', '.join(ports)}")
    there = ports[name].inputs if side == "inputs" else ports[name].outputs
    if port not in there:
        has = f"it has {', '.join(there)}" if there else "it has none"
        raise GraphError(f"edge {edge.name}: '{name}' has no {side[:-1]} '{port}'; {has}")
    return there[port]


def _check_acyclic(pipeline: Pipeline) -> None:
    ahead = {member.name: set[str]() for member in pipeline.members}
    for edge in pipeline.edge:
        ahead[edge.source.partition(".")[0]].add(edge.target.partition(".")[0])
    # processes too: two nodes that wait for each other's credit would stand still
    for name, targets in list(ahead.items()):
        node = pipeline.node_of(name)
        others = {pipeline.node_of(target) for target in targets} - {node}
        ahead.setdefault(f"node {node}", set()).update(f"node {other}" for other in others)
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            loop = " -> ".join([*path[path.index(name) :], name])
            raise GraphError(f"the edges form a cycle: {loop}; recurrence belongs inside an operator")
        if name in done:
            return
        path.append(name)
        for target in sorted(ahead[name]):
            visit(target)
        path.pop()
        done.add(name)

    for name in list(ahead):
        visit(name)
