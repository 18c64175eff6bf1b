"""What holds for every flat format: cut anywhere, torn anywhere, growing, through a pipe, refused, damaged."""

import os
import sys
import threading
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.atis_bin import AtisBinDecoder, AtisBinWriter
from sources.byte_stream import STANDARD_INPUT
from sources.dat import DatDecoder, DatWriter
from sources.event_file import read_events
from sources.event_stream import EventStreamDecoder, EventStreamWriter
from sources.evt import Evt2Writer, Evt3Writer, EvtDecoder
from sources.text_events import TextWriter, read_text_events, text_layout
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

WIDTH, HEIGHT = 230, 200


class Codec(NamedTuple):
    suffix: str
    writer: type
    decoder: object  # (path, header_bytes, **options)
    header: bytes  # its last bytes


def text(path, header_bytes, **options):
    return read_text_events(path, text_layout(b"t,x,y,p\n0,0,0,0\n"), **options)


CODECS = {
    "bin": Codec(".bin", AtisBinWriter, lambda path, at, **more: AtisBinDecoder(path, **more), b""),
    "dat": Codec(".dat", DatWriter, DatDecoder, b"\x0c\x08"),
    "es": Codec(".es", EventStreamWriter, lambda path, at, **more: EventStreamDecoder(path, **more), b"\xe6\0\xc8\0"),
    "evt2": Codec(".raw", Evt2Writer, lambda path, at, **more: EvtDecoder(path, "evt2", at, **more), b"% end\n"),
    "evt3": Codec(".raw", Evt3Writer, lambda path, at, **more: EvtDecoder(path, "evt3", at, **more), b"% end\n"),
    "text": Codec(".csv", TextWriter, text, b"t,x,y,p\n"),
}


@pytest.fixture(params=CODECS, scope="module")
def name(request):
    return request.param


def drain(chunks):
    parts, fault = [np.empty(0, EVENT_DTYPE)], ""
    try:
        for events in chunks:
            assert events.dtype == EVENT_DTYPE
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), fault


def written(path, name, events, cuts=()):
    """Write in pieces, and return the file's bytes and where its events begin."""
    codec = CODECS[name]
    with codec.writer(path, WIDTH, HEIGHT) as writer:
        for part in np.split(events, sorted(cuts)):
            writer.write(part)
    whole = path.read_bytes()
    return whole, whole.index(codec.header) + len(codec.header)


some_events = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 62, 127, 128, 5000, 300_000, 2**24, 2**28]),
        st.one_of(st.integers(0, 40), st.integers(0, WIDTH - 1)),
        st.sampled_from([0, 0, 0, 7, HEIGHT - 1]),
        st.integers(0, 1),
    ),
    max_size=80,
)


def as_events(steps):
    events = np.array(steps, EVENT_DTYPE)
    events["t"] = np.cumsum(events["t"])
    return events


@settings(max_examples=60)
@given(steps=some_events, data=st.data())
def test_where_calls_are_cut_changes_no_byte(tmp_path_factory, name, steps, data):
    events, path = as_events(steps), tmp_path_factory.getbasetemp() / f"cut.{name}"
    whole, header = written(path, name, events)
    cuts = data.draw(st.lists(st.integers(0, len(events)), max_size=10))
    assert written(path, name, events, cuts)[0] == whole
    read, fault = drain(CODECS[name].decoder(path, header))
    assert not fault
    np.testing.assert_array_equal(read, events)


def busy(n, seed=3):
    """Rows of neighbours, noise and some silence."""
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.choice([0, 0, 0, 0, 1, 3, 200, 9000], n))
    events["x"] = (np.arange(n) + rng.integers(0, 2, n) * rng.integers(0, WIDTH, n)) % WIDTH
    events["y"], events["p"] = np.arange(n) // 9 % HEIGHT, rng.integers(0, 2, n)
    return events


