"""The work of `validate_model`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from pipeparts.components.validation.validate_model.page import Comparison, SliceComparison, write_page
from pipeparts.runtime.bootstrap import Interval, gain_interval
from pipeparts.runtime.errors import ContractError, DataError, InputError, PipepartsError
from pipeparts.runtime.evaluation import (
    Evaluation,
    Predictions,
    check_table,
    evaluate,
    metrics_of,
    predict_table,
    read_evaluation,
)
from pipeparts.runtime.metrics import METRICS, PRIMARY, Bounds, Values, require_metric
from pipeparts.runtime.models import LoadedModel, ModelInfo, read_model_info
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.registered_models import open_model
from pipeparts.runtime.serving_check import ServingCheck
from pipeparts.runtime.slices import parse_slices
from pipeparts.runtime.tables import Table
from pipeparts.runtime.verdict import Check, Verdict, format_value

logger = logging.getLogger(__name__)

# Beyond these the bootstrap resamples a part of the rows, so that its time stays bounded.
_MOST_ROWS = 200_000
_MOST_SLICE_ROWS = 20_000


class Gate(Params):
    """What a model has to hold.

    A gain is the challenger's metric less the champion's, turned round where less is better: more is always better.

    Attributes:
        metric: The metric that challenger, champion and baseline are compared by; empty: roc_auc for two classes,
            roc_auc_ovr for more, rmse for a regression.
        thresholds: Metric to its bounds, {"roc_auc": {"min": 0.7}}.
        min_gain: The gain over the champion that the challenger has to reach.
        gain_bound: What has to reach it: the "estimate" on all rows, or the "lower" end of its interval.
        max_loss: How far below zero the interval's lower end may be.
        relative: Whether gains, losses and margins are shares of the champion's value (0.01 is 1%) and not in the
            metric's unit; None: shares for metrics in the label's unit (rmse, mae, median_absolute_error).
        slices: Columns, or columns crossed with "+"; None: those of the evaluation.
        slice_margin: How much worse than the champion a slice may be.
        slice_bound: What is held to it: the "estimate"; the interval's "lower" end, which is stricter; or its
            "upper" end, which stops only what is worse beyond doubt.
        min_slice_rows: Slices with fewer rows are not compared.
        bootstrap_samples: Replicates.
        confidence: The interval's probability.
        seed: Of the bootstrap.
        require_champion: Whether to fail where there is no champion.
        on_broken_champion: "fail", or "ignore" a champion that does not load or cannot be compared.
        serving_timeout_seconds: How long the clean process of the serving check may take.
    """

    metric: str = ""
    thresholds: dict[str, Bounds] = {}
    min_gain: float = pydantic.Field(default=0.0, allow_inf_nan=False)
    gain_bound: Literal["estimate", "lower"] = "estimate"
    max_loss: float = pydantic.Field(default=0.01, ge=0.0, allow_inf_nan=False)
    relative: bool | None = None
    slices: tuple[str, ...] | None = None
    slice_margin: float = pydantic.Field(default=0.05, ge=0.0, allow_inf_nan=False)
    slice_bound: Literal["estimate", "lower", "upper"] = "estimate"
    min_slice_rows: int = pydantic.Field(default=500, ge=1)
    bootstrap_samples: int = pydantic.Field(default=1000, ge=100, le=100_000)
    confidence: float = pydantic.Field(default=0.95, gt=0.0, lt=1.0)
    seed: int = pydantic.Field(default=0, ge=0)
    require_champion: bool = False
    on_broken_champion: Literal["fail", "ignore"] = "fail"
    serving_timeout_seconds: float = pydantic.Field(default=300.0, gt=0.0)


def validate_model(
    *,
    model_path: str | os.PathLike[str],
    table_path: str | os.PathLike[str],
    evaluation_path: str | os.PathLike[str],
    verdict_path: str | os.PathLike[str],
    verdict_text_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    champion: str = "",
    gate: Mapping[str, Any] | None = None,
    tracking_uri: str = "",
) -> Verdict:
    """Judges a model, and writes the verdict and a page.

    Args:
        model_path: The challenger's folder.
        table_path: The table that it was evaluated on.
        evaluation_path: That evaluation.
        verdict_path: Where the verdict (JSON) goes.
        verdict_text_path: Where the verdict (Markdown) goes.
        page_path: Where the HTML page goes.
        champion: The champion: "models:/name/3", a folder, or empty for none.
        gate: See `Gate`.
        tracking_uri: Of the registry; empty: the environment's MLFLOW_TRACKING_URI.

    Returns:
        The verdict.

    Raises:
        InputError: For a wrong gate, or a champion that is neither a model's version nor a folder.
        ContractError: Where the model, the table and the evaluation do not belong together.
        ServiceError: Where the registry does not answer.
    """
    wanted = parse_params(Gate, gate, parameter="gate")
    table = Table(table_path)
    info = read_model_info(model_path)
    evaluation = read_evaluation(evaluation_path)
    _check_belongs(evaluation, info, table)
    metric = wanted.metric or PRIMARY[evaluation.kind]
    require_metric(metric, evaluation.kind, parameter="gate.metric", ranked=True)
    for name in wanted.thresholds:
        require_metric(name, evaluation.kind, parameter="gate.thresholds")
    asked = [slicing["name"] for slicing in evaluation.slices] if wanted.slices is None else list(wanted.slices)
    slices = parse_slices(asked, table, parameter="gate.slices")
    comparison = None
    with ServingCheck(model_path, info, timeout_seconds=wanted.serving_timeout_seconds) as serving:
        checks = [*_own_checks(evaluation, wanted, metric)]
        model = _load_quietly(model_path)
        with _open_champion(champion, tracking_uri) as opened:
            answer = _judge_champion(opened, info, table, wanted)
            checks.append(answer.check)
            if answer.model is not None:
                compared = _compare(model, answer, table, evaluation, wanted, metric, slices)
                checks += compared.checks
                comparison = compared.comparison
        logger.info("waiting for the model's answer from a clean process")
        checks += serving.checks(model)
    against = f", against {champion}" if comparison is not None else ""
    verdict = Verdict(
        gate="validate_model",
        subject=f"{info.framework} model for {info.label} on {evaluation.counts['rows_evaluated']:,} rows{against}",
        checks=tuple(checks),
    )
    write_page(verdict, evaluation, metric, comparison, page_path)
    verdict.write(verdict_path, verdict_text_path)
    failed = ", ".join(check.name for check in verdict.failures)
    logger.info("the model %s", "passed" if verdict.passed else f"did not pass: {failed}")
    return verdict


@dataclasses.dataclass(frozen=True)
class _Champion:
    """What became of the champion: a model to compare with, or why there is none."""

    name: str
    model: LoadedModel | None
    check: Check
    predictions: Predictions | None = None


@dataclasses.dataclass(frozen=True)
class _Compared:
    checks: list[Check]
    comparison: Comparison | None


def _check_belongs(evaluation: Evaluation, info: ModelInfo, table: Table) -> None:
    for what, own, evaluated in (
        ("model", info.fingerprint, evaluation.model["fingerprint"]),
        ("table", table.info.fingerprint, evaluation.table["fingerprint"]),
    ):
        if own != evaluated:
            raise ContractError(
                f"the evaluation is of another {what}",
                allowed=f"the {what} that was evaluated (fingerprint {evaluated})",
                received=own,
                hint="give validate_model the same model and table as evaluate_model",
            )


def _own_checks(evaluation: Evaluation, gate: Gate, metric: str) -> Iterator[Check]:
    """What the challenger has to hold by itself."""
    counts = evaluation.counts
    invalid = counts["rows_without_prediction"]
    labelled = counts["rows"] - counts["rows_without_label"]
    yield Check(
        "finite_predictions",
        invalid == 0,
        value=invalid,
        threshold=0,
        reason=f"{invalid:,} of {labelled:,} rows have no usable answer (not a finite number, or no such class)"
        if invalid
        else f"a usable answer for all {labelled:,} rows",
    )
    for name, bounds in gate.thresholds.items():
        yield _threshold_check(name, evaluation.metrics[name], bounds)
    value, baseline = evaluation.metrics[metric], evaluation.baseline[metric]
    if value is None or baseline is None:
        yield Check("better_than_baseline", False, reason=f"{_title(metric)} is not defined on these rows")
        return
    better = _gain(metric, value, baseline) > 0
    yield Check(
        "better_than_baseline",
        better,
        value=value,
        threshold=baseline,
        reason=f"{_title(metric)} is {'better' if better else 'not better'} than that of the baseline "
        f"({evaluation.baseline_name})",
    )


def _threshold_check(name: str, value: float | None, bounds: Bounds) -> Check:
    limits = bounds.model_dump(exclude_none=True)
    wanted = " and ".join(f"{'at least' if side == 'min' else 'at most'} {limit:g}" for side, limit in limits.items())
    if value is None:
        return Check(
            f"threshold:{name}", False, threshold=wanted, reason=f"{_title(name)} is not defined on these rows"
        )
    passed = (bounds.min is None or value >= bounds.min) and (bounds.max is None or value <= bounds.max)
    return Check(
        f"threshold:{name}",
        passed,
        value=value,
        threshold=wanted,
        reason=f"{_title(name)} {format_value(value)} is {'' if passed else 'not '}{wanted}",
    )


@contextlib.contextmanager
def _open_champion(champion: str, tracking_uri: str) -> Iterator[tuple[str, Path | None, str]]:
    """The champion's name, its folder for as long as the block lasts, and why there is none."""
    if not champion:
        yield champion, None, ""
    elif re.fullmatch(r"models:/([^/@]+)/(\d+)", champion):
        with contextlib.ExitStack() as stack:
            folder, problem = None, ""
            try:
                folder = stack.enter_context(open_model(champion, tracking_uri, parameter="champion"))
            except ContractError as error:
                problem = _text(error)
            yield champion, folder, problem
    elif ":/" not in champion and Path(champion).is_dir():
        yield champion, Path(champion), ""
    else:
        raise InputError(
            "a champion that cannot be found",
            parameter="champion",
            allowed='"models:/NAME/VERSION", a model\'s folder, or nothing',
            received=champion,
            hint="find_champion_mlflow turns an alias into a version" if "@" in champion else None,
        )


