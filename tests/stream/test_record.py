"""Recordings: everything comes back, and a torn end costs only the torn end."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Label, Loss, Message, Packet, Reset, packet_of
from stream.record import Recorder, is_recording, read_recording, recording_info


def nothing(port: str, message: Message) -> None:
    raise AssertionError("a recorder emits nothing")


def write(path: Path) -> Recorder:
    recorder = Recorder(path=str(path), ports={"a": "events", "b": "spikes", "c": "answers"})
    recorder.on_mark("a", Reset(0), nothing)
    for index in range(5):
        events = np.zeros(10, EVENT_DTYPE)
        events["t"] = np.arange(10) + 10 * index
        recorder.on_packet("a", packet_of(events), nothing)
        spikes = np.zeros(2, SPIKE_DTYPE)
        spikes["t"] = 10 * index
        recorder.on_packet("b", packet_of(spikes), nothing)
    recorder.on_mark("a", Label(50, 3, 0), nothing)
    recorder.on_end(nothing)
    recorder.close()
    return recorder


def test_everything_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "r.hbs")
    recording = read_recording(tmp_path / "deep" / "r.hbs")
    assert recording.torn == ""
    assert recording.ports == {"a": "events", "b": "spikes", "c": "answers"}
    assert recording.items("a")["t"].tolist() == list(range(50))
    assert recording.items("b")["t"].tolist() == [0, 0, 10, 10, 20, 20, 30, 30, 40, 40]
    assert len(recording.items("c")) == 0
    assert recording.marks("a") == [Reset(0), Label(50, 3, 0)]
    with pytest.raises(FormatError, match="no stream 'd'; it has a, b, c"):
        recording.items("d")


def test_a_recording_tells_what_is_in_it_and_what_is_not(tmp_path: Path) -> None:
    path = tmp_path / "r.hbs"
    write(path)
    found = recording_info(path)
    assert is_recording(path)
    assert found["format"] == "hebbstream recording"
    assert found["warnings"] == []
    spikes = {"item": "spikes", "items": 10, "packets": 5, "t_first_us": 0, "t_last_us": 40}
    assert spikes.items() <= found["streams"]["b"].items()
    assert found["streams"]["a"]["marks"] == {"reset": 1, "label": 1}
    assert found["streams"]["c"]["t_first_us"] is None
    recorder = Recorder(path=str(path), ports={"a": "events"})
    for t_us in (0, 100):
        events = np.zeros(10, EVENT_DTYPE)
        events["t"] = t_us
        recorder.on_packet("a", packet_of(events), nothing)
        recorder.on_mark("a", Loss(t_us + 50, t_us, 2, 7), nothing)
    recorder.on_end(nothing)
    recorder.close()
    it = recording_info(path)["streams"]["a"]
    assert (it["items"], it["lost_items"], it["lost_packets"], it["t_last_us"]) == (20, 14, 4, 100)
    path.write_bytes(path.read_bytes()[:-1])
    assert "no whole message" in recording_info(path)["warnings"][0]
    assert not is_recording(tmp_path / "nothing")


@given(st.floats(0, 1))
def test_a_torn_end_costs_only_the_end(share: float) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.hbs"
        write(path)
        whole = path.read_bytes()
        begin = whole.index(b"}\n") + 2
        cut = begin + int(share * (len(whole) - begin))
        path.write_bytes(whole[:cut])
        recording = read_recording(path)
        assert bool(recording.torn) == (cut not in message_ends(whole, begin))
        t = recording.items("a")["t"]
        assert np.array_equal(t, np.arange(len(t)))


def message_ends(data: bytes, begin: int) -> set[int]:
    ends, at = {begin}, begin
    while at < len(data):
        n_frames = int.from_bytes(data[at : at + 4], "little")
        at += 4
        for _ in range(n_frames):
            at += 4 + int.from_bytes(data[at : at + 4], "little")
        ends.add(at)
    return ends


@given(st.binary(max_size=200))
def test_rubbish_behind_the_head_is_reported_not_believed(rubbish: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.hbs"
        path.write_bytes(b'hebbstream recording 1\n{"a":"events"}\n' + rubbish)
        recording = read_recording(path)
        assert bool(recording.torn) == bool(rubbish)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"something else")
    with pytest.raises(FormatError, match="is it a recorder's file"):
        read_recording(tmp_path / "x")
    with pytest.raises(FormatError, match="cannot be read"):
        read_recording(tmp_path / "missing")


def test_restore_cuts_off_what_came_later(tmp_path: Path) -> None:
    path = tmp_path / "r.hbs"
    recorder = Recorder(path=str(path), ports={"a": "events"})
    recorder.on_packet("a", packet_of(np.zeros(3, EVENT_DTYPE)), nothing)
    snapshot = recorder.snapshot()
    recorder.on_packet("a", packet_of(np.zeros(4, EVENT_DTYPE)), nothing)
    recorder.close()
    again = Recorder(path=str(path), ports={"a": "events"})
    again.restore(snapshot)
    again.on_packet("a", packet_of(np.zeros(5, EVENT_DTYPE)), nothing)
    again.close()
    assert [len(message.items) for message in read_recording(path).streams["a"] if isinstance(message, Packet)] == [
        3,
        5,
    ]


def test_unknown_items_and_bad_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="items 'frames', wanted one of events"):
        Recorder(path=str(tmp_path / "r"), ports={"a": "frames"})
    with pytest.raises(ConfigError, match="cannot be written there"):
        Recorder(path=str(tmp_path), ports={"a": "events"})
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written there"):
        Recorder(path=str(tmp_path / "file" / "r.hbs"), ports={"a": "events"})
