"""Pictures under saccades: closed forms of a moving edge, labels, files as they are found."""

import gzip
import math
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sources.atis_bin import read_atis_bin
from sources.scene_files import find_labelled_files, luminance_table
from sources.scene_images import IMAGE_SUFFIXES, Images, ImageScene, read_idx, read_image
from sources.simulated import Camera, CameraParams, SimulatedCamera
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, End, Label, Packet, Reset

QUIET = {"mismatch": 0.0, "refractory_us": 0, "leak_hz": 0.0, "shot_noise_hz": 0.0}


def play(source):
    parts, marks = [np.empty(0, EVENT_DTYPE)], []
    while not marks or not isinstance(marks[-1], End):
        message = source.poll(1 << 20)
        if isinstance(message, Packet):
            parts.append(message.items)
        elif message is not None:
            marks.append(message)
    return np.concatenate(parts), marks


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)
    return path


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("sign", [1, -1])
def test_a_moving_edge_gives_its_contrast_in_thresholds_and_the_right_polarity(tmp_path, sign):
    values = np.zeros((64, 64), np.uint8)
    values[:, 33:] = 255
    save(tmp_path / "edge.png", values)
    # the gaze goes eight pixels to the right, over the edge into the light; or to the left, into the dark
    images = Images(passes=1, size=2.0, gamma=1.0, reach=8 / 32, corners=((-0.5 * sign, 0.0), (0.5 * sign, 0.0)))
    source = SimulatedCamera(
        scene="images",
        path=str(tmp_path),
        images=images,
        width=32,
        height=32,
        threshold_on=0.2,
        threshold_off=0.3,
        **QUIET,
    )
    events, marks = play(source)
    n = math.floor(math.log(1.0 / 0.1) / (0.2 if sign > 0 else 0.3))
    assert (events["p"] == (sign > 0)).all()
    per_pixel = np.zeros((32, 32), int)
    np.add.at(per_pixel, (events["y"], events["x"]), 1)
    wanted = np.zeros((32, 32), int)
    wanted[:, 13:21] = n  # the edge lies between pixels 16 and 17 of the view at rest, and moves four to either side
    np.testing.assert_array_equal(per_pixel, wanted)
    # where the gaze goes, there it meets the edge first
    times = [events["t"][events["x"] == column].mean() for column in range(13, 21)]
    assert (np.diff(times) * sign < 0).all()
    assert marks == [Reset(50_000), Label(150_000, 0, 50_000), End(150_000)]


def test_a_still_image_without_noise_is_silent(tmp_path):
    save(tmp_path / "a.png", np.random.default_rng(1).integers(0, 256, (20, 30)))
    source = SimulatedCamera(scene="images", path=str(tmp_path), images=Images(passes=3, reach=0.0), **QUIET)
    events, marks = play(source)
    assert len(events) == 0
    assert len(marks) == 7


