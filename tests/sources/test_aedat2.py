"""AEDAT 2.0: against the figures of real recordings, a reference in plain Python, and damaged in every way."""

import contextlib
import json
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.aedat2 import CHIP_SIZES, Aedat2Decoder, aedat2_header
from sources.byte_stream import STANDARD_INPUT
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

RECORDINGS = [
    "aedat2/davis240_imu_translBoxes.aedat",
    "aedat2/dvs128_2017_short.aedat",
    "aedat2/dvs128_moving_dark_box.aedat",
    "aedat2/dvs128_right_clamp.aedat",
    "aedat2/dvs128_right_clamp_rotated_matlab.aedat",
    "aedat2/dvs128_screwdriver.aedat",
    "aedat2/dvs128_walking_again.aedat",
    "aedat2/dvs128_walking_n.aedat",
    *(
        f"dvs128_objects/{label}.aedat"
        for label in ("Caixa", "Caneca", "Celular", "Estilete", "Lapiseira", "Mouse", "Tesoura")
    ),
]
KEYS = ["events", "on_events", "t_first_us", "t_last_us", "sum_x", "sum_y", "backward_steps", "records"]
PLAIN = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"


def named(chip):
    return PLAIN + b"# AEChip: eu.seebetter.ini.chips.davis." + chip + b"\r\n"


def read(path, **options):
    decoder = Aedat2Decoder(path, **options)
    parts, fault = [np.empty(0, EVENT_DTYPE)], ""
    try:
        for events in decoder:
            assert events.dtype == EVENT_DTYPE
            parts.append(events.copy())
    except FormatError as error:
        fault = str(error)
    return np.concatenate(parts), decoder, fault


def reference(records, chip, raw):
    """Decode as the docstring of the module says, one record at a time."""
    width, height = CHIP_SIZES[chip]
    out, counts, last, epoch = [], [0] * 5, None, 0
    for address, stored in records:
        if last is not None and last - stored > 2**31:
            epoch += 2**32
        elif last is not None and stored - last > 2**31 and epoch:
            epoch -= 2**32
        last = stored
        bits = f"{address:032b}"[::-1]  # bits[k] is bit k
        if chip == "dvs128":
            if "1" in (bits[15], bits[31]):
                counts[0] += 1
                continue
            if "1" in bits[16:]:
                counts[4] += 1
                continue
            x, y, p = int(bits[1:8][::-1], 2), int(bits[8:15][::-1], 2), int(bits[0])
            p = p if raw else 1 - p
        else:
            if bits[31] == "1":
                counts[2 if bits[10:12] == "11" else 1] += 1
                continue
            if bits[10] == "1":
                counts[0] += 1
                continue
            x, y, p = int(bits[12:22][::-1], 2), int(bits[22:31][::-1], 2), int(bits[11])
            if x >= width or y >= height:
                counts[3] += 1
                continue
        if not raw:
            x, y = width - 1 - x, height - 1 - y
        out.append((epoch + stored, x, y, p))
    return out, counts


@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_hold_what_the_manifest_says(data, name):
    truth = next(f["truth"] for f in json.loads((data / "MANIFEST.json").read_text())["files"] if f["file"] == name)
    events, decoder, fault = read(data / name, raw=True)
    assert fault == ""
    assert {
        "events": len(events),
        "on_events": int(events["p"].sum()),
        "t_first_us": int(events["t"][0]),
        "t_last_us": int(events["t"][-1]),
        "sum_x": int(events["x"].sum(dtype=np.int64)),
        "sum_y": int(events["y"].sum(dtype=np.int64)),
        "backward_steps": int((np.diff(events["t"]) < 0).sum()),
        "records": len(events) + int(decoder.counts.sum()),
    } == {key: truth[key] for key in truth if key in KEYS}
    assert (decoder.width, decoder.height) == (truth["width"], truth["height"])
    assert decoder.counts.tolist()[:3] == [truth.get("special_records", 0), 0, truth.get("imu_words", 0)]
    upright, _, _ = read(data / name)
    np.testing.assert_array_equal(upright["x"], decoder.width - 1 - events["x"])
    np.testing.assert_array_equal(upright["y"], decoder.height - 1 - events["y"])
    np.testing.assert_array_equal(upright["p"], events["p"] if decoder.chip == "davis240" else 1 - events["p"])


