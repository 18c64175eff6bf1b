"""What a `live` edge keeps waiting, and what it drops when that is too much.

Three bounds, as in GStreamer's queues: packets, bytes, age. Which packet goes when there are too many or too large ones
is the edge's policy:

=============== ======================================================================================================
drop-oldest     the oldest that waits: what arrives is as new as can be (a live picture)
drop-newest     the one that just came: what arrives is a run without gaps, then a gap (a triggered recording)
sample          every second one, then three of four, ...: what arrives is spread evenly over the time (a statistic)
=============== ======================================================================================================

What has waited too long goes first whatever the policy: it is of no use to a viewer any more. Marks are never dropped.
Every drop is counted, and told at its place in the stream by a ``Loss`` mark in front of the next message.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec
import numpy as np

from stream.ledger import EdgeCounts
from stream.packet import Loss, Message, Packet

__all__ = ["Backlog", "Bounds", "Policy"]

Policy: TypeAlias = Literal["drop-oldest", "drop-newest", "sample"]


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a `live` edge may keep waiting. The first bound that is reached drops a packet."""

    messages: int = 64
    bytes: int = 16 << 20
    age_us: int = 100_000  # wall time: a live picture older than a tenth of a second is of no use


@dataclass(slots=True)
class _Gap:
    """Packets missing in front of a message."""

    start_us: int = 0
    packets: int = 0
    items: int = 0

    def extend(self, other: "_Gap") -> None:
        """Add what is missing right behind."""
        if not other.packets:
            return
        self.start_us = min(self.start_us, other.start_us) if self.packets else other.start_us
        self.packets += other.packets
        self.items += other.items


@dataclass(slots=True)
class _Entry:
    message: Message
    since_s: float
    n_bytes: int
    gap: _Gap


class Backlog:
    """A bounded queue of messages.

    Parameters
    ----------
    bounds, policy
        When to drop, and what.
    counts
        Where drops are counted; sent messages too, of the ``Loss`` marks that are put in.
    """

    def __init__(self, bounds: Bounds, policy: Policy, counts: EdgeCounts) -> None:
        self.bounds, self.policy, self.counts = bounds, policy, counts
        self.n_bytes = 0
        self._entries: deque[_Entry] = deque()
        self._gap = _Gap()  # behind the last entry
        self._stride = 1  # of "sample": one packet in so many may wait
        self._since = 0  # packets since the last one that may

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, message: Message) -> None:
        """Let a message wait. Its items are copied: they belong to the operator that emits them."""
        n_bytes = 0
        if isinstance(message, Packet):
            items = message.items.view(np.uint8).copy().view(message.items.dtype)  # as bytes: ten times faster
            message = Packet(items, message.start_us, message.end_us, message.origin_ns)
            n_bytes = items.nbytes
        self._entries.append(_Entry(message, time.monotonic(), n_bytes, self._gap))
        self._gap = _Gap()
        self.n_bytes += n_bytes
        self.counts.waiting_messages = len(self._entries)
        if self._stride > 1 and isinstance(message, Packet):
            self._since += 1
            if self._since % self._stride:
                self._drop(len(self._entries) - 1)

    def trim(self) -> None:
        """Drop what is above the bounds."""
        oldest_s = time.monotonic() - self.bounds.age_us / 1e6
        while self._entries and self._entries[0].since_s < oldest_s and (packets := self._packets(1)):
            if self._entries[packets[0]].since_s >= oldest_s:
                break
            self._drop(packets[0])
        while len(self._entries) > self.bounds.messages or self.n_bytes > self.bounds.bytes:
            packets = self._packets()
            if not packets:
                return
            if self.policy == "drop-oldest":
                victims = packets[:1]
            elif self.policy == "drop-newest" or len(packets) == 1:
                victims = packets[-1:]
            else:
                victims = packets[1::2]
                self._since = self._stride if victims[-1] == packets[-1] else 0
                self._stride *= 2
            for index in reversed(victims):
                self._drop(index)

    def pop(self) -> Message:
        """Take the next message out: a ``Loss`` mark first if something is missing in front of it."""
        entry = self._entries[0]
        if entry.gap.packets:
            gap, entry.gap = entry.gap, _Gap()
            self.counts.sent_messages += 1
            t_us = entry.message.start_us if isinstance(entry.message, Packet) else entry.message.t_us
            return Loss(t_us, gap.start_us, gap.packets, gap.items)
        self._entries.popleft()
        self.n_bytes -= entry.n_bytes
        self.counts.waiting_messages = len(self._entries)
        if not self._entries:
            self._stride, self._since = 1, 0
        return entry.message

    def clear(self) -> None:
        """Drop everything, marks too: nobody will take it any more."""
        while self._entries:
            self._drop(0)

    def _packets(self, most: int = 1 << 62) -> list[int]:
        found = []
        for index, entry in enumerate(self._entries):
            if isinstance(entry.message, Packet):
                found.append(index)
                if len(found) == most:
                    break
        return found

    def _drop(self, index: int) -> None:
        entry = self._entries[index]
        del self._entries[index]
        self.n_bytes -= entry.n_bytes
        self.counts.dropped_messages += 1
        gap = entry.gap
        if isinstance(entry.message, Packet):
            n = len(entry.message.items)
            self.counts.dropped_items += n
            gap.extend(_Gap(entry.message.start_us, 1, n))
        if index < len(self._entries):
            gap.extend(self._entries[index].gap)
            self._entries[index].gap = gap
        else:
            gap.extend(self._gap)
            self._gap = gap
        self.counts.waiting_messages = len(self._entries)
