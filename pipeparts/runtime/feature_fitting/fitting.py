"""Fitting: what each kind of feature learns from a stream of batches, in bounded memory."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import math
import zoneinfo
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.feature_fitting import declared
from pipeparts.runtime.feature_fitting.sketch import QuantileSketch
from pipeparts.runtime.serving import features as fitted
from pipeparts.runtime.serving import times
from pipeparts.runtime.serving.transform import NUMPY, Transform, category_text
from pipeparts.runtime.serving.values import Strings, TransformError

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

#: The most memory that the counts of all vocabularies may take together, as it is estimated.
MOST_BYTES = 200_000_000
_BYTES_A_VALUE = 150

#: A column whose values lie closer together than this share of their size has no variation that float64 can scale.
_LEAST_SPREAD = 1e-13
_LEAST_SPREAD_OF_LOGARITHMS = 1e-9

_SAMPLE = 20_000
_TOP_SHOWN = 12


class Fit(Protocol):
    """A feature while it is fitted."""

    name: str
    columns: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The memory that its counts take."""

    def update(self, raw: Sequence[Any]) -> None:
        """Learns from the raw columns of a batch, in their canonical forms."""

    def finish(self) -> tuple[fitted.Feature, dict[str, Any]]:
        """The fitted feature, and what people want to know of it (JSON-able)."""


def start_fit(name: str, declaration: declared.Declared, types: Sequence[str]) -> Fit:
    """Begins to fit a feature.

    Raises:
        InputError: For parts of a clock's time where the column has dates, and for a time zone that is not known.
    """
    columns = declaration.raw_columns(name)
    if isinstance(declaration, declared.Numeric):
        return NumericFit(name, columns, declaration)
    if isinstance(declaration, declared.Bucketize):
        return BucketizeFit(name, columns, declaration)
    if isinstance(declaration, declared.Category):
        return CategoryFit(name, columns, declaration, numbers=len(types) == 1 and types[0] != "string")
    return TimeFit(name, columns, declaration, types[0])


def assemble(columns: Mapping[str, str], finished: Sequence[tuple[fitted.Feature, dict[str, Any]]]) -> Transform:
    """The transform of fitted features; what deserves a warning is logged.

    Args:
        columns: The raw columns, name to type name.
        finished: Each feature with its statistics, in the order of the outputs.

    Raises:
        InputError: For two outputs of the same name.
    """
    statistics = {feature.name: found for feature, found in finished}
    for name, found in statistics.items():
        if found["missing"] == found["rows"]:
            logger.warning("feature %s: every value is missing", name)
        elif found.get("varies") is False and found["scale"] != "none":
            logger.warning("feature %s: the values do not vary, so it is always 0", name)
        elif found.get("vocabulary") == 0 and found["distinct"] is not None:
            logger.warning("feature %s: no value is seen often enough for the vocabulary", name)
        if found["infinite"]:
            logger.warning("feature %s: %d infinite values count as missing", name, found["infinite"])
    try:
        return Transform(columns, [feature for feature, _ in finished], statistics)
    except TransformError as error:
        raise InputError(error.headline, parameter="features", **error.facts) from None


class Moments:
    """Count, mean and variance, a batch at a time (Chan, Golub and LeVeque, 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0
        self.least = math.inf
        self.greatest = -math.inf

    def update(self, values: Floats) -> None:
        """Adds n finite numbers, none beyond 1e150."""
        if len(values) == 0:
            return
        mean = float(values.mean())
        away = values - mean
        squares = float(np.square(away, out=away).sum())  # np.dot would start threads that cost more than they save
        total = self.count + len(values)
        delta = mean - self.mean
        self.mean += delta * (len(values) / total)
        self._squares += squares + delta * delta * (self.count * len(values) / total)
        self.count = total
        self.least = min(self.least, float(values.min()))
        self.greatest = max(self.greatest, float(values.max()))

    @property
    def deviation(self) -> float:
        """The standard deviation with n."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0


