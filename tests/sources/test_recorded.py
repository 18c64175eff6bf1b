"""A recording played again gives what was recorded."""

from pathlib import Path

import numpy as np
import pytest

from sources.recorded import RecordedStream
from stream.errors import ConfigError
from stream.packet import EVENT_DTYPE, End, Label, Message, Packet, Reset, packet_of
from stream.record import Recorder


def nothing(port: str, message: Message) -> None:
    raise AssertionError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    recorder = Recorder(path=str(tmp_path / "r.hbs"), ports={"events": "events", "other": "spikes"})
    t = 0
    for window in range(4):
        recorder.on_mark("events", Reset(t), nothing)
        recorder.on_mark("other", Reset(t), nothing)
        events = np.zeros(57, EVENT_DTYPE)
        events["t"] = t + np.arange(57) // 2
        events["x"] = np.arange(57) % 5
        recorder.on_packet("events", Packet(events, t, t + 40), nothing)
        recorder.on_packet("events", packet_of(events[:0], start_us=t + 45), nothing)
        t += 50
        recorder.on_mark("events", Label(t, window, t - 50), nothing)
    recorder.on_end(nothing)
    recorder.close()
    return tmp_path / "r.hbs"


def played(source: RecordedStream, max_items: int) -> list[Message]:
    messages: list[Message] = []
    while not messages or not isinstance(messages[-1], End):
        message = source.poll(max_items)
        assert message is not None
        messages.append(message)
    return messages


def shown(messages: list[Message]) -> list[object]:
    """Join packets between marks."""
    out: list[object] = [b""]
    for message in messages:
        if isinstance(message, Packet):
            assert np.all((message.items["t"] >= message.start_us) & (message.items["t"] < message.end_us))
            assert isinstance(out[-1], bytes)
            out[-1] += message.items.tobytes()
        else:
            out.extend([message, b""])
    return out


@pytest.mark.parametrize("max_items", [1, 7, 56, 57, 1000])
def test_any_cut_plays_the_same(path: Path, max_items: int) -> None:
    whole = shown(played(RecordedStream(path=str(path), port="events"), 10**6))
    assert shown(played(RecordedStream(path=str(path), port="events"), max_items)) == whole
    assert sum(isinstance(each, Label) for each in whole) == 4
    assert sum(len(each) for each in whole if isinstance(each, bytes)) == 4 * 57 * EVENT_DTYPE.itemsize


@pytest.mark.parametrize("at", [0, 1, 2, 5, 9, 20])
def test_restored_anywhere_it_goes_on(path: Path, at: int) -> None:
    first = RecordedStream(path=str(path), port="events")
    messages = [message for _ in range(at) if (message := first.poll(10)) is not None]
    second = RecordedStream(path=str(path), port="events")
    second.restore(first.snapshot())
    assert shown(messages + played(second, 10)) == shown(played(RecordedStream(path=str(path), port="events"), 10))


def test_a_torn_end_is_told_after_what_is_whole(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])
    messages = played(RecordedStream(path=str(path), port="events"), 1000)
    end = messages[-1]
    assert isinstance(end, End)
    assert "are no whole message" in end.reason
    assert sum(isinstance(message, Label) for message in messages) == 3
    assert RecordedStream(path=str(path), port="other").outputs["events"].item == "spikes"


def test_the_port_must_be_named_if_there_are_several(path: Path) -> None:
    with pytest.raises(ConfigError, match="port None, wanted one of events, other"):
        RecordedStream(path=str(path))
    with pytest.raises(ConfigError, match="port 'x', wanted"):
        RecordedStream(path=str(path), port="x")
