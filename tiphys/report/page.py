"""The report as one HTML text: no script, no font, no picture from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tiphys.documents import to_yaml
from tiphys.domain.baselines import Baselines
from tiphys.domain.scorecard import Scorecard
from tiphys.domain.verdict import Kept
from tiphys.policies import differences, parse_policy
from tiphys.report import plots
from tiphys.report.evidence import Evidence

_STYLE = Path(__file__).with_name("style.css")
_WORDS = {
    "promote": "promote",
    "keep": "keep the incumbent",
    "infeasible": "infeasible",
    "too_short": "too short to judge",
}


def page(evidence: Evidence) -> str:
    """The whole report."""
    name = str(evidence.experiment.get("name", "experiment"))
    parts = [
        _header(evidence, name),
        _verdict(evidence),
        _judged(evidence),
        f'<div class="pair">{_forest(evidence)}{_margins(evidence)}</div>',
        _scores(evidence),
        _trials(evidence),
        _policy(evidence),
        _manifests(evidence),
        _environment(evidence),
    ]
    title, style = f"{name}: {_WORDS[evidence.verdict.decision]}", _STYLE.read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n'
        f"<body><main>{''.join(part for part in parts if part)}</main></body></html>\n"
    )


def _section(title: str, note: str, *body: str, css: str = "") -> str:
    kind = f' class="{css}"' if css else ""
    said = f'<p class="note">{note}</p>' if note else ""
    return f"<section{kind}><h2>{escape(title)}</h2>{said}{''.join(body)}</section>\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 1) -> str:
    """Cells are HTML; the first `numbers` columns are words, the rest numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if place >= numbers else ''}>{cell}</{tag}>" for place, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', columns)}</tr></thead><tbody>{body}</tbody></table>"


def _header(evidence: Evidence, name: str) -> str:
    service = evidence.experiment.get("service") or {}
    served = ", ".join(escape(str(service[key])) for key in ("name", "model") if key in service)
    return f'<h1>{escape(name)}</h1><p class="note">{served} · run {escape(evidence.run)}</p>'


def _verdict(evidence: Evidence) -> str:
    verdict, gain = evidence.verdict, evidence.verdict.gain
    low, high = gain.interval
    reason = verdict.reason[:1].upper() + verdict.reason[1:]
    facts = [
        (f"{gain.gpu_seconds_ratio:.3f}", "GPU-seconds, challenger over incumbent"),
        (f"{low:.3f} to {high:.3f}", f"interval at {gain.confidence:.0%}, over {verdict.judged_on.clusters} traffics"),
        (
            f"{verdict.judged_on.replicates}",
            f"paired plays; {verdict.judged_on.requests:,} requests in the judged part",
        ),
        (f"{verdict.judged_on.blocks.count:.1f}", f"independent blocks of {verdict.judged_on.blocks.block_s:.0f} s"),
    ]
    boxes = "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for value, words in facts)
    return (
        f'<section class="verdict {verdict.decision}"><span class="decision">{_WORDS[verdict.decision]}</span>'
        f'<p class="reason">{escape(reason)}.</p><div class="facts">{boxes}</div></section>\n'
    )


def _judged(evidence: Evidence) -> str:
    if not evidence.recordings:
        return ""
    note = "The first replicate: the judged part itself, which neither policy was tuned on."
    return _section("Incumbent and challenger on the judged traffic", note, plots.judged_traffic(evidence))


def _forest(evidence: Evidence) -> str:
    rules = evidence.verdict.rules
    note = f"Promotion takes an interval wholly below {1 - rules.min_gain:g} (a sure gain of {rules.min_gain:.0%})."
    return _section("What it saves", note, plots.forest(evidence.verdict, evidence.baselines))


def _margins(evidence: Evidence) -> str:
    note = "Each promise as judged, and the worst of them where the truth differs from what was assumed."
    return _section("How the SLO is kept", note, plots.margins(evidence.verdict))


def _scores(evidence: Evidence) -> str:
    verdict = evidence.verdict
    rows = [
        (escape(each.promise), _kept(each.incumbent), _kept(each.challenger))
        for each in verdict.slo
    ]  # fmt: skip
    first, second = verdict.incumbent.scorecard, verdict.challenger.scorecard
    rows += [(escape(name), theirs, ours) for name, theirs, ours in _numbers(first, second, evidence.baselines)]
    note = (
        "Margins: the lesser of the means over the judged part and over the resampled traffics; the rest is one play."
    )
    note += _what_was_possible(evidence)
    return _section("In numbers", note, _table(("", "incumbent", "challenger"), rows))


def _kept(kept: Kept) -> str:
    least = min(margin for margin in (kept.margin_judged_part, kept.margin_resampled) if margin is not None)
    word, css = ("kept by", "yes") if kept.met else ("missed by", "no")
    return f'<span class="{css}">{word} {abs(least) * 100:.2f} points</span>'


