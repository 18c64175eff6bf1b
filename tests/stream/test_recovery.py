"""Runs that survive: nodes killed or stopped, supervisors killed, disks full, cameras lost; always the same bits."""

import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from stream.errors import ConfigError, RunError
from stream.packet import Reset
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.run import RunResult, resume, run
from stream.run_folder import create, reopen
from stream.snapshot import FINAL, latest, read_snapshot

# importlib mode puts no test folder on sys.path
_spec = importlib.util.spec_from_file_location("kill_study", Path(__file__).parents[1] / "toys" / "kill_study.py")
assert _spec is not None
assert _spec.loader is not None
kill_study = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(kill_study)
log, node_pids = kill_study.log, kill_study.node_pids

needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds processes by /proc")
N = 40_000  # events, 0.4 s of stream


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toys: list[str]) -> object:
    """Every test here: no process of ours and no socket file afterwards."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert node_pids(os.getpid()) == {}
    assert list(folder.glob("hebbstream-*")) == []


def toy(*, n: int = N, relay: dict[str, Any] | None = None, kind: str = "Relay", **recovery: Any) -> Pipeline:
    """Describe count -> relay -> recorder, and count -> recorder past the relay, at less than half the pace."""
    ports = {"relayed": "events", "direct": "events"}
    pipeline = Pipeline(
        name="toy",
        source=[
            SourceSpec(name="count", kind="toy_members.Count", params={"n": n, "mark_every": 3000}, packet_items=100)
        ],
        operator=[
            OperatorSpec(name="relay", kind=f"toy_members.{kind}", params=relay or {}),
            OperatorSpec(name="recorder", kind="stream.record.Recorder", params={"path": "r.hbs", "ports": ports}),
        ],
        edge=[
            EdgeSpec(source="count.events", target="relay.events"),
            EdgeSpec(source="relay.events", target="recorder.relayed"),
            EdgeSpec(source="count.events", target="recorder.direct"),
        ],
    )
    pipeline.source[0].speed = 0.4
    pipeline.recovery = msgspec.structs.replace(pipeline.recovery, snapshot_every_us=20_000, **recovery)
    return pipeline


def expected() -> dict[str, bytes]:
    """Return what a run of ``toy`` must come to; computed here, without a run."""
    import numpy as np

    from stream.packet import EVENT_DTYPE

    events = np.zeros(N, EVENT_DTYPE)
    events["t"], events["x"] = np.arange(N) * 10, np.arange(N) % 10
    return {"relayed": events.tobytes(), "direct": events.tobytes()}


def assert_undisturbed(folder: Path, result: RunResult | None = None) -> None:
    recording = read_recording(folder / "recordings" / "r.hbs")
    assert recording.torn == ""
    assert {port: recording.items(port).tobytes() for port in recording.ports} == expected()
    assert len(recording.marks("direct")) == len(recording.marks("relayed")) == 2 * (N // 3000)
    relay = read_snapshot(folder / "snapshots", FINAL, "relay")
    assert (int(relay["seen"]), int(relay["sum_x"])) == (N, 9 * N // 2)
    if result is not None:
        assert result.reason == ""
        assert [ledger.items for ledger in result.ledgers] == [(N, N, 0)] * 3
        assert all(ledger.is_balanced for ledger in result.ledgers)


def at_phase(phase: str, act: Callable[[], None], *, after_s: float = 0.3) -> Callable[..., None]:
    """Return an ``on_status`` that acts once, some time after a phase has begun."""
    since: list[float] = []
    done: list[bool] = []

    def on_status(statuses: object, now: str) -> None:
        if now == phase:
            since.append(time.monotonic())
        if since and not done and time.monotonic() - since[0] > after_s:
            done.append(True)
            act()

    return on_status


def send(node: str, number: int) -> Callable[[], None]:
    return lambda: os.kill(node_pids(os.getpid())[node], number)


@pytest.mark.parametrize("processes", [False, True])
def test_a_run_directory_keeps_what_it_promises(tmp_path: Path, toys: list[str], processes: bool) -> None:
    folder = tmp_path / "run"
    result = run(toy(), processes=processes, plugins=toys, directory=folder)
    assert_undisturbed(folder, result)
    assert result.snapshots == 19 + 13  # by stream time, and where the source marks
    assert sorted(entry.name for entry in (folder / "snapshots").iterdir())[:-1] == ["000030", "000031", "000032"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["snapshots"]["complete"] == result.snapshots
    assert summary["restarts"] == []
    events = [entry["event"] for entry in log(folder)]
    assert (events[0], events[-1]) == ("begin", "end")
    again = resume(folder)
    assert (again.resumed_from, again.snapshots) == (FINAL, 0)
    assert [ledger.items for ledger in again.ledgers] == [ledger.items for ledger in result.ledgers]
    assert_undisturbed(folder)
    with pytest.raises(ConfigError, match="holds a run already"):
        run(toy(), plugins=toys, directory=folder)


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run that could be resumed"):
        reopen(tmp_path / "nothing")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="holds something else"):
        create(tmp_path / "other", toy())
    first = create(tmp_path / "run", toy())
    with pytest.raises(ConfigError, match="holds a run already"):
        create(tmp_path / "run", toy())
    first.close()
    (tmp_path / "run" / "run.json").write_text('{"pipeline": {"name": 3}}')
    with pytest.raises(ConfigError, match="damaged"):
        reopen(tmp_path / "run")
    two = toy()
    two.operator[0].kind = "stream.record.Recorder"
    two.operator[0].params = {"path": "else/r.hbs", "ports": {"events": "events"}}
    with pytest.raises(ConfigError, match=r"two recorders write r\.hbs"):
        create(tmp_path / "two", two)


def test_a_run_directory_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.run_folder.LOCK_PATIENCE_S", 0.2)
    first = create(tmp_path / "run", toy())
    shutil.rmtree(first.scratch())
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        reopen(tmp_path / "run")
    first.close()
    reopen(tmp_path / "run").close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Recordings, and what comes of them when nobody is killed."""
    return kill_study.undisturbed(tmp_path_factory.mktemp("whole"))


