"""EVT 2.0, 2.1 and 3.0: against a reference in plain Python, against faery, and damaged in every way."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.event_file import file_info, read_events
from sources.evt import WORD_DTYPES, EvtDecoder, decode_evt, encode_evt2, encode_evt3, write_evt
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

VERSIONS = ["evt2", "evt2.1", "evt3"]


def read(path, version, **options):
    decoder = EvtDecoder(path, version, **options)
    parts = [np.empty(0, EVENT_DTYPE)]
    fault = ""
    try:
        for events in decoder:
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), decoder.counts.tolist(), fault


def reference2(words, high_shift):
    """Decode EVT 2.0 (shift 0) or 2.1 (shift 32) as the docstring of the module says, one word at a time."""
    out, early, past, unknown, high, epoch = [], 0, 0, 0, None, 0
    for word in words:
        mask, word = (word & 0xFFFFFFFF, word >> 32) if high_shift else (1, word)
        kind = word >> 28
        if kind == 8:
            new = word & 0xFFFFFFF
            epoch += 2**34 if high is not None and high - new > 2**27 else 0
            high = new
        elif kind in (0, 1):
            for bit in range(32):
                if not mask >> bit & 1:
                    continue
                x = (word >> 11 & 2047) + bit
                if high is None:
                    early += 1
                elif x > 2047:
                    past += 1
                else:
                    out.append((epoch + high * 64 + (word >> 22 & 63), x, word & 2047, kind))
        elif kind not in (10, 14, 15):
            unknown += 1
    return out, [early, past, unknown]


def reference3(words):
    out, early, past, unknown, high, epoch, low, y, base, p = [], 0, 0, 0, None, 0, 0, None, None, 0
    for word in words:
        kind, rest = word >> 12, word & 4095
        if kind == 0:
            y = rest & 2047
        elif kind == 2:
            if high is None or y is None:
                early += 1
            else:
                out.append((epoch + high * 4096 + low, rest & 2047, y, rest >> 11))
        elif kind == 3:
            base, p = rest & 2047, rest >> 11
        elif kind in (4, 5):
            for bit in range(12 if kind == 4 else 8):
                if not rest >> bit & 1:
                    continue
                if high is None or y is None or base is None:
                    early += 1
                elif base + bit > 2047:
                    past += 1
                else:
                    out.append((epoch + high * 4096 + low, base + bit, y, p))
            if base is not None:
                base += 12 if kind == 4 else 8
        elif kind == 6:
            low = rest
        elif kind == 8:
            if rest != high:
                epoch += 2**24 if high is not None and high - rest > 2048 else 0
                high, low = rest, 0
        elif kind not in (7, 10, 14, 15):
            unknown += 1
    return out, [early, past, unknown]


def reference(words, version):
    return reference3(words) if version == "evt3" else reference2(words, 32 if version == "evt2.1" else 0)


def random_words(version):
    """Words of any type, those that mean something more often than others."""
    bits = 8 * WORD_DTYPES[version].itemsize
    kinds = st.one_of(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8]), st.integers(0, 15))
    rest = st.one_of(st.integers(0, 2 ** (bits - 4) - 1), st.sampled_from([0, 2 ** (bits - 4) - 1]))
    return st.lists(st.builds(lambda kind, low: kind << (bits - 4) | low, kinds, rest), max_size=200)


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_any_words_in_any_pieces_agree_with_plain_python(tmp_path_factory, version, data):
    words = data.draw(random_words(version))
    path = tmp_path_factory.getbasetemp() / f"words.{version}"
    tail = data.draw(st.binary(max_size=WORD_DTYPES[version].itemsize - 1))
    path.write_bytes(b"head" + np.array(words, WORD_DTYPES[version]).tobytes() + tail)
    wanted, counts = reference(words, version)
    for chunk_bytes in (8, data.draw(st.integers(8, 2000)), 1 << 17):
        events, got_counts, fault = read(path, version, header_bytes=4, chunk_bytes=chunk_bytes, swapped=False)
        assert events.tolist() == wanted
        assert got_counts == counts
        assert bool(fault) == bool(tail)
    assert decode_evt(path.read_bytes()[4:], version).tolist() == wanted


some_events = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 60, 4000, 5000, 9_000_000, 2**24, 2**25]),
        st.one_of(st.integers(0, 40), st.integers(0, 2047)),
        st.sampled_from([0, 0, 0, 7, 2047]),
        st.integers(0, 1),
    ),
    max_size=120,
)


def as_events(steps):
    events = np.array(steps, EVENT_DTYPE)
    events["t"] = np.cumsum(events["t"])
    return events


@pytest.mark.parametrize(("version", "encode"), [("evt2", encode_evt2), ("evt3", encode_evt3)])
@given(steps=some_events)
def test_what_was_encoded_is_decoded(version, encode, steps):
    events = as_events(steps)
    np.testing.assert_array_equal(decode_evt(encode(events), version), events)


def busy_events(n, seed=4):
    """Rows of a moving edge, so that EVT3 has vectors to make, over several wraps of its time."""
    rng = np.random.default_rng(seed)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 40_000_000, n // 20)).repeat(20)[:n]
    events["x"] = (np.arange(n) % 20) * 2 + rng.integers(0, 1200, n // 20).repeat(20)[:n]
    events["y"], events["p"] = rng.integers(0, 720, n // 20).repeat(20)[:n], rng.integers(0, 2, n // 20).repeat(20)[:n]
    return events


@pytest.mark.parametrize("version", ["evt2", "evt3"])
def test_faery_reads_what_we_write(tmp_path, version):
    faery = pytest.importorskip("faery")
    events = busy_events(20_000)
    path = tmp_path / "a.raw"
    write_evt(path, events, 1280, 720, version)
    stream = faery.events_stream_from_file(path)
    assert tuple(stream.dimensions()) == (1280, 720)
    theirs = stream.to_array()
    for ours, their in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
        np.testing.assert_array_equal(theirs[their], events[ours])
    recording = read_events(path)
    assert (recording.format, recording.width, recording.height, recording.fault) == (version, 1280, 720, "")
    np.testing.assert_array_equal(recording.events, events)


@pytest.mark.parametrize("version", ["evt2", "evt3"])  # faery's encoder of EVT2.1 panics
def test_we_read_what_faery_writes(tmp_path, version):
    faery = pytest.importorskip("faery")
    events = busy_events(5000)
    theirs = events.view(faery.EVENTS_DTYPE)
    path = tmp_path / "a.raw"
    faery.events_stream_from_array(theirs, dimensions=(1280, 720)).to_file(path, version=version, zero_t0=False)
    np.testing.assert_array_equal(read_events(path).events, events)


@pytest.mark.parametrize("version", ["evt2", "evt3"])
def test_a_file_cut_anywhere_gives_its_beginning(tmp_path, version):
    events, path = busy_events(60), tmp_path / "a.raw"
    write_evt(path, events, 1280, 720, version)
    whole = path.read_bytes()
    header = whole.index(b"% end\n") + 6
    word = WORD_DTYPES[version].itemsize
    for size in range(header, len(whole)):
        path.write_bytes(whole[:size])
        recording = read_events(path, width=1280, height=720)
        np.testing.assert_array_equal(recording.events, events[: len(recording.events)])
        torn = (size - header) % word
        assert (f"torn record at byte {size - torn} of {size}" in recording.fault) == bool(torn)


def test_evt21_halves_may_be_swapped(tmp_path):
    on = 1 << 60 | 3 << 54 | 64 << 43 | 9 << 32
    words = np.array([word for high in range(5, 55) for word in (8 << 60 | high << 32, on | 0x80000001, on | 1)], "<u8")
    wanted = [(high * 64 + 3, x, 9, 1) for high in range(5, 55) for x in (64, 95, 64)]
    path = tmp_path / "a.raw"
    for swapped in (False, True):
        path.write_bytes((words << 32 | words >> 32 if swapped else words).tobytes())
        events, counts, fault = read(path, "evt2.1")
        assert events.tolist() == wanted
        assert (counts, fault) == ([0, 0, 0], "")


@pytest.mark.parametrize("n_words", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("chunk_bytes", [8, 240, 1 << 17])
def test_evt21_waits_for_enough_words_to_tell_its_halves(tmp_path, n_words, chunk_bytes):
    on = 1 << 60 | 64 << 43 | 9 << 32 | 1
    words = np.array([word for high in range(5, 105) for word in (8 << 60 | high << 32, on)], "<u8")[:n_words]
    path = tmp_path / "a.raw"
    path.write_bytes((words << 32 | words >> 32).tobytes() + b"torn")
    events, _, fault = read(path, "evt2.1", chunk_bytes=chunk_bytes)
    assert "got 4 bytes, wanted 8" in fault
    if n_words > 1:  # a single word looks as good either way round
        assert events.tolist() == [(high * 64, 64, 9, 1) for high in range(5, 5 + n_words // 2)]


@pytest.mark.parametrize(
    "name",
    ["kv260_tc_001_in", "smart_tracker_tc_001_in", "smart_tracker_tc_001_ref", "smart_tracker_tc_002_ref"],
)
def test_the_vendors_evt21_vectors_hold_the_events_they_should(data, tmp_path, name):
    files = json.loads((data / "MANIFEST.json").read_text())["files"]
    truth = next(file["truth"] for file in files if file["file"] == f"evt21/{name}.evt")
    words = np.array([int(line, 16) for line in (data / f"evt21/{name}.evt").read_text().split()], "<u8")
    path = tmp_path / "a.raw"
    path.write_bytes(words.tobytes())
    events, counts, _ = read(path, "evt2.1")
    assert len(events) + counts[0] + counts[1] == truth["cd_events_by_popcount"]
    assert [events.tolist(), counts] == list(map(list, reference2([int(word) for word in words], 32)))


@pytest.mark.parametrize("version", ["evt2", "evt3"])
def test_a_recording_encoded_again_is_the_same(data, tmp_path, version):
    events = read_events(data / "evt3/expelliarmus_evt3_sample.raw").events
    write_evt(tmp_path / "a.raw", events, 1280, 720, version)
    np.testing.assert_array_equal(read_events(tmp_path / "a.raw").events, events)


def test_what_is_dropped_is_told(tmp_path):
    words = [0x2001, 0x8001, 0x6005, 0x2001, 0x4FFF, 0x0003, 0x2801, 0x9000, 0x37FE, 0x4007, 0x4001]
    path = tmp_path / "a.raw"
    path.write_bytes(b"% format EVT3;width=2048;height=100\n% end\n" + np.array(words, "<u2").tobytes())
    assert read_events(path).events.tolist() == [(4101, 1, 3, 1), (4101, 2046, 3, 0), (4101, 2047, 3, 0)]
    warnings = " ".join(file_info(path)["warnings"])
    assert "14 events before the first time, row or column" in warnings
    assert "2 events past column 2047" in warnings
    assert "1 words of a type that EVT3 does not know" in warnings


@pytest.mark.parametrize(
    ("event", "words"),
    [((5, 2048, 0, 1), "event 1"), ((5, 0, 2048, 1), "event 1"), ((2, 0, 0, 1), "event 1"), ((5, 0, 0, 2), "event 1")],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, event, words):
    events = np.array([(3, 1, 1, 0), event], EVENT_DTYPE)
    for encode in (encode_evt2, encode_evt3):
        with pytest.raises(FormatError, match=words):
            encode(events)
    with pytest.raises(FormatError, match=words):
        write_evt(tmp_path / "a.raw", events, 1280, 720, "evt3")
    assert read_events(tmp_path / "a.raw").events.tolist() == [(3, 1, 1, 0)]


def test_times_since_1970_are_refused():
    events = np.array([(1_700_000_000_000_000, 1, 1, 0)], EVENT_DTYPE)
    with pytest.raises(FormatError, match="begin near 0"):
        encode_evt3(events)
    np.testing.assert_array_equal(decode_evt(encode_evt2(events), "evt2"), events)
