"""Promotion to a directory: the policy in force and its manifests, versioned, with a ledger. For GitOps, or by hand.

```
TARGET/
  current        -> versions/0002      replaced in one step: who resolves it once sees the old files or the new ones
  policy.yaml    -> current/policy.yaml
  manifests      -> current/manifests
  versions/0001/ policy.yaml manifests/*.yaml
  versions/0002/ ...
  ledger.jsonl                         append-only: what was put in force, when, on what evidence
```

The ledger is written before `current` is moved, and whoever comes next moves it where that was cut short. One promotion
at a time: others wait for the lock.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tiphys.documents import parse_yaml, read_text, to_json, to_yaml, write_atomically
from tiphys.domain.values import Frozen, PositiveInt, parse
from tiphys.domain.verdict import Verdict
from tiphys.errors import InputError, PromotionRefused

PolicyDocuments = Mapping[str, dict[str, Any]]
"""A policy as plain data, by pool."""
Render = Callable[[PolicyDocuments], Mapping[str, Sequence[dict[str, Any]]]]
"""The manifests of a policy: file name (without a folder) to Kubernetes objects."""
Files = dict[str, str]
"""Relative path to text."""


class LedgerEntry(Frozen):
    """One line of the ledger: a version was put in force.

    `adopt` is the incumbent as it was before the first promotion; `restores` is the entry that a rollback went back to;
    `replaces` is the entry whose version was in force until then.
    """

    entry: PositiveInt
    time: str
    action: Literal["adopt", "promote", "rollback"]
    version: str
    digest: str
    replaces: int | None = None
    restores: int | None = None
    run: str | None = None
    decision: str | None = None
    reason: str | None = None
    gpu_seconds_ratio: float | None = None
    forced: bool = False


def promote(run: Path, target: Path, *, render: Render, now: datetime, force: bool = False) -> LedgerEntry:
    """Put the challenger of a run's verdict in force, and say so in the run's `verdict.json`.

    The first promotion records the incumbent before it, so that there is always something to go back to. A policy
    that is in force already is not promoted again: its entry is returned. Raises PromotionRefused when the verdict is
    not to promote (unless forced) or the folder is another workload's, InputError when the run has no verdict or the
    target cannot be written.
    """
    verdict = _verdict(run)
    if verdict.decision != "promote" and not force:
        raise PromotionRefused(f"the verdict of {run} is '{verdict.decision}': {verdict.reason}")
    files = _files(verdict.challenger.policy, render)
    with _locked(target):
        entries = _settled(target)
        if not entries:
            before = _files(verdict.incumbent.policy, render)
            entries = [_put_in_force(target, entries, before, action="adopt", now=now, run=run.name)]
        entry = entries[-1]
        _refuse_another(target, _read_version(target, entry), files)
        if entry.digest != _digest(files):
            entry = _put_in_force(
                target,
                entries,
                files,
                action="promote",
                now=now,
                run=run.name,
                decision=verdict.decision,
                reason=verdict.reason,
                gpu_seconds_ratio=verdict.gain.gpu_seconds_ratio,
                forced=verdict.decision != "promote",
            )
    _note(run, verdict, target, entry)
    return entry


def _refuse_another(target: Path, in_force: Files, files: Files) -> None:
    """Raise PromotionRefused when the folder is in use for another workload: its scaler would be gone."""
    ours, theirs = _scaled(files), _scaled(in_force)
    if ours and theirs and ours.isdisjoint(theirs):
        raise PromotionRefused(
            f"{target} holds the policy of {', '.join(sorted(theirs))}, this one is of {', '.join(sorted(ours))}: "
            "give each service a folder of its own (promotion.target.path, or --target)"
        )


def _scaled(files: Files) -> set[str]:
    """What the scalers among the manifests scale, as `namespace/name`."""
    objects = [each for name, text in files.items() if name.startswith("manifests/") for each in parse_yaml(text, name)]
    scalers = [each for each in objects if "scaleTargetRef" in each.get("spec", {})]
    return {f"{each['metadata'].get('namespace', '')}/{each['spec']['scaleTargetRef']['name']}" for each in scalers}


def rollback(target: Path, to: int | None = None, *, now: datetime) -> LedgerEntry:
    """Put an earlier version in force again: that of entry `to`, by default the one that the present one replaced.

    Raises InputError when there is no such entry or nothing before the present one.
    """
    with _locked(target):
        entries = _settled(target)
        aim = _aim(target, entries, to)
        return _put_in_force(
            target,
            entries,
            _read_version(target, aim),
            action="rollback",
            now=now,
            restores=aim.entry,
            version=aim.version,
        )


def history(target: Path) -> tuple[LedgerEntry, ...]:
    """The ledger, oldest first; empty where nothing was promoted. A last line that was torn is left out."""
    ledger = target / "ledger.jsonl"
    if not ledger.exists():
        return ()
    lines = read_text(ledger).splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return tuple(parse(LedgerEntry, _json(line, ledger, i), f"{ledger} line {i}") for i, line in enumerate(whole, 1))


def promotion_diff(run: Path, target: Path, *, render: Render) -> str:
    """What `promote` would change, in the form of `kubectl diff`; empty when nothing. Changes nothing."""
    verdict = _verdict(run)
    entries = history(target)
    before = _read_version(target, entries[-1]) if entries else _files(verdict.incumbent.policy, render)
    return files_diff(before, _files(verdict.challenger.policy, render))


def rollback_diff(target: Path, to: int | None = None) -> str:
    """What `rollback` would change, in the form of `kubectl diff`. Changes nothing."""
    entries = list(history(target))
    aim = _aim(target, entries, to)
    return files_diff(_read_version(target, entries[-1]), _read_version(target, aim))


def files_diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The unified difference of two sets of files, each under `LIVE` and `MERGED` as `kubectl diff` names them."""
    parts = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, ""), after.get(name, "")
        lines = difflib.unified_diff(
            old.splitlines(keepends=True), new.splitlines(keepends=True), f"LIVE/{name}", f"MERGED/{name}"
        )
        if text := "".join(lines):
            parts.append(f"diff -u -N LIVE/{name} MERGED/{name}\n{text}")
    return "".join(parts)


