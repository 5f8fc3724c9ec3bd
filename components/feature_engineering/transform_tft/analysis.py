"""A declared feature set fitted by TensorFlow Transform's analyzers: through Beam, so at any scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeparts.components.feature_engineering.transform_tft.places import Places
from pipeparts.runtime.feature_fitting import declared, fitting
from pipeparts.runtime.serving import features as fitted
from pipeparts.runtime.serving import times
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.serving.values import NUMBER_TYPES, TIME_TYPES, Strings, canonical

#: The most by which the rank of a quantile that makes a feature is off; of one that is only drawn.
EPSILON = 1e-4
_EPSILON_SHOWN = 1e-2
_PERCENTILES = 100

# Analyzers give one vector for each feature, in this order.
_NUMBERS = ("rows", "present", "infinite", "mean", "variance", "least", "greatest")


def analyze(
    wanted: Mapping[str, declared.Declared], columns: Mapping[str, str], places: Places, beam_options: Any
) -> Transform:
    """Fits declared features on a table.

    Args:
        wanted: The declared features.
        columns: The raw columns that they need, name to type name, in order.
        places: The table, and where to work.
        beam_options: Beam's PipelineOptions.

    Returns:
        The transform, the same as `fit_features` fits but for the ranks of quantiles and the last digits of moments.

    Raises:
        InputError: For a declaration that does not fit its column.
        DataError: For a category of numbers too large to be told apart.
    """
    plans = [
        _plan(place, name, declaration, [columns[column] for column in declaration.raw_columns(name)])
        for place, (name, declaration) in enumerate(wanted.items())
    ]
    folder = places.folder("analysis")
    _run(plans, columns, places, folder, beam_options)
    found = _Found(folder, columns)
    return fitting.assemble(columns, [plan.finish(found) for plan in plans])


class _Plan:
    """What one feature asks TFT for, and what becomes of the answer.

    Args:
        key: What its outputs and its vocabulary are called.
        name: The feature's name.
        columns: Its raw columns.
    """

    def __init__(self, key: str, name: str, columns: tuple[str, ...]) -> None:
        self.key = key
        self.name = name
        self.columns = columns

    def ask(self, raw: Sequence[Any]) -> dict[str, Any]:
        """The analyzers' results, by name: vectors of float64. Called while TFT traces the graph."""
        raise NotImplementedError

    def finish(self, found: _Found) -> tuple[fitted.Feature, dict[str, Any]]:
        """The fitted feature and its statistics."""
        raise NotImplementedError


class _NumberPlan(_Plan):
    """Counts, moments and quantiles."""

    def __init__(
        self, key: str, name: str, columns: tuple[str, ...], declaration: declared.Numeric | declared.Bucketize
    ) -> None:
        super().__init__(key, name, columns)
        self._declared = declaration
        if isinstance(declaration, declared.Bucketize):
            self._started = fitted.Numeric(name=name, column=columns[0])
            self._buckets = declaration.buckets or 10
        else:
            self._started = fitting.start_numeric(name, columns[0], declaration)
            steps = declaration.quantiles - 1 if declaration.scale == "quantile" else 1
            # Twice as many have the median among them.
            self._buckets = 2 * steps if declaration.missing == "median" or steps == 1 else steps
        self._wants_quantiles = fitting.needs_quantiles(declaration)

    def ask(self, raw: Sequence[Any]) -> dict[str, Any]:
        import tensorflow as tf
        import tensorflow_transform as tft

        from pipeparts.runtime.serving.transform_tf import TENSORFLOW

        numbers = raw[0]
        values = self._started.prepare(TENSORFLOW, tf.boolean_mask(numbers, tf.math.is_finite(numbers)))
        counts = [tf.ones_like(numbers), tf.math.is_finite(numbers), tf.math.is_inf(numbers)]
        mean, variance = tft.mean(values), tft.var(values)
        # TFT's quantiles are float32, which is coarse far from zero: those of standardized values, in a second pass.
        deviation = tf.sqrt(variance)
        deviation = tf.where(deviation > 0.0, deviation, tf.ones_like(deviation))
        centred = (values - mean) / deviation

        def quantiles(buckets: int, epsilon: float) -> Any:
            return tf.cast(tft.quantiles(centred, buckets, epsilon), tf.float64) * deviation + mean

        asked = {
            "numbers": tf.stack(
                [
                    *(tf.cast(tft.sum(tf.cast(flags, tf.int64)), tf.float64) for flags in counts),
                    mean,
                    variance,
                    tft.min(values),
                    tft.max(values),
                ]
            ),
            "shown": quantiles(_PERCENTILES, _EPSILON_SHOWN),
        }
        if self._wants_quantiles:
            asked["quantiles"] = quantiles(self._buckets, min(EPSILON, 0.1 / self._buckets))
        return asked

    def finish(self, found: _Found) -> tuple[fitted.Feature, dict[str, Any]]:
        numbers = dict(zip(_NUMBERS, found.vector(self.key, "numbers").tolist(), strict=True))
        rows, present = int(numbers["rows"]), int(numbers["present"])
        summary = fitting.NumberSummary(rows=rows, missing=rows - present, infinite=int(numbers["infinite"]))
        if present:
            least, greatest = numbers["least"], numbers["greatest"]
            shown = _Grid(least, greatest, found.vector(self.key, "shown"), _EPSILON_SHOWN)
            sketch = None
            if self._wants_quantiles:
                error = min(EPSILON, 0.1 / self._buckets) + 1 / present
                sketch = _Grid(least, greatest, found.vector(self.key, "quantiles"), error)
            summary = dataclasses.replace(
                summary,
                mean=numbers["mean"],
                deviation=float(np.sqrt(max(numbers["variance"], 0.0))),
                least=least,
                greatest=greatest,
                shown=shown.values.tolist(),
                sketch=sketch,
            )
        elif self._wants_quantiles:
            summary = dataclasses.replace(summary, sketch=_Grid(0.0, 0.0, np.zeros(0), 0.0))
        if isinstance(self._declared, declared.Bucketize):
            return fitting.finish_bucketize(self.name, self.columns[0], self._declared, summary)
        return fitting.finish_numeric(self._started, self._declared, summary)


