"""The scenarios that an experiment plays: what is tuned on, what is judged on, what is perturbed.

Traffic with arrivals of its own is split in time. A closed loop has none to split: tuning and judging play the same
schedule of users with other requests, think times and phases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from tiphys.domain.faults import Fault
from tiphys.domain.scenario import Scenario
from tiphys.domain.service import PERTURBATIONS
from tiphys.domain.trace import ONE_CLASS, Trace
from tiphys.errors import InputError
from tiphys.experiment.spec import Experiment, Traffic
from tiphys.traffic import ConcurrencySource, CsvSource, Loaded, OpenSource, fit, sample

JUDGED_REPLICATES = 36
"""Of which a third play the judged traffic itself under other phases, cold starts and routing, the rest traffic
resampled from it (in a closed loop: drawn anew).
"""
_PLAYED_AS_IT_IS = 12
_SHORTEST_PART_S = 60.0
_MOST_REQUESTS = 50_000_000
"""More would not fit into the memory of a laptop."""
_DAY_S = 86_400.0


class Scenarios(Protocol):
    """What an experiment's traffic amounts to. Everything is made on first use and kept."""

    @property
    def loaded(self) -> Loaded:
        """The first class's traffic at scale 1, with what the reader should know of all of it."""
        ...

    @property
    def trace(self) -> Trace:
        """The whole traffic, scaled, all classes."""
        ...

    @property
    def tuned(self) -> Trace:
        """The part that is tuned on. Raises InputError for traffic that cannot be split."""
        ...

    @property
    def about(self) -> str:
        """The traffic in words: how much, and how it is split."""
        ...

    def whole(self, seed: int) -> Scenario:
        """All the traffic, unsplit and without a warm-up, with the faults."""
        ...

    def folds(self) -> tuple[Scenario, ...]:
        """What each trial of the search must meet, one by one; nothing goes wrong."""
        ...

    def perturbed(self) -> tuple[Scenario, ...]:
        """What is tuned on where the truth is perturbed, with the faults."""
        ...

    def judged(self) -> tuple[Scenario, ...]:
        """The replicates that are judged on, with the faults: the same traffic under seeds, then other traffic."""
        ...


def scenarios_of(experiment: Experiment, where: Path) -> Scenarios:
    """The scenarios of an experiment's traffic; `where` is its file."""
    source = experiment.traffic.source
    if isinstance(source, ConcurrencySource):
        return ClosedLoop(experiment, where, source)
    return OpenLoop(experiment, where)


def scenario(experiment: Experiment, trace: Trace, warmup_s: float, seed: int, name: str, **more: Any) -> Scenario:
    """A scenario under the experiment's settings."""
    return Scenario(
        trace,
        seed=seed,
        warmup_s=warmup_s,
        drain_s=experiment.traffic.drain_s,
        settings=experiment.cluster.in_force,
        name=name,
        **more,
    )


