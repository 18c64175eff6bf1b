"""A board of chips too large for one process: its cores split into regions, each computed by a process of its own.

A *region* is a run of cores in the order of the program; where the program lists chip after chip, a part of the plane.
In every phase a region computes its cores as if it were the whole board; what they sent to cores of others it hands
over as *parcels*, one for each other region, and nothing else travels: spikes and values per target core, in the order
in which they were sent. Packets, hops and loads of links are counted where the sender is and added up.

Why the result is that of the whole board, to the bit: cores compute from what waited when the phase began; arrivals at
a core lie in the order of the sending cores, so parcels are unpacked in the order of the regions, its own in its turn;
and sums on one axon do not depend on their order, unless they saturate. A program in which values from several regions
could saturate an axon is refused, with words.

A phase is one meeting of all regions. With ``on`` the regions are actors of a Ray cluster: parcels go from worker to
worker, reports to whoever asked, and ``AHEAD`` phases are under way at a time, so that the meeting costs no round trip.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.core import AXON_VALUES, SYNAPSE_MATRIX
from chip.grid import COUNT_DTYPE, DONE, GridState, clear, give_input, new_state, run_phases, spike_room
from chip.program import GridProgram
from stream.errors import CapacityError, ConfigError
from stream.jit import kernel
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

__all__ = ["Board", "Region", "Report", "regions_of"]

GIVEN_DTYPE = np.dtype([("unit", "<i4"), ("value", "<i4")])
"""What waits on an input line: how many spikes met there."""

AHEAD = 32  # phases that are given to the workers before the first one's report is read
SUMS = (
    "spikes_in",
    "merged",
    "spikes_out",
    "packets",
    "copies",
    "hops",
    "crossings",
    "synaptic_ops",
    "zeros",
    "overflows",
)


class Report(NamedTuple):
    """What a region says of a phase."""

    late: NDArray[np.int64]  # of the phase before, on arrival here: merged spikes
    counts: NDArray[np.void]  # COUNT_DTYPE, shape (1,): of its own cores
    is_still: bool
    links: NDArray[np.int64]  # shape (2, n): links that carried something, and how much
    spikes: NDArray[np.void]  # SPIKE_DTYPE
    output: NDArray[np.int32]  # shape (n_outputs,)
    parcel_bytes: int  # handed over to other regions


@kernel
def _pack(
    axons: Any, cores: Any, region_of: Any, region: int, axon: Any, active: Any, n_terms: Any, out: Any, sizes: Any
) -> None:
    """Take what waits at cores of each other region off its axons, as ``core, n_terms, n, axons..., values...``."""
    for core in range(len(n_terms)):
        n, to = n_terms[core], region_of[core]
        if n == 0 or to == region:
            continue
        n_terms[core] = 0
        first, last = axons[core], axons[core + 1]
        at = sizes[to]
        out[to, at], out[to, at + 1] = core, n
        here = at + 3
        if cores[core]["axon_mode"] == 0:
            for k in range(first, first + n):
                out[to, here] = active[k]
                here += 1
        else:
            for k in range(first, last):
                if axon[k] != 0:
                    out[to, here] = k - first
                    here += 1
        n_axons = here - at - 3
        out[to, at + 2] = n_axons
        for k in range(n_axons):
            a = first + out[to, at + 3 + k]
            out[to, here + k] = axon[a]
            axon[a] = 0
        sizes[to] = here + n_axons


@kernel
def _unpack(axons: Any, cores: Any, parcel: Any, axon: Any, active: Any, n_terms: Any) -> Any:
    """Put a parcel onto the axons. Returns how many spikes met one that was there already."""
    merged, at = np.int64(0), 0
    while at < len(parcel):
        core, n, n_axons = parcel[at], parcel[at + 1], parcel[at + 2]
        first, at = axons[core], at + 3
        if cores[core]["axon_mode"] == 0:
            for k in range(n_axons):
                i = parcel[at + k]
                if axon[first + i] != 0:
                    merged += 1
                else:
                    axon[first + i] = 1
                    active[first + n_terms[core]] = i
                    n_terms[core] += 1
        else:
            for k in range(n_axons):
                axon[first + parcel[at + k]] += parcel[at + n_axons + k]
            n_terms[core] += n
        at += 2 * n_axons
    return merged


class Region:
    """Some cores of a board.

    Parameters
    ----------
    program
        The whole board's; only the weights of its own cores are kept.
    bounds
        int64, shape (n_regions + 1,): where regions begin, in cores.
    number
        Which of them this is.
    phase_us, end_us
        Length of a phase and end of the first one, us.
    """

    def __init__(
        self, program: GridProgram, bounds: NDArray[np.int64], number: int, phase_us: int, end_us: int
    ) -> None:
        self.number, self.n_regions = number, len(bounds) - 1
        self._first, self._last = int(bounds[number]), int(bounds[number + 1])
        self._region_of = np.repeat(np.arange(self.n_regions), np.diff(bounds))
        self._program = _own(program, self._first, self._last)
        self._state = new_state(self._program, phase_us, end_us)
        n_axons = np.diff(program.axons)
        most = [int((3 + 2 * n_axons[self._region_of == k]).sum()) for k in range(self.n_regions)]
        self._out = np.zeros((self.n_regions, max(most)), np.int32)
        self._mine = np.zeros((1, most[number]), np.int32)
        self._elsewhere = np.where(self._region_of == number, 0, 1)
        self._has_lines = np.diff(self._program.input_start) > 0
        self._spikes = np.zeros(spike_room(self._program), SPIKE_DTYPE)
        self._rows = np.zeros(1, PHASE_DTYPE)
        self.clear(end_us)

    def clear(self, end_us: int) -> None:
        """Put its cores at rest; the next phase ends at ``end_us``."""
        clear(self._program, self._state, end_us)
        self._rest()

    def _rest(self) -> None:
        """Let the cores of others be skipped."""
        self._state.idle[: self._first] = 1
        self._state.idle[self._last :] = 1

    def phase(self, incoming: NDArray[np.void], *parcels: NDArray[np.int32]) -> tuple[Any, ...]:
        """Take in what others sent in the phase before, and compute the next one.

        Parameters
        ----------
        incoming
            GIVEN_DTYPE: input of the phase, each line once; the same for every region.
        parcels
            Of each region, in their order, what it sent here; its own place is empty. None at all in the first phase.

        Returns
        -------
        tuple
            A Report, then a parcel for each region.
        """
        late = self.take(*parcels)
        state, program = self._state, self._program
        progress = np.zeros(3, np.int64)
        end_us = int(state.clock["end_us"][0])
        mine = incoming[self._has_lines[incoming["unit"]]]
        give_input(state, mine["unit"].copy(), mine["value"].copy())
        nothing = np.zeros(0, SPIKE_DTYPE)
        status = run_phases(program, state, nothing, end_us, False, self._spikes, self._rows, progress)
        if status != DONE or int(state.clock["end_us"][0]) == end_us:
            raise CapacityError(f"board: region {self.number}: phase that ends at {end_us} us: status {status}")
        self._rest()
        now = int(state.clock["buffer"][0])
        sizes = np.zeros(self.n_regions, np.int64)
        _pack(
            program.axons,
            program.cores,
            self._region_of,
            self.number,
            state.axon[now],
            state.active[now],
            state.n_terms[now],
            self._out,
            sizes,
        )
        loaded = np.flatnonzero(state.link_load)
        report = Report(
            late,
            state.phase.copy(),
            bool(state.clock["still"][0]),
            np.stack([loaded, state.link_load[loaded]]),
            self._spikes[: progress[1]].copy(),
            state.output.copy(),
            int(sizes.sum()) * self._out.itemsize,
        )
        return report, *(self._out[k, : sizes[k]].copy() for k in range(self.n_regions))

    def take(self, *parcels: NDArray[np.int32]) -> NDArray[np.int64]:
        """Take in parcels; returns how many spikes merged, int64 of shape (1,)."""
        merged = 0
        if any(len(parcel) for parcel in parcels):
            state, program = self._state, self._program
            now = int(state.clock["buffer"][0])
            arrays = state.axon[now], state.active[now], state.n_terms[now]
            sizes = np.zeros(1, np.int64)
            # what came from here is taken off, to be put back in its turn
            _pack(program.axons, program.cores, self._elsewhere, 1, *arrays, self._mine, sizes)
            for k, parcel in enumerate(parcels):
                given = self._mine[0, : sizes[0]] if k == self.number else np.array(parcel)  # ours, so: one signature
                merged += int(_unpack(program.axons, program.cores, given, *arrays))
            state.clock["still"] = 0
        return np.array([merged], np.int64)

    def state(self) -> GridState:
        """Return what it remembers; of cores of others there is nothing in it."""
        return self._state


def _own(program: GridProgram, first: int, last: int) -> GridProgram:
    """Return a program whose input reaches some cores alone, and which holds their weights alone."""
    lines = program.input_lines
    mine = (lines["core"] >= first) & (lines["core"] < last)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(mine)])
    cores = program.cores.copy()
    is_matrix = cores["synapse"] == SYNAPSE_MATRIX
    sizes = np.where(is_matrix, cores["n_axons"] * cores["padded"], 0)
    start = int(cores["weight"][first]) if first < len(cores) else 0
    length = int(sizes[first:last].sum())
    cores["weight"] -= start
    cores["weight"][:first] = 0
    cores["weight"][last:] = 0
    return program._replace(
        cores=cores,
        weight=program.weight[start : start + length].copy(),
        input_start=before[program.input_start],
        input_lines=lines[mine].copy(),
        somas=program.somas.copy(),
    )


def regions_of(program: GridProgram, n: int) -> NDArray[np.int64]:
    """Split a program into runs of cores of about the same number of weights: int64, shape (n + 1,).

    Raises
    ------
    ConfigError
        If there are fewer cores than regions.
    CapacityError
        If values from several regions could saturate an axon: then their order would matter.
    """
    n_cores = len(program.cores)
    if not 1 <= n <= n_cores:
        raise ConfigError(f"board: got {n} regions for {n_cores} cores, wanted 1 to {n_cores}")
    work = np.cumsum(program.cores["n_axons"] * program.cores["n_neurons"] + 1)
    bounds = np.concatenate([[0], np.searchsorted(work, work[-1] * np.arange(1, n) / n) + 1, [n_cores]])
    for k in range(1, n):  # one core at the least
        bounds[k] = min(max(bounds[k], bounds[k - 1] + 1), n_cores - (n - k))
    _check_sums(program, bounds)
    return bounds.astype(np.int64)


def _check_sums(program: GridProgram, bounds: NDArray[np.int64]) -> None:
    region_of = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    reach = np.zeros(int(program.axons[-1]), np.float64)
    seen = np.full(int(program.axons[-1]), -1)
    mixed = np.zeros(int(program.axons[-1]), bool)
    for core, row in enumerate(program.cores):
        most = float(max(-int(row["value_low"]), int(row["value_high"])))
        for run in program.runs[int(row["first_run"]) : int(row["last_run"])]:
            tree = program.trees[int(run["tree"])]
            for target in program.targets[int(tree["first_target"]) : int(tree["last_target"])].tolist():
                if target < 0 or program.cores[target]["axon_mode"] != AXON_VALUES:
                    continue
                at = slice(
                    int(program.axons[target]) + int(run["axon"]),
                    int(program.axons[target]) + int(run["axon"]) + int(run["count"]),
                )
                reach[at] += most
                mixed[at] |= (seen[at] >= 0) & (seen[at] != region_of[core])
                seen[at] = region_of[core]
    wrong = mixed & (reach > 2.0**31 - 1)
    if wrong.any():
        axon = int(np.flatnonzero(wrong)[0])
        core = int(np.searchsorted(program.axons, axon, side="right")) - 1
        raise CapacityError(
            f"board: values from several regions could saturate axon {axon - int(program.axons[core])} of core {core}, "
            f"and then their order would matter; choose other regions, or narrower values"
        )


class Board:
    """A board that is computed region by region.

    Parameters
    ----------
    program
        Of all cores.
    n_regions
        How many parts.
    phase_us, end_us
        Length of a phase and end of the first one, us.
    on
        A cluster (``stream.cluster.join``) on which each region is a process; "" computes one after the other, here.

    Attributes
    ----------
    totals : NDArray
        COUNT_DTYPE, shape (1,), as ``chip.grid.GridState.totals``.
    score : NDArray
        int64, shape (n_outputs,).
    parcel_bytes : int
        What travelled between regions.
    """

    def __init__(self, program: GridProgram, n_regions: int, phase_us: int, end_us: int, *, on: str = "") -> None:
        self._program, self._phase_us, self._end_us = program, phase_us, end_us
        self._bounds = regions_of(program, n_regions)
        self._ray: Any = None
        if on:
            from stream.cluster import join

            self._ray = join(on)
            make = self._ray.remote(Region).options(num_cpus=1)
            whole = self._ray.put(program)
            self.regions: list[Any] = [make.remote(whole, self._bounds, k, phase_us, end_us) for k in range(n_regions)]
        else:
            self.regions = [Region(program, self._bounds, k, phase_us, end_us) for k in range(n_regions)]
        n_outputs = int(program.limits["n_outputs"][0])
        self.totals, self.score = np.zeros(1, COUNT_DTYPE), np.zeros(n_outputs, np.int64)
        self.parcel_bytes = 0
        self._parcels: list[tuple[Any, ...]] = [() for _ in range(n_regions)]  # for each region: what the others sent
        # of the last phase, whose arrivals are not counted yet: its end, spikes that met on an input line, reports
        self._open: tuple[int, int, list[Report]] | None = None

    def run(self, incoming: NDArray[np.void], until_us: int) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Run every phase that ends by ``until_us``.

        Parameters
        ----------
        incoming
            SPIKE_DTYPE, sorted by time, none before the phase that runs next.
        until_us
            The time that the stream has come to.

        Returns
        -------
        spikes, rows
            SPIKE_DTYPE and PHASE_DTYPE: what watched neurons fired, and a row for each phase that was not still.

        Raises
        ------
        CapacityError
            If a spike is for an input line that does not exist; nothing was computed.
        """
        n_lines = len(self._program.input_start) - 1
        if len(incoming) and int(incoming["unit"].max()) >= n_lines:
            raise CapacityError(f"board: a spike for input line {incoming['unit'].max()}, there are {n_lines} lines")
        spikes: list[NDArray[np.void]] = []
        rows: list[NDArray[np.void]] = []
        under_way: list[tuple[int, int, list[Any]]] = []
        taken = 0
        while self._end_us <= until_us:
            last = int(np.searchsorted(incoming["t"], self._end_us))
            # spikes that meet on an input line merge before it leads anywhere; so no region sees, or counts, the second
            unit, first, count = np.unique(incoming["unit"][taken:last], return_index=True, return_counts=True)
            order = np.argsort(first)
            given = np.zeros(len(unit), GIVEN_DTYPE)
            given["unit"], given["value"] = unit[order], count[order]
            under_way.append((self._end_us, last - taken - len(given), self._start(given)))
            taken = last
            self._end_us += self._phase_us
            if len(under_way) == AHEAD:
                self._close(*under_way.pop(0), spikes, rows)
        while under_way:
            self._close(*under_way.pop(0), spikes, rows)
        if self._open is not None:
            # what is still under way is unpacked now, so that this phase's count of merged spikes is complete
            late = [self._take(k) for k in range(len(self.regions))]
            self._finish(*self._open, late, spikes, rows)
            self._open = None
            self._parcels = [() for _ in self.regions]
        return np.concatenate([np.zeros(0, SPIKE_DTYPE), *spikes]), np.concatenate([np.zeros(0, PHASE_DTYPE), *rows])

    def close(self) -> None:
        """Let the workers go. Idempotent."""
        if self._ray is not None:
            for region in self.regions:
                self._ray.kill(region)
            self.regions = []

    def _start(self, incoming: NDArray[np.void]) -> list[Any]:
        """Let all regions compute a phase; returns a report of each, or what will be one."""
        n = len(self.regions)
        if self._ray is None:
            done = [region.phase(incoming, *self._parcels[k]) for k, region in enumerate(self.regions)]
        else:
            done = [
                region.phase.options(num_returns=n + 1).remote(incoming, *self._parcels[k])
                for k, region in enumerate(self.regions)
            ]
        self._parcels = [tuple(done[out][1 + into] for out in range(n)) for into in range(n)]
        return [it[0] for it in done]

    def _take(self, k: int) -> NDArray[np.int64]:
        merged: NDArray[np.int64]
        if self._ray is None:
            merged = self.regions[k].take(*self._parcels[k])
            return merged
        merged = self._ray.get(self.regions[k].take.remote(*self._parcels[k]))
        return merged

    def _close(
        self,
        end_us: int,
        met: int,
        waiting: list[Any],
        spikes: list[NDArray[np.void]],
        rows: list[NDArray[np.void]],
    ) -> None:
        reports: list[Report] = waiting if self._ray is None else self._ray.get(waiting)
        if self._open is not None:
            self._finish(*self._open, [report.late for report in reports], spikes, rows)
        self._open = end_us, met, reports

    def _finish(
        self,
        end_us: int,
        met: int,
        reports: list[Report],
        late: list[NDArray[np.int64]],
        spikes: list[NDArray[np.void]],
        rows: list[NDArray[np.void]],
    ) -> None:
        """Put the reports of a phase together."""
        phase = {name: sum(int(report.counts[name][0]) for report in reports) for name in SUMS}
        phase["merged"] += sum(int(it[0]) for it in late) + met
        load = np.zeros(len(self._program.links), np.int64)
        output = np.zeros(len(self.score), np.int32)
        for report in reports:
            load[report.links[0]] += report.links[1]
            np.copyto(output, report.output, where=report.output != 0)  # of several cores the last one's stays
            self.parcel_bytes += report.parcel_bytes
            spikes.append(report.spikes)
        self.score += output
        phase["busiest_link"] = int(load.max(initial=0))
        # the slowest core's clocks, or those of the busiest link, which no region knows
        phase["clocks"] = max(phase["busiest_link"], *(int(report.counts["clocks"][0]) for report in reports))
        phase["overruns"] = int(phase["clocks"] > self._program.limits["phase_clocks"][0])
        totals = self.totals[0]
        totals["phases"] += 1
        for name in (*SUMS, "overruns"):
            totals[name] += phase[name]
        for name in ("busiest_link", "clocks"):
            totals[name] = max(int(totals[name]), phase[name])
        if not all(report.is_still for report in reports):
            row = np.zeros(1, PHASE_DTYPE)
            row["t"] = end_us
            for name in PHASE_DTYPE.names[1:]:  # type: ignore[index] # a record has names
                row[name] = phase[name]
            rows.append(row)
