"""The catalogue of faults, docs/faults.md, is true; and those of its tests that belong to no other module."""

import importlib.util
import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from stream.edge import Receiver, Sender
from stream.operator import Port
from stream.packet import EVENT_DTYPE, Deploy, End, Message, Packet, packet_of
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.run import RunResult, run
from stream.wire import decode, encode


def toy_module(name: str) -> Any:
    """Load one of tests/toys: importlib mode puts no test folder on sys.path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "toys" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_catalogue_names_what_there_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()
    named = re.findall(r"^\| (\d+) \| .* \| `([a-z]+/test_\w+\.py)::(test_\w+)` \|$", page, re.MULTILINE)
    assert {int(item) for item, *_ in named} == set(range(1, 13))
    assert len(named) == len(re.findall(r"^\| \d", page, re.MULTILINE))
    for _, file, name in named:
        text = (Path(__file__).parents[1] / file).read_text()
        assert f"def {name}(" in text, f"{file}: no {name}"


# 3: a consumer that stands still


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_consumer_stopped_for_ten_seconds_costs_bounded_memory(toys: list[str]) -> None:
    """Both kinds of edge at a million events a second: 100 MB would pile up at the source of each."""
    n = 12_000_000
    found: dict[str, tuple[RunResult, list[tuple[str, int]]]] = {}

    def watch(delivery: Any) -> None:
        source = SourceSpec(name="count", kind="toy_members.Count", params={"n": n}, packet_items=10_000, speed=10.0)
        pipeline = Pipeline(
            name=delivery,
            source=[source],
            operator=[OperatorSpec(name=delivery, kind="toy_members.Relay")],
            edge=[EdgeSpec(source="count.events", target=f"{delivery}.events", delivery=delivery)],
        )
        sizes: list[tuple[str, int]] = []
        began: list[float] = []
        stopped: list[int] = []

        def look(statuses: dict[str, Any], phase: str) -> None:
            if len(statuses) < 2 or phase != "running":
                return
            began[:] = began or [time.monotonic()]
            passed_s = time.monotonic() - began[0]
            if passed_s > 1.0 and not stopped:
                stopped.append(node_pids(os.getpid())[delivery])
                os.kill(stopped[0], signal.SIGSTOP)
            if passed_s > 11.0 and len(stopped) == 1:
                os.kill(stopped[0], signal.SIGCONT)
                stopped.append(0)
            sizes.append((("before", "stopped", "after")[len(stopped)], statuses["count"].memory_bytes))

        found[delivery] = run(pipeline, plugins=toys, on_status=look), sizes

    node_pids = toy_module("kill_study").node_pids
    threads = [threading.Thread(target=watch, args=(delivery,)) for delivery in ("lossless", "live")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for delivery, (result, sizes) in found.items():
        (ledger,) = result.ledgers
        assert ledger.is_balanced
        assert ledger.items[0] == n
        assert (ledger.items[2] > 0) == (delivery == "live")
        most = {when: max(size for it, size in sizes if it == when) for when in ("before", "stopped", "after")}
        print(delivery, {when: f"{size / 1e6:.1f} MB" for when, size in most.items()})
        # what may wait (16 MiB), and shared memory for the window
        assert max(most.values()) - most["before"] < 40 << 20
    assert set(found) == {"lossless", "live"}


# 6: times that step


@pytest.mark.parametrize("step_us", [1, 4096, 1 << 24, 3_600_000_000])
def test_times_that_step(tmp_path: Path, step_us: int) -> None:
    """A file whose times go back once: what comes out never does, and what was done is counted."""
    from sources.event_file import EventFile

    t = np.concatenate([np.arange(100) * 50 + 2 * step_us, np.arange(100) * 50 + step_us])
    path = tmp_path / "steps.csv"
    path.write_text("t,x,y,p\n" + "".join(f"{time_us},3,4,1\n" for time_us in t))
    source = EventFile(path=str(path), width=10, height=10)
    times: list[int] = []
    message: Message | None = None
    while not isinstance(message, End):
        message = source.poll(1000)
        if isinstance(message, Packet):
            times += message.items["t"].tolist()
    source.close()
    assert times == sorted(times)
    assert times[:100] == t[:100].tolist()


# 7: packets of any size


def test_packets_of_any_size(tmp_path: Path) -> None:
    """None, one, and ten million events in one packet."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receiver = Receiver(context, "a.b -> c.d", Port("events"), f"ipc://{tmp_path}/e", token="")
    got: list[np.ndarray] = []
    ends: list[int] = []

    def consume() -> None:
        message: Message | None = None
        while not isinstance(message, End):
            receiver.socket.poll(100)
            message = receiver.receive()
            if message is None:
                receiver.acknowledge()
                continue
            if isinstance(message, Packet):
                got.append(message.items["t"].copy())
                ends.append(message.end_us)
            receiver.done(message)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    sender = Sender(context, "a.b -> c.d", Port("events"), token="")
    sender.connect(receiver.endpoint)
    events = np.zeros(10_000_000, EVENT_DTYPE)
    events["t"] = np.arange(len(events))
    sender.put(Packet(events[:0], -5, 0))
    sender.put(packet_of(events[:1]))
    sender.put(Packet(events[1:], 1, len(events)))
    sender.put(End(len(events)))
    sender.close()
    thread.join(30)
    assert np.array_equal(np.concatenate(got), events["t"])
    assert ends[0] == 0
    assert sender.counts.sent_items == receiver.counts.delivered_items == len(events)
    receiver.close()
    context.destroy(linger=0)


# 9: weights


def test_weights_that_are_no_numbers_arrive_as_they_were_sent() -> None:
    """The stream changes nothing: what to think of them is for the operator that takes them."""
    weights = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324], np.float64)
    frames = [bytes(frame) for frame in encode(Deploy(0, 1, {"w": weights}), stream="s", sequence=0)]
    message = decode(frames)[1]
    assert isinstance(message, Deploy)
    assert message.arrays["w"].tobytes() == weights.tobytes()


# 12: a long run, shortened


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_nothing_grows_and_nothing_drifts(toys: list[str]) -> None:
    result, memory = toy_module("soak").soak(10.0)
    assert set(memory) == {"count", "relay", "sink", "viewer"}
    assert all(len(sizes) >= 3 for sizes in memory.values())
    assert json.dumps(result.members)
