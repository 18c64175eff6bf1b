"""Films: closed forms of what brightens and darkens, times of frames, damaged files, memory."""

import contextlib
import math
import sys
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from sources.scene_video import Video, VideoScene, fade, read_video
from sources.simulated import SimulatedCamera
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE, End, Label, Packet, Reset
from stream.pipeline import build, load

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


def save_folder(folder, frames):
    folder.mkdir(exist_ok=True)
    for index, frame in enumerate(frames):  # 9 before 10: names are not padded
        Image.fromarray(np.asarray(frame, np.uint8)).save(folder / f"frame{index}.png")
    return folder


def save_film(path, frames, codec="ffv1", pixels="gray", times=None, rate=25):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, values in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.asarray(values, np.uint8), format="gray")
            frame.pts = times[index] if times else index * 1000 // rate
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def edge(n_frames=12, side=16):
    """A bright area that grows by a column a frame."""
    return [np.where(np.arange(side) < 2 + index, 255, 0) * np.ones((side, 1)) for index in range(n_frames)]


@pytest.fixture(params=["folder", "mkv"])
def film(request, tmp_path):
    """Return a way to save a lossless film of 25 frames a second."""
    if request.param == "folder":
        return lambda frames: (save_folder(tmp_path / "film", frames), 25.0)
    pytest.importorskip("av")
    return lambda frames: (save_film(tmp_path / "film.mkv", frames), None)


@pytest.mark.parametrize("grows", [True, False])
def test_a_moving_edge_gives_its_contrast_in_thresholds_at_the_closed_form_times(film, grows):
    frames = edge()
    path, rate = film(frames if grows else frames[::-1])
    source = SimulatedCamera(
        scene="video",
        path=str(path),
        video=Video(passes=1, frame_rate_hz=rate, gamma=1.0),
        width=16,
        height=16,
        gap_us=0,
        threshold_on=0.2,
        threshold_off=0.3,
        step_us=4000,
        **QUIET,
    )
    events, marks = play(source)
    contrast, theta = math.log(1.0 / 0.1), 0.2 if grows else 0.3
    n = math.floor(contrast / theta)
    assert (events["p"] == grows).all()
    assert len(events) == 11 * 16 * n
    for index in range(11):
        column = 2 + index if grows else 12 - index
        here = events[events["x"] == column]
        wanted = 40_000 * index + 40_000 * np.arange(1, n + 1) * theta / contrast
        np.testing.assert_allclose(here["t"].reshape(n, 16), np.repeat(wanted[:, None], 16, axis=1), atol=3.0)
    assert marks == [Reset(0), End(440_000)]


def test_a_still_film_without_noise_is_silent_and_so_is_its_rewinding(film):
    rng = np.random.default_rng(2)
    still = rng.integers(0, 256, (16, 16))
    path, rate = film([still] * 4)
    options = {"scene": "video", "path": str(path), "width": 16, "height": 16, "gap_us": 0, **QUIET}
    events, marks = play(SimulatedCamera(**options, video=Video(passes=2, frame_rate_hz=rate)))
    assert len(events) == 0
    assert marks == [Reset(0), Reset(120_000), End(240_000)]


def test_a_film_is_shown_again_and_labelled(film):
    path, rate = film(edge(4))
    options = {"scene": "video", "path": str(path), "width": 16, "height": 16, "gap_us": 10_000, **QUIET}
    events, marks = play(
        SimulatedCamera(**options, duration_us=290_000, video=Video(frame_rate_hz=rate, label=3, gamma=1.0))
    )
    assert marks == [
        *(Reset(10_000), Label(130_000, 3, 10_000), Reset(140_000), Label(260_000, 3, 140_000), Reset(270_000)),
        End(290_000),
    ]
    first, second = (events[(events["t"] >= at) & (events["t"] < at + 120_000)] for at in (10_000, 140_000))
    assert len(first) == 3 * 16 * math.floor(math.log(10.0) / 0.25)
    assert len(second) == len(first)
    assert events["p"].all()  # rewinding, behind a shutter, darkens nothing


