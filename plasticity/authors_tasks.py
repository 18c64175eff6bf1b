"""The paper's continual-learning network as its authors coded it: 784-1024-1024-10, three steps instead of events.

Wu et al., Nat. Commun. 13:65 (2022); the published code (github.com/yjwu12/Hybrid-plasticity-Spiking-Network-Model,
"multitask learning"), read for its equations, not copied. As ``plasticity.authors_mlp`` it is kept to stand on the
authors' ground; nothing else here uses it, and one ``hebb`` for a whole batch of pictures is no operator of a stream.

Equations
---------
Task k has a fixed random mask M of each table, 3 % of it. Steps t = 0, 1, 2 of one picture, N pictures a batch, layers
1 and 2 alike, ``k_t = exp(-t / tau_w)``, H from 0 on in each batch::

    x_t <- k_t (pixels, or spikes of layer 1 at t)
    u   <- decay (u - threshold s) + x_t (W o M + alpha H o (1 - M))          s = u > threshold
    H   <- retention H + (1/N) sum_n (beta x_t)_n (x) tanh(u / threshold - eta)_n

Scores are ``u2 (W3 o M3)`` after the last step, the loss their squared distance to one-hot labels; ``d s / d u = 1``
where ``|u - threshold| < 0.5``. GP is the same without H. EWC and naive have no masks, no H and no ``k_t``.

H has 0.8 and 1.0 million entries and is never made: ``x H`` is a product of the batch's Gram matrices and tanh terms,
and what the mask takes out again is H at the mask's 3 % (``H o (1 - M) = H - H o M``).

Departures: Adam's moments begin anew with each task and only a task's weights move (the authors keep one Adam,
whose old moments go on moving weights of earlier masks for some dozen steps); masks come from NumPy's generator.

EWC (Kirkpatrick et al., PNAS 114:3521, 2017), as the authors weigh it: 5000 / 2 times the sum over earlier tasks of
``F (w - w_task)^2``, F the mean squared batch gradient of the likelihood of the answers given. They take F from all
batches of a task; here whoever calls ``remember`` says which.
"""

import itertools
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plasticity.adam import AdamState, adam_step, new_adam
from stream.jit import kernel
from stream.lanes import dot

__all__ = ["Settings", "TaskNetwork"]

Real = NDArray[np.float32]
Loose: TypeAlias = Any  # float32 too; NumPy's stubs take sums of float32 for float64


class Settings(NamedTuple):
    """The published code's settings."""

    sizes: tuple[int, int, int, int] = (784, 1024, 1024, 10)
    steps: int = 3
    threshold: float = 0.5
    decay: float = 0.8
    tau_w: float = 50.0
    retention: float = 0.8
    lens: float = 0.5
    density: float = 0.03
    rate: float = 5e-4
    meta_rate: float = 5e-5
    ewc_strength: float = 5000.0


@kernel
def sum_onto(begin: Any, other: Any, which: Any, value: Any, x: Any, out: Any) -> None:
    """Write ``out[j] = sum over m of value[which[m]] x[other[m]]`` with m from ``begin[j]`` to ``begin[j + 1] - 1``.

    ``begin``, ``other``, ``which``: int64; ``value``: real, (n_synapses,); ``x``, ``out``: real, (units, N).
    """
    zero = out.dtype.type(0.0)
    for j in range(len(begin) - 1):
        row = out[j]
        row[:] = zero
        first, last = begin[j], begin[j + 1]
        whole = last - (last - first) % 4
        for m in range(first, whole, 4):  # the row is read and written once for four
            a, b, c, d = value[which[m]], value[which[m + 1]], value[which[m + 2]], value[which[m + 3]]
            p, q, r, s = x[other[m]], x[other[m + 1]], x[other[m + 2]], x[other[m + 3]]
            for n in range(len(row)):
                row[n] += (a * p[n] + b * q[n]) + (c * r[n] + d * s[n])
        for m in range(whole, last):
            factor, line = value[which[m]], x[other[m]]
            for n in range(len(row)):
                row[n] += factor * line[n]


