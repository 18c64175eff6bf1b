"""Event Stream against a reference in plain Python, its authors' package, faery and real recordings."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.event_stream import EventStreamDecoder, EventStreamWriter
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE


def header(kind, width=320, height=240, version=2):
    size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"Event Stream" + bytes([version, 0, 0, kind]) + size


def reference(data, kind, height):
    """Go byte by byte through the states; return events, crossings, and how many bytes of an event are left over."""
    out, crossings, t, collected = [], 0, 0, []
    for byte in data:
        if not collected and kind == 1 and byte in (0xFE, 0xFF):
            t += 127 if byte == 0xFF else 0
        elif not collected and kind == 2 and byte & 0b11111100 == 0b11111100:
            t += 63 * (byte & 3)
        else:
            collected.append(byte)
        if len(collected) == 5:
            first, x, y = collected[0], collected[1] + 256 * collected[2], collected[3] + 256 * collected[4]
            t += first >> kind
            if kind == 2 and first & 1:
                crossings += 1
            else:
                out.append((t, x, (height - 1 - y) % 65536, first & 1 if kind == 1 else first >> 1 & 1))
            collected = []
    return out, crossings, len(collected)


def drain(decoder):
    parts, fault = [], ""
    try:
        for events in decoder:
            parts += events.tolist()
    except FormatError as error:
        fault = str(error)
    return parts, fault


an_event = st.binary(min_size=5, max_size=5)
some_bytes = st.lists(st.one_of(an_event, st.sampled_from([b"\xff", b"\xfe", b"\xfc", b"\xfd" * 3, b"\x00"])))


@pytest.mark.parametrize("kind", [1, 2])
@given(parts=some_bytes)
def test_any_bytes_agree_with_plain_python(tmp_path_factory, kind, parts):
    data = b"".join(parts)
    path = tmp_path_factory.getbasetemp() / "a.es"
    path.write_bytes(header(kind) + data)
    decoder = EventStreamDecoder(path)
    events, fault = drain(decoder)
    wanted, crossings, left = reference(data, kind, 240)
    assert events == wanted
    assert bool(decoder.losses()) == bool(crossings)
    size = 20 + len(data)
    assert (f"torn event at byte {size - left} of {size}: got {left} bytes" in fault) == bool(left)


@pytest.mark.parametrize("name", ["es/dvs.es", "es/nmnist_00002_v1.es"])
def test_recordings_hold_the_events_they_should(data, name):
    files = json.loads((data / "MANIFEST.json").read_text())["files"]
    truth = next(file["truth"] for file in files if file["file"] == name)
    for raw in (True, False):
        decoder = EventStreamDecoder(data / name, raw=raw)
        assert (decoder.width, decoder.height, decoder.kind) == (truth["width"], truth["height"], "dvs")
        events = np.concatenate([part.copy() for part in decoder])
        assert len(events) == truth["events"]
        assert events["p"].sum() == truth["on_events"]
        assert events["x"].sum() == truth["sum_x"]
        stored = truth["sum_y"]  # figures of the manifest are as stored, from the bottom
        assert events["y"].sum() == (stored if raw else len(events) * (decoder.height - 1) - stored)
        assert (events["t"][0], events["t"][-1]) == (truth["t_first_us"], truth["t_last_us"])


@pytest.mark.parametrize("name", ["es/dvs.es", "es/nmnist_00002_v1.es"])
def test_a_recording_written_again_is_the_same_to_the_byte(data, tmp_path, name):
    decoder = EventStreamDecoder(data / name)
    with EventStreamWriter(tmp_path / "a.es", decoder.width, decoder.height) as writer:
        for events in decoder:
            writer.write(events)
    assert (tmp_path / "a.es").read_bytes() == (data / name).read_bytes()


def test_faery_decodes_the_same(data):
    faery = pytest.importorskip("faery")
    theirs = faery.events_stream_from_file(data / "es/dvs.es").to_array()
    ours = np.concatenate([part.copy() for part in EventStreamDecoder(data / "es/dvs.es")])
    for our, their in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
        np.testing.assert_array_equal(theirs[their], ours[our])


def some_events(n):
    rng = np.random.default_rng(2)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.cumsum(rng.choice([0, 1, 126, 127, 128, 254, 100_000], n))
    events["x"], events["y"], events["p"] = rng.integers(0, 640, n), rng.integers(0, 480, n), rng.integers(0, 2, n)
    return events


def test_faery_reads_what_we_write(tmp_path):
    faery = pytest.importorskip("faery")
    events = some_events(3000)
    with EventStreamWriter(tmp_path / "a.es", 640, 480) as writer:
        writer.write(events)
    stream = faery.events_stream_from_file(tmp_path / "a.es")
    assert tuple(stream.dimensions()) == (640, 480)
    theirs = stream.to_array()
    for ours, their in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
        np.testing.assert_array_equal(theirs[their], events[ours])


def test_the_authors_package_reads_what_we_write_and_writes_what_we_read(tmp_path):
    event_stream = pytest.importorskip("event_stream")
    events = some_events(3000)
    with EventStreamWriter(tmp_path / "a.es", 640, 480) as writer:
        writer.write(events)
    theirs = np.concatenate(list(event_stream.Decoder(str(tmp_path / "a.es"))))
    for ours, their in (("t", "t"), ("x", "x"), ("p", "on")):
        np.testing.assert_array_equal(theirs[their], events[ours])
    np.testing.assert_array_equal(479 - theirs["y"], events["y"])

    atis = np.zeros(len(events), event_stream.atis_dtype)
    rng = np.random.default_rng(5)
    for ours, their in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "polarity")):
        atis[their] = events[ours]
    atis["exposure"] = rng.random(len(events)) < 0.3
    with event_stream.Encoder(str(tmp_path / "b.es"), "atis", 640, 480) as encoder:
        encoder.write(atis)
    decoder = EventStreamDecoder(tmp_path / "b.es", raw=True)
    read = np.concatenate([part.copy() for part in decoder])
    np.testing.assert_array_equal(read, events[~atis["exposure"]])
    assert decoder.losses() == [f"{atis['exposure'].sum()} threshold crossings (exposure, not change) were passed over"]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (header(0), "generic"),
        (header(3), "amd"),
        (header(4), "color"),
        (header(9), "type 9"),
        (header(1, version=1), "version 1.0.0"),
        (b"Event Stroam" + bytes(8), "another format"),
    ],
)
def test_what_holds_no_changes_is_refused(tmp_path, head, words):
    (tmp_path / "a.es").write_bytes(head + bytes(20))
    with pytest.raises(FormatError, match=words):
        EventStreamDecoder(tmp_path / "a.es")


def test_a_header_cut_anywhere_is_refused(tmp_path):
    for size in range(20):
        (tmp_path / "a.es").write_bytes(header(1)[:size])
        with pytest.raises(FormatError, match=f"ends at byte {size}"):
            EventStreamDecoder(tmp_path / "a.es")


def test_a_row_outside_stays_outside(tmp_path):
    rows = [239, 240, 241, 65535]
    (tmp_path / "a.es").write_bytes(header(1) + b"".join(b"\x02\0\0" + row.to_bytes(2, "little") for row in rows))
    events, _ = drain(EventStreamDecoder(tmp_path / "a.es"))
    assert [y for _, _, y, _ in events] == [0, 65535, 65534, 240]


def test_silence_is_bounded(tmp_path):
    events = np.array([(0, 1, 1, 1), (127 << 24, 1, 1, 1), (127 << 25, 1, 1, 0), ((127 << 26), 1, 1, 0)], EVENT_DTYPE)
    with (
        EventStreamWriter(tmp_path / "a.es", 9, 9) as writer,
        pytest.raises(FormatError, match="event 3 .*silence"),
    ):
        writer.write(events)
    assert drain(EventStreamDecoder(tmp_path / "a.es"))[0] == events[:3].tolist()
