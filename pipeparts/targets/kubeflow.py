"""Submits compiled pipelines to Kubeflow Pipelines, through KFP's own client."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import functools
import hashlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from pipeparts import __version__, compiling
from pipeparts.config import KubeflowConfig
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
from pipeparts.targets.kubeflow_client import connect, retry_after
from pipeparts.targets.kubeflow_metadata import read_outputs

logger = logging.getLogger(__name__)

PLATFORM = "kubeflow"

_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_METADATA_IN_CLUSTER = "http://metadata-envoy-service.kubeflow.svc.cluster.local:9090"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PAGE = 100
#: Pauses before looking for a run whose creation was not answered: the server may still be at it.
_LOOK_AGAIN_SECONDS = (0.5, 2.0, 5.0)
_STATES: dict[str, RunState] = {
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "interrupted",
}
_TASK_STATES = {
    "PENDING": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "CACHED": "cached",
    "SKIPPED": "skipped",
    "FAILED": "failed",
    "CANCELING": "running",
    "CANCELED": "interrupted",
    "PAUSED": "queued",
}
_FIRST = dt.datetime.min.replace(tzinfo=dt.UTC)
_LAST = dt.datetime.max.replace(tzinfo=dt.UTC)
#: Names of what Argo runs for Kubeflow itself, where the pipeline's own names are not known.
_OF_KUBEFLOW = re.compile(r"^(root|executor)$|-driver$")
#: A recurring run of this library says so, and what it was made of, in its description.
_MARK = "pipeparts schedule "


class KubeflowTarget(Target):
    """Kubeflow Pipelines.

    A run's name is the pipeline's and the key's. Kubeflow lets several runs have one name, so runs are looked for
    before one is made, and again where the answer to that got lost; of two that were made at the same moment the
    earlier stays. Where every run of the key has failed or was stopped, another is started. Schedules are recurring
    runs, and held apart in the same way.

    Args:
        config: Where and how.
    """

    platform = PLATFORM

    def __init__(self, config: KubeflowConfig) -> None:
        self._config = config

    @functools.cached_property
    def _server(self) -> _Server:
        """The API; asked for when it is needed first, after all that can be checked here."""
        return _Server(self._config)

    @override
    def step_settings(self) -> dict[str, Any]:
        return self._config.model_dump(
            mode="json",
            exclude_defaults=True,
            exclude={"host", "metadata_host", "token", "username", "password", "ca_cert"},
        )

    @override
    def compile(self, spec: compiling.Spec) -> list[compiling.Spec]:
        return bind_for_submission(spec, self._config).documents

    @override
    def submit(self, spec: compiling.Spec, arguments: Mapping[str, Any], *, key: str) -> RemoteRun:
        check_key(key)
        arguments = prepare_arguments(spec, arguments)
        documents = self.compile(spec)
        pipeline = spec["pipelineInfo"]["name"]
        name = f"{pipeline}-{key}"
        found, new = self._server.living(name), False
        if found is None:
            found, new = self._server.create(name, documents, arguments)
        return dataclasses.replace(self._server.describe(found, pipeline=pipeline, key=key), new=new)

    @override
    def status(self, run_id: str) -> RemoteRun:
        return self._server.describe(self._server.get(run_id))

    @override
    def wait(self, run: RemoteRun, watch: Callable[[RemoteRun], None] | None = None) -> RemoteRun:
        def look() -> RemoteRun:
            seen = self._server.describe(self._server.get(run.run_id), pipeline=run.pipeline, key=run.key)
            return dataclasses.replace(seen, new=run.new)

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
        self._server.terminate(run_id)
        return self.status(run_id)

    @override
    def outputs(self, run_id: str) -> list[Output]:
        self._server.get(run_id)  # which says where there is no such run
        return read_outputs(run_id, self._server.post_metadata)

    @override
    def runs(self, *, limit: int = 20) -> list[RemoteRun]:
        return [dataclasses.replace(self._server.describe(run), tasks=()) for run in self._server.newest(limit)]

    @override
    def schedule(self, planned: PlannedSchedule) -> RemoteSchedule:
        planned = require_schedulable(planned, self._config.schedule_time_zone)
        arguments = prepare_arguments(planned.spec, planned.arguments)
        documents = self.compile(planned.spec)
        config = self._config
        digest = planned.digest(documents, arguments, config.service_account, config.experiment, config.upload)
        server = self._server
        found = server.recurring(planned.name)
        same = [each for each in found if _digest_of(each) == digest]
        if same and len(found) == 1:
            return self._described(same[0], "unchanged")
        # Kubeflow cannot change one. The new one waits until the old ones are gone: at no time do two start runs, and
        # nothing is lost where a call in between fails.
        waits = bool(found)
        kept = same[0] if same else server.create_recurring(planned, digest, documents, arguments, waits=waits)
        everyone = server.recurring(planned.name)
        # Two processes at the same moment: of the same schedule the first stays, of different ones the last.
        kept = next((each for each in everyone if _digest_of(each) == digest), kept)
        newer = False
        for other in everyone:
            if other.recurring_run_id == kept.recurring_run_id:
                newer = not same
            elif not newer or _digest_of(other) == digest:
                server.delete_recurring(other.recurring_run_id)
        described = self._described(kept, "unchanged" if same else "replaced" if found else "created")
        if waits and not all(_is_paused(each) for each in found):
            server.switch_recurring(kept.recurring_run_id, on=True)
            return dataclasses.replace(described, state="active")
        return described

    @override
    def schedules(self) -> list[RemoteSchedule]:
        return sorted((self._described(each) for each in self._server.recurring()), key=lambda each: each.name)

    @override
    def pause(self, name: str) -> RemoteSchedule:
        return self._switch(name, on=False)

    @override
    def resume(self, name: str) -> RemoteSchedule:
        return self._switch(name, on=True)

    @override
    def unschedule(self, name: str) -> RemoteSchedule:
        schedule = choose_schedule(name, self.schedules(), where=self._server.host)
        for each in self._server.recurring(name):
            self._server.delete_recurring(each.recurring_run_id)
        return dataclasses.replace(schedule, change="deleted", state="ended")

    def _switch(self, name: str, *, on: bool) -> RemoteSchedule:
        schedule = choose_schedule(name, self.schedules(), where=self._server.host)
        self._server.switch_recurring(schedule.schedule_id, on=on)
        return dataclasses.replace(schedule, state="active" if on else "paused", change="resumed" if on else "paused")

    def _described(self, recurring: Any, change: str = "") -> RemoteSchedule:
        cron = recurring.trigger.cron_schedule.cron if recurring.trigger and recurring.trigger.cron_schedule else ""
        seconds, _, fields = cron.partition(" ")
        status = str(recurring.status or "ENABLED")
        return RemoteSchedule(
            platform=PLATFORM,
            name=str(recurring.display_name),
            schedule_id=str(recurring.recurring_run_id),
            pipeline=self._server.pipeline_of(recurring),
            cron=fields if seconds == "0" else cron,
            time_zone=self._config.schedule_time_zone,
            state={"ENABLED": "active", "DISABLED": "paused"}.get(status, "ended"),
            link=self._server.page(f"recurringrun/details/{recurring.recurring_run_id}"),
            change=change,
        )


class _Server:
    """The API, with this library's errors, and a limit on the time of each request."""

    def __init__(self, config: KubeflowConfig) -> None:
        self._config = config
        self._in_cluster = not config.host
        self.host = config.host.rstrip("/") or _in_cluster_host()
        with self._talking("connect"):
            self._client = connect(config, self.host)
        self._namespace = self._find_namespace()
        self._versions: dict[str, dict[str, Any]] = {}

    def living(self, name: str) -> Any | None:
        """The earliest run of a name that goes on or has succeeded."""
        runs = [run for run in self._runs(name) if _state(run) in ("running", "succeeded")]
        return runs[0] if runs else None

    def create(self, name: str, documents: list[compiling.Spec], arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        """Makes a run; gives it back, and whether it is this call's."""
        experiment_id = self._experiment()

        def make() -> Any:
            with self._template(documents) as template, self._talking(START_RUN):
                return self._client.run_pipeline(
                    experiment_id=experiment_id,
                    job_name=name,
                    params=dict(arguments),
                    service_account=self._config.service_account or None,
                    **template,
                )

        made, is_found = self._make_once(make, lambda: self.living(name), what=name)
        return (made, True) if is_found else self._settle(name, made)

    def _make_once(self, make: Callable[[], Any], find: Callable[[], Any | None], *, what: str) -> tuple[Any, bool]:
        """Makes something, or finds it where the answer to that got lost; and whether it was found.

        It is made again in one case: where the server said when to come back, and it is not there then.
        """
        for last in (False, True):
            try:
                return make(), False
            except ServiceError as error:
                asked = retry_after(error.__cause__)
                # It may have been made all the same.
                for seconds in _LOOK_AGAIN_SECONDS if asked is None else (asked,):
                    time.sleep(seconds)
                    with contextlib.suppress(ServiceError):
                        if (found := find()) is not None:
                            logger.warning("the answer to the making of %s got lost, and it is there", what)
                            return found, True
                if asked is None or last:
                    raise
        raise AssertionError

    def get(self, run_id: str) -> Any:
        """A run as it stands."""
        with self._talking(LOOK_AT_RUN):
            return self._client.get_run(run_id)

    def describe(self, run: Any, *, pipeline: str = "", key: str = "") -> RemoteRun:
        """A run in the words of every target; its pipeline and key are read from its name where they are not given."""
        state = _state(run)
        tasks = _tasks_of(run, self._task_names(run))
        if not pipeline:
            pipeline = self.pipeline_of(run)
            prefix, name = f"{pipeline}-", str(run.display_name)
            # A run that a schedule or a person has started has a name of another form.
            key = name.removeprefix(prefix) if pipeline and name.startswith(prefix) else ""
        return RemoteRun(
            platform=PLATFORM,
            run_id=run.run_id,
            pipeline=pipeline or str(run.display_name),
            key=key,
            state=state,
            link=self.page(f"runs/details/{run.run_id}"),
            error=_error(run, tasks) if state == "failed" else "",
            started=_moment(run.created_at),
            ended=_moment(run.finished_at) if state != "running" else "",
            tasks=tuple(
                TaskStatus(
                    name=str(task.display_name),
                    state=_TASK_STATES.get(str(task.state), "queued"),
                    started=_moment(task.start_time),
                    ended=_moment(task.end_time),
                    error=str(task.error.message) if task.error is not None and task.error.message else "",
                    id=str(task.task_id or task.display_name),
                )
                for task in tasks
            ),
        )

    def pipeline_of(self, made: Any) -> str:
        """The name of a run's or a schedule's pipeline; empty where nobody says it."""
        return str((self._spec_of(made).get("pipelineInfo") or {}).get("name", ""))

    def _spec_of(self, made: Any) -> dict[str, Any]:
        """The specification of a run or a schedule: its own, or that of its version; empty where nobody says it."""
        spec, reference = made.pipeline_spec, made.pipeline_version_reference
        if not spec and reference is not None and reference.pipeline_id and reference.pipeline_version_id:
            version = str(reference.pipeline_version_id)
            if version not in self._versions:
                try:
                    with self._talking("look at the pipeline's version"):
                        found = self._client.get_pipeline_version(str(reference.pipeline_id), version)
                    self._versions[version] = found.pipeline_spec or {}
                except PipepartsError as error:
                    logger.debug("what a run was made from cannot be seen: %s", error.headline)
            spec = self._versions.get(version)
        spec = spec or {}
        return dict(spec.get("pipeline_spec") or spec)  # with settings of Kubernetes it has two documents

    def _task_names(self, run: Any) -> set[str]:
        """The names of the tasks in the pipeline's graph; empty where nobody says them."""
        spec = self._spec_of(run)
        groups = [spec.get("root") or {}, *(spec.get("components") or {}).values()]
        return {name for group in groups for name in (group.get("dag") or {}).get("tasks") or {}}

    def post_metadata(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Sends a request to the metadata store, with what this client is let in by."""
        import urllib3

        api = self._client._run_api.api_client
        headers = {**headers, **({"Cookie": api.cookie} if api.cookie else {})}
        api.update_params_for_auth(headers, [], ["Bearer"])
        seconds = self._config.request_seconds
        with self._talking("read what the run gave"):
            answer = api.rest_client.pool_manager.request(
                "POST",
                f"{self._metadata_host}/{path}",
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=seconds, read=seconds),
            )
        return answer.status, dict(answer.headers), answer.data

    @property
    def _metadata_host(self) -> str:
        """Where the metadata store is: beside the console, at the top of its host."""
        if self._config.metadata_host or self._in_cluster:
            return self._config.metadata_host.rstrip("/") or _METADATA_IN_CLUSTER
        parts = urlsplit(self.host)
        return f"{parts.scheme}://{parts.netloc}"

    def page(self, path: str) -> str:
        """A page of the console; empty where that has no address for people."""
        base = self._config.ui_host or ("" if self._in_cluster else self.host)
        return f"{base.rstrip('/')}/#/{path}" if base else ""

    def terminate(self, run_id: str) -> None:
        """Asks a run to stop."""
        with self._talking("stop the run"):
            self._client.terminate_run(run_id)

    def newest(self, limit: int) -> list[Any]:
        """The newest runs; 0 for all."""
        found: list[Any] = []
        token = ""
        while True:
            with self._talking("list the runs"):
                page = self._client.list_runs(
                    page_token=token,
                    page_size=min(limit or _PAGE, _PAGE),
                    sort_by="created_at desc",
                    namespace=self._namespace or None,
                )
            found += page.runs or []
            token = page.next_page_token or ""
            if not token or (limit and len(found) >= limit):
                return found[: limit or None]

    def recurring(self, name: str = "") -> list[Any]:
        """The recurring runs that this library has made, of a name or all, the oldest first."""
        found: list[Any] = []
        token = ""
        while True:
            with self._talking("list the schedules"):
                page = self._client.list_recurring_runs(
                    page_token=token, page_size=_PAGE, namespace=self._namespace or None
                )
            found += page.recurring_runs or []
            token = page.next_page_token or ""
            if not token:
                break
        ours = [each for each in found if _digest_of(each) and (not name or each.display_name == name)]
        return sorted(ours, key=lambda each: (each.created_at or _FIRST, each.recurring_run_id))

    def create_recurring(
        self,
        planned: PlannedSchedule,
        digest: str,
        documents: list[compiling.Spec],
        arguments: Mapping[str, Any],
        *,
        waits: bool,
    ) -> Any:
        """Makes a recurring run; `waits` says that it starts nothing yet."""
        experiment_id = self._experiment()

        def make() -> Any:
            with self._template(documents) as template, self._talking("make the schedule"):
                return self._client.create_recurring_run(
                    experiment_id=experiment_id,
                    job_name=planned.name,
                    description=f"{_MARK}{digest}",
                    cron_expression=f"0 {planned.schedule.cron}",  # Kubeflow's first field is the second
                    max_concurrency=1,
                    no_catchup=True,
                    enabled=not planned.paused and not waits,
                    params=dict(arguments),
                    service_account=self._config.service_account or None,
                    **template,
                )

        def find() -> Any | None:
            return next((each for each in self.recurring(planned.name) if _digest_of(each) == digest), None)

        return self._make_once(make, find, what=planned.name)[0]

    def switch_recurring(self, identifier: str, *, on: bool) -> None:
        """Lets a recurring run go on, or wait."""
        with self._talking("resume the schedule" if on else "pause the schedule"):
            (self._client.enable_recurring_run if on else self._client.disable_recurring_run)(identifier)

    def delete_recurring(self, identifier: str) -> None:
        """Deletes a recurring run; one that is gone already is fine."""
        try:
            with self._talking("delete the schedule"):
                self._client.delete_recurring_run(identifier)
        except InputError as error:
            if getattr(error.__cause__, "status", None) != 404:
                raise

    @contextlib.contextmanager
    def _template(self, documents: list[compiling.Spec]) -> Iterator[dict[str, str]]:
        """What a run is made from, as arguments: the YAML's file, or the version that it was uploaded as."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.yaml"
            path.write_text(compiling.to_yaml(*documents), encoding="utf-8")
            if not self._config.upload:
                yield {"pipeline_package_path": str(path)}
                return
            name = documents[0]["pipelineInfo"]["name"]
            version = f"{name}-{__version__}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
            yield self._uploaded(path, name, version)

    def _uploaded(self, path: Path, name: str, version: str) -> dict[str, str]:
        """A pipeline's version, uploaded unless it is there: a version's name holds the hash of its content."""
        pipeline_id = self._named(lambda: self._pipeline_id(name), lambda: self._upload_pipeline(path, name))
        version_id = self._named(
            lambda: self._version_id(pipeline_id, version), lambda: self._upload_version(path, pipeline_id, version)
        )
        return {"pipeline_id": pipeline_id, "version_id": version_id}

    def _named(self, find: Callable[[], str | None], make: Callable[[], str]) -> str:
        """What has a name that there is once: found, or made, or found after another process has made it."""
        found = find()
        if found is not None:
            return found
        try:
            return make()
        except ServiceError:
            found = find()
            if found is not None:
                return found
            raise

    def _pipeline_id(self, name: str) -> str | None:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        with self._talking("find the pipeline"):
            page = self._client.list_pipelines(
                page_size=1, namespace=self._namespace or None, filter=json.dumps({"predicates": [predicate]})
            )
        return str(page.pipelines[0].pipeline_id) if page.pipelines else None

    def _upload_pipeline(self, path: Path, name: str) -> str:
        with self._talking("upload the pipeline"):
            made = self._client.upload_pipeline(str(path), name, namespace=self._namespace or None)
        return str(made.pipeline_id)

    def _version_id(self, pipeline_id: str, version: str) -> str | None:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": version}
        with self._talking("find the pipeline's version"):
            page = self._client.list_pipeline_versions(
                pipeline_id, page_size=1, filter=json.dumps({"predicates": [predicate]})
            )
        return str(page.pipeline_versions[0].pipeline_version_id) if page.pipeline_versions else None

    def _upload_version(self, path: Path, pipeline_id: str, version: str) -> str:
        with self._talking("upload the pipeline's version"):
            made = self._client.upload_pipeline_version(str(path), version, pipeline_id=pipeline_id)
        return str(made.pipeline_version_id)

    def _settle(self, name: str, made: Any) -> tuple[Any, bool]:
        """Of two runs that two processes made at the same moment, the earlier stays: the one that all of them see."""
        first = made
        with contextlib.suppress(ServiceError):  # this call's is there, whatever the list says
            first = self.living(name) or made
        if first.run_id == made.run_id:
            return made, True
        logger.warning("another process started %s at the same moment: stopping this one's", name)
        with self._talking("stop the second run"):
            self._client.terminate_run(made.run_id)
        return first, False

    def _runs(self, name: str) -> list[Any]:
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        found: list[Any] = []
        token = ""
        while True:
            with self._talking("list the runs"):
                page = self._client.list_runs(
                    page_token=token,
                    page_size=_PAGE,
                    namespace=self._namespace,
                    filter=json.dumps({"predicates": [predicate]}),
                )
            found += [run for run in page.runs or [] if run.display_name == name]
            token = page.next_page_token or ""
            if not token:
                return sorted(found, key=lambda run: (run.created_at or _FIRST, run.run_id))

    def _experiment(self) -> str:
        name = self._config.experiment
        for attempt in (1, 2):
            try:
                with self._talking(f"make the experiment {name!r}"):
                    return str(self._client.create_experiment(name, namespace=self._namespace).experiment_id)
            except ServiceError as error:
                if attempt == 2 or getattr(error.__cause__, "status", None) != 409:
                    raise  # otherwise another process has just made it
        raise AssertionError

    def _find_namespace(self) -> str:
        if self._config.namespace or self._client.multi_user is not True:
            return self._config.namespace
        with contextlib.suppress(OSError):
            return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
        raise InputError(
            "this Kubeflow is for several users, and no namespace is set",
            parameter="namespace",
            where=self.host,
            allowed="the namespace of a profile",
            received=f"nothing; looked in: the setting namespace, {_POD_NAMESPACE}",
        )

    @contextlib.contextmanager
    def _talking(self, what: str) -> Iterator[None]:
        try:
            yield
        except PipepartsError:
            raise
        except Exception as error:
            raise _explain(error, what, self.host) from error


def _in_cluster_host() -> str:
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _IN_CLUSTER
    raise InputError(
        "there is no address of Kubeflow Pipelines",
        parameter="host",
        allowed="the API's address, as https://kubeflow.example.org/pipeline; inside the cluster it is not needed",
        received="nothing, and this is no pod: KUBERNETES_SERVICE_HOST is not set",
    )


def _digest_of(recurring: Any) -> str:
    """What a recurring run of this library says that it was made of; empty for another's."""
    description = str(recurring.description or "")
    return description.removeprefix(_MARK) if description.startswith(_MARK) else ""


def _is_paused(recurring: Any) -> bool:
    return str(recurring.status) == "DISABLED"


def _tasks_of(run: Any, names: set[str]) -> list[Any]:
    """The tasks by their start; without what Kubeflow has for itself: the run, its root, drivers and executors."""
    details = run.run_details.task_details if run.run_details is not None else None
    tasks = [
        task
        for task in details or []
        if task.display_name and (_plain_name(task) in names if names else not _OF_KUBEFLOW.search(_plain_name(task)))
    ]
    return sorted(tasks, key=lambda task: (task.start_time or task.create_time or _LAST, str(task.display_name)))


def _plain_name(task: Any) -> str:
    """A task's name in the graph: Argo has a loop's item, or the number of the attempt, behind it."""
    return str(task.display_name).partition("(")[0]


def _moment(time_: dt.datetime | None) -> str:
    """A time, ISO 8601; empty for none, and for the zero that Kubeflow gives for a time that has not come."""
    return time_.isoformat() if time_ is not None and time_.year > 1970 else ""


def _state(run: Any) -> RunState:
    return _STATES.get(str(run.state), "running")


def _error(run: Any, tasks: list[Any]) -> str:
    """What Kubeflow says of a failure: the run's own error, and each failed task's."""
    lines = [run.error.message] if run.error is not None and run.error.message else []
    for task in tasks:
        if str(task.state) == "FAILED":
            reason = task.error.message if task.error is not None and task.error.message else "failed"
            lines.append(f"{task.display_name}: {reason}")
    return "\n".join(lines) or "Kubeflow does not say why"


def _explain(error: Exception, what: str, host: str) -> PipepartsError:
    import kfp_server_api
    import urllib3

    headline = f"cannot {what} {'to' if what == 'connect' else 'on'} Kubeflow Pipelines"
    if isinstance(error, kfp_server_api.ApiException) and error.status:
        received = f"status {error.status}: {_message(error)}"
        if error.status in (401, 403):
            return InputError(
                f"{headline}: access is denied",
                parameter="token",
                where=host,
                allowed="the token of an account that may create and list runs (token: env:NAME or file:/path)",
                received=received,
            )
        if error.status == 404 and not _message(error).lower().startswith("not found"):
            # It is the API that answers, and not what else is at a wrong address.
            if what == LOOK_AT_RUN:
                return no_such_run(headline, PLATFORM, where=host, received=received)
            return InputError(f"{headline}: it is not there", where=host, received=received)
        if error.status == 404:
            return InputError(
                f"{headline}: it is not there",
                parameter="host",
                where=host,
                allowed="the address below which the API is, /apis/v2beta1",
                received=received,
            )
        if 300 <= error.status < 400:
            return InputError(
                f"{headline}: it sends somewhere else",
                parameter="host",
                where=host,
                allowed="the API's address, and who one is: a token, or username and password",
                received=f"status {error.status}",
            )
        if error.status == 400:
            return InputError(headline, where=host, received=received)
        return ServiceError(headline, where=host, received=received, hint=hint_after(what, PLATFORM))
    if isinstance(error, (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError)):
        return ServiceError(
            f"{headline}: the server does not answer",
            parameter="host",
            where=host,
            received=" ".join(f"{type(error).__name__}: {error}".split()),
            hint=hint_after(what, PLATFORM),
        )
    kind = InputError if isinstance(error, ValueError) else ServiceError
    return kind(headline, where=host, received=" ".join(f"{type(error).__name__}: {error}".split()))


def _message(error: Any) -> str:
    """The sentence in an answer's body; a proxy in between may have answered with a page."""
    with contextlib.suppress(ValueError, AttributeError):
        body = json.loads(error.body)
        return str(body.get("message") or body.get("error") or error.reason)
    return str(error.reason)
