"""Random policies of every law, and random parts of a service, for worlds that end within some minutes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.pools import OraclePool
from tests.oracle.world import AnyPolicy
from tiphys.domain.profile import FitError, Profile, ProfileSource, StepTime
from tiphys.domain.queues import Interceptor, JetStreamQueue, PoolQueue, RouterQueue
from tiphys.domain.service import ColdStart, ColdStartParts, Cpu, Envelope, Pool
from tiphys.domain.signals import Signal
from tiphys.domain.values import parse
from tiphys.policies.fixed import FixedPolicy
from tiphys.policies.hpa.spec import HpaPolicy
from tiphys.policies.keda.spec import KedaPolicy
from tiphys.policies.kpa.spec import KnativeHpaPolicy, KpaPolicy
from tiphys.policies.schedule.spec import SchedulePolicy

Document = dict[str, Any]
LAWS = ("hpa", "keda", "kpa", "schedule", "knative-hpa", "fixed")
_RANGES: dict[str, tuple[float, float]] = {
    "running": (1, 8), "waiting": (0.5, 6), "pending": (0.5, 6), "concurrency": (1, 8), "queued": (0.5, 5),
    "kv_usage": (0.05, 0.8), "gpu_utilization": (0.1, 0.9), "gpu_memory": (0.6, 1.2), "rps": (0.05, 2),
    "queue_compute_ratio": (0.05, 3), "ttft": (0.1, 10), "itl": (0.02, 1), "e2e": (0.3, 20),
}  # fmt: skip
_RATIOS = (Signal.TTFT_P50, Signal.TTFT_P90, Signal.TTFT_P99, Signal.TTFT_MEAN, Signal.E2E_P95, Signal.E2E_MEAN)
_TOKENS = (Signal.ITL_P90, Signal.ITL_P50, Signal.ITL_MEAN)
_SUMS = (
    Signal.RUNNING, Signal.WAITING, Signal.PENDING, Signal.CONCURRENCY, Signal.KV_USAGE, Signal.GPU_UTILIZATION,
    Signal.GPU_MEMORY, Signal.RPS,
)  # fmt: skip


def pick(rng: np.random.Generator, values: Any) -> Any:
    """One of some values, whatever they are."""
    return values[int(rng.integers(len(values)))]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# --- parts of a service


def profile(rng: np.random.Generator, name: str, kv_capacity_tokens: int) -> Profile:
    return Profile(
        name=name, model="test", gpu="test", engine="vllm", tensor_parallel=1,
        max_batched_tokens=int(pick(rng, [32, 128, 1024])), kv_capacity_tokens=kv_capacity_tokens,
        kv_bytes_per_token=int(rng.integers(1, 300)) * 10_000, max_sequence_tokens=1_000_000, step=_step(rng),
        fit_error=FitError(points=1, median_ratio=0, p95_ratio=0, max_ratio=0),
        source=ProfileSource(
            tool="test", tool_version="1", system="test", backend="vllm", backend_version="1", quantization="none"
        ),
    )  # fmt: skip


def _step(rng: np.random.Generator) -> StepTime:
    scale = float(pick(rng, [2, 6, 15]))
    points = np.sort(rng.choice(np.arange(1, 600), 4, replace=False)).tolist()
    return StepTime(
        tokens=tuple(points), gemm_ms=tuple((np.sort(rng.uniform(5, 60, 4)) * scale).tolist()),
        decode_ms=float(rng.uniform(0, 2)) * scale, kv_token_ms=float(rng.uniform(0, 0.02)) * scale,
        prefill_token_ms=float(rng.uniform(0, 0.3)) * scale, prefill_pair_ms=float(rng.uniform(0, 0.001)) * scale,
        fixed_ms=float(rng.uniform(1, 40)) * scale,
    )  # fmt: skip


def oracle_pool(
    rng: np.random.Generator, name: str, *, queue: PoolQueue | None = None, most: int = 5, is_encoder: bool = False
) -> OraclePool:
    """A pool; an encoder's engine takes larger prompts at once."""
    kv_capacity = int(pick(rng, [900, 3000, 20_000] if is_encoder else [260, 330, 450, 900, 20_000]))
    budgets = [256, 512, 2048] if is_encoder else [24, 64, 256, 2048]
    described = Pool(
        profile=name, gpus_per_replica=int(pick(rng, [1, 1, 2])), replicas=Envelope(min=0, max=most),
        cold_start=_cold_start(rng), max_num_seqs=int(pick(rng, [2, 4, 8, 64])),
        max_batched_tokens=int(pick(rng, budgets)), kv_capacity_tokens=kv_capacity,
        admission=pick(rng, ["vllm", "vllm", "trtllm_no_evict"]),
        termination_grace_s=float(pick(rng, [0.5, 5.0, 30.0, 300.0])) * float(rng.uniform(0.9, 1.1)), queue=queue,
        cpu=Cpu(request=float(pick(rng, [1.0, 2.0, 4.0])), idle=0.2, busy=float(rng.uniform(0.3, 1.5))),
    )  # fmt: skip
    own = profile(rng, name, 30_000)
    return OraclePool(described, own, "vllm", _bounds(rng))


