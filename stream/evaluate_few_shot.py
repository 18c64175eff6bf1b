"""The command ``hebbstream eval few-shot``: classes that were never seen, taught by one show or a few.

Pictures of drawn characters (Omniglot) are seen by the simulated camera, event by event. Characters are split once:
some for meta-learning, others, disjoint, for the examination. An episode takes some characters, teaches each by one or
five shows and asks about other shows of the same ones. Shows run through the operator that runs live
(``plasticity.plastic_network``), in one stream; teaching is its Hebbian rule, and each class scales what it hears by
the length of its own column (``plasticity.meta_episode``).

==============  ========================================================================================
method          what is learned
==============  ========================================================================================
HP              weights and the rule, bi-level, with the second-order term (``plasticity.meta``)
HP first order  the same without that term
HP fixed rule   weights; the rule stays where it began
LP              nothing: the trunk as it begins (``plasticity.meta_start``), the rule as it begins
GP              the trunk of HP first order, no local plasticity: a label has no way into the weights
GP per episode  the same trunk; the readout is trained by the global correction on each episode's supports
==============  ========================================================================================

Everything found so far is in ``OUT/results.json``, and meta-learning is kept every few rounds; the same command goes on
where it was interrupted, with the same bits. What was learned is in ``OUT/METHOD-SEED.safetensors``, a network that a
pipeline can run and a person can teach (``plasticity.network_learner.NetworkLearner`` with ``teach``).
"""

import importlib
import itertools
import json
import math
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from stream.evaluation import Json, On, Out, Seeds, chosen, each, read_results, write_results
from stream.train import bar

__all__ = ["few_shot"]

METHODS = ("HP", "HP first order", "HP fixed rule", "LP", "GP", "GP per episode")
SIDE = 28  # pixels
SPAN_US = 80_000  # two saccades of 30 ms, and what is on its way
KEPT_EVERY = 10  # rounds
TRAINING_EPISODES = 4  # steps of w before one of theta
LESSON_QUERIES = 2  # of each class
TEST_SHARE = 0.25  # of the characters
MOST_TURN, MOST_STRETCH, MOST_SHIFT = 0.15, 0.1, 1.5  # radians, share, pixels: how lessons are varied
GP_PASSES, GP_RATE = 20, 0.05  # of the readout trained per episode


class Task(NamedTuple):
    """An examination."""

    name: str
    ways: int
    shots: int
    episodes: int
    queries: int  # of each class


TASKS = (
    Task("5-way 1-shot", 5, 1, 100, 2),
    Task("5-way 5-shot", 5, 5, 50, 2),
    Task("20-way 1-shot", 20, 1, 25, 2),
)


