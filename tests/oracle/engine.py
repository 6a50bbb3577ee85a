"""One replica's engine, one iteration at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from tiphys.domain.profile import StepTime

INFINITY = float("inf")
Admission = Literal["vllm", "trtllm_no_evict"]


@dataclass(eq=False)
class Request:
    """A request on its way; `prompt` is what has to be prefilled now, `prefilled` how much of it has been."""

    number: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    generated: int = 0
    prompt: int = 0
    prefilled: int = 0
    preemptions: int = 0
    first_token_s: float = INFINITY
    last_token_s: float = INFINITY
    finish_s: float = INFINITY
    failed: bool = False
    replica: int = -1

    @property
    def context(self) -> int:
        """Tokens in the KV cache of a decoding sequence, before this step's token."""
        return self.input_tokens + self.generated


@dataclass(frozen=True)
class Limits:
    """What bounds an engine's steps."""

    admission: Admission
    max_num_seqs: int
    max_batched_tokens: int
    kv_capacity_tokens: int

    def can_ever_hold(self, request: Request) -> bool:
        return request.input_tokens + request.output_tokens <= self.kv_capacity_tokens


def gemm_ms(step: StepTime, tokens: int) -> float:
    """g: linear between the points, constant below the first, the last slope above the last."""
    x, y = step.tokens, step.gemm_ms
    if tokens <= x[0]:
        return y[0]
    right = min(bisect_right(x, tokens), len(x) - 1)
    slope = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return y[right - 1] + slope * (tokens - x[right - 1])


def step_ms(step: StepTime, chunks: list[tuple[int, int]], decodes: int, kv_tokens: int) -> float:
    """Milliseconds of a step with `chunks` of (tokens prefilled, tokens of the whole prompt)."""
    prefill = sum(tokens for tokens, _ in chunks)
    pairs = sum(tokens * prompt for tokens, prompt in chunks)
    return (
        gemm_ms(step, prefill + decodes)
        + step.decode_ms * decodes
        + step.kv_token_ms * kv_tokens
        + step.prefill_token_ms * prefill
        + step.prefill_pair_ms * pairs
        + step.fixed_ms
    )


@dataclass
class Engine:
    """Waiting, prefilling (in order of admission) and decoding requests of one replica."""

    limits: Limits
    step: StepTime
    time_factor: float = 1.0
    waiting: deque[Request] = field(default_factory=deque)
    admitted: list[Request] = field(default_factory=list)
    """Prefilling and decoding together, in order of admission."""
    chunk: dict[int, int] = field(default_factory=dict)
    """Tokens that the step under way prefills, by request number."""
    preemptions: int = 0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    """(start of the step that ended it, seconds) of each gap between two tokens of a request"""

    @property
    def decoding(self) -> list[Request]:
        return [r for r in self.admitted if r.prefilled >= r.prompt]

    @property
    def prefilling(self) -> list[Request]:
        return [r for r in self.admitted if r.prefilled < r.prompt]

    @property
    def outstanding(self) -> int:
        return len(self.waiting) + len(self.admitted)

    def reserved(self) -> int:
        """KV tokens that are spoken for."""
        if self.limits.admission == "trtllm_no_evict":
            return sum(r.input_tokens + r.output_tokens for r in self.admitted)
        return sum(r.context for r in self.decoding) + sum(r.prompt for r in self.prefilling)

    def accept(self, request: Request) -> None:
        request.prompt, request.prefilled = request.input_tokens, 0
        self.waiting.append(request)

    def begin_step(self) -> float:
        """Preempt, chunk, admit; seconds that the step takes."""
        if self.limits.admission == "vllm":
            self._preempt()
        decoding = self.decoding
        budget = max(0, self.limits.max_batched_tokens - len(decoding))
        self.chunk = {}
        for request in self.prefilling:
            budget -= self._take_chunk(request, budget)
        self._admit(budget)
        chunks = [(self.chunk[r.number], r.prompt) for r in self.admitted if self.chunk.get(r.number, 0) > 0]
        milliseconds = step_ms(self.step, chunks, len(decoding), sum(r.context for r in decoding))
        return milliseconds * self.time_factor / 1000

    def _preempt(self) -> None:
        while self.reserved() > self.limits.kv_capacity_tokens:
            last = self.admitted.pop()
            last.prompt, last.prefilled = last.context, 0
            last.preemptions += 1
            self.preemptions += 1
            self.waiting.appendleft(last)

    def _take_chunk(self, request: Request, budget: int) -> int:
        tokens = min(request.prompt - request.prefilled, budget)
        self.chunk[request.number] = tokens
        return tokens

    def _admit(self, budget: int) -> None:
        while self.waiting and budget > 0 and len(self.admitted) < self.limits.max_num_seqs:
            request = self.waiting[0]
            if self.reserved() + self._reservation(request) > self.limits.kv_capacity_tokens:
                return
            self.admitted.append(self.waiting.popleft())
            budget -= self._take_chunk(request, budget)

    def _reservation(self, request: Request) -> int:
        if self.limits.admission == "trtllm_no_evict":
            return request.input_tokens + request.output_tokens
        return request.prompt

    def end_step(self, now_s: float, began_s: float) -> list[Request]:
        """Hand out the step's tokens; the requests whose very first token this was."""
        emitting = self.decoding
        for request in self.prefilling:
            request.prefilled += self.chunk.get(request.number, 0)
            if request.prefilled >= request.prompt:
                emitting.append(request)
        fresh = []
        for request in emitting:
            request.generated += 1
            if request.generated == 1:
                request.first_token_s = now_s
                fresh.append(request)
            else:
                self.gaps.append((began_s, now_s - request.last_token_s))
            request.last_token_s = now_s
            if request.generated == request.output_tokens:
                request.finish_s = now_s
        self.admitted = [r for r in self.admitted if r.finish_s == INFINITY]
        self.chunk = {}
        return fresh

    def drop_all(self) -> None:
        """Everything that is still here fails."""
        for request in [*self.waiting, *self.admitted]:
            request.failed = True
        self.waiting.clear()
        self.admitted.clear()