def test_long_recordings_are_recognised_and_the_same(tmp_path, name):
    events, path = busy(200_000), tmp_path / f"a{CODECS[name].suffix}"
    written(path, name, events, cuts=[1, 2, 70_000, 70_040])
    recording = read_events(path)
    assert (recording.format, recording.fault) == (name, "")
    if name not in ("bin", "text"):  # these keep no size
        assert (recording.width, recording.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(recording.events, events)


def test_a_file_torn_at_any_byte_gives_its_beginning_and_says_so(tmp_path, name):
    events, path = busy(70), tmp_path / f"a{CODECS[name].suffix}"
    whole, header = written(path, name, events)
    for size in range(header, len(whole)):
        path.write_bytes(whole[:size])
        read, fault = drain(CODECS[name].decoder(path, header))
        np.testing.assert_array_equal(read, events[: len(read)])
        if fault:
            assert str(path) in fault
            assert "byte" in fault
        elif name not in ("evt2", "evt3"):  # their words for time and row are no event
            without_end = whole[:size] + b"\n" if name == "text" and whole[size - 1 : size] != b"\n" else whole[:size]
            assert written(tmp_path / "again", name, events[: len(read)])[0][: len(without_end)] in (
                without_end,
                without_end.rstrip(b"\xff"),  # silence of .es before an event that is not there
            )
        else:
            assert size % (4 if name == "evt2" else 2) == header % (4 if name == "evt2" else 2)


def test_a_header_torn_at_any_byte_is_refused(tmp_path, name):
    events, path = busy(40), tmp_path / f"a{CODECS[name].suffix}"
    whole, header = written(path, name, events)
    for size in range(header):
        path.write_bytes(whole[:size])
        try:
            recording = read_events(path)
        except FormatError:
            continue
        # "% evt 3.0\n" is all that a header needs, and names of columns need no end
        assert name in ("evt2", "evt3", "text")
        assert recording.events.tolist() == []


@settings(max_examples=60)
@given(data=st.data())
def test_damage_ends_in_a_fault_or_in_events(tmp_path_factory, name, data):
    path = tmp_path_factory.getbasetemp() / f"damaged{CODECS[name].suffix}"
    whole, header = written(path, name, busy(50))
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(header, len(whole) - 1))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged[: data.draw(st.integers(header, len(whole)))] + data.draw(st.binary(max_size=20)))
    decoder = CODECS[name].decoder(path, header)
    read, _ = drain(decoder)
    assert len(read) <= 6 * path.stat().st_size
    again, _ = drain(CODECS[name].decoder(path, header))
    np.testing.assert_array_equal(read, again)


def test_a_growing_file_is_followed(tmp_path, name):
    events, path = busy(3000), tmp_path / f"a{CODECS[name].suffix}"
    whole, header = written(path, name, events)
    sizes = [*np.linspace(header + 3, len(whole), 40).astype(int).tolist()]
    path.write_bytes(whole[: sizes[0]])
    parts, n_empty = [], 0
    with path.open("ab") as file:
        for got in CODECS[name].decoder(path, header, follow_s=0.3):
            parts.append(got.copy())
            if not len(got):
                n_empty += 1
                if len(sizes) > 1:
                    file.write(whole[sizes[0] : sizes[1]])
                    file.flush()
                    del sizes[0]
    assert n_empty
    np.testing.assert_array_equal(np.concatenate(parts), events)


def test_standard_input_in_dribbles(tmp_path, name, monkeypatch):
    events, path = busy(2000), tmp_path / f"a{CODECS[name].suffix}"
    whole, header = written(path, name, events)
    read_end, write_end = os.pipe()

    def pour():
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            pipe.write(whole[: header + 1])
            for at in range(header + 1, len(whole), 777):
                pipe.write(whole[at : at + 777])

    with os.fdopen(read_end, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        pourer = threading.Thread(target=pour)
        pourer.start()
        read, fault = drain(CODECS[name].decoder(STANDARD_INPUT, header))
        pourer.join()
    assert not fault
    np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize(
    "bad", [(5, WIDTH, 0, 1), (5, 0, HEIGHT, 1), (2, 0, 0, 1), (5, 0, 0, 2)], ids=["x", "y", "time", "polarity"]
)
def test_an_event_that_cannot_be_held_is_named_and_those_before_are_kept(tmp_path, name, bad):
    path = tmp_path / f"a{CODECS[name].suffix}"
    writer = CODECS[name].writer(path, WIDTH, HEIGHT)
    first = np.array([(1, 1, 1, 0), (3, 1, 1, 0)], EVENT_DTYPE)
    writer.write(first)
    with pytest.raises(FormatError, match=r"event 3 \(t"):
        writer.write(np.array([(4, 2, 2, 1), bad], EVENT_DTYPE))
    writer.close()
    writer.close()
    assert read_events(path, width=WIDTH, height=HEIGHT).events.tolist() == [*first.tolist(), (4, 2, 2, 1)]


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (70_000, 5)])
def test_a_sensor_that_cannot_be_held_is_refused(tmp_path, name, size):
    with pytest.raises(ConfigError, match="got a sensor of"):
        CODECS[name].writer(tmp_path / "a", *size)
    assert not (tmp_path / "a").exists()


def test_times_since_1970_are_refused_where_they_cannot_be_held(tmp_path, name):
    events = np.array([(1_700_000_000_000_000, 1, 1, 0)], EVENT_DTYPE)
    path = tmp_path / f"a{CODECS[name].suffix}"
    with CODECS[name].writer(path, WIDTH, HEIGHT) as writer:
        if name in ("evt2", "text"):
            writer.write(events)
        else:
            with pytest.raises(FormatError, match="shift the events"):
                writer.write(events)
    if name in ("evt2", "text"):
        np.testing.assert_array_equal(read_events(path).events, events)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_a_fault(name):
    from pathlib import Path

    with pytest.raises(FormatError, match="writing failed"), CODECS[name].writer(Path("/dev/full"), 9, 9) as writer:
        writer.write(np.zeros(100_000, EVENT_DTYPE))
