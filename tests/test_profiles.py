"""Profiles: read, made, held against the roofline of their GPU, and asked what a replica carries."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tiphys.configs import config_folder
from tiphys.domain.profile import Profile, StepTime
from tiphys.domain.signals import Signal
from tiphys.domain.slo import Objective, Slo
from tiphys.errors import InputError
from tiphys.profiles import known_profiles, load_profile, profile_text
from tiphys.profiles.capacity import capacity, signal_targets
from tiphys.profiles.encoders import ENCODERS
from tiphys.profiles.fit import Step, fit_error, fit_step_time, nonnegative_least_squares
from tiphys.profiles.grid import (
    ENCODER_TABLE_TOKENS,
    TABLE_TOKENS,
    Shape,
    encoder_fitted_shapes,
    encoder_held_out_shapes,
    fitted_shapes,
    held_out_shapes,
)
from tiphys.profiles.make import Recipe, make_profile, make_profile_file, recipe_of, remake
from tiphys.profiles.show import error_sentence, show, show_text

NAMES = known_profiles()
READERS = tuple(name for name in NAMES if load_profile(name).model in ENCODERS)
WRITERS = tuple(name for name in NAMES if name not in READERS)
CHAT = "llama31-8b_h100_vllm_tp1"
LOOSE = Slo(objectives=(Objective(metric="e2e", at_most_s=1e6, share=0.9),))


class Gpu(NamedTuple):
    """From the makers' data sheets: dense bf16, no sparsity; memory as the driver reports it."""

    bytes_per_s: float
    flops: float
    memory_bytes: float


class Model(NamedTuple):
    """From the published configurations; parameters without the input embedding, whose rows are read by token."""

    parameters: float
    output_parameters: float
    attention_layers: int
    heads: int
    kv_heads: int
    head_size: int


GPUS = {
    "H100 SXM 80 GB": Gpu(3.35e12, 989.4e12, 80 * 2**30),
    "H200 SXM 141 GB": Gpu(4.8e12, 989.4e12, 141 * 2**30),
    "A100 SXM 80 GB": Gpu(2.039e12, 312e12, 80 * 2**30),
    "L40S 48 GB": Gpu(0.864e12, 362.05e12, 46068 * 2**20),
}
MODELS = {
    "meta-llama/Meta-Llama-3.1-8B": Model(7.50e9, 0.525e9, 32, 32, 8, 128),
    "Qwen/Qwen3-32B": Model(31.98e9, 0.778e9, 64, 64, 8, 128),
    "meta-llama/Meta-Llama-3.1-70B": Model(69.5e9, 1.051e9, 80, 64, 8, 128),
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": Model(48.8e9, 1.051e9, 49, 64, 8, 128),
    "nvidia/llama-3.2-nv-embedqa-1b-v2": Model(0.973e9, 0, 16, 32, 8, 64),
    "nvidia/llama-3.2-nv-rerankqa-1b-v2": Model(0.973e9, 0, 16, 32, 8, 64),
}
EXPECTED = {
    *(f"llama31-8b_{gpu}_{engine}_tp1" for gpu in ("h100", "a100", "l40s") for engine in ("vllm", "trtllm")),
    *(f"llama31-70b_{gpu}_{engine}_tp4" for gpu in ("h100", "h200") for engine in ("vllm", "trtllm")),
    *(f"qwen3-32b_h100_{engine}_tp2" for engine in ("vllm", "trtllm")),
    *(f"llama33-nemotron-49b_h100_{engine}_tp4" for engine in ("vllm", "trtllm")),
    *(f"nv-{task}-1b_{gpu}_vllm_tp1" for task in ("embedqa", "rerankqa") for gpu in ("h100", "l40s")),
}


def step_ms(profile: Profile, prefill: float, prompt: float, decodes: float, kv: float) -> float:
    tokens, pairs, sequences, cached = (np.array([x]) for x in (prefill, prefill * prompt, decodes, kv))
    return float(profile.step.step_ms(tokens, pairs, sequences, cached)[0])


