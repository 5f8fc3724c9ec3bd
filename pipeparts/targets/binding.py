"""Binds a target's settings to a compiled pipeline: what is neutral in the configuration becomes the platform's own.

What every platform understands (resources, retries, caching, environment) goes into the pipeline's specification. What
Kubernetes alone has goes into a second document, as kfp-kubernetes writes it.
"""

from __future__ import annotations

import copy
import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeparts import catalog, compiling
from pipeparts.config import KubeflowConfig, KubernetesAccelerator, LocalConfig, VertexConfig
from pipeparts.errors import InputError, suggest
from pipeparts.linting.secrets import find_secret
from pipeparts.runtime.secrets import read_secret
from pipeparts.step_settings import (
    AcceleratorSetting,
    RetrySetting,
    SecretReference,
    StepNames,
    StepSettings,
    check_steps,
    cpu_number,
    memory_bytes,
    settings_of,
)
from pipeparts.targets.base import require_images
from pipeparts.targets.local_spec import DEFAULT_FAMILY, family_of, function_of

Config = LocalConfig | KubeflowConfig | VertexConfig

#: What runs a step on Vertex AI that has secrets or a limit on its time.
LAUNCHER = ("python3", "-m", "pipeparts.runtime.launch")
#: https://cloud.google.com/vertex-ai/docs/pipelines/machine-types: the most that a step can ask for.
VERTEX_CPUS, VERTEX_BYTES = 96, 624 * 1000**3

#: For each kind of accelerator the label's value of nodes on Google's clusters, cloud.google.com/gke-accelerator:
#: https://cloud.google.com/kubernetes-engine/docs/how-to/gpus#multiple_gpus
#: And Vertex AI's word: the enumeration AcceleratorType of its API.
#: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/MachineSpec#AcceleratorType
ACCELERATORS: dict[str, tuple[str, str]] = {
    "nvidia-t4": ("nvidia-tesla-t4", "NVIDIA_TESLA_T4"),
    "nvidia-l4": ("nvidia-l4", "NVIDIA_L4"),
    "nvidia-p4": ("nvidia-tesla-p4", "NVIDIA_TESLA_P4"),
    "nvidia-p100": ("nvidia-tesla-p100", "NVIDIA_TESLA_P100"),
    "nvidia-v100": ("nvidia-tesla-v100", "NVIDIA_TESLA_V100"),
    "nvidia-a100-40gb": ("nvidia-tesla-a100", "NVIDIA_TESLA_A100"),
    "nvidia-a100-80gb": ("nvidia-a100-80gb", "NVIDIA_A100_80GB"),
    "nvidia-h100-80gb": ("nvidia-h100-80gb", "NVIDIA_H100_80GB"),
    "nvidia-h100-mega-80gb": ("nvidia-h100-mega-80gb", "NVIDIA_H100_MEGA_80GB"),
    "nvidia-h200-141gb": ("nvidia-h200-141gb", "NVIDIA_H200_141GB"),
    "nvidia-b200": ("nvidia-b200", "NVIDIA_B200"),
    "nvidia-gb200": ("nvidia-gb200", "NVIDIA_GB200"),
    "nvidia-rtx-pro-6000": ("nvidia-rtx-pro-6000", "NVIDIA_RTX_PRO_6000"),
}
#: On a cluster with GPUs of one kind: whichever it has.
ANY_GPU = "nvidia-gpu"

#: Settings of Kubernetes that a step does without where there is none.
_SCHEDULING = ("node_selector", "tolerations", "image_pull_secrets", "pod_labels", "pod_annotations")
#: Settings that this machine has no use for.
_SIZES = ("cpu", "memory", "accelerator")


@dataclasses.dataclass(frozen=True)
class Bound:
    """A pipeline for one target.

    Attributes:
        spec: The specification.
        platform: The second document, where there is anything for it.
        notes: What the target has no use for, a sentence each.
    """

    spec: compiling.Spec
    platform: compiling.Spec | None = None
    notes: tuple[str, ...] = ()

    @property
    def documents(self) -> list[compiling.Spec]:
        """The YAML documents: one, or two."""
        return [self.spec] if self.platform is None else [self.spec, self.platform]


@dataclasses.dataclass(frozen=True)
class _Step:
    """A task that runs a container, and what it gets."""

    names: StepNames
    task: dict[str, Any]
    label: str
    container: dict[str, Any]
    settings: StepSettings

    @property
    def name(self) -> str:
        """The task's name, for messages."""
        return self.names.task