def test_light_is_a_power_of_the_value_above_black():
    table = luminance_table(gamma=2.0, black=0.2)
    np.testing.assert_allclose(table[[0, 51, 255]], [0.2, 0.2 + 0.8 * 0.04, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(luminance_table(gamma=2.0, black=0.2, invert=True), table[::-1])


def scene_of(path, width=24, height=16, seed=0, **options):
    return ImageScene(width=width, height=height, seed=seed, path=path, images=Images(**options))


def frame_of(scene, elapsed_us=0):
    frame = np.full((scene.height, scene.width), np.nan, np.float32)
    scene.render(elapsed_us, frame)
    return frame


def test_a_picture_stands_in_the_middle_on_ground_as_bright_as_its_border(tmp_path):
    values = np.full((8, 8), 51)
    values[2:6, 2:6] = 255
    save(tmp_path / "a.png", values)
    scene = scene_of(tmp_path, size=0.5, reach=0.0, gamma=1.0, black=0.2)
    scene.show(0)
    wanted = np.full((16, 24), 0.2 + 0.8 * 0.2)
    wanted[6:10, 10:14] = 1.0
    np.testing.assert_allclose(frame_of(scene), wanted, rtol=1e-6)


@pytest.mark.parametrize("size", [0.1, 0.49, 1.0, 1.51, 7.9])
def test_pictures_of_any_size_keep_their_light(tmp_path, size):
    save(tmp_path / "a.png", np.full((37, 11), 128))
    scene = scene_of(tmp_path, size=size, gamma=1.0)
    scene.show(0)
    np.testing.assert_allclose(frame_of(scene, 130_000), 0.1 + 0.9 * 128 / 255, rtol=1e-5)


def test_each_pass_shows_each_file_once_in_an_order_of_the_seed(tmp_path):
    for label, names in {"cat": "abc", "dog": "de", "eel": "f"}.items():
        for index, name in enumerate(names):
            save(tmp_path / label / f"{name}.png", np.full((4, 4), 40 * index))
    (tmp_path / "cat" / "notes.txt").write_text("mine")
    (tmp_path / ".git").mkdir()
    save(tmp_path / ".git" / "x.png", np.zeros((2, 2)))
    scene, other = scene_of(tmp_path, seed=1), scene_of(tmp_path, seed=2)
    rounds = [[scene.file_of(6 * turn + place) for place in range(6)] for turn in range(4)]
    assert all(sorted(files) == list(range(6)) for files in rounds)
    assert rounds[0] != rounds[1]
    assert rounds != [[other.file_of(6 * turn + place) for place in range(6)] for turn in range(4)]
    assert [scene.show(number) for number in range(6)] == [[0, 0, 0, 1, 1, 2][file] for file in rounds[0]]
    assert scene.class_names == ("cat", "dog", "eel")
    for before, after in pairwise(rounds):
        assert frame_of(scene).shape == (16, 24)
        assert before != after


def test_labels_of_folders(tmp_path):
    for name in ("7", "03", "11"):
        save(tmp_path / "numbers" / name / "a.png", np.zeros((2, 2)))
    save(tmp_path / "deep" / "Greek" / "one" / "a.PNG", np.zeros((2, 2)))
    save(tmp_path / "deep" / "Latin" / "one" / "a.png", np.zeros((2, 2)))
    save(tmp_path / "flat" / "b.png", np.zeros((2, 2)))
    save(tmp_path / "flat" / "a.png", np.zeros((2, 2)))

    def labels(name):
        files = find_labelled_files(tmp_path / name, IMAGE_SUFFIXES, subject="test")
        return list(zip([path.name for path in files.paths], files.labels, strict=True)), files.class_names

    numbers, names = labels("numbers")
    assert sorted(label for _, label in numbers) == [3, 7, 11]
    assert [names[3], names[7], names[11], names[0], len(names)] == ["03", "7", "11", "", 12]
    assert labels("deep") == ([("a.PNG", 0), ("a.png", 1)], ("Greek/one", "Latin/one"))
    assert labels("flat") == ([("a.png", 0), ("b.png", 1)], ("a", "b"))
    assert labels("flat/b.png") == ([("b.png", 0)], ("b",))
    (tmp_path / "empty").mkdir()
    save(tmp_path / "numbers" / "stray.png", np.zeros((2, 2)))
    for name, words in (("empty", "holds no such files"), ("numbers", "1 files itself and 3"), ("none", "no file or")):
        with pytest.raises(ConfigError, match=words):
            labels(name)


def test_images_are_read_as_they_are_meant(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", grey)), grey)
    colours = np.zeros((1, 3, 3), np.uint8)
    colours[0] = np.eye(3) * 255
    assert read_image(save(tmp_path / "b.png", colours)).tolist() == [[76, 150, 29]]  # luma of red, green, blue
    Image.fromarray(np.array([[0, 255, 65535]], np.uint16)).save(tmp_path / "c.png")
    assert read_image(tmp_path / "c.png").tolist() == [[0, 0, 255]]
    Image.fromarray(np.array([[[0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8)).save(tmp_path / "d.png")
    assert read_image(tmp_path / "d.png").tolist() == [[0, 255]]  # what is not there is paper
    upright = Image.fromarray(grey)
    exif = upright.getexif()
    exif[0x0112] = 6  # turn by a quarter to the right
    upright.save(tmp_path / "e.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "e.png"), np.rot90(grey, -1))
    save(tmp_path / "f.jpg", np.full((16, 16), 90))
    assert np.abs(read_image(tmp_path / "f.jpg").astype(int) - 90).max() <= 2


@given(st.integers(0, 200), st.binary(max_size=4))
def test_a_damaged_image_is_a_format_error(tmp_path_factory, cut, junk):
    path = tmp_path_factory.mktemp("damaged") / "a.png"
    content = save(path, np.random.default_rng(0).integers(0, 256, (20, 20))).read_bytes()
    path.write_bytes(content[:cut] + junk)
    with pytest.raises(FormatError, match="a.png"):
        read_image(path)


def test_a_damaged_image_in_the_middle_ends_the_stream_and_says_so(tmp_path):
    for index in range(3):
        save(tmp_path / f"{index}.png", np.random.default_rng(index).integers(0, 256, (9, 9)))
    options = {"scene": "images", "path": str(tmp_path), "images": Images(saccade_us=10_000)}
    third = SimulatedCamera(**options)._scene.file_of(2)
    (tmp_path / f"{third}.png").write_bytes(b"no image")
    source = SimulatedCamera(**options)
    _, marks = play(source)
    assert [type(mark) for mark in marks] == [Reset, Label, Reset, Label, End]
    assert f"{third}.png" in marks[-1].reason
    assert source.poll(1) == marks[-1]
    fresh = SimulatedCamera(**options)
    fresh.restore(source.snapshot())
    assert fresh.poll(1) == marks[-1]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files(tmp_path, suffix):
    images = np.random.default_rng(3).integers(0, 256, (5, 6, 4)).astype(np.uint8)
    labels = np.array([4, 0, 9, 4, 1], np.uint8)
    pack = gzip.compress if suffix else bytes
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx(images)))
    with pytest.raises(FormatError, match="train-labels-idx1-ubyte"):
        scene_of(path)
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))
    scene = scene_of(path, width=12, height=12, size=0.5, reach=0.0, gamma=1.0)
    for number in range(5):
        file = scene.file_of(number)
        assert scene.show(number) == labels[file]
        np.testing.assert_allclose(frame_of(scene)[3:9, 4:8], 0.1 + 0.9 * images[file] / 255, rtol=1e-6)
    np.testing.assert_array_equal(read_idx(path), images)
    for content, words in [
        (b"", "begins with nothing"),
        (b"\0\0\x0d\x01\0\0\0\1", "begins with 00000d01"),
        (b"\0\0\x08\x03\0\0", "ends within its head"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "at most"),
        (idx(images)[:-1], "got 119"),
        (idx(images) + b"!", "got more"),
    ]:
        path.write_bytes(pack(content))
        with pytest.raises(FormatError, match=words):
            read_idx(path)
    path.write_bytes(pack(idx(images))[:-3])
    with pytest.raises(FormatError, match="idx3"):
        scene_of(path)
    path.write_bytes(pack(idx(images[:4])))
    with pytest.raises(FormatError, match="n labels"):
        scene_of(path)


def test_bad_options_are_refused(tmp_path):
    save(tmp_path / "a.png", np.zeros((3, 3)))
    for options in (
        {"size": 0.0},
        {"reach": -0.1},
        {"reach": math.nan},
        {"saccade_us": 0},
        {"corners": ((0.0, 0.0),)},
        {"corners": ((0.0, 0.0), (9.0, 0.0))},
        {"gamma": 0.0},
        {"black": 0.0},
        {"black": 1.0},
        {"passes": -1},
    ):
        with pytest.raises(ConfigError, match="scene of images"):
            scene_of(tmp_path, **options)


def test_a_look_at_mnist_is_much_as_n_mnist_was_recorded(data):
    """The same digits, through the same saccades: as many events, of either sign, digit by digit."""
    files = sorted((data / "nmnist" / "test").rglob("*.bin"))[::8]
    scene = scene_of(data / "mnist" / "t10k-images-idx3-ubyte.gz", width=34, height=34)
    params = CameraParams(
        threshold_on=0.36, threshold_off=0.32, mismatch=0.04, refractory_us=1500, leak_hz=0.1, shot_noise_hz=0.4
    )
    camera = Camera(34, 34, params, step_us=1000)
    counts, shares = [], []
    for turn, file in enumerate(files):
        index = int(file.stem) - 60001
        scene.file_of = lambda number, index=index: index  # this very digit
        assert scene.show(0) == int(file.parent.name)
        camera.settle(frame_of(scene))
        real = np.concatenate(list(read_atis_bin(file)))
        frames = (frame_of(scene, at + 1000) for at in range(0, 300_000, 1000))
        seen = np.concatenate(
            [camera.step(frame, turn * 400_000 + 1000 * step).copy() for step, frame in enumerate(frames)]
        )
        counts.append((len(real), len(seen)))
        shares.append((real["p"].mean(), seen["p"].mean()))
    real, seen = np.transpose(counts)
    assert abs(seen.mean() / real.mean() - 1.0) < 0.1
    assert np.corrcoef(real, seen)[0, 1] > 0.6
    assert abs(np.mean(shares, axis=0) @ [1, -1]) < 0.05
