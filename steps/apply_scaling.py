"""Put the incumbent in force."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


@step
def apply_scaling(inputs: RunInput) -> Annotated[stages.InForce, out_param("in-force")]:
    """The policy in force."""
    return stages.apply_scaling(inputs.run())
