"""The one import of Optuna: proposals as a pure function of what was told, and the durable journal of the studies.

Each batch of proposals is made by a fresh sampler, seeded from (seed, family, batch), on a study rebuilt from what was
told before the batch: nothing of the sampler has to survive a kill. The journal is in Optuna's own format (any Optuna
tool reads it), with one study a family. A trial stands in it three times: when asked (RUNNING, with its parameters),
when it has an outcome, and when told (COMPLETE, with its constraints).
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from tiphys.domain.platform import Transition
from tiphys.errors import InputError
from tiphys.policies.space import Dimension, Params, Value
from tiphys.search.evaluation import Outcome
from tiphys.search.journal_file import JournalFile

optuna.logging.set_verbosity(optuna.logging.WARNING)


def propose(
    dimensions: Sequence[Dimension],
    told: Sequence[tuple[Params, Outcome]],
    batch: Sequence[Params],
    count: int,
    seed: tuple[int, str, int],
) -> list[dict[str, Value]]:
    """`count` new points of a space, given what was told and what the batch holds already.

    Multivariate TPE with constraints; points of one batch keep away from each other (constant liar). A pure function:
    the same arguments, the same points.
    """
    distributions = {dimension.path: _distribution(dimension) for dimension in dimensions}
    # an explicit storage: the default one would do, but says so in the log
    study = optuna.create_study(storage=InMemoryStorage(), sampler=TPESampler(seed=_sampler_seed(*seed)))
    labels = {d.path: {_label(choice): choice for choice in d.choices} for d in dimensions if d.kind == "choice"}
    for params, outcome in told:
        study.add_trial(_told_trial(_written(params, labels), distributions, outcome))
    for params in batch:
        study.add_trial(
            create_trial(state=TrialState.RUNNING, params=_written(params, labels), distributions=distributions)
        )
    asked = [_read(study.ask(distributions).params, labels) for _ in range(count)]
    return [{d.path: _rounded(d, point[d.path]) for d in dimensions} for point in asked]


def _rounded(dimension: Dimension, value: Value) -> Value:
    """A number that people can read: three significant digits, within its range."""
    if dimension.kind != "float" or dimension.step or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.3g}"), dimension.low), dimension.high)


def _sampler_seed(seed: int, family: str, batch: int) -> int:
    words = np.random.SeedSequence([seed, zlib.crc32(family.encode()), batch]).generate_state(1)
    return int(words[0])


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.kind == "choice":
        return CategoricalDistribution([_label(choice) for choice in dimension.choices])
    if dimension.kind == "int":
        low, high = math.ceil(dimension.low), math.floor(dimension.high)
        step = int(dimension.step or 1)
        return IntDistribution(low, low + (high - low) // step * step, log=dimension.log and step == 1, step=step)
    if dimension.step:
        steps = math.floor((dimension.high - dimension.low) / dimension.step + 1e-9)
        return FloatDistribution(dimension.low, dimension.low + steps * dimension.step, step=dimension.step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _label(choice: Value) -> str:
    """A choice as text: Optuna compares choices by equality, under which True is 1."""
    return choice if isinstance(choice, str) else json.dumps(choice)


def _written(params: Params, labels: Mapping[str, Mapping[str, Value]]) -> dict[str, Any]:
    return {path: _label(value) if path in labels else value for path, value in params.items()}


def _read(params: Mapping[str, Any], labels: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    return {path: labels[path][value] if path in labels else value for path, value in params.items()}


def _told_trial(params: dict[str, Any], distributions: dict[str, BaseDistribution], outcome: Outcome) -> FrozenTrial:
    return create_trial(
        params=params, distributions=distributions, value=outcome.value, constraints=_constraints(outcome)
    )


def _constraints(outcome: Outcome) -> dict[str, float]:
    """Optuna's sign: a promise is kept at 0 or below."""
    return {promise: -margin for promise, margin in outcome.margins.items()}


@dataclass(frozen=True)
class Asked:
    """What a trial tries: a point of its space, or (params None) a policy outside of it, and where it came from."""

    policy: Mapping[str, Any]
    params: Params | None
    origin: str


@dataclass(frozen=True)
class Entry:
    """A trial as the journal has it."""

    asked: Asked
    outcome: Outcome | None
    told: bool


