"""HTML pages that stand alone: one file, no script from elsewhere, plots as inline SVG."""

from __future__ import annotations

import html
import io
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeparts.runtime.files import write_text
from pipeparts.runtime.verdict import Check, Verdict, format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The colours of every plot: blue for what is shown, orange for what it is compared with, grey for the rest.
BLUE, ORANGE, GREEN, RED, GREY = "#2563eb", "#d97706", "#15803d", "#b91c1c", "#6b7280"

STYLE = """
:root { --ink: #111827; --soft: #6b7280; --line: #e5e7eb; --wash: #f9fafb; --blue: #2563eb; --good: #15803d;
  --bad: #b91c1c; --warn: #b45309; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 19px; margin: 36px 0 10px; }
h3 { font-size: 16px; margin: 20px 0 6px; }
.subtitle { color: var(--soft); margin: 0 0 18px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin: 16px 0; }
.facts div { border: 1px solid var(--line); border-radius: 8px; padding: 10px 14px; background: var(--wash); }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-size: 18px; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.warn { color: var(--warn); }
.plots { display: flex; flex-wrap: wrap; gap: 16px; }
figure { margin: 0; }
figure svg { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 13px; }
code, pre { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 8px; padding: 12px; overflow-x: auto; }
a { color: var(--blue); }
.side-by-side { display: flex; flex-wrap: wrap; gap: 8px 56px; align-items: flex-start; }
.side-by-side table { width: auto; }
.graph { text-align: center; }
details > summary { cursor: pointer; color: var(--blue); }
"""


class Html(str):
    """Text that is HTML already and is not escaped again."""


class Page:
    """A page, built from the top down.

    Args:
        title: The heading.
        subtitle: One line under it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self._parts: list[str] = [f"<h1>{_escape(title)}</h1>"]
        if subtitle:
            self._parts.append(f'<p class="subtitle">{_escape(subtitle)}</p>')

    def heading(self, text: str, *, level: int = 2, anchor: str | None = None) -> None:
        """Begins a section."""
        mark = f' id="{_escape(anchor)}"' if anchor else ""
        self._parts.append(f"<h{level}{mark}>{_escape(text)}</h{level}>")

    def text(self, text: str) -> None:
        """Adds a paragraph."""
        self._parts.append(f"<p>{_escape(text)}</p>")

    def html(self, markup: str) -> None:
        """Adds HTML as it is; the caller has escaped what came from outside."""
        self._parts.append(markup)

    def facts(self, facts: dict[str, Any]) -> None:
        """Adds the few numbers that a reader looks for first."""
        cells = "".join(f"<div><dt>{_escape(k)}</dt><dd>{_value(v)}</dd></div>" for k, v in facts.items())
        self._parts.append(f'<dl class="facts">{cells}</dl>')

    def table(self, rows: Sequence[Sequence[Any]], *, columns: Sequence[str]) -> None:
        """Adds a table; numbers are set to the right."""
        numeric = [
            bool(rows) and all(isinstance(row[i], (int, float)) or row[i] is None for row in rows)
            for i in range(len(columns))
        ]
        mark = [' class="number"' if is_number else "" for is_number in numeric]
        head = "".join(f"<th{m}>{_escape(c)}</th>" for c, m in zip(columns, mark, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{m}>{_value(cell)}</td>" for cell, m in zip(row, mark, strict=True)) + "</tr>"
            for row in rows
        )
        self._parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def plots(self, figures: Sequence[tuple[Figure, str]]) -> None:
        """Adds figures side by side, each with its caption, and closes them."""
        drawn = "".join(
            f"<figure>{figure_svg(figure)}<figcaption>{_escape(caption)}</figcaption></figure>"
            for figure, caption in figures
        )
        self._parts.append(f'<div class="plots">{drawn}</div>')

    def verdict(self, verdict: Verdict, *, fold_above: int | None = None) -> None:
        """Adds a verdict: the outcome, then each check, those that failed first.

        Args:
            verdict: The verdict.
            fold_above: More passed checks than this are folded away; none unless given.
        """
        word = '<span class="good">passed</span>' if verdict.passed else '<span class="bad">not passed</span>'
        self._parts.append(f"<p>{word}: {_escape(verdict.subject)}</p>")
        passed = [check for check in verdict.checks if check.passed]
        if fold_above is None or len(passed) <= fold_above:
            self._checks([*verdict.failures, *passed])
            return
        if verdict.failures:
            self._checks(verdict.failures)
        self._parts.append(f"<details><summary>{len(passed)} checks passed</summary>")
        self._checks(passed)
        self._parts.append("</details>")

    def _checks(self, checks: Sequence[Check]) -> None:
        self.table(
            [
                [
                    check.name,
                    Html('<span class="good">yes</span>' if check.passed else '<span class="bad">no</span>'),
                    format_value(check.value),
                    format_value(check.threshold),
                    check.reason,
                ]
                for check in checks
            ],
            columns=["check", "passed", "value", "threshold", "reason"],
        )

    def render(self) -> str:
        """The whole document."""
        body = "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_escape(self.title)}</title>\n<style>{STYLE}</style>\n</head>\n"
            f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the page, whole or not at all."""
        write_text(path, self.render())


def new_figure(width: float = 5.2, height: float = 3.2) -> tuple[Figure, Any]:
    """A figure and its axes in the house style, in inches; it needs no display and no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def figure_svg(figure: Figure) -> str:
    """A figure as inline SVG, the same bytes for the same figure."""
    import matplotlib

    target = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "pipeparts", "svg.fonttype": "path"}):
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    text = target.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _escape(text: Any) -> str:
    return str(text) if isinstance(text, Html) else html.escape(str(text))


def _value(value: Any) -> str:
    return _escape(value if isinstance(value, str) else format_value(value))
