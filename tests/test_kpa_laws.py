"""The KPA second by second: stories worked by hand, properties, and agreement with a second implementation."""

from __future__ import annotations

import math
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.drawn_policies import kpas
from tests.oracle.kpa import Kpa, Outcome, samples
from tiphys.compiled import jit
from tiphys.domain.settings import ClusterSettings, HpaSettings, KnativeSettings
from tiphys.errors import InputError
from tiphys.policies import KnativeHpaPolicy, KpaPolicy, parse_policy
from tiphys.policies.hpa import reconcile as hpa
from tiphys.policies.kpa import average as a
from tiphys.policies.kpa import decider as d
from tiphys.policies.kpa import reconciler as r
from tiphys.policies.kpa.loop import (
    KpaOutcome,
    KpaState,
    kpa_is_idle,
    kpa_look,
    kpa_record,
    kpa_tick,
    new_kpa_state,
)
from tiphys.policies.kpa.notation import format_duration, parse_duration, percent_of, percent_text, ratio_of
from tiphys.policies.kpa.rules import KpaRules, generated_hpa, kpa_rules
from tiphys.policies.kpa.target import sampled_pods

compiles_first = settings(deadline=None)


def kpa(**members: Any) -> KpaPolicy:
    policy = parse_policy({"kind": "kpa", "replicas": {"min": 0, "max": 20}} | members)
    assert isinstance(policy, KpaPolicy)
    return policy


class Service:
    """A revision whose pods are ready `start_s` after they are asked for; load is spread over pods and activators."""

    def __init__(self, policy: KpaPolicy, replicas: int, knative: KnativeSettings | None = None, start_s: float = 20.0):
        self.rules = kpa_rules(policy, ClusterSettings(knative=knative or KnativeSettings()))
        self.state = new_kpa_state(self.rules, replicas, replicas, 0.0)
        self.replicas, self.start_s = replicas, start_s
        self.ready_at = [0.0] * replicas
        self.last: KpaOutcome | None = None
        self.log: list[tuple[float, int]] = []

    def ready(self, now_s: float) -> int:
        return sum(1 for at_s in self.ready_at if at_s <= now_s)

    def second(self, now_s: float, load: float) -> None:
        """One second: a report of the load, unless nobody is there to make it, and a tick if the second is even."""
        if load > 0 or (self.rules.is_scraped and self.ready(now_s) > 0):
            kpa_record(self.rules, self.state, now_s, load, load)
        if now_s % 2 == 0 or (load > 0 and kpa_is_idle(self.state)):
            self.tick(now_s)

    def tick(self, now_s: float) -> None:
        outcome = kpa_tick(self.rules, self.state, now_s, self.ready(now_s), True, self.replicas)
        self.last = outcome
        if outcome.replicas >= 0:
            self.log.append((now_s, outcome.replicas))
            self.ready_at = self.ready_at[: outcome.replicas]
            self.ready_at += [now_s + self.start_s] * (outcome.replicas - len(self.ready_at))
            self.replicas = outcome.replicas

    def play(self, loads: dict[tuple[int, int], float]) -> Service:
        for (start_s, end_s), load in loads.items():
            for second in range(start_s, end_s):
                self.second(float(second), load)
        return self

    @property
    def in_panic(self) -> bool:
        return not math.isnan(self.state.decider.panic_since_s[0])


def test_the_last_pod_goes_one_window_and_one_grace_period_after_the_last_request() -> None:
    policy = kpa(target=10, target_utilization_ratio=1.0, target_burst_capacity=0)
    service = Service(policy, replicas=1).play({(0, 100): 5.0, (100, 160): 0.0})
    assert service.last is not None and not service.last.is_proxied
    # second 99 leaves the window of 60 s before the tick at 160: inactive and behind the activator from then on
    service.play({(160, 300): 0.0})
    assert service.last.is_proxied
    assert service.log == [(190.0, 0)]


def test_a_service_that_has_been_behind_the_activator_for_long_needs_no_grace_period() -> None:
    policy = kpa(target=10, target_utilization_ratio=1.0, target_burst_capacity=211)
    service = Service(policy, replicas=1).play({(0, 100): 5.0, (100, 300): 0.0})
    assert service.log == [(162.0, 0)]


