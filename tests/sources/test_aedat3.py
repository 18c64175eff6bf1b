"""AEDAT 3: an encoder written from the format document, tonic's reader, and files damaged in every way."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.aedat3 import Aedat3Decoder, aedat3_header
from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

HEADER = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#-Source 0: DAVIS240C\r\n"
    b"#Start-Time: 2016-04-05 12:00:00 (TZ+0200)\r\n#!END-HEADER\r\n"
)


def packet(kind, size, overflow, bodies, *, source=1, valid=None, capacity=None, time_at=4):
    """Lay out a packet as the document's table says, a field at a time."""
    fields = [(kind, 2), (source, 2), (size, 4), (time_at, 4), (overflow, 4)]
    fields += [(len(bodies) if capacity is None else capacity, 4), (len(bodies), 4)]
    fields += [(len(bodies) if valid is None else valid, 4)]
    head = b"".join(value.to_bytes(width, "little", signed=True) for value, width in fields)
    assert len(head) == 28
    return head + b"".join(bodies)


def polarity(t, x, y, p, *, valid=1):
    bits = f"{x:015b}{y:015b}{p}{valid}"  # bit 31 first
    return int(bits, 2).to_bytes(4, "little") + (t & 0x7FFFFFFF).to_bytes(4, "little")


def encode(events, *, per_packet=50, **options):
    """Write events into packets, a new one where the overflow count changes."""
    out, bodies, overflow = [], [], 0
    for t, x, y, p in events:
        if bodies and (t >> 31 != overflow or len(bodies) == per_packet):
            out.append(packet(1, 8, overflow, bodies, **options))
            bodies = []
        overflow = t >> 31
        bodies.append(polarity(t, x, y, p))
    return b"".join([*out, packet(1, 8, overflow, bodies, **options)])


def read(path, **options):
    decoder = Aedat3Decoder(path, **options)
    parts, fault = [np.empty(0, EVENT_DTYPE)], ""
    try:
        for events in decoder:
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts).tolist(), decoder, fault


some_events = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 2**33), st.sampled_from([0, 2**31 - 1, 2**31, 2**40])),
        st.integers(0, 2**15 - 1),
        st.integers(0, 2**15 - 1),
        st.integers(0, 1),
    ),
    max_size=120,
)
SPECIAL = packet(0, 8, 0, [bytes(8)] * 3)
FRAME = packet(2, 36 + 8, 0, [bytes(44)], time_at=8)
IMU = packet(3, 36, 0, [bytes(36)] * 2)


@given(events=some_events, per_packet=st.integers(1, 60))
def test_what_the_document_describes_is_decoded(tmp_path_factory, events, per_packet):
    path = tmp_path_factory.getbasetemp() / "a.aedat"
    body = encode(events, per_packet=per_packet) if events else b""
    path.write_bytes(HEADER + SPECIAL + FRAME + body + IMU + packet(200, 5, 0, [bytes(5)]))
    got, decoder, fault = read(path)
    assert (got, fault) == (events, "")
    assert decoder.losses() == [
        "2 6-axis motion events were passed over",
        "1 frame events were passed over",
        "3 special events were passed over",
        "1 type 200 events were passed over",
    ]


def test_packets_may_be_longer_than_a_piece_and_have_room_left(tmp_path):
    path = tmp_path / "a.aedat"
    events = [(k, k % 128, k % 127, k & 1) for k in range(40_000)]
    bodies = [polarity(*event) for event in events]
    path.write_bytes(
        HEADER + packet(1, 8, 0, bodies, capacity=40_003) + bytes(24) + packet(1, 8, 1, [polarity(9, 1, 2, 0)])
    )
    got, _, fault = read(path)
    assert (got, fault) == ([*events, (2**31 + 9, 1, 2, 0)], "")


def test_events_that_are_not_valid_are_counted(tmp_path):
    path = tmp_path / "a.aedat"
    bodies = [polarity(1, 2, 3, 1), polarity(2, 3, 4, 1, valid=0), polarity(3, 4, 5, 0)[:4] + b"\0\0\0\x80"]
    path.write_bytes(HEADER + packet(1, 8, 0, bodies, valid=2))
    got, decoder, fault = read(path)
    assert (got, fault) == ([(1, 2, 3, 1)], "")
    assert decoder.losses() == [
        "1 polarity events marked as not valid were dropped",
        "1 polarity events with a negative time were dropped",
    ]


def test_one_camera_of_several_is_read(tmp_path):
    path = tmp_path / "a.aedat"
    header = HEADER.replace(b"#Source 1: DVS128", b"#Source 1: DVS128\r\n#Source 2: DAVIS346B")
    path.write_bytes(header + encode([(5, 1, 1, 1)], source=2) + encode([(6, 2, 2, 0)], source=1))
    got, decoder, _ = read(path)
    assert (got, decoder.width, decoder.height) == ([(6, 2, 2, 0)], 128, 128)
    assert decoder.losses() == ["1 polarity (of source 2) events were passed over"]
    got, decoder, _ = read(path, source=2)
    assert (got, decoder.width, decoder.height) == ([(5, 1, 1, 1)], 346, 260)


