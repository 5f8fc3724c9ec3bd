"""Secrets from Google's Secret Manager: google-auth against the service on loopback, and the launcher of a step."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeparts.errors import InputError, ServiceError
from pipeparts.runtime import secret_manager
from pipeparts.runtime.secret_manager import access_secret
from tests.secret_manager_server import SecretManagerServer, secret_manager_server

VERSION = "projects/p/secrets/mlflow/versions/3"
SECRET = "s3cret äö"


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecretManagerServer]:
    with secret_manager_server(tmp_path_factory.mktemp("secrets")) as server:
        yield server


@pytest.fixture
def server(_server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch) -> SecretManagerServer:
    kept = {name: getattr(_server, name) for name in ("url", "account", "public_key")}
    _server.__dict__.update({**SecretManagerServer().__dict__, **kept})
    _server.secrets[VERSION] = SECRET.encode()
    for name, value in _server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(secret_manager, "_PAUSES", (0.0, 0.01))
    return _server


def test_a_secret_is_read(server: SecretManagerServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert access_secret(VERSION, parameter="TOKEN") == SECRET
    assert server.requests == [f"/v1/{VERSION}:access"]
    assert server.users == ["key"]
    assert SECRET not in caplog.text
    regional = "projects/p/locations/europe-west4/secrets/s/versions/latest"
    server.secrets[regional] = b"of a region"
    assert access_secret(regional, parameter="TOKEN") == "of a region"


@pytest.mark.parametrize("faults", [[0], [503], [429, 500], [0, 502]])
def test_a_service_that_is_away_for_a_moment(server: SecretManagerServer, faults: list[int]) -> None:
    server.faults = list(faults)
    assert access_secret(VERSION, parameter="TOKEN") == SECRET
    assert len(server.requests) >= len(faults) + 1


def test_a_service_that_stays_away(server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.faults = 3 * [503]
    with pytest.raises(ServiceError, match="Secret Manager does not answer") as caught:
        access_secret(VERSION, parameter="TOKEN")
    assert caught.value.facts == {"parameter": "TOKEN", "where": VERSION, "received": "status 503"}
    monkeypatch.setenv(secret_manager.ENDPOINT_VARIABLE, "http://127.0.0.1:9/")
    with pytest.raises(ServiceError, match="Secret Manager does not answer"):
        access_secret(VERSION, parameter="TOKEN")


def test_what_no_retry_mends(server: SecretManagerServer) -> None:
    def fails(version: str) -> InputError:
        asked = len(server.requests)
        with pytest.raises(InputError) as caught:
            access_secret(version, parameter="TOKEN")
        assert len(server.requests) <= asked + 1
        return caught.value

    assert fails("token").facts["allowed"] == "projects/PROJECT/secrets/SECRET/versions/VERSION"
    missing = fails("projects/p/secrets/mlflow/versions/4")
    assert missing.headline == "a secret is not there"
    assert "not found" in missing.facts["received"]
    server.denied = {VERSION}
    denied = fails(VERSION)
    assert denied.headline == "the step's account may not read a secret"
    assert "roles/secretmanager.secretAccessor" in denied.facts["allowed"]
    server.denied, server.disabled = set(), {VERSION}
    assert "is in DISABLED state" in fails(VERSION).facts["received"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"a\0b"])
def test_a_secret_that_no_variable_can_hold(server: SecretManagerServer, content: bytes) -> None:
    server.secrets[VERSION] = content
    with pytest.raises(InputError) as caught:
        access_secret(VERSION, parameter="TOKEN")
    assert caught.value.facts["where"] == VERSION


def test_a_damaged_answer(server: SecretManagerServer) -> None:
    server.damage = True
    with pytest.raises(ServiceError, match="damaged on its way") as caught:
        access_secret(VERSION, parameter="TOKEN")
    assert SECRET[:-1] not in str(caught.value)


def test_no_credentials(server: SecretManagerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(InputError, match="no Google credentials were found"):
        access_secret(VERSION, parameter="TOKEN")


# --- The launcher ---------------------------------------------------------------------------------------------------


def launch(
    *arguments: str, server: SecretManagerServer | None = None, code: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "CLOUDSDK_"))}
    return subprocess.run(
        [sys.executable, "-m", "pipeparts.runtime.launch", *arguments, "--", sys.executable, "-c", code, "argument"],
        env={**environment, "HOME": "/nowhere", **(server.machine if server else {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_step_has_the_secret_that_its_machines_account_may_read(server: SecretManagerServer) -> None:
    """As on Vertex AI: a component's parameter `env:TOKEN` is read as on every other platform."""
    code = (
        "import sys\nfrom pipeparts.runtime.secrets import read_secret\n"
        "print(ascii(read_secret('env:TOKEN', parameter='token')), sys.argv)"
    )
    done = launch(f"--secret=TOKEN={VERSION}", server=server, code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{SECRET!a} ['-c', 'argument']\n"
    assert server.users == ["machine"]
    assert SECRET not in done.stderr


def test_a_step_without_its_secret_does_not_start(server: SecretManagerServer, tmp_path: Path) -> None:
    server.denied = {VERSION}
    started = tmp_path / "started"
    done = launch(f"--secret=TOKEN={VERSION}", server=server, code=f"open({str(started)!r}, 'w')")
    assert done.returncode == 1
    assert not started.exists()
    assert done.stderr.startswith("the step did not start: the step's account may not read a secret\n")
    assert "Traceback" not in done.stderr


def test_the_commands_own_exit_code() -> None:
    assert launch(code="raise SystemExit(3)").returncode == 3
    assert launch("--timeout-seconds=60", code="raise SystemExit(3)").returncode == 3
    killed = launch("--timeout-seconds=60", code="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == 128 + signal.SIGKILL


@pytest.mark.slow
def test_a_step_whose_time_is_over_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    code = f"""
import pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
try:
    time.sleep(600)
finally:
    print("cleaned up", flush=True)
"""
    code = code.replace("import pathlib", "import signal; signal.signal(15, lambda *_: sys.exit(1)); import pathlib")
    done = launch("--timeout-seconds=15", code=f"import sys{code}")
    assert done.returncode == 124
    assert "the step's time is over: it may take 15 seconds" in done.stderr
    assert done.stdout == "cleaned up\n"
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def test_a_step_that_is_told_to_stop_is_told(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeparts.runtime.launch", "--timeout-seconds=500", "--", sys.executable, "-c", code]
    )
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert ready.exists()
    process.terminate()
    assert process.wait(60) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--secret=TOKEN", "--", "true"], "NAME=projects/PROJECT/secrets/SECRET/versions/VERSION"),
        ([], "there is no command behind --"),
        (["--", "/nowhere/program"], "the step did not start: /nowhere/program"),
        (["--timeout-seconds=5", "--", "/nowhere/program"], "the step did not start: /nowhere/program"),
    ],
)
def test_what_cannot_be_launched(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "pipeparts.runtime.launch", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
