"""Random numbers as a function of (seed, stream, count), with no hidden state.

A generator that is *called in order* ties its result to the order of the calls: cut a packet elsewhere, skip a pixel
that did not change, and everything after differs. Here a number is looked up, not drawn: pixel 17's third number is
the same whoever asked before. A snapshot therefore needs a count per stream and nothing else.

The mixer is a 32-bit multiply-xorshift permutation with the constants of C. Wellons' search for low bias ("hash
prospector", 2018). Thirty-two bits are enough for waiting times of noise: the longest is 22 means.

Roads not taken: ``numpy.random`` may change its streams between versions; 64-bit mixers wrap around, about which
NumPy's scalars complain when kernels run uncompiled, whereas masked 32-bit products are the same in machine words and
in Python's unbounded integers.
"""

import math

from stream.jit import kernel

__all__ = ["gaussian", "random_bits", "shuffled", "uniform"]

_MASK = 0xFFFFFFFF


@kernel
def _mix(word: int) -> int:
    """Permute the 32-bit words."""
    word ^= word >> 16
    word = (word * 0x21F0AAAD) & _MASK
    word ^= word >> 15
    word = (word * 0x735A2D97) & _MASK
    return word ^ (word >> 15)


@kernel
def random_bits(seed: int, stream: int, count: int) -> int:
    """Return 32 random bits, 0 <= bits < 2**32, for non-negative arguments."""
    word = _mix((seed & _MASK) ^ 0x9E3779B9)
    word = _mix((word + (seed >> 32)) & _MASK)
    word = _mix((word + stream) & _MASK)
    word = _mix((word ^ (stream >> 32)) & _MASK)
    word = _mix((word + count * 0x9E3779B9) & _MASK)
    return _mix((word + (count >> 32)) & _MASK)


@kernel
def uniform(seed: int, stream: int, count: int) -> float:
    """Return a number of the open interval (0, 1), so that its logarithm is always finite."""
    return (random_bits(seed, stream, count) + 0.5) / 4294967296.0


@kernel
def gaussian(seed: int, stream: int, count: int) -> float:
    """Return a number of the normal distribution, mean 0, deviation 1 (Box and Muller 1958). Uses two counts' worth."""
    radius = math.sqrt(-2.0 * math.log(uniform(seed, stream, 2 * count)))
    return radius * math.cos(2.0 * math.pi * uniform(seed, stream, 2 * count + 1))


def shuffled(n: int, *, seed: int, stream: int = 0) -> list[int]:
    """Return the numbers 0..n-1 in an order that seed and stream fix on every machine and version."""
    return sorted(range(n), key=lambda index: (random_bits(seed, stream, index), index))
