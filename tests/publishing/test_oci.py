"""An OCI registry: the real program (Debian's docker-registry) on loopback, through oras; faults through a proxy."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeparts.errors import ContractError, InputError, ServiceError
from pipeparts.publishing import oci
from pipeparts.publishing.publisher import open_destination, publish
from pipeparts.publishing.templates import Template
from pipeparts.publishing.versions import Version
from tests.publishing.conftest import Make
from tests.services import SKIP, MissingServiceError, free_port

CONFIG = """
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}/data}}
  delete: {{enabled: true}}
http: {{addr: 127.0.0.1:{port}}}
{auth}
"""


@contextlib.contextmanager
def docker_registry(folder: Path, *, auth: str = "") -> Iterator[str]:
    """Starts a registry of its own; it dies with the block.

    Yields:
        Its host and port.
    """
    if os.environ.get(SKIP) == "1":
        pytest.skip(f"needs a docker-registry, and {SKIP}=1 is set")
    program = shutil.which("docker-registry")
    if program is None:
        raise MissingServiceError("these tests need docker-registry\n  hint: apt-get install docker-registry")
    for _ in range(5):
        port = free_port()
        (folder / "config.yml").write_text(CONFIG.format(folder=folder, port=port, auth=auth))
        with (folder / "log.txt").open("ab") as log:
            process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
        try:
            if answers(process, port):
                yield f"127.0.0.1:{port}"
                return
        finally:
            process.terminate()
            process.wait(30)
    raise RuntimeError(f"docker-registry did not start\n{(folder / 'log.txt').read_text()}")


def answers(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=10):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 401
        except OSError:
            time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def address(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository that is empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return f"oci://{host}/{re.sub('[^a-z0-9]+', '-', tmp_path.name.lower()).strip('-')}"


def manifest_of(address: str, tag: str) -> tuple[dict[str, Any], str]:
    host, _, repository = address.removeprefix("oci://").partition("/")
    request = urllib.request.Request(f"http://{host}/v2/{repository}/manifests/{tag}")
    request.add_header("Accept", "application/vnd.oci.image.manifest.v1+json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer), answer.headers["Docker-Content-Digest"]


def test_what_is_published(address: str, make: Make) -> None:
    template = make("load", "1.0.0")
    (published,) = publish(open_destination(address), [template], tags=["stable"])
    assert published.location == f"{address}/load:1.0.0"
    manifest, digest = manifest_of(f"{address}/load", "1.0.0")
    assert published.digest == digest
    assert manifest["config"]["mediaType"] == oci.ARTIFACT_TYPE
    (layer,) = manifest["layers"]
    assert (layer["mediaType"], layer["digest"]) == (oci.LAYER_TYPE, template.digest)
    assert layer["annotations"]["org.opencontainers.image.title"] == "component.yaml"
    assert manifest["annotations"]["org.opencontainers.image.version"] == "1.0.0"
    for tag in ("stable", "latest"):
        assert manifest_of(f"{address}/load", tag)[1] == digest


def test_oras_pulls_the_same_bytes(address: str, make: Make, tmp_path: Path) -> None:
    from oras.client import OrasClient

    template = make()
    publish(open_destination(address), [template])
    client = OrasClient(insecure=True)
    (pulled,) = client.pull(f"{address.removeprefix('oci://')}/load:1.0.0", outdir=str(tmp_path / "pulled"))
    assert Path(pulled).name == "component.yaml"
    assert Path(pulled).read_bytes() == template.content


def test_the_same_again_pushes_nothing(address: str, make: Make) -> None:
    (first,) = publish(open_destination(address), [make()])
    (again,) = publish(open_destination(address), [make()])
    assert (again.state, again.digest) == ("already there", first.digest)


def test_a_version_never_changes(address: str, make: Make) -> None:
    (first,) = publish(open_destination(address), [make()])
    with pytest.raises(InputError, match="published already, with another content"):
        publish(open_destination(address), [make(note="changed")])
    assert manifest_of(f"{address}/load", "1.0.0")[1] == first.digest


def test_versions_and_their_tags(address: str, make: Make) -> None:
    digests = {}
    for version in ("1.0.0", "1.2.0", "1.1.0", "1.3.0-rc.1"):
        (published,) = publish(open_destination(address), [make("load", version)], tags=["newest"])
        digests[version] = published.digest
    assert len(set(digests.values())) == 4
    assert manifest_of(f"{address}/load", "latest")[1] == digests["1.2.0"]
    assert manifest_of(f"{address}/load", "newest")[1] == digests["1.3.0-rc.1"]
    assert sorted(map(str, open_destination(address).versions(make()))) == sorted(digests)
    assert open_destination(address).versions(make("other")) == []


def test_an_interface_is_kept_within_a_major_version(address: str, make: Make) -> None:
    publish(open_destination(address), [make("load", "1.0.0")])
    with pytest.raises(InputError, match=r"the interface breaks the one of 1\.0\.0"):
        publish(open_destination(address), [make("load", "1.0.1", without_rows=True)])
    publish(open_destination(address), [make("load", "1.0.1", without_rows=True)], allow_breaking=True)


def test_a_dry_run_writes_nothing(address: str, make: Make) -> None:
    publish(open_destination(address), [make()], dry_run=True)
    assert open_destination(address).read(make(), Version(1, 0, 0)) is None


def test_an_artifact_of_another_kind_is_an_error(address: str, make: Make, tmp_path: Path) -> None:
    from oras.client import OrasClient

    (tmp_path / "file.txt").write_text("text")
    target = f"{address.removeprefix('oci://')}/load:1.0.0"
    OrasClient(insecure=True).push(target, files=[str(tmp_path / "file.txt")], disable_path_validation=True, quiet=True)
    with pytest.raises(ContractError, match="an artifact that is no template"):
        publish(open_destination(address), [make()])


# ---- Logging in ---------------------------------------------------------------------------------------------------

#: The password "secret", as htpasswd writes it (bcrypt).
HASHED = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"


def test_a_registry_with_a_password(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passwords").write_text(f"me:{HASHED}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    auth = f"auth: {{htpasswd: {{realm: here, path: {tmp_path}/passwords}}}}"
    with docker_registry(tmp_path, auth=auth) as host:
        with pytest.raises(InputError, match="access is denied") as error:
            publish(open_destination(f"oci://{host}/team"), [make()])
        assert "docker login" in error.value.facts["hint"]
        for password, fits in (("wrong", False), ("secret", True)):
            login = {"auths": {host: {"auth": base64.b64encode(f"me:{password}".encode()).decode()}}}
            (tmp_path / ".docker").mkdir(exist_ok=True)
            (tmp_path / ".docker" / "config.json").write_text(json.dumps(login))
            if not fits:
                with pytest.raises(InputError, match="access is denied"):
                    publish(open_destination(f"oci://{host}/team"), [make()])
                continue
            (published,) = publish(open_destination(f"oci://{host}/team"), [make()])
            assert published.state == "published"
        (tmp_path / ".docker" / "config.json").write_text("{")
        with pytest.raises(InputError, match="cannot read the logins of docker"):
            publish(open_destination(f"oci://{host}/team"), [make()])


# ---- Faults -------------------------------------------------------------------------------------------------------


class Faulty(http.server.BaseHTTPRequestHandler):
    """Hands requests on to the registry, but for those that are to fail."""

    protocol_version = "HTTP/1.1"
    upstream = ""
    faults: list[tuple[str, int | str]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for position, (pattern, fault) in enumerate(self.faults):
            if re.search(pattern, f"{self.command} {self.path}"):
                del self.faults[position]
                if fault == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return
                content = json.dumps({"errors": [{"code": "PLANTED", "message": f"planted {fault}"}]}).encode()
                self._send(int(fault), {"Content-Type": "application/json"}, content)
                return
        names = ("Accept", "Content-Type", "Authorization")
        headers = {name: self.headers[name] for name in names if self.headers[name]}
        request = urllib.request.Request(
            f"http://{self.upstream}{self.path}", data=body or None, headers=headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request) as answer:
                self._send(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self._send(error.code, dict(error.headers), error.read())

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() == "location":
                value = value.replace(self.upstream, self.headers["Host"])
            if name.lower() not in ("content-length", "connection", "date", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_PATCH(self) -> None:
        self._handle()


@pytest.fixture
def faulty(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Faulty]]]:
    host, _, repository = address.removeprefix("oci://").partition("/")
    handler = type("Handler", (Faulty,), {"upstream": host, "faults": []})
    monkeypatch.setattr(oci, "_WAIT_SECONDS", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"oci://127.0.0.1:{server.server_port}/{repository}", handler
        server.shutdown()
        thread.join()


PLACES = [
    "^GET /v2/$",
    "^GET .*/manifests/1.0.0",
    "^POST .*uploads",
    "^PUT .*uploads",
    "^PUT .*manifests/1.0.0",
    "^GET .*tags",
]


@pytest.mark.parametrize("fault", [429, 500, 503, "cut"])
@pytest.mark.parametrize("place", PLACES)
def test_a_passing_fault_is_got_over(
    faulty: tuple[str, type[Faulty]], address: str, make: Make, place: str, fault: int | str
) -> None:
    through, handler = faulty
    handler.faults.append((place, fault))
    template = make()
    (published,) = publish(open_destination(through), [template])
    assert handler.faults == []
    assert manifest_of(f"{address}/load", "1.0.0")[1] == published.digest
    assert open_destination(address).read(template, template.version) == template.content


@pytest.mark.parametrize(
    ("place", "fault", "kind", "message"),
    [
        ("^PUT .*manifests", 401, InputError, "access is denied"),
        ("^POST .*uploads", 403, InputError, "access is denied"),
        ("^PUT .*manifests", 400, InputError, "the registry refuses the template"),
        ("^PUT .*manifests", 409, InputError, "the registry refuses the template"),
        ("^POST .*uploads", 404, InputError, "there is no such repository"),
        ("^PUT .*manifests", 429, ServiceError, "the registry answered with status 429"),
        ("^PUT .*manifests", 500, ServiceError, "the registry answered with status 500"),
        ("^GET .*tags", 500, ServiceError, "the registry answered with status 500"),
        ("^PUT .*uploads", "cut", ServiceError, "the registry does not answer"),
        ("^GET /v2/$", "cut", ServiceError, "the registry does not answer"),
    ],
)
def test_a_fault_that_stays_is_an_error(
    faulty: tuple[str, type[Faulty]],
    address: str,
    make: Make,
    place: str,
    fault: int | str,
    kind: type[Exception],
    message: str,
) -> None:
    through, handler = faulty
    handler.faults += [(place, fault)] * 20
    with pytest.raises(kind, match=message) as error:
        publish(open_destination(through), [make()])
    assert "127.0.0.1" in error.value.facts["where"]
    if fault not in ("cut", 401, 403):
        assert f"planted {fault}" in error.value.facts["received"]
    assert open_destination(address).read(make(), Version(1, 0, 0)) is None
    handler.faults.clear()
    (published,) = publish(open_destination(through), [make()])
    assert published.state == "published"


def test_a_server_that_is_not_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci, "_WAIT_SECONDS", 0.0)
    with pytest.raises(ServiceError, match="the registry does not answer"):
        publish(open_destination(f"oci://127.0.0.1:{free_port()}/team"), [make()])


def test_somebody_else_at_the_same_moment(address: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = make(), make(note="theirs")
    destination = open_destination(address)
    assert isinstance(destination, oci.OciRegistry)
    push = destination._push

    def push_both(template: Template, target: str) -> None:
        push(template, target)
        push(theirs, target)

    monkeypatch.setattr(destination, "_push", push_both)
    with pytest.raises(ServiceError, match="somebody else published this version at the same moment"):
        publish(destination, [mine])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("ghcr.io", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_only_this_machine_is_spoken_to_in_the_clear(host: str, expected: bool) -> None:
    assert oci._is_loopback(host) == expected
