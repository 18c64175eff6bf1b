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

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.front import decay_table, flush_shift
from neurons.graph import Graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import DONE_US
from neurons.one_to_one import OneToOne
from neurons.program import FIRST, SHIFT, TAU_2, TAU_MEM, UNIFORM, UNITS, WEIGHT, WHEN
from neurons.quantised_dense import QuantisedDense
from neurons.sparse import Sparse
from plasticity.adam import AdamState, adam_step, new_adam
from plasticity.backward_units import Gradients
from plasticity.eligibility import Eligibility
from plasticity.hebbian import Hebbian
from plasticity.loss import cross_entropy, first_spike, mse, rate, spike_count
from plasticity.plastic_network import PlasticNetwork, has_weights, with_weights
from plasticity.quantised import on_grid, scale_of
from plasticity.short_term import ShortTerm
from plasticity.table import FIRST_FAST, FIRST_POST, FIRST_PRE, MIXING, N_PRE, TAU_FAST
from plasticity.window import Surrogate, TapedWindow
from stream.errors import ConfigError
from stream.lanes import aligned
from stream.operator import Snapshot, check_shapes

__all__ = ["Form", "GlobalCorrection", "Learned", "Loss", "Optimiser"]

Learned = Literal["weights", "rules", "times"]
Optimiser = Literal["adam", "sgd"]
Loss = Literal["cross_entropy", "mse", "spike_count", "first_spike"]
Form = Literal["adjoint", "eligibility"]
Judge: TypeAlias = Callable[[NDArray[np.float64], int], tuple[float, NDArray[np.float64]]]
Scored: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

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


