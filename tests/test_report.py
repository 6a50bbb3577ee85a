"""The report of a run: one file, everything in it, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.small_experiment import small_experiment
from tiphys.cli import outcome
from tiphys.documents import read_yaml
from tiphys.report import write_report
from tiphys.report.evidence import read_evidence


class Tags(HTMLParser):
    """Every tag with its attributes; `open_tags` is empty when all were closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open_tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "link"):
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the small experiment."""
    folder = tmp_path_factory.mktemp("reported")
    document_path = small_experiment(folder)
    target = f"promotion.target.path={folder / 'promoted'}"
    code = outcome(["run", str(document_path), "--out", str(folder / "out"), "--set", target])
    assert code in (0, 3)
    (run,) = (folder / "out").iterdir()
    return run


def test_the_report_is_whole_and_needs_nothing_from_elsewhere(run: Path) -> None:
    text = (run / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open_tags == []
    names = [tag for tag, _ in tags.found]
    assert not {"script", "link", "img", "iframe", "object"} & set(names)
    for _, attributes in tags.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "url(http" not in text and "@import" not in text


def test_the_report_says_what_the_verdict_says(run: Path) -> None:
    text = (run / "report.html").read_text()
    verdict = json.loads((run / "verdict.json").read_text())
    plain = unescape(re.sub(r"<[^>]+>", " ", text))
    reason = verdict["reason"]
    assert reason[:1].upper() + reason[1:] in plain
    assert f"{verdict['gain']['gpu_seconds_ratio']:.3f}" in plain
    for promise in verdict["slo"]:
        assert promise["promise"] in plain
    for row in verdict["robustness"]:
        assert row["perturbation"] in plain
    for path in verdict["changes"]:
        assert path in plain
    assert "HorizontalPodAutoscaler" in plain or "ScaledObject" in plain
    assert read_yaml(run / "environment.json")["traffic"] in plain


def test_every_picture_is_well_formed_and_has_its_axes_named(run: Path) -> None:
    text = (run / "report.html").read_text()
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    words = ["".join(ElementTree.fromstring(picture).itertext()) for picture in pictures]
    for named in ("arrivals per s", "ready replicas", "TTFT p90, s", "challenger over incumbent", "points"):
        assert any(named in each for each in words), named
    assert len(pictures) == 4


def test_a_report_is_written_again_the_same(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    (copy / "report.html").unlink()
    assert write_report(copy).read_text() == write_report(run).read_text()


def test_a_report_does_without_what_a_judgement_alone_has_not_got(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bare"
    shutil.copytree(run, copy)
    (copy / "trials.csv").unlink()
    shutil.rmtree(copy / "recordings")
    text = write_report(copy).read_text()
    assert "What it saves" in text
    assert "The search" not in text


def test_text_from_files_cannot_break_the_page(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "marked"
    shutil.copytree(run, copy)
    verdict = json.loads((copy / "verdict.json").read_text())
    verdict["reason"] = "<script>alert(1)</script> & more"
    (copy / "verdict.json").write_text(json.dumps(verdict))
    text = write_report(copy).read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_the_margin_of_a_trial_is_that_of_its_objectives(run: Path) -> None:
    trials = read_evidence(run).trials
    assert len(trials) >= 8
    assert any(trial.margin > 0.001 for trial in trials), "the promise on failures would hide every other"
    assert {trial.feasible for trial in trials if trial.shortlisted} == {True}


def test_the_report_says_how_far_both_are_from_what_was_possible(run: Path, tmp_path: Path) -> None:
    found = json.loads((run / "baselines.json").read_text())
    verdict = json.loads((run / "verdict.json").read_text())
    plain = unescape(re.sub(r"<[^>]+>", " ", (run / "report.html").read_text()))
    bound = found["lower_bound"]["gpu_seconds"]
    assert 0 < bound <= verdict["incumbent"]["scorecard"]["gpu_seconds"]
    assert f"can go below {bound:,.0f} GPU-seconds here" in plain
    for contestant in ("incumbent", "challenger"):
        assert f"{verdict[contestant]['scorecard']['gpu_seconds'] / bound:.2f} times" in plain
    assert "clairvoyant plan" in plain or found["message"] in plain
    copy = tmp_path / "old"
    shutil.copytree(run, copy)
    (copy / "baselines.json").unlink()
    assert "lower bound" not in write_report(copy).read_text()
