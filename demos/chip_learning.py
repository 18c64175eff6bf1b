"""What hybrid learning costs on a chip that does not learn: float against integers, damage by damage, and the bill.

``python demos/chip_learning.py TRAIN TEST --out RUN`` trains five ways on undamaged recordings (FOLDER/LABEL/RECORDING,
such as N-MNIST), then asks the float network, event by event, and the chip, phase by phase in integers with the host
learning beside it, about the same damaged events. Without folders: digits of the simulated camera. A table goes to the
terminal, numbers to RUN/results.json, a picture to RUN/chip-learning.png. Networks that are in RUN already
(``hebbstream eval fault-tolerance --out RUN``, where the rule begins weaker) are not trained again.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from chip.node import ChipNode
from neurons.graph import INPUT
from plasticity.deployment import rule_arrays
from plasticity.train import Recording, Trainer, train
from sources.recordings import make_recordings
from stream.evaluate_faults import damages, trainer_of, usual_rate_hz
from stream.packet import Deploy, Label, Message, Packet, Reset
from stream.train import bar, dense_layers, labelled, size_of

METHODS = ("GP", "LP", "STP", "HP", "HP+STP")
COUNTS = ("spikes_in", "packets", "hops", "synaptic_ops", "phases", "spikes_out")


def nowhere(port: str, message: Message) -> None:
    """Send nothing to nobody."""


def deployment(trainer: Trainer) -> Deploy:
    """Name what was learned, layer by layer: weights, time constants, thresholds, and the first layer's rule."""
    network, graph = trainer.lanes[0], trainer.learned()
    arrays: dict[str, Any] = {}
    for k, it in enumerate(graph.projections):
        model: Any = next(p.model for p in graph.populations if p.name == it.target)
        arrays[f"layer{k}.weight"] = np.asarray(it.topology.weight, np.float32)
        arrays[f"layer{k}.tau_mem_us"] = np.array(np.ravel(model.tau_mem_us)[0], np.float64)
        if hasattr(model, "v_threshold"):
            arrays[f"layer{k}.v_threshold"] = np.array(np.ravel(model.v_threshold)[0], np.float64)
        if it.source == INPUT:
            arrays |= rule_arrays(network, k, f"layer{k}")
    return Deploy(0, 1, arrays)


def seen(recording: Recording, operator: Any, t_us: int) -> tuple[np.ndarray, int]:
    """Return a recording's events as the camera gives them, moved to ``t_us``, and when they end."""
    events, kept = recording.read().copy(), []
    events["t"] += t_us - int(events["t"][0])
    end_us = int(events["t"][-1]) + 1

    def take(port: str, message: Message) -> None:
        if isinstance(message, Packet):
            kept.append(message.items.copy())

    if operator is None:
        return events, end_us
    operator.on_packet("events", Packet(events, t_us, end_us), take)
    operator.on_mark("events", Label(end_us, 0, t_us), take)  # what it still holds back comes before a mark
    return np.concatenate(kept), end_us


def once_a_phase(events: np.ndarray, begin_us: int, node: ChipNode) -> np.ndarray:
    """Return the first event of each line in each phase: what the axons of the chip can hold."""
    line = (events["y"].astype(np.int64) * node.width + events["x"]) * 2 + events["p"]
    phase = (events["t"] - begin_us) // node.phase_us
    _, first = np.unique(phase * 2 * node.width * node.height + line, return_index=True)
    return events[np.sort(first)]


def ask(
    trainer: Trainer,
    node: ChipNode,
    recordings: list[Recording],
    operator: Any,
    seed: int,
    t_us: int,
    *,
    merged: bool = False,
) -> tuple[dict[str, float], int]:
    """Ask both about recordings in one stream, cleared between them; shares of right and of equal answers, its end."""
    network = trainer.lanes[0]
    network.begin(t_us)
    found = []
    for k in np.random.default_rng(seed).permutation(len(recordings)):
        events, end_us = seen(recordings[k], operator, t_us)
        floats = once_a_phase(events, t_us, node) if merged else events
        for member, items in ((network, floats), (node, events)):
            member.on_mark("events", Reset(t_us), nowhere)
            member.on_packet("events", Packet(items, t_us, end_us), nowhere)
        answers = int(np.argmax(network.averages(trainer.correction.readout))), node.answer()
        found.append((answers[0] == recordings[k].label, answers[1] == recordings[k].label, answers[0] == answers[1]))
        t_us = end_us
    right, chip, equal = np.mean(found, axis=0)
    return {"float": float(right), "chip": float(chip), "equal": float(equal)}, t_us


def energy_uj(node: ChipNode, counts: dict[str, float], n: int) -> float:
    """Estimate the energy of a recording as ``chip.report`` does; nothing was measured on silicon."""
    profile, cores = node.profile, counts["cores used"]
    every = counts["phases"] * cores * profile.axons_per_core.value * profile.neurons_per_core.value
    low, high = profile.core_power_low_mw.value, profile.core_power_high_mw.value
    power_mw = cores * (low + (high - low) * counts["synaptic ops"] / every)
    return power_mw * 1e3 * profile.phase_clocks.value / profile.clock_hz.value * counts["phases"] / n


