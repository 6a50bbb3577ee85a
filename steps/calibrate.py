"""Fit the profile to what the load showed."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


@step
def calibrate(inputs: RunInput) -> Annotated[stages.Calibration, out_param("calibration")]:
    """The profile to play with, and its error."""
    return stages.calibrate(inputs.run())
