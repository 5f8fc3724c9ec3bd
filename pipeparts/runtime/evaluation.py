"""The evaluation contract: a model's predictions on a table, and every number that says how good they are."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime import metrics as m
from pipeparts.runtime.errors import ContractError, DataError
from pipeparts.runtime.files import read_json, write_json
from pipeparts.runtime.metrics import Floats, Kind, Values
from pipeparts.runtime.models import LoadedModel, ModelInfo
from pipeparts.runtime.predictions import answer, usable_scores
from pipeparts.runtime.slices import Slicer, Slicing, to_floats
from pipeparts.runtime.tables import Table, arrow_type, type_name

logger = logging.getLogger(__name__)

FORMAT = "pipeparts.evaluation/1"

#: Most points of a curve that are kept: consoles and pages draw no more.
CURVE_POINTS = 200
_HISTOGRAM_BINS = 40
_GRID_CELLS = 48
_RESIDUAL_BANDS = 20
_CLASSES_WITH_CURVES = 12
_PROGRESS_ROWS = 1_000_000


def kind_of(info: ModelInfo) -> Kind:
    """Which metrics a model has: those of two classes, of more, or of a regression."""
    if info.task == "regression":
        return "regression"
    return "binary" if len(info.classes) == 2 else "multiclass"


@dataclasses.dataclass(frozen=True)
class Predictions:
    """A model's answers beside the true labels, for the rows that have a label, in the table's order.

    In memory: 9 bytes a row for two classes, 4 for each class and 4 more for more classes, 16 for a regression, and
    2 for each slice. Measuring them takes some 80 bytes a row more while it sorts and sums.

    Attributes:
        kind: Which metrics apply.
        labels: n codes of the true class, or n true values.
        scores: n probabilities of the positive class, n by k probabilities, or n predicted values; NaN where the
            model gave none.
        predicted: n codes of the predicted class; for more than two classes only.
        slicings: The slices of the n rows.
        rows: Rows of the table, with and without a label.
    """

    kind: Kind
    labels: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    predicted: npt.NDArray[np.int16] | None
    slicings: tuple[Slicing, ...]
    rows: int

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Whether the model gave a usable answer: n flags."""
        finite = np.isfinite(self.scores if self.scores.ndim == 1 else self.scores.sum(axis=1))
        return np.asarray(finite if self.predicted is None else finite & (self.predicted >= 0))

    @property
    def invalid_rows(self) -> int:
        """Rows with a label for which the model gave no usable answer."""
        return len(self.labels) - int(self.valid.sum())

    def take(self, rows: npt.NDArray[Any]) -> Predictions:
        """The predictions of some rows only, by index or by flag."""
        return dataclasses.replace(
            self,
            labels=self.labels[rows],
            scores=self.scores[rows],
            predicted=None if self.predicted is None else self.predicted[rows],
            slicings=tuple(dataclasses.replace(slicing, codes=slicing.codes[rows]) for slicing in self.slicings),
        )


def check_table(info: ModelInfo, table: Table, *, label: bool = True) -> None:
    """Checks that a table has the raw columns of a model, and its label.

    Args:
        info: The model.
        table: The table.
        label: Whether the label has to be there.

    Raises:
        ContractError: Naming each column that is missing or of another kind.
    """
    needed = [*info.columns, info.label] if label else list(info.columns)
    problems = [f"{name} is missing" for name in needed if name not in table.schema.names]
    for name, wanted in info.columns.items():
        if name in table.schema.names:
            got = table.schema.field(name).type
            if _family(got) != _family(arrow_type(wanted)):
                problems.append(f"{name} is {type_name(got)}, not {wanted}")
    if problems:
        raise ContractError(
            "the table is not what the model takes",
            where=str(table.path),
            allowed=", ".join(
                [*(f"{name}: {kind}" for name, kind in info.columns.items()), *([f"{info.label} (label)"] * label)]
            ),
            received="; ".join(problems),
        )


