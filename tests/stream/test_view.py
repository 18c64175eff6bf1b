"""The live page: what it is told, who may look, and what a browser shows of a pipeline that runs."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from stream.desk import Desk, Press, press
from stream.errors import ConfigError
from stream.host import Control
from stream.keys import Keys
from stream.operator import Port
from stream.packet import EVENT_DTYPE, SPIKE_DTYPE, Deploy, Packet
from stream.pipeline import Pipeline, SourceSpec
from stream.record import read_recording
from stream.tap import Tap, TapSource
from stream.view import NEVER, Page, Ring, Watcher, find_run, frame_bytes, shade, stamp

# -- images and rings --------------------------------------------------------------------------------------------------


def events_of(rows: list[tuple[int, int, int, int]]) -> Any:
    return np.array(sorted(rows), EVENT_DTYPE)


@given(
    st.lists(
        st.tuples(st.integers(-(10**9), 10**9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 1)), max_size=60
    ),
    st.integers(0, 60),
)
@settings(max_examples=60)
def test_an_image_tells_of_the_last_change_of_each_pixel(rows: list[tuple[int, int, int, int]], cut: int) -> None:
    events = events_of(rows)
    stamps = np.full((6, 8), NEVER, np.int64)
    n_outside = stamp(events[:cut].copy(), 8, 6, stamps) + stamp(events[cut:].copy(), 8, 6, stamps)
    assert n_outside == sum(x >= 8 or y >= 6 for _, x, y, _ in rows)
    now = max((t for t, *_ in rows), default=0) + 1234
    image = np.full((6, 8), 7, np.uint8)
    n_changed = shade(stamps, now, image)
    last = {(int(e["y"]), int(e["x"])): (int(e["t"]), int(e["p"])) for e in events if e["x"] < 8 and e["y"] < 6}
    assert n_changed == len(last)
    for y in range(6):
        for x in range(8):
            if (y, x) not in last:
                assert image[y, x] == 0
                continue
            t, p = last[y, x]
            assert (image[y, x] > 127) == p
            # the page's inverse: the age in ms, an eighth of an octave wide, up to where it saturates
            age = 127 - int(image[y, x]) % 128
            low, high = 2 ** (age / 8) - 1, 2 ** ((age + 1) / 8) - 1
            assert low - 1e-6 <= (now - t) / 1000 < high + 1e-6 or (age == 126 and (now - t) / 1000 >= low)


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(1, 20), st.integers(0, 60))
def test_a_ring_keeps_the_newest(sizes: list[int], room: int, known: int) -> None:
    ring, everything = Ring(SPIKE_DTYPE, room), np.zeros(0, SPIKE_DTYPE)
    for size in sizes:
        items = np.zeros(size, SPIKE_DTYPE)
        items["t"] = np.arange(len(everything), len(everything) + size)
        ring.add(items)
        everything = np.concatenate([everything, items])
    assert ring.n == len(everything)
    assert ring.since(known).tolist() == everything[max(known, len(everything) - room) :].tolist()


def unpacked(frame: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    (n,) = struct.unpack_from("<I", frame)
    head = json.loads(frame[4 : 4 + n])
    arrays = {}
    for it in head["arrays"]:
        count, at = int(np.prod(it["shape"])), 4 + n + it["at"]
        assert at % 8 == 0  # a typed array of the page's has to be aligned
        arrays[it["name"]] = np.frombuffer(frame, it["dtype"], count, at).reshape(it["shape"])
    return head, arrays


def test_a_frame_holds_its_arrays() -> None:
    arrays = {"a": np.arange(5, dtype=np.uint8), "b": np.ones((2, 3), np.float32), "c": np.zeros(0), "d": np.ones(1)}
    head, got = unpacked(frame_bytes({"t_us": 7}, arrays))
    assert head["t_us"] == 7
    assert all(np.array_equal(got[name], array) and got[name].shape == array.shape for name, array in arrays.items())


# -- the desk ----------------------------------------------------------------------------------------------------------


def test_keys_pressed_in_another_process_are_controls(tmp_path: Path) -> None:
    pipeline = Pipeline(name="p", source=[SourceSpec(name="s", kind="x.Y")])
    desk = Desk(Keys(pipeline), tmp_path)
    try:
        for wish in (Press(" "), Press("+"), Press("l"), Press("?"), Press("two"), Press(seek_us=5), Press(seek_us=-1)):
            assert press(str(tmp_path), wish)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        stranger = context.socket(zmq.PUSH)
        stranger.connect(f"ipc://{tmp_path}/keys")
        for rubbish in (b"", b"\xff\xfe", b"[]", b'{"key": 3}', b'{"other": 1}', b'{"key": "r"}'):
            stranger.send(rubbish)
        stranger.close(linger=500)
        context.term()
        got: list[Control] = []
        deadline = time.monotonic() + 5
        while len(got) < 6 and time.monotonic() < deadline:
            got += desk()
        # presses come over connections of their own, so the order between them is not promised
        wanted = [Control(pause=True), Control(speed=2.0), Control(loop=True), Control(seek_us=5), Control(seek_us=0)]
        assert sorted(map(str, wanted)) == sorted(str(control) for control in got if not control.record)
        assert sum(bool(control.record) for control in got) == 1
    finally:
        desk.close()
    assert not press(str(tmp_path), Press(" "))  # nobody sits there


# -- who may look ------------------------------------------------------------------------------------------------------


@pytest.fixture
def page() -> Iterator[Page]:
    watcher = Watcher(find=lambda wanted: None)
    made = Page(watcher, port=0)
    yield made
    made.close()
    watcher.close()


def answer(page: Page, path: str = "/", host: str | None = None, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"Host": host or f"127.0.0.1:{page.port}", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    found = connection.getresponse()
    found.read()
    connection.close()
    return found


def test_assets_are_served_and_nothing_else(page: Page) -> None:
    for path in ("/", "/view.js", "/style.css"):
        found = answer(page, path)
        assert found.status == 200
        policy = str(found.getheader("Content-Security-Policy"))
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
    for path in ("/../view.py", "/page/index.html", "/etc/passwd", "/view.js/"):
        assert answer(page, path).status == 404


def test_the_page_asks_nobody_else() -> None:
    folder = Path(sys.modules["stream.view"].__file__ or "").parent / "page"
    for path in folder.iterdir():
        assert not re.search(r"(https?:)?//[a-z0-9.-]+\.[a-z]{2,}", path.read_text(encoding="utf-8")), path


def test_other_names_for_this_machine_are_refused(page: Page) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example:80", "192.168.1.7:8765", "localhost.evil.example"):
        assert answer(page, host=host).status == 403, host
    for host in ("localhost:9999", "127.0.0.1:4", "[::1]:8765"):  # a forwarded port has another number
        assert answer(page, host=host).status == 200, host


def test_a_page_of_another_site_may_not_connect(page: Page) -> None:
    url = f"ws://127.0.0.1:{page.port}/socket"
    for stranger in ("http://evil.example", "null"):
        with pytest.raises(InvalidStatus), connect(url, origin=stranger):
            pass
    with connect(url, origin=f"http://127.0.0.1:{page.port}") as mine:
        mine.send('{"next": true}')
        head, _ = unpacked(mine.recv(timeout=5))
        assert head["surfaces"] == []


def test_nonsense_costs_a_connection_and_no_more(page: Page) -> None:
    url = f"ws://127.0.0.1:{page.port}/socket"
    for rubbish in ("{", "[]", '"x"', '{"seek_us": "x"}', "\0", b"\xff\xfe", "x" * 5000):
        with connect(url) as mine:
            mine.send(rubbish)
            with contextlib.suppress(Exception):
                mine.recv(timeout=0.3)
    with socket.create_connection(("127.0.0.1", page.port)) as raw:
        raw.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    assert answer(page).status == 200
    deadline = time.monotonic() + 5
    while page.watcher.n_pages and time.monotonic() < deadline:
        time.sleep(0.02)
    assert page.watcher.n_pages == 0


def test_an_open_address_needs_a_token() -> None:
    watcher = Watcher(find=lambda wanted: None)
    try:
        for token in ("", "short"):
            with pytest.raises(ConfigError, match="token"):
                Page(watcher, host="0.0.0.0", port=0, token=token)
        token = "a-token-of-some-length"
        page = Page(watcher, host="0.0.0.0", port=0, token=token)
        try:
            for wrong in ("", "?token=", "?token=x", f"?token={token}x"):
                with pytest.raises(InvalidStatus), connect(f"ws://127.0.0.1:{page.port}/socket{wrong}"):
                    pass
            with connect(f"ws://127.0.0.1:{page.port}/socket?token={token}"):
                pass
        finally:
            page.close()
        with pytest.raises(ConfigError, match="choose a free"), socket.create_server(("127.0.0.1", 0)) as taken:
            Page(watcher, port=taken.getsockname()[1])
    finally:
        watcher.close()


# -- looking through taps ----------------------------------------------------------------------------------------------


class Served:
    """A tap in a thread of its own, as a node would serve it."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.tap = Tap(self.context, "camera.events", Port("events", 640, 480), f"ipc://{folder}/camera.events")
        self.tap.look = lambda what: (
            Deploy(5, 0, {"scores": np.arange(3, dtype=np.float32)}) if what == "state" else None
        )
        self.waiting: list[Packet] = []
        self.longest_s = 0.0
        self.n_put = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self.tap.service()
            self.tap.answer()
            while self.waiting:
                before_s = time.perf_counter()
                self.tap.put(self.waiting.pop(0))
                self.n_put += 1
                self.longest_s = max(self.longest_s, time.perf_counter() - before_s)
            time.sleep(0.0005)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        self.tap.close()
        self.context.term()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.close()


