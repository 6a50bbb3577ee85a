"""One pod: its life, its engine at work, what is scraped from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tests.oracle.batching import Batch, Step
from tests.oracle.clock import INFINITY, Order
from tests.oracle.exporter import Exporter
from tests.oracle.hpa import Pod as SeenPod
from tests.oracle.promql import Series
from tests.oracle.work import Held, Job

if TYPE_CHECKING:
    from tests.oracle.nodes import Node
    from tests.oracle.pools import PoolState


class Integral:
    """The area under a count over time."""

    def __init__(self) -> None:
        self.area, self.value, self.since_s = 0.0, 0, 0.0

    def change(self, now_s: float, value: int) -> None:
        self.area += self.value * (now_s - self.since_s)
        self.value, self.since_s = value, now_s

    def until(self, now_s: float) -> float:
        return self.area + self.value * (now_s - self.since_s)


class Pod:
    """A replica, from its creation until it is gone."""

    def __init__(self, pool: PoolState, number: int, place: int) -> None:
        self.pool, self.number, self.place = pool, number, place
        self.world, self.clock = pool.world, pool.world.clock
        self.created_s = self.clock.now
        self.scheduled_s = self.running_from_s = self.ready_s = self.removed_s = self.gone_s = INFINITY
        self.transition_s = INFINITY
        """When it last became ready or ceased to be."""
        self.is_ready = False
        self.restarts = 0
        self.node: Node | None = None
        self.starts_ready = False
        self.batch = Batch(pool.limits, pool.step, self._fetch)
        self.exporter = Exporter(pool.described.bounds_s)
        self.series = Series(number)
        self.is_scraped = False
        self.last_scrape = (0.0, 0.0)
        """(time, seconds busy) at the last one that succeeded, or at readiness"""
        self.run = 0
        """Number of the step under way; a void one has another."""
        self.began_s: float | None = None
        self.busy_s = 0.0
        self.steps: list[tuple[float, float]] = []
        self.load, self.jobs_ended = Integral(), 0
        self.last_second = (0.0, 0)
        """(area under the jobs here, jobs ended) when Knative last looked, or at readiness"""
        self.slow: tuple[float, float, float] | None = None
        self.gaps: list[tuple[float, float]] = []
        self.kv_peak_tokens = 0
        self.prefilled_tokens = self.generated_tokens = 0

    # --- life

    @property
    def is_wanted(self) -> bool:
        return self.removed_s == INFINITY

    @property
    def takes_jobs(self) -> bool:
        return self.is_ready and self.is_wanted

    @property
    def outstanding(self) -> int:
        return self.batch.outstanding

    def schedule(self, node: Node | None) -> None:
        """It has a node, or needs none: the cold start begins."""
        now_s = self.clock.now
        self.node, self.scheduled_s = node, now_s
        if node is not None:
            self.batch.limits, self.batch.step = self.pool.on_tier(node.tier.name)
        if self.starts_ready and now_s == 0.0:
            self.running_from_s = now_s
            self._become_ready()
            return
        pending_s, cold_s = self._cold_start_s()
        self.running_from_s, self.transition_s = now_s + min(pending_s, cold_s), now_s
        if self.world.faults.never_starts(self.pool.name, self.created_s):
            return
        if cold_s > 0:
            restarts = self.restarts
            self.clock.call(now_s + cold_s, Order.LIFECYCLE, self.place, lambda: self._end_of_start(restarts))
        else:
            self._become_ready()

    def _cold_start_s(self) -> tuple[float, float]:
        """(Pending, the whole)"""
        cold, drawn = self.pool.described.pool.cold_start, self.pool.chances.cold_starts[self.number]
        if cold.parts is None:
            return cold.pending_s, drawn
        has_image = self.node is not None and self.pool.name in self.node.images
        pull_s, load_s = cold.parts.pending_s(has_image), cold.parts.loading_s(self._is_warm())
        return drawn * pull_s, drawn * (pull_s + load_s)

    def _is_warm(self) -> bool:
        return self.node is not None and (self.world.cluster.has_warm_cache or self.pool.name in self.node.loaded)

    def _end_of_start(self, restarts: int) -> None:
        if self.gone_s == INFINITY and self.restarts == restarts:
            self._become_ready()

    def _become_ready(self) -> None:
        now_s = self.clock.now
        self.is_ready, self.transition_s = True, now_s
        self.ready_s = min(self.ready_s, now_s)
        self.last_scrape = (now_s, self.busy_at(now_s))
        self.last_second = (self.load.until(now_s), self.jobs_ended)
        if self.node is not None:
            self.node.loaded.add(self.pool.name)
        if not self.is_scraped:
            self.is_scraped = True
            self._scrape_at(self._first_scrape(now_s))
        self.pool.line.pull()

    def crash(self) -> None:
        """The container dies and loads anew in place."""
        now_s, cold = self.clock.now, self.pool.described.pool.cold_start
        jobs = self._stop()
        self.is_ready, self.transition_s = False, now_s
        self.restarts += 1
        self.exporter = Exporter(self.pool.described.bounds_s)
        drawn = self.pool.chances.cold_starts[self.number]
        # the node has loaded this model: by this very pod
        cold_s = drawn * (1.0 if cold.parts is None else cold.parts.loading_s(is_warm=True))
        restarts = self.restarts
        self.clock.call(now_s + cold_s, Order.LIFECYCLE, self.place, lambda: self._end_of_start(restarts))
        self.pool.lost(jobs)

    def remove(self, grace_s: float) -> None:
        self.removed_s = self.clock.now
        if not self.is_ready or self._is_empty():
            self.go()
        else:
            self.clock.call(self.removed_s + grace_s, Order.LIFECYCLE, self.place, self.die)

    def die(self) -> None:
        """The end of the grace period, or of the node."""
        if self.gone_s == INFINITY:
            self.removed_s = min(self.removed_s, self.clock.now)
            jobs = self._stop()
            self.go()
            self.pool.lost(jobs)

    def go(self) -> None:
        self.gone_s, self.is_ready = self.clock.now, False
        self.pool.alive.remove(self)
        self.world.cluster.left(self)

    def _stop(self) -> list[Job]:
        if self.began_s is not None:
            self._count_step(self.began_s)
        self.run += 1
        jobs = self.batch.drop_all()
        self._note_load()
        return jobs

    def _is_empty(self) -> bool:
        return self.outstanding == 0 and not self.batch.held

    def seen(self) -> SeenPod:
        """As the HPA controller sees it."""
        is_pending = not self.is_ready and self.clock.now < self.running_from_s
        return SeenPod(
            self.number, "Pending" if is_pending else "Running", self.is_ready, not self.is_wanted,
            self.scheduled_s, self.transition_s,
        )  # fmt: skip

    # --- work

    def take(self, job: Job) -> None:
        job.delivered_s, job.replica = self.clock.now, self.number
        self.batch.accept(job)
        self._note_load()
        self.begin()

    def begin(self) -> None:
        """Start a step if none is under way and there is something to do."""
        if self.began_s is not None or not self.is_ready:
            return
        now_s = self.clock.now
        step = self.batch.begin(now_s, self._time_factor(now_s))
        self.kv_peak_tokens = max(self.kv_peak_tokens, self.batch.used_tokens)
        if step is None:
            if not self.is_wanted and self._is_empty():
                self.go()
            return
        self.began_s = now_s
        self.run += 1
        run = self.run
        self.clock.call(now_s + step.duration_s, Order.STEP_END, self.place, lambda: self._end(run, step))

    def _time_factor(self, now_s: float) -> float:
        factor = self.world.scenario.perturbation.step_time
        if self.slow is not None and self.slow[0] <= now_s < self.slow[1]:
            factor *= self.slow[2]
        return factor

    def _count_step(self, began_s: float) -> None:
        self.busy_s += self.clock.now - began_s
        self.steps.append((began_s, self.clock.now))
        self.began_s = None

    def _end(self, run: int, step: Step) -> None:
        if run != self.run:
            return
        assert self.began_s is not None
        began_s = self.began_s
        self._count_step(began_s)
        self.prefilled_tokens += sum(tokens for _, tokens in step.chunks)
        emitting = self.batch.end(step)
        self.generated_tokens += len(emitting)
        ended = [job for job in emitting if job.generated == job.output_tokens]
        for job in emitting:
            self._token(job, began_s)
        for job in ended:
            self._job_ended(job)
        self._note_load()
        self.begin()
        if ended:
            self.pool.line.pull()

    def _token(self, job: Job, began_s: float) -> None:
        now_s = self.clock.now
        if job.generated == 1:
            job.first_token_s = now_s
            self.exporter.histograms["ttft"].observe(now_s - job.arrival_s)
            self.world.journeys.first_token(job)
        else:
            gap_s = now_s - job.last_token_s
            self.gaps.append((began_s, gap_s))
            self.exporter.histograms["itl"].observe(gap_s)
        job.last_token_s = now_s

    def _job_ended(self, job: Job) -> None:
        job.finish_s = self.clock.now
        self.jobs_ended += 1
        self.pool.jobs_ended += 1
        self.exporter.ended(job, self.clock.now)
        held = self.world.journeys.claim(job, self, self.batch.left_behind(job))
        if held is not None:
            self.batch.held.append(held)
        self.world.journeys.ended(job, held)

    def _note_load(self) -> None:
        self.load.change(self.clock.now, self.outstanding)

    # --- KV transfers

    def free(self, held: Held) -> None:
        """A cache that was held here is not needed any more."""
        self.batch.held.remove(held)
        # what else becomes free at this instant is free before the replica looks
        self.clock.call(self.clock.now, Order.DELIVERY, 2**40 + self.place, self._look)

    def _look(self) -> None:
        if self.gone_s < INFINITY or not self.is_ready:
            return
        self.begin()
        if not self.is_wanted and self.gone_s == INFINITY and self._is_empty():
            self.go()

    def _fetch(self, job: Job) -> None:
        job.transfers += 1
        transfer = job.transfers
        duration_s = self.world.journeys.transfer_s(job)
        self.clock.call(
            self.clock.now + duration_s, Order.DELIVERY, self.world.place_of(job), lambda: self._fetched(job, transfer)
        )

    def _fetched(self, job: Job, transfer: int) -> None:
        if job.transfers != transfer or job.failed or not job.is_fetching:
            return
        assert job.held is not None
        if not job.held.is_there:
            self.batch.not_fetched(job)
            self.begin()
            return
        self.batch.fetched(job)
        self.batch.forget_held(job)
        self._token(job, self.clock.now)
        if job.generated == job.output_tokens:
            self._job_ended(job)
            self._note_load()
        self.begin()
        if job.finish_s < INFINITY:
            self.pool.line.pull()

    # --- scrapes

    def _first_scrape(self, from_s: float) -> int:
        return math.ceil((from_s - self.pool.chances.scrape_phases_s[self.number]) / self.world.scrape.interval_s)

    def _scrape_at(self, number: int) -> None:
        due_s = self.pool.chances.scrape_phases_s[self.number] + number * self.world.scrape.interval_s
        self.clock.call(due_s, Order.SCRAPE, self.place, lambda: self._be_scraped(number))

    def _be_scraped(self, number: int) -> None:
        now_s, faults = self.clock.now, self.world.faults
        if self.gone_s < INFINITY:
            # a target that discovery has dropped might come back: its marker is written 1.1 intervals late
            late_s = now_s + 1.1 * self.world.scrape.interval_s
            self.clock.call(late_s, Order.SCRAPE, self.place, self._end_series)
            return
        if not faults.prometheus_is_down(now_s):
            if self.is_ready and not faults.scrapes_fail(self.pool.name, now_s):
                self.series.write(now_s, self.exporter.snapshot(self._gauges(now_s)))
                self.last_scrape = (now_s, self.busy_at(now_s))
            else:
                self.series.write(now_s, None)
        self._scrape_at(number + 1)

    def _end_series(self) -> None:
        if not self.world.faults.prometheus_is_down(self.clock.now):
            self.series.write(self.clock.now, None)

    def busy_at(self, now_s: float) -> float:
        """Seconds in steps until now, the one under way included."""
        return self.busy_s + (0.0 if self.began_s is None else now_s - self.began_s)

    def busy_between(self, start_s: float, stop_s: float) -> float:
        """Seconds in steps within a window that is over."""
        steps = self.steps if self.began_s is None else [*self.steps, (self.began_s, INFINITY)]
        return sum(max(0.0, min(end_s, stop_s) - max(began_s, start_s)) for began_s, end_s in steps)

    def _gauges(self, now_s: float) -> dict[str, float]:
        batch, (last_s, last_busy_s) = self.batch, self.last_scrape
        waiting = len(batch.waiting)
        share = (self.busy_at(now_s) - last_busy_s) / (now_s - last_s) if now_s > last_s else 0.0
        return {
            "running": batch.running,
            "waiting": waiting,
            "pending": waiting,
            "concurrency": batch.running + waiting,
            "kv_usage": batch.reserved() / batch.limits.kv_capacity_tokens,
            "gpu_utilization": math.floor(share * 100 + 0.5) / 100,
            "gpu_memory": self.pool.gpu_memory_ratio,
        }
