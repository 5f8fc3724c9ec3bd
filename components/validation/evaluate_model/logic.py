"""The work of `evaluate_model`."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from pipeparts.components.validation.evaluate_model.page import write_page
from pipeparts.runtime.errors import InputError
from pipeparts.runtime.evaluation import Evaluation, evaluate, predict_table
from pipeparts.runtime.files import write_json
from pipeparts.runtime.models import LoadedModel
from pipeparts.runtime.slices import parse_slices
from pipeparts.runtime.tables import Table

logger = logging.getLogger(__name__)


def evaluate_model(
    *,
    model_path: str | os.PathLike[str],
    table_path: str | os.PathLike[str],
    evaluation_path: str | os.PathLike[str],
    metrics_path: str | os.PathLike[str],
    classification_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    slices: Sequence[str] | None = None,
    threshold: float = 0.5,
) -> Evaluation:
    """Measures a model on a table, and writes the numbers and a page with plots.

    Args:
        model_path: The model's folder.
        table_path: The table's folder; rows without a label are left out and counted.
        evaluation_path: Where the evaluation (JSON) goes.
        metrics_path: Where the metrics (JSON) go: KFP's local cache wants every output as a file.
        classification_path: Where the ROC curve and the confusion matrix (JSON) go; `{}` for a regression.
        page_path: Where the HTML page goes.
        slices: Columns, or columns crossed with "+", whose values are measured apart.
        threshold: The probability from which the positive class is predicted, for two classes.

    Returns:
        The evaluation.

    Raises:
        InputError: For a threshold outside 0 to 1, or a slice that is no column.
        ContractError: Where the model does not load or fails, or the table is not what it takes.
        DataError: Where no row has a label, or a label is none of the model's classes.
    """
    _check_threshold(threshold)
    table = Table(table_path)
    wanted = parse_slices(slices, table)
    model = LoadedModel(model_path)
    logger.info("evaluating a %s model on %s rows", model.info.framework, f"{table.rows:,}")
    predictions = predict_table(model, table, slices=wanted)
    evaluation = evaluate(predictions, model.info, table, threshold=threshold)
    if evaluation.counts["rows_without_prediction"]:
        logger.warning(
            "the model gave no usable answer for %s of %s rows",
            f"{evaluation.counts['rows_without_prediction']:,}",
            f"{len(predictions.labels):,}",
        )
    write_page(evaluation, page_path)
    write_json(metrics_path, evaluation.defined())
    write_json(classification_path, _console_curves(evaluation))
    evaluation.write(evaluation_path)
    logger.info("measured %s", ", ".join(f"{name} {value:.4g}" for name, value in evaluation.defined().items()))
    return evaluation


def log_curves(evaluation: Evaluation, classification: Any) -> None:
    """Puts the confusion matrix and the ROC curve onto a KFP ClassificationMetrics; nothing for a regression."""
    curves = _console_curves(evaluation)
    if "confusion_matrix" in curves:
        classification.log_confusion_matrix(**curves["confusion_matrix"])
    if "roc_curve" in curves:
        classification.log_roc_curve(**curves["roc_curve"])


def _console_curves(evaluation: Evaluation) -> dict[str, Any]:
    """The arguments for KFP's `log_confusion_matrix` and `log_roc_curve`, where there are any."""
    curves: dict[str, Any] = {}
    if "confusion" in evaluation.curves:
        curves["confusion_matrix"] = {
            "categories": [str(name) for name in evaluation.classes],
            "matrix": evaluation.curves["confusion"],
        }
    if "roc" in evaluation.curves:
        roc = evaluation.curves["roc"]
        curves["roc_curve"] = {
            "fpr": roc["false_positive_rate"],
            "tpr": roc["true_positive_rate"],
            "threshold": roc["threshold"],
        }
    return curves


def _check_threshold(threshold: float) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0.0 <= threshold <= 1.0:
        raise InputError(
            "a threshold that is no probability", parameter="threshold", allowed="0 to 1", received=repr(threshold)
        )