def busy_packet(index: int, n: int = 50_000, us: int = 10_000) -> Packet:
    rng = np.random.default_rng(index)
    events = np.zeros(n, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(index * us, (index + 1) * us, n))
    events["x"], events["y"], events["p"] = rng.integers(0, 640, n), rng.integers(0, 480, n), rng.integers(0, 2, n)
    return Packet(events, index * us, (index + 1) * us)


def test_a_member_shows_itself_between_messages(served: Served) -> None:
    viewer = TapSource(endpoint=served.tap.endpoint)
    viewer.ask("state")
    viewer.ask("weights")
    viewer.ask("w" * 15)
    deadline = time.monotonic() + 5
    while "state" not in viewer.seen and time.monotonic() < deadline:
        viewer.poll(1)
    assert viewer.seen["state"].arrays["scores"].tolist() == [0, 1, 2]
    assert viewer.seen.keys() == {"state"}
    assert served.tap.account().sent_messages == 0  # a look is no message of the stream
    viewer.close()


def test_nobody_looks_nothing_is_taken(served: Served) -> None:
    watcher = Watcher(endpoints=[served.tap.endpoint])
    page = Page(watcher, port=0)
    try:
        time.sleep(0.5)
        assert served.tap.n_viewers == 0
        with connect(f"ws://127.0.0.1:{page.port}/socket") as browser:
            arrays: dict[str, Any] = {}
            deadline = time.monotonic() + 10
            index = 0
            while not arrays.get("surface", np.zeros(1)).any() and time.monotonic() < deadline:
                served.waiting.append(busy_packet(index, 1000))
                index += 1
                browser.send('{"next": true}')
                _, arrays = unpacked(browser.recv(timeout=5))
            assert arrays["surface"].shape == (480, 640)
            assert served.tap.n_viewers == 1
        deadline = time.monotonic() + 5
        while served.tap.n_viewers and time.monotonic() < deadline:
            time.sleep(0.05)
        assert served.tap.n_viewers == 0
    finally:
        page.close()
        watcher.close()


