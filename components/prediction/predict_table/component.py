"""The KFP interface of `predict_table`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tensorflow", install_kfp_package=False)
def predict_table(
    table: dsl.Input[dsl.Dataset],
    predictions: dsl.Output[dsl.Dataset],
    columns: Optional[list] = None,
    model_uri: str = "",
    tracking_uri: str = "",
    batch_rows: int = 65536,
    model: Optional[dsl.Input[dsl.Model]] = None,
) -> str:
    """Predicts every row of a table with a model from a registry or an artifact, and says which one made each row.

    The table needs the model's raw columns, and no label. It streams, so that memory does not grow with the table. A
    row that the model has no usable answer for keeps its place with empty predictions, and is counted.
    An alias is resolved once, at the start. What it leads to changes while the arguments do not: set
    `.set_caching_options(False)` with one, or give the version that find_champion_mlflow found.

    Args:
        table: The rows to predict.
        columns: The columns to keep beside the predictions, such as the row's key; none where it is not given.
        model_uri: The registered model, `models:/NAME@ALIAS` or `models:/NAME/VERSION`; either this or `model`.
        tracking_uri: The registry, `http(s)://...` or `sqlite:///...`; empty: the environment's MLFLOW_TRACKING_URI.
        batch_rows: Rows predicted at a time.
        model: The model as an artifact; either this or `model_uri`.

    Returns:
        predictions: The kept columns, the model's `prediction` and probabilities, and `model_version`, which is that
            of the registry or the fingerprint of an artifact; in the table's order.
        Output: The model that predicted, as in `model_version`: `models:/NAME/VERSION`, or the fingerprint.

    Raises:
        InputError: For none or both of `model_uri` and `model`, or columns that the table lacks or that are taken.
        ContractError: Where the registry lacks the model or its files, or the table is not what the model takes.
        ServiceError: Where the registry does not answer, or refuses.
    """
    from pipeparts.components.prediction.predict_table import logic

    predicted = logic.predict_table(
        table_path=table.path,
        predictions_path=predictions.path,
        columns=columns,
        model_uri=model_uri,
        tracking_uri=tracking_uri,
        batch_rows=batch_rows,
        model_path=None if model is None else model.path,
    )
    predictions.metadata.update(predicted.metadata())
    return str(predicted.extra["model_version"])
