"""Runs, training and chips spread over machines by Ray: its own test cluster, on addresses of the loopback network."""

import functools
import gc
import gzip
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from chip.board import Board
from chip.core import AXON_SPIKES, ROUTE_DTYPE, SYNAPSE_MATRIX, TO_CORE, Core
from chip.profile import load_profile
from chip.program import INPUT_DTYPE, assemble
from chip.soma import Soma
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from plasticity.hebbian import Hebbian
from plasticity.spread import SpreadTrainer
from plasticity.train import Recording, Trainer, train
from sources.atis_bin import write_atis_bin
from stream.__main__ import app
from stream.cluster import RayEngine, join
from stream.errors import ConfigError, RunError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Reset
from stream.pipeline import EdgeSpec, NodeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.places import place
from stream.record import read_recording
from stream.run import RunResult, run
from stream.snapshot import FINAL, read_snapshot

pytest.importorskip("ray", reason="Ray is not installed (extra 'cluster')")

TOYS = str(Path(__file__).parents[1] / "toys")
N = 40_000  # events, 0.4 s of stream
HOSTS = ("a", "b", "c")


class Machines:
    """A cluster on one machine; each member of it has an address of its own."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        with socket.socket() as free:
            free.bind(("127.0.0.2", 0))
            self.client_port = int(free.getsockname()[1])
        self.n = 1
        self.there: dict[str, Any] = {}
        for host in HOSTS:
            self.add(host)

    def add(self, host: str) -> None:
        self.n += 1
        self.there[host] = self.cluster.add_node(
            num_cpus=2,
            node_ip_address=f"127.0.0.{self.n}",  # not 127.0.0.1, which Ray takes for the machine's outer address
            labels={"host": host},
            object_store_memory=80 << 20,
            include_dashboard=False,
            **({"ray_client_server_port": self.client_port} if self.n == 2 else {}),  # of the head, the first one
        )

    def lose(self, host: str) -> None:
        self.cluster.remove_node(self.there.pop(host), allow_graceful=False)


@pytest.fixture(scope="module")
def machines(bucket: str) -> Iterator[Machines]:
    import ray

    del bucket  # is there before machines start, so that they find it
    names = ("PYTHONPATH", "RAY_ADDRESS", "RAY_worker_niceness", "GRPC_ENABLE_FORK_SUPPORT")
    before = {name: os.environ.get(name) for name in names}
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own name; its default lets workers wait for whatever else the machine does
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # else what Ray's client server starts may crash (docs/cluster.md)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TOYS, before["PYTHONPATH"] or ""]))
    handler = signal.getsignal(signal.SIGTERM)  # which Ray takes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # as below: the head leaves its client server's logs open
        machines = Machines()
        gc.collect()
    os.environ["RAY_ADDRESS"] = machines.cluster.address
    try:
        yield machines
    finally:
        ray.shutdown()
        machines.cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(autouse=True)
def no_fragile_warnings(toys: list[str]) -> Iterator[None]:
    """Ray opens files and sockets that it leaves to the collector; that is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def toy(folder: Path, *, speed: float | None = None, hosts: dict[str, str] | None = None, **recovery: Any) -> Pipeline:
    ports = {"relayed": "events", "direct": "events"}
    pipeline = Pipeline(
        name="toy",
        source=[
            SourceSpec(name="count", kind="toy_members.Count", params={"n": N, "mark_every": 3000}, packet_items=100)
        ],
        operator=[
            OperatorSpec(name="relay", kind="toy_members.Relay"),
            OperatorSpec(
                name="recorder",
                kind="stream.record.Recorder",
                params={"path": str(folder / "r.hbs"), "ports": ports},
            ),
        ],
        edge=[
            EdgeSpec(source="count.events", target="relay.events"),
            EdgeSpec(source="relay.events", target="recorder.relayed"),
            EdgeSpec(source="count.events", target="recorder.direct"),
        ],
        node=[NodeSpec(name=name, host=host, cpus=0.5) for name, host in (hosts or {}).items()],
    )
    pipeline.source[0].speed = speed or "max"
    pipeline.recovery = msgspec.structs.replace(pipeline.recovery, snapshot_every_us=20_000, **recovery)
    return pipeline


