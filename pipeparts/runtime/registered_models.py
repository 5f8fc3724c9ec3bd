"""Models in an MLflow registry: from an alias to a version, from a version to its files and its evaluation."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeparts.runtime import mlflow_registry
from pipeparts.runtime.errors import ContractError, InputError, PipepartsError, ServiceError, suggest
from pipeparts.runtime.evaluation import Evaluation, read_evaluation
from pipeparts.runtime.mlflow_registry import Registry, version_uri
from pipeparts.runtime.models import INFO_FILE

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"models:/([^/@]+)/(\d+)")
_ALIAS = re.compile(r"models:/([^/@]+)@([\w\-]+)")
_EVALUATION_FILE = "evaluation.json"
# Without these a folder is no model of the contract: `read_model_info` reads them.
_ALWAYS = ("MLmodel", INFO_FILE)
_MOST_LISTED = 20


def resolve_version(model_uri: str, tracking_uri: str = "", *, parameter: str = "model_uri") -> str:
    """The version that a URI means now: an alias moves, a version does not.

    Args:
        model_uri: `models:/name@alias` or `models:/name/3`.
        tracking_uri: The registry; empty: the environment's MLFLOW_TRACKING_URI.
        parameter: The URI's parameter, for messages.

    Returns:
        The version, as `models:/name/3`.

    Raises:
        InputError: For a URI that is neither, or a tracking URI that cannot be used.
        ContractError: Where the registry has no such model, alias or version.
        ServiceError: Where the registry does not answer, or refuses.
    """
    version = _find(model_uri, _require_registry(model_uri, tracking_uri, parameter), parameter)
    return version_uri(version.name, str(version.version))


@contextlib.contextmanager
def open_model(
    model_uri: str, tracking_uri: str = "", files: Sequence[str] | None = None, *, parameter: str = "model_uri"
) -> Iterator[Path]:
    """Downloads a model, or some files of it, for as long as the block lasts.

    Args:
        model_uri: `models:/name@alias` or `models:/name/3`.
        tracking_uri: The registry; empty: the environment's MLFLOW_TRACKING_URI.
        files: The files at the top of the model's folder that are wanted, besides its MLmodel and its card; one that
            the model does not have is left out. None: the whole model.
        parameter: The URI's parameter, for messages.

    Yields:
        The folder; `read_model_info` reads its card. It is deleted when the block ends.

    Raises:
        InputError: For a URI that is neither, or a tracking URI that cannot be used.
        ContractError: Where the registry has no such model, alias or version, or not its files.
        ServiceError: Where the registry or its storage does not answer, or refuses.
    """
    registry = _require_registry(model_uri, tracking_uri, parameter)
    version = _find(model_uri, registry, parameter)
    uri = version_uri(version.name, str(version.version))
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        logger.info("downloading %s from %s", uri if files is None else f"the card of {uri}", registry.place)
        yield _download(registry, uri, files, Path(scratch))


def registered_evaluation(model_uri: str, tracking_uri: str = "", *, parameter: str = "model_uri") -> Evaluation | None:
    """The evaluation that a version was registered with: the file of its run.

    Args:
        model_uri: `models:/name/3`, or `models:/name@alias`.
        tracking_uri: The registry; empty: the environment's MLFLOW_TRACKING_URI.
        parameter: The URI's parameter, for messages.

    Returns:
        The evaluation; None where the version has no run, the run no evaluation, or one of another model.

    Raises:
        InputError: For a URI that is neither, or a tracking URI that cannot be used.
        ContractError: Where the registry has no such version, or the file is no evaluation.
        ServiceError: Where the registry or its storage does not answer, or refuses.
    """
    registry = _require_registry(model_uri, tracking_uri, parameter)
    version = _find(model_uri, registry, parameter)
    uri = version_uri(version.name, str(version.version))
    evaluation = None
    if version.run_id:
        with tempfile.TemporaryDirectory(prefix="evaluation-") as scratch:
            file = _download_evaluation(registry, uri, version.run_id, Path(scratch))
            evaluation = None if file is None else read_evaluation(file)
    fingerprint = version.tags.get(mlflow_registry.TAG_MODEL_FINGERPRINT)
    if evaluation is None:
        logger.info("the registry has no evaluation of %s", uri)
    elif fingerprint and evaluation.model["fingerprint"] != fingerprint:
        logger.warning("the run of %s holds the evaluation of another model, which is not used", uri)
        evaluation = None
    return evaluation


def _require_registry(model_uri: str, tracking_uri: str, parameter: str) -> Registry:
    _parse(model_uri, parameter)
    registry = mlflow_registry.connect(tracking_uri, create=False)
    if registry is None:
        raise ContractError(
            "there is no registry yet",
            parameter=parameter,
            where=mlflow_registry.without_password(mlflow_registry.resolve_tracking_uri(tracking_uri)),
            allowed="the model of a registry that is there",
            received=model_uri,
        )
    return registry


def _parse(model_uri: str, parameter: str) -> tuple[str, str, str]:
    """The name, the alias and the version's number, one of which is empty."""
    if match := _VERSION.fullmatch(model_uri):
        return mlflow_registry.require_model_name(match[1]), "", str(int(match[2]))
    if (match := _ALIAS.fullmatch(model_uri)) and not re.fullmatch(r"latest|[vV]\d+", match[2]):
        return mlflow_registry.require_model_name(match[1]), mlflow_registry.require_alias(match[2]), ""
    raise InputError(
        "not the URI of a registered model",
        parameter=parameter,
        allowed="models:/NAME@ALIAS or models:/NAME/VERSION, the version as a number",
        received=model_uri or "an empty text",
        hint=_hint_for(model_uri),
    )


