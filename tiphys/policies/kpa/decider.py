"""The decider: how many pods a revision should have, from its two averages (4.3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import law_jit
from tiphys.policies.kpa.delay import MaximumWindow, bucket_of, delay_buckets, largest_with, new_maximum_window

UNKNOWN = -1
"""A wish that nobody has worked out yet; ready pods that cannot be counted."""
UNLIMITED = -1.0
"""Target burst capacity of a service that keeps the activator in the path."""
LEAST_ACTIVATORS = 2

MODES = ("stable", "panic", "no data: the last wish stays", "pods cannot be counted: the last wish stays")
STABLE, PANIC, NO_DATA, PODS_UNKNOWN = range(len(MODES))

LIMITS = (
    "",
    "the growth rate",
    "the shrink rate",
    "the activation scale",
    "panic, in which nothing shrinks",
    "the scale-down delay",
)
NO_LIMIT, GROWTH_RATE, SHRINK_RATE, ACTIVATION_SCALE, NO_SHRINKING, DELAY = range(len(LIMITS))


class DeciderRules(NamedTuple):
    """What a decider is told about its revision; times in seconds."""

    aim: float
    """Load that one pod should have."""
    total: float
    """Load that one pod may have."""
    target_burst_capacity: float
    """UNLIMITED, 0 or a load."""
    panic_threshold: float
    """Pods wanted over pods ready."""
    max_scale_up_rate: float
    max_scale_down_rate: float
    stable_window_s: float
    scale_down_delay_s: float
    delay_bucket_s: float
    activation_scale: int
    activator_capacity: float


class DeciderState(NamedTuple):
    """What a decider remembers."""

    panic_since_s: NDArray[np.float64]
    """One entry: the last tick over the threshold, NaN out of panic."""
    panic_maximum: NDArray[np.int64]
    """One entry: the largest wish of this panic."""
    delay: MaximumWindow


class Load(NamedTuple):
    """What a decider sees at a tick."""

    ready_pods: int
    """UNKNOWN where they cannot be counted."""
    reachable: bool
    """A route leads to the revision."""
    has_data: bool
    stable: float
    """Average over the stable window."""
    panic: float
    """Average over the panic window."""


class Decision(NamedTuple):
    """What a tick decides; nothing but `mode` counts unless it is valid."""

    valid: bool
    mode: int
    """Code in MODES."""
    limit: int
    """Code in LIMITS: what changed the wish last."""
    stable_pods: int
    """Pods that the stable average asks for; UNKNOWN, as all that follows, where the decision is invalid."""
    panic_pods: int
    """Pods that the panic average asks for."""
    wish: int
    excess_burst_capacity: int
    """Negative: the activator stays in the path."""


class _Bounded(NamedTuple):
    pods: int
    limit: int


def new_decider_state(rules: DeciderRules, ready_pods: int, now_s: float) -> DeciderState:
    """The state of a decider that is made now: with more than one ready pod it begins in panic.

    So nothing shrinks for a stable window after the autoscaler has restarted. The delay window keeps the length that it
    is made with.
    """
    return DeciderState(
        np.array([now_s if ready_pods > 1 else math.nan]),
        np.array([max(ready_pods, 0)], dtype=np.int64),
        new_maximum_window(delay_buckets(rules.scale_down_delay_s, rules.delay_bucket_s)),
    )


@law_jit
def no_decision(mode: int) -> Decision:
    """An invalid decision."""
    return Decision(False, mode, NO_LIMIT, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)


@law_jit
def decide(rules: DeciderRules, state: DeciderState, load: Load, now_s: float) -> Decision:
    """One tick: the wish and the excess burst capacity. An invalid decision leaves the state alone."""
    if load.ready_pods < 0:
        return no_decision(PODS_UNKNOWN)
    if not load.has_data:
        return no_decision(NO_DATA)
    pods = max(load.ready_pods, 1)
    stable_pods, panic_pods = math.ceil(load.stable / rules.aim), math.ceil(load.panic / rules.aim)
    _keep_panic(rules, state, panic_pods / pods, now_s)
    mode = STABLE if math.isnan(state.panic_since_s[0]) else PANIC
    bounded = _bounded(rules, stable_pods, pods, load.reachable)
    if mode == PANIC:
        bounded = _in_panic(state, bounded, _bounded(rules, panic_pods, pods, load.reachable))
    if load.reachable and rules.scale_down_delay_s > 0.0:
        bounded = _delayed(rules, state, bounded, now_s)
    excess = excess_burst_capacity(rules, load.ready_pods, load.panic)
    return Decision(True, mode, bounded.limit, int(stable_pods), int(panic_pods), bounded.pods, excess)


@law_jit
def _bounded(rules: DeciderRules, asked: int, pods: int, reachable: bool) -> _Bounded:
    """Pods within the rates of change, which count ready pods, and not under the activation scale."""
    most = math.ceil(rules.max_scale_up_rate * pods)
    least = math.floor(pods / rules.max_scale_down_rate) if reachable else 0
    bounded, limit = asked, NO_LIMIT
    if bounded < least:
        bounded, limit = least, SHRINK_RATE
    if bounded > most:
        bounded, limit = most, GROWTH_RATE
    if asked > 0 and bounded < rules.activation_scale:
        return _Bounded(rules.activation_scale, ACTIVATION_SCALE)
    return _Bounded(int(bounded), limit)


@law_jit
def _keep_panic(rules: DeciderRules, state: DeciderState, wanted_over_ready: float, now_s: float) -> None:
    """Enter panic, renew it, or leave it one stable window after the last tick over the threshold."""
    if wanted_over_ready >= rules.panic_threshold:
        state.panic_since_s[0] = now_s
    # never true out of panic, where the time is NaN
    elif state.panic_since_s[0] + rules.stable_window_s < now_s:
        state.panic_since_s[0] = math.nan
        state.panic_maximum[0] = 0


@law_jit
def _in_panic(state: DeciderState, stable: _Bounded, panic: _Bounded) -> _Bounded:
    """The larger of both wishes, and never less than before in this panic."""
    larger = panic if panic.pods > stable.pods else stable
    if larger.pods >= state.panic_maximum[0]:
        state.panic_maximum[0] = larger.pods
        return larger
    return _Bounded(int(state.panic_maximum[0]), NO_SHRINKING)


@law_jit
def _delayed(rules: DeciderRules, state: DeciderState, wish: _Bounded, now_s: float) -> _Bounded:
    largest = largest_with(state.delay, bucket_of(now_s, rules.delay_bucket_s), wish.pods)
    return _Bounded(largest, DELAY) if largest > wish.pods else wish


@law_jit
def excess_burst_capacity(rules: DeciderRules, ready_pods: int, panic: float) -> int:
    """Load that the ready pods could take beyond the present one and the burst that they should be ready for."""
    if rules.target_burst_capacity <= 0.0:
        return int(rules.target_burst_capacity)
    return math.floor(ready_pods * rules.total - rules.target_burst_capacity - panic)


def first_excess_burst_capacity(rules: DeciderRules, initial_scale: int) -> int:
    """The excess burst capacity before the first valid decision."""
    if rules.target_burst_capacity in (UNLIMITED, 0.0):
        return int(rules.target_burst_capacity)
    return int(initial_scale * rules.total - rules.target_burst_capacity)


@law_jit
def activators_in_path(rules: DeciderRules, ready_pods: int) -> int:
    """How many activators share the traffic of a service in proxy mode."""
    if rules.target_burst_capacity == 0.0:
        return LEAST_ACTIVATORS
    load = ready_pods * rules.total + max(rules.target_burst_capacity, 0.0)
    return max(LEAST_ACTIVATORS, math.ceil(load / rules.activator_capacity))
