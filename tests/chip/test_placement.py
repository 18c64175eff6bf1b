"""Where cores stand: less traffic than by chance or row by row, the same again with the same seed; lines of packets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.compiler import compile_network
from chip.core import ALONG_X, ALONG_Y, TO_CORE
from chip.mesh import PORT
from chip.placement import Way, anneal, cost_of, lines_through, place, random_places, row_major
from chip.profile import load_profile
from chip.quantise import quantise_graph
from chip.run import measure, poisson
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from stream.errors import CapacityError, ConfigError

PROFILE = load_profile("tianjic-2019")


def convolutional():
    """Return two layers of convolutions on a sensor of 24 x 24 pixels, and a readout."""
    rng = np.random.default_rng(1)
    lif = LIFUnits(tau_mem_us=20_000.0)
    return Graph(
        (24, 24, 2),
        [
            Population("edges", lif, (12, 12, 8)),
            Population("parts", lif, (6, 6, 16)),
            Population("scores", LeakyIntegratorUnits(), (10,)),
        ],
        [
            Projection(INPUT, "edges", Convolution(rng.normal(0.15, 0.25, (3, 3, 2, 8)), (2, 2), (1, 1))),
            Projection("edges", "parts", Convolution(rng.normal(0.06, 0.2, (3, 3, 8, 16)), (2, 2), (1, 1))),
            Projection("parts", "scores", Dense(rng.normal(0, 0.06, (576, 10)))),
        ],
    )


def test_a_convolutional_network_has_a_third_less_traffic_than_by_chance_or_row_by_row():
    quantised = quantise_graph(convolutional(), PROFILE)
    there = poisson(24 * 24 * 2, 1000, 30.0, 100, 1)
    hops = {}
    for kind in ("annealed", "rows", "random", "nearest"):
        program = compile_network(quantised, PROFILE, placement=kind, multicast=False)
        measured = measure(program, there, "test")
        hops[kind] = measured.totals["hops"]
        assert measured.totals["spikes_out"] > 1000
    assert hops["annealed"] < 0.7 * min(hops["rows"], hops["random"], hops["nearest"])
    # the same places again; and shared ways take fewer links still, not more
    again = compile_network(quantised, PROFILE, multicast=True)
    assert again.positions == compile_network(quantised, PROFILE, multicast=False).positions
    shared = measure(again, there, "test").totals
    assert shared["hops"] <= hops["annealed"]
    assert shared["spikes_out"] == measured.totals["spikes_out"]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 156))
def test_annealing_never_ends_above_its_start_and_is_repeatable(seed, n):
    rng = np.random.default_rng(seed)
    ways = [Way(*(int(k) for k in rng.integers(-1, n, 2)), float(rng.random())) for _ in range(3 * n)]
    ways = [way for way in ways if way.source != way.target]
    places = anneal(ways, PROFILE, n, seed=seed, sweeps=50)
    assert places == anneal(ways, PROFILE, n, seed=seed, sweeps=50)
    assert len(set(places)) == n
    assert all(0 <= x < 12 and 0 <= y < 13 for x, y in places)
    snake = [(x if y % 2 == 0 else 11 - x, y) for y in range(13) for x in range(12)][:n]
    assert cost_of(ways, places) <= min(cost_of(ways, snake), cost_of(ways, random_places(PROFILE, n, 1))) + 1e-9


def test_the_cost_is_packets_times_links():
    places = [(0, 0), (3, 2)]
    assert cost_of([Way(0, 1, 2.0)], places) == 10.0
    assert cost_of([Way(PORT, 1, 2.0), Way(1, PORT, 1.0)], places) == 18.0  # one link more, beside core (0, 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20, unique=True), st.integers(0, 7)
)
def test_lines_reach_every_core_once_and_no_other(places, most_steps):
    lines = lines_through((2, 2), list(range(len(places))), places, most_steps)
    reached = []
    for line in lines:
        x, y = places[line.target]
        assert abs(line.steps) <= most_steps
        assert (line.port == TO_CORE) == (line.steps == 0)
        for k in range(abs(line.steps) + 1):
            d = k if line.steps >= 0 else -k
            reached.append((x + d * (line.port == ALONG_X), y + d * (line.port == ALONG_Y)))
        end = reached[-1]  # it enters at the nearer end
        assert abs(x - 2) + abs(y - 2) <= abs(end[0] - 2) + abs(end[1] - 2)
    assert sorted(reached) == sorted(places)


def test_places_run_out():
    with pytest.raises(CapacityError, match="157 cores, tianjic-2019 has 156"):
        place("rows", [], PROFILE, 157, 1)
    with pytest.raises(ConfigError, match="placement 'best': wanted one of annealed"):
        place("best", [], PROFILE, 3, 1)
    assert row_major(PROFILE, 13)[-1] == (0, 1)
