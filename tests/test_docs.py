"""The site: it builds without a warning, its links lead somewhere, its Python runs, its commands and files exist."""

import doctest
import html.parser
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from stream.jit import PACKAGES, cache_root
from stream.pipeline import build, check, load, ports_of

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [it for it in PAGES if blocks(it, "python")], ids=lambda it: it.stem)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text("\n".join(blocks(page, "python")))
    done = subprocess.run(
        [sys.executable, "-P", "page.py"],
        cwd=tmp_path,
        env={**os.environ, "HEBBSTREAM_CACHE": str(cache_root())},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [it for it in PAGES if blocks(it, "toml")], ids=lambda it: it.stem)
def test_the_pipelines_of_a_page_are_pipelines(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        path = tmp_path / "pipeline.toml"
        is_whole = re.search(r"^name = .*\n\n\[\[", text)
        path.write_text(text if is_whole else 'name = "part"\n' + text)
        pipeline = load(path)
        if is_whole and "path/to" not in text:
            members = build(pipeline)
            check(pipeline, {name: ports_of(member) for name, member in members.items()})
            for member in members.values():
                member.close()


def test_examples_in_docstrings_run() -> None:
    tried = 0
    for package in PACKAGES:
        for path in (ROOT / package).glob("*.py"):
            if ">>>" in path.read_text(encoding="utf-8"):
                result = doctest.testmod(importlib.import_module(f"{package}.{path.stem}"))
                tried += result.attempted
                assert result.failed == 0, path
    assert tried > 0


def test_what_the_pages_name_is_there() -> None:
    commands = {"hebbstream"}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"`((?:tests|demos|docs|chip)/[\w/.-]+\.\w+)`", text):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
        for name in re.findall(rf"`((?:{'|'.join(PACKAGES)})\.[a-z_0-9]+)`", text):
            assert importlib.util.find_spec(name), f"{page.name}: {name}"
        commands |= set(re.findall(r"^    hebbstream ([a-z]+)", text, re.MULTILINE))
    help_text = subprocess.run(
        [sys.executable, "-P", "-m", "stream", "--help"], capture_output=True, text=True, timeout=60
    ).stdout
    for name in commands - {"hebbstream"}:
        assert re.search(rf"\b{name}\b", help_text), name


class _Links(html.parser.HTMLParser):
    """Collects what a page links to, and what can be linked to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@pytest.mark.slow
def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs is not installed: pip install '.[docs]'")
    if not (ROOT / "mkdocs.yml").exists():
        pytest.skip("the site is not part of an installed build")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=290,
    )
    assert done.returncode == 0, done.stderr
    found: dict[Path, _Links] = {}
    for path in site.rglob("*.html"):
        found[path] = _Links()
        found[path].feed(path.read_text(encoding="utf-8"))
    outside = set()
    for path, page in found.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                outside.add(parts.netloc)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if path.name != "404.html":
                assert target.exists(), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target in found:
                anchors = found[target].anchors | {"__search", "__drawer"}
                assert unquote(parts.fragment) in anchors, f"{path.relative_to(site)}: {link}"
    assert len(found) > 15
    reference = (site / "pipeline_file.html").read_text(encoding="utf-8")
    for kind in ("sources.simulated.SimulatedCamera", "plasticity.learner.OnlineLearner", "chip.node.ChipNode"):
        assert kind in reference
    assert "--one-process" in (site / "commands.html").read_text(encoding="utf-8")
    for script in re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"(https?:[^\"]+)", reference):
        assert 'rel="canonical"' in script, f"the site fetches {script}"
