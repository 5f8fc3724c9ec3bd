"""D: what the document holds, and what of it a platform does not take."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeparts.linting.document import Document
from pipeparts.linting.findings import Hit, Severity, rule

#: A job's id has 128 characters at most, 15 of them for the time.
_LONGEST_NAME = 128 - len("-20260131235959")


@rule(
    "D1",
    "several-documents",
    "more than one YAML document, or platform settings of Kubernetes",
    vertex="error",
    local="error",
    why="Vertex AI's client and `pipeparts run` refuse it (`expected a single document`); kfp.local skips the rest.",
    fix="Keep the core in one document, and compile what Kubernetes alone has for that target.",
    basis="run",
)
def several_documents(document: Document) -> Iterator[Hit]:
    if len(document.documents) > 1:
        yield Hit(f"the file has {len(document.documents)} documents")
    elif "platforms" in document.spec:
        yield Hit("the document has platform settings", ("platforms",))


@rule(
    "D2",
    "no-pipeline",
    "no `root`, or a workflow of KFP v1",
    kubeflow="error",
    vertex="error",
    local="error",
    why="No KFP v2 backend runs it: it is a KFP v1 or Argo workflow, or no compiled pipeline at all.",
    fix="Compile the pipeline with kfp 2 (kfp.compiler.Compiler).",
    basis="issue",
)
def no_pipeline(document: Document) -> Iterator[Hit]:
    if "kind" in document.spec:
        yield Hit(f"the document is a {document.spec['kind']}", ("kind",))
    elif not isinstance(document.spec.get("root"), dict):
        yield Hit(f"the document has no `root`; it has {_listed(list(document.spec))}")


@rule(
    "D3",
    "workspace",
    "the pipeline's workspace",
    vertex="error",
    why="A workspace is a Kubernetes volume of Kubeflow's; Vertex AI leaves the placeholder as it stands.",
    fix="Pass files on as artifacts.",
    basis="src",
    kubeflow_from=(2, 14),
)
def workspace(document: Document) -> Iterator[Hit]:
    for label, text, path in document.command_texts():
        if "{{$.workspace_path}}" in text:
            yield Hit("a command names the workspace", path, document.users(label))
    for task, name, value, path in document.constants():
        if isinstance(value, str) and "{{$.workspace_path}}" in value:
            yield Hit(f"input {name} names the workspace", path, (task.name,))
    for label, executor in document.executors.items():
        importer = executor.get("importer")
        if isinstance(importer, dict) and importer.get("downloadToWorkspace"):
            path = ("deploymentSpec", "executors", label, "importer", "downloadToWorkspace")
            yield Hit("an importer downloads to the workspace", path, document.users(label))


@rule(
    "D4",
    "task-config",
    "a parameter of type TASK_CONFIG, or a passthrough of the task's settings",
    vertex="error",
    why="Only recent Kubeflow knows them.",
    fix="Set resources and the like on the task, or for each target in its configuration.",
    basis="inferred",
    kubeflow_from=(2, 15),
)
def task_config(document: Document) -> Iterator[Hit]:
    for where, name, definition, path in document.parameters():
        if definition.get("parameterType") == "TASK_CONFIG":
            yield Hit(f"input {name} of {where} takes the task's settings", path)
    for name, component in document.components.items():
        if component.get("taskConfigPassthroughs"):
            yield Hit(f"{name} passes the task's settings on", ("components", name, "taskConfigPassthroughs"))


@rule(
    "D5",
    "loop-over-artifacts",
    "ParallelFor over artifacts",
    kubeflow="error",
    vertex="warning",
    why="Kubeflow's backend does not implement it: the run fails where it is planned.",
    fix="Loop over parameters (names, partitions), and find the artifact inside the step.",
    basis="src",
)
def loop_over_artifacts(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        if "artifactIterator" in task.spec:
            yield Hit("a loop over artifacts", (*task.path, "artifactIterator"), (task.name,))


@rule(
    "D6",
    "resolver",
    "an executor that looks artifacts up (`resolver`)",
    kubeflow="error",
    local="error",
    why="Only Vertex AI has it.",
    fix="Use an importer, or a step that looks the artifact up.",
    basis="src",
)
def resolver(document: Document) -> Iterator[Hit]:
    yield from _executors_with(document, "resolver")


@rule(
    "D7",
    "custom-job",
    "an executor that is a custom job of Vertex AI",
    kubeflow="error",
    vertex="warning",
    local="error",
    why="Kubeflow does not know it, and on Vertex AI it is deprecated.",
    fix="Use a container with resources, bound to the target's machines in its configuration.",
    basis="src",
)
def custom_job(document: Document) -> Iterator[Hit]:
    yield from _executors_with(document, "customJob")


@rule(
    "D8",
    "condition-on-importer",
    "a condition on an importer itself",
    kubeflow="error",
    vertex="warning",
    why="Kubeflow's driver refuses a condition on an importer.",
    fix="Put the importer into the condition's group (dsl.If).",
    basis="src",
)
def condition_on_importer(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        policy = task.spec.get("triggerPolicy")
        if "importer" in task.executor and isinstance(policy, dict) and policy.get("condition"):
            yield Hit("an importer with a condition of its own", (*task.path, "triggerPolicy"), (task.name,))


@rule(
    "D9",
    "incomplete",
    "`pipelineInfo.name`, `schemaVersion` or `deploymentSpec` is missing, or the name cannot be a run's",
    kubeflow="warning",
    vertex="error",
    local="error",
    why="Vertex AI's client needs them, and makes the job's id of the name and the time: `[a-z][-a-z0-9]{0,127}`.",
    fix="Compile anew; give the pipeline a name such as `train-and-register`.",
    basis="src",
)
def incomplete(document: Document) -> Iterator[Hit]:
    if not document.is_pipeline:
        return
    info = document.spec.get("pipelineInfo")
    name = info.get("name") if isinstance(info, dict) else None
    if not name:
        yield Hit("the pipeline has no name", ("pipelineInfo",))
    elif (severity := _bad_name(str(name))) is not None:
        message = f"the pipeline's name is {str(name)[:140]!r}"
        yield Hit(message, ("pipelineInfo", "name"), targets=("vertex",), severity=severity)
    if not document.spec.get("schemaVersion"):
        yield Hit("there is no schemaVersion", targets=("vertex",))
    if not document.executors and any(component.get("executorLabel") for component in document.components.values()):
        yield Hit("there are no executors (deploymentSpec), and components that name some")


@rule(
    "D10",
    "duplicate-key",
    "a key that stands twice in one mapping",
    kubeflow="error",
    vertex="warning",
    local="warning",
    why="Parsers differ: Python's takes the last one, the one of Kubernetes refuses the document.",
    fix="Keep one of them.",
    basis="inferred",
)
def duplicate_key(document: Document) -> Iterator[Hit]:
    for path in document.duplicates:
        yield Hit(f"the key {path[-1]!r} stands twice", path)


def _bad_name(name: str) -> Severity | None:
    """How bad a name is: what the client turns into an id that the service takes is worth a warning."""
    if re.fullmatch(r"[a-z][-a-z0-9]*", name) and len(name) <= _LONGEST_NAME:
        return None
    made = re.sub(r"[^-0-9a-z]+", "-", name.lower()).strip("-")
    return "warning" if re.fullmatch(r"[a-z][-a-z0-9]*", made) and len(made) <= _LONGEST_NAME else "error"


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown or "nothing"


def _executors_with(document: Document, kind: str) -> Iterator[Hit]:
    for label, executor in document.executors.items():
        if kind in executor:
            path = ("deploymentSpec", "executors", label, kind)
            yield Hit(f"the executor {label} is a {kind}", path, document.users(label))
