"""Ask, evaluate, tell: the search for policies on a platform that is handed in, and the plays behind a verdict.

A study is a pure function of its inputs and seed: the same for any number of workers, and after any kill and resume.
Nothing here opens a platform; nothing here decides what is promoted (`tiphys.domain.verdict` does). Optuna is imported
in `study.py` alone, and only when a search runs.
"""

from tiphys.search.evaluation import EvaluationPlan, Outcome, evaluate
from tiphys.search.judging import Exam, judge_on
from tiphys.search.loop import Progress, search
from tiphys.search.shortlist import Candidate, SearchResult, write_shortlist, write_trials

__all__ = [
    "Candidate",
    "EvaluationPlan",
    "Exam",
    "Outcome",
    "Progress",
    "SearchResult",
    "evaluate",
    "judge_on",
    "search",
    "write_shortlist",
    "write_trials",
]
