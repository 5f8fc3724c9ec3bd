"""The rows of both sides that people look at in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.components.monitoring.report_drift.references import Reference
from pipeparts.runtime.monitoring import ColumnDrift
from pipeparts.runtime.profiles import ColumnProfile, Profile, order_statistics
from pipeparts.runtime.sampling import sample_table
from pipeparts.runtime.tables import Table

if TYPE_CHECKING:
    import pandas as pd


def sample_frames(
    reference: Reference, current: Table, predictions: Table | None, columns: Sequence[ColumnDrift], rows: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples both sides: numbers as float64, categories as texts, missing values as pandas has them.

    Features and predictions are drawn apart, and stand side by side without belonging to one row.

    Args:
        reference: What was compared with.
        current: The current table.
        predictions: The predictions, where they were compared.
        columns: The compared columns; vectors and unsupported ones are left out.
        rows: Most rows of each side.

    Returns:
        The reference's rows and the current ones.
    """
    compared = [column for column in columns if column.kind in ("number", "category")]
    apart = [column.name for column in compared if column.role == "prediction" and predictions is not None]
    together = [column.name for column in compared if column.name not in apart]
    kinds = {column.name: column.kind for column in compared}
    sides = [(_of_reference(reference, together, rows), sample_table(current, rows, together))]
    if predictions is not None and apart:
        sides.append((_of_predictions(reference, apart, rows), sample_table(predictions, rows, apart)))
    return _frame([theirs for theirs, _ in sides], kinds), _frame([mine for _, mine in sides], kinds)


def _of_reference(reference: Reference, names: Sequence[str], rows: int) -> pa.Table:
    if reference.table is not None:
        return sample_table(reference.table, rows, names)
    assert reference.profile is not None
    return _kept(reference.sample, reference.profile, names, rows)


def _of_predictions(reference: Reference, names: Sequence[str], rows: int) -> pa.Table:
    if reference.table is not None:
        return sample_table(reference.table, rows, names)
    assert reference.predictions is not None
    return _kept(reference.prediction_sample, reference.predictions, names, rows)


def _kept(sample: pa.Table | None, profile: Profile, names: Sequence[str], rows: int) -> pa.Table:
    """Rows of the sample that travels with a model; a column that it does not have is made from its profile."""
    count = min(rows, profile.rows)
    taken: dict[str, pa.Array] = {}
    if sample is not None and sample.num_rows:
        count = min(rows, sample.num_rows)
        # Evenly over a sample that is in the order of hashes: again a sample.
        places = (2 * np.arange(count) + 1) * sample.num_rows // (2 * count)
        taken = {name: sample[name].take(pa.array(places)) for name in names if name in sample.schema.names}
    return pa.table(
        {name: taken[name] if name in taken else from_profile(profile.column(name), count) for name in names}
    )


def from_profile(column: ColumnProfile, rows: int) -> pa.Array:
    """A column of so many values that is distributed as its profile says, values that it does not list left out."""
    total = column.count + column.missing
    nan = column.numbers.nan if column.numbers is not None else 0
    there = rows - round(rows * (column.missing + nan) / total) if total else 0
    values: list[Any]
    if column.histogram is not None and column.histogram.total:
        lower, upper = column.histogram.bounds()
        counts = np.array(column.histogram.counts, np.int64)
        ranks = (np.arange(there) + 0.5) / max(1, there) * column.histogram.total - 0.5
        values = order_statistics(lower, upper, counts, np.maximum(0.0, ranks)).tolist()
        if column.histogram.exact and column.type.startswith(("int", "uint")):
            values = [int(value) for value in values]
    elif column.top is not None and column.top.values:
        weights = np.array([item.count for item in column.top.values], np.int64)
        places = np.searchsorted(np.cumsum(weights), (np.arange(there) + 0.5) / max(1, there) * weights.sum())
        values = [column.top.values[place].value for place in places]
    else:
        values = [None] * there
    return pa.array([*values, *[None] * (rows - there)])


def _frame(parts: Sequence[pa.Table], kinds: Mapping[str, str]) -> pd.DataFrame:
    rows = min(part.num_rows for part in parts)
    columns: dict[str, Any] = {}
    for part in parts:
        for name in part.schema.names:
            columns[name] = (_as_text if kinds[name] == "category" else _as_number)(part[name].slice(0, rows))
    frame: pd.DataFrame = pa.table(columns).to_pandas()
    return frame


def _as_number(values: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = values.type
    if pa.types.is_date(kind):
        values = values.cast(pa.date32()).cast(pa.int32())
    elif pa.types.is_time32(kind):
        values = values.cast(pa.int32())
    elif pa.types.is_temporal(kind):
        values = values.cast(pa.int64())
    return values.cast(pa.float64(), safe=False)


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as they are written, the same for a whole number whether it is an integer or a float."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        whole = pc.equal(values, pc.floor(values))
        return pc.if_else(whole, values.cast(pa.int64(), safe=False).cast(pa.string()), values.cast(pa.string()))
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return pa.chunked_array([[None if value is None else f"0x{value.hex()}" for value in values.to_pylist()]])
    return values.cast(pa.string())
