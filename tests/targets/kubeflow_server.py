"""A Kubeflow Pipelines API on loopback: v2beta1 over HTTP, its messages held to kfp_server_api's own models."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import email
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec import pipeline_spec_pb2

from tests.targets.metadata_store import PREFIX as STORE_PREFIX
from tests.targets.metadata_store import MetadataStore

PREFIX = "/apis/v2beta1"


@dataclasses.dataclass
class Fault:
    """What goes wrong with the next requests of a kind.

    Attributes:
        request: A pattern for "METHOD path".
        status: The answer's status; 0 for no answer at all.
        served: Whether the request is carried out first: a run may be made, and the answer lost.
        hang_seconds: How long the server keeps silent before.
        times: How many requests.
        cut: "request": the connection ends while the request is read; "answer": while the answer is written.
        retry_after: What the answer's Retry-After says; empty: it has none.
    """

    request: str
    status: int = 0
    served: bool = False
    hang_seconds: float = 0.0
    times: int = 1
    cut: str = ""
    retry_after: str = ""


class KubeflowServer:
    """The state of the installation, and what tests ask of it.

    Attributes:
        host: The address for `kfp.Client`.
        token: The token that every request must carry; empty: any.
        multi_user: Whether namespaces are needed.
        states: What a run's state is, look by look; the last stays.
        error: The error's message of a run that fails.
        experiments: By id, as the API gives them.
        runs: By id, as the API gives them.
        recurring: The recurring runs by id, as the API gives them.
        pipelines: By id, as the API gives them.
        versions: The pipelines' versions by id, as the API gives them.
        tasks: What a run's tasks are, as the API gives them; the same for every run.
        store: The metadata store, at the top of the host as behind the console.
        cookie: The session's cookie that every request must carry; empty: none.
        turns_away: The status for a request without the session's cookie; a redirect goes to a form.
        requests: Each request's "METHOD path", in order.
        faults: What goes wrong, the first that fits first.
    """

    def __init__(self) -> None:
        self.host = ""
        self.token = ""
        self.multi_user = False
        self.states = ["SUCCEEDED"]
        self.error = ""
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.tasks: list[dict[str, Any]] = []
        self.store = MetadataStore()
        self.cookie = ""
        self.turns_away = 401
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.page_size = 100
        self.lock = threading.RLock()
        self._clock = dt.datetime(2013, 9, 1, tzinfo=dt.UTC)
        self._looks: dict[str, int] = {}

    def fail(self, request: str, status: int = 0, **how: Any) -> None:
        """Lets requests go wrong."""
        self.faults.append(Fault(request, status, **how))

    def add_run(self, name: str, state: str = "RUNNING") -> dict[str, Any]:
        """A run that somebody else has made."""
        with self.lock:
            return self._store_run({"display_name": name, "experiment_id": "another"}, state)

    def fault(self, request: str) -> Fault | None:
        """The fault for a request, used up by one."""
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.request, request):
                    fault.times -= 1
                    return fault
        return None

    def handle(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Carries out a request."""
        with self.lock:
            for pattern, action in self._actions():
                if match := re.fullmatch(pattern, f"{method} {path}"):
                    return action(*match.groups(), query=query, body=body)
        return 404, _problem(5, f"Not Found: {path}")

    def _actions(self) -> list[tuple[str, Callable[..., tuple[int, Any]]]]:
        return [
            (f"GET {PREFIX}/healthz", self._health),
            (f"GET {PREFIX}/experiments", self._list_experiments),
            (f"POST {PREFIX}/experiments", self._create_experiment),
            (f"GET {PREFIX}/runs", self._list_runs),
            (f"POST {PREFIX}/runs", self._create_run),
            (f"GET {PREFIX}/runs/([^/:]+)", self._get_run),
            (f"POST {PREFIX}/runs/([^/:]+):terminate", self._terminate_run),
            (f"GET {PREFIX}/recurringruns", self._list_recurring),
            (f"POST {PREFIX}/recurringruns", self._create_recurring),
            (f"POST {PREFIX}/recurringruns/([^/:]+):(enable|disable)", self._switch_recurring),
            (f"DELETE {PREFIX}/recurringruns/([^/:]+)", self._delete_recurring),
            (f"GET {PREFIX}/pipelines", self._list_pipelines),
            (f"GET {PREFIX}/pipelines/([^/:]+)/versions/([^/:]+)", self._get_version),
            (f"POST {PREFIX}/pipelines/upload", self._upload_pipeline),
            (f"POST {PREFIX}/pipelines/upload_version", self._upload_version),
            (f"GET {PREFIX}/pipelines/([^/:]+)/versions", self._list_versions),
        ]

    def _health(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        return 200, checked("V2beta1GetHealthzResponse", {"multi_user": self.multi_user})

    def _create_experiment(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        experiment = checked("V2beta1Experiment", body)
        if self.multi_user and not experiment.get("namespace"):
            return 400, _problem(3, "Invalid resource references for experiment. Namespace is empty.")
        key = (experiment["display_name"], experiment.get("namespace", ""))
        if key in {(e["display_name"], e.get("namespace", "")) for e in self.experiments.values()}:
            return 409, _problem(6, f"The name {key[0]} already exist.")
        experiment["experiment_id"] = str(uuid.uuid4())
        experiment["created_at"] = self._now()
        self.experiments[experiment["experiment_id"]] = experiment
        return 200, checked("V2beta1Experiment", experiment)

    def _list_experiments(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if problem := self._namespace_problem(query):
            return problem
        found = [e for e in self.experiments.values() if e.get("namespace", "") == query.get("namespace", "")]
        return self._page("V2beta1ListExperimentsResponse", "experiments", found, query)

    def _create_run(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        run = checked("V2beta1Run", body)
        if run.get("experiment_id") not in self.experiments:
            return 404, _problem(5, f"Experiment {run.get('experiment_id')} not found.")
        if problem := self._spec_problem(run):
            return problem
        return 200, checked("V2beta1Run", self._store_run(run, "PENDING"))

    def _spec_problem(self, made: dict[str, Any]) -> tuple[int, Any] | None:
        """What is wrong with the pipeline of a run or a recurring run, or with its parameters."""
        if reference := made.get("pipeline_version_reference"):
            version = self.versions.get(reference["pipeline_version_id"])
            if version is None or version["pipeline_id"] != reference["pipeline_id"]:
                return 404, _problem(5, f"PipelineVersion {reference} not found.")
            document = version["pipeline_spec"]
        else:
            document = made["pipeline_spec"]
        try:
            # A pipeline with settings of Kubernetes has two documents.
            core = document.get("pipeline_spec", document)
            spec = json_format.ParseDict(core, pipeline_spec_pb2.PipelineSpec())
            if "platform_spec" in document:
                check_platform(document["platform_spec"], set(spec.components))
        except json_format.ParseError as error:
            return 400, _problem(3, f"Invalid IR spec format: {error}")
        declared = spec.root.input_definitions.parameters
        given = made.get("runtime_config", {}).get("parameters", {})
        if unknown := set(given) - set(declared):
            return 400, _problem(3, f"input parameter not allowed: {sorted(unknown)}")
        return None

    def _store_run(self, run: dict[str, Any], state: str) -> dict[str, Any]:
        run = {**run, "run_id": str(uuid.uuid4()), "created_at": self._now(), "state": state}
        self.runs[run["run_id"]] = run
        return run

    def _list_runs(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if not query.get("experiment_id") and (problem := self._namespace_problem(query)):
            return problem
        return self._page("V2beta1ListRunsResponse", "runs", list(self.runs.values()), query)

    def _get_run(self, run_id: str, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if run_id not in self.runs:
            return 404, _problem(5, f"Run {run_id} not found.")
        run = self.runs[run_id]
        if run["state"] not in ("SUCCEEDED", "FAILED", "CANCELED"):
            look = self._looks.get(run_id, 0)
            self._looks[run_id] = look + 1
            run["state"] = self.states[min(look, len(self.states) - 1)]
            if run["state"] == "FAILED":
                run["error"] = {"code": 2, "message": self.error}
            if run["state"] in ("SUCCEEDED", "FAILED", "CANCELED"):
                run["finished_at"] = self._now()
        if self.tasks:
            run["run_details"] = {"task_details": self.tasks}
        return 200, checked("V2beta1Run", run)

    def _terminate_run(self, run_id: str, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if run_id not in self.runs:
            return 404, _problem(5, f"Run {run_id} not found.")
        self.runs[run_id]["state"] = "CANCELED"
        return 200, {}

    def _create_recurring(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        made = checked("V2beta1RecurringRun", body)
        if made.get("experiment_id") not in self.experiments:
            return 404, _problem(5, f"Experiment {made.get('experiment_id')} not found.")
        if problem := self._spec_problem(made):
            return problem
        cron = made.get("trigger", {}).get("cron_schedule", {}).get("cron", "")
        if len(cron.split()) != 6:
            return 400, _problem(3, f"Schedule cron {cron!r} is invalid: it has six fields, the second first.")
        if re.search(r"[7-9L#]", cron.split()[5].partition("/")[0]):
            return 400, _problem(3, f"Schedule cron is not a supported format. End of range above maximum (6): {cron}")
        status = "DISABLED" if made.get("mode") == "DISABLE" else "ENABLED"
        made = {**made, "recurring_run_id": str(uuid.uuid4()), "created_at": self._now(), "status": status}
        self.recurring[made["recurring_run_id"]] = made
        return 200, checked("V2beta1RecurringRun", made)

    def _list_recurring(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if problem := self._namespace_problem(query):
            return problem
        found = list(self.recurring.values())
        return self._page("V2beta1ListRecurringRunsResponse", "recurringRuns", found, query)

    def _switch_recurring(self, name: str, how: str, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if name not in self.recurring:
            return 404, _problem(5, f"RecurringRun {name} not found.")
        self.recurring[name]["status"] = "ENABLED" if how == "enable" else "DISABLED"
        return 200, {}

    def _delete_recurring(self, name: str, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if self.recurring.pop(name, None) is None:
            return 404, _problem(5, f"RecurringRun {name} not found.")
        return 200, {}

    def _list_pipelines(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        return self._page("V2beta1ListPipelinesResponse", "pipelines", list(self.pipelines.values()), query)

    def _get_version(self, pipeline_id: str, version: str, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        found = self.versions.get(version)
        if found is None or found["pipeline_id"] != pipeline_id:
            return 404, _problem(5, f"PipelineVersion {version} not found.")
        return 200, checked("V2beta1PipelineVersion", found)

    def _list_versions(self, pipeline_id: str, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        found = [version for version in self.versions.values() if version["pipeline_id"] == pipeline_id]
        return self._page("V2beta1ListPipelineVersionsResponse", "pipeline_versions", found, query)

    def _upload_pipeline(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if query["name"] in {pipeline["display_name"] for pipeline in self.pipelines.values()}:
            return 409, _problem(6, f"The name {query['name']} already exist.")
        made = {"pipeline_id": str(uuid.uuid4()), "display_name": query["name"], "created_at": self._now()}
        self.pipelines[made["pipeline_id"]] = made
        self._store_version(made["pipeline_id"], query["name"], body)  # which Kubeflow does too
        return 200, checked("V2beta1Pipeline", made)

    def _upload_version(self, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        if query["pipelineid"] not in self.pipelines:
            return 404, _problem(5, f"Pipeline {query['pipelineid']} not found.")
        if query["name"] in {version["display_name"] for version in self.versions.values()}:
            return 409, _problem(6, f"The name {query['name']} already exist.")
        return 200, checked("V2beta1PipelineVersion", self._store_version(query["pipelineid"], query["name"], body))

    def _store_version(self, pipeline_id: str, name: str, text: str) -> dict[str, Any]:
        documents = list(yaml.safe_load_all(text))
        spec = documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        made = {
            "pipeline_version_id": str(uuid.uuid4()),
            "pipeline_id": pipeline_id,
            "display_name": name,
            "created_at": self._now(),
            "pipeline_spec": spec,
        }
        self.versions[made["pipeline_version_id"]] = made
        return made

    def _namespace_problem(self, query: dict[str, str]) -> tuple[int, Any] | None:
        if self.multi_user and not query.get("namespace"):
            return 400, _problem(3, "Invalid resource references: namespace is required in multi-user mode.")
        if not self.multi_user and query.get("namespace"):
            return 400, _problem(3, "In single-user mode, cannot filter by namespace.")
        return None

    def _page(self, model: str, name: str, found: list[Any], query: dict[str, str]) -> tuple[int, Any]:
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
            assert predicate["operation"] in ("EQUALS", 1)  # an enumeration's name, or its number
            found = [item for item in found if item.get(predicate["key"]) == predicate["stringValue"]]
        if query.get("sort_by"):
            key, _, order = query["sort_by"].partition(" ")
            found = sorted(found, key=lambda item: str(item.get(key)), reverse=order == "desc")
        start = int(query.get("page_token") or 0)
        end = start + min(int(query.get("page_size") or 20), self.page_size)
        answer = {name: found[start:end], "total_size": len(found)}
        if end < len(found):
            answer["next_page_token"] = str(end)
        return 200, checked(model, answer)

    def _now(self) -> str:
        self._clock += dt.timedelta(seconds=1)
        return self._clock.isoformat().replace("+00:00", "Z")


def check_platform(document: dict[str, Any], components: set[str]) -> None:
    """Reads a platform's document as the backend does: each executor's part is a KubernetesExecutorConfig."""
    platform = json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
    for label, struct in platform.platforms["kubernetes"].deployment_spec.executors.items():
        json_format.ParseDict(json_format.MessageToDict(struct), KubernetesExecutorConfig())
        if label.replace("exec-", "comp-", 1) not in components:
            raise json_format.ParseError(f"no executor {label}")


def checked(model: str, document: dict[str, Any]) -> dict[str, Any]:
    """A message, after kfp_server_api's model has taken it in and given it out unchanged."""
    client = kfp_server_api.ApiClient(kfp_server_api.Configuration())

    class Response:
        data = json.dumps(document)

    read = client.sanitize_for_serialization(client.deserialize(Response, model))
    unknown = set(document) - set(read)
    assert not unknown, f"{model} has no {sorted(unknown)}"
    return document


def _problem(code: int, message: str) -> dict[str, Any]:
    return {"error": message, "code": code, "message": message, "details": []}


@contextlib.contextmanager
def kubeflow_server() -> Iterator[KubeflowServer]:
    """Starts the API on a free loopback port, and stops it when the block ends."""
    state = KubeflowServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def do_DELETE(self) -> None:
            self._serve()

        def _serve(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            fault = state.fault(f"{self.command} {url.path}")
            length = int(self.headers.get("Content-Length") or 0)
            if fault is not None and fault.cut == "request":
                self.rfile.read(length // 2)
                self._answer(0, None)
                return
            body = self.rfile.read(length)
            if fault is not None:
                time.sleep(fault.hang_seconds)
            if fault is not None and not fault.served:
                self._answer(fault.status, _problem(13, f"fault {fault.status}"), fault)
                return
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                self._answer(401, _problem(16, "Request header error: there is no valid token."))
                return
            if state.cookie and self.headers.get("Cookie") != state.cookie:
                self._answer(state.turns_away, _problem(16, "there is no session."))
                return
            if url.path.startswith(STORE_PREFIX):
                content = state.store.answer(url.path.removeprefix(STORE_PREFIX), body)
                self._send(200, content, "application/grpc-web+proto")
                return
            status, answer = state.handle(self.command, url.path, query, self._content(body))
            self._answer(fault.status if fault is not None and not fault.cut else status, answer, fault)

        def _content(self, body: bytes) -> Any:
            """The JSON of a request, or the file of a form."""
            kind = self.headers.get("Content-Type") or ""
            if not kind.startswith("multipart/form-data"):
                return json.loads(body) if body else None
            message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            (part,) = message.get_payload()
            return part.get_payload(decode=True).decode()

        def _answer(self, status: int, answer: Any, fault: Fault | None = None) -> None:
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            self._send(status, json.dumps(answer).encode(), "application/json", fault)

        def _send(self, status: int, content: bytes, kind: str, fault: Fault | None = None) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody waited for it
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                if status in (302, 303):
                    self.send_header("Location", "/dex/auth?state=abc")
                if fault is not None and fault.retry_after:
                    self.send_header("Retry-After", fault.retry_after)
                self.end_headers()
                if fault is not None and fault.cut == "answer":
                    self.wfile.write(content[: len(content) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a connection that a fault has cut

    server = Server(("127.0.0.1", 0), Handler)
    state.host = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
