"""The way of each request through the pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.oracle.clock import INFINITY, Order
from tests.oracle.pods import Pod
from tests.oracle.work import Asked, Held, Job
from tiphys.domain.route import Hop

if TYPE_CHECKING:
    from tests.oracle.world import World

Hops = tuple[Hop, ...]


class Journeys:
    """Which hop begins when, and when a request has ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        trace = world.scenario.trace
        if trace.class_of is None:
            names = [next(iter(world.service.classes))] * len(trace)
        else:
            names = [trace.classes[index] for index in trace.class_of.tolist()]
        self.class_names = names
        self.first_job = [0]
        for name in names:
            self.first_job.append(self.first_job[-1] + len(world.service.classes[name]))
        self.ended_hops: dict[int, set[str]] = {}

    def hops(self, request: Asked) -> Hops:
        return self.world.service.classes[request.class_name]

    def begin(self, request: Asked) -> None:
        self.ended_hops[request.number] = set()
        for hop in self.hops(request):
            if not hop.after:
                self._follow(request, hop, None)

    def _follow(self, request: Asked, hop: Hop, held: Held | None) -> None:
        number = self.first_job[request.number] + self.hops(request).index(hop)
        due_s = self.world.clock.now + hop.delay_s
        self.world.clock.call(
            due_s, Order.DELIVERY, self.world.place_of_number(number), lambda: self._deliver(request, hop, number, held)
        )

    def _deliver(self, request: Asked, hop: Hop, number: int, held: Held | None) -> None:
        if request.failed:
            if held is not None:
                held.let_go()
            return
        inputs = hop.input.count(request.input_tokens, request.output_tokens)
        outputs = hop.output.count(request.input_tokens, request.output_tokens)
        splits = hop.sequences > 1 or hop.sequence_tokens is not None
        context = hop.context_tokens(inputs) if splits else None
        job = Job(number, request, hop, inputs, outputs, context, self.world.clock.now, held)
        self.world.pools[hop.pool].arrive(job)

    def claim(self, job: Job, pod: Pod, kv_tokens: int) -> Held | None:
        """The KV cache that stays behind for hops that will fetch it."""
        claims = sum(hop.kv_from == job.hop.name for hop in self.hops(job.request))
        if claims == 0 or job.request.failed:
            return None
        return Held(pod, kv_tokens, claims)

    def transfer_s(self, job: Job) -> float:
        transfer = job.hop.transfer
        source = next(hop for hop in self.hops(job.request) if hop.name == job.hop.kv_from)
        size = transfer.bytes_per_token or self.world.service.pools[source.pool].profile.kv_bytes_per_token
        return transfer.latency_s + job.input_tokens * size / (transfer.gigabytes_per_s * 1e9)

    def first_token(self, job: Job) -> None:
        if self._answers(job):
            job.request.first_token_s = self.world.clock.now

    def taken_back(self, job: Job) -> None:
        """Its replica was lost and it begins anew: the user has nothing of it."""
        if self._answers(job):
            job.request.first_token_s = INFINITY

    def _answers(self, job: Job) -> bool:
        hops = self.hops(job.request)
        return job.hop is next((hop for hop in hops if hop.answers), hops[-1])

    def ended(self, job: Job, held: Held | None) -> None:
        request = job.request
        done = self.ended_hops[request.number]
        done.add(job.hop.name)
        if request.failed:
            return
        for hop in self.hops(request):
            if job.hop.name in hop.after and done.issuperset(hop.after):
                self._follow(request, hop, held if hop.kv_from == job.hop.name else None)
        if len(done) == len(self.hops(request)):
            request.finish_s = self.world.clock.now
            self.world.answered(request)

    def failed(self, job: Job) -> None:
        if not job.request.failed:
            job.request.failed = True
            self.world.answered(job.request)
