"""Speeds of the decoders of flat formats, each beside the fastest peer that decodes the same file rightly.

A recording of moving edges and noise is written by our writers, and decoded piece by piece into memory that is used
again: by ours, and by every library that is installed. Each peer runs in a process of its own, because some die or hang
at input that is unusual to them. Before it is timed its events are compared with those that were written, one by one;
one that gives others is named, and not timed. Where no peer is left, the limit is a copy of the 13 bytes of each event.
"""

import importlib
import importlib.util
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sources.aedat4 import Aedat4Decoder, Aedat4Writer
from sources.atis_bin import AtisBinDecoder, AtisBinWriter
from sources.dat import DatDecoder, DatWriter
from sources.event_stream import EventStreamDecoder, EventStreamWriter
from sources.evt import Evt2Writer, Evt3Writer, EvtDecoder
from sources.file_format import recognise
from sources.flat_writer import FlatWriter
from stream.bench import Measurement, alternate
from stream.packet import EVENT_DTYPE

__all__ = ["edges_and_noise", "measurements"]

_PATIENCE_S = 60.0  # for a peer's answer
_PEER_CHUNK_EVENTS = 1 << 16


class _Format(NamedTuple):
    """A format, and how we write and read it."""

    name: str
    suffix: str
    width: int
    height: int
    writer: Callable[[Path, int, int], FlatWriter]
    decoder: Callable[[Path], Iterable[NDArray[np.void]]]


class _Peer(NamedTuple):
    """A library, and how it reads a file."""

    name: str
    module: str
    formats: tuple[str, ...]
    read: Callable[[Path, _Format], Iterable[Any]]
    mirrored: bool = False  # gives y from the bottom, as Event Stream stores it


def _after_header(path: Path) -> int:
    return recognise(path).header_bytes


_FORMATS = (
    _Format("EVT3", ".raw", 640, 480, Evt3Writer, lambda path: EvtDecoder(path, "evt3", _after_header(path))),
    _Format("EVT2", ".raw", 640, 480, Evt2Writer, lambda path: EvtDecoder(path, "evt2", _after_header(path))),
    _Format("DAT", ".dat", 640, 480, DatWriter, lambda path: DatDecoder(path, _after_header(path))),
    _Format("ES", ".es", 640, 480, EventStreamWriter, EventStreamDecoder),
    _Format("BIN", ".bin", 240, 180, AtisBinWriter, AtisBinDecoder),
    *(
        _Format(f"AEDAT4 {it}", ".aedat4", 640, 480, partial(Aedat4Writer, compression=it), Aedat4Decoder)
        for it in ("none", "lz4", "zstd")
    ),
)


