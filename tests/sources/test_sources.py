"""What every source promises, run over all of them."""

import json

import numpy as np
import pytest
from PIL import Image

from sources.atis_bin import write_atis_bin
from sources.event_file import EventFile
from sources.folder import LabelledFolder, Part
from sources.scene_images import Images
from sources.scene_strokes import Strokes
from sources.scene_video import Video
from sources.simulated import SimulatedCamera
from stream.packet import EVENT_DTYPE, End, Packet

FILES = ["bin", "torn bin", "growing", "text", "folder"]
SCENES = ["digits", "shapes", "gratings", "still", "images", "damaged images", "video", "damaged video", "strokes"]


@pytest.fixture(params=FILES + SCENES)
def build(request, tmp_path, labelled):
    """Return a way to make the same source again and again."""
    name = request.param
    rng = np.random.default_rng(3)
    events = np.zeros(300, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 9_000_000, 300))
    events["x"], events["y"], events["p"] = rng.integers(0, 34, 300), rng.integers(0, 34, 300), rng.integers(0, 2, 300)
    path = tmp_path / "a.bin"
    write_atis_bin(path, events)
    if name == "bin":
        return lambda: EventFile(path=str(path))
    if name == "torn bin":
        path.write_bytes(path.read_bytes()[:-3])
        return lambda: EventFile(path=str(path), width=30, height=30)
    if name == "growing":
        return lambda: EventFile(path=str(path), width=34, height=34, follow_s=0.05)
    if name == "text":
        path = tmp_path / "a.csv"
        path.write_text("t,x,y,p\n" + "".join(f"{t},{x},{y},{p}\n" for t, x, y, p in events.tolist()))
        return lambda: EventFile(path=str(path))
    if name == "folder":
        parts = [Part(path=str(labelled), passes=2), Part(path=str(labelled), teach=False, limit=4, shuffle_seed=None)]
        return lambda: LabelledFolder(parts=parts, width=34, height=34, barrier_every=3)
    if name == "still":
        return lambda: SimulatedCamera(
            duration_us=60_000, gap_us=50_000, shot_noise_hz=0.0, leak_hz=0.0, width=16, height=16
        )
    options = {"width": 16, "height": 16, "gap_us": 20_000, "hot_pixels": 1, "seed": 5}
    if name.endswith(("images", "video")):
        options |= {"threshold_on": 0.5, "threshold_off": 0.5}
    if name.endswith("images"):
        for label in ("0", "1"):
            (tmp_path / "i" / label).mkdir(parents=True)
            for index in range(2):
                pixels = rng.integers(0, 256, (9, 12)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "i" / label / f"{index}.png")
        if name.startswith("damaged"):  # not 1/0.png: with seed 5 it comes first, and the constructor would raise
            (tmp_path / "i" / "1" / "1.png").write_bytes(b"no image")
        images = Images(passes=2, saccade_us=30_000)
        return lambda: SimulatedCamera(scene="images", path=str(tmp_path / "i"), images=images, **options)
    if name.endswith("video"):
        (tmp_path / "v").mkdir()
        for index in range(8):
            pixels = rng.integers(0, 256, (16, 20)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "v" / f"{index}.png")
        if name.startswith("damaged"):
            (tmp_path / "v" / "5.png").write_bytes(b"no image")
        video = Video(passes=2, frame_rate_hz=30.0)
        return lambda: SimulatedCamera(scene="video", path=str(tmp_path / "v"), video=video, **options)
    if name == "strokes":
        (tmp_path / "s.json").write_text(json.dumps([[[0, 0, 0], [9, 9, 120]], [[9, 0, 160], [0, 9, 300]]]))
        strokes = Strokes(passes=2)
        return lambda: SimulatedCamera(scene="strokes", path=str(tmp_path / "s.json"), strokes=strokes, **options)
    return lambda: SimulatedCamera(
        scene=name,
        width=16,
        height=16,
        duration_us=1_000_000,
        gap_us=20_000,
        hot_pixels=1,
        threshold_on=0.5,
        threshold_off=0.5,
    )


def play(source, max_items):
    """Return what a stream holds, however it is cut: events, and marks with the number of events before them."""
    parts, marks, n = [np.empty(0, EVENT_DTYPE)], [], 0
    start = last = -(2**62)
    for _ in range(100_000):
        message = source.poll(max_items)
        if isinstance(message, Packet):
            assert len(message.items) <= max_items
            assert message.items.dtype == EVENT_DTYPE
            assert message.items.flags.c_contiguous
            assert start <= message.start_us <= message.end_us
            assert last <= message.start_us
            start = message.start_us
            if len(message.items):
                t = message.items["t"]
                assert message.start_us <= t[0]
                assert t[-1] < message.end_us
                assert last <= t[0]
                assert (np.diff(t) >= 0).all()
                last = int(t[-1])
            parts.append(message.items.copy())
            n += len(message.items)
        elif message is not None:
            assert message.t_us >= last
            last = message.t_us
            marks.append((n, message))
            if isinstance(message, End):
                break
    events = np.concatenate(parts)
    port = source.outputs["events"]
    assert (events["x"] < port.width).all()
    assert (events["y"] < port.height).all()
    assert source.poll(max_items) == message  # End again
    return events, marks


def test_twice_gives_the_same_bits(build):
    events, marks = play(build(), 1000)
    again, marks_again = play(build(), 1000)
    assert events.tobytes() == again.tobytes()
    assert marks == marks_again


@pytest.mark.parametrize("max_items", [1, 7, 1 << 40])
def test_cuts_carry_no_meaning(build, max_items):
    events, marks = play(build(), 1000)
    cut, cut_marks = play(build(), max_items)
    assert events.tobytes() == cut.tobytes()
    assert marks == cut_marks


def test_a_snapshot_anywhere_continues_bit_for_bit(build):
    source = build()
    events, marks = play(build(), 50)
    n = n_marks = step = 0
    message = None
    while not isinstance(message, End):
        if step % 17 == 0 or step < 12 or n >= len(events) - 60:
            fresh = build()
            snapshot = source.snapshot()
            assert all(isinstance(array, np.ndarray) and array.dtype.kind in "biuf" for array in snapshot.values())
            fresh.restore(snapshot)
            rest, rest_marks = play(fresh, 1000)
            assert rest.tobytes() == events[n:].tobytes()
            assert [mark for _, mark in rest_marks] == [mark for _, mark in marks[n_marks:]]
        message = source.poll(50)
        step += 1
        n, n_marks = (n + len(message.items), n_marks) if isinstance(message, Packet) else (n, n_marks + 1)
    fresh = build()
    fresh.restore(source.snapshot())
    ended = fresh.poll(10)
    while ended is None:  # a growing file has ended when it did not grow for a while
        ended = fresh.poll(10)
    assert ended == message
    assert fresh.statistics() == source.statistics()
    source.close()
    source.close()
