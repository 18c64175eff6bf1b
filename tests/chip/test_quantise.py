"""From float networks to integers: what is observed, how scales are chosen, what cannot be expressed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.compiler import compile_network
from chip.network import weights_between
from chip.observe import apply, in_phases, observe
from chip.profile import load_profile
from chip.quantise import quantise_graph
from chip.rounding import round_together, traces
from neurons.activation import ActivationUnits
from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.pooling import Pooling
from neurons.threshold import ThresholdUnits
from stream.errors import CapacityError, ConfigError
from stream.packet import SPIKE_DTYPE

_spec = importlib.util.spec_from_file_location("chip_whole", Path(__file__).with_name("whole.py"))
whole = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(whole)

PROFILE = load_profile("tianjic-2019")
READOUT = Population("scores", LeakyIntegratorUnits(tau_mem_us=50_000.0), (3,))
MODELS = {
    "lif": LIFUnits(tau_mem_us=15_000.0),
    "hard": LIFUnits(tau_mem_us=15_000.0, reset="hard", refractory_us=2500),
    "rest": LIFUnits(tau_mem_us=9_000.0, v_leak=0.2, v_reset=-0.1),
    "current": CurrentLIFUnits(tau_mem_us=12_000.0, tau_syn_us=4_000.0, v_threshold=0.3),
    "adaptive": AdaptiveLIFUnits(tau_mem_us=15_000.0, tau_adapt_us=30_000.0, adaptation=0.4),
    "integrate": IntegrateFireUnits(reset="hard"),
    "driven": IntegrateFireUnits(drive_per_us=5e-5),
    "threshold": ThresholdUnits(0.3),
}


def spikes_of(rng, n_inputs, n_phases, share):
    phase, unit = np.nonzero(rng.random((n_phases, n_inputs)) < share)
    items = np.zeros(len(unit), SPIKE_DTYPE)
    items["t"], items["unit"] = phase * 1000, unit
    return items


def network(model, *, recurrent=True, seed=0, n_in=30, n=20):
    rng = np.random.default_rng(seed)
    projections = [
        Projection(INPUT, "hidden", Dense(rng.normal(0.12, 0.2, (n_in, n)))),
        Projection("hidden", "scores", Dense(rng.normal(0, 0.3, (n, 3)))),
    ]
    if recurrent:
        projections.append(Projection("hidden", "hidden", Inhibition(0.05), 2000))
    return Graph((n_in,), [Population("hidden", model, (n,)), READOUT], projections)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_observed_is_what_the_network_does_in_phases(name):
    graph = network(MODELS[name])
    items = spikes_of(np.random.default_rng(1), 30, 60, 0.08)
    there = in_phases([items], 30, 1000)
    seen = observe(graph, there, 1000)
    engine = Network.of(graph, discipline="phase", phase_us=1000, precision="float64")
    engine.begin(0)
    fired = engine.run(items, 60_000)["hidden"]
    wanted = np.zeros((len(there[0]), 20))
    phase = fired["t"] // 1000 - 1
    inside = phase < len(wanted)
    wanted[phase[inside], fired["unit"][inside]] = 1
    assert wanted.sum() > 20
    assert (
        np.mean(seen.sent["hidden"][0] != wanted) < 0.002
    )  # float32 currents against float64: ties may fall otherwise


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_maps_are_applied_as_their_weights_say(seed):
    rng = np.random.default_rng(seed)
    source = (*(int(n) for n in rng.integers(3, 7, 2)), int(rng.choice([2, 4])))
    size, stride, padding = (
        tuple(int(n) for n in rng.integers(low, high, 2)) for low, high in ((1, 4), (1, 3), (0, 2))
    )
    groups = int(rng.choice([1, 2]))
    sides = tuple((source[k] + 2 * padding[k] - size[k]) // stride[k] + 1 for k in (0, 1))
    convolution = Convolution(rng.normal(0, 1, (*size, source[2] // groups, 4)), stride, padding, groups)
    for topology, target in ((convolution, (*sides, 4)), (Pooling(size, stride, padding, 0.5), (*sides, source[2]))):
        pre, post = np.arange(int(np.prod(source))), np.arange(int(np.prod(target)))
        x = rng.random((3, len(pre)))
        weight = weights_between(topology, source, target, pre, post)
        assert np.allclose(apply(topology, source, target, x), x @ weight)


def run_quantised(quantised, recording):
    """Return what each layer sends, by name, in phases of the float network."""
    sent = whole.run_whole(quantised, [0] * len(quantised.layers), recording)
    return {layer.name: mine for layer, mine in zip(quantised.layers, sent, strict=True)}


@pytest.mark.parametrize("name", MODELS)
def test_calibrated_integers_fire_as_the_float_network(name):
    graph = network(MODELS[name], seed=3)
    rng = np.random.default_rng(2)
    there = in_phases([spikes_of(rng, 30, 80, 0.06) for _ in range(3)], 30, 1000)
    seen = observe(graph, there, 1000)
    quantised = quantise_graph(graph, PROFILE, observed=seen)
    wanted, got = 0, 0
    for k, recording in enumerate(there):
        wanted += seen.sent["hidden"][k, : len(recording)].sum(axis=0)
        got += run_quantised(quantised, recording)["hidden"].sum(axis=0)
    assert wanted.sum() > 100
    assert abs(got.sum() - wanted.sum()) < 0.03 * wanted.sum()
    assert np.abs(got - wanted).sum() < 0.08 * wanted.sum()


def test_calibration_brings_the_spikes_nearer():
    graph = network(LIFUnits(tau_mem_us=40_000.0), recurrent=False, seed=5, n_in=60)
    # one synapse that is never used makes the scale that weights alone ask for too coarse
    graph.projections[0].topology.weight[0, :] = 9.0
    rng = np.random.default_rng(2)
    items = [spikes_of(rng, 60, 80, 0.04) for _ in range(3)]
    for recording in items:
        recording["unit"] = np.maximum(recording["unit"], 1)
    there = in_phases(items, 60, 1000)
    seen = observe(graph, there, 1000)
    off = []
    for observed in (None, seen):
        quantised = quantise_graph(graph, PROFILE, observed=observed)
        n = sum(run_quantised(quantised, recording)["hidden"].sum() for recording in there)
        off.append(abs(n - float((seen.sent["hidden"] * seen.is_there[..., None]).sum())))
    assert off[1] < off[0] / 2


@pytest.mark.parametrize("order", ["ann first", "snn first", "ann"])
def test_hybrid_networks_follow_their_float_form(order):
    rng = np.random.default_rng(4)
    spiking, artificial = LIFUnits(tau_mem_us=15_000.0), ActivationUnits("relu", 0.05)
    first, second = {
        "ann first": (artificial, spiking),
        "snn first": (spiking, artificial),
        "ann": (artificial, artificial),
    }[order]
    graph = Graph(
        (6, 6, 2),
        [
            Population("front", first, (5, 5, 4)),
            Population("middle", second, (24,)),
            Population("back", ActivationUnits("tanh", np.array([0.1, 0.0, -0.1])), (3,)),
        ],
        [
            Projection(INPUT, "front", Convolution(rng.normal(0.1, 0.4, (2, 2, 2, 4)))),
            Projection("front", "middle", Dense(rng.normal(0.02, 0.2, (100, 24)))),
            Projection("middle", "back", Dense(rng.normal(0, 0.3, (24, 3)))),
        ],
    )
    there = in_phases([spikes_of(rng, 72, 50, 0.1) for _ in range(3)], 72, 1000)
    seen = observe(graph, there, 1000)
    quantised = quantise_graph(graph, PROFILE, observed=seen)
    modes = {(core.axon_mode, core.soma.fire_type == 4) for core in compile_network(quantised, PROFILE).cores}
    assert (
        modes
        == {
            "ann first": {(0, False), (1, True), (0, False)},  # spikes to values, values to spikes, spikes to values
            "snn first": {(0, True), (0, False), (1, False)},
            "ann": {(0, False), (1, False)},
        }[order]
    )
    for k, recording in enumerate(there):
        wanted = seen.sent["back"][k, : len(recording)]
        got = run_quantised(quantised, recording)["back"] / quantised.layers[2].sent_scale
        assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > (0.99 if order == "ann" else 0.75)
        if order == "ann":
            assert np.abs(got - wanted).max() < 0.12  # 8 bits a value, three layers


def refuse(message, graph, error=ConfigError, **options):
    with pytest.raises(error, match=message):
        compile_network(quantise_graph(graph, PROFILE, **options), PROFILE)


def test_what_the_chip_cannot_do_is_refused_by_name():
    lif = network(LIFUnits())
    first, last, own = lif.projections
    refuse("'hidden': the chip has no Izhikevich", network(IzhikevichUnits(), recurrent=False))
    refuse("input -> hidden: a delay of 1500 us", lif._replace(projections=[first._replace(delay_us=1500), last, own]))
    refuse("input -> hidden: fades", lif._replace(projections=[first._replace(fade=Fade(1e4)), last, own]))
    refuse("'hidden' tau_mem_us: from 1000 to 20000", network(LIFUnits(tau_mem_us=np.linspace(1e3, 2e4, 20))))
    refuse("hidden: refractory for 20000 us, 20 phases", network(LIFUnits(refractory_us=20_000)), CapacityError)
    refuse("'hidden': relu has no largest value", network(ActivationUnits(), recurrent=False))
    refuse("hidden: v_threshold is", network(LIFUnits(v_threshold=1e9)), CapacityError)


def test_a_split_in_a_cycle_needs_a_delay_that_pays_for_it():
    graph = network(LIFUnits(), n_in=300)
    at_once = [*graph.projections[:2], Projection("hidden", "hidden", Inhibition(0.05), 1)]
    refuse("hidden: has more inputs than a core has axons.*hidden -> hidden", graph._replace(projections=at_once),
           CapacityError)  # fmt: skip
    program = compile_network(quantise_graph(graph, PROFILE), PROFILE)
    # a delay of two phases, one of which goes into the split: one relay
    assert [layer.name for layer in program.woven.layers] == ["hidden", "scores", "hidden later by 1"]


def error_of(weight, rounded, x):
    return float((((rounded - weight).T @ x.T) ** 2).sum())


def test_weights_rounded_together_err_less_on_what_was_recorded():
    rng = np.random.default_rng(0)
    spikes = (rng.random((3, 100, 40)) < 0.05).astype(np.float32)
    spikes[..., 1::2] = spikes[..., ::2]  # neighbours fire together, as the pixels of an edge do
    x = traces(spikes, 0.9)
    assert x[0, 1].tolist() == pytest.approx((np.float32(0.9) * spikes[0, 0] + spikes[0, 1]).tolist())
    x = x.reshape(-1, 40)
    weight = rng.normal(0, 20, (40, 6))
    nearest = np.clip(np.floor(weight + 0.5), -127, 127)
    together = round_together(weight, x, 127)
    assert together.dtype == np.int8
    assert error_of(weight, together, x) < 0.5 * error_of(weight, nearest, x)
    # inputs that never fire together, or not at all, are rounded to the nearest
    assert np.array_equal(round_together(weight, np.eye(40, dtype=np.float32), 127), nearest)
    assert np.array_equal(round_together(weight, np.zeros((5, 40), np.float32), 127), nearest)
    assert np.abs(round_together(weight * 100, x, 127)).max() == 127
