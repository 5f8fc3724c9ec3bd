"""The work of `report_drift`."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.components.monitoring.report_drift.evidently_report import write_evidently
from pipeparts.components.monitoring.report_drift.references import Reference, find_reference, read_names
from pipeparts.components.monitoring.report_drift.samples import sample_frames
from pipeparts.components.monitoring.report_drift.summary import summary_of
from pipeparts.runtime.drift import (
    BINS,
    TOP,
    DriftLimits,
    Measured,
    compared,
    conclude,
    judge,
    measure_vectors,
    parse_limits,
    require_columns,
)
from pipeparts.runtime.drift_vectors import compare_vectors, is_vector
from pipeparts.runtime.errors import ContractError, DataError, InputError, suggest
from pipeparts.runtime.files import write_json, write_text
from pipeparts.runtime.monitoring import ColumnRole, Data, Drift, write_report
from pipeparts.runtime.predictions import MODEL_VERSION
from pipeparts.runtime.profiles import Profile
from pipeparts.runtime.profiling import batch_rows, kind_of, profile_of
from pipeparts.runtime.tables import Table, TableWriter

logger = logging.getLogger(__name__)

_MOST_SAMPLE_ROWS = 1_000_000
_PSI_OF_COLUMNS = 10
_PREDICTION = re.compile(r"prediction|probability(_.*)?")


def report_drift(
    *,
    current_path: str | os.PathLike[str],
    drift_path: str | os.PathLike[str],
    report_path: str | os.PathLike[str],
    evidently_path: str | os.PathLike[str],
    metrics_path: str | os.PathLike[str],
    summary_path: str | os.PathLike[str],
    model_uri: str = "",
    columns: Sequence[str] | None = None,
    limits: Mapping[str, Any] | None = None,
    sample_rows: int = 10_000,
    tracking_uri: str = "",
    predictions_path: str | os.PathLike[str] | None = None,
    model_path: str | os.PathLike[str] | None = None,
    reference_path: str | os.PathLike[str] | None = None,
) -> Drift:
    """Measures how a table has drifted, judges it, and writes the reports.

    In memory are some 300 MB for tables of 20 columns, whatever their rows: counts in bounded buckets, the samples,
    and Evidently's report on them.

    Args:
        current_path: The folder of the table to look at.
        drift_path: Where the drift report (JSON) goes.
        report_path: Where Evidently's report (HTML) goes.
        evidently_path: The folder for Evidently's snapshot and its plain results (JSON).
        metrics_path: Where the metrics (JSON) go: KFP's local cache wants every output as a file.
        summary_path: Where the summary (Markdown) goes.
        model_uri: A registered model, whose training data is the reference.
        columns: The columns to compare; None or empty: those that the model takes, or that both tables have.
        limits: See `DriftLimits`.
        sample_rows: Most rows of each side in Evidently's report.
        tracking_uri: Of the registry.
        predictions_path: The model's answers, to be compared as well.
        model_path: A model's folder, instead of `model_uri`.
        reference_path: A table's folder, instead of a model.

    Returns:
        The report.

    Raises:
        InputError: For a wrong limit, column or size of the sample, or a reference that is not given once.
        DataError: For an empty table, or one without any column that can be compared.
        ContractError: Where the table lacks a column of the reference, or has one of another kind.
        ServiceError: Where the registry does not answer.
    """
    wanted = parse_limits(limits)
    asked = read_names(columns)
    _check_sample_rows(sample_rows)
    current = _filled(Table(current_path), "the current table has no rows")
    predictions = _filled(Table(predictions_path), "the predictions have no rows") if predictions_path else None
    reference = find_reference(
        model_path=model_path,
        model_uri=model_uri,
        reference_path=reference_path,
        predictions=predictions,
        tracking_uri=tracking_uri,
    )
    if reference.data.rows == 0:
        raise DataError("the reference has no rows", where=reference.data.source or reference.model)
    with tempfile.TemporaryDirectory(prefix="drift-") as scratch:
        answers = _Answers.of(reference, predictions, Path(scratch))
        found = _compare(reference, current, answers, asked, wanted)
        frames = sample_frames(reference, current, answers.table, found.columns, sample_rows)
    found = found.model_copy(update={"sample_rows": max(len(frame) for frame in frames)})
    write_evidently(*frames, found, html_path=report_path, snapshot_path=evidently_path, title=_title(found))
    write_text(summary_path, summary_of(found))
    write_json(metrics_path, scalars(found))
    write_report(drift_path, found)
    logger.info("%s: %s", "drifted" if found.drifted else "not drifted", found.reason)
    return found


def scalars(found: Drift) -> dict[str, float]:
    """What the consoles draw."""
    compared_columns = [column for column in found.columns if column.kind != "unsupported"]
    values: dict[str, float] = {
        "drifted": int(found.drifted),
        "share_drifted": found.share_drifted,
        "drifted_columns": len(found.drifted_columns),
        "compared_columns": len(compared_columns),
        "current_rows": found.current.rows,
    }
    prediction = next((finding.value for finding in found.findings if finding.name == "prediction_drift"), None)
    if isinstance(prediction, (int, float)):
        values["prediction_psi"] = prediction
    for column in compared_columns[:_PSI_OF_COLUMNS]:
        psi = column.statistics.get("psi")
        if psi is not None:
            values[f"psi_{column.name}"] = psi
    return values


def metadata(found: Drift) -> dict[str, Any]:
    """What goes onto the KFP artifact."""
    return {
        "drifted": found.drifted,
        "reason": found.reason,
        "model": found.model,
        "share_drifted": found.share_drifted,
        "drifted_columns": ", ".join(column.name for column in found.drifted_columns),
        "reference_rows": found.reference.rows,
        "current_rows": found.current.rows,
    }


@dataclasses.dataclass(frozen=True)
class _Answers:
    """The model's answers, on both sides.

    Attributes:
        names: The columns; none where they cannot be compared.
        table: The current ones, of this model alone.
        kinds: Of the reference's columns.
        why_not: Why there are none.
    """

    names: tuple[str, ...] = ()
    table: Table | None = None
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    why_not: str = ""

    @classmethod
    def of(cls, reference: Reference, predictions: Table | None, scratch: Path) -> _Answers:
        """Finds the columns that are the model's answers, and the rows that are this model's.

        Raises:
            ContractError: Where they are those of another model, or lack a column.
        """
        if predictions is None:
            return cls(why_not="no predictions were given")
        if reference.info is None:
            kinds = {name: kind for name, kind in reference.kinds.items() if _PREDICTION.fullmatch(name)}
            if not kinds:
                return cls(why_not="the reference table has no predictions")
        elif reference.predictions is None:
            return cls(why_not="the model has no profile of its predictions: it was trained before it kept one")
        else:
            known = {column.name: column.kind for column in reference.predictions.columns}
            kinds = {name: known[name] for name in reference.info.prediction_columns if name in known}
        require_columns(kinds, _kinds(predictions), where=str(predictions.path), whose="the model's prediction")
        return cls(tuple(kinds), _of_one_model(predictions, reference, tuple(kinds), scratch), kinds)


def _of_one_model(predictions: Table, reference: Reference, names: tuple[str, ...], scratch: Path) -> Table:
    """The predictions of the reference's model: the table itself, or a copy without those of others."""
    if MODEL_VERSION not in predictions.schema.names or reference.info is None:
        return predictions
    top = profile_of(predictions, columns=[MODEL_VERSION], top=TOP).columns[0].top
    versions = {str(item.value): item.count for item in top.values} if top else {}
    is_registered = reference.model.startswith("models:/")
    of_its_form = [name for name in versions if name.startswith("models:/") == is_registered]
    if reference.model in versions:
        mine = reference.model
    elif not of_its_form and versions:
        mine = max(versions, key=lambda name: versions[name])
    else:
        raise ContractError(
            "the predictions are not those of the reference's model",
            parameter="predictions",
            where=f"column {MODEL_VERSION} of {predictions.path}",
            allowed=reference.model,
            received=list(versions) or "no model in any row",
        )
    if versions[mine] == predictions.rows:
        return predictions
    logger.warning("%s of %s predictions are of %s", f"{versions[mine]:,}", f"{predictions.rows:,}", mine)
    schema = pa.schema([predictions.schema.field(name) for name in names])
    with TableWriter(scratch / "predictions", schema, source=predictions.info.source, fingerprint=False) as writer:
        for batch in predictions.batches([*names, MODEL_VERSION]):
            kept = batch.filter(pc.fill_null(pc.equal(batch.column(len(names)), mine), False))
            writer.write(pa.RecordBatch.from_arrays(kept.columns[:-1], schema=schema))
    return Table(scratch / "predictions")


