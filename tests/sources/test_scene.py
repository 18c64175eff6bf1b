"""Scenes: sub-pixel shifts, gentle saccades, varied handwriting."""

from itertools import pairwise

import numpy as np
import pytest

from sources.handwriting import pen_strokes
from sources.scene import TRIANGLE, DigitScene, look_through, saccade, scene_of

NAMES = ["digits", "shapes", "gratings"]


def frame_of(scene, elapsed_us=0):
    frame = np.full((scene.height, scene.width), np.nan, np.float32)
    scene.render(elapsed_us, frame)
    return frame


@pytest.mark.parametrize("name", NAMES)
def test_luminance_is_defined_and_moves(name):
    scene = scene_of(name, width=40, height=30, seed=1)
    for number in range(4):
        assert 0 <= scene.show(number) < scene.n_labels
        frames = [frame_of(scene, elapsed) for elapsed in range(0, scene.object_us + 1, 20_000)]
        assert all(frame.min() > 0.0 and frame.max() <= 1.0 for frame in frames)
        assert max(np.abs(a - b).max() for a, b in pairwise(frames)) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_an_object_depends_on_seed_and_number_alone(name):
    one, other = (scene_of(name, width=34, height=34, seed=9) for _ in range(2))
    for number in range(7):
        one.show(number)
    other.show(6)
    np.testing.assert_array_equal(frame_of(one, 50_000), frame_of(other, 50_000))
    one.show(7)
    assert not np.array_equal(frame_of(one, 50_000), frame_of(other, 50_000))


def test_each_round_shows_each_label_once():
    scene = scene_of("digits", width=34, height=34, seed=4)
    rounds = [[scene.label_of(10 * turn + place) for place in range(10)] for turn in range(3)]
    assert all(sorted(labels) == list(range(10)) for labels in rounds)
    assert rounds[0] != rounds[1]


def test_a_window_moves_by_parts_of_a_pixel():
    canvas = np.arange(8 * 9, dtype=np.float32).reshape(8, 9) ** 2
    frame = np.empty((4, 5), np.float32)
    look_through(canvas, 2.0, 3.0, frame)
    np.testing.assert_array_equal(frame, canvas[3:7, 2:7])
    look_through(canvas, 2.25, 3.5, frame)
    upper = 0.75 * canvas[3:7, 2:7] + 0.25 * canvas[3:7, 3:8]
    lower = 0.75 * canvas[4:8, 2:7] + 0.25 * canvas[4:8, 3:8]
    np.testing.assert_allclose(frame, 0.5 * (upper + lower), rtol=1e-6)


def test_saccades_start_and_stop_gently_and_return():
    scene = DigitScene(width=34, height=34, seed=2)
    scene.write(3, 0)
    for leg in range(3):
        start, soon, middle, later = (frame_of(scene, leg * 100_000 + at) for at in (0, 5000, 50_000, 55_000))
        assert np.abs(soon - start).max() < 0.1 * np.abs(later - middle).max()
    np.testing.assert_array_equal(frame_of(scene, 0), frame_of(scene, 300_000))


def test_a_path_of_saccades_rests_on_its_ends_and_passes_its_corners():
    assert [saccade(at, 50_000, TRIANGLE) for at in (-1, 0, 50_000, 100_000, 150_000, 900_000)] == [
        *(TRIANGLE[0], *TRIANGLE, TRIANGLE[3])
    ]
    x, y = saccade(25_000, 50_000, ((0.0, 1.0), (4.0, 3.0)))
    assert (x, y) == (2.0, 2.0)  # half-way in half the time


def test_specimens_of_a_digit_differ_but_less_than_digits_do():
    scene = DigitScene(width=34, height=34, seed=3)
    images = np.empty((10, 30, 34, 34), np.float32)
    for digit in range(10):
        for specimen in range(30):
            scene.write(digit, specimen)
            scene.render(150_000, images[digit, specimen])
    means = images.mean(axis=1)
    within = np.sqrt(((images - means[:, None]) ** 2).mean(axis=(0, 1, 2, 3)))
    between = np.sqrt(((means - means.mean(axis=0)) ** 2).mean())
    assert within > 0.05  # handwriting, not print
    assert between > 0.03  # and still legible


def test_strokes_stay_joined():
    segments, pen = pen_strokes(5, seed=1, specimen=2)  # two strokes that meet
    joints = np.abs(segments[1:, :2] - segments[:-1, 2:]).max(axis=1)
    assert joints.max() == 0.0
    assert 0.03 < pen < 0.15
