"""Corrections beside the stream: windows are walked back in a thread, and what was learned enters at a mark.

A walk takes as long as the window's forward run or longer, and a step touches every weight; done at a label, the events
behind it wait. Here the label only copies the window (tape, and where it began) and goes on. One worker takes the
windows in their order, on a network of its own; its steps change weights of its own. They come into force at a mark: at
the first ``Reset`` or ``Label`` that is at least ``beside_us`` of stream time behind the label that asked for the step.
Stream time decides, never how fast the worker is, so the same stream gives the same bits, in a replay and on a loaded
machine.

A worker that is late makes the stream wait at that mark. How often and how long is counted, and shown
(``NetworkLearner.statistics``). It is the bound: nothing else ever waits, but for the copies.

Measured (2312-200-12, recordings of 6,200 events, one machine under load; processor time of the stream's thread at a
label, median and largest of 36): GP 4.1 and 19.9 ms without, 0.6 and 1.0 with; HP 11.7 and 15.6 ms without, 1.2 and 1.6
with. What is left is the copy of the window and of where the network stood.

Each window is walked back with the weights that were in force when it ran; gradients are those of ``GlobalCorrection``
without a thread. What differs is that answers in the meantime come from the older weights.
"""

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.program import ANCHOR_US
from plasticity.correction import GlobalCorrection
from plasticity.plastic_network import PlasticNetwork
from plasticity.window import Piece, TapedWindow

__all__ = ["Beside", "Ended", "Step", "lay", "lift"]

MOST_WAITING = 64  # windows that wait for the worker; each holds a tape


class Ended(NamedTuple):
    """A window that has ended, and all that its walk back needs."""

    pieces: tuple[Piece, ...]  # the last one is what was being taped
    anchor_us: int
    clock: NDArray[np.int64]  # int64: of the network, as it stood at the window's end


class Step(NamedTuple):
    """What a step has made."""

    weight: NDArray[Any]  # real, shape (n_weights,)
    values: NDArray[np.float64]  # float64, shape (n_values,): of all meta-parameters, one behind the other


def lift(window: TapedWindow) -> Ended:
    """Copy a window up to now."""
    network = window.network
    return Ended((*window._pieces, window.lift()), int(network.state.book[ANCHOR_US]), network._clock.copy())


def lay(window: TapedWindow, ended: Ended) -> None:
    """Put a window of a like network here, to be walked back."""
    window._pieces[:] = ended.pieces[:-1]
    window.lay(ended.pieces[-1])
    window.network.state.book[ANCHOR_US] = ended.anchor_us
    window.network._clock[:] = ended.clock


class Beside:
    """The worker, its network and its correction.

    Parameters
    ----------
    twin
        A network like the one that runs; the worker's own.
    correction
        Parameters of ``plasticity.correction.GlobalCorrection``.

    Attributes
    ----------
    waiting : deque
        Steps that are not in force yet: (stream time from which they may be, us; their result).
    n_waits, waited_s
        How often and how long the stream has waited.
    """

    def __init__(self, twin: PlasticNetwork, **correction: Any) -> None:
        self.correction = GlobalCorrection(twin, apart=True, **correction)
        self.waiting: deque[tuple[int, Future[Step]]] = deque()
        self._walks: deque[Future[Any]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self.n_waits, self.waited_s = 0, 0.0

    def _submit(self, job: Any, *given: Any) -> Any:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "correction")
        return self._pool.submit(job, *given)

    def _result(self, future: Future[Any]) -> Any:
        if not future.done():
            self.n_waits += 1
            begun_s = time.perf_counter()
            future.exception()
            self.waited_s += time.perf_counter() - begun_s
        return future.result()

    def walk(self, ended: Ended, d_scores: NDArray[np.float64]) -> None:
        """Have the gradients of a window added."""
        while self._walks and (self._walks[0].done() or len(self._walks) >= MOST_WAITING):
            self._result(self._walks.popleft())
        self._walks.append(self._submit(self._walk, ended, d_scores))

    def _walk(self, ended: Ended, d_scores: NDArray[np.float64]) -> None:
        lay(self.correction.window, ended)
        self.correction.add(d_scores)

    def hold_back(self, loss: float) -> None:
        """Have a loss noted that is not learned from; a rollback comes into force with the next step."""
        self._walks.append(self._submit(self.correction.hold_back, loss))

    def step(self, from_us: int) -> None:
        """Have a step taken that comes into force at the first mark from ``from_us`` on."""
        self.waiting.append((from_us, self._submit(self._step)))

    def _step(self) -> Step:
        self.correction.step()
        return Step(*self.correction.result())

    def due(self, t_us: int) -> Step | None:
        """Return what comes into force at a mark at ``t_us``; None: nothing (more) does. Waits for the worker."""
        if not self.waiting or self.waiting[0][0] > t_us:
            return None
        learned: Step = self._result(self.waiting.popleft()[1])
        self._walks.append(self._submit(self.correction.install, *learned))  # behind the walks of what ran before
        return learned

    def drain(self) -> None:
        """Wait until the worker has nothing to do; what is not in force yet stays so."""
        while self._walks:
            self._walks.popleft().result()
        for _, future in self.waiting:
            future.result()

    # -- state ---------------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name what is learned, and the gradients since the last step; the worker has to be drained."""
        correction = self.correction
        arrays = {f"beside.{name}": array for name, array in correction._arrays().items()}
        return arrays | {
            f"beside.gradient.{name}": array for name, array in correction.window.gradients._asdict().items()
        }

    def waiting_arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies of steps that are not in force yet."""
        weight, values = self.correction.result()
        made = [future.result() for _, future in self.waiting]
        return {
            "waiting_us": np.array([from_us for from_us, _ in self.waiting], np.int64),
            "waiting.weight": np.array([it.weight for it in made], weight.dtype).reshape(len(made), len(weight)),
            "waiting.values": np.array([it.values for it in made]).reshape(len(made), len(values)),
        }

    def restore(self, given: Mapping[str, NDArray[Any]], n_steps: int, n_summed: int, in_force: Step) -> None:
        """Go on from ``arrays`` (written to already) and ``waiting_arrays``."""
        self.correction.n_steps, self.correction.n_summed = n_steps, n_summed
        self.correction.install(*in_force)
        self.waiting.clear()
        for k, from_us in enumerate(given["waiting_us"].tolist()):
            future: Future[Step] = Future()
            future.set_result(Step(given["waiting.weight"][k].copy(), given["waiting.values"][k].copy()))
            self.waiting.append((from_us, future))

    def close(self) -> None:
        """End the thread. Idempotent."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