def predict_table(
    model: LoadedModel, table: Table, *, slices: Sequence[str] = (), batch_rows: int = 65_536
) -> Predictions:
    """Predicts the rows of a table that have a label, in batches.

    Args:
        model: The model.
        table: The table, with the model's raw columns and its label.
        slices: Slices, checked by `parse_slices`.
        batch_rows: Rows a batch.

    Raises:
        ContractError: Where the table is not what the model takes, or the model fails or answers with something else.
        DataError: Where no row has a label, or a label is none of the model's.
    """
    info = model.info
    check_table(info, table)
    slicer = Slicer(slices, table.schema)
    names = list(dict.fromkeys([*info.columns, info.label, *slicer.columns]))
    labels: list[npt.NDArray[Any]] = []
    answers: list[tuple[npt.NDArray[Any], npt.NDArray[np.int16] | None]] = []
    seen = 0
    for batch in table.batches(names, batch_rows=batch_rows):
        codes, known = label_codes(info, batch.column(info.label))
        start, seen = seen, seen + batch.num_rows
        if not known.all():
            batch = batch.filter(pa.array(known))
        if batch.num_rows:
            labels.append(codes[known])
            slicer.add(batch)
            answers.append(_answers(model, batch.select(list(info.columns)), start))
        if seen // _PROGRESS_ROWS > start // _PROGRESS_ROWS:
            logger.info("predicted %s of %s rows", f"{seen:,}", f"{table.rows:,}")
    if not labels:
        raise DataError(
            "no row to evaluate the model on",
            where=f"column {info.label} of {table.path}",
            allowed="one row with a label at least",
            received=f"{table.rows:,} rows, none with a label" if table.rows else "an empty table",
        )
    return Predictions(
        kind=kind_of(info),
        labels=np.concatenate(labels),
        scores=np.concatenate([scores for scores, _ in answers]),
        predicted=np.concatenate([codes for _, codes in answers if codes is not None])
        if answers[0][1] is not None
        else None,
        slicings=slicer.finish(),
        rows=seen,
    )


