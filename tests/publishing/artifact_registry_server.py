"""Artifact Registry's Kubeflow Pipelines repositories on loopback, as the real client sees them.

The client knows its hosts by name and speaks TLS to them. So this is a proxy, to which the environment points: it ends
the TLS of any host with a certificate of its own, and answers as the host would: uploads and downloads of
`LOCATION-kfp.pkg.dev`, the API of `artifactregistry.googleapis.com`, and the tokens of `oauth2.googleapis.com`, for
which the client has to sign with the key of a service account that is made here.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email.parser
import email.policy
import hashlib
import http.server
import json
import re
import socketserver
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

HOSTS = ("europe-kfp.pkg.dev", "artifactregistry.googleapis.com", "oauth2.googleapis.com")
ADDRESS = "https://europe-kfp.pkg.dev/project/templates"
PARENT = "projects/project/locations/europe/repositories/templates/packages"
ACCOUNT = "publisher@project.iam.gserviceaccount.com"


class Registry:
    """What the server holds, and how it is to fail.

    Attributes:
        packages: Package to its contents by version ("sha256:...").
        tags: Package to tag to version.
        requests: Each request: method, and the address with its host.
        faults: (regular expression for "METHOD address", status or "cut"), each used up once.
        denied: Whether the account lacks the role.
    """

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.key = key
        self.token = "ya29.made-on-loopback"
        self.packages: dict[str, dict[str, bytes]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.requests: list[str] = []
        self.faults: list[tuple[str, int | str]] = []
        self.denied = False
        self.page_size = 2
        self.lock = threading.Lock()

    def fault(self, request: str) -> int | str | None:
        for position, (pattern, what) in enumerate(self.faults):
            if re.search(pattern, request):
                del self.faults[position]
                return what
        return None

    def grant(self, form: dict[str, str]) -> dict[str, Any]:
        """A token for a signed claim, as Google gives it."""
        from google.auth import jwt

        certificate = _certificate(self.key, "service account", self.key, "service account")
        claim = jwt.decode(form["assertion"], certs=certificate.public_bytes(serialization.Encoding.PEM))
        assert claim["iss"] == ACCOUNT
        assert claim["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        assert claim["exp"] > time.time()
        return {"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Registry
    context: ssl.SSLContext
    host = ""

    def log_message(self, *_: Any) -> None:
        pass

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_CONNECT(self) -> None:
        self.host = self.path.partition(":")[0]
        assert self.host in HOSTS, self.host
        self.send_response_only(200, "Connection established")
        self.end_headers()
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")  # type: ignore[assignment]
        self.wfile = socketserver._SocketWriter(self.connection)  # type: ignore[attr-defined, assignment]
        self.close_connection = False

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = f"{self.command} {self.host}{self.path}"
        with self.registry.lock:
            self.registry.requests.append(request)
            fault = self.registry.fault(request)
            after = isinstance(fault, str) and fault == "cut after"
            if fault is not None and not after:
                self._fail(fault)
                return
            answer = self._answer(body)
        if after:
            self._fail("cut")
            return
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if not isinstance(content, bytes) else "text/plain")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def _fail(self, fault: int | str) -> None:
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
            return
        content = json.dumps({"error": {"code": fault, "message": f"planted {fault}", "status": "PLANTED"}}).encode()
        self.send_response(int(fault))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _answer(self, body: bytes) -> Any:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = urllib.parse.unquote(url.path)
        if self.host == "oauth2.googleapis.com":
            return self.registry.grant(dict(urllib.parse.parse_qsl(body.decode())))
        if self.headers.get("authorization") != f"Bearer {self.registry.token}":
            return _error(401, "Request had invalid authentication credentials.")
        if self.registry.denied:
            return _error(403, "Permission 'artifactregistry.repositories.uploadArtifacts' denied.")
        if self.host == "europe-kfp.pkg.dev":
            if not path.startswith("/project/templates"):
                return _error(404, "Repository not found.")
            rest = [part for part in path.removeprefix("/project/templates").split("/") if part]
            return self._upload(body) if self.command == "POST" else self._download(*rest)
        if not path.startswith(f"/v1/{PARENT}"):
            return _error(404, "Repository not found.")
        return self._api([part for part in path.removeprefix(f"/v1/{PARENT}").split("/") if part], query, body)

    def _upload(self, body: bytes) -> Any:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
        parts = {part.get_param("name", header="content-disposition"): part for part in message.iter_parts()}
        content = parts["content"].get_payload(decode=True)
        try:
            package = yaml.safe_load(content)["pipelineInfo"]["name"]
        except Exception:
            return _error(400, "The pipeline is not valid.")
        version = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.registry.packages.setdefault(package, {})[version] = content
        tags = self.registry.tags.setdefault(package, {})
        if "tags" in parts:
            tags.update(dict.fromkeys(parts["tags"].get_payload(decode=True).decode().split(","), version))
        return 200, f"{package}/{version}".encode()

    def _download(self, package: str = "", version: str = "") -> Any:
        version = self.registry.tags.get(package, {}).get(version, version)
        content = self.registry.packages.get(package, {}).get(version)
        return _error(404, "The file was not found.") if content is None else (200, content)

    def _api(self, rest: list[str], query: dict[str, str], body: bytes) -> Any:
        packages, tags = self.registry.packages, self.registry.tags
        if not rest:
            return {"packages": [{"name": f"{PARENT}/{name}"} for name in packages]}
        package, kind, name = [*rest, "", ""][:3]
        if package not in packages:
            return _error(404, "Package was not found.")
        if kind == "versions" and not name:
            return {"versions": [{"name": f"{PARENT}/{package}/versions/{each}"} for each in packages[package]]}
        if kind == "tags" and not name and self.command == "GET":
            size, start = (
                min(int(query.get("pageSize", "1")), self.registry.page_size),
                int(query.get("pageToken", "0")),
            )
            names = sorted(tags[package])
            page: dict[str, Any] = {"tags": [self._tag(package, each) for each in names[start : start + size]]}
            return {**page, "nextPageToken": str(start + size)} if start + size < len(names) else page
        if kind == "tags" and self.command in ("POST", "PATCH"):
            name = name or query["tagId"]
            if self.command == "POST" and name in tags[package]:
                return _error(409, "Tag already exists.")
            version = json.loads(body)["version"].rpartition("/")[2]
            if version not in packages[package]:
                return _error(404, "Version was not found.")
            tags[package][name] = version
        if kind == "tags" and name:
            if name not in tags[package]:
                return _error(404, "Tag was not found.")
            if self.command == "DELETE":
                del tags[package][name]
                return {}
            return self._tag(package, name)
        if kind == "versions" and self.command == "DELETE":
            del packages[package][name]
            return {"done": True}
        if kind == "versions":
            return {"name": f"{PARENT}/{package}/versions/{name}"}
        if self.command == "DELETE":
            del packages[package], tags[package]
            return {"done": True}
        return {"name": f"{PARENT}/{package}"}

    def _tag(self, package: str, name: str) -> dict[str, str]:
        version = self.registry.tags[package][name]
        return {"name": f"{PARENT}/{package}/tags/{name}", "version": f"{PARENT}/{package}/versions/{version}"}


@contextlib.contextmanager
def artifact_registry(folder: Path) -> Iterator[Registry]:
    """Starts it with an empty repository, and points the environment at it.

    Args:
        folder: For the certificates and the key of the service account.

    Yields:
        What it holds.
    """
    authority, server_key, account = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    (folder / "authority.pem").write_bytes(
        _certificate(authority, "authority", authority, "authority", is_authority=True).public_bytes(
            serialization.Encoding.PEM
        )
    )
    certificate = _certificate(server_key, HOSTS[0], authority, "authority", names=HOSTS)
    (folder / "server.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + _pem(server_key))
    (folder / "account.json").write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "project",
                "private_key_id": "key",
                "private_key": _pem(account).decode(),
                "client_email": ACCOUNT,
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    registry = Registry(account)
    handler = type("Handler", (_Handler,), {"registry": registry, "context": context})
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        server.daemon_threads = True
        patch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("https_proxy", f"http://127.0.0.1:{server.server_port}")
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            patch.delenv(name, raising=False)
        patch.setenv("REQUESTS_CA_BUNDLE", str(folder / "authority.pem"))
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield registry
        server.shutdown()
        thread.join()


def _error(status: int, message: str) -> tuple[int, Any]:
    return status, {"error": {"code": status, "message": message}}


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(
    key: rsa.RSAPrivateKey,
    name: str,
    issuer_key: rsa.RSAPrivateKey,
    issuer: str,
    *,
    names: tuple[str, ...] = (),
    is_authority: bool = False,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=6))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
        )
    return builder.sign(issuer_key, hashes.SHA256())
