"""Put the service where it can be played."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


@step
def deploy(inputs: RunInput) -> Annotated[stages.Endpoint, out_param("endpoint")]:
    """Where the service is, ready."""
    return stages.deploy(inputs.run())
