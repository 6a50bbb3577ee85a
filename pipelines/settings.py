"""What a cluster's owner decides about the pipelines' pods: image, account, room; and how the pods are kept safe."""

from dataclasses import dataclass

from hera.shared import register_pre_build_hook
from hera.workflows import EmptyDirVolume, Resources, Script
from hera.workflows import models as m


@dataclass(frozen=True)
class PipelineSettings:
    """Where the steps' image is and what their pods may use."""

    image: str = "tiphys-runner:0.1.0"
    pull_policy: str = "IfNotPresent"
    service_account: str = "tiphys-executor"
    namespace: str | None = None
    """Stated in every object; none leaves it to whoever applies them."""
    scratch: str = "2Gi"
    """The most that a step may write under /tmp, the only place that is writable."""


SAFE = m.SecurityContext(
    allow_privilege_escalation=False, capabilities=m.Capabilities(drop=["ALL"]), read_only_root_filesystem=True
)
POD_SAFE = m.PodSecurityContext(
    run_as_non_root=True,
    run_as_user=65532,
    run_as_group=65532,
    fs_group=65532,
    seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
)
SMALL = Resources(cpu_request="250m", cpu_limit="1", memory_request="512Mi", memory_limit="1Gi")
LARGE = Resources(cpu_request="2", cpu_limit="4", memory_request="2Gi", memory_limit="4Gi")
"""The steps that play traffic thousands of times."""
_PLAYS_A_LOT = {"search-twin", "search-live", "judge"}

_SAFE_JSON = '{"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true}'
POD_SPEC_PATCH = (
    f'{{"initContainers": [{{"name": "init", "securityContext": {_SAFE_JSON}}}], '
    f'"containers": [{{"name": "wait", "securityContext": {_SAFE_JSON}}}]}}'
)
"""Argo's own containers carry no security context, and Pod Security `restricted` would refuse the pod for it."""

_current = [PipelineSettings()]


def use(settings: PipelineSettings) -> None:
    """From now on, what is built has these settings."""
    _current[0] = settings


def current() -> PipelineSettings:
    """The settings that are built with."""
    return _current[0]


@register_pre_build_hook
def _settled(script: Script) -> Script:
    """Settings reach a step when it is rendered: Hera takes its own at import, before anybody could state them."""
    if not getattr(script.source, "__module__", "").startswith("steps."):
        return script
    script.image = current().image
    script.image_pull_policy = current().pull_policy
    plays_a_lot = script.name in _PLAYS_A_LOT
    script.resources = LARGE if plays_a_lot else SMALL
    script.active_deadline_seconds = 6 * 3600 if plays_a_lot else 1800
    script.security_context = SAFE
    script.volumes = [EmptyDirVolume(name="tmp", mount_path="/tmp", size_limit=m.Quantity(root=current().scratch))]
    return script
