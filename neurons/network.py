"""Networks of any depth, with recurrence, as one operator: events or spikes in, spikes of every population out.

What a network is stands in ``neurons.graph``; what happens in which order in ``neurons.engine``. In a pipeline file a
network is named by the file that :func:`neurons.graph_file.save_graph` wrote::

    [[operator]]
    name = "net"
    kind = "neurons.network.Network"
    params = { path = "digits.safetensors", readout = "scores" }

Each population of a spiking model is an output port of its own name; ``answers`` is one more if ``readout`` names a
population of leaky integrators.

Time inside begins with the first message, or anew at a ``Reset`` mark: grids (Izhikevich, phases) and drives count from
there, so a stream that starts at another time gives the same bits. What is due up to the end of a packet is done when
the packet is; what is due after the end of the stream never happens.

Marks
-----
``Reset``   what is due up to the mark happens, then all goes to rest and what was on its way is dropped.
``Label``   what is due up to the mark happens, then the answer goes out: the class with the largest time average of the
            readout's potential since the last ``Reset`` or ``Label`` (ties: the lowest). A new window begins.
Others pass.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neurons.encode import check_events, read_only, unit_of
from neurons.engine import run, settle, start
from neurons.graph import (
    LONGEST_US,
    Graph,
    check_graph,
    n_units,
    shape_of,
)
from neurons.graph_file import load_graph
from neurons.heap import compact
from neurons.izhikevich import IzhikevichUnits
from neurons.layout import lay_out
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.program import (
    ANCHOR_US,
    ARRIVING,
    DONE,
    FIRED_DTYPE,
    FIRST,
    HARD,
    HEAP_FULL,
    HELD_UNTIL_US,
    LEAKY_INTEGRATOR,
    LOG_FULL,
    MODEL,
    N_BOOK,
    N_DELAYED,
    N_DELIVERIES,
    N_DIRECT,
    N_HEAP,
    N_OUT,
    N_PROGRESS_COLUMNS,
    N_QUEUE,
    N_SPIKES,
    N_TAPE,
    NEVER_US,
    NEXT_SEQUENCE,
    NOW_US,
    OUT_FULL,
    QUEUE_FULL,
    SEQUENCE,
    TAPE_FULL,
    TAPE_STOP,
    TARGET,
    TICKING,
    TIME,
    UNITS,
    WHOLE,
    WINDOW_FULL,
    State,
)
from neurons.quantised_front import LONGEST_RUN
from stream.errors import ConfigError, RunError, StreamError
from stream.jit import kernel
from stream.lanes import aligned
from stream.operator import Emit, Operator, Port, Snapshot, check_shapes
from stream.packet import ANSWER_DTYPE, EVENT_DTYPE, SPIKE_DTYPE, Label, Mark, Packet, Reset, packet_of

__all__ = ["Network"]

BEFORE_ALL_US = -(2**61)
LATEST_US = 2**61
MOST_WAITING = 2**22  # spikes on their way; more is a network that fires more and more
ROOM = 16384  # spikes that go out before Python is entered

# what of State.book belongs to the state between two calls
BOOK_KEPT = [NEXT_SEQUENCE, ANCHOR_US, TICKING, N_SPIKES, N_DELIVERIES]

# places of Network._clock
DONE_US, BEGUN, WINDOW_US, N_ITEMS = range(4)
N_CLOCK = 4

Discipline = Literal["event", "phase"]
Precision = Literal["float32", "float64"]


@kernel
def _encode(events: Any, width: int, channels: int, items: Any) -> int:
    """Write events as spikes of input units; one channel: both polarities are the same unit."""
    for k in range(len(events)):
        items[k]["t"] = events[k]["t"]
        items[k]["unit"] = unit_of(events[k], width) >> (2 - channels)
    return len(events)


@kernel
def _pick(fired: Any, n_fired: int, population: int, spikes: Any) -> int:
    """Copy the spikes of one population; returns how many."""
    n = 0
    for k in range(n_fired):
        if fired[k]["population"] == population:
            spikes[n]["t"] = fired[k]["t"]
            spikes[n]["unit"] = fired[k]["unit"]
            n += 1
    return n


@kernel
def _first_unfit(items: Any, n: int, t_us: int, latest_us: int) -> int:
    """Find the first spike of a unit that is not there, or before its predecessor; ``len(items)`` if there is none."""
    for k in range(len(items)):
        t = items[k]["t"]
        if items[k]["unit"] >= n or t < t_us or t > latest_us:
            return k
        t_us = t
    return len(items)


def _nothing() -> None:
    """Begin no window."""


def _copy(state: State) -> State:
    return State(**{name: array.copy() for name, array in state._asdict().items()})


class Network(Operator):
    """A network of spiking populations, run event by event.

    Parameters
    ----------
    path
        A network file, written by ``neurons.graph_file.save_graph``. From Python: :meth:`of`.
    discipline
        ``event``: thresholds are tested at every event. ``phase``: once at the end of every ``phase_us``.
    phase_us
        Length of a phase, us; only for ``phase``.
    readout
        A population of leaky integrators that answers at ``Label`` marks; none if empty.
    precision
        Of weights and states, ``float32`` or ``float64``. Times are int64 and their differences float64 anyway.

    Raises
    ------
    ConfigError
        If the file or the network is not in order, or ``readout`` or the discipline do not fit it.

    Notes
    -----
    Operators may be spread over processes in any way: same bits (``tests/neurons/test_split.py``). To cut *one network*
    in two operators is another thing: it makes another program of it, with the same bits if what lies before the cut
    fires at input events alone, and one population lies behind it. More cannot be had, for what crosses the cut is a
    time and a unit, and not

    - when it was scheduled: what fires by itself before the cut may meet, in its very microsecond, a delayed spike or a
      crossing behind it. One network goes by the order of scheduling; behind the cut an input event comes after what is
      due inside;
    - of which cascade it was: one event may make several units fire. In one network a population behind hears all of
      them before it hears what another one makes of the first; behind the cut each is an event of its own.

    The road not taken, an order by microsecond and population instead of by cause, could be cut anywhere, but all
    events of a microsecond would be one happening, in which the layers behind lose who caused what.

    Input: a network with inputs (height, width, 2) takes the events of such a sensor; with (height, width, 1) too, both
    polarities alike; any other takes spikes.
    """

    def __init__(
        self,
        *,
        path: str,
        discipline: Discipline = "event",
        phase_us: int = 1000,
        readout: str = "",
        precision: Precision = "float32",
    ) -> None:
        self._set_up(load_graph(Path(path)), discipline, phase_us, readout, precision)

    @classmethod
    def of(
        cls,
        graph: Graph,
        *,
        discipline: Discipline = "event",
        phase_us: int = 1000,
        readout: str = "",
        precision: Precision = "float32",
    ) -> "Network":
        """Make one from a graph; parameters and errors as for the class."""
        network = cls.__new__(cls)
        network._set_up(graph, discipline, phase_us, readout, precision)
        return network

    def _set_up(self, graph: Graph, discipline: Discipline, phase_us: int, readout: str, precision: Precision) -> None:
        check_graph(graph)
        for name, value, allowed in (
            ("discipline", discipline, get_args(Discipline)),
            ("precision", precision, get_args(Precision)),
        ):
            if value not in allowed:
                raise ConfigError(f"Network {name}: got {value!r}, wanted one of {', '.join(allowed)}")
        if discipline == "phase":
            if not 1 <= phase_us <= LONGEST_US:
                raise ConfigError(f"Network phase_us: got {phase_us}, wanted whole us, 1 to {LONGEST_US}")
            for population in graph.populations:
                if isinstance(population.model, IzhikevichUnits):
                    raise ConfigError(
                        f"population '{population.name}': Izhikevich's units have steps of their own; run the network "
                        f"with discipline 'event'"
                    )
        self.graph = graph
        self._names = [population.name for population in graph.populations]
        integrators = [p.name for p in graph.populations if isinstance(p.model, LeakyIntegratorUnits)]
        if readout and readout not in integrators:
            raise ConfigError(
                f"Network readout: got '{readout}', wanted a population of leaky integrators "
                f"({', '.join(integrators) or 'there is none'}), or none"
            )
        self._readout = self._names.index(readout) if readout else -1
        if readout and "answers" in self._names:
            raise ConfigError("population 'answers': with a readout, that is the name of an output; call it otherwise")
        self._n_inputs = n_units(graph.inputs)
        self._channels = 0  # spikes in
        if len(graph.inputs) == 3 and graph.inputs[2] <= 2 and max(graph.inputs[:2]) <= 2**16:
            height, width, self._channels = graph.inputs
            self._width, self._height = int(width), int(height)
            self.inputs = {"events": Port("events", self._width, self._height)}
        else:
            self.inputs = {"spikes": Port("spikes", n_units=self._n_inputs)}
        self.outputs = {
            p.name: Port("spikes", n_units=n_units(p.shape)) for p in graph.populations if p.name not in integrators
        }
        if readout:
            self.outputs["answers"] = Port("answers")
        real = np.dtype(precision)
        self._program, self._rest, self._v, self._w, n_groups = lay_out(
            graph, real, int(phase_us) if discipline == "phase" else 0
        )
        n_all = len(self._v)
        most = 2 * max(n_units(p.shape) for p in graph.populations)
        n_whole = len(self._program.scale)
        self.state = State(
            v=aligned(np.zeros(n_all, real)),
            w=np.zeros(n_all, real),
            integral_us=np.zeros(n_all),
            held_us=np.zeros(n_all, np.int64),
            lag_us=np.zeros(n_all),
            next_us=np.zeros(n_all, np.int64),
            next_sequence=np.zeros(n_all, np.int64),
            t_us=np.zeros(n_groups, np.int64),
            pending=np.zeros(n_whole, np.int32),
            progress=np.zeros((len(self._names), N_PROGRESS_COLUMNS), np.int64),
            book=np.zeros(N_BOOK, np.int64),
            # room for what a network at rest schedules by itself
            heap=np.zeros((max(64, n_all + len(self._names) + 1), 5), np.int64),
            queue=np.zeros(max(most, n_all, LONGEST_RUN * n_whole), np.int64),
            spare=aligned(np.zeros(most // 2, real)),
            hot=np.zeros((most + 256, 3), np.int64),
            runs=np.zeros((3, LONGEST_RUN + 1), np.int64),
            notes=np.zeros((2, LONGEST_RUN * n_whole), np.int64),
            log_us=np.zeros((len(self._names), 0), np.int64),
            log_unit=np.zeros((len(self._names), 0), np.int64),
            tape=np.zeros((0, 4), np.int64),
            taped=np.zeros(0),
        )
        self._out = np.zeros(max(ROOM, most, n_all, 2 * LONGEST_RUN * n_whole), FIRED_DTYPE)
        self._picked = np.zeros(len(self._out), SPIKE_DTYPE)
        self._items = np.zeros(0, SPIKE_DTYPE)
        self._clock = np.zeros(N_CLOCK, np.int64)
        self._clock[DONE_US] = BEFORE_ALL_US
        self._origin_ns = 0  # of the last packet: an answer's latency counts from there
        self._begin_window: Callable[[], None] = _nothing
        self._rest_at(0)

    def _rest_at(self, t_us: int) -> None:
        """Put everything to rest; nothing is scheduled."""
        state = self.state
        state.v[...] = self._v
        state.w[...] = self._w
        for array in (state.integral_us, state.lag_us, state.pending):
            array.fill(0)
        state.held_us.fill(BEFORE_ALL_US)
        state.next_us.fill(NEVER_US)
        state.next_sequence.fill(-1)
        state.t_us.fill(t_us)
        state.progress.fill(0)
        state.progress[:, HELD_UNTIL_US] = BEFORE_ALL_US
        kept = [N_SPIKES, N_DELIVERIES, N_TAPE, TAPE_STOP]
        counts = state.book[kept]
        state.book.fill(0)
        state.book[kept] = counts
        state.book[ARRIVING] = -1

    def _start(self, t_us: int) -> None:
        self._rest_at(t_us)
        start(self._program, self.state, t_us)
        self._clock[[BEGUN, WINDOW_US]] = 1, t_us
        self._begin_window()

    def begin(self, t_us: int) -> None:
        """Begin another stream at ``t_us``: everything at rest, whatever was before."""
        self._clock[DONE_US] = BEFORE_ALL_US
        self._start(t_us)

    # -- running -------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Compile every kernel, on a copy of the state."""
        nothing = read_only(np.empty(0, SPIKE_DTYPE))
        state = self.state
        self.state = _copy(state)
        clock = self._clock.copy()
        try:
            self._start(0)
            self._run(nothing, 0, BEFORE_ALL_US)  # of a plastic network: the kernel with its rules, not the plain one
            settle(self._program, self.state, 0, 0, self._out)
            _pick(self._out, 0, 0, self._picked)
            compact(self.state.heap, self.state.book, self.state.next_sequence)
            _first_unfit(nothing, self._n_inputs, BEFORE_ALL_US, LATEST_US)
            if self._channels:
                _encode(read_only(np.empty(0, EVENT_DTYPE)), self._width, self._channels, self._items)
        finally:
            self.state, self._clock = state, clock

    def run(self, items: NDArray[np.void], until_us: int | None = None) -> dict[str, NDArray[np.void]]:
        """Take in events or spikes and return what they and time cause.

        Parameters
        ----------
        items
            EVENT_DTYPE or SPIKE_DTYPE as the network's input is, shape (n,), sorted by ``t``, not earlier than what was
            run already.
        until_us
            What is due inside up to here happens too, us; default: the last item's time.

        Returns
        -------
        dict
            For each population of a spiking model its spikes, SPIKE_DTYPE, shape (n_spikes,), sorted by ``t``.

        Raises
        ------
        StreamError
            If an item is of no input unit or goes back in time; the state is then as before the call.
        """
        if until_us is None:
            if not len(items) and not self._clock[BEGUN]:
                return {name: np.empty(0, SPIKE_DTYPE) for name in self._names if name in self.outputs}
            until_us = int(items["t"][-1]) if len(items) else int(self._clock[DONE_US])
        spikes = self._check(items)
        if not self._clock[BEGUN]:
            self._start(int(items["t"][0]) if len(items) else until_us)
        return self._advance(spikes, until_us)

    def _check(self, items: NDArray[np.void]) -> NDArray[np.void]:
        """Return items as spikes of input units, read-only; StreamError if one does not fit."""
        items = read_only(items)
        done_us = int(self._clock[DONE_US])
        if self._channels:
            check_events("network", items, self._width, self._height, done_us)
            if len(items) > len(self._items):
                self._items = np.empty(len(items), SPIKE_DTYPE)
            n = _encode(items, self._width, self._channels, self._items)
            return read_only(self._items[:n])
        k = _first_unfit(items, self._n_inputs, done_us, LATEST_US)
        if k < len(items):
            t, unit = (int(number) for number in items[k].tolist())
            before = int(items["t"][k - 1]) if k else done_us
            raise StreamError(
                f"network: spike {k} of the packet is (t={t} us, unit={unit}), wanted unit < {self._n_inputs} and t "
                f"from {before} us to {LATEST_US} us; check the network's inputs, or send a new stream through a fresh "
                f"pipeline"
            )
        return items

    def _advance(self, spikes: NDArray[np.void], until_us: int) -> dict[str, NDArray[np.void]]:
        until_us = max(until_us, int(self._clock[DONE_US]))
        parts: dict[str, list[NDArray[np.void]]] = {name: [] for name in self.outputs if name in self._names}
        k, code = 0, OUT_FULL
        while code != DONE:
            self.state.book[N_OUT] = 0
            k, n_out, code = self._run(spikes, k, until_us)
            for name, mine in parts.items():
                n = _pick(self._out, n_out, self._names.index(name), self._picked)
                mine.append(self._picked[:n].copy())
            if code == QUEUE_FULL:
                self._enlarge("queue")
            elif code == HEAP_FULL:
                self._enlarge("heap")
            elif code == LOG_FULL:
                self._lengthen_log()
            elif code == TAPE_FULL:
                self._lengthen_tape(len(self.state.tape))
            elif code == WINDOW_FULL:
                self._begin_window()
            elif code == OUT_FULL and n_out == 0:
                self._out = np.zeros(2 * len(self._out), FIRED_DTYPE)
                self._picked = np.zeros(2 * len(self._picked), SPIKE_DTYPE)
        self._clock[DONE_US] = until_us
        self._clock[N_ITEMS] += len(spikes)
        return {name: mine[0] if len(mine) == 1 else np.concatenate(mine) for name, mine in parts.items()}

    def _run(self, spikes: NDArray[np.void], first: int, until_us: int) -> tuple[int, int, int]:
        """Run the kernel once; as ``neurons.engine.run``. A network whose weights change puts its own here."""
        return run(self._program, self.state, spikes, first, until_us, self._out)

    def _lengthen_log(self) -> None:
        state = self.state
        more = [(0, 0), (0, max(256, state.log_us.shape[1]))]
        self.state = state._replace(log_us=np.pad(state.log_us, more), log_unit=np.pad(state.log_unit, more))

    def _lengthen_tape(self, more: int) -> None:
        state = self.state
        self.state = state._replace(tape=np.pad(state.tape, [(0, more), (0, 0)]), taped=np.pad(state.taped, (0, more)))

    def on_window(self, begin: Callable[[], None], window_entries: int) -> None:
        """Switch the tape of ``neurons.engine`` on.

        Parameters
        ----------
        begin
            Called when a window begins: where time does (a ``Reset`` mark), and when the tape is full. It has to set
            ``book[N_TAPE]`` to 0.
        window_entries
            When it is full.
        """
        # the fast loop does not know potentials before hard resets, that of whole numbers none at all
        front = self._program.front
        way = self._program.projection[front]
        if front >= 0 and (way[WHOLE] or self._program.population[way[TARGET], HARD]):
            self._program = self._program._replace(front=-1)
        self._begin_window = begin
        self.state.book[[N_TAPE, TAPE_STOP]] = 0, window_entries
        most = int(np.max(self._program.population[:, UNITS] * (1 + self._program.population[:, N_DIRECT])))
        self._lengthen_tape(window_entries + most + 1024)

    def _enlarge(self, name: str) -> None:
        old = getattr(self.state, name)
        if len(old) >= MOST_WAITING:
            raise RunError(
                f"network: {len(old)} spikes are waiting to be delivered at {int(self.state.book[NOW_US])} us; each "
                f"sets off more than one other. Make the weights of its cycles smaller, or its units refractory"
            )
        new = np.zeros((2 * len(old), *old.shape[1:]), old.dtype)
        new[: len(old)] = old
        self.state = self.state._replace(**{name: new})

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Run a packet, and what is due up to its end; one packet to every output."""
        spikes = self._check(packet.items)
        self._pass_on(packet, emit)
        if not self._clock[BEGUN]:
            self._start(packet.start_us)
        for name, out in self._advance(spikes, packet.end_us - 1).items():
            # what was due between the packets may lie before this one
            first_us = min(packet.start_us, int(out["t"][0])) if len(out) else packet.start_us
            emit(name, Packet(out, first_us, packet.end_us, packet.origin_ns))
        self._origin_ns = packet.origin_ns

    def _until(self, mark: Mark, emit: Emit) -> None:
        """Run what is due up to a mark; StreamError if it goes back in time."""
        if mark.t_us < self._clock[DONE_US]:
            raise StreamError(
                f"network: {type(mark).__name__} mark at {mark.t_us} us, wanted {int(self._clock[DONE_US])} us or "
                f"later; marks stand where they happened in the stream"
            )
        if not self._clock[BEGUN]:
            self._start(mark.t_us)
        for name, out in self._advance(read_only(np.empty(0, SPIKE_DTYPE)), mark.t_us).items():
            if len(out):
                emit(name, packet_of(out))

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Run what is due up to a mark, obey it, pass it on; StreamError if it goes back in time."""
        self._until(mark, emit)
        if isinstance(mark, Reset):
            self._start(mark.t_us)
        elif isinstance(mark, Label):
            self._at_label(mark)
            if self._readout >= 0:
                scores = self.averages(self._names[self._readout])
                row = (mark.t_us, mark.start_us, mark.label, int(np.argmax(scores)), mark.teach)
                emit("answers", Packet(np.array([row], ANSWER_DTYPE), mark.t_us, mark.t_us + 1, self._origin_ns))
            for p, row in enumerate(self._program.population):
                if row[MODEL] == LEAKY_INTEGRATOR:
                    settle(self._program, self.state, p, mark.t_us, self._out)
            self.state.integral_us.fill(0)
            self._clock[WINDOW_US] = mark.t_us
        super().on_mark(port, mark, emit)

    def _pass_on(self, packet: Packet, emit: Emit) -> None:
        """Do what is to be done with a packet that fits before it is run; a network that forwards puts its own here."""

    def _at_label(self, mark: Label) -> None:
        """Do what is to be done while the window of a label still stands; a network that learns puts its own here."""

    # -- reading -------------------------------------------------------------------------------------------------------

    def _settled(self, name: str) -> tuple[State, slice, tuple[int, ...]]:
        """Return a copy of the state in which a population stands at the time run up to, and where it is."""
        shape = shape_of(self.graph, name)
        p = self._names.index(name)
        state = _copy(self.state._replace(tape=np.zeros((0, 4), np.int64), taped=np.zeros(0)))
        row = self._program.population[p]
        first = int(row[FIRST])
        if self._clock[BEGUN]:
            # what Izhikevich's units fire on the way from their last step is not real yet, but needs room
            state.book[[N_QUEUE, N_OUT]] = 0
            room = np.zeros((len(state.heap) + int(row[UNITS] * row[N_DELAYED]), 5), np.int64)
            room[: len(state.heap)] = state.heap
            settle(self._program, state._replace(heap=room), p, int(self._clock[DONE_US]), self._out)
        return state, slice(first, first + n_units(shape)), shape

    def potentials(self, name: str) -> NDArray[Any]:
        """Return the membrane potentials of a population at the time run up to; reading changes nothing.

        Returns
        -------
        real, shape of the population
        """
        state, units, shape = self._settled(name)
        values: NDArray[Any] = state.v[units] + self._rest[units].astype(state.v.dtype)
        return values.reshape(shape)

    def averages(self, name: str) -> NDArray[np.float64]:
        """Return the time averages of a leaky integrator's potentials over the window so far.

        The window begins with the stream, a ``Reset`` or a ``Label``. When no time has passed: the potentials.

        Returns
        -------
        float64, shape of the population
        """
        state, units, shape = self._settled(name)
        span_us = int(self._clock[DONE_US] - self._clock[WINDOW_US])
        if span_us <= 0:
            return self.potentials(name).astype(np.float64)
        return (state.integral_us[units] / span_us + self._rest[units]).reshape(shape)

    # -- the contract --------------------------------------------------------------------------------------------------

    def _kept(self) -> Snapshot:
        """Return the arrays of the state with a fixed shape."""
        state = self.state
        names = ("v", "w", "integral_us", "held_us", "lag_us", "next_us", "next_sequence", "t_us", "pending")
        kept: Snapshot = {name: getattr(state, name) for name in names}
        return kept | {
            "progress": state.progress[:, HELD_UNTIL_US:],
            "book": state.book[BOOK_KEPT],
            "clock": self._clock,
        }

    def snapshot(self) -> Snapshot:
        """Return a copy of the whole state; what is scheduled stands in the order in which it will happen."""
        compact(self.state.heap, self.state.book, self.state.next_sequence)
        heap = self.state.heap[: self.state.book[N_HEAP]]
        heap = heap[np.lexsort((heap[:, SEQUENCE], heap[:, TIME]))]
        return {name: array.copy() for name, array in self._kept().items()} | {"heap": heap}

    def restore(self, snapshot: Snapshot) -> None:
        """Take over a state; ConfigError, and no change, if it is that of another network."""
        heap = np.asarray(snapshot.get("heap", np.zeros(0)))
        n = len(heap) if heap.ndim else 0
        check_shapes("Network", self._kept() | {"heap": np.zeros((n, 5), np.int64)}, snapshot)
        state = self.state
        if n > len(state.heap):
            state = self.state = state._replace(heap=np.zeros((2 * n, 5), np.int64))
        for name, array in self._kept().items():
            if name not in ("progress", "book"):
                array[...] = snapshot[name]
        state.progress[:, HELD_UNTIL_US:] = snapshot["progress"]
        state.book[BOOK_KEPT] = snapshot["book"]
        state.heap[:n] = heap  # sorted: a heap as it is
        state.book[N_HEAP] = n

    def statistics(self) -> dict[str, float]:
        """Return counts: items in, spikes fired, spikes delivered (each through one projection), waiting inside."""
        book = self.state.book
        return {
            "items": float(self._clock[N_ITEMS]),
            "spikes": float(book[N_SPIKES]),
            "deliveries": float(book[N_DELIVERIES]),
            "waiting": float(book[N_HEAP]),
        }
