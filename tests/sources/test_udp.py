"""Datagrams over real sockets on this machine: ours, aestream's, faery's and hostile ones."""

import shutil
import socket
import subprocess
import sys
import sysconfig
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.udp import UdpSource, decode_datagram, encode_datagrams, send_events
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, End, Packet

FORMATS = ["spif", "t64_x16_y16_on8", "t32_x16_y15_on1"]


def some_events(n, start_us=1000):
    rng = np.random.default_rng(11)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = start_us + np.sort(rng.integers(0, 1_000_000, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 640, n), rng.integers(0, 480, n), rng.integers(0, 2, n)
    return events


@pytest.fixture
def listen():
    """Return a way to open sources that are closed at the end."""
    opened = []

    def build(format="spif", **parameters):
        opened.append(UdpSource(port=0, width=640, height=480, format=format, **parameters))
        return opened[-1]

    yield build
    for source in opened:
        source.close()
        source.close()
        assert isinstance(source.poll(1), End)


def send(source, *payloads):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for payload in payloads:
            sender.sendto(payload, ("127.0.0.1", source.port))
            time.sleep(0.002)


def receive(source, n, max_items=1000, limit_s=10.0):
    parts, until = [np.empty(0, EVENT_DTYPE)], time.monotonic() + limit_s
    while sum(map(len, parts)) < n and time.monotonic() < until:
        message = source.poll(max_items)
        if isinstance(message, Packet):
            assert 0 < len(message.items) <= max_items
            parts.append(message.items)
        else:
            time.sleep(0.001)
    events = np.concatenate(parts)
    assert len(events) == n, source.statistics()
    assert (np.diff(events["t"]) >= 0).all()
    return events


def seen(source, name, value, limit_s=5.0):
    """Poll until a count stands at a value."""
    until = time.monotonic() + limit_s
    while source.statistics()[name] != value and time.monotonic() < until:
        source.poll(1000)
        time.sleep(0.001)
    assert source.statistics()[name] == value, source.statistics()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("max_items", [7, 100_000])
def test_what_is_sent_is_received(listen, format, max_items):
    source, events = listen(format), some_events(2000)
    n = send_events(events, host="127.0.0.1", port=source.port, format=format, gap_s=0.001)
    got = receive(source, len(events), max_items)
    fields = ["x", "y", "p"] if format == "spif" else ["t", "x", "y", "p"]
    for name in fields:
        assert (got[name] == events[name]).all(), name
    assert source.statistics()["datagrams"] == n


def test_the_layout_of_spif():
    event = np.array([(0, 1, 2, 1)], EVENT_DTYPE)
    assert encode_datagrams(event) == [(1 << 31 | 1 << 16 | 1 << 15 | 2).to_bytes(4, "little")]
    assert [len(payload) for payload in encode_datagrams(np.repeat(event, 300))] == [512, 512, 176]


def test_the_time_of_spif_is_that_of_the_host(listen):
    source = listen()
    payload = encode_datagrams(some_events(3))[0]
    send(source, payload)
    time.sleep(0.1)
    send(source, payload)
    got = receive(source, 6)
    assert (got["t"][:3] == 0).all()
    assert 100_000 <= got["t"][3] < 2_000_000
    assert (got["t"][3:] == got["t"][3]).all()


def test_spif_words_with_a_time_are_understood(listen):
    source = listen()
    send(source, np.array([5 << 16 | 1 << 15 | 6, 123456, 1 << 31 | 7 << 16 | 8], "<u4").tobytes())
    got = receive(source, 2)
    assert got[["x", "y", "p"]].tolist() == [(5, 6, 1), (7, 8, 0)]


def test_hostile_datagrams_are_refused_and_counted(listen):
    source = listen()
    good = encode_datagrams(some_events(128))[0]
    send(source, b"", b"abc", good + b"\x01", good + good, b"\0\0\0\0", b"\xff" * 8)
    send(source, good)
    receive(source, 128)
    statistics = source.statistics()
    assert statistics["datagrams refused"] == 5
    assert statistics["outside dropped"] == 2  # 0x7fff, on which others crash
    assert statistics["datagrams"] == 2


@given(st.sampled_from(FORMATS), st.binary(max_size=700))
def test_no_datagram_breaks_the_decoder(format, payload):
    events = decode_datagram(payload, format)
    assert events is None or (events.dtype == EVENT_DTYPE and len(events) and events["p"].max() <= 1)


def one(t, format="t64_x16_y16_on8"):
    return encode_datagrams(np.array([(t, 1, 2, 1)], EVENT_DTYPE), format)[0]


def test_a_hostile_time_does_not_freeze_the_stream(listen):
    source = listen("t64_x16_y16_on8")
    send(source, one(1000), one(1 << 61), one(2000), one(3000), one(-1), one(1 << 63 - 1))
    got = receive(source, 5)
    assert got["t"][-1] < 10_000_000
    assert got["t"][3] - got["t"][2] == 1000
    assert source.statistics()["clock jumps"] == 3
    seen(source, "datagrams refused", 1)
    # times a minute and more apart inside of a datagram make no sense at all
    send(source, one(4000) + one(1 << 50))
    seen(source, "datagrams refused", 2)


def test_small_steps_back_are_raised(listen):
    source = listen("t64_x16_y16_on8")
    send(source, one(5000), one(4000), one(6000))
    assert receive(source, 3)["t"].tolist() == [5000, 5000, 6000]
    assert source.statistics()["times raised"] == 1


def test_32_bit_times_are_unwrapped(listen):
    source = listen("t32_x16_y15_on1")
    last = (1 << 32) - 500
    events = np.array([(last + step, 1, 2, 1) for step in (0, 400, 600, 1000)], EVENT_DTYPE)
    send(source, encode_datagrams(events[:3], "t32_x16_y15_on1")[0], encode_datagrams(events[3:], "t32_x16_y15_on1")[0])
    assert receive(source, 4)["t"].tolist() == events["t"].tolist()
    assert not source.statistics()["clock jumps"]


def test_a_full_queue_drops_and_counts(listen):
    source = listen(queue_datagrams=3)
    payload = encode_datagrams(some_events(2))[0]
    send(source, *[payload] * 10)
    until = time.monotonic() + 5
    while source.statistics()["datagrams dropped"] < 7 and time.monotonic() < until:
        time.sleep(0.01)
    assert source.statistics()["datagrams dropped"] == 7
    receive(source, 6)
    assert source.poll(10) is None


def test_silence_ends_the_stream_if_asked(listen):
    source = listen(end_after_silence_s=0.2)
    assert source.poll(10) is None
    time.sleep(0.4)
    assert source.poll(10) is None  # nothing has begun
    send(source, encode_datagrams(some_events(1))[0])
    receive(source, 1)
    until = time.monotonic() + 5
    while (message := source.poll(10)) is None and time.monotonic() < until:
        time.sleep(0.01)
    assert message == End(1)


def test_a_restored_source_goes_on_in_time(listen):
    source, fresh = listen("t64_x16_y16_on8"), listen("t64_x16_y16_on8")
    send(source, one(777_000))
    receive(source, 1)
    fresh.restore(source.snapshot())
    send(fresh, one(10), one(25))
    assert receive(fresh, 2)["t"].tolist() == [777_000, 777_015]
    with pytest.raises(ConfigError, match="wanted t_us"):
        fresh.restore({})


def test_a_port_that_is_taken_is_told(listen):
    with pytest.raises(ConfigError, match="cannot listen on 127.0.0.1 port"):
        UdpSource(port=listen().port, width=1, height=1)


@pytest.mark.parametrize("wrong", [{"port": -1}, {"width": 0}, {"queue_datagrams": 0}, {"format": "udp"}])
def test_wrong_parameters_are_told(wrong):
    with pytest.raises(ConfigError, match="wanted"):
        UdpSource(**{"port": 0, "width": 10, "height": 10} | wrong)


def test_a_coordinate_too_large_for_the_format_is_told():
    with pytest.raises(ConfigError, match="t64_x16_y16_on8"):
        encode_datagrams(np.array([(0, 40_000, 0, 0)], EVENT_DTYPE), "spif")


@pytest.mark.skipif(
    shutil.which("aestream", path=sysconfig.get_path("scripts")) is None,
    reason="aestream has wheels for Linux x86-64 and Python 3.11 only",
)
def test_the_aestream_program_is_understood(listen, tmp_path):
    source, events = listen(), some_events(1000)
    events["x"], events["y"] = events["x"] % 304, events["y"] % 240
    words = np.zeros(len(events), [("t", "<u4"), ("address", "<u4")])
    x, y, p = (events[name].astype(np.uint32) for name in "xyp")
    words["t"], words["address"] = events["t"], x | y << 14 | p << 28
    path = tmp_path / "a.dat"
    path.write_bytes(b"% Version 2\n% Width 304\n% Height 240\n" + bytes([0, 8]) + words.tobytes())
    program = shutil.which("aestream", path=sysconfig.get_path("scripts"))
    command = [program, "input", "file", str(path), "output", "udp", "127.0.0.1", str(source.port)]
    subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL)
    got = receive(source, len(events))
    for name in ("x", "y", "p"):
        assert (got[name] == events[name]).all(), name


@pytest.mark.parametrize("format", FORMATS[1:])
def test_faery_is_understood(listen, format):
    source, events = listen(format), some_events(1000)
    code = (
        "import sys, numpy, faery\n"
        "events = numpy.frombuffer(sys.stdin.buffer.read(), faery.EVENTS_DTYPE)\n"
        "stream = faery.events_stream_from_array(events, dimensions=(640, 480))\n"
        f"stream.to_udp(('127.0.0.1', {source.port}), format={format!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], input=events.tobytes(), check=True, timeout=60)
    assert receive(source, len(events)).tobytes() == events.tobytes()