def bind(spec: compiling.Spec, config: Config) -> Bound:
    """Writes the settings for the steps into a pipeline; a pure function.

    Without settings the specification stays as it is, and with settings that are Kubernetes' alone it does, too: those
    go into the second document. Binding what is bound already changes nothing.

    Args:
        spec: The compiled pipeline; left as it is.
        config: The target's configuration.

    Raises:
        InputError: Where a setting is for a step that does not exist, or cannot be kept on this target.
    """
    bound = copy.deepcopy(spec)
    steps = _steps(bound, config)
    for step in steps:
        _bind_core(step)
    if isinstance(config, KubeflowConfig):
        executors = {step.label: found for step in steps if (found := _kubernetes(step, config))}
        platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}} if executors else None
        return Bound(bound, platform)
    if isinstance(config, VertexConfig):
        for step in steps:
            _bind_vertex(step, config)
        return Bound(bound, notes=_notes(steps, "Vertex AI", _SCHEDULING))
    for step in steps:
        _refuse_volumes(step, "a local step sees this machine's own folders")
    return Bound(bound, notes=_notes(steps, "a local run", (*_SIZES, *_SCHEDULING)))


def bind_variant(
    spec: compiling.Spec,
    config: Config | None = None,
    *,
    registry: str = "",
    images: Mapping[str, str] | None = None,
) -> Bound:
    """A pipeline for a platform: with its settings bound, and its images where any are known.

    Args:
        spec: The compiled pipeline; left as it is.
        config: The target's configuration; None: the core.
        registry: Where the images of this release are, over that of the configuration.
        images: Family to image, over those of the configuration.

    Raises:
        InputError: Where a setting cannot be kept, a family has no image and others have, or an image can change
            under its name.
    """
    # Settings first: a family's name says that pipeparts is in the image, and the image's own name may not.
    bound = bind(spec, config) if config is not None else Bound(spec)
    if isinstance(config, (KubeflowConfig, VertexConfig)):
        registry, images = registry or config.registry, {**config.images, **(images or {})}
    known = compiling.default_images(bound.spec, registry=registry) if registry else {}
    known = {**known, **(images or {})}
    return dataclasses.replace(bound, spec=compiling.resolve_images(bound.spec, known)) if known else bound


def bind_for_submission(spec: compiling.Spec, config: KubeflowConfig | VertexConfig) -> Bound:
    """A pipeline as it is submitted: its variant, with an image for every family.

    Args:
        spec: The compiled pipeline; left as it is.
        config: The platform's configuration.

    Raises:
        InputError: Where a setting cannot be kept, or a family is left without an image.
    """
    bound = bind(spec, config)
    images = require_images(bound.spec, registry=config.registry, images=dict(config.images))
    return dataclasses.replace(bound, spec=images)


def local_steps(spec: compiling.Spec, config: LocalConfig, tasks: dict[str, StepNames]) -> dict[str, Any]:
    """What the steps of a local run are given beside their specification: limits of time, and where secrets are.

    Args:
        spec: The compiled pipeline.
        config: The configuration.
        tasks: For each step's id in the run, its names.

    Returns:
        `timeout_seconds` and `secrets` (variable to reference) for the id of each step that has any.
    """
    found: dict[str, Any] = {}
    for identifier, names in tasks.items():
        settings = settings_of(config, names, pipeline=spec["pipelineInfo"]["name"])
        given: dict[str, Any] = {}
        if settings.timeout_seconds:
            given["timeout_seconds"] = settings.timeout_seconds
        if settings.secrets:
            given["secrets"] = _local_secrets(settings)
        if given:
            found[identifier] = given
    return found


def check_secrets(spec: compiling.Spec, config: LocalConfig) -> None:
    """Looks whether each secret is where its reference says, before a run works for hours up to the step that needs it.

    Args:
        spec: The compiled pipeline.
        config: The configuration.

    Raises:
        InputError: Naming the secret, and where it was looked for.
    """
    for step in _steps(spec, config):
        for variable, place in _local_secrets(step.settings).items():
            read_secret(place, parameter=f"secrets.{variable} of {step.name}")


def _local_secrets(settings: StepSettings) -> dict[str, str]:
    return {name: reference.local or f"env:{name}" for name, reference in settings.secrets.items()}


