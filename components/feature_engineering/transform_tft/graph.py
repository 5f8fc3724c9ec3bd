"""The transform graph: TFT's output folder as TFX's Transform writes it, with a note of ours beside it."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeparts.components.feature_engineering.transform_tft.places import Places
from pipeparts.runtime.beam import copy_folder, own_errors
from pipeparts.runtime.errors import ContractError, DataError, InputError, PipepartsError, suggest
from pipeparts.runtime.feature_fitting.columns import raw_type
from pipeparts.runtime.files import read_json, whole_folder, write_json
from pipeparts.runtime.serving.features import LARGEST_FLOAT32, Category, Feature, Numeric
from pipeparts.runtime.serving.transform import Transform, TransformError
from pipeparts.runtime.serving.values import NUMBER_TYPES
from pipeparts.runtime.tables import Table

FORMAT = "pipeparts.transform_graph/1"
#: Beside TFT's own folders, which do not look at it.
NOTE_FILE = "pipeparts.json"

Preprocess = Callable[[dict[str, Any]], dict[str, Any]]

_FUNCTION = re.compile(r"(?P<module>.+):(?P<name>[A-Za-z_]\w*)")
#: A category of more ids than this is a number to our trainers.
_MOST_IDS = 100_000


@dataclasses.dataclass(frozen=True)
class Graph:
    """A transform graph that is there.

    Attributes:
        folder: TFT's output folder.
        label: The label's column; empty: none.
        origin: "declared", the function's import path, or "TFX" for a graph that this library did not write.
        transform: Raw columns to features, for our trainers; None where the trainers get the transformed table.
    """

    folder: Path
    label: str
    origin: str
    transform: Transform | None


def read_graph(path: str | os.PathLike[str], *, label: str) -> Graph:
    """Reads a transform graph of this component, or of TFX's Transform.

    Args:
        path: The folder.
        label: The label's column, for a graph of TFX's.

    Raises:
        ContractError: Where there is none.
        InputError: For a label other than the graph's.
    """
    folder = Path(path)
    missing = [
        name
        for name in ("transform_fn/saved_model.pb", "transformed_metadata", "metadata")
        if not (folder / name).exists()
    ]
    if missing:
        raise ContractError(
            "no transform graph here",
            where=str(path),
            allowed="a folder as TFX's Transform writes it: transform_fn, transformed_metadata and metadata",
            received=f"without {', '.join(missing)}" if folder.is_dir() else "no folder",
        )
    if not (folder / NOTE_FILE).exists():
        return Graph(folder, label, "TFX", None)
    note = read_json(folder / NOTE_FILE, what="a transform graph's note")
    if not isinstance(note, dict) or note.get("format") != FORMAT:
        raise ContractError(
            "not a transform graph's note", where=str(folder / NOTE_FILE), allowed=FORMAT, received=note
        )
    if label and label != note["label"]:
        raise InputError(
            "the graph was made with another label",
            parameter="label",
            allowed=note["label"] or "no label",
            received=label,
        )
    try:
        transform = Transform.from_dict(note["transform"]) if note["transform"] else None
    except TransformError as error:
        raise ContractError(error.headline, **error.facts) from None
    return Graph(folder, note["label"], note["origin"], transform)


def copy_graph(graph: Graph, target: str | os.PathLike[str]) -> None:
    """Writes the graph once more, as it is."""
    with whole_folder(target) as partial:
        shutil.copytree(graph.folder, partial, dirs_exist_ok=True)


def write_graph(
    target: str | os.PathLike[str],
    preprocess: Preprocess,
    raw_schema: Any,
    places: Places,
    beam_options: Any,
    *,
    reads: bool,
    label: str,
    origin: str,
    transform: Transform | None,
) -> Graph:
    """Traces a preprocessing_fn, lets TFT analyze what it asks for, and writes the folder.

    Args:
        target: Where the folder appears.
        preprocess: The preprocessing_fn.
        raw_schema: The raw columns as TensorFlow Metadata's schema.
        places: The table, and where to work.
        beam_options: Beam's PipelineOptions.
        reads: Whether TFT has anything to read the table for.
        label: The label's column.
        origin: Who wrote the preprocessing_fn.
        transform: What our trainers get, where they get the raw table.

    Raises:
        InputError: Where the preprocessing_fn fails.
    """
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

    adapter = raw_adapter(raw_schema)
    config = TensorAdapterConfig(adapter.arrow_schema, adapter.representations)
    work = places.folder("graph")
    try:
        with (
            own_errors(),
            beam.Pipeline(options=beam_options) as pipeline,
            tft_beam.Context(temp_dir=places.folder("tft")),
        ):
            rows = (
                pipeline
                | "Read" >> beam.io.ReadFromParquetBatched(places.table_pattern, columns=adapter.columns)
                | "Raw" >> beam.FlatMap(adapter.batches)
                if reads
                else pipeline | "NoRows" >> beam.Create([], reshuffle=False)
            )
            _ = (rows, config) | tft_beam.AnalyzeDataset(preprocess) | tft_beam.WriteTransformFn(work)
    except PipepartsError:
        raise
    except Exception as error:
        if origin == "declared":
            raise
        raise InputError(
            "the preprocessing_fn fails",
            parameter="preprocessing_fn",
            where=origin,
            allowed="a function of TensorFlow Transform: a dictionary of raw tensors in, of features out",
            received=f"{type(error).__name__}: {error}",
        ) from error
    with whole_folder(target) as partial:
        copy_folder(work, partial)
        # TensorFlow loads without it, and it is another on every run, where all else is the same.
        (partial / "transform_fn" / "fingerprint.pb").unlink(missing_ok=True)
        metadata_io.write_metadata(dataset_metadata.DatasetMetadata(raw_schema), str(partial / "metadata"))
        write_json(
            partial / NOTE_FILE,
            {
                "format": FORMAT,
                "label": label,
                "origin": origin,
                "transform": transform.as_dict() if transform else None,
            },
        )
    return Graph(Path(target), label, origin, transform)


def declared_preprocess(transform: Transform, label: str) -> Preprocess:
    """The preprocessing_fn of a fitted transform: the same formulas, in TensorFlow; the label goes through."""

    def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
        import tensorflow as tf
        from tensorflow_transform import schema_inference

        from pipeparts.runtime.serving.transform_tf import apply_tf

        raw = {name: _filled(inputs[name], kind) for name, kind in transform.columns.items()}
        numeric, ids = apply_tf(transform, raw)
        outputs = {name: numeric[:, place] for place, name in enumerate(transform.numeric_names)}
        sizes = zip(transform.category_names, transform.category_sizes, strict=True)
        for place, (name, size) in enumerate(sizes):
            outputs[name] = tf.cast(ids[:, place], tf.int64)
            # TFX's trainers find the number of ids in the schema.
            schema_inference.set_tensor_schema_override(
                outputs[name], tf.constant(0, tf.int64), tf.constant(size - 1, tf.int64)
            )
        if label:
            outputs[label] = inputs[label]
        return outputs

    return preprocessing_fn


def load_function(path: str) -> Preprocess:
    """The team's preprocessing_fn.

    Args:
        path: `package.module:function`, or `folder/file.py:function`, local or in a bucket.

    Raises:
        InputError: Where there is no such function, or its module does not import.
    """
    found = _FUNCTION.fullmatch(path)
    if found is None:
        raise _no_function(path, "package.module:function, or a file: gs://bucket/preprocessing.py:preprocessing_fn")
    try:
        module = (
            _load_file(found["module"]) if found["module"].endswith(".py") else importlib.import_module(found["module"])
        )
    except Exception as error:  # whatever the team's module raises
        raise InputError(
            "the preprocessing_fn's module does not import",
            parameter="preprocessing_fn",
            where=found["module"],
            allowed="a module in this step's image, or a file that the step can read",
            received=f"{type(error).__name__}: {error}",
        ) from error
    function = getattr(module, found["name"], None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise _no_function(path, names or "a module with functions", hint=suggest(found["name"], names))
    return function  # type: ignore[no-any-return]


def raw_schema_of(columns: Mapping[str, str], optional: Mapping[str, bool]) -> Any:
    """TensorFlow Metadata's schema of raw columns.

    Args:
        columns: Name to type name, as a transform has them. Times are texts in ISO 8601, truth values 0 and 1.
        optional: Whether a row may lack the value.
    """
    import tensorflow as tf
    from tensorflow_transform.tf_metadata import schema_utils

    kinds = {"int64": tf.int64, "bool": tf.int64, "float64": tf.float32}
    spec = {}
    for name, kind in columns.items():
        dtype = kinds.get(kind, tf.string)
        spec[name] = tf.io.VarLenFeature(dtype) if optional[name] else tf.io.FixedLenFeature([1], dtype)
    return schema_utils.schema_from_feature_spec(spec)


def table_columns(table: Table) -> dict[str, str]:
    """The table's columns that a graph can take, name to type name."""
    kinds = {field.name: raw_type(field.type) for field in table.schema}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def columns_with_missing(table: Table, names: Sequence[str]) -> dict[str, bool]:
    """Whether each column has a missing value in some row."""
    import pyarrow.compute as pc

    found = dict.fromkeys(names, False)
    for batch in table.batches(names):
        for name in names:
            column = batch.column(name)
            has_nan = pa.types.is_floating(column.type) and bool(pc.any(pc.is_nan(column)).as_py())
            found[name] = found[name] or column.null_count > 0 or has_nan
    return found


