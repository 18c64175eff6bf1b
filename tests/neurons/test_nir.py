"""Networks in NIR: there and back to the bit, spikes against closed forms, shapes against loops, and bad files."""

import contextlib
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection, n_units, unit_values
from neurons.inhibition import Inhibition
from neurons.integrate_fire import IntegrateFireUnits
from neurons.izhikevich import IzhikevichUnits
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.nir_file import from_nir, to_nir, write_nir
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.quantised_dense import dense as as_real
from neurons.quantised_dense import quantised
from neurons.sparse import Sparse, sparse_of
from neurons.threshold import ThresholdUnits
from stream.errors import ConfigError, FormatError, UsageError
from stream.packet import SPIKE_DTYPE

h5py = pytest.importorskip("h5py", reason="NIR files are HDF5 (pip install 'hebbstream[nir]')")
nir = pytest.importorskip("nir", reason="needs the package nir (pip install 'hebbstream[nir]')")

MODELS: dict[str, Any] = {
    "lif": LIFUnits(tau_mem_us=12_345.678),
    "lif hard, held, odd tau": LIFUnits(math.pi * 1e3, 1.5, 0.1, -0.2, "hard", 2**57 + 1),
    "current": CurrentLIFUnits(tau_mem_us=300.1, tau_syn_us=90.7, v_threshold=0.3),
    "current hard": CurrentLIFUnits(200.0, 200.0, 0.6, 0.05, 0.01, "hard", 7),
    "integrate": IntegrateFireUnits(),
    "integrate hard": IntegrateFireUnits(v_reset=-0.3, reset="hard", refractory_us=9),
    "threshold": ThresholdUnits(v_threshold=0.6),
}


