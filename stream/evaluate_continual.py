"""The command ``hebbstream eval continual``: many tasks one after the other, and what is left of the first ones.

Task k shows the digits of MNIST to a camera whose pixels are exchanged by a permutation of its own (task 0: as they
are), or that is turned by an angle of its own. All tasks share one set of weights and ten outputs, and are learned one
after the other from streams of events.

======  ============================================================================================================
method  how
======  ============================================================================================================
GP      task k uses the synapses of its own random mask (3 % of each table) alone; trained by the global correction.
        The authors' "sparse GP"
HP      the same, and beside them as many synapses outside of the mask change by the local rule while a digit is
        shown, from nothing each time. The rule's parameters are trained after each task on shows of earlier ones,
        weights held, up to 7 tenths of the tasks (the authors': 35 of 50)
EWC     dense, no masks: a step away from where weights were after earlier tasks costs what they mattered to them
        (J. Kirkpatrick et al., PNAS 114:3521, 2017; Fisher information summed over tasks)
naive   as EWC, at no cost
======  ============================================================================================================

``--kind still`` is the authors' own setting instead, pictures at three steps (``stream.evaluate_continual_still``);
60,000 pictures, 10 epochs and 50 tasks are theirs.

Asked with known task: the mask is that of the task. With task unknown: each show is answered under every mask learned
so far, and the most confident answer counts (the largest share in a softmax). EWC and naive need to know no task.
After the last task HP is also asked with ``hebb`` carried along the shows of a task, as a stream has it.

The authors' local rule lives on all connections outside of a mask, 97 % of the table; here on as many as the mask has,
so that an event still reaches 6 % of the units and no more. Masks, network and head are theirs: 1024-1024-10, 3 %.

What a method and a seed have come to is in ``OUT/results.json``; on the way there, weights after each task and what was
found so far are in ``OUT/METHOD-SEED.npz``. The same command goes on where it was interrupted.
"""

import functools
import importlib
import itertools
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.evaluate_continual_still import StillRun, pictures, row_of
from stream.evaluation import Hidden, Json, On, Out, Seeds, chosen, each, read_results, write_results
from stream.train import bar

__all__ = ["continual"]

METHODS = ("GP", "HP", "EWC", "naive")
SIDE, N_INPUTS, N_CLASSES = 28, 2 * 28 * 28, 10
SPAN_US = 80_000
DENSITY = 0.03
META_SHARE = 0.7  # of the tasks after which the rule is trained
EWC_STRENGTH = 300.0
META_RATE, BATCH = 2e-3, 8
MASKED_RATE, DENSE_RATE = 1e-2, 1e-3
# spread of first weights by layer, times one over the square root of a unit's inputs: few spikes, but some, in each;
# chosen on the first task with one seed, as the rates are
MASKED_SPREAD, DENSE_SPREAD = (2.5, 1.5, 1.0), (1.5, 1.0, 1.0)


