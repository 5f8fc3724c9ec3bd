"""One suite for every target: the same words do the same on this machine, on Kubeflow and on Vertex AI."""

import abc
import contextlib
import dataclasses
import datetime as dt
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.cloud.aiplatform_v1 import types
from google.rpc import status_pb2
from kfp import compiler, dsl

from pipeparts import catalog, compiling
from pipeparts.config import KubeflowConfig, LocalConfig, VertexConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.schedules import Schedule
from pipeparts.targets import PLATFORMS, get_target
from pipeparts.targets import kubeflow as kubeflow_module
from pipeparts.targets import vertex as vertex_module
from pipeparts.targets.base import PlannedSchedule, RemoteRun, Target
from pipeparts.targets.kubeflow import KubeflowTarget
from pipeparts.targets.local_target import LocalTarget
from pipeparts.targets.vertex import VertexTarget
from pipeparts.targets.windows import run_scheduled
from tests.targets.kubeflow_server import KubeflowServer
from tests.targets.metadata_store import OUTPUT, MetadataStore
from tests.targets.vertex_server import BUCKET, LOCATION, PROJECT, VertexServer

CLOUDS = pytest.mark.parametrize("platform", ["kubeflow", "vertex"], indirect=True)
TRAINING = catalog.PACKAGE / "pipelines" / "train_and_register" / "compiled.yaml"


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def work(folder: str, text: str, table: dsl.Output[dsl.Dataset]) -> str:
    import os
    import time

    from pipeparts.runtime.errors import DataError

    with open(os.path.join(folder, "began"), "a") as file:  # noqa: PTH123
        file.write(f"{text}\n")
    if text == "fail":
        raise DataError("the rows are not good", where="row 7")
    while text == "hold" and not os.path.exists(os.path.join(folder, "go")):  # noqa: PTH110
        time.sleep(0.05)
    with open(table.path, "w") as file:  # noqa: PTH123
        file.write(text)
    table.metadata["rows"] = 3
    return text


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def after(text: str) -> str:
    return f"after {text}"


@dsl.pipeline(name="shared-suite")
def shared_suite(folder: str, text: str = "a", options: dict = {}):  # noqa: B006
    worked = work(folder=folder, text=text)
    after(text=worked.outputs["Output"])


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("suite") / "suite.yaml"
    compiler.Compiler().compile(shared_suite, str(path))
    return compiling.read_yaml(path)


class Platform(abc.ABC):
    """A target, and what a test does behind its back.

    Attributes:
        target: The target.
        folder: Where steps of a local run leave their marks.
    """

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder

    def another(self) -> Target:
        """The same platform, as another process sees it."""
        return type(self.target)(self.target._config)  # type: ignore[attr-defined, call-arg]

    @abc.abstractmethod
    def started(self) -> int:
        """How many runs have been started."""

    @abc.abstractmethod
    def hold(self) -> str:
        """The text with which a run goes on until it is let go."""

    @abc.abstractmethod
    def release(self) -> None:
        """Lets it go."""

    @abc.abstractmethod
    def failing(self) -> tuple[str, str]:
        """The text with which a run fails, and a part of what it says then."""

    @abc.abstractmethod
    def tasks(self) -> None:
        """Lets the platform tell of the tasks."""

    @abc.abstractmethod
    def gave(self, run: RemoteRun) -> None:
        """Lets the platform tell of what a run gave, where it keeps that apart."""


class Local(Platform):
    def started(self) -> int:
        began = self.folder / "began"
        return len(began.read_text().splitlines()) if began.exists() else 0

    def hold(self) -> str:
        return "hold"

    def release(self) -> None:
        (self.folder / "go").touch()

    def failing(self) -> tuple[str, str]:
        return "fail", "the rows are not good"

    def tasks(self) -> None:
        pass

    def gave(self, run: RemoteRun) -> None:
        pass


