"""Compares two compiled pipelines in meaning."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeparts.diffing.changes import (
    Change,
    Comparison,
    Impact,
    canonical,
    difference,
    dumped,
    internal,
    merged,
    without,
)
from pipeparts.diffing.graph import Graph, Node, Origin, Step, paths_in, read_graph, render
from pipeparts.diffing.interface import interface_changes
from pipeparts.diffing.matching import GONE, Matches, match
from pipeparts.diffing.reading import Compiled, Templates
from pipeparts.diffing.steps import executor_changes, platform_changes, port_changes
from pipeparts.errors import InputError

_NUMBERED = re.compile(r"(condition|condition-branches|for-loop|exit-handler)-\d+")


def compare_templates(old: Templates, new: Templates) -> list[Comparison]:
    """Compares what two references name: one with one, or those of the same names in two folders.

    Raises:
        InputError: Where one is a folder and the other is not, or where a pipeline is damaged.
    """
    if old.several != new.several:
        raise InputError(
            "a folder cannot be compared with one pipeline",
            parameter="OLD and NEW",
            allowed="two pipelines, or two folders of them",
            received=f"{old.reference} and {new.reference}",
        )
    if not old.several:
        (before,), (after,) = old.found.values(), new.found.values()
        return [compare(before, after)]
    comparisons = []
    for name in sorted({*old.found, *new.found}):
        if name not in new.found:
            gone = Change(
                "pipeline-removed", Impact.BREAKING, "the pipeline", "was removed", "who uses it no longer finds it"
            )
            comparisons.append(Comparison(name, (gone,)))
        elif name not in old.found:
            added = Change("pipeline-added", Impact.COMPATIBLE, "the pipeline", "was added", "nobody uses it yet")
            comparisons.append(Comparison(name, (added,)))
        else:
            comparisons.append(compare(old.found[name], new.found[name]))
    return comparisons


def compare(old: Compiled, new: Compiled) -> Comparison:
    """Compares two versions of one pipeline or component.

    Raises:
        InputError: Where one of them is damaged.
    """
    found = _Comparer(read_graph(old), read_graph(new)).changes()
    return Comparison(new.name, merged([*interface_changes(old, new), *found, *_pipeline_changes(old, new)]))


def interface_only(old: Compiled, new: Compiled) -> Comparison:
    """Compares what callers see, and nothing else."""
    return Comparison(new.name, merged(interface_changes(old, new)))


def _pipeline_changes(old: Compiled, new: Compiled) -> Iterator[Change]:
    """What concerns the pipeline as a whole: settings, and the platforms that it is bound to."""
    before, after = (_of_the_pipeline(each) for each in (old, new))
    for key in sorted({*before, *after}):
        if dumped(before.get(key)) != dumped(after.get(key)):
            yield difference("setting-changed", f"the pipeline's {key}", before.get(key), after.get(key))
    for platform in sorted({*old.platforms, *new.platforms}):
        if platform not in old.platforms:
            yield Change(
                "platform-added",
                Impact.BREAKING,
                f"settings for {platform}",
                "were added",
                "Vertex AI takes a pipeline without them only",
            )
        elif platform not in new.platforms:
            yield Change(
                "platform-removed",
                Impact.INTERNAL,
                f"settings for {platform}",
                "were removed",
                "it runs in more places",
            )
        before, after = (without(each.platforms.get(platform), "deploymentSpec") for each in (old, new))
        for key in sorted({*before, *after}):
            if dumped(before.get(key)) != dumped(after.get(key)):
                yield difference(
                    "platform-changed", f"{platform}: {key} of the pipeline", before.get(key), after.get(key)
                )


def _of_the_pipeline(compiled: Compiled) -> dict[str, Any]:
    """What of a pipeline has no words of its own elsewhere."""
    spec = without(compiled.spec, "components", "deploymentSpec", "root", "sdkVersion", "pipelineInfo")
    root = without(compiled.spec["root"], "dag", "inputDefinitions", "outputDefinitions")
    return {**spec, **root, **without(compiled.spec["pipelineInfo"], "name", "description")}


class _Comparer:
    def __init__(self, old: Graph, new: Graph) -> None:
        self._old, self._new = old, new
        self._matches: Matches = match(old, new)
        self._alone = old.is_component and new.is_component

    def changes(self) -> Iterator[Change]:
        for path in self._old.steps:
            if path not in self._matches.steps:
                yield _step("step-removed", self._short(self._old, path), "was removed")
        for path in self._new.steps:
            if path not in self._matches.steps.values():
                yield _step("step-added", self._short(self._new, path), "was added")
        yield from self._group_changes()
        for before, after in self._matches.steps.items():
            yield from self._step_changes(self._old.steps[before], self._new.steps[after])
        for name in sorted({*self._old.outputs, *self._new.outputs}):
            both = self._old.outputs.get(name), self._new.outputs.get(name)
            if all(both):  # one that was added or removed is in the interface
                yield from self._origin_change("output-from-elsewhere", f"output {name}", *both, ())

    def _step_changes(self, old: Step, new: Step) -> Iterator[Change]:
        steps = (self._short(self._new, new.path),)
        if old.name != new.name and not self._alone:
            yield _step("step-renamed", self._short(self._old, old.path), f"is called {new.name} now")
        yield from self._placed(old, new)
        yield from self._inputs(old, new, steps)
        yield from self._node_changes(old, new, steps)
        yield from executor_changes(old, new, steps)
        yield from platform_changes(old, new, steps)
        if not self._alone:
            yield from port_changes(old, new, steps)

    # ---- Where inputs come from, and what comes before what -----------------------------------------------------

    def _inputs(self, old: Step, new: Step, steps: tuple[str, ...]) -> Iterator[Change]:
        for name in sorted({*old.inputs, *new.inputs}):
            before, after = old.inputs.get(name, ("absent",)), new.inputs.get(name, ("absent",))
            if self._alone and {before[0], after[0]} <= {"input", "absent"}:
                continue  # a component's own input: it is in the interface
            yield from self._origin_change("edge-changed", f"input {name}", before, after, steps)

    def _origin_change(
        self, kind: str, subject: str, old: Origin | None, new: Origin | None, steps: tuple[str, ...]
    ) -> Iterator[Change]:
        before, after = old or ("absent",), new or ("absent",)
        if self._words(before, old=True, whole=True) != self._words(after, old=False, whole=True):
            yield internal(
                kind,
                subject,
                "comes from elsewhere" if {before[0], after[0]} != {"constant"} else "has another value",
                before=self._words(before, old=True),
                after=self._words(after, old=False),
                steps=steps,
            )

    def _words(self, origin: Origin, *, old: bool, whole: bool = False) -> str:
        def name(path: str) -> str:
            known = self._matches.name(path) if old else path
            return known if whole else self._short_any(known)

        return render(origin, name, whole=whole)

    @staticmethod
    def _waits(graph: Graph, node: Node) -> tuple[set[str], set[str]]:
        """What a step waits for, itself or with a group around it: without taking anything from it, and to take it."""
        above = [graph.groups[path] for path in graph.around(node.path)]
        taken: set[str] = set()
        left: list[Node] = [node, *above]
        while left:
            each = left.pop()
            origins = [*(each.inputs.values() if isinstance(each, Step) else ()), each.condition, each.items]
            for path in set().union(*(paths_in(origin) for origin in origins if origin is not None)) - taken:
                taken.add(path)
                left += [graph.steps[path], *(graph.groups[outer] for outer in graph.around(path))]
        after = set().union(*(each.after for each in [node, *above]))
        return {path for path in after if not set(graph.inside(path)) & taken}, taken

    def _order(self, old: Node, new: Node, steps: tuple[str, ...]) -> Iterator[Change]:
        after, taken = self._waits(self._old, old)
        before = self._names(self._old, after, self._matches.groups, self._matches.name)
        taken_before = {self._matches.name(path) for path in taken}
        after, taken_after = self._waits(self._new, new)
        now = self._names(self._new, after, set(self._matches.groups.values()), lambda path: path)
        if before - now - taken_after or now - before - taken_before:
            words = [", ".join(sorted(self._short_any(path) for path in paths)) for paths in (before, now)]
            yield internal(
                "order-changed", "what it waits for", "changed", before=words[0], after=words[1], steps=steps
            )

    @staticmethod
    def _names(graph: Graph, paths: set[str], shared: Any, name: Callable[[str], str]) -> set[str]:
        """Paths by their new names; of a group that only one pipeline has, the steps in it."""
        found: set[str] = set()
        for path in paths:
            inside = [path] if path in graph.steps or path in shared else graph.inside(path)
            found |= {name(each) for each in inside}
        return found

    # ---- Groups -------------------------------------------------------------------------------------------------

    def _placed(self, old: Step, new: Step) -> Iterator[Change]:
        before = [self._matches.groups[path] for path in self._old.around(old.path) if path in self._matches.groups]
        shared = set(self._matches.groups.values())
        after = [path for path in self._new.around(new.path) if path in shared]
        if before != after:
            yield internal(
                "step-moved",
                f"step {self._short(self._new, new.path)}",
                "is in another place",
                before=self._place(before),
                after=self._place(after),
            )

    def _place(self, groups: list[str]) -> str:
        return " in ".join(self._group(self._new, path) for path in reversed(groups)) or "the top of the pipeline"

    def _group_changes(self) -> Iterator[Change]:
        for path in self._old.groups:
            if path not in self._matches.groups:
                yield self._group_gone_or_new(self._old, path, "removed")
        for path in self._new.groups:
            if path not in self._matches.groups.values():
                yield self._group_gone_or_new(self._new, path, "added")
        for before, after in self._matches.groups.items():
            old, new = self._old.groups[before], self._new.groups[after]
            subject = self._group(self._new, after)
            for kind, one, other in (("condition", old.condition, new.condition), ("items", old.items, new.items)):
                for change in self._origin_change(f"{kind}-changed", f"{kind} of {subject}", one, other, ()):
                    yield dataclasses.replace(change, text="changed")
            for change in self._node_changes(old, new, ()):
                yield dataclasses.replace(change, subject=f"{change.subject} of {subject}")

    def _group_gone_or_new(self, graph: Graph, path: str, what: str) -> Change:
        group = graph.groups[path]
        origin = group.condition or group.items
        steps = tuple(self._short(graph, step) for step in graph.inside(path))
        words = self._words(origin, old=graph is self._old) if origin else ""
        verb = "was added around" if what == "added" else "was removed from around"
        return internal(
            f"{group.kind.replace(' ', '-')}-{what}",
            f"{'an' if group.kind[0] in 'aeiou' else 'a'} {group.kind}",
            f"{verb} {', '.join(steps[:4])}{f' and {len(steps) - 4} more' if len(steps) > 4 else ''}",
            before=words if what == "removed" else "",
            after=words if what == "added" else "",
        )

    @staticmethod
    def _group(graph: Graph, path: str) -> str:
        group = graph.groups[path]
        return _label(group) if _NUMBERED.fullmatch(_label(group)) else f"{group.kind} {_label(group)}"

    # ---- What steps and groups have in common -------------------------------------------------------------------

    def _node_changes(self, old: Node, new: Node, steps: tuple[str, ...]) -> Iterator[Change]:
        if isinstance(old, Step) and isinstance(new, Step):
            yield from self._order(old, new, steps)
            for kind, one, other in (("condition", old.condition, new.condition), ("items", old.items, new.items)):
                yield from self._origin_change(f"{kind}-changed", f"the {kind}", one, other, steps)
        labels = _label(old), _label(new)
        numbered = all(_NUMBERED.fullmatch(label) for label in labels)
        as_named = (old.name, new.name) == labels  # then a renamed step is said to be so already
        if labels[0] != labels[1] and not (self._alone or numbered or as_named):
            yield internal(
                "label-changed", "the name in the console", "changed", before=labels[0], after=labels[1], steps=steps
            )
        for key, kind, subject in (
            ("cachingOptions", "caching-changed", "caching"),
            ("retryPolicy", "retries-changed", "retries"),
            ("iteratorPolicy", "parallelism-changed", "the limit of parallel runs"),
        ):
            if _settings(key, old.task) != _settings(key, new.task):
                yield difference(kind, subject, _settings(key, old.task), _settings(key, new.task), steps)
        before, after = (self._other_settings(each) for each in (old, new))
        for key in sorted({*before, *after}):
            if dumped(before.get(key)) != dumped(after.get(key)):
                yield difference("setting-changed", key, before.get(key), after.get(key), steps)

    @staticmethod
    def _other_settings(node: Node) -> dict[str, Any]:
        """What of a task and its component has no words of its own above."""
        known = ("taskInfo", "inputs", "dependentTasks", "componentRef", "parameterIterator", "artifactIterator")
        rest = without(node.task, *known, "cachingOptions", "retryPolicy", "iteratorPolicy", "triggerPolicy")
        trigger = without(node.task.get("triggerPolicy"), "condition")
        component = without(node.component, "executorLabel", "dag", "inputDefinitions", "outputDefinitions")
        return {**rest, **component, **{f"trigger {key}": value for key, value in trigger.items()}}

    def _short_any(self, path: str) -> str:
        """The name to show for a new path, or for an old one that is gone."""
        return self._short(self._old, path.removesuffix(GONE)) if path.endswith(GONE) else self._short(self._new, path)

    @staticmethod
    def _short(graph: Graph, path: str) -> str:
        """A step's own name where no other step has it, else its path."""
        if path in graph.groups:
            return _label(graph.groups[path])
        name = path.rpartition("/")[2]
        return name if sum(step.name == name for step in graph.steps.values()) < 2 else path


def _settings(key: str, task: dict[str, Any]) -> Any:
    """A part of a task, with what counts as unset left out."""
    value = task.get(key)
    return (
        {name: canonical(item) for name, item in value.items() if item} if isinstance(value, dict) else canonical(value)
    )


def _label(node: Node) -> str:
    info = node.task.get("taskInfo")
    return str(info.get("name") or node.name) if isinstance(info, dict) else node.name


def _step(kind: str, name: str, text: str) -> Change:
    return internal(kind, f"step {name}", text)