def _compare(
    reference: Reference, current: Table, answers: _Answers, asked: tuple[str, ...], limits: DriftLimits
) -> Drift:
    roles = _choose(reference, current, asked)
    kinds = {name: kind for name, kind in reference.kinds.items() if name in roles}
    whose = "the model's" if reference.info is not None else "the reference's"
    require_columns(kinds, _kinds(current), where=str(current.path), whose=whose)
    _require_apart(roles, answers.names)
    vectors = [name for name in roles if is_vector(current.schema.field(name).type)]
    flat = {name: role for name, role in roles.items() if name not in vectors}
    logger.info("comparing %d columns of %s rows", len(roles), f"{current.rows:,}")
    profile = reference.profile if reference.table is None else _profile(reference.table, flat)
    assert profile is not None
    measured = list(compared(profile, _profile(current, flat), flat, by_name=asked))
    measured += [_measure_vectors(reference, current, name, roles[name]) for name in vectors]
    measured += _measure_answers(reference, answers)
    if not asked:
        measured += _on_one_side(reference, current, answers)
    info = current.info
    return conclude(
        judge(measured, limits),
        limits,
        model=reference.model,
        reference=reference.data,
        current=Data(rows=info.rows, fingerprint=info.fingerprint, source=info.source),
        without_predictions=answers.why_not,
    )


