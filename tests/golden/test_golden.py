"""Each pipeline's compiled YAML against its golden copy, exactly; `make golden` writes them anew."""

from __future__ import annotations

import pytest
import yaml

from pipeparts import catalog, compiling, docgen

ENTRIES = catalog.pipelines()
every_pipeline = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def test_there_are_pipelines() -> None:
    assert ENTRIES


@every_pipeline
def test_compiled_yaml_is_the_golden_copy(entry: catalog.Entry) -> None:
    compiled = compiling.to_yaml(compiling.compile_spec(entry.name))
    assert (entry.folder / "compiled.yaml").read_text() == compiled, "run `make golden`, and look at the difference"


@every_pipeline
def test_readme_is_fresh(entry: catalog.Entry) -> None:
    assert (entry.folder / "README.md").read_text() == docgen.pipeline_readme(entry), "run `make docs`"


@every_pipeline
def test_kfp_is_the_release_that_the_package_asks_for(entry: catalog.Entry) -> None:
    setup = (catalog.PACKAGE.parent / "setup.py").read_text()
    compiled = yaml.safe_load((entry.folder / "compiled.yaml").read_text())
    assert f'"kfp=={compiled["sdkVersion"].removeprefix("kfp-")}"' in setup


@every_pipeline
def test_stays_inside_the_safe_core(entry: catalog.Entry) -> None:
    spec = compiling.compile_spec(entry.name)
    text = compiling.to_yaml(spec)
    assert len(text) < 256_000
    assert not spec["root"].get("inputDefinitions", {}).get("artifacts"), "the consoles cannot supply artifacts"
    for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items():
        assert "defaultValue" in parameter or not parameter.get("isOptional"), f"{name} has None for a default"
        assert parameter["description"], f"{name} has no description"
        assert len(parameter["description"]) <= 1024
    for label, container in compiling.containers(spec):
        assert container["image"].startswith(catalog.FAMILY_PREFIX), label
        assert "pip install" not in " ".join(container["command"])
    forbidden = [
        r"workspace_path",
        r"pipeline_google_cloud",
        r"json_escape",
        r"Concat",
        r"IfPresent",
        r"$.pipeline_root",
    ]
    forbidden += [r"artifactIterator", r"\bresolver:", r"\bcustomJob:", r"cacheKey", r"/gcs/", r"/minio/", r"/s3/"]
    for word in forbidden:
        assert word.strip("\\b:}") not in text.replace("\\", ""), f"{word} does not run everywhere"
    for dag in [spec["root"], *spec["components"].values()]:
        for task in dag.get("dag", {}).get("tasks", {}).values():
            assert "artifactIterator" not in task
            assert re_whole_placeholders(task), f"a placeholder inside a longer text: {task}"


def re_whole_placeholders(task: dict) -> bool:
    """Whether each `{{$...}}` stands alone: Kubeflow resolves whole values only."""
    for value in task.get("inputs", {}).get("parameters", {}).values():
        constant = value.get("runtimeValue", {}).get("constant")
        if (
            isinstance(constant, str)
            and "{{$." in constant
            and not (constant.startswith("{{$.") and constant.endswith("}}") and constant.count("{{") == 1)
        ):
            return False
    return True
