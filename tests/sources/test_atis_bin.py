"""The 40-bit ATIS codec against a reference in plain Python and known bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.atis_bin import AtisBinDecoder, decode_atis_bin, encode_atis_bin, write_atis_bin
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE


def reference_decode(raw):
    """Read bit by bit, from the description of the format."""
    events, offset = [], 0
    for at in range(0, len(raw) // 5 * 5, 5):
        word = int.from_bytes(bytes(raw[at : at + 5]), "big")
        x, y, p, t = word >> 32, (word >> 24) & 255, (word >> 23) & 1, word & 0x7FFFFF
        if y == 240:
            offset += 8192
        else:
            events.append((t + offset, x, y, p))
    return np.array(events, EVENT_DTYPE)


coordinate = st.integers(0, 255)
an_event = st.tuples(st.integers(0, 40_000_000), coordinate, coordinate.filter(lambda y: y != 240), st.integers(0, 1))


@settings(deadline=None)  # the first call compiles
@given(st.lists(an_event, max_size=60))
def test_round_trip(events):
    events = np.array(sorted(events, key=lambda event: event[0]), EVENT_DTYPE)
    raw = encode_atis_bin(events)
    assert len(raw) % 5 == 0
    np.testing.assert_array_equal(decode_atis_bin(raw), events)
    np.testing.assert_array_equal(reference_decode(raw), events)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_decode_as_the_reference_does(data):
    raw = np.frombuffer(data, np.uint8)
    np.testing.assert_array_equal(decode_atis_bin(raw), reference_decode(data))


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=400), st.integers(1, 20))
def test_chunks_give_the_same_as_the_whole(tmp_path_factory, data, chunk):
    path = tmp_path_factory.mktemp("bin") / "a.bin"
    path.write_bytes(data)
    parts = [np.empty(0, EVENT_DTYPE)]
    torn = False
    try:
        for events in AtisBinDecoder(path, chunk_events=chunk):
            parts.append(events.copy())
    except FormatError:
        torn = True
    np.testing.assert_array_equal(np.concatenate(parts), reference_decode(data))
    assert torn == bool(len(data) % 5)


def test_known_bytes():
    raw = np.array([3, 7, 0x80 | 0x01, 0x02, 0x03, 9, 240, 0, 0, 0, 4, 8, 0, 0, 5], np.uint8)
    assert decode_atis_bin(raw).tolist() == [(0x010203, 3, 7, 1), (8192 + 5, 4, 8, 0)]


def test_the_edge_of_the_23_bit_clock():
    times = [0, 2**23 - 1, 2**23, 2**23 + 8191, 2**23 + 8192, 2**25]
    events = np.array([(t, 1, 2, 1) for t in times], EVENT_DTYPE)
    raw = encode_atis_bin(events)
    assert decode_atis_bin(raw).tolist() == events.tolist()
    assert len(raw) // 5 - len(events) == (2**25 - 2**23) // 8192 + 1  # no overflow event more than needed


def test_overflows_are_carried_from_chunk_to_chunk(tmp_path):
    events = np.array([(t, 1, 2, 0) for t in range(0, 10_000_000, 100_000)], EVENT_DTYPE)
    write_atis_bin(tmp_path / "long.bin", events)
    parts = [part.copy() for part in AtisBinDecoder(tmp_path / "long.bin", chunk_events=9)]
    assert np.concatenate(parts).tolist() == events.tolist()


def test_torn_tail_is_told_with_position_and_size(tmp_path):
    path = tmp_path / "torn.bin"
    write_atis_bin(path, np.array([(1, 2, 3, 1), (5, 6, 7, 0)], EVENT_DTYPE))
    path.write_bytes(path.read_bytes()[:-2])
    chunks = iter(AtisBinDecoder(path))
    assert next(chunks).tolist() == [(1, 2, 3, 1)]
    with pytest.raises(FormatError, match=r"byte 5 of 8: got 3 bytes, wanted 5"):
        next(chunks)


@pytest.mark.parametrize(
    ("event", "words"),
    [((-1, 0, 0, 0), "t -1 us"), ((0, 256, 0, 0), "x 256"), ((0, 0, 240, 0), "y 240"), ((0, 0, 256, 0), "y 256")],
)
def test_what_the_format_cannot_hold_is_refused(event, words):
    with pytest.raises(FormatError, match=words):
        encode_atis_bin(np.array([event], EVENT_DTYPE))


def test_disorder_and_absolute_times_are_refused():
    with pytest.raises(FormatError, match="event 1"):
        encode_atis_bin(np.array([(5, 0, 0, 0), (4, 0, 0, 0)], EVENT_DTYPE))
    with pytest.raises(FormatError, match="shift the times"):
        encode_atis_bin(np.array([(1_600_000_000_000_000, 0, 0, 0)], EVENT_DTYPE))
