"""Submits compiled pipelines to Vertex AI Pipelines, through Google's own client."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeparts import compiling
from pipeparts.config import VertexConfig
from pipeparts.errors import InputError, PipepartsError, ServiceError
from pipeparts.submission import prepare_arguments
from pipeparts.targets.base import RemoteRun, RunState, check_key, require_images, wait_for_end

logger = logging.getLogger(__name__)

PLATFORM = "vertex"

_LONGEST_ID = 128
#: A run that failed keeps its id; the ones after it count up.
_MOST_RUNS = 50
_ATTEMPT_PAUSES = (1.0, 4.0)
_STATES: dict[str, RunState] = {
    "PIPELINE_STATE_SUCCEEDED": "succeeded",
    "PIPELINE_STATE_FAILED": "failed",
    "PIPELINE_STATE_CANCELLED": "interrupted",
}


def submit(
    spec: compiling.Spec,
    arguments: Mapping[str, Any],
    config: VertexConfig,
    *,
    key: str,
    wait: bool = False,
) -> RemoteRun:
    """Starts a run for a key, unless there is one that goes on or has succeeded.

    The job's id is made of the pipeline's name and the key, and Vertex gives an id away once: whoever comes second,
    and a retry whose first answer got lost, gets the job that is there. Where that one has failed or was
    stopped, the next has the same id with `-2` behind it, and so on.

    Args:
        spec: The compiled pipeline.
        arguments: Its parameters.
        config: Where and how.
        key: What the run is for.
        wait: Whether to wait for its end.

    Raises:
        InputError: Where the key, an argument, the images, the project or the credentials are wrong.
        ServiceError: Where Vertex does not answer or refuses; a retry finds what was started.
    """
    check_key(key)
    arguments = prepare_arguments(spec, arguments)
    spec = require_images(spec, registry=config.registry, images=dict(config.images))
    pipeline = spec["pipelineInfo"]["name"]
    service = _Service(config)
    for number in range(1, _MOST_RUNS + 1):
        identifier = job_id(pipeline, key, number)
        new = service.create(identifier, f"{pipeline}-{key}", spec, arguments)
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
    run = service.describe(job, identifier, pipeline=pipeline, key=key, new=new)
    if not wait:
        return run
    return wait_for_end(
        run,
        lambda: service.describe(service.get(identifier), identifier, pipeline=pipeline, key=key, new=new),
        poll_seconds=config.poll_seconds,
        timeout_seconds=config.wait_seconds,
    )


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
    """Vertex's pipeline service, with this library's errors."""

    def __init__(self, config: VertexConfig) -> None:
        self._config = config
        self._parent = f"projects/{config.project}/locations/{config.location}"
        self._jobs: Any = None

    def create(self, identifier: str, name: str, spec: compiling.Spec, arguments: Mapping[str, Any]) -> bool:
        """Starts a job; false where another call has made one with this id."""
        from google.api_core import exceptions

        with self._talking("start the run"):
            job = self._job(name, spec, arguments)
            lost = False
            for pause in (*_ATTEMPT_PAUSES, None):
                try:
                    self._jobs.create_pipeline_job(
                        parent=self._parent,
                        pipeline_job=job,
                        pipeline_job_id=identifier,
                        timeout=self._config.request_seconds,
                    )
                except exceptions.AlreadyExists:
                    return lost  # then it is this call's, and the answer was lost
                except (exceptions.ServerError, exceptions.TooManyRequests) as error:
                    # Safe to try again: a job that was made all the same has the id.
                    if pause is None:
                        raise
                    lost = True
                    logger.warning("Vertex AI did not answer, trying again: %s", error.message)
                    time.sleep(pause)
                else:
                    return True
        raise AssertionError

    def _job(self, name: str, spec: compiling.Spec, arguments: Mapping[str, Any]) -> Any:
        """The message to send.

        `PipelineJob.submit` is not used: it first asks whose the bucket is, and makes one that is not there, for
        which a submitter would need rights on storage and on the project.
        """
        from google.cloud import aiplatform, aiplatform_v1

        # The only way to set the address, and it belongs to the process: one command talks to one place.
        aiplatform.init(
            project=self._config.project,
            location=self._config.location,
            api_endpoint=self._config.endpoint or None,
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.json"
            path.write_text(json.dumps(spec), encoding="utf-8")
            job = aiplatform.PipelineJob(
                display_name=name[:_LONGEST_ID],
                template_path=str(path),
                pipeline_root=self._config.pipeline_root,
                parameter_values=dict(arguments),
                project=self._config.project,
                location=self._config.location,
            )
        self._jobs = job.api_client
        return aiplatform_v1.PipelineJob(
            display_name=name[:_LONGEST_ID],
            pipeline_spec=job.pipeline_spec,
            runtime_config=job.runtime_config,
            service_account=self._config.service_account,
        )

    def get(self, identifier: str) -> Any:
        """A job as it stands."""
        path = f"{self._parent}/pipelineJobs/{identifier}"
        with self._talking("look at the run"):
            return self._jobs.get_pipeline_job(name=path, timeout=self._config.request_seconds)

    def describe(self, job: Any, identifier: str, *, pipeline: str, key: str, new: bool) -> RemoteRun:
        """A job in the words of every target."""
        state = _state(job)
        return RemoteRun(
            platform=PLATFORM,
            run_id=identifier,
            pipeline=pipeline,
            key=key,
            state=state,
            link=f"https://console.cloud.google.com/vertex-ai/locations/{self._config.location}/pipelines/runs/"
            f"{identifier}?project={self._config.project}",
            error=_error(job) if state == "failed" else "",
            new=new,
        )

    @contextlib.contextmanager
    def _talking(self, what: str) -> Iterator[None]:
        try:
            yield
        except PipepartsError:
            raise
        except Exception as error:
            raise _explain(error, what, self._config) from error


def _state(job: Any) -> RunState:
    return _STATES.get(job.state.name, "running")


def _error(job: Any) -> str:
    """What Vertex says of a failure: the job's own error, and each failed task's."""
    lines = [job.error.message] if job.error.message else []
    for task in job.job_detail.task_details:
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
    if isinstance(error, (exceptions.NotFound, exceptions.InvalidArgument, ValueError)):
        return InputError(headline, where=where, received=received)
    return ServiceError(headline, where=where, received=received)
