"""Small templates to publish, in versions that keep the interface or break it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeparts.publishing.templates import Template, make_templates
from pipeparts.publishing.versions import Version

Make = Callable[..., Template]


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A component's spec."""
    from kfp import compiler

    from tests.diffing import samples

    path = Path(tmp_path_factory.mktemp("specs")) / "load.yaml"
    compiler.Compiler().compile(samples.load, str(path))
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.fixture
def make(spec: dict[str, Any], tmp_path: Path) -> Make:
    """Makes a template: `with_input` adds an input, `without_rows` breaks callers, `note` changes the bytes."""

    def build(
        name: str = "load",
        version: str = "1.0.0",
        *,
        note: str = "",
        with_input: bool = False,
        without_rows: bool = False,
    ) -> Template:
        made = copy.deepcopy(spec)
        made["pipelineInfo"]["name"] = name
        parameters = made["root"]["inputDefinitions"]["parameters"]
        if with_input:
            parameters["seed"] = {"parameterType": "NUMBER_INTEGER", "defaultValue": 0.0, "isOptional": True}
        if without_rows:
            del parameters["rows"]
            del made["root"]["dag"]["tasks"]["load"]["inputs"]["parameters"]["rows"]
        folder = tmp_path / "templates"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.yaml"
        path.write_text(f"# {note}\n{yaml.safe_dump(made)}")
        (template,) = make_templates([str(path)], Version.parse(version))
        return template

    return build
