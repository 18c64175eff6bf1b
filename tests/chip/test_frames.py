"""A semi-folded program in stream time: what the unfolded one says, wherever packets are cut, through any silence."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.compiler import compile_network
from chip.frames import _time_of
from chip.network import Layer, Link
from chip.profile import load_profile
from chip.run import answer_of, begin, end_us, late_us, lines_of, measure, proceed, rest, scores_of
from chip.soma import FIRE_MEMBRANE_AFTER_LEAK, LEAK_PROPORTIONAL, RESET_NONE, Soma
from chip.trade import trade_of
from neurons.dense import Dense
from neurons.graph import n_units
from stream.errors import CapacityError, ConfigError
from stream.packet import SPIKE_DTYPE


def load(name):
    spec = importlib.util.spec_from_file_location(f"chip_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


folding, compiled = load("test_fold"), load("test_compile")
PROFILE = load_profile("tianjic-2019")
FRAME_US = 700
LEAKY = Soma(
    v_threshold=2**27 - 1,
    floor=-(2**27),
    reset_mode=RESET_NONE,
    leak_mode=LEAK_PROPORTIONAL,
    alpha=230,
    fire_type=FIRE_MEMBRANE_AFTER_LEAK,
)


def with_readout(seed, *, spiking=False):
    """Draw maps and a line, and let a leaky readout follow, of spikes or values; ``spiking``: no values at all."""
    rng = np.random.default_rng(seed)
    network = folding.random_maps(seed)
    last = len(network.layers) - 1
    layers = list(network.layers)
    for k in range(len(layers)) if spiking else range(last, last + int(rng.random() < 0.6)):
        soma = Soma(v_threshold=int(rng.integers(40, 90)), reset_mode=RESET_NONE, window_length=0)
        bias = np.minimum(layers[k].bias, 30) if spiking else layers[k].bias
        layers[k] = layers[k]._replace(soma=soma, table=np.zeros(0, np.int32), value_bits=0, bias=bias)
    layers.append(Layer("scores", (4,), LEAKY, np.zeros(4, np.int32)))
    n = n_units(network.layers[last].shape)
    links = [*network.links, Link(last, last + 1, Dense(compiled.int8(rng, n, 4)))]
    return network._replace(layers=layers, links=links, phase_us=FRAME_US)


def stream(network, rng, n_frames=6, begin_us=1400):
    n = n_units(network.inputs)
    busy = rng.random((n_frames, n)) < rng.choice([0.05, 0.4])
    busy[n_frames // 2] = False
    frame, unit = np.nonzero(busy)
    items = np.zeros(len(unit), SPIKE_DTYPE)
    items["t"] = begin_us + frame * FRAME_US + rng.integers(0, FRAME_US, len(unit))
    items["unit"] = unit
    return items[np.argsort(items["t"], kind="stable")]


def by_frame(running, name, spikes, begin_us):
    """Sort a layer's spikes into the frames that caused them: sets of (frame, unit)."""
    lines = lines_of(running, "watched")[name]
    mine = spikes[(spikes["unit"] >= lines.start) & (spikes["unit"] < lines.stop)]
    units = mine["unit"].astype(int) - lines.start
    if running.plan is None:
        depth = [layer.name for layer in running.program.network.layers].index(name) + 1
        frames = (mine["t"] - begin_us) // FRAME_US - depth
    else:
        plan = running.plan
        rows = next(it for it in plan.watched if it.name == name).rows
        ends = {int(_time_of(plan, begin_us, np.int64(phase))): phase for phase in range(60 * plan.period)}
        frames = (np.array([ends[t] for t in mine["t"].tolist()], int) - rows.first) // plan.period
    return set(zip(frames.tolist(), units.tolist(), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([(256, 256), (24, 20)]), st.booleans())
def test_spikes_and_scores_of_every_frame_are_those_unfolded(seed, size, spiking):
    network = with_readout(seed, spiking=spiking)
    rng = np.random.default_rng(seed)
    profile = compiled.small_cores(*size)
    try:
        made = compile_network(network, profile, placement="rows", folded=True)
        plain = compile_network(network, PROFILE)
    except CapacityError as error:
        assert "does not fit" in str(error)  # noqa: PT017 - some programs fit, and go on below
        return
    assert made.whole is network
    begin_us, items = 1400, stream(network, rng)
    folded, unfolded = begin(made, begin_us), begin(plain, begin_us)
    depth = len(network.layers)
    spikes = proceed(folded, items, end_us(folded, begin_us, begin_us + 6 * FRAME_US - 1), True).spikes
    wanted = proceed(unfolded, items, begin_us + (5 + depth) * FRAME_US, True).spikes
    assert np.all(np.diff(spikes["t"]) >= 0)
    assert folded.frames is not None
    assert lines_of(folded, "outputs") == lines_of(unfolded, "outputs")
    assert lines_of(folded, "watched") == lines_of(unfolded, "watched")
    assert not spiking or lines_of(folded, "watched")
    for name in lines_of(folded, "watched"):
        # what follows the last frame may have come out already
        found = {it for it in by_frame(folded, name, spikes, begin_us) if it[0] < 6}
        assert found == {it for it in by_frame(unfolded, name, wanted, begin_us) if 0 <= it[0] < 6}
    # before the first frame shows, what is before the readout says what it says of nothing
    quiet = begin(plain, 0)
    proceed(quiet, items[:0], (depth - 1) * FRAME_US, True)
    if not np.any(scores_of(quiet)):
        assert np.array_equal(scores_of(folded), scores_of(unfolded))
        assert answer_of(folded) == answer_of(unfolded)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any))
