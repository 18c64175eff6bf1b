"""The wire format: one message of a stream as ZeroMQ frames.

::

    frame 0   header, MessagePack map: version, stream, sequence, origin_ns, dropped, body
    frame 1   a packet's items, raw little-endian records (none for a mark)
    frame 1.. for a `deploy` mark: each array's bytes, C order, in the order of the header's list

``body`` is a map whose ``type`` is ``packet`` or the mark's name. On the wire an event and a spike take 8 bytes; their
time is a 32-bit offset from the packet's ``start_us``:

======== ================================================ =====
item     record                                           bytes
======== ================================================ =====
events   dt u32 us, (x u15 | p << 15) u16, y u16          8
spikes   dt u32 us, unit u32                              8
others   the record of ``stream.packet``, unchanged       -
======== ================================================ =====

``origin_ns`` is the host's monotonic clock at the source (0 = unknown) and only serves latency figures. ``dropped`` is
how many items this edge has dropped so far, so that a loss is told downstream with the first message after it.

Nothing is allocated from a message's claims: the frames' own lengths are compared with the header first.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stream.errors import StreamError
from stream.jit import kernel
from stream.packet import (
    ITEM_DTYPES,
    Barrier,
    Correct,
    Deploy,
    End,
    Forget,
    Label,
    Loss,
    Mark,
    Message,
    Packet,
    Reset,
    Show,
)

__all__ = [
    "MAX_FRAME_BYTES",
    "MAX_ITEMS",
    "PROTOCOL_VERSION",
    "Header",
    "PacketBody",
    "decode",
    "encode",
    "pieces",
    "schema",
    "warm_up",
]

PROTOCOL_VERSION = 1
MAX_ITEMS = 1 << 22  # items of one message; 32 MiB of events, far above any sensible packet
MAX_SPAN_US = (1 << 32) - 1  # what a 32-bit offset can reach: 71.6 minutes
MAX_HEADER_BYTES = 1 << 16
MAX_FRAME_BYTES = 1 << 28  # the largest frame an edge accepts; ZeroMQ cuts the connection above it

WIRE_EVENT_DTYPE = np.dtype([("dt", "<u4"), ("xp", "<u2"), ("y", "<u2")])
WIRE_SPIKE_DTYPE = np.dtype([("dt", "<u4"), ("unit", "<u4")])
WIRE_DTYPES = {**ITEM_DTYPES, "events": WIRE_EVENT_DTYPE, "spikes": WIRE_SPIKE_DTYPE}

Time: TypeAlias = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Frame: TypeAlias = bytes | memoryview
Name: TypeAlias = Annotated[str, Meta(max_length=200)]


class ArrayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape and type of one array of a `deploy` mark; ``dtype`` is NumPy's short form, little-endian."""

    name: Name
    dtype: Annotated[str, Meta(pattern="^(<f4|<f8|[|]i1|<i4|<i8)$")]
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=1 << 31)]], Meta(max_length=4)]


class PacketBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="packet"):
    """What a packet's header says of its items."""

    item: Name
    start_us: Time
    end_us: Time
    count: Annotated[int, Meta(ge=0, le=MAX_ITEMS)]


class DeployBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="deploy"):
    """What a `deploy` mark's header says of its arrays."""

    t_us: Time
    version: Count
    arrays: Annotated[list[ArrayBody], Meta(max_length=256)]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frame 0."""

    version: int
    stream: Name
    sequence: Count
    origin_ns: Count
    dropped: Count
    body: PacketBody | DeployBody | Reset | Label | Show | Forget | Correct | Barrier | Loss | End


_header_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)


@kernel
def pack_events(events: NDArray[np.void], start_us: int, out: NDArray[np.void]) -> int:
    """Write events in wire form; returns -1, or the index of the first that does not fit (x above 32767)."""
    for index in range(len(events)):
        x = events[index]["x"]
        if x > 0x7FFF:
            return index
        out[index]["dt"] = events[index]["t"] - start_us
        out[index]["xp"] = x | (np.uint16(events[index]["p"] != 0) << np.uint16(15))
        out[index]["y"] = events[index]["y"]
    return -1


@kernel
def unpack_events(wire: NDArray[np.void], start_us: int, end_us: int, out: NDArray[np.void]) -> int:
    """Read events in wire form; returns -1, or the index of the first that goes back in time or leaves the span."""
    last = np.int64(start_us)
    for index in range(len(wire)):
        t = start_us + np.int64(wire[index]["dt"])
        if t < last or t >= end_us:
            return index
        last = t
        out[index]["t"] = t
        out[index]["x"] = wire[index]["xp"] & np.uint16(0x7FFF)
        out[index]["y"] = wire[index]["y"]
        out[index]["p"] = wire[index]["xp"] >> np.uint16(15)
    return -1


@kernel
def pack_spikes(spikes: NDArray[np.void], start_us: int, out: NDArray[np.void]) -> int:
    """Write spikes in wire form; returns -1."""
    for index in range(len(spikes)):
        out[index]["dt"] = spikes[index]["t"] - start_us
        out[index]["unit"] = spikes[index]["unit"]
    return -1


@kernel
def unpack_spikes(wire: NDArray[np.void], start_us: int, end_us: int, out: NDArray[np.void]) -> int:
    """Read spikes in wire form; returns -1, or the index of the first that goes back in time or leaves the span."""
    last = np.int64(start_us)
    for index in range(len(wire)):
        t = start_us + np.int64(wire[index]["dt"])
        if t < last or t >= end_us:
            return index
        last = t
        out[index]["t"] = t
        out[index]["unit"] = wire[index]["unit"]
    return -1


def pieces(packet: Packet) -> Iterator[Packet]:
    """Cut a packet until each part fits one message (``MAX_ITEMS`` items, ``MAX_SPAN_US``). Usually yields it whole."""
    items, t = packet.items, packet.items["t"]
    if len(items) <= MAX_ITEMS and packet.end_us - packet.start_us <= MAX_SPAN_US:
        yield packet
        return
    first, end_us = 0, packet.start_us
    while first < len(items):
        # a silence too long for one message is left out of the spans; times are unchanged
        start_us = end_us if int(t[first]) - end_us < MAX_SPAN_US else int(t[first])
        stop = first + int(np.searchsorted(t[first : first + MAX_ITEMS], start_us + MAX_SPAN_US))
        yield Packet(items[first:stop], start_us, int(t[stop - 1]) + 1, packet.origin_ns)
        first, end_us = stop, int(t[stop - 1])
    yield Packet(items[:0], packet.end_us, packet.end_us, packet.origin_ns)


def schema(item: str) -> str:
    """Say how an item lies on the wire: ``dt <u4, xp <u2, y <u2``; "" for an item that there is not."""
    fields = WIRE_DTYPES[item].fields if item in WIRE_DTYPES else None
    return ", ".join(f"{name} {kind[0].str}" for name, kind in fields.items()) if fields else ""


def encode(
    message: Message, *, stream: str, sequence: int, dropped: int = 0, into: NDArray[np.uint8] | None = None
) -> list[Frame]:
    """Turn a message into frames.

    ``into`` is memory, uint8, shape (any,), where a packet's payload goes if it fits; the header is then the only
    frame. Otherwise the payload has memory of its own.

    Raises
    ------
    StreamError
        If an event's x does not fit 15 bits. Packets above the limits must go through :func:`pieces` first.
    """
    frames: list[Frame] = []
    origin_ns = 0
    body: PacketBody | DeployBody | Mark
    if isinstance(message, Packet):
        item = _item_of(message.items)
        origin_ns = message.origin_ns
        body = PacketBody(item, message.start_us, message.end_us, len(message.items))
        payload = message.items
        if item in ("events", "spikes"):
            dtype = WIRE_DTYPES[item]
            n_bytes = len(message.items) * dtype.itemsize
            is_placed = into is not None and n_bytes <= len(into)
            payload = into[:n_bytes].view(dtype) if is_placed else np.empty(len(message.items), dtype)  # type: ignore[index] # is_placed: not None
            pack = pack_events if item == "events" else pack_spikes
            wrong = pack(message.items, message.start_us, payload)
            if wrong >= 0:
                raise StreamError(
                    f"stream {stream}: event at x = {message.items['x'][wrong]} does not fit the wire's 15 bits; "
                    f"crop or downsample the sensor before it leaves the process"
                )
            if not is_placed:
                frames = [payload.view(np.uint8).data]
        elif into is not None and payload.nbytes <= len(into):
            into[: payload.nbytes] = payload.view(np.uint8)
        else:
            frames = [payload.view(np.uint8).data]
    elif isinstance(message, Deploy):
        arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
        body = DeployBody(
            message.t_us,
            message.version,
            [ArrayBody(name, array.dtype.str, list(np.shape(message.arrays[name]))) for name, array in arrays.items()],
        )
        frames = [array.reshape(-1).view(np.uint8).data for array in arrays.values()]
    else:
        body = message
    header = Header(PROTOCOL_VERSION, stream, sequence, origin_ns, dropped, body)
    return [_header_encoder.encode(header), *frames]


def decode(frames: Sequence[Frame], *, slot: memoryview | None = None) -> tuple[Header, Message]:
    """Turn frames back into a message.

    ``slot`` is memory that begins with a packet's payload; the header is then the only frame.

    Returns
    -------
    header, message
        The message's arrays are its own, writable and aligned with nobody else's memory.

    Raises
    ------
    StreamError
        For anything that is not a message of this protocol version, with what was wrong. Nothing is allocated before
        the frames' own lengths have been checked.
    """
    if not frames or len(frames[0]) > MAX_HEADER_BYTES:
        raise StreamError(f"message of {len(frames)} frames: no header of at most {MAX_HEADER_BYTES} bytes in frame 0")
    try:
        header = _header_decoder.decode(frames[0])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StreamError(f"message header: {error}; wanted a header of protocol {PROTOCOL_VERSION}") from None
    if header.version != PROTOCOL_VERSION:
        raise StreamError(
            f"message of protocol {header.version}, wanted {PROTOCOL_VERSION}; run one version everywhere"
        )
    body = header.body
    if isinstance(body, PacketBody):
        return header, _decode_packet(header, body, frames if slot is None else [*frames, slot[: _n_bytes(body)]])
    if isinstance(body, DeployBody):
        return header, _decode_deploy(header, body, frames)
    if len(frames) != 1:
        raise StreamError(f"stream {header.stream}: a mark in {len(frames)} frames, wanted 1")
    return header, body


def warm_up() -> None:
    """Load or compile the kernels of this module."""
    for item in ("events", "spikes"):
        decode([bytes(frame) for frame in encode(Packet(np.zeros(1, ITEM_DTYPES[item]), 0, 1), stream="", sequence=0)])


def _item_of(items: NDArray[np.void]) -> str:
    for name, dtype in ITEM_DTYPES.items():
        if items.dtype == dtype:
            return name
    raise StreamError(f"items of type {items.dtype}: wanted one of {', '.join(ITEM_DTYPES)} (stream.packet)")


def _n_bytes(body: PacketBody) -> int:
    return body.count * WIRE_DTYPES[body.item].itemsize if body.item in WIRE_DTYPES else 0


def _decode_packet(header: Header, body: PacketBody, frames: Sequence[Any]) -> Packet:
    where = f"stream {header.stream}, message {header.sequence}"
    if body.item not in WIRE_DTYPES:
        raise StreamError(f"{where}: items of type '{body.item}', wanted one of {', '.join(WIRE_DTYPES)}")
    wire_dtype = WIRE_DTYPES[body.item]
    if len(frames) != 2 or len(frames[1]) != body.count * wire_dtype.itemsize:
        got = "no second frame" if len(frames) < 2 else f"{len(frames) - 1} payload frames, {len(frames[1])} bytes"
        raise StreamError(f"{where}: {got}, wanted one of {body.count} x {wire_dtype.itemsize} bytes")
    if body.end_us < body.start_us or (body.count and body.end_us == body.start_us):
        raise StreamError(f"{where}: {body.count} items in the span [{body.start_us}, {body.end_us}) us")
    items = np.empty(body.count, ITEM_DTYPES[body.item])
    if body.item in ("events", "spikes"):
        wire = np.frombuffer(frames[1], wire_dtype)
        wire.flags.writeable = False  # kernels keep one signature, and bytes are read-only in any case
        wrong = (unpack_events if body.item == "events" else unpack_spikes)(wire, body.start_us, body.end_us, items)
    else:
        items.view(np.uint8)[:] = np.frombuffer(frames[1], np.uint8)
        t = items["t"]
        bad = np.flatnonzero((t < body.start_us) | (t >= body.end_us) | (np.diff(t, prepend=t[:1]) < 0))
        wrong = int(bad[0]) if len(bad) else -1
    if wrong >= 0:
        raise StreamError(f"{where}: item {wrong} goes back in time or leaves [{body.start_us}, {body.end_us}) us")
    return Packet(items, body.start_us, body.end_us, header.origin_ns)


def _decode_deploy(header: Header, body: DeployBody, frames: Sequence[Any]) -> Deploy:
    where = f"stream {header.stream}, message {header.sequence}"
    if len(frames) != 1 + len(body.arrays):
        raise StreamError(f"{where}: {len(frames) - 1} payload frames for {len(body.arrays)} arrays")
    arrays: dict[str, np.ndarray] = {}
    for spec, frame in zip(body.arrays, frames[1:], strict=True):
        size = np.dtype(spec.dtype).itemsize
        for length in spec.shape:
            size *= length  # Python integers: a claim of 2^31 x 2^31 does not wrap
        if size != len(frame):
            raise StreamError(f"{where}: array {spec.name} has {len(frame)} bytes, wanted {size} for {spec.shape}")
        arrays[spec.name] = np.frombuffer(frame, spec.dtype).reshape(spec.shape).copy()
    return Deploy(body.t_us, body.version, arrays)
