"""A part of a source, again and again, with jumps: and told what to do while it runs."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigError
from stream.host import Control, Status
from stream.keys import Keys
from stream.packet import End, Label, Packet, Reset
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import recorded_messages
from stream.replay import Replay
from stream.run import run

sys.path.append(str(Path(__file__).parents[1] / "toys"))
from toy_members import Count


def played(source, max_items=7):
    """Return times and columns of the items, the marks, and the end."""
    items, marks = [], []
    while not isinstance(message := source.poll(max_items), End):
        if isinstance(message, Packet):
            assert len(message.items) <= max_items
            times = message.items["t"]
            assert ((message.start_us <= times) & (times < message.end_us)).all()
            assert not items or message.start_us >= items[-1][0]
            items += [(int(item["t"]), int(item["x"])) for item in message.items]
        else:
            marks.append((len(items), message))
    return items, marks, message


@given(
    start=st.integers(0, 1300),
    duration=st.none() | st.integers(1, 1300),
    loop=st.integers(1, 3),
    cuts=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_a_window_played_several_times(start, duration, loop, cuts):
    def make():
        return Replay(Count(n=100, mark_every=13), start_us=start, duration_us=duration, loop=loop)

    items, marks, end = played(make(), cuts[0])
    assert (items, marks, end) == played(make(), cuts[1])
    stop = start + duration if duration is not None else 10**9
    wanted = [(10 * k, k % 10) for k in range(100) if start <= 10 * k < stop]
    seams = [(at, mark) for at, mark in marks if isinstance(mark, Reset) and at and at % max(1, len(wanted)) == 0]
    assert len(items) in ({len(wanted) * loop} if wanted else {0})
    assert [x for _, x in items] == [x for _, x in wanted] * loop
    times = [t for t, _ in items]
    assert times == sorted(times)
    assert times[: len(wanted)] == [t for t, _ in wanted]
    if wanted and loop > 1:
        assert len(seams) >= loop - 1
        gaps = np.diff(np.array(times).reshape(loop, -1), axis=0)
        assert (gaps == gaps[:, :1]).all(), "each round is the first, moved by a constant"


def test_labels_move_with_their_round():
    _, marks, _ = played(Replay(Count(n=26, mark_every=13), loop=2))
    labels = [mark for _, mark in marks if isinstance(mark, Label)]
    assert [(mark.t_us, mark.start_us) for mark in labels] == [(130, 0), (260, 0), (390, 260), (520, 260)]


@given(stop=st.integers(0, 30), jump=st.none() | st.integers(0, 900))
def test_restored_in_the_middle_it_goes_on_as_if_never_stopped(stop, jump):
    def make():
        return Replay(Count(n=80, mark_every=13), start_us=100, duration_us=500, loop=3)

    source = make()
    for k in range(stop):
        if k == stop // 2 and jump is not None:
            source.seek(jump)
        source.poll(9)
    snapshot = source.snapshot()
    again = make()
    again.restore(snapshot)
    assert played(again) == played(source)


def test_seek_goes_back_while_stream_time_goes_on():
    source = Replay(Count(n=100))
    first = source.poll(30)
    assert source.position_us() == first.end_us
    source.seek(50)
    assert source.poll(10) == Reset(first.end_us)
    packet = source.poll(10)
    assert packet.items["x"].tolist() == [5, 6, 7, 8, 9]  # of the ten it was given
    assert packet.items["t"][0] == first.end_us
    source.seek(10**9)
    _, _, end = played(source)
    assert "nothing" in end.reason
    source.seek(0)
    assert len(played(source)[0]) == 100


@pytest.mark.parametrize("wrong", [{"start_us": -1}, {"duration_us": 0}, {"loop": -1}])
def test_windows_that_are_none(wrong):
    with pytest.raises(ConfigError, match="wanted a start"):
        Replay(Count(), **wrong)


def test_a_fault_is_not_played_again():
    _, _, end = played(Replay(Count(n=100, fail_at=50), loop=5))
    assert end.reason == "torn"


def pipeline(path: Path, **source: object) -> Pipeline:
    """Make count -> recorder, paced so that a person could follow."""
    recorder = {"path": str(path), "ports": {"in": "events"}}
    return Pipeline(
        name="toy",
        source=[SourceSpec(name="count", kind="toy_members.Count", packet_items=10, **source)],
        operator=[OperatorSpec(name="recorder", kind="stream.record.Recorder", params=recorder)],
        edge=[EdgeSpec(source="count.events", target="recorder.in")],
    )


@pytest.mark.parametrize("processes", [False, True])
def test_told_while_it_runs(tmp_path: Path, toys: list[str], processes: bool) -> None:
    """Paused at once; three steps; then back to the beginning and as fast as possible to the end."""
    described = pipeline(tmp_path / "r.hbs", params={"n": 100_000}, speed=1e-3, seekable=True)
    script = [
        Control(pause=True),
        Control(steps=1),
        Control(steps=1),
        Control(steps=1),
        Control(seek_us=0, speed="max", pause=False),
    ]
    seen: list[int] = []

    def on_status(statuses: dict[str, Status], phase: str) -> None:
        seen.extend(end.counts.sent_messages for status in statuses.values() for end in status.edges)

    def controls() -> list[Control]:
        return [script.pop(0)] if script and seen else []

    result = run(described, processes=processes, plugins=toys, on_status=on_status, controls=controls)
    assert all(ledger.is_balanced for ledger in result.ledgers)
    messages = [message for _, message, _ in recorded_messages(tmp_path / "r.hbs")]
    resets = [index for index, message in enumerate(messages) if isinstance(message, Reset)]
    assert len(resets) == 1
    before = sum(len(message.items) for message in messages[: resets[0]] if isinstance(message, Packet))
    after = sum(len(message.items) for message in messages[resets[0] :] if isinstance(message, Packet))
    assert before >= (10 if processes else 30), "steps that a seek overtakes are forgotten"
    assert after == 100_000


def test_keys_mean_controls() -> None:
    keys = Keys(Pipeline(name="toy", source=[SourceSpec(name="a", kind="x.Y", speed=2.0)]))
    assert keys.control(" ") == Control(pause=True)
    assert keys.words() == "paused"
    assert keys.control(" ") == Control(pause=False)
    assert keys.control("+") == Control(speed=4.0)
    assert keys.control("-") == Control(speed=2.0)
    assert keys.control("m") == Control(speed="max")
    assert keys.control("m") == Control(speed=2.0)
    assert keys.control("<") == Control(seek_by_us=-10_000_000)
    assert keys.control("q") is None
    assert keys() == []


def test_keys_typed_at_a_terminal(tmp_path: Path) -> None:
    """A real pseudo-terminal: space pauses a slow replay, `m` lets it race to its end."""
    file = tmp_path / "a.csv"
    file.write_text("t,x,y,p\n" + "".join(f"{k * 1000},1,2,1\n" for k in range(60_000)))
    master, slave = pty.openpty()
    command = [sys.executable, "-P", "-m", "stream", "replay", str(file), "--to", str(tmp_path / "b.hbs")]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, process_group=0)
    os.close(slave)
    screen = b""

    def wait_for(word: bytes) -> None:
        nonlocal screen
        deadline = time.monotonic() + 60
        while word not in screen:
            assert time.monotonic() < deadline, screen[-3000:]
            if select.select([master], [], [], 0.2)[0]:
                screen += os.read(master, 65536)

    try:
        wait_for(b"1 x real time")
        os.write(master, b" ")
        wait_for(b"paused")
        os.write(master, b" m")
        wait_for(b"ledger: sent = delivered + dropped")
        while process.poll() is None:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    screen += os.read(master, 65536)
                except OSError:
                    break
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        os.close(master)
    messages = [message for _, message, _ in recorded_messages(tmp_path / "b.hbs")]
    assert sum(len(message.items) for message in messages if isinstance(message, Packet)) == 60_000
