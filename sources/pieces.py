"""Labelled recordings from long ones: each file is a class, cut into pieces of equal length, coarser if wanted.

Somebody who holds a thing before the camera for a minute has 200 recordings of it. Files in the order of their names
are labels 0, 1, ...; out come ``FOLDER/LABEL/INDEX.bin``, as ``sources.scene_recordings`` makes them. Times of a piece
count from its begin. What is left over at the end makes no piece, nor does a piece with fewer than ``least`` events.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sources.atis_bin import write_atis_bin
from sources.event_file import Recording, read_events
from sources.filter_downsample import Downsample, Law
from sources.scene_recordings import new_folder
from stream.errors import ConfigError
from stream.packet import Message, Packet

__all__ = ["cut_pieces"]


def cut_pieces(
    files: Sequence[Path],
    folder: Path,
    *,
    piece_us: int,
    factor: int = 1,
    law: Law = "divide",
    least: int = 100,
    test: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[int], tuple[int, int]]:
    """Cut files into pieces.

    Parameters
    ----------
    files
        Event files, one for each label.
    folder
        Where to; must be new or empty. Appears when it is complete.
    piece_us
        Length of a piece.
    factor, law
        Squares of so many pixels a side become one; how many of their events stay: ``sources.filter_downsample``.
    least
        Events that a piece needs.
    test
        A folder, new or empty: each file's last fifth goes there, to be asked about. Neighbours in time are alike, so
        what is asked about lies apart from what is learned from.
    progress
        Called with the number of files after each.

    Returns
    -------
    n_pieces, size
        How many of each label, those for the test included; width and height of what came out, the largest of all.

    Raises
    ------
    ConfigError
        No files, or the folder holds something already.
    FormatError
        A file cannot be read, or what comes out is wider than the format holds (240 pixels).
    """
    if not files:
        raise ConfigError(f"pieces {folder}: got no event files; name at least one")
    n_pieces, size = [], (0, 0)
    with contextlib.ExitStack() as stack:
        homes = [stack.enter_context(new_folder(place)) for place in ([folder] if test is None else [folder, test])]
        for label, file in enumerate(files):
            recording = read_events(file)
            events, width, height = _coarse(recording, factor, law)
            size = max(size[0], width), max(size[1], height)
            pieces = [it for it in _pieces(events, piece_us) if len(it) >= least]
            n_pieces.append(len(pieces))
            n_first = len(pieces) if test is None else len(pieces) - len(pieces) // 5
            for home, part in zip(homes, (pieces[:n_first], pieces[n_first:]), strict=False):
                (home / str(label)).mkdir()
                for k, piece in enumerate(part):
                    write_atis_bin(home / str(label) / f"{k:05d}.bin", piece)
            if progress is not None:
                progress(label + 1)
    return n_pieces, size


def _pieces(events: NDArray[np.void], piece_us: int) -> list[NDArray[np.void]]:
    """Cut events into whole pieces whose times begin at 0."""
    if not len(events):
        return []
    begin_us = int(events["t"][0])
    n_whole = (int(events["t"][-1]) + 1 - begin_us) // piece_us
    edges = np.searchsorted(events["t"], begin_us + piece_us * np.arange(n_whole + 1))
    found = []
    for k in range(n_whole):
        piece = events[edges[k] : edges[k + 1]].copy()
        piece["t"] -= begin_us + k * piece_us
        found.append(piece)
    return found


def _coarse(recording: Recording, factor: int, law: Law) -> tuple[NDArray[np.void], int, int]:
    """Return events with squares of pixels made one, and the size they have then."""
    events, width, height = recording.events, recording.width, recording.height
    if factor == 1 or not len(events):
        return events, -(-width // factor), -(-height // factor)
    parts = []

    def take(port: str, message: Message) -> None:
        if isinstance(message, Packet):
            parts.append(message.items.copy())

    Downsample(width=width, height=height, factor=factor, law=law).on_packet(
        "events", Packet(events, int(events["t"][0]), int(events["t"][-1]) + 1), take
    )
    return np.concatenate(parts), -(-width // factor), -(-height // factor)
