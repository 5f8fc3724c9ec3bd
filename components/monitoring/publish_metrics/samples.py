"""Which metrics there are, by Prometheus' conventions for names (https://prometheus.io/docs/practices/naming/)."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from pipeparts.runtime.monitoring import Decision, Drift, Performance, parse_moment

#: Metric to its help text and the names of its labels. All are gauges: they say how the last batch was.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pipeparts_model_info": ("1, for the model version that the last batch is about.", ("version",)),
    "pipeparts_batch_rows": ("Rows of the last batch.", ()),
    "pipeparts_drift_detected": ("Whether the last batch as a whole drifted: 1 or 0.", ()),
    "pipeparts_drift_columns_ratio": ("The share of the model's columns that drifted, from 0 to 1.", ()),
    "pipeparts_drift_columns_limit_ratio": ("The share from which on the batch has drifted.", ()),
    "pipeparts_drift_score": ("How far a column went, as a multiple of its limit.", ("column", "role")),
    "pipeparts_drift_psi": ("The population stability index of a column.", ("column", "role")),
    "pipeparts_performance_value": ("A metric of the model on the rows with a label.", ("metric",)),
    "pipeparts_performance_registered_value": ("The same when the model was registered.", ("metric",)),
    "pipeparts_performance_degraded": ("Whether the performance passed a limit: 1 or 0.", ()),
    "pipeparts_performance_labelled_rows": ("Rows of the last batch whose label has arrived.", ()),
    "pipeparts_retraining_called": ("Whether the last decision was to train again: 1 or 0.", ()),
    "pipeparts_decision_timestamp_seconds": ("The moment that was decided for, in Unix time.", ()),
}


class Sample(NamedTuple):
    """One value of one metric."""

    metric: str
    labels: dict[str, str]
    value: float


def samples(drift: Drift | None, performance: Performance | None, decision: Decision | None) -> list[Sample]:
    """The values that the reports give; what could not be measured has none."""
    found: list[Sample] = []

    def add(metric: str, value: float | None, /, **labels: str) -> None:
        if value is not None and math.isfinite(value):
            found.append(Sample(metric, labels, float(value)))

    model = next((report.model for report in (drift, performance, decision) if report is not None), "")
    add("pipeparts_model_info", 1, version=version_of(model))
    if drift is not None:
        add("pipeparts_batch_rows", drift.current.rows)
        add("pipeparts_drift_detected", drift.drifted)
        add("pipeparts_drift_columns_ratio", drift.share_drifted)
        for finding in drift.findings:
            if finding.name == "share_drifted" and isinstance(finding.limit, (int, float)):
                add("pipeparts_drift_columns_limit_ratio", finding.limit)
        for column in drift.columns:
            if column.kind != "unsupported":
                add("pipeparts_drift_score", column.score, column=column.name, role=column.role)
                add("pipeparts_drift_psi", column.statistics.get("psi"), column=column.name, role=column.role)
    if performance is not None:
        if drift is None:
            add("pipeparts_batch_rows", performance.rows)
        for name, value in performance.metrics.items():
            add("pipeparts_performance_value", value, metric=name)
        for name, value in performance.registered.items():
            add("pipeparts_performance_registered_value", value, metric=name)
        add("pipeparts_performance_degraded", performance.degraded)
        add("pipeparts_performance_labelled_rows", performance.rows_labelled)
    if decision is not None:
        add("pipeparts_retraining_called", decision.retrain)
        add("pipeparts_decision_timestamp_seconds", parse_moment(decision.as_of).timestamp())
    return found


def model_name(model: str) -> str:
    """The registered model's name in `models:/name/3`; a fingerprint as it is; "none" where there is no model."""
    match = re.fullmatch(r"models:/([^/@]+)[/@].+", model)
    return match[1] if match else model or "none"


def version_of(model: str) -> str:
    """The version in `models:/name/3`; a fingerprint as it is."""
    match = re.fullmatch(r"models:/[^/@]+[/@](.+)", model)
    return match[1] if match else model or "none"
