"""Whether vectors (embeddings) differ between two tables: in a few streaming passes, and the memory of one batch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.profiles import Floats

#: Gives a column's values, batch by batch, each time that it is called.
Stream = Callable[[], Iterable[pa.Array]]

#: Coordinates of the vectors that are compared; longer vectors are projected.
_COORDINATES = 64
#: Random waves, each of which gives a sine and a cosine.
_WAVES = 16
#: Rows of the smaller side for each feature: with fewer the covariance is not known well enough.
_ROWS_A_FEATURE = 10
_LEAST_SPREAD = 1e-6


@dataclasses.dataclass(frozen=True)
class VectorDifference:
    """How two columns of vectors differ.

    Attributes:
        distance: Mahalanobis distance of the means of the features, in standard deviations, its bias taken off.
        auc: The ROC AUC of the linear classifier that tells the two apart best, were the features normal: 0.5 to 1.
        p_value: Of Hotelling's test; None, as are the others, where there are too few rows.
        reference_gaps: Vectors of the reference that cannot be used (missing, of another length, not all finite), and
            of how many.
        current_gaps: The same of the current table.
    """

    distance: float | None
    auc: float | None
    p_value: float | None
    reference_gaps: tuple[int, int]
    current_gaps: tuple[int, int]


def is_vector(kind: pa.DataType) -> bool:
    """Whether a type is a list of floats."""
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


def compare_vectors(reference: Stream, current: Stream, *, current_rows: int) -> VectorDifference:
    """Compares vectors by the means of features: their coordinates, and random waves over them.

    Hotelling's two-sample test (1931) on the coordinates, up to 64 of them, of longer vectors random projections
    (Achlioptas 2003), and on 16 smoothed characteristic functions (Chwialkowski, Ramdas, Sejdinovic and Gretton,
    "Fast two-sample testing with analytic representations of probability measures", 2015), which see other changes
    than those of the mean. Coordinates are first brought to the reference's mean and spread. The effect size is
    Mahalanobis' distance of the two means, from which the AUC follows as Phi(distance / sqrt 2).

    Args:
        reference: The reference's vectors; read twice.
        current: The current vectors; read once.
        current_rows: How many there are: with few rows on either side fewer features are taken.
    """
    length = next((length for values in reference() if (length := _length(values))), 0)
    start = _Spread(length)
    rows = 0
    for values in reference():
        rows += len(values)
        start.add(usable(values, length))
    features = _Features(start, min(start.count, current_rows))
    first, second = _Means(features.count), _Means(features.count)
    for values in reference():
        first.add(features.of(usable(values, length)))
    seen = 0
    for values in current():
        seen += len(values)
        second.add(features.of(usable(values, length)))
    gaps = (rows - first.rows, rows), (seen - second.rows, seen)
    return VectorDifference(*_difference(first, second), *gaps)


def usable(values: pa.Array, length: int) -> Floats:
    """The vectors of this length whose numbers are all finite: n by `length`."""
    lengths = pc.fill_null(pc.list_value_length(values), -1)
    flat = values.filter(pc.equal(lengths, length)).flatten()
    matrix = np.asarray(flat.cast(pa.float64()).to_numpy(zero_copy_only=False)).reshape(-1, max(1, length))
    kept: Floats = matrix[np.isfinite(matrix).all(axis=1)]
    return kept


def _length(values: pa.Array) -> int:
    lengths = pc.list_value_length(values).drop_null()
    return int(lengths[0].as_py()) if len(lengths) else 0


class _Spread:
    """Mean and standard deviation of each coordinate (Chan, Golub and LeVeque 1979)."""

    def __init__(self, length: int) -> None:
        self.count = 0
        self.mean: Floats = np.zeros(length)
        self._squares: Floats = np.zeros(length)

    def add(self, rows: Floats) -> None:
        m = len(rows)
        if m == 0:
            return
        mean = rows.mean(axis=0)
        delta, total = mean - self.mean, self.count + m
        self._squares += ((rows - mean) ** 2).sum(axis=0) + delta**2 * (self.count * m / total)
        self.mean = self.mean + delta * (m / total)
        self.count = total

    @property
    def deviation(self) -> Floats:
        """1 where a coordinate does not vary."""
        spread = np.sqrt(self._squares / max(1, self.count - 1))
        return np.where(spread > 0, spread, 1.0)


class _Features:
    """What is compared of each vector; the same for the same length and reference."""

    def __init__(self, spread: _Spread, rows: int) -> None:
        length = len(spread.mean)
        self._mean, self._deviation = spread.mean, spread.deviation
        most = max(1, rows // _ROWS_A_FEATURE)
        coordinates = min(length, _COORDINATES, most)
        waves = min(_WAVES, (most - coordinates) // 2) if length else 0
        chance = np.random.Generator(np.random.PCG64(20_150_610))
        self._projection: Floats | None = None
        if coordinates < length:
            signs = chance.integers(0, 2, (length, coordinates)) * 2 - 1
            self._projection = signs / math.sqrt(length)
        # Over vectors of unit spread a wave's phase has the spread 1, whatever their length.
        self._waves = chance.standard_normal((length, waves)) / math.sqrt(max(1, length))
        self.count = coordinates + 2 * waves

    def of(self, rows: Floats) -> Floats:
        """The features of n rows: n by `count`."""
        if len(rows) == 0:
            return np.zeros((0, self.count))
        scaled = (rows - self._mean) / self._deviation
        coordinates = scaled if self._projection is None else scaled @ self._projection
        phases = scaled @ self._waves
        return np.hstack([coordinates, np.cos(phases), np.sin(phases)])


class _Means:
    """Mean and covariance of features."""

    def __init__(self, count: int) -> None:
        self.rows = 0
        self.mean: Floats = np.zeros(count)
        self.scatter: Floats = np.zeros((count, count))

    def add(self, features: Floats) -> None:
        m = len(features)
        if m == 0:
            return
        mean = features.mean(axis=0)
        centred = features - mean
        delta, total = mean - self.mean, self.rows + m
        self.scatter += centred.T @ centred + np.outer(delta, delta) * (self.rows * m / total)
        self.mean = self.mean + delta * (m / total)
        self.rows = total


def _difference(first: _Means, second: _Means) -> tuple[float | None, float | None, float | None]:
    """Distance, AUC and p-value."""
    from scipy import special

    n, m, p = first.rows, second.rows, len(first.mean)
    free = n + m - p - 1
    if n < 2 or m < 2 or free < 3 or p == 0:
        return None, None, None
    values, vectors = np.linalg.eigh((first.scatter + second.scatter) / (n + m - 2))
    # What never varies, and is not where it was, is infinitely far: it is held to a number.
    floor = _LEAST_SPREAD * max(1.0, float(values[-1]))
    steps = vectors.T @ (second.mean - first.mean)
    squared = float(np.sum(steps**2 / np.maximum(values, floor)))
    f = squared * n * m / (n + m) * free / (p * (n + m - 2))
    p_value = float(special.fdtrc(p, free, f))
    distance = math.sqrt(max(0.0, squared * (free - 2) / (n + m - 2) - p * (n + m) / (n * m)))
    return distance, float(special.ndtr(distance / math.sqrt(2))), p_value
