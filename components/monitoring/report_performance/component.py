"""The KFP interface of `report_performance`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def report_performance(
    predictions: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Dataset],
    performance: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    keys: Optional[list] = None,
    label: str = "",
    slices: Optional[list] = None,
    time_column: str = "",
    window: str = "day",
    limits: Optional[dict] = None,
    model_uri: str = "",
    tracking_uri: str = "",
    model: Optional[dsl.Input[dsl.Model]] = None,
    evaluation: Optional[dsl.Input[dsl.Artifact]] = None,
) -> bool:
    """Measures predictions whose labels have arrived, by time and slice, against the model's values at registration.

    The model is `model`, or `model_uri`, or else the one that made most of the predictions. Rows whose label has not
    arrived are counted. Degraded is a model whose loss is beyond a limit, and no chance.

    Args:
        predictions: The predictions, as predict_table writes them.
        labels: The labels that have arrived, with columns for slices and time. A column that both tables have is taken
            from here.
        keys: The columns by which a prediction finds its label, unique in both tables. None: `labels` is the table of
            predictions itself, with the label in it.
        label: The label's column; empty: the model's own.
        slices: Columns whose values are measured apart, as `origin`, or crossed, as `origin+dest`. Numbers go into
            the buckets of the registered evaluation.
        time_column: The column of dates or times for the windows; empty: no windows.
        window: day, week (from Monday) or month, in UTC.
        limits: `metric`; `max_loss` (0.02, as a share 0.05), `relative`; `bounds` {metric: {min, max}}; `min_rows`
            (500); `max_slice_loss` (0.05, as a share 0.1), `min_slice_rows` (500), `judge_slices`;
            `max_window_loss`; `max_unpredicted_share`; `loss_bound` (estimate or lower), `confidence` (0.95),
            `bootstrap_samples` (200), `seed`.
        model_uri: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        tracking_uri: The registry's MLflow URI; empty: the environment's MLFLOW_TRACKING_URI.
        model: The model, where it is not registered.
        evaluation: Its evaluation, by evaluate_model; without it that of the registered version's run.

    Returns:
        performance: Every number and finding (JSON).
        metrics: The metrics as scalars, for the console.
        page: The judgement, metrics by time and slice, and calibration, for people.
        Output: Whether the model is degraded.

    Raises:
        InputError: For a wrong limit, column, window or model.
        DataError: For a repeated key, or a label that is none of the model's classes.
        ContractError: Where the tables, the model and the evaluation do not go together.
        ServiceError: Where the registry does not answer.
    """
    from pipeparts.components.monitoring.report_performance import logic

    found = logic.report_performance(
        predictions_path=predictions.path,
        labels_path=labels.path,
        performance_path=performance.path,
        metrics_path=metrics.path,
        page_path=page.path,
        keys=keys,
        label=label,
        slices=slices,
        time_column=time_column,
        window=window,
        limits=limits,
        model_uri=model_uri,
        tracking_uri=tracking_uri,
        model_path=model.path if model else None,
        evaluation_path=evaluation.path if evaluation else None,
    )
    performance.metadata.update(logic.metadata(found))
    for name, value in logic.scalars(found).items():
        metrics.log_metric(name, value)
    return found.degraded
