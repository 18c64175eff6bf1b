"""The command ``hebbstream eval fashion``: the authors' own figures again, and what becomes of them in honest forms.

Network, settings, and what the published code shares between the pictures of a batch: ``plasticity.authors_mlp``. Here
it is trained on Fashion-MNIST and asked about clean pictures and under Gaussian noise of variance 0.01 times the level:

========  =========  ===============================================================================================
trained   asked      whose fast state it is
========  =========  ===============================================================================================
batch     batch      one for a batch of 100, left as the last batch of training left it: the authors' figures
batch     alone      that state again for each picture, which is a batch of its own
batch     in turn    as alone, but carried along from each picture to the next, as a stream would do it
alone     alone      each picture's own, from 0 on, in training too
alone     phases     the same through the operators that run live, in phases (``plasticity.authors_phases``)
alone     stream     the same operators, one stream of pictures: carried along from each to the next
========  =========  ===============================================================================================

The batch is not a stream: it is here to stand on the same ground as the authors before leaving it. ``--damages`` asks
about their other damages as well, their levels i as they count them, a = 0.01 i:

===========  =======================================================================================================
gaussian     noise of variance a
crop         a square in the middle is black, 2 i pixels a side
salt         a share of a of the pixels is white
pepper       a share of 6 a is black
salt+pepper  a share of 2 a is one or the other
speckle      noise of variance 10,000 a times the pixel: what was lit is black or white
===========  =======================================================================================================
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
LEVELS = {
    "gaussian": range(7),
    "crop": range(2, 14, 2),
    "salt": range(2, 16, 2),
    "pepper": range(2, 16, 2),
    "salt+pepper": range(2, 16, 2),
    "speckle": range(2, 16, 2),
}
FORMS = {"batch": ("batch", "alone", "in turn"), "alone": ("alone", "phases", "stream")}
MOST = {"alone": 2000, "in turn": 2000, "phases": 1000, "stream": 1000}  # pictures that are asked one by one


def fashion(
    folder: Annotated[Path, typer.Argument(help="Fashion-MNIST's four IDX files, or MNIST's.")],
    out: Out,
    modes: Annotated[str, typer.Option(help="Some of LP, GP, HP.")] = ",".join(MODES),
    trained: Annotated[str, typer.Option(help="Whose fast state it is in training: batch, alone.")] = "batch",
    damages: Annotated[str, typer.Option(help=f"Some of {', '.join(LEVELS)}.")] = "gaussian",
    epochs: Annotated[int, typer.Option(min=1, help="Times that every picture is seen.")] = 30,
    steps: Annotated[int, typer.Option(min=1, help='Of a picture. The code\'s note: "T = 8 in our paper".')] = 10,
    seeds: Seeds = 1,
    quick: Annotated[bool, typer.Option(help="2,000 pictures, one epoch.")] = False,
    full: Annotated[bool, typer.Option(help="Three seeds, both forms of training, all damages.")] = False,
    as_json: Json = False,
) -> None:
    """Train the authors' network on Fashion-MNIST and ask it under noise."""
    import numpy as np

    from stream.errors import ConfigError

    if full:
        seeds, trained, damages = 3, "batch,alone", ",".join(LEVELS)
    for given, known in ((modes, MODES), (trained, FORMS), (damages, LEVELS)):
        if set(given.split(",")) - set(known):
            raise ConfigError(f"eval fashion: got {given}; wanted some of {', '.join(known)}")
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
    found = [{"damage": "gaussian"} | row for row in read_results(out / "results.json", settings)]
    for seed in range(1, seeds + 1):
        for mode in modes.split(","):
            for form in trained.split(","):
                missing = _missing(found, mode, form, seed, damages.split(","))
                if (mode == "GP" and form == "alone") or not missing:
                    continue
                net = _trained(out / f"{mode}-{form}-{seed}.npz", mode, form, seed, steps, x, y, epochs)
                for damage, level, how in missing:
                    share = _share_right(net, how, _damaged(asked, damage, level, seed), right)
                    row = {"mode": mode, "trained": form, "seed": seed, "clipped": net.clipped}
                    found.append(row | {"damage": damage, "level": level, "asked": how, "right": share})
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


def _missing(
    found: list[dict[str, Any]], mode: str, form: str, seed: int, damages: list[str]
) -> list[tuple[str, int, str]]:
    """List what a network has still to be asked: damage, level, and how."""
    has = {
        (row["damage"], row["level"], row["asked"])
        for row in found
        if (row["mode"], row["trained"], row["seed"]) == (mode, form, seed)
    }
    ways = [(damage, level, FORMS[form][0]) for damage in damages for level in LEVELS[damage]]
    if "gaussian" in damages and mode != "GP":
        ways += [("gaussian", level, how) for level in (0, 6) for how in FORMS[form][1:]]
    return [way for way in ways if way not in has]


