"""A desk: where somebody in another process presses the keys of a running pipeline (``stream.keys``).

A socket file in a folder that only its owner can enter. A press is a JSON object: ``{"key": " "}``, or
``{"seek_us": T}`` for a place that no key names, or ``{"show": "cup"}`` to teach and ``{"show": ""}`` to end that
(``stream.teach``). A name that is new takes the next readout unit that has none. ``{"forget": "cup"}`` makes void what
was taught of a class and frees its unit; ``{"correct": "cup"}`` says what it was that was last taught, or asked about;
``{"save": PATH}`` writes what was taught, with the names, and ``{"load": PATH}`` puts it in the place of what is known.
What cannot be understood is left out.
"""

import contextlib
from pathlib import Path

import msgspec
import zmq

from stream.errors import ConfigError
from stream.host import Control
from stream.keys import Keys
from stream.teach import read_taught

__all__ = ["Desk", "Press", "press"]

MOST_AT_ONCE = 64
MOST_BYTES = 1024
MOST_LETTERS = 40  # of a class's name


class Press(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One wish."""

    key: str = ""
    seek_us: int | None = None
    show: str | None = None  # name of the class that is shown from here on; "" ends that
    forget: str | None = None
    correct: str | None = None
    save: str | None = None
    load: str | None = None


class Desk:
    """The keys of the terminal and those that come from elsewhere; ``controls`` of ``stream.run.run``.

    Parameters
    ----------
    keys
        Translates keys, and knows whether it is paused and how fast it goes.
    folder
        Where the socket file ``keys`` is made; only its owner may enter it.
    """

    def __init__(self, keys: Keys, folder: Path) -> None:
        self.keys, self._path = keys, folder / "keys"
        self.n_classes = 0  # units of the readout; whoever runs the pipeline tells
        self.names: dict[str, int] = {}  # what has been taught, by name
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self._socket.bind(f"ipc://{self._path}")

    def __call__(self) -> list[Control]:
        """Return what was asked for since the last call."""
        controls = self.keys()
        with contextlib.suppress(zmq.Again):
            for _ in range(MOST_AT_ONCE):
                controls += self._understand(self._socket.recv(zmq.NOBLOCK))
        return controls

    def _understand(self, raw: bytes) -> list[Control]:
        try:
            pressed = msgspec.json.decode(raw, type=Press)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return []
        if pressed.show is not None:
            return self._show(pressed.show.strip()[:MOST_LETTERS])
        if pressed.forget is not None:
            unit = self.names.pop(pressed.forget.strip()[:MOST_LETTERS], None)
            return [Control(forget=unit)] if unit is not None else []
        if pressed.correct is not None:
            unit = self._unit_of(pressed.correct.strip()[:MOST_LETTERS])
            return [Control(correct=unit)] if unit is not None else []
        if pressed.save:
            return [Control(save=pressed.save, names=dict(self.names))]
        if pressed.load:
            return self._load(pressed.load)
        if pressed.seek_us is not None:
            return [Control(seek_us=min(max(0, pressed.seek_us), 1 << 61))]
        control = self.keys.control(pressed.key) if len(pressed.key) == 1 else None
        return [control] if control is not None else []

    def _show(self, name: str) -> list[Control]:
        if not name:
            return [Control(show=-1)]
        unit = self._unit_of(name)
        return [Control(show=unit)] if unit is not None else []  # the page shows that nothing is taught

    def _unit_of(self, name: str) -> int | None:
        """Find the class of a name: a number is one, a new name takes the next that has none; None if there is none."""
        if name and name not in self.names:
            free = [k for k in range(self.n_classes) if k not in self.names.values()]
            number = int(name) if name.isascii() and name.isdigit() else -1
            wanted = number if number in free else -1 if number >= 0 else next(iter(free), -1)
            if wanted < 0:
                return None
            self.names[name] = wanted
        return self.names.get(name)

    def _load(self, path: str) -> list[Control]:
        try:
            _, self.names = read_taught(Path(path))
        except ConfigError:
            return []
        return [Control(load=path)]

    def close(self) -> None:
        """Take the socket file away. Idempotent."""
        if not self._socket.closed:
            self._socket.close(linger=0)
            self._context.term()
            self._path.unlink(missing_ok=True)


def press(folder: str, pressed: Press) -> bool:
    """Press a key at the desk in a folder; False if nobody sits there."""
    path = Path(folder) / "keys"
    if not path.exists():
        return False
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.LINGER, 500)
    try:
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.connect(f"ipc://{path}")
        if not socket.poll(500, zmq.POLLOUT):
            return False
        socket.send(msgspec.json.encode(pressed))
    finally:
        socket.close()
        context.term()
    return True