def test_a_request_at_zero_is_decided_on_at_once_and_the_pod_becomes_active() -> None:
    service = Service(kpa(target=10), replicas=0)
    assert kpa_is_idle(service.state)
    service.play({(0, 31): 0.0, (31, 60): 1.0})
    assert service.log == [(31.0, 1)]
    assert service.last is not None
    assert (r.CONDITIONS[service.last.condition], service.last.wish) == ("True", 1)


def test_the_activation_scale_is_what_the_first_request_brings() -> None:
    assert Service(kpa(target=10, activation_scale=3), replicas=0).play({(0, 10): 1.0}).log == [(0.0, 3)]


def test_panic_begins_with_a_burst_and_ends_one_window_after_it() -> None:
    policy = kpa(target=10, target_utilization_ratio=1.0, replicas={"min": 1, "max": 20})
    service = Service(policy, replicas=1).play({(0, 60): 5.0, (60, 66): 60.0})
    # six seconds of 60: the panic window of 6 s averages 60 at 65; at 64 it averages (1 x 5 + 5 x 60) / 6 = 50.8
    assert service.log == [(60.0, 2), (62.0, 4), (64.0, 6)]
    assert service.in_panic
    service.play({(66, 80): 5.0})
    # new pods are ready at 80 to 84; until then 6 wanted over 1 ready is over the threshold while the window remembers
    assert service.replicas == 6 and service.in_panic
    last_over_s = float(service.state.decider.panic_since_s[0])
    service.play({(80, int(last_over_s) + 61): 5.0})
    assert service.replicas == 6 and service.in_panic
    service.play({(int(last_over_s) + 61, int(last_over_s) + 64): 5.0})
    assert not service.in_panic
    service.play({(int(last_over_s) + 64, int(last_over_s) + 80): 5.0})
    assert service.replicas == 1


def test_pods_are_halved_at_most_by_a_tick_and_ready_ones_count() -> None:
    policy = kpa(target=10, target_utilization_ratio=1.0, window_s=6, replicas={"min": 1, "max": 20})
    service = Service(policy, replicas=17).play({(0, 40): 1.0})
    # more than one ready pod at the autoscaler's start is panic, for one window
    assert service.log == [(8.0, 8), (10.0, 4), (12.0, 2), (14.0, 1)]


def test_a_scale_down_delay_keeps_the_largest_wish_of_its_time() -> None:
    policy = kpa(
        target=10, target_utilization_ratio=1.0, window_s=6, scale_down_delay_s=30, replicas={"min": 1, "max": 20}
    )
    service = Service(policy, replicas=1, start_s=0.0).play({(0, 40): 18.0, (40, 120): 1.0})
    grown_s, shrunk_s = service.log[0][0], service.log[-1][0]
    assert service.log == [(grown_s, 2), (shrunk_s, 1)]
    # at 40 the average of 6 s is (5 x 18 + 1) / 6, over 10 for the last time
    assert (grown_s, shrunk_s) == (0.0, 40.0 + 30.0)


def test_a_retained_pod_outlives_the_grace_period() -> None:
    policy = kpa(target=10, target_utilization_ratio=1.0, window_s=6, pod_retention_s=120)
    service = Service(policy, replicas=1).play({(0, 20): 5.0, (20, 200): 0.0})
    # inactive at 26, when the window is empty
    assert service.log == [(146.0, 0)]


def test_a_cluster_without_scale_to_zero_keeps_one() -> None:
    service = Service(kpa(target=10), 3, KnativeSettings(scale_to_zero=False)).play({(0, 300): 0.0})
    assert service.log[-1][1] == service.replicas == 1
    assert service.last is not None and r.REASONS[service.last.reason].endswith("one stays")


