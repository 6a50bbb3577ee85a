"""One play from start to end: the memory set up, the loop run over it, what then stands in it read as a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import Handle
from tiphys.domain.platform import Policy
from tiphys.domain.recording import JobTimes, OfflineJobs, PoolRecording, Recording, ReplicaLife
from tiphys.domain.route import Hop
from tiphys.domain.scenario import Scenario
from tiphys.domain.signals import Latency, Signal
from tiphys.domain.trace import Floats, Trace
from tiphys.policies.fleet import FLEET, FleetPolicy
from tiphys.twin.arena import Arena, pack, unpacker
from tiphys.twin.control import Control
from tiphys.twin.decisions import table
from tiphys.twin.governing import Clock, Government, Histograms, government, queries_of
from tiphys.twin.jobs import read_out
from tiphys.twin.knative import KpaControl
from tiphys.twin.loop import FLEET as FLEET_LOOP
from tiphys.twin.loop import LOOPS, Ticks, Timetable, play
from tiphys.twin.offline import FleetRules
from tiphys.twin.randomness import fleet_phase_s
from tiphys.twin.stage import Stage, set_stage
from tiphys.twin.state import (
    ASKED,
    FULL_OF_DECISIONS,
    FULL_OF_EVENTS,
    FULL_OF_NOTHING,
    FULL_OF_PODS,
    FULL_OF_REQUESTS,
    HORIZON,
    OFFLINE_JOBS,
    PODS_CREATED,
    PREEMPTIONS,
    World,
)

if TYPE_CHECKING:
    from tiphys.twin.platform import TwinService

_MORE = 4
LATENCIES: tuple[Latency, ...] = ("ttft", "itl", "e2e")
N = TypeVar("N", bound=NamedTuple)


@dataclass(frozen=True)
class Room:
    """How much memory a play is given: places for pods, events, rows of decisions; requests of a closed loop."""

    pods: int
    events: int = 4096
    rows_factor: int = 1
    requests: int = 0

    def grown(self, full_of: int, requests: int) -> Room:
        """The next larger room after one thing has run out."""
        if full_of == FULL_OF_PODS:
            return replace(self, pods=self.pods * _MORE)
        if full_of == FULL_OF_EVENTS:
            return replace(self, events=self.events * _MORE)
        if full_of == FULL_OF_REQUESTS:
            return replace(self, requests=requests * 2)
        assert full_of == FULL_OF_DECISIONS
        return replace(self, rows_factor=self.rows_factor * _MORE)


def play_once(
    service: TwinService, policy: Policy, scenario: Scenario, room: Room, jump: bool
) -> tuple[Recording | None, Room]:
    """The recording, or None and the room that another attempt needs."""
    histograms = histograms_of(service, policy)
    windows = [query.window_s for each in policy.values() for query in queries_of(each)]
    counts_work = histograms.e2e > 0 or Signal.QUEUE_COMPUTE_RATIO in signals_of(policy)
    stage = set_stage(service, policy, scenario, room, jump, histograms, max(windows, default=0.0), counts_work)
    governments = governments_of(service, policy, scenario, stage, room, histograms)
    controls = pack([each.control for each in governments])
    autoscalers = pack([each.autoscaler for each in governments])
    timetables = pack([each.timetable for each in governments])
    fleet, memory_s = fleet_rules(policy, scenario)
    ticks = ticks_of(governments, fleet, scenario)
    start = np.array([start_replicas(service, scenario, name) for name in service.pools], np.int64)
    wanted = np.array([each.wanted_replicas for each in governments], np.int64)
    full_of, end_s = play(
        as_handle(stage.world),
        stage.setting,
        as_handle(ticks),
        as_handle(controls),
        as_handle(autoscalers),
        as_handle(timetables),
        fleet,
        memory_s,
        start,
        wanted,
    )
    if full_of != FULL_OF_NOTHING:
        return None, room.grown(int(full_of), len(scenario.trace))
    logs = {
        "control": (Control, controls),
        "autoscaler": (KpaControl, autoscalers),
        "timetable": (Timetable, timetables),
    }
    decisions = [decisions_of(each, place, logs) for place, each in enumerate(governments)]
    return recording(service, scenario, stage, decisions, float(end_s)), room


def as_handle(arrays: N) -> N:
    """A tuple of arrays as compiled code takes it: one pointer."""
    return cast(N, Handle(arrays._asdict()))


def check_playable(service: TwinService, policy: Policy, scenario: Scenario) -> None:
    """Raise InputError for a policy, queue, route or fault that the twin cannot play; nothing is played."""
    one = np.ones(1, np.int32)
    short = replace(scenario, trace=Trace(np.zeros(1), one, one, scenario.trace.name), users=None)
    room, histograms = Room(pods=1), histograms_of(service, policy)
    stage = set_stage(service, policy, short, room, True, histograms, 0.0, False)
    governments_of(service, policy, short, stage, room, histograms)


def governments_of(
    service: TwinService, policy: Policy, scenario: Scenario, stage: Stage, room: Room, histograms: Histograms
) -> list[Government]:
    """The controllers of each pool."""
    found = []
    for name, pool in service.pools.items():
        clock = clock_of(service, scenario, stage, name, room)
        own = Histograms(*(len(pool.bounds_s(latency)) + 1 for latency in LATENCIES))
        found.append(government(policy[name], pool.pool, scenario.settings, clock, histograms, own))
    return found


def start_replicas(service: TwinService, scenario: Scenario, pool: str) -> int:
    """Replicas of a pool that are ready when the play begins."""
    return scenario.start_replicas.get(pool, service.pools[pool].pool.replicas.at_start)


def signals_of(policy: Policy) -> set[Signal]:
    """Everything that a policy asks for."""
    return {query.signal for each in policy.values() for query in queries_of(each)}


def placed_at_start(service: TwinService, scenario: Scenario) -> dict[str, int]:
    """How many of each pool's first replicas find a place, as `tiphys.twin.nodes` will place them."""
    wanted = {name: start_replicas(service, scenario, name) for name in service.pools}
    nodes = scenario.settings.nodes
    if nodes is None:
        return wanted
    free = [[tier.gpus] * tier.nodes for tier in nodes.tiers]
    left = np.inf if nodes.quota_gpus is None else float(nodes.quota_gpus)
    placed = dict.fromkeys(wanted, 0)
    for name, count in wanted.items():
        gpus = service.pools[name].pool.gpus_per_replica
        for _ in range(count):
            roomy = next((tier for tier in free if any(each >= gpus for each in tier)), None)
            if roomy is None or gpus > left:
                continue
            roomy[roomy.index(min(each for each in roomy if each >= gpus))] -= gpus
            left -= gpus
            placed[name] += 1
    return placed


