"""What people see: the live table, the ledger, the lines of a log."""

import io

from rich.console import Console

from stream.host import EdgeStatus, Status
from stream.ledger import EdgeCounts, Latency, Ledger
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.terminal import StatusView, counts_line, duration, ledger_table, si

PIPELINE = Pipeline(
    name="toy",
    source=[SourceSpec(name="camera", kind="a.B")],
    operator=[OperatorSpec(name="learner", kind="a.B")],
    edge=[EdgeSpec(source="camera.events", target="learner.events")],
)


def statuses() -> dict[str, Status]:
    latency = Latency()
    for us in (1000.0, 2000.0, 50_000.0):
        latency.add(us)
    edge = "camera.events -> learner.events"
    sent = EdgeCounts(sent_messages=10, sent_items=1000, dropped_items=50, dropped_messages=1)
    got = EdgeCounts(delivered_messages=8, delivered_items=900)
    none = Latency().percentiles()
    return {
        "camera": Status(
            "camera",
            5_000_000,
            {"camera": {"recordings": 3.0, "of recordings": 12.0, "damaged": 0.0}},
            [EdgeStatus(edge, sent, none)],
            0.1,
        ),
        "learner": Status(
            "learner", 4_000_000, {"learner": {"accuracy": 0.75}}, [EdgeStatus(edge, got, latency.percentiles())], 0.1
        ),
    }


def shown(*, terminal: bool) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, height=40)
    with StatusView(PIPELINE, console) as view:
        view(statuses(), "running")
    return out.getvalue()


def test_the_live_table_shows_progress_rates_losses_and_latency() -> None:
    text = shown(terminal=True)
    for words in ("camera.events -> learner.events", "3 of 12", "900", "50", " ms", "accuracy 0.75", "Ctrl-C stops"):
        assert words in text
    assert "damaged" not in text  # what never happened is left out


def test_a_log_gets_lines() -> None:
    assert shown(terminal=False).strip() == "toy: running, 0 s, stream time 5 s, 3/12"


def test_quiet_is_quiet() -> None:
    out = io.StringIO()
    with StatusView(PIPELINE, Console(file=out), quiet=True) as view:
        view(statuses(), "running")
    assert out.getvalue() == ""


def test_the_ledger_says_when_it_does_not_come_out() -> None:
    good = Ledger("a -> b", "live", (5, 4, 1), (50, 40, 10), 0, 0)
    bad = Ledger("b -> c", "lossless", (5, 4, 0), (50, 40, 0), 0, 0)
    out = io.StringIO()
    Console(file=out, width=120).print(ledger_table([good, bad]))
    lines = out.getvalue().splitlines()
    assert any("a -> b (live)" in line and "exact" in line for line in lines)
    assert any("b -> c" in line and "NOT BALANCED" in line for line in lines)


def test_numbers_for_people() -> None:
    assert [si(value) for value in (0.5, 17, 1234, 5.6e6, 7.8e9)] == ["0.5", "17", "1.23 k", "5.6 M", "7.8 G"]
    assert [duration(us) for us in (850, 3200, 1.5e6, 72e7)] == ["850 us", "3.2 ms", "1.5 s", "12 min"]
    assert counts_line({"a": 1.0, "b": 0.0, "of a": 9.0}) == "a 1"


def test_latency_percentiles_are_within_a_bucket() -> None:
    latency = Latency()
    for us in range(1, 10_001):
        latency.add(float(us))
    found = latency.percentiles()
    assert abs(found.p50_us / 5000 - 1) < 0.02
    assert abs(found.p99_us / 9900 - 1) < 0.02
    assert found.max_us == 10_000
    assert Latency().percentiles().count == 0
