"""The work of `evaluate_tfma`."""

from __future__ import annotations

import dataclasses
import logging
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeparts.components.validation.evaluate_tfma.config import (
    COUNT,
    Threshold,
    eval_config,
    name_of,
    parse_metrics,
    parse_slices,
    parse_thresholds,
    shown_slice,
)
from pipeparts.components.validation.evaluate_tfma.page import build_page
from pipeparts.components.validation.evaluate_tfma.rows import (
    BASELINE,
    CANDIDATE,
    Counts,
    Layout,
    require_number,
    write_rows,
)
from pipeparts.runtime.beam import copy_folder, is_local, pipeline_options, runner_of
from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.files import whole_folder
from pipeparts.runtime.tables import Table
from pipeparts.runtime.verdict import Check, Verdict, format_value

logger = logging.getLogger(__name__)

TASKS = ("binary", "regression")
_MOST_SLICED_COLUMNS = 20


@dataclasses.dataclass(frozen=True)
class Measured:
    """The metrics of all rows or of one slice.

    Attributes:
        slice: Its name; empty for all rows.
        rows: Its rows.
        values: Each metric's value.
        changes: Each metric's change from the baseline.
    """

    slice: str
    rows: int
    values: Mapping[str, float]
    changes: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What was measured, and the verdict on it.

    Attributes:
        measured: All rows first, then the slices by their names.
        verdict: The verdict.
        counts: Which rows were measured.
    """

    measured: tuple[Measured, ...]
    verdict: Verdict
    counts: Counts

    def overall(self) -> dict[str, float]:
        """The metrics of all rows."""
        return dict(self.measured[0].values)

    def metadata(self) -> dict[str, Any]:
        """What goes onto the artifact."""
        return {**dataclasses.asdict(self.counts), "slices": len(self.measured) - 1, **self.overall()}


def evaluate(
    *,
    predictions_path: str | os.PathLike[str],
    evaluation_path: str | os.PathLike[str],
    verdict_path: str | os.PathLike[str],
    verdict_text_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    label: str,
    task: str,
    prediction: str,
    classes: Sequence[Any] | None,
    slices: Sequence[Any] | None,
    thresholds: Mapping[str, Any] | None,
    slice_thresholds: Mapping[str, Any] | None,
    min_slice_rows: int,
    keys: Sequence[Any] | None,
    beam_options: Mapping[str, Any] | None,
    baseline_path: str | os.PathLike[str] | None,
) -> Evaluation:
    """Measures predictions, and judges them.

    Args:
        predictions_path: The candidate's predictions.
        evaluation_path: Where TFMA's result, a folder, goes.
        verdict_path: Where the verdict (JSON) goes.
        verdict_text_path: Where the verdict (Markdown) goes.
        page_path: Where the HTML page goes.
        label: The label's column.
        task: "binary" or "regression".
        prediction: The column with the prediction; empty for the usual one.
        classes: The label's values; None for the usual ones.
        slices: Columns to slice by.
        thresholds: Metric to bounds, for all rows.
        slice_thresholds: Metric to bounds, for each slice.
        min_slice_rows: The least rows of a slice that is judged.
        keys: Columns that name a row.
        beam_options: Options of Beam.
        baseline_path: The baseline's predictions, if any.

    Returns:
        What was measured, with the verdict.

    Raises:
        InputError: For a task, column, metric, slice or threshold that is not known or does not go with the others.
        DataError: Where no row can be measured, a label is none of the classes, or the baseline's rows are others.
        ContractError: Where a table is damaged.
    """
    if task not in TASKS:
        raise InputError(
            "not a task that TFMA measures here",
            parameter="task",
            allowed=TASKS,
            received=task,
            hint="evaluate_model measures more than two classes" if task == "multiclass" else suggest(task, TASKS),
        )
    if min_slice_rows < 1:
        raise InputError(
            "a number out of range", parameter="min_slice_rows", allowed="1 or more", received=min_slice_rows
        )
    options = pipeline_options(beam_options)
    candidate = Table(predictions_path)
    baseline = None if baseline_path is None else Table(baseline_path)
    groups = parse_slices(slices)
    layout = _layout(candidate, label, task, prediction, classes, groups, keys)
    if baseline is not None:
        baseline.require([layout.label, layout.score, *layout.keys], parameter="baseline")
    metrics = parse_metrics(task, thresholds=thresholds, slice_thresholds=slice_thresholds)
    bounds = {
        parameter: parse_thresholds(given, parameter=parameter, has_baseline=baseline is not None)
        for parameter, given in (("thresholds", thresholds), ("slice_thresholds", slice_thresholds))
    }
    if bounds["slice_thresholds"] and not groups:
        raise InputError(
            "thresholds for slices, and no slices",
            parameter="slice_thresholds",
            allowed="`slices` as well",
            received=dict(slice_thresholds or {}),
        )
    config = eval_config(
        metrics,
        groups,
        bounds["thresholds"],
        bounds["slice_thresholds"],
        has_baseline=baseline is not None,
    )
    with tempfile.TemporaryDirectory() as here:
        rows = Path(here) / "rows.parquet"
        counts = write_rows(rows, layout, candidate, baseline)
        logger.info("%s rows: measured by Beam's %s", f"{counts.written:,}", runner_of(beam_options))
        result = Path(here) / "result"
        _run(rows, result, config, options, is_local=is_local(beam_options), baseline=baseline is not None)
        measured = _read(result, has_baseline=baseline is not None)
        _keep(result, evaluation_path)
    verdict = Verdict(
        gate="evaluate_tfma",
        subject=f"{counts.written:,} rows of {candidate.info.source}"
        + (f", against {baseline.info.source}" if baseline is not None else ""),
        checks=tuple(_checks(measured, counts, bounds, min_slice_rows)),
    )
    build_page(verdict, measured, counts, has_baseline=baseline is not None).write(page_path)
    verdict.write(verdict_path, verdict_text_path)
    logger.info("%d of %d checks failed", len(verdict.failures), len(verdict.checks))
    return Evaluation(tuple(measured), verdict, counts)


def _layout(
    table: Table,
    label: str,
    task: str,
    prediction: str,
    classes: Sequence[Any] | None,
    groups: Sequence[tuple[str, ...]],
    keys: Sequence[Any] | None,
) -> Layout:
    table.require([label], parameter="label")
    for place, group in enumerate(groups):
        table.require(group, parameter=f"slices[{place}]")
    table.require(list(keys or []), parameter="keys")
    known = tuple(classes or ())
    if task == "binary" and not known:
        known = (False, True) if str(table.schema.field(label).type) == "bool" else (0, 1)
    if len(known) != {"binary": 2, "regression": 0}[task]:
        raise InputError(
            f"classes that do not go with the task {task!r}",
            parameter="classes",
            allowed="two" if task == "binary" else "none",
            received=list(known),
        )
    score = prediction or ("probability" if task == "binary" else "prediction")
    require_number(table, score, parameter="prediction")
    sliced = tuple(dict.fromkeys(name for group in groups for name in group))
    if len(sliced) > _MOST_SLICED_COLUMNS:
        raise InputError(
            "more columns than anybody slices by",
            parameter="slices",
            allowed=f"{_MOST_SLICED_COLUMNS} at most",
            received=len(sliced),
        )
    return Layout(label, score, known, sliced, tuple(keys or ()))


def _run(rows: Path, result: Path, config: Any, options: Any, *, is_local: bool, baseline: bool) -> None:
    """Runs TFMA over the rows; on a runner elsewhere by way of the bucket that its options name."""
    import apache_beam as beam
    import tensorflow as tf
    from apache_beam.options.pipeline_options import GoogleCloudOptions
    from tensorflow_model_analysis import constants
    from tensorflow_model_analysis.api import model_eval_lib, types

    place = None if is_local else options.view_as(GoogleCloudOptions).temp_location
    source, target = str(rows), str(result)
    if place:
        folder = f"{place.rstrip('/')}/evaluation-{uuid.uuid4().hex}"
        source, target = f"{folder}/{rows.name}", f"{folder}/{result.name}"
        tf.io.gfile.makedirs(folder)
        tf.io.gfile.copy(str(rows), source)
    models = [
        types.EvalSharedModel(
            model_name=name if baseline else "",
            model_type=constants.MATERIALIZED_PREDICTION,
            is_baseline=name == BASELINE,
            include_default_metrics=False,
        )
        for name in (CANDIDATE, BASELINE)[: 1 + baseline]
    ]
    with warnings.catch_warnings(), beam.Pipeline(options=options) as pipeline:
        # Of a metric that has no value in a slice, numpy says so, and TFMA gives NaN.
        warnings.simplefilter("ignore", RuntimeWarning)
        _ = (
            pipeline
            | "Read" >> beam.io.ReadFromParquetBatched(source)
            | "AsExamples" >> beam.FlatMap(_examples)
            | "Evaluate"
            >> model_eval_lib.ExtractEvaluateAndWriteResults(
                eval_config=config, eval_shared_model=models if baseline else models[0], output_path=target
            )
        )
    if place:
        copy_folder(target, result)
        tf.io.gfile.rmtree(folder)


def _examples(rows: Any) -> list[Any]:
    """Rows as TFMA takes them: every value a list."""
    from tfx_bsl.arrow import table_util

    return [table_util.CanonicalizeRecordBatch(batch) for batch in rows.combine_chunks().to_batches() if len(batch)]


def _keep(result: Path, evaluation_path: str | os.PathLike[str]) -> None:
    """Writes TFMA's result to where it belongs, its records in an order of their own: the same rows, the same bytes."""
    import tensorflow as tf

    with whole_folder(evaluation_path) as partial:
        for file in sorted(result.iterdir()):
            if file.suffix != ".tfrecord":
                (partial / file.name).write_bytes(file.read_bytes())
                continue
            with tf.io.TFRecordWriter(str(partial / file.name)) as writer:
                for record in sorted(item.numpy() for item in tf.data.TFRecordDataset(str(file))):
                    writer.write(record)


