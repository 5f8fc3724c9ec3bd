"""The dashboard that a new project gets, as Evidently keeps it."""

from __future__ import annotations

import uuid
from typing import Any

_IDS = uuid.UUID("7a0c8f5e-6f0e-5b0a-8f43-0d7d0b0f9c55")
_SCORE = "evidently:metric_v2:DriftScore"
_COUNT = "evidently:metric_v2:DriftedColumnsCount"


def dashboard() -> dict[str, Any]:
    """One tab: the share and the number of drifted columns, the predictions, and each column."""
    panels = [
        _panel(
            "Drift",
            "Each point is a batch, decided on all of its rows. A score of 1 is the limit.",
            "text",
            [],
            size="full",
        ),
        _panel("Columns that drifted", "the last batch", "counter", [_value(_COUNT, "columns", value_type="count")]),
        _panel("Predictions", "the last batch", "counter", [_value(_SCORE, "{{column}}: score", role="prediction")]),
        _panel("Share of columns that drifted", "", "line", [_value(_COUNT, "share", value_type="share")]),
        _panel("Number of columns that drifted", "", "bar", [_value(_COUNT, "columns", value_type="count")]),
        _panel(
            "Drift of the predictions",
            "Of each column of the predictions: the statistic that went furthest, as a multiple of its limit.",
            "line",
            [_value(_SCORE, "{{column}}", role="prediction")],
            size="full",
        ),
        _panel(
            "Drift of the columns",
            "Of each other column: the statistic that went furthest, as a multiple of its limit.",
            "line",
            [_value(_SCORE, "{{column}}", role="feature"), _value(_SCORE, "{{column}}", role="other")],
            size="full",
        ),
    ]
    tab = {"id": _id("tab"), "title": "Drift", "panels": [panel["id"] for panel in panels]}
    return {"tabs": [tab], "panels": panels}


def _panel(title: str, subtitle: str, plot: str, values: list[dict[str, Any]], size: str = "half") -> dict[str, Any]:
    params: dict[str, Any] = {"plot_type": plot}
    if plot == "counter":
        params["aggregation"] = "last"
    return {
        "id": _id(title), "title": title, "subtitle": subtitle or None, "size": size, "values": values,
        "plot_params": params,
    }  # fmt: skip


def _value(metric: str, legend: str, **labels: str) -> dict[str, Any]:
    return {
        "legend": legend, "tags": [], "metadata": {}, "metric": metric, "metric_labels": labels, "view_params": {},
    }  # fmt: skip


def _id(name: str) -> str:
    return str(uuid.uuid5(_IDS, name))
