"""Networks that other frameworks export run here as they run there. The frameworks are test extras, skipped if absent.

A framework sends a raster through a network, step by step. The same spikes go in here as events at the begin of each
step, and the network runs in phases of one step. There, a spike passes all layers in its step; here it takes one phase
for each. So the spikes of layer k (from 0) in step n come at the end of phase n + k here: ``(n + k + 1) dt``. A CubaLIF
takes one phase more, for it feels the current of a step at the step's end there, and here at the end of the next one.

A bias is a current that never ends. Here a network begins at rest, which is where a bias holds it; there it begins at
0, so it is left alone for ``N_REST`` steps first. A unit without leak has no rest: it counts from where time begins,
and here a phase's share of the bias is there when the next one begins; so time begins a phase earlier.

Everything is float64 on both sides, and compared exactly: every spike of the last layer, and that there are many.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurons.graph import n_units
from neurons.network import Network
from neurons.nir_file import from_nir
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Reset

torch = pytest.importorskip("torch", reason="needs PyTorch and a framework (pip install 'hebbstream[peers]')")
nir = pytest.importorskip("nir", reason="needs the package nir (pip install 'hebbstream[peers]')")
torch.set_num_threads(1)  # tiny networks: threads would only wait for each other

# the exporters call what their own library is about to replace
pytestmark = pytest.mark.filterwarnings("ignore:nirtorch.extract_nir_graph is being deprecated:DeprecationWarning")

DT_US = 1000
N_STEPS = 600
MAP = (2, 8, 8)
N_REST = 1500


def raster(shape: tuple[int, ...], rate: float, seed: int = 0) -> np.ndarray:
    """Draw spikes; float64, (n_steps, *shape)."""
    return (np.random.default_rng(seed).random((N_STEPS, *shape)) < rate).astype(float)


def spikes_of(frames: np.ndarray) -> np.ndarray:
    """Write a raster of NIR's order as spikes of our input units."""
    if frames.ndim == 4:
        frames = frames.transpose(0, 2, 3, 1)
    steps, units = np.nonzero(frames.reshape(len(frames), -1))
    items = np.zeros(len(steps), SPIKE_DTYPE)
    items["t"], items["unit"] = steps * DT_US, units
    return items


def after_rest(frames: np.ndarray) -> np.ndarray:
    """Put silence before a raster."""
    return np.concatenate([np.zeros((N_REST, *frames.shape[1:])), frames])


