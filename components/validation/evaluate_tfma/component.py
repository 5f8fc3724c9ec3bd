"""The KFP interface of `evaluate_tfma`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tfx", install_kfp_package=False)
def evaluate_tfma(
    predictions: dsl.Input[dsl.Dataset],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    verdict: dsl.Output[dsl.Artifact],
    verdict_text: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    label: str,
    task: str = "binary",
    prediction: str = "",
    classes: Optional[list] = None,
    slices: Optional[list] = None,
    thresholds: Optional[dict] = None,
    slice_thresholds: Optional[dict] = None,
    min_slice_rows: int = 100,
    keys: Optional[list] = None,
    beam_options: Optional[dict] = None,
    baseline: Optional[dsl.Input[dsl.Dataset]] = None,
) -> bool:
    """Measures predictions by TensorFlow Model Analysis: metrics, slices, thresholds, the change from a baseline.

    A gate: it ends well either way, so that its verdict and page stay to be looked at. `require_verdict` stops the run.
    TFMA works row by row, some thousands a second and core: more than a few hundred thousand rows want another runner.

    Args:
        predictions: What `predict_table` wrote, with the label and the slices' columns kept.
        label: The label's column. Rows without a label are left out and counted.
        task: "binary" or "regression"; more than two classes are measured by `evaluate_model`.
        prediction: The column with the prediction; empty: `probability`, or `prediction` for a regression.
        classes: The label's two values, the positive one last; 0 and 1, or false and true, unless given.
        slices: Columns whose values are measured apart, as `origin`, or crossed, as `origin+dest`.
        thresholds: For all rows: metric, by TFMA's name as AUC, to `min`, `max` and, against the baseline,
            `min_change` or `max_change`. One that is not among the usual metrics is measured too, and with {} it is
            not judged.
        slice_thresholds: The same for every slice of at least `min_slice_rows` rows.
        min_slice_rows: Slices with fewer rows are measured, and not judged.
        keys: Columns that name a row, which have to be the same in both tables, row by row.
        beam_options: Options of Beam, such as {"runner": "DataflowRunner", ...}; this machine unless given.
        baseline: The baseline's predictions of the same rows in the same order, such as the champion's.

    Returns:
        evaluation: TFMA's own result, which `tfma.load_eval_result` reads: metrics, plots, validation, configuration.
        metrics: The metrics of all rows as scalars, for the console.
        verdict: JSON with a check for each threshold.
        verdict_text: The verdict for people.
        page: The metrics, the slices and the verdict as an HTML page.
        Output: Whether every check passed.

    Raises:
        InputError: For a task, column, metric, slice or threshold that is not known or does not go with the others.
        DataError: Where no row has a label, a label is none of the classes, or the baseline's rows are others.
        ContractError: Where a table is damaged.
    """
    from pipeparts.components.validation.evaluate_tfma import logic

    found = logic.evaluate(
        predictions_path=predictions.path,
        evaluation_path=evaluation.path,
        verdict_path=verdict.path,
        verdict_text_path=verdict_text.path,
        page_path=page.path,
        label=label,
        task=task,
        prediction=prediction,
        classes=classes,
        slices=slices,
        thresholds=thresholds,
        slice_thresholds=slice_thresholds,
        min_slice_rows=min_slice_rows,
        keys=keys,
        beam_options=beam_options,
        baseline_path=baseline.path if baseline else None,
    )
    verdict.metadata.update(found.verdict.metadata())
    evaluation.metadata.update(found.metadata())
    for name, value in found.overall().items():
        metrics.log_metric(name, value)
    return found.verdict.passed
