"""`ingest_files` and `runtime.sources` over http, S3 and GCS, each spoken by a real server on the loopback."""

import base64
import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import threading
import urllib.parse
from pathlib import Path

import pytest

from pipeparts.components.ingestion.ingest_files.logic import ingest_files
from pipeparts.errors import InputError, ServiceError
from pipeparts.runtime.sources import expand, public_name, source_version
from pipeparts.runtime.tables import Table
from tests.services import s3_server

FLIGHTS = Path("tests/data/flights.csv")

# The clients of the stores keep sockets and loops of their own, which end with the process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)


def ingest(folder, source, **arguments):
    done = ingest_files(source=source, table_path=folder / "t", quarantine_path=folder / "q", **arguments)
    return Table(folder / "t").read(), done


@contextlib.contextmanager
def serve(handler):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# ---- the version of a source ----------------------------------------------------------------------------------


def test_the_version_follows_the_files(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n")
    first = source_version(str(tmp_path))
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert source_version(str(tmp_path)) == first
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000))  # a microsecond later, the same size
    second = source_version(str(tmp_path))
    assert second != first
    (tmp_path / "b.csv").write_text("a,b\n")
    assert source_version(str(tmp_path)) != second


def test_files_are_sorted_and_sized(tmp_path):
    for name in ("b.csv", "a.csv", "_x", ".y"):
        (tmp_path / name).write_text("1234")
    assert [(file.name, file.size) for file in expand(str(tmp_path))] == [
        (f"{tmp_path}/a.csv", 4), (f"{tmp_path}/b.csv", 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://user:pw@host:8/a/b.csv?X-Amz-Signature=1#f", "https://host:8/a/b.csv"),
        ("s3://bucket/a?b#c.csv", "s3://bucket/a?b#c.csv"),
        ("s3://key:secret@bucket/a.csv", "s3://bucket/a.csv"),
        ("data/a@b.csv", "data/a@b.csv"),
    ],
)
def test_a_source_is_shown_without_secrets(source, shown):
    assert public_name(source) == shown


# ---- http -----------------------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("name", ["flights.csv", "flights.csv.gz", "flights.zip", "flights.parquet"])
def test_http(tmp_path, name):
    import gzip
    import zipfile

    import pyarrow.csv
    import pyarrow.parquet

    (tmp_path / "www").mkdir()
    path = tmp_path / "www" / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(FLIGHTS.read_bytes()))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(FLIGHTS, "flights.csv")
    elif name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(FLIGHTS), path)
    else:
        path.write_bytes(FLIGHTS.read_bytes())
    with serve(functools.partial(Quiet, directory=tmp_path / "www")) as host:
        table, done = ingest(tmp_path, f"http://{host}/{name}?token=secret")
        version = source_version(f"http://{host}/{name}")
        os.utime(path, (1, 1))
        assert source_version(f"http://{host}/{name}") != version
    assert table.num_rows == 2005
    assert done.table.source == f"http://{host}/{name}"
    assert "secret" not in (tmp_path / "t" / "_table.json").read_text()


@pytest.mark.parametrize(
    ("status", "error", "headline"),
    [(404, InputError, "no such file"), (403, InputError, "access is denied"),
     (503, ServiceError, "the server answered with status 503")],
)  # fmt: skip
def test_http_errors(tmp_path, status, error, headline):
    class Failing(Quiet):
        def do_GET(self):
            self.send_error(status)

        def do_HEAD(self):
            self.do_GET()

    with serve(Failing) as host, pytest.raises(error) as caught:
        ingest(tmp_path, f"http://{host}/a.csv?token=secret")
    assert caught.value.headline == headline
    assert caught.value.facts["where"] == f"http://{host}/a.csv"
    assert "secret" not in str(caught.value)


def test_a_server_that_hangs_up_half_way(tmp_path):
    class Cut(Quiet):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"a,b\n" + b"1,2\n" * 10_000)

        def do_HEAD(self):
            self.do_GET()

    with serve(Cut) as host, pytest.raises(ServiceError) as caught:
        ingest(tmp_path, f"http://{host}/a.csv")
    assert caught.value.headline == "the server does not answer to the end"
    assert not (tmp_path / "t").exists()


# ---- S3 -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3():
    """A moto server, and a client that fills it."""
    with s3_server("flights") as client:
        yield client


