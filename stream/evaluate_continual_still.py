"""``hebbstream eval continual --kind still``: the authors' own setting, pictures at three steps instead of events.

Network, rule and figures: ``plasticity.authors_tasks``. A picture is asked about in a batch of 100, whose ``hebb`` it
shares, as the authors do it. After the last task HP is also asked as a stream would have it: in the operators that run
live, ``hebb`` carried from picture to picture (``plasticity.authors_phases``), or anew with each; and without its rule.
``spaced`` is what a method answers right, in batches, of the pictures that the carried ``hebb`` is asked about.
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["StillRun", "pictures", "row_of"]

BATCH = 100  # theirs
META_SHARE = 0.7  # of the tasks after which the rule is trained: theirs, 35 of 50
# pictures a task that are asked one by one, in a stream, or under all masks; batches that EWC weighs by (theirs: all)
MOST_ALONE, MOST_CARRIED, MOST_UNKNOWN, MOST_FISHER = 200, 2000, 1000, 100


def pictures(images: Path, n: int) -> tuple[Any, Any]:
    """Return n pictures of an IDX file, float32 (n, 784), 0 to 1, and their labels, int64 (n,)."""
    import numpy as np

    from stream.errors import ConfigError

    read = importlib.import_module("sources.scene_images").read_idx
    if n < BATCH:
        raise ConfigError(f"eval continual --kind still: got {n} pictures, wanted {BATCH} or more, which share hebb")
    x = read(images)[:n]
    labels = images.with_name(images.name.replace("images-idx3", "labels-idx1"))
    if not labels.exists():
        raise ConfigError(f"eval continual: no labels beside {images}; wanted {labels.name} there")
    return x.reshape(len(x), -1).astype(np.float32) / 255, read(labels)[:n].astype(np.int64)


class StillRun:
    """One method with one seed: weights of all tasks, and what was found so far."""

    def __init__(self, method: str, seed: int, tasks: int, hidden: tuple[int, ...], out: Path) -> None:
        import numpy as np

        from stream.errors import ConfigError

        if len(hidden) != 2:
            raise ConfigError(f"eval continual --kind still --hidden: got {len(hidden)} layers; the authors' has two")
        module = importlib.import_module("plasticity.authors_tasks")
        settings = module.Settings(sizes=(784, *hidden, 10))
        self.method, self.seed, self.tasks = method, seed, tasks
        self.network = module.TaskNetwork(method, seed, settings)
        self.is_masked = self.network.is_masked
        self.done = 0
        self.rows: list[dict[str, Any]] = []
        self._path = out / f"{method}-{seed}.npz"
        if self._path.exists():
            with np.load(self._path) as kept:
                for name, value in self.network.values.items():
                    value[...] = kept[name]
                self.network.n_steps = json.loads(str(kept["moments"]))
                for name in self.network.n_steps:
                    self.network.moments[name] = module.AdamState(kept[f"{name}.mean"], kept[f"{name}.variance"])
                self.done, self.rows = int(kept["done"]), json.loads(str(kept["rows"]))

    def keep(self) -> None:
        """Write everything down."""
        import numpy as np

        arrays: dict[str, Any] = {"done": np.array(self.done), "rows": np.array(json.dumps(self.rows))}
        arrays |= self.network.values
        steps = {name: n for name, n in self.network.n_steps.items() if not name.startswith("w")}
        arrays["moments"] = np.array(json.dumps(steps))
        for name in steps:
            state = self.network.moments[name]
            arrays |= {f"{name}.mean": state.mean, f"{name}.variance": state.variance}
        side = self._path.with_suffix(".part.npz")
        np.savez(side, **arrays)
        os.replace(side, self._path)

    def learn(self, task: int, lessons: tuple[Any, Any], epochs: int, show: Any) -> None:
        """Learn a task, then what is to be kept of it."""
        import numpy as np

        x, labels = lessons
        seen_as, n_batches = _pixels(task), len(x) // BATCH
        self.network.begin(task)
        right = 0
        for epoch in range(epochs):
            order = np.random.default_rng([self.seed, 2, task, epoch]).permutation(len(x))
            for k in range(n_batches):
                some = order[k * BATCH : (k + 1) * BATCH]
                right += self.network.learn(x[some][:, seen_as], labels[some])
                seen = (epoch * n_batches + k + 1) * BATCH
                show(seen, epochs * n_batches * BATCH, right / seen)
        rng = np.random.default_rng([self.seed, 3, task])
        batches = rng.permutation(len(x))[: n_batches * BATCH].reshape(n_batches, BATCH)
        if self.method == "EWC":
            self.network.remember([x[some][:, seen_as] for some in batches[:MOST_FISHER]])
        if self.method == "HP" and task < META_SHARE * self.tasks:
            tables: dict[int, Any] = {}
            for some in batches:
                earlier = int(rng.integers(task)) if task else 0
                if earlier not in tables:
                    tables[earlier] = self.network.tables(earlier)
                self.network.learn_rule(tables[earlier], x[some][:, _pixels(earlier)], labels[some])
        self.done = task + 1

    def ask(self, questions: tuple[Any, Any], is_known: bool = True) -> None:
        """Ask about all tasks so far."""
        import numpy as np

        x, labels = questions
        if not is_known:
            x, labels = x[:MOST_UNKNOWN], labels[:MOST_UNKNOWN]
        all_tables = [self.network.tables(task) for task in range(self.done if self.is_masked else 1)]
        is_last = is_known and self.done == self.tasks
        some = _spaced(len(x), MOST_CARRIED)
        each: list[float] = []
        more: dict[str, list[float]] = {}
        for task in range(self.done):
            here, mine = x[:, _pixels(task)], all_tables[task if self.is_masked else 0]
            best: Any = None
            for tables in [mine] if is_known else all_tables:
                scores = np.concatenate(
                    [self.network.scores(tables, here[k : k + BATCH]) for k in range(0, len(here), BATCH)]
                )
                answer = scores.argmax(1)
                shares = np.exp(scores - scores.max(1, keepdims=True))
                sure = 1 / shares.sum(1)
                if best is None:
                    best = [sure, answer]
                else:
                    best = [np.maximum(sure, best[0]), np.where(sure > best[0], answer, best[1])]
            each.append(float(np.mean(best[1] == labels)))
            if is_last:
                more.setdefault("spaced", []).append(float(np.mean(best[1][some] == labels[some])))
            if is_last and self.method == "HP":
                for name, right in self._ask_as_stream(task, here, labels).items():
                    more.setdefault(name, []).append(right)
        self.rows.append(row_of(self, is_known, each) | {name: sum(it) / len(it) for name, it in more.items()})

    def _ask_as_stream(self, task: int, x: Any, labels: Any) -> dict[str, float]:
        """Return what a network with a rule answers right of a task whose pictures come one after the other."""
        import numpy as np

        module = importlib.import_module("plasticity.authors_phases")
        tables = self.network.tables(task)
        plain = importlib.import_module("plasticity.authors_tasks").TaskNetwork("GP", self.seed, self.network.settings)
        plain.values |= {name: self.network.values[name] for name in ("w1", "w2", "w3")}
        few, more = _spaced(len(x), MOST_ALONE), _spaced(len(x), MOST_CARRIED)
        network = module.task_in_phases(self.network, task, batch=BATCH)
        scores = {
            "alone": (few, np.concatenate([self.network.scores(tables, x[k : k + 1]) for k in few])),
            "carried": (more, module.ask_task_in_phases(network, self.network, task, x[more])),
            "without rule": (slice(None), plain.scores(tables, x)),
        }
        return {name: float(np.mean(it.argmax(1) == labels[some])) for name, (some, it) in scores.items()}


def _spaced(n: int, most: int) -> Any:
    """Return up to ``most`` of n places, evenly spaced."""
    import numpy as np

    most = min(n, most)
    return np.arange(most) * n // most


def row_of(run: Any, is_known: bool, each: list[float]) -> dict[str, Any]:
    """Return what a run, this one or that on events, answered right of each task so far, as it is kept."""
    return {
        "seed": run.seed,
        "method": run.method,
        "task known": is_known if run.is_masked else None,
        "after": run.done,
        "right": sum(each) / len(each),
        "each": each,
    }


def _pixels(task: int) -> Any:
    """Return which pixel each input sees in a task: all as they are, or NumPy's seed k, as the authors have it."""
    import numpy as np

    order = np.arange(784)
    if task:
        np.random.RandomState(task).shuffle(order)
    return order
