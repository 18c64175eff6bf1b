"""What the commands of ``hebbstream eval`` share: results that are kept, and gone on from.

``OUT/results.json`` holds ``settings``, which must be the same to go on, and ``results``, one object for each figure.

A study is a list of *jobs*, a training and an examination each, that do not know of each other: :func:`each` does them
one after the other, or all at once on the workers of a cluster (``stream.cluster``), to the same results. There ``OUT``
and the recordings have to lie where all machines find them.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

__all__ = [
    "Batch",
    "Cool",
    "Hidden",
    "Json",
    "Limit",
    "On",
    "Out",
    "Seeds",
    "Sensor",
    "Threads",
    "chosen",
    "each",
    "read_results",
    "write_results",
]

Job = TypeVar("Job")
Rows: TypeAlias = list[dict[str, Any]]
# options that mean the same in every study
Out: TypeAlias = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for all that is made and found; go on from what it holds.")
]
Seeds: TypeAlias = Annotated[
    int, typer.Option(min=1, help="How many times, each with other first weights, order and chance.")
]
Batch: TypeAlias = Annotated[int, typer.Option(min=1, help="Recordings between two steps.")]
Cool: TypeAlias = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Last share of all steps, over which the rates fall to 0.")
]
Hidden: TypeAlias = Annotated[str, typer.Option(help="Units of hidden layers, such as 512 or 512,128.")]
Sensor: TypeAlias = Annotated[str, typer.Option(help="Sensor's size, such as 34x34.")]
Limit: TypeAlias = Annotated[int | None, typer.Option(help="Use so many recordings of each folder, all labels alike.")]
Threads: TypeAlias = Annotated[int, typer.Option(min=0, help="0: one for each core. Does not change the result.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
On: TypeAlias = Annotated[
    str, typer.Option("--on", help="Spread the study over a cluster: 'ray', 'ray://HEAD' (extra 'cluster').")
]


def chosen(option: str, words: str, known: Sequence[str]) -> list[str]:
    """Read a list of names, such as ``GP,LP``; ConfigError if one is not known."""
    from stream.errors import ConfigError

    wanted = words.split(",")
    if unknown := [name for name in wanted if name not in known]:
        raise ConfigError(f"{option} {','.join(unknown)}: wanted some of {', '.join(known)}")
    return wanted


def each(jobs: Sequence[Job], work: Callable[[Job], Rows], keep: Callable[[Job, Rows], None], *, on: str = "") -> None:
    """Do all jobs; what comes of them is kept in their order.

    Parameters
    ----------
    jobs
        What is not done yet.
    work
        Does one job; on a cluster in another process, and again elsewhere if its machine is lost.
    keep
        Takes a job and what came of it, here.
    on
        As for ``stream.cluster.join``; "" does them here, one after the other.
    """
    if not on:
        for job in jobs:
            keep(job, work(job))
        return
    from stream.cluster import join

    ray = join(on)
    # as an object: Ray takes functions up to some size only, and a study's may hold all that is shown
    kept, do = ray.put(work), ray.remote(num_cpus=1, max_retries=4)(_do)
    done = [do.remote(kept, job, os.getcwd()) for job in jobs]
    for job, rows in zip(jobs, done, strict=True):
        try:
            found = ray.get(rows)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        keep(job, found)


def _do(work: Callable[[Job], Rows], job: Job, folder: str) -> Rows:
    """Do a job on a worker."""
    from stream.cluster import begin_at

    begin_at(folder)
    return work(job)


def read_results(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was found so far; ConfigError if it was found, or is being looked for, with other settings.

    The settings are written down at once: what a study makes on its way to its first result is no other study's.
    """
    from stream.errors import ConfigError

    if not path.exists():
        write_results(path, settings, [])
        return []
    kept = json.loads(path.read_text())
    if kept["settings"] != settings:
        if not kept["results"] and list(path.parent.iterdir()) == [path]:  # nothing was begun
            write_results(path, settings, [])
            return []
        raise ConfigError(f"{path}: holds results of {kept['settings']}, wanted {settings}; give another --out")
    results: list[dict[str, Any]] = kept["results"]
    return results


def write_results(path: Path, settings: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Write what was found so far, whole or not at all."""
    side = path.with_suffix(".part")
    side.write_text(json.dumps({"settings": settings, "results": found}, indent=1) + "\n")
    side.replace(path)
