"""Batch training: a network learns from many labelled recordings, on all cores, event by event.

A recording is a window: everything at rest before it, one label, one gradient. Recordings of a batch are dealt to
*lanes*, which are copies of the network's state around one set of weights; lanes run side by side in threads (kernels
hold no lock), each adds up the gradients of its recordings in their order, and lanes are added up in theirs. How many
lanes there are is part of the result; how many threads run them is not: same seed, same bits, on one core or on many.

After every epoch the recordings that were held back are judged, and all that is needed to go on is written to the
folder, whole or not at all. So training that was killed goes on from its last epoch, and ends with the same bits.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.graph import Graph
from neurons.graph_file import save_graph
from plasticity.correction import GlobalCorrection
from plasticity.eligibility import Eligibility
from plasticity.plastic_network import PlasticNetwork, Rule
from plasticity.short_term import ShortTerm
from plasticity.surround import Surround
from plasticity.window import TapedWindow
from stream.errors import ConfigError
from stream.snapshot import Manifest, Part, read_snapshot, write_manifest, write_snapshot

__all__ = ["Epoch", "Recording", "Trainer", "train"]

CHECKPOINT = "checkpoint"
TABLE = "epochs.json"


class Recording(NamedTuple):
    """What to learn from."""

    label: int
    read: Callable[[], NDArray[np.void]]  # returns what the network takes, sorted by time; called in any thread


class Epoch(NamedTuple):
    """What came of an epoch."""

    number: int  # from 1 on
    loss: float  # mean over the epoch, each recording before it was learned from
    accuracy: float
    held_back: float  # accuracy on the recordings that were held back; NaN: there are none


class Trainer:
    """A network, its copies and its correction.

    Parameters
    ----------
    graph, rules, terminals, surrounds, readout
        As for ``plasticity.plastic_network.PlasticNetwork``.
    lanes
        Copies that gradients are added up in. Each takes one table of gradients.
    threads
        How many run at once; does not change the result.
    tail_us
        How long a recording goes on after its last event: what is on its way still counts, us.
    correction
        Parameters of ``plasticity.correction.GlobalCorrection``.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        readout: str,
        rules: Mapping[tuple[str, str], Rule] | None = None,
        terminals: Mapping[tuple[str, str], ShortTerm] | None = None,
        surrounds: Mapping[tuple[str, str], Surround] | None = None,
        lanes: int = 8,
        threads: int = 1,
        tail_us: int = 0,
        **correction: Any,
    ) -> None:
        if lanes < 1 or threads < 1:
            raise ConfigError(f"training: got {lanes} lanes and {threads} threads, wanted 1 or more of each")

        def network() -> PlasticNetwork:
            return PlasticNetwork.of(graph, rules=rules, terminals=terminals, surrounds=surrounds, readout=readout)

        first = network()
        self.correction = GlobalCorrection(first, **correction)
        times = "times" in correction.get("learn", ())
        options = {
            name: correction[name]
            for name in ("surrogate", "width", "window_events", "window_pieces")
            if name in correction
        }
        self.lanes = [first]
        self.windows = [self.correction.window]
        for _ in range(lanes - 1):
            other = network()
            self.windows.append(TapedWindow(other, times=times, **options))
            # one set of weights and rules for all; a window's tables were made for its own, which are alike
            other._program, other._table = first._program, first._table
            self.lanes.append(other)
        self._eligibilities: list[Eligibility] = []
        if correction.get("form") == "eligibility":
            self._eligibilities = [Eligibility(window, readout) for window in self.windows]
        for lane in self.lanes:
            lane.warm_up()
        self._threads, self._tail_us = threads, tail_us

    def _see(self, lane: int, recording: Recording) -> NDArray[np.float64]:
        """Run a recording through a lane and return the scores."""
        network = self.lanes[lane]
        items = recording.read()
        start_us = int(items["t"][0]) if len(items) else 0
        network.begin(start_us)
        network.run(items, until_us=(int(items["t"][-1]) if len(items) else 0) + self._tail_us)
        return self.correction.scores(self.windows[lane])

    def _learn(self, lane: int, recordings: Sequence[Recording]) -> list[tuple[float, bool]]:
        results = []
        for recording in recordings:
            scores = self._see(lane, recording)
            loss, d_scores = self.correction.judge(scores, recording.label)
            if self._eligibilities:
                self._eligibilities[lane].add(d_scores)
            else:
                self.correction.walk_back(self.windows[lane], d_scores)
            results.append((loss, int(np.argmax(scores)) == recording.label))
        return results

    def learn(self, recordings: Sequence[Recording], pool: ThreadPoolExecutor) -> tuple[float, int]:
        """Take one step on a batch; returns the sum of losses, and how many answers were right before it."""
        n = len(self.lanes)
        done = list(pool.map(self._learn, range(n), [recordings[k::n] for k in range(n)]))
        total = self.correction.window.gradients
        for window in self.windows[1:]:
            for mine, other in zip(total, window.gradients, strict=True):
                mine += other
                other.fill(0)
        self.correction.n_summed += len(recordings)
        self.correction.step()
        results = [result for lane in done for result in lane]
        return sum(loss for loss, _ in results), sum(right for _, right in results)

    def answers(self, recordings: Sequence[Recording], pool: ThreadPoolExecutor) -> NDArray[np.int64]:
        """Return the class that the network finds for each recording: int64, shape (n,). Nothing is learned."""
        n = len(self.lanes)

        def look(lane: int) -> list[int]:
            return [int(np.argmax(self._see(lane, recording))) for recording in recordings[lane::n]]

        found = np.zeros(len(recordings), np.int64)
        for lane, answers in enumerate(pool.map(look, range(n))):
            found[lane::n] = answers
        return found

    def learned(self) -> Graph:
        """Return the network as it is now."""
        return self.correction.learned()


