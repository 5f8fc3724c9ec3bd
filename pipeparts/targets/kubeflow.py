"""Submits compiled pipelines to Kubeflow Pipelines, through KFP's own client."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeparts import compiling
from pipeparts.config import KubeflowConfig
from pipeparts.errors import InputError, PipepartsError, ServiceError
from pipeparts.runtime.secrets import read_secret
from pipeparts.submission import prepare_arguments
from pipeparts.targets.base import RemoteRun, RunState, check_key, require_images, wait_for_end

logger = logging.getLogger(__name__)

PLATFORM = "kubeflow"

_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
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
_FIRST = dt.datetime.min.replace(tzinfo=dt.UTC)


def submit(
    spec: compiling.Spec,
    arguments: Mapping[str, Any],
    config: KubeflowConfig,
    *,
    key: str,
    wait: bool = False,
) -> RemoteRun:
    """Starts a run for a key, unless there is one that goes on or has succeeded.

    The run's name is the pipeline's and the key's. Kubeflow lets several runs have one name, so runs are looked for
    before one is made, and again where the answer to that got lost; of two that were made at the same
    moment the earlier stays. Where every run of the key has failed or was stopped, another is started.

    Args:
        spec: The compiled pipeline.
        arguments: Its parameters.
        config: Where and how.
        key: What the run is for.
        wait: Whether to wait for its end.

    Raises:
        InputError: Where the key, an argument, the images, the address or the credentials are wrong.
        ServiceError: Where Kubeflow does not answer or refuses; nothing was started, or a retry finds what was.
    """
    check_key(key)
    arguments = prepare_arguments(spec, arguments)
    spec = require_images(spec, registry=config.registry, images=dict(config.images))
    server = _Server(config)
    pipeline = spec["pipelineInfo"]["name"]
    name = f"{pipeline}-{key}"
    found, new = server.living(name), False
    if found is None:
        found, new = server.create(name, spec, arguments)
    run = server.describe(found, pipeline=pipeline, key=key, new=new)
    if not wait:
        return run
    return wait_for_end(
        run,
        lambda: server.describe(server.get(run.run_id), pipeline=pipeline, key=key, new=new),
        poll_seconds=config.poll_seconds,
        timeout_seconds=config.wait_seconds,
    )


class _Server:
    """The API, with this library's errors, and a limit on the time of each request."""

    def __init__(self, config: KubeflowConfig) -> None:
        self._config = config
        self._in_cluster = not config.host
        self.host = config.host.rstrip("/") or _in_cluster_host()
        with self._talking("connect"):
            self._client = _connect(config, self.host)
        self._namespace = self._find_namespace()

    def living(self, name: str) -> Any | None:
        """The earliest run of a name that goes on or has succeeded."""
        runs = [run for run in self._runs(name) if _state(run) in ("running", "succeeded")]
        return runs[0] if runs else None

    def create(self, name: str, spec: compiling.Spec, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        """Makes a run; gives it back, and whether it is this call's."""
        experiment_id = self._experiment()
        try:
            with self._talking("start the run"), tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "pipeline.yaml"
                path.write_text(compiling.to_yaml(spec), encoding="utf-8")
                made = self._client.run_pipeline(
                    experiment_id=experiment_id,
                    job_name=name,
                    pipeline_package_path=str(path),
                    params=dict(arguments),
                    service_account=self._config.service_account or None,
                )
        except ServiceError:
            # It may have been made all the same.
            for seconds in _LOOK_AGAIN_SECONDS:
                time.sleep(seconds)
                with contextlib.suppress(ServiceError):
                    if (found := self.living(name)) is not None:
                        logger.warning("the answer to the start of %s got lost, and it has started", name)
                        return found, True
            raise
        return self._settle(name, made)

    def get(self, run_id: str) -> Any:
        """A run as it stands."""
        with self._talking("look at the run"):
            return self._client.get_run(run_id)

    def describe(self, run: Any, *, pipeline: str, key: str, new: bool) -> RemoteRun:
        """A run in the words of every target."""
        state = _state(run)
        base = self._config.ui_host or ("" if self._in_cluster else self.host)
        return RemoteRun(
            platform=PLATFORM,
            run_id=run.run_id,
            pipeline=pipeline,
            key=key,
            state=state,
            link=f"{base.rstrip('/')}/#/runs/details/{run.run_id}" if base else "",
            error=_error(run) if state == "failed" else "",
            new=new,
        )

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


def _connect(config: KubeflowConfig, host: str) -> Any:
    """KFP's client, which asks once whether the installation is for several users, and gives up in time."""
    import kfp
    from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    token = read_secret(config.token, parameter="token") if config.token else None
    projected = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV) or KF_PIPELINES_SA_TOKEN_PATH)

    class Client(kfp.Client):  # type: ignore[misc]
        multi_user: bool | None = None

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            # KFP's own asks five times; it is the first request, so the first place for a limit on the time, too.
            _limit_requests(self._run_api.api_client, config.request_seconds)
            health = self._healthz_api.healthz_service_get_healthz()
            self.multi_user = health.multi_user
            health.multi_user = False  # KFP would write the pod's namespace into the user's home
            return health

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = Client(
            host=host,
            namespace=config.namespace or "kubeflow",
            existing_token=token,
            credentials=ServiceAccountTokenVolumeCredentials() if not token and projected.is_file() else None,
            ssl_ca_cert=config.ca_cert or None,
        )
    if client.multi_user is None:
        _limit_requests(client._run_api.api_client, config.request_seconds)
    return client