def _choose(reference: Reference, current: Table, asked: tuple[str, ...]) -> dict[str, ColumnRole]:
    """The columns to compare, and what they are to the model."""
    kinds = reference.kinds
    for name in asked:
        if name not in kinds:
            raise InputError(
                "the reference has no such column",
                parameter="columns",
                allowed=list(kinds),
                received=name,
                hint=suggest(name, kinds),
            )
    if reference.info is not None:
        takes = reference.info.columns
        return {name: "feature" if name in takes else "other" for name in asked or takes}
    both = [name for name in kinds if name in current.schema.names]
    if not asked and not both:
        raise ContractError(
            "the two tables have no column in common",
            where=str(current.path),
            allowed=list(kinds),
            received=current.schema.names,
        )
    # A table of predictions is known by the column that says who made them.
    are_answers = MODEL_VERSION in current.schema.names
    roles: dict[str, ColumnRole] = {}
    for name in asked or (name for name in both if name != MODEL_VERSION):
        roles[name] = "prediction" if are_answers and _PREDICTION.fullmatch(name) else "other"
    return roles


def _on_one_side(reference: Reference, current: Table, answers: _Answers) -> Iterator[Measured]:
    """The columns that one of two tables has alone: a column that is gone is not to go unsaid."""
    if reference.table is None:
        return
    sides = (
        (reference.kinds, current.schema.names, "the current table"),
        (current.schema.names, reference.kinds, "the reference"),
    )
    for there, other, whose in sides:
        for name in there:
            if name not in other and name != MODEL_VERSION and name not in answers.names:
                logger.warning("%s has no column %s", whose, name)
                yield Measured(name, "other", "unsupported", note=f"{whose} has no such column")


def _require_apart(roles: Mapping[str, ColumnRole], answers: Sequence[str]) -> None:
    twice = [name for name in answers if name in roles]
    if twice:
        raise InputError(
            "a column is compared twice, as itself and as a prediction",
            parameter="columns",
            allowed="columns that are not the model's predictions",
            received=twice,
        )


def _profile(table: Table, columns: Iterable[str]) -> Profile:
    return profile_of(table, columns=list(columns), bins=BINS, top=TOP, counts_only=True)


def _measure_answers(reference: Reference, answers: _Answers) -> Iterator[Measured]:
    if answers.table is None:
        return
    roles: dict[str, ColumnRole] = dict.fromkeys(answers.names, "prediction")
    profile = reference.predictions if reference.table is None else _profile(reference.table, roles)
    assert profile is not None
    yield from compared(profile, _profile(answers.table, roles), roles, by_name=answers.names)


def _measure_vectors(reference: Reference, current: Table, name: str, role: ColumnRole) -> Measured:
    rows = reference.table if reference.table is not None else reference.sample
    if rows is None or name not in rows.schema.names or not is_vector(rows.schema.field(name).type):
        return Measured(name, role, "unsupported", note="the reference holds no vectors of it")
    found = compare_vectors(lambda: _values(rows, name), lambda: _values(current, name), current_rows=current.rows)
    measured = measure_vectors(name, found, role)
    if found.current_gaps[0] < found.current_gaps[1]:
        return measured
    note = "none of the current vectors can be used: missing, of another length than the reference's, or not finite"
    return dataclasses.replace(measured, note=note)


def _values(rows: Table | pa.Table, name: str) -> Iterator[pa.Array]:
    if isinstance(rows, Table):
        for batch in rows.batches([name], batch_rows=batch_rows(rows)):
            yield batch.column(0)
    else:
        yield from rows[name].chunks


def _kinds(table: Table) -> dict[str, str]:
    return {field.name: kind_of(field.type) for field in table.schema}


def _filled(table: Table, headline: str) -> Table:
    if table.rows == 0:
        raise DataError(headline, where=str(table.path), allowed="one row at least", received="none")
    return table


def _check_sample_rows(rows: int) -> None:
    is_whole = not isinstance(rows, bool) and isinstance(rows, int)
    if not is_whole or not 1 <= rows <= _MOST_SAMPLE_ROWS:
        raise InputError(
            "`sample_rows` is out of its range",
            parameter="sample_rows",
            allowed=f"1 to {_MOST_SAMPLE_ROWS:,}",
            received=repr(rows),
        )


def _title(found: Drift) -> str:
    against = found.model or found.reference.source or "a reference table"
    return f"Drift of {found.current.source or 'a table'} against {against}"