def train(
    trainer: Trainer,
    recordings: Sequence[Recording],
    held_back: Sequence[Recording] = (),
    *,
    folder: Path,
    epochs: int = 4,
    batch: int = 32,
    patience: int = 0,
    cool: float = 0.0,
    seed: int = 1,
    progress: Callable[[int, int, int, float], None] | None = None,
) -> list[Epoch]:
    """Train, or go on with training that was interrupted.

    Parameters
    ----------
    trainer
        Fresh; what the folder holds is put into it.
    recordings, held_back
        To learn from; to judge by.
    folder
        Takes ``checkpoint``, ``epochs.json`` and ``best.safetensors``, the network that judged best (the last one, if
        nothing is held back).
    epochs
        Times that every recording is seen, in all.
    batch
        Recordings between two steps.
    patience
        Stop when so many epochs in a row were no better; 0: never.
    cool
        Share of all steps, 0 to 1, at whose end the rates have fallen to 0, along a straight line; until then they are
        held. With more than 0, what comes of an epoch depends on how many there are in all.
    seed
        Of the order of recordings, which is another one in each epoch.
    progress
        Called as ``progress(epoch, done, total, accuracy so far)`` after each batch.

    Returns
    -------
    list of Epoch
        Of all epochs, those before an interruption included.

    Raises
    ------
    ConfigError
        If there is nothing to learn from, or the folder holds the training of something else.
    """
    if not recordings or epochs < 1 or batch < 1:
        raise ConfigError(
            f"training: got {len(recordings)} recordings, {epochs} epochs, batches of {batch}; wanted 1 or more of each"
        )
    if not 0.0 <= cool <= 1.0:
        raise ConfigError(f"training: got cool = {cool}, wanted a share of all steps, 0 to 1")
    n_batches = -(-len(recordings) // batch)
    folder.mkdir(parents=True, exist_ok=True)
    done = _read_table(folder / TABLE)
    if done:
        trainer.correction.restore(read_snapshot(folder, done[-1].number, CHECKPOINT))
    with ThreadPoolExecutor(trainer._threads) as pool:
        while len(done) < epochs and not _has_stopped(done, patience):
            number = len(done) + 1
            order = np.random.default_rng([seed, number]).permutation(len(recordings))
            loss, right = 0.0, 0
            for first in range(0, len(order), batch):
                some = [recordings[k] for k in order[first : first + batch]]
                left = 1.0 - ((number - 1) * n_batches + first // batch) / (epochs * n_batches)
                trainer.correction.rate_factor = min(1.0, left / cool) if cool else 1.0
                more, more_right = trainer.learn(some, pool)
                loss, right = loss + more, right + more_right
                if progress is not None:
                    seen = first + len(some)
                    progress(number, seen, len(order), right / seen)
            trainer.correction.rate_factor = 1.0  # whoever goes on from here, online say, goes on at full rates
            judged = float("nan")
            if held_back:
                found = trainer.answers(held_back, pool)
                judged = float(np.mean(found == [recording.label for recording in held_back]))
            done.append(Epoch(number, loss / len(order), right / len(order), judged))
            size, checksum = write_snapshot(folder, number, CHECKPOINT, trainer.correction.snapshot())
            write_manifest(folder, Manifest(number, {CHECKPOINT: Part(size, checksum, 0, False)}, {}))
            if not held_back or judged == max(epoch.held_back for epoch in done):
                save_graph(folder / "best.safetensors", trainer.learned())
            _write_table(folder / TABLE, done)
            for old in folder.glob("[0-9]*/"):
                if int(old.name) < number - 1:
                    shutil.rmtree(old)
    return done


def _has_stopped(done: Sequence[Epoch], patience: int) -> bool:
    if not patience or len(done) <= patience:
        return False
    judged = [epoch.held_back for epoch in done]
    return max(judged[-patience:]) <= max(judged[:-patience])


def _read_table(path: Path) -> list[Epoch]:
    try:
        rows = json.loads(path.read_text())
        return [Epoch(**{**row, "held_back": float(row["held_back"])}) for row in rows]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: is no table of epochs ({error}); train into another folder") from None


def _write_table(path: Path, done: Sequence[Epoch]) -> None:
    rows = [{**epoch._asdict(), "held_back": str(epoch.held_back)} for epoch in done]
    side = path.with_suffix(".part")
    side.write_text(json.dumps(rows, indent=1) + "\n")
    side.replace(path)
