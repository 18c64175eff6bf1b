"""EVT 2.1 as text: the vendor's vectors, the binary decoder as reference, and damaged lines."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.evt import decode_evt
from sources.evt21_text import is_evt21_text, read_evt21_text
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

VECTORS = [
    "kv260_tc_001_in",
    "smart_tracker_tc_001_in",
    "smart_tracker_tc_001_ref",
    "smart_tracker_tc_002_in",
    "smart_tracker_tc_002_ref",
]


def read(path, **options):
    decoder = read_evt21_text(path, **options)
    parts, fault = [np.empty(0, EVENT_DTYPE)], ""
    try:
        for events in decoder:
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), decoder, fault


def by_hand(text):
    """Decode words one at a time, digit by digit."""
    out, high = [], None
    for word in text.split():
        bits = f"{int(word, 16):064b}"
        kind = int(bits[:4], 2)
        if kind == 8:
            high = int(bits[4:32], 2)
        elif kind in (0, 1) and high is not None:
            t = high * 64 + int(bits[4:10], 2)
            x, y = int(bits[10:21], 2), int(bits[21:32], 2)
            out += [(t, x + k, y, kind) for k in range(32) if bits[63 - k] == "1" and x + k < 2048]
    return out


@pytest.mark.parametrize("name", VECTORS)
def test_the_vendors_vectors_hold_what_the_manifest_says(data, name):
    files = json.loads((data / "MANIFEST.json").read_text())["files"]
    truth = next(file["truth"] for file in files if file["file"] == f"evt21/{name}.evt")
    path = data / "evt21" / f"{name}.evt"
    events, decoder, fault = read(path)
    early, past, unknown = decoder.counts.tolist()
    assert (fault, early, unknown) == ("", 0, 0)
    assert len(events) + past == truth["cd_events_by_popcount"]
    assert 0 <= truth["on_by_popcount"] - int(events["p"].sum()) <= past
    assert events.tolist() == by_hand(path.read_text())
    assert is_evt21_text(path.read_bytes()[:65536])
    assert is_evt21_text(path.read_bytes()[:100])


words = st.lists(
    st.builds(lambda kind, rest: kind << 60 | rest, st.sampled_from([0, 1, 8, 8, 14, 15, 3]), st.integers(0, 2**60 - 1))
)


@given(words=words, ends=st.sampled_from(["\n", "\r\n", "\n\n"]), whole=st.booleans())
def test_text_and_binary_agree(tmp_path_factory, words, ends, whole):
    path = tmp_path_factory.getbasetemp() / "a.evt"
    text = "".join(f"{word:016X}{ends}" for word in words)
    path.write_text(text if whole else text.rstrip(), newline="")
    events, _, fault = read(path)
    np.testing.assert_array_equal(events, decode_evt(np.array(words, "<u8").tobytes(), "evt2.1"))
    assert fault == ""


def test_files_longer_than_a_block(tmp_path):
    path = tmp_path / "a.evt"
    text = "8000000000000000\n" + "1000080500000003\n" * 20_000
    path.write_text(text)
    events, _, fault = read(path)
    assert (len(events), fault) == (40_000, "")
    assert events[-1].tolist() == (0, 2, 5, 1)


@pytest.mark.parametrize("bad", ["8000", "80000000000000000", "800000000000000g", "t,x,y,p", " 8000000000000000"])
def test_a_line_that_is_no_word_ends_the_reading_and_is_told(tmp_path, bad):
    path = tmp_path / "a.evt"
    good = "8000000000000000\n1000080500000001\n"
    for tail in ("\n" + good, "\n", ""):
        path.write_text(good + bad + tail)
        events, _, fault = read(path)
        assert len(events) == 1
        assert f"damaged at byte {len(good)}: got the line {bad.encode()!r}" in fault


def test_a_file_cut_at_any_byte_gives_its_beginning(tmp_path):
    path = tmp_path / "a.evt"
    text = "8000000000000000\r\n" + "1000080500000001\r\n" * 3
    for size in range(len(text) + 1):
        path.write_text(text[:size], newline="")
        events, _, fault = read(path)
        assert len(events) == max(0, (size + 2) // 18 - 1)
        assert bool(fault) == (size % 18 not in (0, 16, 17))


@given(st.binary(max_size=200))
def test_any_bytes_give_events_or_an_error_of_ours(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise.evt"
    path.write_bytes(noise)
    read(path)
    path.write_bytes(b"8000000000000000\n" + noise)
    with contextlib.suppress(FormatError):
        read(path)


def test_losses_are_told(tmp_path):
    path = tmp_path / "a.evt"
    path.write_text("1000080500000003\n8000000000000000\n103FF80500000007\n3000000000000000\n")
    events, decoder, _ = read(path)
    assert events["x"].tolist() == [2047]
    assert [told.split()[0] for told in decoder.losses()] == ["2", "2", "1"]
    with pytest.raises(FormatError, match="cannot be read"):
        list(read_evt21_text(tmp_path / "missing.evt"))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"8000000000000000",
        b"1605537493718345\n" * 9,
        b"0 1 2 3\n" * 9,
        b"8000000000000000 1\n" * 9,
        b"7000000000000000\n8000000000000000\n",
        bytes(range(256)),
    ],
)
def test_other_text_is_not_taken_for_it(head):
    assert not is_evt21_text(head)
