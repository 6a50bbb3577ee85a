"""One replica's engine, one iteration at a time: preempt, chunk, admit, and hand out the tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.oracle.engine import Limits, gemm_ms
from tests.oracle.work import Held, Job
from tiphys.domain.profile import StepTime


class Step(NamedTuple):
    """A step under way."""

    duration_s: float
    chunks: list[tuple[Job, int]]
    decoding: list[Job]


@dataclass
class Batch:
    """Waiting, prefilling, fetching (KV transfer) and decoding jobs of one replica, and the KV caches that it holds."""

    limits: Limits
    step: StepTime
    fetch: Callable[[Job], None]
    """Begins the transfer of an admitted job's KV cache."""
    waiting: deque[Job] = field(default_factory=deque)
    prefilling: list[Job] = field(default_factory=list)
    fetching: list[Job] = field(default_factory=list)
    decoding: list[Job] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    turns: int = 0
    preemptions: int = 0
    used_tokens: int = 0
    """KV tokens spoken for when the last step began."""

    @property
    def running(self) -> int:
        return len(self.prefilling) + len(self.fetching) + len(self.decoding)

    @property
    def outstanding(self) -> int:
        return len(self.waiting) + self.running

    @property
    def reserves_whole(self) -> bool:
        return self.limits.admission == "trtllm_no_evict"

    def reserved(self) -> int:
        """KV tokens that are spoken for."""
        held = sum(held.kv_tokens for held in self.held)
        if self.reserves_whole:
            jobs = (*self.prefilling, *self.fetching, *self.decoding)
            return held + sum(job.input_tokens + job.output_tokens for job in jobs)
        prompts = sum(job.prompt for job in self.prefilling) + sum(job.prompt for job in self.fetching)
        return held + prompts + sum(job.cached for job in self.decoding)

    def footprint(self, job: Job) -> int:
        """What a job takes up when it is admitted, or leaves behind for another pool."""
        return job.input_tokens + job.output_tokens if self.reserves_whole else job.prompt

    def left_behind(self, job: Job) -> int:
        return job.input_tokens + job.output_tokens if self.reserves_whole else job.input_tokens

    def accept(self, job: Job) -> None:
        job.prompt, job.prefilled, job.generated = job.input_tokens, 0, 0
        self.waiting.append(job)

    # --- the beginning of a step

    def begin(self, now_s: float, time_factor: float) -> Step | None:
        """The step that begins now; None when there is nothing to do."""
        self.used_tokens = self.reserved()
        if not self.reserves_whole:
            self._preempt()
        budget = max(0, self.limits.max_batched_tokens - len(self.decoding))
        chunks: list[tuple[Job, int]] = []
        for job in self.prefilling:
            budget -= self._chunk(job, budget, chunks)
        self._admit(now_s, budget, chunks)
        if not chunks and not self.decoding:
            return None
        return Step(self._seconds(chunks) * time_factor, chunks, list(self.decoding))

    def _preempt(self) -> None:
        while self.used_tokens > self.limits.kv_capacity_tokens and self.running:
            last = max((*self.prefilling, *self.fetching, *self.decoding), key=lambda job: job.turn)
            for jobs in (self.prefilling, self.fetching, self.decoding):
                if last in jobs:
                    jobs.remove(last)
            self._set_back(last)
            self.used_tokens = self.reserved()

    def _set_back(self, job: Job) -> None:
        if job.is_fetching:
            job.is_fetching = False
            job.transfers += 1
            self.forget_held(job)
        job.prompt, job.prefilled = job.cached, 0
        job.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(job)

    def forget_held(self, job: Job) -> None:
        held, job.held = job.held, None
        if held is not None:
            held.let_go()

    def _chunk(self, job: Job, budget: int, chunks: list[tuple[Job, int]]) -> int:
        tokens = min(job.prompt - job.prefilled, budget)
        if tokens > 0:
            chunks.append((job, tokens))
        return tokens

    def _admit(self, now_s: float, budget: int, chunks: list[tuple[Job, int]]) -> None:
        while self.waiting and self.running < self.limits.max_num_seqs:
            job = self.waiting[0]
            if job.held is not None and not job.held.is_there:
                job.held = None
            if job.held is None and budget <= 0:
                return
            needed = self.footprint(job)
            if self.used_tokens + needed > self.limits.kv_capacity_tokens:
                return
            self.used_tokens += needed
            self._let_in(self.waiting.popleft(), now_s)
            if job.held is not None:
                self.fetching.append(job)
                job.is_fetching = True
                self.fetch(job)
            else:
                self.prefilling.append(job)
                budget -= self._chunk(job, budget, chunks)

    def _let_in(self, job: Job, now_s: float) -> None:
        self.turns += 1
        job.turn = self.turns
        job.admitted_s = min(job.admitted_s, now_s)

    def _seconds(self, chunks: list[tuple[Job, int]]) -> float:
        prefill = sum(tokens for _, tokens in chunks)
        pairs = sum(tokens * (job.context_tokens or job.prompt) for job, tokens in chunks)
        decodes, kv_tokens = len(self.decoding), sum(job.cached for job in self.decoding)
        time = self.step
        milliseconds = (
            gemm_ms(time, prefill + decodes)
            + time.decode_ms * decodes
            + time.kv_token_ms * kv_tokens
            + time.prefill_token_ms * prefill
            + time.prefill_pair_ms * pairs
            + time.fixed_ms
        )
        return milliseconds / 1000

    # --- the end of a step, of a transfer, of everything

    def end(self, step: Step) -> list[Job]:
        """The jobs that have one more token; the finished ones are no longer here."""
        emitting = list(step.decoding)
        for job, tokens in step.chunks:
            job.prefilled += tokens
            job.prefilled_tokens += tokens
            if job.prefilled >= job.prompt:
                self.prefilling.remove(job)
                self.decoding.append(job)
                emitting.append(job)
        for job in emitting:
            job.generated += 1
            job.generated_tokens += 1
        if any(job.generated == job.output_tokens for job in emitting):
            self.decoding = [job for job in self.decoding if job.generated < job.output_tokens]
        return emitting

    def fetched(self, job: Job) -> None:
        """The KV cache is here: with it comes the first token, which the prefill made."""
        self.fetching.remove(job)
        job.is_fetching = False
        job.prefilled, job.generated = job.prompt, 1
        if job.generated < job.output_tokens:
            self.decoding.append(job)

    def not_fetched(self, job: Job) -> None:
        """The KV cache was lost on the way: the prompt is prefilled here."""
        self.fetching.remove(job)
        job.is_fetching = False
        job.held = None
        self.prefilling.append(job)

    def drop_all(self) -> list[Job]:
        """Everything that is still here, which now is not; the held caches are lost."""
        jobs = [*self.prefilling, *self.fetching, *self.decoding, *self.waiting]
        for held in self.held:
            held.is_there = False
        for work in (self.prefilling, self.fetching, self.decoding, self.waiting, self.held):
            work.clear()
        return jobs
