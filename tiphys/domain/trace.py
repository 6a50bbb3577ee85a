"""Arrivals in time, each with its token counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiphys.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival (open loop).

    `arrival_s` float64, sorted, seconds from the start of the trace; `input_tokens` and `output_tokens` int32, >= 1.
    `end_s` is when the traffic ends: at least the last arrival; silence after it belongs to the trace.
    Raises InputError when empty, unsorted, not finite, negative in time, or without tokens.
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    name: str = "trace"
    end_s: float = field(default=-1.0)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "arrival_s", np.ascontiguousarray(self.arrival_s, dtype=np.float64))
        set_(self, "input_tokens", np.ascontiguousarray(self.input_tokens, dtype=np.int32))
        set_(self, "output_tokens", np.ascontiguousarray(self.output_tokens, dtype=np.int32))
        self._check()
        if self.end_s < 0:
            set_(self, "end_s", float(self.arrival_s[-1]))
        elif self.end_s < self.arrival_s[-1]:
            raise InputError(
                "the traffic ends before its last arrival",
                where=self.name,
                key="end_s",
                found=self.end_s,
                allowed=f"at least {self.arrival_s[-1]}",
            )
        for array in (self.arrival_s, self.input_tokens, self.output_tokens):
            array.flags.writeable = False

    def _check(self) -> None:
        n = len(self.arrival_s)
        if n == 0:
            raise InputError("the trace is empty", where=self.name)
        if not (len(self.input_tokens) == len(self.output_tokens) == n):
            raise InputError("columns differ in length", where=self.name)
        if not np.isfinite(self.arrival_s).all() or self.arrival_s[0] < 0:
            raise InputError("arrival times must be finite and not negative", where=self.name, key="arrival_s")
        falls = np.flatnonzero(np.diff(self.arrival_s) < 0)
        if len(falls):
            row = int(falls[0]) + 1
            raise InputError(
                f"arrivals are not sorted (request {row})",
                where=self.name,
                key="arrival_s",
                found=float(self.arrival_s[row]),
                allowed=f"at least {self.arrival_s[row - 1]}",
            )
        for key in ("input_tokens", "output_tokens"):
            bad = np.flatnonzero(getattr(self, key) < 1)
            if len(bad):
                row = int(bad[0])
                raise InputError(
                    f"request {row} has no tokens",
                    where=self.name,
                    key=key,
                    found=int(getattr(self, key)[row]),
                    allowed="at least 1",
                )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second over the whole length."""
        return len(self) / self.end_s if self.end_s > 0 else float("inf")

    def between(self, start_s: float, stop_s: float) -> Trace:
        """The requests that arrive in [start_s, stop_s), their clock starting at start_s."""
        first, last = np.searchsorted(self.arrival_s, [start_s, stop_s], side="left")
        return Trace(
            self.arrival_s[first:last] - start_s,
            self.input_tokens[first:last],
            self.output_tokens[first:last],
            self.name,
            min(stop_s, self.end_s) - start_s,
        )

    def scaled(self, copies: float, seed: int, jitter_s: float = 30.0) -> Trace:
        """`copies` of the trace laid over one another, each shifted by a seeded jitter; a fraction thins the last.

        Each copy is moved round the circle of the trace's length by a uniform shift within +-jitter_s, so that bursts
        do not coincide exactly while the shape over minutes stays. Thinning keeps each request with the fraction's
        probability.
        """
        if copies <= 0 or not np.isfinite(copies):
            raise InputError("must be above 0", key="traffic.scale", found=copies)
        rng = np.random.default_rng([seed, 0x5CA1E])
        whole, fraction = int(copies), copies - int(copies)
        parts: list[tuple[Floats, NDArray[np.intp]]] = []
        for copy in range(whole + (fraction > 0)):
            index = np.arange(len(self))
            if copy == whole:
                index = index[rng.random(len(self)) < fraction]
            shift = 0.0 if copy == 0 else float(rng.uniform(-jitter_s, jitter_s))
            parts.append(((self.arrival_s[index] + shift) % max(self.end_s, 1e-9), index))
        arrival = np.concatenate([a for a, _ in parts])
        index = np.concatenate([i for _, i in parts])
        order = np.argsort(arrival, kind="stable")
        index = index[order]
        return Trace(arrival[order], self.input_tokens[index], self.output_tokens[index], self.name, self.end_s)

    def digest(self) -> str:
        """16 hex digits that name exactly this traffic."""
        sha = hashlib.sha256()
        for array in (self.arrival_s, self.input_tokens, self.output_tokens):
            sha.update(array.tobytes())
        sha.update(np.float64(self.end_s).tobytes())
        return sha.hexdigest()[:16]