def _steps(spec: compiling.Spec, config: Config) -> list[_Step]:
    pipeline = spec["pipelineInfo"]["name"]
    tasks = list(_tasks(spec))
    check_steps(
        config.steps,
        pipeline=pipeline,
        known=[names for names, _, _ in tasks],
        others=[entry.name for entry in catalog.components()] if config.steps else [],
    )
    found: list[_Step] = []
    by_label: dict[str, _Step] = {}
    for names, task, label in tasks:
        settings = settings_of(config, names, pipeline=pipeline)
        step = _Step(names, task, label, spec["deploymentSpec"]["executors"][label]["container"], settings)
        other = by_label.setdefault(label, step)
        if other.settings != settings:
            raise InputError(
                "two tasks share one executor, and their settings differ",
                parameter="steps",
                where=f"tasks {other.name} and {names.task}, {label}",
                allowed="the same settings for both, or a pipeline that KFP's compiler wrote: one executor a task",
                received=f"settings of their own for {names.task}",
            )
        found.append(step)
    return found


def _tasks(spec: compiling.Spec) -> Iterator[tuple[StepNames, dict[str, Any], str]]:
    """Each task that runs a container, in the whole pipeline: its names, itself, its executor."""
    executors = spec["deploymentSpec"].get("executors", {})
    for group in (spec["root"], *spec.get("components", {}).values()):
        for name, task in group.get("dag", {}).get("tasks", {}).items():
            reference = task["componentRef"]["name"]
            label = spec["components"][reference].get("executorLabel", "")
            container = executors.get(label, {}).get("container")
            if container is not None:
                shown = task.get("taskInfo", {}).get("name", name)
                component = function_of(container) or reference.removeprefix("comp-")
                yield StepNames(name, shown, component), task, label


