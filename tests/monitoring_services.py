"""What alerts and metrics go to, really started on loopback: a mail server, a webhook, a Pushgateway, a Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email
import email.message
import email.policy
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.services import SKIP, MissingServiceError, free_port

#: Of a Pushgateway that asks for a login, and what bcrypt makes of its password.
GATEWAY_LOGIN = ("pusher", "correct horse")
_GATEWAY_HASH = "$2b$04$uiRgzuGOAXWc1Jl9brxq7OENcCN2RTFZgfu2d.sHr1EkfvdiSGesy"

_START_SECONDS = 60.0


@dataclasses.dataclass
class Mail:
    """A mail that the server has taken.

    Attributes:
        sender: Of the envelope.
        recipients: Of the envelope.
        message: What was sent.
    """

    sender: str
    recipients: list[str]
    message: email.message.EmailMessage


@dataclasses.dataclass
class MailServer:
    """An SMTP server, and what it is told to do.

    Attributes:
        port: Its port on 127.0.0.1.
        login: User and password that it asks for, if any.
        mails: What it has taken, in order.
        answers: What it says to the next deliveries at the end of DATA; then "250 OK". None: it cuts the connection.
        refused: Recipient to what it says to them.
        during_hello: Called when somebody has connected, before he is answered.
        during_data: Called when a mail has come in, before it is answered.
        logins: The logins it was shown.
        connections: How many there were.
    """

    port: int = 0
    login: tuple[str, str] | None = None
    mails: list[Mail] = dataclasses.field(default_factory=list)
    answers: list[str | None] = dataclasses.field(default_factory=list)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)
    during_hello: Callable[[], None] | None = None
    during_data: Callable[[], None] | None = None
    logins: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    connections: int = 0

    def url(self, *people: str, login: str = "", options: str = "") -> str:
        """apprise's address of this server and some recipients."""
        to = "/".join(people or ("ops@example.com",))
        return f"mailto://{login}127.0.0.1:{self.port}/{to}?from=ml@example.com{options}"

    @property
    def mailbox(self) -> dict[str, email.message.EmailMessage]:
        """The mails as a mail system shows them that drops a second one of the same Message-ID."""
        return {mail.message["Message-ID"]: mail.message for mail in self.mails}

    # What aiosmtpd calls.
    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
        self.connections += 1
        if self.during_hello is not None:
            await asyncio.to_thread(self.during_hello)
        session.host_name = hostname
        return responses

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        if self.login and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer is not None and answer.startswith("250"):
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            assert isinstance(message, email.message.EmailMessage)
            self.mails.append(Mail(envelope.mail_from, list(envelope.rcpt_tos), message))
        if self.during_data is not None:
            await asyncio.to_thread(self.during_data)
        if answer is None:
            server.transport.abort()
            return "421 gone"
        return answer


@contextlib.contextmanager
def mail_server(login: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None) -> Iterator[MailServer]:
    """Starts an SMTP server; with a login it takes no mail without, with a TLS context it offers STARTTLS.

    Yields:
        The server, to look at what it has got and to tell it what to say.
    """
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import AuthResult, LoginPassword

    kept = MailServer(port=free_port(), login=login)

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        kept.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=kept.logins[-1] == login, handled=False)

    options: dict[str, Any] = {"authenticator": check, "auth_require_tls": False} if login else {}
    controller = Controller(kept, hostname="127.0.0.1", port=kept.port, tls_context=tls, **options)
    controller.start()
    try:
        yield kept
    finally:
        controller.stop()


def self_signed(folder: Path) -> ssl.SSLContext:
    """The TLS context of a server on 127.0.0.1 whose certificate nobody trusts."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


@dataclasses.dataclass
class Call:
    """A request that a webhook got."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclasses.dataclass
