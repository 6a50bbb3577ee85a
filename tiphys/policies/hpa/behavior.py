"""From a wish to a result: stabilization over the history of wishes, and limits of rate, with and without `behavior`.

Histories are arrays of a capacity that the caller chooses, changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import jit
from tiphys.policies.hpa.calculator import MOST_REPLICAS, NONE

SELECTS = ("Max", "Min", "Disabled")
SELECT_MAX, SELECT_MIN, SELECT_DISABLED = range(len(SELECTS))

POLICY_TYPES = ("Pods", "Percent")
POLICY_PODS, POLICY_PERCENT = range(len(POLICY_TYPES))

REASONS = (
    "",
    "SucceededGetScale",
    "FailedGetScale",
    "ReadyForNewScale",
    "ScaleUpStabilized",
    "ScaleDownStabilized",
    "SucceededRescale",
    "FailedUpdateScale",
    "ValidMetricFound",
    "ScalingDisabled",
    "InvalidSelector",
    "AmbiguousSelector",
    "InvalidMetricSourceType",
    "FailedGetResourceMetric",
    "FailedGetContainerResourceMetric",
    "FailedGetPodsMetric",
    "FailedGetObjectMetric",
    "FailedGetExternalMetric",
    "DesiredWithinRange",
    "TooFewReplicas",
    "TooManyReplicas",
    "ScaleUpLimit",
    "ScaleDownLimit",
    "ScaledToZero",
    "NotScaledToZero",
)
"""Names of the reason codes, in their order."""
(
    NO_REASON,
    SUCCEEDED_GET_SCALE,
    FAILED_GET_SCALE,
    READY_FOR_NEW_SCALE,
    SCALE_UP_STABILIZED,
    SCALE_DOWN_STABILIZED,
    SUCCEEDED_RESCALE,
    FAILED_UPDATE_SCALE,
    VALID_METRIC_FOUND,
    SCALING_DISABLED,
    INVALID_SELECTOR,
    AMBIGUOUS_SELECTOR,
    INVALID_METRIC_SOURCE_TYPE,
    FAILED_GET_RESOURCE_METRIC,
    FAILED_GET_CONTAINER_RESOURCE_METRIC,
    FAILED_GET_PODS_METRIC,
    FAILED_GET_OBJECT_METRIC,
    FAILED_GET_EXTERNAL_METRIC,
    DESIRED_WITHIN_RANGE,
    TOO_FEW_REPLICAS,
    TOO_MANY_REPLICAS,
    SCALE_UP_LIMIT,
    SCALE_DOWN_LIMIT,
    SCALED_TO_ZERO,
    NOT_SCALED_TO_ZERO,
) = range(len(REASONS))


class ScalingRules(NamedTuple):
    """One direction of `behavior`, defaults filled in (see `scale_up_rules`, `scale_down_rules`)."""

    stabilization_s: float
    select: int
    """Code in SELECTS."""
    policy_type: NDArray[np.int8]
    """Code in POLICY_TYPES."""
    policy_value: NDArray[np.int64]
    policy_period_s: NDArray[np.float64]
    tolerance: float
    """NaN where the controller's tolerance holds."""


Policy = tuple[int, int, float]
"""Type code, value (pods or percent), period in seconds."""


def scale_up_rules(
    stabilization_s: float | None = None,
    select: int | None = None,
    policies: Sequence[Policy] | None = None,
    tolerance: float | None = None,
) -> ScalingRules:
    """Rules of scaling up with the API's defaults for what is None (2.7); a given list replaces the default one."""
    default = ((POLICY_PODS, 4, 15.0), (POLICY_PERCENT, 100, 15.0))
    return _rules(0.0 if stabilization_s is None else stabilization_s, select, policies, default, tolerance)


def scale_down_rules(
    stabilization_s: float | None = None,
    select: int | None = None,
    policies: Sequence[Policy] | None = None,
    tolerance: float | None = None,
    *,
    downscale_stabilization_s: float,
) -> ScalingRules:
    """Rules of scaling down with the API's defaults for what is None (2.7); the default window is the controller's."""
    default = ((POLICY_PERCENT, 100, 15.0),)
    window_s = downscale_stabilization_s if stabilization_s is None else stabilization_s
    return _rules(window_s, select, policies, default, tolerance)


def _rules(
    stabilization_s: float,
    select: int | None,
    policies: Sequence[Policy] | None,
    default: Sequence[Policy],
    tolerance: float | None,
) -> ScalingRules:
    chosen = default if policies is None else policies
    return ScalingRules(
        float(stabilization_s),
        SELECT_MAX if select is None else select,
        np.array([policy[0] for policy in chosen], dtype=np.int8),
        np.array([policy[1] for policy in chosen], dtype=np.int64),
        np.array([policy[2] for policy in chosen], dtype=np.float64),
        math.nan if tolerance is None else float(tolerance),
    )


