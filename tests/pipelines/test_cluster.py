"""Runs, training and chips spread over machines by Ray: its own test cluster, on addresses of the loopback network."""

import functools
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

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
from stream.cluster import RayEngine, join
from stream.errors import ConfigError, RunError
from stream.packet import SPIKE_DTYPE
from stream.pipeline import EdgeSpec, NodeSpec, OperatorSpec, Pipeline, SourceSpec
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
        )

    def lose(self, host: str) -> None:
        self.cluster.remove_node(self.there.pop(host), allow_graceful=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    import ray

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_ADDRESS", "RAY_worker_niceness")}
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's own name; its default lets workers wait for whatever else the machine does
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [TOYS, before["PYTHONPATH"] or ""]))
    handler = signal.getsignal(signal.SIGTERM)  # which Ray takes
    machines = Machines()
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
    import warnings

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


def outcome(folder: Path) -> dict[str, Any]:
    recording = read_recording(folder / "r.hbs")
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


def test_nobody_without_a_key_of_the_run_comes_in(machines: Machines, tmp_path: Path) -> None:
    engine = RayEngine("ray", toy(tmp_path))
    ours, theirs = engine.keys("relay"), engine.keys("count")
    assert ours is not None
    assert theirs is not None
    assert ours.secret != theirs.secret
    assert ours.peers == theirs.peers
    assert ours.secret not in repr(theirs.peers)
    engine.close()


def test_a_machine_lost_on_the_way_changes_no_bit(
    machines: Machines, tmp_path: Path, toys: list[str], wanted: dict[str, Any]
) -> None:
    """The relay's machine is lost; Ray finds another place, and all go on from the last snapshot."""
    machines.add("d")
    described = toy(tmp_path, speed=0.2, hosts={"count": "a", "recorder": "c"}, restarts=20)
    described.node.append(NodeSpec(name="relay", cpus=1.8))  # there is room for it on b and on d
    engine = RayEngine("ray", described)
    lost: list[str] = []

    def on_status(statuses: dict[str, Any], phase: str) -> None:
        if phase == "running" and not lost and statuses.get("relay") and statuses["relay"].stream_us > 100_000:
            lost.append(engine.places()["relay"][0])
            host = next(host for host, node in machines.there.items() if node.node_ip_address == lost[0])
            threading.Thread(target=machines.lose, args=(host,)).start()

    folder = tmp_path / "run"
    result = run(described, plugins=toys, directory=folder, on_status=on_status, engine=engine)
    assert lost
    assert engine.places()["relay"][0] != lost[0]
    assert result.restarts
    assert any(restart.resumed_from > 0 for restart in result.restarts)
    assert "gone" in result.restarts[0].reason
    assert_exact(result)
    assert outcome(tmp_path) == wanted
    assert int(read_snapshot(folder / "snapshots", FINAL, "relay")["seen"]) == N


def test_a_node_that_fails_is_named(machines: Machines, tmp_path: Path, toys: list[str]) -> None:
    described = toy(tmp_path)
    described.operator[0].params = {"fail_at": 10_000}
    with pytest.raises(RunError, match=r"node 'relay'.*relay was told to fail"):
        run(described, plugins=toys, engine=RayEngine("ray", described))


def test_no_room_is_told_with_words(machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.cluster.PLACE_PATIENCE_S", 0.5)
    with pytest.raises(ConfigError, match=r"relay \(0.5 cpus, on host nowhere\).*the cluster has"):
        RayEngine("ray", toy(tmp_path, hosts={"relay": "nowhere"}))


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
        each(range(4), work, lambda job, rows, kept=kept: kept.append((job, rows)), on=on)  # type: ignore[misc]
    assert (tmp_path / "lost").exists()
    assert found["ray"] == found[""]
