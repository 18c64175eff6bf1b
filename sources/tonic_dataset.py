"""tonic's labelled data sets as a stream, and tonic's transforms on whole recordings.

tonic is under the GPL, 500 MB with what it needs, and takes seconds to import; this is the one module that does so, and
only when something here is used.

Nothing is ever downloaded here. tonic looks for the archive that it once unpacked, and goes to the network where that
is gone although the recordings are there; a data set is opened here with both its look and its download replaced: what
lies in the folder is played, and where nothing lies, the message tells how to get it.
"""

import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sources.counter_random import shuffled
from sources.data_path import expand_path
from stream.errors import ConfigError, FormatError, StreamError
from stream.operator import Emit, Operator, Port, Snapshot, Source
from stream.packet import EVENT_DTYPE, End, Label, Mark, Message, Packet, Reset

__all__ = ["TonicDataset", "TonicTransform", "as_tonic", "from_tonic"]

TONIC_DTYPE = np.dtype([("x", "<i8"), ("y", "<i8"), ("t", "<i8"), ("p", "<i8")])

# What is to be handed out next.
_START, _EVENTS, _LABEL = range(3)


def as_tonic(events: NDArray[np.void]) -> NDArray[np.void]:
    """Convert to what tonic's transforms take.

    Parameters
    ----------
    events
        EVENT_DTYPE, shape (n,).

    Returns
    -------
    array
        Fields x, y, t (us), p (0 or 1), all int64 because transforms calculate in place and would wrap; shape (n,).
    """
    array = np.empty(len(events), TONIC_DTYPE)
    for name in TONIC_DTYPE.names or ():
        array[name] = events[name]
    return array


