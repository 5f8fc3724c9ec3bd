"""The work of `report_performance`."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeparts.components.monitoring.report_performance.joined import (
    WINDOW,
    WINDOWS,
    Columns,
    Joined,
    Window,
    check_time_column,
    join,
)
from pipeparts.components.monitoring.report_performance.judging import (
    Limits,
    Loss,
    Measured,
    interval_of,
    judge,
    judged_losses,
    loss_of,
    means_of,
    summary,
)
from pipeparts.components.monitoring.report_performance.page import Drawing, write_page
from pipeparts.runtime import metrics as m
from pipeparts.runtime.bootstrap import standard_error
from pipeparts.runtime.errors import ContractError, InputError, suggest
from pipeparts.runtime.evaluation import Evaluation, Predictions, evaluate, kind_of, read_evaluation
from pipeparts.runtime.files import write_json
from pipeparts.runtime.metrics import Values
from pipeparts.runtime.models import ModelInfo, read_model_info
from pipeparts.runtime.monitoring import Data, MeasuredSlice, Performance, write_report
from pipeparts.runtime.params import parse_params
from pipeparts.runtime.predictions import served_model
from pipeparts.runtime.registered_models import open_model, registered_evaluation, resolve_version
from pipeparts.runtime.slices import OTHERS, parse_slices
from pipeparts.runtime.tables import Table

logger = logging.getLogger(__name__)

# Beyond these the bootstrap resamples a part of the rows, so that its time stays bounded.
_MOST_ROWS = 200_000
_MOST_PART_ROWS = 20_000
_MOST_ROWS_OF_PARTS = 2_000_000
_FEWEST_PART_ROWS = 2_000
# A spread of fewer rows says nothing.
_FEWEST_ROWS = 30


@dataclasses.dataclass(frozen=True)
class _Model:
    """The model that is measured.

    Attributes:
        name: `models:/name/3`, or its fingerprint.
        info: Its card.
        evaluation: What it was at registration; None where that is not known.
    """

    name: str
    info: ModelInfo
    evaluation: Evaluation | None


def report_performance(
    *,
    predictions_path: str | os.PathLike[str],
    labels_path: str | os.PathLike[str],
    performance_path: str | os.PathLike[str],
    metrics_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    keys: Sequence[str] | None = None,
    label: str = "",
    slices: Sequence[str] | None = None,
    time_column: str = "",
    window: str = "day",
    limits: Mapping[str, Any] | None = None,
    model_uri: str = "",
    tracking_uri: str = "",
    model_path: str | os.PathLike[str] | None = None,
    evaluation_path: str | os.PathLike[str] | None = None,
) -> Performance:
    """Measures predictions whose labels have arrived, and writes the numbers and a page.

    In memory are 40 bytes a row of each table while rows are matched, then those of `Predictions`, whatever the number
    of columns.

    Args:
        predictions_path: The folder of the table of predictions.
        labels_path: That of the table of labels.
        performance_path: Where the report (JSON) goes.
        metrics_path: Where the metrics (JSON) go: KFP's local cache wants every output as a file.
        page_path: Where the HTML page goes.
        keys: The columns by which a prediction finds its label; without them `labels_path` holds the predictions too.
        label: The label's column; empty: the model's own.
        slices: Columns, or columns crossed with "+".
        time_column: The column of the windows; empty: none.
        window: "day", "week" or "month".
        limits: See `Limits`.
        model_uri: A registered model.
        tracking_uri: Of the registry.
        model_path: The model's folder, instead of `model_uri`.
        evaluation_path: Its evaluation.

    Returns:
        The report.

    Raises:
        InputError: For a wrong limit, column, window or model.
        DataError: For a repeated key, or a label that is none of the model's classes.
        ContractError: Where the tables, the model and the evaluation do not go together.
        ServiceError: Where the registry does not answer.
    """
    wanted = parse_params(Limits, limits, parameter="limits")
    length = _check_window(window)
    predictions, labels = Table(predictions_path), Table(labels_path)
    wanted_keys = _check_keys(keys, predictions, labels)
    model = _find_model(predictions, model_path, model_uri, tracking_uri, evaluation_path)
    kind = kind_of(model.info)
    held = wanted.of_kind(kind)
    info = dataclasses.replace(model.info, label=label or model.info.label)
    labels.require([info.label], parameter="label")
    columns = Columns(predictions, labels)
    if time_column:
        check_time_column(columns, time_column)
    known = _known_slices(model.evaluation)
    joined = join(
        predictions,
        labels,
        info,
        model=model.name,
        keys=wanted_keys,
        slices=parse_slices(slices, columns),
        time_column=time_column,
        window=length,
        known_slices={name: list(values) for name, values in known.items()},
    )
    report, drawing = _measure(joined, predictions, info, model, held, known, length if time_column else "")
    write_page(report, drawing, page_path)
    write_json(metrics_path, scalars(report))
    write_report(performance_path, report)
    logger.info("%s: %s", "degraded" if report.degraded else "not degraded", report.reason)
    return report


def scalars(report: Performance) -> dict[str, float]:
    """What the consoles draw."""
    return {
        **m.present(report.metrics),
        **{f"registered_{name}": value for name, value in m.present(report.registered, [report.metric]).items()},
        "rows": report.rows,
        "rows_labelled": report.rows_labelled,
        "degraded": int(report.degraded),
    }


def metadata(report: Performance) -> dict[str, Any]:
    """What goes onto the KFP artifact."""
    return {
        "degraded": report.degraded,
        "reason": report.reason,
        "model": report.model,
        "metric": report.metric,
        "value": report.metrics.get(report.metric),
        "registered": report.registered.get(report.metric),
        "rows": report.rows,
        "rows_labelled": report.rows_labelled,
    }


def _check_window(window: str) -> Window:
    for known in WINDOWS:
        if window == known:
            return known
    raise InputError(
        "a window that is not known",
        parameter="window",
        allowed=list(WINDOWS),
        received=repr(window),
        hint=suggest(str(window), WINDOWS),
    )


def _check_keys(keys: Sequence[str] | None, predictions: Table, labels: Table) -> tuple[str, ...]:
    if keys is not None and (isinstance(keys, str) or not all(isinstance(key, str) and key for key in keys)):
        raise InputError("the keys are not a list of columns", parameter="keys", allowed="a list", received=repr(keys))
    # Without keys nothing says which label is whose, but for labels that are in the rows themselves.
    if not keys and predictions.info.fingerprint != labels.info.fingerprint:
        both = [name for name in predictions.schema.names if name in labels.schema.names]
        raise InputError(
            "without keys a prediction cannot find its label",
            parameter="keys",
            allowed="columns of both tables; or none, and as `labels` the table of predictions itself, with the label",
            received="no keys, and two different tables",
            hint=f"both tables have {', '.join(both)}" if both else None,
        )
    return tuple(dict.fromkeys(keys or ()))


def _find_model(
    predictions: Table,
    model_path: str | os.PathLike[str] | None,
    model_uri: str,
    tracking_uri: str,
    evaluation_path: str | os.PathLike[str] | None,
) -> _Model:
    """The model: a folder, a registered one, or the one that made the predictions."""
    if model_path and model_uri:
        raise InputError(
            "two models",
            parameter="model_uri",
            allowed="the artifact `model`, or `model_uri`, or neither: then the one that made the predictions",
            received=f"an artifact and {model_uri}",
        )
    given = read_evaluation(evaluation_path) if evaluation_path else None
    if model_path:
        info = read_model_info(model_path)
        return _Model(info.fingerprint, info, _checked(given, info))
    parameter, uri = ("model_uri", model_uri) if model_uri else ("predictions", served_model(predictions))
    if not uri.startswith("models:/") and not model_uri:
        raise InputError(
            "the model that made the predictions is not registered",
            parameter="model",
            allowed="the artifact `model`, or `model_uri`",
            received=f"neither; the predictions are of the model with the fingerprint {uri}",
        )
    version = resolve_version(uri, tracking_uri, parameter=parameter)
    with open_model(version, tracking_uri, files=[], parameter=parameter) as folder:
        info = read_model_info(folder)
    if given is None:
        given = registered_evaluation(version, tracking_uri, parameter=parameter)
    return _Model(version, info, _checked(given, info))


def _checked(evaluation: Evaluation | None, info: ModelInfo) -> Evaluation | None:
    if evaluation is not None and evaluation.model["fingerprint"] != info.fingerprint:
        raise ContractError(
            "the evaluation is of another model",
            allowed=f"that of the model with the fingerprint {info.fingerprint}",
            received=evaluation.model["fingerprint"],
        )
    return evaluation


def _known_slices(evaluation: Evaluation | None) -> dict[str, dict[str, tuple[Values, int]]]:
    """Slice, value: what was measured at registration, and on how many rows."""
    if evaluation is None:
        return {}
    return {
        slicing["name"]: {
            # What is left over is not the same rows now and then.
            part["value"]: (part["metrics"], part["rows"])
            for part in slicing["values"]
            if part["value"] != OTHERS
        }
        for slicing in evaluation.slices
    }


def _measure(
    joined: Joined,
    table: Table,
    info: ModelInfo,
    model: _Model,
    limits: Limits,
    known: Mapping[str, Mapping[str, tuple[Values, int]]],
    window: str,
) -> tuple[Performance, Drawing]:
    registered = model.evaluation
    threshold = 0.5 if registered is None or registered.threshold is None else registered.threshold
    everything = joined.predictions
    unpredicted = everything.invalid_rows if everything is not None else 0
    measured = everything.take(everything.valid) if everything is not None and unpredicted else everything
    then = _registered(registered)
    whole, parts, evaluated = Measured("", "", 0, {}, *then, None), [], None
    if measured is not None:
        logger.info("measuring %s labelled rows", f"{len(measured.labels):,}")
        evaluated = evaluate(measured, info, table, threshold=threshold)
        whole = _whole(measured, evaluated.metrics, then, limits, threshold)
        parts = list(_parts(measured, evaluated, known, then, limits, threshold))
    slices = [part for part in parts if part.name != WINDOW]
    windows = [part for part in parts if part.name == WINDOW]
    findings = tuple(judge(whole, slices, windows, limits, unpredicted))
    labelled = len(everything.labels) if everything is not None else 0
    enough = whole.rows >= limits.min_rows
    slice_limit = limits.max_slice_loss if enough and limits.judge_slices else None
    slice_losses = judged_losses(slices, limits, slice_limit)
    window_losses = judged_losses(windows, limits, limits.max_window_loss if enough else None)
    degraded, reason = summary(findings, limits, rows=whole.rows, labelled=labelled, predicted=joined.rows)
    report = Performance(
        model=model.name,
        kind=kind_of(info),
        label=info.label,
        metric=limits.metric,
        batch=Data(rows=table.rows, fingerprint=table.info.fingerprint, source=table.info.source),
        rows=joined.rows,
        rows_labelled=labelled,
        rows_unmatched=joined.rows_unmatched,
        labels_unmatched=joined.labels_unmatched,
        rows_other_model=joined.rows_other_model,
        rows_without_prediction=unpredicted,
        interval=interval_of(whole, limits),
        metrics=whole.metrics,
        registered=whole.registered,
        registered_rows=whole.registered_rows,
        windows=_reported(windows, window_losses, limits),
        slices=_reported(slices, slice_losses, limits),
        degraded=degraded,
        reason=reason,
        findings=findings,
    )
    loss = loss_of(whole, limits, limits.max_loss) if enough and limits.max_loss is not None else None
    return report, Drawing(limits, window, evaluated, registered, loss, slice_losses)


def _whole(
    predictions: Predictions, values: Values, then: tuple[Values, int], limits: Limits, threshold: float
) -> Measured:
    rows = len(predictions.labels)
    error = None
    if rows >= _FEWEST_ROWS:
        error = standard_error(
            limits.metric,
            predictions,
            threshold=threshold,
            samples=limits.bootstrap_samples,
            seed=(limits.seed,),
            most_rows=_MOST_ROWS,
        )
    means = _means(predictions, np.zeros(rows, dtype=np.int16), 1)[0] if rows else {}
    return Measured("", "", rows, {**values, **means}, *then, error)


def _parts(
    predictions: Predictions,
    evaluated: Evaluation,
    known: Mapping[str, Mapping[str, tuple[Values, int]]],
    then: tuple[Values, int],
    limits: Limits,
    threshold: float,
) -> Iterator[Measured]:
    """Each window and slice; a window is held to what the model was over all."""
    groups = sum(len(slicing.values) for slicing in predictions.slicings)
    most_rows = min(_MOST_PART_ROWS, max(_FEWEST_PART_ROWS, _MOST_ROWS_OF_PARTS // max(groups, 1)))
    plain = dataclasses.replace(predictions, slicings=())
    for number, (slicing, measured) in enumerate(zip(predictions.slicings, evaluated.slices, strict=True)):
        order = np.argsort(slicing.codes, kind="stable")
        sizes = np.bincount(slicing.codes, minlength=len(slicing.values))
        means = _means(predictions, slicing.codes, len(slicing.values))
        starts = np.cumsum(sizes) - sizes
        for code, part in enumerate(measured["values"]):
            # A slice that only rows without a prediction are in has none left.
            if not part["rows"]:
                continue
            rows = order[starts[code] : starts[code] + sizes[code]]
            error = None
            if len(rows) >= _FEWEST_ROWS:
                error = standard_error(
                    limits.metric,
                    plain.take(rows),
                    threshold=threshold,
                    samples=limits.bootstrap_samples,
                    seed=(limits.seed, number + 1, code),
                    most_rows=most_rows,
                )
            before = then if slicing.name == WINDOW else known.get(slicing.name, {}).get(part["value"], ({}, 0))
            values = {**part["metrics"], **means[code]}
            yield Measured(slicing.name, part["value"], part["rows"], values, *before, error)


def _means(predictions: Predictions, codes: npt.NDArray[np.integer[Any]], groups: int) -> list[Values]:
    """What was predicted on average in each group of rows, and for a regression what happened."""
    counts = np.maximum(np.bincount(codes, minlength=groups), 1)

    def mean(values: npt.NDArray[Any]) -> list[float]:
        return [float(value) for value in np.bincount(codes, weights=values, minlength=groups) / counts]

    name = means_of(predictions.kind)[0]
    if predictions.kind == "binary":
        return [{name: value} for value in mean(predictions.scores)]
    if predictions.kind == "multiclass":
        assert predictions.predicted is not None
        confidence = predictions.scores[np.arange(len(codes)), predictions.predicted]
        return [{name: value} for value in mean(confidence)]
    happened = means_of("regression")[1]
    pairs = zip(mean(predictions.scores), mean(predictions.labels), strict=True)
    return [{name: predicted, happened: actual} for predicted, actual in pairs]


def _reported(parts: Sequence[Measured], losses: Mapping[int, Loss], limits: Limits) -> tuple[MeasuredSlice, ...]:
    return tuple(
        MeasuredSlice(
            name=part.name,
            value=part.value,
            rows=part.rows,
            metrics=part.metrics,
            registered=part.registered,
            registered_rows=part.registered_rows,
            interval=interval_of(part, limits),
            loss=losses[place].estimate if place in losses else None,
            exceeded=place in losses and losses[place].exceeded,
        )
        for place, part in enumerate(parts)
    )


def _registered(evaluation: Evaluation | None) -> tuple[Values, int]:
    """What was measured at registration, and on how many rows."""
    if evaluation is None:
        return {}, 0
    values = dict(evaluation.metrics)
    bins = evaluation.curves.get("calibration", [])
    rows = sum(part["rows"] for part in bins)
    if rows:
        values[means_of(evaluation.kind)[0]] = sum(part["rows"] * part["predicted"] for part in bins) / rows
    return values, int(evaluation.counts["rows_evaluated"])
