"""T: the types of artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeparts.linting.document import Document
from pipeparts.linting.findings import Hit, rule
from pipeparts.linting.reading import Path

_TITLE = re.compile(r"[a-z][a-z0-9-_]{2,20}[.][A-Z][a-zA-Z0-9-_]{2,49}")


@rule(
    "T1",
    "google-type",
    "an artifact of a type of Google's (`google.*`)",
    kubeflow="warning",
    local="warning",
    why="Kubeflow keeps it as any artifact: what Google's services put into it is not there.",
    fix="Use system.Dataset, system.Model and the like.",
    basis="src",
)
def google_type(document: Document) -> Iterator[Hit]:
    places: dict[str, list[Path]] = {}
    for kind, path in document.artifact_types():
        title = str(kind.get("schemaTitle", ""))
        if title.startswith("google."):
            places.setdefault(title, []).append(path)
    for title, paths in places.items():
        more = f", and so are {len(paths) - 1} more" if len(paths) > 1 else ""
        yield Hit(f"{_port(paths[0])} is a {title}{more}", paths[0])


@rule(
    "T2",
    "type-title",
    "a type of one's own whose title Vertex AI refuses",
    vertex="error",
    why=f"Vertex AI takes titles of the form `{_TITLE.pattern}` alone.",
    fix="Name it as `team.Embedding`, or use a type of the system's.",
    basis="issue",
)
def type_title(document: Document) -> Iterator[Hit]:
    for kind, path in document.artifact_types():
        title = str(kind.get("schemaTitle", ""))
        if title and not title.startswith(("system.", "google.")) and not _TITLE.fullmatch(title):
            yield Hit(f"{_port(path)} is a {title}", path)


@rule(
    "T3",
    "schema-uri",
    "a type by the address of its schema (`schemaUri`)",
    kubeflow="error",
    vertex="warning",
    local="error",
    why="Kubeflow and kfp.local do not read it, and Vertex AI has deprecated it.",
    fix="Use a title: `schemaTitle`.",
    basis="src",
)
def schema_uri(document: Document) -> Iterator[Hit]:
    for kind, path in document.artifact_types():
        if kind.get("schemaUri"):
            yield Hit(f"{_port(path)} has {kind['schemaUri']}", path)


def _port(path: Path) -> str:
    if "importer" in path:
        return f"the importer {path[2]}"
    owner = "the pipeline" if path[0] == "root" else str(path[1])
    return f"{'output' if 'outputDefinitions' in path else 'input'} {path[-2]} of {owner}"
