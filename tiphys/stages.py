"""The stages of one run, called by the pipelines' steps: a run in, a small value out, files in its folder.

What a stage hands to the next one is the value it returns, as text of some kilobytes: in a cluster each stage has a
machine of its own and sees nobody's files. On one machine the files stay together in the run folder.
"""

from __future__ import annotations

import hashlib
import json
import platform as python_platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from tiphys.baselines import baselines, work_on_route
from tiphys.compiled import is_cached, sources_digest
from tiphys.documents import parse_yaml, read_text, to_json, to_yaml, write_atomically, write_yaml
from tiphys.domain.baselines import Baselines
from tiphys.domain.latencies import answering_hop
from tiphys.domain.platform import Policy, ScalingPolicy, governed_by
from tiphys.domain.scenario import Scenario
from tiphys.domain.scorecard import score
from tiphys.domain.signals import Signal
from tiphys.domain.values import Frozen
from tiphys.domain.verdict import JudgeRules, Verdict
from tiphys.errors import InputError, PlatformError, unknown_name
from tiphys.experiment import Experiment, Plan, parse_experiment
from tiphys.policies import HpaPolicy, KedaPolicy, PolicySpace, PrometheusTrigger, parse_policy
from tiphys.profiles import load_profile, profile_text
from tiphys.profiles.capacity import capacity, signal_targets
from tiphys.progress import report
from tiphys.promotion import LedgerEntry
from tiphys.promotion import promote as promote_run
from tiphys.recordings import write_recording
from tiphys.search import EvaluationPlan, Exam, judge_on, search, write_shortlist, write_trials
from tiphys.search import Progress as SearchProgress
from tiphys.search.joint import SpacesByPool

PlatformName = Literal["twin", "cluster"]
Decision = Literal["promote", "keep", "infeasible", "too_short"]


@dataclass(frozen=True)
class Run:
    """One run of an experiment: where it is played, and where its files go."""

    plan: Plan
    folder: Path
    platform: PlatformName = "twin"

    @property
    def experiment(self) -> Experiment:
        """What is run, with the changes of this run."""
        return self.plan.experiment

    @property
    def recordings(self) -> Path:
        """Where recordings go."""
        return self.folder / "recordings"


class Engine(Frozen):
    """The prepared serving artefact of a pool (of all pools together), named by the digest of all that makes it."""

    name: str
    digest: str


class Endpoint(Frozen):
    """Where the service is played, with the most replicas of each pool."""

    platform: PlatformName
    service: str
    pools: dict[str, int]


class InForce(Frozen):
    """The policy in force, by pool, as it would stand in a file."""

    policy: dict[str, dict[str, Any]]


class Load(Frozen):
    """What the calibration load showed, and where its recording lies in the run folder."""

    requests: int
    feasible: bool
    gpu_seconds: float
    recording: str


class Calibration(Frozen):
    """The profile that the twin plays with, and what is known of its error (a share of the step time); each pool's."""

    profile: str
    digest: str
    refitted: bool
    fit_error: dict[str, Any]


class Shortlist(Frozen):
    """The policies worth judging, best first. Where none is feasible, the one that misses least.

    They are those of `pool`; where that is empty each says by pool what it is.
    """

    pool: str
    feasible: bool
    policies: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, policies: Iterable[Policy], feasible: bool) -> Shortlist:
        """The shortlist of these policies, each of which is of the same pools."""
        documents = [{pool: scaling.document() for pool, scaling in policy.items()} for policy in policies]
        if len(documents[0]) > 1:
            return cls(pool="", feasible=feasible, policies=tuple(documents))
        ((pool, _),) = documents[0].items()
        return cls(pool=pool, feasible=feasible, policies=tuple(document[pool] for document in documents))

    def by_pool(self) -> tuple[Policy, ...]:
        """The policies themselves."""
        stated = [{self.pool: document} if self.pool else document for document in self.policies]
        return tuple({pool: parse_policy(each) for pool, each in document.items()} for document in stated)


class Restored(Frozen):
    """Whether an incumbent had to be put back, and why not."""

    restored: bool
    message: str


@lru_cache(maxsize=4)
def _plan(text: str, where: Path) -> Plan:
    documents = parse_yaml(text, str(where))
    if len(documents) != 1:
        raise InputError("expected one experiment", where=str(where), found=len(documents))
    return Plan(parse_experiment(documents[0], str(where)), where)


