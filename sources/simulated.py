"""A simulated event camera before a moving scene.

Each pixel of a dynamic vision sensor (Lichtsteiner, Posch and Delbruck 2008) amplifies the change of the logarithm of
its light, L = log(luminance), since its last event::

    d(t) = L(t) - L(t_reset) + leak            d >= theta_on: ON event;   d <= -theta_off: OFF event

and an event of whatever cause resets it: ``d = 0``, and it is held there for the refractory time. With L linear
between two frames, as ESIM assumes (Rebecq, Gehrig and Scaramuzza 2018), the crossing is where a straight line meets
a threshold, so event times are exact to the microsecond whatever the frame step. As in v2e (Hu, Liu and Delbruck
2021):

- thresholds differ from pixel to pixel (Gaussian mismatch, fixed at the start);
- the switch that resets a pixel leaks: d creeps up by theta_on a leak period, so a pixel in the dark fires ON
  events at ``leak_hz``;
- photons and electrons are shot: events of either sign at random, most in the dark (``shot_noise_hz``), fewer in the
light;
- some pixels are hot and fire ON events at random, whatever they see.

Noise differs from v2e in one point: there it is laid over the signal, here a noise event resets its pixel like any
other, since the circuit cannot tell. Roads not taken: the finite bandwidth of the photoreceptor (v2e's low-pass; it
matters in dim light), and times quantised by the readout bus.

Random numbers are looked up by (seed, pixel, count), see ``counter_random``: neither packets nor the order of pixels
matter.
"""

import math
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import gaussian, random_bits, uniform
from sources.data_path import expand_path
from sources.scene import Scene, SceneName, scene_of
from sources.scene_images import Images, ImageScene
from sources.scene_strokes import Strokes, StrokeScene
from sources.scene_video import Video, VideoScene
from stream.errors import ConfigError, FormatError
from stream.jit import kernel
from stream.operator import Port, Snapshot, Source, check_shapes
from stream.packet import EVENT_DTYPE, End, Label, Message, Packet, Reset

__all__ = ["Camera", "CameraParams", "CameraState", "SimulatedCamera", "camera_settle", "camera_start", "camera_step"]

# Streams of random numbers of a camera; a pixel's noise is stream _NOISE + pixel.
_MISMATCH_ON, _MISMATCH_OFF, _LEAK_PHASE, _HOT, _NOISE = 101, 102, 103, 104, 1000

_DARKEST = 1e-3  # luminance below which a pixel sees black: keeps the logarithm finite


class CameraParams(NamedTuple):
    """What a camera is like."""

    threshold_on: float = 0.25  # natural-log units of contrast
    threshold_off: float = 0.25
    mismatch: float = 0.03  # deviation of the thresholds between pixels, natural-log units
    refractory_us: int = 500
    leak_hz: float = 0.1  # ON events of a pixel in constant light
    shot_noise_hz: float = 1.0  # events of a pixel in the dark
    shot_noise_bright: float = 0.25  # that rate in white light, as a part of the dark one
    hot_pixels: int = 0
    hot_hz: float = 100.0  # events of a hot pixel
    seed: int = 0


class CameraState(NamedTuple):
    """Where each pixel stands. All arrays have shape (height * width,), row by row, but for ``lost``."""

    luminance: NDArray[np.float32]  # at the last frame
    level: NDArray[np.float64]  # its logarithm
    difference: NDArray[np.float64]  # d: what the pixel amplifies
    ready_us: NDArray[np.int64]  # end of refractoriness
    noise_us: NDArray[np.float64]  # next candidate of a noise event
    draws: NDArray[np.int64]  # random numbers looked up for noise so far
    on: NDArray[np.float64]  # threshold of the pixel
    off: NDArray[np.float64]
    hot: NDArray[np.uint8]
    lost: NDArray[np.int64]  # (1,) events that did not fit into the buffer


@kernel
def _next_noise(state: CameraState, params: CameraParams, pixel: int) -> float:
    """Look up how long a pixel waits for its next candidate of a noise event, us."""
    rate = params.hot_hz if state.hot[pixel] else params.shot_noise_hz
    if rate <= 0.0:
        return math.inf
    state.draws[pixel] += 1
    return -math.log(uniform(params.seed, _NOISE + pixel, int(state.draws[pixel]))) * 1e6 / rate


