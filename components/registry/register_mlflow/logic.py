"""The work of `register_mlflow`.

Its steps, each of which finds what an earlier attempt has done: the MLflow run (by tags), the logged model in it (by
tags), and then, one registration at a time, the version (by fingerprint) and the alias.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeparts.runtime import mlflow_registry as names
from pipeparts.runtime.errors import ContractError, DataError, InputError, ServiceError
from pipeparts.runtime.files import read_json, write_json
from pipeparts.runtime.mlflow_registry import Registry, Turn, version_uri
from pipeparts.runtime.models import ModelInfo, read_model_info
from pipeparts.runtime.verdict import Verdict, format_value, read_verdict

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

FORMAT = "pipeparts.registration/1"

_EVALUATION_FORMAT = "pipeparts.evaluation/"
_RUN_VARIABLE = "MLFLOW_RUN_ID"
_EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
# On runs and logged models that this component makes, to find them again.
_TAG_MADE_FOR = "pipeparts.registers"
_LONGEST_PARAM = 6000
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
# What SQLite, PostgreSQL and MySQL say of a row that another transaction has just written.
_WRITTEN_MEANWHILE = re.compile(r"unique constraint|duplicate (key|entry)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class _Request:
    """What is to be registered, read and checked."""

    model_path: Path
    info: ModelInfo
    verdict: Verdict
    verdict_path: Path
    evaluation_path: Path
    metrics: dict[str, float]
    name: str
    champion: str
    alias: str
    experiment: str
    run_name: str
    pipeline_hash: str

    @property
    def tags(self) -> dict[str, str]:
        """The lineage, as tags."""
        tags = {
            names.TAG_RUN: self.run_name,
            names.TAG_PIPELINE_HASH: self.pipeline_hash,
            names.TAG_PACKAGE_VERSION: self.info.package_version,
            names.TAG_DATA_FINGERPRINT: self.info.training_fingerprint,
            names.TAG_MODEL_FINGERPRINT: self.info.fingerprint,
            names.TAG_FRAMEWORK: self.info.framework,
            names.TAG_TASK: self.info.task,
            names.TAG_LABEL: self.info.label,
        }
        return tags | self.judgement

    @property
    def judgement(self) -> dict[str, str]:
        """The tags that a later, successful gate replaces."""
        count = len(self.verdict.checks)
        return {
            names.TAG_VERDICT: f"passed {count} of {count} checks of {self.verdict.gate}",
            names.TAG_COMPARED_WITH: self.champion,
        }

    @property
    def made_for(self) -> str:
        """What marks the run and the logged model of this registration."""
        return f"{self.name}:{self.info.fingerprint}"


def register_mlflow(
    *,
    model_path: str | os.PathLike[str],
    verdict_path: str | os.PathLike[str],
    evaluation_path: str | os.PathLike[str],
    registration_path: str | os.PathLike[str],
    model_name: str,
    champion: str = "",
    alias: str = "champion",
    experiment: str = "",
    tracking_uri: str = "",
    run_name: str = "",
    pipeline_hash: str = "",
) -> dict[str, Any]:
    """Registers a model that passed its gate, and moves the alias to it.

    Args:
        model_path: The model's folder.
        verdict_path: The verdict of its gate (JSON).
        evaluation_path: Its evaluation (JSON), whose metrics are tracked.
        registration_path: Where to write what was registered (JSON).
        model_name: The registered model's name.
        champion: What the model was compared with, `models:/name/version`; empty: nothing.
        alias: The alias to move; empty: none.
        experiment: The experiment of the MLflow run; empty: the environment's MLFLOW_EXPERIMENT_NAME, or `model_name`.
        tracking_uri: The registry; empty: the environment's MLFLOW_TRACKING_URI. With SQLite the files go to the
            folder `<database>-artifacts` beside the database.
        run_name: The pipeline run's name.
        pipeline_hash: The hash of the compiled pipeline.

    Returns:
        What was written: format, name, version, uri, alias, promoted, replaced, run_id, experiment, tracking_uri,
        link, tags.

    Raises:
        DataError: Where the verdict has not passed.
        InputError: Where the tracking URI or a name cannot be used, or MLFLOW_RUN_ID names no run.
        ServiceError: Where the registry does not answer or refuses, or the champion changed meanwhile.
        ContractError: Where an artifact is not what it should be.
    """
    names.require_model_name(model_name)
    if alias:
        names.require_alias(alias)
    _version_number(champion, model_name)
    request = _Request(
        model_path=Path(model_path),
        info=_read_model(Path(model_path)),
        verdict=_read_passed_verdict(verdict_path),
        verdict_path=Path(verdict_path),
        evaluation_path=Path(evaluation_path),
        metrics=_read_metrics(evaluation_path),
        name=model_name,
        champion=champion,
        alias=alias,
        experiment=experiment or os.environ.get(_EXPERIMENT_VARIABLE, "") or model_name,
        run_name=run_name,
        pipeline_hash=pipeline_hash,
    )
    registry = names.connect(tracking_uri, create=True)
    version, promoted, replaced = _register(registry, request)
    registration = _registration(registry, request, version, promoted=promoted, replaced=replaced)
    write_json(registration_path, registration)
    return registration


def _register(registry: Registry, request: _Request) -> tuple[ModelVersion, bool, str]:
    """Tracks, uploads, registers and promotes, as far as that is not done yet."""
    joined = _joined_run(registry)
    _make_registered_model(registry, request)
    known = registry.versions_of(request.name, request.info.fingerprint)
    if known:
        logger.info("this model is registered already, as version %s of %s", known[0].version, request.name)
        if joined is not None:
            _track(registry, request, joined, model_id=None)
        with registry.turn(request.name, request.run_name) as turn:
            outcome = _promote(registry, request, _pick(registry, request) or known[0], turn)
        _finish_left_run(registry, request, outcome[0].run_id)
        return outcome
    run, run_is_new = (joined, False) if joined is not None else _own_run(registry, request)
    try:
        logged, logged_is_new = _upload(registry, request, run)
        _track(registry, request, run, model_id=logged.model_id)
        with registry.turn(request.name, request.run_name) as turn:
            version = _pick(registry, request) or _create_version(registry, request, run, logged, turn)
            mine = version.run_id == run.info.run_id
            outcome = _promote(registry, request, version, turn)
    except BaseException:
        if joined is None:
            with contextlib.suppress(Exception):  # the error that led here says more
                registry.client.set_terminated(run.info.run_id, "FAILED")
        raise
    _finish_run(registry, run, keep=mine or not run_is_new, own=joined is None)
    if not mine and logged_is_new:
        logger.info("the same model was registered by another run meanwhile: dropping this copy")
        with registry.talking("drop the copy of the model"):
            registry.client.delete_logged_model(logged.model_id)
    return outcome


# --- The version and the alias, in one's turn -----------------------------------------------------------------------


def _pick(registry: Registry, request: _Request) -> ModelVersion | None:
    """The version of this very model: the one with the alias, or else the oldest."""
    versions = registry.versions_of(request.name, request.info.fingerprint)
    aliased = registry.aliased_version(request.name, request.alias) if request.alias else ""
    return next((v for v in versions if str(v.version) == aliased), versions[0] if versions else None)


def _create_version(registry: Registry, request: _Request, run: Run, logged: LoggedModel, turn: Turn) -> ModelVersion:
    turn.require_time()
    with registry.talking(f"register a version of {request.name!r}"), _as_the_default(registry):
        version = registry.client.create_model_version(
            request.name,
            source=f"models:/{logged.model_id}",
            run_id=run.info.run_id,
            model_id=logged.model_id,
            tags=request.tags,
            description=_description(request),
        )
    # MLflow's client repeats a request whose answer was lost: the older of two versions stays.
    twins = [v for v in registry.versions_of(request.name, request.info.fingerprint) if v.run_id == version.run_id]
    for twin in twins[1:]:
        logger.warning("dropping version %s, made twice by a repeated request", twin.version)
        with registry.talking(f"drop version {twin.version} of {request.name!r}"):
            registry.client.delete_model_version(request.name, str(twin.version))
    logger.info("registered version %s of %s", twins[0].version, request.name)
    return twins[0]


def _promote(
    registry: Registry, request: _Request, version: ModelVersion, turn: Turn
) -> tuple[ModelVersion, bool, str]:
    """Moves the alias from the champion the model was compared with, and from no other.

    Returns:
        The version, whether the alias is on it now, and the number of the version that it replaced ("" for none).
    """
    if not request.alias:
        return version, False, ""
    number = str(version.version)
    holder = registry.aliased_version(request.name, request.alias)
    if holder == number:
        logger.info("the alias %s is on version %s already", request.alias, number)
        return version, True, ""
    if holder != _version_number(request.champion, request.name):
        now = version_uri(request.name, holder) if holder else "no version"
        raise ServiceError(
            "the champion changed meanwhile: this model was not compared with the one there is now, "
            "and does not take its place",
            where=f"{request.name}@{request.alias} in {registry.place}",
            allowed=f"the alias on what the gate compared with: {request.champion or 'no version'}",
            received=now,
            hint=f"run the pipeline again, so that the gate compares with {now}; the model stays registered as "
            f"version {number} and is found again",
        )
    turn.require_time()
    with registry.talking(f"move the alias {request.alias!r} to version {number} of {request.name!r}"):
        for key, value in request.judgement.items():
            if version.tags.get(key) != value:
                registry.client.set_model_version_tag(request.name, number, key, value)
        registry.client.set_registered_model_alias(request.name, request.alias, number)
        version = registry.client.get_model_version(request.name, number)
    logger.info("%s@%s is version %s now (before: %s)", request.name, request.alias, number, holder or "none")
    return version, True, holder


def _make_registered_model(registry: Registry, request: _Request) -> None:
    if registry.registered_model(request.name) is not None:
        return
    from mlflow.exceptions import MlflowException

    with registry.talking(f"make the registered model {request.name!r}"):
        try:
            registry.client.create_registered_model(
                request.name, description=f"{request.info.task.capitalize()} of `{request.info.label}`."
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another registration was quicker
                raise


def _version_number(champion: str, name: str) -> str:
    """The version's number in `models:/name/version`; "" for no champion.

    Raises:
        InputError: Where it is anything else, or of another model: the alias could not be held against it.
    """
    if not champion:
        return ""
    match = re.fullmatch(r"models:/([^/]+)/(\d+)", champion)
    if match is None or match[1] != name:
        raise InputError(
            "`champion` is no version of the model to register",
            parameter="champion",
            allowed=f"models:/{name}/<version>, or an empty text where the model was compared with none",
            received=champion,
        )
    return match[2]


# --- The run and its logged model -----------------------------------------------------------------------------------


def _joined_run(registry: Registry) -> Run | None:
    """The run that the platform has started, or None where there is none."""
    run_id = os.environ.get(_RUN_VARIABLE, "").strip()
    if not run_id:
        return None
    from mlflow.exceptions import MlflowException

    with registry.talking(f"join the run {run_id}"):
        try:
            run = registry.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            run = None
    if run is None or run.info.lifecycle_stage != "active":
        raise InputError(
            f"{_RUN_VARIABLE} names a run that {'is not there' if run is None else 'was deleted'}",
            parameter=_RUN_VARIABLE,
            where=registry.place,
            allowed="the id of a run in this registry, or nothing",
            received=run_id,
        )
    logger.info("joining the run %s", run_id)
    return run


def _own_run(registry: Registry, request: _Request) -> tuple[Run, bool]:
    """The run that an earlier attempt has left, or else a new one; and whether it is new."""
    experiment_id = _experiment(registry, request.experiment)
    tags = request.tags | {
        _TAG_MADE_FOR: request.made_for,
        "mlflow.source.name": "pipeparts.register_mlflow",
        "mlflow.source.type": "JOB",
        "mlflow.note.content": _description(request),
    }
    with registry.talking("start a run"):
        left = registry.client.search_runs(
            [experiment_id],
            f"tags.`{_TAG_MADE_FOR}` = '{request.made_for}'",
            order_by=["start_time ASC"],
            max_results=1,
        )
        if not left:
            run = registry.client.create_run(experiment_id, tags=tags, run_name=request.run_name or None)
            return run, True
        run = left[0]
        logger.info("going on with the run %s of an earlier attempt", run.info.run_id)
        for key, value in tags.items():
            if run.data.tags.get(key) != value:
                registry.client.set_tag(run.info.run_id, key, value)
        registry.client.update_run(run.info.run_id, status="RUNNING")
        return run, False


def _experiment(registry: Registry, name: str) -> str:
    """The id of an experiment, which is made where it is not there."""
    from mlflow.exceptions import MlflowException

    with registry.talking(f"make the experiment {name!r}"):
        found = registry.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(registry.client.create_experiment(name, artifact_location=_artifact_location(registry)))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = registry.client.get_experiment_by_name(name)  # another registration was quicker
    if found is None or found.lifecycle_stage != "active":
        raise InputError(
            "the experiment was deleted",
            parameter="experiment",
            where=registry.place,
            allowed="an experiment that is active, or one that is not there yet",
            received=name,
            hint="`mlflow experiments restore` brings it back, `mlflow gc` removes it for good",
        )
    return str(found.experiment_id)


def _artifact_location(registry: Registry) -> str | None:
    """Beside the database: MLflow's own default is `mlruns` in whatever folder the step works in."""
    database = registry.database
    return None if database is None else (database.parent / f"{database.stem}-artifacts").as_uri()