def test_a_browser_that_reads_nothing_holds_nobody_up(served: Served) -> None:
    """It asks for one frame after the other and takes none; another browser and the pipeline do not notice."""
    watcher = Watcher(endpoints=[served.tap.endpoint])
    page = Page(watcher, port=0)
    url = f"ws://127.0.0.1:{page.port}/socket"
    try:
        with connect(url, max_queue=1, compression=None, close_timeout=0.5) as slow, connect(url) as good:
            for _ in range(200):
                slow.send('{"next": true}')
            got = 0
            packets = [busy_packet(index, 5000) for index in range(100)]
            for packet in packets:
                served.waiting.append(packet)
                good.send('{"next": true}')
                good.recv(timeout=5)
                got += 1
            assert got == 100
            deadline = time.monotonic() + 5
            while served.waiting and time.monotonic() < deadline:
                time.sleep(0.01)
            assert served.n_put == 100
            assert served.longest_s < 0.5
    finally:
        page.close()
        watcher.close()


# -- in a browser ------------------------------------------------------------------------------------------------------

BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ARTEFACTS = Path(os.environ.get("HEBBSTREAM_ARTEFACTS") or "build/screenshots")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="the live page is tested with Playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine; Debian's package is called chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=BROWSER_OPTIONS)
        yield started
        started.close()


