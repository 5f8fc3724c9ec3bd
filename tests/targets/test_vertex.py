"""Submission to Vertex AI: Google's own client against the service on loopback, with what goes wrong between them."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeparts.config import VertexConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.schedules import Schedule
from pipeparts.targets import vertex as target
from pipeparts.targets.base import PlannedSchedule, RemoteRun
from tests.targets.cutter import after, cutter
from tests.targets.vertex_server import BUCKET, LOCATION, PROJECT, VertexServer

RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    f"PIPELINE_STATE_{name}" for name in ("RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")
)
Code = grpc.StatusCode


class Submitter:
    """Submits the same pipeline to the server, with settings of the test's own."""

    def __init__(self, server: VertexServer, spec: dict[str, Any], arguments: dict[str, Any]) -> None:
        self.server, self.spec, self.arguments = server, spec, arguments

    def target(self, **settings: Any) -> target.VertexTarget:
        defaults: dict[str, Any] = {
            "project": PROJECT,
            "location": LOCATION,
            "pipeline_root": f"gs://{BUCKET}/root",
            "endpoint": self.server.endpoint,
            "registry": "reg.example.org/ml",
            "poll_seconds": 0.01,
            "request_seconds": 5.0,
        }
        return target.VertexTarget(VertexConfig(**{**defaults, **settings}))

    def __call__(self, key: str = "d1", *, wait: bool = False, **settings: Any) -> RemoteRun:
        platform = self.target(**settings)
        run = platform.submit(self.spec, self.arguments, key=key)
        return platform.wait(run) if wait else run


@pytest.fixture
def submit(
    vertex: VertexServer, spec: dict[str, Any], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Submitter:
    monkeypatch.setattr(target, "_ATTEMPT_PAUSES", (0.0, 0.05))
    return Submitter(vertex, spec, arguments)


def test_a_run_is_started_with_all_that_was_said(submit: Submitter, vertex: VertexServer) -> None:
    vertex.states = [RUNNING]
    run = submit(service_account="runner@example.org")
    (job,) = vertex.jobs.values()
    assert run == RemoteRun(
        platform="vertex",
        run_id="train-and-register-d1",
        pipeline="train-and-register",
        key="d1",
        state="running",
        link="https://console.cloud.google.com/vertex-ai/locations/europe-west4/pipelines/runs/"
        f"train-and-register-d1?project={PROJECT}",
        started=run.started,
    )
    assert run.started
    assert job.name == f"projects/{PROJECT}/locations/{LOCATION}/pipelineJobs/train-and-register-d1"
    assert job.display_name == "train-and-register-d1"
    assert job.service_account == "runner@example.org"
    assert job.runtime_config.gcs_output_directory == f"gs://{BUCKET}/root"
    sent = job.runtime_config.parameter_values
    assert dict(sent["features"]) == {"carrier": "category", "temp": "numeric"}
    assert sent["seed"] == 7
    assert sent["source_version"]
    images = {e["container"]["image"] for e in job.pipeline_spec["deploymentSpec"]["executors"].values()}
    assert all(image.startswith("reg.example.org/ml/pipeparts-python-") for image in images)


def test_what_is_vertex_s_own_is_in_the_job_and_in_what_a_schedule_makes(
    submit: Submitter, vertex: VertexServer, spec: dict[str, Any], arguments: dict[str, Any]
) -> None:
    key = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"
    own: dict[str, Any] = {
        "service_account": "runner@example.org",
        "encryption_key": key,
        "labels": {"team": "flights", "cost-centre": "42"},
    }
    for number, place in enumerate(
        (
            {"network": "projects/1/global/networks/n"},
            {"psc_network_attachment": "projects/p/regions/r/networkAttachments/a"},
        )
    ):
        vertex.reset()
        platform = submit.target(**own, **place)
        platform.submit(spec, arguments, key=f"d{number}")
        schedule = Schedule(cron="0 6 * * 1", time_zone="Europe/Paris")
        platform.schedule(PlannedSchedule("nightly", spec, {**arguments, "source_version": "1"}, schedule))
        (job,), (stored,) = vertex.jobs.values(), vertex.schedules.values()
        for made in (job, stored.create_pipeline_job_request.pipeline_job):
            assert made.encryption_spec.kms_key_name == key
            assert made.service_account == "runner@example.org"
            assert own["labels"].items() <= dict(made.labels).items()
            assert made.network == place.get("network", "")
            assert made.psc_interface_config.network_attachment == place.get("psc_network_attachment", "")


def test_a_key_starts_one_run(submit: Submitter, vertex: VertexServer) -> None:
    vertex.states = [RUNNING, RUNNING, SUCCEEDED]
    first, second, third = submit(), submit(), submit()
    assert first.run_id == second.run_id == third.run_id
    assert [run.new for run in (first, second, third)] == [True, False, False]
    assert [run.state for run in (first, second, third)] == ["running", "running", "succeeded"]
    assert submit("d2").run_id == "train-and-register-d2"
    assert len(vertex.jobs) == 2


@pytest.mark.parametrize("state", [FAILED, CANCELLED])
def test_a_run_that_came_to_nothing_is_followed_by_another(submit: Submitter, vertex: VertexServer, state: str) -> None:
    vertex.states = [state]
    assert submit().run_id == "train-and-register-d1"
    assert submit().run_id == "train-and-register-d1-2"
    vertex.states = [RUNNING]
    third = submit()
    assert third.run_id == "train-and-register-d1-3"
    assert submit().run_id == third.run_id
    assert len(vertex.jobs) == 3


def test_waiting_for_the_end(submit: Submitter, vertex: VertexServer) -> None:
    vertex.states = ["PIPELINE_STATE_QUEUED", RUNNING, "PIPELINE_STATE_PAUSED", SUCCEEDED]
    assert submit(wait=True).state == "succeeded"
    vertex.states = [RUNNING, FAILED]
    vertex.error = "the gate did not pass"
    run = submit("d2", wait=True)
    assert (run.state, run.error) == ("failed", "the gate did not pass")
    vertex.states = [RUNNING]
    with pytest.raises(ServiceError, match="the run has not ended in time; it goes on"):
        submit("d3", wait=True, wait_seconds=0.1)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL, Code.UNKNOWN, Code.DEADLINE_EXCEEDED])
