"""`tiphys-retune`: the same, every week, on the experiment that a ConfigMap holds."""

from hera.workflows import CronWorkflow, Parameter
from hera.workflows import models as m

from pipelines import tune
from pipelines.settings import current

NAME = "tiphys-retune"
CONFIG_MAP, KEY = "tiphys-experiment", "experiment.yaml"


def pipeline() -> CronWorkflow:
    """The cron workflow, suspended: it needs the ConfigMap `tiphys-experiment` first.

    The ConfigMap carries the label `workflows.argoproj.io/configmap-type: Parameter`, or Argo does not look at it.
    """
    source = m.ConfigMapKeySelector(name=CONFIG_MAP, key=KEY)
    return CronWorkflow(
        name=NAME,
        namespace=current().namespace,
        labels={"app.kubernetes.io/managed-by": "tiphys"},
        schedules=["0 3 * * 1"],
        timezone="UTC",
        concurrency_policy="Forbid",
        starting_deadline_seconds=3600,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=3,
        cron_suspend=True,
        workflow_template_ref=m.WorkflowTemplateRef(name=tune.NAME),
        arguments=[Parameter(name="experiment", value_from=m.ValueFrom(config_map_key_ref=source))],
    )
