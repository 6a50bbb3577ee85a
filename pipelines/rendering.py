"""Every object that a cluster needs to run the pipelines, as YAML by file name."""

from pipelines import rbac, retune, tune
from pipelines.settings import PipelineSettings, current, use
from tiphys.documents import to_yaml


def render_all(settings: PipelineSettings | None = None) -> dict[str, str]:
    """File name to YAML: the workflow template, the cron workflow, service account and rights."""
    before = current()
    use(settings or before)
    try:
        return {
            "rbac.yaml": to_yaml(*rbac.objects()),
            f"{tune.NAME}.yaml": to_yaml(tune.pipeline().to_dict()),
            f"{retune.NAME}.yaml": to_yaml(retune.pipeline().to_dict()),
        }
    finally:
        use(before)
