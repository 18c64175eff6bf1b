"""Characters that were never seen, taught by a show or a few, on a chip that does not learn.

``python demos/chip_few_shot.py OMNIGLOT --out RUN`` takes the network that ``hebbstream eval few-shot`` meta-learns
(one that is in RUN already, ``HP-1.npz``, is not learned again), brings it onto the chip, and holds the same
examination twice: in floating point, event by event, and on the chip, phase by phase in integers, whose readout the
host teaches between two shows (``chip.binding``). A table goes to the terminal, numbers to RUN/chip.json.

On the chip features inhibit each other two phases late. Shorter phases make that less, and answers worse: what a phase
leaves of a slow potential has 8 bits, and 0.2 ms leave of a time constant of 100 ms what is no more than rounding.
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

from chip.binding import Binder, BindingRule
from chip.compiler import compile_network
from chip.observe import in_phases, observe
from chip.profile import load_profile
from chip.quantise import quantise_graph
from neurons.encode import n_input_units
from neurons.graph import Graph
from neurons.inhibition import Inhibition
from plasticity.meta_episode import EpisodeNetwork
from stream import evaluate_few_shot as study
from stream.packet import SPIKE_DTYPE


def spikes_of(events: np.ndarray, width: int) -> np.ndarray:
    """Turn events into spikes of input lines."""
    spikes = np.zeros(len(events), SPIKE_DTYPE)
    spikes["t"] = events["t"]
    spikes["unit"] = (events["y"].astype(np.int64) * width + events["x"]) * 2 + events["p"]
    return spikes


def for_the_chip(pupil: EpisodeNetwork, phase_us: int) -> Graph:
    """Return what was learned, with inhibition a phase late: the sums of so many inputs take a phase more."""
    graph = pupil.learned()
    late = [
        it._replace(delay_us=max(int(it.delay_us), phase_us)) if isinstance(it.topology, Inhibition) else it
        for it in graph.projections
    ]
    return graph._replace(projections=late)


def examine(
    pupil: EpisodeNetwork, binder: Binder, task: Any, shows: dict, names: list[str], seed: int
) -> dict[str, float]:
    """Hold the same episodes in floats and on the chip; shares of right and of equal answers."""
    found = []
    for number in range(task.episodes):
        episode = study._episode(np.random.default_rng([seed, 3, number]), shows, names, task, 1, False)
        binder.forget()
        for it in episode.supports:
            binder.teach(spikes_of(it.items, study.SIDE), pupil.span_us, it.label)
        for scores, it in zip(pupil.run(episode), episode.queries, strict=True):
            on_chip = binder.ask(spikes_of(it.items, study.SIDE), pupil.span_us)[: task.ways]
            answers = int(np.argmax(scores)), int(np.argmax(on_chip))
            found.append((answers[0] == it.label, answers[1] == it.label, answers[0] == answers[1]))
    right, chip, equal = np.mean(found, axis=0)
    return {"float": float(right), "chip": float(chip), "equal": float(equal), "answers": len(found)}


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw right answers of both, examination by examination."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for shift, key, colour in ((-0.2, "float", "#0b62a8"), (0.2, "chip", "#e69f00")):
        axes.bar(np.arange(len(rows)) + shift, [100 * row[key] for row in rows], 0.4, color=colour, label=key)
    for k, row in enumerate(rows):
        axes.hlines(100 * row["chance"], k - 0.45, k + 0.45, color="black", linewidth=1, linestyle=":")
    axes.set(ylim=(0, 100), ylabel="right answers, %  (dots: chance)")
    axes.set_xticks(range(len(rows)), [row["task"] for row in rows])
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Meta-learn, compile, examine."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "folder", type=Path, help="pictures, or Omniglot's archives, as for `hebbstream eval few-shot`"
    )
    options.add_argument("--method", default="HP", help="HP, HP first order, HP fixed rule or LP")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--rounds", type=int, default=400)
    options.add_argument("--ways", type=int, default=20)
    options.add_argument("--phase-us", type=int, default=1000)
    options.add_argument("--no-turned", action="store_true", help="learn from characters as they are alone")
    options.add_argument("--share", type=float, default=1.0, help="of the episodes of an examination")
    options.add_argument("--profile", default="tianjic-2019")
    options.add_argument("--out", type=Path, default=Path("runs/chip-few-shot"))
    given = options.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    shows = study._shows(study._pictures(given.folder, given.out), given.out, 1 if given.no_turned else 4)
    training, test = study._split(sorted({name for name, _ in shows}))
    pupil = study._trained(given.method, given.seed, shows, training, given.ways, given.rounds, given.out)
    graph, profile = for_the_chip(pupil, given.phase_us), load_profile(given.profile)
    # what calibrates comes from the characters that were learned from
    lessons = [spikes_of(shows[name, 0][0], study.SIDE) for name in training[:40]]
    seen = observe(graph, in_phases(lessons, n_input_units(study.SIDE, study.SIDE), given.phase_us), given.phase_us)
    quantised = quantise_graph(graph, profile, phase_us=given.phase_us, observed=seen)
    program = compile_network(quantised, profile, spikes=seen.spikes_per_phase)
    theta = pupil.theta
    rule = BindingRule(theta.local_rate, theta.contrast, theta.tau_hebb_us, pupil.bind, pupil.length > 0)
    binder = Binder(program, rule, pupil.readout)
    console = Console(width=120)
    table = Table("task", "answers", "float", "chip", "equal", title="right answers, %", box=None)
    rows = []
    for task in study.TASKS:
        task = task._replace(episodes=max(1, round(task.episodes * given.share)))
        if task.ways > len(test) or task.shots + task.queries > min(len(shows[name, 0]) for name in test):
            continue
        row = {"task": task.name, **examine(pupil, binder, task, shows, test, given.seed)}
        taken = binder.taken()
        rows.append(row | {"chance": 1 / task.ways, "last_episode": {name: taken[name] for name in binder.counts}})
        words = [f"{100 * row[key]:.1f}" for key in ("float", "chip", "equal")]
        table.add_row(task.name, str(row["answers"]), *words)
    console.print(table)
    taken = binder.taken()
    console.print({name: value for name, value in taken.items() if name not in binder.counts})
    draw(given.out / "chip-few-shot.png", rows)
    (given.out / "chip.json").write_text(json.dumps({"rows": rows, "taken": taken}, indent=1) + "\n")


if __name__ == "__main__":
    main()
