"""Oja's rule for spikes: Hebbian growth that keeps the length of each unit's weights bounded by itself.

Equations
---------
Traces ``x`` and ``y`` of both sides decay with ``tau_pre_us`` and ``tau_post_us``. At a postsynaptic spike of j::

    y[j]   <- y[j] + 1
    w[:,j] <- w[:,j] + rate * (x - y[j] * w[:,j])

Over many spikes x stands for the input's rate and each spike for the output's, so the mean change is
``rate * r_out * (E[x | spike] - y * w)``, which is Oja's ``y x - y^2 w``: w turns to the first principal component of
the inputs. Nothing happens at presynaptic spikes but to their trace.

Source: E. Oja, "Simplified neuron model as a principal component analyzer", J. Math. Biol. 15:267 (1982); put into
spikes here.
"""

from typing import Any, NamedTuple

from stream.jit import inner_kernel

__all__ = ["Oja", "oja_post"]


class Oja(NamedTuple):
    """What Oja's rule is."""

    rate: float = 0.001
    tau_pre_us: float = 20_000.0
    tau_post_us: float = 20_000.0


@inner_kernel
def oja_post(w: Any, change: Any, share: Any) -> Any:
    """Return a weight that was ``w``; ``change`` is rate * x, ``share`` is rate * y."""
    return w + (change - share * w)
