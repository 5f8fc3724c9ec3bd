"""S: what is too large, and what nobody can supply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeparts.linting.document import Document
from pipeparts.linting.findings import Hit, rule
from pipeparts.linting.reading import Path

_LONGEST_VALUE = 10_000
_LONGEST_DESCRIPTION = 1_024
_LARGEST_YAML = 256_000
_LARGEST_ETCD = 1.5 * 2**20
#: Kubeflow's workflow is about three times the YAML: templates, arguments, the state of each node.
_ETCD_FACTOR = 3


@rule(
    "S1",
    "long-value",
    f"a default or a constant of over {_LONGEST_VALUE:,} bytes",
    kubeflow="error",
    vertex="warning",
    why="Kubeflow's backend refuses it.",
    fix="Write it to a file that a step reads.",
    basis="src",
)
def long_value(document: Document) -> Iterator[Hit]:
    for where, name, definition, path in document.parameters():
        size = _size(definition.get("defaultValue"))
        if size > _LONGEST_VALUE:
            yield Hit(f"the default of {name} of {where} has {size:,} bytes", path)
    for task, name, value, path in document.constants():
        if (size := _size(value)) > _LONGEST_VALUE:
            yield Hit(f"input {name} has a constant of {size:,} bytes", path, (task.name,))


@rule(
    "S2",
    "large-file",
    f"a YAML of over {_LARGEST_YAML // 1000} kB",
    kubeflow="warning",
    why="Kubeflow's front doors were seen to refuse it.",
    fix="Keep the components' code in the image: inlined source is repeated for every use.",
    basis="issue",
)
def large_file(document: Document) -> Iterator[Hit]:
    if document.size_bytes > _LARGEST_YAML:
        yield Hit(f"it has {document.size_bytes:,} bytes")


@rule(
    "S3",
    "large-workflow",
    "a YAML that makes a workflow too large for etcd (three times its size over 1.5 MiB)",
    kubeflow="warning",
    why="Kubernetes keeps the workflow in etcd, which takes 1.5 MiB.",
    fix="Split the pipeline, or keep the components' code in the image.",
    basis="issue",
)
def large_workflow(document: Document) -> Iterator[Hit]:
    if _ETCD_FACTOR * document.size_bytes > _LARGEST_ETCD:
        yield Hit(f"three times its {document.size_bytes:,} bytes are {_ETCD_FACTOR * document.size_bytes:,}")


@rule(
    "S4",
    "long-description",
    f"a description of over {_LONGEST_DESCRIPTION:,} characters",
    kubeflow="warning",
    vertex="warning",
    why="The pipeline's specification allows no more: it may be cut or refused.",
    fix="Say the rest in a document, and link it.",
    basis="src",
)
def long_description(document: Document) -> Iterator[Hit]:
    for path, text in _descriptions(document):
        if len(text) > _LONGEST_DESCRIPTION:
            yield Hit(f"a description of {len(text):,} characters", path)


@rule(
    "S5",
    "root-artifacts",
    "artifacts that the pipeline takes from outside",
    kubeflow="warning",
    vertex="warning",
    local="error",
    why="Kubeflow's console cannot supply them, Vertex AI wants their ids, and kfp.local refuses them.",
    fix="Take a URI as a parameter, and bring it in with dsl.importer.",
    basis="src",
)
def root_artifacts(document: Document) -> Iterator[Hit]:
    if document.is_component:  # whose artifacts come from the pipeline that uses it
        return
    inputs = document.root.get("inputDefinitions")
    artifacts = inputs.get("artifacts") if isinstance(inputs, dict) else None
    for name in artifacts if isinstance(artifacts, dict) else {}:
        yield Hit(f"the pipeline takes the artifact {name}", ("root", "inputDefinitions", "artifacts", name))


def _size(value: Any) -> int:
    if value is None:
        return 0
    return len((value if isinstance(value, str) else json.dumps(value, default=str)).encode())


def _descriptions(document: Document) -> Iterator[tuple[Path, str]]:
    info = document.spec.get("pipelineInfo")
    places: list[tuple[Path, Any]] = [(("pipelineInfo",), info), (("root",), document.root)]
    places += [(("components", name), component) for name, component in document.components.items()]
    while places:
        path, value = places.pop()
        if not isinstance(value, dict):
            continue
        text = value.get("description")
        if isinstance(text, str):
            yield (*path, "description"), text
        for key in ("inputDefinitions", "outputDefinitions", "parameters", "artifacts"):
            inner = value.get(key)
            if not isinstance(inner, dict):
                continue
            if key in ("parameters", "artifacts"):
                places += [((*path, key, name), port) for name, port in inner.items()]
            else:
                places.append(((*path, key), inner))
