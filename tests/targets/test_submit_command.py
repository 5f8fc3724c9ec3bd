"""The command `pipeparts submit`, and the step that calls it, as processes of their own against the servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeparts.components.monitoring.trigger_pipeline.logic import trigger_pipeline
from pipeparts.config import KubeflowConfig, VertexConfig, load_kubeflow, load_vertex
from pipeparts.errors import InputError, ServiceError
from pipeparts.runtime.monitoring import Decision, write_report
from tests.targets.conftest import COMPILED
from tests.targets.kubeflow_server import KubeflowServer
from tests.targets.vertex_server import BUCKET, LOCATION, PROJECT, VertexServer

CONFIGS = Path(__file__).parents[2] / "configs"


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeparts.cli", "submit", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def write(folder: Path, arguments: dict[str, Any]) -> Path:
    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump({"parameters": arguments}))
    return path


@pytest.fixture
def decision(tmp_path: Path) -> Path:
    path = tmp_path / "decision.json"
    facts = {"as_of": "2013-09-01T00:00:00Z", "model": "models:/late-flights/1", "batch": "abc"}
    write_report(path, Decision(id="d3f2", retrain=True, reasons=("drift",), triggers=(), guards=(), **facts))
    return path


@pytest.mark.slow
def test_a_person_submits(kubeflow: KubeflowServer, arguments: dict[str, Any], tmp_path: Path) -> None:
    params = write(tmp_path, arguments)
    environment = {"PIPEPARTS_HOST": kubeflow.host, "PIPEPARTS_REGISTRY": "reg.example.org/ml"}
    done = command("train_and_register", "--target", "kubeflow", "--params", params, "--wait", **environment)
    assert done.returncode == 0, done.stderr
    (run,) = kubeflow.runs
    assert done.stdout.splitlines() == [
        f"started train-and-register as {run} on kubeflow: succeeded",
        f"{kubeflow.host}/#/runs/details/{run}",
    ]
    kubeflow.states, kubeflow.error = ["FAILED"], "out of memory"
    done = command("train_and_register", "--target", "kubeflow", "--params", params, "--wait", **environment)
    assert done.returncode == 1
    assert "error: the run failed\nout of memory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_errors_are_json_where_json_was_asked_for(arguments: dict[str, Any], tmp_path: Path) -> None:
    arguments["lable"] = "late"
    params = write(tmp_path, arguments)
    done = command(COMPILED, "--target", "kubeflow", "--params", params, "--json", PIPEPARTS_HOST="http://127.0.0.1:9")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["type"] == "InputError"
    assert error["facts"]["received"] == "lable"
    assert "error: pipeline 'train-and-register' has no parameter of this name" in done.stderr


@pytest.mark.slow
def test_a_step_on_kubeflow(
    kubeflow: KubeflowServer,
    arguments: dict[str, Any],
    decision: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PIPEPARTS_ROOT", raising=False)
    monkeypatch.setenv("KFP_POD_NAME", "train-and-register-x7k2l-1234")
    monkeypatch.setenv("_KFP_RUNTIME", "true")  # as in a step
    monkeypatch.setenv("KF_TOKEN", "the-secret-token")
    monkeypatch.setenv("PIPEPARTS_EXPERIMENT", "of the image")
    kubeflow.token = "the-secret-token"
    settings = {
        "host": kubeflow.host,
        "registry": "reg.example.org/ml",
        "token": "env:KF_TOKEN",
        "experiment": "of the pipeline",
        "poll_seconds": 0.05,
    }

    def trigger(name: str, **more: Any) -> dict[str, str]:
        return trigger_pipeline(
            triggered_path=tmp_path / name,
            pipeline="train_and_register",
            parameters=arguments,
            settings=settings,
            decision_path=decision,
            **more,
        )

    kubeflow.fail(r"POST /apis/v2beta1/runs$", 0, served=True)  # the answer gets lost
    kubeflow.states = ["RUNNING", "SUCCEEDED"]
    first = trigger("first")
    (run,) = kubeflow.runs.values()
    assert first == {
        "format": "pipeparts.triggered/1",
        "platform": "kubeflow",
        "run_id": run["run_id"],
        "pipeline": "train-and-register",
        "key": "d3f2",
        "state": "succeeded",
        "link": f"{kubeflow.host}/#/runs/details/{run['run_id']}",
    }
    assert run["display_name"] == "train-and-register-d3f2"
    assert [e["display_name"] for e in kubeflow.experiments.values()] == ["of the pipeline"]
    trigger("second", wait=False)
    assert len(kubeflow.runs) == 1
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    kubeflow.states, kubeflow.error = ["FAILED"], "the gate did not pass\nroc_auc: 0.51"
    with pytest.raises(ServiceError) as caught:
        trigger("third", key="another")
    assert caught.value.headline == (
        "the triggered run of train-and-register failed\n  the gate did not pass\n  roc_auc: 0.51"
    )
    assert not (tmp_path / "third").exists()
    monkeypatch.setenv("KF_TOKEN", "a-wrong-token")
    with pytest.raises(InputError, match="access is denied") as denied:
        trigger("fourth")
    assert "a-wrong-token" not in str(denied.value)


@pytest.mark.slow
def test_a_step_on_vertex(
    vertex: VertexServer,
    arguments: dict[str, Any],
    decision: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PIPEPARTS_ROOT", raising=False)
    monkeypatch.setenv("CLOUD_ML_PROJECT_ID", PROJECT)
    monkeypatch.setenv("CLOUD_ML_REGION", LOCATION)
    settings = {"pipeline_root": f"gs://{BUCKET}/root", "endpoint": vertex.endpoint, "registry": "reg.example.org/ml"}
    vertex.states = ["PIPELINE_STATE_RUNNING", "PIPELINE_STATE_SUCCEEDED"]

    def trigger(name: str) -> dict[str, str]:
        return trigger_pipeline(
            triggered_path=tmp_path / name,
            pipeline=str(COMPILED),
            parameters=arguments,
            settings={**settings, "poll_seconds": 0.05},
            decision_path=decision,
        )

    first = trigger("first")
    assert first["platform"] == "vertex"
    assert first["run_id"] == "train-and-register-d3f2"
    assert first["state"] == "succeeded"
    assert trigger("second") == first
    assert len(vertex.jobs) == 1
    settings.pop("pipeline_root")
    with pytest.raises(InputError, match="target 'vertex' lacks a setting that it needs"):
        trigger("third")


@pytest.mark.slow
def test_a_command_ends_with_the_step_that_asked(
    kubeflow: KubeflowServer, arguments: dict[str, Any], tmp_path: Path
) -> None:
    kubeflow.states = ["RUNNING"]
    params = write(tmp_path, arguments)
    start = [sys.executable, "-m", "pipeparts.cli", "submit", str(COMPILED), "--target", "kubeflow"]
    process = subprocess.Popen(
        [*start, "--params", str(params), "--wait", "--json", "--attached"],
        env={**os.environ, "PIPEPARTS_HOST": kubeflow.host, "PIPEPARTS_REGISTRY": "reg.example.org/ml"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not kubeflow.runs and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None
    process.communicate(timeout=10)
    assert process.returncode == -15
    assert len(kubeflow.runs) == 1


def test_the_configurations_document_every_key() -> None:
    assert set(yaml.safe_load((CONFIGS / "kubeflow.yaml").read_text())) == set(KubeflowConfig.model_fields)
    assert load_kubeflow(file=CONFIGS / "kubeflow.yaml", environ={}) == KubeflowConfig()
    assert set(yaml.safe_load((CONFIGS / "vertex.yaml").read_text())) == set(VertexConfig.model_fields)
    required = {"project": "my-project", "location": "europe-west4", "pipeline_root": "gs://my-bucket/pipelines"}
    assert load_vertex(file=CONFIGS / "vertex.yaml", environ={}) == VertexConfig(**required)


@pytest.mark.parametrize(
    ("settings", "parameter"),
    [({"host": "kubeflow.example.org"}, "host"), ({"tokn": "x"}, "tokn"), ({"poll_seconds": 0}, "poll_seconds")],
)
def test_wrong_settings(settings: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InputError) as caught:
        load_kubeflow(environ={}, overrides=settings)
    assert caught.value.facts["parameter"] == parameter


NETWORK = "projects/1/global/networks/n"


@pytest.mark.parametrize(
    ("settings", "parameter", "allowed"),
    [
        ({"pipeline_root": "s3://bucket"}, "pipeline_root", "gs://BUCKET, or a folder in it"),
        ({"network": "n"}, "network", "projects/NUMBER/global/networks/NAME"),
        ({"encryption_key": "k"}, "encryption_key", "projects/P/locations/L/keyRings/R/cryptoKeys/K"),
        ({"service_account": "runner"}, "service_account", "an account's address"),
        ({"labels": {"Team": "flights"}}, "labels", "small letters, digits, hyphens and underscores"),
        ({"labels": {"team": "all flights"}}, "labels", "small letters, digits, hyphens and underscores"),
        ({"labels": {"1": "a"}}, "labels", "the name with a letter first"),
        ({"network": NETWORK, "psc_network_attachment": "a"}, "psc_network_attachment", "one of the two"),
    ],
)
def test_what_vertex_would_refuse_is_refused_before_it_is_asked(
    settings: dict[str, Any], parameter: str, allowed: str
) -> None:
    required = {"project": "p", "location": "l", "pipeline_root": "gs://b"}
    with pytest.raises(InputError) as caught:
        load_vertex(environ={}, overrides={**required, **settings})
    assert caught.value.facts["parameter"] == parameter
    assert allowed in caught.value.facts["allowed"]


def test_labels_that_google_takes_are_taken() -> None:
    labels = {"team": "", "kosten-stelle": "münchen_2"}
    assert VertexConfig(project="p", location="l", pipeline_root="gs://b", labels=labels).labels == labels
