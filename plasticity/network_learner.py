"""A network of any shape that learns from a labelled stream while it classifies it.

::

    [[operator]]
    name = "learner"
    kind = "plasticity.network_learner.NetworkLearner"
    [operator.params]
    path = "digits.safetensors"
    readout = "scores"
    learn = ["weights", "rules"]
    rules = [{ source = "input", target = "hidden", rule = "Hebbian", local_rate = 0.01 }]

Local rules run at every event (``plasticity.plastic_network``), the global correction at label marks
(``plasticity.correction``). For each ``Label``: first the answer goes out, then, if the mark allows, its window is
walked back. So answers are those of a network that has not seen their labels (prequential).

A window begins at a ``Reset`` (everything at rest) or right after a ``Label`` (state carried on), and ends at a label.
After a ``Reset`` whose ``teach`` is False nothing is learned until the next ``Reset``. Steps are taken at labels, or,
with ``correction_period_us``, at the first label at or after each multiple of it: stream time decides, never the clock
on the wall, so a replay learns the same.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurons.engine import N_TAPE
from neurons.network import Precision
from plasticity.correction import GlobalCorrection, Learned, Optimiser
from plasticity.plastic_network import PlasticNetwork
from plasticity.window import Surrogate
from stream.errors import ConfigError, StreamError
from stream.operator import Emit, Snapshot, check_shapes
from stream.packet import Label, Mark, Reset

__all__ = ["NetworkLearner"]

N_RECENT = 100  # taught labels that the running accuracy and loss look back on
# places of the counts
IS_TEACHING, N_LABELS, N_SUMMED, NEXT_US, N_COUNTS = 0, 1, 2, 3, 4


class NetworkLearner(PlasticNetwork):
    """A plastic network under global correction.

    Parameters
    ----------
    path, rules, readout, precision
        As for ``plasticity.plastic_network.PlasticNetwork``; a readout is needed.
    learn, gain, surrogate, width, optimiser, weight_rate, meta_rate, longest, window_events
        As for ``plasticity.correction.GlobalCorrection``.
    correction_period_us
        0: a step at each taught label. Else: at the first one at or after each multiple of it, with the mean gradient
        since the last step, us.

    Raises
    ------
    ConfigError
        If file, rules or parameters are not in order.
    """

    def __init__(
        self,
        *,
        path: str,
        readout: str,
        rules: list[dict[str, Any]] | None = None,
        precision: Precision = "float32",
        learn: tuple[Learned, ...] = ("weights", "rules"),
        gain: float = 1.0,
        surrogate: Surrogate = "spikes",
        width: float = np.inf,
        optimiser: Optimiser = "adam",
        weight_rate: float = 2e-3,
        meta_rate: float = 1e-3,
        longest: float = np.inf,
        correction_period_us: int = 0,
        window_events: int = 65_536,
    ) -> None:
        if correction_period_us < 0:
            raise ConfigError(f"correction_period_us: got {correction_period_us}, wanted 0 us or more")
        super().__init__(path=path, rules=rules or [], readout=readout, precision=precision)
        self._period_us = int(correction_period_us)
        self._counts = np.zeros(N_COUNTS, np.int64)
        self._counts[IS_TEACHING] = 1
        self._recent = np.zeros((2, N_RECENT))  # right or wrong; loss
        self.correction = GlobalCorrection(
            self,
            learn=tuple(learn),
            gain=gain,
            surrogate=surrogate,
            width=width,
            optimiser=optimiser,
            weight_rate=weight_rate,
            meta_rate=meta_rate,
            longest=longest,
            window_events=window_events,
        )

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Answer, learn, begin the next window; StreamError if a label names no class of ours."""
        if isinstance(mark, Label) and mark.teach and not 0 <= mark.label < self._n_classes():
            raise StreamError(
                f"NetworkLearner: label {mark.label} at {mark.t_us} us, wanted 0 to {self._n_classes() - 1}; give the "
                f"readout a unit for each class of the stream"
            )
        super().on_mark(port, mark, emit)
        if isinstance(mark, Reset):
            self._counts[IS_TEACHING] = mark.teach
        elif isinstance(mark, Label):
            if self._is_due(mark):
                self.correction.step()
            self.correction.window.begin()

    def _n_classes(self) -> int:
        return int(np.prod(self.graph.populations[self._readout].shape))

    def _at_label(self, mark: Label) -> None:
        if not (mark.teach and self._counts[IS_TEACHING]):
            return
        loss, scores = self.correction.take(mark.label)
        recent = int(self._counts[N_LABELS]) % N_RECENT
        self._recent[:, recent] = int(np.argmax(scores)) == mark.label, loss
        self._counts[N_LABELS] += 1

    def _is_due(self, mark: Label) -> bool:
        if not (mark.teach and self._counts[IS_TEACHING]):
            return False
        if not self._period_us:
            return True
        if mark.t_us < self._counts[NEXT_US]:
            return False
        self._counts[NEXT_US] = (mark.t_us // self._period_us + 1) * self._period_us
        return True

    # -- the contract --------------------------------------------------------------------------------------------------

    def _learned_arrays(self) -> Snapshot:
        """Name what a plain plastic network has not; all but the tape."""
        correction = self.correction
        arrays = {f"correction.{name}": array for name, array in correction._arrays().items() if name != "weight"}
        arrays |= {f"window.{name}": array for name, array in correction.window._start._asdict().items()}
        if self._period_us:  # between steps all gradients are 0, and tables of zeros need no keeping
            arrays |= {f"gradient.{name}": array for name, array in correction.window.gradients._asdict().items()}
        return arrays | {"skip": correction.window._skip, "counts": self._counts, "recent": self._recent}

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state, the tape of the window so far included."""
        n = self.correction.window.n_entries
        self._counts[N_SUMMED] = self.correction.n_summed
        kept = super().snapshot() | {name: array.copy() for name, array in self._learned_arrays().items()}
        kept |= {"tape": self.state.tape[:n].copy(), "taped": self.state.taped[:n].copy()}
        return kept | {"n_steps": np.array(self.correction.n_steps, np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another network."""
        snapshot = dict(snapshot)
        mine = self._learned_arrays()
        tape, taped = (np.asarray(snapshot.pop(name, np.zeros(()))) for name in ("tape", "taped"))
        n = len(tape) if tape.ndim else -1
        given = {name: snapshot.pop(name) for name in (*mine, "n_steps") if name in snapshot}
        check_shapes("NetworkLearner", mine | {"n_steps": np.zeros((), np.int64)}, given)
        if tape.shape != (n, 4) or taped.shape != (n,):
            raise ConfigError(f"snapshot of NetworkLearner: tape has shapes {tape.shape} and {taped.shape}")
        super().restore(snapshot)
        for name, array in mine.items():
            array[...] = given[name]
        correction = self.correction
        for it in correction.metas:
            it.put(it.value)
        correction.n_steps, correction.n_summed = int(given["n_steps"]), int(self._counts[N_SUMMED])
        if n > len(self.state.tape):
            self._lengthen_tape(n)
        self.state.tape[:n], self.state.taped[:n] = tape, taped
        self.state.book[N_TAPE] = n

    def statistics(self) -> dict[str, float]:
        """Return counts; ``accuracy`` and ``loss`` are those of the last 100 taught labels."""
        recent: NDArray[Any] = self._recent[:, : min(int(self._counts[N_LABELS]), N_RECENT)]
        right, loss = recent.mean(axis=1) if recent.size else (0.0, 0.0)
        return super().statistics() | {
            "labels": float(self._counts[N_LABELS]),
            "corrections": float(self.correction.n_steps),
            "accuracy": float(right),
            "loss": float(loss),
            "windows cut": float(self.correction.window.n_cut),
        }
