"""Google's own components, as they come from the index: what portability.md predicts of them is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeparts.linting import engine
from pipeparts.linting.document import Document

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Compiles every component of the stable part that is one; those that want other packages of Google's are left out.
COMPILE = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")
sys.path.append(sys.argv[1])
from kfp import compiler, dsl
import google_cloud_pipeline_components.v1 as package
for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".", onerror=lambda name: None):
    try:
        contents = vars(importlib.import_module(module.name))
    except ImportError:
        continue
    for name in contents.get("__all__", []):
        if isinstance(contents[name], dsl.base_component.BaseComponent):
            compiler.Compiler().compile(contents[name], f"{sys.argv[2]}/{name}.yaml")
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Document]:
    folder = tmp_path_factory.mktemp("google")
    uv = shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
    # Without its dependencies: it caps google-cloud-aiplatform, and to compile it needs kfp alone.
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "packages")]
    subprocess.run([*install, "google-cloud-pipeline-components==2.20.1"], check=True, timeout=300)
    (folder / "compiled").mkdir()
    command = [sys.executable, "-c", COMPILE, str(folder / "packages"), str(folder / "compiled")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return {path.stem: Document.read(path) for path in (folder / "compiled").iterdir()}


def rules(document: Document, target: str) -> set[str]:
    return {finding.rule.id for finding in engine.lint(document, targets=[target])}  # type: ignore[list-item]


def test_they_run_on_vertex_alone(compiled: dict[str, Document]) -> None:
    assert len(compiled) > 50
    assert {"AutoMLTabularTrainingJobRunOp", "BigqueryQueryJobOp", "CustomTrainingJobOp", "ModelUploadOp"} <= set(
        compiled
    )
    for name, document in compiled.items():
        found = engine.lint(document)
        assert [f for f in found if f.targets.get("vertex") == "error"] == [], name
        assert not {"P4", "C3", "D9", "D10", "T2"} & {f.rule.id for f in found}, name


@pytest.mark.parametrize(
    ("name", "predicted"),
    [
        ("AutoMLTabularTrainingJobRunOp", {"V2", "V4", "T1"}),
        ("BigqueryQueryJobOp", {"V1", "V3", "T1"}),
        ("CustomTrainingJobOp", {"V1"}),
        ("ModelUploadOp", {"V1", "V2", "V3", "T1"}),
    ],
)
def test_what_is_predicted_of_them_is_found(compiled: dict[str, Document], name: str, predicted: set[str]) -> None:
    assert predicted <= rules(compiled[name], "kubeflow")
    assert "L1" in rules(compiled[name], "local")


def test_every_placeholder_of_google_s_is_among_them(compiled: dict[str, Document]) -> None:
    of_some = {rule for document in compiled.values() for rule in rules(document, "kubeflow")}
    assert {"V1", "V2", "V3", "V4", "V5", "T1", "S4"} <= of_some
