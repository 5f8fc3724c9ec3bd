"""The KFP interface of `transform_tft`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tfx", install_kfp_package=False)
def transform_tft(
    table: dsl.Input[dsl.Dataset],
    transform: dsl.Output[dsl.Artifact],
    transform_graph: dsl.Output[dsl.Artifact],
    transformed_table: dsl.Output[dsl.Dataset],
    transformed_examples: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    features: Optional[dict] = None,
    preprocessing_fn: str = "",
    label: str = "",
    split: str = "train",
    beam_options: Optional[dict] = None,
    schema: Optional[dsl.Input[dsl.Artifact]] = None,
    fitted_graph: Optional[dsl.Input[dsl.Artifact]] = None,
) -> None:
    """Transforms a table by TensorFlow Transform: a declared feature set, a preprocessing_fn, or a graph fitted before.

    Give exactly one of `features`, `preprocessing_fn` and `fitted_graph`. With declared features the trainers take
    `transform` with the raw tables, as from `fit_features`. With a preprocessing_fn of a team they take it with the
    transformed tables: of the others by this component again, with `fitted_graph`.

    Args:
        table: The table to learn from, the training part only; with `fitted_graph` any table to be transformed.
        features: A declared feature set, as `fit_features` takes it.
        preprocessing_fn: A function of TensorFlow Transform: `package.module:function` in the step's image, or
            `gs://bucket/file.py:function`.
        label: The column to be predicted; it goes through declared features as it is. Empty: none.
        split: The split's name in the transformed examples: TFX finds them in a folder called after it.
        beam_options: Options of Beam, such as runner, project, region and temp_location; empty: in the step itself.
        schema: The raw columns for a preprocessing_fn, a schema of TFDV; without it columns with missing values are
            sparse tensors and the others dense ones, as TFX's SchemaGen infers it.
        fitted_graph: A transform graph of this component or of TFX's Transform: applied, nothing is learned.

    Returns:
        transform: What the trainers take (JSON): the raw columns' features; or each column of the transformed table
            as it is.
        transform_graph: TFT's output folder as TFX's Transform writes it: transform_fn, transformed_metadata, metadata.
        transformed_table: The features and the label, a column each.
        transformed_examples: The same as TFX has them: gzipped TFRecords of tf.Example in Split-<split>.
        page: Raw columns and what becomes of them.

    Raises:
        InputError: For none or several of features, preprocessing_fn and fitted_graph, or one that is wrong.
        DataError: For a table without rows, or values that the graph cannot take.
        ContractError: Where an input is damaged, or the table is not what the graph takes.
    """
    from pipeparts.components.feature_engineering.transform_tft import logic

    metadata, info = logic.transform_tft(
        table_path=table.path,
        table_uri=table.uri,
        transform_path=transform.path,
        transform_graph_path=transform_graph.path,
        transformed_table_path=transformed_table.path,
        transformed_examples_path=transformed_examples.path,
        page_path=page.path,
        features=features,
        preprocessing_fn=preprocessing_fn,
        label=label,
        split=split,
        beam_options=beam_options,
        schema_path=schema.path if schema else None,
        fitted_graph_path=fitted_graph.path if fitted_graph else None,
    )
    transform.metadata.update(metadata)
    transformed_table.metadata.update(info.metadata())
