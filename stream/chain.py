r"""One node by hand: a source or an operator in a terminal of its own, chained to others by addresses.

::

    hebbstream node simulated --out tcp://127.0.0.1:7001
    hebbstream node sources.filter_refractory.Refractory --params '{...}' \
        --in tcp://127.0.0.1:7001 --out tcp://127.0.0.1:7002
    hebbstream node stream.record.Recorder --params '{"path": "out.hbs", "ports": {"events": "events"}}' \
        --in tcp://127.0.0.1:7002

Start them in any order: who sends waits until who receives is there, and nothing flows until the whole chain stands.
``--in`` listens, ``--out`` connects; an output that is given several addresses goes to all of them. What does not fit
(protocol, item type, sensor size, token, keys) is refused with words at both ends; a neighbour that dies or stands
still is noticed and named. The nodes talk the protocol of ``stream.edge``; a peer in another language may take any
place.
"""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import zmq

from stream import wire
from stream.backlog import Policy
from stream.curve import Curve, guard_endpoint
from stream.edge import Receiver, Sender
from stream.errors import ConfigError, HebbstreamError, RunError
from stream.host import Host, Status
from stream.jit import PACKAGES
from stream.operator import Operator, Port, Source
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec, Speed, build, source_of

__all__ = ["run_node"]


