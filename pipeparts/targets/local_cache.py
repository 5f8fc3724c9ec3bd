"""What the steps of earlier local runs gave: kfp.local's cache, entry for entry, without importing kfp."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeparts.runtime.files import write_text

#: The artifacts that KFP has a class for; all others are its plain artifacts.
_TITLES = frozenset(
    f"system.{name}"
    for name in (
        "Artifact",
        "Model",
        "Dataset",
        "Metrics",
        "ClassificationMetrics",
        "SlicedClassificationMetrics",
        "HTML",
        "Markdown",
    )
)
_ONE = "__kfp_artifact__"
_SEVERAL = "__kfp_artifact_list__"
_REMOTE = ("gs://", "s3://", "minio://", "oci://", "http://", "https://")
_VERSION = "0.0.1"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An artifact as it goes from a step to the next.

    Attributes:
        name: The output's name.
        title: Its type: "system.Dataset".
        uri: Where it is.
        metadata: What is known about it.
    """

    name: str
    title: str
    uri: str
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, value: Mapping[str, Any], title: str) -> Artifact:
        """An artifact from its JSON, which need not say the type."""
        title = title if title in _TITLES else "system.Artifact"
        return cls(value.get("name", ""), title, value.get("uri", ""), doubles(value.get("metadata") or {}))

    def as_json(self) -> dict[str, Any]:
        """What KFP's executor reads."""
        kind = {"schemaTitle": self.title, "schemaVersion": _VERSION}
        found = {"name": self.name, "type": kind, "uri": self.uri, "metadata": dict(self.metadata)}
        return {key: value for key, value in found.items() if value != ""}


class Cache:
    """A folder with a file for each step that ran.

    Args:
        folder: It is there already.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def key(
        component: str,
        container: Mapping[str, Any],
        arguments: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        custom: str = "",
    ) -> str:
        """What the result of a step depends on, as a hash.

        Args:
            component: The component's name.
            container: Its image, command and arguments.
            arguments: The step's inputs, placeholders as they are.
            environment: The variables that the container sets.
            custom: The pipeline author's own key, in place of all but the component.
        """
        parts = [component]
        if custom:
            return hashlib.sha256(f"{component}\0{custom}".encode()).hexdigest()
        command = [*container.get("command", []), *container.get("args", [])]
        inputs = {name: _entry(value, keyed=True) for name, value in arguments.items()}
        parts += [container["image"], json.dumps(command), json.dumps(inputs, sort_keys=True, default=str)]
        parts.append(json.dumps(dict(environment), sort_keys=True))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs of the step with this key; None where it did not run, or an artifact of it is gone."""
        try:
            entry = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(entry, dict):
            return None
        outputs = {name: _output(value) for name, value in entry.items()}
        for value in outputs.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Artifact) and _is_gone(item.uri):
                    return None
        return outputs

    def put(self, key: str, outputs: Mapping[str, Any]) -> None:
        """Keeps the outputs of a step that succeeded."""
        entry = {name: _entry(value) for name, value in outputs.items()}
        write_text(self._folder / f"{key}.json", json.dumps(entry))


def doubles(value: Any) -> Any:
    """A value as KFP hands it on: every number is a double."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Mapping):
        return {key: doubles(item) for key, item in value.items()}
    return [doubles(item) for item in value] if isinstance(value, list) else value


def _is_gone(uri: str) -> bool:
    return bool(uri) and not uri.startswith(_REMOTE) and not Path(uri).exists()


def _entry(value: Any, *, keyed: bool = False) -> Any:
    if isinstance(value, Artifact):
        fields = {"schema_title": value.title, "name": value.name, "uri": value.uri, "metadata": value.metadata}
        return {_ONE: True, **fields, **({} if keyed else {"schema_version": _VERSION})}
    if isinstance(value, list):
        items = [_entry(item, keyed=keyed) for item in value]
        artifacts = bool(value) and isinstance(value[0], Artifact)
        return {_SEVERAL: True, "artifacts": items} if artifacts and not keyed else items
    return value


def _output(value: Any) -> Any:
    if isinstance(value, dict) and value.get(_ONE):
        return Artifact.of(value, str(value.get("schema_title")))
    if isinstance(value, dict) and value.get(_SEVERAL):
        return [_output(item) for item in value.get("artifacts", [])]
    return value
