"""What holds a pool's requests while no replica takes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Seconds


class Interceptor(Frozen):
    """KEDA's HTTP interceptor: requests wait while no replica is ready, at most `timeout_s`; otherwise they pass."""

    kind: Literal["interceptor"]
    timeout_s: PositiveSeconds = 20.0
    """condition wait timeout of the add-on: KEDA_CONDITION_WAIT_TIMEOUT"""


class RouterQueue(Frozen):
    """A queue in the router: each replica is given at most `in_flight` requests, the rest wait in order."""

    kind: Literal["router"]
    in_flight: PositiveInt
    timeout_s: PositiveSeconds | None = None
    """How long a request waits before it fails; without end where absent."""


class JetStreamQueue(Frozen):
    """A NATS JetStream work queue: replicas pull messages, at most `in_flight` each, and acknowledge when done.

    What a crashed replica held is delivered again `ack_wait_s` later.
    """

    kind: Literal["jetstream"]
    stream: str
    consumer: str
    in_flight: PositiveInt
    max_ack_pending: PositiveInt = 1000
    """Messages delivered and not acknowledged, of all replicas together (the consumer's MaxAckPending)."""
    ack_wait_s: Seconds = 30.0


PoolQueue = Annotated[Interceptor | RouterQueue | JetStreamQueue, Field(discriminator="kind")]
