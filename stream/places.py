"""Where a run keeps its files: a folder of this machine, or any place that fsspec reaches (S3, GCS, SFTP, FTP, ...).

``place("s3://bucket/runs/7")`` is a path like any other: universal_pathlib makes one of it (extra ``cluster``). What
differs is what a file system promises. A local file is written beside its place, synced and renamed. An object is put
where it belongs in one go, which object stores do whole or not at all; elsewhere a torn one can be left behind, which
the checksums of a snapshot's manifest tell.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from stream.errors import ConfigError

__all__ = ["copy_file", "is_local", "place", "remove_tree", "sync_folder", "write_whole"]


def place(where: str | Path) -> Path:
    """Return a path of this machine, ``~`` expanded, or of the file system that a URL names.

    Raises
    ------
    ConfigError
        If nothing here speaks the URL's language.
    """
    if "://" not in str(where):
        return Path(where).expanduser()
    try:
        from upath import UPath

        there: Any = UPath(str(where))
        _ = there.fs  # finds out whether what it takes is installed
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{where}: cannot be reached: {error}; pip install 'hebbstream[cluster]' and what it names"
        ) from None
    found: Path = there
    return found


def is_local(path: Path) -> bool:
    """Tell whether a path is one of this machine's own file systems."""
    return isinstance(path, Path) and type(path).__module__.startswith("pathlib")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; raises OSError."""
    if not is_local(path):
        path.write_bytes(data)
        return
    side = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with side.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        side.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            side.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's list of names durable."""
    if not is_local(folder):
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, as far as that can be done."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    there: Any = folder
    with contextlib.suppress(OSError):
        there.fs.rm(there.path, recursive=True)


def copy_file(there: Path, here: Path) -> None:
    """Let a file stand in a second place; without a copy where the file system can."""
    if not is_local(here):
        here.write_bytes(there.read_bytes())
        return
    here.unlink(missing_ok=True)
    try:
        here.hardlink_to(there)
    except OSError:  # a file system without hard links
        shutil.copyfile(there, here)
