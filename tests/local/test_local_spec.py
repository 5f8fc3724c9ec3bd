"""The local variant of a compiled pipeline: a pure function."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeparts import compiling
from pipeparts.errors import InputError
from pipeparts.targets.local_spec import check_local, families, family_of, in_flow_order, localize


@pytest.mark.parametrize(
    ("image", "family"),
    [
        ("pipeparts-python-data", "data"),
        ("pipeparts-python-tensorflow:0.1.0-abc", "tensorflow"),
        ("europe-docker.pkg.dev/p/r/pipeparts-python-registry@sha256:" + "0" * 64, "registry"),
        ("localhost:5000/pipeparts-python-data:1", "data"),
        ("python:3.11", "default"),
        ("my-pipeparts-python-data-fork:1", "default"),
    ],
)
def test_the_family_of_an_image(image: str, family: str) -> None:
    assert family_of(image) == family


def test_every_task_has_its_own_component_and_the_source_stays(sample: Callable[[str], Path]) -> None:
    spec = compiling.read_yaml(sample("everything"))
    before = copy.deepcopy(spec)
    images = {label: f"pipeparts-python-data:1-{label}" for label in spec["deploymentSpec"]["executors"]}
    variant, nodes = localize(spec, images=images, given=["marks"])
    assert spec == before
    assert localize(spec, images=images, given=["marks"])[0] == variant
    steps = [node.id for node in nodes if node.kind == "step"]
    assert sorted(f"exec-{name}" for name in steps) == sorted(variant["deploymentSpec"]["executors"])
    assert len({node.id for node in nodes}) == len(nodes)
    for node in nodes:
        assert f"comp-{node.id}" in variant["components"]
    command = variant["deploymentSpec"]["executors"]["exec-make"]["container"]["command"]
    assert '"$PIPEPARTS_PYTHON_DATA" -m pipeparts.runtime.local_step kfp.dsl.executor_main' in command[2]
    assert "python3" not in command[2]
    assert command[3] == before["deploymentSpec"]["executors"]["exec-make"]["container"]["command"][3]
    assert in_flow_order(reversed(nodes)) == nodes


def test_the_variant_holds_no_path_of_this_machine(sample: Callable[[str], Path], tmp_path: Path) -> None:
    spec = compiling.read_yaml(sample("basic"))
    text = compiling.to_yaml(localize(spec, images={}, given=["marks"])[0])
    assert str(tmp_path) not in text
    assert "/bin/python" not in text


def test_families_of_a_spec(sample: Callable[[str], Path]) -> None:
    assert families(compiling.read_yaml(sample("basic"))) == ["data"]
    assert families(compiling.read_yaml(sample("foreigner"))) == ["default"]


def test_what_a_platform_runs_itself_is_refused(sample: Callable[[str], Path]) -> None:
    spec = compiling.read_yaml(sample("basic"))
    spec["deploymentSpec"]["executors"]["exec-make"] = {"customJob": {}}
    with pytest.raises(InputError, match="the platform itself runs it") as caught:
        check_local(spec)
    assert caught.value.facts["parameter"] == "make"
    assert caught.value.facts["received"] == "customJob"


def test_artifacts_from_outside_are_refused(sample: Callable[[str], Path]) -> None:
    spec = compiling.read_yaml(sample("basic"))
    spec["root"]["inputDefinitions"]["artifacts"] = {"table": {"artifactType": {"schemaTitle": "system.Dataset"}}}
    with pytest.raises(InputError, match="takes artifacts from outside"):
        check_local(spec)