def histograms_of(service: TwinService, policy: Policy) -> Histograms:
    """Which histograms the pods keep: those that a policy asks for."""
    asked = {signal.latency for signal in signals_of(policy)}

    def buckets(latency: Latency) -> int:
        most = max(len(pool.bounds_s(latency)) for pool in service.pools.values())
        return most + 1 if latency in asked else 0

    return Histograms(buckets("ttft"), buckets("itl"), buckets("e2e"))


def clock_of(service: TwinService, scenario: Scenario, stage: Stage, pool: str, room: Room) -> Clock:
    """What a pool's controllers need to know of the play."""
    return Clock(
        scenario.seed,
        list(service.pools).index(pool),
        stage.setting.latest_s,
        scenario.starts_at_s,
        start_replicas(service, scenario, pool),
        placed_at_start(service, scenario)[pool],
        stage.world.pods.shape[0],
        room.rows_factor,
    )


def fleet_rules(policy: Policy, scenario: Scenario) -> tuple[FleetRules, Floats]:
    """The fleet's thresholds, and the controller's memory."""
    memory_s = np.array([np.inf])
    fleet, nodes = policy.get(FLEET), scenario.settings.nodes
    if not isinstance(fleet, FleetPolicy) or nodes is None or nodes.offline is None:
        return FleetRules(False, 1.0, 0, 0, 0.0, 0, 1, 0.0), memory_s
    work = nodes.offline
    return FleetRules(
        True, fleet.check_s, fleet.reserve_gpus, fleet.evict_below_gpus, fleet.admit_after_s, fleet.most_gpus,
        work.gpus_per_job, work.grace_s,
    ), memory_s  # fmt: skip


