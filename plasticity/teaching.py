"""Teaching: a class is bound by showing it once or a few times, and a new class is a new column of the readout.

While a ``Show`` mark is in force the readout is taught by its Hebbian rule (``plasticity.hebbian``), at every spike of
the features before it. The postsynaptic term sees the class that is shown::

    z_j        = softmax_j(bind * [j is shown])                        # bind 10: all but 1e-4 of it is the class's
    hebb[i, j] = hebb[i, j] + rate * z_j             at each spike of feature i; nothing while no class is shown

so the column of a class counts what its shows had of each feature. At marks, and only there (so a recording of the
stream gives the same bits), columns are scaled, as homeostasis scales what leads to a neuron (Turrigiano et al., Nature
391:892, 1998), to the same length::

    prototype_j <- prototype_j + what hebb[:, j] has gained / rate       of the class that was shown
    hebb[:, j]  <- gain * prototype_j / |prototype_j| - kept_j           of each class; kept: 0, or see below

What the softmax leaves for the others is dropped there: it would make a column of a class that nobody has shown.

A readout of leaky integrators then says how much of each prototype there is in what the features fire now, whatever
their number of spikes or the number of shows; the class with the largest time average is the answer.

After the authors' few-shot code (Wu et al. 2022, research notes on w_binding = 10), which clamps the label onto the
membrane, and after prototypes (Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017).

Consolidation
-------------
``hebb`` lasts for ever, or fades with ``teach_tau_us``, for each class from its last show on. What is left of a column
is scaled as above, so that the age of a class does not count among others, until less than 2^-8 is left: then the
column is empty, and what it could have said is lost. Each global correction moves a share of all columns into the
weights, which last::

    weight <- weight + share * hebb,    kept <- kept + share * hebb,    hebb <- (1 - share) * hebb

That is a step down the gradient, by the weights, of half the square of what would be missing if the trace were gone. It
changes no answer when it happens, since the readout works with ``weight + hebb``; afterwards less of it can be lost. A
later show lays down what the weights lack, so classes stay equally long however often they were corrected. Prototypes
themselves do not fade: no answer comes from them, the next show of a class adds to them.

Measured, and not taken (the two in the middle with ``demos/teach_by_showing.py``, seeds 5, 6, 7):

* without the scaling a class whose shows had more spikes takes all answers (42 % right of five classes instead of 85);
* to fade without being scaled: the class shown last takes most answers at once (a time constant of 20 s, 1000 features:
  11, 19, 10 of the first 38 right, 25, 28, 29 where corrections keep columns alike);
* to consolidate by the gradient of the label's own window: shows of a class come in a row, so it forgets the classes
  before (200 features: 47, 53, 50 of 76 right by the trace, 34, 17, 40 with such steps beside it, 19, 20, 29 when the
  trace is gone; chance is 19). The gradient of the cross-entropy of all prototypes together, which replays them, does
  consolidate (45, 46, 48), no better than moving them;
* the error form, ``z = onehot - softmax(u)``: forgets the classes that were shown before (20 %, always the last one),
  for the same reason, and because features are shared.

Marks
-----
``Show``     from here on the class is taught; -1: nothing is. A class that there is not yet makes the readout grow.
``Forget``   the column of the class is emptied, what the global correction made of it included.
``Correct``  the features of the last lesson, or question if that is younger, go to this class; a lesson's are taken
             from the class that it was given to.
``Deploy``   with ``taught.prototype``, and with ``taught.kept`` and ``taught.left`` where it fades or was consolidated:
             what was learned elsewhere takes the place of what is known here.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurons.dense import Dense
from neurons.graph import Graph, n_units
from neurons.leaky_integrator import LeakyIntegratorUnits
from plasticity.hebbian import Hebbian
from stream.errors import ConfigError

__all__ = [
    "IN_FORCE",
    "KEPT",
    "LAID_US",
    "LEAST_LEFT",
    "LEFT",
    "LESSON_OF",
    "PROTOTYPE",
    "Lessons",
    "bare",
    "check_readout",
    "fade",
    "fitted",
    "new_lessons",
    "scaled",
    "taught_rule",
    "widened",
]

# names of arrays that are saved, and carried by a ``Deploy`` mark
PROTOTYPE, KEPT, LEFT = "taught.prototype", "taught.kept", "taught.left"
LEAST_LEFT = 2.0**-8  # of a trace that can still be scaled up

# places of Lessons.book: the class that is shown; the class that the last lesson was of, -1: it was a question; when
# columns were last laid down, us
IN_FORCE, LESSON_OF, LAID_US, N_BOOK = range(4)


class Lessons(NamedTuple):
    """What was taught."""

    prototype: NDArray[np.float64]  # float64, shape (n_features, n_classes): shares of spikes that each class was given
    kept: NDArray[np.float64]  # float64, shape (n_features, n_classes): what corrections have moved into the weights
    left: NDArray[np.float64]  # float64, shape (n_classes,): of each trace; 0: it is lost
    lesson: NDArray[np.float64]  # float64, shape (n_features,): those of the last lesson or question
    book: NDArray[np.int64]  # int64, shape (3,)


def new_lessons(n_features: int, n_classes: int) -> Lessons:
    """Return what is known before anything was taught."""
    prototype, kept = np.zeros((n_features, n_classes)), np.zeros((n_features, n_classes))
    return Lessons(prototype, kept, np.zeros(n_classes), np.zeros(n_features), np.full(N_BOOK, -1, np.int64))


def taught_rule(rate: float, tau_us: float) -> Hebbian:
    """Return the rule of a taught readout; what it writes fades with ``tau_us``."""
    return Hebbian(rate, 0.0, 1.0, tau_us, np.inf, post="softmax")


def fade(left: NDArray[np.float64], age_us: int, tau_us: float) -> NDArray[np.float64]:
    """Return what is left of traces after some more time; 0 where it is too little."""
    less: NDArray[np.float64] = left * np.exp(-max(0, age_us) / tau_us)
    return np.where(less < LEAST_LEFT, 0.0, less)


def scaled(prototype: NDArray[np.float64], gain: float) -> NDArray[np.float64]:
    """Return columns of length ``gain``; empty ones stay empty."""
    length = np.sqrt(np.sum(prototype * prototype, axis=0))
    columns: NDArray[np.float64] = prototype * (gain / np.where(length > 0, length, 1.0))
    return columns


def check_readout(graph: Graph, readout: str) -> tuple[str, str]:
    """Return the ends of the projection to a readout that can grow; ConfigError if it cannot."""
    ways = [it for it in graph.projections if it.target == readout]
    sources = [it for it in graph.projections if it.source == readout]
    if (
        len(ways) != 1
        or sources
        or ways[0] is not graph.projections[-1]
        or graph.populations[-1].name != readout
        or not isinstance(ways[0].topology, Dense)
        or not isinstance(graph.populations[-1].model, LeakyIntegratorUnits)
    ):
        raise ConfigError(
            f"teach: readout '{readout}' cannot grow; it has to be the last population, of leaky integrators, "
            f"reached by one dense projection, which stands last too"
        )
    return ways[0].source, readout


def bare(graph: Graph, readout: str) -> Graph:
    """Return a network whose readout has one class, of which nothing is known."""
    check_readout(graph, readout)
    topology: Any = graph.projections[-1].topology
    return _with_columns(graph, np.zeros((np.shape(topology.weight)[0], 1)))


def widened(graph: Graph, n_classes: int) -> Graph:
    """Return a network with empty columns more; the readout stands last."""
    topology: Any = graph.projections[-1].topology
    weight = np.asarray(topology.weight)
    return _with_columns(graph, np.pad(weight, [(0, 0), (0, n_classes - weight.shape[1])]))


def _with_columns(graph: Graph, weight: NDArray[Any]) -> Graph:
    n_before, n = n_units(graph.populations[-1].shape), weight.shape[1]
    model: Any = graph.populations[-1].model
    for name, value in model._asdict().items():
        if np.ndim(value) and np.size(value) == n_before:  # one for each class: new ones are like the last
            flat = np.ravel(value)
            model = model._replace(**{name: np.concatenate([flat, np.full(max(0, n - n_before), flat[-1])])[:n]})
    return graph._replace(
        populations=[*graph.populations[:-1], graph.populations[-1]._replace(model=model, shape=(n,))],
        projections=[*graph.projections[:-1], graph.projections[-1]._replace(topology=Dense(weight))],
    )


def fitted(old: NDArray[Any], fresh: NDArray[Any], n_features: int, n_before: int, n_classes: int) -> NDArray[Any]:
    """Put an array of a snapshot into the shape that it has when there are more classes.

    The readout stands last in its graph, so what belongs to its units, or to the weights that lead to them, stands at
    the end of an array. ``fresh`` is the same array of the larger network at rest: new places get what stands there.
    """
    if old.shape == fresh.shape:
        return old
    out = np.array(fresh, old.dtype)
    kept = old.shape[-1]
    if out.shape[-1] - kept == n_classes - n_before:
        out[..., :kept] = old
        return out
    head = kept - n_features * n_before
    out[:head] = old[:head]
    out[head:].reshape(n_features, n_classes)[:, :n_before] = old[head:].reshape(n_features, n_before)
    return out