def roofline_ms(profile: Profile, prefill: float, prompt: float, decodes: float, kv: float) -> float:
    """The least that the step can take: bytes over bandwidth or operations over peak, whichever is longer."""
    gpu, model, gpus = GPUS[profile.gpu], MODELS[profile.model], profile.tensor_parallel
    kv_bytes = 2 * 2 * model.attention_layers * model.kv_heads * model.head_size
    moved = (2 * model.parameters + kv_bytes * kv) / gpus
    rows = 2 * (model.parameters - model.output_parameters) * (prefill + decodes)
    causal_pairs = prefill * prompt / 2
    attention = 4 * model.attention_layers * model.heads * model.head_size * (causal_pairs + kv)
    return 1e3 * max(moved / gpu.bytes_per_s, (rows + attention) / gpus / gpu.flops)


# --- the shipped profiles


def test_the_promised_profiles_are_shipped() -> None:
    assert set(NAMES) >= EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_is_small_named_like_its_file_and_states_where_it_came_from(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert (config_folder("profiles") / f"{name}.json").stat().st_size < 10_000
    assert profile.source.tool_version and profile.source.backend_version and profile.source.note
    assert profile.fit_error.points >= 500


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_profile_fits_held_out_steps_well(name: str) -> None:
    error = load_profile(name).fit_error
    assert error.median_ratio < 0.03
    assert error.p95_ratio < 0.13
    assert error.max_ratio < 0.17


@pytest.mark.parametrize("name", WRITERS)
def test_no_step_is_faster_than_the_roofline(name: str) -> None:
    profile = load_profile(name)
    decode_only = [(0, 0, b, b * context) for b, context in product((1, 8, 64, 256), (128, 1024, 4096, 16384))]
    prefill_only = [(p, p, 0, 0) for p in (128, 512, 2048, 8192)]
    mixed = [(p, 512, b, b * 1024) for p, b in product((512, 2048, 7680), (32, 256))]
    chunks = [(p, isl, b, b * 1024) for p, isl, b in product((512, 2048, 8192), (16384, 32768, 131_072), (0, 32))]
    for step in (*decode_only, *prefill_only, *mixed, *chunks):
        if step[1] + step[3] <= profile.kv_capacity_tokens:
            assert step_ms(profile, *step) >= roofline_ms(profile, *step), step


@pytest.mark.parametrize("name", WRITERS)
def test_steps_that_are_bound_by_one_thing_are_within_a_factor_of_its_roofline(name: str) -> None:
    profile = load_profile(name)
    for step in ((0, 0, 1, 128), (8192, 2048, 0, 0)):
        assert step_ms(profile, *step) <= 2.2 * roofline_ms(profile, *step), step


def test_one_sequence_of_the_8b_on_an_h100_decodes_in_the_time_that_its_weights_take_to_read() -> None:
    assert 4.5 < step_ms(load_profile(CHAT), 0, 0, 1, 1024) < 7.5


def test_a_faster_gpu_has_faster_steps() -> None:
    a100, h100, l40s = (load_profile(f"llama31-8b_{gpu}_vllm_tp1") for gpu in ("a100", "h100", "l40s"))
    for step in ((0, 0, 1, 1024), (0, 0, 128, 128 * 1024), (4096, 1024, 0, 0)):
        assert step_ms(h100, *step) < step_ms(a100, *step) < step_ms(l40s, *step)


@pytest.mark.parametrize("name", WRITERS)
def test_the_kv_cache_is_what_the_weights_leave_of_the_memory(name: str) -> None:
    profile = load_profile(name)
    gpu, model = GPUS[profile.gpu], MODELS[profile.model]
    kv_bytes = 2 * 2 * model.attention_layers * model.kv_heads * model.head_size
    assert profile.kv_bytes_per_token == kv_bytes
    all_memory = profile.tensor_parallel * gpu.memory_bytes * 0.9
    weights = 2 * model.parameters
    most = (all_memory - weights * (0.9 if profile.engine == "trtllm" else 1)) / kv_bytes
    runtime = 7 * 2**30 * profile.tensor_parallel / kv_bytes
    assert most - runtime < profile.kv_capacity_tokens < most


# --- encoders

ENCODER_STEPS = tuple(product((16, 128, 512, 2048, 8192), (16, 128, 512, 2048, 8192)))


@pytest.mark.parametrize("name", READERS)
def test_a_step_of_an_encoder_is_not_faster_than_its_weights_are_read_and_every_pair_of_tokens_is_computed(
    name: str,
) -> None:
    profile = load_profile(name)
    gpu, model = GPUS[profile.gpu], MODELS[profile.model]
    for tokens, sequence in ENCODER_STEPS:
        if sequence <= tokens:
            pairs = 4 * model.attention_layers * model.heads * model.head_size * tokens * sequence
            operations_s = (2 * model.parameters * tokens + pairs) / gpu.flops
            least_ms = 1e3 * max(2 * model.parameters / gpu.bytes_per_s, operations_s)
            # Norms and activations take a large share of a layer this narrow.
            assert least_ms <= step_ms(profile, tokens, sequence, 0, 0) <= 4.0 * least_ms, (tokens, sequence)


@pytest.mark.parametrize("name", READERS)
def test_an_encoder_costs_nothing_to_decode_and_its_room_is_far_over_a_step(name: str) -> None:
    profile = load_profile(name)
    assert profile.step.decode_ms == profile.step.kv_token_ms == 0.0
    assert profile.max_sequence_tokens == 8192 <= profile.max_batched_tokens
    assert profile.kv_capacity_tokens > 50 * profile.max_batched_tokens
    room = GPUS[profile.gpu].memory_bytes * profile.source.memory_ratio - 2 * MODELS[profile.model].parameters
    assert profile.kv_capacity_tokens * profile.kv_bytes_per_token < room
    assert "activations of up to" in show(profile).facts


def test_sequences_that_do_not_attend_to_one_another_are_read_faster_than_one_of_their_length() -> None:
    reranker = load_profile("nv-rerankqa-1b_h100_vllm_tp1")
    pairs_of_query_and_chunk, one_document = (step_ms(reranker, 6400, length, 0, 0) for length in (320, 6400))
    assert pairs_of_query_and_chunk < 0.8 * one_document


def test_embedder_and_reranker_of_one_backbone_differ_in_name_only() -> None:
    for gpu in ("h100", "l40s"):
        embedder, reranker = (load_profile(f"nv-{task}-1b_{gpu}_vllm_tp1") for task in ("embedqa", "rerankqa"))
        assert embedder.with_(name=reranker.name, model=reranker.model) == reranker


@pytest.mark.parametrize(("budget", "longest"), [(8192, 8192), (2048, 512)])
def test_steps_of_an_encoder_are_whole_sequences_and_none_is_both_fitted_and_held_out(
    budget: int, longest: int
) -> None:
    fitted, held_out = (of(budget, longest) for of in (encoder_fitted_shapes, encoder_held_out_shapes))
    assert not set(fitted).intersection(held_out)
    assert len(held_out) == len(set(held_out)) > 400
    for shape in (*fitted, *held_out):
        assert shape.prompt_tokens <= longest and shape.prefill_tokens % shape.prompt_tokens == 0
        assert shape.decodes == shape.context_tokens == 0
    assert max(shape.prefill_tokens for shape in held_out) <= budget
    assert set(TABLE_TOKENS) < set(ENCODER_TABLE_TOKENS)


# --- reading


def test_a_profile_is_read_by_name_and_by_path(tmp_path: Path) -> None:
    profile = load_profile(CHAT)
    path = tmp_path / "mine.json"
    path.write_text(profile_text(profile))
    assert load_profile(path) == load_profile(str(path)) == profile


def test_an_unknown_profile_lists_the_known_ones_and_names_the_nearest() -> None:
    with pytest.raises(InputError) as error:
        load_profile("llama31-8b_h100_vlm_tp1", where="chat.yaml", key="service.pools.llm.profile")
    text = str(error.value)
    assert text.startswith("chat.yaml: service.pools.llm.profile")
    assert f"did you mean '{CHAT}'?" in text
    assert "qwen3-32b_h100_vllm_tp2" in text


def test_a_path_without_a_file_is_an_error_of_who_asked() -> None:
    with pytest.raises(InputError, match=r"chat\.yaml: service.*nowhere"):
        load_profile("nowhere/x.json", where="chat.yaml", key="service")


def test_a_broken_profile_names_file_and_key(tmp_path: Path) -> None:
    document = json.loads(profile_text(load_profile(CHAT)))
    document["step"]["decode_ms"] = -1
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"bad\.json: step\.decode_ms"):
        load_profile(path)


