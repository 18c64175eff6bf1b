"""What all tests share."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# the first example of a property may compile kernels, so wall time says nothing
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make the toy members importable here and in the processes that a run starts."""
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TOYS), os.environ.get("PYTHONPATH", "")])))
    return ["toy_members"]


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real recordings, or a skip with the reason."""
    path = Path(os.environ.get("HEBBSTREAM_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").expanduser()
    if not path.is_dir():
        pytest.skip(f"no recordings at {path}; set HEBBSTREAM_DATA")
    return path.resolve()
