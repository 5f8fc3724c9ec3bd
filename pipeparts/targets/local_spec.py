"""A compiled pipeline, made into the variant that runs on this machine; and its graph, as the run's record keeps it."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pipeparts.errors import InputError

Spec = dict[str, Any]
Kind = Literal["step", "importer", "condition", "loop", "exit_handler", "pipeline"]

_EXECUTOR = "kfp.dsl.executor_main"
_FAMILY_IMAGE = re.compile(r"(?:^|/)pipeparts-python-([a-z0-9_]+)(?:[:@].*)?$")
#: What a step of another's image is run by.
DEFAULT_FAMILY = "default"


@dataclasses.dataclass(frozen=True)
class Node:
    """A task of the pipeline, or a group of tasks.

    Attributes:
        id: Its name in the whole pipeline; its folder is called so.
        name: Its name among its neighbours, as compiled.
        display_name: Its name for people.
        kind: A step, an importer, or what kind of group.
        parent: The group's id that it is in; None at the top.
        component: The component's function; empty for groups.
        family: The image family; "default" for another's image.
        dependencies: The ids of the neighbours that it waits for.
        inputs: Where each input comes from: `{"task": id, "output": name}`, `{"parameter": name}` or
            `{"value": constant}`.
        outputs: The type of each output: a schema title ("system.Dataset") or a parameter's type ("STRING").
        condition: The condition, as compiled; empty where there is none.
        cached: Whether its outputs may come from the cache.
    """

    id: str
    name: str
    display_name: str
    kind: Kind
    parent: str | None
    component: str
    family: str
    dependencies: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, str]
    condition: str
    cached: bool


def family_of(image: str) -> str:
    """The family of an image reference, whatever its registry, tag and digest."""
    found = _FAMILY_IMAGE.search(image)
    return found.group(1) if found else DEFAULT_FAMILY


def function_of(container: Mapping[str, Any]) -> str:
    """The component's function that a container runs."""
    arguments = list(container.get("args", []))
    if "--function_to_execute" in arguments[:-1]:
        return str(arguments[arguments.index("--function_to_execute") + 1])
    return ""


def interpreter_variable(family: str) -> str:
    """The environment variable that holds a family's interpreter."""
    return f"PIPEPARTS_PYTHON_{family.upper()}"


def families(spec: Spec) -> list[str]:
    """The families that a spec's steps run in, sorted."""
    return sorted({family_of(c["image"]) for c in _containers(spec).values()})


def localize(spec: Spec, *, images: Mapping[str, str], given: Iterable[str] = ()) -> tuple[Spec, list[Node]]:
    """Makes the local variant of a compiled pipeline; a pure function.

    Each task gets a component and an executor of its own, named like the task: its folder, and what happens to it, are
    called after the component. The executors' command runs the family's interpreter, from an
    environment variable: no path gets into the cache's key.

    Args:
        spec: The compiled pipeline, as it is shipped; left as it is.
        images: For each executor's label, the image to name: a part of the cache's key.
        given: The pipeline's parameters that have an argument. An optional one with neither argument nor default
            is taken out, so that the component's own default holds, as on Kubeflow.

    Returns:
        The variant, and the nodes of its graph, groups before their members.

    Raises:
        InputError: Where a step is of a kind that cannot run here.
    """
    check_local(spec)
    builder = _Builder(spec, images)
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    absent = {
        name
        for name, parameter in parameters.items()
        if name not in set(given) and parameter.get("isOptional") and "defaultValue" not in parameter
    }
    root = copy.deepcopy(spec["root"])
    for name in absent:
        del root["inputDefinitions"]["parameters"][name]
    origins: dict[str, Mapping[str, Any]] = {name: {"parameter": name} for name in parameters}
    builder.expand(root, parent=None, absent=absent, origins=origins, path=())
    local = {
        **copy.deepcopy({key: value for key, value in spec.items() if key not in ("components", "root")}),
        "components": builder.components,
        "deploymentSpec": {**spec["deploymentSpec"], "executors": builder.executors},
        "root": root,
    }
    return local, in_flow_order(builder.nodes)


def in_flow_order(nodes: Iterable[Node]) -> list[Node]:
    """Nodes in the order of the flow: after what they wait for, each group followed by its members."""
    members: dict[str | None, list[Node]] = {}
    for node in sorted(nodes, key=lambda node: node.id):
        members.setdefault(node.parent, []).append(node)
    ordered: list[Node] = []

    def visit(parent: str | None) -> None:
        waiting = {node.id: node for node in members.get(parent, [])}
        while waiting:
            ready = [node for node in waiting.values() if not any(other in waiting for other in node.dependencies)]
            node = (ready or list(waiting.values()))[0]
            del waiting[node.id]
            ordered.append(node)
            visit(node.id)

    visit(None)
    return ordered


