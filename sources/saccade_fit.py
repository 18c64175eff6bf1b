"""What recordings of pictures seen through saccades are like: measured on a sensor's and on simulated ones alike.

A simulated camera trains a network for a real one only as far as both see the same. What is compared here:

- :func:`measure`: events a recording, their polarity, their rate over time, how soon a pixel fires again, how much of
  it is noise (where no picture ever comes);
- :func:`measure_path`: where the picture stood at what time, found from the events alone.

The path. A change of light in a pixel is what the picture's gradient and its motion make of it: d log(light) / dt =
-v . grad. So the map of ON minus OFF events of a short time, correlated with the gradients of the picture that was
shown, is largest where the picture stood, and how large it is along x and y there tells how fast it went. Summed over
all recordings, this is one peak for each time, found to parts of a pixel. Positions are good while the picture moves,
speeds always, so the path is the integral of the speeds, put through the positions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.errors import ConfigError

__all__ = ["Measured", "Path", "likeness", "measure", "measure_path"]

BIN_US = 5000
_SIDE = 64  # of the planes that are correlated: sensor and reach fit in without wrapping around
_REACH = 8  # how far off the middle the picture is looked for, pixels


class Measured(NamedTuple):
    """What recordings are like."""

    n_recordings: int
    events: float  # a recording, mean
    events_spread: float  # standard deviation between recordings
    on_share: float
    rate_hz: NDArray[np.float64]  # (2, n_bins): OFF and ON events of the whole sensor over time, mean
    again_us: NDArray[np.float64]  # (5,): time between two events of a pixel; 1, 10, 25, 50 and 75 % are shorter
    border_hz: float  # events of a pixel at the sensor's border, where no picture comes: noise
    per_pixel: NDArray[np.float64]  # (height, width): events of each pixel a recording
    busiest: float  # events of a recording's busiest 5 % of pixels, as a share of all


class Path(NamedTuple):
    """Where a picture stood, seen on the sensor."""

    t_us: NDArray[np.int64]  # (n,): middle of each bin
    x: NDArray[np.float64]  # (n,): pixels to the right of the middle
    y: NDArray[np.float64]  # (n,): pixels below the middle
    events_per_log: float  # ON minus OFF events of a pixel for each natural-log unit that its light rises by
    explained: float  # share of the maps' variance that path and pictures explain


def measure(recordings: Sequence[NDArray[np.void]], *, width: int, height: int, duration_us: int = 315_000) -> Measured:
    """Measure recordings, EVENT_DTYPE each, their times counted from their own start.

    Raises
    ------
    ConfigError
        There are none.
    """
    if not len(recordings):
        raise ConfigError("measure: got no recordings, wanted one or more")
    bins = np.arange(0, duration_us + BIN_US, BIN_US)
    rate = np.zeros((2, len(bins) - 1))
    per_pixel = np.zeros((height, width))
    again: list[NDArray[np.int64]] = []
    shares = []
    for events in recordings:
        for p in (0, 1):
            rate[p] += np.histogram(events["t"][events["p"] == p], bins)[0]
        place = events["y"].astype(np.int64) * width + events["x"]
        counts = np.bincount(place, minlength=width * height)
        per_pixel += counts.reshape(height, width)
        shares.append(np.sort(counts)[-max(1, len(counts) // 20) :].sum() / max(1, len(events)))
        order = np.lexsort((events["t"], place))
        is_same = np.diff(place[order]) == 0
        again.append(np.diff(events["t"][order])[is_same])
    n = len(recordings)
    sizes = np.array([len(events) for events in recordings])
    border = np.concatenate((per_pixel[0], per_pixel[-1], per_pixel[1:-1, 0], per_pixel[1:-1, -1]))
    gaps = np.concatenate(again)
    return Measured(
        n,
        float(sizes.mean()),
        float(sizes.std()),
        float(rate[1].sum() / max(1.0, rate.sum())),
        rate / n / (BIN_US * 1e-6),
        np.percentile(gaps, (1, 10, 25, 50, 75)) if len(gaps) else np.full(5, np.nan),
        float(border.mean() / n / (duration_us * 1e-6)),
        per_pixel / n,
        float(np.mean(shares)),
    )


def likeness(one: Sequence[NDArray[np.void]], other: Sequence[NDArray[np.void]], *, width: int, height: int) -> float:
    """Return how alike recordings of the same pictures are: the mean cosine of their maps of events.

    Maps are of 25 ms, by polarity; 1 = the same number of events at the same pixels at the same time.
    """
    cosines: list[float] = []
    for pair in zip(one, other, strict=True):
        maps: list[NDArray[np.float64]] = []
        for events in pair:
            counts = np.zeros((2, 13, height, width))
            np.add.at(counts, (events["p"], np.minimum(events["t"] // 25_000, 12), events["y"], events["x"]), 1.0)
            maps.append(counts.reshape(-1))
        lengths = float(np.linalg.norm(maps[0])) * float(np.linalg.norm(maps[1]))
        cosines.append(float(maps[0] @ maps[1]) / max(lengths, 1e-30))
    return float(np.mean(cosines))


def measure_path(
    recordings: Sequence[NDArray[np.void]],
    pictures: Sequence[NDArray[np.float32]],
    *,
    duration_us: int = 315_000,
) -> Path:
    """Find where the pictures stood.

    Parameters
    ----------
    recordings
        EVENT_DTYPE each.
    pictures
        Of each recording: float32, shape (height, width) of the sensor, its light with the picture in the middle.

    Raises
    ------
    ConfigError
        There are none, not as many of one as of the other, or the sensor is larger than 48 pixels a side.
    """
    if not len(recordings) or len(recordings) != len(pictures) or max(pictures[0].shape) > _SIDE - 2 * _REACH:
        raise ConfigError(
            f"measure_path: got {len(recordings)} recordings and {len(pictures)} pictures; wanted as many of one as "
            f"of the other, one at least, and sides up to {_SIDE - 2 * _REACH}"
        )
    high, wide = pictures[0].shape
    n_bins = duration_us // BIN_US
    hits = np.zeros((2, n_bins, _SIDE, _SIDE // 2 + 1), np.complex128)
    gram = np.zeros((2, 2))
    energy = np.zeros(n_bins)
    for events, picture in zip(recordings, pictures, strict=True):
        maps = np.zeros((n_bins, _SIDE, _SIDE))
        k = np.minimum(events["t"] // BIN_US, n_bins - 1)
        np.add.at(maps, (k, events["y"], events["x"]), 2.0 * events["p"] - 1.0)
        energy += (maps**2).sum(axis=(1, 2))
        border = np.concatenate((picture[0], picture[-1], picture[:, 0], picture[:, -1]))
        plane = np.full((_SIDE, _SIDE), np.log(border.mean()))
        plane[:high, :wide] = np.log(picture)
        # periodic, as the transform is; around the picture the plane is even
        slopes = [(np.roll(plane, -1, axis) - np.roll(plane, 1, axis)) / 2 for axis in (1, 0)]
        gram += [[float((a * b).sum()) for b in slopes] for a in slopes]
        spectrum = np.fft.rfft2(maps)
        for a, slope in enumerate(slopes):
            hits[a] += spectrum * np.conj(np.fft.rfft2(slope))
    match = np.fft.fftshift(np.fft.irfft2(hits, s=(_SIDE, _SIDE)), axes=(2, 3))
    middle = _SIDE // 2
    match = match[:, :, middle - _REACH : middle + _REACH + 1, middle - _REACH : middle + _REACH + 1]
    inverse = np.linalg.inv(gram)
    explained = np.einsum("akyx,ab,bkyx->kyx", match, inverse, match)
    place, speed = np.zeros((2, n_bins)), np.zeros((2, n_bins))
    for k in range(n_bins):
        y, x = np.unravel_index(int(explained[k].argmax()), explained[k].shape)
        place[:, k] = _peak(explained[k, y], int(x)) - _REACH, _peak(explained[k, :, x], int(y)) - _REACH
        speed[:, k] = -inverse @ match[:, k, y, x]
    weight = explained.max(axis=(1, 2))
    path, scale = _joined(place, speed, weight)
    t_us = np.arange(n_bins) * BIN_US + BIN_US // 2
    return Path(t_us, path[0], path[1], scale, float(weight.sum() / max(energy.sum(), 1.0)))


def _peak(values: NDArray[np.float64], at: int) -> float:
    """Return where a parabola through a maximum and its neighbours is highest."""
    if not 0 < at < len(values) - 1:
        return float(at)
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return at + (0.5 * float((before - after) / bend) if bend < 0 else 0.0)


def _joined(
    place: NDArray[np.float64], speed: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Integrate speeds, scaled and shifted so that they go through the positions; return path and events a log unit."""
    gone = np.cumsum(speed, axis=1) - speed / 2
    share = weight / weight.sum()
    gone_off = gone - (gone * share).sum(axis=1, keepdims=True)
    place_mean = (place * share).sum(axis=1, keepdims=True)
    # one scale for both axes: how many events a log unit makes does not depend on the direction
    slope = float((share * gone_off * (place - place_mean)).sum() / (share * gone_off**2).sum())
    return place_mean + slope * gone_off, 1.0 / slope
