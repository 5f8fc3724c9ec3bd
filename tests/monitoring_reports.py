"""Reports as the monitoring steps write them: of the late flights of August 2013, whose data had drifted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeparts.runtime.monitoring import (
    ColumnDrift,
    Data,
    Decision,
    Drift,
    Finding,
    Performance,
    write_report,
)

MODEL = "models:/late_flights/3"
BATCH = Data(rows=27_123, fingerprint="b7" * 16, source="flights-2013-08.csv.gz")
TRAINED_ON = Data(rows=134_482, fingerprint="a1" * 16, source="flights-2013-01.csv.gz and 4 more")


def column(name: str, psi: float | None, **changes: Any) -> ColumnDrift:
    """A column that drifted where its PSI is above 0.2."""
    drifted = psi is not None and psi > 0.2
    values: dict[str, Any] = {
        "name": name,
        "role": "feature",
        "kind": "number",
        "drifted": drifted,
        "score": (psi or 0.0) / 0.2,
        "statistics": {"psi": psi, "jensen_shannon": 0.1, "missing_change": 0.0},
        "limits": {"psi": 0.2, "missing_change": 0.05},
        "exceeded": ("psi",) if drifted else (),
        "reason": f"PSI {psi} of {name}",
    }
    return ColumnDrift(**values | changes)


def drift(**changes: Any) -> Drift:
    """A drift report: 2 of 6 features drifted, and the predictions did not."""
    values: dict[str, Any] = {
        "model": MODEL,
        "reference": TRAINED_ON,
        "current": BATCH,
        "drifted": True,
        "reason": "2 of 6 columns drifted (33%; limit 30%); the predictions did not drift (PSI 0.034; limit 0.2)",
        "findings": (
            Finding(name="share_drifted", exceeded=True, value=1 / 3, limit=0.3, reason="2 of 6 columns drifted"),
            Finding(name="prediction_drift", exceeded=False, value=0.034, limit=0.2, reason="they did not drift"),
        ),
        "share_drifted": 1 / 3,
        "columns": (
            column("temp", 1.2345, current_missing_share=0.004),
            column("dep_time", 0.31),
            column("distance", 0.02),
            column("carrier", 0.01, kind="category"),
            column("origin", 0.005, kind="category"),
            column("tail|num", None, kind="unsupported"),
            column("late", 0.034, role="prediction"),
        ),
        "sample_rows": 10_000,
    }
    return Drift(**values | changes)


def performance(**changes: Any) -> Performance:
    """A performance report: ROC AUC fell from 0.708 to 0.680."""
    values: dict[str, Any] = {
        "model": MODEL,
        "kind": "binary",
        "label": "late",
        "metric": "roc_auc",
        "batch": BATCH,
        "rows": 27_123,
        "rows_labelled": 26_900,
        "rows_unmatched": 223,
        "metrics": {"roc_auc": 0.680, "log_loss": 0.5321, "brier_score": None},
        "registered": {"roc_auc": 0.708, "log_loss": 0.5002, "brier_score": 0.15},
        "registered_rows": 55_000,
        "degraded": True,
        "reason": "ROC AUC 0.68 on 26,900 rows, 0.708 at registration: 0.028 lost (0.019 to 0.037); limit 0.02",
        "findings": (
            Finding(name="roc_auc", exceeded=True, value=0.680, limit=0.688, reason="ROC AUC fell"),
            Finding(name="slice:origin=JFK", exceeded=True, value=0.61, limit=0.66, reason="ROC AUC fell at JFK"),
            Finding(name="slices", exceeded=False, value=3, reason="3 of 3 slices judged"),
        ),
    }
    return Performance(**values | changes)


def decision(**changes: Any) -> Decision:
    """A decision to train again."""
    values: dict[str, Any] = {
        "id": "0123456789abcdef0123456789abcdef",
        "retrain": True,
        "as_of": "2013-09-01T00:00:00Z",
        "model": MODEL,
        "batch": BATCH.fingerprint,
        "reasons": (
            "2 of 6 columns drifted (33%; limit 30%): temp (PSI 1.23), dep_time (PSI 0.31).",
            "ROC AUC 0.68 on 26,900 rows, 0.708 at registration: 0.028 lost (0.019 to 0.037); limit 0.02.",
        ),
        "triggers": (
            Finding(name="drift", exceeded=True, value=1 / 3, limit=0.3, reason="2 of 6 columns drifted."),
            Finding(name="performance", exceeded=True, value=0.680, limit=0.688, reason="ROC AUC fell."),
            Finding(name="model_age_days", exceeded=False, value=62.5, limit=90, reason="It is 62.5 days old."),
        ),
        "guards": (Finding(name="cool_down_days", exceeded=False, value=None, limit=7, reason="No training before."),),
    }
    return Decision(**values | changes)


def write(folder: Path, **reports: Drift | Performance | Decision) -> dict[str, Path]:
    """Writes reports; gives `<name>_path` to each one's path, as logic takes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, report in reports.items():
        write_report(folder / f"{name}.json", report)
    return {f"{name}_path": folder / f"{name}.json" for name in reports}
