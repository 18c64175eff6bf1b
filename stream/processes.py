"""Who starts the processes of a run: this machine, or (``stream.cluster``) an engine that spreads them over many."""

import contextlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from stream.node import Command, Pass, Report
from stream.run_folder import RunFolder

__all__ = ["Engine", "LocalEngine", "LocalProcess", "NodeProcess", "Reports"]


class NodeProcess(ABC):
    """A node's process as its supervisor sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.has_spoken = self.is_gone = False
        self.heard_s = self.worked_s = time.monotonic()  # last word of any kind; last word from between two messages

    @property
    @abstractmethod
    def pid(self) -> int:
        """Number of the process on its machine."""

    @abstractmethod
    def tell(self, command: Command) -> None:
        """Send a command; a node that is gone is noticed by its report of None."""

    @abstractmethod
    def exit_code(self, timeout_s: float) -> int | None:
        """Wait for the end of a process that reports no more; None if nobody knows how it ended."""

    @abstractmethod
    def last_words(self) -> str:
        """Return the end of what the process wrote to its standard error."""

    @abstractmethod
    def kill(self) -> None:
        """End the process at once."""

    @abstractmethod
    def end(self, deadline_s: float) -> None:
        """Wait for the process until a deadline, then kill it."""


class LocalProcess(NodeProcess):
    """A process of this machine, at the other end of a pipe."""

    def __init__(self, name: str, reports: "Reports", lock: int = -1) -> None:
        super().__init__(name)
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        # -P: the working directory must not shadow an installed package
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "stream.node", name],  # the name is for whoever looks at a list of processes
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            pass_fds=() if lock < 0 else (lock,),
            process_group=0,  # a Ctrl-C in the terminal goes to the supervisor alone, from the first moment on
        )
        self._listener = threading.Thread(target=self._listen, args=(reports,), daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self.popen.pid

    def tell(self, command: Command) -> None:
        """Send a command."""
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self.popen.stdin.write(msgspec.json.encode(command) + b"\n")
            self.popen.stdin.flush()

    def exit_code(self, timeout_s: float) -> int | None:
        """Wait for the end."""
        return self.popen.wait(timeout_s)

    def last_words(self) -> str:
        """Return the end of its standard error."""
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()[-2000:]

    def kill(self) -> None:
        """End the process at once."""
        self.popen.kill()
        self.end(0.0)

    def end(self, deadline_s: float) -> None:
        """Wait for the process until a deadline, then kill it."""
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        try:
            self.popen.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._listener.join(5.0)
        self.errors.close()

    def _listen(self, reports: "Reports") -> None:
        assert self.popen.stdout is not None
        decoder = msgspec.json.Decoder(Report)
        with self.popen.stdout:
            for line in self.popen.stdout:
                with contextlib.suppress(msgspec.DecodeError):  # a last line that was torn off
                    reports.put((self, decoder.decode(line)))
        reports.put((self, None))


Reports: TypeAlias = "queue.SimpleQueue[tuple[NodeProcess, Report | None]]"
"""What all nodes report, with who does; None: it reports no more."""


class Engine(ABC):
    """Who starts the processes of a run, and says how they reach each other."""

    @abstractmethod
    def start(self, name: str, reports: Reports) -> NodeProcess:
        """Start a node's process."""

    @abstractmethod
    def endpoint(self, name: str, number: int) -> str:
        """Say where a node is to listen; ``number`` has never been given before."""

    @abstractmethod
    def keys(self, name: str) -> Pass | None:
        """Return a node's keys; None if nobody but the nodes can reach what they listen at."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""


class LocalEngine(Engine):
    """Processes of this machine; edges are files of their owner's or on the loopback address."""

    def __init__(self, transport: str, folder: RunFolder | None) -> None:
        self._transport, self._lock = transport, folder.lock if folder is not None else -1
        self._scratch = folder.scratch() if folder is not None else Path(tempfile.mkdtemp(prefix="hebbstream-"))

    def start(self, name: str, reports: Reports) -> NodeProcess:
        """Start a process."""
        self._scratch.mkdir(exist_ok=True)  # the last node of the generation before may have taken it away
        return LocalProcess(name, reports, self._lock)

    def endpoint(self, name: str, number: int) -> str:
        """Say where to listen."""
        del name
        self._scratch.mkdir(exist_ok=True)
        return f"ipc://{self._scratch}/{number}" if self._transport == "ipc" else "tcp://127.0.0.1:*"

    def keys(self, name: str) -> Pass | None:
        """Nobody else can reach these edges."""
        del name
        return None

    def close(self) -> None:
        """Remove the folder of the sockets."""
        shutil.rmtree(self._scratch, ignore_errors=True)
