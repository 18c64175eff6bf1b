"""The child of ``sources.aestream_source``. It imports next to nothing of ours, so that it starts at once."""

import importlib
import os
import sys

import numpy as np

from stream.packet import EVENT_DTYPE

__all__: list[str] = []


def _write_records(path: str, width: int, height: int) -> None:
    """Decode a file with aestream and write its events to standard output."""
    records = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not get among the records
    loaded = importlib.import_module("aestream").FileInput(path, (width, height)).load()
    for begin in range(0, len(loaded), 1 << 16):
        part = loaded[begin : begin + (1 << 16)]
        events = np.empty(len(part), EVENT_DTYPE)
        events["t"], events["p"] = part["timestamp"], part["polarity"] != 0
        # signed there: what is negative becomes too large, and is dropped with all else that lies outside
        events["x"], events["y"] = part["x"].astype(np.uint16), part["y"].astype(np.uint16)
        records.write(events.tobytes())
    records.close()


if __name__ == "__main__":
    _write_records(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
