"""The authors' network, computed without its fast state, against a plain transcription with it and autograd."""

from typing import Any

import numpy as np
import pytest

from plasticity.authors_mlp import Settings, SharedHebb

autograd = pytest.importorskip("autograd")
anp = pytest.importorskip("autograd.numpy")
extend = pytest.importorskip("autograd.extend")


@extend.primitive
def fires(u: Any) -> Any:
    return (u > 0).astype(float)


extend.defvjp(fires, lambda s, u: lambda g: g * (np.abs(u) < 0.5))


def transcribed(it: Settings, mode: str, v: Any, h1: Any, h2: Any, x: Any, steps: int) -> Any:
    """Return scores and fast states as the equations of the module say, one step after the other."""
    n = len(x)
    u1 = s1 = anp.zeros((n, it.n_hidden))
    u2 = s2 = anp.zeros((n, it.n_classes))
    for t in range(steps):
        k = np.exp(-t / it.tau_w)
        x1 = k * x
        u1 = it.decay * (u1 - it.threshold * s1) + anp.dot(x1, v["w1"]) + v["b1"]
        if mode != "GP":
            u1 = u1 + v["alpha1"] * anp.dot(x1, h1)
            z = anp.tanh(u1 / it.threshold - v["eta1"])
            h1 = anp.clip(it.retention * h1 + anp.dot((v["beta1"] * x1).T, z) / n, -it.bound, it.bound)
        s1 = fires(u1 - it.threshold)
        x2 = k * s1
        u2 = it.decay * (u2 - it.threshold * s2) + anp.dot(x2, v["w2"]) + v["b2"]
        if mode != "GP":
            u2 = u2 + v["alpha2"] * anp.dot(x2, h2)
            z = anp.tanh(u2 / it.threshold - v["eta2"])
            h2 = anp.clip(it.retention * h2 + anp.dot((v["beta2"] * x2).T, z) / n, -it.bound, it.bound)
        s2 = fires(u2 - it.threshold)
    return anp.minimum(u2 / it.threshold, 1.1), h1, h2


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("mode", ["GP", "LP", "HP"])
def test_scores_states_and_gradients(mode: str, shared: bool) -> None:
    rng = np.random.default_rng(5)
    it = Settings(n_in=7, n_hidden=9, n_classes=4, steps=5, tau_w=6.0)
    net = SharedHebb(mode, 3, shared=shared, settings=it)
    for name in ("beta1", "beta2", "alpha1", "alpha2"):  # as strong as they get
        net.values[name] = rng.uniform(0.2, 0.9, net.values[name].shape).astype(np.float32)
    net.values["w1"] *= 3
    net.values["w2"] *= 3
    if shared and mode != "GP":
        net.h1 = rng.normal(0, 0.3, net.h1.shape).astype(np.float32)
        net.h2 = rng.normal(0, 0.3, net.h2.shape).astype(np.float32)
    x = rng.random((6, 7)).astype(np.float32)
    labels = rng.integers(0, 4, 6)
    wanted = np.eye(4)[labels]

    def loss(v: Any) -> Any:
        if shared:
            return anp.mean((transcribed(it, mode, v, net.h1, net.h2, x, it.steps)[0] - wanted) ** 2)
        rows = [
            transcribed(it, mode, v, 0 * net.h1, 0 * net.h2, x[k : k + 1], it.steps)[0] - wanted[k : k + 1]
            for k in range(len(x))
        ]
        return anp.mean(anp.concatenate(rows) ** 2)

    values = {name: value.astype(float) for name, value in net.values.items()}
    scores, h1, h2, kept = net._forward(x)
    if shared:
        theirs = transcribed(it, mode, values, net.h1, net.h2, x, it.steps)
        for ours, other in zip((scores, h1, h2), theirs, strict=True):
            np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
    assert np.mean((scores - wanted) ** 2) == pytest.approx(loss(values), rel=1e-4)
    by = net._backward(x, 2 * (scores - wanted).astype(np.float32) / np.float32(scores.size), kept)
    theirs = autograd.grad(loss)(values)
    for name in net.learned:
        scale = np.abs(theirs[name]).max()
        assert scale > 0, name
        np.testing.assert_allclose(by[name], theirs[name], rtol=1e-3, atol=1e-4 * scale, err_msg=name)


def test_it_learns_and_asking_leaves_no_trace() -> None:
    rng = np.random.default_rng(2)
    it = Settings(n_in=12, n_hidden=20, n_classes=3, rate=1e-2)
    net = SharedHebb("HP", 1, settings=it)
    centres = rng.random((3, 12))
    labels = rng.integers(0, 3, 600)
    x = np.clip(centres[labels] + rng.normal(0, 0.1, (600, 12)), 0, 1).astype(np.float32)
    for k in range(0, 500, 20):
        net.learn(x[k : k + 20], labels[k : k + 20])
    before = net.h1.copy()
    assert np.mean(net.scores(x[500:]).argmax(1) == labels[500:]) > 0.8
    in_turn = net.ask_in_turn(x[500:520])
    np.testing.assert_array_equal(net.h1, before)
    np.testing.assert_allclose(in_turn[0], net.scores(x[500:501])[0], rtol=1e-5)
    assert net.clipped == 0
