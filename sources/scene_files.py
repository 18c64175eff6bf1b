"""What scenes out of files share: which files there are, what they are labelled, and how bright a picture is.

Files lie in folders, a class to a folder, at whatever depth: ``FOLDER/cats/1.png``,
``FOLDER/Greek/character07/0400_02.png``. Are all names of the classes numbers, they are the labels themselves (and the
data set means the same whatever part of it is there); otherwise labels count the names in sorted order. A folder that
holds files and no folders, or a single file, makes each file a class of its own: show it, and the label says which it
was.
"""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import shuffled
from sources.scene import Scene
from stream.errors import ConfigError

__all__ = ["FileScene", "LabelledFiles", "check_light", "find_labelled_files", "luminance_table"]

_ORDER = 2_000_003  # stream of random numbers of the order in the first pass; the next pass has the next


class LabelledFiles(NamedTuple):
    """Files, sorted by class and name, and what is shown on them."""

    paths: list[Path]
    labels: list[int]
    class_names: tuple[str, ...]  # of labels 0, 1, ...; "" where the numbered folders leave a gap


def find_labelled_files(root: Path, suffixes: Collection[str], *, subject: str) -> LabelledFiles:
    """Find the files of a folder and their labels; see the module.

    Parameters
    ----------
    root
        A folder, or one file.
    suffixes
        Which files count, lower case with a dot; others are passed over, as is what begins with a dot.
    subject
        What an error speaks of.

    Raises
    ------
    ConfigError
        There are none, or some lie in the folder itself and some in folders of it.
    """
    way_out = f"wanted FOLDER/CLASS/FILE, FOLDER/FILE or one file, of {', '.join(sorted(suffixes))}; check the path"
    if root.is_file() and root.suffix.lower() in suffixes:
        return LabelledFiles([root], [0], (root.stem,))
    if not root.is_dir():
        raise ConfigError(f"{subject}: {root} is no {'such file' if root.is_file() else 'file or folder'}; {way_out}")
    found = [path for path in root.rglob("*") if path.suffix.lower() in suffixes and path.is_file()]
    places = {path: path.relative_to(root).parts for path in found}
    paths = [path for path in found if not any(part.startswith(".") for part in places[path])]
    paths.sort(key=lambda path: places[path])
    if not paths:
        raise ConfigError(f"{subject}: {root} holds no such files; {way_out}")
    n_flat = sum(len(places[path]) == 1 for path in paths)
    if n_flat == len(paths):
        return LabelledFiles(paths, list(range(len(paths))), tuple(path.stem for path in paths))
    if n_flat:
        raise ConfigError(
            f"{subject}: {root} holds {n_flat} files itself and {len(paths) - n_flat} in folders, so a folder is not "
            f"a class; {way_out}"
        )
    classes = ["/".join(places[path][:-1]) for path in paths]
    names = sorted(set(classes))
    numbers = [int(name) if name.isascii() and name.isdigit() else -1 for name in names]
    if min(numbers) >= 0 and len(set(numbers)) == len(names) and max(numbers) < 2**31:
        label_of = dict(zip(names, numbers, strict=True))
    else:
        label_of = {name: label for label, name in enumerate(names)}
    name_of = {label: name for name, label in label_of.items()}
    # a folder called 2000000000 shall not make two thousand million names
    n_names = min(max(name_of) + 1, 65536)
    return LabelledFiles(
        paths, [label_of[name] for name in classes], tuple(name_of.get(label, "") for label in range(n_names))
    )


def check_light(subject: str, *, gamma: float, black: float, passes: int | None) -> None:
    """Raise ConfigError unless a picture's light and its passes are in range."""
    if not (0.1 <= gamma <= 10.0 and 0.001 <= black < 1.0) or (passes is not None and passes < 0):
        raise ConfigError(
            f"{subject}: got gamma {gamma}, black {black}, passes {passes}; wanted a gamma of 0.1 to 10 (1 = values "
            f"are light, 2.2 = they are meant for a screen), black from 0.001 to below 1, and passes from 0 on or none"
        )


def luminance_table(*, gamma: float, black: float, invert: bool = False) -> NDArray[np.float32]:
    """Return the light of each value of a pixel: ``black + (1 - black) * (value / 255) ** gamma``.

    Returns
    -------
    table
        float32, shape (256,), from ``black`` to 1; backwards if ``invert``.
    """
    table = (black + (1.0 - black) * (np.arange(256) / 255.0) ** gamma).astype(np.float32)
    return np.ascontiguousarray(table[::-1]) if invert else table


class FileScene(Scene):
    """A scene of labelled files: each once a pass, in an order that the seed and the pass fix.

    Parameters
    ----------
    width, height, seed
        See ``Scene``.
    labels
        Of each file.
    class_names
        What they mean.
    passes
        How often all files are shown; None = without end.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        seed: int,
        labels: list[int],
        class_names: tuple[str, ...],
        passes: int | None,
    ) -> None:
        super().__init__(width=width, height=height, seed=seed)
        self.n_labels = max(labels) + 1
        self.class_names = class_names
        self.n_objects = None if passes is None else passes * len(labels)
        self._labels = labels
        self._order: tuple[int, list[int]] = (-1, [])

    def file_of(self, number: int) -> int:
        """Return which file shows object ``number``."""
        turn, place = divmod(number, len(self._labels))
        if self._order[0] != turn:  # an order of 60,000 takes a tenth of a second
            self._order = turn, shuffled(len(self._labels), seed=self.seed, stream=_ORDER + turn)
        return self._order[1][place]

    def label_of(self, number: int) -> int:
        """Return the label of an object."""
        return self._labels[self.file_of(number)]
