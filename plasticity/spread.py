"""Batch training spread over the workers of a Ray cluster: same weights, however many there are and whoever is lost.

How many *lanes* a batch is dealt to is part of the result (``plasticity.train``); which worker runs a lane is not. A
worker holds copies of the network, gets what is learned so far with every batch, and sends back the gradients of each
of its lanes; they are added up here in the order of the lanes, and the step is taken here. A worker that is lost is
started again, elsewhere if need be, and its lanes are run once more: nothing of a batch counts before all of it is
there.

What goes over the network for each batch, to each worker: what is learned (weights, their moments, meta-parameters);
back: one table of gradients for each of its lanes. Recordings are read by the workers, from the same paths.

The road not taken, a step on every worker from exchanged gradients, moves less; but machines that round differently
would drift apart.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurons.graph import Graph
from plasticity.train import Recording, Trainer
from stream.cluster import begin_at, join
from stream.errors import RunError
from stream.operator import Snapshot

__all__ = ["SpreadTrainer"]

MOST_LOSSES = 20  # of workers in a row, without a batch that came through


class Lanes:
    """Some lanes of a training, in the process of a Ray actor."""

    def __init__(self, graph: Graph, arguments: dict[str, Any], folder: str) -> None:
        begin_at(folder)
        self._trainer = Trainer(graph, **arguments)

    def learn(
        self, learned: Snapshot, work: list[tuple[int, list[Recording]]]
    ) -> tuple[list[tuple[list[tuple[float, bool]], list[NDArray[Any]]]], float]:
        """Run lanes; returns of each what came of its recordings and its gradients, and the time that took, s."""
        start_s = time.perf_counter()
        self._trainer.correction.restore(learned)
        done = []
        for lane, recordings in work:
            results = self._trainer._learn(lane, recordings)
            gradients = self._trainer.windows[lane].gradients
            done.append((results, [array.copy() for array in gradients]))
            for array in gradients:
                array.fill(0)
        return done, time.perf_counter() - start_s

    def answers(self, learned: Snapshot, work: list[tuple[int, list[Recording]]]) -> tuple[list[list[int]], float]:
        """Ask each lane about its recordings."""
        start_s = time.perf_counter()
        self._trainer.correction.restore(learned)
        found = [[int(np.argmax(self._trainer._see(lane, it))) for it in recordings] for lane, recordings in work]
        return found, time.perf_counter() - start_s

    def process(self) -> int:
        """Return the number of this process."""
        return os.getpid()


class SpreadTrainer(Trainer):
    """A trainer whose lanes run on workers of a cluster.

    Parameters
    ----------
    graph, lanes, arguments
        As for ``plasticity.train.Trainer``.
    on
        The cluster, as for ``stream.cluster.join``.
    workers
        How many, 0: one for each core of the cluster; does not change the result. There are no more than lanes.

    Attributes
    ----------
    busy_s, wall_s : float
        Time that all workers together spent on lanes, and that passed here meanwhile.
    losses : int
        Workers that were lost and started again.
    """

    def __init__(self, graph: Graph, *, on: str, workers: int, lanes: int = 8, **arguments: Any) -> None:
        super().__init__(graph, lanes=1, **arguments)
        self.busy_s = self.wall_s = 0.0
        self.losses = 0
        self._n_lanes = lanes
        self._ray = join(on)
        self._graph = self._ray.put(graph)
        self._arguments = self._ray.put({**arguments, "lanes": lanes, "threads": 1})
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        self._workers = [self._start() for _ in range(max(1, min(workers or cores, lanes)))]

    @property
    def efficiency(self) -> float:
        """Share of the workers' time that they spent on lanes."""
        return self.busy_s / max(self.wall_s * len(self._workers), 1e-9)

    def learn(self, recordings: Sequence[Recording], pool: Executor) -> tuple[float, int]:
        """Take one step on a batch; as ``Trainer.learn``."""
        del pool
        total = self.correction.window.gradients
        results = []
        for lane_results, gradients in self._spread("learn", recordings):
            results += lane_results
            for mine, other in zip(total, gradients, strict=True):
                mine += other
        self.correction.n_summed += len(recordings)
        self.correction.step()
        return sum(loss for loss, _ in results), sum(right for _, right in results)

    def answers(self, recordings: Sequence[Recording], pool: ThreadPoolExecutor) -> NDArray[np.int64]:
        """Return the class that the network finds for each recording; as ``Trainer.answers``."""
        del pool
        found = np.zeros(len(recordings), np.int64)
        for lane, answers in enumerate(self._spread("answers", recordings)):
            found[lane :: self._n_lanes] = answers
        return found

    def processes(self) -> list[int]:
        """Return the numbers of the workers' processes."""
        return [self._ray.get(worker.process.remote()) for worker in self._workers]

    def close(self) -> None:
        """Let the workers go. Idempotent."""
        for worker in self._workers:
            self._ray.kill(worker)
        self._workers = []

    def _start(self) -> Any:
        return (
            self._ray.remote(Lanes)
            .options(num_cpus=1, max_restarts=0)
            .remote(self._graph, self._arguments, os.getcwd())
        )

    def _spread(self, what: str, recordings: Sequence[Recording]) -> list[Any]:
        """Let all lanes run on the workers; returns what each gave, in their order."""
        ray, n, start_s = self._ray, self._n_lanes, time.perf_counter()
        learned = ray.put(self.correction.snapshot())
        done: list[Any] = [None] * n
        waiting: dict[Any, tuple[int, list[int]]] = {}

        def give(worker: int, lanes: list[int]) -> None:
            work = [(lane, list(recordings[lane::n])) for lane in lanes]
            waiting[getattr(self._workers[worker], what).remote(learned, work)] = (worker, lanes)

        for worker in range(len(self._workers)):
            give(worker, list(range(worker, n, len(self._workers))))
        lost = 0
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            worker, lanes = waiting.pop(ready)
            try:
                found, busy_s = ray.get(ready)
            except ray.exceptions.RayActorError as error:
                lost += 1
                if lost > MOST_LOSSES:
                    raise RunError(f"training: {lost} workers lost in one batch, the last: {error}") from None
                self._workers[worker] = self._start()
                give(worker, lanes)
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # with its own words, not with Ray's around them
            self.busy_s += busy_s
            for lane, result in zip(lanes, found, strict=True):
                done[lane] = result
        self.losses += lost
        self.wall_s += time.perf_counter() - start_s
        return done
