"""Pictures as a scene: a folder of images, or MNIST's files, each seen through saccades.

This is how N-MNIST and N-Caltech101 were made (Orchard, Jayawant, Cohen and Thakor 2015): a picture stands on a screen,
the camera looks at it in three saccades along a triangle, 100 ms each. Path, time and reach are parameters.

Read are PNG, JPEG and what else Pillow reads, colours as their luma (ITU-R BT.601), transparent parts as white paper;
and MNIST's IDX files (http://yann.lecun.com/exdb/mnist: big-endian numbers 0x803, images, rows, columns, then bytes),
plain or gzipped, with the labels beside them under the name with ``labels-idx1`` for ``images-idx3``.

A file's values are meant for a screen, which turns them into light by a power (gamma), and whose black is not dark::

    luminance = black + (1 - black) * (value / 255) ** gamma

Pictures are made as small as the sensor wants them in light, not in values, as a lens would do it. Around them it is as
bright as their border is on average, so that a drawing has no frame.

Pillow because it is there: matplotlib needs it. imageio would put itself on top of it and read the same files.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from sources.scene import TRIANGLE, look_through, saccade
from sources.scene_files import FileScene, check_light, find_labelled_files, luminance_table
from stream.errors import ConfigError, FormatError

__all__ = ["IMAGE_SUFFIXES", "ImageScene", "Images", "read_idx", "read_image", "write_idx"]

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm"))

_MOST_IDX_BYTES = 1 << 31  # MNIST has 47 million


class Images(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How pictures are shown.

    Parameters
    ----------
    passes
        How often each is shown; None = without end.
    skip
        Leave out the first so many of a file of MNIST's, which are kept for something else.
    size
        Their longer side, in smaller sides of the sensor: 28 of N-MNIST's 34 pixels. What stands out is not seen, so
        from about 1.5 on a picture fills the view throughout the saccades.
    invert
        Swap black and white: a dark drawing on paper becomes a bright one on dark ground.
    gamma, black
        What the values of a pixel mean; see the module. ``gamma`` 1 = they are light already.
    blur
        Deviation of the lens's blur, pixels of the sensor.
    saccade_us
        Time of each saccade.
    reach
        Their way, in smaller sides of the sensor: 6 pixels of N-MNIST's 34.
    corners
        x, y of where they begin and end, in units of the reach, within -4 and 4; (0, 0) is the middle. The default is
        N-MNIST's triangle.
    gentle
        Whether each starts and stops gently, as an eye does; else it goes at constant speed, so that many short ones
        are a path that was measured (``sources.nmnist_camera``).
    turns
        Quarter turns of each picture, against the clock.
    """

    passes: int | None = None
    skip: int = 0
    size: float = 28 / 34
    invert: bool = False
    gamma: float = 2.2
    black: float = 0.1
    blur: float = 0.0
    saccade_us: int = 100_000
    reach: float = 6 / 34
    corners: tuple[tuple[float, float], ...] = TRIANGLE
    gentle: bool = True
    turns: int = 0


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read the luma of an image, upright as its Exif says; of an animation the first frame.

    Returns
    -------
    values
        uint8, shape (height, width).

    Raises
    ------
    FormatError
        Pillow cannot read it.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion cuts off at 255 instead of dividing
                return (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            if image.mode == "F":
                raise ValueError("floating-point values, of which no one knows what is white")
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.array(image.convert("L"), np.uint8)
    except Exception as error:  # a damaged file makes Pillow raise whatever its parts raise
        raise FormatError(
            f"{path}: cannot be read as an image ({error}); wanted PNG, JPEG or another format of Pillow's; "
            f"remove it or save it again"
        ) from error


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, plain or gzipped.

    Returns
    -------
    array
        uint8, of the shape the file tells.

    Raises
    ------
    FormatError
        It is none, or is not as long as it says.
    """
    way_out = "download or unpack it again"
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 3:
                raise FormatError(
                    f"{path}: begins with {head.hex() or 'nothing'}, wanted 00000801 to 00000803 (IDX of bytes)"
                )
            sides = file.read(4 * head[3])
            if len(sides) < 4 * head[3]:
                raise FormatError(f"{path}: ends within its head at byte {4 + len(sides)}; {way_out}")
            shape = struct.unpack(f">{head[3]}I", sides)
            n_bytes = math.prod(shape)
            if n_bytes > _MOST_IDX_BYTES:
                raise FormatError(f"{path}: says it holds {shape} bytes, wanted at most {_MOST_IDX_BYTES}; {way_out}")
            content = file.read(n_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path}: cannot be read ({error}); {way_out}") from error
    if len(content) != n_bytes:
        got = "more" if len(content) > n_bytes else f"{len(content)}"
        raise FormatError(f"{path}: says it holds {shape}, {n_bytes} bytes, got {got}; {way_out}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write an IDX file of bytes: uint8, of one to three axes."""
    path.write_bytes(struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


def _is_idx(path: Path) -> bool:
    return path.is_file() and "idx" in path.name and path.suffix.lower() not in IMAGE_SUFFIXES


def _read_labelled_idx(path: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """Read images, shape (n, rows, columns), and their labels from beside them."""
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == path or not beside.is_file():
        raise FormatError(
            f"{path}: found no labels, wanted them in {beside.name} beside it; "
            f"name MNIST's files as it does: train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz"
        )
    images, labels = read_idx(path), read_idx(beside)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not images.size:
        raise FormatError(
            f"{path}: holds {images.shape}, {beside.name} {labels.shape}; wanted images (n, rows, columns) and n labels"
        )
    return images, labels.tolist()


def _blurred(light: NDArray[np.float32], deviation: float) -> NDArray[np.float32]:
    """Blur by a Gaussian, cut off at four deviations; at the border light goes on as it is there."""
    far = math.ceil(4.0 * deviation)
    bell = np.exp(-0.5 * (np.arange(-far, far + 1) / deviation) ** 2)
    bell /= bell.sum()
    padded = np.pad(light.astype(np.float64), far, mode="edge")
    rows = sum(part * padded[k : k + light.shape[0]] for k, part in enumerate(bell))
    both = sum(part * rows[:, k : k + light.shape[1]] for k, part in enumerate(bell))
    return np.asarray(both, np.float32)


class ImageScene(FileScene):
    """Pictures seen through saccades; ``path`` is a folder (see ``scene_files``), an image, or MNIST's images file.

    Raises
    ------
    ConfigError
        There are no images, or an option is out of range.
    FormatError
        An IDX file is damaged.
    """

    def __init__(self, *, width: int, height: int, seed: int, path: Path, images: Images) -> None:
        subject = "scene of images"
        check_light(subject, gamma=images.gamma, black=images.black, passes=images.passes)
        far = max((abs(part) for corner in images.corners for part in corner), default=0.0)
        if (
            not (0.0 < images.size <= 16.0 and 0.0 <= images.reach <= 4.0 and far <= 4.0)
            or not 0.0 <= images.blur <= 16.0
            or len(images.corners) < 2
            or not 0 < images.saccade_us <= 1_000_000_000
        ):
            raise ConfigError(
                f"{subject}: got size {images.size}, reach {images.reach}, blur {images.blur}, saccade_us "
                f"{images.saccade_us} and corners {images.corners}; wanted a size above 0 and up to 16, a reach of 0 "
                f"to 4, a blur of 0 to 16, saccades from 1 us on, and two corners or more within -4 and 4"
            )
        self._idx: NDArray[np.uint8] | None = None
        self._paths: list[Path] = []
        if _is_idx(path):
            values, labels = _read_labelled_idx(path)
            if not 0 <= images.skip < len(values):
                raise ConfigError(
                    f"{subject}: got skip {images.skip}, wanted it from 0 to {len(values) - 1} for {path}"
                )
            self._idx, labels = values[images.skip :], labels[images.skip :]
            names = tuple(str(label) for label in range(max(labels) + 1))
        else:
            if images.skip:
                raise ConfigError(
                    f"{subject}: got skip {images.skip} for {path}; only of MNIST's files some are left out"
                )
            self._paths, labels, names = find_labelled_files(path, IMAGE_SUFFIXES, subject=subject)
        super().__init__(width=width, height=height, seed=seed, labels=labels, class_names=names, passes=images.passes)
        self.object_us = (len(images.corners) - 1) * images.saccade_us
        self._images = images
        self._table = luminance_table(gamma=images.gamma, black=images.black, invert=images.invert)
        self._reach = images.reach * min(width, height)
        self._margin = math.ceil(self._reach * far) + 1
        self._canvas = np.zeros((height + 2 * self._margin + 1, width + 2 * self._margin + 1), np.float32)

    def show(self, number: int) -> int:
        """Put the image of this number on the canvas."""
        from PIL import Image

        file = self.file_of(number)
        light = self._table[read_image(self._paths[file]) if self._idx is None else self._idx[file]]
        light = np.ascontiguousarray(np.rot90(light, self._images.turns))
        n_rows, n_columns = light.shape
        scale = self._images.size * min(self.width, self.height) / max(n_rows, n_columns)
        wide, high = max(1, round(scale * n_columns)), max(1, round(scale * n_rows))
        # Pillow's "bilinear" takes in all that a smaller pixel covers
        small = np.asarray(Image.fromarray(light).resize((wide, high), Image.Resampling.BILINEAR))
        border = np.concatenate((small[0], small[-1], small[:, 0], small[:, -1]))
        self._canvas[:] = border.mean(dtype=np.float64)
        left, top = self._margin + (self.width - wide) // 2, self._margin + (self.height - high) // 2
        there = self._canvas[max(0, top) : max(0, top + high), max(0, left) : max(0, left + wide)]
        there[:] = small[max(0, -top) :, max(0, -left) :][: there.shape[0], : there.shape[1]]
        if self._images.blur:
            self._canvas[:] = _blurred(self._canvas, self._images.blur)
        return self._labels[file]

    def render(self, elapsed_us: int, frame: NDArray[np.float32]) -> None:
        """Render the image at a time of its saccades."""
        images = self._images
        x, y = saccade(elapsed_us, images.saccade_us, images.corners, gentle=images.gentle)
        look_through(self._canvas, self._margin + self._reach * x, self._margin + self._reach * y, frame)
