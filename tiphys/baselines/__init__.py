"""What any policy can be held against: a reference that knows the trace, and a bound that nothing goes below.

The reference is played through the `Platform` that is handed in; the bound is arithmetic on the trace and the profile.
Neither tunes or judges anything.
"""

from __future__ import annotations

from tiphys.baselines.bound import lower_bound
from tiphys.baselines.clairvoyant import baselines, clairvoyant
from tiphys.baselines.work import PoolWork, work_on_route

__all__ = ["PoolWork", "baselines", "clairvoyant", "lower_bound", "work_on_route"]
