"""Events as text against exact decimals in plain Python, and lines of every kind."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sources.event_file import read_events
from sources.text_events import TextWriter, layout_as_asked, read_text_events, text_layout
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE


def drain(path, layout, **options):
    parts, fault = [], ""
    try:
        for events in read_text_events(path, layout, **options):
            parts += events.tolist()
    except FormatError as error:
        fault = str(error)
    return parts, fault


def read(path, text, **asked):
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(content)
    layout = text_layout(content if len(content) < 60_000 else content[: content.rfind(b"\n", 0, 60_000) + 1], **asked)
    assert layout is not None
    return drain(path, layout)


digits = st.text("0123456789", max_size=25)
decimals = st.builds(
    lambda sign, whole, point, rest, mark, power: (
        f"{sign}{whole or '0'}{'.' + rest if point else ''}{f'{mark}{power}' if mark else ''}"
    ),
    st.sampled_from(["", "", "-", "+"]),
    digits,
    st.booleans(),
    digits,
    st.sampled_from(["", "", "e", "E"]),
    st.integers(-30, 30).map(lambda power: f"{power:+03d}"),
)


def round_half_even(value):
    return round(value)  # a Fraction rounds half to even, exactly


@given(time=decimals, x=decimals, unit=st.sampled_from(["s", "ms", "us", "ns"]))
@example("0.0000005", "65535.9", "s")
@example("0.0000015", "-0.1", "s")
@example("9999999999999999999", "65536", "ns")
@example("-2500", "1e4", "ns")
@example("1.317888000000000000e+06", "9.600000000000000000e+01", "us")
@example("1e999999999", "-1e999999999", "us")
@example("00000000000000000000000001", "0", "us")
def test_numbers_are_those_that_stand_there(tmp_path_factory, time, x, unit):
    path = tmp_path_factory.getbasetemp() / "numbers.txt"
    path.write_text(f"{time} {x} 7 1\n{time} {x} 7 0")
    events, fault = drain(path, layout_as_asked(text_layout(b"0 0 0 0\n"), time_unit=unit))
    if "999999999e" in time or "e999999999" in time:
        wanted, place = 2**62, 65535
    else:
        exact = Fraction(time) * {"s": 10**6, "ms": 1000, "us": 1, "ns": Fraction(1, 1000)}[unit]
        wanted = max(-(2**62), min(round_half_even(exact), 2**62))
        place = Fraction(x).__floor__()
    assert not fault
    assert events == [(wanted, place if 0 <= place <= 65535 else 65535, 7, p) for p in (1, 0)]


@given(st.binary(max_size=300), st.sampled_from([",", ";", " ", "\t"]))
def test_any_bytes_end_in_a_fault_or_in_events(tmp_path_factory, rubbish, mark):
    path = tmp_path_factory.getbasetemp() / "rubbish.txt"
    head = mark.join(["5", "6", "7", "1"]).encode() + b"\n"
    path.write_bytes(head * 3 + rubbish)
    events, fault = drain(path, text_layout(head))
    assert events[:3] == [(5, 6, 7, 1)] * 3
    assert len(events) <= 3 + len(rubbish) // 7 + 1
    if not fault:
        lines = [line.split(b"#")[0].strip() for line in rubbish.split(b"\n")]
        assert len(events) == 3 + sum(bool(line) for line in lines)


LINES = [
    ("3,1,2,1\n", (3, 1, 2, 1)),
    ("  3 ,\t1 , 2,1  \r\n", (3, 1, 2, 1)),
    ("3,1,2,1,9,words\n", (3, 1, 2, 1)),
    ("3,1,2,true\n", (3, 1, 2, 1)),
    ("3,1,2,False\n", (3, 1, 2, 0)),
    ("3,1,2,-1\n", (3, 1, 2, 0)),
    ("3,1,2,1.0 # a remark\n", (3, 1, 2, 1)),
    ("3,1.9,2.0,0.5\n", (3, 1, 2, 1)),
    ("3,-1,70000,0\n", (3, 65535, 65535, 0)),
    ("# 1,2,3,4\n", None),
    ("\n", None),
    (" \t\r\n", None),
]
BAD = [
    "3,1,2", "3,,2,1", "3,1,2,x", "3,1,2,truely", "3,1,2,tru", "3 1 2 1", "3,1x,2,1", "3,nan,2,1", "inf,1,2,1",
    "1_0,1,2,1", "-,1,2,1", ".,1,2,1", "3e,1,2,1", "é,1,2,1", "3,1,2,1 5", ",",
]  # fmt: skip


@given(st.lists(st.sampled_from(LINES), max_size=30), st.sampled_from(BAD))
def test_lines_of_every_kind(tmp_path_factory, lines, bad):
    path = tmp_path_factory.getbasetemp() / "lines.csv"
    wanted = [event for _, event in lines if event is not None]
    text = "9,9,9,1\n" + "".join(line for line, _ in lines)
    assert read(path, text) == ([(9, 9, 9, 1), *wanted], "")
    events, fault = read(path, f"{text}{bad}\n5,5,5,1\n")
    assert events == [(9, 9, 9, 1), *wanted]
    assert f"line {len(lines) + 2}: " in fault
    assert f"at byte {len(text)}" in fault


@pytest.mark.parametrize("order", ["txyp", "tyxp", "xytp", "pyxt", "-t-x-y-p-", "xypt"])
@pytest.mark.parametrize("mark", [",", ";", " ", "\t"])
@pytest.mark.parametrize("time", ["1700", "1700.0"])  # the second is not plain digits
def test_columns_in_any_order(tmp_path, order, mark, time):
    row = {"t": time, "x": "12", "y": "34", "p": "1", "-": "a.b"}
    text = (mark.join(row[letter] for letter in order) + "\n") * 3
    assert read(tmp_path / "a.txt", text, columns=order, time_unit="us") == ([(1700, 12, 34, 1)] * 3, "")


def test_a_given_order_overrules_names(tmp_path):
    assert read(tmp_path / "a.csv", "t,y,x,p\n1,2,3,1\n")[0] == [(1, 3, 2, 1)]
    assert read(tmp_path / "a.csv", "t,y,x,p\n1,2,3,1\n", columns="txyp")[0] == [(1, 2, 3, 1)]


@pytest.mark.parametrize(
    ("unit", "wanted"), [("auto", 1_500_000), ("s", 1_500_000), ("ms", 1500), ("us", 2), ("ns", 0)]
)
def test_units_of_time(tmp_path, unit, wanted):
    assert read(tmp_path / "a.txt", "1.5 2 3 1\n", time_unit=unit)[0] == [(wanted, 2, 3, 1)]


@pytest.mark.parametrize("asked", [{"columns": "txy"}, {"columns": "txypt"}, {"columns": "t" + "-" * 70 + "xyp"}])
def test_impossible_orders_are_refused(asked):
    with pytest.raises(ConfigError, match="wanted each of t, x, y and p once"):
        text_layout(b"1 2 3 1\n", **asked)


def test_unknown_units_are_refused():
    with pytest.raises(ConfigError, match="wanted auto, s, ms, us or ns"):
        text_layout(b"1 2 3 1\n", time_unit="h")


@pytest.mark.parametrize("head", [b"", b"hello\n", b"1 2 3\n", b"1 2 3 7\n", b"\xff\xfe1 2 3 1\n", b"{1: 2}\n"])
def test_what_is_no_text_of_events(head):
    assert text_layout(head) is None


@pytest.mark.parametrize(("time", "wanted"), [("1.5", 1_500_000), ("15", 15)])
def test_names_alone_are_a_layout_and_the_unit_waits_for_the_first_event(tmp_path, time, wanted):
    path = tmp_path / "a.csv"
    path.write_text("y;x;t;p\n")
    layout = text_layout(path.read_bytes())
    assert drain(path, layout) == ([], "")
    path.write_text(f"y;x;t;p\n# a remark\n\n1;2;{time};1\n")
    assert drain(path, layout) == ([(wanted, 2, 1, 1)], "")


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("n_lines", [1, 30_000])
def test_the_last_line_needs_no_end(tmp_path, end, n_lines):
    wanted = [(index, index % 200, 7, index % 2) for index in range(n_lines)]
    text = "t x y p\n" + "\n".join(" ".join(map(str, event)) for event in wanted) + end
    assert read(tmp_path / "a.txt", text) == (wanted, "")


def test_a_torn_last_line_is_told(tmp_path):
    events, fault = read(tmp_path / "a.txt", "1 2 3 1\n4 5 6 0\n7 8 9")
    assert events == [(1, 2, 3, 1), (4, 5, 6, 0)]
    assert "line 3: got '7 8 9' at byte 16, torn by the end of the file" in fault


def test_a_line_without_end_stays_bounded(tmp_path):
    events, fault = read(tmp_path / "a.txt", b"1 2 3 1\n" + b"5" * 1_000_000)
    assert events == [(1, 2, 3, 1)]
    assert "line 2 (byte 8) is longer than 65536 bytes" in fault


@pytest.mark.parametrize("name", ["txt/slider_depth_events_chunk.txt"])
def test_a_recording(data, name):
    events = read_events(data / name).events
    assert (len(events), events["x"].sum(), events["y"].sum(), events["p"].sum()) == (50000, 5741863, 5095686, 21147)
    assert (events["t"][0], events["t"][-1]) == (3811, 174156)
    columns = np.loadtxt(data / name)
    np.testing.assert_array_equal(events["t"], np.rint(columns[:, 0] * 1e6))


def test_a_recording_with_rows_first(data):
    layout = text_layout((data / "txt/evlibrary_event.txt").read_bytes(), columns="tyxp")
    events, fault = drain(data / "txt/evlibrary_event.txt", layout)
    assert not fault
    assert [sum(event[axis] for event in events) for axis in (1, 2)] == [1103, 1801]


def test_what_savetxt_writes_is_read(tmp_path):
    rng = np.random.default_rng(1)
    t_us = np.sort(rng.integers(0, 2**40, 5000))
    x, y, p = rng.integers(0, 640, 5000), rng.integers(0, 480, 5000), rng.integers(0, 2, 5000)
    np.savetxt(tmp_path / "a.txt", np.column_stack([t_us, x, y, p]))
    layout = text_layout((tmp_path / "a.txt").read_bytes()[:1000].rpartition(b"\n")[0] + b"\n", time_unit="us")
    events, fault = drain(tmp_path / "a.txt", layout)
    assert not fault
    assert events == list(zip(t_us.tolist(), x.tolist(), y.tolist(), p.tolist(), strict=True))


def test_negative_times_are_written_and_read(tmp_path):
    events = np.array([(-(2**62), 0, 0, 0), (-10, 1, 2, 1), (0, 3, 4, 0), (2**62, 65535, 9, 1)], EVENT_DTYPE)
    with TextWriter(tmp_path / "a.csv", 65536, 10) as writer:
        writer.write(events)
        events["t"] = 2**62 + 1
        with pytest.raises(FormatError, match=r"event 4 .*2\^62"):
            writer.write(events)
    content = (tmp_path / "a.csv").read_bytes()
    assert content.startswith(b"t,x,y,p\n-4611686018427387904,0,0,0\n-10,1,2,1\n")
    assert drain(tmp_path / "a.csv", text_layout(content))[0] == [
        (-(2**62), 0, 0, 0), (-10, 1, 2, 1), (0, 3, 4, 0), (2**62, 65535, 9, 1)
    ]  # fmt: skip