class Kubeflow(Platform):
    def __init__(self, target: Target, folder: Path, server: KubeflowServer) -> None:
        super().__init__(target, folder)
        self.server = server

    def started(self) -> int:
        return len(self.server.runs)

    def hold(self) -> str:
        self.server.states = ["RUNNING"]
        return "a"

    def release(self) -> None:
        self.server.states = ["SUCCEEDED"]

    def failing(self) -> tuple[str, str]:
        self.server.states, self.server.error = ["RUNNING", "FAILED"], "the rows are not good"
        return "a", "the rows are not good"

    def tasks(self) -> None:
        begin, end = "2013-09-01T00:01:00Z", "2013-09-01T00:02:00Z"
        self.server.tasks = [
            {"display_name": "shared-suite-x7k2l", "state": "SUCCEEDED", "start_time": begin},  # the workflow itself
            {"display_name": "root", "state": "SUCCEEDED", "start_time": begin},
            {"display_name": "executor", "state": "SUCCEEDED", "start_time": begin},
            {"display_name": "after", "state": "SUCCEEDED", "start_time": end, "end_time": end},
            {"display_name": "work-driver", "state": "SUCCEEDED", "start_time": begin},
            {"display_name": "work", "state": "SUCCEEDED", "start_time": begin, "end_time": end},
        ]

    def gave(self, run: RemoteRun) -> None:
        step = {"display_name": "work", "task_name": "work", "inputs": {"text": "a"}, "outputs": {"Output": "a"}}
        self.server.store = MetadataStore(
            contexts={run.run_id: 3},
            executions={1: ("system.DAGExecution", {"task_name": ""}), 2: ("system.ContainerExecution", step)},
            events=[(9, 2, OUTPUT, "table")],
            artifacts={9: ("system.Dataset", "minio://b/table", {"rows": 3.0, "display_name": "table"})},
        )


class Vertex(Platform):
    def __init__(self, target: Target, folder: Path, server: VertexServer) -> None:
        super().__init__(target, folder)
        self.server = server

    def started(self) -> int:
        return len(self.server.jobs)

    def hold(self) -> str:
        self.server.states = ["PIPELINE_STATE_RUNNING"]
        return "a"

    def release(self) -> None:
        self.server.states = ["PIPELINE_STATE_SUCCEEDED"]

    def failing(self) -> tuple[str, str]:
        self.server.states = ["PIPELINE_STATE_RUNNING", "PIPELINE_STATE_FAILED"]
        self.server.error = "the rows are not good"
        return "a", "the rows are not good"

    def gave(self, run: RemoteRun) -> None:
        pass  # it is a part of the tasks

    def tasks(self) -> None:
        begin = dt.datetime(2013, 9, 1, 0, 1, tzinfo=dt.UTC)
        end = begin + dt.timedelta(minutes=1)
        done = types.PipelineTaskDetail.State.SUCCEEDED
        table = types.Artifact(uri="gs://b/table", schema_title="system.Dataset", metadata={"rows": 3})
        lists = types.PipelineTaskDetail.ArtifactList
        self.server.tasks = [
            types.PipelineTaskDetail(task_id=1, task_name="shared-suite-k1", state=done),
            types.PipelineTaskDetail(
                task_id=3, task_name="after", parent_task_id=1, state=done, start_time=end, end_time=end
            ),
            types.PipelineTaskDetail(
                task_id=2,
                task_name="work",
                parent_task_id=1,
                state=done,
                start_time=begin,
                end_time=end,
                outputs={"table": lists(artifacts=[table])},
                execution=types.Execution(metadata={"output:Output": "a", "input:text": "a"}),
                error=status_pb2.Status(),
            ),
        ]


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    (tmp_path / "marks").mkdir()
    quick: dict[str, Any] = {"poll_seconds": 0.02, "request_seconds": 10.0, "registry": "registry.example/team"}
    if request.param == "local":
        target = LocalTarget(LocalConfig(root=tmp_path / "root", stop_seconds=3))
        local = Local(target, tmp_path / "marks")
        yield local
        local.release()
        for run in target.runs(limit=100):
            target.cancel(run.run_id)
    elif request.param == "kubeflow":
        server: KubeflowServer = request.getfixturevalue("kubeflow")
        monkeypatch.setattr(kubeflow_module, "_LOOK_AGAIN_SECONDS", (0.0, 0.05))
        monkeypatch.setenv("HOME", "/nowhere")
        yield Kubeflow(KubeflowTarget(KubeflowConfig(host=server.host, **quick)), tmp_path / "marks", server)
    else:
        cloud: VertexServer = request.getfixturevalue("vertex")
        monkeypatch.setattr(vertex_module, "_ATTEMPT_PAUSES", (0.0, 0.05))
        config = VertexConfig(
            project=PROJECT,
            location=LOCATION,
            pipeline_root=f"gs://{BUCKET}/root",
            endpoint=cloud.endpoint,
            **quick,
        )
        yield Vertex(VertexTarget(config), tmp_path / "marks", cloud)