def test_where_the_stream_is_cut_does_not_show(seed, sizes):
    network = with_readout(seed)
    made = compile_network(network, PROFILE, folded=True)
    items = stream(network, np.random.default_rng(seed))
    whole, parts = begin(made, 1400), begin(made, 1400)
    until_us = 1400 + 40 * FRAME_US + 300
    wanted = proceed(whole, items, until_us, True)
    pieces, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(items):
            break
        some = items[at : at + size]
        pieces.append(proceed(parts, some, int(some["t"][-1]) if size else 0, True))
        at += size
    pieces += [proceed(parts, items[:0], t_us, True) for t_us in (until_us - 13 * FRAME_US - 5, until_us)]
    assert np.array_equal(wanted.spikes, np.concatenate([it.spikes for it in pieces]))
    assert np.array_equal(wanted.rows, np.concatenate([it.rows for it in pieces]))
    for one, other in zip(whole.frames, parts.frames, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(whole.state.totals, parts.state.totals)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 200))
def test_a_silence_in_one_call_equals_frame_by_frame(seed, n):
    network = with_readout(seed)
    made = compile_network(network, PROFILE, folded=True)
    items = stream(network, np.random.default_rng(seed), begin_us=0)
    one, other = begin(made, 0), begin(made, 0)
    late = items.copy()
    late["t"] += (n + 20) * FRAME_US
    proceed(one, np.concatenate([items, late]), (n + 30) * FRAME_US, True)
    proceed(other, items, 6 * FRAME_US, True)
    for frame in range(6, n + 20):
        proceed(other, items[:0], (frame + 1) * FRAME_US - 1, True)
    proceed(other, late, (n + 30) * FRAME_US, True)
    assert np.array_equal(scores_of(one), scores_of(other))
    for name in ("phases", "packets", "hops", "synaptic_ops", "spikes_out"):
        assert one.state.totals[name] == other.state.totals[name], name
    rest(one, 5000)
    assert not scores_of(one).any()
    assert answer_of(one) == -1


def test_a_silent_program_costs_nothing():
    network = with_readout(3, spiking=True)
    made = compile_network(network, PROFILE, folded=True)
    running = begin(made, 0)
    proceed(running, stream(network, np.random.default_rng(3), begin_us=0), 10**7, True)
    before = running.state.totals["synaptic_ops"][0]
    assert before > 0
    proceed(running, np.zeros(0, SPIKE_DTYPE), 10**12, True)  # eleven days; frame by frame it would take hours
    assert running.state.totals["synaptic_ops"][0] == before
    assert running.state.clock["phase"][0] > 10**9


def test_measured_alike_and_traded():
    network = with_readout(7)
    rng = np.random.default_rng(7)
    frames = [rng.random((5, n_units(network.inputs))) < 0.3 for _ in range(4)]
    made = compile_network(network, PROFILE, folded=True)
    measured = measure(made, frames, "noise")
    assert measured.phases > 4 * 5 * made.folded.period
    trade = trade_of(made, measured, frames)
    assert trade.semi_folded.per_frame["packets"] == measured.totals["packets"] / 20
    plain = compile_network(network, PROFILE)
    other = trade_of(plain, measure(plain, frames, "noise"), frames)
    assert other.unfolded == trade.unfolded
    assert other.semi_folded == trade.semi_folded
    assert trade.unfolded.phases_per_frame == 1
    assert trade.semi_folded.phases_per_frame == made.folded.period
    assert trade.unfolded.most_frames_per_s > trade.semi_folded.most_frames_per_s
    assert late_us(made) > FRAME_US


def test_what_does_not_go_is_said():
    network = with_readout(5)
    made = compile_network(network, PROFILE, folded=True)
    with pytest.raises(CapacityError, match=r"a frame of 20 us: semi-folded it takes \d phases, tianjic-2019 needs 17"):
        compile_network(network._replace(phase_us=20), PROFILE, folded=True)
    with pytest.raises(ConfigError, match="input: brings values"):
        compile_network(network._replace(input_values=True), PROFILE, folded=True)
    running = begin(made, 0)
    wrong = np.array([(5, n_units(network.inputs))], SPIKE_DTYPE)
    with pytest.raises(CapacityError, match=r"frame 0 since the last reset: a spike for input line \d+ at 5 us"):
        proceed(running, wrong, 5, True)
