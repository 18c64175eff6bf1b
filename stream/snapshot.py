"""Snapshots on disk: a folder per barrier, a safetensors file per member. No pickles: reading one runs no code.

::

    FOLDER/000003/learner.safetensors   the state of a member when barrier 3 passed it
    FOLDER/000003/manifest.json         written last: size and sha-256 of each member's file, the ledger of each edge
    FOLDER/final/...                    the states behind the last message, when the streams came to their end

Members write when the barrier passes them, each in its own time and in a thread of its own (:class:`Keeper`). A
snapshot is *complete* when every member has told that its file is safe; then the :class:`Shelf` writes the manifest. A
folder without a manifest, or with one that does not fit its files to the bit, counts for nothing: the complete one
before it is taken. Every file is written beside its place, synced and renamed, so that a kill or a full disk leaves
either the whole file or none.

A member whose streams have ended meets no barrier any more: its final state stands for it in every later snapshot.
"""

import contextlib
import hashlib
import queue
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from msgspec import Meta

from stream.errors import ConfigError
from stream.ledger import EdgeCounts
from stream.operator import Snapshot
from stream.places import copy_file, remove_tree, sync_folder, write_whole

__all__ = [
    "FINAL",
    "Keeper",
    "Kept",
    "Manifest",
    "Part",
    "Shelf",
    "forget_after",
    "latest",
    "read_manifest",
    "read_snapshot",
    "write_manifest",
    "write_snapshot",
]

FINAL = 0  # stands for the number of a barrier behind the end of all streams; barriers are numbered from 1 on
MANIFEST = "manifest.json"
PENDING = 2  # snapshots that may wait to be written; a disk slower than that slows the stream instead of filling memory


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member's share of a snapshot."""

    bytes: Annotated[int, Meta(ge=0)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    t_us: int  # how far the member had come
    ended: bool  # whether its streams had ended before the barrier


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A complete snapshot. ``ledger`` holds what went over each edge from the run's beginning up to the barrier."""

    number: Annotated[int, Meta(ge=0)]
    members: dict[Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)], Part]
    ledger: dict[str, EdgeCounts]

    @property
    def stream_us(self) -> int:
        """Stream time of the barrier."""
        return max((part.t_us for part in self.members.values()), default=0)


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A manifest and the checksum of its own text."""

    sha256: str
    body: msgspec.Raw


class Kept(msgspec.Struct, tag=True):
    """What a member's process reports when its file is safe, or could not be written."""

    number: int
    member: str
    t_us: int
    sent: dict[str, tuple[int, int, int]] = {}  # by edge: messages, items, bytes since the process started
    delivered: dict[str, tuple[int, int]] = {}  # by edge: messages, items
    bytes: int = 0
    sha256: str = ""
    error: str = ""


def folder_of(folder: Path, number: int) -> Path:
    """Return where a snapshot lies."""
    return folder / ("final" if number == FINAL else f"{number:06d}")


def write_snapshot(folder: Path, number: int, name: str, snapshot: Snapshot) -> tuple[int, str]:
    """Write a member's snapshot, whole or not at all.

    Returns
    -------
    bytes, sha256
        Of ``folder/NUMBER/NAME.safetensors``.
    """
    path = folder_of(folder, number) / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {key: np.ascontiguousarray(value) for key, value in snapshot.items()}
    # ascontiguousarray makes shape (1,) of (); safetensors keeps what it is given
    data = safetensors.numpy.save({key: arrays[key].reshape(np.shape(snapshot[key])) for key in arrays})
    write_whole(path, data)
    return len(data), hashlib.sha256(data).hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Declare a snapshot complete. Its members' files must be safe already."""
    body = msgspec.json.encode(manifest)
    sealed = Sealed(hashlib.sha256(body).hexdigest(), msgspec.Raw(body))
    write_whole(folder_of(folder, manifest.number) / MANIFEST, msgspec.json.encode(sealed))
    sync_folder(folder)


def read_manifest(folder: Path, number: int) -> Manifest:
    """Read a complete snapshot's manifest and compare every file with it.

    Raises
    ------
    ConfigError
        If the snapshot is missing, was never complete, or is not what was written, to the bit.
    """
    manifest = _manifest(folder, number)
    for name, part in manifest.members.items():
        _checked(folder_of(folder, number) / f"{name}.safetensors", part)
    return manifest


