"""Recordings for the tests of the sources."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sources.atis_bin import write_atis_bin
from stream.packet import EVENT_DTYPE

DATA = Path(os.environ.get("HEBBSTREAM_DATA") or Path(__file__).parents[3] / "shared" / "data")


def manifest():
    """Return the described files, or none where the recordings are not there."""
    path = DATA / "MANIFEST.json"
    return json.loads(path.read_text())["files"] if path.is_file() else []


@pytest.fixture(scope="session")
def data():
    if not (DATA / "MANIFEST.json").is_file():
        pytest.skip(f"no recordings at {DATA}: set HEBBSTREAM_DATA to their folder")
    return DATA


@pytest.fixture
def labelled(tmp_path):
    """Make a folder of seven small recordings of three labels, and one that is damaged."""
    rng = np.random.default_rng(5)
    for label, n_recordings in ((0, 3), (1, 2), (4, 2)):
        home = tmp_path / "set" / str(label)
        home.mkdir(parents=True)
        for index in range(n_recordings):
            n = int(rng.integers(1, 40))
            events = np.zeros(n, EVENT_DTYPE)
            events["t"] = np.sort(rng.integers(500, 3000, n))
            events["x"], events["y"], events["p"] = rng.integers(0, 34, n), label, rng.integers(0, 2, n)
            write_atis_bin(home / f"{index:03d}.bin", events)
    torn = tmp_path / "set" / "4" / "000.bin"
    torn.write_bytes(torn.read_bytes() + b"\x01\x02")
    return tmp_path / "set"