def label_codes(info: ModelInfo, column: pa.Array) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The labels of a batch as codes or numbers, and which rows have one.

    Raises:
        ContractError: Where the column's type is not that of the model's labels.
        DataError: For a label that is none of the model's classes, or infinite.
    """
    if info.task == "regression":
        if _family(column.type) != "number":
            raise ContractError(
                "the label is not a number", where=f"column {info.label}", allowed="numbers", received=str(column.type)
            )
        values = to_floats(column)
        if np.isinf(values).any():
            raise DataError(
                "an infinite label", where=f"column {info.label}", allowed="finite numbers", received="infinity"
            )
        return values, ~np.isnan(values)
    try:
        classes = pa.array(info.classes).cast(column.type)
    except (pa.ArrowException, TypeError) as error:
        raise ContractError(
            "the label is of another type than the model's classes",
            where=f"column {info.label}",
            allowed=f"one of {list(info.classes)}",
            received=str(column.type),
        ) from error
    codes = pc.index_in(column, value_set=classes)
    unknown = pc.and_(pc.is_null(codes), pc.is_valid(column))
    if pc.any(unknown).as_py():
        strange = pc.unique(column.filter(unknown)).to_pylist()
        raise DataError(
            "labels that the model does not know",
            where=f"column {info.label}",
            allowed=list(info.classes),
            received=[repr(value) for value in strange[:10]],
        )
    known = np.asarray(pc.is_valid(column).to_numpy(zero_copy_only=False))
    wide = np.int8 if len(info.classes) <= 2 else np.int16
    return codes.fill_null(0).to_numpy(zero_copy_only=False).astype(wide), known


def recorded_answers(info: ModelInfo, batch: pa.RecordBatch) -> tuple[npt.NDArray[Any], npt.NDArray[np.int16] | None]:
    """The scores in rows of a table of predictions and, for more than two classes, the codes of the predicted ones.

    Args:
        info: The model that made them.
        batch: n rows with the columns `info.prediction_columns`.

    Raises:
        ContractError: Where a column that has to be of numbers is not.
    """
    names = score_columns(info)
    for name in names:
        if _family(batch.schema.field(name).type) != "number":
            raise ContractError(
                "the predictions are not numbers",
                where=f"column {name}",
                allowed="numbers",
                received=type_name(batch.schema.field(name).type),
            )
    scores = usable_scores(info, np.stack([to_floats(batch.column(name)) for name in names], axis=1))
    if len(info.classes) <= 2:
        return scores[:, 0], None
    predicted = batch.column("prediction")
    if pa.types.is_dictionary(predicted.type):
        predicted = predicted.cast(predicted.type.value_type)
    try:
        codes = pc.index_in(predicted, value_set=pa.array(info.classes).cast(predicted.type))
    except (pa.ArrowException, TypeError) as error:
        raise ContractError(
            "the predictions are of another type than the model's classes",
            where="column prediction",
            allowed=f"one of {list(info.classes)}",
            received=str(predicted.type),
        ) from error
    return scores.astype(np.float32), codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int16)


def score_columns(info: ModelInfo) -> list[str]:
    """The columns of a prediction that metrics need as numbers: the probabilities, or a regression's prediction."""
    return ["prediction"] if info.task == "regression" else list(info.prediction_columns[1:])


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How good a model is on a table.

    Attributes:
        kind: "binary", "multiclass" or "regression".
        label: The label's column.
        classes: The label's classes in the order of the model's outputs; empty for a regression.
        threshold: The probability from which the positive class is predicted; None but for two classes.
        model: The model's `fingerprint` and `framework`.
        table: The table's `fingerprint`, `rows` and `source`.
        counts: `rows`, `rows_without_label`, `rows_without_prediction`, `rows_evaluated`, and for classes
            `rows_by_class`.
        metrics: Metric to value; None where it is not defined on these rows.
        baseline: The same for the best model that looks at no column: see `baseline_name`.
        baseline_name: What the baseline does, in words.
        slices: For each slice its `name` and its `values`, each with `value`, `rows`, `metrics` and `baseline`.
        curves: What the plots show, thinned.
    """

    kind: Kind
    label: str
    classes: tuple[Any, ...]
    threshold: float | None
    model: dict[str, Any]
    table: dict[str, Any]
    counts: dict[str, Any]
    metrics: Values
    baseline: Values
    baseline_name: str
    slices: tuple[dict[str, Any], ...]
    curves: dict[str, Any]

    @property
    def positive_class(self) -> Any:
        """The class whose probability a model of two classes gives."""
        return self.classes[-1]

    def defined(self) -> dict[str, float]:
        """The metrics that are defined on these rows."""
        return m.present(self.metrics)

    def metadata(self) -> dict[str, Any]:
        """What goes onto the KFP artifact."""
        return {
            "kind": self.kind,
            "label": self.label,
            "model_fingerprint": self.model["fingerprint"],
            "table_fingerprint": self.table["fingerprint"],
            "rows_evaluated": self.counts["rows_evaluated"],
            "rows_without_label": self.counts["rows_without_label"],
            "rows_without_prediction": self.counts["rows_without_prediction"],
            **self.defined(),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON form of the contract, whole or not at all."""
        write_json(path, {"format": FORMAT, **dataclasses.asdict(self)})