@kernel
def dots(begin: Any, pre: Any, x: Any, g: Any, out: Any) -> None:
    """Write ``out[m]``, the dot product of ``x[pre[m]]`` and ``g[j]``, j the unit that m belongs to."""
    n = x.shape[1]
    for j in range(len(begin) - 1):
        for m in range(begin[j], begin[j + 1]):
            out[m] = dot(x[pre[m]], g[j], n)


@kernel
def times(x: Any, right: Any, out: Any) -> None:
    """Write ``out = x right`` for an x that is mostly zeros, which cost nothing: spikes, pixels."""
    zero = out.dtype.type(0.0)
    for i in range(len(x)):
        row = out[i]
        row[:] = zero
        for n in range(x.shape[1]):
            factor = x[i, n]
            if factor != zero:
                line = right[n]
                for k in range(len(row)):
                    row[k] += factor * line[k]


@kernel
def turned_times(x: Any, right: Any, out: Any) -> None:
    """Write ``out = x^T right`` for an x that is mostly zeros."""
    zero = out.dtype.type(0.0)
    out[:] = zero
    for i in range(len(x)):
        line = right[i]
        for n in range(x.shape[1]):
            factor = x[i, n]
            if factor != zero:
                row = out[n]
                for k in range(len(row)):
                    row[k] += factor * line[k]


class _Masked:
    """Where a task has synapses in one table: sorted by target, and again by source."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.shape = mask.shape
        self.post, self.pre = np.nonzero(mask.T)
        self.place = self.pre * mask.shape[1] + self.post  # in the flat table
        order = np.argsort(self.pre, kind="stable")
        self._by_post = _begins(self.post, mask.shape[1]), self.pre, np.arange(len(self.pre))
        self._by_pre = _begins(self.pre[order], mask.shape[0]), self.post[order], order

    def through(self, x: Real, value: Real) -> Real:
        """Return what x, float32 (n_pre, N), brings to the targets, (n_post, N)."""
        out = np.empty((self.shape[1], x.shape[1]), np.float32)
        sum_onto(*self._by_post, value, x, out)
        return out

    def back(self, g: Real, value: Real) -> Real:
        """Return what g, float32 (n_post, N), means for the sources, (n_pre, N)."""
        out = np.empty((self.shape[0], g.shape[1]), np.float32)
        sum_onto(*self._by_pre, value, g, out)
        return out

    def between(self, x: Real, g: Real) -> Real:
        """Return ``sum_n x[pre, n] g[post, n]`` of each synapse."""
        out = np.empty(len(self.pre), np.float32)
        dots(self._by_post[0], self.pre, x, g, out)
        return out


class _Full:
    """All synapses of a table, in its own order.

    Who is silent costs nothing on the way there and in derivatives by weights: with matrix products throughout, a batch
    took 1.7 times as long (35 ms, 20 now).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape, self.place = shape, slice(None)

    def through(self, x: Real, value: Real) -> Real:
        out = np.empty((x.shape[1], self.shape[1]), np.float32)
        turned_times(x, value.reshape(self.shape), out)
        return np.ascontiguousarray(out.T)

    def back(self, g: Real, value: Real) -> Real:
        return value.reshape(self.shape) @ g

    def between(self, x: Real, g: Real) -> Real:
        out = np.empty(self.shape, np.float32)
        times(x, np.ascontiguousarray(g.T), out)
        return out.reshape(-1)


def _joined(inputs: list[Real]) -> Real:
    """Return what comes in at all steps side by side, (n_pre, steps N); where it is the same, once."""
    return inputs[0] if inputs[0] is inputs[-1] else np.concatenate(inputs, axis=1)


def _begins(sorted_numbers: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.bincount(sorted_numbers, minlength=n))])


