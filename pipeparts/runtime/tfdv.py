"""The artifacts of TensorFlow Data Validation: statistics, schemas and anomalies, as TFX lays them out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeparts.runtime.errors import ContractError
from pipeparts.runtime.files import whole_folder, write_text

#: As TFX's StatisticsGen and SchemaGen name them, each in its folder; the split's folder is `Split-<name>`.
STATISTICS_FILE = "FeatureStats.pb"
SCHEMA_FILE = "schema.pbtxt"
SPLIT_PREFIX = "Split-"

#: What TFDV calls the dataset of all rows, where there are slices beside it.
ALL_ROWS = "All Examples"


def write_statistics(folder: str | os.PathLike[str], statistics: Any, *, split: str) -> None:
    """Writes statistics as TFX's StatisticsGen does, `Split-<split>/FeatureStats.pb`: the same ones, the same bytes."""
    with whole_folder(folder) as partial:
        target = partial / f"{SPLIT_PREFIX}{split}"
        target.mkdir(mode=0o755)
        (target / STATISTICS_FILE).write_bytes(statistics.SerializeToString(deterministic=True))


def write_schema(folder: str | os.PathLike[str], schema: Any) -> None:
    """Writes a schema as TFX's SchemaGen does: `schema.pbtxt`."""
    with whole_folder(folder) as partial:
        (partial / SCHEMA_FILE).write_text(to_text(schema), encoding="utf-8")


def write_anomalies(path: str | os.PathLike[str], anomalies: Any) -> None:
    """Writes anomalies as a text proto, which `tfdv.load_anomalies_text` reads."""
    write_text(path, to_text(anomalies))


def to_text(message: Any) -> str:
    """A message as text, the same for the same message: maps are sorted by their keys."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(message))


def read_statistics(path: str | os.PathLike[str]) -> Any:
    """Reads statistics of this library, of TFX's StatisticsGen, or a file that TFDV wrote.

    Args:
        path: A folder with one split's `FeatureStats.pb`, or a file: binary, TFRecord or text.

    Returns:
        A DatasetFeatureStatisticsList with one dataset at least.

    Raises:
        ContractError: Where there are none, or those of several splits.
    """
    from google.protobuf import text_format
    from tensorflow_data_validation.utils import stats_util
    from tensorflow_metadata.proto.v0 import statistics_pb2

    file = _one_file(Path(path), [STATISTICS_FILE, f"{SPLIT_PREFIX}*/{STATISTICS_FILE}"], "statistics")

    def binary() -> Any:
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())

    def text() -> Any:
        return text_format.Parse(file.read_text(encoding="utf-8"), statistics_pb2.DatasetFeatureStatisticsList())

    def records() -> Any:
        return stats_util.load_stats_tfrecord(str(file))

    # A file of one form may by accident parse as another, but not with a dataset that has features.
    found = _first_that_reads(
        [binary, text, records], lambda message: any(len(dataset.features) for dataset in message.datasets)
    )
    if found is None:
        raise ContractError(
            "no statistics of TFDV here",
            where=str(file),
            allowed="a DatasetFeatureStatisticsList with features: binary, TFRecord or text",
            received=f"{file.stat().st_size:,} bytes of something else",
        )
    return found


def read_schema(path: str | os.PathLike[str]) -> Any:
    """Reads a schema: of this library, of TFX's SchemaGen, or written by hand.

    Args:
        path: A folder with `schema.pbtxt`, or a text file.

    Returns:
        A Schema with one feature at least.

    Raises:
        ContractError: Where there is none.
    """
    file = _one_file(Path(path), [SCHEMA_FILE], "schema")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError("cannot read a schema of TFDV", where=str(file), received=str(error)) from error
    return parse_schema(text, where=str(file))


def parse_schema(text: str, *, where: str) -> Any:
    """A schema from its text.

    Raises:
        ContractError: Naming the line, or where it has no feature.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        schema = text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        line = error.GetLine()
        raise ContractError(
            "a schema of TFDV that cannot be read",
            where=f"{where}, line {line}" if line else where,
            allowed="a Schema of tensorflow_metadata as text (schema.pbtxt)",
            received=str(error),
        ) from None
    if not schema.feature:
        raise ContractError("a schema without features", where=where, allowed="one feature at least")
    return schema


def names(features: Any) -> dict[str, Any]:
    """Features of statistics or of a schema by their name: the steps of a path joined by dots."""
    return {(feature.name or ".".join(feature.path.step)): feature for feature in features}


def all_rows(statistics: Any, *, where: str) -> Any:
    """The dataset of all rows, among those of slices.

    Raises:
        ContractError: Where there are several datasets and none of all rows.
    """
    if len(statistics.datasets) == 1:
        return statistics.datasets[0]
    for dataset in statistics.datasets:
        if dataset.name == ALL_ROWS:
            return dataset
    raise ContractError(
        "statistics of slices alone",
        where=where,
        allowed=f"one dataset, or one named {ALL_ROWS!r} among several",
        received=[dataset.name for dataset in statistics.datasets],
    )


def _one_file(path: Path, patterns: list[str], what: str) -> Path:
    if path.is_file():
        return path
    found = sorted(file for pattern in patterns for file in path.glob(pattern)) if path.is_dir() else []
    if len(found) != 1:
        received = [str(file.relative_to(path)) for file in found] or (
            "an empty folder" if path.is_dir() else "nothing"
        )
        raise ContractError(
            f"no {what} of TFDV here" if not found else f"{what} of more than one split",
            where=str(path),
            allowed=f"a file, or a folder with one {' or '.join(patterns)}",
            received=received,
            hint="name the folder of one split" if found else None,
        )
    return found[0]


def _first_that_reads(readers: list[Callable[[], Any]], holds: Callable[[Any], bool]) -> Any:
    for reader in readers:
        try:
            message = reader()
        except Exception:  # each library has its own way to say that a file is not of this form
            continue
        if holds(message):
            return message
    return None
