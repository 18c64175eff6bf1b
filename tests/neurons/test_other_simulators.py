"""Random networks here, in NEST and in Brian2: independent simulators (the extra ``simulators``), skipped if absent.

NEST and Brian2 run on a grid, 1 us here, on which all times lie. There both integrate exactly, as we do, so spikes have
to be the same to the last one. Rounding differs (they multiply by one factor a step, we take one exponential a gap),
which could only show in a potential that misses its threshold by 1e-12.

What a grid means differently, and how it is converted
------------------------------------------------------
*Together.* A grid adds up all that arrives in a step, then tests once. Discipline ``event`` tests after each delivery.
Equal are: ``event`` where spikes do not meet (every unit has a delay of its own, input times are single; the first
spike that differs, if any, has to be one where two met all the same); or ``phase`` with phases of one step, where they
may. There a spike carries the end of the phase by whose begin NEST calls it: all spikes come 1 us later, and a delay of
d there is one of d - 1 here.

*Refractory.* NEST counts steps: after a spike in step k, steps k + 1 ... k + n have ``t_ref`` = n steps, neither leak
nor listen. So a spike that arrives exactly ``t_ref`` after is lost, and the leak begins at k + n. Here it is heard:
[0, t) is dead here, (0, t] there. Hence ``refractory_us = t_ref + 1 us`` is as deaf; the leak then begins 1 us late,
which shows unless ``V_reset`` is the resting potential. In phases of 1 us, where a spike carries the end of its step,
1 us less does the same: ``t_ref`` is as deaf, ``t_ref - 1 us`` leaks alike. The two are one where no spike arrives
exactly ``t_ref`` after another (below: all times even, ``t_ref`` odd). Brian2 drops [0, t), as we do.

*Crossings.* ``iaf_psc_exp_ps`` finds real-valued times between grid points, by bisection (ours: Newton's method on the
closed form). Our spike carries the next whole microsecond, so it has to lie less than 1 us after NEST's; 1e-6 us are
left for rounding. What is sent on differs: NEST's spikes travel with their real times. A ``parrot_neuron`` between
puts them on the next grid point, and takes one step: a delay of d here is one step to the parrot and d - 1 from there.
"""

import itertools
from typing import Any

import numpy as np
import pytest

from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.sparse import sparse_of
from stream.packet import SPIKE_DTYPE

N_INPUTS, N_UNITS = 12, 25


