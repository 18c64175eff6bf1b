"""Episodes and meta-learning: gradients through ``hebb`` from queries to supports against automatic differentiation."""

from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad
from autograd.extend import defvjp, primitive
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from plasticity.hebbian import Hebbian
from plasticity.meta import MetaLearner
from plasticity.meta_episode import Episode, EpisodeNetwork, Show
from stream.errors import ConfigError
from stream.packet import SPIKE_DTYPE

N_IN, N_FEATURES, N_CLASSES = 6, 5, 4
TAU_US, TAU_OUT_US, SPAN_US = 20_000.0, 60_000.0, 30_000
RULE = Hebbian(local_rate=0.3, sliding_threshold=0.2, mixing=0.15, tau_hebb_us=90_000.0, hebb_max=np.inf)


def network(seed: int, precision: Any = "float64", length: float = 3.0) -> EpisodeNetwork:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.0, 0.6, (N_IN, N_FEATURES))
    graph = Graph(
        (N_IN,),
        [
            Population("features", LIFUnits(tau_mem_us=TAU_US), (N_FEATURES,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=TAU_OUT_US), (N_CLASSES,)),
        ],
        [
            Projection(INPUT, "features", Dense(weight)),
            Projection("features", "scores", Dense(np.zeros((N_FEATURES, N_CLASSES)))),
        ],
    )
    rule = RULE._replace(local_rate=rng.uniform(0.1, 0.5, N_FEATURES))
    return EpisodeNetwork(graph, rule=rule, bind=1.0, span_us=SPAN_US, length=length, precision=precision)


def episode(seed: int, ways: int = 3) -> Episode:
    rng = np.random.default_rng(seed)

    def show(label: int) -> Show:
        items = np.zeros(25, SPIKE_DTYPE)
        items["t"] = np.sort(rng.integers(0, SPAN_US, 25))
        items["unit"] = rng.choice(N_IN, 25, p=np.roll([0.4, 0.3, 0.1, 0.1, 0.05, 0.05], 2 * label))
        return Show(items, label)

    return Episode([show(k) for k in (1, 0, 2, 0)], [show(k) for k in (0, 2, 1)], ways)


# -- the same, written down plainly ------------------------------------------------------------------------------------


@primitive
def _step(x: Any) -> Any:
    return (x > 0) * 1.0


defvjp(_step, lambda ans, x: lambda g: g * ans)  # psi: 1 where it fired


def plain_loss(parameters: Any, it: Episode, bind: float, length: float = 3.0) -> Any:
    """Mean cross-entropy of the queries, one event after the other, nothing lazy, nothing vectorised over time."""
    weight, mixing, contrast, tau_us, rate = parameters
    hebb = [anp.zeros(N_CLASSES) for _ in range(N_FEATURES)]
    hebb_us = [0.0] * N_FEATURES
    loss = 0.0
    for number, show in enumerate([*it.supports, *it.queries]):
        is_query = number >= len(it.supports)
        begin_us = number * SPAN_US
        left_now = [anp.exp(-(begin_us - hebb_us[j]) / tau_us) for j in range(N_FEATURES)]
        square = sum((hebb[j] * left_now[j]) ** 2 for j in range(N_FEATURES))
        v, v_us = anp.zeros(N_FEATURES), float(begin_us)
        out, out_us, integral = anp.zeros(N_CLASSES), float(begin_us), anp.zeros(N_CLASSES)
        bound = np.zeros(N_CLASSES)
        bound[show.label] = bind
        z = anp.tanh(bound - contrast)
        for item in show.items:
            t_us = float(item["t"]) + begin_us
            v = v * np.exp(-(t_us - v_us) / TAU_US) + weight[int(item["unit"])]
            v_us = t_us
            fired = _step(v - 1.0)
            v = v - fired
            for j in range(N_FEATURES):
                if fired[j] == 0.0:
                    continue
                left = np.exp(-(t_us - out_us) / TAU_OUT_US)
                integral = integral + out * (TAU_OUT_US * (1.0 - left))
                hebb[j] = hebb[j] * anp.exp(-(t_us - hebb_us[j]) / tau_us)
                hebb_us[j] = t_us
                out = out * left + fired[j] * mixing * hebb[j]
                out_us = t_us
                if not is_query:
                    hebb[j] = hebb[j] + fired[j] * rate[j] * z
        left = np.exp(-(begin_us + SPAN_US - 1 - out_us) / TAU_OUT_US)
        integral = integral + out * (TAU_OUT_US * (1.0 - left))
        if is_query:
            scores = integral[: it.ways] / (SPAN_US - 1)
            if length:
                scores = scores * (length / anp.sqrt(1.0 + square))[: it.ways]
            loss = loss + (anp.log(anp.sum(anp.exp(scores))) - scores[show.label]) / len(it.queries)
    return loss


def parameters_of(net: EpisodeNetwork) -> list[Any]:
    weight = net.network._program.weight[: N_IN * N_FEATURES].reshape(N_IN, N_FEATURES).astype(np.float64)
    theta = net.theta
    return [weight, theta.mixing, theta.contrast, theta.tau_hebb_us, theta.local_rate.copy()]


