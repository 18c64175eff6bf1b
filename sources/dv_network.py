"""The TCP stream of iniVation's DV software as a source: cameras and files that DV, or dv-processing, serves.

dv-processing reads the stream. It waits for ever on a server that says nothing, and ends its process where the stream
is damaged (both seen with 2.0.4); so it runs in a child process, and either is an ``End`` with its reason here. If
nobody takes what it has read, it drops the newest beyond some 100 packets and tells nobody; so a thread here takes all
of it at once, into a queue that counts what it drops.

A stream that was closed by the other side ends with a reason too: TCP does not tell whether the sender had finished or
was pulled out. Nothing reconnects behind your back.

Times are microseconds since 1970, as the sender stamped them; ``sources.live_stream`` says what happens if they jump.
"""

import importlib.util
import socket
import sys
import threading
import time

from sources.child_events import ChildEvents
from sources.dv_network_child import HEAD_US
from sources.live_stream import LiveStream, PacketQueue, Queued
from stream.errors import ConfigError
from stream.operator import Port, Snapshot, Source
from stream.packet import End, Message

__all__ = ["DvNetwork"]


class DvNetwork(Source):
    """Receive events from DV's network output.

    Parameters
    ----------
    address
        Host that serves the stream: a name or an IP address.
    port
        Where it serves it.
    connect_s
        Give up if there is no stream after so long, s.
    silence_s
        End the stream after so much silence, s; 0 = never (a camera that sees nothing move is silent).
    queue_events, queue_bytes
        What may wait for a slow pipeline; beyond either, the oldest packets are dropped and counted.

    Raises
    ------
    ConfigError
        dv-processing is not installed, nobody serves a stream of events there, or the address has no meaning.

    Notes
    -----
    A snapshot holds the state of the clock alone: what was sent in between is not sent again.
    """

    def __init__(
        self,
        *,
        address: str = "127.0.0.1",
        port: int = 7777,
        connect_s: float = 10.0,
        silence_s: float = 0.0,
        queue_events: int = 4_000_000,
        queue_bytes: int = 64 << 20,
    ) -> None:
        self._subject = f"DV stream {address}:{port}"
        if not 1 <= port < 1 << 16 or not connect_s > 0 or not silence_s >= 0:
            raise ConfigError(
                f"{self._subject}: got port {port}, connect_s {connect_s}, silence_s {silence_s}; wanted a port from 1 "
                f"to 65535, more than 0 s, and 0 s or more"
            )
        if importlib.util.find_spec("dv_processing") is None:
            raise ConfigError(f"{self._subject}: dv-processing is not installed; pip install 'hebbstream[camera]'")
        try:
            # dv-processing takes numbers only; IPv4 first, because that is where DV listens
            found = sorted(socket.getaddrinfo(address, port, type=socket.SOCK_STREAM), key=lambda entry: entry[0])
        except OSError as error:
            raise ConfigError(f"{self._subject}: {address} is no address ({error}); check the spelling") from error
        self._queue = PacketQueue(queue_events, queue_bytes)
        command = [sys.executable, "-P", "-m", "sources.dv_network_child", str(found[0][4][0]), str(port)]
        self._child = ChildEvents(command, silence_s=silence_s)
        try:
            width, height = self._size(time.monotonic() + connect_s, connect_s)
            self.outputs = {"events": Port("events", width, height)}
            self._live = LiveStream(self._subject, width, height)
        except BaseException:
            self._child.close()
            raise
        self._end: End | None = None
        self._stopping = threading.Event()
        self._reader = threading.Thread(target=self._read, name=self._subject, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Take from the child whatever comes (in a thread of its own)."""
        while not self._stopping.is_set() and self._child.fault is None:
            events = self._child.read(1 << 16)
            if events is not None:
                self._queue.put(Queued(events, time.monotonic_ns(), 0))
            else:
                time.sleep(0.001)

    def _size(self, until_s: float, connect_s: float) -> tuple[int, int]:
        """Wait for the sensor's size, the child's first word."""
        while time.monotonic() < until_s:
            head = self._child.read(1)
            if head is not None:
                if int(head["t"][0]) != HEAD_US or not head["x"][0] or not head["y"][0]:
                    raise ConfigError(f"{self._subject}: its size could not be read; serve a stream of events there")
                return int(head["x"][0]), int(head["y"][0])
            if self._child.fault is not None:
                raise ConfigError(
                    f"{self._subject}: the reader {self._child.fault or 'found nothing'}; start the sender first, and "
                    f"check its address and port"
                )
            time.sleep(0.002)
        raise ConfigError(
            f"{self._subject}: who listens there sent no stream within {connect_s:g} s; check that it is a DV output"
        )

    def poll(self, max_items: int) -> Message | None:
        """Hand out what came, at most ``max_items``; ``End`` with its reason when the connection is over."""
        if self._end is not None:
            return self._end
        while (message := self._live.pop(max_items)) is None:
            fault = self._child.fault  # looked at first: what came before it is in the queue
            packet = self._queue.take()
            if packet is not None:
                self._live.push(packet)
            elif fault is None:
                return None
            else:
                why = f"its reader {fault}" if fault else "closed by the sender"
                self._end = self._live.end(f"{self._subject}: {why}, after {self._live.n_out} events")
                return self._end
        return message

    def snapshot(self) -> Snapshot:
        """Return the state of the clock."""
        return self._live.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Go on in time with what comes from now on, behind a ``Reset`` mark."""
        self._live.restore(snapshot)

    def statistics(self) -> dict[str, float]:
        """Return what came, what was dropped, and what the checks did."""
        return {**self._live.statistics(), **self._queue.statistics()}

    def close(self) -> None:
        """Disconnect; a later ``poll`` says End."""
        self._stopping.set()
        self._reader.join()
        self._child.close()
        self._end = self._end or self._live.end("closed")