def read_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Reads an evaluation and holds it to its contract.

    Raises:
        ContractError: Where the file is missing or no evaluation.
    """
    document = read_json(path, what="an evaluation")
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise ContractError("not an evaluation", where=str(path), allowed=f"format {FORMAT!r}", received=document)
    try:
        evaluation = Evaluation(
            **document | {"classes": tuple(document["classes"]), "slices": tuple(document["slices"])}
        )
        lacking = {"fingerprint"} - evaluation.model.keys() | {"fingerprint"} - evaluation.table.keys()
        if lacking or evaluation.kind not in m.PRIMARY:
            raise KeyError(", ".join(lacking) or evaluation.kind)
    except (KeyError, TypeError, AttributeError) as error:
        raise ContractError("a damaged evaluation", where=str(path), received=repr(error)) from error
    return evaluation


def evaluate(predictions: Predictions, info: ModelInfo, table: Table, *, threshold: float = 0.5) -> Evaluation:
    """Every number about a model's predictions on a table; rows without a usable answer are counted and left out."""
    whole = predictions
    predictions = whole.take(whole.valid) if whole.invalid_rows else whole
    rows = len(predictions.labels)
    counts: dict[str, Any] = {
        "rows": whole.rows,
        "rows_without_label": whole.rows - len(whole.labels),
        "rows_without_prediction": len(whole.labels) - rows,
        "rows_evaluated": rows,
    }
    if predictions.kind != "regression":
        # Every labelled row, so that the classes can be seen even where the model gave no answer.
        by_class = np.bincount(whole.labels, minlength=len(info.classes))
        counts["rows_by_class"] = {str(name): int(n) for name, n in zip(info.classes, by_class, strict=True)}
    measure = _MEASURES[predictions.kind](predictions, info, threshold)
    everything = slice(None)  # a view: no copy of all rows
    return Evaluation(
        kind=predictions.kind,
        label=info.label,
        classes=info.classes,
        threshold=threshold if predictions.kind == "binary" else None,
        model={"fingerprint": info.fingerprint, "framework": info.framework},
        table={"fingerprint": table.info.fingerprint, "rows": table.rows, "source": table.info.source},
        counts=counts,
        metrics=measure.metrics(everything),
        baseline=measure.baseline(everything),
        baseline_name=measure.baseline_name,
        slices=tuple(_slice(slicing, measure) for slicing in predictions.slicings),
        curves=measure.curves() if rows else {},
    )


def metrics_of(predictions: Predictions, *, threshold: float = 0.5) -> Values:
    """The metrics of predictions, all of them usable."""
    if predictions.kind == "regression":
        return m.regression_metrics(predictions.labels, predictions.scores)
    if predictions.kind == "multiclass":
        assert predictions.predicted is not None
        return m.multiclass_metrics(predictions.labels, predictions.scores, predictions.predicted)
    order = m.falling(predictions.scores)
    scores = predictions.scores[order]
    return m.binary_metrics(predictions.labels[order], scores, scores >= threshold)


