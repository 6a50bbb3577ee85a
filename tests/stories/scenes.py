"""What the stories have in common: one pool, one-second steps, controllers and scrapes on the quarter minute."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.scenes import Scene, flat_step, profile_of
from tiphys.domain.profile import StepTime
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import ColdStart, Envelope, Pool
from tiphys.domain.settings import ClusterSettings, HpaSettings, KedaSettings, ScrapeSettings
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy

Log = list[tuple[float, int]]
Request = tuple[float, int, int]
"""Arrival in seconds, input tokens, output tokens."""
_POLICIES: dict[str, type[HpaPolicy] | type[KedaPolicy] | type[FixedPolicy]] = {
    "hpa": HpaPolicy, "keda": KedaPolicy, "fixed": FixedPolicy,
}  # fmt: skip


def settings(**changes: Any) -> ClusterSettings:
    """Passes at 0, 15, 30, ... s, polls from 0 s, scrapes of every pod at 0, 15, 30, ... s."""
    hpa = {"sync_period_s": 15.0, "pass_s": 0.0, "phase_s": 0.0} | changes.pop("hpa", {})
    scrape = {"interval_s": 15.0, "phase_s": 0.0} | changes.pop("scrape", {})
    assert not changes
    return ClusterSettings(
        hpa=HpaSettings(**hpa), scrape=ScrapeSettings(**scrape), keda=KedaSettings(phase_s=0.0)
    )  # fmt: skip


def scene(
    policy: dict[str, Any],
    requests: list[Request],
    *,
    until_s: float,
    start: int = 1,
    step: StepTime | None = None,
    bounds_s: tuple[float, ...] = (0.1, 0.5, 2.0, 5.0),
    under: ClusterSettings | None = None,
    drain_s: float = 600.0,
    **pool: Any,
) -> Scene:
    """A scene in which a cold start takes 60 s and a step 1 s, unless said otherwise."""
    columns = np.array(requests, dtype=float).reshape(-1, 3)
    trace = Trace(columns[:, 0], columns[:, 1].astype(int), columns[:, 2].astype(int), "story", until_s)
    described: dict[str, Any] = {
        "cold_start": ColdStart(median_s=60.0, p95_s=60.0, pending_s=10.0), "max_num_seqs": 256,
        "kv_capacity_tokens": 1_000_000, "max_batched_tokens": 8192, "termination_grace_s": 30.0,
    } | pool  # fmt: skip
    return Scene(
        profile_of(step or flat_step(1000.0)),
        Pool(profile="test", replicas=Envelope(min=0, max=1000), **described),
        parse(_POLICIES[policy["kind"]], policy),
        Scenario(trace, drain_s=drain_s, start_replicas={"llm": start}, settings=under or settings()),
        bounds_s=bounds_s,
    )


def hpa(metric: dict[str, Any], most: int, **more: Any) -> dict[str, Any]:
    """An HPA on one metric, from 1 replica."""
    return {"kind": "hpa", "replicas": {"min": 1, "max": most}, "metrics": [metric]} | more


def per_replica(signal: str, target: float) -> dict[str, Any]:
    """A level, summed over pods and divided by the replicas."""
    return {"signal": signal, "type": "AverageValue", "target": target}


def assert_story(scene: Scene, log: Log) -> None:
    """Both implementations tell the same replica log."""
    assert scene.twin().pools["llm"].life.wanted_log() == log
    assert scene.oracle().wanted_log(scene.scenario.horizon_s) == log
