"""What is around a terminal: a spike counts by how well its neighbours back it, measured against the whole stream.

Noise comes alone, what a camera sees comes in company: an edge that moves makes neighbours fire within milliseconds.
How much company is to be expected depends on how busy the stream is: in noise everybody has some, and where most of a
stream is lost there is hardly any left, yet what is left is true.

Equations
---------
At a spike of a line at site s (all channels of a pixel are one site), t after the last one of the projection::

    p   <- p exp(-t / tau_pool_us) + 1              all spikes of the projection
    rho  = p / (rate_hz tau_pool)                   how busy the stream is; 1 at rest; with rate_hz = 0 always 1
    x   <- x exp(-t / tau_support_us)               spikes of the sites within ``reach`` of s, its own left out
    a    = (x + given) / (x + given + half rho)

with half and given for ``support_half`` and ``support_given``; then x of each site within reach grows by 1. The
amplitude a multiplies that of the terminal itself (``plasticity.short_term``).

This is heterosynaptic facilitation and gain control in one quotient: alone in an ordinary stream a spike counts
given / (given + half); in a thin one rho falls and nearly every spike counts in full; in noise it rises, and ordinary
company is no longer enough. Tried and left out: a floor that does not depend on rho, with thin streams turned up by a
power of 1 / rho. Where 90 % of events are lost it weighs the few that have company several times the others: 60 % right
where this form has 71 (trained on damaged lessons as in docs/results.md, one seed, asked about other recordings).

One exponential serves all neighbours together: sums x are kept as they would be at a common base time, which is moved
when it is 20 time constants old. It moves with the events alone, so that where a stream is cut changes nothing.

What is set here is not learned by the global correction: the amplitudes that come of it are written on the tape, and
gradients of all else lead through them as through given numbers, which is exact, since inputs owe nothing to weights.
So only projections from the input may have it.

Source: the equations are this project's own. That noise lacks company is what background activity filters rest on (T.
Delbruck, Intl. Symp. on Secure-Life Electronics, 2008); here it is graded, and part of the synapse.
"""

import math
from typing import Any, NamedTuple

from stream.jit import inner_kernel

__all__ = ["Surround", "surround_amplitude"]

REBASE_AFTER_TAUS = 20.0
TINY = 1e-200  # sums below are nothing


class Surround(NamedTuple):
    """What lies around the terminals of a projection from the input.

    Attributes
    ----------
    support_half
        Neighbours' spikes within ``tau_support_us`` that make half of full strength, in a stream as busy as
        ``rate_hz``.
    support_given
        Spikes of support that every spike has.
    tau_support_us
        How long a neighbour's spike counts, us.
    reach
        Sites in each direction, that is 1 for the eight neighbours.
    rate_hz
        Spikes a second of the whole projection in an ordinary stream; 0: how busy the stream is does not matter.
    tau_pool_us
        How far back the present rate is asked, us.
    """

    support_half: float = 1.0
    support_given: float = 0.1
    tau_support_us: float = 5_000.0
    reach: int = 1
    rate_hz: float = 0.0
    tau_pool_us: float = 100_000.0


@inner_kernel
def surround_amplitude(
    support: Any, clock_us: Any, pool: Any, q: int, first: int, n_y: int, n_x: int, site: int, number: Any, t_us: int
) -> Any:
    """Return the amplitude of a spike, and leave its surround as it is afterwards.

    Parameters
    ----------
    support
        float64, shape (n_all_sites,): sums x, as they would be at the base time. Written to.
    clock_us
        int64, shape (n_projections, 2): base time; last spike. Written to.
    pool
        float64, shape (n_projections,): p. Written to.
    q, first, n_y, n_x, site
        Projection; its first site in ``support``; rows and columns of sites; the spike's site among them.
    number
        float64, shape (6,): fields of :class:`Surround`, in their order.
    t_us
        Now.
    """
    half, given, tau_us, reach = number[0], number[1], number[2], int(number[3])
    busy = 1.0
    if number[4] > 0.0:
        pool[q] = pool[q] * math.exp(-float(t_us - clock_us[q, 1]) / number[5]) + 1.0
        busy = pool[q] / (number[4] * number[5] * 1e-6)
    clock_us[q, 1] = t_us
    age_us = float(t_us - clock_us[q, 0])
    if age_us > REBASE_AFTER_TAUS * tau_us:
        left = math.exp(-age_us / tau_us)
        for s in range(first, first + n_y * n_x):
            moved = support[s] * left
            support[s] = moved if moved > TINY else 0.0
        clock_us[q, 0] = t_us
        age_us = 0.0
    grown = math.exp(age_us / tau_us)
    x = support[first + site] / grown + given
    row, column = site // n_x, site % n_x
    own = support[first + site]
    for other in range(max(row - reach, 0), min(row + reach + 1, n_y)):
        begin = first + other * n_x
        for s in range(begin + max(column - reach, 0), begin + min(column + reach + 1, n_x)):
            support[s] += grown
    support[first + site] = own
    return x / (x + half * busy)
