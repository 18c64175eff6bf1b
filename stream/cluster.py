"""A run spread over many machines by Ray (extra ``cluster``): placement, resources, restart. Nothing else is Ray's.

``hebbstream run PIPELINE.toml --on ray`` makes each node an actor, with what its ``[[node]]`` asks for: ``cpus``,
``memory_mb``, ``host`` (a label of the machine, ``ray start --labels host=NAME``). Nodes that ask for no machine are
packed onto as few as have room, so that neighbours talk through shared memory. From there on it is the run of one
machine: the same supervisor (``stream.run``), the same nodes (``stream.node``), the same sockets between them. So the
bits are the same, too.

What goes where::

    supervisor, here                                    actor, anywhere: the node itself, in the actor's process
      commands, reports: lines of JSON, through Ray  <->  stream.node.serve
      CURVE keys, made anew for each start           ->   in memory, encrypted by nobody but Ray; written nowhere
                                                          ZeroMQ over tcp between nodes: Ray sees no event

Ray's own connections are as safe as the network they run in (`RAY_USE_TLS`); keys travel over them.

The roads not taken. Events through Ray's object store: two copies and a scheduler between any two packets. A process
of its own beside each actor: it would outlive an actor that is killed, and write where its successor writes. Ray's own
restart of actors: a node alone cannot go back, all have to begin again together (``stream.run``).
"""

import contextlib
import os
import queue
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import zmq

from stream.errors import ConfigError, RunError
from stream.node import Command, Line, Pass, Report, serve
from stream.pipeline import NodeSpec, Pipeline
from stream.processes import Engine, NodeProcess, Reports

__all__ = ["RayEngine", "begin_at", "join"]

PLACE_PATIENCE_S = 60.0  # how long the cluster may take to find room for all nodes
CALL_PATIENCE_S = 20.0  # how long an actor may take to answer a call
LISTEN_S = 0.5  # how long a call for reports waits for the first one
CLIENT_PORT = 10001
KNOCKS = 5  # at Ray's client port


def join(where: str) -> Any:
    """Join a cluster and return the module ``ray``.

    Parameters
    ----------
    where
        ``ray``: the cluster that this machine is part of (or that of ``RAY_ADDRESS``), and if it is part of none, one
        of this machine alone. ``ray://HEAD`` or ``ray://HEAD:PORT``: one that this machine is not part of.

    Raises
    ------
    ConfigError
        If Ray is not installed, or there is nobody at the address.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError(f"--on {where}: needs Ray; pip install 'hebbstream[cluster]'") from None
    if ray.is_initialized():
        return ray
    # quiet: what matters comes as reports of our own
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    scheme, _, head = where.partition("://")
    if scheme != "ray" or head.count(":") > 1:
        raise ConfigError(f"--on {where}: wanted ray, or ray://HEAD, or ray://HEAD:PORT")
    try:
        if head:
            _knock(ray, f"ray://{head}" if ":" in head else f"ray://{head}:{CLIENT_PORT}", options)
            return ray
        with contextlib.suppress(ConnectionError):
            ray.init("auto", **options)
            return ray
        ray.init(include_dashboard=False, **options)
    except Exception as error:  # Ray raises what gRPC, its own layers or the system raise
        raise ConfigError(
            f"--on {where}: no cluster to be joined: {type(error).__name__}: {str(error).splitlines()[0]}; is it up "
            f"(ray status), of this version of Ray and of Python?"
        ) from None
    return ray


def _knock(ray: Any, address: str, options: dict[str, Any]) -> None:
    """Join through Ray's client port; again if what its server starts has crashed.

    It forks while gRPC's threads run. Without ``GRPC_ENABLE_FORK_SUPPORT=0`` in the server's environment the child may
    die of that (seen with Ray 2.60 and gRPC 1.85), which takes Ray half a minute to notice.
    """
    for knock in range(KNOCKS):
        try:
            ray.init(address, **options)
            return
        except ConnectionAbortedError:
            if knock == KNOCKS - 1:
                raise


def begin_at(folder: str) -> None:
    """Let relative paths begin where they begin for who gave the command, if this machine has that folder."""
    if Path(folder).is_dir():
        os.chdir(folder)


class NodeActor:
    """A node in the process of a Ray actor."""

    def __init__(self, folder: str) -> None:
        begin_at(folder)
        commands, self._commands = _pipe()
        self._reports, reports = _pipe()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._code: int | None = None
        line = Line(commands, reports)

        def host() -> None:
            code = serve(line)
            self._code = code
            line.close()

        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=host, daemon=True).start()

    def place(self) -> tuple[str, int]:
        """Return the machine's address and the process's number."""
        import ray

        util: Any = ray.util
        return str(util.get_node_ip_address()), os.getpid()

    def tell(self, line: bytes) -> None:
        """Pass a command on."""
        self._commands.write(line)
        self._commands.flush()

    def reports(self) -> list[bytes]:
        """Return what the node has reported since; waits a moment for the first. An empty line is the end."""
        lines: list[bytes] = []
        with contextlib.suppress(queue.Empty):
            lines.append(self._lines.get(timeout=LISTEN_S) or b"")
            while True:
                lines.append(self._lines.get_nowait() or b"")
        return lines

    def exit_code(self) -> int | None:
        """Return how the node has ended."""
        return self._code

    def _listen(self) -> None:
        for line in self._reports:
            self._lines.put(line)
        self._lines.put(None)


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")


class RayProcess(NodeProcess):
    """A node's actor as its supervisor sees it."""

    def __init__(self, name: str, actor: Any, ray: Any, reports: Reports) -> None:
        super().__init__(name)
        self._actor, self._ray, self._reports = actor, ray, reports
        self._place: tuple[str, int] | None = None
        self._code: int | None = None
        self._is_over = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Number of the process on its machine; 0 if it was never reached."""
        return self.place()[1]

    def place(self) -> tuple[str, int]:
        """Return the machine's address and the process's number; ``""`` and 0 if it was never reached."""
        if self._place is None:
            with contextlib.suppress(Exception):  # gone: that is reported elsewhere
                self._place = self._ray.get(self._actor.place.remote(), timeout=CALL_PATIENCE_S)
        return self._place or ("", 0)

    def tell(self, command: Command) -> None:
        """Send a command. Ray calls an actor's methods in the order of the calls as long as one waits for each."""
        with contextlib.suppress(Exception):  # gone: that is reported elsewhere
            line = msgspec.json.encode(command) + b"\n"
            self._ray.get(self._actor.tell.remote(line), timeout=CALL_PATIENCE_S)

    def exit_code(self, timeout_s: float) -> int | None:
        """Return how it ended."""
        self._listener.join(timeout_s)
        return self._code

    def last_words(self) -> str:
        """Nothing: an actor's standard error is in Ray's own log."""
        return ""

    def kill(self) -> None:
        """End the actor at once."""
        self._is_over = True
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)
        self._listener.join(CALL_PATIENCE_S)

    def end(self, deadline_s: float) -> None:
        """Wait for the node, then end the actor, which does not end by itself."""
        self._listener.join(max(0.0, deadline_s - time.monotonic()))
        self.kill()

    def _listen(self) -> None:
        decoder = msgspec.json.Decoder(Report)
        try:
            self.place()  # while it can be asked
            while not self._is_over:
                for line in self._ray.get(self._actor.reports.remote()):
                    if not line:
                        self._code = self._ray.get(self._actor.exit_code.remote(), timeout=CALL_PATIENCE_S)
                        return
                    self._reports.put((self, decoder.decode(line)))
        except Exception:
            return  # the actor is gone, or the cluster is
        finally:
            self._reports.put((self, None))


