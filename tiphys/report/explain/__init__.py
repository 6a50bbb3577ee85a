"""Scaling decisions told as arithmetic, from what a recording holds of them.

`explained` turns the rows of a decision table into values, `sentences` says one in words, `delay_budget` adds up what
lies between a step of the load and a replica that takes requests. Nothing here computes a decision anew: every number
was written down when the decision was made.
"""

from __future__ import annotations

from tiphys.report.explain.delays import DelayBudget, delay_budget
from tiphys.report.explain.passes import Explained, Held, Law, MetricStep, explained, law_of
from tiphys.report.explain.words import budget_lines, clock, sentences, story

__all__ = [
    "DelayBudget",
    "Explained",
    "Held",
    "Law",
    "MetricStep",
    "budget_lines",
    "clock",
    "delay_budget",
    "explained",
    "law_of",
    "sentences",
    "story",
]
