"""The page of `evaluate_model`: everything on it comes from the evaluation alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeparts.runtime.evaluation import Evaluation
from pipeparts.runtime.evaluation_plots import confusion_figure
from pipeparts.runtime.metrics import METRICS, PRIMARY
from pipeparts.runtime.pages import BLUE, GREY, ORANGE, Page, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BETTER = {"higher": "higher is better", "lower": "lower is better", "": ""}
_FACTS = {
    "binary": ("roc_auc", "average_precision", "brier_score", "accuracy", "expected_calibration_error"),
    "multiclass": ("accuracy", "macro_f1", "roc_auc_ovr", "log_loss"),
    "regression": ("rmse", "mae", "r2", "median_absolute_error"),
}
_DUST = 1e-12
# A metric over fewer rows is noise, and would stretch the axis for all the others.
_FEWEST_ROWS_DRAWN = 30


def write_page(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Writes an evaluation as an HTML page.

    Args:
        evaluation: The evaluation.
        path: Where the page goes.
    """
    counts = evaluation.counts
    page = Page(
        f"Evaluation: {evaluation.label}",
        f"{evaluation.model['framework']} model on {counts['rows_evaluated']:,} rows of {evaluation.table['source']}",
    )
    facts = {METRICS[name].title: evaluation.metrics[name] for name in _FACTS[evaluation.kind]}
    page.facts({name: "not defined" if value is None else value for name, value in facts.items()})
    for note in _notes(evaluation):
        page.html(f'<p class="warn">{note}</p>')
    _metrics(page, evaluation)
    if evaluation.curves:
        page.heading("Plots")
        page.plots(_plots(evaluation))
    for slicing in evaluation.slices:
        _slices(page, evaluation, slicing)
    page.heading("Where it comes from")
    page.table(
        [
            ["model fingerprint", evaluation.model["fingerprint"]],
            ["table fingerprint", evaluation.table["fingerprint"]],
            ["rows in the table", f"{counts['rows']:,}"],
            ["rows without a label, left out", f"{counts['rows_without_label']:,}"],
            ["rows without a usable answer, left out", f"{counts['rows_without_prediction']:,}"],
        ],
        columns=["", ""],
    )
    page.write(path)


