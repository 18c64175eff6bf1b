"""How fast the chip adds, beside the plainest loop that adds the same weights.

The limit is ``int32 += int8`` over the same rows of the same array in the same order: no axons, no somas, no mesh. So
the ratio says what all of the chip around the additions costs.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program, QuantisedLayer, compile_network
from chip.grid import new_state, run_phases, spike_room
from chip.profile import load_profile
from stream.bench import Measurement, alternate
from stream.jit import kernel
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

__all__ = ["measurements"]

PHASE_US = 1000
NEVER = 2**26  # a threshold that is never passed: the number of additions is then known


@kernel
def _add_rows(weight: Any, row: Any, total: Any) -> None:
    """Add rows of int8 into int32."""
    for k in range(len(row)):
        weights = weight[row[k]]
        for j in range(len(total)):
            total[j] += np.int32(weights[j])


def _network(sizes: tuple[int, ...], rng: np.random.Generator) -> Program:
    """Compile a random network; its hidden units stay silent."""
    layers = [
        QuantisedLayer(
            rng.integers(-127, 128, (n_pre, n_post)).astype(np.int8),
            1.0,
            244,
            NEVER if k < len(sizes) - 2 else None,
        )
        for k, (n_pre, n_post) in enumerate(pairwise(sizes))
    ]
    return compile_network(layers, load_profile("tianjic-2019"))


def _measure(name: str, sizes: tuple[int, ...], n_phases: int, rng: np.random.Generator) -> Measurement:
    """Time a network with a tenth of its input lines active in every phase."""
    program = _network(sizes, rng)
    state = new_state(program.grid, PHASE_US, PHASE_US)
    n_active = sizes[0] // 10
    units = np.concatenate([np.sort(rng.choice(sizes[0], n_active, replace=False)) for _ in range(n_phases)])
    incoming = np.zeros(len(units), SPIKE_DTYPE)
    incoming["t"], incoming["unit"] = np.repeat(np.arange(n_phases) * PHASE_US, n_active), units
    spikes = np.empty(spike_room(program.grid), SPIKE_DTYPE)
    rows, progress = np.empty(n_phases + 1, PHASE_DTYPE), np.zeros(3, np.int64)
    weight: NDArray[np.int8] = program.layers[0].weight
    total, order = np.zeros(sizes[1], np.int32), units.astype(np.int64)

    def chip() -> None:
        # the same stretch of time again: the chip goes on from where it stands
        state.clock["end_us"] = PHASE_US
        progress[:] = 0
        run_phases(program.grid, state, incoming, n_phases * PHASE_US, False, spikes, rows, progress)

    def plain() -> None:
        total[:] = 0
        _add_rows(weight, order, total)

    chip_s, plain_s = alternate(chip, plain)
    n_added = len(units) * sizes[1]
    return Measurement(name, n_added / chip_s, "synaptic operations", "int32 += int8, same rows", n_added / plain_s)


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure one full core, and the digit network of twelve cores.

    Parameters
    ----------
    quick
        Fewer phases.
    """
    rng = np.random.default_rng(1)
    n_phases = 200 if quick else 2000
    yield _measure("chip: one core 256-256, 10 % of axons active", (256, 256), n_phases, rng)
    yield _measure("chip: 2312-200-10 on 12 cores, 10 % of axons active", (2312, 200, 10), n_phases, rng)
