"""A step as Vertex AI runs it: the variant's own command, on a machine whose account may read the secret."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import compiler, dsl

from pipeparts import compiling
from pipeparts.config import VertexConfig
from pipeparts.targets.binding import bind
from tests.secret_manager_server import secret_manager_server

VERSION = "projects/p/secrets/mlflow/versions/3"
SECRET = "s3cret-of-the-team"


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def tell(token: str) -> dict:
    """Says what it found: by its parameter, and where libraries look."""
    import os

    from pipeparts.runtime.secrets import read_secret

    found = read_secret(token, parameter="token")
    return {"letters": len(found), "same": os.environ["MLFLOW_TRACKING_TOKEN"] == found, "level": os.environ["LEVEL"]}


@pytest.mark.slow
def test_a_step_on_vertex_has_its_secret_and_its_time(tmp_path: Path) -> None:
    compiler.Compiler().compile(tell, str(tmp_path / "tell.yaml"))
    settings = {
        "environment": {"LEVEL": "debug"},
        "secrets": {"MLFLOW_TRACKING_TOKEN": {"secret_manager": VERSION}},
        "timeout_seconds": 300,
    }
    config = VertexConfig(project="p", location="l", pipeline_root="gs://b", defaults=settings)
    bound = bind(compiling.read_yaml(tmp_path / "tell.yaml"), config)
    assert SECRET not in compiling.to_yaml(bound.spec)
    container = bound.spec["deploymentSpec"]["executors"]["exec-tell"]["container"]
    output = tmp_path / "output.json"
    executor_input = {
        "inputs": {"parameterValues": {"token": "env:MLFLOW_TRACKING_TOKEN"}},
        "outputs": {
            "parameters": {"Output": {"outputFile": str(tmp_path / "Output")}},
            "outputFile": str(output),
        },
    }
    arguments = [json.dumps(executor_input) if part == "{{$}}" else part for part in container["args"]]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "CLOUDSDK_"))}
    with secret_manager_server(tmp_path) as server:
        server.secrets[VERSION] = SECRET.encode()
        done = subprocess.run(
            [*container["command"], *arguments],
            env={
                **environment,
                **server.machine,
                **{variable["name"]: variable["value"] for variable in container["env"]},
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "HOME": "/nowhere",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(output.read_text())["parameterValues"]["Output"]
    assert told == {"letters": len(SECRET), "same": True, "level": "debug"}
    assert server.users == ["machine"]
    assert SECRET not in done.stdout + done.stderr
