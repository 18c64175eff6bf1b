"""The authors' network (``plasticity.authors_mlp``) through the operators that run live, in phases: no batch, no frame.

What corresponds
----------------
- A step is a phase of ``PHASE_US``; ``decay``, ``retention`` and ``tau_w`` become time constants of the units, of
  ``hebb``, and of synapses that fade from the picture's begin on.
- A pixel is an input line that fires in every phase, as strong as it is bright. A bias is a line of its own, which a
  unit that always fires passes on.
- There all layers run within a step, here a spike is delivered into the next phase. So pixels come one phase after the
  bias line, step t of layer l (1, 2) is phase t + l, and the answer is read in phase ``steps + 1``.
- A picture begins at a ``Reset`` mark. ``hebb`` begins anew with it (what ``SharedHebb(..., shared=False)`` computes,
  to float rounding), or is carried along the stream, decaying by as many phases as a picture takes.
"""

import math

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.lif import LIFUnits
from plasticity.authors_mlp import Real, SharedHebb
from plasticity.hebbian import Hebbian
from plasticity.plastic_network import PlasticNetwork
from stream.packet import SPIKE_DTYPE, Reset

__all__ = ["PHASE_US", "ask_in_phases", "in_phases"]

PHASE_US = 1000


def in_phases(net: SharedHebb, *, carried: bool = False) -> PlasticNetwork:
    """Put a trained network into operators; ``carried``: hebb outlives a picture."""
    it, v = net.settings, net.values
    tau_us = -PHASE_US / math.log(it.decay)
    lif = LIFUnits(tau_us, it.threshold)
    always = np.zeros((it.n_in + 1, 1))
    always[-1] = 1.0
    graph = Graph(
        (it.n_in + 1,),
        [
            Population("bias", LIFUnits(tau_us, 0.5, reset="hard"), (1,)),
            Population("hidden", lif, (it.n_hidden,)),
            Population("out", lif, (it.n_classes,)),
        ],
        [
            Projection(INPUT, "bias", Dense(always)),
            Projection("bias", "hidden", Dense(v["b1"][None])),
            Projection("bias", "out", Dense(v["b2"][None]), delay_us=PHASE_US),
            Projection(
                INPUT,
                "hidden",
                Dense(np.vstack([v["w1"], np.zeros((1, it.n_hidden))])),
                fade=Fade(it.tau_w * PHASE_US, PHASE_US),
            ),
            Projection("hidden", "out", Dense(v["w2"]), fade=Fade(it.tau_w * PHASE_US, 2 * PHASE_US)),
        ],
    )
    tau_hebb_us = -PHASE_US / math.log(it.retention)
    first = Hebbian(np.append(v["beta1"], 0.0), v["eta1"], float(v["alpha1"][0]), tau_hebb_us, it.bound)
    second = Hebbian(v["beta2"], v["eta2"], float(v["alpha2"][0]), tau_hebb_us, it.bound)
    return PlasticNetwork.of(
        graph,
        rules={} if net.mode == "GP" else {(INPUT, "hidden"): first, ("hidden", "out"): second},
        discipline="phase",
        phase_us=PHASE_US,
        reset_local=not carried,
        graded=True,
    )


def ask_in_phases(network: PlasticNetwork, net: SharedHebb, x: Real) -> NDArray[np.float64]:
    """Show pictures one after the other; returns scores, float64 (n, n_classes); x is float32 (n, n_in), 0 to 1."""
    it = net.settings
    scores = np.zeros((len(x), it.n_classes))
    begin_us = 0
    for row, score in zip(x, scores, strict=True):
        network.on_mark("spikes", Reset(begin_us), lambda port, message: None)
        lit = np.flatnonzero(row)
        one_phase = np.append(lit, it.n_in)
        items = np.zeros((it.steps, len(one_phase)), SPIKE_DTYPE)
        items["unit"] = one_phase
        items["t"] = begin_us + PHASE_US * np.arange(1, it.steps + 1)[:, None]
        items["t"][:, -1] -= PHASE_US
        strength = np.tile(np.append(row[lit], 1.0), it.steps)
        order = np.argsort(items["t"].reshape(-1), kind="stable")
        answer_us = begin_us + (it.steps + 1) * PHASE_US
        network.run(items.reshape(-1)[order], answer_us, strength[order])
        score[:] = np.minimum(network.potentials("out") / it.threshold, 1.1)
        begin_us = answer_us + PHASE_US
    return scores
