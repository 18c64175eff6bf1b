"""Taps: viewers come and go, slow ones lose and are told, and the pipeline does not notice."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from stream.backlog import Bounds
from stream.edge import Hello
from stream.errors import ConfigError, GraphError, StreamError
from stream.operator import Port
from stream.packet import EVENT_DTYPE, End, Label, Loss, Message, Packet
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec, TapSpec, source_of
from stream.record import read_recording
from stream.run import run
from stream.tap import Tap, TapSource
from stream.wire import PROTOCOL_VERSION

PORT = Port("events", 10, 10)


@pytest.fixture
def tap(tmp_path: Path) -> Iterator[Tap]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Tap(context, "camera.events", PORT, f"ipc://{tmp_path}/tap", bounds=Bounds(messages=4, age_us=10**9))
    yield made
    made.close()
    assert not (tmp_path / "tap").exists()
    context.destroy(linger=0)


def packet(first: int, n: int = 10) -> Packet:
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.arange(first, first + n)
    return Packet(events, first, first + n)


def attach(tap: Tap) -> TapSource:
    """Attach while the tap's own thread, which is this one, is busy answering."""
    made: list[TapSource] = []
    before = tap.n_viewers
    thread = threading.Thread(target=lambda: made.append(TapSource(endpoint=tap.endpoint)), daemon=True)
    thread.start()
    deadline = time.monotonic() + 5
    while tap.n_viewers == before and time.monotonic() < deadline:
        tap.service()
    thread.join(5)
    return made[0]


def read(source: TapSource, tap: Tap | None = None, quiet_s: float = 0.2) -> list[Message]:
    got: list[Message] = []
    last_s = time.monotonic()
    while time.monotonic() - last_s < quiet_s and not (got and isinstance(got[-1], End)):
        message = source.poll(1)
        if message is not None:
            got.append(message)
            last_s = time.monotonic()
        if tap is not None:
            tap.service()
    return got


def test_viewers_come_and_go_and_get_what_happens_meanwhile(tap: Tap) -> None:
    tap.put(packet(0))  # nobody looks
    first = attach(tap)
    assert first.outputs["events"] == PORT
    tap.put(packet(10))
    second = attach(tap)
    tap.put(Label(20, 3, 0))
    tap.put(packet(20))
    starts = [[m.start_us if isinstance(m, Packet) else m for m in read(each, tap)] for each in (first, second)]
    assert starts == [[10, Label(20, 3, 0), 20], [Label(20, 3, 0), 20]]
    first.close()
    deadline = time.monotonic() + 5
    while tap.n_viewers > 1 and time.monotonic() < deadline:
        tap.service()
    assert tap.n_viewers == 1
    tap.put(End(30))
    tap.service()
    assert read(second, tap) == [End(30)]
    second.close()
    tap.finish()
    counts = tap.account()
    assert counts.sent_messages == counts.delivered_messages + counts.dropped_messages == 6
    assert counts.dropped_messages == 0


def test_a_slow_viewer_loses_and_is_told_and_never_slows_the_tap(tap: Tap) -> None:
    source = attach(tap)
    start = time.monotonic()
    for index in range(2000):
        tap.put(packet(10 * index))
    assert time.monotonic() - start < 2
    got = read(source, tap)
    tap.put(End(20_000))
    got += read(source, tap)
    delivered = sum(len(message.items) for message in got if isinstance(message, Packet))
    told = sum(message.items for message in got if isinstance(message, Loss))
    assert told > 10_000
    assert delivered + told == 20_000
    source.close()
    tap.finish()
    counts = tap.account()
    assert counts.sent_items == 20_000 == counts.delivered_items + counts.dropped_items
    assert counts.sent_messages == counts.delivered_messages + counts.dropped_messages


