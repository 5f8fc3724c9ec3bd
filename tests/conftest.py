"""What all suites share: the examples of the catalog, run once a session through their compiled commands."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeparts import catalog
from tests import tfx_image
from tests.monitoring_services import pushgateway

#: What the example of `publish_metrics` names.
PUSHGATEWAY = "http://127.0.0.1:9091"

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class ExampleRun:
    """What a component's example gave: each artifact (path, type, metadata), and the returned value.

    `imported` are the top-level modules that its process had imported at its end, and those of its child processes.
    """

    folder: Path
    artifacts: dict[str, dict[str, Any]]
    value: Any
    log: str
    imported: frozenset[str]


class Examples:
    """Runs examples through the compiled command, as a container would, each once."""

    def __init__(self, folder: Path, services: contextlib.ExitStack) -> None:
        self._folder = folder
        self._services = services
        self._addresses: dict[str, str] = {}
        self._done: dict[str, ExampleRun] = {}

    def run(self, name: str) -> ExampleRun:
        """The example's run, with the examples it needs run before it."""
        if name not in self._done:
            self._done[name] = self.run_again(name, self._folder / name)
        return self._done[name]

    def run_again(self, name: str, folder: Path) -> ExampleRun:
        """Runs the example into a folder of the caller's."""
        entry = catalog.find(name)
        example = yaml.safe_load((entry.folder / "example.yaml").read_text(encoding="utf-8"))
        inputs = {}
        for port, origin in (example.get("inputs") or {}).items():
            made_by, _, output = origin.partition(".")
            inputs[port] = self.run(made_by).artifacts[output]
        parameters = {key: self._really(value) for key, value in (example.get("parameters") or {}).items()}
        return run_compiled(entry, inputs, parameters, folder, self._environment())

    def _really(self, value: Any) -> Any:
        """The address of a service that is started for the tests, in the place of the one in an example."""
        if value != PUSHGATEWAY:
            return value
        if value not in self._addresses:
            gateway = pushgateway(self._folder / "pushgateway")
            self._addresses[value] = self._services.enter_context(gateway)
        return self._addresses[value]

    def _environment(self) -> dict[str, str]:
        database = self._folder / "mlflow" / "mlflow.db"
        database.parent.mkdir(parents=True, exist_ok=True)
        return {"MLFLOW_TRACKING_URI": f"sqlite:///{database}", "PIPEPARTS_ROOT": str(self._folder / "root")}


def run_compiled(
    entry: catalog.Entry,
    inputs: dict[str, dict[str, Any]],
    parameters: dict[str, Any],
    folder: Path,
    environment: dict[str, str] | None = None,
) -> ExampleRun:
    """Runs a component's compiled command on an executor input, in its own process."""
    spec = entry.load().pipeline_spec
    executor = next(iter(spec.deployment_spec["executors"].values()))["container"]
    component = next(iter(spec.components.values()))
    outputs = {
        name: {
            "artifacts": [
                {
                    "name": name,
                    "uri": str(folder / name),
                    "type": {"schemaTitle": port.artifact_type.schema_title, "schemaVersion": "0.0.1"},
                    "metadata": {},
                }
            ]
        }
        for name, port in component.output_definitions.artifacts.items()
    }
    executor_input = {
        "inputs": {
            "parameterValues": _with_defaults(component, parameters),
            "artifacts": {name: {"artifacts": [artifact]} for name, artifact in inputs.items()},
        },
        "outputs": {
            "parameters": {n: {"outputFile": str(folder / n)} for n in component.output_definitions.parameters},
            "artifacts": outputs,
            "outputFile": str(folder / "executor_output.json"),
        },
    }
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [*executor["command"], *executor["args"]]
    command = [json.dumps(executor_input) if part == "{{$}}" else part for part in command]
    variables = {"TF_CPP_MIN_LOG_LEVEL": "2", **(environment or {})}
    if entry.family == "tfx" and not tfx_image.is_here():
        if reason := tfx_image.why_not():
            pytest.skip(reason)
        # Its own inputs and outputs are all that it sees of this machine.
        command = tfx_image.in_image(command, reads=inputs_at(inputs), writes=folder, environment=variables)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    seen = {"PYTHONPATH": str(ROOT / "tests" / "imports_seen"), "IMPORTS_SEEN": str(folder)}
    result = subprocess.run(
        command,
        env={**os.environ, "PATH": path, **seen, **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    log = result.stdout + result.stderr
    assert result.returncode == 0, f"{entry.name} failed on its example:\n{log[-6000:]}"
    answer = json.loads((folder / "executor_output.json").read_text())
    artifacts = {name: port["artifacts"][0] for name, port in outputs.items()}
    for name, port in answer.get("artifacts", {}).items():
        artifacts[name] = {**artifacts[name], **port["artifacts"][0]}
    imported = frozenset(name for file in folder.glob("imports-*.txt") for name in file.read_text().split())
    return ExampleRun(folder, artifacts, answer.get("parameterValues", {}).get("Output"), log, imported)


def inputs_at(inputs: dict[str, dict[str, Any]]) -> list[Path]:
    """The folders that a step's input artifacts are in."""
    return sorted({Path(artifact["uri"]).parent for artifact in inputs.values()})


def _with_defaults(component: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    from google.protobuf import json_format

    values = {}
    for name, port in component.input_definitions.parameters.items():
        if name in parameters:
            values[name] = parameters[name]
        elif port.HasField("default_value"):
            values[name] = json_format.MessageToDict(port.default_value)
    unknown = set(parameters) - set(component.input_definitions.parameters)
    assert not unknown, f"the example has parameters that the component does not: {sorted(unknown)}"
    return values


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examples]:
    """The examples of the catalog."""
    with contextlib.ExitStack() as services:
        yield Examples(tmp_path_factory.mktemp("examples"), services)