def run_node(
    what: str,
    *,
    params: dict[str, Any] | None = None,
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    token: str = "",
    window: int = 16,
    live: bool = False,
    policy: Policy = "drop-oldest",
    speed: Speed = "max",
    wait_s: float = float("inf"),
    patience_s: float = 30.0,
    key: Path | None = None,
    allow: Path | None = None,
    server_key: Path | None = None,
    insecure: bool = False,
    plugins: tuple[str, ...] = (),
    on_status: Callable[[Status], None] = lambda status: None,
    on_ready: Callable[[dict[str, str]], None] = lambda endpoints: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Status:
    """Run one source or operator until its stream ends.

    Parameters
    ----------
    what
        ``module.Class``, or what ``stream.pipeline.source_of`` understands.
    params
        Of the class.
    inputs, outputs
        Addresses, ``ENDPOINT`` or ``PORT=ENDPOINT``; the first form where there is only one port.
    token
        What both ends of each edge have to say; "" for none.
    window, live, policy
        Most messages in flight; drop instead of waiting, and what (``stream.backlog``).
    speed
        Of a source: stream seconds per second, or as fast as possible.
    wait_s
        How long to wait for who receives.
    patience_s
        A neighbour that stands still for so long counts as dead; one that has died is noticed within a second or two.
    key, allow, server_key
        See ``stream.curve``: own secret key; folder of keys that may connect here; key of the one connected to.
    insecure
        Listen beyond this machine without keys.
    plugins
        As for ``stream.pipeline.build``.
    on_status, interrupted
        As for ``stream.host.Host``.
    on_ready
        Called with the endpoints where it listens, by port.

    Returns
    -------
    Status
        The last one, with the counts of this node's ends.

    Raises
    ------
    ConfigError
        If something does not fit; nothing was started.
    StreamError
        If a peer refuses, does not answer, or breaks the protocol. ``error.status`` is the Status up to there.
    """
    if policy not in get_args(Policy):
        raise ConfigError(f"--policy {policy}: wanted {', '.join(get_args(Policy))}")
    pipeline, spec = _described(what, params or {}, speed, plugins)
    curve = Curve.of_files(key, allow=allow, server=server_key) if key is not None else None
    if curve is None and (allow is not None or server_key is not None):
        raise ConfigError("--allow and --server-key need a key of this node's own; give --key FILE.key_secret")
    member: Source | Operator = build(pipeline, plugins=plugins)[spec.name]
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receivers: dict[str, Receiver] = {}
    host: Host | None = None
    try:
        into = _addresses(inputs, member.inputs if isinstance(member, Operator) else {}, "--in", spec.kind)
        if doubled := [port for port in into if len(into[port]) > 1]:
            raise ConfigError(f"--in {into[doubled[0]][1]}: '{doubled[0]}' has an address already")
        out = _addresses(outputs, member.outputs, "--out", spec.kind)
        for port in into:
            guard_endpoint(into[port][0], curve=curve, insecure=insecure)
        missing = [port for port in member.inputs if port not in into] if isinstance(member, Operator) else []
        if missing:
            raise ConfigError(f"{spec.kind}: nothing comes in at {', '.join(missing)}; give --in {missing[0]}=ENDPOINT")
        delivery: Any = "live" if live else "lossless"
        for port in into:
            pipeline.edge.append(EdgeSpec(source=f"upstream.{port}", target=f"{spec.name}.{port}"))
        targets: dict[str, str] = {}
        for port in out:
            for number, endpoint in enumerate(out[port]):
                there = f"downstream{number + 1 if number else ''}.{port}"
                edge = EdgeSpec(source=f"{spec.name}.{port}", target=there, delivery=delivery, policy=policy)
                pipeline.edge.append(edge)
                targets[edge.name] = endpoint
        edges = {edge.name: edge for edge in pipeline.edge}
        for name, edge in edges.items():
            port = edge.target.partition(".")[2]
            if edge.source.startswith("upstream."):
                assert isinstance(member, Operator)
                mine, endpoint = member.inputs[port], into[port][0]
                receivers[name] = Receiver(
                    context,
                    name,
                    mine,
                    endpoint,
                    token=token,
                    window=window,
                    any_edge=True,
                    curve=curve,
                    patience_s=patience_s,
                )
        on_ready({edges[name].target.partition(".")[2]: receiver.endpoint for name, receiver in receivers.items()})
        wire.warm_up()
        if isinstance(member, Operator):
            member.warm_up()

        def alive() -> None:
            if interrupted():
                raise RunError("stopped before the chain stood")

        senders: dict[str, Sender] = {}
        for name, edge in edges.items():
            port = edge.source.partition(".")[2]
            if name not in receivers:
                senders[name] = Sender(
                    context,
                    name,
                    member.outputs[port],
                    token=token,
                    delivery=delivery,
                    policy=policy,
                    window=window,
                    curve=curve if server_key is not None else None,
                    alive=alive,
                    patience_s=patience_s,
                )
        host = Host(
            pipeline,
            {spec.name: member},
            senders=senders,
            receivers=receivers,
            on_status=on_status,
            interrupted=interrupted,
        )
        for sender in senders.values():
            sender.alive = alive  # the host's looks after a stream that flows
        for name, sender in senders.items():
            sender.connect(targets[name], timeout_s=wait_s)
            sender.alive = host.look_up
        return host.run()
    except HebbstreamError as error:
        if host is not None:
            error.status = host.status()  # type: ignore[attr-defined] # handed over with the error
        raise
    finally:
        if host is not None:
            host.close()
        for receiver in receivers.values():
            receiver.close()
        member.close()
        if curve is not None:
            curve.close()
        context.destroy(linger=1000)


def _described(
    what: str, params: dict[str, Any], speed: Speed, plugins: tuple[str, ...]
) -> tuple[Pipeline, SourceSpec | OperatorSpec]:
    """Say what is to run, as a pipeline of one."""
    module, _, name = what.rpartition(".")
    is_class = module.split(".")[0] in (*PACKAGES, *plugins) and name.isidentifier() and not Path(what).exists()
    if not is_class:
        kind, own = source_of(what)
        source = SourceSpec(name="node", kind=kind, params={**own, **params}, speed=speed)
        return Pipeline(name="node", source=[source]), source
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise ConfigError(f"node {what}: {error}; check the spelling") from None
    if isinstance(found, type) and issubclass(found, Source):
        source = SourceSpec(name="node", kind=what, params=params, speed=speed)
        return Pipeline(name="node", source=[source]), source
    spec = OperatorSpec(name="node", kind=what, params=params)
    return Pipeline(name="node", operator=[spec]), spec


def _addresses(words: tuple[str, ...], ports: Mapping[str, Port], option: str, kind: str) -> dict[str, list[str]]:
    """Read ``PORT=ENDPOINT`` or, where there is only one port, ``ENDPOINT``; the addresses of each port."""
    found: dict[str, list[str]] = {}
    for word in words:
        port, is_named, endpoint = word.partition("=")
        if not is_named or "://" in port:
            if len(ports) != 1:
                raise ConfigError(f"{option} {word}: {kind} has {', '.join(ports) or 'none'}; say {option} PORT={word}")
            port, endpoint = next(iter(ports)), word
        if port not in ports:
            raise ConfigError(f"{option} {word}: {kind} has no '{port}'; it has {', '.join(ports) or 'none'}")
        if not endpoint.startswith(("ipc://", "tcp://")):
            raise ConfigError(f"{option} {word}: wanted ipc://PATH or tcp://HOST:PORT")
        if endpoint in found.setdefault(port, []):
            raise ConfigError(f"{option} {word}: '{port}' goes there already")
        found[port].append(endpoint)
    return found
