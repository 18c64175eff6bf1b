"""Made-up signs: classes that nobody has seen, as many as are wanted, written or shown a little differently each time.

A sign is two or three strokes between the crossings of a grid of 4 x 4, each through two to four of them, straight or
rounded, each beginning where the one before ended or anywhere else. They are written as digits are
(``sources.handwriting``), so a network that learned digits meets lines of the same kind, put together differently.

Pictures are of MNIST's form, so that ``sources.nmnist_camera`` sees them as it sees MNIST.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import uniform
from sources.handwriting import Hand, Stroke, ink, written
from sources.scene_images import write_idx

__all__ = ["A_THING", "SIDE", "picture_of", "sign", "write_signs"]

SIDE = 28
A_THING = Hand(slant=0.0, turn=0.13, stretch=0.13, wobble=0.0, pen_spread=0.0)
"""The "hand" of a thing: always the same sign, turned and stretched a little, as things lie before a camera."""

_GRID = tuple(float(part) for part in np.linspace(0.1, 0.9, 4))
_SIGNS, _HANDS, _PLACES = 1 << 20, 1 << 21, 1 << 22  # streams of random numbers
_MOST_EACH = 1 << 10


def sign(number: int, *, seed: int) -> list[Stroke]:
    """Make a sign up; the same pair gives the same strokes."""
    count = 0

    def chance() -> float:
        nonlocal count
        count += 1
        return uniform(seed, _SIGNS + number, count)

    def crossing() -> tuple[float, float]:
        return _GRID[int(4 * chance())], _GRID[int(4 * chance())]

    strokes: list[Stroke] = []
    for k in range(2 + int(2 * chance())):
        points = [strokes[-1].points[-1] if k and chance() < 0.5 else crossing()]
        wanted = 2 + int(3 * chance())
        while len(points) < wanted:
            place = crossing()
            if place not in points:
                points.append(place)
        strokes.append(Stroke(len(points) > 2 and chance() < 0.5, tuple(points)))
    return strokes


def picture_of(number: int, specimen: int, *, seed: int, hand: Hand) -> NDArray[np.uint8]:
    """Draw a specimen of a sign, bright on dark: somewhere near the middle, larger or smaller, brighter or darker.

    Parameters
    ----------
    number, specimen
        Which sign, and which of its specimens, 0 to 1023.
    seed
        Of all chances.
    hand
        How much specimens differ.

    Returns
    -------
    picture
        uint8, shape (28, 28).
    """
    stream = number * _MOST_EACH + specimen
    segments, pen = written(sign(number, seed=seed), seed, _HANDS + stream, hand)
    right, down, size, light = (uniform(seed, _PLACES + stream, k) for k in range(4))
    scale = 19.0 * (0.85 + 0.3 * size)  # pixels
    middle = (SIDE - 1) / 2
    image = np.zeros((SIDE, SIDE), np.float32)
    ink(segments, scale, pen * scale, middle + 4 * right - 2, middle + 4 * down - 2, image)
    picture: NDArray[np.uint8] = np.rint(image * (255 * (0.7 + 0.3 * light))).astype(np.uint8)
    return picture


def write_signs(folder: Path, *, first: int, signs: int, each: int, seed: int, hand: Hand) -> tuple[Path, Path]:
    """Write pictures and labels, 0 to ``signs - 1``, as MNIST has them; returns both files.

    Parameters
    ----------
    folder
        Made if it is not there.
    first, signs
        The number of the first sign, and how many: other numbers are other signs.
    each
        Specimens of each.
    seed, hand
        As above.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [picture_of(first + k, n, seed=seed, hand=hand) for n in range(each) for k in range(signs)]
    files = folder / "signs-images-idx3-ubyte", folder / "signs-labels-idx1-ubyte"
    write_idx(files[0], np.array(pictures))
    write_idx(files[1], np.tile(np.arange(signs, dtype=np.uint8), each))
    return files
