"""The configuration of the targets, read when it is asked for into frozen typed models.

A value comes from, in order: the command line, the environment, the file, the default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic

from pipeparts.errors import InputError, suggest
from pipeparts.runtime.params import Params, fields_at
from pipeparts.step_settings import LabelKey, LabelValue, StepsConfig, Toleration

#: Where a target's file is looked for, below the working directory, when none is named.
FOLDER = "configs"

#: In plain words what pydantic says of a value of the wrong type, by the beginning of its error's name.
_ALLOWED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "string": "a string",
    "path": "a path",
    "dict": "a mapping of names to values",
}


def _split(value: Any) -> Any:
    return tuple(part for part in value.split(",") if part) if isinstance(value, str) else value


class LocalConfig(StepsConfig):
    """How pipelines run on this machine.

    Attributes:
        root: The folder for runs, the cache and MLflow's database.
        cache: Whether steps whose code and inputs did not change are taken from earlier runs.
        python: An interpreter for each image family ("data", "tensorflow", ...; "default" for other images),
            where it is not the one that runs pipeparts.
        environment: Environment variables for the steps.
        parallel_steps: How many steps that do not wait for each other run at the same time, at most; None: as many as
            there are cores. None starts while the memory that it is expected to need is not free.
        runner: What runs the steps: "subprocess", or "docker" for containers of the images that the pipeline names.
        docker_network: The containers' network: "host" (services on this machine's loopback answer), "bridge", "none",
            or one of docker's by its name.
        docker_volumes: Folders that the steps see besides the root folder, under the same path: "FOLDER", "FOLDER:ro"
            or "FOLDER:rw"; in an environment variable with commas between. The working folder unless given.
        stop_seconds: How long steps have for their clean-up when a run is stopped.
        open_report: Whether the report is opened in a browser at the end.
    """

    root: Path = Path(".pipeparts")
    cache: bool = True
    python: dict[str, Path] = pydantic.Field(default_factory=dict)
    environment: dict[str, str] = pydantic.Field(default_factory=dict)
    parallel_steps: int | None = pydantic.Field(default=None, ge=1)
    runner: Literal["subprocess", "docker"] = "subprocess"
    docker_network: str = pydantic.Field(
        default="host",
        pattern="^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="host, bridge, none, or a network of docker's",
    )
    docker_volumes: Annotated[tuple[str, ...], pydantic.BeforeValidator(_split)] = (".:ro",)
    stop_seconds: float = pydantic.Field(default=10.0, ge=0, le=3600)
    open_report: bool = False


class RemoteConfig(StepsConfig):
    """What the platforms have in common.

    Attributes:
        registry: Where the images of this release are: "europe-docker.pkg.dev/project/repository".
        images: An image for a family, over that of the registry; with a digest, or a tag other than latest.
        service_account: The account that the run's steps work as; empty: the platform's default.
        request_seconds: How long one request may take.
        poll_seconds: The longest pause between two looks at a run that is waited for.
        wait_seconds: How long a run is waited for.
    """

    registry: str = ""
    images: dict[str, str] = pydantic.Field(default_factory=dict)
    service_account: str = ""
    request_seconds: float = pydantic.Field(default=30.0, gt=0, le=3600)
    poll_seconds: float = pydantic.Field(default=10.0, gt=0, le=3600)
    wait_seconds: float = pydantic.Field(default=86_400.0, gt=0)


class KubernetesAccelerator(Params):
    """How a kind of accelerator is asked for on a cluster.

    Attributes:
        label: The value of the label `accelerator_label` of the nodes that have it; a text alone is this.
        resource: The extended resource that its device plugin offers.
        node_selector: Other labels of the nodes that have it.
        tolerations: The taints of those nodes.
    """

    label: LabelValue = ""
    resource: str = pydantic.Field(default="nvidia.com/gpu", min_length=1)
    node_selector: dict[LabelKey, LabelValue] = pydantic.Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class KubeflowConfig(RemoteConfig):
    """How pipelines are submitted to Kubeflow Pipelines.

    Attributes:
        host: The API's address, "https://kubeflow.example.org/pipeline"; empty: the cluster that this runs in.
        ui_host: The address of the console that people open, where it is another one.
        namespace: The profile's namespace, on an installation for several users; empty: the pod's own.
        experiment: The experiment of the runs; it is made where it is not there.
        token: Where the token is, "env:NAME" or "file:/path"; empty: the pod's projected token where it has one.
        username: Whom to sign in as where the installation asks with Dex's form, instead of a token.
        password: Where that one's password is, "env:NAME" or "file:/path".
        ca_cert: The file with the certificates to trust, where they are not the machine's.
        metadata_host: Where the metadata store is, for `outputs`; empty: at the top of the API's host.
        upload: Whether pipelines are uploaded as versions, and runs made from those: the console then groups them.
        schedule_time_zone: The time zone that the installation reads schedules in (its CRON_SCHEDULE_TIMEZONE).
        accelerators: How a kind of accelerator is asked for, over and beside those of Google's clusters.
        accelerator_label: The label of nodes that says which accelerator they have.
    """

    host: str = pydantic.Field(default="", pattern="^(https?://.+)?$", description="http://... or https://...")
    ui_host: str = ""
    namespace: str = ""
    experiment: str = "Default"
    token: str = ""
    username: str = ""
    password: str = ""
    ca_cert: str = ""
    metadata_host: str = pydantic.Field(default="", pattern="^(https?://.+)?$", description="http://... or https://...")
    upload: bool = False
    schedule_time_zone: str = "UTC"
    accelerators: dict[
        str,
        Annotated[
            KubernetesAccelerator,
            pydantic.BeforeValidator(lambda value: {"label": value} if isinstance(value, str) else value),
        ],
    ] = pydantic.Field(default_factory=dict)
    accelerator_label: LabelKey = "cloud.google.com/gke-accelerator"


class VertexConfig(RemoteConfig):
    """How pipelines are submitted to Vertex AI Pipelines.

    Attributes:
        project: The Google Cloud project.
        location: The region: "europe-west4".
        pipeline_root: Where the runs' artifacts go: "gs://bucket/folder".
        endpoint: The API's address, where it is not "<location>-aiplatform.googleapis.com".
        network: The VPC network to peer the steps with: "projects/NUMBER/global/networks/NAME".
        psc_network_attachment: Or the network attachment for Private Service Connect.
        encryption_key: The key (CMEK) that protects the job: "projects/P/locations/L/keyRings/R/cryptoKeys/K".
        labels: Labels of the jobs: small letters, digits, hyphens and underscores.
        experiment: The experiment of Vertex AI that the jobs belong to; it must exist.
        accelerators: Vertex's name of a kind of accelerator, over and beside those that are known.
    """

    project: str = pydantic.Field(min_length=1)
    location: str = pydantic.Field(min_length=1)
    pipeline_root: str = pydantic.Field(pattern="^gs://[^/]+", description="gs://BUCKET, or a folder in it")
    endpoint: str = ""
    service_account: str = pydantic.Field(
        default="",
        pattern=r"^([^@\s]+@[^@\s]+)?$",
        description="an account's address, NAME@PROJECT.iam.gserviceaccount.com",
    )
    network: str = pydantic.Field(
        default="",
        pattern="^(projects/[^/]+/global/networks/[^/]+)?$",
        description="projects/NUMBER/global/networks/NAME",
    )
    psc_network_attachment: str = ""
    encryption_key: str = pydantic.Field(
        default="",
        pattern="^(projects/.+/cryptoKeys/[^/]+)?$",
        description="projects/P/locations/L/keyRings/R/cryptoKeys/K",
    )
    labels: dict[str, str] = pydantic.Field(default_factory=dict)
    experiment: str = ""
    accelerators: dict[str, str] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not (_is_label(name) and name[:1].isalpha() and (not value or _is_label(value))):
                raise ValueError(
                    "small letters, digits, hyphens and underscores, 63 at most, the name with a letter first; "
                    f"not {name}: {value!r}"
                )
        return labels

    @pydantic.field_validator("psc_network_attachment")
    @classmethod
    def _check_one_network(cls, attachment: str, info: pydantic.ValidationInfo) -> str:
        if attachment and info.data.get("network"):
            raise ValueError("a network to peer with, or an attachment for Private Service Connect: one of the two")
        return attachment


def _is_label(text: str) -> bool:
    """Whether Google Cloud takes a text as a label; it knows letters of every alphabet."""
    return 1 <= len(text) <= 63 and text == text.lower() and all(char.isalnum() or char in "-_" for char in text)


#: Settings that come from the file alone: the steps have the command's own environment anyway, and the others are no
#: single values.
_FILE_ALONE = ("environment", "defaults", "steps", "accelerators")

C = TypeVar("C", bound=Params)


def load_local(
    *,
    file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LocalConfig:
    """The configuration of local runs.

    Args:
        file: The file; without one, `PIPEPARTS_LOCAL_FILE`, else `configs/local.yaml` where it exists.
        overrides: From the command line; None values count as not given.
        environ: The environment; the process's own unless given.

    Raises:
        InputError: Naming the key, the place that the value came from, what is allowed, and the close match.
    """
    return load(LocalConfig, "local", file=file, overrides=overrides, environ=environ)


def load_kubeflow(
    *,
    file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> KubeflowConfig:
    """The configuration of Kubeflow; see `load_local`."""
    return load(KubeflowConfig, "kubeflow", file=file, overrides=overrides, environ=environ)


def load_vertex(
    *,
    file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> VertexConfig:
    """The configuration of Vertex AI; see `load_local`."""
    return load(VertexConfig, "vertex", file=file, overrides=overrides, environ=environ)


def load(
    model: type[C],
    target: str,
    *,
    file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> C:
    """Gathers a target's configuration from its four places, and checks it.

    An environment variable's name is the key's with `PIPEPARTS_` in front; a key of a dictionary is one more part:
    `PIPEPARTS_PYTHON_TENSORFLOW=/opt/tf/bin/python`.

    Args:
        model: The model; its fields are the keys.
        target: The target's name: its file is `configs/<target>.yaml`.
        file: The file, where it is another one.
        overrides: From the command line; None values count as not given.
        environ: The environment; the process's own unless given.

    Raises:
        InputError: Naming the key, where its value came from (or was looked for), and what is allowed.
    """
    environ = os.environ if environ is None else environ
    path, places = _find_file(target, file, environ)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if path is not None:
        for key, value in read_mapping(path, what=f"the configuration of target {target!r}").items():
            values[key], origins[key] = value, str(path)
    for key, value, variable in _from_environment(model, environ):
        if isinstance(value, dict):
            known = values.get(key)
            value = {**(known if isinstance(known, dict) else {}), **value}
        values[key], origins[key] = value, f"environment variable {variable}"
    for key, value in (overrides or {}).items():
        if value is not None:
            values[key], origins[key] = value, "command line"
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        raise _explain(error, model, target, origins, ["command line", "environment", *places]) from None


def read_mapping(path: str | os.PathLike[str], *, what: str) -> dict[str, Any]:
    """Reads a YAML file that holds a mapping; an empty file is an empty one.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        InputError: For a file that cannot be read, or that is not a YAML mapping.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {what}", where=str(path), received=str(error)) from error
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not YAML", where=str(path), received=" ".join(str(error).split())) from error
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(
            f"{what} is not a mapping of names to values",
            where=str(path),
            allowed="name: value, a line each",
            received=f"{type(value).__name__}: {value!r}",
        )
    return value


