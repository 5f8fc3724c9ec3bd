"""Fitted features, and their formulas: written once, over the operations that numpy and TensorFlow both have."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from . import times
from .values import TransformError

Array = np.ndarray[Any, Any]

#: Numbers further from zero than this count as this, so that their squares can be summed.
LARGEST = 1e150
#: A scaled number stays within this. With n rows the farthest a fitted value can lie from the mean is
#: sqrt(n) standard deviations, so this touches only values far outside what was fitted on.
LARGEST_SCALED = 1e6
#: The farthest from zero that a number can be that is not scaled: the largest float32.
LARGEST_FLOAT32 = 3.4028234663852886e38

#: The id of every missing category. Buckets and vocabularies begin at 1.
MISSING_ID = 0

#: Between the values of several columns that make one category together (ASCII's unit separator).
SEPARATOR = b"\x1f"

SEPARATOR_SHOWN = "\N{SYMBOL FOR UNIT SEPARATOR}"

#: Integers that a float64 holds exactly; their text is their decimal digits.
LARGEST_EXACT = 2.0**53

#: The parts of a time, with the least value and the number of values.
PARTS = {
    "quarter": (1, 4),
    "month": (1, 12),
    "day": (1, 31),
    "weekday": (0, 7),  # Monday is 0
    "hour": (0, 24),
    "minute": (0, 60),
}
CYCLES = ("hour_of_day", "day_of_week", "day_of_month", "day_of_year")
CLOCK_PARTS = ("hour", "minute")
CLOCK_CYCLES = ("hour_of_day",)


class Outputs(NamedTuple):
    """What one feature gives: numbers and ids, each of n values, in the order of its names."""

    numeric: list[Any]
    ids: list[Any]


class Ids(NamedTuple):
    """A column of ids: its name, and the number of ids, from 0 on."""

    name: str
    size: int


class Operations(Protocol):
    """What a formula may use besides operators; `sequence` and `table` are numpy constants."""

    def where(self, condition: Any, one: Any, other: Any) -> Any:
        """One where the condition holds, the other where not."""

    def is_finite(self, x: Any) -> Any:
        """Whether neither NaN nor infinite."""

    def clip(self, x: Any, low: float, high: float) -> Any:
        """Within low and high."""

    def sign(self, x: Any) -> Any:
        """-1, 0 or 1."""

    def log1p(self, x: Any) -> Any:
        """The logarithm of 1 + x."""

    def sin(self, x: Any) -> Any:
        """The sine."""

    def cos(self, x: Any) -> Any:
        """The cosine."""

    def to_float(self, x: Any) -> Any:
        """Integers as float64."""

    def place(self, sequence: Array, x: Any) -> Any:
        """How many of the rising `sequence` are at most x."""

    def take(self, table: Array, index: Any) -> Any:
        """The entries at the index."""

    def one_hot(self, ids: Any, size: int) -> list[Any]:
        """For each id of `size` whether it is this one."""

    def category(self, feature: Category, raw: Sequence[Any], types: Sequence[str]) -> Any:
        """The ids of a category."""


@dataclasses.dataclass(frozen=True)
class Numeric:
    """A number: clipped, then its logarithm taken, then missing filled, then scaled.

    Attributes:
        name: Of the feature.
        column: The raw column.
        low: Smaller values count as this (in the column's own unit).
        high: Larger values count as this.
        log: Whether sign(x) * log(1 + |x|) is taken.
        fill: What stands for a missing value, after clip and logarithm.
        center: Subtracted.
        factor: Multiplied by then; 0 for a column that never varied.
        limit: The result stays within plus and minus this.
        points: Of the quantile scale: rising values, or nothing for the other scales.
        ranks: What each point becomes; between points linear.
        indicator: Whether a second feature says that the value is missing (1.0) or not (0.0).
    """

    name: str
    column: str
    low: float = -LARGEST
    high: float = LARGEST
    log: bool = False
    fill: float = 0.0
    center: float = 0.0
    factor: float = 1.0
    limit: float = LARGEST_SCALED
    points: tuple[float, ...] = ()
    ranks: tuple[float, ...] = ()
    indicator: bool = False

    kind = "numeric"

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns."""
        return (self.column,)

    @property
    def numeric_names(self) -> list[str]:
        """The names of its numbers."""
        return [self.name, f"{self.name}.missing"] if self.indicator else [self.name]

    @property
    def id_columns(self) -> list[Ids]:
        """Its columns of ids."""
        return []

    @functools.cached_property
    def _curve(self) -> tuple[Array, Array]:
        return np.array(self.points), np.array(self.ranks)

    def prepare(self, ops: Operations, x: Any) -> Any:
        """Clip and logarithm; whatever is not finite comes out as 0."""
        x = ops.where(ops.is_finite(x), x, 0.0)
        x = ops.clip(x, max(self.low, -LARGEST), min(self.high, LARGEST))
        return ops.sign(x) * ops.log1p(abs(x)) if self.log else x

    def evaluate(self, ops: Operations, raw: Sequence[Any], types: Sequence[str]) -> Outputs:
        """Its outputs, from its raw columns in their canonical forms."""
        present = ops.is_finite(raw[0])
        x = ops.where(present, self.prepare(ops, raw[0]), self.fill)
        if self.points:
            x = _interpolate(ops, x, *self._curve)
        y = ops.clip((x - self.center) * self.factor, -self.limit, self.limit)
        return Outputs([y, ops.where(present, 0.0, 1.0)] if self.indicator else [y], [])


@dataclasses.dataclass(frozen=True)
class Bucketize:
    """A number as the id of its bucket: 0 missing, 1 below the first boundary, i + 1 from boundary i on.

    Attributes:
        name: Of the feature.
        column: The raw column.
        boundaries: Rising; a value on a boundary belongs to the bucket above.
        encode: "embedding" (the id) or "one_hot" (a number for each id).
    """

    name: str
    column: str
    boundaries: tuple[float, ...]
    encode: str = "embedding"

    kind = "bucketize"

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns."""
        return (self.column,)

    @property
    def numeric_names(self) -> list[str]:
        """The names of its numbers."""
        return self.id_labels if self.encode == "one_hot" else []

    @property
    def id_columns(self) -> list[Ids]:
        """Its columns of ids."""
        return [Ids(self.name, len(self.boundaries) + 2)]

    @property
    def id_labels(self) -> list[str]:
        """The name of each id."""
        return [f"{self.name}{tail}" for tail in (".missing", ".lowest", *(f">={_label(b)}" for b in self.boundaries))]

    def evaluate(self, ops: Operations, raw: Sequence[Any], types: Sequence[str]) -> Outputs:
        """Its outputs, from its raw columns in their canonical forms."""
        present = ops.is_finite(raw[0])
        x = ops.where(present, raw[0], 0.0)
        ids = ops.where(present, ops.place(np.array(self.boundaries, dtype=np.float64), x) + 1, MISSING_ID)
        return _encoded(ops, [ids], self.id_columns, self.encode)


@dataclasses.dataclass(frozen=True)
class Category:
    """A value, or the values of several columns together, as an id: 0 missing, then the vocabulary, then the rest.

    Attributes:
        name: Of the feature.
        columns: The raw columns; with several, missing means that all of them are.
        vocabulary: The values that have an id of their own, the most frequent first: text, or numbers for one
            column of numbers. Empty where all are hashed.
        buckets: Every other value gets the id of one of so many buckets, by SipHash of its text.
        encode: "embedding" (the id) or "one_hot" (a number for each id).
    """

    name: str
    columns: tuple[str, ...]
    vocabulary: tuple[Any, ...] = ()
    buckets: int = 1
    encode: str = "embedding"

    kind = "category"

    @property
    def numeric_names(self) -> list[str]:
        """The names of its numbers."""
        return self.id_labels if self.encode == "one_hot" else []

    @property
    def id_columns(self) -> list[Ids]:
        """Its columns of ids."""
        return [Ids(self.name, 1 + len(self.vocabulary) + self.buckets)]

    @property
    def id_labels(self) -> list[str]:
        """The name of each id."""
        values = [f"={_label(value)}" for value in self.vocabulary]
        rest = [".other"] if self.buckets == 1 else [f".other_{i}" for i in range(self.buckets)]
        return [f"{self.name}{tail}" for tail in (".missing", *values, *rest)]

    @functools.cached_property
    def text_ids(self) -> dict[bytes, int]:
        """The id of each text of the vocabulary, as UTF-8."""
        texts = [value for value in self.vocabulary if isinstance(value, str)]
        return {value.encode("utf-8", "surrogatepass"): place + 1 for place, value in enumerate(texts)}

    @functools.cached_property
    def number_ids(self) -> tuple[Array, Array]:
        """The numbers of the vocabulary, rising, and their ids."""
        numbers = np.array([value for value in self.vocabulary if not isinstance(value, str)], dtype=np.float64)
        order = np.argsort(numbers)
        return numbers[order], order.astype(np.int64) + 1

    def evaluate(self, ops: Operations, raw: Sequence[Any], types: Sequence[str]) -> Outputs:
        """Its outputs, from its raw columns in their canonical forms."""
        return _encoded(ops, [ops.category(self, raw, types)], self.id_columns, self.encode)


@dataclasses.dataclass(frozen=True)
class Time:
    """A time as parts (ids) and as cycles (the sine and cosine of where it lies in a day, week, month or year).

    A missing time has id 0 in every part and (0, 0), the middle of the circle, in every cycle.

    Attributes:
        name: Of the feature.
        column: The raw column.
        parts: Of `PARTS`.
        cycles: Of `CYCLES`.
        encode: Of the parts: "embedding" (the id) or "one_hot" (a number for each id).
        time_zone: Whose clock to read, for a column of UTC times; empty: the clock of the column itself.
        changes: When that zone's offset changed, microseconds since 1970, UTC.
        offsets: The offset in seconds before the first change, and after each.
    """

    name: str
    column: str
    parts: tuple[str, ...] = ()
    cycles: tuple[str, ...] = ()
    encode: str = "embedding"
    time_zone: str = ""
    changes: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()

    kind = "time"

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns."""
        return (self.column,)

    @property
    def numeric_names(self) -> list[str]:
        """The names of its numbers."""
        waves = [f"{self.name}.{cycle}.{wave}" for cycle in self.cycles for wave in ("sin", "cos")]
        return waves + (self.id_labels if self.encode == "one_hot" else [])

    @property
    def id_columns(self) -> list[Ids]:
        """Its columns of ids."""
        return [Ids(f"{self.name}.{part}", PARTS[part][1] + 1) for part in self.parts]

    @property
    def id_labels(self) -> list[str]:
        """The name of each id of each part."""
        labels = []
        for part in self.parts:
            least, count = PARTS[part]
            labels += [f"{self.name}.{part}{tail}" for tail in (".missing", *(f"={least + i}" for i in range(count)))]
        return labels

    @functools.cached_property
    def _zone(self) -> tuple[Array, Array]:
        """The changes and the offsets, in microseconds."""
        return np.array(self.changes, dtype=np.int64), np.array(self.offsets, dtype=np.int64) * 1_000_000

    def evaluate(self, ops: Operations, raw: Sequence[Any], types: Sequence[str]) -> Outputs:
        """Its outputs, from its raw columns in their canonical forms."""
        present = raw[0] != times.MISSING
        time = ops.where(present, raw[0], 0)
        if self.offsets:
            changes, offsets = self._zone
            time = time + ops.take(offsets, ops.place(changes, time))
        moment = _Moment(ops, time)
        waves = []
        for cycle in self.cycles:
            angle = 2.0 * np.pi * getattr(moment, cycle)()
            waves += [ops.where(present, ops.sin(angle), 0.0), ops.where(present, ops.cos(angle), 0.0)]
        ids = [ops.where(present, getattr(moment, part)() - PARTS[part][0] + 1, MISSING_ID) for part in self.parts]
        coded = _encoded(ops, ids, self.id_columns, self.encode)
        return Outputs(waves + coded.numeric, coded.ids)


Feature = Numeric | Bucketize | Category | Time

KINDS: dict[str, type[Any]] = {cls.kind: cls for cls in (Numeric, Bucketize, Category, Time)}


def feature_from_dict(document: dict[str, Any]) -> Feature:
    """A feature from its JSON form."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise TransformError("a kind of feature that is not known", allowed=list(KINDS), received=kind)
    try:
        feature: Feature = KINDS[kind](**fields)
    except TypeError as error:
        raise TransformError("a damaged transform", where=f"feature {fields.get('name')!r}", received=error) from None
    return feature


def feature_as_dict(feature: Feature) -> dict[str, Any]:
    """A feature's JSON form."""
    values = {field.name: getattr(feature, field.name) for field in dataclasses.fields(feature)}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {"kind": feature.kind, **plain}


class _Moment:
    """Times (microseconds since 1970, by the clock to be read) taken apart, each part when it is first asked for."""

    def __init__(self, ops: Operations, time: Any) -> None:
        self._ops = ops
        self._days = time // times.MICROSECONDS_A_DAY
        self._microseconds = time - self._days * times.MICROSECONDS_A_DAY
        self._date: times.Civil | None = None

    def _civil(self) -> times.Civil:
        if self._date is None:
            self._date = times.civil_of(self._days)
        return self._date

    def minute(self) -> Any:
        return self._microseconds // 60_000_000 % 60

    def hour(self) -> Any:
        return self._microseconds // 3_600_000_000

    def weekday(self) -> Any:
        return (self._days + 3) % 7  # 1970-01-01 was a Thursday

    def day(self) -> Any:
        return self._civil().day

    def month(self) -> Any:
        return self._civil().month

    def quarter(self) -> Any:
        return (self._civil().month + 2) // 3

    def hour_of_day(self) -> Any:
        return self._ops.to_float(self._microseconds) / float(times.MICROSECONDS_A_DAY)

    def day_of_week(self) -> Any:
        return (self._ops.to_float(self.weekday()) + self.hour_of_day()) / 7.0

    def day_of_month(self) -> Any:
        year, month, day = self._civil()
        length = times.days_of(year + month // 12, month % 12 + 1, 1) - times.days_of(year, month, 1)
        return (self._ops.to_float(day - 1) + self.hour_of_day()) / self._ops.to_float(length)

    def day_of_year(self) -> Any:
        year = self._civil().year
        first = times.days_of(year, 1, 1)
        length = times.days_of(year + 1, 1, 1) - first
        return (self._ops.to_float(self._days - first) + self.hour_of_day()) / self._ops.to_float(length)


def _interpolate(ops: Operations, x: Any, points: Array, ranks: Array) -> Any:
    """Piecewise linear through rising points, level before the first and after the last.

    There is no jump at any x, so that interpreters whose logarithms differ in the last digit agree.
    """
    upper = ops.clip(ops.place(points, x), 1, len(points) - 1)
    x0, x1 = ops.take(points, upper - 1), ops.take(points, upper)
    y0, y1 = ops.take(ranks, upper - 1), ops.take(ranks, upper)
    return y0 + ops.clip((x - x0) / (x1 - x0), 0.0, 1.0) * (y1 - y0)


def _encoded(ops: Operations, ids: list[Any], columns: list[Ids], encode: str) -> Outputs:
    if encode != "one_hot":
        return Outputs([], ids)
    spread = [ops.one_hot(one, column.size) for one, column in zip(ids, columns, strict=True)]
    return Outputs([values for columns_of_one in spread for values in columns_of_one], [])


def _label(value: Any) -> str:
    if isinstance(value, str):
        return value.replace(SEPARATOR.decode(), SEPARATOR_SHOWN)
    return str(int(value)) if float(value).is_integer() and abs(value) <= LARGEST_EXACT else repr(float(value))
