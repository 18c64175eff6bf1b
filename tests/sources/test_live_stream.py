"""The times and the queue of live sources."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.live_stream import AHEAD_US, BACK_US, LiveStream, PacketQueue, Queued
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, End, Packet, Reset

START_NS = 10**12


def events_at(*times, x=1, y=2):
    events = np.zeros(len(times), EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = times, x, y, 1
    return events


def push(live, times, host_ms, epoch=0):
    live.push(Queued(events_at(*times), START_NS + host_ms * 1_000_000, epoch))


def drain(live, max_items=1000):
    messages = []
    while (message := live.pop(max_items)) is not None:
        messages.append(message)
    return messages


def times_of(messages):
    return [int(t) for message in messages if isinstance(message, Packet) for t in message.items["t"]]


def marks_of(messages):
    return [message.t_us for message in messages if isinstance(message, Reset)]


def test_the_first_epoch_has_the_devices_times():
    live = LiveStream("device", 10, 10)
    push(live, [500, 501], 0)
    push(live, [70_000_000], 70_000)  # a long silence is no jump
    messages = drain(live)
    assert times_of(messages) == [500, 501, 70_000_000]
    assert marks_of(messages) == []
    assert live.end("why") == End(70_000_001, "why")


def test_a_new_epoch_goes_on_after_the_hosts_gap_behind_a_mark():
    live = LiveStream("device", 10, 10)
    push(live, [1_000_000], 0)
    push(live, [3, 10], 2000, epoch=1)
    push(live, [1003], 2001, epoch=1)
    messages = drain(live)
    assert [type(message) for message in messages] == [Packet, Reset, Packet, Packet]
    assert marks_of(messages) == [3_000_000]
    assert times_of(messages) == [1_000_000, 3_000_000, 3_000_007, 3_001_000]
    assert live.statistics() | {"seams": 1, "seconds missing": 2.0, "clock jumps": 0} == live.statistics()


def test_a_clock_that_is_reset_does_not_freeze_the_stream():
    live = LiveStream("device", 10, 10)
    push(live, [5_000_000], 0)
    push(live, [100, 200], 10)
    messages = drain(live)
    assert marks_of(messages) == [5_010_000]
    assert times_of(messages) == [5_000_000, 5_010_000, 5_010_100]
    assert live.statistics()["clock jumps"] == 1


def test_a_reset_inside_of_a_packet_is_a_seam_too():
    live = LiveStream("device", 10, 10)
    push(live, [5_000_000, 10, 20], 0)
    push(live, [1000], 10)
    messages = drain(live)
    assert [type(message) for message in messages] == [Packet, Reset, Packet, Packet]
    assert times_of(messages) == [5_000_000, 5_000_000, 5_000_010, 5_000_990]


def test_a_step_over_a_long_silence_inside_of_a_packet_is_no_jump():
    live = LiveStream("device", 10, 10)
    push(live, [1000], 0)
    push(live, [2000, 60_000_000], 60_000)
    assert times_of(drain(live)) == [1000, 2000, 60_000_000]


def test_small_steps_back_are_raised_and_counted():
    live = LiveStream("device", 10, 10)
    push(live, [1_000_000, 999_990], 0)
    push(live, [1_000_000 - BACK_US], 1)
    messages = drain(live)
    assert times_of(messages) == [1_000_000] * 3
    assert marks_of(messages) == []
    assert live.statistics()["times raised"] == 2


def test_wild_times_are_dropped_and_counted():
    live = LiveStream("device", 10, 10)
    push(live, [100, 1 << 60, 101, -5, 102], 0)
    push(live, [-1, -(1 << 62)], 0)
    assert times_of(drain(live)) == [100, 101, 102]
    assert live.statistics()["wild times dropped"] == 4


def test_a_whole_wild_packet_moves_the_stream_no_further_than_the_host():
    live = LiveStream("device", 10, 10)
    push(live, [100], 0)
    push(live, [1 << 60], 1)
    push(live, [2100], 2)
    assert times_of(drain(live)) == [100, 1100, 2100]


def test_nothing_before_a_mark_has_a_time_after_it_and_the_reverse():
    live = LiveStream("device", 10, 10)
    push(live, [1000, 2000], 0)
    push(live, [500, 400], 1, epoch=1)  # the second stands before the seam on the device's clock
    messages = drain(live)
    assert marks_of(messages) == [3000]
    assert times_of(messages) == [1000, 2000, 3000, 3000]


packets = st.lists(
    st.tuples(
        st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2 * AHEAD_US), min_size=1, max_size=5),
        st.integers(0, 3000),
        st.booleans(),
        st.integers(0, 20),
    ),
    max_size=20,
)


@given(packets, st.integers(1, 4))
def test_no_device_breaks_the_stream(packets, max_items):
    live = LiveStream("device", 10, 10)
    host_ms, epoch, n_in, before_us = 0, 0, 0, 0
    got = 0
    for times, passed_ms, is_new, x in packets:
        host_ms, epoch, n_in = host_ms + passed_ms, epoch + is_new, n_in + len(times)
        live.push(Queued(events_at(*times, x=x), START_NS + host_ms * 1_000_000, epoch))
        for message in drain(live, max_items):
            if isinstance(message, Reset):
                assert message.t_us >= before_us
                before_us = message.t_us
                continue
            assert 0 < len(message.items) <= max_items
            assert message.start_us >= before_us
            assert (np.diff(message.items["t"]) >= 0).all()
            before_us, got = message.end_us - 1, got + len(message.items)
    counts = live.statistics()
    assert n_in == got + counts["wild times dropped"] + counts["outside dropped"]
    assert counts["events"] == got


@given(st.lists(st.integers(0, 50_000), min_size=1, max_size=60), st.data())
def test_where_the_device_cuts_does_not_matter(times, data):
    """As long as its clock behaves."""
    times = sorted(times)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(times)), max_size=5)))
    whole, cut = LiveStream("device", 10, 10), LiveStream("device", 10, 10)
    push(whole, times, 0)
    for part in np.split(np.array(times), cuts):
        push(cut, part.tolist(), 0)
    assert times_of(drain(cut, 7)) == times_of(drain(whole, 11)) == times


def test_a_restored_stream_goes_on_by_the_wall_clock():
    live, fresh = LiveStream("device", 10, 10), LiveStream("device", 10, 10)
    live.push(Queued(events_at(1_000_000), time.monotonic_ns(), 0))
    drain(live)
    time.sleep(0.2)
    fresh.restore(live.snapshot())
    assert fresh.end("") == End(1_000_001)
    fresh.push(Queued(events_at(5, 9), time.monotonic_ns(), 0))
    messages = drain(fresh)
    assert 1_200_000 <= marks_of(messages)[0] < 2_000_000
    assert times_of(messages) == [marks_of(messages)[0], marks_of(messages)[0] + 4]
    assert fresh.statistics()["seconds missing"] == pytest.approx((marks_of(messages)[0] - 1_000_000) / 1e6)


def test_what_was_not_handed_out_is_not_in_a_snapshot_and_is_counted_if_forgotten():
    live = LiveStream("device", 10, 10)
    live.push(Queued(events_at(10, 20, 30), time.monotonic_ns(), 0))
    live.pop(1)
    assert live.snapshot()["t_us"] == 10
    live.restore(live.snapshot())
    assert live.pop(10) is None
    assert live.statistics()["forgotten by restore"] == 2


def test_a_snapshot_of_nothing_changes_nothing():
    live, fresh = LiveStream("device", 10, 10), LiveStream("device", 10, 10)
    fresh.restore(live.snapshot())
    push(fresh, [77], 0)
    assert times_of(drain(fresh)) == [77]
    with pytest.raises(ConfigError, match="snapshot of device"):
        fresh.restore({})


class TestQueue:
    def test_it_is_bounded_by_events_and_the_oldest_go(self):
        queue = PacketQueue(10, 1 << 30)
        for number in range(20):
            queue.put(Queued(events_at(number, number, number), number, 0))
        assert queue.statistics() == {"events waiting": 9, "events dropped": 51, "packets dropped": 17}
        assert [queue.take().host_ns for _ in range(3)] == [17, 18, 19]
        assert queue.take() is None
        assert queue.statistics()["events waiting"] == 0

    def test_it_is_bounded_by_bytes_where_packets_are_small(self):
        queue = PacketQueue(1 << 30, 10_000)
        for number in range(1000):
            queue.put(Queued(events_at(number), number, 0))
        assert queue.statistics()["events waiting"] == 10_000 // (512 + 13)

    def test_one_packet_always_stays(self):
        queue = PacketQueue(1, 1)
        queue.put(Queued(events_at(1, 2, 3), 0, 0))
        queue.put(Queued(events_at(4, 5), 1, 0))
        assert queue.take().host_ns == 1
        assert queue.statistics()["events dropped"] == 3

    def test_bounds_must_hold_something(self):
        with pytest.raises(ConfigError, match="wanted at least 1"):
            PacketQueue(0, 1)
