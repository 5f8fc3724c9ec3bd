"""Which raw columns a declared feature set takes, held against a table."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.feature_fitting import declared
from pipeparts.runtime.serving.values import NUMBER_TYPES, TIME_TYPES
from pipeparts.runtime.tables import Table

#: The types of a raw column that each kind takes.
TYPES_OF_KIND: dict[str, tuple[str, ...]] = {
    "numeric": NUMBER_TYPES,
    "bucketize": NUMBER_TYPES,
    "category": ("string", *NUMBER_TYPES),
    "time": TIME_TYPES,
}
_KIND_OF_TYPE = {"string": "category", **dict.fromkeys(NUMBER_TYPES, "numeric"), **dict.fromkeys(TIME_TYPES, "time")}


def raw_type(kind: pa.DataType) -> str | None:
    """The type name that a transform has for an Arrow type, or None where it takes no such columns."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value):
        return "string"
    if pa.types.is_boolean(value):
        return "bool"
    if pa.types.is_integer(value):
        return "int64"
    if pa.types.is_floating(value) or pa.types.is_decimal(value):
        return "float64"
    if pa.types.is_date(value):
        return "date"
    if pa.types.is_timestamp(value):
        return "timestamp" if value.tz is None else "timestamp_utc"
    return None


def raw_columns(wanted: Mapping[str, declared.Declared], table: Table, label: str) -> dict[str, str]:
    """The raw columns that the features need, with their types, in the order of their names.

    Raises:
        InputError: For a column that is not there or does not fit the kind, or a label among the features.
    """
    if label:
        table.require([label], parameter="label")
    columns: dict[str, str] = {}
    for name, declaration in wanted.items():
        for column in declaration.raw_columns(name):
            parameter = f"features.{name}"
            if label and column == label:
                raise InputError(
                    "the label is among the features: a model would learn to copy it",
                    parameter=parameter,
                    allowed=f"any column but {label!r}",
                    received=column,
                )
            _require_column(table, column, label, parameter)
            columns[column] = _fitting_type(declaration.kind, column, table, parameter)
    return dict(sorted(columns.items()))


def _require_column(table: Table, column: str, label: str, parameter: str) -> None:
    allowed = [name for name in table.schema.names if name != label]
    if column not in allowed:
        raise InputError(
            "the table has no such column",
            parameter=parameter,
            where=str(table.path),
            allowed=allowed,
            received=column,
            hint=suggest(column, allowed) or "`column` names the raw column of a feature of another name",
        )


def _fitting_type(kind: str, column: str, table: Table, parameter: str) -> str:
    arrow = table.schema.field(column).type
    found = raw_type(arrow)
    if found in TYPES_OF_KIND[kind]:
        assert found is not None
        return found
    hint = None
    if found is not None:
        hint = f"kind: {_KIND_OF_TYPE[found]} takes {found}"
        if found == "string":
            hint += "; or give the column another type where it is ingested"
    raise InputError(
        "a kind of feature that does not fit the column's type",
        parameter=f"{parameter}.kind",
        where=f"column {column!r}",
        allowed=f"kind: {kind} takes {', '.join(TYPES_OF_KIND[kind])}",
        received=found or str(arrow),
        hint=hint,
    )