def continual(
    images: Annotated[Path, typer.Argument(help="MNIST's training images (train-images-idx3-ubyte.gz).")],
    test: Annotated[Path, typer.Argument(help="MNIST's test images.")],
    out: Out,
    methods: Annotated[str, typer.Option(help=f"Some of {', '.join(METHODS)}.")] = ",".join(METHODS),
    kind: Annotated[str, typer.Option(help="permuted, rotated; still: as the authors, no events.")] = "permuted",
    tasks: Annotated[int, typer.Option(min=2, help="How many tasks.")] = 10,
    shows: Annotated[int, typer.Option(min=20, help="Images of a task to learn from.")] = 500,
    asked: Annotated[int, typer.Option(min=10, help="Images of a task to ask about.")] = 100,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each is seen.")] = 2,
    hidden: Hidden = "1024,1024",
    seeds: Seeds = 3,
    full: Annotated[
        bool, typer.Option(help="50 tasks, 5000 images each, 500 asked; still: all 60,000 and 10,000, ten epochs.")
    ] = False,
    quick: Annotated[
        bool, typer.Option(help="One seed, 3 tasks, 60 images each (still: 600), hidden layers of 128.")
    ] = False,
    on: On = "",
    as_json: Json = False,
) -> None:
    """Learn task after task, then ask about all of them."""
    from stream.errors import ConfigError

    wanted = chosen("--methods", methods, METHODS)
    if kind not in ("permuted", "rotated", "still"):
        raise ConfigError(f"--kind {kind}: wanted permuted, rotated or still")
    if full:
        tasks, shows, asked = 50, 5000, 500
        if kind == "still":
            shows, asked, epochs = 60_000, 10_000, 10
    if quick:
        seeds, tasks, hidden = 1, 3, "128,128"
        shows, asked = (600, 100) if kind == "still" else (60, 20)
    if not all(part.isdigit() and int(part) for part in hidden.split(",")):
        raise ConfigError(f"--hidden {hidden}: wanted whole numbers above 0, such as 1024,1024")
    sizes = [N_INPUTS, *map(int, hidden.split(",")), N_CLASSES]
    out.mkdir(parents=True, exist_ok=True)
    settings = {"kind": kind, "tasks": tasks, "shows": shows, "asked": asked, "epochs": epochs, "hidden": hidden}
    found = read_results(out / "results.json", settings)
    see: Any = _shows if kind != "still" else lambda source, _, n: pictures(source, n)
    for source, path, n in ((images, out / "train.npz", shows), (test, out / "test.npz", asked)):
        see(source, path, n)  # once, here

    def study(job: tuple[int, str]) -> list[dict[str, Any]]:
        seed, method = job
        lessons, questions = see(images, out / "train.npz", shows), see(test, out / "test.npz", asked)
        run: Any = (
            StillRun(method, seed, tasks, tuple(sizes[1:-1]), out)
            if kind == "still"
            else _Run(method, seed, kind, tasks, sizes, out)
        )
        run.rows = run.rows or _of_job(found, job)  # before they were kept with the weights
        with bar() as show:
            while run.done < tasks:
                run.learn(run.done, lessons, epochs, functools.partial(show, run.done + 1))
                if run.done in _asked_after(tasks):
                    run.ask(questions)
                run.keep()
        if run.is_masked and not _series(run.rows, method, tasks, False):
            run.ask(questions, is_known=False)
            run.keep()
        rows: list[dict[str, Any]] = run.rows
        return rows

    def keep(job: tuple[int, str], rows: list[dict[str, Any]]) -> None:
        found[:] = [row for row in found if row not in _of_job(found, job)] + rows
        write_results(out / "results.json", settings, found)
        words = ", ".join(f"after {row['after']}: {100 * row['right']:.1f} %" for row in rows)
        print(f"{job[1]}, seed {job[0]}: {words}", file=sys.stderr, flush=True)

    def is_done(job: tuple[int, str]) -> bool:
        last = [row["task known"] for row in _of_job(found, job) if row["after"] == tasks]
        return False in last or None in last  # asked with task unknown, or never told

    each([job for job in itertools.product(range(1, seeds + 1), wanted) if not is_done(job)], study, keep, on=on)
    _draw(out / "results.png", found, tasks)
    if as_json:
        print(json.dumps({"settings": settings, "results": found}))
        return
    _print(found, tasks)
    print(f"results in {out / 'results.json'}, picture in {out / 'results.png'}")


def _asked_after(tasks: int) -> list[int]:
    """List after how many tasks all of them so far are asked about."""
    return sorted({1, 2, 5, 10, 20, 30, 40, tasks} & set(range(1, tasks + 1)))


# -- what is seen ------------------------------------------------------------------------------------------------------


