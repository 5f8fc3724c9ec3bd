"""A compiled pipeline with the line of everything in it, and the walks over it that rules need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import yaml

from pipeparts.errors import InputError

#: The keys and positions that lead to a place, from the first document's top.
Path = tuple[str | int, ...]
Spec = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of the pipeline, once for each place that its group is used in.

    Attributes:
        name: Its path through the groups: "exit-handler-1/condition-1/send-alert".
        spec: The task, as compiled.
        path: Where it stands.
        above: The groups that it is in, the outermost first.
        component: Its component, as compiled; empty where the document lacks it.
        component_path: Where that stands.
        executor: Its executor, as compiled; empty for groups.
        executor_path: Where that stands.
    """

    name: str
    spec: Spec
    path: Path
    above: tuple[Task, ...]
    component: Spec
    component_path: Path
    executor: Spec
    executor_path: Path

    @property
    def is_loop(self) -> bool:
        """Whether it is a ParallelFor."""
        return "parameterIterator" in self.spec or "artifactIterator" in self.spec

    @property
    def is_exit_handler(self) -> bool:
        """Whether it is the body of an ExitHandler."""
        return str(_map(self.spec.get("componentRef")).get("name", "")).startswith("comp-exit-handler")

    @property
    def inputs(self) -> Spec:
        """The bindings of its input parameters."""
        return _map(_map(self.spec.get("inputs")).get("parameters"))

    def origin(self, name: str) -> Mapping[str, Any]:
        """The binding that an input parameter begins at, followed out through the groups; empty at the pipeline's."""
        binding = _map(self.inputs.get(name))
        for group in reversed(self.above):
            outer = binding.get("componentInputParameter")
            if outer is None:
                return binding
            binding = _map(group.inputs.get(outer))
        return binding if "componentInputParameter" not in binding else {}


