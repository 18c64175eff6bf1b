"""The chip in a stream: packets cut anywhere, marks, snapshots, silence."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.compiler import compile_network
from chip.node import ChipNode
from chip.profile import load_profile
from chip.program_file import save_program
from chip.quantise import quantise_graph
from chip.run import answer_of, begin, proceed, rest, scores_of
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.threshold import ThresholdUnits
from stream.errors import CapacityError, ConfigError, FormatError, StreamError
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Deploy, Label, Packet, Reset, packet_of

PROFILE = load_profile("tianjic-2019")

WIDTH, HEIGHT = 12, 12  # 288 input lines: two axon groups


def weights(seed, n_hidden=30, scale=0.2, width=WIDTH):
    rng = np.random.default_rng(seed)
    return {
        "layer0.weight": rng.normal(0.05, scale, (width * HEIGHT * 2, n_hidden)).astype(np.float32),
        "layer0.tau_mem_us": np.array(10_000.0),
        "layer0.v_threshold": np.array(1.0),
        "layer1.weight": rng.normal(0, scale, (n_hidden, 4)).astype(np.float32),
        "layer1.tau_mem_us": np.array(20_000.0),
    }


def events_between(rng, start_us, end_us, n):
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(start_us, end_us, n))
    events["x"], events["y"] = rng.integers(0, WIDTH, n), rng.integers(0, HEIGHT, n)
    events["p"] = rng.integers(0, 2, n)
    return events


def stream(seed):
    """Make a stream of marks and runs of events, with a long silence and marks in the middle of phases."""
    rng = np.random.default_rng(seed)
    return [
        events_between(rng, 90_000, 91_000, 20),  # before the first weights
        Deploy(91_300, 1, weights(seed)),
        events_between(rng, 91_300, 100_000, 500),
        Label(100_000, 2, 91_300),
        Reset(100_450, False),
        events_between(rng, 100_450, 120_000, 900),
        Label(120_450, 3, 100_450, False),
        events_between(rng, 120_450, 120_900, 9),
        Deploy(120_910, 2, weights(seed + 1)),
        events_between(rng, 5_000_000, 5_010_000, 700),
        Label(5_010_000, 0, 5_000_000),
        Label(9_000_000_000, 1, 5_010_000),
    ]


class Collector:
    """Keeps what a node sends, packets joined."""

    def __init__(self):
        self.items = {"spikes": [], "answers": [], "phases": []}
        self.marks = {"spikes": [], "answers": [], "phases": []}
        self.reached = dict.fromkeys(self.items, -(2**63))

    def __call__(self, port, message):
        if isinstance(message, Packet):
            assert message.start_us <= message.end_us
            for item in message.items:
                assert message.start_us <= item["t"] < message.end_us
            if len(message.items):
                assert message.items["t"][0] >= self.reached[port]
                self.reached[port] = int(message.items["t"][-1])
            self.items[port] += message.items.tolist()
        else:
            self.marks[port].append((message, len(self.items[port])))


def feed(node, messages, collect, cut=None):
    """Send messages; ``cut`` yields packet sizes, 0 = an empty packet."""
    for message in messages:
        if not isinstance(message, np.ndarray):
            node.on_mark("events", message, collect)
            continue
        at = 0
        while at < len(message):
            size = len(message) if cut is None else next(cut)
            part = message[at : at + size]
            start = int(message["t"][at])
            node.on_packet("events", packet_of(part, start_us=start), collect)
            at += len(part)


def same(one, other):
    assert one.items == other.items
    assert [[(type(mark), n) for mark, n in one.marks[port]] for port in one.marks] == [
        [(type(mark), n) for mark, n in other.marks[port]] for port in other.marks
    ]


def assert_same_state(one, other):
    first, second = one.snapshot(), other.snapshot()
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name], equal_nan=True), name


def chip(**changes):
    return ChipNode(**{"width": WIDTH, "height": HEIGHT, **changes})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3), st.lists(st.integers(0, 90), min_size=1, max_size=12).filter(any))
def test_where_packets_are_cut_does_not_show(seed, sizes):
    whole, parts = chip(), chip()
    seen, seen_in_parts = Collector(), Collector()
    feed(whole, stream(seed), seen)
    feed(parts, stream(seed), seen_in_parts, itertools.cycle(sizes))
    same(seen, seen_in_parts)
    assert_same_state(whole, parts)
    assert whole.statistics() == parts.statistics()


def test_what_comes_out():
    node, seen = chip(), Collector()
    feed(node, stream(0), seen)
    answers = seen.items["answers"]
    assert [(t, start, label, teach) for t, start, label, _, teach in answers] == [
        (100_000, 91_300, 2, 1),
        (120_450, 100_450, 3, 0),
        (5_010_000, 5_000_000, 0, 1),
        (9_000_000_000, 5_010_000, 1, 1),
    ]
    assert all(0 <= answer < 4 for *_, answer, _ in answers)
    assert len(seen.items["spikes"]) > 50
    assert {unit for _, unit in seen.items["spikes"]} <= set(range(30))
    # spikes and rows stand at the ends of phases: whole milliseconds, then 450 us later
    assert {t % 1000 for t, _ in seen.items["spikes"]} <= {0, 450}
    rows = np.array(seen.items["phases"])
    assert len(rows) < 700  # silent phases have none
    counts = node.statistics()
    assert counts["phases"] > 8_900_000
    assert counts["events before the first weights"] == 20
    assert counts["deploys"] == 2
    assert counts["deploy bytes"] == 2 * (288 * 30 + 30 * 4 + 2 * 16)
    assert counts["synaptic ops"] == sum(row[8] for row in seen.items["phases"])
    # every event entered or merged, one axon spike each, except what a reset dropped or still waits
    entered = sum(row[1] + row[2] for row in seen.items["phases"])
    assert entered + counts["input spikes dropped by resets"] == 500 + 900 + 9 + 700
    for port in ("spikes", "answers", "phases"):
        assert [type(mark).__name__ for mark, _ in seen.marks[port]] == [
            "Label", "Reset", "Label", "Label", "Label",
        ]  # fmt: skip


def test_answer_is_the_largest_time_average_and_ties_go_low():
    arrays = {"layer0.weight": np.zeros((8, 3), np.float32), "layer0.tau_mem_us": np.array(1e4)}
    arrays["layer0.weight"][0] = [0.0, 1.0, 1.0]
    node, seen = ChipNode(width=2, height=2), Collector()
    node.on_mark("events", Label(0, 0, 0), seen)  # no weights
    node.on_mark("events", Deploy(0, 1, arrays), seen)
    node.on_mark("events", Label(999, 0, 0), seen)  # no phase has ended
    node.on_packet("events", packet_of(np.array([(999, 0, 0, 0)], EVENT_DTYPE)), seen)
    node.on_mark("events", Label(1000, 0, 0), seen)
    node.on_mark("events", Reset(1500), seen)
    node.on_mark("events", Label(2499, 0, 0), seen)
    assert [row[3] for row in seen.items["answers"]] == [-1, -1, 1, -1]
    assert node.state is not None
    assert not node.state.soma.v.any()


def test_two_events_of_a_line_in_one_phase_merge():
    node, seen = chip(), Collector()
    node.on_mark("events", Deploy(0, 1, weights(0)), seen)
    node.on_packet("events", packet_of(np.array([(1, 3, 4, 1), (2, 3, 4, 0), (3, 3, 4, 1)], EVENT_DTYPE)), seen)
    node.on_mark("events", Label(1000, 0, 0), seen)
    (row,) = seen.items["phases"]
    assert row[0] == 1000
    assert row[1:3] == (2, 1)


def test_the_last_phase_runs_when_the_stream_ends():
    node, seen = chip(), Collector()
    node.on_mark("events", Deploy(0, 1, weights(0)), seen)
    events = np.array([(999, 3, 4, 1)], EVENT_DTYPE)
    node.on_packet("events", packet_of(events), seen)
    assert not seen.items["phases"]  # another event may still come at 999 us
    node.on_end(seen)
    assert len(seen.items["phases"]) == 1


@pytest.mark.parametrize("at", range(12))
def test_snapshot_restore_continue(at):
    messages = stream(5)
    never_stopped, seen = chip(), Collector()
    feed(never_stopped, messages, seen)
    first, second, seen_again = chip(), chip(), Collector()
    feed(first, messages[:at], seen_again)
    half = messages[at]
    if isinstance(half, np.ndarray):
        feed(first, [half[: len(half) // 2]], seen_again)
        half = half[len(half) // 2 :]
    snapshot = first.snapshot()
    assert all(array.dtype.names is None for array in snapshot.values())
    first.on_mark("events", Label(10**10, 0, 0), Collector())  # must not reach into the snapshot
    second.restore(snapshot)
    feed(second, [half, *messages[at + 1 :]], seen_again)
    same(seen, seen_again)
    assert_same_state(never_stopped, second)
    assert never_stopped.statistics() == second.statistics()


def test_a_foreign_snapshot_leaves_the_state_alone():
    node = chip()
    feed(node, stream(1)[:5], Collector())
    before = node.snapshot()
    broken = dict(before)
    del broken["soma.v"]
    narrow = ChipNode(width=5, height=HEIGHT)
    narrow.on_mark("events", Deploy(0, 1, weights(0, width=5)), Collector())
    for foreign in (broken, before | {"soma.v": before["soma.v"][:1]}, narrow.snapshot(), {}):
        with pytest.raises(ConfigError):
            node.restore(foreign)
        after = node.snapshot()
        assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)
    with pytest.raises(ConfigError, match="phases of 1000 us, wanted 500"):
        chip(phase_us=500).restore(before)


def test_new_shapes_make_a_new_program():
    node, seen = chip(), Collector()
    feed(node, stream(0)[:3], seen)
    ops = node.statistics()["synaptic ops"]
    assert ops > 0
    node.on_mark("events", Deploy(101_000, 2, weights(1, n_hidden=300)), seen)
    assert node.statistics()["synaptic ops"] >= ops
    assert node.report()["cores used"] == 9
    with pytest.raises(ConfigError, match="layer0.weight has 120 rows, wanted 288"):
        node.on_mark("events", Deploy(102_000, 3, weights(1, width=5)), seen)
    with pytest.raises(CapacityError, match="does not fit"):
        node.on_mark("events", Deploy(102_000, 3, weights(1, n_hidden=40_000)), seen)


def test_bad_parameters_and_events_are_loud():
    with pytest.raises(ConfigError, match="needs 17 us or more"):
        chip(phase_us=16)
    with pytest.raises(ConfigError, match="wanted at least 1 x 1"):
        chip(width=0)
    with pytest.raises(StreamError, match="x=12"):
        chip().on_packet("events", packet_of(np.array([(0, 12, 0, 0)], EVENT_DTYPE)), Collector())


def test_strict_overflow_names_core_and_phase():
    arrays = {"layer0.weight": np.ones((8, 1), np.float32), "layer0.tau_mem_us": np.array(1e15)}
    node, seen = ChipNode(width=2, height=2), Collector()
    node.on_mark("events", Deploy(0, 1, arrays), seen)
    assert node.state is not None
    node.state.soma.v[0] = 2**27 - 100
    with pytest.raises(CapacityError, match=r"core 0 at \(0, 0\), layer0 0:8 to 0:1, phase 0 since the last reset"):
        node.on_packet("events", packet_of(np.array([(0, 0, 0, 0), (2000, 0, 0, 0)], EVENT_DTYPE)), seen)


def test_warm_up_leaves_no_trace():
    node = chip()
    before = node.snapshot()
    node.warm_up()
    assert all(np.array_equal(before[name], array) for name, array in node.snapshot().items())


# -- a program from a file ---------------------------------------------------------------------------------------------


def saved(folder, kind):
    """Write a program: a chain of dense layers as ``weights`` has them, maps, or a line that takes spikes."""
    rng = np.random.default_rng(4)
    shape = (9,) if kind == "spikes" else (HEIGHT, WIDTH, 1 if kind == "one polarity" else 2)
    n = int(np.prod(shape))
    hidden = (30,) if kind in ("chain", "spikes") else (10, 10, 3)
    if len(hidden) == 1:
        first = Dense(rng.normal(0.05, 0.2, (n, 30)))
    else:
        first = Convolution(rng.normal(0.3, 0.2, (3, 3, shape[2], 3)))
    model = ThresholdUnits(0.5) if kind == "folded" else LIFUnits(tau_mem_us=10_000.0)
    graph = Graph(
        shape,
        [Population("hidden", model, hidden), Population("scores", LeakyIntegratorUnits(20_000.0), (4,))],
        [
            Projection(INPUT, "hidden", first),
            Projection("hidden", "scores", Dense(rng.normal(0, 0.2, (int(np.prod(hidden)), 4)))),
        ],
    )
    program = compile_network(
        quantise_graph(graph, PROFILE, phase_us=2000), PROFILE, placement="rows", folded=kind == "folded"
    )
    save_program(folder / f"{kind}.prog", program)
    return str(folder / f"{kind}.prog"), program


def marked(program, takes="events"):
    """Make a stream without weights, and the answers of the program asked by itself."""
    rng, messages, answers = np.random.default_rng(8), [], []
    running = begin(program, 0)
    for k in range(4):
        start_us = 777 + 100_000 * k
        end_us = start_us + 41_234
        messages.append(Reset(start_us))
        events = events_between(rng, start_us, end_us, 900)
        events["x"] = 3 * k + events["x"] % 3
        spikes = np.zeros(len(events), SPIKE_DTYPE)
        spikes["t"] = events["t"]
        if takes == "spikes":
            spikes["unit"] = 2 * k + rng.integers(0, 3, len(events))
            messages.append(spikes)
        else:
            place = events["y"].astype(int) * WIDTH + events["x"]
            channels = program.whole.inputs[2]
            spikes["unit"] = place * channels + (events["p"] if channels == 2 else 0)
            messages.append(events)
        messages.append(Label(end_us, 1, start_us))
        rest(running, start_us)
        proceed(running, spikes, end_us, True)
        answers.append(answer_of(running))
    return messages, answers, scores_of(running).copy()


def feed_port(node, messages, collect):
    port = next(iter(node.inputs))
    for message in messages:
        if isinstance(message, np.ndarray):
            node.on_packet(port, packet_of(message), collect)
        else:
            node.on_mark(port, message, collect)


@pytest.mark.parametrize("kind", ["chain", "maps", "folded", "one polarity", "spikes"])
def test_a_program_from_a_file_answers_from_the_first_event_on(tmp_path, kind):
    path, program = saved(tmp_path, kind)
    node, seen = ChipNode(program=path), Collector()
    takes = "spikes" if kind == "spikes" else "events"
    assert list(node.inputs) == [takes]
    assert node.phase_us == 2000
    messages, wanted, scores = marked(program, takes)
    feed_port(node, messages[:5], seen)
    snapshot = node.snapshot()
    again, seen_again = ChipNode(program=path), Collector()
    again.restore(snapshot)
    feed_port(node, messages[5:], seen)
    feed_port(again, messages[5:], seen_again)
    assert [row[3] for row in seen.items["answers"]] == wanted
    assert np.array_equal(scores_of(node.chip), scores)
    assert len(set(wanted)) > 1
    assert [row[3] for row in seen_again.items["answers"]] == wanted[1:]
    assert_same_state(node, again)
    assert {unit for _, unit in seen.items["spikes"]} <= set(range(300))
    assert len(seen.items["spikes"]) > 20
    look = node.look("state")
    assert look["scores"].shape == (4,)
    assert np.argmax(look["scores"]) == wanted[-1]
    assert node.statistics()["cores used"] == len(program.cores)


def test_a_program_and_what_it_does_not_suit(tmp_path):
    path, _ = saved(tmp_path, "chain")
    maps, _ = saved(tmp_path, "maps")
    for changes, message in (
        ({"width": 5}, "width is 5, and .*chain.prog has 12"),
        ({"phase_us": 1000}, "phase_us is 1000, and .*chain.prog has 2000"),
        ({"profile": "tianjicx"}, "profile is tianjicx, and .*chain.prog has tianjic-2019"),
    ):
        with pytest.raises(ConfigError, match=message):
            ChipNode(program=path, **changes)
    assert ChipNode(program=path, width=WIDTH, height=HEIGHT, phase_us=2000, profile="tianjic-2019").program
    with pytest.raises(FormatError, match="not there"):
        ChipNode(program=str(tmp_path / "none.prog"))
    with pytest.raises(ConfigError, match="set both, or program"):
        ChipNode(width=3)
    node, seen = ChipNode(program=maps), Collector()
    with pytest.raises(ConfigError, match=r"layers \(288, 30\) \(30, 4\) does not suit .*maps.prog"):
        node.on_mark("events", Deploy(0, 1, weights(0)), seen)
    with pytest.raises(ConfigError, match="was taken with another program than .*maps.prog"):
        node.restore(node.snapshot() | {"program.sha256": np.zeros(32, np.uint8)})
    spikes, _ = saved(tmp_path, "spikes")
    line = ChipNode(program=spikes)
    with pytest.raises(StreamError, match=r"spike 1 of the packet is \(t=6 us, unit=9\), wanted unit < 9"):
        line.on_packet("spikes", packet_of(np.array([(5, 8), (6, 9)], SPIKE_DTYPE)), seen)


def test_weights_that_suit_a_program_are_written_into_it(tmp_path):
    """Its cores stay where they were put; answers are those of a chip that had the weights from the start."""
    path, _ = saved(tmp_path, "chain")
    node, other = ChipNode(program=path), chip(phase_us=2000)
    seen, seen_by_other = Collector(), Collector()
    places = node.program.positions
    messages = [Deploy(0, 1, weights(3)), *stream(0)[2:7]]
    feed(node, messages, seen)
    feed(other, messages, seen_by_other)
    assert node.program.positions == places
    assert seen.items["answers"] == seen_by_other.items["answers"]
    assert seen.items["spikes"] == seen_by_other.items["spikes"]
    again = ChipNode(program=path)
    again.restore(node.snapshot())
    assert_same_state(node, again)
