"""``hebbstream chip``: compile, run, report and compare, as a user types them."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from neurons.activation import ActivationUnits
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.threshold import ThresholdUnits
from sources.atis_bin import write_atis_bin
from sources.event_file import read_events
from stream.__main__ import app
from stream.errors import CapacityError, ConfigError, FormatError
from stream.packet import EVENT_DTYPE

WIDTH, HEIGHT = 8, 6


def hebbstream(*arguments: object, group: str = "chip") -> str:
    done = CliRunner().invoke(app, [group, *map(str, arguments)], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record six noisy bars, three on the left, three on the right; and a network that tells them apart."""
    here = tmp_path_factory.mktemp("chip")
    rng = np.random.default_rng(0)
    for k in range(6):
        events = np.zeros(400, EVENT_DTYPE)
        events["t"] = np.sort(rng.integers(0, 60_000, 400)) + 1000
        side = k % 2
        events["x"] = rng.integers(0, 4, 400) + 4 * side
        events["y"], events["p"] = rng.integers(0, HEIGHT, 400), rng.integers(0, 2, 400)
        path = here / "recordings" / str(side) / f"{k}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atis_bin(path, events)
    sides = np.zeros((3, 4, 4, 2))
    sides[:, :2, :, 0] = sides[:, 2:, :, 1] = 0.2
    graph = Graph(
        (HEIGHT, WIDTH, 2),
        [
            Population("map", LIFUnits(tau_mem_us=10_000.0), (3, 4, 4)),
            Population("scores", LeakyIntegratorUnits(), (2,)),
        ],
        [
            Projection(INPUT, "map", Convolution(rng.normal(0.3, 0.05, (2, 2, 2, 4)), (2, 2))),
            Projection("map", "scores", Dense(sides.reshape(48, 2))),
        ],
    )
    save_graph(here / "net.safetensors", graph)
    return here


@pytest.fixture(scope="module")
def program(folder: Path) -> Path:
    out = folder / "bars.prog"
    told: dict[str, Any] = json.loads(
        hebbstream("compile", folder / "net.safetensors", "-o", out, "--calibrate", folder / "recordings", "--json")
    )
    assert told["expected"] == {"agreement": 1.0, "accuracy": 1.0, "float_accuracy": 1.0}
    assert told["measured"]["recordings"] == 6
    assert {layer["layer"] for layer in told["layers"]} == {"map", "scores"}
    assert {constant["name"] for constant in told["constants"]} >= {"clock_hz", "core_power_low_mw"}
    assert all(constant["source"] and constant["confidence"] for constant in told["constants"])
    return out


def test_run(folder: Path, program: Path, tmp_path: Path) -> None:
    for side in (0, 1):
        for recording in sorted((folder / "recordings" / str(side)).iterdir()):
            told = json.loads(hebbstream("run", program, recording, "--json", "--out", tmp_path / "out.npz"))
            assert told["answer"] == side
            assert told["events"] == 400
            assert told["synaptic_ops"] > 0
            assert 60 <= told["phases"] <= 63
            with np.load(tmp_path / "out.npz") as archive:
                assert len(archive["map.t"]) == told["spikes"]["map"] > 50
                assert archive["map.unit"].max() < 48
    words = hebbstream("run", program, recording)
    assert "answer 1" in words
    assert "synaptic ops" in words