def _bounds(rng: np.random.Generator) -> dict[Any, tuple[float, ...]]:
    ttft = pick(rng, [(0.1, 0.5, 2.0, 5.0), (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 40.0)])
    return {"ttft": ttft, "itl": (0.02, 0.05, 0.1, 0.3, 1.0), "e2e": (0.5, 1.0, 3.0, 10.0, 30.0, 60.0)}


def _cold_start(rng: np.random.Generator) -> ColdStart:
    median_s = float(rng.uniform(1, 50))
    members: Document = {"median_s": median_s, "p95_s": median_s * float(rng.uniform(1.05, 2))}
    if rng.random() < 0.5:
        return ColdStart(**members, pending_s=float(pick(rng, [0.0, 3.3, 10.1])))
    shares = rng.dirichlet(np.ones(4)) * median_s
    parts = ColdStartParts(
        image_pull_s=float(shares[0]), model_load_s=float(shares[1]), model_load_warm_s=float(shares[1] * rng.random()),
        engine_load_s=float(shares[2]), warm_up_s=float(shares[3]),
    )  # fmt: skip
    return ColdStart(**members, parts=parts)


def waiting_room(rng: np.random.Generator, kinds: tuple[str, ...]) -> PoolQueue | None:
    """What holds a pool's jobs."""
    kind = pick(rng, kinds)
    if kind == "interceptor":
        return Interceptor(kind="interceptor", timeout_s=float(rng.uniform(5, 60)))
    in_flight = int(pick(rng, [1, 2, 3, 8]))
    if kind == "router":
        timeout_s = float(rng.uniform(5, 60)) if rng.random() < 0.6 else None
        return RouterQueue(kind="router", in_flight=in_flight, timeout_s=timeout_s)
    if kind == "jetstream":
        return JetStreamQueue(
            kind="jetstream", stream="work", consumer="engines", in_flight=in_flight,
            max_ack_pending=int(pick(rng, [3, 6, 1000])), ack_wait_s=float(rng.uniform(1, 20)),
        )  # fmt: skip
    return None


# --- policies


def policy(
    rng: np.random.Generator, law: str, pool: OraclePool, *, is_encoder: bool = False, to_zero: bool = False
) -> AnyPolicy:
    """A policy of one law that fits a pool; with `to_zero` one that takes it to zero and back, where its queue can."""
    most = pool.pool.replicas.max
    if law == "fixed":
        return parse(FixedPolicy, {"kind": "fixed", "replicas": int(rng.integers(1, most + 1))})
    if law == "schedule":
        return parse(SchedulePolicy, _schedule(rng, most))
    if law == "kpa":
        return parse(KpaPolicy, _kpa(rng, most))
    if law == "knative-hpa":
        return parse(KnativeHpaPolicy, _knative_hpa(rng, most))
    if law == "keda":
        return parse(KedaPolicy, _keda(rng, pool, is_encoder, to_zero))
    return parse(HpaPolicy, _hpa(rng, pool, is_encoder, to_zero))


def _target(rng: np.random.Generator, signal: Signal) -> float:
    low, high = _RANGES[signal.latency or signal.value]
    return round(log_uniform(rng, low, high), 3)


def _measured(rng: np.random.Generator, signal: Signal) -> Document:
    window = {"window_s": int(pick(rng, [20, 45, 90]))} if signal.has_window else {}
    return {"signal": signal.value, **window}