def _notes(steps: list[_Step], target: str, names: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for name in names:
        concerned = sorted({step.name for step in steps if getattr(step.settings, name)})
        if concerned:
            found.append(f"{target} has no use for the setting {name}: left out of {', '.join(concerned)}")
    return tuple(found)


# --- What every platform understands --------------------------------------------------------------------------------


def _bind_core(step: _Step) -> None:
    settings = step.settings
    if settings.cache is not None:
        options = {**step.task.get("cachingOptions", {}), "enableCache": True} if settings.cache else {}
        step.task["cachingOptions"] = options
    if settings.retries is not None:
        step.task["retryPolicy"] = _retry_policy(settings.retries)
    for name, value in sorted(settings.environment.items()):
        if found := find_secret(name, value):
            raise InputError(
                "a setting in plain text looks like a secret, and would be in the YAML for everybody to read",
                parameter=f"environment.{name}",
                where=f"task {step.name}",
                allowed=f"a reference: `secrets: {{{name}: ...}}` (docs/configuration.md)",
                received=found,
            )
        _set_variable(step.container, name, value)
    for name in settings.secrets:
        if any(variable["name"] == name for variable in step.container.get("env", [])):
            raise InputError(
                "the pipeline sets a variable in plain text that the settings have as a secret",
                parameter=f"secrets.{name}",
                where=f"task {step.name}",
                allowed="a variable that the pipeline does not set",
                received=name,
            )


def _retry_policy(retries: RetrySetting) -> dict[str, Any]:
    return {
        "maxRetryCount": retries.count,
        "backoffDuration": f"{retries.backoff_seconds}s",
        "backoffFactor": retries.backoff_factor,
        "backoffMaxDuration": f"{retries.backoff_max_seconds}s",
    }


def _set_variable(container: dict[str, Any], name: str, value: str) -> None:
    variables = container.setdefault("env", [])
    for variable in variables:
        if variable["name"] == name:
            variable["value"] = value
            return
    variables.append({"name": name, "value": value})


def _set_resource(container: dict[str, Any], name: str, number: float, text: str) -> None:
    """Sets a resource in both forms that the specification has: a number for older servers, and a text."""
    resources = container.setdefault("resources", {})
    resources[name] = number
    resources[f"resource{name[0].upper()}{name[1:]}"] = text


def _set_accelerator(container: dict[str, Any], kind: str, count: int) -> None:
    accelerator = {"type": kind, "count": str(count), "resourceType": kind, "resourceCount": str(count)}
    container.setdefault("resources", {})["accelerator"] = accelerator


def _unknown_accelerator(step: _Step, accelerator: AcceleratorSetting, known: list[str]) -> InputError:
    return InputError(
        "no such accelerator on this target",
        parameter="accelerator",
        where=f"task {step.name}",
        allowed=[*known, "or a name that the setting `accelerators` explains"],
        received=accelerator.type,
        hint=suggest(accelerator.type, known),
    )


def _missing_reference(step: _Step, variable: str, key: str, form: str) -> InputError:
    return InputError(
        "the settings do not say where a secret is on this target",
        parameter=f"secrets.{variable}.{key}",
        where=f"task {step.name}",
        allowed=form,
        received="nothing",
    )


def _refuse_volumes(step: _Step, instead: str) -> None:
    if step.settings.volumes:
        raise InputError(
            "volumes are Kubernetes' alone",
            parameter="volumes",
            where=f"task {step.name}",
            allowed="none on this target",
            received=[volume.mount_path for volume in step.settings.volumes],
            hint=instead,
        )


# --- Kubeflow -------------------------------------------------------------------------------------------------------


def _kubernetes(step: _Step, config: KubeflowConfig) -> dict[str, Any]:
    """Binds the resources, and returns what the second document holds for the step's executor."""
    settings = step.settings
    for name in ("request", "limit"):
        if cpu := getattr(settings.cpu, name, None):
            _set_resource(step.container, f"cpu{name.title()}", cpu_number(cpu), cpu)
        if memory := getattr(settings.memory, name, None):
            _set_resource(step.container, f"memory{name.title()}", memory_bytes(memory) / 1000**3, memory)
    selector, tolerations = dict(settings.node_selector), list(settings.tolerations)
    if settings.accelerator is not None:
        accelerator = _kubernetes_accelerator(step, settings.accelerator, config)
        _set_accelerator(step.container, accelerator.resource, settings.accelerator.count)
        label = {config.accelerator_label: accelerator.label} if accelerator.label else {}
        selector = {**label, **accelerator.node_selector, **selector}
        tolerations += [each for each in accelerator.tolerations if each not in tolerations]
    needed = settings.model_copy(update={"node_selector": selector, "tolerations": tuple(tolerations)})
    return _platform_config(step, needed)


def _kubernetes_accelerator(
    step: _Step, accelerator: AcceleratorSetting, config: KubeflowConfig
) -> KubernetesAccelerator:
    if accelerator.type in config.accelerators:
        return config.accelerators[accelerator.type]
    if accelerator.type == ANY_GPU:
        return KubernetesAccelerator()
    if accelerator.type in ACCELERATORS:
        return KubernetesAccelerator(label=ACCELERATORS[accelerator.type][0])
    raise _unknown_accelerator(step, accelerator, sorted({*config.accelerators, *ACCELERATORS, ANY_GPU}))


def _platform_config(step: _Step, settings: StepSettings) -> dict[str, Any]:
    """What kfp-kubernetes' own functions write for a task."""
    from kfp import kubernetes

    # The functions read and write this attribute of a task alone.
    task = types.SimpleNamespace(platform_config={})
    by_secret: dict[str, dict[str, str]] = {}
    for variable, reference in sorted(settings.secrets.items()):
        if reference.kubernetes is None:
            raise _missing_reference(step, variable, "kubernetes", "{secret: NAME, key: KEY}")
        # One key for two variables is an entry each: the map's keys are the Secret's.
        group = by_secret.setdefault(reference.kubernetes.secret, {})
        if reference.kubernetes.key in group:
            kubernetes.use_secret_as_env(task, reference.kubernetes.secret, {reference.kubernetes.key: variable})
        else:
            group[reference.kubernetes.key] = variable
    for secret, variables in by_secret.items():
        kubernetes.use_secret_as_env(task, secret, variables)
    for number, volume in enumerate(settings.volumes, 1):
        if volume.pvc is not None:
            kubernetes.mount_pvc(task, volume.pvc, volume.mount_path, volume.sub_path)
        elif volume.secret is not None:
            kubernetes.use_secret_as_volume(task, volume.secret, volume.mount_path)
        elif volume.config_map is not None:
            kubernetes.use_config_map_as_volume(task, volume.config_map, volume.mount_path)
        elif volume.empty_dir is not None:
            kubernetes.empty_dir_mount(
                task,
                f"empty-{number}",
                volume.mount_path,
                medium=volume.empty_dir.medium or None,
                size_limit=volume.empty_dir.size,
            )
    for key, value in settings.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in settings.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key or None,
            operator=toleration.operator,
            value=toleration.value or None,
            effect=toleration.effect,
            toleration_seconds=toleration.seconds,
        )
    if settings.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))
    if settings.timeout_seconds is not None:
        kubernetes.set_timeout(task, settings.timeout_seconds)
    _each(kubernetes.add_pod_label, task, settings.pod_labels)
    _each(kubernetes.add_pod_annotation, task, settings.pod_annotations)
    found: dict[str, Any] = task.platform_config.get("kubernetes", {})
    return found


