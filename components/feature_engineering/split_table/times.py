"""The method `time`: cuts at two times, given or found from the shares, and at a given end."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.tables import Table, type_name

_EPOCH = dt.datetime(1970, 1, 1)
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_COMPACT_ROWS = 1_000_000

Integers = npt.NDArray[np.integer[Any]]


class TimeRule:
    """Rows before the first cut train, rows before the second validate, the rest tests, up to the end if there is one.

    Args:
        column: The column's name.
        kind: Its type.
        cuts: The two cuts, and the end if there is one, as integers in the column's own unit.
        span: The earliest and latest time in the table, as integers.
    """

    def __init__(self, column: str, kind: pa.DataType, cuts: tuple[int, ...], span: tuple[int, int]) -> None:
        self._column = column
        self._kind = kind
        self._cuts = cuts
        self._span = span

    @classmethod
    def find(cls, table: Table, column: str, boundaries: list[Any] | None, shares: tuple[float, float]) -> TimeRule:
        """The rule for two boundaries, or three, or else for the shares below each cut, after one pass.

        Raises:
            InputError: For a column that holds no times, and for boundaries that do not fit it.
            DataError: For null times.
        """
        kind = table.schema.field(column).type
        _check_kind(column, kind)
        given = None if boundaries is None else _parse_boundaries(boundaries, column, kind)
        times = _read_times(table, column, keep_all=given is None)
        values, _ = times.sorted()
        span = (int(values[0]), int(values[-1]))
        return cls(column, kind, times.cuts(shares) if given is None else given, span)

    def assign(self, batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
        """See `Rule`; 3, which is no split, from the end on."""
        values = _integers(batch.column(self._column))
        codes = np.zeros(len(values), np.uint8)
        for cut in self._cuts:
            codes += values >= cut
        return codes

    def describe(self) -> list[str]:
        """See `Rule`."""
        first, second, *end = (_text(cut, self._kind) for cut in self._cuts)
        name = self._column
        last = f"{name} from {second}" + "".join(f" to before {cut}" for cut in end)
        return [f"{name} before {first}", f"{name} from {first} to before {second}", last]

    def why_empty(self) -> str:
        """See `Rule`."""
        first, last = (_text(value, self._kind) for value in self._span)
        cuts = " and ".join(_text(cut, self._kind) for cut in self._cuts[:2])
        end = "".join(f" up to {_text(cut, self._kind)}" for cut in self._cuts[2:])
        return (
            f"{self._column!r} goes from {first} to {last}, and was cut at {cuts}{end}; rows of one time stay together"
        )


class _Times:
    """The distinct times seen, with their counts."""

    def __init__(self) -> None:
        self._parts: list[tuple[Integers, npt.NDArray[np.int64]]] = []
        self._loose = 0
        self._distinct = 0

    def add(self, values: Integers) -> None:
        distinct, counts = np.unique(values, return_counts=True)
        self._parts.append((distinct, counts))
        self._loose += len(distinct)
        # Merging when as much is loose as is merged keeps the whole cost at n log n.
        if self._loose > max(_COMPACT_ROWS, self._distinct):
            self.sorted()

    def sorted(self) -> tuple[Integers, npt.NDArray[np.int64]]:
        """The distinct times, ascending, and how many rows have each."""
        values = np.concatenate([part[0] for part in self._parts])
        order = np.argsort(values, kind="stable")
        values = values[order]
        counts = np.concatenate([part[1] for part in self._parts])[order]
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
        merged = values[starts], np.add.reduceat(counts, starts)
        self._parts, self._distinct, self._loose = [merged], len(starts), 0
        return merged

    def cuts(self, shares: tuple[float, float]) -> tuple[int, int]:
        """The two times with the numbers of rows before them nearest to the shares."""
        values, counts = self.sorted()
        before = np.concatenate([[0], np.cumsum(counts)])
        found = []
        for share in shares:
            place = int(np.argmin(np.abs(before - share * before[-1])))
            found.append(int(values[place]) if place < len(values) else int(values[-1]) + 1)
        return found[0], found[1]


def _read_times(table: Table, column: str, *, keep_all: bool) -> _Times:
    times = _Times()
    nulls = 0
    for batch in table.batches([column]):
        array = batch.column(0)
        nulls += array.null_count
        if nulls == 0 and len(array):
            values = _integers(array)
            times.add(values if keep_all else np.array([values.min(), values.max()], dtype=values.dtype))
    if nulls:
        raise DataError(
            "rows without a time cannot be split by time",
            parameter="columns",
            where=f"column {column!r} of {table.path}",
            allowed="a time in every row",
            received=f"{nulls:,} nulls in {table.rows:,} rows",
            hint="leave those rows out before, or split by hash",
        )
    return times


def _check_kind(column: str, kind: pa.DataType) -> None:
    if not (pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_integer(kind)):
        raise InputError(
            "a column that holds no times",
            parameter="columns",
            where=f"column {column!r}",
            allowed="a column of type date, timestamp, timestamp_utc or int64",
            received=type_name(kind),
        )


def _integers(array: pa.Array) -> Integers:
    kind = array.type
    if pa.types.is_date32(kind):
        array = array.cast(pa.int32())
    elif not pa.types.is_integer(kind):
        array = array.cast(pa.int64())
    values: Integers = array.to_numpy(zero_copy_only=False)
    return values


def _parse_boundaries(boundaries: Any, column: str, kind: pa.DataType) -> tuple[int, ...]:
    allowed = f"two {_boundary_form(kind)}, the earlier first; a third is the end"
    if not isinstance(boundaries, (list, tuple)) or len(boundaries) not in (2, 3):
        raise InputError(
            "`boundaries` are neither two nor three", parameter="boundaries", allowed=allowed, received=boundaries
        )
    cuts = tuple(_parse_boundary(value, column, kind) for value in boundaries)
    for place, (earlier, later) in enumerate(itertools.pairwise(cuts)):
        if earlier >= later:
            raise InputError(
                "the boundaries are not in order",
                parameter="boundaries",
                allowed=allowed,
                received=f"{boundaries[place]}, then {boundaries[place + 1]}",
            )
    return cuts


def _parse_boundary(value: Any, column: str, kind: pa.DataType) -> int:
    """The smallest integer in the column's unit that is not before the boundary."""
    try:
        if pa.types.is_integer(kind):
            return _parse_number(value)
        if not isinstance(value, str):
            raise ValueError("not a text")
        return _parse_iso(value.strip(), kind)
    except (ValueError, OverflowError) as error:
        raise InputError(
            "a boundary that does not fit the column",
            parameter="boundaries",
            where=f"column {column!r} of type {type_name(kind)}",
            allowed=_boundary_form(kind),
            received=f"{value!r} ({error})",
        ) from None


