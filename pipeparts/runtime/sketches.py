"""Statistics in one pass and bounded memory, the same whatever the order of the values and the cut into batches.

Everything is counted exactly up to a number of distinct values. Beyond it, numbers are counted in log-linear
buckets, texts keep their frequent values, and the distinct values are estimated by HyperLogLog.
"""

from __future__ import annotations

import hashlib
import math
import sys

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.hashing import Hashes, mix64, siphash
from pipeparts.runtime.profiles import (
    Distinct,
    Floats,
    Histogram,
    Ints,
    bucket_bounds,
    coarsen,
    merge_buckets,
    ordered_bits,
)

#: Up to so many distinct values of a column, all of its statistics are exact.
EXACT_VALUES = 65_536
#: Beyond them: the most buckets of numbers, and the most texts that are followed.
BUCKETS = 16_384
#: A text above this many bytes is counted under its beginning, its length and its hash.
LONGEST_TEXT = 256

# Values in a window are counted in an array; those outside it in sorted pairs, put together when so many wait.
_WINDOW = 1 << 18
_PENDING = 1 << 18

Keys = npt.NDArray[np.uint64]


class Moments:
    """Mean and central moments up to the fourth, numerically stable (Pebay, 2008, Sandia report 2008-6212)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.second = self.third = self.fourth = 0.0

    def add(self, values: Floats, counts: Ints | None = None) -> None:
        """Adds n finite numbers, each as often as its count says (once where None)."""
        if len(values) == 0:
            return
        part = Moments()
        with np.errstate(over="ignore", invalid="ignore"):
            weights = None if counts is None else counts.astype(np.float64)
            part.count = len(values) if counts is None else int(counts.sum())
            # The first value is taken off before the sum: a large common part costs no digits.
            part.mean = float(values[0] + _total(values - values[0], weights) / part.count)
            deviations = values - part.mean
            squares = deviations * deviations
            part.second = _total(squares, weights)
            part.third = _total(squares * deviations, weights)
            part.fourth = _total(squares * squares, weights)
            self.merge(part)

    def merge(self, other: Moments) -> None:
        """Adds what another has seen."""
        if other.count == 0:
            return
        n, m = self.count, other.count
        total = n + m
        delta = other.mean - self.mean
        step = delta / total
        fourth = (
            delta * step * step * step * n * m * (n * n - n * m + m * m)
            + 6 * step * step * (n * n * other.second + m * m * self.second)
            + 4 * step * (n * other.third - m * self.third)
        )
        third = delta * step * step * n * m * (n - m) + 3 * step * (n * other.second - m * self.second)
        self.fourth += other.fourth + fourth
        self.third += other.third + third
        self.second += other.second + delta * step * n * m
        self.mean += step * m
        self.count = total

    def deviation(self) -> float | None:
        """The standard deviation with n - 1."""
        is_known = self.count > 1 and self.second >= 0  # not where it went beyond what a float holds
        return finite(math.sqrt(self.second / (self.count - 1))) if is_known else None

    def skewness(self) -> float | None:
        """The adjusted Fisher-Pearson coefficient G1."""
        n, variance = self.count, self.second / max(1, self.count)
        cube = variance * math.sqrt(variance) if variance > 0 else 0.0
        if n < 3 or not _can_divide(cube):
            return None
        return finite(self.third / n / cube * math.sqrt(n * (n - 1)) / (n - 2))

    def kurtosis(self) -> float | None:
        """The excess kurtosis G2."""
        n, variance = self.count, self.second / max(1, self.count)
        if n < 4 or not _can_divide(variance * variance):
            return None
        excess = self.fourth / n / (variance * variance) - 3
        return finite((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * excess + 6))


class Cardinality:
    """HyperLogLog (Flajolet and others, 2007) of 2**14 registers, with Ertl's estimator (2017, arXiv 1702.01284)."""

    _BITS = 14
    STANDARD_ERROR = 1.04 / math.sqrt(1 << _BITS)

    def __init__(self) -> None:
        self._registers = np.zeros(1 << self._BITS, dtype=np.uint8)

    def add(self, hashes: Hashes) -> None:
        """Adds n values by their hashes."""
        rest_bits = 64 - self._BITS
        register = (hashes >> np.uint64(rest_bits)).astype(np.intp)
        rest = (hashes & np.uint64((1 << rest_bits) - 1)).view(np.int64).astype(np.float64)
        # The exponent of the float is the place of the highest bit; 0 has the exponent -1023.
        highest = np.maximum((rest.view(np.int64) >> np.int64(52)) - 1023, -1)
        np.maximum.at(self._registers, register, (rest_bits - highest).astype(np.uint8))

    def merge(self, other: Cardinality) -> None:
        """Adds what another has seen."""
        np.maximum(self._registers, other._registers, out=self._registers)

    def estimate(self) -> float:
        """The number of distinct values."""
        size, most = len(self._registers), 64 - self._BITS
        counts = np.bincount(self._registers, minlength=most + 2)
        total = size * _ertl_tau(1.0 - counts[most + 1] / size)
        for rank in range(most, 0, -1):
            total = 0.5 * (total + int(counts[rank]))
        total += size * _ertl_sigma(counts[0] / size)
        return 0.0 if math.isinf(total) else size * size / (2 * math.log(2)) / total


