"""The paper's fault-tolerance network as its authors coded it: 784-512-10, steps instead of events, ``hebb`` shared.

Wu et al., Nat. Commun. 13:65 (2022); the published example code (github.com/yjwu17/Spike-Based-Hybrid-plasticity-
Network), read for its equations, not copied. It is kept to reproduce the authors' figures and to tell what their form
and ours differ in; nothing else here uses it. What makes it no operator of a stream: one ``hebb`` for a whole batch of
pictures, so an answer depends on who else is asked at the same time.

Equations
---------
Steps t = 0 .. T-1 of one picture, N pictures a batch, ``k = exp(-t / tau_w)``, H the fast state::

    u1 <- decay (u1 - threshold s1) + k x (W1 + alpha1 H1) + b1          s1 = u1 > threshold
    u2 <- decay (u2 - threshold s2) + k s1 (W2 + alpha2 H2) + b2         s2 = u2 > threshold
    H  <- clip(retention H + (1/N) sum_n (beta k x)_n (x) tanh(u / threshold - eta)_n, -4, 4)

Scores are ``u2 / threshold`` at the last step, cut off at 1.1, the loss their squared distance to one-hot labels;
``d s / d u = 1`` where ``|u - threshold| < 0.5``. H begins as it was left by the batch before (no gradient leads
there); asking leaves no trace.

Sharing a batch's H makes pictures talk to each other, and that can be computed without H: with ``c = x H``,

    c <- retention c + k K tanh(...),      K = x diag(beta) x' / N        (N x N)

as long as nothing is clipped in layer 1, which is watched (``clipped``). So a batch costs five products of pictures and
weights in place of sixty. Of a sample alone (``shared=False``) only K's diagonal is left, times N, and H begins at 0.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Settings", "SharedHebb"]

Real = NDArray[np.float32]
Loose: TypeAlias = Any  # float32 too; NumPy's stubs take sums of float32 for float64


class Settings(NamedTuple):
    """The example's settings."""

    n_in: int = 784
    n_hidden: int = 512
    n_classes: int = 10
    steps: int = 10
    threshold: float = 0.35
    decay: float = 0.4
    tau_w: float = 40.0
    retention: float = 0.95
    lens: float = 0.5
    bound: float = 4.0
    rate: float = 1e-3
    meta_rate: float = 5e-4