class Sample:
    """Every k-th number, k doubled whenever there are too many: for plots."""

    def __init__(self) -> None:
        self._kept: list[Floats] = []
        self._count = 0
        self._stride = 1
        self._next = 0

    def update(self, values: Floats) -> None:
        """Adds n numbers."""
        part = values[self._next :: self._stride].copy()
        self._next = (self._next - len(values)) % self._stride
        self._kept.append(part)
        self._count += len(part)
        if self._count > 2 * _SAMPLE:
            self._kept = [self.values[::2].copy()]
            # The number after the last one kept lies one old stride away from it, or two.
            self._next += 0 if self._count % 2 == 0 else self._stride
            self._count = len(self._kept[0])
            self._stride *= 2

    @property
    def values(self) -> Floats:
        """The sample, in the order of the rows."""
        return np.concatenate(self._kept) if self._kept else np.zeros(0)


class NumericFit:
    """Fits `numeric`."""

    def __init__(self, name: str, columns: tuple[str, ...], declaration: declared.Numeric) -> None:
        self.name = name
        self.columns = columns
        self.bytes = 0
        self._declared = declaration
        self._feature = start_numeric(name, columns[0], declaration)
        self._seen = _Seen()
        self._moments = Moments()
        self._sample = Sample()
        self._sketch = QuantileSketch() if needs_quantiles(declaration) else None

    def update(self, raw: Sequence[Any]) -> None:
        """Learns from a batch."""
        present = self._seen.update(raw[0])
        with np.errstate(all="ignore"):
            values = self._feature.prepare(NUMPY, present)
        self._moments.update(values)
        self._sample.update(values)
        if self._sketch is not None:
            self._sketch.update(values)

    def finish(self) -> tuple[fitted.Feature, dict[str, Any]]:
        """Gives the fitted feature and its statistics."""
        moments = self._moments
        return finish_numeric(
            self._feature,
            self._declared,
            NumberSummary(
                **self._seen.as_dict(),
                mean=moments.mean,
                deviation=moments.deviation,
                least=moments.least,
                greatest=moments.greatest,
                shown=_percentiles(self._sample.values),
                sketch=self._sketch,
            ),
        )


class BucketizeFit:
    """Fits `bucketize`."""

    def __init__(self, name: str, columns: tuple[str, ...], declaration: declared.Bucketize) -> None:
        self.name = name
        self.columns = columns
        self.bytes = 0
        self._declared = declaration
        self._seen = _Seen()
        self._sample = Sample()
        self._sketch = QuantileSketch() if needs_quantiles(declaration) else None

    def update(self, raw: Sequence[Any]) -> None:
        """Learns from a batch."""
        values = np.clip(self._seen.update(raw[0]), -fitted.LARGEST, fitted.LARGEST)
        self._sample.update(values)
        if self._sketch is not None:
            self._sketch.update(values)

    def finish(self) -> tuple[fitted.Feature, dict[str, Any]]:
        """Gives the fitted feature and its statistics."""
        return finish_bucketize(
            self.name,
            self.columns[0],
            self._declared,
            NumberSummary(**self._seen.as_dict(), shown=_percentiles(self._sample.values), sketch=self._sketch),
        )


