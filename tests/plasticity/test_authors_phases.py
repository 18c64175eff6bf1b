"""The authors' networks through the operators, in phases: as the transcriptions compute a picture alone."""

import numpy as np
import pytest

from neurons.graph import INPUT
from plasticity.authors_mlp import Settings, SharedHebb
from plasticity.authors_phases import ask_in_phases, ask_task_in_phases, in_phases, task_in_phases
from plasticity.authors_tasks import Settings as TaskSettings
from plasticity.authors_tasks import TaskNetwork

SETTINGS = Settings(n_in=30, n_hidden=24, n_classes=5, steps=6, tau_w=6.0, retention=0.9, bound=0.4)


def strong(mode: str) -> SharedHebb:
    """Make a network in which the rule has a say, and now and then its bound."""
    rng = np.random.default_rng(7)
    net = SharedHebb(mode, 3, shared=False, settings=SETTINGS)
    for name in ("beta1", "beta2", "alpha1", "alpha2", "eta1", "eta2"):
        net.values[name] = rng.uniform(-0.2, 0.9, net.values[name].shape).astype(np.float32)
    net.values["w1"] *= 3
    net.values["w2"] *= 3
    return net


def pictures(n: int) -> np.ndarray:
    rng = np.random.default_rng(11)
    return np.where(rng.random((n, 30)) < 0.4, 0, rng.random((n, 30))).astype(np.float32)


def transcribed(net: SharedHebb, x: np.ndarray, left: float) -> np.ndarray:
    """Return scores by the equations, hebb written out; ``left``: of a picture's hebb when the next one begins."""
    it, v = net.settings, {name: value.astype(float) for name, value in net.values.items()}
    h1, h2 = np.zeros((it.n_in, it.n_hidden)), np.zeros((it.n_hidden, it.n_classes))
    scores = []
    for row in x.astype(float):
        h1, h2 = left * h1, left * h2
        u1 = s1 = np.zeros(it.n_hidden)
        u2 = s2 = np.zeros(it.n_classes)
        for t in range(it.steps):
            k = np.exp(-t / it.tau_w)
            u1 = it.decay * (u1 - it.threshold * s1) + k * row @ (v["w1"] + v["alpha1"] * h1) + v["b1"]
            s1 = (u1 > it.threshold).astype(float)
            u2 = it.decay * (u2 - it.threshold * s2) + k * s1 @ (v["w2"] + v["alpha2"] * h2) + v["b2"]
            s2 = (u2 > it.threshold).astype(float)
            for h, pre, u, of in ((h1, row, u1, "1"), (h2, s1, u2, "2")):
                z = np.tanh(u / it.threshold - v["eta" + of])
                h[...] = np.clip(it.retention * h + np.outer(v["beta" + of] * k * pre, z), -it.bound, it.bound)
        scores.append(np.minimum(u2 / it.threshold, 1.1))
    return np.array(scores)


@pytest.mark.parametrize("left", [0.0, SETTINGS.retention**2])
def test_hybrid(left: float) -> None:
    net, x = strong("HP"), pictures(12)
    network = in_phases(net, carried=left > 0)
    scores = ask_in_phases(network, net, x)
    wanted = transcribed(net, x, left)
    np.testing.assert_allclose(scores, wanted, rtol=2e-4, atol=2e-5)
    assert np.abs(scores - transcribed(net, x, 0.0 if left else 0.8)).max() > 0.05  # whether it is carried matters
    for ends in ((INPUT, "hidden"), ("hidden", "out")):
        assert np.abs(network.hebb(*ends)).max() > 0.1
    net.settings = SETTINGS._replace(bound=100.0)
    assert np.abs(scores - transcribed(net, x, left)).max() > 0.05  # so does the bound
    net.settings = SETTINGS
    # asked again, alone, it gives the same; carried along it does not
    again = ask_in_phases(in_phases(net, carried=left > 0), net, x[5:6])
    assert np.allclose(again, scores[5:6], atol=1e-6) == (left == 0)


