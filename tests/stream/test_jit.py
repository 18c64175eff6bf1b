"""The kernel cache: never stale, safe when two processes compile at once, and never in the way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HELPER = """
from stream.jit import kernel
FACTOR = 2
@kernel
def helper(x):
    return {expression}
"""
CALLER = """
import probe.helper
from probe.helper import helper
from stream.jit import kernel
@kernel
def caller(x):
    return helper(x) + 1.0
"""
SCRIPT = """
import stream.jit
stream.jit.PACKAGES += ("probe",)
from probe.caller import caller
print(caller(1.0), sum(caller.stats.cache_hits.values()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "__init__.py").write_text("")
    (tmp_path / "probe" / "caller.py").write_text(CALLER)
    (tmp_path / "probe" / "helper.py").write_text(HELPER.format(expression="FACTOR * x"))
    return tmp_path


def environment(project: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "HEBBSTREAM_CACHE": str(project / "cache"), **more}


def call(project: Path, **more: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT],
        env=environment(project, **more),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_editing_a_helper_in_another_file_recompiles_its_caller(project: Path) -> None:
    assert call(project) == "3.0 0"
    assert call(project) == "3.0 1"  # from the cache
    (project / "probe" / "helper.py").write_text(HELPER.format(expression="FACTOR * x + 8"))
    assert call(project) == "11.0 0"
    assert call(project) == "11.0 1"
    helper = HELPER.format(expression="FACTOR * x + 8").replace("FACTOR = 2", "FACTOR = 5")
    (project / "probe" / "helper.py").write_text(helper)
    assert call(project) == "14.0 0"


def test_the_same_sources_elsewhere_find_what_was_compiled(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert call(project) == "3.0 0"
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(project / "probe", other / "probe", ignore=shutil.ignore_patterns("__pycache__"))
    assert call(other, HEBBSTREAM_CACHE=str(project / "cache")) == "3.0 1"


def test_processes_that_compile_at_once_do_not_disturb_each_other(project: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT], env=environment(project), stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert [process.communicate(timeout=120)[0].split()[0] for process in processes] == ["3.0"] * 4
    assert call(project) == "3.0 1"


def test_a_cache_that_cannot_be_written_is_no_obstacle(project: Path) -> None:
    (project / "file").write_text("")
    assert call(project, HEBBSTREAM_CACHE=str(project / "file" / "below"), TMPDIR=str(project)) == "3.0 0"


def test_kernels_run_uncompiled_too(project: Path) -> None:
    script = "import numpy as np\nfrom stream.wire import *\nfrom stream.packet import *\n"
    script += "p = packet_of(np.zeros(3, EVENT_DTYPE))\nprint(len(decode(encode(p, stream='s', sequence=0))[1].items))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env=environment(project, NUMBA_DISABLE_JIT="1"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "3", done.stderr


@pytest.mark.parametrize("kind", ["inner_kernel", "inline_kernel"])
def test_what_only_kernels_call_is_compiled_into_them_alone(project: Path, kind: str) -> None:
    """It has no file of its own, and its callers are compiled anew when it changes."""
    helper = HELPER.replace("import kernel", f"import {kind}").replace("@kernel", f"@{kind}")
    (project / "probe" / "helper.py").write_text(helper.format(expression="FACTOR * x"))
    assert call(project) == "3.0 0"
    assert call(project) == "3.0 1"
    folders = {
        it.name.rpartition("-")[0]: len(list(it.glob("*.nbc"))) for it in (project / "cache" / "kernels").iterdir()
    }
    assert folders == {"probe.caller": 1}
    (project / "probe" / "helper.py").write_text(helper.format(expression="FACTOR * x + 8"))
    assert call(project) == "11.0 0"
