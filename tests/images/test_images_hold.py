"""What is in each image, and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeparts import catalog, compiling, images
from tests.docker import docker, in_image
from tests.images.needed_modules import needed_modules

pytestmark = pytest.mark.slow

FAMILIES = images.families()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def facts(family: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("image", "inspect", compiling.image_name(family)))[0]
    return found


def test_the_promised_modules_import(family: str) -> None:
    in_image(family, "python3", "/opt/healthcheck.py", "/opt/promises.txt")


def test_the_health_check_fails_where_a_promise_is_broken(family: str) -> None:
    script = "echo no_such_module > /tmp/promises.txt; python3 /opt/healthcheck.py /tmp/promises.txt 2>&1 || echo $?"
    assert "no_such_module: ModuleNotFoundError" in in_image(family, "sh", "-c", script)


def test_what_the_familys_components_import_is_there(family: str) -> None:
    needed = needed_modules(family)
    names = sorted(set().union(*needed.values())) if needed else []
    code = "import importlib.util, sys; print(*[m for m in sys.argv[1:] if importlib.util.find_spec(m) is None])"
    missing = in_image(family, "python3", "-c", code, *names).split()
    assert {name: [c for c, modules in needed.items() if name in modules] for name in missing} == {}


def test_every_components_logic_imports(family: str) -> None:
    entries = [entry for entry in catalog.components() if entry.family == family]
    modules = [f"{entry.module.removesuffix('.component')}.logic" for entry in entries]
    code = "import importlib, sys; [importlib.import_module(m) for m in sys.argv[1:]]"
    in_image(family, "python3", "-c", code, *modules)


def test_the_user_is_not_root_and_can_write_to_its_work_folder_alone(family: str) -> None:
    assert facts(family)["Config"]["User"] == "10001:10001"
    # On a file system that is not read-only, too.
    script = "id -u; find / -xdev -writable -not -type l -not -path '/proc/*' -not -path '/dev/*' 2>/dev/null; true"
    image = compiling.image_name(family)
    user, *writable = docker("run", "--rm", "--network", "none", image, "sh", "-c", script).split()
    assert user == "10001"
    assert set(writable) <= {"/tmp", "/var/tmp", "/run/lock"}


def test_no_build_tool_and_no_setting_of_the_building_machine_is_left(family: str) -> None:
    script = """
      for tool in gcc g++ cc make uv git; do command -v $tool; done
      ls /run/secrets /etc/uv /etc/pip.conf /root/.cache /opt/tools /opt/pipeparts/bin/pip 2>/dev/null
      env | grep -i -E 'proxy|index|cert|_ca|token'
      true"""
    assert in_image(family, "sh", "-c", script) == ""
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", compiling.image_name(family))
    assert "://" not in history


def test_the_labels_say_what_it_is(family: str) -> None:
    labels = facts(family)["Config"]["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}version"] == "0.1.0"
    assert labels[f"{prefix}title"] == f"pipeparts-python-{family}"
    assert {f"{prefix}revision", f"{prefix}source"} <= labels.keys()
    assert facts(family)["Config"]["Healthcheck"]["Test"][0] == "CMD"


def test_bytecode_is_compiled(family: str) -> None:
    folders = "/opt/pipeparts /opt/package"
    script = f"find {folders} -name '*.py' | wc -l; find {folders} -name '*.pyc' | wc -l"
    sources, compiled = map(int, in_image(family, "sh", "-c", script).split())
    assert compiled > 0.98 * sources  # a few files of other Pythons do not compile