@pytest.mark.parametrize("at", [0, 3, 4, 11, 12, 13, 30])
def test_a_snapshot_in_the_middle_of_a_film_goes_on_bit_for_bit(film, at):
    path, rate = film([frame / 2 + 60 for frame in edge(6)])
    options = {"scene": "video", "path": str(path), "width": 12, "height": 10, "threshold_on": 0.05, "seed": 4}
    make = lambda: SimulatedCamera(**options, video=Video(passes=2, frame_rate_hz=rate))  # noqa: E731 - one line, used at once
    one, other = make(), make()
    for _ in range(at):
        one.poll(50)
    other.restore(one.snapshot())
    (rest, marks), (again, marks_again) = play(one), play(other)
    assert rest.tobytes() == again.tobytes()
    assert marks == marks_again
    assert len(rest) > 100
    assert one.statistics() == other.statistics()


def test_frames_mix_in_the_logarithm_of_their_light():
    rng = np.random.default_rng(5)
    first, second = (rng.uniform(0.1, 1.0, (3, 4)).astype(np.float32) for _ in range(2))
    second[0] = first[0]
    frame = np.empty((3, 4), np.float32)
    fade(first, second, np.log(first.astype(float)), np.log(second.astype(float)), 0.25, frame)
    np.testing.assert_allclose(frame, first**0.75 * second**0.25, rtol=1e-6)
    np.testing.assert_array_equal(frame[0], first[0])


def test_a_frame_depends_on_the_time_alone(film):
    path, rate = film(edge(5))
    one, other = (VideoScene(width=8, height=8, seed=0, path=path, video=Video(frame_rate_hz=rate)) for _ in range(2))
    a, b = np.empty((8, 8), np.float32), np.empty((8, 8), np.float32)
    for at in range(0, 170_000, 7000):
        one.render(at, a)
    for at in (99_000, 160_000, 13_000, 40_000, 39_999):
        one.render(at, a)
        other.show(0)
        other.render(at, b)
        np.testing.assert_array_equal(a, b)


def test_the_middle_of_a_frame_just_fills_the_sensor(tmp_path):
    values = np.zeros((20, 60))
    values[:, 10:50] = 255  # what a sensor twice as wide as high sees
    path = save_folder(tmp_path / "film", [values, values])
    scene = VideoScene(width=20, height=10, seed=0, path=path, video=Video(frame_rate_hz=1.0))
    frame = np.empty((10, 20), np.float32)
    scene.render(0, frame)
    assert frame[:, 1:-1].min() > 0.999
    assert 0.85 < frame[:, [0, -1]].min() < 0.95  # whose light comes from a little further


def test_frames_are_due_when_the_file_says(tmp_path):
    frames = [np.full((16, 16), 20 * index) for index in range(5)]
    times = [0, 10, 50, 55, 200]
    path = save_film(tmp_path / "a.mkv", frames, times=times)
    assert [(t, int(values[0, 0])) for t, values in read_video(path)] == [
        (1000 * time, 20 * index) for index, time in enumerate(times)
    ]
    assert [t for t, _ in read_video(path, 1000.0)] == [0, 1000, 2000, 3000, 4000]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mp4", "mpeg4", "yuv420p"), ("a.mp4", "libx264", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")],
)
def test_values_keep_their_range_whatever_the_codec(tmp_path, name, codec, pixels):
    path = save_film(tmp_path / name, [np.full((32, 48), value) for value in (0, 60, 128, 255)], codec, pixels)
    frames = list(read_video(path))
    assert [values.shape for _, values in frames] == [(32, 48)] * 4
    np.testing.assert_allclose([values.mean() for _, values in frames], [0, 60, 128, 255], atol=3.0)


