"""The local rules of a network as ``plasticity.rules`` runs them, in arrays: what they are, and where they stand.

One row for each projection; what belongs to units or synapses stands in flat arrays, one slice each. Here are the
columns' names, and the numbers that stand for rules.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# rules; STATIC: weights stay (the projection has tired terminals or a surround only)
STATIC, HEBBIAN, PAIR_STDP, TRIPLET_STDP, OJA, BCM_RULE, REWARD_STDP, ERROR_MODULATED = range(8)

# columns of Table.place
RULE, FIRST_PRE, FIRST_POST, FIRST_FAST, FIRST_ROW, N_PRE, FORM, POST_TERM, HAS_SHORT_TERM, HAS_SCALING = range(10)
HAS_SURROUND, FIRST_SITE, SITES_Y, SITES_X, SITE_CHANNELS = range(10, 15)
N_PLACE_COLUMNS = 15

# columns of Table.number
(
    A_PRE,
    A_POST,
    A3_PRE,
    A3_POST,
    TAU_X,
    TAU_X2,
    TAU_Y,
    TAU_Y2,
    TAU_FAST,
    W_MIN,
    W_MAX,
    NEAREST,
    RATE,
    SHARE,
    MIXING,
    FAST_MAX,
    SCALED_MIN,
    SCALED_MAX,
) = range(18)
N_NUMBER_COLUMNS = 18

# what a log's unit says that is no unit: a reward, or -2 - the row of Memory.signal. The note's value: the reward, or
# 0 for a learning signal, 1 + q for factors of synaptic scaling of projection q
REWARD = -1
FIRST_SIGNAL = -2

ZERO: Any = np.int64(0)  # typed: for a literal, Numba would compile another copy of what takes it
ONE: Any = np.int64(1)
NONE: Any = np.int64(-1)
typed: Any = np.int64

RENEW_AT = 2048  # notes
RENEW_AFTER_TAUS = 100.0  # of the shortest presynaptic trace
REBASE_AFTER_TAUS = 20.0  # of the shortest postsynaptic trace


class Table(NamedTuple):
    """What the rules of a network are; one row for each projection."""

    place: NDArray[np.int64]  # int64, shape (n_projections, 15)
    number: NDArray[np.float64]  # float64, shape (n_projections, 18)
    renew_us: NDArray[np.int64]  # int64, shape (n_populations,): age at which a log begins anew
    local_rate: NDArray[Any]  # real, shape (n_all_pre,)
    sliding: NDArray[Any]  # real, shape (n_all_post,)
    share: NDArray[Any]  # real, shape (n_fast,) or (0,): mixing or mask, for each synapse
    terminal: NDArray[np.float64]  # float64, shape (n_all_pre, 5): ``plasticity.short_term``
    surround: NDArray[np.float64]  # float64, shape (n_projections, 6): ``plasticity.surround``


class Memory(NamedTuple):
    """Where the rules stand."""

    x: NDArray[np.float64]  # float64, shape (2, n_all_pre): presynaptic traces right after ``x_us``
    x_us: NDArray[np.int64]  # int64, shape (n_all_pre,): last spike
    seen: NDArray[np.int64]  # int64, shape (n_all_pre,): notes that the row has been through
    y: NDArray[Any]  # real, shape (2, n_all_post): postsynaptic traces, as they would be at ``y_us``
    y_us: NDArray[np.int64]  # int64, shape (n_projections,)
    consumed: NDArray[np.int64]  # int64, shape (n_projections,): notes that are in ``y``
    note: NDArray[np.float64]  # float64, shape (n_projections, 2, room): what is left of x since the first note; its y
    value: NDArray[np.float64]  # float64, shape (n_populations, room): rewards
    fast: NDArray[Any]  # real, shape (n_fast,): hebb, eligibility
    fast_us: NDArray[np.int64]  # int64, shape (n_rows,): for when a row of ``fast`` stands as it does
    fatigue: NDArray[np.float64]  # float64, shape (n_all_pre, 2): terminals
    support: NDArray[np.float64]  # float64, shape (n_all_sites,): surrounds; sums as they would be at the base time
    surround_us: NDArray[np.int64]  # int64, shape (n_projections, 2): base time; last spike
    pool: NDArray[np.float64]  # float64, shape (n_projections,): spikes of late
    signal: NDArray[Any]  # real, shape (room, n_all_units): learning signals times psi
    late: NDArray[np.int64]  # int64, shape (n_all_pre, 2): projections and units whose rows change when the phase ends
    owed: NDArray[np.float64]  # float64, shape (n_all_pre,): the sums of their amplitudes
    is_late: NDArray[np.int64]  # int64, shape (n_all_pre,): 1 if it stands in ``late``
    row: NDArray[Any]  # real, shape (3, longest row): scratch
