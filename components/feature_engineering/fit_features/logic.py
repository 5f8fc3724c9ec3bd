"""The work of `fit_features`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeparts.runtime.errors import DataError
from pipeparts.runtime.feature_fitting import declared, fitting
from pipeparts.runtime.feature_fitting.columns import raw_columns
from pipeparts.runtime.files import write_json
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.serving.values import canonical
from pipeparts.runtime.tables import Table

logger = logging.getLogger(__name__)

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
        features: Name of the feature to its declaration; `pipeparts.runtime.feature_fitting.declared` says what may
            be in it.
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
    columns = raw_columns(wanted, table, label)
    if table.rows == 0:
        raise DataError("no rows to fit features on", where=str(table_path), allowed="one row at least", received="0")
    transform = learn(table.batches(list(columns)), columns, wanted, rows=table.rows)
    from pipeparts.runtime.feature_fitting.report import write_page

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
    return fitting.assemble(columns, [fit.finish() for fit in fits])


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
