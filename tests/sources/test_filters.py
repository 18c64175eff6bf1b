"""Every event filter, beside the plainest Python that says the same, and against the operator's contract."""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.filter_background import BackgroundActivity
from sources.filter_contrast import SpatioTemporalContrast, Trail
from sources.filter_crop import Crop
from sources.filter_downsample import Downsample
from sources.filter_hot_pixel import HotPixel
from sources.filter_mask import Mask
from sources.filter_operator import LATEST_US, EventFilter
from sources.filter_orientation import Orientation
from sources.filter_polarity import Polarity
from sources.filter_rate_limit import RateLimit
from sources.filter_refractory import Refractory
from sources.filter_time_window import TimeWindow
from sources.filter_undistort import Undistort
from stream.errors import ConfigError, StreamError, UsageError
from stream.packet import EVENT_DTYPE, Label, Message, Packet, Reset, packet_of

WIDTH, HEIGHT = 5, 4
SIZE = {"width": WIDTH, "height": HEIGHT}
FILES = Path(__file__).parent / "files"
Event = tuple[int, int, int, int]

# --- the plainest Python: a list of (t, x, y, p) in, a list out ---


def refractory(events: list[Event], dead_us: int, extend: bool = False) -> list[Event]:
    out, last = [], {}
    for t, x, y, p in events:
        is_kept = (x, y) not in last or t - last[x, y] >= dead_us
        if is_kept:
            out.append((t, x, y, p))
        if is_kept or extend:
            last[x, y] = t
    return out


