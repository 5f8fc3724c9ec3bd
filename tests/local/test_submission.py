"""Arguments at submission: checked against the signature, and completed with versions."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeparts import compiling
from pipeparts.errors import InputError
from pipeparts.runtime import sources
from pipeparts.submission import (
    check_arguments,
    code_version,
    data_versions,
    fill_versions,
    override,
    prepare_arguments,
    read_parameter_file,
    version_of,
)


@pytest.fixture(scope="module")
def spec(sample: Callable[[str], Path]) -> dict[str, Any]:
    return compiling.read_yaml(sample("typed"))


def test_good_arguments_pass(spec: dict[str, Any]) -> None:
    given = {"text": "a", "whole": 3.0, "number": 2, "flag": True, "names": [1], "options": {"a": 1}}
    assert check_arguments(spec, given) == given
    assert isinstance(check_arguments(spec, given)["whole"], int)
    assert isinstance(check_arguments(spec, given)["number"], float)
    assert check_arguments(spec, {"text": "a", "options": None}) == {"text": "a"}


@pytest.mark.parametrize(
    ("given", "headline", "facts"),
    [
        (
            {"txt": "a"},
            "pipeline 'typed' has no parameter of this name",
            {"received": "txt", "hint": "did you mean 'text'?"},
        ),
        ({}, "pipeline 'typed' needs a parameter that was not given", {"parameter": "text", "allowed": "a string"}),
        (
            {"text": 2013},
            "parameter 'text' has a value of the wrong type",
            {
                "allowed": "a string",
                "received": "a whole number: 2013",
                "hint": 'in a file, put it in quotes: text: "2013"',
            },
        ),
        (
            {"text": "a", "whole": True},
            "parameter 'whole'",
            {"allowed": "a whole number", "received": "true or false: True"},
        ),
        ({"text": "a", "whole": 1.5}, "parameter 'whole'", {"received": "a number: 1.5"}),
        ({"text": "a", "number": "1"}, "parameter 'number'", {"allowed": "a number", "received": "a string: '1'"}),
        ({"text": "a", "flag": 1}, "parameter 'flag'", {"allowed": "true or false"}),
        ({"text": "a", "names": "x"}, "parameter 'names'", {"allowed": "a list"}),
        ({"text": "a", "options": [1]}, "parameter 'options'", {"allowed": "a dictionary"}),
        ({"text": None}, "parameter 'text'", {"received": "nothing: None"}),
    ],
)
def test_wrong_arguments(spec: dict[str, Any], given: dict[str, Any], headline: str, facts: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        check_arguments(spec, given)
    assert caught.value.headline.startswith(headline)
    assert {key: caught.value.facts[key] for key in facts} == facts


def test_of_several_that_are_missing_each_is_said_with_its_type() -> None:
    parameters = {"label": {"parameterType": "STRING", "description": "of the rows"}, "seed": {"parameterType": "LIST"}}
    spec = {"pipelineInfo": {"name": "two"}, "root": {"inputDefinitions": {"parameters": parameters}}}
    with pytest.raises(InputError, match="pipeline 'two' needs 2 parameters that were not given") as caught:
        check_arguments(spec, {})
    assert caught.value.facts["parameter"] == "label, seed"
    assert caught.value.facts["allowed"] == "label: a string, seed: a list"
    assert "hint" not in caught.value.facts, "that of one of them would be taken for all"


def test_settings_of_the_command_line(spec: dict[str, Any]) -> None:
    given = {"options": {"epochs": 5}}
    settings = ["text=2013", "whole=3", "flag=true", "names=[a, 1]", "options.deep.b=2", "options.epochs=7"]
    assert override(spec, given, settings) == {
        "text": "2013",
        "whole": 3,
        "flag": True,
        "names": ["a", 1],
        "options": {"epochs": 7, "deep": {"b": 2}},
    }
    assert given == {"options": {"epochs": 5}}
    # Without a file, dots go into the default.
    assert override(spec, {}, ["options.epochs=7"]) == {"options": {"epochs": 7, "deep": {"a": 1}}}
    assert override(spec, {}, ["text="]) == {"text": ""}
    assert override(spec, {}, ["text=a=b"]) == {"text": "a=b"}


@pytest.mark.parametrize(
    ("setting", "headline"),
    [
        ("text", "not a setting"),
        ("=1", "not a setting"),
        ("options..a=1", "not a setting"),
        ("names=[1", "the value is not YAML"),
        ("whole.a=1", "a dotted name sets inside a dictionary, and this is none"),
    ],
)
def test_wrong_settings(spec: dict[str, Any], setting: str, headline: str) -> None:
    with pytest.raises(InputError, match=headline):
        override(spec, {"whole": 3}, [setting])


def test_a_source_that_changed_has_another_version(spec: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a\n1\n")
    arguments = {"text": "a", "source": str(path)}
    first = prepare_arguments(spec, arguments)["source_version"]
    assert first == sources.source_version(str(path))
    assert prepare_arguments(spec, arguments)["source_version"] == first
    path.write_text("a\n2\n")
    os.utime(path, ns=(1, 1))
    assert prepare_arguments(spec, arguments)["source_version"] != first
    assert prepare_arguments(spec, {**arguments, "source_version": "mine"})["source_version"] == "mine"


def test_a_source_that_is_not_there_fails_at_once(spec: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepare_arguments(spec, {"text": "a", "source": str(tmp_path / "none.csv")})
    assert caught.value.facts["parameter"] == "source"


@pytest.mark.parametrize(
    "value", ["", "lightgbm", "postgresql+psycopg://host/db", "models:/late/3", "SELECT * FROM t", "x" * 5000, 3, None]
)
def test_what_names_neither_data_nor_code_has_no_version(value: Any) -> None:
    assert version_of(value, parameter="model") == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"source": "gs://bucket/*.csv"}, ["source_version"]),
        ({"source": "data/today.csv"}, ["source_version"]),
        ({"source": "data/today.csv", "source_version": "mine"}, []),
        ({"source": "postgresql+psycopg://host/db"}, []),
        ({"network": "networks.wide:build"}, []),
        ({}, []),
    ],
)
def test_versions_that_data_has_at_each_run(spec: dict[str, Any], given: dict[str, Any], expected: list[str]) -> None:
    """Nothing is looked at: the bucket is nobody's, and the files are not there."""
    assert data_versions(spec, {"text": "a", **given}) == expected


