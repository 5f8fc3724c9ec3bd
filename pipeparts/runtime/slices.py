"""Slices of a table: the rows that share a value of a column, or of several crossed."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.errors import DataError, InputError

#: Most values of a slice that are shown by themselves; the rest is one group.
MOST_VALUES = 24
#: Buckets of equal row count for a numeric column with more than `MOST_VALUES` values.
BUCKETS = 5
#: A text column with more distinct values than this is a key, not a slice.
MOST_DISTINCT = 100_000

OTHERS, MISSING = "(others)", "(missing)"


@dataclasses.dataclass(frozen=True)
class Slicing:
    """Each row's slice.

    Attributes:
        name: The columns as they were asked for: "origin", "origin+dest".
        values: The slices' names, in the order of their codes.
        codes: One code a row, 2 bytes each.
    """

    name: str
    values: tuple[str, ...]
    codes: npt.NDArray[np.int16]


class HasColumns(Protocol):
    """What has columns to slice by: a `Table`, or two that are joined."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def require(self, columns: Sequence[str], *, parameter: str) -> None:
        """Raises an InputError for the first column that is not there."""


def parse_slices(slices: Sequence[str] | None, table: HasColumns, *, parameter: str = "slices") -> tuple[str, ...]:
    """Checks the slices that were asked for against the table's columns.

    Args:
        slices: Columns, or columns crossed with "+".
        table: The table.
        parameter: The parameter's name, for the message.

    Returns:
        The slices, each once.

    Raises:
        InputError: For what is no text, or a column that the table does not have.
    """
    if slices is not None and (isinstance(slices, str) or not isinstance(slices, Sequence)):
        raise InputError("the slices are not a list", parameter=parameter, allowed="a list of columns", received=slices)
    for name in slices or ():
        if not isinstance(name, str) or not all(columns_of(name)):
            raise InputError(
                "a slice that is not a column",
                parameter=parameter,
                allowed='a column ("origin"), or columns crossed ("origin+dest")',
                received=repr(name),
            )
        table.require(columns_of(name), parameter=parameter)
        for column in columns_of(name):
            if pa.types.is_nested(table.schema.field(column).type):
                raise InputError(
                    "cannot slice by a nested column",
                    parameter=parameter,
                    allowed="a flat column",
                    received=f"{column}: {table.schema.field(column).type}",
                )
    return tuple(dict.fromkeys(slices or ()))


def columns_of(name: str) -> list[str]:
    """The columns of a slice: one, or those crossed with "+"."""
    return [part.strip() for part in name.split("+")]


