"""A readout taught by shows, beside the cores: every integer against a slow reference, and the float rule."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.binding import Binder, BindingRule
from chip.compiler import compile_network
from chip.network import INPUT_LAYER
from chip.profile import load_profile
from chip.quantise import quantise_graph
from neurons.activation import ActivationUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.inhibition import Inhibition
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from plasticity.hebbian import Hebbian
from plasticity.meta_episode import EpisodeNetwork
from stream.errors import ConfigError
from stream.packet import SPIKE_DTYPE


def load(name):
    spec = importlib.util.spec_from_file_location(f"chip_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


whole, compiled = load("whole"), load("test_compile")
PROFILE = load_profile("tianjic-2019")
N, FEATURES, CLASSES, PHASE_US = 24, 12, 4, 500
PATTERNS = np.arange(N) // (N // CLASSES) == np.arange(CLASSES)[:, None]


def graph(seed, detect=0.0):
    """Return features that inhibit each other, and a readout whose weights are 0; ``detect``: how well they tell."""
    rng = np.random.default_rng(seed)
    own = detect * (PATTERNS.T[:, np.arange(FEATURES) % CLASSES] - 0.4)
    return Graph(
        (N,),
        [
            Population("features", LIFUnits(tau_mem_us=8_000.0), (FEATURES,)),
            Population("scores", LeakyIntegratorUnits(tau_mem_us=30_000.0), (CLASSES,)),
        ],
        [
            Projection(INPUT, "features", Dense(rng.normal(0.25, 0.3, (N, FEATURES)) + own)),
            Projection("features", "features", Inhibition(0.1), 2 * PHASE_US),
            Projection("features", "scores", Dense(np.zeros((FEATURES, CLASSES)))),
        ],
    )


def shows(seed, n_phases=40):
    """Draw noisy shows of patterns: bool, shape (n_phases, N)."""
    rng = np.random.default_rng(seed)

    def show(label):
        return rng.random((n_phases, N)) < np.where(PATTERNS[label], 0.12, 0.01)

    return show


def spikes_of(there):
    phase, unit = np.nonzero(there)
    items = np.zeros(len(unit), SPIKE_DTYPE)
    items["t"], items["unit"] = phase * PHASE_US, unit
    return items


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(256, 256), (9, 256), (9, 3)]),
    st.floats(0.0, 2.0),
    st.sampled_from([3e3, 1e8]),
    st.sampled_from([0.02, 1.0, 300.0]),
    st.booleans(),
)
def test_every_score_equals_the_slow_reference(seed, size, contrast, tau_us, rate, is_scaled):
    quantised = quantise_graph(graph(seed), PROFILE, phase_us=PHASE_US)
    program = compile_network(quantised, compiled.small_cores(*size), placement="rows")
    rng = np.random.default_rng(seed)
    rule = BindingRule(rng.uniform(-0.2, 1.0, FEATURES) * rate, contrast, tau_us, 3.0, is_scaled)
    binder, show = Binder(program, rule), shows(seed)
    # the reference: plain integers, the network run whole with the rows that stand on the cores
    one = 65536
    fast, last = [[0] * CLASSES for _ in range(FEATURES)], [0] * FEATURES
    factors = [round(one * math.exp(-PHASE_US * 2.0**b / tau_us)) for b in range(32)]

    def left(n):
        product = one
        for b in range(32):
            if n >> b & 1:
                product = product * factors[b] >> 16
        return product

    shift, now, written, read = 0, 0, 0, 0
    rows = [[0] * CLASSES for _ in range(FEATURES)]
    at = next(k for k, link in enumerate(quantised.links) if link.target == 1)
    for number in range(7):
        label, teaches = number % CLASSES, number != 5
        there = show(label)
        links = list(quantised.links)
        links[at] = links[at]._replace(topology=Dense(np.array(rows, np.int8)))
        sent = whole.run_whole(quantised._replace(links=links), program.offsets, there)
        if not teaches:
            wanted = sent[1].sum(axis=0).tolist()
            if is_scaled:
                squares = [one * one + sum(row[j] * row[j] for row in fast) for j in range(CLASSES)]
                wanted = [(int(score) << 24) // math.isqrt(it) for score, it in zip(wanted, squares, strict=True)]
            assert binder.ask(spikes_of(there), len(there) * PHASE_US).tolist() == wanted
            now += len(there)
            continue
        binder.teach(spikes_of(there), len(there) * PHASE_US, label)
        goal = [3.0 * (j == label) - contrast for j in range(CLASSES)]
        z = [round(one * math.tanh(x)) for x in goal]
        for k in range(len(there)):
            for i in np.flatnonzero(sent[0][k]).tolist():
                read += 1
                for j in range(CLASSES):
                    decayed = fast[i][j] * left(now + k - last[i]) + 32768 >> 16
                    fast[i][j] = decayed + (round(float(rule.local_rate[i]) * one) * z[j] + 32768 >> 16)
                last[i] = now + k
        now += len(there)
        for i in range(FEATURES):
            fast[i] = [h * left(now - last[i]) + 32768 >> 16 for h in fast[i]]
            last[i] = now
        most = max(abs(h) for row in fast for h in row)
        while most + ((1 << shift) >> 1) >> shift > 127:
            shift += 1
        new = [[max(-127, min(127, h + ((1 << shift) >> 1) >> shift)) for h in row] for row in fast]
        written += sum(one_row != other for one_row, other in zip(new, rows, strict=True))
        rows = new
        assert binder.fast.tolist() == fast
        assert binder.held.tolist() == rows
    assert binder.counts["rows_written"] == written
    assert binder.counts["bytes_written"] == written * CLASSES
    assert binder.counts["spikes_read"] == read
    assert binder.counts["updates"] == read * CLASSES
    binder.forget()
    assert not binder.fast.any()
    assert not binder.ask(spikes_of(show(0)), 40 * PHASE_US).any()


def test_it_answers_as_the_float_rule_does():
    """Event by event in floats, phase by phase in integers: taught by one show of each class, asked about ten more."""
    made = graph(3, detect=0.5)
    quantised = quantise_graph(made, PROFILE, phase_us=PHASE_US)
    assert quantised.links[0].source == INPUT_LAYER
    binder = Binder(compile_network(quantised, PROFILE), BindingRule(np.ones(FEATURES), 0.4, 1e8))
    pupil = EpisodeNetwork(
        made,
        rule=Hebbian(
            local_rate=1.0,
            sliding_threshold=0.4,
            mixing=0.05,
            tau_hebb_us=1e8,
            hebb_max=np.inf,
            mixed="add",
            post="tanh",
        ),
        span_us=60_000,
    )
    show = shows(3, 100)
    pupil.begin()
    for label in range(CLASSES):
        items = spikes_of(show(label))
        binder.teach(items, 60_000, label)
        pupil.teach(items, label)
    equal = right = 0
    for number in range(40):
        items = spikes_of(show(number % CLASSES))
        mine, theirs = int(np.argmax(binder.ask(items, 60_000))), int(np.argmax(pupil.ask(items)))
        equal, right = equal + (mine == theirs), right + (mine == number % CLASSES)
    assert equal >= 38
    assert right >= 34
    taken = binder.taken()
    assert taken["bytes_written"] == taken["rows_written"] * CLASSES > 0
    assert taken["shows"] == 44
    assert taken["overflows"] == 0


def test_a_readout_that_cannot_be_taught_is_named():
    rule = BindingRule(np.ones(FEATURES), 0.4, 1e8)
    values = graph(1)
    values = values._replace(
        populations=[Population("features", ActivationUnits("tanh"), (FEATURES,)), values.populations[1]],
        projections=[values.projections[0], values.projections[2]],
    )
    program = compile_network(quantise_graph(values, PROFILE), PROFILE)
    with pytest.raises(ConfigError, match="features: sends values"):
        Binder(program, rule)
    made = graph(1)
    late = made._replace(projections=[*made.projections[:2], made.projections[2]._replace(delay_us=1000)])
    with pytest.raises(ConfigError, match="scores: reached by 1 projections, the first a Dense; wanted one"):
        Binder(compile_network(quantise_graph(late, PROFILE), PROFILE), rule)
    program = compile_network(quantise_graph(made, PROFILE), PROFILE)
    with pytest.raises(ConfigError, match="tau_hebb_us 0, wanted below"):
        Binder(program, rule._replace(tau_hebb_us=0.0))
