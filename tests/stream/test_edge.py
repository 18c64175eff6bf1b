"""Edges over real sockets: order, credit, an exact ledger, and strangers kept out."""

import contextlib
import os
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from stream.backlog import Backlog, Policy
from stream.curve import Curve, guard_endpoint, make_keys
from stream.edge import Bounds, Hello, Receiver, Sender, is_whole
from stream.errors import ConfigError, StreamError
from stream.ledger import EdgeCounts
from stream.operator import Port
from stream.packet import EVENT_DTYPE, End, Label, Loss, Message, Packet
from stream.slots import Slots
from stream.wire import PROTOCOL_VERSION, Header, PacketBody, encode

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
        ({"schema": "dt <u8, x <u4"}, "events that are dt <u8, x <u4, wanted dt <u4, xp <u2, y <u2"),
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


# Live edges


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest", "sample"])
def test_what_a_live_edge_drops_is_told_where_it_is_missing(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, policy: Policy
) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t", window=2)
    gate = threading.Event()
    consumer = Consumer(receiver, lambda message: gate.wait(10) and None)
    bounds = Bounds(messages=6, age_us=10**9)
    sender = Sender(context, NAME, PORT, token="t", delivery="live", bounds=bounds, policy=policy)
    sender.connect(receiver.endpoint)
    for index in range(60):
        sender.put(packet(10 * index))
        counts = sender.counts
        # exact at any time, not only at the end
        left = counts.sent_messages - counts.dropped_messages
        assert left == sender.acknowledged + sender.in_flight + counts.waiting_messages
        assert counts.waiting_messages <= 6
    gate.set()
    sender.put(End(600))
    sender.close()
    consumer.join(10)
    assert consumer.failure is None
    missing, last = 0, 0
    before: Message | None = None
    for message in consumer.got:
        if isinstance(message, Loss):
            missing += message.items
            assert message.items == 10 * message.packets
            if policy != "sample":  # one gap at a time: from where it begins to the next message
                assert (message.start_us, message.t_us - message.start_us) == (last, message.items)
        elif isinstance(message, Packet):
            first = int(message.items["t"][0])
            assert first == last or isinstance(before, Loss)  # no gap without a mark
            last = message.end_us
        before = message
    delivered = receiver.counts.delivered_items
    assert sender.counts.sent_items == 600 == delivered + missing == delivered + sender.counts.dropped_items
    assert sender.counts.sent_messages == receiver.counts.delivered_messages + sender.counts.dropped_messages
    starts = [int(message.items["t"][0]) for message in consumer.got if isinstance(message, Packet)]
    if policy == "drop-oldest":
        assert starts[-5:] == [550, 560, 570, 580, 590]  # the end takes a place too
    if policy == "drop-newest":
        assert starts == [10 * index for index in range(len(starts))]
    if policy == "sample":
        gaps = np.diff(starts[2:])  # two were on their way before anything waited
        assert max(starts) > 400
        assert len(gaps) >= 2
        assert len(set(gaps.tolist())) == 1  # evenly
    receiver.close()


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.integers(0, 3)), max_size=60),
    st.sampled_from(["drop-oldest", "drop-newest", "sample"]),
    st.integers(1, 5),
    st.integers(13, 800),
)
def test_a_backlog_accounts_for_everything(
    steps: list[tuple[int, bool, int]], policy: Policy, messages: int, n_bytes: int
) -> None:
    counts = EdgeCounts()
    backlog = Backlog(Bounds(messages, n_bytes, 10**9), policy, counts)
    items = told = got = marks = t = 0
    for n, is_mark, pops in steps:
        backlog.put(Label(t, 1, 0) if is_mark else packet(t, n))
        items += 0 if is_mark else n
        marks += is_mark
        t += n
        backlog.trim()
        waiting = [entry.message for entry in backlog._entries]
        n_packets = sum(isinstance(message, Packet) for message in waiting)
        assert len(backlog) == counts.waiting_messages
        assert n_packets == 0 or (len(backlog) <= messages and backlog.n_bytes <= n_bytes)
        for _ in range(min(pops, len(backlog))):
            message = backlog.pop()
            told += message.items if isinstance(message, Loss) else 0
            got += len(message.items) if isinstance(message, Packet) else 0
            marks -= isinstance(message, Label)
    backlog.put(End(t))
    while len(backlog):
        message = backlog.pop()
        told += message.items if isinstance(message, Loss) else 0
        got += len(message.items) if isinstance(message, Packet) else 0
        marks -= isinstance(message, Label)
    assert items == got + told == got + counts.dropped_items
    assert marks == 0