def identity_transform(graph: Graph) -> Transform:
    """The transform for a table that is transformed already: each feature as it is.

    Numbers stay, missing ones as 0. Integers whose range the graph knows are categories, each value an id; texts are
    left out, as the label is.

    Raises:
        ContractError: Where no column is left that a model could learn from.
    """
    import tensorflow as tf

    output = transform_output(graph.folder)
    domains = output.transformed_domains()
    columns: dict[str, str] = {}
    features: list[Feature] = []
    for name, spec in sorted(output.transformed_feature_spec().items()):
        if name == graph.label or spec.dtype == tf.string:
            continue
        for column in flat_names(name, spec):
            domain = domains.get(name)
            is_float = spec.dtype == tf.float32
            columns[column] = "float64" if is_float else "int64"
            if not is_float and getattr(domain, "is_categorical", False) and domain.max - domain.min < _MOST_IDS:
                values = tuple(range(domain.min, domain.max + 1))
                features.append(Category(name=column, columns=(column,), vocabulary=values))
            else:
                features.append(Numeric(name=column, column=column, limit=LARGEST_FLOAT32))
    if not features:
        raise ContractError(
            "the transform graph gives nothing that a model could learn from",
            where=str(graph.folder),
            allowed="numbers, or ids of a vocabulary",
            received=sorted(output.transformed_feature_spec()),
        )
    return Transform(dict(sorted(columns.items())), features)


