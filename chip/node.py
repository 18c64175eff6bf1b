"""The chip in a pipeline: events in, spikes, answers and counts out.

Time
----
Stream time is cut in phases, phase k covering ``[t_reset + k * phase_us, t_reset + (k + 1) * phase_us)`` after the
last ``Reset`` (before the first one: the grid of whole multiples of phase_us that holds the first event or mark). Its
events wait on the axons, one bit each; once the stream has passed its end, it runs. Never by wall time, and never
before it is sure that no event of it can come any more, so where packets are cut does not show. A packet's last
microsecond may be continued by the next packet, so a phase that ends there waits for it.

A program from a file
---------------------
``program`` names a file of ``hebbstream chip compile``, and the chip runs it from the first event on::

    [[operator]]
    name = "chip"
    kind = "chip.node.ChipNode"
    params = { program = "digits.prog" }

It brings its sensor, chip and phase with it. One that takes spikes has an input ``spikes`` instead of ``events``: a
network that runs event by event can send to it. A semi-folded one gathers a frame for each of the network's phases
(:mod:`chip.frames`), and says spikes and answers by the numbers of the unfolded network.

Marks
-----
``Deploy``  weights are quantised and written between two phases; potentials stay. New shapes: a new program, at rest;
            but a program from a file stands, and takes weights only if it is a chain of dense layers of these shapes.
            What it says of local plasticity is obeyed with ``local_rules``, see :mod:`chip.learning`.
``Reset``   every phase that has ended runs, then all goes to rest; input of the unfinished one is dropped, and counted.
``Label``   every phase that has ended runs, then the answer goes out: the class with the largest time average of the
            readout's membrane over the phases since the last reset (ties: the lowest; -1 if no phase ran).
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chip.advance import Output
from chip.compiler import Program, compile_network, fits, program_bytes, reweigh
from chip.grid import GridState
from chip.learning import (
    LEARNING_DTYPE,
    Host,
    LocalRule,
    clear_host,
    held_rows,
    learning_network,
    local_rule,
    new_host,
    rewritten,
)
from chip.mesh import link_ends, plane_of
from chip.network import QuantisedNetwork
from chip.profile import load_profile
from chip.program_file import load_program
from chip.quantise import QuantisedLayer, chain, float_layers, quantise
from chip.report import report
from chip.run import Running, answer_of, begin, lines_of, proceed, rest, scores_of, steps_of
from neurons.encode import check_events, n_input_units, read_only, unit_of
from neurons.graph import n_units
from stream.errors import ConfigError, StreamError
from stream.fit import LATEST_US
from stream.jit import kernel
from stream.operator import Emit, Operator, Port, Snapshot, check_shapes
from stream.packet import (
    ANSWER_DTYPE,
    EVENT_DTYPE,
    PHASE_DTYPE,
    SPIKE_DTYPE,
    Deploy,
    Label,
    Mark,
    Packet,
    Reset,
    packet_of,
)

__all__ = ["ChipNode"]

LAYER_NUMBERS = 3  # scale, alpha, threshold (nan for the readout)
BOOK_DTYPE = np.dtype(
    [
        ("anchored", "<i8"),  # 1 once the phase grid is fixed
        ("anchor_us", "<i8"),  # a phase begins here
        ("time_us", "<i8"),  # nothing earlier may come
        ("sent_us", "<i8"),  # the outputs' spans reach up to here
        ("end_us", "<i8"),  # end of the last packet
        ("begun", "<i8"),
        ("before_deploy", "<i8"),  # events that came before the first weights
        ("dropped", "<i8"),  # waiting input lines dropped by a reset or a new program
        ("deploys", "<i8"),
        ("deploy_bytes", "<i8"),
    ]
)


@kernel
def _encode(events: Any, width: int, incoming: Any) -> int:
    """Write events as spikes of input lines."""
    for k in range(len(events)):
        incoming[k]["t"] = events[k]["t"]
        incoming[k]["unit"] = unit_of(events[k], width)
    return len(events)


class ChipNode(Operator):
    """A core-grid chip that classifies a stream of events.

    Parameters
    ----------
    width, height
        The sensor's size, pixels. Input line of an event: ``(y * width + x) * 2 + p``. A program brings its own.
    profile
        Name of a shipped chip profile, or path of a TOML file; default: the program's, or ``tianjic-2019``.
    phase_us
        Length of a phase, us; default: the program's, or 1000.
    strict
        Raise CapacityError when a sum or a potential overflows, instead of saturating and counting it.
    local_rules
        Let the host beside the chip learn between phases, as deployments say (``deploy_rules`` of the learner).
    reset_local
        Whether a ``Reset`` clears fast changes and tired terminals; False carries them along the stream.
    program
        A file of ``hebbstream chip compile``, to begin with.

    Raises
    ------
    ConfigError
        If a number is missing, or is another one than the program's.
    FormatError, CapacityError
        As ``chip.program_file.load_program``.

    Notes
    -----
    Without ``program`` it has none until the first ``Deploy``: until then events are counted and let go, and answers
    are -1.
    """

    def __init__(
        self,
        *,
        width: int | None = None,
        height: int | None = None,
        profile: str = "",
        phase_us: int | None = None,
        strict: bool = True,
        local_rules: bool = False,
        reset_local: bool = True,
        program: str = "",
    ) -> None:
        self.strict, self.local_rules, self.reset_local = strict, local_rules, reset_local
        self.chip: Running | None = None
        self.host: Host | None = None
        self._layers: list[QuantisedLayer] = []  # in force, as the last mark brought them
        self._rule: LocalRule | None = None  # likewise
        self._path, self._print = program, np.zeros(0, np.uint8)  # of the program's file
        self.width, self.height = width or 0, height or 0  # 0: spikes come in
        self._channels = 2
        if program:
            made = self._given()
            self._print = np.frombuffer(hashlib.sha256(Path(program).expanduser().read_bytes()).digest(), np.uint8)
            self.profile, self.phase_us = made.profile, made.whole.phase_us
            inputs = made.whole.inputs
            takes_events = len(inputs) == 3 and inputs[2] <= 2
            size = inputs[:2] if takes_events else (0, 0)
            for name, given, wanted in (
                ("height", height, size[0]),
                ("width", width, size[1]),
                ("phase_us", phase_us, self.phase_us),
                ("profile", load_profile(profile).name if profile else None, self.profile.name),
            ):
                if given is not None and given != wanted:
                    raise ConfigError(
                        f"chip: {name} is {given}, and {program} has {wanted or 'none'}; leave it out, the program "
                        f"brings its own"
                    )
            self.height, self.width = size
            self._channels = inputs[2] if takes_events else 0
            self._n_inputs = n_units(inputs)
        else:
            if width is None or height is None or width < 1 or height < 1:
                raise ConfigError(
                    f"chip: sensor of {width} x {height} pixels, wanted at least 1 x 1; set both, or program"
                )
            self.profile = load_profile(profile or "tianjic-2019")
            self.phase_us = 1000 if phase_us is None else phase_us
            if self.phase_us < self.profile.shortest_phase_us:
                raise ConfigError(
                    f"chip: phase_us is {phase_us}, {self.profile.name} needs {self.profile.shortest_phase_us} us or "
                    f"more"
                )
            self._n_inputs = n_input_units(width, height)
        self.inputs = (
            {"events": Port("events", width=self.width, height=self.height)}
            if self._channels
            else {"spikes": Port("spikes", n_units=self._n_inputs)}
        )
        self.outputs = {"spikes": Port("spikes"), "answers": Port("answers"), "phases": Port("phases")}
        self._book = np.zeros(1, BOOK_DTYPE)
        self._book["time_us"] = np.iinfo(np.int64).min
        if program:
            self.chip = begin(made, 0)

    def _given(self) -> Program:
        """Read the program that the file holds."""
        return load_program(self._path).program

    @property
    def program(self) -> Program | None:
        """The program in force."""
        return None if self.chip is None else self.chip.program

    @property
    def state(self) -> GridState | None:
        """What the grid remembers."""
        return None if self.chip is None else self.chip.state

    # -- the stream ----------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Compile every kernel, on a chip of two neurons that is thrown away."""
        twin = ChipNode(width=1, height=1, profile="tianjic-2019", local_rules=self.local_rules)
        arrays: dict[str, NDArray[Any]] = {
            "layer0.weight": np.ones((2, 1), np.float32),
            "layer0.tau_mem_us": np.array(1e4),
            "layer0.v_threshold": np.array(1.0),
            "layer1.weight": np.ones((1, 1), np.float32),
            "layer1.tau_mem_us": np.array(1e4),
        }
        if self.local_rules:
            arrays |= {
                "layer0.terminal": np.array([(0.2, 1e5, 0.5, 0.5, 1e4)] * 2),
                "layer0.local_rate": np.ones(2),
                "layer0.sliding_threshold": np.zeros(1),
                "layer0.hebb": np.array([0.1, 1e5, 1.0]),
            }
        twin.on_mark("events", Deploy(0, 0, arrays), _nowhere)
        twin.on_packet("events", packet_of(np.array([(0, 0, 0, 1), (3000, 0, 0, 1)], EVENT_DTYPE)), _nowhere)

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Put events on the axons and run the phases that they close."""
        book = self._book[0]
        incoming = self._spikes(read_only(packet.items), int(book["time_us"]))
        self._begin(packet.start_us)
        if len(incoming):
            self._anchor(int(incoming["t"][0]))
        book["end_us"] = max(int(book["end_us"]), packet.end_us)
        if self.chip is None:
            book["before_deploy"] += len(incoming)
            incoming = incoming[:0]
        self._advance(incoming, packet.end_us - 1, emit, packet.origin_ns)

    def _spikes(self, items: NDArray[np.void], t_us: int) -> NDArray[np.void]:
        """Return what came as spikes of input lines; StreamError if one does not fit."""
        if self._channels:
            check_events("chip", items, self.width, self.height, t_us)
            incoming = np.empty(len(items), SPIKE_DTYPE)
            _encode(items, self.width, incoming)
            if self._channels == 1:
                incoming["unit"] >>= 1  # both polarities alike
            return incoming
        before = np.concatenate([[t_us], items["t"][:-1]])
        unfit = np.flatnonzero((items["unit"] >= self._n_inputs) | (items["t"] < before) | (items["t"] > LATEST_US))
        if len(unfit):
            k = int(unfit[0])
            t, unit = (int(number) for number in items[k].tolist())
            raise StreamError(
                f"chip: spike {k} of the packet is (t={t} us, unit={unit}), wanted unit < {self._n_inputs} and t from "
                f"{int(before[k])} us to {LATEST_US} us; check what sends here, or send a new stream through a fresh "
                f"pipeline"
            )
        return np.array(items, SPIKE_DTYPE)  # of one kind: may be written to

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Obey a mark, then pass it on to every output; weights end here."""
        self._begin(mark.t_us)
        self._anchor(mark.t_us)
        self._advance(np.empty(0, SPIKE_DTYPE), mark.t_us, emit)
        match mark:
            case Deploy():
                self._deploy(mark)
            case Reset():
                self._reset(mark.t_us)
            case Label():
                row = (mark.t_us, mark.start_us, mark.label, self.answer(), mark.teach)
                emit("answers", packet_of(np.array([row], ANSWER_DTYPE)))
        if not isinstance(mark, Deploy):
            super().on_mark(port, mark, emit)

    def on_end(self, emit: Emit) -> None:
        """Run the phase that ends where the last packet did."""
        if self._book["begun"][0]:
            self._advance(np.empty(0, SPIKE_DTYPE), int(self._book["end_us"][0]), emit)

    def answer(self) -> int:
        """Return the class with the largest score since the last reset, -1 if no phase ran."""
        return -1 if self.chip is None else answer_of(self.chip)

    def _begin(self, t_us: int) -> None:
        """Remember where the outputs' spans begin."""
        if not self._book["begun"][0]:
            self._book["begun"], self._book["sent_us"], self._book["end_us"] = 1, t_us, t_us

    def _anchor(self, t_us: int) -> None:
        """Fix the phase grid, unless it is."""
        if not self._book["anchored"][0]:
            self._book["anchored"], self._book["anchor_us"] = 1, t_us // self.phase_us * self.phase_us
            if self.chip is not None:
                rest(self.chip, int(self._book["anchor_us"][0]))

    def _advance(self, incoming: NDArray[np.void], until_us: int, emit: Emit, origin_ns: int = 0) -> None:
        """Run the phases that end by ``until_us`` and send what they made."""
        book = self._book[0]
        until_us = max(until_us, int(book["time_us"]))
        output = self._run(incoming, until_us)
        book["time_us"] = until_us
        start_us = int(book["sent_us"])
        end_us = max(start_us, until_us + 1)
        book["sent_us"] = end_us
        emit("spikes", Packet(output.spikes, start_us, end_us, origin_ns))
        emit("phases", Packet(output.rows, start_us, end_us, origin_ns))

    def _run(self, incoming: NDArray[np.void], until_us: int) -> Output:
        """Run until everything is taken in and every phase has run."""
        if self.chip is None:
            return Output(np.empty(0, SPIKE_DTYPE), np.empty(0, PHASE_DTYPE))
        return proceed(self.chip, incoming, until_us, self.strict, self.host)

    # -- programs ------------------------------------------------------------------------------------------------------

    def _deploy(self, mark: Deploy) -> None:
        """Quantise new weights and put them in force."""
        layers = [
            quantise(layer, self.phase_us, self.profile, f"layer{number}")
            for number, layer in enumerate(float_layers(mark.arrays))
        ]
        rule = local_rule(mark.arrays)
        if rule is not None and not self.local_rules:
            raise ConfigError(
                "chip: a deployment brings local rules; set local_rules = true, or deploy_rules = false at the learner"
            )
        book = self._book[0]
        network = self._network(layers, rule)
        alike = self.chip is not None and _kind(rule) == _kind(self._rule) and fits(self.chip.program, network)
        if self.chip is not None and alike:
            program, state = self.chip.program, self.chip.state
            held = None if self.host is None else held_rows(program.grid, self.host)
            n_bytes = reweigh(program, self._network(layers, rule, held)) - (0 if held is None else held.size)
            if self.host is not None and rule is not None:
                self.host = rewritten(self.host, program, layers[0], rule, self.phase_us)
            self._layers, self._rule = layers, rule
            state.idle[:] = 0  # what did nothing with the old weights may do something with the new
            state.clock["still"] = 0
        elif self._path:
            raise ConfigError(
                f"chip: a deployment of layers {' '.join(str(layer.weight.shape) for layer in layers)}"
                f"{', with local rules' if rule else ''} does not suit {self._path}; leave out the program, or let the "
                f"learner deploy nothing (deploy_every = 0)"
            )
        else:
            program = self._compile(layers, rule)
            n_bytes = program_bytes(program)
            host = None if rule is None else new_host(program, layers[0], rule, self.phase_us)
            if host is not None:
                n_bytes -= host.state.fast.size  # nothing stands there yet
            phases = (int(mark.t_us) - int(book["anchor_us"])) // self.phase_us
            chip = begin(program, int(book["anchor_us"]) + phases * self.phase_us)
            if self.chip is not None:
                book["dropped"] += self._waiting()
                # those of cores and links begin anew: they are others now
                chip.state.totals[:] = self.chip.state.totals
            self.chip, self._layers, self._rule, self.host = chip, layers, rule, host
        book["deploys"] += 1
        book["deploy_bytes"] += n_bytes

    def _network(
        self, layers: list[QuantisedLayer], rule: LocalRule | None, held: NDArray[np.int8] | None = None
    ) -> QuantisedNetwork:
        if rule is None:
            network = chain(layers, self.profile)
        else:
            network = learning_network(layers, rule, self.profile, held=held)
        return network._replace(phase_us=self.phase_us)

    def _compile(
        self, layers: list[QuantisedLayer], rule: LocalRule | None, held: NDArray[np.int8] | None = None
    ) -> Program:
        """Compile for this sensor; the program of the file, reweighed, if that is what it is."""
        if layers[0].weight.shape[0] != self._n_inputs:
            raise ConfigError(
                f"chip: layer0.weight has {layers[0].weight.shape[0]} rows, wanted {self._n_inputs}: "
                + (
                    f"{self._channels} for each pixel of {self.width} x {self.height}; set width and height to those "
                    f"that the network was trained for"
                    if self._channels
                    else "one for each input line of the program"
                )
            )
        network = self._network(layers, rule, held)
        if self._path:
            given = self._given()
            reweigh(given, network)
            return given
        return compile_network(network, self.profile)

    def _waiting(self) -> int:
        """Count the input lines that wait for a phase."""
        if self.chip is None:
            return 0
        frames = self.chip.frames
        waiting = int(self.chip.state.clock["n_input"][0] if frames is None else np.sum(frames.waiting))
        return waiting + (0 if self.host is None else int(self.host.state.counts["n_waiting"][0]))

    def _reset(self, t_us: int) -> None:
        """Put the chip at rest; the first phase begins at ``t_us``."""
        self._book["anchor_us"] = t_us
        if self.chip is not None:
            self._book["dropped"] += self._waiting()
            rest(self.chip, t_us)
            if self.host is not None:
                clear_host(self.host, self.reset_local)

    def report(self) -> dict[str, float | str]:
        """Sum up the program in force; see :func:`chip.report.report`."""
        return {} if self.program is None else report(self.program)

    # -- state ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return the integers of the network in force, the whole state of the grid, and the counts.

        A program from a file is not in it, but the sum of its bytes, so that no other takes its place.
        """
        arrays: Snapshot = {"book": self._book.view("<i8").copy()}
        if self._path:
            arrays["program.sha256"] = self._print.copy()
        if self.chip is not None:
            for number, layer in enumerate(self._layers):
                threshold = np.nan if layer.v_threshold is None else layer.v_threshold
                arrays[f"layer{number}.weight"] = layer.weight.copy()
                arrays[f"layer{number}.numbers"] = np.array([layer.scale, layer.alpha, threshold], np.float64)
            arrays |= {name: array.copy() for name, array in _state_arrays(self.chip).items()}
            if self._rule is not None and self.host is not None:
                arrays |= {f"rule.{name}": array.copy() for name, array in self._rule._asdict().items()}
                arrays |= {name: array.copy() for name, array in _host_arrays(self.host).items()}
                arrays["host.held"] = held_rows(self.chip.program.grid, self.host)
        return arrays

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a snapshot; compiles the network that it holds."""
        layers: list[QuantisedLayer] = []
        own: dict[str, NDArray[Any]] = {"book": self._book.view("<i8")}
        if self._path:
            own["program.sha256"] = self._print
        while f"layer{len(layers)}.weight" in snapshot:
            name = f"layer{len(layers)}"
            weight, numbers = snapshot[f"{name}.weight"], snapshot.get(f"{name}.numbers", np.empty(0))
            if weight.ndim != 2 or weight.dtype != np.int8 or numbers.shape != (LAYER_NUMBERS,):
                raise ConfigError(
                    f"snapshot of chip: {name} is no quantised layer; take it from a chip of this version"
                )
            own |= {f"{name}.weight": weight, f"{name}.numbers": numbers}
            scale, alpha, threshold = (float(number) for number in numbers)
            layers.append(
                QuantisedLayer(weight.copy(), scale, int(alpha), None if np.isnan(threshold) else int(threshold))
            )
        chip, rule, host = None, None, None
        arrays: dict[str, NDArray[Any]] = {}
        if layers:
            rule, held = _rule_in(snapshot, layers[0]), None
            if rule is not None:
                own |= {f"rule.{name}": array for name, array in rule._asdict().items()}
                held = np.asarray(snapshot.get("host.held", np.zeros(0, np.int8)))
                n_rows = layers[0].weight.shape[0] if len(rule.local_rate) else 0
                own["host.held"] = np.zeros((n_rows, layers[0].weight.shape[1]), np.int8)
                check_shapes("chip", {"host.held": own["host.held"]}, {"host.held": held})
            program = self._compile(layers, rule, held if rule is not None and len(rule.local_rate) else None)
            host = None if rule is None else new_host(program, layers[0], rule, self.phase_us)
            chip = begin(program, 0)
        elif self._path:
            chip = begin(self._given(), 0)
        if chip is not None:
            arrays = _state_arrays(chip) | ({} if host is None else _host_arrays(host))
        check_shapes("chip", own | arrays, snapshot)
        if self._path and not np.array_equal(snapshot["program.sha256"], self._print):
            raise ConfigError(f"snapshot of chip: was taken with another program than {self._path}; start it with that")
        if chip is not None:
            took_us, ours_us = int(snapshot["grid.clock"][1]), int(chip.state.clock["phase_us"][0])
            if took_us != ours_us:
                raise ConfigError(
                    f"snapshot of chip: phases of {took_us} us, wanted {ours_us}; restore it into the operator, with "
                    f"the parameters, that it was taken from"
                )
        for name, array in arrays.items():
            array[...] = snapshot[name]
        self.chip, self._layers, self._rule, self.host = chip, layers, rule, host
        self._book.view("<i8")[:] = snapshot["book"]

    def look(self, what: str) -> Snapshot:
        """Show what cores and links have done so far.

        Returns
        -------
        dict of str to array
            ``cores`` int32 (n_cores, 3): x, y, layer; ``core_ops``, ``core_packets`` int64 (n_cores,), running totals;
            ``links`` int32 (n_links, 4): from x, y to x, y (-1: the host); ``link_total`` int64 (n_links,); ``plane``
            int32 (2,): width and height in cores; ``scores`` float32 (n_classes,).
        """
        if what != "state" or self.chip is None:
            return {}
        program, state = self.chip.program, self.chip.state
        plane = plane_of(self.profile)
        cores = [(x, y, part.layer) for (x, y), part in zip(program.positions, program.parts, strict=True)]
        ends = [link_ends(plane, int(link)) for link in program.grid.links]
        links = [(*(start or (-1, -1)), *(stop or (-1, -1))) for start, stop in ends]
        scores = np.zeros(0, np.float32)
        if outputs := lines_of(self.chip, "outputs"):
            readout = list(outputs)[-1]
            scale = next(layer.sent_scale for layer in program.whole.layers if layer.name == readout)
            scores = (scores_of(self.chip)[outputs[readout]] / (max(1, steps_of(self.chip)) * scale)).astype(np.float32)
        return {
            "cores": np.array(cores, np.int32).reshape(-1, 3),
            "core_ops": state.core_ops.copy(),
            "core_packets": state.core_packets.copy(),
            "links": np.array(links, np.int32).reshape(-1, 4),
            "link_total": state.link_total.copy(),
            "plane": np.array([plane.width, plane.height], np.int32),
            "scores": scores,
        }

    def statistics(self) -> dict[str, float]:
        """Return running counts."""
        book = self._book[0]
        counts: dict[str, float] = {
            "deploys": int(book["deploys"]),
            "deploy bytes": int(book["deploy_bytes"]),
            "events before the first weights": int(book["before_deploy"]),
            "input spikes dropped by resets": int(book["dropped"]),
        }
        if self.chip is not None:
            totals = self.chip.state.totals
            for name in totals.dtype.names or ():
                if name != "overflow_core":
                    counts[name.replace("_", " ")] = int(totals[name][0])
            counts["cores used"] = len(self.chip.program.cores)
        if self.host is not None:
            for name in LEARNING_DTYPE.names or ():
                if name not in ("now", "n_waiting"):
                    counts[f"host {name.replace('_', ' ')}"] = int(self.host.state.counts[name][0])
        return counts


