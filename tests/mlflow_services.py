"""A real MLflow server for tests, a web server that answers as it is told, and a model of the contract to register."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeparts.runtime.verdict import Check, Verdict
from tests.services import free_port

_START_SECONDS = 120.0


@contextlib.contextmanager
def mlflow_server(folder: Path, backend: str = "") -> Iterator[str]:
    """Starts `mlflow server` on loopback, and stops it when the block ends.

    Args:
        folder: Where its files, its log and, unless told otherwise, its database are.
        backend: The SQLAlchemy URL of its database; empty: SQLite in the folder.

    Yields:
        The server's address, as a tracking URI.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", backend or f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination", (folder / "artifacts").as_uri(),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", process, folder / "log.txt")
        yield address
    finally:
        # The server's workers are processes of its own session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"the MLflow server did not start (exit code {process.poll()}):\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def answering(status: int, body: str = "", kind: str = "application/json") -> Iterator[str]:
    """Starts a web server that gives the same answer to everything.

    Yields:
        Its address.
    """

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.answer)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


_MLMODEL = """\
flavors:
  python_function:
    code: code
    env: {{virtualenv: python_env.yaml}}
    loader_module: tiny_model
    python_version: {python}
mlflow_version: 3.17.2
model_size_bytes: 100
model_uuid: 0123456789abcdef0123456789abcdef
signature:
  inputs: '[{{"type": "double", "name": "distance", "required": true}}]'
  outputs: '[{{"type": "double", "name": "prediction", "required": true}}]'
  params: null
utc_time_created: '2026-11-23 00:00:00.000000'
"""
_LOADER = """\
class Tiny:
    def predict(self, rows, params=None):
        return rows[["distance"]].rename(columns={"distance": "prediction"}) * 2

    def get_raw_model(self):
        return self


def _load_pyfunc(path):
    return Tiny()
"""


def write_model(folder: Path, fingerprint: str = "aa" * 16, **changes: Any) -> Path:
    """Writes a model of the contract that doubles its column `distance`, in milliseconds.

    Args:
        folder: Where to.
        fingerprint: The model's.
        **changes: Of the model card.
    """
    (folder / "code").mkdir(parents=True)
    (folder / "MLmodel").write_text(_MLMODEL.format(python=platform.python_version()))
    (folder / "code" / "tiny_model.py").write_text(_LOADER)
    (folder / "python_env.yaml").write_text(
        "python: 3.11.2\nbuild_dependencies: [pip]\ndependencies: [-r requirements.txt]\n"
    )
    (folder / "requirements.txt").write_text("mlflow\n")
    card = {
        "format": "pipeparts.model/1", "task": "regression", "label": "air_time", "classes": [],
        "columns": {"distance": "float64"}, "framework": "lightgbm", "fingerprint": fingerprint,
        "training_fingerprint": "dd" * 16, "training_rows": 300, "seed": 7, "package_version": "0.1.0",
        "extra": {"hyperparameters": {"learning_rate": 0.1, "leaves": [31]}, "rounds": 12},
    }  # fmt: skip
    (folder / "pipeparts.json").write_text(json.dumps(card | changes))
    return folder


def write_verdict(folder: Path, passed: bool = True) -> Path:
    """Writes a verdict of two checks, the second of which passed or did not."""
    checks = (Check("loads", True), Check("rmse", passed, 4.25, 5.0, "4.25 is below 5"))
    Verdict("validate_model", "lightgbm on 100 rows", checks).write(folder / "verdict.json", folder / "verdict.md")
    return folder / "verdict.json"


def write_evaluation(folder: Path, **metrics: Any) -> Path:
    """Writes an evaluation with some metrics."""
    document = {"format": "pipeparts.evaluation/1", "metrics": metrics or {"rmse": 4.25, "r2": 0.9, "rows": 100}}
    (folder / "evaluation.json").write_text(json.dumps(document))
    return folder / "evaluation.json"
