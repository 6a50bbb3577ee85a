"""What the scripted exporter shows, scrape by scrape: every target's whole life, the same in every recording.

Time passes in scrapes: a target's n-th scrape shows its n-th page, whenever it comes. Only when targets are discovered
and dropped is told in seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

TTFT = "ttft_seconds"
TTFT_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PAGES = 400
"""more than any target is scraped"""

Page = dict[str, float]
"""value by series; buckets are named `name_bucket{le="0.5"}`"""


@dataclass(frozen=True)
class Target:
    """One scripted target. `outages` maps a scrape's number to what goes wrong in it."""

    name: str
    job: str
    pages: Sequence[Page]
    outages: Mapping[int, str] = field(default_factory=dict)
    found_s: float = 0.0
    lost_s: float | None = None
    found_again_s: float | None = None

    def listed(self, at_s: float) -> bool:
        """Whether discovery lists it at a moment of the recording."""
        if self.found_again_s is not None and at_s >= self.found_again_s:
            return True
        return self.found_s <= at_s and (self.lost_s is None or at_s < self.lost_s)


INTERVALS_MS = {"pods": 1000, "fast": 500, "slow": 2500}
"""scrape interval by job"""
LENGTH_S = 66.0

REFUSED, SLOW, GARBLED = "answers 500", "answers after the timeout", "answers what cannot be parsed"


def le(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))


def bucket(name: str, bound: float) -> str:
    return f'{name}_bucket{{le="{le(bound)}"}}'


def histogram(name: str, bounds: Sequence[float], counts: Sequence[float]) -> Page:
    """A page's part: cumulative counts as they stand, `+Inf` last."""
    return {bucket(name, bound): count for bound, count in zip([*bounds, float("inf")], counts, strict=True)}


def pod_pages(seed: str, restarts: Sequence[int] = (), busy: float = 1.0) -> list[Page]:
    """A serving pod: counters, gauges and a histogram of TTFT; all counters begin again at its restarts."""
    draw = random.Random(seed)
    pages = []
    requests, tokens, latency_s, failures, counts = 0.0, 0.0, 0.0, 0.0, [0.0] * (len(TTFT_BOUNDS) + 1)
    for number in range(PAGES):
        if number in restarts:
            requests, tokens, latency_s, counts = 0.0, 0.0, 0.0, [0.0] * len(counts)
        for _ in range(draw.randint(0, int(6 * busy))):
            ttft_s = draw.lognormvariate(-1.5, 1.2)
            requests += 1
            latency_s += ttft_s
            tokens += draw.randint(1, 900) / 10
            counts = [n + (ttft_s <= bound) for n, bound in zip(counts, [*TTFT_BOUNDS, float("inf")], strict=True)]
        pages.append(
            {
                "requests_total": requests,
                "tokens_total": tokens,
                "failures_total": failures,
                "running": float(draw.randint(0, 40)),
                "kv_usage": draw.random(),
                "drift": draw.gauss(0.0, 5.0) - 0.3 * number,
                f"{TTFT}_sum": latency_s,
                f"{TTFT}_count": counts[-1],
                **histogram(TTFT, TTFT_BOUNDS, counts),
            }
        )
    return pages


def _pages(page: Callable[[int], Page]) -> list[Page]:
    return [page(number) for number in range(PAGES)]


def _from_zero(number: int) -> Page:
    """A counter that waits at zero, then climbs fast: its zero point lies inside the windows."""
    return {
        "requests_total": float(max(0, number - 5) * 40),
        "tokens_total": 0.5 + 7.0 * number,
        "idle_total": 12.0,
        "still": 0.1,
    }


def _steady_growth(name: str, bounds: Sequence[float], per_scrape: Sequence[float], number: int) -> Page:
    return histogram(name, bounds, [number * count for count in per_scrape])


def _empty(number: int) -> Page:
    """Histograms that say little: nothing observed, all above the last bound, one bucket, few observations."""
    few = [0.0, 0.0, float(number // 7), float(number // 7), float(number // 5), float(number // 5)]
    return {
        **histogram("silent", (0.1, 1.0), (4.0, 7.0, 9.0)),
        **histogram("few", (0.1, 0.2, 0.4, 0.8, 1.6), few),
        **_steady_growth("above", (0.1, 1.0), (0.0, 0.0, 3.0), number),
        **_steady_growth("endless", (), (2.0,), number),
        **_steady_growth("single", (0.5,), (2.0, 2.0), number),
        **_steady_growth("signed", (-2.0, -1.0, 0.0, 1.0), (1.0, 1.0, 3.0, 4.0, 4.0), number),
        **_steady_growth("origin", (0.0, 1.0), (1.0, 3.0, 4.0), number),
        **_steady_growth("below", (-3.0, 5.0), (2.0, 2.0, 2.0), number),
    }


def _broken(number: int) -> Page:
    """Histograms that no client should show: buckets that fall, and buckets that differ by rounding only."""
    return {
        **_steady_growth("falling", (0.1, 0.5, 1.0, 2.0), (5.0, 3.0, 9.0, 8.0, 10.0), number),
        **_steady_growth("rounded", (0.1, 0.5, 1.0), (1e13, 1e13 + 4, 1e13 + 4, 1e13 - 4), number),
        **_steady_growth("risen", (0.1, 0.5, 1.0), (1e6, 1e6 + 1e-5, 1e6 + 1, 1e6 + 1), number),
    }


_OUTAGES = {**dict.fromkeys(range(12, 17), REFUSED), 30: SLOW, 31: GARBLED, 32: SLOW, 45: REFUSED, 47: GARBLED}

TARGETS = (
    Target("back", "pods", pod_pages("back", restarts=(24,)), lost_s=21.0, found_again_s=38.0),
    Target("broken", "pods", _pages(_broken)),
    Target("crash", "pods", pod_pages("crash", restarts=(9, 11, 12, 25, 40))),
    Target("empty", "pods", _pages(_empty)),
    Target("flaky", "pods", pod_pages("flaky"), outages=_OUTAGES),
    Target("gone", "pods", pod_pages("gone"), lost_s=27.0),
    Target("late", "pods", pod_pages("late"), found_s=16.0),
    Target("quick", "fast", pod_pages("quick", restarts=(50,), busy=0.5), outages={70: REFUSED}),
    Target("slow", "slow", pod_pages("slow", restarts=(13,))),
    Target("steady", "pods", pod_pages("steady")),
    Target("zero", "pods", _pages(_from_zero)),
)
PODS = ("back", "crash", "flaky", "gone", "late", "steady")
"""targets of job `pods` that show what pods show"""


def exposition(page: Page) -> str:
    """The text format."""
    return "".join(f"{series} {value!r}\n" for series, value in page.items())