def _shows(images: Path, path: Path, n: int) -> tuple[list[Any], list[int]]:
    """Let the camera see the first ``n`` images of its order; returns the events of each, and labels."""
    import numpy as np

    from stream.packet import EVENT_DTYPE, End, Label, Packet

    if not path.exists():
        scene = importlib.import_module("sources.scene_images").Images
        camera = importlib.import_module("sources.simulated").SimulatedCamera(
            scene="images",
            path=str(images),
            images=scene(
                passes=1, size=1.0, saccade_us=30_000, reach=4 / 34, corners=((-0.5, 0.0), (0.0, 0.5), (0.5, 0.0))
            ),
            width=SIDE,
            height=SIDE,
            seed=1,
            gap_us=0,
            step_us=2000,
            threshold_on=1.0,
            threshold_off=1.0,
            shot_noise_hz=0.1,
        )
        parts: list[Any] = []
        seen: list[Any] = []
        ends: list[int] = []
        labels: list[int] = []
        while len(ends) < n and not isinstance(message := camera.poll(1 << 20), End):
            if isinstance(message, Packet):
                parts.append(message.items.copy())
            elif isinstance(message, Label):
                events = np.concatenate([np.empty(0, EVENT_DTYPE), *parts])
                events["t"] -= message.start_us
                seen.append(events)
                ends.append(len(events))
                labels.append(message.label)
                parts = []
        camera.close()
        side = path.with_suffix(".part.npz")
        np.savez(side, events=np.concatenate(seen), end=np.cumsum(ends), label=np.array(labels))
        side.replace(path)
    with np.load(path) as kept:
        events, ends, labels = kept["events"], kept["end"].tolist()[:n], kept["label"].tolist()[:n]
    return [events[first:end] for first, end in zip([0, *ends[:-1]], ends, strict=True)], labels


def _as_task(kind: str, task: int, tasks: int, events: Any) -> Any:
    """Return a show as the camera of a task sees it: spikes of input units, SPIKE_DTYPE."""
    import numpy as np

    from stream.packet import SPIKE_DTYPE

    if kind == "rotated" and task:
        angle, middle = 2 * math.pi * task / tasks, (SIDE - 1) / 2
        x, y = events["x"] - middle, events["y"] - middle
        turned_x = np.rint(x * math.cos(angle) - y * math.sin(angle) + middle).astype(np.int64)
        turned_y = np.rint(x * math.sin(angle) + y * math.cos(angle) + middle).astype(np.int64)
        inside = (turned_x >= 0) & (turned_x < SIDE) & (turned_y >= 0) & (turned_y < SIDE)
        events, pixel = events[inside], (turned_y * SIDE + turned_x)[inside]
    else:
        pixel = events["y"].astype(np.int64) * SIDE + events["x"]
        if task:
            pixel = np.random.RandomState(task).permutation(SIDE * SIDE)[pixel]  # the authors': NumPy's seed k
    items = np.zeros(len(events), SPIKE_DTYPE)
    items["t"], items["unit"] = events["t"], 2 * pixel + events["p"]
    return items


# -- what learns -------------------------------------------------------------------------------------------------------


