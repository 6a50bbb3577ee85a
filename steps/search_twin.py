"""Search the policy spaces on the twin."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


@step
def search_twin(inputs: RunInput) -> Annotated[stages.Shortlist, out_param("shortlist")]:
    """The policies worth judging."""
    return stages.search_twin(inputs.run())
