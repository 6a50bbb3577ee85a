"""`Experiment`: one YAML file that says what is served, what traffic, what was promised, what is in force, what may
be tried.

Above the families because it names one of each. What the file says is `Experiment`; what it amounts to (traces,
policies, spaces, scenarios) is `Plan`, made once.
"""

from __future__ import annotations

from tiphys.experiment.load import changed, load_experiment, parse_experiment, read_change, with_trace
from tiphys.experiment.plan import Plan
from tiphys.experiment.scenarios import JUDGED_REPLICATES
from tiphys.experiment.spec import (
    ClusterSpec,
    DirectoryTarget,
    Experiment,
    Live,
    OtherTraffic,
    PolicyName,
    Promotion,
    Search,
    Service,
    Traffic,
)

__all__ = [
    "JUDGED_REPLICATES",
    "ClusterSpec",
    "DirectoryTarget",
    "Experiment",
    "Live",
    "OtherTraffic",
    "Plan",
    "PolicyName",
    "Promotion",
    "Search",
    "Service",
    "Traffic",
    "changed",
    "load_experiment",
    "parse_experiment",
    "read_change",
    "with_trace",
]
