"""Holds new data against a reference, by TensorFlow Data Validation."""

from kfp import dsl

from pipeparts.components import (
    compute_statistics_tfdv,
    infer_schema_tfdv,
    ingest_files,
    require_verdict,
    validate_statistics_tfdv,
)


@dsl.pipeline(name="validate-with-tfx")
def validate_with_tfx(
    source: str,
    reference_source: str,
    source_version: str = "",
    reference_source_version: str = "",
    columns: dict = {},  # noqa: B006 (kfp reads it, nothing writes to it; None does not run everywhere)
    ingest_options: dict = {},  # noqa: B006
    max_bad_rows: int = 0,
    given_schema: str = "",
    given_schema_version: str = "",
    required_columns: list = [],  # noqa: B006
    environments: list = [],  # noqa: B006
    rules: dict = {},  # noqa: B006
    environment: str = "",
    drift_thresholds: dict = {"*": {"jensen_shannon": 0.1}},  # noqa: B006
    extra_columns: str = "forbid",
    slices: list = [],  # noqa: B006
    beam_options: dict = {},  # noqa: B006
) -> None:
    """Holds new data against a reference, by TensorFlow Data Validation.

    For teams that have TFX: the statistics and the schema are the files that its components read and write. The schema
    is inferred from the reference unless one is given. New data that has an anomaly, or has drifted from the
    reference, ends the run with the reasons.

    Args:
        source: The new data: a path, a glob, a folder or a URL (`gs://`, `s3://`, `https://`).
        reference_source: What it is compared with, such as the data of the last training.
        source_version: Tells apart the data under the same `source`; filled in on submission where it is empty.
        reference_source_version: The same for `reference_source`.
        columns: Column to type, for those whose type is not to be inferred; see `ingest_files`.
        ingest_options: How the files are written: delimiter, encoding, spellings of null; see `ingest_files`.
        max_bad_rows: Most rows that may be unreadable before the run fails.
        given_schema: Address of a schema.pbtxt to take in place of the inferred one.
        given_schema_version: Tells apart what was under the same `given_schema`.
        required_columns: Columns that need a value in every row.
        environments: Names of the schema's environments, such as TRAINING and SERVING.
        rules: Column to its rules, laid over the schema; see `infer_schema_tfdv`.
        environment: The environment that the new data is validated in; empty: every column counts.
        drift_thresholds: Column, or "*", to its largest distance from the reference; see `validate_statistics_tfdv`.
        extra_columns: Whether columns that the schema does not have are an anomaly: "forbid" or "allow".
        slices: What to compute statistics of besides all rows; see `compute_statistics_tfdv`.
        beam_options: Options of Beam, for data that one machine does not finish; empty: without Beam.
    """
    reference = ingest_files(
        source=reference_source,
        source_version=reference_source_version,
        columns=columns,
        options=ingest_options,
        max_bad_rows=max_bad_rows,
    ).set_display_name("ingest-reference")

    ingested = ingest_files(
        source=source,
        source_version=source_version,
        columns=columns,
        options=ingest_options,
        max_bad_rows=max_bad_rows,
    ).set_display_name("ingest-new-data")

    reference_statistics = compute_statistics_tfdv(
        table=reference.outputs["table"], split="reference", beam_options=beam_options
    ).set_display_name("statistics-of-reference")

    schema = infer_schema_tfdv(
        statistics=reference_statistics.outputs["statistics"],
        required_columns=required_columns,
        environments=environments,
        rules=rules,
        given_schema=given_schema,
        given_schema_version=given_schema_version,
    )

    statistics = compute_statistics_tfdv(
        table=ingested.outputs["table"], split="new", slices=slices, beam_options=beam_options
    ).set_display_name("statistics-of-new-data")

    validated = validate_statistics_tfdv(
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        previous_statistics=reference_statistics.outputs["statistics"],
        environment=environment,
        drift_thresholds=drift_thresholds,
        extra_columns=extra_columns,
    )

    require_verdict(verdict=validated.outputs["verdict"])
