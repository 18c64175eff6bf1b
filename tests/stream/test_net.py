"""``hebbstream net``: what a network is, and what it does with events, as a user types it; cuts mean nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from sources.event_writer import open_writer
from stream import net
from stream.__main__ import app
from stream.errors import FormatError, RunError, UsageError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

WIDTH, HEIGHT = 9, 6


def graph() -> Graph:
    rng = np.random.default_rng(3)
    return Graph(
        (HEIGHT, WIDTH, 2),
        [
            Population("map", LIFUnits(tau_mem_us=3_000.0), (2, 3, 4)),
            Population("hidden", CurrentLIFUnits(v_threshold=0.05), (5,)),
            Population("scores", LeakyIntegratorUnits(), (3,)),
        ],
        [
            Projection(INPUT, "map", Convolution(rng.normal(0.3, 0.4, (3, 3, 2, 4)), (3, 3), (1, 1))),
            Projection("map", "hidden", Dense(rng.normal(0.1, 0.3, (24, 5)))),
            Projection("hidden", "hidden", Dense(rng.normal(-0.1, 0.1, (5, 5))), 700),
            Projection("hidden", "scores", Dense(rng.normal(0, 0.3, (5, 3)))),
        ],
    )


def events(n: int = 3000, seed: int = 0, gap_us: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    some = np.zeros(n, EVENT_DTYPE)
    some["t"] = 5_000 + np.cumsum(rng.integers(0, gap_us, n))
    some["x"], some["y"] = rng.integers(0, WIDTH, n), rng.integers(0, HEIGHT, n)
    some["p"] = rng.integers(0, 2, n)
    return some


def hebbstream(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "stream", "net", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def network(tmp_path: Path) -> Path:
    save_graph(tmp_path / "net.safetensors", graph())
    return tmp_path / "net.safetensors"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "events.npz"
    write(path, events())
    return path


def write(path: Path, some: np.ndarray, width: int = WIDTH, height: int = HEIGHT) -> None:
    writer = open_writer(path, width, height)
    writer.write(some)
    writer.close()


def test_info_of_both_kinds_of_file(network: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir", reason="needs the package nir (pip install 'hebbstream[nir]')")
    from neurons.nir_file import write_nir

    write_nir(tmp_path / "net.nir", graph())
    found = [json.loads(hebbstream("info", file, "--json").stdout) for file in (network, tmp_path / "net.nir")]
    assert found[0] == found[1]
    assert (found[0]["units"], found[0]["inputs"]) == (32, [HEIGHT, WIDTH, 2])
    assert [row["weights"] for row in found[0]["projections"]] == [72, 120, 25, 15]
    assert found[0]["projections"][0]["options"] == {"stride": [3, 3], "padding": [1, 1], "groups": 1}
    words = hebbstream("info", tmp_path / "net.nir").stdout
    for word in ("hidden", "CurrentLIF", "tau_mem_us 3000", "Convolution", "2x3x4", "700", "32 units"):
        assert word in words


def test_run_is_what_the_network_does(network: Path, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "spikes.npz"
    report = json.loads(hebbstream("run", network, recording, "--out", out, "--potentials", "--json").stdout)
    wanted = Network.of(graph()).run(events())
    with np.load(out) as found:
        assert set(found) == {
            "map.t", "map.unit", "hidden.t", "hidden.unit", "potentials.t", "map.v", "hidden.v", "scores.v",
        }  # fmt: skip
        for name, spikes in wanted.items():
            assert len(spikes) > 20
            assert report["spikes"][name] == len(spikes)
            assert np.array_equal(found[f"{name}.t"], spikes["t"])
            assert np.array_equal(found[f"{name}.unit"], spikes["unit"])
            assert (found[f"{name}.t"].dtype, found[f"{name}.unit"].dtype) == (np.int64, np.uint32)
        first, last = int(events()["t"][0]), int(events()["t"][-1])
        assert np.array_equal(found["potentials.t"], np.arange(first + 1000, last + 1, 1000))
        assert found["scores.v"].shape == (report["samples"], 3)
        assert found["map.v"].shape == (report["samples"], 2, 3, 4)
    assert report["events"] == 3000
    assert {path.name for path in tmp_path.iterdir()} == {"net.safetensors", "events.npz", "spikes.npz"}


def test_start_duration_and_phases(network: Path, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "spikes.npz"
    options = (
        "--discipline",
        "phase",
        "--phase-us",
        500,
        "--precision",
        "float64",
        "--start",
        0.01,
        "--duration",
        0.02,
    )
    words = hebbstream("run", network, recording, "--out", out, *options).stdout
    some = events()
    kept = some[some["t"] >= some["t"][0] + 10_000]
    stop_us = int(kept["t"][0]) + 20_000
    kept = kept[kept["t"] < stop_us]
    wanted = Network.of(graph(), discipline="phase", phase_us=500, precision="float64").run(kept, stop_us - 1)
    with np.load(out) as found:
        assert np.array_equal(found["hidden.t"], wanted["hidden"]["t"])
        assert np.array_equal(found["map.unit"], wanted["map"]["unit"])
    assert f"{len(kept):,} events" in words
    assert "hidden" in words


def test_spikes_in(tmp_path: Path) -> None:
    weight = np.array([[2.0, 0.0], [0.0, 0.4], [0.0, 0.7]])
    save_graph(
        tmp_path / "net.safetensors",
        Graph((3,), [Population("a", LIFUnits(), (2,))], [Projection(INPUT, "a", Dense(weight))]),
    )
    np.savez(tmp_path / "in.npz", t=[10, 20, 30], unit=[1, 2, 0])
    hebbstream("run", tmp_path / "net.safetensors", tmp_path / "in.npz", "--out", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        assert found["a.t"].tolist() == [20, 30]
        assert found["a.unit"].tolist() == [1, 0]
    np.savez(tmp_path / "bad.npz", t=[10, 20], unit=[1, 3])
    done = hebbstream("run", tmp_path / "net.safetensors", tmp_path / "bad.npz", "--out", tmp_path / "o.npz", code=2)
    assert "units 0 to 2" in done.stderr


def test_what_is_refused(network: Path, recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "spikes.npz"
    write(tmp_path / "large.aedat4", events(), 346, 260)
    for arguments, words in [
        ((network, tmp_path / "large.aedat4"), "is of a sensor of 346x260 pixels, and .* takes 9x6; .*crop"),
        ((tmp_path / "none.safetensors", recording), "not there"),
        ((tmp_path / "none.nir", recording), "not there"),
        ((recording, recording), "damaged, or not a safetensors file"),
        ((network, tmp_path / "none.raw"), "there is no such file"),
        ((network, recording, "--every-us", 0), "--every-us 0"),
        ((network, recording, "--duration", 0), "--duration 0"),
        ((network, recording, "--discipline", "frame"), "discipline: got 'frame', wanted one of event, phase"),
        ((network, recording, "--dt-us", 1000), "is no .nir file"),
        ((network, recording, "--out", tmp_path / "x.txt"), "ends in .npz"),
        ((network, recording, "--out", tmp_path / "none" / "x.npz"), "there is no folder"),
    ]:
        with pytest.raises(UsageError, match=words):
            app(["net", "run", "--out", str(out), *map(str, arguments)], standalone_mode=False)
    assert not out.exists()
    done = hebbstream("run", network, tmp_path / "large.aedat4", "--out", out, code=2)
    assert "is of a sensor of 346x260" in done.stderr


def test_a_nir_file_that_does_not_say_how_long_a_spike_is(tmp_path: Path, recording: Path) -> None:
    nir = pytest.importorskip("nir", reason="needs the package nir (pip install 'hebbstream[nir]')")
    one = np.ones(2)
    nodes = [
        nir.Input(np.array([2, HEIGHT, WIDTH])),
        nir.Flatten(np.array([2, HEIGHT, WIDTH]), 0, -1),
        nir.Linear(np.ones((2, 108)) / 10),
    ]
    foreign = nir.NIRGraph.from_list(*nodes, nir.LIF(one / 50, one, one * 0, one), nir.Output([2]), type_check=False)
    nir.write(tmp_path / "foreign.nir", foreign)
    done = hebbstream("run", tmp_path / "foreign.nir", recording, "--out", tmp_path / "o.npz", code=2)
    assert "give dt_us" in done.stderr
    hebbstream("run", tmp_path / "foreign.nir", recording, "--out", tmp_path / "o.npz", "--dt-us", 20_000)
    with np.load(tmp_path / "o.npz") as found:
        assert len(found["lif.t"]) > 100


def test_a_torn_recording(network: Path, tmp_path: Path) -> None:
    """What was read is run and kept; the exit code says that it was not all."""
    whole = tmp_path / "events.aedat4"
    write(whole, np.concatenate([events()] + [events()[-1:]] * 3000))
    torn = tmp_path / "torn.aedat4"
    torn.write_bytes(whole.read_bytes()[:-2000])
    done = hebbstream("run", network, torn, "--out", tmp_path / "spikes.npz", "--size", f"{WIDTH}x{HEIGHT}", code=1)
    assert "what was read has been run" in done.stderr
    with np.load(tmp_path / "spikes.npz") as found:
        assert set(found) >= {"map.t", "hidden.unit"}


# -- in this process ---------------------------------------------------------------------------------------------------


def played(
    chunks: list[np.ndarray], folder: Path, **options: Any
) -> tuple[tuple[int, int, int], dict[str, np.ndarray]]:
    folder.mkdir(exist_ok=True)
    columns = net.Columns(folder)
    network = Network.of(graph(), precision="float64")
    try:
        span = net.play(network, chunks, columns, **options)
        columns.pack(folder / "out.npz")
    finally:
        columns.close()
    with np.load(folder / "out.npz") as found:
        return span, dict(found)


@given(cuts=st.lists(st.integers(0, 600), max_size=8), every_us=st.sampled_from([37, 100, 1_000, 100_000]))
@settings(max_examples=25)
def test_cuts_change_nothing(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], every_us: int) -> None:
    """Many events share their time with others, and with samples."""
    some = events(600, seed=1, gap_us=3)
    some["t"] = some["t"][0] + (some["t"] - some["t"][0]) // 20 * 20
    parts = np.split(some, sorted(cuts))
    options = {"every_us": every_us, "duration_us": 900}
    folder = tmp_path_factory.mktemp("play")
    (span, found), (span_whole, whole) = played(parts, folder / "a", **options), played([some], folder / "b", **options)
    assert span == span_whole
    assert set(found) == set(whole)
    for name, column in whole.items():
        assert np.array_equal(found[name], column), name


def test_samples_are_the_potentials_at_their_times(tmp_path: Path) -> None:
    some = events(300, seed=2)
    _, found = played([some[:100], some[100:]], tmp_path / "a", every_us=500)
    for k, t_us in enumerate(found["potentials.t"][::5].tolist()):
        network = Network.of(graph(), precision="float64")
        network.run(some[some["t"] <= t_us], t_us)
        for name in ("map", "hidden", "scores"):
            assert np.array_equal(found[f"{name}.v"][5 * k], network.potentials(name))


def test_a_run_goes_on_beyond_the_last_event(tmp_path: Path) -> None:
    some = events(300, seed=2)
    (n, first, last), found = played([some], tmp_path / "a", every_us=1_000, duration_us=1_000_000)
    assert (n, last) == (300, first + 999_999)
    assert len(found["potentials.t"]) == 999
    assert np.abs(found["map.v"][-1]).max() < 1e-9


def test_nothing_to_run(tmp_path: Path) -> None:
    span, found = played([some := events(0), some], tmp_path / "a", every_us=10)
    assert span == (0, 0, 0)
    assert found["map.t"].dtype == np.int64
    assert len(found["hidden.unit"]) == 0


def test_potentials_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "MOST_BYTES", 10_000)
    with pytest.raises(RunError, match="sample less often"):
        played([events(300)], tmp_path / "a", every_us=1)


def test_spikes_of_inputs_that_are_no_sensor(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", t=np.array([3, 1]), unit=np.array([0, 0]))
    for content in (b"", b"PK\x03\x04nothing", (tmp_path / "t.npz").read_bytes()):
        (tmp_path / "x.npz").write_bytes(content)
        with pytest.raises(FormatError):
            net.read_spikes(tmp_path / "x.npz", 4)
    np.savez(tmp_path / "ok.npz", t=np.array([1, 3]), unit=np.array([0, 3], np.uint8))
    assert net.read_spikes(tmp_path / "ok.npz", 4).dtype == SPIKE_DTYPE
