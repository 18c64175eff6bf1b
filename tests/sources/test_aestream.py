"""aestream in a process of its own: exact where it is exact, harmless where it crashes."""

import os
import signal
import time

import numpy as np
import pytest

from sources.aestream_source import AestreamFile
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, End, Packet


def some_events(n, width=304, height=240):
    rng = np.random.default_rng(7)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 5_000_000, n))
    events["x"], events["y"], events["p"] = rng.integers(0, width, n), rng.integers(0, height, n), rng.integers(0, 2, n)
    return events


def write_dat(path, events):
    words = np.zeros(len(events), [("t", "<u4"), ("address", "<u4")])
    x, y, p = (events[name].astype(np.uint32) for name in "xyp")
    words["t"], words["address"] = events["t"], x | y << 14 | p << 28
    path.write_bytes(b"% Version 2\n% Width 304\n% Height 240\n" + bytes([0, 8]) + words.tobytes())
    return str(path)


def drain(source, *, max_items=5000, limit_s=60.0):
    """Return all events and the End."""
    parts, until = [np.empty(0, EVENT_DTYPE)], time.monotonic() + limit_s
    while time.monotonic() < until:
        message = source.poll(max_items)
        if isinstance(message, End):
            assert source.poll(max_items) == message
            return np.concatenate(parts), message
        if isinstance(message, Packet):
            assert 0 < len(message.items) <= max_items
            parts.append(message.items)
        else:
            time.sleep(0.001)
    raise AssertionError("no End")


@pytest.fixture
def aestream():
    return pytest.importorskip("aestream", reason="aestream has wheels for Linux x86-64 and Python 3.11 only")


@pytest.mark.usefixtures("aestream")
class TestFile:
    def test_a_dat_file_comes_out_exactly(self, tmp_path):
        events = some_events(200_000)
        got, end = drain(AestreamFile(path=write_dat(tmp_path / "a.dat", events), width=304, height=240))
        assert end == End(int(events["t"][-1]) + 1)
        assert got.tobytes() == events.tobytes()

    def test_events_outside_of_the_given_size_are_dropped_not_a_crash(self, tmp_path):
        events = some_events(10_000)
        source = AestreamFile(path=write_dat(tmp_path / "a.dat", events), width=100, height=50)
        got, end = drain(source)
        inside = events[(events["x"] < 100) & (events["y"] < 50)]
        assert not end.reason
        assert got.tobytes() == inside.tobytes()
        assert source.statistics()["outside dropped"] == len(events) - len(inside)

    def test_a_killed_child_ends_the_stream_after_what_came(self, tmp_path):
        events = some_events(500_000)  # many times what the pipe holds, so the child still has most of it
        source = AestreamFile(path=write_dat(tmp_path / "a.dat", events), width=304, height=240)
        message = None
        while message is None:
            message = source.poll(1000)
        os.kill(source._child.process.pid, signal.SIGKILL)
        got, end = drain(source)
        assert "signal 9 (SIGKILL)" in end.reason
        n_first = len(message.items)
        assert 0 < len(got) < len(events)
        assert got.tobytes() == events[n_first : n_first + len(got)].tobytes()

    def test_a_file_on_which_aestream_hangs_or_fails_is_an_end_with_a_reason(self, tmp_path):
        path = tmp_path / "a.dat"
        path.write_bytes(b"\x00")
        source = AestreamFile(path=str(path), width=304, height=240, silence_s=5)
        got, end = drain(source)
        assert not len(got)
        assert "aestream" in end.reason

    def test_a_snapshot_continues(self, tmp_path):
        events = some_events(5000)
        path = write_dat(tmp_path / "a.dat", events)
        source = AestreamFile(path=path, width=304, height=240)
        n = 0
        while n < 1000:
            message = source.poll(300)
            n += len(message.items) if isinstance(message, Packet) else 0
        fresh = AestreamFile(path=path, width=304, height=240)
        fresh.restore(source.snapshot())
        source.close()
        source.close()
        got, _ = drain(fresh)
        assert got.tobytes() == events[n:].tobytes()
        with pytest.raises(ConfigError, match="stands at event 6000, but only 5000"):
            fresh.restore({"n_out": np.array(6000)})

    def test_what_aestream_decodes_wrongly_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"EventFile"):
            AestreamFile(path=str(tmp_path / "a.raw"), width=10, height=10)
        with pytest.raises(FormatError, match="no such file"):
            AestreamFile(path=str(tmp_path / "a.dat"), width=10, height=10)


def test_without_aestream_the_way_out_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'hebbstream\[aestream\]'"):
        AestreamFile(path=write_dat(tmp_path / "a.dat", some_events(3)), width=10, height=10)