def background(events: list[Event], dt_us: int, supporters: int = 1) -> list[Event]:
    out, last = [], {}
    for t, x, y, p in events:
        around = [(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
        if sum(pixel in last and t - last[pixel] <= dt_us for pixel in around) >= supporters:
            out.append((t, x, y, p))
        last[x, y] = t
    return out


def hot_pixel(events: list[Event], max_events: int, window_us: int) -> list[Event]:
    out, seen = [], {}
    for t, x, y, p in events:
        # (start of window, events in it, events in the one before)
        start, now, before = seen.get((x, y), (t, 0, 0))
        if t >= start + 2 * window_us:
            start, now, before = t, 0, 0
        elif t >= start + window_us:
            start, now, before = start + window_us, 0, now
        seen[x, y] = start, now + 1, before
        if before * (window_us - (t - start)) + (now + 1) * window_us <= max_events * window_us:
            out.append((t, x, y, p))
    return out


def rate_limit(events: list[Event], max_hz: int, burst: int) -> list[Event]:
    out, level, last = [], burst * 10**6, None
    for event in events:
        level = min(burst * 10**6, level + (event[0] - (event[0] if last is None else last)) * max_hz)
        last = event[0]
        if level >= 10**6:
            level -= 10**6
            out.append(event)
    return out


def downsample(events: list[Event], factor: int, law: str) -> list[Event]:
    out: list[Event] = []
    counted: dict[tuple[int, ...], list[int]] = {}
    for t, x, y, p in events:
        square = x // factor, y // factor
        pixels = {(i, j) for i in range(WIDTH) for j in range(HEIGHT) if (i // factor, j // factor) == square}
        # all the square has seen since it fired: a list, not a sum
        seen = counted.setdefault(square if law == "difference" else (*square, p), [])
        seen.append(p)
        weight = seen.count(1) - seen.count(0) if law == "difference" else len(seen)
        if law == "divide" or abs(weight) == len(pixels):
            out.append((t, *square, p))
            seen.clear()
    return out


def bursts(events: list[Event], window_us: int) -> list[int]:
    """Return the place of each event in its pixel's burst, by looking back through all events of the pixel."""
    places = []
    for k, (t, x, y, p) in enumerate(events):
        place = 0
        for t_before, _, _, p_before in reversed([it for it in events[:k] if it[1:3] == (x, y)]):
            if p_before != p or t - t_before >= window_us:
                break
            place, t = place + 1, t_before
        places.append(place)
    return places


def in_burst(events: list[Event], window_us: int, places: range) -> list[Event]:
    return [event for event, place in zip(events, bursts(events, window_us), strict=True) if place in places]


def oriented(events: list[Event], move: Callable[[Any], Any]) -> list[Event]:
    """Orient by what NumPy does to a picture of each single pixel."""
    out: list[Event] = []
    for t, x, y, p in events:
        picture = np.zeros((HEIGHT, WIDTH), np.bool_)
        picture[y, x] = True
        (row,), (column,) = np.nonzero(move(picture))
        out.append((t, int(column), int(row), p))
    return out


def undistorted(events: list[Event]) -> list[Event]:
    """Search for the ideal place of each pixel, by Newton steps with differences for derivatives."""
    fx, cx, fy, cy, k1, k2, p1, p2, k3 = 2.5, 2.1, 2.4, 1.4, -0.23, 0.031, 0.012, -0.017, 1e-3

    def seen(x: float, y: float) -> complex:
        r = x**2 + y**2
        radial = 1 + k1 * r + k2 * r**2 + k3 * r**3
        return complex(
            x * radial + 2 * p1 * x * y + p2 * (r + 2 * x**2), y * radial + p1 * (r + 2 * y**2) + 2 * p2 * x * y
        )

    out: list[Event] = []
    for t, u, v, p in events:
        wanted = complex((u - cx) / fx, (v - cy) / fy)
        x, y = wanted.real, wanted.imag
        for _ in range(50):
            h = 1e-6
            by_x = (seen(x + h, y) - seen(x - h, y)) / (2 * h)
            by_y = (seen(x, y + h) - seen(x, y - h)) / (2 * h)
            miss = wanted - seen(x, y)
            area = by_x.real * by_y.imag - by_y.real * by_x.imag
            x += (miss.real * by_y.imag - miss.imag * by_y.real) / area
            y += (miss.imag * by_x.real - miss.real * by_x.imag) / area
        column, row = math.floor(fx * x + cx + 0.5), math.floor(fy * y + cy + 0.5)
        if 0 <= column < WIDTH and 0 <= row < HEIGHT:
            out.append((t, column, row, p))
    return out


MASKED = {(2, 1), (0, 3), (4, 0)}

# --- the filters, each with its reference ---

FILTERS: dict[str, tuple[Callable[[], EventFilter], Callable[[list[Event]], list[Event]]]] = {
    "refractory": (lambda: Refractory(**SIZE, refractory_us=30), lambda e: refractory(e, 30)),
    "refractory extended": (
        lambda: Refractory(**SIZE, refractory_us=30, extend=True),
        lambda e: refractory(e, 30, True),
    ),
    "refractory of nothing": (lambda: Refractory(**SIZE, refractory_us=0), lambda e: e),
    "background": (lambda: BackgroundActivity(**SIZE, dt_us=20), lambda e: background(e, 20)),
    "background of three": (
        lambda: BackgroundActivity(**SIZE, dt_us=60, supporters=3),
        lambda e: background(e, 60, 3),
    ),
    "hot pixel": (lambda: HotPixel(**SIZE, max_hz=20_000, window_us=100), lambda e: hot_pixel(e, 2, 100)),
    "rate limit": (lambda: RateLimit(**SIZE, max_hz=70_001, burst=4), lambda e: rate_limit(e, 70_001, 4)),
    "crop": (
        lambda: Crop(**SIZE, left=1, top=2, crop_width=3, crop_height=2),
        lambda e: [(t, x - 1, y - 2, p) for t, x, y, p in e if 1 <= x < 4 and 2 <= y < 4],
    ),
    "polarity on": (lambda: Polarity(**SIZE, keep="on"), lambda e: [it for it in e if it[3] == 1]),
    "polarity off inverted": (
        lambda: Polarity(**SIZE, keep="off", invert=True),
        lambda e: [(t, x, y, 1) for t, x, y, p in e if p == 0],
    ),
    "mask": (
        lambda: Mask(**SIZE, path=f"{FILES}/pixels_5x4.txt"),
        lambda e: [it for it in e if it[1:3] not in MASKED],
    ),
    "mask inverted": (
        lambda: Mask(**SIZE, path=f"{FILES}/pixels_5x4.txt", invert=True),
        lambda e: [it for it in e if it[1:3] in MASKED],
    ),
    "turned by 90": (lambda: Orientation(**SIZE, turn=90), lambda e: oriented(e, lambda it: np.rot90(it, -1))),
    "turned by 180": (lambda: Orientation(**SIZE, turn=180), lambda e: oriented(e, lambda it: np.rot90(it, 2))),
    "turned by 270": (lambda: Orientation(**SIZE, turn=270), lambda e: oriented(e, lambda it: np.rot90(it, 1))),
    "flipped x": (lambda: Orientation(**SIZE, flip_x=True), lambda e: oriented(e, np.fliplr)),
    "flipped y": (lambda: Orientation(**SIZE, flip_y=True), lambda e: oriented(e, np.flipud)),
    "transposed": (lambda: Orientation(**SIZE, transpose=True), lambda e: oriented(e, np.transpose)),
    "transposed, flipped, turned": (
        lambda: Orientation(**SIZE, transpose=True, flip_x=True, turn=90),
        lambda e: oriented(e, lambda it: np.rot90(np.fliplr(it.T), -1)),
    ),
    "downsample divide": (
        lambda: Downsample(**SIZE, factor=2, law="divide"),
        lambda e: downsample(e, 2, "divide"),
    ),
    "downsample integrate": (lambda: Downsample(**SIZE, factor=2), lambda e: downsample(e, 2, "integrate")),
    "downsample difference": (
        lambda: Downsample(**SIZE, factor=3, law="difference"),
        lambda e: downsample(e, 3, "difference"),
    ),
    "contrast": (lambda: SpatioTemporalContrast(**SIZE, window_us=60), lambda e: in_burst(e, 60, range(1, 2))),
    "contrast keeping trails": (
        lambda: SpatioTemporalContrast(**SIZE, window_us=60, keep_trail=True),
        lambda e: in_burst(e, 60, range(1, len(e))),
    ),
    "trail": (lambda: Trail(**SIZE, window_us=60), lambda e: in_burst(e, 60, range(1))),
    "time window": (
        lambda: TimeWindow(**SIZE, start_us=1500, duration_us=800),
        lambda e: [it for it in e if 1500 <= it[0] < 2300],
    ),
    "periodic time window": (
        lambda: TimeWindow(**SIZE, start_us=1200, duration_us=30, period_us=101),
        lambda e: [it for it in e if it[0] >= 1200 and (it[0] - 1200) % 101 in range(30)],
    ),
    "undistort": (lambda: Undistort(**SIZE, calibration=f"{FILES}/lens_5x4.yaml"), undistorted),
}


@pytest.fixture(params=FILTERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- streams ---


def as_array(events: list[Event]) -> Any:
    array = np.array(events, EVENT_DTYPE)
    array.flags.writeable = False  # what comes over a socket is
    return array


def random_events(seed: int, n: int = 600) -> list[Event]:
    rng = np.random.default_rng(seed)
    gaps = rng.choice([0, 1, 3, 10, 40, 300], n, p=[0.2, 0.3, 0.2, 0.2, 0.08, 0.02])
    t = np.cumsum(gaps) + 1000
    x, y, p = rng.integers(0, WIDTH, n), rng.integers(0, HEIGHT, n), rng.integers(0, 2, n)
    is_pinned = rng.random(n) < 0.3  # bursts on one pixel
    x[is_pinned], y[is_pinned] = 2, 1
    return list(zip(t.tolist(), x.tolist(), y.tolist(), p.tolist(), strict=True))


def messages(seed: int = 1) -> list[Message]:
    """Make a stream of three packets with marks between them."""
    events = random_events(seed)
    out: list[Message] = []
    for part in (events[:200], events[200:400], events[400:]):
        out.append(Reset(part[0][0]))
        out.append(packet_of(as_array(part), origin_ns=7))
        out.append(Label(part[-1][0] + 1, 0, part[0][0]))
    return out


def recut(stream: list[Message], seed: int) -> list[Message]:
    rng = np.random.default_rng(seed)
    out: list[Message] = []
    for message in stream:
        if not isinstance(message, Packet):
            out.append(message)
            continue
        for part in np.split(message.items, np.flatnonzero(rng.random(len(message.items)) < 0.1)):
            out.append(packet_of(part, start_us=message.start_us, origin_ns=message.origin_ns))
        out.append(packet_of(message.items[:0], start_us=message.end_us))
    return out


def run(operator: EventFilter, stream: list[Message]) -> tuple[list[Any], dict[str, bytes]]:
    """Return what came out (bytes of events, cut by marks only) and the last state."""
    out: list[Any] = [b""]
    last = [-math.inf]
    _, width, height, _ = operator.outputs["events"]

    def emit(port: str, message: Message) -> None:
        assert port == "events"
        if isinstance(message, Packet):
            t = message.items["t"].tolist()
            assert message.items.dtype == EVENT_DTYPE
            assert t == sorted(t)
            assert all(message.start_us <= at < message.end_us for at in t)
            assert not t or t[0] >= last[0]
            assert np.all(message.items["x"] < width)
            assert np.all(message.items["y"] < height)
            last[0] = t[-1] if t else last[0]
            out[-1] += message.items.tobytes()
        else:
            out.extend([message, b""])

    for message in stream:
        if isinstance(message, Packet):
            operator.on_packet("events", message, emit)
        else:
            operator.on_mark("events", message, emit)
    operator.on_end(emit)
    return out, {key: value.tobytes() for key, value in operator.snapshot().items()}


# --- what all of them keep ---


@pytest.mark.parametrize("seed", range(3))
def test_where_packets_are_cut_does_not_matter(name: str, seed: int) -> None:
    make, _ = FILTERS[name]
    assert run(make(), recut(messages(), seed)) == run(make(), messages())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_restored_anywhere_it_goes_on(name: str, share: float) -> None:
    make, _ = FILTERS[name]
    stream = recut(messages(), 9)
    at = int(share * len(stream))
    first, second = make(), make()
    begun, _ = run(first, stream[:at])
    snapshot = first.snapshot()
    run(first, stream[at:])  # must not reach into the snapshot
    second.restore(snapshot)
    ended, state = run(second, stream[at:])
    assert ([*begun[:-1], begun[-1] + ended[0], *ended[1:]], state) == run(make(), stream)


def test_it_is_what_the_plain_python_says(name: str) -> None:
    make, reference = FILTERS[name]
    for seed in range(5):
        events = random_events(seed)
        out, _ = run(make(), [packet_of(as_array(events))])
        assert np.frombuffer(out[0], EVENT_DTYPE).tolist() == reference(events)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 5, 20, 30, 60, 100, 250]),
            st.integers(0, WIDTH - 1),
            st.integers(0, HEIGHT - 1),
            st.integers(0, 1),
        ),
        max_size=80,
    ),
    st.integers(-(2**40), 2**40),
)
@pytest.mark.parametrize("which", FILTERS)
def test_it_is_what_the_plain_python_says_of_anything(which: str, steps: list[Event], start_us: int) -> None:
    make, reference = FILTERS[which]
    events, t = [], start_us
    for gap, x, y, p in steps:
        t += gap
        events.append((t, x, y, p))
    out, _ = run(make(), [packet_of(as_array(events))])
    assert np.frombuffer(out[0], EVENT_DTYPE).tolist() == reference(events)


