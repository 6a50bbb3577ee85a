"""The reconciler: what becomes of a wish, with bounds, zero and the activator (4.4)."""

from __future__ import annotations

import math
from typing import NamedTuple

from tiphys.compiled import law_jit
from tiphys.policies.kpa.decider import UNKNOWN

CONDITIONS = ("Unknown", "True", "False")
"""Of the Active condition: activating, active, inactive."""
ACTIVATING, ACTIVE, INACTIVE = range(len(CONDITIONS))

CONDITION_REASONS = ("", "Queued", "NoTraffic", "TimedOut")
NO_CONDITION_REASON, QUEUED, NO_TRAFFIC, TIMED_OUT = range(len(CONDITION_REASONS))

REASONS = (
    "as wished",
    "no wish yet",
    "up to the minimum",
    "up to the initial scale",
    "down to the maximum",
    "the cluster does not scale to zero: one stays",
    "activating: waits",
    "could not be activated: down to zero",
    "idle, but not active for a stable window yet: one stays",
    "idle: inactive from now on",
    "inactive: waits until the activator is in the path",
    "inactive: the last pod is retained",
    "inactive: waits for the grace period",
    "inactive: down to zero",
)
(
    AS_WISHED,
    NO_WISH,
    TO_MINIMUM,
    TO_INITIAL_SCALE,
    TO_MAXIMUM,
    ZERO_IS_OFF,
    STILL_ACTIVATING,
    ACTIVATION_FAILED,
    NOT_ACTIVE_LONG_ENOUGH,
    DEACTIVATED,
    AWAITING_ACTIVATOR,
    RETAINED,
    IN_GRACE,
    TO_ZERO,
) = range(len(REASONS))

ACTIVATION_BUFFER_S = 30.0
"""How much longer than the progress deadline an activation may take: the deployment reports its failure first."""
LOOK_AGAIN_S = 3.0
"""When a service that was in proxy mode already is looked at again: no change of it would tell the reconciler."""


class ScalerRules(NamedTuple):
    """What the reconciler is told about a revision; times in seconds."""

    min_replicas: int
    max_replicas: int
    """0 is no maximum."""
    initial_scale: int
    scale_to_zero: bool
    stable_window_s: float
    grace_s: float
    retention_s: float
    progress_deadline_s: float
    probes_activator: bool
    """Not with an unlimited target burst capacity, which keeps the activator in the path."""


class Revision(NamedTuple):
    """A revision as the reconciler finds it."""

    replicas: int
    """The deployment's spec."""
    condition: int
    """Code in CONDITIONS."""
    in_condition_s: float
    """Time since the condition was entered."""
    is_initialized: bool
    """The initial scale was reached once."""
    reachable: bool
    is_proxied: bool
    """The service was put into proxy mode."""
    proxied_for_s: float
    """How long the activator has been in the path; NaN where it is not."""
    probe_ok: bool
    """A probe would reach the activator."""


class Applied(NamedTuple):
    """What the reconciler makes of a wish."""

    reason: int
    """Code in REASONS."""
    wish: int
    """As reported: UNKNOWN, or the replicas that there should be."""
    replicas: int
    """The deployment's spec afterwards."""
    look_again_s: float
    """In so many seconds the reconciler looks again of itself; NaN where only a change makes it."""
    begins_probe: bool
    """The activator was not reached and is probed in the background."""


class Activity(NamedTuple):
    """The Active condition and why it is so."""

    condition: int
    """Code in CONDITIONS."""
    reason: int
    """Code in CONDITION_REASONS."""
    is_initialized: bool


class _Bounded(NamedTuple):
    wish: int
    reason: int


@law_jit
def apply_wish(rules: ScalerRules, revision: Revision, wish: int) -> Applied:
    """The decider's wish within bounds, and the replicas to write; at zero the steps of 4.4."""
    if wish < 0 and revision.condition != ACTIVATING:
        return _stays(revision, NO_WISH, wish, math.nan)
    bounded = _within_bounds(rules, revision, wish)
    if bounded.wish != 0:
        return _written(bounded.reason, bounded.wish)
    if not rules.scale_to_zero:
        return _written(ZERO_IS_OFF, 1)
    if revision.condition == ACTIVATING:
        return _from_activating(rules, revision)
    if revision.condition == ACTIVE:
        return _from_active(rules, revision)
    return _from_inactive(rules, revision)


