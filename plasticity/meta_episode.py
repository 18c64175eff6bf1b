"""Episodes: a few labelled shows teach a readout by its local rule, others ask it; and the gradient through all of it.

An *episode* is a stream: shows of known class (supports), then shows to be judged (queries), a ``Reset`` before each,
the fast change ``hebb`` carried along from the first to the last. While a support is shown the readout is taught: the
postsynaptic term of its Hebbian rule sees a large number on top for the right class, as in the authors' few-shot code,
where the label is clamped onto the membrane with w_binding = 10::

    z_j = post(u_j / v_threshold - contrast + bind [j is the label])
    hebb[i, j] <- exp(-dt / tau_hebb) hebb[i, j] + local_rate[i] z_j       at each spike of feature i

With ``post = tanh`` the label's column gains local_rate[i] at each spike of feature i, all others lose
tanh(contrast) local_rate[i]: columns become what sets one class apart, not what all classes share. While a query is
shown nothing is written. A class is a column; classes have no weights of their own (the readout's slow weights stay
as given, 0), so what is learned slowly must serve classes that were never seen.

A class whose supports made many spikes has a long column, which would answer to everything. So each unit of the readout
scales what it hears by the length of its own column, as homeostasis does (and as ``plasticity.teaching`` does live)::

    score_j = average_j * length / sqrt(1 + sum_i hebb[i, j]^2)       hebb as the query finds it; length 0: average_j

Gradient
--------
Between shows all membranes are at rest, so ``hebb`` is all that joins them. Each show leaves its tape; shows are walked
back from the last to the first (``plasticity.window``), and ``mu``, the derivative by ``hebb``, is handed from each to
the one before it. It reaches the features of the supports through what they wrote, without any approximation other than
the surrogate for spikes; the lengths of columns are differentiated too. Checked against automatic differentiation in
``tests/plasticity/test_meta.py``.

A readout of leaky integrators has no threshold: there u / v_threshold is 0, and z depends on the label alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.graph import Graph
from neurons.network import DONE_US, WINDOW_US, Precision
from neurons.program import ANCHOR_US, FIRST, N_TAPE, UNITS
from plasticity.hebbian import Hebbian
from plasticity.loss import cross_entropy
from plasticity.plastic_network import PlasticNetwork, with_weights
from plasticity.replay import Standing
from plasticity.table import FIRST_FAST, FIRST_POST, FIRST_PRE, FIRST_ROW, MIXING, N_PRE, TAU_FAST
from plasticity.window import Surrogate, TapedWindow
from stream.errors import ConfigError
from stream.packet import Message, Packet, Reset

__all__ = ["Episode", "EpisodeNetwork", "Show", "Theta"]


class Show(NamedTuple):
    """What is seen, and of which class it is."""

    items: NDArray[np.void]  # what the network takes, sorted; times from 0 on, below the network's ``span_us``
    label: int  # among the classes of the episode, from 0 on


class Episode(NamedTuple):
    """A lesson and an examination."""

    supports: Sequence[Show]
    queries: Sequence[Show]
    ways: int  # classes: the readout's first so many units


class Theta(NamedTuple):
    """The rule's own parameters, or derivatives by them."""

    mixing: float
    contrast: float
    tau_hebb_us: float
    local_rate: NDArray[np.float64]  # float64, shape (n_features,)


class _Piece(NamedTuple):
    """A show that was run, and what is needed to walk it back."""

    label: int  # -1: a query
    d_average: NDArray[np.float64] | None  # of a query: float64, shape (n_post,), derivative of the loss
    by_column: NDArray[np.float64] | None  # of a query: likewise, by the logarithm of each column's length
    start: Standing
    tape: NDArray[np.int64]
    taped: NDArray[np.float64]
    anchor_us: int
    clock: NDArray[np.int64]


def _nowhere(port: str, message: Message) -> None:
    pass


