"""A compiled pipeline as what it does: its steps, where each input really comes from, and the groups around them.

Labels of components and executors, and the names that inputs have on their way through groups, are KFP's own and change
with the order of the source: they are resolved here, so that nothing of them is left to compare.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeparts.diffing.changes import dumped, shown
from pipeparts.diffing.reading import Compiled
from pipeparts.errors import InputError

#: Where a value comes from: a tuple of its kind and what that needs; `render` says it in words.
Origin = tuple[Any, ...]

Names = Callable[[str], str]

_KINDS = ("parameters", "artifacts")
_ITERATORS = {"parameterIterator", "artifactIterator"}
_CHANNEL = "pipelinechannel--"
_INSIDE = re.compile(r"\{\{\$\.inputs\.parameters\[\\?['\"]([^'\"\\]+)\\?['\"]\]\}\}")
_IN_CONDITION = re.compile(r"inputs\.(?:parameter_values|parameters)\[['\"]([^'\"]+)['\"]\](?:\.\w+_value)?")


@dataclasses.dataclass
class Node:
    """What steps and groups have in common.

    Attributes:
        path: Its name with those of the groups around it: "condition-1/train".
        name: The last part of that.
        group: The path of the group around it; empty at the top.
        task: The task, as compiled.
        component: Its component, as compiled.
        after: The paths of what it waits for without taking anything from it.
        condition: When it runs; None for always.
        items: What it is repeated for; None where it is not.
    """

    path: str
    name: str
    group: str
    task: dict[str, Any]
    component: dict[str, Any]
    after: set[str] = dataclasses.field(default_factory=set)
    condition: Origin | None = None
    items: Origin | None = None


@dataclasses.dataclass
class Step(Node):
    """A task that does work.

    Attributes:
        inputs: Input name to origin.
        executor: What it runs, as compiled.
        platforms: Platform to the settings of its executor.
    """

    inputs: dict[str, Origin] = dataclasses.field(default_factory=dict)
    executor: dict[str, Any] = dataclasses.field(default_factory=dict)
    platforms: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Group(Node):
    """A condition, its branches, a loop, an exit handler, or a pipeline used as a step.

    Attributes:
        kind: Which of them, as people call it.
    """

    kind: str = "pipeline"


@dataclasses.dataclass
class Graph:
    """A pipeline's steps and groups by path, and where its outputs come from."""

    steps: dict[str, Step]
    groups: dict[str, Group]
    outputs: dict[str, Origin]
    root: dict[str, Any]

    @property
    def is_component(self) -> bool:
        """Whether it is one component, compiled by itself: its only step passes everything through."""
        if len(self.steps) != 1 or self.groups:
            return False
        (step,) = self.steps.values()
        return all(origin == ("input", name) for name, origin in step.inputs.items())

    def inside(self, path: str) -> list[str]:
        """The paths of the steps in a group; of a step, its own."""
        if path in self.steps:
            return [path]
        return [step for step in self.steps if step.startswith(f"{path}/")]

    def around(self, path: str) -> list[str]:
        """The groups around a node, the outermost first."""
        node = self.steps.get(path) or self.groups[path]
        return [*self.around(node.group), node.group] if node.group else []


def read_graph(compiled: Compiled) -> Graph:
    """Resolves a compiled pipeline.

    Raises:
        InputError: For a pipeline that names what it does not hold, or that contains itself.
    """
    return _Reader(compiled).read()


def render(origin: Origin, names: Names, *, whole: bool = False) -> str:
    """An origin in words.

    Args:
        origin: The origin.
        names: Gives the name to use for a step's or group's path.
        whole: Whether to leave long values uncut, for comparing.
    """
    kind, *rest = origin
    if kind == "input":
        return f"the pipeline's {rest[0]}"
    if kind == "output":
        return f"{names(rest[0])}.{rest[1]}"
    if kind == "constant":
        return _filled(_INSIDE, dumped(rest[0]) if whole else shown(rest[0]), rest[1], names)
    if kind == "condition":
        return _filled(_IN_CONDITION, rest[0], rest[1], names)
    if kind == "item":
        return f"the item of {names(rest[0])}"
    if kind == "status":
        return f"the final status of {names(rest[0])}"
    if kind == "collected":
        return f"all of {render(rest[0], names, whole=whole)}"
    if kind == "one of":
        return f"one of {', '.join(render(each, names, whole=whole) for each in rest[0])}"
    if kind == "selected":
        return f"{rest[1]} of {render(rest[0], names, whole=whole)}"
    return "nothing" if kind == "absent" else dumped(rest)