@dataclass(frozen=True)
class OpenLoop:
    """Traffic with arrivals of its own, split in time."""

    experiment: Experiment
    where: Path

    @property
    def _traffic(self) -> Traffic:
        return self.experiment.traffic

    @property
    def _seed(self) -> int:
        return self.experiment.search.seed

    @cached_property
    def _sources(self) -> dict[str, tuple[str, OpenSource, float]]:
        """By class: the key of its source in the file, the source, its scale."""
        first, source = next(iter(self.experiment.service.classes)), self._traffic.source
        assert not isinstance(source, ConcurrencySource)
        sources = {first: ("traffic", source, self._traffic.scale)}
        return sources | {
            name: (f"traffic.others.{name}", other.source, other.scale) for name, other in self._traffic.others.items()
        }

    @cached_property
    def _loaded(self) -> dict[str, Loaded]:
        loaded = {}
        for place, (name, (key, source, _)) in enumerate(self._sources.items()):
            try:
                loaded[name] = source.load(self._seed + 7919 * place, self.where.parent)
            except InputError as error:
                raise _placed(error, str(self.where), key) from None
        return loaded

    @cached_property
    def loaded(self) -> Loaded:
        """The first class's traffic at scale 1, with what the reader should know of all of it."""
        notices = [
            notice if place == 0 else f"{name}: {notice}"
            for place, (name, each) in enumerate(self._loaded.items())
            for notice in each.notices
        ]
        return Loaded(next(iter(self._loaded.values())).trace, tuple(notices))

    @cached_property
    def trace(self) -> Trace:
        """The whole traffic, scaled; the other classes' ends with the first's."""
        parts: dict[str, Trace] = {}
        for place, (name, (key, _, scale)) in enumerate(self._sources.items()):
            trace = self._loaded[name].trace
            if scale * len(trace) > _MOST_REQUESTS:
                raise InputError(
                    f"more than {_MOST_REQUESTS:,} requests",
                    where=str(self.where),
                    key=f"{key}.scale",
                    found=scale,
                    allowed=f"up to {_MOST_REQUESTS / len(trace):.6g}",
                )
            parts[name] = trace.scaled(scale, self._seed + 7919 * place)
        return self._merged(parts)

    def _merged(self, parts: dict[str, Trace]) -> Trace:
        first = next(iter(parts.values()))
        if tuple(parts) == ONE_CLASS:
            return first
        cut = {name: each if each is first else each.between(0.0, first.end_s) for name, each in parts.items()}
        return Trace.merged(cut, first.name)

    @property
    def _traffic_where(self) -> str:
        """The file to look in when something is wrong with the traffic."""
        source = self._traffic.source
        return source.path if isinstance(source, CsvSource) else str(self.where)

    @property
    def split_s(self) -> float:
        """Where the part that is tuned on ends. Raises InputError for a trace that is too short to split."""
        traffic = self._traffic
        split_s = self.trace.end_s * traffic.tune_share
        fold_s, judged_s = split_s / self.experiment.search.folds, self.trace.end_s - split_s
        if fold_s < _SHORTEST_PART_S or judged_s < _SHORTEST_PART_S or split_s <= traffic.warmup_s + _SHORTEST_PART_S:
            raise InputError(
                "the traffic is too short to split into a part to tune on and a part to judge on",
                where=self._traffic_where,
                key="traffic.tune_share",
                found=f"{self.trace.end_s:g} s",
                allowed=f"folds and a judged part of at least {_SHORTEST_PART_S:g} s, and as much left of the tuning "
                f"part after the warm-up of {traffic.warmup_s:g} s",
            )
        for place, fault in enumerate(self.experiment.faults):
            if fault.at_s >= judged_s:
                raise InputError(
                    "comes after the judged part",
                    where=str(self.where),
                    key=f"faults.{place}.at_s",
                    found=fault.at_s,
                    allowed=f"below {judged_s:g}",
                )
        return split_s

    @property
    def tuned(self) -> Trace:
        """The part that is tuned on."""
        return self.trace.between(0.0, self.split_s)

    @property
    def about(self) -> str:
        """The traffic in words."""
        return f"{len(self.trace)} requests, split at {self.split_s:g} s"

    def whole(self, seed: int) -> Scenario:
        """All the traffic, unsplit and without a warm-up, with the faults."""
        return self._scenario(self.trace, 0.0, 0.0, seed, "whole", self.experiment.faults)

    def folds(self) -> tuple[Scenario, ...]:
        """The folds of the tuning part under each seed of the search."""
        count, split_s = self.experiment.search.folds, self.split_s
        edges = [split_s * fold / count for fold in range(count + 1)]
        return tuple(
            self._window(start_s, stop_s, self._seed * 1000 + seed, f"fold {fold + 1} of {count}, seed {seed + 1}")
            for seed in range(self.experiment.search.tune_seeds)
            for fold, (start_s, stop_s) in enumerate(pairwise(edges))
        )

    def perturbed(self) -> tuple[Scenario, ...]:
        """The whole tuning part where the truth is perturbed."""
        whole = self._window(0.0, self.split_s, self._seed * 1000, "tuning part", self.experiment.faults)
        return tuple(whole.under(perturbation) for perturbation in PERTURBATIONS)

    def judged(self) -> tuple[Scenario, ...]:
        """Replicates of the judged part: itself under several seeds, and traffic resampled from its profile."""
        start_s, stop_s, faults = self.split_s, self.trace.end_s, self.experiment.faults
        first = self._seed * 1000 + 500
        played = [
            self._window(start_s, stop_s, first + i, f"judged part, seed {i + 1}", faults)
            for i in range(_PLAYED_AS_IT_IS)
        ]
        return (*played, *self._resampled(start_s, stop_s, JUDGED_REPLICATES - _PLAYED_AS_IT_IS, first + 100))

    def _resampled(self, start_s: float, stop_s: float, count: int, first_seed: int) -> list[Scenario]:
        warmup_s = min(self._traffic.warmup_s, start_s)
        begin_s = start_s - warmup_s
        profiles = {
            name: fit(each.trace.between(begin_s, stop_s), name=f"{self.trace.name}, judged part")
            for name, each in self._loaded.items()
            if len(_inside(each.trace, begin_s, stop_s))
        }
        return [
            self._scenario(
                self._merged(
                    {
                        name: sample(profile, first_seed + i + 7919 * place, scale=self._sources[name][2])
                        for place, (name, profile) in enumerate(profiles.items())
                    }
                ),
                warmup_s,
                begin_s,
                first_seed + i,
                f"resampled {i + 1}",
                self.experiment.faults,
            )
            for i in range(count)
        ]

    def _window(self, start_s: float, stop_s: float, seed: int, name: str, faults: tuple[Fault, ...] = ()) -> Scenario:
        """A window of the traffic, what came just before it played as its warm-up (its own beginning where nothing
        did).
        """
        warmup_s = self._traffic.warmup_s
        begin_s = max(0.0, start_s - warmup_s)
        scored_from_s = warmup_s if start_s < warmup_s else start_s - begin_s
        return self._scenario(self.trace.between(begin_s, stop_s), scored_from_s, begin_s, seed, name, faults)

    def _scenario(
        self, trace: Trace, warmup_s: float, begin_s: float, seed: int, name: str, faults: tuple[Fault, ...]
    ) -> Scenario:
        starts_at_s = (self._traffic.starts_at_s + begin_s) % _DAY_S
        return scenario(self.experiment, trace, warmup_s, seed, name, faults=faults, starts_at_s=starts_at_s)


