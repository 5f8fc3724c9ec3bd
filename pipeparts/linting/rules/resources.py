"""R: machines and accelerators."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeparts.linting.document import Document
from pipeparts.linting.findings import Hit, rule

_MOST_CPUS, _MOST_GB = 96, 624
_UNITS = {
    "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "m": 1e-3,
}  # fmt: skip


@rule(
    "R1",
    "accelerator-name",
    "an accelerator under one platform's own name",
    kubeflow="error",
    vertex="error",
    why="Kubernetes wants `nvidia.com/gpu`, and the kind as a node label; Vertex AI wants NVIDIA_L4 and the like.",
    fix="Leave accelerators out of the core, and bind them in each target's configuration.",
    basis="doc",
)
def accelerator_name(document: Document) -> Iterator[Hit]:
    for label, container, path in document.containers():
        accelerator = _resources(container).get("accelerator")
        if not isinstance(accelerator, dict):
            continue
        kind = str(accelerator.get("resourceType") or accelerator.get("type") or "")
        if not kind or "{{" in kind:
            continue
        place = (*path, "resources", "accelerator")
        if "/" in kind:
            yield Hit(f"{kind} is a name of Kubernetes", place, document.users(label), ("vertex",))
        else:
            yield Hit(f"{kind} is a name of Vertex AI", place, document.users(label), ("kubeflow",))


@rule(
    "R2",
    "dynamic-resources",
    "a placeholder for the image, the CPUs, the memory or the accelerator",
    vertex="warning",
    why="Vertex AI was seen not to take some of them.",
    fix="Write them for each target at compile time.",
    basis="issue",
    kubeflow_from=(2, 11),
)
def dynamic_resources(document: Document) -> Iterator[Hit]:
    for label, container, path in document.containers():
        values = {"image": container.get("image"), **_resources(container)}
        accelerator = values.pop("accelerator", None)
        values |= accelerator if isinstance(accelerator, dict) else {}
        for name, value in values.items():
            if isinstance(value, str) and "{{$" in value:
                place = (*path, "image") if name == "image" else (*path, "resources")
                yield Hit(f"{name} is {value}", place, document.users(label))


@rule(
    "R3",
    "too-large",
    f"more than {_MOST_CPUS} CPUs or {_MOST_GB} GB",
    vertex="error",
    why="No step on Vertex AI Pipelines gets more.",
    fix="Ask for less, or hand the work to an engine that has more machines.",
    basis="doc",
)
def too_large(document: Document) -> Iterator[Hit]:
    for label, container, path in document.containers():
        resources = _resources(container)
        for name in ("cpuLimit", "resourceCpuLimit", "cpuRequest", "resourceCpuRequest"):
            cpus = _quantity(resources.get(name))
            if cpus is not None and cpus > _MOST_CPUS:
                yield Hit(f"{name} is {resources[name]}", (*path, "resources", name), document.users(label))
        for name in ("memoryLimit", "resourceMemoryLimit", "memoryRequest", "resourceMemoryRequest"):
            size = _quantity(resources.get(name))
            # The old fields count in GB, the new ones name their unit.
            size_gb = None if size is None else size if name.startswith("memory") else size / 1e9
            if size_gb is not None and size_gb > _MOST_GB:
                yield Hit(f"{name} is {resources[name]}", (*path, "resources", name), document.users(label))


def _resources(container: dict[str, object]) -> dict[str, object]:
    resources = container.get("resources")
    return resources if isinstance(resources, dict) else {}


def _quantity(value: object) -> float | None:
    """A quantity of Kubernetes as a number; None for a placeholder and for what is none."""
    if isinstance(value, (int, float)):
        return float(value)
    found = re.fullmatch(r"([0-9.]+)\s*([a-zA-Z]*)", value) if isinstance(value, str) else None
    if found is None or found[2] not in _UNITS:
        return None
    try:
        return float(found[1]) * _UNITS[found[2]]
    except ValueError:
        return None
