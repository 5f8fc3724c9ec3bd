"""The KFP interface of `evaluate_model`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tensorflow", install_kfp_package=False)
def evaluate_model(
    model: dsl.Input[dsl.Model],
    table: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    page: dsl.Output[dsl.HTML],
    slices: Optional[list] = None,
    threshold: float = 0.5,
) -> None:
    """Measures a model on a table: metrics, calibration, slices and plots, beside the simplest baseline.

    Rows without a label are left out and counted. Metrics are exact.

    Args:
        model: A model of this library, whatever its framework.
        table: The table, with the model's raw columns and its label.
        slices: Columns whose values are measured apart, as `origin`, or crossed, as `origin+dest`.
            Numbers with many values go into five buckets of equal row count; the 24 largest slices are
            kept, the rest is one.
        threshold: The probability (0 to 1) from which the positive class is predicted, for two classes.

    Returns:
        evaluation: Every number (JSON): metrics, baseline, slices, curves, counts, fingerprints.
        metrics: The metrics as scalars, for the console.
        classification: The confusion matrix and the ROC curve, for the console; empty for a regression.
        page: The evaluation with plots, for people.

    Raises:
        InputError: For a wrong threshold or slice.
        ContractError: Where the model fails, or the table is not what it takes.
        DataError: Where no row has a label, or a label is none of the model's classes.
    """
    from pipeparts.components.validation.evaluate_model import logic

    result = logic.evaluate_model(
        model_path=model.path,
        table_path=table.path,
        evaluation_path=evaluation.path,
        metrics_path=metrics.path,
        classification_path=classification.path,
        page_path=page.path,
        slices=slices,
        threshold=threshold,
    )
    evaluation.metadata.update(result.metadata())
    for name, value in result.defined().items():
        metrics.log_metric(name, value)
    logic.log_curves(result, classification)
