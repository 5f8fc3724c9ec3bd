"""What the monitoring steps hand on: drift, performance and decision, each one JSON file with a contract."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic

from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.files import read_json, write_json
from pipeparts.runtime.params import Params
from pipeparts.runtime.profiles import TopValue
from pipeparts.runtime.state import document_name

ColumnRole = Literal["feature", "prediction", "other"]
ColumnKind = Literal["number", "category", "vector", "unsupported"]
ModelKind = Literal["binary", "multiclass", "regression"]


class Data(Params):
    """Which rows were looked at.

    Attributes:
        rows: How many.
        fingerprint: Of their content, as the table or the profile says.
        source: Where they came from.
    """

    rows: int
    fingerprint: str
    source: str


class Finding(Params):
    """One thing that was held against a limit.

    Attributes:
        name: What, as one term: "drift", "roc_auc", "model_age_days".
        exceeded: Whether the limit was passed.
        value: What was measured, None where nothing could be.
        limit: What it was held against, None where there is none.
        reason: One sentence a person understands without the source.
    """

    name: str
    exceeded: bool
    value: float | int | str | None = None
    limit: float | int | str | None = None
    reason: str = ""


class ColumnDrift(Params):
    """How one column differs from the reference.

    Attributes:
        name: The column.
        role: Whether the model takes it, gives it, or neither.
        kind: How it was compared; "unsupported" columns are listed and not compared.
        drifted: Whether a limit was passed, and the difference is more than chance.
        score: How far it went: the greatest statistic as a multiple of its limit; columns are ranked by it.
        statistics: What was measured, by name: numbers have psi, jensen_shannon, kolmogorov_smirnov, wasserstein,
            outside_share (of the values, beyond the reference's range); categories psi, jensen_shannon, chi_square;
            vectors distance, auc; all have missing_change. Tests have p_value, outside_p_value and missing_p_value,
            and each of these with _corrected. None, or not there, where it is not defined on these rows.
        limits: Statistic to the limit that it was held against.
        exceeded: The statistics that passed their limits.
        reference_missing_share: Of the reference's rows.
        current_missing_share: Of the current rows.
        new_categories: Values that the reference surely does not have, the most frequent first, with their counts.
        vanished_categories: Values of the reference that do not occur any more, with their counts there.
        reason: One sentence that says why it drifted, or that it did not.
    """

    name: str
    role: ColumnRole
    kind: ColumnKind
    drifted: bool
    score: float
    statistics: dict[str, float | None]
    limits: dict[str, float]
    exceeded: tuple[str, ...] = ()
    reference_missing_share: float = 0.0
    current_missing_share: float = 0.0
    new_categories: tuple[TopValue, ...] = ()
    vanished_categories: tuple[TopValue, ...] = ()
    reason: str = ""


class Drift(Params):
    """How a table differs from a reference: decided on all rows.

    Attributes:
        format: The contract's name and version.
        model: The model whose reference it is, as `models:/name/3` or a fingerprint; "" for a table.
        reference: The reference's rows.
        current: The current rows.
        drifted: Whether the table as a whole drifted.
        reason: Why, or why not, in one sentence.
        findings: What the whole was held against: share_drifted, prediction_drift.
        share_drifted: The share of the compared features that drifted.
        columns: Each column, the one that went furthest first.
        sample_rows: Most rows of a side in the report that people read.
    """

    format: Literal["pipeparts.drift/1"] = "pipeparts.drift/1"
    model: str
    reference: Data
    current: Data
    drifted: bool
    reason: str
    findings: tuple[Finding, ...]
    share_drifted: float
    columns: tuple[ColumnDrift, ...]
    sample_rows: int = 0

    @property
    def drifted_columns(self) -> tuple[ColumnDrift, ...]:
        """The columns that drifted, the one that went furthest first."""
        return tuple(column for column in self.columns if column.drifted)

    def column(self, name: str) -> ColumnDrift | None:
        """A column's drift, or None where it was not compared."""
        return next((column for column in self.columns if column.name == name), None)


class MeasuredSlice(Params):
    """The metrics of a part of the rows.

    Attributes:
        name: The slice's column or columns ("origin", "origin+carrier"), or "window" for a window of time.
        value: The value, or the date that the window begins with (ISO 8601; "(missing)" for rows without a time).
        rows: Rows with a label.
        metrics: Metric to value; None where it is not defined on these rows.
        registered: The same at registration; empty where it is not known.
        registered_rows: Rows that they were measured on.
        interval: Of the metric that the model is judged by, on these rows; None where it has none.
        loss: What that metric lost since registration, more is worse; None where it was not held against a limit.
        exceeded: Whether the loss is beyond its limit, and no chance.
    """

    name: str
    value: str
    rows: int
    metrics: dict[str, float | None]
    registered: dict[str, float | None] = {}
    registered_rows: int = 0
    interval: tuple[float, float] | None = None
    loss: float | None = None
    exceeded: bool = False


class Performance(Params):
    """How good a model is on rows whose labels have arrived, against what it was at registration.

    Attributes:
        format: The contract's name and version.
        model: The model, as `models:/name/3` or a fingerprint.
        kind: Which metrics it has.
        label: The label's column.
        metric: The metric that the model is judged by.
        batch: The rows that were predicted.
        rows: Rows that the model predicted.
        rows_labelled: Predicted rows whose label has arrived.
        rows_unmatched: Predicted rows that the table of labels does not have.
        labels_unmatched: Rows of the table of labels that were not predicted.
        rows_other_model: Rows of the table of predictions that other models made; nothing else counts them.
        rows_without_prediction: Labelled rows without a usable prediction; the metrics leave them out.
        interval: Of the metric that the model is judged by; None where it has none.
        metrics: Metric to value, over all labelled rows; besides those of an evaluation the mean of what was predicted:
            mean_probability, mean_confidence, or mean_prediction with mean_label.
        registered: The same at registration; empty where it is not known.
        registered_rows: Rows that they were measured on.
        windows: The same by window of time, the earliest first.
        slices: The same by slice.
        degraded: Whether a limit was passed.
        reason: Why, or why not, in one sentence.
        findings: Each limit.
    """

    format: Literal["pipeparts.performance/1"] = "pipeparts.performance/1"
    model: str
    kind: ModelKind
    label: str
    metric: str
    batch: Data
    rows: int
    rows_labelled: int
    rows_unmatched: int = 0
    labels_unmatched: int = 0
    rows_other_model: int = 0
    rows_without_prediction: int = 0
    interval: tuple[float, float] | None = None
    metrics: dict[str, float | None]
    registered: dict[str, float | None] = {}
    registered_rows: int = 0
    windows: tuple[MeasuredSlice, ...] = ()
    slices: tuple[MeasuredSlice, ...] = ()
    degraded: bool
    reason: str
    findings: tuple[Finding, ...]


class Decision(Params):
    """Whether to train again, and why.

    Attributes:
        format: The contract's name and version.
        id: The same for the same model, batch and policy, whenever and how often it is decided.
        retrain: The decision.
        as_of: The moment that it was decided for (ISO 8601, UTC).
        model: The model that was looked at.
        batch: The fingerprint of the rows that were looked at.
        reasons: What speaks for it, then what held it back, a sentence each.
        triggers: What can call for a training: drift, performance, model_age_days.
        guards: What can hold it back: rows, labelled_rows, require, patience, cool_down_days.
    """

    format: Literal["pipeparts.decision/1"] = "pipeparts.decision/1"
    id: str
    retrain: bool
    as_of: str
    model: str
    batch: str
    reasons: tuple[str, ...]
    triggers: tuple[Finding, ...]
    guards: tuple[Finding, ...]


R = TypeVar("R", Drift, Performance, Decision)
_WHAT: dict[type[Any], str] = {Drift: "a drift report", Performance: "a performance report", Decision: "a decision"}


def write_report(path: str | os.PathLike[str], report: Drift | Performance | Decision) -> None:
    """Writes a report of the contract, whole or not at all."""
    write_json(path, report.model_dump(mode="json"))


def read_report(kind: type[R], path: str | os.PathLike[str]) -> R:
    """Reads a report and holds it to its contract.

    Args:
        kind: `Drift`, `Performance` or `Decision`.
        path: The file.

    Raises:
        ContractError: Where the file is missing, or is something else.
    """
    document = read_json(path, what=_WHAT[kind])
    wanted = kind.model_fields["format"].default
    if not isinstance(document, dict) or document.get("format") != wanted:
        received = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise ContractError(f"not {_WHAT[kind]}", where=str(path), allowed=f"format {wanted!r}", received=received)
    try:
        return kind.model_validate(document)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ContractError(
            f"damaged: {_WHAT[kind]}", where=f"{Path(path)}, {place}", allowed=first["msg"], received=first.get("input")
        ) from error


def registered_name(model: str) -> str:
    """The registered model's name in `models:/name/3` or `models:/name@alias`; "" for anything else."""
    match = re.fullmatch(r"models:/([^/@]+)[/@].+", model)
    return match[1] if match else ""


def history_name(model: str, reference: str = "") -> str:
    """The name under which `State` keeps together what concerns a model: one for all versions of a registered model.

    Args:
        model: `models:/name/3`, a fingerprint, or "" where a table was the reference.
        reference: That table's fingerprint.
    """
    return document_name(registered_name(model) or model or f"table-{reference[:16]}")


def parse_moment(text: str, *, parameter: str = "as_of") -> dt.datetime:
    """A moment from ISO 8601, to the second; without a zone it is in UTC; empty: now.

    Raises:
        InputError: For a text that is no moment.
    """
    if not text.strip():
        return dt.datetime.now(dt.UTC).replace(microsecond=0)
    try:
        moment = dt.datetime.fromisoformat(text.strip()).replace(microsecond=0)
        return moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        raise InputError(
            "not a moment",
            parameter=parameter,
            allowed="ISO 8601, as 2026-11-01 or 2026-11-01T06:00:00Z",
            received=text,
        ) from None


def moment_text(moment: dt.datetime) -> str:
    """A moment as these reports write it: ISO 8601 in UTC, to the second."""
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
