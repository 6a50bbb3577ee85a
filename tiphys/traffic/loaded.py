"""`Loaded`: a trace, and what the reader should know of how it came about."""

from __future__ import annotations

from dataclasses import dataclass

from tiphys.domain.trace import Trace


@dataclass(frozen=True)
class Loaded:
    """A trace and its notices: one sentence each, for a person, on what was ignored or changed."""

    trace: Trace
    notices: tuple[str, ...] = ()