# A proxy that spoils things


@pytest.mark.parametrize("fault", ["delay", "drop", "duplicate", "swap", "truncate", "cut", "corrupt"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_a_proxy_spoils_is_noticed_and_what_came_before_is_right(
    context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path, fault: str, seed: int
) -> None:
    spoil(context, tmp_path, fault, seed)


@given(st.integers(0, 1 << 31))
@settings(max_examples=15, deadline=None, phases=[Phase.generate])
def test_a_flipped_bit_anywhere_in_a_message_is_noticed(seed: int) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with tempfile.TemporaryDirectory() as name:
        spoil(context, Path(name), "corrupt", seed)
    context.destroy(linger=0)


def spoil(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path, fault: str, seed: int) -> None:
    receiver = Receiver(context, NAME, PORT, f"ipc://{tmp_path}/back", token="t", window=8)
    consumer = Consumer(receiver)
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(f"ipc://{tmp_path}/front")
    back.connect(receiver.endpoint)
    chance = np.random.default_rng(seed)
    victim = int(chance.integers(3, 30))
    is_over = threading.Event()

    def proxy() -> None:
        identity, n, held = b"", 0, list[bytes]()
        while not is_over.is_set():
            if front.poll(5):
                identity, *frames = front.recv_multipart()
                n += 1
                if n == victim:
                    if fault == "delay":
                        time.sleep(0.2)
                    elif fault == "drop":
                        continue
                    elif fault == "duplicate":
                        back.send_multipart(frames)
                    elif fault == "swap":
                        held = frames
                        continue
                    elif fault == "corrupt":
                        index = int(chance.integers(len(frames)))
                        spoilt = bytearray(frames[index])
                        spoilt[int(chance.integers(len(spoilt)))] ^= 1 << int(chance.integers(8))
                        frames[index] = bytes(spoilt)
                    elif fault == "truncate":
                        frames[-1] = frames[-1][:-3]
                    else:
                        frames = [frames[0][:4]]
                back.send_multipart(frames)
                if held:
                    back.send_multipart(held)
                    held = []
            while back.poll(0):
                front.send_multipart([identity, *back.recv_multipart()])

    thread = threading.Thread(target=proxy, daemon=True)
    thread.start()
    # as between machines: no memory to share, a checksum with every message
    is_far = fault == "corrupt" or seed > 0
    sender = Sender(context, NAME, PORT, token="t", shared=not is_far, checksum=is_far)
    sender.connect(f"ipc://{tmp_path}/front")

    def alive() -> None:
        if consumer.failure is not None:
            raise StreamError("the receiver has given up")

    sender.alive = alive
    sent = [packet(10 * index) for index in range(40)]
    try:
        for message in [*sent, End(400)]:
            sender.put(message)
    except StreamError:
        pass
    consumer.join(10)
    assert (consumer.failure is None) == (fault == "delay")
    if fault == "corrupt" and "checksum" in str(consumer.failure):
        assert receiver.counts.refused_messages == 1
        assert "was damaged on the way" in receiver.last_refusal
    got = [message for message in consumer.got if isinstance(message, Packet)]
    assert len(got) == (40 if fault == "delay" else victim - 2 + (fault == "duplicate"))  # the hello came first
    for left, right in zip(sent, got, strict=False):
        assert left.items.tobytes() == right.items.tobytes()
    is_over.set()
    thread.join(5)
    sender.drop()
    front.close(linger=0)
    back.close(linger=0)
    receiver.close()


# Shared memory


def test_payloads_go_through_shared_memory_and_leave_nothing(
    context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str
) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no anonymous files in memory")
    before = set(os.listdir("/proc/self/fd"))
    for shared in (True, False):
        receiver = Receiver(context, NAME, PORT, endpoint + ("s" if "ipc" in endpoint else ""), token="t", window=4)
        consumer = Consumer(receiver)
        sender = Sender(context, NAME, PORT, token="t", shared=shared)
        sender.connect(receiver.endpoint)
        sent = [packet(10 * index, 1 + index % 10) for index in range(300)]
        for message in [*sent, packet(3000, 200_000), End(300_000)]:  # the last packet is larger than a slot
            sender.put(message)
        sender.close()
        consumer.join(10)
        for left, right in zip(sent, consumer.got, strict=False):
            assert isinstance(right, Packet)
            assert right.items.tobytes() == left.items.tobytes()
        assert receiver.counts.delivered_items == sum(len(it.items) for it in sent) + 200_000
        assert (receiver.counts.bytes < 8 * 200_000 + 300 * 140) == shared  # the headers, and the large one
        receiver.close()
    assert not any("memfd:hebbstream" in target for target in _opened_since(before))


def _opened_since(before: set[str]) -> list[str]:
    """What file descriptors point to; one that another thread closes meanwhile is none."""
    targets = []
    for fd in set(os.listdir("/proc/self/fd")) - before:
        with contextlib.suppress(FileNotFoundError):
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return targets


def test_a_peer_cannot_make_us_map_what_it_likes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * (2 << 20))
    with file.open("rb") as opened:
        assert Slots.open(f"/proc/{os.getpid()}/fd/{opened.fileno()}") is None  # not sealed: it could be cut
    for place in ("/etc/passwd", "/proc/1/fd/0/../../mem", "/proc/self/fd/0", "", "/proc/99999999/fd/3"):
        assert Slots.open(place) is None


def test_a_slot_that_is_not_there_is_an_error(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
    receiver = Receiver(context, NAME, PORT, endpoint, token="t")
    consumer = Consumer(receiver)
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    huge = PacketBody("events", 0, 10**9, 1 << 22)
    header = msgspec.msgpack.encode(Header(PROTOCOL_VERSION, NAME, 0, 0, 0, huge))
    sender.socket.send(b"slot" + (2**32 - 1).to_bytes(4, "little") + header)
    consumer.join(10)
    assert "wanted" in str(consumer.failure)
    sender.socket.close()
    receiver.close()


# Keys


def test_only_known_keys_come_in(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> None:
    """The good key works, although the socket has a ZAP domain of its own; three bad peers stay out."""
    for name in ("server", "friend", "stranger"):
        make_keys(tmp_path / name, name)
    allow = tmp_path / "allowed"
    allow.mkdir()
    shutil.copy(tmp_path / "friend" / "friend.key", allow)
    ours = Curve.of_files(tmp_path / "server" / "server.key_secret", allow=allow)
    receiver = Receiver(context, NAME, PORT, "tcp://127.0.0.1:*", token="", curve=ours)
    consumer = Consumer(receiver)
    server_key = tmp_path / "server" / "server.key"
    wrong_server = tmp_path / "friend" / "friend.key"
    others = zmq.Context()
    for secret, public in (("stranger", server_key), ("friend", wrong_server), (None, None)):
        curve = Curve.of_files(tmp_path / secret / f"{secret}.key_secret", server=public) if secret else None
        bad = Sender(others, NAME, PORT, token="", curve=curve)
        with pytest.raises(StreamError, match="does it know this node's key"):
            bad.connect(receiver.endpoint, timeout_s=0.4)
        bad.socket.close()
    good = Sender(
        others, NAME, PORT, token="", curve=Curve.of_files(tmp_path / "friend" / "friend.key_secret", server=server_key)
    )
    good.connect(receiver.endpoint)
    good.put(packet(0))
    good.put(End(10))
    good.close()
    consumer.join(10)
    assert receiver.counts.delivered_items == 10
    receiver.close()
    ours.close()
    others.destroy(linger=0)


def test_keys_that_are_none_or_in_the_open(tmp_path: Path) -> None:
    public, secret = make_keys(tmp_path, "me")
    assert secret.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="there is one already"):
        make_keys(tmp_path, "me")
    with pytest.raises(ConfigError, match="holds no secret key"):
        Curve.of_files(public)
    with pytest.raises(ConfigError, match="no .key file there"):
        Curve.of_files(secret, allow=tmp_path / "nothing")
    with pytest.raises(ConfigError, match="hebbstream keys"):
        Curve.of_files(tmp_path / "nobody.key_secret")
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read it"):
        Curve.of_files(secret)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:7000", "tcp://*:7000", "tcp://192.168.1.3:7000", "tcp://[::]:1"])
def test_listening_elsewhere_wants_keys_or_insistence(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="--insecure"):
        guard_endpoint(endpoint, curve=None, insecure=False)
    guard_endpoint(endpoint, curve=None, insecure=True)
    for close in ("tcp://127.0.0.1:7000", "tcp://[::1]:7000", "ipc:///tmp/x"):
        guard_endpoint(close, curve=None, insecure=False)
    for wrong in ("udp://127.0.0.1:1", "nonsense", "tcp://"):
        with pytest.raises(ConfigError, match="wanted ipc://PATH or tcp://HOST:PORT"):
            guard_endpoint(wrong, curve=None, insecure=True)


def test_a_flood_of_strangers_and_slow_handshakes_leave_time_for_work(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    import socket

    receiver = Receiver(context, NAME, PORT, "tcp://127.0.0.1:*", token="t")
    consumer = Consumer(receiver)
    host, port = receiver.endpoint.removeprefix("tcp://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=2) for _ in range(30)]
    for one in slow:
        one.sendall(b"\xff\x00\x00")  # the beginning of a greeting, and then nothing
    sender = Sender(context, NAME, PORT, token="t")
    sender.connect(receiver.endpoint)
    others = zmq.Context()
    flood = [others.socket(zmq.DEALER) for _ in range(10)]
    for index, one in enumerate(flood):
        one.connect(receiver.endpoint)
        for _ in range(300):
            one.send_multipart([b"hello", b"rubbish"] if index % 2 else [b"ack", b"\xff" * 8])
    start = time.monotonic()
    for index in range(100):
        sender.put(packet(10 * index))
    sender.put(End(1000))
    sender.close()
    consumer.join(10)
    assert time.monotonic() - start < 5
    assert consumer.failure is None
    assert receiver.counts.delivered_items == 1000
    assert receiver.counts.refused_messages > 0
    others.destroy(linger=0)
    for one in slow:
        one.close()
    receiver.close()


def test_a_socket_file_is_for_its_owner_alone(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> None:
    receiver = Receiver(context, NAME, PORT, f"ipc://{tmp_path}/e", token="t")
    assert (tmp_path / "e").stat().st_mode & 0o777 == 0o600
    receiver.close()


# Checksums


def test_a_damaged_ack_is_noticed(context: "zmq.Context[zmq.Socket[bytes]]", tmp_path: Path) -> None:
    server = context.socket(zmq.ROUTER)
    server.bind(f"ipc://{tmp_path}/e")
    sender = Sender(context, NAME, PORT, token="t", shared=False, checksum=True)

    def answer() -> None:
        identity, *_ = server.recv_multipart()
        server.send_multipart([identity, b"welcome", msgspec.msgpack.encode(8), b"\0"])

    thread = threading.Thread(target=answer)
    thread.start()
    sender.connect(f"ipc://{tmp_path}/e")
    thread.join(5)
    sender.put(packet(0))
    sender.put(packet(10))
    identity, word, *frames = server.recv_multipart()
    assert len(word) == 8
    assert is_whole(word, frames)
    assert not is_whole(word, [*frames[:-1], frames[-1][::-1]])
    count = (1).to_bytes(8, "little")
    good = count + zlib.crc32(count).to_bytes(4, "little")
    server.send_multipart([identity, b"ack", good])
    assert sender.socket.poll(2000)
    sender.service()
    assert sender.acknowledged == 1
    server.send_multipart([identity, b"ack", b"\2" + good[1:]])
    assert sender.socket.poll(2000)
    with pytest.raises(StreamError, match="an ack was damaged"):
        sender.service()
    sender.drop()
    server.close(linger=0)
