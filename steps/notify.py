"""Say how the workflow ended."""

from typing import Annotated

from hera.workflows import Parameter

from steps.shape import out_param, step
from tiphys import stages


@step
def notify(
    run_folder: Annotated[str, Parameter(name="run-folder")], status: str, failures: str
) -> Annotated[list[str], out_param("messages")]:
    """The messages of what failed."""
    return list(stages.notify(run_folder, status, failures))
