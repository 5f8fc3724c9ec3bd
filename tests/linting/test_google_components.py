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
COMPILE = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path.append(sys.argv[1])
from kfp import compiler
from google_cloud_pipeline_components.v1.automl.training_job import AutoMLTabularTrainingJobRunOp
from google_cloud_pipeline_components.v1.bigquery import BigqueryQueryJobOp
from google_cloud_pipeline_components.v1.custom_job import CustomTrainingJobOp
from google_cloud_pipeline_components.v1.model import ModelUploadOp
for op in (AutoMLTabularTrainingJobRunOp, BigqueryQueryJobOp, CustomTrainingJobOp, ModelUploadOp):
    compiler.Compiler().compile(op, f"{sys.argv[2]}/{op.name}.yaml")
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
    assert len(compiled) == 4
    for name, document in compiled.items():
        on_kubeflow = rules(document, "kubeflow")
        assert on_kubeflow & {"V1", "V2", "V3"}, name
        assert "T1" in on_kubeflow or name == "custom-training-job", name
        assert "L1" in rules(document, "local"), name
        on_vertex = [f for f in engine.lint(document, targets=["vertex"]) if f.severity == "error"]
        assert on_vertex == [], name
