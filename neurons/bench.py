"""Speeds of networks, each beside the plainest loop that does as much, and beside other simulators where they are.

Dense layers stand beside a loop that adds the same rows to one vector, in the same precision and from the same memory:
it neither leaks, nor looks at times, nor fires. A convolution stands beside the loop that one writes first: over the
windows that hold the event, with one exponential for each of their sites.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurons.convolution import Convolution, window_shape
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.quantised_dense import QuantisedDense, dense, quantised
from stream.bench import Measurement, alternate
from stream.jit import kernel
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE

__all__ = ["add_rows", "measurements", "plain_convolution"]

WIDTH, HEIGHT, N_HIDDEN, N_CLASSES = 34, 34, 256, 10
N_INPUTS = WIDTH * HEIGHT * 2
TAU_US = 20_000.0
SILENT = 1e6  # a threshold
CAMERA, TAPS, STRIDE, CHANNELS = 128, 5, 2, 16


@kernel
def add_rows(total: Any, weight: Any, items: Any) -> int:
    """Add ``weight[unit]``, real, shape (n_pre, n_post), to ``total`` for each item."""
    for k in range(len(items)):
        i = items[k]["unit"]
        for j in range(len(total)):
            total[j] += weight[i, j]
    return len(items)


@kernel
def plain_convolution(
    v: Any, t_us: Any, weight: Any, stride: int, tau_us: float, threshold: float, events: Any, fired: Any
) -> int:
    """Run events through a convolution of leaky units: the plain loop.

    ``v``: real, shape (height, width, channels); ``t_us``: int64, shape (height, width); ``weight``: real, shape (k, k,
    2, channels); ``fired``: int64, shape (room,), a ring.
    """
    size, n_fired = len(weight), 0
    for k in range(len(events)):
        t, c = np.int64(events[k]["t"]), events[k]["p"]
        y: Any = np.int64(events[k]["y"])
        x: Any = np.int64(events[k]["x"])
        for oy in range(max(0, (y - size + stride) // stride), min(len(v) - 1, y // stride) + 1):
            for ox in range(max(0, (x - size + stride) // stride), min(v.shape[1] - 1, x // stride) + 1):
                factor = v.dtype.type(math.exp(-(t - t_us[oy, ox]) / tau_us))
                t_us[oy, ox] = t
                for o in range(v.shape[2]):
                    v[oy, ox, o] = v[oy, ox, o] * factor + weight[y - oy * stride, x - ox * stride, c, o]
                    if v[oy, ox, o] > threshold:
                        v[oy, ox, o] -= threshold
                        fired[n_fired % len(fired)] = (oy * v.shape[1] + ox) * v.shape[2] + o
                        n_fired += 1
    return n_fired


def _spikes(rng: np.random.Generator, n: int, n_units: int, rate_hz: float) -> NDArray[np.void]:
    """Draw spikes of random units at random times."""
    items = np.zeros(n, SPIKE_DTYPE)
    items["t"] = np.sort(rng.integers(0, max(int(n / rate_hz * 1e6), 1), n))
    items["unit"] = rng.integers(0, n_units, n)
    items.flags.writeable = False
    return items


def _events(items: NDArray[np.void], width: int) -> NDArray[np.void]:
    """Return spikes of the units of a sensor as its events."""
    events = np.zeros(len(items), EVENT_DTYPE)
    unit = items["unit"].astype(np.int64)
    events["t"], events["x"], events["y"], events["p"] = items["t"], unit // 2 % width, unit // 2 // width, unit % 2
    return events


def _later(items: NDArray[np.void], times: int) -> Iterator[NDArray[np.void]]:
    """Return the items again and again, later each time."""
    span_us = int(items["t"][-1]) + 1
    copies = [items.copy() for _ in range(times)]
    for k, copy in enumerate(copies):
        copy["t"] += k * span_us
    return iter(copies)


def _runner(graph: Graph, items: NDArray[np.void], times: int) -> tuple[Network, Callable[[], int]]:
    """Return a network, and what runs all items through it, so many times, and counts its first population's spikes.

    Time goes on: putting the network to rest would be measured too, and clears its memory out of the caches.
    """
    network, copies = Network.of(graph), _later(items, times)
    return network, lambda: len(network.run(next(copies))[graph.populations[0].name])


def _threshold_for(wanted: float, build: Callable[[float], Graph], items: NDArray[np.void]) -> float:
    """Find the threshold at which there are about so many spikes an item."""
    low, high = 1e-3, 1e3
    for _ in range(20):
        middle = math.sqrt(low * high)
        _, run = _runner(build(middle), items[:5000], 2)
        run()
        if run() / 5000 > wanted:
            low = middle
        else:
            high = middle
    return high


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure dense layers, a convolution and a small network; synaptic operations are those of useful inputs.

    Parameters
    ----------
    quick
        Fewer events and rounds, no other simulators: to see that it runs.
    """
    n, rounds = (20_000, 3) if quick else (200_000, 9)
    yield from _dense(n, rounds)
    yield from _convolution(n, rounds)
    yield from _sweep(quick)


