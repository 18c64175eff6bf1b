"""A program that was compiled from the command line runs in a pipeline of real processes, and answers as it should."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chip.program_file import load_program
from chip.run import answer_of, begin, proceed, rest
from neurons.convolution import Convolution
from neurons.dense import Dense
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.graph_file import save_graph
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from neurons.network import Network
from neurons.threshold import ThresholdUnits
from sources.folder import LabelledFolder, Part
from sources.recordings import make_recordings
from stream.packet import SPIKE_DTYPE, End, Label, Packet, Reset
from stream.record import read_recording

SIZE = 16
FRONT = """
[[operator]]
name = "front"
kind = "neurons.network.Network"
params = { path = "front.safetensors" }

[[edge]]
from = "camera.events"
to = "front.events"
"""
PIPELINE = """
name = "program"

[[source]]
name = "camera"
kind = "sources.folder.LabelledFolder"
params = {{ width = 16, height = 16, parts = [{{ path = "digits/test", teach = false }}] }}
{front}
[[operator]]
name = "chip"
kind = "chip.node.ChipNode"
params = {{ program = "net.prog" }}

[[operator]]
name = "recorder"
kind = "stream.record.Recorder"
params = {{ path = "r.hbs", ports = {{ answers = "answers", spikes = "spikes", phases = "phases" }} }}

[[edge]]
from = "{sender}"
to = "chip.{port}"

[[edge]]
from = "chip.answers"
to = "recorder.answers"

[[edge]]
from = "chip.spikes"
to = "recorder.spikes"

[[edge]]
from = "chip.phases"
to = "recorder.phases"
"""


def hebbstream(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "stream", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr


def networks(kind: str) -> tuple[Graph, Graph | None]:
    """Make the network for the chip, and one before it that runs event by event."""
    rng = np.random.default_rng(3)
    lif, scores = LIFUnits(tau_mem_us=20_000.0), Population("scores", LeakyIntegratorUnits(), (10,))
    maps = Projection(INPUT, "map", Convolution(rng.normal(0.3, 0.3, (3, 3, 2, 4)), (2, 2)))
    n = 7 * 7 * 4
    last = Projection("map", "scores", Dense(rng.normal(0, 0.1, (n, 10))))
    if kind == "folded":
        return Graph((SIZE, SIZE, 2), [Population("map", ThresholdUnits(0.6), (7, 7, 4)), scores], [maps, last]), None
    if kind == "maps":
        return Graph((SIZE, SIZE, 2), [Population("map", lif, (7, 7, 4)), scores], [maps, last]), None
    line = [Projection(INPUT, "line", Dense(rng.normal(0.05, 0.3, (n, 30))))]
    line.append(Projection("line", "scores", Dense(rng.normal(0, 0.3, (30, 10)))))
    front = Graph((SIZE, SIZE, 2), [Population("map", lif, (7, 7, 4))], [maps])
    return Graph((n,), [Population("line", lif, (30,)), scores], line), front


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "digits"
    return make_recordings(folder, width=SIZE, height=SIZE, train_per_class=1, test_per_class=1, seed=3)


@pytest.mark.parametrize("kind", ["maps", "folded", "behind another network"])
def test_a_compiled_program_answers_in_a_pipeline(digits: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "digits").symlink_to(digits)
    graph, front = networks(kind)
    save_graph(tmp_path / "net.safetensors", graph)
    options = [] if front else ["--calibrate", "digits/train"]
    options += ["--fold"] if kind == "folded" else []
    hebbstream(tmp_path, "chip", "compile", "net.safetensors", "-o", "net.prog", *options)
    sender, port = ("front.map", "spikes") if front else ("camera.events", "events")
    if front:
        save_graph(tmp_path / "front.safetensors", front)
    text = PIPELINE.format(front=FRONT if front else "", sender=sender, port=port)
    (tmp_path / "pipeline.toml").write_text(text)
    hebbstream(tmp_path, "check", "pipeline.toml")
    hebbstream(tmp_path, "run", "pipeline.toml")
    recording = read_recording(tmp_path / "r.hbs")
    answers = recording.items("answers")
    assert len(answers) == 10

    # the program by itself, asked about the same messages
    program = load_program(tmp_path / "net.prog").program
    running = begin(program, 0)
    before = Network.of(front) if front else None
    source = LabelledFolder(width=SIZE, height=SIZE, parts=[Part(path=str(digits / "test"), teach=False)])
    wanted, n_spikes = [], 0

    def take(message: object) -> None:
        nonlocal n_spikes
        if isinstance(message, Packet):
            spikes = np.zeros(len(message.items), SPIKE_DTYPE)
            spikes["t"] = message.items["t"]
            if before is None:
                place = message.items["y"].astype(int) * SIZE + message.items["x"]
                spikes["unit"] = place * 2 + message.items["p"]
            else:
                spikes["unit"] = message.items["unit"]
            n_spikes += len(proceed(running, spikes, message.end_us - 1, True).spikes)
        elif isinstance(message, Label | Reset):
            n_spikes += len(proceed(running, np.zeros(0, SPIKE_DTYPE), message.t_us, True).spikes)
            if isinstance(message, Label):
                wanted.append(answer_of(running))
            else:
                rest(running, message.t_us)

    while not isinstance(message := source.poll(777), End):
        if message is None:
            continue
        if before is None:
            take(message)
        elif isinstance(message, Packet):
            before.on_packet("events", message, lambda port, it: take(it) if port == "map" else None)
        else:
            before.on_mark("events", message, lambda port, it: take(it) if port == "map" else None)
    assert answers["answer"].tolist() == wanted
    assert len(set(wanted)) > 1
    assert len(recording.items("spikes")) == n_spikes > 100
    assert recording.items("phases")["synaptic_ops"].sum() > 0
