"""The plots of `record_batch`: drift, predictions and performance over the same batches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipeparts.components.monitoring.record_batch.history import Batch, History, KeptPerformance, metric_title
from pipeparts.runtime.pages import BLUE, GREY, ORANGE, RED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The colours of model versions, one after the other, and from the beginning again.
VERSION_COLOURS = ("#2563eb", "#15803d", "#7c3aed", "#be185d", "#0e7490", "#a16207", "#4d7c0f", "#475569")

_PALE = "#93c5fd"
_MOST_LABELS = 24
_LONGEST_LABEL = 20


def version_colours(history: History) -> dict[str, str]:
    """Model to its colour, in the order in which they served."""
    models = dict.fromkeys(batch.model for batch in history.batches)
    return {model: VERSION_COLOURS[place % len(VERSION_COLOURS)] for place, model in enumerate(models)}


def draw(history: History) -> tuple[Figure, str]:
    """Draws the batches from left to right.

    Returns:
        The figure, and its caption.
    """
    from matplotlib.figure import Figure

    batches = history.batches
    metric = _metric(history)
    panels = [_draw_share]
    if any(batch.drift.prediction_psi is not None for batch in batches):
        panels.append(_draw_predictions)
    if metric:
        panels.append(_draw_metric)
    heights = [2.0 if panel is _draw_metric else 1.25 for panel in panels]
    figure = Figure(figsize=(11.0 if len(batches) > 3 else 6.0, sum(heights) + 1.1), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(True, axis="y", color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        panel(axes, history)
        for place, batch in enumerate(batches):
            if batch.decision.retrain:
                axes.axvline(place, color=RED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=0.5)
    _label_batches(grid[-1, 0], batches)
    _label_trainings(grid[0, 0], batches)
    caption = "Dashed: a training was called for." if any(batch.decision.retrain for batch in batches) else ""
    return figure, caption


def _metric(history: History) -> str:
    """The metric of the latest batch whose labels have arrived."""
    reports = [batch.performance or batch.baseline for batch in history.batches]
    return next((report.metric for report in reversed(reports) if report), "")


def _draw_share(axes: Any, history: History) -> None:
    shares = [100 * batch.drift.share for batch in history.batches]
    colours = [BLUE if batch.drift.drifted else _PALE for batch in history.batches]
    _bars(axes, shares, colours)
    limit = next((b.drift.share_limit for b in reversed(history.batches) if b.drift.share_limit is not None), None)
    top = max([*shares, 100 * limit if limit is not None else 0, 10])
    if limit is not None:
        axes.axhline(100 * limit, color=ORANGE, linewidth=1.2, linestyle=":")
    axes.set_ylim(0, top * 1.3)  # room for words above the bars
    axes.set_title("Drifted columns, % (dark: the batch drifted; dotted: limit)", loc="left", fontsize=9.5)


def _draw_predictions(axes: Any, history: History) -> None:
    values = [batch.drift.prediction_psi for batch in history.batches]
    limits = [batch.drift.prediction_limit for batch in history.batches]
    over = [
        value is not None and limit is not None and value > limit for value, limit in zip(values, limits, strict=True)
    ]
    _bars(axes, [value or 0.0 for value in values], [BLUE if item else _PALE for item in over])
    limit = next((item for item in reversed(limits) if item is not None), None)
    if limit is not None:
        axes.axhline(limit, color=ORANGE, linewidth=1.2, linestyle=":")
    axes.set_ylim(0, max([*(value or 0.0 for value in values), limit or 0.0, 0.02]) * 1.12)
    axes.set_title("Population stability index of the predictions", loc="left", fontsize=9.5)


def _draw_metric(axes: Any, history: History) -> None:
    """The metric by batch: a line, its points in the colour of the model that served."""
    metric, colours = _metric(history), version_colours(history)
    served = [_value(batch.performance, metric) for batch in history.batches]
    baseline = [_value(batch.baseline, metric) for batch in history.batches]
    registered = [_value(batch.performance, metric, at_registration=True) for batch in history.batches]
    places = range(len(served))
    size = 34 if len(served) <= _MOST_LABELS else 14
    if _any(baseline):
        axes.plot(places, baseline, color="#9ca3af", linewidth=1.4, marker="o", markersize=size**0.5 / 1.8, zorder=2)
        _name_line(axes, baseline, "baseline", GREY)
    axes.plot(places, served, color="#cbd5e1", linewidth=1.6, zorder=2)
    axes.scatter(places, served, c=[colours[batch.model] for batch in history.batches], s=size, zorder=3)
    for place, value in enumerate(registered):
        axes.plot([place - 0.5, place + 0.5], [value, value], color=ORANGE, linewidth=1.3, linestyle=":", zorder=1)
    known = [value for value in (*served, *registered, *baseline) if value == value]
    if known:
        room = max((max(known) - min(known)) * 0.18, abs(max(known)) * 0.02, 1e-6)
        axes.set_ylim(min(known) - room, max(known) + 1.8 * room)
    _label_versions(axes, history, colours)
    title = metric_title(metric)
    text = f"{title[0].upper()}{title[1:]} (colour: which model served; dotted: at registration"
    axes.set_title(text + ("; grey: baseline)" if _any(baseline) else ")"), loc="left", fontsize=9.5)


def _value(report: KeptPerformance | None, metric: str, *, at_registration: bool = False) -> float:
    """A report's value of the metric that is drawn; NaN, a gap, where it has none."""
    if report is None or report.metric != metric:
        return float("nan")
    value = report.registered if at_registration else report.value
    return float("nan") if value is None else value


