"""Round weights so that what recorded streams make of them stays as it was.

Equations
---------
Rounded to the nearest integer, each weight is off by up to half an integer, and a membrane adds up the errors of all
inputs that it gets together. With x the traces that recordings leave on the inputs (spikes, leaking as the membrane
does), the potential is off by (W' - W)^T x, and its mean square over the recordings is::

    error = sum over units j of (W'_j - W_j)^T H (W'_j - W_j)           H = mean of x x^T, damped

Inputs are rounded one after the other, the busiest first, and what rounding an input adds to the error is taken off by
the inputs not rounded yet, as far as they were active together::

    e_j  = (W_ij - W'_ij) / U_ii                 U upper triangular, H^-1 = U^T U
    W_kj = W_kj - U_ik e_j                       for all k after i

Source: E. Frantar et al., "GPTQ: Accurate post-training quantization for generative pre-trained transformers", 2022,
after B. Hassibi and D. Stork, "Second order derivatives for network pruning: Optimal brain surgeon", 1992; there for
activations of artificial networks, here for membrane traces.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["round_together", "traces"]

DAMPING = 0.01  # of the mean square of a trace: inputs that were never seen stay where they are
BLOCK = 64  # inputs whose errors reach the later ones in one go


def traces(sent: NDArray[np.float32], decay: float) -> NDArray[np.float32]:
    """Let spikes leak as a membrane does.

    Parameters
    ----------
    sent
        shape (n_recordings, n_phases, n_pre).
    decay
        What is left of a potential after a phase.
    """
    trace = np.empty_like(sent)
    here = np.zeros_like(sent[:, 0])
    for k in range(sent.shape[1]):
        here = here * np.float32(decay) + sent[:, k]
        trace[:, k] = here
    return trace


def round_together(weight: NDArray[np.float64], x: NDArray[np.float32], limit: int) -> NDArray[np.int8]:
    """Round weights; see above.

    Parameters
    ----------
    weight
        In units of the integers, shape (n_pre, n_post).
    x
        Traces, shape (n, n_pre).
    limit
        Largest magnitude of an integer.
    """
    h = (x.T @ x).astype(np.float64) / max(len(x), 1)
    diagonal = np.diag(h).copy()
    if not diagonal.any():
        return np.clip(np.floor(weight + 0.5), -limit, limit).astype(np.int8)
    order = np.argsort(-diagonal, kind="stable")
    h = h[np.ix_(order, order)]
    h[np.diag_indices_from(h)] += DAMPING * float(diagonal.mean())
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    left = weight[order].copy()
    out = np.zeros(weight.shape, np.int8)
    n = len(left)
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        errors = np.zeros((last - first, weight.shape[1]))
        for i in range(first, last):
            rounded = np.clip(np.floor(left[i] + 0.5), -limit, limit)
            out[order[i]] = rounded.astype(np.int8)
            errors[i - first] = (left[i] - rounded) / upper[i, i]
            left[i + 1 : last] -= np.outer(upper[i, i + 1 : last], errors[i - first])
        left[last:] -= upper[first:last, last:].T @ errors
    return out