class Slicer:
    """Gathers slices over a stream of batches: 4 or 8 bytes a row and column until the end, then 2.

    Args:
        slices: The slices, checked by `parse_slices`.
        schema: The batches' schema.
        known: Slice to its values in another table: a column of numbers that is a slice by itself goes into the same
            buckets, and into one below and one above these.
    """

    def __init__(
        self, slices: Sequence[str], schema: pa.Schema, *, known: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        known = known or {}
        self._slices = tuple(slices)
        self.columns = list(dict.fromkeys(column for name in slices for column in columns_of(name)))
        self._gathered: dict[str, _Gathered] = {
            column: _Numbers(schema.field(column).type, _edges(known.get(column, ()), schema.field(column).type))
            if _is_number(schema.field(column).type)
            else _Texts(column)
            for column in self.columns
        }

    def add(self, batch: pa.RecordBatch, columns: Sequence[str] | None = None) -> None:
        """Adds a batch's rows.

        Args:
            batch: The rows.
            columns: The columns of the slices that these rows have; all of them where None.
        """
        for column in self.columns if columns is None else columns:
            self._gathered[column].add(batch.column(column))

    def finish(self, orders: Mapping[str, npt.NDArray[np.integer[Any]]] | None = None) -> tuple[Slicing, ...]:
        """The slices of all rows; the columns' own values are let go.

        Args:
            orders: For a column whose rows came in another order: where the first row is, the second, and so on.
        """
        coded = {column: gathered.finish() for column, gathered in self._gathered.items()}
        self._gathered = {}
        for column, order in (orders or {}).items():
            coded[column] = dataclasses.replace(coded[column], codes=coded[column].codes[order])
        return tuple(_slicing(name, [coded[column] for column in columns_of(name)]) for name in self._slices)


@dataclasses.dataclass(frozen=True)
class _Coded:
    """A column as codes into names; `in_order` where the names rise with the codes."""

    codes: npt.NDArray[np.int32]
    names: list[str]
    in_order: bool


class _Gathered(Protocol):
    def add(self, values: pa.Array) -> None: ...

    def finish(self) -> _Coded: ...


class _Numbers:
    """A column of numbers or times: each value where they are few, buckets of equal row count where they are many.

    Args:
        kind: The column's type.
        edges: The rising edges of buckets to use, whatever the values; empty: none.
    """

    def __init__(self, kind: pa.DataType, edges: Sequence[float] = ()) -> None:
        self._kind = kind
        self._edges = np.array(edges, dtype=np.float64)
        self._parts: list[npt.NDArray[np.float64]] = []

    def add(self, values: pa.Array) -> None:
        self._parts.append(to_floats(values))

    def finish(self) -> _Coded:
        values = np.concatenate(self._parts) if self._parts else np.zeros(0)
        self._parts = []
        missing = np.isnan(values)
        known = values[~missing]
        distinct = np.unique(known)
        if len(self._edges):
            edges = self._edges
            shown = [self._name(edge) for edge in edges]
            # The last bucket has its upper edge too.
            codes = np.searchsorted(edges, known, side="right") - (known == edges[-1])
            names = [f"below {shown[0]}", *_bucket_names(shown), f"above {shown[-1]}"]
        elif len(distinct) <= MOST_VALUES:
            codes = np.searchsorted(distinct, known)
            names = [self._name(value) for value in distinct]
        else:
            # Edges are values that occur: a bucket's name is then exact.
            edges = np.unique(np.quantile(known, np.linspace(0, 1, BUCKETS + 1), method="lower"))
            codes = np.minimum(np.searchsorted(edges, known, side="right") - 1, len(edges) - 2)
            names = _bucket_names([self._name(edge) for edge in edges])
        all_codes = np.full(len(values), len(names), dtype=np.int32)
        all_codes[~missing] = codes
        return _Coded(all_codes, [*names, MISSING], in_order=True)

    def _name(self, value: float) -> str:
        kind = self._kind
        if pa.types.is_boolean(kind):
            return "true" if value else "false"
        if pa.types.is_date(kind):
            days = value if pa.types.is_date32(kind) else value / 86_400_000
            return (datetime.date(1970, 1, 1) + datetime.timedelta(days=days)).isoformat()
        if pa.types.is_timestamp(kind):
            seconds = value / {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
            moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
            return moment.isoformat(sep=" ", timespec="seconds")
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


class _Texts:
    """A column of text: one code for each value."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._codes: dict[str | None, int] = {}
        self._parts: list[npt.NDArray[np.int32]] = []

    def add(self, values: pa.Array) -> None:
        encoded = (values if pa.types.is_string(values.type) else values.cast(pa.string())).dictionary_encode()
        known = [self._codes.setdefault(text, len(self._codes)) for text in [*encoded.dictionary.to_pylist(), None]]
        if len(self._codes) > MOST_DISTINCT:
            raise DataError(
                "a slice column with too many values",
                where=f"column {self._column}",
                allowed=f"at most {MOST_DISTINCT:,} distinct values",
                received="more than that: a key or an identifier makes no slices",
            )
        indices = encoded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)
        self._parts.append(np.array(known, dtype=np.int32)[indices])

    def finish(self) -> _Coded:
        codes = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int32)
        names = [MISSING if text is None else text for text in self._codes]
        self._parts, self._codes = [], {}
        return _Coded(codes, names, in_order=False)


def _bucket_names(edges: Sequence[str]) -> list[str]:
    names = [f"[{low}, {high})" for low, high in itertools.pairwise(edges)]
    names[-1] = f"{names[-1][:-1]}]"
    return names


def _edges(values: Sequence[str], kind: pa.DataType) -> list[float]:
    """The edges of the buckets that names say, as numbers of a column of this type; empty where they say none."""
    found = [re.fullmatch(r"\[(.+), (.+)([)\]])", value) for value in values if value not in (MISSING, OTHERS)]
    buckets = [match for match in found if match]
    if not buckets or len(buckets) < len(found) - 2:  # besides those below and above
        return []
    texts = [*(match[1] for match in buckets), buckets[-1][2]]
    try:
        if pa.types.is_temporal(kind):
            edges = to_floats(pa.array(texts).cast(pa.timestamp("us")).cast(_without_zone(kind))).tolist()
        else:
            edges = [float(text) for text in texts]
    except (pa.ArrowException, ValueError):
        return []
    return edges if all(low < high for low, high in itertools.pairwise(edges)) else []


def _without_zone(kind: pa.DataType) -> pa.DataType:
    return pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind


def to_floats(values: pa.Array) -> npt.NDArray[np.float64]:
    """Numbers or times as 64-bit floats, missing ones as NaN."""
    kind = values.type
    if pa.types.is_temporal(kind):
        wide = pa.types.is_timestamp(kind) or pa.types.is_date64(kind) or pa.types.is_time64(kind)
        values = values.cast(pa.int64() if wide else pa.int32())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    floats = values.cast(pa.float64(), safe=False)
    return np.asarray(pc.fill_null(floats, float("nan")).to_numpy(zero_copy_only=False))


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
    )


def _slicing(name: str, columns: list[_Coded]) -> Slicing:
    crossed: npt.NDArray[np.integer[Any]] = columns[0].codes
    for column in columns[1:]:
        crossed = crossed.astype(np.int64) * len(column.names) + column.codes
    possible = math.prod(len(column.names) for column in columns)
    if possible > MOST_DISTINCT:
        distinct, crossed, counts = np.unique(crossed, return_inverse=True, return_counts=True)
    else:  # the same, without a sort of all rows
        by_code = np.bincount(crossed, minlength=possible)
        distinct = np.flatnonzero(by_code)
        counts = by_code[distinct]
    labels = [_label(int(code), columns) for code in distinct]
    kept = sorted(range(len(distinct)), key=lambda i: (-int(counts[i]), labels[i]))[:MOST_VALUES]
    if len(columns) == 1 and columns[0].in_order:
        kept = sorted(kept)
    kept = sorted(kept, key=lambda i: labels[i] == MISSING)
    final = np.full(len(distinct), len(kept), dtype=np.int16)
    final[kept] = np.arange(len(kept))
    values = [labels[i] for i in kept] + ([OTHERS] if len(kept) < len(distinct) else [])
    if possible <= MOST_DISTINCT:
        place = np.zeros(possible, dtype=np.int16)
        place[distinct] = final
        final = place
    return Slicing(name, tuple(values), final[crossed])


def _label(code: int, columns: Sequence[_Coded]) -> str:
    parts: list[str] = []
    for column in reversed(columns):
        code, own = divmod(code, len(column.names))
        parts.append(column.names[own])
    return " + ".join(reversed(parts))
