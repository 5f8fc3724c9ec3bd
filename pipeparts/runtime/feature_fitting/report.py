"""The page of a fitted transform: what each raw column becomes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from pipeparts.runtime.pages import BLUE, ORANGE, Html, Page, new_figure
from pipeparts.runtime.serving import features as fitted
from pipeparts.runtime.verdict import format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeparts.runtime.serving.transform import Transform
    from pipeparts.runtime.tables import Table

_MOST_PLOTS = 40
_LONGEST_VALUE = 40
_NAMES_SHOWN = 6


def write_page(path: str | os.PathLike[str], transform: Transform, table: Table, label: str) -> None:
    """Writes the page, whole or not at all."""
    page = Page("Features", f"fitted on {table.rows:,} rows" + (f", to predict {label}" if label else ""))
    page.facts(
        {
            "raw columns": len(transform.columns),
            "features declared": len(transform.features),
            "numbers a row": len(transform.numeric_names),
            "ids a row": len(transform.category_names),
            "different ids": sum(transform.category_sizes),
        }
    )
    add_features(page, transform)
    page.html(f'<p class="subtitle">transform {transform.fingerprint}</p>')
    page.write(path)


def add_features(page: Page, transform: Transform) -> None:
    """Adds to a page what each raw column becomes, vocabularies and distributions."""
    page.heading("What each raw column becomes")
    page.table(
        [_row(feature, transform) for feature in transform.features],
        columns=["feature", "kind", "raw column", "missing", "how", "becomes"],
    )
    page.text(
        "Order of work: infinities count as missing; clip; logarithm; missing values filled; scale. "
        "What is learned (mean, deviation, quantiles) is learned after clip and logarithm. "
        "The id 0 is a missing category."
    )
    categories = [feature for feature in transform.features if isinstance(feature, fitted.Category)]
    if categories:
        page.heading("Categories")
        page.table(
            [_category_row(feature, transform.statistics[feature.name]) for feature in categories],
            columns=["feature", "values seen", "in the vocabulary", "coverage", "ids", "most frequent"],
        )
        page.text("Coverage: the share of the values present that are in the vocabulary. Others share what ids remain.")
    drawn = [(feature, _plot(feature, transform.statistics[feature.name])) for feature in transform.features]
    figures = [(figure, _caption(feature)) for feature, figure in drawn if figure is not None][:_MOST_PLOTS]
    if figures:
        page.heading("Distributions")
        page.text("Numbers: the value, after clip and logarithm, by share of the rows. Categories: the most frequent.")
        page.plots(figures)


def _row(feature: fitted.Feature, transform: Transform) -> list[Any]:
    statistics = transform.statistics[feature.name]
    share = statistics["missing"] / statistics["rows"]
    missing = "none" if not share else f"{share:.2%}" if share >= 0.0001 else "< 0.01%"
    if statistics["infinite"]:
        missing += f" ({statistics['infinite']:,} infinite)"
    raw = ", ".join(f"{column} ({transform.columns[column]})" for column in feature.columns)
    cell = Html(f'<span class="warn">{missing}</span>') if share == 1 else missing
    return [feature.name, feature.kind, raw, cell, _how(feature, statistics), _becomes(feature)]


def _how(feature: fitted.Feature, statistics: dict[str, Any]) -> str:
    if isinstance(feature, fitted.Numeric):
        return _how_numeric(feature, statistics)
    if isinstance(feature, fitted.Bucketize):
        edges = ", ".join(format_value(edge) for edge in feature.boundaries[:_NAMES_SHOWN])
        more = f", ... ({len(feature.boundaries)} in all)" if len(feature.boundaries) > _NAMES_SHOWN else ""
        return f"buckets at {edges}{more}" if edges else "one bucket"
    if isinstance(feature, fitted.Category):
        if _is_hashed(statistics):
            return f"{feature.buckets:,} ids by hash"
        others = "one id for all others" if feature.buckets == 1 else f"{feature.buckets:,} ids for the others, by hash"
        return f"{len(feature.vocabulary):,} values; {others}"
    zone = f", by the clock of {feature.time_zone}" if feature.time_zone else ""
    span = f"{statistics['least']} to {statistics['greatest']}" if statistics["least"] else "no time seen"
    return f"{', '.join([*feature.parts, *feature.cycles])}{zone}; {span}"


def _how_numeric(feature: fitted.Numeric, statistics: dict[str, Any]) -> str:
    steps = []
    if feature.low > -fitted.LARGEST or feature.high < fitted.LARGEST:
        low = format_value(feature.low) if feature.low > -fitted.LARGEST else "no bound"
        high = format_value(feature.high) if feature.high < fitted.LARGEST else "no bound"
        steps.append(f"clip from {low} to {high}")
    if feature.log:
        steps.append("logarithm of 1 + x")
    steps.append(f"missing is {format_value(feature.fill)}")
    scale = statistics["scale"]
    if scale != "none" and not statistics["varies"]:
        steps.append("never varies: always 0")
    elif scale == "standardize":
        steps.append(f"mean {format_value(feature.center)}, deviation {format_value(statistics['deviation'])}")
    elif scale == "minmax":
        steps.append(f"{format_value(statistics['least'])} to {format_value(statistics['greatest'])} becomes 0 to 1")
    elif scale == "quantile":
        error = statistics["rank_error"]
        exact = f"off by at most {error:.2g}" if error else "exact"
        steps.append(f"rank among {len(feature.points):,} points ({exact})")
    return "; ".join(steps)


def _becomes(feature: fitted.Feature) -> str:
    embedded = getattr(feature, "encode", "") == "embedding"
    names = feature.numeric_names + ([f"{ids.name} (id)" for ids in feature.id_columns] if embedded else [])
    more = f", ... ({len(names)} in all)" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(_shortened(name) for name in names[:_NAMES_SHOWN]) + more


def _category_row(feature: fitted.Category, statistics: dict[str, Any]) -> list[Any]:
    present = max(statistics["rows"] - statistics["missing"], 1)
    top = ", ".join(f"{_readable(value)} {count / present:.1%}" for value, count in statistics["top"][:5])
    is_counted = statistics["distinct"] is not None
    return [
        feature.name,
        format_value(statistics["distinct"]) if is_counted else "not counted",
        "none: hashed" if _is_hashed(statistics) else format_value(statistics["vocabulary"]),
        "" if statistics["coverage"] is None else f"{statistics['coverage']:.2%}",
        f"{feature.id_columns[0].size:,}",
        top,
    ]


def _is_hashed(statistics: dict[str, Any]) -> bool:
    return statistics["distinct"] is None and statistics["coverage"] is None


def _plot(feature: fitted.Feature, statistics: dict[str, Any]) -> Figure | None:
    if statistics.get("quantiles"):
        return _quantile_plot(feature, statistics)
    if statistics.get("top"):
        return _top_plot(statistics)
    return None


def _quantile_plot(feature: fitted.Feature, statistics: dict[str, Any]) -> Figure:
    figure, axes = new_figure(3.4, 2.4)
    quantiles = statistics["quantiles"]
    axes.plot(range(len(quantiles)), quantiles, color=BLUE, linewidth=1.6)
    for boundary in getattr(feature, "boundaries", ())[:50]:
        axes.axhline(boundary, color=ORANGE, linewidth=0.8)
    axes.set_xlabel("% of the rows")
    return figure


def _top_plot(statistics: dict[str, Any]) -> Figure:
    figure, axes = new_figure(3.4, 2.4)
    present = max(statistics["rows"] - statistics["missing"], 1)
    top = statistics["top"][:8][::-1]
    axes.barh(range(len(top)), [100 * count / present for _, count in top], color=BLUE)
    # A dollar sign would begin a formula.
    axes.set_yticks(range(len(top)), [_readable(value)[:18].replace("$", r"\$") for value, _ in top])
    axes.set_xlabel("% of the values present")
    return figure


def _caption(feature: fitted.Feature) -> str:
    log = " (logarithm)" if getattr(feature, "log", False) else ""
    return f"{feature.name}{log}"


def _readable(value: str) -> str:
    return _shortened(value.replace(fitted.SEPARATOR.decode(), " × "))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
