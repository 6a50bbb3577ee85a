"""Several policies side by side on the same plays: what each costs, and by how much it keeps what was promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tiphys.domain.platform import Platform, Policy, trial
from tiphys.domain.promises import margins, tightest
from tiphys.domain.scenario import Scenario
from tiphys.domain.scorecard import Scorecard
from tiphys.domain.slo import Minimised, Slo
from tiphys.domain.values import Frozen
from tiphys.search.joint import stated
from tiphys.search.workers import Workers


class Compared(Frozen):
    """One policy's row: means over the scenarios, and its scorecard on the first."""

    name: str
    policy: dict[str, Any]
    meets: bool
    """Every promise is kept on the mean."""
    margin: float
    """The smallest mean margin over the promises, in share."""
    gpu_seconds: float
    over_incumbent: float
    """Its GPU-seconds over those of the first row."""
    scorecard: Scorecard


def compare(
    platform: Platform,
    policies: Mapping[str, Policy],
    scenarios: Sequence[Scenario],
    slo: Slo,
    minimised: Minimised | None = None,
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Compared, ...]:
    """A row for each policy, played on every scenario; the first is the incumbent. `workers` changes
    nothing but the time.
    """
    items = [(policy, index) for index in range(len(scenarios)) for policy in policies.values()]
    bench = _Bench(platform, tuple(scenarios), slo, minimised)
    cards: dict[int, Scorecard] = {}
    with Workers(_play, bench, min(workers, len(items))) as processes:
        for done, (index, card) in enumerate(processes.results(items), 1):
            cards[index] = card
            if on_progress:
                on_progress(done, len(items))
    rows: list[Compared] = []
    for place, (name, policy) in enumerate(policies.items()):
        own = [cards[index] for index in range(place, len(items), len(policies))]
        rows.append(_row(name, policy, own, slo, rows[0].gpu_seconds if rows else None))
    return tuple(rows)


@dataclass(frozen=True)
class _Bench:
    platform: Platform
    scenarios: tuple[Scenario, ...]
    slo: Slo
    minimised: Minimised | None


def _play(bench: _Bench, item: tuple[Policy, int]) -> Scorecard:
    policy, index = item
    return trial(bench.platform, policy, bench.scenarios[index], bench.slo, bench.minimised)


def _row(name: str, policy: Policy, cards: Sequence[Scorecard], slo: Slo, incumbent: float | None) -> Compared:
    kept = np.mean([margins(card, slo) for card in cards], axis=0)
    gpu_seconds = float(np.mean([card.gpu_seconds for card in cards]))
    return Compared(
        name=name,
        policy=stated(policy),
        meets=bool((kept >= 0).all()),
        margin=tightest(kept.tolist()),
        gpu_seconds=gpu_seconds,
        over_incumbent=1.0 if incumbent is None else gpu_seconds / incumbent,
        # how long a play took is not part of the answer: the same inputs give the same table
        scorecard=cards[0].model_copy(update={"wall_s": 0.0}),
    )
