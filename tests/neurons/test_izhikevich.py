"""Izhikevich's units against an adaptive integrator, and the order with which their error falls."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.izhikevich import IzhikevichUnits, resting_point
from neurons.network import Network
from stream.packet import SPIKE_DTYPE, Reset

KINDS = {  # from the paper's figure 2
    "regular spiking": IzhikevichUnits(0.02, 0.2, -65.0, 8.0),
    "bursting": IzhikevichUnits(0.02, 0.2, -55.0, 4.0),
    "chattering": IzhikevichUnits(0.02, 0.2, -50.0, 2.0),
    "fast spiking": IzhikevichUnits(0.1, 0.2, -65.0, 2.0),
}


def solved(model: IzhikevichUnits, kicks: list[tuple[int, float]], until_us: int) -> tuple[list[float], float]:
    """Return real-valued spike times (us) and v at the end; ``kicks``: (t, weight), sorted."""
    v, u = (float(z[0]) for z in resting_point(*(np.array([z], float) for z in (model.b, model.drive, model.c))))

    def slope(t: float, y: Any) -> Any:
        return [0.04 * y[0] ** 2 + 5 * y[0] + 140 - y[1] + model.drive, model.a * (model.b * y[0] - y[1])]

    def peak(t: float, y: Any) -> Any:
        return y[0] - model.v_peak

    peak.terminal, peak.direction = True, 1
    spikes, t_ms = [], 0.0
    for kick_us, weight in [*kicks, (until_us, 0.0)]:
        while t_ms < kick_us / 1000:
            run = solve_ivp(
                slope, (t_ms, kick_us / 1000), [v, u], "DOP853", events=peak, rtol=1e-12, atol=1e-12, max_step=1.0
            )
            t_ms, (v, u) = float(run.t[-1]), run.y[:, -1]
            if run.status == 1:
                spikes.append(1000 * t_ms)
                v, u = model.c, u + model.d
        v += weight
        assert v < model.v_peak
    return spikes, float(v)


def ours(model: IzhikevichUnits, kicks: list[tuple[int, float]], until_us: int) -> tuple[np.ndarray, float]:
    weight = np.array([[weight] for _, weight in kicks])
    graph = Graph((len(kicks),), [Population("a", model, (1,))], [Projection(INPUT, "a", Dense(weight))])
    network = Network.of(graph, precision="float64")
    network.on_mark("spikes", Reset(0), lambda port, message: None)
    items = np.array([(t, i) for i, (t, _) in enumerate(kicks)], SPIKE_DTYPE)
    spikes = network.run(items, until_us)["a"]["t"]
    return spikes.astype(float), float(network.potentials("a")[0])


@pytest.mark.parametrize("kind", KINDS)
def test_between_spikes_the_error_falls_with_the_square_of_the_step(kind: str) -> None:
    kicks = [(137, 6.0), (4321, -9.0), (9876, 5.0), (13_003, 4.0)]
    errors = []
    want = solved(KINDS[kind], kicks, 20_000)
    assert not want[0]
    for step_us in (400, 200, 100, 50):
        spikes, v = ours(KINDS[kind]._replace(step_us=step_us), kicks, 20_000)
        assert not len(spikes)
        errors.append(abs(v - want[1]))
    assert errors[-1] < 1e-4
    for coarse, fine in itertools.pairwise(errors):
        assert 3 < coarse / fine < 6


@pytest.mark.parametrize("kind", KINDS)
def test_across_spikes_the_error_falls_with_the_step(kind: str) -> None:
    model = KINDS[kind]._replace(drive=10.0)
    kicks = [(20_011, 5.0), (51_003, -4.0)]
    want = np.array(solved(model, kicks, 100_000)[0])
    assert len(want) >= 3
    largest = []
    for step_us in (100, 50, 20, 10, 5, 2, 1):
        spikes, _ = ours(model._replace(step_us=step_us), kicks, 100_000)
        assert len(spikes) == len(want)
        late = spikes - want
        assert 0 <= late[0] < 1.5 * step_us  # moved to the end of its step
        # and every spike passes its delay on to the next
        assert np.all(np.abs(late) < 2.5 * step_us * np.arange(1, len(late) + 1))
        largest.append(np.abs(late).max())
    assert 30 < largest[0] / largest[-1] < 300


@pytest.mark.parametrize("kind", KINDS)
def test_nest_agrees(kind: str) -> None:
    nest = pytest.importorskip("nest", reason="needs NEST (the extra 'simulators'), an independent simulator")
    model = KINDS[kind]._replace(drive=10.0, step_us=1)
    kicks = [(20_012, 5.0), (51_004, -4.0)]  # on every grid below
    spikes, _ = ours(model, kicks, 100_000)
    errors = []
    for resolution_us in (4, 2, 1):
        nest.ResetKernel()
        nest.verbosity = nest.VerbosityLevel.ERROR
        nest.resolution = resolution_us / 1000
        v, u = resting_point(*(np.array([z], float) for z in (model.b, model.drive, model.c)))
        params = {"a": model.a, "b": model.b, "c": model.c, "d": model.d, "I_e": model.drive, "V_th": model.v_peak}
        # NEST's own default splits the step of v in two halves of 0.5 ms; this is forward Euler
        cell = nest.Create("izhikevich", params=params | {"V_m": v[0], "U_m": u[0], "consistent_integration": True})
        for t, weight in kicks:
            line = nest.Create("spike_generator", params={"spike_times": [t / 1000 - 0.004]})
            nest.Connect(line, cell, "one_to_one", {"weight": weight, "delay": 0.004})
        recorder = nest.Create("spike_recorder")
        nest.Connect(cell, recorder)
        nest.Simulate(100.0)
        theirs = np.sort(recorder.events["times"]) * 1000
        assert len(theirs) == len(spikes)
        errors.append(np.abs(theirs - spikes).max())
    # first order: half the step, half the distance; 0.1 s and up to 14 spikes later 30 us are left
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 30
