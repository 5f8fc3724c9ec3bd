"""The join of predictions with the labels that arrive later: by keys, with 40 bytes of memory a row.

Rows meet by two independent 64-bit hashes of their keys, sorted by the first; the second tells a real match from a
collision. Where a collision does show, everything is hashed again with another salt, so that a match is wrong only
where 128 bits collide (for 5 against 5 million rows one in 10**25). Columns that are not keys are never in memory here.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.errors import ContractError, DataError, InputError, suggest
from pipeparts.runtime.hashing import Hashes, combine, hash_array
from pipeparts.runtime.tables import Table, type_name

logger = logging.getLogger(__name__)

Rows = npt.NDArray[np.int32]

_SAMPLES = 5
_ATTEMPTS = 4
_MOST_ROWS = 2**31 - 2
# The order of these units is that of their fineness.
_UNITS = ("s", "ms", "us", "ns")


@dataclasses.dataclass(frozen=True)
class Match:
    """Which row of the labels belongs to each row of the predictions.

    Attributes:
        rows: For each row of the predictions the row of the labels, or -1.
        predictions_without_key: Rows of the predictions with a key that is null; they match nothing.
        labels_without_key: The same of the labels.
    """

    rows: Rows
    predictions_without_key: int
    labels_without_key: int


def match_rows(predictions: Table, labels: Table, keys: Sequence[str]) -> Match:
    """Matches the rows of two tables by keys; each key has to be there once at most on each side.

    Args:
        predictions: The table of n predictions.
        labels: The table of m labels.
        keys: Columns that both have; their types may differ in width, unit or encoding, not in kind.

    Returns:
        The match, whatever the order of the rows.

    Raises:
        InputError: For a key that a table does not have.
        ContractError: For a key whose types do not go together.
        DataError: For a key that occurs more than once, with samples.
    """
    kinds = key_types(predictions, labels, keys)
    for table in (predictions, labels):
        if table.rows > _MOST_ROWS:
            raise DataError(
                "too many rows to join", where=str(table.path), allowed=f"{_MOST_ROWS:,}", received=f"{table.rows:,}"
            )
    for attempt in range(_ATTEMPTS):
        left = _hashed(predictions, kinds, attempt)
        right = _hashed(labels, kinds, attempt)
        if left.collides or right.collides:
            continue
        for table, side, what in ((predictions, left, "predictions"), (labels, right, "labels")):
            _check_unique(table, side, kinds, what)
        rows = _meet(left, right)
        if rows is not None:
            logger.info("%s of %s predictions have a row of labels", f"{int((rows >= 0).sum()):,}", f"{len(rows):,}")
            return Match(rows, predictions.rows - len(left.rows), labels.rows - len(right.rows))
    raise DataError("the keys' hashes collide again and again", where=str(predictions.path), received=list(keys))


def key_types(predictions: Table, labels: Table, keys: Sequence[str]) -> dict[str, pa.DataType]:
    """The type in which each key of two tables is compared.

    Raises:
        InputError: For a key that a table does not have.
        ContractError: For types that do not go together.
    """
    kinds = {}
    for name in keys:
        for table in (predictions, labels):
            if name not in table.schema.names:
                both = [column for column in predictions.schema.names if column in labels.schema.names]
                raise InputError(
                    f"a key that the table of {'predictions' if table is predictions else 'labels'} does not have",
                    parameter="keys",
                    where=str(table.path),
                    allowed=both or "a column of both tables; they have none in common",
                    received=name,
                    hint=suggest(name, both),
                )
        one, other = predictions.schema.field(name).type, labels.schema.field(name).type
        common = _common_type(_plain(one), _plain(other))
        if common is None:
            raise ContractError(
                "a key of different types",
                where=f"column {name} of {predictions.path} and of {labels.path}",
                allowed="the same kind on both sides (integers, text, times, dates, decimals), whatever the width",
                received=f"{type_name(one)} in the predictions, {type_name(other)} in the labels",
                hint="ingest_files takes the type of a column: columns: {" + name + ": string}",
            )
        kinds[name] = common
    return kinds


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds what both hold, or None where they are of different kinds."""
    types = pa.types
    both = (one, other)
    if all(types.is_integer(kind) for kind in both):
        # An unsigned and a signed number of 64 bits have different ranges: only a decimal holds both.
        mixed = {types.is_unsigned_integer(kind) for kind in both} == {True, False}
        wide = mixed and pa.uint64() in both
        return (
            pa.decimal128(20, 0) if wide else pa.uint64() if all(map(types.is_unsigned_integer, both)) else pa.int64()
        )
    if all(_is_text(kind) for kind in both):
        return pa.large_string()
    if all(_is_binary(kind) for kind in both):
        return pa.large_binary()
    if all(types.is_timestamp(kind) for kind in both):
        # A time without a zone is in UTC, as everywhere in this library.
        return pa.timestamp(max((kind.unit for kind in both), key=_UNITS.index), tz="UTC")
    if all(types.is_date(kind) for kind in both):
        return pa.date32()
    if all(types.is_decimal(kind) for kind in both):
        scale = max(kind.scale for kind in both)
        whole = max(kind.precision - kind.scale for kind in both)
        return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else pa.decimal256(whole + scale, scale)
    if all(types.is_floating(kind) for kind in both):
        return pa.float64()
    if all(types.is_boolean(kind) for kind in both):
        return pa.bool_()
    return one if one.equals(other) and types.is_time(one) else None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


