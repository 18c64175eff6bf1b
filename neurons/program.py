"""A network as ``neurons.engine`` runs it, in arrays: what it is, and where it stands.

One row for each population and one for each projection; parameters, weights and states of all populations stand in flat
arrays, one slice each. Here are the columns' names, and the numbers that stand for models, topologies and happenings.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NEVER_US = 2**62

# models
LIF, CURRENT_LIF, ADAPTIVE_LIF, LEAKY_INTEGRATOR, INTEGRATE_FIRE, IZHIKEVICH, THRESHOLD = range(7)
# topologies
DENSE, CONVOLUTION, POOLING, SPARSE, INHIBITION, ONE_TO_ONE = range(6)

# columns of Program.population
(
    MODEL,
    UNITS,  # how many
    FIRST,  # the first one's place in the flat arrays
    GROUP,  # units of a time group
    FIRST_GROUP,  # the first group's place
    UNIFORM,  # 1: parameters are the same for all units
    HARD,  # 1: hard reset
    REFRACTORY_US,
    CROSSES,  # 0: fires at events alone; 1: also between them; DRIVEN: even without any
    RECORDED,  # 1: spikes go out
    STEP_US,  # of its grid
    N_DELAYED,  # projections with a delay that begin here
    HEIGHT,
    WIDTH,
    CHANNELS,
    N_DIRECT,  # projections without a delay that begin here
    SHIFT,  # when to flush, see ``neurons.front``
    NEXT,  # row k: which population fires k-th within a cascade
    INCOMING,  # place in Program.links: projections without delay that end here
    INCOMING_END,
    DELAYED,  # projections with delay that begin here
    DELAYED_END,
    DIRECT,  # projections without delay that begin here
    DIRECT_END,
    IS_READ,  # 1: those lead densely to leaky integrators, one to each
    LOGGED,  # 1: spikes are kept for the rules of plastic projections that lead here
) = range(26)
N_POPULATION_COLUMNS = 26

DRIVEN = 2

# columns of Program.projection
(
    TOPOLOGY,
    SOURCE,  # population, -1 for the input
    TARGET,
    DELAY_US,
    WEIGHT,  # place of the first weight
    ROWS,  # place in Program.links of the first row start (sparse)
    SYNAPSES,  # and of the first synapse's unit
    SIZE_Y,
    SIZE_X,
    STRIDE_Y,
    STRIDE_X,
    PAD_Y,
    PAD_X,
    GROUPS,
    SOURCE_WIDTH,
    SOURCE_CHANNELS,
    WEIGHT_STEP,  # 0: one weight for all (one-to-one)
    WINDOWS_Y,  # place in Program.links: for each row of a map, first and last window, and place of weights
    WINDOWS_X,  # the same for each column
    PLASTIC,  # 1: who called ``run`` delivers through it
    FADES,  # 1: its weights weaken with time
    ONSET_US,  # from when on
    WHOLE,  # 1: the front's, of 8 bits
) = range(23)
N_PROJECTION_COLUMNS = 23

# rows of Program.constant: tau_mem_us stands in row 0 wherever there is one
TAU_MEM, TAU_2, EXTRA = range(3)  # EXTRA: height of a unit pulse (current), adaptation (adaptive)
DRIVE = 0  # integrate-fire
IZ_A, IZ_B, IZ_C, IZ_D, IZ_PEAK, IZ_DRIVE = range(6)
N_CONSTANTS = 6

# columns of State.heap, and what its entries are
TIME, SEQUENCE, KIND, WHERE, UNIT = range(5)
ARRIVAL: Any
CROSSING: Any
STEP: Any
PHASE: Any
ARRIVAL, CROSSING, STEP, PHASE = np.arange(4)  # typed: for a literal, Numba would compile another copy of what takes it
ZERO: Any = np.int64(0)
ONE: Any = np.int64(1)

# places of State.book
(
    N_HEAP,
    NEXT_SEQUENCE,
    N_QUEUE,
    BUSY,
    NOW_US,
    AT_POPULATION,
    AT_PROJECTION,
    AT_SPIKE,
    ARRIVING,
    PRE,
    ANCHOR_US,
    TICKING,
) = range(12)
N_SPIKES, N_DELIVERIES, N_OUT, LAST_FIRED = 12, 13, 14, 15
AWAITED, AWAITED_PRE, IS_DELIVERED = 16, 17, 18  # a plastic projection, its spike, and whether that is done
N_TAPE, TAPE_STOP = 19, 20  # entries of the tape, and from how many on no new item is begun
N_LATE = 21  # what rules have still to do before the end of a phase
N_BOOK = 22

# columns of State.tape, and what its entries are
WHEN, WHAT, PLACE, UNIT_OF = range(4)
DELIVERED: Any  # through projection PLACE
FIRED: Any  # in population PLACE, at a test
CROSSED: Any  # between events
ENDED: Any  # a phase, for population PLACE, whose spikes follow
DELIVERED, FIRED, CROSSED, ENDED = np.arange(4)

# columns of State.progress
SPAN_FIRST, SPAN_LAST, HELD_UNTIL_US, N_PENDING, ACTIVE, N_LOG, UNFOLDED = range(7)
N_PROGRESS_COLUMNS = 7

# what State.book[BUSY] says of the cascade: none, one that began inside, one of an input event
IDLE: Any
INSIDE: Any
FROM_INPUT: Any
IDLE, INSIDE, FROM_INPUT = np.arange(3)

# what a run says when it returns
DONE, OUT_FULL, QUEUE_FULL, HEAP_FULL, LOG_FULL, PLASTIC_SPIKE, TAPE_FULL, WINDOW_FULL, PHASE_ENDS = range(9)

FIRED_DTYPE = np.dtype([("t", "<i8"), ("unit", "<u4"), ("population", "<u4")])


class Program(NamedTuple):
    """What a network is."""

    population: NDArray[np.int64]  # int64, shape (n_populations, 26)
    projection: NDArray[np.int64]  # int64, shape (n_projections, 23)
    links: NDArray[np.int64]  # int64: lists of different lengths; their places stand in the tables
    theta: NDArray[Any]  # real, shape (n_all,): threshold above rest
    down: NDArray[Any]  # real, shape (n_all,): soft reset: what a spike takes away; hard: where it leads, above rest
    constant: NDArray[np.float64]  # float64, shape (6, n_all)
    decay: NDArray[np.float64]  # float64, shape (n_populations, 2, 1024): ``neurons.front.decay_table``, if UNIFORM
    weight: NDArray[Any]  # real, shape (n_weights,)
    whole: NDArray[np.int8]  # int8, shape (n_pre * n_post or 0,): the front's weights, if WHOLE
    scale: NDArray[Any]  # real, shape (n_post or 0,): what 1 of them is worth
    tau_fade_us: NDArray[np.float64]  # float64, shape (n_projections,), where it FADES
    phase_us: int  # 0: firing discipline `event`
    front: int  # the projection that ``_front`` may run, or -1
    delayed: int  # place in ``links`` of the input's projections with delay
    delayed_end: int


class State(NamedTuple):
    """Where a network stands."""

    v: NDArray[Any]  # real, shape (n_all,): potentials above rest (Izhikevich: as they are), at their group's time
    w: NDArray[Any]  # real, shape (n_all,): synaptic current, adaptation, recovery
    integral_us: NDArray[np.float64]  # float64, shape (n_all,): of v over the window so far (leaky integrators)
    held_us: NDArray[np.int64]  # int64, shape (n_all,): first whole microsecond after the refractory time
    lag_us: NDArray[np.float64]  # float64, shape (n_all,): held_us minus the refractory time's real end
    next_us: NDArray[np.int64]  # int64, shape (n_all,): the spike of the next crossing, or NEVER_US
    next_sequence: NDArray[np.int64]  # int64, shape (n_all,): its entry in the heap
    t_us: NDArray[np.int64]  # int64, shape (n_groups,)
    pending: NDArray[np.int32]  # int32, shape (n_post or 0,): whole weights that have come this microsecond
    progress: NDArray[np.int64]  # int64, shape (n_populations, 7)
    book: NDArray[np.int64]  # int64, shape (22,)
    heap: NDArray[np.int64]  # int64, shape (room, 5)
    queue: NDArray[np.int64]  # int64, shape (room,): units that fired in this cascade
    spare: NDArray[Any]  # real, shape (most units of a population,): scratch
    hot: NDArray[np.int64]  # int64, shape (twice as many and more, 3): scratch
    runs: NDArray[np.int64]  # int64, shape (3, LONGEST_RUN + 1): scratch
    notes: NDArray[np.int64]  # int64, shape (2, LONGEST_RUN n_post or 0): scratch
    log_us: NDArray[np.int64]  # int64, shape (n_populations, room): spikes since the rules' last renewal
    log_unit: NDArray[np.int64]  # int64, shape as log_us
    tape: NDArray[np.int64]  # int64, shape (room or 0, 4): time, what, place, unit; room past TAPE_STOP for a cascade
    taped: NDArray[np.float64]  # float64, shape (room or 0,): FIRED: potential before the reset; CROSSED: lag, us;
    # DELIVERED through a plastic projection: how strong the input's item was, 1 for spikes