def outcome(folder: Path | str) -> dict[str, Any]:
    recording = read_recording(f"{folder}/r.hbs")
    assert recording.torn == ""
    return {port: (recording.items(port).tobytes(), recording.marks(port)) for port in recording.ports}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process makes of it."""
    import sys

    folder = tmp_path_factory.mktemp("one")
    sys.path.insert(0, TOYS)
    try:
        run(toy(folder), processes=False, plugins=["toy_members"])
    finally:
        sys.path.remove(TOYS)
    return outcome(folder)


def assert_exact(result: RunResult) -> None:
    assert [ledger.items for ledger in result.ledgers] == [(N, N, 0)] * 3
    assert all(ledger.is_balanced for ledger in result.ledgers)


def test_one_machine_and_three_give_the_same_bits(
    machines: Machines, tmp_path: Path, toys: list[str], wanted: dict[str, Any]
) -> None:
    spread = {"count": "a", "relay": "b", "recorder": "c"}
    for hosts, n_machines in (({}, 1), (spread, 3)):
        folder = tmp_path / str(n_machines)
        described = toy(folder, hosts=hosts)
        engine = RayEngine("ray", described)
        result = run(described, plugins=toys, engine=engine)
        places = engine.places()
        assert len({address for address, _ in places.values()}) == n_machines  # packed, or where they were sent
        assert len({pid for _, pid in places.values()}) == 3
        assert_exact(result)
        assert outcome(folder) == wanted


def test_each_node_has_a_key_of_its_own_which_is_written_nowhere(
    machines: Machines, tmp_path: Path, toys: list[str]
) -> None:
    described = toy(Path())
    engine = RayEngine("ray", described)
    result = run(described, plugins=toys, directory=tmp_path / "run", engine=engine)
    assert_exact(result)
    passes = [engine.keys(name) for name in ("count", "relay", "recorder")]
    secrets = {it.secret for it in passes if it is not None}
    assert len(secrets) == 3
    assert all(it is not None and it.peers.keys() == engine.places().keys() for it in passes)
    logs = Path(machines.cluster.head_node.get_session_dir_path()) / "logs"
    files = [it for folder in (tmp_path, logs) for it in folder.rglob("*") if it.is_file()]
    assert any(it.name == "run.json" for it in files)
    assert any(it.stat().st_size > 1000 for it in files if it.is_relative_to(logs))
    for path in files:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), path


@pytest.mark.parametrize("where", ["folder", "S3"])
def test_a_machine_lost_on_the_way_changes_no_bit(
    where: str, machines: Machines, bucket: str, tmp_path: Path, toys: list[str], wanted: dict[str, Any]
) -> None:
    """The relay's machine is lost; Ray finds another place, and all go on from the last snapshot."""
    if where == "S3" and not bucket:
        pytest.skip("s3fs or moto is not installed (pip install s3fs 'moto[s3,server]')")
    machines.add("d" if where == "folder" else "e")
    hosts = {"count": "a", "recorder": "c"}
    if where == "folder":
        described, folder = toy(tmp_path, speed=0.2, hosts=hosts, restarts=20), str(tmp_path / "run")
    else:  # the recording too; a far place takes its time
        described, folder = toy(Path(), speed=0.05, hosts=hosts, restarts=20), f"{bucket}/lost"
    described.node.append(NodeSpec(name="relay", cpus=1.8))  # there is room for it on two machines
    engine = RayEngine("ray", described)
    lost: list[str] = []

    def on_status(statuses: dict[str, Any], phase: str) -> None:
        if phase == "running" and not lost and statuses.get("relay") and statuses["relay"].stream_us > 100_000:
            lost.append(engine.places()["relay"][0])
            host = next(host for host, node in machines.there.items() if node.node_ip_address == lost[0])
            threading.Thread(target=machines.lose, args=(host,)).start()

    result = run(described, plugins=toys, directory=folder, on_status=on_status, engine=engine)
    assert lost
    assert engine.places()["relay"][0] != lost[0]
    assert result.restarts
    assert any(restart.resumed_from > 0 for restart in result.restarts)
    assert "gone" in result.restarts[0].reason
    assert_exact(result)
    assert outcome(tmp_path if where == "folder" else f"{folder}/recordings") == wanted
    assert int(read_snapshot(place(f"{folder}/snapshots"), FINAL, "relay")["seen"]) == N


