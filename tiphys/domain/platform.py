"""The seam: put the fleet under a policy, play the scenario, score what was recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from tiphys.domain.recording import Recording
from tiphys.domain.scenario import Scenario
from tiphys.domain.scorecard import Scorecard, score
from tiphys.domain.slo import Minimised, Slo
from tiphys.domain.values import Frozen


class ScalingPolicy(Frozen):
    """One pool's control law with its numbers. The members of the family live in `tiphys.policies`."""

    kind: str


Policy = Mapping[str, ScalingPolicy]
"""A scaling policy for each pool: what governs a service."""


class Transition(Frozen):
    """What putting a policy in force took; charged to a live trial's budget."""

    seconds: float = 0.0
    gpu_seconds: float = 0.0
    surge_gpus: int = 0
    new_revision: bool = False


class Platform(Protocol):
    """Somewhere a service is played under a policy: the twin, or a staging copy on a cluster."""

    def incumbent(self) -> Policy:
        """The policy that is in force."""
        ...

    def apply(self, policy: Policy) -> Transition:
        """Put a policy in force. Raises InputError for a pool that does not exist, PlatformError when refused."""
        ...

    def play(self, scenario: Scenario) -> Recording:
        """Everything observed while the scenario was played under the policy in force."""
        ...


@contextmanager
def governed_by(platform: Platform, policy: Policy) -> Iterator[Transition]:
    """The platform under `policy`; the incumbent is back in force when the block ends, however it ends."""
    incumbent = platform.incumbent()
    transition = platform.apply(policy)
    try:
        yield transition
    finally:
        platform.apply(incumbent)


def trial(
    platform: Platform, policy: Policy, scenario: Scenario, slo: Slo, minimised: Minimised | None = None
) -> Scorecard:
    """Score `policy` on `scenario`; the incumbent is back in force when this returns or raises."""
    with governed_by(platform, policy):
        return score(platform.play(scenario), slo, minimised)
