"""The work of `validate_statistics_tfdv`."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pipeparts.components.data_validation.validate_statistics_tfdv.comparators import Kind, set_thresholds
from pipeparts.components.data_validation.validate_statistics_tfdv.page import build_page
from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.tfdv import all_rows, names, read_schema, read_statistics, to_text, write_anomalies
from pipeparts.runtime.verdict import Check, Verdict, format_value

logger = logging.getLogger(__name__)

_NEW_COLUMN = "SCHEMA_NEW_COLUMN"
#: Reasons that a measured distance says as well, with its value and its threshold.
_MEASURED = ("COMPARATOR_L_INFTY_HIGH", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH")
_DISTANCES = {
    "L_INFTY": "the largest difference of a category's share",
    "JENSEN_SHANNON_DIVERGENCE": "the Jensen-Shannon divergence",
    "NORMALIZED_ABSOLUTE_DIFFERENCE": "the normalized absolute difference",
}
_SHORT = {"L_INFTY": "l_infinity", "JENSEN_SHANNON_DIVERGENCE": "jensen_shannon"}
_LIMITS = {
    "INT_TYPE_SMALL_INT": ("int_domain", "min"),
    "INT_TYPE_BIG_INT": ("int_domain", "max"),
    "FLOAT_TYPE_SMALL_FLOAT": ("float_domain", "min"),
    "FLOAT_TYPE_BIG_FLOAT": ("float_domain", "max"),
}
_EXTRA: tuple[Literal["forbid", "allow"], ...] = ("forbid", "allow")


def validate_statistics(
    *,
    statistics_path: str | os.PathLike[str],
    schema_path: str | os.PathLike[str],
    anomalies_path: str | os.PathLike[str],
    verdict_path: str | os.PathLike[str],
    verdict_text_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    environment: str,
    drift_thresholds: Mapping[str, Any] | None,
    skew_thresholds: Mapping[str, Any] | None,
    extra_columns: str,
    previous_statistics_path: str | os.PathLike[str] | None,
    serving_statistics_path: str | os.PathLike[str] | None,
) -> Verdict:
    """Holds statistics against a schema.

    Args:
        statistics_path: The statistics.
        schema_path: The schema.
        anomalies_path: Where TFDV's anomalies (text) go.
        verdict_path: Where the verdict (JSON) goes.
        verdict_text_path: Where the verdict (Markdown) goes.
        page_path: Where the HTML page goes.
        environment: The schema's environment; empty for none.
        drift_thresholds: Column to its largest distances from the previous statistics.
        skew_thresholds: Column to its largest distances from the statistics of serving.
        extra_columns: What columns are that the schema does not have: "forbid" or "allow".
        previous_statistics_path: Statistics of earlier data, if any.
        serving_statistics_path: Statistics of what is served, if any.

    Returns:
        The verdict.

    Raises:
        InputError: For thresholds that are not known, compare with nothing or do not go with a column's type; and for
            an environment that the schema does not have.
        ContractError: Where an input is damaged.
    """
    if extra_columns not in _EXTRA:
        raise InputError(
            "not what can be done with extra columns",
            parameter="extra_columns",
            allowed=_EXTRA,
            received=extra_columns,
            hint=suggest(extra_columns, _EXTRA),
        )
    statistics = read_statistics(statistics_path)
    whole = all_rows(statistics, where=str(statistics_path))
    schema = read_schema(schema_path)
    _require_environment(schema, environment)
    paths: dict[Kind, str | os.PathLike[str] | None] = {
        "drift": previous_statistics_path,
        "skew": serving_statistics_path,
    }
    others = {kind: read_statistics(path) for kind, path in paths.items() if path is not None}
    for kind, other in others.items():
        all_rows(other, where=str(paths[kind]))
    set_thresholds(schema, drift_thresholds, kind="drift", has_other="drift" in others)
    set_thresholds(schema, skew_thresholds, kind="skew", has_other="skew" in others)
    from tensorflow_data_validation.api.validation_api import validate_statistics as validate

    anomalies = validate(statistics, schema, environment or None, others.get("drift"), others.get("skew"))
    checks = [*_anomalies(anomalies, schema, extra_columns), *_distances(anomalies)]
    failing = {check.name.partition(":")[2] for check in checks if not check.passed}
    checks += [_clean(name) for name in _expected(schema, environment) if name not in failing]
    verdict = Verdict(
        gate="validate_statistics_tfdv",
        subject=_subject(whole, schema, environment),
        checks=tuple(checks),
    )
    write_anomalies(anomalies_path, anomalies)
    build_page(verdict, schema_text=to_text(schema), compared=list(others)).write(page_path)
    verdict.write(verdict_path, verdict_text_path)
    logger.info("%d of %d checks failed", len(verdict.failures), len(checks))
    return verdict


def _require_environment(schema: Any, environment: str) -> None:
    known = list(schema.default_environment)
    if environment and environment not in known:
        raise InputError(
            "an environment that the schema does not have",
            parameter="environment",
            allowed=known or "none: the schema has no environments",
            received=environment,
            hint=suggest(environment, known),
        )


def _subject(whole: Any, schema: Any, environment: str) -> str:
    data = f"{int(whole.num_examples):,} rows of {len(whole.features)} columns"
    return f"{data} against {len(schema.feature)} in the schema" + (
        f", environment {environment}" if environment else ""
    )


def _anomalies(anomalies: Any, schema: Any, extra_columns: str) -> Iterator[Check]:
    """A check for each reason that is not a measured distance."""
    features = names(schema.feature)
    for name, info in sorted(anomalies.anomaly_info.items()):
        column = ".".join(info.path.step) or name
        for reason in info.reason or [info]:
            kind = _kind(info, reason)
            if kind in _MEASURED:
                continue
            check = _check(f"{kind.lower()}:{column}", info, reason, extra=kind == _NEW_COLUMN, policy=extra_columns)
            yield _with_limit(check, kind, features.get(column))
    whole = anomalies.dataset_anomaly_info
    for reason in whole.reason:
        yield _check(f"{_kind(whole, reason).lower()}:dataset", whole, reason, extra=False, policy=extra_columns)
    if anomalies.data_missing:
        yield Check("data_missing:dataset", False, None, None, "there are no rows")


def _kind(info: Any, reason: Any) -> str:
    """The name of a reason's type; one that this release of tensorflow_metadata does not know has its number."""
    known = info.Type.DESCRIPTOR.values_by_number
    number = getattr(reason, "type", 0)
    return known[number].name if number in known else f"TYPE_{number}"


