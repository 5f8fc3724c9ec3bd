"""A step that installs the package when it starts, as `compile --images pip` has it, and one that has its image."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeparts import compiling
from pipeparts.config import LocalConfig
from pipeparts.targets import local
from pipeparts.targets.base import RunResult

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CERTIFICATES = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder that pip finds this checkout's package in, as a team's index would give it."""
    folder = tmp_path / "wheels"
    # From a copy: a build leaves folders behind.
    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "benchmarks", "docs", "tests", "*.egg-info"))
    build = ["build", "--quiet", "--wheel", "--out-dir", str(folder), str(source)]
    subprocess.run([str(ROOT / ".tools" / "bin" / "uv"), *build], check=True)
    tmp_path.chmod(0o755)
    folder.chmod(0o755)
    return folder


def ingest(root: Path, spec: compiling.Spec, **config: object) -> RunResult:
    source = root / "flights.csv"
    root.mkdir(exist_ok=True)
    shutil.copyfile(ROOT / "tests" / "data" / "flights.csv", source)
    settings = {"root": root, "runner": "docker", "docker_volumes": (), "cache": False, **config}
    return local.run(spec, {"source": str(source)}, LocalConfig.model_validate(settings))


def seconds(result: RunResult) -> float:
    """From docker's start to the step's end."""
    (task,) = result.record["tasks"]
    return float(task["finished"] - task["started"])


def test_a_step_without_an_image_of_ours_installs_the_package_first(tmp_path: Path, wheels: Path) -> None:
    spec = compiling.compile_spec("ingest_files")
    installing = ingest(
        tmp_path / "pip",
        compiling.pip_images(spec),
        docker_volumes=(str(wheels), CERTIFICATES),
        environment={"PIP_FIND_LINKS": str(wheels), "PIP_CERT": CERTIFICATES},
    )
    assert installing.state == "succeeded", (installing.folder / "worker.log").read_text()
    ready = ingest(tmp_path / "image", spec, docker_network="none")
    assert ready.state == "succeeded"
