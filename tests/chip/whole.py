"""A quantised network run whole: plain integers, one matrix a link, no cores. Shares no code with the compiler."""

import numpy as np

from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.inhibition import Inhibition
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.sparse import Sparse


def matrix(topology, source, target):
    """Write out a topology, as its docstring says it, tap by tap."""
    n_pre, n_post = int(np.prod(source)), int(np.prod(target))
    out = np.zeros((n_pre, n_post), np.int64)
    if isinstance(topology, Dense):
        return topology.weight.astype(np.int64)
    if isinstance(topology, OneToOne):
        for k in range(n_pre):
            out[k, k] = topology.weight if np.ndim(topology.weight) == 0 else topology.weight[k]
        return out
    if isinstance(topology, Inhibition):
        return -int(topology.strength) * (1 - np.eye(n_pre, dtype=np.int64))
    if isinstance(topology, Sparse):
        for i in range(n_pre):
            for s in range(topology.row_start[i], topology.row_start[i + 1]):
                out[i, topology.unit[s]] = topology.weight[s]
        return out
    assert isinstance(topology, Convolution | Pooling)
    pools = isinstance(topology, Pooling)
    size = topology.size if pools else topology.weight.shape[:2]
    (h, w, c_in), (oh, ow, c_out) = source, target
    for oy in range(oh):
        for ox in range(ow):
            for ky in range(size[0]):
                for kx in range(size[1]):
                    y = oy * topology.stride[0] + ky - topology.padding[0]
                    x = ox * topology.stride[1] + kx - topology.padding[1]
                    if not (0 <= y < h and 0 <= x < w):
                        continue
                    for o in range(c_out):
                        for c in range(c_in):
                            if pools:
                                value = int(topology.weight) if c == o else 0
                            else:
                                per, out_per = c_in // topology.groups, c_out // topology.groups
                                if c // per != o // out_per:
                                    continue
                                value = int(topology.weight[ky, kx, c % per, o])
                            out[(y * w + x) * c_in + c, (oy * ow + ox) * c_out + o] += value
    return out


def run_whole(network, offsets, inputs):
    """Run in phases of the chip; a layer's soma runs from phase 0 on.

    Returns
    -------
    list of int64, shape (n_phases, n): what each layer sent
    """
    n_phases = len(inputs)
    shapes = [layer.shape for layer in network.layers]
    sent = [np.zeros((n_phases, int(np.prod(shape))), np.int64) for shape in shapes]
    matrices = [
        matrix(link.topology, network.inputs if link.source < 0 else shapes[link.source], shapes[link.target])
        for link in network.links
    ]
    n_all = [int(np.prod(shape)) for shape in shapes]
    v = [np.full(n, layer.soma.v_init, np.int64) for n, layer in zip(n_all, network.layers, strict=True)]
    theta, rest = [np.zeros(n, np.int64) for n in n_all], [np.zeros(n, np.int64) for n in n_all]
    for k in range(n_phases):
        for q, layer in enumerate(network.layers):
            u = layer.bias.astype(np.int64).copy()
            for link, weights in zip(network.links, matrices, strict=True):
                if link.target != q:
                    continue
                if link.source < 0:
                    at, came = k - offsets[q] - link.delay, inputs.astype(np.int64)
                else:
                    at = k - 1 - link.delay - offsets[q] + offsets[link.source]
                    came = sent[link.source]
                if at >= 0:
                    u += came[at] @ weights
            soma = layer.soma
            if soma.fire_type == 8:
                half = len(layer.table) // 2
                sent[q][k] = layer.table[np.clip(u >> soma.cut_shift, -half, half - 1) % (2 * half)]
                continue
            v[q] = np.where(rest[q] == 0, v[q] + u, v[q])
            before = v[q]
            limit = np.maximum(soma.v_threshold + theta[q], soma.floor)
            fires = v[q] > limit
            after = (
                np.full_like(v[q], soma.v_reset),
                v[q] - limit,
                v[q] - soma.v_decrement,
                v[q],
            )[soma.reset_mode]
            v[q] = np.where(fires, after, v[q])
            if soma.window_length == 0:
                v[q] = np.full_like(v[q], soma.v_init)
            elif soma.leak_mode == 1:
                v[q] = v[q] * soma.alpha // 256 + soma.beta
            else:
                v[q] = v[q] + soma.beta
            theta[q] = theta[q] * soma.theta_alpha // 256 if soma.theta_mode == 1 else theta[q]
            theta[q] = theta[q] + soma.theta_increment * fires
            rest[q] = np.where(fires, soma.refractory_phases, np.maximum(rest[q] - 1, 0))
            sent[q][k] = {0: before, 1: v[q], 4: fires.astype(np.int64)}[soma.fire_type]
    return sent