class _Run:
    """One method with one seed: weights of all tasks, and what goes with them."""

    def __init__(self, method: str, seed: int, kind: str, tasks: int, sizes: Sequence[int], out: Path) -> None:
        import numpy as np

        self.method, self.seed, self.kind, self.tasks, self.sizes = method, seed, kind, tasks, tuple(sizes)
        self.is_masked = method in ("GP", "HP")
        rng = np.random.default_rng([seed, 0])
        density = DENSITY if self.is_masked else 1.0
        first, middle, last = MASKED_SPREAD if self.is_masked else DENSE_SPREAD
        spreads = [first, *[middle] * (len(sizes) - 3), last]
        scale = [spread / math.sqrt(n * density) for spread, n in zip(spreads, sizes[:-1], strict=True)]
        shapes = list(itertools.pairwise(sizes))
        self.weights = [rng.normal(0.15 * s, s, shape) for s, shape in zip(scale, shapes, strict=True)]
        self.fisher = [np.zeros(shape) for shape in shapes] if not self.is_masked else []
        self.theta = {"mixing": [0.05] * len(shapes), "tau_hebb_us": [100_000.0] * len(shapes)}
        self.rates = [np.full(n, 0.01) for n in sizes[:-1]]
        self.sliding = [np.zeros(n) for n in sizes[1:]]
        self.done = 0
        self.rows: list[dict[str, Any]] = []  # what was found so far
        self._path = out / f"{method}-{seed}.npz"
        if self._path.exists():
            with np.load(self._path) as kept:
                self.done = int(kept["done"])
                self.rows = json.loads(str(kept["rows"])) if "rows" in kept else []
                for k in range(len(shapes)):
                    self.weights[k] = kept[f"weight{k}"]
                    self.rates[k], self.sliding[k] = kept[f"rate{k}"], kept[f"sliding{k}"]
                    self.theta["mixing"][k], self.theta["tau_hebb_us"][k] = kept[f"theta{k}"].tolist()
                    if self.fisher:
                        self.fisher[k] = kept[f"fisher{k}"]

    def keep(self) -> None:
        """Write everything down."""
        import numpy as np

        arrays: dict[str, Any] = {"done": np.array(self.done), "rows": np.array(json.dumps(self.rows))}
        for k, weight in enumerate(self.weights):
            arrays |= {f"weight{k}": weight, f"rate{k}": self.rates[k], f"sliding{k}": self.sliding[k]}
            arrays[f"theta{k}"] = np.array([self.theta["mixing"][k], self.theta["tau_hebb_us"][k]])
            if self.fisher:
                arrays[f"fisher{k}"] = self.fisher[k]
        side = self._path.with_suffix(".part.npz")
        np.savez(side, **arrays)
        os.replace(side, self._path)

    def _synapses(self, task: int, k: int) -> tuple[Any, Any, Any]:
        """Return source and target of the synapses of layer k that a task uses, and which are its mask's."""
        import numpy as np

        rng = np.random.default_rng([self.seed, 1, task, k])
        drawn = rng.random(self.weights[k].shape)
        has_rule = self.method == "HP" and k + 2 < len(self.sizes)
        pre, post = np.nonzero(drawn < (2 * DENSITY if has_rule else DENSITY))
        return pre, post, drawn[pre, post] < DENSITY

    def _network(self, task: int, carried: bool = False) -> tuple[Any, list[tuple[Any, Any, Any]]]:
        """Return the network of a task, and its synapses layer by layer; ``carried``: hebb outlives a show."""
        import numpy as np

        graphs = importlib.import_module("neurons.graph")
        lif = importlib.import_module("neurons.lif").LIFUnits(tau_mem_us=20_000.0)
        integrator = importlib.import_module("neurons.leaky_integrator").LeakyIntegratorUnits(tau_mem_us=60_000.0)
        sparse = importlib.import_module("neurons.sparse").Sparse
        dense = importlib.import_module("neurons.dense").Dense
        hebbian = importlib.import_module("plasticity.hebbian").Hebbian
        names = ["input", *(f"hidden{k}" for k in range(1, len(self.sizes) - 1)), "scores"]
        populations = [graphs.Population(names[k], lif, (self.sizes[k],)) for k in range(1, len(self.sizes) - 1)]
        populations.append(graphs.Population("scores", integrator, (N_CLASSES,)))
        projections, synapses, rules = [], [], {}
        for k, weight in enumerate(self.weights):
            if not self.is_masked:
                projections.append(graphs.Projection(names[k], names[k + 1], dense(weight)))
                continue
            pre, post, mine = self._synapses(task, k)
            start = np.zeros(len(weight) + 1, np.int64)
            np.cumsum(np.bincount(pre, minlength=len(weight)), out=start[1:])
            projections.append(graphs.Projection(names[k], names[k + 1], sparse(start, post, weight[pre, post])))
            synapses.append((pre, post, mine))
            if self.method == "HP" and k + 2 < len(self.sizes):
                rules[names[k], names[k + 1]] = hebbian(
                    local_rate=self.rates[k],
                    sliding_threshold=self.sliding[k],
                    mixing=self.theta["mixing"][k],
                    tau_hebb_us=self.theta["tau_hebb_us"][k],
                    hebb_max=4.0,
                    mixed="mask",
                    mask=mine.astype(np.float64),
                )
        graph = graphs.Graph((self.sizes[0],), populations, projections)
        make = importlib.import_module("plasticity.plastic_network").PlasticNetwork
        return make.of(graph, rules=rules, readout="scores", reset_local=not carried), synapses

    def _see(self, network: Any, task: int, events: Any) -> None:
        network.begin(0)
        network.run(_as_task(self.kind, task, self.tasks, events), until_us=SPAN_US)

    def learn(self, task: int, lessons: tuple[list[Any], list[int]], epochs: int, show: Any) -> None:
        """Learn a task, and what of it is to be kept."""
        import numpy as np

        correction = importlib.import_module("plasticity.correction").GlobalCorrection
        network, synapses = self._network(task)
        rate = MASKED_RATE if self.is_masked else DENSE_RATE
        global_ = correction(network, learn=("weights",), weight_rate=rate, longest=1.0)
        shows, labels = lessons
        spans = global_._spans
        anchor = [network._program.weight[span].copy() for span in spans]
        cost = [EWC_STRENGTH * it.reshape(-1).astype(np.float32) for it in self.fisher]
        right = seen = 0
        for epoch in range(epochs):
            order = np.random.default_rng([self.seed, 2, task, epoch]).permutation(len(shows))
            for k in order:
                self._see(network, task, shows[k])
                _, scores = global_.take(labels[k])
                right, seen = right + int(int(np.argmax(scores)) == labels[k]), seen + 1
                if global_.n_summed == BATCH:
                    if self.method == "EWC" and task:
                        for span, here, price in zip(spans, anchor, cost, strict=True):
                            away = network._program.weight[span] - here
                            global_.window.gradients.weight[span] += BATCH * price * away
                    global_.step()
                    show(seen, epochs * len(shows), right / seen)
        learned = global_.learned()
        for k, it in enumerate(learned.projections):
            if self.is_masked:
                pre, post, mine = synapses[k]
                self.weights[k][pre[mine], post[mine]] = it.topology.weight[mine]
            else:
                self.weights[k] = np.asarray(it.topology.weight, np.float64)
        if self.method == "EWC":
            self._add_fisher(task, network, global_, shows, labels)
        if self.method == "HP" and 1 <= task < META_SHARE * self.tasks:
            self._train_rule(task, lessons)
        self.done = task + 1

    def _add_fisher(self, task: int, network: Any, global_: Any, shows: list[Any], labels: list[int]) -> None:
        """Add the mean squared derivative of the loss by each weight."""
        import numpy as np

        n = min(len(shows), 200)
        global_.forget()
        for k in range(n):
            self._see(network, task, shows[k])
            global_.take(labels[k])
            for table, span in zip(self.fisher, global_._spans, strict=True):
                table += np.square(global_.window.gradients.weight[span].reshape(table.shape), dtype=np.float64) / n
            global_.forget()

    def _train_rule(self, task: int, lessons: tuple[list[Any], list[int]]) -> None:
        """Train the rule's parameters on shows of earlier tasks, weights held; as the authors do after each task."""
        import numpy as np

        correction = importlib.import_module("plasticity.correction").GlobalCorrection
        rng = np.random.default_rng([self.seed, 3, task])
        shows, labels = lessons
        for earlier in rng.integers(0, task, 2):
            network, _ = self._network(int(earlier))
            rule = correction(network, learn=("rules",), meta_rate=META_RATE)
            for k in rng.integers(0, len(shows), 2 * BATCH):
                self._see(network, int(earlier), shows[k])
                rule.take(labels[k])
                if rule.n_summed == BATCH:
                    rule.step()
            for meta in rule.metas:
                ends, name = meta.name.split(" ")
                k = 0 if ends.startswith("input") else int(ends.split(">")[0].removeprefix("hidden"))
                if name in self.theta:
                    self.theta[name][k] = float(meta.value[0])
                else:
                    (self.rates if name == "local_rate" else self.sliding)[k] = meta.value.copy()

    # -- asking --------------------------------------------------------------------------------------------------------

    def ask(self, questions: tuple[list[Any], list[int]], is_known: bool = True) -> None:
        """Ask about all tasks so far."""
        import numpy as np

        shows, labels = questions
        each = []
        networks = [self._network(task)[0] for task in range(self.done if self.is_masked else 1)]
        for task in range(self.done):
            network = networks[task if self.is_masked else 0]
            right = 0
            for events, label in zip(shows, labels, strict=True):
                candidates = [network] if is_known else networks
                answers = []
                for candidate in candidates:
                    self._see(candidate, task, events)
                    scores = candidate.averages("scores").reshape(-1)
                    shares = np.exp(scores - scores.max())
                    answers.append((float(shares.max() / shares.sum()), int(np.argmax(scores))))
                right += max(answers)[1] == label
            each.append(right / len(labels))
        row = row_of(self, is_known, each)
        if self.method == "HP" and is_known and self.done == self.tasks:
            row["carried"] = self._ask_carried(questions)
        self.rows.append(row)

    def _ask_carried(self, questions: tuple[list[Any], list[int]]) -> float:
        """Ask as a stream would: the shows of a task one after the other, hebb carried along."""
        import numpy as np

        from stream.packet import Reset

        right = 0
        for task in range(self.done):
            network, _ = self._network(task, carried=True)
            for k, (events, label) in enumerate(zip(*questions, strict=True)):
                network.on_mark("spikes", Reset(k * SPAN_US), lambda port, message: None)
                items = _as_task(self.kind, task, self.tasks, events)
                items["t"] += k * SPAN_US
                network.run(items, until_us=(k + 1) * SPAN_US)
                right += int(np.argmax(network.averages("scores"))) == label
        return right / (self.done * len(questions[1]))