def _dense(n: int, rounds: int) -> Iterator[Measurement]:
    rng = np.random.default_rng(1)
    limit = "float32 row add, same memory"
    for n_units, rate_hz, per_event, name in (
        (256, 1e6, 0.0, "silent"),
        (512, 1e6, 0.0, "silent"),
        (1024, 1e6, 0.0, "silent"),
        (256, 1e6, 0.01, "1 spike in 100 events"),
        (512, 1e6, 0.01, "1 spike in 100 events"),
        (1024, 1e6, 0.01, "1 spike in 100 events"),
        (256, 1e6, 1.0, "1 spike an event"),
        (1024, 1e6, 1.0, "1 spike an event"),
        (256, 1e7, 0.0, "10 M events a second"),
    ):
        weight = rng.normal(0, 0.05, (N_INPUTS, n_units)).astype(np.float32)
        items = _spikes(rng, n, N_INPUTS, rate_hz)

        def build(threshold: float, n_units: int = n_units, weight: Any = weight) -> Graph:
            hidden = Population("hidden", LIFUnits(TAU_US, threshold), (n_units,))
            return Graph((N_INPUTS,), [hidden], [Projection(INPUT, "hidden", Dense(weight))])

        network, run = _runner(
            build(_threshold_for(per_event, build, items) if per_event else SILENT), items, rounds + 1
        )
        rows, total = network._program.weight.reshape(weight.shape), np.zeros(n_units, np.float32)

        def add(rows: Any = rows, total: Any = total, items: Any = items) -> None:
            total.fill(0)  # large sums would end in inf, which some machines add more slowly
            add_rows(total, rows, items)

        run_s, add_s = alternate(run, add, rounds=rounds)
        count = n * n_units
        yield Measurement(f"dense {n_units}, {name}", count / run_s, "synaptic operations", limit, count / add_s)