def test_a_dark_object_sends_darker_events_ahead(data):
    """The edge that a dark box moves towards gets darker: this tells the polarity bit without any document."""
    events, _, _ = read(data / "aedat2/dvs128_moving_dark_box.aedat")
    darker_leads = []
    for start in range(0, len(events) - 4000, 4000):
        part = events[start : start + 4000]
        place = np.stack([part["x"], part["y"]]).astype(float)
        motion = place[:, 2000:].mean(1) - place[:, :2000].mean(1)
        ahead = place[:, part["p"] == 0].mean(1) - place[:, part["p"] == 1].mean(1)
        darker_leads.append(motion @ ahead > 0)
    assert np.mean(darker_leads) > 0.75


def test_a_header_without_records_holds_no_events(data):
    events, decoder, fault = read(data / "aedat2/davis240_header_test.aedat")
    assert len(events) == 0
    assert (decoder.chip, decoder.header_bytes) == ("davis240", 303897 - 28)
    assert sum(decoder.counts) == 3
    assert "got 4 bytes, wanted 8" in fault
    assert decoder.losses()[0].startswith("3 words of the external input")


addresses = st.one_of(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**15 - 1),
    st.builds(lambda y, x, p: y << 22 | x << 12 | p << 11, st.integers(0, 270), st.integers(0, 360), st.integers(0, 1)),
)
times = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 5, 2**31, 2**31 + 1, 2**32 - 1]))


@pytest.mark.parametrize("chip", list(CHIP_SIZES))
@given(records=st.lists(st.tuples(addresses, times), max_size=60), tail=st.binary(max_size=7), raw=st.booleans())
def test_any_records_agree_with_plain_python(tmp_path_factory, chip, records, tail, raw):
    path = tmp_path_factory.getbasetemp() / "any.aedat"
    body = b"".join(struct.pack(">II", *record) for record in records) + tail
    path.write_bytes(PLAIN + b"#End Of ASCII Header\r\n" + body)
    events, decoder, fault = read(path, chip=chip, raw=raw)
    wanted, counts = reference(records, chip, raw)
    assert events.tolist() == wanted
    assert decoder.counts.tolist() == counts
    assert bool(fault) == bool(tail)
    assert len(decoder.losses()) == sum(map(bool, counts))


@given(st.binary(max_size=400))
def test_any_bytes_give_events_or_an_error_of_ours(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise.aedat"
    path.write_bytes(PLAIN + noise)
    with contextlib.suppress(FormatError):
        read(path)


@given(cut=st.integers(0, 10_000), flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), max_size=4))
def test_cut_and_flipped_files_give_events_or_an_error_of_ours(tmp_path_factory, cut, flips):
    path = tmp_path_factory.getbasetemp() / "damaged.aedat"
    whole = bytearray(named(b"DAVIS240C") + b"#End Of ASCII Header\r\n" + struct.pack(">II", 77 << 22, 5) * 30)
    for at, bit in flips:
        whole[at % len(whole)] ^= 1 << bit
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    with contextlib.suppress(FormatError):
        read(path)


def test_a_header_cut_at_any_byte(tmp_path):
    path = tmp_path / "a.aedat"
    header = named(b"DAVIS346B") + b"#End Of ASCII Header\r\n"
    line_ends = {at for at in range(len(header) + 1) if header[:at].endswith(b"\n")}
    for size in range(len(header) + 1):
        path.write_bytes(header[:size])
        if size in line_ends:  # no file says how many lines its header has
            assert len(read(path)[0]) == 0
        else:
            with pytest.raises(FormatError, match="no end|begins with"):
                read(path)