class History(NamedTuple):
    """Wishes of earlier passes, in the controller's own order (entries that have expired are overwritten in place)."""

    time_s: NDArray[np.float64]
    replicas: NDArray[np.int64]
    used: NDArray[np.int64]
    """One element: how many entries are in use."""


class ScaleEvents(NamedTuple):
    """Changes that this controller made in one direction, each a positive number."""

    time_s: NDArray[np.float64]
    change: NDArray[np.int64]
    outdated: NDArray[np.bool_]
    used: NDArray[np.int64]
    """One element: how many entries are in use."""


class Stabilized(NamedTuple):
    """A wish after stabilization, and the entry of the history that held it."""

    replicas: int
    reason: int
    """READY_FOR_NEW_SCALE, SCALE_UP_STABILIZED or SCALE_DOWN_STABILIZED."""
    held_replicas: int
    """Of the entry that held it, NONE where none did."""
    held_time_s: float
    """Of the entry that held it, NaN where none did."""


class Limited(NamedTuple):
    """A stabilized wish after the limits of rate, minimum and maximum."""

    replicas: int
    reason: int
    """DESIRED_WITHIN_RANGE, TOO_FEW_REPLICAS, TOO_MANY_REPLICAS, SCALE_UP_LIMIT or SCALE_DOWN_LIMIT."""
    rate_limit: int
    """What the rate allows in the direction of the wish, NONE where no rate was asked."""


def new_history(capacity: int) -> History:
    """An empty history; the longest window over the sync period, plus two, is capacity enough."""
    return History(np.zeros(capacity), np.zeros(capacity, dtype=np.int64), np.zeros(1, dtype=np.int64))


def new_events(capacity: int) -> ScaleEvents:
    """An empty list of changes; the longest period over the sync period, plus two, is capacity enough."""
    zeros = np.zeros(capacity, dtype=np.int64)
    return ScaleEvents(np.zeros(capacity), zeros, np.zeros(capacity, dtype=np.bool_), np.zeros(1, dtype=np.int64))


@jit
def remember(history: History, replicas: int, now_s: float, reuse: int) -> None:
    """Store a wish over entry `reuse`, or at the end where it is NONE; a full history loses its oldest entry."""
    slot = reuse
    if slot == NONE:
        slot = _free_slot(history.time_s, history.used)
    history.time_s[slot] = now_s
    history.replicas[slot] = replicas


@jit
def _free_slot(time_s: NDArray[np.float64], used: NDArray[np.int64]) -> int:
    if used[0] == len(time_s):
        return int(np.argmin(time_s))
    used[0] += 1
    return int(used[0]) - 1


@jit
def legacy_stabilization(history: History, wish: int, window_s: float, now_s: float) -> Stabilized:
    """The largest wish within the window, its edge included; stores the wish (2.6, without `behavior`)."""
    held, expired, highest = NONE, NONE, wish
    for entry in range(history.used[0]):
        if now_s - history.time_s[entry] > window_s:
            expired = entry
        elif history.replicas[entry] > highest:
            held, highest = entry, int(history.replicas[entry])
    result = _stabilized(history, highest, READY_FOR_NEW_SCALE if held == NONE else SCALE_DOWN_STABILIZED, held)
    remember(history, wish, now_s, expired)
    return result


@jit
def behavior_stabilization(
    history: History, spec_replicas: int, wish: int, up_window_s: float, down_window_s: float, now_s: float
) -> Stabilized:
    """The wish held by the smallest of the up and the largest of the down window, edges excluded; stores it (2.8)."""
    lowest, highest, lowest_at, highest_at, expired = wish, wish, NONE, NONE, NONE
    for entry in range(history.used[0]):
        age_s = now_s - history.time_s[entry]
        if age_s < up_window_s and history.replicas[entry] < lowest:
            lowest, lowest_at = int(history.replicas[entry]), entry
        if age_s < down_window_s and history.replicas[entry] > highest:
            highest, highest_at = int(history.replicas[entry]), entry
        if age_s > up_window_s and age_s > down_window_s:
            expired = entry
    replicas = min(max(spec_replicas, lowest), highest)
    reason, held = READY_FOR_NEW_SCALE, NONE
    if replicas < wish:
        reason, held = SCALE_UP_STABILIZED, lowest_at
    elif replicas > wish:
        reason, held = SCALE_DOWN_STABILIZED, highest_at
    result = _stabilized(history, replicas, reason, held)
    remember(history, wish, now_s, expired)
    return result


@jit
def _stabilized(history: History, replicas: int, reason: int, held: int) -> Stabilized:
    if held == NONE:
        return Stabilized(int(replicas), reason, NONE, math.nan)
    return Stabilized(int(replicas), reason, int(history.replicas[held]), float(history.time_s[held]))


