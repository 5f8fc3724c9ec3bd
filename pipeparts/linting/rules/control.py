"""C: caching, exit handlers, loops."""

from __future__ import annotations

import json
from collections.abc import Iterator

from pipeparts.linting.document import Document, Task
from pipeparts.linting.findings import Hit, rule

_MOST_COLLECTED = 100
_EVERYTHING_ENDED = "ALL_UPSTREAM_TASKS_COMPLETED"


@rule(
    "C1",
    "cache-key",
    "a cache key of one's own",
    vertex="warning",
    why="Vertex AI's client drops it.",
    fix="Put what tells the results apart into a parameter.",
    basis="src",
)
def cache_key(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        options = task.spec.get("cachingOptions")
        if isinstance(options, dict) and options.get("cacheKey"):
            yield Hit(f"the cache key is {options['cacheKey']}", (*task.path, "cachingOptions"), (task.name,))


@rule(
    "C2",
    "final-status",
    "a step that is told how the run ended",
    why="Kubeflow before 2.14 does not fill it in; after that it gives no error text.",
    fix="Upgrade Kubeflow, and do not count on the error's text there.",
    basis="src",
    kubeflow_from=(2, 14),
)
def final_status(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        for name, binding in task.inputs.items():
            if isinstance(binding, dict) and "taskFinalStatus" in binding:
                yield Hit(f"input {name} is the final status", (*task.path, "inputs", "parameters", name), (task.name,))


@rule(
    "C3",
    "ignores-failures",
    "a step that runs whatever became of the ones before (`ignore_upstream_failure`)",
    kubeflow="error",
    why="Kubeflow knows that of an exit handler's own step alone: others run as if nothing had failed, or not at all.",
    fix="Make it the step of a dsl.ExitHandler.",
    basis="issue",
)
def ignores_failures(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        policy = task.spec.get("triggerPolicy")
        if isinstance(policy, dict) and policy.get("strategy") == _EVERYTHING_ENDED and not _is_exit(document, task):
            yield Hit("it runs whatever became of the steps before", (*task.path, "triggerPolicy"), (task.name,))


@rule(
    "C4",
    "loop-in-exit-handler",
    "ParallelFor inside an ExitHandler",
    kubeflow="warning",
    vertex="warning",
    why="Both platforms had faults there: runs that hang, and exit steps that start too early.",
    fix="Loop inside a step, or in a pipeline of its own.",
    basis="issue",
)
def loop_in_exit_handler(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        if task.is_loop and any(group.is_exit_handler for group in task.above):
            yield Hit("a loop inside an exit handler", task.path, (task.name,))


@rule(
    "C5",
    "too-many-collected",
    f"more than {_MOST_COLLECTED} artifacts collected from a loop",
    vertex="error",
    why=f"Vertex AI takes {_MOST_COLLECTED} artifacts into one input at most.",
    fix="Loop over fewer, larger parts.",
    basis="issue",
)
def too_many_collected(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        outputs = task.component.get("outputDefinitions")
        if not task.is_loop or not isinstance(outputs, dict) or not outputs.get("artifacts"):
            continue
        number = _static_items(task)
        if number is not None and number > _MOST_COLLECTED:
            yield Hit(f"{number} iterations, whose artifacts are collected", task.path, (task.name,))


@rule(
    "C6",
    "collected",
    "outputs collected from a loop (dsl.Collected)",
    why="Kubeflow before 2.14 does not collect them.",
    fix="Upgrade Kubeflow, or write to one place from each iteration.",
    basis="src",
    kubeflow_from=(2, 14),
)
def collected(document: Document) -> Iterator[Hit]:
    for task in document.tasks:
        if task.is_loop and task.component.get("outputDefinitions"):
            yield Hit("the outputs of the loop are collected", task.path, (task.name,))


@rule(
    "C7",
    "literals",
    "a parameter with a list of allowed values (`literals`)",
    kubeflow="warning",
    vertex="warning",
    why="It is new: backends may not know it, and then refuse the document or take any value.",
    fix="Check the value inside the step.",
    basis="inferred",
    kubeflow_from=(2, 16),
)
def literals(document: Document) -> Iterator[Hit]:
    for where, name, definition, path in document.parameters():
        if definition.get("literals"):
            yield Hit(f"input {name} of {where} lists its values", path)


def _is_exit(document: Document, task: Task) -> bool:
    """Whether it is the step of an exit handler: it waits for the handler's body and nothing else."""
    group = task.above[-1].component if task.above else document.root
    neighbours = group.get("dag", {}).get("tasks", {})
    waits_for = task.spec.get("dependentTasks") or []
    references = [str(neighbours.get(name, {}).get("componentRef", {}).get("name", "")) for name in waits_for]
    return bool(references) and all(reference.startswith("comp-exit-handler") for reference in references)


def _static_items(task: Task) -> int | None:
    iterator = task.spec.get("parameterIterator")
    items = iterator.get("items") if isinstance(iterator, dict) else None
    try:
        listed = json.loads(items["raw"]) if isinstance(items, dict) and "raw" in items else None
    except (TypeError, ValueError):
        return None
    return len(listed) if isinstance(listed, list) else None