class CategoryFit:
    """Fits `category`: exact counts of every value."""

    def __init__(self, name: str, columns: tuple[str, ...], declaration: declared.Category, *, numbers: bool) -> None:
        self.name = name
        self.columns = columns
        self.bytes = 0
        self._declared = declaration
        self._numbers = numbers
        self._rows = 0
        self._missing = 0
        self._counts: dict[Any, int] = {}

    def update(self, raw: Sequence[Any]) -> None:
        """Learns from a batch."""
        for column, values in zip(self.columns, raw, strict=True):
            require_exact(column, values)
        if self._numbers:
            self._update_numbers(raw[0])
        else:
            self._update_text(category_text(raw))

    def finish(self) -> tuple[fitted.Feature, dict[str, Any]]:
        """Gives the fitted feature and its statistics."""
        return finish_category(
            self.name, self.columns, self._declared, self._counts, rows=self._rows, missing=self._missing
        )

    def _update_numbers(self, numbers: Floats) -> None:
        self._rows += len(numbers)
        present = numbers[np.isfinite(numbers)] + 0.0  # -0.0 becomes 0.0
        self._missing += len(numbers) - len(present)
        if not self._declared.hashed:
            values, counts = np.unique(present, return_counts=True)
            self._add(values.tolist(), counts.tolist(), 8)

    def _update_text(self, text: Strings) -> None:
        self._rows += len(text.codes)
        counts = np.bincount(text.codes, minlength=len(text.distinct)).tolist()
        missing = sum(count for value, count in zip(text.distinct, counts, strict=True) if not value)
        self._missing += missing
        if not self._declared.hashed:
            self._add([value if count else b"" for value, count in zip(text.distinct, counts, strict=True)], counts, 0)

    def _add(self, values: list[Any], counts: list[int], width: int) -> None:
        seen = self._counts
        for value, count in zip(values, counts, strict=True):
            if value == b"":
                continue
            if value in seen:
                seen[value] += count
            else:
                seen[value] = count
                self.bytes += _BYTES_A_VALUE + (width or len(value))


class TimeFit:
    """Fits `time`: there is nothing to learn but how often it is missing, and the time zone's changes."""

    def __init__(self, name: str, columns: tuple[str, ...], declaration: declared.Time, type_name: str) -> None:
        self.name = name
        self.columns = columns
        self.bytes = 0
        self._feature = start_time(name, columns[0], declaration, type_name)
        self._rows = self._missing = 0
        self._least, self._greatest = times.FURTHEST, -times.FURTHEST

    def update(self, raw: Sequence[Any]) -> None:
        """Learns from a batch."""
        present = raw[0][raw[0] != times.MISSING]
        self._rows += len(raw[0])
        self._missing += len(raw[0]) - len(present)
        if len(present):
            self._least = min(self._least, int(present.min()))
            self._greatest = max(self._greatest, int(present.max()))

    def finish(self) -> tuple[fitted.Feature, dict[str, Any]]:
        """Gives the fitted feature and its statistics."""
        return finish_time(
            self._feature, rows=self._rows, missing=self._missing, least=self._least, greatest=self._greatest
        )


class Quantiles(Protocol):
    """What knows the quantiles of a feature's numbers."""

    @property
    def least(self) -> float:
        """The least number."""

    @property
    def rank_error(self) -> float:
        """The most by which the rank of a quantile is off, as a share of all numbers."""

    def quantiles(self, ranks: Floats) -> Floats:
        """The numbers at ranks from 0 to 1."""


@dataclasses.dataclass(frozen=True)
class NumberSummary:
    """What a feature of numbers learns from all rows, however they were counted.

    Attributes:
        rows: All rows.
        missing: Those without a finite number.
        infinite: Those that are infinite.
        mean: Of the numbers, after clip and logarithm.
        deviation: Their standard deviation, with n.
        least: The least of them.
        greatest: The greatest of them.
        shown: Their percentiles from 0 to 100, for plots; empty without any.
        sketch: Their quantiles, where the declaration asks for some.
    """

    rows: int
    missing: int
    infinite: int
    mean: float = 0.0
    deviation: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf
    shown: Sequence[float] = ()
    sketch: Quantiles | None = None

    @property
    def present(self) -> int:
        """Rows with a finite number."""
        return self.rows - self.missing

    def varies(self, least_spread: float) -> bool:
        """Whether there is a variation to scale by."""
        size = max(abs(self.least), abs(self.greatest))
        return self.present > 0 and self.least < self.greatest and self.deviation > least_spread * size

    def as_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"rows": self.rows, "missing": self.missing, "infinite": self.infinite}


