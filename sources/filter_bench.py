"""Speeds of the event filters, each beside a plain copy of the same events."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sources.filter_background import BackgroundActivity
from sources.filter_contrast import SpatioTemporalContrast, Trail
from sources.filter_crop import Crop
from sources.filter_downsample import Downsample
from sources.filter_hot_pixel import HotPixel
from sources.filter_mask import Mask, write_mask
from sources.filter_operator import EventFilter
from sources.filter_orientation import Orientation
from sources.filter_polarity import Polarity
from sources.filter_rate_limit import RateLimit
from sources.filter_refractory import Refractory
from sources.filter_time_window import TimeWindow
from sources.filter_undistort import Undistort
from stream.bench import Measurement, alternate
from stream.packet import EVENT_DTYPE, Message, Packet, packet_of

__all__ = ["measurements"]

PACKET_EVENTS = 4096
WIDTH, HEIGHT = 640, 480


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure each filter, packet by packet, against NumPy copying the 13 bytes of each event.

    Parameters
    ----------
    quick
        Fewer packets and rounds: figures good to a fifth rather than to a twentieth.
    """
    packets = _packets(50 if quick else 500)
    for it in _filters():
        yield _measure(it, packets, 3 if quick else 9)


def _filters() -> Iterator[EventFilter]:
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT}
    yield from (
        Refractory(**size),
        BackgroundActivity(**size),
        HotPixel(**size),
        RateLimit(**size),
        Crop(**size, left=160, top=120, crop_width=320, crop_height=240),
        Polarity(**size, keep="on"),
        Orientation(**size, turn=90),
        Downsample(**size, factor=4),
        SpatioTemporalContrast(**size),
        Trail(**size),
        TimeWindow(**size, duration_us=1000, period_us=2000),
    )
    with tempfile.TemporaryDirectory(prefix="hebbstream-") as folder:
        pixels, lens = Path(folder) / "pixels.npy", Path(folder) / "lens.json"
        write_mask(pixels, np.random.default_rng(2).random((HEIGHT, WIDTH)) < 0.01)
        lens.write_text('{"K": [400, 0, 320, 0, 400, 240, 0, 0, 1], "D": [-0.3, 0.1, 0.001, -0.001]}')
        yield Mask(**size, path=str(pixels))
        yield Undistort(**size, calibration=str(lens))


def _packets(n_packets: int) -> list[Packet]:
    """Make 2 million noise events a second on all pixels: nothing is near in memory, no branch can be foretold."""
    rng = np.random.default_rng(1)
    events = np.zeros(n_packets * PACKET_EVENTS, EVENT_DTYPE)
    events["t"] = np.arange(len(events)) // 2
    events["x"], events["y"] = rng.integers(0, WIDTH, len(events)), rng.integers(0, HEIGHT, len(events))
    events["p"] = rng.integers(0, 2, len(events))
    return [packet_of(events[k : k + PACKET_EVENTS]) for k in range(0, len(events), PACKET_EVENTS)]


def _measure(it: EventFilter, packets: list[Packet], rounds: int) -> Measurement:
    fresh = it.snapshot()
    # as bytes: NumPy copies structured arrays field by field, four times slower
    raw = [packet.items.view(np.uint8) for packet in packets]

    def filter_all() -> None:
        it.restore(fresh)  # the stream begins anew: its times must not go back
        for packet in packets:
            it.on_packet("events", packet, _to_nowhere)

    def copy_all() -> None:
        for items in raw:
            items.copy()

    seconds, limit_s = alternate(filter_all, copy_all, rounds=rounds)
    n_events = len(packets) * PACKET_EVENTS
    name = f"filter {it.subject}, {PACKET_EVENTS} events a packet"
    return Measurement(name, n_events / seconds, "events", "NumPy copy of the same events", n_events / limit_s)


def _to_nowhere(port: str, message: Message) -> None:
    """Take what a filter emits."""