def _nowhere(name: str, message: object) -> None:
    """Send nothing to nobody."""


def _kind(rule: LocalRule | None) -> tuple[bool, bool]:
    return rule is not None and len(rule.terminal) > 0, rule is not None and len(rule.local_rate) > 0


def _rule_in(snapshot: Snapshot, layer: QuantisedLayer) -> LocalRule | None:
    """Read the local rule of a snapshot."""
    given = {
        f"layer0.{name}": snapshot[f"rule.{name}"]
        for name in LocalRule._fields
        if f"rule.{name}" in snapshot and len(snapshot[f"rule.{name}"])
    }
    return local_rule({**given, "layer0.weight": layer.weight})


def _host_arrays(host: Host) -> dict[str, NDArray[Any]]:
    """Name what the host remembers, without its scratch."""
    arrays = {f"host.{name}": array for name, array in host.state._asdict().items() if name not in ("sent", "z")}
    return {name: array.view("<i8") if array.dtype.names else array for name, array in arrays.items()}


def _state_arrays(chip: Running) -> dict[str, NDArray[Any]]:
    """Name the arrays of a chip's state, without its scratch; records as rows of int64, which any file format holds."""
    scratch = {"link_change", "input_packets", "current", "total", "fired", "firing", "soma"}
    arrays: dict[str, NDArray[Any]] = {
        f"grid.{name}": getattr(chip.state, name) for name in GridState._fields if name not in scratch
    }
    arrays |= {f"soma.{name}": array for name, array in chip.state.soma._asdict().items()}
    if chip.frames is not None:
        arrays |= {f"frames.{name}": array for name, array in chip.frames._asdict().items()}
    return {name: array.view("<i8") if array.dtype.names else array for name, array in arrays.items()}