def test_a_table_that_does_not_increase_is_refused(tmp_path: Path) -> None:
    document = json.loads(profile_text(load_profile(CHAT)))
    document["step"]["tokens"][1] = document["step"]["tokens"][0]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="tokens must increase"):
        load_profile(path)


# --- the formula and its fit

KNOWN = StepTime(
    tokens=(1, 64, 1024, 8192),
    gemm_ms=(6.0, 7.0, 22.0, 170.0),
    decode_ms=0.01,
    kv_token_ms=4e-5,
    prefill_token_ms=0.001,
    prefill_pair_ms=4e-7,
    fixed_ms=0.0,
)


def known_ms(prefill: int, prompt: int, decodes: int, kv: int) -> float:
    points, table = KNOWN.tokens, KNOWN.gemm_ms
    total = prefill + decodes
    right = next((i for i in range(1, len(points) - 1) if total <= points[i]), len(points) - 1)
    slope = (table[right] - table[right - 1]) / (points[right] - points[right - 1])
    gemm = table[right - 1] + slope * max(0, total - points[right - 1])
    return gemm + 0.01 * decodes + 4e-5 * kv + 0.001 * prefill + 4e-7 * prefill * prompt


def known_steps() -> list[Step]:
    shapes = [*fitted_shapes(4096, 400_000), *held_out_shapes(4096, 400_000)]
    return [Step(*_step(s), known_ms(*_step(s))) for s in shapes]