def varied(model: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Give every unit its own parameters, numbers that seconds do not hold exactly among them."""
    return model._replace(
        **{
            name: value * rng.uniform(0.9, 1.1, shape)
            for name, value in model._asdict().items()
            if isinstance(value, float) and name != "drive_per_us"
        }
    )


def lines(model: Any, seed: int) -> Graph:
    """Make a network of every topology that joins lines; maps too, which NIR has to have as lines."""
    rng = np.random.default_rng(seed)
    hidden = varied(model, rng, (4, 3, 2)) if seed % 2 else model
    few = rng.normal(0, 1, (24, 9)) * (rng.random((24, 9)) < 0.3)
    return Graph(
        (5, 4, 2),
        [
            Population("hidden", hidden, (4, 3, 2)),
            Population("b-1", varied(model, rng, (9,)) if seed % 3 else model, (9,)),
            Population("a_2", model, (9,)),
            Population("output", LeakyIntegratorUnits(tau_mem_us=rng.uniform(100, 1e6), v_leak=0.1), (3,)),
        ],
        [
            Projection("hidden", "b-1", sparse_of(few), 41),
            Projection(INPUT, "hidden", Dense(rng.normal(0, 1, (40, 24)).astype(np.float32))),
            Projection("b-1", "b-1", Inhibition(rng.normal()), 2**59 + 1),
            Projection("b-1", "a_2", OneToOne(rng.normal(0, 1, 9))),
            Projection("b-1", "a_2", OneToOne(0.3), 12),
            Projection("a_2", "hidden", Dense(rng.normal(0, 1, (9, 24))), 1),
            Projection("hidden", "hidden", OneToOne(rng.normal(0, 1, 24)), 3),
            Projection("a_2", "output", Dense(rng.normal(0, 1, (9, 3)))),
        ],
    )


def maps(model: Any, seed: int) -> Graph:
    """Make a network of every topology that joins maps."""
    rng = np.random.default_rng(seed)
    return Graph(
        (7, 9, 2),
        [
            Population("z", varied(model, rng, (4, 7, 6)) if seed % 2 else model, (4, 7, 6)),
            Population("y", model, (2, 3, 6)),
            Population("x", model, (2, 3, 6)),
            Population("w", varied(model, rng, (5,)), (5,)),
        ],
        [
            Projection(INPUT, "z", Convolution(rng.normal(0, 1, (3, 5, 1, 6)).astype(np.float32), (2, 1), (1, 1), 2)),
            Projection("z", "y", Pooling((2, 2), (2, 2), (0, 0), 1.0)),
            Projection("z", "y", Pooling((2, 2), (2, 2), (0, 0), 0.25), 9),
            Projection("z", "y", Pooling((2, 3), (2, 2), (0, 0), 0.7)),
            Projection("y", "x", OneToOne(rng.normal(0, 1, 36))),
            Projection("x", "y", Convolution(rng.normal(0, 1, (3, 3, 6, 6)), (1, 1), (1, 1)), 5),
            Projection("x", "w", Dense(rng.normal(0, 1, (36, 5)))),
        ],
    )


def assert_same(found: Any, wanted: Any) -> None:
    """Compare two networks; a number for all is the same as an array of it."""
    assert found.inputs == wanted.inputs
    assert [(p.name, p.shape, type(p.model)) for p in found.populations] == [
        (p.name, p.shape, type(p.model)) for p in wanted.populations
    ]
    for a, b in zip(found.populations, wanted.populations, strict=True):
        for name, value in b.model._asdict().items():
            if isinstance(value, str | int):
                assert getattr(a.model, name) == value, (a.name, name)
            else:
                assert np.array_equal(unit_values(getattr(a.model, name), a.shape), unit_values(value, a.shape)), name
    for a, b in zip(found.projections, wanted.projections, strict=True):
        assert (a.source, a.target, a.delay_us, type(a.topology)) == (b.source, b.target, b.delay_us, type(b.topology))
        for name, value in b.topology._asdict().items():
            there = getattr(a.topology, name)
            if isinstance(value, np.ndarray):
                assert there.dtype == value.dtype
            assert np.array_equal(there, value), (a.source, a.target, name)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [lines, maps])
@pytest.mark.parametrize("name", MODELS)
def test_there_and_back_to_the_bit(name: str, make: Any, seed: int, tmp_path: Path) -> None:
    graph = make(MODELS[name], seed)
    assert_same(from_nir(to_nir(graph)), graph)
    write_nir(tmp_path / "net.nir", graph, dt_us=123.4)
    assert_same(from_nir(tmp_path / "net.nir"), graph)  # HDF5 orders names by the alphabet
    assert_same(from_nir(nir.read(tmp_path / "net.nir", type_check=False)), graph)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("make", [lines, maps])
def test_drives_travel_as_a_bias(make: Any, per_channel: bool) -> None:
    graph = make(IntegrateFireUnits(), 2)
    first = graph.populations[0]
    rng = np.random.default_rng(1)
    drive = rng.uniform(0, 1e-3, first.shape[2:] if per_channel else first.shape)
    driven = first._replace(model=IntegrateFireUnits(drive_per_us=drive))
    graph = graph._replace(populations=[driven, *graph.populations[1:]])
    if make is maps and not per_channel:
        with pytest.raises(ConfigError, match="'z': NIR has no drive"):
            to_nir(graph)
    else:
        assert_same(from_nir(to_nir(graph)), graph)


@given(st.data())
@settings(max_examples=60)
def test_any_numbers_come_back(data: st.DataObject) -> None:
    """Times, weights and delays that no unit of time divides."""
    positive = st.floats(1e-3, 1e12, allow_nan=False)
    model = data.draw(
        st.sampled_from([
            LIFUnits(data.draw(positive), 2.0, data.draw(st.floats(-1, 1))),
            CurrentLIFUnits(data.draw(positive), data.draw(positive), 2.0),
            LeakyIntegratorUnits(data.draw(positive)),
        ])
    )  # fmt: skip
    weight = np.array([[data.draw(st.floats(-1e6, 1e6, allow_subnormal=False))]])
    graph = Graph(
        (1,), [Population("a", model, (1,))], [Projection(INPUT, "a", Dense(weight), data.draw(st.integers(0, 2**60)))]
    )
    assert_same(from_nir(to_nir(graph, dt_us=data.draw(positive))), graph)


def test_maps_as_lines_are_channels_first_there() -> None:
    """What another reader sees: a Flatten of NIR's order, weights in that order."""
    graph = lines(LIFUnits(), 1)
    nodes = to_nir(graph).nodes
    linear = nodes["input_to_hidden_1_1"].weight
    weight = graph.projections[1].topology.weight
    for (y, x, c), (oy, ox, oc) in itertools.product(np.ndindex(5, 4, 2), np.ndindex(4, 3, 2)):
        there = linear[(oc * 4 + oy) * 3 + ox, (c * 5 + y) * 4 + x]
        assert there == weight[(y * 4 + x) * 2 + c, (oy * 3 + ox) * 2 + oc]
    tau = nodes["hidden"].tau.reshape(2, 4, 3)
    assert tau[1, 2, 0] * 1e6 == pytest.approx(graph.populations[0].model.tau_mem_us[2, 0, 1])


@pytest.mark.parametrize("model", [AdaptiveLIFUnits(), IzhikevichUnits()])
def test_models_that_nir_does_not_have(model: Any) -> None:
    with pytest.raises(ConfigError, match="'a': NIR has no"):
        to_nir(Graph((2,), [Population("a", model, (2,))], []))


def test_nir_has_no_synapses_that_fade() -> None:
    way = Projection(INPUT, "a", Dense(np.ones((1, 1))), fade=Fade(1e4))
    with pytest.raises(ConfigError, match="fades"):
        to_nir(Graph((1,), [Population("a", LIFUnits(), (1,))], [way]))


def test_weights_of_8_bits_are_written_as_real_numbers() -> None:
    whole = quantised(Dense(np.random.default_rng(0).normal(0, 1, (3, 4))))
    way = Projection(INPUT, "a", whole)
    found = from_nir(to_nir(Graph((3,), [Population("a", LIFUnits(), (4,))], [way])))
    assert np.array_equal(found.projections[0].topology.weight, as_real(whole).weight)


def test_a_map_cannot_be_made_of_a_line() -> None:
    graph = maps(LIFUnits(), 0)
    inhibited = [*graph.projections, Projection("y", "y", Inhibition(1.0), 5)]
    with pytest.raises(ConfigError, match="population 'x': it is a map"):
        to_nir(graph._replace(projections=inhibited))


# -- scales, against closed forms --------------------------------------------------------------------------------------


def array(*values: float) -> np.ndarray:
    return np.array(values)


def lif(tau: float = 0.02, r: float = 1.0, v_leak: float = 0.0, theta: float = 1.0, n: int = 1) -> Any:
    return nir.LIF(*(np.full(n, value) for value in (tau, r, v_leak, theta)))


def cuba(n: int = 1, tau_syn: float = 0.005, r: float = 1.0, w_in: float = 1.0, theta: float = 1e9) -> Any:
    return nir.CubaLIF(*(np.full(n, value) for value in (tau_syn, 0.02, r, 0.0, theta)), w_in=np.full(n, w_in))


def chain(*nodes: Any) -> Any:
    return nir.NIRGraph.from_list(*nodes, type_check=False)


def potential(graph: Graph, at_us: int, name: str, spikes: tuple[int, ...] = (0,)) -> float:
    """Return the potential of unit 0 after spikes of input 0."""
    items = np.zeros(len(spikes), SPIKE_DTYPE)
    items["t"] = spikes
    network = Network.of(graph, precision="float64")
    network.run(items, at_us)
    return float(network.potentials(name).flat[0])


@pytest.mark.parametrize(
    ("step", "lift", "left"),
    [
        ("impulse", 3 * 0.5 * 1 / 20, math.exp(-7 / 20)),
        ("pulse", 3 * 0.5 * (1 - math.exp(-1 / 20)), math.exp(-7 / 20)),
        ("euler", 3 * 0.5 * 1 / 20, (1 - 1 / 20) ** 7),
    ],
)
def test_one_spike_through_a_lif(step: Any, lift: float, left: float) -> None:
    graph = from_nir(chain(nir.Linear(np.array([[0.5]])), lif(r=3.0)), dt_us=1000, step=step)
    assert potential(graph, 0, "lif") == pytest.approx(lift, rel=1e-13)
    assert potential(graph, 7000, "lif") == pytest.approx(lift * left, rel=1e-12)


def test_a_spike_of_unit_charge_in_the_unit_of_the_file() -> None:
    graph = from_nir(chain(nir.Linear(np.array([[0.5]])), lif(tau=20.0)), dt_us=1000, time_unit_us=1000)
    assert graph.populations[0].model.tau_mem_us == 20_000.0
    assert potential(graph, 0, "lif") == pytest.approx(0.5 / 20)


@pytest.mark.parametrize("tau_syn", [0.005, 0.02, 0.0200001])
@pytest.mark.parametrize("step", ["impulse", "euler"])
def test_one_spike_through_a_current(step: Any, tau_syn: float) -> None:
    node = cuba(r=3.0, w_in=2.0, tau_syn=tau_syn)
    graph = from_nir(chain(nir.Linear(np.array([[0.5]])), node), dt_us=1000, step=step)
    for at_us in (1000, 5000, 60_000):
        if step == "euler":
            v, i = 0.0, 0.5 * 2.0 * 0.001 / tau_syn
            for _ in range(at_us // 1000):
                v, i = v + 0.001 / 0.02 * (3.0 * i - v), i * (1 - 0.001 / tau_syn)
        else:  # by a fine grid, whose error is of second order
            v, i, h = 0.0, 0.5 * 2.0 * 0.001 / tau_syn, 1e-6
            for _ in range(at_us):
                half = i * (1 - h / 2 / tau_syn)
                v += h / 0.02 * (3.0 * half - (v + h / 2 / 0.02 * (3.0 * i - v)))
                i -= h / tau_syn * half
        tolerance = 1e-9 if step == "euler" else 1e-6
        assert potential(graph, at_us, "cubalif") == pytest.approx(v, rel=tolerance)


def test_one_spike_through_an_integrator() -> None:
    graph = from_nir(chain(nir.Linear(np.array([[0.5]])), nir.IF(array(3.0), array(1.0))), dt_us=1000)
    assert potential(graph, 50_000, "if") == pytest.approx(0.5 * 3 * 0.001)


def test_weights_stay_what_they_are_where_the_gain_is_one() -> None:
    """As snnTorch exports: r = tau / dt, rounded in float32."""
    weight = np.random.default_rng(0).normal(0, 1, (4, 3)).astype(np.float32)
    tau = (np.float32(1e-4) / (np.float32(1) - np.linspace(0.1, 0.99, 4, dtype=np.float32))).astype(np.float32)
    node = nir.LIF(tau, tau / np.float32(1e-4), np.zeros(4, np.float32), np.ones(4, np.float32))
    found = from_nir(chain(nir.Linear(weight), node), dt_us=100, step="euler").projections[0].topology.weight
    assert found.dtype == np.float32
    assert np.array_equal(found, weight.T)


def test_reset_is_hard_as_nirs_equation_says() -> None:
    graph = chain(nir.Linear(np.array([[1.0]])), lif())
    assert from_nir(graph, dt_us=1000).populations[0].model.reset == "hard"
    assert from_nir(graph, dt_us=1000, reset="soft").populations[0].model.reset == "soft"
    ours = to_nir(Graph((1,), [Population("a", LIFUnits(), (1,))], [Projection(INPUT, "a", Dense(np.ones((1, 1))))]))
    assert from_nir(ours).populations[0].model.reset == "soft"


def test_a_bias_is_a_constant_current() -> None:
    affine = nir.Affine(np.array([[1.0]]), array(0.25))
    assert from_nir(chain(affine, lif(r=2.0, v_leak=0.1)), dt_us=1).populations[0].model.v_leak == 0.6
    assert from_nir(chain(affine, cuba(r=2.0, w_in=3.0)), dt_us=1).populations[0].model.v_leak == 1.5
    drive = from_nir(chain(affine, nir.IF(array(4.0), array(1.0))), dt_us=1).populations[0].model.drive_per_us
    assert drive == pytest.approx(1e-6)
    # through what follows: twice the bias, and only once where two ways lead into the Affine
    through = chain(affine, nir.Scale(array(2.0)), lif())
    assert from_nir(through, dt_us=1).populations[0].model.v_leak == 0.5
    joined = nir.NIRGraph(
        {"in": nir.Input([1]), "a": lif(), "b": lif(), "c": affine, "d": lif(), "out": nir.Output([1])},
        [("in", "a"), ("in", "b"), ("a", "c"), ("b", "c"), ("c", "d"), ("d", "out")],
    )
    assert next(p for p in from_nir(joined, dt_us=1).populations if p.name == "d").model.v_leak == 0.25
    threshold = chain(affine, nir.Threshold(array(1.0)))
    assert from_nir(threshold).populations[0].model.v_threshold == 0.75
    with pytest.raises(ConfigError, match="fire for ever"):
        from_nir(chain(affine, nir.Threshold(array(0.2))))


def test_integrators_without_a_threshold_never_fire() -> None:
    one = nir.Linear(np.array([[0.5]]))
    current = nir.CubaLI(array(0.005), array(0.02), array(3.0), array(0.1), w_in=array(2.0))
    fires = cuba(r=3.0, w_in=2.0)
    found, wanted = (from_nir(chain(one, node), dt_us=1000) for node in (current, fires))
    assert potential(found, 9000, "cubali") == pytest.approx(potential(wanted, 9000, "cubalif") + 0.1)
    assert potential(from_nir(chain(one, nir.I(array(1e3))), dt_us=1e6), 0, "i", (0,) * 50) == pytest.approx(25e3)


def test_dt_has_to_be_given() -> None:
    with pytest.raises(ConfigError, match="give dt_us"):
        from_nir(chain(nir.Linear(np.array([[1.0]])), lif()))


# -- shapes, against loops ---------------------------------------------------------------------------------------------

NIR_SHAPE = (2, 8, 9)  # channels, height, width


def matrix_of(graph: Graph) -> np.ndarray:
    """Return the weights of a network of one projection, (units before, units behind), both channels first."""
    (population,), (projection,) = graph.populations, graph.projections
    weight = dense_of(projection.topology, graph.inputs, population.shape)
    return weight[np.ix_(channels_first(graph.inputs), channels_first(population.shape))]


def channels_first(shape: tuple[int, ...]) -> np.ndarray:
    units = np.arange(n_units(shape))
    return units.reshape(shape).transpose(2, 0, 1).ravel() if len(shape) == 3 else units


def dense_of(topology: Any, source: tuple[int, ...], target: tuple[int, ...]) -> np.ndarray:
    """Write a topology as a matrix, by its definition."""
    full = np.zeros((n_units(source), n_units(target)))
    match topology:
        case Dense(weight):
            full[...] = weight
        case Sparse(start, unit, weight):
            for i in range(len(full)):
                for k in range(start[i], start[i + 1]):
                    full[i, unit[k]] += weight[k]
        case OneToOne(weight):
            np.fill_diagonal(full, weight)
        case Convolution() | Pooling():
            is_pool = isinstance(topology, Pooling)
            k_h, k_w = topology.size if is_pool else topology.weight.shape[:2]
            for oy, ox, o, ky, kx in np.ndindex(*target, k_h, k_w):
                y = oy * topology.stride[0] + ky - topology.padding[0]
                x = ox * topology.stride[1] + kx - topology.padding[1]
                if not (0 <= y < source[0] and 0 <= x < source[1]):
                    continue
                post = (oy * target[1] + ox) * target[2] + o
                if is_pool:
                    full[(y * source[1] + x) * source[2] + o, post] += topology.weight
                    continue
                width = source[2] // topology.groups
                first = o // (target[2] // topology.groups) * width
                for c in range(width):
                    full[(y * source[1] + x) * source[2] + first + c, post] += topology.weight[ky, kx, c, o]
    return full


def conv(image: np.ndarray, weight: np.ndarray, stride: Any, pads: Any, groups: int = 1) -> np.ndarray:
    """Cross-correlate an image (c, h, w), by loops; ``pads`` ((top, bottom), (left, right))."""
    image = np.pad(image, [(0, 0), *pads])
    c_out, c_in, k_h, k_w = weight.shape
    out_h, out_w = (image.shape[1] - k_h) // stride[0] + 1, (image.shape[2] - k_w) // stride[1] + 1
    out = np.zeros((c_out, out_h, out_w))
    for o, oy, ox in np.ndindex(c_out, out_h, out_w):
        first = o // (c_out // groups) * c_in
        y, x = oy * stride[0], ox * stride[1]
        out[o, oy, ox] = np.sum(image[first : first + c_in, y : y + k_h, x : x + k_w] * weight[o])
    return out


def pool(image: np.ndarray, size: Any, stride: Any, pads: int, factor: float) -> np.ndarray:
    c = len(image)
    return conv(image, np.full((c, 1, *size), factor), stride, [(pads, pads)] * 2, c)


def basis() -> Any:
    for unit in range(n_units(NIR_SHAPE)):
        image = np.zeros(n_units(NIR_SHAPE))
        image[unit] = 1.0
        yield image.reshape(NIR_SHAPE)


def conv2d(weight: np.ndarray, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    return nir.Conv2d(None, weight, stride, padding, dilation, groups, np.zeros(len(weight)))


def through(*nodes: Any) -> Graph:
    """Read a chain of links before Threshold neurons of gain 1."""
    every = {"in": nir.Input(np.array(NIR_SHAPE))} | {f"n{k}": node for k, node in enumerate(nodes)}
    every |= {"last": nir.Threshold(array(1.0)), "out": nir.Output(np.array([1]))}
    names = list(every)
    return from_nir(nir.NIRGraph(every, list(itertools.pairwise(names)), type_check=False))


RNG = np.random.default_rng(5)
W = RNG.normal(0, 1, (4, 2, 3, 2))
SQUARE = RNG.normal(0, 1, (4, 2, 4, 4))
GROUPED = RNG.normal(0, 1, (4, 1, 3, 3))
ODD = RNG.normal(0, 1, (3, 2, 3, 3))
SCALE = RNG.permutation(144).reshape(NIR_SHAPE).astype(float)
FLAT, FIRST, SECOND = RNG.normal(0, 1, (5, 144)), RNG.normal(0, 1, (6, 32)), RNG.normal(0, 1, (5, 6))
DILATED = np.zeros((3, 2, 5, 3))
DILATED[:, :, ::2] = ODD
CASES: dict[str, Any] = {
    "valid": (Convolution, [conv2d(W, padding="valid")], lambda i: conv(i, W, (1, 1), [(0, 0)] * 2)),
    "same, odd": (Convolution, [conv2d(ODD, padding="same")], lambda i: conv(i, ODD, (1, 1), [(1, 1)] * 2)),
    "same, even": (Convolution, [conv2d(SQUARE, padding="same")], lambda i: conv(i, SQUARE, (1, 1), [(1, 2)] * 2)),
    "strides": (Convolution, [conv2d(W, (2, 3), (1, 0))], lambda i: conv(i, W, (2, 3), [(1, 1), (0, 0)])),
    "groups": (Convolution, [conv2d(GROUPED, groups=2)], lambda i: conv(i, GROUPED, (1, 1), [(0, 0)] * 2, 2)),
    "dilation": (Convolution, [conv2d(ODD, dilation=(2, 1))], lambda i: conv(i, DILATED, (1, 1), [(0, 0)] * 2)),
    "sum pool": (
        Pooling,
        [nir.SumPool2d(np.array([2, 3]), np.array([2, 1]), np.array([1, 1]))],
        lambda i: pool(i, (2, 3), (2, 1), 1, 1.0),
    ),
    "average pool": (Pooling, [nir.AvgPool2d(2, 2, (0, 0))], lambda i: pool(i, (2, 2), (2, 2), 0, 0.25)),
    "pool, conv: one kernel": (
        Convolution,
        [nir.AvgPool2d(2, 2, 0), conv2d(ODD)],
        lambda i: conv(pool(i, (2, 2), (2, 2), 0, 0.25), ODD, (1, 1), [(0, 0)] * 2),
    ),
    "pool, padded conv: a row left out would be seen": (
        Sparse,
        [nir.SumPool2d(2, 2, 0), conv2d(ODD, padding=1)],
        lambda i: conv(pool(i, (2, 2), (2, 2), 0, 1.0), ODD, (1, 1), [(1, 1)] * 2),
    ),
    "pool, pool": (
        Pooling,
        [nir.SumPool2d(2, 2, 0), nir.AvgPool2d((2, 1), 1, 0)],
        lambda i: pool(pool(i, (2, 2), (2, 2), 0, 1.0), (2, 1), (1, 1), 0, 0.5),
    ),
    "conv, pool": (
        Sparse,
        [conv2d(ODD), nir.SumPool2d(2, 2, 0)],
        lambda i: pool(conv(i, ODD, (1, 1), [(0, 0)] * 2), (2, 2), (2, 2), 0, 1.0),
    ),
    "scales around a conv": (
        Convolution,
        [nir.Scale(array(2.0, 3.0).reshape(2, 1, 1)), conv2d(ODD), nir.Scale(array(1.0, 2.0, 0.5).reshape(3, 1, 1))],
        lambda i: (
            conv(i * array(2.0, 3.0).reshape(2, 1, 1), ODD, (1, 1), [(0, 0)] * 2) * array(1, 2, 0.5).reshape(3, 1, 1)
        ),
    ),
    "a scale by site": (
        Sparse,
        [nir.Scale(np.arange(144.0).reshape(NIR_SHAPE)), conv2d(ODD)],
        lambda i: conv(i * np.arange(144.0).reshape(NIR_SHAPE), ODD, (1, 1), [(0, 0)] * 2),
    ),
    "nothing": (OneToOne, [], lambda i: i),
    "a scale": (OneToOne, [nir.Scale(SCALE)], lambda i: i * SCALE),
    "flatten": (Sparse, [nir.Flatten(None, 0, -1)], lambda i: i),
    "flatten, linear": (Dense, [nir.Flatten(None, 0, -1), nir.Linear(FLAT)], lambda i: FLAT @ i.ravel()),
    "pool, flatten, linear, linear": (
        Dense,
        [
            nir.SumPool2d(2, 2, 0),
            nir.Flatten(None, 0, -1),
            nir.Linear(FIRST),
            nir.Scale(array(1, 2, 3, 4, 5, 6)),
            nir.Linear(SECOND),
        ],
        lambda i: SECOND @ (np.arange(1, 7) * (FIRST @ pool(i, (2, 2), (2, 2), 0, 1.0).ravel())),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_links_equal_loops_over_pixels(name: str) -> None:
    kind, nodes, function = CASES[name]
    graph = through(*nodes)
    assert type(graph.projections[0].topology) is kind
    wanted = np.array([function(image).ravel() for image in basis()])
    np.testing.assert_allclose(matrix_of(graph), wanted, rtol=1e-12, atol=1e-14)


def test_a_bias_before_a_pool_and_a_linear() -> None:
    """The bias of a convolution goes through what follows, border included."""
    bias, weight = array(0.5, -1.0, 2.0), RNG.normal(0, 1, (4, 27))
    node = nir.Conv2d(None, ODD, 1, 0, 1, 1, bias)
    chain_of = [node, nir.SumPool2d(2, 2, 0), nir.Flatten(None, 0, -1), nir.Linear(weight), lif(n=4)]
    every = {"in": nir.Input(np.array(NIR_SHAPE))} | {f"n{k}": node for k, node in enumerate(chain_of)}
    graph = from_nir(nir.NIRGraph(every, list(itertools.pairwise(every)), type_check=False), dt_us=1.0)
    image = pool(np.broadcast_to(bias.reshape(3, 1, 1), (3, 6, 7)), (2, 2), (2, 2), 0, 1.0)
    np.testing.assert_allclose(graph.populations[0].model.v_leak, weight @ image.ravel(), rtol=1e-12)


def test_batches_that_exporters_leave_in_are_left_out() -> None:
    for shape, node, wanted in [
        ((1, 3), nir.Linear(np.ones((2, 3))), (3,)),
        ((7, 3), nir.Linear(np.ones((2, 3))), (3,)),
        ((1, 2, 8, 9), conv2d(ODD), (8, 9, 2)),
    ]:
        every = {"in": nir.Input(np.array(shape)), "a": node, "b": nir.Threshold(np.array(1.0))}
        assert from_nir(nir.NIRGraph(every, list(itertools.pairwise(every)), type_check=False)).inputs == wanted


# -- cycles, delays, nested graphs -------------------------------------------------------------------------------------


def ring(*delay: Any) -> Any:
    """Make a layer that feeds itself, its own graph in another, as snnTorch exports."""
    nodes = {
        "input": nir.Input([2]),
        "lif": lif(n=2, theta=0.5),
        "w_rec": nir.Linear(np.array([[0.0, 2.0], [2.0, 0.0]])),
        "output": nir.Output([2]),
    }
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    if delay:
        nodes["wait"] = nir.Delay(np.array(delay))
        edges[2:3] = [("w_rec", "wait"), ("wait", "lif")]
    inner = nir.NIRGraph(nodes, edges, type_check=False)
    return nir.NIRGraph(
        {"in": nir.Input([3]), "fc": nir.Linear(np.ones((2, 3))), "rec": inner, "out": nir.Output([2])},
        [("in", "fc"), ("fc", "rec"), ("rec", "out")],
        type_check=False,
    )


def test_a_nested_recurrent_graph(tmp_path: Path) -> None:
    nir.write(tmp_path / "ring.nir", ring())
    for source in (ring(), tmp_path / "ring.nir"):
        graph = from_nir(source, dt_us=20_000, feedback_delay_us=1000)
        assert [p.name for p in graph.populations] == ["rec_lif"]
        assert [(q.source, q.target, q.delay_us) for q in graph.projections] == [
            (INPUT, "rec_lif", 0),
            ("rec_lif", "rec_lif", 1000),
        ]
    items = np.zeros(1, SPIKE_DTYPE)
    spikes = Network.of(graph).run(items, 2500)["rec_lif"]
    assert spikes.tolist() == [(0, 0), (0, 1), (1000, 1), (1000, 0), (2000, 0), (2000, 1)]


def test_a_cycle_keeps_its_own_delay() -> None:
    graph = from_nir(ring(0.0025, 0.0025), dt_us=1000, feedback_delay_us=77)
    assert [q.delay_us for q in graph.projections] == [0, 2500]
    with pytest.raises(ConfigError, match="delays from 0.001 to 0.002"):
        from_nir(ring(0.001, 0.002), dt_us=1000)


def test_only_the_way_back_of_a_larger_cycle_is_delayed() -> None:
    """Input -> a -> b -> c -> a, and a shortcut to c: forward ways stay at once."""
    nodes = {"in": nir.Input([1]), "out": nir.Output([1])} | {name: lif() for name in "abc"}
    edges = [("in", "c"), ("in", "a"), ("a", "b"), ("b", "c"), ("c", "a"), ("c", "out")]
    graph = from_nir(nir.NIRGraph(nodes, edges), dt_us=1000, feedback_delay_us=9)
    delays = {(q.source, q.target): q.delay_us for q in graph.projections}
    assert sum(delays.values()) in (9, 18)
    assert delays[INPUT, "a"] == delays[INPUT, "c"] == 0
    Network.of(graph)


# -- bad files and graphs ----------------------------------------------------------------------------------------------


def refused(graph: Any, match: str, error: type[Exception] = FormatError, **options: Any) -> None:
    with pytest.raises(error, match=match):
        from_nir(graph, **({"dt_us": 1000.0} | options))


def test_options_that_mean_nothing() -> None:
    graph = chain(nir.Linear(np.ones((1, 1))), lif())
    refused(graph, "step", ConfigError, step="heun")
    refused(graph, "reset", ConfigError, reset="none")
    refused(graph, "feedback_delay_us", ConfigError, feedback_delay_us=0)
    refused(graph, "dt_us", ConfigError, dt_us=0.0)
    refused(graph, "time_unit_us", ConfigError, time_unit_us=float("nan"))
    refused(graph, "is dt_us, or time_unit_us, right", ConfigError, dt_us=30_000, step="euler")
    refused(3, "wanted a nir.NIRGraph", ConfigError)
    refused(lif(), "wrap it", ConfigError)


def test_nodes_that_cannot_be() -> None:
    one = nir.Linear(np.ones((1, 1)))
    refused(chain(nir.Conv1d(4, np.ones((1, 1, 2)), 1, 0, 1, 1, np.ones(1)), lif()), "a Conv1d cannot", ConfigError)
    refused(chain(one, lif(tau=0.0)), "tau: got 0.0, wanted above 0")
    refused(chain(one, lif(tau=float("nan"))), "tau: holds a number that is not finite")
    refused(chain(one, lif(theta=-1.0)), "v_reset", ConfigError)
    refused(chain(nir.Linear(np.ones((1, 1), complex)), lif()), "complex")
    refused(chain(nir.Linear(np.array([["x"]])), lif()), "weight: got <U1")
    refused(chain(nir.Linear(np.ones((2, 1))), lif(n=3)), "parameters of shape")
    refused(chain(one, lif(), nir.Linear(np.ones((2, 1)))), "leads to no neuron", ConfigError)
    refused(chain(one, nir.Delay(array(-1.0)), lif()), "not below 0", ConfigError)
    refused(
        nir.NIRGraph(
            {"a": nir.Input([1]), "b": nir.Input([1]), "c": lif()}, [("a", "c"), ("b", "c")], type_check=False
        ),
        "2 Input nodes",
        ConfigError,
    )
    loop = {"in": nir.Input([1]), "a": one, "b": nir.Scale(array(1.0)), "n": lif()}
    refused(
        nir.NIRGraph(loop, [("in", "a"), ("a", "b"), ("b", "a"), ("b", "n")], type_check=False), "cycle", ConfigError
    )
    refused(nir.NIRGraph(loop, [("in", "a"), ("a", "zzz")], type_check=False), "no node 'zzz'")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_nir(tmp_path / "good.nir", maps(LIFUnits(), 1))
    return tmp_path / "good.nir"


def damage(path: Path, change: Any) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


@pytest.mark.parametrize(
    "key",
    ["node", "node/nodes", "node/edges", "node/nodes/z/tau", "node/nodes/z/type", "node/nodes/input_to_z_0/weight"],
)
def test_missing_keys(good: Path, key: str) -> None:
    damage(good, lambda file: file.__delitem__(key))
    with pytest.raises(FormatError, match=key.split("/")[-1].replace("node/", "node")):
        from_nir(good)


def replaced(key: str, value: Any) -> Any:
    def change(file: Any) -> None:
        if key in file:
            del file[key]
        file[key] = value

    return change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("node/nodes/z/tau", "text"),
        ("node/nodes/z/tau", np.zeros(0)),
        ("node/nodes/z/tau", np.full((6, 4, 7), np.nan)),
        ("node/nodes/z/tau", np.full((6, 4, 7), 0.0)),
        ("node/nodes/z/tau", np.full((6, 4, 8), 1.0)),
        ("node/nodes/z/r", np.full((6, 4, 7), 1j)),
        ("node/nodes/z", 3.0),
        ("node/nodes/z/type", 3.0),
        ("node/nodes/z/type", "__import__"),
        ("node/nodes/z/metadata/hebbstream/reset", "sideways"),
        ("node/nodes/z/metadata/hebbstream/refractory_us", -(2**62)),
        ("node/nodes/x_to_w_6_1/weight", np.ones((5, 35))),
        ("node/nodes/input_to_z_0/weight", np.ones((6, 2, 3))),
        ("node/nodes/input_to_z_0/weight", np.ones((0, 1, 3, 5))),
        ("node/nodes/input_to_z_0/stride", np.array([0, 1])),
        ("node/nodes/input_to_z_0/stride", 1.5),
        ("node/nodes/input_to_z_0/padding", "circular"),
        ("node/nodes/input_to_z_0/padding", np.array([2**40, 1])),
        ("node/nodes/input_to_z_0/dilation", np.array([2**30, 1])),
        ("node/nodes/input_to_z_0/groups", 0),
        ("node/nodes/input_to_z_0/bias", np.ones(5)),
        ("node/nodes/input/shape", np.array([2, -7, 9])),
        ("node/nodes/input/shape", np.zeros(0)),
        ("node/nodes/input/shape", np.array([2, 2**30, 2**30])),
        ("node/nodes/input_to_z_0/padding", np.array([2**30, 2**30])),
        ("node/edges", np.ones((3, 3))),
        ("node/edges", "input"),
        ("node/metadata/hebbstream/dt_us", "a while"),
        ("node/metadata/hebbstream/dt_us", -1.0),
    ],
)
def test_values_that_cannot_be(good: Path, key: str, value: Any) -> None:
    damage(good, replaced(key, value))
    with pytest.raises(UsageError):
        from_nir(good)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("node/nodes/z/metadata/hebbstream/population", "x" * 100),
        ("node/nodes/w/metadata/hebbstream", np.ones(3)),
    ],
)
def test_what_others_may_put_into_metadata_is_passed_over(good: Path, key: str, value: Any) -> None:
    assert len(from_nir(damage(good, replaced(key, value))).projections) == 7


def test_links_out_of_the_file_are_not_followed(good: Path, tmp_path: Path) -> None:
    def elsewhere(file: Any) -> None:
        del file["node/nodes/z/tau"]
        file["node/nodes/z/tau"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/tau")

    refused(damage(good, elsewhere), "link")


def test_a_cycle_of_links_ends(good: Path) -> None:
    def around(file: Any) -> None:
        file["node/nodes/me"] = file["node"]

    refused(damage(good, around), "too deep")


def test_a_small_file_that_claims_to_be_huge(good: Path) -> None:
    def huge(file: Any) -> None:
        del file["node/nodes/z/tau"]
        file["node/nodes/z"].create_dataset("tau", shape=(2**40,), dtype="f8", chunks=(2**16,), compression="gzip")

    refused(damage(good, huge), "claims to hold")


def test_other_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.nir", "not there")
    (tmp_path / "text.nir").write_text("hello")
    refused(tmp_path / "text.nir", "damaged, or not")
    with h5py.File(tmp_path / "h5.nir", "w") as file:
        file["x"] = 1
    refused(tmp_path / "h5.nir", "without a group 'node'")


def test_any_truncation_is_told(good: Path) -> None:
    data = good.read_bytes()
    for end in np.linspace(0, len(data) - 1, 40).astype(int):
        good.write_bytes(data[:end])
        with pytest.raises(UsageError):
            from_nir(good)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("nir") / "flipped.nir"
    write_nir(path, maps(LIFUnits(), 1))
    return path, path.read_bytes()


@pytest.mark.parametrize(
    ("number", "size"), [(0, 0), (0, 8), (0, 2**64 - 16), (7, 2**64 - 16), (7, 2**64 - 40), (7, 10**6)]
)
def test_a_heap_of_text_that_has_no_end_is_told(whole: tuple[Path, bytes], number: int, size: int) -> None:
    """The library would walk through some of these for ever, deaf to every signal."""
    path, content = whole
    at = content.index(b"GCOL") + 16
    while content[at : at + 2] != b"\0\0":
        at += 16 + (int.from_bytes(content[at + 8 : at + 16], "little") + 7) // 8 * 8
    data = bytearray(content)
    data[at : at + 2], data[at + 8 : at + 16] = number.to_bytes(2, "little"), size.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        from_nir(path)


@given(flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=20))
@settings(max_examples=100)
def test_any_flipped_bytes_are_told_or_harmless(whole: tuple[Path, bytes], flips: list[tuple[int, int]]) -> None:
    path, content = whole
    data = bytearray(content)
    for at, byte in flips:
        data[at % len(data)] = byte
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        from_nir(path)


def test_a_refused_network_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_nir(tmp_path / "x.nir", Graph((2,), [Population("a", IzhikevichUnits(), (2,))], []))
    assert not list(tmp_path.iterdir())
