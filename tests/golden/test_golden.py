"""Each pipeline's compiled YAML against its golden copy, exactly; `make golden` writes them anew."""

from __future__ import annotations

import pytest
import yaml

from pipeparts import catalog, compiling, docgen
from pipeparts.linting import engine
from pipeparts.linting.air_gap import AirGap
from pipeparts.linting.document import Document

#: The backend that belongs to the SDK.
KUBEFLOW = (2, 17)
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
def test_runs_everywhere(entry: catalog.Entry) -> None:
    spec = compiling.compile_spec(entry.name)
    for label, container in compiling.containers(spec):
        assert container["image"].startswith(catalog.FAMILY_PREFIX), label
    spec = compiling.resolve_images(spec, compiling.default_images(spec, registry="registry.example/team"))
    document = Document(compiling.to_yaml(spec), entry.name)
    gap = AirGap(("registry.example/team",))
    assert engine.lint(document, kubeflow_version=KUBEFLOW, air_gap=gap) == []


@pytest.mark.parametrize("entry", catalog.components(), ids=lambda entry: entry.name)
def test_a_component_on_its_own_runs_everywhere(entry: catalog.Entry) -> None:
    spec = compiling.compile_spec(entry.name)
    spec = compiling.resolve_images(spec, compiling.default_images(spec, registry="registry.example/team"))
    document = Document(compiling.to_yaml(spec), entry.name)
    gap = AirGap(("registry.example/team",))
    assert engine.lint(document, kubeflow_version=KUBEFLOW, air_gap=gap) == []


@every_pipeline
def test_every_parameter_is_described(entry: catalog.Entry) -> None:
    spec = compiling.compile_spec(entry.name)
    for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items():
        assert parameter["description"], f"{name} has no description"
