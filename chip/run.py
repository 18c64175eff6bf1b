"""Run a compiled program: feed spikes, collect what it says and what it cost."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program
from chip.grid import COUNT_DTYPE, DONE, FULL, GridState, clear, fault, new_state, run_phases, spike_room
from chip.learning import Host, run_learning_phases
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

__all__ = ["TOTALS", "Measured", "Output", "advance", "answer_of", "buffers_for", "measure", "poisson"]

TOTALS = tuple(name for name in COUNT_DTYPE.names or () if name != "overflow_core")
ROWS = 1024  # rows of the phase table filled before Python is entered to hand them on


class Output(NamedTuple):
    """What a run of phases produced."""

    spikes: NDArray[np.void]  # SPIKE_DTYPE; numbers as in ``Program.watched``
    rows: NDArray[np.void]  # PHASE_DTYPE, of phases in which anything happened


class Buffers(NamedTuple):
    """Room for what a call of the kernel makes."""

    spikes: NDArray[np.void]
    rows: NDArray[np.void]
    progress: NDArray[np.int64]
    inner: NDArray[np.int64]


def buffers_for(program: Program) -> Buffers:
    """Allocate them."""
    return Buffers(
        np.empty(4 * spike_room(program.grid), SPIKE_DTYPE),
        np.empty(ROWS, PHASE_DTYPE),
        np.zeros(3, np.int64),
        np.zeros(3, np.int64),
    )


def advance(
    program: Program,
    state: GridState,
    incoming: NDArray[np.void],
    until_us: int,
    strict: bool,
    buffers: Buffers,
    host: Host | None = None,
) -> Output:
    """Take spikes in and run every phase that ends by ``until_us``; with a host, one that learns in between.

    Raises
    ------
    CapacityError
        Naming core and phase, if something overflows and ``strict``; naming an input line that is not there.
    """
    spikes, rows = [], []
    progress = buffers.progress
    progress[:] = 0
    while True:
        given = (incoming, until_us, strict, buffers.spikes, buffers.rows, progress)
        if host is None:
            status = run_phases(program.grid, state, *given)
        else:
            status = run_learning_phases(program.grid, state, host.learner, host.state, *given, buffers.inner)
        spikes.append(buffers.spikes[: progress[1]].copy())
        rows.append(buffers.rows[: progress[2]].copy())
        progress[1:] = 0
        if status == DONE:
            return Output(np.concatenate(spikes), np.concatenate(rows))
        if status != FULL:
            names = [core.name for core in program.cores]
            raise fault(status, state, names, program.positions, incoming, int(progress[0]))


def answer_of(program: Program, state: GridState, readout: str = "") -> int:
    """Return the class with the largest sum of the readout's values since the last clear; -1 if no phase ran.

    The time average is the sum over a number of phases that is the same for all, so the exact integer sum decides; ties
    go to the lowest. ``readout``: the layer that answers; default the last one whose values leave.
    """
    if not program.outputs or state.clock["phase"][0] == 0:
        return -1
    lines = program.outputs[readout or list(program.outputs)[-1]]
    return int(np.argmax(state.score[lines]))


class Measured(NamedTuple):
    """What running recordings took, added up over all of them."""

    source: str  # what was run, in words
    recordings: int
    phases: int
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
        Of each recording: bool, shape (n_phases, n_inputs).
    source
        What these are, in words.
    strict
        As for :func:`advance`.
    """
    phase_us = program.network.phase_us
    state, buffers = new_state(program.grid, phase_us, phase_us), buffers_for(program)
    late = max(program.offsets[: len(program.network.layers)], default=0)
    answers, n_phases = [], 0
    for recording in phases:
        clear(program.grid, state, phase_us)
        phase, unit = np.nonzero(recording)
        incoming = np.zeros(len(unit), SPIKE_DTYPE)
        incoming["t"], incoming["unit"] = phase * phase_us, unit
        advance(program, state, incoming, (len(recording) + late) * phase_us, strict, buffers)
        answers.append(answer_of(program, state))
        n_phases += len(recording) + late
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
