"""Recordings as Parquet files, one play a file. The one import of pyarrow.

The table holds one row a request. The small tables of the play (each pool's replicas, decisions and token gaps) and its
numbers lie in the metadata of the file, under keys that begin with `tiphys.`: JSON, and Arrow streams in base64. With
the policies that were in force and the controllers' settings a file can be explained without anything beside it.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from tiphys.documents import write_atomically
from tiphys.domain.faults import Fault
from tiphys.domain.nodes import Offline, Tier
from tiphys.domain.platform import Policy
from tiphys.domain.recording import JobTimes, OfflineJobs, PoolRecording, Recording, ReplicaLife
from tiphys.domain.route import Hop
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.trace import ONE_CLASS, Trace
from tiphys.domain.values import Frozen, parse
from tiphys.errors import InputError

_FORMAT = "tiphys.recording/v1"
_LIFE = ("created_s", "ready_s", "removed_s", "gone_s")
_PLACED = ("scheduled_s", "tier")
_JOBS = ("arrival_s", "first_token_s", "finish_s", "failed", "output_tokens")
_OFFLINE = ("began_s", "told_s", "gone_s", "lost", "tier")
_POOL_TABLES = ("life", "decisions", "itl_counts")
_NUMBERS = ("warmup_s", "horizon_s", "end_s", "seed", "wall_s", "preemptions")


class _Surroundings(Frozen):
    """What was around a play that had more than a pool: written where there is any of it."""

    classes: dict[str, tuple[Hop, ...]] = Field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    tiers: tuple[Tier, ...] = ()
    offline: Offline | None = None
    trace_classes: tuple[str, ...] = ONE_CLASS


@dataclass(frozen=True)
class StoredRecording:
    """A recording with what governed the play: the controllers' settings, and each pool's policy as plain data.

    `policy` is empty where it was not kept.
    """

    recording: Recording
    policy: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: ClusterSettings = field(default_factory=ClusterSettings)


def write_recording(
    path: Path, recording: Recording, policy: Policy | None = None, settings: ClusterSettings | None = None
) -> None:
    """Write a recording to a Parquet file, atomically. Raises InputError when the place cannot be written."""
    stated = {
        "format": _FORMAT,
        "trace": recording.trace.name,
        "trace_end_s": recording.trace.end_s,
        **{name: getattr(recording, name) for name in _NUMBERS},
        "pools": {name: pool.gpus_per_replica for name, pool in recording.pools.items()},
        "policy": {name: scaling.document() for name, scaling in (policy or {}).items()},
        "settings": (settings or ClusterSettings()).document(),
    }
    around = _surroundings(recording).document()
    metadata: dict[str, str | bytes] = {"tiphys.play": json.dumps(stated | ({"around": around} if around else {}))}
    for name, pool in recording.pools.items():
        for part, table in zip(_POOL_TABLES, _pool_tables(pool), strict=True):
            metadata[f"tiphys.{part}.{name}"] = _packed(table)
        if pool.jobs is not None:
            metadata[f"tiphys.jobs.{name}"] = _packed(_columns(pool.jobs, _JOBS))
    if recording.offline is not None:
        metadata["tiphys.offline"] = _packed(_columns(recording.offline, _OFFLINE))
    buffer = io.BytesIO()
    pq.write_table(_requests(recording).replace_schema_metadata(metadata), buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def read_recording(path: Path) -> StoredRecording:
    """The recording of a file that `write_recording` wrote. Raises InputError for anything else."""
    try:
        table = pq.read_table(path)
        metadata = {key.decode(): value for key, value in (table.schema.metadata or {}).items()}
        stated = json.loads(metadata["tiphys.play"])
        if stated["format"] != _FORMAT:
            raise InputError(
                "is a recording of another version", where=str(path), found=stated["format"], allowed=_FORMAT
            )
        recording = _recording(table, stated, metadata)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=str(path)) from None
    except (KeyError, ValueError, pa.ArrowException):
        raise InputError("is not a recording", where=str(path), allowed="a file that --recording wrote") from None
    return StoredRecording(recording, stated["policy"], parse(ClusterSettings, stated["settings"], str(path)))


def _surroundings(recording: Recording) -> _Surroundings:
    return _Surroundings(
        classes=dict(recording.classes),
        faults=recording.faults,
        tiers=recording.tiers,
        offline=None if recording.offline is None else recording.offline.spec,
        trace_classes=recording.trace.classes,
    )


def _columns(value: object, names: tuple[str, ...]) -> pa.Table:
    """A table of those members that there are."""
    members = {name: getattr(value, name) for name in names}
    return pa.table({name: member for name, member in members.items() if member is not None})


def _requests(recording: Recording) -> pa.Table:
    trace = recording.trace
    columns: dict[str, Any] = {
        "arrival_s": trace.arrival_s,
        "input_tokens": trace.input_tokens,
        "output_tokens": trace.output_tokens,
        "first_token_s": recording.first_token_s,
        "finish_s": recording.finish_s,
        "failed": recording.failed,
    }
    if trace.class_of is not None:
        columns["class"] = trace.class_of
    if recording.replica_of_request is not None:
        columns["replica"] = recording.replica_of_request
    return pa.table(columns)


def _pool_tables(pool: PoolRecording) -> tuple[pa.Table, ...]:
    """In the order of `_POOL_TABLES`."""
    decisions = pool.decisions
    return (
        _columns(pool.life, (*_LIFE, *_PLACED)),
        pa.table({name: np.ascontiguousarray(decisions[name]) for name in decisions.dtype.names or ()}),
        pa.table({"tokens": pool.itl_counts}),
    )


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return base64.b64encode(sink.getvalue())


def _unpacked(packed: bytes) -> dict[str, Any]:
    table = pa.ipc.open_stream(base64.b64decode(packed)).read_all()
    return {name: table[name].to_numpy() for name in table.column_names}


def _recording(table: pa.Table, stated: Mapping[str, Any], metadata: Mapping[str, bytes]) -> Recording:
    columns = {name: table[name].to_numpy() for name in table.column_names}
    around = parse(_Surroundings, stated.get("around", {}))
    trace = Trace(
        columns["arrival_s"],
        columns["input_tokens"],
        columns["output_tokens"],
        stated["trace"],
        stated["trace_end_s"],
        columns.get("class"),
        around.trace_classes,
    )
    return Recording(
        trace=trace,
        first_token_s=columns["first_token_s"],
        finish_s=columns["finish_s"],
        failed=columns["failed"],
        pools={name: _pool(name, gpus, metadata) for name, gpus in stated["pools"].items()},
        replica_of_request=columns.get("replica"),
        classes=around.classes,
        faults=around.faults,
        tiers=around.tiers,
        offline=_offline(around, metadata),
        **{name: stated[name] for name in _NUMBERS},
    )


def _pool(name: str, gpus_per_replica: int, metadata: Mapping[str, bytes]) -> PoolRecording:
    life, decisions, itl = (_unpacked(metadata[f"tiphys.{part}.{name}"]) for part in _POOL_TABLES)
    rows = len(next(iter(decisions.values()), ()))
    table = np.empty(rows, dtype=[(column, "f8") for column in decisions])
    for column, values in decisions.items():
        table[column] = values
    jobs = _unpacked(metadata[f"tiphys.jobs.{name}"]) if f"tiphys.jobs.{name}" in metadata else None
    return PoolRecording(
        gpus_per_replica,
        ReplicaLife(**life),
        table,
        itl["tokens"],
        None if jobs is None else JobTimes(**jobs),
    )


def _offline(around: _Surroundings, metadata: Mapping[str, bytes]) -> OfflineJobs | None:
    return None if around.offline is None else OfflineJobs(around.offline, **_unpacked(metadata["tiphys.offline"]))