def needs_quantiles(declaration: declared.Numeric | declared.Bucketize) -> bool:
    """Whether the feature is made from quantiles."""
    if isinstance(declaration, declared.Bucketize):
        return declaration.boundaries is None
    return declaration.scale == "quantile" or declaration.missing == "median"


def start_numeric(name: str, column: str, declaration: declared.Numeric) -> fitted.Numeric:
    """The feature as far as it is known before any row: enough to prepare the numbers."""
    low, high = declaration.bounds
    return fitted.Numeric(name=name, column=column, low=low, high=high, log=declaration.log)


def finish_numeric(
    started: fitted.Numeric, wanted: declared.Numeric, found: NumberSummary
) -> tuple[fitted.Numeric, dict[str, Any]]:
    """The fitted feature and its statistics.

    Args:
        started: From `start_numeric`.
        wanted: Its declaration.
        found: What its numbers, prepared by `started`, are like.
    """
    feature = dataclasses.replace(
        started,
        fill=_fill(started, wanted, found),
        indicator=found.missing > 0 if wanted.indicator == "auto" else wanted.indicator,
    )
    varies = found.varies(_LEAST_SPREAD_OF_LOGARITHMS if wanted.log else _LEAST_SPREAD)
    if wanted.scale == "none":
        feature = dataclasses.replace(feature, limit=fitted.LARGEST_FLOAT32)
    elif not varies:
        feature = dataclasses.replace(feature, factor=0.0)
    elif wanted.scale == "quantile":
        assert found.sketch is not None
        points, ranks = _quantile_map(found.sketch, wanted.quantiles)
        feature = dataclasses.replace(feature, points=points, ranks=ranks)
    elif wanted.scale == "minmax":
        feature = dataclasses.replace(feature, center=found.least, factor=_inverse(found.greatest - found.least))
    else:
        feature = dataclasses.replace(feature, center=found.mean, factor=_inverse(found.deviation))
    is_known = found.present > 0
    statistics = found.as_dict() | {
        "scale": wanted.scale,
        "varies": varies,
        "mean": found.mean if is_known else None,
        "deviation": found.deviation if is_known else None,
        "least": found.least if is_known else None,
        "greatest": found.greatest if is_known else None,
        "rank_error": found.sketch.rank_error if found.sketch is not None else None,
        "quantiles": list(found.shown) if is_known else [],
    }
    return feature, statistics


def finish_bucketize(
    name: str, column: str, wanted: declared.Bucketize, found: NumberSummary
) -> tuple[fitted.Bucketize, dict[str, Any]]:
    """The fitted feature and its statistics."""
    boundaries = wanted.boundaries
    if boundaries is None:
        assert found.sketch is not None
        boundaries = _quantile_boundaries(found.sketch, wanted.buckets or 10) if found.present else ()
    feature = fitted.Bucketize(name=name, column=column, boundaries=boundaries, encode=wanted.encode)
    statistics = found.as_dict() | {
        "boundaries": list(boundaries),
        "rank_error": found.sketch.rank_error if found.sketch is not None else None,
        "quantiles": list(found.shown),
    }
    return feature, statistics


def finish_category(
    name: str,
    columns: tuple[str, ...],
    wanted: declared.Category,
    counts: Mapping[Any, int],
    *,
    rows: int,
    missing: int,
    is_whole: bool = True,
) -> tuple[fitted.Category, dict[str, Any]]:
    """The fitted feature and its statistics.

    Args:
        name: Of the feature.
        columns: Its raw columns.
        wanted: Its declaration.
        counts: How often each value is: a number, or a text as UTF-8. Those below `min_count` may be left out.
        rows: All rows.
        missing: Those without a value.
        is_whole: Whether `counts` has all values.
    """
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [item for item in order if item[1] >= wanted.min_count][: wanted.most_values]
    feature = fitted.Category(
        name=name,
        columns=columns,
        vocabulary=tuple(_shown(value) for value, _ in kept),
        buckets=(wanted.buckets or 64) if wanted.hashed else wanted.oov_buckets,
        encode="embedding" if wanted.encode == "hash" else wanted.encode,
    )
    present = rows - missing
    statistics = {
        "rows": rows,
        "missing": missing,
        "infinite": 0,
        "distinct": None if wanted.hashed or not is_whole else len(order),
        "vocabulary": len(kept),
        "coverage": sum(count for _, count in kept) / present if present and not wanted.hashed else None,
        "top": [[str(_shown(value)), count] for value, count in kept[:_TOP_SHOWN]],
    }
    return feature, statistics