def ticks_of(governments: list[Government], fleet: FleetRules, scenario: Scenario) -> Ticks:
    """When every controller first acts, and how often."""
    next_s = np.array([each.first_s for each in governments]).T.copy()
    period_s = np.array([each.period_s for each in governments]).T.copy()
    assert next_s.shape[0] == LOOPS
    if fleet.present:
        next_s[FLEET_LOOP, 0] = fleet_phase_s(fleet.period_s, scenario.seed)
        period_s[FLEET_LOOP, 0] = fleet.period_s
    return Ticks(next_s, period_s, next_s.copy(), np.zeros(next_s.shape, np.int64))


def decisions_of(governed: Government, place: int, logs: Mapping[str, tuple[type[Any], Arena]]) -> NDArray[np.void]:
    """The decisions of one pool's controllers."""
    kind, arena = logs[governed.log_of]
    return table(unpacker(kind)(arena, place).log, governed.queries if governed.log_of == "control" else 1)


# --- the recording


def recording(
    service: TwinService, scenario: Scenario, stage: Stage, decisions: list[NDArray[np.void]], end_s: float
) -> Recording:
    """What stands in the memory after the play, frozen."""
    world = stage.world
    asked = int(world.counters[ASKED]) if scenario.users is not None else len(scenario.trace)
    times = request_times(service, scenario, stage, asked)
    trace = scenario.trace if scenario.users is None else answered_trace(scenario.trace, times.arrival_s, asked, stage)
    nodes = scenario.settings.nodes
    return Recording(
        trace=trace,
        first_token_s=times.first_token_s,
        finish_s=times.finish_s,
        failed=times.failed,
        pools=pool_recordings(service, stage, decisions, asked),
        warmup_s=scenario.warmup_s,
        horizon_s=float(min(world.clocks[HORIZON], stage.setting.latest_s)),
        end_s=end_s,
        seed=scenario.seed,
        preemptions=int(world.counters[PREEMPTIONS]),
        replica_of_request=times.replica,
        classes=service.classes,
        faults=scenario.faults,
        tiers=() if nodes is None else nodes.tiers,
        offline=offline_jobs(scenario, world),
    )


@dataclass(frozen=True)
class RequestTimes:
    """Each request's arrival, first token and end."""

    arrival_s: Floats
    first_token_s: Floats
    finish_s: Floats
    failed: NDArray[np.bool_]
    replica: NDArray[np.int32] | None


def request_times(service: TwinService, scenario: Scenario, stage: Stage, asked: int) -> RequestTimes:
    """What users saw: the first token of the hop that answers, the end of the last hop."""
    jobs: Any = stage.world.jobs
    if stage.setting.is_simple:
        first_token_s, finish_s = np.empty(len(jobs)), np.empty(len(jobs))
        failed, pod = np.empty(len(jobs), np.bool_), np.empty(len(jobs), np.int32)
        read_out(jobs, first_token_s, finish_s, failed, pod)
        return RequestTimes(scenario.trace.arrival_s, first_token_s, finish_s, failed, pod)
    first_job, hops_of = stage.world.first_job[:asked], stage.world.hops_of[:asked]
    last = int(first_job[-1] + hops_of[-1]) if asked else 0
    answers = first_job + stage.answering[:asked]
    finish_s = np.maximum.reduceat(jobs["finish_s"][:last], first_job) if asked else np.zeros(0)
    failed = np.maximum.reduceat(jobs["failed"][:last], first_job) == 1 if asked else np.zeros(0, np.bool_)
    finish_s = np.where(failed, np.inf, finish_s)
    arrival_s = scenario.trace.arrival_s
    if scenario.users is not None:
        arrival_s = np.minimum.reduceat(asked_s(entries=jobs[:last], hops=stage.world.hops), first_job)
    single = service.is_single
    return RequestTimes(
        arrival_s,
        np.array(jobs["first_token_s"][answers]),
        finish_s,
        failed,
        np.array(jobs["pod"][answers]) if single else None,
    )


