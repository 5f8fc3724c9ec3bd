"""The KFP interface of `train_keras`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tensorflow", install_kfp_package=False)
def train_keras(
    train_table: dsl.Input[dsl.Dataset],
    validation_table: dsl.Input[dsl.Dataset],
    transform: dsl.Input[dsl.Artifact],
    profile: dsl.Input[dsl.Artifact],
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    page: dsl.Output[dsl.HTML],
    label: str,
    task: str = "classification",
    hyperparameters: Optional[dict] = None,
    network: str = "",
    network_version: str = "",
    seed: int = 0,
) -> None:
    """Trains a Keras network on a table.

    Embeddings and hidden layers beside a linear part, or a network of your own; early stopping on the
    validation table. Streams: memory does not grow with the table.

    Args:
        train_table: The training table: the transform's raw columns and the label. Rows without a label
            are left out, and counted.
        validation_table: The validation table, for early stopping and the metrics.
        transform: The transform that `fit_features` fitted on the training table.
        profile: The training table's profile; it travels with the model, for drift later.
        label: The label's column: string, bool or number for classes, a number for regression.
        task: "classification" (2 to 1,000 classes) or "regression".
        hyperparameters: Name to value, defaults for the rest. See `KerasParams` in its logic: epochs, batch_rows,
            learning_rate, schedule, weight_decay, hidden_units, dropout, wide, patience, class_weights,
            checkpoint_folder and more.
        network: Import path `package.module:function` of a function from `NetworkSpec` to a `keras.Model`; empty: the
            library's own.
        network_version: Tells apart the code under the same `network`, so that a cached result is not a stale one.
        seed: Of everything random: the same seed, data and versions give the same model.

    Returns:
        model: An MLflow model folder that takes raw columns, with the transform inside. Its folder `savedmodel` is what
            TF Serving and Vertex load. What a drift report compares with travels in it: the training profile, a sample
            of the training rows, and a profile and a sample of the predictions on the validation table.
        metrics: Losses and the main metrics on the validation table.
        page: Learning curves, the network and the hyperparameters.

    Raises:
        InputError: For a wrong parameter, or tables that lack a column.
        DataError: For labels that cannot be learned, or a loss that is no number.
        ContractError: For an artifact that is not what it should be.
    """
    from pipeparts.components.training.train_keras import logic

    trained = logic.train_keras(
        train_path=train_table.path,
        validation_path=validation_table.path,
        transform_path=transform.path,
        profile_path=profile.path,
        model_path=model.path,
        metrics_path=metrics.path,
        page_path=page.path,
        label=label,
        task=task,
        hyperparameters=hyperparameters,
        network=network,
        network_version=network_version,
        seed=seed,
    )
    model.framework = trained.info.framework
    model.metadata.update(trained.info.metadata())
    metrics.metadata.update(trained.metrics)
