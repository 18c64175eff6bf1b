"""Teaching by showing: where label marks stand, whatever packets look like; a lesson is replayed to the bit."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.desk import Desk, Press, press
from stream.errors import ConfigError
from stream.host import Control
from stream.keys import Keys
from stream.operator import Port, Snapshot, Source
from stream.packet import EVENT_DTYPE, Correct, Deploy, End, Forget, Label, Mark, Message, Packet, Reset, Show
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.run import run
from stream.teach import Teach, read_taught, write_taught


class Given(Source):
    """Hands out what it was given."""

    def __init__(self, messages: list[Message]) -> None:
        self.outputs = {"events": Port("events", 8, 8)}
        self.messages, self.at = messages, 0

    def poll(self, max_items: int) -> Message | None:
        self.at += 1
        return self.messages[self.at - 1] if self.at <= len(self.messages) else End(0)

    def snapshot(self) -> Snapshot:
        return {"at": np.array(self.at)}

    def restore(self, snapshot: Snapshot) -> None:
        self.at = int(snapshot["at"])


def events_at(times: list[int]) -> Any:
    events = np.zeros(len(times), EVENT_DTYPE)
    events["t"] = times
    return events


def drained(source: Source) -> tuple[list[int], list[tuple[int, Mark]]]:
    """Return the times of all events, and each mark with the number of events before it."""
    times: list[int] = []
    marks: list[tuple[int, Mark]] = []
    while not isinstance(message := source.poll(1000), End):
        if isinstance(message, Packet):
            assert all(message.start_us <= t < message.end_us for t in message.items["t"])
            times += message.items["t"].tolist()
        elif message is not None:
            marks.append((len(times), message))
    return times, marks


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40).map(sorted),
    st.sets(st.integers(0, 40)),
    st.integers(1, 90),
    st.integers(-1, 3),
)
def test_marks_stand_at_multiples_of_the_period_wherever_packets_are_cut(
    times: list[int], cuts: set[int], period_us: int, shown: int
) -> None:
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(times)), len(times)]
    packets: list[Message] = []
    for first, stop in itertools.pairwise(edges):
        packets.append(Packet(events_at(times[first:stop]), times[first], times[stop - 1] + 1))
    source = Teach(Given(packets), period_us=period_us)
    source.show(shown)
    got, marks = drained(source)
    assert got == times

    # the reference: a mark at the end of each period that holds an event and is followed by a later one
    wanted: list[tuple[int, Mark]] = [(0, Show(times[0], shown))] if shown != -1 else []
    start_us, taught = times[0], shown != -1
    for before, after in itertools.pairwise(times):
        if before // period_us != after // period_us:
            end_us = (before // period_us + 1) * period_us
            number = sum(t < end_us for t in times)
            wanted.append((number, Label(end_us, shown if taught else -1, start_us, taught)))
            start_us = end_us
    assert marks == wanted


def test_only_what_was_shown_from_beginning_to_end_is_taught() -> None:
    packets: list[Message] = [Packet(events_at([t]), t, t + 1) for t in range(0, 100, 5)]
    source = Teach(Given([Reset(0), *packets]), period_us=20)
    labels, shows = [], []
    while not isinstance(message := source.poll(1), End):
        if isinstance(message, Show):
            shows.append((message.t_us, message.label))
        if isinstance(message, Packet) and message.start_us == 25:
            source.show(2)
        if isinstance(message, Packet) and message.start_us == 65:
            source.show(-1)
        if isinstance(message, Label):
            labels.append((message.start_us, message.t_us, message.label, message.teach))
    assert labels == [(0, 20, -1, False), (20, 40, -1, False), (40, 60, 2, True), (60, 80, -1, False)]
    assert shows == [(26, 2), (66, -1)]


def test_what_a_person_says_stands_where_it_was_said() -> None:
    packets: list[Message] = [Packet(events_at([t]), t, t + 1) for t in range(0, 100, 5)]
    source = Teach(Given(packets), period_us=1000)
    source.forget(4)  # before the stream: at its begin
    said: list[tuple[int, Mark]] = []
    n = 0
    while not isinstance(message := source.poll(1), End):
        if isinstance(message, Packet):
            n += 1
            if message.start_us == 25:
                source.correct(2)
                source.load({"prototype": np.ones((2, 3), np.float32)})
        elif message is not None:
            said.append((n, message))
    assert said[:2] == [(0, Forget(0, 4)), (6, Correct(26, 2))]
    (at, loaded) = said[2]
    assert isinstance(loaded, Deploy)
    assert (at, loaded.t_us, loaded.arrays["prototype"].shape) == (6, 26, (2, 3))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30).map(sorted), st.integers(0, 60))
def test_a_snapshot_anywhere_goes_on_to_the_same_stream(times: list[int], n_before: int) -> None:
    packets: list[Message] = [Reset(0), Packet(events_at(times), times[0], times[-1] + 1), Label(times[-1], 5, 0)]
    first, second = (Teach(Given(packets), period_us=20) for _ in range(2))
    first.show(1)
    for _ in range(n_before):
        if isinstance(first.poll(1000), End):
            break
    second.restore(first.snapshot())
    assert drained(second) == drained(first)


def test_a_period_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        Teach(Given([]), period_us=0)


def test_new_names_take_free_classes(tmp_path: Path) -> None:
    desk = Desk(Keys(Pipeline(name="p", source=[SourceSpec(name="s", kind="x.Y")])), tmp_path)
    try:
        desk.n_classes = 3
        told = []
        for name in ("cup", "pen", "cup", "", "0", "2", "7", "one too many", " "):
            told.append(desk._show(name.strip()))
        assert told == [[Control(show=k)] if k is not None else [] for k in (0, 1, 0, -1, None, 2, None, None, -1)]
        assert desk.names == {"cup": 0, "pen": 1, "2": 2}
        assert desk._understand(b'{"correct": "pen"}') == [Control(correct=1)]
        assert desk._understand(b'{"forget": "cup"}') == [Control(forget=0)]
        assert desk._understand(b'{"forget": "cup"}') == []
        assert desk._understand(b'{"correct": "key"}') == [Control(correct=0)], "the unit was free"
        path = tmp_path / "taught.safetensors"
        (saved,) = desk._understand(json.dumps({"save": str(path)}).encode())
        assert saved == Control(save=str(path), names={"key": 0, "pen": 1, "2": 2})
        write_taught(path, {"taught.prototype": np.ones((2, 3), np.float32)}, {"hat": 2})
        assert desk._understand(json.dumps({"load": str(path)}).encode()) == [Control(load=str(path))]
        assert desk.names == {"hat": 2}
        path.write_bytes(b"torn")
        assert desk._understand(json.dumps({"load": str(path)}).encode()) == []
        with pytest.raises(ConfigError, match="teach --save"):
            read_taught(path)
        assert press(str(tmp_path), Press(show="cup"))
    finally:
        desk.close()


@pytest.mark.slow
def test_a_lesson_is_learned_recorded_and_replayed_to_the_bit(tmp_path: Path) -> None:
    """A class is taught for a part of the stream: the answer becomes that class, and stays it afterwards."""
    lesson = tmp_path / "lesson.hbs"
    camera = {"width": 34, "height": 34, "duration_us": 3_000_000, "seed": 3}
    source = SourceSpec(
        name="camera", kind="sources.simulated.SimulatedCamera", params=camera, teach_us=100_000, packet_items=256
    )
    learner = {"width": 34, "height": 34, "n_hidden": 60, "n_classes": 4, "weight_rate": 0.01}

    def pipeline(first: SourceSpec, out: str) -> Pipeline:
        return Pipeline(
            name="lesson",
            source=[first],
            operator=[
                OperatorSpec(name="learner", kind="plasticity.learner.OnlineLearner", params=learner),
                OperatorSpec(
                    name="recorder",
                    kind="stream.record.Recorder",
                    params={"path": str(tmp_path / out), "ports": {"events": "events", "answers": "answers"}},
                ),
            ],
            edge=[
                EdgeSpec(source="camera.events", target="learner.events"),
                EdgeSpec(source="camera.events", target="recorder.events"),
                EdgeSpec(source="learner.answers", target="recorder.answers"),
            ],
        )

    stream_us = 0
    told: list[int] = []

    def on_status(statuses: Any, phase: str) -> None:
        nonlocal stream_us
        stream_us = max((status.stream_us for status in statuses.values()), default=0)

    def controls() -> list[Control]:
        if not told:
            told.append(3)
            return [Control(show=3)]
        if told == [3] and stream_us > 1_500_000:
            told.append(-1)
            return [Control(show=-1)]
        return []

    source.speed = 4.0
    run(pipeline(source, "lesson.hbs"), processes=False, on_status=on_status, controls=controls)
    answers = read_recording(lesson).items("answers")
    taught, after = answers[answers["teach"] == 1], answers[answers["teach"] == 0][-5:]
    assert told == [3, -1]
    assert len(taught) >= 5
    assert set(taught["label"]) == {3}
    assert after["t"][0] > taught["t"][-1]
    assert np.mean(after["answer"] == 3) >= 0.8
    again = SourceSpec(
        name="camera", kind="sources.recorded.RecordedStream", params={"path": str(lesson), "port": "events"}
    )
    run(pipeline(again, "again.hbs"), processes=False)
    assert read_recording(tmp_path / "again.hbs").items("answers").tolist() == answers.tolist()