def check_local(spec: Spec) -> None:
    """Refuses what would fail half-way.

    Raises:
        InputError: Naming the step or the input.
    """
    for label, container in _containers(spec).items():
        command = [*container.get("command", []), *container.get("args", [])]
        if not any(_EXECUTOR in str(part) for part in command) or not function_of(container):
            raise InputError(
                "a step that cannot run on this machine: its code is in its image",
                parameter=label.removeprefix("exec-"),
                allowed="lightweight Python components and importers",
                received=f"image {container.get('image')!r}, command {' '.join(map(str, command))!r}",
            )
    if artifacts := spec["root"].get("inputDefinitions", {}).get("artifacts"):
        raise InputError(
            "a pipeline that takes artifacts from outside cannot run on this machine",
            parameter=", ".join(artifacts),
            allowed="parameters alone",
            received=f"input artifacts: {', '.join(artifacts)}",
            hint="bring the artifact in with dsl.importer",
        )
    for label, executor in spec["deploymentSpec"].get("executors", {}).items():
        if "container" not in executor and "importer" not in executor:
            raise InputError(
                "a step that cannot run on this machine: the platform itself runs it",
                parameter=label.removeprefix("exec-"),
                allowed="lightweight Python components and importers",
                received=", ".join(executor) or "an executor that does nothing",
            )


def _containers(spec: Spec) -> dict[str, dict[str, Any]]:
    executors = spec["deploymentSpec"].get("executors", {})
    return {label: executor["container"] for label, executor in executors.items() if "container" in executor}


class _Builder:
    """Walks the tree of tasks and gathers the variant's components, executors and nodes."""

    def __init__(self, spec: Spec, images: Mapping[str, str]) -> None:
        self._spec = spec
        self._images = images
        self._ids: set[str] = set()
        self.components: Spec = {}
        self.executors: Spec = {}
        self.nodes: list[Node] = []

    def expand(
        self,
        component: Spec,
        *,
        parent: str | None,
        absent: set[str],
        origins: Mapping[str, Mapping[str, Any]],
        path: tuple[str, ...],
    ) -> None:
        """Gives every task of a group (or of the pipeline) its own component; changes `component`."""
        tasks: dict[str, Spec] = component["dag"].get("tasks", {})
        ids = {name: self._id(name, parent) for name in tasks}
        for name, task in tasks.items():
            reference = task["componentRef"]["name"]
            definition = copy.deepcopy(self._spec["components"][reference])
            missing = _drop_absent(task, definition, absent)
            sources = {key: _origin(binding, ids, origins) for key, binding in _bindings(task)}
            if iterator := task.get("parameterIterator", task.get("artifactIterator")):
                items = sources.get(iterator["items"].get("inputParameter", iterator["items"].get("inputArtifact", "")))
                sources[iterator["itemInput"]] = {**(items or {"value": iterator["items"].get("raw")}), "item": True}
            identifier = ids[name]
            task["componentRef"]["name"] = f"comp-{identifier}"
            self.components[f"comp-{identifier}"] = definition
            container = self._executor(definition, identifier)
            self.nodes.append(
                Node(
                    id=identifier,
                    name=name,
                    display_name=task.get("taskInfo", {}).get("name", name),
                    kind=_kind(task, definition, reference, is_importer="dag" not in definition and container is None),
                    parent=parent,
                    component=function_of(container) if container else "",
                    family=family_of(self._original_image(reference)) if container else "",
                    dependencies=tuple(ids[other] for other in task.get("dependentTasks", []) if other in ids),
                    inputs=sources,
                    outputs=_output_types(definition),
                    condition=task.get("triggerPolicy", {}).get("condition", ""),
                    cached=bool(task.get("cachingOptions", {}).get("enableCache")),
                )
            )
            if "dag" in definition:
                if reference in path:
                    raise InputError("a pipeline that contains itself", parameter=reference)
                self.expand(definition, parent=identifier, absent=missing, origins=sources, path=(*path, reference))

    def _id(self, name: str, parent: str | None) -> str:
        candidates = [name] if parent is None else [name, f"{parent}-{name}"]
        number = 2
        while candidates[0] in self._ids:
            candidates.pop(0)
            if not candidates:
                candidates.append(f"{parent or 'pipeline'}-{name}-{number}")
                number += 1
        self._ids.add(candidates[0])
        return candidates[0]

    def _original_image(self, reference: str) -> str:
        label = self._spec["components"][reference]["executorLabel"]
        return str(self._spec["deploymentSpec"]["executors"][label]["container"]["image"])

    def _executor(self, definition: Spec, identifier: str) -> Spec | None:
        """Gives a step its own executor; returns its container, or None for groups and importers."""
        label = definition.get("executorLabel")
        if label is None:
            return None
        executor = copy.deepcopy(self._spec["deploymentSpec"]["executors"][label])
        definition["executorLabel"] = f"exec-{identifier}"
        self.executors[f"exec-{identifier}"] = executor
        container: Spec | None = executor.get("container")
        if container is not None:
            variable = interpreter_variable(family_of(container["image"]))
            container["command"] = _rewrite(container.get("command", []), variable)
            container["image"] = self._images.get(label, container["image"])
        return container