def _manifest(folder: Path, number: int) -> Manifest:
    place = folder_of(folder, number)
    try:
        data = (place / MANIFEST).read_bytes()
    except OSError:
        kept = ", ".join(f"{at:06d}" for at in _numbers(folder)) or "none"
        state = "was never complete" if place.is_dir() else "not there"
        raise ConfigError(f"snapshot {place}: {state}; kept are {kept}") from None
    try:
        sealed = msgspec.json.decode(data, type=Sealed)
        if hashlib.sha256(bytes(sealed.body)).hexdigest() != sealed.sha256:
            raise msgspec.ValidationError("its checksum does not fit")
        manifest = msgspec.json.decode(sealed.body, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"snapshot {place}: manifest damaged: {error}; use an earlier one") from None
    if manifest.number != number:
        raise ConfigError(f"snapshot {place}: its manifest is that of {manifest.number}; use an earlier one")
    return manifest


def _checked(path: Path, part: Part) -> bytes:
    """Read a member's file; ConfigError unless it is what the manifest says."""
    try:
        size = path.stat().st_size
        if size != part.bytes:
            raise ConfigError(f"snapshot {path}: {size} bytes, wanted {part.bytes}: damaged; use an earlier one")
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"snapshot {path}: damaged: {error.strerror}; use an earlier one") from None
    if hashlib.sha256(data).hexdigest() != part.sha256:
        raise ConfigError(f"snapshot {path}: damaged: its checksum does not fit; use an earlier one")
    return data


def read_snapshot(folder: Path, number: int, name: str) -> Snapshot:
    """Read a member's part of a complete snapshot. Raises ConfigError if it is missing or damaged."""
    manifest = _manifest(folder, number)
    path = folder_of(folder, number) / f"{name}.safetensors"
    if name not in manifest.members:
        raise ConfigError(f"snapshot {path}: no '{name}' in it; it has {', '.join(manifest.members)}")
    try:
        return dict(safetensors.numpy.load(_checked(path, manifest.members[name])))
    except safetensors.SafetensorError as error:
        raise ConfigError(f"snapshot {path}: damaged: {error}; use an earlier one") from None


def latest(folder: Path) -> tuple[Manifest | None, list[str]]:
    """Find the last good complete snapshot.

    Returns
    -------
    manifest, refused
        None if there is none; and why later ones were refused, in words.
    """
    refused: list[str] = []
    for number in reversed(_numbers(folder)):
        try:
            return read_manifest(folder, number), refused
        except ConfigError as error:
            refused.append(str(error))
    return None, refused


def forget_after(folder: Path, number: int) -> None:
    """Remove what lies behind a barrier: what members go on to do from there will be written anew."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name == "final" or (entry.name.isdigit() and int(entry.name) > number):
            _remove(entry)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of all snapshots that were once complete, ascending."""
    return sorted(int(entry.parent.name) for entry in folder.glob(f"[0-9]*/{MANIFEST}") if entry.parent.name.isdigit())


def _remove(place: Path) -> None:
    # the manifest first: a kill in between leaves an incomplete snapshot, not a damaged one
    with contextlib.suppress(OSError):
        (place / MANIFEST).unlink(missing_ok=True)
    remove_tree(place)


