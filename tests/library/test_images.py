"""What `make images` asks of docker, and what it says where that fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pipeparts import compiling, images
from pipeparts.errors import InputError, ServiceError

_DOCKER = """#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
  "image inspect") [ -e {built} ] || {{ echo "Error: No such image: $3" >&2; exit 1; }}; cat {built} ;;
  "build "*) [ -e {broken} ] && exit 17; echo '{image}' > {built} ;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command that answers as docker does, and notes what it was asked."""
    digest = f"registry.example/team/pipeparts-python-data@sha256:{'1' * 64}"
    image = json.dumps([{"Size": 698_000_000, "RepoDigests": [f"other/x@sha256:{'2' * 64}", digest]}])
    program = tmp_path / "docker"
    program.write_text(
        _DOCKER.format(log=tmp_path / "log", built=tmp_path / "built", broken=tmp_path / "broken", image=image)
    )
    program.chmod(0o755)
    monkeypatch.setenv("DOCKER", str(program))
    for variable in images.SECRETS.values():
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def asked(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_an_image_is_built_once_for_its_content(docker: Path) -> None:
    name = compiling.image_name("data")
    assert images.build(["data"]) == {"data": name}
    assert images.build(["data"]) == {"data": name}
    (command,) = [line for line in asked(docker) if line.startswith("build")]
    assert f"--tag {name}" in command
    assert "--build-arg VERSION=0.1.0" in command
    images.build(["data"], again=True)
    assert len([line for line in asked(docker) if line.startswith("build")]) == 2


def test_a_pushed_image_is_named_by_its_digest(docker: Path) -> None:
    references = images.build(["data"], registry="registry.example/team")
    assert references == {"data": f"registry.example/team/pipeparts-python-data@sha256:{'1' * 64}"}
    images.write_references(docker / "images.yaml", references)
    assert yaml.safe_load((docker / "images.yaml").read_text()) == references


def test_the_settings_of_this_machine_are_secrets_of_the_build(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = docker / "ca.crt"
    bundle.write_text("certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    images.build(["data"], options=["--network", "host"])
    command = next(line for line in asked(docker) if line.startswith("build"))
    assert f"--secret id=ca,src={bundle} --build-arg CA=/run/secrets/ca" in command
    assert "--network host" in command


def test_a_family_that_does_not_exist_is_refused_before_anything_is_built(docker: Path) -> None:
    with pytest.raises(InputError, match="no image family of this name") as error:
        images.build(["data", "tensorflo"])
    assert "did you mean 'tensorflow'?" in str(error.value)
    assert not (docker / "log").exists()


def test_a_failed_build_says_what_was_asked(docker: Path) -> None:
    (docker / "broken").touch()
    with pytest.raises(ServiceError, match="docker build failed") as error:
        images.build(["data"])
    assert "exit code 17" in str(error.value)


def test_without_docker_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DOCKER", "/nowhere/docker")
    assert images.main(["data"]) == 1
    assert "there is no docker" in capsys.readouterr().err


def test_every_family_promises_what_its_steps_import() -> None:
    for family in images.families():
        folder = images.ROOT / "containers" / family
        assert "kfp.dsl.executor_main" in (folder / "promises.txt").read_text().split()
        assert "--hash=sha256:" in (folder / "requirements.txt").read_text()
        assert "\nUSER 10001:10001\n" in (folder / "Dockerfile").read_text()
