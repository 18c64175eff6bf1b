"""Real processes over real sockets: results as in one process, and nothing left behind however a run ends."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from stream.errors import ConfigError, GraphError, RunError
from stream.packet import Barrier, Label, Loss, Packet
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.run import RunResult, run


def pipeline(tmp_path: Path, *, source: dict[str, object], relay: dict[str, object] | None = None) -> Pipeline:
    """Make count -> relay -> recorder, and count -> recorder past the relay."""
    ports = {"relayed": "events", "direct": "events"}
    return Pipeline(
        name="toy",
        source=[SourceSpec(name="count", kind="toy_members.Count", params=source, packet_items=100)],
        operator=[
            OperatorSpec(name="relay", kind="toy_members.Relay", params=relay or {}),
            OperatorSpec(
                name="recorder",
                kind="stream.record.Recorder",
                params={"path": str(tmp_path / "r.hbs"), "ports": ports},
            ),
        ],
        edge=[
            EdgeSpec(source="count.events", target="relay.events"),
            EdgeSpec(source="relay.events", target="recorder.relayed"),
            EdgeSpec(source="count.events", target="recorder.direct"),
        ],
    )


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toys: list[str]) -> object:
    """Every test here: no process of ours and no socket file afterwards."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield
    deadline = time.monotonic() + 15
    while (nodes() or list(scratch.glob("hebbstream-*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert nodes() == []
    assert list(scratch.glob("hebbstream-*")) == []


def nodes() -> list[str]:
    """Node processes whose TMPDIR or parent is ours: found by their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if b"stream.node" in command and f"TMPDIR={os.environ['TMPDIR']}".encode() in environment:
            found.append(folder.name)
    return found


def assert_exact(result: RunResult) -> None:
    assert all(ledger.is_balanced for ledger in result.ledgers)


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_processes_give_what_one_process_gives(tmp_path: Path, toys: list[str], transport: str) -> None:
    contents = []
    for processes in (False, True):
        described = pipeline(tmp_path, source={"n": 5000, "mark_every": 700})
        described.transport = transport
        result = run(described, processes=processes, plugins=toys)
        assert_exact(result)
        assert [ledger.items for ledger in result.ledgers] == [(5000, 5000, 0)] * 3
        assert result.members["relay"] == {"seen": 5000.0, "sum x": 22500.0}
        assert result.reason == ""
        recording = read_recording(tmp_path / "r.hbs")
        contents.append({port: recording.streams[port] for port in ("relayed", "direct")})
        labels = [mark.label for mark in recording.marks("relayed") if isinstance(mark, Label)]
        assert labels == [3 * index + 1 for index in range(7)]
    for port in ("relayed", "direct"):
        flat = [
            [message.items.tobytes() if isinstance(message, Packet) else message for message in each[port]]
            for each in contents
        ]
        assert flat[0] == flat[1]


@pytest.mark.parametrize("processes", [False, True])
def test_restored_from_a_barrier_it_goes_on_as_if_never_stopped(
    tmp_path: Path, toys: list[str], processes: bool
) -> None:
    described = pipeline(tmp_path, source={"n": 3000, "mark_every": 500})
    described.snapshots = str(tmp_path / "snapshots")
    whole = run(described, processes=processes, plugins=toys)
    kept = read_recording(tmp_path / "r.hbs")
    again = run(described, processes=processes, plugins=toys, restore=3)
    assert again.members["relay"] == whole.members["relay"]
    assert [ledger.items for ledger in again.ledgers] == [ledger.items for ledger in whole.ledgers]
    restored = read_recording(tmp_path / "r.hbs")
    for port in ("relayed", "direct"):
        assert restored.items(port).tobytes() == kept.items(port).tobytes()
        assert restored.marks(port) == kept.marks(port)
    assert not any(isinstance(mark, Barrier) for mark in kept.marks("direct"))  # the runtime's own


def test_a_missing_snapshot_says_which_there_are(tmp_path: Path, toys: list[str]) -> None:
    described = pipeline(tmp_path, source={"n": 1000, "mark_every": 500})
    described.snapshots = str(tmp_path / "snapshots")
    run(described, processes=False, plugins=toys)
    with pytest.raises(ConfigError, match="not there; kept are 000001, 000002"):
        run(described, processes=False, plugins=toys, restore=9)


@pytest.mark.parametrize("processes", [False, True])
def test_a_torn_source_is_reported_and_what_came_is_kept(tmp_path: Path, toys: list[str], processes: bool) -> None:
    result = run(pipeline(tmp_path, source={"n": 1000, "fail_at": 300}), processes=processes, plugins=toys)
    assert result.reason == "torn"
    assert_exact(result)
    assert len(read_recording(tmp_path / "r.hbs").items("relayed")) == 300


def test_a_failing_member_is_named_and_the_ledger_comes_out(tmp_path: Path, toys: list[str]) -> None:
    with pytest.raises(RunError, match="node 'relay': ValueError: relay was told to fail") as caught:
        run(pipeline(tmp_path, source={"n": 10**6}, relay={"fail_at": 1000}), plugins=toys)
    result: RunResult = caught.value.result
    assert_exact(result)
    assert result.ledgers[0].items[1] == 1000
    assert len(read_recording(tmp_path / "r.hbs").items("relayed")) == 1000


def test_a_killed_node_is_named(tmp_path: Path, toys: list[str]) -> None:
    with pytest.raises(RunError, match=r"node 'relay' died: killed by signal 9 \(SIGKILL\)") as caught:
        run(pipeline(tmp_path, source={"n": 10**6}, relay={"kill_at": 1000}), plugins=toys)
    assert_exact(caught.value.result)
    # of the 1000, what ZeroMQ's thread in the relay had not written yet went with it: more on a busy machine
    assert len(read_recording(tmp_path / "r.hbs").items("relayed")) >= 300


def test_a_wrong_parameter_starts_nothing(tmp_path: Path, toys: list[str]) -> None:
    with pytest.raises(ConfigError, match="unknown field `speed`"):
        run(pipeline(tmp_path, source={"speed": 3}), processes=False, plugins=toys)
    with pytest.raises(Exception, match=r"node 'count'.*unknown field `speed`") as caught:
        run(pipeline(tmp_path, source={"speed": 3}), plugins=toys)
    assert caught.value.exit_code == 2


def test_a_graph_that_does_not_fit_starts_nothing(tmp_path: Path, toys: list[str]) -> None:
    described = pipeline(tmp_path, source={})
    described.edge.pop()
    with pytest.raises(GraphError, match=r"input recorder.direct has no edge"):
        run(described, plugins=toys)


def test_pace_follows_stream_time(tmp_path: Path, toys: list[str]) -> None:
    described = pipeline(tmp_path, source={"n": 3000})  # 30 ms of stream time
    described.source[0].speed = 0.1
    described.source[0].packet_us = 2000
    result = run(described, processes=False, plugins=toys)
    assert result.wall_s >= 0.29
    packets = [m for m in read_recording(tmp_path / "r.hbs").streams["direct"] if isinstance(m, Packet)]
    assert max(packet.end_us - packet.start_us for packet in packets) <= 2000
    assert sum(len(packet.items) for packet in packets) == 3000


# From the command line


def command(tmp_path: Path, *, endless: bool = True, relay: str = "{}") -> list[str]:
    path = tmp_path / "p.toml"
    path.write_text(f"""
name = "toy"
[[source]]
name = "count"
kind = "toy_members.Count"
params = {{ endless = {str(endless).lower()}, n = 1000 }}
[[operator]]
name = "relay"
kind = "toy_members.Relay"
params = {relay}
[[operator]]
name = "recorder"
kind = "stream.record.Recorder"
params = {{ path = "{tmp_path}/r.hbs", ports = {{ relayed = "events" }} }}
[[edge]]
from = "count.events"
to = "relay.events"
[[edge]]
from = "relay.events"
to = "recorder.relayed"
""")
    return [sys.executable, "-P", "-m", "stream", "run", str(path), "--plugin", "toy_members", "--json"]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_until_running(tmp_path: Path) -> None:
    deadline = time.monotonic() + 60
    recording = tmp_path / "r.hbs"
    while time.monotonic() < deadline and not (recording.exists() and recording.stat().st_size > 100_000):
        time.sleep(0.02)
    assert recording.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("one_process", [False, True])
def test_ctrl_c_ends_with_an_exact_ledger(tmp_path: Path, number: int, one_process: bool) -> None:
    process = start(command(tmp_path) + (["--one-process"] if one_process else []))
    wait_until_running(tmp_path)
    os.killpg(process.pid, number)  # as a terminal does: to the whole group
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["reason"] == "stopped"
    for ledger in report["ledger"]:
        assert ledger["balanced"]
        assert ledger["items"][0] == ledger["items"][1] > 0  # stopped cleanly, so nothing is dropped
    assert len(read_recording(tmp_path / "r.hbs").items("relayed")) == report["ledger"][1]["items"][1]


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.4, 0.8, 1.5])
def test_ctrl_c_at_any_time_leaves_nothing(tmp_path: Path, delay_s: float) -> None:
    process = start(command(tmp_path))
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)  # `nothing_left` looks for what stays behind


def test_a_second_ctrl_c_cuts_off(tmp_path: Path) -> None:
    process = start(command(tmp_path, relay="{ sleep_s = 0.3 }"))
    deadline = time.monotonic() + 60
    while not (tmp_path / "r.hbs").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "cut off by a second Ctrl-C" in err
    assert all(ledger["balanced"] for ledger in json.loads(out)["ledger"])


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes by /proc")


@needs_proc
def test_a_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    process = start(command(tmp_path))
    wait_until_running(tmp_path)
    assert len(nodes()) == 3
    process.kill()
    process.communicate(timeout=30)


@needs_proc
def test_a_killed_node_fails_the_run(tmp_path: Path) -> None:
    process = start(command(tmp_path))
    wait_until_running(tmp_path)
    os.kill(int(nodes()[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "killed by signal 9" in err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "missing.toml"], 2, "no such file"),
        (["check", "missing.toml"], 2, "no such file"),
        (["run"], 2, "Missing argument"),
        (["nonsense"], 2, "No such command"),
        (["info", "missing.bin"], 2, "missing.bin"),
    ],
)
def test_bad_input_has_words_and_a_code(arguments: list[str], code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stream", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_two_cameras_in_one_stream_across_processes(tmp_path: Path, toys: list[str]) -> None:
    """Fan-in over processes gives the order of time, whoever was faster."""
    counts = {"n": 3000, "mark_every": 1000}
    described = Pipeline(
        name="toy",
        source=[
            SourceSpec(name=name, kind="toy_members.Count", params=counts, packet_items=size)
            for name, size in (("left", 70), ("right", 333))
        ],
        operator=[
            OperatorSpec(
                name="merge",
                kind="stream.merge.Merge",
                params={"inputs": ["a", "b"], "width": 10, "height": 10, "beside": True, "lateness_us": 10**6},
            ),
            OperatorSpec(
                name="recorder",
                kind="stream.record.Recorder",
                params={"path": str(tmp_path / "r.hbs"), "ports": {"both": "events"}},
            ),
        ],
        edge=[
            EdgeSpec(source="left.events", target="merge.a"),
            EdgeSpec(source="right.events", target="merge.b"),
            EdgeSpec(source="merge.events", target="recorder.both"),
        ],
    )
    for processes in (False, True):
        result = run(described, processes=processes, plugins=toys)
        assert_exact(result)
        recording = read_recording(tmp_path / "r.hbs")
        items = recording.items("both")
        assert items["t"].tolist() == [10 * (index // 2) for index in range(6000)]
        assert (items["x"][::2] < 10).all()
        assert (items["x"][1::2] >= 10).all()
        assert result.members["merge"]["late a"] == result.members["merge"]["late b"] == 0


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest", "sample"])
def test_a_recording_behind_a_live_edge_accounts_for_what_is_not_in_it(
    tmp_path: Path, toys: list[str], policy: str
) -> None:
    described = pipeline(tmp_path, source={"n": 200_000}, relay={"sleep_s": 0.01})
    described.edge[0].delivery, described.edge[0].policy = "live", policy
    described.edge[0].max_count = 8
    result = run(described, plugins=toys)
    assert_exact(result)
    sent, delivered, dropped = result.ledgers[0].items
    assert sent == 200_000
    assert dropped > 0
    recording = read_recording(tmp_path / "r.hbs")
    told = sum(mark.items for mark in recording.marks("relayed") if isinstance(mark, Loss))
    assert len(recording.items("relayed")) == delivered
    assert delivered + told == 200_000
    assert len(recording.items("direct")) == 200_000  # the branch beside it lost nothing
