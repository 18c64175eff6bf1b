"""Three-factor rule with an error: presynaptic trace, postsynaptic potential, and a learning signal from outside.

Equations
---------
The trace ``x`` of a presynaptic unit decays with the membrane's ``tau_pre_us``, so it is what the potential owes to
that unit's weight as long as nothing fires. A learning signal is a number ``l[j]`` for every unit at one time::

    presynaptic spike of i:    x[i] <- x[i] + 1
    learning signal l at t:    w[i,j] <- clip(w[i,j] - rate * l[j] * psi(v[j](t)) * x[i](t), w_min, w_max)

``psi`` is the stand-in for the derivative of the spike: 1 where the potential is closer than ``width`` to the threshold
(``width = inf``: everywhere). One trace for each input is all the state there is, however long the stream.

Where signals come from is the caller's choice (``PlasticNetwork.signal``): errors of a readout sent back through fixed
random weights, or through the readout's own weights transposed (e-prop; ETLP when they come with labels); or errors of
a random readout of the same population, so that nothing has to come from further up (DECOLLE).

Source: G. Bellec et al., "A solution to the learning dilemma for recurrent networks of spiking neurons", Nat. Commun.
11:3625 (2020); F. M. Quintana et al., "ETLP: event-based three-factor local plasticity for online learning with
neuromorphic hardware", arXiv:2301.08281 (2023); J. Kaiser, H. Mostafa and E. Neftci, "Synaptic plasticity dynamics for
deep continuous local learning (DECOLLE)", Front. Neurosci. 14:424 (2020).
"""

import math
from typing import Any, NamedTuple

from stream.jit import inner_kernel

__all__ = ["ErrorModulated", "error_modulated_signal"]


class ErrorModulated(NamedTuple):
    """What an error-modulated rule is."""

    rate: float = 0.001
    tau_pre_us: float = 20_000.0
    width: float = 0.5
    w_min: float = -math.inf
    w_max: float = math.inf


@inner_kernel
def error_modulated_signal(w: Any, at: int, n: int, signal: Any, first: int, gain: Any, bounds: Any) -> None:
    """Change a row by a learning signal that is multiplied with psi already; ``gain`` is rate * x."""
    row, error = w[at : at + n], signal[first : first + n]
    low, high = bounds
    for j in range(n):
        changed = row[j] - gain * error[j]
        changed = changed if changed > low else low
        row[j] = changed if changed < high else high
