"""Trains a model on a table, and registers it where it passes the gate."""

from typing import Any

from kfp import dsl

from pipeparts.components import (
    evaluate_model,
    find_champion_mlflow,
    fit_features,
    ingest_files,
    profile_table,
    register_mlflow,
    require_verdict,
    split_table,
    train_lightgbm,
    validate_model,
    validate_table,
    write_outcome,
)


def build(trainer: Any, *, name: str) -> Any:
    """Builds the pipeline around a training component.

    Args:
        trainer: Any component with the inputs and outputs of `train_lightgbm`.
        name: The pipeline's name in the consoles.

    Returns:
        The pipeline.
    """

    @dsl.pipeline(name=name)
    def train_and_register(
        source: str,
        label: str,
        features: dict,
        model_name: str,
        source_version: str = "",
        columns: dict = {},  # noqa: B006 (kfp reads it, nothing writes to it; None does not run everywhere)
        ingest_options: dict = {},  # noqa: B006
        max_bad_rows: int = 0,
        schema: dict = {},  # noqa: B006
        split_method: str = "hash",
        split_columns: list = [],  # noqa: B006
        split_fractions: list = [],  # noqa: B006
        split_boundaries: list = [],  # noqa: B006
        task: str = "classification",
        hyperparameters: dict = {},  # noqa: B006
        network: str = "",
        network_version: str = "",
        seed: int = 0,
        slices: list = [],  # noqa: B006
        gate: dict = {},  # noqa: B006
        alias: str = "champion",
        experiment: str = "",
        tracking_uri: str = "",
        pipeline_hash: str = "",
    ) -> None:
        """Trains a model on a table, and registers it where it passes the gate.

        Reads the data, judges it before anything is built on it, splits it, fits the features on the
        training table, trains, measures on the test table, compares with the champion on the same rows, and
        gives the new version the champion's alias where the gate lets it through. What happened is
        written down at the end, however the run went.

        Args:
            source: The data: a path, a glob, a folder or a URL (`gs://`, `s3://`, `https://`).
            label: The column to predict. Rows without it are read, and left out of training and evaluation.
            features: The feature set: column to how it is prepared; see `fit_features`.
            model_name: The registered model's name.
            source_version: Tells apart the data under the same `source`; filled in on submission where it is empty.
            columns: Column to type, for those whose type is not to be inferred; see `ingest_files`.
            ingest_options: How the files are written: delimiter, encoding, spellings of null; see `ingest_files`.
            max_bad_rows: Most rows that may be unreadable before the run fails.
            schema: What the data must look like; where it is empty, only what every table must hold is checked.
            split_method: "hash" of key columns, "time" or "stratified"; see `split_table`.
            split_columns: The key columns, or the column of the time.
            split_fractions: Shares of the training, the validation and the test table.
            split_boundaries: For "time": the first moment of the validation table, and of the test table.
            task: "classification" or "regression".
            hyperparameters: Of the training; see the training component.
            network: Import path `package.module:function` of a Keras network of your own; empty for the library's.
            network_version: Tells apart the code under the same `network`; filled in on submission where it is empty.
            seed: Of everything random in the training.
            slices: Columns whose every value is measured and held against the champion apart.
            gate: Thresholds and margins; see `validate_model`.
            alias: The alias that the version takes.
            experiment: The MLflow experiment of the run; empty for the model's name.
            tracking_uri: The MLflow server; empty for `MLFLOW_TRACKING_URI` of the environment.
            pipeline_hash: Of the compiled YAML, for the lineage; filled in on submission where it is empty.
        """
        outcome = write_outcome(run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)
        outcome.set_caching_options(False)

        with dsl.ExitHandler(outcome, name="training"):
            ingested = ingest_files(
                source=source,
                source_version=source_version,
                columns=columns,
                options=ingest_options,
                max_bad_rows=max_bad_rows,
            )

            profiled = profile_table(table=ingested.outputs["table"])

            checked = validate_table(
                table=ingested.outputs["table"], profile=profiled.outputs["profile"], schema=schema
            )

            required = require_verdict(verdict=checked.outputs["verdict"])

            split = split_table(
                table=ingested.outputs["table"],
                method=split_method,
                columns=split_columns,
                fractions=split_fractions,
                boundaries=split_boundaries,
            ).after(required)

            training_profile = profile_table(table=split.outputs["train_table"])
            training_profile.set_display_name("profile-training-table")

            fitted = fit_features(table=split.outputs["train_table"], features=features, label=label)

            trained = trainer(
                train_table=split.outputs["train_table"],
                validation_table=split.outputs["validation_table"],
                transform=fitted.outputs["transform"],
                profile=training_profile.outputs["profile"],
                label=label,
                task=task,
                hyperparameters=hyperparameters,
                network=network,
                network_version=network_version,
                seed=seed,
            )

            evaluated = evaluate_model(model=trained.outputs["model"], table=split.outputs["test_table"], slices=slices)

            champion = find_champion_mlflow(
                model=trained.outputs["model"], model_name=model_name, alias=alias, tracking_uri=tracking_uri
            )
            champion.set_caching_options(False)

            judged = validate_model(
                model=trained.outputs["model"],
                table=split.outputs["test_table"],
                evaluation=evaluated.outputs["evaluation"],
                champion=champion.output,
                gate=gate,
                tracking_uri=tracking_uri,
            )

            with dsl.If(judged.outputs["Output"] == True, name="passed-the-gate"):  # noqa: E712 (kfp builds a condition)
                registered = register_mlflow(
                    model=trained.outputs["model"],
                    verdict=judged.outputs["verdict"],
                    evaluation=evaluated.outputs["evaluation"],
                    model_name=model_name,
                    champion=champion.output,
                    alias=alias,
                    experiment=experiment,
                    tracking_uri=tracking_uri,
                    run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
                    pipeline_hash=pipeline_hash,
                )
                registered.set_caching_options(False)

    return train_and_register


train_and_register = build(train_lightgbm, name="train-and-register")
