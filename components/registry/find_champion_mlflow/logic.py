"""The work of `find_champion_mlflow`."""

from __future__ import annotations

import logging
import os
import re

from pipeparts.runtime import mlflow_registry
from pipeparts.runtime.mlflow_registry import Registry, version_uri
from pipeparts.runtime.models import read_model_info

logger = logging.getLogger(__name__)


def find_champion_mlflow(
    *,
    model_name: str,
    alias: str = "champion",
    tracking_uri: str = "",
    model_path: str | os.PathLike[str] | None = None,
) -> str:
    """Finds the version with the alias; for a new model, the version that it is to be compared with.

    Args:
        model_name: The registered model's name.
        alias: The alias that marks the champion.
        tracking_uri: The registry; empty: the environment's MLFLOW_TRACKING_URI.
        model_path: The new model's folder, if there is one.

    Returns:
        `models:/name/version`, or "" where there is none.

    Raises:
        InputError: Where the tracking URI is missing or cannot be used, or a name is not allowed.
        ServiceError: Where the registry does not answer, or refuses.
        ContractError: Where the folder is no model of this library.
    """
    mlflow_registry.require_model_name(model_name)
    mlflow_registry.require_alias(alias)
    fingerprint = None if model_path is None else read_model_info(model_path).fingerprint
    registry = mlflow_registry.connect(tracking_uri, create=False)
    if registry is None:
        logger.info("there is no registry yet, and so no champion")
        return ""
    with mlflow_registry.patience_of_seconds():
        champion = _champion(registry, model_name, alias, fingerprint)
    logger.info("%s@%s in %s: %s", model_name, alias, registry.place, champion or "no champion")
    return champion


def _champion(registry: Registry, name: str, alias: str, fingerprint: str | None) -> str:
    number = registry.aliased_version(name, alias)
    version = registry.version(name, number) if number else None
    if version is None:
        return ""
    if fingerprint is None or version.tags.get(mlflow_registry.TAG_MODEL_FINGERPRINT) != fingerprint:
        return version_uri(name, number)
    logger.info("version %s is this very model: looking for what it was compared with", number)
    earlier = str(version.tags.get(mlflow_registry.TAG_COMPARED_WITH, ""))
    match = re.fullmatch(r"models:/([^/]+)/(\d+)", earlier)
    # A version that was deleted since cannot be compared with again.
    return earlier if match and registry.version(match[1], match[2]) is not None else ""
