"""The metrics of models: exact, over whole arrays, one sort for everything that needs an order.

Where a metric is not defined (ROC AUC with one class alone), it is None and never a number that looks like one.
The definitions are scikit-learn's; the tests hold the two together.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.params import Params

Kind = Literal["binary", "multiclass", "regression"]
Floats = npt.NDArray[np.float64]
Values = dict[str, float | None]

#: Bins of equal width between 0 and 1 for calibration, as in Guo et al., "On Calibration of Modern Neural
#: Networks" (2017).
CALIBRATION_BINS = 15

_SMALLEST = float(np.finfo(np.float64).eps)


@dataclasses.dataclass(frozen=True)
class Metric:
    """What is known of a metric by its name.

    Attributes:
        title: As people read it.
        kinds: The kinds of model it is defined for.
        better: "higher", "lower", or "" where neither is better (a share, a bias).
        relative: Whether it is in the label's unit, so that a margin makes sense only as a share of it.
    """

    title: str
    kinds: tuple[Kind, ...]
    better: Literal["higher", "lower", ""]
    relative: bool = False


METRICS: dict[str, Metric] = {
    "roc_auc": Metric("ROC AUC", ("binary",), "higher"),
    "average_precision": Metric("average precision", ("binary",), "higher"),
    "roc_auc_ovr": Metric("ROC AUC, one class against the rest", ("multiclass",), "higher"),
    "brier_score": Metric("Brier score", ("binary",), "lower"),
    "log_loss": Metric("log loss", ("binary", "multiclass"), "lower"),
    "accuracy": Metric("accuracy", ("binary", "multiclass"), "higher"),
    "precision": Metric("precision", ("binary",), "higher"),
    "recall": Metric("recall", ("binary",), "higher"),
    "f1": Metric("F1", ("binary",), "higher"),
    "macro_f1": Metric("F1, mean of the classes", ("multiclass",), "higher"),
    "weighted_f1": Metric("F1, weighted by class", ("multiclass",), "higher"),
    "expected_calibration_error": Metric("expected calibration error", ("binary", "multiclass"), "lower"),
    "share_predicted_positive": Metric("share predicted positive", ("binary",), ""),
    "base_rate": Metric("base rate", ("binary",), ""),
    "rmse": Metric("RMSE", ("regression",), "lower", relative=True),
    "mae": Metric("mean absolute error", ("regression",), "lower", relative=True),
    "median_absolute_error": Metric("median absolute error", ("regression",), "lower", relative=True),
    "r2": Metric("R²", ("regression",), "higher"),
    "mape": Metric("mean absolute percentage error", ("regression",), "lower"),
    "mean_error": Metric("mean error (predicted minus actual)", ("regression",), ""),
}

#: The metric that a comparison uses unless it is told another.
PRIMARY: dict[Kind, str] = {"binary": "roc_auc", "multiclass": "roc_auc_ovr", "regression": "rmse"}


class Bounds(Params):
    """What a metric is held to.

    Attributes:
        min: The least that passes.
        max: The most that passes.
    """

    min: float | None = None
    max: float | None = None

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is not above max")
        return self


def metric_names(kind: Kind, *, ranked: bool = False) -> list[str]:
    """The metrics of a kind of model, in order; with `ranked` only those of which more or less is better."""
    return [name for name, metric in METRICS.items() if kind in metric.kinds and (metric.better or not ranked)]


def require_metric(name: str, kind: Kind, *, parameter: str, ranked: bool = False) -> Metric:
    """The metric of a name.

    Raises:
        InputError: Where there is no such metric for this kind of model, with the close match.
    """
    allowed = metric_names(kind, ranked=ranked)
    if name not in allowed:
        headline = "a metric that is not known"
        if name in METRICS:
            of_kind = kind in METRICS[name].kinds
            headline = (
                "a metric of which neither more nor less is better" if of_kind else f"not a metric of a {kind} model"
            )
        raise InputError(headline, parameter=parameter, allowed=allowed, received=name, hint=suggest(name, allowed))
    return METRICS[name]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Counts above each distinct score, from the highest score down.

    Attributes:
        thresholds: The m distinct scores, falling.
        true_positives: Positives at or above each.
        false_positives: Negatives at or above each.
    """

    thresholds: Floats
    true_positives: npt.NDArray[np.int64]
    false_positives: npt.NDArray[np.int64]

    def roc_auc(self) -> float | None:
        """The area under the ROC curve by trapezoids, ties counting half; None with one class alone."""
        positives, negatives = self._totals()
        if positives == 0 or negatives == 0:
            return None
        heights = self.true_positives.astype(np.float64)
        heights[1:] += self.true_positives[:-1]
        area = float(heights @ np.diff(self.false_positives, prepend=0)) / 2.0
        return area / (positives * negatives)

    def average_precision(self) -> float | None:
        """The precision at each threshold, weighted by the gain in recall; None without a positive."""
        positives, _ = self._totals()
        if positives == 0:
            return None
        precision = self.true_positives / (self.true_positives + self.false_positives)
        return float(precision @ np.diff(self.true_positives, prepend=0)) / positives

    def _totals(self) -> tuple[int, int]:
        return int(self.true_positives[-1]), int(self.false_positives[-1])