def test_strangers_change_nothing(tap: Tap) -> None:
    good = attach(tap)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    hellos = [
        Hello(99, "", Port("any"), ""),
        Hello(PROTOCOL_VERSION, "", Port("any"), "wrong"),
        Hello(PROTOCOL_VERSION, "", Port("spikes"), ""),
    ]
    rubbish = [[b"hello", msgspec.msgpack.encode(hello)] for hello in hellos]
    rubbish += [[b""], [b"ack", b"\xff" * 8], [b"data", b"x"], [b"hello", b"\xc1" * 100]]
    for frames in rubbish:
        with context.socket(zmq.DEALER) as peer:
            peer.connect(tap.endpoint)
            peer.send_multipart(frames)
            deadline = time.monotonic() + 2
            while not peer.poll(5) and time.monotonic() < deadline:
                tap.service()
            assert peer.recv_multipart()[0] == b"refused"
    tap.put(packet(0))
    assert len(read(good, tap)) == 1
    assert tap.account().refused_messages == len(rubbish)
    good.close()
    context.destroy(linger=0)


def test_a_viewer_that_acknowledges_what_was_never_sent_is_let_go(tap: Tap) -> None:
    source = attach(tap)
    source._socket.send_multipart([b"ack", (10**9).to_bytes(8, "little")])
    deadline = time.monotonic() + 5
    while tap.n_viewers and time.monotonic() < deadline:
        tap.service()
    assert tap.n_viewers == 0
    assert "acknowledged 1000000000 of 0" in tap.last_refusal
    source.close()


def test_a_tap_that_goes_is_noticed(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    tap = Tap(context, "a.b", PORT, f"ipc://{tmp_path}/gone")
    source = attach(tap)
    tap.close()
    context.destroy(linger=0)
    assert read(source, quiet_s=3.0) == [End(0, "the tap has gone")]
    source.close()
    with pytest.raises(StreamError, match="nobody answered"):
        TapSource(endpoint=f"ipc://{tmp_path}/gone", timeout_s=0.2)


def described(tmp_path: Path) -> Pipeline:
    return Pipeline(
        name="toy",
        source=[SourceSpec(name="count", kind="toy_members.Count", params={"n": 30_000}, speed=0.3, packet_us=5_000)],
        operator=[OperatorSpec(name="relay", kind="toy_members.Relay")],
        edge=[EdgeSpec(source="count.events", target="relay.events")],
        tap=[TapSpec(source="relay.events", endpoint=f"ipc://{tmp_path}/tap")],
    )


@pytest.mark.parametrize("processes", [False, True])
def test_a_recorder_attaches_to_a_running_pipeline(tmp_path: Path, toys: list[str], processes: bool) -> None:
    def look() -> None:
        deadline = time.monotonic() + 30
        while not (tmp_path / "tap").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stat.S_IMODE(os.stat(tmp_path / "tap").st_mode) & 0o077 == 0  # from its first moment on
        kind, params = source_of(f"tap:ipc://{tmp_path}/tap")
        recording = Pipeline(
            name="look",
            source=[SourceSpec(name="tap", kind=kind, params=params)],
            operator=[
                OperatorSpec(
                    name="file",
                    kind="stream.record.Recorder",
                    params={"path": str(tmp_path / "look.hbs"), "ports": {"events": "events"}},
                )
            ],
            edge=[EdgeSpec(source="tap.events", target="file.events")],
        )
        run(recording, processes=False)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    result = run(described(tmp_path), processes=processes, plugins=toys)
    thread.join(20)
    assert result.ledgers[0].items == (30_000, 30_000, 0)
    account = result.ledgers[1]
    assert account.edge == "relay.events -> tap"
    assert account.is_balanced
    found = read_recording(tmp_path / "look.hbs")
    items = found.items("events")
    lost = sum(mark.items for mark in found.marks("events") if isinstance(mark, Loss))
    assert len(items) > 5_000
    assert account.items[1] == len(items)
    assert account.items[2] >= lost
    assert items["t"][-1] == 299_990
    assert not (tmp_path / "tap").exists()


def test_a_tap_for_everybody_or_of_nothing_is_refused(tmp_path: Path, toys: list[str]) -> None:
    pipeline = described(tmp_path)
    pipeline.tap = [TapSpec(source="relay.events", endpoint="tcp://0.0.0.0:7000")]
    with pytest.raises(ConfigError, match="--insecure"):
        run(pipeline, processes=False, plugins=toys)
    pipeline.tap = [TapSpec(source="relay.spikes", endpoint=f"ipc://{tmp_path}/tap")]
    with pytest.raises(GraphError, match="no such output"):
        run(pipeline, processes=False, plugins=toys)
