"""The KFP interface of `report_drift`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-monitoring", install_kfp_package=False)
def report_drift(
    current: dsl.Input[dsl.Dataset],
    drift: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    evidently: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    summary: dsl.Output[dsl.Markdown],
    model_uri: str = "",
    columns: Optional[list] = None,
    limits: Optional[dict] = None,
    sample_rows: int = 10000,
    tracking_uri: str = "",
    predictions: Optional[dsl.Input[dsl.Dataset]] = None,
    model: Optional[dsl.Input[dsl.Model]] = None,
    reference: Optional[dsl.Input[dsl.Dataset]] = None,
) -> bool:
    """Says whether a table has drifted from the data that a model was trained on, column by column.

    The decision is taken on all rows, in one streaming pass. A column drifts where a statistic reaches its limit and
    the difference is more than chance. Give one of `model`, `model_uri` and `reference`, or `predictions` alone. An
    alias moves: with one in `model_uri` set `.set_caching_options(False)`.

    Args:
        current: The table to look at.
        model_uri: The model whose training data is the reference: `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        columns: The columns to compare, times and identifiers too; None: those that the model takes, or those that
            both tables have.
        limits: `psi` (0.2), `wasserstein` (0.45), `missing_change` (0.05), `distance` (0.45, vectors),
            `jensen_shannon` and `kolmogorov_smirnov` (none) of a column; `columns` {column: {psi, ...}};
            `share_drifted` (0.5) and `prediction_psi` (0.2) of the whole; `alpha` (0.05), `correction`
            (benjamini_hochberg, holm, none). null: no limit.
        sample_rows: Most rows of each side in Evidently's report.
        tracking_uri: The registry's MLflow URI; empty: the environment's MLFLOW_TRACKING_URI.
        predictions: The model's answers for these rows, by predict_table, to be compared as well.
        model: The model, where it is not registered.
        reference: A table to compare with, instead of a model's training data.

    Returns:
        drift: Each column's statistics, limits and verdict, the worst first, and the whole (JSON).
        report: Evidently's report on a sample of both sides, for people.
        evidently: A folder: Evidently's snapshot of it, as its workspaces take it, and its plain results (both JSON).
        metrics: The decision and the PSI of the worst ten columns, for the console.
        summary: The decision and every column, in Markdown.
        Output: Whether the table as a whole has drifted.

    Raises:
        InputError: For a wrong limit or column, or a reference that is not given once.
        DataError: For an empty table, or one without any column that can be compared.
        ContractError: Where the table lacks a column that the model takes.
        ServiceError: Where the registry does not answer.
    """
    from pipeparts.components.monitoring.report_drift import logic

    found = logic.report_drift(
        current_path=current.path,
        drift_path=drift.path,
        report_path=report.path,
        evidently_path=evidently.path,
        metrics_path=metrics.path,
        summary_path=summary.path,
        model_uri=model_uri,
        columns=columns,
        limits=limits,
        sample_rows=sample_rows,
        tracking_uri=tracking_uri,
        predictions_path=predictions.path if predictions else None,
        model_path=model.path if model else None,
        reference_path=reference.path if reference else None,
    )
    drift.metadata.update(logic.metadata(found))
    for name, value in logic.scalars(found).items():
        metrics.log_metric(name, value)
    return found.drifted
