"""Photograph the live page for the site: small runs of the demo, a replay and a lesson, in a headless Chromium.

``python docs/site/screens.py OUT``. Where there is no browser it says so and leaves no pictures; the site says it too.
"""

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@contextlib.contextmanager
def served(folder: Path, *command: str) -> Iterator[str]:
    """Run a command of hebbstream with ``--view``; hands out the page's address."""
    log = folder / "log"
    with log.open("wb") as file:
        words = [sys.executable, "-P", "-m", "stream", *command, "--view"]
        process = subprocess.Popen(words, cwd=folder, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"page at (\S+)", log.read_text(errors="replace"))):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(log.read_text(errors="replace"))
            time.sleep(0.1)
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)


def until(page: Any, expression: str, timeout_s: float) -> None:
    """Wait for something to be true in the page."""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(f"Boolean({expression})"):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {timeout_s} s: {expression}")
        page.wait_for_timeout(100)


def shoot(page: Any, out: Path, name: str) -> None:
    """Take the page in light, in dark, and as on a phone."""
    page.screenshot(path=out / f"{name}-light.png", full_page=True)
    page.click("#theme")
    page.wait_for_timeout(300)
    page.screenshot(path=out / f"{name}-dark.png", full_page=True)
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(500)
    page.screenshot(path=out / f"{name}-phone.png", full_page=True)


def main(out: Path) -> None:
    """Take all pictures."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None or importlib.util.find_spec("playwright") is None:
        print("no Chromium, or no Playwright: the site has no pictures of the page")
        return
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as api, tempfile.TemporaryDirectory() as temporary:
        options = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        browser = api.chromium.launch(executable_path=path, args=options)

        def opened(address: str) -> Any:
            page = browser.new_page(viewport=WIDE, color_scheme="light")
            page.goto(address)
            until(page, "hebbstream.surfaceSum > 0", 300)
            return page

        folder = Path(temporary)
        with served(folder, "demo", "--speed", "30", "--out", str(folder / "demo")) as address:
            page = opened(address)
            # well into the part that is taught, so that there is something to see
            until(page, "hebbstream.state.tUs > 180e6", 300)
            shoot(page, out, "demo")
        with served(folder, "replay", "simulated", "--size", "64x64") as address:
            page = opened(address)
            page.wait_for_timeout(2000)
            shoot(page, out, "replay")
        with served(folder, "run", str(ROOT / "demos" / "teach.toml"), "--one-process") as address:
            page = opened(address)
            page.fill("#teach-name", "cup")
            box = page.locator("#teach-hold").bounding_box()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            page.mouse.down()
            until(page, "document.getElementById('answer').textContent === 'cup'", 60)
            page.screenshot(path=out / "teach-light.png", full_page=True)
            page.mouse.up()
        browser.close()
    print(f"pictures in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
