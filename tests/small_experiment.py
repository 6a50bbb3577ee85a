"""A small complete experiment as plain data, for tests of the commands."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from tiphys.documents import write_yaml

_DOCUMENT: dict[str, Any] = {
    "api_version": "tiphys/v1",
    "name": "small",
    "service": {
        "name": "small-llm",
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "backend": {"kind": "vllm"},
        "pools": {
            "llm": {
                "profile": "llama31-8b_l40s_vllm_tp1",
                "replicas": {"min": 1, "max": 8, "start": 2},
                "cold_start": {"median_s": 20, "p95_s": 30},
            }
        },
    },
    "traffic": {
        "source": {
            "kind": "synthetic",
            "duration_s": 2400,
            "rate": {"shape": "constant", "per_s": 4},
            "input_tokens": {"kind": "fixed", "tokens": 500},
            "output_tokens": {"kind": "fixed", "tokens": 100},
        },
        "warmup_s": 60,
    },
    "slo": {"objectives": [{"metric": "ttft", "at_most_s": 2.0, "share": 0.9}]},
    "incumbent": {"llm": "published-hpa-ttft"},
    "search": {"spaces": {"llm": ["hpa-running"]}, "trials": 10, "workers": 1},
    "promotion": {"target": {"kind": "directory", "path": "promoted"}},
}


def small_document() -> dict[str, Any]:
    """A copy to change."""
    return deepcopy(_DOCUMENT)


def small_experiment(folder: Path, document: dict[str, Any] | None = None) -> Path:
    """The experiment's file in a folder."""
    path = folder / "small.yaml"
    write_yaml(path, [small_document() if document is None else document])
    return path
