"""Small members for tests of the runtime: a numbered source, a counting operator that can fail, wait or die."""

import os
import signal
import time

import numpy as np

from stream.operator import Emit, Operator, Port, Snapshot, Source, check_shapes
from stream.packet import EVENT_DTYPE, Barrier, End, Label, Message, Packet, Reset, packet_of

EVENTS = Port("events", 10, 10)


class Count(Source):
    """Events at 0, 10, 20, ... us; a reset, a label and a barrier mark at every ``mark_every`` events."""

    def __init__(self, *, n: int = 1000, mark_every: int = 0, endless: bool = False, fail_at: int = -1) -> None:
        self.outputs = {"events": EVENTS}
        self.n, self.mark_every, self.endless, self.fail_at = n, mark_every, endless, fail_at
        self.done = 0
        self.marks = 0

    def poll(self, max_items: int) -> Message | None:
        if self.mark_every and self.marks < 3 * (self.done // self.mark_every):
            kind = self.marks % 3
            self.marks += 1
            t = self.done * 10
            return (Label(t, self.marks, 0), Reset(t), Barrier(t, self.marks // 3))[kind]
        if self.done >= self.n and not self.endless:
            return End(self.done * 10)
        if 0 <= self.fail_at <= self.done:
            return End(self.done * 10, "torn")
        stop = self.done + max_items if self.endless else min(self.n, self.done + max_items)
        if self.mark_every:
            stop = min(stop, (self.done // self.mark_every + 1) * self.mark_every)
        events = np.zeros(stop - self.done, EVENT_DTYPE)
        events["t"] = np.arange(self.done, stop) * 10
        events["x"] = np.arange(self.done, stop) % 10
        self.done = stop
        return packet_of(events)

    def snapshot(self) -> Snapshot:
        return {"position": np.array([self.done, self.marks])}

    def restore(self, snapshot: Snapshot) -> None:
        self.done, self.marks = (int(value) for value in snapshot["position"])


class Relay(Operator):
    """Passes everything on and keeps a running sum of x; can be slow, fail, or kill its process."""

    def __init__(self, *, fail_at: int = -1, kill_at: int = -1, sleep_s: float = 0.0) -> None:
        self.inputs = {"events": EVENTS}
        self.outputs = {"events": EVENTS}
        self.fail_at, self.kill_at, self.sleep_s = fail_at, kill_at, sleep_s
        self.state = {"seen": np.zeros((), np.int64), "sum_x": np.zeros((), np.int64)}

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        time.sleep(self.sleep_s)
        self.state["seen"] += len(packet.items)
        self.state["sum_x"] += int(packet.items["x"].sum())
        if 0 <= self.fail_at < self.state["seen"]:
            raise ValueError("relay was told to fail")
        if 0 <= self.kill_at < self.state["seen"]:
            os.kill(os.getpid(), signal.SIGKILL)
        emit("events", Packet(packet.items, packet.start_us, packet.end_us))

    def snapshot(self) -> Snapshot:
        return {name: value.copy() for name, value in self.state.items()}

    def restore(self, snapshot: Snapshot) -> None:
        check_shapes("relay", self.state, snapshot)
        self.state = {name: np.array(value) for name, value in snapshot.items()}

    def statistics(self) -> dict[str, float]:
        return {"seen": float(self.state["seen"]), "sum x": float(self.state["sum_x"])}


class Recut(Operator):
    """Passes the same stream on in other packets: cut at random places, with empty packets in between."""

    def __init__(self, *, width: int, height: int, seed: int, share: float = 0.01) -> None:
        port = Port("events", width, height)
        self.inputs, self.outputs = {"events": port}, {"events": port}
        self.rng, self.share = np.random.default_rng(seed), share

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        cuts = np.flatnonzero(self.rng.random(len(packet.items)) < self.share)
        start = packet.start_us
        for part in np.split(packet.items, cuts):
            end = int(part["t"][-1]) + 1 if len(part) else start
            emit("events", Packet(part, start, end))
            start = max(start, end - 1)
        emit("events", Packet(packet.items[:0], packet.end_us, packet.end_us))

    def snapshot(self) -> Snapshot:
        return {}

    def restore(self, snapshot: Snapshot) -> None:
        check_shapes("recut", {}, snapshot)


class Ballast(Relay):
    """A relay with a large state."""

    def __init__(self, *, n_bytes: int = 1 << 20, sleep_s: float = 0.0) -> None:
        super().__init__(sleep_s=sleep_s)
        self.state["ballast"] = np.zeros(n_bytes, np.uint8)


class Crooked(Relay):
    """A relay in whose process the wall clock jumps by hours at every packet, forth and back."""

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        shift_s = float(np.random.default_rng(int(self.state["seen"])).normal(0, 1e5))
        time.time = lambda: true_time() + shift_s
        time.time_ns = lambda: true_time_ns() + int(shift_s * 1e9)
        super().on_packet(port, packet, emit)


true_time, true_time_ns = time.time, time.time_ns