# places of GlobalCorrection.guard
BEST, TOTAL, N_JUDGED, STEPS_AT_BEST, N_BACK = range(5)


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
    apart
        Steps change weights and values of their own, which ``install`` puts into the network.
    held
        Populations that stay as they are: their time constants, and weights and rules of what leads to them.
    loss
        ``cross_entropy`` with ``gain``, or ``mse`` of scores clipped at 1.1; or a function from scores (time averages
        of the readout, shape (n_classes,)) and a label to the loss and its derivative by the scores. ``spike_count``
        and ``first_spike``: cross-entropy of what ``plasticity.loss`` makes of the spikes of ``output``.
    output
        Spiking population that answers, one unit for each class; for the two losses that want one. The network then
        needs no readout.
    tau_us
        What difference in time matters to ``first_spike``.
    gain
        Slope of the softmax.
    form
        ``adjoint``: the walk back, exact but for the surrogate. ``eligibility``: forward, with one trace for each input
        (``plasticity.eligibility``); weights alone are learned.
    surrogate, width, window_events, window_pieces
        As for ``plasticity.window.TapedWindow``.
    optimiser
        ``adam`` or ``sgd``.
    weight_rate, meta_rate
        Rates.
    rate_hz, rate_strength
        Spiking populations are held near this rate (``plasticity.loss.rate``), if the strength is above 0; not with
        ``eligibility``.
    weight_bits
        0, or bits of the weights that the network runs with, while those that are learned stay whole: for the chip, see
        ``plasticity.quantised``.
    margin, judge_labels
        Losses given to ``hold_back`` are averaged over so many labels. Worse than the best average so far by more than
        the margin: all that is learned goes back to where it stood then. inf: never.
    longest
        Gradients of weights longer than this, all together, are made this long; inf: never.

    Raises
    ------
    ConfigError
        If the network has no readout, something no gradient leads through, or weights of 8 bits that were to be
        learned.
    """

    def __init__(
        self,
        network: PlasticNetwork,
        *,
        learn: tuple[Learned, ...] = ("weights", "rules"),
        held: tuple[str, ...] = (),
        untouched: tuple[tuple[str, str], ...] = (),
        apart: bool = False,
        loss: Loss | Judge = "cross_entropy",
        output: str = "",
        tau_us: float = 10_000.0,
        gain: float = 1.0,
        form: Form = "adjoint",
        surrogate: Surrogate = "spikes",
        width: float = np.inf,
        optimiser: Optimiser = "adam",
        weight_rate: float = 2e-3,
        meta_rate: float = 1e-3,
        longest: float = np.inf,
        window_events: int = 65_536,
        window_pieces: int = 1,
        rate_hz: float = 20.0,
        rate_strength: float = 0.0,
        weight_bits: int = 0,
        margin: float = np.inf,
        judge_labels: int = 10,
    ) -> None:
        if weight_bits and not 2 <= weight_bits <= 16:
            raise ConfigError(f"weight_bits: got {weight_bits}, wanted 0 or 2 to 16")
        if not margin >= 0 or judge_labels < 1:
            raise ConfigError(f"margin, judge_labels: got {margin}, {judge_labels}; wanted 0 or more, 1 or more")
        self._of_spikes = {"spike_count": self._counts, "first_spike": self._earliness}.get(str(loss))
        if self._of_spikes and (output not in network.outputs or form != "adjoint" or window_pieces != 1):
            raise ConfigError(
                f"loss {loss!r}: got output = {output!r}, form {form!r}, {window_pieces} window_pieces; wanted one of "
                f"the spiking populations {', '.join(network.outputs)}, the adjoint, and 1 piece"
            )
        if not tau_us > 0 or (output and not self._of_spikes):
            raise ConfigError(
                f"output, tau_us: got {output!r}, {tau_us}; wanted an output for spike_count and first_spike alone, "
                f"and a time above 0"
            )
        if network._readout < 0 and not output:
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
            network,
            surrogate=surrogate,
            width=width,
            times="times" in learn,
            window_events=window_events,
            window_pieces=window_pieces,
        )
        if isinstance(loss, str) and loss not in get_args(Loss):
            raise ConfigError(f"loss: got {loss!r}, wanted one of {', '.join(get_args(Loss))}")
        sharp: Judge = functools.partial(cross_entropy, gain=gain)
        self.judge: Judge = loss if callable(loss) else mse if loss == "mse" else sharp
        self.readout = output or network._names[network._readout]
        self._tau_us = float(tau_us)
        if form not in ("adjoint", "eligibility"):
            raise ConfigError(f"form: got {form!r}, wanted 'adjoint' or 'eligibility'")
        if form == "eligibility" and window_pieces != 1:
            raise ConfigError(
                "form = 'eligibility': reads the tape alone; make window_events larger, not window_pieces"
            )
        if form == "eligibility" and (surrogate != "spikes" or tuple(learn) != ("weights",)):
            raise ConfigError(
                "form = 'eligibility': learns weights alone, by the surrogate 'spikes'; got "
                f"learn = {', '.join(learn) or 'nothing'} and {surrogate!r}"
            )
        if not rate_hz > 0 or not rate_strength >= 0 or (rate_strength and form == "eligibility"):
            raise ConfigError(
                f"rate_hz, rate_strength: got {rate_hz}, {rate_strength}; wanted above 0, 0 or more, and the adjoint"
            )
        self._rate_hz, self._rate_strength = float(rate_hz), float(rate_strength)
        self._eligibility = Eligibility(self.window, self.readout) if form == "eligibility" else None
        self._optimiser, self._rates, self._longest = optimiser, (weight_rate, meta_rate), longest
        self.rate_factor = 1.0  # of both rates, for steps to come
        self.n_steps = self.n_summed = 0
        self._is_apart = apart
        self._bits = weight_bits
        self.weight = aligned(network._program.weight) if apart or weight_bits else network._program.weight
        self._spans = self._weight_spans() if "weights" in learn else []
        self._moments = [new_adam(network._program.weight[span]) for span in self._spans]
        self.metas = [
            *(self._rule_metas() if "rules" in learn else []),
            *(self._time_metas() if "times" in learn else []),
        ]
        self._margin, self._judge_labels = margin, judge_labels
        self._meta_moments = [AdamState(np.zeros_like(it.value), np.zeros_like(it.value)) for it in self.metas]
        # best average, sum and number of losses since the last judgement, n_steps at the best, times rolled back
        self.guard = np.array([np.inf, 0.0, 0.0, 0.0, 0.0])
        self._at_best = {name: array.copy() for name, array in self._learnable().items()} if margin < np.inf else {}
        self._lay(self.weight)

    # -- what is learned -----------------------------------------------------------------------------------------------

    def _weight_spans(self) -> list[slice]:
        network = self.network
        spans = []
        for q, it in enumerate(network.graph.projections):
            topology = it.topology
            if it.target in self._held:
                continue
            if isinstance(topology, QuantisedDense):
                raise ConfigError(
                    f"projection {it.source} -> {it.target}: its weights are whole numbers of 8 bits, which no step "
                    f"can move; learn neurons.graph.dequantised(graph), with weight_bits = 8 if they are to be so "
                    f"again, or let them be with held = ['{it.target}']"
                )
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
                        self._meta("mixing", f"{label} mixing", np.zeros(1), mixing, lambda g, at=fast: g.share[at])  # type: ignore[misc] # a default in a lambda has no type
                    )
                else:
                    mixing = number[MIXING : MIXING + 1]
                    metas.append(
                        self._meta("mixing", f"{label} mixing", 0.0, mixing, lambda g, q=q: g.mixing[q : q + 1])  # type: ignore[misc] # a default in a lambda has no type
                    )
                metas += [
                    self._meta(
                        "local_rate",
                        f"{label} local_rate",
                        rule.local_rate,
                        table.local_rate[pre],
                        lambda g, at=pre: g.local_rate[at],  # type: ignore[misc] # a default in a lambda has no type
                    ),
                    self._meta(
                        "sliding_threshold",
                        f"{label} sliding_threshold",
                        np.zeros(1),  # always one for each unit: model.md's eta
                        table.sliding[post],
                        lambda g, at=post: g.sliding[at],  # type: ignore[misc] # a default in a lambda has no type
                    ),
                    self._meta(
                        "tau",
                        f"{label} tau_hebb_us",
                        0.0,
                        number[TAU_FAST : TAU_FAST + 1],
                        lambda g, q=q: g.tau_fast[q : q + 1],  # type: ignore[misc] # a default in a lambda has no type
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
                            lambda g, at=pre, c=column: g.terminal[at, c],  # type: ignore[misc] # a default in a lambda has no type
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
                    lambda g, at=units: g.tau[at],  # type: ignore[misc] # a default in a lambda has no type
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
                        lambda g, at=units: g.tau_2[at],  # type: ignore[misc] # a default in a lambda has no type
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
        shape = np.shape(self.network._weights(q))
        first = int(self.network._program.projection[q, WEIGHT])
        here = slice(first, first + shape[0] * shape[1])
        for weight in (self.network._program.weight, self.weight):
            weight[here].reshape(shape)[:, unit] = 0.0
        self.window.gradients.weight[here].reshape(shape)[:, unit] = 0.0
        for span, moments in zip(self._spans, self._moments, strict=True):
            if span.start == first:
                for moment in moments:
                    moment.reshape(shape)[:, unit] = 0.0

    def add_columns(self, q: int, change: NDArray[np.float64]) -> None:
        """Add to the weights of a dense projection; shape (n_pre, n_post)."""
        first = int(self.network._program.projection[q, WEIGHT])
        weight = self.weight[first : first + change.size].reshape(change.shape)
        weight += change.astype(weight.dtype)
        self._lay(self.weight)

    # -- learning ------------------------------------------------------------------------------------------------------

    def scores(self, window: TapedWindow | None = None) -> NDArray[np.float64]:
        """Return the scores of this window so far, or of one of a network like it: float64, shape (n_classes,)."""
        window = window or self.window
        network = window.network
        if self._of_spikes is None:
            return network.averages(self.readout).reshape(-1)
        units, at = window.spikes(self.readout)
        return self._of_spikes(network, units, network.state.tape[at, WHEN])[0]

    def _n_classes(self, network: PlasticNetwork) -> int:
        return int(network._program.population[network._names.index(self.readout), UNITS])

    def _counts(self, network: PlasticNetwork, units: NDArray[np.int64], t_us: NDArray[np.int64]) -> Scored:
        return spike_count(units, self._n_classes(network))

    def _earliness(self, network: PlasticNetwork, units: NDArray[np.int64], t_us: NDArray[np.int64]) -> Scored:
        return first_spike(units, t_us, self._n_classes(network), int(network._clock[DONE_US]), self._tau_us)

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
        self.add(d_scores)
        self.window.begin()
        return loss, scores

    def add(self, d_scores: NDArray[np.float64]) -> None:
        """Add the gradients of the window up to now, given the derivative by the scores, shape (n_classes,)."""
        if self._eligibility is not None:
            self._eligibility.add(d_scores)
        else:
            self.walk_back(self.window, d_scores)
        self.n_summed += 1

    def walk_back(self, window: TapedWindow, d_scores: NDArray[np.float64]) -> None:
        """Add the gradients of a window of this network, or of one like it, to that window's own."""
        network = window.network
        spiking = [name for name in network._names if name in network.outputs] if self._rate_strength else []
        span_us = max(int(network._clock[0]) - int(network._clock[2]), 1)

        def worth(name: str, units: NDArray[np.int64], t_us: NDArray[np.int64]) -> NDArray[Any]:
            each = np.zeros(len(units))
            if name in spiking:
                n = int(network._program.population[network._names.index(name), UNITS])
                each += rate(units, n, span_us, self._rate_hz, self._rate_strength)[1]
            if self._of_spikes is not None and name == self.readout:
                each += d_scores[units] * self._of_spikes(network, units, t_us)[1]
            return each

        if self._of_spikes is not None:
            spiking_or_asked = {*spiking, self.readout}
            window.walk_back(d_spike={name: functools.partial(worth, name) for name in sorted(spiking_or_asked)})
            return
        window.walk_back({self.readout: d_scores}, d_spike={name: functools.partial(worth, name) for name in spiking})

    def step(self) -> None:
        """Change what is learned along the mean of the gradients since the last step; nothing if there are none."""
        if not self.n_summed:
            return
        self.n_steps += 1
        scale = 1.0 / self.n_summed
        gradients, weight = self.window.gradients, self.weight
        if np.isfinite(self._longest) and self._spans:
            norm = scale * float(np.sqrt(sum(np.sum(np.square(gradients.weight[span])) for span in self._spans)))
            scale *= min(1.0, self._longest / max(norm, 1e-30))
        rate, meta_rate = (self.rate_factor * rate for rate in self._rates)
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
            if not self._is_apart:
                it.put(it.value)
        if not self._is_apart:
            self._lay(self.weight)
        self.forget()

    def _lay(self, weight: NDArray[Any]) -> None:
        """Let the network run with weights; on the chip's grid, if that is wanted."""
        mine = self.network._program.weight
        if weight is not mine:
            mine[:] = weight
        if not self._bits:
            return
        ways: dict[str, list[slice]] = {}
        for q, it in enumerate(self.network.graph.projections):
            topology: Any = it.topology
            if has_weights(topology):
                first = int(self.network._program.projection[q, WEIGHT])
                ways.setdefault(it.target, []).append(slice(first, first + np.size(topology.weight)))
        for spans in ways.values():
            scale = scale_of([weight[span] for span in spans], self._bits)
            for span in spans:
                mine[span] = on_grid(weight[span], scale, self._bits)

    def hold_back(self, loss: float) -> bool:
        """Take note of the loss of a label that is not learned from; returns whether that rolled back what is learned.

        After a rollback the loss that caused it is the one to compare with: where the stream has become harder, what
        was best before cannot be had any more.
        """
        guard = self.guard
        guard[TOTAL] += loss
        guard[N_JUDGED] += 1
        if guard[N_JUDGED] < self._judge_labels:
            return False
        mean = guard[TOTAL] / guard[N_JUDGED]
        guard[[TOTAL, N_JUDGED]] = 0.0
        if mean > guard[BEST] + self._margin:
            for name, array in self._learnable().items():
                array[...] = self._at_best[name]
            self.n_steps = int(guard[STEPS_AT_BEST])
            self.forget()
            self._put_all()
            guard[BEST] = mean
            guard[N_BACK] += 1
            return True
        if mean < guard[BEST]:
            guard[[BEST, STEPS_AT_BEST]] = mean, self.n_steps
            for name, array in self._learnable().items():
                if self._at_best:
                    self._at_best[name][...] = array
        return False

    def _put_all(self) -> None:
        """Let what is learned be in force."""
        if not self._is_apart:
            for it in self.metas:
                it.put(it.value)
            self._lay(self.weight)

    def result(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return copies of what is learned: weights, and the values of all meta-parameters, one behind the other."""
        return self.weight.copy(), np.concatenate([np.zeros(0), *(it.value for it in self.metas)])

    def install(self, weight: NDArray[Any], values: NDArray[np.float64]) -> None:
        """Put weights and values of a ``result`` into force, of this network or one like it."""
        if not self._is_apart and self.weight is not self.network._program.weight:
            self.weight[:] = weight
        self._lay(weight)
        first = 0
        for it in self.metas:
            if self._is_apart:  # its own go on from where they are
                it.put(values[first : first + len(it.value)])
            else:
                it.value[:] = values[first : first + len(it.value)]
                it.put(it.value)
            first += len(it.value)

    def forget(self) -> None:
        """Drop the gradients since the last step."""
        for array in self.window.gradients:
            array.fill(0)
        self.n_summed = 0

    def learned(self) -> Graph:
        """Return the network with weights and time constants as they are now."""
        graph = with_weights(self.network)
        values = {it.name: it.value for it in self.metas}
        populations = []
        for population in graph.populations:
            model: Any = population.model
            for name in ("tau_mem_us", "tau_adapt_us"):
                value = values.get(f"{population.name} {name}")
                if value is not None:
                    model = model._replace(**{name: float(value[0]) if len(value) == 1 else value.copy()})
            populations.append(population._replace(model=model))
        return graph._replace(populations=populations)

    # -- state ---------------------------------------------------------------------------------------------------------

    def _arrays(self) -> Snapshot:
        best = {f"best.{name}": array for name, array in self._at_best.items()}
        return self._learnable() | best | ({"guard": self.guard} if self._at_best else {})

    def _learnable(self) -> Snapshot:
        arrays: Snapshot = {"weight": self.weight}
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
        self._put_all()
        self.n_steps = int(snapshot["n_steps"])
        self.forget()
