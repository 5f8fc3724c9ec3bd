"""The KFP interface of `find_champion_mlflow`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-registry", install_kfp_package=False)
def find_champion_mlflow(
    model_name: str,
    alias: str = "champion",
    tracking_uri: str = "",
    model: Optional[dsl.Input[dsl.Model]] = None,
) -> str:
    """Finds the version with the alias in an MLflow registry: the one that serves, and that a new model has to beat.

    What it finds changes while its arguments do not, so it may never be cached: set
    `.set_caching_options(False)` on it. Where the alias is already on a version of this very model, it gives
    what that version was compared with: an unchanged run gets the same verdict, and its gate is served from the cache.

    Args:
        model_name: The registered model's name.
        alias: The alias that marks the champion.
        tracking_uri: The registry, `http(s)://...` or `sqlite:///...`; empty: the environment's MLFLOW_TRACKING_URI.
            For a login set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, never a URI with a password.
        model: The new model, where there is one; its fingerprint alone is looked at.

    Returns:
        The champion's URI, as `models:/name/3`; empty where there is none yet.

    Raises:
        InputError: Where the tracking URI is missing or cannot be used, or a name is not allowed.
        ServiceError: Where the registry does not answer, or refuses.
        ContractError: Where the artifact is no model of this library.
    """
    from pipeparts.components.registry.find_champion_mlflow import logic

    return logic.find_champion_mlflow(
        model_name=model_name, alias=alias, tracking_uri=tracking_uri, model_path=None if model is None else model.path
    )