def _judge_champion(opened: tuple[str, Path | None, str], info: ModelInfo, table: Table, gate: Gate) -> _Champion:
    """Loads the champion and lets it predict, if there is one that can be compared."""
    name, folder, problem = opened
    if not name:
        reason = "there is no champion yet" + (", and the gate requires one" if gate.require_champion else "")
        return _Champion(name, None, Check("champion", not gate.require_champion, reason=reason))
    try:
        if problem or folder is None:
            raise ContractError(problem)
        _check_comparable(read_model_info(folder), info)
        model = LoadedModel(folder)
        check_table(model.info, table)
        logger.info("predicting with the champion %s", name)
        predictions = predict_table(model, table)
        if predictions.invalid_rows:
            raise ContractError(f"it gives no usable answer for {predictions.invalid_rows:,} rows")
    except (ContractError, DataError) as error:
        ignored = gate.on_broken_champion == "ignore"
        reason = f"{name} cannot be compared with: {_text(error)}"
        reason += "; ignored, as the gate says" if ignored else '; gate on_broken_champion: "ignore" goes on without it'
        return _Champion(name, None, Check("champion", ignored, reason=reason))
    return _Champion(name, model, Check("champion", True, value=name, reason="loads and predicts"), predictions)


def _check_comparable(champion: ModelInfo, challenger: ModelInfo) -> None:
    for what in ("task", "label", "classes"):
        theirs, ours = getattr(champion, what), getattr(challenger, what)
        if theirs != ours:
            raise ContractError(f"it is of another {what}", allowed=str(ours), received=str(theirs))


