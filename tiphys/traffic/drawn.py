"""The source that draws from a traffic profile."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tiphys.domain.values import Frozen, PositiveSeconds, Seconds
from tiphys.traffic.loaded import Loaded
from tiphys.traffic.profile import TrafficProfile, load_traffic_profile
from tiphys.traffic.sample import sample


class ProfileSource(Frozen):
    """A sample of a traffic profile: the whole by default, else a window of it. Past its end the profile begins
    anew.
    """

    kind: Literal["profile"] = "profile"
    name: str
    """A name in configs/traffic, or a path (what has a slash or ends in .yaml or .json)."""
    start_s: Seconds = 0.0
    duration_s: PositiveSeconds | None = None

    def profile(self, base: Path) -> TrafficProfile:
        """The profile itself. Raises InputError that lists the known names."""
        return load_traffic_profile(self.name, base, key="traffic.source.name")

    def load(self, seed: int, base: Path, scale: float = 1.0) -> Loaded:
        """The trace that the seed draws, at `scale` independent copies."""
        profile = self.profile(base)
        notice = f"drawn from the profile '{profile.name}', no recorded request is replayed"
        return Loaded(sample(profile, seed, self.duration_s, scale, self.start_s), (notice,))
