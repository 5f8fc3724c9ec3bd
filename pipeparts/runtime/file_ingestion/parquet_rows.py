"""Rows of Parquet files, a batch at a time."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeparts.runtime.errors import DataError
from pipeparts.runtime.file_ingestion.kinds import normalize
from pipeparts.runtime.file_ingestion.opening import Member, seekable
from pipeparts.runtime.file_ingestion.text_rows import KEPT_TEXT, Chunk, Sink

Schema = dict[str, pa.DataType]

_BATCH_ROWS = 32_768


def read_schema(member: Member) -> Schema:
    """The file's columns with the types they have in a table; null for one without any values.

    Raises:
        DataError: Where it is no whole Parquet file.
    """
    with seekable(member) as raw:
        return _schema(_open(raw, member.name), member.name)


def read_rows(member: Member, sink: Sink, check: Callable[[Schema], None]) -> None:
    """Reads the file's rows in order.

    Args:
        member: The file.
        sink: Where rows go.
        check: Is given the file's columns before the first row is read.

    Raises:
        DataError: Where it is no whole Parquet file.
    """
    with seekable(member) as raw:
        file = _open(raw, member.name)
        check(_schema(file, member.name))
        done = 0
        batches = file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                columns = {name: _flat(batch.column(i)) for i, name in enumerate(batch.schema.names)}
            except (pa.ArrowException, OSError, ValueError) as error:
                raise _damaged(member.name, error, f"rows from {done + 1}") from error
            lines = range(done + 1, done + 1 + batch.num_rows)
            done += batch.num_rows
            text = functools.partial(_text, batch)
            sink.offer(Chunk(columns, batch.num_rows, learnable=False, lines=lines, text=text))


def common_kind(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The type that holds two files' values without loss; None where there is none that is plain."""
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    whole = [pa.types.is_integer(kind) and not pa.types.is_uint64(kind) for kind in (first, second)]
    if all(whole):
        return pa.int64()
    if pa.types.is_floating(first) and pa.types.is_floating(second):
        return pa.float64()
    return None


def _open(raw: Any, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(raw)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(name, error, None) from error


def _schema(file: pq.ParquetFile, name: str) -> Schema:
    schema = file.schema_arrow
    twice = sorted({column for column in schema.names if schema.names.count(column) > 1})
    if twice:
        raise DataError("columns with the same name", where=name, allowed="different names", received=twice)
    return {field.name: pa.null() if pa.types.is_null(field.type) else normalize(field.type) for field in schema}


def _flat(values: pa.Array) -> pa.Array:
    kind = normalize(values.type)
    if pa.types.is_nested(values.type):
        texts = (None if value is None else _json(value) for value in values.to_pylist())
        return pa.array(texts, pa.string())
    return values if values.type == kind else values.cast(kind)


def _text(batch: pa.RecordBatch, at: int) -> str:
    return _json(batch.slice(at, 1).to_pylist()[0])[:KEPT_TEXT]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _damaged(name: str, error: Exception, where: str | None) -> DataError:
    return DataError(
        "a Parquet file that is damaged or cut short",
        where=f"{name}, {where}" if where else name,
        allowed="a whole Parquet file",
        received=" ".join(str(error).split()),
    )