def test_code_that_changed_has_another_version(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "networks"
    (package / "parts").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "wide.py").write_text("raise SystemExit('imported')\ndef build(): ...\n")
    (package / "parts" / "layers.py").write_text("SIZE = 1\n")
    monkeypatch.chdir(tmp_path)
    arguments = {"text": "a", "network": "networks.wide:build"}
    first = prepare_arguments(spec, arguments)["network_version"]
    assert len(first) == 16
    assert "networks" not in sys.modules
    (package / "parts" / "layers.py").write_text("SIZE = 2\n")  # another module of the package
    second = prepare_arguments(spec, arguments)["network_version"]
    (package / "wide.py").write_text("def build(): return 1\n")
    assert len({first, second, prepare_arguments(spec, arguments)["network_version"]}) == 3
    (tmp_path / "single.py").write_text("build = None\n")
    assert code_version("single:build", parameter="network")
    assert code_version("json.decoder:JSONDecoder", parameter="network") != code_version(
        "json:loads", parameter="network"
    )


def test_code_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "single.py").write_text("def build(): ...\n")
    with pytest.raises(InputError, match="has no function of this name") as caught:
        code_version("single:bulid", parameter="network")
    assert caught.value.facts["hint"] == "did you mean 'build'?"
    with pytest.raises(InputError, match="no module of this name") as caught:
        code_version("no_such_module.here:build", parameter="network")
    assert caught.value.facts["parameter"] == "network"
    (tmp_path / "broken.py").write_text("def build(:\n")
    with pytest.raises(InputError, match="not valid Python") as caught:
        code_version("broken:build", parameter="network")
    assert "line 1" in caught.value.facts["where"]


def test_the_pipelines_hash_is_filled_in(spec: dict[str, Any]) -> None:
    assert fill_versions(spec, {"text": "a"})["pipeline_hash"] == compiling.spec_hash(spec)
    assert fill_versions(spec, {"text": "a", "pipeline_hash": "x"})["pipeline_hash"] == "x"


def test_a_file_of_parameters(tmp_path: Path) -> None:
    path = tmp_path / "flights.yaml"
    path.write_text("pipeline: train\nparameters:\n  seed: 1\n")
    assert read_parameter_file(path) == ("train", {"seed": 1})
    path.write_text("parameters:\n")
    assert read_parameter_file(path) == (None, {})


@pytest.mark.parametrize(
    ("content", "headline", "received"),
    [
        ("seed: 1\n", "the file of parameters has a key that is not known", "seed"),
        ("- 1\n", "the file of parameters is not a mapping", "list: [1]"),
        ("parameters: [1]\n", "`parameters` is not a mapping", "list: [1]"),
        ("pipeline: 3\n", "`pipeline` is not a name", "3"),
        ("a: [\n", "the file of parameters is not YAML", ""),
    ],
)
def test_a_wrong_file_of_parameters(tmp_path: Path, content: str, headline: str, received: str) -> None:
    path = tmp_path / "flights.yaml"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        read_parameter_file(path)
    assert caught.value.headline.startswith(headline)
    assert caught.value.facts["where"] == str(path)
    assert received in caught.value.facts["received"]


def test_a_file_of_parameters_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the file of parameters"):
        read_parameter_file(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(InputError, match="cannot read the file of parameters"):
        read_parameter_file(tmp_path / "latin.yaml")