class SharedHebb:
    """Network, optimiser and fast state.

    Parameters
    ----------
    mode
        "GP": no H. "LP": the first layer stays random, its H alive. "HP": all is learned.
    seed
        Of weights and meta-parameters.
    shared
        Whether a batch shares H and passes it on; else each picture has its own, from 0 on.
    settings
        Theirs.
    """

    def __init__(self, mode: str, seed: int = 111, *, shared: bool = True, settings: Settings | None = None) -> None:
        it = self.settings = settings or Settings()
        self.mode, self.shared, self.clipped = mode, shared, 0
        rng = np.random.default_rng(seed)

        def draw(low: float, high: float, *shape: int) -> Real:
            return rng.uniform(low, high, shape).astype(np.float32)

        a, b = 1 / np.sqrt(it.n_in), 1 / np.sqrt(it.n_hidden)  # torch's Linear
        self.values: dict[str, Real] = {
            "w1": draw(-a, a, it.n_in, it.n_hidden),
            "b1": draw(-a, a, it.n_hidden),
            "w2": draw(-b, b, it.n_hidden, it.n_classes),
            "b2": draw(-b, b, it.n_classes),
        }
        shapes = {"alpha1": 1, "beta1": it.n_in, "eta1": it.n_hidden}
        shapes |= {"alpha2": 1, "beta2": it.n_hidden, "eta2": it.n_classes}
        for name, n in shapes.items():
            self.values[name] = draw(0.0, 1e-2, n)
        self.h1 = np.zeros((it.n_in, it.n_hidden), np.float32)
        self.h2 = np.zeros((it.n_hidden, it.n_classes), np.float32)
        learned = {"GP": ("w1", "b1", "w2", "b2"), "LP": ("w2", "b2", "alpha2", "beta2", "eta2")}
        self.learned = learned.get(mode, tuple(self.values))
        self._moments = {name: [np.zeros_like(self.values[name]) for _ in range(2)] for name in self.learned}
        self._n_steps = 0

    def scores(self, x: Real) -> Real:
        """Return the scores of a batch, float32 (n, n_classes); x is float32 (n, n_in), 0 to 1."""
        return self._forward(x)[0]

    def ask_in_turn(self, x: Real) -> Real:
        """Return scores of pictures that come one after the other, H carried along from each to the next."""
        kept = self.h1, self.h2
        scores = []
        for row in x:
            out, self.h1, self.h2, _ = self._forward(row[None])
            scores.append(out[0])
        self.h1, self.h2 = kept
        return np.array(scores)

    def _forward(self, x: Real) -> tuple[Real, Real, Real, list[dict[str, Real]]]:
        it, v = self.settings, self.values
        n, has_h = len(x), self.mode != "GP"
        kept: list[dict[str, Real]] = []
        u1: Loose = np.zeros((n, it.n_hidden), np.float32)
        u2: Loose = np.zeros((n, it.n_classes), np.float32)
        s1, s2 = np.zeros_like(u1), np.zeros_like(u2)
        drive = x @ v["w1"]
        c, sums = np.zeros_like(u1), np.zeros_like(u1)
        gram: Loose = np.zeros((1, 1), np.float32)
        h2: Loose = self.h2 if self.shared else np.zeros((n, it.n_hidden, it.n_classes), np.float32)
        if has_h:
            if self.shared:
                c = x @ self.h1
                gram = (x * v["beta1"]) @ x.T / np.float32(n)
            else:
                gram = (x * x) @ v["beta1"][:, None]
        for t in range(it.steps):
            k = np.float32(np.exp(-t / it.tau_w))
            u1 = np.float32(it.decay) * (u1 - np.float32(it.threshold) * s1) + k * drive + v["b1"]
            if has_h:
                u1 += v["alpha1"] * k * c
            s1 = (u1 > it.threshold).astype(np.float32)
            x2 = k * s1
            u2 = np.float32(it.decay) * (u2 - np.float32(it.threshold) * s2) + x2 @ v["w2"] + v["b2"]
            step = {"u1": u1, "c": c, "x2": x2, "h2": h2}
            if has_h:
                through = x2 @ h2 if self.shared else np.einsum("ni,nij->nj", x2, h2)
                u2 = u2 + v["alpha2"] * through
                z1 = np.tanh(u1 / np.float32(it.threshold) - v["eta1"])
                z2 = np.tanh(u2 / np.float32(it.threshold) - v["eta2"])
                c = np.float32(it.retention) * c + k * (gram @ z1 if self.shared else gram * z1)
                sums = np.float32(it.retention) * sums + k * z1
                pre = x2 * v["beta2"]
                if self.shared:
                    fresh = np.float32(it.retention) * h2 + pre.T @ z2 / np.float32(n)
                else:
                    fresh = np.float32(it.retention) * h2 + pre[:, :, None] * z2[:, None]
                h2 = np.clip(fresh, -it.bound, it.bound)
                step |= {"z1": z1, "z2": z2, "through": through, "fresh": fresh}
            s2 = (u2 > it.threshold).astype(np.float32)
            step["u2"] = u2
            kept.append(step)
        h1: Loose = self.h1
        if has_h and self.shared:
            h1 = np.float32(it.retention**it.steps) * h1 + (x * v["beta1"]).T @ sums / np.float32(n)
            self.clipped += int(np.abs(h1).max() > it.bound)
            np.clip(h1, -it.bound, it.bound, out=h1)
        scores = np.minimum(u2 / np.float32(it.threshold), np.float32(1.1))
        kept[0]["gram"] = gram
        return scores, h1, h2 if self.shared else self.h2, kept

    def learn(self, x: Real, labels: NDArray[np.int64]) -> tuple[float, int]:
        """Take one step on a batch; returns its loss, and how many answers were right before it."""
        it = self.settings
        scores, h1, h2, kept = self._forward(x)
        wanted = np.eye(it.n_classes, dtype=np.float32)[labels]
        by = self._backward(x, 2 * (scores - wanted) / np.float32(scores.size), kept)
        self.h1, self.h2 = h1, h2
        self._n_steps += 1
        for name in self.learned:
            mean, square = self._moments[name]
            g = by[name].astype(np.float32)
            mean += np.float32(0.1) * (g - mean)
            square += np.float32(0.001) * (g * g - square)
            rate = it.rate if name[0] in "wb" and not name.startswith("beta") else it.meta_rate
            hat = np.sqrt(square / np.float32(1 - 0.999**self._n_steps)) + np.float32(1e-8)
            self.values[name] -= np.float32(rate / (1 - 0.9**self._n_steps)) * mean / hat
        return float(np.mean((scores - wanted) ** 2)), int(np.sum(scores.argmax(1) == labels))

    def _backward(self, x: Real, by_scores: Real, kept: list[dict[str, Real]]) -> dict[str, Real]:
        it, v = self.settings, self.values
        n, has_h, shared = len(x), self.mode != "GP", self.shared
        theta, decay, retention = (np.float32(part) for part in (it.threshold, it.decay, it.retention))
        per = np.float32(n if shared else 1)
        gram = kept[0]["gram"]
        by: dict[str, Loose] = {name: np.zeros_like(value) for name, value in v.items()}
        g1: Loose = np.zeros((n, it.n_hidden), np.float32)
        g2: Loose = np.zeros((n, it.n_classes), np.float32)
        by_drive, by_c, by_gram = np.zeros_like(g1), np.zeros_like(g1), np.zeros_like(gram)
        by_h2 = np.zeros_like(kept[0]["h2"])
        for t in range(it.steps - 1, -1, -1):
            step, k = kept[t], np.float32(np.exp(-t / it.tau_w))
            u1, u2, x2 = step["u1"], step["u2"], step["x2"]
            new = decay * g2 - decay * theta * g2 * (np.abs(u2 - theta) < it.lens)
            if t == it.steps - 1:
                new = new + by_scores / theta * (u2 < 1.1 * theta)
            by_x2 = np.zeros_like(x2)
            if has_h:
                z2, open_ = step["z2"], np.abs(step["fresh"]) <= it.bound
                inner = by_h2 * open_ / per
                pre = x2 * v["beta2"]
                by_z2 = pre @ inner if shared else np.einsum("ni,nij->nj", pre, inner)
                by_pre = z2 @ inner.T if shared else np.einsum("nj,nij->ni", z2, inner)
                by_x2 += v["beta2"] * by_pre
                by["beta2"] += (x2 * by_pre).sum(0)
                slope = by_z2 * (1 - z2 * z2)
                by["eta2"] -= slope.sum(0)
                new = new + slope / theta
                by["alpha2"] += (new * step["through"]).sum()
                if shared:
                    by_x2 += v["alpha2"] * (new @ step["h2"].T)
                    by_h2 = retention * by_h2 * open_ + v["alpha2"] * (x2.T @ new)
                else:
                    by_x2 += v["alpha2"] * np.einsum("nj,nij->ni", new, step["h2"])
                    by_h2 = retention * by_h2 * open_ + v["alpha2"] * (x2[:, :, None] * new[:, None])
            g2 = new
            by["w2"] += x2.T @ g2
            by["b2"] += g2.sum(0)
            if self.mode == "LP":
                continue
            by_s1 = k * (by_x2 + g2 @ v["w2"].T) - decay * theta * g1
            new = decay * g1 + by_s1 * (np.abs(u1 - theta) < it.lens)
            if has_h:
                z1 = step["z1"]
                by_z1 = k * (gram.T @ by_c if shared else gram * by_c)
                by_gram += k * (by_c @ z1.T if shared else (by_c * z1).sum(1, keepdims=True))
                slope = by_z1 * (1 - z1 * z1)
                by["eta1"] -= slope.sum(0)
                new = new + slope / theta
                by["alpha1"] += k * (new * step["c"]).sum()
                by_c = retention * by_c + v["alpha1"] * k * new
            g1 = new
            by_drive += k * g1
            by["b1"] += g1.sum(0)
        if self.mode != "LP":
            by["w1"] = x.T @ by_drive
        if self.mode == "HP":
            by["beta1"] = ((by_gram @ x) * x).sum(0) / per if shared else (x * x).T @ by_gram[:, 0]
        return by
