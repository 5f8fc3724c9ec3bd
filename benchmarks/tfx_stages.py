"""Contenders that need TFX's libraries: run in our image of them, by its Python, without pipeparts.

What a container uses is not the docker command's: each tells of itself on its last line. Beyond a million rows each is
run on a few and on a million, and what all would cost is extrapolated from the two, unless a million cost next to
nothing beyond the start: then on all.
"""

import json
import resource
import sys
import time
from pathlib import Path

#: Name to what it is in words.
PROFILE = {"tfdv": "TensorFlow Data Validation 1.21"}
FEATURES = {"tft": "TensorFlow Transform 1.21 on Beam's direct runner"}
NUMBERS = ("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "air_time", "distance")
CATEGORIES = ("carrier", "origin", "dest")


def tfdv(folder: Path, rows: int) -> None:
    """The statistics of a data frame, with all of its defaults."""
    import pyarrow.parquet as pq
    import tensorflow_data_validation as validation  # type: ignore[import-not-found]

    frame = pq.read_table(folder / "table").slice(0, rows).to_pandas()
    frame["time_hour"] = frame["time_hour"].astype("int64")  # it takes no times
    statistics = validation.generate_statistics_from_dataframe(frame)
    validation.write_stats_text(statistics, str(folder / "tfdv.pbtxt"))


def tft(folder: Path, rows: int) -> None:
    """Numbers filled and standardized, categories one-hot; analyzed, transformed, written."""
    import apache_beam as beam  # type: ignore[import-not-found]
    import pyarrow as pa
    import tensorflow as tf
    import tensorflow_transform as transform  # type: ignore[import-not-found]
    import tensorflow_transform.beam as transform_beam  # type: ignore[import-not-found]
    from tensorflow_transform.tf_metadata import schema_utils  # type: ignore[import-not-found]
    from tfx_bsl.tfxio.parquet_tfxio import ParquetTFXIO  # type: ignore[import-not-found]

    kinds = {name: tf.io.VarLenFeature(tf.int64) for name in NUMBERS}
    kinds |= {name: tf.io.VarLenFeature(tf.string) for name in CATEGORIES}
    schema = schema_utils.schema_from_feature_spec(kinds)
    files = ParquetTFXIO(str(folder / "tft-in.parquet"), column_names=list(kinds), schema=schema, validate=False)
    _write_lists(folder, rows, files.ArrowSchema())

    def dense(values, default):  # type: ignore[no-untyped-def]
        shape = [values.dense_shape[0], 1]
        return tf.sparse.to_dense(tf.sparse.SparseTensor(values.indices, values.values, shape), default_value=default)

    def preprocess(inputs):  # type: ignore[no-untyped-def]
        outputs = {}
        for name in NUMBERS:
            numbers = tf.cast(inputs[name], tf.float32)
            filled = dense(numbers, float("nan"))
            filled = tf.where(tf.math.is_nan(filled), transform.mean(numbers), filled)
            outputs[name] = transform.scale_to_z_score(filled)
        for name in CATEGORIES:
            codes = transform.compute_and_apply_vocabulary(inputs[name], top_k=30, num_oov_buckets=1)
            outputs[name] = tf.reshape(tf.one_hot(dense(codes, -1), 31), [-1, 31])
        return outputs

    with beam.Pipeline() as pipeline, transform_beam.Context(temp_dir="/tmp/beam"):
        raw = pipeline | files.BeamSource()
        given = (raw, files.TensorAdapterConfig())
        (found, _), _ = given | transform_beam.AnalyzeAndTransformDataset(preprocess, output_record_batches=True)
        written = pa.schema([(name, pa.large_list(pa.float32())) for name in (*NUMBERS, *CATEGORIES)])
        tables = found | beam.Map(lambda pair: pa.Table.from_batches([pair[0]]).select(written.names).cast(written))
        tables | beam.io.WriteToParquetBatched(str(folder / "tft"), written)


def _write_lists(folder, rows, schema):  # type: ignore[no-untyped-def]
    """The first rows as TFX holds them: a list of one value for each, and none where it is missing."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    batch = next(pq.ParquetFile(folder / "table" / "part-00000.parquet").iter_batches(batch_size=rows))
    lists = []
    for field in schema:
        column = batch.column(field.name)
        ends = np.cumsum(column.is_valid().to_numpy(zero_copy_only=False))
        values = column.drop_null().cast(field.type.value_type)
        offsets = pa.array(np.concatenate([[0], ends]))
        lists.append(pa.LargeListArray.from_arrays(offsets, values, mask=column.is_null()))
    pq.write_table(pa.Table.from_arrays(lists, schema=schema), folder / "tft-in.parquet", row_group_size=10_000)


if __name__ == "__main__":
    started = time.perf_counter()
    {"tfdv": tfdv, "tft": tft}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    found = {
        "cpu": sum(each.ru_utime + each.ru_stime for each in used),
        "wall": time.perf_counter() - started,
        "megabytes": int(peak.split()[1]) / 1024,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")
