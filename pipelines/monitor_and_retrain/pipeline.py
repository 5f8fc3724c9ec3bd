"""Watches a model on a batch whose labels have arrived, and trains it again where it has to be."""

from kfp import dsl

from pipeparts.components import (
    alert_on_failure,
    decide_retraining,
    ingest_files,
    predict_table,
    publish_evidently,
    publish_metrics,
    record_batch,
    report_drift,
    report_performance,
    send_alert,
    trigger_pipeline,
)


@dsl.pipeline(name="monitor-and-retrain")
def monitor_and_retrain(
    batch: str,
    source: str,
    predictions: str,
    keys: list,
    source_version: str = "",
    predictions_version: str = "",
    columns: dict = {},  # noqa: B006 (kfp reads it, nothing writes to it; None does not run everywhere)
    ingest_options: dict = {},  # noqa: B006
    max_bad_rows: int = 0,
    drift_columns: list = [],  # noqa: B006
    drift_limits: dict = {},  # noqa: B006
    sample_rows: int = 10_000,
    slices: list = [],  # noqa: B006
    time_column: str = "",
    window: str = "day",
    performance_limits: dict = {},  # noqa: B006
    policy: dict = {},  # noqa: B006
    as_of: str = "",
    training_pipeline: str = "train_and_register",
    training_parameters: dict = {},  # noqa: B006
    training_settings: dict = {},  # noqa: B006
    platform: str = "auto",
    baseline_model: str = "",
    title: str = "",
    alert_to: list = [],  # noqa: B006
    links: dict = {},  # noqa: B006
    pushgateway: str = "",
    evidently_workspace: str = "",
    evidently_project: str = "Drift",
    state: str = "",
    tracking_uri: str = "",
) -> None:
    """Watches a model on a batch whose labels have arrived, and trains it again where it has to be.

    Holds the batch against the data that its model was trained on (drift), and the predictions that were
    delivered against the labels (performance). Where the policy says so, somebody is told, and the training pipeline
    runs on fresher data, on the same platform; its gate decides whether the new version becomes the champion.
    The batch joins the history, and a page shows all batches side by side.

    Args:
        batch: The batch's name in the history, as 2013-08; running it again replaces it there.
        source: The batch with its labels: a path, a glob, a folder or a URL (`gs://`, `s3://`, `https://`).
        predictions: What `predict_batch` delivered for it.
        keys: The columns by which a prediction finds its label.
        source_version: Tells apart the data under the same `source`; filled in on submission where it is empty.
        predictions_version: The same for `predictions`.
        columns: Column to type, for those whose type is not to be inferred; see `ingest_files`.
        ingest_options: How the files are written: delimiter, encoding, spellings of null; see `ingest_files`.
        max_bad_rows: Most rows that may be unreadable before the run fails.
        drift_columns: The columns whose drift counts; empty: those that the model takes.
        drift_limits: From where on a column, and the whole, has drifted; see `report_drift`.
        sample_rows: Rows of each side in the report that people read; the decision is taken on all rows.
        slices: Columns whose every value is measured apart.
        time_column: The column of the time, for the windows and for the model's age.
        window: "day", "week" or "month": the performance is measured in windows of this length.
        performance_limits: From where on the performance is lost; see `report_performance`.
        policy: When to train again; see `decide_retraining`.
        as_of: The moment to decide for (ISO 8601), where it is not now: for a replay of the past.
        training_pipeline: The pipeline that trains: a name of this library's, or the address of a compiled YAML.
        training_parameters: Its parameters.
        training_settings: Where and how it is submitted; see `trigger_pipeline`.
        platform: Where it runs: "auto" (where this one does), "local", "kubeflow" or "vertex".
        baseline_model: A version to compare with, as models:/name/1: the page shows what it would have reached.
        title: The heading of the page.
        alert_to: Who is told: apprise URLs, or references `env:NAME` and `file:PATH` to them; empty: nobody.
        links: Title to address, for the alert.
        pushgateway: The address of a Prometheus Pushgateway; empty: none.
        evidently_workspace: An Evidently workspace, a folder or the address of its UI; empty: none.
        evidently_project: The project in it.
        state: A folder or bucket for what outlives a run; empty: in the folder of local runs.
        tracking_uri: The MLflow server; empty: `MLFLOW_TRACKING_URI` of the environment.
    """
    outcome = alert_on_failure(
        to=alert_to, run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, subject="Monitoring", links=links, state=state
    )
    outcome.set_caching_options(False)

    with dsl.ExitHandler(outcome, name="monitoring"):
        ingested = ingest_files(
            source=source,
            source_version=source_version,
            columns=columns,
            options=ingest_options,
            max_bad_rows=max_bad_rows,
        )
        ingested.set_display_name("ingest-labelled-batch")

        predicted = ingest_files(source=predictions, source_version=predictions_version)
        predicted.set_display_name("ingest-predictions")

        drift = report_drift(
            current=ingested.outputs["table"],
            predictions=predicted.outputs["table"],
            columns=drift_columns,
            limits=drift_limits,
            sample_rows=sample_rows,
            tracking_uri=tracking_uri,
        )

        performance = report_performance(
            predictions=predicted.outputs["table"],
            labels=ingested.outputs["table"],
            keys=keys,
            slices=slices,
            time_column=time_column,
            window=window,
            limits=performance_limits,
            tracking_uri=tracking_uri,
        )

        decided = decide_retraining(
            drift=drift.outputs["drift"],
            performance=performance.outputs["performance"],
            policy=policy,
            as_of=as_of,
            time_column=time_column,
            state=state,
            tracking_uri=tracking_uri,
        )
        decided.set_caching_options(False)

        with dsl.If(decided.outputs["Output"] == True, name="retrain"):  # noqa: E712 (kfp builds a condition)
            told = send_alert(
                decision=decided.outputs["decision"],
                drift=drift.outputs["drift"],
                performance=performance.outputs["performance"],
                to=alert_to,
                links=links,
                state=state,
            )
            told.set_caching_options(False)

            triggered = trigger_pipeline(
                pipeline=training_pipeline,
                parameters=training_parameters,
                settings=training_settings,
                platform=platform,
                decision=decided.outputs["decision"],
            )
            triggered.set_caching_options(False)

        with dsl.If(baseline_model == "", name="no-baseline"):
            recorded = record_batch(
                drift=drift.outputs["drift"],
                performance=performance.outputs["performance"],
                decision=decided.outputs["decision"],
                name=batch,
                title=title,
                as_of=as_of,
                state=state,
            )
            recorded.set_caching_options(False)

        with dsl.Else(name="baseline"):
            would_be = predict_table(
                table=ingested.outputs["table"], columns=keys, model_uri=baseline_model, tracking_uri=tracking_uri
            )
            would_be.set_display_name("predict-with-baseline")

            would_reach = report_performance(
                predictions=would_be.outputs["predictions"],
                labels=ingested.outputs["table"],
                keys=keys,
                slices=slices,
                time_column=time_column,
                window=window,
                limits=performance_limits,
                tracking_uri=tracking_uri,
            )
            would_reach.set_display_name("performance-of-baseline")

            compared = record_batch(
                drift=drift.outputs["drift"],
                performance=performance.outputs["performance"],
                decision=decided.outputs["decision"],
                baseline=would_reach.outputs["performance"],
                name=batch,
                title=title,
                as_of=as_of,
                state=state,
            )
            compared.set_display_name("record-with-baseline")
            compared.set_caching_options(False)

        with dsl.If(pushgateway != "", name="prometheus"):
            pushed = publish_metrics(
                pushgateway=pushgateway,
                drift=drift.outputs["drift"],
                performance=performance.outputs["performance"],
                decision=decided.outputs["decision"],
            )
            pushed.set_caching_options(False)

        with dsl.If(evidently_workspace != "", name="evidently"):
            published = publish_evidently(
                evidently=drift.outputs["evidently"],
                workspace=evidently_workspace,
                project=evidently_project,
                name=batch,
                as_of=as_of,
            )
            published.set_caching_options(False)
