"""A camera that sees less than it should: events that are lost, each by a rule that only it and its place decide.

==========  ==========================================================================  =============================
kind        what is lost                                                                level
==========  ==========================================================================  =============================
loss        any event                                                                   share, 0 to 1
dead area   all events of a square around the middle                                    its side, pixels
bar         all events behind an upright bar that crosses the sensor once a period      its width, pixels
mismatch    of each pixel a share of its own, between 0 and twice the level             mean share, 0 to 1
contrast    a share that rises from 0 to the level and falls again once a period        largest share, 0 to 1
==========  ==========================================================================  =============================

Chance is looked up by an event's number in the stream (``sources.counter_random``), so where packets are cut does not
matter.
"""

import math
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import uniform
from sources.filter_operator import LONGEST_US, EventFilter, check_range, put
from stream.errors import ConfigError
from stream.jit import kernel

__all__ = ["Damage", "DamageKind"]

DamageKind = Literal["loss", "dead area", "bar", "mismatch", "contrast"]
LOSS, DEAD_AREA, BAR, MISMATCH, CONTRAST = range(5)


@kernel
def damage_run(
    number: Any, kind: int, level: float, seed: int, period_us: int, width: int, height: int, events: Any, out: Any
) -> int:
    """Keep what is not lost; ``number``, int64 (1,), counts events and is written to. Return how many are kept."""
    n = 0
    for k in range(len(events)):
        event = events[k]
        t, x, y = event["t"], int(event["x"]), int(event["y"])
        put(out, n, t, x, y, event["p"])
        is_lost = False
        if kind == DEAD_AREA:
            is_lost = abs(2 * x + 1 - width) < level and abs(2 * y + 1 - height) < level
        elif kind == BAR:
            left = (t % period_us) / period_us * (width + level) - level
            is_lost = left <= x and x < left + level
        else:
            share = level
            if kind == MISMATCH:
                share = 2.0 * level * uniform(seed, 1, y * width + x)
            elif kind == CONTRAST:
                share = level * (0.5 - 0.5 * math.cos(2.0 * math.pi * ((t % period_us) / period_us)))
            is_lost = uniform(seed, 0, number[0]) < share
        number[0] += 1
        n += 0 if is_lost else 1
    return n


class Damage(EventFilter):
    """Lose events.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    kind, level
        See the table above.
    period_us
        Of ``bar`` and ``contrast``, stream time.
    seed
        Of chance.
    clear_on_reset
        Count events anew at a ``Reset`` mark.

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
        kind: DamageKind = "loss",
        level: float = 0.5,
        period_us: int = 300_000,
        seed: int = 1,
        clear_on_reset: bool = False,
    ) -> None:
        super().__init__(width=width, height=height, clear_on_reset=clear_on_reset)
        if kind not in get_args(DamageKind):
            raise ConfigError(f"Damage kind: got {kind!r}, wanted one of {', '.join(get_args(DamageKind))}")
        check_range(self.subject, "level", level, 0, max(width, height) if kind in ("dead area", "bar") else 1)
        check_range(self.subject, "period_us", period_us, 1, LONGEST_US)
        check_range(self.subject, "seed", seed, 0, 2**62)
        self._kind, self._level = get_args(DamageKind).index(kind), float(level)
        self._period_us, self._seed = int(period_us), int(seed)
        self._number = self._remember("number", (1,), np.int64)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return damage_run(
            self._number, self._kind, self._level, self._seed, self._period_us, self.width, self.height, events, out
        )
