"""Short-term plasticity of the presynaptic terminal: each input line tires and recovers, or warms up and cools down.

Equations
---------
Resource r and release f of a presynaptic unit; at its spike, dt after its last one::

    r <- 1 - (1 - r) * exp(-dt / tau_rec_us)      f <- f_rest + (f - f_rest) * exp(-dt / tau_fac_us)
    a  = r * f                                    the amplitude of this spike
    r <- r * (1 - depletion)                      f <- f + (1 - f) * f_step

``f_rest = 1`` and ``f_step = 0`` is depression alone. A line that never stops firing, such as a hot pixel's, falls
nearly silent by itself.

Source: M. Tsodyks, K. Pawelzik and H. Markram, Neural Comput. 10:821 (1998), in event form.
"""

import math
from typing import Any, NamedTuple

from stream.jit import inner_kernel

__all__ = ["ShortTerm", "short_term_amplitude"]


class ShortTerm(NamedTuple):
    """What the terminals are: numbers, or one value for each presynaptic unit, shape (n_pre,)."""

    depletion: Any = 0.2
    tau_rec_us: Any = 100_000.0
    f_rest: Any = 1.0
    f_step: Any = 0.0
    tau_fac_us: Any = 100_000.0


@inner_kernel
def short_term_amplitude(terminal: Any, constant: Any, i: int, dt_us: float) -> Any:
    """Return the amplitude of a spike of unit i, and leave its terminal as it is afterwards.

    Parameters
    ----------
    terminal
        float64, shape (n_pre, 2): r and f. Written to.
    constant
        float64, shape (n_pre, 5): the fields of :class:`ShortTerm`, in their order.
    """
    r = 1.0 - (1.0 - terminal[i, 0]) * math.exp(-dt_us / constant[i, 1])
    f_rest = constant[i, 2]
    f = f_rest + (terminal[i, 1] - f_rest) * math.exp(-dt_us / constant[i, 4])
    terminal[i, 0] = r * (1.0 - constant[i, 0])
    terminal[i, 1] = f + (1.0 - f) * constant[i, 3]
    return r * f