@pytest.mark.slow
def test_s3(tmp_path, s3):
    rows = FLIGHTS.read_bytes().splitlines(keepends=True)
    s3.put_object(Bucket="flights", Key="in/b.csv", Body=b"".join([rows[0], *rows[1001:]]))
    s3.put_object(Bucket="flights", Key="in/a.csv", Body=b"".join(rows[:1001]))
    s3.put_object(Bucket="flights", Key="in/_SUCCESS", Body=b"")
    s3.put_object(Bucket="flights", Key="in2/other.csv", Body=b"x\n")
    (tmp_path / "plain").mkdir()
    plain, _ = ingest(tmp_path / "plain", str(FLIGHTS))
    for source in ("s3://flights/in", "s3://flights/in/", "s3://flights/in/*.csv", "s3a://flights/in/[ab].csv"):
        table, done = ingest(tmp_path, source)
        assert table.equals(plain), source
        assert done.table.extra["files"] == 2
    version = source_version("s3://flights/in")
    assert source_version("s3://flights/in") == version
    s3.put_object(Bucket="flights", Key="in/a.csv", Body=b"".join(rows[:1000]))
    assert source_version("s3://flights/in") != version


def test_s3_without_the_object_or_the_bucket(tmp_path, s3):
    for source in ("s3://flights/nothing.csv", "s3://flights/no*.csv", "s3://nobucket/a.csv"):
        with pytest.raises(InputError) as caught:
            ingest(tmp_path, source)
        assert caught.value.headline.startswith(("no file matches", "no such file")), source


def test_s3_without_credentials(tmp_path, s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(InputError) as caught:
        ingest(tmp_path, "s3://flights/in/a.csv")
    assert caught.value.headline == "no credentials were found"
    assert "AWS_ACCESS_KEY_ID" in caught.value.facts["hint"]


def test_s3_that_does_not_answer(tmp_path, s3, monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as server:
        port = server.server_port
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ServiceError) as caught:
        ingest(tmp_path, "s3://flights/in/a.csv")
    assert caught.value.headline == "the server does not answer"


# ---- GCS ------------------------------------------------------------------------------------------------------


class Gcs(Quiet):
    """As much of the JSON API of Cloud Storage as reading takes."""

    objects: dict[str, bytes] = {}

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = url.path.strip("/").split("/")
        if "o" not in parts:
            return self._json({"name": parts[-1], "kind": "storage#bucket"})
        key = urllib.parse.unquote(parts[parts.index("o") + 1]) if parts[-1] != "o" else None
        if key is None:
            prefix = query.get("prefix", "")
            inside = [name for name in sorted(self.objects) if name.startswith(prefix)]
            folders = set()
            if delimiter := query.get("delimiter"):
                deeper = [name for name in inside if delimiter in name[len(prefix) :]]
                folders = {prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter for name in deeper}
                inside = [name for name in inside if name not in deeper]
            return self._json({"items": [self._facts(name) for name in inside], "prefixes": sorted(folders)})
        if key not in self.objects:
            return self._json({"error": {"code": 404, "message": f"No such object: {key}"}}, 404)
        if query.get("alt") != "media":
            return self._json(self._facts(key))
        data = self.objects[key]
        begin, end = 0, len(data)
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            begin, end = int(found[1]), min(int(found[2]) + 1, len(data))
        return self._send(data[begin:end], 206, "application/octet-stream")

    def _facts(self, name):
        data = self.objects[name]
        return {
            "kind": "storage#object", "name": name, "bucket": "flights", "size": str(len(data)), "generation": "1",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(), "updated": "2013-01-01T00:00:00Z",
        }  # fmt: skip

    def _json(self, document, status=200):
        self._send(json.dumps(document).encode(), status, "application/json")

    def _send(self, body, status, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_gcs(tmp_path, monkeypatch):
    rows = FLIGHTS.read_bytes().splitlines(keepends=True)
    Gcs.objects = {
        "in/a.csv": b"".join(rows[:1001]), "in/b.csv": b"".join([rows[0], *rows[1001:]]), "in/_SUCCESS": b"",
    }  # fmt: skip
    with serve(Gcs) as host:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}")
        (tmp_path / "plain").mkdir()
        plain, _ = ingest(tmp_path / "plain", str(FLIGHTS))
        for source in ("gs://flights/in", "gcs://flights/in/*.csv"):
            assert ingest(tmp_path, source)[0].equals(plain), source
        version = source_version("gs://flights/in")
        Gcs.objects["in/a.csv"] = b"".join(rows[:1000])
        assert source_version("gs://flights/in") != version
        with pytest.raises(InputError):
            ingest(tmp_path, "gs://flights/nothing.csv")
