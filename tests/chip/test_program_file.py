"""Programs on disk: the same program again; damaged and hostile files are refused."""

import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from chip.compiler import compile_network
from chip.observe import in_phases, observe
from chip.profile import load_profile
from chip.program_file import KEY, Expected, load_program, save_program
from chip.quantise import quantise_graph
from chip.run import measure, poisson
from neurons.activation import ActivationUnits
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.inhibition import Inhibition
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.one_to_one import OneToOne
from neurons.pooling import Pooling
from neurons.sparse import sparse_of
from stream.errors import HebbstreamError
from stream.packet import SPIKE_DTYPE

PROFILE = load_profile("tianjic-2019")


def every_kind():
    """Return a network with every topology, artificial units and a delay."""
    rng = np.random.default_rng(0)
    return Graph(
        (6, 6, 2),
        [
            Population("map", LIFUnits(), (4, 4, 3)),
            Population("pooled", LIFUnits(v_threshold=0.4), (2, 2, 3)),
            Population("values", ActivationUnits("sigmoid", 0.1), (5,)),
            Population("line", LIFUnits(refractory_us=2000, reset="hard"), (5,)),
            Population("scores", LeakyIntegratorUnits(), (3,)),
        ],
        [
            Projection(INPUT, "map", Convolution(rng.normal(0.2, 0.3, (3, 3, 2, 3)))),
            Projection("map", "pooled", Pooling((2, 2), (2, 2), (0, 0), 0.25)),
            Projection("pooled", "values", Dense(rng.normal(0, 0.5, (12, 5)))),
            Projection("values", "line", OneToOne(0.7)),
            Projection("line", "line", Inhibition(0.2), 1000),
            Projection("line", "scores", Dense(rng.normal(0, 0.5, (5, 3)))),
            Projection("map", "scores", sparse_of(rng.normal(0, 0.5, (48, 3)) * (rng.random((48, 3)) < 0.2))),
        ],
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "net.prog"
    there = poisson(72, 1000, 60.0, 60, 2)
    quantised = quantise_graph(every_kind(), PROFILE, observed=observe(every_kind(), there, 1000))
    program = compile_network(quantised, PROFILE, seed=5)
    measured = measure(program, there, "noise")
    save_program(path, program, measured, Expected(0.5, None, None))
    return path, program, measured, there


def test_a_program_is_the_same_after_loading(saved):
    path, program, measured, there = saved
    loaded = load_program(path)
    assert loaded.expected == (0.5, None, None)
    for one, other in zip(program.grid, loaded.program.grid, strict=True):
        assert np.array_equal(one, other)
    assert loaded.program.positions == program.positions
    again = measure(loaded.program, there, "noise")
    for name in measured._fields:
        assert np.array_equal(getattr(measured, name), getattr(again, name)), name
        assert np.array_equal(getattr(measured, name), getattr(loaded.measured, name)), name
    assert measured.totals["spikes_out"] > 100


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_harmless(saved, tmp_path_factory, data):
    content = bytearray(saved[0].read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) - 1, len(content) // 2, 9]))]
    path = tmp_path_factory.mktemp("bad") / "bad.prog"
    path.write_bytes(bytes(content))
    try:
        load_program(path)
    except HebbstreamError as error:
        assert "bad.prog" in str(error) or len(str(error)) > 20  # noqa: PT017 - an error is one of two good ends


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "Invalid enum value 2"),
        ({"phase_us": 0}, "phases of 0 us"),
        ({"inputs": [6, 6, 3]}, "link input -> map"),
        ({"inputs": [2**20, 2**20, 2]}, "wanted \\(n,\\) or"),
        ({"links.0.source": 7}, "link 0 from 7"),
        ({"links.0.topology": "Magic"}, "link.0 is a Magic"),
        ({"links.3.values": {"weight": 300}}, "weights that are not int8"),
        ({"layers.0.soma.refractory_phases": 99}, "refractory phases 99"),
        ({"layers.1.name": "map"}, "each with a name of its own"),
        ({"profile.grid_width.value": 2, "profile.grid_height.value": 1}, "does not fit"),
        ({"measured.recordings": 3}, "another version of the compiler"),
        ({"surprise": 1}, "unknown field"),
    ],
)
def test_what_a_hostile_file_claims_is_checked(saved, tmp_path, change, message):
    with safetensors.safe_open(saved[0], "np") as file:
        head = json.loads(file.metadata()[KEY])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    for place, value in change.items():
        at, *words = (int(word) if word.isdigit() else word for word in place.split("."))
        item = head
        for word in words:
            item, at = item[at], word
        item[at] = value
    path = tmp_path / "hostile.prog"
    path.write_bytes(safetensors.numpy.save(arrays, {KEY: json.dumps(head)}))
    with pytest.raises(HebbstreamError, match=message):
        load_program(path)


def test_recordings_are_cut_from_their_first_item():
    items = np.array([(5_900, 1), (6_000, 0), (6_899, 1), (8_000, 2)], SPIKE_DTYPE)
    assert in_phases([items], 3, 1000)[0].astype(int).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
