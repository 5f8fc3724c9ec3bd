"""L: what kfp.local does not run, or passes over in silence."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeparts.linting.document import Document, Task
from pipeparts.linting.findings import Hit, rule

_EXECUTOR = "kfp.dsl.executor_main"
#: What KFP calls the single unnamed value that a component returns.
_UNNAMED = "Output"
_VALUES = re.compile(r"parameter_values\['([^']+)'\]")


@rule(
    "L1",
    "container-component",
    "a step whose code is in its image (a container component)",
    local="error",
    why="On a laptop without Docker there is no image to run it in.",
    fix="Write it as a lightweight component over an importable module, or run with Docker.",
    basis="run",
)
def container_component(document: Document) -> Iterator[Hit]:
    for label, container, path in document.containers():
        parts = [*(container.get("command") or []), *(container.get("args") or [])]
        if not any(_EXECUTOR in str(part) for part in parts):
            yield Hit(f"the image {container.get('image')} runs its own command", path, document.users(label))


@rule(
    "L2",
    "one-of-artifacts",
    "dsl.OneOf over artifacts",
    local="warning",
    why="`pipeparts run` runs it; kfp.local alone fails on it (`Expected 1 artifact in ArtifactSelectorSpec`).",
    fix="Choose between parameters, or write the artifact in one step for both cases.",
    basis="run",
)
def one_of_artifacts(document: Document) -> Iterator[Hit]:
    for name, component in [("root", document.root), *document.components.items()]:
        path = ("root",) if name == "root" else ("components", name)
        dag = component.get("dag")
        outputs = dag.get("outputs") if isinstance(dag, dict) else None
        artifacts = outputs.get("artifacts") if isinstance(outputs, dict) else None
        for output, artifact in (artifacts if isinstance(artifacts, dict) else {}).items():
            number = len(artifact.get("artifactSelectors", [])) if isinstance(artifact, dict) else 1
            if number > 1:
                place = (*path, "dag", "outputs", "artifacts", output)
                yield Hit(f"output {output} is one of {number} artifacts", place)


@rule(
    "L3",
    "steered-by-named-output",
    "a condition on a named output of a step",
    local="warning",
    why=(
        "`pipeparts run` decides it; kfp.local alone does not: it counts as false, the branch never runs, and the "
        "pipeline ends well."
    ),
    fix="Let the step that steers return one unnamed value, and use `task.output`.",
    basis="run",
)
def steered_by_named_output(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        policy = task.spec.get("triggerPolicy")
        condition = policy.get("condition") if isinstance(policy, dict) else None
        for name in _VALUES.findall(str(condition or "")):
            if output := _named_output(task, name):
                yield Hit(f"the condition is on {output}", (*task.path, "triggerPolicy"), (task.name,))


@rule(
    "L4",
    "loop-over-named-output",
    "ParallelFor over a named output of a step",
    local="warning",
    why="`pipeparts run` runs it; kfp.local alone ends in `Parent pipeline input argument ... not found`.",
    fix="Let the step return one unnamed list, and use `task.output`.",
    basis="run",
)
def loop_over_named_output(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        iterator = task.spec.get("parameterIterator")
        items = iterator.get("items") if isinstance(iterator, dict) else None
        name = items.get("inputParameter") if isinstance(items, dict) else None
        if name and (output := _named_output(task, str(name))):
            yield Hit(f"the loop is over {output}", (*task.path, "parameterIterator"), (task.name,))


@rule(
    "L5",
    "containerized-component",
    "a Python component whose code is in its image (a containerized one, with `target_image`)",
    local="error",
    why="kfp.local runs lightweight components alone, unless with Docker.",
    fix="Make it a lightweight component that imports the code, or run with Docker.",
    basis="run",
)
def containerized_component(document: Document) -> Iterator[Hit]:
    for label, container, path in document.containers():
        command = [str(part) for part in container.get("command") or []]
        if command[1:3] == ["-m", _EXECUTOR]:  # a lightweight one carries its source in a script around that
            yield Hit(f"the code is in {container.get('image')}", path, document.users(label))


@rule(
    "L6",
    "remote-import",
    "an importer of an address in a bucket",
    local="warning",
    why="On a laptop its path is below /gcs, /s3 or /minio, where nothing is mounted: the step that reads it fails.",
    fix="Make the address a parameter, and give a local path there.",
    basis="run",
)
def remote_import(document: Document) -> Iterator[Hit]:
    for label, executor in document.executors.items():
        importer = executor.get("importer")
        uri = importer.get("artifactUri") if isinstance(importer, dict) else None
        address = str(uri.get("constant", "")) if isinstance(uri, dict) else ""
        if re.match(r"(?:gs|s3|minio)://", address):
            path = ("deploymentSpec", "executors", label, "importer", "artifactUri")
            yield Hit(f"an importer of {address}", path, document.users(label))


def _named_output(task: Task, name: str) -> str | None:
    """The output that an input comes from, where that is a step's and has a name."""
    source = task.origin(name).get("taskOutputParameter")
    if not isinstance(source, dict) or source.get("outputParameterKey") == _UNNAMED:
        return None
    return f"{source.get('outputParameterKey')} of {source.get('producerTask')}"
