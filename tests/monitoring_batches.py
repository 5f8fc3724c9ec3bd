"""Reports of a batch as the monitoring steps write them, made from a few numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeparts.runtime.monitoring import ColumnDrift, Data, Decision, Drift, Finding, Performance, write_report

MODEL = "models:/late_flights/1"
_TITLES = {"roc_auc": "ROC AUC"}


def fingerprint(text: str) -> str:
    """A fingerprint that is the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_drift(
    batch: str = "2013-08",
    *,
    model: str = MODEL,
    rows: int = 29_000,
    share: float = 0.0,
    limit: float = 0.5,
    psi: Mapping[str, float] | None = None,
    prediction_psi: float | None = 0.01,
    **changes: Any,
) -> Drift:
    """The drift of a batch: `share` of its columns, and the predictions by their PSI."""
    columns = [_column(name, "feature", value) for name, value in (psi or {}).items()]
    findings = [
        Finding(
            name="share_drifted",
            exceeded=share > limit,
            value=share,
            limit=limit,
            reason=f"{share:.0%} of the columns drifted, the limit is {limit:.0%}.",
        )
    ]
    if prediction_psi is not None:
        columns.append(_column("prediction", "prediction", prediction_psi))
        findings.append(
            Finding(
                name="prediction_drift",
                exceeded=prediction_psi > 0.2,
                value=prediction_psi,
                limit=0.2,
                reason=f"The PSI of the predictions is {prediction_psi}, the limit is 0.2.",
            )
        )
    passed = [finding.reason for finding in findings if finding.exceeded]
    values: dict[str, Any] = {
        "model": model,
        "reference": Data(rows=137_823, fingerprint=fingerprint("training"), source="the training table"),
        "current": Data(rows=rows, fingerprint=fingerprint(batch), source=f"flights-{batch}.csv.gz"),
        "drifted": bool(passed),
        "reason": " ".join(passed) or "No limit was passed.",
        "findings": tuple(findings),
        "share_drifted": share,
        "columns": tuple(sorted(columns, key=lambda column: -column.score)),
    }
    return Drift(**values | changes)


def _column(name: str, role: Any, psi: float) -> ColumnDrift:
    return ColumnDrift(
        name=name,
        role=role,
        kind="number",
        drifted=psi > 0.2,
        score=psi / 0.2,
        statistics={"psi": psi},
        limits={"psi": 0.2},
        exceeded=("psi",) if psi > 0.2 else (),
    )


def make_performance(
    value: float | None = 0.71,
    *,
    registered: float | None = 0.708,
    model: str = MODEL,
    metric: str = "roc_auc",
    rows: int = 29_000,
    rows_labelled: int = 28_000,
    batch: str = "2013-08",
) -> Performance:
    """The performance on a batch: degraded where more than 0.02 of the metric is lost."""
    loss = None if value is None or registered is None else round(registered - value, 6)
    degraded = loss is not None and loss > 0.02
    title = _TITLES.get(metric, metric)
    reason = f"{title} is {value}, {loss:g} below the registered {registered}." if loss is not None else "Not measured."
    return Performance(
        model=model,
        kind="regression" if metric == "rmse" else "binary",
        label="late",
        metric=metric,
        batch=Data(rows=rows, fingerprint=fingerprint(f"predictions of {batch}"), source="predictions"),
        rows=rows,
        rows_labelled=rows_labelled,
        metrics={metric: value},
        registered={metric: registered},
        registered_rows=138_476,
        degraded=degraded,
        reason=reason,
        findings=(Finding(name=metric, exceeded=degraded, value=loss, limit=0.02, reason=reason),),
    )


def write(folder: Path, name: str, report: Drift | Performance | Decision) -> Path:
    """Writes a report into a folder."""
    path = folder / f"{name}.json"
    write_report(path, report)
    return path
