"""Predictions and their labels as one: what was predicted beside what happened, with windows of time and slices."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.errors import ContractError, DataError, InputError, suggest
from pipeparts.runtime.evaluation import Predictions, kind_of, label_codes, recorded_answers, score_columns
from pipeparts.runtime.label_join import Match, match_rows
from pipeparts.runtime.models import ModelInfo
from pipeparts.runtime.predictions import MODEL_VERSION
from pipeparts.runtime.slices import MISSING, Slicer, Slicing, columns_of
from pipeparts.runtime.tables import Table, type_name

logger = logging.getLogger(__name__)

Window = Literal["day", "week", "month"]
WINDOWS: tuple[Window, ...] = ("day", "week", "month")

#: The slice that stands for the windows of time.
WINDOW = "window"
#: More windows than this make no page, and no metric.
MOST_WINDOWS = 1_000

_NO_TIME = np.iinfo(np.int32).min
# 1970-01-01 was a Thursday: weeks begin three days before it.
_MONDAY = 3


@dataclasses.dataclass(frozen=True)
class Joined:
    """The rows whose label has arrived.

    Attributes:
        predictions: Them, with the windows (a slicing called "window", where there is a time) before the slices; None
            where no label has arrived.
        rows: Predicted rows of the model.
        rows_other_model: Rows that other models predicted; they are left out of everything else.
        rows_unmatched: Predicted rows that the labels do not have.
        labels_unmatched: Rows of the labels that were not predicted.
    """

    predictions: Predictions | None
    rows: int
    rows_other_model: int
    rows_unmatched: int
    labels_unmatched: int


class Columns:
    """The columns of both tables; one that both have is taken from the labels, which know better what happened.

    Args:
        predictions: The table of predictions.
        labels: The table of labels.
    """

    def __init__(self, predictions: Table, labels: Table) -> None:
        self._tables = (labels, predictions)
        fields = {field.name: field for table in (predictions, labels) for field in table.schema}
        self.schema = pa.schema(list(fields.values()))

    def require(self, columns: Sequence[str], *, parameter: str) -> None:
        """Checks that columns are in one of the tables.

        Raises:
            InputError: For the first that is in neither, with the close match.
        """
        for name in columns:
            if name not in self.schema.names:
                raise InputError(
                    "neither the predictions nor the labels have such a column",
                    parameter=parameter,
                    where=" and ".join(str(table.path) for table in self._tables),
                    allowed=self.schema.names,
                    received=name,
                    hint=suggest(name, self.schema.names),
                )

    def of_labels(self, names: Sequence[str]) -> list[str]:
        """Those of some columns that are taken from the labels."""
        return [name for name in names if name in self._tables[0].schema.names]

    def of_predictions(self, names: Sequence[str]) -> list[str]:
        """Those of some columns that are taken from the predictions."""
        return [name for name in names if name not in self._tables[0].schema.names]


def join(
    predictions: Table,
    labels: Table,
    info: ModelInfo,
    *,
    model: str,
    keys: Sequence[str],
    slices: Sequence[str],
    time_column: str,
    window: Window,
    known_slices: Mapping[str, Sequence[str]],
) -> Joined:
    """Brings predictions and labels together.

    Args:
        predictions: The table of predictions.
        labels: The table of labels; the predictions themselves where there are no keys.
        info: The model that made them.
        model: The model's name in `model_version`.
        keys: The columns that say which label is whose; empty: row by row.
        slices: Slices, checked by `parse_slices`.
        time_column: The column of the windows; empty: none.
        window: Their length.
        known_slices: Slice to its values at registration.

    Returns:
        The rows, in the order of the predictions.

    Raises:
        InputError: For a column that is not there, or a window that makes too many.
        ContractError: For a column of a wrong type.
        DataError: For a repeated key, or a label that the model does not know.
    """
    _check_columns(predictions, info)
    ours = _rows_of_model(predictions, info, model)
    match = match_rows(predictions, labels, keys) if keys else _row_by_row(predictions)
    rows = np.where(ours, match.rows, -1) if ours is not None else match.rows
    own = predictions.rows if ours is None else int(ours.sum())
    columns = Columns(predictions, labels)
    slicer = Slicer(slices, columns.schema, known=known_slices)
    read = _Reader(columns, info, slicer, time_column)
    read.labels(labels, rows)
    matched = int((rows >= 0).sum())
    place = read.place[rows]
    place[rows < 0] = -1
    labels_unmatched = labels.rows - int((match.rows >= 0).sum())
    del match, rows
    gathered = None
    if (place >= 0).any():
        read.predictions(predictions, place >= 0)
        gathered = read.finish(place[place >= 0], own, window)
    return Joined(
        predictions=gathered,
        rows=own,
        rows_other_model=predictions.rows - own,
        rows_unmatched=own - matched,
        labels_unmatched=labels_unmatched,
    )


def _check_columns(predictions: Table, info: ModelInfo) -> None:
    wanted = list(dict.fromkeys(("prediction", *score_columns(info))))
    missing = [name for name in wanted if name not in predictions.schema.names]
    if missing:
        raise ContractError(
            "not the predictions of this model",
            where=str(predictions.path),
            allowed=f"the columns {', '.join(wanted)}, as predict_table writes them",
            received=f"no {', '.join(missing)} among {', '.join(predictions.schema.names)}",
        )


def _rows_of_model(predictions: Table, info: ModelInfo, model: str) -> npt.NDArray[np.bool_] | None:
    """Which rows the model predicted; None where all of them are its.

    Raises:
        ContractError: Where none is.
    """
    if MODEL_VERSION not in predictions.schema.names or not predictions.rows:
        return None
    names = {model, info.fingerprint}
    parts = []
    others: set[str] = set()
    for batch in predictions.batches([MODEL_VERSION]):
        column = batch.column(0).cast(pa.string())
        parts.append(pc.fill_null(pc.is_in(column, value_set=pa.array(sorted(names))), False).to_numpy(False))
        others |= set(pc.unique(column).to_pylist()) - names
    ours = np.concatenate(parts)
    if ours.all():
        return None
    if ours.any():
        logger.warning("%s rows are of other models and left out", f"{int((~ours).sum()):,}")
        return ours
    if model == info.fingerprint and len(others) == 1:
        # A model that comes as an artifact does not say which registered version it is.
        logger.warning("the predictions are of %s; that it is the given model cannot be checked", others)
        return None
    raise ContractError(
        "the predictions are of another model",
        where=f"column {MODEL_VERSION} of {predictions.path}",
        allowed=" or ".join(sorted(names)),
        received=sorted(map(str, others))[:10],
    )


def _row_by_row(predictions: Table) -> Match:
    return Match(np.arange(predictions.rows, dtype=np.int32), 0, 0)


class _Reader:
    """Reads what the metrics need of each table, the rows that have both a prediction and a label alone.

    Attributes:
        place: For each row of the labels its place among those read, -1 where it was not.
    """

    def __init__(self, columns: Columns, info: ModelInfo, slicer: Slicer, time_column: str) -> None:
        self._columns = columns
        self._info = info
        self._slicer = slicer
        self._time_column = time_column
        self._labels: list[npt.NDArray[Any]] = []
        self._answers: list[tuple[npt.NDArray[Any], npt.NDArray[np.int16] | None]] = []
        self._days: list[npt.NDArray[np.int32]] = []
        self.place: npt.NDArray[np.int32] = np.zeros(0, np.int32)

    def labels(self, table: Table, wanted: npt.NDArray[np.int32]) -> None:
        """Reads the labels of the rows that are wanted, and that have one."""
        info, slices = self._info, self._columns.of_labels(self._slicer.columns)
        times = self._columns.of_labels([self._time_column])
        is_wanted = np.zeros(table.rows, dtype=bool)
        is_wanted[wanted[wanted >= 0]] = True
        self.place = np.full(max(table.rows, 1), -1, dtype=np.int32)
        seen = count = 0
        for batch in table.batches(list(dict.fromkeys([info.label, *slices, *times]))):
            here = is_wanted[seen : seen + batch.num_rows].copy()
            codes, known = label_codes(info, batch.column(info.label).filter(pa.array(here)))
            here[here] = known
            batch = batch.filter(pa.array(here))
            self.place[seen : seen + len(here)][here] = np.arange(count, count + batch.num_rows)
            seen, count = seen + len(here), count + batch.num_rows
            self._labels.append(codes[known])
            self._slicer.add(batch, slices)
            self._days += [_days(batch.column(name), name) for name in times]

    def predictions(self, table: Table, wanted: npt.NDArray[np.bool_]) -> None:
        """Reads the predictions of the rows that are wanted."""
        info, slices = self._info, self._columns.of_predictions(self._slicer.columns)
        times = self._columns.of_predictions([self._time_column] if self._time_column else [])
        needed = ["prediction", *score_columns(info)]
        seen = 0
        for batch in table.batches(list(dict.fromkeys([*needed, *slices, *times]))):
            batch, seen = batch.filter(pa.array(wanted[seen : seen + batch.num_rows])), seen + batch.num_rows
            self._answers.append(recorded_answers(info, batch))
            self._slicer.add(batch, slices)
            self._days += [_days(batch.column(name), name) for name in times]

    def finish(self, order: npt.NDArray[np.int32], rows: int, window: Window) -> Predictions:
        """What was read as one.

        Args:
            order: For each row of the predictions that was read its place among the labels that were.
            rows: Predicted rows of the model.
            window: The windows' length.
        """
        self.place = np.zeros(0, np.int32)
        of_labels = self._columns.of_labels([*self._slicer.columns, self._time_column])
        slicings = self._slicer.finish(dict.fromkeys(self._columns.of_labels(self._slicer.columns), order))
        if self._time_column:
            days = np.concatenate(self._days)
            self._days = []
            slicings = (_windows(days[order] if self._time_column in of_labels else days, window), *slicings)
        predicted = [codes for _, codes in self._answers if codes is not None]
        return Predictions(
            kind=kind_of(self._info),
            labels=np.concatenate(self._labels)[order],
            scores=np.concatenate([scores for scores, _ in self._answers]),
            predicted=np.concatenate(predicted) if predicted else None,
            slicings=slicings,
            rows=rows,
        )


def check_time_column(columns: Columns, name: str) -> None:
    """Checks that a column holds dates or times.

    Raises:
        InputError: Where there is no such column.
        ContractError: Where it holds something else.
    """
    columns.require([name], parameter="time_column")
    kind = columns.schema.field(name).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise ContractError(
            "the time is of a wrong type",
            where=f"column {name}",
            allowed="timestamp, timestamp_utc or date",
            received=type_name(kind),
            hint="ingest_files takes the type of a column: columns: {" + name + ": timestamp_utc}",
        )


def columns_needed(slices: Sequence[str]) -> list[str]:
    """The columns of slices, each once."""
    return list(dict.fromkeys(column for name in slices for column in columns_of(name)))


def _days(times: pa.Array, name: str) -> npt.NDArray[np.int32]:
    """The day of each time, in UTC, as days since 1970-01-01."""
    kind = times.type
    if pa.types.is_date(kind):
        days = times.cast(pa.date32()).cast(pa.int32())
        return np.asarray(days.fill_null(_NO_TIME).to_numpy(zero_copy_only=False))
    ticks = times.cast(pa.int64())
    a_day = 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
    whole = np.floor_divide(ticks.fill_null(0).to_numpy(zero_copy_only=False), a_day)
    if len(whole) and np.abs(whole).max() > np.iinfo(np.int32).max // 2:
        raise DataError("a time out of range", where=f"column {name}", allowed="a year below 10000", received="more")
    missing = pc.is_null(times).to_numpy(zero_copy_only=False)
    return np.where(missing, _NO_TIME, whole).astype(np.int32)


def _windows(days: npt.NDArray[np.int32], window: Window) -> Slicing:
    """The windows as a slicing: each by the date that it begins with, the earliest first, (missing) last."""
    missing = days == _NO_TIME
    dates = np.where(missing, 0, days)
    if window == "week":
        dates = (dates + _MONDAY) // 7 * 7 - _MONDAY
    elif window == "month":
        dates = dates.astype("datetime64[D]").astype("datetime64[M]").astype("datetime64[D]").astype(np.int32)
    starts = np.unique(dates[~missing])
    if len(starts) > MOST_WINDOWS:
        first, last = (np.datetime64(int(day), "D") for day in (starts[0], starts[-1]))
        raise InputError(
            "too many windows of time",
            parameter="window",
            allowed=f"at most {MOST_WINDOWS:,} windows",
            received=f"{len(starts):,} of a {window} each, from {first} to {last}",
            hint="a longer window, or fewer rows",
        )
    codes = np.where(missing, len(starts), np.searchsorted(starts, dates)).astype(np.int16)
    names = [str(np.datetime64(int(day), "D")) for day in starts]
    return Slicing(WINDOW, (*names, *([MISSING] if missing.any() else [])), codes)