def _asked(rng: np.random.Generator, pool: OraclePool, is_encoder: bool) -> tuple[Signal, str]:
    """A signal and how it is put together."""
    queued = (Signal.QUEUED,) if isinstance(pool.pool.queue, Interceptor | RouterQueue) else ()
    if rng.random() < 0.5:
        return pick(rng, (*_SUMS, *queued * 3)), "AverageValue"
    latencies = _RATIOS if is_encoder else (*_RATIOS, *_TOKENS)
    return pick(rng, (*latencies, Signal.QUEUE_COMPUTE_RATIO, Signal.KV_USAGE, Signal.GPU_UTILIZATION, Signal.RPS)), (
        "Value"
    )


def _hpa(rng: np.random.Generator, pool: OraclePool, is_encoder: bool, to_zero: bool) -> Document:
    most = pool.pool.replicas.max
    metrics = [_hpa_metric(rng, pool, is_encoder) for _ in range(int(rng.integers(1, 3)))]
    least = int(rng.integers(1, most + 1))
    if to_zero:
        least = 0
        queued = {
            "signal": "queued",
            "type": "AverageValue",
            "source": "external",
            "target": _target(rng, Signal.QUEUED),
        }
        metrics = [queued, *metrics[:1]] if rng.random() < 0.5 else [queued]
    return _with_behavior(rng, {"kind": "hpa", "replicas": {"min": least, "max": most}, "metrics": metrics})


def _hpa_metric(rng: np.random.Generator, pool: OraclePool, is_encoder: bool) -> Document:
    if rng.random() < 0.12:
        return _cpu(rng)
    signal, kind = _asked(rng, pool, is_encoder)
    document = _measured(rng, signal) | {"type": kind, "target": _target(rng, signal)}
    if kind == "AverageValue" and signal is not Signal.QUEUED and rng.random() < 0.4:
        document["source"] = "pods"
    elif rng.random() < 0.3:
        document["source"] = "external"
    return document


def _cpu(rng: np.random.Generator) -> Document:
    if rng.random() < 0.5:
        return {"signal": "cpu", "source": "resource", "type": "Utilization", "target": int(rng.integers(5, 80))}
    return {"signal": "cpu", "source": "resource", "type": "AverageValue", "target": round(rng.uniform(0.2, 1.2), 2)}


def _keda(rng: np.random.Generator, pool: OraclePool, is_encoder: bool, to_zero: bool) -> Document:
    most, queue = pool.pool.replicas.max, pool.pool.queue
    triggers = [_trigger(rng, pool, is_encoder) for _ in range(int(rng.integers(1, 3)))]
    if to_zero and isinstance(queue, Interceptor | RouterQueue):
        triggers[0] = _prometheus(rng, Signal.QUEUED, "AverageValue")
    if isinstance(queue, JetStreamQueue) and (to_zero or rng.random() < 0.7):
        triggers[0] = _nats(rng)
    if rng.random() < 0.2:
        triggers.append(_cpu_trigger(rng))
    least = 0 if to_zero else int(rng.integers(1, min(2, most) + 1))
    document: Document = {
        "kind": "keda", "replicas": {"min": least, "max": most}, "triggers": triggers,
        "polling_interval_s": int(pick(rng, [5, 10, 30])), "cooldown_s": int(pick(rng, [0, 20, 60])),
        "initial_cooldown_s": int(pick(rng, [0, 100])),
    }  # fmt: skip
    if least == 2 and rng.random() < 0.5:
        document["idle_replicas"] = 1
    if rng.random() < 0.4:
        document["fallback"] = {
            "failure_threshold": int(rng.integers(0, 4)), "replicas": int(rng.integers(0, most + 1)),
            "behavior": pick(rng, ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]),
        }  # fmt: skip
    return _with_behavior(rng, document)


def _trigger(rng: np.random.Generator, pool: OraclePool, is_encoder: bool) -> Document:
    signal, kind = _asked(rng, pool, is_encoder)
    return _prometheus(rng, signal, kind)


def _prometheus(rng: np.random.Generator, signal: Signal, kind: str) -> Document:
    target = _target(rng, signal)
    document = _measured(rng, signal) | {
        "scaler": "prometheus", "threshold": target, "metric_type": kind, "ignore_null": bool(rng.random() < 0.5),
        "use_cached_metrics": bool(rng.random() < 0.2),
    }  # fmt: skip
    if signal is not Signal.QUEUED and rng.random() < 0.5:
        document["activation"] = target / 2
    return document


