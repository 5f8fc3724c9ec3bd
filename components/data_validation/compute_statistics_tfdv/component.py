"""The KFP interface of `compute_statistics_tfdv`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tfx", install_kfp_package=False)
def compute_statistics_tfdv(
    table: dsl.Input[dsl.Dataset],
    statistics: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    columns: Optional[list] = None,
    slices: Optional[list] = None,
    weight_column: str = "",
    split: str = "train",
    histogram_buckets: int = 10,
    top_values: int = 20,
    beam_options: Optional[dict] = None,
    schema: Optional[dsl.Input[dsl.Artifact]] = None,
) -> int:
    """Computes the statistics of a table that TensorFlow Data Validation and TFX read.

    Without `beam_options` the table streams through the step itself, in bounded memory. With them a Beam pipeline
    computes the same: on Dataflow, Flink or Spark for what one machine does not finish. Its workers need this package
    with the extra `tfx` (`sdk_container_image` or `setup_file`), and the table's bucket.

    Args:
        table: The table. Dates and timestamps count as seconds since 1970 (UTC), decimals as fractions, and lists as
            features with several values.
        columns: The columns to look at; all where empty.
        slices: What to compute statistics of besides all rows: a column's name, or a list of names, for each of their
            values: ["carrier", ["carrier", "origin"]]. 200 slices at most.
        weight_column: A column of numbers, 0 or more: how much a row counts in the weighted statistics.
        split: The split's name: TFX finds the statistics in a folder called after it.
        histogram_buckets: Buckets of the histograms of numbers, 2 to 1000.
        top_values: How many of the most frequent texts are kept, 1 to 1000.
        beam_options: Options of Beam, such as runner, project, region and temp_location; empty: without Beam.
        schema: A schema of TFDV, for which columns are categories.

    Returns:
        statistics: A folder as TFX's StatisticsGen writes it: Split-<split>/FeatureStats.pb, which
            tfdv.load_stats_binary reads.
        page: The statistics as an HTML page that needs no network.
        Output: Number of rows.

    Raises:
        InputError: For columns, slices or options that are not there or not allowed.
        DataError: For a table without rows, or weights that are not.
        ContractError: Where an input is damaged.
    """
    from pipeparts.components.data_validation.compute_statistics_tfdv import logic

    found = logic.compute_statistics(
        table_path=table.path,
        table_uri=table.uri,
        statistics_path=statistics.path,
        page_path=page.path,
        columns=columns,
        slices=slices,
        weight_column=weight_column,
        split=split,
        histogram_buckets=histogram_buckets,
        top_values=top_values,
        beam_options=beam_options,
        schema_path=schema.path if schema else None,
    )
    statistics.metadata.update(found)
    return int(found["rows"])
