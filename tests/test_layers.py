"""Who may import whom: the table of the house, enforced on every import statement."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "stream": set(),
    "sources": {"stream"},
    "neurons": {"stream"},
    "plasticity": {"stream", "neurons"},
    "chip": {"stream", "neurons"},
}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_folder_imports_only_what_it_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: relative import"
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                ours = {*MAY_IMPORT, "tests", "demos"}
                assert top not in ours - MAY_IMPORT[package] - {package}, f"{path}:{node.lineno}: imports {name}"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_numba_is_known_in_one_place(package: str) -> None:
    """``stream.jit`` compiles; two files add the vector instructions that Numba does not find by itself."""
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if any(name.split(".")[0] == "numba" for name in names):
                known = [ROOT / name for name in ("stream/jit.py", "stream/lanes.py", "plasticity/hebbian_lanes.py")]
                assert path in known, f"{path}:{node.lineno}: imports numba"
