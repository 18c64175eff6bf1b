"""Recordings of scenes: what the camera saw, object by object, as a folder that can be played."""

import numpy as np
import pytest
from PIL import Image

from sources.atis_bin import read_atis_bin
from sources.folder import LabelledFolder, Part
from sources.scene_images import Images
from sources.scene_recordings import record_objects
from sources.scene_video import Video
from sources.simulated import SimulatedCamera
from stream.errors import ConfigError, FormatError, StreamError
from stream.packet import EVENT_DTYPE, End, Label, Packet, Reset


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(1)
    for label, n in ((2, 2), (5, 1)):
        home = tmp_path / "pictures" / str(label)
        home.mkdir(parents=True)
        for index in range(n):
            Image.fromarray(rng.integers(0, 256, (12, 12)).astype(np.uint8)).save(home / f"{index}.png")
    return tmp_path / "pictures"


def camera_of(pictures, passes=1, **options):
    images = Images(passes=passes, saccade_us=20_000)
    return SimulatedCamera(scene="images", path=str(pictures), images=images, seed=3, **options)


def test_a_file_holds_what_the_camera_saw_between_reset_and_label(tmp_path, pictures):
    wanted, parts, start = {2: [], 5: []}, [], 0
    camera = camera_of(pictures)
    while not isinstance(message := camera.poll(100), End):
        if isinstance(message, Reset):
            parts, start = [np.empty(0, EVENT_DTYPE)], message.t_us
        elif isinstance(message, Packet):
            parts.append(message.items)
        elif isinstance(message, Label):
            events = np.concatenate(parts)
            events["t"] -= start
            wanted[message.label].append(events)
    seen = []
    assert record_objects(camera_of(pictures), tmp_path / "made", progress=seen.append) == 3
    assert seen == [1, 2, 3]
    files = sorted(str(path.relative_to(tmp_path / "made")) for path in (tmp_path / "made").rglob("*.bin"))
    assert files == ["2/00000.bin", "2/00001.bin", "5/00000.bin"]
    for name, events in zip(files, wanted[2] + wanted[5], strict=True):
        found = np.concatenate(list(read_atis_bin(tmp_path / "made" / name)))
        np.testing.assert_array_equal(found, events)
        assert len(found) > 100
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    folder = LabelledFolder(parts=[Part(path=str(tmp_path / "made"))], width=34, height=34)
    labels = []
    while not isinstance(message := folder.poll(1000), End):
        labels += [message.label] if isinstance(message, Label) else []
    assert sorted(labels) == [2, 2, 5]


def test_a_limit_ends_what_has_no_end_and_any_format_will_do(tmp_path, pictures):
    with pytest.raises(ConfigError, match="has no end"):
        record_objects(camera_of(pictures, passes=None), tmp_path / "made")
    n = record_objects(*(camera_of(pictures, passes=None), tmp_path / "made"), limit=5, suffix=".npy", write=np.save)
    assert n == 5
    assert sum(len(np.load(path)) > 0 for path in (tmp_path / "made").rglob("*.npy")) == 5


def test_nothing_is_left_of_what_fails_and_nothing_is_touched(tmp_path, pictures):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(ConfigError, match="something already"):
        record_objects(camera_of(pictures), tmp_path / "mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FormatError, match="up to 255"):
        record_objects(camera_of(pictures, width=300, height=300), tmp_path / "made")
    for path in list(pictures.rglob("*.png")):
        path.write_bytes(b"no image") if path != camera_path(pictures) else None
    with pytest.raises(StreamError, match="broke off after 1"):
        record_objects(camera_of(pictures), tmp_path / "made")
    assert sorted(tmp_path.iterdir()) == before


def camera_path(pictures):
    """Return the file that is shown first."""
    scene = camera_of(pictures)._scene
    return scene._paths[scene.file_of(0)]


def test_a_scene_without_labels_is_refused(tmp_path, pictures):
    camera = SimulatedCamera(scene="video", path=str(pictures / "2"), video=Video(passes=1, frame_rate_hz=30.0))
    with pytest.raises(ConfigError, match="no labels"):
        record_objects(camera, tmp_path / "made")
