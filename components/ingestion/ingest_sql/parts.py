"""Partitions: ranges of a key that together hold every row once."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import itertools
import math
from typing import Any

from pipeparts.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows with a key from `low` (None: from the lowest) to below `high` (None: to the highest).

    Attributes:
        column: The key's column.
        low: The lowest key, included.
        high: The first key that is not included any more.
        nulls: Instead the rows whose key is null.
    """

    column: str
    low: Any = None
    high: Any = None
    nulls: bool = False

    def __str__(self) -> str:
        if self.nulls:
            return f"{self.column} is null"
        limits = [f"from {self.low}"] * (self.low is not None) + [f"below {self.high}"] * (self.high is not None)
        return f"{self.column} {' and '.join(limits) or 'is not null'}"

    def condition(self, column: str, timestamps_have_zone: bool = False) -> str:
        """The part as SQL, with literals that PostgreSQL and DuckDB share.

        Args:
            column: The column's name, quoted.
            timestamps_have_zone: Whether the column is a timestamp with time zone.
        """
        if self.nulls:
            return f"{column} IS NULL"
        limits = []
        if self.low is not None:
            limits.append(f"{column} >= {_literal(self.low, timestamps_have_zone)}")
        if self.high is not None:
            limits.append(f"{column} < {_literal(self.high, timestamps_have_zone)}")
        return " AND ".join(limits) or f"{column} IS NOT NULL"


def make_parts(column: str, low: Any, high: Any, count: int) -> list[Part]:
    """Divides a key's range.

    The first part has no lower limit and the last no upper one, and the nulls are a part of their own, so
    that no row falls outside.

    Args:
        column: The key's column.
        low: The lowest key there is, None where there is none.
        high: The highest.
        count: How many ranges; fewer where there are fewer different keys.

    Raises:
        InputError: For keys that are not numbers, dates or times.
    """
    edges = [] if low is None else _edges(column, low, high, count)
    limits = [None, *edges, None]
    ranges = [Part(column, low=a, high=b) for a, b in itertools.pairwise(limits)]
    return [*ranges, Part(column, nulls=True)]


def _edges(column: str, low: Any, high: Any, count: int) -> list[Any]:
    if isinstance(low, bool) or not isinstance(low, (int, float, decimal.Decimal, dt.date)):
        raise _no_key(column, f"{type(low).__name__}: {low!r}")
    if isinstance(low, (float, decimal.Decimal)) and not (math.isfinite(low) and math.isfinite(high)):
        raise _no_key(column, f"values from {low} to {high}")
    found = [_between(low, high, index, count) for index in range(1, count)]
    return sorted({edge for edge in found if low < edge <= high})


def _between(low: Any, high: Any, index: int, count: int) -> Any:
    if isinstance(low, dt.date):  # a datetime too: timedeltas are divided in whole days or microseconds
        unit = dt.timedelta(microseconds=1) if isinstance(low, dt.datetime) else dt.timedelta(days=1)
        return low + unit * (((high - low) // unit + 1) * index // count)
    if isinstance(low, int):
        return low + (high - low + 1) * index // count
    return low + (high - low) * index / count


def _no_key(column: str, received: str) -> InputError:
    return InputError(
        "a column that cannot be divided into ranges",
        parameter="partition_column",
        where=f"column {column!r}",
        allowed="a column of finite numbers, dates or timestamps",
        received=received,
    )


def _literal(value: Any, timestamps_have_zone: bool) -> str:
    if isinstance(value, dt.datetime):
        kind = "TIMESTAMPTZ" if timestamps_have_zone else "TIMESTAMP"
        return f"{kind} '{value.isoformat(sep=' ')}'"
    if isinstance(value, dt.date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, float):
        return f"CAST('{value!r}' AS DOUBLE PRECISION)"
    return f"({value:f})" if isinstance(value, decimal.Decimal) else f"({value})"
