"""A compiled pipeline with the line of everything in it, and the walks over it that rules need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

from pipeparts.errors import InputError
from pipeparts.linting import commands
from pipeparts.linting.commands import Seen
from pipeparts.linting.reading import LARGEST_FILE_BYTES, Path, parse

Spec = dict[str, Any]
#: A release of Kubeflow Pipelines: (2, 14), or (2, 16, 1) where it is known so well.
Version = tuple[int, ...]

#: No console shows more; a small file of groups in groups can stand for millions.
_MOST_TASKS = 20_000
_DEEPEST_GROUP = 50


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
        self.kubeflow_version: Version | None = None
        self.size_bytes = len(text.encode())
        parsed = parse(text, file)
        if not parsed.documents:
            raise InputError("the file is empty", where=file, allowed="a compiled KFP v2 pipeline", received="nothing")
        first = parsed.documents[0]
        if not isinstance(first, dict):
            raise InputError(
                "not a compiled KFP v2 pipeline",
                where=file,
                allowed="a mapping with pipelineInfo, deploymentSpec and root",
                received=type(first).__name__,
            )
        self.spec: Spec = first
        self.documents: list[Any] = parsed.documents
        self.duplicates: list[Path] = parsed.duplicates
        self._lines = parsed.lines

    @classmethod
    def read(cls, path: str | FilePath) -> Document:
        """Reads a file.

        Raises:
            InputError: For a file that cannot be read or is no mapping in YAML.
        """
        file = FilePath(path)
        try:
            size = file.stat().st_size
            if size > LARGEST_FILE_BYTES:
                raise InputError(
                    "the file is too large for a pipeline",
                    where=str(path),
                    allowed=f"{LARGEST_FILE_BYTES:,} bytes",
                    received=f"{size:,} bytes",
                )
            text = file.read_bytes().decode()
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
    def is_component(self) -> bool:
        """Whether it is a component on its own: KFP wraps it in one task of its name, and hands all inputs on."""
        tasks = _map(_map(self.root.get("dag")).get("tasks"))
        if list(tasks) != [_map(self.spec.get("pipelineInfo")).get("name")]:
            return False
        (task,) = tasks.values()
        inputs = _map(_map(task).get("inputs"))
        return all(
            _map(binding).get(key) == name
            for kind, key in (("parameters", "componentInputParameter"), ("artifacts", "componentInputArtifact"))
            for name, binding in _map(inputs.get(kind)).items()
        )

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
        return tuple(self._users.get(label, ()))

    @functools.cached_property
    def _users(self) -> dict[str, list[str]]:
        users: dict[str, list[str]] = {}
        for task in self.tasks:
            if task.executor_path:
                users.setdefault(str(task.executor_path[-1]), []).append(task.name)
        return users

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

    def seen(self) -> Iterator[tuple[str, Seen, Path]]:
        """What each container's command does and names: the executor's label, the thing and its place."""
        for label, container, path in self.containers():
            parts = [(part, container.get(part)) for part in ("command", "args")]
            words = [
                ((*path, part, i), str(text))
                for part, texts in parts
                for i, text in enumerate(texts if isinstance(texts, list) else [])
            ]
            for seen in commands.read([text for _, text in words]):
                yield label, seen, words[seen.position][0]

    def images(self) -> Iterator[tuple[str, str, Path]]:
        """Each image that is run: the executor's label, the image and its place; those of custom jobs among them."""
        for label, container, path in self.containers():
            yield label, str(container.get("image") or ""), (*path, "image")
        for label, executor in self.executors.items():
            if "customJob" in executor:
                path = ("deploymentSpec", "executors", label, "customJob")
                images = list(_values_of("imageUri", executor["customJob"]))
                for image in images or [""]:
                    yield label, image, path

    def environment(self) -> Iterator[tuple[str, str, str, Path]]:
        """Each environment variable of a container: the executor's label, its name, its value and its place."""
        for label, container, path in self.containers():
            variables = container.get("env")
            for position, variable in enumerate(variables if isinstance(variables, list) else []):
                if isinstance(variable, dict) and variable.get("value") is not None:
                    yield label, str(variable.get("name", "")), str(variable["value"]), (*path, "env", position)

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
                name=f"{above[-1].name}/{name}" if above else name,
                spec=spec,
                path=(*path, "dag", "tasks", name),
                above=above,
                component=definition,
                component_path=("components", reference),
                executor=self.executors.get(label, {}),
                executor_path=("deploymentSpec", "executors", label) if label else (),
            )
            found.append(task)
            if len(found) > _MOST_TASKS or len(above) > _DEEPEST_GROUP:
                raise InputError(
                    "the pipeline has too many tasks",
                    where=self.file,
                    allowed=f"{_MOST_TASKS:,}, a group's counted for every use, and {_DEEPEST_GROUP} groups in groups",
                    received="more",
                )
            if "dag" in definition and reference not in inside:  # a pipeline that contains itself has no end
                self._walk(definition, ("components", reference), (*above, task), (*inside, reference), found)


def _values_of(key: str, value: Any) -> Iterator[str]:
    """Each value under a key, at any depth."""
    for name, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        if name == key:
            yield str(item)
        else:
            yield from _values_of(key, item)


def _map(value: Any) -> dict[str, Any]:
    """The value where it is a mapping; a damaged document has other things in its place."""
    return value if isinstance(value, dict) else {}