def _upload(registry: Registry, request: _Request, run: Run) -> tuple[LoggedModel, bool]:
    """The model's folder as a logged model of the run; and whether it is new."""
    started = time.monotonic()
    tags = request.tags | {_TAG_MADE_FOR: request.made_for}
    with registry.talking("upload the model"):
        found = [
            model
            for model in registry.client.search_logged_models(
                [run.info.experiment_id], f"tags.`{_TAG_MADE_FOR}` = '{request.made_for}'"
            )
            if model.source_run_id == run.info.run_id
        ]
        ready = next((model for model in found if str(model.status) == "READY"), None)
        if ready is not None:
            return ready, False
        # One that was left half-way is written again from its start.
        model = found[0] if found else None
        if model is None:
            model = registry.client.create_logged_model(
                run.info.experiment_id,
                name=re.sub(r"[/:.%\"']", "_", request.name),
                source_run_id=run.info.run_id,
                tags=tags,
                params=_params(request.info),
                model_type=request.info.framework,
            )
        registry.client.log_model_artifacts(model.model_id, str(request.model_path))
        model = registry.client.finalize_logged_model(model.model_id, "READY")
    size = sum(file.stat().st_size for file in request.model_path.rglob("*") if file.is_file())
    logger.info("uploaded the model, %.1f MB, in %.1f s", size / 1e6, time.monotonic() - started)
    return model, not found


