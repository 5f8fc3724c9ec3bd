"""The page of `validate_model`: the verdict, then challenger and champion side by side."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from pipeparts.runtime.bootstrap import Interval
from pipeparts.runtime.evaluation import Evaluation
from pipeparts.runtime.metrics import METRICS, Values, metric_names
from pipeparts.runtime.pages import BLUE, GREEN, GREY, ORANGE, RED, Html, Page, new_figure
from pipeparts.runtime.verdict import Verdict, format_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_SLICES_DRAWN = 40
_DUST = 1e-12


@dataclasses.dataclass(frozen=True)
class SliceComparison:
    """Challenger and champion on one slice.

    Attributes:
        slicing: The slice's columns.
        value: Their value.
        rows: Rows with a label.
        challenger: The challenger's metric.
        champion: The champion's.
        gain: The challenger's gain; None where it was not compared.
    """

    slicing: str
    value: str
    rows: int
    challenger: float | None
    champion: float | None
    gain: Interval | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Challenger and champion on the same rows.

    Attributes:
        champion: Its name.
        metric: What they are compared by.
        relative: Whether gains are shares of the champion's value.
        confidence: Of the intervals.
        samples: Replicates of the bootstrap.
        min_gain: The gain to reach.
        max_loss: The loss that the interval may reach.
        slice_margin: The loss that a slice may have.
        evaluation: The champion's, without slices.
        gain: Over all rows; None where it is not defined.
        slices: Of each slice.
    """

    champion: str
    metric: str
    relative: bool
    confidence: float
    samples: int
    min_gain: float
    max_loss: float
    slice_margin: float
    evaluation: Evaluation
    gain: Interval | None
    slices: tuple[SliceComparison, ...]

    def show(self, gain: float) -> str:
        """A gain as people read it."""
        return f"{gain:+.2%}" if self.relative else f"{gain:+.4f}"


def write_page(
    verdict: Verdict,
    evaluation: Evaluation,
    metric: str,
    comparison: Comparison | None,
    path: str | os.PathLike[str],
) -> None:
    """Writes the page.

    Args:
        verdict: The verdict.
        evaluation: The challenger's evaluation.
        metric: What the models are compared by.
        comparison: With the champion, if there was one to compare with.
        path: Where the page goes.
    """
    page = Page(f"Gate: {evaluation.label}", verdict.subject)
    page.facts(_facts(verdict, evaluation, metric, comparison))
    page.heading("Verdict")
    told, kept = _without_kept_slices(verdict)
    page.verdict(told)
    if kept:
        page.text(f"{kept} slices that held are left out here; they are below.")
    page.heading("Challenger and champion" if comparison else "Challenger and baseline")
    if comparison:
        page.text(f"Champion: {comparison.champion}.")
    page.text(f"Baseline: {evaluation.baseline_name}.")
    _metrics(page, evaluation, comparison)
    plots = _plots(evaluation, comparison)
    if plots:
        page.plots(plots)
    if comparison and comparison.slices:
        _slices(page, comparison)
    page.write(path)


def _without_kept_slices(verdict: Verdict) -> tuple[Verdict, int]:
    """The verdict without the slices that passed, and their number: dozens of them would hide the rest."""
    told = tuple(check for check in verdict.checks if not (check.passed and check.name.startswith("slice:")))
    return dataclasses.replace(verdict, checks=told), len(verdict.checks) - len(told)


def _facts(verdict: Verdict, evaluation: Evaluation, metric: str, comparison: Comparison | None) -> dict[str, Any]:
    title = METRICS[metric].title
    facts: dict[str, Any] = {
        "verdict": "passed" if verdict.passed else "not passed",
        f"{title}, challenger": _shown(evaluation.metrics[metric]),
    }
    if comparison is None:
        facts[f"{title}, baseline"] = _shown(evaluation.baseline[metric])
    else:
        facts[f"{title}, champion"] = _shown(comparison.evaluation.metrics[metric])
        if comparison.gain is not None:
            facts["gain"] = comparison.show(comparison.gain.estimate)
            interval = f"{comparison.show(comparison.gain.low)} to {comparison.show(comparison.gain.high)}"
            facts[f"{comparison.confidence:.0%} interval"] = interval
    return facts


def _metrics(page: Page, evaluation: Evaluation, comparison: Comparison | None) -> None:
    champion: Values = comparison.evaluation.metrics if comparison else {}
    rows = []
    for name in metric_names(evaluation.kind):
        value = evaluation.metrics[name]
        row: list[Any] = [METRICS[name].title, _tidy(value)]
        if comparison:
            row += [_tidy(champion[name]), _difference(name, value, champion[name])]
        rows.append([*row, _tidy(evaluation.baseline[name])])
    columns = ["metric", "challenger", *(["champion", "difference"] if comparison else []), "baseline"]
    page.table(rows, columns=columns)


def _difference(name: str, value: float | None, champion: float | None) -> str:
    if value is None or champion is None:
        return ""
    difference = value - champion
    text = f"{difference:+.4g}"
    better = METRICS[name].better
    if not difference or not better:
        return text
    good = (difference > 0) == (better == "higher")
    return Html(f'<span class="{"good" if good else "bad"}">{text}</span>')