@dataclasses.dataclass
class _Hashed:
    """The rows of a table that have keys, sorted by the first hash of these.

    Attributes:
        first: The first hashes, rising.
        second: The second hash of each.
        rows: Which row of the table each is.
        total: Rows of the table.
    """

    first: Hashes
    second: Hashes
    rows: Rows
    total: int

    @property
    def collides(self) -> bool:
        """Whether different keys have the same first hash."""
        same = self.first[1:] == self.first[:-1]
        return bool((self.second[1:][same] != self.second[:-1][same]).any())


def _hashed(table: Table, kinds: dict[str, pa.DataType], attempt: int) -> _Hashed:
    first, second = np.empty(table.rows, np.uint64), np.empty(table.rows, np.uint64)
    rows = np.empty(table.rows, np.int32)
    count = seen = 0
    for batch in _key_batches(table, kinds):
        present = _present(batch)
        here = int(present.sum())
        kept = batch if here == batch.num_rows else batch.filter(pa.array(present))
        place = slice(count, count + here)
        first[place], second[place] = _hash_keys(kept, 2 * attempt), _hash_keys(kept, 2 * attempt + 1)
        rows[place] = seen + np.flatnonzero(present)
        count, seen = count + here, seen + batch.num_rows
    order = np.argsort(first[:count])
    return _Hashed(first[order], second[order], rows[order], table.rows)


def _key_batches(table: Table, kinds: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """The keys of a table in the types in which they are compared."""
    for batch in table.batches(list(kinds)):
        columns = []
        for name, kind in kinds.items():
            column = batch.column(name)
            try:
                columns.append(column.cast(_plain(column.type)).cast(kind))
            except pa.ArrowException as error:
                raise DataError(
                    "a key outside the range of its type",
                    where=f"column {name} of {table.path}",
                    allowed=type_name(kind),
                    received=str(error),
                ) from error
        yield pa.RecordBatch.from_arrays(columns, names=list(kinds))


def _present(batch: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Whether a row has all of its keys."""
    present = np.ones(batch.num_rows, dtype=bool)
    for column in batch.columns:
        if column.null_count:
            present &= pc.is_valid(column).to_numpy(zero_copy_only=False)
        if pa.types.is_floating(column.type):
            present &= ~pc.fill_null(pc.is_nan(column), True).to_numpy(zero_copy_only=False)
    return present


def _hash_keys(batch: pa.RecordBatch, salt: int) -> Hashes:
    # Each key has its place in the sum of salts, so that (1, 2) is not (2, 1).
    return combine([hash_array(column, salt * 1_000 + place) for place, column in enumerate(batch.columns)])


def _meet(left: _Hashed, right: _Hashed) -> Rows | None:
    """The row of the right for each row of the left, or -1; None where different keys have the same first hash."""
    found = np.full(left.total, -1, dtype=np.int32)
    if not len(right.rows) or not len(left.rows):
        return found
    places = np.searchsorted(right.first, left.first)
    np.minimum(places, len(right.rows) - 1, out=places)
    same = right.first[places] == left.first
    if (right.second[places[same]] != left.second[same]).any():
        return None
    found[left.rows[same]] = right.rows[places[same]]
    return found


def _check_unique(table: Table, side: _Hashed, kinds: dict[str, pa.DataType], what: str) -> None:
    same = side.first[1:] == side.first[:-1]
    if not same.any():
        return
    repeated = np.append(same, False) | np.insert(same, 0, False)
    hashes, rows = side.first[repeated], side.rows[repeated]
    starts = np.flatnonzero(np.insert(hashes[1:] != hashes[:-1], 0, True))
    times = np.diff(np.append(starts, len(rows)))
    # The first rows of the table that are not alone, whatever the order of their hashes.
    earliest = np.minimum.reduceat(rows, starts)
    shown = np.argsort(earliest)[:_SAMPLES]
    samples = _values_of(table, kinds, set(earliest[shown].tolist()))
    raise DataError(
        f"keys that occur more than once in the table of {what}",
        where=f"{', '.join(kinds)} of {table.path}",
        allowed="each key once at most",
        received=f"{len(starts):,} repeated key{'s' if len(starts) > 1 else ''} in {len(rows):,} rows: "
        + "; ".join(f"{samples[int(earliest[i])]} ({times[i]} times)" for i in shown),
        hint="leave the rows out that are there twice, or give more keys",
    )


def _values_of(table: Table, kinds: dict[str, pa.DataType], rows: set[int]) -> dict[int, str]:
    """The keys of a few rows, as people read them."""
    texts: dict[int, str] = {}
    seen = 0
    for batch in table.batches(list(kinds)):
        for row in sorted(row for row in rows if seen <= row < seen + batch.num_rows):
            values: dict[str, Any] = {name: batch.column(name)[row - seen].as_py() for name in kinds}
            texts[row] = ", ".join(f"{name} = {value}" for name, value in values.items())
        seen += batch.num_rows
    return texts
