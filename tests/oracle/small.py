"""Small worlds to work out by hand: constant steps, constant cold starts, everything on round seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.oracle.drawn import Document
from tests.oracle.pools import OraclePool, PoolChances
from tests.oracle.world import Chances, OracleService, World
from tiphys.domain.profile import FitError, Profile, ProfileSource, StepTime
from tiphys.domain.route import Hop, single
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import Pool, Router
from tiphys.domain.settings import ClusterSettings, HpaSettings, ScrapeSettings
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.policies.any_policy import parse_policy

Request = tuple[float, int, int]
"""Arrival in seconds, input tokens, output tokens."""


def flat_profile(name: str, step_s: float) -> Profile:
    """Every step takes the same time."""
    step = StepTime(
        tokens=(0, 1), gemm_ms=(0, 0), decode_ms=0, kv_token_ms=0, prefill_token_ms=0, prefill_pair_ms=0,
        fixed_ms=step_s * 1000,
    )  # fmt: skip
    return Profile(
        name=name, model="test", gpu="test", engine="vllm", tensor_parallel=1, max_batched_tokens=8192,
        kv_capacity_tokens=1_000_000, kv_bytes_per_token=1, max_sequence_tokens=1_000_000, step=step,
        fit_error=FitError(points=1, median_ratio=0, p95_ratio=0, max_ratio=0),
        source=ProfileSource(
            tool="test", tool_version="1", system="test", backend="vllm", backend_version="1", quantization="none"
        ),
    )  # fmt: skip


def flat_pool(step_s: float = 1.0, **members: Any) -> OraclePool:
    """A pool of constant steps that starts in 10 s."""
    document: Document = {
        "profile": "test", "replicas": {"min": 0, "max": 50}, "max_num_seqs": 64,
        "cold_start": {"median_s": 10.0, "p95_s": 10.0, "pending_s": 2.0},
    }  # fmt: skip
    bounds: dict[Any, Sequence[float]] = {"ttft": (0.5, 2.0, 5.0), "itl": (0.5, 1.5), "e2e": (1.0, 5.0, 20.0)}
    return OraclePool(parse(Pool, document | members), flat_profile("test", step_s), "vllm", bounds)


def calm_settings(**members: Any) -> ClusterSettings:
    """Scrapes of every pod at 0, 10, 20 s; passes at 5, 15, 25 s."""
    hpa = HpaSettings(sync_period_s=10.0, pass_s=0.0)
    return ClusterSettings(hpa=hpa, scrape=ScrapeSettings(interval_s=10.0), **members)


def calm_chances(pools: Mapping[str, OraclePool], think_s: Sequence[float] = ()) -> Chances:
    pools_chances = {name: _calm(pool) for name, pool in pools.items()}
    return Chances(pools_chances, think_s)


def _calm(pool: OraclePool) -> PoolChances:
    cold = pool.pool.cold_start
    cold_starts = [cold.median_s if cold.parts is None else 1.0] * 100
    return PoolChances(
        cold_starts=cold_starts, scrape_phases_s=[0.0] * 100, router_phase_s=0.0, rule_phase_s=1.0,
        hpa_phase_s=5.0, keda_phase_s=7.0, kpa_phase_s=0.25,
    )  # fmt: skip


def small_world(
    requests: Sequence[Request],
    pools: Mapping[str, OraclePool],
    *,
    classes: Mapping[str, tuple[Hop, ...]] | None = None,
    policies: Mapping[str, Document] | None = None,
    class_of: Sequence[int] | None = None,
    think_s: Sequence[float] = (),
    until_s: float = 100.0,
    **scenario: Any,
) -> World:
    """A world ready to run; one replica of each pool under `fixed` unless said otherwise."""
    classes = single(next(iter(pools))) if classes is None else classes
    columns = np.array(requests, dtype=float).reshape(-1, 3)
    of = None if class_of is None else np.array(class_of, dtype=np.int8)
    trace = Trace(
        columns[:, 0], columns[:, 1].astype(int), columns[:, 2].astype(int), "story", until_s, of, tuple(classes)
    )
    documents: dict[str, Document] = {name: {"kind": "fixed", "replicas": 1} for name in pools}
    given = {name: parse_policy(document) for name, document in (documents | dict(policies or {})).items()}
    members: dict[str, Any] = {"drain_s": 50.0, "settings": calm_settings()} | scenario
    return World(
        OracleService(pools, Router(), classes), given, Scenario(trace, **members), calm_chances(pools, think_s)
    )
