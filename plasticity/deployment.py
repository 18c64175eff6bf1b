"""What a ``Deploy`` mark says of a projection's local plasticity, for whoever carries it out elsewhere."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plasticity.hebbian import ADD, TANH
from plasticity.plastic_network import PlasticNetwork
from plasticity.table import (
    FAST_MAX,
    FIRST_POST,
    FIRST_PRE,
    FORM,
    HAS_SHORT_TERM,
    HAS_SURROUND,
    HEBBIAN,
    MIXING,
    N_PRE,
    POST_TERM,
    RULE,
    STATIC,
    TAU_FAST,
)
from stream.errors import ConfigError

__all__ = ["rule_arrays"]


def rule_arrays(network: PlasticNetwork, way: int, layer: str) -> dict[str, NDArray[Any]]:
    """Return the rule of a projection as it is now, its learned parameters included.

    Parameters
    ----------
    network
        Which network.
    way
        Number of the projection.
    layer
        What its layer is called in the mark.

    Returns
    -------
    dict of str to array
        With tired terminals ``LAYER.terminal`` float64 (n_pre, 5), the fields of ``ShortTerm``; with a Hebbian rule
        ``LAYER.local_rate`` float64 (n_pre,), ``LAYER.sliding_threshold`` float64 (n_post,) and ``LAYER.hebb`` float64
        (3,): mixing, tau_hebb_us, hebb_max. Empty without a rule.

    Raises
    ------
    ConfigError
        If the rule is another one, or of another form than ``add`` with ``tanh``; if there is a surround.
    """
    table = network._table
    place, number = table.place[way], table.number[way]
    arrays: dict[str, NDArray[Any]] = {}
    if way not in network._ways.values():
        return arrays
    n_pre = int(place[N_PRE])
    pre = slice(int(place[FIRST_PRE]), int(place[FIRST_PRE]) + n_pre)
    if place[HAS_SURROUND] > 0:
        raise ConfigError(f"{layer}: a surround cannot be deployed; wanted tired terminals, Hebbian, or nothing")
    if place[HAS_SHORT_TERM] > 0:
        arrays[f"{layer}.terminal"] = table.terminal[pre].astype(np.float64)
    if place[RULE] == STATIC:
        return arrays
    if place[RULE] != HEBBIAN or place[FORM] != ADD or place[POST_TERM] != TANH:
        raise ConfigError(f"{layer}: a rule that cannot be deployed; wanted Hebbian, mixed = 'add', post = 'tanh'")
    n_post = network._weights(way).shape[1]
    post = slice(int(place[FIRST_POST]), int(place[FIRST_POST]) + n_post)
    arrays[f"{layer}.local_rate"] = table.local_rate[pre].astype(np.float64)
    arrays[f"{layer}.sliding_threshold"] = table.sliding[post].astype(np.float64)
    arrays[f"{layer}.hebb"] = np.array([number[MIXING], number[TAU_FAST], number[FAST_MAX]], np.float64)
    return arrays
