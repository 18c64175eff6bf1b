"""`hebbstream bench`: speeds as ratios to a limit measured in the same run.

A figure in seconds says more about the machine and its neighbours than about the code. So every measurement stands
beside a limit (the plainest loop over the same memory, bare pyzmq with messages of the same size) that is timed in
strict alternation with it, and what is kept and compared is the ratio.
"""

import contextlib
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stream.errors import ConfigError, RunError
from stream.operator import Emit, Operator, Port, Snapshot, Source, check_shapes
from stream.packet import EVENT_DTYPE, End, Message, Packet
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec

if TYPE_CHECKING:
    from rich.console import Console

    from stream.host import Status

__all__ = ["Measurement", "Pass", "Steady", "alternate", "measurements", "run_all"]

SUITES = (
    "stream.bench",
    "stream.view_bench",
    "sources.bench",
    "sources.decode_bench",
    "sources.filter_bench",
    "neurons.bench",
    "plasticity.bench",
    "plasticity.train_bench",
    "chip.bench",
)


class Measurement(NamedTuple):
    """One figure beside its limit."""

    name: str  # what was measured, unique: the key in the baseline
    rate: float  # units a second
    unit: str  # what is counted: "events", "synaptic operations", ...
    limit: str  # what it is compared with
    limit_rate: float  # units a second of the limit

    @property
    def ratio(self) -> float:
        """``rate / limit_rate``: 1.0 = as fast as the limit."""
        return self.rate / self.limit_rate


def alternate(candidate: Callable[[], object], limit: Callable[[], object], *, rounds: int = 7) -> tuple[float, float]:
    """Time two callables in strict alternation, after one call of each to warm up.

    Returns
    -------
    candidate_s, limit_s
        The smallest time of each over the rounds, seconds. The smallest, because on a shared machine everything that
        disturbs a measurement makes it longer.
    """
    candidate()
    limit()
    candidate_s: list[float] = []
    limit_s: list[float] = []
    for _ in range(rounds):
        for call, times in ((candidate, candidate_s), (limit, limit_s)):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return min(candidate_s), min(limit_s)


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure an edge between two processes beside bare pyzmq with messages of the same size."""
    n_events, n_messages = 4096, 200 if quick else 3000
    for transport, shared in (("ipc", True), ("tcp", True), ("tcp", False)):
        with tempfile.TemporaryDirectory(prefix="hebbstream-") as folder:
            yield _measure_edge(transport, folder, n_events, n_messages, rounds=2 if quick else 5, shared=shared)
    with tempfile.TemporaryDirectory(prefix="hebbstream-") as folder:
        yield _measure_edge("tcp", folder, n_events, n_messages // 4, rounds=2, shared=False, encrypted=True)
    yield from _measure_chain(0.5 if quick else 4.0)


class Steady(Source):
    """Events at a fixed rate, in packets of a millisecond; what the measurements of a chain play.

    Parameters
    ----------
    rate_hz
        Events a second of stream.
    seconds
        Of stream.
    """

    def __init__(self, *, rate_hz: int, seconds: float) -> None:
        self.outputs = {"events": Port("events", 640, 480)}
        n = rate_hz // 1000
        self._events = np.zeros(n, EVENT_DTYPE)
        self._events["t"] = np.arange(n) * 1000 // n
        self._events["x"], self._events["y"] = np.arange(n) % 640, np.arange(n) % 480
        self._at_ms, self._end_ms = 0, round(seconds * 1000)

    def poll(self, max_items: int) -> Message:
        """Return the next millisecond, whatever ``max_items``."""
        del max_items
        start_us = self._at_ms * 1000
        if self._at_ms == self._end_ms:
            return End(start_us)
        self._events["t"] += 1000 * (self._at_ms > 0)
        self._at_ms += 1
        return Packet(self._events, start_us, start_us + 1000)

    def snapshot(self) -> Snapshot:
        """Return how far it is."""
        return {"at_ms": np.array(self._at_ms)}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there."""
        check_shapes("steady source", self.snapshot(), snapshot)
        self._events["t"] += 1000 * (max(0, int(snapshot["at_ms"]) - 1) - max(0, self._at_ms - 1))
        self._at_ms = int(snapshot["at_ms"])