def _track(registry: Registry, request: _Request, run: Run, *, model_id: str | None) -> None:
    """Parameters, metrics, verdict and evaluation, where the run does not have them yet."""
    from mlflow.entities import Metric, Param, RunTag

    run_id = run.info.run_id
    params = _params(request.info)
    for key in params.keys() & run.data.params.keys():
        if run.data.params[key] != params[key]:
            logger.warning("the run has the parameter %s = %s, and keeps it", key, run.data.params[key])
    new_params = [Param(key, value) for key, value in params.items() if key not in run.data.params]
    now = time.time_ns() // 1_000_000
    new_metrics = [
        Metric(key, value, now, 0, model_id=model_id)
        for key, value in request.metrics.items()
        if run.data.metrics.get(key) != value
    ]
    tags = [RunTag(key, value) for key, value in request.tags.items() if run.data.tags.get(key) != value]
    with registry.talking(f"track parameters and metrics in the run {run_id}"):
        _log_batch(registry, run_id, tags=tags)
        for start in range(0, len(new_params), _PARAMS_AT_ONCE):
            _log_batch(registry, run_id, params=new_params[start : start + _PARAMS_AT_ONCE])
        for start in range(0, len(new_metrics), _METRICS_AT_ONCE):
            _log_batch(registry, run_id, metrics=new_metrics[start : start + _METRICS_AT_ONCE])
        registry.client.log_text(run_id, request.verdict_path.read_text(encoding="utf-8"), "verdict.json")
        registry.client.log_text(run_id, request.verdict.to_markdown(), "verdict.md")
        registry.client.log_text(run_id, request.evaluation_path.read_text(encoding="utf-8"), "evaluation.json")


