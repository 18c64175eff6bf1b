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

With ``deploy_every`` the learner has an output ``forward``: its input passed on, with ``Deploy`` marks that carry the
weights for whoever computes the same network elsewhere (``chip.node``). They stand right after a ``Reset``: at the
first one, after ``deploy_every`` corrections, and before anything that may not be learned from, if something changed.
A layer with a Hebbian rule is deployed as its synapses weigh there, fast change included; with ``deploy_rules`` the
slow weights go out by themselves, and with them the first layer's local rule, for a chip that carries it out.

With ``teach`` the readout begins with one class, of which nothing is known, and is taught by ``Show`` marks, at every
event; ``Forget``, ``Correct`` and loaded prototypes act on it as ``plasticity.teaching`` has them. A class that is new
makes the readout grow by a column. What was taught is deployed where a lesson ends. It fades with ``teach_tau_us``,
unless corrections, at label marks as above, ``consolidate`` it: they move it into the weights. They may learn by
gradients beside that; ``learn = []`` leaves those out.
"""

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import load_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import DONE_US, N_ITEMS, Precision
from neurons.program import N_TAPE, WEIGHT
from plasticity.adam import adam_step, new_adam
from plasticity.beside import Beside, Step, lift
from plasticity.correction import N_BACK, Form, GlobalCorrection, Learned, Loss, Optimiser
from plasticity.deployment import rule_arrays
from plasticity.hebbian import Hebbian
from plasticity.plastic_network import PlasticNetwork, Rule, read_rules
from plasticity.short_term import ShortTerm
from plasticity.surround import Surround
from plasticity.table import (
    FIRST_FAST,
    FIRST_POST,
    FIRST_PRE,
    FIRST_ROW,
    HAS_SHORT_TERM,
    HAS_SURROUND,
    MIXING,
    N_PRE,
    TAU_FAST,
)
from plasticity.teaching import (
    IN_FORCE,
    KEPT,
    LAID_US,
    LEFT,
    LESSON_OF,
    PROTOTYPE,
    bare,
    check_readout,
    fade,
    fitted,
    new_lessons,
    scaled,
    taught_rule,
    widened,
)
from plasticity.window import Surrogate
from stream.errors import ConfigError, StreamError
from stream.operator import Emit, Snapshot, check_shapes
from stream.packet import SPIKE_DTYPE, Correct, Deploy, Forget, Label, Mark, Packet, Reset, Show

__all__ = ["NetworkLearner"]

MOST_FIELDS, MOST_SIDE = 24, 48  # units and pixels a side that a viewer is shown
N_RECENT = 100  # taught labels that the running accuracy and loss look back on
# places of the counts
IS_TEACHING, N_LABELS, N_SUMMED, NEXT_US, N_CUT, N_DEPLOYED, N_SINCE_DEPLOY, HAS_DRIFTED, N_IN_FORCE = range(9)
STEPPED_AT, N_COUNTS = 9, 10  # items that had come at the last step


class Teaching(NamedTuple):
    """How a readout is taught; see ``NetworkLearner``."""

    most_classes: int
    rate: float
    gain: float
    bind: float
    tau_us: float
    consolidate: float


def check_teaching(
    teaching: Teaching, graph: Graph, readout: str, rules: Mapping[tuple[str, str], Rule]
) -> tuple[str, str]:
    """Return the ends of the projection that is taught; ConfigError if it cannot be."""
    if teaching.most_classes < 1 or not teaching.rate > 0 or not teaching.gain > 0 or not 0 <= teaching.bind < 80:
        raise ConfigError(
            f"teach: got {teaching}; wanted most_classes of 1 or more, rate and gain above 0, bind from 0 to 80"
        )
    if not teaching.tau_us > 0 or not 0 <= teaching.consolidate <= 1:
        raise ConfigError(
            f"teach: got teach_tau_us of {teaching.tau_us:g}, consolidate of {teaching.consolidate:g}; wanted a time "
            f"above 0, in us, and a share from 0 to 1"
        )
    ends = check_readout(graph, readout)
    if ends in rules:
        raise ConfigError(f"teach: the projection {ends[0]} > {ends[1]} has a rule already; leave it to the teaching")
    return ends


class NetworkLearner(PlasticNetwork):
    """A plastic network under global correction.

    Parameters
    ----------
    path, rules, readout, precision, reset_local
        As for ``plasticity.plastic_network.PlasticNetwork``; a readout is needed.
    learn, held, loss, output, tau_us, gain, form, surrogate, width, optimiser, weight_rate, meta_rate, longest
        As for ``plasticity.correction.GlobalCorrection``.
    window_events
        As for ``plasticity.correction.GlobalCorrection``.
    rate_hz, rate_strength, weight_bits
        As for ``plasticity.correction.GlobalCorrection``.
    correction_period_us
        0: a step at each taught label. Else: at the first one at or after each multiple of it, with the mean gradient
        since the last step, us.
    correction_events
        0, or: a step only at the first taught label after so many more events.
    deploy_every
        Corrections between two deployments; 0: none, and no output ``forward``. What is deployed is a chain of dense
        layers of leaky units that ends in the readout.
    deploy_rules
        Deploy weights and the first layer's local rule apart, instead of what they amount to now.
    hold_back
        Every so many-th taught label is not learned from but judged; 0: none is.
    margin, judge_labels
        When what those labels cost has become so much worse, what is learned goes back to its best; as for
        ``GlobalCorrection``.
    beside_us
        Corrections run in a thread beside the stream, and come into force at the first ``Reset`` or ``Label`` that is
        at least so much stream time behind the label that asked for them, us (``plasticity.beside``). -1: at the label
        itself, which then takes as long.
    teach
        Whether the readout is taught by showing, and grows. It is the last population, reached by one dense projection;
        what the file knows of classes is left out.
    most_classes
        How far it may grow.
    teach_rate
        What a spike of a feature adds to the column of the class that is shown.
    teach_gain
        Length of a column.
    bind
        What showing a class adds to its postsynaptic term.
    teach_tau_us
        How long what was taught lasts by itself: the time constant of its trace, us. inf: for ever.
    consolidate
        Share of the trace that each correction moves into the weights, where it lasts; 0: none.

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
        reset_local: bool = True,
        learn: tuple[Learned, ...] = ("weights", "rules"),
        held: tuple[str, ...] = (),
        loss: Loss = "cross_entropy",
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
        correction_period_us: int = 0,
        correction_events: int = 0,
        deploy_every: int = 0,
        deploy_rules: bool = False,
        window_events: int = 65_536,
        rate_hz: float = 20.0,
        rate_strength: float = 0.0,
        weight_bits: int = 0,
        hold_back: int = 0,
        margin: float = np.inf,
        judge_labels: int = 10,
        beside_us: int = -1,
        teach: bool = False,
        most_classes: int = 64,
        teach_rate: float = 0.002,
        teach_gain: float = 1.0,
        bind: float = 10.0,
        teach_tau_us: float = np.inf,
        consolidate: float = 0.0,
    ) -> None:
        graph = load_graph(Path(path))
        learning, terminals, surrounds = read_rules(rules or [])
        self._assemble(
            bare(graph, readout) if teach else graph,
            readout,
            precision,
            learning,
            terminals,
            surrounds,
            reset_local,
            Teaching(most_classes, teach_rate, teach_gain, bind, teach_tau_us, consolidate) if teach else None,
            correction_period_us,
            correction_events,
            deploy_every,
            beside_us,
            hold_back,
            deploy_rules,
            weight_bits=weight_bits,
            margin=margin,
            judge_labels=judge_labels,
            learn=tuple(learn),
            held=tuple(held),
            loss=loss,
            output=output,
            tau_us=tau_us,
            gain=gain,
            form=form,
            rate_hz=rate_hz,
            rate_strength=rate_strength,
            surrogate=surrogate,
            width=width,
            optimiser=optimiser,
            weight_rate=weight_rate,
            meta_rate=meta_rate,
            longest=longest,
            window_events=window_events,
        )

    def _assemble(
        self,
        graph: Graph,
        readout: str,
        precision: Precision,
        rules: dict[tuple[str, str], Rule],
        terminals: dict[tuple[str, str], ShortTerm],
        surrounds: dict[tuple[str, str], Surround],
        reset_local: bool,
        teaching: Teaching | None,
        correction_period_us: int,
        correction_events: int,
        deploy_every: int,
        beside_us: int,
        hold_back: int,
        deploy_rules: bool = False,
        **options: Any,
    ) -> None:
        """Set everything up; again, for a wider graph, when the readout grows."""
        counts = (
            ("correction_period_us", correction_period_us),
            ("deploy_every", deploy_every),
            ("hold_back", hold_back),
        )
        for name, value in counts:
            if value < 0:
                raise ConfigError(f"{type(self).__name__} {name}: got {value}, wanted 0 or more")
        if teaching is not None and beside_us >= 0:
            raise ConfigError(
                "teach, beside_us: a taught readout changes at marks that steps on their way would not know; correct "
                "at the label (beside_us = -1), or not at all (learn = [])"
            )
        if teaching is not None and teaching.consolidate and options["margin"] < np.inf:
            raise ConfigError(
                "consolidate, margin: what was moved into the weights does not go back to its best; leave one of them"
            )
        self._is_taught = False  # nothing is, while it is set up
        self._parts = (
            readout,
            precision,
            rules,
            terminals,
            surrounds,
            reset_local,
            teaching,
            correction_period_us,
            correction_events,
            deploy_every,
            beside_us,
            hold_back,
            deploy_rules,
        )
        self._options = options
        self._set_up(graph, "event", 1000, readout, precision)
        taught = {}
        if teaching is not None:
            taught = {check_teaching(teaching, graph, readout, rules): taught_rule(teaching.rate, teaching.tau_us)}
        self._set_up_rules(rules | taught, terminals, reset_local, surrounds=surrounds)
        self._period_us, self._deploy_every = int(correction_period_us), int(deploy_every)
        self._every_events = int(correction_events)
        self._deploy_rules = deploy_rules
        self._counts = np.zeros(N_COUNTS, np.int64)
        self._counts[IS_TEACHING] = 1
        self._recent = np.zeros((2, N_RECENT))  # right or wrong; loss
        self._stepped_us: deque[int] = deque(maxlen=256)  # for viewers alone, so no part of a snapshot
        self._chain = self._chain_of_layers() if deploy_every else []
        if deploy_every:
            (port,) = self.inputs.values()
            self.outputs = {"forward": port, **self.outputs}
        self.correction = GlobalCorrection(self, untouched=tuple(taught), **options)
        self._beside: Beside | None = None
        self._beside_us, self._hold_back = int(beside_us), int(hold_back)
        self._is_held_back = False  # whether the label at hand is
        if beside_us >= 0:
            twin = PlasticNetwork.of(
                graph,
                rules=rules,
                terminals=terminals,
                surrounds=surrounds,
                readout=readout,
                precision=precision,
                reset_local=reset_local,
            )
            self._beside = Beside(twin, **options)
        if teaching is not None:
            self._is_taught, self._teaching, self._taught = True, teaching, self._ways[next(iter(taught))]
            self._lessons = new_lessons(int(self._table.place[self._taught, N_PRE]), self._n_classes())
            self._show(-1)

    def warm_up(self) -> None:
        """Compile every kernel: this network's at rest, and a lesson to a network of two units typed as ours are."""
        super().warm_up()
        precision: Precision = "float64" if self._program.weight.dtype == np.float64 else "float32"
        populations = [Population("h", LIFUnits(), (1,)), Population("o", LeakyIntegratorUnits(), (2,))]
        projections = [Projection(INPUT, "h", Dense(np.ones((1, 1)))), Projection("h", "o", Dense(np.ones((1, 2))))]
        twin = PlasticNetwork.of(
            Graph((1,), populations, projections), rules={(INPUT, "h"): Hebbian()}, readout="o", precision=precision
        )
        correction = GlobalCorrection(twin)
        spikes = np.zeros(2, SPIKE_DTYPE)
        spikes["t"] = 1, 2
        twin.run(spikes)
        correction.take(0)
        correction.step()
        weight = self._program.weight[:1].copy()
        adam_step(weight, np.zeros_like(weight), new_adam(weight), 1, 0.0, 1.0, 1.0, -np.inf, np.inf)

    # -- the stream ----------------------------------------------------------------------------------------------------

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Pass a packet on, and run it; StreamError, and nothing passed on, if an event does not fit."""
        super().on_packet(port, packet, emit)
        drifts = not self._resets_local or (self._is_taught and self._teaching.tau_us < np.inf)
        self._counts[HAS_DRIFTED] |= drifts and bool(len(packet.items)) and bool(self._ways)

    def _pass_on(self, packet: Packet, emit: Emit) -> None:
        if self._deploy_every:
            emit("forward", packet)

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Answer, learn, begin the next window; StreamError if a label names no class of ours."""
        is_known = self._is_taught or (isinstance(mark, Label) and 0 <= mark.label < self._n_classes())
        if isinstance(mark, Label) and mark.teach and not is_known:
            raise StreamError(
                f"{type(self).__name__}: label {mark.label} at {mark.t_us} us, wanted 0 to {self._n_classes() - 1}; "
                f"give the readout a unit for each class of the stream"
            )
        if self._is_taught and isinstance(mark, Show | Forget | Correct | Label):
            self._make_room(mark)
        if isinstance(mark, Deploy) and PROTOTYPE in mark.arrays:
            self._load(mark, emit)
            return
        super().on_mark(port, mark, emit)
        if self._is_taught and isinstance(mark, Show | Forget | Correct | Label):
            self._take_lesson(mark, emit)
        if isinstance(mark, Reset | Label) and self._beside is not None:
            while (learned := self._beside.due(mark.t_us)) is not None:
                self.correction.install(*learned)
                self._has_stepped(mark)
        if isinstance(mark, Reset):
            self._counts[IS_TEACHING] = mark.teach
            if self._deploy_every:
                self._deploy_if_due(mark, emit)
        elif isinstance(mark, Label):
            if self._is_due(mark):
                if self._beside is not None:
                    self._beside.step(mark.t_us + self._beside_us)
                else:
                    self.correction.step()
                    if self._is_taught and self._teaching.consolidate:
                        self._consolidate()
                    self._has_stepped(mark)
            self.correction.window.begin()

    def _has_stepped(self, mark: Mark) -> None:
        self._stepped_us.append(mark.t_us)
        self._counts[[N_SINCE_DEPLOY, N_IN_FORCE]] += 1

    def _n_classes(self) -> int:
        return int(np.prod(self.graph.populations[self._readout].shape))

    def _at_label(self, mark: Label) -> None:
        if not (mark.teach and self._counts[IS_TEACHING]) or not self.correction.learns:
            return
        n_labels, every = int(self._counts[N_LABELS]), self._hold_back
        self._is_held_back = every > 0 and n_labels % every == every - 1
        if self._is_held_back or self._beside is not None:
            scores = self.correction.scores()
            loss, d_scores = self.correction.judge(scores, mark.label)
            if self._beside is None:
                self._counts[N_SINCE_DEPLOY] += self.correction.hold_back(loss)
            elif self._is_held_back:
                self._beside.hold_back(loss)
            else:
                self._beside.walk(lift(self.correction.window), d_scores)
        else:
            loss, scores = self.correction.take(mark.label)
        recent = int(self._counts[N_LABELS]) % N_RECENT
        self._recent[:, recent] = int(np.argmax(scores)) == mark.label, loss
        self._counts[N_LABELS] += 1

    def _is_due(self, mark: Label) -> bool:
        has_work = self.correction.learns or (self._is_taught and self._teaching.consolidate > 0)
        if not (mark.teach and self._counts[IS_TEACHING]) or not has_work:
            return False
        if not self._period_us and not self._every_events:
            return not self._is_held_back
        n_events = int(self._clock[N_ITEMS])
        if n_events < self._counts[STEPPED_AT] + self._every_events:
            return False
        if mark.t_us < self._counts[NEXT_US]:
            return False
        if self._period_us:
            self._counts[NEXT_US] = (mark.t_us // self._period_us + 1) * self._period_us
        self._counts[STEPPED_AT] = n_events
        return True

    # -- teaching ------------------------------------------------------------------------------------------------------

    def _columns(self) -> NDArray[Any]:
        """Return a view of the taught readout's hebb: real, shape (n_features, n_classes)."""
        n_features, n_classes = self._lessons.prototype.shape
        first = int(self._table.place[self._taught, FIRST_FAST])
        view: NDArray[Any] = self._memory.fast[first : first + n_features * n_classes].reshape(n_features, n_classes)
        return view

    def _show(self, label: int) -> None:
        """Let the rule write for a class from here on; -1: let it write nothing."""
        place, table = self._table.place[self._taught], self._table
        pre = slice(int(place[FIRST_PRE]), int(place[FIRST_PRE] + place[N_PRE]))
        sliding = table.sliding[int(place[FIRST_POST]) : int(place[FIRST_POST]) + self._n_classes()]
        table.local_rate[pre] = self._teaching.rate if label >= 0 else 0.0
        sliding[:] = 0.0
        if label >= 0:
            sliding[label] = -self._teaching.bind
        self._lessons.book[IN_FORCE] = label

    def _gather(self, t_us: int) -> None:
        """Take what the rule has written into the prototypes, and see at a mark what is left of the columns."""
        lessons, columns = self._lessons, self._columns()
        tau_us, age_us = self._teaching.tau_us, t_us - int(lessons.book[LAID_US])
        shown = int(lessons.book[IN_FORCE])
        if shown >= 0:
            laid = np.exp(-max(0, age_us) / tau_us) * self._laid()[:, shown].astype(np.float64)
            # a row that has nearly faded was brought to a time of its own
            of_row = np.exp(-np.maximum(0, t_us - self._rows_us()) / tau_us)
            gained = (of_row * columns[:, shown].astype(np.float64) - laid) / self._teaching.rate
            lessons.prototype[:, shown] += gained
            lessons.lesson[:] += gained
        lessons.left[:] = fade(lessons.left, age_us, tau_us)
        if shown >= 0:
            lessons.left[shown] = 1.0
        self._lay_down(t_us)

    def _laid(self) -> NDArray[Any]:
        """Return the columns of hebb as they are laid down at a mark: what the weights lack of those not yet lost."""
        lessons = self._lessons
        columns = scaled(lessons.prototype, self._teaching.gain) - lessons.kept
        laid: NDArray[Any] = np.where(lessons.left > 0, columns, 0.0).astype(self._program.weight.dtype)
        return laid

    def _lay_down(self, t_us: int) -> None:
        """Write the columns of hebb, as of now."""
        self._columns()[...] = self._laid()
        self._rows_us()[:] = t_us
        self._lessons.book[LAID_US] = t_us

    def _rows_us(self) -> NDArray[np.int64]:
        """Return a view of the times at which the rows of hebb are as they are kept: int64, shape (n_features,)."""
        first = int(self._table.place[self._taught, FIRST_ROW])
        view: NDArray[np.int64] = self._memory.fast_us[first : first + len(self._lessons.prototype)]
        return view

    def _consolidate(self) -> None:
        """Move a share of the columns, which were laid down at this mark, into the weights."""
        moved = self._teaching.consolidate * self._laid().astype(np.float64)
        self.correction.add_columns(self._taught, moved)
        self._lessons.kept[...] += moved
        self._lay_down(int(self._lessons.book[LAID_US]))

    def _rest_at(self, t_us: int) -> None:
        """Put everything to rest; what was taught stays."""
        if getattr(self, "_is_taught", False):
            self._gather(t_us)
        super()._rest_at(t_us)
        if getattr(self, "_is_taught", False):
            self._lay_down(t_us)

    def _take_lesson(self, mark: Show | Forget | Correct | Label, emit: Emit) -> None:
        lessons = self._lessons
        self._gather(mark.t_us)
        before = lessons.prototype.copy()
        match mark:
            case Show():
                if mark.label >= 0:
                    lessons.lesson[:] = 0.0
                    lessons.book[LESSON_OF] = mark.label
                self._show(mark.label)
            case Label():
                if lessons.book[IN_FORCE] < 0:
                    features = self.graph.projections[self._taught].source
                    units, _ = self.correction.window.spikes(features)
                    lessons.lesson[:] = np.bincount(units, minlength=len(lessons.lesson))
                    lessons.book[LESSON_OF] = -1
            case Forget():
                if mark.label < self._n_classes():
                    self._empty(mark.label)
                    if lessons.book[LESSON_OF] == mark.label:
                        lessons.book[LESSON_OF] = -1
            case Correct():
                wrong = int(lessons.book[LESSON_OF])
                if wrong >= 0:
                    lessons.prototype[:, wrong] = np.maximum(lessons.prototype[:, wrong] - lessons.lesson, 0.0)
                    lessons.left[wrong] = 1.0
                    if not lessons.prototype[:, wrong].any():
                        self._empty(wrong)
                lessons.prototype[:, mark.label] += lessons.lesson
                lessons.left[mark.label] = 1.0
                lessons.book[LESSON_OF] = mark.label
        self._lay_down(mark.t_us)
        self.correction.window.begin()
        has_changed = not np.array_equal(before, lessons.prototype) or (isinstance(mark, Show) and mark.label < 0)
        if has_changed and not isinstance(mark, Label):
            self._deploy_now(mark, emit)

    def _empty(self, label: int) -> None:
        """Let nothing be known of a class."""
        for array in (self._lessons.prototype, self._lessons.kept, self._lessons.left):
            array[..., label] = 0.0
        self.correction.clear_columns(self._taught, label)

    def _load(self, mark: Deploy, emit: Emit) -> None:
        """Let what was learned elsewhere take the place of what is known."""
        if not self._is_taught:
            raise StreamError(f"{type(self).__name__}: got prototypes at {mark.t_us} us, but its readout is not taught")
        given = {
            name: np.asarray(mark.arrays[name], np.float64) for name in (PROTOTYPE, KEPT, LEFT) if name in mark.arrays
        }
        shape = len(self._lessons.prototype), *given[PROTOTYPE].shape[1:2]
        for name, array in given.items():
            wanted = shape[1:] if name == LEFT else shape
            if len(shape) < 2 or array.shape != wanted or not np.isfinite(array).all():
                raise StreamError(
                    f"{type(self).__name__}: got {name} of shape {array.shape} at {mark.t_us} us, wanted finite "
                    f"ones of {shape[0]} features; load what was learned with the same network"
                )
        n_given = shape[1]
        if n_given > self._n_classes():
            self._grow(n_given, mark.t_us)
        self._until(mark, emit)
        self._gather(mark.t_us)
        lessons = self._lessons
        for label in range(self._n_classes()):
            self._empty(label)
        lessons.prototype[:, :n_given] = given[PROTOTYPE]
        lessons.kept[:, :n_given] = given.get(KEPT, 0.0)
        lessons.left[:n_given] = given.get(LEFT, 1.0)
        self.correction.add_columns(self._taught, lessons.kept)
        lessons.book[LESSON_OF] = -1
        self._lay_down(mark.t_us)
        self.correction.window.begin()
        self._deploy_now(mark, emit)

    def _make_room(self, mark: Show | Forget | Correct | Label) -> None:
        is_needed = not isinstance(mark, Forget) and (mark.teach if isinstance(mark, Label) else True)
        if isinstance(mark, Correct) and mark.label < 0:
            raise StreamError(
                f"{type(self).__name__}: Correct mark of class {mark.label} at {mark.t_us} us, wanted 0 on"
            )
        if is_needed and mark.label >= self._n_classes():
            self._grow(mark.label + 1, mark.t_us)

    def _grow(self, n_classes: int, t_us: int) -> None:
        """Give the readout more columns; everything else goes on as it was."""
        if n_classes > self._teaching.most_classes:
            raise StreamError(
                f"{type(self).__name__}: class {n_classes - 1} at {t_us} us, wanted 0 to "
                f"{self._teaching.most_classes - 1}; forget a class, or raise most_classes"
            )
        n_before, n_features = self._n_classes(), len(self._lessons.prototype)
        kept, stepped_us, origin_ns = self.snapshot(), self._stepped_us, self._origin_ns
        self._assemble(widened(self.graph, n_classes), *self._parts, **self._options)
        fresh = self.snapshot()
        for name, array in kept.items():
            if name == "signal":
                kept[name] = np.pad(array, [(0, 0), (0, n_classes - n_before)])
            elif name not in ("heap", "tape", "taped", "log_us", "log_unit", "value", "note"):
                kept[name] = fitted(array, fresh[name], n_features, n_before, n_classes)
        self._restore(kept)
        self._stepped_us, self._origin_ns = stepped_us, origin_ns

    def taught(self) -> Snapshot:
        """Return what was taught, to be saved (``stream.teach.write_taught``) and loaded elsewhere; changes nothing.

        Returns
        -------
        dict of str to array
            ``taught.prototype`` float32, shape (n_features, n_classes); empty if the readout is not taught. Beside it,
            where it fades or is consolidated, ``taught.kept`` of the same shape and ``taught.left``, (n_classes,).
        """
        if not self._is_taught:
            return {}
        lessons, teaching = self._lessons, self._teaching
        arrays = {PROTOTYPE: lessons.prototype}
        if teaching.tau_us < np.inf or teaching.consolidate:
            age_us = int(self._clock[DONE_US] - lessons.book[LAID_US])
            arrays |= {KEPT: lessons.kept, LEFT: fade(lessons.left, age_us, teaching.tau_us)}
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    # -- deployment ----------------------------------------------------------------------------------------------------

    def _chain_of_layers(self) -> list[int]:
        """Return the projections from the input to the readout, in order."""
        chain: list[int] = []
        source = INPUT
        while source != self._names[self._readout]:
            ways = [q for q, it in enumerate(self.graph.projections) if it.source == source]
            ends = self.graph.projections[ways[0]].target if ways else ""
            model = self.graph.populations[self._names.index(ends)].model if ends else None
            if (
                len(ways) != 1
                or len(chain) > len(self._names)
                or not isinstance(self.graph.projections[ways[0]].topology, Dense)
                or not isinstance(model, LIFUnits | LeakyIntegratorUnits)
                or (self._table.place[ways[0], HAS_SHORT_TERM] > 0 and not (self._deploy_rules and not chain))
                or self._table.place[ways[0], HAS_SURROUND] > 0
            ):
                raise ConfigError(
                    f"deploy_every: what follows '{source}' is not one dense layer of leaky units; a chain of these, "
                    f"up to the readout, can be deployed, its tired terminals with deploy_rules, no surround"
                )
            chain.append(ways[0])
            source = ends
        return chain

    def _deploy_if_due(self, mark: Reset, emit: Emit) -> None:
        counts = self._counts
        has_changed = counts[N_SINCE_DEPLOY] > 0 or counts[HAS_DRIFTED]
        if counts[N_DEPLOYED] == 0 or counts[N_SINCE_DEPLOY] >= self._deploy_every or (not mark.teach and has_changed):
            self._deploy_now(mark, emit)

    def _deploy_now(self, mark: Mark, emit: Emit) -> None:
        if self._deploy_every:
            counts = self._counts
            counts[N_DEPLOYED] += 1
            counts[[N_SINCE_DEPLOY, HAS_DRIFTED]] = 0
            # a reset has just cleared the fast change
            is_cleared = self._resets_local and isinstance(mark, Reset)
            emit("forward", Deploy(mark.t_us, int(counts[N_DEPLOYED]), self._deployed(is_cleared)))

    def _deployed(self, is_cleared: bool) -> Snapshot:
        """Name weights, time constants and thresholds as they are now, layer by layer."""
        weights, memory = self._renewed()
        arrays: Snapshot = {}
        tau_us = {it.name: it.value for it in self.correction.metas}
        for k, q in enumerate(self._chain):
            it = self.graph.projections[q]
            population = self.graph.populations[self._names.index(it.target)]
            rule = self._rules.get((it.source, it.target))
            weight = self._weight_of(q, weights)
            is_taught = self._is_taught and q == self._taught
            if self._deploy_rules and not is_taught:
                if k > 0 and rule is not None:
                    raise ConfigError(f"deploy_rules: layer{k} has a local rule, wanted none but the first layer's")
                arrays |= rule_arrays(self, q, f"layer{k}")
            elif isinstance(rule, Hebbian) and (is_taught or not is_cleared):
                place, number = self._table.place[q], self._table.number[q]
                at = slice(int(place[FIRST_FAST]), int(place[FIRST_FAST]) + weight.size)
                rows = slice(int(place[FIRST_ROW]), int(place[FIRST_ROW]) + weight.shape[0])
                dt_us = int(self._clock[DONE_US]) - memory.fast_us[rows]
                left = np.exp(-dt_us / number[TAU_FAST]).astype(weight.dtype)
                hebb = memory.fast[at].reshape(weight.shape) * left[:, None]
                if rule.mixed == "add":
                    weight = weight + weight.dtype.type(number[MIXING]) * hebb
                else:
                    share = self._table.share[at].reshape(weight.shape)
                    of_hebb = 1 - share if rule.mixed == "blend" else number[MIXING] * (1 - share)
                    weight = (share * weight + of_hebb * hebb).astype(weight.dtype)
            model: Any = population.model
            given = tau_us.get(f"{it.target} tau_mem_us", np.atleast_1d(model.tau_mem_us))
            arrays[f"layer{k}.weight"] = weight
            arrays[f"layer{k}.tau_mem_us"] = np.array(given[0], np.float64)
            if isinstance(model, LIFUnits):
                arrays[f"layer{k}.v_threshold"] = np.array(np.ravel(model.v_threshold)[0], np.float64)
        return arrays

    def _weight_of(self, q: int, weights: NDArray[Any]) -> NDArray[Any]:
        first, shape = int(self._program.projection[q, WEIGHT]), np.shape(self._weights(q))
        return weights[first : first + shape[0] * shape[1]].reshape(shape).copy()

    # -- the contract --------------------------------------------------------------------------------------------------

    def _learned_arrays(self) -> Snapshot:
        """Name what a plain plastic network has not; all but the tape."""
        correction = self.correction
        if self._beside is not None:  # that one steps, and has the moments
            arrays = {f"correction.{it.name}": it.value for it in correction.metas} | self._beside.arrays()
        else:
            arrays = {f"correction.{name}": array for name, array in correction._arrays().items() if name != "weight"}
        if correction.weight is not self._program.weight:
            arrays["correction.weight"] = correction.weight
        arrays |= {f"window.{name}": array for name, array in correction.window._start._asdict().items()}
        adds_up = bool(self._period_us or self._every_events)  # else all gradients are 0 between two labels
        if adds_up and self._beside is None:
            arrays |= {f"gradient.{name}": array for name, array in correction.window.gradients._asdict().items()}
        if self._is_taught:
            arrays |= {f"lessons.{name}": array for name, array in self._lessons._asdict().items()}
        return arrays | {"skip": correction.window._skip, "counts": self._counts, "recent": self._recent}

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state, the tape of the window so far included."""
        n = self.correction.window.n_entries
        learns = self._learning_correction()
        self._counts[[N_SUMMED, N_CUT]] = learns.n_summed, self.correction.window.n_cut
        kept = super().snapshot() | {name: array.copy() for name, array in self._learned_arrays().items()}
        kept |= {"tape": self.state.tape[:n].copy(), "taped": self.state.taped[:n].copy()}
        if self._beside is not None:
            kept |= self._beside.waiting_arrays()
        return kept | {"n_steps": np.array(learns.n_steps, np.int64)}

    def _learning_correction(self) -> GlobalCorrection:
        """Return the correction that takes steps; nothing runs beside the stream any more."""
        if self._beside is None:
            return self.correction
        self._beside.drain()
        return self._beside.correction

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another network.

        A taught readout takes the number of classes that the snapshot has.
        """
        n_classes = np.shape(snapshot.get("lessons.prototype", ()))[-1:]
        if not self._is_taught or not n_classes or n_classes[0] == self._n_classes() or not n_classes[0]:
            self._restore(snapshot)
            return
        if n_classes[0] > self._teaching.most_classes:
            raise ConfigError(
                f"snapshot of NetworkLearner: {n_classes[0]} classes, wanted {self._teaching.most_classes}"
            )
        before = self.graph, self.snapshot()
        try:
            self._assemble(widened(bare(self.graph, self._parts[0]), n_classes[0]), *self._parts, **self._options)
            self._restore(snapshot)
        except ConfigError:
            self._assemble(before[0], *self._parts, **self._options)
            self._restore(before[1])
            raise

    def _restore(self, snapshot: Snapshot) -> None:
        snapshot = dict(snapshot)
        learns = self._learning_correction()
        waiting = self._take_waiting(snapshot)
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
        for it in self.correction.metas:
            it.put(it.value)
        learns.n_steps, learns.n_summed = int(given["n_steps"]), int(self._counts[N_SUMMED])
        if self._beside is not None:
            self._beside.restore(waiting, learns.n_steps, learns.n_summed, Step(*self.correction.result()))
        self.correction.window.n_cut = int(self._counts[N_CUT])
        if n > len(self.state.tape):
            self._lengthen_tape(n)
        self.state.tape[:n], self.state.taped[:n] = tape, taped
        self.state.book[N_TAPE] = n
        if self._is_taught:
            self._show(int(self._lessons.book[IN_FORCE]))

    def _take_waiting(self, snapshot: Snapshot) -> Snapshot:
        """Take steps that are not in force yet out of a snapshot; ConfigError if they are none of ours."""
        if self._beside is None:
            return {}
        wanted = self._beside.waiting_arrays()
        waiting = {name: np.asarray(snapshot.pop(name, np.zeros(()))) for name in wanted}
        n = len(waiting["waiting_us"]) if waiting["waiting_us"].ndim else -1
        for name, array in wanted.items():
            if n < 0 or waiting[name].shape != (n, *array.shape[1:]) or waiting[name].dtype != array.dtype:
                raise ConfigError(
                    f"snapshot of NetworkLearner: {name} is {waiting[name].shape}, wanted {array.shape[1:]}"
                )
        return waiting

    def close(self) -> None:
        """End the thread beside the stream."""
        super().close()
        if self._beside is not None:
            self._beside.close()

    def look(self, what: str) -> Snapshot:
        """Show scores and the times of the last corrections; or, as "weights", receptive fields of some units.

        Returns
        -------
        dict of str to array
            "state": ``scores`` float32 (n_classes,), ``corrections_us`` float64 (up to 256,). "weights": for the first
            dense layer behind an image, ``fields`` and, where a Hebbian rule acts, ``hebb``: float32 (units, height,
            width, 2), units spread evenly over the layer, pixels thinned out to ``MOST_SIDE``.
        """
        if what == "state":
            scores = self.averages(self._names[self._readout]).ravel().astype(np.float32)
            return {"scores": scores, "corrections_us": np.array(self._stepped_us, np.float64)}
        shape = tuple(self.graph.inputs)
        first = next((it for it in self.graph.projections if it.source == INPUT), None)
        if what != "weights" or first is None or not isinstance(first.topology, Dense) or len(shape) != 3:
            return {}
        q = self.graph.projections.index(first)
        weight = self._weight_of(q, self._program.weight)
        units = np.unique(np.linspace(0, weight.shape[1] - 1, MOST_FIELDS).astype(int))
        step = -(-max(shape[0], shape[1]) // MOST_SIDE)

        def thinned(values: NDArray[Any]) -> NDArray[np.float32]:
            fields = values[:, units].T.reshape(len(units), *shape)[:, ::step, ::step]
            return np.ascontiguousarray(fields, np.float32)

        fields = {"fields": thinned(weight)}
        if isinstance(self._rules.get((first.source, first.target)), Hebbian):
            fields["hebb"] = thinned(self.hebb(first.source, first.target).reshape(weight.shape))
        return fields

    def statistics(self) -> dict[str, float]:
        """Return counts; ``accuracy`` and ``loss`` are those of the last 100 taught labels."""
        recent: NDArray[Any] = self._recent[:, : min(int(self._counts[N_LABELS]), N_RECENT)]
        right, loss = recent.mean(axis=1) if recent.size else (0.0, 0.0)
        return (
            super().statistics()
            | {
                "labels": float(self._counts[N_LABELS]),
                "corrections": float(self._counts[N_IN_FORCE]),
                "classes": float(self._n_classes()),
                "most classes": float(self._teaching.most_classes if self._is_taught else self._n_classes()),
                "accuracy": float(right),
                "loss": float(loss),
                "windows cut": float(self.correction.window.n_cut),
            }
            | self._waits()
            | self._kept_share()
        )

    def _kept_share(self) -> dict[str, float]:
        """Return how much of the columns is in the weights."""
        if not self._is_taught or not self._teaching.consolidate:
            return {}
        lessons = self._lessons
        kept = np.sqrt(np.sum(lessons.kept**2, axis=0))[lessons.prototype.any(axis=0)]
        return {"consolidated": float(kept.mean() / self._teaching.gain) if len(kept) else 0.0}

    def _waits(self) -> dict[str, float]:
        if self._beside is None:
            return {}
        return {
            "waits": float(self._beside.n_waits),
            "waited ms": 1000 * self._beside.waited_s,
            "rolled back": float(self._beside.correction.guard[N_BACK]),
        }
