"""The heap of ``neurons.engine``: what is still to happen inside of a network, in the order in which it will.

Entries are rows of ``State.heap``, ordered by (time, order in which they were scheduled); the first is the earliest. A
crossing that was foreseen anew leaves its old entry where it is: it is stale, and passed over when its time comes.
"""

from typing import Any

from neurons.program import CROSSING, KIND, N_HEAP, NEXT_SEQUENCE, PHASE, SEQUENCE, TIME, UNIT, WHERE, ZERO
from stream.jit import inner_kernel, kernel

__all__ = ["compact", "heap_has_room", "is_stale", "pop", "push"]


@inner_kernel
def _earlier(heap: Any, i: int, j: int) -> Any:
    """Tell whether entry i comes before entry j."""
    return heap[i, TIME] < heap[j, TIME] or (heap[i, TIME] == heap[j, TIME] and heap[i, SEQUENCE] < heap[j, SEQUENCE])


@inner_kernel
def _swap(heap: Any, i: int, j: int) -> None:
    """Exchange two entries."""
    for column in range(5):
        heap[i, column], heap[j, column] = heap[j, column], heap[i, column]


@inner_kernel
def _sink(heap: Any, n: int, i: int) -> None:
    """Let entry i sink to where it belongs."""
    while True:
        least = i
        for child in (2 * i + 1, 2 * i + 2):
            if child < n and _earlier(heap, child, least):
                least = child
        if least == i:
            return
        _swap(heap, i, least)
        i = least


@inner_kernel
def push(heap: Any, book: Any, t_us: int, kind: int, where: int, unit: int) -> Any:
    """Schedule; returns the entry's sequence number. There is room."""
    i = book[N_HEAP]
    heap[i, TIME], heap[i, SEQUENCE], heap[i, KIND], heap[i, WHERE], heap[i, UNIT] = (
        t_us,
        # the end of a phase comes before what arrives at its time: that is of the next phase
        -1 if kind == PHASE else book[NEXT_SEQUENCE],
        kind,
        where,
        unit,
    )
    book[N_HEAP] += 1
    book[NEXT_SEQUENCE] += 1
    while i > 0 and _earlier(heap, i, (i - 1) // 2):
        _swap(heap, i, (i - 1) // 2)
        i = (i - 1) // 2
    return book[NEXT_SEQUENCE] - 1


@inner_kernel
def pop(heap: Any, book: Any) -> None:
    """Take the first entry away."""
    book[N_HEAP] -= 1
    n = book[N_HEAP]
    for column in range(5):
        heap[0, column] = heap[n, column]
    _sink(heap, n, ZERO)


@inner_kernel
def is_stale(heap: Any, next_sequence: Any, i: int) -> Any:
    """Tell whether an entry is a crossing that was foreseen and then did not come."""
    return heap[i, KIND] == CROSSING and next_sequence[heap[i, UNIT]] != heap[i, SEQUENCE]


@kernel
def compact(heap: Any, book: Any, next_sequence: Any) -> None:
    """Throw stale entries out of the heap of a ``State``."""
    n: Any = book[N_HEAP] - book[N_HEAP]  # not a plain 0: as a literal it would ask for a kernel of its own
    for i in range(book[N_HEAP]):
        if not is_stale(heap, next_sequence, i):
            for column in range(5):
                heap[n, column] = heap[i, column]
            n += 1
    book[N_HEAP] = n
    for i in range(n // 2 - 1, -1, -1):
        _sink(heap, n, i)


@inner_kernel
def heap_has_room(heap: Any, book: Any, next_sequence: Any, wanted: int) -> Any:
    """Tell whether ``wanted`` entries find room, compacting if need be."""
    room = len(heap)
    if book[N_HEAP] + wanted <= room:
        return True
    compact(heap, book, next_sequence)
    # half of it free, or growing is cheaper than compacting again and again
    return book[N_HEAP] + wanted <= room and 2 * book[N_HEAP] <= room
