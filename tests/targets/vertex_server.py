"""Vertex AI's PipelineService on loopback: gRPC over TLS, in the aiplatform package's own messages.

Google's own client talks to it unchanged: it trusts the server's certificate and has an account's key through
environment variables alone, so the same server serves tests in this process and commands in others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import ipaddress
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.aiplatform_v1 import types
from google.longrunning.operations_pb2 import Operation
from google.protobuf import any_pb2, duration_pb2, json_format
from google.protobuf.empty_pb2 import Empty
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from kfp.pipeline_spec import pipeline_spec_pb2

PROJECT = "loopback-project"
LOCATION = "europe-west4"
BUCKET = "loopback-bucket"

_JOBS = "google.cloud.aiplatform.v1.PipelineService"
_SCHEDULES = "google.cloud.aiplatform.v1.ScheduleService"
_METADATA = "google.cloud.aiplatform.v1.MetadataService"
_JOB_ID = re.compile(r"^[a-z][-a-z0-9]{0,127}$")
_PARENT = f"projects/{PROJECT}/locations/{LOCATION}"
_CONTEXTS = f"{_PARENT}/metadataStores/default/contexts"
_ENDED = ("PIPELINE_STATE_SUCCEEDED", "PIPELINE_STATE_FAILED", "PIPELINE_STATE_CANCELLED")


@dataclasses.dataclass
class Fault:
    """What goes wrong with the next calls of a method.

    Attributes:
        method: Its name, "CreatePipelineJob".
        code: The status of the answer.
        served: Whether the call is carried out first: a job may be made, and the answer lost.
        hang_seconds: How long the server keeps silent before.
        times: How many calls.
        retry_seconds: How long the answer asks to wait before another attempt; 0: it does not ask.
    """

    method: str
    code: grpc.StatusCode
    served: bool = False
    hang_seconds: float = 0.0
    times: int = 1
    retry_seconds: int = 0


class VertexServer:
    """The state of the service, and what tests ask of it.

    Attributes:
        endpoint: The address of the API.
        environment: What a client needs in its environment.
        states: What a job's state is, look by look; the last stays.
        error: The error's message of a job that fails.
        jobs: By name, as the API gives them.
        schedules: By name, as the API gives them.
        experiments: Each experiment's name, and the contexts of the runs in it.
        tasks: What a job's tasks are; the same for every job.
        calls: Each call's method, in order.
        faults: What goes wrong, the first that fits first.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.environment: dict[str, str] = {}
        self.states = ["PIPELINE_STATE_SUCCEEDED"]
        self.error = ""
        self.jobs: dict[str, types.PipelineJob] = {}
        self.schedules: dict[str, types.Schedule] = {}
        self.experiments: dict[str, list[str]] = {}
        self.tasks: list[types.PipelineTaskDetail] = []
        self.calls: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._looks: dict[str, int] = {}

    def reset(self) -> None:
        """Forgets everything: one server serves a session of tests."""
        self.__dict__.update({**VertexServer().__dict__, "endpoint": self.endpoint, "environment": self.environment})

    def fail(self, method: str, code: grpc.StatusCode, **how: Any) -> None:
        """Lets calls go wrong."""
        self.faults.append(Fault(method, code, **how))

    def methods(self) -> dict[str, tuple[Callable[..., Any], Any, Any]]:
        """Each method of the service that is spoken: what does it, and the messages in and out."""
        return {
            "CreatePipelineJob": (self._create, types.CreatePipelineJobRequest, types.PipelineJob),
            "GetPipelineJob": (self._get, types.GetPipelineJobRequest, types.PipelineJob),
            "ListPipelineJobs": (self._list, types.ListPipelineJobsRequest, types.ListPipelineJobsResponse),
            "CancelPipelineJob": (self._cancel, types.CancelPipelineJobRequest, Empty),
            "CreateSchedule": (self._create_schedule, types.CreateScheduleRequest, types.Schedule),
            "GetSchedule": (self._get_schedule, types.GetScheduleRequest, types.Schedule),
            "ListSchedules": (self._list_schedules, types.ListSchedulesRequest, types.ListSchedulesResponse),
            "UpdateSchedule": (self._update_schedule, types.UpdateScheduleRequest, types.Schedule),
            "PauseSchedule": (self._pause_schedule, types.PauseScheduleRequest, Empty),
            "ResumeSchedule": (self._resume_schedule, types.ResumeScheduleRequest, Empty),
            "DeleteSchedule": (self._delete_schedule, types.DeleteScheduleRequest, Operation),
            "GetContext": (self._get_context, types.GetContextRequest, types.Context),
            "AddContextChildren": (
                self._add_children,
                types.AddContextChildrenRequest,
                types.AddContextChildrenResponse,
            ),
        }

    def serve(self, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        """Carries out a call, or lets it go wrong."""
        with self.lock:
            self.calls.append(method)
            fault = next((f for f in self.faults if f.times > 0 and f.method == method), None)
            if fault is not None:
                fault.times -= 1
        metadata = dict(context.invocation_metadata())
        if not str(metadata.get("authorization", "")).startswith("Bearer "):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request is missing required authentication credential.")
        if fault is not None and not fault.served:
            time.sleep(fault.hang_seconds)
            if fault.retry_seconds:
                context.abort_with_status(_asks_to_wait(fault))
            context.abort(fault.code, f"fault {fault.code.name}")
        with self.lock:
            answer = self.methods()[method][0](request, context)
        if fault is not None:
            time.sleep(fault.hang_seconds)
            context.abort(fault.code, f"fault {fault.code.name}")
        return answer

    def _create(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.parent != _PARENT:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"Permission denied on resource {request.parent}.")
        if not _JOB_ID.match(request.pipeline_job_id):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Invalid pipeline job id {request.pipeline_job_id}.")
        name = f"{_PARENT}/pipelineJobs/{request.pipeline_job_id}"
        if name in self.jobs:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"PipelineJob {name} already exists.")
        job = request.pipeline_job
        self._check(job, context)
        job.name = name
        job.state = types.PipelineState.PIPELINE_STATE_PENDING
        job.create_time = dt.datetime.now(dt.UTC)
        self.jobs[name] = job
        return job

    def _check(self, job: Any, context: grpc.ServicerContext) -> None:
        root = job.runtime_config.gcs_output_directory
        if not root.startswith(f"gs://{BUCKET}/"):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Invalid GCS path: {root!r}.")
        document = json_format.MessageToDict(job._pb.pipeline_spec)
        spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
        unknown = set(job.runtime_config.parameter_values) - set(spec.root.input_definitions.parameters)
        if unknown:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Unknown parameters: {sorted(unknown)}.")

    def _get(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name not in self.jobs:
            context.abort(grpc.StatusCode.NOT_FOUND, f"The PipelineJob {request.name} does not exist.")
        job = self.jobs[request.name]
        look = self._looks.setdefault(request.name, 0)
        if job.state.name not in _ENDED:
            self._looks[request.name] = look + 1
            job.state = types.PipelineState[self.states[min(look, len(self.states) - 1)]]
            if job.state.name == "PIPELINE_STATE_FAILED":
                job.error = status_pb2.Status(code=9, message=self.error)
            if job.state.name in _ENDED:
                job.end_time = dt.datetime.now(dt.UTC)
        run_context = types.Context(name=f"{_CONTEXTS}/{request.name.rpartition('/')[2]}")
        job.job_detail = types.PipelineJobDetail(
            # It is made a moment after the job.
            pipeline_run_context=run_context if self._looks[request.name] > 2 or job.state.name in _ENDED else None,
            task_details=self.tasks,
        )
        return job

    def _list(self, request: Any, context: grpc.ServicerContext) -> Any:
        assert request.order_by == "create_time desc"
        jobs = sorted(self.jobs.values(), key=lambda job: job.create_time, reverse=True)
        return types.ListPipelineJobsResponse(pipeline_jobs=jobs)

    def _cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        job = self._get(request, context)
        if job.state.name not in _ENDED:
            job.state = types.PipelineState.PIPELINE_STATE_CANCELLED
        return Empty()

    def _create_schedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        schedule = request.schedule
        self._check_schedule(schedule, context)
        number = len(self.calls)
        schedule.name = f"{_PARENT}/schedules/{number}"
        schedule.state = types.Schedule.State.ACTIVE
        schedule.create_time = dt.datetime.now(dt.UTC)
        schedule.next_run_time = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        self.schedules[schedule.name] = schedule
        return schedule

    def _check_schedule(self, schedule: Any, context: grpc.ServicerContext) -> None:
        if not re.fullmatch(r"(TZ=[A-Za-z_/+-]+ )?(\S+ ){4}\S+", schedule.cron):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Invalid cron {schedule.cron!r}.")
        if schedule.max_concurrent_run_count < 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "max_concurrent_run_count must be positive.")
        if schedule.create_pipeline_job_request.pipeline_job_id:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "pipeline_job_id must not be set.")
        self._check(schedule.create_pipeline_job_request.pipeline_job, context)

    def _get_schedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name not in self.schedules:
            context.abort(grpc.StatusCode.NOT_FOUND, f"The Schedule {request.name} does not exist.")
        return self.schedules[request.name]

    def _list_schedules(self, request: Any, context: grpc.ServicerContext) -> Any:
        found = list(self.schedules.values())
        if request.filter:
            named = re.fullmatch(r'display_name="(.*)"', request.filter)
            assert named is not None
            found = [schedule for schedule in found if schedule.display_name == named[1]]
        return types.ListSchedulesResponse(schedules=found)

    def _update_schedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        known = self._get_schedule(types.GetScheduleRequest(name=request.schedule.name), context)
        self._check_schedule(request.schedule, context)
        for path in request.update_mask.paths:
            setattr(known, path, getattr(request.schedule, path))
        return known

    def _pause_schedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._get_schedule(request, context).state = types.Schedule.State.PAUSED
        return Empty()

    def _resume_schedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._get_schedule(request, context).state = types.Schedule.State.ACTIVE
        return Empty()

    def _get_context(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.name.removeprefix(f"{_CONTEXTS}/") not in self.experiments:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Context with name {request.name} is not found.")
        return types.Context(name=request.name, schema_title="system.Experiment")

    def _add_children(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._get_context(types.GetContextRequest(name=request.context), context)
        known = self.experiments[request.context.removeprefix(f"{_CONTEXTS}/")]
        known += [child for child in request.child_contexts if child not in known]
        return types.AddContextChildrenResponse()

    def _delete_schedule(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._get_schedule(request, context)
        del self.schedules[request.name]
        operation = Operation(name=f"{_PARENT}/operations/1", done=True)
        operation.response.Pack(Empty())
        return operation


@contextlib.contextmanager
def vertex_server(folder: Path) -> Iterator[VertexServer]:
    """Starts the service on a free loopback port, and stops it when the block ends.

    Args:
        folder: Where the certificate and the account's key go.
    """
    state = VertexServer()
    certificate, key = _certificate()
    (folder / "ca.pem").write_bytes(certificate)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers([_handlers(state, service) for service in (_JOBS, _SCHEDULES, _METADATA)])
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
    server.start()
    (folder / "account.json").write_text(json.dumps(_account(key)))
    state.endpoint = f"localhost:{port}"
    state.environment = {
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(folder / "ca.pem"),
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json"),
    }
    try:
        yield state
    finally:
        server.stop(grace=None).wait()


def _asks_to_wait(fault: Fault) -> Any:
    """The status of a service that says when to come back."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=fault.retry_seconds)))
    status = status_pb2.Status(code=fault.code.value[0], message=f"fault {fault.code.name}", details=[detail])
    return rpc_status.to_status(status)


def _handlers(state: VertexServer, service: str) -> grpc.GenericRpcHandler:
    def handler(name: str, request: Any, answer: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            lambda message, context: state.serve(name, message, context),
            request_deserializer=request.deserialize,
            # Messages of protobuf's own have no wrapper.
            response_serializer=answer.serialize if hasattr(answer, "serialize") else answer.SerializeToString,
        )

    methods = {
        name: handler(name, request, answer)
        for name, (_, request, answer) in state.methods().items()
        if service == (_SCHEDULES if "Schedule" in name else _METADATA if "Context" in name else _JOBS)
    }
    return grpc.method_handlers_generic_handler(service, methods)


def _certificate() -> tuple[bytes, bytes]:
    """A certificate for localhost that is its own authority, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def _account(key: bytes) -> dict[str, str]:
    """A service account's key file; it signs its own tokens, so that nobody has to be asked for one."""
    email = f"submitter@{PROJECT}.iam.gserviceaccount.com"
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "loopback",
        "private_key": key.decode(),
        "client_email": email,
        "client_id": "1",
        "token_uri": "https://oauth2.invalid/token",
    }
