"""Prophesee DAT files of change-detection events.

A text header of lines that begin with ``%`` (``% Version 2``, ``% Width 304``, ``% Height 240``), two bytes (event
type, event size 8), then 8 bytes an event, little-endian: uint32 time in us, uint32 address. In version 2 the address
holds x in bits 0..13, y in 14..27, polarity (1 = brighter) in 28..31; in version 1 x in 0..8, y in 9..16, polarity in
17. The origin is top left. The type is 0x0c for "CD" and 0x00 for "2d", the older name of the same thing (N-Cars is
written so). Times wrap after 71.6 min; a step back of more than half of that span is taken for a wrap.

faery reads DAT, but refuses type 0x00, hence this decoder.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stream.errors import FormatError
from stream.packet import EVENT_DTYPE

__all__ = ["EVENT_TYPES", "read_dat"]

EVENT_TYPES = (0x00, 0x0C)
_RECORD = np.dtype([("t", "<u4"), ("address", "<u4")])
_WRAP_US = 1 << 32


def read_dat(path: Path, header_bytes: int, *, version: int, chunk_events: int = 65536) -> Iterator[NDArray[np.void]]:
    """Read a file piece by piece.

    Parameters
    ----------
    header_bytes
        Where the first event stands: after the text and the two bytes of type and size.
    version
        1 or 2.

    Yields
    ------
    events
        EVENT_DTYPE, shape (n,), as they stand in the file.

    Raises
    ------
    FormatError
        After everything that could be read was yielded: the last record is torn.
    """
    offset_us = 0
    last = 0
    at = header_bytes
    with path.open("rb") as file:
        file.seek(header_bytes)
        while block := file.read(chunk_events * _RECORD.itemsize):
            whole = len(block) // _RECORD.itemsize * _RECORD.itemsize
            records = np.frombuffer(block[:whole], _RECORD)
            if len(records):
                t = records["t"].astype(np.int64)
                wraps = np.diff(t, prepend=last) < -(_WRAP_US // 2)
                last = int(t[-1])
                address = records["address"]
                events = np.empty(len(records), EVENT_DTYPE)
                events["t"] = t + offset_us + np.cumsum(wraps) * _WRAP_US
                offset_us += int(np.count_nonzero(wraps)) * _WRAP_US
                if version == 1:
                    events["x"], events["y"], events["p"] = address & 511, (address >> 9) & 255, (address >> 17) & 1
                else:
                    events["x"], events["y"] = address & 16383, (address >> 14) & 16383
                    events["p"] = (address >> 28) > 0
                yield events
            at += whole
            if len(block) > whole:
                raise FormatError(
                    f"{path}: torn record at byte {at} of {at + len(block) - whole}: got {len(block) - whole} bytes, "
                    f"wanted 8; everything before was read, copy the file again for the rest"
                )