def test_version_3_0_counts_rows_from_the_bottom(tmp_path):
    path = tmp_path / "a.aedat"
    header = b"#!AER-DAT3.0\r\n#Source 0: DAVIS240C\r\n"
    path.write_bytes(header + encode([(5, 1, 0, 1), (6, 1, 179, 1), (7, 1, 180, 0)], source=0))
    assert read(path)[0] == [(5, 1, 179, 1), (6, 1, 0, 1), (7, 1, 65535, 0)]
    assert read(path, raw=True)[0] == [(5, 1, 0, 1), (6, 1, 179, 1), (7, 1, 180, 0)]
    path.write_bytes(b"#!AER-DAT3.0\r\n" + encode([(5, 1, 0, 1)]))
    with pytest.raises(FormatError, match="unknown height"):
        Aedat3Decoder(path)
    assert read(path, raw=True)[0] == [(5, 1, 0, 1)]


def test_tonic_reads_the_same(tmp_path):
    tonic_io = pytest.importorskip("tonic.io")
    path = tmp_path / "a.aedat"
    rng = np.random.default_rng(3)
    events = [(k * 7, *rng.integers(0, 128, 2).tolist(), k & 1) for k in range(1000)]
    path.write_bytes(HEADER + encode(events))
    theirs = tonic_io.get_aer_events_from_file(str(path), 3.1, len(HEADER))
    addresses = theirs["address"]
    columns = theirs["timeStamp"], addresses >> 17 & 0x1FFF, addresses >> 2 & 0x1FFF, addresses >> 1 & 1
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == events == read(path)[0]


def test_a_file_cut_at_any_byte_gives_its_beginning(tmp_path):
    path = tmp_path / "a.aedat"
    events = [(k, k, k, k & 1) for k in range(7)]
    whole = HEADER + SPECIAL + encode(events, per_packet=3) + FRAME
    packets = {len(HEADER), len(HEADER + SPECIAL), len(whole) - len(FRAME), len(whole)}
    packets |= {len(HEADER + SPECIAL) + n * (28 + 24) for n in (1, 2)}
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        if size < len(HEADER):
            with pytest.raises(FormatError, match="cut off|no end"):
                read(path)
            continue
        got, _, fault = read(path)
        left = max(0, size - len(HEADER + SPECIAL))
        wanted = sum(max(0, min(left - n * 52 - 28, 24)) // 8 for n in range(3))
        assert got == events[: min(7, wanted)]
        assert bool(fault) == (size not in packets)
        assert not fault or f"torn packet at byte {max(p for p in packets if p < size)} of {size}" in fault


def test_packets_that_make_no_sense_are_refused(tmp_path):
    path = tmp_path / "a.aedat"
    good = encode([(1, 2, 3, 1)])
    for bad in (
        packet(1, 8, 0, [bytes(8)], valid=2),
        packet(1, 8, 0, [bytes(8)], capacity=0),
        packet(1, 8, -1, [bytes(8)]),
        packet(1, 16, 0, [bytes(16)]),
        packet(1, 8, 0, [bytes(8)], time_at=0),
        packet(-5, 8, 0, [bytes(8)]),
        packet(0, 0, 0, []),
    ):
        path.write_bytes(HEADER + good + bad + good)
        got, _, fault = read(path)
        assert got == [(1, 2, 3, 1)]
        assert f"damaged at byte {len(HEADER + good)}" in fault


def test_an_impossible_length_costs_nothing(tmp_path):
    path = tmp_path / "a.aedat"
    huge = struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2**31 - 1, 2**31 - 1, 0)
    path.write_bytes(HEADER + huge + polarity(4, 5, 6, 1))
    got, _, fault = read(path)
    assert got == [(4, 5, 6, 1)]
    assert "torn packet" in fault


@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), min_size=1, max_size=5), cut=st.integers(0))
def test_damaged_files_give_events_or_an_error_of_ours(tmp_path_factory, flips, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.aedat"
    whole = bytearray(HEADER + SPECIAL + encode([(k, 1, 2, 1) for k in range(20)], per_packet=5) + IMU)
    for at, bit in flips:
        whole[at % len(whole)] ^= 1 << bit
    path.write_bytes(whole[: len(whole) - cut % len(whole)])
    with contextlib.suppress(FormatError):
        read(path)


@given(st.binary(max_size=300))
def test_any_bytes_give_events_or_an_error_of_ours(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise.aedat"
    path.write_bytes(HEADER + noise)
    read(path)
    path.write_bytes(b"#!AER-DAT3.0\r\n#Source 0: DVS128\r\n" + noise)
    with contextlib.suppress(FormatError):
        read(path)


def test_other_packet_formats_and_other_files_are_refused(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(HEADER.replace(b"RAW", b"PNGFrames"))
    with pytest.raises(FormatError, match="the format PNGFrames, wanted RAW"):
        aedat3_header(path)
    path.write_bytes(HEADER.replace(b"3.1", b"2.0"))
    with pytest.raises(FormatError, match="it is not AEDAT 3"):
        aedat3_header(path)
    with pytest.raises(FormatError, match="cannot be read"):
        aedat3_header(tmp_path / "missing")


def test_headers_may_be_long(tmp_path):
    path = tmp_path / "a.aedat"
    header = HEADER.replace(b"#!END", b"# " + b"x" * 300_000 + b"\r\n#!END")
    path.write_bytes(header + encode([(1, 2, 3, 1)]))
    assert aedat3_header(path) == ("3.1", len(header), {1: "DVS128"})
    assert read(path)[0] == [(1, 2, 3, 1)]
