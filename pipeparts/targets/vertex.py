"""Submits compiled pipelines to Vertex AI Pipelines, through Google's own client."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from pipeparts import compiling
from pipeparts.config import VertexConfig
from pipeparts.errors import InputError, PipepartsError, ServiceError
from pipeparts.submission import prepare_arguments
from pipeparts.targets.base import (
    LOOK_AT_RUN,
    START_RUN,
    Output,
    PlannedSchedule,
    RemoteRun,
    RemoteSchedule,
    RunState,
    Target,
    TaskStatus,
    check_key,
    choose_schedule,
    hint_after,
    no_such_run,
    require_schedulable,
    wait_for_end,
)
from pipeparts.targets.binding import bind_for_submission

logger = logging.getLogger(__name__)

PLATFORM = "vertex"

_LONGEST_ID = 128
#: A run that failed keeps its id; the ones after it count up.
_MOST_RUNS = 50
_ATTEMPT_PAUSES = (1.0, 4.0)
#: The longest time that the service may ask to wait before another attempt.
_LONGEST_PAUSE = 60.0
#: How long a new run may take to have its context, which an experiment needs.
_CONTEXT_SECONDS, _CONTEXT_PAUSE = 60.0, 1.0
_STATES: dict[str, RunState] = {
    "PIPELINE_STATE_SUCCEEDED": "succeeded",
    "PIPELINE_STATE_FAILED": "failed",
    "PIPELINE_STATE_CANCELLED": "interrupted",
}
_TASK_STATES = {
    "PENDING": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "cached",  # Vertex's word for a task whose outputs came from the cache
    "NOT_TRIGGERED": "skipped",
    "FAILED": "failed",
    "CANCEL_PENDING": "running",
    "CANCELLING": "running",
    "CANCELLED": "interrupted",
}
#: The settings that go into a job, beside its documents: where they change, a schedule does.
_JOB_SETTINGS = (
    "pipeline_root",
    "service_account",
    "network",
    "psc_network_attachment",
    "encryption_key",
    "labels",
)
_CONSOLE = "https://console.cloud.google.com/vertex-ai"
#: Labels of a job: what it was made of, for a schedule; and what its id was made of.
_DIGEST_LABEL, _KEY_LABEL, _PIPELINE_LABEL = "pipeparts-digest", "pipeparts-key", "pipeparts-pipeline"
#: Where Vertex keeps the values of a task's output parameters, among its execution's metadata.
_OUTPUT = "output:"


class VertexTarget(Target):
    """Vertex AI Pipelines.

    The job's id is made of the pipeline's name and the key, and Vertex gives an id away once: whoever comes second,
    and a retry whose first answer got lost, gets the job that is there. Where that one has failed or was
    stopped, the next has the same id with `-2` behind it, and so on. Schedules have ids of Vertex's own, so one is
    looked for before it is made, and again where the answer got lost.

    Args:
        config: Where and how.
    """

    platform = PLATFORM

    def __init__(self, config: VertexConfig) -> None:
        self._config = config
        self._service = _Service(config)

    @override
    def step_settings(self) -> dict[str, Any]:
        return self._config.model_dump(mode="json", exclude_defaults=True, exclude={"project", "location"})

    @override
    def compile(self, spec: compiling.Spec) -> list[compiling.Spec]:
        return bind_for_submission(spec, self._config).documents

    def _bind(self, spec: compiling.Spec) -> compiling.Spec:
        """The one document, as something is about to be made of it: it is said what is left out."""
        bound = bind_for_submission(spec, self._config)
        for note in bound.notes:
            logger.warning("%s", note)
        return bound.spec

    @override
    def submit(self, spec: compiling.Spec, arguments: Mapping[str, Any], *, key: str) -> RemoteRun:
        check_key(key)
        arguments = prepare_arguments(spec, arguments)
        document = self._bind(spec)
        pipeline = document["pipelineInfo"]["name"]
        service = self._service
        if self._config.experiment:
            service.require_experiment()
        for number in range(1, _MOST_RUNS + 1):
            identifier = job_id(pipeline, key, number)
            new = service.create(identifier, f"{pipeline}-{key}", document, arguments, key)
            job = service.get(identifier)
            if new or _state(job) in ("running", "succeeded"):
                break
            logger.info("job %s has %s: starting another", identifier, _state(job))
        else:
            raise ServiceError(
                "every run of this key has failed",
                parameter="key",
                allowed=f"{_MOST_RUNS} runs at most",
                received=key,
                hint="see why they failed, then take another key",
            )
        if self._config.experiment:
            service.join_experiment(identifier)
        return dataclasses.replace(service.describe(job, pipeline=pipeline, key=key), new=new)

    @override
    def status(self, run_id: str) -> RemoteRun:
        return self._service.describe(self._service.get(run_id))

    @override
    def wait(self, run: RemoteRun, watch: Callable[[RemoteRun], None] | None = None) -> RemoteRun:
        def look() -> RemoteRun:
            job = self._service.get(run.run_id)
            return dataclasses.replace(self._service.describe(job, pipeline=run.pipeline, key=run.key), new=run.new)

        return wait_for_end(
            run,
            look,
            poll_seconds=self._config.poll_seconds,
            timeout_seconds=self._config.wait_seconds,
            watch=watch,
        )

    @override
    def cancel(self, run_id: str) -> RemoteRun:
        run = self.status(run_id)
        if run.state != "running":
            return run
        self._service.cancel(run_id)
        return self.status(run_id)

    @override
    def outputs(self, run_id: str) -> list[Output]:
        found: list[Output] = []
        for task in _tasks_of(self._service.get(run_id)):
            for name, artifacts in sorted(task.outputs.items()):
                found += [
                    Output(task.task_name, name, each.uri, each.schema_title, dict(each.metadata or {}))
                    for each in artifacts.artifacts
                ]
            values = dict(task.execution.metadata or {}) if task.execution else {}
            found += [
                Output(task.task_name, name.removeprefix(_OUTPUT), value)
                for name, value in sorted(values.items())
                if name.startswith(_OUTPUT)
            ]
        return found

    @override
    def runs(self, *, limit: int = 20) -> list[RemoteRun]:
        jobs = self._service.newest(limit)
        return [dataclasses.replace(self._service.describe(job), tasks=()) for job in jobs]

    @override
    def schedule(self, planned: PlannedSchedule) -> RemoteSchedule:
        planned = require_schedulable(planned)
        arguments = prepare_arguments(planned.spec, planned.arguments)
        document = self._bind(planned.spec)
        settings = self._config.model_dump(mode="json", include=set(_JOB_SETTINGS))
        digest = planned.digest(document, arguments, settings)
        service = self._service
        found = service.schedules(planned.name)
        if found and _digest_of(found[0]) == digest:
            kept, change = found[0], "unchanged"
        elif found:
            kept, change = service.update_schedule(found[0].name, planned, digest, document, arguments), "replaced"
        else:
            kept, change = service.create_schedule(planned, digest, document, arguments), "created"
        # Two processes at the same moment: the first one's stays, the one that both of them see.
        first, *others = service.schedules(planned.name) or [kept]
        if first.name != kept.name:
            kept = service.update_schedule(first.name, planned, digest, document, arguments)
        for other in others:
            service.delete_schedule(other.name)
        return service.describe_schedule(kept, change)

    @override
    def schedules(self) -> list[RemoteSchedule]:
        found = (self._service.describe_schedule(each) for each in self._service.schedules())
        return sorted(found, key=lambda each: each.name)

    @override
    def pause(self, name: str) -> RemoteSchedule:
        schedule = choose_schedule(name, self.schedules(), where=self._service.where)
        self._service.pause_schedule(schedule.schedule_id)
        return dataclasses.replace(schedule, state="paused", change="paused")

    @override
    def resume(self, name: str) -> RemoteSchedule:
        schedule = choose_schedule(name, self.schedules(), where=self._service.where)
        self._service.resume_schedule(schedule.schedule_id)
        return dataclasses.replace(schedule, state="active", change="resumed")

    @override
    def unschedule(self, name: str) -> RemoteSchedule:
        schedule = choose_schedule(name, self.schedules(), where=self._service.where)
        for each in self._service.schedules(name):
            self._service.delete_schedule(each.name)
        return dataclasses.replace(schedule, state="ended", change="deleted")


def job_id(pipeline: str, key: str, number: int = 1) -> str:
    """The id of a key's job: small letters, digits and hyphens, 128 at most.

    Where a key has to be changed to fit, a hash of it keeps apart what would become the same.
    """
    wanted = f"{pipeline}-{key}"
    name = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
    if not name[:1].isalpha():
        name = f"run-{name}"
    if name != wanted or len(name) > _LONGEST_ID - 4:
        name = f"{name[: _LONGEST_ID - 14]}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    return name if number == 1 else f"{name}-{number}"


class _Service:
    """Vertex's pipeline and schedule services, with this library's errors."""

    def __init__(self, config: VertexConfig) -> None:
        self._config = config
        self._parent = f"projects/{config.project}/locations/{config.location}"
        self.where = f"project {config.project}, location {config.location}"

    @functools.cached_property
    def _jobs(self) -> Any:
        from google.cloud.aiplatform import initializer, utils

        self._init()
        return initializer.global_config.create_client(client_class=utils.PipelineJobClientWithOverride)

    @functools.cached_property
    def _schedules(self) -> Any:
        from google.cloud.aiplatform import initializer, utils

        self._init()
        return initializer.global_config.create_client(client_class=utils.ScheduleClientWithOverride)

    @functools.cached_property
    def _metadata(self) -> Any:
        from google.cloud.aiplatform import initializer, utils

        self._init()
        return initializer.global_config.create_client(client_class=utils.MetadataClientWithOverride)

    def _init(self) -> None:
        from google.cloud import aiplatform

        # The only way to set the address, and it belongs to the process: one command talks to one place.
        aiplatform.init(
            project=self._config.project,
            location=self._config.location,
            api_endpoint=self._config.endpoint or None,
        )

    def create(self, identifier: str, name: str, spec: compiling.Spec, arguments: Mapping[str, Any], key: str) -> bool:
        """Starts a job; false where another call has made one with this id."""
        from google.api_core import exceptions

        with self._talking(START_RUN):
            job = self._job(name, spec, arguments, {_KEY_LABEL: _label(key)})
            try:
                self._again(
                    lambda: self._jobs.create_pipeline_job(
                        parent=self._parent,
                        pipeline_job=job,
                        pipeline_job_id=identifier,
                        timeout=self._config.request_seconds,
                    ),
                    # Safe to try again: a job that was made all the same has the id.
                    found=lambda error, lost: isinstance(error, exceptions.AlreadyExists) and lost,
                )
            except exceptions.AlreadyExists:
                return False
        return True

    def _again(self, call: Callable[[], Any], *, found: Callable[[Exception, bool], Any]) -> Any:
        """Calls, and calls again where no answer came; `found` says of an error whether the first call did it."""
        from google.api_core import exceptions

        lost = False
        for pause in (*_ATTEMPT_PAUSES, None):
            try:
                return call()
            except exceptions.GoogleAPICallError as error:
                if answer := found(error, lost):
                    return answer
                # Safe to try again where nobody has answered: what was made all the same is found.
                if not isinstance(error, (exceptions.ServerError, exceptions.TooManyRequests)) or pause is None:
                    raise
                lost = True
                logger.warning("Vertex AI did not answer, trying again: %s", error.message)
                time.sleep(max(pause, _asked_to_wait(error)))
        raise AssertionError

    def _read(self, call: Callable[[], Any]) -> Any:
        """Calls what changes nothing, and again where no answer came."""
        return self._again(call, found=lambda error, lost: None)

    def _job(self, name: str, spec: compiling.Spec, arguments: Mapping[str, Any], labels: Mapping[str, str]) -> Any:
        """The message to send.

        `PipelineJob.submit` is not used: it first asks whose the bucket is, and makes one that is not there, for
        which a submitter would need rights on storage and on the project.
        """
        from google.cloud import aiplatform, aiplatform_v1

        config = self._config
        self._init()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.json"
            path.write_text(json.dumps(spec), encoding="utf-8")
            job = aiplatform.PipelineJob(
                display_name=name[:_LONGEST_ID],
                template_path=str(path),
                pipeline_root=config.pipeline_root,
                parameter_values=dict(arguments),
                project=config.project,
                location=config.location,
            )
        message = aiplatform_v1.PipelineJob(
            display_name=name[:_LONGEST_ID],
            pipeline_spec=job.pipeline_spec,
            runtime_config=job.runtime_config,
            service_account=config.service_account,
            network=config.network,
            labels={**config.labels, **labels, _PIPELINE_LABEL: _label(spec["pipelineInfo"]["name"])},
        )
        if config.psc_network_attachment:
            message.psc_interface_config = aiplatform_v1.PscInterfaceConfig(
                network_attachment=config.psc_network_attachment
            )
        if config.encryption_key:
            message.encryption_spec = aiplatform_v1.EncryptionSpec(kms_key_name=config.encryption_key)
        return message

    def get(self, identifier: str) -> Any:
        """A job as it stands."""
        path = self._path(identifier)
        with self._talking(LOOK_AT_RUN):
            return self._read(lambda: self._jobs.get_pipeline_job(name=path, timeout=self._config.request_seconds))

    @property
    def _experiment(self) -> str:
        return f"{self._parent}/metadataStores/default/contexts/{self._config.experiment}"

    def require_experiment(self) -> None:
        """Looks whether the experiment is there, before a run is started that is to be a part of it."""
        with self._talking(f"find the experiment {self._config.experiment!r}"):
            self._read(lambda: self._metadata.get_context(name=self._experiment, timeout=self._config.request_seconds))

    def join_experiment(self, identifier: str) -> None:
        """Makes a job's run a part of the experiment, as PipelineJob.submit(experiment=...) does.

        Done twice it changes nothing. Vertex AI makes the context of a run a moment after the run.
        """
        deadline = time.monotonic() + _CONTEXT_SECONDS
        job = self.get(identifier)
        while not job.job_detail.pipeline_run_context.name and _state(job) == "running":
            if time.monotonic() >= deadline:
                logger.warning("run %s has no context yet: it is not in the experiment", identifier)
                return
            time.sleep(_CONTEXT_PAUSE)
            job = self.get(identifier)
        context = job.job_detail.pipeline_run_context.name
        if not context:
            logger.warning("run %s ended without a context: it is not in the experiment", identifier)
            return
        with self._talking(f"put the run into the experiment {self._config.experiment!r}"):
            self._again(
                lambda: self._metadata.add_context_children(
                    context=self._experiment,
                    child_contexts=[context],
                    timeout=self._config.request_seconds,
                ),
                found=lambda error, lost: None,
            )

    def cancel(self, identifier: str) -> None:
        """Asks a job to stop."""
        with self._talking("stop the run"):
            path = self._path(identifier)
            self._read(lambda: self._jobs.cancel_pipeline_job(name=path, timeout=self._config.request_seconds))

    def newest(self, limit: int) -> list[Any]:
        """The newest jobs; 0 for all."""
        from google.cloud import aiplatform_v1

        request = aiplatform_v1.ListPipelineJobsRequest(
            parent=self._parent, page_size=min(limit or 100, 100), order_by="create_time desc"
        )

        def read() -> list[Any]:
            pages = self._jobs.list_pipeline_jobs(request=request, timeout=self._config.request_seconds)
            return list(itertools.islice(pages, limit or None))

        with self._talking("list the runs"):
            found: list[Any] = self._read(read)
        return found

    def describe(self, job: Any, *, pipeline: str = "", key: str = "") -> RemoteRun:
        """A job in the words of every target."""
        config, state = self._config, _state(job)
        identifier = job.name.rpartition("/")[2]
        ended = job.end_time if state != "running" else None
        if not pipeline:
            pipeline = str(_info(job).get("name", "")) or job.labels.get(_PIPELINE_LABEL, "") or job.display_name
            # The label has lost what a label cannot hold, and the display name what is beyond its end.
            key = job.display_name.removeprefix(f"{pipeline}-") if job.labels.get(_KEY_LABEL) else ""
        return RemoteRun(
            platform=PLATFORM,
            run_id=identifier,
            pipeline=pipeline,
            key=key,
            state=state,
            link=f"{_CONSOLE}/locations/{config.location}/pipelines/runs/{identifier}?project={config.project}",
            error=_error(job) if state == "failed" else "",
            started=_moment(job.create_time),
            ended=_moment(ended),
            tasks=tuple(
                TaskStatus(
                    name=task.task_name,
                    state=_TASK_STATES.get(task.state.name, "queued"),
                    started=_moment(task.start_time),
                    ended=_moment(task.end_time),
                    error=task.error.message,
                    link=self._log_of(task),
                    id=str(task.task_id),
                )
                for task in _tasks_of(job)
            ),
        )

    def _log_of(self, task: Any) -> str:
        """The page of the job that a task is carried out by; empty where there is none."""
        job = task.executor_detail.container_detail.main_job.rpartition("/")[2]
        return (
            f"{_CONSOLE}/locations/{self._config.location}/training/{job}?project={self._config.project}" if job else ""
        )

    def schedules(self, name: str = "") -> list[Any]:
        """The schedules that this library has made, of a name or all, the oldest first."""
        from google.cloud import aiplatform_v1

        wanted = f'display_name="{name}"' if name else ""
        request = aiplatform_v1.ListSchedulesRequest(parent=self._parent, filter=wanted, page_size=100)
        with self._talking("list the schedules"):
            found: list[Any] = self._read(
                lambda: list(self._schedules.list_schedules(request=request, timeout=self._config.request_seconds))
            )
        ours = [each for each in found if _digest_of(each) and (not name or each.display_name == name)]
        return sorted(ours, key=lambda each: (_moment(each.create_time), each.name))

    def create_schedule(
        self, planned: PlannedSchedule, digest: str, spec: compiling.Spec, arguments: Mapping[str, Any]
    ) -> Any:
        """Makes a schedule, or finds the one that was made where the answer got lost."""

        def found(error: Exception, lost: bool) -> Any:
            return next(iter(self.schedules(planned.name)), None) if lost else None

        def make() -> Any:
            # Where the call before got no answer, it may have been carried out.
            return next(iter(self.schedules(planned.name)), None) or self._schedules.create_schedule(
                parent=self._parent,
                schedule=self._schedule(planned, digest, spec, arguments),
                timeout=self._config.request_seconds,
            )

        with self._talking("make the schedule"):
            made = self._again(make, found=found)
            if planned.paused:
                self.pause_schedule(made.name)
                made = self._schedules.get_schedule(name=made.name, timeout=self._config.request_seconds)
        return made

    def update_schedule(
        self, name: str, planned: PlannedSchedule, digest: str, spec: compiling.Spec, arguments: Mapping[str, Any]
    ) -> Any:
        """Writes another pipeline, other parameters or other times into a schedule."""
        from google.protobuf import field_mask_pb2

        schedule = self._schedule(planned, digest, spec, arguments)
        schedule.name = name
        mask = field_mask_pb2.FieldMask(paths=["cron", "create_pipeline_job_request", "max_concurrent_run_count"])
        with self._talking("change the schedule"):
            return self._again(
                lambda: self._schedules.update_schedule(
                    schedule=schedule, update_mask=mask, timeout=self._config.request_seconds
                ),
                found=lambda error, lost: None,  # to write the same again changes nothing
            )

    def _schedule(
        self, planned: PlannedSchedule, digest: str, spec: compiling.Spec, arguments: Mapping[str, Any]
    ) -> Any:
        from google.cloud import aiplatform_v1

        job = self._job(planned.name, spec, arguments, {_DIGEST_LABEL: digest})
        return aiplatform_v1.Schedule(
            display_name=planned.name,
            cron=f"TZ={planned.schedule.time_zone} {planned.schedule.cron}",
            max_concurrent_run_count=1,
            create_pipeline_job_request=aiplatform_v1.CreatePipelineJobRequest(parent=self._parent, pipeline_job=job),
        )

    def pause_schedule(self, name: str) -> None:
        """Lets a schedule wait."""
        with self._talking("pause the schedule"):
            self._read(lambda: self._schedules.pause_schedule(name=name, timeout=self._config.request_seconds))

    def resume_schedule(self, name: str) -> None:
        """Lets a schedule go on; what it missed is not made up for."""
        with self._talking("resume the schedule"):
            self._read(lambda: self._schedules.resume_schedule(name=name, timeout=self._config.request_seconds))

    def delete_schedule(self, name: str) -> None:
        """Deletes a schedule; one that is gone already is fine."""
        from google.api_core import exceptions

        with self._talking("delete the schedule"), contextlib.suppress(exceptions.NotFound):
            operation = self._read(
                lambda: self._schedules.delete_schedule(name=name, timeout=self._config.request_seconds)
            )
            operation.result(timeout=self._config.request_seconds)

    def describe_schedule(self, schedule: Any, change: str = "") -> RemoteSchedule:
        """A schedule in the words of every target."""
        config = self._config
        zone, _, cron = schedule.cron.removeprefix("TZ=").partition(" ")
        if not schedule.cron.startswith("TZ="):
            zone, cron = "UTC", schedule.cron
        identifier = schedule.name.rpartition("/")[2]
        labels = schedule.create_pipeline_job_request.pipeline_job.labels
        return RemoteSchedule(
            platform=PLATFORM,
            name=schedule.display_name,
            schedule_id=schedule.name,
            pipeline=labels.get(_PIPELINE_LABEL, ""),
            cron=cron,
            time_zone=zone,
            state={"ACTIVE": "active", "PAUSED": "paused"}.get(schedule.state.name, "ended"),
            next_run=_moment(schedule.next_run_time) if schedule.state.name == "ACTIVE" else "",
            link=f"{_CONSOLE}/locations/{config.location}/schedules/{identifier}?project={config.project}",
            change=change,
        )

    def _path(self, identifier: str) -> str:
        if not re.fullmatch(r"[a-z][-a-z0-9]{0,127}", identifier):
            raise InputError(
                "not the id of a run on Vertex AI",
                parameter="run",
                allowed="small letters, digits and hyphens, as `pipeparts submit` and `pipeparts runs` print it",
                received=identifier,
            )
        return f"{self._parent}/pipelineJobs/{identifier}"

    @contextlib.contextmanager
    def _talking(self, what: str) -> Iterator[None]:
        try:
            yield
        except PipepartsError:
            raise
        except Exception as error:
            raise _explain(error, what, self._config) from error


def _tasks_of(job: Any) -> list[Any]:
    """The job's tasks by their start; without the one that stands for the job itself."""
    tasks = [task for task in job.job_detail.task_details if task.parent_task_id or task.task_name != "root"]
    named = [task for task in tasks if task.task_name and task.task_name != job.name.rpartition("/")[2]]
    return sorted(named, key=lambda task: (_moment(task.start_time) or "9", task.task_name))


