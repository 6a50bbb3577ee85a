"""What is served: model, backend, pools."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.queues import PoolQueue
from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Ratio, Seconds


class ColdStartParts(Frozen):
    """What a replica goes through once it has a node, in this order; medians, seconds.

    `image_pull_s` on a node that never had the image; the model from where it is stored, or from a warm cache; the
    engine; its warm-up.
    """

    image_pull_s: Seconds = 0.0
    model_load_s: Seconds = 0.0
    model_load_warm_s: Seconds | None = None
    """As `model_load_s` where absent."""
    engine_load_s: Seconds = 0.0
    warm_up_s: Seconds = 0.0

    def pending_s(self, has_image: bool) -> float:
        """The part in which the pod is Pending."""
        return 0.0 if has_image else self.image_pull_s

    def loading_s(self, is_warm: bool) -> float:
        """The part in which it is Running and not ready."""
        warm_s = self.model_load_s if self.model_load_warm_s is None else self.model_load_warm_s
        return (warm_s if is_warm else self.model_load_s) + self.engine_load_s + self.warm_up_s


class ColdStart(Frozen):
    """Seconds from a pod's scheduling to its readiness: log-normal through a median and a 95th percentile.

    `pending_s` is the first part of it, in which the pod is Pending (image); then it is Running but not ready. With
    `parts` they say how long it takes, and `p95_s` / `median_s` is the spread of them all together. Without `nodes` a
    pod is scheduled as it is created, on a node that has neither image nor model.
    """

    median_s: Seconds = 90.0
    p95_s: Seconds = 150.0
    pending_s: Seconds = 10.0
    parts: ColdStartParts | None = None

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


class Cpu(Frozen):
    """CPU of a replica, cores: `request` of its containers, `idle`, and what it takes more while a step runs."""

    request: PositiveSeconds = 4.0
    idle: Seconds = 0.2
    busy: Seconds = 1.0


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
    queue: PoolQueue | None = None
    """What holds requests while no replica takes them; without it a request that finds none ready fails at once."""
    cpu: Cpu = Cpu()
    gpu_memory_ratio: Ratio | None = None
    """Share of the GPUs' memory in use: constant, as the engine allocates its KV cache at the start; the profile's
    where absent.
    """


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
