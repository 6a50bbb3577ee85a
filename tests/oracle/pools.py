"""One pool of a world: its pods, how many there should be, which of them a job goes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.oracle.clock import INFINITY, Order
from tests.oracle.engine import Admission, Limits
from tests.oracle.exporter import Snapshot
from tests.oracle.lines import StreamLine, line_of
from tests.oracle.pods import Pod
from tests.oracle.promql import Series
from tests.oracle.work import Job
from tiphys.domain.profile import Profile, StepTime
from tiphys.domain.service import Pool
from tiphys.domain.signals import Latency

if TYPE_CHECKING:
    from tests.oracle.world import World


@dataclass(frozen=True)
class OraclePool:
    """A pool with everything that its description refers to."""

    pool: Pool
    profile: Profile
    admission: Admission
    """The backend's rule; the pool's own goes first."""
    bounds_s: Mapping[Latency, Sequence[float]]
    """Finite upper bounds of the histograms, seconds."""
    tier_profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Profiles of its replicas on nodes of a tier, by the tier's name."""


@dataclass(frozen=True)
class PoolChances:
    """What was left to chance in one pool; lists are by creation number."""

    cold_starts: Sequence[float]
    """Seconds of the whole; where it has parts the factor on them. The perturbation is in it."""
    scrape_phases_s: Sequence[float]
    router_phase_s: float
    rule_phase_s: float
    hpa_phase_s: float
    keda_phase_s: float
    kpa_phase_s: float
    cpu_phase_s: float = 0.0
    """When metrics-server first looks."""
    routing_seed: int = 0


class PoolState:
    """A pool while a scenario is played."""

    def __init__(
        self,
        world: World,
        name: str,
        described: OraclePool,
        chances: PoolChances,
        container_concurrency: int | None,
    ) -> None:
        self.world, self.name, self.described, self.chances = world, name, described, chances
        self.gpus = described.pool.gpus_per_replica
        self.batch_size = described.pool.max_num_seqs
        if container_concurrency:
            self.batch_size = min(self.batch_size, container_concurrency)
        profile, pool = described.profile, described.pool
        self.step = profile.step
        self.limits = Limits(
            pool.admission or described.admission,
            self.batch_size,
            pool.max_batched_tokens or profile.max_batched_tokens,
            pool.kv_capacity_tokens or profile.kv_capacity_tokens,
        )
        given = pool.gpu_memory_ratio
        self.gpu_memory_ratio = profile.source.memory_ratio if given is None else given
        self.pods: list[Pod] = []
        self.alive: list[Pod] = []
        self.jobs: list[Job] = []
        self.jobs_ended = 0
        self.last_used = -1
        self.router_series = Series(-1)
        self.knock: Callable[[], None] | None = None
        self.line = line_of(self, container_concurrency)

    def on_tier(self, tier: str) -> tuple[Limits, StepTime]:
        """Limits and step times of a replica on a node of a tier."""
        profile = self.described.tier_profiles.get(tier)
        if profile is None:
            return self.limits, self.step
        limits = Limits(
            self.limits.admission, self.batch_size, profile.max_batched_tokens, profile.kv_capacity_tokens
        )  # fmt: skip
        return limits, profile.step

    # --- jobs

    def arrive(self, job: Job) -> None:
        self.jobs.append(job)
        if job.input_tokens + job.output_tokens > self.limits.kv_capacity_tokens:
            self.fail(job)
        else:
            self.line.arrive(job)

    def fail(self, job: Job) -> None:
        job.failed = True
        held, job.held = job.held, None
        if held is not None:
            held.let_go()
        self.world.journeys.failed(job)

    def lost(self, jobs: Sequence[Job]) -> None:
        """A replica is not there any more, or begins anew: what it had fails, or comes back."""
        for job in jobs:
            if isinstance(self.line, StreamLine):
                held, job.held = job.held, None
                if held is not None:
                    held.let_go()
                self.line.come_back(job)
            else:
                self.fail(job)
        self.line.pull()

    def able(self) -> list[Pod]:
        """The replicas that take jobs, in order of creation."""
        return [pod for pod in self.alive if pod.takes_jobs]

    def least_loaded(self) -> Pod | None:
        return min(self.able(), key=lambda pod: (pod.outstanding, pod.number), default=None)

    def choose(self) -> Pod | None:
        """The router's choice; None where no replica takes jobs."""
        if self.world.router.kind == "least_outstanding":
            return self.least_loaded()
        if self.world.router.kind != "round_robin":
            raise NotImplementedError(f"router {self.world.router.kind}")
        able = self.able()
        if not able:
            return None
        chosen = next((pod for pod in able if pod.number > self.last_used), able[0])
        self.last_used = chosen.number
        return chosen

    def knocked(self) -> None:
        """A job has come to a pool that has nobody to serve it."""
        if self.knock is not None:
            self.knock()

    # --- replicas

    @property
    def wanted(self) -> list[Pod]:
        return [pod for pod in self.alive if pod.is_wanted]

    @property
    def ready_count(self) -> int:
        return sum(pod.is_ready for pod in self.alive)

    def create(self, starts_ready: bool = False) -> None:
        pod = Pod(self, len(self.pods), self.world.next_pod())
        pod.starts_ready = starts_ready
        self.pods.append(pod)
        self.alive.append(pod)
        self.world.cluster.enter(pod)

    def scale_to(self, wish: int) -> None:
        while len(self.wanted) < wish:
            self.create()
        while len(self.wanted) > wish:
            self._victim().remove(self.described.pool.termination_grace_s)

    def _victim(self) -> Pod:
        starting = [pod for pod in self.wanted if not pod.is_ready]
        if starting:
            return max(starting, key=lambda pod: (pod.created_s, pod.number))
        return max(self.wanted, key=lambda pod: (pod.transition_s, pod.number))

    # --- the router's own metric

    def begin_router_scrapes(self) -> None:
        self._scrape_router_at(0)

    def _scrape_router_at(self, number: int) -> None:
        due_s = self.chances.router_phase_s + number * self.world.scrape.interval_s
        place = self.world.pool_number(self.name)
        self.world.clock.call(due_s, Order.ROUTER_SCRAPE, place, lambda: self._scrape_router(number))

    def _scrape_router(self, number: int) -> None:
        now_s = self.world.clock.now
        if not self.world.faults.prometheus_is_down(now_s):
            self.router_series.write(now_s, Snapshot({"queued": len(self.line.waiting)}, {}, {}))
        self._scrape_router_at(number + 1)


def gpu_seconds(pods: Sequence[Pod], until_s: float) -> float:
    """GPU time from scheduling to the end, up to a moment."""
    spans = ((min(pod.gone_s, until_s) - pod.scheduled_s) * pod.pool.gpus for pod in pods if pod.scheduled_s < INFINITY)
    return sum(max(0.0, span) for span in spans)
