"""What an alert says, and its forms: Markdown for a console and for a chat, plain text and HTML for a mail."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import textwrap
from collections.abc import Collection, Iterable, Mapping
from typing import Literal
from urllib.parse import urlsplit

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.markdown import cut, fenced, inline
from pipeparts.runtime.metrics import METRICS
from pipeparts.runtime.monitoring import ColumnDrift, Decision, Drift, Finding, Performance
from pipeparts.runtime.verdict import format_value

Severity = Literal["info", "warning", "failure"]

_LONGEST_SUBJECT = 160
_LONGEST_DETAILS = 8_000
_COLUMNS_SHOWN = 5
_FINDINGS_SHOWN = 5
_WIDTH = 76
_STATISTICS = {
    "psi": "PSI",
    "jensen_shannon": "Jensen-Shannon distance",
    "kolmogorov_smirnov": "Kolmogorov-Smirnov distance",
    "wasserstein": "Wasserstein distance",
    "chi_square": "chi-square",
    "missing_change": "change of the missing share",
}
_TRIGGERS = {"model_age_days": "age of the model in days"}
_DRIFT_FINDINGS = {"prediction_drift": "PSI of the predictions"}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One key figure.

    Attributes:
        name: What it is.
        value: What was measured.
        against: What to hold it against: a limit, or what it was before; may be empty.
    """

    name: str
    value: str
    against: str = ""


