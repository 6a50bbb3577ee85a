"""One flat memory for many values of a NamedTuple type, from which compiled code takes the value of a pool.

A tuple of controllers of different sizes has a different type for every number of pools, and would be compiled anew
for each. Here the arrays of all of them lie one after the other, and `unpacker` makes, from the type's annotations, a
compiled function that puts one value together again from views: the same code for any number and any sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import generated_jit, row_view, table_view

T = TypeVar("T")


class Arena(NamedTuple):
    """The leaves of all values: doubles, integers and small integers apart; `place[value, leaf]` is (start, rows,
    columns).
    """

    f8: NDArray[np.float64]
    i8: NDArray[np.int64]
    i4: NDArray[np.int32]
    i1: NDArray[np.int8]
    b1: NDArray[np.bool_]
    place: NDArray[np.int64]


_STORES = {"f8": np.float64, "i8": np.int64, "i4": np.int32, "i1": np.int8, "b1": np.bool_}
_SCALARS: dict[type, str] = {float: "f8", int: "i8", bool: "b1"}


class _Leaf(NamedTuple):
    store: str
    dimensions: int


def leaves_of(kind: type) -> list[_Leaf]:
    """The leaves of a NamedTuple type in order, nested ones included. Raises TypeError for what cannot be packed."""
    found: list[_Leaf] = []
    for name, hint in get_type_hints(kind).items():
        if hasattr(hint, "_fields"):
            found += leaves_of(hint)
        elif hint in _SCALARS:
            found.append(_Leaf(_SCALARS[hint], 0))
        else:
            found.append(_Leaf(_store_of(hint, f"{kind.__name__}.{name}"), 2 if name in _TABLES else 1))
    return found


_TABLES = ("rows",)
"""Names of leaves that are tables (two dimensions)."""


def _store_of(hint: Any, where: str) -> str:
    if get_origin(hint) is np.ndarray:
        scalar = get_args(get_args(hint)[1])[0]
        for store, dtype in _STORES.items():
            if scalar is dtype:
                return store
    raise TypeError(f"{where}: {hint} cannot be packed")


def _flat(value: Any) -> list[Any]:
    return [leaf for field in value for leaf in (_flat(field) if hasattr(field, "_fields") else [field])]


def pack(values: Sequence[Any]) -> Arena:
    """The values of one NamedTuple type in one memory. Their arrays are copied: read results with `unpack`."""
    leaves = leaves_of(type(values[0]))
    parts: dict[str, list[NDArray[Any]]] = {store: [] for store in _STORES}
    used = dict.fromkeys(_STORES, 0)
    place = np.zeros((len(values), len(leaves), 3), np.int64)
    for row, value in enumerate(values):
        for column, (leaf, held) in enumerate(zip(leaves, _flat(value), strict=True)):
            array: NDArray[Any] = np.asarray(held, _STORES[leaf.store])
            shape = (array.size, 1) if array.ndim < 2 else array.shape
            place[row, column] = (used[leaf.store], *shape)
            parts[leaf.store].append(array.reshape(-1))
            used[leaf.store] += array.size
    stores: dict[str, Any] = {
        store: np.concatenate([np.zeros(0, dtype), *parts[store]]) for store, dtype in _STORES.items()
    }
    return Arena(**stores, place=place)


def _row(store: NDArray[Any], start: int, rows: int, _columns: int) -> NDArray[Any]:
    return store[start : start + rows]


def _table(store: NDArray[Any], start: int, rows: int, columns: int) -> NDArray[Any]:
    return store[start : start + rows * columns].reshape((rows, columns))


def unpacker(kind: type[T], row: Any = _row, table: Any = _table) -> Callable[[Arena, int], T]:
    """A function (arena, value's number) -> the value, its arrays being views: compiled, and callable as Python too."""
    leaf_numbers = iter(range(len(leaves_of(kind))))
    names: dict[str, type] = {}
    body = _expression(kind, leaf_numbers, names)
    source = f"def unpack(arena, which):\n    place = arena.place[which]\n    return {body}\n"
    scope: dict[str, Any] = {"row_view": row, "table_view": table, **names}
    exec(compile(source, f"<unpack {kind.__name__}>", "exec"), scope)
    unpack: Callable[[Arena, int], T] = scope["unpack"]
    return unpack


def compiled_unpacker(kind: type[T]) -> Callable[[Arena, int], T]:
    """`unpacker` for compiled code, for an arena that is handed over as a `tiphys.compiled.Handle`."""
    return generated_jit(unpacker(kind, row_view, table_view))


def _expression(kind: type, numbers: Any, names: dict[str, type]) -> str:
    names[kind.__name__] = kind
    parts = []
    for name, hint in get_type_hints(kind).items():
        if hasattr(hint, "_fields"):
            parts.append(_expression(hint, numbers, names))
            continue
        number = next(numbers)
        if hint in _SCALARS:
            parts.append(f"arena.{_SCALARS[hint]}[place[{number}, 0]]")
            continue
        store = _store_of(hint, name)
        start, rows, columns = (f"place[{number}, {part}]" for part in range(3))
        if name in _TABLES:
            parts.append(f"table_view(arena.{store}, {start}, {rows}, {columns})")
        else:
            parts.append(f"row_view(arena.{store}, {start}, {rows}, {columns})")
    return f"{kind.__name__}({', '.join(parts)})"
