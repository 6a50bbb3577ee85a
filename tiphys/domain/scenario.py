"""Everything that one trial is played on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tiphys.domain.faults import Fault
from tiphys.domain.service import NOMINAL, Perturbation
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.trace import Trace
from tiphys.domain.users import Users


@dataclass(frozen=True)
class Scenario:
    """Traffic, seed, starting replicas, warm-up, drain, settings: nothing random or environmental hides elsewhere.

    The clock starts at 0. Requests that arrive in [warmup_s, horizon_s] are scored. GPU time is counted in the same
    window. After `horizon_s` (the end of the trace) no request arrives, controllers go on, and the play drains for at
    most `drain_s`. `start_replicas` are ready at time 0, by pool; the envelope's `start` where a pool is absent.
    `perturbation` is how the truth differs from the service's description. With `users` the loop is closed: the
    trace's requests are asked in order, each when a user is free, and their arrival times mean nothing. Times of
    `faults` count from `warmup_s`. `starts_at_s` is the time of day at time 0.
    """

    trace: Trace
    seed: int = 1
    warmup_s: float = 0.0
    drain_s: float = 600.0
    start_replicas: dict[str, int] = field(default_factory=dict)
    settings: ClusterSettings = field(default_factory=ClusterSettings)
    perturbation: Perturbation = NOMINAL
    users: Users | None = None
    faults: tuple[Fault, ...] = ()
    starts_at_s: float = 0.0
    name: str = "scenario"

    @property
    def horizon_s(self) -> float:
        """Where scoring of GPU time ends: the end of the traffic."""
        return self.trace.end_s

    def under(self, perturbation: Perturbation) -> Scenario:
        """The same scenario where the truth is perturbed."""
        return replace(self, perturbation=perturbation)

    def seeded(self, seed: int) -> Scenario:
        """The same scenario with other phases, cold starts and routing draws."""
        return replace(self, seed=seed)
