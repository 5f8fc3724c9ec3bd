"""Tests of downloads from a registry: on SQLite, on a real MLflow server, and on one whose storage fails."""

import contextlib
import os
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

from pipeparts.components.registry.register_mlflow.logic import register_mlflow
from pipeparts.errors import ContractError, InputError, ServiceError
from pipeparts.runtime import mlflow_registry
from pipeparts.runtime.evaluation import evaluate, predict_table, read_evaluation
from pipeparts.runtime.models import LoadedModel, read_model_info
from pipeparts.runtime.registered_models import open_model, registered_evaluation, resolve_version
from pipeparts.runtime.tables import Table, write_table
from tests.mlflow_services import answering, mlflow_server, write_model, write_verdict

PLACES = ["sqlite", "server"]


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory):
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    mlflow_registry.connect(uri, create=True)
    return uri


@pytest.fixture(scope="module")
def server_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server_uri(server_folder):
    with mlflow_server(server_folder) as uri:
        yield uri


@pytest.fixture(params=PLACES)
def uri(request):
    return request.getfixturevalue(f"{request.param}_uri")


@pytest.fixture(autouse=True)
def _as_it_was(tmp_path, monkeypatch):
    """Works in a folder of its own without settings, and sees that no file and no setting is left behind."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    assert list((tmp_path / "work").iterdir()) == []
    left = {name for name in os.environ if name.startswith("MLFLOW_")}
    assert left <= {"MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "MLFLOW_UV_AUTO_DETECT"}


def register(folder, uri, name=None, fingerprint=None):
    """Registers a model with its evaluation; gives its version's URI."""
    name = name or f"late {uuid.uuid4().hex[:6]}"
    here = folder / uuid.uuid4().hex[:6]
    model = write_model(here / "model", fingerprint or uuid.uuid4().hex)
    (model / "training_profile.json").write_text("{}")
    rows = pa.table({"distance": [1.0, 2.0, 3.0], "air_time": [2.5, 4.0, 6.5]})
    write_table(here / "table", rows, source="flights")
    loaded, table = LoadedModel(model), Table(here / "table")
    evaluate(predict_table(loaded, table), loaded.info, table).write(here / "evaluation.json")
    result = register_mlflow(
        model_path=model,
        verdict_path=write_verdict(here),
        evaluation_path=here / "evaluation.json",
        registration_path=here / "registration.json",
        model_name=name,
        champion=_champion(uri, name),
        tracking_uri=uri,
    )
    return result["uri"], here


def _champion(uri, name):
    number = mlflow_registry.connect(uri, create=True).aliased_version(name, "champion")
    return f"models:/{name}/{number}" if number else ""


@pytest.mark.slow
def test_an_alias_means_the_version_that_it_is_on_now(tmp_path, uri):
    first, _ = register(tmp_path, uri)
    name = first.removeprefix("models:/").removesuffix("/1")
    assert resolve_version(f"models:/{name}@champion", uri) == f"models:/{name}/1"
    register(tmp_path, uri, name)
    assert resolve_version(f"models:/{name}@champion", uri) == f"models:/{name}/2"
    assert resolve_version(f"models:/{name}/01", uri) == f"models:/{name}/1"


@pytest.mark.slow
def test_a_model_comes_whole_and_goes_again(tmp_path, uri, monkeypatch):
    version, here = register(tmp_path, uri)
    with open_model(version, uri) as folder:
        assert read_model_info(folder) == read_model_info(here / "model")
        wanted = {file.relative_to(here / "model") for file in (here / "model").rglob("*.*") if file.is_file()}
        assert wanted - {file.relative_to(folder) for file in folder.rglob("*.*")} == set()
        assert LoadedModel(folder).info.label == "air_time"
    assert not folder.exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(KeyError), open_model(version) as folder:  # what fails inside is not changed
        raise KeyError
    assert not folder.exists()
    assert os.environ["MLFLOW_TRACKING_URI"] == uri
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.mark.slow
def test_only_the_files_that_are_wanted_come(tmp_path, uri):
    version, _ = register(tmp_path, uri)
    with open_model(version, uri, ["training_profile.json", "training_sample.parquet"]) as folder:
        assert {file.name for file in folder.iterdir()} == {"MLmodel", "pipeparts.json", "training_profile.json"}
    with open_model(version, uri, []) as folder:
        assert read_model_info(folder).label == "air_time"