def _step(shape: Shape) -> tuple[int, int, int, int]:
    return shape.prefill_tokens, shape.prompt_tokens, shape.decodes, shape.decodes * shape.context_tokens


def test_the_vectorised_formula_is_the_formula() -> None:
    for step in known_steps():
        assert math.isclose(step_of(KNOWN, step), step.ms, rel_tol=1e-12)


def step_of(step_time: StepTime, step: Step) -> float:
    columns = (step.prefill_tokens, step.prefill_tokens * step.prompt_tokens)
    return float(step_time.step_ms(*(np.array([float(x)]) for x in (*columns, step.decodes, step.kv_tokens)))[0])


@pytest.mark.parametrize("chunk", [1, 512, 3000, 8192])
def test_a_prompt_has_the_same_attention_however_it_is_chunked(chunk: int) -> None:
    whole = Step(24_000, 24_000, 0, 0, 1.0)
    chunks = [Step(min(chunk, 24_000 - start), 24_000, 0, 0, 1.0) for start in range(0, 24_000, chunk)]
    assert sum(step.pairs for step in chunks) == whole.pairs == 24_000**2


def test_the_table_of_whole_tokens_agrees_with_the_formula() -> None:
    tokens = np.arange(10_001, dtype=np.float64)
    assert np.allclose(KNOWN.gemm_table_ms(10_000), KNOWN.gemm_at_ms(tokens), rtol=1e-14)


def test_a_fit_to_steps_of_the_formula_finds_the_formula_again() -> None:
    fitted = fit_step_time(known_steps(), KNOWN.tokens)
    assert fit_error(fitted, known_steps()).max_ratio < 1e-3
    assert math.isclose(fitted.kv_token_ms, KNOWN.kv_token_ms, rel_tol=1e-3)
    assert math.isclose(fitted.prefill_pair_ms, KNOWN.prefill_pair_ms, rel_tol=1e-3)


def test_the_table_of_a_fit_never_falls() -> None:
    steps = [Step(t, t, 0, 0, ms) for t, ms in ((1, 5.0), (64, 9.0), (128, 6.0), (256, 12.0), (512, 30.0))]
    table = fit_step_time(steps, (1, 64, 128, 256, 512)).gemm_ms
    assert list(table) == sorted(table)


