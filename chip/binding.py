"""Classes taught by shows, beside the cores: an emulated co-design, as :mod:`chip.learning`.

A readout learns by a Hebbian rule whose postsynaptic term is the label alone (``plasticity.meta_episode``): a leaky
integrator has no threshold to compare its potential with. So the host needs nothing of the chip but the spikes of the
layer before, and has time until the show is over: what it learns is read by the next one. It keeps the fast change h
of the readout's synapses, and writes rows of it into the readout's cores between two shows. Everything that it reads
and writes is counted.

Equations
---------
ONE = 65536; numbers stand in 16 bits of fraction, and H is hebb. ``left(n)`` is what n phases leave of ONE, as in
:mod:`chip.learning`. When a show of class c is over, for each unit i of the layer before that fired in it, in phases
k_1, k_2, ...::

    z_j     = round(ONE tanh(bind [j = c] - contrast))
    H[i,:] <- (H[i,:] left(k - its last) + half >> 16) + (rate_i z_j + half >> 16)   at each k
    H[i,:] <- H[i,:] left(end of the show - its last) + half >> 16                   all i, also those that were silent
    core   <- clamp(H[i,:] + (1 << shift - 1) >> shift, -127, 127)                   half a step up, then floored

``shift`` is the least with which no row is clamped, the same for all rows: if it grows, all rows are written again. A
common factor of all scores decides nothing, so the readout's scale and the rule's mixing (which is positive) are left
out. A show that asks writes nothing. What the readout then says of each class, the host divides by the length of its
column as the last show left it, which takes no writing::

    score_j <- (score_j << 24) // isqrt(ONE^2 + sum_i H[i,j]^2)
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program
from chip.learning import ONE
from chip.network import incoming
from chip.program import weigh_core
from chip.run import Running, begin, lines_of, proceed, rest, scores_of
from neurons.dense import Dense
from neurons.graph import n_units
from stream.errors import ConfigError
from stream.packet import SPIKE_DTYPE

__all__ = ["Binder", "BindingRule"]

HALF = ONE >> 1
MOST = 127


class BindingRule(NamedTuple):
    """The rule of the readout, as trained."""

    local_rate: NDArray[np.float64]  # shape (n_pre,)
    contrast: float
    tau_hebb_us: float
    bind: float = 10.0
    is_scaled: bool = True  # whether scores are divided by the lengths of columns


class Binder:
    """A program whose readout is taught by shows.

    Parameters
    ----------
    program
        Compiled; its readout is reached by one dense projection, whose weights are 0 to begin with.
    rule
        The rule.
    readout
        The layer that answers; default the last one whose values leave.

    Attributes
    ----------
    counts : dict
        ``shows``, ``rows_written``, ``bytes_written``, ``spikes_read``, ``updates`` (synapses that the rule moved).

    Raises
    ------
    ConfigError
        If the readout is not reached as said, or the spikes that reach it are not reported.
    """

    def __init__(self, program: Program, rule: BindingRule, readout: str = "") -> None:
        if program.folded is not None or not program.outputs:
            raise ConfigError("teaching by shows: wanted an unfolded program with a readout")
        readout = readout or list(program.outputs)[-1]
        names = [layer.name for layer in program.network.layers]
        layer = names.index(readout)
        links = incoming(program.network, layer)
        link = program.network.links[links[0]]
        if len(links) != 1 or not isinstance(link.topology, Dense) or link.delay or link.source < 0:
            raise ConfigError(
                f"{readout}: reached by {len(links)} projections, the first a {type(link.topology).__name__}; wanted "
                f"one, dense and without delay, from another layer"
            )
        self._source = names[link.source]
        if self._source not in program.watched:
            raise ConfigError(f"{self._source}: sends values, and {readout} can be taught by spikes alone")
        n_pre, n_post = n_units(program.network.layers[link.source].shape), n_units(program.network.layers[layer].shape)
        rates = np.broadcast_to(np.asarray(rule.local_rate, np.float64), (n_pre,))
        if not (np.abs(rates).max() < 2.0**15 and rule.tau_hebb_us > 0):
            raise ConfigError(
                f"{readout}: local_rate up to {np.abs(rates).max():g} and tau_hebb_us {rule.tau_hebb_us:g}, wanted "
                f"below {2**15} and above 0"
            )
        self.program, self.readout, self._rule = program, readout, rule
        self._rate = np.rint(rates * ONE).astype(np.int64)
        phase_us = program.network.phase_us
        self._left = [round(ONE * math.exp(-phase_us * 2.0**b / rule.tau_hebb_us)) for b in range(32)]
        self._cores = [
            (number, part)
            for number, part in enumerate(program.parts)
            if part.layer == layer and part.holds_weights and np.any(part.axon_unit >= 0)
        ]
        self.fast = np.zeros((n_pre, n_post), np.int64)
        self._last = np.zeros(n_pre, np.int64)
        self.held = np.zeros((n_pre, n_post), np.int8)
        self.running: Running = begin(program, 0)
        self.counts: dict[str, int] = {}
        self.forget()

    def forget(self) -> None:
        """Begin anew: nothing is taught, and the readout's rows are 0."""
        self.fast[:] = 0
        self._last[:] = 0
        self._shift, self._now = 0, 0
        self.held[:] = 0
        self.counts = dict.fromkeys(("shows", "rows_written", "bytes_written", "spikes_read", "updates"), 0)
        self._lay()

    def left(self, n: int) -> int:
        """Return what ``n`` phases leave of ONE."""
        left, b = ONE, 0
        while n and left:
            if b == len(self._left):
                return 0
            if n & 1:
                left = left * self._left[b] >> 16
            n, b = n >> 1, b + 1
        return left

    def teach(self, items: NDArray[np.void], span_us: int, label: int) -> None:
        """Run a show of a known class, and write what it leaves.

        Parameters
        ----------
        items
            SPIKE_DTYPE, times from 0 on: spikes of the program's input lines.
        span_us
            How long the show lasts, whole phases, us.
        label
            Of which class.
        """
        lines = lines_of(self.running, "watched")[self._source]
        fired = self._show(items, span_us)
        mine = fired[(fired["unit"] >= lines.start) & (fired["unit"] < lines.stop)]
        phases = mine["t"] // self.program.network.phase_us - 1 + self._now
        self.counts["spikes_read"] += len(mine)
        n_post = self.fast.shape[1]
        goal = np.full(n_post, -self._rule.contrast)
        goal[label] += self._rule.bind
        z = np.rint(ONE * np.tanh(goal)).astype(np.int64)
        unit = mine["unit"].astype(np.int64) - lines.start
        for i in np.unique(unit).tolist():
            row, step = self.fast[i], self._rate[i] * z + HALF >> 16
            for k in phases[unit == i].tolist():
                row[:] = (row * self.left(k - int(self._last[i])) + HALF >> 16) + step
                self._last[i] = k
                self.counts["updates"] += n_post
        self._now += span_us // self.program.network.phase_us
        self._write()

    def ask(self, items: NDArray[np.void], span_us: int) -> NDArray[np.int64]:
        """Run a show, and return the scores: int64, shape (n_classes,)."""
        self._show(items, span_us)
        self._now += span_us // self.program.network.phase_us
        scores: NDArray[np.int64] = scores_of(self.running)[lines_of(self.running, "outputs")[self.readout]].copy()
        if self._rule.is_scaled:
            for j, column in enumerate(self.fast.T.tolist()):
                scores[j] = (int(scores[j]) << 24) // math.isqrt(ONE * ONE + sum(h * h for h in column))
        return scores

    def _show(self, items: NDArray[np.void], span_us: int) -> NDArray[np.void]:
        rest(self.running, 0)
        self.counts["shows"] += 1
        nothing = np.empty(0, SPIKE_DTYPE)
        first = proceed(self.running, items, int(items["t"][-1]) if len(items) else 0, True)
        return np.concatenate([first.spikes, proceed(self.running, nothing, span_us, True).spikes])

    def _write(self) -> None:
        """Bring rows up to now, to what the cores can hold, and onto them where they changed."""
        for i in np.flatnonzero(self.fast.any(axis=1)).tolist():
            self.fast[i] = self.fast[i] * self.left(self._now - int(self._last[i])) + HALF >> 16
        self._last[:] = self._now
        most = int(np.abs(self.fast).max(initial=0))
        while most + (1 << self._shift >> 1) >> self._shift > MOST:
            self._shift += 1
        half = 1 << self._shift >> 1
        rows = np.clip(self.fast + half >> self._shift, -MOST, MOST).astype(np.int8)
        changed = int(np.sum(np.any(rows != self.held, axis=1)))
        self.counts["rows_written"] += changed
        self.counts["bytes_written"] += changed * rows.shape[1]
        self.held[:] = rows
        self._lay()

    def _lay(self) -> None:
        grid, state = self.program.grid, self.running.state
        for number, part in self._cores:
            block = np.where(part.axon_unit[:, None] >= 0, self.held[part.axon_unit][:, part.post], 0)
            weigh_core(grid, number, np.ascontiguousarray(block, np.int8))
        state.idle[:] = 0
        state.clock["still"] = 0

    def taken(self) -> dict[str, Any]:
        """Return the counts, with those of the chip since it began."""
        totals = self.running.state.totals
        names = ("phases", "spikes_in", "packets", "hops", "synaptic_ops", "overruns", "overflows")
        return {**self.counts, **{name: int(totals[name][0]) for name in names}, "cores": len(self.program.cores)}