def _check(name: str, info: Any, reason: Any, *, extra: bool, policy: str) -> Check:
    said = f"{reason.short_description}: {reason.description}"
    if extra and policy == "allow":
        return Check(name, True, None, None, f"{said} Extra columns are allowed.")
    is_warning = info.severity == info.WARNING
    return Check(name, is_warning, None, None, f"warning: {said}" if is_warning else said)


def _with_limit(check: Check, kind: str, feature: Any) -> Check:
    """Says the limit where TFDV says the value alone."""
    if kind not in _LIMITS or feature is None:
        return check
    domain, bound = _LIMITS[kind]
    limit = getattr(getattr(feature, domain), bound)
    reason = f"{check.reason} The schema's {bound} is {format_value(limit)}."
    return dataclasses.replace(check, threshold=limit, reason=reason)


def _distances(anomalies: Any) -> Iterator[Check]:
    """A check for each distance that was measured, with its threshold."""
    for info in sorted(anomalies.drift_skew_info, key=lambda info: list(info.path.step)):
        column = ".".join(info.path.step)
        for kind, measurements, other in (
            ("drift", info.drift_measurements, "the previous statistics"),
            ("skew", info.skew_measurements, "the statistics of serving"),
        ):
            for measurement in measurements:
                distance = measurement.Type.Name(measurement.type)
                passed = measurement.value <= measurement.threshold
                reason = (
                    f"{_DISTANCES.get(distance, distance)} from {other} is {format_value(measurement.value)}, "
                    f"{'within' if passed else 'above'} {format_value(measurement.threshold)}"
                )
                short = _SHORT.get(distance, distance.lower())
                yield Check(f"{kind}_{short}:{column}", passed, measurement.value, measurement.threshold, reason)


def _expected(schema: Any, environment: str) -> list[str]:
    """The columns that are validated in an environment."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    inactive = (schema_pb2.DEPRECATED, schema_pb2.PLANNED, schema_pb2.ALPHA, schema_pb2.DEBUG_ONLY)
    found = []
    for name, feature in names(schema.feature).items():
        if feature.lifecycle_stage in inactive or feature.deprecated:
            continue
        if environment and (
            environment in feature.not_in_environment
            or (environment not in schema.default_environment and environment not in feature.in_environment)
        ):
            continue
        found.append(name)
    return found


def _clean(name: str) -> Check:
    return Check(f"schema:{name}", True, None, None, "what the schema says of the column holds")
