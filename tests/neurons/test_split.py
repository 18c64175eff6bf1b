"""Networks as operators over real processes, and what it takes that a network may be cut in two."""

from pathlib import Path

import numpy as np
import pytest

from neurons.adaptive_lif import AdaptiveLIFUnits
from neurons.convolution import Convolution
from neurons.current_lif import CurrentLIFUnits
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.inhibition import Inhibition
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.quantised_dense import quantised
from stream.packet import SPIKE_DTYPE, Reset
from stream.pipeline import EdgeSpec, OperatorSpec, Pipeline, SourceSpec
from stream.record import read_recording
from stream.run import run

SIDE = 16
NETWORKS = ("whole", "first", "second", "third", "restless", "last")


def graphs() -> dict[str, Graph]:
    """Make a network, the three that it is cut into, and two that no cut of one network could be."""
    rng = np.random.default_rng(0)
    maps = Population("maps", LIFUnits(tau_mem_us=8000.0), (7, 7, 4))
    hidden = Population("hidden", AdaptiveLIFUnits(tau_mem_us=9000.0, reset="hard"), (20,))
    out = Population("out", CurrentLIFUnits(tau_mem_us=9000.0, tau_syn_us=2000.0, v_threshold=0.4), (8,))
    to_maps = Projection(INPUT, "maps", Convolution(rng.normal(0.1, 0.4, (4, 4, 2, 4)), (2, 2)))
    to_hidden = Projection("maps", "hidden", quantised(Dense(rng.normal(0.05, 0.3, (196, 20)))))
    within = Projection("hidden", "hidden", Inhibition(0.1), 300)
    to_out = Projection("hidden", "out", Dense(rng.normal(0.2, 0.5, (20, 8))))
    back = Projection("out", "out", Inhibition(0.2), 50)
    sensor = (SIDE, SIDE, 2)
    return {
        "whole": Graph(sensor, [maps, hidden, out], [to_maps, to_hidden, within, to_out, back]),
        "first": Graph(sensor, [maps], [to_maps]),
        "second": Graph((196,), [hidden], [to_hidden._replace(source=INPUT), within]),
        "third": Graph((20,), [out], [to_out._replace(source=INPUT), back]),
        # fires by itself, and several populations behind the cut
        "restless": Graph(sensor, [maps._replace(model=LIFUnits(8000.0, v_leak=1.2, refractory_us=900))], [to_maps]),
        "last": Graph(
            (196,),
            [hidden, out],
            [
                to_hidden._replace(source=INPUT),
                within,
                to_out,
                back,
                Projection("out", "hidden", Dense(np.full((8, 20), 0.1)), 7),
            ],
        ),
    }


def outcome(folder: Path, *, processes: bool, packet_items: int) -> dict[str, bytes]:
    out = folder / f"{processes}_{packet_items}"
    out.mkdir()
    ways = [
        ("camera.events", "whole.events"),
        ("camera.events", "first.events"),
        ("first.maps", "second.spikes"),
        ("second.hidden", "third.spikes"),
        ("camera.events", "restless.events"),
        ("restless.maps", "last.spikes"),
    ]
    recorded = [f"{name}.{p.name}" for name, graph in graphs().items() for p in graph.populations]
    ports = {name.replace(".", "_"): "spikes" for name in recorded}
    camera = {"width": SIDE, "height": SIDE, "duration_us": 200_000, "seed": 3, "scene": "shapes"}
    pipeline = Pipeline(
        name="split",
        source=[
            SourceSpec(
                name="camera", kind="sources.simulated.SimulatedCamera", params=camera, packet_items=packet_items
            )
        ],
        operator=[
            *(
                OperatorSpec(
                    name=name, kind="neurons.network.Network", params={"path": str(folder / f"{name}.safetensors")}
                )
                for name in NETWORKS
            ),
            OperatorSpec(
                name="recorder", kind="stream.record.Recorder", params={"path": str(out / "r.hbs"), "ports": ports}
            ),
        ],
        edge=[
            *(EdgeSpec(source=source, target=target) for source, target in ways),
            *(EdgeSpec(source=name, target=f"recorder.{name.replace('.', '_')}") for name in recorded),
        ],
    )
    result = run(pipeline, processes=processes)
    assert result.reason == ""
    assert all(ledger.is_balanced for ledger in result.ledgers)
    recording = read_recording(out / "r.hbs")
    assert all(len(recording.items(port)) > 100 for port in recording.ports)
    return {port: recording.items(port).tobytes() for port in recording.ports}


