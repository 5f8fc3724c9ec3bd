"""What needs the rows themselves: the rows that break a rule, and values that occur twice."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeparts.runtime.hashing import Hashes, hash_array, row_hashes
from pipeparts.runtime.profiling import batch_rows, kind_of, plain_values, without_view
from pipeparts.runtime.tables import Table

logger = logging.getLogger(__name__)

SAMPLES = 5

# Hashes that are held at a time (64 MB): a larger table is read several times, for one part of the hashes each.
_HASHES_AT_ONCE = 8_000_000
# Values that occur twice are compared in full up to these numbers; beyond them their hashes speak for them.
_SUSPECTS = 2_000
_SUSPECT_ROWS = 20_000
_LONGEST_SAMPLE = 200


@dataclasses.dataclass(frozen=True)
class RowRule:
    """A rule that each row meets or breaks.

    Attributes:
        column: The column it is about.
        breaks: Gives true for each value of a batch that breaks it.
    """

    column: str
    breaks: Callable[[pa.Array], pa.Array]


@dataclasses.dataclass(frozen=True)
class Found:
    """The rows that were found.

    Attributes:
        count: How many.
        samples: The first few: row number (from 1), the value, and the table's key.
    """

    count: int
    samples: tuple[dict[str, Any], ...]


def find_rows(table: Table, rules: Mapping[str, RowRule], *, key: Sequence[str]) -> dict[str, Found]:
    """Finds the rows that break rules, in one pass over the columns concerned.

    Args:
        table: The table.
        rules: Name to rule.
        key: Columns whose values help to find a row again; they come with each sample.

    Returns:
        Name to the rows found.
    """
    if not rules:
        return {}
    columns = list(dict.fromkeys([*(rule.column for rule in rules.values()), *key]))
    logger.info("looking through %s rows of %s", f"{table.rows:,}", ", ".join(columns))
    counts = dict.fromkeys(rules, 0)
    samples: dict[str, list[dict[str, Any]]] = {name: [] for name in rules}
    first = 1
    for batch in table.batches(columns, batch_rows=batch_rows(table)):
        for name, rule in rules.items():
            places = np.flatnonzero(rule.breaks(decoded(batch.column(rule.column))).to_numpy(zero_copy_only=False))
            counts[name] += len(places)
            shown = [rule.column, *(column for column in key if column != rule.column)]
            for place in places[: SAMPLES - len(samples[name])].tolist():
                samples[name].append({"row": first + place, **_values(batch, place, shown)})
        first += batch.num_rows
    return {name: Found(counts[name], tuple(samples[name])) for name in rules}


def find_duplicates(table: Table, columns: Sequence[str], *, key: Sequence[str] = ()) -> Found:
    """Finds values that occur more than once, in bounded memory.

    Rows are compared by a 64-bit hash first, and where hashes meet by their values, for up to 2,000 values.

    Args:
        table: The table.
        columns: One column, of which missing values are left out; or several, whose values together count, a missing
            one too.
        key: Columns that come with each sample.

    Returns:
        How many rows repeat an earlier one; samples hold a value's first row and the next.
    """
    logger.info("looking for repeated values of %s in %s rows", ", ".join(columns), f"{table.rows:,}")
    parts = max(1, math.ceil(table.rows / _HASHES_AT_ONCE))
    repeats, suspects = 0, np.zeros(0, np.uint64)
    for part in range(parts):
        found, again = _repeated_hashes(table, columns, part, parts)
        repeats += found
        suspects = np.concatenate([suspects, again[: _SUSPECTS - len(suspects)]])
    if not repeats:
        return Found(0, ())
    return _confirm(table, columns, np.sort(suspects), repeats, key)


def decoded(values: pa.Array) -> pa.Array:
    """Values without a dictionary and without views, which not every function takes."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return without_view(values)


