"""A tournament tree: the smallest of many keys, at the cost of one climb a change.

`tree[1]` is the winner. Ties go to the lower index, so order is by (key, index).
"""

from __future__ import annotations

from tiphys.compiled import inlined_jit
from tiphys.twin.state import Floats, Longs


@inlined_jit
def set_key(tree: Longs, keys: Floats, index: int, key: float) -> None:
    """Give leaf `index` a new key."""
    keys[index] = key
    node = (index + keys.shape[0]) >> 1
    while node >= 1:
        left = tree[2 * node]
        right = tree[2 * node + 1]
        winner = left if keys[left] <= keys[right] else right
        if tree[node] == winner and winner != index:
            # another leaf won here before and still does: nothing above can have changed
            return
        tree[node] = winner
        node >>= 1
