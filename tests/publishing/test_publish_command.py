"""`pipeparts publish`: what it takes, what it prints, and what it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeparts import __version__, catalog
from pipeparts.cli import app
from pipeparts.publishing.templates import make_templates
from pipeparts.publishing.versions import Version


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "150", "NO_COLOR": "1"})


def test_a_component_and_a_pipeline_of_the_catalog(here: Path) -> None:
    arguments = ("publish", "require_verdict", "predict-batch", "--to", "shelf", "--registry", "registry.example/team")
    dry = call(*arguments, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.stdout.endswith(f"2 would be published to {here}/shelf\n")
    assert not (here / "shelf" / "index.json").exists()
    result = call(*arguments, "--tag", "stable")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(
        f"require_verdict {__version__}  published  {here}/shelf/require_verdict/{__version__}/component.yaml  sha256:"
    )
    assert lines[2] == f"2 published to {here}/shelf"
    assert (here / "shelf" / "predict_batch" / "stable").read_text() == f"{__version__}\n"
    spec = yaml.safe_load((here / "shelf" / "predict_batch" / __version__ / "pipeline.yaml").read_text())
    images = {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values() if "container" in e}
    assert all(image.startswith("registry.example/team/pipeparts-python-") for image in images)
    entry = json.loads((here / "shelf" / "index.json").read_text())["templates"]["require_verdict"]
    assert (entry["kind"], entry["stage"]) == ("component", "data_validation")
    assert entry["summary"] == catalog.find("require_verdict").summary
    again = call(*arguments, "--json")
    assert [(each["name"], each["state"]) for each in json.loads(again.stdout)] == [
        ("require_verdict", "already there"),
        ("predict_batch", "already there"),
    ]


def test_the_whole_catalog_has_names_and_files_that_can_be_published() -> None:
    templates = make_templates(["all"], Version(1, 0, 0), registry="registry.example/team")
    entries = [*catalog.components(), *catalog.pipelines()]
    assert [(each.name, each.kind, each.stage) for each in templates] == [(e.name, e.kind, e.stage) for e in entries]
    for template, entry in zip(templates, entries, strict=True):
        assert {each["name"] for each in template.outputs} == {port.name for port in entry.outputs}
        assert {each["name"] for each in template.inputs if each["required"]} == {
            port.name for port in entry.inputs if port.required and port.type != "PipelineTaskFinalStatus"
        }


def test_an_image_that_nobody_can_pull_is_refused(here: Path) -> None:
    result = call("publish", "require_verdict", "--to", "shelf")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: an image that nobody can pull\n  parameter: --registry or --images\n")
    (here / "images.yaml").write_text(f"data: registry.example/data@sha256:{'0' * 64}\n")
    result = call("publish", "require_verdict", "--to", "shelf", "--images", "images.yaml", "--version", "3.0.0")
    assert result.exit_code == 0, result.output
    text = (here / "shelf" / "require_verdict" / "3.0.0" / "component.yaml").read_text()
    assert "image: registry.example/data@sha256:000" in text


def test_a_compiled_file_is_published_as_it_is(here: Path, spec: dict[str, Any]) -> None:
    text = f"# mine\n{yaml.safe_dump(spec)}---\nplatforms: {{kubernetes: {{deploymentSpec: {{executors: {{}}}}}}}}\n"
    (here / "mine.yaml").write_text(text)
    assert call("publish", "mine.yaml", "--to", "shelf", "--version", "1.0.0").exit_code == 0
    assert (here / "shelf" / "load" / "1.0.0" / "component.yaml").read_text() == text
    (here / "mine.yaml").write_text(text.replace("registry.example/team/python:1.0", "pipeparts-python-data"))
    result = call("publish", "mine.yaml", "--to", "shelf", "--version", "1.0.1", "--registry", "registry.example")
    assert result.exit_code == 0, result.output
    documents = list(yaml.safe_load_all((here / "shelf" / "load" / "1.0.1" / "component.yaml").read_text()))
    assert documents[1] == {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {}}}}}
    image = documents[0]["deploymentSpec"]["executors"]["exec-load"]["container"]["image"]
    assert image.startswith("registry.example/pipeparts-python-data:")


def test_a_file_that_was_compiled_from_the_catalog_has_its_name(here: Path) -> None:
    registry = ("--registry", "registry.example/team")
    assert call("compile", "require_verdict", "-o", "c.yaml", *registry).exit_code == 0
    assert call("publish", "c.yaml", "--to", "shelf").exit_code == 0
    result = call("publish", "require_verdict", "--to", "shelf", *registry)
    assert result.stdout.endswith(f"0 published to {here}/shelf, 1 there already\n")


def test_an_interface_that_breaks_is_refused_and_may_be_forced(here: Path, spec: dict[str, Any]) -> None:
    (here / "load.yaml").write_text(yaml.safe_dump(spec))
    assert call("publish", "load.yaml", "--to", "shelf", "--version", "0.1.0").exit_code == 0
    changed = copy.deepcopy(spec)
    del changed["root"]["inputDefinitions"]["parameters"]["rows"]
    del changed["root"]["dag"]["tasks"]["load"]["inputs"]["parameters"]["rows"]
    (here / "load.yaml").write_text(yaml.safe_dump(changed))
    for dry_run in ([], ["--dry-run"]):
        result = call("publish", "load.yaml", "--to", "shelf", "--version", "0.1.1", *dry_run)
        assert result.exit_code == 2
        assert result.stderr == (
            "error: the interface breaks the one of 0.1.0, which has the same minor version\n"
            "  parameter: --version\n"
            "  where: load 0.1.1\n"
            "  allowed: the same inputs and outputs as 0.1.0, and more that callers need not give\n"
            "  received: parameter rows was removed: int → nothing\n"
            "  hint: publish it as 0.2.0, or with --allow-breaking\n"
        )
    result = call("publish", "load.yaml", "--to", "shelf", "--version", "0.1.1", "--allow-breaking")
    assert result.exit_code == 0
    assert "  breaks 0.1.0: parameter rows was removed: int → nothing\n" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("require_verdikt",), "error: no component or pipeline of this name\n"),
        (("none.yaml",), "error: cannot read the pipeline\n"),
        (("wrong.yaml",), "error: not a compiled KFP v2 pipeline\n"),
        (("name.yaml",), "error: a name that cannot be published\n"),
        (("a.yaml", "b.yaml"), "error: two different templates of one name\n"),
        (("a.yaml", "--version", "v1.0.0"), "error: not a semantic version\n"),
        (("a.yaml", "--tag", "1.0.0"), "error: a tag that cannot be given\n"),
        (("a.yaml", "--images", "none.yaml"), "error: cannot read the file of images\n"),
        (("a.yaml", "--to", ""), "error: no destination is given\n"),
    ],
)
def test_wrong_usage(here: Path, spec: dict[str, Any], arguments: tuple[str, ...], error: str) -> None:
    (here / "a.yaml").write_text(yaml.safe_dump(spec))
    (here / "b.yaml").write_text("# another\n" + yaml.safe_dump(spec))
    (here / "wrong.yaml").write_text("a: 1\n")
    (here / "name.yaml").write_text(yaml.safe_dump({**spec, "pipelineInfo": {"name": "../Up"}}))
    to = () if "--to" in arguments else ("--to", "shelf")
    result = call("publish", *arguments, *to)
    assert result.exit_code == 2
    assert result.stderr.startswith(error), result.stderr
    assert not (here / "shelf").exists()


def test_an_error_as_json(here: Path) -> None:
    result = call("publish", "require_verdikt", "--to", "shelf", "--json")
    assert json.loads(result.stdout)["error"]["headline"] == "no component or pipeline of this name"
