"""`pipeparts lint`: what it prints, its exit codes, its forms for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from pipeparts import catalog
from pipeparts.cli import app
from pipeparts.linting import engine
from tests.linting.test_rules import compiled


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


def listed(items: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **facts}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = closed("text", text=TEXT)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
#: What of SARIF 2.1.0 we write, after the standard (OASIS, sections 3.13 to 3.52), and no property but these: a name
#: that it does not have is refused. No package of the index carries the standard's own schema: the findings in all of
#: KFP's samples were checked against that one by hand, once.
SARIF = closed(
    "$schema version runs",
    **{"$schema": {"type": "string", "pattern": "sarif-2.1.0.json$"}},
    version={"const": "2.1.0"},
    runs=listed(
        closed(
            "tool results",
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            tool=closed(
                "driver",
                driver=closed(
                    "name rules",
                    name=TEXT,
                    semanticVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                    informationUri={"type": "string", "pattern": "^https://"},
                    rules=listed(
                        closed(
                            "id",
                            id=TEXT,
                            name=TEXT,
                            shortDescription=MESSAGE,
                            fullDescription=MESSAGE,
                            help=MESSAGE,
                            defaultConfiguration=closed("level", level=LEVEL),
                            properties=closed("tags", tags=listed(TEXT, uniqueItems=True)),
                        ),
                        uniqueItems=True,
                    ),
                ),
            ),
            results=listed(
                closed(
                    "ruleId ruleIndex level message locations",
                    ruleId=TEXT,
                    ruleIndex={"type": "integer", "minimum": 0},
                    level=LEVEL,
                    message=MESSAGE,
                    locations=listed(
                        closed(
                            "physicalLocation",
                            physicalLocation=closed(
                                "artifactLocation region",
                                artifactLocation=closed("uri", uri={"type": "string", "pattern": r"^[^\s\\]+$"}),
                                region=closed("startLine", startLine={"type": "integer", "minimum": 1}),
                            ),
                            logicalLocations=listed(closed("", fullyQualifiedName=TEXT, kind=TEXT)),
                        ),
                        minItems=1,
                    ),
                )
            ),
        ),
        minItems=1,
    ),
)


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
    for hidden in (".venv", "node_modules"):
        (here / hidden).mkdir()
        (here / hidden / "theirs.yaml").write_text(compiled("clean"))
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


def test_a_name_with_spaces_is_an_address_in_sarif(here: Path) -> None:
    (here / "my pipeline.yaml").write_text(compiled("unpinned_image"))
    log = json.loads(call("my pipeline.yaml", "--format", "sarif").stdout)
    jsonschema.validate(log, SARIF)
    (result,) = log["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "my%20pipeline.yaml"


def test_text_to_a_file(here: Path) -> None:
    assert call("unpinned_image.yaml", "-o", "found.txt").exit_code == 1
    assert "error P3" in (here / "found.txt").read_text()


def test_the_air_gap(here: Path) -> None:
    result = call("clean.yaml", "--air-gap", "--allow-registry", "registry.example")
    assert result.exit_code == 0
    proof = "clean.yaml: air gap: proved. 1 image, pinned and of registry.example; 4 commands with no install"
    assert proof in result.stdout
    foreign = call("clean.yaml", "--air-gap", "--allow-registry", "registry.example/other")
    assert foreign.exit_code == 1
    assert "A2" in foreign.stdout
    assert "proved" not in foreign.stdout
    assert call("installs.yaml", "--air-gap", "--allow-registry", "registry.example").exit_code == 1
    assert "an air gap needs the registries" in call("clean.yaml", "--air-gap").stderr


def test_a_rule_that_was_left_out_leaves_no_proof(here: Path) -> None:
    result = call("installs.yaml", "--air-gap", "--allow-registry", "registry.example", "--ignore", "A1")
    assert result.exit_code == 0
    assert "A1" not in result.stdout
    assert "proved" not in result.stdout


def test_a_host_that_is_inside(here: Path) -> None:
    (here / "web.yaml").write_text(compiled("imports_from_the_web"))
    options = ("web.yaml", "--air-gap", "--allow-registry", "registry.example", "--target", "kubeflow")
    refused = call(*options)
    assert refused.exit_code == 1
    assert "the importer's address is https://data.example/t.csv" in refused.stdout
    assert call(*options, "--allow-host", "data.example").exit_code == 0


def test_rules_are_listed_and_explained(here: Path) -> None:
    every = call("--rules").stdout
    for rule in engine.listed_rules():
        assert f"\n{rule.id} " in every
    explained = call("--explain", "mutable-image").stdout
    assert explained.startswith("P3 mutable-image: an image tagged")
    assert "kubeflow: error" in explained
    assert call("--explain", "a1").stdout.startswith("A1 fetches: ")


def test_what_is_no_pipeline_is_not_printed_whole(here: Path) -> None:
    (here / "other.yaml").write_text("".join(f"key{number}: secret{number}\n" for number in range(100)))
    result = call("other.yaml")
    assert "it has key0, key1, key2, key3, key4 and 95 more" in result.stdout
    assert "secret0" not in result.stdout


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