def _info(job: Any) -> dict[str, Any]:
    return dict((job.pipeline_spec or {}).get("pipelineInfo") or {})


def _digest_of(schedule: Any) -> str:
    """What a schedule of this library says that it was made of; empty for another's."""
    return str(schedule.create_pipeline_job_request.pipeline_job.labels.get(_DIGEST_LABEL, ""))


def _asked_to_wait(error: Any) -> float:
    """How many seconds the service asks to wait before another attempt; 0 where it does not."""
    from google.rpc import error_details_pb2

    asked = [each for each in error.details or [] if isinstance(each, error_details_pb2.RetryInfo)]
    return min(float(asked[0].retry_delay.ToTimedelta().total_seconds()), _LONGEST_PAUSE) if asked else 0.0


def _label(text: str) -> str:
    """A text as the value of a label: small letters, digits, hyphens and underscores, 63 at most."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def _moment(time_: Any) -> str:
    """A time, ISO 8601; empty for none, and for the zero of a message that has not been set."""
    return str(time_.isoformat()) if time_ is not None and time_.year > 1970 else ""


def _state(job: Any) -> RunState:
    return _STATES.get(job.state.name, "running")


def _error(job: Any) -> str:
    """What Vertex says of a failure: the job's own error, and each failed task's."""
    lines = [job.error.message] if job.error.message else []
    for task in _tasks_of(job):
        if task.state.name == "FAILED":
            lines.append(f"{task.task_name}: {task.error.message or 'failed'}")
    return "\n".join(lines) or "Vertex AI does not say why"


def _explain(error: Exception, what: str, config: VertexConfig) -> PipepartsError:
    from google.api_core import exceptions
    from google.auth import exceptions as auth

    headline = f"cannot {what} on Vertex AI"
    where = f"project {config.project}, location {config.location}"
    received = " ".join(f"{type(error).__name__}: {getattr(error, 'message', None) or error}".split())
    if isinstance(error, auth.DefaultCredentialsError):
        return InputError(
            "no Google credentials were found",
            where=where,
            allowed="GOOGLE_APPLICATION_CREDENTIALS, gcloud's default login, or the account of the machine",
            received=received,
        )
    if isinstance(error, (exceptions.Unauthenticated, exceptions.PermissionDenied)):
        return InputError(
            f"{headline}: access is denied",
            where=where,
            allowed="an account with roles/aiplatform.user that may act as the service account of the run",
            received=received,
        )
    if isinstance(error, exceptions.NotFound) and what == LOOK_AT_RUN:
        return no_such_run(headline, PLATFORM, where=where, received=received)
    if isinstance(error, (exceptions.NotFound, exceptions.InvalidArgument, ValueError)):
        return InputError(headline, where=where, received=received)
    return ServiceError(headline, where=where, received=received, hint=hint_after(what, PLATFORM))
