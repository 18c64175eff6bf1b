"""A semi-folded program in stream time: a frame is gathered, then its rows go in, one a phase, while the next gathers.

Time
----
Frame f gathers what comes in ``[begin + f F, begin + (f + 1) F)``, F being ``phase_us`` of the network as it was given:
a frame is one of its phases. The chip's phases are counted from 0 on, a period P of them for each frame
(:mod:`chip.fold`); phase f P + i runs once frame f is over, and ends at::

    begin + (f + 1) F + floor((i + 1) F / P)

The chip itself is run by the number of phases alone: its clock shows 1 us for each.

Which phases count
------------------
Row r of a layer is out in phase ``f P + first + r every``, first being later where splits make its layer late. Spikes
and values of other phases mean nothing and are left out; units are numbered as in the unfolded network. Values of a
leaky readout are its currents U: the host moves its potentials, once a frame, as a soma would::

    V <- clamp(V + U)        V <- clamp((V alpha >> 8) + beta), not below the floor

An answer is the class with the largest sum over the frames that are out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.advance import Buffers, Output, advance
from chip.compiler import Program
from chip.fold import Folded, Rows
from chip.grid import GridState
from chip.soma import FIRE_MEMBRANE_AFTER_LEAK, LEAK_PROPORTIONAL, Soma
from neurons.graph import n_units
from stream.errors import CapacityError
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

__all__ = ["FrameState", "Plan", "advance_frames", "clear_frames", "end_of", "last_of", "new_frames", "plan_of"]

FRAME_DTYPE = np.dtype(
    [
        ("begin_us", "<i8"),  # of frame 0
        ("closed", "<i8"),  # frames that have been gathered
        ("merged", "<i8"),  # spikes of the one that gathers that met another on their line
    ]
)


class Member(NamedTuple):
    """A layer that says something to the outside, by values or by spikes."""

    name: str
    lines: slice  # of the program: of a row
    whole: slice  # likewise, of the unfolded network
    rows: Rows  # splits counted
    soma: Soma | None  # of a readout that the host leaks


class Plan(NamedTuple):
    """What never changes."""

    folded: Folded
    frame_us: int
    period: int
    height: int  # rows of the input
    width: int  # input lines of a row
    outputs: list[Member]
    watched: list[Member]
    reading: list[tuple[int, int, Member]]  # phase of a frame's row, its number, the layer
    highest: int  # potential of a readout

    def lines(self, which: str) -> dict[str, slice]:
        """Return where layers stand among ``outputs`` or ``watched``, unfolded."""
        return {member.name: member.whole for member in getattr(self, which)}


class FrameState(NamedTuple):
    """What is remembered beside the grid."""

    clock: NDArray[np.void]  # FRAME_DTYPE, shape (1,)
    waiting: NDArray[np.uint8]  # shape (n_inputs,): lines of the frame that gathers
    laid: NDArray[np.uint8]  # shape (n_inputs,): of the frame whose rows go in
    v: NDArray[np.int64]  # shape (n_outputs,): of readouts
    score: NDArray[np.int64]  # shape (n_outputs,): sums over frames


def plan_of(program: Program) -> Plan:
    """Plan how a semi-folded program is run."""
    folded = program.folded
    if folded is None:
        raise TypeError("wanted a semi-folded program")
    names = [layer.name for layer in folded.network.layers]

    def members(lines_of: dict[str, slice]) -> list[Member]:
        found, first = [], 0
        for name, lines in lines_of.items():
            k = names.index(name)
            whole = folded.whole.layers[k]
            late = folded.rows[k]._replace(first=folded.rows[k].first + program.offsets[k])
            leaks = whole.soma.fire_type == FIRE_MEMBRANE_AFTER_LEAK
            n = n_units(whole.shape)
            found.append(Member(name, lines, slice(first, first + n), late, whole.soma if leaks else None))
            first += n
        return found

    outputs = members(program.outputs)
    height, *row = folded.whole.inputs
    return Plan(
        folded,
        folded.whole.phase_us,
        folded.period,
        height,
        n_units(tuple(row)),
        outputs,
        members(program.watched),
        [(it.rows.first + r * it.rows.every, r, it) for it in outputs for r in range(it.rows.n)],
        (1 << (program.profile.membrane_bits.value - 1)) - 1,
    )


def new_frames(plan: Plan, begin_us: int) -> FrameState:
    """Put a program at rest; the first frame begins at ``begin_us``."""
    n_inputs = plan.height * plan.width
    n_outputs = max((it.whole.stop for it in plan.outputs), default=0)
    frames = FrameState(
        np.zeros(1, FRAME_DTYPE),
        np.zeros(n_inputs, np.uint8),
        np.zeros(n_inputs, np.uint8),
        np.zeros(n_outputs, np.int64),
        np.zeros(n_outputs, np.int64),
    )
    clear_frames(frames, begin_us)
    return frames


def clear_frames(frames: FrameState, begin_us: int) -> None:
    """Drop what was gathered, potentials of readouts and scores; the next frame begins at ``begin_us``."""
    for array in (frames.waiting, frames.laid, frames.v, frames.score):
        array[:] = 0
    frames.clock["begin_us"], frames.clock["closed"], frames.clock["merged"] = begin_us, 0, 0


def last_of(plan: Plan) -> int:
    """Return the last phase, from the first row of a frame on, in which anything that it causes comes out."""
    heard = [*plan.outputs, *plan.watched]
    return max((it.rows.first + (it.rows.n - 1) * it.rows.every for it in heard), default=0)


def end_of(plan: Plan, frame: int, begin_us: int = 0) -> int:
    """Return when all that frame ``frame`` causes is out."""
    return int(_time_of(plan, begin_us, np.int64(frame * plan.period + last_of(plan))))


def _time_of(plan: Plan, begin_us: int, phase: Any) -> Any:
    """Return when phases end."""
    frame, row = phase // plan.period, phase % plan.period
    return begin_us + (frame + 1) * plan.frame_us + (row + 1) * plan.frame_us // plan.period


def _phases_by(plan: Plan, begin_us: int, until_us: int) -> int:
    """Count the phases that end by a time."""
    frame, left_us = divmod(until_us - begin_us - plan.frame_us, plan.frame_us)
    return max(frame * plan.period + ((left_us + 1) * plan.period - 1) // plan.frame_us, 0)


def advance_frames(
    program: Program,
    plan: Plan,
    state: GridState,
    frames: FrameState,
    incoming: NDArray[np.void],
    until_us: int,
    strict: bool,
    buffers: Buffers,
) -> Output:
    """Take spikes of the unfolded input in and run every phase that ends by ``until_us``.

    Raises
    ------
    CapacityError
        As :func:`chip.advance.advance`.
    """
    clock = frames.clock[0]
    begin_us, frame_us = int(clock["begin_us"]), plan.frame_us
    pieces: list[Output] = []
    taken = 0
    while True:
        end_us = begin_us + (int(clock["closed"]) + 1) * frame_us
        stop = taken + int(np.searchsorted(incoming["t"][taken:], end_us))
        _gather(frames, incoming[taken:stop])
        taken = stop
        next_us = until_us if taken == len(incoming) else int(incoming["t"][taken])
        if next_us < end_us:
            break
        pieces += _run_to(program, plan, state, frames, int(clock["closed"]) * plan.period, strict, buffers)
        frames.laid[:] = frames.waiting
        frames.waiting[:] = 0
        state.clock["merged"] += clock["merged"]
        clock["merged"] = 0
        clock["closed"] += 1
        n_silent = (next_us - begin_us) // frame_us - int(clock["closed"])
        if n_silent > 0 and not frames.laid.any():
            _skip(program, plan, state, frames, n_silent, strict, buffers)
    pieces += _run_to(program, plan, state, frames, _phases_by(plan, begin_us, until_us), strict, buffers)
    if not pieces:
        return Output(np.empty(0, SPIKE_DTYPE), np.empty(0, PHASE_DTYPE))
    return Output(np.concatenate([it.spikes for it in pieces]), np.concatenate([it.rows for it in pieces]))


def _gather(frames: FrameState, items: NDArray[np.void]) -> None:
    """Put spikes on the lines of the frame that gathers; several on a line are one."""
    unit = items["unit"].astype(np.int64)
    wrong = np.flatnonzero(unit >= len(frames.waiting))
    if len(wrong):
        raise CapacityError(
            f"chip: frame {int(frames.clock['closed'][0])} since the last reset: a spike for input line "
            f"{unit[wrong[0]]} at {int(items['t'][wrong[0]])} us, there are {len(frames.waiting)} lines, the first is 0"
        )
    new = np.unique(unit)
    frames.clock["merged"] += len(unit) - int(np.sum(frames.waiting[new] == 0))
    frames.waiting[new] = 1


def _run_to(
    program: Program, plan: Plan, state: GridState, frames: FrameState, phases: int, strict: bool, buffers: Buffers
) -> Iterator[Output]:
    """Run up to a number of phases; the rows that go in are those of the last frame gathered."""
    begin_us = int(frames.clock["begin_us"][0])
    at = int(state.clock["phase"][0])
    while at < phases:
        first = at // plan.period * plan.period
        # a piece ends where a readout is read, or a frame
        due = min((at + (phase - at) % plan.period for phase, _, _ in plan.reading), default=phases) + 1
        stop = min(phases, first + plan.period, due)
        lines = slice((at - first) * plan.width, min(stop - first, plan.height) * plan.width)
        unit = np.flatnonzero(frames.laid[lines])
        rows = np.zeros(len(unit), SPIKE_DTYPE)
        rows["t"], rows["unit"] = at + unit // plan.width, unit % plan.width
        piece = advance(program, state, rows, stop, strict, buffers)
        for phase, row, member in plan.reading:
            if stop > phase and (stop - 1 - phase) % plan.period == 0:
                _read(plan, state, frames, member, row, 1)
        piece.rows["t"] = _time_of(plan, begin_us, piece.rows["t"] - 1)
        yield Output(_unfolded(plan, begin_us, piece.spikes), piece.rows)
        at = stop


def _unfolded(plan: Plan, begin_us: int, spikes: NDArray[np.void]) -> NDArray[np.void]:
    """Keep the spikes that mean something, with times of the stream and numbers of the unfolded network."""
    kept = [np.empty(0, SPIKE_DTYPE)]
    for member in plan.watched:
        mine = spikes[(spikes["unit"] >= member.lines.start) & (spikes["unit"] < member.lines.stop)]
        since = mine["t"] - 1 - member.rows.first
        row, between = np.divmod(since % plan.period, member.rows.every)
        counts = (since >= 0) & (between == 0) & (row < member.rows.n)
        there = mine[counts]
        n_row = member.lines.stop - member.lines.start
        there["unit"] = member.whole.start + row[counts] * n_row + (there["unit"] - member.lines.start)
        kept.append(there)
    found = np.concatenate(kept)
    found = found[np.argsort(found["t"], kind="stable")]
    found["t"] = _time_of(plan, begin_us, found["t"] - 1)
    return found


def _read(plan: Plan, state: GridState, frames: FrameState, member: Member, row: int, n: int) -> None:
    """Take up what the last phase said, ``n`` times over: a row of a readout."""
    n_row = member.lines.stop - member.lines.start
    mine = slice(member.whole.start + row * n_row, member.whole.start + (row + 1) * n_row)
    came = state.output[member.lines].astype(np.int64)
    if member.soma is None:
        frames.score[mine] += n * came
        return
    alpha = member.soma.alpha if member.soma.leak_mode == LEAK_PROPORTIONAL else 256
    low, high = -plan.highest - 1, plan.highest
    while n:
        before = frames.v[mine].copy()
        v = np.clip(before + came, low, high)
        frames.v[mine] = np.maximum(np.clip((v * alpha >> 8) + member.soma.beta, low, high), member.soma.floor)
        if np.array_equal(before, frames.v[mine]):  # it will stay there
            frames.score[mine] += n * before
            return
        frames.score[mine] += frames.v[mine]
        n -= 1


def _skip(
    program: Program, plan: Plan, state: GridState, frames: FrameState, n: int, strict: bool, buffers: Buffers
) -> None:
    """Let ``n`` frames pass in which nothing comes, if the chip stands still: all of their phases are alike."""
    at, closed = int(state.clock["phase"][0]), int(frames.clock["closed"][0])
    # the empty frame that was laid has still to go in
    if not state.clock["still"][0] or at != (closed - 1) * plan.period:
        return
    if at < max((phase for phase, _, _ in plan.reading), default=0):
        return
    advance(program, state, np.empty(0, SPIKE_DTYPE), at + n * plan.period, strict, buffers)
    for _, row, member in plan.reading:
        _read(plan, state, frames, member, row, n)
    frames.clock["closed"] += n
