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
A layer with a Hebbian rule is deployed as its synapses weigh there, fast change included.
"""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.engine import N_TAPE, WEIGHT
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import DONE_US, Precision
from plasticity.adam import adam_step, new_adam
from plasticity.correction import GlobalCorrection, Learned, Optimiser
from plasticity.hebbian import Hebbian
from plasticity.plastic_network import PlasticNetwork
from plasticity.rules import FIRST_FAST, FIRST_ROW, HAS_SHORT_TERM, MIXING, TAU_FAST
from plasticity.window import Surrogate
from stream.errors import ConfigError, StreamError
from stream.operator import Emit, Snapshot, check_shapes
from stream.packet import SPIKE_DTYPE, Deploy, Label, Mark, Packet, Reset

__all__ = ["NetworkLearner"]

MOST_FIELDS, MOST_SIDE = 24, 48  # units and pixels a side that a viewer is shown
N_RECENT = 100  # taught labels that the running accuracy and loss look back on
# places of the counts
IS_TEACHING, N_LABELS, N_SUMMED, NEXT_US, N_CUT, N_DEPLOYED, N_SINCE_DEPLOY, HAS_DRIFTED, N_COUNTS = range(9)


class NetworkLearner(PlasticNetwork):
    """A plastic network under global correction.

    Parameters
    ----------
    path, rules, readout, precision, reset_local
        As for ``plasticity.plastic_network.PlasticNetwork``; a readout is needed.
    learn, held, gain, surrogate, width, optimiser, weight_rate, meta_rate, longest, window_events
        As for ``plasticity.correction.GlobalCorrection``.
    correction_period_us
        0: a step at each taught label. Else: at the first one at or after each multiple of it, with the mean gradient
        since the last step, us.
    deploy_every
        Corrections between two deployments; 0: none, and no output ``forward``. What is deployed is a chain of dense
        layers of leaky units that ends in the readout.

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
        gain: float = 1.0,
        surrogate: Surrogate = "spikes",
        width: float = np.inf,
        optimiser: Optimiser = "adam",
        weight_rate: float = 2e-3,
        meta_rate: float = 1e-3,
        longest: float = np.inf,
        correction_period_us: int = 0,
        deploy_every: int = 0,
        window_events: int = 65_536,
    ) -> None:
        super().__init__(path=path, rules=rules or [], readout=readout, precision=precision, reset_local=reset_local)
        self._set_up_learning(
            correction_period_us,
            deploy_every,
            learn=tuple(learn),
            held=tuple(held),
            gain=gain,
            surrogate=surrogate,
            width=width,
            optimiser=optimiser,
            weight_rate=weight_rate,
            meta_rate=meta_rate,
            longest=longest,
            window_events=window_events,
        )

    def _set_up_learning(self, correction_period_us: int, deploy_every: int, **options: Any) -> None:
        for name, value in (("correction_period_us", correction_period_us), ("deploy_every", deploy_every)):
            if value < 0:
                raise ConfigError(f"{type(self).__name__} {name}: got {value}, wanted 0 or more")
        self._period_us, self._deploy_every = int(correction_period_us), int(deploy_every)
        self._counts = np.zeros(N_COUNTS, np.int64)
        self._counts[IS_TEACHING] = 1
        self._recent = np.zeros((2, N_RECENT))  # right or wrong; loss
        self._stepped_us: deque[int] = deque(maxlen=256)  # for viewers alone, so no part of a snapshot
        self._chain = self._chain_of_layers() if deploy_every else []
        if deploy_every:
            (port,) = self.inputs.values()
            self.outputs = {"forward": port, **self.outputs}
        self.correction = GlobalCorrection(self, **options)

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
        self._counts[HAS_DRIFTED] |= not self._resets_local and bool(len(packet.items)) and bool(self._ways)

    def _pass_on(self, packet: Packet, emit: Emit) -> None:
        if self._deploy_every:
            emit("forward", packet)

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Answer, learn, begin the next window; StreamError if a label names no class of ours."""
        if isinstance(mark, Label) and mark.teach and not 0 <= mark.label < self._n_classes():
            raise StreamError(
                f"{type(self).__name__}: label {mark.label} at {mark.t_us} us, wanted 0 to {self._n_classes() - 1}; "
                f"give the readout a unit for each class of the stream"
            )
        super().on_mark(port, mark, emit)
        if isinstance(mark, Reset):
            self._counts[IS_TEACHING] = mark.teach
            if self._deploy_every:
                self._deploy_if_due(mark, emit)
        elif isinstance(mark, Label):
            if self._is_due(mark):
                self.correction.step()
                self._stepped_us.append(mark.t_us)
                self._counts[N_SINCE_DEPLOY] += 1
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
                or self._table.place[ways[0], HAS_SHORT_TERM] > 0
            ):
                raise ConfigError(
                    f"deploy_every: what follows '{source}' is not one dense layer of leaky units; a chain of these, "
                    f"up to the readout, can be deployed"
                )
            chain.append(ways[0])
            source = ends
        return chain

    def _deploy_if_due(self, mark: Reset, emit: Emit) -> None:
        counts = self._counts
        has_changed = counts[N_SINCE_DEPLOY] > 0 or counts[HAS_DRIFTED]
        if counts[N_DEPLOYED] == 0 or counts[N_SINCE_DEPLOY] >= self._deploy_every or (not mark.teach and has_changed):
            counts[N_DEPLOYED] += 1
            counts[[N_SINCE_DEPLOY, HAS_DRIFTED]] = 0
            emit("forward", Deploy(mark.t_us, int(counts[N_DEPLOYED]), self._deployed()))

    def _deployed(self) -> Snapshot:
        """Name weights, time constants and thresholds as they are now, layer by layer."""
        weights, memory = self._renewed()
        arrays: Snapshot = {}
        tau_us = {it.name: it.value for it in self.correction.metas}
        for k, q in enumerate(self._chain):
            it = self.graph.projections[q]
            population = self.graph.populations[self._names.index(it.target)]
            rule = self._rules.get((it.source, it.target))
            weight = self._weight_of(q, weights)
            if isinstance(rule, Hebbian) and not self._resets_local:  # else a reset has just cleared the fast change
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
        arrays = {f"correction.{name}": array for name, array in correction._arrays().items() if name != "weight"}
        arrays |= {f"window.{name}": array for name, array in correction.window._start._asdict().items()}
        if self._period_us:  # between steps all gradients are 0, and tables of zeros need no keeping
            arrays |= {f"gradient.{name}": array for name, array in correction.window.gradients._asdict().items()}
        return arrays | {"skip": correction.window._skip, "counts": self._counts, "recent": self._recent}

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state, the tape of the window so far included."""
        n = self.correction.window.n_entries
        self._counts[[N_SUMMED, N_CUT]] = self.correction.n_summed, self.correction.window.n_cut
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
        correction.window.n_cut = int(self._counts[N_CUT])
        if n > len(self.state.tape):
            self._lengthen_tape(n)
        self.state.tape[:n], self.state.taped[:n] = tape, taped
        self.state.book[N_TAPE] = n

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
            at = int(self._table.place[q, FIRST_FAST])
            fields["hebb"] = thinned(self._memory.fast[at : at + weight.size].reshape(weight.shape))
        return fields

    def statistics(self) -> dict[str, float]:
        """Return counts; ``accuracy`` and ``loss`` are those of the last 100 taught labels."""
        recent: NDArray[Any] = self._recent[:, : min(int(self._counts[N_LABELS]), N_RECENT)]
        right, loss = recent.mean(axis=1) if recent.size else (0.0, 0.0)
        return super().statistics() | {
            "labels": float(self._counts[N_LABELS]),
            "corrections": float(self.correction.n_steps),
            "classes": float(self._n_classes()),
            "accuracy": float(right),
            "loss": float(loss),
            "windows cut": float(self.correction.window.n_cut),
        }