def _parse_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("not a number")
    if isinstance(value, str):
        # Also as text, since JSON numbers beyond 2**53 lose digits on their way.
        return int(value)
    return math.ceil(value)


def _parse_iso(text: str, kind: pa.DataType) -> int:
    if pa.types.is_date(kind):
        days = (dt.date.fromisoformat(text) - _EPOCH.date()).days
        return days if pa.types.is_date32(kind) else days * 86_400_000
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        if kind.tz is None:
            raise ValueError("a zone, where the column has none")
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    microseconds = (moment - _EPOCH) // dt.timedelta(microseconds=1)
    return -((-microseconds * _PER_SECOND[kind.unit]) // 1_000_000)


def _boundary_form(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "whole numbers such as 20130901"
    if pa.types.is_date(kind):
        return "ISO dates such as '2013-09-01'"
    return "ISO times such as '2013-09-01' or '2013-09-01T06:00:00'" + (" (UTC)" if kind.tz is not None else "")


def _text(value: int, kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return str(value)
    try:
        if pa.types.is_date(kind):
            days = value if pa.types.is_date32(kind) else value // 86_400_000
            return (_EPOCH.date() + dt.timedelta(days=days)).isoformat()
        microseconds = value * 1_000_000 // _PER_SECOND[kind.unit]
        text = (_EPOCH + dt.timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:  # beyond the year 9999
        return f"{value} {getattr(kind, 'unit', 'days')} after 1970"
    return text + ("Z" if kind.tz is not None else "")
