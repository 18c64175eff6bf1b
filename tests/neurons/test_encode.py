"""Numbering of input lines, and what is refused."""

import numpy as np
import pytest

from neurons.encode import check_events, n_input_units, read_only, unit_of
from stream.errors import StreamError
from stream.packet import EVENT_DTYPE


def events_of(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return read_only(np.array(list(rows), EVENT_DTYPE))


def test_units_number_every_line_once() -> None:
    rows = [(0, x, y, p) for y in range(3) for x in range(5) for p in range(2)]
    units = [unit_of(event, 5) for event in events_of(*rows)]
    assert units == list(range(n_input_units(5, 3)))


def test_units_of_a_large_sensor_do_not_wrap() -> None:
    # 719 * 1280 does not fit the uint16 of x and y
    assert unit_of(events_of((0, 1279, 719, 1))[0], 1280) == 1280 * 720 * 2 - 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((5, 34, 0, 0), r"event 1 of the packet is \(t=5 us, x=34, y=0, p=0\), wanted x < 34, y < 30"),
        ((5, 0, 30, 0), "y=30"),
        ((5, 0, 0, 2), "p=2"),
        ((3, 0, 0, 0), "event 1 of the packet is at 3 us, wanted 4 us or later"),
    ],
)
def test_first_offender_is_named(row: tuple[int, int, int, int], said: str) -> None:
    with pytest.raises(StreamError, match=said):
        check_events("it", events_of((4, 33, 29, 1), row, (5, 99, 99, 9)), 34, 30, 0)


def test_time_may_not_go_back_between_packets() -> None:
    with pytest.raises(StreamError, match="event 0 of the packet is at 4 us, wanted 9 us"):
        check_events("it", events_of((4, 0, 0, 0)), 34, 30, 9)


def test_a_good_packet_passes() -> None:
    check_events("it", events_of((4, 33, 29, 1), (4, 0, 0, 0)), 34, 30, 4)
    check_events("it", events_of(), 34, 30, 4)
