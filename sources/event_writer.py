"""Write events to a file: the table of writers, and a writer as the last operator of a pipeline.

Which format is told by the suffix of the file's name: ``.aedat4``, ``.raw`` (EVT3; ask for ``evt2`` by name), ``.dat``,
``.es``, ``.bin`` (40-bit ATIS), ``.h5`` or ``.hdf5``, ``.npz``, ``.csv`` or ``.txt``. No such file holds marks
(labels, resets): a recorder's file (``.hbs``, see ``stream.record``) does.
"""

import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sources.data_path import expand_path
from stream.errors import ConfigError
from stream.operator import Emit, Operator, Port, Snapshot
from stream.packet import Mark, Packet

__all__ = ["SUFFIXES", "WRITERS", "FileWriter", "Writer", "open_writer", "writable_format"]


class Writer(Protocol):
    """What writes one file."""

    def write(self, events: NDArray[np.void]) -> None:
        """Add events: EVENT_DTYPE, shape (n,), sorted, not earlier than those before."""

    def close(self) -> None:
        """Write what is left and close the file. Idempotent."""


WRITERS = {
    "aedat4": ("sources.aedat4", "Aedat4Writer"),
    "bin": ("sources.atis_bin", "AtisBinWriter"),
    "csv": ("sources.text_events", "TextWriter"),
    "dat": ("sources.dat", "DatWriter"),
    "es": ("sources.event_stream", "EventStreamWriter"),
    "evt2": ("sources.evt", "Evt2Writer"),
    "evt3": ("sources.evt", "Evt3Writer"),
    "hdf5": ("sources.hdf5", "Hdf5Writer"),
    "npz": ("sources.numpy_file", "NpzWriter"),
}
"""By format: module and class, imported when the first such file is opened. Made by ``(path, width, height)``."""

SUFFIXES = {
    ".aedat4": "aedat4",
    ".bin": "bin",
    ".csv": "csv",
    ".dat": "dat",
    ".es": "es",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".npz": "npz",
    ".raw": "evt3",
    ".txt": "csv",
}


def writable_format(path: Path, format: str = "") -> str:
    """Return the format to write; ConfigError where neither name nor suffix tells a known one."""
    found = format or SUFFIXES.get(path.suffix.lower(), "")
    if found not in WRITERS:
        asked = f"format {format!r}" if format else f"suffix {path.suffix!r}"
        raise ConfigError(
            f"{path}: {asked} is nothing that can be written; wanted one of {', '.join(sorted(WRITERS))} "
            f"(suffixes {' '.join(sorted(SUFFIXES))})"
        )
    return found


def open_writer(path: str | Path, width: int, height: int, *, format: str = "") -> Writer:
    """Begin a file.

    Parameters
    ----------
    path
        What stands there is replaced. May hold ``~`` and environment variables.
    width, height
        The sensor, pixels.
    format
        A key of ``WRITERS``; default what the suffix tells.

    Raises
    ------
    ConfigError
        The format is unknown, its library is missing, the size does not fit into it, or the folder cannot be written.
    """
    path = expand_path(str(path))
    name = writable_format(path, format)
    module, kind = WRITERS[name]
    try:
        make: Any = getattr(importlib.import_module(module), kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        writer: Writer = make(path, width, height)
    except ImportError as error:
        raise ConfigError(
            f"{path}: {name} cannot be written without the package {error.name}; install it "
            f"(pip install 'hebbstream[formats]' brings it), or write another format"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror or error}; check folder and permissions"
        ) from None
    return writer


class FileWriter(Operator):
    """Write the events that come in to a file.

    Parameters
    ----------
    path
        What stands there is replaced. May hold ``~`` and environment variables.
    width, height
        The sensor, pixels.
    format
        A key of ``WRITERS``; default what the suffix tells.

    Notes
    -----
    Marks are counted, not written: these formats have no place for them. A file cannot be taken up again after a
    restore; what was written until then stays in it.
    """

    def __init__(self, *, path: str, width: int, height: int, format: str = "") -> None:
        self.inputs = {"events": Port("events", width, height)}
        self.outputs: dict[str, Port] = {}
        self._path = expand_path(path)
        self._writer = open_writer(self._path, width, height, format=format)
        self._counts = np.zeros(2, np.int64)  # events, marks

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Write a packet."""
        if len(packet.items):
            self._writer.write(packet.items)
            self._counts[0] += len(packet.items)

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Count a mark."""
        self._counts[1] += 1

    def on_end(self, emit: Emit) -> None:
        """Finish the file."""
        self._writer.close()

    def snapshot(self) -> Snapshot:
        """Return the counts."""
        return {"counts": self._counts.copy()}

    def restore(self, snapshot: Snapshot) -> None:
        """Refuse to go on in the middle of a file."""
        if np.asarray(snapshot["counts"]).any():
            raise ConfigError(
                f"{self._path}: a file cannot be gone on with in the middle; record into an .hbs recording, "
                f"and convert that"
            )

    def statistics(self) -> dict[str, float]:
        """Return what was written."""
        return {"written": float(self._counts[0]), "marks not written": float(self._counts[1])}

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
