"""The page of `record_batch`: all batches of a model side by side."""

from __future__ import annotations

import html
import itertools
import os
import warnings
from collections.abc import Sequence
from typing import Any

from pipeparts.components.monitoring.record_batch.history import (
    Batch,
    History,
    KeptPerformance,
    better_by,
    metric_title,
)
from pipeparts.components.monitoring.record_batch.plots import draw, shortened, version_colours
from pipeparts.runtime.pages import Page

#: Columns of the heat map.
_MOST_COLUMNS = 15
_MOST_NAMED = 3
#: The heat map is of so many batches at most, the latest.
_MOST_DRAWN = 60
#: With more batches the cells of the heat map hold no numbers.
_MOST_NUMBERED = 16
# Siddiqi, "Credit Risk Scorecards" (2006): below 0.1 no change to speak of, from 0.25 on a large one.
_NOTABLE, _LARGE = 0.1, 0.25

_STYLE = """<style>
.chip { display: inline-block; padding: 0 7px; border-radius: 9px; color: #fff; font-size: 12px; white-space: nowrap;
  max-width: 130px; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
td .why { color: var(--soft); font-size: 13px; }
.why ul { margin: 2px 0 0; padding-left: 16px; }
.batches td { white-space: nowrap; }
.batches th { vertical-align: bottom; line-height: 1.25; }
.batches td.name { font-weight: 600; max-width: 200px; overflow: hidden; text-overflow: ellipsis; }
.batches td.columns { white-space: normal; min-width: 120px; overflow-wrap: anywhere; }
.batches .whole { white-space: nowrap; }
.batches td.decision { white-space: normal; min-width: 210px; }
.latest { border: 1px solid var(--line); border-left: 5px solid var(--good); border-radius: 8px; padding: 10px 18px; }
.latest.retrain { border-left-color: var(--bad); }
.latest p { margin: 4px 0; }
.heat { width: auto; border-collapse: separate; border-spacing: 2px; font-size: 12px; }
.heat th, .heat td { border: 0; padding: 2px 5px; text-align: center; min-width: 14px; height: 22px; }
.heat th.column { text-align: right; color: var(--ink); font-weight: 400; position: sticky; left: 0; background: #fff;
  white-space: nowrap; }
.heat th.batch { font-weight: 400; vertical-align: bottom; max-width: 96px; overflow-wrap: anywhere; }
.heat.dense { border-spacing: 1px; font-size: 11px; }
.heat.dense td, .heat.dense th.batch { min-width: 12px; padding: 0; }
.heat.dense th.batch { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; white-space: nowrap;
  height: auto; font-size: 9px; line-height: 12px; }
.heat td { border-radius: 3px; font-variant-numeric: tabular-nums; }
.heat td.none { background: repeating-linear-gradient(45deg, #f3f4f6 0 3px, #fff 3px 6px); }
.scale { display: flex; gap: 14px; color: var(--soft); font-size: 13px; align-items: center; margin: 6px 0; }
.scale i { display: inline-block; width: 14px; height: 14px; border-radius: 3px; vertical-align: -2px;
  margin-right: 5px; }
</style>"""


def write_page(history: History, path: str | os.PathLike[str]) -> None:
    """Writes the page of a history."""
    page = Page(history.title, _subtitle(history))
    page.html(_STYLE)
    page.facts(_facts(history))
    page.html(_latest(history.latest))
    page.heading("Batch by batch")
    with warnings.catch_warnings():
        # A name in a script that the font does not have: the table below has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        page.plots([draw(history)])
    page.heading("Which columns moved")
    page.html(_heat_map(history))
    page.heading("Every batch")
    page.html(_table(history))
    page.write(path)


def _subtitle(history: History) -> str:
    first, last = history.batches[0], history.latest
    if len(history.batches) == 1:
        return f"One batch, {shortened(first.name, 60)}, as of {last.as_of[:10]}"
    names = f"{shortened(first.name, 40)} to {shortened(last.name, 40)}"
    return f"{len(history.batches):,} batches, {names}, as of {last.as_of[:10]}"


