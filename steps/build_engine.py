"""Name (on a cluster: build) the engine of each pool."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


@step
def build_engine(inputs: RunInput) -> Annotated[stages.Engine, out_param("engine")]:
    """The engine, named by the digest of all that makes it."""
    return stages.build_engine(inputs.run())
