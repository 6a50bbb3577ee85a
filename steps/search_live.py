"""Try the shortlist on a staging copy: on a cluster only."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages


class LiveInput(RunInput):
    """A run, and what the twin found."""

    shortlist: stages.Shortlist


@step
def search_live(inputs: LiveInput) -> Annotated[stages.Shortlist, out_param("shortlist", "")]:
    """The shortlist as the staging copy ranks it."""
    return stages.search_live(inputs.run(), inputs.shortlist)
