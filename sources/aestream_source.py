"""Files through aestream, in a process of its own.

aestream is C++ without bounds checks: a damaged file can crash it or keep it busy for ever, and either would take
the node with it. So a child process reads the file and writes event records down a pipe; what comes out is checked
here like any other stranger's data. A child that crashes, or says nothing for too long, is the ``End`` of the stream
with its reason, after everything that came was handed out.

The pipe is the queue: it holds 64 KiB or so, then the child waits. Road not taken: shared memory would spare a copy of
13 bytes an event, which costs a hundredth of what the decoding does, and would let a crashing writer tear records.

Only ``.dat`` and ``.aedat4`` are let through. aestream 0.6.4 returns wrong times for EVT3, takes EVT2 for EVT3 and
shifts the columns of text files, all without an error; ``sources.event_file`` reads those exactly.
"""

import importlib.util
import sys
import time

import numpy as np

from sources.child_events import ChildEvents
from sources.data_path import expand_path
from sources.policy import keep_in_order
from stream.errors import ConfigError, FormatError
from stream.operator import Port, Snapshot, Source
from stream.packet import EVENT_DTYPE, End, Message, packet_of

__all__ = ["AestreamFile"]


class AestreamFile(Source):
    """Play a file through aestream.

    Parameters
    ----------
    path
        ``.dat`` or ``.aedat4``; may hold ``~`` and environment variables.
    width, height
        The sensor, pixels. aestream does not tell it. Events outside are dropped and counted.
    silence_s
        Give up on aestream after so much silence, s (it can hang on damaged files). It decodes a whole file before it
        hands out the first event: allow a second for each 20 million events.

    Raises
    ------
    ConfigError
        aestream is not installed, or is known to decode this kind of file wrongly.
    FormatError
        There is no such file.

    Notes
    -----
    Times that go back are raised to the time before and counted, as for every recorded file.
    """

    def __init__(self, *, path: str, width: int, height: int, silence_s: float = 60.0) -> None:
        self._path = expand_path(path)
        if not 1 <= width <= 1 << 15 or not 1 <= height <= 1 << 15 or silence_s <= 0:
            raise ConfigError(
                f"aestream file {path}: got width {width}, height {height}, silence_s {silence_s}; "
                f"wanted a size from 1 to 32768 and more than 0 s"
            )
        if self._path.suffix.lower() not in (".dat", ".aedat4"):
            raise ConfigError(
                f"aestream file {path}: got a file of type {self._path.suffix!r}, wanted .dat or .aedat4, because "
                f"aestream decodes other types wrongly without an error; use sources.event_file.EventFile for it"
            )
        if not self._path.is_file():
            raise FormatError(f"{self._path}: there is no such file; check the path")
        if importlib.util.find_spec("aestream") is None:
            raise ConfigError(
                "aestream is not installed; pip install 'hebbstream[aestream]' (Linux x86-64 and Python 3.11 only), or "
                "use sources.event_file.EventFile, which needs nothing more"
            )
        self._width, self._height, self._silence_s = width, height, silence_s
        self.outputs = {"events": Port("events", width, height)}
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "sources.aestream_child", str(self._path)]
        self._child = ChildEvents([*command, str(self._width), str(self._height)], silence_s=self._silence_s)
        self._counts = np.zeros(4, np.int64)
        self._n_out = self._last_us = 0
        self._end: End | None = None

    def poll(self, max_items: int) -> Message | None:
        """Hand out what aestream has decoded, at most ``max_items``, then ``End``."""
        if self._end is not None:
            return self._end
        events = self._child.read(max_items)
        if events is not None:
            kept = np.empty(len(events), EVENT_DTYPE)
            kept = kept[: keep_in_order(events, kept, self._width, self._height, self._counts)]
            if not len(kept):
                return None
            self._n_out += len(kept)
            self._last_us = int(kept["t"][-1])
            return packet_of(kept)
        if self._child.fault is None:
            return None
        reason = f"{self._path}: aestream {self._child.fault}" if self._child.fault else ""
        if not reason and not self._n_out:
            reason = (
                f"{self._path}: aestream found no events inside of {self._width}x{self._height} pixels "
                f"({self._counts[2]} outside); sources.event_file.EventFile may read it"
            )
        self._end = End(self._last_us + 1 if self._n_out else 0, reason)
        return self._end

    def snapshot(self) -> Snapshot:
        """Return how many events were handed out."""
        return {"n_out": np.array(self._n_out, np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Read up to the position again; ConfigError if the file is shorter than that."""
        if snapshot.keys() != {"n_out"}:
            raise ConfigError(
                f"snapshot of {self._path}: got arrays {sorted(snapshot)}, wanted n_out; "
                f"restore the snapshot of an aestream file"
            )
        self._child.close()
        self._start()
        wanted = int(snapshot["n_out"])
        while self._n_out < wanted:
            message = self.poll(wanted - self._n_out)
            if isinstance(message, End):
                raise ConfigError(
                    f"snapshot of {self._path}: stands at event {wanted}, but only {self._n_out} could be read "
                    f"({message.reason or 'the file ends there'}); restore it with the file that it was taken from"
                )
            if message is None:
                time.sleep(0.001)

    def statistics(self) -> dict[str, float]:
        """Return events handed out, and what the checks did."""
        return {"events": self._n_out, "times raised": int(self._counts[1]), "outside dropped": int(self._counts[2])}

    def close(self) -> None:
        """End the child; a later ``poll`` says End."""
        self._child.close()
        self._end = self._end or End(self._last_us + 1 if self._n_out else 0, "closed")