def calibration_figure(curves: list[tuple[str, str, list[dict[str, Any]]]]) -> Figure:
    """Predicted against observed shares, a line for each (name, colour, calibration)."""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfect")
    for name, colour, bins in curves:
        most = max(item["rows"] for item in bins)
        x, y = [item["predicted"] for item in bins], [item["observed"] for item in bins]
        axes.plot(x, y, color=colour, linewidth=1.5, label=name)
        axes.scatter(x, y, s=[8 + 72 * item["rows"] / most for item in bins], color=colour, zorder=3)
    axes.set(xlabel="predicted probability", ylabel="share that happened", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    return figure


def roc_figure(curves: list[tuple[str, str, dict[str, Any]]]) -> Figure:
    """ROC curves, a line for each (name, colour, curve)."""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="chance")
    for name, colour, curve in curves:
        axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], color=colour, linewidth=1.8, label=name)
    axes.set(xlabel="false positive rate", ylabel="true positive rate (recall)", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def _notes(evaluation: Evaluation) -> list[str]:
    counts = evaluation.counts
    notes = []
    if counts["rows_without_prediction"]:
        notes.append(
            f"The model gave no usable answer for {counts['rows_without_prediction']:,} rows; "
            "the numbers leave them out."
        )
    by_class = counts.get("rows_by_class", {})
    if sum(1 for rows in by_class.values() if rows) == 1:
        notes.append("All rows have the same class, so that what compares classes (ROC AUC) is not defined.")
    return notes


def _metrics(page: Page, evaluation: Evaluation) -> None:
    page.heading("Metrics")
    page.text(f"Baseline, the best that looks at no column: {evaluation.baseline_name}.")
    if evaluation.threshold is not None:
        page.text(
            f"Class {evaluation.positive_class} is predicted from a probability of {evaluation.threshold:g}; "
            "precision, recall, F1 and accuracy depend on that."
        )
    page.table(
        [
            [METRICS[name].title, _tidy(value), _tidy(evaluation.baseline[name]), _BETTER[METRICS[name].better]]
            for name, value in evaluation.metrics.items()
        ],
        columns=["metric", "model", "baseline", ""],
    )


def _tidy(value: float | None) -> float | None:
    """A value without the dust of rounding: 1e-16 for what is 0."""
    return 0.0 if value is not None and abs(value) < _DUST else value


def _plots(evaluation: Evaluation) -> list[tuple[Figure, str]]:
    return {"binary": _binary_plots, "multiclass": _multiclass_plots, "regression": _regression_plots}[evaluation.kind](
        evaluation
    )


def _binary_plots(evaluation: Evaluation) -> list[tuple[Figure, str]]:
    curves, positive = evaluation.curves, evaluation.positive_class
    plots = []
    if "roc" in curves:
        name = f"model, area {evaluation.metrics['roc_auc']:.4f}"
        plots.append((roc_figure([(name, BLUE, curves["roc"])]), "ROC: what share is found, at what false alarms"))
    if "precision_recall" in curves:
        plots.append((_precision_recall(evaluation), "Precision and recall, over all thresholds"))
    plots.append(
        (
            calibration_figure([("model", BLUE, curves["calibration"])]),
            "Calibration: on the line, 30% predicted happens 30% of the time",
        )
    )
    plots.append((_histogram(evaluation), f"Predicted probability of class {positive}, by what happened"))
    plots.append((confusion_figure(evaluation), f"Confusion matrix at {evaluation.threshold:g}, in rows"))
    return plots


def _multiclass_plots(evaluation: Evaluation) -> list[tuple[Figure, str]]:
    curves = evaluation.curves
    lines = [(name, f"C{i}", curve) for i, (name, curve) in enumerate(curves["roc_by_class"].items())]
    return [
        (confusion_figure(evaluation), "Confusion matrix, in rows"),
        (roc_figure(lines), "ROC of each class against the rest"),
        (
            calibration_figure([("model", BLUE, curves["calibration"])]),
            "Calibration of the predicted class: its probability against how often it is right",
        ),
    ]


def _regression_plots(evaluation: Evaluation) -> list[tuple[Figure, str]]:
    curves = evaluation.curves
    grid = np.array(curves["predicted_actual"]["counts"], dtype=np.float64)
    edges = curves["predicted_actual"]["edges"]
    figure, axes = new_figure()
    from matplotlib.colors import LogNorm

    shown = np.ma.masked_equal(grid.T, 0)
    norm = LogNorm(vmin=1, vmax=max(2.0, float(grid.max())))
    extent = (edges[0], edges[-1], edges[0], edges[-1])
    mesh = axes.imshow(shown, cmap="Blues", norm=norm, origin="lower", extent=extent, aspect="auto")
    axes.plot([edges[0], edges[-1]], [edges[0], edges[-1]], color=GREY, linewidth=1, linestyle="--")
    axes.set(xlabel=f"actual {evaluation.label}", ylabel="predicted")
    figure.colorbar(mesh, ax=axes, label="rows")
    residuals, residual_axes = new_figure()
    left = curves["residuals"]["edges"]
    residual_axes.bar(left[:-1], curves["residuals"]["counts"], width=left[1] - left[0], align="edge", color=BLUE)
    residual_axes.axvline(0, color=GREY, linewidth=1, linestyle="--")
    residual_axes.set(xlabel="predicted minus actual", ylabel="rows")
    bands, band_axes = new_figure()
    x = [band["predicted"] for band in curves["residual_bands"]]
    band_axes.fill_between(
        x,
        [band["p10"] for band in curves["residual_bands"]],
        [band["p90"] for band in curves["residual_bands"]],
        color=BLUE,
        alpha=0.2,
        linewidth=0,
        label="80% of the rows",
    )
    band_axes.plot(x, [band["median"] for band in curves["residual_bands"]], color=BLUE, label="median")
    band_axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
    band_axes.set(xlabel="predicted", ylabel="predicted minus actual")
    band_axes.legend(frameon=False)
    outside = curves["residuals"]["outside"]
    return [
        (figure, "Predicted against actual, without the outermost 1% of values"),
        (residuals, f"Errors; {outside:,} rows lie outside the picture"),
        (bands, "Errors by what was predicted, in bands of equal row count"),
    ]


def _precision_recall(evaluation: Evaluation) -> Figure:
    figure, axes = new_figure()
    curve = evaluation.curves["precision_recall"]
    rate = evaluation.metrics["base_rate"]
    axes.axhline(rate, color=GREY, linewidth=1, linestyle="--", label=f"base rate {rate:.3f}")
    name = f"model, average {evaluation.metrics['average_precision']:.4f}"
    axes.plot(curve["recall"], curve["precision"], color=BLUE, linewidth=1.8, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False, loc="upper right", fontsize=9)
    return figure


def _histogram(evaluation: Evaluation) -> Figure:
    figure, axes = new_figure()
    histogram = evaluation.curves["histogram"]
    edges = np.array(histogram["edges"])
    negative, positive = evaluation.classes
    for part, colour, name in (("negative", BLUE, negative), ("positive", ORANGE, positive)):
        counts = np.array(histogram[part], dtype=np.float64)
        shares = counts / max(counts.sum(), 1.0)
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.45, label=f"{evaluation.label} = {name}")
    axes.axvline(evaluation.threshold, color=GREY, linewidth=1, linestyle="--", label="threshold")
    axes.set(xlabel="predicted probability", ylabel="share of the class", xlim=(0, 1))
    axes.legend(frameon=False, fontsize=9)
    return figure


