"""Google's Secret Manager on loopback: the REST method that reads a version, and what hands out tokens for it.

The tokens come from an account's key (the OAuth server) or from the machine (the metadata server), as google-auth
asks for them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import google_crc32c
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt

from pipeparts.runtime.secret_manager import ENDPOINT_VARIABLE

EMAIL = "runner@loopback-project.iam.gserviceaccount.com"
_ACCESS = re.compile(r"/v1/(projects/[^/]+/(?:locations/[^/]+/)?secrets/[^/]+/versions/[^/:]+):access")
_TOKENS = {"key": "token-of-the-key", "machine": "token-of-the-machine"}


class SecretManagerServer:
    """The state of the service.

    Attributes:
        url: Its address.
        account: The key file of an account.
        secrets: Version's name to content.
        denied: Versions that the account may not read.
        disabled: Versions that are disabled.
        faults: Statuses that the next requests are answered with; 0 cuts the connection.
        damage: Whether the payload is changed after its checksum was taken.
        requests: Each request's path, in order.
        users: Who has asked for secrets: "key" or "machine".
    """

    def __init__(self) -> None:
        self.url = ""
        self.account = Path()
        self.public_key = b""
        self.secrets: dict[str, bytes] = {}
        self.denied: set[str] = set()
        self.disabled: set[str] = set()
        self.faults: list[int] = []
        self.damage = False
        self.requests: list[str] = []
        self.users: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a client with the account's key needs in its environment."""
        return {ENDPOINT_VARIABLE: self.url, "GOOGLE_APPLICATION_CREDENTIALS": str(self.account)}

    @property
    def machine(self) -> dict[str, str]:
        """What a client on a machine of Google's needs, as a step on Vertex AI has it."""
        host = urlsplit(self.url).netloc
        return {ENDPOINT_VARIABLE: self.url, "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}

    def access(self, name: str, token: str | None) -> tuple[int, Any]:
        """Reads a version."""
        user = next((user for user, known in _TOKENS.items() if token == f"Bearer {known}"), None)
        if user is None:
            return 401, _problem(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        self.users.append(user)
        if name in self.denied:
            message = f"Permission 'secretmanager.versions.access' denied for resource '{name}'."
            return 403, _problem(403, "PERMISSION_DENIED", message)
        if name not in self.secrets:
            return 404, _problem(404, "NOT_FOUND", f"Secret Version [{name}] not found.")
        if name in self.disabled:
            return 400, _problem(400, "FAILED_PRECONDITION", f"Secret Version [{name}] is in DISABLED state.")
        data = self.secrets[name]
        checksum = str(google_crc32c.value(data))
        data = data[:-1] + b"?" if self.damage else data
        return 200, {"name": name, "payload": {"data": base64.b64encode(data).decode(), "dataCrc32c": checksum}}

    def token(self, body: bytes) -> tuple[int, Any]:
        """Trades an assertion that the account has signed for a token."""
        form = parse_qs(body.decode())
        claims = jwt.decode(form["assertion"][0], certs=self.public_key)
        assert claims["iss"] == EMAIL
        assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        return 200, {"access_token": _TOKENS["key"], "expires_in": 3600, "token_type": "Bearer"}

    def metadata(self, path: str) -> tuple[int, Any]:
        """What a machine of Google's knows about itself."""
        if path.endswith("/token"):
            return 200, {"access_token": _TOKENS["machine"], "expires_in": 3600, "token_type": "Bearer"}
        if path.endswith("/project/project-id"):
            return 200, "loopback-project"
        if path.endswith("/universe/universe-domain"):
            return 200, "googleapis.com"
        return 200, {"email": EMAIL, "scopes": ["https://www.googleapis.com/auth/cloud-platform"], "aliases": []}


def _problem(code: int, status: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status}}


@contextlib.contextmanager
def secret_manager_server(folder: Path) -> Iterator[SecretManagerServer]:
    """Starts the service on a free loopback port, and stops it when the block ends.

    Args:
        folder: Where the account's key goes.
    """
    state = SecretManagerServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._answer(*state.token(self.rfile.read(int(self.headers.get("Content-Length") or 0))))

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if self.headers.get("Metadata-Flavor") == "Google":
                self._answer(*state.metadata(path))
                return
            state.requests.append(path)
            fault = state.faults.pop(0) if state.faults else None
            if fault == 0:
                self.close_connection = True
                self.connection.close()
            elif fault is not None:
                self._answer(fault, _problem(fault, "UNAVAILABLE", "The service is currently unavailable."))
            elif found := _ACCESS.fullmatch(path):
                self._answer(*state.access(found[1], self.headers.get("Authorization")))
            else:
                self._answer(404, "<html>Not Found</html>")

        def _answer(self, status: int, answer: Any) -> None:
            text = isinstance(answer, str)
            content = answer.encode() if text else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if text else "application/json")
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}/"
    state.account = folder / "account.json"
    state.public_key, key = _account(f"{state.url}token")
    state.account.write_text(json.dumps(key))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _account(token_uri: str) -> tuple[bytes, dict[str, str]]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    facts = {"type": "service_account", "project_id": "loopback-project", "private_key_id": "loopback"}
    return public, {**facts, "private_key": private.decode(), "client_email": EMAIL, "token_uri": token_uri}
