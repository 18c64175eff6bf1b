"""``hebbstream eval fashion``: the authors' network, trained, asked, and gone on from."""

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stream.__main__ import app
from stream.errors import ConfigError
from stream.evaluate_fashion import LEVELS, _damaged


def test_it_trains_asks_and_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    centres = rng.integers(0, 256, (10, 28, 28))
    for name, n in (("train", 300), ("t10k", 60)):
        labels = rng.integers(0, 10, n)
        pictures = np.clip(centres[labels] + rng.normal(0, 20, (n, 28, 28)), 0, 255).astype(np.uint8)
        head = struct.pack(">4I", 0x803, n, 28, 28)
        (tmp_path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pictures.tobytes()))
        head = struct.pack(">2I", 0x801, n)
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    arguments = ["eval", "fashion", str(tmp_path), "--out", str(tmp_path / "out"), "--quick", "--json"]

    def run(*more: str) -> list[dict[str, object]]:
        done = CliRunner().invoke(app, [*arguments, *more], catch_exceptions=False)
        assert done.exit_code == 0
        found: list[dict[str, object]] = json.loads(done.stdout[done.stdout.index("{") :])["results"]
        return found

    first = run("--modes", "LP", "--trained", "batch,alone")
    # shared, two levels asked alone and in turn; alone, two levels asked through the operators in both ways
    assert len(first) == 7 + 4 + 7 + 4
    assert {(row["trained"], row["asked"]) for row in first} == {
        ("batch", "batch"),
        ("batch", "alone"),
        ("batch", "in turn"),
        ("alone", "alone"),
        ("alone", "phases"),
        ("alone", "stream"),
    }
    right = {(row["asked"], row["level"]): row["right"] for row in first if row["trained"] == "alone"}
    for level in (0, 6):
        assert right["phases", level] == pytest.approx(right["alone", level], abs=2 / 60)  # rounding may turn one
    # only what is missing is asked, results from before there was a choice of damages are Gaussian noise
    kept = json.loads((tmp_path / "out" / "results.json").read_text())
    for row in kept["results"]:
        del row["damage"]
    (tmp_path / "out" / "results.json").write_text(json.dumps(kept))
    more = run("--modes", "LP,GP", "--trained", "batch,alone", "--damages", "gaussian,crop,speckle")
    assert more[: len(first)] == first
    assert {row["damage"] for row in more} == {"gaussian", "crop", "speckle"}
    assert len(more) == len(first) + 2 * (6 + 7) + (7 + 6 + 7)
    assert (tmp_path / "out" / "results.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="give another --out"):
        run("--steps", "8")
    (tmp_path / "out" / "results.json").unlink()
    (tmp_path / "out" / "LP-batch-1.npz").unlink()
    fewer = run("--modes", "LP", "--steps", "3")
    assert len(fewer) == 7 + 4
    assert fewer != first[: len(fewer)]
    with pytest.raises(ConfigError, match="wanted some of LP, GP, HP"):
        run("--modes", "XP")
    with pytest.raises(ConfigError, match="wanted some of gaussian, crop"):
        run("--damages", "rain")
    with pytest.raises(ConfigError, match="holds no train-images"):
        CliRunner().invoke(app, ["eval", "fashion", str(tmp_path / "out"), "-o", str(tmp_path)], catch_exceptions=False)


def test_damages_are_what_the_authors_count() -> None:
    x = np.full((200, 784), 0.5, np.float32)
    x[:, :100] = 0.0

    def damaged(name: str, level: int) -> np.ndarray:
        out: np.ndarray = _damaged(x, name, level, 1)
        assert out.dtype == np.float32
        assert out.min() >= 0
        assert out.max() <= 1
        np.testing.assert_array_equal(_damaged(x, name, level, 1), out)
        return out

    assert all(damaged(name, 0) is x for name in LEVELS)
    changed = damaged("crop", 3).reshape(-1, 28, 28) != x.reshape(-1, 28, 28)
    assert changed[:, 11:17, 11:17].all()
    assert changed.sum() == 200 * 36
    lit, dark = np.s_[:, 100:], np.s_[:, :100]
    assert np.mean(damaged("salt", 10)[lit] == 1) == pytest.approx(0.1, abs=0.005)
    assert np.mean(damaged("salt", 10)[lit] == 0) == 0
    assert np.mean(damaged("pepper", 10)[lit] == 0) == pytest.approx(0.6, abs=0.005)
    both = damaged("salt+pepper", 10)
    assert np.mean(both[lit] == 1) == pytest.approx(0.1, abs=0.005)
    assert np.mean(both[lit] == 0) == pytest.approx(0.1, abs=0.005)
    assert np.mean(both[dark] == 1) == pytest.approx(0.1, abs=0.007)
    assert np.var(damaged("gaussian", 1)[lit]) == pytest.approx(0.01, rel=0.05)
    speckle = damaged("speckle", 10)
    assert (speckle[dark] == 0).all()
    assert np.mean((speckle[lit] == 0) | (speckle[lit] == 1)) > 0.95
