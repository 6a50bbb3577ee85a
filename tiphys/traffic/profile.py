"""`TrafficProfile`: what can be learnt from traffic and drawn again, without keeping a single request.

Learnt by `tiphys.traffic.fit`, drawn from by `tiphys.traffic.sample`.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tiphys.configs import config_file, config_names
from tiphys.documents import read_yaml, to_yaml
from tiphys.domain.values import Frozen, PositiveInt, PositiveSeconds, Ratio, parse
from tiphys.errors import InputError

MINUTE_S = 60.0
_SUFFIX = ".yaml"
Rate = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
Levels = tuple[Ratio, ...]
Tokens = tuple[PositiveInt, ...]
Shifts = Annotated[tuple[float, ...], Field(min_length=1, max_length=1000)]


class Clusters(Frozen):
    """Arrivals that come together: a geometric number of them, each later than their start by an exponential delay."""

    mean_size: AtLeastOne
    """Members of a cluster; 1 is no clustering."""
    spread_s: PositiveSeconds
    """Mean delay of a member after the start of its cluster."""


class Bursts(Frozen):
    """How much more than Poisson the arrivals vary (index of dispersion: variance over mean of counts; Poisson: 1)."""

    dispersion_1s: float
    """Of all 1-s counts, as observed."""
    dispersion_60s: float
    """Of all whole minutes' counts, as observed: mostly the shape of the rate."""
    within_minute_1s: float
    """Of 1-s counts round the rate of their own minute, as observed."""
    minute_noise: AtLeastOne
    """Index of dispersion with which a sample redraws the count of each minute."""
    shape_weight: Annotated[float, Field(ge=-1, le=1)]
    """What a sample's expected minute is, so that redrawn minutes disperse as the observed ones did: between the
    local mean (0) and the observed minute (1), or below 0 between the local mean and one mean for all (-1).
    """
    clustered_share: Ratio
    """Share of the requests that come in clusters; the rest are Poisson."""
    fast: Clusters
    """Single bursts, inside the slow clusters: `mean_size` counts requests."""
    slow: Clusters
    """Bursts of bursts: `mean_size` counts fast clusters."""


class Lengths(Frozen):
    """Joint token counts: quantiles of the input, and of the output for each of some equal groups of inputs.

    Values between two levels are interpolated. `input_shift` and `output_shift` say how the lengths drift over time:
    the mean normal score of each equal part of the profile's length (input over all, output within its input group).
    """

    input_levels: Levels
    input_tokens: Tokens
    output_levels: Levels
    output_tokens: Annotated[tuple[Tokens, ...], Field(min_length=1, max_length=32)]
    input_shift: Shifts = (0.0,)
    output_shift: Shifts = (0.0,)
    rank_correlation: float = 0.0
    """Spearman's, as observed. Not used in sampling: the groups carry it."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        tables = [("input", self.input_levels, self.input_tokens)]
        tables += [("output", self.output_levels, row) for row in self.output_tokens]
        if len(self.input_shift) != len(self.output_shift):
            raise ValueError("input_shift and output_shift must have as many values as each other")
        for name, levels, tokens in tables:
            if len(levels) != len(tokens) or len(levels) < 2 or (levels[0], levels[-1]) != (0.0, 1.0):
                raise ValueError(f"{name}_levels must go from 0 to 1 and have one entry for each of {name}_tokens")
            if any(b <= a for a, b in pairwise(levels)) or any(b < a for a, b in pairwise(tokens)):
                raise ValueError(f"{name}_levels must rise and {name}_tokens must not fall")
        return self


class TrafficProfile(Frozen):
    """Traffic without its requests: rate over time, burstiness, joint token lengths; with where it is from."""

    api_version: Literal["tiphys/v1"] = "tiphys/v1"
    kind: Literal["traffic-profile"] = "traffic-profile"
    name: str
    source: str = ""
    licence: str = ""
    citation: str = ""
    changes: str = ""
    """What was done to the source before fitting."""
    requests: PositiveInt
    duration_s: PositiveSeconds
    mean_rate_per_s: Rate
    rate_step_s: PositiveSeconds = MINUTE_S
    """Length of each entry of `rates_per_s`, whole minutes; the last entry may be cut short by `duration_s`."""
    rates_per_s: tuple[Rate, ...]
    bursts: Bursts
    lengths: Lengths

    @model_validator(mode="after")
    def _cover_the_duration(self) -> Self:
        if self.rate_step_s % MINUTE_S:
            raise ValueError("rate_step_s must be whole minutes")
        steps = -(-self.duration_s // self.rate_step_s)
        if len(self.rates_per_s) != steps:
            raise ValueError(
                f"rates_per_s has {len(self.rates_per_s)} entries; duration_s and rate_step_s need {steps:.0f}"
            )
        if not any(self.rates_per_s):
            raise ValueError("rates_per_s is zero throughout")
        return self


def known_traffic() -> tuple[str, ...]:
    """The names of the profiles in `configs/traffic`, sorted."""
    return config_names("traffic", _SUFFIX)


def load_traffic_profile(name_or_path: str, base: Path | None = None, where: str = "", key: str = "") -> TrafficProfile:
    """The profile of a name in `configs/traffic`, or of a path (what has a slash or ends in .yaml or .json).

    A relative path is looked for in `base`, then in the working folder. Raises InputError, listing the known names.
    """
    path = _profile_path(name_or_path, base or Path(), where, key)
    return parse(TrafficProfile, read_yaml(path), str(path))


def _profile_path(name_or_path: str, base: Path, where: str, key: str) -> Path:
    if "/" not in name_or_path and Path(name_or_path).suffix not in (".yaml", ".yml", ".json"):
        return config_file("traffic", name_or_path, _SUFFIX, where=where, key=key)
    for candidate in (base / Path(name_or_path).expanduser(), Path(name_or_path).expanduser()):
        if candidate.is_file():
            return candidate
    raise InputError("there is no such traffic profile", where=where, key=key, found=name_or_path)


def traffic_profile_text(profile: TrafficProfile) -> str:
    """The YAML file of a profile, every member written."""
    return to_yaml(json.loads(profile.model_dump_json()))