def flat_names(name: str, spec: Any) -> list[str]:
    """The columns of a transformed feature: one, or one for each number of a vector."""
    shape = getattr(spec, "shape", ())
    size = 1
    for length in shape or ():
        size *= length
    return [name] if size == 1 else [f"{name}_{place}" for place in range(size)]


def transform_output(folder: Path) -> Any:
    """TFT's reader of the folder."""
    import tensorflow_transform as tft

    return tft.TFTransformOutput(str(folder))


class RawAdapter:
    """Rows of a table as the raw columns of a graph, lists of float32, int64 or bytes.

    Args:
        spec: The raw columns' feature spec: name to FixedLenFeature or VarLenFeature.
        representations: The same for TFX's tensor adapter.
    """

    def __init__(self, spec: Mapping[str, Any], representations: Mapping[str, Any]) -> None:
        import tensorflow as tf

        kinds = {tf.float32: pa.float32(), tf.int64: pa.int64(), tf.string: pa.large_binary()}
        self.columns = list(spec)
        self.representations = dict(representations)
        self._kinds = {name: kinds[feature.dtype] for name, feature in spec.items()}
        self._needed = {name for name, feature in spec.items() if isinstance(feature, tf.io.FixedLenFeature)}
        self.arrow_schema = pa.schema([(name, pa.large_list(kind)) for name, kind in self._kinds.items()])

    def without(self, names: set[str]) -> RawAdapter:
        """The adapter of fewer columns."""
        other = object.__new__(RawAdapter)
        other.columns = [name for name in self.columns if name not in names]
        other.representations = {name: self.representations[name] for name in other.columns}
        other._kinds = {name: self._kinds[name] for name in other.columns}
        other._needed = self._needed - names
        other.arrow_schema = pa.schema([self.arrow_schema.field(name) for name in other.columns])
        return other

    def check(self, table: Table) -> None:
        """Checks that a table has the columns, of types that fit.

        Raises:
            ContractError: Naming each that is missing or of another type.
        """
        problems = []
        for name, kind in self._kinds.items():
            if name not in table.schema.names:
                problems.append(f"{name} is missing")
            elif not _fits(raw_type(table.schema.field(name).type), kind):
                problems.append(f"{name} is {table.schema.field(name).type}, not {_KIND_NAMES[kind]}")
        if problems:
            raise ContractError(
                "the table is not what the transform graph takes",
                where=str(table.path),
                allowed=", ".join(f"{name}: {_KIND_NAMES[kind]}" for name, kind in self._kinds.items()),
                received="; ".join(problems),
            )

    def batches(self, rows: Any) -> list[pa.RecordBatch]:
        """The raw columns of rows (an Arrow table or a batch)."""
        from tfx_bsl.arrow.array_util import ToSingletonListArray

        found = []
        for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
            arrays = []
            for name in self.columns:
                values = _raw_values(batch.column(name), self._kinds[name])
                if values.null_count and name in self._needed:
                    raise DataError(
                        "a value is missing that the transform graph needs in every row",
                        where=f"column {name!r}",
                        allowed="no missing value: the graph's schema says that it is always present",
                        received=f"{values.null_count:,} missing of {len(values):,} rows",
                        hint="give a schema in which the feature may be missing",
                    )
                arrays.append(ToSingletonListArray(values))
            found.append(pa.RecordBatch.from_arrays(arrays, names=self.columns))
        return found


