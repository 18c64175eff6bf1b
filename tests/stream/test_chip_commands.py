"""``hebbstream chip``: compile, run, report and compare, as a user types them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from sources.atis_bin import write_atis_bin
from stream.__main__ import app
from stream.errors import CapacityError, ConfigError, FormatError
from stream.packet import EVENT_DTYPE

WIDTH, HEIGHT = 8, 6


def hebbstream(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["chip", *map(str, arguments)], catch_exceptions=True)
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
