"""Submission to Kubeflow: KFP's own client against the API on loopback, with what goes wrong between them."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeparts.config import KubeflowConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.targets import kubeflow as target
from pipeparts.targets.base import RemoteRun
from tests.targets.kubeflow_server import KubeflowServer

RUNS = r"POST /apis/v2beta1/runs$"
NAME = "train-and-register-d1"


class Submitter:
    """Submits the same pipeline to the server, with settings of the test's own."""

    def __init__(self, server: KubeflowServer, spec: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.server, self.spec, self.arguments = server, spec, arguments

    def target(self, **settings: Any) -> target.KubeflowTarget:
        defaults = {"host": self.server.host, "registry": "reg.example.org/ml", "poll_seconds": 0.01}
        return target.KubeflowTarget(KubeflowConfig(**{**defaults, "request_seconds": 5.0, **settings}))

    def __call__(self, key: str = "d1", *, wait: bool = False, **settings: Any) -> RemoteRun:
        platform = self.target(**settings)
        run = platform.submit(self.spec, self.arguments, key=key)
        return platform.wait(run) if wait else run


@pytest.fixture
def submit(
    kubeflow: KubeflowServer, spec: dict[str, Any], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Submitter:
    monkeypatch.setattr(target, "_LOOK_AGAIN_SECONDS", (0.0, 0.05, 0.1))
    monkeypatch.setenv("HOME", "/nowhere")  # KFP keeps a context there
    return Submitter(kubeflow, spec, arguments)


def test_a_run_is_started_with_all_that_was_said(submit: Submitter, kubeflow: KubeflowServer) -> None:
    run = submit(experiment="retraining", service_account="pipeline-runner")
    (stored,) = kubeflow.runs.values()
    assert run == RemoteRun(
        platform="kubeflow",
        run_id=stored["run_id"],
        pipeline="train-and-register",
        key="d1",
        state="running",
        link=f"{kubeflow.host}/#/runs/details/{stored['run_id']}",
        started=run.started,
    )
    assert run.started.startswith("2013-09-01T00:")
    assert stored["display_name"] == NAME
    assert stored["service_account"] == "pipeline-runner"
    assert kubeflow.experiments[stored["experiment_id"]]["display_name"] == "retraining"
    sent = stored["runtime_config"]["parameters"]
    assert sent["features"] == {"carrier": "category", "temp": "numeric"}
    assert sent["seed"] == 7
    assert sent["source_version"], "the version of the source is filled in"
    images = {e["container"]["image"] for e in stored["pipeline_spec"]["deploymentSpec"]["executors"].values()}
    assert all(image.startswith("reg.example.org/ml/pipeparts-python-") and ":" in image for image in images)


def test_a_key_starts_one_run(submit: Submitter, kubeflow: KubeflowServer) -> None:
    first, second, other = submit(), submit(), submit("d2")
    assert first.run_id == second.run_id != other.run_id
    assert (first.new, second.new) == (True, False)
    assert len(kubeflow.runs) == 2
    kubeflow.runs[first.run_id]["state"] = "SUCCEEDED"
    assert submit().state == "succeeded"
    assert len(kubeflow.runs) == 2


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_came_to_nothing_is_followed_by_another(
    submit: Submitter, kubeflow: KubeflowServer, state: str
) -> None:
    kubeflow.page_size = 2  # the one that lives is on the last page
    for _ in range(4):
        kubeflow.add_run(NAME, state)
    first, second = submit(), submit()
    assert first.new
    assert not second.new
    assert second.run_id == first.run_id
    assert len(kubeflow.runs) == 5


def test_waiting_for_the_end(submit: Submitter, kubeflow: KubeflowServer) -> None:
    kubeflow.states = ["PENDING", "RUNNING", "PAUSED", "RUNNING", "SUCCEEDED"]
    kubeflow.fail(r"GET /apis/v2beta1/runs/", 503, times=3)
    assert submit(wait=True).state == "succeeded"


def test_a_failed_run_says_why(submit: Submitter, kubeflow: KubeflowServer) -> None:
    kubeflow.states = ["RUNNING", "FAILED"]
    kubeflow.error = "the gate did not pass"
    run = submit(wait=True)
    assert run.state == "failed"
    assert run.error == "the gate did not pass"
    kubeflow.states = ["CANCELED"]
    assert submit("d2", wait=True).state == "interrupted"


def test_waiting_has_an_end(submit: Submitter, kubeflow: KubeflowServer) -> None:
    kubeflow.states = ["RUNNING"]
    with pytest.raises(ServiceError, match="the run has not ended in time; it goes on") as caught:
        submit(wait=True, wait_seconds=0.1)
    assert caught.value.facts["hint"] == "the same command with the same key waits for the same run"
    kubeflow.fail(r"GET /apis/v2beta1/runs/", 500, times=100)
    with pytest.raises(ServiceError, match="cannot look at the run on Kubeflow Pipelines"):
        submit(wait=True)
    assert len(kubeflow.runs) == 1


# --- What goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 500, 502, 409, 429])
def test_a_lost_answer_starts_no_second_run(submit: Submitter, kubeflow: KubeflowServer, status: int) -> None:
    """The run was made, and then the connection was cut, or a proxy in between answered."""
    kubeflow.fail(RUNS, status, served=True)
    run = submit()
    assert list(kubeflow.runs) == [run.run_id]
    assert run.new
    assert submit().run_id == run.run_id
    assert len(kubeflow.runs) == 1


def test_a_lost_answer_and_then_silence(submit: Submitter, kubeflow: KubeflowServer) -> None:
    kubeflow.fail(RUNS, 0, served=True)
    kubeflow.fail(r"GET /apis/v2beta1/runs", 500, times=4)
    kubeflow.faults[-1].times = 0  # the look before is answered
    real, kubeflow_fault = kubeflow.faults[-1], kubeflow.fault

    def fault(request: str) -> Any:
        if request.startswith("POST /apis/v2beta1/runs"):
            real.times = 10
        return kubeflow_fault(request)

    kubeflow.fault = fault  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="cannot start the run on Kubeflow Pipelines: the server does not answer"):
        submit()
    real.times = 0
    assert len(kubeflow.runs) == 1
    kubeflow.fault = kubeflow_fault  # type: ignore[method-assign]
    assert submit().run_id == next(iter(kubeflow.runs))
    assert len(kubeflow.runs) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_refused_start_is_no_run(submit: Submitter, kubeflow: KubeflowServer, status: int) -> None:
    kubeflow.fail(RUNS, status)
    with pytest.raises(ServiceError, match="cannot start the run on Kubeflow Pipelines") as caught:
        submit()
    assert caught.value.facts["received"] == f"status {status}: fault {status}"
    assert caught.value.retryable
    assert not kubeflow.runs
    assert submit().new
    assert len(kubeflow.runs) == 1


def test_a_server_that_keeps_silent(submit: Submitter, kubeflow: KubeflowServer) -> None:
    kubeflow.fail(RUNS, 0, served=True, hang_seconds=5)
    with pytest.raises(ServiceError, match="the server does not answer"):
        submit(request_seconds=0.2)
    assert not kubeflow.runs, "nobody waited for the server"
    deadline = time.monotonic() + 60
    while not kubeflow.runs and time.monotonic() < deadline:
        time.sleep(0.05)  # it makes the run after all
    assert len(kubeflow.runs) == 1
    assert not submit().new
    assert len(kubeflow.runs) == 1


def test_two_at_the_same_moment(submit: Submitter, kubeflow: KubeflowServer) -> None:
    kubeflow.states = ["RUNNING"]
    both = threading.Barrier(2)
    handle, waited = kubeflow.handle, threading.local()

    def slow(method: str, path: str, *rest: Any) -> Any:
        # Both have looked, and found nothing, before either makes its run.
        if method == "POST" and path.endswith("/runs") and not getattr(waited, "done", False):
            waited.done = True
            both.wait(10)
        return handle(method, path, *rest)

    kubeflow.handle = slow  # type: ignore[method-assign]
    runs: list[RemoteRun] = []
    threads = [threading.Thread(target=lambda: runs.append(submit())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(kubeflow.runs) == 2
    states = sorted(run["state"] for run in kubeflow.runs.values())
    assert states[0] == "CANCELED"
    (alive,) = [run["run_id"] for run in kubeflow.runs.values() if run["state"] != "CANCELED"]
    # Who came first may not have seen the other; who came second gives the first one's back.
    assert alive in {run.run_id for run in runs}
    assert submit().run_id == alive


def test_an_experiment_that_another_makes_meanwhile(submit: Submitter, kubeflow: KubeflowServer) -> None:
    kubeflow.fail(r"POST /apis/v2beta1/experiments", 409, served=True)
    assert submit().new
    assert len(kubeflow.experiments) == 1


def test_access_is_denied(submit: Submitter, kubeflow: KubeflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeflow.token = "the-right-one"
    monkeypatch.setenv("KF_TOKEN", "a-wrong-secret")
    with pytest.raises(InputError, match="cannot connect to Kubeflow Pipelines: access is denied") as caught:
        submit(token="env:KF_TOKEN")
    assert caught.value.facts["received"] == "status 401: Request header error: there is no valid token."
    assert "a-wrong-secret" not in str(caught.value)
    monkeypatch.setenv("KF_TOKEN", "the-right-one")
    assert submit(token="env:KF_TOKEN").new
    with pytest.raises(InputError, match="not a reference to a secret") as caught:
        submit(token="the-right-one")
    assert "the-right-one" not in str(caught.value)


def test_a_token_that_is_renewed_in_its_file(
    submit: Submitter, kubeflow: KubeflowServer, tmp_path: Path, spec: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Waiting takes longer than a token holds: an hour, unless somebody asks for more."""
    kubeflow.token, kubeflow.states = "first", ["RUNNING"]
    (tmp_path / "token").write_text("first")
    platform = submit.target(token=f"file:{tmp_path / 'token'}")
    run = platform.submit(spec, arguments, key="d1")
    kubeflow.token = "second"
    with pytest.raises(InputError, match="access is denied"):
        platform.status(run.run_id)
    (tmp_path / "token").write_text("second")
    assert platform.status(run.run_id).state == "running"
    kubeflow.token = "third"
    (tmp_path / "token").write_text("third")
    assert platform.submit(spec, arguments, key="d2").new, "a start that was turned away is sent again, once"
    assert len(kubeflow.runs) == 2


def test_the_projected_token_of_a_pod(
    submit: Submitter, kubeflow: KubeflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.token = "projected"
    (tmp_path / "token").write_text("projected")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    assert submit().new


def test_a_wrong_address(submit: Submitter, kubeflow: KubeflowServer) -> None:
    with pytest.raises(InputError, match="it is not there") as caught:
        submit(host=f"{kubeflow.host}/somewhere")
    assert caught.value.facts["parameter"] == "host"
    with pytest.raises(ServiceError, match="the server does not answer"):
        submit(host="http://127.0.0.1:9")


def test_the_namespace_of_a_profile(
    submit: Submitter, kubeflow: KubeflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.multi_user = True
    with pytest.raises(InputError, match="this Kubeflow is for several users, and no namespace is set"):
        submit()
    assert submit(namespace="team").new
    assert next(iter(kubeflow.experiments.values()))["namespace"] == "team"
    (tmp_path / "namespace").write_text("team\n")
    monkeypatch.setattr(target, "_POD_NAMESPACE", tmp_path / "namespace")
    assert not submit().new


def test_where_the_address_comes_from(monkeypatch: pytest.MonkeyPatch, submit: Submitter) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InputError, match="there is no address of Kubeflow Pipelines"):
        submit(host="")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert target._in_cluster_host() == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"


def test_nothing_is_sent_that_is_wrong(submit: Submitter, kubeflow: KubeflowServer) -> None:
    with pytest.raises(InputError, match="the pipeline names image families, and no images are set for them"):
        submit(registry="")
    with pytest.raises(InputError, match="a key that no run can have"):
        submit("no spaces")
    submit.arguments["lable"] = "late"
    with pytest.raises(InputError, match="has no parameter of this name") as caught:
        submit()
    assert caught.value.facts["hint"] == "did you mean 'label'?"
    assert not kubeflow.requests
