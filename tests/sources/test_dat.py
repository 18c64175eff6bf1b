"""DAT against a reference in plain Python, the ground truth of a recording, and what others read and write."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.dat import DatDecoder, DatWriter
from sources.event_file import read_events
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE


def reference(data, version):
    """Read record by record, from the description of the format."""
    out, last, epoch = [], 0, 0
    for at in range(0, len(data) // 8 * 8, 8):
        time, address = struct.unpack("<II", data[at : at + 8])
        if time < last - 2**31:
            epoch += 2**32
        last = time
        if version == 1:
            x, y, p = address & 0x1FF, address >> 9 & 0xFF, address >> 17 & 1
        else:
            x, y, p = address & 0x3FFF, address >> 14 & 0x3FFF, int(address >> 28 != 0)
        out.append((time + epoch, x, y, p))
    return out


def drain(decoder):
    parts, fault = [], ""
    try:
        for events in decoder:
            parts += events.tolist()
    except FormatError as error:
        fault = str(error)
    return parts, fault


records = st.lists(st.tuples(st.sampled_from([0, 5, 2**31, 2**31 + 6, 2**32 - 1]), st.integers(0, 2**32 - 1)))


@pytest.mark.parametrize("version", [1, 2])
@given(records=records, tail=st.binary(max_size=7))
def test_any_records_agree_with_plain_python(tmp_path_factory, version, records, tail):
    data = b"".join(struct.pack("<II", *record) for record in records) + tail
    path = tmp_path_factory.getbasetemp() / "a.dat"
    path.write_bytes(b"head" + data)
    events, fault = drain(DatDecoder(path, 4, version=version))
    assert events == reference(data, version)
    size = 4 + len(data)
    assert (f"at byte {size - len(tail)} of {size}: got {len(tail)} bytes, wanted 8" in fault) == bool(tail)


def test_a_recording(data):
    recording = read_events(data / "dat/ncars_sample.dat")
    assert (len(recording.events), recording.fault) == (2009, "")
    assert recording.events["x"].sum() == 93457
    assert recording.events["y"].sum() == 40463
    assert recording.events["p"].sum() == 1350
    assert recording.events["t"][-1] == 99952


def test_times_wrap_and_longer_silence_is_refused(tmp_path):
    t_us = np.array([2**32 - 1, 2**32, 2**32 + 2**31 - 1, 2**33, 2**33 + 5])
    events = np.zeros(len(t_us), EVENT_DTYPE)
    events["t"] = t_us
    with DatWriter(tmp_path / "a.dat", 640, 480) as writer:
        with pytest.raises(FormatError, match="event 3 .*35.8 min"):  # 2^31 + 1 us after the one before
            writer.write(events)
        events["t"][3:] -= 2
        writer.write(events[3:])
    np.testing.assert_array_equal(read_events(tmp_path / "a.dat").events, events)


def some_events(n):
    rng = np.random.default_rng(2)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 10_000_000, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 640, n), rng.integers(0, 480, n), rng.integers(0, 2, n)
    return events


def test_faery_reads_what_we_write(tmp_path):
    faery = pytest.importorskip("faery")
    events = some_events(5000)
    with DatWriter(tmp_path / "a.dat", 640, 480) as writer:
        writer.write(events)
    stream = faery.events_stream_from_file(tmp_path / "a.dat")
    assert tuple(stream.dimensions()) == (640, 480)
    theirs = stream.to_array()
    for ours, their in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
        np.testing.assert_array_equal(theirs[their], events[ours])


def test_we_read_what_faery_writes(tmp_path):
    faery = pytest.importorskip("faery")
    events = some_events(5000)
    stream = faery.events_stream_from_array(events.view(faery.EVENTS_DTYPE), dimensions=(640, 480))
    stream.to_file(tmp_path / "a.dat", zero_t0=False)
    np.testing.assert_array_equal(read_events(tmp_path / "a.dat").events, events)


def test_expelliarmus_reads_what_we_write(tmp_path):
    expelliarmus = pytest.importorskip("expelliarmus")
    events = some_events(5000)
    with DatWriter(tmp_path / "a.dat", 640, 480) as writer:
        writer.write(events)
    theirs = expelliarmus.Wizard(encoding="dat").read(tmp_path / "a.dat")
    for field in "txyp":
        np.testing.assert_array_equal(theirs[field], events[field])