@kernel
def camera_start(state: CameraState, params: CameraParams, t_us: int) -> None:
    """Draw a camera: mismatch, hot pixels, first noise; ``state`` comes full of zeros."""
    n_pixels = len(state.level)
    for pixel in range(n_pixels):
        # a threshold ten times lower than its neighbours' is a broken pixel, not mismatch
        state.on[pixel] = max(
            params.threshold_on + params.mismatch * gaussian(params.seed, _MISMATCH_ON, pixel),
            0.1 * params.threshold_on,
        )
        state.off[pixel] = max(
            params.threshold_off + params.mismatch * gaussian(params.seed, _MISMATCH_OFF, pixel),
            0.1 * params.threshold_off,
        )
        state.ready_us[pixel] = t_us
        if params.leak_hz > 0.0:  # else all pixels leaked in step
            state.difference[pixel] = state.on[pixel] * uniform(params.seed, _LEAK_PHASE, pixel)
    n_hot = 0
    count = 0
    while n_hot < min(params.hot_pixels, n_pixels):
        pixel = int(uniform(params.seed, _HOT, count) * n_pixels)
        count += 1
        if not state.hot[pixel]:
            state.hot[pixel] = 1
            n_hot += 1
    for pixel in range(n_pixels):
        state.noise_us[pixel] = t_us + _next_noise(state, params, pixel)


@kernel
def camera_settle(state: CameraState, frame: NDArray[np.float32]) -> None:
    """Let every pixel get used to a frame without an event, as behind a closed shutter."""
    for pixel in range(len(frame)):
        state.luminance[pixel] = frame[pixel]
        state.level[pixel] = math.log(max(float(frame[pixel]), _DARKEST))


@kernel
def camera_step(
    state: CameraState,
    params: CameraParams,
    frame: NDArray[np.float32],
    t_us: int,
    dt_us: int,
    width: int,
    unsorted: NDArray[np.void],
    starts: NDArray[np.int64],
    events: NDArray[np.void],
) -> int:
    """Let light go over from the last frame to this one.

    Parameters
    ----------
    frame
        Luminance at ``t_us + dt_us``, float32, shape (height * width,), row by row.
    t_us, dt_us
        The step; its events lie in [t_us, t_us + dt_us).
    width
        Pixels in a row.
    unsorted, events
        EVENT_DTYPE, same shape: working space, and the events of the step sorted by time, ties by pixel. What does
        not fit is counted in ``state.lost``.
    starts
        int64, shape (dt_us + 1,): working space.

    Returns
    -------
    n_events
        How many events were written.
    """
    n_events = 0
    end_us = t_us + dt_us
    leak = params.leak_hz * dt_us * 1e-6
    for pixel in range(len(frame)):
        before = state.level[pixel]
        after = before
        if frame[pixel] != state.luminance[pixel]:
            state.luminance[pixel] = frame[pixel]
            after = math.log(max(float(frame[pixel]), _DARKEST))
            state.level[pixel] = after
        on = state.on[pixel]
        off = state.off[pixel]
        rise = after - before + leak * on
        d = state.difference[pixel]
        if state.ready_us[pixel] <= t_us and state.noise_us[pixel] >= end_us and -off < d < on and -off < d + rise < on:
            state.difference[pixel] = d + rise
            continue
        slope = rise / dt_us
        u = max(0.0, float(state.ready_us[pixel] - t_us))  # time since t_us up to which the pixel is known
        while True:
            crossing = math.inf
            if u < dt_us:
                if d >= on or d <= -off:
                    crossing = u
                elif slope > 0.0:
                    crossing = u + (on - d) / slope
                elif slope < 0.0:
                    crossing = u - (off + d) / slope
            noise = state.noise_us[pixel] - t_us
            if noise < dt_us and noise < crossing:
                state.noise_us[pixel] += _next_noise(state, params, pixel)
                polarity = 1
                if not state.hot[pixel]:
                    state.draws[pixel] += 1
                    bits = random_bits(params.seed, _NOISE + pixel, int(state.draws[pixel]))
                    polarity = bits & 1
                    bright = min(max(float(frame[pixel]), 0.0), 1.0)
                    if (bits >> 1) >= (1.0 - (1.0 - params.shot_noise_bright) * bright) * 2147483648.0:
                        continue
                if noise < u:  # refractory
                    continue
                at = noise
            elif crossing < dt_us:
                at = crossing
                polarity = 1 if (d >= on or (slope > 0.0 and d > -off)) else 0
            else:
                break
            at_us = t_us + int(at)
            if n_events < len(unsorted):
                event = unsorted[n_events]
                event["t"] = at_us
                event["x"] = pixel % width
                event["y"] = pixel // width
                event["p"] = polarity
                n_events += 1
            else:
                state.lost[0] += 1
            d = 0.0
            u = at
            if params.refractory_us > 0:
                state.ready_us[pixel] = at_us + params.refractory_us
                u = float(state.ready_us[pixel] - t_us)
        if u < dt_us:
            d += slope * (dt_us - u)
        state.difference[pixel] = d
    # counting sort: stable, and times within a step are few
    for bin in range(dt_us + 1):
        starts[bin] = 0
    for index in range(n_events):
        starts[unsorted[index]["t"] - t_us + 1] += 1
    for bin in range(dt_us):
        starts[bin + 1] += starts[bin]
    for index in range(n_events):
        event = unsorted[index]
        place = starts[event["t"] - t_us]
        starts[event["t"] - t_us] += 1
        out = events[place]
        out["t"] = event["t"]
        out["x"] = event["x"]
        out["y"] = event["y"]
        out["p"] = event["p"]
    return n_events


