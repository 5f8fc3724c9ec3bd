"""The page of `evaluate_tfma`: the verdict, the metrics, and the slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeparts.components.validation.evaluate_tfma.rows import Counts
from pipeparts.runtime.pages import Page
from pipeparts.runtime.verdict import Verdict, format_value

if TYPE_CHECKING:
    from pipeparts.components.validation.evaluate_tfma.logic import Measured

_MOST_SLICES = 500


def build_page(verdict: Verdict, measured: Sequence[Measured], counts: Counts, *, has_baseline: bool) -> Page:
    """Draws the page.

    Args:
        verdict: The verdict.
        measured: All rows first, then the slices.
        counts: Which rows were measured.
        has_baseline: Whether there is a change to show.
    """
    whole, *slices = measured
    page = Page("Evaluation by TensorFlow Model Analysis", verdict.subject)
    page.facts(
        {
            "verdict": "passed" if verdict.passed else "not passed",
            "rows": counts.written,
            "rows without a label": counts.unlabelled,
            "rows without a prediction": counts.unanswered,
            "slices": len(slices),
        }
    )
    page.heading("Checks")
    page.verdict(verdict, fold_above=20)
    page.heading("Metrics of all rows")
    columns = ["metric", "value", *(["change from the baseline"] if has_baseline else [])]
    page.table([_row(whole, name, has_baseline=has_baseline) for name in whole.values], columns=columns)
    if slices:
        page.heading("Slices")
        page.table(
            [
                [item.slice, item.rows, *(format_value(item.values.get(name)) for name in whole.values)]
                for item in slices[:_MOST_SLICES]
            ],
            columns=["slice", "rows", *whole.values],
        )
        if has_baseline:
            page.heading("Change from the baseline, by slice")
            page.table(
                [
                    [item.slice, item.rows, *(format_value(item.changes.get(name)) for name in whole.values)]
                    for item in slices[:_MOST_SLICES]
                ],
                columns=["slice", "rows", *whole.values],
            )
        if len(slices) > _MOST_SLICES:
            page.text(f"{len(slices) - _MOST_SLICES:,} more slices are in TFMA's result, and not on this page.")
    return page


def _row(whole: Measured, name: str, *, has_baseline: bool) -> list[Any]:
    row: list[Any] = [name, format_value(whole.values[name])]
    if has_baseline:
        row.append(format_value(whole.changes.get(name)))
    return row