def curve(positive: npt.NDArray[Any], scores: Floats) -> Curve:
    """The curve of rows that are sorted by score already, the highest first.

    Args:
        positive: n flags, one row or more.
        scores: n scores, falling.
    """
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    true_positives = np.cumsum(positive, dtype=np.int64)[ends]
    return Curve(scores[ends], true_positives, ends + 1 - true_positives)


def falling(scores: Floats) -> npt.NDArray[np.int64]:
    """The order that sorts scores from the highest down; equal scores stay in their order."""
    return np.argsort(-scores, kind="stable")


def binary_metrics(positive: npt.NDArray[Any], scores: Floats, predicted: npt.NDArray[np.bool_]) -> Values:
    """The metrics of a model of two classes.

    Args:
        positive: n flags (0 or 1), sorted by score, the highest first.
        scores: n probabilities of the positive class, falling.
        predicted: n flags: whether the positive class is predicted.
    """
    rows = len(scores)
    if rows == 0:
        return dict.fromkeys(metric_names("binary"))
    counts = curve(positive, scores)
    actual = positive.astype(bool)
    positives, predictions = int(actual.sum()), int(predicted.sum())
    hits = int((actual & predicted).sum())
    values: Values = {
        "roc_auc": counts.roc_auc(),
        "average_precision": counts.average_precision(),
        "brier_score": float(np.square(scores - actual).mean()),
        "log_loss": float(-np.log(_likelihood(actual, scores)).mean()),
        "accuracy": (rows - positives - predictions + 2 * hits) / rows,
        "precision": ratio(hits, predictions),
        "recall": ratio(hits, positives),
        "f1": ratio(2 * hits, positives + predictions),
        "expected_calibration_error": calibration_error(calibration_sums(actual, scores)),
        "share_predicted_positive": predictions / rows,
        "base_rate": positives / rows,
    }
    return {name: values[name] for name in metric_names("binary")}


def multiclass_metrics(
    labels: npt.NDArray[np.integer[Any]], scores: npt.NDArray[Any], predicted: npt.NDArray[np.integer[Any]]
) -> Values:
    """The metrics of a model of more than two classes.

    Args:
        labels: n codes of the true classes.
        scores: n by k probabilities.
        predicted: n codes of the predicted classes.
    """
    rows, classes = scores.shape
    if rows == 0:
        return dict.fromkeys(metric_names("multiclass"))
    matrix = confusion(labels, predicted, classes)
    f1, weights = class_f1(matrix)
    truth = scores[np.arange(rows), labels].astype(np.float64)
    confidence = scores[np.arange(rows), predicted].astype(np.float64)
    values: Values = {
        "roc_auc_ovr": roc_auc_one_vs_rest(labels, scores),
        "log_loss": float(-np.log(np.clip(truth, _SMALLEST, 1.0)).mean()),
        "accuracy": float(np.trace(matrix)) / rows,
        "macro_f1": float(f1.mean()),
        "weighted_f1": float(f1 @ weights) / rows,
        "expected_calibration_error": calibration_error(calibration_sums(labels == predicted, confidence)),
    }
    return {name: values[name] for name in metric_names("multiclass")}