def _compare(
    model: LoadedModel | None,
    champion: _Champion,
    table: Table,
    evaluation: Evaluation,
    gate: Gate,
    metric: str,
    slices: tuple[str, ...],
) -> _Compared:
    """Holds the challenger against the champion on the same rows."""
    failed = Check(f"gain:{metric}", False, reason="the challenger cannot be compared: it does not answer for all rows")
    if model is None or champion.model is None or champion.predictions is None:
        return _Compared([failed], None)
    try:
        ours = predict_table(model, table, slices=slices)
    except ContractError as error:
        return _Compared([dataclasses.replace(failed, reason=f"the challenger fails: {_text(error)}")], None)
    if ours.invalid_rows:
        return _Compared([failed], None)
    theirs = champion.predictions
    threshold = 0.5 if evaluation.threshold is None else evaluation.threshold
    logger.info("comparing on %s rows, %s replicates", f"{len(ours.labels):,}", f"{gate.bootstrap_samples:,}")
    champion_evaluation = evaluate(theirs, champion.model.info, table, threshold=threshold)
    whole = _measure(
        ours, theirs, evaluation.metrics, champion_evaluation.metrics, gate, metric, threshold, (gate.seed,), _MOST_ROWS
    )
    found = list(_compare_slices(ours, theirs, gate, metric, threshold))
    comparison = Comparison(
        champion=champion.name,
        metric=metric,
        relative=_is_relative(gate, metric),
        confidence=gate.confidence,
        samples=gate.bootstrap_samples,
        min_gain=gate.min_gain,
        max_loss=gate.max_loss,
        slice_margin=gate.slice_margin,
        evaluation=champion_evaluation,
        gain=whole,
        slices=tuple(found),
    )
    return _Compared([*_gain_checks(whole, gate, metric), *_slice_checks(found, gate, metric)], comparison)


