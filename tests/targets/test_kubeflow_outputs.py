"""What a run on Kubeflow gave, read from the metadata store as the console reads it."""

from __future__ import annotations

from typing import Any

import pytest

from pipeparts.config import KubeflowConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.targets.base import Output
from pipeparts.targets.kubeflow import KubeflowTarget
from tests.targets.kubeflow_server import KubeflowServer
from tests.targets.metadata_store import INPUT, OUTPUT, MetadataStore

STEP, IMPORTER, GROUP = "system.ContainerExecution", "system.ImporterExecution", "system.DAGExecution"


@pytest.fixture
def run(kubeflow: KubeflowServer) -> str:
    return str(kubeflow.add_run("train-d1", "SUCCEEDED")["run_id"])


@pytest.fixture
def target(kubeflow: KubeflowServer, monkeypatch: pytest.MonkeyPatch) -> KubeflowTarget:
    monkeypatch.setenv("HOME", "/nowhere")
    return KubeflowTarget(KubeflowConfig(host=f"{kubeflow.host}"))


def test_artifacts_and_parameters_of_every_step(kubeflow: KubeflowServer, run: str, target: KubeflowTarget) -> None:
    def step(name: str, **more: Any) -> dict[str, Any]:
        return {"display_name": name, "task_name": name, "pod_name": f"{name}-xyz", "inputs": {"seed": 7.0}, **more}

    kubeflow.store = MetadataStore(
        contexts={"another": 4, run: 300},
        executions={
            1: (GROUP, {"task_name": "", "display_name": "root"}),
            2: (IMPORTER, step("import-table")),
            3: (STEP, step("train", outputs={"passed": "yes", "auc": 0.0})),
            4: (STEP, step("score", iteration_index=0)),
            5: (STEP, step("score", iteration_index=1, outputs={"Output": 0.5})),
            6: (STEP, step("waits")),
        },
        events=[
            (11, 2, OUTPUT, "artifact"),
            (11, 3, INPUT, "table"),
            (12, 3, OUTPUT, "metrics"),
            (13, 5, OUTPUT, "plot"),
            (99, 5, OUTPUT, "deleted meanwhile"),
        ],
        artifacts={
            11: ("system.Dataset", "gs://b/table", {"rows": 1_000_000}),
            12: ("system.Metrics", "s3://b/metrics", {"auc": 0.875, "display_name": "m", "store_session_info": "{}"}),
            13: ("system.HTML", "s3://b/plot", {}),
        },
    )
    assert target.outputs(run) == [
        Output("import-table", "artifact", "gs://b/table", "system.Dataset", {"rows": 1_000_000}),
        Output("train", "metrics", "s3://b/metrics", "system.Metrics", {"auc": 0.875}),
        Output("train", "auc", 0.0),
        Output("train", "passed", "yes"),
        Output("score [iteration 1]", "plot", "s3://b/plot", "system.HTML"),
        Output("score [iteration 1]", "Output", 0.5),
    ]


def test_a_run_that_has_given_nothing_yet(kubeflow: KubeflowServer, run: str, target: KubeflowTarget) -> None:
    assert target.outputs(run) == []
    kubeflow.store = MetadataStore(contexts={run: 1})
    assert target.outputs(run) == []
    with pytest.raises(InputError, match="it is not there"):
        target.outputs("no-run-of-this-name")


def test_a_store_that_does_not_answer_as_it_should(kubeflow: KubeflowServer, run: str, target: KubeflowTarget) -> None:
    kubeflow.store.status = 14
    with pytest.raises(ServiceError, match="its metadata store does not answer as it should") as caught:
        target.outputs(run)
    assert caught.value.facts["received"] == "gRPC status 14: not now"
    kubeflow.store = MetadataStore(contexts={run: 1}, cut=True)
    with pytest.raises(ServiceError, match="its metadata store") as caught:
        target.outputs(run)
    assert caught.value.facts["parameter"] == "metadata_host"
    kubeflow.store = MetadataStore(contexts={run: 1})
    kubeflow.fail("POST /ml_metadata", 404)
    with pytest.raises(ServiceError, match="its metadata store") as caught:
        target.outputs(run)
    assert caught.value.facts["received"] == "status 404, application/json"
    kubeflow.fail("POST /ml_metadata", 0)
    with pytest.raises(ServiceError, match="cannot read what the run gave on Kubeflow Pipelines"):
        target.outputs(run)


def test_where_the_store_is(kubeflow: KubeflowServer, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API may be below a path, as https://kubeflow.example.org/pipeline; the store is at the top of the host."""
    monkeypatch.setenv("HOME", "/nowhere")
    kubeflow.token = "of-ana"
    monkeypatch.setenv("KF_TOKEN", "of-ana")
    settings: dict[str, Any] = {"host": kubeflow.host, "token": "env:KF_TOKEN"}
    kubeflow.store = MetadataStore(contexts={run: 1}, executions={1: (STEP, {"task_name": "a", "outputs": {"x": 1.0}})})
    assert KubeflowTarget(KubeflowConfig(**settings)).outputs(run) == [Output("a", "x", 1.0)]
    server = KubeflowTarget(KubeflowConfig(**settings))._server
    server.host = "https://kubeflow.example.org/pipeline"
    assert server._metadata_host == "https://kubeflow.example.org"
    elsewhere = KubeflowTarget(KubeflowConfig(**settings, metadata_host="http://127.0.0.1:9"))
    with pytest.raises(ServiceError, match="the server does not answer"):
        elsewhere.outputs(run)