def test_report(program: Path, folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "grid.png"
    words = hebbstream("report", program, "--picture", picture)
    assert "6 recordings of recordings" in words
    assert "same class as the float network: 100.0 %" in words
    assert picture.read_bytes()[:4] == b"\x89PNG"
    told = json.loads(hebbstream("report", program, "--json", "--events", folder / "recordings" / "0" / "0.bin"))
    assert told["measured"]["recordings"] == 1
    assert told["folding"]["why_not"].startswith("map: keeps potentials")
    assert told["folding"]["semi_folded"] is None
    assert told["folding"]["unfolded"]["per_frame"]["packets"] > 0
    assert sum(core["synaptic_ops"] for core in told["core_list"]) == told["measured"]["synaptic_ops"]
    # without recordings: some input is assumed, and the report says so
    plain = tmp_path / "plain.prog"
    hebbstream("compile", folder / "net.safetensors", "-o", plain, "-p", "tianjicx")
    assert "assumed input, 20 Hz on every line" in hebbstream("report", plain)


def test_compare(program: Path, folder: Path) -> None:
    told = json.loads(hebbstream("compare", program, folder / "net.safetensors", folder / "recordings", "--json"))
    assert told["same_class_as_float_in_phases"] == told["same_class_as_float_by_events"] == 1.0
    assert told["right_on_chip"] == told["right_in_floats_in_phases"] == 1.0
    assert told["accuracy_loss_points"] == 0.0
    assert "same class as the float network in phases: 100.0 %" in hebbstream(
        "compare", program, folder / "net.safetensors", folder / "recordings", "--limit", 2
    )


def test_what_does_not_fit_is_said(program: Path, folder: Path, tmp_path: Path) -> None:
    net = folder / "net.safetensors"
    with pytest.raises(ConfigError, match="tianjic-2019 needs 17 us or more"):
        hebbstream("compile", net, "-o", tmp_path / "x", "--phase-us", 10)
    with pytest.raises(ConfigError, match="wanted a file in a folder"):
        hebbstream("compile", net, "-o", tmp_path)
    with pytest.raises(FormatError, match="no 'hebbstream-program' in its metadata"):
        hebbstream("report", net)
    with pytest.raises(FormatError, match="not there"):
        hebbstream("run", tmp_path / "none.prog", "x")
    wide = Graph(
        (40_000,),
        [Population("wide", LIFUnits(), (10,)), Population("scores", LeakyIntegratorUnits(), (2,))],
        [Projection(INPUT, "wide", Dense(np.ones((40_000, 10), np.float32))),
         Projection("wide", "scores", Dense(np.ones((10, 2))))],
    )  # fmt: skip
    save_graph(tmp_path / "wide.safetensors", wide)
    with pytest.raises(CapacityError, match="wide: does not fit, the network takes"):
        hebbstream("compile", tmp_path / "wide.safetensors", "-o", tmp_path / "x")


# -- from NIR ----------------------------------------------------------------------------------------------------------


def nir_network(kind: str, unit: str) -> Any:
    """Make a network with NIR's own package: maps through a pool to a line; or a line that speaks to itself."""
    nir = pytest.importorskip("nir", reason="needs the package nir (pip install 'hebbstream[nir]')")
    rng = np.random.default_rng(2)

    def units(*shape: int) -> Any:
        ones = np.ones(shape)
        if unit == "IF":
            return nir.IF(1000.0 * ones, ones)  # a spike of weight 1, a step of 1 ms long, lifts by 1
        # tau 8 ms and steps of 1 ms by Euler: 7/8 of a potential is left, which the chip has to the bit
        return nir.LIF(0.008 * ones, 8.0 * ones, 0.0 * ones, ones, 0.0 * ones)

    def weights(mean: float, *shape: int) -> Any:
        whole = np.clip(np.rint(rng.normal(mean, 0.3, shape) * 64), -127, 127)
        whole.flat[0] = 127.0  # on the grid of 8 bits: nothing is rounded
        return whole / 64

    nodes = {"input": nir.Input({"input": np.array([2, HEIGHT, WIDTH])})}
    if kind == "maps":
        n_maps = 4
        nodes |= {
            "conv": nir.Conv2d((HEIGHT, WIDTH), weights(0.2, n_maps, 2, 3, 3), 1, 0, 1, 1, np.zeros(n_maps)),
            "maps": units(n_maps, 4, 6),
            "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "scale": nir.Scale(np.full((n_maps, 2, 3), 0.5)),
            "pooled": units(n_maps, 2, 3),
            "flat": nir.Flatten({"input": np.array([n_maps, 2, 3])}, 0, -1),
            "dense": nir.Affine(weights(0.15, 5, n_maps * 6), np.zeros(5)),
        }
    else:
        nodes |= {
            "flat": nir.Flatten({"input": np.array([2, HEIGHT, WIDTH])}, 0, -1),
            "dense": nir.Linear(weights(0.1, 5, 2 * HEIGHT * WIDTH)),
        }
    nodes |= {"line": units(5), "output": nir.Output({"output": np.array([5])})}
    names = list(nodes)
    edges = list(itertools.pairwise(names))
    if kind == "recurrent":
        nodes["back"] = nir.Linear(weights(-0.1, 5, 5))
        edges += [("line", "back"), ("back", "line")]
    return nir, nir.NIRGraph(nodes, edges, type_check=False)


def once_a_phase(seed: int) -> Any:
    """Make noise in which no line has two events in a phase: an axon of the chip would hold them as one."""
    rng = np.random.default_rng(seed)
    busy = rng.random((60, HEIGHT, WIDTH, 2)) < 0.06
    busy[0, 0, 0, 0] = True
    events = np.zeros(int(busy.sum()), EVENT_DTYPE)
    phase, events["y"], events["x"], events["p"] = np.nonzero(busy)
    events["t"] = 1000 * phase
    events["t"][1:] += rng.integers(0, 1000, len(events) - 1)
    return np.sort(events, order="t")


@pytest.mark.parametrize("unit", ["IF", "LIF"])
@pytest.mark.parametrize("kind", ["maps", "recurrent"])
def test_a_nir_file_fires_on_the_chip_as_in_phases(folder: Path, tmp_path: Path, kind: str, unit: str) -> None:
    nir, graph = nir_network(kind, unit)
    path, prog = tmp_path / "net.nir", tmp_path / "net.prog"
    nir.write(path, graph)
    assert path.read_bytes()[1:4] == b"HDF"
    how = ("--dt-us", 1000, "--step", "euler", "--reset", "soft")
    told = json.loads(hebbstream("compile", path, "-o", prog, *how, "--calibrate", folder / "recordings", "--json"))
    layers = {layer["layer"] for layer in told["layers"]}
    assert layers == ({"maps", "pooled", "line"} if kind == "maps" else {"line"})
    n_both = n_chip = n_float = 0
    for seed in range(4):
        recording = tmp_path / f"{seed}.bin"
        write_atis_bin(recording, once_a_phase(seed))
        ran = json.loads(hebbstream("run", prog, recording, "--json", "--out", tmp_path / "chip.npz"))
        run = ("run", path, recording, "--out", tmp_path / "float.npz", "--discipline", "phase", "--duration", 0.08)
        hebbstream(*run, "--phase-us", 1000, "--size", f"{WIDTH}x{HEIGHT}", *how, group="net")
        with np.load(tmp_path / "chip.npz") as chip, np.load(tmp_path / "float.npz") as floats:
            mine, theirs = (
                set(zip(it["line.t"].tolist(), it["line.unit"].tolist(), strict=True)) for it in (chip, floats)
            )
        theirs = {(t, k) for t, k in theirs if t <= 1000 * ran["phases"]}  # the other one was told to go on
        n_both, n_chip, n_float = n_both + len(mine & theirs), n_chip + len(mine), n_float + len(theirs)
    assert n_float > 300
    # the very phase and unit: of whole numbers every one; leaks are floored, and what is near a threshold may differ
    assert 2 * n_both >= (1.0 if unit == "IF" else 0.9) * (n_chip + n_float), (n_both, n_chip, n_float)


# -- semi-folded -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def memoryless(folder: Path) -> Path:
    """Make a network that can be folded, and tells the two sides apart."""
    rng = np.random.default_rng(3)
    sides = np.zeros((4, 6, 6, 2))
    sides[:, :3, :, 0] = sides[:, 3:, :, 1] = 0.2
    graph = Graph(
        (HEIGHT, WIDTH, 2),
        [
            Population("map", ThresholdUnits(0.5), (4, 6, 6)),
            Population("scores", LeakyIntegratorUnits(), (2,)),
        ],
        [
            Projection(INPUT, "map", Convolution(rng.normal(0.3, 0.1, (3, 3, 2, 6)))),
            Projection("map", "scores", Dense(sides.reshape(144, 2))),
        ],
    )
    save_graph(folder / "memoryless.safetensors", graph)
    return folder / "memoryless.safetensors"


def test_semi_folded_it_says_the_same_and_the_trade_is_told(folder: Path, memoryless: Path, tmp_path: Path) -> None:
    told = {}
    for kind, options in (("folded", ["--fold"]), ("unfolded", [])):
        out = tmp_path / f"{kind}.prog"
        words = hebbstream("compile", memoryless, "-o", out, "--calibrate", folder / "recordings", "--json", *options)
        told[kind] = json.loads(words)
        assert told[kind]["expected"] == {"agreement": 1.0, "accuracy": 1.0, "float_accuracy": 1.0}
    folding = told["folded"]["folding"]
    assert told["folded"]["semi_folded"]
    assert not told["unfolded"]["semi_folded"]
    assert told["folded"]["phases_per_frame"] == folding["semi_folded"]["phases_per_frame"] == HEIGHT
    assert told["folded"]["cores"] == folding["semi_folded"]["cores"]
    assert told["unfolded"]["cores"] == folding["unfolded"]["cores"]
    # both say what both take: the trade of one is that of the other
    assert told["unfolded"]["folding"] == folding
    for form in (folding["unfolded"], folding["semi_folded"]):
        assert set(form["per_frame"]) == {"packets", "hops", "synaptic_ops", "energy_uj"}
    assert folding["unfolded"]["most_frames_per_s"] == pytest.approx(
        HEIGHT * folding["semi_folded"]["most_frames_per_s"]
    )
    # what the report of a file says without running anything is what was measured when it was compiled
    again = json.loads(hebbstream("report", tmp_path / "folded.prog", "--json"))
    assert again["folding"] == folding
    assert again["estimates"]["latency_us"] < 3000 < told["unfolded"]["estimates"]["latency_us"] + 2000
    words = hebbstream("report", tmp_path / "folded.prog")
    for part in ("semi-folded (this program)", "phases a frame", "packets a frame", "frames a second at most"):
        assert part in words
    for recording in sorted((folder / "recordings").glob("*/*.bin")):
        found = {}
        for kind in told:
            words = hebbstream("run", tmp_path / f"{kind}.prog", recording, "--json", "--out", tmp_path / f"{kind}.npz")
            found[kind] = json.loads(words)
        assert found["folded"]["answer"] == found["unfolded"]["answer"] == int(recording.parent.name)
        first_us = int(read_events(recording, width=WIDTH, height=HEIGHT).events["t"][0])
        with np.load(tmp_path / "folded.npz") as folded, np.load(tmp_path / "unfolded.npz") as unfolded:
            assert len(unfolded["map.t"]) > 50
            # unfolded, a spike comes with the end of its frame; semi-folded its row is out a frame later at most
            frames = [(folded["map.t"] - first_us - 1) // 1000 - 1, (unfolded["map.t"] - first_us - 1) // 1000]
            units = [folded["map.unit"], unfolded["map.unit"]]
            sets = [sorted(zip(f.tolist(), u.tolist(), strict=True)) for f, u in zip(frames, units, strict=True)]
            assert sets[0] == sets[1]
    told_both = [
        json.loads(hebbstream("compare", tmp_path / f"{kind}.prog", memoryless, folder / "recordings", "--json"))
        for kind in told
    ]
    for it in told_both:
        assert it["same_class_as_float_in_phases"] == it["right_on_chip"] == 1.0
    assert told_both[0]["cores"] == told["folded"]["cores"]


def test_what_cannot_be_folded_is_named(folder: Path, memoryless: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="map: keeps potentials, and semi-folded"):
        hebbstream("compile", folder / "net.safetensors", "--fold", "-o", tmp_path / "x")
    with pytest.raises(CapacityError, match="a frame of 50 us: semi-folded it takes 6 phases"):
        hebbstream("compile", memoryless, "--fold", "-o", tmp_path / "x", "--phase-us", 50)


def test_artificial_units_are_compared_in_phases(folder: Path, tmp_path: Path) -> None:
    """Values exist in phases only: so there is no figure by events, folded or not."""
    rng = np.random.default_rng(4)
    sides = np.zeros((4, 6, 6, 2))
    sides[:, :3, :, 0] = sides[:, 3:, :, 1] = 0.2
    graph = Graph(
        (HEIGHT, WIDTH, 2),
        [
            Population("map", ActivationUnits("relu"), (4, 6, 6)),
            Population("scores", ActivationUnits("identity"), (2,)),
        ],
        [
            Projection(INPUT, "map", Convolution(rng.normal(0.3, 0.1, (3, 3, 2, 6)))),
            Projection("map", "scores", Dense(sides.reshape(144, 2))),
        ],
    )
    net = tmp_path / "artificial.safetensors"
    save_graph(net, graph)
    for options in ([], ["--fold"]):
        hebbstream("compile", net, "-o", tmp_path / "a.prog", "--calibrate", folder / "recordings", *options)
        told = json.loads(hebbstream("compare", tmp_path / "a.prog", net, folder / "recordings", "--json"))
        assert told["same_class_as_float_in_phases"] == told["right_on_chip"] == 1.0
        assert told["same_class_as_float_by_events"] is None
        words = hebbstream("compare", tmp_path / "a.prog", net, folder / "recordings")
        assert "by events" not in words
