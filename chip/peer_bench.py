"""The same ring of cores in other emulators, for ``chip.bench``; each in a process of its own.

Asked for alike: cores of 256 leaky units, each joined densely to the next, so many of the units firing in every step,
whole weights of 8 bits, one thread of arithmetic. Not alike: what a unit is, and what else is told.

SANA-FE (PyPI ``sanafe``)
    Emulates spiking chips neuron by neuron, with times and energies of an architecture file (Loihi's; its ``simple``
    times here). Units in floating point, synapses are objects of their own.
Lava (PyPI ``lava-nc``)
    Loihi 2's processes in fixed point (tag ``fixed_pt``). Neither cores nor a mesh. Wants Python 3.10.
Brian2Loihi (PyPI ``brian2-loihi``)
    Loihi 1's units and synapses in Brian2, its target ``numpy``. Neither cores nor a mesh; its weights are even where
    they have signs. Units cannot be driven, so generators fire, and the ring is open. Wants NumPy before 2.

They want environments that differ from ours and from each other. ``HEBBSTREAM_PEERS`` names Python programs, joined as
paths are in PATH; the first one that has a package runs it. This file is handed to them as a script, so it imports
nothing of ours, and is plain Python 3.10.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["PEERS", "seconds_a_step"]

FIRES, THRESHOLD = 3e6, 1e6
TIMEOUT_S = 900


def _least(run: Callable[[], object], n_steps: int, rounds: int = 3) -> float:
    """Return seconds a step, the least of some rounds."""
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - begin) / n_steps)
    return min(seconds)


def sana_fe(n_cores: int, share: int, n_steps: int) -> float:
    """SANA-FE, Loihi's architecture, simple times, no traces."""
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
    done: dict[str, Any] = {}

    def run() -> None:
        done.update(chip.sim(n_steps, timing_model="simple", processing_threads=1, scheduler_threads=1))

    seconds = _least(run, n_steps)
    if done["neurons_fired"] != n_cores * (256 * share // 100) * n_steps:
        raise AssertionError(f"SANA-FE fired {done['neurons_fired']} units")
    return seconds


def lava(n_cores: int, share: int, n_steps: int) -> float:
    """Lava, fixed point."""
    lif: Any = import_module("lava.proc.lif.process").LIF
    dense: Any = import_module("lava.proc.dense.process").Dense
    steps: Any = import_module("lava.magma.core.run_conditions").RunSteps
    configs: Any = import_module("lava.magma.core.run_configs")
    rng, units, ways = np.random.default_rng(1), [], []
    for _ in range(n_cores):
        bias = np.zeros(256, int)
        bias[rng.choice(256, 256 * share // 100, replace=False)] = 4095
        # a bias of 4095 * 2^12 is always above a threshold of 2^16 * 2^6, and what weights add up to never
        units.append(lif(shape=(256,), du=4095, dv=4095, vth=2**16, bias_mant=bias, bias_exp=12))
        ways.append(dense(weights=rng.integers(-127, 128, (256, 256))))
    for k in range(n_cores):
        units[k].s_out.connect(ways[k].s_in)
        ways[k].a_out.connect(units[(k + 1) % n_cores].a_in)
    config = configs.Loihi2SimCfg(select_tag="fixed_pt")

    def run() -> None:
        units[0].run(condition=steps(num_steps=n_steps), run_cfg=config)

    run()  # starts the process
    seconds = _least(run, n_steps)
    arrived = units[0].u.get().any()
    units[0].stop()
    if not arrived:
        raise AssertionError("Lava: nothing fired")
    return seconds


def brian2_loihi(n_cores: int, share: int, n_steps: int) -> float:
    """Brian2Loihi, Brian2's target numpy."""
    brian2: Any = import_module("brian2")
    library: Any = import_module("brian2_loihi")
    brian2.prefs.codegen.target = "numpy"
    rng, net, rounds = np.random.default_rng(1), library.LoihiNetwork(), 3
    n = (rounds + 1) * n_steps
    for _ in range(n_cores):
        fires = rng.choice(256, 256 * share // 100, replace=False)
        when = np.repeat(np.arange(n), len(fires))
        source = library.LoihiSpikeGeneratorGroup(256, np.tile(fires, n), when)
        group = library.LoihiNeuronGroup(256, threshold_v_mant=131071, decay_v=409, decay_I=4096)
        synapses = library.LoihiSynapses(source, group, sign_mode=1)
        synapses.connect(True)
        synapses.w = 2 * rng.integers(-63, 64, 256 * 256)
        net.add(source, group, synapses)

    def run() -> None:
        net.run(n_steps)

    run()  # makes its code
    return _least(run, n_steps, rounds)


PEERS: dict[str, Callable[[int, int, int], float]] = {
    "SANA-FE": sana_fe,
    "Lava": lava,
    "Brian2Loihi": brian2_loihi,
}


def seconds_a_step(peer: str, n_cores: int, share: int, n_steps: int) -> tuple[float | None, str]:
    """Time a peer in the first Python that has it.

    Returns
    -------
    seconds, why_not
        None, and the last reason, if none has.
    """
    why = ""
    for python in [sys.executable, *filter(None, os.environ.get("HEBBSTREAM_PEERS", "").split(os.pathsep))]:
        # -I: the folder of this file must not hide modules of the standard library
        command = [python, "-I", __file__, peer, str(n_cores), str(share), str(n_steps)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            told = json.loads(done.stdout.splitlines()[-1])
        except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
            why = f"{python}: {error}"
            continue
        if told["seconds"] is not None:
            return float(told["seconds"]), ""
        why = told["why_not"]
    return None, why


def main() -> None:
    """Time one peer here, and say it in a line of JSON."""
    peer, *numbers = sys.argv[1:]
    n_cores, share, n_steps = (int(number) for number in numbers)
    seconds, why = None, ""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            seconds = PEERS[peer](n_cores, share, n_steps)
    except Exception as error:  # whatever keeps a peer from running here is told to who asked
        why = f"{type(error).__name__}: {error}"
    print(json.dumps({"seconds": seconds, "why_not": why}))


if __name__ == "__main__":
    main()
