"""The profile of a table, made in one streaming pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeparts.runtime.profiles import (
    QUANTILES,
    Booleans,
    ColumnProfile,
    Distinct,
    Floats,
    Ints,
    Kind,
    Limits,
    Numbers,
    Profile,
    Texts,
    TimeForm,
    Times,
    TimeUnit,
    TopValue,
    TopValues,
    format_time,
    quantiles,
)
from pipeparts.runtime.sketches import BUCKETS, EXACT_VALUES, NumberCounts, TextCounts, finite, shorten
from pipeparts.runtime.tables import Table, type_name

logger = logging.getLogger(__name__)

DEFAULT_BINS = 1024
DEFAULT_TOP = 100

_BATCH_ROWS = 65_536
_BATCH_BYTES = 64 * 2**20
_SECONDS_BETWEEN_LINES = 10.0


class _Column(Protocol):
    """The statistics of one column, while they are gathered."""

    def add(self, values: pa.Array) -> None:
        """Adds a batch's values; none of them is null."""

    def finish(self, limits: Limits) -> dict[str, object]:
        """Ends the gathering, and gives the fields of the column's profile."""


def profile_of(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    bins: int = DEFAULT_BINS,
    top: int = DEFAULT_TOP,
    counts_only: bool = False,
) -> Profile:
    """Profiles a table.

    One pass over the table; then another over those text columns alone that have more than `EXACT_VALUES` distinct
    values and frequent ones among them, so that these have exact counts.

    Args:
        table: The table.
        columns: The columns to profile, in this order; all where None.
        bins: The most buckets of a histogram in the profile.
        top: The most values that are listed with their counts.
        counts_only: Whether counts are all that is wanted of numbers with too many values to count each: moments then
            come from the buckets, and how many distinct floats there are is left out.

    Returns:
        The profile: the same whatever the order of the rows, but for the last digits of moments.
    """
    limits = Limits(exact_values=EXACT_VALUES, buckets=BUCKETS, bins=bins, top=top)
    names: list[str] = table.schema.names if columns is None else list(columns)
    gathered = {name: _new_column(table.schema.field(name).type, counts_only) for name in names}
    missing = dict.fromkeys(names, 0)
    seen, told = 0, time.monotonic()
    for batch in table.batches(names, batch_rows=batch_rows(table), dictionaries=True) if names else ():
        for name, values in zip(names, batch.columns, strict=True):
            missing[name] += values.null_count
            values = without_view(values)
            gathered[name].add(values.drop_null() if values.null_count else values)
        seen += batch.num_rows
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
            logger.info("profiled %s of %s rows", f"{seen:,}", f"{table.rows:,}")
            told = time.monotonic()
    profiles = []
    for name, column in gathered.items():
        if isinstance(column, _TextColumn):
            _count_again(table, name, column, top)
        kind = table.schema.field(name).type
        profiles.append(
            ColumnProfile.model_validate(
                {
                    "name": name,
                    "type": type_name(kind),
                    "kind": kind_of(kind),
                    "count": table.rows - missing[name],
                    "missing": missing[name],
                    **column.finish(limits),
                }
            )
        )
    return Profile(
        rows=table.rows,
        fingerprint=table.info.fingerprint,
        source=table.info.source,
        limits=limits,
        columns=tuple(profiles),
    )


def kind_of(kind: pa.DataType) -> Kind:
    """Which statistics a column of this type has."""
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if pa.types.is_null(kind):
        return "empty"
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    ):
        return "binary"
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind):
        return "time"
    return "nested"


def batch_rows(table: Table) -> int:
    """How many rows make a batch: fewer than usual where values are huge, so that a batch stays in memory."""
    most = 1.0
    for part in table.parts:
        metadata = pq.read_metadata(part)
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            most = max(most, group.total_byte_size / max(1, group.num_rows))
    return int(max(16, min(_BATCH_ROWS, _BATCH_BYTES / most)))


def without_view(values: pa.Array) -> pa.Array:
    """String and binary views as large strings and binaries, for which Arrow has every function."""
    if pa.types.is_string_view(values.type):
        return values.cast(pa.large_string())
    return values.cast(pa.large_binary()) if pa.types.is_binary_view(values.type) else values