class NumberCounts:
    """Counts of numbers: of each value while they are few, then in log-linear buckets.

    The grid of buckets is the finest on which at most `buckets` of them are not empty. A finer grid never
    has fewer, so the grid follows from the set of values, not from their order.

    Args:
        integers: Whether int64 come (float64 where not).
        exact_values: Up to so many distinct values each is counted.
        buckets: Beyond them, the most buckets.
        counts_only: Whether moments may come from the buckets, and floats need no estimate of the distinct values.
    """

    def __init__(
        self,
        *,
        integers: bool,
        exact_values: int = EXACT_VALUES,
        buckets: int = BUCKETS,
        counts_only: bool = False,
    ) -> None:
        self.count = self.zeros = self.negatives = 0
        self.minimum: int | float | None = None
        self.maximum: int | float | None = None
        self.exact = True
        self.shift = 0
        self._integers = integers
        self._exact_values = exact_values
        self._buckets = buckets
        self._counts_only = counts_only
        self._moments = Moments()
        self._cardinality = Cardinality()
        # Keys are zigzag-coded: a small range on both sides of zero is one small range.
        self._sparse: Keys = np.zeros(0, np.uint64)
        self._sparse_counts: Ints = np.zeros(0, np.int64)
        self._base = 0
        self._window: Ints = np.zeros(0, np.int64)
        self._pending: list[tuple[Keys, Ints]] = []
        self._waiting = 0

    def add(self, values: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> None:
        """Adds n finite numbers."""
        if len(values) == 0:
            return
        ends = values[[values.argmin(), values.argmax()]]
        low, high = ends.tolist()
        self.minimum = low if self.minimum is None else min(self.minimum, low)
        self.maximum = high if self.maximum is None else max(self.maximum, high)
        self.count += len(values)
        if low <= 0:
            self.zeros += int(np.count_nonzero(values == 0))
            self.negatives += int(np.count_nonzero(values < 0))
        if not self.exact:
            self._add_inexact(values)
        if low > 0:
            # The keys of positive numbers are in their order.
            least, greatest = self._keys(ends).tolist()
            self._count(self._keys(values, positive=True), least, greatest)
            return
        keys = self._keys(values)
        self._count(keys, int(keys.min()), int(keys.max()))

    def finish(self) -> tuple[Distinct | None, Moments]:
        """Ends the counting: settles what is exact and the grid.

        Returns:
            The number of distinct values (None where it was not asked for and is not exact), and the moments.
        """
        self._compact()
        self._settle()
        moments = self._moments
        if self.exact:
            values, counts = self.values()
            moments.add(values.astype(np.float64), counts)
            distinct: Distinct | None = Distinct(count=len(values), exact=True, standard_error=0.0)
        elif self._counts_only and not self._integers:
            distinct = None
        else:
            estimate = min(self.count, round(self._cardinality.estimate()))
            distinct = Distinct(count=estimate, exact=False, standard_error=round(Cardinality.STANDARD_ERROR, 4))
        if self._counts_only and not self.exact:
            lower, upper, counts = self.buckets()
            moments.add(lower / 2 + upper / 2, counts)
        if self.minimum == self.maximum:
            moments.second = moments.third = moments.fourth = 0.0
        return distinct, moments

    def values(self) -> tuple[npt.NDArray[np.int64] | npt.NDArray[np.float64], Ints]:
        """Each distinct value, in order, with its count; only while exact and after `finish`."""
        keys = unzigzag(self._sparse)
        order = np.argsort(keys)
        keys, counts = keys[order], self._sparse_counts[order]
        return (keys if self._integers else bucket_bounds(keys, 0)[0]), counts

    def buckets(self) -> tuple[Floats, Floats, Ints]:
        """The least and the greatest value of each bucket, in order, and its count; after `finish`."""
        if self.exact:
            values, counts = self.values()
            numbers = values.astype(np.float64)
            return numbers, numbers, counts
        keys = unzigzag(self._sparse)
        order = np.argsort(keys)
        lower, upper = bucket_bounds(keys[order], self.shift)
        return lower, upper, self._sparse_counts[order]

    def histogram(self, bins: int) -> Histogram:
        """The counts in at most `bins` buckets; after `finish`."""
        if self.exact:
            values, counts = self.values()
            if len(values) <= bins:
                return Histogram(
                    exact=True, shift=0, lower=tuple(values.tolist()), counts=tuple(int(count) for count in counts)
                )
            keys, counts = merge_buckets(ordered_bits(values.astype(np.float64)), counts)
            shift = 0
        else:
            keys, counts = merge_buckets(unzigzag(self._sparse), self._sparse_counts)
            shift = self.shift
        keys, counts, wider = coarsen(keys, counts, bins)
        shift += wider
        lower, _ = bucket_bounds(keys, shift)
        return Histogram(exact=False, shift=shift, lower=tuple(lower.tolist()), counts=tuple(counts.tolist()))

    def _keys(self, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], *, positive: bool = False) -> Keys:
        """The zigzag-coded keys of numbers, as a new array."""
        if self.exact and self._integers:
            return values.view(np.uint64) << np.uint64(1) if positive else zigzag(values)
        numbers = values.astype(np.float64, copy=False)
        # Of the ordered bits of a float: twice the bits of its magnitude, and 1 more for a negative one.
        if positive:
            keys = numbers.view(np.uint64) >> np.uint64(self.shift)
            keys <<= np.uint64(1)
            return keys
        bits = (numbers + 0.0).view(np.uint64)  # -0.0 counts as 0.0
        keys = bits << np.uint64(1)
        keys >>= np.uint64(self.shift)
        keys &= ~np.uint64(1)
        bits >>= np.uint64(63)
        keys |= bits
        return keys

    def _add_inexact(self, values: npt.NDArray[np.int64] | npt.NDArray[np.float64], counts: Ints | None = None) -> None:
        numbers = values.astype(np.float64, copy=False)
        if not self._counts_only:
            self._moments.add(numbers, counts)
        if self._integers or not self._counts_only:
            self._cardinality.add(mix64((values if self._integers else numbers + 0.0).view(np.uint64)))

    def _count(self, keys: Keys, least: int, greatest: int) -> None:
        """Counts keys; where all of them are in the window, the array that is given is used up."""
        if self._integers and self.exact and not len(self._window) and not len(self._sparse):
            self._base = max(0, least - _WINDOW // 4)
            self._window = np.zeros(_WINDOW, np.int64)
        size = len(self._window)
        if size and self._base <= least and greatest - self._base < size:
            keys -= np.uint64(least)
            added = np.bincount(keys.view(np.int64))
            self._window[least - self._base : least - self._base + len(added)] += added
            return
        outside = keys
        if size:
            places = keys - np.uint64(self._base)  # below the base it wraps round to something large
            inside = places < size
            added = np.bincount(places[inside].view(np.int64))
            self._window[: len(added)] += added
            outside = keys[~inside]
        distinct, counts = np.unique(outside, return_counts=True)
        self._pending.append((distinct, counts))
        self._waiting += len(distinct)
        # The first time early: where there are too many values to count each, it is found out at little cost.
        if self._waiting > (_PENDING if len(self._sparse) or not self.exact else self._exact_values):
            self._compact()

    def _compact(self) -> None:
        """Puts all counts together; goes over to buckets, and to wider ones, where there are too many."""
        self._settle()
        # In the order of the values, in which neighbouring buckets are side by side.
        keys, counts = merge_buckets(unzigzag(self._sparse), self._sparse_counts)
        if self.exact and len(keys) > self._exact_values:
            self.exact = False
            self._add_inexact(keys if self._integers else bucket_bounds(keys, 0)[0], counts)
            if self._integers:
                keys, counts = merge_buckets(ordered_bits(keys.astype(np.float64)), counts)
        if not self.exact:
            keys, counts, wider = coarsen(keys, counts, self._buckets)
            self.shift += wider
        codes = zigzag(keys)
        order = np.argsort(codes)
        self._sparse, self._sparse_counts = codes[order], counts[order]
        if self._integers or not self.exact:
            self._lay_window()

    def _settle(self) -> None:
        """Gathers what is in the window and what is waiting into the sorted pairs."""
        occupied = np.flatnonzero(self._window)
        keys = [self._sparse, occupied.astype(np.uint64) + np.uint64(self._base)]
        counts = [self._sparse_counts, self._window[occupied]]
        for waiting_keys, waiting_counts in self._pending:
            keys.append(waiting_keys)
            counts.append(waiting_counts)
        self._window = np.zeros(0, np.int64)
        self._pending, self._waiting = [], 0
        self._sparse, self._sparse_counts = merge_buckets(np.concatenate(keys), np.concatenate(counts))

    def _lay_window(self) -> None:
        """Lays the window where most of the values are, and moves their counts into it."""
        if len(self._sparse) == 0:
            return
        ends = self._sparse + np.minimum(np.uint64(_WINDOW - 1), ~self._sparse)
        last = np.searchsorted(self._sparse, ends, side="right")
        sums = np.concatenate([[0], np.cumsum(self._sparse_counts)])
        start = int(np.argmax(sums[last] - sums[:-1]))
        inside = slice(start, int(last[start]))
        # What is free of the window lies on both sides: new values come above and below.
        room = (_WINDOW - int(self._sparse[inside][-1] - self._sparse[start]) - 1) // 2
        self._base = max(0, int(self._sparse[start]) - room)
        self._window = np.zeros(_WINDOW, np.int64)
        self._window[(self._sparse[inside] - np.uint64(self._base)).view(np.int64)] = self._sparse_counts[inside]
        self._sparse = np.delete(self._sparse, inside)
        self._sparse_counts = np.delete(self._sparse_counts, inside)


class TextCounts:
    """Counts of texts or bytes: of each value while they are few, then of the frequent ones.

    Beyond `exact_values` it keeps `followed` counters as Misra and Gries (1982) do, in the form that can be merged
    (Agarwal and others, 2012): each counter is at most rows / (followed + 1) too low, so that every value more
    frequent than that is among them. `candidates` names them, to be counted again.

    Args:
        kind: The Arrow type of the values: string or binary.
        exact_values: Up to so many distinct values each is counted.
        followed: Beyond them, the counters that are kept.
    """

    def __init__(self, kind: pa.DataType, *, exact_values: int = EXACT_VALUES, followed: int = BUCKETS) -> None:
        self.count = 0
        self.exact = True
        self._kind = kind
        self._exact_values = exact_values
        self._followed = followed
        self._cardinality = Cardinality()
        self._values = pa.array([], kind)
        self._counts: Ints = np.zeros(0, np.int64)
        self._pending: list[tuple[pa.Array, Ints]] = []
        self._waiting = 0

    @property
    def error(self) -> int:
        """The most that a counter can be too low: 0 while exact."""
        return 0 if self.exact else self.count // (self._followed + 1)

    def add(self, values: pa.Array, counts: Ints) -> None:
        """Adds n different values, each as often as its count says."""
        if len(values) == 0:
            return
        self.count += int(counts.sum())
        if not self.exact:
            self._cardinality.add(siphash(values))
        self._pending.append((values, counts))
        self._waiting += len(values)
        if self._waiting > _PENDING:
            self._compact()

    def finish(self) -> Distinct:
        """Ends the counting, and gives the number of distinct values."""
        self._compact()
        if self.exact:
            return Distinct(count=len(self._values), exact=True, standard_error=0.0)
        estimate = min(self.count, round(self._cardinality.estimate()))
        return Distinct(count=estimate, exact=False, standard_error=round(Cardinality.STANDARD_ERROR, 4))

    def values(self) -> tuple[pa.Array, Ints]:
        """Each distinct value with its count; only while exact and after `finish`."""
        return self._values, self._counts

    def candidates(self, top: int) -> pa.Array:
        """The values that can be among the `top` most frequent; after `finish`."""
        if len(self._counts) <= top:
            return self._values
        least = np.partition(self._counts, -top)[-top]
        return self._values.filter(pa.array(self._counts + self.error >= least))

    def _compact(self) -> None:
        if not self._pending:
            return
        values = pa.chunked_array([self._values, *(values for values, _ in self._pending)], self._kind)
        counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
        self._pending, self._waiting = [], 0
        table = pa.table({"value": values, "count": counts}).group_by("value", use_threads=False)
        merged = table.aggregate([("count", "sum")]).combine_chunks()
        self._values = pa.concat_arrays(merged["value"].chunks) if merged.num_rows else self._values
        self._counts = merged["count_sum"].to_numpy()
        if self.exact and len(self._values) > self._exact_values:
            self.exact = False
            self._cardinality.add(siphash(self._values))
        if not self.exact and len(self._values) > self._followed:
            taken_off = np.partition(self._counts, -self._followed - 1)[-self._followed - 1]
            kept = self._counts > taken_off
            self._values = self._values.filter(pa.array(kept))
            self._counts = self._counts[kept] - taken_off


def shorten(values: pa.Array) -> pa.Array:
    """Texts and bytes above `LONGEST_TEXT` bytes as their beginning, their length and a hash of the whole.

    Different values stay different, and few huge ones do not fill the memory.
    """
    lengths = pc.binary_length(values)
    long = pc.fill_null(pc.greater(lengths, LONGEST_TEXT), False)
    if not pc.any(long).as_py():
        return values
    chosen = values.filter(long)
    is_text = not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type))
    short = []
    for value in chosen:
        whole = value.as_py()
        raw = whole.encode() if is_text else whole
        tail = f"... ({len(raw):,} bytes, {hashlib.blake2b(raw, digest_size=8).hexdigest()})"
        short.append(whole[: LONGEST_TEXT // 4] + (tail if is_text else tail.encode()))
    return pc.replace_with_mask(values, long, pa.array(short, values.type))


def zigzag(values: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> Keys:
    """Signed integers as unsigned ones: 0, -1, 1, -2, ... become 0, 1, 2, 3, ..."""
    signed = values.astype(np.int64, copy=False)
    return ((signed << np.int64(1)) ^ (signed >> np.int64(63))).view(np.uint64)


def unzigzag(keys: Keys) -> Ints:
    """The inverse of `zigzag`."""
    return ((keys >> np.uint64(1)) ^ (np.uint64(0) - (keys & np.uint64(1)))).view(np.int64)


def finite(value: float) -> float | None:
    """The number, or None where it is NaN or infinite: JSON has neither."""
    return value if math.isfinite(value) else None


def _can_divide(value: float) -> bool:
    # Neither NaN nor infinite, and not so small that it has lost its digits.
    return math.isfinite(value) and value > sys.float_info.min


def _ertl_sigma(x: float) -> float:
    if x == 1.0:
        return math.inf
    y, z = 1.0, x
    while True:
        x *= x
        before, z = z, z + x * y
        y += y
        if z == before:
            return z


def _ertl_tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        before, y = z, 0.5 * y
        z -= (1 - x) ** 2 * y
        if z == before:
            return z / 3


def _total(values: Floats, weights: Floats | None) -> float:
    # Not by BLAS, whose threads cost more than they save on so few numbers.
    return float(values.sum() if weights is None else np.einsum("i,i->", values, weights))