def here(graph: Any, frames: np.ndarray, n_late: int, n_early: int = 0) -> np.ndarray:
    """Run a network; returns the raster of its last population, (n_steps, n), ``n_late`` phases earlier.

    Time begins ``n_early`` phases before the first step.
    """
    last = ({p.name for p in graph.populations} - {q.source for q in graph.projections if q.source != q.target}).pop()
    shape = next(p.shape for p in graph.populations if p.name == last)
    network = Network.of(graph, discipline="phase", phase_us=DT_US, precision="float64")
    items = spikes_of(frames)
    if "events" in network.inputs:
        items = events_of(items, graph.inputs)
    network.on_mark(next(iter(network.inputs)), Reset(-n_early * DT_US), lambda port, message: None)
    spikes = network.run(items, (N_STEPS + n_late + 1) * DT_US)[last]
    spikes = spikes[spikes["t"] >= DT_US]
    out = np.zeros((N_STEPS + n_late + 1, n_units(shape)))
    np.add.at(out, (spikes["t"] // DT_US - 1, spikes["unit"]), 1.0)
    if len(shape) == 3:
        out = out.reshape(-1, *shape).transpose(0, 3, 1, 2).reshape(len(out), -1)
    return out[n_late : n_late + N_STEPS]


def events_of(items: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Write spikes of a sensor's units as its events."""
    events = np.zeros(len(items), EVENT_DTYPE)
    y, x, p = np.unravel_index(items["unit"], shape)
    events["t"], events["x"], events["y"], events["p"] = items["t"], x, y, p
    return events


def assert_same(there: np.ndarray, ours: np.ndarray, at_least: int = 300) -> None:
    """Compare rasters; exactly."""
    there = there.reshape(len(there), -1)
    assert there.sum() >= at_least
    assert there.mean() < 0.7
    wrong = np.argwhere(there != ours)
    assert not len(wrong), (len(wrong), there.sum(), wrong[:5])


class Linear(torch.nn.Linear):
    """Frameworks make float32 of spikes."""

    def forward(self, frame: Any) -> Any:
        return super().forward(frame.double())


class Conv2d(torch.nn.Conv2d):
    def forward(self, frame: Any) -> Any:
        return super().forward(frame.double())


def dense(*shape: int, seed: int, scale: float = 1.0) -> Any:
    layer = Linear(shape[0], shape[1], bias=False).double()
    layer.weight.data = torch.tensor(np.random.default_rng(seed).normal(0.3, 0.5, shape[::-1]) * scale)
    return layer


def with_bias(layer: Any, *, seed: int, scale: float) -> Any:
    n = layer.weight.shape[0]
    layer.bias = torch.nn.Parameter(torch.tensor(np.random.default_rng(seed).uniform(-1, 1, n) * scale))
    return layer


def conv(c_in: int, c_out: int, seed: int, scale: float = 1.0, **options: Any) -> Any:
    layer = Conv2d(c_in, c_out, 3, bias=options.pop("bias", False), **options).double()
    layer.weight.data = torch.tensor(np.random.default_rng(seed).normal(0.15, 0.4, layer.weight.shape) * scale)
    if layer.bias is not None:
        layer.bias.data.zero_()
    return layer


# -- snnTorch ----------------------------------------------------------------------------------------------------------

SNN = {"dt_us": float(DT_US), "time_unit_us": 1e7, "step": "euler"}  # its nominal step is 100 us


@pytest.fixture
def snn() -> Any:
    return pytest.importorskip("snntorch", reason="needs snnTorch (pip install 'hebbstream[peers]')")


def snn_run(snn: Any, net: Any, frames: np.ndarray) -> tuple[Any, np.ndarray]:
    """Export a network, and run it; float64."""
    from snntorch.export_nir import export_to_nir

    for module in net.modules():
        for name in ("beta", "alpha", "threshold"):
            if hasattr(module, name):
                setattr(module, name, getattr(module, name).double())
    graph = export_to_nir(net, torch.tensor(frames[:1]), ignore_dims=[0])
    for module in net.modules():
        for name in ("mem", "syn"):
            if hasattr(module, name):
                setattr(module, name, torch.zeros(0, dtype=torch.float64))
    out = []
    with torch.no_grad():
        for frame in frames:
            result = net(torch.tensor(frame[None]))
            out.append((result[0] if isinstance(result, tuple) else result)[0].numpy())
            # with "subtract", a unit that is still above its threshold would be taken down before it may fire again
            assert all(torch.all(module.mem <= module.threshold) for module in net.modules() if hasattr(module, "mem"))
    return graph, np.array(out)


def betas(*shape: int, seed: int) -> Any:
    return torch.tensor(np.random.default_rng(seed).uniform(0.7, 0.97, shape))


@pytest.mark.parametrize(("mechanism", "reset"), [("subtract", "soft"), ("zero", "hard")])
def test_snntorch_dense(snn: Any, mechanism: str, reset: Any) -> None:
    frames = raster((12,), 0.2)
    options = {"init_hidden": True, "reset_mechanism": mechanism, "reset_delay": False}
    net = torch.nn.Sequential(
        dense(12, 20, seed=1, scale=0.25),
        snn.Leaky(betas(20, seed=2), threshold=torch.ones(20), **options),
        dense(20, 6, seed=3, scale=0.2),
        snn.Leaky(betas(6, seed=4), threshold=torch.ones(6), output=True, **options),
    )
    graph, there = snn_run(snn, net, frames)
    assert_same(there, here(from_nir(graph, reset=reset, **SNN), frames, 1), 100)


@pytest.mark.parametrize(("mechanism", "reset"), [("subtract", "soft"), ("zero", "hard")])
def test_snntorch_dense_with_bias(snn: Any, mechanism: str, reset: Any) -> None:
    frames = raster((12,), 0.2)
    options = {"init_hidden": True, "reset_mechanism": mechanism, "reset_delay": False}
    net = torch.nn.Sequential(
        with_bias(dense(12, 20, seed=1, scale=0.25), seed=5, scale=0.02),
        snn.Leaky(betas(20, seed=2), threshold=torch.ones(20), **options),
        with_bias(dense(20, 6, seed=3, scale=0.2), seed=6, scale=0.02),
        snn.Leaky(betas(6, seed=4), threshold=torch.ones(6), output=True, **options),
    )
    graph, there = snn_run(snn, net, after_rest(frames))
    assert not there[:N_REST].any()
    ours = from_nir(graph, reset=reset, **SNN)
    assert np.all(np.asarray(ours.populations[0].model.v_leak) != 0.0)
    assert_same(there[N_REST:], here(ours, frames, 1), 100)


def test_snntorch_convolution_pool_flatten(snn: Any) -> None:
    frames = raster(MAP, 0.05)
    options = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    net = torch.nn.Sequential(
        conv(2, 4, seed=1, padding=1),
        snn.Leaky(betas(4, 8, 8, seed=2), threshold=torch.ones(4, 8, 8), **options),
        torch.nn.AvgPool2d(2),
        conv(4, 3, seed=5, scale=3.0),
        snn.Leaky(betas(3, 2, 2, seed=6), threshold=torch.ones(3, 2, 2), **options),
        torch.nn.Flatten(),
        dense(12, 5, seed=3),
        snn.Leaky(betas(5, seed=4), threshold=torch.ones(5), output=True, **options),
    )
    graph, there = snn_run(snn, net, frames)
    assert_same(there, here(from_nir(graph, reset="hard", **SNN), frames, 2))


def test_snntorch_currents(snn: Any) -> None:
    frames = raster((12,), 0.1)
    options = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    net = torch.nn.Sequential(
        dense(12, 20, seed=1, scale=0.06),
        snn.Synaptic(betas(20, seed=5), betas(20, seed=2), threshold=torch.ones(20), **options),
        dense(20, 6, seed=3, scale=0.05),
        snn.Synaptic(betas(6, seed=6), betas(6, seed=4), threshold=torch.ones(6), output=True, **options),
    )
    graph, there = snn_run(snn, net, frames)
    assert_same(there, here(from_nir(graph, reset="hard", **SNN), frames, 3))


def test_snntorch_recurrent(snn: Any) -> None:
    """A layer that feeds itself: a nested graph, a cycle without delay in NIR, a step later in both."""
    frames = raster((12,), 0.15)
    layer = snn.RLeaky(
        betas(20, seed=2),
        threshold=torch.ones(20),
        linear_features=20,
        init_hidden=True,
        output=True,
        reset_mechanism="zero",
        reset_delay=False,
    )
    layer.recurrent = dense(20, 20, seed=7, scale=0.2)
    layer.recurrent.weight.data -= 0.08
    net = torch.nn.Sequential(dense(12, 20, seed=1, scale=0.4), layer)
    layer.spk = layer.mem = torch.zeros(0, dtype=torch.float64)
    graph, there = snn_run(snn, net, frames)
    assert_same(there, here(from_nir(graph, reset="hard", **SNN), frames, 0))


# -- Norse -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def norse() -> Any:
    return pytest.importorskip("norse.torch", reason="needs Norse (pip install 'hebbstream[peers]')")


NORSE = {"dt_us": float(DT_US), "step": "euler", "reset": "hard"}


def norse_run(norse: Any, net: Any, frames: np.ndarray) -> np.ndarray:
    out, state = [], None
    with torch.no_grad():
        for frame in frames:
            result, state = net(torch.tensor(frame[None]), state)
            out.append(result[0].numpy())
    return np.array(out)


def box(norse: Any, tau_inv: float, v_th: float = 1.0, v_leak: float = 0.0) -> Any:
    one = torch.ones((), dtype=torch.float64)
    return norse.LIFBoxCell(norse.LIFBoxParameters(one * tau_inv, one * v_leak, one * v_th, one * 0.0))


def test_norse_dense_through_a_file(norse: Any, tmp_path: Path) -> None:
    frames = raster((12,), 0.1)
    net = norse.SequentialState(
        dense(12, 20, seed=1, scale=8.0), box(norse, 80.0), dense(20, 6, seed=3, scale=2.5), box(norse, 150.0)
    )
    # its parameters are numbers, not arrays, which HDF5 cannot compress
    nir.write(tmp_path / "norse.nir", norse.to_nir(net, torch.tensor(frames[:1]), dt=1.0), compression=None)
    graph = tmp_path / "norse.nir"
    assert_same(norse_run(norse, net, frames), here(from_nir(graph, **NORSE), frames, 1))


def test_norse_convolutions(norse: Any) -> None:
    frames = raster(MAP, 0.05)
    net = norse.SequentialState(
        conv(2, 4, seed=1, scale=15.0, bias=True),
        box(norse, 80.0),
        conv(4, 3, seed=5, scale=10.0, stride=2, bias=True),
        box(norse, 120.0, v_th=0.7),
    )
    graph = norse.to_nir(net, torch.tensor(frames[:1]), dt=1.0)
    assert_same(norse_run(norse, net, frames), here(from_nir(graph, **NORSE), frames, 1))


def test_norse_with_bias(norse: Any) -> None:
    frames = raster((12,), 0.1)
    net = norse.SequentialState(
        with_bias(dense(12, 20, seed=1, scale=8.0), seed=7, scale=0.5),
        box(norse, 80.0),
        with_bias(dense(20, 6, seed=3, scale=2.5), seed=8, scale=0.3),
        box(norse, 150.0),
    )
    graph = norse.to_nir(net, torch.tensor(frames[:1]), dt=1.0)
    there = norse_run(norse, net, after_rest(frames))
    assert not there[:N_REST].any()
    assert_same(there[N_REST:], here(from_nir(graph, **NORSE), frames, 1))


def test_norse_currents(norse: Any) -> None:
    """Its export leaves w_in at 1; in its own step the current rises by the whole weight: w_in = tau_syn / dt."""
    frames = raster((12,), 0.1)
    one = torch.ones((), dtype=torch.float64)

    def cell(tau_syn_inv: float, tau_mem_inv: float) -> Any:
        return norse.LIFCell(norse.LIFParameters(one * tau_syn_inv, one * tau_mem_inv, one * 0, one * 1, one * 0))

    net = norse.SequentialState(
        dense(12, 20, seed=1, scale=0.7), cell(150.0, 80.0), dense(20, 6, seed=3, scale=0.45), cell(80.0, 80.0)
    )
    graph = norse.to_nir(net, torch.tensor(frames[:1]), dt=1.0)
    for node in graph.nodes.values():
        if isinstance(node, nir.CubaLIF):
            node.w_in = np.asarray(node.tau_syn) / (DT_US * 1e-6)
    assert_same(norse_run(norse, net, frames), here(from_nir(graph, **NORSE), frames, 3))


# -- sinabs ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sinabs() -> Any:
    pytest.importorskip("sinabs", reason="needs sinabs (pip install sinabs; it wants nir<=1.0.4)")
    import sinabs.activation
    import sinabs.layers
    import sinabs.nir

    return sinabs


@pytest.mark.parametrize("is_normed", [True, False])
def test_sinabs_dense(sinabs: Any, is_normed: bool) -> None:
    """Times are counted in steps. Without norm_input, which the file does not hold, the gain is 1: r = tau."""
    frames = raster((12,), 0.1)
    one = {"spike_fn": sinabs.activation.SingleSpike, "batch_size": 1, "norm_input": is_normed}
    scale = 8.0 if is_normed else 0.5
    net = torch.nn.Sequential(
        dense(12, 20, seed=1, scale=scale),
        sinabs.layers.LIFSqueeze(tau_mem=torch.tensor(20.0).double(), **one),
        dense(20, 6, seed=3, scale=scale / 2),
        sinabs.layers.LIFSqueeze(tau_mem=torch.tensor(7.0).double(), **one),
    )
    graph = sinabs.nir.to_nir(net, torch.tensor(frames[:1]))
    sinabs.reset_states(net)
    with torch.no_grad():
        there = net(torch.tensor(frames)).numpy()
    if not is_normed:
        for node in graph.nodes.values():
            if isinstance(node, nir.LIF):
                node.r = np.asarray(node.tau)
    step = "pulse" if is_normed else "impulse"
    ours = from_nir(graph, dt_us=DT_US, time_unit_us=DT_US, step=step, reset="soft")
    assert_same(there, here(ours, frames, 1))


def test_sinabs_convolution_pool_flatten(sinabs: Any) -> None:
    frames = raster(MAP, 0.05)
    one = {"spike_fn": sinabs.activation.SingleSpike, "batch_size": 1}
    net = torch.nn.Sequential(
        conv(2, 4, seed=1, scale=0.5),
        sinabs.layers.IAFSqueeze(**one),
        sinabs.layers.SumPool2d(2),
        torch.nn.Flatten(),
        dense(36, 5, seed=3, scale=0.2),
        sinabs.layers.IAFSqueeze(**one),
    )
    graph = sinabs.nir.to_nir(net, torch.tensor(frames[:1]))
    sinabs.reset_states(net)
    with torch.no_grad():
        there = net(torch.tensor(frames)).numpy()
    ours = from_nir(graph, dt_us=DT_US, time_unit_us=DT_US, reset="soft")
    assert_same(there, here(ours, frames, 1))


def test_sinabs_with_bias(sinabs: Any) -> None:
    """Units without leak, and a bias either way: they fire by themselves too, in phases."""
    frames = raster(MAP, 0.05)
    net = torch.nn.Sequential(
        with_bias(conv(2, 4, seed=1, scale=0.5, bias=True), seed=3, scale=0.1),
        sinabs.layers.IAFSqueeze(spike_fn=sinabs.activation.SingleSpike, batch_size=1),
    )
    graph = sinabs.nir.to_nir(net, torch.tensor(frames[:1]))
    sinabs.reset_states(net)
    with torch.no_grad():
        there = net(torch.tensor(frames)).numpy()
    ours = from_nir(graph, dt_us=DT_US, time_unit_us=DT_US, reset="soft")
    assert np.any(np.asarray(ours.populations[0].model.drive_per_us) > 0)
    assert_same(there, here(ours, frames, 0, 1))