def inputs(seed: int, duration_us: int, gap_us: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.unique(rng.integers(10, duration_us, duration_us // gap_us))
    items = np.zeros(len(t), SPIKE_DTYPE)
    items["t"], items["unit"] = t, rng.integers(0, N_INPUTS, len(t))
    return items


def random_weights(seed: int) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """Draw input weights, and a row of recurrent weights for each unit, with a delay of its own."""
    rng = np.random.default_rng(seed + 100)
    weight = rng.normal(0.35, 0.3, (N_INPUTS, N_UNITS))
    back = []
    for i in range(N_UNITS):
        matrix = np.zeros((N_UNITS, N_UNITS))
        matrix[i] = rng.normal(0.02, 0.25, N_UNITS) * (rng.random(N_UNITS) < 0.4)
        back.append(matrix)
    return weight, back, [int(delay) for delay in rng.choice(np.arange(150, 4000), N_UNITS, replace=False)]


def ours(
    model: Any, weight: np.ndarray, back: list[np.ndarray], delays: list[int], items: np.ndarray, **more: Any
) -> np.ndarray:
    projections = [Projection(INPUT, "a", Dense(weight))]
    projections += [Projection("a", "a", sparse_of(w), delay) for w, delay in zip(back, delays, strict=True)]
    graph = Graph((N_INPUTS,), [Population("a", model, (N_UNITS,))], projections)
    return Network.of(graph, precision="float64", **more).run(items, int(items["t"][-1]) + 1)["a"]


def meetings(weight: np.ndarray, back: list[np.ndarray], delays: list[int], items: Any, fired: Any) -> set[int]:
    """Return the times at which two spikes reach the same unit."""
    arrivals = [(int(t), weight[int(i)] != 0) for t, i in items.tolist()]
    arrivals += [(int(t) + delays[int(i)], back[int(i)][int(i)] != 0) for t, i in fired.tolist()]
    arrivals.sort(key=lambda arrival: arrival[0])
    return {t for (t, a), (s, b) in itertools.pairwise(arrivals) if t == s and np.any(a & b)}


@pytest.fixture
def nest() -> Any:
    nest = pytest.importorskip("nest", reason="needs NEST (pip install nest-simulator), an independent simulator")
    nest.verbosity = nest.VerbosityLevel.ERROR
    return nest


def in_nest(
    nest: Any,
    model: str,
    params: dict[str, float],
    weight: np.ndarray,
    back: list[np.ndarray],
    delays: list[int],
    items: np.ndarray,
    *,
    on_grid: bool = False,
) -> np.ndarray:
    """Run the network in NEST; returns (t in us, unit), sorted. ``on_grid``: spikes go back through parrots."""
    nest.ResetKernel()
    nest.resolution = 0.001
    cells = nest.Create(model, N_UNITS, params=params)
    lines = nest.Create("spike_generator", N_INPUTS)
    for i, line in enumerate(lines):
        # a spike travels 1 step at least
        line.spike_times = [(int(t) - 1) / 1000 for t in items["t"][items["unit"] == i]]
    recorder = nest.Create("spike_recorder")
    senders = cells
    if on_grid:
        senders = nest.Create("parrot_neuron", N_UNITS)
        nest.Connect(cells, senders, "one_to_one", {"delay": 0.001})

    def connect(sources: Any, matrix: np.ndarray, delay_us: int) -> None:
        for i, j in zip(*np.nonzero(matrix), strict=True):
            nest.Connect(
                sources[int(i)], cells[int(j)], "one_to_one", {"weight": matrix[i, j], "delay": delay_us / 1000}
            )

    connect(lines, weight, 1)
    for matrix, delay_us in zip(back, delays, strict=True):
        connect(senders, matrix, delay_us - on_grid)
    nest.Connect(cells, recorder)
    nest.Simulate((int(items["t"][-1]) + 2) / 1000)
    found = recorder.events
    order = np.lexsort((found["senders"], found["times"]))
    return np.stack([found["times"][order] * 1000, found["senders"][order] - 1.0], 1)


DELTA = {"tau_m": 5.0, "E_L": 0.0, "V_th": 1.0, "V_reset": 0.0, "V_m": 0.0, "t_ref": 2.0, "C_m": 1.0}


@pytest.mark.parametrize("seed", range(6))
def test_spikes_of_a_recurrent_network_are_those_of_nest(nest: Any, seed: int) -> None:
    items = inputs(seed, 60_000, 150)
    weight, back, delays = random_weights(seed)
    want = in_nest(nest, "iaf_psc_delta", DELTA, weight, back, delays, items)
    theirs = [(round(t), int(unit)) for t, unit in want]
    got = ours(LIFUnits(5000.0, reset="hard", refractory_us=2000 + 1), weight, back, delays, items)
    # where spikes meet all the same, a sum or its parts may cross the threshold; from there on they are two networks
    end_us = min((t for t, _ in set(theirs) ^ set(got.tolist())), default=10**9)
    assert end_us == 10**9 or end_us in meetings(weight, back, delays, items, got)
    assert sum(t < end_us for t, _ in theirs) > 80


@pytest.mark.parametrize("is_even", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_spikes_that_meet_are_added_up_in_phases_of_one_step(nest: Any, seed: int, is_even: bool) -> None:
    items = inputs(seed, 60_000, 150)
    items["t"] = items["t"] // 50 * 50 + 50  # several in a microsecond
    weight, back, _ = random_weights(seed)
    together = [sum(back[:10]), sum(back[10:])]
    delays = [300, 1450]  # few, so that what fires together arrives together
    params, model = DELTA, LIFUnits(5000.0, reset="hard", refractory_us=2000)
    if is_even:  # all times; the refractory time is odd, and the reset is not the resting potential
        params = DELTA | {"V_reset": -0.4, "E_L": -0.1, "V_m": -0.1, "t_ref": 2.001}
        model = LIFUnits(5000.0, v_leak=-0.1, v_reset=-0.4, reset="hard", refractory_us=2001 - 1)
    want = in_nest(nest, "iaf_psc_delta", params, weight, together, delays, items)
    got = ours(model, weight, together, [delay - 1 for delay in delays], items, discipline="phase", phase_us=1)
    assert len(want) > 100
    assert len(np.unique(want[:, 0])) < len(want)
    assert sorted(got.tolist()) == [(round(t) + 1, int(unit)) for t, unit in want]


@pytest.mark.parametrize("is_recurrent", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_crossings_between_events_are_those_of_nest(nest: Any, seed: int, is_recurrent: bool) -> None:
    items = inputs(seed, 60_000, 150)
    weight, back, delays = random_weights(seed)
    weight *= 8
    back = [3 * matrix for matrix in back]
    if not is_recurrent:
        back, delays = [], []
    tau_mem, tau_syn = ((10.0, 2.0), (3.0, 8.0), (5.0, 4.9), (20.0, 5.0), (2.0, 1.0))[seed]
    # C_m = tau_m: their I/C_m is our i/tau_mem
    params = {"tau_m": tau_mem, "C_m": tau_mem, "tau_syn_ex": tau_syn, "tau_syn_in": tau_syn, "t_ref": 1.0}
    params |= {"E_L": 0.0, "V_th": 1.0, "V_reset": -0.3, "V_m": 0.0}
    want = in_nest(nest, "iaf_psc_exp_ps", params, weight, back, delays, items, on_grid=is_recurrent)
    model = CurrentLIFUnits(tau_mem * 1000, tau_syn * 1000, v_reset=-0.3, reset="hard", refractory_us=1000)
    got = ours(model, weight, back, delays, items)
    assert len(want) > 100
    for unit in range(N_UNITS):
        mine, theirs = got["t"][got["unit"] == unit], want[want[:, 1] == unit, 0]
        assert len(mine) == len(theirs)
        assert np.all((theirs <= mine + 1e-6) & (mine < theirs + 1 + 1e-6))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Brian2 calls its own dependencies by old names
@pytest.mark.parametrize("seed", [5, 6])
def test_spikes_of_a_recurrent_network_are_those_of_brian2(seed: int) -> None:
    try:
        b2 = pytest.importorskip("brian2", reason="needs Brian2 (pip install brian2), an independent simulator")
    except AttributeError as error:
        pytest.skip(f"this Brian2 does not load with NumPy {np.__version__}: {error}; Brian2 2.9 wants NumPy < 2.4")
    b2.prefs.codegen.target = "numpy"
    items = inputs(seed, 15_000, 60)
    weight, back, delays = random_weights(seed)
    delays = [delay // 4 for delay in delays]
    b2.start_scope()
    b2.defaultclock.dt = 1 * b2.us
    cells = b2.NeuronGroup(
        N_UNITS,
        "dv/dt = -v/tau : 1 (unless refractory)",
        threshold="v > 1",
        reset="v = 0",
        refractory=500 * b2.us,
        method="exact",
        namespace={"tau": 1500 * b2.us},
    )
    lines = b2.SpikeGeneratorGroup(N_INPUTS, items["unit"].astype(int), (items["t"] - 1) * b2.us)
    parts = [cells, lines]
    for source, matrix, delay_us in [(lines, weight, 1), *((cells, m, d) for m, d in zip(back, delays, strict=True))]:
        synapses = b2.Synapses(source, cells, "w : 1", on_pre="v += w * int(not_refractory)")
        i, j = np.nonzero(matrix)
        synapses.connect(i=i, j=j)
        synapses.w = matrix[i, j]
        # what fires in a step is delivered in the next, since synapses come before thresholds here
        synapses.delay = (delay_us - 1) * b2.us
        parts.append(synapses)
    monitor = b2.SpikeMonitor(cells)
    network = b2.Network(*parts, monitor)
    network.schedule = ["start", "groups", "synapses", "thresholds", "resets", "end"]
    network.run((int(items["t"][-1]) + 2) * b2.us)
    times = np.rint(np.asarray(monitor.t / b2.us)).astype(int)
    got = ours(LIFUnits(1500.0, reset="hard", refractory_us=500), weight, back, delays, items)
    assert len(got) > 50
    assert sorted(got.tolist()) == sorted(zip(times.tolist(), np.asarray(monitor.i).tolist(), strict=True))
