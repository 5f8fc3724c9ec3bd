"""Signing in through Dex's form, and pipelines that are uploaded as versions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeparts.config import KubeflowConfig
from pipeparts.errors import InputError, ServiceError
from pipeparts.targets import kubeflow as target
from pipeparts.targets.kubeflow_login import session_cookie
from tests.targets.kubeflow_server import KubeflowServer

SESSION = "authservice_session=s3ss10n"


class Dex:
    """An installation's front door: it sends to Dex, whose form asks for a name and a password.

    Attributes:
        host: Its address.
        ways: The ways to sign in that Dex first shows a page with; empty: it shows the form at once.
        asks: Whether Dex asks for the approval.
        session: The cookie that it gives.
        posted: Every form that was sent.
    """

    def __init__(self) -> None:
        self.host = ""
        self.ways: tuple[str, ...] = ()
        self.asks = False
        self.session = SESSION
        self.posted: list[dict[str, str]] = []


@pytest.fixture
def dex() -> Iterator[Dex]:
    state = Dex()
    form = (
        b'<form method="post" action="/dex/auth/local/login?back=&amp;state=abc">'
        b'<input id="login" name="login" type="text"><input id="password" name="password" type="password"></form>'
    )
    approval = (
        b'<form method="post"><input type="hidden" name="req" value="r&amp;1"/>'
        b'<input type="hidden" name="approval" value="approve"></form>'
        b'<form method="post"><input type="hidden" name="req" value="r&amp;1"/>'
        b'<input type="hidden" name="approval" value="rejected"></form>'
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if SimpleCookie(self.headers.get("Cookie", "")).get("authservice_session"):
                self._send(200, b"the dashboard")
            elif path == "/":
                self._send(302, b"", Location="/dex/auth?client_id=x&state=abc")
            elif path == "/dex/auth" and state.ways:
                links = [f'<a href="/dex/auth/{way}?state=abc">{way}</a>' for way in state.ways]
                self._send(200, " ".join(links).encode())
            elif path == "/dex/auth" or (path.startswith("/dex/auth/") and path.rpartition("/")[2] in state.ways):
                self._send(200, form)
            elif path == "/dex/approval":
                self._send(200, approval)
            else:
                self._send(404, b"not here")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            given = {name: values[0] for name, values in parse_qs(body).items()}
            state.posted.append(given)
            if parse_qs(urlsplit(self.path).query).get("state") != ["abc"]:
                self._send(400, b"no state")
            elif given == {"login": "ana@example.org", "password": "correct"} and state.asks:
                self._send(303, b"", Location="/dex/approval?req=r&state=abc")
            elif given in (
                {"login": "ana@example.org", "password": "correct"},
                {"req": "r&1", "approval": "approve"},
            ):
                self._send(303, b"", Location="/", **{"Set-Cookie": f"{state.session}; Path=/; HttpOnly"})
            else:
                self._send(401, form)

        def _send(self, status: int, content: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.host = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("ways", [(), ("github", "ldap", "local"), ("ldap",)])
def test_a_session_comes_of_the_form(dex: Dex, ways: tuple[str, ...]) -> None:
    dex.ways = ways
    assert session_cookie(dex.host, "ana@example.org", "correct") == SESSION
    assert len(dex.posted) == 1


def test_a_session_comes_of_the_approval(dex: Dex) -> None:
    dex.asks = True
    assert session_cookie(dex.host, "ana@example.org", "correct") == SESSION
    assert dex.posted[1:] == [{"req": "r&1", "approval": "approve"}]
    with pytest.raises(InputError, match="the name or the password is wrong"):
        session_cookie(dex.host, "ana@example.org", "wrong")


def test_ways_without_a_password_are_no_form(dex: Dex) -> None:
    dex.ways = ("github", "google")
    with pytest.raises(InputError, match="it shows no form"):
        session_cookie(dex.host, "ana@example.org", "correct")
    assert not dex.posted


def test_a_wrong_password_is_said_and_not_shown(dex: Dex) -> None:
    with pytest.raises(InputError, match="the name or the password is wrong") as caught:
        session_cookie(dex.host, "ana@example.org", "a-wrong-password")
    assert "a-wrong-password" not in str(caught.value)
    assert "state=abc" not in str(caught.value)
    assert caught.value.facts["where"] == f"{dex.host}/dex/auth/local/login"


def test_a_place_without_a_form(dex: Dex, kubeflow: KubeflowServer) -> None:
    with pytest.raises(InputError, match="it shows no form"):
        session_cookie(kubeflow.host, "ana@example.org", "correct")
    with pytest.raises(ServiceError, match="the server does not answer"):
        session_cookie("http://127.0.0.1:9", "ana@example.org", "correct")
    assert not dex.posted


@pytest.fixture
def behind(dex: Dex, kubeflow: KubeflowServer, monkeypatch: pytest.MonkeyPatch) -> target.KubeflowTarget:
    """An installation that one signs in to; one address serves both in a real one, here the door is beside the API."""
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("KF_PASSWORD", "correct")
    kubeflow.cookie = SESSION
    monkeypatch.setattr(
        "pipeparts.targets.kubeflow_login.session_cookie",
        lambda host, *rest, **how: session_cookie(dex.host, *rest, **how),
    )
    config = {"host": kubeflow.host, "username": "ana@example.org", "password": "env:KF_PASSWORD"}
    return target.KubeflowTarget(KubeflowConfig(**config, registry="registry.example/team"))


@pytest.mark.parametrize("turned_away", [401, 302])
def test_a_session_that_ends_is_begun_anew(
    behind: target.KubeflowTarget,
    dex: Dex,
    kubeflow: KubeflowServer,
    spec: dict[str, Any],
    arguments: dict[str, Any],
    turned_away: int,
) -> None:
    kubeflow.turns_away = turned_away
    assert behind.runs() == []
    kubeflow.cookie = dex.session = "authservice_session=another"
    with contextlib.redirect_stdout(None):
        run = behind.submit(spec, arguments, key="k1")
    assert list(kubeflow.runs) == [run.run_id]
    kubeflow.cookie = dex.session = "authservice_session=a-third"
    assert behind.status(run.run_id).run_id == run.run_id
    assert len(dex.posted) == 3
    kubeflow.cookie = "authservice_session=nobody-has-this"
    with pytest.raises(InputError, match="access is denied" if turned_away == 401 else "it sends somewhere else"):
        behind.status(run.run_id)
    assert len(dex.posted) == 4, "it is tried once, not for ever"


def test_the_session_goes_with_every_request(behind: target.KubeflowTarget, kubeflow: KubeflowServer) -> None:
    assert behind.runs() == []
    with pytest.raises(InputError, match="who signs in is not clear"):
        target.KubeflowTarget(KubeflowConfig(host=kubeflow.host, username="ana@example.org")).runs()
    with pytest.raises(InputError, match="access is denied"):
        target.KubeflowTarget(KubeflowConfig(host=kubeflow.host)).runs()


# --- Versions -------------------------------------------------------------------------------------------------------


@pytest.fixture
def uploading(kubeflow: KubeflowServer, monkeypatch: pytest.MonkeyPatch) -> target.KubeflowTarget:
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setattr(target, "_LOOK_AGAIN_SECONDS", (0.0,))
    config = KubeflowConfig(host=kubeflow.host, upload=True, registry="registry.example/team")
    return target.KubeflowTarget(config)


def test_a_version_is_uploaded_once_for_its_content(
    uploading: target.KubeflowTarget, kubeflow: KubeflowServer, spec: dict[str, Any], arguments: dict[str, Any]
) -> None:
    with contextlib.redirect_stdout(None):
        for key in ("k1", "k2"):
            uploading.submit(spec, arguments, key=key)
        (pipeline,) = kubeflow.pipelines.values()
        assert pipeline["display_name"] == "train-and-register"
        versions = [v for v in kubeflow.versions.values() if v["display_name"] != "train-and-register"]
        (version,) = versions
        for run in kubeflow.runs.values():
            reference = run["pipeline_version_reference"]
            assert reference["pipeline_version_id"] == version["pipeline_version_id"]
        (first, second) = uploading.runs()
        assert (first.pipeline, first.key, second.key) == ("train-and-register", "k2", "k1")
        kubeflow.tasks = [
            {"display_name": name, "state": "RUNNING"} for name in ("root", "executor", "ingest-files(0)")
        ]
        assert [task.name for task in uploading.status(first.run_id).tasks] == ["ingest-files(0)"]
        scheduled = {**next(iter(kubeflow.runs.values())), "display_name": "nightly-1-2013", "run_id": "r3"}
        kubeflow.runs["r3"] = scheduled
        found = uploading.status("r3")
        assert (found.pipeline, found.key) == ("train-and-register", "")
        del kubeflow.runs["r3"]
        changed = {**spec, "pipelineInfo": {**spec["pipelineInfo"], "description": "another"}}
        uploading.submit(changed, arguments, key="k3")
    assert len(kubeflow.versions) == 3
    assert len(kubeflow.pipelines) == 1


@pytest.mark.parametrize("request_", [r"POST .*/pipelines/upload$", r"POST .*/pipelines/upload_version$"])
@pytest.mark.parametrize("status", [0, 409, 500])
def test_a_lost_answer_uploads_nothing_twice(
    uploading: target.KubeflowTarget,
    kubeflow: KubeflowServer,
    spec: dict[str, Any],
    arguments: dict[str, Any],
    request_: str,
    status: int,
) -> None:
    kubeflow.fail(request_, status, served=True)
    with contextlib.redirect_stdout(None):
        assert uploading.submit(spec, arguments, key="k1").new
    assert len(kubeflow.pipelines) == 1
    assert len(kubeflow.versions) == 2
    assert len(kubeflow.runs) == 1