Start = Callable[..., RemoteRun]


@pytest.fixture
def start(platform: Platform, spec: dict[str, Any]) -> Start:
    def begin(key: str = "k1", text: str = "a", **more: Any) -> RemoteRun:
        return platform.target.submit(spec, {"folder": str(platform.folder), "text": text, **more}, key=key)

    return begin


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


# --- Runs -----------------------------------------------------------------------------------------------------------


def test_the_factory_knows_every_platform() -> None:
    for name in PLATFORMS:
        overrides = {} if name != "vertex" else {"project": "p", "location": "l", "pipeline_root": "gs://b"}
        assert get_target(name, overrides=overrides, environ={}).platform == name
    with pytest.raises(InputError, match="no platform of this name") as caught:
        get_target("vertx")
    assert caught.value.facts["hint"] == "did you mean 'vertex'?"


@pytest.mark.slow
def test_a_run_from_its_start_to_its_end(platform: Platform, start: Start) -> None:
    platform.tasks()
    text = platform.hold()
    run = start(text=text)
    assert (run.platform, run.pipeline, run.key, run.new) == (platform.target.platform, "shared-suite", "k1", True)
    assert run.state == "running"
    until(lambda: platform.started() == 1)
    assert platform.another().status(run.run_id).state == "running"
    platform.release()
    seen: list[RemoteRun] = []
    ended = platform.target.wait(run, seen.append)
    assert ended.state == "succeeded"
    assert ended.run_id == run.run_id
    assert seen[-1].state == "succeeded"
    assert [task.name for task in ended.tasks] == ["work", "after"]
    assert {task.state for task in ended.tasks} == {"succeeded"}
    for task in ended.tasks:
        assert dt.datetime.fromisoformat(task.started) <= dt.datetime.fromisoformat(task.ended)
    assert dt.datetime.fromisoformat(ended.started).tzinfo is not None
    assert ended.ended
    assert ended.link


@pytest.mark.slow
def test_a_key_runs_once(platform: Platform, start: Start) -> None:
    text = platform.hold()
    first = start(text=text)
    second = start(text=text)
    assert second.run_id == first.run_id
    assert (first.new, second.new) == (True, False)
    platform.release()
    assert platform.target.wait(first).state == "succeeded"
    third = start(text=text)
    assert (third.run_id, third.new, third.state) == (first.run_id, False, "succeeded")
    assert platform.started() == 1
    other = start("k2", text="b")
    assert other.new
    platform.target.wait(other)
    assert platform.started() == 2
    assert {run.run_id for run in platform.target.runs()} == {first.run_id, other.run_id}
    assert platform.target.runs(limit=1)[0].run_id == other.run_id


@pytest.mark.slow
def test_a_failure_says_why_and_the_key_may_run_again(platform: Platform, start: Start) -> None:
    text, said = platform.failing()
    run = platform.target.wait(start(text=text))
    assert run.state == "failed"
    assert said in run.error
    assert said in platform.another().status(run.run_id).error
    again = start(text=text)
    assert again.new
    assert again.run_id != run.run_id
    platform.target.wait(again)


@pytest.mark.slow
def test_a_run_is_stopped(platform: Platform, start: Start) -> None:
    run = start(text=platform.hold())
    until(lambda: platform.started() == 1)
    stopped = platform.another().cancel(run.run_id)
    assert stopped.state == "interrupted"
    assert platform.target.cancel(run.run_id).state == "interrupted", "to stop it again changes nothing"
    platform.release()
    assert platform.target.wait(platform.target.status(run.run_id)).state == "interrupted"


@pytest.mark.slow
def test_what_a_run_gave(platform: Platform, start: Start) -> None:
    platform.tasks()
    run = platform.target.wait(start(text="a"))
    platform.gave(run)
    found = {(each.task, each.name): each for each in platform.target.outputs(run.run_id)}
    table = found["work", "table"]
    assert str(table.value).endswith("table")
    assert table.type == "system.Dataset"
    assert table.metadata["rows"] == 3
    assert (found["work", "Output"].value, found["work", "Output"].type) == ("a", "")