def _repeated_hashes(table: Table, columns: Sequence[str], part: int, parts: int) -> tuple[int, Hashes]:
    """How many hashes of this part repeat an earlier one, and which they are."""
    held: list[Hashes] = []
    waiting = total = 0
    distinct = np.zeros(0, np.uint64)
    again: list[Hashes] = []
    for batch in table.batches(columns, batch_rows=batch_rows(table)):
        hashes, _ = _hashes(batch, columns)
        hashes = hashes if parts == 1 else hashes[hashes % np.uint64(parts) == np.uint64(part)]
        held.append(hashes)
        waiting += len(hashes)
        total += len(hashes)
        if waiting >= _HASHES_AT_ONCE:
            distinct = _distinct([distinct, *held], again)
            held, waiting = [], 0
    distinct = _distinct([distinct, *held], again)
    return total - len(distinct), np.unique(np.concatenate(again))


def _distinct(parts: list[Hashes], again: list[Hashes]) -> Hashes:
    hashes: Hashes = np.concatenate(parts)
    hashes.sort()
    is_new = np.concatenate([np.ones(min(1, len(hashes)), bool), hashes[1:] != hashes[:-1]])
    repeated = hashes[~is_new]
    again.append(np.unique(repeated)[:_SUSPECTS])
    kept: Hashes = hashes[is_new]
    return kept


def _hashes(batch: pa.RecordBatch, columns: Sequence[str]) -> tuple[Hashes, np.ndarray[Any, np.dtype[np.intp]]]:
    """The hashes of a batch's rows, and their places in it."""
    places = np.arange(batch.num_rows)
    if len(columns) > 1:
        return row_hashes({name: _plain(batch.column(name)) for name in columns}), places
    values = batch.column(columns[0])
    if values.null_count:
        places = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        values = values.drop_null()
    return hash_array(_plain(values)), places


def _plain(values: pa.Array) -> pa.Array:
    values = decoded(values)
    return plain_values(values) if kind_of(values.type) in ("text", "binary") else values


def _confirm(table: Table, columns: Sequence[str], suspects: Hashes, repeats: int, key: Sequence[str]) -> Found:
    """Compares the values behind equal hashes, and gathers samples."""
    rows_of: dict[str, list[dict[str, Any]]] = {}
    hashes_seen: set[int] = set()
    shown = list(dict.fromkeys([*columns, *key]))
    first, gathered = 1, 0
    for batch in table.batches(shown, batch_rows=batch_rows(table)):
        hashes, places = _hashes(batch, columns)
        nearest = np.minimum(np.searchsorted(suspects, hashes), len(suspects) - 1)
        for index in np.flatnonzero(suspects[nearest] == hashes).tolist():
            if gathered == _SUSPECT_ROWS:
                break
            place = int(places[index])
            identity = repr([batch.column(name)[place].as_py() for name in columns])
            sample = {"row": first + place, **_values(batch, place, shown)}
            rows = rows_of.setdefault(identity, [])
            if len(rows) < 2:
                rows.append(sample)
            hashes_seen.add(int(hashes[index]))
            gathered += 1
        first += batch.num_rows
    # Each value more than there are hashes is a pair of different values with one hash.
    collisions = len(rows_of) - len(hashes_seen)
    pairs = [{**rows[0], "again in row": rows[1]["row"]} for rows in rows_of.values() if len(rows) > 1]
    return Found(max(0, repeats - collisions), tuple(pairs[:SAMPLES]))


def _values(batch: pa.RecordBatch, place: int, columns: Sequence[str]) -> dict[str, Any]:
    return {name: _shown(batch.column(name)[place].as_py()) for name in columns}


def _shown(value: Any) -> Any:
    """A value as JSON takes it, not too long."""
    if isinstance(value, bytes):
        value = f"0x{value[: _LONGEST_SAMPLE // 2].hex()}"
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return text if len(text) <= _LONGEST_SAMPLE else f"{text[:_LONGEST_SAMPLE]}... ({len(text):,} characters)"
