"""The one import of numba: `jit` for the event loop and the control laws that it runs.

numba's file cache does not notice an edited callee in another file and is keyed to the CPU only by name, so the cache
folder is named by the digest of every source that may be compiled, numba's version and the target. Edit a law, and the
next run compiles anew; nothing stale is ever loaded. `NUMBA_DISABLE_JIT=1` runs the same functions as plain Python.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config as _config

_HERE = Path(__file__).parent
_COMPILED_ROOMS = ("twin", "domain")
"""Rooms of which compiled functions use constants; elsewhere only the files that import this one are compiled."""
F = TypeVar("F", bound=Callable[..., Any])


def sources_digest(root: Path = _HERE) -> str:
    """16 hex digits that change with any source that numba may compile, with numba, Python and the CPU target."""
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        source = file.read_bytes()
        if b"tiphys.compiled import" in source or file.parent.name in _COMPILED_ROOMS:
            digest.update(str(file.relative_to(root)).encode() + b"\0" + source + b"\0")
    digest.update(f"{numba.__version__} {sys.version} {_target()}".encode())
    return digest.hexdigest()[:16]


def _target() -> str:
    from numba.core.registry import cpu_target

    codegen = cpu_target.target_context.codegen()
    return f"{codegen.magic_tuple()}"


def cache_folder() -> Path:
    """Where compiled code is kept: `$TIPHYS_CACHE`, else `$XDG_CACHE_HOME/tiphys`, else `~/.cache/tiphys`."""
    root = os.environ.get("TIPHYS_CACHE")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tiphys"
    return base / "compiled" / sources_digest()


_config.CACHE_DIR = str(cache_folder())  # type: ignore[attr-defined]


def jit(function: F) -> F:
    """`function` compiled to machine code (nopython, cached on disk, IEEE arithmetic: no fastmath).

    One whose name begins with an underscore can be called by compiled code only: what Python needs in order to call a
    function with many arrays takes longer to compile than the function.
    """
    return _compiled(function, inner=function.__name__.startswith("_"))


def inner_jit(function: F) -> F:
    """As `jit`, callable by compiled code only."""
    return _compiled(function, inner=True)


def lean_jit(function: F) -> F:
    """As `inner_jit`, without reference counts: for the functions of the event loop, which own and allocate no array.

    Counting references to the arrays that are handed from one small function to the next took five sixths of the
    loop's time.
    """
    return _compiled(function, inner=True, _nrt=False)


def law_jit(function: F) -> F:
    """As `jit`, without reference counts: for a law that owns, allocates and returns no array, called by Python too."""
    return _compiled(function, inner=function.__name__.startswith("_"), _nrt=False)


def inlined_jit(function: F) -> F:
    """As `lean_jit`, and made part of its caller: for what happens at every request, where handing over the arrays
    took half the time.
    """
    return _compiled(function, inner=True, _nrt=False, forceinline=True)


def generated_jit(function: F, lean: bool) -> F:
    """As `lean_jit` or `inner_jit`, for a function that was made by the program: it has no file to be cached by, and
    becomes part of what is cached of its callers.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True} | ({"_nrt": False} if lean else {})
    return cast(F, numba.njit(error_model="numpy", **options)(function))  # type: ignore[call-overload]


def _compiled(function: F, *, inner: bool, **options: bool) -> F:
    if inner:
        options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast(F, numba.njit(cache=True, error_model="numpy", **options)(function))  # type: ignore[call-overload]


def is_cached(function: str) -> bool:
    """True when `module.function` has already been compiled for these very sources."""
    folder = cache_folder()
    return folder.is_dir() and any(folder.rglob(f"{function}-*.nbi"))
