"""The one module that knows Numba.

``kernel`` compiles a function to machine code and keeps that code on disk. Numba's own cache is keyed on the
source file of the kernel alone: edit a *helper* kernel, or a constant, in another file and the caller goes on
running the old machine code (numba/numba#6061 and kin; we measured 3.0 where 11.0 was right). So each module's
kernels are kept in a folder named by a digest of that module *and of every module of ours that it imports*,
directly or not. A kernel sees nothing of ours but its module's globals, and those come from there: the digest
is exact, not a guess.

Roads not taken: one digest over all our files is as safe, but any edit anywhere recompiles everything; explicit
signatures instead of lazy compilation fix the type of each argument, but double the text of each kernel and
forbid the float64 runs that the gradient tests need.
"""

import ast
import functools
import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import filelock
import numba
import numpy as np
import platformdirs
from numba.core.caching import IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.typed_passes import IRLegalization

__all__ = ["cache_root", "inline_kernel", "inner_kernel", "kernel", "kernels"]

P = ParamSpec("P")
R = TypeVar("R")

PACKAGES = ("stream", "sources", "neurons", "plasticity", "chip")

_registry: list[Any] = []
_config: Any = numba.config  # filled at run time from the environment, so no checker knows its names


def kernels() -> list[Any]:
    """Every compiled kernel of this process; its ``signatures`` tell what was compiled."""
    return list(_registry)


@functools.cache
def cache_root() -> Path:
    """Return the folder for everything that can be made again: ``HEBBSTREAM_CACHE``, or the user's cache directory.

    Falls back to a folder under the system's temporary directory where that cannot be written (a read-only home).
    """
    wanted = Path(os.environ.get("HEBBSTREAM_CACHE") or platformdirs.user_cache_dir("hebbstream"))
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted):
            return wanted
    except OSError:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        fallback = Path(tempfile.gettempdir()) / f"hebbstream-cache-{user}"
        fallback.mkdir(mode=0o700, parents=True, exist_ok=True)
        return fallback


def _module_file(module: str) -> Path | None:
    """Find the source of a module of ours without executing it; None for anything else."""
    if module.split(".")[0] not in PACKAGES:
        return None
    loaded = sys.modules.get(module)
    if loaded is not None and getattr(loaded, "__file__", None):
        return Path(str(loaded.__file__))
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


@functools.cache
def _digest(path: Path) -> str:
    """Digest a source file together with all modules of ours that it imports, directly or not."""
    seen: dict[Path, bytes] = {}
    pending = [path]
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen[current] = current.read_bytes()
        for node in ast.walk(ast.parse(seen[current])):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                # `from neurons import lif` may name a module; `from neurons.lif import LIFParams` names none
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            pending += [found for name in names if (found := _module_file(name)) is not None]
    digest = hashlib.sha256(f"{sys.version_info[:2]} {numba.__version__} {np.__version__}".encode())
    # contents only: the same sources give the same folder from a checkout and from a wheel
    for content in sorted(seen.values()):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def _keep_on_disk(dispatcher: Any, module: str, path: Path) -> None:
    """Give a dispatcher its cache folder, and a lock around every use of it.

    Numba names cached files by a running number found in an index; two processes that save at once can leave
    an index that points to the other's code (numba/numba#10128). One lock per folder makes load and save atomic.
    """
    folder = cache_root() / "kernels" / f"{module}-{_digest(path)}"
    folder.mkdir(parents=True, exist_ok=True)
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder)
    try:
        dispatcher.enable_caching()
    finally:
        _config.CACHE_DIR = before  # a user's own kernels keep their place
    cache = dispatcher._cache
    # Numba keeps files apart by the path and the date of their source. Here the folder says what the code was made of,
    # so a fresh checkout, another environment or a new installation finds what is there.
    cache._cache_path = str(folder)
    index: Any = IndexDataCacheFile
    cache._cache_file = index(str(folder), cache._impl.filename_base, source_stamp=folder.name)
    lock = filelock.FileLock(folder / "lock")
    for name in ("load_overload", "save_overload"):
        unlocked = getattr(cache, name)

        def locked(*arguments: Any, unlocked: Any = unlocked) -> Any:
            with lock:
                return unlocked(*arguments)

        setattr(cache, name, locked)


