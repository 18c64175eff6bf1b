"""Dense layers that learn from a labelled stream while they classify it: a learner that draws its own network.

One hidden layer of leaky integrate-and-fire units (``neurons.lif``), changed by the Hebbian rule at every event
(``plasticity.hebbian``), and a readout of leaky integrators. Everything else is ``plasticity.network_learner``, which
takes any network from a file.
"""

from typing import Literal, get_args

import numpy as np

from neurons.dense import Dense
from neurons.encode import n_input_units
from neurons.graph import INPUT, Graph, Population, Projection
from neurons.leaky_integrator import LeakyIntegratorUnits
from neurons.lif import LIFUnits
from plasticity.hebbian import Hebbian
from plasticity.network_learner import NetworkLearner
from plasticity.window import Surrogate
from stream.errors import ConfigError

__all__ = ["Mode", "OnlineLearner"]

Mode = Literal["GP", "LP", "HP"]


class OnlineLearner(NetworkLearner):
    """Classify an event stream, and learn from its labels as they pass.

    Parameters
    ----------
    width, height
        Sensor's size, pixels.
    n_hidden, n_classes
        Units of the hidden layer and of the readout.
    mode
        "GP" global plasticity alone (no local state), "LP" local alone (hidden weights and meta-parameters stay as they
        were drawn, the readout is trained), "HP" both.
    seed
        Of the initial weights; the same in all modes.
    tau_mem_us, tau_hebb_us, tau_readout_us
        Time constants of the membrane, the local change and the readout, us. Learned, slowly.
    v_threshold
        Firing threshold.
    weight_scale
        Standard deviation of the initial hidden weights. An event moves each unit by this much; a unit fires when the
        events of about one ``tau_mem_us`` add up to the threshold.
    mixing, local_rate, sliding_threshold, hebb_max
        Of the local rule, see ``plasticity.hebbian``. All but the last learned, slowly.
    hebb_reset
        Clear the local change at each ``Reset``; False carries it along the stream.
    surrogate, surrogate_width
        What stands in for the derivative of a spike, see ``plasticity.backward``.
    readout_gain
        Slope of the softmax on the scores.
    weight_rate, meta_rate
        Adam's rates for weights and for everything else, the latter relative to each parameter's natural unit.
    correction_period_us, deploy_every, beside_us, weight_bits, hold_back, margin, judge_labels, window_events
        See ``plasticity.network_learner``.

    Raises
    ------
    ConfigError
        If a parameter is not in order.

    Notes
    -----
    Outputs: ``hidden`` (its spikes), ``answers``, and ``forward``: the events, with ``Deploy`` marks for the chip.
    """

    def __init__(
        self,
        *,
        width: int,
        height: int,
        n_hidden: int = 200,
        n_classes: int = 10,
        mode: Mode = "HP",
        seed: int = 1,
        tau_mem_us: float = 20_000.0,
        tau_hebb_us: float = 100_000.0,
        tau_readout_us: float = 60_000.0,
        v_threshold: float = 1.0,
        weight_scale: float = 0.07,
        mixing: float = 0.12,
        local_rate: float = 0.013,
        sliding_threshold: float = 0.0,
        hebb_max: float = 1.0,
        hebb_reset: bool = True,
        surrogate: Surrogate = "spikes",
        surrogate_width: float = 0.5,
        readout_gain: float = 1.0,
        weight_rate: float = 2e-3,
        meta_rate: float = 1e-3,
        correction_period_us: int = 0,
        deploy_every: int = 50,
        beside_us: int = -1,
        weight_bits: int = 0,
        hold_back: int = 0,
        margin: float = np.inf,
        judge_labels: int = 10,
        window_events: int = 65_536,
    ) -> None:
        if mode not in get_args(Mode):
            raise ConfigError(f"OnlineLearner mode: got {mode!r}, wanted one of {', '.join(get_args(Mode))}")
        for name, value, lowest in (
            ("width", width, 1),
            ("height", height, 1),
            ("n_hidden", n_hidden, 1),
            ("n_classes", n_classes, 2),
            ("deploy_every", deploy_every, 1),
        ):
            if value < lowest:
                raise ConfigError(f"OnlineLearner {name}: got {value}, wanted {lowest} or more")
        for name, constant in (
            ("tau_mem_us", tau_mem_us),
            ("tau_hebb_us", tau_hebb_us),
            ("tau_readout_us", tau_readout_us),
            ("v_threshold", v_threshold),
            ("hebb_max", hebb_max),
            ("surrogate_width", surrogate_width),
            ("readout_gain", readout_gain),
        ):
            if not constant > 0:
                raise ConfigError(f"OnlineLearner {name}: got {constant}, wanted a number above 0")
        n_pre = n_input_units(width, height)
        rng = np.random.default_rng(seed)
        hidden = rng.normal(0.0, weight_scale, (n_pre, n_hidden)).astype(np.float32)
        readout = rng.normal(0.0, 1.0 / np.sqrt(n_hidden), (n_hidden, n_classes)).astype(np.float32)
        graph = Graph(
            (height, width, 2),
            [
                Population("hidden", LIFUnits(tau_mem_us=tau_mem_us, v_threshold=v_threshold), (n_hidden,)),
                Population("scores", LeakyIntegratorUnits(tau_mem_us=tau_readout_us), (n_classes,)),
            ],
            [Projection(INPUT, "hidden", Dense(hidden)), Projection("hidden", "scores", Dense(readout))],
        )
        rule = Hebbian(np.full(n_pre, local_rate), np.full(n_hidden, sliding_threshold), mixing, tau_hebb_us, hebb_max)
        self._assemble(
            graph,
            "scores",
            "float32",
            {} if mode == "GP" else {(INPUT, "hidden"): rule},
            {},
            {},
            hebb_reset,
            None,
            correction_period_us,
            0,
            deploy_every,
            beside_us,
            hold_back,
            weight_bits=weight_bits,
            margin=margin,
            judge_labels=judge_labels,
            learn=("weights", "rules", "times"),
            held=("hidden",) if mode == "LP" else (),
            gain=readout_gain,
            surrogate=surrogate,
            width=surrogate_width,
            weight_rate=weight_rate,
            meta_rate=meta_rate,
            window_events=window_events,
        )
