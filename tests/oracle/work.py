"""What travels through a world: a user's request, its visits to pools, the KV cache that one visit leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.oracle.clock import INFINITY

if TYPE_CHECKING:
    from tests.oracle.pods import Pod
    from tiphys.domain.route import Hop


@dataclass(eq=False)
class Asked:
    """A request as its user sees it."""

    number: int
    class_name: str
    arrival_s: float
    input_tokens: int
    output_tokens: int
    user: int = -1
    first_token_s: float = INFINITY
    finish_s: float = INFINITY
    failed: bool = False


@dataclass(eq=False)
class Held:
    """KV cache of a prompt that waits on its prefill replica to be fetched."""

    pod: Pod
    kv_tokens: int
    """What it takes up there under the replica's admission rule."""
    claims: int
    """Hops that are still to fetch it, or to fail."""
    is_there: bool = True

    def let_go(self) -> None:
        """One hop less needs it; the last one frees it."""
        self.claims -= 1
        if self.claims == 0 and self.is_there:
            self.is_there = False
            self.pod.free(self)


@dataclass(eq=False)
class Job:
    """One visit of a request to a pool; of `prompt`, which has to be prefilled now, `prefilled` tokens have been."""

    number: int
    request: Asked
    hop: Hop
    input_tokens: int
    output_tokens: int
    context_tokens: int | None
    """Tokens that a prompt's token attends to where that is not the whole prompt."""
    arrival_s: float
    """At the pool."""
    held: Held | None = None
    """Where the KV cache of its prompt lies."""
    delivered_s: float = INFINITY
    """To a replica."""
    admitted_s: float = INFINITY
    """Into the batch for the first time on this replica."""
    turn: int = 0
    """Number of its admission among those of the replica."""
    generated: int = 0
    prompt: int = 0
    prefilled: int = 0
    preemptions: int = 0
    transfers: int = 0
    """Transfers begun; one that is void has another number than the present one."""
    is_fetching: bool = False
    returns: int = 0
    """How often it came back from a lost replica."""
    is_queued: bool = False
    """In the pool's queue."""
    first_token_s: float = INFINITY
    last_token_s: float = INFINITY
    finish_s: float = INFINITY
    failed: bool = False
    replica: int = -1
    """Creation number in its pool."""
    prefilled_tokens: int = field(default=0)
    """Everything that was ever prefilled for it, lost work included."""
    generated_tokens: int = field(default=0)
    """Everything that steps ever generated for it."""

    @property
    def cached(self) -> int:
        """Tokens in the KV cache while it decodes, before this step's token."""
        return self.input_tokens + self.generated

    def start_over(self) -> None:
        """As if it had never reached a replica."""
        self.delivered_s = self.admitted_s = self.first_token_s = self.last_token_s = INFINITY
        self.generated = self.prefilled = 0
        self.prompt = self.input_tokens
        self.is_fetching = False
        self.transfers += 1
        self.returns += 1
