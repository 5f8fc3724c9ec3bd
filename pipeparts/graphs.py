"""A pipeline's graph, from its spec, and as a picture."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 214, 46, 26, 30, 14

_COLOURS = {
    "succeeded": ("#ecfdf5", "#15803d"),
    "cached": ("#eff6ff", "#2563eb"),
    "failed": ("#fef2f2", "#b91c1c"),
    "interrupted": ("#fff7ed", "#b45309"),
    "running": ("#fefce8", "#b45309"),
    "skipped": ("#f9fafb", "#9ca3af"),
    "pending": ("#f9fafb", "#9ca3af"),
}


@dataclasses.dataclass(frozen=True)
class Node:
    """A task in the picture.

    Attributes:
        id: Its name, as other nodes refer to it.
        label: What is written in its box.
        needs: The tasks it comes after.
        note: A second, smaller line: a time, a state, a condition.
        state: One of the states of a run; it gives the colour.
        is_exit: Whether it runs last, whatever happened.
        link: Where a click on it leads to.
    """

    id: str
    label: str
    needs: tuple[str, ...] = ()
    note: str = ""
    state: str = "pending"
    is_exit: bool = False
    link: str = ""


def nodes_of(spec: Mapping[str, Any]) -> list[Node]:
    """The tasks of a compiled pipeline, those inside conditions, loops and exit handlers among them.

    Args:
        spec: The PipelineSpec.

    Returns:
        A node for each task that does work, in an order in which they can run; a condition is a note.
    """
    nodes: list[Node] = []
    _collect(spec, spec["root"]["dag"], prefix="", before=(), note="", nodes=nodes)
    return nodes


def in_order(needs: Mapping[str, Collection[str]]) -> list[str]:
    """Names so that each comes after those it needs; in the order given where either may come first."""
    left = dict(needs)
    ordered: list[str] = []
    while left:
        name = next((name for name in left if not set(left[name]) - set(ordered)), next(iter(left)))
        ordered.append(name)
        del left[name]
    return ordered


def reduce_edges(nodes: Sequence[Node]) -> list[Node]:
    """Leaves out the edges that other edges imply, so that the picture stays readable."""
    ancestors: dict[str, set[str]] = {}
    for node in nodes:
        ancestors[node.id] = set(node.needs).union(*(ancestors.get(need, set()) for need in node.needs))
    reduced = []
    for node in nodes:
        implied = set().union(*(ancestors.get(need, set()) for need in node.needs))
        reduced.append(dataclasses.replace(node, needs=tuple(need for need in node.needs if need not in implied)))
    return reduced


def graph_svg(nodes: Sequence[Node], *, title: str) -> str:
    """Draws a graph from the top down.

    Args:
        nodes: The tasks; a task comes after those it needs.
        title: Said by screen readers.

    Returns:
        An SVG element that stands alone.
    """
    nodes = reduce_edges(nodes)
    layers = _layers(nodes)
    widest = max((len(layer) for layer in layers), default=1)
    width = widest * (_WIDTH + _GAP_X) - _GAP_X + 2 * _MARGIN
    height = len(layers) * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    place: dict[str, tuple[float, float]] = {}
    for depth, layer in enumerate(layers):
        left = (width - (len(layer) * (_WIDTH + _GAP_X) - _GAP_X)) / 2
        for column, node in enumerate(layer):
            place[node.id] = (left + column * (_WIDTH + _GAP_X), _MARGIN + depth * (_HEIGHT + _GAP_Y))
    edges = "".join(_edge(place[need], place[node.id], node.is_exit) for node in nodes for need in node.needs)
    boxes = "".join(_box(node, *place[node.id]) for node in nodes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{html.escape(title)}" '
        f'font-family="system-ui, DejaVu Sans, sans-serif">{edges}{boxes}</svg>'
    )


def _collect(
    spec: Mapping[str, Any],
    dag: Mapping[str, Any],
    *,
    prefix: str,
    before: tuple[str, ...],
    note: str,
    nodes: list[Node],
) -> dict[str, tuple[str, ...]]:
    """Adds a DAG's tasks; gives each of its tasks the nodes that stand for it."""
    stands_for: dict[str, tuple[str, ...]] = {}
    tasks = dag.get("tasks", {})
    for name in in_order({name: [need for need in _needs(tasks[name]) if need in tasks] for name in sorted(tasks)}):
        task = tasks[name]
        needs = tuple(node for need in _needs(task) for node in stands_for.get(need, ())) or before
        component = spec["components"][task["componentRef"]["name"]]
        task_note = _condition(task) or note
        if "dag" in component:
            inner = _collect(
                spec, component["dag"], prefix=f"{prefix}{name}/", before=needs, note=task_note, nodes=nodes
            )
            stands_for[name] = tuple(dict.fromkeys(node for names in inner.values() for node in names)) or needs
            continue
        is_exit = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        label = task.get("taskInfo", {}).get("name", name)
        nodes.append(Node(prefix + name, label, needs, "always, at the end" if is_exit else task_note, is_exit=is_exit))
        stands_for[name] = (prefix + name,)
    return stands_for