def test_a_start_that_never_ends_is_given_up_after_the_progress_deadline() -> None:
    policy = kpa(target=10, window_s=6, progress_deadline_s=60)
    service = Service(policy, replicas=0, start_s=math.inf).play({(0, 5): 1.0, (5, 400): 0.0})
    # activating since 0; the deadline and 30 s more are strictly over at 92
    assert service.log == [(0.0, 1), (92.0, 0)]
    assert service.last is not None and r.CONDITIONS[service.last.condition] == "False"


def test_where_nobody_reports_only_a_tick_in_the_second_that_empties_the_window_sees_zero() -> None:
    policy = kpa(target=10, window_s=6, progress_deadline_s=60)
    # the last report is of second 3: at 8 it still counts, at 10 there is no data and the wish for one stays
    service = Service(policy, replicas=0, start_s=math.inf).play({(0, 4): 1.0, (4, 400): 0.0})
    assert service.log == [(0.0, 1)]


def test_without_data_the_last_wish_stays_for_good() -> None:
    rules = kpa_rules(kpa(target=10, target_utilization_ratio=1.0), ClusterSettings())
    state = new_kpa_state(rules, 4, 4, 0.0)
    kpa_record(rules, state, 1.0, 40.0, 0.0)
    assert kpa_tick(rules, state, 2.0, 4, True, 4).decided == 4
    silent = kpa_tick(rules, state, 62.0, 4, True, 4)
    assert (d.MODES[silent.mode][:7], silent.decided, silent.replicas) == ("no data", 4, -1)
    assert math.isnan(silent.stable)


def test_an_unlimited_burst_takes_silence_for_no_load() -> None:
    rules = kpa_rules(kpa(target=10, target_burst_capacity=-1), ClusterSettings())
    assert not rules.is_scraped
    state = new_kpa_state(rules, 1, 1, 0.0)
    outcome = kpa_tick(rules, state, 2.0, 1, True, 1)
    assert (outcome.mode, outcome.decided, outcome.excess_burst_capacity) == (d.STABLE, 0, -1)
    assert outcome.is_proxied


def test_the_activator_leaves_the_path_when_there_is_room_for_the_burst() -> None:
    rules = kpa_rules(kpa(target=100), ClusterSettings())
    state = new_kpa_state(rules, 3, 3, 0.0)
    kpa_record(rules, state, 1.0, 89.0, 0.0)
    outcome = kpa_tick(rules, state, 2.0, 3, True, 3)
    # 3 x 100 - 211 - 89
    assert (outcome.excess_burst_capacity, outcome.is_proxied) == (0, False)
    kpa_record(rules, state, 1.0, 0.5, 0.0)
    outcome = kpa_tick(rules, state, 2.0, 3, True, 3)
    assert (outcome.excess_burst_capacity, outcome.is_proxied, outcome.activators) == (-1, True, 6)


def test_a_look_between_ticks_decides_nothing_and_acts_on_time() -> None:
    rules = kpa_rules(kpa(target=10, window_s=6), ClusterSettings())
    state = new_kpa_state(rules, 1, 1, 0.5)
    kpa_record(rules, state, 1.0, 0.0, 0.0)
    waiting = kpa_tick(rules, state, 2.0, 1, True, 1)
    assert (waiting.wish, waiting.look_again_s) == (1, 4.5)
    looked = kpa_look(rules, state, 6.5, 1, True, 1)
    assert (looked.wish, looked.decided, r.CONDITIONS[looked.condition]) == (0, 0, "False")
    assert looked.mode == -1 and math.isnan(looked.stable)


def test_it_reads_requests_per_second_where_the_policy_says_so() -> None:
    rules = kpa_rules(kpa(metric="rps", target=10, target_utilization_ratio=1.0), ClusterSettings())
    state = new_kpa_state(rules, 1, 1, 0.0)
    kpa_record(rules, state, 1.0, 1000.0, 25.0)
    assert kpa_tick(rules, state, 2.0, 1, True, 1).stable_pods == 3


# --- agreement with the second implementation