@dataclass(frozen=True)
class ClosedLoop:
    """A schedule of users; each scenario plays all of it, with requests of its own seed."""

    experiment: Experiment
    where: Path
    source: ConcurrencySource

    @property
    def _seed(self) -> int:
        return self.experiment.search.seed

    @cached_property
    def loaded(self) -> Loaded:
        """The requests that the seed draws."""
        try:
            found = self.source.load(self._seed, self.where.parent)
        except InputError as error:
            raise _placed(error, str(self.where), "traffic") from None
        return Loaded(replace(found.trace, classes=(self._class,)), found.notices)

    @property
    def trace(self) -> Trace:
        """The requests that the seed draws."""
        return self.loaded.trace

    @property
    def tuned(self) -> Trace:
        """There is nothing to split."""
        self._check_faults()
        return self.trace

    @property
    def about(self) -> str:
        """The traffic in words."""
        users = self.source.users()
        lasts = "" if self.source.length_s is None else f" over {self.source.length_s:g} s"
        return f"{len(users.levels)} levels of up to {users.most} users{lasts}"

    def whole(self, seed: int) -> Scenario:
        """The schedule without a warm-up."""
        return self._scenario(seed, seed, "whole", 0.0, self.experiment.faults)

    def folds(self) -> tuple[Scenario, ...]:
        """The schedule under each seed of the search."""
        return tuple(
            self._scenario(self._seed * 1000 + seed, self._seed * 1000 + seed, f"schedule, seed {seed + 1}")
            for seed in range(self.experiment.search.tune_seeds)
        )

    def perturbed(self) -> tuple[Scenario, ...]:
        """The schedule where the truth is perturbed."""
        first = self._seed * 1000
        whole = self._scenario(first, first, "schedule", faults=self.experiment.faults)
        return tuple(whole.under(perturbation) for perturbation in PERTURBATIONS)

    def judged(self) -> tuple[Scenario, ...]:
        """The schedule with requests that no trial was played on: a third with the same, the rest with others each."""
        first, faults = self._seed * 1000 + 500, self.experiment.faults
        same = self._scenario(first, first, "judged, seed 1", faults=faults)
        played = [replace(same, seed=first + i, name=f"judged, seed {i + 1}") for i in range(_PLAYED_AS_IT_IS)]
        others = range(JUDGED_REPLICATES - _PLAYED_AS_IT_IS)
        drawn = [self._scenario(first + 100 + i, first + 100 + i, f"drawn {i + 1}", faults=faults) for i in others]
        return (*played, *drawn)

    @property
    def _class(self) -> str:
        return next(iter(self.experiment.service.classes))

    def _check_faults(self) -> None:
        length_s = self.source.length_s
        for place, fault in enumerate(self.experiment.faults):
            if length_s is not None and fault.at_s >= length_s:
                raise InputError(
                    "comes after the traffic",
                    where=str(self.where),
                    key=f"faults.{place}.at_s",
                    found=fault.at_s,
                    allowed=f"below {length_s:g}",
                )

    def _scenario(
        self,
        requests_seed: int,
        seed: int,
        name: str,
        warmup_s: float | None = None,
        faults: tuple[Fault, ...] = (),
    ) -> Scenario:
        before_s = self.experiment.traffic.warmup_s if warmup_s is None else warmup_s
        trace = self.source.asked(requests_seed, self.where.parent, before_s, self._class)
        starts_at_s = self.experiment.traffic.starts_at_s
        users = self.source.users(before_s)
        return scenario(
            self.experiment, trace, before_s, seed, name, users=users, faults=faults, starts_at_s=starts_at_s
        )


def _inside(trace: Trace, start_s: float, stop_s: float) -> range:
    arrival = trace.arrival_s
    return range(int(arrival.searchsorted(start_s)), int(arrival.searchsorted(stop_s)))


def _placed(error: InputError, where: str, key: str) -> InputError:
    """Sources say their key as that of the first class."""
    placed = error.at(error.where or where)
    if key == "traffic" or not placed.key.startswith("traffic."):
        return placed
    return InputError(
        placed.message,
        where=placed.where,
        key=f"{key}.{placed.key.removeprefix('traffic.')}",
        found=placed.found,
        allowed=placed.allowed,
    )