def _verdict(run: Path) -> Verdict:
    path = run / "verdict.json"
    documents = parse_yaml(read_text(path), str(path))
    if len(documents) != 1:
        raise InputError("expected one verdict", where=str(path), found=len(documents))
    return parse(Verdict, documents[0], str(path))


def _note(run: Path, verdict: Verdict, target: Path, entry: LedgerEntry) -> None:
    noted = verdict.with_(promoted_to={"kind": "directory", "path": str(target), "entry": entry.entry})
    if noted != verdict:
        write_atomically(run / "verdict.json", to_json(noted.document()))


def _files(policy: PolicyDocuments, render: Render) -> Files:
    """The policy (by pool where there are several) and its manifests, as files."""
    stated = next(iter(policy.values())) if len(policy) == 1 else dict(policy)
    files = {"policy.yaml": to_yaml(stated)}
    for name, objects in render(policy).items():
        files[f"manifests/{name}"] = to_yaml(*objects)
    return files


def _digest(files: Mapping[str, str]) -> str:
    sha = hashlib.sha256()
    for name in sorted(files):
        sha.update(f"{name}\0{files[name]}\0".encode())
    return sha.hexdigest()[:16]


def _aim(target: Path, entries: Sequence[LedgerEntry], to: int | None) -> LedgerEntry:
    """The entry whose version a rollback puts in force."""
    if not entries:
        raise InputError("nothing was promoted here", where=str(target))
    if to is None:
        to = _origin(entries, entries[-1]).replaces
        if to is None:
            raise InputError("there is nothing before the policy in force", where=str(target))
    if not 1 <= to <= len(entries):
        raise InputError("no such entry", where=str(target / "ledger.jsonl"), found=to, allowed=f"1 to {len(entries)}")
    return _origin(entries, entries[to - 1])


def _origin(entries: Sequence[LedgerEntry], entry: LedgerEntry) -> LedgerEntry:
    """The entry that first put this entry's version in force: a rollback leads to what it restored."""
    return entry if entry.restores is None else entries[entry.restores - 1]


def _put_in_force(
    target: Path,
    entries: Sequence[LedgerEntry],
    files: Files,
    *,
    action: Literal["adopt", "promote", "rollback"],
    now: datetime,
    version: str | None = None,
    **evidence: Any,
) -> LedgerEntry:
    number = len(entries) + 1
    entry = LedgerEntry(
        entry=number,
        time=now.isoformat(timespec="seconds"),
        action=action,
        version=version or f"{number:04d}",
        digest=_digest(files),
        replaces=_origin(entries, entries[-1]).entry if entries else None,
        **evidence,
    )
    if version is None:
        _write_version(target, entry.version, files)
    _append(target / "ledger.jsonl", entry)
    _point(target, entry.version)
    return entry


def _write_version(target: Path, version: str, files: Files) -> None:
    """A version's folder, complete or not there at all; what an earlier attempt left is replaced."""
    place = target / "versions" / version
    making = place.with_name(f".{version}.making")
    for leftover in (making, place):
        shutil.rmtree(leftover, ignore_errors=True)
    for name, text in files.items():
        write_atomically(making / name, text)
    making.rename(place)
    _sync(place.parent)


def _read_version(target: Path, entry: LedgerEntry) -> Files:
    """The files of an entry's version. Raises InputError when they are not those that were put in force."""
    place = target / "versions" / entry.version
    paths = sorted(path for path in place.rglob("*") if path.is_file())
    files = {path.relative_to(place).as_posix(): read_text(path) for path in paths}
    if _digest(files) != entry.digest:
        raise InputError(
            f"is not what entry {entry.entry} put in force: it was changed or removed",
            where=str(place),
            found=_digest(files),
            allowed=entry.digest,
        )
    return files


def _append(ledger: Path, entry: LedgerEntry) -> None:
    with ledger.open("ab") as file:
        file.write((json.dumps(entry.model_dump(mode="json")) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _point(target: Path, version: str) -> None:
    """Move `current` in one step, and see that the two names beside it are there."""
    links = {"current": f"versions/{version}", "policy.yaml": "current/policy.yaml", "manifests": "current/manifests"}
    for name, aim in links.items():
        link = target / name
        if link.is_symlink() and str(link.readlink()) == aim:
            continue
        fresh = target / f".{name}.{os.getpid()}.link"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(aim)
        fresh.replace(link)
    _sync(target)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _settled(target: Path) -> list[LedgerEntry]:
    """The ledger, with what a kill cut short put right: a torn last line, and `current` behind the last entry."""
    ledger = target / "ledger.jsonl"
    if ledger.exists():
        content = ledger.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(ledger, whole)
    entries = list(history(target))
    if entries:
        _point(target, entries[-1].version)
    return entries


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    try:
        target.mkdir(parents=True, exist_ok=True)
        lock = (target / ".lock").open("ab")
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(target)) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _json(line: str, ledger: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        raise InputError(f"line {number} is damaged", where=str(ledger)) from None
