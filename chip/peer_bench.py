"""The same ring of cores in another emulator, for ``chip.bench``.

SANA-FE (PyPI ``sanafe``, SLAM-Lab) emulates spiking chips neuron by neuron, with times and energies of an architecture
file. Asked for alike: cores of 256 leaky units, each joined densely to the next, 10 % of the units firing in every
step, one thread, no traces. Not alike: its units are Loihi's, in floating point, its synapses are objects of their own,
and it says times and energies (its ``simple`` model here), where we count packets, hops and clocks. Loihi's simulators
Lava, brian2-loihi and nengo-loihi were not tried: by their documents the first two have neither cores nor a mesh.

Raises ImportError where it is not installed.
"""

import contextlib
import io
import time
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["sana_fe"]

FIRES, THRESHOLD = 3e6, 1e6


def sana_fe(n_cores: int, share: int, n_steps: int, rounds: int = 3) -> float:
    """Return seconds a step, the least of some rounds."""
    sanafe: Any = import_module("sanafe")
    arch, net = sanafe.load_loihi(), sanafe.Network()
    rng, groups = np.random.default_rng(1), []
    for k in range(n_cores):
        group = net.create_neuron_group(
            f"ring{k}",
            256,
            model_attributes={"threshold": THRESHOLD, "reset": 0.0, "leak_decay": 1.0},
            soma_hw_name="loihi_lif",
            default_synapse_hw_name="loihi_dense_synapse",
        )
        group.map_to_core(arch.cores()[k])
        groups.append(group)
    for k, group in enumerate(groups):
        for j in rng.choice(256, 256 * share // 100, replace=False):
            group.neurons[int(j)].set_attributes(model_attributes={"bias": FIRES})
        weight = rng.integers(-127, 128, 256 * 256).astype(float).tolist()
        group.connect_neurons_dense(groups[(k + 1) % n_cores], {"weight": weight})
    chip = sanafe.SpikingChip(arch)
    chip.load(net)
    seconds = []
    with contextlib.redirect_stdout(io.StringIO()):
        for _ in range(rounds):
            begin = time.perf_counter()
            done = chip.sim(n_steps, timing_model="simple", processing_threads=1, scheduler_threads=1)
            seconds.append((time.perf_counter() - begin) / n_steps)
    if done["neurons_fired"] != n_cores * (256 * share // 100) * n_steps:
        raise AssertionError(f"SANA-FE fired {done['neurons_fired']} units")
    return min(seconds)
