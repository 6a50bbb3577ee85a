"""An experiment from its file, and what the command line changes in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiphys.configs import config_file
from tiphys.documents import parse_yaml, read_yaml
from tiphys.domain.values import parse
from tiphys.errors import InputError
from tiphys.experiment.spec import Experiment
from tiphys.traffic import CsvSource


def load_experiment(name_or_path: str | Path, changes: Mapping[str, Any] | None = None) -> tuple[Experiment, Path]:
    """The experiment of a file (or of a name in configs/experiments) with `--set` changes, and the file's path.

    Raises InputError naming file, key, what was found and what is allowed.
    """
    path = Path(name_or_path)
    if not path.is_file() and "/" not in str(name_or_path) and not str(name_or_path).endswith((".yaml", ".yml")):
        path = config_file("experiments", str(name_or_path))
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise InputError("expected a mapping of keys", where=str(path), found=type(document).__name__)
    for key, value in (changes or {}).items():
        document = changed(document, key, value, str(path))
    return parse_experiment(document, str(path)), path


def parse_experiment(document: object, where: str) -> Experiment:
    """The experiment that a document states. Raises InputError naming file and key."""
    return parse(Experiment, document, where)


def read_change(text: str) -> tuple[str, Any]:
    """`PATH=VALUE` of a `--set`: the dotted path and the value as YAML. Raises InputError for anything else."""
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", key):
        raise InputError("is not PATH=VALUE", where="--set", found=text, allowed="for example traffic.scale=4")
    documents = parse_yaml(value, f"--set {key}")
    return key, documents[0] if documents else None


def changed(document: Any, key: str, value: Any, where: str, above: str = "") -> Any:
    """The document with the value at a dotted path replaced or added; list items by their number.

    `above` is where the document stands in a larger one, for messages.
    """
    head, _, rest = key.partition(".")
    path = f"{above}.{head}" if above else head
    place = f"--set in {where}"
    if isinstance(document, list):
        if not head.isdecimal() or int(head) >= len(document):
            allowed = f"0 to {len(document) - 1}"
            raise InputError("no such item", where=place, key=path, found=head, allowed=allowed)
        old = document[int(head)]
        new = changed(old, rest, value, where, path) if rest else value
        return [*document[: int(head)], new, *document[int(head) + 1 :]]
    if not isinstance(document, dict):
        raise InputError("this value holds no further keys", where=place, key=path, found=document)
    inner = changed(document.get(head, {}), rest, value, where, path) if rest else value
    return {**document, head: inner}


def with_trace(experiment: Experiment, trace: Path) -> Experiment:
    """The experiment with a file of requests in place of its (first class's) traffic source."""
    source = CsvSource(kind="csv", path=str(trace.resolve()))
    return experiment.with_(traffic=experiment.traffic.with_(source=source))
