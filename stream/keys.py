"""Keys of the terminal while a pipeline runs, as controls of its sources.

::

    space   pause, and go on          .   one packet or mark while paused
    + -     twice as fast, half       m   as fast as possible, and back
    > <     10 s on, 10 s back        0   to the beginning
    l       for ever, and once        r   record what the sources give, and stop that
"""

import contextlib
import os
import select
import sys
import time
from typing import Any

from stream.host import Control
from stream.pipeline import Pipeline

__all__ = ["HELP", "Keys"]

HELP = "space pause · . step · + - pace · m max · < > 10 s · 0 beginning · l loop · r record · Ctrl-C stops"
_JUMP_US = 10_000_000


class Keys:
    """Read keys without waiting; does nothing where the input is no terminal.

    Parameters
    ----------
    pipeline
        Its first source's pace is what ``+`` and ``-`` begin with.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        speed = pipeline.source[0].speed if pipeline.source else "max"
        self.is_paused = self.is_recording = False
        self.is_looping = bool(pipeline.source) and pipeline.source[0].loop == 0
        self._name = pipeline.name
        self.is_max = speed == "max"
        self.speed = 1.0 if speed == "max" else float(speed)
        self._before: Any = None

    def __enter__(self) -> "Keys":
        # termios is missing on systems without POSIX terminals; there the keys are, too
        with contextlib.suppress(ImportError, OSError):
            import termios
            import tty

            if sys.stdin.isatty() and sys.stdout.isatty():
                self._before = termios.tcgetattr(sys.stdin.fileno())
                tty.setcbreak(sys.stdin.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)

    def __call__(self) -> list[Control]:
        """Return what was asked for since the last call; ``controls`` of ``stream.run.run``."""
        controls = []
        while self._before is not None and select.select([sys.stdin], [], [], 0)[0]:
            typed = os.read(sys.stdin.fileno(), 64).decode(errors="replace")
            if not typed:
                break
            controls += [control for key in typed if (control := self.control(key)) is not None]
        return controls

    def control(self, key: str) -> Control | None:
        """Translate one key; None for keys without a meaning."""
        if key == " ":
            self.is_paused = not self.is_paused
            return Control(pause=self.is_paused)
        if key in "+-":
            self.is_max = False
            self.speed = min(1024.0, max(1 / 1024, self.speed * (2.0 if key == "+" else 0.5)))
            return Control(speed=self.speed)
        if key == "m":
            self.is_max = not self.is_max
            return Control(speed="max" if self.is_max else self.speed)
        if key == "l":
            self.is_looping = not self.is_looping
            return Control(loop=self.is_looping)
        if key == "r":
            self.is_recording = not self.is_recording
            path = f"runs/{self._name}-{time.strftime('%Y%m%d-%H%M%S')}"
            return Control(record=os.path.abspath(path) if self.is_recording else "")
        known = {
            ".": Control(steps=1),
            ">": Control(seek_by_us=_JUMP_US),
            "<": Control(seek_by_us=-_JUMP_US),
            "0": Control(seek_us=0),
        }
        return known.get(key)

    def words(self) -> str:
        """Say the pace, for a status line."""
        if self.is_paused:
            return "paused"
        return "as fast as possible" if self.is_max else f"{self.speed:g} x real time"
