"""Labelled folders: what is played, in which order, and what is refused."""

import msgspec
import numpy as np
import pytest

from sources.event_file import read_events
from sources.folder import LabelledFolder, Part
from stream.errors import ConfigError
from stream.packet import Barrier, End, Label, Packet, Reset


def play(source, max_items=1000):
    messages = []
    while True:
        messages.append(source.poll(max_items))
        if isinstance(messages[-1], End):
            return messages


def labels(source):
    return [message.label for message in play(source) if isinstance(message, Label)]


def test_each_recording_is_reset_events_label(labelled):
    source = LabelledFolder(parts=[Part(path=str(labelled), shuffle_seed=None)], width=34, height=34, gap_us=1000)
    messages = play(source)
    files = sorted(labelled.glob("*/*.bin"))
    assert [message.label for message in messages if isinstance(message, Label)] == [0, 0, 0, 1, 1, 4, 4]
    t_end = -1000
    for index, file in enumerate(files):
        reset, packet, label = messages[3 * index : 3 * index + 3]
        events = read_events(file, width=34, height=34).events
        assert isinstance(reset, Reset)
        assert reset.t_us == t_end + 1000 == packet.items["t"][0]
        np.testing.assert_array_equal(packet.items["t"] - reset.t_us, events["t"] - events["t"][0])
        for axis in "xyp":
            np.testing.assert_array_equal(packet.items[axis], events[axis])
        t_end = int(packet.items["t"][-1]) + 1
        assert label == Label(t_end, int(file.parent.name), reset.t_us, True)
    assert "1 of 7 recordings" in messages[-1].reason
    assert "000.bin" in messages[-1].reason
    assert source.statistics()["damaged files"] == 1


def test_parts_passes_and_order(labelled):
    parts = [
        Part(path=str(labelled), passes=2, shuffle_seed=3),
        Part(path=str(labelled), passes=0),
        Part(path=str(labelled), teach=False, shuffle_seed=None),
    ]
    messages = play(LabelledFolder(parts=parts, width=34, height=34, barrier_every=5))
    seen = [message for message in messages if isinstance(message, Label)]
    assert len(seen) == 21
    assert [label.teach for label in seen] == [True] * 14 + [False] * 7
    first, second, third = ([label.label for label in seen[at : at + 7]] for at in (0, 7, 14))
    assert sorted(first) == sorted(second) == third
    turns = [
        np.diff([reset.t_us for reset in messages if isinstance(reset, Reset)])[at : at + 6].tolist() for at in (0, 7)
    ]
    assert turns[0] != turns[1]  # another order in each pass
    assert [message.number for message in messages if isinstance(message, Barrier)] == [1, 2, 3, 4]


def test_a_limit_cuts_all_labels_down_evenly(labelled):
    for limit, wanted in ((3, [0, 1, 4]), (6, [0, 0, 1, 1, 4, 4]), (100, [0, 0, 0, 1, 1, 4, 4]), (0, [])):
        source = LabelledFolder(parts=[Part(path=str(labelled), limit=limit)], width=34, height=34)
        assert sorted(labels(source)) == wanted


def test_the_environment_names_the_folder(labelled, monkeypatch):
    monkeypatch.setenv("SOME_RECORDINGS", str(labelled.parent))
    part = msgspec.toml.decode('path = "${SOME_RECORDINGS}/set"\nlimit = 2', type=Part)
    assert len(labels(LabelledFolder(parts=[part], width=34, height=34))) == 2
    monkeypatch.delenv("SOME_RECORDINGS")
    with pytest.raises(ConfigError, match="SOME_RECORDINGS is not set"):
        LabelledFolder(parts=[part], width=34, height=34)


def test_folders_with_nothing_to_play_are_refused(tmp_path):
    def build(path):
        return LabelledFolder(parts=[Part(path=str(path))], width=34, height=34)

    with pytest.raises(ConfigError, match="there is no folder"):
        build(tmp_path / "none")
    with pytest.raises(ConfigError, match="holds no recordings"):
        build(tmp_path)
    (tmp_path / "cats").mkdir()
    with pytest.raises(ConfigError, match="'cats' is no label"):
        build(tmp_path)
    with pytest.raises(ConfigError, match="no parts"):
        LabelledFolder(parts=[], width=34, height=34)


def test_a_recording_that_cannot_be_read_at_all_keeps_its_turn(labelled):
    (labelled / "1" / "000.bin").write_bytes(b"")
    source = LabelledFolder(parts=[Part(path=str(labelled), shuffle_seed=None)], width=34, height=34)
    messages = play(source)
    assert len([message for message in messages if isinstance(message, Label)]) == 7
    assert sum(isinstance(message, Packet) for message in messages) == 6
    assert "2 of 7" in messages[-1].reason


def test_a_position_that_is_not_there_is_refused(labelled):
    source = LabelledFolder(parts=[Part(path=str(labelled))], width=34, height=34)
    snapshot = source.snapshot()
    snapshot["index"] = np.array(99)
    with pytest.raises(ConfigError, match="which is not there"):
        source.restore(snapshot)
    with pytest.raises(ConfigError, match="got arrays"):
        source.restore({})
