"""Golden files of rendered things: compared as data, rewritten by `--update-goldens`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiphys.documents import read_yaml_all, write_yaml

HERE = Path(__file__).parent


def assert_matches_golden(name: str, documents: list[Any], config: Any) -> None:
    """The documents equal those of `name`.yaml; `--update-goldens` rewrites it, and a change then fails once."""
    path = HERE / f"{name}.yaml"
    golden = read_yaml_all(path) if path.exists() else None
    if golden != documents and config.getoption("--update-goldens"):
        write_yaml(path, documents)
        raise AssertionError(f"{path.name} was rewritten: read the diff, then run again")
    assert golden == documents
