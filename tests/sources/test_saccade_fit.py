"""The simulated camera is set as a sensor was: what is measured is what was put in."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sources.atis_bin import write_atis_bin
from sources.nmnist_camera import NMNIST_GAZE, nmnist_camera, nmnist_images, nmnist_recordings
from sources.saccade_fit import likeness, measure, measure_path
from sources.scene import saccade
from sources.scene_images import Images, ImageScene
from stream.__main__ import app
from stream.errors import ConfigError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of crooked strokes, in MNIST's form."""
    rng = np.random.default_rng(4)
    pictures = np.zeros((12, 28, 28), np.uint8)
    for picture in pictures:
        place = np.array([14.0, 14.0])
        for _ in range(60):
            place = np.clip(place + rng.normal(0, 1.3, 2), 5, 22)
            y, x = place.astype(int)
            picture[y : y + 2, x : x + 2] = 255
    path = tmp_path_factory.mktemp("mnist") / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4I", 0x803, *pictures.shape) + pictures.tobytes()))
    labels = struct.pack(">2I", 0x801, 12) + bytes(k % 2 for k in range(12))
    path.with_name("train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return path


def light_of(path: Path, number: int) -> Any:
    from sources.scene_images import read_idx

    plane = np.full((34, 34), 1.0, np.float32)
    plane[3:31, 3:31] = 0.05 + 0.95 * (1 - read_idx(path)[number] / 255.0) ** 2.2
    return plane


def test_the_path_that_was_put_in_is_found_again(digits: Path) -> None:
    recordings = nmnist_recordings(digits, range(8))
    path = measure_path(recordings, [light_of(digits, k) for k in range(8)])
    knots = np.arange(0, 315_001, 5000)
    x, y = (-np.interp(path.t_us, knots, [corner[k] for corner in NMNIST_GAZE]) for k in (0, 1))
    busy = (path.t_us > 20_000) & (path.t_us < 290_000)
    for ours, theirs in ((path.x, x), (path.y, y)):
        apart = (ours - theirs)[busy]
        assert np.std(apart) < 0.4
        assert abs(np.mean(apart)) < 0.6
    assert path.explained > 0.3
    assert path.events_per_log > 0  # bright ink would turn it around


def test_measures_are_those_of_the_events(digits: Path) -> None:
    recordings = nmnist_recordings(digits, range(3))
    it = measure(recordings, width=34, height=34)
    assert it.events == np.mean([len(events) for events in recordings])
    assert it.on_share == pytest.approx(np.concatenate(recordings)["p"].mean())
    assert it.rate_hz.sum() * 0.005 == pytest.approx(it.events)
    assert it.per_pixel.sum() == pytest.approx(it.events)
    assert it.again_us[0] >= 600  # the camera's refractory time
    assert 0.1 < it.border_hz < 1.0
    assert likeness(recordings, recordings, width=34, height=34) == pytest.approx(1.0)
    other = nmnist_recordings(digits, range(3), seed=5)  # other noise
    turned = [recordings[k] for k in (1, 2, 0)]
    alike, not_alike = (likeness(recordings, it, width=34, height=34) for it in (other, turned))
    assert 0.8 < alike < 1.0
    assert not_alike < alike - 0.1
    with pytest.raises(ConfigError, match="got no recordings"):
        measure([], width=34, height=34)
    with pytest.raises(ConfigError, match="got 3 recordings and 2 pictures"):
        measure_path(recordings, [light_of(digits, k) for k in range(2)])


def test_a_measured_path_goes_straight_from_corner_to_corner() -> None:
    corners = ((0.0, 0.0), (1.0, -2.0), (1.0, 4.0))
    assert saccade(250, 1000, corners, gentle=False) == (0.25, -0.5)
    assert saccade(1500, 1000, corners, gentle=False) == (1.0, 1.0)
    assert saccade(250, 1000, corners)[0] < 0.15  # gently


def test_a_lens_blurs_and_keeps_the_light(digits: Path) -> None:
    frames = []
    for blur in (0.0, 1.5):
        scene = ImageScene(width=34, height=34, seed=0, path=digits, images=Images(passes=1, blur=blur))
        scene.show(0)
        frame = np.empty((34, 34), np.float32)
        scene.render(0, frame)
        frames.append(frame)
    sharp, soft = frames
    assert soft.std() < 0.8 * sharp.std()
    assert soft.mean() == pytest.approx(sharp.mean(), rel=0.01)
    with pytest.raises(ConfigError, match="blur"):
        ImageScene(width=34, height=34, seed=0, path=digits, images=Images(blur=-1.0))


def test_pictures_are_left_out(digits: Path) -> None:
    assert nmnist_camera(str(digits), passes=1, skip=8)._scene.n_objects == 4
    whole = ImageScene(width=34, height=34, seed=0, path=digits, images=nmnist_images(passes=1))
    rest = ImageScene(width=34, height=34, seed=0, path=digits, images=nmnist_images(passes=1, skip=8))
    assert whole._idx is not None
    assert rest._idx is not None
    np.testing.assert_array_equal(rest._idx, whole._idx[8:])
    with pytest.raises(ConfigError, match="skip"):
        nmnist_camera(str(digits), skip=12)


def test_the_command_compares_sensor_and_simulation(digits: Path, tmp_path: Path) -> None:
    # a sensor much like ours: ours, with other noise
    for k, events in enumerate(nmnist_recordings(digits, range(8), seed=7)):
        home = tmp_path / "real" / str(k % 2)
        home.mkdir(parents=True, exist_ok=True)
        write_atis_bin(home / f"{k + 1:05d}.bin", events)
    arguments = ["eval", "camera", str(tmp_path / "real"), "--images", str(digits), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["alike"]["likeness of maps"] > 0.8
    assert found["alike"]["path apart, pixels"] < 0.5
    assert found["measured"]["sensor"]["events"] == pytest.approx(found["measured"]["simulated"]["events"], rel=0.1)
    assert (tmp_path / "out" / "camera.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="--first"):
        CliRunner().invoke(app, [*arguments, "--first", "5"], catch_exceptions=False)
    simulate = ["eval", "simulate", str(digits), "--out", str(tmp_path / "sim"), "--skip", "8", "--limit", "3"]
    assert CliRunner().invoke(app, simulate, catch_exceptions=False).exit_code == 0
    assert len(list((tmp_path / "sim").glob("*/*.bin"))) == 3


def test_it_sees_mnist_as_n_mnist_does(data: Path) -> None:
    images = data / "mnist" / "train-images-idx3-ubyte.gz"
    folder = data / "nmnist" / "train"
    if not images.exists() or not folder.exists():
        pytest.skip("no MNIST and N-MNIST in HEBBSTREAM_DATA")
    from sources.event_file import read_events

    paths = sorted(folder.glob("*/*.bin"))[::100]
    real = [read_events(path, width=34, height=34).events for path in paths]
    ours = nmnist_recordings(images, [int(path.stem) - 1 for path in paths])
    assert likeness(real, ours, width=34, height=34) > 0.8
    assert np.mean([len(it) for it in ours]) == pytest.approx(np.mean([len(it) for it in real]), rel=0.15)