def test_a_header_may_be_longer_than_any_buffer(tmp_path):
    path = tmp_path / "a.aedat"
    header = named(b"DAVIS640") + b"#<entry key='x'>" * 5 + b"\r\n" + b"# caf\xc3\xa9\tau lait\r\n" * 30_000
    path.write_bytes(header + struct.pack(">II", 3 << 22 | 5 << 12 | 1 << 11, 7))
    assert aedat2_header(path) == (640, 480, len(header), "davis640")
    assert read(path)[0].tolist() == [(7, 640 - 1 - 5, 480 - 1 - 3, 1)]


def test_an_address_that_begins_like_a_comment_is_no_comment(tmp_path):
    path = tmp_path / "a.aedat"
    record = struct.pack(">II", 0x23 << 24 | 9 << 12, 0x0A0A0A0A)  # '#', then a newline in its time
    path.write_bytes(named(b"DAVIS240C") + record)
    assert read(path, raw=True)[0].tolist() == [(0x0A0A0A0A, 9, 0x23 << 2, 0)]


@pytest.mark.parametrize(
    ("line", "chip"),
    [
        (b"ch.unizh.ini.jaer.chip.retina.DVS128", "dvs128"),
        (b"ch.unizh.ini.jaer.chip.retina.Tmpdiff128", "dvs128"),
        (b"eu.seebetter.ini.chips.sbret10.SBret10", "davis240"),
        (b"eu.seebetter.ini.chips.davis.DAVIS240B", "davis240"),
        (b"eu.seebetter.ini.chips.davis.Davis346blue", "davis346"),
        (b"DAVI346", "davis346"),
    ],
)
def test_chips_are_known_by_their_class(tmp_path, line, chip):
    path = tmp_path / "a.aedat"
    path.write_bytes(PLAIN + b"# AEChip: " + line + b"\r\n")
    assert aedat2_header(path).chip == chip


def test_a_chip_that_is_not_known_is_refused_unless_named(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(named(b"DavisRGBW640"))
    with pytest.raises(FormatError, match=r"a recording of eu.seebetter.ini.chips.davis.DavisRGBW640.*chip = "):
        Aedat2Decoder(path)
    assert Aedat2Decoder(path, chip="davis640").width == 640
    assert Aedat2Decoder(path, chip="edvs").chip == "dvs128"
    with pytest.raises(ConfigError, match="got 'atis'"):
        Aedat2Decoder(path, chip="atis")
    with pytest.raises(FormatError, match="cannot be read"):
        Aedat2Decoder(tmp_path / "missing.aedat")


def test_times_wrap_and_late_events_stay_late(tmp_path):
    path = tmp_path / "a.aedat"
    stored = [2**32 - 2, 1, 2**32 - 1, 2, 2**31 + 2, 2**31, 1]
    path.write_bytes(PLAIN + b"".join(struct.pack(">II", 0, t) for t in stored))
    wrapped = 2**32
    wanted = [2**32 - 2, wrapped + 1, 2**32 - 1, wrapped + 2, wrapped + 2**31 + 2, wrapped + 2**31, wrapped + 1]
    assert read(path)[0]["t"].tolist() == wanted


def test_a_growing_file_is_followed(tmp_path):
    path = tmp_path / "a.aedat"
    path.write_bytes(PLAIN + struct.pack(">II", 3, 1) + b"\0\0")

    def grow():
        time.sleep(0.1)
        with path.open("ab") as file:
            file.write(struct.pack(">II", 3, 2)[2:])

    writer = threading.Thread(target=grow)
    writer.start()
    events, _, fault = read(path, follow_s=0.5)
    writer.join()
    assert (events["t"].tolist(), fault) == ([1, 2], "")


def test_standard_input_is_read(data, tmp_path):
    script = (
        "from sources.aedat2 import Aedat2Decoder\nfrom sources.byte_stream import STANDARD_INPUT\n"
        "print(sum(len(events) for events in Aedat2Decoder(STANDARD_INPUT)))"
    )
    assert str(STANDARD_INPUT) == "-"
    with (data / "aedat2/dvs128_walking_again.aedat").open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", script], stdin=file, capture_output=True, text=True, check=True, timeout=120
        )
    assert int(done.stdout) == 19182
