"""Who the steps' pods are, and the one right that Argo's executor needs."""

from typing import Any

from pipelines.settings import current


def objects() -> list[dict[str, Any]]:
    """The service account of the steps' pods with its role: results of tasks may be written, and nothing else done."""
    name = current().service_account
    return [
        _object("v1", "ServiceAccount", name),
        _object("rbac.authorization.k8s.io/v1", "Role", name)
        | {
            "rules": [
                {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
            ]
        },
        _object("rbac.authorization.k8s.io/v1", "RoleBinding", name)
        | {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, **_namespace()}],
        },
    ]


def _object(api_version: str, kind: str, name: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/managed-by": "tiphys"}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": labels, **_namespace()}}


def _namespace() -> dict[str, str]:
    namespace = current().namespace
    return {} if namespace is None else {"namespace": namespace}
