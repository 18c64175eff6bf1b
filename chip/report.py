"""What a program takes: before it runs, and, where recordings were run, what they took.

Estimates, their formulas, and where their constants come from
--------------------------------------------------------------
Nothing here was measured on silicon. Every constant is a quantity of the profile, with its source and confidence.

latency (us)
    (layers, relays too, on the shortest way + 1 for each whose sums are made elsewhere) * phase: from the begin of the
    phase in which an event comes to the end of that in which it shows.
shortest latency (us)
    the same with phases as short as they can be, ``phase_clocks / clock_hz``.
clocks of a phase
    max over cores of ceil(additions / ``macs_per_clock``) + ``overhead_clocks``, and the packets of the busiest link,
    one a clock (chosen). More than ``phase_clocks``: an overrun.
power (mW), low and high
    cores used * ``core_power_low_mw``, ``core_power_high_mw``: the public range by mode and load.
power at this load (mW)
    cores used * (low + (high - low) * additions / (phases * cores used * axons * neurons)): linear between the two,
    which is our assumption, the upper end being a core that adds every weight in every phase.
energy of a recording (uJ)
    power at this load * phases * shortest phase / recordings: a chip that does its phase as fast as it can, and is
    switched off until the next one.
"""

import math
from typing import Any

import numpy as np

from chip.compiler import Program, count_cores
from chip.fold import fold
from chip.network import INPUT_LAYER, incoming, is_spiking, weight_of
from chip.run import Measured
from neurons.graph import n_units
from stream.errors import HebbstreamError

__all__ = ["constants", "describe", "latencies", "report"]

CONSTANTS = (
    "grid_width",
    "grid_height",
    "axons_per_core",
    "neurons_per_core",
    "payload_bits",
    "partial_sum_bits",
    "phase_clocks",
    "overhead_clocks",
    "clock_hz",
    "macs_per_clock",
    "core_power_low_mw",
    "core_power_high_mw",
)


def report(program: Program) -> dict[str, float | str]:
    """Sum up a program before it runs: cores, memory, scales, estimates. Keyed by words for a table."""
    profile = program.profile
    n_cores = len(program.cores)
    words: dict[str, float | str] = {
        "profile": profile.name,
        "cores used": n_cores,
        "cores there": profile.n_cores,
        "partial-sum cores": sum(not part.holds_neurons for part in program.parts),
        "weight bytes used": sum(core.weight.size for core in program.cores),
        "weight bytes of these cores": n_cores * profile.axons_per_core.value * profile.neurons_per_core.value,
        "routes": sum(len(core.routes) for core in program.cores) + len(program.grid.input_lines),
    }
    if profile.core_power_high_mw.value:
        # busy cores times the public range per core; an estimate, nothing was measured
        words["estimated power low mW"] = n_cores * profile.core_power_low_mw.value
        words["estimated power high mW"] = n_cores * profile.core_power_high_mw.value
    for layer in program.network.layers:
        words[f"{layer.name} scale"] = layer.scale
        words[f"{layer.name} alpha"] = layer.soma.alpha if layer.soma.leak_mode else 256
        if is_spiking(layer):
            words[f"{layer.name} threshold"] = layer.soma.v_threshold
    return words


def constants(program: Program) -> list[dict[str, Any]]:
    """List the constants of the estimates, each with source and confidence."""
    found = []
    for name in CONSTANTS:
        quantity = getattr(program.profile, name)
        found.append(
            {"name": name, "value": quantity.value, "source": quantity.source, "confidence": quantity.confidence}
        )
    return found


def latencies(program: Program) -> list[int]:
    """Count the phases from an event to what each woven layer first says of it, that of the event included."""
    links, never = program.woven.links, 1 << 30
    late = [never] * len(program.woven.layers)
    for _ in late:
        for link in links:
            # of woven layers: a phase each, and one where sums are made elsewhere
            split = any(not part.holds_neurons and part.layer == link.target for part in program.parts)
            before = 0 if link.source == INPUT_LAYER else late[link.source]
            late[link.target] = min(late[link.target], before + 1 + split)
    return [1 if phases == never else phases for phases in late]


def _layers(program: Program, measured: Measured | None) -> list[dict[str, Any]]:
    """Describe layers, relays too."""
    rows = []
    late = latencies(program)
    for number, layer in enumerate(program.woven.layers):
        mine = [k for k, part in enumerate(program.parts) if part.layer == number]
        row: dict[str, Any] = {
            "layer": layer.name,
            "units": n_units(layer.shape),
            "shape": list(layer.shape),
            "cores": len(mine),
            "summing_cores": sum(not program.parts[k].holds_neurons for k in mine),
            "weights": sum(
                int(np.size(weight_of(program.woven.links[k].topology))) for k in incoming(program.woven, number)
            ),
            "weight_bytes": sum(program.cores[k].weight.size for k in mine),
            "scale": layer.scale,
            "alpha": layer.soma.alpha if layer.soma.leak_mode else 256,
            "threshold": layer.soma.v_threshold if is_spiking(layer) else None,
            "latency_phases": late[number],
        }
        if measured is not None:
            row["synaptic_ops"] = int(measured.core_ops[mine].sum())
            row["packets"] = int(measured.core_packets[mine].sum())
        rows.append(row)
    return rows


def _folding(program: Program) -> dict[str, Any]:
    """Say what semi-folding would trade: cores against phases for each frame."""
    unfolded = {"unfolded_cores": len(program.cores), "unfolded_phases_per_frame": 1}
    try:
        folded = fold(program.network)
        n_cores = count_cores(folded.network, program.profile)
    except HebbstreamError as error:
        return {**unfolded, "semi_folded": None, "why_not": str(error)}
    return {**unfolded, "semi_folded": {"cores": n_cores, "phases_per_frame": folded.period}}


def describe(program: Program, measured: Measured | None = None) -> dict[str, Any]:
    """Describe a program for programs.

    Parameters
    ----------
    program
        What was compiled.
    measured
        What recordings took; default: none were run.

    Returns
    -------
    dict
        ``layers``, ``cores``, ``links`` (lists), ``estimates``, ``constants``, ``measured``, and counts.
    """
    profile, network = program.profile, program.network
    n_cores, phase_us = len(program.cores), network.phase_us
    late = latencies(program)[: len(network.layers)]
    latency_phases = max(
        [late[k] for k, layer in enumerate(network.layers) if layer.name in program.outputs], default=max(late)
    )
    found: dict[str, Any] = {
        "profile": profile.name,
        "phase_us": phase_us,
        "cores": n_cores,
        "cores_there": profile.n_cores,
        "neurons": sum(n_units(layer.shape) for layer in network.layers),
        "weights": sum(int(np.size(weight_of(link.topology))) for link in network.links),
        "weight_bytes": sum(core.weight.size for core in program.cores),
        "memory_there_bytes": n_cores * profile.axons_per_core.value * profile.neurons_per_core.value,
        "routes": sum(len(core.routes) for core in program.cores) + len(program.grid.input_lines),
        "layers": _layers(program, measured),
        "core_list": [
            {
                "x": x,
                "y": y,
                "name": core.name,
                "layer": program.woven.layers[part.layer].name,
                "axons": core.n_axons,
                "neurons": core.n_neurons,
                "share_of_synapses": core.weight.size / (profile.axons_per_core.value * profile.neurons_per_core.value),
            }
            for core, part, (x, y) in zip(program.cores, program.parts, program.positions, strict=True)
        ],
    }
    estimates: dict[str, Any] = {"latency_us": latency_phases * phase_us}
    shortest_s = profile.phase_clocks.value / profile.clock_hz.value if profile.clock_hz.value else math.nan
    if not math.isnan(shortest_s):
        estimates["shortest_phase_us"] = shortest_s * 1e6
        estimates["shortest_latency_us"] = latency_phases * shortest_s * 1e6
    low, high = profile.core_power_low_mw.value, profile.core_power_high_mw.value
    if high:
        estimates["power_low_mw"], estimates["power_high_mw"] = n_cores * low, n_cores * high
    if measured is not None:
        totals, n_phases = measured.totals, max(measured.phases, 1)
        found["measured"] = {
            "source": measured.source,
            "recordings": measured.recordings,
            "phases": measured.phases,
            **totals,
            "per_recording": {
                name: totals[name] / max(measured.recordings, 1)
                for name in ("synaptic_ops", "packets", "copies", "hops", "spikes_in", "spikes_out")
            },
            "worst_link_packets_in_a_phase": totals["busiest_link"],
            "longest_phase_clocks": totals["clocks"],
            "phase_clocks": profile.phase_clocks.value,
            "overruns": totals["overruns"],
        }
        for row, ops, packets in zip(found["core_list"], measured.core_ops, measured.core_packets, strict=True):
            row["synaptic_ops"], row["packets"] = int(ops), int(packets)
        if high:
            every = n_phases * n_cores * profile.axons_per_core.value * profile.neurons_per_core.value
            power = n_cores * (low + (high - low) * totals["synaptic_ops"] / every)
            estimates["power_at_this_load_mw"] = power
            if not math.isnan(shortest_s):
                energy_uj = power * 1e3 * shortest_s * n_phases / max(measured.recordings, 1)
                estimates["energy_per_recording_uj"] = energy_uj
    found["estimates"] = estimates
    found["folding"] = _folding(program)
    found["constants"] = constants(program)
    return found
