"""The KFP interface of `validate_statistics_tfdv`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tfx", install_kfp_package=False)
def validate_statistics_tfdv(
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    anomalies: dsl.Output[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    verdict_text: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    environment: str = "",
    drift_thresholds: Optional[dict] = None,
    skew_thresholds: Optional[dict] = None,
    extra_columns: str = "forbid",
    previous_statistics: Optional[dsl.Input[dsl.Artifact]] = None,
    serving_statistics: Optional[dsl.Input[dsl.Artifact]] = None,
) -> bool:
    """Holds statistics against a schema, by TensorFlow Data Validation: anomalies, drift and skew.

    A gate: it ends well either way, so that its verdict and page stay to be looked at. `require_verdict` stops the run.

    Args:
        statistics: Statistics of TFDV; where there are slices, those of all rows count.
        schema: A schema of TFDV: a folder with schema.pbtxt, or the file.
        environment: The schema's environment to validate in, such as SERVING; empty: every column counts.
        drift_thresholds: Column to its largest distance from the previous statistics, as a dictionary of
            jensen_shannon or l_infinity (categories alone), 0 to 1. The column "*" stands for all numbers and
            categories of the schema; a column of times, which never stays as it was, gets {"jensen_shannon": 1} then.
            They go over those that the schema has.
        skew_thresholds: The same, for the distance from the statistics of serving.
        extra_columns: Whether columns that the schema does not have are an anomaly: forbid or allow.
        previous_statistics: Statistics of earlier data, for drift.
        serving_statistics: Statistics of what is served, for skew.

    Returns:
        anomalies: TFDV's anomalies as text, which tfdv.load_anomalies_text reads.
        verdict: JSON with a check for each column, anomaly, drift and skew.
        verdict_text: The verdict for people.
        page: The verdict as an HTML page, the anomalies first.
        Output: Whether every check passed.

    Raises:
        InputError: For thresholds that are not known, compare with nothing or do not go with a column's type; and for
            an environment that the schema does not have.
        ContractError: Where an input is damaged.
    """
    from pipeparts.components.data_validation.validate_statistics_tfdv import logic

    found = logic.validate_statistics(
        statistics_path=statistics.path,
        schema_path=schema.path,
        anomalies_path=anomalies.path,
        verdict_path=verdict.path,
        verdict_text_path=verdict_text.path,
        page_path=page.path,
        environment=environment,
        drift_thresholds=drift_thresholds,
        skew_thresholds=skew_thresholds,
        extra_columns=extra_columns,
        previous_statistics_path=previous_statistics.path if previous_statistics else None,
        serving_statistics_path=serving_statistics.path if serving_statistics else None,
    )
    verdict.metadata.update(found.metadata())
    return found.passed
