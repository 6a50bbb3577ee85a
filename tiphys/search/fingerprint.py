"""The name of a search: so that a journal is never continued by another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from tiphys.domain.platform import ScalingPolicy
from tiphys.search.evaluation import Bench
from tiphys.search.family import BATCH, Family


def fingerprint(
    families: Sequence[Family], bench: Bench, incumbent: ScalingPolicy, trials: int, seed: int, about: str
) -> str:
    """16 hex digits that name everything that decides what a search does, the platform by what it is said to be."""
    stated = {
        "spaces": {family.name: family.space.document for family in families},
        "first": {family.name: [first.policy.document() for first in family.first] for family in families},
        "scenarios": [
            [
                s.trace.digest(),
                s.seed,
                s.warmup_s,
                s.drain_s,
                s.start_replicas,
                s.settings.document(),
                str(s.perturbation),
            ]
            for s in bench.plan.scenarios
        ],
        "nominal": len(bench.plan.nominal),
        "slo": bench.slo.model_dump(mode="json"),
        "minimised": bench.minimised.model_dump(mode="json"),
        "incumbent": incumbent.document(),
        "pool": bench.pool,
        "trials": trials,
        "seed": seed,
        "batch": BATCH,
        "about": about,
    }
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()[:16]
