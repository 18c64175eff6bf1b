"""Labelled recordings of whatever scene: pictures, drawings, digits into ``FOLDER/LABEL/INDEX.bin``.

The layout and the format are N-MNIST's, so that ``sources.folder.LabelledFolder`` plays what was made here::

    camera = SimulatedCamera(
        scene="images", path="~/mnist/train-images-idx3-ubyte.gz", images=Images(passes=1), threshold_on=0.36
    )
    record_objects(camera, "~/recordings/train", limit=5000)
"""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.atis_bin import write_atis_bin
from sources.data_path import expand_path
from sources.simulated import SimulatedCamera
from stream.errors import ConfigError, StreamError
from stream.packet import EVENT_DTYPE, End, Label, Packet, Reset

__all__ = ["new_folder", "record_objects"]


def record_objects(
    camera: SimulatedCamera,
    folder: str | Path,
    *,
    limit: int | None = None,
    suffix: str = ".bin",
    write: Callable[[Path, NDArray[np.void]], object] = write_atis_bin,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Record each object of a camera's scene into a file of its own.

    The folder appears when it is complete: it is written beside its place and then renamed.

    Parameters
    ----------
    camera
        Is played to its end, or to the limit, and closed. Times in a file count from its object's ``Reset``; what lies
        between objects is left out, as is an object that the stream's end cuts off.
    folder
        Where to; must be new or empty; may hold ``~`` and environment variables.
    limit
        How many recordings; None = all, of a camera whose stream ends.
    suffix, write
        Format: ``write(path, events)``, EVENT_DTYPE (n,), sorted. The default holds sides up to 240.
    progress
        Called with the number of recordings after each.

    Returns
    -------
    n_recordings
        How many were made.

    Raises
    ------
    ConfigError
        The stream never ends, its objects have no labels, or the folder holds something already.
    FormatError
        The format cannot hold an event.
    StreamError
        The scene broke off: a file of it is damaged. Nothing is kept.
    """
    place = expand_path(str(folder))
    if limit is None and camera.is_endless:
        raise ConfigError(
            f"recordings {place}: the camera's stream has no end; give it a limit, duration_us, or passes of its files"
        )
    if limit is not None and limit < 0:
        raise ConfigError(f"recordings {place}: got limit {limit}, wanted it from 0 on, or none")
    if not camera.is_labelled:
        raise ConfigError(f"recordings {place}: this scene has no labels; give it one: video = {{ label = 0 }}")
    with contextlib.closing(camera), new_folder(place) as beside:
        return _record(camera, beside, limit, suffix, write, progress)


@contextlib.contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Give a folder to write recordings to; it appears at ``place``, new or empty until then, if all went well.

    Raises
    ------
    ConfigError
        There is something already.
    """
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError(f"recordings {place}: there is something already; name another folder, or remove this one")
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield beside
        beside.chmod(0o755)  # mkdtemp makes it private
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _record(
    camera: SimulatedCamera,
    folder: Path,
    limit: int | None,
    suffix: str,
    write: Callable[[Path, NDArray[np.void]], object],
    progress: Callable[[int], None] | None,
) -> int:
    """Record everything into a folder."""
    made: dict[int, int] = {}
    n_recordings = 0
    parts: list[NDArray[np.void]] = []
    while limit is None or n_recordings < limit:
        message = camera.poll(1 << 20)
        if isinstance(message, Packet):
            parts.append(message.items)
        elif isinstance(message, Reset):
            parts = []
        elif isinstance(message, Label):
            events = np.concatenate([np.empty(0, EVENT_DTYPE), *parts])
            events["t"] -= message.start_us
            home = folder / str(message.label)
            home.mkdir(exist_ok=True)
            index = made.get(message.label, 0)
            made[message.label] = index + 1
            write(home / f"{index:05d}{suffix}", events)
            n_recordings += 1
            if progress is not None:
                progress(n_recordings)
        elif isinstance(message, End):
            if message.reason:
                raise StreamError(f"recordings: the scene broke off after {n_recordings}: {message.reason}")
            break
    return n_recordings