class Webhook:
    """A web server that takes JSON, and what it is told to do.

    Attributes:
        port: Its port on 127.0.0.1.
        calls: What it got, in order.
        answers: Status (and body) of the next answers; then 200.
        hangs_seconds: How long it waits before it answers.
        during_call: Called when a call has come in, before it is answered.
    """

    port: int = 0
    calls: list[Call] = dataclasses.field(default_factory=list)
    answers: list[int | tuple[int, str]] = dataclasses.field(default_factory=list)
    hangs_seconds: float = 0.0
    during_call: Callable[[], None] | None = None
    stopping: threading.Event = dataclasses.field(default_factory=threading.Event)

    def url(self, path: str = "/hook", *, login: str = "", options: str = "") -> str:
        """apprise's address of it."""
        return f"json://{login}127.0.0.1:{self.port}{path}{options}"


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """Starts a webhook receiver.

    Yields:
        The receiver, to look at what it has got and to tell it what to say.
    """
    kept = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept.calls.append(Call(self.path, dict(self.headers), json.loads(body) if body[:1] in b"{[" else body))
            if kept.during_call is not None:
                kept.during_call()
            answer = kept.answers.pop(0) if kept.answers else 200
            status, text = answer if isinstance(answer, tuple) else (answer, "")
            kept.stopping.wait(kept.hangs_seconds)
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    Handler.do_PUT = Handler.do_POST  # type: ignore[attr-defined]
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            kept.stopping.set()
            server.shutdown()
            thread.join()


def program(name: str) -> str:
    """The path of an installed program.

    Raises:
        MissingServiceError: Where it is not installed. Tests are skipped only where the environment says
            PIPEPARTS_SKIP_SERVICES=1.
    """
    if os.environ.get(SKIP) == "1":
        import pytest

        pytest.skip(f"needs {name}, and {SKIP}=1 is set")
    found = shutil.which(name)
    if found is None:
        raise MissingServiceError(
            f"these tests need {name}, and it is not installed"
            "\n  hint: apt-get install prometheus prometheus-pushgateway openssl"
            f"\n  hint: or set {SKIP}=1 to skip what needs a service"
        )
    return found


@contextlib.contextmanager
def pushgateway(folder: Path, *, login: bool = False) -> Iterator[str]:
    """Starts a Prometheus Pushgateway on loopback.

    Args:
        folder: For its log and its settings.
        login: Whether it asks for `GATEWAY_LOGIN`.

    Yields:
        Its address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # Debian's would keep what was pushed in /var/lib/prometheus, from test to test.
    command = [program("prometheus-pushgateway"), f"--web.listen-address=127.0.0.1:{port}", "--persistence.file="]
    if login:
        (folder / "web.yml").write_text(json.dumps({"basic_auth_users": {GATEWAY_LOGIN[0]: _GATEWAY_HASH}}))
        command.append(f"--web.config.file={folder / 'web.yml'}")
    with _running(command, folder / "pushgateway.log", f"http://127.0.0.1:{port}/-/ready"):
        yield f"http://127.0.0.1:{port}"


@dataclasses.dataclass
class Prometheus:
    """A running Prometheus."""

    address: str

    def ask(self, path: str, **query: str) -> Any:
        """Asks its API, and gives the answer's data.

        Raises:
            ValueError: With Prometheus's own words, for a query that it does not take.
        """
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{query}: {json.loads(error.read())['error']}") from None

    def value(self, expression: str) -> dict[str, float]:
        """An expression's present value, by the labels of its series."""
        series = self.ask("query", query=expression)["result"]
        return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in series}

    def wait_for(self, expression: str, seconds: float = 30.0) -> dict[str, float]:
        """Waits until an expression has a value."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.value(expression)
            if found:
                return found
            time.sleep(0.2)
        raise AssertionError(f"no value within {seconds:.0f} s: {expression}")

    def firing(self, name: str) -> list[dict[str, str]]:
        """The labels of the alerts of this name that fire."""
        alerts = [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return [alert["labels"] for alert in alerts if alert["labels"]["alertname"] == name]


@contextlib.contextmanager
def prometheus(folder: Path, gateway: str, rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """Starts a Prometheus on loopback that scrapes a Pushgateway every second, as the shipped guide says to.

    Args:
        folder: For its data, its settings and its log.
        gateway: The Pushgateway's address.
        rules: Files of rules, evaluated every second.

    Yields:
        The server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {
                "job_name": "pushgateway",
                "honor_labels": True,
                "static_configs": [{"targets": [gateway.removeprefix("http://")]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with _running(command, folder / "prometheus.log", f"http://127.0.0.1:{port}/-/ready"):
        yield Prometheus(f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def _running(command: list[str], log: Path, ready: str) -> Iterator[None]:
    setpriv = shutil.which("setpriv")  # so that it ends with the tests, however these end
    command = [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        until = time.monotonic() + _START_SECONDS
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                tail = log.read_text()[-3000:]
                raise RuntimeError(f"{command[0]} did not start (exit code {process.poll()}):\n{tail}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        with error:
            return error.code == 401
    except OSError:
        return False
