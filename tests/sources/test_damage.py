"""Damaged streams: what is lost and what is added is as much as was asked for, where it should be."""

from typing import Any

import numpy as np
import pytest

from sources.added_noise import AddedNoise
from sources.filter_damage import Damage
from sources.filter_jitter import TimeJitter
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, Label, Message, Packet, packet_of

SIDE, N = 16, 20_000


def events() -> np.ndarray:
    rng = np.random.default_rng(0)
    made = np.zeros(N, EVENT_DTYPE)
    made["t"] = np.sort(rng.integers(0, 1_000_000, N))
    made["x"], made["y"], made["p"] = rng.integers(0, SIDE, N), rng.integers(0, SIDE, N), rng.integers(0, 2, N)
    return made


def through(operator: Any, items: np.ndarray) -> np.ndarray:
    out: list[np.ndarray] = []

    def emit(port: str, message: Message) -> None:
        assert isinstance(message, Packet)
        out.append(message.items)

    operator.on_packet("events", packet_of(items), emit)
    return np.concatenate(out)


def damaged(kind: Any, level: float, **more: Any) -> np.ndarray:
    return through(Damage(width=SIDE, height=SIDE, kind=kind, level=level, **more), events())


@pytest.mark.parametrize(("kind", "share"), [("loss", 0.7), ("mismatch", 0.7), ("contrast", 0.85)])
def test_as_much_is_lost_as_was_asked_for(kind: str, share: float) -> None:
    kept = damaged(kind, 0.3)
    assert len(kept) / N == pytest.approx(share, abs=0.03)
    assert np.isin(kept, events()).all()


def test_mismatch_belongs_to_the_pixel() -> None:
    kept = damaged("mismatch", 0.5)
    before, after = (np.bincount(it["y"] * SIDE + it["x"], minlength=SIDE**2) for it in (events(), kept))
    shares = after / before
    assert shares.std() > 0.2  # even losses would give 0.06
    assert shares.min() < 0.1
    assert shares.max() > 0.9


def test_a_dead_area_is_dead_and_the_rest_is_not() -> None:
    kept = damaged("dead area", 6)
    inside = (abs(2 * kept["x"].astype(int) - 15) < 6) & (abs(2 * kept["y"].astype(int) - 15) < 6)
    assert not inside.any()
    assert len(kept) / N == pytest.approx(1 - 36 / 256, abs=0.01)


def test_a_bar_crosses_all_of_the_sensor() -> None:
    kept = damaged("bar", 4, period_us=100_000)
    gone = events()[~np.isin(events(), kept)]
    assert set(gone["x"]) == set(range(SIDE))
    assert len(gone) / N == pytest.approx(4 / 20, abs=0.03)
    at_once = gone[gone["t"] < 2000]
    assert len(set(at_once["x"])) <= 5


def test_noise_has_the_rate_that_was_asked_for() -> None:
    noisy = through(AddedNoise(width=SIDE, height=SIDE, rate_hz=30_000.0, seed=5), events())
    assert len(noisy) - N == pytest.approx(30_000, rel=0.03)
    assert (np.diff(noisy["t"]) >= 0).all()
    assert np.isin(events(), noisy).all()


def test_hot_pixels_are_few_and_busy() -> None:
    noisy = through(AddedNoise(width=SIDE, height=SIDE, rate_hz=0.0, n_hot=3, hot_rate_hz=5000.0), events())
    count = np.bincount(noisy["y"] * SIDE + noisy["x"], minlength=SIDE**2)
    assert (count > 2000).sum() in (1, 2, 3)  # the same may be drawn twice
    assert count.sum() - N == pytest.approx(15_000, rel=0.03)


def test_jitter_moves_stamps_and_nothing_else() -> None:
    jitter, out = TimeJitter(width=SIDE, height=SIDE, longest_us=5000, seed=3), []

    def emit(port: str, message: Message) -> None:
        out.append(message)

    before = events()
    end_us = int(before["t"][-1]) + 1
    for part in np.array_split(before, 7):
        jitter.on_packet("events", packet_of(part), emit)
    held = N - sum(len(it.items) for it in out)
    assert 10 < held < 300  # the last 5 ms
    jitter.on_mark("events", Label(end_us, 0, 0), emit)
    assert isinstance(out[-1], Label)
    late = np.concatenate([it.items for it in out[:-1]])
    assert np.all(np.diff(late["t"]) >= 0)
    assert late["t"][-1] < end_us
    for name in ("x", "y", "p"):
        np.testing.assert_array_equal(np.bincount(late[name]), np.bincount(before[name]))
    waited = late["t"].mean() - before["t"].mean()
    assert waited == pytest.approx(2500, rel=0.05)
    with pytest.raises(ConfigError, match="longest_us"):
        TimeJitter(width=SIDE, height=SIDE, longest_us=-1)
