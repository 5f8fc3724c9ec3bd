"""The configuration: four places in order, and errors that say where a value came from."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest
import yaml

from pipeparts.config import LocalConfig, load, load_local
from pipeparts.errors import InputError
from pipeparts.runtime.params import Params


def test_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_local(environ={}) == LocalConfig()


def test_the_four_places_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "local.yaml").write_text("root: from-file\ncache: false\npython: {data: a, registry: b}\n")
    assert load_local(environ={}).root == Path("from-file")
    environ = {"PIPEPARTS_ROOT": "from-environment", "PIPEPARTS_PYTHON_DATA": "c", "PIPEPARTS_CACHE": ""}
    config = load_local(environ=environ)
    assert config.root == Path("from-environment")
    assert config.cache is False
    assert config.python == {"data": Path("c"), "registry": Path("b")}
    config = load_local(environ=environ, overrides={"root": "from-command", "cache": None})
    assert config.root == Path("from-command")
    other = tmp_path / "other.yaml"
    other.write_text("stop_seconds: 1\n")
    assert load_local(environ={"PIPEPARTS_LOCAL_FILE": str(other)}).stop_seconds == 1
    assert load_local(file=other, environ={}).root == Path(".pipeparts")


def test_a_key_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    path.write_text("rot: x\n")
    with pytest.raises(InputError, match="target 'local' has no setting of this name") as caught:
        load_local(file=path, environ={})
    assert caught.value.facts == {
        "parameter": "rot",
        "where": str(path),
        "allowed": "cache, defaults, docker_network, docker_volumes, environment, open_report, parallel_steps, python, "
        "root, runner, steps, stop_seconds",
        "received": "rot",
        "hint": "did you mean 'root'?",
    }


def test_a_wrong_value_names_its_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a setting of target 'local' has a value that is not allowed") as caught:
        load_local(file=None, environ={"PIPEPARTS_STOP_SECONDS": "soon"}, overrides={})
    assert caught.value.facts["where"] == "environment variable PIPEPARTS_STOP_SECONDS"
    assert caught.value.facts["received"] == "str: 'soon'"
    assert caught.value.facts["allowed"] == "a number"
    path = tmp_path / "local.yaml"
    path.write_text("environment: {A: 1}\n")
    with pytest.raises(InputError) as caught:
        load_local(file=path, environ={})
    assert caught.value.facts["parameter"] == "environment.A"
    assert caught.value.facts["where"] == str(path)


def test_a_missing_setting_lists_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cloud(Params):
        project: str = pydantic.Field()

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="target 'vertex' lacks a setting that it needs") as caught:
        load(Cloud, "vertex", environ={})
    assert caught.value.facts["where"] == (
        "looked in, in this order: command line, environment, configs/vertex.yaml (not there)"
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the configuration of target 'local'"):
        load_local(file=tmp_path / "none.yaml", environ={})


def test_the_example_file_documents_every_key_with_its_default() -> None:
    path = Path(__file__).parents[2] / "configs" / "local.yaml"
    assert set(yaml.safe_load(path.read_text())) == set(LocalConfig.model_fields)
    assert load_local(file=path, environ={}) == LocalConfig()
