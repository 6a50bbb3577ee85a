"""`import`, `render`, `render-pipelines`, `schema`: policies and pipelines as files."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tiphys.cli import show
from tiphys.cli.options import Changes, ExperimentName, Json, PolicyFile, planned, writable_file, writable_folder
from tiphys.errors import InputError, unknown_name

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", metavar="NS", help="The object's namespace.")]
OutFolder = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write files there, not to stdout.")]


class Format(StrEnum):
    """How manifests are laid out."""

    PLAIN = "plain"
    KUSTOMIZE = "kustomize"
    HELM = "helm"


def import_(
    source: Annotated[
        str, typer.Argument(metavar="FILE|KIND/NAME", help="An HPA, ScaledObject or Knative Service; - is stdin.")
    ],
    namespace: Namespace = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the policy file there.")] = None,
    json: Json = False,
) -> None:
    """Read an HPA, a ScaledObject or a Knative Service into a policy file.

    Example: kubectl get hpa chat -o yaml | tiphys import - --out chat-policy.yaml
    """
    from tiphys.documents import parse_yaml, read_text, to_yaml, write_atomically
    from tiphys.policies import import_manifests

    if out is not None:
        writable_file(out, "--out")
    if source == "-":
        documents = parse_yaml(sys.stdin.read(), "stdin")
    else:
        _refuse_a_cluster(source, namespace)
        documents = parse_yaml(read_text(Path(source)), source)
    policy = import_manifests(_of_namespace(documents, namespace, source), where=source)
    if json:
        show.print_json(policy.document())
    elif out is None:
        sys.stdout.write(to_yaml(policy.document()))
    if out is not None:
        write_atomically(out, to_yaml(policy.document()))
        show.say(f"wrote {out}")


def _refuse_a_cluster(source: str, namespace: str | None) -> None:
    if (
        Path(source).exists()
        or not re.fullmatch(r"[A-Za-z.]+/[a-z0-9.-]+", source)
        or Path(source).suffix in (".yaml", ".yml")
    ):
        return
    where = f" -n {namespace}" if namespace else ""
    raise InputError(
        "this version does not read from a cluster",
        where=source,
        allowed=f"a file: kubectl get {source}{where} -o yaml",
    )


def _of_namespace(documents: list[Any], namespace: str | None, where: str) -> list[Any]:
    """Those that lie in a namespace, where one was asked for."""
    if namespace is None:
        return documents
    items = [item for each in documents for item in (each.get("items", [each]) if isinstance(each, dict) else [])]
    chosen = [each for each in items if (each.get("metadata") or {}).get("namespace", "default") == namespace]
    if not chosen:
        found = ", ".join(sorted({str((each.get("metadata") or {}).get("namespace", "default")) for each in items}))
        raise InputError(
            "holds nothing of this namespace", where=where, key="--namespace", found=namespace, allowed=found
        )
    return chosen


def render(
    experiment: ExperimentName,
    policy: PolicyFile = None,
    out: OutFolder = None,
    layout: Annotated[Format, typer.Option("--format", help="How the manifests are laid out.")] = Format.PLAIN,
    changes: Changes = None,
    json: Json = False,
) -> None:
    """Every scaler manifest that the experiment would apply; nothing is applied.

    Example: tiphys render configs/experiments/chat.yaml --policy runs/chat/RUN/policy.yaml --out manifests
    """
    from tiphys.documents import to_yaml, write_atomically

    if layout is Format.HELM:
        raise InputError("is not built yet", where="--format", found="helm", allowed="plain, kustomize")
    if out is not None:
        writable_folder(out, "--out")
    elif layout is Format.KUSTOMIZE:
        raise InputError("kustomize makes several files: say where", where="--out", allowed="a folder")
    plan = planned(experiment, changes)
    policies = plan.incumbent if policy is None else plan.policy_given(policy, "--policy")
    objects = plan.manifests(policies)
    files = {_file_name(each): to_yaml(each) for each in objects}
    if layout is Format.KUSTOMIZE:
        files["kustomization.yaml"] = to_yaml(_kustomization(objects))
    if out is not None:
        for name, text in files.items():
            write_atomically(out / name, text)
        show.say(f"wrote {', '.join(sorted(files))} to {out}")
    if json:
        show.print_json({"manifests": objects, "files": [] if out is None else [str(out / name) for name in files]})
    elif out is None:
        sys.stdout.write(to_yaml(*objects))


def _file_name(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml"


def _kustomization(objects: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [_file_name(each) for each in objects],
    }


def render_pipelines(out: OutFolder = None, json: Json = False) -> None:
    """Every WorkflowTemplate, CronWorkflow and RBAC object of the pipelines, as YAML.

    Example: tiphys render-pipelines --out deploy/
    """
    from pipelines import render_all
    from tiphys.documents import parse_yaml, write_atomically

    if out is not None:
        writable_folder(out, "--out")
    files = render_all()
    if out is not None:
        for name, text in files.items():
            write_atomically(out / name, text)
        show.say(f"wrote {', '.join(sorted(files))} to {out}")
    if json:
        show.print_json({name: parse_yaml(text, name) for name, text in files.items()})
    elif out is None:
        sys.stdout.write("---\n".join(files.values()))


def schema(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="experiment, policy, verdict, scorecard, profile or traffic-profile.")
    ],
) -> None:
    """The JSON Schema of a kind of file, for editors and validators.

    Example: tiphys schema experiment > experiment.schema.json
    """
    show.print_json(_schema(kind))


def _schema(kind: str) -> dict[str, Any]:
    from pydantic import TypeAdapter

    from tiphys.domain.profile import Profile
    from tiphys.domain.scorecard import Scorecard
    from tiphys.domain.verdict import Verdict
    from tiphys.experiment import Experiment
    from tiphys.policies import AnyPolicy
    from tiphys.traffic import TrafficProfile

    kinds: dict[str, Any] = {
        "experiment": Experiment,
        "policy": AnyPolicy,
        "verdict": Verdict,
        "scorecard": Scorecard,
        "profile": Profile,
        "traffic-profile": TrafficProfile,
    }
    if kind not in kinds:
        raise unknown_name("kind of file", kind, kinds, where="schema")
    adapter: TypeAdapter[Any] = TypeAdapter(kinds[kind])
    title = f"tiphys {kind}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **adapter.json_schema(), "title": title}
