"""What was promised, promise by promise, and by how much a play kept it."""

from __future__ import annotations

from collections.abc import Sequence

from tiphys.domain.scorecard import Scorecard
from tiphys.domain.slo import Slo


def promises(slo: Slo) -> tuple[str, ...]:
    """Everything that was promised, in words: each objective, then the share that may fail."""
    return (*(objective.name for objective in slo.objectives), f"failed <= {slo.failed_at_most * 100:g} %")


def margins(card: Scorecard, slo: Slo) -> tuple[float, ...]:
    """By how much each promise was kept, in the order of `promises`: share of requests, negative for a miss."""
    return (*(score.margin for score in card.slo), slo.failed_at_most - card.failed_share)


def tightest(kept: Sequence[float]) -> float:
    """The smallest of margins in the order of `promises`.

    The promise on failures counts only where it is missed: kept, it is always within a tenth of a percent, and would
    hide by how much the objectives are.
    """
    return min(kept) if kept[-1] < 0 else min(kept[:-1])
