"""Profiles made from the measured kernels of aiconfigurator-core: the one import of it.

A step is the sum of its operations as that database times them: GEMMs, norms and all-reduces of all P + B tokens
together, attention of the prompts, attention of the decodes. Host time between steps (scheduler,
sampling, detokenising) is not in the database, so it is not in a made profile.

Attention was measured for whole prompts of up to 16,384 tokens. A chunk gets its share of its prompt's and a longer
prompt an extrapolation, so the fit error on such steps is against the database's model of them.

An encoder (`encoders.py`) is the causal model of its dimensions without the output head and with twice the attention.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

from tiphys.documents import write_atomically
from tiphys.domain.profile import Profile, ProfileSource, StepTime
from tiphys.errors import InputError, unknown_name
from tiphys.profiles import profile_text
from tiphys.profiles.encoders import ENCODERS, Encoder
from tiphys.profiles.fit import Step, fit_error, fit_step_time
from tiphys.profiles.grid import (
    ENCODER_TABLE_TOKENS,
    TABLE_TOKENS,
    Shape,
    encoder_fitted_shapes,
    encoder_held_out_shapes,
    fitted_shapes,
    held_out_shapes,
)

TOOL = "aiconfigurator-core"
GIB = 2**30
Engine = Literal["vllm", "trtllm", "sglang"]
_ENGINES = ("vllm", "trtllm", "sglang")
_QUANTIZATIONS = {
    "bf16": {"gemm_quant_mode": "bfloat16", "kvcache_quant_mode": "bfloat16", "fmha_quant_mode": "bfloat16"},
    "fp8": {"gemm_quant_mode": "fp8", "kvcache_quant_mode": "bfloat16", "fmha_quant_mode": "bfloat16"},
    "fp8_kv8": {"gemm_quant_mode": "fp8", "kvcache_quant_mode": "fp8", "fmha_quant_mode": "bfloat16"},
}
_HEAD = "context_logits_gemm"
"""The database's name for the output head."""
_GPUS = {
    "a100_pcie": "A100 PCIe 80 GB",
    "a100_sxm": "A100 SXM 80 GB",
    "b200_sxm": "B200 SXM 180 GB",
    "h100_pcie": "H100 PCIe 80 GB",
    "h100_sxm": "H100 SXM 80 GB",
    "h200_sxm": "H200 SXM 141 GB",
    "l40s": "L40S 48 GB",
}


class Recipe(NamedTuple):
    """What a profile is made from; `backend_version` None takes the database's current one."""

    name: str
    model: str
    system: str
    backend: str
    backend_version: str | None = None
    tensor_parallel: int = 1
    max_batched_tokens: int = 8192
    quantization: str = "bf16"
    memory_ratio: float = 0.9


class _Memory(NamedTuple):
    """Bytes on one GPU."""

    total: float
    weights: float
    activations: float
    runtime: float
    communication: float
    kv_token: float

    @property
    def beside_kv(self) -> float:
        return self.weights + self.activations + self.runtime + self.communication


def make_profile(recipe: Recipe) -> Profile:
    """The profile of a model on a GPU under an engine: the same bytes for the same recipe and version of the database.

    Raises InputError when aiconfigurator-core is not installed, when it has no data for the combination, and when the
    model does not fit the GPU.
    """
    core = _core()
    with _quietly():
        recipe = recipe._replace(backend_version=_version(core, recipe))
        _check(core, recipe)
        try:
            return _profile(core, recipe)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{TOOL} has no answer: {error}", where=recipe.name, found=_combination(recipe)) from error


def make_profile_file(recipe: Recipe, out: Path) -> Profile:
    """The profile of `make_profile`, written to the file `out` (replaced as a whole, its folder made).

    Raises InputError as that does, leaving `out` as it was, and when `out` cannot be written.
    """
    profile = make_profile(recipe)
    write_atomically(out, profile_text(profile))
    return profile


def remake(profile: Profile) -> Profile:
    """The profile made once more from what its `source` says."""
    return make_profile(recipe_of(profile))