class Run:
    """``hebbstream replay simulated --view``, or another command, in a process of its own."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.log = folder / "log"
        command = (sys.executable, "-P", "-m", "stream", *(command or ("replay", "simulated")), "--view")
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file, start_new_session=True)
        self.address = ""
        deadline = time.monotonic() + 120
        while not self.address and time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(r"page at (\S+)", self.log.read_text(errors="replace"))
            self.address = found[1] if found else ""
            time.sleep(0.05)
        assert self.address, self.log.read_text(errors="replace")

    def end(self) -> str:
        self.process.terminate()
        self.process.wait(120)
        return self.log.read_text(errors="replace")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.end()


def until(page: Any, expression: str, timeout_s: float) -> None:
    """Wait for something to be true in the page; its policy forbids Playwright's own way, which evaluates strings."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {expression[:200]}"
        page.wait_for_timeout(30)


def opened(browser: Any, address: str, **options: Any) -> tuple[Any, list[str]]:
    page = browser.new_page(**options)
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    until(page, "hebbstream.surfaceSum > 0", 200)  # kernels may have to be compiled first
    return page, complaints


POSITION = "hebbstream.state.run.sources.source.position_us"
PAUSED = "hebbstream.state.run.sources.source.is_paused"


@pytest.mark.slow
def test_the_page_shows_pauses_steps_seeks_and_records(browser: Any, running: Run, tmp_path: Path) -> None:
    page, complaints = opened(browser, running.address)
    image = "document.getElementById('surface').toDataURL()"
    before = page.evaluate(image)
    until(page, f"{image} !== {json.dumps(before)}", 10)  # the canvas changes with the events
    assert page.text_content("#phase") == "running"
    page.keyboard.press("r")
    until(page, "hebbstream.state.run.sources.source.recording", 10)

    page.keyboard.press("Space")
    until(page, PAUSED, 10)
    page.wait_for_timeout(500)
    at = page.evaluate("hebbstream.state.tUs")
    page.wait_for_timeout(500)
    assert page.evaluate("hebbstream.state.tUs") == at
    page.keyboard.press(".")
    until(page, f"hebbstream.state.tUs > {at}", 10)
    page.click("#pause")
    until(page, f"!{PAUSED}", 10)

    page.evaluate("const it = document.getElementById('seek'); it.max = 8e6; it.value = 6e6; "
                  "it.dispatchEvent(new Event('change'))")  # fmt: skip
    until(page, f"{POSITION} > 5.9e6", 10)
    page.keyboard.press("ArrowLeft")
    until(page, f"{POSITION} < 5e6", 10)
    page.keyboard.press("+")
    until(page, "hebbstream.state.run.sources.source.speed === 2", 10)
    page.keyboard.press("l")
    until(page, "hebbstream.state.run.sources.source.is_looping", 10)
    page.keyboard.press("r")
    until(page, "!hebbstream.state.run.sources.source.recording", 10)
    (recording,) = (tmp_path / "runs").glob("replay-*-source.hbs")
    kept = read_recording(recording)
    assert kept.torn == ""
    assert len(kept.items("events")) > 100

    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTEFACTS / "replay-light.png")
    page.click("#theme")
    page.screenshot(path=ARTEFACTS / "replay-dark.png")
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(300)
    page.screenshot(path=ARTEFACTS / "replay-phone.png")
    # nothing sticks out of a phone's screen
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints == []
    page.close()
    assert "exact" in running.end() or "source" in running.log.read_text()


