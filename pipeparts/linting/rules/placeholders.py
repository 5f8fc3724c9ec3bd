"""V: placeholders that one platform fills in and another leaves as they stand."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from pipeparts.linting.document import Document
from pipeparts.linting.findings import Hit, rule
from pipeparts.linting.reading import Path

_GOOGLE = re.compile(
    r"\{\{\$\.(pipeline_google_cloud_project_id|pipeline_google_cloud_location|pipeline_service_account|"
    r"pipeline_network|pipeline_persistent_resource_id|pipeline_encryption_key_name)\}\}"
)
_METADATA = re.compile(r"\{\{\$\.[^{}]*\.metadata\[")
_ESCAPED = re.compile(r"\{\{\$\.(?:[^{}]*\.)?json_escape\[")
_RUN = re.compile(
    r"\{\{\$\.pipeline_(job_name|job_resource_name|job_id|task_name|task_id|job_create_time_utc|"
    r"job_schedule_time_utc)\}\}"
)
_TIMES = re.compile(r"\{\{\$\.pipeline_job_(create_time_utc|schedule_time_utc)\}\}")


@rule(
    "V1",
    "google-placeholder",
    "a placeholder for the project, the region, the network and the like of Google Cloud",
    kubeflow="error",
    local="error",
    why="Only Vertex AI fills it in; elsewhere the step gets the placeholder's text.",
    fix="Make it a parameter of the pipeline, and set it in the target's parameters.",
    basis="src",
)
def google_placeholder(document: Document) -> Iterator[Hit]:
    yield from _found(document, _GOOGLE)


@rule(
    "V2",
    "deep-placeholder",
    "an artifact's metadata, or an escaped parameter, in a command (`.metadata[...]`, `.json_escape[...]`)",
    kubeflow="error",
    local="error",
    why="Kubeflow's launcher does not resolve it, and the step gets its text; kfp.local refuses the escaped one.",
    fix="Read the metadata inside the step, from the artifact.",
    basis="src",
)
def deep_placeholder(document: Document) -> Iterator[Hit]:
    yield from _in_commands(document, _ESCAPED)
    for hit in _in_commands(document, _METADATA):  # which kfp.local does resolve
        yield dataclasses.replace(hit, targets=("kubeflow",))


@rule(
    "V3",
    "concat",
    'a `{"Concat": ...}` in the arguments',
    kubeflow="error",
    why="Kubeflow's driver does not join it.",
    fix="Pass the parts, and join them inside the step.",
    basis="src",
)
def concat(document: Document) -> Iterator[Hit]:
    yield from _in_commands(document, re.compile(r'\{\s*"Concat"\s*:'))


@rule(
    "V4",
    "if-present",
    'a `{"IfPresent": ...}` in the arguments',
    kubeflow="warning",
    vertex="warning",
    why="Kubeflow before 2.16.1 does not resolve it, and Vertex AI was seen not to.",
    fix="Give the parameter a default, and decide inside the step.",
    basis="issue",
    kubeflow_from=(2, 16, 1),
)
def if_present(document: Document) -> Iterator[Hit]:
    yield from _in_commands(document, re.compile(r'\{\s*"IfPresent"\s*:'))


@rule(
    "V5",
    "pipeline-root",
    "the placeholder of the pipeline root",
    kubeflow="error",
    why="Kubeflow leaves it as it stands.",
    fix="Write to an output artifact: its path lies under the root.",
    basis="src",
)
def pipeline_root(document: Document) -> Iterator[Hit]:
    yield from _found(document, re.compile(r"\{\{\$\.pipeline_root\}\}"))


@rule(
    "V6",
    "placeholder-in-text",
    "a placeholder of the run or the task inside a longer constant",
    kubeflow="error",
    vertex="warning",
    why="Kubeflow resolves it only where it is the whole value: the step gets `run-{{$.pipeline_job_name}}`.",
    fix="Pass the placeholder alone, and join inside the step.",
    basis="src",
)
def placeholder_in_text(document: Document) -> Iterator[Hit]:
    for task, name, value, path in document.constants():
        if isinstance(value, str) and (found := _RUN.search(value)) and not _RUN.fullmatch(value):
            yield Hit(f"input {name} has {found[0]} inside a longer text", path, (task.name,))


@rule(
    "V7",
    "time-placeholder",
    "the placeholder of the run's creation or its scheduled time",
    kubeflow="warning",
    why="Kubeflow before 2.17 leaves it as it stands.",
    fix="Take the time as a parameter, or be sure of the backend.",
    basis="src",
    kubeflow_from=(2, 17),
)
def time_placeholder(document: Document) -> Iterator[Hit]:
    yield from _found(document, _TIMES)


def _in_commands(document: Document, pattern: re.Pattern[str]) -> Iterator[Hit]:
    """A hit for each container, at the first place."""
    found: dict[str, list[tuple[str, Path]]] = {}
    for label, text, path in document.command_texts():
        if not _is_source(path, text) and (match := pattern.search(text)):
            found.setdefault(label, []).append((_whole(text, match), path))
    for label, places in found.items():
        more = f", and {len(places) - 1} more" if len(places) > 1 else ""
        yield Hit(f"the command has {places[0][0]}{more}", places[0][1], document.users(label))


def _found(document: Document, pattern: re.Pattern[str]) -> Iterator[Hit]:
    yield from _in_commands(document, pattern)
    for task, name, value, path in document.constants():
        if isinstance(value, str) and (found := pattern.search(value)):
            yield Hit(f"input {name} has {found[0]}", path, (task.name,))
    for where, name, definition, path in document.parameters():
        value = definition.get("defaultValue")
        if isinstance(value, str) and (found := pattern.search(value)):
            yield Hit(f"the default of {name} of {where} has {found[0]}", path)
    for label, container, path in document.containers():
        for position, variable in enumerate(container.get("env") or []):
            value = str(variable.get("value", "")) if isinstance(variable, dict) else ""
            if found := pattern.search(value):
                name = variable.get("name")
                yield Hit(f"variable {name} has {found[0]}", (*path, "env", position), document.users(label))


def _is_source(path: Path, text: str) -> bool:
    """Whether a part of a command is a lightweight component's Python source, in which nothing is filled in."""
    return "command" in path and "\ndef " in text


def _whole(text: str, found: re.Match[str]) -> str:
    """The placeholder, to its end."""
    end = text.find("}", found.start())
    piece = text[found.start() : end + 2 if text[end : end + 2] == "}}" else found.end() + 20]
    return piece if len(piece) <= 80 else f"{piece[:77]}..."