def test_what_is_wrong_is_said_before_anything_is_sent(platform: Platform, start: Start, spec: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="has no parameter of this name") as caught:
        start(txt="a")
    assert caught.value.facts["hint"] == "did you mean 'text'?"
    with pytest.raises(InputError, match="has a value of the wrong type"):
        start(options="many")
    with pytest.raises(InputError, match="needs a parameter that was not given"):
        platform.target.submit(spec, {}, key="k1")
    with pytest.raises(InputError, match="a key that no run can have"):
        start("no key")
    assert platform.started() == 0


def test_a_run_that_is_not_there(platform: Platform, start: Start) -> None:
    with pytest.raises(InputError) as caught:
        platform.target.status("nothing-of-the-kind")
    assert caught.value.facts["parameter"] == "run", "and not the address, which is right"
    with pytest.raises(InputError):
        platform.target.cancel("nothing-of-the-kind")
    with pytest.raises(InputError):
        platform.target.outputs("nothing-of-the-kind")


def test_what_would_not_run_there_is_found(platform: Platform, spec: dict[str, Any]) -> None:
    assert [f for f in platform.target.check(spec) if f.severity == "error"] == []
    bad = compiling.resolve_images(spec, {"data": "registry.example/a:1"})
    bad["deploymentSpec"]["executors"]["exec-work"]["container"]["env"] = [
        {"name": "PASSWORD", "value": "hunter2hunter2"}
    ]
    assert "P4" in {f.rule.id for f in platform.target.check(bad)}
    assert "P4" not in {f.rule.id for f in platform.target.check(bad, ignore=["P4"])}


# --- Schedules ------------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(platform: Platform, spec: dict[str, Any]) -> PlannedSchedule:
    arguments = {"folder": str(platform.folder), "text": "a"}
    return PlannedSchedule("nightly", spec, arguments, Schedule(cron="30 5 * * *"))


def test_a_schedule_from_its_making_to_its_end(platform: Platform, planned: PlannedSchedule) -> None:
    target = platform.target
    assert target.schedules() == []
    made = target.schedule(planned)
    assert (made.name, made.cron, made.time_zone, made.state) == ("nightly", "30 5 * * *", "UTC", "active")
    assert (made.pipeline, made.change) == ("shared-suite", "created")
    assert target.schedule(planned).change == "unchanged"
    (listed,) = platform.another().schedules()
    assert dataclasses.replace(listed, change="created") == made
    later = dataclasses.replace(planned, schedule=Schedule(cron="0 6 * * 1"))
    replaced = target.schedule(later)
    assert (replaced.cron, replaced.change) == ("0 6 * * 1", "replaced")
    assert [each.cron for each in target.schedules()] == ["0 6 * * 1"]
    assert target.pause("nightly").state == "paused"
    assert [each.state for each in platform.another().schedules()] == ["paused"]
    assert target.resume("nightly").state == "active"
    assert [each.state for each in target.schedules()] == ["active"]
    assert target.unschedule("nightly").change == "deleted"
    assert target.schedules() == []
    with pytest.raises(InputError, match="there is no schedule of this name"):
        target.unschedule("nightly")


def test_a_schedule_can_be_made_to_wait(platform: Platform, planned: PlannedSchedule) -> None:
    platform.target.schedule(dataclasses.replace(planned, paused=True))
    (listed,) = platform.target.schedules()
    assert listed.state == "paused"
    with pytest.raises(InputError, match="there is no schedule of this name") as caught:
        platform.target.resume("nightli")
    assert caught.value.facts["hint"] == "did you mean 'nightly'?"


@CLOUDS
def test_a_changed_setting_changes_the_schedule(platform: Platform, planned: PlannedSchedule) -> None:
    """A release with other images must reach what is scheduled, though the pipeline is the same."""
    target = platform.target
    assert target.schedule(planned).change == "created"
    config = target._config.model_copy(update={"registry": "registry.example/next"})  # type: ignore[attr-defined]
    later = type(target)(config)
    assert later.schedule(planned).change == "replaced"
    assert later.schedule(planned).change == "unchanged"
    assert schedules_of(platform) == 1
    if isinstance(platform, Kubeflow):
        (stored,) = platform.server.recurring.values()
        assert "registry.example/next" in json.dumps(stored["pipeline_spec"])
    else:
        assert isinstance(platform, Vertex)
        (job,) = platform.server.schedules.values()
        assert "registry.example/next" in str(job.create_pipeline_job_request)


