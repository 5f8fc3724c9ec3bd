"""What a step gets on a platform: resources, retries, environment, secrets. Set for all steps, or by step."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pydantic

from pipeparts.errors import InputError, suggest
from pipeparts.runtime.params import Params

_CPU = re.compile(r"[0-9]+(\.[0-9]+)?|[0-9]+m")
_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GLOB = re.compile(r"[*?\[]")


class Toleration(Params):
    """A taint of nodes that a step bears (Kubernetes).

    Attributes:
        key: The taint's key; empty with `Exists`: every taint.
        operator: "Equal" or "Exists".
        value: The taint's value, for `Equal`.
        effect: "NoSchedule", "PreferNoSchedule" or "NoExecute"; empty: all.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class Volume(Params):
    """A volume that a step sees as a folder (Kubernetes); one of the four kinds.

    Attributes:
        mount_path: The folder, absolute.
        pvc: The name of a PersistentVolumeClaim.
        secret: The name of a Secret: a file for each key.
        config_map: The name of a ConfigMap: a file for each key.
        empty_dir: The most it may hold, as "10Gi"; it is gone with the step.
    """

    mount_path: str = pydantic.Field(pattern="^/.+")
    pvc: str = ""
    secret: str = ""
    config_map: str = ""
    empty_dir: str = ""

    @pydantic.model_validator(mode="after")
    def _is_one(self) -> Volume:
        given = [name for name in ("pvc", "secret", "config_map", "empty_dir") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"one of pvc, secret, config_map and empty_dir, not {' and '.join(given) or 'none'}")
        return self


class StepSettings(Params):
    """What a step gets; what is not set stays as the pipeline has it.

    Attributes:
        cpu: The most cores: "2", "500m".
        cpu_request: The cores that are set aside for it.
        memory: The most memory, with its unit: "8Gi", "16G".
        memory_request: The memory that is set aside for it.
        accelerator: A kind of accelerator by its neutral name: "nvidia-l4".
        accelerator_count: How many of them.
        retries: How many times a step that failed is tried again.
        retry_wait_seconds: How long it waits before the first of these.
        retry_factor: How much longer each wait is than the one before.
        retry_longest_wait_seconds: The longest wait.
        timeout_seconds: How long an attempt may take.
        cache: False: never from the cache.
        environment: Environment variables; no secrets.
        secrets: Environment variable to where its value is, in the platform's own form.
        node_selector: Labels that the node must have (Kubernetes).
        tolerations: Taints that the step bears (Kubernetes).
        volumes: Volumes that the step sees (Kubernetes).
        image_pull_secrets: Secrets with which images are pulled (Kubernetes).
        pod_labels: Labels of the pod (Kubernetes).
        pod_annotations: Annotations of the pod (Kubernetes).
    """

    cpu: str = ""
    cpu_request: str = ""
    memory: str = ""
    memory_request: str = ""
    accelerator: str = ""
    accelerator_count: int = pydantic.Field(default=1, ge=1, le=16)
    retries: int | None = pydantic.Field(default=None, ge=0, le=100)
    retry_wait_seconds: int = pydantic.Field(default=30, ge=0, le=86_400)
    retry_factor: float = pydantic.Field(default=2.0, ge=1.0, le=10.0)
    retry_longest_wait_seconds: int = pydantic.Field(default=3_600, ge=0, le=86_400)
    timeout_seconds: int | None = pydantic.Field(default=None, ge=1)
    cache: Literal[False] | None = None
    environment: dict[str, str] = pydantic.Field(default_factory=dict)
    secrets: dict[str, str] = pydantic.Field(default_factory=dict)
    node_selector: dict[str, str] = pydantic.Field(default_factory=dict)
    tolerations: list[Toleration] = pydantic.Field(default_factory=list)
    volumes: list[Volume] = pydantic.Field(default_factory=list)
    image_pull_secrets: list[str] = pydantic.Field(default_factory=list)
    pod_labels: dict[str, str] = pydantic.Field(default_factory=dict)
    pod_annotations: dict[str, str] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("cpu", "cpu_request")
    @classmethod
    def _is_cpu(cls, text: str) -> str:
        if text and not _CPU.fullmatch(text):
            raise ValueError('a number of cores in quotes, as "2", "0.5" or "500m"')
        return text

    @pydantic.field_validator("memory", "memory_request")
    @classmethod
    def _is_memory(cls, text: str) -> str:
        if text and not _MEMORY.fullmatch(text):
            raise ValueError(
                'a size with a unit of Kubernetes, as "8Gi", "16G" or "512Mi" (k, M, G, T, Ki, Mi, Gi, Ti)'
            )
        return text

    @pydantic.field_validator("environment", "secrets")
    @classmethod
    def _are_variables(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"names of environment variables: letters, digits and _, not {name!r}")
        return given

    def over(self, other: StepSettings) -> StepSettings:
        """These settings, and another's where these are not set; dictionaries are put together."""
        merged: dict[str, Any] = {}
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                merged[name] = {**theirs, **mine}
            else:
                merged[name] = mine if name in self.model_fields_set else theirs
        given = self.model_fields_set | other.model_fields_set
        return StepSettings(**{name: value for name, value in merged.items() if name in given})


class StepNames(Params):
    """How a step can be named in a configuration.

    Attributes:
        task: Its name in the compiled pipeline: "ingest-files-2".
        shown: Its name in the graph: "ingest-predictions".
        component: The component's function: "ingest_files".
    """

    task: str
    shown: str
    component: str


def settings_for(step: StepNames, defaults: StepSettings, steps: Mapping[str, StepSettings]) -> StepSettings:
    """A step's settings: by its own name, over its component's, over patterns (the longest first), over all steps'."""
    found = defaults
    for key in sorted((key for key in steps if _GLOB.search(key)), key=len):
        if any(fnmatch.fnmatchcase(name, key) for name in (step.task, step.shown, step.component)):
            found = steps[key].over(found)
    for name in dict.fromkeys([step.component, step.task, step.shown]):
        if name in steps:
            found = steps[name].over(found)
    return found


def require_known(steps: Mapping[str, StepSettings], known: Iterable[StepNames], *, pipeline: str) -> None:
    """Refuses settings for a step that a pipeline does not have.

    Patterns may fit nothing: one configuration serves several pipelines. So may the names of the catalog's components.

    Raises:
        InputError: With the close match.
    """
    from pipeparts import catalog

    names = {name for step in known for name in (step.task, step.shown, step.component)}
    components = {entry.name for entry in catalog.components()}
    for key in steps:
        if key not in names | components and not _GLOB.search(key):
            raise InputError(
                f"pipeline {pipeline!r} has no step of this name",
                parameter=f"steps.{key}",
                allowed=sorted(names),
                received=key,
                hint=suggest(key, names | components) or 'a pattern, as "train-*", may fit no step',
            )