def from_tonic(array: NDArray[Any], *, width: int, height: int) -> tuple[NDArray[np.void], int]:
    """Convert a recording of tonic, whatever the order and types of its fields.

    Parameters
    ----------
    array
        Structured, fields t (us), x, y, p (false or below one: darker), shape (n,).
    width, height
        The sensor, pixels.

    Returns
    -------
    events
        EVENT_DTYPE, shape (m,), sorted by time (ties keep their order).
    n_outside
        How many lay outside of the sensor and were dropped.

    Raises
    ------
    FormatError
        These are no events of a camera.
    """
    names = getattr(getattr(array, "dtype", None), "names", None) or ()
    if not {"t", "x", "y", "p"} <= set(names):
        raise FormatError(
            f"recording from tonic: got {type(array).__name__} with fields {', '.join(names) or 'none'}, wanted "
            f"t, x, y and p; take a data set or transform that gives events of a camera"
        )
    x, y = array["x"].astype(np.int64), array["y"].astype(np.int64)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    kept = array[inside]
    events = np.empty(len(kept), EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = kept["t"], x[inside], y[inside], kept["p"] > 0
    return events[np.argsort(events["t"], kind="stable")], len(array) - len(kept)


def _tonic(part: str) -> Any:
    try:
        return importlib.import_module(f"tonic.{part}")
    except ImportError as error:
        raise ConfigError(
            f"tonic cannot be imported ({error}); pip install 'hebbstream[datasets]', "
            f"or play folders of recordings with sources.folder.LabelledFolder, which needs nothing more"
        ) from error


def _open_dataset(name: str, root: Path, parameters: dict[str, bool]) -> Any:
    """Open a data set of tonic from what lies on this machine."""
    base = getattr(_tonic("datasets"), name, None)
    if not inspect.isclass(base):
        known = [key for key, value in vars(_tonic("datasets")).items() if inspect.isclass(value)]
        raise ConfigError(f"tonic data set: got {name!r}, wanted one of {', '.join(sorted(known))}")
    way_out = (
        f"unpack it there, or let tonic download it once: python -c \"import tonic; tonic.datasets.{name}('{root}')\""
    )

    def is_there(dataset: Any) -> bool:
        folder = Path(dataset.location_on_system, getattr(dataset, "folder_name", "") or "")
        return folder.is_dir() and any(folder.iterdir())

    def refuse(dataset: Any) -> None:
        folder = Path(dataset.location_on_system, getattr(dataset, "folder_name", "") or "")
        raise ConfigError(f"tonic data set {name}: there is nothing in {folder}, and nothing is downloaded; {way_out}")

    accepted = inspect.signature(base.__init__).parameters
    if unknown := parameters.keys() - accepted.keys():
        raise ConfigError(f"tonic data set {name}: it has no {', '.join(unknown)}; leave train at its default")
    # its name decides the folder, so the class keeps it
    local = type(name, (base,), {"_check_exists": is_there, "download": refuse})
    try:
        return local(str(root), **parameters)
    except ConfigError:
        raise
    except Exception as error:  # whatever tonic meets in a folder that is not laid out as it expects
        raise ConfigError(
            f"tonic data set {name} in {root}: {type(error).__name__}: {error}; wanted tonic's layout; {way_out}"
        ) from error


class TonicDataset(Source):
    """Play a labelled data set of tonic, one recording after the other.

    Each recording is ``Reset(t0)``, its events from ``t0`` on, ``Label(t_end, start_us=t0)``, as ``LabelledFolder``
    does it. A recording that cannot be read is played as an empty one and counted; ``End`` names the first.

    Parameters
    ----------
    dataset
        A class of ``tonic.datasets``: NMNIST, DVSGesture, CIFAR10DVS, ...
    root
        The folder that tonic knows as ``save_to``; it holds a folder named like the data set. May hold ``~`` and
        environment variables.
    train
        Which of its parts, where it has parts; None = do not ask.
    teach
        Whether the stream may be learned from.
    shuffle_seed
        Order of the recordings; None = tonic's.
    limit
        Play only so many recordings.
    gap_us
        Silence between recordings, us.
    width, height
        The sensor, pixels, where the data set does not say. Events outside are dropped and counted.

    Raises
    ------
    ConfigError
        tonic is not installed, or the recordings are not in the folder.
    """

    def __init__(
        self,
        *,
        dataset: str,
        root: str,
        train: bool | None = True,
        teach: bool = True,
        shuffle_seed: int | None = None,
        limit: int | None = None,
        gap_us: int = 100_000,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        if (limit is not None and limit < 0) or gap_us < 0 or (shuffle_seed is not None and shuffle_seed < 0):
            raise ConfigError(
                f"tonic data set {dataset}: got limit {limit}, gap_us {gap_us}, shuffle_seed {shuffle_seed}; "
                f"wanted them from 0 on"
            )
        self._dataset = _open_dataset(dataset, expand_path(root), {} if train is None else {"train": train})
        size = getattr(self._dataset, "sensor_size", None)
        if width is None or height is None:
            if not size or any(side is None for side in size[:2]) or size[1] == 1:
                raise ConfigError(f"tonic data set {dataset}: it tells no size of a camera; give width and height")
            width, height = int(size[0]), int(size[1])
        n = len(self._dataset)
        if not n:
            raise ConfigError(f"tonic data set {dataset}: no recordings in {root}; unpack it there in tonic's layout")
        order = list(range(n)) if shuffle_seed is None else shuffled(n, seed=shuffle_seed)
        self._order = order[:limit]
        self._name, self._teach, self._gap_us = dataset, teach, gap_us
        self._width, self._height = width, height
        self.outputs = {"events": Port("events", width, height)}
        self._index, self._stage, self._at = 0, _START, 0
        self._t0 = self._t_end = self._n_events = self._damaged = self._outside = 0
        self._first_fault = ""
        self._events, self._label = np.empty(0, EVENT_DTYPE), 0

    def _load(self, *, count: bool) -> None:
        """Read the current recording and shift it to its turn."""
        index = self._order[self._index]
        outside, fault, target = 0, "", None
        try:
            array, target = self._dataset[index]
            self._events, outside = from_tonic(array, width=self._width, height=self._height)
        except Exception as error:  # a damaged recording, of which tonic's readers say anything at all
            self._events, fault = np.empty(0, EVENT_DTYPE), f"recording {index}: {type(error).__name__}: {error}"
        if len(self._events):
            self._events["t"] += self._t0 - self._events["t"][0]
        self._t_end = int(self._events["t"][-1]) + 1 if len(self._events) else self._t0 + 1
        if target is None:  # where a recording cannot be read, its label mostly still can
            targets = getattr(self._dataset, "targets", ())
            target = targets[index] if index < len(targets) else 0
        classes = list(getattr(self._dataset, "classes", ()))
        self._label = classes.index(target) if isinstance(target, str) and target in classes else 0
        if not isinstance(target, str):
            self._label = int(target)
        elif target not in classes:
            fault = fault or f"recording {index}: the label {target!r} is none of the data set's classes"
        if count:
            self._outside += outside
            if fault:
                self._damaged += 1
                self._first_fault = self._first_fault or fault

    def poll(self, max_items: int) -> Message | None:
        """Hand out the next mark or events of the current recording."""
        if self._index == len(self._order):
            reason = (
                f"{self._damaged} of {self._index} recordings of {self._name} could not be read; "
                f"the first: {self._first_fault}"
            )
            return End(self._t_end, reason if self._damaged else "")
        if self._stage == _START:
            if self._index:
                self._t0 = self._t_end + self._gap_us
            self._load(count=True)
            self._stage, self._at = _EVENTS if len(self._events) else _LABEL, 0
            return Reset(self._t0, self._teach)
        if self._stage == _EVENTS:
            items = self._events[self._at : self._at + max(1, max_items)]
            self._at += len(items)
            self._n_events += len(items)
            if self._at == len(self._events):
                self._stage = _LABEL
            return Packet(items, int(items["t"][0]), int(items["t"][-1]) + 1)
        self._index, self._stage = self._index + 1, _START
        return Label(self._t_end, self._label, self._t0, self._teach)

    def _position(self) -> dict[str, int]:
        return {
            "index": self._index,
            "stage": self._stage,
            "at": self._at,
            "t0_us": self._t0,
            "t_end_us": self._t_end,
            "n_events": self._n_events,
            "damaged": self._damaged,
            "outside": self._outside,
        }

    def snapshot(self) -> Snapshot:
        """Return the position: recording, and event in it."""
        snapshot: Snapshot = {name: np.array(value, np.int64) for name, value in self._position().items()}
        snapshot["first_fault"] = np.frombuffer(self._first_fault.encode(), np.uint8).copy()
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Go to a position; reads the recording there again."""
        wanted = {*self._position(), "first_fault"}
        if snapshot.keys() != wanted or not 0 <= int(snapshot["index"]) <= len(self._order):
            raise ConfigError(
                f"snapshot of tonic data set {self._name}: got arrays {sorted(snapshot)}, wanted {sorted(wanted)} and "
                f"at most {len(self._order)} recordings; restore it with the data set that it was taken from"
            )
        self._index, self._stage, self._t0 = (int(snapshot[name]) for name in ("index", "stage", "t0_us"))
        if self._stage != _START:
            self._load(count=False)
        self._at, self._t_end, self._n_events = (int(snapshot[name]) for name in ("at", "t_end_us", "n_events"))
        self._damaged, self._outside = int(snapshot["damaged"]), int(snapshot["outside"])
        self._first_fault = bytes(np.asarray(snapshot["first_fault"], np.uint8)).decode()

    def statistics(self) -> dict[str, float]:
        """Return what was played so far."""
        return {
            "recordings": self._index,
            "of recordings": len(self._order),
            "events": self._n_events,
            "damaged recordings": self._damaged,
            "outside dropped": self._outside,
        }


class TonicTransform(Operator):
    """Put each whole recording through a transform of tonic.

    Offline: events are held from one mark to the next and come out transformed in front of it. A live stream has no
    marks, so nothing would come out until it ends; tonic's transforms keep no state from one call to the next and
    would change their results with the cut of the packets otherwise.

    Parameters
    ----------
    transform
        A class of ``tonic.transforms`` that gives events: Denoise, DropEvent, TimeJitter, ...
    width, height
        The sensor, pixels.
    parameters
        Of the transform. ``sensor_size`` is given to those that want it.
    seed
        Of transforms that draw random numbers: the k-th recording is always transformed alike.
    out_width, out_height
        What comes out, pixels; default as what goes in. Events outside are dropped and counted.
    """

    def __init__(
        self,
        *,
        transform: str,
        width: int,
        height: int,
        parameters: dict[str, float] | None = None,
        seed: int = 0,
        out_width: int | None = None,
        out_height: int | None = None,
    ) -> None:
        found: Any = getattr(_tonic("transforms"), transform, None)
        if not inspect.isclass(found):
            raise ConfigError(
                f"tonic transform: got {transform!r}, wanted a class of tonic.transforms, such as Denoise"
            )
        arguments: dict[str, Any] = dict(parameters or {})
        if "sensor_size" in inspect.signature(found).parameters:
            arguments.setdefault("sensor_size", (width, height, 2))
        try:
            self._transform: Any = found(**arguments)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"tonic transform {transform}: {error}; it takes {inspect.signature(found)}, set in parameters"
            ) from error
        self._name, self._seed = transform, seed
        self._width, self._height = out_width or width, out_height or height
        self.inputs = {"events": Port("events", width, height)}
        self.outputs = {"events": Port("events", self._width, self._height)}
        self._held: list[NDArray[np.void]] = []
        self._start_us = self._end_us = self._n_recordings = self._n_in = self._n_out = self._outside = 0

    def on_packet(self, port: str, packet: Packet, emit: Emit) -> None:
        """Hold the events."""
        if not self._held:
            self._start_us = packet.start_us
        self._end_us = packet.end_us
        self._held.append(packet.items.copy())

    def on_mark(self, port: str, mark: Mark, emit: Emit) -> None:
        """Transform what was held, and pass the mark on behind it."""
        self._flush(emit)
        emit("events", mark)

    def on_end(self, emit: Emit) -> None:
        """Transform what was held."""
        self._flush(emit)

    def _flush(self, emit: Emit) -> None:
        if not self._held:
            return
        held = np.concatenate(self._held)
        self._held = []
        self._n_in += len(held)
        if not len(held):
            emit("events", Packet(held, self._start_us, self._end_us))
            return
        before = np.random.get_state()  # noqa: NPY002 - tonic draws from NumPy's global generator
        np.random.seed((self._seed + self._n_recordings) % (1 << 32))  # noqa: NPY002 - as above
        try:
            events, outside = from_tonic(self._transform(as_tonic(held)), width=self._width, height=self._height)
        except Exception as error:
            raise StreamError(
                f"tonic transform {self._name}: recording {self._n_recordings} with {len(held)} events: "
                f"{type(error).__name__}: {error}; wanted a transform that gives events"
            ) from error
        finally:
            np.random.set_state(before)  # noqa: NPY002 - as above
        # times may have been moved, but not past the marks around them
        events["t"] = np.clip(events["t"], self._start_us, self._end_us - 1)
        self._n_recordings += 1
        self._n_out += len(events)
        self._outside += outside
        emit("events", Packet(events, self._start_us, self._end_us))

    def snapshot(self) -> Snapshot:
        """Return what is held, and the counts."""
        numbers = (self._start_us, self._end_us, self._n_recordings, self._n_in, self._n_out, self._outside)
        held = np.concatenate([np.empty(0, EVENT_DTYPE), *self._held])
        return {
            "held": held.view(np.uint8).reshape(-1),
            "numbers": np.array([*numbers, len(self._held)], np.int64),
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what was held."""
        if snapshot.keys() != {"held", "numbers"} or len(snapshot["held"]) % EVENT_DTYPE.itemsize:
            raise ConfigError(
                f"snapshot of tonic transform: got arrays {sorted(snapshot)}, wanted held and numbers; "
                f"restore that of a tonic transform"
            )
        *numbers, n_held = (int(number) for number in snapshot["numbers"])
        self._start_us, self._end_us, self._n_recordings, self._n_in, self._n_out, self._outside = numbers
        held = np.frombuffer(np.asarray(snapshot["held"], np.uint8).tobytes(), EVENT_DTYPE).copy()
        self._held = [held] if n_held else []

    def statistics(self) -> dict[str, float]:
        """Return what went in and came out."""
        return {
            "recordings": self._n_recordings,
            "events in": self._n_in,
            "events out": self._n_out,
            "outside dropped": self._outside,
        }