@pytest.mark.slow
def test_the_page_comes_back_after_a_restart(browser: Any, tmp_path: Path) -> None:
    first = Run(tmp_path)
    page, _ = opened(browser, first.address)
    first.end()
    until(page, "!hebbstream.connected", 10)
    assert page.text_content("#phase") == "connecting"
    second = Run(tmp_path)
    try:
        assert second.address == first.address  # the same port is free again
        until(page, "hebbstream.connected", 20)
        until(page, f"hebbstream.state.run.pid === {second.process.pid}", 20)
        frames = page.evaluate("hebbstream.frames")
        until(page, f"hebbstream.frames > {frames + 10}", 20)
    finally:
        second.end()
        page.close()


LESSON = """
name = "lesson"

[[source]]
name = "camera"
kind = "sources.simulated.SimulatedCamera"
params = { width = 34, height = 34, duration_us = 5000000 }
speed = 1.0
teach_us = 100000
loop = 0

[[operator]]
name = "learner"
kind = "plasticity.learner.OnlineLearner"
params = { width = 34, height = 34, n_hidden = 60, n_classes = 4, weight_rate = 0.01 }

[[edge]]
from = "camera.events"
to = "learner.events"
"""


@pytest.mark.slow
def test_teaching_from_the_page_changes_the_answer(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "lesson.toml").write_text(LESSON)
    lesson = Run(tmp_path, "run", "lesson.toml", "--one-process")
    try:
        page, complaints = opened(browser, lesson.address)
        until(page, "hebbstream.state.answers.size && !document.getElementById('teach').hidden", 60)
        page.mouse.move(*middle(page, "#teach-hold"))
        ways = {
            "cup": (page.mouse.down, page.mouse.up),
            "pen": (lambda: page.keyboard.down("h"), lambda: page.keyboard.up("h")),
        }
        for n_taught, (name, (press_it, let_go)) in enumerate(ways.items(), 1):
            page.fill("#teach-name", name)
            page.evaluate("document.activeElement.blur()")  # where names are typed an h is a letter
            press_it()
            until(page, f"document.getElementById('teach-words').textContent === 'teaching {name}'", 10)
            until(page, f"document.getElementById('answer').textContent === '{name}'", 30)
            let_go()
            until(page, "hebbstream.state.run.sources.camera.shown === -1", 10)
            assert page.evaluate("Object.keys(hebbstream.state.run.names).length") == n_taught
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTEFACTS / "teach-light.png", full_page=True)
        taught = subprocess.run(
            [sys.executable, "-P", "-m", "stream", "teach", "key", "--for", "1.5", "--to", str(lesson.process.pid)],
            check=False,
        )
        assert taught.returncode == 0
        until(page, "'key' in hebbstream.state.run.names", 5)
        assert complaints == []
        page.close()
    finally:
        lesson.end()


TAUGHT = """
name = "taught"

[[source]]
name = "camera"
kind = "sources.simulated.SimulatedCamera"
params = { width = 34, height = 34, duration_us = 5000000 }
speed = 1.0
teach_us = 100000
loop = 0

[[operator]]
name = "learner"
kind = "plasticity.network_learner.NetworkLearner"
params = { path = "features.safetensors", readout = "scores", teach = true, learn = [] }

[[edge]]
from = "camera.events"
to = "learner.events"
"""
NAMES = "Object.keys(hebbstream.state.run.names ?? {}).join()"
CLASSES = "hebbstream.state.run.members.learner.classes"