def bill(node: ChipNode, before: dict[str, float], n: int) -> dict[str, float]:
    """Say what a recording took, since ``before``."""
    now = node.statistics()
    counts = {name: now[name] - before.get(name, 0) for name in now} | {"cores used": now["cores used"]}
    each = {name: counts[name.replace("_", " ")] / n for name in COUNTS}
    wrote = counts.get("host bytes written", 0) / n
    return each | {
        "cores": now["cores used"],
        "deploy_bytes": now["deploy bytes"],
        "energy_uj": energy_uj(node, counts, n),
        "h_bytes_written": wrote,
        "write_packets": wrote * 8 / node.profile.payload_bits.value,
        "v_bytes_read": counts.get("host bytes read", 0) / n,
        "host_updates": counts.get("host updates", 0) / n,
        "overruns": counts["overruns"] / n,
        "overflows": counts["overflows"] / n,
    }


def show(found: list[dict[str, Any]], methods: list[str]) -> None:
    """Print two tables: answers by damage, and what a recording took."""
    console = Console(width=150)
    table = Table("damage", "level", *methods, title="right answers, %: float / chip (equal answers, %)", box=None)
    for name, level in dict.fromkeys((row["damage"], row["level"]) for row in found):
        cells = []
        for method in methods:
            rows = [r for r in found if (r["damage"], r["level"], r["method"]) == (name, level, method)]
            means = [100 * float(np.mean([r[key] for r in rows])) for key in ("float", "chip", "equal")]
            cells.append(f"{means[0]:.1f} / {means[1]:.1f} ({means[2]:.0f})" if rows else "-")
        table.add_row(name, f"{level:g}", *cells)
    console.print(table)
    table = Table("a recording takes", *methods, title="undamaged", box=None)
    clean = [[r["bill"] for r in found if r["damage"] == "none" and r["method"] == method] for method in methods]
    for key in clean[0][0]:
        table.add_row(key, *(f"{np.mean([b[key] for b in bills]):,.6g}" for bills in clean))
    console.print(table)


def draw(path: Path, found: list[dict[str, Any]], methods: list[str]) -> None:
    """Draw right answers of both, damage by damage, and the packets of a recording."""
    names = list(dict.fromkeys((row["damage"], row["level"]) for row in found))
    figure = Figure(figsize=(12, 2.4 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(methods), 1, sharex=True, squeeze=False)[:, 0]
    for k, method in enumerate(methods):
        for shift, key, colour in ((-0.2, "float", "#0b62a8"), (0.2, "chip", "#e69f00")):
            heights = [
                100 * np.mean([r[key] for r in found if (r["damage"], r["level"], r["method"]) == (*name, method)])
                for name in names
            ]
            axes[k].bar(np.arange(len(names)) + shift, heights, 0.4, color=colour, label=key)
        axes[k].set(ylim=(0, 100), ylabel=f"{method}\nright, %")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    axes[-1].set_xticks(range(len(names)), [f"{name}\n{level:g}" for name, level in names], fontsize=7)
    figure.suptitle("float, event by event, and integers on the chip, phase by phase")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train, ask, add up."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("train", nargs="?", type=Path, help="recordings to learn from: FOLDER/LABEL/RECORDING")
    options.add_argument("test", nargs="?", type=Path, help="recordings to be damaged and asked about")
    options.add_argument("--methods", default=",".join(METHODS))
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--hidden", default="200")
    options.add_argument("--sensor", default="34x34")
    options.add_argument("--limit", type=int, help="use so many recordings of each folder")
    options.add_argument("--per-class", type=int, default=40, help="simulated recordings of each digit to learn from")
    options.add_argument("--asked", type=int, default=8, help="others of each digit, asked about")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--merged", action="store_true", help="the float network gets a line's first event a phase")
    options.add_argument("--quick", action="store_true", help="the middle level of each damage")
    options.add_argument("--out", type=Path, default=Path("runs/chip-learning"))
    given = options.parse_args()
    width, height = size_of(given.sensor)
    if given.test is None:
        made = make_recordings(
            given.out / "recordings",
            width=width,
            height=height,
            train_per_class=given.per_class,
            test_per_class=given.asked,
            seed=given.seed,
        )
        given.train, given.test = made / "train", made / "test"
    recordings, labels = labelled(given.train, given.limit, width, height)
    asked, _ = labelled(given.test, given.limit, width, height)
    methods = given.methods.split(",")
    found: list[dict[str, Any]] = []
    for method in methods:
        graph = dense_layers(given.hidden, (height, width, 2), labels, given.seed)
        # the rule's own defaults, which are strong: so that integers have something to get wrong
        trainer = trainer_of(graph, method, given.threads, usual_rate_hz(recordings), {})
        folder = given.out / f"{method}-{given.seed}"
        with bar() as progress:
            train(trainer, recordings, folder=folder, epochs=given.epochs, batch=16, seed=given.seed, progress=progress)
        node = ChipNode(width=width, height=height, local_rules=True, strict=False)
        node.on_mark("events", deployment(trainer), nowhere)
        t_us = 0
        for name, level, operator in damages(width, height, given.seed, given.quick):
            before = node.statistics()
            row = {"method": method, "seed": given.seed, "damage": name, "level": level}
            answers, t_us = ask(trainer, node, asked, operator, given.seed, t_us, merged=given.merged)
            row |= answers
            found.append(row | {"bill": bill(node, before, len(asked))})
            print(method, name, level, {key: round(row[key], 3) for key in ("float", "chip", "equal")}, flush=True)
        (given.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(given.out / "chip-learning.png", found, methods)
    show(found, methods)


if __name__ == "__main__":
    main()
