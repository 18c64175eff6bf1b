"""What is shipped: the wheel holds the five folders, all of them, and nothing else."""

import importlib
import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("stream", "sources", "neurons", "plasticity", "chip")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from a copy of the checkout."""
    copy, out = tmp_path_factory.mktemp("copy") / "project", tmp_path_factory.mktemp("out")
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("not a git checkout")
    for name in files.stdout.split("\n"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_five_folders_and_nothing_else(wheel: set[str]) -> None:
    shipped = {name for name in wheel if not name.split("/")[0].endswith(".dist-info")}
    suffixes = {".py", ".toml", ".typed", ".html", ".js", ".css"}
    there = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in suffixes
    }
    assert shipped == there


def test_the_wheel_has_the_command_and_the_licence(wheel: set[str]) -> None:
    assert any(name.endswith("entry_points.txt") for name in wheel)
    assert any(name.endswith("LICENSE") for name in wheel)


def test_tests_run_against_the_installed_build() -> None:
    """Not against the checkout: what is tested is what is shipped."""
    try:
        importlib.metadata.distribution("hebbstream")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("hebbstream is not installed here: run `make test`")
    for package in PACKAGES:
        where = Path(str(importlib.import_module(package).__file__)).resolve()
        if ROOT in where.parents and "site-packages" not in where.parts:
            pytest.skip("the checkout is on the path: run `make test`")
        assert "site-packages" in where.parts


def test_every_module_imports() -> None:
    for package in PACKAGES:
        for path in sorted((ROOT / package).glob("*.py")):
            if path.stem not in ("__init__", "__main__"):
                importlib.import_module(f"{package}.{path.stem}")
