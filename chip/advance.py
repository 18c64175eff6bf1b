"""Run the phases of a compiled program that are over: spikes in, spikes and counts out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program
from chip.grid import DONE, FULL, GridState, fault, run_phases, spike_room
from chip.learning import Host, run_learning_phases
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

__all__ = ["Buffers", "Output", "advance", "buffers_for"]

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
