"""The profile contract: what is known of a table's columns, as one JSON file.

`profile_table` writes it, `validate_table` and the drift reports read it, and it travels with the model
that was trained on the table.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pydantic

from pipeparts.runtime.errors import ContractError, DataError, suggest
from pipeparts.runtime.files import read_json, write_json
from pipeparts.runtime.params import Params

FORMAT = "pipeparts.profile/1"

Kind = Literal["number", "text", "binary", "boolean", "time", "nested", "empty"]

TimeUnit = Literal["day", "s", "ms", "us", "ns"]
TimeForm = Literal["date", "timestamp", "time", "duration"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
K = TypeVar("K", np.int64, np.uint64)

#: The quantiles that every profile holds.
QUANTILES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)

_MAGNITUDE = np.int64(0x7FFFFFFFFFFFFFFF)
_LARGEST = np.int64(0x7FEFFFFFFFFFFFFF)  # the bits of the largest finite float64


class Distinct(Params):
    """How many different values a column has.

    Attributes:
        count: The number, missing values left out.
        exact: Whether it was counted, or estimated (HyperLogLog).
        standard_error: The relative standard error of an estimate; 0 where exact.
    """

    count: int
    exact: bool
    standard_error: float


class TopValue(Params):
    """A value and how often it occurs, exactly."""

    value: bool | int | float | str
    count: int


class TopValues(Params):
    """The most frequent values, the most frequent first; equal counts in the order of the values.

    Attributes:
        values: The values with their exact counts. Texts above 256 bytes are cut and carry a hash of the whole.
        complete: Whether these are all the values that the column has.
        others_at_most: No value that is not listed occurs more often than this.
    """

    values: tuple[TopValue, ...]
    complete: bool
    others_at_most: int

    def counts(self) -> dict[bool | int | float | str, int]:
        """Value to count."""
        return {item.value: item.count for item in self.values}


class Histogram(Params):
    """Counts in buckets: each distinct value its own, or log-linear buckets with a bounded relative width.

    A float64's bits, as an integer, are in the order of the values (once the negative ones are turned round).
    A bucket holds the values whose bits are equal but for the lowest `shift`: so the buckets of any two
    histograms lie on the same grid, the coarser of two grids is made of whole buckets of the finer one, and
    one far outlier takes one bucket and no precision. A bucket is at most 2**(shift - 52) times its value wide.

    Attributes:
        exact: Whether every bucket is one distinct value.
        shift: Of the grid; 0 where exact.
        lower: The least value of each bucket that is not empty, in order. Times are in the column's unit since 1970.
        counts: The count of each.
    """

    exact: bool
    shift: int
    lower: tuple[int | float, ...]
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """How many values it counts."""
        return sum(self.counts)

    def keys(self, shift: int | None = None) -> Ints:
        """The place of each bucket on the grid of this shift (its own where None)."""
        return ordered_bits(np.array(self.lower, dtype=np.float64)) >> np.int64(self.shift if shift is None else shift)

    def bounds(self) -> tuple[Floats, Floats]:
        """The least and the greatest value that each bucket can hold."""
        if self.exact:
            values = np.array(self.lower, dtype=np.float64)
            return values, values
        return bucket_bounds(self.keys(), self.shift)


class Numbers(Params):
    """Statistics of the numbers that are neither missing, NaN nor infinite.

    Attributes:
        minimum: The least.
        maximum: The greatest.
        mean: The mean.
        standard_deviation: With n - 1, as in pandas.
        skewness: Adjusted Fisher-Pearson G1, as in pandas; null below 3 values or where all are equal.
        kurtosis: Excess kurtosis G2, as in pandas; null below 4 values or where all are equal.
        zeros: How many are 0.
        negatives: How many are below 0.
        nan: How many were NaN, apart from the others.
        positive_infinities: How many were plus infinity.
        negative_infinities: How many were minus infinity.
        quantiles: Probability to value, interpolated linearly between the two nearest, as in numpy.
        quantile_error: The most that a quantile can be off, relative to its value; 0 where exact.
    """

    minimum: int | float | None
    maximum: int | float | None
    mean: float | None
    standard_deviation: float | None
    skewness: float | None
    kurtosis: float | None
    zeros: int
    negatives: int
    nan: int
    positive_infinities: int
    negative_infinities: int
    quantiles: dict[str, float]
    quantile_error: float


class Times(Params):
    """Statistics of dates, timestamps, times of day and durations.

    Attributes:
        form: What it is: a date, a timestamp, a time of day or a duration.
        unit: What the histogram counts since 1970 (or midnight, or zero): "day", "s", "ms", "us" or "ns".
        zone: The time zone of a timestamp, or null.
        minimum: The earliest, as ISO 8601 (a duration in its unit, as a number).
        maximum: The latest.
        quantiles: Probability to value, rounded down to the unit.
        quantile_error_seconds: The most that a quantile can be off; 0 where exact.
    """

    form: TimeForm
    unit: TimeUnit
    zone: str | None
    minimum: str | None
    maximum: str | None
    quantiles: dict[str, str]
    quantile_error_seconds: float

    def text(self, value: int | float) -> str:
        """A value of the histogram as ISO 8601."""
        return format_time(value, self.unit, self.zone, self.form)


class Texts(Params):
    """Statistics of texts (lengths in characters) or of binary values (in bytes).

    Attributes:
        empty: How many have no character (they are not missing).
        shortest: The least length.
        longest: The greatest length.
        mean_length: The mean length.
    """

    empty: int
    shortest: int | None
    longest: int | None
    mean_length: float | None


class Booleans(Params):
    """How many are true and how many false."""

    true: int
    false: int


class ColumnProfile(Params):
    """What is known of a column.

    Attributes:
        name: The column's name.
        type: The type's name in the table contract.
        kind: What statistics it has: of nested columns and of those without a type only the counts.
        count: Values that are not missing; NaN and infinities are among them.
        missing: Missing values (null).
        distinct: How many different values; null for nested columns. All NaN count as one value.
        numbers: Of a number column.
        times: Of dates and times.
        texts: Of texts and binary values.
        booleans: Of a boolean column.
        top: The most frequent values; null for floating or other numbers with more distinct values than are counted.
        histogram: Of numbers (the finite ones) and times.
    """

    name: str
    type: str
    kind: Kind
    count: int
    missing: int
    distinct: Distinct | None = None
    numbers: Numbers | None = None
    times: Times | None = None
    texts: Texts | None = None
    booleans: Booleans | None = None
    top: TopValues | None = None
    histogram: Histogram | None = None

    @property
    def missing_share(self) -> float:
        """The share of the rows where the value is missing; 0 where there is no row."""
        rows = self.count + self.missing
        return self.missing / rows if rows else 0.0


class Limits(Params):
    """What bounds the memory and the size of a profile.

    Attributes:
        exact_values: Up to so many distinct values of a column everything is exact.
        buckets: Beyond them, the most buckets from which quantiles are taken.
        bins: The most buckets of a histogram in the profile.
        top: The most values that are listed with their counts.
    """

    exact_values: int
    buckets: int
    bins: int
    top: int


class Profile(Params):
    """The statistics of a table.

    Attributes:
        rows: Number of rows.
        fingerprint: The table's content fingerprint: it says which table this is the profile of.
        source: Where the table's data came from.
        limits: Up to where the statistics are exact.
        columns: One entry a column, in the table's order.
    """

    rows: int
    fingerprint: str
    source: str
    limits: Limits
    columns: tuple[ColumnProfile, ...]

    @property
    def names(self) -> list[str]:
        """The columns' names, in order."""
        return [column.name for column in self.columns]

    def column(self, name: str) -> ColumnProfile:
        """The profile of a column.

        Raises:
            DataError: Where there is none, with the close match.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise DataError(
            "the profile has no such column", allowed=self.names, received=name, hint=suggest(name, self.names)
        )

    def metadata(self) -> dict[str, Any]:
        """What goes onto the KFP artifact, and draws in the consoles."""
        return {"rows": self.rows, "columns": len(self.columns), "fingerprint": self.fingerprint}


def write_profile(path: str | os.PathLike[str], profile: Profile) -> None:
    """Writes a profile: the same bytes for the same profile, never NaN."""
    write_json(path, {"format": FORMAT, **profile.model_dump(mode="json", exclude_none=False)})


def read_profile(path: str | os.PathLike[str]) -> Profile:
    """Reads a profile and holds it to its contract.

    Raises:
        ContractError: Where the file is missing, no profile, or damaged.
    """
    document = read_json(path, what="a profile")
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        received = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise ContractError("not a profile", where=str(path), allowed=f"format {FORMAT!r}", received=received)
    try:
        return Profile.model_validate({key: value for key, value in document.items() if key != "format"})
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ContractError(
            "a damaged profile", where=f"{path}, {place}", allowed=first["msg"], received=first.get("input")
        ) from error


def ordered_bits(values: Floats) -> Ints:
    """The bits of n float64 as n integers in the same order; -0.0 counts as 0.0."""
    bits = (values + 0.0).view(np.int64)
    return bits ^ ((bits >> np.int64(63)) & _MAGNITUDE)


def from_ordered_bits(bits: Ints) -> Floats:
    """The float64 behind ordered bits; beyond the largest finite numbers, these."""
    kept = np.clip(bits, ~_LARGEST, _LARGEST)
    return np.ascontiguousarray(kept ^ ((kept >> np.int64(63)) & _MAGNITUDE)).view(np.float64)


def bucket_bounds(keys: Ints, shift: int) -> tuple[Floats, Floats]:
    """The least and the greatest value in each bucket of a grid."""
    first = keys << np.int64(shift)
    last = first | ((np.int64(1) << np.int64(shift)) - np.int64(1))
    return from_ordered_bits(first), from_ordered_bits(last)


def merge_buckets(keys: npt.NDArray[K], counts: Ints) -> tuple[npt.NDArray[K], Ints]:
    """Adds up the counts of equal keys, and puts the keys in order."""
    if len(keys) == 0:
        return keys, counts
    if not (keys[1:] >= keys[:-1]).all():
        order = np.argsort(keys)  # not stable, and several times quicker: equal keys are added up
        keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts)


def coarsen(keys: Ints, counts: Ints, most: int) -> tuple[Ints, Ints, int]:
    """Goes over to the finest coarser grid on which at most so many buckets are not empty.

    Args:
        keys: The buckets that are not empty, in order.
        counts: The count of each.
        most: The most buckets wanted, 2 or more: the two signs never share one.

    Returns:
        The buckets, their counts, and by how much the grid's shift has grown.
    """
    if len(keys) <= most:
        return keys, counts, 0
    # Two neighbours share a bucket once the highest bit in which they differ is shifted out.
    differing = keys[1:] ^ keys[:-1]
    low, high = 0, 63
    while high - low > 1:
        middle = (low + high) // 2
        if 1 + np.count_nonzero(differing >> np.int64(middle)) > most:
            low = middle
        else:
            high = middle
    return *merge_buckets(keys >> np.int64(high), counts), high


def order_statistics(lower: Floats, upper: Floats, counts: Ints, ranks: Floats) -> Floats:
    """The values at ranks 0 to n - 1, as if the values of a bucket lay evenly over it."""
    ends = np.cumsum(counts)
    bucket = np.minimum(np.searchsorted(ends, ranks, side="right"), len(counts) - 1)
    inside = (ranks - (ends[bucket] - counts[bucket]) + 0.5) / counts[bucket]
    return lower[bucket] + (upper[bucket] - lower[bucket]) * inside


def quantiles(lower: Floats, upper: Floats, counts: Ints, probabilities: Iterable[float]) -> list[float]:
    """Quantiles, interpolated linearly between the two nearest values (numpy's and pandas' default).

    Args:
        lower: The least value of each bucket, in order.
        upper: The greatest value of each bucket.
        counts: The count of each bucket.
        probabilities: Each in [0, 1].

    Returns:
        One number a probability; none where nothing is counted.
    """
    total = int(counts.sum())
    if total == 0:
        return []
    places = np.array(list(probabilities), dtype=np.float64) * (total - 1)
    below = np.floor(places)
    first = order_statistics(lower, upper, counts, below)
    second = order_statistics(lower, upper, counts, np.minimum(below + 1, total - 1))
    part = places - below
    return [float(value) for value in first * (1 - part) + second * part]


def aligned_shares(one: Histogram, other: Histogram) -> tuple[Floats, Floats, Floats]:
    """Two histograms on the grid that they share.

    Returns:
        The shares of the one and of the other in each bucket that either has, in order, and the buckets' least values.

    Raises:
        DataError: Where one of them counts nothing.
    """
    if one.total == 0 or other.total == 0:
        raise DataError("cannot compare a histogram without values")
    shift = max(one.shift, other.shift)
    keys = [histogram.keys(shift) for histogram in (one, other)]
    union = np.union1d(*keys)
    shares = []
    for place, histogram in zip(keys, (one, other), strict=True):
        share = np.zeros(len(union))
        np.add.at(share, np.searchsorted(union, place), np.array(histogram.counts, dtype=np.float64))
        shares.append(share / share.sum())
    return shares[0], shares[1], from_ordered_bits(union << np.int64(shift))


def jensen_shannon(one: Histogram, other: Histogram, *, bins: int = 20) -> float:
    """The Jensen-Shannon divergence of two number columns, in bits: 0 where alike, 1 where nothing is shared.

    As TensorFlow Data Validation's `jensen_shannon_divergence`. The shares are taken over at most about `bins`
    bins of equal weight in the two together: with more, two samples of one distribution would seem to differ.

    Raises:
        DataError: Where one of them counts nothing.
    """
    first, second, _ = aligned_shares(one, other)
    pooled = (first + second) / 2
    # A bucket goes to the bin in which its middle lies, so that a heavy value keeps a bin to itself.
    bucket = np.floor((np.cumsum(pooled) - pooled / 2) * bins).astype(np.int64)
    p = np.bincount(bucket, first).astype(np.float64)
    q = np.bincount(bucket, second).astype(np.float64)
    middle = (p + q) / 2

    def entropy(share: Floats) -> float:
        there = share > 0
        return float(np.sum(share[there] * np.log2(share[there] / middle[there])))

    return min(1.0, max(0.0, (entropy(p) + entropy(q)) / 2))


def l_infinity(one: ColumnProfile, other: ColumnProfile) -> tuple[float, bool | int | float | str | None]:
    """The greatest difference between the shares of one value in two columns (L-infinity norm), as in TFDV.

    A value that one of the two profiles does not list counts there with 0, or, where its list is not complete,
    with the share in between that makes the difference least: so what is given was surely reached.

    Returns:
        The difference, in [0, 1], and the value; (0, None) where neither lists one.

    Raises:
        DataError: Where one of them lists no values, or has none.
    """
    if one.top is None or other.top is None or one.count == 0 or other.count == 0:
        raise DataError("cannot compare columns without counted values")
    mine, theirs = one.top.counts(), other.top.counts()
    worst: tuple[float, bool | int | float | str | None] = (0.0, None)
    for value in sorted({*mine, *theirs}, key=str):
        low_high = []
        for column, counts, top in ((one, mine, one.top), (other, theirs, other.top)):
            listed = counts.get(value)
            most = listed if listed is not None else 0 if top.complete else top.others_at_most
            low_high.append(((listed or 0) / column.count, most / column.count))
        (low, high), (other_low, other_high) = low_high
        difference = max(0.0, low - other_high, other_low - high)
        if difference > worst[0]:
            worst = (difference, value)
    return worst


def format_time(value: int | float, unit: str, zone: str | None, form: str) -> str:
    """A time in its unit, as ISO 8601.

    Args:
        value: Units since 1970 (timestamps and dates) or since midnight (times of day), or of a duration.
        unit: "day", "s", "ms", "us" or "ns".
        zone: The time zone's name, or None: a zoned time is written in UTC.
        form: "date", "timestamp", "time" or "duration".

    Returns:
        The text; a value outside the years 1 to 9999 as the number with its unit.
    """
    whole = int(np.floor(value))
    per_second = {"day": 0, "s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    if form == "duration":
        return f"{whole} {unit}"
    try:
        if form == "date":
            days = whole if unit == "day" else whole // (86_400 * per_second)
            return (datetime.date(1970, 1, 1) + datetime.timedelta(days=days)).isoformat()
        seconds, fraction = divmod(whole, per_second)
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return f"{whole} {unit}"
    digits = len(str(per_second)) - 1
    tail = f".{fraction:0{digits}d}" if fraction else ""
    if form == "time":
        return moment.strftime("%H:%M:%S") + tail
    return moment.isoformat(timespec="seconds") + tail + ("Z" if zone else "")