def _log_batch(registry: Registry, run_id: str, **batch: Any) -> None:
    """Logs; once more where another registration wrote the same in that moment, which MLflow refuses the first time."""
    from mlflow.exceptions import MlflowException

    try:
        registry.client.log_batch(run_id, **batch)
    except MlflowException as error:
        if not _WRITTEN_MEANWHILE.search(str(error)):
            raise
        registry.client.log_batch(run_id, **batch)


def _finish_run(registry: Registry, run: Run, *, keep: bool, own: bool) -> None:
    if not own:
        return
    with registry.talking(f"end the run {run.info.run_id}"):
        registry.client.set_terminated(run.info.run_id, "FINISHED")
        if not keep:
            registry.client.delete_run(run.info.run_id)


def _finish_left_run(registry: Registry, request: _Request, run_id: str | None) -> None:
    """Ends the run of an earlier attempt that had made the version and not come to its end."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return
    with contextlib.suppress(MlflowException):  # the run may be deleted: the version does not need it
        run = registry.client.get_run(run_id)
        if run.data.tags.get(_TAG_MADE_FOR) == request.made_for and run.info.status != "FINISHED":
            registry.client.set_terminated(run_id, "FINISHED")


@contextlib.contextmanager
def _as_the_default(registry: Registry) -> Iterator[None]:
    """MLflow's SQL store looks up `models:/<id>` in the process's default tracking store, not in its own."""
    if registry.database is None:
        yield
        return
    import mlflow

    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(registry.uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


# --- What goes in, and what comes out -------------------------------------------------------------------------------


def _read_model(path: Path) -> ModelInfo:
    import yaml

    info = read_model_info(path)
    if not re.fullmatch(r"[\w.:\-]+", info.fingerprint):
        raise ContractError(
            "a model without a fingerprint", where=str(path), allowed="letters and digits", received=info.fingerprint
        )
    try:
        document = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ContractError("a damaged MLmodel file", where=str(path / "MLmodel"), received=str(error)) from error
    if not isinstance(document, dict) or not document.get("signature"):
        raise ContractError(
            "a model without a signature",
            where=str(path / "MLmodel"),
            allowed="a YAML map with a signature",
            received=", ".join(document) if isinstance(document, dict) else type(document).__name__,
        )
    return info


def _read_passed_verdict(path: str | os.PathLike[str]) -> Verdict:
    verdict = read_verdict(path)
    if not verdict.passed:
        failed = ", ".join(check.name for check in verdict.failures)
        raise DataError(
            "a model that did not pass its gate is not registered",
            where=f"{verdict.gate}: {verdict.subject}",
            allowed="a verdict that has passed",
            received=f"{len(verdict.failures)} of {len(verdict.checks)} checks failed: {failed}",
            hint="let the pipeline register only where the gate's output is true (dsl.If)",
        )
    return verdict


def _read_metrics(path: str | os.PathLike[str]) -> dict[str, float]:
    """The single numbers among an evaluation's metrics, by names that MLflow allows."""
    document = read_json(path, what="an evaluation")
    kind = document.get("format") if isinstance(document, dict) else type(document).__name__
    if not isinstance(document, dict) or not str(kind).startswith(_EVALUATION_FORMAT):
        raise ContractError(
            "not an evaluation", where=str(path), allowed=f"format {_EVALUATION_FORMAT}1", received=kind
        )
    metrics = document.get("metrics")
    if not isinstance(metrics, dict):
        raise ContractError(
            "a damaged evaluation", where=str(path), allowed="metrics: a map", received=type(metrics).__name__
        )
    return {
        _key(name): float(value)
        for name, value in _flat(metrics).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _params(info: ModelInfo) -> dict[str, str]:
    """The model card's parameters, flat: `extra` by its own names, nested ones with dots."""
    params: dict[str, Any] = {
        "framework": info.framework,
        "task": info.task,
        "label": info.label,
        "seed": info.seed,
        "training_rows": info.training_rows,
        "columns": len(info.columns),
        **_flat(info.extra),
    }
    return {_key(name): _text(value)[:_LONGEST_PARAM] for name, value in params.items() if value is not None}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _key(name: str) -> str:
    """A name that MLflow allows: others of its characters become an underscore."""
    return re.sub(r"[^\w\-. /:]", "_", name)[:250].strip("/.") or "_"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _description(request: _Request) -> str:
    """What a person reads on the version's page."""
    info = request.info
    metrics = [f"| {name} | {format_value(value)} |" for name, value in sorted(request.metrics.items())[:30]]
    columns = f"{len(info.columns)} column{'' if len(info.columns) == 1 else 's'}"
    # What was so when it was registered: a person may edit it, so a later gate changes the tags only.
    lines = [
        f"{info.task.capitalize()} of `{info.label}` with {info.framework}, from {columns}, trained on "
        f"{info.training_rows:,} rows (data fingerprint `{info.training_fingerprint}`), seed {info.seed}.",
        "",
        f"Registered after it passed all {len(request.verdict.checks)} checks of {request.verdict.gate} "
        f"({request.verdict.subject}), "
        + (f"compared with `{request.champion}`." if request.champion else "with no champion to compare with."),
    ]
    if request.run_name:
        lines += ["", f"Made by the pipeline run `{request.run_name}` with pipeparts {info.package_version}."]
    if metrics:
        lines += ["", "| metric | value |", "|---|---|", *metrics]
    return "\n".join(lines)[:5000]


def _registration(
    registry: Registry, request: _Request, version: ModelVersion, *, promoted: bool, replaced: str
) -> dict[str, Any]:
    number = str(version.version)
    link = ""
    if registry.database is None:
        link = f"{registry.place}/#/models/{urllib.parse.quote(request.name)}/versions/{number}"
    return {
        "format": FORMAT,
        "name": request.name,
        "version": number,
        "uri": version_uri(request.name, number),
        "alias": request.alias if promoted else "",
        "promoted": promoted,
        "replaced": version_uri(request.name, replaced) if replaced else "",
        "run_id": version.run_id or "",
        "experiment": request.experiment,
        "tracking_uri": registry.place,
        "link": link,
        "tags": {key: value for key, value in sorted(version.tags.items()) if key.startswith("pipeparts.")},
    }