@pytest.mark.slow
@pytest.mark.parametrize("node", ["camera", "recorder"])
def test_a_live_camera_tells_the_gap_after_a_machine_was_lost(
    node: str, machines: Machines, tmp_path: Path, toys: list[str]
) -> None:
    """Its machine, or the recorder's, is switched off and on again: what nobody saw is told, with a mark where."""
    host = f"desk-{node}"
    machines.add(host)
    params = {"path": str(tmp_path / "r.hbs"), "ports": {"events": "events"}}
    other = "recorder" if node == "camera" else "camera"
    described = Pipeline(
        name="desk",
        source=[SourceSpec(name="camera", kind="toy_camera.PlayedCamera")],
        operator=[OperatorSpec(name="recorder", kind="stream.record.Recorder", params=params)],
        edge=[EdgeSpec(source="camera.events", target="recorder.events")],
        node=[NodeSpec(name=node, host=host, cpus=0.5), NodeSpec(name=other, host="a", cpus=0.5)],
    )
    described.recovery = msgspec.structs.replace(described.recovery, snapshot_every_us=200_000, restarts=20)
    engine = RayEngine("ray", described)
    done: list[str] = []
    lost = ""
    back_us = 0

    def on_status(statuses: dict[str, Any], phase: str) -> None:
        nonlocal lost, back_us
        recorded_us = statuses["recorder"].stream_us if "recorder" in statuses else 0
        if not done and phase == "running" and recorded_us > 1_000_000:
            done.append("off")
            lost = engine.places()[node][0]
            machines.lose(host)
        elif done == ["off"] and phase.startswith("starting again"):
            done.append("on")
            machines.add(host)
        elif done == ["off", "on"] and phase == "running":
            back_us = back_us or recorded_us
            if recorded_us > back_us + 1_000_000:
                done.append("stopped")
                os.kill(os.getpid(), signal.SIGINT)

    result = run(
        described, plugins=[*toys, "toy_camera"], directory=tmp_path / "run", on_status=on_status, engine=engine
    )
    assert result.was_stopped
    assert engine.places()[node][0] != lost  # the same desk, another address
    assert "gone" in result.restarts[0].reason
    recording = read_recording(tmp_path / "r.hbs")
    seams = recording.marks("events")
    assert seams
    assert all(isinstance(seam, Reset) for seam in seams)
    t = recording.items("events")["t"]
    assert (t[1:] >= t[:-1]).all()
    missing_us = sum(int(t[t >= seam.t_us][0] - t[t < seam.t_us][-1]) for seam in seams)
    assert missing_us == pytest.approx(result.gaps["camera"] * 1e6, rel=0.2, abs=50_000)
    assert result.gaps["camera"] > 0.2
    assert all(ledger.is_balanced for ledger in result.ledgers)