class Camera:
    """The arrays of a simulated camera, and one call a frame.

    Parameters
    ----------
    width, height
        Pixels.
    params
        What the camera is like.
    step_us
        Time between frames, us.
    start_us
        Time of the first frame.

    Raises
    ------
    ConfigError
        A parameter is out of range.
    """

    def __init__(self, width: int, height: int, params: CameraParams, *, step_us: int, start_us: int = 0) -> None:
        if not (0 < width <= 65535 and 0 < height <= 65535 and 0 < step_us <= 1_000_000):
            raise ConfigError(
                f"simulated camera: got {width}x{height} pixels and step_us {step_us}; "
                f"wanted sides of 1 to 65535 and a step of 1 to 1000000"
            )
        if params.threshold_on <= 0.0 or params.threshold_off <= 0.0:
            raise ConfigError(
                f"simulated camera: got threshold_on {params.threshold_on} and threshold_off {params.threshold_off}; "
                f"wanted them above 0 (0.2 to 0.3 is usual)"
            )
        for name, value in params._asdict().items():
            if value < 0:
                raise ConfigError(f"simulated camera: got {name} {value}; wanted it from 0 on")
        self.width, self.height, self.step_us = width, height, step_us
        # one type for each parameter, whatever a file wrote: else the kernels are compiled again
        self.params = CameraParams(
            threshold_on=float(params.threshold_on),
            threshold_off=float(params.threshold_off),
            mismatch=float(params.mismatch),
            refractory_us=int(params.refractory_us),
            leak_hz=float(params.leak_hz),
            shot_noise_hz=float(params.shot_noise_hz),
            shot_noise_bright=float(params.shot_noise_bright),
            hot_pixels=int(params.hot_pixels),
            hot_hz=float(params.hot_hz),
            seed=int(params.seed),
        )
        n = width * height
        self.state = CameraState(
            luminance=np.zeros(n, np.float32),
            level=np.zeros(n, np.float64),
            difference=np.zeros(n, np.float64),
            ready_us=np.zeros(n, np.int64),
            noise_us=np.zeros(n, np.float64),
            draws=np.zeros(n, np.int64),
            on=np.zeros(n, np.float64),
            off=np.zeros(n, np.float64),
            hot=np.zeros(n, np.uint8),
            lost=np.zeros(1, np.int64),
        )
        camera_start(self.state, self.params, start_us)
        # A pixel that fired sixteen times a millisecond would outrun any readout there is; 1024 for tiny sensors.
        capacity = 1024 + n * max(1, 16 * step_us // 1000)
        self._unsorted = np.zeros(capacity, EVENT_DTYPE)
        self._events = np.zeros(capacity, EVENT_DTYPE)
        self._starts = np.zeros(step_us + 1, np.int64)

    def settle(self, frame: NDArray[np.float32]) -> None:
        """Get used to a frame, float32, shape (height, width), without an event."""
        camera_settle(self.state, frame.reshape(-1))

    def step(self, frame: NDArray[np.float32], t_us: int) -> NDArray[np.void]:
        """See the light go over to ``frame`` (float32, shape (height, width)) until ``t_us + step_us``.

        Returns
        -------
        events
            EVENT_DTYPE, shape (n,), sorted, in [t_us, t_us + step_us). Valid until the next step.
        """
        n_events = camera_step(
            self.state,
            self.params,
            frame.reshape(-1),
            t_us,
            self.step_us,
            self.width,
            self._unsorted,
            self._starts,
            self._events,
        )
        return self._events[:n_events]


class _SizeAndSeed(TypedDict):
    width: int
    height: int
    seed: int


# What the stream stands before: the gap before an object, its events, its label.
_GAP, _OBJECT, _LABEL = range(3)


class SimulatedCamera(Source):
    """A simulated camera before a scene, endless or for a while.

    Each object of the scene is ``Reset(t0)``, its events, ``Label(t_end, start_us=t0)``. Before it, for ``gap_us``,
    it stands still, so that only noise is seen; the camera has got used to it as behind a shutter. An object that
    ``duration_us`` cuts off gets no label; neither does a video without one.

    A file that turns out to be damaged ends the stream; ``End`` says why, after everything before it.

    Parameters
    ----------
    scene
        What is seen: written digits (labels 0 to 9), shapes (0 to 3) or drifting gratings (0 to 7), made on the spot;
        or ``"images"``, ``"video"`` or ``"strokes"`` out of files.
    path
        Of the files, for those three: see ``sources.scene_images``, ``scene_video`` and ``scene_strokes``; may hold
        ``~`` and environment variables.
    images, video, strokes
        How they are shown, each for the scene of its name: ``images = { passes = 1, size = 1.5 }``.
    width, height
        Pixels.
    duration_us
        Length of the stream, rounded down to whole frame steps; None = until the files have been shown as often as
        their ``passes`` say, without end if they say nothing.
    seed
        Fixes scene and noise; the same seed gives the same bits.
    teach
        What the marks say: whether the stream may be learned from.
    gap_us
        Stillness before each object, rounded down to whole frame steps.
    step_us
        Time between rendered frames. Event times are interpolated between them, so this limits how fast things may
        move (a pixel a step, say), not how exact times are. Objects last whole steps, rounded up. For a video a
        fraction of its frame time is enough.
    packet_us
        Stream time gathered in a packet, for efficiency alone.
    threshold_on, threshold_off, mismatch, refractory_us, leak_hz, shot_noise_hz, shot_noise_bright, hot_pixels, hot_hz
        See ``CameraParams``.

    Raises
    ------
    ConfigError
        A parameter is out of range, or there are no files.
    FormatError
        The first file cannot be read.
    """

    def __init__(
        self,
        *,
        scene: SceneName | Literal["images", "video", "strokes"] = "digits",
        path: str | None = None,
        images: Images | None = None,
        video: Video | None = None,
        strokes: Strokes | None = None,
        width: int = 34,
        height: int = 34,
        duration_us: int | None = None,
        seed: int = 0,
        teach: bool = True,
        gap_us: int = 50_000,
        step_us: int = 1000,
        packet_us: int = 10_000,
        threshold_on: float = 0.25,
        threshold_off: float = 0.25,
        mismatch: float = 0.03,
        refractory_us: int = 500,
        leak_hz: float = 0.1,
        shot_noise_hz: float = 1.0,
        shot_noise_bright: float = 0.25,
        hot_pixels: int = 0,
        hot_hz: float = 100.0,
    ) -> None:
        if min(width, height) < 8:
            raise ConfigError(
                f"simulated camera: got {width}x{height} pixels; wanted sides from 8 on to show a {scene}"
            )
        params = CameraParams(
            threshold_on=threshold_on,
            threshold_off=threshold_off,
            mismatch=mismatch,
            refractory_us=refractory_us,
            leak_hz=leak_hz,
            shot_noise_hz=shot_noise_hz,
            shot_noise_bright=shot_noise_bright,
            hot_pixels=hot_pixels,
            hot_hz=hot_hz,
            seed=seed,
        )
        self._camera = Camera(width, height, params, step_us=step_us)
        if gap_us < 0 or packet_us < 1 or (duration_us is not None and duration_us < 0):
            raise ConfigError(
                f"simulated camera: got gap_us {gap_us}, packet_us {packet_us}, duration_us {duration_us}; "
                f"wanted packets from 1 us on, and the others from 0 on"
            )
        for name, options in (("images", images), ("video", video), ("strokes", strokes)):
            if options is not None and scene != name:
                raise ConfigError(
                    f"simulated camera: got scene {scene!r} and options for {name}; "
                    f"say scene = {name!r}, or leave them out"
                )
        size_and_seed = _SizeAndSeed(width=width, height=height, seed=seed)
        if scene in ("digits", "shapes", "gratings"):
            if path is not None:
                raise ConfigError(
                    f"simulated camera: got path {path!r} for {scene}, which are in no file; leave it out, or say "
                    f"scene = 'images', 'video' or 'strokes'"
                )
            self._scene: Scene = scene_of(scene, **size_and_seed)
        elif scene in ("images", "video", "strokes"):
            if path is None:
                raise ConfigError(f"simulated camera: got scene {scene!r} and no path; say path = ... of its files")
            place: Path = expand_path(path)
            if scene == "images":
                self._scene = ImageScene(**size_and_seed, path=place, images=images or Images())
            elif scene == "video":
                self._scene = VideoScene(**size_and_seed, path=place, video=video or Video())
            else:
                self._scene = StrokeScene(**size_and_seed, path=place, strokes=strokes or Strokes())
        else:
            raise ConfigError(
                f"simulated camera: got scene {scene!r}, wanted digits, shapes, gratings, images, video or strokes"
            )
        self.outputs = {"events": Port("events", width, height)}
        self._teach = teach
        self._step_us = step_us
        self._gap_us = gap_us // step_us * step_us
        self._packet_us = packet_us
        self._end_us = None if duration_us is None else duration_us // step_us * step_us
        self._frame = np.empty((height, width), np.float32)
        self._pending = np.empty(0, EVENT_DTYPE)
        self._span = (0, 0)  # of the pending events
        self._is_pending = False
        self._now_us = 0
        self._number = 0  # of the object on the stage
        self._object_start_us = self._gap_us
        self._stage = _GAP
        self._n_events = 0
        self._label: int | None = None
        self._fault = ""
        if self._number != self._scene.n_objects:
            self._show()

    def poll(self, max_items: int) -> Message | None:
        """Hand out a mark, or the events of the next ``packet_us``, at most ``max_items`` at a time."""
        if self._is_pending:
            return self._hand_out(max_items)
        if self._stage == _LABEL:
            mark, object_end = None, self._object_end()
            if self._label is not None:
                mark = Label(object_end, self._label, self._object_start_us, self._teach)
            self._number += 1
            self._object_start_us = object_end + self._gap_us
            self._stage = _GAP
            if self._number != self._scene.n_objects:
                try:
                    self._show()
                except FormatError as error:
                    self._fault = str(error)
            if mark is not None:
                return mark
        if self._end_us is not None and self._now_us >= self._end_us:
            return End(self._end_us)
        if self._fault or self._number == self._scene.n_objects:
            return End(self._now_us, self._fault)
        if self._stage == _GAP and self._now_us >= self._object_start_us:
            self._stage = _OBJECT
            return Reset(self._object_start_us, self._teach)
        self._look()
        if self._stage == _OBJECT and self._now_us >= self._object_end():
            self._stage = _LABEL
        return self._hand_out(max_items)

    def _show(self) -> None:
        """Put the object of this number on the stage, behind a closed shutter."""
        self._label = self._scene.show(self._number)
        self._scene.render(0, self._frame)
        self._camera.settle(self._frame)

    def _object_end(self) -> int:
        """Return when the object on the stage will be over, as far as its scene knows."""
        return self._object_start_us - -self._scene.object_us // self._step_us * self._step_us

    def _until(self) -> int:
        """Return up to where the camera may look before a mark is due."""
        until = self._object_start_us if self._stage == _GAP else self._object_end()
        return until if self._end_us is None else min(until, self._end_us)

    def _look(self) -> None:
        """Gather events for one packet."""
        start = self._now_us
        parts: list[NDArray[np.void]] = []
        while self._now_us < min(self._until(), start + self._packet_us):
            after = self._now_us + self._step_us - self._object_start_us
            if after > 0:  # before, the object stands still
                try:
                    self._scene.render(after, self._frame)
                except FormatError as error:
                    self._fault = str(error)
                    break
            events = self._camera.step(self._frame, self._now_us)
            if len(events):
                parts.append(events.copy())
            self._now_us += self._step_us
        self._pending = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, EVENT_DTYPE), *parts])
        self._span = (start, self._now_us)
        self._is_pending = True

    def _hand_out(self, max_items: int) -> Packet:
        """Hand out the first of the pending events; a quiet time is an empty packet, which moves time on."""
        items = self._pending[: max(1, max_items)]
        self._pending = self._pending[len(items) :]
        self._is_pending = len(self._pending) > 0
        self._n_events += len(items)
        start, end = self._span
        if self._is_pending:
            end = int(items["t"][-1]) + 1
            self._span = (int(items["t"][-1]), self._span[1])
        return Packet(items, start, end)

    def snapshot(self) -> Snapshot:
        """Return every pixel, the object on the stage, and the events not handed out yet."""
        snapshot: Snapshot = {f"camera.{name}": array.copy() for name, array in self._camera.state._asdict().items()}
        snapshot["pending"] = np.frombuffer(self._pending.tobytes(), np.uint8).copy()
        snapshot["fault"] = np.frombuffer(self._fault.encode(), np.uint8).copy()
        snapshot["position"] = np.array(
            [
                self._now_us,
                self._number,
                self._object_start_us,
                self._stage,
                self._is_pending,
                self._span[0],
                self._span[1],
                self._n_events,
            ],
            np.int64,
        )
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there; ConfigError if it is of a camera of another size, FormatError if a file is gone."""
        snapshot = dict(snapshot)
        pending, fault = (np.asarray(snapshot.pop(name, np.empty(0))) for name in ("pending", "fault"))
        wanted = {f"camera.{name}": array for name, array in self._camera.state._asdict().items()}
        check_shapes("simulated camera", {**wanted, "position": np.empty(8, np.int64)}, snapshot)
        if pending.dtype != np.uint8 or len(pending) % EVENT_DTYPE.itemsize or fault.dtype != np.uint8:
            raise ConfigError(
                f"snapshot of simulated camera: pending is {pending.dtype} {pending.shape}, fault {fault.dtype}; "
                f"wanted uint8, 13 an event, and uint8; restore the snapshot of a simulated camera"
            )
        for name, array in wanted.items():
            array[...] = snapshot[name]
        now, number, object_start, stage, is_pending, start, end, n_events = (int(n) for n in snapshot["position"])
        self._now_us, self._number, self._object_start_us, self._stage = now, number, object_start, stage
        self._is_pending, self._span, self._n_events = bool(is_pending), (start, end), n_events
        self._pending = np.frombuffer(bytearray(pending.tobytes()), EVENT_DTYPE)
        self._fault = bytes(fault).decode()
        if not self._fault and number != self._scene.n_objects:
            self._label = self._scene.show(number)
            self._scene.render(max(0, now - object_start), self._frame)

    @property
    def class_names(self) -> tuple[str, ...]:
        """What labels 0, 1, ... mean; () where they speak for themselves."""
        return self._scene.class_names

    @property
    def is_endless(self) -> bool:
        """Whether the stream never ends by itself."""
        return self._end_us is None and self._scene.n_objects is None

    @property
    def is_labelled(self) -> bool:
        """Whether objects of this scene have labels."""
        return self._scene.is_labelled

    def close(self) -> None:
        """Close the scene's files."""
        self._scene.close()

    def statistics(self) -> dict[str, float]:
        """Return what was seen so far."""
        return {
            "events": self._n_events,
            "objects": self._number,
            "stream s": self._now_us * 1e-6,
            "lost in readout": int(self._camera.state.lost[0]),
        }