def test_a_packet_keeps_its_span_and_origin(name: str) -> None:
    operator, got = FILTERS[name][0](), []
    for items in (as_array([]), as_array([(12, 1, 1, 0)]), as_array([])):
        operator.on_packet("events", Packet(items, 10, 20, 5), lambda port, message: got.append(message))
    assert [(it.start_us, it.end_us, it.origin_ns) for it in got] == [(10, 20, 5)] * 3
    assert len(got[0].items) == len(got[2].items) == 0


def test_what_went_out_stays_as_it_is(name: str) -> None:
    operator, got = FILTERS[name][0](), []
    for message in messages():
        if isinstance(message, Packet):
            operator.on_packet("events", message, lambda port, message: got.append(message))
            got.append(got[-1].items.tobytes())
    assert [it.items.tobytes() for it in got[::2]] == got[1::2]


def test_inputs_are_left_alone_and_may_be_writable(name: str) -> None:
    make, _ = FILTERS[name]
    items = as_array(random_events(2)).copy()
    before = items.tobytes()
    assert run(make(), [packet_of(items)]) == run(make(), [packet_of(as_array(random_events(2)))])
    assert items.tobytes() == before
    assert items.flags.writeable


def test_marks_pass_in_order(name: str) -> None:
    out, _ = run(FILTERS[name][0](), messages())
    assert [it for it in out if not isinstance(it, bytes)] == [it for it in messages() if not isinstance(it, Packet)]


