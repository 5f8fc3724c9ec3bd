"""How comparisons are written: text, JSON, Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pipeparts.diffing.changes import Change, Comparison, Impact, named, worst

_TITLES = {
    Impact.BREAKING: "Breaking: callers have to change",
    Impact.COMPATIBLE: "Compatible: callers see it, and go on as before",
    Impact.INTERNAL: "Internal: callers do not see it",
}


def summary(comparisons: Sequence[Comparison]) -> str:
    """What was found, in one line: how much of which kind, and the version that it asks for."""
    changes = [change for comparison in comparisons for change in comparison.changes]
    impact = worst(changes)
    if impact is None:
        return "nothing changed in meaning"
    counts = {each: sum(change.impact is each for change in changes) for each in Impact}
    said = ", ".join(f"{count} {each}" for each, count in counts.items() if count)
    callers = "callers break" if impact is Impact.BREAKING else "no caller breaks"
    return f"{said}: {callers}; it asks for a {impact.bump} version"


def as_text(comparisons: Sequence[Comparison]) -> str:
    """Comparisons for a terminal."""
    lines: list[str] = []
    for comparison in comparisons:
        if not comparison.changes:
            continue
        lines.append(comparison.name)
        for impact in Impact:
            for change in (each for each in comparison.changes if each.impact is impact):
                lines.append(f"  {impact.value:<10}  {change.headline}")
                if impact is not Impact.INTERNAL:
                    lines.append(f"              {change.why}")
                lines += [f"              {line}" for line in change.detail]
        lines.append("")
    return "\n".join([*lines, summary(comparisons)]) + "\n"


def as_markdown(comparisons: Sequence[Comparison]) -> str:
    """Comparisons as a comment on a pull request."""
    lines = [f"**pipeparts diff**: {summary(comparisons)}", ""]
    for comparison in comparisons:
        if not comparison.changes:
            continue
        lines += [f"### {_code(comparison.name)}", ""]
        for impact in Impact:
            changes = [each for each in comparison.changes if each.impact is impact]
            if changes:
                lines += [f"#### {_TITLES[impact]}", "", *(line for each in changes for line in _item(each)), ""]
    return "\n".join(lines).rstrip() + "\n"


def as_json(comparisons: Sequence[Comparison], old: str, new: str) -> dict[str, Any]:
    """Comparisons for programs."""
    impact = worst(change for comparison in comparisons for change in comparison.changes)
    return {
        "format": "pipeparts-diff/1",
        "old": old,
        "new": new,
        "impact": impact.value if impact else "none",
        "bump": impact.bump if impact else "none",
        "summary": summary(comparisons),
        "pipelines": [
            {
                "name": comparison.name,
                "impact": comparison.impact.value if comparison.impact else "none",
                "changes": [_json(change) for change in comparison.changes],
            }
            for comparison in comparisons
        ],
    }


def _json(change: Change) -> dict[str, Any]:
    return {
        "kind": change.kind,
        "impact": change.impact.value,
        "subject": change.subject,
        "text": change.headline,
        "why": change.why,
        "before": change.before,
        "after": change.after,
        "steps": list(change.steps),
        "detail": list(change.detail),
    }


def _item(change: Change) -> list[str]:
    where = f" in {named(change.steps)}" if change.steps else ""
    line = f"- {_plain(f'{change.subject}{where} {change.text}')}"
    if change.before or change.after:
        line += ": " + " → ".join(_code(value) if value else "nothing" for value in (change.before, change.after))
    if change.impact is not Impact.INTERNAL:
        line += f" ({_plain(change.why)})"
    if not change.detail:
        return [line]
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", "\n".join(change.detail))), 3)
    block = [f"{fence}diff", *change.detail, fence]
    return [
        line,
        "",
        "  <details><summary>the change</summary>",
        "",
        *(f"  {part}" for part in block),
        "",
        "  </details>",
    ]


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~@])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """A value as code, whatever it holds."""
    text = " ".join(text.split())
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"
