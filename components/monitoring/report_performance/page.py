"""The page of `report_performance`: the judgement first, then what it rests on."""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeparts.components.monitoring.report_performance.judging import Limits, Loss, means_of, shown_loss
from pipeparts.runtime.evaluation import Evaluation
from pipeparts.runtime.evaluation_plots import confusion_figure
from pipeparts.runtime.metrics import METRICS
from pipeparts.runtime.monitoring import Finding, MeasuredSlice, ModelKind, Performance
from pipeparts.runtime.pages import BLUE, GREY, ORANGE, RED, Html, Page, new_figure
from pipeparts.runtime.verdict import format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A metric of fewer rows is noise, and would stretch the axis for all the others.
_FEWEST_ROWS_DRAWN = 30
_MOST_SLICES_DRAWN = 30
_MOST_WINDOWS_SHOWN = 12
_WIDE = 10.6
_DUST = 1e-12

_MEANS: dict[str, str] = {
    "mean_probability": "mean predicted probability",
    "mean_confidence": "mean confidence",
    "mean_prediction": "mean prediction",
    "mean_label": "mean label",
}
_OBSERVED: dict[ModelKind, str] = {
    "binary": "share that happened",
    "multiclass": "share that was right",
    "regression": "mean of the labels",
}


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What the page shows besides the report.

    Attributes:
        limits: What the model was held to.
        window: The windows' length; "" without windows.
        now: The evaluation on the labelled rows; None where there are none.
        registered: That at registration.
        loss: Of all rows; None where it was not judged.
        slice_losses: Those of the slices that were judged, by their places.
    """

    limits: Limits
    window: str
    now: Evaluation | None
    registered: Evaluation | None
    loss: Loss | None
    slice_losses: Mapping[int, Loss]


def write_page(report: Performance, drawing: Drawing, path: str | os.PathLike[str]) -> None:
    """Writes the page.

    Args:
        report: The report.
        drawing: What the page shows besides.
        path: Where the page goes.
    """
    page = Page(f"Performance: {report.label}", f"{report.model} on {report.batch.source}")
    page.facts(_facts(report, drawing))
    page.heading("Judgement")
    colour = {"degraded": "bad", "not degraded": "good", "not judged": "warn"}[_judgement(report)]
    page.html(f'<p><span class="{colour}">{_judgement(report)}</span>: {_escaped(report.reason)}.</p>')
    _findings(page, report)
    if drawing.now is not None:
        if report.windows:
            _over_time(page, report, drawing)
        _metrics(page, report)
        _plots(page, report, drawing)
        if report.slices:
            _slices(page, report, drawing)
    page.heading("The rows")
    page.table(_rows(report), columns=["", "rows"])
    page.write(path)


def _facts(report: Performance, drawing: Drawing) -> dict[str, Any]:
    title = METRICS[report.metric].title
    share = f" ({report.rows_labelled / report.rows:.0%})" if report.rows else ""
    facts: dict[str, Any] = {
        "judgement": _judgement(report),
        f"{title} now": _or_dash(report.metrics.get(report.metric)),
        "at registration": _or_dash(report.registered.get(report.metric)),
    }
    if drawing.loss is not None:
        facts["lost"] = shown_loss(drawing.loss.estimate, drawing.limits)
        facts["allowed"] = shown_loss(drawing.loss.limit, drawing.limits)
    facts["rows with a label"] = f"{report.rows_labelled:,}{share}"
    return facts


def _judgement(report: Performance) -> str:
    if report.degraded:
        return "degraded"
    about_rows = ("labelled_rows", "rows_without_prediction")
    judged = any(
        finding.limit is not None and finding.value is not None
        for finding in report.findings
        if finding.name not in about_rows
    )
    return "not degraded" if judged else "not judged"


def _outcome(finding: Finding) -> str:
    if finding.exceeded:
        return Html('<span class="bad">beyond</span>')
    if finding.limit is None or finding.value is None:
        return ""
    if finding.name == "labelled_rows" and float(finding.value) < float(finding.limit):
        return Html('<span class="warn">too few</span>')
    return "kept"


def _findings(page: Page, report: Performance) -> None:
    ordered = sorted(report.findings, key=lambda finding: not finding.exceeded)
    page.table(
        [
            [
                finding.name,
                _outcome(finding),
                format_value(finding.value),
                format_value(finding.limit),
                finding.reason,
            ]
            for finding in ordered
        ],
        columns=["finding", "judged", "value", "limit", "reason"],
    )


def _over_time(page: Page, report: Performance, drawing: Drawing) -> None:
    page.heading(f"By {drawing.window}")
    title = METRICS[report.metric].title
    drawn = [part for part in report.windows if _is_drawn(part, report.metric)]
    predicted, observed = means_of(report.kind)
    if drawn:
        confidence = f"{drawing.limits.confidence:.0%}"
        page.plots(
            [
                (
                    _metric_over_time(report, drawing, drawn),
                    f"{title} by {drawing.window}, with its {confidence} interval; "
                    f"{'a week begins on Monday, ' if drawing.window == 'week' else ''}all in UTC",
                ),
                (
                    _means_over_time(report, drawn, predicted, observed),
                    f"{_name(predicted).capitalize()} against the {_OBSERVED[report.kind]}: the nearer, the better",
                ),
            ]
        )
    left_out = len(report.windows) - len(drawn)
    if left_out:
        page.text(f"{left_out} with fewer than {_FEWEST_ROWS_DRAWN} rows, or without a value, are not drawn.")
    limits = drawing.limits
    rows = [
        [
            part.value,
            part.rows,
            part.metrics.get(report.metric),
            _interval(part.interval),
            part.metrics.get(predicted),
            part.metrics.get(observed),
            *([_judged(part, limits, limits.max_window_loss)] if limits.max_window_loss is not None else []),
        ]
        for part in report.windows
    ]
    columns = [drawing.window, "rows", title, "interval", _name(predicted), _OBSERVED[report.kind]]
    _folded(
        page,
        rows,
        [*columns, *(["judged"] if limits.max_window_loss is not None else [])],
        f"{len(rows)} {drawing.window}s as numbers",
        fold=len(rows) > _MOST_WINDOWS_SHOWN,
    )


def _metrics(page: Page, report: Performance) -> None:
    page.heading("Metrics")
    registered = report.registered
    page.table(
        [
            [
                _name(name),
                _tidy(value),
                *([_tidy(registered.get(name)), _difference(name, value, registered.get(name))] if registered else []),
            ]
            for name, value in report.metrics.items()
        ],
        columns=["metric", "now", *(["at registration", "difference"] if registered else [])],
    )
    rows = f"Now: {report.rows_labelled - report.rows_without_prediction:,} rows"
    page.text(rows + (f"; at registration: {report.registered_rows:,}." if registered else "."))


def _plots(page: Page, report: Performance, drawing: Drawing) -> None:
    assert drawing.now is not None
    plots: list[tuple[Figure, str]] = []
    models = [("now", BLUE, drawing.now)]
    if drawing.registered is not None:
        models.append(("at registration", ORANGE, drawing.registered))
    curves = drawing.now.curves
    if curves.get("calibration"):
        plots.append((_calibration(models), "Calibration: on the line, 30% predicted happens 30% of the time"))
    if curves.get("confusion"):
        threshold = drawing.now.threshold
        at = "" if threshold is None else f" at {threshold:g}"
        plots.append((confusion_figure(drawing.now), f"Confusion matrix{at}, in rows"))
    if curves.get("residuals"):
        plots.append((_errors(models, report), "Errors: predicted minus actual, the middle 99% of the rows"))
    if curves.get("residual_bands"):
        plots.append((_bands(models), "Error by what was predicted: median, and the middle 80% of the rows"))
    if plots:
        page.plots(plots)


def _slices(page: Page, report: Performance, drawing: Drawing) -> None:
    title, limits = METRICS[report.metric].title, drawing.limits
    losses = drawing.slice_losses
    page.heading("Slices")
    order = sorted(
        range(len(report.slices)), key=lambda i: (i not in losses, -losses[i].estimate if i in losses else 0)
    )
    drawn = [place for place in order if place in losses][:_MOST_SLICES_DRAWN]
    if drawn:
        caption = (
            f"What each slice lost since registration, the worst first; intervals that hold together at "
            f"{limits.confidence:.0%}"
        )
        page.plots([(_forest([report.slices[i] for i in drawn], [losses[i] for i in drawn], report, limits), caption)])
    rows = []
    for place in order:
        part, loss = report.slices[place], losses.get(place)
        lost = "" if loss is None else shown_loss(loss.estimate, limits, sign=True)
        rows.append(
            [
                part.name,
                part.value,
                part.rows,
                part.metrics.get(report.metric),
                part.registered.get(report.metric),
                Html(f'<span class="bad">{lost}</span>') if part.exceeded else lost,
                "" if loss is None else f"{shown_loss(loss.low, limits)} to {shown_loss(loss.high, limits)}",
                _judged(part, limits, limits.max_slice_loss),
            ]
        )
    columns = ["slice", "value", "rows", f"{title} now", "at registration", "lost", "interval", "judged"]
    page.table(rows, columns=columns)


def _rows(report: Performance) -> list[list[Any]]:
    rows = [
        ["predicted by the model", report.rows],
        ["with a label", report.rows_labelled],
        ["the label has not arrived: no row of labels", report.rows_unmatched],
        [
            "the label has not arrived: it is empty",
            report.rows - report.rows_labelled - report.rows_unmatched,
        ],
        ["with a label, without a usable prediction", report.rows_without_prediction],
        ["rows of labels that were not predicted", report.labels_unmatched],
        ["predicted by other models, left out", report.rows_other_model],
    ]
    return [[name, f"{count:,}"] for name, count in rows]


def _metric_over_time(report: Performance, drawing: Drawing, parts: Sequence[MeasuredSlice]) -> Figure:
    figure, axes = new_figure(_WIDE, 3.4)
    places = np.arange(len(parts))
    values = [part.metrics[report.metric] for part in parts]
    for place, part in zip(places, parts, strict=True):
        if part.interval is not None:
            axes.plot([place, place], part.interval, color=BLUE, linewidth=2.5, alpha=0.3, solid_capstyle="butt")
    axes.plot(places, values, color=BLUE, linewidth=1.4, marker="o", markersize=5, label="now")
    bad = [i for i, part in enumerate(parts) if part.exceeded]
    if bad:
        axes.plot(bad, [values[i] for i in bad], "o", color=RED, markersize=7, label="beyond its limit")
    registered = report.registered.get(report.metric)
    if registered is not None:
        axes.axhline(registered, color=ORANGE, linewidth=1.6, label=f"at registration, {format_value(registered)}")
    if drawing.loss is not None:
        worst = drawing.loss.worst
        name = f"limit over all rows, {format_value(worst)}"
        axes.axhline(worst, color=RED, linewidth=1.4, linestyle="--", label=name)
    _time_axis(axes, parts)
    axes.set_ylabel(METRICS[report.metric].title)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _means_over_time(report: Performance, parts: Sequence[MeasuredSlice], predicted: str, observed: str) -> Figure:
    figure, axes = new_figure(_WIDE, 3.0)
    places = np.arange(len(parts))
    for name, colour, text in ((predicted, BLUE, _name(predicted)), (observed, ORANGE, _OBSERVED[report.kind])):
        axes.plot(places, [part.metrics[name] for part in parts], color=colour, marker="o", markersize=4, label=text)
    before = report.registered.get(observed)
    if before is not None:
        axes.axhline(before, color=GREY, linewidth=1.2, linestyle="--", label="observed at registration")
    _time_axis(axes, parts)
    if report.kind != "regression":
        axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _time_axis(axes: Any, parts: Sequence[MeasuredSlice]) -> None:
    step = max(1, -(-len(parts) // 14))
    shown = range(0, len(parts), step)
    axes.set_xticks(list(shown), [parts[i].value for i in shown], fontsize=9)
    axes.set_xlim(-0.5, len(parts) - 0.5)


def _calibration(models: Sequence[tuple[str, str, Evaluation]]) -> Figure:
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for name, colour, model in reversed(models):
        bins = model.curves.get("calibration") or []
        if bins:
            most = max(item["rows"] for item in bins)
            x, y = [item["predicted"] for item in bins], [item["observed"] for item in bins]
            axes.plot(x, y, color=colour, linewidth=1.5, label=name)
            axes.scatter(x, y, s=[8 + 60 * item["rows"] / most for item in bins], color=colour, zorder=3)
    axes.set(xlabel="predicted probability", ylabel="share that happened", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def _errors(models: Sequence[tuple[str, str, Evaluation]], report: Performance) -> Figure:
    figure, axes = new_figure()
    for name, colour, model in models:
        residuals = model.curves.get("residuals")
        if residuals:
            counts = np.array(residuals["counts"], dtype=np.float64)
            density = counts / max(counts.sum(), 1) / np.diff(residuals["edges"])
            axes.stairs(density, residuals["edges"], color=colour, linewidth=1.6, label=name)
    axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    axes.set(xlabel=f"predicted minus actual {report.label}", ylabel="density of rows")
    axes.legend(frameon=False, fontsize=9)
    return figure


def _bands(models: Sequence[tuple[str, str, Evaluation]]) -> Figure:
    figure, axes = new_figure()
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
    for name, colour, model in models:
        bands = model.curves.get("residual_bands") or []
        x = [band["predicted"] for band in bands]
        low, high = [band["p10"] for band in bands], [band["p90"] for band in bands]
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(x, [band["median"] for band in bands], color=colour, linewidth=1.6, label=name)
    axes.set(xlabel="predicted", ylabel="predicted minus actual")
    axes.legend(frameon=False, fontsize=9)
    return figure


def _forest(parts: Sequence[MeasuredSlice], losses: Sequence[Loss], report: Performance, limits: Limits) -> Figure:
    figure, axes = new_figure(_WIDE, 1.3 + 0.27 * len(parts))
    axes.axvline(0, color=GREY, linewidth=1)
    axes.axvline(losses[0].limit, color=RED, linewidth=1.2, linestyle="--", label="loss allowed to a slice")
    for place, loss in enumerate(losses):
        colour = RED if loss.exceeded else BLUE
        axes.plot([loss.low, loss.high], [place, place], color=colour, linewidth=2, alpha=0.45)
        axes.plot([loss.estimate], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(parts)), [f"{part.name} = {part.value} ({part.rows:,})" for part in parts], fontsize=9)
    axes.set_ylim(len(parts) - 0.4, -0.6)
    share = ", as a share of the value at registration" if limits.relative else ""
    axes.set_xlabel(f"loss of {METRICS[report.metric].title}{share}; to the right is worse")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _is_drawn(part: MeasuredSlice, metric: str) -> bool:
    return part.rows >= _FEWEST_ROWS_DRAWN and part.metrics.get(metric) is not None


def _judged(part: MeasuredSlice, limits: Limits, limit: float | None) -> str:
    if part.exceeded:
        return "beyond the limit"
    if part.loss is not None:
        return "kept" if limit is None or part.loss <= limit else "may be chance"
    if part.rows < limits.min_slice_rows:
        return "too few rows"
    if not part.registered_rows:
        return "not known at registration"
    return "too few rows at registration" if part.registered_rows < limits.min_slice_rows else "not judged"


def _folded(page: Page, rows: list[list[Any]], columns: list[str], title: str, *, fold: bool) -> None:
    if fold:
        page.html(f"<details><summary>{_escaped(title)}</summary>")
    page.table(rows, columns=columns)
    if fold:
        page.html("</details>")


def _difference(name: str, value: float | None, registered: float | None) -> str:
    if value is None or registered is None:
        return ""
    difference = value - registered
    if abs(difference) < _DUST:
        return "0"
    text = f"{difference:+.4g}"
    better = METRICS[name].better if name in METRICS else ""
    if not better:
        return text
    good = (difference > 0) == (better == "higher")
    return Html(f'<span class="{"good" if good else "bad"}">{text}</span>')


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{format_value(interval[0])} to {format_value(interval[1])}"


def _name(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else _MEANS[metric]


def _or_dash(value: float | None) -> Any:
    return "not known" if value is None else value


def _tidy(value: float | None) -> float | None:
    """A value without the dust of rounding: 1e-16 for what is 0."""
    return 0.0 if value is not None and abs(value) < _DUST else value


def _escaped(text: str) -> str:
    return html.escape(text)
