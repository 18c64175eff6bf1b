"""Networks whose weights change as the stream runs through them: ``neurons.network.Network`` with local rules.

::

    network = PlasticNetwork.of(
        graph,
        rules={("input", "hidden"): PairSTDP(a_plus=0.01), ("hidden", "out"): RewardSTDP()},
        terminals={("input", "hidden"): ShortTerm(depletion=0.3)},
    )
    network.run(events)
    network.reward(0.5)
    learned = network.learned()  # a Graph, to be saved

Rules stand in files of their own: ``hebbian``, ``pair_stdp``, ``triplet_stdp``, ``oja``, ``bcm``, ``reward_stdp``,
``error_modulated``, ``decolle``; tired terminals in ``short_term``, what is around them in ``surround``; what keeps
units at their rates, beside any of these, in ``synaptic_scaling`` (by projection) and ``homeostasis`` (by population).
Any projection of the kinds dense, sparse, one-to-one (with a weight for each) and convolution (one group) may have a
rule, several at once, delays and recurrence included, between events or in phases. How rules are carried out, and in
which order: ``plasticity.rules``.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Projection, n_units, shape_of
from neurons.network import BEFORE_ALL_US, DONE_US, Discipline, Network, Precision
from neurons.one_to_one import OneToOne
from neurons.program import (
    ADAPTIVE_LIF,
    CROSSES,
    DIRECT,
    DIRECT_END,
    FIRST,
    HARD,
    INTEGRATE_FIRE,
    IS_READ,
    LIF,
    LOGGED,
    MODEL,
    N_LATE,
    N_LOG,
    PLASTIC,
    TARGET,
    UNIFORM,
    UNITS,
    WEIGHT,
)
from neurons.quantised_dense import QuantisedDense
from neurons.sparse import Sparse
from plasticity.bcm import BCM, bcm_share
from plasticity.decolle import Decolle, local_readout, local_signal
from plasticity.error_modulated import ErrorModulated
from plasticity.hebbian import ADD, BLEND, LINEAR, MASK, SOFTMAX, TANH, Hebbian
from plasticity.homeostasis import Homeostasis, follow_rate, move_thresholds
from plasticity.oja import Oja
from plasticity.pair_stdp import PairSTDP
from plasticity.reward_stdp import RewardSTDP
from plasticity.rules import note, plastic_run, renew
from plasticity.short_term import ShortTerm
from plasticity.surround import Surround
from plasticity.synaptic_scaling import SynapticScaling, scaling_factors
from plasticity.table import (
    A3_POST,
    A3_PRE,
    A_POST,
    A_PRE,
    BCM_RULE,
    ERROR_MODULATED,
    FAST_MAX,
    FIRST_FAST,
    FIRST_POST,
    FIRST_PRE,
    FIRST_ROW,
    FIRST_SIGNAL,
    FIRST_SITE,
    FORM,
    HAS_SCALING,
    HAS_SHORT_TERM,
    HAS_SURROUND,
    HEBBIAN,
    MIXING,
    N_NUMBER_COLUMNS,
    N_PLACE_COLUMNS,
    N_PRE,
    NEAREST,
    OJA,
    PAIR_STDP,
    POST_TERM,
    RATE,
    RENEW_AFTER_TAUS,
    REWARD,
    REWARD_STDP,
    RULE,
    SCALED_MAX,
    SCALED_MIN,
    SHARE,
    SITE_CHANNELS,
    SITES_X,
    SITES_Y,
    STATIC,
    TAU_FAST,
    TAU_X,
    TAU_X2,
    TAU_Y,
    TAU_Y2,
    TRIPLET_STDP,
    W_MAX,
    W_MIN,
    Memory,
    Table,
)
from plasticity.triplet_stdp import TripletSTDP
from stream.errors import ConfigError, StreamError
from stream.lanes import aligned
from stream.operator import Snapshot

__all__ = ["PlasticNetwork", "Rule", "has_weights", "read_rules", "with_weights"]

Rule: TypeAlias = Hebbian | PairSTDP | TripletSTDP | Oja | BCM | RewardSTDP | ErrorModulated | Decolle
Beside: TypeAlias = ShortTerm | Surround | SynapticScaling  # what a projection may have beside its rule
Ends: TypeAlias = tuple[str, str]

NUMBERS = {Hebbian: HEBBIAN, PairSTDP: PAIR_STDP, TripletSTDP: TRIPLET_STDP, Oja: OJA, BCM: BCM_RULE}
NUMBERS |= {RewardSTDP: REWARD_STDP, ErrorModulated: ERROR_MODULATED, Decolle: ERROR_MODULATED}
FORMS = {"add": ADD, "blend": BLEND, "mask": MASK}
POST_TERMS = {"tanh": TANH, "linear": LINEAR, "softmax": SOFTMAX}
ROOM = 4096  # notes of a log; it grows
SIGNALS = 64  # that may wait; then all logs begin anew
NOTHING = np.zeros(0)
NO_SCALING: Mapping[Ends, SynapticScaling] = MappingProxyType({})
NO_SURROUNDS: Mapping[Ends, Surround] = MappingProxyType({})
NO_THRESHOLDS: Mapping[str, Homeostasis] = MappingProxyType({})


def _numbers_of(rule: Rule | None) -> NDArray[np.float64]:
    """Return the row of ``Table.number``; time constants that a rule does not have never let anything decay."""
    number = np.zeros(N_NUMBER_COLUMNS)
    number[[TAU_X, TAU_X2, TAU_Y, TAU_Y2, TAU_FAST]] = np.inf
    number[[W_MIN, W_MAX, FAST_MAX]] = -np.inf, np.inf, np.inf
    match rule:
        case PairSTDP() | RewardSTDP():
            number[[A_PRE, A_POST, TAU_X, TAU_Y]] = rule.a_minus, rule.a_plus, rule.tau_plus_us, rule.tau_minus_us
            number[[W_MIN, W_MAX]] = rule.w_min, rule.w_max
            if isinstance(rule, RewardSTDP):
                number[[RATE, TAU_FAST]] = rule.rate, rule.tau_eligibility_us
            else:
                number[NEAREST] = rule.nearest
        case TripletSTDP():
            number[[A_PRE, A_POST, A3_PRE, A3_POST]] = rule.a2_minus, rule.a2_plus, rule.a3_minus, rule.a3_plus
            number[[TAU_X, TAU_X2, TAU_Y, TAU_Y2]] = rule.tau_plus_us, rule.tau_x_us, rule.tau_minus_us, rule.tau_y_us
            number[[W_MIN, W_MAX]] = rule.w_min, rule.w_max
        case Oja():
            number[[RATE, TAU_X, TAU_Y]] = rule.rate, rule.tau_pre_us, rule.tau_post_us
        case BCM():
            number[[RATE, TAU_Y, TAU_Y2]] = rule.rate, rule.tau_post_us, rule.tau_theta_us
            number[SHARE] = bcm_share(rule.tau_post_us, rule.tau_theta_us)
            number[[W_MIN, W_MAX]] = rule.w_min, rule.w_max
        case ErrorModulated() | Decolle():
            number[[RATE, TAU_X, W_MIN, W_MAX]] = rule.rate, rule.tau_pre_us, rule.w_min, rule.w_max
        case Hebbian():
            number[[TAU_FAST, FAST_MAX]] = rule.tau_hebb_us, rule.hebb_max
            number[MIXING] = rule.mixing if rule.mixed != "blend" else 0.0
    return number


class Cycle(NamedTuple):
    """What happens again and again, at multiples of a period since time began."""

    rule: Homeostasis | SynapticScaling | Decolle
    subject: str
    population: int
    projection: int  # -1: of the whole population
    units: slice  # of PlasticNetwork._rates
    readout: NDArray[np.float64]  # DECOLLE's


def _read_rule(table: dict[str, Any]) -> tuple[Ends, Rule | Beside | Homeostasis]:
    """Make a rule of a table of a pipeline file."""
    known: dict[str, Any] = {it.__name__: it for it in (*NUMBERS, ShortTerm, Surround, SynapticScaling, Homeostasis)}
    if table.get("rule") == "Homeostasis":
        table.setdefault("source", table.get("target", ""))  # it belongs to a population
    ends = table.pop("source", ""), table.pop("target", "")
    name = table.pop("rule", "")
    if not all(ends) or name not in known:
        raise ConfigError(
            f"rule {name!r} of {ends[0]} > {ends[1]}: wanted source, target, and rule: {', '.join(known)}"
        )
    if strange := table.keys() - set(known[name]._fields):
        raise ConfigError(
            f"{name} of {ends[0]} > {ends[1]}: there is no {', '.join(sorted(strange))}; it has "
            f"{', '.join(known[name]._fields)}"
        )
    return ends, known[name](**table)


class Tables(NamedTuple):
    """What the tables of a pipeline file say."""

    rules: dict[Ends, Rule]
    terminals: dict[Ends, ShortTerm]
    surrounds: dict[Ends, Surround]
    scaling: dict[Ends, SynapticScaling]
    homeostasis: dict[Ends, Homeostasis]


def _read_all(tables: list[dict[str, Any]]) -> Tables:
    """Sort the tables of a pipeline file by what they are."""
    found: tuple[dict[Ends, Any], ...] = ({}, {}, {}, {}, {})
    kinds: dict[type, int] = {ShortTerm: 1, Surround: 2, SynapticScaling: 3, Homeostasis: 4}
    for table in tables:
        ends, rule = _read_rule(dict(table))
        kind = found[kinds.get(type(rule), 0)]
        if ends in kind:
            raise ConfigError(f"rule of {ends[0]} > {ends[1]}: got two of a kind, wanted one")
        kind[ends] = rule
    return Tables(*found)


def read_rules(
    tables: list[dict[str, Any]],
) -> tuple[dict[Ends, Rule], dict[Ends, ShortTerm], dict[Ends, Surround]]:
    """Make rules, terminals and surrounds of the tables of a pipeline file; ConfigError if they are no such tables."""
    found = _read_all(tables)
    for (source, target), rule in [*found.scaling.items(), *found.homeostasis.items()]:
        raise ConfigError(
            f"{type(rule).__name__} of {source} > {target}: no gradient leads through it; take a PlasticNetwork"
        )
    return found.rules, found.terminals, found.surrounds


def has_weights(topology: Any) -> bool:
    """Tell whether a topology has weights of its own that are real numbers."""
    return not isinstance(topology, QuantisedDense) and np.ndim(getattr(topology, "weight", 0.0)) > 0


def _check_rule(ends: Ends, rule: Rule | Beside | Homeostasis) -> None:
    subject = f"{type(rule).__name__} of {ends[0]} > {ends[1]}"
    for name, value in rule._asdict().items():
        if name.startswith("tau_") and not np.all(np.asarray(value) > 0):
            raise ConfigError(f"{subject}: {name} is {value}, wanted a time above 0 us")
        if isinstance(value, (int, float)) and math.isnan(value):
            raise ConfigError(f"{subject}: {name} is not a number")
    if isinstance(rule, Homeostasis | SynapticScaling | Decolle):
        if not isinstance(rule.period_us, int | np.integer) or rule.period_us < 1:
            raise ConfigError(f"{subject}: period_us is {rule.period_us}, wanted whole us, 1 or more")
        if not isinstance(rule, Decolle) and not rule.target_hz > 0:
            raise ConfigError(f"{subject}: target_hz is {rule.target_hz}, wanted a rate above 0")
    if isinstance(rule, Decolle) and rule.n_classes < 1:
        raise ConfigError(f"{subject}: n_classes is {rule.n_classes}, wanted 1 or more")
    if isinstance(rule, Surround):
        for name, low, high in (("support_half", 0, math.inf), ("support_given", 0, math.inf), ("reach", 1, 1000)):
            if not low <= getattr(rule, name) <= high:
                raise ConfigError(f"{subject}: {name} is {getattr(rule, name)}, wanted {low} to {high}")
        if not rule.support_half > 0 or not rule.rate_hz >= 0:
            raise ConfigError(
                f"{subject}: got support_half {rule.support_half}, rate_hz {rule.rate_hz}; wanted above 0, 0 or more"
            )
    if isinstance(rule, BCM) and rule.tau_post_us == 2 * rule.tau_theta_us:
        raise ConfigError(
            f"{subject}: tau_post_us is twice tau_theta_us, for which there is no formula; move one a bit"
        )
    if isinstance(rule, Hebbian):
        for name, known in (("mixed", FORMS), ("post", POST_TERMS)):
            if getattr(rule, name) not in known:
                raise ConfigError(f"{subject}: {name} is {getattr(rule, name)!r}, wanted one of {', '.join(known)}")
        if (rule.mixed == "mask") != (rule.mask is not None):
            raise ConfigError(f"{subject}: a mask goes with mixed = 'mask', and only with it")


def _spread(value: Any, n: int, subject: str) -> NDArray[np.float64]:
    array = np.asarray(value, np.float64)
    if array.shape not in ((), (n,)):
        raise ConfigError(f"{subject}: got shape {array.shape}, wanted a number or one for each of {n} units")
    return np.broadcast_to(array, (n,))


class PlasticNetwork(Network):
    """A network with local rules.

    Parameters
    ----------
    path
        A network file, written by ``neurons.graph_file.save_graph``. From Python: :meth:`of`.
    rules
        One table for each plastic projection: ``source``, ``target``, ``rule`` (a rule's name, such as ``PairSTDP``;
        beside it ``ShortTerm``, ``Surround`` and ``SynapticScaling``), and that rule's parameters. ``Homeostasis``
        belongs to a population: ``target`` alone.
    readout, precision
        As for ``neurons.network.Network``.
    reset_local
        Whether a ``Reset`` clears fast changes, tired terminals and surrounds; False carries them along the stream.

    Raises
    ------
    ConfigError
        If the file, the network or a rule is not in order, or one does not fit the other.

    Notes
    -----
    A ``Reset`` mark puts potentials, traces and (see ``reset_local``) fast changes to rest; weights stay as they have
    been learned.
    """

    def __init__(
        self,
        *,
        path: str,
        rules: list[dict[str, Any]],
        readout: str = "",
        precision: Precision = "float32",
        reset_local: bool = True,
    ) -> None:
        super().__init__(path=path, readout=readout, precision=precision)
        found = _read_all(rules)
        thresholds = {target: rule for (_, target), rule in found.homeostasis.items()}
        self._set_up_rules(
            found.rules,
            found.terminals,
            reset_local,
            surrounds=found.surrounds,
            scaling=found.scaling,
            thresholds=thresholds,
        )

    @classmethod
    def of(
        cls,
        graph: Graph,
        *,
        rules: Mapping[Ends, Rule] | None = None,
        terminals: Mapping[Ends, ShortTerm] | None = None,
        surrounds: Mapping[Ends, Surround] | None = None,
        scaling: Mapping[Ends, SynapticScaling] | None = None,
        thresholds: Mapping[str, Homeostasis] | None = None,
        discipline: Discipline = "event",
        phase_us: int = 1000,
        readout: str = "",
        precision: Precision = "float32",
        reset_local: bool = True,
        graded: bool = False,
    ) -> "PlasticNetwork":
        """Make one.

        Parameters
        ----------
        graph
            The network; its weights are where learning begins.
        rules, terminals, surrounds, scaling
            By (source, target).
        thresholds
            By population.
        discipline, phase_us, readout, precision
            As for ``Network``.
        reset_local
            As above.
        graded
            Whether items come with amplitudes (see :meth:`run`): a picture in phases, for one.

        Raises
        ------
        ConfigError
            If the graph or a rule is not in order, or one does not fit the other.
        """
        network = cls.__new__(cls)
        network._set_up(graph, discipline, phase_us, readout, precision)
        network._set_up_rules(
            dict(rules or {}),
            dict(terminals or {}),
            reset_local,
            graded,
            dict(surrounds or {}),
            dict(scaling or {}),
            dict(thresholds or {}),
        )
        return network

    # -- from rules to tables ------------------------------------------------------------------------------------------

    def _set_up_rules(
        self,
        rules: dict[Ends, Rule],
        terminals: dict[Ends, ShortTerm],
        reset_local: bool,
        graded: bool = False,
        surrounds: Mapping[Ends, Surround] = NO_SURROUNDS,
        scaling: Mapping[Ends, SynapticScaling] = NO_SCALING,
        thresholds: Mapping[str, Homeostasis] = NO_THRESHOLDS,
    ) -> None:
        projections = list(self.graph.projections)
        ways: dict[Ends, int] = {}
        # what has another amplitude than 1 goes through ``plasticity.rules``, whether it learns or not
        scaled = {(it.source, it.target): None for it in projections if it.fade or (graded and it.source == INPUT)}
        if any(it.source == INPUT and it.delay_us for it in projections) and graded:
            raise ConfigError("graded: amplitudes do not wait; give projections from the input no delay")
        beside: list[tuple[Ends, Any]] = [*terminals.items(), *surrounds.items(), *scaling.items(), *scaled.items()]
        for ends, wanted in [*rules.items(), *beside]:
            found = [q for q, it in enumerate(projections) if (it.source, it.target) == ends]
            if len(found) != 1:
                raise ConfigError(f"rule of {ends[0]} > {ends[1]}: got {len(found)} such projections, wanted one")
            if wanted is not None:
                _check_rule(ends, wanted)
            ways[ends] = found[0]
            self._check_topology(ends, projections[found[0]], rules.get(ends))
            if ends in surrounds and (ends[0] != INPUT or len(self.graph.inputs) != 3):
                raise ConfigError(
                    f"Surround of {ends[0]} > {ends[1]}: got a source of shape {shape_of(self.graph, ends[0])}, wanted "
                    f"the input, and that with sites: (height, width, channels)"
                )
        n_ways, n_populations = len(projections), len(self._names)
        place = np.full((n_ways, N_PLACE_COLUMNS), -1, np.int64)
        number = np.zeros((n_ways, N_NUMBER_COLUMNS))
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("rate", "sliding", "terminal", "share")}
        surround = np.zeros((n_ways, len(Surround._fields)))
        n_pre_all = n_post_all = n_fast = n_rows = n_sites = 0
        for ends, q in sorted(ways.items(), key=lambda item: item[1]):
            rule, terminal = rules.get(ends), terminals.get(ends)
            projection = projections[q]
            n_pre, n_post = (n_units(shape_of(self.graph, name)) for name in ends)
            n_weights = np.size(self._weights(q))
            row_length = shape_of(self.graph, ends[1])[2] if isinstance(projection.topology, Convolution) else 0
            number[q] = _numbers_of(rule)
            low, high = number[q, [W_MIN, W_MAX]]
            if n_weights and not (low <= np.min(self._weights(q)) and np.max(self._weights(q)) <= high):
                raise ConfigError(
                    f"rule of {ends[0]} > {ends[1]}: weights begin at {np.min(self._weights(q)):g} to "
                    f"{np.max(self._weights(q)):g}, wanted {low:g} to {high:g}; widen w_min and w_max or clip them"
                )
            place[q] = 0
            place[q, [FIRST_PRE, FIRST_POST, FIRST_FAST, FIRST_ROW]] = n_pre_all, n_post_all, n_fast, n_rows
            place[q, [RULE, N_PRE]] = NUMBERS[type(rule)] if rule is not None else STATIC, n_pre
            place[q, HAS_SHORT_TERM] = terminal is not None
            place[q, HAS_SCALING] = ends in scaling
            if ends in surrounds:
                height, width, channels = shape_of(self.graph, ends[0])
                surround[q] = surrounds[ends]
                place[q, HAS_SURROUND] = 1
                place[q, [FIRST_SITE, SITES_Y, SITES_X, SITE_CHANNELS]] = n_sites, height, width, channels
                n_sites += height * width
            number[q, [SCALED_MIN, SCALED_MAX]] = low, high
            if ends in scaling:
                number[q, SCALED_MIN] = max(low, scaling[ends].w_min)
                number[q, SCALED_MAX] = min(high, scaling[ends].w_max)
            rate, sliding = 0.0, 0.0
            if isinstance(rule, Hebbian):
                place[q, [FORM, POST_TERM]] = FORMS[rule.mixed], POST_TERMS[rule.post]
                rate, sliding = rule.local_rate, rule.sliding_threshold
                part = rule.mask if rule.mixed == "mask" else rule.mixing if rule.mixed == "blend" else None
                if part is not None:
                    part = np.broadcast_to(np.asarray(part, np.float64), np.shape(self._weights(q)))
                    while sum(map(len, parts["share"])) < n_fast:
                        parts["share"].append(np.zeros(n_fast - sum(map(len, parts["share"]))))
                    parts["share"].append(part.reshape(-1))
            subject = f"rule of {ends[0]} > {ends[1]}"
            parts["rate"].append(_spread(rate, n_pre, subject))
            parts["sliding"].append(_spread(sliding, n_post, subject))
            columns = [_spread(value, n_pre, subject) for value in (terminal or ShortTerm())]
            parts["terminal"].append(np.stack(columns, axis=1))
            n_pre_all, n_post_all = n_pre_all + n_pre, n_post_all + n_post
            if isinstance(rule, Hebbian | RewardSTDP):
                n_fast += n_weights
                n_rows += n_weights // row_length if row_length else n_pre
            else:
                n_rows += n_weights // row_length if row_length else n_pre
            self._program.projection[q, PLASTIC] = 1
            # the Hebbian rule asks for potentials, not for who fired
            if (rule is not None and not isinstance(rule, Hebbian)) or ends in scaling:
                self._program.population[self._program.projection[q, TARGET], LOGGED] = 1
        front = self._program.front
        targets = {int(self._program.projection[q, TARGET]) for q in ways.values()}
        if front >= 0 and int(self._program.projection[front, TARGET]) in targets:
            self._program = self._program._replace(front=-1)  # the fast loop neither writes a log nor reads a rule
        for row in self._program.population:
            ways_out = self._program.links[row[DIRECT] : row[DIRECT_END]]
            if np.any(self._program.projection[ways_out, PLASTIC]):
                row[IS_READ] = 0
        real = self._program.weight.dtype.type

        def joined(name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
            return np.concatenate([np.zeros(shape), *parts[name]])

        renew_us = np.full(n_populations, 2**60, np.int64)
        for q in ways.values():
            p = self._program.projection[q, TARGET]
            tau_us = number[q, TAU_X]
            if np.isfinite(tau_us):
                renew_us[p] = min(renew_us[p], int(RENEW_AFTER_TAUS * tau_us))
        self._ways = ways
        self._rules = rules
        self._terminals = terminals
        self._table = Table(
            place,
            number,
            renew_us,
            joined("rate", (0,)).astype(real),
            aligned(joined("sliding", (0,)).astype(real)),
            joined("share", (0,)).astype(real),
            np.ascontiguousarray(joined("terminal", (0, 5))),
            surround,
        )
        n_all = len(self.state.v)
        longest = int(max(self._program.population[:, UNITS]))
        self._memory = Memory(
            x=np.zeros((2, n_pre_all)),
            x_us=np.zeros(n_pre_all, np.int64),
            seen=np.zeros(n_pre_all, np.int64),
            y=np.zeros((2, n_post_all), real),
            y_us=np.zeros(n_ways, np.int64),
            consumed=np.zeros(n_ways, np.int64),
            note=np.zeros((n_ways, 2, ROOM)),
            value=np.zeros((n_populations, ROOM)),
            fast=aligned(np.zeros(n_fast, real)),
            fast_us=np.zeros(n_rows, np.int64),
            fatigue=np.ones((n_pre_all, 2)),
            support=np.zeros(n_sites),
            surround_us=np.zeros((n_ways, 2), np.int64),
            pool=np.zeros(n_ways),
            signal=np.zeros((SIGNALS, n_all), real),
            late=np.zeros((n_pre_all, 2), np.int64),
            owed=np.zeros(n_pre_all),
            is_late=np.zeros(n_pre_all, np.int64),
            row=aligned(np.zeros((3, longest), real)),
        )
        self.state = self.state._replace(
            log_us=np.zeros((n_populations, ROOM), np.int64), log_unit=np.zeros((n_populations, ROOM), np.int64)
        )
        self._n_signals = 0
        self._cycles = self._cycles_of(rules, scaling, thresholds)
        self._due_us = np.zeros(len(self._cycles), np.int64)
        self._targets = np.full(len(self._cycles), -1, np.int64)
        n_cycled = self._cycles[-1].units.stop if self._cycles else 0
        self._rates, self._fired = np.zeros(n_cycled), np.zeros(n_cycled, np.int64)
        self._resets_local = reset_local
        self._is_graded = graded
        self._strength = NOTHING
        self._rest_at(0)

    def _cycles_of(
        self,
        rules: Mapping[Ends, Rule],
        scaling: Mapping[Ends, SynapticScaling],
        thresholds: Mapping[str, Homeostasis],
    ) -> list[Cycle]:
        """List what comes again, in the order in which it happens when it comes together."""
        found: list[tuple[Any, str, int]] = []
        for name, threshold in thresholds.items():
            _check_rule((name, name), threshold)
            if name not in self._names:
                raise ConfigError(f"Homeostasis of {name}: there is no such population")
            p = self._names.index(name)
            row = self._program.population[p]
            if row[CROSSES] or row[MODEL] not in (LIF, INTEGRATE_FIRE, ADAPTIVE_LIF):
                raise ConfigError(
                    f"Homeostasis of {name}: its units may fire between events, or not at all; use LIFUnits, "
                    f"IntegrateFireUnits without drive, or AdaptiveLIFUnits that fire at events"
                )
            row[UNIFORM] = 0
            if self._program.front >= 0 and self._program.projection[self._program.front, TARGET] == p:
                self._program = self._program._replace(front=-1)
            found.append((threshold, name, -1))
        local: dict[str, Decolle] = {}
        for (source, target), rule in rules.items():
            if not isinstance(rule, Decolle):
                continue
            others = [it for ends, it in rules.items() if ends[1] == target and isinstance(it, ErrorModulated)]
            if others or local.get(target, rule) != rule:
                raise ConfigError(
                    f"Decolle of {source} > {target}: a population has one loss; give all its projections the same "
                    f"Decolle, and none ErrorModulated"
                )
            if target not in local:
                found.append((rule, target, -1))
            local[target] = rule
        found += [(it, ends[1], self._ways[ends]) for ends, it in scaling.items()]
        cycles, n_all = [], 0
        for rule_of, name, q in found:
            p = self._names.index(name)
            if name not in self.outputs:
                raise ConfigError(f"{type(rule_of).__name__} of {name}: its units never fire, so they have no rate")
            n = int(self._program.population[p, UNITS])
            readout = local_readout(rule_of, n) if isinstance(rule_of, Decolle) else np.zeros((0, n))
            cycles.append(Cycle(rule_of, name, p, q, slice(n_all, n_all + n), readout))
            n_all += n
        return cycles

    def _check_topology(self, ends: Ends, projection: Projection, rule: Rule | None) -> None:
        it = projection.topology
        subject = f"rule of {ends[0]} > {ends[1]}"
        if not isinstance(it, Dense | Sparse | Convolution | OneToOne):
            raise ConfigError(f"{subject}: a {type(it).__name__} has one number for all; join them by Dense or Sparse")
        if isinstance(it, OneToOne) and np.ndim(it.weight) == 0:
            raise ConfigError(f"{subject}: its one weight stands for all units; give OneToOne a weight for each")
        if isinstance(it, Convolution) and it.groups != 1:
            raise ConfigError(f"{subject}: a convolution with {it.groups} groups; one projection for each group learns")
        if isinstance(rule, Hebbian) and rule.post == "softmax" and not isinstance(it, Dense):
            raise ConfigError(f"{subject}: softmax is over all units that a spike reaches; that wants Dense")

    def _weights(self, q: int) -> NDArray[Any]:
        match self.graph.projections[q].topology:
            case Dense(weight) | Convolution(weight) | OneToOne(weight) | Sparse(weight=weight):
                return np.asarray(weight)
            case _:
                return np.zeros(0)

    # -- running -------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Compile every kernel; the state is afterwards what it was."""
        kept = self.snapshot()
        super().warm_up()
        self.restore(kept)

    def _run(self, spikes: NDArray[np.void], first: int, until_us: int) -> tuple[int, int, int]:
        strength = self._strength
        return plastic_run(
            self._program, self.state, self._table, self._memory, spikes, strength, first, until_us, self._out
        )

    def _advance(self, spikes: NDArray[np.void], until_us: int) -> dict[str, NDArray[np.void]]:
        if not self._cycles:
            return super()._advance(spikes, until_us)
        until_us = max(until_us, int(self._clock[DONE_US]))
        parts: list[dict[str, NDArray[np.void]]] = []
        # what is due at a time happens when time goes on from there: nothing can come before it any more. Once a
        # period Python is entered, for some 20 us
        while (due_us := int(self._due_us.min())) < until_us:
            k = int(np.searchsorted(spikes["t"], due_us, side="right"))
            parts.append(self._counted(super()._advance(spikes[:k], due_us)))
            spikes, self._strength = spikes[k:], self._strength[k:]
            for c in np.flatnonzero(self._due_us == due_us):
                self._come_round(int(c))
        parts.append(self._counted(super()._advance(spikes, until_us)))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _counted(self, fired: dict[str, NDArray[np.void]]) -> dict[str, NDArray[np.void]]:
        """Take spikes into what cycles keep of them, one by one, so that it does not matter how they come."""
        for c, cycle in enumerate(self._cycles):
            spikes = fired[cycle.subject]
            if isinstance(cycle.rule, Decolle):
                age_us = self._due_us[c] - spikes["t"]
                np.add.at(self._rates[cycle.units], spikes["unit"], np.exp(-age_us / cycle.rule.tau_readout_us))
            else:
                np.add.at(self._fired[cycle.units], spikes["unit"], 1)
        return fired

    def _come_round(self, c: int) -> None:
        cycle, program = self._cycles[c], self._program
        rule, rates, fired = cycle.rule, self._rates[cycle.units], self._fired[cycle.units]
        self._due_us[c] += rule.period_us
        if isinstance(rule, Decolle):
            if self._targets[c] >= 0:
                self.signal(cycle.subject, local_signal(cycle.readout, rates, int(self._targets[c])))
            rates *= math.exp(-rule.period_us / rule.tau_readout_us)
            return
        follow_rate(rates, fired, rule.tau_rate_us, rule.period_us)
        fired.fill(0)
        row = program.population[cycle.population]
        units = slice(int(row[FIRST]), int(row[FIRST] + row[UNITS]))
        if isinstance(rule, Homeostasis):
            theta = program.theta[units].astype(np.float64) + self._rest[units]
            move_thresholds(theta, rates, rule)
            down = program.down[units] if row[HARD] else theta - (program.theta[units] - program.down[units])
            program.theta[units], program.down[units] = theta - self._rest[units], down
            return
        topology = self.graph.projections[cycle.projection].topology
        if isinstance(topology, Convolution):
            n_channels = shape_of(self.graph, cycle.subject)[2]
            rates = np.tile(rates.reshape(-1, n_channels).mean(axis=0), len(rates) // n_channels)
        self._note_signal(cycle.population, scaling_factors(rates, rule), 1.0 + cycle.projection)

    def target(self, population: str, label: int | None) -> None:
        """Set what the local readout of a population (``Decolle``) should answer from now on; None: do not learn.

        Raises
        ------
        ConfigError
            If the population has no local readout, or that no such class.
        """
        for c, cycle in enumerate(self._cycles):
            if isinstance(cycle.rule, Decolle) and cycle.subject == population:
                if label is not None and not 0 <= label < cycle.rule.n_classes:
                    raise ConfigError(f"target of {population}: got {label}, wanted 0 to {cycle.rule.n_classes - 1}")
                self._targets[c] = -1 if label is None else label
                return
        raise ConfigError(f"target of {population}: no projection that leads there has the rule Decolle")

    def local_scores(self, population: str) -> NDArray[np.float64]:
        """Return what the local readout of a population (``Decolle``) answers at the time run up to."""
        for c, cycle in enumerate(self._cycles):
            if isinstance(cycle.rule, Decolle) and cycle.subject == population:
                ahead_us = float(self._due_us[c] - self._clock[DONE_US])
                trace = self._rates[cycle.units] * math.exp(ahead_us / cycle.rule.tau_readout_us)
                scores: NDArray[np.float64] = cycle.readout @ trace
                return scores
        raise ConfigError(f"scores of {population}: no projection that leads there has the rule Decolle")

    def run(
        self, items: NDArray[np.void], until_us: int | None = None, amplitude: NDArray[Any] | None = None
    ) -> dict[str, NDArray[np.void]]:
        """Do as ``Network.run``.

        Parameters
        ----------
        items, until_us
            As there.
        amplitude
            Real, shape (n,): how strong each item is, in place of 1; for a network that is ``graded``.

        Raises
        ------
        StreamError
            As there, and if amplitudes do not fit the items.
        """
        if amplitude is not None:
            amplitude = np.asarray(amplitude, np.float64)
            if not self._is_graded or amplitude.shape != items.shape or not np.isfinite(amplitude).all():
                raise StreamError(
                    f"network: got amplitudes of shape {amplitude.shape}, wanted a finite number for each of "
                    f"{len(items)} items, and PlasticNetwork.of(..., graded=True)"
                )
            self._strength = np.ascontiguousarray(amplitude)
        try:
            return super().run(items, until_us)
        finally:
            self._strength = NOTHING

    def _lengthen_log(self) -> None:
        super()._lengthen_log()
        more = self.state.log_us.shape[1] - self._memory.value.shape[1]
        self._memory = self._memory._replace(
            note=np.pad(self._memory.note, [(0, 0), (0, 0), (0, more)]),
            value=np.pad(self._memory.value, [(0, 0), (0, more)]),
        )

    def _rest_at(self, t_us: int) -> None:
        super()._rest_at(t_us)
        if not hasattr(self, "_memory"):
            return
        memory = self._memory
        for array in (memory.x, memory.y, memory.consumed, memory.seen, memory.late, memory.owed, memory.is_late):
            array.fill(0)
        memory.y_us.fill(t_us)
        self._n_signals = 0
        self._fired.fill(0)
        for c, cycle in enumerate(self._cycles):
            self._due_us[c] = t_us + cycle.rule.period_us
            if isinstance(cycle.rule, Decolle):
                self._rates[cycle.units] = 0.0
        if self._resets_local or self._clock[DONE_US] == BEFORE_ALL_US:
            memory.fast.fill(0)
            memory.fast_us.fill(t_us)
            memory.x_us.fill(t_us)  # a tired terminal recovers from its last spike on
            memory.fatigue[:, 0] = 1.0
            memory.fatigue[:, 1] = self._table.terminal[:, 2]
            memory.support.fill(0)
            memory.surround_us.fill(t_us)
            usual = Surround._make(self._table.surround.T)
            memory.pool[:] = usual.rate_hz * usual.tau_pool_us * 1e-6  # as busy as usual

    def _start(self, t_us: int) -> None:
        for p in range(len(self._names)):  # what is noted has happened
            if self._program.population[p, LOGGED]:
                renew(self._program, self.state, self._table, self._memory, p)
        super()._start(t_us)

    def reward(self, value: float, population: str | None = None) -> None:
        """Reward all synapses, or those that lead to one population, at the time run up to."""
        for p, name in enumerate(self._names):
            if self._program.population[p, LOGGED] and population in (None, name):
                self._note(p, REWARD, float(value))

    def signal(self, population: str, error: NDArray[Any]) -> None:
        """Send a learning signal to a population at the time run up to.

        Parameters
        ----------
        population
            Its name.
        error
            Shape of the population: positive where the potential should have been lower.
        """
        p = self._names.index(population)
        row = self._program.population[p]
        units = slice(int(row[FIRST]), int(row[FIRST] + row[UNITS]))
        theta = self._program.theta[units] + self._rest[units].astype(self.state.v.dtype)
        distance = np.abs(self.potentials(population).reshape(-1) - theta)
        widths = [
            rule.width
            for ends, rule in self._rules.items()
            if ends[1] == population and isinstance(rule, ErrorModulated | Decolle)
        ]
        if len(set(widths)) != 1:
            raise ConfigError(f"signal to {population}: got widths {widths} of its ErrorModulated rules, wanted one")
        error = np.asarray(error, self.state.v.dtype).reshape(-1)
        self._note_signal(p, np.where(distance < widths[0], error, 0), 0.0)

    def _note_signal(self, p: int, values: NDArray[Any], kind: float) -> None:
        """Note a number for each unit of a population; ``kind``: see ``plasticity.rules``."""
        row = self._program.population[p]
        units = slice(int(row[FIRST]), int(row[FIRST] + row[UNITS]))
        if self._n_signals == SIGNALS:
            for other in range(len(self._names)):
                if self._program.population[other, LOGGED]:
                    renew(self._program, self.state, self._table, self._memory, other)
            self._n_signals = 0
        self._memory.signal[self._n_signals, units] = values
        self._note(p, FIRST_SIGNAL - self._n_signals, kind)
        self._n_signals += 1

    def _note(self, p: int, unit: int, value: float) -> None:
        while self.state.progress[p, N_LOG] >= self.state.log_us.shape[1]:
            self._lengthen_log()
        note(self.state, self._memory, p, int(self._clock[0]), unit, value)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _renewed(self) -> tuple[Any, Memory]:
        """Return copies of the weights and the rules' memory with nothing left to be done."""
        program = self._program._replace(weight=self._program.weight.copy())
        memory = Memory(**{name: array.copy() for name, array in self._memory._asdict().items()})
        state = self.state._replace(progress=self.state.progress.copy())
        for p in range(len(self._names)):
            if program.population[p, LOGGED]:
                renew(program, state, self._table, memory, p)
        return program.weight, memory

    def weights(self, source: str, target: str) -> NDArray[Any]:
        """Return the weights of a projection at the time run up to, in the shape they were given; changes nothing."""
        q = self._ways[source, target]
        weight, _ = self._renewed()
        shape = np.shape(self._weights(q))
        first = int(self._program.projection[q, WEIGHT])
        values: NDArray[Any] = weight[first : first + math.prod(shape)].reshape(shape)
        return values

    def hebb(self, source: str, target: str) -> NDArray[Any]:
        """Return the fast changes of a Hebbian projection at the time run up to; real, shape of its weights."""
        q = self._ways[source, target]
        place, weight = self._table.place[q], self._weights(q)
        n_rows = int(place[N_PRE])
        if isinstance(self.graph.projections[q].topology, Convolution):
            n_rows = weight.size // weight.shape[-1]
        rows = slice(int(place[FIRST_ROW]), int(place[FIRST_ROW]) + n_rows)
        age_us = int(self._clock[DONE_US]) - self._memory.fast_us[rows]
        left = np.exp(-np.maximum(age_us, 0) / self._table.number[q, TAU_FAST])
        topology = self.graph.projections[q].topology
        lengths = np.diff(topology.row_start) if isinstance(topology, Sparse) else weight.size // n_rows
        first = int(place[FIRST_FAST])
        values: NDArray[Any] = self._memory.fast[first : first + weight.size] * np.repeat(left, lengths)
        return values.astype(self._program.weight.dtype).reshape(weight.shape)

    def learned(self) -> Graph:
        """Return the network with the weights, and the thresholds of homeostasis, as they are now."""
        projections = list(self.graph.projections)
        for (source, target), q in self._ways.items():
            weight = self.weights(source, target)
            topology: Any = projections[q].topology
            projections[q] = projections[q]._replace(topology=topology._replace(weight=weight))
        populations = list(self.graph.populations)
        for cycle in self._cycles:
            if isinstance(cycle.rule, Homeostasis):
                p = cycle.population
                model: Any = populations[p].model
                thresholds = self.thresholds(cycle.subject)
                populations[p] = populations[p]._replace(model=model._replace(v_threshold=thresholds))
        return self.graph._replace(projections=projections, populations=populations)

    def thresholds(self, population: str) -> NDArray[np.float64]:
        """Return the thresholds of a population as they are now, float64, in its shape."""
        row = self._program.population[self._names.index(population)]
        units = slice(int(row[FIRST]), int(row[FIRST] + row[UNITS]))
        return (self._program.theta[units] + self._rest[units]).reshape(shape_of(self.graph, population))

    # -- the contract --------------------------------------------------------------------------------------------------

    def _kept(self) -> Snapshot:
        kept = super()._kept()
        memory = self._memory
        names = (
            *("x", "x_us", "seen", "y", "y_us", "consumed", "fast", "fast_us", "fatigue", "late", "owed", "is_late"),
            *("support", "surround_us", "pool"),
        )
        cycles = {} if not self._cycles else {
            "due_us": self._due_us, "targets": self._targets, "rates": self._rates, "fired": self._fired,
            "theta": self._program.theta, "down": self._program.down,
        }  # fmt: skip
        return kept | {name: getattr(memory, name) for name in names} | {"weight": self._program.weight} | cycles

    def _notes(self, n: int) -> Snapshot:
        """Return views of the first n notes of each log."""
        state, memory = self.state, self._memory
        return {
            "log_us": state.log_us[:, :n],
            "log_unit": state.log_unit[:, :n],
            "value": memory.value[:, :n],
            "note": memory.note[:, :, :n],
        }

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state, notes that rows have still to go through included."""
        n_log = self.state.progress[:, N_LOG]
        notes = {name: array.copy() for name, array in self._notes(int(n_log.max())).items()}
        for p in range(len(self._names)):  # what stood there before counts for nothing
            for name in ("log_us", "log_unit", "value"):
                notes[name][p, n_log[p] :] = 0
        notes["value"][notes["log_unit"] >= 0] = 0  # a spike has none
        for q, n in enumerate(self._memory.consumed):
            notes["note"][q, :, n:] = 0
        late = self._memory.late.copy()
        late[self.state.book[N_LATE] :] = 0
        return super().snapshot() | notes | {"signal": self._memory.signal[: self._n_signals].copy(), "late": late}

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another network."""
        snapshot = dict(snapshot)
        given = {name: np.asarray(snapshot.pop(name, np.zeros(()))) for name in (*self._notes(0), "signal")}
        n = given["log_us"].shape[-1] if given["log_us"].ndim else -1
        wanted = {name: (*array.shape[:-1], n) for name, array in self._notes(0).items()}
        n_signals = given["signal"].shape[0] if given["signal"].ndim else -1
        wanted["signal"] = (n_signals, self._memory.signal.shape[1])
        for name, shape in wanted.items():
            if given[name].shape != shape or n < 0 or n_signals > SIGNALS:
                raise ConfigError(f"snapshot of a PlasticNetwork: {name} has shape {given[name].shape}, wanted {shape}")
        super().restore(snapshot)
        while self.state.log_us.shape[1] < n:
            self._lengthen_log()
        for name, array in self._notes(n).items():
            array[...] = given[name]
        self._memory.signal[:n_signals] = given["signal"]
        self._n_signals = n_signals
        self.state.book[N_LATE] = np.count_nonzero(self._memory.is_late)


def with_weights(network: PlasticNetwork) -> Graph:
    """Return a network's graph with the weights of its tables: what steps have made of them, without what rules owe."""
    program, projections = network._program, list(network.graph.projections)
    for q, it in enumerate(projections):
        topology: Any = it.topology
        if has_weights(topology):
            first, size = int(program.projection[q, WEIGHT]), np.size(topology.weight)
            weight = program.weight[first : first + size].reshape(np.shape(topology.weight)).copy()
            projections[q] = it._replace(topology=topology._replace(weight=weight))
    return network.graph._replace(projections=projections)
