"""The bootstrap: how far a metric, or the difference of two models on the same rows, could be chance.

Each row gets a Poisson(1) weight, which is resampling with replacement but for the total (Hanley and MacGibbon,
"Creating non-parametric bootstrap samples using Poisson frequencies", 2006; Chamandy et al., "Estimating
Uncertainty for Massive Data Streams", 2012). Two models get the same weights: the paired bootstrap. Scores are
sorted once, before; a replicate of a metric is then a weighted sum or a running sum. Beyond a bound on the rows it is
the m out of n bootstrap, scaled by sqrt(m / n) (Bickel, Götze and van Zwet, 1997).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeparts.runtime import metrics as m
from pipeparts.runtime.evaluation import Predictions
from pipeparts.runtime.metrics import Floats

#: One value for each replicate, from the weights of its rows (replicates by rows); NaN where it is not defined.
Statistic = Callable[[npt.NDArray[np.uint8]], Floats]

# Weights of this many cells at a time stay in the processor's cache.
_BLOCK_CELLS = 1 << 18


@dataclasses.dataclass(frozen=True)
class Interval:
    """The gain of the challenger over the champion, with its interval; more is better whatever the metric.

    Attributes:
        estimate: On all rows.
        low: The lower end.
        high: The upper end.
    """

    estimate: float
    low: float
    high: float


def gain_interval(
    metric: str,
    challenger: Predictions,
    champion: Predictions,
    *,
    estimate: float,
    scale: float,
    threshold: float,
    samples: int,
    confidence: float,
    seed: tuple[int, ...],
    most_rows: int,
) -> Interval | None:
    """The percentile interval of the gain.

    Args:
        metric: The metric's name.
        challenger: The challenger's predictions.
        champion: The champion's, on the same rows.
        estimate: The gain on all rows.
        scale: What a difference of the metric is multiplied by: -1 where less is better, divided by the champion's
            value for a relative gain.
        threshold: The probability from which the positive class is predicted.
        samples: Replicates.
        confidence: The interval's probability, as 0.95.
        seed: Of the weights.
        most_rows: Rows to resample at most.

    Returns:
        The interval; None where the metric is not defined in most replicates (too few rows of a class).
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    rows = len(challenger.labels)
    shrink = 1.0
    if rows > most_rows:
        chosen = np.sort(generator.choice(rows, most_rows, replace=False))
        challenger, champion = challenger.take(chosen), champion.take(chosen)
        shrink = math.sqrt(most_rows / rows)
        rows = most_rows
    first, second = statistic(metric, challenger, threshold), statistic(metric, champion, threshold)
    gains = _replicates(lambda weights: scale * (first(weights) - second(weights)), generator, samples, rows)
    if gains is None:
        return None
    if shrink < 1.0:
        whole = np.ones((1, rows), dtype=np.uint8)
        centre = scale * float((first(whole) - second(whole))[0])
        gains = estimate + shrink * (gains - centre)
    low, high = (float(v) for v in np.quantile(gains, [(1 - confidence) / 2, (1 + confidence) / 2]))
    return Interval(estimate, low, high)


def standard_error(
    metric: str,
    predictions: Predictions,
    *,
    threshold: float,
    samples: int,
    seed: tuple[int, ...],
    most_rows: int,
) -> float | None:
    """The standard error of a metric: the spread of its bootstrap replicates.

    Args:
        metric: The metric's name; one of which more or less is better.
        predictions: n rows, all of them usable.
        threshold: The probability from which the positive class is predicted.
        samples: Replicates; 200 are enough for a standard error (Efron and Tibshirani, "An Introduction to the
            Bootstrap", 1993, section 6.4).
        seed: Of the weights.
        most_rows: Rows to resample at most.

    Returns:
        The standard error; None where the metric is not defined in most replicates (too few rows of a class).
    """
    generator = np.random.default_rng(np.random.SeedSequence(seed))
    rows = len(predictions.labels)
    shrink = 1.0
    if rows > most_rows:
        predictions = predictions.take(np.sort(generator.choice(rows, most_rows, replace=False)))
        shrink, rows = math.sqrt(most_rows / rows), most_rows
    if not rows:
        return None
    values = _replicates(statistic(metric, predictions, threshold), generator, samples, rows)
    return None if values is None else shrink * float(values.std(ddof=1))


