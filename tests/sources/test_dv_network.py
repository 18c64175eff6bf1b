"""DV's TCP stream, with dv-processing's own writer on the other side, and strangers in its place."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sources.dv_network import DvNetwork
from stream.errors import ConfigError
from stream.packet import End, Packet, Reset

pytest.importorskip("dv_processing")

# Serves bursts of 1000 events to whoever connects. A process of its own: the writer does not always end when asked.
WRITER = """
import sys, time
import dv_processing as dv
port, n_bursts, step_us, times = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
writer = dv.io.NetworkWriter("127.0.0.1", port, dv.io.Stream.EventStream(0, "events", "TEST", (64, 48)))
print("listening", flush=True)
while not writer.getClientCount():
    time.sleep(0.01)
for burst in range(n_bursts):
    start = eval(times, {"burst": burst, "step_us": step_us})
    store = dv.EventStore()
    for index in range(1000):
        store.push_back(start + index, index % 64, index % 48, index % 3 == 0)
    writer.writeEvents(store)
    time.sleep(0.002)
print("sent", flush=True)
time.sleep(600)
"""
START_US = 1_700_000_000_000_000


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def serve():
    """Return a way to start writers; ends them."""
    writers = []

    def start(n_bursts=5, step_us=1000, times=f"{START_US} + burst * step_us"):
        port = free_port()
        command = [sys.executable, "-c", WRITER, str(port), str(n_bursts), str(step_us), times]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        writers.append(writer)
        assert writer.stdout.readline() == "listening\n"
        return port, writer

    yield start
    for writer in writers:
        writer.kill()
        writer.wait()
        writer.stdout.close()


@pytest.fixture
def connect():
    sources = []

    def build(port, **parameters):
        sources.append(DvNetwork(port=port, **parameters))
        return sources[-1]

    yield build
    for source in sources:
        source.close()
        source.close()
        assert isinstance(source.poll(1), End)
        assert source._child.process.returncode is not None


def receive(source, n, max_items=100_000, limit_s=20.0):
    """Return messages up to so many events."""
    messages, got, until = [], 0, time.monotonic() + limit_s
    while got < n and time.monotonic() < until:
        message = source.poll(max_items)
        assert not isinstance(message, End), message
        if message is None:
            time.sleep(0.001)
            continue
        messages.append(message)
        got += len(message.items) if isinstance(message, Packet) else 0
    assert got == n, source.statistics()
    return messages


def events_of(messages):
    return np.concatenate([message.items for message in messages if isinstance(message, Packet)])


def end_of(source, limit_s=20.0):
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if isinstance(message := source.poll(1000), End):
            assert source.poll(1000) == message
            return message
        time.sleep(0.001)
    raise AssertionError("no End")


@pytest.mark.parametrize("max_items", [7, 100_000])
def test_what_is_sent_is_received_and_the_end_is_told(serve, connect, max_items):
    port, writer = serve()
    source = connect(port, address="localhost")
    assert (source.outputs["events"].width, source.outputs["events"].height) == (64, 48)
    messages = receive(source, 5000, max_items)
    assert all(len(message.items) <= max_items and message.origin_ns for message in messages)
    got, index = events_of(messages), np.arange(5000) % 1000
    assert (got["t"] == START_US + np.arange(5000)).all()
    assert (got["x"] == index % 64).all()
    assert (got["y"] == index % 48).all()
    assert (got["p"] == (index % 3 == 0)).all()
    assert source.poll(max_items) is None
    writer.kill()
    end = end_of(source)
    assert end.t_us == START_US + 5000
    assert end.reason == f"DV stream localhost:{port}: closed by the sender, after 5000 events"


def test_a_slow_consumer_loses_nothing_that_the_pipe_can_hold_back(serve, connect):
    port, writer = serve(n_bursts=100)
    source = connect(port)
    assert writer.stdout.readline() == "sent\n"
    time.sleep(0.5)
    got = events_of(receive(source, 100_000))
    assert (got["t"] == START_US + np.arange(100_000)).all()


def test_what_does_not_fit_the_queue_is_dropped_and_counted(serve, connect):
    port, writer = serve(n_bursts=100)
    source = connect(port, queue_events=5000)
    assert writer.stdout.readline() == "sent\n"
    until = time.monotonic() + 10
    while source.statistics()["events dropped"] < 90_000 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    n_waiting = int(source.statistics()["events waiting"])
    got = events_of(receive(source, n_waiting))
    assert len(got) + source.statistics()["events dropped"] == 100_000
    assert got["t"][-1] == START_US + 99_999  # the newest are kept


def test_a_jump_of_the_senders_clock_does_not_freeze_the_stream(serve, connect):
    port, _ = serve(n_bursts=3, times="[5_000_000_000, 100, 1 << 61][burst]")
    messages = receive(connect(port), 3000)
    got = events_of(messages)
    assert (np.diff(got["t"]) >= 0).all()
    assert 5_000_000_000 <= got["t"][-1] < 5_020_000_000
    assert [type(message) for message in messages if isinstance(message, Reset)] == [Reset, Reset]


def test_a_killed_reader_is_an_end_with_its_reason(serve, connect):
    port, _ = serve()
    source = connect(port)
    receive(source, 5000)
    os.kill(source._child.process.pid, signal.SIGKILL)
    assert "its reader was ended by signal 9 (SIGKILL), after 5000 events" in end_of(source).reason


def test_a_damaged_stream_ends_the_reader_and_not_us(serve, connect):
    """On bytes that make no sense dv-processing aborts its process."""
    port, _ = serve(n_bursts=3000)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def forward():
            there, _ = server.accept()
            with there, socket.create_connection(("127.0.0.1", port)) as origin:
                n_bytes = 0
                while data := origin.recv(4096):
                    n_bytes += len(data)
                    try:
                        there.sendall(bytes(255 - byte for byte in data) if n_bytes > 40_000 else data)
                    except OSError:
                        return

        between = threading.Thread(target=forward, daemon=True)
        between.start()
        source = connect(server.getsockname()[1])
        end = end_of(source)
        assert "its reader" in end.reason or "closed by the sender" in end.reason
        between.join(20)


def test_silence_ends_the_stream_if_asked(serve, connect):
    port, _ = serve()
    source = connect(port, silence_s=1)
    receive(source, 5000)
    assert "said nothing for 1 s" in end_of(source).reason


def test_a_restored_source_goes_on_in_time(serve, connect):
    first = connect(serve()[0])
    receive(first, 5000)
    time.sleep(0.3)
    port, _ = serve(times="1000 + burst * step_us")  # its clock starts anew
    fresh = connect(port)
    fresh.restore(first.snapshot())
    messages = receive(fresh, 5000)
    assert isinstance(messages[0], Reset)
    assert START_US + 5000 + 300_000 <= messages[0].t_us < START_US + 20_000_000
    assert events_of(messages)["t"][0] == messages[0].t_us
    assert fresh.statistics()["seams"] == 1


def test_nobody_listening_is_told():
    port = free_port()
    with pytest.raises(ConfigError, match=rf"DV stream 127.0.0.1:{port}: the reader failed.*Connection refused.*start"):
        DvNetwork(port=port)


def test_a_listener_that_says_nothing_is_given_up():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ConfigError, match="sent no stream within 2 s"),
    ):
        DvNetwork(port=server.getsockname()[1], connect_s=2)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"port": 0}, "wanted a port"), ({"connect_s": 0}, "more than 0 s"), ({"address": "no such host"}, "no address")],
)
def test_wrong_parameters_are_told(wrong, words):
    with pytest.raises(ConfigError, match=words):
        DvNetwork(**({"port": 7777} | wrong))