def _hint_for(model_uri: str) -> str | None:
    if re.search(r"[/@]latest$", model_uri):
        return "`latest` changes with every registration: give an alias, as models:/NAME@champion, or a version"
    if re.fullmatch(r"[^/@:]+([@/][^/@:]+)", model_uri):
        return f"did you mean 'models:/{model_uri}'?"
    return None


def _find(model_uri: str, registry: Registry, parameter: str) -> ModelVersion:
    """The version that a URI means.

    Raises:
        ContractError: Where the registry has no such model, alias or version.
    """
    name, alias, number = _parse(model_uri, parameter)

    def absent(headline: str, allowed: Any, hint: str | None) -> ContractError:
        return ContractError(
            headline, parameter=parameter, where=registry.place, allowed=allowed, received=model_uri, hint=hint
        )

    with mlflow_registry.patience_of_seconds():
        model = registry.registered_model(name)
        if model is None:
            names = _names(registry)
            raise absent("the registry has no such model", names or "an empty registry has none", suggest(name, names))
        if alias:
            number = str(model.aliases.get(alias, ""))
            aliases = [f"models:/{name}@{known}" for known in sorted(model.aliases)]
            if not number:
                hint = suggest(model_uri, aliases)
                raise absent("the registered model has no such alias", aliases or "no version has an alias yet", hint)
        version = registry.version(name, number)
        if version is None:
            raise absent("the registry has no such version", _versions(registry, name), None)
    return version


def _names(registry: Registry) -> list[str]:
    with registry.talking("list the registered models"):
        return sorted(model.name for model in registry.client.search_registered_models(max_results=_MOST_LISTED))


def _versions(registry: Registry, name: str) -> str:
    with registry.talking(f"list the versions of the model {name!r}"):
        found = registry.client.search_model_versions(f"name = '{name}'", max_results=_MOST_LISTED)
    numbers = sorted(int(version.version) for version in found)
    return ", ".join(version_uri(name, str(number)) for number in numbers) or "the model has no version"


def _download(registry: Registry, uri: str, files: Sequence[str] | None, scratch: Path) -> Path:
    """Brings a version's files here.

    Raises:
        ContractError: Where its files are gone.
        ServiceError: Where the storage does not answer.
    """
    import mlflow

    def whole() -> str:
        return str(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(scratch)))

    def some() -> str:
        there = {entry.path for entry in mlflow.artifacts.list_artifacts(artifact_uri=uri)}
        for file in dict.fromkeys((*_ALWAYS, *(files or ()))):
            if file in there:
                mlflow.artifacts.download_artifacts(artifact_uri=f"{uri}/{file}", dst_path=str(scratch))
        return str(scratch)

    folder = _fetch(registry, uri, whole if files is None else some)
    if folder is None or not (Path(folder) / "MLmodel").is_file():  # some stores give an empty folder for what is gone
        raise ContractError(
            "the registry has the version, but not its files",
            where=registry.place,
            allowed="a version whose files are in the registry's storage",
            received=uri,
        )
    return Path(folder)


def _download_evaluation(registry: Registry, uri: str, run_id: str, scratch: Path) -> Path | None:
    """Brings the evaluation of a version's run here; None where there is none."""
    import mlflow

    def get() -> str | None:
        if _EVALUATION_FILE not in {entry.path for entry in registry.client.list_artifacts(run_id)}:
            return None
        # By its address: asked for a run's file, MLflow takes every failure for a file that is not there.
        address = f"{registry.client.get_run(run_id).info.artifact_uri}/{_EVALUATION_FILE}"
        return str(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(scratch)))

    file = _fetch(registry, f"the evaluation of {uri}", get)
    return None if file is None else Path(file)


def _fetch(registry: Registry, what: str, get: Callable[[], str | None]) -> str | None:
    """Lets MLflow fetch something; None where its storage does not have it.

    Raises:
        ServiceError: Where the storage does not answer, or cannot be reached from here.
    """
    from mlflow.exceptions import MlflowException

    try:
        with registry.talking(f"download {what}"), _settings_of(registry.uri):
            try:
                return get()
            except (MlflowException, OSError) as error:
                absent = isinstance(error, FileNotFoundError) or re.search("No such|does not exist", str(error))
                if absent or getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
    except PipepartsError:
        raise
    except Exception as error:  # each storage's client raises what it likes
        not_installed = isinstance(error, ImportError)
        failure = ServiceError(
            f"cannot download {what}" + (": the client of its storage is not installed here" if not_installed else ""),
            where=registry.place,
            received=f"{type(error).__name__}: {error}",
            hint="let the MLflow server pass files on (--serve-artifacts, its default)" if not_installed else None,
        )
        failure.retryable = not not_installed
        raise failure from error


@contextlib.contextmanager
def _settings_of(uri: str) -> Iterator[None]:
    """Points MLflow's own settings at a registry: a download ignores the one that it is given, for some stores."""
    import mlflow

    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    before = {name: os.environ.get(name) for name in names}
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
