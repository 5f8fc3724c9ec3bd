"""The work of `predict_table`."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.evaluation import check_table
from pipeparts.runtime.models import LoadedModel, ModelInfo
from pipeparts.runtime.predictions import MODEL_VERSION, answer, prediction_arrays, prediction_schema
from pipeparts.runtime.registered_models import open_model, resolve_version
from pipeparts.runtime.tables import Table, TableInfo, TableWriter

logger = logging.getLogger(__name__)

_MOST_BATCH_ROWS = 1_048_576
_PROGRESS_ROWS = 1_000_000


def predict_table(
    *,
    table_path: str | os.PathLike[str],
    predictions_path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    model_uri: str = "",
    tracking_uri: str = "",
    batch_rows: int = 65_536,
    model_path: str | os.PathLike[str] | None = None,
) -> TableInfo:
    """Predicts every row of a table.

    Args:
        table_path: The table.
        predictions_path: The table of predictions to make.
        columns: The columns to keep.
        model_uri: `models:/name@alias` or `models:/name/3`; either this or `model_path`.
        tracking_uri: The registry; empty: the environment's MLFLOW_TRACKING_URI.
        batch_rows: Rows predicted at a time.
        model_path: The model's folder; either this or `model_uri`.

    Returns:
        The description of the predictions; `extra` has model_version, model_fingerprint, framework and
        rows_without_prediction.

    Raises:
        InputError: For none or both of the models, too many or no rows a batch, or columns that the table lacks or
            that the predictions take.
        ContractError: Where the registry lacks the model or its files, or the table is not what the model takes.
        ServiceError: Where the registry does not answer, or refuses.
    """
    table = Table(table_path)
    kept = _kept_columns(table, columns)
    _check_batch_rows(batch_rows)
    with _open(model_uri, tracking_uri, model_path) as (version, folder):
        model = LoadedModel(folder)
        version = version or model.info.fingerprint
        check_table(model.info, table, label=False)
        schema = _schema(table, kept, model.info)
        logger.info("predicting %s rows with %s (%s)", f"{table.rows:,}", version, model.info.framework)
        with TableWriter(predictions_path, schema, source=table.info.source) as writer:
            without = _predict(model, version, table, kept, writer, batch_rows)
            writer.extra = {
                "model_version": version,
                "model_fingerprint": model.info.fingerprint,
                "framework": model.info.framework,
                "rows_without_prediction": without,
            }
    return writer.info


def _kept_columns(table: Table, columns: Sequence[str] | None) -> list[str]:
    kept = list(columns or [])
    for name in kept:
        if not isinstance(name, str):
            raise InputError(
                "not the name of a column",
                parameter="columns",
                allowed="names",
                received=f"{type(name).__name__}: {name}",
            )
    table.require(kept, parameter="columns")
    twice = sorted({name for name in kept if kept.count(name) > 1})
    if twice:
        raise InputError("a column that is kept twice", parameter="columns", allowed="each column once", received=twice)
    return kept


def _check_batch_rows(batch_rows: int) -> None:
    if not 1 <= batch_rows <= _MOST_BATCH_ROWS:
        raise InputError(
            "not a number of rows to predict at a time",
            parameter="batch_rows",
            allowed=f"1 to {_MOST_BATCH_ROWS:,}",
            received=batch_rows,
        )


@contextlib.contextmanager
def _open(model_uri: str, tracking_uri: str, model_path: str | os.PathLike[str] | None) -> Iterator[tuple[str, Path]]:
    """The model's version in the registry, "" for an artifact, and its folder for as long as the block lasts."""
    if bool(model_uri) == (model_path is not None):
        raise InputError(
            "two models to predict with" if model_uri else "no model to predict with",
            parameter="model_uri, model",
            allowed="exactly one of the two: a registered model's URI, or a model as an artifact",
            received=f"{model_uri} and an artifact" if model_uri else "neither",
            hint=None
            if model_uri
            else "where find_champion_mlflow found no champion, train and register a model first",
        )
    if model_path is not None:
        yield "", Path(model_path)
        return
    version = resolve_version(model_uri, tracking_uri)
    if version != model_uri:
        logger.info("%s is %s now", model_uri, version)
    with open_model(version, tracking_uri) as folder:
        yield version, folder


def _schema(table: Table, kept: Sequence[str], info: ModelInfo) -> pa.Schema:
    made = [*prediction_schema(info), pa.field(MODEL_VERSION, pa.string())]
    taken = sorted({field.name for field in made} & set(kept))
    if taken:
        raise InputError(
            "a column to keep has the name of a prediction column",
            parameter="columns",
            allowed=f"other names than {', '.join(field.name for field in made)}",
            received=taken,
            hint="rename it in the step that makes the table",
        )
    return pa.schema([*(table.schema.field(name) for name in kept), *made])


def _predict(
    model: LoadedModel, version: str, table: Table, kept: Sequence[str], writer: TableWriter, batch_rows: int
) -> int:
    """Predicts and writes batch by batch; gives the number of rows without a usable answer."""
    raw = list(model.info.columns)
    begun, seen, without = time.monotonic(), 0, 0
    written: Future[None] | None = None
    # One batch is fingerprinted and written while the next is read and predicted.
    with ThreadPoolExecutor(1, thread_name_prefix="write") as thread:
        for batch in table.batches(list(dict.fromkeys([*raw, *kept])), batch_rows=batch_rows):
            given = answer(model, batch.select(raw), start=seen)
            without += batch.num_rows - int(given.usable.sum())
            columns = [
                *(batch.column(name) for name in kept),
                *prediction_arrays(given, model.info),
                pa.repeat(version, batch.num_rows),
            ]
            if written is not None:
                written.result()
            written = thread.submit(writer.write, pa.record_batch(columns, schema=writer.schema))
            start, seen = seen, seen + batch.num_rows
            if seen // _PROGRESS_ROWS > start // _PROGRESS_ROWS:
                logger.info("predicted %s of %s rows", f"{seen:,}", f"{table.rows:,}")
        if written is not None:
            written.result()
    logger.info("predicted %s rows in %.1f s", f"{seen:,}", time.monotonic() - begun)
    if without:
        logger.warning("the model has no usable answer for %s of %s rows", f"{without:,}", f"{seen:,}")
    return without
