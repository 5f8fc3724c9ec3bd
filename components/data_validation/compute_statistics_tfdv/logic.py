"""The work of `compute_statistics_tfdv`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeparts.components.data_validation.compute_statistics_tfdv.arrow import (
    as_features,
    check_types,
    truth_columns,
)
from pipeparts.components.data_validation.compute_statistics_tfdv.page import build_page
from pipeparts.runtime.beam import is_local, pipeline_options, runner_of
from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.tables import Table
from pipeparts.runtime.tfdv import ALL_ROWS, SPLIT_PREFIX, STATISTICS_FILE, read_schema, write_statistics

logger = logging.getLogger(__name__)

_MOST_SLICES = 200
_MOST_VALUES = 1000
#: The sketch of the most frequent values holds as many; with more, a count may be too high by a share of 1 in as many.
_SKETCH_VALUES = 32_768
#: As TFDV's own default: more different values than these are estimated.
_UNIQUE_BUCKETS = 16_384
_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def compute_statistics(
    *,
    table_path: str | os.PathLike[str],
    table_uri: str,
    statistics_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    columns: Sequence[str] | None,
    slices: Sequence[Any] | None,
    weight_column: str,
    split: str,
    histogram_buckets: int,
    top_values: int,
    beam_options: Mapping[str, Any] | None,
    schema_path: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """Computes TFDV's statistics of a table.

    Args:
        table_path: The table's folder.
        table_uri: The same, as a runner elsewhere reads it.
        statistics_path: Where the statistics' folder goes.
        page_path: Where the HTML page goes.
        columns: The columns to look at; all where empty.
        slices: Columns, or lists of columns, for each of whose values there are statistics.
        weight_column: How much a row counts.
        split: The split's name.
        histogram_buckets: Buckets of the histograms of numbers.
        top_values: How many texts are kept.
        beam_options: Options of Beam; None or empty: the step itself, without Beam.
        schema_path: A schema, for which columns are categories.

    Returns:
        What goes onto the artifact.

    Raises:
        InputError: For columns, slices or options that are not there or not allowed.
        DataError: For a table without rows, or weights that are not.
        ContractError: Where an input is damaged.
    """
    _check_numbers(split, histogram_buckets, top_values)
    options = pipeline_options(beam_options) if beam_options else None
    table = Table(table_path)
    table.require(columns or [], parameter="columns")
    sliced = _parse_slices(slices, table)
    names = list(dict.fromkeys([*(columns or table.schema.names), *(name for group in sliced for name in group)]))
    if weight_column:
        _check_weights(table, weight_column)
        names = list(dict.fromkeys([*names, weight_column]))
    check_types(table.schema, names)
    if table.rows == 0:
        raise DataError("a table without rows has no statistics", where=str(table_path), allowed="one row at least")
    from tensorflow_data_validation.statistics.stats_options import StatsOptions
    from tensorflow_data_validation.utils import slicing_util

    wanted = StatsOptions(
        schema=_schema(schema_path, truth_columns(table.schema, names)),
        weight_feature=weight_column or None,
        experimental_slice_functions=[slicing_util.get_feature_value_slicer(dict.fromkeys(group)) for group in sliced]
        or None,
        add_default_generators=False,
    )
    wanted.generators = _generators(wanted, histogram_buckets=int(histogram_buckets), top_values=int(top_values))
    if options is None:
        logger.info("%s rows, %s columns: computed in this step, without Beam", f"{table.rows:,}", len(names))
        found = _in_this_step(table, names, wanted)
    else:
        runner = runner_of(beam_options)
        logger.info("%s rows, %s columns: computed by Beam's %s", f"{table.rows:,}", len(names), runner)
        uri = str(table_path) if is_local(beam_options) else table_uri
        found = _by_beam(uri, names, wanted, options, runner=runner)
    _sort(found)
    _drop_arbitrary_values(found)
    _require_few(len(found.datasets) - 1)
    write_statistics(statistics_path, found, split=split)
    build_page(found, source=table.info.source, weighted=bool(weight_column)).write(page_path)
    return {
        "rows": table.rows,
        "features": len(found.datasets[0].features),
        "slices": len(found.datasets) - 1,
        "split": split,
        "file": f"{SPLIT_PREFIX}{split}/{STATISTICS_FILE}",
        "table_fingerprint": table.info.fingerprint,
    }


def _check_numbers(split: str, histogram_buckets: int, top_values: int) -> None:
    if not _SPLIT.fullmatch(split):
        raise InputError(
            "a name of a split that cannot be a folder's",
            parameter="split",
            allowed="letters, digits, '_', '-' and '.', beginning with a letter or a digit",
            received=repr(split),
        )
    for name, value, least, most in (
        ("histogram_buckets", histogram_buckets, 2, 1000),
        ("top_values", top_values, 1, _MOST_VALUES),
    ):
        if not least <= value <= most:
            raise InputError("a number out of range", parameter=name, allowed=f"{least} to {most}", received=value)


def _parse_slices(slices: Sequence[Any] | None, table: Table) -> list[list[str]]:
    """The groups of columns to slice by."""
    groups: list[list[str]] = []
    for place, item in enumerate(slices or []):
        group = [item] if isinstance(item, str) else item
        if not isinstance(group, list) or not group or not all(isinstance(name, str) for name in group):
            raise InputError(
                "a slice that is not one",
                parameter=f"slices[{place}]",
                allowed='a column\'s name, or a list of names: ["carrier", ["carrier", "origin"]]',
                received=repr(item),
            )
        table.require(group, parameter=f"slices[{place}]")
        for name in group:
            kind = table.schema.field(name).type
            if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
                raise InputError(
                    "slices by a column that has no categories",
                    parameter=f"slices[{place}]",
                    where=name,
                    allowed="a column of texts, whole numbers or truth values",
                    received=str(kind),
                )
        groups.append(group)
    return groups


def _check_weights(table: Table, name: str) -> None:
    """Refuses weights that TFDV would count wrongly, or die of."""
    import pyarrow.compute as pc

    table.require([name], parameter="weight_column")
    kind = table.schema.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise InputError(
            "weights that are no numbers",
            parameter="weight_column",
            where=name,
            allowed="a column of numbers",
            received=str(kind),
        )
    row = 0
    for batch in table.batches([name]):
        weights = batch.column(0).cast(pa.float64(), safe=False)
        fits = pc.fill_null(pc.and_(pc.is_finite(weights), pc.greater_equal(weights, 0.0)), False)
        wrong = pc.index(fits, False).as_py()
        if wrong >= 0:
            raise DataError(
                "a weight that is none",
                parameter="weight_column",
                where=f"{name}, row {row + wrong + 1:,}",
                allowed="a number, 0 or more, in every row",
                received=str(batch.column(0)[wrong].as_py()),
            )
        row += batch.num_rows


def _schema(path: str | os.PathLike[str] | None, truths: Sequence[str]) -> Any:
    """The schema given, with the columns of true and false as such; None where there is nothing to say."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = read_schema(path) if path is not None else schema_pb2.Schema()
    known = {feature.name for feature in schema.feature}
    for name in truths:
        if name not in known:
            schema.feature.add(name=name, type=schema_pb2.INT, bool_domain=schema_pb2.BoolDomain())
    return schema if schema.feature else None


