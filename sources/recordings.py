"""Labelled recordings of written digits, made on the spot: what to learn from where there is nothing to download.

One simulated camera looks at one digit after the other through three saccades, and each 300 ms become a file in the
layout and the format of N-MNIST: ``FOLDER/train/LABEL/INDEX.bin``, ``FOLDER/test/LABEL/INDEX.bin``. Threshold,
refractory time and noise were set so that a recording resembles N-MNIST: about as many events (its mean is 4,108), as
many of either sign, swelling and ebbing with the saccades, with a sprinkle of noise over the whole sensor.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.atis_bin import write_atis_bin
from sources.data_path import expand_path
from sources.scene import DigitScene
from sources.simulated import Camera, CameraParams
from stream.errors import ConfigError, FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["VERSION", "make_recordings"]

VERSION = 1  # raised whenever the same parameters would give other recordings

_PARAMETERS_FILE = "recordings.json"
_STEP_US = 1000
_SILENCE_US = 100_000  # between recordings, so that no pixel is still refractory


def _camera_params(seed: int) -> CameraParams:
    """Describe a camera that sees digits about as N-MNIST's did."""
    return CameraParams(
        threshold_on=0.36,
        threshold_off=0.32,
        mismatch=0.04,
        refractory_us=1500,
        leak_hz=0.1,
        shot_noise_hz=0.4,
        seed=seed,
    )


def make_recordings(
    folder: str | Path,
    *,
    width: int = 34,
    height: int = 34,
    train_per_class: int,
    test_per_class: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make recordings of digits 0 to 9, or find them made already.

    The folder appears when it is complete, never before: it is written beside its place and then renamed. A complete
    folder of the same parameters is left as it is.

    Parameters
    ----------
    folder
        Where to; may hold ``~`` and environment variables.
    width, height
        Pixels, 8 to 240.
    train_per_class, test_per_class
        Recordings of each digit, from 0 on. No specimen of handwriting is in both.
    seed
        Fixes every bit.
    progress
        Called as ``progress(done, total)`` after each recording.

    Returns
    -------
    folder
        Where they are.

    Raises
    ------
    ConfigError
        A parameter is out of range, or the folder holds something else.
    """
    place = expand_path(str(folder))
    if not (8 <= width <= 240 and 8 <= height <= 240) or min(train_per_class, test_per_class, seed) < 0:
        raise ConfigError(
            f"recordings: got {width}x{height} pixels, {train_per_class} and {test_per_class} per class, seed {seed}; "
            f"wanted sides of 8 to 240 (what .bin can hold) and the others from 0 on"
        )
    parameters = {
        "version": VERSION,
        "width": width,
        "height": height,
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "seed": seed,
    }
    if _is_made(place, parameters):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        _record(beside, width, height, {"train": train_per_class, "test": test_per_class}, seed, progress)
        (beside / _PARAMETERS_FILE).write_text(json.dumps(parameters, indent=2) + "\n")
        beside.chmod(0o755)  # mkdtemp makes it private
        try:
            beside.rename(place)
        except OSError:
            if not _is_made(place, parameters):  # else another process was quicker: its recordings are the same
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _is_made(place: Path, parameters: dict[str, int]) -> bool:
    """Tell whether a folder holds these very recordings; ConfigError if it holds anything else."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return False
    try:
        found = json.loads((place / _PARAMETERS_FILE).read_text())
    except (OSError, ValueError):
        found = None
    if found == parameters:
        return True
    raise ConfigError(
        f"recordings: {place} exists and holds {found if found is not None else 'something else'}, "
        f"wanted {parameters}; name another folder, or remove this one"
    )


def _record(
    folder: Path,
    width: int,
    height: int,
    per_class: dict[str, int],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Record everything into a folder."""
    scene = DigitScene(width=width, height=height, seed=seed)
    camera = Camera(width, height, _camera_params(seed), step_us=_STEP_US)
    frame = np.empty((height, width), np.float32)
    total = scene.n_labels * sum(per_class.values())
    specimen = 0
    for split, n_recordings in per_class.items():
        for digit in range(scene.n_labels):
            home = folder / split / str(digit)
            home.mkdir(parents=True)
            for index in range(n_recordings):
                scene.write(digit, specimen)
                start_us = specimen * (scene.object_us + _SILENCE_US)
                events = _look(scene, camera, frame, start_us)
                try:
                    write_atis_bin(home / f"{index:05d}.bin", events)
                except OSError as error:
                    raise FormatError(
                        f"recordings: {home} cannot be written: {error.strerror or error}; name another folder"
                    ) from error
                specimen += 1
                if progress is not None:
                    progress(specimen, total)


def _look(scene: DigitScene, camera: Camera, frame: NDArray[np.float32], start_us: int) -> NDArray[np.void]:
    """Record the digit on the stage; times count from the start of the recording."""
    scene.render(0, frame)
    camera.settle(frame)
    parts: list[NDArray[np.void]] = [np.empty(0, EVENT_DTYPE)]
    for elapsed in range(0, scene.object_us, _STEP_US):
        scene.render(elapsed + _STEP_US, frame)
        parts.append(camera.step(frame, start_us + elapsed).copy())
    events = np.concatenate(parts)
    events["t"] -= start_us
    return events