def test_non_negative_least_squares_is_optimal() -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        terms, target = generator.normal(size=(12, 4)), generator.normal(size=12)
        x = nonnegative_least_squares(terms, target)
        best = min(_best_of_support(terms, target, support) for support in product((False, True), repeat=4))
        assert (x >= 0).all()
        assert math.isclose(float(np.linalg.norm(terms @ x - target)), best, rel_tol=1e-9)


def _best_of_support(terms: np.ndarray, target: np.ndarray, support: tuple[bool, ...]) -> float:
    """The residual with only these variables free, or infinity when that makes one negative."""
    x = np.zeros(len(support))
    chosen = np.array(support)
    if chosen.any():
        x[chosen] = np.linalg.lstsq(terms[:, chosen], target, rcond=None)[0]
    return math.inf if (x < 0).any() else float(np.linalg.norm(terms @ x - target))


def test_no_held_out_step_was_fitted_to() -> None:
    fitted = {_step(shape) for shape in fitted_shapes(8192, 400_000)}
    held_out = [_step(shape) for shape in held_out_shapes(8192, 400_000)]
    assert len(held_out) == len(set(held_out)) > 500
    assert not fitted.intersection(held_out)


@pytest.mark.parametrize("shapes_of", [fitted_shapes, held_out_shapes])
def test_steps_hold_whole_prompts_or_a_whole_part_of_one_that_the_cache_can_hold_beside_the_decodes(
    shapes_of: Callable[[int, int], list[Shape]],
) -> None:
    for shape in shapes_of(8192, 50_000):
        assert shape.decodes * shape.context_tokens + shape.prompt_tokens <= 50_000
        if shape.prefill_tokens:
            long, short = sorted((shape.prefill_tokens, shape.prompt_tokens), reverse=True)
            assert long % short == 0
    assert {8192, 16384} <= set(TABLE_TOKENS)


@pytest.mark.parametrize("budget", [512, 2048, 8192, 32768])
def test_chunks_and_held_out_steps_are_within_the_token_budget_or_one_decode_over_it(budget: int) -> None:
    chunks = [shape for shape in fitted_shapes(budget, 400_000) if is_chunk(shape)]
    held_out = [shape for shape in held_out_shapes(budget, 400_000) if shape.prefill_tokens]
    assert chunks and all(shape.prefill_tokens <= budget for shape in chunks)
    assert held_out and all(shape.prefill_tokens + shape.decodes <= budget + 1 for shape in held_out)


@pytest.mark.parametrize("shapes_of", [fitted_shapes, held_out_shapes])
def test_chunks_of_prompts_far_over_the_token_budget_are_among_the_steps(
    shapes_of: Callable[[int, int], list[Shape]],
) -> None:
    shapes = shapes_of(2048, 400_000)
    chunks = [shape for shape in shapes if is_chunk(shape)]
    assert len(chunks) > 0.05 * len(shapes)
    assert max(shape.prompt_tokens for shape in chunks) > 8 * 2048
    assert any(shape.decodes > 64 for shape in chunks)


def test_held_out_prompts_are_of_every_length() -> None:
    for alone in (True, False):
        steps = [s for s in held_out_shapes(8192, 400_000) if s.prefill_tokens > 1024 and (s.decodes == 0) == alone]
        lengths = [s.prompt_tokens for s in steps]
        assert all(sum(low <= n < 4 * low for n in lengths) >= 5 for low in (16, 64, 256, 1024))


def is_chunk(shape: Shape) -> bool:
    return shape.prefill_tokens < shape.prompt_tokens


# --- making


