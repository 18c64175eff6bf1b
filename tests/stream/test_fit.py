"""The check of events that goes before every operator; what it says is tested in ``tests/neurons/test_encode.py``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import StreamError
from stream.fit import LATEST_US, check_events, first_unfit, read_only
from stream.packet import EVENT_DTYPE

TIMES = st.integers(-5, 5) | st.sampled_from([-(2**63), -LATEST_US, LATEST_US, LATEST_US + 1, 2**63 - 1])


@given(
    st.lists(st.tuples(TIMES, st.integers(0, 4), st.integers(0, 3), st.integers(0, 2)), max_size=8),
    st.integers(-5, 5) | st.just(-(2**63)),
)
def test_it_finds_the_first_that_plain_python_finds(rows: list[tuple[int, int, int, int]], t_us: int) -> None:
    times = [t_us, *(row[0] for row in rows)]
    bad = [
        k
        for k, (t, x, y, p) in enumerate(rows)
        if not (max(times[: k + 1]) <= t <= LATEST_US and x < 4 and y < 3 and p < 2)
    ]
    events = read_only(np.array(rows, EVENT_DTYPE))
    assert first_unfit(events, 4, 3, t_us) == min(bad, default=len(rows))


def test_a_time_that_could_overflow_is_refused() -> None:
    with pytest.raises(StreamError, match=f"at {LATEST_US + 1} us, wanted 0 us or later, and {LATEST_US} us at most"):
        check_events("it", read_only(np.array([(LATEST_US + 1, 0, 0, 0)], EVENT_DTYPE)), 1, 1, 0)


def test_a_view_is_read_only_and_what_it_shows_is_not() -> None:
    events = np.zeros(2, EVENT_DTYPE)
    assert not read_only(events).flags.writeable
    assert events.flags.writeable
