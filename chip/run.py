"""Run a compiled program: feed spikes, collect what it says and what it cost."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.advance import Buffers, Output, advance, buffers_for
from chip.compiler import Program, latencies
from chip.frames import FrameState, Plan, advance_frames, clear_frames, end_of, new_frames, plan_of
from chip.grid import COUNT_DTYPE, GridState, clear, new_state
from chip.learning import Host
from stream.packet import SPIKE_DTYPE

__all__ = [
    "TOTALS",
    "Measured",
    "Running",
    "answer_of",
    "begin",
    "end_us",
    "late_us",
    "lines_of",
    "measure",
    "poisson",
    "proceed",
    "rest",
    "scores_of",
    "steps_of",
]

TOTALS = tuple(name for name in COUNT_DTYPE.names or () if name != "overflow_core")


class Running(NamedTuple):
    """A program at work."""

    program: Program
    state: GridState
    buffers: Buffers
    plan: Plan | None  # semi-folded
    frames: FrameState | None  # likewise


def begin(program: Program, begin_us: int) -> Running:
    """Put a program at rest; its first phase begins at ``begin_us``."""
    buffers = buffers_for(program)
    if program.folded is None:
        phase_us = program.network.phase_us
        return Running(program, new_state(program.grid, phase_us, begin_us + phase_us), buffers, None, None)
    plan = plan_of(program)
    return Running(program, new_state(program.grid, 1, 1), buffers, plan, new_frames(plan, begin_us))


def rest(running: Running, begin_us: int) -> None:
    """Put it at rest again; running totals go on."""
    if running.frames is None:
        clear(running.program.grid, running.state, begin_us + running.program.network.phase_us)
    else:
        clear(running.program.grid, running.state, 1)
        clear_frames(running.frames, begin_us)


def proceed(
    running: Running, incoming: NDArray[np.void], until_us: int, strict: bool, host: Host | None = None
) -> Output:
    """Take spikes in and run every phase that ends by ``until_us``.

    Parameters
    ----------
    running
        Moves on.
    incoming
        SPIKE_DTYPE, sorted: lines of the input, unfolded.
    until_us
        Time of the stream.
    strict
        Raise where something overflows, else count it.
    host
        Learns between phases.

    Raises
    ------
    CapacityError
        Naming core and phase, if something overflows and ``strict``; naming an input line that is not there.
    """
    program, state, buffers, plan, frames = running
    if plan is None or frames is None:
        return advance(program, state, incoming, until_us, strict, buffers, host)
    return advance_frames(program, plan, state, frames, incoming, until_us, strict, buffers)


def lines_of(running: Running, which: Literal["outputs", "watched"]) -> dict[str, slice]:
    """Tell where layers stand in :func:`scores_of`, or by which numbers their spikes are reported."""
    if running.plan is not None:
        return running.plan.lines(which)
    return running.program.outputs if which == "outputs" else running.program.watched


def scores_of(running: Running) -> NDArray[np.int64]:
    """Return the sums of the values that left, over the phases (semi-folded: frames) since the last rest."""
    return running.state.score if running.frames is None else running.frames.score


def steps_of(running: Running) -> int:
    """Count the phases, or frames that were gathered, since the last rest."""
    return int(running.state.clock["phase"][0] if running.frames is None else running.frames.clock["closed"][0])


def answer_of(running: Running, readout: str = "") -> int:
    """Return the class with the largest sum of the readout's values since the last rest; -1 if no phase ran.

    The time average is the sum over a number of phases that is the same for all, so the exact integer sum decides; ties
    go to the lowest. ``readout``: the layer that answers; default the last one whose values leave.
    """
    outputs = lines_of(running, "outputs")
    if not outputs or steps_of(running) == 0:
        return -1
    return int(np.argmax(scores_of(running)[outputs[readout or list(outputs)[-1]]]))


def late_us(program: Program) -> int:
    """Tell how long after the begin of a step all that it causes is out, where somas fire at once."""
    if program.folded is not None:
        return end_of(plan_of(program), 0)
    return (1 + max(program.offsets[: len(program.network.layers)], default=0)) * program.network.phase_us


def end_us(running: Running, begin_us: int, last_us: int) -> int:
    """Tell when all that an event at ``last_us`` causes is out, in a run that began at ``begin_us``."""
    if running.plan is not None:
        return end_of(running.plan, (last_us - begin_us) // running.plan.frame_us, begin_us)
    return last_us + max(latencies(running.program)) * running.program.network.phase_us


class Measured(NamedTuple):
    """What running recordings took, added up over all of them."""

    source: str  # what was run, in words
    recordings: int
    phases: int  # of the chip; semi-folded, a frame takes several
    totals: dict[str, int]  # counts of ``chip.grid``; busiest_link and clocks are the largest of a phase
    core_ops: NDArray[np.int64]  # shape (n_cores,)
    core_packets: NDArray[np.int64]  # shape (n_cores,)
    link_total: NDArray[np.int64]  # shape (n_used_links,)
    answers: NDArray[np.int64]  # shape (n_recordings,)


def measure(program: Program, phases: Sequence[NDArray[np.bool_]], source: str, *, strict: bool = True) -> Measured:
    """Run recordings one after the other, each from rest, and go on until its last spike has come out.

    Parameters
    ----------
    program
        What is run.
    phases
        Of each recording: bool, shape (n_phases, n_inputs); semi-folded: a frame each.
    source
        What these are, in words.
    strict
        As for :func:`proceed`.
    """
    step_us, late = program.whole.phase_us, late_us(program)
    running = begin(program, 0)
    state = running.state
    answers, n_phases = [], 0
    for recording in phases:
        rest(running, 0)
        step, unit = np.nonzero(recording)
        incoming = np.zeros(len(unit), SPIKE_DTYPE)
        incoming["t"], incoming["unit"] = step * step_us, unit
        proceed(running, incoming, (len(recording) - 1) * step_us + late, strict)
        answers.append(answer_of(running))
        n_phases += int(state.clock["phase"][0])
    totals = {name: int(state.totals[name][0]) for name in TOTALS}
    return Measured(
        source,
        len(phases),
        n_phases,
        totals,
        state.core_ops.copy(),
        state.core_packets.copy(),
        state.link_total.copy(),
        np.array(answers, np.int64),
    )


def poisson(n_inputs: int, phase_us: int, rate_hz: float, n_phases: int, seed: int) -> list[NDArray[np.bool_]]:
    """Make a recording of input lines that fire at random, where nobody has another."""
    share = min(rate_hz * phase_us * 1e-6, 1.0)
    return [np.random.default_rng(seed).random((n_phases, n_inputs)) < share]