class Journal:
    """The studies of one search, durable: what was written survives a kill at any moment.

    `fingerprint` names everything that the search depends on. Raises InputError when the file belongs to another
    search, is in use by another process, or is damaged before its last line.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self._lines = JournalFile(path)
        try:
            self._storage = JournalStorage(cast(BaseJournalBackend, self._lines))
            self._check(fingerprint)
        except BaseException:
            self._lines.close()
            raise
        self._fingerprint = fingerprint
        self._studies = {
            study.study_name: optuna.load_study(study_name=study.study_name, storage=self._storage, sampler=_unused())
            for study in self._storage.get_all_studies()
        }
        self._ids = {name: [trial._trial_id for trial in self._trials(name)] for name in self._studies}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()

    def entries(self, family: str) -> list[Entry]:
        """Every trial of a family, in order."""
        return [_entry(trial) for trial in self._trials(family)] if family in self._studies else []

    def ask(self, family: str, dimensions: Sequence[Dimension], asked: Iterable[Asked]) -> None:
        """Append trials that are going to be evaluated."""
        study = self._study(family)
        distributions = {dimension.path: _distribution(dimension) for dimension in dimensions}
        labels = {d.path: {_label(choice): choice for choice in d.choices} for d in dimensions if d.kind == "choice"}
        for trial in asked:
            attributes = {"policy": trial.policy, "origin": trial.origin, "params": _plain(trial.params)}
            template = create_trial(
                state=TrialState.RUNNING,
                params=_written(trial.params or {}, labels),
                distributions=distributions if trial.params is not None else {},
                user_attrs=attributes,
            )
            self._ids[family].append(self._storage.create_new_trial(study._study_id, template))

    def record(self, family: str, number: int, outcome: Outcome) -> None:
        """Keep a trial's outcome, whenever it is ready."""
        document: dict[str, Any] = {"value": outcome.value, "margins": dict(outcome.margins), "played": outcome.played}
        if outcome.transition != Transition():
            document["transition"] = outcome.transition.model_dump(mode="json")
        self._storage.set_trial_user_attr(self._ids[family][number], "outcome", document)

    def tell(self, family: str, number: int, outcome: Outcome) -> None:
        """Finish a trial, in its turn."""
        study = self._studies[family]
        trial = optuna.trial.Trial(study, self._ids[family][number])
        for promise, excess in _constraints(outcome).items():
            if promise not in trial.constraints:
                trial.set_constraint(promise, excess)
        study.tell(trial, outcome.value)

    def sync(self) -> None:
        """Wait until all is on the disk: a kill loses nothing without it, a power cut would."""
        self._lines.sync()

    def _study(self, family: str) -> optuna.Study:
        if family not in self._studies:
            study = optuna.create_study(study_name=family, storage=self._storage, sampler=_unused())
            study.set_user_attr("search", self._fingerprint)
            self._studies[family], self._ids[family] = study, []
        return self._studies[family]

    def _trials(self, family: str) -> list[FrozenTrial]:
        return self._studies[family].get_trials(deepcopy=False)

    def _check(self, fingerprint: str) -> None:
        for study in self._storage.get_all_studies():
            found = self._storage.get_study_user_attrs(study._study_id).get("search", fingerprint)
            if found != fingerprint:
                raise InputError(
                    "belongs to another search (other traffic, spaces, SLO, trials or seed)",
                    where=str(self._lines.path),
                    key=study.study_name,
                    found=found,
                    allowed=fingerprint,
                )


def _unused() -> RandomSampler:
    """The journal's studies never propose anything themselves."""
    return RandomSampler(seed=0)


def _plain(params: Params | None) -> dict[str, Value] | None:
    return None if params is None else dict(params)


def _entry(trial: FrozenTrial) -> Entry:
    attributes = trial.user_attrs
    asked = Asked(attributes["policy"], attributes["params"], attributes["origin"])
    written = attributes.get("outcome")
    outcome = None
    if written:
        taken = Transition(**written.get("transition", {}))
        outcome = Outcome(written["value"], written["margins"], written["played"], taken)
    return Entry(asked, outcome, trial.state == TrialState.COMPLETE)
