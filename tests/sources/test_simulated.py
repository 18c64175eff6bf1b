"""The simulated camera: closed forms, a reference in plain Python, statistics of its noise."""

import math

import numpy as np
import pytest

from sources.counter_random import random_bits, uniform
from sources.scene_images import Images
from sources.simulated import Camera, CameraParams, SimulatedCamera
from stream.errors import ConfigError
from stream.packet import End, Label, Packet, Reset

QUIET = CameraParams(
    threshold_on=0.1, threshold_off=0.1, mismatch=0.0, refractory_us=0, leak_hz=0.0, shot_noise_hz=0.0, hot_pixels=0
)
NOISY = QUIET._replace(
    mismatch=0.02, refractory_us=700, leak_hz=30.0, shot_noise_hz=60.0, hot_pixels=5, hot_hz=400.0, seed=11
)


def watch(camera, frames, t_us=0):
    """Show frame after frame; returns all events."""
    parts = []
    for index, frame in enumerate(frames):
        parts.append(camera.step(frame, t_us + index * camera.step_us).copy())
    return np.concatenate(parts)


def flicker(n_frames, width, height, seed=1):
    """Random luminance that changes smoothly, with pixels that rest."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, 0.15, (n_frames, height, width)) * (rng.random((n_frames, height, width)) < 0.6)
    return np.exp(np.cumsum(steps, axis=0) * 0.5 - 1.5).astype(np.float32)


def reference(camera, frames):
    """Watch one pixel at a time, in plain Python, from the model as the module describes it."""
    params, state, dt = camera.params, camera.state, camera.step_us
    found = []
    for i in range(camera.width * camera.height):
        level, d = float(state.level[i]), float(state.difference[i])
        on, off = float(state.on[i]), float(state.off[i])
        ready, noise_at, draws = int(state.ready_us[i]), float(state.noise_us[i]), int(state.draws[i])
        hot = bool(state.hot[i])
        rate = params.hot_hz if hot else params.shot_noise_hz
        for k, frame in enumerate(frames):
            start, light = k * dt, float(frame.reshape(-1)[i])
            after = math.log(max(light, 1e-3))
            rise = after - level + params.leak_hz * dt * 1e-6 * on
            level = after
            u, moved = max(0.0, float(ready - start)), False
            while True:
                t_signal = math.inf
                if u < dt:
                    if d >= on or d <= -off:
                        t_signal = u
                    elif rise > 0:
                        t_signal = u + (on - d) / (rise / dt)
                    elif rise < 0:
                        t_signal = u - (off + d) / (rise / dt)
                t_noise = noise_at - start
                if t_noise < dt and t_noise < t_signal:
                    draws += 1
                    noise_at += -math.log(uniform(params.seed, 1000 + i, draws)) * 1e6 / rate
                    polarity = 1
                    if not hot:
                        draws += 1
                        bits = random_bits(params.seed, 1000 + i, draws)
                        polarity = bits % 2
                        share = 1.0 - (1.0 - params.shot_noise_bright) * min(light, 1.0)
                        if bits // 2 >= share * 2**31:
                            continue
                    if t_noise < u:
                        continue
                    at = t_noise
                elif t_signal < dt:
                    at = t_signal
                    polarity = int(d >= on or (rise > 0 and d > -off))
                else:
                    break
                found.append((start + int(at), k, i, polarity))
                d, u, moved = 0.0, at, True
                if params.refractory_us:
                    ready = start + int(at) + params.refractory_us
                    u = float(ready - start)
            if u == 0.0 and not moved:
                d = d + rise if -off < d + rise < on else d + rise / dt * dt
            elif u < dt:
                d += rise / dt * (dt - u)
    found.sort(key=lambda event: (event[1], event[0], event[2]))
    return [(t, i % camera.width, i // camera.width, p) for t, _, i, p in found]


@pytest.mark.parametrize("params", [QUIET, NOISY, NOISY._replace(refractory_us=0), QUIET._replace(leak_hz=200.0)])
def test_bits_agree_with_the_reference(params):
    frames = flicker(40, 9, 7)
    one, other = (Camera(9, 7, params, step_us=500) for _ in range(2))
    for camera in (one, other):
        camera.settle(frames[0])
    wanted = reference(other, frames)
    got = watch(one, frames)
    assert len(wanted) > 100
    assert got.tolist() == wanted


@pytest.mark.parametrize("sign", [1, -1])
def test_a_log_ramp_gives_its_contrast_in_thresholds_at_the_closed_form_times(sign):
    contrast, n_frames, step_us = 1.05, 25, 1000
    camera = Camera(8, 8, QUIET, step_us=step_us)
    start = np.full((8, 8), 0.3, np.float32)
    camera.settle(start)
    levels = math.log(0.3) + sign * contrast * np.arange(1, n_frames + 1) / n_frames
    events = watch(camera, [np.full((8, 8), math.exp(level), np.float32) for level in levels])
    n = math.floor(contrast / 0.1)
    assert len(events) == 64 * n
    assert (events["p"] == (sign > 0)).all()
    for index in range(n):
        wanted = (index + 1) * 0.1 / contrast * n_frames * step_us
        here = events[64 * index : 64 * (index + 1)]
        # luminance is float32: its logarithm is good to 6e-8, which is 1.4 us of this ramp
        assert np.abs(here["t"] - wanted).max() <= 3
        assert here["x"].tolist() == list(range(8)) * 8  # ties stand by pixel


def test_one_step_may_hold_many_crossings():
    camera = Camera(1, 1, QUIET, step_us=1000)
    camera.settle(np.full((1, 1), 0.1, np.float32))
    events = camera.step(np.full((1, 1), 0.1 * math.exp(1.05), np.float32), 0)
    assert events["t"].tolist() == [int(1000 * 0.1 * k / 1.05) for k in range(1, 11)]


def test_a_static_scene_without_noise_is_silent():
    camera = Camera(16, 16, QUIET, step_us=1000)
    frame = flicker(1, 16, 16)[0]
    camera.settle(frame)
    assert len(watch(camera, [frame] * 50)) == 0


def test_hot_pixels_fire_at_their_rate():
    params = QUIET._replace(hot_pixels=20, hot_hz=200.0, seed=3)
    camera = Camera(16, 16, params, step_us=1000)
    frame = np.full((16, 16), 0.5, np.float32)
    camera.settle(frame)
    events = watch(camera, [frame] * 5000)
    pixels = np.unique(events["y"].astype(int) * 16 + events["x"])
    assert len(pixels) == 20
    assert events["p"].all()
    mean = 20 * 200.0 * 5.0
    assert abs(len(events) - mean) < 5 * math.sqrt(mean)


@pytest.mark.parametrize(("light", "share"), [(0.001, 1.0), (1.0, 0.25)])
def test_shot_noise_keeps_its_rate_and_its_signs_in_balance(light, share):
    camera = Camera(32, 32, QUIET._replace(shot_noise_hz=20.0, seed=5), step_us=1000)
    frame = np.full((32, 32), light, np.float32)
    camera.settle(frame)
    events = watch(camera, [frame] * 500)
    mean = 1024 * 20.0 * 0.5 * share
    assert abs(len(events) - mean) < 5 * math.sqrt(mean)
    assert abs(int(events["p"].sum()) - len(events) / 2) < 2.5 * math.sqrt(len(events))


def test_leak_fires_on_events_at_its_rate_and_not_in_step():
    camera = Camera(16, 16, QUIET._replace(leak_hz=10.0, seed=1), step_us=1000)
    frame = np.full((16, 16), 0.5, np.float32)
    camera.settle(frame)
    events = watch(camera, [frame] * 1000)
    assert 256 * 9 <= len(events) <= 256 * 10
    assert events["p"].all()
    assert len(np.unique(events["t"] // 1000)) > 500


def test_refractoriness_is_never_violated():
    camera = Camera(12, 12, NOISY._replace(refractory_us=1500), step_us=400)
    frames = flicker(300, 12, 12)
    camera.settle(frames[0])
    events = watch(camera, frames)
    assert len(events) > 2000
    assert (np.diff(events["t"]) >= 0).all()
    pixel = events["y"].astype(int) * 12 + events["x"]
    gaps = [np.diff(events["t"][pixel == one]) for one in range(144)]
    assert min(gap.min() for gap in gaps) >= 1500


def test_thresholds_differ_as_told():
    camera = Camera(64, 64, QUIET._replace(threshold_on=0.25, mismatch=0.03), step_us=1000)
    assert abs(camera.state.on.mean() - 0.25) < 0.003
    assert abs(camera.state.on.std() - 0.03) < 0.003
    assert abs(np.corrcoef(camera.state.on, camera.state.off)[0, 1]) < 0.1


def test_what_the_readout_cannot_carry_is_counted():
    camera = Camera(8, 8, QUIET._replace(threshold_on=0.001), step_us=1000)
    camera.settle(np.full((8, 8), 0.01, np.float32))
    events = camera.step(np.full((8, 8), 1.0, np.float32), 0)
    assert len(events) + int(camera.state.lost[0]) == 64 * 4605
    assert camera.state.lost[0] > 0


def test_bad_parameters_are_refused():
    for parameters, words in [
        ({"threshold_on": 0.0}, "threshold_on 0"),
        ({"shot_noise_hz": -1.0}, "shot_noise_hz -1"),
        ({"step_us": 0}, "step_us 0"),
        ({"packet_us": 0}, "packet_us 0"),
        ({"scene": "cats"}, "'cats'"),
        ({"scene": "images"}, "no path"),
        ({"path": "cats"}, "'cats' for digits"),
        ({"images": Images()}, "options for images"),
        ({"width": 3}, "3x34"),
    ]:
        with pytest.raises(ConfigError, match=words):
            SimulatedCamera(**parameters)


def test_steps_of_frames_hardly_change_the_stream():
    counts = []
    for step_us in (250, 1000):
        source = SimulatedCamera(duration_us=350_000, seed=2, step_us=step_us, shot_noise_hz=0.0, leak_hz=0.0)
        n = 0
        while not isinstance(message := source.poll(1 << 20), End):
            n += len(message.items) if isinstance(message, Packet) else 0
        counts.append(n)
    assert abs(counts[0] - counts[1]) < 0.03 * counts[0]


def test_objects_last_whole_steps():
    source = SimulatedCamera(scene="shapes", duration_us=900_000, step_us=700, gap_us=1000)
    marks = []
    while not isinstance(message := source.poll(1 << 20), End):
        if isinstance(message, Reset | Label):
            marks.append(message.t_us)
    assert marks == [700, 700 + 400_400, 1400 + 400_400, 1400 + 2 * 400_400, 2100 + 2 * 400_400]