def asked_s(entries: Any, hops: Any) -> Floats:
    """When the request of each job was asked, for the jobs where it entered; inf for the others."""
    entered = (hops["enters"] == 1)[entries["hop"]]
    return np.where(entered, entries["arrival_s"] - hops["delay_s"][entries["hop"]], np.inf)


def answered_trace(trace: Trace, arrival_s: Floats, asked: int, stage: Stage) -> Trace:
    """The requests that users asked, when they did."""
    end_s = max(float(stage.world.clocks[HORIZON]), float(arrival_s[-1]) if asked else 0.0)
    if not np.isfinite(end_s):
        end_s = stage.setting.latest_s
    return Trace(
        arrival_s,
        trace.input_tokens[:asked],
        trace.output_tokens[:asked],
        trace.name,
        end_s,
        None if trace.class_of is None else trace.class_of[:asked],
        trace.classes,
    )


def pool_recordings(
    service: TwinService, stage: Stage, decisions: list[NDArray[np.void]], asked: int
) -> dict[str, PoolRecording]:
    """Each pool's replicas, decisions, token gaps and jobs."""
    world = stage.world
    pods: Any = world.pods[: int(world.counters[PODS_CREATED])]
    found = {}
    for place, (name, pool) in enumerate(service.pools.items()):
        own = pods[pods["pool"] == place]
        found[name] = PoolRecording(
            pool.pool.gpus_per_replica,
            replica_life(own, world),
            decisions[place],
            world.itl_counts[place].copy(),
            None if stage.setting.is_simple else job_times(stage, place, asked),
        )
    return found


def replica_life(pods: Any, world: World) -> ReplicaLife:
    """When each of some pods existed."""
    tier = None
    if world.nodes.shape[0] > 0:
        nodes: Any = world.nodes
        tier = np.where(pods["node"] >= 0, nodes["tier"][np.maximum(pods["node"], 0)], -1).astype(np.int8)
    scheduled_s = np.where(pods["is_placed"] == 1, pods["scheduled_s"], np.inf)
    created_s, ready_s, removed_s, gone_s = (
        np.array(pods[column]) for column in ("created_s", "ready_s", "removed_s", "gone_s")
    )
    return ReplicaLife(created_s, ready_s, removed_s, gone_s, scheduled_s, tier)


def job_times(stage: Stage, pool: int, asked: int) -> JobTimes:
    """The jobs of one pool that came to it."""
    jobs: Any = stage.world.jobs
    hops: Any = stage.world.hops
    own = (hops["pool"][jobs["hop"]] == pool) & np.isfinite(jobs["arrival_s"])
    mine = jobs[own]
    return JobTimes(
        np.array(mine["arrival_s"]),
        np.array(mine["first_token_s"]),
        np.array(mine["finish_s"]),
        mine["failed"] == 1,
        np.array(mine["output_tokens"]),
    )


def offline_jobs(scenario: Scenario, world: World) -> OfflineJobs | None:
    """The offline work beside the replicas."""
    nodes = scenario.settings.nodes
    if nodes is None or nodes.offline is None:
        return None
    jobs: Any = world.offline[: int(world.counters[OFFLINE_JOBS])]
    places: Any = world.nodes
    return OfflineJobs(
        nodes.offline,
        np.array(jobs["start_s"]),
        np.array(jobs["stop_s"]),
        np.array(jobs["gone_s"]),
        jobs["lost"] == 1,
        places["tier"][jobs["node"]].astype(np.int8),
    )


def answering_hop(hops: tuple[Hop, ...]) -> int:
    """Which of a class's hops gives the user the first token."""
    marked = [place for place, hop in enumerate(hops) if hop.answers]
    return marked[0] if marked else len(hops) - 1