@pytest.mark.slow
def test_a_machine_that_does_not_come_back_is_told(
    machines: Machines, tmp_path: Path, toys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only machine that a node may run on stays away: the run says so, and gives up."""
    machines.add("gone")
    hosts = {"count": "a", "relay": "gone", "recorder": "a"}
    described = toy(tmp_path, speed=0.05, hosts=hosts, restarts=1, hang_s=8.0)
    off: list[str] = []

    def on_status(statuses: dict[str, Any], phase: str) -> None:
        if phase == "running" and not off and statuses.get("relay"):
            off.append("gone")
            machines.lose("gone")
            # not before: a slow machine needs its time to start
            monkeypatch.setattr("stream.run.START_PATIENCE_S", 8.0)
            monkeypatch.setattr("stream.cluster.CALL_PATIENCE_S", 2.0)

    engine = RayEngine("ray", described)
    told = r"node 'relay' has found no machine to run on within \d+ s\ngiven up: 1 restarts"
    with pytest.raises(RunError, match=told):
        run(described, plugins=toys, directory=tmp_path / "run", on_status=on_status, engine=engine)


def test_a_node_that_fails_is_named(machines: Machines, tmp_path: Path, toys: list[str]) -> None:
    described = toy(tmp_path)
    described.operator[0].params = {"fail_at": 10_000}
    with pytest.raises(RunError, match=r"node 'relay'.*relay was told to fail"):
        run(described, plugins=toys, engine=RayEngine("ray", described))


def typed(folder: Path, *words: str) -> dict[str, Any]:
    """Type a command of hebbstream in a folder; returns what it prints as JSON."""
    command = [sys.executable, "-P", "-m", "stream", *words, "--json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


FILE = """
name = "toy"
[[source]]
name = "count"
kind = "toy_members.Count"
params = { n = 40000, mark_every = 3000 }
packet_items = 100
speed = "max"
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
[[node]]
name = "relay"
host = "c"
cpus = 0.5
"""


@pytest.mark.slow
def test_a_run_that_is_typed_gives_the_same_bits_by_either_way_in(
    machines: Machines, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    """From a machine of the cluster, and from one that is none, through Ray's client port."""
    (tmp_path / "toy.toml").write_text(FILE)
    for name, on in (("in", "ray"), ("out", f"ray://127.0.0.2:{machines.client_port}")):
        found = typed(tmp_path, "run", "toy.toml", "--plugin", "toy_members", "--dir", name, "--on", on)
        assert [edge["items"] for edge in found["ledger"]] == [[N, N, 0]] * 3
        assert outcome(tmp_path / name / "recordings") == wanted


@pytest.mark.slow
def test_what_is_trained_and_studied_by_typed_commands_is_the_same(machines: Machines, tmp_path: Path) -> None:
    """Paths are relative to where the command is typed, on whichever machine they are opened."""
    rng = np.random.default_rng(1)
    for part, number in (("train", 6), ("test", 2)):
        for label, k in itertools.product(range(2), range(number)):
            events = np.zeros(300, EVENT_DTYPE)
            events["t"] = np.sort(rng.integers(0, 100_000, len(events)))
            events["x"], events["y"] = rng.integers(0, 17, len(events)) + 17 * label, rng.integers(0, 34, len(events))
            path = tmp_path / part / str(label) / f"{k}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atis_bin(path, events)
    train_ = ["train", "train", "--test", "test", "--hidden", "12", "--epochs", "2", "--batch", "4"]
    study = ["eval", "fault-tolerance", "train", "test", "--hidden", "12", "--methods", "GP", "--quick"]
    for command, out in ((train_, "network"), (study, "study")):
        here = typed(tmp_path, *command, "--out", f"{out}-here")
        spread = typed(tmp_path, *command, "--out", f"{out}-spread", "--on", "ray")
        assert {name: spread[name] for name in here} == here
        home, away = tmp_path / f"{out}-here", tmp_path / f"{out}-spread"
        files = [it.relative_to(home) for it in home.rglob("*.safetensors")]
        assert files
        assert all((home / name).read_bytes() == (away / name).read_bytes() for name in files)


def test_many_tasks_on_workers_are_learned_as_here(machines: Machines, tmp_path: Path) -> None:
    """``eval continual``: synapses of each task, weights and what was found on the way are kept by whoever does it."""
    rng = np.random.default_rng(2)
    for name, n in (("train", 60), ("t10k", 20)):
        pictures = rng.integers(0, 2, (n, 28, 28)).astype(np.uint8) * 255
        head = struct.pack(">4I", 0x803, n, 28, 28)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pictures.tobytes()))
        labels = struct.pack(">2I", 0x801, n) + bytes(rng.integers(0, 10, n).tolist())
        (tmp_path / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    images = [str(tmp_path / f"{name}-images-idx3-ubyte.gz") for name in ("train", "t10k")]
    words = ["eval", "continual", *images, "--quick", "--methods", "GP,EWC", "--json"]
    found = {}
    for on in ("", "ray"):
        out = tmp_path / f"out{on}"
        done = CliRunner().invoke(app, [*words, "--out", str(out), "--on", on], catch_exceptions=False)
        assert done.exit_code == 0
        found[on] = json.loads((out / "results.json").read_text())
    typed(tmp_path, *words[:-1], "--out", "far", "--on", f"ray://127.0.0.2:{machines.client_port}")
    assert json.loads((tmp_path / "far" / "results.json").read_text()) == found["ray"] == found[""]
    assert len(found[""]["results"]) == 7


def test_no_room_is_told_with_words(machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.cluster.PLACE_PATIENCE_S", 0.5)
    with pytest.raises(ConfigError, match=r"relay \(0.5 cpus, on host nowhere\).*the cluster has"):
        RayEngine("ray", toy(tmp_path, hosts={"relay": "nowhere"}))
    greedy = toy(tmp_path)
    greedy.node.append(NodeSpec(name="relay", memory_mb=10**7))
    with pytest.raises(ConfigError, match=r"relay \(0.5 cpus, 10000000 MiB\).*the cluster has.*MiB"):
        RayEngine("ray", greedy)
    (tmp_path / "toy.toml").write_text(FILE)
    words = ["run", str(tmp_path / "toy.toml"), "--plugin", "toy_members", "--on", "ray"]
    for word in (["--view"], ["--one-process"], ["--transport", "ipc"]):
        with pytest.raises(ConfigError, match="--on ray: goes without --view, --one-process and --transport"):
            CliRunner().invoke(app, [*words, *word], catch_exceptions=False)


@pytest.mark.parametrize("where", ["ray:there", "spark", "ray://a:b:c"])
def test_what_is_no_cluster(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match="wanted ray, or ray://HEAD"):
        join(where)


def lessons(n: int, seed: int) -> list[Recording]:
    """Make recordings of two classes that prefer other inputs."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(n):
        items = np.zeros(40, SPIKE_DTYPE)
        items["t"] = np.sort(rng.integers(0, 50_000, len(items)))
        items["unit"] = rng.integers(0, 6, len(items)) + 6 * (k % 2)
        made.append(Recording(k % 2, functools.partial(np.copy, items)))
    return made


def test_any_number_of_workers_gives_the_same_weights_and_a_lost_one_too(machines: Machines, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    graph = Graph(
        (12,),
        [Population("hidden", LIFUnits(10_000.0), (10,)), Population("scores", LeakyIntegratorUnits(30_000.0), (2,))],
        [
            Projection(INPUT, "hidden", Dense(rng.normal(0.1, 0.3, (12, 10)))),
            Projection("hidden", "scores", Dense(rng.normal(0.0, 0.2, (10, 2)))),
        ],
    )
    options: dict[str, Any] = {"readout": "scores", "lanes": 4, "rules": {(INPUT, "hidden"): Hebbian()}}
    recordings, asked = lessons(24, 1), lessons(8, 2)
    plan: dict[str, Any] = {"epochs": 2, "batch": 8}
    wanted = train(Trainer(graph, **options), recordings, asked, folder=tmp_path / "here", **plan)
    for workers in (1, 2, 4):
        trainer = SpreadTrainer(graph, on="ray", workers=workers, **options)
        kill: list[int] = trainer.processes()[:1] if workers > 1 else []

        def progress(epoch: int, done: int, total: int, accuracy: float, kill: list[int] = kill) -> None:
            if kill and epoch == 1 and done == 16:
                os.kill(kill.pop(), signal.SIGKILL)

        found = train(trainer, recordings, asked, folder=tmp_path / str(workers), progress=progress, **plan)
        assert found == wanted
        assert trainer.losses == (workers > 1)
        assert 0.0 < trainer.efficiency <= 1.0
        trainer.close()
        for name in ("best.safetensors", "000002/checkpoint.safetensors"):
            assert (tmp_path / str(workers) / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_board_split_over_workers_is_the_board(machines: Machines) -> None:
    """Four layers of threshold cores in a ring, each core on spikes of the one before it."""
    n, rng = 12, np.random.default_rng(3)
    cores, places = [], []
    for k in range(n):
        dx = 1 if k + 1 < n else 1 - n
        routes = np.array([(j, dx, 0, j, TO_CORE, 0) for j in range(16)], ROUTE_DTYPE)
        cores.append(
            Core(
                name=f"core {k}",
                axon_mode=AXON_SPIKES,
                synapse=SYNAPSE_MATRIX,
                n_axons=16,
                n_neurons=16,
                weight=rng.integers(-40, 60, (16, 16)).astype(np.int8),
                bias=np.zeros(16, np.int32),
                soma=Soma(v_threshold=60),
                routes=routes,
                watch=np.arange(16, dtype=np.int32) + 16 * k,
            )
        )
        places.append((k, 0))
    inputs = np.array([(unit, unit % n, unit // n) for unit in range(4 * n)], INPUT_DTYPE)
    grid = assemble(cores, places, inputs, 4 * n, 0, load_profile("tianjic-2019"))
    incoming = np.zeros(300, SPIKE_DTYPE)
    incoming["t"], incoming["unit"] = np.sort(rng.integers(0, 60_000, 300)), rng.integers(0, 4 * n, 300)
    found = []
    for on, n_regions in (("", 1), ("ray", 3)):
        board = Board(grid, n_regions, 1000, 1000, on=on)
        found.append((*board.run(incoming, 80_000), board.totals.copy()))
        assert (board.parcel_bytes > 0) == (n_regions > 1)
        board.close()
    whole, split = found
    assert len(whole[0]) > 100
    for one, other in zip(whole, split, strict=True):
        assert np.array_equal(one, other)


def test_a_study_spread_over_workers_is_the_study(machines: Machines, tmp_path: Path) -> None:
    """Jobs are done anywhere, one of them loses its process once, and what comes of them is kept in their order."""
    from stream.evaluation import each

    def work(job: int) -> list[dict[str, Any]]:
        mark = tmp_path / "lost"
        if job == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [{"job": job, "right": job / 4}, {"job": job, "process": job >= 0}]

    found: dict[str, list[Any]] = {"": [], "ray": []}
    for on, kept in found.items():
        (tmp_path / "lost").unlink(missing_ok=True)
        if not on:
            (tmp_path / "lost").touch()
        each(range(4), work, lambda job, rows, kept=kept: kept.append((job, rows)), on=on)
    assert (tmp_path / "lost").exists()
    assert found["ray"] == found[""]

    def fail(job: int) -> list[dict[str, Any]]:
        raise ConfigError(f"job {job}: wrong from the start")

    with pytest.raises(ConfigError, match=r"^job 0: wrong from the start$"):
        each(range(1), fail, lambda job, rows: None, on="ray")
