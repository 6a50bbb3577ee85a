"""The autoscaler and the reconciler of one revision, second by second and tick by tick: what the twin calls.

The package's docstring says when.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import law_jit
from tiphys.policies.kpa.average import Buckets, is_silent, new_buckets, record, window_average
from tiphys.policies.kpa.decider import (
    UNKNOWN,
    DeciderState,
    Decision,
    Load,
    activators_in_path,
    decide,
    first_excess_burst_capacity,
    new_decider_state,
    no_decision,
)
from tiphys.policies.kpa.reconciler import ACTIVATING, ACTIVE, INACTIVE, Revision, activity, apply_wish, is_proxied
from tiphys.policies.kpa.rules import KpaRules

NOT_DECIDED = -1
"""Mode of a look without a decision."""


class KpaState(NamedTuple):
    """What autoscaler and reconciler remember of a revision; arrays of one entry unless their types say more."""

    stable: Buckets
    panic: Buckets
    decider: DeciderState
    wish: NDArray[np.int64]
    """The last valid wish, UNKNOWN before it."""
    excess: NDArray[np.int64]
    """The excess burst capacity of the last valid decision."""
    condition: NDArray[np.int64]
    """Code in reconciler.CONDITIONS."""
    condition_since_s: NDArray[np.float64]
    is_initialized: NDArray[np.bool_]
    proxied_since_s: NDArray[np.float64]
    """NaN while requests go straight to the pods."""


class KpaOutcome(NamedTuple):
    """A tick or a look, with all that explains it."""

    replicas: int
    """The deployment's new spec, -1 where it is left alone."""
    wish: int
    """The replicas as the reconciler reports them; -1 unknown."""
    is_proxied: bool
    """Requests go through the activators from now on."""
    activators: int
    """How many share the traffic where they are in the path."""
    look_again_s: float
    """The reconciler looks again in so many seconds of itself; NaN: not before a tick or a change of the pods."""
    mode: int
    """Code in decider.MODES; NOT_DECIDED for a look."""
    limit: int
    """Code in decider.LIMITS: what changed the decider's wish last."""
    reason: int
    """Code in reconciler.REASONS: what became of the wish."""
    condition: int
    """Code in reconciler.CONDITIONS."""
    condition_reason: int
    """Code in reconciler.CONDITION_REASONS."""
    stable: float
    """Average over the stable window; NaN without data."""
    panic: float
    """Average over the panic window; NaN without data."""
    stable_pods: int
    """Pods that the stable average asks for; -1 without a decision."""
    panic_pods: int
    """Pods that the panic average asks for; -1 without a decision."""
    decided: int
    """The decider's wish in force, before bounds; -1 unknown."""
    excess_burst_capacity: int
    panic_since_s: float
    """The last tick over the panic threshold, NaN out of panic."""


def new_kpa_state(rules: KpaRules, replicas: int, ready_pods: int, now_s: float) -> KpaState:
    """The state of a revision whose autoscaler begins now, with so many replicas of which some are ready.

    With no replicas it has come to rest at zero. Otherwise the decider knows nothing yet: it begins in panic with more
    than one ready pod, and the revision is active once its minimum, or its initial scale, is ready.
    """
    at_rest = replicas == 0
    is_up = ready_pods >= max(rules.scaler.min_replicas, rules.scaler.initial_scale, 1)
    condition = INACTIVE if at_rest else ACTIVE if is_up else ACTIVATING
    return KpaState(
        new_buckets(rules.stable_window_s, rules.is_weighted),
        new_buckets(rules.panic_window_s, rules.is_weighted),
        new_decider_state(rules.decider, ready_pods, now_s),
        np.array([0 if at_rest else UNKNOWN], dtype=np.int64),
        np.array([first_excess_burst_capacity(rules.decider, rules.scaler.initial_scale)], dtype=np.int64),
        np.array([condition], dtype=np.int64),
        np.array([now_s]),
        np.array([at_rest or is_up], dtype=np.bool_),
        np.array([now_s]),
    )


