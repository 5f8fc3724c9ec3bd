"""Writing the model contract: an MLflow model folder that takes raw columns and needs no pipeparts to load."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.files import read_json, whole_folder, write_json
from pipeparts.runtime.models import FORMAT, INFO_FILE, PROFILE_FILE, SERVING_PREFIX, ModelInfo, import_mlflow
from pipeparts.runtime.references import write_reference
from pipeparts.runtime.serving.predictions import TRANSFORM_FILE
from pipeparts.runtime.tables import Table

if TYPE_CHECKING:
    import pandas as pd

    from pipeparts.runtime.serving.transform import Transform

logger = logging.getLogger(__name__)

_EXAMPLE_ROWS = 5
_SERVING = Path(__file__).parent / "serving"
_ALWAYS_NEEDED = ("mlflow", "numpy", "pandas", "pyarrow")


def save_model(
    path: str | os.PathLike[str],
    *,
    info: ModelInfo,
    transform: Transform,
    loader: str,
    write: Callable[[Path], object],
    requirements: Sequence[str],
    table: Table,
    validation_table: Table,
    profile_path: str | os.PathLike[str],
) -> None:
    """Writes a model's folder, whole or not at all.

    Args:
        path: The folder.
        info: The model's card.
        transform: What turns raw columns into features; it goes into the folder.
        loader: The module of `runtime.serving` that loads the model: "keras_model".
        write: Writes the learned part into the folder that it is given.
        requirements: The packages that it needs to load, besides MLflow, numpy, pandas and pyarrow; each
            is pinned to the version at hand.
        table: The training table: types of the signature and the input example come from it.
        validation_table: What the model says of its rows goes into the folder, as a profile and a sample.
        profile_path: The training table's profile, which travels with the model.
    """
    mlflow = import_mlflow()
    profile = read_json(profile_path, what="a profile")
    with whole_folder(path) as folder, tempfile.TemporaryDirectory() as scratch:
        package = _serving_package(Path(scratch))
        with _quiet():
            mlflow.pyfunc.save_model(
                str(folder),
                mlflow_model=mlflow.models.Model(model_uuid=info.fingerprint),
                loader_module=f"{package.name}.{loader}",
                code_paths=[str(package)],
                signature=_signature(info, table),
                input_example=_example(table, list(info.columns)),
                pip_requirements=_pins([*_ALWAYS_NEEDED, *requirements]),
            )
        _settle(folder)
        write(folder)
        write_json(folder / TRANSFORM_FILE, transform.as_dict())
        write_json(folder / PROFILE_FILE, profile)
        write_json(folder / INFO_FILE, {"format": FORMAT, **dataclasses.asdict(info)})
        write_reference(folder, info=info, loader=loader, train_table=table, validation_table=validation_table)
    logger.info("wrote the model to %s", path)


def model_fingerprint(parts: Sequence[bytes]) -> str:
    """The fingerprint of what a model has learned: 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:32]


def serving_hash() -> str:
    """A hash of the code that is copied into a model: 12 hexadecimal digits."""
    parts = [part for file in _serving_files() for part in (file.name.encode(), file.read_bytes())]
    return model_fingerprint(parts)[:12]


def _serving_files() -> list[Path]:
    return sorted(_SERVING.glob("*.py"))


def _serving_package(scratch: Path) -> Path:
    """Copies the serving code under a name of its own, so that models of two releases load side by side."""
    package = scratch / f"{SERVING_PREFIX}{serving_hash()}"
    package.mkdir()
    for file in _serving_files():
        shutil.copyfile(file, package / file.name)
    return package


def _signature(info: ModelInfo, table: Table) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    with_nulls = _columns_with_nulls(table, [name for name, kind in info.columns.items() if kind == "int64"])
    inputs = [ColSpec(_input_type(kind, name in with_nulls), name) for name, kind in info.columns.items()]
    if info.task == "regression":
        label = "double"
    else:
        label = {bool: "boolean", int: "long", float: "double"}.get(type(info.classes[0]), "string")
    outputs = [ColSpec(label if name == "prediction" else "double", name) for name in info.prediction_columns]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _input_type(kind: str, with_nulls: bool) -> Any:
    from mlflow.types.schema import AnyType

    # pandas makes integers with gaps floats, and MLflow takes a float for no "long" and an integer for no
    # "double"; nor does it take a time with a zone for "datetime". "Any" takes them all, and the model itself
    # checks them.
    if kind == "timestamp_utc" or (kind == "int64" and with_nulls):
        return AnyType()
    names = {"int64": "long", "float64": "double", "bool": "boolean", "string": "string"}
    return names.get(kind, "datetime")


def _columns_with_nulls(table: Table, columns: list[str]) -> set[str]:
    found: set[str] = set()
    for batch in table.batches(columns) if columns else ():
        found.update(name for name in columns if batch.column(name).null_count)
    return found


def _example(table: Table, columns: list[str]) -> pd.DataFrame:
    """A few rows of the table, complete ones if its first batch has any."""
    batch = next(iter(table.batches(columns)))
    complete = pa.array([True] * batch.num_rows)
    for values in batch.columns:
        complete = pc.and_(complete, pc.is_valid(values))
    rows = batch.filter(complete)
    example: pd.DataFrame = (rows if rows.num_rows else batch).slice(0, _EXAMPLE_ROWS).to_pandas()
    return example


def _pins(packages: Sequence[str]) -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in packages]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps MLflow's notes on what is settled here (type hints, integer columns, pip) out of the log."""
    noisy = logging.getLogger("mlflow")
    before = noisy.level
    noisy.setLevel(logging.ERROR)
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(before)
        sys.dont_write_bytecode = writes_bytecode


def _settle(folder: Path) -> None:
    """Takes the time of writing out of MLmodel, so that equal models are equal bytes."""
    file = folder / "MLmodel"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("utc_time_created:")), encoding="utf-8")
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)