def _damaged(x: Any, damage: str, level: int, seed: int) -> Any:
    """Return pictures of 28 x 28 with a damage; float32 (n, 784), 0 to 1."""
    import numpy as np

    if level == 0:
        return x
    if damage == "crop":
        out = x.copy().reshape(-1, 28, 28)
        out[:, 14 - level : 14 + level, 14 - level : 14 + level] = 0
        return out.reshape(x.shape)
    rng = np.random.default_rng([seed, level, 7 + list(LEVELS).index(damage)])
    if damage == "gaussian":
        return np.clip(x + rng.normal(0, np.sqrt(0.01 * level), x.shape), 0, 1).astype(np.float32)
    if damage == "speckle":
        return np.clip(x + x * rng.normal(0, np.sqrt(100 * level), x.shape), 0, 1).astype(np.float32)
    chance = rng.random(x.shape)
    black, white = {"salt": (0.0, 0.01), "pepper": (0.06, 0.0), "salt+pepper": (0.01, 0.01)}[damage]
    out = np.where(chance < black * level, np.float32(0), x)
    return np.where(chance > 1 - white * level, np.float32(1), out)


def _share_right(net: Any, how: str, x: Any, y: Any) -> float:
    """Ask, in one of the ways of the table above."""
    import numpy as np

    # where no picture tells another anything, a batch gives what each alone would
    in_batches = how == "batch" or (how == "alone" and not net.shared)
    n = len(x) if in_batches else min(len(x), MOST[how])
    x, y = x[:n], y[:n]
    if how in ("phases", "stream"):
        module = importlib.import_module("plasticity.authors_phases")
        scores = module.ask_in_phases(module.in_phases(net, carried=how == "stream"), net, x)
    elif how == "in turn":
        scores = net.ask_in_turn(x)
    else:
        size = 100 if in_batches else 1
        scores = np.concatenate([net.scores(x[k : k + size]) for k in range(0, n, size)])
    return float(np.mean(scores.argmax(1) == y))


def _draw(path: Path, found: list[dict[str, Any]]) -> None:
    """Draw right answers over levels, a panel for each damage; the authors' figures as crosses."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    damages = [name for name in LEVELS if any(row["damage"] == name and row["level"] > 0 for row in found)]
    n_across = min(len(damages), 3)
    n_down = -(-len(damages) // 3)
    figure = Figure(figsize=(5.5, 4.6) if n_across == 1 else (3.6 * n_across, 3.2 * n_down), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(n_down, n_across, squeeze=False, sharey=True).reshape(-1)
    words = {"-": "batch shared", "--": "carried from one to the next", ":": "each its own"}
    for axes, damage in zip(all_axes, damages, strict=False):
        for k, mode in enumerate(MODES):
            for (form, asked), style in (
                (("batch", "batch"), "-"),
                (("batch", "in turn"), "--"),
                (("alone", "alone"), ":"),
            ):
                rows = [
                    row
                    for row in found
                    if (row["mode"], row["trained"], row["asked"]) == (mode, form, asked)
                    and (row["damage"] == damage or row["level"] == 0)
                ]
                levels = sorted({row["level"] for row in rows})
                if not levels or levels == [0]:
                    continue
                cells = [[100 * row["right"] for row in rows if row["level"] == level] for level in levels]
                middle, spread = np.array([np.mean(it) for it in cells]), np.array([np.std(it) for it in cells])
                label = f"{mode}, {words[style]}"
                axes.plot(levels, middle, style, color=f"C{k}", marker="o", markersize=3, label=label)
                axes.fill_between(levels, middle - spread, middle + spread, color=f"C{k}", alpha=0.12, linewidth=0)
            for level in (0, 6) if damage == "gaussian" else ():
                axes.plot([level], [AUTHORS[mode, level]], "x", color=f"C{k}")
        axes.set_ylim(0, 100)
        axes.set_xlabel("Gaussian noise; crosses: the authors" if damage == "gaussian" else damage)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    all_axes[0].set_ylabel("right answers, %")
    figure.legend(
        *all_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(n_across + 1, 3), fontsize=8
    )
    for axes in all_axes[len(damages) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def _print(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for damage in dict.fromkeys(row["damage"] for row in found):
        levels = LEVELS[damage]
        table = Table("method", "trained", "asked", *(str(level) for level in levels), box=None)
        table.title = f"right answers, %, by level of damage: {damage}"
        if damage == "gaussian":
            table.title += " (variance x 100); in brackets the authors'"
        for mode, form, asked in dict.fromkeys((row["mode"], row["trained"], row["asked"]) for row in found):
            cells = []
            for level in levels:
                mine = [
                    100 * row["right"]
                    for row in found
                    if (row["mode"], row["trained"], row["asked"]) == (mode, form, asked)
                    and (row["damage"], row["level"]) == (damage, level)
                ]
                is_theirs = damage == "gaussian" and asked == "batch" and (mode, level) in AUTHORS
                theirs = f" [{AUTHORS[mode, level]}]" if is_theirs else ""
                cells.append(f"{sum(mine) / len(mine):.1f}{theirs}" if mine else "")
            if any(cells):
                table.add_row(mode, form, asked, *cells)
        Console(width=None if sys.stdout.isatty() else 140).print(table, markup=False)