def _cpu_trigger(rng: np.random.Generator) -> Document:
    if rng.random() < 0.5:
        return {"scaler": "cpu", "metric_type": "Utilization", "threshold": int(rng.integers(5, 80))}
    return {"scaler": "cpu", "metric_type": "AverageValue", "threshold": round(rng.uniform(0.2, 1.2), 2)}


def _nats(rng: np.random.Generator) -> Document:
    return {
        "scaler": "nats-jetstream", "endpoint": "nats:8222", "stream": "work", "consumer": "engines",
        "lag_threshold": int(rng.integers(1, 8)), "activation": int(pick(rng, [0, 0, 1])),
        "use_cached_metrics": bool(rng.random() < 0.2),
    }  # fmt: skip


def _kpa(rng: np.random.Generator, most: int) -> Document:
    least = int(pick(rng, [0, 0, 1]))
    document: Document = {
        "kind": "kpa", "replicas": {"min": least, "max": most}, "window_s": int(rng.integers(6, 40)),
        "container_concurrency": int(pick(rng, [0, 0, 1, 3])),
        "metric": pick(rng, ["concurrency", "concurrency", "rps"]),
        "target": round(log_uniform(rng, 0.3, 8), 2), "target_utilization_ratio": float(pick(rng, [0.5, 0.7, 1.0])),
        "aggregation": pick(rng, ["linear", "linear", "weighted-exponential"]),
    }  # fmt: skip
    if rng.random() < 0.6:
        document["target_burst_capacity"] = float(pick(rng, [-1, 0, 1, 3]))
    if rng.random() < 0.3:
        document["scale_down_delay_s"] = int(rng.integers(1, 20))
    if rng.random() < 0.2:
        document["activation_scale"] = min(2, most)
    if rng.random() < 0.3:
        document["pod_retention_s"] = float(rng.uniform(0, 30))
    if rng.random() < 0.3:
        document["panic_window_ratio"] = float(pick(rng, [0.1, 0.3, 1.0]))
    return document


def _knative_hpa(rng: np.random.Generator, most: int) -> Document:
    if rng.random() < 0.4:
        metric: Document = {"source": "cpu", "target": int(rng.integers(5, 80))}
    else:
        signal = pick(rng, [Signal.RUNNING, Signal.CONCURRENCY, Signal.WAITING])
        metric = {"source": "pods", "signal": signal.value, "target": int(rng.integers(1, 5))}
    document: Document = {"kind": "knative-hpa", "replicas": {"min": 1, "max": most}, "metric": metric}
    if rng.random() < 0.5:
        document["window_s"] = int(rng.integers(6, 60))
    return document


def _schedule(rng: np.random.Generator, most: int) -> Document:
    period_s = float(rng.uniform(50, 150)) if rng.random() < 0.6 else None
    times = np.sort(rng.uniform(0, period_s or 200, int(rng.integers(1, 5))))
    if period_s is None:
        times[0] = 0.0
    entries = [{"at_s": float(at_s), "replicas": int(rng.integers(1, most + 1))} for at_s in times]
    return {"kind": "schedule", "replicas": {"min": 1, "max": most}, "times": entries, "period_s": period_s}


def _with_behavior(rng: np.random.Generator, document: Document) -> Document:
    if rng.random() < 0.35:
        return document
    behavior = {direction: _rules(rng) for direction in ("scale_up", "scale_down") if rng.random() < 0.8}
    return document | {"behavior": behavior}


def _rules(rng: np.random.Generator) -> Document:
    rules: Document = {}
    if rng.random() < 0.8:
        rules["stabilization_s"] = int(pick(rng, [0, 10, 30, 60]))
    if rng.random() < 0.4:
        rules["select"] = pick(rng, ["Max", "Min", "Min", "Disabled"])
    if rng.random() < 0.7:
        rules["policies"] = [_rate(rng) for _ in range(int(rng.integers(1, 3)))]
    if rng.random() < 0.3:
        rules["tolerance"] = float(pick(rng, [0.0, 0.05, 0.2, 0.5]))
    return rules


def _rate(rng: np.random.Generator) -> Document:
    kind = pick(rng, ["Pods", "Percent"])
    value = int(rng.integers(1, 4)) if kind == "Pods" else int(pick(rng, [10, 50, 100]))
    return {"type": kind, "value": value, "period_s": int(pick(rng, [15, 30, 60, 120]))}
