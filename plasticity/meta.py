"""Meta-learning: weights and the rule's parameters are judged by how well the rule then learns (bi-level).

Two time scales, as the authors' few-shot code has them (research: Wu et al., Nat. Commun. 13:65, 2022)::

    inner   within an episode: the local rule writes ``hebb`` at every event; nothing else moves
    outer   w      <- Adam(dL_train / dw)            after each of a few training episodes
            theta  <- Adam(dL_val / dtheta - s h)    after one episode with other shows of the same classes

theta being the rule's parameters (``plasticity.meta_episode.Theta``). Both gradients lead through the whole episode's
``hebb``. The second-order term h is what L_val owes to theta by way of the step that w has taken, a mixed derivative
found by finite differences, as in DARTS (H. Liu, K. Simonyan and Y. Yang, ICLR 2019)::

    v = dL_val / dw      e = min(1e-3 / |v|, 1e-3)
    h = clip((dL_train / dtheta (w + e v) - dL_train / dtheta (w - e v)) / (2 e), -1, 1)

with s = 0.1. ``second_order=False`` leaves h out.

Steps of theta are relative to natural units: what mixing and tau_hebb began with, and 1 for the rest.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.program import WEIGHT
from plasticity.adam import adam_step, new_adam
from plasticity.meta_episode import Episode, EpisodeNetwork, Theta
from stream.operator import Snapshot, check_shapes

__all__ = ["MetaLearner", "Outcome"]

MOST_OF_H = 1.0
# lowest and highest mixing (in units of what it began with), contrast, tau_hebb (likewise), local_rate
LOWEST, HIGHEST = (0.01, -3.0, 0.01, 0.0), (100.0, 3.0, 100.0, np.inf)


class Outcome(NamedTuple):
    """What came of episodes, each judged before it was learned from."""

    loss: float
    right: float  # share of the queries


class MetaLearner:
    """Takes outer steps.

    Parameters
    ----------
    pupil
        What runs episodes.
    weight_rate, theta_rate
        Adam's rates.
    second_order
        Whether theta's gradient has the mixed term.
    second_rate
        s above.
    learns_rule
        False: theta stays where it began.
    """

    def __init__(
        self,
        pupil: EpisodeNetwork,
        *,
        weight_rate: float = 2e-3,
        theta_rate: float = 5e-3,
        second_order: bool = True,
        second_rate: float = 0.1,
        learns_rule: bool = True,
    ) -> None:
        self.pupil = pupil
        self._rates = weight_rate, theta_rate
        self._second_order, self._second_rate, self._learns_rule = second_order, second_rate, learns_rule
        network = pupil.network
        # weights that lead to the readout belong to classes, and classes do not last
        self._spans = []
        for q, it in enumerate(network.graph.projections):
            size = np.size(getattr(it.topology, "weight", np.zeros(0)))
            if it.target != pupil.readout and size > 1:
                first = int(network._program.projection[q, WEIGHT])
                self._spans.append(slice(first, first + size))
        self._moments = [new_adam(network._program.weight[span]) for span in self._spans]
        self._mixing, self._tau_us = pupil.theta.mixing, pupil.theta.tau_hebb_us
        flat = self._flat(pupil.theta)
        self._theta_moments = np.zeros((2, len(flat)))
        self.n_steps = self.n_theta_steps = 0

    # -- theta as one line ---------------------------------------------------------------------------------------------

    def _flat(self, theta: Theta) -> NDArray[np.float64]:
        return np.array(
            [theta.mixing / self._mixing, theta.contrast, theta.tau_hebb_us / self._tau_us, *theta.local_rate]
        )

    def _theta(self, flat: NDArray[np.float64]) -> Theta:
        return Theta(float(flat[0]) * self._mixing, float(flat[1]), float(flat[2]) * self._tau_us, flat[3:].copy())

    def _d_flat(self) -> NDArray[np.float64]:
        d = self.pupil.d_theta
        return np.array([d.mixing * self._mixing, d.contrast, d.tau_hebb_us * self._tau_us, *d.local_rate])

    # -- steps ---------------------------------------------------------------------------------------------------------

    def learn(self, training: Sequence[Episode], validation: Episode | None = None) -> Outcome:
        """Take a step of w on each training episode, then one of theta on the validation episode, if there is one."""
        pupil = self.pupil
        losses, right = 0.0, 0.0
        for episode in training:
            loss, n_right = pupil.gradient(episode)
            losses, right = losses + loss, right + n_right / len(episode.queries)
            self._step_weights()
            pupil.forget_gradient()
        if validation is not None and self._learns_rule:
            self._step_theta(validation, training[-1])
        return Outcome(losses / len(training), right / len(training))

    def theta_gradient(self, validation: Episode, training: Episode) -> NDArray[np.float64]:
        """Return dL_val / dtheta, less the second-order term; float64, shape (3 + n_features,), natural units."""
        pupil, weight = self.pupil, self.pupil.network._program.weight
        pupil.forget_gradient()
        pupil.gradient(validation)
        wanted = self._d_flat()
        direction = [pupil.window.gradients.weight[span].copy() for span in self._spans]
        pupil.forget_gradient()
        if not self._second_order:
            return wanted
        norm = float(np.sqrt(sum(float(np.sum(np.square(it, dtype=np.float64))) for it in direction)))
        step = min(1e-3 / max(norm, 1e-30), 1e-3)
        kept = [weight[span].copy() for span in self._spans]
        sides = []
        for sign in (1.0, -1.0):
            for span, here, along in zip(self._spans, kept, direction, strict=True):
                weight[span] = here + weight.dtype.type(sign * step) * along
            pupil.gradient(training)
            sides.append(self._d_flat())
            pupil.forget_gradient()
        for span, here in zip(self._spans, kept, strict=True):
            weight[span] = here
        mixed = np.clip((sides[0] - sides[1]) / (2.0 * step), -MOST_OF_H, MOST_OF_H)
        return wanted - self._second_rate * mixed

    def _step_weights(self) -> None:
        self.n_steps += 1
        weight, grown = self.pupil.network._program.weight, self.pupil.window.gradients.weight
        for span, moments in zip(self._spans, self._moments, strict=True):
            adam_step(weight[span], grown[span], moments, self.n_steps, self._rates[0], 1.0, 1.0, -np.inf, np.inf)

    def _step_theta(self, validation: Episode, training: Episode) -> None:
        gradient = self.theta_gradient(validation, training)
        self.n_theta_steps += 1
        mean, variance = self._theta_moments
        mean[:] = 0.9 * mean + 0.1 * gradient
        variance[:] = 0.999 * variance + 0.001 * gradient**2
        hat = mean / (1.0 - 0.9**self.n_theta_steps)
        spread = np.sqrt(variance / (1.0 - 0.999**self.n_theta_steps)) + 1e-8
        flat = self._flat(self.pupil.theta) - self._rates[1] * hat / spread
        flat[:3] = np.clip(flat[:3], LOWEST[:3], HIGHEST[:3])
        flat[3:] = np.clip(flat[3:], LOWEST[3], HIGHEST[3])
        self.pupil.theta = self._theta(flat)

    # -- state ---------------------------------------------------------------------------------------------------------

    def _arrays(self) -> Snapshot:
        arrays: Snapshot = {"weight": self.pupil.network._program.weight, "theta.moments": self._theta_moments}
        for k, moments in enumerate(self._moments):
            arrays |= {f"weights.{k}.mean": moments.mean, f"weights.{k}.variance": moments.variance}
        return arrays

    def snapshot(self) -> Snapshot:
        """Return a copy of all that is learned."""
        theta = {"theta": self._flat(self.pupil.theta), "counts": np.array([self.n_steps, self.n_theta_steps])}
        return {name: array.copy() for name, array in self._arrays().items()} | theta

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what was learned; ConfigError, and no change, if it is another network's."""
        arrays = self._arrays()
        theta = {"theta": self._flat(self.pupil.theta), "counts": np.zeros(2, np.int64)}
        check_shapes("meta-learner", arrays | theta, snapshot)
        for name, array in arrays.items():
            array[...] = snapshot[name]
        self.pupil.theta = self._theta(np.asarray(snapshot["theta"]))
        self.n_steps, self.n_theta_steps = (int(n) for n in snapshot["counts"])
