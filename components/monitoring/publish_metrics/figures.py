"""The metrics that are published, by Prometheus's conventions: base units, shares as ratios, one meaning a name.

All are gauges: a batch is a state, and nothing here counts on from batch to batch.
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping

from pipeparts.runtime.metrics import METRICS
from pipeparts.runtime.monitoring import Decision, Drift, Finding, Performance, parse_moment

#: Every metric that can be published, with its help text. The dashboard and the rules name no others.
HELP: dict[str, str] = {
    "pipeparts_model_info": "Which version of the model the metrics are of; always 1.",
    "pipeparts_batch_timestamp_seconds": "The moment that the batch was decided for, in seconds since 1970.",
    "pipeparts_batch_rows": "Rows of the batch.",
    "pipeparts_drift_detected": "Whether the batch as a whole drifted from the model's training data (1) or not (0).",
    "pipeparts_drift_columns_ratio": "Share of the compared features that drifted.",
    "pipeparts_drift_columns_limit_ratio": "Share of drifted features from which on the batch as a whole drifted.",
    "pipeparts_drift_reference_rows": "Rows that the batch was compared with.",
    "pipeparts_drift_column_detected": "Whether a column drifted (1) or not (0).",
    "pipeparts_drift_column_score": "How far a column went: its greatest statistic as a multiple of its limit.",
    "pipeparts_drift_column_population_stability_index": "Population stability index of a column.",
    "pipeparts_drift_column_missing_ratio": "Share of the batch's rows in which a column is missing.",
    "pipeparts_drift_column_reference_missing_ratio": "The same share in what the batch was compared with.",
    "pipeparts_performance_degraded": "Whether the model lost performance beyond a limit (1) or not (0).",
    "pipeparts_performance_value": "A metric of the model on the rows whose labels have arrived.",
    "pipeparts_performance_registered_value": "The same metric when the model was registered.",
    "pipeparts_performance_loss": "How much worse a metric is than when the model was registered; negative: better.",
    "pipeparts_performance_predicted_rows": "Rows that the model predicted.",
    "pipeparts_performance_labelled_rows": "Predicted rows whose label has arrived.",
    "pipeparts_performance_unmatched_rows": "Predicted rows that the table of labels does not have.",
    "pipeparts_retraining_decided": "Whether the model is to be trained again (1) or stays (0).",
    "pipeparts_retraining_trigger_active": "Whether a trigger calls for a training (1) or not (0).",
    "pipeparts_retraining_guard_active": "Whether a guard holds a training back (1) or not (0).",
    "pipeparts_model_age_seconds": "Age of the model at the moment that the batch was decided for.",
}

_SECONDS_A_DAY = 86_400


@dataclasses.dataclass(frozen=True)
class Sample:
    """One value.

    Attributes:
        name: The metric.
        value: Its value; None, infinite or no number where it is not defined.
        labels: Label to value.
    """

    name: str
    value: float | None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """Whether it can be published."""
        return self.value is not None and math.isfinite(self.value)


def samples(drift: Drift | None, performance: Performance | None, decision: Decision | None) -> list[Sample]:
    """All that the reports say in numbers."""
    rows = next((float(report.rows) for report in (drift and drift.current, performance) if report), None)
    return [
        *_models([report.model for report in (drift, performance, decision) if report]),
        *([Sample("pipeparts_batch_rows", rows)] if rows is not None else []),
        *(_drift(drift) if drift else ()),
        *(_performance(performance) if performance else ()),
        *(_decision(decision) if decision else ()),
    ]


def _models(models: Iterable[str]) -> Iterator[Sample]:
    for model in dict.fromkeys(model for model in models if model):
        version = model.rpartition("/")[2] if model.startswith("models:/") else model[:12]
        yield Sample("pipeparts_model_info", 1.0, {"version": version, "uri": model})


def _drift(drift: Drift) -> Iterator[Sample]:
    yield Sample("pipeparts_drift_detected", float(drift.drifted))
    yield Sample("pipeparts_drift_columns_ratio", drift.share_drifted)
    for finding in drift.findings:
        if finding.name == "share_drifted" and isinstance(finding.limit, (int, float)):
            yield Sample("pipeparts_drift_columns_limit_ratio", float(finding.limit))
    yield Sample("pipeparts_drift_reference_rows", float(drift.reference.rows))
    for column in drift.columns:
        if column.kind == "unsupported":
            continue
        labels = {"column": column.name, "role": column.role}
        yield Sample("pipeparts_drift_column_detected", float(column.drifted), labels)
        yield Sample("pipeparts_drift_column_score", column.score, labels)
        if "psi" in column.statistics:
            name = "pipeparts_drift_column_population_stability_index"
            yield Sample(name, column.statistics["psi"], labels)
        yield Sample("pipeparts_drift_column_missing_ratio", column.current_missing_share, labels)
        yield Sample("pipeparts_drift_column_reference_missing_ratio", column.reference_missing_share, labels)


def _performance(performance: Performance) -> Iterator[Sample]:
    yield Sample("pipeparts_performance_degraded", float(performance.degraded))
    for name, value in performance.metrics.items():
        labels = {"metric": name}
        yield Sample("pipeparts_performance_value", value, labels)
        before = performance.registered.get(name)
        if name in performance.registered:
            yield Sample("pipeparts_performance_registered_value", before, labels)
        better = METRICS[name].better if name in METRICS else ""
        if value is not None and before is not None and better:
            yield Sample("pipeparts_performance_loss", before - value if better == "higher" else value - before, labels)
    yield Sample("pipeparts_performance_predicted_rows", float(performance.rows))
    yield Sample("pipeparts_performance_labelled_rows", float(performance.rows_labelled))
    yield Sample("pipeparts_performance_unmatched_rows", float(performance.rows_unmatched))


def _decision(decision: Decision) -> Iterator[Sample]:
    yield Sample("pipeparts_retraining_decided", float(decision.retrain))
    yield Sample("pipeparts_batch_timestamp_seconds", parse_moment(decision.as_of).timestamp())
    for trigger in decision.triggers:
        yield Sample("pipeparts_retraining_trigger_active", float(trigger.exceeded), {"trigger": trigger.name})
    for guard in decision.guards:
        yield Sample("pipeparts_retraining_guard_active", float(guard.exceeded), {"guard": guard.name})
    age = next((trigger for trigger in decision.triggers if trigger.name == "model_age_days"), None)
    if age is not None:
        yield Sample("pipeparts_model_age_seconds", _seconds(age))


def _seconds(age: Finding) -> float | None:
    is_number = isinstance(age.value, (int, float)) and not isinstance(age.value, bool)
    return float(age.value) * _SECONDS_A_DAY if is_number and age.value is not None else None
