"""The authors' network of many tasks, computed without its fast state, against a plain transcription and autograd."""

from typing import Any

import numpy as np
import pytest

from plasticity.authors_tasks import Settings, TaskNetwork

autograd = pytest.importorskip("autograd")
anp = pytest.importorskip("autograd.numpy")
extend = pytest.importorskip("autograd.extend")

SMALL = Settings(sizes=(11, 9, 8, 4), density=0.4, tau_w=3.0, steps=3)


@extend.primitive
def fires(u: Any) -> Any:
    return (u > 0).astype(float)


extend.defvjp(fires, lambda s, u: lambda g: g * (np.abs(u) < 0.5))


def transcribed(it: Settings, mode: str, v: Any, masks: Any, x: Any) -> Any:
    """Return the scores as the equations of the module say, H and all, one step after the other."""
    n = len(x)
    tables = [anp.reshape(v[f"w{k}"], mask.shape) * mask for k, mask in enumerate(masks, 1)]
    u = [anp.zeros((n, size)) for size in it.sizes[1:3]]
    s = [anp.zeros((n, size)) for size in it.sizes[1:3]]
    h = [anp.zeros(mask.shape) for mask in masks[:2]]
    for t in range(it.steps):
        k_t = np.exp(-t / it.tau_w) if mode in ("GP", "HP") else 1.0
        inputs = x
        for k in range(2):
            here = k_t * inputs
            table = tables[k]
            if mode == "HP":
                table = table + v[f"alpha{k + 1}"] * h[k] * (1 - masks[k])
            u[k] = it.decay * (u[k] - it.threshold * s[k]) + anp.dot(here, table)
            s[k] = fires(u[k] - it.threshold)
            if mode == "HP":
                z = anp.tanh(u[k] / it.threshold - v[f"eta{k + 1}"])
                h[k] = it.retention * h[k] + anp.dot((v[f"beta{k + 1}"] * here).T, z) / n
            inputs = s[k]
    return anp.dot(u[1], tables[2])


@pytest.mark.parametrize("mode", ["GP", "HP", "naive"])
def test_scores_and_gradients(mode: str) -> None:
    rng = np.random.default_rng(3)
    net = TaskNetwork(mode, 7, SMALL)
    for name in net.values:  # as strong as they get
        if name.startswith("w"):
            net.values[name] *= 4
        elif name.startswith("eta"):
            net.values[name] += rng.normal(0, 0.3, net.values[name].shape).astype(np.float32)
        else:
            net.values[name] = rng.uniform(0.3, 0.9, net.values[name].shape).astype(np.float32)
    tables = net.tables(5)
    masks = []
    for table in tables:
        mask = np.zeros(table.shape)
        mask.reshape(-1)[table.place] = 1
        masks.append(mask)
    assert all(0 < mask.mean() < 1 for mask in masks) == (mode != "naive")
    x, labels = rng.random((13, 11)).astype(np.float32), rng.integers(0, 4, 13)
    wanted = np.eye(4)[labels]
    values = {name: value.astype(float) for name, value in net.values.items()}

    def loss(v: Any) -> Any:
        return anp.mean((transcribed(SMALL, mode, v, masks, x) - wanted) ** 2)

    np.testing.assert_allclose(net.scores(tables, x), transcribed(SMALL, mode, values, masks, x), rtol=1e-4, atol=1e-5)
    _, by = net._gradients(tables, net.weights(tables), x, labels)
    theirs = autograd.grad(loss)(values)
    for name in by:
        place = tables[int(name[-1]) - 1].place if name.startswith("w") else slice(None)
        scale = np.abs(theirs[name]).max()
        assert scale > 0, name
        np.testing.assert_allclose(by[name], theirs[name][place], rtol=1e-3, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize("mode", ["GP", "HP", "EWC", "naive"])
def test_tasks_in_turn(mode: str) -> None:
    """Two tasks that contradict each other: masks and elastic weights keep the first, naive learning does not."""
    it = Settings(sizes=(16, 64, 64, 2), density=0.2, rate=3e-3, ewc_strength=2e4)
    net = TaskNetwork(mode, 1, it)
    rng = np.random.default_rng(1)
    centres, labels = rng.random((2, 16)), rng.integers(0, 2, 400)
    x = np.clip(centres[labels] + rng.normal(0, 0.1, (400, 16)), 0, 1).astype(np.float32)
    turned = np.ascontiguousarray(x[:, ::-1])

    def asked(task: int, pictures: Any) -> float:
        return float(np.mean(net.scores(net.tables(task), pictures).argmax(1) == labels))

    for task, pictures in enumerate((x, turned)):
        net.begin(task)
        for _ in range(6):
            for k in range(0, 400, 20):
                net.learn(pictures[k : k + 20], labels[k : k + 20])
        if mode == "EWC":
            net.remember([pictures[k : k + 20] for k in range(0, 400, 20)])
        if mode == "HP":
            held = net.values["w1"].copy()
            before = net.values["beta1"].copy()
            net.learn_rule(net.tables(0), x[:20], labels[:20])
            np.testing.assert_array_equal(net.values["w1"], held)
            assert np.any(net.values["beta1"] != before)
        assert asked(task, pictures) > 0.95
    assert asked(0, x) < 0.85 if mode == "naive" else asked(0, x) > 0.95


def test_a_mask_moves_only_its_own_weights() -> None:
    net = TaskNetwork("GP", 2, SMALL)
    before = net.values["w1"].copy()
    net.begin(3)
    rng = np.random.default_rng(0)
    net.learn(rng.random((10, 11)).astype(np.float32), rng.integers(0, 4, 10))
    moved = np.nonzero(net.values["w1"] != before)[0]
    assert len(moved)
    assert set(moved) <= set(net.tables(3)[0].place)
    np.testing.assert_array_equal(net.tables(3)[0].place, TaskNetwork("HP", 2, SMALL).tables(3)[0].place)
