"""What kind of event file is this? Told from its first bytes.

A name is a claim, content is evidence: ``.raw`` is EVT2, EVT2.1 or EVT3 (or an image), ``.bin`` may be anything. The
suffix is asked only where the content says nothing: the 40-bit ATIS format has no header at all.

Headerless EVT2 (a dump of the sensor's words) is recognised by its words: each of the first thousands has one of six
types out of sixteen, and the time words never step back. For bytes of another format that happens with a chance of
(6/16)^n.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sources.byte_stream import STANDARD_INPUT, peek
from sources.dat import EVENT_TYPES
from sources.evt21_text import is_evt21_text
from sources.text_events import TextLayout, TextUnit, text_layout
from stream.errors import FormatError

__all__ = ["CONTAINERS", "READABLE", "FileFormat", "recognise"]

READABLE = (
    "AEDAT 2, 3 and 4, EVT2, EVT2.1 and EVT3 (.raw), DAT, Event Stream (.es), 40-bit ATIS (.bin), text (.csv, .txt), "
    "HDF5, ROS bags, MATLAB, NumPy"
)

CONTAINERS = {
    "hdf5": "HDF5",
    "npy": "NumPy .npy",
    "npz": "a zip archive (NumPy .npz?)",
    "mat": "MATLAB 5",
    "rosbag1": "a ROS 1 bag",
    "rosbag2": "SQLite (a ROS 2 bag?)",
    "mcap": "MCAP (a ROS 2 bag?)",
}
"""Files that may hold events or anything else, by format name, in words."""

_HEAD_BYTES = 1 << 16

_MAGIC = (
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"MATLAB 7.3", "hdf5"),  # HDF5 after 512 bytes of MATLAB's own
    (b"MATLAB 5.0", "mat"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "npz"),
    (b"#ROSBAG", "rosbag1"),
    (b"SQLite format 3\x00", "rosbag2"),
    (b"\x89MCAP0\r\n", "mcap"),
    (b"#!AER-DAT2", "aedat2"),
    (b"#!AER-DAT3", "aedat3"),
    (b"#!AER-DAT4", "aedat4"),
)
_REFUSED = (
    (b"#!AER-DAT1", "AEDAT 1"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"\x89PNG", "a PNG image"),
)
_ES_TYPES = {0: "generic", 1: "dvs", 2: "atis", 3: "amd", 4: "color"}


class FileFormat(NamedTuple):
    """What the first bytes of a file say."""

    name: str  # a key of event_file.DECODERS
    size_bytes: int  # -1: standard input
    header_bytes: int = 0  # where the events start, for evt and dat
    width: int | None = None  # pixels, where the header tells
    height: int | None = None
    version: int = 0  # of DAT
    layout: TextLayout | None = None  # of text


def recognise(path: Path, *, columns: str = "", time_unit: TextUnit = "auto") -> FileFormat:
    """Recognise an event file.

    Parameters
    ----------
    path
        ``-`` is standard input.
    columns, time_unit
        Of text, if it does not say so itself; see ``sources.text_events``.

    Raises
    ------
    FormatError
        There is no such file, it is empty, it is not one of the formats that can be read, or its header is cut off.
    """
    try:
        if path.is_dir():
            raise FormatError(f"{path}: is a folder, wanted an event file; name a file in it, or play it by its labels")
        head = peek(path, _HEAD_BYTES)
        size = -1 if path == STANDARD_INPUT else path.stat().st_size
    except FileNotFoundError as error:
        raise FormatError(f"{path}: there is no such file; check the path (relative to {Path.cwd()})") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}; check its permissions") from error
    if not head:
        raise FormatError(f"{path}: is empty (0 bytes), wanted an event file; copy or record it again")
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return FileFormat(name, size)
    for magic, kind in _REFUSED:
        if head.startswith(magic):
            raise FormatError(
                f"{path}: is {kind}, which cannot be read yet; wanted {READABLE}; convert it to one of them"
            )
    if head.startswith(b"#!AER-DAT"):
        raise FormatError(f"{path}: is AEDAT of an unknown version {head[9:12]!r}; wanted {READABLE}; convert it")
    if head.startswith(b"Event Stream"):
        return _event_stream(path, head, size)
    if head.startswith(b"%"):
        return _prophesee(path, head, size)
    if is_evt21_text(head):
        return FileFormat("evt2.1 text", size)
    is_whole = len(head) < _HEAD_BYTES
    lines = head if is_whole else head[: head.rfind(b"\n") + 1]
    layout = text_layout(lines, columns=columns, time_unit=time_unit)
    if layout is not None:
        return FileFormat("text", size, layout=layout)
    if _is_headerless_evt2(head):
        return FileFormat("evt2", size)
    if path.suffix.lower() == ".bin":
        return FileFormat("bin", size)
    raise FormatError(
        f"{path}: unknown format: begins with {head[:12]!r}; wanted {READABLE}; "
        f"name the format (format = ...) if it is one of those that have no header"
    )


def _event_stream(path: Path, head: bytes, size: int) -> FileFormat:
    """Read the header: magic, three bytes of version, type, and two uint16 of size for all types but generic."""
    if len(head) < 20:
        raise FormatError(f"{path}: the header ends at byte {len(head)}, wanted 20 bytes; copy the file again")
    kind = _ES_TYPES.get(head[15], f"type {head[15]}")
    if kind not in ("dvs", "atis"):
        raise FormatError(
            f"{path}: is an Event Stream file of {kind} events, wanted dvs or atis; "
            f"convert it with the tool that wrote it"
        )
    return FileFormat("es", size, 20, int.from_bytes(head[16:18], "little"), int.from_bytes(head[18:20], "little"))


def _prophesee(path: Path, head: bytes, size: int) -> FileFormat:
    """Read the lines that begin with %, up to ``% end`` or to the first that does not."""
    at = 0
    words: dict[str, str] = {}
    while head[at : at + 1] == b"%":
        end = head.find(b"\n", at)
        if end < 0:
            raise FormatError(
                f"{path}: the header has no end: its line at byte {at} is cut off; wanted a Prophesee RAW or DAT "
                f"header; copy the file again"
            )
        key, _, value = head[at + 1 : end].decode("latin-1").strip().partition(" ")
        words[key.lower()] = value.strip()
        at = end + 1
        if key.lower() == "end":
            break
    width, height = _prophesee_size(words)
    name = words.get("format", "").split(";")[0].lower() or f"evt{words['evt'].split()[0] if words.get('evt') else ''}"
    name = {"evt21": "evt2.1", "evt2.0": "evt2", "evt3.0": "evt3"}.get(name, name)
    if name in ("evt2", "evt2.1", "evt3"):
        return FileFormat(name, size, at, width, height)
    if name != "evt":
        raise FormatError(f"{path}: is Prophesee RAW of format {name!r}; wanted EVT2, EVT2.1 or EVT3; convert it")
    if "version" not in words and path.suffix.lower() != ".dat":
        raise FormatError(
            f"{path}: its header names neither a format (% evt 3.0, % format EVT3) nor a DAT version; wanted "
            f"{READABLE}; it may not be an event file"
        )
    if len(head) < at + 2:
        raise FormatError(
            f"{path}: the header ends at byte {len(head)}, wanted event type and size there; copy the file again"
        )
    if head[at] not in EVENT_TYPES or head[at + 1] != 8:
        raise FormatError(
            f"{path}: is DAT with events of type {head[at]:#04x} and {head[at + 1]} bytes; wanted change detection "
            f"(type 0x00 or 0x0c, 8 bytes); other events (triggers, boxes) cannot be played"
        )
    return FileFormat("dat", size, at + 2, width, height, version=1 if words.get("version", "2") == "1" else 2)


def _prophesee_size(words: dict[str, str]) -> tuple[int | None, int | None]:
    """Find the sensor's size in header words; vendors have written it in three ways."""
    fields = dict(part.split("=", 1) for part in words.get("format", "").lower().split(";") if "=" in part)
    width = fields.get("width") or words.get("width") or words.get("geometry", "").partition("x")[0]
    height = fields.get("height") or words.get("height") or words.get("geometry", "").partition("x")[2]
    if all(word.isascii() and word.isdigit() and len(word) <= 5 for word in (width, height)):
        found = int(width), int(height)
        if all(0 < size <= 65535 for size in found):
            return found
    return None, None


def _is_headerless_evt2(head: bytes) -> bool:
    """Tell whether the bytes are plausible EVT2 words: type in the four highest bits, 8 = upper part of the time."""
    words = np.frombuffer(head[: len(head) // 4 * 4], "<u4")
    kinds = words >> 28
    times = (words[kinds == 8] & 0x0FFFFFFF).astype(np.int64)
    return bool(
        len(words) >= 64
        and len(times) >= 2
        and np.isin(kinds, (0x0, 0x1, 0x8, 0xA, 0xE, 0xF)).all()
        and (np.diff(times) >= 0).all()
    )
