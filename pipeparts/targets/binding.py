"""Writes a target's settings into a compiled pipeline: what every platform has into the core, the rest beside it."""

from __future__ import annotations

import copy
import dataclasses
import logging
import re
from collections.abc import Mapping
from typing import Any

from pipeparts.compiling import Spec
from pipeparts.errors import InputError, suggest
from pipeparts.linting.document import Document, Task
from pipeparts.step_settings import StepNames, StepSettings, require_known, settings_for
from pipeparts.targets.local_spec import function_of

logger = logging.getLogger(__name__)

#: Neutral name to the names of Vertex AI (its AcceleratorType) and of nodes on GKE (the label's value), from
#: cloud.google.com/vertex-ai/docs/training/configure-compute and cloud.google.com/kubernetes-engine/docs/how-to/gpus.
ACCELERATORS: dict[str, tuple[str, str]] = {
    "nvidia-l4": ("NVIDIA_L4", "nvidia-l4"),
    "nvidia-t4": ("NVIDIA_TESLA_T4", "nvidia-tesla-t4"),
    "nvidia-p4": ("NVIDIA_TESLA_P4", "nvidia-tesla-p4"),
    "nvidia-p100": ("NVIDIA_TESLA_P100", "nvidia-tesla-p100"),
    "nvidia-v100": ("NVIDIA_TESLA_V100", "nvidia-tesla-v100"),
    "nvidia-a100": ("NVIDIA_TESLA_A100", "nvidia-tesla-a100"),
    "nvidia-a100-80gb": ("NVIDIA_A100_80GB", "nvidia-a100-80gb"),
    "nvidia-h100-80gb": ("NVIDIA_H100_80GB", "nvidia-h100-80gb"),
}
#: What Kubernetes calls a GPU of NVIDIA's.
_GPU = "nvidia.com/gpu"
#: What a step on Vertex AI runs with, so that it finds its secrets in its environment.
SECRETS_VARIABLE = "PIPEPARTS_STEP_SECRETS"
TIMEOUT_VARIABLE = "PIPEPARTS_TIMEOUT_SECONDS"
_EXECUTOR = "python3 -m kfp.dsl.executor_main"
_WITH_SECRETS = "python3 -m pipeparts.runtime.secret_env kfp.dsl.executor_main"
_SECRET = re.compile(r"projects/[^/]+(/locations/[^/]+)?/secrets/[A-Za-z0-9_-]+/versions/[A-Za-z0-9_-]+")
_SHORT_SECRET = re.compile(r"([A-Za-z0-9_-]+)(?:/versions/([A-Za-z0-9_-]+))?")
_KUBERNETES_SECRET = re.compile(r"([a-z0-9][a-z0-9.-]*)/([A-Za-z0-9._-]+)")
_GIGA = 1e9
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_KUBERNETES_ALONE = (
    "node_selector",
    "tolerations",
    "volumes",
    "image_pull_secrets",
    "pod_labels",
    "pod_annotations",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a target says of its steps.

    Attributes:
        platform: "local", "kubeflow" or "vertex".
        defaults: For all steps.
        steps: By step.
        accelerators: Further neutral names, each to the platform's own.
        accelerator_label: The label of nodes that says which accelerator they have (Kubernetes).
        project: Whose secrets a short name means (Vertex AI).
    """

    platform: str
    defaults: StepSettings = dataclasses.field(default_factory=StepSettings)
    steps: Mapping[str, StepSettings] = dataclasses.field(default_factory=dict)
    accelerators: Mapping[str, str] = dataclasses.field(default_factory=dict)
    accelerator_label: str = "cloud.google.com/gke-accelerator"
    project: str = ""


def bind(spec: Spec, settings: Settings) -> tuple[Spec, Spec | None]:
    """Writes a target's settings into a compiled pipeline; a pure function.

    What the platforms share (resources, retries, caching, environment) goes into the pipeline. What Kubernetes alone
    has (secrets, volumes, node selectors, tolerations, timeouts) goes into the second document, as kfp-kubernetes
    writes it, and leaves the pipeline as it is.

    Args:
        spec: The compiled pipeline; left as it is.
        settings: The settings.

    Returns:
        The pipeline, and the second document where there is one.

    Raises:
        InputError: For a step that is not there, and for what the platform does not have.
    """
    bound = copy.deepcopy(spec)
    document = Document.of(bound)
    names = {task.name: _names_of(task) for task in document.tasks if "container" in task.executor}
    require_known(settings.steps, names.values(), pipeline=str(spec["pipelineInfo"]["name"]))
    platform_of: dict[str, Spec] = {}
    done: dict[str, tuple[str, StepSettings]] = {}
    for task in document.tasks:
        if task.name not in names:
            continue
        wanted = settings_for(names[task.name], settings.defaults, settings.steps)
        label = str(task.executor_path[-1])
        if label in done and done[label][1] != wanted:
            raise InputError(
                "two steps that are one in the compiled pipeline have different settings",
                parameter="steps",
                where=f"{done[label][0]} and {task.name}",
                allowed="the same settings for every use of a pipeline inside another",
                received="different ones",
            )
        _write_task(task, wanted)
        if label in done:
            continue
        done[label] = (task.name, wanted)
        _write_container(task, wanted, settings)
        if beside := _beside(task, wanted, settings):
            platform_of[label] = beside
    return bound, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": platform_of}}}} if platform_of else None


def _names_of(task: Task) -> StepNames:
    name = str(task.path[-1])
    shown = task.spec.get("taskInfo", {}).get("name", name)
    return StepNames(task=name, shown=shown, component=function_of(task.executor["container"]))


def _write_task(task: Task, wanted: StepSettings) -> None:
    if wanted.retries is not None:
        task.spec.pop("retryPolicy", None)
        if wanted.retries:
            task.spec["retryPolicy"] = {
                "maxRetryCount": wanted.retries,
                "backoffDuration": f"{wanted.retry_wait_seconds}s",
                "backoffFactor": wanted.retry_factor,
                "backoffMaxDuration": f"{wanted.retry_longest_wait_seconds}s",
            }
    if wanted.cache is False:
        task.spec["cachingOptions"] = {}


def _write_container(task: Task, wanted: StepSettings, settings: Settings) -> None:
    container = task.executor["container"]
    variables = dict(wanted.environment)
    if settings.platform == "local":
        if wanted.timeout_seconds is not None:
            variables[TIMEOUT_VARIABLE] = str(wanted.timeout_seconds)
        ignored = [name for name in ("cpu", "memory", "accelerator", *_KUBERNETES_ALONE) if getattr(wanted, name)]
        if ignored:
            logger.debug("%s: this machine does not set %s", task.name, ", ".join(ignored))
    else:
        _write_resources(task, wanted, settings)
    if settings.platform == "vertex":
        _require_vertex(task, wanted)
        if wanted.secrets:
            variables[SECRETS_VARIABLE] = _secret_names(task, wanted, settings.project)
            _read_secrets_first(task)
    if variables:
        kept = [each for each in container.get("env", []) if each.get("name") not in variables]
        container["env"] = [*kept, *({"name": name, "value": value} for name, value in sorted(variables.items()))]


def _write_resources(task: Task, wanted: StepSettings, settings: Settings) -> None:
    given: Spec = {}
    for kind, value in (("Limit", wanted.cpu), ("Request", wanted.cpu_request)):
        if value:
            given[f"cpu{kind}"] = float(value[:-1]) / 1_000 if value.endswith("m") else float(value)
            given[f"resourceCpu{kind}"] = value
    for kind, value in (("Limit", wanted.memory), ("Request", wanted.memory_request)):
        if value:
            number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]+)", value).groups()  # type: ignore[union-attr]
            given[f"memory{kind}"] = float(number) * _UNITS[unit] / _GIGA
            given[f"resourceMemory{kind}"] = value
    if wanted.accelerator:
        kind, count = _accelerator(wanted.accelerator, settings), str(wanted.accelerator_count)
        given["accelerator"] = {"type": kind, "resourceType": kind, "count": count, "resourceCount": count}
    if given:
        container = task.executor["container"]
        container["resources"] = {**container.get("resources", {}), **given}


def _accelerator(name: str, settings: Settings) -> str:
    """The platform's own name; on Kubernetes the resource's, whose kind is the node's label."""
    known = {*ACCELERATORS, *settings.accelerators}
    if name not in known:
        raise InputError(
            "there is no accelerator of this name",
            parameter="accelerator",
            allowed=sorted(known),
            received=name,
            hint=suggest(name, known) or "further names go under `accelerators:`",
        )
    if settings.platform == "kubeflow":
        return _GPU
    return settings.accelerators.get(name) or ACCELERATORS[name][0]


def _require_vertex(task: Task, wanted: StepSettings) -> None:
    lacking = [name for name in _KUBERNETES_ALONE if getattr(wanted, name)]
    if wanted.timeout_seconds is not None:
        lacking.append("timeout_seconds")
    if lacking:
        raise InputError(
            "Vertex AI does not have this for a step",
            parameter=", ".join(lacking),
            where=task.name,
            allowed="cpu, memory, accelerator, retries, cache, environment, secrets",
            received=", ".join(f"{name}={getattr(wanted, name)!r}" for name in lacking),
        )


def _secret_names(task: Task, wanted: StepSettings, project: str) -> str:
    """Each variable and the full name of its secret, `NAME=projects/...`, a line each."""
    lines = []
    for variable, reference in sorted(wanted.secrets.items()):
        short = _SHORT_SECRET.fullmatch(reference)
        if _SECRET.fullmatch(reference):
            full = reference
        elif short and project:
            full = f"projects/{project}/secrets/{short[1]}/versions/{short[2] or 'latest'}"
        else:
            raise InputError(
                "not a secret of Secret Manager",
                parameter=f"secrets.{variable}",
                where=task.name,
                allowed="its name, name/versions/3, or projects/P/secrets/NAME/versions/V",
                received=f"a text of {len(reference)} characters (not shown: it may be the secret)",
            )
        lines.append(f"{variable}={full}")
    return "\n".join(lines)


def _read_secrets_first(task: Task) -> None:
    """Lets the step read its secrets into its environment before anything else runs in it."""
    container = task.executor["container"]
    command = container.get("command", [])
    if not any(_EXECUTOR in str(part) for part in command[:-1]) and not any(_WITH_SECRETS in str(p) for p in command):
        raise InputError(
            "a step that cannot be given secrets on Vertex AI: its code is in its image",
            parameter="secrets",
            where=task.name,
            allowed="lightweight Python components whose image holds pipeparts",
            received=f"image {container.get('image')}",
        )
    container["command"] = [part.replace(_EXECUTOR, _WITH_SECRETS) for part in command[:-1]] + command[-1:]


def _beside(task: Task, wanted: StepSettings, settings: Settings) -> Spec:
    """What of a step's settings Kubernetes alone has, as kfp-kubernetes writes it; empty where there is nothing."""
    if settings.platform != "kubeflow":
        return {}
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2 as messages

    config = messages.KubernetesExecutorConfig()
    selector = dict(wanted.node_selector)
    if wanted.accelerator:
        label = settings.accelerators.get(wanted.accelerator) or ACCELERATORS[wanted.accelerator][1]
        selector.setdefault(settings.accelerator_label, label)
    config.node_selector.labels.update(selector)
    for toleration in wanted.tolerations:
        config.tolerations.add(**toleration.model_dump())
    for variable, reference in sorted(wanted.secrets.items()):
        found = _KUBERNETES_SECRET.fullmatch(reference)
        if found is None:
            raise InputError(
                "not a Secret of Kubernetes",
                parameter=f"secrets.{variable}",
                where=task.name,
                allowed="name/key",
                received=f"a text of {len(reference)} characters (not shown: it may be the secret)",
            )
        secret = config.secret_as_env.add(secret_name=found[1], optional=False)
        secret.secret_name_parameter.runtime_value.constant.string_value = found[1]
        secret.key_to_env.add(secret_key=found[2], env_var=variable)
    _write_volumes(config, wanted)
    for name in wanted.image_pull_secrets:
        config.image_pull_secret.add(secret_name=name).secret_name_parameter.runtime_value.constant.string_value = name
    config.pod_metadata.labels.update(wanted.pod_labels)
    config.pod_metadata.annotations.update(wanted.pod_annotations)
    if wanted.timeout_seconds is not None:
        config.active_deadline_seconds = wanted.timeout_seconds
    written: Spec = json_format.MessageToDict(config)
    return {name: value for name, value in written.items() if value not in ({}, [])}


def _write_volumes(config: Any, wanted: StepSettings) -> None:
    for number, volume in enumerate(wanted.volumes, 1):
        if volume.pvc:
            mount = config.pvc_mount.add(constant=volume.pvc, mount_path=volume.mount_path)
            mount.pvc_name_parameter.runtime_value.constant.string_value = volume.pvc
        elif volume.secret:
            mount = config.secret_as_volume.add(secret_name=volume.secret, mount_path=volume.mount_path)
            mount.secret_name_parameter.runtime_value.constant.string_value = volume.secret
        elif volume.config_map:
            mount = config.config_map_as_volume.add(config_map_name=volume.config_map, mount_path=volume.mount_path)
            mount.config_map_name_parameter.runtime_value.constant.string_value = volume.config_map
        else:
            name = f"scratch-{number}"
            config.empty_dir_mounts.add(volume_name=name, mount_path=volume.mount_path, size_limit=volume.empty_dir)
