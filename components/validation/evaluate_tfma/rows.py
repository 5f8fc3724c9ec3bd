"""The rows as TFMA takes them: label, prediction and slices of both tables, in one Parquet file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.tables import Table

LABEL, CANDIDATE, BASELINE = "label", "candidate", "baseline"
#: Before the name of a column that is sliced by.
SLICE_PREFIX = "slice_"
_BATCH_ROWS = 65_536
_EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which columns hold what.

    Attributes:
        label: The label's column.
        score: The column with the prediction.
        classes: The label's two values, the positive one last; empty for a regression.
        slices: The columns that are sliced by.
        keys: The columns that name a row.
    """

    label: str
    score: str
    classes: tuple[Any, ...]
    slices: tuple[str, ...]
    keys: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """All of them, once."""
        return list(dict.fromkeys([self.label, self.score, *self.slices, *self.keys]))


@dataclasses.dataclass(frozen=True)
class Counts:
    """Rows that were written, and those that were not.

    Attributes:
        written: Rows for TFMA.
        unlabelled: Rows without a label.
        unanswered: Rows with a label that a model has no usable answer for.
    """

    written: int
    unlabelled: int
    unanswered: int


def write_rows(path: Path, layout: Layout, candidate: Table, baseline: Table | None) -> Counts:
    """Writes the rows that have a label and an answer of each model.

    Raises:
        DataError: Where no row is left, a label is none of the classes, or the baseline's rows are others.
    """
    if baseline is not None and baseline.rows != candidate.rows:
        raise DataError(
            "the baseline's predictions are of other rows",
            where=str(baseline.path),
            allowed=f"{candidate.rows:,} rows",
            received=f"{baseline.rows:,} rows",
        )
    if candidate.rows == 0:
        raise DataError("a table without rows", where=str(candidate.path), allowed="one row at least", received="none")
    written = unlabelled = unanswered = start = 0
    writer: pq.ParquetWriter | None = None
    try:
        for ours, theirs in _side_by_side(candidate, baseline, layout):
            if theirs is not None:
                _require_same(ours, theirs, layout, start)
            rows = _rows(ours, theirs, layout, start)
            labelled = rows.filter(rows.column(LABEL).is_valid())
            complete = labelled
            for name in labelled.schema.names:
                if name in (CANDIDATE, BASELINE):
                    complete = complete.filter(complete.column(name).is_valid())
            unlabelled += len(rows) - len(labelled)
            unanswered += len(labelled) - len(complete)
            written += len(complete)
            start += len(rows)
            writer = writer or pq.ParquetWriter(path, rows.schema)
            writer.write_batch(complete)
    finally:
        if writer is not None:
            writer.close()
    if written == 0:
        raise DataError(
            "no row can be measured",
            where=str(candidate.path),
            allowed="one row at least with a label and a prediction",
            received=f"{candidate.rows:,} rows: {unlabelled:,} without a label, {unanswered:,} without a prediction",
        )
    return Counts(written, unlabelled, unanswered)


def _side_by_side(
    candidate: Table, baseline: Table | None, layout: Layout
) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch | None]]:
    """Batches of equal length of both tables: their files may be cut elsewhere."""
    if baseline is None:
        for batch in candidate.batches(layout.columns, batch_rows=_BATCH_ROWS):
            yield batch, None
        return
    names = list(dict.fromkeys([layout.label, layout.score, *layout.keys]))
    theirs = baseline.batches(names, batch_rows=_BATCH_ROWS)
    left: pa.RecordBatch | None = None
    for batch in candidate.batches(layout.columns, batch_rows=_BATCH_ROWS):
        place = 0
        while place < len(batch):
            left = left if left is not None and len(left) else next(theirs)
            count = min(len(batch) - place, len(left))
            yield batch.slice(place, count), left.slice(0, count)
            left, place = left.slice(count), place + count


def _require_same(ours: pa.RecordBatch, theirs: pa.RecordBatch, layout: Layout, start: int) -> None:
    for name in (layout.label, *layout.keys):
        one, other = ours.column(name), theirs.column(name)
        if one.equals(other):
            continue
        differs = [a != b for a, b in zip(one.to_pylist(), other.to_pylist(), strict=True)]
        row = differs.index(True) if True in differs else 0
        raise DataError(
            "the baseline's predictions are of other rows, or in another order",
            where=f"{name}, row {start + row + 1:,}",
            allowed=repr(one[row].as_py()),
            received=repr(other[row].as_py()),
        )


def _rows(ours: pa.RecordBatch, theirs: pa.RecordBatch | None, layout: Layout, start: int) -> pa.RecordBatch:
    columns = {LABEL: _labels(ours.column(layout.label), layout, start), CANDIDATE: _scores(ours, layout)}
    if theirs is not None:
        columns[BASELINE] = _scores(theirs, layout)
    for name in layout.slices:
        columns[f"{SLICE_PREFIX}{name}"] = _texts(ours.column(name))
    return pa.RecordBatch.from_pydict(columns)


def _labels(values: pa.Array, layout: Layout, start: int) -> pa.Array:
    """The label as a number: 1 for the positive class."""
    if not layout.classes:
        return _usable(values.cast(pa.float64(), safe=False))
    codes = pc.index_in(values.cast(pa.string()), value_set=pa.array([_text(value) for value in layout.classes]))
    wrong = pc.and_(values.is_valid(), codes.is_null())
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise DataError(
            "a label that is none of the classes",
            where=f"{layout.label}, row {start + row + 1:,}",
            allowed=[str(value) for value in layout.classes],
            received=repr(values[row].as_py()),
            hint="give `classes`, the positive one last",
        )
    return codes.cast(pa.float64())


def _scores(batch: pa.RecordBatch, layout: Layout) -> pa.Array:
    scores = _usable(batch.column(layout.score).cast(pa.float64(), safe=False))
    return _probabilities(scores) if layout.classes else scores


def _usable(values: pa.Array) -> pa.Array:
    """NaN and infinities as missing."""
    return pc.if_else(pc.fill_null(pc.is_finite(values), False), values, None)


def _probabilities(values: pa.Array) -> pa.Array:
    """Numbers outside 0 to 1 as missing, and its ends moved inside as Keras does: a logarithm of 0 is none."""
    inside = pc.and_(pc.greater_equal(values, 0.0), pc.less_equal(values, 1.0))
    clipped = pc.max_element_wise(
        pc.min_element_wise(values, 1.0 - _EPSILON, skip_nulls=False), _EPSILON, skip_nulls=False
    )
    return pc.if_else(pc.fill_null(inside, False), clipped, None)


def _texts(values: pa.Array) -> pa.Array:
    """A slice's values as texts: TFMA would take numbers for those of one kind alone."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return pc.fill_null(values.cast(pa.string()), "(missing)")


def _text(value: Any) -> str:
    """A class as Arrow writes a value of its kind; KFP gives every number as a double."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def require_number(table: Table, name: str, *, parameter: str) -> None:
    """Refuses a prediction that is no number."""
    table.require([name], parameter=parameter)
    kind = table.schema.field(name).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise InputError(
            "a prediction that is no number", parameter=parameter, where=name, allowed="numbers", received=str(kind)
        )
