"""Traffic: where a trace comes from. One source a file, chosen by `kind`; what a trace looks like; what can be learnt
from it.

Every source has `load(seed, base) -> Loaded`. A profile is fitted to a trace and drawn from again:
`sample(fit(trace), seed)`. To add a source: its file here, and one line in `AnySource`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tiphys.traffic.concurrency import ConcurrencySource
from tiphys.traffic.drawn import ProfileSource
from tiphys.traffic.files import CsvSource, open_trace
from tiphys.traffic.fit import fit
from tiphys.traffic.loaded import Loaded
from tiphys.traffic.profile import TrafficProfile, known_traffic, load_traffic_profile, traffic_profile_text
from tiphys.traffic.sample import sample
from tiphys.traffic.show import show_text
from tiphys.traffic.statistics import TraceStatistics, statistics
from tiphys.traffic.synthetic import SyntheticSource

OpenSource = Annotated[CsvSource | ProfileSource | SyntheticSource, Field(discriminator="kind")]
"""Traffic whose requests arrive at times of their own."""
AnySource = Annotated[CsvSource | ProfileSource | SyntheticSource | ConcurrencySource, Field(discriminator="kind")]

__all__ = [
    "AnySource",
    "ConcurrencySource",
    "CsvSource",
    "Loaded",
    "OpenSource",
    "ProfileSource",
    "SyntheticSource",
    "TraceStatistics",
    "TrafficProfile",
    "fit",
    "known_traffic",
    "load_traffic_profile",
    "open_trace",
    "sample",
    "show_text",
    "statistics",
    "traffic_profile_text",
]
