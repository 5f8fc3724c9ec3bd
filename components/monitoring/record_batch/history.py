"""The monitoring history: what is kept of each batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pipeparts.runtime.metrics import METRICS
from pipeparts.runtime.monitoring import Decision, Drift, Performance
from pipeparts.runtime.params import Params

#: So many columns are kept of a batch, those that went furthest first; predictions always.
MOST_COLUMNS = 200


class KeptColumn(Params):
    """The drift of a column.

    Attributes:
        name: The column.
        role: "feature", "prediction" or "other".
        psi: Its population stability index; None where it is not defined.
        score: How far it went, as a multiple of its limit.
        drifted: Whether it drifted.
    """

    name: str
    role: str
    psi: float | None
    score: float
    drifted: bool


class KeptDrift(Params):
    """How a batch differs from the reference.

    Attributes:
        drifted: Whether it drifted as a whole.
        reason: Why, or why not.
        share: The share of drifted columns.
        share_limit: Its limit; None where there is none.
        prediction_psi: The greatest population stability index of the predictions; None where it was not measured.
        prediction_limit: Its limit.
        columns: The columns that went furthest, in that order.
        columns_compared: How many columns there were.
    """

    drifted: bool
    reason: str
    share: float
    share_limit: float | None
    prediction_psi: float | None
    prediction_limit: float | None
    columns: tuple[KeptColumn, ...]
    columns_compared: int

    @property
    def features(self) -> Iterator[KeptColumn]:
        """The columns that are no predictions."""
        return (column for column in self.columns if column.role != "prediction")


class KeptPerformance(Params):
    """How good a model was on a batch.

    Attributes:
        model: The model.
        metric: The metric that it is judged by.
        value: Its value; None where it is not defined.
        registered: The same at registration; None where it is not known.
        rows_labelled: Rows whose label has arrived.
        degraded: Whether performance is lost.
        reason: Why, or why not.
    """

    model: str
    metric: str
    value: float | None
    registered: float | None
    rows_labelled: int
    degraded: bool
    reason: str

    @property
    def gain(self) -> float | None:
        """By how much it is better than at registration: positive is better, whatever the metric."""
        return better_by(self.metric, self.value, self.registered)


class KeptDecision(Params):
    """What was decided on a batch.

    Attributes:
        id: The decision's.
        retrain: Whether to train again.
        reasons: Why, or why not, a sentence each.
        held_back_by: The guards that held a training back.
    """

    id: str
    retrain: bool
    reasons: tuple[str, ...]
    held_back_by: tuple[str, ...]


class Batch(Params):
    """What is kept of a batch.

    Attributes:
        format: The contract's name and version.
        name: The batch's name.
        as_of: Its place in the order (ISO 8601, UTC).
        model: The model that served, as `models:/name/3` or a fingerprint.
        rows: Of the batch.
        fingerprint: Of its content.
        drift: Against the model's reference.
        performance: Where labels have arrived.
        baseline: Of another model on the same rows, where that was asked for.
        decision: What was decided.
    """

    format: Literal["pipeparts.batch/1"] = "pipeparts.batch/1"
    name: str
    as_of: str
    model: str
    rows: int
    fingerprint: str
    drift: KeptDrift
    performance: KeptPerformance | None = None
    baseline: KeptPerformance | None = None
    decision: KeptDecision


class History(Params):
    """All batches of a model.

    Attributes:
        format: The contract's name and version.
        title: What the page is headed with.
        batches: In their order, the earliest first.
    """

    format: Literal["pipeparts.history/1"] = "pipeparts.history/1"
    title: str
    batches: tuple[Batch, ...]

    @property
    def latest(self) -> Batch:
        """The last batch."""
        return self.batches[-1]

    def metadata(self) -> dict[str, Any]:
        """What goes onto the KFP artifact."""
        return {
            "batches": len(self.batches),
            "latest": self.latest.name,
            "model": self.latest.model,
            "drifted": sum(batch.drift.drifted for batch in self.batches),
            "trainings": sum(batch.decision.retrain for batch in self.batches),
        }


def kept(
    name: str,
    as_of: str,
    drift: Drift,
    decision: Decision,
    performance: Performance | None,
    baseline: Performance | None,
) -> Batch:
    """What is kept of the reports on a batch."""
    return Batch(
        name=name,
        as_of=as_of,
        model=drift.model or decision.model,
        rows=drift.current.rows,
        fingerprint=drift.current.fingerprint,
        drift=_drift(drift),
        performance=_performance(performance, performance),
        baseline=_performance(baseline, performance or baseline),
        decision=KeptDecision(
            id=decision.id,
            retrain=decision.retrain,
            reasons=decision.reasons,
            held_back_by=tuple(guard.name for guard in decision.guards if guard.exceeded),
        ),
    )


def better_by(metric: str, value: float | None, other: float | None) -> float | None:
    """By how much a value of a metric is better than another; None where that cannot be said."""
    known = METRICS.get(metric)
    if value is None or other is None or known is None or not known.better:
        return None
    return value - other if known.better == "higher" else other - value


def metric_title(metric: str) -> str:
    """A metric's name as people read it."""
    return METRICS[metric].title if metric in METRICS else metric


def _drift(drift: Drift) -> KeptDrift:
    columns = [
        KeptColumn(
            name=column.name,
            role=column.role,
            psi=column.statistics.get("psi"),
            score=column.score,
            drifted=column.drifted,
        )
        for column in drift.columns
        if column.kind != "unsupported"
    ]
    kept_columns = columns[:MOST_COLUMNS] + [c for c in columns[MOST_COLUMNS:] if c.role == "prediction"]
    predictions = [
        (psi, column.limits.get("psi"))
        for column in drift.columns
        if column.role == "prediction" and (psi := column.statistics.get("psi")) is not None
    ]
    highest = max(predictions, key=lambda entry: entry[0], default=(None, None))
    share = next((finding.limit for finding in drift.findings if finding.name == "share_drifted"), None)
    return KeptDrift(
        drifted=drift.drifted,
        reason=drift.reason,
        share=drift.share_drifted,
        share_limit=float(share) if isinstance(share, (int, float)) else None,
        prediction_psi=highest[0],
        prediction_limit=highest[1],
        columns=tuple(kept_columns),
        columns_compared=len(columns),
    )


def _performance(report: Performance | None, judged_by: Performance | None) -> KeptPerformance | None:
    """A report by the metric of another, so that a baseline is comparable."""
    if report is None or judged_by is None:
        return None
    metric = judged_by.metric
    return KeptPerformance(
        model=report.model,
        metric=metric,
        value=report.metrics.get(metric),
        registered=report.registered.get(metric),
        rows_labelled=report.rows_labelled,
        degraded=report.degraded,
        reason=report.reason,
    )
