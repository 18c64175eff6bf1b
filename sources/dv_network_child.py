"""The child of ``sources.dv_network``. It imports next to nothing of ours, so that it starts at once."""

import contextlib
import importlib
import os
import sys
import time

import numpy as np

from stream.packet import EVENT_DTYPE

__all__ = ["HEAD_US"]

HEAD_US = -1
"""The time of the first record, which carries the sensor's size in x and y."""


def _write_records(address: str, port: int) -> None:
    """Write the stream's events to standard output, the sensor's size before them."""
    parent = os.getppid()
    records = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints must not get among the records
    reader = importlib.import_module("dv_processing").io.NetworkReader(address, port)
    if not reader.isEventStreamAvailable():
        raise SystemExit("the stream holds no events")
    head = np.zeros(1, EVENT_DTYPE)
    head["t"] = HEAD_US
    head["x"], head["y"] = reader.getEventResolution()
    records.write(head.tobytes())
    records.flush()
    while True:
        is_running = reader.isRunning()  # asked for first: what came before the end is still handed out
        batch = reader.getNextEventBatch()
        if batch is None:
            if not is_running or os.getppid() != parent:  # nobody would kill us if the parent was killed
                break
            time.sleep(0.001)
            continue
        found = batch.numpy()
        events = np.empty(len(found), EVENT_DTYPE)
        events["t"], events["p"] = found["timestamp"], found["polarity"] != 0
        # signed there: what is negative becomes too large, and is dropped with all else that lies outside
        events["x"], events["y"] = found["x"].astype(np.uint16), found["y"].astype(np.uint16)
        records.write(events.tobytes())
        records.flush()
    records.close()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent has gone, so there is nobody to tell
        _write_records(sys.argv[1], int(sys.argv[2]))
