"""How fast the live page is drawn, and that a slow browser slows no pipeline.

A recording of moving edges and noise, 640x480 pixels and 5 million events a second, is replayed with ``--view`` and
opened in a headless Chromium that draws in software. Frames are counted in three spans, the first right after the
page has shown its first events. The limit is the same page beside a camera of 100,000 events a second: what this
browser on this machine can draw at all. Without a browser there is nothing to measure.

Then the recording is played at its own pace, and as fast as it goes, in turn without a page and beside a browser that
asks for frames and reads none. At its own pace nothing may be missing. As fast as it goes a viewer costs what its share
of the events costs to be copied and encoded, wherever the processors are all taken.
"""

import contextlib
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from stream.bench import Measurement
from stream.errors import RunError

__all__ = ["measurements"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
WIDTH, HEIGHT, RATE_HZ, QUIET_HZ = 640, 480, 5_000_000, 100_000
SPAN_S, PATIENCE_S = 5.0, 120.0

PIPELINE = """
name = "page"
[[source]]
name = "camera"
kind = "sources.event_file.EventFile"
params = {{ path = "{path}" }}
speed = {speed}
loop = {loop}
packet_items = 16384
[[operator]]
name = "pass"
kind = "stream.bench.Pass"
[[edge]]
from = "camera.events"
to = "pass.events"
"""


def measurements(quick: bool) -> Iterator[Measurement]:
    """Measure the page in a browser, if there is one, and the pipeline beside a browser that reads nothing.

    Parameters
    ----------
    quick
        Nothing is measured: a browser has to come up, and a page to be looked at for seconds.
    """
    if quick:
        return
    with tempfile.TemporaryDirectory(prefix="hebbstream-") as temporary:
        folder = Path(temporary)
        path = folder / "edges.dat"
        _write(path, RATE_HZ)
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser and importlib.util.find_spec("playwright"):
            few = folder / "few.dat"
            _write(few, QUIET_HZ)
            limit = max(rate for rate, _ in _frames(folder, few, browser, 2))
            memory = []
            for k, (rate, bytes_) in enumerate(_frames(folder, path, browser, 3)):
                memory.append(bytes_)
                name = f"page, 640x480 at 5 M events/s, span {k + 1}"
                yield Measurement(name, rate, "frames", "the same page at 100 k events/s", limit)
            if memory[0] > 0:
                yield Measurement("page, memory of its process, span 3", memory[-1], "bytes", "span 1", memory[0])
        else:
            print("no Chromium, or no Playwright: the page is not measured", file=sys.stderr)
        for name, speed, loops in (("5 M events/s", "1.0", 5), ("flat out", '"max"', 60)):
            alone, beside = [], []
            for _ in range(3):
                alone.append(_played(folder, path, speed, loops, shown=False))
                beside.append(_played(folder, path, speed, loops, shown=True))
            yield Measurement(
                f"pipeline beside a browser that reads nothing, {name}",
                max(beside),
                "events",
                "without a page",
                max(alone),
            )


def _write(path: Path, n_events: int) -> None:
    """Write a second of events."""
    events = importlib.import_module("sources.decode_bench").edges_and_noise(n_events, WIDTH, HEIGHT)
    events["t"] *= 1_000_000 // max(1, int(events["t"][-1]) + 1)
    with importlib.import_module("sources.dat").DatWriter(path, WIDTH, HEIGHT) as writer:
        writer.write(events)


@contextlib.contextmanager
def _running(folder: Path, path: Path, speed: str, loop: int, *, shown: bool) -> Iterator[tuple[Any, str]]:
    """Run the pipeline in a process of its own; hands out the process, and the page's address if there is one."""
    file, log = folder / "page.toml", folder / "log"
    file.write_text(PIPELINE.format(path=path, speed=speed, loop=loop))
    words = [sys.executable, "-P", "-m", "stream", "run", str(file), "--one-process", "--quiet"]
    words += ["--summary", str(folder / "summary.json"), *(["--view"] if shown else [])]
    with log.open("wb") as out:
        process = subprocess.Popen(words, cwd=folder, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + PATIENCE_S
        address = None
        while shown and not address:
            address = re.search(r"page at (\S+)", log.read_text(errors="replace"))
            if process.poll() is not None or time.monotonic() > deadline:
                raise RunError(f"the page did not come up: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.02)
        yield process, address[1] if address else ""
    finally:
        process.terminate()
        process.wait(30)


def _frames(folder: Path, path: Path, browser: str, n_spans: int) -> Iterator[tuple[float, float]]:
    """Open the page; yield frames a second and the page's memory of each span."""
    api = importlib.import_module("playwright.sync_api")
    with _running(folder, path, "1.0", 0, shown=True) as (process, address), api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=list(OPTIONS))
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        deadline = time.monotonic() + PATIENCE_S
        while not page.evaluate("hebbstream.surfaceSum > 0"):
            if time.monotonic() > deadline:
                raise RunError("the page showed no events")
            page.wait_for_timeout(50)
        for _ in range(n_spans):
            before, start_s = page.evaluate("hebbstream.frames"), time.perf_counter()
            page.wait_for_timeout(1000 * SPAN_S)
            rate = (page.evaluate("hebbstream.frames") - before) / (time.perf_counter() - start_s)
            yield rate, _memory(process.pid)
        chromium.close()


def _memory(pid: int) -> float:
    """Return the resident memory of a process's child that serves the page, bytes; nan where that is not told."""
    with contextlib.suppress(OSError, StopIteration):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        page = next(it for it in children if b"\0view\0" in Path(f"/proc/{it}/cmdline").read_bytes())
        return 4096.0 * int(Path(f"/proc/{page}/statm").read_text().split()[1])
    return float("nan")


def _played(folder: Path, path: Path, speed: str, loops: int, *, shown: bool) -> float:
    """Play the recording so often; return events a second of it."""
    with _running(folder, path, speed, loops, shown=shown) as (process, address), contextlib.ExitStack() as stack:
        if shown:
            url = address.replace("http", "ws") + "socket"
            browser = stack.enter_context(connect(url, max_queue=1, close_timeout=0.5, compression=None))
            for _ in range(200):
                browser.send('{"next": true}')
        if process.wait(PATIENCE_S):
            raise RunError(f"the run failed: {(folder / 'log').read_text(errors='replace')[-500:]}")
    summary = json.loads((folder / "summary.json").read_text())
    return float(summary["ledger"][0]["items"][1]) / float(summary["wall_s"])