@needs_proc
@pytest.mark.slow
@given(kill_study.schedules(3))
@settings(max_examples=2, phases=[Phase.generate], derandomize=True, suppress_health_check=list(HealthCheck))
def test_kills_at_random_change_no_bit(whole: Any, schedule: Any) -> None:
    """Camera, learner, chip, recorder, or their supervisor; the long study is in ``tests/toys/kill_study.py``."""
    recordings, wanted = whole
    with tempfile.TemporaryDirectory() as name:
        kill_study.disturbed(recordings, Path(name) / "run", schedule, speed=2.0)
        assert kill_study.outcome(Path(name) / "run") == wanted


@needs_proc
@pytest.mark.parametrize("node", ["count", "recorder"])
def test_a_killed_node_is_restarted_and_nothing_shows(tmp_path: Path, toys: list[str], node: str) -> None:
    folder = tmp_path / "run"
    result = run(
        toy(), plugins=toys, directory=folder, on_status=at_phase("running", send(node, signal.SIGKILL), after_s=0.5)
    )
    assert_undisturbed(folder, result)
    (restart,) = result.restarts
    assert restart.node == node
    assert "killed by signal 9 (SIGKILL)" in restart.reason
    assert restart.resumed_from > 0
    assert [entry["event"] for entry in log(folder) if entry["event"] in ("lost", "restart")] == ["lost", "restart"]
    assert json.loads((folder / "summary.json").read_text())["restarts"][0]["node"] == node


def test_who_dies_again_and_again_is_given_up(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=r"given up: 2 restarts within 60 s.*--resume") as caught:
        run(toy(relay={"kill_at": 20_000}, restarts=2), plugins=toys, directory=folder)
    result: RunResult = caught.value.result
    assert len(result.restarts) == 2
    assert all(ledger.is_balanced for ledger in result.ledgers)
    assert json.loads((folder / "summary.json").read_text())["restarts"][1]["node"] == "relay"
    # the cause is found and removed; the run goes on
    described = json.loads((folder / "run.json").read_text())
    described["pipeline"]["operator"][0]["params"] = {}
    (folder / "run.json").write_text(json.dumps(described))
    again = resume(folder)
    assert again.resumed_from
    assert_undisturbed(folder, again)


