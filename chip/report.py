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

Semi-folded, a frame is what was a phase, and takes many (:mod:`chip.fold`). Latency is then that of the frame that is
gathered, and of its rows, until the last thing that the last one causes is out. The other way stands beside it, see
:mod:`chip.trade`.
"""

from typing import Any

import msgspec
import numpy as np

from chip.compiler import Program, latencies
from chip.frames import last_of, plan_of
from chip.network import incoming, is_spiking, weight_of
from chip.run import Measured, late_us
from chip.trade import Trade, power_mw, shortest_s, trade_without_recordings
from neurons.graph import n_units

__all__ = ["constants", "describe", "report"]

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
            "latency_phases": late[number] if number < len(late) else None,
        }
        if measured is not None:
            row["synaptic_ops"] = int(measured.core_ops[mine].sum())
            row["packets"] = int(measured.core_packets[mine].sum())
        rows.append(row)
    return rows


def describe(program: Program, measured: Measured | None = None, trade: Trade | None = None) -> dict[str, Any]:
    """Describe a program for programs.

    Parameters
    ----------
    program
        What was compiled.
    measured
        What recordings took; default: none were run.
    trade
        Unfolded and semi-folded side by side; default: cores and phases alone.

    Returns
    -------
    dict
        ``layers``, ``cores``, ``links`` (lists), ``estimates``, ``constants``, ``measured``, and counts.
    """
    profile, network = program.profile, program.network
    n_cores, phase_us = len(program.cores), program.whole.phase_us
    if program.folded is None:
        late = latencies(program)[: len(network.layers)]
        latency_phases = max(
            [late[k] for k, layer in enumerate(network.layers) if layer.name in program.outputs], default=max(late)
        )
        latency_us = latency_phases * phase_us
    else:
        latency_phases, latency_us = program.folded.period + last_of(plan_of(program)) + 1, late_us(program)
    found: dict[str, Any] = {
        "profile": profile.name,
        "phase_us": phase_us,
        "semi_folded": program.folded is not None,
        "phases_per_frame": 1 if program.folded is None else program.folded.period,
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
    estimates: dict[str, Any] = {"latency_us": latency_us}
    phase_s = shortest_s(program)
    if phase_s is not None:
        estimates["shortest_phase_us"] = phase_s * 1e6
        estimates["shortest_latency_us"] = latency_phases * phase_s * 1e6
    low, high = profile.core_power_low_mw.value, profile.core_power_high_mw.value
    if high:
        estimates["power_low_mw"], estimates["power_high_mw"] = n_cores * low, n_cores * high
    if measured is not None:
        totals = measured.totals
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
        power = power_mw(program, measured)
        if power is not None:
            estimates["power_at_this_load_mw"] = power
            if phase_s is not None:
                energy_uj = power * 1e3 * phase_s * measured.phases / max(measured.recordings, 1)
                estimates["energy_per_recording_uj"] = energy_uj
    found["estimates"] = estimates
    found["folding"] = msgspec.to_builtins(trade_without_recordings(program) if trade is None else trade)
    found["constants"] = constants(program)
    return found
