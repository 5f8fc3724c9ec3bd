"""Predicts a batch with the champion, and delivers the predictions."""

from kfp import dsl

from pipeparts.components import (
    alert_on_failure,
    export_table,
    find_champion_mlflow,
    ingest_files,
    predict_table,
    profile_table,
    require_verdict,
    validate_table,
)


@dsl.pipeline(name="predict-batch")
def predict_batch(
    source: str,
    model_name: str,
    destination: str,
    keys: list,
    source_version: str = "",
    columns: dict = {},  # noqa: B006 (kfp reads it, nothing writes to it; None does not run everywhere)
    ingest_options: dict = {},  # noqa: B006
    max_bad_rows: int = 0,
    schema: dict = {},  # noqa: B006
    alias: str = "champion",
    tracking_uri: str = "",
    alert_to: list = [],  # noqa: B006
    links: dict = {},  # noqa: B006
    state: str = "",
) -> None:
    """Predicts a batch with the champion, and delivers the predictions.

    Reads the data, judges it before anything is predicted, finds the version that is the champion now, predicts
    every row, and puts the predictions with their keys where they are wanted. Each prediction says which version made
    it, so that `monitor_and_retrain` can hold that one to account once the labels arrive.

    Args:
        source: The data: a path, a glob, a folder or a URL (`gs://`, `s3://`, `https://`).
        model_name: The registered model's name.
        destination: Where the predictions go, as Parquet: a folder, `gs://` or `s3://`; what an earlier run of the same
            batch has put there is replaced.
        keys: The columns that say which row a prediction is for; they are delivered with it.
        source_version: Tells apart the data under the same `source`; filled in on submission where it is empty.
        columns: Column to type, for those whose type is not to be inferred; see `ingest_files`.
        ingest_options: How the files are written: delimiter, encoding, spellings of null; see `ingest_files`.
        max_bad_rows: Most rows that may be unreadable before the run fails.
        schema: What the data must look like; where it is empty, only what every table must hold is checked.
        alias: The alias of the version that predicts.
        tracking_uri: The MLflow server; empty: `MLFLOW_TRACKING_URI` of the environment.
        alert_to: Who is told of a failure: apprise URLs, or references `env:NAME` and `file:PATH` to them.
        links: Title to address, for the alert.
        state: A folder or bucket for what outlives a run; empty: in the folder of local runs.
    """
    outcome = alert_on_failure(
        to=alert_to, run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER, subject="Batch prediction", links=links, state=state
    )
    outcome.set_caching_options(False)

    with dsl.ExitHandler(outcome, name="prediction"):
        ingested = ingest_files(
            source=source,
            source_version=source_version,
            columns=columns,
            options=ingest_options,
            max_bad_rows=max_bad_rows,
        )

        profiled = profile_table(table=ingested.outputs["table"])

        checked = validate_table(table=ingested.outputs["table"], profile=profiled.outputs["profile"], schema=schema)

        required = require_verdict(verdict=checked.outputs["verdict"])

        champion = find_champion_mlflow(model_name=model_name, alias=alias, tracking_uri=tracking_uri).after(required)
        champion.set_caching_options(False)

        predicted = predict_table(
            table=ingested.outputs["table"], columns=keys, model_uri=champion.output, tracking_uri=tracking_uri
        )

        exported = export_table(table=predicted.outputs["predictions"], destination=destination)
        exported.set_caching_options(False)
