"""The live page: ``hebbstream view`` serves what a running pipeline does to a browser.

A process of its own that looks through taps (``stream.tap``), so it can lose packets but never hold anything up. While
no browser is connected it looks at nothing. Events become an image here, in a kernel: a byte a pixel says when it
changed last and which way. A browser asks for each frame when it has drawn the one before, and gets the newest state:
a slow one gets fewer frames, and nothing queues up.

What goes over the WebSocket
----------------------------
From the browser, JSON: ``{"next": true, "surface": "camera.events"}`` asks for a frame, ``{"key": " "}`` presses a key
of the run (``stream.keys``), ``{"seek_us": T}`` jumps, ``{"show": "cup"}`` teaches, as do ``forget`` and ``correct``.
``{"save": true}`` writes what was taught to a file in ``runs/``, ``{"load": NAME}`` loads one of these. To the browser,
one binary message a frame::

    u32     length n of what follows, little-endian
    n bytes JSON: t_us, surface, run (status, if new), arrays: a list of {name, dtype, shape, at}
            padding to a multiple of 8; then the arrays, each beginning ``at`` bytes after that, a multiple of 8

The surface is uint8: 0 never changed, else ``128 * polarity + 127 - age``, with the age in eighths of an octave above
a millisecond, so that the page can fade as fast or slow as it likes, also while paused.

Who may look
------------
By default only this machine; through ssh, forward the port. On another address a token is asked for. A page of another
site can neither connect (Origin) nor reach it by a name of its own (Host, against DNS rebinding) nor frame it.
"""

import contextlib
import hmac
import http
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection
from websockets.sync.server import serve as serve_sockets

from stream.desk import Press, press
from stream.errors import ConfigError, StreamError
from stream.jit import kernel
from stream.observe import Picture, boards
from stream.packet import ANSWER_DTYPE, EVENT_DTYPE, SPIKE_DTYPE, Deploy, End, Packet
from stream.tap import TapSource

__all__ = ["Page", "Watcher", "find_run", "frame_bytes", "shade", "stamp"]

NEVER = np.iinfo(np.int64).min
MOST_PIXELS = 1 << 22
MOST_PAGES = 8  # browsers at once
MOST_SPIKES, MOST_ANSWERS = 1 << 15, 1 << 12  # kept for the next frame, a port
MOST_ASKED = 4096  # bytes of a message from a browser
STATE_PERIOD_S, WEIGHTS_PERIOD_S, BOARD_PERIOD_S, HEARTBEAT_S = 0.05, 0.7, 0.25, 0.25
MESSAGES_AT_ONCE = 64
SUFFIX = ".taught"  # of a file of what was taught
RUNS = Path("runs")  # where what was taught is kept, beside what the key r records
MOST_SAVED = 20  # files that a page is told of
# items taken from a tap: a second, and at a time; of what comes faster the newest is shown
MOST_EVENTS_HZ, MOST_AT_A_TIME = 8e6, 2e6
ASSETS = {"/": "index.html", "/view.js": "view.js", "/style.css": "style.css"}
KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
POLICY = "default-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"


@kernel
def stamp(events: Any, width: int, height: int, stamps: Any) -> int:
    """Write each event's time and polarity, ``2 t + p``, to its pixel; returns how many lie outside of the sensor."""
    n_outside = 0
    for k in range(len(events)):
        x, y = np.int64(events[k]["x"]), np.int64(events[k]["y"])
        if x < width and y < height:
            stamps[y, x] = 2 * events[k]["t"] + (events[k]["p"] != 0)
        else:
            n_outside += 1
    return n_outside


@kernel
def shade(stamps: Any, now_us: int, out: Any) -> int:
    """Turn stamps into bytes, see the module's docstring; returns how many pixels have ever changed."""
    n_changed = 0
    for y in range(stamps.shape[0]):
        for x in range(stamps.shape[1]):
            value = stamps[y, x]
            if value == NEVER:
                out[y, x] = 0
                continue
            n_changed += 1
            age_ms = max(0.0, (now_us - (value >> 1)) / 1000.0)
            age = min(126.0, 8.0 * np.log2(1.0 + age_ms))
            out[y, x] = np.uint8(128 * (value & 1) + 127 - np.int64(age))
    return n_changed


