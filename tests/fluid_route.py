"""Two fluid pools one behind the other, as a platform: what a search over several pools has to find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tests.fluid_platform import FluidPlatform, hpa
from tiphys.domain.platform import Policy, ScalingPolicy, Transition
from tiphys.domain.recording import JobTimes, Recording
from tiphys.domain.route import Hop
from tiphys.domain.scenario import Scenario

POOLS = ("embed", "llm")
CLASSES = {
    "request": (Hop(name="embed", pool="embed"), Hop(name="llm", pool="llm", after=("embed",), answers=True)),
}


def incumbent() -> dict[str, ScalingPolicy]:
    return {"embed": hpa(4.0), "llm": hpa(4.0)}


@dataclass
class FluidRoute:
    """Every request waits in `embed`, then in `llm`."""

    in_force: Mapping[str, ScalingPolicy] = field(default_factory=incumbent)

    def incumbent(self) -> Policy:
        return self.in_force

    def apply(self, policy: Policy) -> Transition:
        self.in_force = dict(policy)
        return Transition()

    def play(self, scenario: Scenario) -> Recording:
        alone = {pool: FluidPlatform({"llm": self.in_force[pool]}).play(scenario) for pool in POOLS}
        first = {pool: recording.first_token_s - scenario.trace.arrival_s for pool, recording in alone.items()}
        came = scenario.trace.arrival_s
        pools = {}
        for pool in POOLS:
            times = JobTimes(
                came, came + first[pool], came + first[pool], alone[pool].failed, np.ones(len(came), np.int32)
            )
            pools[pool] = replace(alone[pool].pools["llm"], jobs=times)
            came = came + first[pool]
        whole = alone["llm"]
        return replace(
            whole, first_token_s=came, finish_s=came + 2.0, pools=pools, classes=CLASSES, faults=scenario.faults
        )
