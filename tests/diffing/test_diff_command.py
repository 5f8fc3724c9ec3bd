"""`pipeparts diff`: what can be compared, how it is written, and when it fails."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from pipeparts.cli import app

Spec = dict[str, Any]


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def files(here: Path, compiled: dict[str, Spec]) -> Path:
    """old.yaml; new.yaml with a breaking, a compatible and an internal change; and one file for each of the latter."""
    spec = compiled["sample"]
    compatible, internal = copy.deepcopy(spec), copy.deepcopy(spec)
    compatible["root"]["inputDefinitions"]["parameters"]["rows"]["defaultValue"] = 11
    internal["deploymentSpec"]["executors"]["exec-load"]["container"]["image"] = "registry.example/`x`:1.1"
    new = copy.deepcopy(compatible)
    new["deploymentSpec"] = internal["deploymentSpec"]
    del new["root"]["inputDefinitions"]["parameters"]["options"]
    for name, value in {"old": spec, "new": new, "compatible": compatible, "internal": internal}.items():
        (here / f"{name}.yaml").write_text(yaml.safe_dump(value))
    return here


def test_text(files: Path) -> None:
    result = call("diff", "old.yaml", "new.yaml")
    assert result.exit_code == 0
    assert result.stdout == (
        "sample\n"
        "  breaking    parameter options was removed: dict → nothing\n"
        "              who gives it is refused\n"
        "  compatible  parameter rows has another default: default 10 → default 11\n"
        "              who does not give it gets the new one\n"
        "  internal    the image in step load changed: registry.example/team/python:1.0 → registry.example/`x`:1.1\n"
        "\n"
        "1 breaking, 1 compatible, 1 internal: callers break; it asks for a major version\n"
    )
    assert call("diff", "old.yaml", "old.yaml").stdout == "nothing changed in meaning\n"


def test_json(files: Path) -> None:
    found = json.loads(call("diff", "old.yaml", "new.yaml", "--format", "json").stdout)
    assert (found["format"], found["impact"], found["bump"]) == ("pipeparts-diff/1", "breaking", "major")
    (pipeline,) = found["pipelines"]
    assert [change["kind"] for change in pipeline["changes"]] == ["input-removed", "default-changed", "image-changed"]
    assert pipeline["changes"][2] == {
        "kind": "image-changed",
        "impact": "internal",
        "subject": "the image",
        "text": "the image in step load changed: registry.example/team/python:1.0 → registry.example/`x`:1.1",
        "why": "callers see the same inputs and outputs",
        "before": "registry.example/team/python:1.0",
        "after": "registry.example/`x`:1.1",
        "steps": ["load"],
        "detail": [],
    }
    nothing = json.loads(call("diff", "old.yaml", "old.yaml", "--format", "json").stdout)
    assert (nothing["impact"], nothing["bump"]) == ("none", "none")


def test_markdown_into_a_file(files: Path) -> None:
    result = call("diff", "old.yaml", "new.yaml", "-f", "markdown", "-o", "deep/comment.md")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (files / "deep" / "comment.md").read_text() == (
        "**pipeparts diff**: 1 breaking, 1 compatible, 1 internal: callers break; it asks for a major version\n\n"
        "### `sample`\n\n"
        "#### Breaking: callers have to change\n\n"
        "- parameter options was removed: `dict` → nothing (who gives it is refused)\n\n"
        "#### Compatible: callers see it, and go on as before\n\n"
        "- parameter rows has another default: `default 10` → `default 11` (who does not give it gets the new one)\n\n"
        "#### Internal: callers do not see it\n\n"
        "- the image in step load changed: `registry.example/team/python:1.0` → ``registry.example/`x`:1.1``\n"
    )


def test_markdown_of_code_folds_the_change(files: Path) -> None:
    text = (files / "old.yaml").read_text().replace("rows + len", "rows - len")
    (files / "code.yaml").write_text(text)
    result = call("diff", "old.yaml", "code.yaml", "-f", "markdown")
    assert "- the code in step load changed\n\n  <details><summary>the change</summary>\n\n  ```diff\n" in result.stdout
    assert "  -    return rows + len(source)\n  +    return rows - len(source)\n" in result.stdout


@pytest.mark.parametrize(
    ("new", "failing"),
    [
        ("old", []),
        ("internal", ["any"]),
        ("compatible", ["any", "compatible"]),
        ("new", ["any", "compatible", "breaking"]),
    ],
)
def test_when_it_fails(files: Path, new: str, failing: list[str]) -> None:
    for fail_on in ("breaking", "compatible", "any", "none"):
        result = call("diff", "old.yaml", f"{new}.yaml", "--fail-on", fail_on)
        assert result.exit_code == (fail_on in failing), fail_on
        assert result.stdout.endswith(("version\n", "nothing changed in meaning\n"))


def test_folders_are_compared_by_the_pipelines_names(files: Path, compiled: dict[str, Spec]) -> None:
    other = copy.deepcopy(compiled["without_condition"])
    other["pipelineInfo"]["name"] = "other"
    for folder, names in (("a", ["old"]), ("b/deep", ["new"])):
        (files / folder).mkdir(parents=True)
        for name in names:
            (files / f"{name}.yaml").rename(files / folder / f"{name}.yaml")
        (files / folder / "metadata.yaml").write_text("name: sample\n")
        (files / folder / "binary.json").write_bytes(b"\xff\xfe")
    (files / "a" / "other.json").write_text(json.dumps(other))
    other["pipelineInfo"]["name"] = "newer"
    (files / "b" / "newer.yml").write_text(yaml.safe_dump(other))
    result = json.loads(call("diff", "a", "b", "--format", "json").stdout)
    assert [(each["name"], [change["kind"] for change in each["changes"]]) for each in result["pipelines"]] == [
        ("newer", ["pipeline-added"]),
        ("other", ["pipeline-removed"]),
        ("sample", ["input-removed", "default-changed", "image-changed"]),
    ]


def test_a_file_at_a_git_revision(files: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=files, check=True, capture_output=True)

    (files / "flows").mkdir()
    (files / "old.yaml").rename(files / "flows" / "sample.yaml")
    git("init", "--quiet")
    git("add", "flows")
    git("commit", "--quiet", "--message", "first", "--no-gpg-sign")
    git("tag", "v1")
    (files / "new.yaml").rename(files / "flows" / "sample.yaml")
    assert call("diff", "git:v1:flows/sample.yaml", "flows/sample.yaml").stdout.startswith("sample\n  breaking  ")
    assert call("diff", "git:HEAD:flows/", "flows").stdout.startswith("sample\n  breaking  ")
    assert call("diff", "git:v1:./flows/sample.yaml", "git:HEAD:flows/sample.yaml").stdout.startswith("nothing changed")
    for wrong in ("git:v2:flows/sample.yaml", "git:v1:flows/none.yaml"):
        result = call("diff", wrong, "flows/sample.yaml")
        assert result.exit_code == 2
        assert result.stderr.startswith("error: git does not have this file\n  parameter: OLD\n")
        assert wrong in result.stderr
    assert call("diff", "git:v1:", "flows").stderr.startswith("error: not a file at a git revision\n")
    assert call("diff", "git:--output=x:y", "flows").stderr.startswith("error: not a file at a git revision\n")


def test_names_of_the_catalog(here: Path) -> None:
    assert call("compile", "require_verdict", "-o", "c.yaml").exit_code == 0
    assert call("diff", "c.yaml", "require-verdict", "--fail-on", "any").exit_code == 0
    text = (here / "c.yaml").read_text().replace("pipeparts-python-data", "registry.example/data:1")
    (here / "c.yaml").write_text(text)
    result = call("diff", "c.yaml", "require_verdict")
    assert (
        "the image in step require-verdict changed: registry.example/data:1 → pipeparts-python-data\n" in result.stdout
    )


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "error: not a compiled KFP v2 pipeline\n"),
        (b"a: [", "error: the pipeline is not YAML\n"),
        (b"- 1\n", "error: not a compiled KFP v2 pipeline\n"),
        (b"kind: Workflow\n", "error: not a compiled KFP v2 pipeline\n"),
        (b"\xff\xfe\x00", "error: cannot read the pipeline\n"),
        (b"pipelineInfo: {name: x}\nroot: {}\n", "error: not a compiled KFP v2 pipeline\n"),
        (b"pipelineInfo: {name: x}\nroot: {dag: {}}\n---\nother: 1\n", "error: a document that is neither"),
        (None, "error: cannot read the pipeline\n"),
    ],
)
def test_what_is_no_pipeline(files: Path, content: bytes | None, error: str) -> None:
    if content is not None:
        (files / "wrong.yaml").write_bytes(content)
    result = call("diff", "old.yaml", "wrong.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith(error)
    assert "wrong.yaml" in result.stderr
    assert "Traceback" not in result.output


def test_wrong_usage(files: Path) -> None:
    (files / "empty").mkdir()
    (files / "twice").mkdir()
    for name in ("a", "b"):
        (files / "twice" / f"{name}.yaml").write_bytes((files / "old.yaml").read_bytes())
    for arguments, error in (
        (("empty", "empty"), "error: the folder has no compiled pipeline\n"),
        (("twice", "twice"), "error: two files of the folder hold a pipeline of the same name\n"),
        (("", "old.yaml"), "error: nothing to compare\n"),
        (("require_verdikt", "old.yaml"), "error: no component or pipeline of this name\n"),
    ):
        result = call("diff", *arguments)
        assert result.exit_code == 2, arguments
        assert result.stderr.startswith(error), result.stderr
    (files / "one").mkdir()
    (files / "old.yaml").rename(files / "one" / "old.yaml")
    result = call("diff", "one", "new.yaml")
    assert result.stderr.startswith("error: a folder cannot be compared with one pipeline\n")