def start_time(name: str, column: str, declaration: declared.Time, type_name: str) -> fitted.Time:
    """The feature of a time: there is nothing to learn for it.

    Raises:
        InputError: For parts of a clock's time where the column has dates, and for a time zone that is not known.
    """
    parts, cycles = declaration.parts, declaration.cycles
    if not parts and not cycles:
        clock: tuple[declared.Cycle, ...] = () if type_name == "date" else ("hour_of_day",)
        cycles = (*clock, "day_of_week", "day_of_year")
    if type_name == "date":
        _refuse_clock(name, column, parts, cycles)
    if declaration.time_zone and type_name != "timestamp_utc":
        raise InputError(
            "a time zone for a column whose times have none",
            parameter=f"features.{name}.time_zone",
            where=f"column {column!r}",
            allowed="a column of type timestamp_utc; or no time_zone, to read the times as they are",
            received=f"{declaration.time_zone} for a column of type {type_name}",
        )
    changes, offsets = zone_changes(declaration.time_zone, name) if declaration.time_zone else ((), ())
    return fitted.Time(
        name=name,
        column=column,
        parts=tuple(dict.fromkeys(parts)),
        cycles=tuple(dict.fromkeys(cycles)),
        encode=declaration.encode,
        time_zone=declaration.time_zone,
        changes=changes,
        offsets=offsets,
    )


def finish_time(
    feature: fitted.Time, *, rows: int, missing: int, least: int, greatest: int
) -> tuple[fitted.Time, dict[str, Any]]:
    """The feature and its statistics; least and greatest in microseconds since 1970."""
    seen = rows > missing
    statistics = {
        "rows": rows,
        "missing": missing,
        "infinite": 0,
        "least": time_text(least) if seen else None,
        "greatest": time_text(greatest) if seen else None,
    }
    return feature, statistics


def _fill(started: fitted.Numeric, wanted: declared.Numeric, found: NumberSummary) -> float:
    if not isinstance(wanted.missing, str):
        with np.errstate(all="ignore"):
            return float(started.prepare(NUMPY, np.array([float(wanted.missing)]))[0])
    if found.present == 0:
        return 0.0
    if wanted.missing == "mean":
        return found.mean
    assert found.sketch is not None
    return float(found.sketch.quantiles(np.array([0.5]))[0])