@dataclasses.dataclass(frozen=True)
class Alert:
    """What people are told.

    Attributes:
        subject: One line.
        severity: How bad it is, for services that have colours or priorities.
        text: A paragraph, or several.
        reasons: Why, a sentence each.
        figures: The numbers to know.
        details: An error's text, shown as it is.
        links: Title to address.
    """

    subject: str
    severity: Severity = "info"
    text: str = ""
    reasons: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    details: str = ""
    links: tuple[tuple[str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of all that it says: 32 hexadecimal digits."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def to_markdown(self) -> str:
        """The form for a console, which draws tables."""
        table = []
        if self.figures:
            table = ["| | now | compared with |", "|---|---|---|"]
            table += [f"| {inline(f.name)} | {inline(f.value)} | {inline(f.against)} |" for f in self.figures]
        return self._markdown(f"# {inline(self.subject)}", table)

    def to_chat(self) -> str:
        """The form for chats, whose Markdown has no tables; the subject goes beside it."""
        return self._markdown("", [f"- {inline(_sentence(figure))}" for figure in self.figures])

    def _markdown(self, head: str, figures: list[str]) -> str:
        parts = [[head] if head else []]
        parts += [[inline(paragraph)] for paragraph in _paragraphs(self.text)]
        parts.append([f"- {inline(reason)}" for reason in self.reasons])
        parts += [["**Key figures**"]] if any(figure.against for figure in self.figures) else []
        parts.append(figures)
        parts.append(fenced(self.details, longest=_LONGEST_DETAILS) if self.details else [])
        parts.append([f"- {inline(title)}: {_markdown_link(address)}" for title, address in self.links])
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def to_text(self) -> str:
        """The form for a mail that is read without HTML, and for services without any markup."""
        parts = [textwrap.fill(paragraph, _WIDTH) for paragraph in _paragraphs(self.text)]
        parts.append("\n".join(_bullet(reason) for reason in self.reasons))
        parts.append(_text_table(self.figures))
        parts.append(textwrap.indent(cut(self.details, _LONGEST_DETAILS), "    "))
        parts.append("\n".join(f"{title}: {address}" for title, address in self.links))
        return "\n\n".join(part for part in parts if part.strip()) + "\n"

    def to_html(self) -> str:
        """The form for a mail: styles in the elements, since mail programs drop all others; nothing from elsewhere."""
        parts = [f'<h2 style="{_HEAD}border-color:{_COLOURS[self.severity]}">{_escape(self.subject)}</h2>']
        parts += [f'<p style="margin:0 0 12px">{_escape(paragraph)}</p>' for paragraph in _paragraphs(self.text)]
        if self.reasons:
            items = "".join(f'<li style="margin:0 0 6px">{_escape(reason)}</li>' for reason in self.reasons)
            parts.append(f'<ul style="margin:0 0 16px;padding-left:20px">{items}</ul>')
        if self.figures:
            parts.append(_html_table(self.figures))
        if self.details:
            parts.append(f'<pre style="{_PRE}">{_escape(cut(self.details, _LONGEST_DETAILS))}</pre>')
        if self.links:
            parts.append(f'<p style="margin:0">{"<br>".join(_html_link(*link) for link in self.links)}</p>')
        return (
            f'<!doctype html><html><body style="margin:0"><div style="{_BODY}">{"".join(parts)}</div></body></html>\n'
        )


def alert_on_reports(
    *,
    subject: str = "",
    text: str = "",
    links: Mapping[str, str] | None = None,
    decision: Decision | None = None,
    drift: Drift | None = None,
    performance: Performance | None = None,
) -> Alert:
    """The alert about what the monitoring steps found.

    Args:
        subject: Its first line; empty: made from what is given.
        text: What else to say.
        links: Title to address.
        decision: Its reasons are the alert's.
        drift: Its figures; its reason where there is no decision.
        performance: The same.

    Raises:
        InputError: Where there is nothing to tell, or a link holds a password.
    """
    reports = (decision, drift, performance)
    if not (subject.strip() or text.strip() or any(reports)):
        raise InputError(
            "an alert that says nothing",
            parameter="subject",
            allowed="a subject, a text, a decision, a drift report or a performance report",
            received="none of them",
        )
    is_bad = (
        decision.retrain
        if decision
        else bool((drift and drift.drifted) or (performance and performance.degraded)) or not any(reports)
    )
    told_apart = [name for name, report in (("drift", drift), ("performance", performance)) if report]
    return Alert(
        subject=one_line(subject or _subject(decision, drift, performance) or text),
        severity="warning" if is_bad else "info",
        text=text.strip(),
        reasons=decision.reasons if decision else tuple(r.reason for r in (drift, performance) if r),
        figures=(
            *_decision_figures(decision, told_apart=told_apart),
            *_performance_figures(performance),
            *_drift_figures(drift),
        ),
        links=checked_links(links),
    )


def checked_links(links: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    """Links as an alert takes them.

    Raises:
        InputError: For a link that holds a password, or that is no text.
    """
    for title, address in (links or {}).items():
        if not isinstance(address, str):
            raise InputError(
                "a link that is no text",
                parameter=f"links.{title}",
                allowed="an address",
                received=f"{type(address).__name__}: {address!r}",
            )
        if urlsplit(address).password:
            raise InputError(
                "a link with a password",
                parameter=f"links.{title}",
                allowed="an address without one: everybody who is told would have it",
                received="an address with a password (not shown)",
            )
    return tuple((title, address) for title, address in (links or {}).items() if address)


def one_line(text: str) -> str:
    """A subject: one line, cut where it is long."""
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST_SUBJECT else f"{flat[: _LONGEST_SUBJECT - 3]}..."


def _subject(decision: Decision | None, drift: Drift | None, performance: Performance | None) -> str:
    model = next((report.model for report in (decision, performance, drift) if report and report.model), "")
    name = _model_name(model)
    if decision:
        return f"{name or 'the model'} is to be trained again" if decision.retrain else f"{name or 'the model'} stays"
    found = []
    if drift:
        found.append("the data drifted" if drift.drifted else "the data did not drift")
    if performance:
        found.append("the performance fell" if performance.degraded else "the performance holds")
    return f"{name}: {', '.join(found)}" if found and name else ", ".join(found)


def _model_name(model: str) -> str:
    """`late_flights, version 3` for `models:/late_flights/3`; a fingerprint is shown by its beginning."""
    if model.startswith("models:/"):
        name, _, version = model.removeprefix("models:/").partition("/")
        return f"{name}, version {version}" if version else name
    return f"model {model[:12]}" if model else ""


def _decision_figures(decision: Decision | None, *, told_apart: Collection[str]) -> Iterable[Figure]:
    """The moment, and what called for the training, unless a report of its own says it more fully."""
    if decision is None:
        return
    yield Figure("as of", decision.as_of.replace("T", " ").replace("Z", " UTC"))
    for finding in decision.triggers:
        if finding.name not in told_apart and _is_number(finding.value):
            yield Figure(
                _TRIGGERS.get(finding.name, _words(finding.name)), format_value(finding.value), _limit(finding)
            )


def _performance_figures(performance: Performance | None) -> Iterable[Figure]:
    if performance is None:
        return
    before = performance.registered.get(performance.metric)
    against = f"{format_value(before)} when it was registered" if before is not None else ""
    value = performance.metrics.get(performance.metric)
    yield Figure(_title(performance.metric), "not defined" if value is None else format_value(value), against)
    lost = [f for f in performance.findings if f.exceeded and f.name != performance.metric and _is_number(f.value)]
    for finding in lost[:_FINDINGS_SHOWN]:
        yield Figure(_place(finding.name, performance.metric), format_value(finding.value), _limit(finding))
    if len(lost) > _FINDINGS_SHOWN:
        yield Figure("beyond their limits as well", f"{len(lost) - _FINDINGS_SHOWN} more")
    yield Figure("rows with a label", format_value(performance.rows_labelled), f"of {performance.rows:,} predicted")


def _place(finding: str, metric: str) -> str:
    """`ROC AUC where origin=JFK` for `slice:origin=JFK`."""
    kind, _, what = finding.partition(":")
    if kind == "slice" and what:
        return f"{_title(metric)} where {what}"
    if kind == "window" and what:
        return f"{_title(metric)} from {what} on"
    return _title(what) if kind == "bound" and what else _words(finding)


def _drift_figures(drift: Drift | None) -> Iterable[Figure]:
    if drift is None:
        return
    yield Figure("rows", format_value(drift.current.rows), f"{drift.reference.rows:,} in the reference")
    for finding in drift.findings:
        if finding.name == "share_drifted":
            limit = f"limit {finding.limit:.0%}" if isinstance(finding.limit, (int, float)) else ""
            yield Figure("features that drifted", f"{drift.share_drifted:.0%}", limit)
        elif _is_number(finding.value):
            name = _DRIFT_FINDINGS.get(finding.name, _words(finding.name))
            yield Figure(name, format_value(finding.value), _limit(finding))
    drifted = drift.drifted_columns
    for column in drifted[:_COLUMNS_SHOWN]:
        yield from _column_figures(column)
    if len(drifted) > _COLUMNS_SHOWN:
        rest = ", ".join(column.name for column in drifted[_COLUMNS_SHOWN:])
        yield Figure("drifted as well", one_line(rest))


def _column_figures(column: ColumnDrift) -> Iterable[Figure]:
    for statistic in column.exceeded[:1]:
        value, limit = column.statistics.get(statistic), column.limits.get(statistic)
        if value is not None:
            name = f"{_STATISTICS.get(statistic, _words(statistic))} of {column.name}"
            yield Figure(name, format_value(value), f"limit {format_value(limit)}" if limit is not None else "")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _limit(finding: Finding) -> str:
    return f"limit {format_value(finding.limit)}" if finding.limit is not None else ""


def _title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else metric


def _sentence(figure: Figure) -> str:
    return f"{figure.name}: {figure.value}" + (f" ({figure.against})" if figure.against else "")


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _bullet(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, initial_indent="- ", subsequent_indent="  ")


def _text_table(figures: tuple[Figure, ...]) -> str:
    names = max((len(figure.name) for figure in figures), default=0)
    is_compared = any(figure.against for figure in figures)
    values = max((len(figure.value) for figure in figures), default=0) if is_compared else 0
    lines = (f"{f.name:<{names}}  {f.value:>{values}}  {f.against}".rstrip() for f in figures)
    return "\n".join(lines)


_COLOURS: dict[Severity, str] = {"info": "#2563eb", "warning": "#d97706", "failure": "#b91c1c"}
_BODY = "max-width:680px;padding:20px 24px;color:#111827;font:15px/1.5 system-ui,'DejaVu Sans',sans-serif"
_HEAD = "font-size:20px;line-height:1.3;margin:0 0 16px;padding:0 0 0 12px;border-left:4px solid;"
_PRE = (
    "background:#f9fafb;border:1px solid #e5e7eb;padding:12px;margin:0 0 16px;font:13px/1.45 monospace;"
    "white-space:pre-wrap;overflow-wrap:anywhere"
)
_CELL = "padding:6px 16px 6px 0;border-bottom:1px solid #e5e7eb;text-align:left;vertical-align:top"
_NUMBER = "text-align:right;font-weight:600;white-space:nowrap"
_LONG = "overflow-wrap:anywhere"


def _html_table(figures: tuple[Figure, ...]) -> str:
    is_compared = any(figure.against for figure in figures)
    rows = "".join(
        f'<tr><td style="{_CELL};white-space:nowrap">{_escape(f.name)}</td>'
        f'<td style="{_CELL};{_NUMBER if is_compared and len(f.value) < 25 else _LONG}">{_escape(f.value)}</td>'
        f'<td style="{_CELL};color:#6b7280">{_escape(f.against)}</td></tr>'
        for f in figures
    )
    return f'<table style="border-collapse:collapse;font-size:14px;margin:0 0 16px">{rows}</table>'


def _html_link(title: str, address: str) -> str:
    if not _is_web(address):
        return f"{_escape(title)}: {_escape(address)}"
    return f'<a href="{html.escape(address, quote=True)}" style="color:#2563eb">{_escape(title)}</a>'


def _markdown_link(address: str) -> str:
    """An address that is clicked where it can be."""
    usable = _is_web(address) and not any(c in address for c in " <>\n")
    return f"<{address}>" if usable else inline(address)


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _escape(text: str) -> str:
    return html.escape(text, quote=False)
