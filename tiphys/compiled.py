"""The one import of numba: `jit` for the event loop and the control laws that it runs.

numba's file cache does not notice an edited callee in another file and is keyed to the CPU only by name, so the cache
folder is named by the digest of every source that may be compiled, numba's version and the target. Edit a law, and the
next run compiles anew; nothing stale is ever loaded. `NUMBA_DISABLE_JIT=1` runs the same functions as plain Python.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils, compiler
from numba.core import config as _config
from numba.core.typing import templates
from numpy.typing import NDArray

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


def generated_jit(function: F) -> F:
    """As `lean_jit`, for a function that was made by the program: it has no file to be cached by, and becomes part of
    what is cached of its callers.
    """
    return cast(F, _part(function, _nrt=False))


def _compiled(function: F, *, inner: bool, **options: bool) -> F:
    part = _part(function, **options)
    if inner or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return cast(F, part)
    entry = numba.njit(cache=True, error_model="numpy", **options)(function)  # type: ignore[call-overload]
    # called by compiled code it is a part of that, too
    entry.get_call_template, entry.get_overload = part.get_call_template, part.get_overload
    return cast(F, entry)


def _part(function: Any, **options: bool) -> Any:
    """The dispatcher of a function that only compiled code calls. It knows its functions by names that stand for their
    entries, as they have none.
    """
    options |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    part: Any = numba.njit(error_model="numpy", pipeline_class=_PartOfCallers, **options)(function)  # type: ignore[call-overload]
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return part

    def remember(result: Any) -> None:
        named = result._replace(entry_point=object())
        result.target_context.insert_user_function(named.entry_point, result.fndesc, [result.library])
        part.overloads[tuple(result.signature.args)] = named

    part.add_overload = remember
    return part


class _PartOfCallers(compiler.Compiler):  # type: ignore[misc]
    """Compiles a function that only compiled code calls: no machine code of its own, no optimization of its own.

    It becomes part of its callers, as it does when they are read from the cache, and is optimized there, once. Doing
    both for every function on the way up took two thirds of all time to compile.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        library = self.state.targetctx.codegen().create_library("part")
        library._optimize_final_module = library._finalize_specific = lambda: None
        self.state.library = library
        self.state.flags.no_compile = True


def is_cached(function: str) -> bool:
    """True when `module.function` has already been compiled for these very sources."""
    folder = cache_folder()
    return folder.is_dir() and any(folder.rglob(f"{function}-*.nbi"))


# --- many arrays as one argument


class Handle:
    """Arrays under their names, handed to compiled code as one pointer: `handle.name` there is the array.

    A function that takes dozens of arrays takes longer to be compiled, and to be called, than it has work to do. The
    arrays are C-contiguous, live as long as the handle, and are neither replaced nor counted references to.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = dict(arrays)
        self.layout = _HandleType(tuple((name, _type_of(name, array)) for name, array in self.arrays.items()))
        words: list[int] = []
        for array in self.arrays.values():
            words += [array.size, array.ctypes.data, *array.shape, *array.strides]
        self._table = np.array(words, np.int64)
        self.address = int(self._table.ctypes.data)


def _type_of(name: str, array: NDArray[Any]) -> Any:
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} does not lie in one piece")
    return types.Array(numba.typeof(array).dtype, array.ndim, "C")  # type: ignore[call-overload]


class _HandleType(types.Type):  # type: ignore[misc]
    """The names and types of a handle's arrays, and where the words of each begin."""

    def __init__(self, fields: tuple[tuple[str, Any], ...]) -> None:
        self.fields = dict(fields)
        self.first_word: dict[str, int] = {}
        words = 0
        for name, kind in fields:
            self.first_word[name] = words
            words += 2 + 2 * kind.ndim
        super().__init__(name=f"Handle{fields}")


@extending.typeof_impl.register(Handle)
def _typeof_handle(value: Handle, _context: Any) -> _HandleType:
    return value.layout


@extending.register_model(_HandleType)
class _HandleModel(extending.models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@extending.unbox(_HandleType)
def _unbox_handle(_kind: Any, value: Any, context: Any) -> Any:
    address = context.pyapi.object_getattr_string(value, "address")
    native = context.unbox(types.int64, address)
    context.pyapi.decref(address)
    return native


@templates.infer_getattr
class _HandleAttributes(templates.AttributeTemplate):  # type: ignore[misc]
    key = _HandleType

    def generic_resolve(self, kind: _HandleType, name: str) -> Any:  # type: ignore[override]
        return kind.fields.get(name)


@extending.lower_getattr_generic(_HandleType)
def _get_array(context: Any, builder: Any, kind: _HandleType, value: Any, name: str) -> Any:
    """The array's descriptor, read from the table; nothing in the table ever changes, and LLVM is told so."""
    of = kind.fields[name]
    word = ir.IntType(64)
    table = builder.inttoptr(value, word.as_pointer())
    unchanging = builder.module.add_metadata([])

    def read(place: int) -> Any:
        address = builder.gep(table, [ir.Constant(word, kind.first_word[name] + place)])
        loaded = builder.load(address)
        loaded.set_metadata("invariant.load", unchanging)
        return loaded

    array = context.make_array(of)(context, builder)
    array.meminfo = ir.Constant(array.meminfo.type, None)
    array.parent = ir.Constant(array.parent.type, None)
    array.nitems = read(0)
    array.itemsize = ir.Constant(word, context.get_abi_sizeof(context.get_data_type(of.dtype)))
    array.data = builder.inttoptr(read(1), array.data.type)
    array.shape = cgutils.pack_array(builder, [read(2 + axis) for axis in range(of.ndim)])
    array.strides = cgutils.pack_array(builder, [read(2 + of.ndim + axis) for axis in range(of.ndim)])
    return array._getvalue()


def _view(dimensions: int) -> Any:
    """A view without the checks of a slice, of which a flat memory's layout has no need."""

    @extending.intrinsic  # type: ignore[misc]
    def view(_context: Any, store: Any, start: Any, rows: Any, columns: Any) -> Any:
        result = types.Array(store.dtype, dimensions, "C")

        def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            whole = context.make_array(store)(context, builder, arguments[0])
            first, height, width = (
                context.cast(builder, value, kind, types.intp)
                for value, kind in zip(arguments[1:], (start, rows, columns), strict=True)
            )
            part = context.make_array(result)(context, builder)
            part.meminfo, part.parent = whole.meminfo, whole.parent
            part.itemsize, part.data = whole.itemsize, builder.gep(whole.data, [first])
            part.nitems = builder.mul(height, width)
            shape, strides = [height], [whole.itemsize]
            if dimensions == 2:
                shape, strides = [height, width], [builder.mul(width, whole.itemsize), whole.itemsize]
            part.shape, part.strides = cgutils.pack_array(builder, shape), cgutils.pack_array(builder, strides)
            return part._getvalue()

        return result(store, start, rows, columns), build

    return view


row_view, table_view = _view(1), _view(2)
"""(array, start, rows, columns) -> so many entries of a one-dimensional array from `start` on, in one dimension or
two: for compiled code that takes the parts of a flat memory.
"""
