"""``hebbstream eval few-shot`` and ``eval continual``: small, whole, and interrupted."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from neurons.graph_file import load_graph
from plasticity.network_learner import NetworkLearner
from stream.__main__ import app
from stream.errors import ConfigError
from stream.evaluate_continual_still import StillRun, pictures


def run(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["eval", *arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 characters of three strokes each, drawn 4 times by a hand that trembles."""
    folder = tmp_path_factory.mktemp("characters")
    rng = np.random.default_rng(1)
    for number in range(24):
        points = rng.uniform(15, 90, (4, 2))
        home = folder / f"alphabet{number % 2}" / f"character{number:02d}"
        home.mkdir(parents=True)
        for copy in range(4):
            picture = Image.new("L", (105, 105), 255)
            line = [tuple(point) for point in points + rng.normal(0, 2, points.shape)]
            ImageDraw.Draw(picture).line(line, fill=0, width=4)
            picture.save(home / f"{copy}.png")
    return folder


def test_few_shot_asks_every_method_and_goes_on_with_the_same_bits(characters: Path, tmp_path: Path) -> None:
    options = ["--quick", "--no-turned", "--ways", "5"]
    first = run("few-shot", str(characters), "-o", str(tmp_path / "a"), *options, "--rounds", "2")
    rows = first["results"]
    assert first["settings"]["test_characters"] == 6
    # six characters of four pictures to ask about: neither 20 ways nor 5 shots
    assert {row["task"] for row in rows} == {"5-way 1-shot"}
    assert {row["method"] for row in rows} == {
        "HP",
        "HP first order",
        "HP fixed rule",
        "LP",
        "GP",
        "GP per episode",
    }
    # without local plasticity a label has no way in: every answer is the first class
    assert all(row["right"] == pytest.approx(0.2) for row in rows if row["method"] == "GP")
    assert all(0.0 <= row["right"] <= 1.0 for row in rows)
    assert (tmp_path / "a" / "results.png").stat().st_size > 1000
    # what was learned is a network that can be taught live
    with np.load(tmp_path / "a" / "HP-first-order-1.npz") as kept:
        weight = kept["weight"]
    path = tmp_path / "a" / "HP-first-order-1.safetensors"
    graph = load_graph(path)
    assert [it.name for it in graph.populations] == ["edges", "shapes", "features", "scores"]
    topologies: list[Any] = [it.topology for it in graph.projections[:3]]
    saved = np.concatenate([np.ravel(it.weight) for it in topologies])
    np.testing.assert_array_equal(saved, weight[: len(saved)])
    learner = NetworkLearner(path=str(path), readout="scores", teach=True, learn=())
    assert learner.inputs["events"].width == 28
    # what was kept after a round goes on as if it had not stopped
    again = run("few-shot", str(characters), "-o", str(tmp_path / "a"), *options, "--rounds", "2")
    assert again == first
    with pytest.raises(ConfigError, match="give another --out"):
        run("few-shot", str(characters), "-o", str(tmp_path / "a"), *options, "--rounds", "3")


def digits(folder: Path, name: str, n: int, seed: int) -> Path:
    """Write n pictures of two kinds, a bar that lies and one that stands, as MNIST's files."""
    rng = np.random.default_rng(seed)
    pictures, labels = np.zeros((n, 28, 28), np.uint8), rng.integers(0, 2, n).astype(np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        at = rng.integers(8, 18)
        if label:
            picture[4:24, at : at + 3] = 255
        else:
            picture[at : at + 3, 4:24] = 255
    path = folder / f"{name}-images-idx3-ubyte.gz"
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(">4I", 0x803, n, 28, 28) + pictures.tobytes())
    with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz", "wb") as file:
        file.write(struct.pack(">2I", 0x801, n) + labels.tobytes())
    return path


def test_continual_learns_tasks_in_turn_and_goes_on(tmp_path: Path) -> None:
    train, test = digits(tmp_path, "train", 64, 1), digits(tmp_path, "t10k", 24, 2)
    options = ["--quick", "-o", str(tmp_path / "out")]
    first = run("continual", str(train), str(test), *options, "--methods", "GP,EWC")
    rows = first["results"]
    gp = [row for row in rows if row["method"] == "GP"]
    assert [(row["after"], row["task known"]) for row in gp] == [(1, True), (2, True), (3, True), (3, False)]
    assert [(row["after"], row["task known"]) for row in rows if row["method"] == "EWC"] == [
        (1, None),
        (2, None),
        (3, None),
    ]
    assert all(len(row["each"]) == row["after"] for row in rows)
    more = run("continual", str(train), str(test), *options, "--methods", "GP,EWC,HP")
    assert more["results"][: len(rows)] == rows
    assert len(more["results"]) == len(rows) + 4
    assert more["results"][-2]["carried"] == pytest.approx(more["results"][-2]["right"], abs=0.2)
    # what was found on the way lies beside the weights: as if it had been stopped right before the end
    (tmp_path / "out" / "results.json").unlink()
    assert run("continual", str(train), str(test), *options, "--methods", "GP,EWC,HP") == more
    with pytest.raises(ConfigError, match="permuted, rotated or still"):
        run("continual", str(train), str(test), *options, "--kind", "shaken")


def test_continual_as_the_authors_have_it(tmp_path: Path) -> None:
    train, test = digits(tmp_path, "train", 2000, 1), digits(tmp_path, "t10k", 200, 2)
    fixed = ["--kind", "still", "--shows", "2000", "--asked", "200", "--hidden", "256,256", "--seeds", "1"]
    options = [*fixed, "--tasks", "3", "--epochs", "6", "-o", str(tmp_path / "out")]
    first = run("continual", str(train), str(test), *options, "--methods", "GP,HP")
    rows = first["results"]
    for method in ("GP", "HP"):
        mine = [row for row in rows if row["method"] == method]
        assert [(row["after"], row["task known"]) for row in mine] == [(1, True), (2, True), (3, True), (3, False)]
        assert mine[2]["right"] > 0.75, mine
    for name in ("alone", "carried", "without rule", "spaced"):  # a rule that has hardly begun changes little
        assert rows[6][name] == pytest.approx(rows[6]["right"], abs=0.1), name
    # weights and moments lie beside the results: as if it had been stopped after the second task
    (tmp_path / "out" / "results.json").unlink()
    half = [*fixed, "--tasks", "3", "--epochs", "6", "-o", str(tmp_path / "half")]
    stopped = StillRun("HP", 1, 3, (256, 256), tmp_path)
    lessons = pictures(train, 2000)
    (tmp_path / "half").mkdir()
    for _ in range(2):
        stopped._path = tmp_path / "half" / "HP-1.npz"
        stopped.learn(stopped.done, lessons, 6, lambda *_: None)
        stopped.ask(pictures(test, 200))
        stopped.keep()
    assert run("continual", str(train), str(test), *half, "--methods", "HP")["results"] == rows[4:]
    with pytest.raises(ConfigError, match="two"):
        run("continual", str(train), str(test), *fixed, "-o", str(tmp_path / "three"), "--hidden", "256,64,64")
    with pytest.raises(ConfigError, match="wanted 100 or more"):
        run("continual", str(train), str(test), *fixed, "-o", str(tmp_path / "few"), "--shows", "60")
    quick = ["--kind", "still", "--quick", "--methods", "naive", "-o", str(tmp_path / "quick")]
    assert run("continual", str(train), str(test), *quick)["results"][0]["right"] > 0.9
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ConfigError, match="no labels beside"):
        run("continual", str(train), str(test), *fixed, "-o", str(tmp_path / "none"))
