"""Run a pipeline with the live page beside it: what ``--view`` does, as a Python call.

The page is served by a process of its own (``stream.view``); the run gets taps to be looked at through, and a desk
where keys of the page and of other processes are taken (``stream.desk``).
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stream.desk import Desk
from stream.host import Control, Status
from stream.keys import Keys
from stream.observe import Observer
from stream.pipeline import Pipeline
from stream.run import RunResult, run

__all__ = ["Shown", "make_visible", "page_of", "run_shown"]

LIVE_SOURCES = ("sources.camera.", "sources.udp.", "sources.dv_network.", "sources.aestream_source.", "stream.tap.")


class Shown(NamedTuple):
    """What a run has to be given so that the page works."""

    controls: Callable[[], list[Control]]
    on_status: Callable[[dict[str, Status], str], None]


def make_visible(pipeline: Pipeline) -> None:
    """Let every output of a pipeline be looked at, and let its sources jump, unless they are live."""
    pipeline.taps = tempfile.mkdtemp(prefix="hebbstream-view-")  # only its owner can enter it
    for spec in pipeline.source:
        is_live = spec.kind.startswith(LIVE_SOURCES) or spec.params.get("path") == "-"
        spec.seekable = spec.seekable or not is_live


@contextlib.contextmanager
def page_of(pipeline: Pipeline, keys: Keys, observer: Observer, *, wanted: bool = True) -> Iterator[Shown]:
    """Open a desk for a run that was made visible, and the page in a process of its own; or only the keys."""
    if not wanted or pipeline.taps is None:
        yield Shown(keys, lambda statuses, phase: None)
        return
    folder = Path(pipeline.taps)
    desk = Desk(keys, folder)

    def on_status(statuses: dict[str, Status], phase: str) -> None:
        members = [counts for status in statuses.values() for counts in status.members.values()]
        rooms = [it.get("most classes", it["classes"]) for it in members if "classes" in it]
        desk.n_classes = int(min(rooms, default=0))
        observer.names = desk.names

    pid = str(os.getpid())
    command = [sys.executable, "-P", "-m", "stream", "view", pid, "--any-port", "--until", pid]
    page = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0)
    try:
        yield Shown(desk, on_status)
    finally:
        page.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            page.wait(5)
        page.kill()
        page.wait()
        desk.close()
        shutil.rmtree(folder, ignore_errors=True)


def run_shown(pipeline: Pipeline, **options: Any) -> RunResult:
    """Run a pipeline and show it in a browser; the address is printed.

    Parameters
    ----------
    pipeline
        Gets taps: changed in place.
    **options
        As for ``stream.run.run``, but ``controls`` and ``on_status``.
    """
    make_visible(pipeline)
    observer = Observer(pipeline)
    with observer, Keys(pipeline) as keys, page_of(pipeline, keys, observer) as shown:

        def on_status(statuses: dict[str, Status], phase: str) -> None:
            observer(statuses, phase)
            shown.on_status(statuses, phase)

        return run(pipeline, controls=shown.controls, on_status=on_status, **options)
