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
from typing import Any, TypeVar

import numba
from numba.core import config as _config

_HERE = Path(__file__).parent
_COMPILED_ROOMS = ("compiled.py", "policies", "twin")
F = TypeVar("F", bound=Callable[..., Any])


def sources_digest(root: Path = _HERE) -> str:
    """16 hex digits that change with any source that numba may compile, with numba, Python and the CPU target."""
    digest = hashlib.sha256()
    for room in _COMPILED_ROOMS:
        path = root / room
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes() + b"\0")
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


_config.CACHE_DIR = str(cache_folder())


def jit(function: F) -> F:
    """`function` compiled to machine code (nopython, cached on disk, IEEE arithmetic: no fastmath)."""
    return numba.njit(cache=True, error_model="numpy")(function)  # type: ignore[no-any-return]


def lean_jit(function: F) -> F:
    """As `jit`, without reference counts: for the inner functions of the event loop, which own and allocate no array.

    Counting references to the arrays that are handed from one small function to the next took five sixths of the loop's time.
    """
    return numba.njit(cache=True, error_model="numpy", _nrt=False)(function)  # type: ignore[no-any-return]


def is_cached() -> bool:
    """True when something has already been compiled for these very sources."""
    folder = cache_folder()
    return folder.is_dir() and any(folder.rglob("*.nbi"))
