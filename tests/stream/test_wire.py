"""The wire format: exact round trips, 8 bytes an event, and nothing but StreamError from hostile frames."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream import wire
from stream.errors import StreamError
from stream.packet import (
    ANSWER_DTYPE,
    EVENT_DTYPE,
    PHASE_DTYPE,
    SPIKE_DTYPE,
    Barrier,
    Correct,
    Deploy,
    End,
    Forget,
    Label,
    Message,
    Packet,
    Reset,
    Show,
    packet_of,
)

TIMES = st.integers(-(2**62), 2**62)


def round_trip(message: Message, sequence: int = 3) -> Message:
    frames = [bytes(frame) for frame in wire.encode(message, stream="a.b", sequence=sequence, dropped=7)]
    header, back = wire.decode(frames)
    assert (header.stream, header.sequence, header.dropped) == ("a.b", sequence, 7)
    return back


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    start = draw(TIMES)
    gaps = draw(st.lists(st.integers(0, 10**6), max_size=40))
    dtype = draw(st.sampled_from([EVENT_DTYPE, SPIKE_DTYPE, ANSWER_DTYPE, PHASE_DTYPE]))
    items = np.zeros(len(gaps), dtype)
    items["t"] = start + np.cumsum(np.array(gaps, np.int64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    for name in dtype.names[1:]:
        top = {"x": 0x7FFF, "p": 1}.get(name, min(int(np.iinfo(dtype[name]).max), 2**31 - 1))
        items[name] = rng.integers(0, top, len(items), endpoint=True)
    return Packet(items, start, start + sum(gaps) + draw(st.integers(1, 1000)))


@given(packets())
def test_a_packet_comes_back_bit_for_bit(packet: Packet) -> None:
    back = round_trip(packet)
    assert isinstance(back, Packet)
    assert back.items.tobytes() == packet.items.tobytes()
    assert back.items.flags.writeable
    assert (back.start_us, back.end_us) == (packet.start_us, packet.end_us)


@given(TIMES, st.integers(0, 2**40), st.booleans())
def test_marks_come_back(t_us: int, number: int, teach: bool) -> None:
    taught = Show(t_us, number), Forget(t_us, number), Correct(t_us, number)
    for mark in (
        Reset(t_us, teach),
        Label(t_us, number, t_us, teach),
        *taught,
        Barrier(t_us, number),
        End(t_us, "why"),
    ):
        assert round_trip(mark) == mark


def test_deploy_comes_back() -> None:
    arrays = {"layer0.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "layer0.v_threshold": np.array(1.5)}
    back = round_trip(Deploy(5, 2, arrays))
    assert isinstance(back, Deploy)
    for name, array in arrays.items():
        assert back.arrays[name].dtype == array.dtype
        assert back.arrays[name].shape == array.shape
        assert np.array_equal(back.arrays[name], array)


def test_an_event_and_a_spike_take_eight_bytes() -> None:
    for dtype in (EVENT_DTYPE, SPIKE_DTYPE):
        frames = wire.encode(packet_of(np.zeros(100, dtype)), stream="s", sequence=0)
        assert len(frames[1]) == 800


def test_the_header_is_small() -> None:
    frames = wire.encode(packet_of(np.zeros(1, EVENT_DTYPE)), stream="camera.events -> learner.events", sequence=10**9)
    assert len(frames[0]) < 220


def test_a_wide_sensor_is_refused_with_the_way_out() -> None:
    events = np.zeros(2, EVENT_DTYPE)
    events["x"][1] = 40_000
    with pytest.raises(StreamError, match="x = 40000 does not fit the wire's 15 bits; crop"):
        wire.encode(packet_of(events), stream="s", sequence=0)


@given(st.lists(st.integers(0, 2**34), min_size=1, max_size=12), st.integers(0, 2**34))
def test_long_silences_are_cut_into_messages_that_fit(gaps: list[int], tail: int) -> None:
    events = np.zeros(len(gaps), EVENT_DTYPE)
    events["t"] = np.cumsum(np.array(gaps, np.int64))
    whole = Packet(events, 0, int(events["t"][-1]) + 1 + tail)
    parts = list(wire.pieces(whole))
    assert np.array_equal(np.concatenate([part.items for part in parts]), events)
    assert parts[-1].end_us == whole.end_us
    for part in parts:
        back = round_trip(part)
        assert isinstance(back, Packet)
        assert np.array_equal(back.items, part.items)


def test_too_many_items_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_ITEMS", 10)
    events = np.zeros(35, EVENT_DTYPE)
    parts = list(wire.pieces(packet_of(events)))
    assert [len(part.items) for part in parts] == [10, 10, 10, 5, 0]


def valid() -> list[bytes]:
    events = np.zeros(5, EVENT_DTYPE)
    events["t"] = np.arange(5)
    return [bytes(frame) for frame in wire.encode(packet_of(events), stream="s", sequence=0)]


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_random_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(StreamError):
        wire.decode(frames)


@given(st.data())
def test_flipped_bits_are_refused_or_harmless(data: st.DataObject) -> None:
    frames = [bytearray(frame) for frame in valid()]
    frame = frames[data.draw(st.integers(0, 1))]
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        _, message = wire.decode([bytes(each) for each in frames])
    except StreamError:
        return
    if isinstance(message, Packet):  # a flip in a coordinate cannot be noticed, but time stays in order
        assert np.all(np.diff(message.items["t"]) >= 0)
        assert np.all((message.items["t"] >= message.start_us) & (message.items["t"] < message.end_us))


@given(st.integers(0, 200))
def test_truncated_frames_are_refused(length: int) -> None:
    header, payload = valid()
    with pytest.raises(StreamError):
        wire.decode([header[: min(length, len(header) - 1)], payload])
    with pytest.raises(StreamError):
        wire.decode([header, payload[: min(length, len(payload) - 1)]])
    with pytest.raises(StreamError):
        wire.decode([header])


def forged(**changes: object) -> list[bytes]:
    header = msgspec.msgpack.decode(valid()[0])
    for key, value in changes.items():
        (header["body"] if key in header["body"] else header)[key] = value
    return [msgspec.msgpack.encode(header), valid()[1]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "protocol 2, wanted 1"),
        ({"count": 2**40}, "count"),
        ({"count": 4}, "wanted one of 4 x 8 bytes"),
        ({"item": "pickles"}, "items of type 'pickles'"),
        ({"end_us": 3}, "goes back in time or leaves"),
        ({"end_us": -1}, "5 items in the span"),
        ({"start_us": 2**63}, "start_us"),
        ({"sequence": -1}, "sequence"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_forged_headers_are_refused_with_words(changes: dict[str, object], words: str) -> None:
    with pytest.raises(StreamError, match=words):
        wire.decode(forged(**changes))


def test_a_huge_array_claim_is_refused_before_anything_is_allocated() -> None:
    frames = [bytes(f) for f in wire.encode(Deploy(0, 1, {"w": np.zeros((2, 2), np.float32)}), stream="s", sequence=0)]
    header = msgspec.msgpack.decode(frames[0])
    header["body"]["arrays"][0]["shape"] = [2**31, 2**31, 2**31]
    with pytest.raises(StreamError, match="array w has 16 bytes"):
        wire.decode([msgspec.msgpack.encode(header), frames[1]])
