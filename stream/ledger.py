"""What went over an edge: the ledger (sent = delivered + dropped) and how long it took."""

import math
from typing import NamedTuple

import msgspec
import numpy as np

__all__ = ["EdgeCounts", "Latency", "LatencyPercentiles", "Ledger"]


class EdgeCounts(msgspec.Struct):
    """Running counts of one end of an edge. The sender keeps sent and dropped, the receiver delivered and refused."""

    sent_messages: int = 0
    sent_items: int = 0
    dropped_messages: int = 0
    dropped_items: int = 0
    delivered_messages: int = 0
    delivered_items: int = 0
    refused_messages: int = 0  # from peers that are not ours: not part of the stream, so not part of the balance
    waiting_messages: int = 0  # at the sender, of a `live` edge, at this moment
    bytes: int = 0  # through the socket; payloads in shared memory are not among them


class Ledger(NamedTuple):
    """The account of one edge. Items are events, spikes, ...; messages are packets and marks."""

    edge: str
    delivery: str
    messages: tuple[int, int, int]  # sent, delivered, dropped
    items: tuple[int, int, int]  # sent, delivered, dropped
    refused: int
    bytes: int

    @property
    def is_balanced(self) -> bool:
        """Sent = delivered + dropped, for messages and for items."""
        return all(sent == delivered + dropped for sent, delivered, dropped in (self.messages, self.items))


class LatencyPercentiles(msgspec.Struct, frozen=True):
    """Percentiles in microseconds; zeros when nothing was measured."""

    count: int
    p50_us: float
    p99_us: float
    max_us: float
    p999_us: float = 0.0


class Latency:
    """A histogram of times with 2 % wide logarithmic buckets from 1 us to 1000 s: bounded memory, no samples kept."""

    WIDTH = math.log(1.02)
    BUCKETS = math.ceil(math.log(1e9) / WIDTH)

    def __init__(self) -> None:
        self.counts = np.zeros(self.BUCKETS + 1, np.int64)
        self.max_us = 0.0

    def add(self, us: float) -> None:
        """Count one time."""
        self.max_us = max(self.max_us, us)
        self.counts[min(self.BUCKETS, int(math.log(max(us, 1.0)) / self.WIDTH))] += 1

    def percentiles(self) -> LatencyPercentiles:
        """Return the middle of the buckets in which the percentiles fall."""
        total = int(self.counts.sum())
        if not total:
            return LatencyPercentiles(0, 0.0, 0.0, 0.0)
        cumulated = np.cumsum(self.counts)
        p50, p99, p999 = (
            min(self.max_us, math.exp((int(np.searchsorted(cumulated, math.ceil(total * q))) + 0.5) * self.WIDTH))
            for q in (0.5, 0.99, 0.999)
        )
        return LatencyPercentiles(total, p50, p99, self.max_us, p999)
