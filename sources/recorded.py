"""A recorded stream as a source: what ``stream.record.Recorder`` wrote, marks included, bit for bit."""

from pathlib import Path

import numpy as np

from sources.data_path import expand_path
from stream.errors import ConfigError, FormatError
from stream.operator import Port, Snapshot, Source, check_shapes
from stream.packet import End, Message, Packet
from stream.record import recorded_messages, recorded_ports

__all__ = ["RecordedStream"]


class RecordedStream(Source):
    """Play one port of a recording.

    Parameters
    ----------
    path
        A recorder's file; may hold ``~`` and environment variables.
    port
        Which of its streams; needed if there are several.
    width, height
        Sensor's size if it is a stream of events, pixels; both or neither. A recording does not hold it.

    Notes
    -----
    The output is called ``events`` whatever its items are, as every source's. Packets come as they were recorded, cut
    again only where they are longer than asked.
    """

    def __init__(
        self, *, path: str, port: str | None = None, width: int | None = None, height: int | None = None
    ) -> None:
        self._path: Path = expand_path(path)
        ports = recorded_ports(self._path)
        if port is None and len(ports) == 1:
            port = next(iter(ports))
        if port is None or port not in ports:
            raise ConfigError(f"recording {self._path}: port {port!r}, wanted one of {', '.join(ports) or '(none)'}")
        if (width is None) != (height is None):
            raise ConfigError(f"recording {self._path}: width {width} and height {height}, wanted both or neither")
        self._port = port
        self.outputs = {"events": Port(ports[port], width, height)}
        self._position = np.zeros(2, np.int64)  # byte behind the last whole message handed out; items of the next one
        self._last_us = 0
        self._end: End | None = None
        self._open()

    def _open(self) -> None:
        self._messages = recorded_messages(self._path, begin=int(self._position[0]))
        self._packet: Packet | None = None
        self._packet_end = 0

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next message of the port, then ``End``; its reason says what is torn."""
        if self._end is not None:
            return self._end
        while self._packet is None:
            try:
                port, message, end = next(self._messages)
            except StopIteration:
                self._end = End(self._last_us)
                return self._end
            except FormatError as error:
                self._end = End(self._last_us, str(error))
                return self._end
            if port != self._port:
                self._position[:] = end, 0
            elif isinstance(message, Packet):
                self._packet, self._packet_end = message, end
            else:
                self._position[:] = end, 0
                self._last_us = message.t_us
                return message
        return self._cut(self._packet, max(1, max_items))

    def _cut(self, packet: Packet, max_items: int) -> Packet:
        first = int(self._position[1])
        stop = min(first + max_items, len(packet.items))
        if first == 0 and stop == len(packet.items):
            part = packet
        else:
            items = packet.items[first:stop]
            start_us = packet.start_us if first == 0 else int(items["t"][0])
            end_us = packet.end_us if stop == len(packet.items) else int(items["t"][-1]) + 1
            part = Packet(items, start_us, end_us)
        if stop == len(packet.items):
            self._position[:] = self._packet_end, 0
            self._packet = None
        else:
            self._position[1] = stop
        self._last_us = part.end_us
        return part

    def snapshot(self) -> Snapshot:
        """Return the position."""
        return {"position": self._position.copy(), "last_us": np.array(self._last_us, np.int64)}

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a position."""
        check_shapes("recorded stream", self.snapshot(), snapshot)
        self._position[:] = snapshot["position"]
        self._last_us = int(snapshot["last_us"])
        self._end = None
        self._open()

    def statistics(self) -> dict[str, float]:
        """Return how far it has come."""
        return {"bytes": float(self._position[0]), "of bytes": float(self._path.stat().st_size)}