class Surface:
    """When each pixel changed last, and which way."""

    def __init__(self, width: int, height: int) -> None:
        if width * height > MOST_PIXELS:
            raise ConfigError(
                f"view: a sensor of {width} x {height} pixels, wanted {MOST_PIXELS} at most; downsample it"
            )
        self.stamps = np.full((height, width), NEVER, np.int64)
        self.image = np.zeros((height, width), np.uint8)
        self.n_events = 0
        self._shaded: tuple[int, int] = (-1, -1)

    def add(self, events: NDArray[np.void]) -> None:
        """Take in events, EVENT_DTYPE, shape (n,)."""
        stamp(events, self.stamps.shape[1], self.stamps.shape[0], self.stamps)
        self.n_events += len(events)

    def at(self, now_us: int) -> NDArray[np.uint8]:
        """Return the image at a time, uint8, shape (height, width); shared, not a copy."""
        if self._shaded != (now_us, self.n_events):
            shade(self.stamps, now_us, self.image)
            self._shaded = (now_us, self.n_events)
        return self.image


class Ring:
    """The newest items of a stream, for readers that come at their own pace."""

    def __init__(self, dtype: np.dtype[Any], size: int) -> None:
        self.items = np.zeros(size, dtype)
        self.n = 0  # ever added

    def add(self, items: NDArray[np.void]) -> None:
        """Add items, shape (n,); the oldest make room."""
        size = len(self.items)
        kept = items[-size:]
        first = (self.n + len(items) - len(kept)) % size
        head = min(len(kept), size - first)
        self.items[first : first + head] = kept[:head]
        self.items[: len(kept) - head] = kept[head:]
        self.n += len(items)

    def since(self, n: int) -> NDArray[np.void]:
        """Return a copy of what was added after the first ``n`` items, as far as it is still there."""
        size = len(self.items)
        first = max(n, self.n - size)
        return self.items[np.arange(first, self.n) % size]


def find_run(wanted: str = "", look: Callable[[], list[Picture]] = boards) -> Picture | None:
    """Find a running pipeline of this user: by process number or name, or the newest that can be looked at."""
    for picture in look():
        taps = picture.get("taps") or {}
        if (taps.get("folder") or taps.get("listed")) and wanted in ("", str(picture["pid"]), picture["pipeline"]):
            return picture
    return None