def test_warming_up_changes_nothing(name: str) -> None:
    make, _ = FILTERS[name]
    operator = make()
    before = {key: value.tobytes() for key, value in operator.snapshot().items()}
    operator.warm_up()
    assert {key: value.tobytes() for key, value in operator.snapshot().items()} == before
    assert run(operator, messages()) == run(make(), messages())


def test_it_counts(name: str) -> None:
    operator = FILTERS[name][0]()
    out, _ = run(operator, messages())
    n_out = sum(len(it) for it in out if isinstance(it, bytes)) // EVENT_DTYPE.itemsize
    counts = operator.statistics()
    assert (counts["events"], counts["kept"], counts["dropped"]) == (600, n_out, 600 - n_out)


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        ((20, WIDTH, 0, 0), "x < 5"),
        ((20, 0, HEIGHT, 0), "y < 4"),
        ((20, 0, 0, 2), "p <= 1"),
        ((9, 0, 0, 0), "wanted 10 us or later"),
        ((LATEST_US + 1, 0, 0, 0), "at most"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_and_nothing_changes(name: str, event: Event, wanted: str) -> None:
    operator = FILTERS[name][0]()
    _, before = run(operator, [packet_of(as_array([(10, 0, 0, 0)]))])
    with pytest.raises(StreamError, match=wanted):
        run(operator, [packet_of(as_array([(10, 1, 1, 1), event]))])
    assert {key: value.tobytes() for key, value in operator.snapshot().items()} == before


def test_a_foreign_snapshot_is_refused_and_changes_nothing(name: str) -> None:
    operator = FILTERS[name][0]()
    _, before = run(operator, messages())
    with pytest.raises(ConfigError, match="wanted"):
        operator.restore({"something": np.zeros(3)})
    with pytest.raises(ConfigError, match="wanted"):
        operator.restore(operator.snapshot() | {"n_kept": np.zeros(1, np.int64)})
    assert {key: value.tobytes() for key, value in operator.snapshot().items()} == before


def test_times_at_the_ends_of_the_range_do_not_overflow(name: str) -> None:
    make, reference = FILTERS[name]
    events = [(-LATEST_US, 0, 0, 0), (0, 0, 0, 1), (LATEST_US, 0, 0, 0), (LATEST_US, 0, 0, 1)]
    out, _ = run(make(), [packet_of(as_array(events))])
    assert np.frombuffer(out[0], EVENT_DTYPE).tolist() == reference(events)


@pytest.mark.parametrize(
    "which",
    [
        "refractory",
        "background",
        "hot pixel",
        "rate limit",
        "downsample integrate",
        "downsample difference",
        "contrast",
        "trail",
    ],
)
def test_a_reset_is_passed_on_and_forgets_nothing_unless_asked(which: str) -> None:
    make, _ = FILTERS[which]
    packets = [message for message in messages() if isinstance(message, Packet)]
    keeps, forgets = make(), make()
    forgets.clear_on_reset = True
    out, _ = run(keeps, messages())
    assert b"".join(it for it in out if isinstance(it, bytes)) == run(make(), packets)[0][0]
    out, _ = run(forgets, messages())
    assert [it for it in out if isinstance(it, bytes) and it] == [run(make(), [it])[0][0] for it in packets]


def test_every_filter_lets_some_events_out_and_all_but_the_plainest_drop_some(name: str) -> None:
    """Else the comparisons above would compare nothing with nothing."""
    operator = FILTERS[name][0]()
    run(operator, messages())
    counts = operator.statistics()
    assert counts["kept"] > 0
    passes_all = isinstance(operator, Orientation) or name in ("refractory of nothing", "downsample divide")
    assert (counts["dropped"] == 0) == passes_all


def digests() -> dict[str, list[str]]:
    """Digest what each filter makes of a small stream, and its state; run with and without the compiler."""
    out = {}
    for name, (make, _) in FILTERS.items():
        operator = make()
        operator.warm_up()
        went_out, state = run(operator, messages())
        out[name] = [hashlib.sha256(repr(it).encode()).hexdigest() for it in (went_out, sorted(state.items()))]
    return out


def test_the_same_bits_without_the_compiler() -> None:
    script = f"import json, runpy; print(json.dumps(runpy.run_path({__file__!r})['digests']()))"
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == digests()


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "width": (lambda: Refractory(width=0, height=4), "width: got 0"),
    "height": (lambda: Refractory(width=4, height=65537), "height: got 65537"),
    "refractory": (lambda: Refractory(**SIZE, refractory_us=-1), "refractory_us"),
    "background dt": (lambda: BackgroundActivity(**SIZE, dt_us=-1), "dt_us"),
    "background supporters": (lambda: BackgroundActivity(**SIZE, supporters=9), "supporters: got 9, wanted 1 to 8"),
    "hot rate": (lambda: HotPixel(**SIZE, max_hz=0), "max_hz"),
    "hot window": (lambda: HotPixel(**SIZE, window_us=0), "window_us"),
    "rate": (lambda: RateLimit(**SIZE, max_hz=0), "max_hz"),
    "burst": (lambda: RateLimit(**SIZE, burst=0), "burst"),
    "crop left": (lambda: Crop(**SIZE, left=5, crop_width=1, crop_height=1), "left"),
    "crop width": (lambda: Crop(**SIZE, left=3, crop_width=3, crop_height=1), "crop_width: got 3, wanted 1 to 2"),
    "crop height": (lambda: Crop(**SIZE, crop_width=3, crop_height=0), "crop_height"),
    "mask file": (lambda: Mask(**SIZE, path=f"{FILES}/none.txt"), "none.txt"),
    "turn": (lambda: Orientation(**SIZE, turn=45), "turn: got 45, wanted 0, 90, 180 or 270"),
    "factor": (lambda: Downsample(**SIZE, factor=0), "factor: got 0, wanted 1 to 1024"),
    "law": (lambda: Downsample(**SIZE, factor=2, law="mean"), "law: got 'mean', wanted one of divide, integrate"),
    "contrast window": (lambda: SpatioTemporalContrast(**SIZE, window_us=-1), "window_us"),
    "trail window": (lambda: Trail(**SIZE, window_us=2**61), "window_us"),
    "start": (lambda: TimeWindow(**SIZE, start_us=2**62, duration_us=1), "start_us"),
    "duration": (lambda: TimeWindow(**SIZE, duration_us=0), "duration_us"),
    "period": (lambda: TimeWindow(**SIZE, duration_us=10, period_us=9), "period_us: got 9, wanted 10 to"),
    "calibration": (lambda: Undistort(**SIZE, calibration="${NO_SUCH_VARIABLE}/lens.yaml"), "NO_SUCH_VARIABLE"),
    "zoom": (lambda: Undistort(**SIZE, calibration=f"{FILES}/lens_5x4.yaml", zoom=0), "zoom"),
    "sensor": (
        lambda: Undistort(width=4, height=5, calibration=f"{FILES}/lens_5x4.yaml"),
        "is of a 5x4 sensor, wanted 4x5",
    ),
    "polarity": (lambda: Polarity(**SIZE, keep="bright"), "keep: got 'bright', wanted one of both, on, off"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_parameter_is_refused(case: str) -> None:
    make, wanted = BAD[case]
    with pytest.raises(UsageError, match=wanted):
        make()


def test_hot_pixels_are_counted_and_let_through_when_they_calm_down() -> None:
    operator = HotPixel(**SIZE, max_hz=1000, window_us=10_000)
    storm = [(t, 2, 2, 1) for t in range(0, 100_000, 10)]
    out, _ = run(operator, [packet_of(as_array(storm))])
    assert operator.statistics()["hot pixels"] == 1
    assert len(out[0]) == 10 * EVENT_DTYPE.itemsize
    out, _ = run(operator, [packet_of(as_array([(200_000, 2, 2, 1)]))])
    assert operator.statistics()["hot pixels"] == 0
    assert len(out[0]) == EVENT_DTYPE.itemsize