def _slices(page: Page, evaluation: Evaluation, slicing: dict[str, Any]) -> None:
    page.heading(f"By {slicing['name']}")
    primary = PRIMARY[evaluation.kind]
    shown = [primary, *[name for name in _FACTS[evaluation.kind] if name != primary]]
    if evaluation.kind == "binary":
        shown.append("base_rate")
    page.plots([(_slice_bars(evaluation, slicing, primary), "")])
    page.table(
        [[value["value"], value["rows"], *(value["metrics"][name] for name in shown)] for value in slicing["values"]],
        columns=["slice", "rows", *(METRICS[name].title for name in shown)],
    )


def _slice_bars(evaluation: Evaluation, slicing: dict[str, Any], primary: str) -> Figure:
    """The metric as points about that of all rows, since bars from zero would hide the differences; rows as bars."""
    from matplotlib.figure import Figure

    values = slicing["values"]
    figure = Figure(figsize=(10.6, 1.1 + 0.27 * len(values)), layout="constrained")
    axes, count_axes = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for part in (axes, count_axes):
        part.spines[["top", "right"]].set_visible(False)
        part.grid(True, axis="x", color="#e5e7eb", linewidth=0.8)
        part.set_axisbelow(True)
    places = range(len(values))
    measured = [value["metrics"][primary] for value in values]
    drawn = [value["rows"] >= _FEWEST_ROWS_DRAWN for value in values]
    known = [place for place in places if measured[place] is not None and drawn[place]]
    whole = evaluation.metrics[primary]
    if whole is not None:
        axes.axvline(whole, color=GREY, linewidth=1, linestyle="--", label=f"all rows: {whole:.4g}")
        axes.hlines(known, whole, [measured[place] for place in known], color=BLUE, linewidth=2, alpha=0.4)
        axes.legend(frameon=False, fontsize=9)
    axes.scatter([measured[place] for place in known], known, color=BLUE, s=34, zorder=3)
    for place in places:
        if place not in known:
            reason = "not defined" if drawn[place] else f"only {values[place]['rows']} rows"
            axes.text(0.01, place, reason, transform=axes.get_yaxis_transform(), va="center", color=GREY, fontsize=9)
    axes.set_yticks(places, [value["value"] for value in values])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlabel(METRICS[primary].title)
    count_axes.barh(places, [value["rows"] for value in values], color=GREY, height=0.6)
    count_axes.set_xlabel("rows")
    return figure