class Watcher:
    """Looks at a run through its taps, in a thread; keeps the newest state of everything.

    Parameters
    ----------
    wanted
        A run's process number or name; "" takes the newest that can be looked at.
    endpoints
        Taps to look at instead, where no run of this user is to be found: on other machines, for example.
    find
        As :func:`find_run`.
    """

    def __init__(
        self,
        wanted: str = "",
        endpoints: Sequence[str] = (),
        *,
        token: str = "",
        find: Callable[[str], Picture | None] = find_run,
    ) -> None:
        self.lock = threading.Lock()
        self.version = 0  # grows with everything that changes
        self.run: Picture | None = None
        self.fault = ""
        self.now_us = 0
        self.surfaces: dict[str, Surface] = {}
        self.rings: dict[str, Ring] = {}
        self.seen: dict[str, tuple[int, Deploy]] = {}  # "member what" to a running number and the arrays
        self.items: dict[str, str] = {}  # what comes out of each tap
        self.saved: list[str] = []  # names of files of what was taught, the newest first
        self.n_pages = 0
        self.shown: dict[int, str] = {}  # the surface that each page shows
        self._wanted, self._endpoints, self._token, self._find = wanted, tuple(endpoints), token, find
        self._taps: dict[str, TapSource] = {}
        self._not_before_s: dict[str, float] = {}
        self._may_take: dict[str, tuple[float, float]] = {}  # items that a tap may still bring, and when that was so
        self._next_board_s = self._next_state_s = self._next_weights_s = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)
        self._thread.start()

    @property
    def folder(self) -> str:
        """Folder of the run's taps and desk; "" if it has none."""
        return str((self.run or {}).get("taps", {}).get("folder", ""))

    def press(self, pressed: Press) -> bool:
        """Press a key of the run; False if it has no desk."""
        return bool(self.folder) and press(self.folder, pressed)

    def save(self) -> None:
        """Let a run write what was taught to a file in ``runs/``; ``saved`` tells when it is there."""
        name = f"{(self.run or {}).get('pipeline', 'run')}-{time.strftime('%Y%m%d-%H%M%S')}{SUFFIX}"
        self.press(Press(save=str((RUNS / name).absolute())))

    def load(self, name: str) -> bool:
        """Let a run load a file that ``saved`` names; any other is refused."""
        return name in self.saved and self.press(Press(load=str((RUNS / name).absolute())))

    def close(self) -> None:
        """Stop looking. Idempotent."""
        self._stopping.set()
        self._thread.join(10)

    def _watch(self) -> None:
        first = Surface(1, 1)  # kernels are compiled while nobody waits for a frame
        first.add(np.zeros(1, EVENT_DTYPE))
        first.at(0)
        try:
            while not self._stopping.is_set():
                now_s = time.monotonic()
                if now_s >= self._next_board_s:
                    self._next_board_s = now_s + BOARD_PERIOD_S
                    self._look_at_board()
                    self._attach(now_s)
                self._ask(now_s)
                if not any([self._take(address) for address in list(self._taps)]):
                    time.sleep(0.002 if self._taps else 0.05)
        finally:
            self._leave()

    def _look_at_board(self) -> None:
        if self._endpoints:
            return
        saved = sorted((path.name for path in RUNS.glob(f"*{SUFFIX}")), reverse=True)[:MOST_SAVED]
        if saved != self.saved:
            self.saved = saved
            self.version += 1
        found = self._find(self._wanted)
        if found is None and self.run is not None and self.run.get("phase") != "gone":
            found = {**self.run, "phase": "gone"}
        if found is None or found == self.run:
            return
        with self.lock:
            if self.run is not None and found["pid"] != self.run["pid"]:
                self._forget()
            self.run = found
            self.version += 1

    def _forget(self) -> None:
        """Begin anew: it is another run."""
        self._leave()
        self.surfaces, self.rings, self.seen, self.now_us = {}, {}, {}, 0
        self._not_before_s.clear()

    def _leave(self) -> None:
        for tap in self._taps.values():
            tap.close()
        self._taps.clear()

    def _places(self) -> dict[str, str]:
        """Return the taps that there are: endpoint by ``member.port``."""
        if self._endpoints:
            return {endpoint: endpoint for endpoint in self._endpoints}
        if self.run is None or self.run["phase"] != "running":
            return {}
        places = dict(self.run["taps"]["listed"])
        if self.folder:
            here = sorted(path for path in Path(self.folder).glob("*.*") if path.is_socket())
            places = {path.name: f"ipc://{path}" for path in here} | places
        return places

    def _attach(self, now_s: float) -> None:
        """Look through the taps that a page needs, and through no other."""
        if not self.n_pages:
            self._leave()
            return
        places = self._places()
        shown = set(self.shown.values())
        for address, endpoint in places.items():
            known = self.items.get(address)
            if known == "phases" or (known == "events" and address not in shown and shown & places.keys()):
                if address in self._taps:
                    self._taps.pop(address).close()
                continue
            if address in self._taps or now_s < self._not_before_s.get(address, 0.0):
                continue
            try:
                tap = TapSource(endpoint=endpoint, token=self._token, timeout_s=1.0)
            except (StreamError, ConfigError) as error:
                self.fault = str(error)
                self._not_before_s[address] = now_s + 1.0
                continue
            port = tap.outputs["events"]
            with self.lock:
                self.items[address] = port.item
                if port.item == "events" and address not in self.surfaces:
                    try:
                        self.surfaces[address] = Surface(port.width or 640, port.height or 480)
                    except ConfigError as error:
                        self.fault = str(error)
                elif port.item in ("spikes", "answers") and address not in self.rings:
                    dtype, size = (SPIKE_DTYPE, MOST_SPIKES) if port.item == "spikes" else (ANSWER_DTYPE, MOST_ANSWERS)
                    self.rings[address] = Ring(dtype, size)
                self.version += 1
            self._taps[address] = tap

    def _ask(self, now_s: float) -> None:
        """Ask every member once to show itself."""
        asked: set[str] = set()
        words = []
        if now_s >= self._next_state_s:
            self._next_state_s = now_s + STATE_PERIOD_S
            words.append("state")
        if now_s >= self._next_weights_s:
            self._next_weights_s = now_s + WEIGHTS_PERIOD_S
            words.append("weights")
        for address, tap in self._taps.items() if words else ():
            member = address.partition(".")[0] if address not in self._endpoints else address
            if member not in asked:
                asked.add(member)
                for word in words:
                    tap.ask(word)

    def _take(self, address: str) -> bool:
        """Take in what a tap has; returns whether it had anything.

        No more than a page can show: what is not acknowledged is not sent, so a pipeline that runs as fast as it can
        need not encode all of it for a viewer.
        """
        tap = self._taps[address]
        got = False
        now_s = time.monotonic()
        left, then_s = self._may_take.get(address, (MOST_AT_A_TIME, now_s))
        left = min(MOST_AT_A_TIME, left + MOST_EVENTS_HZ * (now_s - then_s))
        for _ in range(MESSAGES_AT_ONCE):
            if left <= 0:
                break
            message = tap.poll(1 << 20)
            if tap.seen:
                self._note(address, tap)
            if message is None:
                break
            got = True
            with self.lock:
                if isinstance(message, Packet):
                    left -= len(message.items)
                    self.now_us = max(self.now_us, message.end_us)
                    if address in self.surfaces and message.items.dtype == EVENT_DTYPE:
                        self.surfaces[address].add(message.items)
                    elif address in self.rings and message.items.dtype == self.rings[address].items.dtype:
                        self.rings[address].add(message.items)
                self.version += 1
            if isinstance(message, End):
                self._taps.pop(address).close()
                self._not_before_s[address] = time.monotonic() + 1.0
                break
        self._may_take[address] = left, now_s
        return got

    def _note(self, address: str, tap: TapSource) -> None:
        member = address.partition(".")[0] if address not in self._endpoints else address
        with self.lock:
            for what, arrays in tap.seen.items():
                number = self.seen.get(f"{member} {what}", (0, arrays))[0]
                self.seen[f"{member} {what}"] = number + 1, arrays
            tap.seen.clear()
            self.version += 1


