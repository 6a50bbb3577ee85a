"""`tiphys-tune`: from an experiment to a verdict, and to the winner in force."""

from hera.workflows import DAG, Parameter, Suspend, Task, WorkflowTemplate
from hera.workflows import models as m

from pipelines.settings import POD_SAFE, POD_SPEC_PATCH, current
from steps.apply_scaling import apply_scaling
from steps.build_engine import build_engine
from steps.calibrate import calibrate
from steps.deploy import deploy
from steps.install_observability import install_observability
from steps.judge import judge
from steps.load_test import load_test
from steps.notify import notify
from steps.promote import promote
from steps.restore_incumbent import restore_incumbent
from steps.search_live import search_live
from steps.search_twin import search_twin

NAME = "tiphys-tune"
PARAMETERS = (
    Parameter(name="experiment", description="the experiment: its YAML, as a whole"),
    Parameter(
        name="experiment-file",
        value="experiment.yaml",
        description="file that relative paths in the experiment start from",
    ),
    Parameter(name="platform", value="twin", enum=["twin", "cluster"], description="where trials are played"),
    Parameter(name="run-folder", value="/tmp/run", description="where the steps write their files"),
    Parameter(name="trials", value="", description="trials of the search; empty: as the experiment says"),
    Parameter(name="seed", value="", description="seed of everything random; empty: as the experiment says"),
    Parameter(name="workers", value="", description="processes of a step; empty: as the experiment says"),
    Parameter(name="approval", value="true", enum=["true", "false"], description="wait for somebody before promoting"),
)
RUN = {str(p.name): f"{{{{workflow.parameters.{p.name}}}}}" for p in PARAMETERS if p.name != "approval"}
"""What every step is told."""
ON_A_CLUSTER = "{{workflow.parameters.platform}} == cluster"


def pipeline() -> WorkflowTemplate:
    """The workflow template, built anew with the settings of this moment."""
    with WorkflowTemplate(
        name=NAME,
        namespace=current().namespace,
        labels={"app.kubernetes.io/managed-by": "tiphys"},
        entrypoint="tune",
        on_exit="leave",
        arguments=list(PARAMETERS),
        service_account_name=current().service_account,
        automount_service_account_token=True,
        security_context=POD_SAFE,
        pod_spec_patch=POD_SPEC_PATCH,
        parallelism=4,
        ttl_strategy=m.TTLStrategy(seconds_after_success=7 * 86400, seconds_after_failure=14 * 86400),
        pod_gc=m.PodGC(strategy="OnPodSuccess"),
    ) as template:
        _gate()
        _tune()
        _leave()
    return template


def _gate() -> Suspend:
    """Ask whether to promote. Skipped or resumed without an answer, it says NO."""
    choices = ["YES", "NO"]
    asked = Parameter(name="approve", default="NO", enum=choices, description="put the challenger in force?")
    answer = Parameter(name="approve", value_from=m.ValueFrom(supplied=m.SuppliedValueFrom(), default="NO"))
    return Suspend(
        name="approval", inputs=[asked, Parameter(name="verdict", description="the evidence")], outputs=[answer]
    )


def _tune() -> None:
    with DAG(name="tune"):
        engine = build_engine(arguments=RUN)
        endpoint = deploy(arguments=RUN)
        observability = install_observability(arguments=RUN, when=ON_A_CLUSTER)
        incumbent = apply_scaling(arguments=RUN)
        load = load_test(arguments=RUN)
        profile = calibrate(arguments=RUN)
        found = search_twin(arguments=RUN)
        shortlist = found.get_parameter("shortlist").value
        live = search_live(arguments={**RUN, "shortlist": shortlist}, when=ON_A_CLUSTER)
        verdict = judge(
            arguments={**RUN, "shortlist": shortlist, "live": live.get_parameter("shortlist").value},
        )
        decision = verdict.get_parameter("decision").value
        evidence = verdict.get_parameter("verdict").value
        approved = Task(
            name="approval",
            template="approval",
            arguments={"verdict": evidence},
            when=f"{decision} == promote && {{{{workflow.parameters.approval}}}} == true",
        )
        winner = promote(
            arguments={**RUN, "verdict": evidence},
            when=f"{decision} == promote && ({{{{workflow.parameters.approval}}}} == false || "
            "{{tasks.approval.outputs.parameters.approve}} == YES)",
        )
        engine >> endpoint >> observability >> incumbent >> load >> profile >> found >> live >> verdict
        verdict >> approved >> winner


def _leave() -> None:
    with DAG(name="leave"):
        restore_incumbent(arguments={"platform": RUN["platform"]})
        ending = {"status": "{{workflow.status}}", "failures": "{{workflow.failures}}"}
        notify(arguments={"run-folder": RUN["run-folder"], **ending})
