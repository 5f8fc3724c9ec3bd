"""docs/publishing.md, followed to the letter: against storage and registries on loopback."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeparts import __version__
from pipeparts.cli import app
from tests.publishing.artifact_registry_server import ADDRESS, artifact_registry
from tests.publishing.storage_server import cloud_storage
from tests.publishing.test_oci import docker_registry, manifest_of

GUIDE = Path(__file__).parents[2] / "docs" / "publishing.md"


@pytest.mark.slow
def test_each_command_of_the_guide_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```console\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [
        line.removeprefix("$ pipeparts ") for block in blocks for line in block.splitlines() if line.startswith("$")
    ]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for folder in ("google", "registry"):
        (tmp_path / folder).mkdir()
    said = []
    with (
        cloud_storage() as storage,
        artifact_registry(tmp_path / "google") as registry,
        docker_registry(tmp_path / "registry") as host,
    ):
        for line in lines:
            for shown, real in (
                ("gs://my-bucket", "gs://kept"),
                ("https://europe-west4-kfp.pkg.dev/my-project/templates", ADDRESS),
                ("oci://ghcr.io", f"oci://{host}"),
            ):
                line = line.replace(shown, real)
            result = CliRunner().invoke(app, shlex.split(line), env={"COLUMNS": "150", "NO_COLOR": "1"})
            assert result.exit_code == 0, f"{line}\n{result.output}"
            said.append(result.stdout)
        assert manifest_of(f"oci://{host}/team/components/require_verdict", "1.0.0")
        assert set(registry.tags["predict-batch"]) == {"1.0.0", "latest", "stable"}
        assert "components/require_verdict/stable" in storage.objects
    assert said[1] == "nothing changed in meaning\n"
    for path in (
        "index.json",
        "index.html",
        "require_verdict/latest",
        f"train_and_register/{__version__}/pipeline.yaml",
    ):
        assert (tmp_path / "shelf" / path).is_file()