def _find_file(
    target: str, file: str | os.PathLike[str] | None, environ: Mapping[str, str]
) -> tuple[Path | None, list[str]]:
    """The file to read, and the places that were looked at."""
    variable = f"PIPEPARTS_{target.upper()}_FILE"
    if file is not None:
        return Path(file), [str(file)]
    if environ.get(variable):
        return Path(environ[variable]), [environ[variable]]
    path = Path(FOLDER) / f"{target}.yaml"
    return (path if path.is_file() else None), [f"{path}{'' if path.is_file() else ' (not there)'}"]


def _from_environment(model: type[Params], environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    found: list[tuple[str, Any, str]] = []
    for key, field in model.model_fields.items():
        variable = f"PIPEPARTS_{key.upper()}"
        if key in _FILE_ALONE:
            continue
        if "dict" in str(field.annotation):
            parts = {
                name.removeprefix(f"{variable}_").lower(): text
                for name, text in environ.items()
                if name.startswith(f"{variable}_") and text
            }
            if parts:
                found.append((key, parts, f"{variable}_..."))
        elif environ.get(variable):
            found.append((key, environ[variable], variable))
    return found


def _explain(
    error: pydantic.ValidationError, model: type[Params], target: str, origins: Mapping[str, str], places: list[str]
) -> InputError:
    problem = error.errors(include_url=False)[0]
    location = [str(part) for part in problem["loc"] if str(part) != "[key]"]
    key = ".".join(location)
    if problem["type"] == "missing":
        return InputError(
            f"target {target!r} lacks a setting that it needs",
            parameter=key,
            allowed="a value (required)",
            received="nothing",
            where=f"looked in, in this order: {', '.join(places)}",
        )
    where = origins.get(location[0]) if location else None
    if problem["type"] == "extra_forbidden":
        fields = fields_at(model, problem["loc"][:-1])
        return InputError(
            f"target {target!r} has no setting of this name",
            parameter=key,
            where=where,
            allowed=fields,
            received=location[-1],
            hint=suggest(location[-1], fields),
        )
    return InputError(
        f"a setting of target {target!r} has a value that is not allowed",
        parameter=key,
        where=where,
        allowed=_allowed(problem, model, location),
        received=_received(problem["input"], is_secret="secrets" in location),
    )


def _received(value: Any, *, is_secret: bool) -> str:
    if is_secret:  # somebody may have put the secret itself there
        return f"{type(value).__name__}, not shown: it may be the secret"
    if isinstance(value, dict):
        return f"a mapping with {', '.join(map(str, value)) or 'nothing'}"
    return f"{type(value).__name__}: {value!r}"


def _allowed(problem: Any, model: type[Params], location: list[str]) -> str:
    field = model.model_fields.get(location[0]) if len(location) == 1 else None
    if problem["type"] == "string_pattern_mismatch" and field is not None and field.description:
        return field.description
    kind, _, what = problem["type"].partition("_")
    words = _ALLOWED.get(kind) if what in ("type", "parsing") else None
    return words or str(problem["msg"]).removeprefix("Value error, ")