def _bars(axes: Any, values: list[float], colours: list[str]) -> None:
    axes.bar(
        range(len(values)), values, color=colours, width=min(0.72, 0.12 * len(values)) if len(values) < 6 else 0.72
    )


def _label_versions(axes: Any, history: History, colours: dict[str, str]) -> None:
    """Says which model serves from where on, as far as there is room."""
    batches = history.batches
    changes = [p for p, batch in enumerate(batches) if p == 0 or batch.model != batches[p - 1].model]
    last = -len(batches)
    for place in changes:
        if place - last < len(batches) / 14:
            continue
        last = place
        axes.annotate(
            _version(batches[place].model),
            (place, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if len(batches) > 1 else 0, -2),
            textcoords="offset points",
            va="top",
            fontsize=8.5,
            color=colours[batches[place].model],
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )


def _label_trainings(axes: Any, batches: tuple[Batch, ...]) -> None:
    places = [place for place, batch in enumerate(batches) if batch.decision.retrain]
    last = -len(batches)
    for place in places:
        if place - last < len(batches) / 12:
            continue
        last = place
        axes.annotate(
            "train again",
            (place, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=RED,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )


def _label_batches(axes: Any, batches: tuple[Batch, ...]) -> None:
    step = -(-len(batches) // _MOST_LABELS)
    places = list(range(0, len(batches), step))
    names = [shortened(batches[place].name, _LONGEST_LABEL).replace("$", r"\$") for place in places]
    turned = len(names) * max(map(len, names)) > 110
    axes.set_xticks(places, names, rotation=40 if turned else 0, ha="right" if turned else "center", fontsize=8.5)
    room = 0.6 if len(batches) > 2 else 1.2
    axes.set_xlim(-room, len(batches) - 1 + room)


def _name_line(axes: Any, values: list[float], name: str, colour: str) -> None:
    place = max(place for place, value in enumerate(values) if value == value)
    axes.annotate(
        name, (place, values[place]), xytext=(6, -3), textcoords="offset points", fontsize=8, color=colour, va="top"
    )


def _any(values: list[float]) -> bool:
    return any(value == value for value in values)


def _version(model: str) -> str:
    match = re.fullmatch(r"models:/[^/@]+/(\d+)", model)
    return f"version {match[1]}" if match else (model[:8] if model else "")


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters: its end stays as well, for that is where names differ."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"
