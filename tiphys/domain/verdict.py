"""The verdict: promote or keep, with the evidence. `tiphys.domain.judge` makes it; `verdict.json` holds it."""

from __future__ import annotations

from typing import Any, Literal

from tiphys.domain.scorecard import Scorecard
from tiphys.domain.statistics import Blocks
from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Ratio


class JudgeRules(Frozen):
    """What promotion takes, stated before anything is played."""

    min_gain: Ratio = 0.03
    """The whole interval of the GPU-seconds ratio must lie below 1 less this."""
    confidence: Ratio = 0.95
    """Of the interval, for all challengers together: with k of them each interval has 1 - (1 - confidence) / k."""
    min_replicates: PositiveInt = 30
    min_blocks: PositiveInt = 8
    """Fewer independent blocks than this in the judged part, and it is too short to judge on."""
    block_at_least_s: PositiveSeconds = 60.0


class Gain(Frozen):
    """What the challenger saves; ratios are challenger over incumbent, geometric means over clusters of traffic.

    They are of GPU-seconds, or of whatever else the experiment minimises (cost, less credit for offline work).
    """

    gpu_seconds_ratio: float
    interval: tuple[float, float]
    confidence: float
    on_judged_part: float
    """The same ratio on the judged part alone."""
    on_resampled: float | None = None
    """The same ratio on the traffic drawn from its profile alone."""


class Kept(Frozen):
    """How one policy kept one promise: margins are met share less the promised share; negative is a miss."""

    met: bool
    """Both means are at least 0."""
    margin_judged_part: float
    """Mean over the replicates of the judged part."""
    margin_resampled: float | None
    """Mean over the resampled traffics, each counted once."""
    margin_worst: float
    """The smallest of any replicate."""


class Promise(Frozen):
    """One objective of the SLO (or the share that may fail), and how it was kept."""

    promise: str
    challenger: Kept
    incumbent: Kept


class Robustness(Frozen):
    """Both policies where the truth differs from what was assumed."""

    perturbation: str
    passed: bool
    """Each promise is kept, or missed by no more than the incumbent misses it."""
    challenger_margin: float
    """The smallest mean margin over the objectives (over failures too, where too many fail)."""
    incumbent_margin: float
    gpu_seconds_ratio: float


class Contestant(Frozen):
    """A policy by pool as it would stand in a file, and its scorecard on the first replicate of the judged part."""

    policy: dict[str, dict[str, Any]]
    scorecard: Scorecard


class Rival(Frozen):
    """Another challenger: its ratio to the incumbent, whether it could be promoted, whether it ties with the winner."""

    policy: dict[str, dict[str, Any]]
    gpu_seconds_ratio: float
    interval: tuple[float, float]
    promotable: bool
    tied: bool
    differences: int
    """Numbers in which it differs from the incumbent."""


class JudgedOn(Frozen):
    """The evidence: plays, traffic, independence."""

    replicates: int
    on_judged_part: int
    resampled: int
    clusters: int
    window_s: float
    requests: int
    """In the judged part."""
    blocks: Blocks


class Verdict(Frozen):
    """Promote or keep, with the evidence: `verdict.json`. All ratios are challenger over incumbent."""

    api_version: Literal["tiphys/v1"] = "tiphys/v1"
    decision: Literal["promote", "keep", "infeasible", "too_short"]
    reason: str
    challenger: Contestant
    incumbent: Contestant
    gain: Gain
    slo: tuple[Promise, ...]
    robustness: tuple[Robustness, ...]
    judged_on: JudgedOn
    changes: tuple[str, ...]
    """Numbers in which the challenger differs from the incumbent."""
    inert_numbers: tuple[str, ...] = ()
    """Numbers that do not matter here: those in which the challenger and its nearest tied rival differ."""
    rivals: tuple[Rival, ...] = ()
    rules: JudgeRules
    twin_gap: dict[str, Any] | None = None
    promoted_to: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Plain data as it stands in `verdict.json`, nothing left out."""
        return self.model_dump(mode="json")