def frame_bytes(head: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> bytes:
    """Put a frame together; see the module's docstring."""
    described, parts, at = [], [], 0
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        described.append({"name": name, "dtype": array.dtype.str.lstrip("<|"), "shape": list(array.shape), "at": at})
        parts += [raw, bytes(-len(raw) % 8)]
        at += len(raw) + -len(raw) % 8
    words = json.dumps({**head, "arrays": described}, default=str).encode()
    words += b" " * (-(len(words) + 4) % 8)
    return b"".join([len(words).to_bytes(4, "little"), words, *parts])


class _Reader:
    """What one browser has been told already."""

    def __init__(self) -> None:
        self.version = -1
        self.run_s = -1.0
        self.read: dict[str, int] = {}

    def frame(self, watcher: Watcher, wanted: str) -> bytes:
        """Make the next frame: all that is new since the last one."""
        arrays: dict[str, NDArray[Any]] = {}
        with watcher.lock:
            self.version = watcher.version
            surfaces = list(watcher.surfaces)
            shown = wanted if wanted in watcher.surfaces else next(iter(surfaces), "")
            head: dict[str, Any] = {"t_us": watcher.now_us, "surface": shown, "surfaces": surfaces}
            if shown:
                arrays["surface"] = watcher.surfaces[shown].at(watcher.now_us).copy()
                head["events"] = watcher.surfaces[shown].n_events
            for address, ring in watcher.rings.items():
                if ring.n < self.read.get(address, 0):  # another run
                    self.read[address] = 0
                items = ring.since(self.read.get(address, 0))
                self.read[address] = ring.n
                if len(items):
                    kind = watcher.items[address]
                    for field in items.dtype.names or ():
                        dtype = np.float64 if field in ("t", "start") else items.dtype[field]
                        arrays[f"{kind} {address} {field}"] = items[field].astype(dtype)
            for name, (number, seen) in watcher.seen.items():
                if self.read.get(f"look {name}") != number:
                    self.read[f"look {name}"] = number
                    arrays |= {f"look {name} {key}": array for key, array in seen.arrays.items() if array.size}
                    head.setdefault("looks_us", {})[name] = seen.t_us
            run = watcher.run
        if run is not None and (run["time_s"] != self.run_s or run["phase"] == "gone"):
            self.run_s = run["time_s"]
            head["run"] = run
        head["saved"] = watcher.saved
        if watcher.fault:
            head["fault"] = watcher.fault
        wide = {name: array.astype(np.float64) if array.dtype.kind == "i" and array.itemsize == 8 else array
                for name, array in arrays.items()}  # fmt: skip
        return frame_bytes(head, wide)


class Page:
    """Serve the page.

    Parameters
    ----------
    watcher
        What it shows.
    host, port
        Where to listen; port 0 takes a free one. On other addresses than the loopback's a token is needed.
    token
        What a browser has to bring, as ``?token=...``; "" asks for none.
    most_hz
        Most frames a second.

    Raises
    ------
    ConfigError
        If the port is taken, or the address is open to others and no token is given.
    """

    def __init__(
        self, watcher: Watcher, *, host: str = "127.0.0.1", port: int = 8765, token: str = "", most_hz: float = 60.0
    ) -> None:
        self.watcher, self._token, self._period_s = watcher, token, 1.0 / most_hz
        self._is_local = host in LOOPBACK
        self._numbers = itertools.count(1)
        self.frames = self.bytes = 0
        if not self._is_local and len(token) < 16:
            raise ConfigError(
                f"view: {host} can be reached by others, wanted a token of 16 characters or more (--token)"
            )
        self._files = {
            path: (KINDS[name.rpartition(".")[2]], resources.files("stream").joinpath("page", name).read_bytes())
            for path, name in ASSETS.items()
        }
        try:
            self._server: Server = serve_sockets(
                self._talk,
                host.strip("[]"),
                port,
                process_request=self._answer,
                max_size=MOST_ASKED,
                server_header=None,
                compression=None,  # deflating noise costs more than a frame has time; through ssh: -C
            )
        except (OSError, OverflowError) as error:
            raise ConfigError(f"view: cannot listen on {host}:{port}: {error}; choose a free --port") from None
        self.port = int(self._server.socket.getsockname()[1])
        self.address = f"http://{host}:{self.port}/" + (f"?token={token}" if token else "")
        self._thread = threading.Thread(target=self._server.serve_forever, name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and send all browsers away. Idempotent."""
        self._server.shutdown()
        self._thread.join(10)

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        """Hand out a file, refuse, or (None) let the WebSocket begin."""
        parts = urlsplit(request.path)
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        if self._is_local and name not in LOOPBACK:
            return _response(http.HTTPStatus.FORBIDDEN, "this page is for this machine; forward the port with ssh -L")
        if parts.path in self._files:
            kind, body = self._files[parts.path]
            return _response(http.HTTPStatus.OK, body, kind)
        if parts.path != "/socket":
            return _response(http.HTTPStatus.NOT_FOUND, "there is nothing here")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
            return _response(http.HTTPStatus.FORBIDDEN, "a page of another site may not look")
        given = parse_qs(parts.query).get("token", [""])[0]
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            return _response(http.HTTPStatus.FORBIDDEN, "wrong or no token")
        if self.watcher.n_pages >= MOST_PAGES:
            return _response(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_PAGES} pages look already")
        return None

    def _talk(self, connection: ServerConnection) -> None:
        watcher, reader, me = self.watcher, _Reader(), next(self._numbers)
        wants, surface, last_s = False, "", 0.0
        with watcher.lock:
            watcher.n_pages += 1
        try:
            while True:
                # until the next frame may go out, or a moment if nothing is new; a whole period would miss every other
                until_s = last_s + 0.9 * self._period_s - time.monotonic()
                with contextlib.suppress(TimeoutError):
                    asked = json.loads(connection.recv(timeout=max(0.004, until_s) if wants else 1.0))
                    wants, surface = self._heed(asked, wants, surface)
                    watcher.shown[me] = surface
                now_s = time.monotonic()
                is_due = watcher.version != reader.version and now_s - last_s >= 0.9 * self._period_s
                if wants and (is_due or now_s - last_s > HEARTBEAT_S):
                    wants, last_s = False, now_s
                    frame = reader.frame(watcher, surface)
                    self.frames += 1
                    self.bytes += len(frame)
                    connection.send(frame)  # waits for a slow browser; nobody waits for this thread
        except (ConnectionClosed, ValueError, TypeError, KeyError):
            pass  # it has gone, or talks nonsense
        finally:
            with watcher.lock:
                watcher.n_pages -= 1
                watcher.shown.pop(me, None)

    def _heed(self, asked: dict[str, Any], wants: bool, surface: str) -> tuple[bool, str]:
        if "key" in asked:
            self.watcher.press(Press(key=str(asked["key"])))
        elif "seek_us" in asked:
            self.watcher.press(Press(seek_us=int(asked["seek_us"])))
        elif "show" in asked:
            self.watcher.press(Press(show=str(asked["show"])))
        elif "forget" in asked:
            self.watcher.press(Press(forget=str(asked["forget"])))
        elif "correct" in asked:
            self.watcher.press(Press(correct=str(asked["correct"])))
        elif asked.get("save"):
            self.watcher.save()
        elif "load" in asked:
            self.watcher.load(str(asked["load"]))
        elif asked.get("next"):
            return True, str(asked.get("surface", ""))
        return wants, surface


def _response(status: http.HTTPStatus, body: str | bytes, kind: str = "text/plain") -> Response:
    content = body.encode() + b"\n" if isinstance(body, str) else body
    headers = Headers(
        {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Content-Security-Policy": POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "Connection": "close",
        }
    )
    return Response(status.value, status.phrase, headers, content)