def few_shot(
    folder: Annotated[
        Path, typer.Argument(help="Pictures ALPHABET/CHARACTER/PICTURE.png, or Omniglot's .zip files of them.")
    ],
    out: Out,
    methods: Annotated[str, typer.Option(help=f"Some of {', '.join(METHODS)}.")] = ",".join(METHODS),
    seeds: Seeds = 3,
    rounds: Annotated[int, typer.Option(min=0, help="Rounds of meta-learning: four lessons, one examination.")] = 400,
    ways: Annotated[int, typer.Option(min=2, help="Classes of a lesson.")] = 20,
    length: Annotated[float, typer.Option(min=0, help="Columns of classes are scaled to, spikes; 0: not.")] = 20.0,
    turned: Annotated[bool, typer.Option(help="Learn from characters turned by 90, 180, 270 degrees too.")] = True,
    quick: Annotated[bool, typer.Option(help="One seed, 20 rounds, a tenth of the questions.")] = False,
    full: Annotated[bool, typer.Option(help="Five seeds, 30,000 rounds: days.")] = False,
    on: On = "",
    as_json: Json = False,
) -> None:
    """Meta-learn on some characters, then teach others by a show or a few."""
    wanted = chosen("--methods", methods, METHODS)
    if full:
        seeds, rounds = 5, 30_000
    if quick:
        seeds, rounds = 1, min(rounds, 20)
    out.mkdir(parents=True, exist_ok=True)
    shows = _shows(_pictures(folder, out), out, 4 if turned else 1)
    training, test = _split(sorted({name for name, _ in shows}))
    tasks = [it._replace(episodes=max(1, it.episodes // 10)) if quick else it for it in TASKS]
    least = min(len(shows[name, 0]) for name in test)
    tasks = [it for it in tasks if it.ways <= len(test) and it.shots + it.queries <= least]
    settings: dict[str, Any] = {"characters": len(training), "test_characters": len(test), "turned": turned}
    settings |= {"rounds": rounds, "ways": ways, "quick": quick, "length": length}
    found = read_results(out / "results.json", settings)

    def study(job: tuple[int, str]) -> list[dict[str, Any]]:
        seed, method = job
        pupil = _trained(method, seed, shows, training, ways, rounds, out, length)
        return [
            {
                "seed": seed,
                "method": method,
                "task": task.name,
                "right": _examine(pupil, method, task, shows, test, seed),
            }
            for task in tasks
        ]

    def keep(job: tuple[int, str], rows: list[dict[str, Any]]) -> None:
        found.extend(rows)
        write_results(out / "results.json", settings, found)
        words = ", ".join(f"{row['task']} {100 * row['right']:.1f} %" for row in rows)
        print(f"{job[1]}, seed {job[0]}: {words}", file=sys.stderr, flush=True)

    done = {(row["seed"], row["method"]) for row in found}
    each([job for job in itertools.product(range(1, seeds + 1), wanted) if job not in done], study, keep, on=on)
    _draw(out / "results.png", found, tasks)
    if as_json:
        print(json.dumps({"settings": settings, "results": found}))
        return
    _print(found, tasks)
    print(f"results in {out / 'results.json'}, picture in {out / 'results.png'}")


# -- what is seen ------------------------------------------------------------------------------------------------------


def _pictures(folder: Path, out: Path) -> Path:
    """Return a folder of ALPHABET/CHARACTER/PICTURE; archives are unpacked beside the results, one over the other."""
    from stream.errors import ConfigError

    archives = sorted(folder.glob("*.zip"))
    if not archives:
        return folder
    place = out / "pictures"
    if not place.exists():
        side = out / "pictures.part"
        for path in archives:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    parts = Path(name).parts
                    if name.endswith(".png") and len(parts) >= 3 and ".." not in parts:
                        file = side / Path(*parts[-3:])
                        file.parent.mkdir(parents=True, exist_ok=True)
                        file.write_bytes(archive.read(name))
        if not side.exists():
            raise ConfigError(f"{folder}: no .zip holds pictures ALPHABET/CHARACTER/PICTURE.png")
        side.rename(place)
    return place


def _shows(pictures: Path, out: Path, turns: int) -> dict[tuple[str, int], list[Any]]:
    """Let the camera see every picture, turned by 0 to ``turns - 1`` quarters; returns events by (character, turn)."""
    import numpy as np

    from stream.packet import EVENT_DTYPE, End, Label, Packet

    simulated = importlib.import_module("sources.simulated")
    images = importlib.import_module("sources.scene_images").Images
    shows: dict[tuple[str, int], list[Any]] = {}
    for turn in range(turns):
        path = out / f"shows-{turn}.npz"
        if not path.exists():
            camera = simulated.SimulatedCamera(
                scene="images",
                path=str(pictures),
                # white strokes on black; two saccades at right angles, so that no direction of strokes stays unseen
                images=images(
                    passes=1,
                    invert=True,
                    size=1.0,
                    saccade_us=30_000,
                    reach=4 / 34,
                    corners=((-0.5, 0.0), (0.0, 0.5), (0.5, 0.0)),
                    turns=turn,
                ),
                width=SIDE,
                height=SIDE,
                seed=1 + turn,
                gap_us=0,
                step_us=2000,
                threshold_on=0.8,
                threshold_off=0.8,
                shot_noise_hz=0.1,
            )
            parts: list[Any] = []
            all_events, ends, names = [], [], []
            with bar("pictures before the camera") as show:
                while not isinstance(message := camera.poll(1 << 20), End):
                    if isinstance(message, Packet):
                        parts.append(message.items.copy())
                    elif isinstance(message, Label):
                        events = np.concatenate([np.empty(0, EVENT_DTYPE), *parts])
                        events["t"] -= message.start_us
                        all_events.append(events)
                        ends.append(len(events))
                        names.append(camera.class_names[message.label])
                        parts = []
                        show(turn + 1, len(ends), 0, 0.0)
            camera.close()
            side = path.with_suffix(".part.npz")
            np.savez(side, events=np.concatenate(all_events), end=np.cumsum(ends), name=np.array(names))
            side.replace(path)
        with np.load(path) as kept:
            events, ends, names = kept["events"], kept["end"].tolist(), kept["name"].tolist()
        for first, end, name in zip([0, *ends[:-1]], ends, names, strict=True):
            shows.setdefault((name, turn), []).append(events[first:end])
    return shows


def _split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split characters for meta-learning and examination; the same whatever the seed of a run."""
    import numpy as np

    from stream.errors import ConfigError

    order = np.random.default_rng(0).permutation(len(names))
    n_test = round(TEST_SHARE * len(names))
    if n_test < 5 or len(names) - n_test < 5:
        raise ConfigError(f"{len(names)} characters: wanted 20 or more, to learn from some and ask about others")
    return [names[k] for k in order[n_test:]], [names[k] for k in order[:n_test]]


def _varied(rng: Any, events: Any) -> Any:
    """Turn, stretch, shear and shift a show a little; what leaves the sensor is lost."""
    import numpy as np

    angle = rng.uniform(-MOST_TURN, MOST_TURN)
    stretch, shear = rng.uniform(-MOST_STRETCH, MOST_STRETCH, 2), rng.uniform(-MOST_STRETCH, MOST_STRETCH)
    shift, middle = rng.uniform(-MOST_SHIFT, MOST_SHIFT, 2), (SIDE - 1) / 2
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    table = turn @ np.array([[1 + stretch[0], shear], [0.0, 1 + stretch[1]]])
    at = np.stack([events["x"], events["y"]]).astype(np.float64) - middle
    x, y = np.rint(table @ at + middle + shift[:, None])
    inside = (x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE)
    moved = events[inside].copy()
    moved["x"], moved["y"] = x[inside], y[inside]
    return moved


def _episode(
    rng: Any, shows: dict[tuple[str, int], list[Any]], names: Sequence[str], task: Task, turns: int, is_varied: bool
) -> Any:
    """Draw characters, and shows of each to teach and to ask about."""
    module = importlib.import_module("plasticity.meta_episode")
    supports: list[Any] = []
    queries: list[Any] = []
    for label, k in enumerate(rng.choice(len(names) * turns, task.ways, replace=False)):
        pool = shows[names[k % len(names)], k // len(names)]
        for place, i in enumerate(rng.choice(len(pool), task.shots + task.queries, replace=False)):
            events = _varied(rng, pool[i]) if is_varied else pool[i]
            (supports if place < task.shots else queries).append(module.Show(events, label))
    return module.Episode(supports, queries, task.ways)


# -- what learns -------------------------------------------------------------------------------------------------------


def _start(seed: int, shows: dict[tuple[str, int], list[Any]], training: Sequence[str], ways: int) -> Any:
    """Return the network that meta-learning begins with; a trunk whose features fire about 100 times a show."""
    import numpy as np

    start = importlib.import_module("plasticity.meta_start")
    edges, shapes = start.oriented_filters(8, seed, 0.8), start.mixed_filters(16, 64, seed, 1.2)
    trunk = start.episode_graph((SIDE, SIDE), edges, shapes)
    rng = np.random.default_rng([seed, 1])
    some, labels = [], []
    for number, key in enumerate((name, turn) for name, turn in sorted(shows) if name in set(training)):
        for k in rng.permutation(len(shows[key]))[:5]:
            some.append(shows[key][k])
            labels.append(number)
    counts = start.spike_counts(trunk, "shapes", some)
    features = start.discriminant(counts, np.array(labels), trunk.populations[1].shape, 64)
    features *= 4.0 / np.abs(counts[:: max(1, len(counts) // 500)] @ features).mean()
    return start.episode_graph((SIDE, SIDE), edges, shapes, features, max(ways, max(it.ways for it in TASKS)))


def _trained(
    method: str,
    seed: int,
    shows: dict[tuple[str, int], list[Any]],
    training: Sequence[str],
    ways: int,
    rounds: int,
    out: Path,
    length: float = 20.0,
) -> Any:
    """Return what has been meta-learned by a method; goes on from what was kept."""
    import numpy as np

    module = importlib.import_module("plasticity.meta")
    episodes = importlib.import_module("plasticity.meta_episode")
    pupil = episodes.EpisodeNetwork(_start(seed, shows, training, ways), span_us=SPAN_US, length=length)
    if method == "LP":
        return pupil
    name = "HP first order" if method.startswith("GP") else method  # GP is asked with its trunk
    learner = module.MetaLearner(
        pupil, second_order=name == "HP", learns_rule=name != "HP fixed rule", weight_rate=3e-3, theta_rate=1e-2
    )
    path = out / f"{name.replace(' ', '-')}-{seed}.npz"
    done, log = 0, []
    if path.exists():
        with np.load(path) as kept:
            arrays = dict(kept)
        done, log = int(arrays.pop("rounds")), arrays.pop("log").tolist()
        learner.restore(arrays)
    turns = 1 + max(turn for _, turn in shows)
    task = Task("lesson", min(ways, len(training)), 1, 1, LESSON_QUERIES)
    with bar() as show:
        while done < rounds:
            rng = np.random.default_rng([seed, 2, done])
            lessons = [_episode(rng, shows, training, task, turns, True) for _ in range(TRAINING_EPISODES + 1)]
            outcome = learner.learn(lessons[:-1], lessons[-1])
            log.append([outcome.loss, outcome.right])
            done += 1
            show(1, done, rounds, float(np.mean([right for _, right in log[-20:]])))
            if done % KEPT_EVERY == 0 or done == rounds:
                side = path.with_suffix(".part.npz")
                np.savez(side, rounds=np.array(done), log=np.array(log), **learner.snapshot())
                side.replace(path)
    importlib.import_module("neurons.graph_file").save_graph(path.with_suffix(".safetensors"), pupil.learned())
    return pupil


def _examine(
    pupil: Any, method: str, task: Task, shows: dict[tuple[str, int], list[Any]], test: Sequence[str], seed: int
) -> float:
    """Return the share of right answers."""
    import numpy as np

    right, n = 0, 0
    for number in range(task.episodes):
        episode = _episode(np.random.default_rng([seed, 3, number]), shows, test, task, 1, False)
        if method == "GP":  # what HP does, without the local rule: supports leave no trace
            scores = pupil.run(episode._replace(supports=[]))
        elif method == "GP per episode":
            scores = _globally_taught(pupil, episode)
        else:
            scores = pupil.run(episode)
        for answer, query in zip(scores, episode.queries, strict=True):
            right += int(np.argmax(answer)) == query.label
            n += 1
    return right / n


def _globally_taught(pupil: Any, episode: Any) -> list[Any]:
    """Train a readout of the features on the supports by the global correction; returns its scores for the queries."""
    import numpy as np

    graphs = importlib.import_module("neurons.graph")
    plastic = importlib.import_module("plasticity.plastic_network")
    make = importlib.import_module("plasticity.correction").GlobalCorrection
    trunk, network = pupil.network, pupil.network.graph
    n = next(it.shape[0] for it in network.populations if it.name == "features")
    scores = next(it for it in network.populations if it.name == pupil.readout)._replace(shape=(episode.ways,))
    dense = importlib.import_module("neurons.dense").Dense(np.zeros((n, episode.ways)))
    head = plastic.PlasticNetwork.of(
        graphs.Graph((n,), [scores], [graphs.Projection("input", scores.name, dense)]), readout=scores.name
    )
    correction = make(head, learn=("weights",), weight_rate=GP_RATE)

    def features(items: Any) -> Any:
        trunk.begin(0)
        return trunk.run(items, until_us=pupil.span_us)["features"]

    def ask(spikes: Any) -> None:
        head.begin(0)
        head.run(spikes, until_us=pupil.span_us)

    seen = [(features(it.items), it.label) for it in episode.supports]
    for _ in range(GP_PASSES):
        for spikes, label in seen:
            ask(spikes)
            correction.take(label)
        correction.step()
    answers = []
    for it in episode.queries:
        ask(features(it.items))
        answers.append(correction.scores())
    return answers


# -- what was found ----------------------------------------------------------------------------------------------------


def _cell(found: list[dict[str, Any]], method: str, task: str) -> list[float]:
    return [100 * row["right"] for row in found if row["method"] == method and row["task"] == task]


def _print(found: list[dict[str, Any]], tasks: Sequence[Task]) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    table = Table("method", *(it.name for it in tasks), title="right answers, %: mean (deviation over seeds)", box=None)
    for method in dict.fromkeys(row["method"] for row in found):
        cells = [_cell(found, method, it.name) for it in tasks]
        table.add_row(method, *(f"{np.mean(it):.1f} ({np.std(it):.1f})" if it else "-" for it in cells))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _draw(path: Path, found: list[dict[str, Any]], tasks: Sequence[Task]) -> None:
    """Draw a bar for each method and task, with the spread over seeds and chance as a line."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    methods = [name for name in METHODS if any(row["method"] == name for row in found)]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    wide = 0.8 / max(len(methods), 1)
    for m, method in enumerate(methods):
        cells = [_cell(found, method, it.name) or [math.nan] for it in tasks]
        at = np.arange(len(tasks)) + (m - (len(methods) - 1) / 2) * wide
        axes.bar(at, [np.mean(it) for it in cells], wide, yerr=[np.std(it) for it in cells], label=method, capsize=2)
    for k, task in enumerate(tasks):
        axes.hlines(100 / task.ways, k - 0.45, k + 0.45, color="black", linewidth=1, linestyle=":")
    axes.set_xticks(range(len(tasks)), [it.name for it in tasks])
    axes.set_ylim(0, 100)
    axes.set_ylabel("right answers, %  (dots: chance)")
    axes.legend(fontsize=7, ncols=3)
    figure.savefig(path, dpi=110)