def test_a_paused_schedule_stays_so_when_it_is_changed(platform: Platform, planned: PlannedSchedule) -> None:
    platform.target.schedule(planned)
    platform.target.pause("nightly")
    later = dataclasses.replace(planned, schedule=Schedule(cron="0 6 * * 1"))
    changed = platform.target.schedule(later)
    assert (changed.change, changed.state) == ("replaced", "paused")
    (listed,) = platform.another().schedules()
    assert (listed.cron, listed.state) == ("0 6 * * 1", "paused")
    assert platform.target.resume("nightly").state == "active"
    assert platform.target.schedule(planned).state == "active"
    assert [each.state for each in platform.target.schedules()] == ["active"]


def test_sunday_is_a_day_everywhere(platform: Platform, planned: PlannedSchedule) -> None:
    made = platform.target.schedule(dataclasses.replace(planned, schedule=Schedule(cron="0 6 * * 5-7")))
    assert made.cron == ("0 6 * * 5-7" if isinstance(platform, Local) else "0 6 * * 0,5,6")
    last_friday = dataclasses.replace(planned, name="last", schedule=Schedule(cron="0 6 * * 5L"))
    if isinstance(platform, Local):
        assert platform.target.schedule(last_friday).state == "active"
        return
    with pytest.raises(InputError, match="not every platform reads this cron"):
        platform.target.schedule(last_friday)


def test_the_version_of_data_is_not_kept_by_a_schedule(platform: Platform, tmp_path: Path) -> None:
    """The first run's table would be taken from the cache for ever."""
    spec = compiling.read_yaml(TRAINING)
    arguments = {"source": "gs://bucket/flights-*.csv", "label": "late", "model_name": "late-flights"}
    reads = PlannedSchedule("nightly", spec, {**arguments, "features": {}}, Schedule(cron="30 5 * * *"))
    if isinstance(platform, Local):
        assert platform.target.schedule(reads).change == "created", "each run looks at the data"
        return
    with pytest.raises(InputError, match="the data's version would stay what it is now") as caught:
        platform.target.schedule(reads)
    assert caught.value.facts["parameter"] == "source_version"
    assert schedules_of(platform) == 0
    own = dataclasses.replace(reads, arguments={**reads.arguments, "source_version": "of-september"})
    assert platform.target.schedule(own).change == "created"


def test_a_wrong_schedule_is_refused(platform: Platform, planned: PlannedSchedule) -> None:
    wrong = dataclasses.replace(planned, arguments={**planned.arguments, "txt": "a"})
    with pytest.raises(InputError, match="has no parameter of this name"):
        platform.target.schedule(wrong)
    assert platform.target.schedules() == []


def test_parameters_that_name_the_window(platform: Platform, planned: PlannedSchedule) -> None:
    windowed = dataclasses.replace(planned, arguments={**planned.arguments, "text": "{start:%Y-%m}"})
    if isinstance(platform, Local):
        assert platform.target.schedule(windowed).change == "created"
        return
    with pytest.raises(InputError, match="this one names the window") as caught:
        platform.target.schedule(windowed)
    assert caught.value.facts["parameter"] == "text"
    with pytest.raises(InputError, match="a pipeline that its step can read"):
        run_scheduled(platform.target, windowed, pipeline="suite.yaml")
    through = run_scheduled(platform.target, windowed, pipeline="predict_batch")
    assert platform.target.schedule(through).pipeline == "run-scheduled"
    assert through.arguments["parameters"]["text"] == "{start:%Y-%m}"
    settings = through.arguments["settings"]
    assert settings["registry"] == "registry.example/team"
    assert not {"token", "password", "host", "project"} & set(settings)


# --- Faults ---------------------------------------------------------------------------------------------------------

Code = grpc.StatusCode
#: The same fault, in the words of both: HTTP's status and gRPC's code.
LOST = [(0, Code.UNAVAILABLE), (429, Code.RESOURCE_EXHAUSTED), (500, Code.INTERNAL), (503, Code.UNAVAILABLE)]
DENIED = [(401, Code.UNAUTHENTICATED), (403, Code.PERMISSION_DENIED)]


def break_(platform: Platform, http: str, method: str, status: int, code: grpc.StatusCode, **how: Any) -> None:
    if isinstance(platform, Kubeflow):
        platform.server.fail(http, status, **how)
    else:
        assert isinstance(platform, Vertex)
        platform.server.fail(method, code, **how)


def schedules_of(platform: Platform) -> int:
    if isinstance(platform, Kubeflow):
        return len(platform.server.recurring)
    assert isinstance(platform, Vertex)
    return len(platform.server.schedules)