class _CategoryPlan(_Plan):
    """Counts, and how often each value is."""

    def __init__(
        self, key: str, name: str, columns: tuple[str, ...], declaration: declared.Category, types: Sequence[str]
    ) -> None:
        super().__init__(key, name, columns)
        self._declared = declaration
        self._are_numbers = len(types) == 1 and types[0] != "string"
        self._number_places = [place for place, kind in enumerate(types) if kind != "string"]

    def ask(self, raw: Sequence[Any]) -> dict[str, Any]:
        import tensorflow as tf
        import tensorflow_transform as tft

        from pipeparts.runtime.serving.transform_tf import category_text

        text = category_text(raw)
        present = tf.not_equal(text, "")
        if not self._declared.hashed:
            tft.vocabulary(
                tf.boolean_mask(text, present),
                frequency_threshold=self._declared.min_count,
                vocab_filename=self.key,
                store_frequency=True,
                file_format="tfrecord_gzip",  # takes every text, and every byte in it
            )
        counts = [tf.ones_like(text, tf.int64), tf.cast(present, tf.int64)]
        asked = {"counts": tf.stack([tf.cast(tft.sum(flags), tf.float64) for flags in counts])}
        if self._number_places:
            numbers = [raw[place] for place in self._number_places]
            finite = [tf.where(tf.math.is_finite(column), tf.abs(column), tf.zeros_like(column)) for column in numbers]
            asked["greatest"] = tf.stack([tft.max(column) for column in finite])
        return asked

    def finish(self, found: _Found) -> tuple[fitted.Feature, dict[str, Any]]:
        if self._number_places:
            for place, greatest in zip(self._number_places, found.vector(self.key, "greatest"), strict=True):
                fitting.require_exact(self.columns[place], np.array([greatest]))
        rows, present = (int(number) for number in found.vector(self.key, "counts"))
        counts = {} if self._declared.hashed else self._counts(found)
        return fitting.finish_category(
            self.name,
            self.columns,
            self._declared,
            counts,
            rows=rows,
            missing=rows - present,
            is_whole=self._declared.min_count == 1 or not present,
        )

    def _counts(self, found: _Found) -> dict[Any, int]:
        """The most frequent values with their counts; of those as rare as the last one all: ties have an order."""
        counts: dict[Any, int] = {}
        last = 0
        for text, count in found.vocabulary(self.key):
            if len(counts) >= self._declared.most_values and count < last:
                break
            counts[_number_of(text) if self._are_numbers else text] = last = count
        return counts


class _TimePlan(_Plan):
    """How often a time is missing, and when the first and the last are."""

    def __init__(
        self, key: str, name: str, columns: tuple[str, ...], declaration: declared.Time, type_name: str
    ) -> None:
        super().__init__(key, name, columns)
        self._feature = fitting.start_time(name, columns[0], declaration, type_name)

    def ask(self, raw: Sequence[Any]) -> dict[str, Any]:
        import tensorflow as tf
        import tensorflow_transform as tft

        present = tf.not_equal(raw[0], times.MISSING)
        seen = tf.boolean_mask(raw[0], present)
        counts = [tft.sum(tf.ones_like(raw[0])), tft.sum(tf.cast(present, tf.int64))]
        # Microseconds since 1970 are more than float64 holds in the far past and future: as bits.
        ends = [tf.bitcast(end, tf.float64) for end in (tft.min(seen), tft.max(seen))]
        return {"counts": tf.stack([tf.cast(count, tf.float64) for count in counts]), "ends": tf.stack(ends)}

    def finish(self, found: _Found) -> tuple[fitted.Feature, dict[str, Any]]:
        rows, present = (int(number) for number in found.vector(self.key, "counts"))
        least, greatest = (int(end) for end in found.vector(self.key, "ends").view(np.int64))
        return fitting.finish_time(self._feature, rows=rows, missing=rows - present, least=least, greatest=greatest)