_KIND_NAMES = {pa.float32(): "a number", pa.int64(): "an integer", pa.large_binary(): "a text or a time"}


def raw_adapter(schema: Any) -> RawAdapter:
    """The adapter for a schema of TensorFlow Metadata.

    Raises:
        InputError: For a feature that no column of a table can be: a sparse one, or one of several values.
    """
    import tensorflow as tf
    from tensorflow_transform.tf_metadata import schema_utils
    from tfx_bsl.tfxio.tensor_representation_util import InferTensorRepresentationsFromSchema

    spec = schema_utils.schema_as_feature_spec(schema).feature_spec
    for name, feature in spec.items():
        shape = list(getattr(feature, "shape", []) or [])
        if not isinstance(feature, (tf.io.FixedLenFeature, tf.io.VarLenFeature)) or any(size != 1 for size in shape):
            raise InputError(
                "a raw feature that no column of a table can be",
                parameter="schema",
                where=name,
                allowed="one value a row, or none",
                received=f"{type(feature).__name__} of shape {shape}",
            )
    return RawAdapter(spec, InferTensorRepresentationsFromSchema(schema))


def _raw_values(column: pa.Array, kind: pa.DataType) -> pa.Array:
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_timestamp(column.type):
        suffix = "" if column.type.tz is None else "Z"
        return pc.strftime(column.cast(pa.timestamp("us")), format=f"%Y-%m-%dT%H:%M:%S{suffix}").cast(kind)
    if pa.types.is_date(column.type):
        return pc.strftime(column.cast(pa.timestamp("s")), format="%Y-%m-%d").cast(kind)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column.cast(kind)


def _fits(kind: str | None, wanted: pa.DataType) -> bool:
    if wanted == pa.float32():
        return kind in NUMBER_TYPES
    if wanted == pa.int64():
        return kind in ("int64", "bool")
    return kind is not None and kind not in NUMBER_TYPES


def _filled(values: Any, kind: str) -> Any:
    """A raw tensor of the graph as `apply_tf` takes it: a vector, NaN or an empty text where there is no value."""
    import tensorflow as tf

    is_number = kind in NUMBER_TYPES
    if isinstance(values, tf.SparseTensor):
        numbers = tf.cast(values.values, tf.float64) if is_number else values.values
        sparse = tf.SparseTensor(values.indices, numbers, [values.dense_shape[0], 1])
        values = tf.sparse.to_dense(sparse, float("nan") if is_number else "")
    return tf.reshape(tf.cast(values, tf.float64) if is_number else values, [-1])


def _load_file(path: str) -> Any:
    import fsspec

    with fsspec.open(path, "rb") as file:
        source = file.read()
    spec = importlib.util.spec_from_loader(Path(path).stem, loader=None, origin=path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = path
    exec(compile(source, path, "exec"), vars(module))
    return module


def _no_function(path: str, allowed: Any, *, hint: str | None = None) -> InputError:
    return InputError(
        "no preprocessing_fn there", parameter="preprocessing_fn", allowed=allowed, received=path, hint=hint
    )