def recipe_of(profile: Profile) -> Recipe:
    """What a made profile was made from. Raises InputError for one that another tool made."""
    source = profile.source
    if source.tool != TOOL:
        raise InputError(
            "was not made by this tool", where=profile.name, key="source.tool", found=source.tool, allowed=TOOL
        )
    return Recipe(
        name=profile.name,
        model=profile.model,
        system=source.system,
        backend=source.backend,
        backend_version=source.backend_version,
        tensor_parallel=profile.tensor_parallel,
        max_batched_tokens=profile.max_batched_tokens,
        quantization=source.quantization,
        memory_ratio=source.memory_ratio,
    )


def _core() -> Any:
    try:
        from aiconfigurator_core.sdk import common, memory, perf_database, utils
        from aiconfigurator_core.sdk.engine import EngineHandle
    except ImportError as error:
        raise InputError(
            f"making a profile needs {TOOL} ({error}); install it with: pip install 'tiphys[profiles]'",
            where="profile make",
        ) from None
    return SimpleNamespace(
        databases=perf_database.get_supported_databases,
        slots=perf_database.get_version_slots,
        models=common.DefaultHFModels,
        configuration=utils.get_model_config_from_model_path,
        memory=memory.KVCacheEstimator.from_request,
        engine=EngineHandle.compile,
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the notices that the database gives of tables that no dense model reads."""
    logger = logging.getLogger("aiconfigurator_core")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _version(core: Any, recipe: Recipe) -> str:
    """The literal version of the engine's data."""
    databases = core.databases()
    if recipe.system not in databases:
        raise unknown_name("system", recipe.system, databases, where=recipe.name, key="system")
    if recipe.backend not in databases[recipe.system] or recipe.backend not in _ENGINES:
        raise unknown_name("backend", recipe.backend, databases[recipe.system], where=recipe.name, key="backend")
    versions = databases[recipe.system][recipe.backend]
    if recipe.backend_version is None:
        return str(core.slots(recipe.system, recipe.backend)["current"])
    if recipe.backend_version not in versions:
        raise unknown_name("version", recipe.backend_version, versions, where=recipe.name, key="version")
    return recipe.backend_version


def _check(core: Any, recipe: Recipe) -> None:
    if recipe.model not in core.models and recipe.model not in ENCODERS:
        raise unknown_name("model", recipe.model, (*core.models, *ENCODERS), where=recipe.name, key="model")
    if recipe.quantization not in _QUANTIZATIONS:
        raise unknown_name("quantization", recipe.quantization, _QUANTIZATIONS, where=recipe.name, key="quantization")
    if recipe.tensor_parallel < 1:
        raise InputError("must be at least 1", where=recipe.name, key="tp", found=recipe.tensor_parallel)
    if not 0 < recipe.memory_ratio <= 1:
        raise InputError(
            "must be over 0 and at most 1", where=recipe.name, key="memory_ratio", found=recipe.memory_ratio
        )


def _combination(recipe: Recipe) -> str:
    parts = (recipe.model, recipe.system, recipe.backend, recipe.backend_version, f"tp{recipe.tensor_parallel}")
    return " ".join((*map(str, parts), recipe.quantization))


class _Made(NamedTuple):
    """What a profile says beyond its recipe and its step times."""

    capacity_tokens: int
    bytes_per_token: float
    max_sequence_tokens: int
    note: str


def _profile(core: Any, recipe: Recipe) -> Profile:
    if recipe.model in ENCODERS:
        return _encoder_profile(core, recipe, ENCODERS[recipe.model])
    configuration = core.configuration(recipe.model)["raw_config"]
    memory = _memory(core, recipe, configuration)
    capacity = _kv_capacity_tokens(recipe, memory)
    longest = min(int(configuration["max_position_embeddings"]), capacity)
    made = _Made(capacity, memory.kv_token, longest, _note(recipe, memory, capacity))
    budget = recipe.max_batched_tokens
    fitted, held_out = fitted_shapes(budget, capacity), held_out_shapes(budget, capacity)
    timed = _timer(core, recipe)
    return _stated(recipe, made, fit_step_time(_steps(timed, fitted), TABLE_TOKENS), _steps(timed, held_out))


def _encoder_profile(core: Any, recipe: Recipe, encoder: Encoder) -> Profile:
    """The profile of an encoder. Each token of a step takes memory for its activations, and none between steps."""
    with TemporaryDirectory() as folder:
        configuration = encoder.configuration()
        Path(folder, "config.json").write_text(json.dumps(configuration))
        causal = recipe._replace(model=folder)
        memory = _without_head(_memory(core, causal, configuration), encoder, recipe)
        timed = _encoder_timer(core, causal)
    token_bytes = memory.activations / recipe.max_batched_tokens
    capacity = _kv_capacity_tokens(recipe, memory._replace(activations=0.0, kv_token=token_bytes))
    made = _Made(capacity, token_bytes, encoder.max_sequence_tokens, _encoder_note(recipe, memory, capacity))
    budget, longest = recipe.max_batched_tokens, encoder.max_sequence_tokens
    fitted, held_out = encoder_fitted_shapes(budget, longest), encoder_held_out_shapes(budget, longest)
    return _stated(recipe, made, fit_step_time(_steps(timed, fitted), ENCODER_TABLE_TOKENS), _steps(timed, held_out))


def _stated(recipe: Recipe, made: _Made, step_time: StepTime, held_out: list[Step]) -> Profile:
    return Profile(
        name=recipe.name,
        model=recipe.model,
        gpu=_GPUS.get(recipe.system, recipe.system),
        engine=cast(Engine, recipe.backend),
        tensor_parallel=recipe.tensor_parallel,
        max_batched_tokens=recipe.max_batched_tokens,
        kv_capacity_tokens=made.capacity_tokens,
        kv_bytes_per_token=round(made.bytes_per_token * recipe.tensor_parallel),
        max_sequence_tokens=made.max_sequence_tokens,
        step=step_time,
        fit_error=fit_error(step_time, held_out),
        source=ProfileSource(
            tool=TOOL,
            tool_version=installed_version(TOOL),
            system=recipe.system,
            backend=recipe.backend,
            backend_version=str(recipe.backend_version),
            quantization=recipe.quantization,
            memory_ratio=recipe.memory_ratio,
            note=made.note,
        ),
    )


def _steps(timed: Callable[[Shape], float], shapes: Iterable[Shape]) -> list[Step]:
    return [
        Step(
            shape.prefill_tokens, shape.prompt_tokens, shape.decodes, shape.decodes * shape.context_tokens, timed(shape)
        )
        for shape in shapes
    ]


def _engine(core: Any, recipe: Recipe) -> Any:
    return core.engine(
        recipe.model,
        recipe.system,
        recipe.backend,
        backend_version=recipe.backend_version,
        tp_size=recipe.tensor_parallel,
        **_QUANTIZATIONS[recipe.quantization],
    )


def _encoder_timer(core: Any, causal: Recipe) -> Callable[[Shape], float]:
    """Milliseconds of a step of whole sequences, from the causal model of the same dimensions."""
    engine = _engine(core, causal)

    def step_ms(shape: Shape) -> float:
        others, attention, _ = engine.mixed_step_breakdown_per_op(shape.prefill_tokens, 0, shape.prompt_tokens, 1)
        beside_head = sum(float(operation[1]) for operation in others if operation[0] != _HEAD)
        return beside_head + 2.0 * sum(float(operation[1]) for operation in attention)

    return step_ms


def _timer(core: Any, recipe: Recipe) -> Callable[[Shape], float]:
    """Milliseconds of a step.

    The database gives prompts and decodes of a mixed step one length; so the decodes' attention is asked for apart.
    """
    engine = _engine(core, recipe)

    @cache
    def decode_attention_ms(decodes: int, context_tokens: int) -> float:
        return float(engine.mixed_step_breakdown(1, decodes, context_tokens, 1)[3]) if decodes else 0.0

    def step_ms(shape: Shape) -> float:
        if not shape.prefill_tokens:
            return float(engine.decode_step_latency(shape.decodes, shape.context_tokens, 1))
        parts = engine.mixed_step_breakdown(shape.prefill_tokens, shape.decodes, shape.prompt_tokens, 1)
        return float(parts[1] + parts[2]) + decode_attention_ms(shape.decodes, shape.context_tokens)

    return step_ms


def _memory(core: Any, recipe: Recipe, configuration: dict[str, Any]) -> _Memory:
    estimate = core.memory(
        recipe.model,
        recipe.system,
        recipe.backend,
        recipe.backend_version,
        max_num_tokens=recipe.max_batched_tokens,
        max_batch_size=256,
        tp_size=recipe.tensor_parallel,
        **_QUANTIZATIONS[recipe.quantization],
    ).breakdown
    return _Memory(
        total=estimate["gpu_memory_capacity_bytes"],
        weights=estimate["weights_bytes"],
        activations=estimate["activations_bytes"],
        runtime=estimate["runtime_overhead_bytes"],
        communication=estimate["comm_overhead_bytes"],
        kv_token=estimate["kv_size_per_token_bytes"] or _pruned_kv_bytes(recipe, configuration),
    )


def _without_head(memory: _Memory, encoder: Encoder, recipe: Recipe) -> _Memory:
    """The causal model's memory less its output head, which the database keeps in bf16 apart from the embedding."""
    return memory._replace(weights=memory.weights - 2.0 * encoder.head_parameters / recipe.tensor_parallel)


def _pruned_kv_bytes(recipe: Recipe, configuration: dict[str, Any]) -> float:
    """KV bytes of one token on one GPU for a model whose layers differ (Nemotron NAS): the database has 0 for it."""
    heads = configuration["num_attention_heads"]
    head_size = configuration["hidden_size"] // heads
    groups = [block["attention"]["n_heads_in_group"] for block in configuration["block_configs"]]
    kv_heads = sum(-(-heads // group // recipe.tensor_parallel) for group in groups if group)
    bytes_each = 1 if _QUANTIZATIONS[recipe.quantization]["kvcache_quant_mode"] == "fp8" else 2
    return float(2 * kv_heads * head_size * bytes_each)


def _kv_capacity_tokens(recipe: Recipe, memory: _Memory) -> int:
    """What is left for the KV cache, in tokens.

    vLLM and SGLang give the engine a share of all memory; TensorRT-LLM gives the cache a share of what is left free.
    """
    if recipe.backend == "trtllm":
        left = (memory.total - memory.beside_kv) * recipe.memory_ratio
    else:
        left = memory.total * recipe.memory_ratio - memory.beside_kv
    tokens = int(left / memory.kv_token)
    if tokens < 1:
        raise InputError(
            f"no memory is left for a KV cache: {memory.beside_kv / GIB:.1f} of {memory.total / GIB:.1f} GiB are taken",
            where=recipe.name,
            key="tp",
            found=recipe.tensor_parallel,
        )
    return tokens


def _encoder_note(recipe: Recipe, memory: _Memory, capacity: int) -> str:
    token_bytes = memory.activations / recipe.max_batched_tokens
    return (
        f"Encoder: steps prefill whole sequences. Step times are sums of the kernels that {recipe.backend} runs for a "
        "causal Llama of these dimensions (norms, activations and embeddings by the tool's formula), without its "
        "output head, without pooling and host time between steps. Attention looks both ways: twice the time of causal "
        "attention, which computes half the pairs. Decodes were not asked for: their terms are 0. Nothing is cached "
        "between steps: the capacity is the tokens whose activations fit, per GPU in GiB: "
        f"{_left(recipe, memory._replace(activations=0.0))}, over {token_bytes:.0f} bytes a token = {capacity} tokens."
    )


def _note(recipe: Recipe, memory: _Memory, capacity: int) -> str:
    kv = "fp8" if _QUANTIZATIONS[recipe.quantization]["kvcache_quant_mode"] == "fp8" else "bf16"
    return (
        "Step times are sums of measured kernels (norms, activations and embeddings by the tool's formula), "
        "without host time between steps. Attention of a chunk is its share of the whole prompt's, which was measured "
        "to 16384 tokens and is extrapolated beyond. "
        f"KV cache per GPU in GiB: {_left(recipe, memory)}, over {memory.kv_token:.0f} bytes a token ({kv}) = "
        f"{capacity} tokens."
    )


def _left(recipe: Recipe, memory: _Memory) -> str:
    """The sum of `_kv_capacity_tokens`, in GiB."""
    parts = (
        ("weights", memory.weights),
        ("activations", memory.activations),
        ("runtime", memory.runtime),
        ("communication", memory.communication),
    )
    taken = " + ".join(f"{name} {size / GIB:.2f}" for name, size in parts)
    total = f"{memory.total / GIB:.2f}"
    if recipe.backend == "trtllm":
        return f"({total} - ({taken})) x {recipe.memory_ratio:g}"
    return f"{total} x {recipe.memory_ratio:g} - ({taken})"
