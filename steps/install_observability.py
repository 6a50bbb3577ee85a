"""See that every signal can be seen: on a cluster only."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


@step
def install_observability(inputs: RunInput) -> Annotated[list[str], out_param("signals", "[]")]:
    """The checked signals."""
    return list(stages.install_observability(inputs.run()))