def edges_and_noise(n_events: int, width: int, height: int, *, seed: int = 1) -> NDArray[np.void]:
    """Make events like those of moving edges: runs of neighbours in a row, and a fifth of them noise.

    Parameters
    ----------
    n_events
        How many; 10 million a second.
    width, height
        The sensor, pixels.

    Returns
    -------
    events
        EVENT_DTYPE, shape (n_events,), sorted. A run is of one time and polarity; an edge's holds 2.5 events on
        average.
    """
    rng = np.random.default_rng(seed)
    is_noise = rng.random(n_events) < 0.2 / (0.2 + 0.8 / 2.5)
    length = np.where(is_noise, 1, rng.geometric(1 / 2.5, n_events))
    n_runs = int(np.searchsorted(np.cumsum(length), n_events)) + 1
    is_noise, length = is_noise[:n_runs], length[:n_runs]
    t_us = np.sort(rng.integers(0, max(1, n_events // 10), n_runs))
    edge, y = rng.integers(0, 6, n_runs), rng.integers(0, height, n_runs)
    at_edge = edge * (width // 6) + t_us // 1000 + y // 4
    x = np.where(is_noise, rng.integers(0, width, n_runs), at_edge)
    p = np.where(is_noise, rng.integers(0, 2, n_runs), edge & 1)
    run = np.repeat(np.arange(n_runs), length)[:n_events]
    events = np.zeros(n_events, EVENT_DTYPE)
    events["t"], events["y"], events["p"] = t_us[run], y[run], p[run]
    events["x"] = (x[run] + np.arange(n_events) - (np.cumsum(length) - length)[run]) % width
    return events


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure each decoder against the fastest right peer.

    Parameters
    ----------
    quick
        One million events and fewer rounds instead of four million: figures good to a fifth rather than to a twentieth.
    """
    n_events, rounds = (1_000_000, 3) if quick else (4_000_000, 9)
    with tempfile.TemporaryDirectory(prefix="hebbstream-") as folder:
        for it in _FORMATS:
            events = edges_and_noise(n_events, it.width, it.height)
            path = Path(folder) / f"{it.name}{it.suffix}"
            with it.writer(path, it.width, it.height) as writer:
                writer.write(events)
            np.save(Path(folder) / "truth.npy", events)
            yield _measure(it, path, events, rounds)
            path.unlink()


def _measure(it: _Format, path: Path, events: NDArray[np.void], rounds: int) -> Measurement:
    decoder = it.decoder(path)

    def decode() -> None:
        for _ in decoder:
            pass

    theirs = np.concatenate([part.copy() for part in decoder])
    if not np.array_equal(theirs, events):
        raise AssertionError(f"our decoder of {it.name} does not give what was written")
    right, wrong = _right_peers(it, path)
    try:
        if right:
            times = {name: alternate(peer.decode, peer.decode, rounds=1)[0] for name, peer in right.items()}
            fastest = min(times, key=lambda name: times[name])
            seconds, limit_s = alternate(decode, right[fastest].decode, rounds=rounds)
            limit = f"{fastest}, the fastest right of {len(right)} peers"
        else:
            # as bytes: NumPy copies structured arrays field by field, four times slower
            source = events.view(np.uint8)
            target = source.copy()
            seconds, limit_s = alternate(decode, lambda: np.copyto(target, source), rounds=rounds)
            limit = f"NumPy copy of {EVENT_DTYPE.itemsize} bytes an event, as no right peer is installed"
    finally:
        for peer in right.values():
            peer.close()
    limit += f"; wrong here: {', '.join(wrong)}" if wrong else ""
    return Measurement(f"decode {it.name}", len(events) / seconds, "events", limit, len(events) / limit_s)


def _right_peers(it: _Format, path: Path) -> tuple[dict[str, "_Child"], list[str]]:
    """Start a process for each installed peer; return those that gave the right events, and the names of the others."""
    right: dict[str, _Child] = {}
    wrong: list[str] = []
    for index, peer in enumerate(_PEERS):
        if it.name not in peer.formats or importlib.util.find_spec(peer.module) is None:
            continue
        child = _Child(index, it.name, path)
        if verdict := child.answer():
            wrong.append(f"{peer.name} ({verdict})")
            child.close()
        else:
            right[peer.name] = child
    return right, wrong


class _Child:
    """A peer in a process of its own."""

    def __init__(self, peer: int, format: str, path: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(there, peer, format, path), daemon=True)
        self._process.start()
        there.close()

    def answer(self) -> str:
        """Wait for an answer: empty = all is well."""
        try:
            return str(self._pipe.recv()) if self._pipe.poll(_PATIENCE_S) else "no answer"
        except (EOFError, OSError):
            return "died"

    def decode(self) -> None:
        """Let it decode the file once more."""
        self._pipe.send(True)
        if fault := self.answer():
            raise AssertionError(f"a peer that had decoded the file failed at the same file: {fault}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Any, peer_index: int, format: str, path: Path) -> None:
    """Be a peer's process: compare once, then decode as often as asked."""
    peer = _PEERS[peer_index]
    it = next(it for it in _FORMATS if it.name == format)
    try:
        pipe.send(_verdict(peer, it, path))
        while pipe.recv():
            for _ in peer.read(path, it):
                pass
            pipe.send("")
    except EOFError:
        pass
    except BaseException as error:  # a panic of a Rust library is no Exception
        pipe.send(f"{type(error).__name__}: {error}"[:60])


def _verdict(peer: _Peer, it: _Format, path: Path) -> str:
    """Compare what a peer decodes with what was written: empty = the same."""
    truth = np.load(path.with_name("truth.npy"))
    parts = [_columns(chunk) for chunk in peer.read(path, it)]
    if sum(len(part[0]) for part in parts) != len(truth):
        return "number of events"
    for index, (field, words) in enumerate({"t": "times", "x": "x", "y": "y", "p": "polarity"}.items()):
        got = np.concatenate([part[index] for part in parts]).astype(np.int64)
        if peer.mirrored and field == "y":
            got = it.height - 1 - got
        if not np.array_equal(got, truth[field]):
            return words
    return ""


def _columns(chunk: Any) -> tuple[NDArray[Any], ...]:
    """Return copies of t, x, y and p of whatever a peer calls an array of events."""
    if isinstance(chunk, np.ndarray):
        names = chunk.dtype.names or ()
        found = [
            next(name for name in choices if name in names)
            for choices in (("t", "timestamp"), ("x",), ("y",), ("p", "on", "polarity"))
        ]
        return tuple(chunk[name].copy() for name in found)
    return tuple(np.array(getattr(chunk, name)) for name in ("timestamp", "x", "y", "polarity"))


def _module(name: str) -> Any:
    """Import a library that may be missing elsewhere."""
    return importlib.import_module(name)


def _faery(path: Path, it: _Format) -> Iterable[Any]:
    kinds = {"EVT3": "evt", "EVT2": "evt", "DAT": "dat", "ES": "es"}
    kind = kinds.get(it.name, "aedat")
    chunks: Iterable[Any] = _module("faery").events_stream_from_file(path, file_type=kind)
    return chunks


def _expelliarmus(path: Path, it: _Format) -> Iterable[Any]:
    wizard = _module("expelliarmus").Wizard(encoding=it.name.lower(), chunk_size=_PEER_CHUNK_EVENTS)
    wizard.set_file(path)
    chunks: Iterable[Any] = wizard.read_chunk()
    return chunks


def _expelliarmus_whole(path: Path, it: _Format) -> Iterable[Any]:
    return (_module("expelliarmus").Wizard(encoding=it.name.lower()).read(path),)


def _evt3(path: Path, it: _Format) -> Iterable[Any]:
    chunks: Iterable[Any] = _module("evt3").decode_file_batches(str(path))
    return chunks


def _evt3_whole(path: Path, it: _Format) -> Iterable[Any]:
    return (_module("evt3").decode_file(str(path)),)


def _aestream(path: Path, it: _Format) -> Iterable[Any]:
    return (_module("aestream").FileInput(str(path), (it.width, it.height)).load(),)


def _event_stream(path: Path, it: _Format) -> Iterable[Any]:
    chunks: Iterable[Any] = _module("event_stream").Decoder(str(path))
    return chunks


def _dv_processing(path: Path, it: _Format) -> Iterable[Any]:
    recording = _module("dv_processing").io.MonoCameraRecording(str(path))
    while (batch := recording.getNextEventBatch()) is not None:
        yield batch.numpy()


def _tonic(path: Path, it: _Format) -> Iterable[Any]:
    io = _module("tonic.io")
    return (io.read_mnist_file(str(path), io.make_structured_array([0], [0], [0], [0]).dtype),)


_AEDAT4 = tuple(it.name for it in _FORMATS if it.name.startswith("AEDAT4"))
_PEERS = (
    _Peer("faery", "faery", ("EVT3", "EVT2", "DAT", "ES", *_AEDAT4), _faery),
    _Peer("expelliarmus in chunks", "expelliarmus", ("EVT3", "EVT2", "DAT"), _expelliarmus),
    _Peer("expelliarmus", "expelliarmus", ("EVT3", "EVT2", "DAT"), _expelliarmus_whole),
    _Peer("evt3 in batches", "evt3", ("EVT3",), _evt3),
    _Peer("evt3", "evt3", ("EVT3",), _evt3_whole),
    _Peer("aestream", "aestream", ("EVT3", "EVT2", "DAT", *_AEDAT4), _aestream),
    _Peer("dv-processing", "dv_processing", _AEDAT4, _dv_processing),
    _Peer("event_stream", "event_stream", ("ES",), _event_stream, mirrored=True),
    _Peer("tonic", "tonic", ("BIN",), _tonic),
)
