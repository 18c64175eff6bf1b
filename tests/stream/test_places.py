"""Run directories elsewhere: by URL, in an object store, in fsspec's own memory."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, Message, packet_of
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.places import is_local, place
from stream.record import Recorder, read_recording
from stream.run import resume, run
from stream.snapshot import FINAL, latest, read_snapshot

pytest.importorskip("upath", reason="universal-pathlib is not installed (extra 'cluster')")
N = 20_000


@pytest.fixture(params=["file", "s3"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Places that every process reaches: a folder by URL, and a bucket of an S3 server."""
    if request.param == "file":
        return f"file://{tmp_path}"
    url: str = request.getfixturevalue("bucket")
    if not url:
        pytest.skip("s3fs or moto is not installed (pip install s3fs 'moto[s3,server]')")
    return url


def described(relay: dict[str, Any] | None = None) -> Pipeline:
    pipeline = Pipeline(
        name="toy",
        source=[SourceSpec(name="count", kind="toy_members.Count", params={"n": N}, packet_items=100)],
        operator=[
            OperatorSpec(name="relay", kind="toy_members.Relay", params=relay or {}),
            OperatorSpec(
                name="recorder", kind="stream.record.Recorder", params={"path": "r.hbs", "ports": {"events": "events"}}
            ),
        ],
        edge=[
            EdgeSpec(source="count.events", target="relay.events"),
            EdgeSpec(source="relay.events", target="recorder.events"),
        ],
    )
    pipeline.source[0].speed = 0.05  # a far place takes its time
    pipeline.recovery = msgspec.structs.replace(
        pipeline.recovery, snapshot_every_us=40_000, restarts=1, within_s=3600.0
    )
    return pipeline


def assert_undisturbed(url: str) -> None:
    recording = read_recording(f"{url}/recordings/r.hbs")
    assert recording.torn == ""
    assert recording.items("events")["t"].tolist() == list(range(0, 10 * N, 10))
    relay = read_snapshot(place(f"{url}/snapshots"), FINAL, "relay")
    assert (int(relay["seen"]), int(relay["sum_x"])) == (N, 9 * N // 2)


def test_a_run_directory_on_a_server_survives_kills(server: str, toys: list[str]) -> None:
    """The relay kills its process, twice; then its cause is removed and the run is resumed from the server."""
    url = f"{server}/runs/1"
    with pytest.raises(Exception, match="given up") as caught:
        run(described({"kill_at": N // 2}), plugins=toys, directory=url)
    assert not isinstance(caught.value, ConfigError)
    manifest, refused = latest(place(f"{url}/snapshots"))
    assert manifest is not None
    assert refused == []
    text = place(f"{url}/run.json")
    text.write_bytes(text.read_bytes().replace(b'"kill_at": 10000', b'"kill_at": -1'))
    result = resume(url)
    assert result.resumed_from == manifest.number
    assert_undisturbed(url)
    assert [ledger.items for ledger in result.ledgers] == [(N, N, 0)] * 2
    events = [msgspec.json.decode(line)["event"] for line in place(f"{url}/log.jsonl").read_bytes().splitlines()]
    assert events[0] == "begin"
    assert events.count("restart") == 1
    assert events[-1] == "end"


def test_in_one_process_too(toys: list[str]) -> None:
    url = "memory://runs/2"
    run(described(), processes=False, plugins=toys, directory=url)
    assert_undisturbed(url)
    with pytest.raises(ConfigError, match="holds a run already"):
        run(described(), processes=False, plugins=toys, directory=url)


def test_a_recording_goes_on_where_its_snapshot_was(tmp_path: Path) -> None:
    """Rolled back to any snapshot, as often as one likes, a far recording becomes what a near one does."""

    def nothing(port: str, message: Message) -> None:
        raise AssertionError("a recorder emits nothing")

    def write(recorder: Recorder, first: int, last: int) -> None:
        for k in range(first, last):
            events = np.zeros(5, EVENT_DTYPE)
            events["t"] = k
            recorder.on_packet("a", packet_of(events), nothing)

    near, far = str(tmp_path / "r.hbs"), "memory://far/r.hbs"
    for path in (near, far):
        snapshots = {}
        recorder = Recorder(path=path, ports={"a": "events"})
        for k in range(4):
            write(recorder, k, k + 1)
            snapshots[k] = recorder.snapshot()
            recorder.settle()
        write(recorder, 90, 95)  # what nobody will have seen
        recorder.close()
        for k in (2, 1, 1, 2):
            recorder = Recorder(path=path, ports={"a": "events"})
            recorder.restore(snapshots[k])
            write(recorder, k + 1, k + 2)
            snapshots[k + 1] = recorder.snapshot()
            recorder.settle()
            recorder.close()
        assert read_recording(path).items("a")["t"].tolist() == [k for k in range(4) for _ in range(5)]
    assert place(far).read_bytes() == Path(near).read_bytes()


def test_what_cannot_be_reached_is_told() -> None:
    assert is_local(place("~/runs"))
    assert not is_local(place("memory://runs"))
    with pytest.raises(ConfigError, match="cannot be reached"):
        place("nosuch://there/runs")