class Document:
    """A compiled pipeline or component.

    Args:
        text: The YAML or JSON.
        file: Its name, for messages.

    Attributes:
        kubeflow_version: The release of Kubeflow Pipelines that it is meant for, where known.
        size_bytes: The size of the text.
        duplicates: The keys that stand twice in one mapping, each by its place.
        documents: All of the YAML's documents.
        spec: The first of them: the pipeline.

    Raises:
        InputError: For a text that is empty, is not YAML, or is no mapping.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.kubeflow_version: tuple[int, int] | None = None
        self.size_bytes = len(text.encode())
        self.duplicates: list[Path] = []
        self._lines: dict[Path, int] = {}
        loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
        try:
            nodes = [node for node in yaml.compose_all(text, Loader=loader) if node is not None]
        except yaml.YAMLError as error:
            raise InputError("the pipeline is not YAML", where=file, received=" ".join(str(error).split())) from error
        if not nodes:
            raise InputError("the file is empty", where=file, allowed="a compiled KFP v2 pipeline", received="nothing")
        constructor = yaml.SafeLoader("")
        self._read_already: dict[int, Any] = {}
        documents = [self._read(node, (), constructor, first=number == 0) for number, node in enumerate(nodes)]
        if not isinstance(documents[0], dict):
            raise InputError(
                "not a compiled KFP v2 pipeline",
                where=file,
                allowed="a mapping with pipelineInfo, deploymentSpec and root",
                received=type(documents[0]).__name__,
            )
        self.spec: Spec = documents[0]
        self.documents: list[Any] = documents

    @classmethod
    def read(cls, path: str | FilePath) -> Document:
        """Reads a file.

        Raises:
            InputError: For a file that cannot be read or is no mapping in YAML.
        """
        try:
            text = FilePath(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("cannot read the pipeline", where=str(path), received=str(error)) from error
        return cls(text, str(path))

    def line(self, path: Path) -> int:
        """The line of a place, or of the nearest one around it that has one; from 1."""
        while path not in self._lines and path:
            path = path[:-1]
        return self._lines.get(path, 1)

    @functools.cached_property
    def is_pipeline(self) -> bool:
        """Whether it is KFP v2 at all: what else there is to find depends on it."""
        return isinstance(self.spec.get("root"), dict) and "kind" not in self.spec

    @functools.cached_property
    def root(self) -> Spec:
        """The root component; empty where there is none."""
        return _map(self.spec.get("root"))

    @functools.cached_property
    def components(self) -> dict[str, Spec]:
        """Name to component, as compiled."""
        return {name: _map(component) for name, component in _map(self.spec.get("components")).items()}

    @functools.cached_property
    def executors(self) -> dict[str, Spec]:
        """Label to executor, as compiled."""
        return {label: _map(e) for label, e in _map(_map(self.spec.get("deploymentSpec")).get("executors")).items()}

    @functools.cached_property
    def tasks(self) -> list[Task]:
        """Every task, groups before their members."""
        found: list[Task] = []
        self._walk(self.root, ("root",), (), (), found)
        return found

    def users(self, label: str) -> tuple[str, ...]:
        """The tasks that run an executor; of a component on its own, none."""
        return tuple(task.name for task in self.tasks if task.executor_path[-1:] == (label,))

    def containers(self) -> Iterator[tuple[str, Spec, Path]]:
        """Each container's label, itself and its place."""
        for label, executor in self.executors.items():
            if isinstance(executor.get("container"), dict):
                yield label, executor["container"], ("deploymentSpec", "executors", label, "container")

    def command_texts(self) -> Iterator[tuple[str, str, Path]]:
        """Each text of a container's command and arguments: the executor's label, the text and its place."""
        for label, container, path in self.containers():
            for part in ("command", "args"):
                texts = container.get(part)
                for position, text in enumerate(texts if isinstance(texts, list) else []):
                    yield label, str(text), (*path, part, position)

    def constants(self) -> Iterator[tuple[Task, str, Any, Path]]:
        """Each constant that a task is given: the task, the input's name, the value and its place."""
        for task in self.tasks:
            for name, binding in task.inputs.items():
                runtime = _map(_map(binding).get("runtimeValue"))
                place = (*task.path, "inputs", "parameters", name, "runtimeValue", "constant")
                if "constant" in runtime:
                    yield task, name, runtime["constant"], place

    def parameters(self) -> Iterator[tuple[str, str, Spec, Path]]:
        """Each input parameter's component ("root" for the pipeline's own), name, definition and place."""
        for where, component in [("root", self.root), *self.components.items()]:
            base: Path = ("root",) if where == "root" else ("components", where)
            definitions = _map(_map(component.get("inputDefinitions")).get("parameters"))
            for name, definition in definitions.items():
                yield where, name, _map(definition), (*base, "inputDefinitions", "parameters", name)

    def artifact_types(self) -> Iterator[tuple[Spec, Path]]:
        """Each artifact's type where it is declared, and its place; importers' among them."""
        for where, component in [("root", self.root), *self.components.items()]:
            base: Path = ("root",) if where == "root" else ("components", where)
            for ports in ("inputDefinitions", "outputDefinitions"):
                for name, artifact in _map(_map(component.get(ports)).get("artifacts")).items():
                    place = (*base, ports, "artifacts", name, "artifactType")
                    yield _map(_map(artifact).get("artifactType")), place
        for label, executor in self.executors.items():
            if "importer" in executor:
                place = ("deploymentSpec", "executors", label, "importer", "typeSchema")
                yield _map(_map(executor["importer"]).get("typeSchema")), place

    def _walk(self, component: Spec, path: Path, above: tuple[Task, ...], inside: Path, found: list[Task]) -> None:
        for name, spec in _map(_map(component.get("dag")).get("tasks")).items():
            spec = _map(spec)
            reference = str(_map(spec.get("componentRef")).get("name", ""))
            definition = self.components.get(reference, {})
            label = str(definition.get("executorLabel", ""))
            task = Task(
                name="/".join([*(group.path[-1] for group in above), name]),  # type: ignore[list-item]
                spec=spec,
                path=(*path, "dag", "tasks", name),
                above=above,
                component=definition,
                component_path=("components", reference),
                executor=self.executors.get(label, {}),
                executor_path=("deploymentSpec", "executors", label) if label else (),
            )
            found.append(task)
            if "dag" in definition and reference not in inside:  # a pipeline that contains itself has no end
                self._walk(definition, ("components", reference), (*above, task), (*inside, reference), found)

    def _read(self, node: yaml.Node, path: Path, constructor: yaml.SafeLoader, *, first: bool) -> Any:
        """A node as plain values; of the first document, with the line of each place."""
        if first and path:
            self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return constructor.construct_object(node)
        if id(node) in self._read_already:  # an alias: the same object again, as every YAML parser gives it
            return self._read_already[id(node)]
        if isinstance(node, yaml.SequenceNode):
            items: list[Any] = []
            self._read_already[id(node)] = items
            items += [self._read(item, (*path, i), constructor, first=first) for i, item in enumerate(node.value)]
            return items
        values: dict[str, Any] = {}
        self._read_already[id(node)] = values
        for key_node, value_node in node.value:
            key = str(constructor.construct_object(key_node, deep=True))
            if key in values:
                self.duplicates.append((*path, key))
            values[key] = self._read(value_node, (*path, key), constructor, first=first)
            if first:
                self._lines[*path, key] = key_node.start_mark.line + 1
        return values


def _map(value: Any) -> dict[str, Any]:
    """The value where it is a mapping; a damaged document has other things in its place."""
    return value if isinstance(value, dict) else {}
