"""When does a sum of two exponentials rise above a level? The one question behind all spikes between events.

Equations
---------
A membrane x that leaks with tau_mem and is driven by i, which fades with tau_syn (``neurons.current_lif``)::

    x(t) = exp(-t/tau_mem) (x + i/tau_mem * (1 - exp(-t d))/d)            d = 1/tau_syn - 1/tau_mem

has one extreme at most, at ``exp(-t d) = 1 - (1 - x/i) (tau_mem - tau_syn)/tau_mem``, and ends at 0. So, starting at or
below the level: if the extreme is a maximum, it is crossed on the way there or never; if it is a minimum, or if there
is none, it is crossed on the way to 0 if the level lies below 0, or never. Inside such a bracket x is monotonous, and
Newton's method with bisection as its guard finds the time to the last bits.

The road not taken, looking for crossings in small steps, misses those that last less than a step.
"""

import math

from stream.jit import kernel

__all__ = ["drift", "first_crossing", "pulse_height"]


@kernel
def drift(x: float, i: float, dt_us: float, tau_mem_us: float, tau_syn_us: float) -> float:
    """Return the membrane after ``dt_us``; all float64."""
    rate = 1.0 / tau_syn_us - 1.0 / tau_mem_us
    # expm1: a difference of exponentials would lose all digits where the two time constants are alike
    share_us = dt_us if rate == 0.0 else -math.expm1(-dt_us * rate) / rate
    if math.isinf(share_us):  # tau_syn far above tau_mem, and long ago
        return x * math.exp(-dt_us / tau_mem_us) - i / (tau_mem_us * rate) * math.exp(-dt_us / tau_syn_us)
    return math.exp(-dt_us / tau_mem_us) * (x + i / tau_mem_us * share_us)


@kernel
def first_crossing(x: float, i: float, level: float, tau_mem_us: float, tau_syn_us: float) -> float:
    """Return after how many us x rises above the level: 0 if it stands there now, inf if never."""
    if x > level:
        return 0.0
    if i == 0.0:
        return tau_mem_us * math.log(x / level) if level < 0.0 else math.inf
    turn = (1.0 - x / i) * (tau_mem_us - tau_syn_us) / tau_mem_us
    rate = 1.0 / tau_syn_us - 1.0 / tau_mem_us
    extreme_us = math.inf
    if rate == 0.0:
        extreme_us = (1.0 - x / i) * tau_syn_us
    elif turn < 1.0:
        extreme_us = -math.log1p(-turn) / rate
    # where all has faded long before, there is nothing to look for, and bisection would not arrive
    if not 0.0 < extreme_us < 1000.0 * (tau_mem_us + tau_syn_us):
        extreme_us = math.inf
    rises = i > x or i == x < 0.0  # level now, and the current fades first
    low = 0.0
    if rises and extreme_us < math.inf:
        high = extreme_us
        if not drift(x, i, high, tau_mem_us, tau_syn_us) > level:
            return math.inf
    else:
        if level >= 0.0:
            return math.inf
        if not rises:
            if extreme_us == math.inf:  # sinks all the way to 0, and the level is below
                return math.inf
            low = extreme_us
        step = tau_mem_us + tau_syn_us
        high = low + step
        while not drift(x, i, high, tau_mem_us, tau_syn_us) > level:
            low = high
            step *= 2.0
            high += step
            if high > 1e18:
                return math.inf
    at = 0.5 * (low + high)
    for _ in range(200):
        height = drift(x, i, at, tau_mem_us, tau_syn_us) - level
        if height > 0.0:
            high = at
        else:
            low = at
        slope = (i * math.exp(-at / tau_syn_us) - height - level) / tau_mem_us
        guess = at - height / slope if slope > 0.0 else low
        if not low < guess < high:
            guess = 0.5 * (low + high)
        if abs(guess - at) <= 1e-15 * at or guess in (low, high):
            return guess
        at = guess
    return at


@kernel
def pulse_height(tau_mem_us: float, tau_syn_us: float) -> float:
    """Return the maximum of x after ``i = 1`` on a membrane at rest."""
    if tau_mem_us == tau_syn_us:
        return math.exp(-1.0)
    rate = 1.0 / tau_syn_us - 1.0 / tau_mem_us
    at = -math.log1p(-(tau_mem_us - tau_syn_us) / tau_mem_us) / rate
    return drift(0.0, 1.0, at, tau_mem_us, tau_syn_us)
