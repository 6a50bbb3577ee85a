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

from tiphys.documents import write_atomically
from tiphys.domain.platform import Policy
from tiphys.domain.recording import PoolRecording, Recording, ReplicaLife
from tiphys.domain.settings import ClusterSettings
from tiphys.domain.trace import Trace
from tiphys.domain.values import parse
from tiphys.errors import InputError

_FORMAT = "tiphys.recording/v1"
_LIFE = ("created_s", "ready_s", "removed_s", "gone_s")
_POOL_TABLES = ("life", "decisions", "itl_counts")
_NUMBERS = ("warmup_s", "horizon_s", "end_s", "seed", "wall_s", "preemptions")


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
    metadata: dict[str, str | bytes] = {"tiphys.play": json.dumps(stated)}
    for name, pool in recording.pools.items():
        for part, table in zip(_POOL_TABLES, _pool_tables(pool), strict=True):
            metadata[f"tiphys.{part}.{name}"] = _packed(table)
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
    if recording.replica_of_request is not None:
        columns["replica"] = recording.replica_of_request
    return pa.table(columns)


def _pool_tables(pool: PoolRecording) -> tuple[pa.Table, ...]:
    """In the order of `_POOL_TABLES`."""
    decisions = pool.decisions
    return (
        pa.table({name: getattr(pool.life, name) for name in _LIFE}),
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
    trace = Trace(
        columns["arrival_s"], columns["input_tokens"], columns["output_tokens"], stated["trace"], stated["trace_end_s"]
    )
    return Recording(
        trace=trace,
        first_token_s=columns["first_token_s"],
        finish_s=columns["finish_s"],
        failed=columns["failed"],
        pools={name: _pool(name, gpus, metadata) for name, gpus in stated["pools"].items()},
        replica_of_request=columns.get("replica"),
        **{name: stated[name] for name in _NUMBERS},
    )


def _pool(name: str, gpus_per_replica: int, metadata: Mapping[str, bytes]) -> PoolRecording:
    life, decisions, itl = (_unpacked(metadata[f"tiphys.{part}.{name}"]) for part in _POOL_TABLES)
    rows = len(next(iter(decisions.values()), ()))
    table = np.empty(rows, dtype=[(column, "f8") for column in decisions])
    for column, values in decisions.items():
        table[column] = values
    return PoolRecording(gpus_per_replica, ReplicaLife(*(life[part] for part in _LIFE)), table, itl["tokens"])
