"""Jobs laid out before a play and read after it: one pass over the records each, as there may be millions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiphys.compiled import jit
from tiphys.twin.state import IDLE_S, NO_KV, NONE, Floats, Ints


@jit
def lay_out(jobs: Any, arrival_s: Floats, input_tokens: Ints, output_tokens: Ints) -> None:
    """Jobs to which nothing has happened: with the times and tokens of as many requests, or with none yet."""
    for job in range(jobs.shape[0]):
        entry = jobs[job]
        entry.first_token_s = IDLE_S
        entry.finish_s = IDLE_S
        entry.admitted_s = IDLE_S
        entry.handed_s = 0.0
        entry.preempted_s = 0.0
        entry.next = NONE
        entry.prefill_left = 0
        entry.generated = 0
        entry.admission = 0
        entry.context = 0
        entry.pod = NONE
        entry.request = job
        entry.epoch = 0
        entry.hop = 0
        entry.state = 0
        entry.failed = 0
        entry.before = 0
        entry.kv = NO_KV
        if job < arrival_s.shape[0]:
            entry.arrival_s = arrival_s[job]
            entry.input_tokens = input_tokens[job]
            entry.output_tokens = output_tokens[job]
        else:
            entry.arrival_s = IDLE_S
            entry.input_tokens = 0
            entry.output_tokens = 0


@jit
def read_out(jobs: Any, first_token_s: Floats, finish_s: Floats, failed: NDArray[np.bool_], pod: Ints) -> None:
    """What became of each job, where every job is a request."""
    for job in range(jobs.shape[0]):
        entry = jobs[job]
        first_token_s[job] = entry.first_token_s
        finish_s[job] = entry.finish_s
        failed[job] = entry.failed == 1
        pod[job] = entry.pod
