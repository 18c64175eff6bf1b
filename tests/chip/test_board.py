"""A board split over regions against the same board whole: every spike, row, total, potential and score."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from chip.board import Board, regions_of
from chip.grid import COUNT_DTYPE, new_state, run_phases, spike_room
from stream.errors import CapacityError, ConfigError
from stream.packet import PHASE_DTYPE, SPIKE_DTYPE

# importlib mode puts no test folder on sys.path
_spec = importlib.util.spec_from_file_location("test_grid", Path(__file__).with_name("test_grid.py"))
test_grid = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(test_grid)

PHASE_US = 10


def whole(grid, incoming, until_us):
    """Run a program in one piece; returns spikes, rows, state."""
    state = new_state(grid, PHASE_US, PHASE_US)
    spikes = np.zeros(spike_room(grid) * 100, SPIKE_DTYPE)
    rows, progress = np.zeros(100, PHASE_DTYPE), np.zeros(3, np.int64)
    assert run_phases(grid, state, incoming, until_us, False, spikes, rows, progress) == 0
    return spikes[: progress[1]], rows[: progress[2]], state


def assert_same(grid, board, spikes, rows, incoming, until_us, states):
    wanted_spikes, wanted_rows, state = whole(grid, incoming, until_us)
    assert np.array_equal(spikes, wanted_spikes)
    assert np.array_equal(rows, wanted_rows)
    assert np.array_equal(board.score, state.score)
    for name in COUNT_DTYPE.names:
        if name != "overflow_core":
            assert board.totals[name] == state.totals[name], name
    now = int(state.clock["buffer"][0])
    bounds = regions_of(grid, len(states))
    for k, part in enumerate(states):
        neurons = slice(int(grid.neurons[bounds[k]]), int(grid.neurons[bounds[k + 1]]))
        axons = slice(int(grid.axons[bounds[k]]), int(grid.axons[bounds[k + 1]]))
        assert np.array_equal(part.soma.v[neurons], state.soma.v[neurons])
        assert np.array_equal(part.axon[now, axons], state.axon[now, axons])
        cores = slice(int(bounds[k]), int(bounds[k + 1]))
        assert np.array_equal(part.n_terms[now, cores], state.n_terms[now, cores])
        for core in range(int(bounds[k]), int(bounds[k + 1])):
            first, n = int(grid.axons[core]), int(state.n_terms[now, core])
            if grid.cores["axon_mode"][core] == 0:  # spikes: in order of arrival
                assert np.array_equal(part.active[now, first : first + n], state.active[now, first : first + n])


def input_of(phases):
    """Spikes of the input lines of each phase."""
    spikes = [
        (PHASE_US * k + min(j, PHASE_US - 1), unit) for k, units in enumerate(phases) for j, unit in enumerate(units)
    ]
    return np.array(spikes, SPIKE_DTYPE)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    test_grid.programs(),
    st.lists(st.lists(st.integers(0, 5), max_size=9) | st.just([]), min_size=1, max_size=14),
    st.integers(2, 7),
    st.integers(1, 14),
)
def test_any_split_is_the_whole(program, phases, n_regions, cut):
    grid = program.grid
    assume(n_regions <= len(grid.cores))
    try:
        board = Board(grid, n_regions, PHASE_US, PHASE_US)
    except CapacityError:  # its sums could saturate: refused, and rightly so
        assume(False)
    incoming, until_us = input_of(phases), PHASE_US * (len(phases) + 3)
    at = PHASE_US * min(cut, len(phases))  # in two calls
    first = int(np.searchsorted(incoming["t"], at))
    parts = [board.run(incoming[:first], at), board.run(incoming[first:], until_us)]
    spikes, rows = (np.concatenate(both) for both in zip(*parts, strict=True))
    assert_same(grid, board, spikes, rows, incoming, until_us, [region.state() for region in board.regions])


def test_sums_whose_order_could_matter_are_refused():
    """Two cores of two regions send the widest values there are to one axon."""
    from chip.core import ROUTE_DTYPE, TO_CORE

    def sender(dx, bits):
        core = test_grid.one_core(test_grid.Soma(fire_type=0), [[1]])
        return core._replace(routes=np.array([(0, dx, 0, 0, TO_CORE, 0)], ROUTE_DTYPE), value_bits=bits)

    for bits, refused in ((32, True), (28, False)):
        adder = test_grid.one_core(test_grid.Soma(), [[1]], axon_mode=test_grid.AXON_VALUES)
        inputs = np.array([(0, 0, 0), (1, 1, 0)], test_grid.INPUT_DTYPE)
        cores, places = [sender(2, bits), sender(1, bits), adder], [(0, 0), (1, 0), (2, 0)]
        grid = test_grid.assemble(cores, places, inputs, 2, 0, test_grid.PROFILE)
        if refused:
            with pytest.raises(CapacityError, match="could saturate axon 0 of core 2"):
                regions_of(grid, 3)
        else:
            assert regions_of(grid, 3).tolist() == [0, 1, 2, 3]


def test_more_regions_than_cores_are_refused():
    grid = test_grid.alone(test_grid.one_core(test_grid.Soma(), [[1]]))
    with pytest.raises(ConfigError, match="wanted 1 to 1"):
        regions_of(grid, 2)