def test_a_gif_is_a_film(tmp_path):
    pytest.importorskip("av")
    frames = [Image.fromarray(np.asarray(frame, np.uint8)) for frame in edge(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    found = list(read_video(tmp_path / "a.gif"))
    assert [t for t, _ in found] == [0, 40_000, 80_000]
    for (_, values), wanted in zip(found, edge(3), strict=True):
        np.testing.assert_array_equal(values, wanted)


def test_a_film_of_a_turned_telephone_stands_upright(tmp_path):
    values = np.arange(32 * 48).reshape(32, 48) // 8
    path = save_film(tmp_path / "a.mp4", [values, values], "mpeg4", "yuv420p")
    content = path.read_bytes()
    identity, quarter = (
        b"".join(int(number * 65536).to_bytes(4, "big", signed=True) for number in matrix[:8]) + b"\x40\0\0\0"
        for matrix in ((1, 0, 0, 0, 1, 0, 0, 0), (0, 1, 0, -1, 0, 0, 0, 0))
    )
    at = content.index(identity, content.index(b"tkhd"))
    path.write_bytes(content[:at] + quarter + content[at + 36 :])
    turned = next(read_video(path))[1]
    assert turned.shape == (48, 32)
    # a quarter to the right, as the matrix says: what was the left column is the top row, read from below
    np.testing.assert_allclose(turned, np.rot90(values, -1), atol=6.0)


def test_a_damaged_film_is_played_as_far_as_it_goes(tmp_path):
    path = save_folder(tmp_path / "film", edge(6))
    (path / "frame4.png").write_bytes(b"no image")
    source = SimulatedCamera(scene="video", path=str(path), video=Video(frame_rate_hz=25.0), width=16, height=16)
    events, marks = play(source)
    assert len(events) > 100
    assert [type(mark) for mark in marks] == [Reset, End]
    assert "frame4.png" in marks[-1].reason
    fresh = SimulatedCamera(scene="video", path=str(path), video=Video(frame_rate_hz=25.0), width=16, height=16)
    fresh.restore(source.snapshot())
    assert fresh.poll(5) == marks[-1]


@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.7, 0.999])
def test_a_torn_file_never_crashes(tmp_path, keep):
    rng = np.random.default_rng(6)
    path = save_film(tmp_path / "a.mkv", [rng.integers(0, 256, (16, 16)) for _ in range(30)])
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))] + rng.bytes(20))
    n_frames = 0
    with contextlib.suppress(FormatError):
        for _ in read_video(path):
            n_frames += 1
    assert math.floor(30 * keep) - 2 <= n_frames <= 30


def test_what_is_no_film_is_refused(tmp_path):
    one = save_folder(tmp_path / "one", edge(1))
    two = save_folder(tmp_path / "two", edge(2))
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.mp4").write_text("no film")
    rate = Video(frame_rate_hz=30.0)
    for path, video, error, words in [
        (one, rate, FormatError, "one frame only"),
        (tmp_path / "empty", rate, FormatError, "no frame"),
        (two, Video(), ConfigError, "frame_rate_hz = 30"),
        (two, Video(frame_rate_hz=0.0), ConfigError, "frame_rate_hz 0"),
        (two, Video(frame_rate_hz=30.0, label=-1), ConfigError, "label -1"),
        (two, Video(frame_rate_hz=30.0, black=0.0), ConfigError, "black 0"),
        (tmp_path / "none.mp4", rate, FormatError, "no such video"),
    ]:
        with pytest.raises(error, match=words):
            VideoScene(width=8, height=8, seed=0, path=path, video=video)
    pytest.importorskip("av")
    with pytest.raises(FormatError, match="cannot be read as a video"):
        VideoScene(width=8, height=8, seed=0, path=tmp_path / "a.mp4", video=rate)


def test_without_pyav_a_video_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"film")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match="hebbstream\\[video\\]"):
        SimulatedCamera(scene="video", path=str(tmp_path / "a.mp4"))


def test_a_pipeline_file_can_ask_for_it(tmp_path):
    save_folder(tmp_path / "film", edge(3))
    text = f"""
        name = "film"
        [[source]]
        name = "camera"
        kind = "sources.simulated.SimulatedCamera"
        [source.params]
        scene = "video"
        path = "{tmp_path / "film"}"
        video = {{ passes = 1, frame_rate_hz = 30 }}
    """
    (tmp_path / "film.toml").write_text(text)
    _, marks = play(build(load(tmp_path / "film.toml"))["camera"])
    assert marks == [Reset(50_000), End(50_000 + 67_000)]


def test_memory_holds_two_frames_however_long_the_film(tmp_path):
    rng = np.random.default_rng(7)
    path = save_film(tmp_path / "a.mkv", [rng.integers(0, 256, (120, 160)) for _ in range(200)])
    scene = VideoScene(width=160, height=120, seed=0, path=path, video=Video())
    frame = np.empty((120, 160), np.float32)
    scene.render(0, frame)
    tracemalloc.start()
    for at in range(0, 7_960_000, 40_000):
        scene.render(at, frame)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 12 * 160 * 120 * 8  # of 200 frames
