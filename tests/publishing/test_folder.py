"""Templates in a folder, S3 (moto), Cloud Storage (its API on loopback) and another file system of fsspec."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeparts.errors import ContractError, InputError, ServiceError
from pipeparts.publishing import folder as folders
from pipeparts.publishing import stores
from pipeparts.publishing.folder import Folder
from pipeparts.publishing.publisher import open_destination, publish
from pipeparts.publishing.templates import Template, digest_of
from pipeparts.publishing.versions import Version
from tests.publishing.composed import compose
from tests.publishing.conftest import Make
from tests.publishing.storage_server import Handler, cloud_storage
from tests.services import free_port, s3_server

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A moto server; as S3 itself, it takes one conditional write at a time."""
    from moto.s3.responses import S3Response

    one_at_a_time = threading.Lock()
    put = S3Response.put_object

    def put_object(self: Any) -> Any:
        with one_at_a_time:
            return put(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_object)
        with s3_server("kept"):
            yield "s3://kept"


@pytest.fixture(params=["folder", "s3", "gcs", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place that is empty."""
    if request.param == "folder":
        yield str(tmp_path / "published")
    elif request.param == "s3":
        yield f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    elif request.param == "memory":
        yield f"memory://{tmp_path.name}/deep"
    else:
        with cloud_storage():
            yield f"gs://kept/{tmp_path.name}"


@functools.cache
def opened(address: str) -> stores.Store:
    """Each address is of one test alone."""
    return stores.open_store(address)


def read(address: str, path: str) -> bytes | None:
    return opened(address).read(path)


def index_of(address: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read(address, "index.json") or b"{}")
    return found


def check(address: str) -> int:
    """That the index and the pointers name nothing that is not there; how many versions it names."""
    number = 0
    for name, entry in (index_of(address).get("templates") or {}).items():
        for version in entry["versions"]:
            content = read(address, version["url"])
            assert content is not None, version["url"]
            assert digest_of(content) == version["digest"]
            assert len(content) == version["size_bytes"]
            number += 1
        for tag, version in entry["tags"].items():
            assert any(each["version"] == version for each in entry["versions"])
            assert (read(address, f"{name}/{tag}") or b"").decode() == f"{version}\n"
    return number


def test_what_is_published(address: str, make: Make) -> None:
    template = make("load", "1.0.0")
    (published,) = publish(open_destination(address), [template], tags=["stable"])
    assert (published.state, published.digest, published.previous) == ("published", template.digest, None)
    assert published.location == f"{address}/load/1.0.0/component.yaml"
    assert read(address, "load/1.0.0/component.yaml") == template.content
    assert read(address, "load/latest") == read(address, "load/stable") == b"1.0.0\n"
    assert check(address) == 1
    entry = index_of(address)["templates"]["load"]
    assert (entry["kind"], entry["tags"]) == ("component", {"latest": "1.0.0", "stable": "1.0.0"})
    version = entry["versions"][0]
    assert version["images"] == ["registry.example/team/python:1.0"]
    assert version["inputs"] == [
        {"name": "source", "type": "str", "artifact": False, "required": True, "default": None, "description": ""},
        {"name": "rows", "type": "int", "artifact": False, "required": False, "default": 10, "description": ""},
    ]
    assert version["outputs"] == [{"name": "Output", "type": "int", "artifact": False, "description": ""}]
    page = (read(address, "index.html") or b"").decode()
    assert '<a class=url href="load/1.0.0/component.yaml">' in page


def test_the_same_again_changes_nothing(address: str, make: Make) -> None:
    publish(open_destination(address), [make()])
    before = [read(address, path) for path in ("index.json", "index.html", "load/latest")]
    (published,) = publish(open_destination(address), [make()])
    assert published.state == "already there"
    assert [read(address, path) for path in ("index.json", "index.html", "load/latest")] == before


def test_a_version_never_changes(address: str, make: Make) -> None:
    first = make()
    publish(open_destination(address), [first])
    with pytest.raises(InputError, match="published already, with another content") as error:
        publish(open_destination(address), [make(note="changed")])
    assert error.value.facts["where"] == "load 1.0.0"
    assert read(address, "load/1.0.0/component.yaml") == first.content
    with pytest.raises(InputError, match="published already"):  # also where nobody looked first
        Folder(address).publish([make(note="changed")], [])
    assert check(address) == 1


def test_versions_and_their_pointers(address: str, make: Make) -> None:
    for version, tags in (("1.0.0", []), ("1.2.0", ["stable"]), ("1.1.0", []), ("2.0.0-rc.1", ["next"])):
        publish(open_destination(address), [make("load", version)], tags=tags)
    entry = index_of(address)["templates"]["load"]
    assert [each["version"] for each in entry["versions"]] == ["2.0.0-rc.1", "1.2.0", "1.1.0", "1.0.0"]
    assert entry["tags"] == {"latest": "1.2.0", "next": "2.0.0-rc.1", "stable": "1.2.0"}
    assert check(address) == 4
    assert b"load/1.2.0/component.yaml</a>&quot;" in (read(address, "index.html") or b"")
    publish(open_destination(address), [make("load", "1.0.0")], tags=["stable"])  # a tag goes back, too
    assert index_of(address)["templates"]["load"]["tags"]["stable"] == "1.0.0"
    assert check(address) == 4


def test_an_interface_is_kept_within_a_major_version(address: str, make: Make) -> None:
    publish(open_destination(address), [make("load", "1.0.0")])
    (published,) = publish(open_destination(address), [make("load", "1.1.0", with_input=True)])
    assert (str(published.previous), published.breaking) == ("1.0.0", ())
    breaking = make("load", "1.1.1")  # it lacks the input that 1.1.0 added
    with pytest.raises(InputError, match=r"the interface breaks the one of 1\.1\.0") as error:
        publish(open_destination(address), [breaking])
    assert error.value.facts["received"] == "parameter seed was removed: int → nothing"
    assert error.value.facts["hint"] == "publish it as 2.0.0, or with --allow-breaking"
    assert check(address) == 2
    (published,) = publish(open_destination(address), [breaking], allow_breaking=True)
    assert published.breaking == ("parameter seed was removed: int → nothing",)
    (published,) = publish(open_destination(address), [make("load", "2.0.0", without_rows=True)])
    assert published.previous is None
    publish(open_destination(address), [breaking])  # what is there already is not judged again


def test_nothing_is_written_where_one_is_refused(address: str, make: Make) -> None:
    publish(open_destination(address), [make("load", "1.0.0")])
    before = read(address, "index.json")
    with pytest.raises(InputError, match="1 of 2 templates cannot be published; nothing was written") as error:
        publish(open_destination(address), [make("other", "1.0.1"), make("load", "1.0.1", without_rows=True)])
    assert "load 1.0.1: the interface breaks the one of 1.0.0" in error.value.facts["received"]
    assert read(address, "index.json") == before
    assert read(address, "other/1.0.1/component.yaml") is None


def test_a_dry_run_writes_nothing(address: str, make: Make) -> None:
    (published,) = publish(open_destination(address), [make()], dry_run=True)
    assert (published.state, published.digest) == ("to be published", "")
    assert read(address, "index.json") is None
    assert read(address, "load/1.0.0/component.yaml") is None


def test_a_damaged_index_is_an_error(address: str, make: Make) -> None:
    store = opened(address)
    for content, message in (
        (b"", "the index is damaged"),
        (b"{", "the index is damaged"),
        (b"[]", "of another kind or version"),
        (b'{"format": "pipeparts-index/2"}', "of another kind or version"),
        (b'{"format": "pipeparts-index/1", "templates": {"a": 1}}', "the index is damaged"),
        (b"\xff\xfe", "the index is damaged"),
    ):
        store.update("index.json", lambda there, content=content: None if there == content else content)
        with pytest.raises(ContractError, match=message) as error:
            publish(open_destination(address), [make()])
        assert error.value.facts["where"] == f"{address}/index.json"
        assert read(address, "index.json") == content
        assert read(address, "load/1.0.0/component.yaml") is None


def test_a_published_file_that_was_changed_is_an_error(address: str, make: Make) -> None:
    publish(open_destination(address), [make()])
    store = opened(address)
    store.update("load/1.0.0/component.yaml", lambda there: None if there == b"changed" else b"changed")
    for version in ("1.0.0", "1.0.1"):
        with pytest.raises(ContractError, match="a published file is not what the index says"):
            publish(open_destination(address), [make("load", version)])


# ---- Stopped half-way, and several at once ------------------------------------------------------------------------


class Stopped(BaseException):
    """As a signal, it is caught by nobody."""


@pytest.mark.parametrize("after", range(9))
def test_stopped_at_any_write_the_index_names_what_is_there(
    address: str, make: Make, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    publish(open_destination(address), [make("first", "1.0.0")])
    templates = [make("load", "1.0.0"), make("other", "1.0.0")]
    store = opened(address)
    name = "_write" if hasattr(type(store), "_write") else "_send"
    real = getattr(type(store), name)
    left = [after]

    def write(*arguments: Any) -> None:
        if not left[0]:
            raise Stopped
        left[0] -= 1
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), name, write)
        stopped = False
        try:
            publish(open_destination(address), templates, tags=["stable"])
        except Stopped:
            stopped = True
    assert stopped == (after < 8)  # two files, four pointers, the index, the page
    assert check_index_alone(address) in ((1,) if after < 7 else (3,))
    publish(open_destination(address), templates, tags=["stable"])
    assert check(address) == 3
    assert b"other/1.0.0/component.yaml" in (read(address, "index.html") or b"")


def check_index_alone(address: str) -> int:
    versions = [each for entry in index_of(address)["templates"].values() for each in entry["versions"]]
    assert all(digest_of(read(address, each["url"]) or b"") == each["digest"] for each in versions)
    return len(versions)


KILLED = """
import os, sys
from pathlib import Path
from pipeparts.publishing import stores
from pipeparts.publishing.publisher import open_destination, publish
from pipeparts.publishing.templates import make_templates
from pipeparts.publishing.versions import Version

folder, template, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
real = stores._Folder._write

def write(self, path, content):
    global left
    if left == 0:
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        (self._root / f".{Path(path).name}.half.partial").write_bytes(content[:10])
        os.kill(os.getpid(), 9)
    left -= 1
    real(self, path, content)

stores._Folder._write = write
publish(open_destination(folder), make_templates([template], Version.parse("1.0.0")))
"""


def test_a_killed_publisher_leaves_no_lock_and_no_half_file(tmp_path: Path, make: Make) -> None:
    template = make()
    for left in range(4):
        folder = tmp_path / str(left)
        command = [sys.executable, "-c", KILLED, str(folder), str(tmp_path / "templates" / "load.yaml"), str(left)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
        assert check(str(folder)) == (1 if left == 3 else 0)
        publish(open_destination(str(folder)), [template])
        assert check(str(folder)) == 1


PUBLISHER = """
import sys
from pipeparts.publishing.publisher import open_destination, publish
from pipeparts.publishing.templates import make_templates
from pipeparts.publishing.versions import Version

folder, template, *versions = sys.argv[1:]
for version in versions:
    publish(open_destination(folder), make_templates([template], Version.parse(version)), tags=["stable"])
"""


@pytest.mark.slow
def test_processes_that_publish_at_once_to_a_folder_lose_nothing(tmp_path: Path, make: Make) -> None:
    names = ["a", "b", "c", "d"]
    versions = [f"1.{minor}.0" for minor in range(4)]
    running = []
    for name in names:
        make(name)
        file = tmp_path / "templates" / f"{name}.yaml"
        command = [sys.executable, "-c", PUBLISHER, str(tmp_path / "all"), str(file), *versions]
        running.append(subprocess.Popen(command, cwd=ROOT))
    assert [process.wait(300) for process in running] == [0] * len(names)
    assert check(str(tmp_path / "all")) == len(names) * len(versions)
    page = (tmp_path / "all" / "index.html").read_text()
    assert all(f"{name}/1.3.0/component.yaml" in page for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_publishers_at_once_to_a_bucket_lose_nothing(
    kind: str, make: Make, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    names = ["a", "b", "c", "d", "e"]
    templates = {name: [make(name, f"1.{minor}.0") for minor in range(3)] for name in names}

    def run(address: str, name: str, failed: list[BaseException]) -> None:
        try:
            for template in templates[name]:
                publish(open_destination(address), [template])
        except BaseException as error:
            failed.append(error)

    def all_at_once(address: str) -> None:
        failed: list[BaseException] = []
        threads = [threading.Thread(target=run, args=(address, name, failed)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert check(address) == 15
        page = (read(address, "index.html") or b"").decode()
        assert all(f"{name}/1.2.0/component.yaml" in page for name in names)

    if kind == "s3":
        all_at_once(f"{request.getfixturevalue('s3')}/at-once-{tmp_path.name}")
    else:
        with cloud_storage():
            all_at_once(f"gs://kept/at-once-{tmp_path.name}")


@pytest.mark.parametrize("kind", ["folder", "s3", "gcs", "memory"])
def test_two_who_publish_different_content_as_one_version(
    kind: str, make: Make, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The one who comes later is refused, wherever in between he comes."""
    address = {
        "folder": str(tmp_path / "f"),
        "memory": f"memory://two-{tmp_path.name}",
        "gcs": f"gs://kept/two-{tmp_path.name}",
    }.get(kind)
    with cloud_storage():
        address = address or f"{request.getfixturevalue('s3')}/two-{tmp_path.name}"
        mine, theirs = make(), make(note="theirs")
        late = open_destination(address)
        assert late.read(mine, mine.version) is None  # it looked before
        publish(open_destination(address), [theirs])
        with pytest.raises(InputError, match="published already"):
            late.publish([mine], [])
        assert read(address, "load/1.0.0/component.yaml") == theirs.content
        assert check(address) == 1


def test_a_lost_answer_of_cloud_storage_is_no_conflict(make: Make) -> None:
    with cloud_storage() as server:
        server.lose = 1
        template = make()
        (published,) = publish(open_destination("gs://kept/here"), [template])
        assert published.digest == template.digest
        assert check("gs://kept/here") == 1


def test_what_browsers_are_told(make: Make, s3: str, tmp_path: Path) -> None:
    import boto3

    with cloud_storage():
        publish(open_destination("gs://kept/here"), [make()])
        facts = {key: facts for key, (_, _, facts) in Handler.objects.items()}
    assert facts["here/index.json"]["cacheControl"] == "no-cache"
    assert facts["here/index.json"]["contentType"] == "application/json"
    assert facts["here/load/1.0.0/component.yaml"]["cacheControl"] == "public, max-age=31536000, immutable"
    publish(open_destination(f"{s3}/told"), [make()])
    head = boto3.client("s3").head_object(Bucket="kept", Key="told/index.html")
    assert (head["ContentType"], head["CacheControl"]) == ("text/html; charset=utf-8", "no-cache")
    head = boto3.client("s3").head_object(Bucket="kept", Key="told/load/latest")
    assert head["ContentType"] == "text/plain; charset=utf-8"


# ---- Places where nothing can be published ------------------------------------------------------------------------


def test_no_such_bucket(s3: str, make: Make) -> None:
    for address in ("s3://missing/x", "gs://missing/x"):
        with cloud_storage(), pytest.raises(InputError) as error:
            publish(open_destination(address), [make()])
        assert error.value.facts["parameter"] == "--to"
        assert address in error.value.facts["where"]


def test_no_right_to_write(s3: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.exceptions

    def denied(*_: Any, **__: Any) -> None:
        answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise PermissionError("Access Denied") from botocore.exceptions.ClientError(answer, "PutObject")

    monkeypatch.setattr(stores._S3, "_send", denied)
    with pytest.raises(InputError, match="access is denied"):
        publish(open_destination(f"{s3}/denied"), [make()])


def test_a_server_that_is_not_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ServiceError, match="the server does not answer"):
        publish(open_destination("s3://kept/x"), [make()])


def test_a_folder_that_is_a_file(tmp_path: Path, make: Make) -> None:
    (tmp_path / "file").write_text("")
    for address in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError) as error:
            publish(open_destination(str(address)), [make()])
        assert error.value.facts["parameter"] == "--to"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "no destination is given"),
        ("http://example.org/x", "nothing can be published to this address"),
        ("https://example.org/x", "nothing can be published to this address"),
        ("s3://", "nothing can be published to this address"),
        ("s3://me:secret@host/x", "nothing can be published to this address"),
        ("s4://bucket/x", "an address whose scheme is not known here"),
        ("https://europe-kfp.pkg.dev/project", "not a Kubeflow Pipelines repository"),
        ("http://europe-kfp.pkg.dev/project/repository", "not a Kubeflow Pipelines repository"),
        ("oci://host", "not a repository of an OCI registry"),
        ("oci://ghcr.io/Team/Components", "not a repository of an OCI registry"),
        ("oci://me:secret@ghcr.io/team", "not a repository of an OCI registry"),
    ],
)
def test_what_is_no_destination(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        open_destination(address)
    assert "secret" not in str(error.value)


# ---- What it is for -----------------------------------------------------------------------------------------------


def test_a_published_component_is_loaded_by_its_url_and_used_in_a_pipeline(tmp_path: Path, make: Make) -> None:
    from kfp import compiler, components

    publish(open_destination(str(tmp_path / "served")), [make("load", "1.0.0"), make("load-again", "1.0.0")])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{base}/index.json") as answer:
            index = json.load(answer)
        with urllib.request.urlopen(f"{base}/load/latest") as answer:
            assert answer.read() == b"1.0.0\n"
        urls = {name: f"{base}/{entry['versions'][0]['url']}" for name, entry in index["templates"].items()}
        load, again = (components.load_component_from_url(urls[name]) for name in ("load", "load-again"))
        server.shutdown()
        thread.join()

    compiler.Compiler().compile(compose(load, again), str(tmp_path / "composed.yaml"))
    assert "load-again" in (tmp_path / "composed.yaml").read_text()


def test_a_page_with_markup_in_it_is_text(tmp_path: Path, make: Make) -> None:
    import dataclasses

    template = dataclasses.replace(make(), summary="<script>alert(1)</script>", images=('"><img src=x>',))
    publish(open_destination(str(tmp_path / "p")), [template])
    page = (tmp_path / "p" / "index.html").read_text()
    assert "<script>alert" not in page
    assert "<img" not in page


def test_the_description_is_that_of_the_newest(tmp_path: Path, make: Make) -> None:
    import dataclasses

    def said(version: str, summary: str) -> Template:
        return dataclasses.replace(make("load", version), summary=summary)

    for version, summary in (("1.1.0", "newer"), ("1.0.0", "older"), ("1.2.0-rc.1", "to come")):
        publish(open_destination(str(tmp_path / "p")), [said(version, summary)])
    assert index_of(str(tmp_path / "p"))["templates"]["load"]["summary"] == "newer"


def test_publishing_goes_on_where_others_publish(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's entry that came between the look and the write stays."""
    address = f"memory://between-{tmp_path.name}"
    real: Callable[..., None] = stores._Plain._send
    others = [make("other", "1.0.0")]

    def send(self: Any, path: str, content: bytes, version: str | None) -> None:
        if path == "index.json" and others:
            other = others.pop()
            publish(open_destination(address), [other])
        real(self, path, content, version)

    monkeypatch.setattr(stores._Plain, "_send", send)
    publish(open_destination(address), [make("load", "1.0.0")])
    # This file system has no conditional write: the other's entry is gone, and comes back when he publishes again.
    monkeypatch.undo()
    publish(open_destination(address), [make("other", "1.0.0")])
    assert check(address) == 2
    assert folders.Folder(address).versions(make("other")) == [Version.parse("1.0.0")]
