"""The page of `profile_table`: what looks wrong, then every column with its plot."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeparts.runtime.pages import BLUE, GREY, Html, Page
from pipeparts.runtime.profiles import ColumnProfile, Floats, Histogram, Profile
from pipeparts.runtime.verdict import format_value

_WIDTH, _HEIGHT, _BOTTOM = 420, 130, 18
_BARS = 48
_TEXT_BARS = 8
_LABEL_LENGTH = 26

#: From which share of missing values on, and from how many rows on, something is worth a warning.
_MISSING_SHARE = 0.2
_KEY_ROWS = 20
_ZERO_SHARE = 0.9
_SKEWNESS = 10.0

_LAYOUT = """<style>
.column { border-top: 1px solid var(--line); padding: 14px 0; }
.column { display: grid; grid-template-columns: 1fr 440px; gap: 24px; }
.column h3 { margin: 0 0 6px; overflow-wrap: anywhere; }
.column .type { color: var(--soft); font-weight: 400; font-size: 13px; }
.column dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 4px 14px; margin: 0; }
.column dt { color: var(--soft); font-size: 12px; }
.column dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.column svg { width: 100%; height: auto; }
.column svg text { font: 11px system-ui, "DejaVu Sans", sans-serif; fill: #374151; }
@media (max-width: 800px) { .column { grid-template-columns: 1fr; } }
</style>"""


def warnings(profile: Profile) -> list[tuple[str, str]]:
    """What looks wrong in a table, or worth knowing before a model is trained on it.

    Returns:
        Pairs of a column's name and a sentence; the name is empty for the table as a whole.
    """
    found: list[tuple[str, str]] = []
    if profile.rows == 0:
        found.append(("", "The table has no rows."))
    if not profile.columns:
        found.append(("", "The table has no columns."))
    for column in profile.columns:
        found += [(column.name, text) for text in _column_warnings(column, profile.rows)]
    return found


def build_page(profile: Profile) -> Page:
    """Draws the page."""
    page = Page("Profile of a table", profile.source)
    page.html(_LAYOUT)
    cells = profile.rows * len(profile.columns)
    missing = sum(column.missing for column in profile.columns)
    found = warnings(profile)
    page.facts(
        {
            "rows": profile.rows,
            "columns": len(profile.columns),
            "missing values": f"{_share(missing, cells)}",
            "warnings": len(found),
            "fingerprint": profile.fingerprint[:12] or "none",
        }
    )
    page.heading("Warnings")
    if found:
        page.table([[name or "the table", text] for name, text in found], columns=["column", "what"])
    else:
        page.text("Nothing looks wrong.")
    page.heading("Columns")
    page.table([_overview(index, column) for index, column in enumerate(profile.columns)], columns=_OVERVIEW)
    page.heading("Each column")
    for index, column in enumerate(profile.columns):
        page.html(_section(index, column))
    page.text(
        f"Exact up to {profile.limits.exact_values:,} distinct values of a column. Beyond them, distinct values are "
        "estimated (HyperLogLog) and quantiles of numbers come from log-linear buckets; each column says its error. "
        "Standard deviation, skewness (G1) and excess kurtosis (G2) are the sample ones, as in pandas."
    )
    return page


_OVERVIEW = ["column", "type", "missing", "distinct", "least", "middle", "greatest"]


def _overview(index: int, column: ColumnProfile) -> list[Any]:
    least: Any = None
    middle: Any = None
    greatest: Any = None
    if column.numbers is not None:
        least, greatest = column.numbers.minimum, column.numbers.maximum
        middle = column.numbers.quantiles.get("0.5")
    elif column.times is not None:
        least, greatest = column.times.minimum, column.times.maximum
        middle = column.times.quantiles.get("0.5")
    elif column.top is not None and column.top.values:
        middle = f"most often {_cut(str(column.top.values[0].value))}"
    return [
        Html(f'<a href="#column-{index}">{html.escape(column.name)}</a>'),
        column.type,
        _share(column.missing, column.count + column.missing),
        _distinct(column),
        format_value(least),
        format_value(middle),
        format_value(greatest),
    ]


def _column_warnings(column: ColumnProfile, rows: int) -> list[str]:
    if rows == 0:
        return []
    if column.count == 0:
        return ["All values are missing."]
    found = []
    if column.missing_share >= _MISSING_SHARE:
        found.append(f"{_share(column.missing, rows)} of the values are missing.")
    distinct = column.distinct
    if distinct is not None and distinct.exact and distinct.count == 1 and column.count > 1:
        found.append("Constant: all values are equal, so it tells a model nothing.")
    may_differ = 1 + 3 * distinct.standard_error if distinct is not None else 1
    is_key = distinct is not None and distinct.count * may_differ >= column.count >= _KEY_ROWS
    continuous = column.type.startswith(("float", "double", "decimal"))
    if is_key and not continuous and column.kind != "boolean":
        found.append("Every value occurs once, or nearly: it looks like a key, which tells a model nothing general.")
    elif column.kind == "text" and distinct is not None and distinct.count > 1000:
        found.append(f"Many distinct texts ({_distinct(column)}): hash them, or keep the frequent ones.")
    numbers = column.numbers
    if numbers is not None:
        if numbers.nan:
            found.append(f"{numbers.nan:,} values are NaN, which is not the same as missing.")
        if numbers.positive_infinities + numbers.negative_infinities:
            found.append(f"{numbers.positive_infinities + numbers.negative_infinities:,} values are infinite.")
        if numbers.zeros >= _ZERO_SHARE * column.count and numbers.zeros < column.count:
            found.append(f"{_share(numbers.zeros, column.count)} of the values are 0.")
        if numbers.skewness is not None and abs(numbers.skewness) > _SKEWNESS:
            found.append(f"Very skewed (skewness {numbers.skewness:.1f}): a few values are far from the rest.")
    if column.texts is not None and column.texts.empty:
        found.append(f"{column.texts.empty:,} texts are empty, which is not the same as missing.")
    if column.kind == "nested":
        found.append("Nested: only its missing values are counted.")
    return found


def _section(index: int, column: ColumnProfile) -> str:
    facts = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in _facts(column).items()
    )
    return (
        f'<section class="column" id="column-{index}"><div><h3>{html.escape(column.name)} '
        f'<span class="type">{html.escape(column.type)}</span></h3><dl>{facts}</dl></div>'
        f"<div>{_plot(column)}</div></section>"
    )


def _facts(column: ColumnProfile) -> dict[str, str]:
    facts = {
        "values": f"{column.count:,}",
        "missing": f"{column.missing:,} ({_share(column.missing, column.count + column.missing)})",
        "distinct": _distinct(column),
    }
    if column.numbers is not None:
        numbers = column.numbers
        shown: dict[str, Any] = {
            "mean": numbers.mean,
            "standard deviation": numbers.standard_deviation,
            "least": numbers.minimum,
            **{f"{float(p):.0%}": numbers.quantiles.get(p) for p in ("0.05", "0.25", "0.5", "0.75", "0.95")},
            "greatest": numbers.maximum,
            "skewness": numbers.skewness,
            "kurtosis": numbers.kurtosis,
            "zeros": numbers.zeros,
            "negative": numbers.negatives,
            "NaN": numbers.nan or None,
            "infinite": (numbers.positive_infinities + numbers.negative_infinities) or None,
        }
        if numbers.quantile_error:
            shown["quantiles within"] = f"{numbers.quantile_error:.2g} of their value"
        facts |= {name: format_value(value) for name, value in shown.items() if value is not None}
    if column.times is not None:
        times = column.times
        facts |= {"earliest": times.minimum or "", "latest": times.maximum or ""}
        facts["middle"] = times.quantiles.get("0.5", "")
    if column.texts is not None:
        texts, unit = column.texts, "characters" if column.kind == "text" else "bytes"
        facts |= {
            f"shortest ({unit})": format_value(texts.shortest),
            f"longest ({unit})": format_value(texts.longest),
            "mean length": format_value(texts.mean_length),
            "empty": f"{texts.empty:,}",
        }
    return {name: value for name, value in facts.items() if value}


def _plot(column: ColumnProfile) -> str:
    if column.kind in ("text", "binary", "boolean") and column.top is not None and column.top.values:
        listed = column.top.values[:_TEXT_BARS]
        bars = [(str(item.value), item.count) for item in listed]
        rest = column.count - sum(count for _, count in bars)
        return _text_bars(bars, column.count) + (f"<small>and {rest:,} others</small>" if rest else "")
    histogram = column.histogram
    if histogram is None or histogram.total == 0:
        return ""
    if histogram.exact and len(histogram.counts) <= _BARS:
        labels = [_place(column, value) for value in histogram.lower]
        return _bars(histogram.counts, [labels[0], labels[-1]], [*labels])
    return _drawn_histogram(column, histogram)


def _drawn_histogram(column: ColumnProfile, histogram: Histogram) -> str:
    """Bars of equal width from the 1st to the 99th percentile: a few outliers must not squeeze the rest."""
    lower, upper = histogram.bounds()
    counts = np.array(histogram.counts, dtype=np.float64)
    ends = np.cumsum(counts)
    low = lower[np.searchsorted(ends, 0.01 * ends[-1])]
    high = upper[min(len(upper) - 1, int(np.searchsorted(ends, 0.99 * ends[-1])))]
    if not high > low:
        low, high = lower[0], upper[-1]
    edges = np.linspace(low, high, _BARS + 1)
    if histogram.exact and all(isinstance(value, int) for value in histogram.lower):
        # Bars of whole steps: else some hold one integer more than their neighbours, and a comb appears.
        step = max(1.0, np.ceil((high - low + 1) / _BARS))
        edges = np.arange(low, high + step + 1, step)
    if not np.isfinite(edges).all() or not high > low:
        return ""
    heights = np.diff(_cumulative(edges, lower, upper, counts))
    left_out = 1 - heights.sum() / ends[-1]
    labels = [f"{_place(column, edges[i])} to {_place(column, edges[i + 1])}" for i in range(len(edges) - 1)]
    note = f"<small>{left_out:.1%} lie outside</small>" if left_out > 0.0005 else ""
    return _bars(heights.tolist(), [_place(column, low), _place(column, high)], labels) + note


def _cumulative(edges: Floats, lower: Floats, upper: Floats, counts: Floats) -> Floats:
    """How many values lie below each edge; the last edge counts what is on it too."""
    below = np.concatenate([[0.0], np.cumsum(counts)])
    bucket = np.searchsorted(lower, edges, side="left")
    inside = np.maximum(bucket - 1, 0)
    width = upper[inside] - lower[inside]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        part = np.where(width > 0, np.clip((edges - lower[inside]) / width, 0, 1), 1.0)
    result = np.where(bucket == 0, 0.0, below[inside] + part * counts[inside])
    result[-1] = below[np.searchsorted(upper, edges[-1], side="right")]
    return np.maximum.accumulate(result)


def _bars(counts: Sequence[float], ends: Sequence[str], labels: Sequence[str]) -> str:
    most = max(counts)
    step = _WIDTH / len(counts)
    shapes = []
    for i, (count, label) in enumerate(zip(counts, labels, strict=True)):
        height = (_HEIGHT - _BOTTOM - 6) * count / most if most else 0
        shapes.append(
            f'<rect x="{i * step:.1f}" y="{_HEIGHT - _BOTTOM - height:.1f}" width="{max(1.0, step - 1):.1f}" '
            f'height="{height:.1f}"><title>{html.escape(label)}: {count:,.0f}</title></rect>'
        )
    base = _HEIGHT - _BOTTOM
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><g fill="{BLUE}">{"".join(shapes)}</g>'
        f'<line x1="0" x2="{_WIDTH}" y1="{base}" y2="{base}" stroke="{GREY}"/>'
        f'<text x="0" y="{_HEIGHT - 4}">{html.escape(ends[0])}</text>'
        f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{html.escape(ends[-1])}</text></svg>'
    )


def _text_bars(bars: Sequence[tuple[str, int]], total: int) -> str:
    most = max(count for _, count in bars)
    line, left, right = 18, 170, 60
    shapes = []
    for i, (label, count) in enumerate(bars):
        width = max(1.0, (_WIDTH - left - right) * count / most)
        shapes.append(
            f'<text x="{left - 6}" y="{i * line + 13}" text-anchor="end">{html.escape(_cut(label) or "(empty)")}</text>'
            f'<rect x="{left}" y="{i * line + 3}" width="{width:.1f}" height="{line - 5}" fill="{BLUE}">'
            f"<title>{html.escape(_cut(label, 80))}: {count:,}</title></rect>"
            f'<text x="{left + width + 5:.1f}" y="{i * line + 13}">{_share(count, total)}</text>'
        )
    return f'<svg viewBox="0 0 {_WIDTH} {len(bars) * line + 4}" role="img">{"".join(shapes)}</svg>'


def _place(column: ColumnProfile, value: float) -> str:
    if column.times is None:
        return format_value(int(value) if float(value).is_integer() and abs(value) < 1e15 else float(value))
    return column.times.text(value)


def _distinct(column: ColumnProfile) -> str:
    if column.distinct is None:
        return ""
    return f"{'' if column.distinct.exact else 'about '}{column.distinct.count:,}"


def _share(part: int, whole: int) -> str:
    if whole == 0 or part == 0:
        return "0%"
    share = part / whole
    return f"{share:.2%}" if share < 0.0995 else f"{share:.1%}" if share < 1 else "100%"


def _cut(text: str, length: int = _LABEL_LENGTH) -> str:
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return shown if len(shown) <= length else f"{shown[: length - 1]}…"