def test_a_lost_answer_starts_no_second_run(submit: Submitter, vertex: VertexServer, code: grpc.StatusCode) -> None:
    vertex.states = [RUNNING]
    vertex.fail("CreatePipelineJob", code, served=True)
    run = submit()
    assert run.new
    assert [job.rpartition("/")[2] for job in vertex.jobs] == ["train-and-register-d1"]
    assert not submit().new
    assert len(vertex.jobs) == 1


#: Bytes, of a request with a pipeline of 80 kB in it.
HALF_WAY = 40_000


@pytest.mark.slow
@pytest.mark.parametrize("way", ["asking", "answering"])
def test_a_connection_that_is_cut_half_way_starts_no_second_run(
    submit: Submitter, vertex: VertexServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Cut while the pipeline is sent, or when the service has made the run and begins to say so."""
    monkeypatch.setattr(target, "_ATTEMPT_PAUSES", (1.0, 4.0))
    vertex.states = [RUNNING]
    with cutter(vertex.endpoint) as between:
        platform = submit.target(endpoint=between.address, request_seconds=30.0)
        schedule = Schedule(cron="0 6 * * 1", time_zone="Europe/Paris")
        planned = PlannedSchedule("nightly", submit.spec, {**submit.arguments, "source_version": "1"}, schedule)
        calls = (
            (vertex.jobs, lambda: platform.submit(submit.spec, submit.arguments, key="d1")),
            (vertex.schedules, lambda: platform.schedule(planned)),
        )
        for number, (made, call) in enumerate(calls, start=1):
            setattr(between, way, after(HALF_WAY) if way == "asking" else lambda _, made=made: bool(made))
            call()
            assert between.cuts == number
            assert len(made) == 1
        assert not platform.submit(submit.spec, submit.arguments, key="d1").new
        assert platform.schedule(planned).change == "unchanged"
    assert len(vertex.jobs) == len(vertex.schedules) == 1


def test_a_lost_answer_and_then_silence(submit: Submitter, vertex: VertexServer) -> None:
    vertex.states = [RUNNING]
    vertex.fail("CreatePipelineJob", Code.UNAVAILABLE, served=True)
    vertex.fail("CreatePipelineJob", Code.UNAVAILABLE, times=2)
    with pytest.raises(ServiceError, match="cannot start the run on Vertex AI") as caught:
        submit()
    assert caught.value.retryable
    assert caught.value.facts["received"] == "ServiceUnavailable: fault UNAVAILABLE"
    assert not submit().new
    assert len(vertex.jobs) == 1


def test_a_service_that_keeps_silent(submit: Submitter, vertex: VertexServer) -> None:
    vertex.states = [RUNNING]
    vertex.fail("CreatePipelineJob", Code.UNAVAILABLE, served=True, hang_seconds=2)
    run = submit(request_seconds=0.5)
    assert vertex.calls.count("CreatePipelineJob") > 1, "nobody waited for the service"
    assert run.run_id == "train-and-register-d1"
    assert len(vertex.jobs) == 1


@pytest.mark.parametrize(
    ("code", "headline"),
    [
        (Code.UNAUTHENTICATED, "cannot start the run on Vertex AI: access is denied"),
        (Code.PERMISSION_DENIED, "cannot start the run on Vertex AI: access is denied"),
        (Code.NOT_FOUND, "cannot start the run on Vertex AI"),
        (Code.INVALID_ARGUMENT, "cannot start the run on Vertex AI"),
    ],
)
def test_what_no_retry_mends(submit: Submitter, vertex: VertexServer, code: grpc.StatusCode, headline: str) -> None:
    vertex.fail("CreatePipelineJob", code)
    with pytest.raises(InputError) as caught:
        submit()
    assert caught.value.headline == headline
    assert caught.value.facts["where"] == f"project {PROJECT}, location {LOCATION}"
    assert f"fault {code.name}" in caught.value.facts["received"]
    assert vertex.calls == ["CreatePipelineJob"]


def test_a_run_joins_the_experiment(submit: Submitter, vertex: VertexServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_CONTEXT_PAUSE", 0.01)
    vertex.states = [RUNNING]
    vertex.experiments["flights"] = []
    vertex.fail("AddContextChildren", Code.UNAVAILABLE, served=True)
    assert submit(experiment="flights").new
    (context,) = vertex.experiments["flights"]
    assert context.endswith("/metadataStores/default/contexts/train-and-register-d1")
    assert not submit(experiment="flights").new
    assert vertex.experiments["flights"] == [context]
    with pytest.raises(InputError, match="cannot find the experiment 'flihgts' on Vertex AI"):
        submit("d2", experiment="flihgts")
    assert len(vertex.jobs) == 1, "it is said before anything is started"


def test_a_run_without_a_context_is_no_failure(
    submit: Submitter, vertex: VertexServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(target, "_CONTEXT_SECONDS", 0.0)
    vertex.states = [RUNNING]
    vertex.experiments["flights"] = []
    assert submit(experiment="flights").new
    assert vertex.experiments["flights"] == []
    assert "it is not in the experiment" in caplog.text


def test_the_key_comes_back_as_it_was(submit: Submitter, vertex: VertexServer) -> None:
    """A label holds small letters alone; the display name keeps what was said."""
    run = submit("D1+x=2")
    found = submit.target().status(run.run_id)
    assert (found.pipeline, found.key) == ("train-and-register", "D1+x=2")


def test_another_project_and_another_bucket(submit: Submitter) -> None:
    with pytest.raises(InputError, match="access is denied"):
        submit(project="somebody-elses")
    with pytest.raises(InputError, match="cannot start the run") as caught:
        submit(pipeline_root="gs://another/root")
    assert "Invalid GCS path" in caught.value.facts["received"]


def test_no_credentials(submit: Submitter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    from google.cloud import aiplatform

    aiplatform.initializer.global_config._credentials = None
    with pytest.raises(InputError, match="no Google credentials were found"):
        submit()


def test_nothing_is_sent_that_is_wrong(submit: Submitter, vertex: VertexServer) -> None:
    with pytest.raises(InputError, match="no images are set for them"):
        submit(registry="")
    submit.arguments["seed"] = "seven"
    with pytest.raises(InputError, match="parameter 'seed' has a value of the wrong type"):
        submit()
    assert not vertex.calls


KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._=+@-]{0,127}", fullmatch=True)


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,127}", fullmatch=True), KEYS, KEYS, st.integers(1, 50))
def test_ids_of_jobs(pipeline: str, key: str, other: str, number: int) -> None:
    identifier = target.job_id(pipeline, key, number)
    assert re.fullmatch(r"[a-z][-a-z0-9]{0,127}", identifier)
    assert identifier == target.job_id(pipeline, key, number)
    assert (target.job_id(pipeline, key) == target.job_id(pipeline, other)) == (key == other)