def _quantile_map(sketch: Quantiles, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rising values and their ranks; a value that is several quantiles gets the middle of its ranks.

    As in scikit-learn's QuantileTransformer: the least value is 0 and the greatest 1, however often they come.
    """
    grid = np.linspace(0.0, 1.0, count)
    quantiles = sketch.quantiles(grid)
    points, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
    ranks = (grid[first] + grid[first + counts - 1]) / 2
    ranks[0], ranks[-1] = 0.0, 1.0
    return tuple(points.tolist()), tuple(ranks.tolist())


def _quantile_boundaries(sketch: Quantiles, buckets: int) -> tuple[float, ...]:
    found = np.unique(sketch.quantiles(np.arange(1, buckets) / buckets))
    # Below the least value there would be an empty bucket.
    return tuple(found[found > sketch.least].tolist())


def _percentiles(values: Floats) -> list[float]:
    return [float(q) for q in np.quantile(values, np.linspace(0, 1, 101))] if len(values) else []


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogatepass")
    return int(value) if value.is_integer() else value


def zone_changes(name: str, feature: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """When a time zone's offset changed between 1900 and 2100, and the offsets around these changes.

    Returns:
        The changes in microseconds since 1970 (UTC), and the offset in seconds before the first and after each.

    Raises:
        InputError: For a time zone that is not known here.
    """
    try:
        zone = zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            "a time zone that is not known",
            parameter=f"features.{feature}.time_zone",
            allowed="a name of the IANA time zone database, such as Europe/Berlin",
            received=name,
            hint=None if zoneinfo.available_timezones() else "there is no time zone database here: install `tzdata`",
        ) from None
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

    def offset(second: int) -> int:
        local = (epoch + datetime.timedelta(seconds=second)).astimezone(zone)
        away = local.utcoffset()
        assert away is not None
        return away.days * 86_400 + away.seconds

    first, last = times.days_of(1900, 1, 1) * 86_400, times.days_of(2100, 1, 1) * 86_400
    changes, offsets = [], [offset(first)]
    for day in range(first, last, 86_400):
        after = offset(day + 86_400)
        if after == offsets[-1]:
            continue
        low, high = day, day + 86_400  # the change lies in between: halve until it is found to the second
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if offset(middle) != offsets[-1] else (middle, high)
        changes.append(high * 1_000_000)
        offsets.append(after)
    return tuple(changes), tuple(offsets)


def time_text(microseconds: int) -> str:
    """A time as people read it."""
    days, rest = divmod(microseconds, times.MICROSECONDS_A_DAY)
    year, month, day = times.civil_of(days)
    minutes = rest // 60_000_000
    return f"{year:04d}-{month:02d}-{day:02d} {minutes // 60:02d}:{minutes % 60:02d}"


class _Seen:
    """Counts of a column of numbers."""

    def __init__(self) -> None:
        self.rows = self.missing = self.infinite = 0

    def update(self, numbers: Floats) -> Floats:
        """Adds a batch and gives what is finite of it."""
        finite = np.isfinite(numbers)
        count = int(np.count_nonzero(finite))
        self.rows += len(numbers)
        if count == len(numbers):
            return numbers
        self.missing += len(numbers) - count
        self.infinite += int(np.count_nonzero(np.isinf(numbers)))
        return numbers[finite]

    def as_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "missing": self.missing, "infinite": self.infinite}


def _inverse(span: float) -> float:
    inverse = 1.0 / span
    return inverse if math.isfinite(inverse) else 0.0


def require_exact(column: str, values: Any) -> None:
    """Refuses a category of numbers that float64 cannot tell apart.

    Raises:
        DataError: Naming the first of them.
    """
    if isinstance(values, Strings) or not len(values):
        return
    with np.errstate(invalid="ignore"):
        beyond = values[np.isfinite(values) & (np.abs(values) > fitted.LARGEST_EXACT)]
    if len(beyond):
        raise DataError(
            "a category of numbers that are too large to be told apart",
            where=f"column {column!r}",
            allowed="whole numbers up to 2**53 (9,007,199,254,740,992)",
            received=f"{beyond[0]:.17g}",
            hint="give the column the type string where it is ingested",
        )


def _refuse_clock(name: str, column: str, parts: Sequence[str], cycles: Sequence[str]) -> None:
    wrong = [part for part in parts if part in fitted.CLOCK_PARTS]
    wrong += [cycle for cycle in cycles if cycle in fitted.CLOCK_CYCLES]
    if wrong:
        raise InputError(
            "a part of the day from a column of dates",
            parameter=f"features.{name}",
            where=f"column {column!r} (date)",
            allowed=[p for p in fitted.PARTS if p not in fitted.CLOCK_PARTS]
            + [c for c in fitted.CYCLES if c not in fitted.CLOCK_CYCLES],
            received=wrong,
        )