def _replicates(measure: Statistic, generator: np.random.Generator, samples: int, rows: int) -> Floats | None:
    """The replicates that are defined, or None where fewer than half are."""
    values = np.empty(samples)
    block = max(1, _BLOCK_CELLS // rows)
    for start in range(0, samples, block):
        weights = poisson_weights(generator, min(block, samples - start), rows)
        values[start : start + len(weights)] = measure(weights)
    values = values[np.isfinite(values)]
    return values if len(values) >= max(2, samples // 2) else None


def poisson_weights(generator: np.random.Generator, samples: int, rows: int) -> npt.NDArray[np.uint8]:
    """Weights of samples by rows, a byte of randomness each: Poisson(1) in 256 cells, with mean and variance 1."""
    draws = np.frombuffer(generator.bytes(samples * rows), dtype=np.uint8)
    return _POISSON.take(draws).reshape(samples, rows)


def statistic(metric: str, predictions: Predictions, threshold: float) -> Statistic:
    """A metric as a function of the rows' weights.

    Args:
        metric: Its name.
        predictions: n rows, all of them usable.
        threshold: The probability from which the positive class is predicted.
    """
    labels, scores = predictions.labels, predictions.scores
    if metric in ("roc_auc", "average_precision"):
        return (_roc_area if metric == "roc_auc" else _average_precision)(labels == 1, scores)
    if metric == "roc_auc_ovr":
        parts = [_roc_area(labels == code, scores[:, code].astype(np.float64)) for code in range(scores.shape[1])]
        return lambda weights: _mean_defined(np.stack([part(weights) for part in parts]))
    if metric == "median_absolute_error":
        return _weighted_median(np.abs(scores - labels))
    columns, finish = _sums(metric, predictions, threshold)

    def summed(weights: npt.NDArray[np.uint8]) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(finish(weights.astype(np.float64) @ columns))

    return summed


# Poisson(1) is 94.2, 94.2, 47.1, 15.7, 3.9, 0.8, ... of 256; these whole numbers have its mean and its variance.
_POISSON = np.repeat(np.arange(6, dtype=np.uint8), [94, 95, 46, 16, 4, 1])


def _roc_area(positive: npt.NDArray[np.bool_], scores: Floats) -> Statistic:
    """The share of pairs of a positive and a negative that are in order, ties counting half.

    A running sum over the larger class, looked up where the rows of the smaller one are: the shares of its pairs
    in which it is the higher.
    """
    swapped = int(positive.sum()) * 2 > len(positive)
    few, many = np.flatnonzero(positive != swapped), np.flatnonzero(positive == swapped)
    few, many = few[np.argsort(scores[few], kind="stable")], many[np.argsort(scores[many], kind="stable")]
    below = np.searchsorted(scores[many], scores[few], side="left")
    to_here = np.searchsorted(scores[many], scores[few], side="right")
    ties = bool((below != to_here).any())

    def measure(weights: npt.NDArray[np.uint8]) -> Floats:
        running = _running(weights, many)
        ours = np.take(weights, few, axis=1).astype(np.float64)
        wins = np.einsum("rn,rn->r", ours, np.take(running, below, axis=1))
        if ties:
            wins = (wins + np.einsum("rn,rn->r", ours, np.take(running, to_here, axis=1))) / 2.0
        with np.errstate(divide="ignore", invalid="ignore"):
            share = wins / (ours.sum(axis=1) * running[:, -1])
        return np.asarray(1.0 - share if swapped else share)

    return measure


def _average_precision(positive: npt.NDArray[np.bool_], scores: Floats) -> Statistic:
    """The mean over the positives of the precision at their score."""
    hits, misses = np.flatnonzero(positive), np.flatnonzero(~positive)
    hits, misses = hits[m.falling(scores[hits])], misses[m.falling(scores[misses])]
    # Rows at or above the score of each positive.
    hits_above = np.searchsorted(-scores[hits], -scores[hits], side="right")
    misses_above = np.searchsorted(-scores[misses], -scores[hits], side="right")

    def measure(weights: npt.NDArray[np.uint8]) -> Floats:
        ours = np.take(weights, hits, axis=1).astype(np.float64)
        found = np.take(_running(weights, hits), hits_above, axis=1)
        alarms = np.take(_running(weights, misses), misses_above, axis=1)
        precision = found / np.maximum(found + alarms, 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.einsum("rn,rn->r", ours, precision) / ours.sum(axis=1))

    return measure


def _running(weights: npt.NDArray[np.uint8], order: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """The running sum of some rows' weights, with a 0 before the first."""
    total = np.zeros((len(weights), len(order) + 1), dtype=np.int32)
    np.cumsum(np.take(weights, order, axis=1), axis=1, dtype=np.int32, out=total[:, 1:])
    return total


def _mean_defined(values: Floats) -> Floats:
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0))


def _weighted_median(distances: Floats) -> Statistic:
    order = np.argsort(distances, kind="stable")
    ranked = distances[order]

    def measure(weights: npt.NDArray[np.uint8]) -> Floats:
        running = np.cumsum(np.take(weights, order, axis=1), axis=1, dtype=np.int32)
        total = running[:, -1:]
        # The two middle rows of an even number, the same row twice of an odd one.
        lower, upper = (
            np.minimum(side.sum(axis=1), len(ranked) - 1) for side in (2 * running < total, 2 * running <= total)
        )
        return np.where(total[:, 0] > 0, (ranked[lower] + ranked[upper]) / 2.0, np.nan)

    return measure


def _sums(metric: str, predictions: Predictions, threshold: float) -> tuple[Floats, Callable[[Floats], Any]]:
    """The columns whose weighted sums make up a metric, and the metric as a function of those sums."""
    labels, scores = predictions.labels, predictions.scores
    one = np.ones(len(labels))
    if predictions.kind == "regression":
        errors = scores - labels
        share = np.divide(np.abs(errors), np.abs(labels), out=np.zeros(len(labels)), where=labels != 0)
        square = np.square(errors)
        # About the mean, so that the sum of squares loses no digits.
        centred = labels - labels.mean()
        columns, finish = {
            "rmse": ((square, one), lambda s: np.sqrt(s[:, 0] / s[:, 1])),
            "mae": ((np.abs(errors), one), lambda s: s[:, 0] / s[:, 1]),
            "r2": (
                (square, np.square(centred), centred, one),
                lambda s: 1 - s[:, 0] / (s[:, 1] - np.square(s[:, 2]) / s[:, 3]),
            ),
            "mape": ((share, labels != 0), lambda s: s[:, 0] / s[:, 1]),
        }[metric]
        return _columns(columns), finish
    if predictions.kind == "multiclass":
        return _multiclass_sums(metric, predictions)
    actual, predicted = labels == 1, scores >= threshold
    if metric == "expected_calibration_error":
        return _calibration_columns(actual, scores), _calibration_error
    clipped = m.likelihood_clip(scores)
    columns, finish = {
        "brier_score": ((np.square(scores - actual), one), lambda s: s[:, 0] / s[:, 1]),
        "log_loss": ((-np.log(np.where(actual, clipped, 1 - clipped)), one), lambda s: s[:, 0] / s[:, 1]),
        "accuracy": ((actual == predicted, one), lambda s: s[:, 0] / s[:, 1]),
        "precision": ((actual & predicted, predicted), lambda s: s[:, 0] / s[:, 1]),
        "recall": ((actual & predicted, actual), lambda s: s[:, 0] / s[:, 1]),
        "f1": ((actual & predicted, predicted, actual), lambda s: 2 * s[:, 0] / (s[:, 1] + s[:, 2])),
    }[metric]
    return _columns(columns), finish


def _multiclass_sums(metric: str, predictions: Predictions) -> tuple[Floats, Callable[[Floats], Any]]:
    labels, scores, predicted = predictions.labels, predictions.scores, predictions.predicted
    assert predicted is not None
    rows, classes = np.arange(len(labels)), scores.shape[1]
    one = np.ones(len(labels))
    right = labels == predicted
    if metric == "accuracy":
        return _columns((right, one)), lambda s: s[:, 0] / s[:, 1]
    if metric == "log_loss":
        truth = m.likelihood_clip(scores[rows, labels].astype(np.float64))
        return _columns((-np.log(truth), one)), lambda s: s[:, 0] / s[:, 1]
    if metric == "expected_calibration_error":
        return _calibration_columns(right, scores[rows, predicted].astype(np.float64)), _calibration_error
    codes = np.arange(classes)
    columns = np.hstack(
        [
            (right[:, None] & (labels[:, None] == codes)),
            labels[:, None] == codes,
            predicted[:, None] == codes,
        ]
    ).astype(np.float64)

    def finish(sums: Floats) -> Floats:
        hits, actual, answers = np.split(sums, 3, axis=1)
        f1 = 2 * hits / (actual + answers)
        if metric == "macro_f1":
            return _mean_defined(f1.T)
        return np.asarray((np.nan_to_num(f1) * actual).sum(axis=1) / actual.sum(axis=1))

    return columns, finish


def _calibration_columns(happened: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    columns = np.zeros((len(scores), m.CALIBRATION_BINS + 1))
    columns[np.arange(len(scores)), m.calibration_bins(scores)] = scores - happened
    columns[:, -1] = 1.0
    return columns


def _calibration_error(sums: Floats) -> Any:
    return np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1]


def _columns(columns: tuple[npt.NDArray[Any], ...]) -> Floats:
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