def _plots(evaluation: Evaluation, comparison: Comparison | None) -> list[tuple[Figure, str]]:
    plots: list[tuple[Figure, str]] = []
    models = [("challenger", BLUE, evaluation)]
    if comparison:
        models.append(("champion", ORANGE, comparison.evaluation))
        if comparison.gain is not None:
            plots.append((_gain_figure(comparison, comparison.gain), "The challenger's gain over the champion"))
    if all("roc" in model.curves for _, _, model in models):
        plots.append((_roc(models), "ROC: what share is found, at what false alarms"))
    if all("calibration" in model.curves for _, _, model in models):
        plots.append((_calibration(models), "Calibration: on the line, 30% predicted happens 30% of the time"))
    if all("residual_bands" in model.curves for _, _, model in models):
        plots.append((_residuals(models), "Median error by what was predicted"))
    return plots


def _gain_figure(comparison: Comparison, gain: Interval) -> Figure:
    figure, axes = new_figure()
    axes.axvspan(-comparison.max_loss, 0, color=GREY, alpha=0.12, linewidth=0, label="loss allowed to the interval")
    axes.axvline(0, color=GREY, linewidth=1)
    if comparison.min_gain:
        axes.axvline(comparison.min_gain, color=GREEN, linewidth=1.2, linestyle="--", label="gain to reach")
    axes.plot([gain.low, gain.high], [0, 0], color=BLUE, linewidth=3, solid_capstyle="round")
    name = f"gain with its {comparison.confidence:.0%} interval"
    axes.plot([gain.estimate], [0], "o", color=BLUE, markersize=9, label=name)
    axes.set(yticks=[], ylim=(-1, 2.4), xlabel=_gain_label(comparison))
    axes.legend(loc="upper center", fontsize=9, edgecolor="none", framealpha=1.0)
    return figure


def _gain_label(comparison: Comparison) -> str:
    title = METRICS[comparison.metric].title
    return f"gain of {title}, share of the champion's" if comparison.relative else f"gain of {title}"


def _roc(models: list[tuple[str, str, Evaluation]]) -> Figure:
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for name, colour, model in models:
        curve = model.curves["roc"]
        text = f"{name}, {format_value(model.metrics['roc_auc'])}"
        axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], color=colour, linewidth=1.8, label=text)
    axes.set(xlabel="false positive rate", ylabel="true positive rate (recall)", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return figure


def _calibration(models: list[tuple[str, str, Evaluation]]) -> Figure:
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    for name, colour, model in models:
        bins = model.curves["calibration"]
        x, y = [item["predicted"] for item in bins], [item["observed"] for item in bins]
        axes.plot(x, y, color=colour, linewidth=1.5, marker="o", markersize=4, label=name)
    axes.set(xlabel="predicted probability", ylabel="share that happened", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def _residuals(models: list[tuple[str, str, Evaluation]]) -> Figure:
    figure, axes = new_figure()
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--")
    for name, colour, model in models:
        bands = model.curves["residual_bands"]
        axes.plot([band["predicted"] for band in bands], [band["median"] for band in bands], color=colour, label=name)
    axes.set(xlabel="predicted", ylabel="predicted minus actual")
    axes.legend(frameon=False, fontsize=9)
    return figure


def _slices(page: Page, comparison: Comparison) -> None:
    title = METRICS[comparison.metric].title
    page.heading("Slices")
    drawn = [part for part in comparison.slices if part.gain is not None]
    if drawn:
        # The worst are what a reader has to see.
        worst = sorted(drawn, key=lambda part: part.gain.estimate if part.gain else 0.0)[:_MOST_SLICES_DRAWN]
        caption = (
            "The challenger's gain on each slice of enough rows, the worst first, "
            f"with its {comparison.confidence:.0%} interval"
        )
        page.plots([(_forest(comparison, worst), caption)])
    page.table(
        [
            [
                part.slicing,
                part.value,
                part.rows,
                part.challenger,
                part.champion,
                comparison.show(part.gain.estimate) if part.gain else "not compared",
                f"{comparison.show(part.gain.low)} to {comparison.show(part.gain.high)}" if part.gain else "",
            ]
            for part in comparison.slices
        ],
        columns=["slice", "value", "rows", f"{title}, challenger", "champion", "gain", "interval"],
    )


def _forest(comparison: Comparison, parts: list[SliceComparison]) -> Figure:
    figure, axes = new_figure(10.6, 1.1 + 0.27 * len(parts))
    axes.axvline(0, color=GREY, linewidth=1)
    axes.axvline(-comparison.slice_margin, color=RED, linewidth=1.2, linestyle="--", label="loss allowed to a slice")
    for place, part in enumerate(parts):
        if part.gain is not None:
            colour = RED if part.gain.estimate < -comparison.slice_margin else BLUE
            axes.plot([part.gain.low, part.gain.high], [place, place], color=colour, linewidth=2, alpha=0.5)
            axes.plot([part.gain.estimate], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(parts)), [f"{part.slicing} = {part.value} ({part.rows:,})" for part in parts])
    axes.set_ylim(len(parts) - 0.4, -0.6)
    axes.set_xlabel(_gain_label(comparison))
    axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def _tidy(value: float | None) -> float | None:
    """A value without the dust of rounding: 1e-16 for what is 0."""
    return 0.0 if value is not None and abs(value) < _DUST else value


def _shown(value: float | None) -> Any:
    return "not defined" if value is None else value
