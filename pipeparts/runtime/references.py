"""Writing what a model carries for later: rows it was trained on, and what it says of rows it was not trained on."""

from __future__ import annotations

import importlib
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeparts.runtime.models import (
    PREDICTION_PROFILE_FILE,
    PREDICTION_SAMPLE_FILE,
    REFERENCE_ROWS,
    TRAINING_SAMPLE_FILE,
    LoadedModel,
    ModelInfo,
)
from pipeparts.runtime.predictions import answer, prediction_arrays, prediction_schema
from pipeparts.runtime.profiles import write_profile
from pipeparts.runtime.profiling import profile_of
from pipeparts.runtime.sampling import sample_table
from pipeparts.runtime.tables import Table, TableWriter

logger = logging.getLogger(__name__)


def write_reference(folder: Path, *, info: ModelInfo, loader: str, train_table: Table, validation_table: Table) -> None:
    """Writes a model's samples and the profile of its predictions, which a drift report later compares with.

    Args:
        folder: The model's folder, complete but for these.
        info: The model's card.
        loader: The module of `runtime.serving` that loads the model.
        train_table: Of it a sample: the model's raw columns and the label.
        validation_table: The model predicts all its rows, with and without a label; of these predictions a profile
            and a sample.
    """
    start = time.monotonic()
    columns = [*info.columns, info.label]
    pq.write_table(sample_table(train_table, REFERENCE_ROWS, columns), folder / TRAINING_SAMPLE_FILE)
    model = LoadedModel.of(info, importlib.import_module(f"pipeparts.runtime.serving.{loader}")._load_pyfunc(folder))
    with tempfile.TemporaryDirectory(prefix="pipeparts-reference-") as scratch:
        source = f"the model's predictions on its validation table ({validation_table.info.source})"
        with TableWriter(Path(scratch) / "predictions", prediction_schema(info), source=source) as writer:
            for batch in _predictions(model, validation_table):
                writer.write(batch)
        predictions = Table(Path(scratch) / "predictions")
        write_profile(folder / PREDICTION_PROFILE_FILE, profile_of(predictions))
        pq.write_table(sample_table(predictions, REFERENCE_ROWS), folder / PREDICTION_SAMPLE_FILE)
    logger.info("sampled the training rows, and profiled %s predictions, in %.1f s", f"{validation_table.rows:,}",
                time.monotonic() - start)  # fmt: skip


def _predictions(model: LoadedModel, table: Table) -> Iterator[pa.RecordBatch]:
    seen = 0
    for batch in table.batches(list(model.info.columns)):
        columns = prediction_arrays(answer(model, batch, start=seen), model.info)
        yield pa.record_batch(columns, schema=prediction_schema(model.info))
        seen += batch.num_rows
