"""Metric dialects: how each family of servers names the signals in PromQL.

To add one: its file, and its name in `DIALECTS`.
"""

from __future__ import annotations

from tiphys.dialects.base import Dialect
from tiphys.dialects.dynamo import DYNAMO
from tiphys.dialects.measures import Aggregation, Histogram, RecordingRule, Series
from tiphys.dialects.nim import NIM
from tiphys.dialects.triton import TRITON, TRITON_LLMAPI
from tiphys.dialects.trtllm_serve import TRTLLM_SERVE
from tiphys.dialects.vllm import VLLM
from tiphys.errors import unknown_name

DIALECTS = {dialect.name: dialect for dialect in (VLLM, NIM, TRTLLM_SERVE, TRITON, TRITON_LLMAPI, DYNAMO)}


def dialect_named(name: str, *, where: str = "", key: str = "") -> Dialect:
    """The dialect of a name. Raises InputError that lists the known ones."""
    if name not in DIALECTS:
        raise unknown_name("dialect", name, DIALECTS, where=where, key=key)
    return DIALECTS[name]


__all__ = [
    "DIALECTS",
    "DYNAMO",
    "NIM",
    "TRITON",
    "TRITON_LLMAPI",
    "TRTLLM_SERVE",
    "VLLM",
    "Aggregation",
    "Dialect",
    "Histogram",
    "RecordingRule",
    "Series",
    "dialect_named",
]
