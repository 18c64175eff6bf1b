"""A run directory: what a run leaves behind, and all that it takes to go on with it.

::

    RUN/pipeline.toml    the pipeline file as it was given
    RUN/run.json         what was run: the pipeline after all options, plugins, working directory
    RUN/recordings/      what recorders write whose path is relative
    RUN/snapshots/       the last complete snapshots (``stream.snapshot``)
    RUN/log.jsonl        a line of JSON for each start, snapshot, death, restart and end
    RUN/summary.json     the last summary
    RUN/lock             held by the supervisor and by every node it has started

The directory may lie in any place that fsspec reaches (``stream.places``), which is what a run on several machines
wants; recorders then write beside themselves and bring it there with every snapshot. There is no lock then: mind that
no two supervisors run one directory.

The lock is one open file that nodes inherit: it is free when the last of them is gone, however they went. So a run
that is resumed right after its supervisor was killed waits until nobody of the dead run can write any more.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from stream.errors import ConfigError
from stream.pipeline import Pipeline
from stream.places import is_local, place, write_whole
from stream.snapshot import FINAL, Manifest, latest, read_manifest

__all__ = ["Description", "RunFolder", "create", "reopen"]

RECORDER = "stream.record.Recorder"
SINKS = (RECORDER, "sources.event_writer.FileWriter")  # whose parameter `path` is a file they write
EVERY_US = 10_000_000  # stream time between snapshots, and
KEEP = 3  # how many are kept, unless the pipeline says otherwise
LOCK_PATIENCE_S = 20.0  # the nodes of a dead supervisor are gone within ten


class Description(msgspec.Struct, kw_only=True):
    """What was run."""

    version: int = 1
    pipeline: Pipeline
    plugins: list[str] = []
    processes: bool = True
    folder: str = ""  # the working directory: relative paths begin there


class RunFolder:
    """An open run directory, locked. See :func:`create` and :func:`reopen`."""

    def __init__(self, path: Path, description: Description, lock: int, *, is_new: bool) -> None:
        self.path, self.description, self.lock, self.is_new = path, description, lock, is_new
        self.snapshots = path / "snapshots"

    def begin(self) -> Manifest | None:
        """Return the last complete snapshot that is good; why later ones were refused goes into the log."""
        manifest, refused = latest(self.snapshots)
        for words in refused:
            self.log("snapshot refused", reason=words)
        return manifest

    def final(self) -> Manifest | None:
        """Return what tells that the run has come to its end; None if it has not."""
        try:
            return read_manifest(self.snapshots, FINAL)
        except ConfigError:
            return None

    def log(self, event: str, **fields: Any) -> None:
        """Add a line to the log. A full disk costs the line, not the run."""
        line = msgspec.json.encode({"time": datetime.now(UTC).isoformat(), "event": event, **fields}) + b"\n"
        log = self.path / "log.jsonl"
        with contextlib.suppress(OSError):
            if is_local(log):
                with log.open("ab") as file:
                    file.write(line)
            else:  # an object cannot be added to
                log.write_bytes((log.read_bytes() if log.exists() else b"") + line)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Keep a summary in place of the one before."""
        try:
            write_whole(self.path / "summary.json", msgspec.json.encode(summary, enc_hook=str) + b"\n")
        except OSError as error:
            self.log("summary not written", reason=error.strerror)

    def scratch(self) -> Path:
        """Make a folder for sockets (their paths have to be short), and note it: a dead supervisor cannot remove it."""
        folder = Path(tempfile.mkdtemp(prefix="hebbstream-"))
        if self.lock < 0:
            return folder
        os.ftruncate(self.lock, 0)
        with contextlib.suppress(OSError):
            os.pwrite(self.lock, msgspec.json.encode({"pid": os.getpid(), "scratch": str(folder)}), 0)
        return folder

    def close(self) -> None:
        """Give the lock back. Idempotent."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def create(
    path: str | Path, pipeline: Pipeline, *, plugins: list[str] | None = None, processes: bool = True, text: str = ""
) -> RunFolder:
    """Make a run directory.

    Parameters
    ----------
    path
        Is made if it is not there.
    pipeline
        Changed in place: snapshots and what recorders write with a relative path go into the directory.
    plugins, processes
        As for ``stream.run.run``.
    text
        The pipeline file, for people.

    Raises
    ------
    ConfigError
        The directory holds a run or something else already, or cannot be written, or two recorders have one name.
    """
    path = place(path)
    path = path.absolute() if is_local(path) else path
    if (path / "run.json").exists():
        raise ConfigError(f"run directory {path}: holds a run already; go on with it (--resume), or choose another")
    if path.is_dir() and any(entry.name not in ("lock", "pipeline.toml", "recordings") for entry in path.iterdir()):
        raise ConfigError(f"run directory {path}: holds something else; choose another")
    try:
        (path / "recordings").mkdir(parents=True, exist_ok=True)
        lock = _locked(path, patience_s=0.0) if is_local(path) else -1
    except OSError as error:
        raise ConfigError(f"run directory {path}: cannot be written: {error.strerror}; choose another") from None
    try:
        taken: set[str] = set()
        for operator in pipeline.operator:
            given = str(operator.params.get("path", ""))
            name = Path(given).name
            if operator.kind not in SINKS or "://" in given or given.startswith("$"):
                continue
            if Path(given).expanduser().is_absolute():
                continue
            if name in taken:
                raise ConfigError(f"run directory {path}: two recorders write {name}; give each its own name")
            if operator.kind != RECORDER and not is_local(path):
                raise ConfigError(
                    f"run directory {path}: {operator.kind} writes to files of this machine alone; give it an absolute "
                    f"path, or record to .hbs"
                )
            taken.add(name)
            operator.params["path"] = str(path / "recordings" / name)
        pipeline.snapshots = str(path / "snapshots")
        recovery = pipeline.recovery
        pipeline.recovery = msgspec.structs.replace(
            recovery, snapshot_every_us=recovery.snapshot_every_us or EVERY_US, keep=recovery.keep or KEEP
        )
        description = Description(
            pipeline=pipeline, plugins=plugins or [], processes=processes, folder=str(Path.cwd().absolute())
        )
        write_whole(path / "pipeline.toml", text.encode())
        write_whole(path / "run.json", msgspec.json.format(msgspec.json.encode(description)))
    except BaseException as error:
        if lock >= 0:
            os.close(lock)
        if isinstance(error, OSError):
            raise ConfigError(f"run directory {path}: cannot be written: {error.strerror}; make room") from None
        raise
    return RunFolder(path, description, lock, is_new=True)


def reopen(path: str | Path) -> RunFolder:
    """Open a run directory to go on with its run.

    Raises
    ------
    ConfigError
        There is no run in it, its description is damaged, or somebody is still at it.
    """
    path = place(path)
    path = path.absolute() if is_local(path) else path
    try:
        description = msgspec.json.decode((path / "run.json").read_bytes(), type=Description)
    except OSError as error:
        raise ConfigError(
            f"run directory {path}: holds no run that could be resumed: run.json: {error.strerror}; "
            f"begin one with `hebbstream run PIPELINE.toml --dir {path}`"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"run directory {path}: run.json is damaged: {error}; begin a new run") from None
    description.pipeline.snapshots = str(path / "snapshots")  # the directory may have been moved
    lock = _locked(path, patience_s=LOCK_PATIENCE_S) if is_local(path) else -1
    return RunFolder(path, description, lock, is_new=False)


def _locked(path: Path, *, patience_s: float) -> int:
    """Take the lock; returns its file descriptor."""
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() >= deadline_s:
                who = _holder(lock).get("pid", "unknown")
                os.close(lock)
                raise ConfigError(
                    f"run directory {path}: in use by process {who} or by nodes that it has left behind; stop them, "
                    f"or wait"
                ) from None
            time.sleep(0.05)
    left = Path(str(_holder(lock).get("scratch", "")))
    if left.name.startswith("hebbstream-") and left.parent == Path(tempfile.gettempdir()):
        shutil.rmtree(left, ignore_errors=True)
    return lock


def _holder(lock: int) -> dict[str, Any]:
    """Read what the last holder has noted."""
    with contextlib.suppress(msgspec.DecodeError, OSError):
        noted = msgspec.json.decode(os.pread(lock, 4096, 0))
        return noted if isinstance(noted, dict) else {}
    return {}
