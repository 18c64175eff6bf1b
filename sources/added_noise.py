"""A camera that sees more than there is: background noise, and pixels that never rest, put into a stream of events.

Noise event number k stands ``1 + floor(-mean_us * ln u_k)`` us after the one before it, the first one so long after the
stream's first event; where it is and which way it points is drawn likewise (``sources.counter_random``). Among equal
times noise comes first. So the result does not depend on where packets are cut.

Which pixels are hot is drawn once, from the seed; the same may be drawn twice, and is then twice as busy.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import uniform
from sources.filter_operator import NEVER_US, EventFilter, check_range, put
from stream.fit import check_events, read_only
from stream.jit import kernel
from stream.operator import Emit
from stream.packet import EVENT_DTYPE, Packet

__all__ = ["AddedNoise"]

MOST_HOT = 1024


@kernel
def noise_run(
    state: Any,
    k: int,
    mean_us: float,
    noise_share: float,
    hot: Any,
    seed: int,
    width: int,
    height: int,
    until_us: int,
    events: Any,
    out: Any,
) -> tuple[int, int]:
    """Merge noise up to and with ``until_us`` into ``events[k:]``, as far as there is room.

    Parameters
    ----------
    state
        int64, shape (2,): time and number of the next noise event. Written to.
    k
        The first event not yet written.
    mean_us
        Between noise events.
    noise_share
        Of noise events that come from anywhere; the rest are of hot pixels.
    hot
        int64, shape (n_hot,): their places, y * width + x.
    seed, width, height, until_us, events, out
        What they say.

    Returns
    -------
    k, n
        The first event not yet written, and how many stand in ``out``.
    """
    n = 0
    while n < len(out):
        is_noise = state[0] != NEVER_US and state[0] <= until_us
        if k < len(events) and is_noise:
            is_noise = state[0] <= events[k]["t"]
        if is_noise:
            number = state[1]
            place = int(uniform(seed, 2, number) * (width * height))
            if uniform(seed, 1, number) >= noise_share:
                place = int(hot[int(uniform(seed, 2, number) * len(hot))])
            p = 1 if uniform(seed, 3, number) < 0.5 else 0
            put(out, n, state[0], place % width, place // width, p)
            state[1] = number + 1
            state[0] += 1 + int(-mean_us * math.log(uniform(seed, 0, number + 1)))
        elif k < len(events):
            event = events[k]
            put(out, n, event["t"], event["x"], event["y"], event["p"])
            k += 1
        else:
            break
        n += 1
    return k, n


class AddedNoise(EventFilter):
    """Put noise into a stream.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    rate_hz
        Background noise of the whole sensor, events/s.
    n_hot, hot_rate_hz
        Hot pixels, and how often each of them fires, events/s.
    seed
        Of chance.
    clear_on_reset
        Begin anew with the first event after a ``Reset`` mark.

    Raises
    ------
    ConfigError
        If a parameter is out of range.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        rate_hz: float = 1000.0,
        n_hot: int = 0,
        hot_rate_hz: float = 1000.0,
        seed: int = 1,
        clear_on_reset: bool = False,
    ) -> None:
        super().__init__(width=width, height=height, clear_on_reset=clear_on_reset)
        check_range(self.subject, "rate_hz", rate_hz, 0, 1e6)
        check_range(self.subject, "n_hot", n_hot, 0, MOST_HOT)
        check_range(self.subject, "hot_rate_hz", hot_rate_hz, 0, 1e5)
        check_range(self.subject, "seed", seed, 0, 2**62)
        total_hz = rate_hz + n_hot * hot_rate_hz
        self._mean_us = max(1e6 / total_hz - 0.5, 0.5) if total_hz > 0 else 0.0  # floor and 1 add half a us
        self._share = rate_hz / total_hz if total_hz > 0 else 1.0
        self._seed = int(seed)
        places = [int(uniform(self._seed, 4, k) * (self.width * self.height)) for k in range(n_hot)]
        self._hot = np.array(places, np.int64)
        self._state = self._remember("state", (2,), np.int64, NEVER_US)
        self._part = np.empty(4096, EVENT_DTYPE)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return noise_run(
            self._state,
            0,
            self._mean_us,
            self._share,
            self._hot,
            self._seed,
            self.width,
            self.height,
            NEVER_US,
            events,
            out,
        )[1]

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Merge noise into a packet; StreamError, and nothing changed or emitted, if an event does not fit."""
        events = read_only(packet.items)
        check_events(self.subject, events, self.width, self.height, self.last_t_us)
        if len(events) and self._state[0] == NEVER_US and self._mean_us > 0:
            first_us = 1 + int(-self._mean_us * math.log(uniform(self._seed, 0, 0)))
            self._state[:] = int(events["t"][0]) + first_us, 0
        parts, k, n = [], 0, len(self._part)
        while n == len(self._part):
            k, n = noise_run(
                self._state,
                k,
                self._mean_us,
                self._share,
                self._hot,
                self._seed,
                self.width,
                self.height,
                packet.end_us - 1,
                events,
                self._part,
            )
            parts.append(self._part[:n].copy())
        if len(events):
            self.last_t_us = int(events["t"][-1])
        items = np.concatenate(parts)
        self.n_events += len(events)
        self.n_kept += len(items)
        start_us = min(packet.start_us, int(items["t"][0])) if len(items) else packet.start_us
        emit("events", Packet(items, start_us, packet.end_us, packet.origin_ns))

    def statistics(self) -> dict[str, float]:
        """Return counts of events: taken in, and put in."""
        return {"events": float(self.n_events), "added": float(self.n_kept - self.n_events)}
