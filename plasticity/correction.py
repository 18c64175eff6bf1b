"""Global correction: weights and meta-parameters of a network follow the gradients of windows.

::

    network = PlasticNetwork.of(graph, rules={(INPUT, "hidden"): Hebbian()}, readout="scores")
    correction = GlobalCorrection(network)
    network.run(events, until_us=end_us)
    loss, scores = correction.take(label)       # walk this window back, add to the gradients, begin the next
    correction.step()                           # change what is learned

What is learned
---------------
``weights``  of dense, sparse, one-to-one and convolutional projections
``rules``    mixing, local_rate, sliding_threshold, tau_hebb of Hebbian rules; all of tired terminals
``times``    tau_mem of leaky and adaptive units and integrators, tau_adapt: one for each population

A meta-parameter that was given as one number stays one number: its derivatives are added up.

Steps are Adam's (D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015), or plain gradient
descent. Adam's rate for a meta-parameter is relative to its natural unit (for a time constant: what it began with).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.engine import FIRST, SHIFT, TAU_2, TAU_MEM, UNIFORM, UNITS, WEIGHT
from neurons.front import decay_table, flush_shift
from neurons.graph import Graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.one_to_one import OneToOne
from neurons.sparse import Sparse
from plasticity.adam import AdamState, adam_step, new_adam
from plasticity.backward import Gradients
from plasticity.hebbian import Hebbian
from plasticity.loss import cross_entropy
from plasticity.plastic_network import PlasticNetwork
from plasticity.rules import FIRST_FAST, FIRST_POST, FIRST_PRE, MIXING, N_PRE, TAU_FAST
from plasticity.short_term import ShortTerm
from plasticity.window import Surrogate, TapedWindow
from stream.errors import ConfigError
from stream.operator import Snapshot, check_shapes

__all__ = ["GlobalCorrection", "Learned", "Optimiser"]

Learned = Literal["weights", "rules", "times"]
Optimiser = Literal["adam", "sgd"]

# natural unit, lowest and highest value of a meta-parameter; None: what it began with, or no bound
BOUNDS: dict[str, tuple[float | None, float, float]] = {
    "mixing": (1.0, -np.inf, np.inf),
    "local_rate": (0.1, -np.inf, np.inf),
    "sliding_threshold": (1.0, -np.inf, np.inf),
    "tau": (None, 1e3, 1e9),
    "depletion": (0.1, 0.0, 0.95),
    "f_rest": (0.1, 0.01, 1.0),
    "f_step": (0.1, 0.0, 1.0),
}


class Meta(NamedTuple):
    """A meta-parameter: numbers of which each stands for one or more places in the tables."""

    name: str
    value: NDArray[np.float64]  # float64, shape (n,)
    unit: float
    lowest: float
    highest: float
    gather: Callable[[Gradients], NDArray[np.float64]]
    put: Callable[[NDArray[np.float64]], None]


class GlobalCorrection:
    """Adds up gradients of windows and takes steps.

    Parameters
    ----------
    network
        Its readout answers. Its tape is switched on.
    learn
        What is learned.
    untouched
        Ends of projections whose rules are not learned here.
    held
        Populations that stay as they are: their time constants, and weights and rules of what leads to them.
    loss
        From scores (time averages of the readout, shape (n_classes,)) and a label: the loss, and its derivative by the
        scores. Default: cross-entropy with ``gain``.
    gain
        Slope of the softmax.
    surrogate, width, window_events
        As for ``plasticity.window.TapedWindow``.
    optimiser
        ``adam`` or ``sgd``.
    weight_rate, meta_rate
        Rates.
    longest
        Gradients of weights longer than this, all together, are made this long; inf: never.

    Raises
    ------
    ConfigError
        If the network has no readout, or something no gradient leads through.
    """

    def __init__(
        self,
        network: PlasticNetwork,
        *,
        learn: tuple[Learned, ...] = ("weights", "rules"),
        held: tuple[str, ...] = (),
        untouched: tuple[tuple[str, str], ...] = (),
        loss: Callable[[NDArray[np.float64], int], tuple[float, NDArray[np.float64]]] | None = None,
        gain: float = 1.0,
        surrogate: Surrogate = "spikes",
        width: float = np.inf,
        optimiser: Optimiser = "adam",
        weight_rate: float = 2e-3,
        meta_rate: float = 1e-3,
        longest: float = np.inf,
        window_events: int = 65_536,
    ) -> None:
        if network._readout < 0:
            raise ConfigError("global correction: the network has no readout, whose answers could be judged; name one")
        if optimiser not in ("adam", "sgd"):
            raise ConfigError(f"optimiser: got {optimiser!r}, wanted 'adam' or 'sgd'")
        if strange := set(held) - set(network._names):
            raise ConfigError(
                f"held: there is no {', '.join(sorted(strange))}; the network has {', '.join(network._names)}"
            )
        self.network = network
        self._held, self._untouched = tuple(held), tuple(untouched)
        self.window = TapedWindow(
            network, surrogate=surrogate, width=width, times="times" in learn, window_events=window_events
        )
        self.judge = loss or (lambda score, label: cross_entropy(score, label, gain))
        self.readout = network._names[network._readout]
        self._optimiser, self._rates, self._longest = optimiser, (weight_rate, meta_rate), longest
        self.n_steps = self.n_summed = 0
        self._spans = self._weight_spans() if "weights" in learn else []
        self._moments = [new_adam(network._program.weight[span]) for span in self._spans]
        self.metas = [
            *(self._rule_metas() if "rules" in learn else []),
            *(self._time_metas() if "times" in learn else []),
        ]
        self._meta_moments = [AdamState(np.zeros_like(it.value), np.zeros_like(it.value)) for it in self.metas]

    # -- what is learned -----------------------------------------------------------------------------------------------

    def _weight_spans(self) -> list[slice]:
        network = self.network
        spans = []
        for q, it in enumerate(network.graph.projections):
            topology = it.topology
            if it.target in self._held:
                continue
            if isinstance(topology, Dense | Convolution | Sparse) or (
                isinstance(topology, OneToOne) and np.ndim(topology.weight)
            ):
                first = int(network._program.projection[q, WEIGHT])
                spans.append(slice(first, first + np.size(topology.weight)))
        return spans

    def _meta(
        self, kind: str, name: str, given: Any, target: NDArray[Any], gradient: Callable[[Gradients], NDArray[Any]]
    ) -> Meta:
        """Describe a meta-parameter that stands in ``target``; one number in all places if it was given as one."""
        unit, lowest, highest = BOUNDS[kind]
        is_shared = np.ndim(given) == 0
        value = np.array(target, np.float64).reshape(-1)[: 1 if is_shared else target.size]

        def gather(gradients: Gradients) -> NDArray[np.float64]:
            mine = np.asarray(gradient(gradients), np.float64).reshape(-1)
            return np.array([mine.sum()]) if is_shared else mine

        def put(new: NDArray[np.float64]) -> None:
            target[...] = new[0] if is_shared else new.reshape(target.shape)

        return Meta(name, value, float(np.mean(value)) if unit is None else unit, lowest, highest, gather, put)

    def _rule_metas(self) -> list[Meta]:
        network, table = self.network, self.network._table
        metas = []
        for ends, q in sorted(network._ways.items(), key=lambda item: item[1]):
            if ends[1] in self._held or ends in self._untouched:
                continue
            place = table.place[q]
            pre = slice(int(place[FIRST_PRE]), int(place[FIRST_PRE] + place[N_PRE]))
            p = [it.name for it in network.graph.populations].index(ends[1])
            post = slice(int(place[FIRST_POST]), int(place[FIRST_POST] + network._program.population[p, UNITS]))
            label = f"{ends[0]}>{ends[1]}"
            rule = network._rules.get(ends)
            if isinstance(rule, Hebbian):
                n_weights = np.size(network._weights(q))
                fast = slice(int(place[FIRST_FAST]), int(place[FIRST_FAST]) + n_weights)
                number = table.number[q]
                if rule.mixed == "blend":
                    mixing = table.share[fast]
                    metas.append(
                        self._meta("mixing", f"{label} mixing", np.zeros(1), mixing, lambda g, at=fast: g.share[at])  # type: ignore[misc]
                    )
                else:
                    mixing = number[MIXING : MIXING + 1]
                    metas.append(
                        self._meta("mixing", f"{label} mixing", 0.0, mixing, lambda g, q=q: g.mixing[q : q + 1])  # type: ignore[misc]
                    )
                metas += [
                    self._meta(
                        "local_rate",
                        f"{label} local_rate",
                        rule.local_rate,
                        table.local_rate[pre],
                        lambda g, at=pre: g.local_rate[at],  # type: ignore[misc]
                    ),
                    self._meta(
                        "sliding_threshold",
                        f"{label} sliding_threshold",
                        np.zeros(1),  # always one for each unit: model.md's eta
                        table.sliding[post],
                        lambda g, at=post: g.sliding[at],  # type: ignore[misc]
                    ),
                    self._meta(
                        "tau",
                        f"{label} tau_hebb_us",
                        0.0,
                        number[TAU_FAST : TAU_FAST + 1],
                        lambda g, q=q: g.tau_fast[q : q + 1],  # type: ignore[misc]
                    ),
                ]
            terminal = network._terminals.get(ends)
            if terminal is not None:
                for column, name in enumerate(ShortTerm._fields):
                    kind = "tau" if name.startswith("tau") else name
                    metas.append(
                        self._meta(
                            kind,
                            f"{label} {name}",
                            getattr(terminal, name),
                            table.terminal[pre, column],
                            lambda g, at=pre, c=column: g.terminal[at, c],  # type: ignore[misc]
                        )
                    )
        return metas

    def _time_metas(self) -> list[Meta]:
        network = self.network
        program = network._program
        metas = []
        for p, population in enumerate(network.graph.populations):
            if population.name in self._held:
                continue
            row = program.population[p]
            units = slice(int(row[FIRST]), int(row[FIRST] + row[UNITS]))
            if isinstance(population.model, LIFUnits | LeakyIntegratorUnits | AdaptiveLIFUnits):
                it = self._meta(
                    "tau",
                    f"{population.name} tau_mem_us",
                    population.model.tau_mem_us,
                    program.constant[TAU_MEM, units],
                    lambda g, at=units: g.tau[at],  # type: ignore[misc]
                )
                if isinstance(population.model, LIFUnits) and row[UNIFORM]:
                    it = it._replace(put=self._also_table(it.put, p))
                metas.append(it)
            if isinstance(population.model, AdaptiveLIFUnits):
                metas.append(
                    self._meta(
                        "tau",
                        f"{population.name} tau_adapt_us",
                        population.model.tau_adapt_us,
                        program.constant[TAU_2, units],
                        lambda g, at=units: g.tau_2[at],  # type: ignore[misc]
                    )
                )
        return metas

    def _also_table(self, put: Callable[[NDArray[np.float64]], None], p: int) -> Callable[[NDArray[np.float64]], None]:
        """Return a ``put`` that also renews a population's table of decays."""
        program = self.network._program

        def renewed(value: NDArray[np.float64]) -> None:
            put(value)
            program.decay[p] = decay_table(float(value[0]))
            program.population[p, SHIFT] = flush_shift(float(value[0]))

        return renewed

    @property
    def learns(self) -> bool:
        """Whether there is anything that it learns."""
        return bool(self._spans or self.metas)

    def clear_columns(self, q: int, unit: int) -> None:
        """Make 0 what leads to a unit through a dense projection, and what was on its way there."""
        weight = self.network._program.weight
        shape = np.shape(self.network._weights(q))
        first = int(self.network._program.projection[q, WEIGHT])
        here = slice(first, first + shape[0] * shape[1])
        weight[here].reshape(shape)[:, unit] = 0.0
        self.window.gradients.weight[here].reshape(shape)[:, unit] = 0.0
        for span, moments in zip(self._spans, self._moments, strict=True):
            if span.start == first:
                for moment in moments:
                    moment.reshape(shape)[:, unit] = 0.0

    # -- learning ------------------------------------------------------------------------------------------------------

    def scores(self) -> NDArray[np.float64]:
        """Return what the readout says of this window so far: float64, shape (n_classes,)."""
        return self.network.averages(self.readout).reshape(-1)

    def take(self, label: int) -> tuple[float, NDArray[np.float64]]:
        """Judge the window up to now, add its gradients, and begin the next one.

        Returns
        -------
        loss, scores
            A number; float64, shape (n_classes,).

        Raises
        ------
        ConfigError
            If there is no such class.
        """
        scores = self.scores()
        if not 0 <= label < len(scores):
            raise ConfigError(f"label {label}: wanted 0 to {len(scores) - 1}, the readout's units")
        loss, d_scores = self.judge(scores, label)
        self.window.walk_back({self.readout: d_scores})
        self.window.begin()
        self.n_summed += 1
        return loss, scores

    def step(self) -> None:
        """Change what is learned along the mean of the gradients since the last step; nothing if there are none."""
        if not self.n_summed:
            return
        self.n_steps += 1
        scale = 1.0 / self.n_summed
        gradients, weight = self.window.gradients, self.network._program.weight
        if np.isfinite(self._longest) and self._spans:
            norm = scale * float(np.sqrt(sum(np.sum(np.square(gradients.weight[span])) for span in self._spans)))
            scale *= min(1.0, self._longest / max(norm, 1e-30))
        rate, meta_rate = self._rates
        for span, moments in zip(self._spans, self._moments, strict=True):
            if self._optimiser == "adam":
                adam_step(
                    weight[span], gradients.weight[span], moments, self.n_steps, rate, 1.0, scale, -np.inf, np.inf
                )
            else:
                weight[span] -= weight.dtype.type(rate * scale) * gradients.weight[span]
        for it, moments in zip(self.metas, self._meta_moments, strict=True):
            gradient = it.gather(gradients) / self.n_summed * it.unit
            if self._optimiser == "adam":
                moments.mean[:] = 0.9 * moments.mean + 0.1 * gradient
                moments.variance[:] = 0.999 * moments.variance + 0.001 * gradient**2
                hat = moments.mean / (1.0 - 0.9**self.n_steps)
                gradient = hat / (np.sqrt(moments.variance / (1.0 - 0.999**self.n_steps)) + 1e-8)
            it.value[:] = np.clip(it.value - meta_rate * it.unit * gradient, it.lowest, it.highest)
            it.put(it.value)
        self.forget()

    def forget(self) -> None:
        """Drop the gradients since the last step."""
        for array in self.window.gradients:
            array.fill(0)
        self.n_summed = 0

    def learned(self) -> Graph:
        """Return the network with weights and time constants as they are now."""
        network = self.network
        graph = network.graph
        projections = list(graph.projections)
        for q, it in enumerate(graph.projections):
            topology: Any = it.topology
            if hasattr(topology, "weight") and np.ndim(topology.weight):
                shape = np.shape(topology.weight)
                first = int(network._program.projection[q, WEIGHT])
                weight = network._program.weight[first : first + np.size(topology.weight)].reshape(shape).copy()
                projections[q] = it._replace(topology=topology._replace(weight=weight))
        values = {it.name: it.value for it in self.metas}
        populations = []
        for population in graph.populations:
            model: Any = population.model
            for name in ("tau_mem_us", "tau_adapt_us"):
                value = values.get(f"{population.name} {name}")
                if value is not None:
                    model = model._replace(**{name: float(value[0]) if len(value) == 1 else value.copy()})
            populations.append(population._replace(model=model))
        return graph._replace(populations=populations, projections=projections)

    # -- state ---------------------------------------------------------------------------------------------------------

    def _arrays(self) -> Snapshot:
        arrays: Snapshot = {"weight": self.network._program.weight}
        for k, moments in enumerate(self._moments):
            arrays |= {f"weights.{k}.mean": moments.mean, f"weights.{k}.variance": moments.variance}
        for it, moments in zip(self.metas, self._meta_moments, strict=True):
            arrays |= {it.name: it.value, f"{it.name}.mean": moments.mean, f"{it.name}.variance": moments.variance}
        return arrays

    def snapshot(self) -> Snapshot:
        """Return a copy of all that is learned, right after a step."""
        counts = {"n_steps": np.array(self.n_steps, np.int64)}
        return {name: array.copy() for name, array in self._arrays().items()} | counts

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what was learned; ConfigError, and no change, if it is another network's."""
        arrays = self._arrays()
        check_shapes("global correction", arrays | {"n_steps": np.zeros((), np.int64)}, snapshot)
        for name, array in arrays.items():
            array[...] = snapshot[name]
        for it in self.metas:
            it.put(it.value)
        self.n_steps = int(snapshot["n_steps"])
        self.forget()