def _seen(outcome: Outcome) -> dict[str, Any]:
    return {
        "replicas": -1 if outcome.replicas is None else outcome.replicas,
        "wish": outcome.want,
        "is_proxied": outcome.proxy,
        "activators": outcome.activators,
        "look_again_s": outcome.look_again_s,
        "condition": outcome.condition,
        "condition_reason": outcome.reason,
        "decided": outcome.desired,
        "excess_burst_capacity": outcome.excess,
        "panic_since_s": outcome.panic_since_s,
    }


def _answered(outcome: KpaOutcome) -> dict[str, Any]:
    named = {
        "condition": r.CONDITIONS[outcome.condition],
        "condition_reason": r.CONDITION_REASONS[outcome.condition_reason],
        "look_again_s": None if math.isnan(outcome.look_again_s) else outcome.look_again_s,
        "panic_since_s": None if math.isnan(outcome.panic_since_s) else outcome.panic_since_s,
    }
    return {name: named.get(name, getattr(outcome, name)) for name in _seen_names}


_seen_names = (
    "replicas", "wish", "is_proxied", "activators", "look_again_s", "condition", "condition_reason", "decided",
    "excess_burst_capacity", "panic_since_s",
)  # fmt: skip


clusters = st.builds(
    KnativeSettings,
    max_scale_up_rate=st.sampled_from([1000.0, 2.0, 1.1]),
    max_scale_down_rate=st.sampled_from([2.0, 1.1, 10.0]),
    scale_to_zero=st.sampled_from([True, True, True, False]),
    scale_to_zero_grace_s=st.sampled_from([6.0, 30.0]),
    target_burst_capacity=st.sampled_from([211.0, 0.0, -1.0, 10.0]),
    allow_zero_initial_scale=st.booleans(),
    initial_scale=st.integers(1, 3),
    progress_deadline_s=st.integers(20, 60),
    pod_retention_s=st.sampled_from([0.0, 0.0, 45.0]),
)


@st.composite
def small_kpas(draw: st.DrawFn) -> KpaPolicy:
    """Policies whose windows, delays and targets act within some minutes of small loads."""
    policy = draw(kpas())
    assert isinstance(policy, KpaPolicy)
    low = draw(st.sampled_from([0, 0, 0, 1, 3]))
    return policy.with_(
        replicas=policy.replicas.with_(min=low, max=low + draw(st.integers(3, 20))),
        activation_scale=draw(st.sampled_from([1, 1, max(low, 2)])),
        target=draw(st.sampled_from([None, 1.0, 3.0, 7.5])),
        container_concurrency=draw(st.sampled_from([0, 2, 10])),
        window_s=draw(st.sampled_from([None, 6, 15, 40])),
        panic_window_ratio=draw(st.sampled_from([None, 0.1, 0.3, 1.0])),
        panic_threshold_ratio=draw(st.sampled_from([None, 1.1, 2.0, 4.0])),
        scale_down_delay_s=draw(st.sampled_from([None, 0, 5, 30])),
        target_burst_capacity=draw(st.sampled_from([None, -1.0, 0.0, 20.0])),
        pod_retention_s=draw(st.sampled_from([None, 0.0, 50.0])),
        progress_deadline_s=draw(st.sampled_from([None, 10])),
        initial_scale=draw(st.sampled_from([None, 0, 1, 2])),
    )