class Keeper:
    """Writes snapshots in a thread of its own, one after the other, and tells when each is safe.

    Parameters
    ----------
    folder
        Where snapshots lie.
    tell
        Called from the thread, in the order of ``put``.
    """

    def __init__(self, folder: Path, tell: Callable[[Kept], None]) -> None:
        self._folder, self._tell = folder, tell
        self._jobs: queue.Queue[tuple[Kept, Snapshot, Callable[[], None]] | None] = queue.Queue(PENDING)
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._write, name="snapshots", daemon=True)
        self._thread.start()

    def put(self, kept: Kept, snapshot: Snapshot, settle: Callable[[], None]) -> None:
        """Hand a member's snapshot over; waits only if several are waiting already."""
        self._jobs.put((kept, snapshot, settle))

    def close(self, *, finish: bool) -> None:
        """Write what waits, or (``finish=False``) leave it, and end the thread. Idempotent."""
        self._is_abandoned = self._is_abandoned or not finish
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _write(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._is_abandoned:
                continue
            kept, snapshot, settle = job
            try:
                settle()
                kept.bytes, kept.sha256 = write_snapshot(self._folder, kept.number, kept.member, snapshot)
            except Exception as error:  # a disk that is full costs this snapshot, not the run
                words = error.strerror if isinstance(error, OSError) else str(error)
                kept.error = f"{words or type(error).__name__}"
            self._tell(kept)


class Shelf:
    """Puts the parts of snapshots together as members report them.

    Parameters
    ----------
    folder
        Where snapshots lie.
    members
        All members of the pipeline.
    edges
        All edges: name -> (member it leaves, member it enters).
    keep
        How many complete snapshots are kept; None = all.
    begin
        The snapshot from which members have started; None = from the beginning.

    Attributes
    ----------
    last : Manifest or None
        The last complete snapshot, ``begin`` at first.
    n_complete : int
        Snapshots completed here.
    n_failed : int
        Snapshots that could not be completed.
    failure : str
        Why the last of them could not, in words.
    """

    def __init__(
        self,
        folder: Path,
        members: Iterable[str],
        edges: dict[str, tuple[str, str]],
        *,
        keep: int | None,
        begin: Manifest | None,
    ) -> None:
        self._folder, self._members, self._edges, self._keep = folder, set(members), edges, keep
        self._begin = begin
        self._open: dict[int, dict[str, Kept]] = {}
        self._ended: dict[str, Kept] = {}
        self._given_up: set[int] = set()
        self.last = begin
        self.n_complete = 0
        self.n_failed = 0
        self.failure = ""
        forget_after(folder, begin.number if begin is not None else 0)

    def note(self, kept: Kept) -> list[Manifest]:
        """Take in a member's report; returns what it completes."""
        if kept.error:
            self._fail(kept.number, f"snapshot {_word(kept.number)} of '{kept.member}' not written: {kept.error}")
        elif kept.number == FINAL:
            self._ended[kept.member] = kept
        else:
            self._open.setdefault(kept.number, {})[kept.member] = kept
        completed = []
        for number in sorted(self._open):
            parts = self._open[number]
            if number in self._given_up:
                del self._open[number]
            elif self._members <= parts.keys() | self._ended.keys():
                del self._open[number]
                manifest = self._complete(number, parts)
                completed += [] if manifest is None else [manifest]
        return completed

    def is_waiting(self, number: int) -> bool:
        """Tell whether a barrier is still under way."""
        done = self.last.number if self.last is not None else 0
        return number > done and number not in self._given_up

    def finish(self) -> Manifest | None:
        """Declare that all streams have come to their end; a run that says so is never resumed."""
        if FINAL in self._given_up or self._ended.keys() != self._members:
            return None
        return self._complete(FINAL, {})

    def _fail(self, number: int, words: str) -> None:
        if number not in self._given_up:  # what others say of it later only follows from the first fault
            self.n_failed += 1
            self.failure = words
        self._given_up.add(number)
        if number != FINAL:
            _remove(folder_of(self._folder, number))

    def _complete(self, number: int, parts: dict[str, Kept]) -> Manifest | None:
        ended = {name: kept for name, kept in self._ended.items() if name not in parts}
        together = {**parts, **ended}
        members = {
            name: Part(kept.bytes, kept.sha256, kept.t_us, name in ended) for name, kept in sorted(together.items())
        }
        manifest = Manifest(number, members, self._ledger(together, ended.keys()))
        place = folder_of(self._folder, number)
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name in ended if number != FINAL else ():
                copy_file(folder_of(self._folder, FINAL) / f"{name}.safetensors", place / f"{name}.safetensors")
            write_manifest(self._folder, manifest)
        except OSError as error:
            self._fail(number, f"snapshot {_word(number)} not completed: {error.strerror}")
            return None
        if number != FINAL:
            self.last = manifest
            self.n_complete += 1
        self._prune()
        return manifest

    def _ledger(self, parts: dict[str, Kept], ended: Collection[str]) -> dict[str, EdgeCounts]:
        """Count what went over each edge before the barrier: what was sent and not delivered by then was dropped."""
        ledger = {}
        for edge, (out, into) in self._edges.items():
            before = self._begin.ledger.get(edge) if self._begin is not None else None
            before = before or EdgeCounts()
            messages, items, n_bytes = parts[out].sent.get(edge, (0, 0, 0))
            messages += out not in ended  # the barrier itself, sent right after its sender's snapshot
            delivered_messages, delivered_items = parts[into].delivered.get(edge, (0, 0))
            ledger[edge] = EdgeCounts(
                sent_messages=before.sent_messages + messages,
                sent_items=before.sent_items + items,
                dropped_messages=before.dropped_messages + messages - delivered_messages,
                dropped_items=before.dropped_items + items - delivered_items,
                delivered_messages=before.delivered_messages + delivered_messages,
                delivered_items=before.delivered_items + delivered_items,
                refused_messages=before.refused_messages,
                bytes=before.bytes + n_bytes,
            )
        return ledger

    def _prune(self) -> None:
        complete = _numbers(self._folder)
        if self._keep is None or not complete:
            return
        kept = set(complete[-self._keep :])
        for entry in self._folder.iterdir():
            # an older one without a manifest can become complete no more
            if entry.name.isdigit() and int(entry.name) < complete[-1] and int(entry.name) not in kept:
                _remove(entry)


def _word(number: int) -> str:
    return "at the end" if number == FINAL else str(number)