def open_run(
    experiment: str, folder: Path | str, *, where: Path | str = "experiment.yaml", platform: str = "twin",
    changes: Mapping[str, str] | None = None,
) -> Run:  # fmt: skip
    """The run that a step's parameters speak of: an experiment as YAML text, and changes of its `search`.

    `where` is the file that relative paths of the experiment start from. An empty change is none. The same text gives
    the same plan within a process, so that traffic is read once. Raises InputError.
    """
    if platform not in get_args(PlatformName):
        raise unknown_name("platform", platform, get_args(PlatformName), key="platform")
    documents = parse_yaml(experiment, str(where))
    wanted = {key: _number(key, value) for key, value in (changes or {}).items() if value.strip()}
    if wanted and len(documents) == 1 and isinstance(documents[0], dict):
        document = documents[0] | {"search": {**(documents[0].get("search") or {}), **wanted}}
        experiment = to_yaml(document)
    return Run(_plan(experiment, Path(where)), Path(folder), platform)  # type: ignore[arg-type]


def _number(key: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InputError("is not a whole number", key=key, found=value) from None


def require_supported(platform: str) -> None:
    """Raises PlatformError for a platform that this version does not drive."""
    if platform == "cluster":
        raise _not_driven()


def _not_driven() -> PlatformError:
    return PlatformError(
        "this version does not drive a cluster yet. It can run the whole experiment on the twin (--platform twin), "
        "write every manifest (`tiphys render`, `tiphys render-pipelines`) and promote the winner to a directory "
        "(`tiphys promote`)"
    )


def begin(run: Run) -> None:
    """The run folder with `experiment.yaml` as resolved and `environment.json`.

    Everything that the run will read is read first, so that wrong input leaves nothing behind. Raises InputError for
    that, and when the folder holds a run of another experiment or cannot be written.
    """
    _read_everything(run.plan)
    # with every default: kinds that have one must be told to be read again
    stated = to_yaml(run.experiment.model_dump(mode="json", by_alias=True))
    surroundings = to_json(environment(run))
    path = run.folder / "experiment.yaml"
    if path.exists():
        _require_same(read_text(path), stated, path)
    if not path.exists():
        write_atomically(path, stated)
    write_atomically(run.folder / "environment.json", surroundings)


def _read_everything(plan: Plan) -> None:
    plan.twin()
    _ = (plan.spaces, plan.tuned, plan.contexts)


def _require_same(text: str, stated: str, path: Path) -> None:
    """Raises InputError that names the first value in which a run folder's experiment is another one."""
    for key, had, has in _differences(parse_yaml(text), parse_yaml(stated)):
        if key != "0.search.workers":  # they change nothing but the time, so that a run may go on with other ones
            raise InputError(
                "is the run folder of another experiment, or of another version of it",
                where=str(path), key=key.removeprefix("0."), found=had, allowed=f"{has!r}, as asked for now",
            )  # fmt: skip


def _differences(had: Any, has: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The leaves in which two documents differ: dotted key, then both values (None where there is none)."""
    pairs = [dict(enumerate(each)) if isinstance(each, list) else each for each in (had, has)]
    if not all(isinstance(each, dict) for each in pairs):
        if had != has:
            yield key, had, has
        return
    for name in dict.fromkeys((*pairs[0], *pairs[1])):
        yield from _differences(pairs[0].get(name), pairs[1].get(name), f"{key}.{name}".removeprefix("."))


def environment(run: Run) -> dict[str, Any]:
    """What the run's numbers depend on besides the experiment."""
    packages = ("tiphys", "numpy", "numba", "optuna", "pydantic", "pandas")
    return {
        "python": python_platform.python_version(),
        "machine": python_platform.machine(),
        "packages": {name: version(name) for name in packages},
        "profiles": {name: _digest(profile_text(pool.profile)) for name, pool in run.plan.service.pools.items()},
        "twin": sources_digest(),
        "traffic": run.plan.trace.digest(),
        "seed": run.plan.seed,
        "platform": run.platform,
    }


def build_engine(run: Run) -> Engine:
    """The engine by name. On the twin it is its step-time profile and limits; nothing is built."""
    require_supported(run.platform)
    begin(run)
    engines = [_engine(run, name) for name in run.plan.pools]
    for engine in engines:
        report("build_engine", message=f"engine {engine.name}")
    if len(engines) == 1:
        return engines[0]
    digest = _digest(" ".join(engine.digest for engine in engines))
    return Engine(name=f"{run.experiment.service.name}-{digest}", digest=digest)


def _engine(run: Run, name: str) -> Engine:
    service, pool = run.experiment.service, run.plan.pools[name]
    made_of = {"model": service.model, "backend": service.backend.document(), "pool": pool.document()}
    profile = load_profile(pool.profile, str(run.plan.where), f"service.pools.{name}.profile")
    digest = _digest(json.dumps(made_of, sort_keys=True) + profile_text(profile))
    return Engine(name=f"{profile.name}-{digest}", digest=digest)


def deploy(run: Run) -> Endpoint:
    """The service, ready to be played. On the twin: all that it needs is read and checked now, not after an hour."""
    require_supported(run.platform)
    plan = run.plan
    begin(run)
    for pool, spaces in plan.inert.items():
        for name, found in spaces.items():
            where = name if len(plan.pools) == 1 else f"{pool}: {name}"
            for number in found:
                report("deploy", message=f"{where}: {number.path} cannot act, fixed at {number.value}: {number.reason}")
    count = sum(len(spaces) for spaces in plan.spaces.values())
    report("deploy", message=f"{count} spaces; {plan.scenarios.about}")
    pools = {name: pool.replicas.max for name, pool in run.experiment.service.pools.items()}
    return Endpoint(platform=run.platform, service=run.experiment.service.name, pools=pools)


def install_observability(run: Run) -> tuple[str, ...]:
    """The signals that scalers may see, checked. Only a cluster has any to install."""
    require_supported(run.platform)
    return tuple(Signal)


def apply_scaling(run: Run) -> InForce:
    """The incumbent in force, and its manifests in the run folder."""
    require_supported(run.platform)
    incumbent = run.plan.incumbent
    write_yaml(run.folder / "manifests-incumbent" / "scaling.yaml", _objects(run, incumbent))
    return InForce(policy={name: policy.document() for name, policy in incumbent.items()})


def load_test(run: Run) -> Load:
    """The whole traffic played under the incumbent: its recording and scorecard."""
    require_supported(run.platform)
    plan = run.plan
    if not is_cached("loop.play"):
        report("load_test", message="compiling the twin: half a minute or more, once for this version on this machine")
    recording = plan.twin().play(plan.whole())
    card = score(recording, run.experiment.slo, run.experiment.objective)
    name = "recordings/load-test.parquet"
    write_recording(run.folder / name, recording, plan.incumbent, run.experiment.cluster.in_force)
    write_atomically(run.folder / "load-test.json", to_json(card.model_dump(mode="json")))
    report("load_test", message=f"{card.requests} requests under the incumbent: {card.gpu_seconds:.0f} GPU-seconds")
    return Load(requests=card.requests, feasible=card.feasible, gpu_seconds=card.gpu_seconds, recording=name)


def calibrate(run: Run) -> Calibration:
    """The profile to play with. On the twin it is the one given, with its stated fit error: nothing to refit it to."""
    require_supported(run.platform)
    profiles = {name: pool.profile for name, pool in run.plan.service.pools.items()}
    errors = {name: profile.fit_error.model_dump(mode="json") for name, profile in profiles.items()}
    if len(profiles) == 1:
        ((name, profile),) = profiles.items()
        digest = _digest(profile_text(profile))
        return Calibration(profile=profile.name, digest=digest, refitted=False, fit_error=errors[name])
    digest = _digest("".join(profile_text(profile) for profile in profiles.values()))
    named = ", ".join(f"{name}: {profile.name}" for name, profile in profiles.items())
    return Calibration(profile=named, digest=digest, refitted=False, fit_error=errors)


def search_twin(run: Run) -> Shortlist:
    """The policies worth judging, found on the twin; `study.journal`, `trials.csv` and `shortlist.json`.

    Called again in the same run folder, it goes on where it was ended.
    """
    plan, budget = run.plan, run.experiment.search
    begin(run)
    result = search(
        plan.twin(), plan.spaces, evaluation_plan(plan), run.experiment.slo, run.experiment.objective,
        trials=budget.trials, seed=budget.seed, workers=budget.workers, folder=run.folder, seeds=capacity_seeds(plan),
        about=_digest(to_json(environment(run))), on_progress=_tell_search,
    )  # fmt: skip
    write_trials(run.folder / "trials.csv", result)
    write_shortlist(run.folder / "shortlist.json", result)
    if result.taken.new_revision:
        taken = f"{result.taken.seconds:.0f} s and {result.taken.gpu_seconds:.0f} GPU-seconds on a cluster"
        report("search_twin", message=f"these policies make new revisions: putting the trials in force takes {taken}")
    return Shortlist.of([candidate.policy for candidate in result.shortlist], result.feasible)


def evaluation_plan(plan: Plan) -> EvaluationPlan:
    """What every trial is played on: folds of the tuning part, and the part under each perturbation, severest first."""
    perturbed = sorted(plan.perturbed(), key=lambda s: (-s.perturbation.step_time, -s.perturbation.cold_start))
    return EvaluationPlan(plan.folds(), tuple(perturbed))


def _tell_search(progress: SearchProgress) -> None:
    best = ""
    if progress.best is not None:
        kept = "meets the SLO" if progress.best.feasible else f"misses by {-progress.best.margin * 100:.1f} points"
        best = f"{progress.best.value:.0f} ({progress.best.space}, {kept})"
    report("search_twin", progress.done, progress.trials, best)


def capacity_seeds(plan: Plan, spaces: SpacesByPool | None = None) -> dict[str, dict[str, tuple[ScalingPolicy, ...]]]:
    """By pool and space the published default at the level that `profile capacity` gives for its signal.

    Only of pools that answer requests of the first class from their prompt on: the SLO is theirs to keep.
    """
    hop = answering_hop(next(iter(plan.experiment.service.classes.values())))
    searched = spaces or plan.spaces
    if hop is None or hop.kv_from is not None or hop.pool not in searched:
        return {}
    pool, trace = plan.service.pools[hop.pool], plan.tuned
    inside = slice(None) if trace.class_of is None else trace.of_class(trace.classes[0])
    asked, answered = (int(np.median(each[inside])) for each in (trace.input_tokens, trace.output_tokens))
    found = capacity(
        pool.profile, hop.input.count(asked, answered), hop.output.count(asked, answered), plan.experiment.slo,
        pool.pool.max_num_seqs, max_batched_tokens=pool.max_batched_tokens, kv_capacity_tokens=pool.kv_capacity_tokens,
        admission=pool.admission,
    )  # fmt: skip
    targets, named = signal_targets(found), searched[hop.pool]
    return {hop.pool: {name: seeds for name, space in named.items() if (seeds := _seeded(space, targets))}}


def _seeded(space: PolicySpace, targets: Mapping[Signal, float]) -> tuple[ScalingPolicy, ...]:
    default = space.default
    if isinstance(default, HpaPolicy) and len(default.metrics) == 1 and default.metrics[0].signal in targets:
        metric = default.metrics[0]
        return (default.with_(metrics=(metric.with_(target=targets[metric.signal]),)),)
    if isinstance(default, KedaPolicy) and len(default.triggers) == 1:
        trigger = default.triggers[0]
        if isinstance(trigger, PrometheusTrigger) and trigger.signal in targets:
            return (default.with_(triggers=(trigger.with_(threshold=targets[trigger.signal]),)),)
    return ()


def search_live(run: Run, shortlist: Shortlist) -> Shortlist:
    """The shortlist as a staging copy on a cluster ranks it; never called on the twin, which has ranked it already.

    Raises PlatformError: this version does not drive a cluster.
    """
    raise _not_driven()


def judge(run: Run, shortlist: Shortlist) -> Verdict:
    """The verdict on traffic that nobody tuned on; `verdict.json`, both contestants, the winner with its manifests."""
    plan = run.plan
    begin(run)
    rules = JudgeRules(min_gain=run.experiment.promotion.min_gain, confidence=run.experiment.promotion.confidence)
    scenarios = exam(plan)
    verdict = judge_on(
        plan.twin(), shortlist.by_pool(), scenarios, run.experiment.slo, minimised=run.experiment.objective,
        rules=rules, workers=run.experiment.search.workers, on_progress=lambda done, of: report("judge", done, of),
    )  # fmt: skip
    _write_verdict(run, verdict, scenarios.real[0])
    if (found := possible(plan)) is not None:
        write_atomically(run.folder / "baselines.json", to_json(found.document()))
    report("judge", message=f"{verdict.decision}: {verdict.reason}")
    return verdict


_REFERENCE_SEEDS = 2
_ACTIVATED = {"kpa", "knative-hpa"}
"""Laws whose activator may hold requests before it sends them to a replica."""


def _kinds(plan: Plan) -> set[str]:
    """The control laws that are in force or tried."""
    tried = plan.spaces.values() if plan.experiment.search.spaces else ()
    kinds = {space.kind for spaces in tried for space in spaces.values()}
    return kinds | {policy.kind for policy in plan.incumbent.values() if policy is not None}


def possible(plan: Plan) -> Baselines | None:
    """The lower bound of the judged part, and a reference that knows it, on the exam's first scenarios; None for a
    closed loop, whose arrivals follow from the policy.
    """
    real = exam(plan).real[:_REFERENCE_SEEDS]
    if real[0].users is not None:
        return None
    pools = {name: (each.pool, each.profile) for name, each in plan.service.pools.items()}
    works = work_on_route(pools, plan.experiment.service.classes, real[0].trace)
    found = baselines(
        plan.twin(), works, real, plan.experiment.slo, plan.experiment.objective,
        held_in_front=not _ACTIVATED.isdisjoint(_kinds(plan)),
        on_play=lambda done: report("judge", message=f"clairvoyant: {done} plays") if done % 10 == 0 else None,
    )  # fmt: skip
    if found.message:
        report("judge", message=found.message)
    return found


def exam(plan: Plan) -> Exam:
    """The judged part under several seeds, and the traffic resampled from it."""
    scenarios = plan.judged()
    itself = scenarios[0].trace.digest()
    real = [scenario for scenario in scenarios if scenario.trace.digest() == itself]
    return Exam.of(real, [scenario for scenario in scenarios if scenario.trace.digest() != itself])


def _write_verdict(run: Run, verdict: Verdict, scenario: Scenario) -> None:
    write_atomically(run.folder / "verdict.json", to_json(verdict.document()))
    for name, contestant in (("incumbent", verdict.incumbent), ("challenger", verdict.challenger)):
        write_atomically(run.folder / f"{name}.json", to_json(contestant.model_dump(mode="json")))
        policy = {pool: parse_policy(document) for pool, document in contestant.policy.items()}
        twin = run.plan.twin()
        with governed_by(twin, policy):
            played = twin.play(scenario)
        write_recording(run.recordings / f"{name}.parquet", played, policy, run.experiment.cluster.in_force)
    winner = verdict.challenger if verdict.decision == "promote" else verdict.incumbent
    write_yaml(run.folder / "policy.yaml", winner.policy.values() if len(winner.policy) == 1 else [winner.policy])
    policy = {pool: parse_policy(document) for pool, document in winner.policy.items()}
    write_yaml(run.folder / "manifests" / "scaling.yaml", _objects(run, policy))


def _objects(run: Run, policy: Policy) -> list[dict[str, Any]]:
    return run.plan.manifests(policy)


def promote(run: Run, verdict: Verdict, now: datetime | None = None) -> LedgerEntry:
    """The winner put where the experiment says, and the ledger's entry of it.

    Raises PromotionRefused when the verdict is not to promote.
    """
    path = run.folder / "verdict.json"
    if not path.exists():
        write_atomically(path, to_json(verdict.document()))

    def manifests(policy: Mapping[str, dict[str, Any]]) -> Mapping[str, list[dict[str, Any]]]:
        return {"scaling.yaml": _objects(run, {pool: parse_policy(each) for pool, each in policy.items()})}

    target = Path(run.experiment.promotion.target.path)
    entry = promote_run(run.folder, target, render=manifests, now=now or datetime.now(UTC))
    report("promote", message=f"entry {entry.entry} in {target}")
    return entry


def restore_incumbent(platform: str) -> Restored:
    """The incumbent back in force, whatever happened. A twin ends with its play; this version changes nothing else."""
    return Restored(restored=False, message=f"nothing was changed outside of the run folder ({platform})")


def notify(folder: Path | str, status: str, failures: str) -> tuple[str, ...]:
    """How the workflow ended, as a line in the run folder's `log.jsonl` and in the log; the failures' messages.

    `failures` is Argo's `{{workflow.failures}}`: JSON within JSON.
    """
    failed = [each for each in _failures(failures) if each.get("message")]
    messages = tuple(f"{each.get('displayName')}: {each['message']}" for each in failed)
    time = datetime.now(UTC).isoformat(timespec="seconds")
    line = {"time": time, "event": "finished", "status": status, "failures": messages}
    if Path(folder).is_dir():  # wrong input leaves no folder behind
        with (Path(folder) / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    report("notify", message="; ".join((status, *messages)))
    return messages


def _failures(text: str) -> list[dict[str, Any]]:
    value: Any = text
    for _ in range(2):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                return [{"displayName": "workflow", "message": text}]
    return value if isinstance(value, list) else []


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
