"""A table of predictions: kept columns, a model's prediction columns, and which model made each row."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.errors import ContractError, DataError
from pipeparts.runtime.models import LoadedModel, ModelInfo
from pipeparts.runtime.tables import Table

#: The column that says which model made a row: `models:/name/3`, or the fingerprint of one that is not registered.
MODEL_VERSION = "model_version"

# Rounding may carry a probability this far beyond 0 or 1.
_PROBABILITY_SLACK = 1e-6


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says of n rows.

    Attributes:
        scores: Regression: [n] values. Two classes: [n] probabilities of the second. More: [n, classes] probabilities.
            NaN where the model gives no finite number, or none that is a probability.
        codes: [n], the predicted class by its place among the model's classes, -1 for one it does not have; None for
            a regression.
    """

    scores: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int16] | None

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Whether the model gave a usable answer: n flags."""
        known = np.isfinite(self.scores if self.scores.ndim == 1 else self.scores.sum(axis=1))
        return known if self.codes is None else known & (self.codes >= 0)


def answer(model: LoadedModel, rows: pa.RecordBatch, *, start: int = 0) -> Answer:
    """Lets a model answer, and keeps of it what is usable.

    Args:
        model: The model.
        rows: n rows with its raw columns.
        start: Where they begin in their table, for messages.

    Raises:
        ContractError: Where the model fails, or answers with something else.
    """
    try:
        scores = model.score(rows)
        frame = model.predict(rows.to_pandas()) if scores is None else None
    except ContractError:
        raise
    except Exception as error:  # whatever the model's own code raises
        raise ContractError(
            "the model fails on the table's rows",
            where=f"among rows {start:,} to {start + rows.num_rows:,}",
            received=f"{type(error).__name__}: {error}",
        ) from error
    info = model.info
    if frame is not None:
        scores = _numbers(frame, info)
    scores = np.asarray(scores, dtype=np.float64)
    if info.task == "regression":
        return Answer(usable_scores(info, scores), None)
    if frame is None:
        codes = (scores >= 0.5) if scores.ndim == 1 else scores.argmax(axis=1)
    else:
        import pandas as pd

        codes = pd.Index(list(info.classes)).get_indexer(pd.Index(frame["prediction"]))
    return Answer(usable_scores(info, scores), codes.astype(np.int16))


def usable_scores(info: ModelInfo, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores of any shape with NaN in place of those that are not finite or, of classes, no probability."""
    if info.task == "regression":
        return np.where(np.isfinite(scores), scores, np.nan)
    wrong = ~((scores >= -_PROBABILITY_SLACK) & (scores <= 1 + _PROBABILITY_SLACK))
    return np.where(wrong, np.nan, np.clip(scores, 0.0, 1.0))


def prediction_schema(info: ModelInfo) -> pa.Schema:
    """The columns that a model's predictions have in a table, without `model_version`.

    `prediction` is of the type of the model's classes, float64 for a regression; probabilities are float64.
    """
    kind = pa.float64() if info.task == "regression" else _class_type(info.classes)
    return pa.schema([(name, kind if name == "prediction" else pa.float64()) for name in info.prediction_columns])


def prediction_arrays(given: Answer, info: ModelInfo) -> list[pa.Array]:
    """An answer as the columns of `prediction_schema`, null where it is not usable."""
    missing = None if given.usable.all() else ~given.usable
    columns = []
    if given.codes is not None:
        kind = prediction_schema(info).field("prediction").type
        columns.append(pa.array(info.classes, kind).take(pa.array(given.codes, mask=missing)))
    for scores in [given.scores] if given.scores.ndim == 1 else given.scores.T:
        columns.append(pa.array(np.ascontiguousarray(scores), mask=missing))
    return columns


def served_model(table: Table) -> str:
    """The model that made a table of predictions: the `model_version` of most rows.

    Args:
        table: A table that `predict_table` wrote, or rows of several such tables.

    Returns:
        `models:/name/3` or a fingerprint; of equally many rows the first in the order of the alphabet.

    Raises:
        ContractError: Where the table is none of predictions.
        DataError: Where no row says which model made it.
    """
    kind = table.schema.field(MODEL_VERSION).type if MODEL_VERSION in table.schema.names else None
    if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise ContractError(
            "not a table of predictions",
            where=str(table.path),
            allowed=f"a column {MODEL_VERSION} of text, as predict_table writes it",
            received=table.schema.names if kind is None else f"{MODEL_VERSION}: {kind}",
        )
    counts: collections.Counter[str] = collections.Counter()
    for batch in table.batches([MODEL_VERSION]):
        for item in pc.value_counts(batch.column(0).drop_null()).to_pylist():
            counts[item["values"]] += item["counts"]
    if not counts:
        raise DataError(
            "no row says which model made it",
            where=f"column {MODEL_VERSION} of {table.path}",
            allowed="one row with a model at least",
            received=f"{table.rows:,} rows without one" if table.rows else "an empty table",
        )
    return min(counts, key=lambda name: (-counts[name], name))


def _numbers(frame: Any, info: ModelInfo) -> npt.NDArray[np.float64]:
    names = ["prediction"] if info.task == "regression" else list(info.prediction_columns[1:])
    try:
        numbers: npt.NDArray[np.float64] = frame[names].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ContractError(
            "the model's answer is not numbers", where=", ".join(names), allowed="numbers", received=str(error)
        ) from error
    return numbers[:, 0] if len(names) == 1 else numbers


def _class_type(classes: tuple[Any, ...]) -> pa.DataType:
    kinds = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    return kinds.get(type(classes[0]), pa.string())
