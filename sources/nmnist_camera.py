"""A simulated camera that sees MNIST as N-MNIST's sensor saw it.

N-MNIST (Orchard, Jayawant, Cohen and Thakor, Front. Neurosci. 9:437, 2015) is MNIST on a screen before an ATIS on a
pan-tilt head that makes three saccades. What the recordings do not say, how far, how fast, how bright, was measured on
801 of them, the part of its training set at hand, by ``sources.saccade_fit`` and the pictures they show::

    hebbstream eval camera nmnist/train --images mnist/train-images-idx3-ubyte.gz --out RUN

- The path is no triangle of even sides: about 85, 75 and 75 ms of motion within 315 ms, the last one off with a jerk.
- Polarity is that of dark ink on a bright screen: a network that learned from bright ink meets every edge inside out.
  This alone is the difference between a tenth of the events at their place and nine tenths.
- Threshold, refractory time, noise, blur and the screen's light were set so that events a recording, their spread, the
  times after which a pixel fires again, noise at the border and the place of events in maps of 25 ms agree.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.scene_images import Images, ImageScene
from sources.simulated import Camera, CameraParams, SimulatedCamera
from stream.packet import EVENT_DTYPE

__all__ = ["NMNIST_CAMERA", "NMNIST_GAZE", "NMNIST_SIDE", "nmnist_camera", "nmnist_images", "nmnist_recordings"]

NMNIST_SIDE = 34  # pixels of the sensor's part that is kept
NMNIST_CAMERA = CameraParams(
    threshold_on=0.38,
    threshold_off=0.37,
    mismatch=0.03,
    refractory_us=600,
    leak_hz=0.1,
    shot_noise_hz=1.4,
)
_LEG_US = 5000
_STEP_US = 1000  # between rendered frames; the picture goes at most a sixth of a pixel in it
_SILENCE_US = 100_000  # between recordings, so that no pixel is still refractory

# Where the gaze stood every 5 ms, pixels off the middle: to the right, down. The picture goes the other way.
NMNIST_GAZE: tuple[tuple[float, float], ...] = (
    (2.51, 2.02),
    (2.52, 2.00),
    (2.54, 1.95),
    (2.56, 1.83),
    (2.59, 1.63),
    (2.62, 1.31),
    (2.66, 0.88),
    (2.67, 0.36),
    (2.66, -0.24),
    (2.61, -0.88),
    (2.49, -1.50),
    (2.29, -2.07),
    (2.00, -2.56),
    (1.69, -2.96),
    (1.40, -3.26),
    (1.18, -3.43),
    (1.06, -3.51),
    (1.00, -3.54),
    (0.96, -3.54),
    (0.92, -3.51),
    (0.86, -3.48),
    (0.80, -3.45),
    (0.72, -3.43),
    (0.62, -3.42),
    (0.50, -3.41),
    (0.30, -3.34),
    (0.01, -3.17),
    (-0.35, -2.86),
    (-0.71, -2.44),
    (-1.03, -1.94),
    (-1.29, -1.39),
    (-1.44, -0.83),
    (-1.55, -0.30),
    (-1.69, 0.23),
    (-1.87, 0.70),
    (-2.05, 1.06),
    (-2.20, 1.29),
    (-2.30, 1.41),
    (-2.38, 1.45),
    (-2.45, 1.46),
    (-2.54, 1.45),
    (-2.65, 1.44),
    (-2.75, 1.43),
    (-2.83, 1.43),
    (-2.88, 1.45),
    (-2.88, 1.46),
    (-2.78, 1.47),
    (-2.52, 1.48),
    (-2.09, 1.46),
    (-1.61, 1.47),
    (-1.13, 1.51),
    (-0.62, 1.54),
    (-0.09, 1.56),
    (0.42, 1.61),
    (0.88, 1.65),
    (1.26, 1.71),
    (1.55, 1.77),
    (1.81, 1.81),
    (2.03, 1.82),
    (2.18, 1.81),
    (2.25, 1.80),
    (2.27, 1.80),
    (2.28, 1.80),
    (2.28, 1.80),
)


def nmnist_images(*, passes: int | None = None, skip: int = 0) -> Images:
    """Return how MNIST's pictures were shown; ``passes`` and ``skip`` as for ``Images``."""
    return Images(
        passes=passes,
        skip=skip,
        invert=True,
        gamma=2.2,
        black=0.05,
        blur=0.5,
        saccade_us=_LEG_US,
        reach=1 / NMNIST_SIDE,
        corners=NMNIST_GAZE,
        gentle=False,
    )


def nmnist_camera(path: str, *, passes: int | None = None, skip: int = 0, seed: int = 0) -> SimulatedCamera:
    """Return the camera before MNIST's pictures, or others of their kind.

    Parameters
    ----------
    path
        Of the file of images, or a folder of them.
    passes, skip
        As for ``Images``. The first 1,000 of MNIST's training images are those of the first 1,000 recordings of
        N-MNIST's training set: who wants to be asked about these skips them.
    seed
        Fixes order and noise.
    """
    return SimulatedCamera(
        scene="images",
        path=path,
        images=nmnist_images(passes=passes, skip=skip),
        width=NMNIST_SIDE,
        height=NMNIST_SIDE,
        seed=seed,
        **{name: value for name, value in NMNIST_CAMERA._asdict().items() if name != "seed"},
    )


def nmnist_recordings(path: str | Path, pictures: Sequence[int], *, seed: int = 0) -> list[NDArray[np.void]]:
    """Record given pictures of a file of MNIST's: EVENT_DTYPE each, times from the recording's start.

    Raises
    ------
    FormatError
        The file is damaged.
    """
    images = nmnist_images(passes=1)
    scene = ImageScene(width=NMNIST_SIDE, height=NMNIST_SIDE, seed=seed, path=Path(path), images=images)
    number_of = {scene.file_of(number): number for number in range(scene.n_objects or 0)}
    camera = Camera(NMNIST_SIDE, NMNIST_SIDE, NMNIST_CAMERA._replace(seed=seed), step_us=_STEP_US)
    frame = np.empty((NMNIST_SIDE, NMNIST_SIDE), np.float32)
    recordings = []
    for k, picture in enumerate(pictures):
        scene.show(number_of[picture])
        start_us = k * (scene.object_us + _SILENCE_US)
        scene.render(0, frame)
        camera.settle(frame)
        parts = [np.empty(0, EVENT_DTYPE)]
        for elapsed_us in range(0, scene.object_us, _STEP_US):
            scene.render(elapsed_us + _STEP_US, frame)
            parts.append(camera.step(frame, start_us + elapsed_us).copy())
        events = np.concatenate(parts)
        events["t"] -= start_us
        recordings.append(events)
    return recordings