@pytest.mark.parametrize("length", [0.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_gradient_equals_automatic_differentiation(seed: int, length: float) -> None:
    net, it = network(seed, length=length), episode(seed + 100)
    loss, _ = net.gradient(it)
    parameters = parameters_of(net)
    assert loss == pytest.approx(float(plain_loss(parameters, it, net.bind, length)), rel=1e-9)
    wanted = grad(plain_loss)(parameters, it, net.bind, length)
    mine = net.window.gradients.weight[: N_IN * N_FEATURES].reshape(N_IN, N_FEATURES)
    assert np.abs(wanted[0]).max() > 1e-3
    np.testing.assert_allclose(mine, wanted[0], rtol=1e-6, atol=1e-12)
    d = net.d_theta
    np.testing.assert_allclose([d.mixing, d.contrast, d.tau_hebb_us], [float(x) for x in wanted[1:4]], rtol=1e-6)
    np.testing.assert_allclose(d.local_rate, wanted[4], rtol=1e-6, atol=1e-12)


def test_gradients_of_episodes_add_up_and_are_forgotten() -> None:
    net, it, other = network(1), episode(7), episode(8)
    net.gradient(it)
    one = net.window.gradients.weight.copy()
    net.gradient(other)
    both = net.window.gradients.weight.copy()
    net.forget_gradient()
    assert not net.window.gradients.weight.any()
    net.gradient(other)
    np.testing.assert_allclose(one + net.window.gradients.weight, both, rtol=1e-9, atol=1e-15)


def test_running_is_what_the_gradient_saw_and_writes_no_query() -> None:
    net, it = network(2), episode(9)
    loss, _ = net.gradient(it)
    scores = net.run(it)
    again = np.mean([np.log(np.exp(s).sum()) - s[q.label] for s, q in zip(scores, it.queries, strict=True)])
    assert again == pytest.approx(loss, rel=1e-12)
    # a query leaves no trace: asked twice, a late one fades only by tau_hebb
    net = network(2, length=0.0)
    twice = net.run(it._replace(queries=[*it.queries, it.queries[0]]))
    fade = np.exp(-len(it.queries) * SPAN_US / net.theta.tau_hebb_us)
    np.testing.assert_allclose(twice[-1], twice[0] * fade, rtol=1e-9)


def test_second_order_term_is_the_derivative_of_the_rule_s_gradient_along_the_weights() -> None:
    """Mixed derivative: v d(dL_train / dtheta) / dw, here by differentiating the plain loss twice along w."""
    net, training, validation = network(3), episode(11), episode(12)
    learner = MetaLearner(net, second_rate=0.1)
    mine = learner.theta_gradient(validation, training)
    parameters = parameters_of(net)
    of_validation = grad(plain_loss)(parameters, validation, net.bind)
    along = of_validation[0]
    step = min(1e-3 / np.linalg.norm(along), 1e-3)

    def flat(parts: Any) -> NDArray[np.float64]:
        return np.array([parts[1] * RULE.mixing, parts[2], parts[3] * RULE.tau_hebb_us, *parts[4]])

    sides = [
        flat(grad(plain_loss)([parameters[0] + sign * step * along, *parameters[1:]], training, net.bind))
        for sign in (1.0, -1.0)
    ]
    wanted = flat(of_validation) - 0.1 * np.clip((sides[0] - sides[1]) / (2 * step), -1.0, 1.0)
    np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-9)
    first = MetaLearner(net, second_order=False).theta_gradient(validation, training)
    np.testing.assert_allclose(first, flat(of_validation), rtol=1e-6, atol=1e-12)
    # weights are back where they were
    np.testing.assert_array_equal(parameters_of(net)[0], parameters[0])


def test_meta_learning_learns_and_a_snapshot_goes_on_with_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    lessons = [episode(int(k)) for k in rng.integers(0, 1000, 24)]

    def learn(learner: MetaLearner, some: list[Episode]) -> list[float]:
        return [learner.learn(some[k : k + 2], some[k + 2]).loss for k in range(0, len(some), 3)]

    straight = MetaLearner(network(4, "float32"), weight_rate=0.01, theta_rate=0.02)
    losses = learn(straight, lessons)
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    half = MetaLearner(network(4, "float32"), weight_rate=0.01, theta_rate=0.02)
    learn(half, lessons[:12])
    other = MetaLearner(network(9, "float32"), weight_rate=0.01, theta_rate=0.02)
    other.restore(half.snapshot())
    learn(other, lessons[12:])
    for name, array in straight.snapshot().items():
        np.testing.assert_array_equal(array, other.snapshot()[name], err_msg=name)


def test_what_it_cannot_teach_is_refused() -> None:
    graph = network(1).network.graph
    with pytest.raises(ConfigError, match="one number each"):
        EpisodeNetwork(graph, rule=RULE._replace(sliding_threshold=np.zeros(N_CLASSES)))
    with pytest.raises(ConfigError, match="got 0 projections"):
        EpisodeNetwork(graph._replace(projections=graph.projections[:1]))


def test_a_class_that_was_shown_more_often_does_not_answer_louder() -> None:
    it = episode(11)
    often = it._replace(supports=[*it.supports, *[it.supports[0]] * 20])
    for length in (0.0, 3.0):
        net = network(3, length=length)
        net.theta = net.theta._replace(contrast=0.0, tau_hebb_us=1e9)
        once, more = (np.array(net.run(each))[:, it.supports[0].label] for each in (it, often))
        grown = more / once
        assert (grown > 10).all() if length == 0 else ((grown > 0.8) & (grown < 1.5)).all()
