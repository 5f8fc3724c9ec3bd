"""The page of `validate_statistics_tfdv`: the anomalies, then every check, then the schema."""

from __future__ import annotations

import html
from collections.abc import Sequence

from pipeparts.runtime.pages import Html, Page
from pipeparts.runtime.verdict import Check, Verdict, format_value

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
    distances = [check for check in verdict.checks if check.value is not None]
    others = [check for check in verdict.failures if check.value is None]
    page.heading("Anomalies")
    if others:
        page.table(
            [[*_parts(check), check.reason] for check in others], columns=["column", "anomaly", "what was found"]
        )
    else:
        page.text("None.")
    if distances:
        page.heading("Drift and skew")
        page.table(
            [
                [*_parts(check), float(check.value), format_value(check.threshold), _outcome(check)]
                for check in sorted(distances, key=lambda check: check.passed)
            ],
            columns=["column", "distance", "value", "threshold", "outcome"],
        )
    page.heading("Every check")
    page.verdict(verdict, fold_above=0)
    page.heading("The schema")
    page.html(f"<details><summary>as text</summary><pre>{html.escape(schema_text)}</pre></details>")
    return page


def _parts(check: Check) -> tuple[str, str]:
    """The column, and what was checked."""
    kind, _, column = check.name.partition(":")
    return column, kind


def _outcome(check: Check) -> Html:
    return Html('<span class="good">within</span>' if check.passed else '<span class="bad">above</span>')
