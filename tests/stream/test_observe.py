"""What is seen of a run from outside: metrics, log, board, `hebbstream top`."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from stream.errors import ConfigError
from stream.host import EdgeStatus, Status
from stream.ledger import EdgeCounts, Latency
from stream.observe import Observer, boards, picture_of, prometheus_text
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.top import draw

EDGE = "camera.events -> learner.events"
PIPELINE = Pipeline(
    name="toy",
    source=[SourceSpec(name="camera", kind="x.Y")],
    operator=[OperatorSpec(name="learner", kind="x.Z")],
    edge=[EdgeSpec(source="camera.events", target="learner.events")],
)


def statuses(delivered: int = 900) -> dict[str, Status]:
    latency = Latency()
    for us in (1000.0, 2000.0, 50_000.0):
        latency.add(us)
    sent = EdgeCounts(sent_messages=10, sent_items=1000, dropped_items=50, dropped_messages=1)
    got = EdgeCounts(delivered_messages=8, delivered_items=delivered)
    learner = {"learner": {"corrections": 4.0, 'a "b"': 1.0}}
    return {
        "camera": Status("camera", 5_000_000, {}, [EdgeStatus(EDGE, sent, Latency().percentiles())], 0.1),
        "learner": Status(
            "learner", 4_000_000, learner, [EdgeStatus(EDGE, got, latency.percentiles())], 0.2, memory_bytes=3 << 20
        ),
    }


def test_a_picture_says_what_the_ends_say_together() -> None:
    picture = picture_of(PIPELINE, statuses(), "running")
    (edge,) = picture["edges"]
    assert (edge["sent"], edge["delivered"], edge["dropped"], edge["queue"]) == (1000, 900, 50, 50)
    assert edge["p50_us"] < edge["p99_us"] <= edge["p999_us"]
    assert [node["lag_us"] for node in picture["nodes"]] == [0, 1_000_000]
    json.dumps(picture, allow_nan=False)


def test_the_text_for_prometheus() -> None:
    text = prometheus_text(picture_of(PIPELINE, statuses(), "running"))
    assert f'hebbstream_edge_delivered_items_total{{edge="{EDGE}"}} 900.0\n' in text
    assert 'hebbstream_node_lag_seconds{node="learner"} 1.0\n' in text
    assert 'count="a \\"b\\""' in text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    for line in text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name.partition("{")[0] in families
            float(value)


def test_the_table_of_top_has_rates() -> None:
    before, after = (picture_of(PIPELINE, statuses(n), "running") for n in (900, 1900))
    before["time_s"] = after["time_s"] - 2.0
    before["members"]["learner"]["corrections"] = 1.0
    out = io.StringIO()
    Console(file=out, width=140).print(draw(after, before))
    for words in (EDGE, "500", "p99.9", "corrections per second 1.5", "3 MiB", "1 s", "learner"):
        assert words in out.getvalue()
    Console(file=out, width=140).print(draw(after))  # no rates yet


@pytest.fixture(autouse=True)
def own_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir(mode=0o700)


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return answer.read().decode()


def test_an_observer_serves_logs_and_posts(tmp_path: Path) -> None:
    with Observer(PIPELINE, metrics=0, log=tmp_path / "log.jsonl") as observer:
        observer(statuses(), "running")
        assert f'{{edge="{EDGE}"}} 900.0' in get(observer.address)
        assert json.loads(get(observer.address.replace("metrics", "status.json")))["phase"] == "running"
        with pytest.raises(urllib.error.HTTPError):
            get(observer.address.replace("metrics", "../../etc/passwd"))
        port = int(observer.address.split(":")[2].split("/")[0])
        for rubbish in (b"\x00" * 100, b"GET " + b"x" * 70_000, b"POST /metrics HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as scanner:
                scanner.sendall(rubbish)
        assert "900.0" in get(observer.address)
        (board,) = boards()
        assert board["pid"] == os.getpid()
        with pytest.raises(ConfigError, match="cannot listen there"):
            Observer(PIPELINE, metrics=port)
    assert boards() == []
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "status"


def test_the_board_of_a_killed_run_is_cleared_away(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (tmp_path / f"{done.pid}.json").write_text("{}")
    (tmp_path / "1.json").write_text("rubbish")
    assert boards(tmp_path) == []
    assert not (tmp_path / f"{done.pid}.json").exists()


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Observer(PIPELINE, log=tmp_path)


def test_a_run_can_be_watched_from_another_terminal(tmp_path: Path, toys: list[str]) -> None:
    path = tmp_path / "p.toml"
    path.write_text("""
name = "toy"
[[source]]
name = "count"
kind = "toy_members.Count"
params = { endless = true }
speed = 1.0
[[operator]]
name = "relay"
kind = "toy_members.Relay"
[[edge]]
from = "count.events"
to = "relay.events"
delivery = "live"
policy = "sample"
max_count = 8
max_age_ms = 50
""")
    base = [sys.executable, "-P", "-m", "stream"]
    options = ["--metrics", "0", "--log", f"{tmp_path}/log", "--summary", f"{tmp_path}/sum.json", "--json", "--quiet"]
    run = subprocess.Popen(
        [*base, "run", str(path), "--plugin", "toy_members", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stderr is not None
        address = run.stderr.readline().rpartition(" ")[2].strip()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not ((seen := boards()) and seen[0]["nodes"]):
            time.sleep(0.1)
        text = get(address)
        assert 'hebbstream_edge_delivered_items_total{edge="count.events -> relay.events"}' in text
        top = subprocess.run([*base, "top", "--once"], capture_output=True, text=True, timeout=30, check=True)
        assert "count.events -> relay.events" in top.stdout
        as_json = subprocess.run([*base, "top", "--json"], capture_output=True, text=True, timeout=30, check=True)
        assert json.loads(as_json.stdout)[0]["pipeline"] == "toy"
    finally:
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert run.returncode == 0, err
    summary = json.loads((tmp_path / "sum.json").read_text())
    assert summary["ledger"] == json.loads(out)["ledger"]
    assert all(ledger["balanced"] for ledger in summary["ledger"])
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["event"] for line in lines][-1] == "end"
    assert boards() == []
