"""What a step gets from its platform: resources, retries, secrets, volumes; for all steps, and for single ones.

The words are the same for each target. What a word becomes there is `pipeparts.targets.binding`'s.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import pydantic

from pipeparts.errors import InputError, suggest
from pipeparts.runtime.params import Params

_CPU = re.compile(r"(\d+(\.\d+)?|\d+m)")
_MEMORY = re.compile(r"(\d+)(Ki|Mi|Gi|Ti|Pi|Ei|M|G|T|P|E)?")
_BYTES: dict[str, int] = {
    "": 1,
    **{unit: 1000**power for power, unit in enumerate("KMGTPE", 1)},
    **{f"{unit}i": 1024**power for power, unit in enumerate("KMGTPE", 1)},
}
_GLOB = re.compile(r"[*?\[]")
#: A step's name, or a pattern; in front of it, the pipeline's name where it is meant for that one alone.
_STEP_KEY = re.compile(r"(?:([^/\s]+)/)?([^/]+)")


def _like(pattern: str, allowed: str) -> pydantic.AfterValidator:
    """Refuses texts that do not match, and says in words what would."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return pydantic.AfterValidator(check)


#: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/
ObjectName = Annotated[
    str,
    _like(
        r"(?=.{1,253}$)[a-z0-9]([-a-z0-9.]*[a-z0-9])?",
        "the name of a Kubernetes object: small letters, digits, - and .",
    ),
]
#: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
LabelKey = Annotated[
    str,
    _like(
        r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
        "a label's name as Kubernetes has it: up to 63 letters, digits, - _ and ., with a domain and / in front or not",
    ),
]
LabelValue = Annotated[
    str,
    _like(
        r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?",
        "a label's value as Kubernetes has it: up to 63 letters, digits, - _ and ., in quotes where it is a number",
    ),
]
EnvironmentName = Annotated[
    str, _like(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable: letters, digits and _, no digit first")
]
AbsolutePath = Annotated[str, _like(r"/[^:\0]*", "an absolute path, without a colon")]
SecretVersion = Annotated[
    str,
    _like(
        r"(projects/[^/\s]+/(locations/[^/\s]+/)?secrets/[A-Za-z0-9_-]{1,255}/versions/[A-Za-z0-9_-]+"
        r"|[A-Za-z0-9_-]{1,255}(/versions/[A-Za-z0-9_-]+)?)",
        "a version's name: projects/PROJECT/secrets/SECRET/versions/VERSION, or SECRET/versions/VERSION, or SECRET",
    ),
]
SecretPlace = Annotated[
    str, _like(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:/.*)?", "'env:NAME' for an environment variable, or 'file:/path'")
]
StepKey = Annotated[
    str, _like(_STEP_KEY.pattern, "a step's name, or a pattern with * and ?; with PIPELINE/ in front or not")
]


def _cpu(value: Any) -> Any:
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _CPU.fullmatch(text) or cpu_number(text) <= 0:
        raise ValueError("a number of CPUs above 0, as 2 or 0.5, or thousandths of one, as 500m")
    return text


def _memory(value: Any) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _MEMORY.fullmatch(text) or memory_bytes(text) <= 0:
        raise ValueError(
            "a whole number of bytes above 0 with its unit: M, G, T (powers of 1000) or Ki, Mi, Gi, Ti (powers of "
            "1024), as 16G or 16Gi"
        )
    return text


Cpu = Annotated[str, pydantic.BeforeValidator(_cpu)]
Memory = Annotated[str, pydantic.BeforeValidator(_memory)]


def cpu_number(text: str) -> float:
    """The number of CPUs that "2", "0.5" or "500m" stands for."""
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def memory_bytes(text: str) -> int:
    """The number of bytes that "16Gi" or "512M" stands for."""
    found = _MEMORY.fullmatch(text)
    assert found is not None
    return int(found[1]) * _BYTES[found[2] or ""]


class CpuSetting(Params):
    """CPUs of a step.

    Attributes:
        request: What the step is sure to get.
        limit: What it gets at most.
    """

    request: Cpu | None = None
    limit: Cpu | None = None

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> CpuSetting:
        if self.request and self.limit and cpu_number(self.request) > cpu_number(self.limit):
            raise ValueError("a request that is not above the limit")
        return self


class MemorySetting(Params):
    """Memory of a step.

    Attributes:
        request: What the step is sure to get.
        limit: Above it the step is killed.
    """

    request: Memory | None = None
    limit: Memory | None = None

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> MemorySetting:
        if self.request and self.limit and memory_bytes(self.request) > memory_bytes(self.limit):
            raise ValueError("a request that is not above the limit")
        return self


class AcceleratorSetting(Params):
    """Accelerators of a step.

    Attributes:
        type: A name that each target has its own word for: "nvidia-l4".
        count: How many.
    """

    type: str = pydantic.Field(min_length=1)
    count: int = pydantic.Field(default=1, ge=1, le=16)


class RetrySetting(Params):
    """How often a step that failed is tried again.

    Attributes:
        count: How many times, after the first.
        backoff_seconds: The pause before the first time.
        backoff_factor: How much longer each further pause is.
        backoff_max_seconds: The longest pause.
    """

    count: int = pydantic.Field(ge=0, le=100)
    backoff_seconds: int = pydantic.Field(default=0, ge=0, le=86_400)
    backoff_factor: float = pydantic.Field(default=2.0, ge=1, le=100)
    backoff_max_seconds: int = pydantic.Field(default=3600, ge=1, le=86_400)


class KubernetesSecret(Params):
    """A key of a Kubernetes Secret, in the namespace of the run.

    Attributes:
        secret: The Secret's name.
        key: The key in its data.
    """

    secret: ObjectName
    key: Annotated[str, _like(r"[-._A-Za-z0-9]+", "a key in the Secret's data: letters, digits, - _ and .")]


class SecretReference(Params):
    """Where a secret is on each target, never what it is.

    Attributes:
        local: "env:NAME" or "file:/path"; unless given, the environment variable that has the name already.
        kubernetes: A key of a Kubernetes Secret.
        secret_manager: A version in Google's Secret Manager: "projects/P/secrets/S/versions/V", in the target's project
            "S/versions/V", or "S" for the latest.
    """

    local: SecretPlace = ""
    kubernetes: KubernetesSecret | None = None
    secret_manager: SecretVersion | None = None


class Toleration(Params):
    """A taint of nodes that the step's pod tolerates.

    Attributes:
        key: The taint's key; empty: all of them, with the operator Exists.
        operator: Whether the value counts.
        value: The taint's value.
        effect: The taint's effect; unless given, each.
        seconds: How long a taint NoExecute is tolerated; unless given, for ever.
    """

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    seconds: int | None = pydantic.Field(default=None, ge=0)

    @pydantic.model_validator(mode="after")
    def _whole(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError("no value with the operator Exists")
        if self.operator == "Equal" and not self.key:
            raise ValueError("a key, or the operator Exists")
        return self


class EmptyDir(Params):
    """A folder that lives as long as the step's pod.

    Attributes:
        medium: "Memory" for a folder in memory, which counts as the step's; unless given, the node's disk.
        size: The most that it holds.
    """

    medium: Literal["", "Memory"] = ""
    size: Memory | None = None


class Volume(Params):
    """A volume of a step, of exactly one kind.

    Attributes:
        mount_path: The folder at which the step finds it.
        pvc: The name of a PersistentVolumeClaim.
        sub_path: The folder inside the claim that is mounted.
        secret: The name of a Secret: a file for each key.
        config_map: The name of a ConfigMap: a file for each key.
        empty_dir: An empty folder; a size alone is the most that it holds, `{}` is one on the node's disk.
    """

    mount_path: AbsolutePath
    pvc: ObjectName | None = None
    sub_path: str = ""
    secret: ObjectName | None = None
    config_map: ObjectName | None = None
    empty_dir: Annotated[
        EmptyDir | None,
        pydantic.BeforeValidator(lambda value: {"size": value} if isinstance(value, str) else value),
    ] = None

    @pydantic.model_validator(mode="after")
    def _one_kind(self) -> Volume:
        kinds = [name for name in ("pvc", "secret", "config_map", "empty_dir") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError("exactly one of pvc, secret, config_map and empty_dir")
        if self.sub_path and not self.pvc:
            raise ValueError("sub_path with pvc alone")
        return self


def _place(value: Any) -> Any:
    """A secret's place in short: the form says whose it is."""
    if not isinstance(value, str):
        return value
    if value.startswith(("env:", "file:")):
        return {"local": value}
    if re.fullmatch(r"projects/.+|[^/]+/versions/[^/]+", value):
        return {"secret_manager": value}
    if re.fullmatch(r"[^/]+/[^/]+", value):
        secret, _, key = value.partition("/")
        return {"kubernetes": {"secret": secret, "key": key}}
    # No name alone: it could be the secret itself, put here by mistake.
    raise ValueError(
        "env:NAME, file:/path, SECRET/KEY of Kubernetes, SECRET/versions/VERSION of Secret Manager, or a map of them"
    )


def _limit(value: Any) -> Any:
    return {"limit": value} if isinstance(value, (str, int, float)) else value


class StepSettings(Params):
    """What a step gets. A key that is not set leaves what the pipeline says itself.

    Attributes:
        cpu: CPUs; a number alone is the limit.
        memory: Memory; a size alone is the limit.
        accelerator: Accelerators; a name alone is one of them.
        retries: How often a failed step is tried again; a number alone is the count.
        timeout_seconds: How long one attempt may take.
        cache: Whether the step may be taken from the cache.
        environment: Environment variables, in plain text.
        secrets: Environment variables whose values are secrets: where each is.
        node_selector: Labels that the node must have (Kubeflow).
        tolerations: Taints of nodes that are tolerated (Kubeflow).
        volumes: What is mounted (Kubeflow).
        image_pull_secrets: Secrets with which the image is pulled (Kubeflow).
        pod_labels: Labels of the step's pod (Kubeflow).
        pod_annotations: Annotations of the step's pod (Kubeflow).
    """

    cpu: Annotated[CpuSetting | None, pydantic.BeforeValidator(_limit)] = None
    memory: Annotated[MemorySetting | None, pydantic.BeforeValidator(_limit)] = None
    accelerator: Annotated[
        AcceleratorSetting | None,
        pydantic.BeforeValidator(lambda value: {"type": value} if isinstance(value, str) else value),
    ] = None
    retries: Annotated[
        RetrySetting | None,
        pydantic.BeforeValidator(lambda value: {"count": value} if type(value) is int else value),
    ] = None
    timeout_seconds: int | None = pydantic.Field(default=None, ge=1, le=30 * 86_400)
    cache: bool | None = None
    environment: dict[EnvironmentName, str] = pydantic.Field(default_factory=dict)
    secrets: dict[EnvironmentName, Annotated[SecretReference, pydantic.BeforeValidator(_place)]] = pydantic.Field(
        default_factory=dict
    )
    node_selector: dict[LabelKey, LabelValue] = pydantic.Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    volumes: tuple[Volume, ...] = ()
    image_pull_secrets: tuple[ObjectName, ...] = ()
    pod_labels: dict[LabelKey, LabelValue] = pydantic.Field(default_factory=dict)
    pod_annotations: dict[LabelKey, str] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> StepSettings:
        if both := sorted(self.environment.keys() & self.secrets.keys()):
            raise ValueError(f"each variable under `environment` or under `secrets`, not both: {', '.join(both)}")
        mounts = [volume.mount_path for volume in self.volumes]
        if len(set(mounts)) < len(mounts):
            raise ValueError("volumes at folders of their own")
        return self

    @pydantic.model_serializer(mode="wrap", when_used="json")
    def _with_nulls(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keeps each null that was set: it takes a default away, and is none itself."""
        return {**handler(self), **{name: None for name in self.model_fields_set if getattr(self, name) is None}}


class DefaultSettings(StepSettings):
    """What every step gets.

    Attributes:
        cache: False alone. True would let steps come from the cache that their pipeline runs each time for what they
            do: those are cached by their own name.
    """

    cache: Literal[False] | None = None


class StepsConfig(Params):
    """The part of a target's configuration that is about steps.

    Attributes:
        defaults: What every step gets.
        steps: What single steps get: by the task's name in the pipeline or in the graph ("train-lightgbm-2"), the
            component's ("train_lightgbm"), or a pattern ("evaluate-*"); `PIPELINE/` in front means that one alone.
    """

    defaults: DefaultSettings = DefaultSettings()
    steps: dict[StepKey, StepSettings] = pydantic.Field(default_factory=dict)


class StepNames(NamedTuple):
    """How a step can be called in the settings.

    Attributes:
        task: Its name in the compiled pipeline: "ingest-files-2".
        shown: Its name in the graph: "ingest-predictions".
        component: The component's: "ingest_files".
    """

    task: str
    shown: str
    component: str


def settings_of(config: StepsConfig, step: StepNames, *, pipeline: str) -> StepSettings:
    """What a step gets, put together from all that is meant for it.

    The more specific holds: a task's name over a component's, that over a pattern, the pattern with more letters over
    one with fewer, and all of these over `defaults`. Mappings (environment, secrets, labels, ...) are merged
    key by key; of everything else the more specific value replaces the other.

    Args:
        config: The target's configuration.
        step: The step's names.
        pipeline: The pipeline's name.
    """
    found = []
    for order, key in enumerate(config.steps):
        rank = _rank(key, step, pipeline=pipeline)
        if rank is not None:
            found.append((*rank, order, key))
    values: dict[str, Any] = {}
    for settings in [config.defaults, *(config.steps[key] for *_, key in sorted(found))]:
        for name in settings.model_fields_set:
            value = getattr(settings, name)
            values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    # A variable that the more specific has as plain text is a secret no longer, and the other way round.
    merged = StepSettings().model_copy(update=values)
    if merged.environment.keys() & merged.secrets.keys():
        raise InputError(
            "a step has a variable both in plain text and as a secret",
            parameter=f"steps: {step.task}",
            allowed="each variable under `environment` or under `secrets`",
            received=sorted(merged.environment.keys() & merged.secrets.keys()),
        )
    return merged


def check_steps(
    steps: Mapping[str, StepSettings], *, pipeline: str, known: Iterable[StepNames], others: Collection[str]
) -> None:
    """Refuses settings for steps that do not exist.

    Args:
        steps: The settings by step.
        pipeline: The pipeline's name.
        known: The names of each of its steps.
        others: Components that other pipelines have: one file of settings serves several pipelines.

    Raises:
        InputError: Naming the key, and the close match.
    """
    named = list(known)
    elsewhere = {_plain(name) for name in others}
    for key in steps:
        scope, name = _parts(key)
        if any(_rank(key, step, pipeline=pipeline) for step in named):
            continue
        if scope and scope != _plain(pipeline):
            continue
        if not scope and any(fnmatch.fnmatchcase(other, name) for other in elsewhere):
            continue
        names = sorted({_plain(each) for step in named for each in step})
        raise InputError(
            "settings for a step that does not exist",
            parameter=f"steps.{key}",
            where=f"pipeline {pipeline}",
            allowed=names,
            received=key,
            hint=suggest(name, [*names, *sorted(elsewhere)]),
        )


def _rank(key: str, step: StepNames, *, pipeline: str) -> tuple[int, int, int] | None:
    """How specific a key is for a step; None where it is not meant for it."""
    scope, name = _parts(key)
    if scope and scope != _plain(pipeline):
        return None
    if name in (_plain(step.task), _plain(step.shown)):
        return 3, bool(scope), 0
    if name == _plain(step.component):
        return 2, bool(scope), 0
    if _GLOB.search(name) and any(fnmatch.fnmatchcase(_plain(each), name) for each in step):
        return 1, bool(scope), len(_GLOB.sub("", name))
    return None


def _parts(key: str) -> tuple[str, str]:
    found = _STEP_KEY.fullmatch(key)
    assert found is not None
    return _plain(found[1] or ""), _plain(found[2])


def _plain(name: str) -> str:
    """A name as KFP compiles it: `train_lightgbm` becomes `train-lightgbm`."""
    return name.replace("_", "-").lower()