def _generators(options: Any, *, histogram_buckets: int, top_values: int) -> list[Any]:
    """TFDV's own default generators, with room for more values: up to `_SKETCH_VALUES` counts are exact."""
    from tensorflow_data_validation.statistics.generators import basic_stats_generator as basic
    from tensorflow_data_validation.statistics.generators import top_k_uniques_sketch_stats_generator as top_k

    common = {"schema": options.schema, "example_weight_map": options.example_weight_map}
    return [
        basic.BasicStatsGenerator(
            num_histogram_buckets=histogram_buckets, num_quantiles_histogram_buckets=histogram_buckets, **common
        ),
        top_k.TopKUniquesSketchStatsGenerator(
            num_top_values=top_values,
            num_rank_histogram_buckets=_MOST_VALUES,
            num_misragries_buckets=_SKETCH_VALUES,
            num_kmv_buckets=_UNIQUE_BUCKETS,
            **common,
        ),
    ]


def _in_this_step(table: Table, names: list[str], options: Any) -> Any:
    """Streams the table through TFDV's own generators, one set of accumulators for each slice."""
    from tensorflow_data_validation.statistics import stats_impl
    from tensorflow_data_validation.utils import slicing_util
    from tensorflow_metadata.proto.v0 import statistics_pb2

    slicers = options.experimental_slice_functions or []
    accumulators: dict[str, list[Any]] = {}
    generators = stats_impl.get_generators(options, in_memory=True)
    for batch in table.batches(names):
        features = as_features(batch, names)
        for name, part in [(ALL_ROWS, features), *slicing_util.generate_slices(features, slicers)]:
            if name not in accumulators:
                accumulators[name] = [generator.create_accumulator() for generator in generators]
                _require_few(len(accumulators) - 1)
            held = accumulators[name]
            for place, generator in enumerate(generators):
                held[place] = generator.add_input(held[place], part)
    found = statistics_pb2.DatasetFeatureStatisticsList()
    for name, held in accumulators.items():
        dataset = stats_impl.extract_statistics_output(held, generators).datasets[0]
        # As by Beam: the one dataset of a list without slices has no name.
        dataset.name = name if slicers else ""
        found.datasets.append(dataset)
    return found


