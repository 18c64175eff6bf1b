"""``hebbstream top``: the runs of this user as live tables, from what they post (``stream.observe``); slows nothing."""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream.observe import Picture, boards
from stream.terminal import duration, si

__all__ = ["draw", "watch"]

NOBODY = "no pipeline of yours is running; start one with hebbstream run PIPELINE.toml"


def draw(picture: Picture, before: Picture | None = None) -> Group:
    """Draw a run.

    Parameters
    ----------
    picture
        As ``stream.observe.picture_of`` makes it.
    before
        An earlier one of the same run, for rates.
    """
    span_s = float(picture["time_s"]) - float(before["time_s"]) if before is not None else 0.0

    def rate(now: float, earlier: float | None) -> str:
        return si((now - earlier) / span_s) if earlier is not None and span_s > 0 else "-"

    head = f"{picture['pipeline']} (process {picture['pid']}): {picture['phase']}, stream time "
    edges = Table(box=None, pad_edge=False)
    for name in ("edge", "items/s", "queue", "dropped", "p50", "p99", "p99.9"):
        edges.add_column(name, justify="left" if name == "edge" else "right", no_wrap=True)
    old_edges = {row["edge"]: row for row in before["edges"]} if before is not None else {}
    for row in picture["edges"]:
        earlier = old_edges.get(row["edge"], {}).get("delivered")
        dropped = row.get("dropped", 0)
        latency = [duration(row[key]) if key in row else "-" for key in ("p50_us", "p99_us", "p999_us")]
        edges.add_row(
            row["edge"],
            rate(row.get("delivered", 0), earlier),
            si(row["queue"]),
            Text(f"{dropped:,}", style="yellow" if dropped else ""),
            *latency,
        )
    nodes = Table(box=None, pad_edge=False)
    for name in ("process", "lag", "processor", "memory"):
        nodes.add_column(name, justify="left" if name == "process" else "right", no_wrap=True)
    old_nodes = {row["node"]: row for row in before["nodes"]} if before is not None else {}
    for row in picture["nodes"]:
        old = old_nodes.get(row["node"])
        share = f"{100 * (row['cpu_s'] - old['cpu_s']) / span_s:.0f} %" if old is not None and span_s > 0 else "-"
        memory = f"{row['memory_bytes'] / 2**20:.0f} MiB" if row["memory_bytes"] else "-"
        nodes.add_row(row["node"], duration(row["lag_us"]), share, memory)
    members = Table(box=None, pad_edge=False, show_header=False)
    for name, counts in picture["members"].items():
        old_counts = (before or {"members": {}})["members"].get(name, {})
        words = [f"{key} {si(value)}" for key, value in counts.items() if value and not key.startswith("of ")]
        words += [
            f"{key} per second {rate(value, old_counts.get(key))}"
            for key, value in counts.items()
            if key == "corrections"
        ]
        members.add_row(Text(name, style="bold"), ", ".join(words))
    return Group(Text(head + duration(picture["stream_us"]), style="bold"), edges, nodes, members)


def watch(
    console: Console,
    *,
    once: bool,
    period_s: float = 1.0,
    look: Callable[[], list[Picture]] = boards,
) -> None:
    """Show all runs until Ctrl-C; or once, with rates over half a second."""
    before = {picture["pid"]: picture for picture in look()}

    def view() -> Any:
        nonlocal before
        pictures = look()
        drawn = [draw(picture, before.get(picture["pid"])) for picture in pictures]
        before = {picture["pid"]: picture for picture in pictures}
        return Group(*drawn) if drawn else Text(NOBODY)

    if once:
        time.sleep(min(period_s, 0.6) if before else 0.0)
        console.print(view())
        return
    with Live(Text(""), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(view(), refresh=True)
            time.sleep(period_s)