def roc_auc_one_vs_rest(labels: npt.NDArray[np.integer[Any]], scores: npt.NDArray[Any]) -> float | None:
    """The mean ROC AUC of each class against the rest, over the classes that occur; None with one class alone."""
    areas = []
    for code in range(scores.shape[1]):
        column = scores[:, code].astype(np.float64)
        order = falling(column)
        area = curve((labels == code)[order], column[order]).roc_auc()
        if area is not None:
            areas.append(area)
    return float(np.mean(areas)) if areas else None


def regression_metrics(actual: Floats, predicted: Floats) -> Values:
    """The metrics of a regression, over n true values and n predicted ones."""
    rows = len(actual)
    if rows == 0:
        return dict.fromkeys(metric_names("regression"))
    errors = predicted - actual
    distances = np.abs(errors)
    squares = float(np.square(errors).sum())
    spread = float(np.square(actual - actual.mean()).sum())
    nonzero = actual != 0
    values: Values = {
        "rmse": math.sqrt(squares / rows),
        "mae": float(distances.mean()),
        "median_absolute_error": float(np.median(distances)),
        "r2": 1.0 - squares / spread if spread > 0 else None,
        # A share of nothing is not defined: such rows are left out.
        "mape": float((distances[nonzero] / np.abs(actual[nonzero])).mean()) if nonzero.any() else None,
        "mean_error": float(errors.mean()),
    }
    return {name: values[name] for name in metric_names("regression")}


def confusion(
    labels: npt.NDArray[np.integer[Any]], predicted: npt.NDArray[np.integer[Any]], classes: int
) -> npt.NDArray[np.int64]:
    """The k by k counts of true class (row) against predicted class (column)."""
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def class_f1(matrix: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """The F1 and the row count of each class that occurs among labels or predictions."""
    actual, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    seen = (actual + predicted) > 0
    scores = 2.0 * np.diag(matrix)[seen] / (actual + predicted)[seen]
    return scores, actual[seen].astype(np.float64)


def calibration_bins(scores: Floats) -> npt.NDArray[np.int64]:
    """The bin of each probability, of `CALIBRATION_BINS` of equal width."""
    return np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_sums(happened: npt.NDArray[np.bool_], scores: Floats) -> npt.NDArray[np.float64]:
    """Rows, sum of probabilities and number that happened, for each bin: 3 by `CALIBRATION_BINS`."""
    bins = calibration_bins(scores)
    return np.stack(
        [
            np.bincount(bins, weights=weights, minlength=CALIBRATION_BINS).astype(np.float64)
            for weights in (None, scores, happened)
        ]
    )


def calibration_error(sums: npt.NDArray[np.float64]) -> float:
    """The mean distance of probability and frequency over the bins, weighted by rows (Guo et al., 2017)."""
    return float(np.abs(sums[1] - sums[2]).sum() / sums[0].sum())


def ratio(part: float, whole: float) -> float | None:
    """A share, or None of nothing."""
    return part / whole if whole else None


def thin(count: int, position: Floats, points: int) -> npt.NDArray[np.int64]:
    """The indices of at most `points` of `count` points, evenly spread along a rising `position`, ends included."""
    if count <= points:
        return np.arange(count)
    wanted = np.linspace(position[0], position[-1], points)
    return np.unique(np.append(np.searchsorted(position, wanted[:-1]), count - 1))


def likelihood_clip(probabilities: Floats) -> Floats:
    """Probabilities kept off 0 and 1, so that their logarithm is finite (scikit-learn's bound)."""
    return np.clip(probabilities, _SMALLEST, 1.0 - _SMALLEST)


def _likelihood(actual: npt.NDArray[np.bool_], scores: Floats) -> Floats:
    clipped = likelihood_clip(scores)
    return np.where(actual, clipped, 1.0 - clipped)


def present(values: Values, names: Sequence[str] | None = None) -> dict[str, float]:
    """The metrics that are defined."""
    return {name: value for name, value in values.items() if value is not None and (names is None or name in names)}
