"""A transform graph applied to a table: rows of our contract, and TFX's transformed examples."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeparts.components.feature_engineering.transform_tft.graph import (
    Graph,
    RawAdapter,
    flat_names,
    raw_adapter,
    transform_output,
)
from pipeparts.components.feature_engineering.transform_tft.places import Places
from pipeparts.runtime.beam import own_errors
from pipeparts.runtime.errors import DataError
from pipeparts.runtime.files import whole_folder
from pipeparts.runtime.tables import Table, TableInfo, TableWriter

#: As TFX's Transform names them.
EXAMPLES_PREFIX = "transformed_examples"

_BATCH_ROWS = 16_384


def write_transformed(
    graph: Graph,
    table: Table,
    places: Places,
    beam_options: Any,
    *,
    split: str,
    table_path: str | os.PathLike[str],
    examples_path: str | os.PathLike[str],
) -> TableInfo:
    """Transforms a table part by part, through Beam.

    Args:
        graph: The transform graph.
        table: The table.
        places: The table for Beam's workers, and where to work.
        beam_options: Beam's PipelineOptions.
        split: The split's name, for TFX.
        table_path: Where the transformed table goes.
        examples_path: Where the transformed examples go, in the split's folder.

    Returns:
        The transformed table's description.

    Raises:
        ContractError: Where the table is not what the graph takes.
        DataError: For a value that is missing where the graph needs one, or a feature with several values in a row.
    """
    import apache_beam as beam
    import tensorflow as tf

    adapter = raw_adapter(transform_output(graph.folder).raw_metadata.schema)
    if graph.label and graph.label not in table.schema.names:
        adapter = adapter.without({graph.label})  # new rows have no label yet
    adapter.check(table)
    folder, work = _within_reach(graph.folder, places), places.folder("parts")
    tf.io.gfile.makedirs(work)
    count = len(table.parts)
    jobs = [(place, f"{places.table}/{part.name}", count) for place, part in enumerate(table.parts)]
    with own_errors(), beam.Pipeline(options=beam_options) as pipeline:
        _ = (
            pipeline
            | beam.Create(jobs)
            | beam.Reshuffle()
            | beam.Map(functools.partial(_transform_part, folder=folder, adapter=adapter, work=work))
        )
    with whole_folder(examples_path) as partial:
        target = partial / f"Split-{split}"
        target.mkdir(mode=0o755)
        for place in range(count):
            name = _examples_name(place, count)
            _fetch(f"{work}/{name}", target / name)
    return _gather(work, count, table.info.source, table_path)


def _gather(work: str, count: int, source: str, target: str | os.PathLike[str]) -> TableInfo:
    """The parts that the workers wrote, as one table."""
    with contextlib.ExitStack() as stack:
        writer: TableWriter | None = None
        for place in range(count):
            with _fetched(f"{work}/{_part_name(place)}") as path, pq.ParquetFile(path) as part:
                if writer is None:
                    schema = part.schema_arrow.remove_metadata()
                    writer = stack.enter_context(TableWriter(target, schema, source=source))
                for batch in part.iter_batches():
                    writer.write(batch)
    assert writer is not None
    return writer.info


def _transform_part(job: tuple[int, str, int], *, folder: str, adapter: RawAdapter, work: str) -> None:
    """Transforms one part file of the table: on a worker."""
    import tensorflow as tf
    from apache_beam.io.filesystems import FileSystems
    from tfx_bsl.coders.example_coder import RecordBatchToExamples
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapter, TensorAdapterConfig

    place, part, count = job
    tensors = TensorAdapter(TensorAdapterConfig(adapter.arrow_schema, adapter.representations))
    apply = _loaded(folder)
    spec = _known_spec(folder, apply, tensors, adapter)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    schema = _table_schema(spec)
    with (
        FileSystems.open(part, compression_type="uncompressed") as read,
        FileSystems.create(f"{work}/{_part_name(place)}", compression_type="uncompressed") as written,
        pq.ParquetWriter(written, schema) as rows,
        tf.io.TFRecordWriter(f"{work}/{_examples_name(place, count)}", options) as examples,
    ):
        for batch in pq.ParquetFile(read).iter_batches(_BATCH_ROWS, columns=adapter.columns):
            for raw in adapter.batches(batch):
                features = apply(tensors.ToBatchTensors(raw, produce_eager_tensors=True))
                columns = {name: _columns(name, features[name], batch.num_rows) for name in spec}
                flat = [array for arrays in columns.values() for array in arrays]
                rows.write_batch(pa.record_batch(flat, schema=schema))
                listed = [_listed(arrays) for arrays in columns.values()]
                for example in RecordBatchToExamples(pa.RecordBatch.from_arrays(listed, names=list(columns))):
                    # The order of a map's entries is another in every process.
                    ordered = tf.train.Example.FromString(example).SerializeToString(deterministic=True)
                    examples.write(ordered)


@functools.lru_cache(maxsize=2)
def _loaded(folder: str) -> Any:
    import tensorflow_transform as tft

    layer = tft.TFTransformOutput(folder).transform_features_layer()
    return lambda tensors: dict(layer(tensors))


def _known_spec(folder: str, apply: Any, tensors: Any, adapter: RawAdapter) -> dict[str, Any]:
    """The features that come out: fewer where a column, the label, does not go in."""
    import tensorflow_transform as tft

    spec: Mapping[str, Any] = tft.TFTransformOutput(folder).transformed_feature_spec()
    row = [_one_value(field.type) for field in adapter.arrow_schema]
    batch = pa.RecordBatch.from_arrays(row, names=adapter.columns)
    given = apply(tensors.ToBatchTensors(batch, produce_eager_tensors=True))
    return {name: spec[name] for name in sorted(given)}


def _one_value(kind: pa.DataType) -> pa.Array:
    zero = b"" if pa.types.is_large_binary(kind.value_type) else 0
    return pa.array([[zero]], kind)


def _table_schema(spec: Mapping[str, Any]) -> pa.Schema:
    import tensorflow as tf

    kinds = {tf.float32: pa.float32(), tf.int64: pa.int64(), tf.string: pa.string()}
    return pa.schema(
        [(column, kinds[feature.dtype]) for name, feature in spec.items() for column in flat_names(name, feature)]
    )


def _columns(name: str, values: Any, rows: int) -> list[pa.Array]:
    """A transformed feature of n rows as columns."""
    import tensorflow as tf

    if isinstance(values, tf.SparseTensor):
        return [_sparse_column(name, values, rows)]
    if isinstance(values, tf.RaggedTensor):
        raise _several(name)
    array = values.numpy().reshape(rows, -1)
    return [_array(np.ascontiguousarray(array[:, place])) for place in range(array.shape[1])]


def _sparse_column(name: str, values: Any, rows: int) -> pa.Array:
    places = values.indices.numpy()[:, 0]
    if len(np.unique(places)) < len(places):
        raise _several(name)
    order = np.full(rows, -1, dtype=np.int64)
    order[places] = np.arange(len(places))
    return _array(values.values.numpy()).take(pa.array(order, mask=order < 0))


def _array(values: Any) -> pa.Array:
    if values.dtype != object:
        return pa.array(values)
    return pa.array([value.decode("utf-8", "replace") for value in values.tolist()], pa.string())


def _listed(arrays: list[pa.Array]) -> pa.Array:
    """Columns of one feature as lists, as tf.Example has them."""
    from tfx_bsl.arrow.array_util import ToSingletonListArray

    arrays = [array.cast(pa.large_binary()) if pa.types.is_string(array.type) else array for array in arrays]
    if len(arrays) == 1:
        return ToSingletonListArray(arrays[0])
    values = np.stack([array.to_numpy(zero_copy_only=False) for array in arrays], axis=1)
    offsets = np.arange(len(values) + 1, dtype=np.int64) * values.shape[1]
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1), arrays[0].type))


def _several(name: str) -> DataError:
    return DataError(
        "a transformed feature with several values in a row",
        where=f"feature {name!r}",
        allowed="one value a row, none, or a vector of fixed length",
        hint="make it dense in the preprocessing_fn",
    )


def _within_reach(folder: Path, places: Places) -> str:
    """The graph where Beam's workers read it."""
    import tensorflow as tf

    if not places.is_remote:
        return str(folder)
    target = places.folder("fitted")
    for path in folder.rglob("*"):
        if path.is_file():
            there = f"{target}/{path.relative_to(folder)}"
            tf.io.gfile.makedirs(there.rpartition("/")[0])
            tf.io.gfile.copy(str(path), there, overwrite=True)
    return target


@contextlib.contextmanager
def _fetched(uri: str) -> Iterator[Path]:
    """A file of the work folder on this machine for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        _fetch(uri, path)
        yield path


def _fetch(uri: str, target: Path) -> None:
    import tensorflow as tf

    with tf.io.gfile.GFile(uri, "rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)


def _part_name(place: int) -> str:
    return f"part-{place:05d}.parquet"


def _examples_name(place: int, count: int) -> str:
    return f"{EXAMPLES_PREFIX}-{place:05d}-of-{count:05d}.gz"
