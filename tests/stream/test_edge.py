"""Edges over real sockets: order, credit, an exact ledger, and strangers kept out."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from stream.edge import Bounds, Hello, Receiver, Sender
from stream.errors import StreamError
from stream.operator import Port
from stream.packet import EVENT_DTYPE, End, Label, Message, Packet
from stream.wire import PROTOCOL_VERSION, encode

PORT = Port("events", 10, 10)
NAME = "a.out -> b.in"


def packet(first: int, n: int = 10) -> Packet:
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.arange(first, first + n)
    return Packet(events, first, first + n)


@pytest.fixture
def context() -> "Iterator[zmq.Context[zmq.Socket[bytes]]]":
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture(params=["ipc", "tcp"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/e" if request.param == "ipc" else "tcp://127.0.0.1:*"


class Consumer(threading.Thread):
    """Receives in a thread until End, as slowly as asked."""

    def __init__(self, receiver: Receiver, work: Callable[[Message], None] = lambda message: None) -> None:
        super().__init__(daemon=True)
        self.receiver, self.work = receiver, work
        self.got: list[Message] = []
        self.failure: StreamError | None = None
        self.is_stopped = False
        self.start()

    def stop(self) -> None:
        self.is_stopped = True
        self.join(10)

    def run(self) -> None:
        try:
            while not self.is_stopped and not (self.got and isinstance(self.got[-1], End)):
                self.receiver.socket.poll(5)
                message = self.receiver.receive()
                if message is None:
                    self.receiver.acknowledge()
                    continue
                self.work(message)
                self.got.append(message)
                self.receiver.done(message)
        except StreamError as error:
            self.failure = error


def test_everything_arrives_in_order(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t", window=4)
    consumer = Consumer(receiver)
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    assert sender.window == 4  # the smaller of the two
    sent = [packet(10 * index) if index % 3 else Label(10 * index, index, 0) for index in range(200)]
    for message in [*sent, End(2000)]:
        sender.put(message)
    sender.close()
    consumer.join(10)
    assert len(consumer.got) == 201
    for left, right in zip(sent, consumer.got, strict=False):
        if isinstance(left, Packet):
            assert isinstance(right, Packet)
            assert np.array_equal(left.items, right.items)
        else:
            assert left == right
    assert sender.counts.sent_messages == receiver.counts.delivered_messages == 201
    assert sender.counts.sent_items == receiver.counts.delivered_items
    assert sender.counts.dropped_messages == 0
    receiver.close()


def test_a_lossless_sender_waits_for_a_slow_receiver(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t", window=3)
    most = 0

    def work(message: Message) -> None:
        nonlocal most
        time.sleep(0.005)
        most = max(most, sender.in_flight)

    sender = Sender(context, NAME, PORT, token="t")
    consumer = Consumer(receiver, work)
    sender.connect(receiver.endpoint)
    for index in range(40):
        sender.put(packet(10 * index))
    sender.put(End(400))
    sender.close()
    consumer.join(10)
    assert most <= 3
    assert receiver.counts.delivered_items == 400
    receiver.close()


def test_a_live_edge_drops_the_oldest_and_tells(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t", window=2)
    gate = threading.Event()
    consumer = Consumer(receiver, lambda message: gate.wait(10) and None)
    bounds = Bounds(messages=5, age_us=10**9)
    sender = Sender(context, NAME, PORT, token="t", delivery="live", bounds=bounds)
    sender.connect(receiver.endpoint)
    start = time.monotonic()
    for index in range(100):
        sender.put(packet(10 * index))
        if index == 50:
            sender.put(Label(500, 1, 0))
    assert time.monotonic() - start < 5  # never waited for the receiver, which has not moved at all
    gate.set()
    sender.put(End(1000))
    sender.close()
    consumer.join(10)
    sent, delivered, dropped = (
        sender.counts.sent_items,
        receiver.counts.delivered_items,
        sender.counts.dropped_items,
    )
    assert sent == 1000
    assert dropped > 800
    assert sent == delivered + dropped
    assert sender.counts.sent_messages == receiver.counts.delivered_messages + sender.counts.dropped_messages
    assert sum(isinstance(message, Label) for message in consumer.got) == 1  # marks are never dropped
    newest = [message for message in consumer.got if isinstance(message, Packet)][-1]
    assert newest.items["t"][-1] == 999
    receiver.close()


def test_a_live_edge_drops_what_is_too_old(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t", window=1)
    gate = threading.Event()
    consumer = Consumer(receiver, lambda message: gate.wait(10) and None)
    sender = Sender(context, NAME, PORT, token="t", delivery="live", bounds=Bounds(age_us=20_000))
    sender.connect(receiver.endpoint)
    sender.put(packet(0))
    sender.put(packet(10))
    time.sleep(0.05)
    sender.put(packet(20))
    assert sender.counts.dropped_items == 10
    gate.set()
    sender.put(End(30))
    sender.close()
    consumer.join(10)
    assert receiver.counts.delivered_items == 20
    receiver.close()


def test_what_still_waits_when_a_live_edge_closes_is_counted(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str
) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t", window=1)
    gate = threading.Event()
    consumer = Consumer(receiver, lambda message: gate.wait(10) and None)
    sender = Sender(context, NAME, PORT, token="t", delivery="live", bounds=Bounds(age_us=10**9))
    sender.connect(receiver.endpoint)
    for index in range(4):
        sender.put(packet(10 * index))
    sender.close(timeout_s=0.1)
    assert sender.counts.sent_items == 40
    assert sender.counts.dropped_items == 30
    gate.set()
    consumer.stop()
    assert receiver.counts.delivered_items == 10
    receiver.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token": "other"}, "another run"),
        ({"edge": "x.y -> z.w"}, "this is edge"),
        ({"protocol": 99}, "protocol 99, wanted 1"),
        ({"port": Port("spikes")}, "brings spikes, wanted events 10x10"),
        ({"port": Port("events", 640, 480)}, "brings events 640x480, wanted events 10x10"),
    ],
)
def test_a_wrong_hello_is_refused_with_words(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, change: dict[str, object], words: str
) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t")
    hello = msgspec.structs.replace(Hello(PROTOCOL_VERSION, NAME, PORT, "t"), **change)
    with context.socket(zmq.DEALER) as peer:
        peer.connect(receiver.endpoint)
        peer.send_multipart([b"hello", msgspec.msgpack.encode(hello)])
        receiver.socket.poll(2000)
        assert receiver.receive() is None
        assert peer.poll(2000)
        answer = peer.recv_multipart()
    assert answer[0] == b"refused"
    assert words in answer[1].decode()
    assert receiver.counts.refused_messages == 1
    receiver.close()


def test_rubbish_from_strangers_changes_nothing(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t")
    consumer = Consumer(receiver)
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    strangers = [context.socket(zmq.DEALER) for _ in range(3)]
    rubbish = [
        [b"data", b"\x00" * 50, b"x"],
        [b"hello"],
        [b"hello", b"\xff\xff\xff"],
        [b"hello", b"y" * 10_000],
        [b""],
        [b"data", *(bytes(frame) for frame in encode(packet(0), stream=NAME, sequence=0))],
        [b"x"] * 50,
    ]
    for stranger in strangers:
        stranger.connect(receiver.endpoint)
    for index in range(50):
        sender.put(packet(10 * index))
        strangers[index % 3].send_multipart(rubbish[index % len(rubbish)])
    time.sleep(0.2)
    sender.put(End(500))
    sender.close()
    consumer.join(10)
    assert consumer.failure is None
    assert receiver.counts.delivered_items == sender.counts.sent_items == 500
    assert receiver.counts.refused_messages == 50
    for stranger in strangers:
        stranger.close(linger=0)
    receiver.close()


def test_bytes_that_are_not_zeromq_change_nothing(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    import socket

    receiver = Receiver(context, NAME, PORT, "tcp://127.0.0.1:*", token="t")
    consumer = Consumer(receiver)
    host, port = receiver.endpoint.removeprefix("tcp://").split(":")
    for payload in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 70_000, b"\xff" * 64):
        with socket.create_connection((host, int(port)), timeout=2) as scanner:
            scanner.sendall(payload)
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    sender.put(packet(0))
    sender.put(End(10))
    sender.close()
    consumer.join(10)
    assert receiver.counts.delivered_items == 10
    receiver.close()


@pytest.mark.parametrize("sequence", [1, 5])
def test_a_missing_message_is_an_error_not_a_gap(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, sequence: int
) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t")
    consumer = Consumer(receiver)
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    sender.sequence = sequence
    sender.put(packet(0))
    consumer.join(10)
    assert f"wanted 0: {sequence} lost" in str(consumer.failure)
    sender.socket.close()
    receiver.close()


def test_rubbish_from_the_own_peer_is_an_error(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t")
    consumer = Consumer(receiver)
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    sender.socket.send_multipart([b"data", b"rubbish"])
    consumer.join(10)
    assert "message header" in str(consumer.failure)
    sender.socket.close()
    receiver.close()


def test_nobody_there_is_an_error_with_the_way_out(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> None:
    sender = Sender(context, NAME, PORT, token="t")
    with pytest.raises(StreamError, match="nobody answered at ipc:.*is the receiving node running"):
        sender.connect(f"ipc://{tmp_path}/nobody", timeout_s=0.2)
    sender.socket.close()


def test_a_taken_address_is_an_error(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    first = Receiver(context, NAME, PORT, "tcp://127.0.0.1:*", token="t")
    with pytest.raises(StreamError, match="cannot listen"):
        Receiver(context, NAME, PORT, first.endpoint, token="t")
    first.close()


def test_zero_copy_stall_size(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    """Messages of exactly 64 KiB stalled for 170 ms with pyzmq's zero-copy path; 3,000 of them must simply pass."""
    receiver = Receiver(context, NAME, PORT, endpoint, token="t")
    consumer = Consumer(receiver)
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    big = packet(0, 8192)
    for _ in range(3000):
        sender.put(big)
    sender.put(End(1))
    sender.close(timeout_s=30)
    consumer.join(30)
    assert receiver.counts.delivered_items == 3000 * 8192
    receiver.close()