@jit
def legacy_limits(
    spec_replicas: int, desired: int, min_replicas: int, max_replicas: int, limit_factor: float, limit_minimum: float
) -> Limited:
    """The limits without `behavior`: growth by a factor, minimum, maximum (2.6)."""
    growth = int(max(limit_factor * spec_replicas, limit_minimum))
    if desired < min_replicas:
        return Limited(int(min_replicas), TOO_FEW_REPLICAS, growth)
    if desired > min(max_replicas, growth):
        return Limited(
            int(min(max_replicas, growth)), SCALE_UP_LIMIT if growth < max_replicas else TOO_MANY_REPLICAS, growth
        )
    return Limited(int(desired), DESIRED_WITHIN_RANGE, growth)


@jit
def change_within(events: ScaleEvents, period_s: float, now_s: float) -> int:
    """The sum of the changes younger than a period (2.8)."""
    total = 0
    for entry in range(events.used[0]):
        if now_s - events.time_s[entry] < period_s:
            total += events.change[entry]
    return total


@jit
def scale_up_limit(spec_replicas: int, ups: ScaleEvents, downs: ScaleEvents, rules: ScalingRules, now_s: float) -> int:
    """The largest count that the up policies allow, not yet raised to the spec count (2.8)."""
    if rules.select == SELECT_DISABLED:
        return int(spec_replicas)
    limit = MOST_REPLICAS if rules.select == SELECT_MIN else -MOST_REPLICAS
    for policy in range(len(rules.policy_type)):
        start = _period_start(spec_replicas, ups, downs, rules.policy_period_s[policy], now_s)
        value = int(rules.policy_value[policy])
        pods = rules.policy_type[policy] == POLICY_PODS
        proposed = start + value if pods else math.ceil(start * (1.0 + value / 100.0))
        limit = min(limit, proposed) if rules.select == SELECT_MIN else max(limit, proposed)
    return int(limit)


@jit
def scale_down_limit(
    spec_replicas: int, ups: ScaleEvents, downs: ScaleEvents, rules: ScalingRules, now_s: float
) -> int:
    """The smallest count that the down policies allow, not yet lowered to the spec count (2.8)."""
    if rules.select == SELECT_DISABLED:
        return int(spec_replicas)
    limit = -MOST_REPLICAS if rules.select == SELECT_MIN else MOST_REPLICAS
    for policy in range(len(rules.policy_type)):
        start = _period_start(spec_replicas, ups, downs, rules.policy_period_s[policy], now_s)
        value = int(rules.policy_value[policy])
        pods = rules.policy_type[policy] == POLICY_PODS
        proposed = start - value if pods else int(start * (1.0 - value / 100.0))
        limit = max(limit, proposed) if rules.select == SELECT_MIN else min(limit, proposed)
    return int(limit)


@jit
def _period_start(spec_replicas: int, ups: ScaleEvents, downs: ScaleEvents, period_s: float, now_s: float) -> int:
    """The count at the beginning of a period if only this controller acted."""
    return int(spec_replicas) - change_within(ups, period_s, now_s) + change_within(downs, period_s, now_s)


@jit
def behavior_rate(
    spec_replicas: int,
    desired: int,
    min_replicas: int,
    max_replicas: int,
    up: ScalingRules,
    down: ScalingRules,
    ups: ScaleEvents,
    downs: ScaleEvents,
    now_s: float,
) -> Limited:
    """The limits with `behavior`: rate policies, minimum, maximum (2.8)."""
    if desired > spec_replicas:
        limit = max(scale_up_limit(spec_replicas, ups, downs, up, now_s), int(spec_replicas))
        if desired > min(limit, max_replicas):
            reason = SCALE_UP_LIMIT if limit < max_replicas else TOO_MANY_REPLICAS
            return Limited(int(min(limit, max_replicas)), reason, limit)
        return Limited(int(desired), DESIRED_WITHIN_RANGE, limit)
    if desired < spec_replicas:
        limit = min(scale_down_limit(spec_replicas, ups, downs, down, now_s), int(spec_replicas))
        if desired < max(limit, min_replicas):
            reason = SCALE_DOWN_LIMIT if limit > min_replicas else TOO_FEW_REPLICAS
            return Limited(int(max(limit, min_replicas)), reason, limit)
        return Limited(int(desired), DESIRED_WITHIN_RANGE, limit)
    return Limited(int(desired), DESIRED_WITHIN_RANGE, NONE)


@jit
def store_scale_event(events: ScaleEvents, change: int, has_behavior: bool, rules: ScalingRules, now_s: float) -> None:
    """Store a change of one direction; only an HPA with `behavior` remembers changes (2.8).

    Entries older than the longest period are marked outdated; the last of those is overwritten.
    """
    if not has_behavior:
        return
    slot = NONE
    for entry in range(events.used[0]):
        if np.all(now_s - events.time_s[entry] > rules.policy_period_s):
            events.outdated[entry] = True
        if events.outdated[entry]:
            slot = entry
    if slot == NONE:
        slot = _free_slot(events.time_s, events.used)
    events.time_s[slot] = now_s
    events.change[slot] = change
    events.outdated[slot] = False
