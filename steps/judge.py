"""Judge the shortlist against the incumbent on traffic that none was tuned on."""

from typing import Annotated

from hera.workflows import Output

from steps.shape import RunInput, out_param, step
from tiphys import stages
from tiphys.documents import to_json


class JudgeInput(RunInput):
    """A run, what the twin found, and (on a cluster) how the staging copy ranks it."""

    shortlist: str
    live: str


class JudgeOutput(Output):
    """The verdict as JSON, and its decision alone for the tasks that depend on it."""

    verdict: Annotated[str, out_param("verdict")]
    decision: Annotated[str, out_param("decision")]


@step
def judge(inputs: JudgeInput) -> JudgeOutput:
    """The verdict."""
    shortlist = stages.Shortlist.model_validate_json(inputs.live or inputs.shortlist)
    verdict = stages.judge(inputs.run(), shortlist)
    return JudgeOutput(verdict=to_json(verdict.document()), decision=verdict.decision)