def _facts(history: History) -> dict[str, Any]:
    last, batches = history.latest, history.batches
    measured = [batch.performance for batch in batches if batch.performance]
    facts: dict[str, Any] = {
        "model that served last": model_label(last.model),
        "batches that drifted": f"{sum(batch.drift.drifted for batch in batches):,} of {len(batches):,}",
        "batches that lost performance": f"{sum(report.degraded for report in measured):,} of {len(measured):,}"
        if measured
        else "no labels yet",
        "trainings called for": sum(batch.decision.retrain for batch in batches),
    }
    gains = _gains(batches)
    if gains:
        facts["better than the baseline by"] = f"{sum(gains) / len(gains):+.3f} on average"
    return facts


def _gains(batches: Sequence[Batch]) -> list[float]:
    """By how much later models were better than the baseline, on the batches that they served."""
    found = (
        better_by(batch.performance.metric, batch.performance.value, batch.baseline.value)
        for batch in batches
        if batch.performance and batch.baseline and batch.performance.model != batch.baseline.model
    )
    return [gain for gain in found if gain is not None]


def _latest(batch: Batch) -> str:
    word = "The model is to be trained again" if batch.decision.retrain else "The model stays"
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in batch.decision.reasons)
    kind = "latest retrain" if batch.decision.retrain else "latest"
    headline = f"<p><strong>{html.escape(batch.name)}: {word}</strong></p>"
    return f'<div class="{kind}">{headline}<div class="why"><ul>{items}</ul></div></div>'


def _table(history: History) -> str:
    """Every batch in a row, the latest first."""
    has_baseline = any(batch.baseline for batch in history.batches)
    colours = version_colours(history)
    heads = [("batch", ""), ("rows", "number"), ("served by", ""), ("drifted columns", "number")]
    heads += [("predictions&rsquo; PSI", "number"), ("furthest columns", ""), (_metric_heading(history), "number")]
    heads += [("registered", "number"), ("change", "number")]
    heads += [("baseline", "number")] if has_baseline else []
    heads += [("decision", "")]
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in heads)
    body = "".join(_row(batch, has_baseline, colours) for batch in reversed(history.batches))
    return (
        f'<div class="scroll"><table class="batches"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _metric_heading(history: History) -> str:
    """The metric's name, where all batches are judged by the same one."""
    metrics = {batch.performance.metric for batch in history.batches if batch.performance}
    return html.escape(metric_title(metrics.pop())) if len(metrics) == 1 else "performance"


def _row(batch: Batch, has_baseline: bool, colours: dict[str, str]) -> str:
    drift, report = batch.drift, batch.performance
    chip = f'<span class="chip" style="background:{colours[batch.model]}" title="{html.escape(batch.model)}">'
    furthest = [column for column in drift.features if column.drifted][:_MOST_NAMED]
    more = sum(column.drifted for column in drift.features) - len(furthest)
    names = ", ".join(f'<span class="whole">{html.escape(shortened(column.name, 24))}</span>' for column in furthest)
    names += f" and {more:,} more" if more else ""
    over = drift.prediction_limit is not None and (drift.prediction_psi or 0) > drift.prediction_limit
    cells = [
        ("name", f'<span title="{html.escape(batch.name)}">{html.escape(shortened(batch.name, 26))}</span>'),
        ("number", f"{batch.rows:,}"),
        ("", f"{chip}{html.escape(model_label(batch.model))}</span>"),
        ("number", _marked(f"{drift.share:.0%}", "bad" if drift.drifted else "")),
        ("number", _marked(_psi(drift.prediction_psi), "bad" if over else "")),
        ("columns", names),
        *_measured(report),
    ]
    if has_baseline:
        cells.append(("number", _number(batch.baseline)))
    cells.append(("decision", _decision(batch)))
    return "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in cells) + "</tr>"


def _measured(report: KeptPerformance | None) -> list[tuple[str, str]]:
    if report is None:
        return [("number", '<span class="why">no labels yet</span>'), ("number", ""), ("number", "")]
    title = f'<span title="{html.escape(metric_title(report.metric))}, {report.rows_labelled:,} labelled rows">'
    change = None if report.value is None or report.registered is None else report.value - report.registered
    kind = "bad" if report.degraded else "good" if (report.gain or 0) > 0 else ""
    return [
        ("number", f"{title}{_number(report)}</span>"),
        ("number", "" if report.registered is None else f"{report.registered:.3f}"),
        ("number", "" if change is None else _marked(f"{change:+.3f}", kind)),
    ]


def _decision(batch: Batch) -> str:
    decision = batch.decision
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in decision.reasons)
    if decision.retrain:
        return f'<span class="bad">train again</span><div class="why"><ul>{items}</ul></div>'
    held = f' <span class="warn">(held back: {html.escape(", ".join(decision.held_back_by))})</span>'
    word = "stays" + (held if decision.held_back_by else "")
    return f'<details class="why"><summary>{word}</summary><ul>{items}</ul></details>'