@CLOUDS
@pytest.mark.parametrize(("status", "code"), LOST)
def test_a_lost_answer_makes_no_second_schedule(
    platform: Platform, planned: PlannedSchedule, status: int, code: grpc.StatusCode
) -> None:
    break_(platform, r"POST .*/recurringruns$", "CreateSchedule", status, code, served=True)
    made = platform.target.schedule(planned)
    assert made.name == "nightly"
    assert schedules_of(platform) == 1
    assert platform.target.schedule(planned).change == "unchanged"
    assert schedules_of(platform) == 1


@CLOUDS
@pytest.mark.parametrize(("status", "code"), LOST)
def test_a_lost_answer_makes_no_second_run(
    platform: Platform, start: Start, status: int, code: grpc.StatusCode
) -> None:
    platform.hold()
    break_(platform, r"POST .*/runs$", "CreatePipelineJob", status, code, served=True)
    assert start().new
    assert platform.started() == 1
    assert not start().new
    assert platform.started() == 1


@pytest.mark.parametrize("platform", ["kubeflow"], indirect=True)
@pytest.mark.parametrize("cut", ["request", "answer"])
def test_a_connection_that_is_cut_half_way(
    platform: Platform, start: Start, planned: PlannedSchedule, cut: str
) -> None:
    assert isinstance(platform, Kubeflow)
    platform.hold()
    made = cut == "answer"
    platform.server.fail(r"POST .*/runs$", served=made, cut=cut)
    platform.server.fail(r"POST .*/recurringruns$", served=made, cut=cut)
    if made:
        run = start()
        assert run.new
        assert platform.target.schedule(planned).name == "nightly"
    else:
        for call in (start, lambda: platform.target.schedule(planned)):
            with pytest.raises(ServiceError, match="the server does not answer"):
                call()
        assert platform.started() == schedules_of(platform) == 0
        run = start()
        platform.target.schedule(planned)
    for request in (r"GET .*/runs/", r"GET .*/runs$", r"GET .*/recurringruns$", r":terminate$", r":disable$"):
        platform.server.fail(request, served=made, cut=cut)
    assert platform.target.status(run.run_id).state == "running"
    assert not start().new
    assert len(platform.target.schedules()) == 1
    assert platform.target.pause("nightly").state == "paused"
    assert platform.target.cancel(run.run_id).state == "interrupted"
    assert all(fault.times == 0 for fault in platform.server.faults), "each fault was met"
    assert platform.started() == schedules_of(platform) == 1


@CLOUDS
@pytest.mark.slow
def test_a_platform_that_keeps_silent_makes_one_schedule(platform: Platform, planned: PlannedSchedule) -> None:
    hasty = type(platform.target)(platform.target._config.model_copy(update={"request_seconds": 2.0}))  # type: ignore[attr-defined, call-arg]
    assert hasty.schedules() == []
    break_(platform, r"POST .*/recurringruns$", "CreateSchedule", 0, Code.UNAVAILABLE, served=True, hang_seconds=4.0)
    with contextlib.suppress(ServiceError):
        hasty.schedule(planned)
    until(lambda: schedules_of(platform) == 1)
    assert platform.target.schedule(planned).change == "unchanged"
    assert schedules_of(platform) == 1


@CLOUDS
def test_a_platform_that_says_when_to_come_back(
    platform: Platform, start: Start, planned: PlannedSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(seconds))
    platform.hold()
    for http, method in ((r"POST .*/runs$", "CreatePipelineJob"), (r"POST .*/recurringruns$", "CreateSchedule")):
        how = {"retry_after": "7"} if isinstance(platform, Kubeflow) else {"retry_seconds": 7}
        break_(platform, http, method, 429, Code.RESOURCE_EXHAUSTED, **how)
    run = start()
    assert run.new
    assert platform.target.schedule(planned).change == "created"
    assert slept.count(7.0) == 2
    how = {"retry_after": "86400"} if isinstance(platform, Kubeflow) else {"retry_seconds": 86_400}
    break_(platform, r"GET .*/runs/", "GetPipelineJob", 429, Code.RESOURCE_EXHAUSTED, **how)
    assert platform.target.status(run.run_id).state == "running"
    assert max(slept) == 60.0, "not a day"
    assert platform.started() == schedules_of(platform) == 1


