"""Mask filter: drop the events of pixels named in a file, and the files that name them.

A file of pixels is one of two things, told by its name:

- text: a pixel a line, ``x y`` (a comma between them does too), counted from 0 at the top left; ``#`` begins a comment;
- ``*.npy``: a NumPy array of bool, shape (height, width), true where a pixel is named.

The text is what a person writes and a version control system shows; the array is what a program has. Road not taken:
pictures, of which half of the world's tools paint the good pixels white and the other half the bad ones.

``HotPixel`` writes such a file of what it has learned, if asked to: learn once with the cap on, then mask for ever.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.data_path import expand_path
from sources.filter_operator import EventFilter, put
from stream.errors import ConfigError, FormatError, StreamError
from stream.jit import kernel

__all__ = ["Mask", "check_writable", "read_mask", "write_mask"]

_PIXEL = re.compile(rb"(\d{1,9})(?:\s+|\s*,\s*)(\d{1,9})")
MOST_BYTES = 1 << 26  # of text: every pixel of a sensor of eight million


def read_mask(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    """Read a file of pixels.

    Parameters
    ----------
    path
        Text of ``x y`` lines, or ``*.npy``.
    width, height
        Sensor's size, pixels.

    Returns
    -------
    mask
        bool, shape (height, width), true where the file names the pixel.

    Raises
    ------
    FormatError
        If the file is missing, damaged, or of another sensor.
    """
    try:
        return _read_array(path, width, height) if path.suffix == ".npy" else _read_text(path, width, height)
    except OSError as error:
        raise FormatError(f"mask {path}: {error.strerror or error}; give a file of pixels") from None


def _read_array(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    try:
        # mapped, so that a header which promises more than the file holds costs no memory
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header raises whatever reading it as Python raises
        raise FormatError(f"mask {path}: no NumPy array: {error}; write it anew") from None
    if mapped.dtype != np.bool_ or mapped.shape != (height, width):
        raise FormatError(
            f"mask {path}: an array of {mapped.dtype} {mapped.shape}, wanted bool {(height, width)}: height, width"
        )
    # a file may hold other bytes than 0 and 1
    return np.array(mapped.view(np.uint8) != 0, order="C")


def _read_text(path: Path, width: int, height: int) -> NDArray[np.bool_]:
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise FormatError(f"mask {path}: over {MOST_BYTES} bytes, wanted lines of x y; is it a file of pixels?")
    mask = np.zeros((height, width), np.bool_)
    for number, line in enumerate(text.split(b"\n"), 1):
        words = line.split(b"#")[0].strip()
        if not words:
            continue
        pixel = _PIXEL.fullmatch(words)
        if pixel is None:
            raise FormatError(f"mask {path}, line {number}: got {words[:40]!r}, wanted two whole numbers: x y")
        x, y = int(pixel[1]), int(pixel[2])
        if x >= width or y >= height:
            raise FormatError(
                f"mask {path}, line {number}: pixel ({x}, {y}), wanted x < {width}, y < {height}; "
                f"give the mask of this camera, uncropped if the stream is"
            )
        mask[y, x] = True
    return mask


def check_writable(path: Path) -> None:
    """Raise ConfigError if a file of pixels could not be written to ``path``: before the run, not after it."""
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir() or not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ConfigError(f"mask {path}: cannot be written there; choose another path")


def write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a file of pixels, whole or not at all: to a side file, then rename.

    Parameters
    ----------
    path
        ``*.npy`` for an array, any other name for text. Missing folders are made, an existing file is replaced.
    mask
        bool, shape (height, width), true at the pixels to name.

    Raises
    ------
    StreamError
        If it cannot be written (a full disk, say).
    """
    side = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with side.open("wb") as file:
            if path.suffix == ".npy":
                np.save(file, mask, allow_pickle=False)
            else:
                rows, columns = np.nonzero(mask)
                file.write(f"# x y of {len(rows)} pixels of a {mask.shape[1]}x{mask.shape[0]} sensor\n".encode())
                file.writelines(b"%d %d\n" % pixel for pixel in zip(columns.tolist(), rows.tolist(), strict=True))
        side.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            side.unlink()
        raise StreamError(f"mask {path}: {error.strerror or error}; choose another path or make room") from None


@kernel
def mask_run(is_dropped: Any, events: Any, out: Any) -> int:
    """Keep the events of pixels that are not dropped (bool, shape (height, width)); return how many."""
    n = 0
    for k in range(len(events)):
        event = events[k]
        x, y = event["x"], event["y"]
        put(out, n, event["t"], x, y, event["p"])
        n += 0 if is_dropped[y, x] else 1
    return n


class Mask(EventFilter):
    """Drop the events of the pixels that a file names.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    path
        File of pixels: text with a pixel ``x y`` a line, or ``*.npy``, bool (height, width). ``~`` and ``${NAME}`` are
        replaced.
    invert
        Keep the pixels that are named, and drop all others.

    Raises
    ------
    ConfigError
        If a size is impossible.
    FormatError
        If the file is missing, damaged, or of another sensor.
    """

    def __init__(self, *, width: int, height: int, path: str, invert: bool = False) -> None:
        super().__init__(width=width, height=height)
        self.is_dropped = read_mask(expand_path(path), self.width, self.height) ^ bool(invert)

    def _select(self, events: NDArray[np.void], out: NDArray[np.void]) -> int:
        return mask_run(self.is_dropped, events, out)

    def statistics(self) -> dict[str, float]:
        """Return counts; ``masked pixels`` are those that can never pass."""
        return super().statistics() | {"masked pixels": float(np.count_nonzero(self.is_dropped))}