class RayEngine(Engine):
    """Actors of a Ray cluster, joined by tcp under keys of this run.

    Parameters
    ----------
    where
        As for :func:`join`.
    pipeline
        Whose nodes are to be placed.

    Raises
    ------
    ConfigError
        If there is no cluster, or it has no room for all nodes.
    """

    def __init__(self, where: str, pipeline: Pipeline) -> None:
        self._ray = join(where)
        self._processes: dict[str, RayProcess] = {}
        self._nodes = pipeline.nodes
        self._keys = {name: zmq.curve_keypair() for name in self._nodes}
        asked = {spec.name: spec for spec in pipeline.node}
        self._specs = {name: asked.get(name) or NodeSpec(name=name) for name in self._nodes}
        group = self._ray.util.placement_group
        self._group = group(
            [self._resources(spec) for spec in self._specs.values()],
            strategy="PACK",
            bundle_label_selector=[{"host": spec.host} if spec.host else {} for spec in self._specs.values()],
        )
        if not self._group.wait(PLACE_PATIENCE_S):
            self.close()
            raise ConfigError(f"run on {where}: no room for all nodes: {self._shortage()}")

    def start(self, name: str, reports: Reports) -> NodeProcess:
        """Let Ray start a node where its place is; after the loss of a machine that is another one."""
        strategies = self._ray.util.scheduling_strategies
        spec = self._specs[name]
        # threads: one waits for reports while another takes commands
        actor = self._ray.remote(NodeActor).options(
            num_cpus=spec.cpus,
            memory=spec.memory_mb << 20 or None,
            max_concurrency=8,
            max_restarts=0,
            scheduling_strategy=strategies.PlacementGroupSchedulingStrategy(self._group, self._nodes.index(name)),
        )
        # keys of a node that was lost may be lost with it
        self._keys[name] = zmq.curve_keypair()
        self._processes[name] = RayProcess(name, actor.remote(os.getcwd()), self._ray, reports)
        return self._processes[name]

    def endpoint(self, name: str, number: int) -> str:
        """Listen at the address by which the cluster knows the machine, at a port that is free there."""
        del number
        address = self._processes[name].place()[0]
        if not address:
            raise RunError(f"node '{name}': its actor does not answer; see the cluster's state (ray status)")
        return f"tcp://{address}:*"

    def keys(self, name: str) -> Pass | None:
        """Return a node's keys."""
        public, secret = self._keys[name]
        peers = {peer: pair[0].decode() for peer, pair in self._keys.items()}
        return Pass(public.decode(), secret.decode(), peers)

    def places(self) -> dict[str, tuple[str, int]]:
        """Return where each node is: address of the machine, number of the process."""
        return {name: process.place() for name, process in self._processes.items()}

    def close(self) -> None:
        """Give the places back."""
        with contextlib.suppress(Exception):
            self._ray.util.remove_placement_group(self._group)

    def _resources(self, spec: NodeSpec) -> dict[str, float]:
        return {"CPU": spec.cpus, **({"memory": float(spec.memory_mb << 20)} if spec.memory_mb else {})}

    def _shortage(self) -> str:
        wanted = ", ".join(
            f"{spec.name} ({spec.cpus:g} cpus"
            + (f", {spec.memory_mb} MiB" if spec.memory_mb else "")
            + (f", on host {spec.host}" if spec.host else "")
            + ")"
            for spec in self._specs.values()
        )
        there = ", ".join(
            f"{node['Labels'].get('host', node['NodeManagerAddress'])} ({node['Resources'].get('CPU', 0):g} cpus, "
            f"{node['Resources'].get('memory', 0) / 2**20:.0f} MiB)"
            for node in self._ray.nodes()
            if node["Alive"]
        )
        return f"wanted {wanted}; the cluster has {there}; ask for less in [[node]], or add machines"
