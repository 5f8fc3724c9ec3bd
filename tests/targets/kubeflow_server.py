"""A Kubeflow Pipelines API on loopback: v2beta1 over HTTP, its messages held to kfp_server_api's own models."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
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
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

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
    """

    request: str
    status: int = 0
    served: bool = False
    hang_seconds: float = 0.0
    times: int = 1


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
        try:
            spec = json_format.ParseDict(run["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
        except json_format.ParseError as error:
            return 400, _problem(3, f"Invalid IR spec format: {error}")
        declared = spec.root.input_definitions.parameters
        given = run.get("runtime_config", {}).get("parameters", {})
        if unknown := set(given) - set(declared):
            return 400, _problem(3, f"input parameter not allowed: {sorted(unknown)}")
        return 200, checked("V2beta1Run", self._store_run(run, "PENDING"))

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
        return 200, checked("V2beta1Run", run)

    def _terminate_run(self, run_id: str, *, query: dict[str, str], body: Any) -> tuple[int, Any]:
        self.runs[run_id]["state"] = "CANCELED"
        return 200, {}

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
        start = int(query.get("page_token") or 0)
        end = start + min(int(query.get("page_size") or 20), self.page_size)
        answer = {name: found[start:end], "total_size": len(found)}
        if end < len(found):
            answer["next_page_token"] = str(end)
        return 200, checked(model, answer)

    def _now(self) -> str:
        self._clock += dt.timedelta(seconds=1)
        return self._clock.isoformat().replace("+00:00", "Z")


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

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            fault = state.fault(f"{self.command} {url.path}")
            if fault is not None:
                time.sleep(fault.hang_seconds)
            if fault is not None and not fault.served:
                self._answer(fault.status, _problem(13, f"fault {fault.status}"))
                return
            if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
                self._answer(401, _problem(16, "Request header error: there is no valid token."))
                return
            status, answer = state.handle(self.command, url.path, query, json.loads(body) if body else None)
            self._answer(fault.status if fault is not None else status, answer)

        def _answer(self, status: int, answer: Any) -> None:
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            content = json.dumps(answer).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody waited for it
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
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