@pytest.mark.skipif(find_spec("aiconfigurator_core") is None, reason="the extra 'profiles' is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_making_a_shipped_profile_again_gives_the_same_bytes(name: str) -> None:
    shipped = load_profile(name)
    if shipped.source.tool_version != "0.12.0":
        pytest.skip("made with another version of the database")
    assert profile_text(remake(shipped)) == (config_folder("profiles") / f"{name}.json").read_text()


def test_a_made_profile_is_written_as_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = load_profile(CHAT)
    asked: list[Recipe] = []
    monkeypatch.setattr("tiphys.profiles.make.make_profile", lambda recipe: asked.append(recipe) or profile)
    path = tmp_path / "new" / "mine.json"
    assert make_profile_file(recipe_of(profile), path) == profile == load_profile(path)
    assert path.read_text() == profile_text(profile)
    assert asked == [recipe_of(profile)]


def test_a_recipe_that_cannot_be_made_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text("before")
    with pytest.raises(InputError):
        make_profile_file(Recipe("x", "no-such-model", "no-such-gpu", "vllm"), path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(find_spec("aiconfigurator_core") is None, reason="the extra 'profiles' is not installed")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system": "h101_sxm"}, "unknown system 'h101_sxm', did you mean 'h100_sxm'"),
        ({"backend": "vlm"}, "unknown backend 'vlm', did you mean 'vllm'"),
        ({"backend_version": "9.9"}, "unknown version '9.9'"),
        ({"model": "meta-llama/Meta-Llama-3.1-9B"}, "unknown model"),
        ({"quantization": "fp9"}, "unknown quantization 'fp9'"),
        ({"tensor_parallel": 0}, "must be at least 1"),
        ({"memory_ratio": 1.5}, "at most 1"),
        ({"model": "meta-llama/Meta-Llama-3.1-70B"}, "no memory is left for a KV cache"),
        ({"model": "nvidia/llama-3.2-nv-embedqa-1b-v2", "system": "a100_sxm"}, "has no answer"),
    ],
)
def test_a_recipe_that_cannot_be_made_says_why(change: dict[str, object], message: str) -> None:
    recipe = Recipe("x", "meta-llama/Meta-Llama-3.1-8B", "h100_sxm", "vllm")._replace(**change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        make_profile(recipe)


def test_without_the_extra_making_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("aiconfigurator_core")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)
    with pytest.raises(InputError, match=r"pip install 'tiphys\[profiles\]'"):
        make_profile(Recipe("x", "meta-llama/Meta-Llama-3.1-8B", "h100_sxm", "vllm"))


def test_a_profile_of_another_tool_is_not_made_again() -> None:
    profile = load_profile(CHAT)
    other = profile.with_(source=profile.source.with_(tool="calibrate"))
    with pytest.raises(InputError, match=r"source\.tool"):
        recipe_of(other)


# --- capacity


class _Loop(NamedTuple):
    requests_per_s: float
    gap_s: float
    running: float


def closed_loop(profile: Profile, input_tokens: int, output_tokens: int, users: int, finishes: int) -> _Loop:
    """`users` requests in the engine at all times, step by step: prompts in chunks, first come first served."""
    prefilling: deque[int] = deque([input_tokens])
    # Users start spread over their output, as they are in a steady state.
    decoding = [1 + (output_tokens - 1) * i // users for i in range(users - 1)]
    now = waited = 0.0
    done = gaps = 0
    start: tuple[float, int, float, int] | None = None
    while done < finishes:
        if start is None and done >= finishes // 4:
            start = (now, done, waited, gaps)
        budget = profile.max_batched_tokens - len(decoding)
        prefill, finished_prompts = 0, 0
        while prefilling and budget > 0:
            chunk = min(prefilling[0], budget)
            prefill, budget = prefill + chunk, budget - chunk
            prefilling[0] -= chunk
            if prefilling[0]:
                break
            prefilling.popleft()
            finished_prompts += 1
        kv = sum(decoding) + len(decoding) * input_tokens
        lasted = step_ms(profile, prefill, input_tokens, len(decoding), kv) / 1e3
        now, waited, gaps = now + lasted, waited + lasted * len(decoding), gaps + len(decoding)
        still = [generated + 1 for generated in decoding if generated + 1 < output_tokens]
        leaving = len(decoding) - len(still)
        decoding = still + [1] * finished_prompts
        prefilling.extend([input_tokens] * leaving)
        done += leaving
    assert start is not None
    since, before, waited_before, gaps_before = start
    rate = (done - before) / (now - since)
    return _Loop(rate, (waited - waited_before) / (gaps - gaps_before), float(users))


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "users"),
    [(1024, 256, 32), (1024, 256, 200), (2048, 1024, 80), (128, 512, 256), (12_000, 400, 12)],
)
def test_the_fluid_answer_agrees_with_playing_the_steps(input_tokens: int, output_tokens: int, users: int) -> None:
    profile = load_profile(CHAT)
    played = closed_loop(profile, input_tokens, output_tokens, users, finishes=6 * users)
    found = capacity(profile, input_tokens, output_tokens, LOOSE, max_num_seqs=users).point
    assert users - 2 <= found.running <= users
    assert math.isclose(found.requests_per_s, played.requests_per_s, rel_tol=0.06)
    assert math.isclose(found.gap_s, played.gap_s, rel_tol=0.06)