def _limit_requests(api_client: Any, seconds: float) -> None:
    """Gives every request a limit: without one, KFP's client waits for ever for a server that does not answer."""
    call = api_client.call_api
    limit = (seconds, seconds)  # to connect, to read: a single number that is no int is ignored

    def limited(*args: Any, **options: Any) -> Any:
        return call(*args, **{**options, "_request_timeout": options.get("_request_timeout") or limit})

    api_client.call_api = limited


def _state(run: Any) -> RunState:
    return _STATES.get(str(run.state), "running")


def _error(run: Any) -> str:
    """What Kubeflow says of a failure: the run's own error, and each failed task's."""
    lines = [run.error.message] if run.error is not None and run.error.message else []
    details = run.run_details.task_details if run.run_details is not None else None
    for task in details or []:
        if str(task.state) == "FAILED":
            reason = task.error.message if task.error is not None and task.error.message else "failed"
            lines.append(f"{task.display_name}: {reason}")
    return "\n".join(lines) or "Kubeflow does not say why"


def _explain(error: Exception, what: str, host: str) -> PipepartsError:
    import kfp_server_api
    import urllib3

    headline = f"cannot {what} on Kubeflow Pipelines"
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
        if error.status == 404:
            return InputError(
                f"{headline}: it is not there",
                parameter="host",
                where=host,
                allowed="the address below which the API is, /apis/v2beta1",
                received=received,
            )
        kind = InputError if error.status == 400 else ServiceError
        return kind(headline, where=host, received=received)
    if isinstance(error, (kfp_server_api.ApiException, urllib3.exceptions.HTTPError, OSError)):
        return ServiceError(
            f"{headline}: the server does not answer",
            parameter="host",
            where=host,
            received=" ".join(f"{type(error).__name__}: {error}".split()),
        )
    kind = InputError if isinstance(error, ValueError) else ServiceError
    return kind(headline, where=host, received=" ".join(f"{type(error).__name__}: {error}".split()))


def _message(error: Any) -> str:
    """The sentence in an answer's body; a proxy in between may have answered with a page."""
    with contextlib.suppress(ValueError, AttributeError):
        body = json.loads(error.body)
        return str(body.get("message") or body.get("error") or error.reason)
    return str(error.reason)
