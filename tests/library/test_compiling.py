"""Images are resolved by a pure function, and hashes see changed code."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from pipeparts import catalog, compiling
from pipeparts.errors import InputError


@pytest.fixture(scope="module")
def spec() -> compiling.Spec:
    return compiling.compile_spec("require_verdict")


def images_of(spec: compiling.Spec) -> set[str]:
    return {container["image"] for _, container in compiling.containers(spec)}


def test_images_are_resolved_without_touching_the_spec(spec: compiling.Spec) -> None:
    before = copy.deepcopy(spec)
    resolved = compiling.resolve_images(spec, {"data": "registry.example/data:1.0"})
    assert images_of(resolved) == {"registry.example/data:1.0"}
    assert spec == before
    assert compiling.image_families(resolved) == []


def test_default_images_carry_release_and_content(spec: compiling.Spec) -> None:
    images = compiling.default_images(spec, registry="registry.example/team/")
    assert images["data"].startswith("registry.example/team/pipeparts-python-data:0.1.0-")
    compiling.resolve_images(spec, images)


@pytest.mark.parametrize(
    "image", ["data", "registry.example/data", "registry.example:5000/data", "data:latest", "data:", "data@sha256:0123"]
)
def test_an_image_that_can_change_is_refused(spec: compiling.Spec, image: str) -> None:
    with pytest.raises(InputError, match="change under its name"):
        compiling.resolve_images(spec, {"data": image})


def test_a_digest_is_accepted(spec: compiling.Spec) -> None:
    image = f"registry.example/data@sha256:{'0' * 64}"
    assert images_of(compiling.resolve_images(spec, {"data": image})) == {image}


def test_a_family_without_image_is_an_error(spec: compiling.Spec) -> None:
    with pytest.raises(InputError, match="no image for this family") as error:
        compiling.resolve_images(spec, {"monitoring": "registry.example/monitoring:1"})
    assert error.value.facts["allowed"] == "data"


def test_a_slip_in_a_family_s_name_is_an_error_though_all_have_an_image(spec: compiling.Spec) -> None:
    """The image that somebody meant for the family would be left out without a word."""
    both = {"data": "registry.example/data:1", "dta": "registry.example/mine:1"}
    with pytest.raises(InputError, match="no image family of this name") as error:
        compiling.resolve_images(spec, both)
    assert error.value.facts["hint"] == "did you mean 'data'?"
    others = {
        "data": "registry.example/data:1",
        "tensorflow": "registry.example/t:1",
        "forecasting": "registry.example/f:1",
    }
    assert images_of(compiling.resolve_images(spec, others)) == {"registry.example/data:1"}


def test_compiling_is_deterministic(spec: compiling.Spec) -> None:
    assert compiling.to_yaml(spec) == compiling.to_yaml(compiling.compile_spec("require_verdict"))


def test_yaml_comes_back_as_it_was(spec: compiling.Spec, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(compiling.to_yaml(spec))
    assert compiling.read_yaml(tmp_path / "p.yaml") == spec


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a compiled KFP v2 pipeline"),
        (b"a: [", "not YAML"),
        (b"- 1", "not a compiled KFP v2 pipeline"),
        (b"kind: Workflow", "not a compiled KFP v2 pipeline"),
        (b"a: 1\n---\nb: 2\n", "not one YAML document"),
        (b"\xff\xfe\x00", "cannot read the pipeline"),
    ],
)
def test_what_is_no_pipeline_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "p.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        compiling.read_yaml(tmp_path / "p.yaml")
    assert "p.yaml" in str(error.value)


def test_a_changed_step_has_another_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil

    package = tmp_path / "pipeparts"
    shutil.copytree(catalog.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(catalog, "PACKAGE", package)
    before = {name: compiling.component_hash(name) for name in ("require_verdict", "split_table")}
    whole = compiling.package_hash()
    logic = package / "components" / "data_validation" / "require_verdict" / "logic.py"
    logic.write_text(logic.read_text() + "\n# changed\n")
    after = {name: compiling.component_hash(name) for name in before}
    assert after["require_verdict"] != before["require_verdict"]
    assert after["split_table"] == before["split_table"]
    assert compiling.package_hash() != whole
    tests = logic.parent / "tests" / "test_require_verdict.py"
    tests.write_text("# changed")
    assert compiling.component_hash("require_verdict") == after["require_verdict"]
    runtime = package / "runtime" / "files.py"
    runtime.write_text(runtime.read_text() + "\n# changed\n")
    assert compiling.component_hash("split_table") != before["split_table"]


def test_an_unknown_name_suggests_the_close_one() -> None:
    with pytest.raises(InputError) as error:
        catalog.find("require_verdikt")
    assert "did you mean 'require_verdict'?" in str(error.value)


def test_a_component_is_imported_by_its_name() -> None:
    from pipeparts import components

    assert components.require_verdict.name == "require-verdict"
    assert "require_verdict" in dir(components)
    with pytest.raises(AttributeError, match="no component 'nothing'"):
        _ = components.nothing


def test_one_function_names_the_images_of_make_images_and_of_compile(spec: compiling.Spec) -> None:
    registry = "registry.example/team"
    assert compiling.default_images(spec, registry=registry) == {
        "data": compiling.image_name("data", registry=f"{registry}/")
    }


def test_an_images_tag_changes_with_its_recipe_and_not_with_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = compiling._recipes()
    before = {family: compiling.image_name(family) for family in ("data", "tfx")}
    monkeypatch.setattr(compiling, "_recipes", lambda: {**recipes, "tfx": "changed"})
    assert compiling.image_name("tfx") != before["tfx"]
    assert compiling.image_name("data") == before["data"]


def test_every_family_of_the_catalog_has_a_recipe() -> None:
    assert {entry.family for entry in catalog.components()} <= compiling._recipes().keys()


def test_a_step_may_install_the_package_when_it_starts(spec: compiling.Spec) -> None:
    before = copy.deepcopy(spec)
    resolved = compiling.pip_images(spec)
    ((_, container),) = compiling.containers(resolved)
    assert container["image"] == "python:3.11-slim-bookworm"
    assert container["command"][:2] == ["sh", "-c"]
    assert "'pipeparts[data]==0.1.0' && exec" in container["command"][2]
    assert container["command"][3:] == next(compiling.containers(spec))[1]["command"]
    assert spec == before


def test_what_a_step_installs_is_one_word_for_the_shell(spec: compiling.Spec) -> None:
    resolved = compiling.pip_images(spec, package="pipeparts[{family}] @ https://example.org/a b.whl; true")
    ((_, container),) = compiling.containers(resolved)
    assert "'pipeparts[data] @ https://example.org/a b.whl; true' &&" in container["command"][2]