def test_one_process_or_seven_the_bits_are_the_same(tmp_path: Path) -> None:
    for name, graph in graphs().items():
        save_graph(tmp_path / f"{name}.safetensors", graph)
    one = outcome(tmp_path, processes=False, packet_items=4096)
    many = outcome(tmp_path, processes=True, packet_items=97)
    assert [port for port in one if one[port] != many[port]] == []
    # and this network may be cut: see the notes of Network
    for whole, part in (("maps", "first"), ("hidden", "second"), ("out", "third")):
        assert one[f"whole_{whole}"] == one[f"{part}_{whole}"]


def run_from_0(graph: Graph, items: list[tuple[int, int]]) -> dict[str, list[object]]:
    network = Network.of(graph)
    network.on_mark("spikes", Reset(0), lambda port, message: None)
    return {name: spikes.tolist() for name, spikes in network.run(np.array(items, SPIKE_DTYPE), 1000).items()}


def test_why_not_behind_what_fires_by_itself() -> None:
    """At 100 us a crossing before the cut meets a delayed spike behind it. One network knows which was scheduled first.

    Two do not: to the second the first one's spike is an input event like any other, after what is due inside.
    """
    timer = Population("timer", LIFUnits(1000.0, v_leak=1 / (1 - np.exp(-0.0995)), refractory_us=10**6), (1,))
    behind = Population("behind", LIFUnits(1e15), (1,))
    ways = [
        Projection(INPUT, "behind", Dense(np.array([[0.6]]))),
        Projection(INPUT, "behind", Dense(np.array([[-0.4]])), 60),
        Projection("timer", "behind", Dense(np.array([[0.6]]))),
    ]
    assert run_from_0(Graph((1,), [timer, behind], ways), [(40, 0)]) == {"timer": [(100, 0)], "behind": [(100, 0)]}
    # 0.6 + 0.6, then -0.4; and cut: 0.6 - 0.4, then + 0.6
    assert run_from_0(Graph((1,), [timer], []), [(40, 0)]) == {"timer": [(100, 0)]}
    one, late, other = (q.topology.weight for q in ways)
    nothing = np.zeros((1, 1))
    cut = [Projection(INPUT, "behind", Dense(np.vstack([one, other])))]
    cut.append(Projection(INPUT, "behind", Dense(np.vstack([late, nothing])), 60))
    assert run_from_0(Graph((2,), [behind], cut), [(40, 0), (100, 1)]) == {"behind": []}


@pytest.mark.parametrize("is_cut", [False, True])
def test_why_not_with_more_than_one_population_behind(is_cut: bool) -> None:
    """One event makes two units fire. In one network both reach C before B does; behind a cut spikes are events."""
    a = Population("a", LIFUnits(), (2,))
    b = Population("b", LIFUnits(v_threshold=0.5), (1,))
    c = Population("c", LIFUnits(), (1,))
    to_a = Projection(INPUT, "a", Dense(np.array([[2.0, 2.0]])))
    behind = [
        Projection("a", "b", Dense(np.array([[1.0], [0.0]]))),
        Projection("a", "c", Dense(np.array([[0.6], [0.6]]))),
        Projection("b", "c", Dense(np.array([[-1.0]]))),
    ]
    spikes = np.array([(5, 0)], SPIKE_DTYPE)
    if not is_cut:
        got = Network.of(Graph((1,), [a, b, c], [to_a, *behind])).run(spikes)["c"]
        assert got.tolist() == [(5, 0)]  # 0.6 + 0.6, then -1
        return
    between = Network.of(Graph((1,), [a], [to_a])).run(spikes)["a"]
    assert between.tolist() == [(5, 0), (5, 1)]
    parts = [q._replace(source=INPUT) if q.source == "a" else q for q in behind]
    assert Network.of(Graph((2,), [b, c], parts)).run(between)["c"].tolist() == []  # 0.6 - 1, then + 0.6
