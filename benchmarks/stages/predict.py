"""Batch prediction with a small network, Parquet to Parquet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

TITLE = "Batch prediction: a network of 12-64-32-1 on 12 numbers, Parquet to Parquet"
PACKAGES = ["tensorflow", "lightgbm", "mlflow", "pyarrow"]
_COLUMNS = [f"x{i}" for i in range(12)]
_PART = 131_072


def prepare(folder: Path, rows: int) -> None:
    """The rows, and a network and trees trained by our components."""
    from pipeparts.runtime.tables import TableWriter

    schema = pa.schema([(name, pa.float64()) for name in [*_COLUMNS, "y"]])
    for name, count, seed in (("predict-train", 20_000, 1), ("predict-valid", 5_000, 2), ("predict-rows", rows, 3)):
        if (folder / name).is_dir():
            continue
        with TableWriter(folder / name, schema, source=name, fingerprint=False) as writer:
            for number, start in enumerate(range(0, count, _PART)):
                random = np.random.default_rng([seed, number])
                values = random.normal(size=(min(_PART, count - start), 12))
                columns = {column: values[:, place] for place, column in enumerate(_COLUMNS)}
                writer.write(pa.table({**columns, "y": values.sum(axis=1) + values[:, 0] * values[:, 1]}))
    if not (folder / "keras").is_dir():
        _train(folder)


def _train(folder: Path) -> None:
    from pipeparts.components.data_validation.profile_table.logic import profile_table
    from pipeparts.components.feature_engineering.fit_features.logic import fit_features
    from pipeparts.components.training.train_keras.logic import train_keras
    from pipeparts.components.training.train_lightgbm.logic import train_lightgbm

    train = folder / "predict-train"
    profile_table(
        table_path=train, profile_path=folder / "train.json", page_path=folder / "train.html", bins=20, top=20
    )
    fit_features(
        table_path=train,
        transform_path=folder / "train-transform.json",
        page_path=folder / "train-transform.html",
        features=dict.fromkeys(_COLUMNS, "numeric"),
        label="y",
    )
    settings: list[tuple[str, Any, dict[str, Any]]] = [
        ("keras", train_keras, {"epochs": 2, "hidden_units": [64, 32], "dropout": 0.0, "wide": False}),
        ("trees", train_lightgbm, {"num_iterations": 100}),
    ]
    for name, trainer, hyperparameters in settings:
        trainer(
            train_path=train,
            validation_path=folder / "predict-valid",
            transform_path=folder / "train-transform.json",
            profile_path=folder / "train.json",
            model_path=folder / name,
            metrics_path=folder / f"{name}.json",
            page_path=folder / f"{name}.html",
            label="y",
            task="regression",
            hyperparameters=hyperparameters,
        )


def _predict_table(folder: Path, model: str) -> None:
    from pipeparts.components.prediction.predict_table.logic import predict_table

    out = folder / f"predicted-{model}"
    shutil.rmtree(out, ignore_errors=True)
    predict_table(table_path=folder / "predict-rows", predictions_path=out, model_path=folder / model)


def _batches(folder: Path, rows: int) -> Iterator[npt.NDArray[np.float32]]:
    for part in sorted((folder / "predict-rows").glob("*.parquet")):
        for batch in pq.ParquetFile(part).iter_batches(batch_size=rows, columns=_COLUMNS):
            yield np.stack([column.to_numpy() for column in batch.columns], axis=1).astype(np.float32)


def _write(path: Path, parts: Iterator[npt.NDArray[Any]]) -> None:
    with pq.ParquetWriter(path, pa.schema([("prediction", pa.float32())])) as writer:
        for part in parts:
            writer.write_batch(pa.RecordBatch.from_arrays([pa.array(part.reshape(-1), pa.float32())], ["prediction"]))


def _plain_network() -> Any:
    import keras

    layers = [
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(1),
    ]
    return keras.Sequential([keras.Input((12,)), *layers])


def model_predict(folder: Path) -> None:
    """Keras' own way, in large batches."""
    network = _plain_network()
    parts = (network.predict(rows, batch_size=8_192, verbose=0) for rows in _batches(folder, 131_072))
    _write(folder / "predicted-model-predict.parquet", parts)


def graph(folder: Path) -> None:
    """A compiled function, 65,536 rows at a time: what serving a SavedModel is."""
    import tensorflow as tf

    network = _plain_network()
    call = tf.function(network, input_signature=[tf.TensorSpec((None, 12), tf.float32)])
    _write(folder / "predicted-graph.parquet", (call(rows).numpy() for rows in _batches(folder, 65_536)))


def floor_arrow(folder: Path) -> None:
    """Reading the rows, and writing as many numbers."""
    _write(folder / "predicted-floor.parquet", (rows[:, 0] for rows in _batches(folder, 65_536)))


CONTENDERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "ours": (
        "`predict_table`, a Keras network, its transform and checks included",
        lambda f: _predict_table(f, "keras"),
    ),
    "ours_trees": ("`predict_table`, 100 boosted trees (LightGBM)", lambda f: _predict_table(f, "trees")),
    "model_predict": ("`model.predict` of the bare network, 8,192 rows at a time", model_predict),
    "graph": ("the bare network as a graph, 65,536 rows at a time", graph),
    "floor_arrow": ("reading the rows and writing a column", floor_arrow),
}