def test_who_fails_is_not_restarted(tmp_path: Path, toys: list[str]) -> None:
    with pytest.raises(RunError, match="relay was told to fail") as caught:
        run(toy(relay={"fail_at": 10_000}), plugins=toys, directory=tmp_path / "run")
    assert caught.value.result.restarts == []


@needs_proc
def test_a_stopped_node_is_named_killed_and_restarted(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    at = at_phase("running", send("relay", signal.SIGSTOP))
    result = run(toy(hang_s=2.5), plugins=toys, directory=folder, on_status=at)
    assert_undisturbed(folder, result)
    (restart,) = result.restarts
    assert restart.node == "relay"
    noticed_s = float(restart.reason.partition("nothing for ")[2].split()[0])
    assert 2.5 <= noticed_s < 5.0


@needs_proc
def test_a_stopped_node_is_named_without_a_run_directory_too(tmp_path: Path, toys: list[str]) -> None:
    described = toy(hang_s=2.0)
    described.operator[1].params["path"] = str(tmp_path / "r.hbs")
    with pytest.raises(RunError, match=r"node 'recorder' hangs: its process \d+ has said nothing for"):
        run(described, plugins=toys, on_status=at_phase("running", send("recorder", signal.SIGSTOP)))


def test_a_member_that_does_not_return_is_named(tmp_path: Path, toys: list[str]) -> None:
    with pytest.raises(RunError, match="node 'relay' hangs: it lives, but relay has not returned for"):
        run(toy(relay={"sleep_s": 30.0}, hang_s=2.0, restarts=0), plugins=toys, directory=tmp_path / "run")


@needs_proc
def test_a_suspended_host_is_no_hang(tmp_path: Path, toys: list[str]) -> None:
    """All processes stand still for longer than a hang takes to be noticed, as in a laptop that is closed."""
    folder = tmp_path / "run"
    create(folder, toy(hang_s=2.0), plugins=toys).close()
    process = kill_study.resumed(folder)
    wait_for(folder, "running")
    group = [process.pid, *node_pids(process.pid).values()]
    for pid in group:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4.0)
    for pid in reversed(group):
        os.kill(pid, signal.SIGCONT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert_undisturbed(folder)
    assert "lost" not in [entry["event"] for entry in log(folder)]


def wait_for(folder: Path, event: str, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while sum(entry["event"] == event for entry in log(folder)) < count:
        assert time.monotonic() < deadline, log(folder)
        time.sleep(0.02)


@needs_proc
def test_a_killed_supervisor_is_resumed_at_once(tmp_path: Path, toys: list[str]) -> None:
    """The nodes of the dead one may still be at the files: the new one waits for them."""
    folder = tmp_path / "run"
    create(folder, toy(), plugins=toys).close()
    process = kill_study.resumed(folder)
    wait_for(folder, "snapshot", 3)
    orphans = node_pids(process.pid)
    assert len(orphans) == 3
    process.kill()
    result = resume(folder)
    process.communicate()
    assert result.resumed_from is not None
    assert result.resumed_from >= 3
    assert_undisturbed(folder, result)


@pytest.mark.parametrize("one_process", [False, True])
def test_ctrl_c_today_and_resume_tomorrow(tmp_path: Path, toys: list[str], one_process: bool) -> None:
    folder = tmp_path / "run"
    described = toy()
    described.recovery = msgspec.structs.replace(described.recovery, snapshot_every_us=10**9)
    described.source[0].params["mark_every"] = 0
    described.source[0].speed = 0.1  # 4 s: a slow machine must not let it end before the signals
    create(folder, described, plugins=toys, processes=not one_process).close()
    position = 0
    for _ in range(2):
        process = kill_study.resumed(folder)
        deadline = time.monotonic() + 60
        while len(read(folder)) < position + 5_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert json.loads(out)["reason"] == "stopped"
        assert json.loads(out)["snapshots"]["complete"] == 1  # the one before the stop
        assert len(read(folder)) > position
        position = len(read(folder))
        assert [ledger["items"][1] for ledger in json.loads(out)["ledger"]] == [position] * 3  # nothing is done twice
    result = resume(folder)
    assert result.resumed_from == 2
    assert [ledger.items for ledger in result.ledgers] == [(N, N, 0)] * 3
    recording = read_recording(folder / "recordings" / "r.hbs")
    assert {port: recording.items(port).tobytes() for port in recording.ports} == expected()


def read(folder: Path) -> Any:
    path = folder / "recordings" / "r.hbs"
    return read_recording(path).items("relayed") if path.exists() and path.stat().st_size > 100 else ()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1")
def test_a_snapshot_by_command(tmp_path: Path, toys: list[str]) -> None:
    described = toy()
    described.recovery = msgspec.structs.replace(described.recovery, snapshot_every_us=10**9)
    described.source[0].params["mark_every"] = 0
    at = at_phase("running", lambda: os.kill(os.getpid(), signal.SIGUSR1))
    result = run(described, plugins=toys, directory=tmp_path / "run", on_status=at)
    assert result.snapshots == 1


@needs_proc
def test_a_damaged_snapshot_is_refused_and_the_one_before_taken(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    described = toy(restarts=0)
    with pytest.raises(RunError, match="given up"):
        run(
            described,
            plugins=toys,
            directory=folder,
            on_status=at_phase("running", send("relay", signal.SIGKILL), after_s=0.5),
        )
    found, _ = latest(folder / "snapshots")
    assert found is not None
    assert found.number > 1
    path = folder / "snapshots" / f"{found.number:06d}" / "recorder.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = resume(folder)
    assert result.resumed_from == found.number - 1
    assert_undisturbed(folder, result)
    (refusal,) = [entry for entry in log(folder) if entry["event"] == "snapshot refused"]
    assert "its checksum does not fit" in str(refusal["reason"])


def two_sources(**recovery: Any) -> Pipeline:
    """Describe two sources in processes of their own, of which one ends early, and a recorder behind both."""
    pipeline = toy(**recovery)
    pipeline.source[0].params["mark_every"] = 0
    pipeline.source.append(
        SourceSpec(name="short", kind="toy_members.Count", params={"n": 5_000}, packet_items=100, speed=0.2)
    )
    pipeline.operator.append(OperatorSpec(name="between", kind="toy_members.Relay"))
    pipeline.operator[1].params["ports"] |= {"short": "events"}
    pipeline.edge += [
        EdgeSpec(source="short.events", target="between.events"),
        EdgeSpec(source="between.events", target="recorder.short"),
    ]
    return pipeline


@needs_proc
def test_several_sources_are_snapshotted_together(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    at = at_phase("running", send("relay", signal.SIGKILL), after_s=0.6)  # the short one has ended
    result = run(two_sources(), plugins=toys, directory=folder, on_status=at)
    assert len(result.restarts) == 1
    assert result.restarts[0].resumed_from > 0
    assert [ledger.items for ledger in result.ledgers] == [(N, N, 0)] * 3 + [(5_000, 5_000, 0)] * 2
    recording = read_recording(folder / "recordings" / "r.hbs")
    assert {port: recording.items(port).tobytes() for port in ("relayed", "direct")} == expected()
    assert recording.items("short")["t"].tolist() == list(range(0, 50_000, 10))


# Full disks


def limited(folder: Path, n_bytes: int) -> "subprocess.CompletedProcess[str]":
    """Resume in a process that may write no file larger than so many bytes."""
    script = f"""
import resource, os, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
os.execv(sys.executable, [sys.executable, "-P", "-m", "stream", "run", "--resume", {str(folder)!r}, "--json"])
"""
    return subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=120)


def test_a_recording_that_does_not_fit_ends_the_run_with_words(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    create(folder, toy(), plugins=toys, processes=False).close()
    done = limited(folder, 300_000)
    assert done.returncode == 1
    assert "r.hbs: cannot be written on: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    kept = read_recording(folder / "recordings" / "r.hbs")
    assert 0 < len(kept.items("relayed")) < N
    assert expected()["relayed"].startswith(kept.items("relayed").tobytes())
    result = resume(folder)  # there is room again
    assert result.resumed_from
    assert_undisturbed(folder, result)


def test_snapshots_that_do_not_fit_are_told_and_the_run_goes_on(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    create(folder, toy(kind="Ballast", relay={"n_bytes": 3_000_000}), plugins=toys).close()
    done = limited(folder, 2_000_000)  # the recording needs less
    assert done.returncode == 0, done.stderr
    snapshots = json.loads(done.stdout)["snapshots"]
    assert snapshots["complete"] == 0
    assert snapshots["failed"] > 10
    assert "of 'relay' not written: File too large" in snapshots["failure"] or "at the end" in snapshots["failure"]
    recording = read_recording(folder / "recordings" / "r.hbs")
    assert {port: recording.items(port).tobytes() for port in recording.ports} == expected()
    assert list((folder / "snapshots").rglob("*.part")) == []


def test_a_disk_that_is_full(tmp_path: Path, toys: list[str]) -> None:
    """A real one: a memory disk of 600 kB in a name space of its own, made larger before the run is resumed."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no name spaces for users here")
    script = f"""
import subprocess, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_recovery import *
disk = Path({str(tmp_path / "disk")!r})
disk.mkdir()
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)]).returncode:
    sys.exit(77)
try:
    run(toy(), plugins={toys!r}, directory=disk / "run")
except RunError as error:
    assert "No space left on device" in str(error), error
else:
    raise AssertionError("600 kB were enough")
kept = read_recording(disk / "run" / "recordings" / "r.hbs").items("relayed").tobytes()
assert kept and expected()["relayed"].startswith(kept)
subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
result = resume(disk / "run")
assert result.resumed_from, result
assert_undisturbed(disk / "run", result)
"""
    command = ["unshare", "-rm", sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == 77:
        pytest.skip("no memory disks here")
    assert done.returncode == 0, done.stderr


# Cameras


def on_a_desk(folder: Path, toys: list[str], *, lives: int = -1, **options: Any) -> RunResult:
    """Record a camera for some stream time into a run directory."""
    pipeline = Pipeline(
        name="desk",
        source=[SourceSpec(name="camera", kind="toy_camera.PlayedCamera", params={"lives": lives})],
        operator=[
            OperatorSpec(
                name="recorder", kind="stream.record.Recorder", params={"path": "r.hbs", "ports": {"events": "events"}}
            )
        ],
        edge=[EdgeSpec(source="camera.events", target="recorder.events")],
    )
    pipeline.recovery = msgspec.structs.replace(pipeline.recovery, snapshot_every_us=200_000)
    return run(pipeline, plugins=[*toys, "toy_camera"], directory=folder, **options)


def stop_after(us: int, then: Callable[..., None] = lambda *_: None) -> Callable[..., None]:
    def on_status(statuses: Any, phase: str) -> None:
        then(statuses, phase)
        if any(status.stream_us > us for status in statuses.values()):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # one Ctrl-C, not two

    sent: list[bool] = []

    def once(statuses: Any, phase: str) -> None:
        if not sent:
            before = time.monotonic()
            on_status(statuses, phase)
            sent.extend([True] * (time.monotonic() - before > 0.25))

    return once


@needs_proc
@pytest.mark.parametrize("node", ["camera", "recorder"])
def test_a_live_camera_goes_on_and_tells_the_gap(tmp_path: Path, toys: list[str], node: str) -> None:
    """Its past cannot be played again: what nobody saw is missing, and told, with a mark where."""
    folder = tmp_path / "run"
    kill = at_phase("running", send(node, signal.SIGKILL), after_s=1.0)
    result = on_a_desk(folder, toys, on_status=stop_after(5_000_000, kill))
    assert result.was_stopped
    (restart,) = result.restarts
    assert restart.node == node
    # the camera that was not killed is back at once, and waits for the recorder with what it has seen meanwhile
    assert (0.2 if node == "camera" else 0.0) < result.gaps["camera"] < 60
    recording = read_recording(folder / "recordings" / "r.hbs")
    (seam,) = recording.marks("events")
    assert isinstance(seam, Reset)
    t = recording.items("events")["t"]
    assert (t[1:] >= t[:-1]).all()
    before, after = t[t < seam.t_us], t[t >= seam.t_us]
    assert len(before)
    assert len(after)
    assert after[0] - before[-1] == pytest.approx(result.gaps["camera"] * 1e6, rel=0.2, abs=50_000)
    assert all(ledger.is_balanced for ledger in result.ledgers)


def test_a_cable_that_is_pulled_is_no_reason_to_begin_again(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    result = on_a_desk(folder, toys, lives=60, on_status=stop_after(3_000_000))
    assert result.restarts == []
    assert result.members["camera"]["seams"] >= 1
    assert result.gaps["camera"] > 0
    recording = read_recording(folder / "recordings" / "r.hbs")
    assert len([mark for mark in recording.marks("events") if isinstance(mark, Reset)]) >= 1


# The host


def test_a_clock_that_is_set_does_no_harm(tmp_path: Path, toys: list[str]) -> None:
    folder = tmp_path / "run"
    result = run(toy(kind="Crooked", hang_s=5.0), plugins=toys, directory=folder)
    assert result.restarts == []
    assert_undisturbed(folder, result)


def test_without_dev_shm(tmp_path: Path, toys: list[str]) -> None:
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no name spaces for users here")
    script = f"""
import subprocess, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_recovery import *
if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", "/dev/shm"]).returncode:
    sys.exit(77)
assert_undisturbed(Path({str(tmp_path / "run")!r}), run(toy(), plugins={toys!r}, directory={str(tmp_path / "run")!r}))
"""
    command = ["unshare", "-rm", sys.executable, "-P", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == 77:
        pytest.skip("/dev/shm cannot be taken away here")
    assert done.returncode == 0, done.stderr


def test_a_fork_after_kernels_were_compiled(tmp_path: Path) -> None:
    script = """
import os
import numpy as np
from stream import wire
from stream.packet import EVENT_DTYPE, packet_of
wire.warm_up()
def once():
    events = np.zeros(1000, EVENT_DTYPE)
    events["t"] = np.arange(1000)
    return b"".join(bytes(frame) for frame in wire.encode(packet_of(events), stream="s", sequence=0)[1:])
mine = once()
child = os.fork()
if not child:
    os._exit(0 if once() == mine else 1)
assert os.waitpid(child, 0)[1] == 0
assert once() == mine
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# From the command line


def toml(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text("""
name = "toy"
[recovery]
snapshot_every_us = 20_000
[[source]]
name = "count"
kind = "toy_members.Count"
params = { n = 40000, mark_every = 3000 }
packet_items = 100
speed = 0.2
[[operator]]
name = "relay"
kind = "toy_members.Relay"
[[operator]]
name = "recorder"
kind = "stream.record.Recorder"
params = { path = "r.hbs", ports = { relayed = "events", direct = "events" } }
[[edge]]
from = "count.events"
to = "relay.events"
[[edge]]
from = "relay.events"
to = "recorder.relayed"
[[edge]]
from = "count.events"
to = "recorder.direct"
""")
    return path


def hebbstream(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-m", "stream", "run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@needs_proc
def test_the_command_line_keeps_resumes_and_tells(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-P", "-m", "stream", "run", str(toml(tmp_path)), "--dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--plugin", "toy_members", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(folder, "snapshot", 2)
    os.kill(node_pids(process.pid)["relay"], signal.SIGKILL)
    wait_for(folder, "restart")
    wait_for(folder, "running", 2)
    process.kill()
    process.communicate()
    done = hebbstream("--resume", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["resumed_from"] >= 2
    assert_undisturbed(folder)
    assert json.loads((folder / "summary.json").read_text()) == report
    assert (folder / "pipeline.toml").read_text() == (tmp_path / "p.toml").read_text()
    again = hebbstream("--resume", str(folder), "--json")
    assert again.returncode == 0
    assert "has come to its end already" in again.stderr
    assert json.loads(again.stdout) == report


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "nowhere"], "holds no run that could be resumed"),
        (["p.toml", "--resume", "r"], "give neither a pipeline nor --dir"),
        (["p.toml", "--dir", "r", "--restore", "3"], "use --resume"),
        (["p.toml", "--restore", "3"], "keeps no snapshots"),
        (["p.toml", "--restarts", "-1"], "wanted a number from 0 on"),
    ],
)
def test_bad_wishes_have_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    toml(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = hebbstream(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