def _read(result: Path, *, has_baseline: bool) -> list[Measured]:
    from tensorflow_model_analysis.api import model_eval_lib

    found = model_eval_lib.load_eval_result(str(result), model_name=CANDIDATE if has_baseline else None)
    measured = []
    for key, outputs in found.slicing_metrics:
        # Metrics that are no single number, as a confusion matrix, are in TFMA's result alone.
        numbers = {
            name: float(value["doubleValue"])
            for name, value in outputs.get("", {}).get("", {}).items()
            if "doubleValue" in value
        }
        values = {name: number for name, number in numbers.items() if not name.endswith("_diff")}
        changes = {name.removesuffix("_diff"): number for name, number in numbers.items() if name.endswith("_diff")}
        rows = int(values.pop(name_of(COUNT)))
        changes.pop(name_of(COUNT), None)
        measured.append(Measured(shown_slice(key), rows, values, changes))
    return sorted(measured, key=lambda item: item.slice)


def _checks(
    measured: Sequence[Measured], counts: Counts, bounds: Mapping[str, Mapping[str, Threshold]], min_slice_rows: int
) -> Iterator[Check]:
    yield Check(
        "answered",
        counts.unanswered == 0,
        counts.unanswered,
        0,
        "every row with a label has a usable prediction"
        if counts.unanswered == 0
        else f"{counts.unanswered:,} rows with a label have no usable prediction",
    )
    for item in measured:
        is_slice = bool(item.slice)
        for metric, threshold in bounds["slice_thresholds" if is_slice else "thresholds"].items():
            if is_slice and item.rows < min_slice_rows:
                continue
            yield from _judged(item, name_of(metric), threshold)


def _judged(item: Measured, metric: str, threshold: Threshold) -> Iterator[Check]:
    place = f":{item.slice}" if item.slice else ""
    where = f" of {item.slice} ({item.rows:,} rows)" if item.slice else ""
    for name, numbers, least, greatest in (
        (metric, item.values, threshold.min, threshold.max),
        (f"{metric}_change", item.changes, threshold.min_change, threshold.max_change),
    ):
        for bound, word in ((least, "below"), (greatest, "above")):
            if bound is None:
                continue
            value = numbers.get(metric)
            if value is None or value != value:
                yield Check(f"{name}{place}", False, None, bound, f"{name}{where} has no value on these rows")
                continue
            passed = value >= bound if word == "below" else value <= bound
            said = f"{name}{where} is {format_value(value)}, {'not ' if passed else ''}{word} {format_value(bound)}"
            yield Check(f"{name}{place}", passed, value, bound, said)