def paths_in(origin: Origin) -> set[str]:
    """The paths of the steps whose outputs an origin takes."""
    kind, *rest = origin
    if kind == "output":
        return {rest[0]}
    if kind in ("collected", "selected"):
        return paths_in(rest[0])
    if kind == "one of":
        return set().union(*(paths_in(each) for each in rest[0]))
    return set().union(*(paths_in(each) for _, each in rest[1])) if kind in ("constant", "condition") else set()


class _Reader:
    def __init__(self, compiled: Compiled) -> None:
        self._where = compiled.where
        spec = compiled.spec
        self._components = self._map(spec.get("components"), "components")
        deployment = self._map(spec.get("deploymentSpec"), "deploymentSpec")
        self._executors = self._map(deployment.get("executors"), "deploymentSpec.executors")
        self._root = self._map(spec["root"], "root")
        self._platforms = {}
        for platform, settings in compiled.platforms.items():
            place = f"platforms.{platform}.deploymentSpec"
            deployed = self._map(self._map(settings, place).get("deploymentSpec"), place)
            self._platforms[platform] = self._map(deployed.get("executors"), f"{place}.executors")
        self._graph = Graph({}, {}, {}, self._root)

    def read(self) -> Graph:
        if "dag" not in self._root:
            raise InputError(
                "not a compiled KFP v2 pipeline",
                parameter="root",
                where=self._where,
                allowed="a component with a dag of tasks",
                received=sorted(map(str, self._root)),
            )
        definitions = self._map(self._root.get("inputDefinitions"), "root.inputDefinitions")
        given: dict[tuple[str, str], Origin] = {
            (kind, name): ("input", name) for kind in _KINDS for name in self._map(definitions.get(kind), kind)
        }
        self._walk(self._root, "", given, ())
        declared = self._map(self._map(self._root["dag"], "root.dag").get("outputs"), "root.dag.outputs")
        for kind in _KINDS:
            for name in self._map(declared.get(kind), f"root.dag.outputs.{kind}"):
                self._graph.outputs[str(name)] = self._group_output(self._root, "", kind, str(name))
        return self._graph

    def _walk(
        self, component: dict[str, Any], group: str, given: Mapping[tuple[str, str], Origin], above: tuple[str, ...]
    ) -> None:
        for name, task in self._tasks(component).items():
            path = f"{group}/{name}" if group else name
            label, inner = self._component(task, path)
            if label in above:
                raise InputError("a pipeline that contains itself", where=f"{self._where}, task {path}", received=label)
            origins, used = self._origins(component, task, group, given)
            common: dict[str, Any] = {
                "path": path,
                "name": name,
                "group": group,
                "task": task,
                "component": inner,
                "after": {self._sibling(component, other, group) for other in self._after(task, path)} - used,
                "condition": self._condition(task, path, origins),
                "items": self._items(task, path, origins),
            }
            if "dag" in inner:
                self._graph.groups[path] = Group(**common, kind=_kind(label, common["condition"], common["items"]))
                self._walk(inner, path, self._given_inside(path, task, inner, origins), (*above, label))
                continue
            executor = str(inner.get("executorLabel", ""))
            if executor not in self._executors:
                raise self._missing("executor", executor, self._executors, path)
            self._graph.steps[path] = Step(
                **common,
                inputs={name: origin for (_, name), origin in origins.items() if not name.startswith(_CHANNEL)},
                executor=self._map(self._executors[executor], f"deploymentSpec.executors.{executor}"),
                platforms={
                    p: self._map(found[executor], p) for p, found in self._platforms.items() if executor in found
                },
            )

    def _origins(
        self, component: dict[str, Any], task: dict[str, Any], group: str, given: Mapping[tuple[str, str], Origin]
    ) -> tuple[dict[tuple[str, str], Origin], set[str]]:
        """Each input's origin, and the siblings that they are taken from."""
        inputs = self._map(task.get("inputs"), "inputs of a task")
        found: dict[tuple[str, str], Origin] = {}
        used: set[str] = set()
        for kind in _KINDS:
            for name, written in self._map(inputs.get(kind), f"{kind} of a task").items():
                binding = self._map(written, f"input {name} of a task")
                origin = self._origin(component, binding, kind, group, given, used)
                if "parameterExpressionSelector" in binding:
                    origin = ("selected", origin, binding["parameterExpressionSelector"])
                found[kind, str(name)] = origin
        for key, origin in found.items():
            if origin[0] == "constant":
                found[key] = ("constant", origin[1], self._fills(_INSIDE, dumped(origin[1]), found))
        return found, used

    def _origin(
        self,
        component: dict[str, Any],
        binding: dict[str, Any],
        kind: str,
        group: str,
        given: Mapping[tuple[str, str], Origin],
        used: set[str],
    ) -> Origin:
        value = self._map(binding.get("runtimeValue"), "runtimeValue")
        if "constant" in value:
            return ("constant", value["constant"], ())
        outer = binding.get("componentInputParameter", binding.get("componentInputArtifact"))
        if outer is not None:
            return given.get((kind, str(outer)), ("absent",))
        if "taskFinalStatus" in binding:
            status = self._map(binding["taskFinalStatus"], "taskFinalStatus")
            return ("status", self._sibling(component, status.get("producerTask"), group))
        for key, output in (("taskOutputParameter", "outputParameterKey"), ("taskOutputArtifact", "outputArtifactKey")):
            if key in binding:
                source = self._map(binding[key], key)
                used.add(self._sibling(component, source.get("producerTask"), group))
                return self._output(component, str(source.get("producerTask")), group, kind, str(source.get(output)))
        return ("other", binding)

    def _output(self, component: dict[str, Any], name: str, group: str, kind: str, key: str) -> Origin:
        """Where an output of a task of a component's dag comes from, through the groups that hand it on."""
        path = self._sibling(component, name, group)
        task = self._tasks(component)[name]
        _, inner = self._component(task, path)
        if "dag" not in inner:
            return ("output", path, key)
        origin = self._group_output(inner, path, kind, key)
        return ("collected", origin) if _ITERATORS & task.keys() else origin

    def _group_output(self, component: dict[str, Any], path: str, kind: str, key: str) -> Origin:
        outputs = self._map(self._map(component.get("dag"), f"dag of {path}").get("outputs"), f"outputs of {path}")
        output = self._map(self._map(outputs.get(kind), f"outputs of {path}").get(key), f"output {key} of {path}")
        one_of = self._map(output.get("valueFromOneof"), f"output {key} of {path}")
        selectors = (
            output.get("artifactSelectors") or one_of.get("parameterSelectors") or [output.get("valueFromParameter")]
        )
        found = []
        for each in selectors:
            selector = self._map(each, f"output {key} of {path}")
            name = selector.get("outputArtifactKey", selector.get("outputParameterKey"))
            if name is None:
                raise self._missing("output", key, outputs.get(kind) or {}, path)
            found.append(self._output(component, str(selector.get("producerSubtask")), path, kind, str(name)))
        return found[0] if len(found) == 1 and not one_of else ("one of", tuple(found))

    def _given_inside(
        self, path: str, task: dict[str, Any], inner: dict[str, Any], origins: Mapping[tuple[str, str], Origin]
    ) -> dict[tuple[str, str], Origin]:
        """What a group's inputs stand for, for the tasks in it."""
        given = dict(origins)
        definitions = self._map(inner.get("inputDefinitions"), f"inputs of {path}")
        for name, definition in self._map(definitions.get("parameters"), f"inputs of {path}").items():
            default = self._map(definition, f"input {name} of {path}").get("defaultValue")
            if default is not None:
                given.setdefault(("parameters", str(name)), ("constant", default, ()))
        for key, kind in (("parameterIterator", "parameters"), ("artifactIterator", "artifacts")):
            if key in task:
                given[kind, str(self._map(task[key], key).get("itemInput"))] = ("item", path)
        return given

    def _condition(self, task: dict[str, Any], path: str, origins: Mapping[tuple[str, str], Origin]) -> Origin | None:
        text = self._map(task.get("triggerPolicy"), f"triggerPolicy of {path}").get("condition")
        return None if text is None else ("condition", str(text), self._fills(_IN_CONDITION, str(text), origins))

    def _items(self, task: dict[str, Any], path: str, origins: Mapping[tuple[str, str], Origin]) -> Origin | None:
        for key, kind, source in (
            ("parameterIterator", "parameters", "inputParameter"),
            ("artifactIterator", "artifacts", "inputArtifact"),
        ):
            if key in task:
                items = self._map(self._map(task[key], key).get("items"), f"items of {path}")
                if "raw" in items:
                    return ("constant", _json(items["raw"]), self._fills(_INSIDE, str(items["raw"]), origins))
                return origins.get((kind, str(items.get(source))), ("absent",))
        return None

    @staticmethod
    def _fills(
        pattern: re.Pattern[str], text: str, origins: Mapping[tuple[str, str], Origin]
    ) -> tuple[tuple[str, Origin], ...]:
        """The inputs that a text mentions, each with its origin."""
        names = dict.fromkeys(pattern.findall(text))
        return tuple((name, origins.get(("parameters", name), ("absent",))) for name in names)

    def _tasks(self, component: dict[str, Any]) -> dict[str, dict[str, Any]]:
        dag = self._map(component.get("dag"), "dag")
        return {
            str(name): self._map(task, f"task {name}") for name, task in self._map(dag.get("tasks"), "tasks").items()
        }

    def _after(self, task: dict[str, Any], path: str) -> list[Any]:
        after = task.get("dependentTasks") or []
        if isinstance(after, list):
            return after
        raise self._damaged(f"dependentTasks of {path}", "a list", after)

    def _component(self, task: dict[str, Any], path: str) -> tuple[str, dict[str, Any]]:
        label = str(self._map(task.get("componentRef"), f"componentRef of {path}").get("name", ""))
        if label not in self._components:
            raise self._missing("component", label, self._components, path)
        return label, self._map(self._components[label], f"components.{label}")

    def _sibling(self, component: dict[str, Any], name: Any, group: str) -> str:
        if str(name) not in self._tasks(component):
            raise self._missing("task", name, self._tasks(component), group)
        return f"{group}/{name}" if group else str(name)

    def _missing(self, what: str, name: Any, there: Iterable[str], path: str) -> InputError:
        return InputError(
            f"a damaged pipeline: it refers to {'an' if what[0] in 'aeiou' else 'a'} {what} that is not there",
            where=f"{self._where}, task {path}" if path else self._where,
            allowed=sorted(there),
            received=name,
        )

    def _map(self, value: Any, place: str) -> dict[str, Any]:
        """A part that has to be a mapping; nothing is an empty one."""
        if value is not None and not isinstance(value, dict):
            raise self._damaged(place, "a mapping", value)
        return value or {}

    def _damaged(self, place: str, allowed: str, value: Any) -> InputError:
        return InputError(
            "a damaged pipeline",
            parameter=place,
            where=self._where,
            allowed=allowed,
            received=f"{type(value).__name__}: {value!r}",
        )


def _kind(label: str, condition: Origin | None, items: Origin | None) -> str:
    if items is not None:
        return "loop"
    if condition is not None:
        return "condition"
    if label.startswith("comp-exit-handler"):
        return "exit handler"
    return "set of branches" if label.startswith("comp-condition-branches") else "pipeline"


def _filled(pattern: re.Pattern[str], text: str, fills: tuple[tuple[str, Origin], ...], names: Names) -> str:
    known = dict(fills)
    return pattern.sub(lambda found: f"{{{render(known[found[1]], names)}}}" if found[1] in known else found[0], text)


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