@pytest.mark.parametrize("mode", ["GP", "LP", "HP"])
def test_alone_it_is_what_was_trained(mode: str) -> None:
    net, x = strong(mode), pictures(9)
    net.settings = SETTINGS._replace(bound=100.0)  # what shares no hebb does not watch the first layer's bound
    np.testing.assert_allclose(ask_in_phases(in_phases(net), net, x), net.scores(x), rtol=2e-4, atol=2e-5)
    assert len(set(net.scores(x).argmax(1))) > 1


TASKS = TaskSettings(sizes=(30, 24, 20, 5), density=0.4, tau_w=6.0, steps=4)


def many_tasks(mode: str) -> TaskNetwork:
    """Make a network of many tasks in which the rule has a say."""
    rng = np.random.default_rng(5)
    net = TaskNetwork(mode, 3, TASKS)
    for name, value in net.values.items():
        if name.startswith("w"):
            value *= 4
        else:
            value[...] = rng.uniform(0.1, 0.9, value.shape)
    return net


@pytest.mark.parametrize("mode", ["GP", "HP"])
def test_a_task_alone_is_what_was_trained(mode: str) -> None:
    net, x = many_tasks(mode), pictures(9)
    network = task_in_phases(net, 2)
    wanted = np.concatenate([net.scores(net.tables(2), row[None]) for row in x])
    np.testing.assert_allclose(ask_task_in_phases(network, net, 2, x), wanted, rtol=2e-4, atol=2e-5)
    assert len(set(wanted.argmax(1))) > 1
    assert np.abs(wanted - np.concatenate([net.scores(net.tables(1), row[None]) for row in x])).max() > 0.1


def test_a_task_in_a_stream_has_the_mean_of_its_last_pictures() -> None:
    """Against the equations, hebb written out: one decaying trace, read at every step."""
    it, net, x, batch = TASKS, many_tasks("HP"), pictures(40), 10
    v = {name: value.astype(float) for name, value in net.values.items()}
    masks = [np.zeros(pair) for pair in zip(it.sizes[:-1], it.sizes[1:], strict=True)]
    for mask, table in zip(masks, net.tables(2), strict=True):
        mask.reshape(-1)[table.place] = 1
    w = [v[f"w{k}"].reshape(mask.shape) * mask for k, mask in enumerate(masks, 1)]
    hebb = [np.zeros(mask.shape) for mask in masks[:2]]
    share = (1 + (1 + it.retention) + (1 + it.retention + it.retention**2)) / it.steps**2 / batch
    left = np.exp(-1 / (batch * (it.steps + 1)))
    wanted = []
    for row in x.astype(float):
        inputs = [row] * it.steps
        for k in range(2):
            u = s = np.zeros(it.sizes[k + 1])
            spikes = []
            for t in range(it.steps):
                pre = np.exp(-t / it.tau_w) * inputs[t]
                u = it.decay * (u - it.threshold * s) + pre @ (w[k] + v[f"alpha{k + 1}"] * hebb[k] * (1 - masks[k]))
                s = (u > it.threshold).astype(float)
                spikes.append(s)
                grown = np.outer(v[f"beta{k + 1}"] * pre, np.tanh(u / it.threshold - v[f"eta{k + 1}"]))
                hebb[k] = left * hebb[k] + share * grown
            hebb[k] *= left  # the phase in which the other layer ends, or begins
            inputs = spikes
        wanted.append(u @ w[2])
    network = task_in_phases(net, 2, batch=batch)
    np.testing.assert_allclose(ask_task_in_phases(network, net, 2, x), wanted, rtol=1e-3, atol=1e-4)
    alone = ask_task_in_phases(task_in_phases(net, 2), net, 2, x)
    assert np.abs(wanted - alone).max() > 0.1
    assert np.abs(network.hebb("first", "second")).max() > 0.05
