"""What all tests share."""

import os
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket of an S3 server on the loopback address, which processes find that start from now on.

    Empty where s3fs or moto is missing.
    """
    try:
        import fsspec
        import s3fs  # noqa: F401 - what fsspec takes for s3://
        from moto.server import ThreadedMotoServer
    except ImportError:
        yield ""
        return
    served = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    with pytest.MonkeyPatch.context() as patched:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "anybody",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patched.setenv(name, value)
        fsspec.filesystem("s3").mkdir("bucket")
        try:
            yield "s3://bucket"
        finally:
            fsspec.filesystem("s3").clear_instance_cache()
            served.stop()