@pytest.mark.slow
def test_the_evaluation_of_a_version_is_that_of_its_run(tmp_path, uri):
    version, here = register(tmp_path, uri)
    assert registered_evaluation(version, uri) == read_evaluation(here / "evaluation.json")
    assert registered_evaluation(version.removesuffix("/1") + "@champion", uri) is not None


@pytest.mark.slow
def test_where_there_is_no_evaluation_of_this_model_it_is_none(tmp_path, uri):
    version, here = register(tmp_path, uri)
    client = mlflow_registry.connect(uri, create=True).client
    name = version.removeprefix("models:/").removesuffix("/1")
    if uri.startswith("sqlite"):  # a server takes no version without a run
        client.create_model_version(name, source=(here / "model").as_uri())
        assert registered_evaluation(f"models:/{name}/2", uri) is None
    client.set_model_version_tag(name, "1", mlflow_registry.TAG_MODEL_FINGERPRINT, "another")
    assert registered_evaluation(version, uri) is None


@pytest.mark.slow
def test_what_the_registry_does_not_have_is_named(tmp_path, uri):
    version, _ = register(tmp_path, uri)
    name = version.removeprefix("models:/").removesuffix("/1")
    for wanted, headline, allowed, hint in [
        (f"models:/{name[:-1]}/1", "the registry has no such model", name, "did you mean"),
        (f"models:/{name}@champoin", "no such alias", f"models:/{name}@champion", "did you mean"),
        (f"models:/{name}/7", "the registry has no such version", f"models:/{name}/1", ""),
    ]:
        with pytest.raises(ContractError, match=headline) as error:
            resolve_version(wanted, uri)
        assert allowed in error.value.facts["allowed"]
        assert hint in error.value.facts.get("hint", "")
        assert error.value.facts["received"] == wanted
        with pytest.raises(ContractError, match=headline), open_model(wanted, uri):
            pass
        with pytest.raises(ContractError, match=headline):
            registered_evaluation(wanted, uri)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["the folder is gone", "MLmodel is gone"])
def test_a_version_whose_files_are_gone(tmp_path, request, server_folder, place, how):
    uri = request.getfixturevalue(f"{place}_uri")
    fingerprint = uuid.uuid4().hex
    version, _ = register(tmp_path, uri, fingerprint=fingerprint)
    registry = mlflow_registry.connect(uri, create=True)
    storage = server_folder / "artifacts" if place == "server" else registry.database.parent
    card = next(file for file in storage.rglob("pipeparts.json") if fingerprint in file.read_text())
    if how == "MLmodel is gone":
        (card.parent / "MLmodel").unlink()
    else:
        shutil.rmtree(card.parent)
    for files in (None, ["training_profile.json"]):
        with (
            pytest.raises(ContractError, match="has the version, but not its files") as error,
            open_model(version, uri, files),
        ):
            pass
        assert error.value.facts["received"] == version
    assert registered_evaluation(version, uri) is not None


@pytest.mark.slow
def test_a_damaged_evaluation_is_refused(tmp_path, server_uri, server_folder):
    version, _ = register(tmp_path, server_uri)
    newest = max(server_folder.rglob("evaluation.json"), key=lambda file: file.stat().st_mtime_ns)
    newest.write_text(newest.read_text()[:200])
    with pytest.raises(ContractError, match="an evaluation is not JSON"):
        registered_evaluation(version, server_uri)
    newest.unlink()
    assert registered_evaluation(version, server_uri) is None


@pytest.mark.parametrize(
    ("model_uri", "hint"),
    [
        ("", None),
        ("late@champion", "did you mean 'models:/late@champion'?"),
        ("late/3", "did you mean 'models:/late/3'?"),
        ("models:/late", None),
        ("models:/late/latest", "give an alias"),
        ("models:/late@latest", "give an alias"),
        ("models:/late@v3", None),
        ("models:/late/Production", None),
        ("models:/late/-1", None),
        ("models:/late/3/MLmodel", None),
        ("models://late/3", None),
        ("runs:/abc/model", None),
        ("/some/folder", None),
        ("models:/late@champion\n", None),
    ],
)
def test_a_uri_of_no_registered_model_is_refused_before_any_call(model_uri, hint):
    with pytest.raises(InputError, match="not the URI of a registered model") as error:
        resolve_version(model_uri, "http://127.0.0.1:9", parameter="champion")
    assert error.value.facts["parameter"] == "champion"
    assert "models:/NAME@ALIAS or models:/NAME/VERSION" in error.value.facts["allowed"]
    assert error.value.facts["received"] == (model_uri or "an empty text")
    assert hint is None or hint in error.value.facts["hint"]


