"""Pen strokes: formats, the growing line, and that a frame depends on the time alone."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sources.scene_strokes import Strokes, StrokeScene, add_ink, read_strokes
from sources.simulated import SimulatedCamera
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, End, Label, Packet, Reset

QUIET = {"mismatch": 0.0, "refractory_us": 0, "leak_hz": 0.0, "shot_noise_hz": 0.0}

# a level line, the pen in the air for 50 ms, an upright line down, a dot
STROKES = [[[0, 0, 0], [5, 0, 50], [20, 0, 100]], [[10, 5, 150], [10, 20, 250]], [[2, 18, 300]]]


def play(source):
    parts, marks = [np.empty(0, EVENT_DTYPE)], []
    while not marks or not isinstance(marks[-1], End):
        message = source.poll(1 << 20)
        if isinstance(message, Packet):
            parts.append(message.items)
        elif message is not None:
            marks.append(message)
    return np.concatenate(parts), marks


def scene_of(path, side=32, **options):
    return StrokeScene(width=side, height=side, seed=0, path=path, strokes=Strokes(**options))


def frame_of(scene, elapsed_us):
    frame = np.full((scene.height, scene.width), np.nan, np.float32)
    scene.render(elapsed_us, frame)
    return frame


@pytest.fixture
def drawing(tmp_path):
    path = tmp_path / "cross.json"
    path.write_text(json.dumps(STROKES))
    return path


def test_all_formats_tell_the_same(tmp_path, drawing):
    def point(x, y, t, comma=" "):
        return comma.join(f"{number:.6f}" for number in (x, y, t))

    (tmp_path / "object.json").write_text(json.dumps({"strokes": STROKES}))
    text = "\n\n".join("\n".join(point(*numbers) for numbers in stroke) for stroke in STROKES)
    (tmp_path / "plain.txt").write_text("# x y t\n" + text)
    (tmp_path / "plain.csv").write_text(text.replace(" ", ", "))
    omniglot = ["START"]
    for stroke in STROKES:
        omniglot += [*(point(x, -y, t, ",") for x, y, t in stroke), "BREAK"]
    (tmp_path / "omniglot.txt").write_text("\n".join(omniglot) + "\n")
    for name in ("cross.json", "object.json", "plain.txt", "plain.csv", "omniglot.txt"):
        found = read_strokes(tmp_path / name)
        assert [stroke.tolist() for stroke in found] == [[list(map(float, p)) for p in stroke] for stroke in STROKES]


def test_times_that_step_back_are_put_in_order(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([[[0, 0, 0], [1, 0, 20], [2, 0, 10], [3, 0, 30]], [[0, 1, 0], [1, 1, 15]]]))
    assert [stroke[:, 2].tolist() for stroke in read_strokes(path)] == [[0, 20, 20, 30], [30, 45]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "1 2\n", "line 1"),
        ("a.txt", "START\n1,2,3\n1,x,3\n", "line 3"),
        ("a.txt", "\n# nothing\n", "no points"),
        ("a.txt", "1 2 nan\n", "or none at all"),
        ("a.txt", "1 -1e300 3\n", "beyond 1e\\+15"),
        ("a.json", "[[[1, 2]]]", "cannot be read"),
        ("a.json", "[[[1, 2, 1e999]]]", "a.json"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.json", "[]", "no points"),
        ("a.txt", "\udcff\udcfe", "cannot be read"),
    ],
)
def test_what_is_no_drawing_is_a_format_error(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(FormatError, match=words):
        read_strokes(tmp_path / name)


def test_drawings_without_end_are_refused_and_small_ones_shown(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([[[0, 0, 0], [1, 1, 1e9]]]))
    with pytest.raises(FormatError, match="a day at most"):
        scene_of(tmp_path / "a.json").show(0)
    (tmp_path / "b.json").write_text(json.dumps([[[7, 9, 1e9]]]))  # a full stop
    scene = scene_of(tmp_path / "b.json")
    scene.show(0)
    assert scene.object_us == 1
    assert np.argwhere(frame_of(scene, 1) > 0.5).mean(axis=0).tolist() == [15.5, 15.5]


def test_a_line_grows_brightens_and_stays(drawing):
    scene = scene_of(drawing)
    assert scene.show(0) == 0
    assert scene.object_us == 300_001
    blank = frame_of(scene, 0)
    np.testing.assert_array_equal(blank, np.float32(0.1))
    frames = [frame_of(scene, at) for at in range(1000, 302_000, 1000)]
    steps = np.diff([blank, *frames], axis=0)
    assert steps.min() > -1e-6
    changes = np.abs(steps).max(axis=(1, 2)) > 1e-3
    assert changes[:99].all()
    assert not changes[101:149].any()  # pen in the air
    assert changes[151:249].all()
    assert not changes[251:299].any()
    assert changes[300]  # the dot
    assert frames[-1].max() == 1.0


def test_the_pen_is_where_the_file_says(drawing):
    # drawn 24 pixels large on 32: the level line is 24 long, the first quarter of it in the first half of its time
    scene = scene_of(drawing)
    scene.show(0)
    left = 15.5 - 12.0
    for at, x in ((25_000, 3.0), (50_000, 6.0), (75_000, 15.0), (100_000, 24.0)):
        lit = np.flatnonzero(frame_of(scene, at)[round(left)] > 0.55)
        assert abs(lit.max() - (left + x + 0.96)) <= 1.0  # half a pen further than its point
        assert lit.min() <= left


def test_ink_agrees_with_the_distance_from_the_line():
    image = np.zeros((20, 24), np.float32)
    add_ink(3.0, 15.5, 17.25, 4.0, 2.5, image)
    add_ink(9.0, 9.0, 9.0, 9.0, 4.0, image)
    rows, columns = np.mgrid[:20, :24]

    def reference(ax, ay, bx, by, pen):
        best = np.full(rows.shape, np.inf)
        for s in np.linspace(0.0, 1.0, 4001):
            best = np.minimum(best, np.hypot(columns - ax - s * (bx - ax), rows - ay - s * (by - ay)))
        edge = np.clip((pen / 2 - best) / 1.5 + 0.5, 0.0, 1.0)
        return edge**2 * (3 - 2 * edge)

    wanted = np.maximum(reference(3.0, 15.5, 17.25, 4.0, 2.5), reference(9.0, 9.0, 9.0, 9.0, 4.0))
    np.testing.assert_allclose(image, wanted, atol=1e-5)


@given(st.lists(st.integers(0, 310_000), min_size=1, max_size=12))
def test_a_frame_depends_on_the_time_alone(tmp_path_factory, times):
    path = tmp_path_factory.mktemp("strokes") / "a.json"
    path.write_text(json.dumps(STROKES))
    scene = scene_of(path)
    scene.show(0)
    for at in times:
        frame = frame_of(scene, at)
        fresh = scene_of(path)
        fresh.show(0)
        np.testing.assert_array_equal(frame, frame_of(fresh, at))


@pytest.mark.parametrize("invert", [False, True])
def test_a_growing_line_gives_its_contrast_in_thresholds(drawing, invert):
    source = SimulatedCamera(
        scene="strokes",
        path=str(drawing),
        strokes=Strokes(passes=1, invert=invert),
        width=32,
        height=32,
        gap_us=20_000,
        threshold_on=0.2,
        threshold_off=0.3,
        **QUIET,
    )
    events, marks = play(source)
    scene = scene_of(drawing, invert=invert)
    scene.show(0)
    contrast = np.abs(np.log(frame_of(scene, 301_000).astype(float) / frame_of(scene, 0)))
    theta = 0.3 if invert else 0.2
    counts = np.zeros((32, 32), int)
    np.add.at(counts, (events["y"], events["x"]), 1)
    np.testing.assert_array_equal(counts, np.floor(contrast / theta))
    assert (events["p"] == (not invert)).all()
    assert marks == [Reset(20_000), Label(321_000, 0, 20_000), End(321_000)]
    assert events["t"].min() >= 20_000


def test_folders_are_classes_and_times_scale(tmp_path):
    for alphabet, character in (("Greek", "one"), ("Greek", "two"), ("Latin", "one")):
        home = tmp_path / alphabet / character
        home.mkdir(parents=True)
        (home / "0001_01.txt").write_text("START\n0,0,0\n10,-10,100\nBREAK\n")
    scene = scene_of(tmp_path, unit_us=500.0, passes=2)
    assert scene.class_names == ("Greek/one", "Greek/two", "Latin/one")
    assert scene.n_objects == 6
    assert sorted(scene.show(number) for number in range(3)) == [0, 1, 2]
    assert scene.object_us == 50_001


def test_bad_options_are_refused(drawing):
    for options in ({"size": 0.0}, {"pen": 0.0}, {"pen": math.nan}, {"unit_us": 0.0}, {"black": 0.0}, {"passes": -1}):
        with pytest.raises(ConfigError, match="scene of strokes"):
            scene_of(drawing, **options)
