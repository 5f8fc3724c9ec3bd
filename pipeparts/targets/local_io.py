"""What goes into a step and comes out of it, as KFP's executor reads and writes it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeparts.errors import ContractError
from pipeparts.targets.local_cache import Artifact, doubles

_OUTPUT_FILE = "executor_output.json"
_PLACEHOLDER = re.compile(r"\{\{\$(.*?)\}\}")
_PORT = re.compile(
    r"""\.(?P<side>inputs|outputs)\.(?P<kind>parameters|artifacts)\[(?:''|'|")(?P<name>.+?)(?:''|'|")\]"""
    r"""(?:\.(?P<field>\w+)|\.?(?P<metadata>metadata)\[['"]+(?P<key>.+?)['"]+\])?"""
)
_FIELD = re.compile(r"""\[["'](.+?)["']\]""")


class Placeholders:
    """The values that a compiled pipeline leaves open until a step runs.

    Args:
        known: The values by their names: `pipeline_job_name`.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = {f".{name}": value for name, value in known.items()}

    def fill(self, text: str, executor_input: Mapping[str, Any], *, where: str = "") -> str:
        """A text with its placeholders filled in, once: a value that looks like one stays as it is.

        Args:
            text: A part of a step's command, or a constant.
            executor_input: What the step gets.
            where: What to name in the error; empty: what has no meaning here stays, as it does on Kubeflow.

        Raises:
            ContractError: For a placeholder that has no meaning on this machine.
        """

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name == "":
                return json.dumps(executor_input)
            if name in (".outputs.output_file", ".outputMetadataUri"):
                return str(executor_input["outputs"]["outputFile"])
            if name in self._known:
                return self._known[name]
            filled = _port(name, executor_input)
            if filled is None and where:
                raise ContractError(
                    "a placeholder that has no meaning on this machine",
                    parameter=where,
                    allowed=[f"{{{{${known}}}}}" for known in sorted(self._known)],
                    received=found[0],
                )
            return found[0] if filled is None else filled

        return _PLACEHOLDER.sub(value, text)


def _port(name: str, executor_input: Mapping[str, Any]) -> str | None:
    """The value of a placeholder for an input or an output of the step; None where it is none."""
    port = _PORT.fullmatch(name)
    if port is None:
        return None
    values = executor_input.get(port["side"], {})
    if port["kind"] == "parameters":
        if port["side"] == "outputs":
            file = values.get("parameters", {}).get(port["name"], {}).get("outputFile")
            return str(file) if port["field"] == "output_file" and file else None
        return _text(values.get("parameterValues", {}).get(port["name"]))
    artifacts = values.get("artifacts", {}).get(port["name"], {}).get("artifacts", [])
    if not artifacts:
        return None
    if port["metadata"]:
        return _text(artifacts[0].get("metadata", {}).get(port["key"]))
    field = {"path": "uri"}.get(port["field"] or "", port["field"])
    return _text(artifacts[0].get(field)) if field in ("uri", "name", "metadata") else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def executor_input(definition: Mapping[str, Any], arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What KFP's executor gets to know of a step.

    Args:
        definition: The component: its inputs and outputs.
        arguments: Parameters, artifacts and lists of artifacts; a parameter that is not there has its default.
        folder: The step's folder, where its outputs go.
    """
    declared = definition.get("inputDefinitions", {}).get("parameters", {})
    inputs: dict[str, Any] = {}
    parameters: dict[str, Any] = {
        name: port["defaultValue"]
        for name, port in declared.items()
        if name not in arguments and port.get("defaultValue") is not None
    }
    artifacts: dict[str, Any] = {}
    for name, value in arguments.items():
        items = value if isinstance(value, list) else [value]
        if name in definition.get("inputDefinitions", {}).get("artifacts", {}):
            artifacts[name] = {"artifacts": [item.as_json() for item in flat(items)]}
        else:
            parameters[name] = value
    if parameters:
        inputs["parameterValues"] = {
            name: int(value)
            if declared.get(name, {}).get("parameterType") == "NUMBER_INTEGER" and isinstance(value, (int, float))
            else doubles(value)
            for name, value in parameters.items()
        }
    if artifacts:
        inputs["artifacts"] = artifacts
    outputs: dict[str, Any] = {"outputFile": str(folder / _OUTPUT_FILE)}
    ports = definition.get("outputDefinitions", {})
    if ports.get("parameters"):
        outputs["parameters"] = {name: {"outputFile": str(folder / name)} for name in ports["parameters"]}
    if ports.get("artifacts"):
        outputs["artifacts"] = {
            name: {
                "artifacts": [
                    {"name": name, "type": dict(port["artifactType"]), "uri": str(folder / name), "metadata": {}}
                ]
            }
            for name, port in ports["artifacts"].items()
        }
    return {**({"inputs": inputs} if inputs else {}), "outputs": outputs}


def flat(items: list[Any]) -> list[Any]:
    """The artifacts of a loop in a loop, side by side: a step takes one list."""
    return [leaf for item in items for leaf in (flat(item) if isinstance(item, list) else [item])]


def read_outputs(definition: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a step that succeeded has written.

    Args:
        definition: The component: its outputs.
        folder: The step's folder.

    Returns:
        The parameters and artifacts; those that it did not write are left out.

    Raises:
        ContractError: Where it cannot be read.
    """
    ports = definition.get("outputDefinitions", {})
    written = _read(folder / _OUTPUT_FILE) if (folder / _OUTPUT_FILE).exists() else {}
    outputs: dict[str, Any] = {}
    for name, port in ports.get("parameters", {}).items():
        value = written.get("parameterValues", {}).get(name)
        if (folder / name).is_file():
            value = _read_parameter(folder / name, port["parameterType"])
        if value is not None:
            outputs[name] = int(value) if port["parameterType"] == "NUMBER_INTEGER" else doubles(value)
    for name, port in ports.get("artifacts", {}).items():
        title = port["artifactType"].get("schemaTitle", "")
        values = written.get("artifacts", {}).get(name, {}).get("artifacts", [])
        artifacts = [Artifact.of(value, title) for value in values]
        if port.get("isArtifactList"):
            outputs[name] = artifacts
        elif artifacts:
            outputs[name] = artifacts[0]
    return outputs


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(value, dict):
            return value
        reason = f"a {type(value).__name__}"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise ContractError("the step's outputs cannot be read", where=str(path), allowed="a JSON object", received=reason)


def _read_parameter(path: Path, kind: str) -> Any:
    """An output parameter that the step wrote into a file: text as it is, everything else as JSON."""
    text = path.read_text(encoding="utf-8")
    try:
        return text if kind == "STRING" else json.loads(text.lower() if kind == "BOOLEAN" else text)
    except ValueError:
        raise ContractError(
            "an output parameter that cannot be read", where=str(path), allowed=f"{kind} as JSON", received=text
        ) from None


def select(value: Any, expression: str) -> Any:
    """A part of a value, by the expression that the compiler writes: `parseJson(string_value)["a"]["b"]`.

    Raises:
        ContractError: Where the value has no such part.
    """
    part = value
    try:
        if expression.startswith("parseJson(") and isinstance(part, str):
            part = json.loads(part)
        for key in _FIELD.findall(expression):
            part = part[key]
    except (ValueError, KeyError, TypeError):
        raise ContractError(
            "an input's field is not there", where=expression, allowed="a value with this field", received=value
        ) from None
    return part


def load_items(value: Any, *, where: str) -> list[Any]:
    """What a loop goes over.

    Raises:
        ContractError: Where it is no list.
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise ContractError("a loop over what is no list", parameter=where, allowed="a list", received=value)
    return value