def _by_beam(uri: str, names: list[str], options: Any, beam_options: Any, *, runner: str) -> Any:
    """Runs TFDV's Beam pipeline over the table's part files."""
    import tempfile
    import uuid

    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import GoogleCloudOptions
    from tensorflow_data_validation.api.stats_api import GenerateStatistics, WriteStatisticsToBinaryFile
    from tensorflow_metadata.proto.v0 import statistics_pb2

    if runner == "DataflowRunner" and not uri.startswith("gs://"):
        raise InputError(
            "a table that Dataflow cannot read",
            parameter="beam_options.runner",
            allowed="a table in a bucket: gs://...",
            received=uri,
        )
    with tempfile.TemporaryDirectory() as here:
        place = beam_options.view_as(GoogleCloudOptions).temp_location or here
        result = FileSystems.join(place, f"statistics-{uuid.uuid4().hex}.pb")
        with beam.Pipeline(options=beam_options) as pipeline:
            _ = (
                pipeline
                | "Read" >> beam.io.ReadFromParquetBatched(f"{uri.rstrip('/')}/part-*.parquet", columns=names)
                | "AsFeatures" >> beam.FlatMap(_feature_batches, names)
                | "Compute" >> GenerateStatistics(options)
                | "Write" >> WriteStatisticsToBinaryFile(result)
            )
        try:
            with FileSystems.open(result) as file:
                return statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read())
        finally:
            FileSystems.delete([result])


def _feature_batches(rows: pa.Table, names: list[str]) -> list[pa.RecordBatch]:
    return [as_features(batch, names) for batch in rows.select(names).to_batches()]


def _require_few(slices: int) -> None:
    if slices > _MOST_SLICES:
        raise DataError(
            "more slices than anybody looks at",
            parameter="slices",
            allowed=f"{_MOST_SLICES} at most",
            received=f"{slices} or more",
            hint="slice by columns with fewer values",
        )


def _sort(statistics: Any) -> None:
    """An order that depends on nothing but the names: all rows first, then the slices."""
    datasets = sorted(statistics.datasets, key=lambda dataset: (dataset.name not in ("", ALL_ROWS), dataset.name))
    for dataset in datasets:
        features = sorted(dataset.features, key=lambda feature: list(feature.path.step))
        copies = [type(feature).FromString(feature.SerializeToString()) for feature in features]
        del dataset.features[:]
        dataset.features.extend(copies)
    copies = [type(dataset).FromString(dataset.SerializeToString()) for dataset in datasets]
    del statistics.datasets[:]
    statistics.datasets.extend(copies)


def _drop_arbitrary_values(statistics: Any) -> None:
    """Drops the values of a column with too many, as far as nobody can tell that they are the frequent ones.

    The sketch says a count that is up to an N-th of all counts too high, and which of the rare values it keeps depends
    on a hash that differs from process to process.
    """
    for dataset in statistics.datasets:
        for feature in dataset.features:
            # The number of different values is an estimate, too.
            if not feature.HasField("string_stats") or feature.string_stats.unique < 0.9 * _SKETCH_VALUES:
                continue
            found = feature.string_stats
            common = found.common_stats
            for stats, total in (
                (found, common.tot_num_values),
                (found.weighted_string_stats, common.weighted_common_stats.tot_num_values),
            ):
                doubtful = 2 * total / _SKETCH_VALUES
                kept = sum(bucket.sample_count > doubtful for bucket in stats.rank_histogram.buckets)
                del stats.rank_histogram.buckets[kept:]
                kept = sum(value.frequency > doubtful for value in stats.top_values)
                del stats.top_values[kept:]