@pytest.mark.slow
def test_a_class_is_corrected_forgotten_saved_and_loaded_from_the_page(browser: Any, tmp_path: Path) -> None:
    from neurons.graph_file import save_graph
    from stream.train import dense_layers

    save_graph(tmp_path / "features.safetensors", dense_layers("50", (34, 34, 2), 10, 1))
    (tmp_path / "taught.toml").write_text(TAUGHT)
    record = ["--record", "camera.events=lesson.hbs", "--record", "learner.answers=answers.hbs"]
    lesson = Run(tmp_path, "run", "taught.toml", "--one-process", *record)
    try:
        page, complaints = opened(browser, lesson.address)
        until(page, "!document.getElementById('teach').hidden", 60)
        for name in ("cup", "pen"):
            page.fill("#teach-name", name)
            page.mouse.move(*middle(page, "#teach-hold"))
            page.mouse.down()
            until(page, f"document.getElementById('answer').textContent === '{name}'", 30)
            page.mouse.up()
            until(page, "hebbstream.state.run.sources.camera.shown === -1", 10)
        until(page, f"{NAMES} === 'cup,pen' && {CLASSES} === 2", 10)
        page.fill("#teach-name", "key")
        until(page, "!document.getElementById('teach-correct').disabled", 5)
        page.click("#teach-correct")  # the last lesson was a key after all
        until(page, f"{NAMES} === 'cup,pen,key' && {CLASSES} === 3", 10)
        page.click("#teach-save")
        until(page, "document.getElementById('teach-files').value.endsWith('.taught')", 20)
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTEFACTS / "taught-light.png", full_page=True)
        page.click("#teach-names button:has-text('cup')")
        until(page, "document.getElementById('teach-name').value === 'cup'", 5)
        page.click("#teach-forget")
        until(page, f"{NAMES} === 'pen,key'", 10)
        page.click("#teach-load")
        until(page, f"{NAMES} === 'cup,pen,key'", 10)
        assert complaints == []
        page.close()
    finally:
        lesson.end()
    marks = [type(it).__name__ for it in recorded(tmp_path / "lesson.hbs") if not isinstance(it, Packet)]
    told = [name for name in marks if name in ("Show", "Correct", "Forget", "Deploy")]
    assert told == ["Show", "Show", "Show", "Show", "Correct", "Forget", "Deploy"]  # all of it is in the stream

    # so the session is replayed to the bit, without anybody at the page
    live = TAUGHT[TAUGHT.index("kind = ") : TAUGHT.index("[[operator]]")]
    kept = 'kind = "sources.recorded.RecordedStream"\nparams = { path = "lesson.hbs", width = 34, height = 34 }\n\n'
    (tmp_path / "again.toml").write_text(TAUGHT.replace(live, kept))
    again = ["run", "again.toml", "--one-process", "--quiet", "--record", "learner.answers=again.hbs"]
    done = subprocess.run([sys.executable, "-P", "-m", "stream", *again], cwd=tmp_path, check=False, timeout=200)
    assert done.returncode == 0
    first, second = (read_recording(tmp_path / name).items("answers") for name in ("answers.hbs", "again.hbs"))
    assert len(first) > 20
    assert first.tolist() == second.tolist()


def recorded(path: Path) -> list[Any]:
    """Return the messages of a recording."""
    from stream.record import recorded_messages

    return [it for _, it, _ in recorded_messages(path)]


def middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_run_is_found_by_number_and_name() -> None:
    assert find_run("", lambda: []) is None
    told = {"pid": 5, "pipeline": "p", "taps": {"folder": "", "listed": {}}}
    assert find_run("", lambda: [told]) is None  # nothing to look through
    told = {**told, "taps": {"folder": "/x", "listed": {}}}
    assert find_run("", lambda: [told]) is told
    assert find_run("5", lambda: [told]) is told
    assert find_run("q", lambda: [told]) is None
