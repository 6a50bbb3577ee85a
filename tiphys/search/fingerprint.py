"""The name of a search: so that a journal is never continued by another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from tiphys.domain.scenario import Scenario
from tiphys.search.evaluation import Bench
from tiphys.search.family import BATCH, Family
from tiphys.search.joint import stated


def fingerprint(families: Sequence[Family], bench: Bench, trials: int, seed: int, about: str) -> str:
    """16 hex digits that name everything that decides what a search does, the platform by what it is said to be."""
    everything = {
        "spaces": {family.name: family.space.document for family in families},
        "first": {family.name: [stated(first.policy) for first in family.first] for family in families},
        "scenarios": [_scenario(scenario) for scenario in bench.plan.scenarios],
        "nominal": len(bench.plan.nominal),
        "slo": bench.slo.model_dump(mode="json"),
        "minimised": bench.minimised.model_dump(mode="json"),
        "incumbent": {pool: scaling.document() for pool, scaling in bench.platform.incumbent().items()},
        "trials": trials,
        "seed": seed,
        "batch": BATCH,
        "about": about,
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _scenario(scenario: Scenario) -> list[Any]:
    return [
        scenario.trace.digest(),
        scenario.seed,
        scenario.warmup_s,
        scenario.drain_s,
        scenario.start_replicas,
        scenario.settings.document(),
        str(scenario.perturbation),
        None if scenario.users is None else scenario.users.document(),
        [fault.document() for fault in scenario.faults],
        scenario.starts_at_s,
    ]