def _plan(place: int, name: str, declaration: declared.Declared, types: Sequence[str]) -> _Plan:
    key, columns = f"feature_{place}", declaration.raw_columns(name)
    if isinstance(declaration, declared.Category):
        return _CategoryPlan(key, name, columns, declaration, types)
    if isinstance(declaration, declared.Time):
        return _TimePlan(key, name, columns, declaration, types[0])
    return _NumberPlan(key, name, columns, declaration)


class _Grid:
    """Quantiles at evenly spread ranks, linear in between."""

    def __init__(self, least: float, greatest: float, inner: npt.NDArray[np.float64], rank_error: float) -> None:
        self.least = least
        self.rank_error = rank_error
        self.values = np.concatenate([[least], np.clip(inner, least, greatest), [greatest]])

    def quantiles(self, ranks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = np.interp(ranks, np.linspace(0.0, 1.0, len(self.values)), self.values)
        return found


class _Found:
    """The analyzers' results in the transform graph that TFT wrote."""

    def __init__(self, folder: str, columns: Mapping[str, str]) -> None:
        import tensorflow as tf
        import tensorflow_transform as tft

        self._output = tft.TFTransformOutput(folder)
        self._loaded = tf.saved_model.load(self._output.transform_savedmodel_dir)
        empty = {name: tf.zeros([1], _tensor_type(kind)) for name, kind in columns.items() if kind not in ("string",)}
        texts = {name: tf.constant([""]) for name, kind in columns.items() if kind == "string"}
        self._vectors = self._loaded.transform_fn({**empty, **texts})

    def vector(self, key: str, part: str) -> npt.NDArray[np.float64]:
        """The numbers of one answer."""
        bits: npt.NDArray[np.int64] = self._vectors[f"{key}_{part}"].numpy()[0]
        return np.asarray(bits.view(np.float64), dtype=np.float64)

    def vocabulary(self, key: str) -> Any:
        """Each text with its count, the most frequent first."""
        import tensorflow as tf

        path = self._output.vocabulary_file_by_name(key)
        for record in tf.data.TFRecordDataset(path, compression_type="GZIP").as_numpy_iterator():
            count, _, text = record.partition(b" ")
            yield text, int(count)


def _run(plans: Sequence[_Plan], columns: Mapping[str, str], places: Places, folder: str, beam_options: Any) -> None:
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam
    from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

    def preprocessing_fn(inputs: Mapping[str, Any]) -> dict[str, Any]:
        import tensorflow as tf

        rows = tf.shape(next(iter(inputs.values())))[:1]
        outputs = {}
        for plan in plans:
            for part, vector in plan.ask([inputs[name] for name in plan.columns]).items():
                # TFT's outputs are float32, int64 or strings, one a row: float64 goes as its bits.
                bits = tf.bitcast(tf.reshape(vector, [-1]), tf.int64)
                outputs[f"{plan.key}_{part}"] = tf.broadcast_to(bits, tf.concat([rows, tf.shape(bits)], 0))
                outputs[f"{plan.key}_{part}"].set_shape([None, vector.shape.num_elements()])
        return outputs

    schema = pa.schema([(name, pa.large_list(_arrow_type(kind))) for name, kind in columns.items()])
    config = TensorAdapterConfig(schema, {name: _dense(name) for name in columns})
    with beam.Pipeline(options=beam_options) as pipeline, tft_beam.Context(temp_dir=places.folder("tft")):
        rows = (
            pipeline
            | "Read" >> beam.io.ReadFromParquetBatched(places.table_pattern, columns=list(columns))
            | "Canonical" >> beam.FlatMap(_canonical_batches, dict(columns))
        )
        _ = (rows, config) | tft_beam.AnalyzeDataset(preprocessing_fn) | tft_beam.WriteTransformFn(folder)


def _canonical_batches(table: pa.Table, columns: Mapping[str, str]) -> list[pa.RecordBatch]:
    """The raw columns in the forms that the formulas take, as lists of one value a row."""
    from tfx_bsl.arrow.array_util import ToSingletonListArray

    batches = []
    for batch in table.to_batches():
        arrays = []
        for name, kind in columns.items():
            values = canonical(batch.column(name), kind, column=name)
            if isinstance(values, Strings):
                array = pa.array(values.distinct, pa.large_binary()).take(pa.array(values.codes))
            else:
                array = pa.array(values)
            arrays.append(ToSingletonListArray(array))
        batches.append(pa.RecordBatch.from_arrays(arrays, names=list(columns)))
    return batches


def _arrow_type(kind: str) -> pa.DataType:
    return pa.float64() if kind in NUMBER_TYPES else pa.int64() if kind in TIME_TYPES else pa.large_binary()


def _tensor_type(kind: str) -> Any:
    import tensorflow as tf

    return tf.float64 if kind in NUMBER_TYPES else tf.int64


def _dense(column: str) -> Any:
    from tensorflow_metadata.proto.v0 import schema_pb2

    representation = schema_pb2.TensorRepresentation()
    representation.dense_tensor.column_name = column
    representation.dense_tensor.shape.SetInParent()
    return representation


def _number_of(text: bytes) -> float:
    """The number behind the text that a category has for it."""
    if text[:1] == b"b":
        return float(np.int64(int(text[1:])).view(np.float64))
    return float(text)
