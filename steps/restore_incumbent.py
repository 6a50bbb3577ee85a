"""Put the incumbent back in force, however the workflow ended."""

from typing import Annotated

from steps.shape import out_param, step
from tiphys import stages


@step
def restore_incumbent(platform: str) -> Annotated[stages.Restored, out_param("restored")]:
    """Whether anything had to be put back."""
    return stages.restore_incumbent(platform)
