"""Windows of a stream, taped as a network runs through them, and the gradients of a loss over each.

::

    network = PlasticNetwork.of(graph, rules={("input", "hidden"): Hebbian()})
    window = TapedWindow(network)
    network.run(events, until_us=end_us)
    window.walk_back({"scores": d_scores})         # dL / d(time average of the leaky integrators "scores")
    window.gradients.weight ...                    # added up over windows, until they are taken
    window.begin()

Memory
------
The tape takes 40 bytes an event or spike. Where rows are needed (see ``plasticity.replay``), 4 bytes more for each
synaptic operation of the window, 8 with local rules, 12 with local rules in phases: 3 MB for 4,000 events on 200 units.
A window that grows beyond ``window_events`` entries is cut there: the gradient begins anew from the state carried on,
and what came before counts as given. So memory has a bound whatever the stream; what is paid for it is that no error is
sent back over a cut.

With ``window_pieces`` above 1 a full tape is put aside with where the network stood at its begin (a checkpoint), and
only the oldest of so many pieces is cut off. Rows are made for one piece at a time, when the walk comes to it. So a
window of n entries takes 40 n bytes of tape, a copy of the state (potentials and ``hebb``) for each piece, and the rows
of one piece, instead of n rows; the gradient is the whole window's. What is best: pieces so long that their rows take
what the copies take. Measured for 74,200 events, 2312-200 with a Hebbian rule: whole, 192 MB of rows and a walk of 119
ms; pieces of 16,384 entries, 26 MB of rows, 16 MB put aside, 151 ms; of 4,096: 8, 57, 242; of 1,024: 2, 217, 591.

Surrogates, by cost: ``spikes`` reads the tape alone, unless rules or time constants are learned; ``rectangle`` and
``fast sigmoid`` need rows, and ask every unit at every event. By gain: ``spikes`` and ``rectangle`` came to the same
accuracy on simulated digits after 4 epochs (93.4 and 93.6 %), ``spikes`` in half the time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from neurons.program import (
    ADAPTIVE_LIF,
    ANCHOR_US,
    ARRIVAL,
    CHANNELS,
    CONVOLUTION,
    CROSSES,
    DELAY_US,
    DENSE,
    FIRED,
    FIRST,
    FIRST_GROUP,
    GROUP,
    INTEGRATE_FIRE,
    IZHIKEVICH,
    KIND,
    LEAKY_INTEGRATOR,
    LIF,
    MODEL,
    N_HEAP,
    N_TAPE,
    ONE_TO_ONE,
    PLACE,
    POOLING,
    REFRACTORY_US,
    ROWS,
    SPARSE,
    TARGET,
    TOPOLOGY,
    UNIFORM,
    UNIT_OF,
    UNITS,
    WHAT,
    WHERE,
)
from plasticity.backward import walk_back
from plasticity.backward_units import Gradients, Walk
from plasticity.plastic_network import PlasticNetwork
from plasticity.replay import (
    FAST_SIGMOID,
    RECTANGLE,
    SPIKES,
    Links,
    Options,
    Rows,
    Standing,
    count_rows,
    link,
    replay,
)
from plasticity.table import FIRST_FAST, FIRST_ROW, HAS_SHORT_TERM, HAS_SURROUND, HEBBIAN, N_PRE, RULE, STATIC, TAU_FAST
from stream.errors import ConfigError
from stream.lanes import aligned, all_aligned

__all__ = ["Piece", "Surrogate", "TapedWindow"]

Surrogate = Literal["spikes", "rectangle", "fast sigmoid"]
NUMBERS = {"spikes": SPIKES, "rectangle": RECTANGLE, "fast sigmoid": FAST_SIGMOID}


class Piece(NamedTuple):
    """A part of a window: what happened, and where the network stood before."""

    start: Standing
    tape: NDArray[np.int64]  # int64, shape (n_entries, 4)
    taped: NDArray[np.float64]  # float64, shape (n_entries,)
    skip: NDArray[np.int64]  # int64, shape (n_projections,): spikes on their way at the start


class TapedWindow:
    """The tape of a network, and what is needed to walk it back.

    Parameters
    ----------
    network
        Its tape is switched on; the first window begins where it stands.
    surrogate, width
        What stands in for the derivative of a spike, see ``plasticity.backward``; the width in units of the potential.
    times
        Whether derivatives by time constants of membranes are wanted (they need rows).
    window_events
        Entries of a tape after which a window is cut, or a piece of it ends.
    window_pieces
        Pieces of a window; for networks without delays and tired terminals.

    Attributes
    ----------
    gradients : plasticity.backward.Gradients
        Added to by ``walk_back``.
    n_cut : int
        Windows that were cut.

    Raises
    ------
    ConfigError
        If the network has units or rules through which no gradient leads.
    """

    def __init__(
        self,
        network: PlasticNetwork,
        *,
        surrogate: Surrogate = "spikes",
        width: float = np.inf,
        times: bool = False,
        window_events: int = 65_536,
        window_pieces: int = 1,
    ) -> None:
        if surrogate not in get_args(Surrogate):
            raise ConfigError(f"surrogate: got {surrogate!r}, wanted one of {', '.join(get_args(Surrogate))}")
        if surrogate != "spikes" and not 0 < width < np.inf:
            raise ConfigError(f"surrogate {surrogate}: width is {width}, wanted a finite number above 0")
        if window_events < 1:
            raise ConfigError(f"window_events: got {window_events}, wanted 1 or more")
        if window_pieces < 1:
            raise ConfigError(f"window_pieces: got {window_pieces}, wanted 1 or more")
        self.network = network
        program, table = network._program, network._table
        self._check(program, table)
        row = program.population
        real = program.weight.dtype
        one_by_one = np.isin(program.projection[:, TOPOLOGY], [POOLING, SPARSE, ONE_TO_ONE])
        block = np.where(row[:, CROSSES] > 0, 1, row[:, GROUP])
        block[program.projection[one_by_one, TARGET]] = 1
        n_blocks = row[:, UNITS] // block
        self._block = np.stack([block, np.cumsum(n_blocks) - n_blocks], axis=1)
        self._is_hebbian = bool(np.any(table.place[:, RULE] == HEBBIAN))
        is_sparse = program.projection[:, TOPOLOGY] == SPARSE
        self._has_sparse_hebb = bool(np.any(is_sparse & (table.place[:, RULE] == HEBBIAN)))
        has_terminals = bool(np.any((table.place[:, RULE] >= 0) & (table.place[:, HAS_SHORT_TERM] > 0)))
        self._has_rows = self._is_hebbian or has_terminals or times or surrogate != "spikes"
        self._has_times = bool(times)
        self._has_w = self._has_rows and bool(np.any(row[:, MODEL] == ADAPTIVE_LIF))
        self._surrogate, self._width = NUMBERS[surrogate], float(width)
        self._window_events, self._most_pieces = int(window_events), int(window_pieces)
        self._pieces: list[Piece] = []  # of the window, before the one that is being taped
        is_late = self._is_hebbian and program.phase_us > 0
        if window_pieces > 1 and (has_terminals or is_late or np.any(program.projection[:, DELAY_US])):
            raise ConfigError(
                f"window_pieces: got {window_pieces}, but spikes on their way, tired terminals and Hebbian rules in "
                f"phases join pieces that are walked back apart; wanted 1 for a network that has them"
            )
        targets = row[program.projection[:, TARGET]]
        passive = np.isin(targets[:, MODEL], [LIF, INTEGRATE_FIRE, LEAKY_INTEGRATOR]) & (targets[:, CROSSES] == 0)
        alike = (targets[:, UNIFORM] == 1) & (targets[:, REFRACTORY_US] == 0)
        whole = block[program.projection[:, TARGET]] == targets[:, UNITS]
        self._is_plain = passive & alike & whole & (program.projection[:, TOPOLOGY] == DENSE)
        self._is_plain &= not self._has_rows and program.phase_us == 0 and not network._is_graded
        self._is_plain &= table.place[:, HAS_SURROUND] <= 0  # there all amplitudes are 1
        self.n_cut = 0
        n_all, n_pre = len(network.state.v), len(table.local_rate)
        n_fast, n_rows = len(network._memory.fast), len(network._memory.fast_us)
        longest = int(max(row[:, UNITS]))
        gradients = Gradients(
            weight=np.zeros_like(program.weight),
            tau=np.zeros(n_all, real),
            tau_2=np.zeros(n_all, real),
            sliding=np.zeros_like(table.sliding),
            local_rate=np.zeros(n_pre),
            share=np.zeros_like(table.share),
            mixing=np.zeros(len(program.projection)),
            tau_fast=np.zeros(len(program.projection)),
            terminal=np.zeros((n_pre, 5)),
        )
        walk = Walk(
            lam=np.zeros(n_all, real),
            lam_w=np.zeros(n_all, real),
            source=np.zeros(n_all),
            t_us=np.zeros(n_blocks.sum(), np.int64),
            early_us=np.zeros(n_blocks.sum()),
            worth=np.zeros(0),
            mu=np.zeros(n_fast, real),
            mu_us=np.zeros(n_rows, np.int64),
            is_live=np.zeros(n_rows, np.bool_),
            terminal=np.zeros((n_pre, 2)),
            terminal_us=np.zeros(n_pre),
            held_us=np.zeros(n_all, np.int64),
            lag_us=np.zeros(n_all),
            scratch=np.zeros((3, longest), real),
            peek=np.zeros(n_all, real),
            would=np.zeros(n_all),
            owed=np.zeros(n_pre),
            first_at=np.zeros(n_pre, np.int64),
            due=np.zeros(n_pre),
        )
        self.gradients, self._walk = all_aligned(gradients), all_aligned(walk)
        n_cursor = len(program.projection) + 2 * len(row)
        self._links = Links(
            cause=np.zeros(0, np.int64),
            touch=np.zeros(0, np.int64),
            held_us=np.zeros(0, np.int64),
            lag_us=np.zeros(0),
            after=np.zeros(0, np.int64),
            cursor=np.zeros(n_cursor, np.int64),
        )
        self._rows = Rows(
            at=np.zeros(0, np.int64),
            u=np.zeros(0, real),
            w=np.zeros(0, real),
            hebb=np.zeros(0, real),
            late=np.zeros(0, real),
            terminal=np.zeros((0, 3)),
        )
        self._skip = np.zeros(len(program.projection), np.int64)
        network.on_window(self._cut, self._window_events)
        self._start, self._here = all_aligned(self._standing()), all_aligned(self._standing())
        self.begin()

    def _check(self, program: Any, table: Any) -> None:
        network = self.network
        for p, name in enumerate(network._names):
            if program.population[p, MODEL] == IZHIKEVICH:
                raise ConfigError(
                    f"population '{name}': no gradient leads through Izhikevich's units; use leaky or adaptive ones"
                )
        if network._cycles:
            raise ConfigError(
                f"{type(network._cycles[0].rule).__name__} of {network._cycles[0].subject}: no gradient leads through "
                f"what changes weights or thresholds for good; let the network settle, and learn with network.learned()"
            )
        for q, place in enumerate(table.place):
            if place[RULE] not in (-1, STATIC, HEBBIAN):
                it = network.graph.projections[q]
                raise ConfigError(
                    f"rule of {it.source} > {it.target}: gradients lead through Hebbian and ShortTerm alone; let this "
                    f"projection learn by its local rule, in a network of its own"
                )

    # -- where a window begins -----------------------------------------------------------------------------------------

    def _standing(self) -> Standing:
        """Return where the network stands: its own arrays, not copies, but for the times."""
        network = self.network
        state, memory = network.state, network._memory
        times = []
        for row, (block, _) in zip(network._program.population, self._block, strict=True):
            groups = state.t_us[row[FIRST_GROUP] : row[FIRST_GROUP] + row[UNITS] // row[GROUP]]
            times.append(np.repeat(groups, row[GROUP] // block))
        return Standing(
            v=state.v,
            w=state.w,
            t_us=np.concatenate(times),
            held_us=state.held_us,
            lag_us=state.lag_us,
            fast=memory.fast,
            fast_us=memory.fast_us,
            fatigue=memory.fatigue,
            x_us=memory.x_us,
            owed=memory.owed,
            is_late=memory.is_late,
        )

    def begin(self) -> None:
        """Begin a window where the network stands; what is on the tape is dropped."""
        self._pieces.clear()
        self._begin_piece()

    def _begin_piece(self) -> None:
        state = self.network.state
        for kept, now in zip(self._start, self._standing(), strict=True):
            kept[...] = now
        heap = state.heap[: state.book[N_HEAP]]
        on_their_way = heap[heap[:, KIND] == ARRIVAL, WHERE]
        self._skip[:] = np.bincount(on_their_way, minlength=len(self._skip))
        state.book[N_TAPE] = 0

    def _cut(self) -> None:
        if self.n_entries < self._window_events:  # time begins anew
            self.begin()
            return
        if self._most_pieces > 1:
            self._pieces.append(self.lift())
        if len(self._pieces) == self._most_pieces or self._most_pieces == 1:
            del self._pieces[:1]
            self.n_cut += 1
        self._begin_piece()

    def lift(self) -> Piece:
        """Copy the piece that is being taped."""
        state, n = self.network.state, self.n_entries
        start = all_aligned(self._start)
        return Piece(start, state.tape[:n].copy(), state.taped[:n].copy(), self._skip.copy())

    def lay(self, piece: Piece) -> None:
        """Put a piece of this network, or of one like it, in the place of the one that is being taped."""
        n = len(piece.tape)
        if n > len(self.network.state.tape):
            self.network._lengthen_tape(n)
        state = self.network.state
        state.tape[:n], state.taped[:n] = piece.tape, piece.taped
        state.book[N_TAPE] = n
        self._skip[:] = piece.skip
        for kept, given in zip(self._start, piece.start, strict=True):
            kept[...] = given

    # -- the walk ------------------------------------------------------------------------------------------------------

    @property
    def n_entries(self) -> int:
        """Entries of the tape so far."""
        return int(self.network.state.book[N_TAPE])

    def spikes(self, population: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the units of a population that fired since the tape began, in order, and where they stand on it."""
        tape = self.network.state.tape[: self.n_entries]
        at = self._fired(tape, population)
        return tape[at, UNIT_OF], at

    def _fired(self, tape: NDArray[np.int64], population: str) -> NDArray[np.int64]:
        """Find the spikes of a population on a tape."""
        p = self.network._names.index(population)
        return np.flatnonzero((tape[:, WHAT] >= FIRED) & (tape[:, WHAT] <= FIRED + 1) & (tape[:, PLACE] == p))

    def walk_back(
        self,
        d_average: Mapping[str, NDArray[Any]] | None = None,
        *,
        d_potential: Mapping[str, NDArray[Any]] | None = None,
        d_spike: Mapping[str, Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]] | None = None,
    ) -> None:
        """Add the gradients of a loss over this window.

        Parameters
        ----------
        d_average
            For leaky integrators: derivative of the loss by ``network.averages(name)``.
        d_potential
            Derivative by ``network.potentials(name)``, as they are now.
        d_spike
            For spiking populations: from the units that fired, and their times (us), the derivative by each spike.
        """
        network, walk = self.network, self._walk
        end_us = int(network._clock[0])
        span_us = max(end_us - int(network._clock[2]), 1)
        for array in (walk.lam, walk.lam_w, walk.source, walk.early_us, walk.due):
            array.fill(0)
        walk.t_us.fill(end_us)
        for name, values in (d_average or {}).items():
            row = self._row(name)
            if row[MODEL] != LEAKY_INTEGRATOR:
                raise ConfigError(f"population '{name}' has no time average; only leaky integrators have")
            walk.source[row[FIRST] : row[FIRST] + row[UNITS]] = np.reshape(values, -1) / span_us
        for name, values in (d_potential or {}).items():
            row = self._row(name)
            walk.lam[row[FIRST] : row[FIRST] + row[UNITS]] = np.reshape(values, -1)
        if self._has_sparse_hebb:
            walk.mu.fill(0)  # a row is begun by its first synapse, which clears no other
        if not self._pieces:
            self._walk_piece(self._worth(d_spike or {}))
            return
        pieces = [*self._pieces, self.lift()]
        worth = self._worth(d_spike or {}, pieces)
        walk.mu.fill(0)
        walk.is_live.fill(False)
        for piece in reversed(pieces):
            self.lay(piece)
            first = len(worth) - len(piece.tape)
            self._walk_piece(worth[first:])
            worth = worth[:first]
            self._hand_over()
        self._walk.is_live.fill(False)
        self.lay(pieces[-1])

    def _worth(
        self,
        d_spike: Mapping[str, Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]],
        pieces: Sequence[Piece] = (),
    ) -> NDArray[np.float64]:
        """Return what each entry of the whole window's tape is worth to the loss itself: float64, shape (n,)."""
        tape = self.network.state.tape[: self.n_entries]
        if pieces:
            tape = np.concatenate([piece.tape for piece in pieces])
        worth = np.zeros(len(tape))
        for name, worth_of in d_spike.items():
            at = self._fired(tape, name)
            worth[at] = worth_of(tape[at, UNIT_OF], tape[at, 0])
        return worth

    def _walk_piece(self, worth: NDArray[np.float64]) -> None:
        """Walk back what is on the tape, from where the walk stands."""
        network = self.network
        program, state = network._program, network.state
        n_tape = self.n_entries
        self._make_room(n_tape)
        walk, links, rows = self._walk, self._links, self._rows
        walk.worth[:n_tape] = worth
        walk.held_us[:], walk.lag_us[:] = self._start.held_us, self._start.lag_us
        skip = self._skip.copy()
        link(program, state.tape, state.taped, n_tape, walk.held_us, walk.lag_us, skip, links)
        anchor_us = int(state.book[ANCHOR_US])
        options = Options(
            self._surrogate, self._width, self._has_rows, self._has_times, self._block, anchor_us, self._is_plain
        )
        table = network._table
        if self._has_rows:
            for kept, now in zip(self._here, self._start, strict=True):
                kept[...] = now
            replay(program, table, options, state.tape, state.taped, n_tape, links, self._here, rows, walk.scratch)
        walk_back(
            program,
            table,
            options,
            state.tape,
            state.taped,
            n_tape,
            links,
            rows,
            self._start,
            walk,
            self.gradients,
        )

    def _hand_over(self) -> None:
        """Take mu to where hebb stood at the piece's start; the walk has counted what ``tau_hebb`` did on the way."""
        walk, number = self._walk, self.network._table.number
        for q, rows, row_of, fast in self._rows_of_hebb():
            mu = walk.mu[fast]
            live = np.bincount(row_of, weights=mu != 0, minlength=rows.stop - rows.start) > 0
            then_us = self._start.fast_us[rows]
            dt_us = np.where(live, walk.mu_us[rows] - then_us, 0)
            mu *= np.exp(-dt_us / number[q, TAU_FAST])[row_of].astype(mu.dtype)
            walk.mu_us[rows] = np.where(live, then_us, walk.mu_us[rows])
            walk.is_live[rows] = live

    def _rows_of_hebb(self) -> list[tuple[int, slice, NDArray[np.int64], slice]]:
        """List for each Hebbian projection: its number, its rows, the row of each synapse among them, its synapses."""
        network, found = self.network, []
        for q, place in enumerate(network._table.place):
            if place[RULE] != HEBBIAN:
                continue
            way = network._program.projection[q]
            n = int(np.size(network._weights(q)))
            n_post = int(network._program.population[way[TARGET], UNITS])
            if way[TOPOLOGY] == SPARSE:
                begins = network._program.links[way[ROWS] : way[ROWS] + place[N_PRE] + 1]
                row_of = np.repeat(np.arange(place[N_PRE]), np.diff(begins))
            else:
                length = {ONE_TO_ONE: 1, CONVOLUTION: int(network._program.population[way[TARGET], CHANNELS])}
                row_of = np.arange(n) // length.get(int(way[TOPOLOGY]), n_post)
            n_rows = int(row_of[-1]) + 1 if way[TOPOLOGY] != SPARSE else int(place[N_PRE])
            first_row, first = int(place[FIRST_ROW]), int(place[FIRST_FAST])
            found.append((q, slice(first_row, first_row + n_rows), row_of, slice(first, first + n)))
        return found

    def _row(self, name: str) -> NDArray[np.int64]:
        row: NDArray[np.int64] = self.network._program.population[self.network._names.index(name)]
        return row

    def _make_room(self, n_tape: int) -> None:
        links, rows, walk = self._links, self._rows, self._walk
        if n_tape > len(links.cause):
            room = 2 * n_tape
            ints = (np.zeros(room, np.int64) for _ in range(4))
            names = ("cause", "touch", "held_us", "after")
            self._links = links._replace(**dict(zip(names, ints, strict=True)), lag_us=np.zeros(room))
            self._walk = walk._replace(worth=np.zeros(room))
            rows = rows._replace(at=np.zeros(room, np.int64), terminal=np.zeros((room, 3)))
        if self._has_rows:
            wanted = count_rows(self.network._program, self.network.state.tape, n_tape)
            if wanted > len(rows.u):
                room = wanted + wanted // 2
                real = rows.u.dtype
                has_late = self._is_hebbian and self.network._program.phase_us > 0
                rows = rows._replace(
                    u=aligned(np.zeros(room, real)),
                    w=aligned(np.zeros(room if self._has_w else 0, real)),
                    hebb=aligned(np.zeros(room if self._is_hebbian else 0, real)),
                    late=aligned(np.zeros(room if has_late else 0, real)),
                )
        self._rows = rows
