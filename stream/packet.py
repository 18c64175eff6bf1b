"""What travels on an edge: packets of items, and marks between them.

A *stream* is a sequence of messages. A :class:`Packet` carries a run of items of one type, sorted by time (ties keep
their order of arrival). A *mark* is an in-band message at a position of the stream: whatever came before it in
the stream happened before it, whatever comes after happens after, also at equal times. Because marks ride in the
stream, a replay is exact and a chain of processes agrees on *when* a thing happened.

Where packets are cut carries no meaning: an operator that computes anything else when the same items arrive in other
packets is wrong, and the conformance suite says so.

Times are int64 microseconds of the sensor's clock, unwrapped and never decreasing along a stream. They are signed
because NumPy makes float64 of ``uint64 - int64`` and wraps a backward ``uint64`` difference to 1.8e19.

Item types
----------
======== ============================================================================ =========
name     fields                                                                       bytes
======== ============================================================================ =========
events   t (us), x, y (pixels, origin top left), p (1 = brighter, 0 = darker)         13
spikes   t (us), unit                                                                 12
answers  t, start (us: the span judged), label, answer (classes), teach (0 or 1)      25
phases   what a chip did in one phase, see ``chip.node``                              56
======== ============================================================================ =========

Records are packed, not aligned: byte for byte the layout of faery and of the Event Stream library, so ``view``
converts without a copy. Aligned records were measured at most 15 % faster in a kernel.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ANSWER_DTYPE",
    "EVENT_DTYPE",
    "ITEM_DTYPES",
    "PHASE_DTYPE",
    "SPIKE_DTYPE",
    "Barrier",
    "Correct",
    "Deploy",
    "End",
    "Forget",
    "Label",
    "Loss",
    "Mark",
    "Message",
    "Packet",
    "Reset",
    "Show",
    "packet_of",
]

EVENT_DTYPE = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
SPIKE_DTYPE = np.dtype([("t", "<i8"), ("unit", "<u4")])
ANSWER_DTYPE = np.dtype([("t", "<i8"), ("start", "<i8"), ("label", "<i4"), ("answer", "<i4"), ("teach", "u1")])
PHASE_DTYPE = np.dtype(
    [
        ("t", "<i8"),  # end of the phase, us
        ("spikes_in", "<u4"),  # axon spikes that entered the chip
        ("merged", "<u4"),  # input events that met a spike already waiting on the same axon
        ("spikes_out", "<u4"),  # spikes fired by somas
        ("packets", "<u4"),  # packets on the mesh, input included
        ("hops", "<u8"),  # links crossed, summed over packets
        ("busiest_link", "<u4"),  # packets over the busiest link
        ("clocks", "<u4"),  # estimated clocks of the slowest core or link
        ("synaptic_ops", "<u8"),  # weights added
        ("zeros", "<u8"),  # additions and packets skipped because the value was zero
    ]
)
ITEM_DTYPES = {"events": EVENT_DTYPE, "spikes": SPIKE_DTYPE, "answers": ANSWER_DTYPE, "phases": PHASE_DTYPE}


@dataclass(frozen=True, slots=True)
class Packet:
    """A run of items of one stream.

    Parameters
    ----------
    items
        One of ``ITEM_DTYPES``, shape (n,), C-contiguous, sorted by ``t``. May be empty (an empty packet still moves
        time forward), never None. The receiver may read it until it returns and must copy what it wants to keep;
        nobody writes to it.
    start_us, end_us
        Half-open span that holds every item: ``start_us <= t < end_us``. A later packet of the stream never holds an
        earlier item, but may start at the time at which this one ended its run.
    origin_ns
        Host's monotonic clock when the source released the events that led to this packet; 0 = unknown. For
        latency figures only: it never influences a result and is not part of what a recording compares.
    """

    items: NDArray[np.void]
    start_us: int
    end_us: int
    origin_ns: int = field(default=0, compare=False)


class Reset(msgspec.Struct, frozen=True, tag="reset"):
    """Something new begins here: membranes go to rest (and `hebb` too, if the learner is asked for that).

    ``teach`` tells whether what follows may be learned from.
    """

    t_us: int
    teach: bool = True


class Label(msgspec.Struct, frozen=True, tag="label"):
    """The stream from ``start_us`` up to here shows class ``label``; learn from it only if ``teach``."""

    t_us: int
    label: int
    start_us: int
    teach: bool = True


class Show(msgspec.Struct, frozen=True, tag="show"):
    """From here on class ``label`` is shown, and may be learned at every event; -1: nobody says what is shown."""

    t_us: int
    label: int


class Forget(msgspec.Struct, frozen=True, tag="forget"):
    """What was taught of class ``label`` is void from here on."""

    t_us: int
    label: int


class Correct(msgspec.Struct, frozen=True, tag="correct"):
    """What was last taught, or else last asked about, was of class ``label``, whatever was said of it."""

    t_us: int
    label: int


class Deploy(msgspec.Struct, frozen=True, tag="deploy"):
    """New weights are in force from here.

    ``arrays`` holds, for each layer k: ``layer{k}.weight`` float32 (n_pre, n_post), ``layer{k}.tau_mem_us`` float64 (),
    and for spiking layers ``layer{k}.v_threshold`` float64 (). The last layer is the readout, which does not spike.
    """

    t_us: int
    version: int
    arrays: dict[str, np.ndarray]


class Barrier(msgspec.Struct, frozen=True, tag="barrier"):
    """Take a snapshot here."""

    t_us: int
    number: int


class Loss(msgspec.Struct, frozen=True, tag="loss"):
    """Items are missing between the message before this mark and the one behind it.

    Made by an edge that dropped packets, and by whatever else leaves items out of a stream; so a loss stands in the
    stream at the place where it happened, and a recording of the stream holds what is in it and what is not.
    """

    t_us: int
    start_us: int  # of the first packet that is missing
    packets: int
    items: int
    reason: str = "overload"  # "overload": the edge's receiver was too slow; "late": came after its time had gone out


class End(msgspec.Struct, frozen=True, tag="end"):
    """The stream is over; ``reason`` says why if it did not simply come to its end."""

    t_us: int
    reason: str = ""


Mark: TypeAlias = Reset | Label | Show | Forget | Correct | Deploy | Barrier | Loss | End
Message: TypeAlias = Packet | Mark


def packet_of(items: NDArray[np.void], *, start_us: int | None = None, origin_ns: int = 0) -> Packet:
    """Wrap items in a packet whose span is just wide enough.

    Parameters
    ----------
    items
        One of ``ITEM_DTYPES``, shape (n,), sorted by ``t``.
    start_us
        Start of the span; default the first item's time (0 for an empty packet).
    """
    if len(items):
        first, last = int(items["t"][0]), int(items["t"][-1])
        return Packet(items, first if start_us is None else min(start_us, first), last + 1, origin_ns)
    at = 0 if start_us is None else start_us
    return Packet(items, at, at, origin_ns)
