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
    assert len(first) == 7 + 4 + 7  # shared; two levels asked alone and in turn; alone
    assert {(row["trained"], row["asked"]) for row in first} == {
        ("batch", "batch"),
        ("batch", "alone"),
        ("batch", "in turn"),
        ("alone", "alone"),
    }
    assert run("--modes", "LP,GP", "--trained", "batch,alone")[: len(first)] == first
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
    with pytest.raises(ConfigError, match="holds no train-images"):
        CliRunner().invoke(app, ["eval", "fashion", str(tmp_path / "out"), "-o", str(tmp_path)], catch_exceptions=False)
