"""Snapshots on disk: a folder per barrier, a safetensors file per member. No pickles: reading one runs no code."""

import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from stream.errors import ConfigError
from stream.operator import Snapshot

__all__ = ["read_snapshot", "write_snapshot"]


def write_snapshot(folder: Path, number: int, name: str, snapshot: Snapshot) -> Path:
    """Write a member's snapshot, whole or not at all: to a side file, fsync, rename.

    Returns
    -------
    Path
        ``folder/NUMBER/NAME.safetensors``.
    """
    path = folder / f"{number:06d}" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {key: np.ascontiguousarray(value) for key, value in snapshot.items()}
    # ascontiguousarray makes shape (1,) of (); safetensors keeps what it is given
    data = safetensors.numpy.save({key: arrays[key].reshape(np.shape(snapshot[key])) for key in arrays})
    side = path.with_suffix(f".{os.getpid()}.part")
    with side.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    side.replace(path)
    return path


def read_snapshot(folder: Path, number: int, name: str) -> Snapshot:
    """Read what :func:`write_snapshot` wrote. Raises ConfigError if it is missing or damaged."""
    path = folder / f"{number:06d}" / f"{name}.safetensors"
    try:
        return dict(safetensors.numpy.load(path.read_bytes()))
    except FileNotFoundError:
        kept = sorted(entry.name for entry in folder.glob("[0-9]*")) if folder.is_dir() else []
        raise ConfigError(f"snapshot {path}: not there; kept are {', '.join(kept) or 'none'}") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"snapshot {path}: damaged: {error}; use an earlier one") from None
