"""What stands before a pool's replicas: nothing, an interceptor, a router's queue, a stream, Knative's activator."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tests.oracle.clock import INFINITY, Order
from tests.oracle.pods import Integral
from tests.oracle.work import Job
from tiphys.domain.queues import Interceptor, JetStreamQueue, RouterQueue

if TYPE_CHECKING:
    from tests.oracle.pools import PoolState


class Line:
    """No queue at all: a job that finds no ready replica fails at once."""

    def __init__(self, pool: PoolState) -> None:
        self.pool, self.clock = pool, pool.world.clock
        self.waiting: deque[Job] = deque()
        self.length = Integral()

    @property
    def lag(self) -> int:
        """Messages that are not acknowledged yet."""
        return len(self.waiting) + sum(pod.outstanding for pod in self.pool.alive)

    def arrive(self, job: Job) -> None:
        pod = self.pool.choose()
        if pod is None:
            self.pool.fail(job)
        else:
            pod.take(job)

    def pull(self) -> None:
        """Hand out what can be handed out."""

    def join(self, job: Job, timeout_s: float) -> None:
        self.waiting.append(job)
        self._note_length()
        job.is_queued = True
        if timeout_s < INFINITY:
            self.clock.call(
                self.clock.now + timeout_s, Order.DELIVERY, self.pool.world.place_of(job), lambda: self._give_up(job)
            )

    def _give_up(self, job: Job) -> None:
        if job.is_queued:
            job.is_queued = False
            self.waiting.remove(job)
            self._note_length()
            self.pool.fail(job)

    def _head(self) -> Job:
        job = self.waiting.popleft()
        job.is_queued = False
        self._note_length()
        return job

    def _note_length(self) -> None:
        self.length.change(self.clock.now, len(self.waiting))

    def _pull_freely(self) -> None:
        while self.waiting:
            pod = self.pool.choose()
            if pod is None:
                return
            pod.take(self._head())

    def _pull_up_to(self, in_flight: int) -> None:
        while self.waiting:
            pod = self.pool.least_loaded()
            if pod is None or pod.outstanding >= in_flight:
                return
            pod.take(self._head())


class InterceptorLine(Line):
    """Jobs wait while no replica is ready; otherwise they pass."""

    def __init__(self, pool: PoolState, interceptor: Interceptor) -> None:
        super().__init__(pool)
        self.timeout_s = interceptor.timeout_s

    def arrive(self, job: Job) -> None:
        if self.pool.able():
            super().arrive(job)
        else:
            self.join(job, self.timeout_s)

    def pull(self) -> None:
        self._pull_freely()


class RouterLine(Line):
    """Each replica is given so many jobs at most."""

    def __init__(self, pool: PoolState, queue: RouterQueue) -> None:
        super().__init__(pool)
        self.in_flight = queue.in_flight
        self.timeout_s = INFINITY if queue.timeout_s is None else queue.timeout_s

    def arrive(self, job: Job) -> None:
        self.join(job, self.timeout_s)
        self.pull()

    def pull(self) -> None:
        self._pull_up_to(self.in_flight)


class StreamLine(Line):
    """A work queue: what a lost replica held comes back."""

    def __init__(self, pool: PoolState, stream: JetStreamQueue) -> None:
        super().__init__(pool)
        self.stream, self.coming_back = stream, 0

    @property
    def unacknowledged(self) -> int:
        return self.coming_back + sum(pod.outstanding for pod in self.pool.alive)

    @property
    def lag(self) -> int:
        return len(self.waiting) + self.unacknowledged

    def arrive(self, job: Job) -> None:
        self.join(job, INFINITY)
        self.pull()

    def come_back(self, job: Job) -> None:
        """Redeliver after the acknowledgement has been waited for in vain."""
        job.start_over()
        self.pool.world.journeys.taken_back(job)
        self.coming_back += 1
        self.clock.call(
            self.clock.now + self.stream.ack_wait_s, Order.DELIVERY, self.pool.world.place_of(job),
            lambda: self._back(job),
        )  # fmt: skip

    def _back(self, job: Job) -> None:
        self.coming_back -= 1
        self.arrive(job)

    def pull(self) -> None:
        while self.waiting and not self.pool.world.faults.consumer_is_missing(self.pool.name, self.clock.now):
            pod = self.pool.least_loaded()
            if pod is None or pod.outstanding >= self.stream.in_flight:
                return
            if self.unacknowledged >= self.stream.max_ack_pending:
                return
            pod.take(self._head())


class ActivatorLine(Line):
    """Knative: jobs wait while no pod is ready, and in proxy mode while every pod has its limit of them."""

    timeout_s = 300.0

    def __init__(self, pool: PoolState, container_concurrency: int) -> None:
        super().__init__(pool)
        self.limit = container_concurrency
        self.is_proxied = True

    def arrive(self, job: Job) -> None:
        if self.pool.able() and not (self.is_proxied and self.limit):
            super().arrive(job)
            return
        self.join(job, self.timeout_s)
        self.pull()
        if not self.pool.able() and len(self.waiting) == 1:
            self.pool.knocked()

    def pull(self) -> None:
        if self.limit:
            self._pull_up_to(self.limit)
        else:
            self._pull_freely()


def line_of(pool: PoolState, container_concurrency: int | None) -> Line:
    """The line of a pool; `container_concurrency` where Knative runs it."""
    queue = pool.described.pool.queue
    if container_concurrency is not None:
        return ActivatorLine(pool, container_concurrency)
    if isinstance(queue, Interceptor):
        return InterceptorLine(pool, queue)
    if isinstance(queue, RouterQueue):
        return RouterLine(pool, queue)
    if isinstance(queue, JetStreamQueue):
        return StreamLine(pool, queue)
    return Line(pool)
