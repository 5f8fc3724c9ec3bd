"""The page of `compute_statistics_tfdv`: what TFDV's own page shows, without a script from the internet."""

from __future__ import annotations

import html
from typing import Any

from pipeparts.runtime.pages import BLUE, Html, Page
from pipeparts.runtime.verdict import format_value

_WIDTH, _HEIGHT = 110, 30
_MOST_FEATURES = 500
_LABEL_LENGTH = 40


def build_page(statistics: Any, *, source: str, weighted: bool) -> Page:
    """Draws the page.

    Args:
        statistics: A DatasetFeatureStatisticsList, all rows first.
        source: Where the table comes from.
        weighted: Whether the statistics are weighted, too.
    """
    whole, *slices = statistics.datasets
    page = Page("Statistics of TensorFlow Data Validation", source)
    numbers = [feature for feature in whole.features if feature.HasField("num_stats")]
    texts = [feature for feature in whole.features if not feature.HasField("num_stats")]
    page.facts(
        {
            "rows": int(whole.num_examples),
            "numbers": len(numbers),
            "categories and texts": len(texts),
            "slices": len(slices),
        }
    )
    if weighted:
        page.text(
            f"Weighted number of rows: {format_value(float(whole.weighted_num_examples))}. The tables are unweighted."
        )
    page.heading("Numbers")
    page.table([_number_row(feature) for feature in numbers[:_MOST_FEATURES]], columns=_NUMBERS)
    page.heading("Categories and texts")
    page.table([_text_row(feature) for feature in texts[:_MOST_FEATURES]], columns=_TEXTS)
    left = max(0, len(numbers) - _MOST_FEATURES) + max(0, len(texts) - _MOST_FEATURES)
    if left:
        page.text(f"{left} more columns are in the statistics, and not on this page.")
    if slices:
        page.heading("Slices")
        rows = [
            [dataset.name, int(dataset.num_examples), _share(dataset.num_examples, whole.num_examples)]
            for dataset in slices
        ]
        page.table(rows, columns=["slice", "rows", "share"])
    return page


_NUMBERS = ["column", "type", "values", "missing", "mean", "std", "zeros", "min", "median", "max", "distribution"]
_TEXTS = ["column", "type", "values", "missing", "unique", "length", "most frequent", "distribution"]


def _number_row(feature: Any) -> list[Any]:
    found = feature.num_stats
    histogram = next((h for h in found.histograms if h.type == h.STANDARD), None)
    bars = (
        [(f"{format_value(b.low_value)} to {format_value(b.high_value)}", b.sample_count) for b in histogram.buckets]
        if histogram
        else []
    )
    return [
        *_start(feature, found.common_stats),
        found.mean,
        found.std_dev,
        _share(found.num_zeros, found.common_stats.tot_num_values),
        found.min,
        found.median,
        found.max,
        _bars(bars),
    ]


def _text_row(feature: Any) -> list[Any]:
    found = feature.string_stats if feature.HasField("string_stats") else feature.bytes_stats
    ranks = [(b.label, b.sample_count) for b in getattr(getattr(found, "rank_histogram", None), "buckets", [])]
    top = f"{_short(ranks[0][0])} ({format_value(int(ranks[0][1]))})" if ranks else ""
    length = getattr(found, "avg_length", None)
    if length is None:
        length = found.avg_num_bytes
    return [*_start(feature, found.common_stats), int(found.unique), length, top, _bars(ranks[:30])]


def _start(feature: Any, common: Any) -> list[Any]:
    name = feature.name or ".".join(feature.path.step)
    total = common.num_non_missing + common.num_missing
    kind = feature.Type.Name(feature.type).lower()
    return [name, kind, int(common.tot_num_values), _share(common.num_missing, total)]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else ""


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_LENGTH else f"{text[:_LABEL_LENGTH]}…"


def _bars(bars: list[tuple[str, float]]) -> Html:
    """Counts as bars, each with what it counts on hovering."""
    highest = max((count for _, count in bars), default=0)
    if not highest:
        return Html("")
    step = _WIDTH / len(bars)
    drawn = []
    for place, (label, count) in enumerate(bars):
        height = max(1.0 if count else 0.0, count / highest * _HEIGHT)
        title = html.escape(f"{_short(label)}: {format_value(float(count))}")
        drawn.append(
            f'<rect x="{place * step:.1f}" y="{_HEIGHT - height:.1f}" width="{max(step - 1, 0.5):.1f}" '
            f'height="{height:.1f}" fill="{BLUE}"><title>{title}</title></rect>'
        )
    return Html(f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}">{"".join(drawn)}</svg>')
