"""docs/protocol.md is true: its vectors, its tables, and a peer that knows nothing but the page."""

import re
import struct
import threading
import time
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from stream import edge, wire
from stream.edge import Hello, Receiver
from stream.operator import Port
from stream.packet import (
    ANSWER_DTYPE,
    EVENT_DTYPE,
    SPIKE_DTYPE,
    Barrier,
    Correct,
    Deploy,
    End,
    Forget,
    Label,
    Loss,
    Message,
    Packet,
    Reset,
    Show,
)

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
NAME = "a.b -> c.d"


def examples() -> dict[str, Message]:
    events = np.array([(1_000_000, 3, 5, 1), (1_000_007, 639, 479, 0)], EVENT_DTYPE)
    spikes = np.array([(5, 1), (6, 70_000)], SPIKE_DTYPE)
    answers = np.array([(900, 100, 7, 6, 1)], ANSWER_DTYPE)
    return {
        "events": Packet(events, 1_000_000, 1_000_008, 123),
        "before-zero": Packet(events[:0], -20, -10),
        "spikes": Packet(spikes, 0, 10),
        "answers": Packet(answers, 900, 901),
        "reset": Reset(5, False),
        "label": Label(900, 7, 100),
        "show": Show(910, 7),
        "forget": Forget(911, 6),
        "correct": Correct(912, 7),
        "deploy": Deploy(8, 2, {"layer0.weight": np.array([[1.5, -2.0]], np.float32)}),
        "barrier": Barrier(9, 1),
        "loss": Loss(500, 100, 3, 1200),
        "end": End(1000, "torn"),
    }


def vectors() -> dict[str, list[bytes]]:
    found = re.findall(r"^    ([a-z-]+) +((?:[0-9a-f]{2,} ?)+)$", PAGE, re.MULTILINE)
    return {name: [bytes.fromhex(frame) for frame in frames.split()] for name, frames in found}


def lines() -> str:
    """The vectors as they stand on the page."""
    out = []
    for sequence, (name, message) in enumerate(examples().items()):
        frames = [bytes(frame).hex() for frame in wire.encode(message, stream=NAME, sequence=sequence, dropped=2)]
        out.append(f"    {name} {' '.join(frames)}".rstrip())
    return "\n".join(out)


def test_the_page_has_the_vectors_of_the_code() -> None:
    assert lines() in PAGE


def test_the_page_has_the_checksum_of_the_code() -> None:
    frames = vectors()["events"]
    assert edge.checked(frames).hex() in PAGE
    assert f"is {zlib.crc32(b''.join(frames))}:" in PAGE
    assert edge.is_whole(edge.checked(frames), frames)
    assert edge.is_whole(b"data", frames)
    assert not edge.is_whole(edge.checked(frames), frames[:1])


@pytest.mark.parametrize("has_checksums", [False, True])
def test_a_peer_that_knows_only_the_page(has_checksums: bool) -> None:
    a_peer_that_knows_only_the_page(has_checksums)


@pytest.mark.parametrize("name", examples())
def test_a_vector_is_understood(name: str) -> None:
    wanted = examples()[name]
    header, message = wire.decode(vectors()[name] + _empty(wanted))
    assert (header.version, header.stream, header.dropped) == (1, NAME, 2)
    assert header.sequence == list(examples()).index(name)
    if isinstance(wanted, Packet):
        assert isinstance(message, Packet)
        assert message.items.tobytes() == wanted.items.tobytes()
        assert (message.start_us, message.end_us, message.origin_ns) == (
            wanted.start_us,
            wanted.end_us,
            wanted.origin_ns,
        )
    elif isinstance(wanted, Deploy):
        assert isinstance(message, Deploy)
        assert np.array_equal(message.arrays["layer0.weight"], wanted.arrays["layer0.weight"])
    else:
        assert message == wanted


def _empty(message: Message) -> list[bytes]:
    """An empty payload leaves no digits on the page."""
    return [b""] if isinstance(message, Packet) and not len(message.items) else []


def test_the_tables_name_what_there_is() -> None:
    for kind in (Reset, Label, Show, Forget, Correct, Deploy, Barrier, Loss, End):
        (row,) = re.findall(rf"^\| `{kind.__struct_config__.tag}` \| (.*)", PAGE, re.MULTILINE)
        assert all(f"`{field}`" in row for field in kind.__struct_fields__)
    for kind in (Hello, wire.Header):
        assert all(f"| `{field}` |" in PAGE for field in kind.__struct_fields__)
    for number in (wire.MAX_ITEMS, wire.MAX_HEADER_BYTES, wire.MAX_FRAME_BYTES):
        assert str(number) in PAGE
    for item, dtype in wire.WIRE_DTYPES.items():
        assert re.search(rf"^\| `{item}` \| .* \| {dtype.itemsize} \|$", PAGE, re.MULTILINE)


def a_peer_that_knows_only_the_page(has_checksums: bool) -> None:
    """Plain pyzmq, plain MessagePack maps, ``struct``: no line of our sender."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receiver = Receiver(context, NAME, Port("events", 640, 480), "tcp://127.0.0.1:*", token="secret", window=4)
    got: list[Message] = []

    def consume() -> None:
        deadline = time.monotonic() + 10
        while not (got and isinstance(got[-1], End)) and time.monotonic() < deadline:
            receiver.socket.poll(10)
            message = receiver.receive()
            if message is None:
                receiver.acknowledge()
                continue
            got.append(message)
            receiver.done(message)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    peer = context.socket(zmq.DEALER)
    peer.connect(receiver.endpoint)
    hello = {"protocol": 1, "edge": NAME, "port": ["events", 640, 480, None], "token": "secret"}
    peer.send_multipart([b"hello", msgspec.msgpack.encode(hello)])
    word, window, slots = peer.recv_multipart()
    assert (word, msgspec.msgpack.decode(window), slots) == (b"welcome", 4, b"\0")

    def send(sequence: int, body: dict[str, object], *payload: bytes) -> None:
        header = {"version": 1, "stream": "x", "sequence": sequence, "origin_ns": 0, "dropped": 0, "body": body}
        frames = [msgspec.msgpack.encode(header), *payload]
        check = struct.pack("<I", zlib.crc32(b"".join(frames))) if has_checksums else b""
        peer.send_multipart([b"data" + check, *frames])

    body = {"type": "packet", "item": "events", "start_us": 100, "end_us": 200, "count": 2}
    send(0, body, struct.pack("<IHHIHH", 0, 3 | 1 << 15, 5, 99, 639, 479))
    send(1, {"type": "end", "t_us": 200})
    done = 0
    while done < 2:
        assert peer.poll(5000)
        word, count = peer.recv_multipart()
        assert word == b"ack"
        (done,) = struct.unpack("<Q", count[:8])
        assert count[8:] == (struct.pack("<I", zlib.crc32(count[:8])) if has_checksums else b"")
    thread.join(10)
    assert isinstance(got[0], Packet)
    assert got[0].items.tolist() == [(100, 3, 5, 1), (199, 639, 479, 0)]
    assert got[1] == End(200)
    peer.close(linger=0)
    receiver.close()
    context.destroy(linger=0)