def binary_curves(positive: npt.NDArray[Any], scores: Floats, predicted: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """What the plots of a model of two classes show, over rows sorted by score, the highest first."""
    counts = m.curve(positive, scores)
    hits, misses = counts.true_positives, counts.false_positives
    curves: dict[str, Any] = {
        "calibration": _calibration(m.calibration_sums(positive.astype(bool), scores)),
        "confusion": m.confusion(positive.astype(np.int64), predicted.astype(np.int64), 2).tolist(),
        "histogram": {
            "edges": np.linspace(0, 1, _HISTOGRAM_BINS + 1).tolist(),
            "negative": _histogram(scores[positive == 0], 0.0, 1.0),
            "positive": _histogram(scores[positive == 1], 0.0, 1.0),
        },
    }
    if hits[-1] and misses[-1]:
        curves["roc"] = _roc(counts)
    if hits[-1]:
        recall = hits / hits[-1]
        kept = m.thin(len(hits), recall, CURVE_POINTS)
        curves["precision_recall"] = {
            "precision": (hits[kept] / (hits[kept] + misses[kept])).tolist(),
            "recall": recall[kept].tolist(),
            "threshold": counts.thresholds[kept].tolist(),
        }
    return curves


_Rows = npt.NDArray[np.int64] | slice


class _Binary:
    """Measures two classes: sorted once by score; every slice keeps that order."""

    def __init__(self, predictions: Predictions, info: ModelInfo, threshold: float) -> None:
        order = m.falling(predictions.scores)
        self._order = order
        self._positive = predictions.labels[order]
        self._scores = predictions.scores[order]
        self._predicted = self._scores >= threshold
        positives, rows = int(self._positive.sum()), len(order)
        self._rate = positives / rows if rows else 0.0
        majority = info.classes[1] if 2 * positives > rows else info.classes[0]
        self._majority_positive = 2 * positives > rows
        self.baseline_name = f"always class {majority}, with the base rate as its probability"

    def groups(self, slicing: Slicing) -> Iterator[npt.NDArray[np.int64]]:
        yield from _groups(slicing.codes[self._order], len(slicing.values))

    def metrics(self, rows: _Rows) -> Values:
        return m.binary_metrics(self._positive[rows], self._scores[rows], self._predicted[rows])

    def baseline(self, rows: _Rows) -> Values:
        positive = self._positive[rows]
        count = len(positive)
        return m.binary_metrics(positive, np.full(count, self._rate), np.full(count, self._majority_positive))

    def curves(self) -> dict[str, Any]:
        return binary_curves(self._positive, self._scores, self._predicted)


class _Multiclass:
    """Measures more than two classes."""

    def __init__(self, predictions: Predictions, info: ModelInfo, threshold: float) -> None:
        assert predictions.predicted is not None
        self._labels, self._scores, self._predicted = predictions.labels, predictions.scores, predictions.predicted
        self._classes = info.classes
        shares = np.bincount(self._labels, minlength=len(info.classes)) / max(len(self._labels), 1)
        self._shares = shares
        self.baseline_name = (
            f"always class {info.classes[int(shares.argmax())]}, with the classes' shares as its probabilities"
        )

    def groups(self, slicing: Slicing) -> Iterator[npt.NDArray[np.int64]]:
        yield from _groups(slicing.codes, len(slicing.values))

    def metrics(self, rows: _Rows) -> Values:
        return m.multiclass_metrics(self._labels[rows], self._scores[rows], self._predicted[rows])

    def baseline(self, rows: _Rows) -> Values:
        labels = self._labels[rows]
        scores = np.broadcast_to(self._shares, (len(labels), len(self._shares)))
        return m.multiclass_metrics(labels, scores, np.full(len(labels), int(self._shares.argmax())))

    def curves(self) -> dict[str, Any]:
        confidence = self._scores[np.arange(len(self._labels)), self._predicted].astype(np.float64)
        curves: dict[str, Any] = {
            "calibration": _calibration(m.calibration_sums(self._labels == self._predicted, confidence)),
            "confusion": m.confusion(self._labels, self._predicted, len(self._classes)).tolist(),
            "roc_by_class": {},
        }
        for code, name in enumerate(self._classes[:_CLASSES_WITH_CURVES]):
            scores = self._scores[:, code].astype(np.float64)
            order = m.falling(scores)
            counts = m.curve((self._labels == code)[order], scores[order])
            if counts.roc_auc() is not None:
                curves["roc_by_class"][str(name)] = _roc(counts)
        return curves


class _Regression:
    """Measures a regression."""

    def __init__(self, predictions: Predictions, info: ModelInfo, threshold: float) -> None:
        self._actual, self._predicted = predictions.labels, predictions.scores
        self._mean = float(self._actual.mean()) if len(self._actual) else 0.0
        self.baseline_name = f"always the mean of the labels, {self._mean:.6g}"

    def groups(self, slicing: Slicing) -> Iterator[npt.NDArray[np.int64]]:
        yield from _groups(slicing.codes, len(slicing.values))

    def metrics(self, rows: _Rows) -> Values:
        return m.regression_metrics(self._actual[rows], self._predicted[rows])

    def baseline(self, rows: _Rows) -> Values:
        actual = self._actual[rows]
        return m.regression_metrics(actual, np.full(len(actual), self._mean))

    def curves(self) -> dict[str, Any]:
        errors = self._predicted - self._actual
        # One wild value must not squeeze the rest into a corner: the plots show 99% of the rows, and say so.
        low, high = _spread(np.concatenate([self._actual, self._predicted]))
        error_low, error_high = _spread(errors)
        edges = np.linspace(low, high, _GRID_CELLS + 1)
        grid, _, _ = np.histogram2d(self._actual, self._predicted, bins=(edges, edges))
        return {
            "predicted_actual": {"edges": edges.tolist(), "counts": grid.astype(np.int64).tolist()},
            "residuals": {
                "edges": np.linspace(error_low, error_high, _HISTOGRAM_BINS + 1).tolist(),
                "counts": _histogram(errors, error_low, error_high),
                "outside": int(((errors < error_low) | (errors > error_high)).sum()),
            },
            "residual_bands": _residual_bands(self._predicted, errors),
        }


_Measure = _Binary | _Multiclass | _Regression
_MEASURES: dict[Kind, type[_Binary] | type[_Multiclass] | type[_Regression]] = {
    "binary": _Binary,
    "multiclass": _Multiclass,
    "regression": _Regression,
}


def _slice(slicing: Slicing, measure: _Measure) -> dict[str, Any]:
    values = []
    for value, rows in zip(slicing.values, measure.groups(slicing), strict=True):
        values.append(
            {
                "value": value,
                "rows": len(rows),
                "metrics": measure.metrics(rows),
                "baseline": measure.baseline(rows),
            }
        )
    return {"name": slicing.name, "values": values}


def _groups(codes: npt.NDArray[np.int16], count: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each code, in the order they come in: a radix sort, linear in the rows."""
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=count))
    yield from np.split(order, ends[:-1])


def _answers(
    model: LoadedModel, batch: pa.RecordBatch, start: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int16] | None]:
    """A batch's scores and, for more than two classes, the codes of the predicted ones."""
    given = answer(model, batch, start=start)
    if given.scores.ndim == 1:
        return given.scores, None
    return given.scores.astype(np.float32), given.codes


def _family(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return "number"
    if pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_temporal(kind):
        return "time"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return "text"
    return str(kind)


def _roc(counts: m.Curve) -> dict[str, list[float]]:
    hits = np.append(0, counts.true_positives) / counts.true_positives[-1]
    misses = np.append(0, counts.false_positives) / counts.false_positives[-1]
    # Nothing is predicted positive above the highest score; infinity is no JSON, so the curve begins at 1 there.
    thresholds = np.append(max(1.0, float(counts.thresholds[0])), counts.thresholds)
    kept = m.thin(len(hits), hits + misses, CURVE_POINTS)
    return {
        "false_positive_rate": misses[kept].tolist(),
        "true_positive_rate": hits[kept].tolist(),
        "threshold": thresholds[kept].tolist(),
    }


def _calibration(sums: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    edges = np.linspace(0, 1, m.CALIBRATION_BINS + 1)
    return [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "rows": int(rows),
            "predicted": float(total / rows),
            "observed": float(happened / rows),
        }
        for i, (rows, total, happened) in enumerate(sums.T)
        if rows
    ]


def _histogram(values: Floats, low: float, high: float) -> list[int]:
    return [int(n) for n in np.histogram(values, bins=_HISTOGRAM_BINS, range=(low, high))[0]]


def _spread(values: Floats) -> tuple[float, float]:
    low, high = (float(v) for v in np.quantile(values, [0.005, 0.995]))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _residual_bands(predicted: Floats, errors: Floats) -> list[dict[str, Any]]:
    """The spread of the errors in bands of equal row count, by what was predicted."""
    order = np.argsort(predicted, kind="stable")
    bands = []
    for rows in np.array_split(order, min(_RESIDUAL_BANDS, len(order))):
        low, middle, high = (float(v) for v in np.quantile(errors[rows], [0.1, 0.5, 0.9]))
        bands.append(
            {
                "predicted": float(predicted[rows].mean()),
                "rows": len(rows),
                "p10": low,
                "median": middle,
                "p90": high,
            }
        )
    assert all(math.isfinite(band["predicted"]) for band in bands)
    return bands
