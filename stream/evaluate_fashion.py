"""The command ``hebbstream eval fashion``: the authors' own figures again, and what becomes of them in honest forms.

Network, settings, and what the published code shares between the pictures of a batch: ``plasticity.authors_mlp``. Here
it is trained on Fashion-MNIST and asked under Gaussian noise of variance 0.01 times the level, 0 to 6:

========  =========  ===============================================================================================
trained   asked      whose fast state it is
========  =========  ===============================================================================================
batch     batch      one for a batch of 100, left as the last batch of training left it: the authors' figures
batch     alone      that state again for each picture, which is a batch of its own
batch     in turn    as alone, but carried along from each picture to the next, as a stream would do it
alone     alone      each picture's own, from 0 on, in training too
========  =========  ===============================================================================================

Not a stream and not our operators: it is here to stand on the same ground as the authors before leaving it.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stream.evaluation import Json, Out, Seeds, read_results, write_results
from stream.train import bar

__all__ = ["fashion"]

MODES = ("LP", "GP", "HP")
AUTHORS = {("LP", 0): 75.8, ("GP", 0): 87.9, ("HP", 0): 88.3, ("LP", 6): 69.2, ("GP", 6): 65.5, ("HP", 6): 72.2}
MOST_IN_TURN = 2000  # pictures that are asked one by one: a state is written anew for each


def fashion(
    folder: Annotated[Path, typer.Argument(help="Fashion-MNIST's four IDX files, or MNIST's.")],
    out: Out,
    modes: Annotated[str, typer.Option(help="Some of LP, GP, HP.")] = ",".join(MODES),
    trained: Annotated[str, typer.Option(help="Whose fast state it is in training: batch, alone.")] = "batch",
    epochs: Annotated[int, typer.Option(min=1, help="Times that every picture is seen.")] = 30,
    steps: Annotated[int, typer.Option(min=1, help='Of a picture. The code\'s note: "T = 8 in our paper".')] = 10,
    seeds: Seeds = 1,
    quick: Annotated[bool, typer.Option(help="2,000 pictures, one epoch.")] = False,
    full: Annotated[bool, typer.Option(help="Three seeds, and both forms of training.")] = False,
    as_json: Json = False,
) -> None:
    """Train the authors' network on Fashion-MNIST and ask it under noise."""
    import numpy as np

    from stream.errors import ConfigError

    if full:
        seeds, trained = 3, "batch,alone"
    if set(modes.split(",")) - set(MODES) or set(trained.split(",")) - {"batch", "alone"}:
        raise ConfigError(f"eval fashion: got {modes}, {trained}; wanted some of LP, GP, HP, and of batch, alone")
    read = importlib.import_module("sources.scene_images").read_idx
    parts = []
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        files = sorted(folder.expanduser().glob(f"{name}-ubyte*"))
        if not files:
            raise ConfigError(f"eval fashion: {folder} holds no {name}-ubyte or {name}-ubyte.gz; check the folder")
        values = read(files[0])
        is_images = values.ndim == 3
        parts.append(values.reshape(len(values), -1).astype(np.float32) / 255 if is_images else values.astype(np.int64))
    x, y, asked, right = parts
    if quick:
        x, y, asked, right, epochs = x[:2000], y[:2000], asked[:500], right[:500], 1
    settings = {"pictures": len(x), "asked": len(asked), "epochs": epochs}
    if steps != 10:  # results from before there was a choice go on as they are
        settings["steps"] = steps
    out.mkdir(parents=True, exist_ok=True)
    found = read_results(out / "results.json", settings)
    for seed in range(1, seeds + 1):
        for mode in modes.split(","):
            for form in trained.split(","):
                if (mode == "GP" and form == "alone") or any(
                    (row["mode"], row["trained"], row["seed"]) == (mode, form, seed) for row in found
                ):
                    continue
                net = _trained(out / f"{mode}-{form}-{seed}.npz", mode, form, seed, steps, x, y, epochs)
                found += [
                    {"mode": mode, "trained": form, "seed": seed, "clipped": net.clipped, **row}
                    for row in _asked(net, form, seed, asked, right)
                ]
                write_results(out / "results.json", settings, found)
    _draw(out / "results.png", found)
    if as_json:
        print(json.dumps({"settings": settings, "results": found}))
        return
    _print(found)
    print(f"results in {out / 'results.json'}, picture in {out / 'results.png'}")