@law_jit
def kpa_record(rules: KpaRules, state: KpaState, now_s: float, concurrency: float, rps: float) -> None:
    """Add what one source reports of a second to both windows."""
    value = rps if rules.is_rps else concurrency
    record(state.stable, now_s, value)
    record(state.panic, now_s, value)


@law_jit
def kpa_is_idle(state: KpaState) -> bool:
    """Whether a request that arrives now is decided on at once rather than at the next tick: nothing is wished for."""
    return bool(state.wish[0] == 0)


@law_jit
def kpa_tick(
    rules: KpaRules, state: KpaState, now_s: float, ready_pods: int, reachable: bool, replicas: int
) -> KpaOutcome:
    """A decision and what becomes of it.

    `ready_pods` is -1 where they cannot be counted, `replicas` the deployment's present spec.
    """
    stable, panic, has_data = _averages(rules, state, now_s)
    decision = decide(rules.decider, state.decider, Load(ready_pods, reachable, has_data, stable, panic), now_s)
    if decision.valid:
        state.wish[0] = decision.wish
        state.excess[0] = decision.excess_burst_capacity
    return _looked(rules, state, now_s, ready_pods, reachable, replicas, decision, stable, panic)


@law_jit
def kpa_look(
    rules: KpaRules, state: KpaState, now_s: float, ready_pods: int, reachable: bool, replicas: int
) -> KpaOutcome:
    """What becomes of the wish in force when the reconciler looks between two ticks."""
    undecided = no_decision(NOT_DECIDED)
    return _looked(rules, state, now_s, ready_pods, reachable, replicas, undecided, math.nan, math.nan)


@law_jit
def _averages(rules: KpaRules, state: KpaState, now_s: float) -> tuple[float, float, bool]:
    """Both averages and whether there is data: where nobody is asked, silence is no load rather than no data."""
    if rules.is_scraped and is_silent(state.stable, now_s):
        return math.nan, math.nan, False
    return window_average(state.stable, now_s), window_average(state.panic, now_s), True


@law_jit
def _looked(
    rules: KpaRules,
    state: KpaState,
    now_s: float,
    ready_pods: int,
    reachable: bool,
    replicas: int,
    decision: Decision,
    stable: float,
    panic: float,
) -> KpaOutcome:
    ready = max(ready_pods, 0)
    revision = _revision(state, now_s, reachable, replicas)
    applied = apply_wish(rules.scaler, revision, int(state.wish[0]))
    active = activity(rules.scaler, revision, applied.wish, ready)
    proxied = is_proxied(applied.wish, int(state.excess[0]))
    _remember(state, now_s, active.condition, active.is_initialized, proxied)
    return KpaOutcome(
        applied.replicas if applied.replicas != replicas else UNKNOWN,
        applied.wish,
        proxied,
        activators_in_path(rules.decider, ready),
        applied.look_again_s,
        decision.mode,
        decision.limit,
        applied.reason,
        active.condition,
        active.reason,
        stable,
        panic,
        decision.stable_pods,
        decision.panic_pods,
        int(state.wish[0]),
        int(state.excess[0]),
        state.decider.panic_since_s[0],
    )


@law_jit
def _revision(state: KpaState, now_s: float, reachable: bool, replicas: int) -> Revision:
    """The activator answers a probe as soon as an earlier look has put the service into proxy mode."""
    return Revision(
        replicas,
        int(state.condition[0]),
        now_s - state.condition_since_s[0],
        bool(state.is_initialized[0]),
        reachable,
        not math.isnan(state.proxied_since_s[0]),
        now_s - state.proxied_since_s[0],
        bool(state.proxied_since_s[0] < now_s),
    )


@law_jit
def _remember(state: KpaState, now_s: float, condition: int, initialized: bool, proxied: bool) -> None:
    if condition != state.condition[0]:
        state.condition[0] = condition
        state.condition_since_s[0] = now_s
    state.is_initialized[0] = initialized
    if not proxied:
        state.proxied_since_s[0] = math.nan
    elif math.isnan(state.proxied_since_s[0]):
        state.proxied_since_s[0] = now_s
