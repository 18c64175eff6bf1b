"""Nodes chained by hand: real processes, any start order, refusals with words."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from stream.backlog import Bounds, Policy
from stream.chain import run_node
from stream.edge import Sender
from stream.errors import ConfigError, StreamError
from stream.operator import Port
from stream.packet import EVENT_DTYPE, End, packet_of
from stream.record import read_recording

Started = list[subprocess.Popen[str]]


@pytest.fixture
def started() -> Iterator[Started]:
    processes: Started = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def node(started: Started, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "stream", "node", *map(str, arguments), "--plugin", "toy_members", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.append(process)
    return process


def free_endpoint(tmp_path: Path, transport: str, index: int) -> str:
    if transport == "ipc":
        return f"ipc://{tmp_path}/{index}"
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize(("transport", "order"), [("ipc", (0, 1, 2)), ("tcp", (2, 1, 0)), ("tcp", (1, 0, 2))])
def test_three_terminals_in_any_order(
    tmp_path: Path, toys: list[str], started: Started, transport: str, order: tuple[int, ...]
) -> None:
    first, second = (free_endpoint(tmp_path, transport, index) for index in range(2))
    recorder = json.dumps({"path": f"{tmp_path}/r.hbs", "ports": {"events": "events"}})
    nodes = [
        ("toy_members.Count", "--params", '{"n": 5000, "mark_every": 700}', "--out", first),
        ("toy_members.Relay", "--in", first, "--out", f"events={second}"),
        ("stream.record.Recorder", "--params", recorder, "--in", second),
    ]
    processes = {}
    for index in order:
        processes[index] = node(started, *nodes[index], "--token", "secret")
        time.sleep(0.2)
    reports = {}
    for index, process in processes.items():
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        reports[index] = json.loads(out)
    assert reports[0]["edges"][0]["counts"]["sent_items"] == 5000
    assert reports[2]["edges"][0]["counts"]["delivered_items"] == 5000
    recording = read_recording(tmp_path / "r.hbs")
    assert recording.items("events")["t"].tolist() == list(range(0, 50_000, 10))
    assert len(recording.marks("events")) == 14  # 7 labels, 7 resets


def test_an_output_goes_to_all_its_addresses(tmp_path: Path, toys: list[str], started: Started) -> None:
    places = [free_endpoint(tmp_path, transport, index) for index, transport in enumerate(("ipc", "tcp"))]
    recorders = []
    for index, place in enumerate(places):
        params = json.dumps({"path": f"{tmp_path}/{index}.hbs", "ports": {"events": "events"}})
        recorders.append(node(started, "stream.record.Recorder", "--params", params, "--in", place))
    source = node(started, "toy_members.Count", "--params", '{"n": 5000}', "--out", places[0], "--out", places[1])
    out, err = source.communicate(timeout=60)
    assert source.returncode == 0, err
    assert [edge["counts"]["sent_items"] for edge in json.loads(out)["edges"]] == [5000, 5000]
    for recorder in recorders:
        recorder.communicate(timeout=60)
    assert [len(read_recording(tmp_path / f"{index}.hbs").items("events")) for index in range(2)] == [5000, 5000]


def test_a_wrong_token_is_refused_at_once_and_with_words(tmp_path: Path, toys: list[str], started: Started) -> None:
    endpoint = free_endpoint(tmp_path, "ipc", 0)
    relay = node(started, "toy_members.Relay", "--in", endpoint, "--token", "mine")
    source = node(started, "toy_members.Count", "--out", endpoint, "--token", "yours")
    _, err = source.communicate(timeout=60)
    assert source.returncode == 1
    assert "wrong token" in err
    assert "Traceback" not in err
    assert relay.poll() is None  # untouched
    relay.send_signal(signal.SIGINT)
    out, err = relay.communicate(timeout=20)
    assert relay.returncode == 1
    assert "stopped before the chain stood" in err or "stopped before the stream ended" in err
    assert json.loads(out)["edges"][0]["counts"]["refused_messages"] == 1
    assert not (tmp_path / "0").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"what": "toy_members.Relay"}, "nothing comes in at events"),
        ({"what": "toy_members.Relay", "inputs": ("tcp://0.0.0.0:7000",)}, "--insecure"),
        ({"what": "toy_members.Relay", "inputs": ("spikes=ipc:///tmp/x",)}, "has no 'spikes'"),
        ({"what": "toy_members.Relay", "inputs": ("127.0.0.1:7000",)}, "wanted ipc://PATH or tcp://HOST:PORT"),
        ({"what": "toy_members.Nothing"}, "is no operator"),
        ({"what": "stream.nothing.Nothing"}, "check the spelling"),
        ({"what": "toy_members.Count", "outputs": ("ipc:///tmp/x", "ipc:///tmp/x")}, "goes there already"),
        ({"what": "toy_members.Relay", "inputs": ("ipc:///tmp/x", "ipc:///tmp/y")}, "has an address already"),
        ({"what": "toy_members.Count", "policy": "drop-all"}, "wanted drop-oldest, drop-newest, sample"),
        ({"what": "toy_members.Count", "allow": Path()}, "--key"),
        ({"what": "nowhere.aedat4"}, "no such file"),
    ],
)
def test_what_does_not_fit_starts_nothing(toys: list[str], arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        run_node(plugins=("toy_members",), **arguments)


def test_nobody_there_is_told_after_the_patience_asked_for(tmp_path: Path, toys: list[str]) -> None:
    with pytest.raises(StreamError, match="nobody answered"):
        run_node("toy_members.Count", outputs=(f"ipc://{tmp_path}/x",), wait_s=0.2, plugins=("toy_members",))


def test_live_between_terminals_loses_and_tells(tmp_path: Path, toys: list[str]) -> None:
    """A slow relay behind a live edge: everything is delivered or told."""
    endpoint = free_endpoint(tmp_path, "ipc", 0)
    reports = []
    thread = threading.Thread(
        target=lambda: reports.append(
            run_node(
                "toy_members.Relay",
                params={"sleep_s": 0.02},
                inputs=(endpoint,),
                window=2,
                plugins=("toy_members",),
            )
        ),
        daemon=True,
    )
    thread.start()
    sent = run_node(
        "toy_members.Count", params={"n": 300_000}, outputs=(endpoint,), live=True, plugins=("toy_members",)
    )
    thread.join(30)
    out, into = sent.edges[0].counts, reports[0].edges[0].counts
    assert out.sent_items == 300_000 == into.delivered_items + out.dropped_items
    assert out.dropped_items > 0
    assert out.sent_messages == into.delivered_messages + out.dropped_messages
    assert not os.path.exists(endpoint.removeprefix("ipc://"))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest", "sample"])
def test_a_stopped_receiver_costs_bounded_memory_and_every_loss_is_told(
    tmp_path: Path, toys: list[str], started: Started, policy: Policy
) -> None:
    endpoint = free_endpoint(tmp_path, "ipc", 0)
    relay = node(started, "toy_members.Relay", "--in", endpoint, "--token", "t")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    bounds = Bounds(messages=32, bytes=100_000, age_us=10**9)
    sender = Sender(
        context,
        "a.b -> c.d",
        Port("events", 10, 10),
        token="t",
        delivery="live",
        bounds=bounds,
        policy=policy,
        window=4,
    )
    sender.connect(endpoint)
    events = np.zeros(500, EVENT_DTYPE)
    most = 0
    for phase in ("runs", "stopped", "runs"):
        relay.send_signal(signal.SIGSTOP if phase == "stopped" else signal.SIGCONT)
        end_s = time.monotonic() + (1.0 if phase == "stopped" else 0.3)
        while time.monotonic() < end_s:
            events["t"] += 1
            before_s = time.monotonic()
            sender.put(packet_of(events))
            assert time.monotonic() - before_s < 0.5
            counts = sender.counts
            most = max(most, sender._waiting.n_bytes)
            left = counts.sent_messages - counts.dropped_messages
            assert left == sender.acknowledged + sender.in_flight + counts.waiting_messages
            time.sleep(0.001)
    sender.put(End(int(events["t"][0])))
    sender.close()
    out, err = relay.communicate(timeout=30)
    assert relay.returncode == 0, err
    delivered = json.loads(out)["edges"][0]["counts"]
    assert most <= 100_000
    assert sender.counts.dropped_items > 0
    assert sender.counts.sent_items == delivered["delivered_items"] + sender.counts.dropped_items
    assert sender.counts.sent_messages == delivered["delivered_messages"] + sender.counts.dropped_messages
    context.destroy(linger=0)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_dead_neighbour_is_noticed_and_named(
    tmp_path: Path, toys: list[str], started: Started, transport: str, how: str
) -> None:
    """The one in the middle dies: who sends to it waits for credit, who listens to it is idle. Both find out."""
    first, second = (free_endpoint(tmp_path, transport, index) for index in range(2))
    recorder = json.dumps({"path": f"{tmp_path}/r.hbs", "ports": {"events": "events"}})
    options = ("--patience", 2)
    last = node(started, "stream.record.Recorder", "--params", recorder, "--in", second, *options)
    middle = node(started, "toy_members.Relay", "--in", first, "--out", second, *options)
    source = node(started, "toy_members.Count", "--params", '{"endless": true}', "--out", first, *options)
    deadline = time.monotonic() + 30
    while not (tmp_path / "r.hbs").exists() or (tmp_path / "r.hbs").stat().st_size < 10_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    middle.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    since_s = time.monotonic()
    for process, words in (
        (source, f"the receiving node at {first} is gone"),
        (last, "the sending node is gone after"),
    ):
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert words in err
        assert "Traceback" not in err
    assert time.monotonic() - since_s < 8
    recording = read_recording(tmp_path / "r.hbs")
    t = recording.items("events")["t"]
    assert t.tolist() == list(range(0, 10 * len(t), 10))


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_who_only_takes_a_rest_is_waited_for(tmp_path: Path, toys: list[str], started: Started) -> None:
    endpoint = free_endpoint(tmp_path, "ipc", 0)
    relay = node(started, "toy_members.Relay", "--in", endpoint, "--patience", 6)
    parameters = json.dumps({"n": 200_000})
    source = node(
        started, "toy_members.Count", "--params", parameters, "--speed", 1, "--out", endpoint, "--patience", 6
    )
    time.sleep(2.0)
    relay.send_signal(signal.SIGSTOP)
    time.sleep(2.0)
    relay.send_signal(signal.SIGCONT)
    for process in (source, relay):
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
    assert json.loads(out)["edges"][0]["counts"]["delivered_items"] == 200_000
