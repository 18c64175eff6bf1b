"""How fast the chip adds, beside the plainest loop that adds the same weights.

The limit is ``int32 += int8`` over the same rows of the same arrays in the same order: no axons, no somas, no mesh. So
the ratio says what all of the chip around the additions costs; it may pass 1, because where nothing can saturate the
chip keeps its sums in registers, in 16 bits (:mod:`chip.core`).

The whole chip is also measured against time: phases of 1 ms, cores joined in a ring, a tenth and all of the axons
active in every phase; there the limit is one phase a millisecond, and the ratio is how many times faster than real
time the chip runs on one core of the machine.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program, compile_network
from chip.core import AXON_SPIKES, ROUTE_DTYPE, SYNAPSE_MATRIX, Core
from chip.grid import DONE, GridState, new_state, run_phases, spike_room
from chip.peer_bench import PEERS, seconds_a_step
from chip.profile import load_profile
from chip.program import INPUT_DTYPE, GridProgram, assemble
from chip.quantise import QuantisedLayer, chain
from chip.soma import LEAK_PROPORTIONAL, RESET_NONE, Soma
from stream.bench import Measurement, alternate
from stream.jit import kernel
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

__all__ = ["measurements", "ring"]

PHASE_US = 1000
NEVER = 2**26  # a threshold that is never passed: the number of additions is then known
BIAS = 2**24  # far more than weights can add up to: who fires is then known


@kernel
def _add_rows(weight: NDArray[np.int8], row: NDArray[np.int64], total: NDArray[np.int32]) -> None:
    """Add rows of int8 into int32."""
    for k in range(len(row)):
        weights = weight[row[k]]
        for j in range(len(total)):
            total[j] += np.int32(weights[j])


def _runner(program: GridProgram, state: GridState, incoming: NDArray[np.void], n_phases: int) -> Callable[[], None]:
    """Return what runs a number of phases, the same stretch of time again at each call."""
    spikes = np.empty(spike_room(program), SPIKE_DTYPE)
    rows, progress = np.empty(n_phases + 1, PHASE_DTYPE), np.zeros(3, np.int64)

    def run() -> None:
        # the chip goes on from where it stands
        state.clock["end_us"] = PHASE_US
        progress[:] = 0
        status = run_phases(program, state, incoming, n_phases * PHASE_US, False, spikes, rows, progress)
        if status != DONE:
            raise AssertionError(f"chip stopped with status {status}")

    return run


def _random_input(rng: np.random.Generator, n_inputs: int, n_active: int, n_phases: int) -> NDArray[np.void]:
    """Make spikes on ``n_active`` lines in every phase."""
    units = [np.sort(rng.choice(n_inputs, n_active, replace=False)) for _ in range(n_phases)]
    incoming = np.zeros(n_phases * n_active, SPIKE_DTYPE)
    incoming["t"], incoming["unit"] = np.repeat(np.arange(n_phases) * PHASE_US, n_active), np.concatenate(units)
    return incoming


def _beside_rows(name: str, run: Callable[[], None], weight: NDArray[np.int8], order: NDArray[np.int64]) -> Measurement:
    """Time a chip that adds the rows ``order`` of ``weight``, beside the loop that does nothing else."""
    total = np.zeros(weight.shape[1], np.int32)

    def plain() -> None:
        total[:] = 0
        _add_rows(weight, order, total)

    chip_s, plain_s = alternate(run, plain)
    n_added = len(order) * weight.shape[1]
    return Measurement(name, n_added / chip_s, "synaptic operations", "int32 += int8, same rows", n_added / plain_s)


def _one_core(share: int, n_phases: int, rng: np.random.Generator) -> Measurement:
    """Time one full core of leaky neurons, ``share`` per cent of its axons active in every phase."""
    weight = rng.integers(-127, 128, (256, 256)).astype(np.int8)
    soma = Soma(v_threshold=NEVER, leak_mode=LEAK_PROPORTIONAL, alpha=244)
    no_routes = np.zeros(0, ROUTE_DTYPE)
    core = Core("full", AXON_SPIKES, SYNAPSE_MATRIX, 256, 256, weight, np.zeros(256, np.int32), soma, no_routes)
    lines = np.array([(i, 0, i) for i in range(256)], INPUT_DTYPE)
    program = assemble([core], [(0, 0)], lines, 256, 0, load_profile("tianjic-2019"))
    incoming = _random_input(rng, 256, 256 * share // 100, n_phases)
    run = _runner(program, new_state(program, PHASE_US, PHASE_US), incoming, n_phases)
    name = f"chip: one core 256-256, {share} % of axons active"
    return _beside_rows(name, run, weight, incoming["unit"].astype(np.int64))


def _digits(sizes: tuple[int, ...], n_phases: int, rng: np.random.Generator) -> Measurement:
    """Time a compiled network with a tenth of its input lines active; its hidden units stay silent."""
    layers = [
        QuantisedLayer(
            rng.integers(-127, 128, (n_pre, n_post)).astype(np.int8),
            1.0,
            244,
            NEVER if k < len(sizes) - 2 else None,
        )
        for k, (n_pre, n_post) in enumerate(pairwise(sizes))
    ]
    profile = load_profile("tianjic-2019")
    program: Program = compile_network(chain(layers, profile), profile)
    incoming = _random_input(rng, sizes[0], sizes[0] // 10, n_phases)
    run = _runner(program.grid, new_state(program.grid, PHASE_US, PHASE_US), incoming, n_phases)
    name = f"chip: {'-'.join(map(str, sizes))} on {len(program.cores)} cores, 10 % of axons active"
    return _beside_rows(name, run, layers[0].weight, incoming["unit"].astype(np.int64))


def ring(share: int, chips: tuple[int, int], rng: np.random.Generator, n_cores: int | None = None) -> GridProgram:
    """Fill chips with cores of 256 x 256, each sending to the next, the last to the first.

    Parameters
    ----------
    share
        Neurons of each core that fire in every phase, per cent; so that many of the axons are active.
    chips
        Columns and rows of chips.
    rng
        Draws weights (as many different cores as a chip has), and who fires.
    n_cores
        How many there are; default: as many as fit.
    """
    profile = load_profile("tianjic-2019")
    width, height = profile.grid_width.value * chips[0], profile.grid_height.value * chips[1]
    places = [(x if y % 2 == 0 else width - 1 - x, y) for y in range(height) for x in range(width)]
    places = places[:n_cores]
    weights = [rng.integers(-127, 128, (256, 256)).astype(np.int8) for _ in range(profile.n_cores)]
    cores = []
    for k, (x, y) in enumerate(places):
        bias = np.full(256, -BIAS, np.int32)
        bias[rng.choice(256, 256 * share // 100, replace=False)] = BIAS
        routes = np.zeros(256, ROUTE_DTYPE)
        routes["neuron"] = routes["axon"] = np.arange(256)
        to_x, to_y = places[(k + 1) % len(places)]
        routes["dx"], routes["dy"] = to_x - x, to_y - y
        soma = Soma(reset_mode=RESET_NONE, window_length=0)  # without memory: the same neurons fire again
        weight = weights[k % len(weights)]
        cores.append(Core(f"ring {k}", AXON_SPIKES, SYNAPSE_MATRIX, 256, 256, weight, bias, soma, routes))
    return assemble(cores, places, np.zeros(0, INPUT_DTYPE), 0, 0, profile, chips=chips)


def _real_time(share: int, chips: tuple[int, int], n_phases: int, rng: np.random.Generator) -> Measurement:
    """Time a ring against phases of 1 ms."""
    program = ring(share, chips, rng)
    run = _runner(program, new_state(program, PHASE_US, PHASE_US), np.zeros(0, SPIKE_DTYPE), n_phases)
    seconds, _ = alternate(run, lambda: None, rounds=5)
    name = f"chip: {len(program.cores)} full cores, {share} % of axons active"
    return Measurement(name, n_phases / seconds, "phases", "real time, phases of 1 ms", 1e6 / PHASE_US)


def _beside_peers(n_steps: int, rng: np.random.Generator) -> Iterator[Measurement]:
    """Time a small ring beside other emulators', where they are installed; see :mod:`chip.peer_bench`."""
    n_cores, share = 8, 10
    program = ring(share, (1, 1), rng, n_cores)
    for peer in PEERS:
        peer_s, why_not = seconds_a_step(peer, n_cores, share, n_steps)
        if peer_s is None:
            print(f"{peer}: skipped, {why_not}", file=sys.stderr)
            continue
        n_phases = 50 * n_steps
        run = _runner(program, new_state(program, PHASE_US, PHASE_US), np.zeros(0, SPIKE_DTYPE), n_phases)
        seconds, _ = alternate(run, lambda: None, rounds=5)
        name = f"chip: {n_cores} full cores, {share} % of axons active, times {peer}"
        yield Measurement(name, n_phases / seconds, "phases", peer, 1 / peer_s)


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure one full core, the digit network of twelve cores, a whole chip, and 5 x 5 chips.

    Parameters
    ----------
    quick
        Fewer phases, and no 5 x 5 chips (260 MB of weights).
    """
    rng = np.random.default_rng(1)
    n_phases = 200 if quick else 2000
    for share in (10, 50, 100):
        yield _one_core(share, n_phases, rng)
    yield _digits((2312, 200, 10), n_phases, rng)
    for share in (10, 100):
        yield _real_time(share, (1, 1), n_phases // 10, rng)
    yield from _beside_peers(20, rng)
    if not quick:
        yield _real_time(10, (5, 5), 10, rng)