def test_littles_law_holds_at_the_answer() -> None:
    point = capacity(load_profile(CHAT), 1024, 256, LOOSE).point
    assert math.isclose(point.decoding, point.requests_per_s * 255 * point.gap_s, rel_tol=1e-9)


@pytest.mark.parametrize("metric", ["ttft", "tpot", "e2e"])
def test_the_answer_meets_the_objective_and_one_sequence_more_does_not(metric: str) -> None:
    profile = load_profile(CHAT)
    limit_s = {"ttft": 0.05, "tpot": 0.02, "e2e": 8.0}[metric]
    slo = Slo(objectives=(Objective(metric=metric, at_most_s=limit_s, share=0.9),))  # type: ignore[arg-type]
    found = capacity(profile, 1024, 256, slo)
    more = capacity(profile, 1024, 256, LOOSE, max_num_seqs=math.ceil(found.point.running) + 2).point
    value = {"ttft": "ttft_s", "tpot": "gap_s", "e2e": "e2e_s"}[metric]
    assert found.meets_slo and metric in found.bound_by
    assert getattr(found.point, value) <= limit_s < getattr(more, value)


def test_the_share_of_an_itl_objective_says_whether_steps_with_prefill_must_meet_it() -> None:
    profile = load_profile(CHAT)

    def bound(share: float) -> int:
        slo = Slo(objectives=(Objective(metric="itl", at_most_s=0.02, share=share),))
        return capacity(profile, 1024, 1024, slo).slo_bound_concurrency

    assert bound(0.99) < bound(0.9)
    assert bound(0.9) > 32


def test_rule_trtllm_no_evict_holds_fewer_than_vllm() -> None:
    profile = load_profile(CHAT)
    vllm = capacity(profile, 1024, 2048, LOOSE, max_num_seqs=4096)
    trtllm = capacity(profile, 1024, 2048, LOOSE, max_num_seqs=4096, admission="trtllm_no_evict")
    assert vllm.bound_by == trtllm.bound_by == "kv"
    assert vllm.kv_bound_concurrency == profile.kv_capacity_tokens // 2048
    assert trtllm.kv_bound_concurrency == profile.kv_capacity_tokens // 3072
    assert trtllm.point.running < vllm.point.running
    assert 0.97 < trtllm.point.kv_usage <= 1.0
    assert 0.97 < vllm.point.kv_usage <= 1.0


def test_prefill_alone_bounds_requests_of_long_prompts_and_few_outputs() -> None:
    found = capacity(load_profile(CHAT), 8000, 4, LOOSE)
    tokens_per_s = found.point.requests_per_s * 8000
    assert found.bound_by == "prefill"
    assert tokens_per_s <= 8192 / (step_ms(load_profile(CHAT), 8192, 8000, 0, 0) / 1e3) * 1.05


def test_prompts_that_fill_every_step_leave_less_than_one_sequence_decoding() -> None:
    profile = load_profile(CHAT)
    found = capacity(profile, 30_000, 3, LOOSE)
    full_s = step_ms(profile, 8192, 30_000, 0, 0) / 1e3
    assert found.bound_by == "prefill"
    assert 0.0 < found.point.decoding < 1.0
    assert math.isclose(found.point.requests_per_s, 8192 / 30_000 / full_s, rel_tol=0.01)


