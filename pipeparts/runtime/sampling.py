"""A sample of a table: the same rows whatever their order, in two passes and bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.hashing import Hashes, batch_hashes
from pipeparts.runtime.profiling import batch_rows
from pipeparts.runtime.tables import Table

_MOST_BUCKETS_LOG2 = 22
_COMPACT_ROWS = 65_536


def sample_table(table: Table, rows: int, columns: Sequence[str] | None = None) -> pa.Table:
    """A uniform sample: every n-th row in the order of the hashes of the rows' content.

    That order is as good as random for rows that differ. Equal rows lie together in it, so each content keeps its
    share to within one row of the sample: a table of few distinct rows is sampled as fairly as one of many.

    Memory: twelve bytes for each row of the table up to 50 MB, then the sample and, for tables of more than four
    million rows, a multiple of it that grows with the table: one row more in the sample's place for each four million.

    Args:
        table: The table.
        rows: Most rows wanted; a table of no more is taken whole.
        columns: The columns wanted, in this order, and the only ones that the choice looks at; all where None.

    Returns:
        At most `rows` rows in the order of their hashes: equal for tables that differ in the order of rows alone.

    Raises:
        InputError: Where `rows` is less than 1, or a column is not there.
        ContractError: For a table that is damaged.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InputError("not a size of a sample", parameter="rows", allowed="a whole number from 1", received=rows)
    names = list(table.schema.names if columns is None else columns)
    table.require(names, parameter="columns")
    schema = pa.schema([table.schema.field(name) for name in names])
    if table.rows == 0 or not names:
        return schema.empty_table()
    if table.rows <= rows:
        kept = _Kept(schema)
        for batch in _batches(table, schema):
            kept.add(batch, batch_hashes(batch))
        return kept.take(np.arange(table.rows))
    return _sample(table, rows, schema)


def _sample(table: Table, rows: int, schema: pa.Schema) -> pa.Table:
    bits = min(table.rows.bit_length(), _MOST_BUCKETS_LOG2)
    shift = np.uint64(64 - bits)
    counts = np.zeros(1 << bits, dtype=np.uint32 if table.rows < 1 << 32 else np.uint64)
    for batch in _batches(table, schema):
        np.add.at(counts, batch_hashes(batch) >> shift, 1)
    wanted, places = _find(counts, _evenly(table.rows, rows))
    del counts
    kept = _Kept(schema)
    for batch in _batches(table, schema):
        hashes = batch_hashes(batch)
        chosen = wanted[hashes >> shift]
        if chosen.any():
            kept.add(batch.filter(pa.array(chosen)), hashes[chosen])
    return kept.take(places)


def _find(
    counts: npt.NDArray[Any], places: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """The buckets in which places lie, a flag for each, and the places where only the rows of these are counted."""
    ends = np.cumsum(counts, dtype=np.int64)
    buckets, which = np.unique(np.searchsorted(ends, places, side="right"), return_inverse=True)
    wanted = np.zeros(len(counts), dtype=np.bool_)
    wanted[buckets] = True
    rows = counts[buckets].astype(np.int64)
    return wanted, places - (ends[buckets] - np.cumsum(rows))[which]


def _batches(table: Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in table.batches(schema.names, batch_rows=batch_rows(table)):
        yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)  # Parquet's own metadata stay behind


def _evenly(total: int, rows: int) -> npt.NDArray[np.int64]:
    """`rows` places from 0 to total - 1, each in the middle of its share."""
    return np.array([(2 * i + 1) * total // (2 * rows) for i in range(rows)], dtype=np.int64)


class _Kept:
    """Rows by their hash: one of each content, and how many there are."""

    def __init__(self, schema: pa.Schema) -> None:
        self._rows = schema.empty_table()
        self._hashes: Hashes = np.empty(0, dtype=np.uint64)
        self._counts: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._new: list[tuple[pa.RecordBatch, Hashes]] = []
        self._new_rows = 0

    def add(self, batch: pa.RecordBatch, hashes: Hashes) -> None:
        self._new.append((batch, hashes))
        self._new_rows += batch.num_rows
        if self._new_rows >= max(_COMPACT_ROWS, len(self._hashes)):
            self._compact()

    def take(self, places: npt.NDArray[np.int64]) -> pa.Table:
        """The rows at places in the order of the hashes, equal rows counted each."""
        self._compact()
        return self._rows.take(np.searchsorted(np.cumsum(self._counts), places, side="right")).combine_chunks()

    def _compact(self) -> None:
        if not self._new:
            return
        rows = pa.concat_tables([self._rows, *(pa.Table.from_batches([batch]) for batch, _ in self._new)])
        hashes = np.concatenate([self._hashes, *(hashes for _, hashes in self._new)])
        counts = np.concatenate([self._counts, np.ones(self._new_rows, dtype=np.int64)])
        self._hashes, first, group = np.unique(hashes, return_index=True, return_inverse=True)
        self._counts = np.bincount(group, counts, minlength=len(self._hashes)).astype(np.int64)
        self._rows = rows.take(first).combine_chunks()
        self._new, self._new_rows = [], 0