def plain_values(values: pa.Array) -> pa.Array:
    """The values of a text, binary or dictionary array as string or binary, huge ones shortened."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    values = without_view(values)
    kind = kind_of(values.type)
    if kind == "text":
        return shorten(values).cast(pa.string())
    if kind == "binary":
        values = values.cast(pa.binary()) if pa.types.is_fixed_size_binary(values.type) else values
        return shorten(values).cast(pa.binary())
    return values


def _new_column(kind: pa.DataType, counts_only: bool) -> _Column:
    if pa.types.is_dictionary(kind):
        return _DictionaryColumn(_new_column(kind.value_type, counts_only))
    match kind_of(kind):
        case "number":
            return _NumberColumn(kind, counts_only)
        case "text" | "binary":
            return _TextColumn(kind)
        case "boolean":
            return _BooleanColumn()
        case "time":
            return _TimeColumn(kind)
        case "empty":
            return _EmptyColumn()
        case _:
            return _NestedColumn()


class _NumberColumn:
    """Integers as they are; floats and decimals as float64; unsigned 64-bit integers too, for want of room."""

    def __init__(self, kind: pa.DataType, counts_only: bool) -> None:
        self._integers = pa.types.is_integer(kind) and not pa.types.is_uint64(kind)
        self._counts = NumberCounts(integers=self._integers, counts_only=counts_only)
        self._nan = self._plus = self._minus = 0

    def add(self, values: pa.Array) -> None:
        if self._integers:
            self._counts.add(_numpy(values, pa.int64()))
            return
        numbers = _numpy(values, pa.float64())
        is_finite = np.isfinite(numbers)
        if not is_finite.all():
            self._nan += int(np.count_nonzero(np.isnan(numbers)))
            self._plus += int(np.count_nonzero(np.isposinf(numbers)))
            self._minus += int(np.count_nonzero(np.isneginf(numbers)))
            numbers = numbers[is_finite]
        self._counts.add(numbers)

    def finish(self, limits: Limits) -> dict[str, object]:
        counts = self._counts
        distinct, moments = counts.finish()
        apart = (self._nan > 0) + (self._plus > 0) + (self._minus > 0)
        lower, upper, weights = counts.buckets()
        return {
            "distinct": distinct and distinct.model_copy(update={"count": distinct.count + apart}),
            "numbers": Numbers(
                minimum=counts.minimum,
                maximum=counts.maximum,
                mean=finite(moments.mean) if moments.count else None,
                standard_deviation=moments.deviation(),
                skewness=moments.skewness(),
                kurtosis=moments.kurtosis(),
                zeros=counts.zeros,
                negatives=counts.negatives,
                nan=self._nan,
                positive_infinities=self._plus,
                negative_infinities=self._minus,
                quantiles=_quantiles(counts, lower, upper, weights),
                quantile_error=0.0 if counts.exact else 2.0 ** (counts.shift - 52),
            ),
            "top": _top_of_numbers(counts, limits.top),
            "histogram": counts.histogram(limits.bins),
        }


class _TimeColumn:
    """Times as integers of their unit."""

    def __init__(self, kind: pa.DataType) -> None:
        self._counts = NumberCounts(integers=True)
        self._is_date = pa.types.is_date(kind)
        # date64 comes in milliseconds and holds whole days, so both kinds of date are read as days.
        self._unit: TimeUnit = "day" if self._is_date else kind.unit
        self._zone = kind.tz if pa.types.is_timestamp(kind) else None
        self._form: TimeForm = "date" if self._is_date else "duration"
        if pa.types.is_timestamp(kind):
            self._form = "timestamp"
        elif pa.types.is_time(kind):
            self._form = "time"

    def add(self, values: pa.Array) -> None:
        if self._is_date:
            values = values.cast(pa.date32()).cast(pa.int32())
        elif pa.types.is_time32(values.type):
            values = values.cast(pa.int32())
        self._counts.add(_numpy(values, pa.int64()))

    def finish(self, limits: Limits) -> dict[str, object]:
        counts = self._counts
        distinct, _ = counts.finish()
        lower, upper, weights = counts.buckets()
        widest = 0.0 if counts.exact or not len(lower) else float(np.max(upper - lower))
        seconds = {"day": 86_400.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[self._unit]
        return {
            "distinct": distinct,
            "times": Times(
                form=self._form,
                unit=self._unit,
                zone=self._zone,
                minimum=self._text(counts.minimum),
                maximum=self._text(counts.maximum),
                quantiles={
                    key: format_time(value, self._unit, self._zone, self._form)
                    for key, value in _quantiles(counts, lower, upper, weights).items()
                },
                quantile_error_seconds=widest * seconds,
            ),
            "histogram": counts.histogram(limits.bins),
        }

    def _text(self, value: int | float | None) -> str | None:
        return None if value is None else format_time(value, self._unit, self._zone, self._form)


class _TextColumn:
    """Texts and binary values."""

    def __init__(self, kind: pa.DataType) -> None:
        self._is_text = kind_of(kind) == "text"
        self.counts = TextCounts(pa.string() if self._is_text else pa.binary())
        self.frequent: tuple[pa.Array, Ints] | None = None
        self._empty = self._characters = 0
        self._shortest: int | None = None
        self._longest: int | None = None

    def add(self, values: pa.Array) -> None:
        if len(values) == 0:
            return
        if pa.types.is_dictionary(values.type):
            often = np.bincount(values.indices.to_numpy(zero_copy_only=False), minlength=len(values.dictionary))
            there = often > 0
            distinct = values.dictionary.filter(pa.array(there))
            self._measure(distinct, often[there])
            self.counts.add(plain_values(distinct), often[there])
            return
        self._measure(values, np.ones(len(values), np.int64))
        counted = plain_values(values).value_counts()
        self.counts.add(counted.field("values"), counted.field("counts").to_numpy(zero_copy_only=False))

    def _measure(self, values: pa.Array, often: Ints) -> None:
        lengths = _numpy(_lengths(values), pa.int64())
        low, high = int(lengths.min()), int(lengths.max())
        self._shortest = low if self._shortest is None else min(low, self._shortest)
        self._longest = high if self._longest is None else max(high, self._longest)
        self._characters += int((lengths * often).sum())
        if low == 0:
            self._empty += int(often[lengths == 0].sum())

    def finish(self, limits: Limits) -> dict[str, object]:
        distinct = self.counts.finish()
        total = self.counts.count
        return {
            "distinct": distinct,
            "texts": Texts(
                empty=self._empty,
                shortest=self._shortest,
                longest=self._longest,
                mean_length=self._characters / total if total else None,
            ),
            "top": self._top(limits.top),
        }

    def _top(self, top: int) -> TopValues:
        values, counts = self.counts.values() if self.frequent is None else self.frequent
        error = self.counts.error
        kept = counts > error
        table = pa.table({"value": values.filter(pa.array(kept)), "count": counts[kept]})
        table = table.sort_by([("count", "descending"), ("value", "ascending")])
        rest = table["count"][top].as_py() if table.num_rows > top else 0
        return TopValues(
            values=tuple(
                TopValue(value=value if isinstance(value, str) else f"0x{value.hex()}", count=count)
                for value, count in zip(table["value"][:top].to_pylist(), table["count"][:top].to_pylist(), strict=True)
            ),
            complete=self.counts.exact and table.num_rows <= top,
            others_at_most=max(error, rest),
        )


class _BooleanColumn:
    """True and false."""

    def __init__(self) -> None:
        self._true = self._false = 0

    def add(self, values: pa.Array) -> None:
        true = values.true_count
        self._true += true
        self._false += len(values) - true

    def finish(self, limits: Limits) -> dict[str, object]:
        there = sorted(((self._false, False), (self._true, True)), key=lambda pair: (-pair[0], pair[1]))
        values = tuple(TopValue(value=value, count=count) for count, value in there if count)
        return {
            "distinct": Distinct(count=len(values), exact=True, standard_error=0.0),
            "booleans": Booleans(true=self._true, false=self._false),
            "top": TopValues(values=values, complete=True, others_at_most=0),
        }


class _EmptyColumn:
    """A column of nulls, without a type."""

    def add(self, values: pa.Array) -> None:
        """Has nothing to add."""

    def finish(self, limits: Limits) -> dict[str, object]:
        return {"distinct": Distinct(count=0, exact=True, standard_error=0.0)}


class _NestedColumn:
    """Lists, structs and maps: only the missing ones are counted."""

    def add(self, values: pa.Array) -> None:
        """Has nothing to add."""

    def finish(self, limits: Limits) -> dict[str, object]:
        return {}


class _DictionaryColumn:
    """Dictionary-encoded values, as the values they stand for."""

    def __init__(self, column: _Column) -> None:
        self._column = column

    def add(self, values: pa.Array) -> None:
        self._column.add(values.dictionary_decode())

    def finish(self, limits: Limits) -> dict[str, object]:
        return self._column.finish(limits)


def _count_again(table: Table, name: str, column: _TextColumn, top: int) -> None:
    """Counts the frequent values of a text column exactly, where there were too many values to count them all."""
    column.counts.finish()
    if column.counts.exact:
        return
    candidates = column.counts.candidates(top)
    counts = np.zeros(len(candidates), np.int64)
    if len(candidates):
        logger.info("counting %d frequent values of %s again", len(candidates), name)
        for batch in table.batches([name], batch_rows=batch_rows(table)):
            found = pc.index_in(plain_values(batch.column(0)), value_set=candidates).drop_null()
            counts += np.bincount(found.to_numpy(zero_copy_only=False), minlength=len(candidates))
    column.frequent = (candidates, counts)


def _lengths(values: pa.Array) -> pa.Array:
    if kind_of(values.type) == "text":
        return pc.utf8_length(values)
    return pc.binary_length(values)


def _numpy(values: pa.Array, kind: pa.DataType) -> npt.NDArray[np.int64]:
    # Either int64 or float64, as asked for: the type says the one that is used more.
    return np.asarray(values.cast(kind, safe=False).to_numpy(zero_copy_only=False))


def _quantiles(counts: NumberCounts, lower: Floats, upper: Floats, weights: Ints) -> dict[str, float]:
    found = quantiles(lower, upper, weights, QUANTILES)
    if counts.minimum is None or counts.maximum is None:
        return {}
    low, high = float(counts.minimum), float(counts.maximum)
    return {f"{p:g}": min(max(value, low), high) for p, value in zip(QUANTILES, found, strict=True)}


def _top_of_numbers(counts: NumberCounts, top: int) -> TopValues | None:
    if not counts.exact:
        return None
    values, weights = counts.values()
    order = np.lexsort((values, -weights))
    listed = order[:top]
    return TopValues(
        values=tuple(
            TopValue(value=value, count=count)
            for value, count in zip(values[listed].tolist(), weights[listed].tolist(), strict=True)
        ),
        complete=len(order) <= top,
        others_at_most=int(weights[order[top]]) if len(order) > top else 0,
    )
