"""How far two distributions differ, and whether that is more than chance: pure functions of counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeparts.runtime.profiles import Floats, Ints

Correction = Literal["benjamini_hochberg", "holm", "none"]

#: A share of 0 counts as this in the PSI, which is infinite otherwise; Evidently takes the same.
EPSILON = 1e-4
#: Bins of a number's PSI: deciles of the reference (Siddiqi 2006).
PSI_BINS = 10
#: Bins of a number's Jensen-Shannon distance: of equal weight in the two together.
JENSEN_SHANNON_BINS = 20
#: Cochran (1954): the chi-square distribution holds where so many are expected in a cell.
_LEAST_EXPECTED = 5
#: Up to so many pairs of rows the Kolmogorov-Smirnov p-value is exact; beyond, the limit's error is below 0.01.
_EXACT_PAIRS = 250_000
#: From so many rows, in effect, Kolmogorov's limit does: importing scipy.stats costs as much as counting a million.
_MANY_ROWS = 100_000


def population_stability_index(reference: Floats, current: Floats) -> float:
    """The population stability index: 0 where the shares are equal.

    The sum of (q - p) * ln(q / p): Siddiqi, Credit Risk Scorecards (2006), who calls less than 0.1 no change and
    more than 0.25 a major one. It is the symmetric divergence of Kullback and Leibler (1951): for two normal
    distributions of one spread it comes to the square of the distance of their means, in standard deviations.

    Args:
        reference: k shares p.
        current: The k shares q; a share below `EPSILON` counts as that.
    """
    p, q = np.maximum(reference, EPSILON), np.maximum(current, EPSILON)
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon_distance(reference: Floats, current: Floats) -> float:
    """The Jensen-Shannon distance: 0 where the shares are equal, sqrt(ln 2) = 0.83 where none is in both.

    The square root of the divergence in nats (Lin 1991; Endres and Schindelin 2003), as scipy and Evidently give it.

    Args:
        reference: k shares.
        current: The k shares to compare.
    """
    middle = (reference + current) / 2

    def entropy(share: Floats) -> float:
        there = share > 0
        return float(np.sum(share[there] * np.log(share[there] / middle[there])))

    return math.sqrt(min(math.log(2), max(0.0, (entropy(reference) + entropy(current)) / 2)))


def kolmogorov_smirnov(reference: Ints, current: Ints) -> tuple[float, float]:
    """The greatest distance of two distribution functions, and its p-value (two-sided, two samples).

    As scipy's `ks_2samp`: exact for few rows, by the limit distribution (Simard and L'Ecuyer 2011) for more, and for
    many by Kolmogorov's (1933) with the correction of Vrbik (2018), which is within 1e-5 of that. Where
    values share a bucket, what lies between its ends is not seen: the distance is then a lower bound.

    Args:
        reference: Counts in k buckets, in the order of the values.
        current: The same for the other.

    Returns:
        The distance in [0, 1] and the probability of so great a one in two samples of one distribution.
    """
    n, m = int(reference.sum()), int(current.sum())
    distance = float(np.max(np.abs(np.cumsum(reference) / n - np.cumsum(current) / m)))
    if distance < 1e-15:
        return 0.0, 1.0
    return distance, min(1.0, max(0.0, _kolmogorov_smirnov_p_value(distance, reference, current)))


def _kolmogorov_smirnov_p_value(distance: float, reference: Ints, current: Ints) -> float:
    n, m = int(reference.sum()), int(current.sum())
    rows = n * m / (n + m)
    if rows >= _MANY_ROWS:
        from scipy import special

        x = math.sqrt(rows) * distance
        return float(special.kolmogorov(x + 1 / (6 * math.sqrt(rows)) + (x - 1) / (4 * rows)))

    from scipy import stats

    if n * m > _EXACT_PAIRS:
        return float(stats.kstwo.sf(distance, max(1, round(rows))))
    places = np.arange(len(reference))
    with warnings.catch_warnings():
        # Where rounding takes the exact probability a hair above 1, scipy says so, and goes over to the limit's.
        warnings.filterwarnings("ignore", message="ks_2samp: Exact calculation unsuccessful")
        return float(stats.ks_2samp(np.repeat(places, reference), np.repeat(places, current), method="exact").pvalue)


def outside(reference: Ints, current: Ints) -> tuple[float, float]:
    """The share of the current values that lie beyond the reference's least and greatest, and its p-value.

    Rosenbaum's test (1954), exact whatever the distribution: it sees a few values that are far off, in another unit
    for one, where Kolmogorov-Smirnov's does not. Values that are equal to the ends, or share their bucket, are inside.

    Args:
        reference: Counts in k buckets, in the order of the values.
        current: The same for the other.
    """
    n, m = int(reference.sum()), int(current.sum())
    there = np.flatnonzero(reference)
    beyond = int(current[: there[0]].sum() + current[there[-1] + 1 :].sum())
    if beyond == 0 or n < 2:
        return beyond / m, 1.0
    # With j beyond, j + 1 ways to share them out between both ends, and n - 2 of the reference among the values between
    # its own least and greatest: summed over j from `beyond` on.
    inner = n + m - 1 - beyond
    ways = (beyond + 1) * _ratio_of_choices(inner, n - 1, n + m, n) + _ratio_of_choices(inner, n, n + m, n)
    return beyond / m, min(1.0, ways)


def _ratio_of_choices(a: int, b: int, c: int, d: int) -> float:
    """(a choose b) / (c choose d), whose parts a float does not hold."""
    from scipy.special import betaln

    if b > a:
        return 0.0
    return math.exp(betaln(c - d + 1, d + 1) + math.log(c + 1) - betaln(a - b + 1, b + 1) - math.log(a + 1))


def wasserstein(positions: Floats, reference: Floats, current: Floats) -> float:
    """The first Wasserstein distance (earth mover's): the area between two distribution functions.

    Args:
        positions: The k values, in order.
        reference: The share at each.
        current: The same for the other.
    """
    between = np.abs(np.cumsum(reference) - np.cumsum(current))[:-1]
    return float(np.dot(between, np.diff(positions)))


def chi_square(reference: Ints, current: Ints) -> tuple[float, float]:
    """Pearson's chi-square of two rows of counts, without Yates' correction, and its p-value.

    As scipy's `chi2_contingency`. Both tables are samples: Evidently takes the reference for the exact distribution,
    which comes to the same where the reference is much the larger.

    Args:
        reference: Counts in k cells.
        current: The same for the other.
    """
    return _chi_square(np.stack([reference, current]))


def _chi_square(cells: Ints, *, yates: bool = False) -> tuple[float, float]:
    from scipy.special import chdtrc

    cells = cells[:, cells.sum(axis=0) > 0]
    rows, columns = cells.sum(axis=1), cells.sum(axis=0)
    if len(columns) < 2 or (rows == 0).any():
        return 0.0, 1.0
    expected = np.outer(rows, columns) / cells.sum()
    distance = np.abs(cells - expected)
    if yates:
        distance -= np.minimum(0.5, distance)
    statistic = float(np.sum(distance**2 / expected))
    return statistic, float(chdtrc(len(columns) - 1, statistic))


def share_p_value(reference: tuple[int, int], current: tuple[int, int]) -> float:
    """The probability that two shares differ so much by chance: chi-square with Yates' correction.

    Args:
        reference: How many, and of how many.
        current: The same for the other.
    """
    return _chi_square(np.array([[part, whole - part] for part, whole in (reference, current)]), yates=True)[1]


def quantile_bins(reference: Floats, bins: int = PSI_BINS) -> Ints:
    """The bin of each bucket: bins of about equal weight in the reference, whatever its outliers and heavy values.

    A bucket that holds a whole bin's weight, as a value that many rows have, is a bin of its own. What lies between
    two such, or beyond the last, is cut where the weight is closest to even. The outermost bins are open: what the
    reference does not reach belongs to the bin next to it.

    Args:
        reference: The reference's share in each of k buckets, in the order of the values; others may be empty in it.
        bins: How many bins are wanted.

    Returns:
        k numbers from 0 on, rising.
    """
    heavy = reference >= 1 / bins
    starts = np.flatnonzero(np.concatenate([[True], heavy[1:] | heavy[:-1]]))
    found = np.zeros(len(reference), np.int64)
    next_bin = 0
    for start, end in zip(starts, [*starts[1:], len(reference)], strict=True):
        part = reference[start:end]
        weight = float(part.sum())
        wanted = 1 if heavy[start] else max(1, round(weight * bins))
        if wanted > 1:
            middle = (np.cumsum(part) - part / 2) / weight
            found[start:end] = np.minimum(np.floor(middle * wanted), wanted - 1)
        found[start:end] += next_bin
        next_bin = int(found[end - 1]) + 1
    return found


def pooled_bins(reference: Floats, current: Floats, bins: int = JENSEN_SHANNON_BINS) -> Ints:
    """The bin of each bucket: bins of about equal weight in the two together, so that neither's range is lost."""
    return quantile_bins((reference + current) / 2, bins)


def in_bins(values: npt.NDArray[np.float64], bins: Ints) -> Floats:
    """The sum of the buckets' values in each bin."""
    return np.bincount(bins, values).astype(np.float64)


def group_rare(reference: Ints, current: Ints) -> tuple[Ints, Ints]:
    """Puts those categories together that hold too few rows to be told apart, as Cochran (1954) advises.

    These are they of which the smaller table has fewer than five rows, and would have fewer than five if it were
    like the two together.
    """
    n, m = int(reference.sum()), int(current.sum())
    least = min(n, m)
    smaller = reference if n <= m else current
    rare = ((reference + current) * (least / (n + m)) < _LEAST_EXPECTED) & (smaller < _LEAST_EXPECTED)
    if np.count_nonzero(rare) < 2:
        return reference, current
    first, second = (np.append(counts[~rare], counts[rare].sum()) for counts in (reference, current))
    return first, second


def corrected(p_values: Sequence[float], correction: Correction) -> list[float]:
    """p-values corrected for their number: held against alpha as they are.

    Args:
        p_values: n p-values.
        correction: "benjamini_hochberg" bounds the share of false alarms among the alarms (Benjamini and Hochberg
            1995), "holm" the probability of a single one (Holm 1979), "none" nothing.

    Returns:
        n p-values in the same order, none below what it was.
    """
    n = len(p_values)
    if correction == "none" or n == 0:
        return list(p_values)
    values = np.array(p_values)
    order = np.argsort(values, kind="stable")
    ranks = np.arange(1, n + 1)
    if correction == "holm":
        ranked = np.maximum.accumulate(values[order] * (n - ranks + 1))
    else:
        ranked = np.minimum.accumulate((values[order] * n / ranks)[::-1])[::-1]
    result = np.empty(n)
    result[order] = np.minimum(1.0, ranked)
    return [float(value) for value in result]
