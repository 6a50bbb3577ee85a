"""Token times of single requests worked out by hand."""

from __future__ import annotations

import numpy as np

from tests.oracle.scenes import Scene
from tests.stories.scenes import hpa, per_replica, scene, settings
from tiphys.domain.profile import StepTime

FIXED = {"kind": "fixed", "replicas": 1}


def assert_times(scene: Scene, first_token_s: list[float], finish_s: list[float]) -> None:
    """Both implementations give these times, to the nanosecond."""
    for jump in (True, False):
        recording = scene.twin(jump)
        np.testing.assert_allclose(recording.first_token_s, first_token_s, rtol=0, atol=1e-9)
        np.testing.assert_allclose(recording.finish_s, finish_s, rtol=0, atol=1e-9)
    account = scene.oracle()
    np.testing.assert_allclose([r.first_token_s for r in account.requests], first_token_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose([r.finish_s for r in account.requests], finish_s, rtol=0, atol=1e-9)


def test_a_step_costs_what_the_formula_says() -> None:
    # g: 10 ms at 1 token, 20 ms at 11, so 1 ms a token. b 2, c 0.5, p 3, q 0.25, k 5 (ms).
    # 1st step: P = 4, B = 0: g[4] = 13, p 12, q 4 x 4 x 0.25 = 4, k 5: 34.
    # 2nd: B = 1, KV = 4 + 1: g[1] = 10, b 2, c 2.5, k 5: 19.5.   3rd: KV 6: 20.
    step = StepTime(
        tokens=(1, 11), gemm_ms=(10, 20), decode_ms=2, kv_token_ms=0.5, prefill_token_ms=3, prefill_pair_ms=0.25,
        fixed_ms=5,
    )  # fmt: skip
    assert_times(scene(FIXED, [(1.0, 4, 3)], until_s=2, step=step), [1.034], [1.0735])


def test_a_long_prompt_is_prefilled_in_chunks_and_a_decode_goes_on_beside_them() -> None:
    # Budget 4 tokens; 100 ms a prefill token, nothing else. A prompt of 1 (3 tokens out) comes at 0, one of 10 at 0.05.
    #   0.0 to 0.1  prompt of the first; its first token at 0.1.
    #   0.1         B = 1 leaves 3: chunks 3, 3 while the first decodes (tokens at 0.4 and 0.7: finished),
    #   0.7         B = 0: chunk 4: 1.1: first token of the second, its only one.
    step = StepTime(
        tokens=(0, 1), gemm_ms=(0, 0), decode_ms=0, kv_token_ms=0, prefill_token_ms=100, prefill_pair_ms=0, fixed_ms=0
    )
    story = scene(FIXED, [(0.0, 1, 3), (0.05, 10, 1)], until_s=2, step=step, max_batched_tokens=4)
    assert_times(story, [0.1, 1.1], [0.7, 1.1])


def test_vllm_preempts_the_request_admitted_last_and_prefills_it_anew() -> None:
    # KV of 10 tokens, steps of 1 s, two requests of 3 tokens in and 5 out, at 0 and 0.5.
    #   0 to 1  prompt A.   1: A holds 4, B's prompt fits (7): 1 to 2.   2: 5 + 4 = 9 fits.   3: 6 + 5 = 11: B back.
    #   3, 4    B's 5 tokens do not fit beside 6, 7.   5: A has its five tokens. B prefills 5 tokens: third token at 6,
    #   8       fifth.
    story = scene(FIXED, [(0.0, 3, 5), (0.5, 3, 5)], until_s=10, kv_capacity_tokens=10)
    assert_times(story, [1, 2], [5, 8])
    assert story.twin().preemptions == 1


def test_trtllm_no_evict_admits_only_what_can_finish() -> None:
    # As above, each reserves 8 of 10: B waits until A has finished at 5; first token at 6, fifth at 10.
    story = scene(FIXED, [(0.0, 3, 5), (0.5, 3, 5)], until_s=10, kv_capacity_tokens=10, admission="trtllm_no_evict")
    assert_times(story, [1, 6], [5, 10])
    assert story.twin().preemptions == 0


def test_a_pod_that_becomes_ready_as_a_request_arrives_takes_it() -> None:
    # Two requests run on replica 0 from 20 s; at 30 the HPA wants 2; the new pod is ready at 90, when replica 0 is also
    # scraped and the third request arrives. Lifecycle comes before arrivals, and arrivals before scrapes.
    story = scene(
        hpa(per_replica("running", 1), 2), [(20.0, 1, 200), (20.5, 1, 200), (90.0, 1, 5)], until_s=120
    )  # fmt: skip
    assert_times(story, [21, 22, 91], [220, 221, 95])


def test_a_removed_replica_finishes_what_it_can_within_its_grace() -> None:
    # Two replicas, an HPA with a maximum of 1: at 0 spec is above it, the one created last is removed without metrics.
    # A pass at 7.5 s instead: by then requests at 1, 2, 3, 4 s lie on replicas 0, 1, 0, 1 (least outstanding, ties to
    # the first); 1 s a step. Replica 1 has 10 tokens from 2 (until 12) and 30 from 4 (a step starts at 4: until 34).
    # Removed at 7.5 with a grace of 20 s: the first finishes, the second fails at 27.5.
    requests = [(1.0, 1, 10), (2.0, 1, 10), (3.0, 1, 30), (4.0, 1, 30)]
    story = scene(
        hpa(per_replica("running", 1), 1), requests, until_s=60, start=2, termination_grace_s=20.0,
        under=settings(hpa={"phase_s": 7.5}),
    )  # fmt: skip
    recording, account = story.twin(), story.oracle()
    assert recording.finish_s.tolist() == [11, 12, 34, np.inf] == [r.finish_s for r in account.requests]
    assert recording.failed.tolist() == [False, False, False, True] == [r.failed for r in account.requests]
    life = recording.pools["llm"].life
    assert life.wanted_log() == [(0, 2), (7.5, 1)]
    assert life.gone_s.tolist() == [np.inf, 27.5] == [r.gone_s for r in account.replicas]
