"""What semi-folding trades: cores against phases, on the same recordings.

Throughput
----------
A chip that runs as fast as it can takes ``phase_clocks / clock_hz`` a phase, so ``phases a frame`` times that a frame.
Everything counted is divided by the frames of the recordings, empty phases at their end included; energy is that of
:mod:`chip.report`, by cores and phases.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from chip.compiler import Program, compile_network, count_cores
from chip.fold import fold
from chip.run import Measured, measure
from stream.errors import HebbstreamError

__all__ = ["Form", "Trade", "power_mw", "shortest_s", "trade_of", "trade_without_recordings"]

COUNTED = ("synaptic_ops", "packets", "hops")


class Form(msgspec.Struct, forbid_unknown_fields=True):
    """A network on the chip, one way or the other."""

    cores: int
    phases_per_frame: int
    most_frames_per_s: float | None  # None: the profile does not say how long a phase takes
    per_frame: dict[str, float] = {}  # what was counted; empty where nothing was run
    why_not: str = ""  # it cannot be run


class Trade(msgspec.Struct, forbid_unknown_fields=True):
    """Both ways."""

    unfolded: Form
    semi_folded: Form | None
    why_not: str = ""  # it cannot be folded


def shortest_s(program: Program) -> float | None:
    """Return the time that a phase takes at least."""
    profile = program.profile
    return profile.phase_clocks.value / profile.clock_hz.value if profile.clock_hz.value else None


def power_mw(program: Program, measured: Measured) -> float | None:
    """Estimate the power at the load of a run; None where the profile knows none."""
    profile, n_cores = program.profile, len(program.cores)
    low, high = profile.core_power_low_mw.value, profile.core_power_high_mw.value
    every = measured.phases * n_cores * profile.axons_per_core.value * profile.neurons_per_core.value
    return n_cores * (low + (high - low) * measured.totals["synaptic_ops"] / max(every, 1)) if high else None


def _form(
    program: Program, period: int, measured: Measured | None, n_frames: int, cores: int = 0, why_not: str = ""
) -> Form:
    phase_s = shortest_s(program)
    each: dict[str, float] = {}
    if measured is not None:
        each = {name: measured.totals[name] / max(n_frames, 1) for name in COUNTED}
        power = power_mw(program, measured)
        if phase_s is not None and power is not None:
            each["energy_uj"] = power * 1e3 * phase_s * measured.phases / max(n_frames, 1)
    speed = None if phase_s is None else 1 / (period * phase_s)
    return Form(cores or len(program.cores), period, speed, each, why_not)


def trade_without_recordings(program: Program) -> Trade:
    """Count cores and phases of both ways, without bringing the other one onto the chip."""
    period = 1 if program.folded is None else program.folded.period
    mine = _form(program, period, None, 0)
    try:
        if program.folded is not None:
            unfolded = _form(program, 1, None, 0, count_cores(program.whole, program.profile))
            return Trade(unfolded, mine)
        made = fold(program.network)
        cores = count_cores(made.network, program.profile)
    except HebbstreamError as error:
        return Trade(mine, None, str(error))
    return Trade(mine, _form(program, made.period, None, 0, cores))


def trade_of(
    program: Program,
    measured: Measured,
    phases: Sequence[NDArray[np.bool_]],
    *,
    placement: str = "annealed",
    seed: int = 1,
    spikes: dict[str, NDArray[np.float64]] | None = None,
) -> Trade:
    """Run the other way too, and put both side by side.

    Parameters
    ----------
    program, measured, phases
        What runs, what it took, and for which recordings.
    placement, seed, spikes
        Of the other way, as for ``chip.compiler.compile_network``.
    """
    n_frames = sum(len(recording) for recording in phases)
    is_folded = program.folded is not None
    found = trade_without_recordings(program)
    if found.semi_folded is None:
        found.unfolded = _form(program, 1, measured, n_frames)
        return found
    other_form = found.unfolded if is_folded else found.semi_folded
    mine = _form(program, program.folded.period if program.folded else 1, measured, n_frames)
    try:
        other = compile_network(
            program.whole,
            program.profile,
            placement=placement,
            seed=seed,
            spikes=spikes,
            multicast=program.multicast,
            folded=not is_folded,
        )
        theirs = measure(other, phases, measured.source)
        other_form = _form(other, other_form.phases_per_frame, theirs, n_frames)
    except HebbstreamError as error:
        other_form.why_not = str(error)
    return Trade(other_form, mine) if is_folded else Trade(mine, other_form)
