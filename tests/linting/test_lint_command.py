"""`pipeparts lint`: what it prints, its exit codes, its forms for programs."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from pipeparts import catalog
from pipeparts.cli import app
from pipeparts.linting import engine
from tests.linting.test_rules import compiled

#: The parts of SARIF 2.1.0 that code scanning reads, from the standard (OASIS, sections 3.13 to 3.30).
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "semanticVersion": {"type": "string"},
                                    "informationUri": {"type": "string", "format": "uri"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "required": ["id"],
                                            "properties": {
                                                "id": {"type": "string"},
                                                "shortDescription": {"required": ["text"]},
                                                "defaultConfiguration": {
                                                    "properties": {
                                                        "level": {"enum": ["none", "note", "warning", "error"]}
                                                    }
                                                },
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "required": ["message", "ruleId", "ruleIndex", "level", "locations"],
                            "properties": {
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "message": {"required": ["text"]},
                                "locations": {
                                    "items": {
                                        "properties": {
                                            "physicalLocation": {
                                                "required": ["artifactLocation", "region"],
                                                "properties": {
                                                    "artifactLocation": {"properties": {"uri": {"type": "string"}}},
                                                    "region": {
                                                        "properties": {"startLine": {"type": "integer", "minimum": 1}}
                                                    },
                                                },
                                            }
                                        }
                                    }
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("clean", "unpinned_image", "gpu_of_vertex", "installs"):
        (tmp_path / f"{name}.yaml").write_text(compiled(name))
    return tmp_path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["lint", *map(str, arguments)], env={"COLUMNS": "150", "NO_COLOR": "1"})


def test_a_clean_file(here: Path) -> None:
    result = call("clean.yaml")
    assert result.exit_code == 0
    assert result.stdout == "nothing found in 1 file, for kubeflow, vertex, local\n"


def test_errors_fail_and_are_explained_once(here: Path) -> None:
    result = call("unpinned_image.yaml", "gpu_of_vertex.yaml")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith("unpinned_image.yaml:")
    assert "error P3 unpinned: the image is python:latest [kubeflow, vertex]" in lines[0]
    assert lines[1].startswith("    The caches' keys hold the image's name")
    assert lines[-1] == "2 errors in 2 files, for kubeflow, vertex, local"


def test_warnings_fail_where_that_is_asked_for(here: Path) -> None:
    assert call("installs.yaml").exit_code == 0
    assert call("installs.yaml", "--strict").exit_code == 1
    hidden = call("installs.yaml", "--severity", "error")
    assert hidden.stdout == "nothing found in 1 file, for kubeflow, vertex, local\n"
    assert call("installs.yaml", "--strict", "--ignore", "install-at-start").exit_code == 0


def test_one_target(here: Path) -> None:
    assert call("gpu_of_vertex.yaml", "--target", "vertex").exit_code == 0
    assert call("gpu_of_vertex.yaml", "--target", "vertex", "--target", "kubeflow").exit_code == 1


def test_a_folder_gives_its_compiled_pipelines(here: Path) -> None:
    (here / "values.yaml").write_text("replicas: 1\n")
    assert "in 4 files" in call(".").stdout
    (here / "empty").mkdir()
    result = call("empty")
    assert result.exit_code == 2
    assert "the folder has no compiled pipeline" in result.stderr


def test_names_of_the_catalog(here: Path) -> None:
    result = call("all", "--registry", "registry.example/team", "--strict", "--kubeflow-version", "2.17")
    assert result.exit_code == 0, result.output
    assert f"in {len(catalog.pipelines())} files" in result.stdout
    assert "P5" in call("train-and-register").stdout


def test_json(here: Path) -> None:
    (finding,) = json.loads(call("unpinned_image.yaml", "--format", "json").stdout)
    assert finding["rule"] == "P3"
    assert finding["targets"] == {"kubeflow": "error", "vertex": "error"}
    assert finding["tasks"] == ["unpinned"]


def test_sarif(here: Path) -> None:
    result = call(".", "--format", "sarif", "--output", "out/lint.sarif")
    assert result.exit_code == 1
    log = json.loads((here / "out" / "lint.sarif").read_text())
    jsonschema.validate(log, SARIF)
    run = log["runs"][0]
    assert len(run["tool"]["driver"]["rules"]) == len(engine.all_rules())
    for finding in run["results"]:
        assert run["tool"]["driver"]["rules"][finding["ruleIndex"]]["id"] == finding["ruleId"]
    (uri,) = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in run["results"]} & {
        "unpinned_image.yaml"
    }
    assert (here / uri).is_file()
    jsonschema.validate(json.loads(call("clean.yaml", "--format", "sarif").stdout), SARIF)


def test_text_to_a_file(here: Path) -> None:
    assert call("unpinned_image.yaml", "-o", "found.txt").exit_code == 1
    assert "error P3" in (here / "found.txt").read_text()


def test_the_air_gap(here: Path) -> None:
    result = call("clean.yaml", "--air-gap", "--allow-registry", "registry.example")
    assert result.exit_code == 0
    assert "air gap proved: 1 images, all pinned and of registry.example; 4 commands fetch nothing" in result.stdout
    foreign = call("clean.yaml", "--air-gap", "--allow-registry", "registry.example/other")
    assert foreign.exit_code == 1
    assert "A2" in foreign.stdout
    assert "air gap proved" not in foreign.stdout
    assert call("installs.yaml", "--air-gap", "--allow-registry", "registry.example").exit_code == 1
    assert "an air gap needs the registries" in call("clean.yaml", "--air-gap").stderr


def test_rules_are_listed_and_explained(here: Path) -> None:
    listed = call("--rules").stdout
    for rule in engine.all_rules():
        assert rule.id in listed
    explained = call("--explain", "mutable-image").stdout
    assert explained.startswith("P3 mutable-image: an image tagged")
    assert "kubeflow: error" in explained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to lint"),
        (["none.yaml"], "cannot read the pipeline"),
        (["clean.yaml", "--kubeflow-version", "new"], "not a release of Kubeflow Pipelines"),
        (["clean.yaml", "--ignore", "P99"], "there is no rule of this name"),
        (["train_and_registr"], "no component or pipeline of this name"),
        (["--explain", "Q1"], "there is no rule of this name"),
    ],
)
def test_wrong_usage(here: Path, arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
