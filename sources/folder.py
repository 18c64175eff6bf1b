"""Labelled recordings as one stream: ``FOLDER/LABEL/RECORDING``, the layout of N-MNIST and its kin.

A data set is played, not loaded: one recording after the other, each between a ``Reset`` and its ``Label``, with
silence between them, so that an online learner meets a data set as it would meet a camera. A recording's times are
shifted so that its first event falls on the start of its turn; inside of it they stay as they are.
"""

import operator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from sources.counter_random import shuffled
from sources.data_path import expand_path
from sources.event_file import read_events
from stream.errors import ConfigError, FormatError
from stream.operator import Port, Snapshot, Source
from stream.packet import EVENT_DTYPE, Barrier, End, Label, Message, Packet, Reset

__all__ = ["LabelledFolder", "Part"]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One folder of labelled recordings, and how to play it.

    Parameters
    ----------
    path
        Holds a folder for each label (0, 1, ...); may hold ``~`` and environment variables.
    teach
        Whether the stream may be learned from.
    passes
        How often it is played.
    shuffle_seed
        Order of the recordings, another one in each pass; None = sorted by label and name.
    limit
        Play only so many recordings, the same in each pass, of all labels as evenly as possible.
    """

    path: str
    teach: bool = True
    passes: int = 1
    shuffle_seed: int | None = 0
    limit: int | None = None


class Entry(NamedTuple):
    """One recording of a part."""

    label: int
    path: Path


# Where in a recording's turn the stream stands: what is to be handed out next.
_START, _EVENTS, _LABEL, _BARRIER = range(4)


class LabelledFolder(Source):
    """Play folders of labelled recordings one after the other.

    Each recording is ``Reset(t0)``, its events from ``t0`` on, ``Label(t_end, start_us=t0)`` with ``t_end`` one
    microsecond after its last event. The next one starts ``gap_us`` later.

    A recording that is damaged is played as far as it can be read; it is counted, and ``End`` names the first one.

    Parameters
    ----------
    parts
        The folders, for example one to learn from and one to be tested on.
    width, height
        The sensor, pixels. Events outside are dropped and counted.
    gap_us
        Silence between recordings, us.
    barrier_every
        Mark a snapshot after every so many recordings; 0 = never. Barriers are numbered 1, 2, ...
    """

    def __init__(
        self, *, parts: list[Part], width: int, height: int, gap_us: int = 100_000, barrier_every: int = 0
    ) -> None:
        if not parts:
            raise ConfigError("labelled folder: got no parts, wanted at least one; add parts = [{ path = ... }]")
        if width < 1 or height < 1 or gap_us < 0 or barrier_every < 0:
            raise ConfigError(
                f"labelled folder: got width {width}, height {height}, gap_us {gap_us}, barrier_every {barrier_every}; "
                f"wanted a size from 1 on, and a gap and a number of recordings from 0 on"
            )
        self.outputs = {"events": Port("events", width, height)}
        self._parts = parts
        self._width, self._height = width, height
        self._gap_us, self._barrier_every = gap_us, barrier_every
        self.recordings_of = [recordings_of(part) for part in parts]
        self._rewind()

    def _rewind(self) -> None:
        self._part = self._pass = self._index = 0
        self._stage = _START
        self._at = 0  # events of the current recording handed out
        self._t0 = self._t_end = 0
        self._played = self._n_events = self._damaged = self._outside = self._clamped = 0
        self._first_fault = ""
        self._events = np.empty(0, EVENT_DTYPE)
        self._order: list[int] = []
        self._skip_empty_parts()

    def _skip_empty_parts(self) -> None:
        """Go to the next part and pass that has something to play, and put its recordings in order."""
        while self._part < len(self._parts):
            part, entries = self._parts[self._part], self.recordings_of[self._part]
            if self._pass < part.passes and self._index < len(entries):
                self._order = list(range(len(entries)))
                if part.shuffle_seed is not None:
                    self._order = shuffled(len(entries), seed=part.shuffle_seed, stream=1 + self._pass)
                return
            self._index = 0
            self._pass = self._pass + 1 if self._pass + 1 < part.passes and entries else 0
            if self._pass == 0:
                self._part += 1

    def _entry(self) -> Entry:
        return self.recordings_of[self._part][self._order[self._index]]

    def _load(self) -> str:
        """Read the current recording and shift it to its turn; returns what is wrong with it, if anything."""
        entry = self._entry()
        fault = ""
        try:
            recording = read_events(entry.path, width=self._width, height=self._height)
            events, fault = recording.events, recording.fault
            self._outside += recording.outside
            self._clamped += recording.backward
        except FormatError as error:
            events, fault = np.empty(0, EVENT_DTYPE), str(error)
        if len(events):
            events["t"] += self._t0 - events["t"][0]
        self._events = events
        self._t_end = int(events["t"][-1]) + 1 if len(events) else self._t0 + 1
        return fault

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next mark or events of the current recording."""
        if self._part == len(self._parts):
            return self._end()
        teach = self._parts[self._part].teach
        if self._stage == _START:
            if self._played:
                self._t0 = self._t_end + self._gap_us
            fault = self._load()
            if fault:
                self._damaged += 1
                self._first_fault = self._first_fault or fault
            self._stage, self._at = _EVENTS if len(self._events) else _LABEL, 0
            return Reset(self._t0, teach)
        if self._stage == _EVENTS:
            items = self._events[self._at : self._at + max(1, max_items)]
            self._at += len(items)
            self._n_events += len(items)
            if self._at == len(self._events):
                self._stage = _LABEL
            return Packet(items, int(items["t"][0]), int(items["t"][-1]) + 1)
        if self._stage == _LABEL:
            label = Label(self._t_end, self._entry().label, self._t0, teach)
            self._played += 1
            if self._barrier_every and self._played % self._barrier_every == 0:
                self._stage = _BARRIER
            else:
                self._next()
            return label
        barrier = Barrier(self._t_end, self._played // self._barrier_every)
        self._next()
        return barrier

    def _next(self) -> None:
        self._stage = _START
        self._index += 1
        if self._index == len(self._order):
            self._skip_empty_parts()

    def _end(self) -> End:
        if not self._damaged:
            return End(self._t_end)
        return End(
            self._t_end,
            f"{self._damaged} of {self._played} recordings could not be read to their end; "
            f"the first: {self._first_fault}",
        )

    def _position(self) -> dict[str, int]:
        return {
            "part": self._part,
            "pass": self._pass,
            "index": self._index,
            "stage": self._stage,
            "at": self._at,
            "t0_us": self._t0,
            "t_end_us": self._t_end,
            "played": self._played,
            "n_events": self._n_events,
            "damaged": self._damaged,
            "outside": self._outside,
            "clamped": self._clamped,
        }

    def snapshot(self) -> Snapshot:
        """Return the position: part, pass, recording, and event in it."""
        snapshot: Snapshot = {name: np.array(value, np.int64) for name, value in self._position().items()}
        snapshot["first_fault"] = np.frombuffer(self._first_fault.encode(), np.uint8).copy()
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Go to a position; reads the recording there again. ConfigError if these folders have no such position."""
        wanted = {*self._position(), "first_fault"}
        if snapshot.keys() != wanted:
            raise ConfigError(
                f"snapshot of a labelled folder: got arrays {sorted(snapshot)}, wanted {sorted(wanted)}; "
                f"restore the snapshot of a labelled folder"
            )
        position = {name: operator.index(snapshot[name].item()) for name in self._position()}
        part, index = position["part"], position["index"]
        if part > len(self._parts) or (part < len(self._parts) and index >= len(self.recordings_of[part])):
            raise ConfigError(
                f"snapshot of a labelled folder: stands at recording {index} of part {part}, which is not there; "
                f"restore it with the parts, and the folders, that it was taken from"
            )
        self._part, self._pass, self._index = part, position["pass"], index
        self._skip_empty_parts()
        self._stage, self._at = position["stage"], position["at"]
        self._t0 = position["t0_us"]
        if self._stage != _START:
            self._load()
        self._t_end = position["t_end_us"]
        self._played, self._n_events = position["played"], position["n_events"]
        self._damaged = position["damaged"]
        self._outside, self._clamped = position["outside"], position["clamped"]
        self._first_fault = bytes(np.asarray(snapshot["first_fault"], np.uint8)).decode()

    def statistics(self) -> dict[str, float]:
        """Return what was played so far."""
        return {
            "recordings": self._played,
            "of recordings": sum(
                part.passes * len(entries) for part, entries in zip(self._parts, self.recordings_of, strict=True)
            ),
            "events": self._n_events,
            "damaged files": self._damaged,
            "times raised": self._clamped,
            "outside dropped": self._outside,
        }


def recordings_of(part: Part) -> list[Entry]:
    """Find the recordings of a part, sorted by label and name, and cut down to its limit."""
    folder = expand_path(part.path)
    way_out = "wanted FOLDER/LABEL/RECORDING with labels 0, 1, ...; check the path, or make recordings first"
    if part.passes < 0 or (part.limit is not None and part.limit < 0):
        raise ConfigError(f"part {part.path}: got passes {part.passes} and limit {part.limit}; wanted them from 0 on")
    if part.shuffle_seed is not None and part.shuffle_seed < 0:
        raise ConfigError(
            f"part {part.path}: got shuffle_seed {part.shuffle_seed}; wanted it from 0 on, or none at all"
        )
    if not folder.is_dir():
        raise ConfigError(f"part {part.path}: there is no folder {folder}; {way_out}")
    entries: list[Entry] = []
    for child in folder.iterdir():
        if not child.is_dir() or child.name.startswith("."):
            continue
        if not (child.name.isascii() and child.name.isdigit()):
            raise ConfigError(f"part {part.path}: the folder {child.name!r} is no label; {way_out}")
        entries += [
            Entry(int(child.name), file) for file in child.iterdir() if file.is_file() and not file.name.startswith(".")
        ]
    if not entries:
        raise ConfigError(f"part {part.path}: {folder} holds no recordings; {way_out}")
    entries.sort(key=lambda entry: (entry.label, entry.path.name))
    if part.limit is None:
        return entries
    order = list(range(len(entries)))
    if part.shuffle_seed is not None:
        order = shuffled(len(entries), seed=part.shuffle_seed)
    # the first of each label before the second of any: the limit cuts all labels down evenly
    seen: dict[int, int] = {}
    turns: list[tuple[int, int]] = []
    for index in order:
        turn = seen.get(entries[index].label, 0)
        seen[entries[index].label] = turn + 1
        turns.append((turn, index))
    chosen = sorted(turns, key=lambda item: item[0])[: part.limit]
    return [entries[index] for _, index in sorted(chosen, key=lambda item: item[1])]