@pytest.mark.parametrize("name", ["it's", "a:b", "%"])
def test_a_name_that_no_model_can_have_is_refused(name):
    with pytest.raises(InputError, match="no registered model can have"):
        resolve_version(f"models:/{name}/1", "http://127.0.0.1:9")


def test_a_registry_that_is_not_there_yet_is_not_made(tmp_path):
    with pytest.raises(ContractError, match="there is no registry yet") as error:
        resolve_version("models:/late/1", f"sqlite:///{tmp_path}/deep/mlflow.db")
    assert "deep/mlflow.db" in str(error.value)
    assert not (tmp_path / "deep").exists()


def test_without_any_registry_the_error_lists_where_it_looked():
    with pytest.raises(InputError, match="no MLflow tracking URI is set"):
        resolve_version("models:/late/1")


def test_an_empty_registry_says_so(sqlite_uri, tmp_path):
    uri = f"sqlite:///{tmp_path}/empty.db"
    mlflow_registry.connect(uri, create=True)
    with pytest.raises(ContractError, match="no such model") as error:
        resolve_version("models:/late/1", uri)
    assert error.value.facts["allowed"] == "an empty registry has none"


def test_a_server_that_is_not_there_fails_in_seconds():
    started = time.monotonic()
    for call in (resolve_version, registered_evaluation):
        with pytest.raises(ServiceError, match="the MLflow server does not answer") as error:
            call("models:/late/1", "http://me:secret@127.0.0.1:1")
        assert error.value.retryable
        assert "secret" not in str(error.value)
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_a_server_that_is_silent_fails_in_seconds():
    with contextlib.closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        started = time.monotonic()
        with pytest.raises(ServiceError, match="the MLflow server does not answer"):
            resolve_version("models:/late@champion", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 25


def test_something_else_at_the_address():
    with answering(404, "<html>not here</html>") as address, pytest.raises(ServiceError) as error:
        resolve_version("models:/late/1", address)
    assert "no MLflow server at this address" in error.value.headline


@contextlib.contextmanager
def without_storage(target, cut=False):
    """A server before an MLflow server whose storage fails, or whose downloads break off in the middle."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            request = urllib.request.Request(target + self.path, body, dict(self.headers), method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    status, content, kind = answer.status, answer.read(), answer.headers["Content-Type"]
            except urllib.error.HTTPError as error:
                status, content, kind = error.code, error.read(), error.headers["Content-Type"]
            download = "/mlflow-artifacts/artifacts/" in self.path
            if download and not cut:
                status, content = 500, b"the bucket is on fire"
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if download else content)
            self.close_connection = True

        def log_message(self, *_):
            pass

    for method in ("GET", "POST", "PUT", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.forward)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
def test_a_storage_that_fails_can_be_tried_again(tmp_path, server_uri, monkeypatch, cut):
    version, _ = register(tmp_path, server_uri)
    with monkeypatch.context() as impatient, without_storage(server_uri, cut) as address:
        impatient.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        for get in (lambda: open_model(version, address).__enter__(), lambda: registered_evaluation(version, address)):
            with pytest.raises(ServiceError, match="cannot download") as error:
                get()
            assert error.value.retryable


def test_a_storage_whose_client_is_missing(sqlite_uri, monkeypatch):
    client = mlflow_registry.connect(sqlite_uri, create=True).client
    client.create_registered_model("far")
    client.create_model_version("far", source="s3://bucket/model")
    monkeypatch.setitem(sys.modules, "boto3", None)
    for files in (None, []):
        with (
            pytest.raises(ServiceError, match="the client of its storage is not installed here") as error,
            open_model("models:/far/1", sqlite_uri, files),
        ):
            pass
        assert not error.value.retryable
        assert "boto3" in error.value.facts["received"]
        assert "--serve-artifacts" in error.value.facts["hint"]