def _heat_map(history: History) -> str:
    """The population stability index of the columns that moved most, by batch."""
    batches = history.batches[-_MOST_DRAWN:]
    values: dict[str, dict[int, float]] = {}
    for place, batch in enumerate(batches):
        for column in batch.drift.columns:
            if column.psi is not None:
                values.setdefault(column.name, {})[place] = column.psi
    if not values:
        return "<p>The population stability index was not measured for any column.</p>"
    predictions = {column.name for batch in batches for column in batch.drift.columns if column.role == "prediction"}
    # The predictions first, then the columns that went furthest in any batch.
    order = sorted(values, key=lambda name: (name not in predictions, -max(values[name].values()), name))
    shown = order[:_MOST_COLUMNS]
    dense = len(batches) > _MOST_NUMBERED
    most = 16 if dense else 24
    head = "".join(
        f'<th class="batch" title="{html.escape(batch.name)}">{html.escape(shortened(batch.name, most))}</th>'
        for batch in batches
    )
    body = "".join(_heat_row(name, values[name], batches, name in predictions, dense) for name in shown)
    notes = ["Population stability index against the training data; the darker, the further."]
    notes += [f"The last {len(batches):,} batches."] if len(batches) < len(history.batches) else []
    notes += [f"{len(order) - len(shown):,} more columns moved less."] if len(order) > len(shown) else []
    return (
        f'<p>{" ".join(notes)}</p><div class="scroll"><table class="heat{" dense" if dense else ""}">'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>{_scale()}"
    )


def _heat_row(name: str, values: dict[int, float], batches: Sequence[Batch], is_prediction: bool, dense: bool) -> str:
    label = shortened(name, 36) + (" (predicted)" if is_prediction else "")
    cells = [f'<th class="column" title="{html.escape(name)}">{html.escape(label)}</th>']
    for place, batch in enumerate(batches):
        psi = values.get(place)
        if psi is None:
            cells.append(f'<td class="none" title="{html.escape(batch.name)}: not measured"></td>')
            continue
        background, ink = heat_colour(psi)
        said = html.escape(f"{name}, {batch.name}: {_psi(psi)}")
        text = "" if dense else _psi(psi)
        cells.append(f'<td style="background:{background};color:{ink}" title="{said}">{text}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _scale() -> str:
    steps = [(0.0, "0"), (_NOTABLE, "0.1: some"), (_LARGE, "0.25: much"), (1.0, "1 and more")]
    items = "".join(f'<span><i style="background:{heat_colour(value)[0]}"></i>{text}</span>' for value, text in steps)
    stripes = "repeating-linear-gradient(45deg,#e5e7eb 0 3px,#fff 3px 6px)"
    return f'<div class="scale">{items}<span><i style="background:{stripes}"></i>not measured</span></div>'


def heat_colour(psi: float) -> tuple[str, str]:
    """The background and the ink of a cell: pale to 0.1, amber to 0.25, then red and dark."""
    stops = [(0.0, (243, 244, 246)), (_NOTABLE, (253, 230, 138)), (_LARGE, (239, 108, 60)), (1.0, (127, 29, 29))]
    value = min(max(psi, 0.0), 1.0)
    for (low, first), (high, second) in itertools.pairwise(stops):
        if value <= high:
            part = (value - low) / (high - low)
            rgb = [round(a + (b - a) * part) for a, b in zip(first, second, strict=True)]
            return "#{:02x}{:02x}{:02x}".format(*rgb), "#fff" if value > 0.3 else "#111827"
    raise AssertionError("the last stop is the largest value")


def model_label(model: str) -> str:
    """A model in a few characters: `late_flights/3`, or the beginning of a fingerprint."""
    if not model:
        return "a table"
    return model.removeprefix("models:/") if model.startswith("models:/") else shortened(model, 9)


def _psi(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _number(report: KeptPerformance | None) -> str:
    if report is None:
        return ""
    return "not defined" if report.value is None else f"{report.value:.3f}"


def _marked(text: str, kind: str) -> str:
    return f'<span class="{kind}">{text}</span>' if kind and text else text
