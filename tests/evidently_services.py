"""Evidently's own UI, really started on loopback on a workspace's folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.services import free_port

_START_SECONDS = 90.0


@contextlib.contextmanager
def evidently_ui(workspace: Path, secret: str = "") -> Iterator[str]:
    """Starts `evidently ui` on a folder, and stops it when the block ends.

    Yields:
        Its address.
    """
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    program = Path(sys.executable).parent / "evidently"
    command = [str(program), "ui", "--workspace", str(workspace), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--secret", secret] if secret else []
    workspace.mkdir(parents=True, exist_ok=True)
    log = workspace.parent / f"evidently-{port}.log"
    environment = {**os.environ, "DO_NOT_TRACK": "1", "HOME": str(workspace.parent), "GIT_COMMIT": "-"}
    setpriv = [setpriv_path, "--pdeathsig", "KILL"] if (setpriv_path := shutil.which("setpriv")) else []
    with log.open("wb") as output:
        process = subprocess.Popen([*setpriv, *command], stdout=output, stderr=output, env=environment)
    try:
        _wait_for(address, process, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def ask(url: str, body: Any = None) -> Any:
    """What a server's HTTP API answers."""
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"evidently ui ended with exit code {process.returncode}\n{log.read_text()}")
        try:
            ask(f"{address}/api/version")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise RuntimeError(f"evidently ui did not answer within {_START_SECONDS:.0f} s\n{log.read_text()}")
