"""What a running pipeline shows in the terminal: progress, rates, latency and losses per edge."""

import time
from collections import deque

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stream.host import Status
from stream.keys import HELP, Keys
from stream.ledger import Ledger
from stream.pipeline import Pipeline
from stream.run import RunResult

__all__ = ["StatusView", "counts_line", "duration", "ledger_table", "si"]

RATE_WINDOW_S = 2.0


def si(value: float) -> str:
    """Write a number short: ``1.2 k``, ``3.4 M``, ``17``."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {letter}"
    return f"{value:.3g}"


def duration(us: float) -> str:
    """Write a time short: ``850 us``, ``3.2 ms``, ``1.5 s``, ``12 min``."""
    for factor, unit in ((60e6, "min"), (1e6, "s"), (1e3, "ms")):
        if us >= factor:
            return f"{us / factor:.3g} {unit}"
    return f"{us:.0f} us"


def ledger_table(ledgers: list[Ledger], result: RunResult | None = None) -> Table:
    """Draw the ledger: sent = delivered + dropped, edge by edge."""
    table = Table(title="ledger: sent = delivered + dropped", title_justify="left", title_style="bold", box=SIMPLE)
    for name in ("edge", "sent", "delivered", "dropped", "p50", "p99", ""):
        table.add_column(name, justify="left" if name == "edge" else "right", no_wrap=True, min_width=6)
    for ledger in ledgers:
        latency = result.latency.get(ledger.edge) if result is not None else None
        sent, delivered, dropped = ledger.items
        table.add_row(
            ledger.edge + (" (live)" if ledger.delivery == "live" else ""),
            f"{sent:,}",
            f"{delivered:,}",
            Text(f"{dropped:,}", style="yellow" if dropped else ""),
            duration(latency.p50_us) if latency else "-",
            duration(latency.p99_us) if latency else "-",
            Text("exact", style="green") if ledger.is_balanced else Text("NOT BALANCED", style="bold red"),
        )
    return table


def counts_line(counts: dict[str, float]) -> str:
    """Write a member's counts in one line; what never happened is left out."""
    return ", ".join(f"{key} {si(value)}" for key, value in counts.items() if value and not key.startswith("of "))


class StatusView:
    """A live table on a terminal; a line every few seconds where the output is no terminal.

    Parameters
    ----------
    pipeline
        What runs; its order is that of the rows.
    console
        Where to draw.
    keys
        What the person can press, for the last line.
    quiet
        Draw nothing.
    """

    def __init__(self, pipeline: Pipeline, console: Console, keys: Keys | None = None, *, quiet: bool = False) -> None:
        self.name, self.console, self.keys, self.quiet = pipeline.name, console, keys, quiet
        self._edges = [edge.name for edge in pipeline.edge]
        self._members = [member.name for member in pipeline.members]
        self._start_s = time.monotonic()
        self._history: dict[str, deque[tuple[float, int]]] = {}
        self._next_line_s = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "StatusView":
        if not self.quiet and self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live.is_started:
            self._live.stop()

    def __call__(self, statuses: dict[str, Status], phase: str) -> None:
        """Show a status; an ``OnStatus`` for ``stream.run.run``."""
        if self.quiet:
            return
        if self._live.is_started:
            self._live.update(self._draw(statuses, phase), refresh=True)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + 5.0
            self.console.print(self._line(statuses, phase), highlight=False)

    def _line(self, statuses: dict[str, Status], phase: str) -> str:
        elapsed_s = time.monotonic() - self._start_s
        stream_us = max((status.stream_us for status in statuses.values()), default=0)
        words = [f"{self.name}: {_phase_words(phase)}, {elapsed_s:.0f} s"]
        if phase == "running":
            words.append(f"stream time {duration(stream_us)}")
            words += [f"{done:.0f}/{total:.0f}" for _, done, total in _progress(statuses)]
        return ", ".join(words)

    def _draw(self, statuses: dict[str, Status], phase: str) -> Group:
        parts: list[object] = [Text(self._line(statuses, phase), style="bold")]
        for name, done, total in _progress(statuses):
            bar = Table.grid(padding=(0, 1))
            bar.add_row(name, ProgressBar(total=total, completed=done, width=40), f"{done:.0f} of {total:.0f}")
            parts.append(bar)
        edges = Table(box=None, pad_edge=False)
        for column in ("edge", "items/s", "delivered", "in flight", "dropped", "p50", "p99"):
            edges.add_column(column, justify="left" if column == "edge" else "right", no_wrap=True)
        ends = [end for status in statuses.values() for end in status.edges]
        for name in self._edges:
            both = [end for end in ends if end.name == name]
            if not both:
                continue
            sent = max(end.counts.sent_items for end in both)
            delivered = max(end.counts.delivered_items for end in both)
            lost = max(end.counts.dropped_items for end in both)
            latency = max((end.latency for end in both), key=lambda latency: latency.count)
            edges.add_row(
                name,
                si(self._rate(name, delivered)),
                f"{delivered:,}",
                f"{max(0, sent - delivered - lost):,}",
                Text(f"{lost:,}", style="yellow" if lost else ""),
                duration(latency.p50_us) if latency.count else "-",
                duration(latency.p99_us) if latency.count else "-",
            )
        if edges.row_count:
            parts.append(edges)
        members = Table(box=None, pad_edge=False, show_header=False)
        statistics = {name: counts for status in statuses.values() for name, counts in status.members.items()}
        for name in self._members:
            if name in statistics:
                members.add_row(Text(name, style="bold"), counts_line(statistics[name]))
        parts.append(members)
        if self.keys is not None:
            parts.append(Text(self.keys.words(), style="yellow" if self.keys.is_paused else "dim"))
        parts.append(Text(HELP if self.keys is not None else "Ctrl-C stops and shows the ledger", style="dim"))
        return Group(*parts)  # type: ignore[arg-type] # a list of one kind is narrower than the union

    def _rate(self, edge: str, delivered: int) -> float:
        history = self._history.setdefault(edge, deque())
        now = time.monotonic()
        history.append((now, delivered))
        while history[0][0] < now - RATE_WINDOW_S:
            history.popleft()
        span_s = now - history[0][0]
        return (delivered - history[0][1]) / span_s if span_s > 0 else 0.0


def _phase_words(phase: str) -> str:
    words = {"compiling": "compiling kernels (the first run takes a few minutes, later ones a second)"}
    return words.get(phase, phase)


def _progress(statuses: dict[str, Status]) -> list[tuple[str, float, float]]:
    """Members that count something beside the number there will be: ``recordings`` beside ``of recordings``."""
    return [
        (f"{name}: {key[3:]}", statistics.get(key[3:], 0.0), total)
        for status in statuses.values()
        for name, statistics in status.members.items()
        for key, total in statistics.items()
        if key.startswith("of ") and total
    ]
