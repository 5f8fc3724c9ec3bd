"""The Docker runner as far as it goes without Docker; tests/images runs it for real."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.runtime.local_step import SETTINGS_VARIABLE
from pipeparts.targets import local, local_docker
from pipeparts.targets.local_docker import DockerRunner
from pipeparts.targets.local_spec import localize

FAKE_DOCKER = """#!/bin/sh
for word in "$@"; do echo "word $word"; done
env | sed "s/^/env /"
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, which says what it was given."""
    program = tmp_path / "bin" / "docker"
    program.parent.mkdir()
    program.write_text(FAKE_DOCKER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return program


def run_step(tmp_path: Path, parameters: dict[str, Any], variables: dict[str, str], **config: Any) -> list[str]:
    """What docker is given for a step of these parameters."""
    folder = tmp_path / "root" / "runs" / "run" / "steps" / "run" / "train"
    given = {"inputs": {"parameterValues": parameters}, "outputs": {"outputFile": str(folder / "executor_output.json")}}
    runner = DockerRunner({}, "run", LocalConfig(root=tmp_path / "root", docker_volumes=(), **config))
    command = [sys.executable, "-m", "pipeparts.targets.docker_step", "team/image:1", "OWN", "sh", "-c", "work"]
    done = subprocess.run(
        [*command, "--executor_input", json.dumps(given)],
        env={"PATH": str(tmp_path / "bin") + ":/usr/bin:/bin", **runner.environment(tmp_path / "root"), **variables},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.splitlines()


def passed(said: list[str]) -> set[str]:
    words = [line.removeprefix("word ") for line in said if line.startswith("word ")]
    return {name for before, name in itertools.pairwise(words) if before == "--env" and "=" not in name}


def test_a_step_gets_the_variables_that_are_for_it_and_no_others(tmp_path: Path, docker: Path) -> None:
    settings = tmp_path / "step_settings.json"
    settings.write_text(json.dumps({"train": {"secrets": {"TOKEN": "env:TEAM_TOKEN"}}, "x": {"a": "env:OTHERS"}}))
    environment = {
        "OWN": "1", "MLFLOW_TRACKING_URI": "2", "AWS_ACCESS_KEY_ID": "3", "PASSWORD": "4", "TEAM_TOKEN": "5",
        "EXTRA": "6", "OTHERS": "7", "SHELL_SECRET": "8", "PIPEPARTS_PYTHON_DATA": "9",
        SETTINGS_VARIABLE: str(settings),
    }  # fmt: skip
    said = run_step(tmp_path, {"password": "env:PASSWORD"}, environment, environment={"EXTRA": "6"})
    names = passed(said)
    assert {"OWN", "MLFLOW_TRACKING_URI", "AWS_ACCESS_KEY_ID", "PASSWORD", "TEAM_TOKEN", "EXTRA"} <= names
    assert not names & {"OTHERS", "SHELL_SECRET", "PIPEPARTS_PYTHON_DATA", "PATH", "HOME"}
    assert "env PASSWORD=4" in said, "the value is in docker's own environment"
    assert not [line for line in said if line.startswith("word ") and line.endswith(("=4", "=5"))]


def test_a_container_may_do_little(tmp_path: Path, docker: Path) -> None:
    said = run_step(tmp_path, {}, {}, docker_network="none")
    words = [line.removeprefix("word ") for line in said if line.startswith("word ")]
    options = set(itertools.pairwise(words))
    wanted = {
        ("--cap-drop", "ALL"),
        ("--security-opt", "no-new-privileges"),
        ("--network", "none"),
        ("--volume", "/tmp"),
    }
    assert wanted <= options
    assert "--read-only" in words
    (user,) = [name for option, name in options if option == "--user"]
    assert not user.startswith("0:")
    assert words[words.index("--entrypoint") + 1 :][:4] == ["sh", "team/image:1", "-c", "work"]


def test_every_step_runs_in_a_container_but_the_one_that_starts_runs() -> None:
    spec = compiling.compile_spec("monitor_and_retrain")
    images = {label: f"team/{label}:1" for label, _ in compiling.containers(spec)}
    arguments = {"batch": "b", "source": "s", "predictions": "p", "keys": ["k"]}
    local_spec, _ = localize(spec, images=images, given=arguments)
    before = json.dumps(local_spec)
    rewritten = DockerRunner(images, "run", LocalConfig()).rewrite(local_spec)
    assert json.dumps(local_spec) == before
    for label, container in compiling.containers(rewritten):
        in_docker = "pipeparts.targets.docker_step" in container["command"][2]
        assert in_docker is (label != "exec-trigger-pipeline"), label
        if in_docker:
            assert container["command"][3] == f"team/{label}:1"
            assert local_docker.WRAPPER in " ".join(container["command"])


@pytest.mark.parametrize("volume", ["nowhere", ".:rx", ".:"])
def test_a_volume_that_is_none(volume: str, docker: Path, tmp_path: Path) -> None:
    config = LocalConfig(root=tmp_path / "root", runner="docker", docker_volumes=(volume,))
    with pytest.raises(InputError, match="not a folder that the steps can be given") as caught:
        local.run(compiling.compile_spec("predict_batch"), ARGUMENTS, config)
    assert caught.value.facts["received"] == volume
    assert not (tmp_path / "root").exists()


def test_libraries_that_are_in_their_image_alone_are_missed_before_anything_runs(tmp_path: Path) -> None:
    arguments = {"source": "s", "reference_source": "r"}
    with pytest.raises(InputError, match="steps of the image family 'tfx' cannot run in this environment") as caught:
        local.run(compiling.compile_spec("validate_with_tfx"), arguments, LocalConfig(root=tmp_path / "root"))
    assert "--runner docker" in caught.value.facts["hint"]
    assert not (tmp_path / "root").exists()


def test_without_docker_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    config = LocalConfig(root=tmp_path / "root", runner="docker", docker_volumes=())
    with pytest.raises(ServiceError, match="there is no docker on this machine"):
        local.run(compiling.compile_spec("predict_batch"), ARGUMENTS, config)
    assert not (tmp_path / "root").exists()


ARGUMENTS = {"source": "s", "model_name": "m", "keys": ["k"], "destination": "d"}
