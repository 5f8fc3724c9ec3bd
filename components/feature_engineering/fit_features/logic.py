"""The work of `fit_features`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeparts.components.feature_engineering.fit_features import declared, fitting
from pipeparts.runtime.errors import DataError, InputError, suggest
from pipeparts.runtime.files import write_json
from pipeparts.runtime.serving.transform import Transform, TransformError
from pipeparts.runtime.serving.values import NUMBER_TYPES, TIME_TYPES, canonical
from pipeparts.runtime.tables import Table

logger = logging.getLogger(__name__)

#: The types of a raw column that each kind takes.
TYPES_OF_KIND: dict[str, tuple[str, ...]] = {
    "numeric": NUMBER_TYPES,
    "bucketize": NUMBER_TYPES,
    "category": ("string", *NUMBER_TYPES),
    "time": TIME_TYPES,
}
_KIND_OF_TYPE = {"string": "category", **dict.fromkeys(NUMBER_TYPES, "numeric"), **dict.fromkeys(TIME_TYPES, "time")}

_ROWS_A_PROGRESS_LINE = 2_000_000


def fit_features(
    *,
    table_path: str | os.PathLike[str],
    transform_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    features: Mapping[str, Any],
    label: str = "",
) -> dict[str, Any]:
    """Fits a declared feature set on a table, in one pass and bounded memory.

    Args:
        table_path: The table's folder.
        transform_path: Where the transform's JSON file appears.
        page_path: Where the page appears.
        features: Name of the feature to its declaration (`declared.py` says what may be in it).
        label: The column to be predicted; empty: none.

    Returns:
        The transform's metadata: counts, names, fingerprint.

    Raises:
        InputError: For a declaration that is not allowed, a column that is not there or does not fit the kind,
            or a label among the features.
        DataError: For a table without rows, or a category with too many values to count.
    """
    wanted = declared.parse_features(features)
    table = Table(table_path)
    columns = _raw_columns(wanted, table, label)
    if table.rows == 0:
        raise DataError("no rows to fit features on", where=str(table_path), allowed="one row at least", received="0")
    transform = learn(table.batches(list(columns)), columns, wanted, rows=table.rows)
    from pipeparts.components.feature_engineering.fit_features.report import write_page

    write_json(transform_path, transform.as_dict())
    write_page(page_path, transform, table, label)
    logger.info(
        "fitted %d features from %d columns on %s rows: %d numbers and %d ids a row",
        len(wanted), len(columns), f"{table.rows:,}", len(transform.numeric_names), len(transform.category_names),
    )  # fmt: skip
    return {
        "fingerprint": transform.fingerprint,
        "rows": table.rows,
        "table_fingerprint": table.info.fingerprint,
        "raw_columns": transform.columns,
        "numeric_features": len(transform.numeric_names),
        "category_features": dict(zip(transform.category_names, transform.category_sizes, strict=True)),
    }


def learn(
    batches: Iterable[pa.RecordBatch], columns: Mapping[str, str], wanted: Mapping[str, declared.Declared], *, rows: int
) -> Transform:
    """Fits features on a stream of batches.

    Args:
        batches: Record batches with the raw columns, in their order.
        columns: The raw columns, name to type name.
        wanted: The declared features.
        rows: How many rows will come, for the lines of progress.

    Returns:
        The fitted transform.
    """
    fits = [
        fitting.start_fit(name, declaration, [columns[column] for column in declaration.raw_columns(name)])
        for name, declaration in wanted.items()
    ]
    seen = reported = 0
    for batch in batches:
        raw = {
            name: canonical(batch.column(place), type_name, column=name)
            for place, (name, type_name) in enumerate(columns.items())
        }
        for fit in fits:
            fit.update([raw[column] for column in fit.columns])
        _check_memory(fits)
        seen += batch.num_rows
        if seen - reported >= _ROWS_A_PROGRESS_LINE:
            logger.info("read %s of %s rows", f"{seen:,}", f"{rows:,}")
            reported = seen
    return _finish(columns, fits)


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


def _raw_columns(wanted: Mapping[str, declared.Declared], table: Table, label: str) -> dict[str, str]:
    """The raw columns that the features need, with their types, in the order of their names."""
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


def _check_memory(fits: Sequence[fitting.Fit]) -> None:
    if sum(fit.bytes for fit in fits) <= fitting.MOST_BYTES:
        return
    largest = max(fits, key=lambda fit: fit.bytes)
    raise DataError(
        "too many different values to count",
        where=f"features.{largest.name}, column {', '.join(largest.columns)}",
        allowed=f"vocabularies that are counted in {fitting.MOST_BYTES // 1_000_000} MB together: "
        "about 1.2 million short values",
        received=f"{sum(fit.bytes for fit in fits) // 1_000_000} MB, of which {largest.bytes // 1_000_000} MB here",
        hint="encode: hash needs no vocabulary",
    )


def _finish(columns: Mapping[str, str], fits: Sequence[fitting.Fit]) -> Transform:
    finished = [fit.finish() for fit in fits]
    statistics = {feature.name: found for feature, found in finished}
    for name, found in statistics.items():
        if found["missing"] == found["rows"]:
            logger.warning("feature %s: every value is missing", name)
        elif found.get("varies") is False and found["scale"] != "none":
            logger.warning("feature %s: the values do not vary, so it is always 0", name)
        elif found.get("vocabulary") == 0 and found["distinct"] is not None:
            logger.warning("feature %s: no value is seen often enough for the vocabulary", name)
        if found["infinite"]:
            logger.warning("feature %s: %d infinite values count as missing", name, found["infinite"])
    try:
        return Transform(columns, [feature for feature, _ in finished], statistics)
    except TransformError as error:
        raise InputError(error.headline, parameter="features", **error.facts) from None
