"""A table's columns as TFDV takes them: every value a list, of integers, fractions or texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.tables import type_name

_SECONDS = pa.timestamp("s")


def check_types(schema: pa.Schema, names: Sequence[str]) -> None:
    """Refuses columns that TFDV has no statistics for.

    Raises:
        InputError: Naming the first of them.
    """
    for name in names:
        kind = _target(_values_type(schema.field(name).type))
        if kind is None:
            raise InputError(
                "a column that TFDV has no statistics for",
                parameter="columns",
                where=name,
                allowed="numbers, texts, truth values, dates, timestamps, and lists of these",
                received=type_name(schema.field(name).type),
                hint="leave the column out: give `columns`",
            )


def truth_columns(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """The columns of true and false, which TFDV has as 1 and 0 with a domain of their own."""
    return [name for name in names if pa.types.is_boolean(_values_type(schema.field(name).type))]


def as_features(batch: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """The columns as lists; a missing value is a missing list, and none inside a list is left."""
    return pa.RecordBatch.from_arrays([_listed(batch.column(name)) for name in names], names=list(names))


def _listed(column: pa.Array) -> pa.Array:
    from tfx_bsl.arrow import array_util

    if _is_list(column.type):
        lists = column.cast(pa.large_list(_values_type(column.type)))
        values = _converted(lists.flatten())
        lengths = pc.fill_null(pc.list_value_length(lists), 0)
        rebuilt = pa.LargeListArray.from_arrays(_offsets(lengths, column.is_valid()), values)
        return _without_missing_items(rebuilt)
    return array_util.ToSingletonListArray(_converted(column))


def _offsets(lengths: pa.Array, valid: pa.Array) -> pa.Array:
    import numpy as np

    ends = np.concatenate([[0], np.cumsum(lengths.to_numpy(zero_copy_only=False))]).astype(np.int64)
    missing = np.concatenate([~valid.to_numpy(zero_copy_only=False), [False]])
    return pa.array(ends, mask=missing)


def _without_missing_items(lists: pa.Array) -> pa.Array:
    if lists.values.null_count == 0:
        return lists
    return pa.array(
        [None if items is None else [item for item in items if item is not None] for items in lists.to_pylist()],
        type=lists.type,
    )


def _converted(values: pa.Array) -> pa.Array:
    """Values as integers, fractions or bytes."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = _target(values.type)
    if pa.types.is_date(values.type):
        values = values.cast(_SECONDS)
    elif pa.types.is_timestamp(values.type):
        # Towards the past, whatever the unit: a cast would refuse to lose the fraction.
        values = pc.cast(values.cast(pa.timestamp(values.type.unit)), _SECONDS, safe=False)
    elif pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    return values.cast(kind)


def _values_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _target(kind: pa.DataType) -> pa.DataType | None:
    """The type that TFDV gets; None where it has none."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    checks: list[tuple[Any, pa.DataType]] = [
        (pa.types.is_null, pa.null()),
        (pa.types.is_boolean, pa.int64()),
        (pa.types.is_uint64, pa.uint64()),
        (pa.types.is_integer, pa.int64()),
        (pa.types.is_floating, pa.float64()),
        (pa.types.is_decimal, pa.float64()),
        (pa.types.is_date, pa.int64()),
        (pa.types.is_timestamp, pa.int64()),
        (pa.types.is_string, pa.large_binary()),
        (pa.types.is_large_string, pa.large_binary()),
        (pa.types.is_binary, pa.large_binary()),
        (pa.types.is_large_binary, pa.large_binary()),
    ]
    return next((target for is_kind, target in checks if is_kind(kind)), None)