phases = st.lists(
    st.tuples(
        st.integers(1, 70),
        st.sampled_from([0.0, 0.0, 0.5, 3.0, 12.25, 60.0]),
        st.sampled_from(["pods follow", "pods hang", "uncounted", "unreachable", "silent"]),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=300)
@given(small_kpas(), clusters, st.integers(0, 4), st.booleans(), phases)
def test_both_implementations_take_every_decision_alike(
    policy: KpaPolicy, cluster: KnativeSettings, replicas: int, is_up: bool, phases: list[tuple[int, float, str]]
) -> None:
    rules, ready = kpa_rules(policy, ClusterSettings(knative=cluster)), replicas if is_up else 0
    state, oracle = new_kpa_state(rules, replicas, ready, 0.0), Kpa(policy, cluster, replicas, ready, 0.0)
    begin_s = 1
    for duration_s, load, what in phases:
        for now_s in range(begin_s, begin_s + duration_s):
            if what != "silent" and (load or ready):
                kpa_record(rules, state, float(now_s), load, load)
                oracle.record(float(now_s), load)
            seen, reachable = (-1 if what == "uncounted" else ready), what != "unreachable"
            assert kpa_is_idle(state) == oracle.idle
            act = (kpa_tick, oracle.tick) if now_s % 2 == 0 else (kpa_look, oracle.look)
            outcome = act[0](rules, state, float(now_s), seen, reachable, replicas)
            expected = act[1](float(now_s), None if seen < 0 else seen, replicas, reachable)
            assert _answered(outcome) == _seen(expected), (now_s, what)
            replicas = replicas if outcome.replicas < 0 else outcome.replicas
            ready = min(ready, replicas) if what == "pods hang" else replicas
        begin_s += duration_s


@given(st.integers(0, 2000))
def test_the_sample_is_no_more_than_the_pods_and_at_most_sixteen(ready: int) -> None:
    assert sampled_pods(ready) == samples(ready)
    assert min(ready, 3) <= sampled_pods(ready) <= min(ready, 16)


@compiles_first
@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5), st.integers(1, 50), st.sampled_from([1.1, 2.0, 1000.0]))
def test_a_wish_never_falls_when_the_load_rises(
    stable: float, panic: float, more: float, ready: int, up: float
) -> None:
    rules = kpa_rules(kpa(target=7), ClusterSettings(knative=KnativeSettings(max_scale_up_rate=up))).decider

    def wish(stable: float, panic: float) -> int:
        state = d.new_decider_state(rules, 1, 0.0)
        return d.decide(rules, state, d.Load(ready, True, True, stable, panic), 2.0).wish

    assert wish(stable, panic) <= wish(stable + more, panic)
    assert wish(stable, panic) <= wish(stable, panic + more)


@compiles_first
@given(st.lists(st.floats(0, 1e4, allow_subnormal=False), min_size=1, max_size=90), st.integers(6, 40), st.booleans())
def test_an_average_lies_between_its_values(values: list[float], window_s: int, is_weighted: bool) -> None:
    buckets = a.new_buckets(window_s, is_weighted)
    for second, value in enumerate(values):
        a.record(buckets, float(second), value)
    average = a.window_average(buckets, float(len(values) - 1))
    inside = values[-window_s:]
    assert average <= max(inside) + 1e-6
    if not is_weighted:
        assert average >= min(inside) - 1e-6


def test_a_clock_that_begins_with_a_fraction_counts_the_same_seconds() -> None:
    buckets = a.new_buckets(6, False)
    a.record(buckets, 10.9, 4.0)
    a.record(buckets, 11.0, 2.0)
    assert a.window_average(buckets, 11.99) == 3.0
    assert a.window_average(buckets, 12.0) == 3.0


# --- called from compiled code


def _unlike_their_hints(value: Any, path: str) -> list[str]:
    """The fields of rules or state that do not hold what their types say: an event loop packs them by those."""
    faults = []
    for name, hint in get_type_hints(type(value)).items():
        held = getattr(value, name)
        if isinstance(held, np.ndarray):
            fits = get_args(get_args(hint)[1])[0] is held.dtype.type
        elif hasattr(held, "_fields"):
            fits, faults = type(held) is hint, faults + _unlike_their_hints(held, f"{path}.{name}")
        else:
            fits = type(held) is hint
        faults += [] if fits else [f"{path}.{name}: {type(held).__name__}, not {hint}"]
    return faults


@given(kpas())
def test_rules_and_state_hold_what_their_types_say(policy: Any) -> None:
    rules = kpa_rules(policy, ClusterSettings())
    assert _unlike_their_hints(rules, "rules") == []
    assert _unlike_their_hints(new_kpa_state(rules, 2, 2, 0.0), "state") == []


@jit
def wish_of(rules: KpaRules, state: KpaState, load: float) -> int:
    kpa_record(rules, state, 1.0, load, 0.0)
    return kpa_tick(rules, state, 2.0, 1, True, 1).wish


