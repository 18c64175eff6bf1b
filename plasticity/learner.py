"""An operator that learns from a labelled stream while it classifies it.

Hidden layer: ``plasticity.layer``, which changes at every event. Readout: ``neurons.readout``. Global correction:
``plasticity.adjoint`` and ``plasticity.adam``, on label marks or by the stream's clock.

A *window* is what one answer is computed from. It begins at a ``Reset`` (everything at rest) or right after a
``Label`` (state carried on, average begun anew), and it ends at a ``Label``.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neurons.encode import check_events, n_input_units, read_only
from neurons.readout import readout_advance
from plasticity.adam import adam_step, new_adam
from plasticity.adjoint import (
    RECTANGLE,
    SPIKES,
    cross_entropy,
    network_adjoint,
    new_gradients,
    new_scratch,
    new_window,
    readout_adjoint,
)
from plasticity.network import network_run, new_network, new_state, new_tape
from stream.errors import ConfigError, StreamError
from stream.operator import Emit, Operator, Port, Snapshot, check_shapes
from stream.packet import ANSWER_DTYPE, EVENT_DTYPE, SPIKE_DTYPE, Deploy, Label, Mark, Message, Packet, Reset

__all__ = ["OnlineLearner"]

Mode = Literal["GP", "LP", "HP"]
Surrogate = Literal["spikes", "rectangle"]

NEVER_US = int(np.iinfo(np.int64).max)
BEFORE_ALL_US = int(np.iinfo(np.int64).min)
N_RECENT = 100  # taught labels that the running accuracy and loss look back on

# whole numbers that belong to the state, by attribute
COUNTS = (
    "last_t_us",  # stream time: of the last event or mark
    "correction_us",  # stream time of the next correction by the clock
    "n_taped",
    "is_taping",
    "n_summed",  # labels in the gradient that waits for a correction
    "n_corrections",
    "n_deployed",
    "n_since_deploy",  # corrections since the last deployment
    "has_drifted",  # carried hebb changed since the last deployment
    "n_events",
    "n_spikes",
    "n_labels",
    "n_cut",  # windows longer than the tape
)


class OnlineLearner(Operator):
    """Classify an event stream, and learn from its labels as they pass.

    For each ``Label``: first the answer goes out, then, if the mark allows, the network learns. So the answers are
    those of a network that has not seen their labels (prequential).

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    n_hidden, n_classes
        Units of the hidden layer and of the readout.
    mode
        "GP" global plasticity alone (no local state), "LP" local alone (hidden weights and meta-parameters stay as they
        were drawn, the readout is trained), "HP" both.
    seed
        Of the initial weights; the same in all modes.
    tau_mem_us, tau_hebb_us, tau_readout_us
        Time constants of the membrane, the local change and the readout, us. Learned, slowly.
    v_threshold
        Firing threshold.
    weight_scale
        Standard deviation of the initial hidden weights. An event moves each unit by this much; a unit fires when the
        events of about one ``tau_mem_us`` add up to the threshold.
    mixing, local_rate, sliding_threshold
        Meta-parameters of the local rule, see ``plasticity.layer``. Learned, slowly.
    hebb_max
        Bound of the local change.
    hebb_reset
        Clear the local change at each ``Reset``; False carries it along the stream.
    surrogate, surrogate_width
        What stands in for the derivative of a spike, see ``plasticity.adjoint``.
    readout_gain
        Slope of the softmax on the scores.
    weight_rate, meta_rate
        Adam's rates for weights and for everything else, the latter relative to each parameter's natural unit.
    correction_period_us
        0: correct at each taught label. Else: when stream time first reaches a multiple of it, with the mean gradient
        of the labels since the last time, us.
    deploy_every
        Corrections between two deployments.
    window_events
        Events of the tape. In a longer window the gradient begins anew there, with the state carried on (counted in
        ``statistics``); the answer still averages over the whole window.

    Notes
    -----
    A ``Reset`` whose ``teach`` is False switches the tape off: nothing is learned until the next ``Reset``.

    ``Deploy`` marks go out on ``forward`` right after a ``Reset``: at the first one, after ``deploy_every``
    corrections, and before anything that may not be learned from, if something changed. They carry weight + mixing *
    hebb.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        n_hidden: int = 200,
        n_classes: int = 10,
        mode: Mode = "HP",
        seed: int = 1,
        tau_mem_us: float = 20_000.0,
        tau_hebb_us: float = 100_000.0,
        tau_readout_us: float = 60_000.0,
        v_threshold: float = 1.0,
        weight_scale: float = 0.07,
        mixing: float = 0.12,
        local_rate: float = 0.013,
        sliding_threshold: float = 0.0,
        hebb_max: float = 1.0,
        hebb_reset: bool = True,
        surrogate: Surrogate = "spikes",
        surrogate_width: float = 0.5,
        readout_gain: float = 1.0,
        weight_rate: float = 2e-3,
        meta_rate: float = 1e-3,
        correction_period_us: int = 0,
        deploy_every: int = 50,
        window_events: int = 16_384,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"OnlineLearner mode: got {mode!r}, wanted one of {', '.join(get_args(Mode))}")
        if surrogate not in get_args(Surrogate):
            raise ConfigError(
                f"OnlineLearner surrogate: got {surrogate!r}, wanted one of {', '.join(get_args(Surrogate))}"
            )
        for name, value, lowest in (
            ("width", width, 1),
            ("height", height, 1),
            ("n_hidden", n_hidden, 1),
            ("n_classes", n_classes, 2),
            ("correction_period_us", correction_period_us, 0),
            ("deploy_every", deploy_every, 1),
            ("window_events", window_events, 1),
        ):
            if value < lowest:
                raise ConfigError(f"OnlineLearner {name}: got {value}, wanted {lowest} or more")
        for name, constant in (
            ("tau_mem_us", tau_mem_us),
            ("tau_hebb_us", tau_hebb_us),
            ("tau_readout_us", tau_readout_us),
            ("v_threshold", v_threshold),
            ("hebb_max", hebb_max),
            ("surrogate_width", surrogate_width),
            ("readout_gain", readout_gain),
        ):
            if not constant > 0:
                raise ConfigError(f"OnlineLearner {name}: got {constant}, wanted a number above 0")
        self.width, self.height, self.mode = int(width), int(height), mode
        self.hebb_reset, self.deploy_every = bool(hebb_reset), int(deploy_every)
        self.correction_period_us, self.window_events = int(correction_period_us), int(window_events)
        self.readout_gain, self.surrogate_width = float(readout_gain), float(surrogate_width)
        self.surrogate = SPIKES if surrogate == "spikes" else RECTANGLE
        self.is_plastic = mode != "GP"
        self.inputs = {"events": Port("events", self.width, self.height)}
        self.outputs = {
            "forward": Port("events", self.width, self.height),
            "spikes": Port("spikes", n_units=int(n_hidden)),
            "answers": Port("answers"),
        }

        rng = np.random.default_rng(seed)
        n_pre = n_input_units(self.width, self.height)
        weight = rng.normal(0.0, weight_scale, (n_pre, n_hidden)).astype(np.float32)
        readout_weight = rng.normal(0.0, 1.0 / np.sqrt(n_hidden), (n_hidden, n_classes)).astype(np.float32)
        self.params = new_network(
            weight,
            readout_weight,
            mixing=mixing,
            local_rate=local_rate,
            sliding_threshold=sliding_threshold,
            tau_hebb_us=tau_hebb_us,
            tau_mem_us=tau_mem_us,
            tau_readout_us=tau_readout_us,
            v_threshold=v_threshold,
            hebb_max=hebb_max,
        )
        self.state = new_state(self.params, is_plastic=self.is_plastic)
        self._window = new_window(self.state)
        self._tape = new_tape(self.params, self.window_events, is_plastic=self.is_plastic)
        self._gradients = new_gradients(self.params)
        self._scratch = new_scratch(self.params, is_plastic=self.is_plastic)
        self._fired = np.zeros(n_hidden, np.int64)
        self._buffer = np.zeros(max(4 * n_hidden, 4096), SPIKE_DTYPE)
        self._is_right = np.zeros(N_RECENT, np.bool_)
        self._losses = np.zeros(N_RECENT)

        # what is learned, by name: (rate, unit, lowest, highest)
        weights = (float(weight_rate), 1.0, -np.inf, np.inf)
        metas = float(meta_rate)
        readout_rules = {
            "readout_weight": weights,
            "tau_readout_us": (metas, float(tau_readout_us), 1e3, 1e9),
        }
        self._rules = {
            "GP": {"weight": weights, "tau_mem_us": (metas, float(tau_mem_us), 1e3, 1e9), **readout_rules},
            "LP": readout_rules,
            "HP": {
                "weight": weights,
                "mixing": (metas, 1.0, -np.inf, np.inf),
                "local_rate": (metas, 0.1, -np.inf, np.inf),
                "sliding_threshold": (metas, 1.0, -np.inf, np.inf),
                "tau_hebb_us": (metas, float(tau_hebb_us), 1e3, 1e9),
                "tau_mem_us": (metas, float(tau_mem_us), 1e3, 1e9),
                **readout_rules,
            },
        }[mode]
        hidden, readout = self.params
        self._learned = dict(zip(self._gradients._fields, (*hidden[:6], *readout), strict=True))
        self._adam = {name: new_adam(self._learned[name]) for name in self._rules}

        self._origin_ns = 0  # of the last packet: an answer's latency counts from there
        self.last_t_us = BEFORE_ALL_US
        self.correction_us = NEVER_US
        self.n_taped = self.n_summed = self.n_corrections = self.n_deployed = self.n_since_deploy = 0
        self.is_taping, self.has_drifted = 1, 0
        self.n_events = self.n_spikes = self.n_labels = self.n_cut = 0

    def warm_up(self) -> None:
        """Compile every kernel on a learner of two units, which are typed as ours are."""
        small = OnlineLearner(width=2, height=1, n_hidden=2, n_classes=2, mode=self.mode, window_events=4)
        event = np.zeros(1, EVENT_DTYPE)
        small.on_mark("events", Reset(0), _to_nowhere)
        small.on_packet("events", Packet(event, 0, 1), _to_nowhere)
        small.on_mark("events", Label(1, 0, 0), _to_nowhere)

    # --- events ---

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Pass the events on, then run through them; StreamError, and nothing emitted, if one does not fit."""
        events = read_only(packet.items)
        check_events("OnlineLearner", events, self.width, self.height, self.last_t_us)
        emit("forward", packet)
        spikes = []
        k = 0
        if len(events):
            self._begin(int(events["t"][0]))
        while k < len(events):
            before = k
            k, n_spikes, self.n_taped = network_run(
                self.params,
                self.state,
                self.is_plastic,
                events,
                k,
                self.correction_us,
                self.width,
                self._tape,
                self.n_taped,
                self.is_taping == 1,
                self._fired,
                self._buffer,
            )
            spikes.append(self._buffer[:n_spikes].copy())
            self.n_spikes += n_spikes
            self.n_events += k - before
            if k < len(events):
                if events["t"][k] >= self.correction_us:
                    self._correct_by_clock(int(events["t"][k]))
                elif self.is_taping and self.n_taped == self.window_events:
                    self._cut_window()
        if len(events):
            self.last_t_us = int(events["t"][-1])
            self.has_drifted = int(self.is_plastic and not self.hebb_reset)
        items = np.concatenate(spikes) if spikes else np.zeros(0, SPIKE_DTYPE)
        emit("spikes", Packet(items, packet.start_us, packet.end_us, packet.origin_ns))
        self._origin_ns = packet.origin_ns

    # --- marks ---

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Begin or judge a window; StreamError if the mark goes back in time or names no class of ours."""
        if mark.t_us < self.last_t_us:
            raise StreamError(
                f"OnlineLearner: {type(mark).__name__} mark at {mark.t_us} us, wanted {self.last_t_us} us or later; "
                f"marks stand where they happened in the stream"
            )
        if isinstance(mark, Label) and mark.teach and not 0 <= mark.label < self.params.readout.weight.shape[1]:
            raise StreamError(
                f"OnlineLearner: label {mark.label} at {mark.t_us} us, wanted 0 to "
                f"{self.params.readout.weight.shape[1] - 1}; set n_classes to the count of the stream's classes"
            )
        self._begin(mark.t_us)
        if mark.t_us >= self.correction_us:
            self._correct_by_clock(mark.t_us)
        self.last_t_us = mark.t_us
        if isinstance(mark, Label):
            self._judge(mark, emit)
        elif isinstance(mark, Reset):
            self._reset(mark)
        for name in self.outputs:
            if name == "forward" or not isinstance(mark, Deploy):
                emit(name, mark)
        if isinstance(mark, Reset):
            self._deploy_if_due(mark, emit)

    def _begin(self, t_us: int) -> None:
        """Take the time of a stream's first event or mark as the time from which the state is known."""
        if self.last_t_us != BEFORE_ALL_US:
            return
        self.last_t_us = t_us
        self.state.hidden.t_us[0] = self.state.readout.t_us[0] = t_us
        self.state.hidden.t_hebb_us.fill(t_us)
        self._window.start_us.fill(t_us)
        if self.correction_period_us:
            self.correction_us = self._next_multiple_us(t_us)

    def _reset(self, mark: Reset) -> None:
        hidden, readout = self.state
        hidden.v.fill(0)
        hidden.t_us[0] = mark.t_us
        if self.hebb_reset:
            hidden.hebb.fill(0)
            hidden.t_hebb_us.fill(mark.t_us)
        readout.o.fill(0)
        readout.integral_us.fill(0)
        readout.t_us[0] = mark.t_us
        self.is_taping = int(mark.teach)
        self._window.start_us[0] = mark.t_us
        self._begin_tape(mark.t_us)

    def _judge(self, mark: Label, emit: Emit) -> None:
        readout = self.state.readout
        readout_advance(self.params.readout, readout, mark.t_us)
        score = readout.integral_us / max(mark.t_us - int(self._window.start_us[0]), 1)
        answer = int(np.argmax(score))  # the lowest of equals
        row = np.array([(mark.t_us, mark.start_us, mark.label, answer, mark.teach)], ANSWER_DTYPE)
        emit("answers", Packet(row, mark.t_us, mark.t_us + 1, self._origin_ns))
        if mark.teach:
            loss, d_score = cross_entropy(score, mark.label, self.readout_gain)
            recent = self.n_labels % N_RECENT
            self._is_right[recent], self._losses[recent] = answer == mark.label, loss
            self.n_labels += 1
            if self.is_taping:
                self._learn(mark.t_us, d_score)
        readout.integral_us.fill(0)
        self._window.start_us[0] = mark.t_us
        self._begin_tape(mark.t_us)

    def _begin_tape(self, t_us: int) -> None:
        self._window.v[:] = self.state.hidden.v
        self._window.o[:] = self.state.readout.o
        self._window.start_us[1] = t_us
        self.n_taped = 0

    def _cut_window(self) -> None:
        """Let the gradient begin anew at the last event, with the average going on."""
        t_us = int(self.state.hidden.t_us[0])
        readout_advance(self.params.readout, self.state.readout, t_us)
        self._begin_tape(t_us)
        self.n_cut += 1

    # --- corrections ---

    def _learn(self, end_us: int, d_score: NDArray[np.float64]) -> None:
        if self.mode == "LP":
            readout_adjoint(self.params, self._tape, self.n_taped, self._window, end_us, d_score, self._gradients)
        else:
            network_adjoint(
                self.params,
                self.is_plastic,
                self._tape,
                self.n_taped,
                self._window,
                end_us,
                d_score,
                self.surrogate,
                self.surrogate_width,
                self._gradients,
                self._scratch,
            )
        self.n_summed += 1
        if not self.correction_period_us:
            self._correct()

    def _correct(self) -> None:
        self.n_corrections += 1
        self.n_since_deploy += 1
        for name, (rate, unit, lowest, highest) in self._rules.items():
            adam_step(
                self._learned[name].reshape(-1),
                getattr(self._gradients, name).reshape(-1),
                self._adam[name],
                self.n_corrections,
                rate,
                unit,
                1.0 / self.n_summed,
                lowest,
                highest,
            )
        self.n_summed = 0

    def _correct_by_clock(self, t_us: int) -> None:
        if self.n_summed:
            self._correct()
        self.correction_us = self._next_multiple_us(t_us)

    def _next_multiple_us(self, t_us: int) -> int:
        return (t_us // self.correction_period_us + 1) * self.correction_period_us

    # --- deployment ---

    def _deploy_if_due(self, mark: Reset, emit: Emit) -> None:
        has_changed = self.n_since_deploy > 0 or self.has_drifted
        if self.n_deployed == 0 or self.n_since_deploy >= self.deploy_every or (not mark.teach and has_changed):
            self.n_deployed += 1
            self.n_since_deploy = self.has_drifted = 0
            emit("forward", Deploy(mark.t_us, self.n_deployed, self._deployed_arrays()))

    def _deployed_arrays(self) -> dict[str, NDArray[Any]]:
        hidden, readout = self.params
        weight = hidden.weight.copy()
        if self.is_plastic and not self.hebb_reset:
            dt_us = self.last_t_us - self.state.hidden.t_hebb_us
            decay = np.exp(-dt_us / np.float64(hidden.tau_hebb_us[0])).astype(np.float32)
            weight += hidden.mixing * (self.state.hidden.hebb * decay[:, None])
        return {
            "layer0.weight": weight,
            "layer0.tau_mem_us": np.array(hidden.tau_mem_us[0], np.float64),
            "layer0.v_threshold": np.array(hidden.v_threshold[0], np.float64),
            "layer1.weight": readout.weight.copy(),
            "layer1.tau_mem_us": np.array(readout.tau_mem_us[0], np.float64),
        }

    # --- state ---

    def _arrays(self, n_taped: int) -> dict[str, NDArray[Any]]:
        """Name everything that makes up the state; the tape as far as it is written."""
        arrays: dict[str, NDArray[Any]] = {}
        groups: tuple[tuple[str, Any], ...] = (
            ("hidden", self.params.hidden),
            ("readout", self.params.readout),
            ("hidden_state", self.state.hidden),
            ("readout_state", self.state.readout),
            ("window", self._window),
            *((f"adam.{name}", moments) for name, moments in self._adam.items()),
        )
        for prefix, group in groups:
            arrays |= {f"{prefix}.{name}": array for name, array in zip(group._fields, group, strict=True)}
        # between corrections all gradients are 0, and tables of zeros need no keeping
        if self.correction_period_us:
            arrays |= {f"gradient.{name}": getattr(self._gradients, name) for name in self._rules}
        tape: tuple[NDArray[Any], ...] = self._tape
        arrays |= {f"tape.{name}": array[:n_taped] for name, array in zip(self._tape._fields, tape, strict=True)}
        return arrays | {"recent.is_right": self._is_right, "recent.loss": self._losses}

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state."""
        counts = {name: np.array(getattr(self, name), np.int64) for name in COUNTS}
        return {name: array.copy() for name, array in self._arrays(self.n_taped).items()} | counts

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another network."""
        counts = {name: np.zeros((), np.int64) for name in COUNTS}
        n_taped = np.asarray(snapshot.get("n_taped", 0))
        rows = int(n_taped) if n_taped.shape == () else -1
        if not 0 <= rows <= self.window_events:
            raise ConfigError(
                f"snapshot of OnlineLearner: tape of {n_taped} events, wanted 0 to {self.window_events}; "
                f"restore it with the window_events that it was taken with"
            )
        arrays = self._arrays(rows)
        check_shapes("OnlineLearner", arrays | counts, snapshot)
        for name, array in arrays.items():
            array[...] = snapshot[name]
        for name in COUNTS:
            setattr(self, name, int(snapshot[name]))

    def statistics(self) -> dict[str, float]:
        """Return counts; ``accuracy`` and ``loss`` are those of the last 100 taught labels."""
        n_recent = min(self.n_labels, N_RECENT)
        n_hidden, n_classes = self.params.readout.weight.shape
        return {
            "events": float(self.n_events),
            "spikes": float(self.n_spikes),
            "synaptic operations": float(self.n_events * n_hidden + self.n_spikes * n_classes),
            "labels": float(self.n_labels),
            "corrections": float(self.n_corrections),
            "accuracy": float(self._is_right[:n_recent].mean()) if n_recent else 0.0,
            "loss": float(self._losses[:n_recent].mean()) if n_recent else 0.0,
            "windows cut": float(self.n_cut),
        }


def _to_nowhere(port: str, message: Message) -> None:
    """Take what a learner emits while it warms up."""
