"""The page of `validate_statistics_tfdv`: the anomalies, then every check, then the schema."""

from __future__ import annotations

import html
from collections.abc import Sequence

from pipeparts.runtime.pages import Page
from pipeparts.runtime.verdict import Verdict, format_value

_FOLD_ABOVE = 10
_WORDS = {"drift": "with the previous statistics", "skew": "with the statistics of serving"}


def build_page(verdict: Verdict, *, schema_text: str, compared: Sequence[str]) -> Page:
    """Draws the page.

    Args:
        verdict: What was found.
        schema_text: The schema, thresholds included, as text.
        compared: "drift" and "skew", as far as they were looked for.
    """
    page = Page("Validation by TensorFlow Data Validation", verdict.subject)
    page.facts(
        {
            "verdict": "passed" if verdict.passed else "not passed",
            "checks": len(verdict.checks),
            "failed": len(verdict.failures),
        }
    )
    page.text(
        f"Compared {' and '.join(_WORDS[kind] for kind in compared)}."
        if compared
        else "Compared with the schema alone."
    )
    page.heading("Anomalies")
    if not verdict.failures:
        page.text("None.")
    for check in verdict.failures:
        page.heading(check.name, level=3)
        page.text(check.reason)
    distances = [check for check in verdict.checks if check.value is not None]
    if distances:
        page.heading("Drift and skew")
        page.table(
            [[c.name, float(c.value), format_value(c.threshold), "within" if c.passed else "above"] for c in distances],
            columns=["distance", "value", "threshold", "which is"],
        )
    page.heading("Every check")
    page.verdict(verdict, fold_above=_FOLD_ABOVE)
    page.heading("The schema")
    page.html(f"<details><summary>as text</summary><pre>{html.escape(schema_text)}</pre></details>")
    return page
