"""Let a pipeline of four processes run for long, and see that nothing grows, shrinks or drifts.

``python -m tests.toys.soak --hours 8`` (in the checkout) is the long one; ``tests/stream/test_faults.py`` runs a short
one. A source at a fixed rate, a lossless edge to a relay and on to a sink, and a live edge to a viewer that is too
slow. Every second: memory of each process, and every counter of every edge.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.run import RunResult, run

RATE_HZ = 100_000  # of ``toy_members.Count``
WARM_S = 5.0  # until caches, windows and histograms are as large as they get
MOST_GROWTH = 16 << 20


def described(seconds: float) -> Pipeline:
    """Describe the pipeline."""
    source = SourceSpec(
        name="count", kind="toy_members.Count", params={"n": round(seconds * RATE_HZ)}, packet_items=1000, speed=1.0
    )
    relays = {"relay": {}, "sink": {}, "viewer": {"sleep_s": 0.05}}
    return Pipeline(
        name="soak",
        source=[source],
        operator=[OperatorSpec(name=name, kind="toy_members.Relay", params=dict(it)) for name, it in relays.items()],
        edge=[
            EdgeSpec(source="count.events", target="relay.events"),
            EdgeSpec(source="relay.events", target="sink.events"),
            EdgeSpec(source="count.events", target="viewer.events", delivery="live"),
        ],
    )


def soak(seconds: float, *, tell: bool = False) -> tuple[RunResult, dict[str, list[int]]]:
    """Run for so long; raises AssertionError when a counter goes back, memory grows or the sums do not agree.

    Returns
    -------
    result, memory
        And resident bytes of each node, once a second after warming up.
    """
    memory: dict[str, list[int]] = {}
    before: dict[tuple[str, str, str], int] = {}
    since: list[float] = []
    told_s = 0.0

    def look(statuses: dict[str, Any], phase: str) -> None:
        nonlocal told_s
        if phase != "running" or not statuses:
            return
        now = time.monotonic()
        since[:] = since or [now]
        for node, status in statuses.items():
            for end in status.edges:
                for name in end.counts.__struct_fields__:
                    value, key = getattr(end.counts, name), (node, end.name, name)
                    assert name == "waiting_messages" or value >= before.get(key, 0), f"{key} went back to {value}"
                    before[key] = value
        if now - since[0] > WARM_S and now - told_s > 1.0:
            told_s = now
            for node, status in statuses.items():
                memory.setdefault(node, []).append(status.memory_bytes)
            if tell:
                words = ", ".join(f"{node} {sizes[-1] / 1e6:.1f} MB" for node, sizes in memory.items())
                print(f"{now - since[0]:.0f} s: {words}", flush=True)

    result = run(described(seconds), plugins=["toy_members"], on_status=look)
    n = round(seconds * RATE_HZ)
    first, second, live = result.ledgers
    assert first.items == second.items == (n, n, 0)
    assert live.items[0] == n
    assert live.items[2] > 0
    assert all(ledger.is_balanced for ledger in result.ledgers)
    assert result.stream_us == n * 10
    assert [result.members[name]["seen"] for name in ("relay", "sink", "viewer")] == [n, n, live.items[1]]
    for node, sizes in memory.items():
        assert max(sizes) - sizes[0] < MOST_GROWTH, f"{node} grew from {sizes[0]:,} to {max(sizes):,} bytes"
    return result, memory


def main() -> None:
    """Run the long one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=8.0)
    toys = str(Path(__file__).parent)
    sys.path.insert(0, toys)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [toys, os.environ.get("PYTHONPATH", "")]))
    result, memory = soak(parser.parse_args().hours * 3600, tell=True)
    for node, sizes in memory.items():
        print(f"{node}: {sizes[0] / 1e6:.1f} to {max(sizes) / 1e6:.1f} MB")
    for ledger in result.ledgers:
        print(f"{ledger.edge}: sent, delivered, dropped {ledger.items}")


if __name__ == "__main__":
    main()
