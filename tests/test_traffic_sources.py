"""The sources of traffic as they stand in an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tiphys.domain.values import Frozen, parse
from tiphys.errors import InputError
from tiphys.traffic import AnySource, CsvSource, ProfileSource, SyntheticSource, load_traffic_profile, sample

GOOD = "arrival_s,input_tokens,output_tokens\n0.0,100,10\n0.5,200,20\n"


class Traffic(Frozen):
    source: AnySource


def read(document: dict[str, Any]) -> CsvSource | ProfileSource | SyntheticSource:
    return parse(Traffic, {"source": document}, "chat.yaml").source


def test_a_path_is_relative_to_the_experiment_then_to_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "experiments", tmp_path / "here"
    for folder, second in ((beside, "0.5"), (here, "0.75")):
        folder.mkdir()
        (folder / "both.csv").write_text(GOOD.replace("0.5", second))
    (here / "only_here.csv").write_text(GOOD)
    monkeypatch.chdir(here)
    assert read({"kind": "csv", "path": "both.csv"}).load(1, beside).trace.end_s == 0.5
    assert read({"kind": "csv", "path": "only_here.csv"}).load(1, beside).trace.end_s == 0.5
    assert read({"kind": "csv", "path": str(here / "both.csv")}).load(1, beside).trace.end_s == 0.75
    with pytest.raises(InputError) as caught:
        read({"kind": "csv", "path": "nowhere.csv"}).load(1, beside)
    assert (caught.value.key, caught.value.found) == ("traffic.source.path", "nowhere.csv")
    assert str(beside) in caught.value.allowed


def test_a_csv_source_spreads_a_coarse_clock_when_asked(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    loaded = read({"kind": "csv", "path": "t.csv", "spread_s": 3.0}).load(9, tmp_path)
    assert loaded.trace.end_s == 3.5
    assert loaded.notices


def test_a_profile_source_is_a_sample_of_the_profile() -> None:
    profile = load_traffic_profile("azure2023-conv")
    whole = read({"kind": "profile", "name": "azure2023-conv"})
    window = read({"kind": "profile", "name": "azure2023-conv", "start_s": 600.0, "duration_s": 900.0})
    assert whole.load(4, Path()).trace.digest() == sample(profile, 4).digest()
    assert window.load(4, Path()).trace.digest() == sample(profile, 4, 900.0, start_s=600.0).digest()
    assert isinstance(whole, ProfileSource)
    assert whole.load(4, Path(), 2.0).trace.digest() == sample(profile, 4, scale=2.0).digest()


def test_an_unknown_profile_lists_the_known() -> None:
    with pytest.raises(InputError) as caught:
        read({"kind": "profile", "name": "azure2023-con"}).load(1, Path())
    assert caught.value.key == "traffic.source.name"
    assert "azure2023-conv" in caught.value.allowed


@pytest.mark.parametrize("kind", ["prometheus", "otel", "aiperf", "cvs"])
def test_a_kind_that_is_not_built_lists_those_that_are(kind: str) -> None:
    with pytest.raises(InputError) as caught:
        read({"kind": kind})
    assert "source.kind: unknown kind" in str(caught.value) and "csv, profile, synthetic" in str(caught.value)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"kind": "csv", "pth": "x"}, "did you mean 'path'"),
        ({"kind": "csv", "path": "x", "spread_s": -1.0}, "greater than or equal to 0"),
        ({"kind": "profile", "name": "azure2023-conv", "duration_s": 0.0}, "greater than 0"),
        ({"kind": "profile", "name": "azure2023-conv", "start_s": float("nan")}, "finite"),
    ],
    ids=str,
)
def test_a_fault_in_a_source_is_named(document: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read(document)
    assert caught.value.where == "chat.yaml"