@CLOUDS
def test_two_processes_schedule_at_the_same_moment(
    platform: Platform, planned: PlannedSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look before either has made one, and each sees both when it cleans up: one must be left."""
    both, thread = threading.Barrier(2, timeout=30), threading.local()
    service = platform.target._server if isinstance(platform, Kubeflow) else platform.target._service  # type: ignore[attr-defined]
    names = ("create_recurring", "recurring") if isinstance(platform, Kubeflow) else ("create_schedule", "schedules")
    make, look = (getattr(type(service), name) for name in names)

    def slow_make(self: Any, *args: Any, **how: Any) -> Any:
        both.wait()
        thread.blind = True  # Vertex looks once more before it makes one
        made = make(self, *args, **how)
        thread.blind = False
        both.wait()
        return made

    monkeypatch.setattr(type(service), names[0], slow_make)
    monkeypatch.setattr(
        type(service), names[1], lambda self, *name: [] if getattr(thread, "blind", False) else look(self, *name)
    )
    others = [platform.another(), platform.another()]
    with futures.ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda target: target.schedule(planned), others))
    assert schedules_of(platform) == 1
    assert {each.schedule_id for each in made} == {platform.another().schedules()[0].schedule_id}


@CLOUDS
@pytest.mark.parametrize(("status", "code"), DENIED)
def test_access_that_is_denied_is_said_so(
    platform: Platform, start: Start, planned: PlannedSchedule, status: int, code: grpc.StatusCode
) -> None:
    break_(platform, r"POST .*/runs$", "CreatePipelineJob", status, code)
    with pytest.raises(InputError, match="access is denied"):
        start()
    break_(platform, r"POST .*/recurringruns$", "CreateSchedule", status, code)
    with pytest.raises(InputError, match=r"cannot make the schedule on .*: access is denied"):
        platform.target.schedule(planned)
    break_(platform, r"GET .*/recurringruns$", "ListSchedules", status, code)
    with pytest.raises(InputError, match=r"cannot list the schedules on .*: access is denied"):
        platform.target.schedules()
    assert platform.started() == schedules_of(platform) == 0


@CLOUDS
def test_a_platform_that_is_away(platform: Platform, start: Start, planned: PlannedSchedule) -> None:
    run = start()
    for http, method, call in (
        (r"GET .*/runs/", "GetPipelineJob", lambda: platform.target.status(run.run_id)),
        (r"GET .*/runs$", "ListPipelineJobs", platform.target.runs),
        (r"GET .*/recurringruns$", "ListSchedules", platform.target.schedules),
        (r"POST .*/recurringruns$", "CreateSchedule", lambda: platform.target.schedule(planned)),
    ):
        break_(platform, http, method, 503, Code.UNAVAILABLE, times=9)
        with pytest.raises(ServiceError) as caught:
            call()
        assert caught.value.retryable
        platform.server.faults.clear()  # type: ignore[attr-defined]
    assert schedules_of(platform) == 0


@CLOUDS
@pytest.mark.parametrize(("status", "code"), LOST)
def test_a_start_that_fails_says_how_to_try_again_without_a_second_run(
    platform: Platform, start: Start, status: int, code: grpc.StatusCode
) -> None:
    break_(platform, r"POST .*/runs$", "CreatePipelineJob", status, code, times=9)
    with pytest.raises(ServiceError, match="cannot start the run on") as caught:
        start()
    assert "with `--once KEY` it finds what was started all the same" in caught.value.facts["hint"]
    assert f"`pipeparts runs --target {platform.target.platform}`" in caught.value.facts["hint"]
    assert platform.started() == 0


@CLOUDS
def test_two_processes_make_one_schedule(platform: Platform, planned: PlannedSchedule) -> None:
    """Both have looked and found nothing, and both have made one: who looks next leaves one of them."""
    platform.target.schedule(planned)
    if isinstance(platform, Kubeflow):
        (known,) = platform.server.recurring.values()
        platform.server.recurring["another"] = {**known, "recurring_run_id": "another"}
    else:
        assert isinstance(platform, Vertex)
        (job,) = platform.server.schedules.values()
        twin = types.Schedule(job)
        twin.name = f"{job.name}9"
        platform.server.schedules[twin.name] = twin
    assert platform.target.schedule(planned).change == "unchanged"
    assert schedules_of(platform) == 1


def test_the_environment_of_the_tests_has_no_account_of_its_own() -> None:
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ
