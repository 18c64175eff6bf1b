"""What a program takes, before it runs and after."""

from chip.compiler import Program

__all__ = ["report"]


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
        if layer.soma.fire_type == 4:
            words[f"{layer.name} threshold"] = layer.soma.v_threshold
    return words