def _convolution(n: int, rounds: int) -> Iterator[Measurement]:
    rng = np.random.default_rng(2)
    weight = rng.normal(0, 0.2, (TAPS, TAPS, 2, CHANNELS)).astype(np.float32)
    shape = (*window_shape((CAMERA, CAMERA, 2), (TAPS, TAPS), (STRIDE, STRIDE), (0, 0)), CHANNELS)
    items = _events(_spikes(rng, n, CAMERA * CAMERA * 2, 1e6), CAMERA)
    place = np.stack([items["y"], items["x"]]).astype(np.int64)
    windows = np.minimum(shape[0] - 1, place // STRIDE) - np.maximum(0, (place - TAPS + STRIDE) // STRIDE) + 1
    count = int(windows.prod(axis=0).sum()) * CHANNELS

    def build(threshold: float) -> Graph:
        return Graph(
            (CAMERA, CAMERA, 2),
            [Population("map", LIFUnits(TAU_US, threshold), shape)],
            [Projection(INPUT, "map", Convolution(weight, (STRIDE, STRIDE)))],
        )

    for per_event, name in ((0.0, "silent"), (0.01, "1 spike in 100 events"), (1.0, "1 spike an event")):
        threshold = _threshold_for(per_event, build, items) if per_event else SILENT
        _, run = _runner(build(threshold), items, rounds + 1)
        v, t_us, fired = np.zeros(shape, np.float32), np.zeros(shape[:2], np.int64), np.zeros(1024, np.int64)
        copies = _later(items, rounds + 1)

        def plain(
            v: Any = v, t_us: Any = t_us, fired: Any = fired, copies: Any = copies, at: float = threshold
        ) -> None:
            plain_convolution(v, t_us, weight, STRIDE, TAU_US, at, next(copies), fired)

        run_s, plain_s = alternate(run, plain, rounds=rounds)
        yield Measurement(
            f"convolution {TAPS}x{TAPS}x{CHANNELS}, {name}",
            count / run_s,
            "synaptic operations",
            "plain loop",
            count / plain_s,
        )


def _sweep(quick: bool) -> Iterator[Measurement]:
    """Measure a network 34 x 34 x 2 -> 256 -> 10 as multiples of real time; the limit is real time itself.

    Twice, with the same weights: as float32, and as the 8 bits that they are whole multiples of.
    """
    rng = np.random.default_rng(3)
    whole = quantised(Dense(rng.normal(0, 0.05, (N_INPUTS, N_HIDDEN))))
    hidden = dense(whole).weight.astype(np.float32)
    readout = rng.normal(0, 0.05, (N_HIDDEN, N_CLASSES)).astype(np.float32)

    def graph_of(first: Dense | QuantisedDense) -> Graph:
        return Graph(
            (HEIGHT, WIDTH, 2),
            [
                Population("hidden", LIFUnits(TAU_US, 1.0), (N_HIDDEN,)),
                Population("scores", LeakyIntegratorUnits(TAU_US), (N_CLASSES,)),
            ],
            [Projection(INPUT, "hidden", first), Projection("hidden", "scores", Dense(readout))],
        )

    for rate_hz in (100_000, 1_000_000, 10_000_000):
        n = int(rate_hz * (0.02 if quick else 0.2 if rate_hz > 10**6 else 1.0))
        span_s = n / rate_hz
        items = _spikes(rng, n, N_INPUTS, rate_hz)
        events = _events(items, WIDTH)
        networks = {"": Network.of(graph_of(Dense(hidden))), ", 8 bits": Network.of(graph_of(whole))}
        taken_s = dict.fromkeys(networks, math.inf)
        for k in range(3 if quick else 5):
            events["t"] = items["t"] + k * int(span_s * 1e6)
            for kind, network in networks.items():
                begin = time.perf_counter()
                network.run(events)
                taken_s[kind] = min(taken_s[kind], time.perf_counter() - begin)
        name = f"network {WIDTH}x{HEIGHT}x2-{N_HIDDEN}-{N_CLASSES} at {rate_hz // 1000} k events/s"
        for kind, least_s in taken_s.items():
            yield Measurement(f"{name}{kind}", span_s / least_s, "seconds of stream", "real time", 1.0)
        if quick:
            continue
        from neurons.peer_bench import PEERS

        for peer, measure in PEERS.items():
            try:
                peer_s = measure(items, span_s, hidden, readout)
            except ImportError as error:
                print(f"{peer}: skipped, {error}", file=sys.stderr)
                continue
            for kind, least_s in taken_s.items():
                yield Measurement(
                    f"{name}{kind}, times {peer}", span_s / least_s, "seconds of stream", peer, span_s / peer_s
                )