def _measure(
    ours: Predictions,
    theirs: Predictions,
    our_values: Values,
    their_values: Values,
    gate: Gate,
    metric: str,
    threshold: float,
    seed: tuple[int, ...],
    most_rows: int,
) -> Interval | None:
    """The gain with its interval; None where it is not defined."""
    challenger, champion = our_values[metric], their_values[metric]
    if challenger is None or champion is None:
        return None
    scale = 1.0 if METRICS[metric].better == "higher" else -1.0
    if _is_relative(gate, metric) and champion:
        scale /= abs(champion)
    return gain_interval(
        metric,
        ours,
        theirs,
        estimate=scale * (challenger - champion),
        scale=scale,
        threshold=threshold,
        samples=gate.bootstrap_samples,
        confidence=gate.confidence,
        seed=seed,
        most_rows=most_rows,
    )


def _compare_slices(
    ours: Predictions, theirs: Predictions, gate: Gate, metric: str, threshold: float
) -> Iterator[SliceComparison]:
    for number, slicing in enumerate(ours.slicings):
        order = np.argsort(slicing.codes, kind="stable")
        sizes = np.bincount(slicing.codes, minlength=len(slicing.values))
        groups: list[npt.NDArray[np.int64]] = np.split(order, np.cumsum(sizes)[:-1])
        for code, (value, rows) in enumerate(zip(slicing.values, groups, strict=True)):
            first = dataclasses.replace(ours, slicings=()).take(rows)
            second = theirs.take(rows)
            our_values, their_values = (metrics_of(part, threshold=threshold) for part in (first, second))
            gain = None
            if len(rows) >= gate.min_slice_rows:
                seed = (gate.seed, number + 1, code)
                gain = _measure(
                    first, second, our_values, their_values, gate, metric, threshold, seed, _MOST_SLICE_ROWS
                )
            yield SliceComparison(slicing.name, value, len(rows), our_values[metric], their_values[metric], gain)