class Pass(Operator):
    """Passes events on."""

    def __init__(self) -> None:
        self.inputs, self.outputs = {"events": Port("events")}, {"events": Port("events", 640, 480)}

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Emit the packet as it is."""
        emit(port, packet)

    def snapshot(self) -> Snapshot:
        """Return nothing: there is no state."""
        return {}

    def restore(self, snapshot: Snapshot) -> None:
        """Check that there is none."""
        check_shapes("pass", {}, snapshot)


def _measure_chain(seconds: float) -> Iterator[Measurement]:
    """Measure source -> operator -> operator, a process each, at a fixed rate."""
    from stream.run import run

    for rate_hz in (1_000_000, 10_000_000):
        source = SourceSpec(name="a", kind="stream.bench.Steady", params={"rate_hz": rate_hz, "seconds": seconds})
        source.speed = 1.0
        names = ("b", "c")
        operators = [OperatorSpec(name=name, kind="stream.bench.Pass") for name in names]
        edges = [EdgeSpec(source=f"{out}.events", target=f"{into}.events") for out, into in (("a", "b"), ("b", "c"))]
        first: dict[str, float] = {}
        last: dict[str, float] = {}

        def look(
            statuses: "dict[str, Status]",
            phase: str,
            first: dict[str, float] = first,
            last: dict[str, float] = last,
        ) -> None:
            del phase
            for name, status in statuses.items():
                first.setdefault(name, status.cpu_s)
                last[name] = status.cpu_s

        pipeline = Pipeline(name="chain", source=[source], operator=operators, edge=edges)
        result = run(pipeline, on_status=look)
        ledger = result.ledgers[-1]
        n = round(rate_hz * seconds)
        if ledger.items != (n, n, 0):
            raise RunError(f"bench: of {n:,} events in a lossless chain {ledger.items[1]:,} arrived")
        words = f"three processes, {rate_hz // 1_000_000} M events/s"
        latency = result.latency[edges[-1].name]
        if rate_hz == 1_000_000:
            for name, us in (("p50", latency.p50_us), ("p99", latency.p99_us)):
                yield Measurement(f"{words}: {name} latency, as 1/s", 1e6 / us, "", "5 ms", 200.0)
        else:
            yield Measurement(f"{words}: lossless", n / result.wall_s, "events", "the source's rate", float(rate_hz))
        cpu_s = sum(last.values()) - sum(first.values())
        hop = 2 * n / max(cpu_s, 1e-9)
        yield Measurement(f"{words}: events a hop and CPU second", hop, "events", "10 ms of CPU a million events", 1e8)


def _measure_edge(
    transport: str,
    folder: str,
    n_events: int,
    n_messages: int,
    rounds: int,
    shared: bool = True,
    encrypted: bool = False,
) -> Measurement:
    import zmq

    from stream.curve import Curve, make_keys
    from stream.edge import Sender
    from stream.packet import packet_of
    from stream.wire import encode

    events = np.zeros(n_events, EVENT_DTYPE)
    events["t"] = np.arange(n_events)
    events["x"] = np.arange(n_events) % 640
    packet = packet_of(events)
    frames = [bytes(frame) for frame in (b"data", *encode(packet, stream="a.b -> c.d", sequence=1))]
    ends = [f"ipc://{folder}/{name}" if transport == "ipc" else "tcp://127.0.0.1:*" for name in ("bare", "edge")]
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    keys: Path | None = None
    if encrypted:
        keys = Path(folder)
        for name in ("receiver", "sender"):
            make_keys(keys / name, name)
    child = spawn.Process(target=_receive_both, args=(there, ends, n_messages, rounds, keys), daemon=True)
    child.start()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    curve = None
    if keys is not None:
        curve = Curve.of_files(keys / "sender" / "sender.key_secret", server=keys / "receiver" / "receiver.key")
    try:
        bare = context.socket(zmq.PUSH)
        bare.connect(here.recv())

        def send_bare() -> None:
            for _ in range(n_messages):
                bare.send_multipart(frames, copy=True)
            here.recv()

        def send_edge() -> None:
            port = Port("events", 640, 480)
            sender = Sender(context, "a.b -> c.d", port, token="", shared=shared, curve=curve)
            sender.connect(here.recv())
            for _ in range(n_messages):
                sender.put(packet)
            sender.put(End(n_events))
            sender.close()
            here.recv()

        edge_s, bare_s = alternate(send_edge, send_bare, rounds=rounds)
    finally:
        context.destroy(linger=0)
        child.join(5)
        child.kill()
    count = n_events * n_messages
    limit = "bare pyzmq PUSH/PULL, same frames"
    words = f"edge {transport}, {n_events} events a packet" + ("" if shared else ", no shared memory")
    words += ", CURVE" if encrypted else ""
    return Measurement(words, count / edge_s, "events", limit, count / bare_s)


def _receive_both(pipe: Any, ends: list[str], n_messages: int, rounds: int, keys: Path | None = None) -> None:
    """Be the other process: receive by an edge and by a bare socket in turn."""
    import zmq

    from stream.curve import Curve
    from stream.edge import Receiver

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    curve = (
        Curve.of_files(keys / "receiver" / "receiver.key_secret", allow=keys / "sender") if keys is not None else None
    )
    bare = context.socket(zmq.PULL)
    bare.bind(ends[0])
    pipe.send(bare.getsockopt_string(zmq.LAST_ENDPOINT))
    for index in range(rounds + 1):  # `alternate` warms up with one call of each
        endpoint = f"{ends[1]}{index}" if ends[1].startswith("ipc") else ends[1]
        receiver = Receiver(context, "a.b -> c.d", Port("events"), endpoint, token="", curve=curve)
        pipe.send(receiver.endpoint)
        message = None
        while not isinstance(message, End):
            message = receiver.receive()
            if message is not None:
                receiver.done(message)
            elif not receiver.socket.poll(1):
                receiver.acknowledge()
        pipe.send("edge")
        for _ in range(n_messages):
            bare.recv_multipart()
        pipe.send("bare")
        receiver.close()
    if curve is not None:
        curve.close()
    context.destroy(linger=0)


@contextlib.contextmanager
def _talk_to_stderr() -> Iterator[None]:
    """Send what libraries print to standard output to standard error: a program may be reading our JSON there."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def run_all(
    console: "Console",
    *,
    quick: bool,
    only: str = "",
    baseline: Path | None = None,
    save: Path | None = None,
    as_json: bool = False,
) -> None:
    """Run every suite, show the ratios, compare them with a baseline.

    ``only`` names suites, separated by commas, or is a part of the names of measurements: then all are made and some
    are shown. In a file that is there already ``save`` replaces the ratios that were measured anew.

    Raises
    ------
    ConfigError
        If the baseline cannot be read, or there is nothing of that name.
    """
    from rich.box import SIMPLE
    from rich.table import Table

    from stream.terminal import si

    kept: dict[str, float] = {}
    if baseline is not None:
        try:
            kept = json.loads(baseline.read_text())["ratios"]
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"baseline {baseline}: cannot be read: {error}; make one with --save") from None
    found: list[Measurement] = []
    suites = only.split(",")
    are_suites = all(suite in SUITES for suite in suites)
    if not are_suites and len(suites) > 1:
        raise ConfigError(f"bench --only {only}: wanted suites of {', '.join(SUITES)}, or a part of a name")
    for suite in suites if are_suites else SUITES:
        with _talk_to_stderr(), console.status(f"measuring {suite.split('.')[0]}") as status:
            for measurement in importlib.import_module(suite).measurements(quick):
                status.update(f"measuring {suite.split('.')[0]}: {measurement.name}")
                if are_suites or only in measurement.name:
                    found.append(measurement)
    if not found:
        raise ConfigError(f"bench --only {only}: no measurement is called so; suites are {', '.join(SUITES)}")
    if as_json:
        print(json.dumps([measurement._asdict() | {"ratio": measurement.ratio} for measurement in found]))
    else:
        table = Table(
            title="ratio to the limit in the same run (1.0 = as fast as the limit)", title_justify="left", box=SIMPLE
        )
        for name in ("measurement", "rate", "limit", "limit's rate", "ratio", "baseline"):
            table.add_column(name, justify="left" if name in ("measurement", "limit") else "right")
        for it in found:
            before = kept.get(it.name)
            # rates move by 1.3 to 2 x between runs on a shared machine, ratios less: a third off is worth a look
            colour = "red" if before is not None and it.ratio < 0.67 * before else "green"
            rates = f"{si(it.rate)} {it.unit}/s", it.limit, f"{si(it.limit_rate)} {it.unit}/s"
            table.add_row(it.name, *rates, f"[{colour}]{it.ratio:.2f}[/{colour}]", f"{before:.2f}" if before else "-")
        console.print(table)
    if save is not None:
        ratios = json.loads(save.read_text())["ratios"] if save.exists() else {}
        ratios |= {it.name: round(it.ratio, 3) for it in found}
        save.write_text(json.dumps({"ratios": ratios}, indent=1) + "\n")
