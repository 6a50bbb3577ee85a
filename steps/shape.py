"""What the steps have in common: the parameters of a run, how an error leaves a container, outputs with defaults."""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

from hera.workflows import Input, Parameter, RetryStrategy, script
from hera.workflows import models as m

from tiphys import stages
from tiphys.errors import TiphysError

OUTPUTS = "/tmp/hera-outputs/parameters"
"""Where Hera's runner writes returned parameters; another path together with a default would hide every result."""

PASSING = RetryStrategy(
    limit="2",
    retry_policy="Always",
    expression="!(asInt(lastRetry.exitCode) in [1, 2, 3])",
    backoff=m.Backoff(duration="5s", factor="2"),
)
"""Again after an eviction or a failing server; not after a fault of ours, wrong input (2) or nothing feasible (3)."""


class RunInput(Input):
    """The parameters that every step takes: which experiment, with which changes, where."""

    experiment: str
    experiment_file: Annotated[str, Parameter(name="experiment-file")]
    platform: str
    run_folder: Annotated[str, Parameter(name="run-folder")]
    trials: str
    seed: str
    workers: str

    def run(self) -> stages.Run:
        """The run that these parameters speak of."""
        changes = {"trials": self.trials, "seed": self.seed, "workers": self.workers}
        where, folder = self.experiment_file, self.run_folder
        return stages.open_run(self.experiment, folder, where=where, platform=self.platform, changes=changes)


def out_param(name: str, default: str | None = None) -> Parameter:
    """An output parameter; with a default, also of a step that is skipped."""
    return Parameter(name=name, value_from=m.ValueFrom(path=f"{OUTPUTS}/{name}", default=default))


def _alone() -> bool:
    """Whether Hera's runner started this process for the step alone, so that its log is all there is to see."""
    return getattr(sys.modules["__main__"].__spec__, "name", "") == "hera.workflows.runner"


def step(function: Callable[..., Any]) -> Any:
    """A function as a script that Hera's runner runs; an error that has a name leaves with its exit code."""

    @functools.wraps(function)
    def leaving_with_its_exit_code(*args: Any, **kwargs: Any) -> Any:
        if _alone():
            logging.basicConfig(level=logging.INFO, format="%(message)s")
        try:
            return function(*args, **kwargs)
        except TiphysError as error:
            if _alone():
                logging.error("error: %s", error)
            raise SystemExit(error.exit_code) from error

    return script(constructor="runner", retry_strategy=PASSING)(leaving_with_its_exit_code)