def _gain_checks(gain: Interval | None, gate: Gate, metric: str) -> list[Check]:
    if gain is None:
        return [Check(f"gain:{metric}", False, reason=f"{_title(metric)} is not defined on these rows")]
    held = gain.estimate if gate.gain_bound == "estimate" else gain.low
    show = _shower(gate, metric)
    which = "" if gate.gain_bound == "estimate" else "lower end of the "
    enough, kept = held >= gate.min_gain, gain.low >= -gate.max_loss
    interval = f"{gate.confidence:.0%} interval {show(gain.low)} to {show(gain.high)}"
    return [
        Check(
            f"gain:{metric}",
            enough,
            value=held,
            threshold=gate.min_gain,
            reason=f"{which}gain of {_title(metric)} over the champion is {show(held)}, "
            f"{'at least' if enough else 'less than'} {show(gate.min_gain)} ({interval})",
        ),
        Check(
            f"loss:{metric}",
            kept,
            value=gain.low,
            threshold=-gate.max_loss,
            reason=f"the interval of the gain begins at {show(gain.low)}, {'not below' if kept else 'below'} "
            f"{show(-gate.max_loss)} ({interval})",
        ),
    ]


def _slice_checks(slices: list[SliceComparison], gate: Gate, metric: str) -> Iterator[Check]:
    if not slices:
        return
    show = _shower(gate, metric)
    small = sum(1 for part in slices if part.rows < gate.min_slice_rows)
    undefined = sum(1 for part in slices if part.rows >= gate.min_slice_rows and part.gain is None)
    yield Check(
        "slices",
        True,
        value=len(slices) - small - undefined,
        reason=f"{len(slices) - small - undefined} of {len(slices)} slices compared; {small} with fewer than "
        f"{gate.min_slice_rows:,} rows, {undefined} where {_title(metric)} is not defined",
    )
    for part in slices:
        if part.gain is None:
            continue
        held = {"estimate": part.gain.estimate, "lower": part.gain.low, "upper": part.gain.high}[gate.slice_bound]
        passed = held >= -gate.slice_margin
        yield Check(
            f"slice:{part.slicing}={part.value}",
            passed,
            value=held,
            threshold=-gate.slice_margin,
            reason=f"{_title(metric)} {format_value(part.challenger)} against {format_value(part.champion)} on "
            f"{part.rows:,} rows: gain {show(part.gain.estimate)} ({show(part.gain.low)} to {show(part.gain.high)})"
            + ("" if passed else f", more than {show(gate.slice_margin)} worse"),
        )


def _load_quietly(path: str | os.PathLike[str]) -> LoadedModel | None:
    """The challenger in this process; None where it does not load, which the serving check then says."""
    try:
        return LoadedModel(path)
    except ContractError as error:
        logger.warning("the model does not load in this process: %s", error)
        return None


def _gain(metric: str, value: float, other: float) -> float:
    return value - other if METRICS[metric].better == "higher" else other - value


def _is_relative(gate: Gate, metric: str) -> bool:
    return METRICS[metric].relative if gate.relative is None else gate.relative


def _shower(gate: Gate, metric: str) -> Any:
    """How a gain is written: as a share of the champion's value, or in the metric's unit."""
    return (lambda value: f"{value:.2%}") if _is_relative(gate, metric) else (lambda value: f"{value:.4g}")


def _title(metric: str) -> str:
    return METRICS[metric].title


def _text(error: PipepartsError) -> str:
    """An error in one line."""
    facts = "; ".join(f"{name}: {text}" for name, text in error.facts.items() if name in ("allowed", "received"))
    return error.headline + (f" ({facts})" if facts else "")