class _NoEnvironment:
    """A code generator that gives a function no Python environment; kernels never go back to Python."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def set_env(self, name: str, env: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)


class _InCallers(JITCodeLibrary):
    """The code of a kernel that only kernels call: left as it is until it stands in them.

    Numba optimises each function together with all that it calls, and makes machine code of it, before that goes into
    the next caller, where all is done again. What lies deep is so compiled as often as it lies deep: a third of a
    demo's first compilation (165 s where it is 108 now) went into machine code that nobody ever ran.
    """

    @property
    def codegen(self) -> Any:
        return _NoEnvironment(self._codegen)

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # Numba has no types
        self._verify_declare_only_symbols()  # type: ignore[no-untyped-call] # Numba has no types
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0  # there is none


@register_pass(mutates_CFG=False, analysis_only=True)  # type: ignore[no-untyped-call] # Numba has no types
class _LeaveToCallers(FunctionPass):
    """Give the function that is being compiled a library of ``_InCallers``."""

    _name = "hebbstream_leave_to_callers"

    def __init__(self) -> None:
        FunctionPass.__init__(self)  # type: ignore[no-untyped-call] # Numba has no types

    def run_pass(self, state: Any) -> bool:
        state.library = _InCallers(state.targetctx.codegen(), state.func_id.func_qualname)  # type: ignore[no-untyped-call] # Numba has no types
        return False


class _InnerCompiler(CompilerBase):
    """Numba's usual pipeline, with ``_LeaveToCallers`` before code is made."""

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)  # type: ignore[no-untyped-call] # Numba has no types
        place = [which for which, _ in pipeline.passes].index(IRLegalization)
        pipeline.passes.insert(place, (_LeaveToCallers, "leave the code to callers"))
        pipeline.finalize()
        return [pipeline]


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function to machine code, cached on disk.

    A kernel is pure: state, parameters and preallocated outputs in, a count out. It allocates, prints and raises
    nothing. Read fields as ``event["t"]``, never ``event.t``, so that it also runs with NUMBA_DISABLE_JIT=1.

    Parameters
    ----------
    function
        The function to compile.

    Notes
    -----
    ``error_model="numpy"``: division by zero gives inf as in NumPy instead of a branch and a raise in each loop.
    ``nogil``: a pipeline in one process can overlap a kernel with ZeroMQ's and the status line's threads.
    No ``fastmath``, not even for gradients: which way the compiler reorders a sum depends on whether a helper was
    inlined, so that a kernel just compiled and the same one loaded from the cache differ in the last bits. Sums that
    have to be fast say their order themselves (``stream.lanes.dot``).
    ``_nrt=False``: a kernel allocates nothing, so nothing needs to be counted. With counting, each array that goes into
    a helper costs two atomic additions: kernels that pass large NamedTuples on ran three to ten times longer.
    """
    return _compiled(function)


def inner_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that only other kernels call; as ``kernel``.

    It has no way in from Python, which for a NamedTuple of many arrays takes longer to compile than the function, no
    machine code and no file of its own: all that is its callers'.
    """
    return _compiled(function, is_inner=True)


def inline_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function into each place where a kernel calls it; as ``inner_kernel``.

    For what is called per event with many arguments: handing over a few arrays costs as much as adding 256 numbers.
    """
    return _compiled(function, is_inner=True, forceinline=True)


def _compiled(function: Callable[P, R], is_inner: bool = False, **options: Any) -> Callable[P, R]:
    if _config.DISABLE_JIT:
        return function
    njit: Any = numba.njit
    if is_inner:
        options |= {"no_cpython_wrapper": True, "pipeline_class": _InnerCompiler}
    dispatcher = njit(error_model="numpy", nogil=True, _nrt=False, no_cfunc_wrapper=True, **options)(function)
    path = _module_file(function.__module__)
    # a kernel written in a user's script or a test is compiled for this process alone
    if path is not None and not is_inner:
        _keep_on_disk(dispatcher, function.__module__, path)
    _registry.append(dispatcher)
    compiled: Callable[P, R] = dispatcher
    return compiled