def test_one_output_token_has_no_gap_and_fills_the_steps_with_prompts() -> None:
    profile = load_profile(CHAT)
    found = capacity(profile, 1024, 1, LOOSE)
    assert found.point.gap_s == 0.0
    assert found.point.running == profile.max_batched_tokens // 1024
    full_s = step_ms(profile, 8192, 1024, 0, 0) / 1e3
    assert math.isclose(found.point.requests_per_s, 8 / full_s, rel_tol=1e-9)


def test_one_output_token_of_a_prompt_over_the_budget_takes_all_its_chunks() -> None:
    profile = load_profile(CHAT)
    found = capacity(profile, 32_000, 1, LOOSE)
    chunk_s = step_ms(profile, 8000, 32_000, 0, 0) / 1e3
    assert found.point.running == 1
    assert math.isclose(found.point.requests_per_s, 1 / (4 * chunk_s), rel_tol=1e-9)


def test_an_slo_that_not_even_one_request_meets_is_said_and_the_point_is_that_of_one() -> None:
    slo = Slo(objectives=(Objective(metric="e2e", at_most_s=1.0, share=0.9),))
    found = capacity(load_profile(CHAT), 512, 4096, slo)
    assert not found.meets_slo
    assert found.slo_bound_concurrency == 0
    assert found.point.decoding == 1.0


def test_a_request_longer_than_the_kv_cache_is_refused() -> None:
    profile = load_profile(CHAT)
    with pytest.raises(InputError, match=f"longer than the KV cache; found {profile.kv_capacity_tokens + 1}"):
        capacity(profile, profile.kv_capacity_tokens, 1, LOOSE)


def test_a_token_budget_that_leaves_no_room_beside_a_decode_is_refused() -> None:
    with pytest.raises(InputError, match="max_batched_tokens: must be at least 2; found 1"):
        capacity(load_profile(CHAT), 10, 10, LOOSE, max_batched_tokens=1)


@pytest.mark.parametrize("lengths", [(0, 10), (10, 0), (-1, 10)])
def test_lengths_below_one_are_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        capacity(load_profile(CHAT), *lengths, LOOSE)


def test_targets_of_signals_follow_from_the_answer() -> None:
    objectives = (
        Objective(metric="ttft", at_most_s=2.0, share=0.9),
        Objective(metric="e2e", at_most_s=20.0, share=0.9),
    )
    found = capacity(load_profile(CHAT), 1024, 256, Slo(objectives=objectives))
    targets = signal_targets(found)
    slack_s = min(2.0 - found.point.ttft_s, 20.0 - found.point.e2e_s)
    assert targets[Signal.RUNNING] == found.point.running
    assert targets[Signal.KV_USAGE] == found.point.kv_usage
    assert math.isclose(targets[Signal.WAITING], slack_s * found.point.requests_per_s)
    assert targets[Signal.TTFT_P90] == 2.0


def test_an_slo_without_ttft_gives_no_ttft_target() -> None:
    slo = Slo(objectives=(Objective(metric="tpot", at_most_s=0.05, share=0.9),))
    assert set(signal_targets(capacity(load_profile(CHAT), 1024, 256, slo))) == {Signal.RUNNING, Signal.KV_USAGE}


# --- showing


def test_the_curves_are_the_formula_and_rise() -> None:
    profile = load_profile(CHAT)
    picture = show(profile)
    at_64 = picture.decode.step_ms[picture.decode.x.index(64)]
    assert math.isclose(at_64, step_ms(profile, 0, 0, 64, 64 * 1024))
    assert picture.prefill.x[-1] == profile.max_batched_tokens
    for curve in (picture.decode, picture.prefill):
        assert list(curve.step_ms) == sorted(curve.step_ms)


def test_the_text_says_the_error_and_draws_the_longest_step_longest() -> None:
    profile = load_profile(CHAT)
    text = show_text(profile)
    bars = [line.count("█") for line in text.splitlines() if line.endswith(" ms")]
    assert error_sentence(profile) in text
    assert f"{profile.fit_error.p95_ratio:.1%} at the 95th percentile" in text
    assert max(bars) == 40
    assert max(map(len, (line for line in text.splitlines() if "█" in line))) < 80
