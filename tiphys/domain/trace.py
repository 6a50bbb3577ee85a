"""Arrivals in time, each with its token counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tiphys.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.int8]

ONE_CLASS = ("request",)
_MOST_CLASSES = 127


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in order of arrival (open loop).

    `arrival_s` float64, sorted, seconds from the start of the trace; `input_tokens` and `output_tokens` int32, >= 1.
    `end_s` is when the traffic ends: at least the last arrival; silence after it belongs to the trace.
    `class_of` int8 says of which of `classes` each request is; None where all are of the first. `longer` draws the
    same traffic with at least so many requests, the first ones being these: a closed loop does not know beforehand how
    many it takes.
    Raises InputError when empty, unsorted, not finite, negative in time, without tokens, or of a class that is not
    there.
    """

    arrival_s: Floats
    input_tokens: Ints
    output_tokens: Ints
    name: str = "trace"
    end_s: float = field(default=-1.0)
    class_of: Bytes | None = None
    classes: tuple[str, ...] = ONE_CLASS
    longer: Callable[[int], Trace] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        set_ = object.__setattr__
        set_(self, "arrival_s", np.ascontiguousarray(self.arrival_s, dtype=np.float64))
        set_(self, "input_tokens", np.ascontiguousarray(self.input_tokens, dtype=np.int32))
        set_(self, "output_tokens", np.ascontiguousarray(self.output_tokens, dtype=np.int32))
        if self.class_of is not None:
            set_(self, "class_of", np.ascontiguousarray(self.class_of, dtype=np.int8))
        self._check()
        self._check_classes()
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
        for array in self._columns:
            array.flags.writeable = False

    @property
    def _columns(self) -> tuple[NDArray[np.generic], ...]:
        columns = (self.arrival_s, self.input_tokens, self.output_tokens)
        return columns if self.class_of is None else (*columns, self.class_of)

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

    def _check_classes(self) -> None:
        names = self.classes
        if not names or len(set(names)) < len(names) or len(names) > _MOST_CLASSES:
            raise InputError(
                "the classes of a trace have names of their own", where=self.name, key="classes", found=", ".join(names)
            )
        if self.class_of is None:
            return
        if len(self.class_of) != len(self.arrival_s):
            raise InputError("columns differ in length", where=self.name, key="class_of")
        low, high = int(self.class_of.min()), int(self.class_of.max())
        if low < 0 or high >= len(names):
            raise InputError(
                "no such class",
                where=self.name,
                key="class_of",
                found=low if low < 0 else high,
                allowed=f"0 to {len(names) - 1}",
            )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def mean_rate_per_s(self) -> float:
        """Requests per second over the whole length."""
        return len(self) / self.end_s if self.end_s > 0 else float("inf")

    @classmethod
    def merged(cls, parts: Mapping[str, Trace], name: str | None = None) -> Trace:
        """Traffic of several classes as one trace: each part's requests are of the class that it is given under.

        Of requests that arrive at once those of the class written first come first. The traffic ends with the last of
        the parts. Raises InputError when there is none, or when a part has classes already.
        """
        if not parts:
            raise InputError("no traffic to merge", where=name or "trace")
        for each in parts.values():
            if each.class_of is not None:
                raise InputError("has classes already", where=each.name, found=", ".join(each.classes))
        traces, called = tuple(parts.values()), name or _merged_name(parts)
        end_s = max(each.end_s for each in traces)
        if len(traces) == 1:
            one = traces[0]
            return replace(one, name=called, classes=tuple(parts))
        arrival = np.concatenate([each.arrival_s for each in traces])
        order = np.argsort(arrival, kind="stable")
        of = np.repeat(np.arange(len(traces), dtype=np.int8), [len(each) for each in traces])
        inputs = np.concatenate([each.input_tokens for each in traces])
        outputs = np.concatenate([each.output_tokens for each in traces])
        return cls(arrival[order], inputs[order], outputs[order], called, end_s, of[order], tuple(parts))

    def of_class(self, name: str) -> NDArray[np.bool_]:
        """Which requests are of a class. Raises InputError for a class that the trace does not know."""
        if name not in self.classes:
            raise InputError("no such class", where=self.name, found=name, allowed=", ".join(self.classes))
        place = self.classes.index(name)
        return np.full(len(self), place == 0) if self.class_of is None else self.class_of == place

    def between(self, start_s: float, stop_s: float) -> Trace:
        """The requests that arrive in [start_s, stop_s), their clock starting at start_s."""
        first, last = np.searchsorted(self.arrival_s, [start_s, stop_s], side="left")
        return Trace(
            self.arrival_s[first:last] - start_s,
            self.input_tokens[first:last],
            self.output_tokens[first:last],
            self.name,
            min(stop_s, self.end_s) - start_s,
            None if self.class_of is None else self.class_of[first:last],
            self.classes,
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
        return Trace(
            arrival[order],
            self.input_tokens[index],
            self.output_tokens[index],
            self.name,
            self.end_s,
            None if self.class_of is None else self.class_of[index],
            self.classes,
        )

    def digest(self) -> str:
        """16 hex digits that name exactly this traffic."""
        sha = hashlib.sha256()
        for array in self._columns:
            sha.update(array.tobytes())
        sha.update(np.float64(self.end_s).tobytes())
        if self.classes != ONE_CLASS:
            sha.update("\0".join(self.classes).encode())
        return sha.hexdigest()[:16]


def _merged_name(parts: Mapping[str, Trace]) -> str:
    """What traffic of several classes is called: the names of its parts, each once."""
    return " + ".join(dict.fromkeys(each.name for each in parts.values()))
