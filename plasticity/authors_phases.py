"""The authors' networks through the operators that run live, in phases: no batch, no frame.

What corresponds
----------------
Of ``plasticity.authors_mlp``:

- A step is a phase of ``PHASE_US``; ``decay``, ``retention`` and ``tau_w`` become time constants of the units, of
  ``hebb``, and of synapses that fade from the picture's begin on.
- A pixel is an input line that fires in every phase, as strong as it is bright. A bias is a line of its own, which a
  unit that always fires passes on.
- There all layers run within a step, here a spike is delivered into the next phase. So pixels come one phase after the
  bias line, step t of layer l (1, 2) is phase t + l, and the answer is read in phase ``steps + 1``.
- A picture begins at a ``Reset`` mark. ``hebb`` begins anew with it (what ``SharedHebb(..., shared=False)`` computes,
  to float rounding), or is carried along the stream, decaying by as many phases as a picture takes.

Of ``plasticity.authors_tasks``: the same; without a bias pixels need not wait for one, so step t of layer l (1, 2) is
phase t + l - 1, and the answer is read in phase ``steps``. ``hebb`` begins anew with each picture (what a batch of one
gives, to float rounding). Or it is carried, and then decays over ``batch`` pictures instead of a few steps, and grows
by ``1 / batch`` of what it would: the mean over a batch of pictures becomes one over the stream's last ones. As it is
there at each step, not only from the second one of a picture on, it grows by less again (0.31 times at three steps): so
there is as much of it as a batch has in the mean of its steps. (As much as at a batch's last step is too much: what
hebb adds to potentials it is fed by again, and over many pictures that ran away with some tasks.)
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.graph import INPUT, Fade, Graph, Population, Projection
from neurons.lif import LIFUnits
from plasticity.authors_mlp import Real, SharedHebb
from plasticity.authors_tasks import TaskNetwork
from plasticity.hebbian import Hebbian
from plasticity.plastic_network import PlasticNetwork
from stream.packet import SPIKE_DTYPE, Reset

__all__ = ["PHASE_US", "ask_in_phases", "ask_task_in_phases", "in_phases", "task_in_phases"]

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
        network.on_mark("spikes", Reset(begin_us), _nobody)
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


def task_in_phases(net: TaskNetwork, task: int, *, batch: int = 0) -> PlasticNetwork:
    """Put a network of many tasks, with the masks of one, into operators; the last table stays outside.

    Parameters
    ----------
    net
        With a rule ("HP") or without.
    task
        Whose masks.
    batch
        Over so many pictures hebb is carried; 0: it begins anew with each.
    """
    it, v = net.settings, net.values
    tau_us = -PHASE_US / math.log(it.decay)
    names = [INPUT, "first", "second"]
    tau_hebb_us, share = -PHASE_US / math.log(it.retention), 1.0
    if batch:
        tau_hebb_us = float(batch * (it.steps + 1) * PHASE_US)
        held = [sum(it.retention**s for s in range(t)) for t in range(it.steps)]  # in a batch, at each step
        share = sum(held) / it.steps / it.steps / batch
    populations = [Population(names[k], LIFUnits(tau_us, it.threshold), (it.sizes[k],)) for k in (1, 2)]
    projections, rules = [], {}
    for k, table in enumerate(net.tables(task)[:2], 1):
        ends = names[k - 1], names[k]
        mask = np.zeros(table.shape)
        mask.reshape(-1)[table.place] = 1.0
        weight = v[f"w{k}"].reshape(table.shape)
        fade = Fade(it.tau_w * PHASE_US, (k - 1) * PHASE_US) if net.is_masked else None
        projections.append(Projection(*ends, Dense(weight if net.has_rule else mask * weight), fade=fade))
        rules[ends] = Hebbian(
            share * v[f"beta{k}"],
            v[f"eta{k}"],
            float(v[f"alpha{k}"][0]),
            tau_hebb_us,
            math.inf,
            mixed="mask",
            mask=mask,
        )
    return PlasticNetwork.of(
        Graph((it.sizes[0],), populations, projections),
        rules=rules if net.has_rule else {},
        discipline="phase",
        phase_us=PHASE_US,
        reset_local=not batch,
        graded=True,
    )


def ask_task_in_phases(network: PlasticNetwork, net: TaskNetwork, task: int, x: Real) -> NDArray[np.float64]:
    """Show pictures of a task one after the other; returns scores, float64 (n, n_classes); x is float32 (n, n_in)."""
    it = net.settings
    last = net.tables(task)[2]
    table = np.zeros(last.shape)
    table.reshape(-1)[last.place] = net.values["w3"][last.place]
    scores = np.zeros((len(x), it.sizes[-1]))
    begin_us = 0
    for row, score in zip(x, scores, strict=True):
        network.on_mark("spikes", Reset(begin_us), _nobody)
        lit = np.flatnonzero(row)
        items = np.zeros((it.steps, len(lit)), SPIKE_DTYPE)
        items["unit"] = lit
        items["t"] = begin_us + PHASE_US * np.arange(it.steps)[:, None]
        answer_us = begin_us + it.steps * PHASE_US
        network.run(items.reshape(-1), answer_us, np.tile(row[lit], it.steps))
        score[:] = network.potentials("second") @ table
        begin_us = answer_us + PHASE_US
    return scores


def _nobody(port: str, message: Any) -> None:
    """Let go what a mark sends on."""
