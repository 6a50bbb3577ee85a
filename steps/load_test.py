"""Play the calibration load under the incumbent."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


@step
def load_test(inputs: RunInput) -> Annotated[stages.Load, out_param("load")]:
    """What the load showed."""
    return stages.load_test(inputs.run())
