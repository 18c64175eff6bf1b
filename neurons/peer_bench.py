"""The same small network in other simulators, for ``neurons.bench``: 34 x 34 x 2 -> 256 -> 10, leaky, tau 20 ms.

They are asked for the same architecture and the same weights, not for the same spikes: those that work in frames add up
a millisecond of input before they look at a threshold, those with a grid of 0.1 ms a tenth of one. What is timed begins
with events in memory and ends with the readout, making frames of the events included; building the network is not.

Each function takes the input as SPIKE_DTYPE (sorted), its span, and the weights; it returns seconds, the least of
three, and raises ImportError where its simulator is not installed.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["PEERS"]

TAU_MS, STEP_MS, THRESHOLD = 20.0, 0.1, 1.0

Real: TypeAlias = NDArray[np.float32]


def _least(call: Callable[[], object], rounds: int = 3) -> float:
    call()
    times_s = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times_s.append(time.perf_counter() - begin)
    return min(times_s)


def _frames(torch: Any, items: NDArray[np.void], span_s: float, n_units: int) -> Any:
    """Count events in frames of 1 ms: a float32 tensor, shape (n_frames, n_units)."""
    n_frames = max(round(span_s * 1000), 1)
    place = items["t"] // 1000 * n_units + items["unit"]
    counts = np.bincount(place, minlength=n_frames * n_units)[: n_frames * n_units]
    return torch.from_numpy(counts.astype(np.float32).reshape(n_frames, n_units))


def _linear(torch: Any, weight: Real) -> Any:
    layer = torch.nn.Linear(*weight.shape, bias=False)
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(weight.T))
    return layer


def _torch() -> Any:
    torch: Any = import_module("torch")

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    return torch


def norse(items: NDArray[np.void], span_s: float, hidden: Real, readout: Real) -> float:
    """Norse, frame by frame."""
    torch = _torch()
    library: Any = import_module("norse.torch")

    rate = torch.as_tensor(1000.0 / TAU_MS)
    cell = library.LIFBoxCell(library.LIFBoxParameters(tau_mem_inv=rate, v_th=torch.as_tensor(THRESHOLD)), dt=0.001)
    leak = library.LICell(library.LIParameters(tau_mem_inv=rate), dt=0.001)
    first, second = _linear(torch, hidden), _linear(torch, readout)

    def run() -> None:
        state = scores = None
        for frame in _frames(torch, items, span_s, len(hidden)):
            spikes, state = cell(first(frame[None]), state)
            _, scores = leak(second(spikes), scores)

    return _least(run)


def snntorch(items: NDArray[np.void], span_s: float, hidden: Real, readout: Real) -> float:
    """Run snnTorch frame by frame."""
    torch = _torch()
    library: Any = import_module("snntorch")

    beta = float(np.exp(-1.0 / TAU_MS))
    cell = library.Leaky(beta=beta, threshold=THRESHOLD, reset_mechanism="subtract")
    leak = library.Leaky(beta=beta, reset_mechanism="none")
    first, second = _linear(torch, hidden), _linear(torch, readout)

    def run() -> None:
        v, scores = cell.init_leaky(), leak.init_leaky()
        for frame in _frames(torch, items, span_s, len(hidden)):
            spikes, v = cell(first(frame[None]), v)
            _, scores = leak(second(spikes), scores)

    return _least(run)


def sinabs(items: NDArray[np.void], span_s: float, hidden: Real, readout: Real) -> float:
    """Sinabs, all frames in one call: one matrix product for the whole stretch, and no answer before its end."""
    torch = _torch()
    layers: Any = import_module("sinabs.layers")

    network = torch.nn.Sequential(
        _linear(torch, hidden),
        layers.LIF(tau_mem=TAU_MS, spike_threshold=THRESHOLD, norm_input=False),
        _linear(torch, readout),
        layers.ExpLeak(tau_mem=TAU_MS, norm_input=False),
    )

    def run() -> None:
        for layer in (network[1], network[3]):
            layer.reset_states()
        network(_frames(torch, items, span_s, len(hidden))[None])

    return _least(run)


def spikingjelly(items: NDArray[np.void], span_s: float, hidden: Real, readout: Real) -> float:
    """SpikingJelly, all frames in one call: its multi-step mode."""
    torch = _torch()
    neuron: Any = import_module("spikingjelly.activation_based.neuron")
    functional: Any = import_module("spikingjelly.activation_based.functional")
    options = {"tau": TAU_MS, "decay_input": False, "v_reset": None, "step_mode": "m"}
    # its leaky integrator divides its input by tau, so the readout is a unit that never fires
    cell, leak = (neuron.LIFNode(v_threshold=height, **options) for height in (THRESHOLD, 1e9))
    first, second = _linear(torch, hidden), _linear(torch, readout)

    def run() -> None:
        functional.reset_net(cell)
        functional.reset_net(leak)
        leak(second(cell(first(_frames(torch, items, span_s, len(hidden))[:, None]))))

    return _least(run)


def nest(items: NDArray[np.void], span_s: float, hidden: Real, readout: Real) -> float:
    """NEST, grid of 0.1 ms, up to 1 M events a second."""
    if len(items) > 1.5e6 * span_s:
        raise ImportError("takes too long for this rate")
    library: Any = import_module("nest")

    library.verbosity = library.VerbosityLevel.ERROR
    library.ResetKernel()
    library.resolution = STEP_MS
    span_ms = span_s * 1000
    params = {"tau_m": TAU_MS, "C_m": TAU_MS, "V_th": THRESHOLD, "E_L": 0.0, "V_reset": 0.0, "t_ref": STEP_MS}
    cells = library.Create("iaf_psc_delta", hidden.shape[1], params=params)
    scores = library.Create("iaf_psc_delta", readout.shape[1], params=params | {"V_th": 1e9})
    lines = library.Create("spike_generator", len(hidden))
    step = np.round(items["t"] / (STEP_MS * 1000)).astype(np.int64) + 1
    for i, line in enumerate(lines):
        at = step[items["unit"] == i]
        line.set(spike_times=np.concatenate([at * STEP_MS + k * span_ms for k in range(2)]).round(1))
    library.Connect(lines, cells, "all_to_all", {"weight": hidden.T.astype(float), "delay": STEP_MS})
    library.Connect(cells, scores, "all_to_all", {"weight": readout.T.astype(float), "delay": STEP_MS})
    library.Prepare()
    library.Run(span_ms)
    begin = time.perf_counter()
    library.Run(span_ms)
    taken_s = time.perf_counter() - begin
    library.Cleanup()
    return taken_s


def brian2(items: NDArray[np.void], span_s: float, hidden: Real, readout: Real) -> float:
    """Brian2 with Cython, grid of 0.1 ms, up to 1 M events a second; an input unit fires once a step at most."""
    if len(items) > 1.5e6 * span_s:
        raise ImportError("takes too long for this rate")
    try:
        library: Any = import_module("brian2")
    except AttributeError as error:  # Brian2 2.9 asks NumPy for what it no longer has
        raise ImportError(str(error)) from None
    library.defaultclock.dt = STEP_MS * library.ms
    step = np.unique(np.stack([items["t"] // int(STEP_MS * 1000), items["unit"]], axis=1), axis=0)
    n_steps = round(span_s * 1000 / STEP_MS)
    step = np.concatenate([step, step + np.array([n_steps, 0])])
    lines = library.SpikeGeneratorGroup(len(hidden), step[:, 1], step[:, 0] * STEP_MS * library.ms)
    namespace = {"tau": TAU_MS * library.ms, "theta": THRESHOLD}
    model = {"model": "dv/dt = -v / tau : 1", "method": "exact", "namespace": namespace}
    cells = library.NeuronGroup(hidden.shape[1], threshold="v > theta", reset="v -= theta", **model)
    scores = library.NeuronGroup(readout.shape[1], **model)
    parts = [lines, cells, scores]
    for source, target, weight in ((lines, cells, hidden), (cells, scores, readout)):
        synapses = library.Synapses(source, target, "w : 1", on_pre="v_post += w")
        synapses.connect()
        synapses.w = weight.reshape(-1)
        parts.append(synapses)
    network = library.Network(parts)
    network.run(span_s * library.second)
    begin = time.perf_counter()
    network.run(span_s * library.second)
    return time.perf_counter() - begin


PEERS: dict[str, Callable[[NDArray[np.void], float, Real, Real], float]] = {
    "Norse": norse,
    "snnTorch": snntorch,
    "Sinabs": sinabs,
    "SpikingJelly": spikingjelly,
    "NEST": nest,
    "Brian2": brian2,
}
