"""What is served: model, backend, pools."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Seconds


class ColdStart(Frozen):
    """Seconds from a pod's creation to its readiness: log-normal through a median and a 95th percentile.

    `pending_s` is the first part of it, in which the pod is Pending (scheduling, image); then it is Running but not
    ready.
    """

    median_s: Seconds = 90.0
    p95_s: Seconds = 150.0
    pending_s: Seconds = 10.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.p95_s < self.median_s:
            raise ValueError(f"p95_s {self.p95_s:g} is below median_s {self.median_s:g}")
        return self

    @property
    def log_sigma(self) -> float:
        """Standard deviation of the logarithm; 0 for a constant cold start."""
        if self.median_s == 0:
            return 0.0
        return math.log(self.p95_s / self.median_s) / 1.6448536269514722


class Envelope(Frozen):
    """The replica bounds within which every policy's own bounds lie."""

    min: Annotated[int, Field(ge=0)] = 1
    max: Annotated[int, Field(ge=1, le=10_000)]
    start: PositiveInt | None = None
    """Replicas that are ready when a play begins, whatever the policy; `min` (at least 1) where absent."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is over max {self.max}")
        if self.start is not None and not self.min <= self.start <= self.max:
            raise ValueError(f"start {self.start} is not between min {self.min} and max {self.max}")
        return self

    @property
    def at_start(self) -> int:
        """Replicas that are ready when a play begins."""
        return self.start or max(self.min, 1)


class Target(Frozen):
    """A workload that exists already: adopted, never changed except through its scaler."""

    api_version: str = "apps/v1"
    kind: str = "Deployment"
    name: str


class Pool(Frozen):
    """One scalable workload: its step times, its scheduler's limits, its GPUs, its cold start."""

    profile: str
    gpus_per_replica: PositiveInt = 1
    replicas: Envelope
    cold_start: ColdStart = ColdStart()
    max_num_seqs: PositiveInt = 256
    max_batched_tokens: PositiveInt | None = None
    """Token budget of one engine step (chunked prefill); the profile's where absent."""
    kv_capacity_tokens: PositiveInt | None = None
    """Tokens that the KV cache of a replica holds; the profile's where absent."""
    admission: Literal["vllm", "trtllm_no_evict"] | None = None
    """Admission rule of the engine; the backend's where absent."""
    termination_grace_s: Seconds = 30.0
    """How long a removed replica may finish what it has (terminationGracePeriodSeconds)."""
    target: Target | None = None


RouterKind = Literal["least_outstanding", "round_robin", "random", "connection_random"]


class Router(Frozen):
    """How requests are spread over ready replicas.

    `connection_random` is what kube-proxy does with keep-alive connections: each of `connections` sticks to the
    replica that it was opened to until that replica goes.
    """

    kind: RouterKind = "least_outstanding"
    connections: PositiveInt = 64


class Perturbation(Frozen):
    """How the truth may differ from what was assumed: factors on step times and cold starts."""

    name: str = "nominal"
    step_time: PositiveSeconds = 1.0
    cold_start: PositiveSeconds = 1.0


NOMINAL = Perturbation()
PERTURBATIONS = (
    Perturbation(name="steps x0.8", step_time=0.8),
    Perturbation(name="steps x1.2", step_time=1.2),
    Perturbation(name="cold starts x0.5", cold_start=0.5),
    Perturbation(name="cold starts x2", cold_start=2.0),
)
"""What every candidate must survive, in the search as before the judge."""
