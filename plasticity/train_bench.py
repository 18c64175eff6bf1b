"""Speed of training an N-MNIST-like network, 2312-512-10, event by event: beside a row add, and beside snnTorch.

The row add reads one row of the hidden weights for each event; training reads each again on the way back and adds to a
row of gradients, so 0.33 would be as fast as memory is. snnTorch, where it is installed, trains the same architecture
on the same recordings in frames of 1 ms, a batch of 32 at a time, with its usual surrogate (fast sigmoid), on one
thread as we do. An epoch of 60,000 recordings takes 60,000 divided by the rate given.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from plasticity.bench import add_rows
from plasticity.hebbian import Hebbian
from plasticity.train import Recording, Trainer
from stream.bench import Measurement, alternate
from stream.packet import EVENT_DTYPE

__all__ = ["measurements"]

SIDE, N_HIDDEN, N_CLASSES, BATCH = 34, 512, 10, 32
N_EVENTS, SPAN_US = 4_000, 300_000  # of a recording, as N-MNIST's mean


def _recordings(rng: Any, n: int) -> list[Recording]:
    """Blobs that wander as under saccades, one place for each class."""
    made = []
    for k in range(n):
        label = k % N_CLASSES
        events = np.zeros(N_EVENTS, EVENT_DTYPE)
        events["t"] = np.sort(rng.integers(0, SPAN_US, N_EVENTS))
        phase = events["t"] / SPAN_US * 6.0
        angle = 2 * np.pi * label / N_CLASSES
        x = 17 + 7 * np.cos(angle) + 2 * np.cos(phase) + rng.normal(0, 3, N_EVENTS)
        y = 17 + 7 * np.sin(angle) + 2 * np.sin(phase) + rng.normal(0, 3, N_EVENTS)
        events["x"], events["y"] = np.clip(x, 0, SIDE - 1), np.clip(y, 0, SIDE - 1)
        events["p"] = rng.integers(0, 2, N_EVENTS)
        events.flags.writeable = False
        made.append(Recording(label, lambda events=events: events))  # type: ignore[misc] # a default in a lambda has no type
    return made


def _graph(rng: Any) -> Graph:
    return Graph(
        (SIDE, SIDE, 2),
        [
            Population("hidden", LIFUnits(tau_mem_us=20_000.0), (N_HIDDEN,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=60_000.0), (N_CLASSES,)),
        ],
        [
            Projection(INPUT, "hidden", Dense(rng.normal(0, 0.05, (SIDE * SIDE * 2, N_HIDDEN)))),
            Projection("hidden", "scores", Dense(rng.normal(0, N_HIDDEN**-0.5, (N_HIDDEN, N_CLASSES)))),
        ],
    )


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure the forward run, forward and back, and a step on a batch.

    Parameters
    ----------
    quick
        Fewer recordings and rounds: to see that it runs.
    """
    rng = np.random.default_rng(1)
    n, rounds = (4, 2) if quick else (BATCH, 5)
    graph = _graph(rng)
    recordings = _recordings(rng, n)
    weight = np.asarray(graph.projections[0].topology.weight, np.float32)  # type: ignore[union-attr] # dense, made above
    all_events = [recording.read() for recording in recordings]
    rows = [(it["y"].astype(np.int64) * SIDE + it["x"]) * 2 + it["p"] for it in all_events]
    total = np.zeros(N_HIDDEN, np.float32)

    def limit() -> None:
        total.fill(0)
        for units in rows:
            add_rows(total, weight, units)

    for mode, rules in (("GP", {}), ("HP", {(INPUT, "hidden"): Hebbian()})):
        trainer = Trainer(graph, readout="scores", rules=rules, lanes=1, weight_rate=0.0, meta_rate=0.0)
        network = trainer.lanes[0]

        def forward(network: Any = network) -> None:
            for recording in recordings:
                network.begin(0)
                network.run(recording.read())

        with ThreadPoolExecutor(1) as pool:

            def learn(trainer: Trainer = trainer, pool: ThreadPoolExecutor = pool) -> None:
                trainer.learn(recordings, pool)

            for name, call in ((f"training {mode}, forward", forward), (f"training {mode}, a step", learn)):
                call_s, limit_s = alternate(call, limit, rounds=rounds)
                yield Measurement(name, n * N_EVENTS / call_s, "events", "float32 row add", n * N_EVENTS / limit_s)
            if mode == "GP":
                try:
                    peer_s = _snntorch(recordings, weight)
                except ImportError:
                    continue
                yield Measurement("training GP beside snnTorch", n / call_s, "recordings", "snnTorch, 1 ms", n / peer_s)


def _snntorch(recordings: list[Recording], weight: NDArray[np.float32]) -> float:
    """Return the seconds of a training step of snnTorch on the same recordings: the least of three."""
    torch: Any = import_module("torch")
    library: Any = import_module("snntorch")

    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    slope = library.surrogate.fast_sigmoid()
    beta, slower = float(np.exp(-1.0 / 20.0)), float(np.exp(-1.0 / 60.0))
    first = torch.nn.Linear(*weight.shape, bias=False)
    first.weight.data = torch.from_numpy(np.ascontiguousarray(weight.T))
    second = torch.nn.Linear(N_HIDDEN, N_CLASSES, bias=False)
    cell = library.Leaky(beta=beta, threshold=1.0, spike_grad=slope, reset_mechanism="subtract")
    leak = library.Leaky(beta=slower, reset_mechanism="none")
    optimiser = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.0)
    labels = torch.tensor([recording.label for recording in recordings])
    n_frames, n_pre = SPAN_US // 1000, len(weight)

    def step() -> None:
        frames = np.zeros((n_frames, len(recordings), n_pre), np.float32)
        for k, recording in enumerate(recordings):
            it = recording.read()
            units = (it["y"].astype(np.int64) * SIDE + it["x"]) * 2 + it["p"]
            np.add.at(frames[:, k], (it["t"] // 1000, units), 1.0)
        v, o, total = cell.init_leaky(), leak.init_leaky(), 0.0
        for frame in torch.from_numpy(frames):
            spikes, v = cell(first(frame), v)
            _, o = leak(second(spikes), o)
            total = total + o
        loss = torch.nn.functional.cross_entropy(total / n_frames, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    step()
    times_s = []
    for _ in range(3):
        begin = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - begin)
    return min(times_s)