def _trained(path: Path, mode: str, form: str, seed: int, steps: int, x: Any, y: Any, epochs: int) -> Any:
    """Train, or go on from the last epoch that a file holds."""
    import numpy as np

    module = importlib.import_module("plasticity.authors_mlp")
    net = module.SharedHebb(mode, seed, shared=form == "batch", settings=module.Settings(steps=steps))
    arrays = {**net.values, "h1": net.h1, "h2": net.h2}
    for name, moments in net._moments.items():
        arrays |= {f"{name}.mean": moments[0], f"{name}.square": moments[1]}
    done = 0
    if path.exists():
        with np.load(path) as kept:
            for name, array in arrays.items():
                array[...] = kept[name]
            done, net._n_steps, net.clipped = (int(number) for number in kept["counts"])
    with bar() as show:
        for epoch in range(done + 1, epochs + 1):
            order = np.random.default_rng([seed, epoch]).permutation(len(x))
            n_right = 0
            for first in range(0, len(x) - len(x) % 100, 100):
                some = order[first : first + 100]
                n_right += net.learn(x[some], y[some])[1]
                show(epoch, first + 100, len(x), n_right / (first + 100))
            arrays |= {"h1": net.h1, "h2": net.h2}
            side = path.with_suffix(".part.npz")
            np.savez(side, counts=np.array([epoch, net._n_steps, net.clipped]), **arrays)
            side.replace(path)
            print(f"{mode}, {form}, seed {seed}: epoch {epoch}, {100 * n_right / len(x):.1f} %", file=sys.stderr)
    return net


def _asked(net: Any, form: str, seed: int, x: Any, y: Any) -> list[dict[str, Any]]:
    import numpy as np

    rows = []
    for level in range(7):
        noise = np.random.default_rng([seed, level, 7]).normal(0, np.sqrt(0.01 * level), x.shape)
        noisy = np.clip(x + noise, 0, 1).astype(np.float32) if level else x
        if form == "batch":
            found = np.concatenate([net.scores(noisy[k : k + 100]) for k in range(0, len(x), 100)]).argmax(1)
            rows.append({"level": level, "asked": "batch", "right": float(np.mean(found == y))})
            if net.mode != "GP" and level in (0, 6):
                few = slice(0, MOST_IN_TURN)
                for name, scores in (
                    ("alone", np.concatenate([net.scores(row[None]) for row in noisy[few]])),
                    ("in turn", net.ask_in_turn(noisy[few])),
                ):
                    rows.append({"level": level, "asked": name, "right": float(np.mean(scores.argmax(1) == y[few]))})
        else:
            found = np.concatenate([net.scores(noisy[k : k + 100]) for k in range(0, len(x), 100)]).argmax(1)
            rows.append({"level": level, "asked": "alone", "right": float(np.mean(found == y))})
    return rows


def _draw(path: Path, found: list[dict[str, Any]]) -> None:
    """Draw right answers over noise: what shares ``hebb`` and what does not, the authors' figures as crosses."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for k, mode in enumerate(MODES):
        for (form, asked), style in (
            (("batch", "batch"), "-"),
            (("batch", "in turn"), "--"),
            (("alone", "alone"), ":"),
        ):
            rows = [row for row in found if (row["mode"], row["trained"], row["asked"]) == (mode, form, asked)]
            levels = sorted({row["level"] for row in rows})
            if not levels:
                continue
            cells = [[100 * row["right"] for row in rows if row["level"] == level] for level in levels]
            middle, spread = np.array([np.mean(it) for it in cells]), np.array([np.std(it) for it in cells])
            words = {"-": "batch shared", "--": "carried from one to the next", ":": "each its own"}[style]
            axes.plot(levels, middle, style, color=f"C{k}", marker="o", markersize=3, label=f"{mode}, {words}")
            axes.fill_between(levels, middle - spread, middle + spread, color=f"C{k}", alpha=0.12, linewidth=0)
        for level in (0, 6):
            axes.plot([level], [AUTHORS[mode, level]], "x", color=f"C{k}")
    axes.set_ylim(0, 100)
    axes.set_xlabel("noise level (variance x 100); crosses: the authors")
    axes.set_ylabel("right answers, %")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def _print(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "trained", "asked", *(str(level) for level in range(7)), box=None)
    table.title = "right answers, %, by noise level (variance x 100); in brackets the authors'"
    for mode, form, asked in dict.fromkeys((row["mode"], row["trained"], row["asked"]) for row in found):
        cells = []
        for level in range(7):
            mine = [
                100 * row["right"]
                for row in found
                if (row["mode"], row["trained"], row["asked"], row["level"]) == (mode, form, asked, level)
            ]
            theirs = f" [{AUTHORS[mode, level]}]" if asked == "batch" and (mode, level) in AUTHORS else ""
            cells.append(f"{sum(mine) / len(mine):.1f}{theirs}" if mine else "")
        table.add_row(mode, form, asked, *cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table, markup=False)