def _rewrite(command: list[str], variable: str) -> list[str]:
    """A command with the interpreter from the environment, and the step's wrapper in front of KFP's executor."""
    interpreter = f'"${variable}"'
    rewritten: list[str] = []
    for position, part in enumerate(command):
        if position and "ephemeral_component.py" in command[position - 1] and '"$@"' in command[position - 1]:
            rewritten.append(part)  # the component's source
            continue
        part = part.replace(f"python3 -m {_EXECUTOR}", f"{interpreter} -m pipeparts.runtime.local_step {_EXECUTOR}")
        rewritten.append(part.replace("python3 -m pip", f"{interpreter} -m pip"))
    return rewritten


def _bindings(task: Spec) -> Iterator[tuple[str, Spec]]:
    inputs = task.get("inputs", {})
    yield from inputs.get("parameters", {}).items()
    yield from inputs.get("artifacts", {}).items()


def _drop_absent(task: Spec, definition: Spec, absent: set[str]) -> set[str]:
    """Takes the inputs that have no value out of a task; returns the group's own inputs that so have none."""
    parameters = task.get("inputs", {}).get("parameters", {})
    missing = {key for key, binding in parameters.items() if binding.get("componentInputParameter") in absent}
    for key in missing:
        del parameters[key]
    declared = definition.get("inputDefinitions", {}).get("parameters", {})
    if "dag" not in definition:
        return set()
    # A nested pipeline's own optional inputs without a default are in the same position.
    missing |= {
        key
        for key, parameter in declared.items()
        if key not in parameters and parameter.get("isOptional") and "defaultValue" not in parameter
    }
    missing = {key for key in missing if "defaultValue" not in declared.get(key, {})}
    for key in missing:
        declared.pop(key, None)
    return missing


def _origin(binding: Spec, ids: Mapping[str, str], origins: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Where an input comes from, followed out of the groups to the step or the pipeline's parameter."""
    for key, output in (("taskOutputParameter", "outputParameterKey"), ("taskOutputArtifact", "outputArtifactKey")):
        if key in binding:
            return {"task": ids.get(binding[key]["producerTask"], ""), "output": binding[key][output]}
    for key in ("componentInputParameter", "componentInputArtifact"):
        if key in binding:
            origin = origins.get(binding[key], {"parameter": binding[key]})
            selector = binding.get("parameterExpressionSelector")
            return {**origin, "selector": selector} if selector else origin
    if "taskFinalStatus" in binding:
        return {"status_of": ids.get(binding["taskFinalStatus"]["producerTask"], "")}
    return {"value": binding.get("runtimeValue", {}).get("constant")}


def _kind(task: Spec, definition: Spec, reference: str, *, is_importer: bool) -> Kind:
    if "dag" not in definition:
        return "importer" if is_importer else "step"
    if "parameterIterator" in task or "artifactIterator" in task:
        return "loop"
    if task.get("triggerPolicy", {}).get("condition") or reference.startswith("comp-condition"):
        return "condition"
    return "exit_handler" if reference.startswith("comp-exit-handler-") else "pipeline"


def _output_types(definition: Spec) -> dict[str, str]:
    outputs = definition.get("outputDefinitions", {})
    types = {name: port["artifactType"].get("schemaTitle", "") for name, port in outputs.get("artifacts", {}).items()}
    return {**types, **{name: port["parameterType"] for name, port in outputs.get("parameters", {}).items()}}
