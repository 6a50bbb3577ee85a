"""Put the winner in force."""

from typing import Annotated

from steps.shape import RunInput, out_param, step
from tiphys import stages
from tiphys.domain.verdict import Verdict
from tiphys.promotion import LedgerEntry


class PromoteInput(RunInput):
    """A run and its verdict as JSON."""

    verdict: str


@step
def promote(inputs: PromoteInput) -> Annotated[LedgerEntry, out_param("entry", "")]:
    """The ledger's entry."""
    return stages.promote(inputs.run(), Verdict.model_validate_json(inputs.verdict))
