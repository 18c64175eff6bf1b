"""A pipeline file with two filters in it, run as a user runs it: files, processes, sockets, ledgers."""

from pathlib import Path

import numpy as np
import pytest

from sources.filter_mask import read_mask
from stream.packet import EVENT_DTYPE
from stream.pipeline import load
from stream.record import read_recording
from stream.run import run

PIPELINE = """
name = "filtered"

[[source]]
name = "camera"
kind = "sources.simulated.SimulatedCamera"
packet_items = {packet_items}
[source.params]
width = 24
height = 16
duration_us = 300_000
seed = 5
scene = "shapes"
hot_pixels = 3
hot_hz = 2000.0

[[operator]]
name = "quiet"
kind = "sources.filter_hot_pixel.HotPixel"
params = {{ width = 24, height = 16, max_hz = 500, window_us = 50_000, save = "{out}/hot.txt" }}

[[operator]]
name = "upright"
kind = "sources.filter_orientation.Orientation"
params = {{ width = 24, height = 16, turn = 90 }}

[[operator]]
name = "recorder"
kind = "stream.record.Recorder"
params = {{ path = "{out}/r.hbs", ports = {{ raw = "events", out = "events" }} }}

[[edge]]
from = "camera.events"
to = "quiet.events"

[[edge]]
from = "camera.events"
to = "recorder.raw"

[[edge]]
from = "quiet.events"
to = "upright.events"

[[edge]]
from = "upright.events"
to = "recorder.out"
"""


def outcome(out: Path, *, packet_items: int, processes: bool) -> tuple[np.ndarray, np.ndarray, str]:
    out.mkdir()
    path = out / "filtered.toml"
    path.write_text(PIPELINE.format(out=out, packet_items=packet_items))
    result = run(load(path), processes=processes)
    assert result.reason == ""
    assert all(ledger.is_balanced for ledger in result.ledgers)
    recording = read_recording(out / "r.hbs")
    raw, filtered = recording.items("raw"), recording.items("out")
    counts = result.members["quiet"]
    assert (counts["events"], counts["kept"]) == (len(raw), len(filtered))
    assert result.members["upright"]["dropped"] == 0
    return raw, filtered, (out / "hot.txt").read_text()


@pytest.mark.parametrize(("packet_items", "processes"), [(4096, True), (57, False)])
def test_two_filters_in_a_pipeline_file(tmp_path: Path, packet_items: int, processes: bool) -> None:
    raw, filtered, _ = outcome(tmp_path / "it", packet_items=packet_items, processes=processes)
    hot = read_mask(tmp_path / "it" / "hot.txt", 24, 16)
    assert np.count_nonzero(hot) == 3
    # every pixel that is not hot came through whole, turned clockwise
    assert filtered.dtype == EVENT_DTYPE
    turned = raw.copy()
    turned["x"], turned["y"] = 15 - raw["y"].astype(int), raw["x"]
    is_sound = ~hot[raw["y"], raw["x"]]
    came_from_sound = ~hot[15 - filtered["x"].astype(int), filtered["y"]]
    assert filtered[came_from_sound].tobytes() == turned[is_sound].tobytes()
    assert np.count_nonzero(is_sound) > 500
    assert len(filtered) < len(raw) - 500


def test_packets_and_processes_do_not_matter(tmp_path: Path) -> None:
    raw, filtered, hot = outcome(tmp_path / "one", packet_items=4096, processes=False)
    raw_again, filtered_again, hot_again = outcome(tmp_path / "other", packet_items=91, processes=True)
    assert raw.tobytes() == raw_again.tobytes()
    assert filtered.tobytes() == filtered_again.tobytes()
    assert hot == hot_again