def test_a_tick_can_be_called_from_compiled_code() -> None:
    rules = kpa_rules(kpa(target=10, target_utilization_ratio=1.0), ClusterSettings())
    assert wish_of(rules, new_kpa_state(rules, 1, 1, 0.0), 35.0) == 4


# --- notation


@given(st.floats(0.01, 1, allow_subnormal=False))
def test_a_share_survives_being_written_as_a_percentage(ratio: float) -> None:
    assert ratio_of(percent_text(ratio)) == ratio


def test_a_percentage_is_what_knative_reads_not_what_a_product_gives() -> None:
    assert 0.29 * 100 != 29.0 == percent_of(0.29)
    assert percent_text(0.7) == "70" and percent_text(1.0) == "100" and percent_text(0.125) == "12.5"


@given(st.floats(0, 3600, allow_subnormal=False))
def test_seconds_survive_being_written_as_a_duration(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1m30s", 90), ("1.5m", 90), ("1h", 3600), ("0", 0), ("500ms", 0.5), ("1s500ms", 1.5)],
)
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["90", "s", "", "1d", "1 m", "-5s", "1m 30s", "five"])
def test_what_go_would_not_read_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match="is not a duration"):
        parse_duration(text)


# --- the class hpa


def knative_hpa(metric: dict[str, Any], **members: Any) -> hpa.Rules:
    document = {"kind": "knative-hpa", "replicas": {"min": 2, "max": 9}, "metric": metric} | members
    policy = parse_policy(document)
    assert isinstance(policy, KnativeHpaPolicy)
    return generated_hpa(policy, ClusterSettings(hpa=HpaSettings(downscale_stabilization_s=240.0)))


@pytest.mark.parametrize(
    ("metric", "source", "kind", "target_m", "is_cpu"),
    [
        ({"source": "cpu", "target": 70}, hpa.RESOURCE, hpa.UTILIZATION, 70, True),
        ({"source": "memory", "target": 2}, hpa.RESOURCE, hpa.AVERAGE_VALUE, 2 * 1024 * 1024 * 1000, False),
        ({"source": "pods", "signal": "running", "target": 16}, hpa.PODS, hpa.AVERAGE_VALUE, 16_000, False),
    ],
)
def test_the_class_hpa_makes_an_hpa_of_one_metric(
    metric: dict[str, Any], source: int, kind: int, target_m: int, is_cpu: bool
) -> None:
    rules = knative_hpa(metric)
    assert (rules.min_replicas, rules.max_replicas, rules.has_behavior) == (2, 9, False)
    made = rules.metrics
    assert [x.tolist() for x in (made.source, made.target_type, made.target_milli, made.is_cpu)] == [
        [source], [kind], [target_m], [is_cpu],
    ]  # fmt: skip


def test_its_window_is_the_stabilization_of_both_directions() -> None:
    rules = knative_hpa({"source": "cpu", "target": 70}, window_s=45)
    assert rules.has_behavior
    assert (rules.up.stabilization_s, rules.down.stabilization_s) == (45, 45)


def test_what_a_policy_leaves_out_is_the_clusters() -> None:
    cluster = KnativeSettings(
        stable_window_s=30, panic_window_ratio=0.5, target_burst_capacity=7.0, scale_down_delay_s=9,
        pod_retention_s=11.0, panic_threshold_ratio=3.0, container_concurrency_target_default=40.0,
        concurrency_target_utilization_ratio=0.5, progress_deadline_s=99, initial_scale=4,
    )  # fmt: skip
    rules = kpa_rules(kpa(), ClusterSettings(knative=cluster))
    assert (rules.stable_window_s, rules.panic_window_s) == (30, 15)
    told = rules.decider
    assert (told.aim, told.total, told.target_burst_capacity, told.panic_threshold) == (20.0, 40.0, 7.0, 3.0)
    assert (told.stable_window_s, told.scale_down_delay_s, told.delay_bucket_s) == (30.0, 9.0, 2.0)
    scaler = rules.scaler
    assert (scaler.retention_s, scaler.progress_deadline_s, scaler.initial_scale) == (11.0, 99.0, 4)
