"""Routes: which pools a request of a traffic class passes, in what order, and how its tokens change on the way.

Three ways to write one: `rag` and `pd` name what is common, `graph` says everything. All come down to `Hop`s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Seconds

NonNegative = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=0)]


class Tokens(Frozen):
    """How many tokens a hop has: `of_input` x the request's input + `of_output` x its output + `fixed`, at least 1."""

    of_input: NonNegative = 0.0
    of_output: NonNegative = 0.0
    fixed: Whole = 0

    def count(self, input_tokens: int, output_tokens: int) -> int:
        """Tokens of one request, rounded up."""
        return max(1, math.ceil(self.of_input * input_tokens + self.of_output * output_tokens) + self.fixed)


SAME_INPUT = Tokens(of_input=1.0)
SAME_OUTPUT = Tokens(of_output=1.0)
NOTHING = Tokens(fixed=1)
"""An encoder's answer: it is done when its input is."""


class KvTransfer(Frozen):
    """How the KV cache of a prefilled prompt reaches the replica that decodes it.

    It takes `latency_s` + tokens x `bytes_per_token` / `gigabytes_per_s`; transfers do not slow one another.
    """

    gigabytes_per_s: PositiveSeconds = 25.0
    latency_s: Seconds = 0.001
    bytes_per_token: PositiveInt | None = None
    """The prefill pool's profile says it where absent."""


class Hop(Frozen):
    """One visit to a pool. It begins `delay_s` after all of `after` have ended."""

    name: str
    pool: str
    after: tuple[str, ...] = ()
    """The hops that must have ended; none for where the request enters."""
    delay_s: Seconds = 0.0
    """A search in a vector database, a network."""
    input: Tokens = SAME_INPUT
    output: Tokens = SAME_OUTPUT
    sequences: PositiveInt = 1
    """Into how many equal sequences the input falls that do not attend to one another (a reranker's pairs)."""
    sequence_tokens: PositiveInt | None = None
    """Or how long each such sequence is at most (chunks of a document)."""
    kv_from: str | None = None
    """The hop that prefilled this one's prompt: its KV cache is transferred instead."""
    transfer: KvTransfer = KvTransfer()
    """How, where `kv_from` says from whence."""
    answers: bool = False
    """This hop's first token is the user's; where no hop says so, the last one's."""

    def context_tokens(self, input_tokens: int) -> int:
        """Tokens that a token of the prompt attends to, itself included, at the end of its sequence."""
        each = -(-input_tokens // self.sequences)
        return each if self.sequence_tokens is None else min(each, self.sequence_tokens)


class RagRoute(Frozen):
    """Retrieval-augmented generation: [rewrite ->] embed -> search -> rerank -> llm; ingest enters at the embedder.

    The embedder encodes the query, the search returns `vdb_top_k` chunks, the reranker scores each with the query, the
    llm reads the request's input with the best `reranker_top_k` chunks and `template_tokens`.
    """

    kind: Literal["rag"]
    embed: str = "embed"
    rerank: str | None = "rerank"
    llm: str = "llm"
    rewrite: str | None = None
    """The pool that rewrites the query first (an llm call)."""
    rewrite_template_tokens: Whole = 100
    rewrite_output_tokens: PositiveInt = 32
    search_s: Seconds = 0.05
    vdb_top_k: PositiveInt = 20
    reranker_top_k: PositiveInt = 4
    chunk_tokens: PositiveInt = 300
    template_tokens: Whole = 150
    query_class: str = "query"
    ingest_class: str | None = "ingest"
    """The class whose requests only embed: input tokens in chunks of `chunk_tokens`."""

    def classes(self) -> dict[str, tuple[Hop, ...]]:
        """The hops of each traffic class, the query's first."""
        hops: list[Hop] = []
        if self.rewrite is not None:
            asked = Tokens(of_input=1.0, fixed=self.rewrite_template_tokens)
            written = Tokens(fixed=self.rewrite_output_tokens)
            hops.append(Hop(name="rewrite", pool=self.rewrite, input=asked, output=written))
        hops.append(Hop(name="embed", pool=self.embed, after=_behind(hops), output=NOTHING))
        chunks = self.vdb_top_k if self.rerank is None else self.reranker_top_k
        delay_s = self.search_s
        if self.rerank is not None:
            pairs = Tokens(of_input=float(self.vdb_top_k), fixed=self.vdb_top_k * self.chunk_tokens)
            hops.append(
                Hop(
                    name="rerank", pool=self.rerank, after=_behind(hops), delay_s=delay_s, input=pairs, output=NOTHING,
                    sequences=self.vdb_top_k,
                )
            )  # fmt: skip
            delay_s = 0.0
        read = Tokens(of_input=1.0, fixed=chunks * self.chunk_tokens + self.template_tokens)
        hops.append(Hop(name="llm", pool=self.llm, after=_behind(hops), delay_s=delay_s, input=read, answers=True))
        classes = {self.query_class: tuple(hops)}
        if self.ingest_class is not None:
            chunked = Hop(name="embed", pool=self.embed, output=NOTHING, sequence_tokens=self.chunk_tokens)
            classes[self.ingest_class] = (chunked,)
        return classes


class PdRoute(Frozen):
    """Prefill and decode apart: prefill -> KV transfer -> decode.

    The prompt's KV cache stays on the prefill replica until the decode replica, having room for it, has fetched it.
    """

    kind: Literal["pd"]
    prefill: str = "prefill"
    decode: str = "decode"
    transfer: KvTransfer = KvTransfer()
    request_class: str = "query"

    def classes(self) -> dict[str, tuple[Hop, ...]]:
        """The hops of the one traffic class."""
        prefill = Hop(name="prefill", pool=self.prefill, output=NOTHING)
        decode = Hop(
            name="decode", pool=self.decode, after=("prefill",), kv_from="prefill", transfer=self.transfer, answers=True
        )
        return {self.request_class: (prefill, decode)}


class GraphRoute(Frozen):
    """Any acyclic graph of hops for each traffic class, each hop written after those that it waits for."""

    kind: Literal["graph"]
    hops: Annotated[dict[str, Annotated[tuple[Hop, ...], Field(min_length=1)]], Field(min_length=1)]
    """by traffic class"""

    @model_validator(mode="after")
    def _hops_follow_what_they_wait_for(self) -> Self:
        for name, hops in self.hops.items():
            known: set[str] = set()
            for hop in hops:
                for before in (*hop.after, *(() if hop.kv_from is None else (hop.kv_from,))):
                    if before not in known:
                        raise ValueError(f"class {name}: {hop.name} waits for '{before}', which no hop before it is")
                if hop.kv_from is not None and hop.after != (hop.kv_from,):
                    raise ValueError(f"class {name}: hop {hop.name} takes its KV cache from a hop that it must follow")
                if hop.name in known:
                    raise ValueError(f"class {name}: two hops are called {hop.name}")
                known.add(hop.name)
            if sum(hop.answers for hop in hops) > 1:
                raise ValueError(f"class {name}: more than one hop answers")
        return self

    def classes(self) -> dict[str, tuple[Hop, ...]]:
        """The hops of each traffic class."""
        return dict(self.hops)


Route = Annotated[RagRoute | PdRoute | GraphRoute, Field(discriminator="kind")]
Classes = Mapping[str, tuple[Hop, ...]]


def _behind(hops: list[Hop]) -> tuple[str, ...]:
    return (hops[-1].name,) if hops else ()


def single(pool: str) -> dict[str, tuple[Hop, ...]]:
    """The route of a service of one pool: one class, one hop."""
    return {"request": (Hop(name=pool, pool=pool, answers=True),)}