class TaskNetwork:
    """Weights of all tasks, and what else is learned.

    Parameters
    ----------
    mode
        "GP", "HP", "EWC" or "naive".
    seed
        Of weights, meta-parameters and masks.
    settings
        Theirs.
    """

    def __init__(self, mode: str, seed: int, settings: Settings | None = None) -> None:
        it = self.settings = settings or Settings()
        self.mode, self.seed = mode, seed
        self.is_masked, self.has_rule = mode in ("GP", "HP"), mode == "HP"
        rng = np.random.default_rng(seed)
        pairs = list(itertools.pairwise(it.sizes))
        self.values: dict[str, Real] = {}
        for k, (n_pre, n_post) in enumerate(pairs, 1):
            edge = 1 / np.sqrt(n_pre)  # torch's Linear
            self.values[f"w{k}"] = rng.uniform(-edge, edge, n_pre * n_post).astype(np.float32)
        for k, (n_pre, n_post) in enumerate(pairs[:2], 1):
            self.values[f"alpha{k}"] = rng.uniform(0, 0.1, 1).astype(np.float32)
            self.values[f"beta{k}"] = rng.uniform(0, 1e-3, n_pre).astype(np.float32)
            self.values[f"eta{k}"] = np.zeros(n_post, np.float32)
        if mode == "EWC":  # sums over tasks of F, and of F w
            for k in (1, 2, 3):
                self.values[f"fisher{k}"] = np.zeros_like(self.values[f"w{k}"])
                self.values[f"drawn{k}"] = np.zeros_like(self.values[f"w{k}"])
        self._rule = [name for name in self.values if name.startswith(("alpha", "beta", "eta"))]
        self._task = -1
        self._tables: list[Any] = []  # of the task that is being learned
        self.moments: dict[str, AdamState] = {}
        self.n_steps: dict[str, int] = {}

    def tables(self, task: int) -> list[Any]:
        """Return where a task's synapses are, table by table."""
        pairs = itertools.pairwise(self.settings.sizes)
        if not self.is_masked:
            return [_Full(pair) for pair in pairs]
        rng = np.random.default_rng([self.seed, 1, task])
        return [_Masked(rng.random(pair) < self.settings.density) for pair in pairs]

    def weights(self, tables: list[Any]) -> list[Real]:
        """Return the values of these synapses: copies of a mask's, the table itself where there is none."""
        return [self.values[f"w{k}"][it.place] for k, it in enumerate(tables, 1)]

    # -- answers -------------------------------------------------------------------------------------------------------

    def scores(self, tables: list[Any], x: Real) -> Real:
        """Return scores, float32 (N, n_classes), of pictures x, float32 (N, n_pixels), which share H."""
        return self._forward(tables, self.weights(tables), np.ascontiguousarray(x.T))[0].T

    def _forward(self, tables: list[Any], weights: list[Real], x: Real) -> tuple[Real, list[list[dict[str, Any]]]]:
        first = self._layer(1, tables[0], weights[0], [x] * self.settings.steps)
        second = self._layer(2, tables[1], weights[1], [step["s"] for step in first])
        return tables[2].through(second[-1]["u"], weights[2]), [first, second]

    def _fading(self) -> list[np.float32]:
        """Return ``k_t`` of each step."""
        it = self.settings
        return [np.float32(np.exp(-t / it.tau_w) if self.is_masked else 1.0) for t in range(it.steps)]

    def _layer(self, k: int, table: Any, w: Real, inputs: list[Real]) -> list[dict[str, Any]]:
        it, n, fading = self.settings, np.float32(inputs[0].shape[1]), self._fading()
        if not self.has_rule:  # the table is the same at each step: all go through it at once, what stands still once
            at_once = table.through(_joined(inputs), w)
            at_each = [at_once] * it.steps if inputs[0] is inputs[-1] else np.split(at_once, it.steps, axis=1)
        alpha, beta, eta = (self.values[f"{name}{k}"] for name in ("alpha", "beta", "eta"))
        theta, decay, retention = (np.float32(part) for part in (it.threshold, it.decay, it.retention))
        kept: list[dict[str, Any]] = []
        u: Loose = np.float32(0)
        s: Loose = np.float32(0)
        for t, k_t in enumerate(fading):
            step: dict[str, Any] = {"x": inputs[t], "v": w}
            if self.has_rule:
                x = step["x"] = k_t * inputs[t]
            if self.has_rule and t:
                masked: Loose = np.zeros_like(w)
                c: Loose = np.zeros((table.shape[1], x.shape[1]), np.float32)
                step["gram"] = []
                for s_, before in enumerate(kept):
                    held = np.float32(retention ** (t - 1 - s_))
                    gram = (beta[:, None] * x).T @ before["x"] / n  # (N of t, N of s)
                    step["gram"].append(gram)
                    masked = masked + held * before["masked"]
                    c += held * (before["z"] @ gram.T)
                step["v"] = w - alpha * masked
                step |= {"c": c, "part": masked}
            current = table.through(x, step["v"]) if self.has_rule else k_t * at_each[t]
            if self.has_rule and t:
                current += alpha * step["c"]
            u = decay * (u - theta * s) + current
            s = (u > theta).astype(np.float32)
            step |= {"u": u, "s": s}
            if self.has_rule and t < it.steps - 1:
                step["z"] = np.tanh(u / theta - eta[:, None])
                step["raw"] = table.between(x, step["z"]) / n
                step["masked"] = beta[table.pre] * step["raw"]
            kept.append(step)
        return kept

    # -- gradients -----------------------------------------------------------------------------------------------------

    def _backward(
        self, tables: list[Any], weights: list[Real], kept: list[list[dict[str, Any]]], by_scores: Real
    ) -> dict[str, Real]:
        """Return the derivatives by weights and rule; ``by_scores``: float32 (n_classes, N)."""
        it = self.settings
        last = kept[1][-1]["u"]
        by: dict[str, Real] = {"w3": tables[2].between(last, by_scores)}
        at_u: list[Loose] = [np.float32(0)] * it.steps
        at_u[-1] = tables[2].back(by_scores, weights[2])
        at_s = self._layer_back(2, tables[1], kept[1], at_u, [np.float32(0)] * it.steps, by, True)
        self._layer_back(1, tables[0], kept[0], [np.float32(0)] * it.steps, at_s, by, False)
        return by

    def _layer_back(
        self, k: int, table: Any, kept: list[dict[str, Any]], at_u: list[Loose], at_s: list[Loose], by: Any, deep: bool
    ) -> list[Loose]:
        """Walk a layer's steps back; adds to ``by``, returns the derivatives by the layer's inputs (if ``deep``)."""
        it, n, fading = self.settings, np.float32(kept[0]["x"].shape[1]), self._fading()
        alpha, beta = self.values[f"alpha{k}"], self.values[f"beta{k}"]
        theta, decay, retention = (np.float32(part) for part in (it.threshold, it.decay, it.retention))
        steps = len(kept)
        of_inputs: list[Loose] = [np.float32(0)] * steps
        of_z: list[Loose] = [np.float32(0)] * steps
        of_masked: list[Loose] = [np.float32(0)] * steps
        of_w: Loose = np.float32(0)
        sums: dict[str, Loose] = {"alpha": np.zeros(1), "beta": np.zeros(len(beta)), "eta": np.zeros(table.shape[1])}
        g: Loose = np.float32(0)
        at_each: list[Loose] = [g] * steps  # without a rule: the derivatives by what comes through the table
        for t in range(steps - 1, -1, -1):
            step = kept[t]
            x, u = step["x"], step["u"]
            near = np.abs(u - theta) < it.lens
            new = decay * g + at_u[t] + near * (at_s[t] - decay * theta * g)
            if "z" in step:
                z, by_raw = step["z"], of_masked[t] * beta[table.pre] / n
                sums["beta"] += np.bincount(table.pre, of_masked[t] * step["raw"], len(beta))
                by_z = of_z[t] + table.through(x, by_raw)
                if deep:
                    of_inputs[t] = of_inputs[t] + table.back(z, by_raw)
                slope = by_z * (1 - z * z)
                sums["eta"] -= slope.sum(1)
                new = new + slope / theta
            g = new
            if not self.has_rule:
                at_each[t] = fading[t] * g
                continue
            by_v = table.between(x, g)
            of_w = of_w + by_v
            if deep:
                of_inputs[t] = of_inputs[t] + table.back(g, step["v"])
            if "c" not in step:
                continue
            sums["alpha"] += float((g * step["c"]).sum()) - float(by_v @ step["part"])
            by_c = alpha * g
            for s, (before, gram) in enumerate(zip(kept[:t], step["gram"], strict=True)):
                held = np.float32(retention ** (t - 1 - s))
                of_masked[s] = of_masked[s] - held * alpha * by_v
                of_z[s] = of_z[s] + held * (by_c @ gram)
                by_gram = held / n * (by_c.T @ before["z"])
                through = before["x"] @ by_gram.T  # (n_pre, N of t)
                sums["beta"] += (x * through).sum(1)
                if deep:
                    of_inputs[t] = of_inputs[t] + beta[:, None] * through
                    of_inputs[s] = of_inputs[s] + beta[:, None] * (x @ by_gram)
        if self.has_rule:
            by |= {f"{name}{k}": np.asarray(part, np.float32) for name, part in sums.items()} | {f"w{k}": of_w}
            return [k_t * part for k_t, part in zip(fading, of_inputs, strict=True)]
        inputs = [step["x"] for step in kept]
        through = sum(at_each) if inputs[0] is inputs[-1] else np.concatenate(at_each, axis=1)
        by[f"w{k}"] = table.between(_joined(inputs), through)
        return np.split(table.back(through, kept[0]["v"]), steps, axis=1) if deep else of_inputs

    # -- learning ------------------------------------------------------------------------------------------------------

    def begin(self, task: int) -> None:
        """Turn to a task whose weights are to be learned."""
        self._task, self._tables = task, self.tables(task)
        for k, w in enumerate(self.weights(self._tables), 1):
            self.moments[f"w{k}"], self.n_steps[f"w{k}"] = new_adam(w), 0

    def learn(self, x: Real, labels: NDArray[np.int64]) -> int:
        """Take a step of the task's weights; x is float32 (N, n_pixels). Returns how many answers were right before."""
        it, tables = self.settings, self._tables
        weights = self.weights(tables)
        right, by = self._gradients(tables, weights, x, labels)
        for k, (table, w) in enumerate(zip(tables, weights, strict=True), 1):
            gradient = by[f"w{k}"]
            if self.mode == "EWC" and self._task:
                gradient += np.float32(it.ewc_strength) * (self.values[f"fisher{k}"] * w - self.values[f"drawn{k}"])
            self._step(f"w{k}", w, gradient, it.rate)
            self.values[f"w{k}"][table.place] = w
        return right

    def learn_rule(self, tables: list[Any], x: Real, labels: NDArray[np.int64]) -> int:
        """Take a step of the rule's parameters on pictures of the task with these tables, weights held."""
        right, by = self._gradients(tables, self.weights(tables), x, labels)
        for name in self._rule:
            self._step(name, self.values[name], by[name], self.settings.meta_rate)
        return right

    def remember(self, batches: list[Real]) -> None:
        """EWC: add what the weights matter to the task just learned, from batches of its pictures."""
        weights = self.weights(self._tables)
        for x in batches:
            scores, kept = self._forward(self._tables, weights, np.ascontiguousarray(x.T))
            shares = np.exp(scores - scores.max(0))
            shares /= shares.sum(0)
            wanted = np.eye(len(scores), dtype=np.float32)[scores.argmax(0)].T
            by = self._backward(self._tables, weights, kept, (shares - wanted) / np.float32(len(x)))
            for k, w in enumerate(weights, 1):
                fisher = np.square(by[f"w{k}"]) / np.float32(len(batches))
                self.values[f"fisher{k}"] += fisher
                self.values[f"drawn{k}"] += fisher * w

    def _gradients(
        self, tables: list[Any], weights: list[Real], x: Real, labels: NDArray[np.int64]
    ) -> tuple[int, dict[str, Real]]:
        scores, kept = self._forward(tables, weights, np.ascontiguousarray(x.T))
        wanted = np.eye(len(scores), dtype=np.float32)[labels].T
        by = self._backward(tables, weights, kept, 2 * (scores - wanted) / np.float32(scores.size))
        return int(np.sum(scores.argmax(0) == labels)), by

    def _step(self, name: str, value: Real, gradient: Real, rate: float) -> None:
        moments = self.moments.setdefault(name, new_adam(value))
        self.n_steps[name] = self.n_steps.get(name, 0) + 1
        adam_step(value, gradient, moments, self.n_steps[name], rate, 1.0, 1.0, -np.inf, np.inf)
