"""Fan-in: one order whatever arrives first, and what comes too late is told."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError
from stream.merge import Merge
from stream.packet import EVENT_DTYPE, Label, Loss, Message, Packet, Reset, packet_of

Entry = tuple[int, int, int]  # time, input, number within the input


def stream(data: st.DataObject, index: int) -> list[tuple[int, Label | None]]:
    """Times of one input, some of them those of marks."""
    gaps = data.draw(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=30))
    t, found = 0, []
    for number, (gap, kind) in enumerate(gaps):
        t += gap
        found.append((t, Label(t, 1000 * index + number, 0) if kind == 0 else None))
    return found


def messages(data: st.DataObject, index: int, content: list[tuple[int, Label | None]]) -> list[Message]:
    """The same stream, cut at random."""
    out: list[Message] = []
    run: list[tuple[int, int]] = []

    def cut() -> None:
        events = np.zeros(len(run), EVENT_DTYPE)
        events["t"] = [t for t, _ in run]
        events["x"] = [number for _, number in run]
        events["y"] = index
        if run:
            out.append(packet_of(events))
        run.clear()

    for number, (t, mark) in enumerate(content):
        if mark is not None:
            cut()
            out.append(mark)
            continue
        run.append((t, number))
        if data.draw(st.booleans()):
            cut()
    cut()
    return out


def flat(out: list[Message]) -> list[Entry]:
    found: list[Entry] = []
    last = -1
    for message in out:
        if isinstance(message, Packet):
            assert len(message.items) == 0 or message.start_us >= last - 1
            for event in message.items:
                assert message.start_us <= event["t"] < message.end_us
                found.append((int(event["t"]), int(event["y"]), int(event["x"])))
        else:
            assert isinstance(message, Label)
            found.append((message.t_us, message.label // 1000, message.label % 1000))
        last = found[-1][0] if found else -1
    return found


@given(st.data(), st.integers(1, 3))
def test_the_order_is_that_of_time_whatever_arrives_first(data: st.DataObject, n: int) -> None:
    contents = [stream(data, index) for index in range(n)]
    names = [f"in{index}" for index in range(n)]
    merge = Merge(inputs=names, lateness_us=10**6)  # within the bound whatever the order
    queues = [messages(data, index, content) for index, content in enumerate(contents)]
    out: list[Message] = []

    def emit(port: str, message: Message) -> None:
        assert port == "events"
        out.append(message)

    while any(queues):
        index = data.draw(st.sampled_from([index for index, queue in enumerate(queues) if queue]))
        message = queues[index].pop(0)
        if isinstance(message, Packet):
            merge.on_packet(names[index], message, emit)
        else:
            merge.on_mark(names[index], message, emit)
        if data.draw(st.integers(0, 9)) == 0:  # interrupted and restored
            kept = merge.snapshot()
            merge = Merge(inputs=names, lateness_us=10**6)
            merge.restore(kept)
    merge.on_end(emit)
    wanted = [(t, index, number) for index, content in enumerate(contents) for number, (t, _) in enumerate(content)]
    assert flat(out) == sorted(wanted)


def events(*times: int) -> Packet:
    array = np.zeros(len(times), EVENT_DTYPE)
    array["t"] = times
    return packet_of(array)


def test_a_silent_input_is_waited_for_no_longer_than_said_and_what_is_late_is_told() -> None:
    out: list[Message] = []
    merge = Merge(inputs=["left", "right"], lateness_us=100)
    merge.on_packet("left", events(0, 50), lambda _, message: out.append(message))
    assert not [message for message in out if isinstance(message, Packet) and len(message.items)]
    merge.on_packet("left", events(120, 200), lambda _, message: out.append(message))
    assert [int(t) for message in out if isinstance(message, Packet) for t in message.items["t"]] == [0, 50]
    out.clear()
    merge.on_packet("right", events(10, 60, 99, 100, 130), lambda _, message: out.append(message))
    assert out[0] == Loss(100, 10, 1, 3, "late")
    merge.on_mark("right", Reset(5), lambda _, message: out.append(message))  # let through, at the time reached
    merge.on_end(lambda _, message: out.append(message))
    assert [int(t) for message in out if isinstance(message, Packet) for t in message.items["t"]] == [
        100,
        120,
        130,
        200,
    ]
    assert [message.t_us for message in out if isinstance(message, Reset)] == [130]
    assert merge.statistics() == {"merged": 6.0, "waiting": 0.0, "late left": 0.0, "late right": 3.0}


def test_side_by_side() -> None:
    out: list[Message] = []
    merge = Merge(inputs=["a", "b"], width=100, height=80, beside=True)
    assert merge.outputs["events"].width == 200
    merge.on_packet("b", events(1), lambda _, message: out.append(message))
    merge.on_packet("a", events(2), lambda _, message: out.append(message))
    merge.on_end(lambda _, message: out.append(message))
    found = [int(x) for message in out if isinstance(message, Packet) for x in message.items["x"]]
    assert found == [100, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": []},
        {"inputs": ["a", "a"]},
        {"inputs": ["a"], "item": "answers"},
        {"inputs": ["a"], "lateness_us": -1},
        {"inputs": ["a", "b"], "beside": True},
        {"inputs": ["a", "b"], "beside": True, "width": 20_000},
    ],
)
def test_what_cannot_be_merged(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="merge"):
        Merge(**wrong)


def test_a_foreign_snapshot() -> None:
    merge = Merge(inputs=["a", "b"])
    with pytest.raises(ConfigError, match="snapshot of merge"):
        merge.restore(Merge(inputs=["a"]).snapshot())