@law_jit
def _written(reason: int, replicas: int) -> Applied:
    return Applied(reason, replicas, replicas, math.nan, False)


@law_jit
def _stays(revision: Revision, reason: int, wish: int, look_again_s: float) -> Applied:
    return Applied(reason, wish, revision.replicas, look_again_s, False)


@law_jit
def _least(rules: ScalerRules, reachable: bool) -> int:
    return rules.min_replicas if reachable else 0


@law_jit
def _within_bounds(rules: ScalerRules, revision: Revision, wish: int) -> _Bounded:
    least, reason = _least(rules, revision.reachable), TO_MINIMUM
    starts = rules.initial_scale > 1 and not revision.is_initialized and revision.reachable
    if starts and rules.initial_scale > least:
        least, reason = rules.initial_scale, TO_INITIAL_SCALE
    if wish < least:
        return _Bounded(least, reason)
    if rules.max_replicas != 0 and wish > rules.max_replicas:
        return _Bounded(rules.max_replicas, TO_MAXIMUM)
    return _Bounded(wish, AS_WISHED)


@law_jit
def _from_activating(rules: ScalerRules, revision: Revision) -> Applied:
    timeout_s = rules.progress_deadline_s + ACTIVATION_BUFFER_S
    if revision.in_condition_s > timeout_s:
        return _written(ACTIVATION_FAILED, 0)
    return _stays(revision, STILL_ACTIVATING, UNKNOWN, timeout_s)


@law_jit
def _from_active(rules: ScalerRules, revision: Revision) -> Applied:
    remaining_s = rules.stable_window_s - revision.in_condition_s
    if remaining_s > 0.0:
        return Applied(NOT_ACTIVE_LONG_ENOUGH, 1, 1, remaining_s, False)
    # reporting 0 makes the condition inactive; the deployment is left alone until the activator is in the path
    return _stays(revision, DEACTIVATED, 0, LOOK_AGAIN_S if revision.is_proxied else math.nan)


@law_jit
def _from_inactive(rules: ScalerRules, revision: Revision) -> Applied:
    if rules.probes_activator and not revision.probe_ok:
        return Applied(AWAITING_ACTIVATOR, 0, revision.replicas, math.nan, True)
    retention_s = rules.retention_s if revision.reachable else 0.0
    if revision.in_condition_s >= max(rules.grace_s, retention_s):
        return _written(TO_ZERO, 0)
    if revision.in_condition_s < retention_s:
        return _stays(revision, RETAINED, 0, retention_s - revision.in_condition_s)
    if revision.proxied_for_s >= rules.grace_s:
        return _written(TO_ZERO, 0)
    return _stays(revision, IN_GRACE, 0, rules.grace_s - revision.proxied_for_s)


@law_jit
def activity(rules: ScalerRules, revision: Revision, wish: int, ready_pods: int) -> Activity:
    """The Active condition after a look: `wish` as it was applied."""
    least = _least(rules, revision.reachable)
    needed = max(least, 1 if revision.is_initialized else rules.initial_scale)
    is_initialized = revision.is_initialized or ready_pods >= needed
    if wish == 0 or needed == 0:
        failed = revision.condition == ACTIVATING and needed > 0
        return Activity(INACTIVE, TIMED_OUT if failed else NO_TRAFFIC, is_initialized)
    if wish < 0 and revision.condition == INACTIVE:
        return Activity(INACTIVE, NO_TRAFFIC, is_initialized)
    if ready_pods < needed:
        return Activity(ACTIVATING, QUEUED, is_initialized)
    return Activity(ACTIVE, NO_CONDITION_REASON, is_initialized)


@law_jit
def is_proxied(wish: int, excess_burst_capacity: int) -> bool:
    """Whether requests go through activators (Proxy) rather than straight to the pods (Serve)."""
    return not (wish > 0 and excess_burst_capacity >= 0)