def _numbers(first: Scorecard, second: Scorecard, baselines: Baselines | None) -> list[tuple[str, str, str]]:
    def both(name: str, shown: Any) -> tuple[str, str, str]:
        return name, shown(first), shown(second)

    def latency(metric: str, point: str) -> tuple[str, str, str]:
        return both(f"{metric} {point}", lambda card: _seconds(getattr(card, f"{metric.lower()}_s")[point]))

    return [
        both("GPU-seconds", lambda card: f"{card.gpu_seconds:,.0f}"),
        *_possible(baselines, first, second),
        *([both("cost", lambda card: f"{card.cost:,.2f}")] if first.cost is not None else []),
        both("replicas, mean", lambda card: f"{card.mean_replicas:.2f}"),
        both("replicas, most", lambda card: f"{card.max_replicas}"),
        both("scale-ups, scale-downs", lambda card: f"{card.scale_ups}, {card.scale_downs}"),
        *(latency(metric, point) for metric in ("TTFT", "E2E") for point in ("p50", "p90", "p99")),
        latency("ITL", "p99"),
        both("requests, failed", lambda card: f"{card.requests:,}, {card.failed:,}"),
    ]


def _possible(baselines: Baselines | None, first: Scorecard, second: Scorecard) -> Iterable[tuple[str, str, str]]:
    """How far both are from what was possible."""
    if baselines is None:
        return
    for name, over in (
        ("over the clairvoyant plan", baselines.over_reference),
        ("over the lower bound", baselines.over_bound),
    ):
        shares = [over(card.gpu_seconds) for card in (first, second)]
        if None not in shares:
            theirs, ours = (f"{share:.2f} times" for share in shares)
            yield name, theirs, ours


def _what_was_possible(evidence: Evidence) -> str:
    """One sentence on the reference and the bound."""
    baselines = evidence.baselines
    if baselines is None:
        return ""
    bound = f"No policy that keeps the SLO can go below {baselines.lower_bound.gpu_seconds:,.0f} GPU-seconds here"
    reference = baselines.clairvoyant
    if reference is None or not reference.feasible:
        return f" {bound}; {escape(baselines.message)}."
    return f" {bound}; a plan that knew this traffic beforehand kept it with {reference.gpu_seconds:,.0f}."


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.3f} s"


def _trials(evidence: Evidence) -> str:
    if not evidence.trials:
        return ""
    feasible = sum(trial.feasible for trial in evidence.trials)
    note = (
        f"{len(evidence.trials)} policies tried on the part that is tuned on, {feasible} of them feasible over every "
        "fold, seed and perturbation. Those far below are drawn at the lower edge."
    )
    return _section("The search", note, plots.trials(evidence.trials, evidence.minimised))


def _policy(evidence: Evidence) -> str:
    verdict = evidence.verdict
    blocks = []
    for pool, document in verdict.challenger.policy.items():
        theirs = verdict.incumbent.policy[pool]
        many = f"{pool}: " if len(verdict.challenger.policy) > 1 else ""
        changed = differences(parse_policy(theirs), parse_policy(document))
        rows = [
            (f"<code>{escape(many + path)}</code>", _value(before), _value(after)) for path, before, after in changed
        ]
        blocks.append(_table(("number", "incumbent", "challenger"), rows) if rows else "<p>The two are the same.</p>")
        blocks.append(
            '<details><summary>both policies in full</summary><div class="pair">'
            f"<pre>{escape(to_yaml(theirs))}</pre><pre>{escape(to_yaml(document))}</pre></div></details>"
        )
    if verdict.inert_numbers:
        names = ", ".join(f"<code>{escape(name)}</code>" for name in verdict.inert_numbers)
        blocks.append(
            f'<p class="note">Numbers that do not matter here (a rival that differs in them ties): {names}.</p>'
        )
    return _section("What changes", "Every number in which the challenger differs from the incumbent.", *blocks)


def _value(value: Any) -> str:
    return '<span class="faint">absent</span>' if value is None else f"<code>{escape(json.dumps(value))}</code>"


def _manifests(evidence: Evidence) -> str:
    opened = " open" if len(evidence.manifests) == 1 else ""
    shown = "".join(_folded(name, text, opened) for name, text in evidence.manifests.items())
    if not shown:
        return ""
    return _section("To apply", f"{_winner(evidence)} as Kubernetes has it. {_promoted(evidence)}", shown)


def _folded(title: str, text: str, opened: str = "") -> str:
    return f"<details{opened}><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _winner(evidence: Evidence) -> str:
    return "The challenger" if evidence.verdict.decision == "promote" else "The incumbent, which stays,"


def _promoted(evidence: Evidence) -> str:
    done = evidence.verdict.promoted_to
    if done is None:
        return "Nothing was put in force by this run."
    return f"In force as entry {escape(str(done.get('entry')))} of <code>{escape(str(done.get('path')))}</code>."


def _environment(evidence: Evidence) -> str:
    rows = [(escape(key), f"<code>{escape(text)}</code>") for key, text in _flat(evidence.environment)]
    if not rows:
        return ""
    experiment = _folded("the experiment as resolved", to_yaml(dict(evidence.experiment)))
    return _section("What the numbers depend on", "", _table(("", ""), rows, numbers=2), experiment)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", str(inner)