# -- what was found ----------------------------------------------------------------------------------------------------


def _of_job(found: list[dict[str, Any]], job: tuple[int, str]) -> list[dict[str, Any]]:
    return [row for row in found if (row["seed"], row["method"]) == job]


def _series(found: list[dict[str, Any]], method: str, after: int, is_known: bool) -> list[float]:
    return [
        100 * row["right"]
        for row in found
        if row["method"] == method and row["after"] == after and row["task known"] in (is_known, None)
    ]


def _print(found: list[dict[str, Any]], tasks: int) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    columns = _asked_after(tasks)
    title = "right answers, %, mean of all tasks so far (deviation over seeds); tasks learned:"
    table = Table("method", *map(str, columns), f"{tasks}, task unknown", title=title, box=None)
    for method in dict.fromkeys(row["method"] for row in found):
        cells = [_series(found, method, after, True) for after in columns] + [_series(found, method, tasks, False)]
        table.add_row(method, *(f"{np.mean(it):.1f} ({np.std(it):.1f})" if it else "-" for it in cells))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for name, words in (
        ("carried", "in a stream, hebb carried from picture to picture"),
        ("alone", "hebb anew with each picture"),
        ("without rule", "without the rule"),
    ):
        if seen := [100 * row[name] for row in found if name in row]:
            print(f"HP after {tasks} tasks, {words}: {np.mean(seen):.1f} ({np.std(seen):.1f})")


def _draw(path: Path, found: list[dict[str, Any]], tasks: int) -> None:
    """Draw the mean over all tasks so far against their number, with the spread over seeds."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    columns = _asked_after(tasks)
    for color, method in zip(("C0", "C3", "C1", "C7"), METHODS, strict=True):
        known = [(after, _series(found, method, after, True)) for after in columns]
        known = [(after, it) for after, it in known if it]
        if not known:
            continue
        x = [after for after, _ in known]
        middle, spread = (np.array([f(it) for _, it in known]) for f in (np.mean, np.std))
        axes.plot(x, middle, color=color, marker="o", markersize=3, label=method)
        axes.fill_between(x, middle - spread, middle + spread, color=color, alpha=0.15, linewidth=0)
        if unknown := _series(found, method, tasks, False):
            axes.plot(tasks, np.mean(unknown), marker="x", color=color, linestyle="", label=f"{method}, task unknown")
    axes.axhline(100 / N_CLASSES, color="black", linewidth=1, linestyle=":")
    axes.set_xlabel("tasks learned")
    axes.set_ylabel("right answers, mean of these tasks, %")
    axes.set_ylim(0, 100)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