def _each(function: Callable[..., Any], task: Any, values: dict[str, str]) -> None:
    for key, value in values.items():
        function(task, key, value)


# --- Vertex AI ------------------------------------------------------------------------------------------------------


def _bind_vertex(step: _Step, config: VertexConfig) -> None:
    settings, container = step.settings, step.container
    _refuse_volumes(step, "on Vertex AI each bucket is there for each step, below /gcs/BUCKET")
    # Vertex takes a machine of this size: what must be there at least is all there is.
    if settings.cpu is not None and (cpu := settings.cpu.limit or settings.cpu.request):
        _set_resource(container, "cpuLimit", cpu_number(cpu), cpu)
    if settings.memory is not None and (memory := settings.memory.limit or settings.memory.request):
        _set_resource(container, "memoryLimit", memory_bytes(memory) / 1000**3, memory)
    if settings.accelerator is not None:
        known = {**{name: words[1] for name, words in ACCELERATORS.items()}, **config.accelerators}
        if settings.accelerator.type not in known:
            raise _unknown_accelerator(step, settings.accelerator, sorted(known))
        _set_accelerator(container, known[settings.accelerator.type], settings.accelerator.count)
    _check_machine(step)
    _set_launcher(step, config)


def _check_machine(step: _Step) -> None:
    for name, unit, most, received in (
        ("cpu", "CPUs", VERTEX_CPUS, cpu_number(_larger(step.settings.cpu) or "0")),
        ("memory", "bytes, 624G", VERTEX_BYTES, memory_bytes(_larger(step.settings.memory) or "0")),
    ):
        if received > most:
            raise InputError(
                "no machine of Vertex AI is this large",
                parameter=name,
                where=f"task {step.name}",
                allowed=f"{most:,} {unit}, at most",
                received=_larger(getattr(step.settings, name)),
            )


def _larger(setting: Any) -> str | None:
    return (setting.limit or setting.request) if setting is not None else None


def _set_launcher(step: _Step, config: VertexConfig) -> None:
    """Puts the launcher in front of a step's command, where it has secrets or a limit on its time."""
    settings, container = step.settings, step.container
    options: list[str] = []
    if settings.timeout_seconds is not None:
        options.append(f"--timeout-seconds={settings.timeout_seconds}")
    for variable, reference in sorted(settings.secrets.items()):
        options.append(f"--secret={variable}={_secret_version(step, variable, reference, config.project)}")
    if not options:
        return
    command = list(container.get("command", []))
    if tuple(command[: len(LAUNCHER)]) == LAUNCHER:
        command = command[command.index("--") + 1 :]
    if not command or family_of(container["image"]) == DEFAULT_FAMILY:
        raise InputError(
            "Vertex AI has neither secrets nor limits of time for a step: pipeparts brings them, inside its own images",
            parameter="secrets" if settings.secrets else "timeout_seconds",
            where=f"task {step.name}",
            allowed="a step in an image of pipeparts",
            received=f"image {container['image']}",
            hint="an image of yours with pipeparts in it goes under `images`; leave out the steps that cannot have it",
        )
    container["command"] = [*LAUNCHER, *options, "--", *command]


def _secret_version(step: _Step, variable: str, reference: SecretReference, project: str) -> str:
    if reference.secret_manager is None:
        form = "projects/PROJECT/secrets/SECRET/versions/VERSION"
        raise _missing_reference(step, variable, "secret_manager", form)
    if reference.secret_manager.startswith("projects/"):
        return reference.secret_manager
    secret, _, version = reference.secret_manager.partition("/versions/")
    return f"projects/{project}/secrets/{secret}/versions/{version or 'latest'}"