class EpisodeNetwork:
    """A network whose readout is taught by shows.

    Parameters
    ----------
    graph
        The network. One dense projection leads to the readout.
    readout
        Its population that answers: leaky integrators, one for each class.
    rule
        The Hebbian rule of the projection to the readout: ``mixed = "add"``, one ``sliding_threshold``.
    bind
        What a label adds to the postsynaptic term.
    span_us
        How long a show lasts, us.
    gain
        Slope of the softmax over scores.
    length
        Of columns, in spikes; 0: they are not scaled.
    surrogate, width
        As for ``plasticity.window.TapedWindow``.
    precision
        As for ``neurons.network.Network``.

    Attributes
    ----------
    network : PlasticNetwork
        The operator that runs the shows, as it would run them live.
    theta, d_theta : Theta
        The rule's parameters, and the gradient by them since ``forget_gradient``.

    Raises
    ------
    ConfigError
        If the readout is not reached as said, or the rule is another.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        readout: str = "scores",
        rule: Hebbian | None = None,
        bind: float = 10.0,
        span_us: int = 80_000,
        gain: float = 1.0,
        length: float = 20.0,
        surrogate: Surrogate = "spikes",
        width: float = np.inf,
        precision: Precision = "float32",
    ) -> None:
        rule = rule if rule is not None else FEW_SHOT_RULE
        ways = [it for it in graph.projections if it.target == readout]
        if len(ways) != 1 or not isinstance(ways[0].topology, Dense):
            raise ConfigError(f"readout '{readout}': got {len(ways)} projections to it, wanted one, and that Dense")
        if rule.mixed != "add" or np.ndim(rule.sliding_threshold) or np.ndim(rule.mixing):
            raise ConfigError(
                "rule of the readout: wanted mixed = 'add', and one number each for sliding_threshold and mixing: "
                "classes are alike before they are taught"
            )
        ends = ways[0].source, readout
        self.readout, self.bind, self.span_us, self.gain, self.length = readout, bind, int(span_us), gain, length
        self.network = PlasticNetwork.of(
            graph, rules={ends: rule}, readout=readout, precision=precision, reset_local=False
        )
        self.window = TapedWindow(self.network, surrogate=surrogate, width=width, window_events=2**20)
        network = self.network
        self._port = next(iter(network.inputs))
        self._q = network._ways[ends]
        place = network._table.place[self._q]
        row = network._program.population[network._names.index(readout)]
        self._n_post = int(row[UNITS])
        self._pre = slice(int(place[FIRST_PRE]), int(place[FIRST_PRE] + place[N_PRE]))
        self._post = slice(int(place[FIRST_POST]), int(place[FIRST_POST]) + self._n_post)
        self._rows = slice(int(place[FIRST_ROW]), int(place[FIRST_ROW] + place[N_PRE]))
        self._fast = slice(int(place[FIRST_FAST]), int(place[FIRST_FAST] + place[N_PRE] * self._n_post))
        self._units = slice(int(row[FIRST]), int(row[FIRST]) + self._n_post)
        n = int(place[N_PRE])
        rates = np.array(np.broadcast_to(np.asarray(rule.local_rate, np.float64), (n,)))
        self.theta = Theta(float(rule.mixing), float(rule.sliding_threshold), float(rule.tau_hebb_us), rates)
        self.d_theta = Theta(0.0, 0.0, 0.0, np.zeros(n))
        self._pieces: list[_Piece] = []
        self._now_us = 0

    # -- forward -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin an episode: nothing is taught."""
        self.network.begin(0)
        self._now_us = 0
        self._pieces.clear()

    def _set_rule(self, label: int) -> None:
        """Let the rule write for this class; -1: let it read only."""
        table, theta = self.network._table, self.theta
        table.number[self._q, MIXING] = theta.mixing
        table.number[self._q, TAU_FAST] = theta.tau_hebb_us
        table.local_rate[self._pre] = theta.local_rate if label >= 0 else 0.0
        sliding = table.sliding[self._post]
        sliding[:] = theta.contrast
        if label >= 0:
            sliding[label] -= self.bind

    def _show(self, items: NDArray[np.void], label: int) -> None:
        network = self.network
        self._set_rule(label)
        start_us, self._now_us = self._now_us, self._now_us + self.span_us
        network.on_mark(self._port, Reset(start_us), _nowhere)
        items = items.copy()
        items["t"] += start_us
        network.on_packet(self._port, Packet(items, start_us, self._now_us), _nowhere)

    def teach(self, items: NDArray[np.void], label: int) -> None:
        """Run a show of a known class, and let the rule write."""
        self._show(items, label)

    def ask(self, items: NDArray[np.void]) -> NDArray[np.float64]:
        """Run a show without writing; returns the scores: float64, shape (n_classes,)."""
        scale = self._scale()
        self._show(items, -1)
        return self.network.averages(self.readout).reshape(-1) * scale

    def _columns(self) -> NDArray[np.float64]:
        """Return hebb of the readout now, float64, shape (n_features, n_classes)."""
        memory = self.network._memory
        left = np.exp(-(self._now_us - memory.fast_us[self._rows]) / self.theta.tau_hebb_us)
        return memory.fast[self._fast].reshape(-1, self._n_post) * left[:, None]

    def _scale(self) -> NDArray[np.float64]:
        """Return what each class's average is multiplied by; float64, shape (n_classes,)."""
        if not self.length:
            return np.ones(self._n_post)
        scale: NDArray[np.float64] = self.length / np.sqrt(1.0 + np.sum(self._columns() ** 2, axis=0))
        return scale

    def _keep(
        self, label: int, d_average: NDArray[np.float64] | None = None, by_column: NDArray[np.float64] | None = None
    ) -> None:
        network, state = self.network, self.network.state
        n = self.window.n_entries
        self._pieces.append(
            _Piece(
                label,
                d_average,
                by_column,
                Standing._make(array.copy() for array in self.window._start),
                state.tape[:n].copy(),
                state.taped[:n].copy(),
                int(state.book[ANCHOR_US]),
                network._clock.copy(),
            )
        )

    def run(self, episode: Episode) -> list[NDArray[np.float64]]:
        """Teach the supports, ask the queries; returns the scores of each query."""
        self.begin()
        for it in episode.supports:
            self.teach(it.items, it.label)
        return [self.ask(it.items)[: episode.ways] for it in episode.queries]

    def learned(self) -> Graph:
        """Return the network with its weights as they are now; nothing that was taught is in it."""
        return with_weights(self.network)

    # -- backward ------------------------------------------------------------------------------------------------------

    def gradient(self, episode: Episode) -> tuple[float, int]:
        """Run an episode and add the gradient of its queries' mean cross-entropy.

        Derivatives by weights are added to ``window.gradients.weight``, those by the rule to ``d_theta``.

        Returns
        -------
        loss, right
            Mean over the queries; how many answers were right.
        """
        self.begin()
        for it in episode.supports:
            self.teach(it.items, it.label)
            self._keep(it.label)
        loss, right = 0.0, 0
        n = len(episode.queries)
        for it in episode.queries:
            scale = self._scale()
            scores = self.ask(it.items)
            one, d_scores = cross_entropy(scores[: episode.ways], it.label, self.gain)
            loss, right = loss + one / n, right + int(int(np.argmax(scores[: episode.ways])) == it.label)
            padded = np.zeros(self._n_post)
            padded[: episode.ways] = d_scores / n
            self._keep(-1, padded * scale, -padded * scores if self.length else None)
        walk = self.window._walk
        walk.mu.fill(0)
        walk.is_live.fill(False)
        for piece in reversed(self._pieces):
            self._walk_back(piece)
        self.window._walk.is_live.fill(False)
        self._pieces.clear()
        return loss, right

    def _walk_back(self, piece: _Piece) -> None:
        window, network, state = self.window, self.network, self.network.state
        self._set_rule(piece.label)
        n = len(piece.tape)
        state.tape[:n], state.taped[:n] = piece.tape, piece.taped
        state.book[N_TAPE], state.book[ANCHOR_US] = n, piece.anchor_us
        network._clock[[DONE_US, WINDOW_US]] = piece.clock[[DONE_US, WINDOW_US]]
        for kept, now in zip(window._start, piece.start, strict=True):
            kept[...] = now
        window._skip.fill(0)
        grown = window.gradients
        for array in (grown.mixing, grown.tau_fast, grown.local_rate, grown.sliding):
            array.fill(0)
        window.walk_back({self.readout: piece.d_average} if piece.d_average is not None else None)
        self._hand_over(piece)
        by_tau = self._by_lengths(piece)
        d, is_taught = self.d_theta, piece.label >= 0
        if is_taught:
            d.local_rate[:] += grown.local_rate[self._pre]
        self.d_theta = Theta(
            d.mixing + float(grown.mixing[self._q]),
            d.contrast + (float(grown.sliding[self._post].sum()) if is_taught else 0.0),
            d.tau_hebb_us + float(grown.tau_fast[self._q]) + by_tau,
            d.local_rate,
        )

    def _hand_over(self, piece: _Piece) -> None:
        """Take mu to where ``hebb`` was last read before this show; the walk has counted what tau_hebb did between."""
        walk = self.window._walk
        mu = walk.mu[self._fast].reshape(-1, self._n_post)
        then_us = piece.start.fast_us[self._rows]
        live = mu.any(axis=1)
        dt_us = np.where(live, walk.mu_us[self._rows] - then_us, 0)
        mu *= np.exp(-dt_us / self.theta.tau_hebb_us)[:, None].astype(mu.dtype)
        walk.mu_us[self._rows] = then_us
        walk.is_live[self._rows] = live

    def _by_lengths(self, piece: _Piece) -> float:
        """Add to mu what the lengths of columns owe to ``hebb`` as this query found it; returns what tau_hebb owes."""
        if piece.by_column is None:
            return 0.0
        walk, then_us = self.window._walk, piece.start.fast_us[self._rows]
        begin_us = int(piece.clock[WINDOW_US])
        left = np.exp(-(begin_us - then_us) / self.theta.tau_hebb_us)[:, None]
        hebb = piece.start.fast[self._fast].reshape(-1, self._n_post) * left
        by_hebb = hebb * (piece.by_column / (1.0 + np.sum(hebb**2, axis=0)))
        mu = walk.mu[self._fast].reshape(-1, self._n_post)
        mu += (by_hebb * left).astype(mu.dtype)
        walk.is_live[self._rows] = mu.any(axis=1)
        age_us = (begin_us - then_us)[:, None]
        return float(np.sum(by_hebb * hebb * age_us) / self.theta.tau_hebb_us**2)

    def forget_gradient(self) -> None:
        """Drop the gradients so far."""
        for array in self.window.gradients:
            array.fill(0)
        self.d_theta = Theta(0.0, 0.0, 0.0, np.zeros_like(self.theta.local_rate))


FEW_SHOT_RULE = Hebbian(
    local_rate=1.0, sliding_threshold=0.0, mixing=0.05, tau_hebb_us=1e8, hebb_max=np.inf, mixed="add", post="tanh"
)
"""Where meta-learning begins: every spike counts the same, for its own class alone, and nothing is forgotten within an
episode."""
