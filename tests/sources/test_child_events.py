"""Children that end in every way a child can."""

import sys
import time

import numpy as np

from sources.child_events import ChildEvents
from stream.packet import EVENT_DTYPE


def python(code):
    return [sys.executable, "-c", code]


def drain(child):
    parts = [np.empty(0, EVENT_DTYPE)]
    while child.fault is None:
        events = child.read(1 << 30)
        if events is None:
            time.sleep(0.001)
        else:
            parts.append(events)
    return np.concatenate(parts)


def test_a_crash_of_the_child_is_told_with_its_signal():
    code = "import os,sys; sys.stdout.buffer.write(b'1'*39); sys.stdout.flush(); os.kill(os.getpid(), 11)"
    child = ChildEvents(python(code), silence_s=30)
    assert len(drain(child)) == 3
    assert child.fault == "was ended by signal 11 (SIGSEGV)"


def test_an_exit_code_is_told_with_the_last_words():
    child = ChildEvents(python("raise ValueError('no such sensor')"), silence_s=30)
    drain(child)
    assert child.fault == "failed with exit code 1: ValueError: no such sensor"


def test_a_torn_record_is_told():
    child = ChildEvents(python("import os; os.write(1, b'1' * 20)"), silence_s=30)
    assert len(drain(child)) == 1
    assert child.fault == "ended inside of an event (7 of 13 bytes)"


def test_silence_is_ended_and_nothing_is_left_running():
    child = ChildEvents(python("import os,time; os.write(1, b'1' * 13); time.sleep(600)"), silence_s=1)
    assert len(drain(child)) == 1
    assert child.fault == "said nothing for 1 s and was killed"
    assert child.process.returncode == -9


def test_reading_never_blocks():
    child = ChildEvents(python("import time; time.sleep(600)"), silence_s=600)
    begin = time.monotonic()
    assert child.read(100) is None
    assert time.monotonic() - begin < 0.5
    child.close()
    child.close()
    assert child.process.returncode == -9


def test_bytes_come_as_they_are():
    child = ChildEvents(python("print('some text')"), silence_s=30)
    parts = []
    while child.fault is None:
        parts.append(child.read_bytes(4) or b"")
    assert b"".join(parts).strip() == b"some text"
    assert max(map(len, parts)) <= 4
    assert child.fault == ""
