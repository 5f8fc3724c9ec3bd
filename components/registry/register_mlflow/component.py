"""The KFP interface of `register_mlflow`."""

from kfp import dsl


@dsl.component(base_image="pipeparts-python-registry", install_kfp_package=False)
def register_mlflow(
    model: dsl.Input[dsl.Model],
    verdict: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    registration: dsl.Output[dsl.Artifact],
    model_name: str,
    champion: str = "",
    alias: str = "champion",
    experiment: str = "",
    tracking_uri: str = "",
    run_name: str = "",
    pipeline_hash: str = "",
) -> str:
    """Registers a model that passed its gate as a version in an MLflow registry, and moves the alias to it.

    The version carries its lineage as tags; parameters, metrics, verdict and evaluation go to an MLflow run (the one
    that MLFLOW_RUN_ID names, where the platform has set it). A model that is already registered is found by its
    fingerprint and not registered twice, so a retry goes on where it stopped. The alias moves only while it is still
    where `champion` says. It writes to a service, so it may never be cached: set `.set_caching_options(False)` on it.

    Args:
        model: The model.
        verdict: The verdict of the model's gate; it must have passed.
        evaluation: The evaluation whose metrics are tracked.
        model_name: The registered model's name; it is made where it is not there.
        champion: What the gate compared the model with, as `find_champion_mlflow` gave it; empty: nothing.
        alias: The alias to move; empty: none, the version is registered and not promoted.
        experiment: The MLflow experiment of the run; empty: the environment's MLFLOW_EXPERIMENT_NAME, or `model_name`.
        tracking_uri: The registry, `http(s)://...` or `sqlite:///...`; empty: the environment's MLFLOW_TRACKING_URI.
            For a login set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, never a URI with a password.
        run_name: The pipeline run's name, for the lineage.
        pipeline_hash: The hash of the compiled pipeline, for the lineage.

    Returns:
        registration: What was registered: JSON with name, version, uri, alias, promoted, run and tags.
        Output: The version number.

    Raises:
        DataError: Where the verdict has not passed.
        InputError: Where the tracking URI is missing or cannot be used, or a name is not allowed.
        ServiceError: Where the registry does not answer or refuses, or the champion changed meanwhile.
        ContractError: Where an artifact is not what it should be.
    """
    from pipeparts.components.registry.register_mlflow import logic

    registered = logic.register_mlflow(
        model_path=model.path,
        verdict_path=verdict.path,
        evaluation_path=evaluation.path,
        registration_path=registration.path,
        model_name=model_name,
        champion=champion,
        alias=alias,
        experiment=experiment,
        tracking_uri=tracking_uri,
        run_name=run_name,
        pipeline_hash=pipeline_hash,
    )
    registration.metadata.update(registered)
    return str(registered["version"])