def _needs(task: Mapping[str, Any]) -> list[str]:
    needs = list(task.get("dependentTasks", []))
    for kind in ("parameters", "artifacts"):
        for value in task.get("inputs", {}).get(kind, {}).values():
            for source in ("taskOutputParameter", "taskOutputArtifact"):
                if source in value:
                    needs.append(value[source]["producerTask"])
    return list(dict.fromkeys(needs))


def _condition(task: Mapping[str, Any]) -> str:
    if "parameterIterator" in task or "artifactIterator" in task:
        return f"for each: {task.get('taskInfo', {}).get('name', '')}"
    if "condition" in task.get("triggerPolicy", {}):
        return f"if {task.get('taskInfo', {}).get('name', '')}"
    return ""


def _layers(nodes: Sequence[Node]) -> list[list[Node]]:
    depth: dict[str, int] = {}
    for node in nodes:
        depth[node.id] = 1 + max((depth[need] for need in node.needs), default=-1)
    last = max(depth.values(), default=0)
    for node in nodes:
        if node.is_exit:
            depth[node.id] = last + (last > 0 and any(depth[n.id] == last and not n.is_exit for n in nodes))
    layers: list[list[Node]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in nodes:
        layers[depth[node.id]].append(node)
    return [layer for layer in layers if layer]


def _edge(start: tuple[float, float], end: tuple[float, float], is_exit: bool) -> str:
    x1, y1 = start[0] + _WIDTH / 2, start[1] + _HEIGHT
    x2, y2 = end[0] + _WIDTH / 2, end[1]
    bend = max((y2 - y1) / 2, 12)
    dash = ' stroke-dasharray="4 4"' if is_exit else ""
    return (
        f'<path d="M{x1:g} {y1:g} C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}" fill="none" '
        f'stroke="#9ca3af" stroke-width="1.5"{dash}/>'
    )


def _box(node: Node, x: float, y: float) -> str:
    fill, stroke = _COLOURS.get(node.state, _COLOURS["pending"])
    dash = ' stroke-dasharray="5 3"' if node.state in ("skipped", "pending") and node.note.startswith("if") else ""
    middle = x + _WIDTH / 2
    label_y = y + (20 if node.note else 28)
    text = (
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{fill}" stroke="{stroke}" '
        f'stroke-width="1.5"{dash}/><text x="{middle:g}" y="{label_y:g}" text-anchor="middle" font-size="14" '
        f'font-weight="600" fill="#111827">{html.escape(node.label)}</text>'
    )
    if node.note:
        text += (
            f'<text x="{middle:g}" y="{y + 36:g}" text-anchor="middle" font-size="12" fill="{stroke}">'
            f"{html.escape(node.note)}</text>"
        )
    return f'<a href="{html.escape(node.link)}">{text}</a>' if node.link else text
