"""The page of `validate_table`: the verdict, then the violations with their rows."""

from __future__ import annotations

import html

from pipeparts.runtime.pages import Page
from pipeparts.runtime.verdict import Verdict


def build_page(verdict: Verdict, *, origin: str, schema_text: str) -> Page:
    """Draws the page.

    Args:
        verdict: What was found.
        origin: Where the schema comes from, in a sentence.
        schema_text: The schema as YAML.
    """
    page = Page("Validation of a table", verdict.subject)
    page.facts(
        {
            "verdict": "passed" if verdict.passed else "not passed",
            "checks": len(verdict.checks),
            "failed": len(verdict.failures),
        }
    )
    page.text(origin)
    page.heading("Violations")
    if not verdict.failures:
        page.text("None: every check passed.")
    for check in verdict.failures:
        page.heading(check.name, level=3)
        page.text(check.reason)
        if check.samples:
            columns = list(dict.fromkeys(name for sample in check.samples for name in sample))
            page.table([[_cell(sample.get(name)) for name in columns] for sample in check.samples], columns=columns)
    page.heading("Every check")
    page.verdict(verdict)
    page.heading("The schema")
    page.html(f"<details><summary>as YAML</summary><pre>{html.escape(schema_text)}</pre></details>")
    return page


def _cell(value: object) -> str:
    # As it stands in the data, without separators: it is there to be searched for.
    return "missing" if value is None else str(value)
