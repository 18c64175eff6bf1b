"""Speeds of the sources, each beside its limit."""

from collections.abc import Iterator

import numpy as np

from sources.atis_bin import EVENT_BYTES, atis_bin_decode, encode_atis_bin
from sources.simulated import SimulatedCamera
from stream.bench import Measurement, alternate
from stream.packet import EVENT_DTYPE, End

__all__ = ["measurements"]


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure the simulated camera against real time, and the ``.bin`` decoder against copies of the same memory.

    Parameters
    ----------
    quick
        Less work and fewer rounds: figures good to a fifth rather than to a twentieth.
    """
    rounds = 3 if quick else 9
    yield _simulated_camera(300_000 if quick else 1_500_000, rounds)
    yield _bin_decode(200_000 if quick else 2_000_000, rounds)


def _simulated_camera(duration_us: int, rounds: int) -> Measurement:
    def play() -> None:
        camera = SimulatedCamera(scene="digits", width=128, height=128, duration_us=duration_us, step_us=1000)
        while not isinstance(camera.poll(1 << 20), End):
            pass

    seconds, _ = alternate(play, lambda: None, rounds=rounds)
    return Measurement(
        "simulated camera 128x128, digits rendered each ms", duration_us / seconds, "simulated us", "real time", 1e6
    )


def _bin_decode(n_events: int, rounds: int) -> Measurement:
    # Reading 5 and writing 13 bytes an event is the least a decoder can do: the limit is NumPy doing just that.
    events = np.zeros(n_events, EVENT_DTYPE)
    events["t"] = np.arange(n_events) * 8_000_000 // n_events
    events["x"] = np.arange(n_events) * 7 % 240
    events["y"] = np.arange(n_events) * 11 % 240
    events["p"] = np.arange(n_events) % 2
    raw = encode_atis_bin(events)
    decoded = events.copy()
    offset_us = np.zeros(1, np.int64)
    # as bytes: NumPy copies structured arrays field by field, four times slower
    decoded_bytes = decoded.view(np.uint8)
    raw_copy, events_copy = raw.copy(), decoded_bytes.copy()

    def copy() -> None:
        np.copyto(raw_copy, raw)
        np.copyto(events_copy, decoded_bytes)

    seconds, limit_s = alternate(lambda: atis_bin_decode(raw, offset_us, decoded), copy, rounds=rounds)
    return Measurement(
        "decode 40-bit .bin",
        n_events / seconds,
        "events",
        f"NumPy copy of the {EVENT_BYTES} bytes read and the {EVENT_DTYPE.itemsize} written",
        n_events / limit_s,
    )
