"""Scripts that the rehearsal's tests run: Hera runner functions, as a stranger's workflow would have them."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

from hera.workflows import Artifact, ArtifactLoader, Input, Output, Parameter, script
from hera.workflows import models as m
from pydantic import BaseModel

from tiphys.errors import Infeasible

CALLS: list[str] = []
"""Names of the calls made in this process, in order."""


class Case(BaseModel):
    rate: float
    name: str = "steady"


class BenchIn(Input):
    case: Case
    plan: Annotated[dict, Artifact(name="plan", loader=ArtifactLoader.json)]


class BenchOut(Output):
    report: Annotated[Case, Parameter(name="report")]
    raw: Annotated[dict, Artifact(name="raw")]


@script(constructor="runner")
def plan(
    rates: list[float],
) -> tuple[Annotated[list[Case], Parameter(name="cases")], Annotated[dict, Artifact(name="plan")]]:
    return [Case(rate=rate) for rate in rates], {"factor": 10}


@script(constructor="runner")
def bench(inp: BenchIn) -> BenchOut:
    return BenchOut(report=Case(rate=inp.case.rate * inp.plan["factor"], name="done"), raw={"seen": inp.case.name})


@script(constructor="runner")
def pick(reports: list[Case]) -> Annotated[float, Parameter(name="best")]:
    return max(report.rate for report in reports)


@script(constructor="runner")
def keep(text: str) -> Annotated[str, Parameter(name="text")]:
    CALLS.append(text)
    return text


@script(constructor="runner")
def keep_default(
    text: str,
) -> Annotated[
    str, Parameter(name="text", value_from=m.ValueFrom(path="/tmp/hera-outputs/parameters/text", default="by default"))
]:
    CALLS.append(text)
    return text


@script(constructor="runner")
def said(text: str) -> str:
    print(f"saying {text}")
    return text


@script(constructor="runner")
def fail(text: str = "broken") -> Annotated[str, Parameter(name="text")]:
    CALLS.append(f"fail {text}")
    raise ValueError(text)


@script(constructor="runner")
def fail_if_b(text: str) -> Annotated[str, Parameter(name="text")]:
    CALLS.append(text)
    if text == "b":
        raise ValueError(text)
    return text


@script(constructor="runner")
def leave(code: int) -> Annotated[str, Parameter(name="text")]:
    CALLS.append(f"leave {code}")
    sys.exit(code)


class Coded(Output):
    text: Annotated[str, Parameter(name="text")]


@script(constructor="runner")
def coded(code: int) -> Coded:
    CALLS.append(f"coded {code}")
    return Coded(text="kept", exit_code=code)


@script(constructor="runner")
def infeasible() -> Annotated[str, Parameter(name="text")]:
    raise Infeasible("no policy met the SLO")


@script(constructor="runner")
def forgetful() -> None:
    CALLS.append("forgetful")


@script(constructor="runner")
def works_the_third_time(attempt: int) -> Annotated[int, Parameter(name="attempt")]:
    CALLS.append(f"attempt {attempt}")
    if attempt < 2:
        raise ValueError(f"attempt {attempt}")
    return attempt


@script(constructor="runner")
def dawdle(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


@script(constructor="runner")
def interrupted() -> None:
    raise KeyboardInterrupt


@script(constructor="runner")
def writes_itself(
    text: str,
    to: Annotated[Path, Parameter(name="to", output=True)],
    log: Annotated[Path, Artifact(name="log", output=True)],
) -> None:
    to.write_text(text.upper())
    log.write_text("log of " + text)


@script(constructor="runner")
def reads(log: Annotated[Path, Artifact(name="log")]) -> Annotated[str, Parameter(name="text")]:
    return Path(log).read_text()


@script(constructor="runner")
def environment(name: str) -> Annotated[str, Parameter(name="text")]:
    return os.environ.get(name, "")
