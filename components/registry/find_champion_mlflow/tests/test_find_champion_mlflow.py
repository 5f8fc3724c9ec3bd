"""Tests of the logic of `find_champion_mlflow`, on a real SQLite registry and on servers that answer badly."""

import contextlib
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeparts.components.registry.find_champion_mlflow.logic import find_champion_mlflow
from pipeparts.errors import ContractError, InputError, ServiceError
from pipeparts.runtime import mlflow_registry
from tests.mlflow_services import answering, write_model

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry with versions 1 (the champion, of another model) and 2 of `late`."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    registry = mlflow_registry.connect(uri, create=True)
    registry.client.create_registered_model("late")
    registry.client.create_registered_model("empty")
    for fingerprint in ("11" * 16, "22" * 16):
        registry.client.create_model_version(
            "late", source="file:///nowhere", tags={mlflow_registry.TAG_MODEL_FINGERPRINT: fingerprint}
        )
    return registry


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model", "aa" * 16)


def find(model, uri, **arguments):
    return find_champion_mlflow(model_path=model, tracking_uri=uri, **{"model_name": "late"} | arguments)


def test_the_version_with_the_alias_is_the_champion(registry, model):
    registry.client.set_registered_model_alias("late", "champion", "1")
    registry.client.set_registered_model_alias("late", "staging", "2")
    assert find(model, registry.uri) == "models:/late/1"
    assert find(model, registry.uri, alias="staging") == "models:/late/2"


@pytest.mark.parametrize(("alias", "fingerprint"), [("tagged", "44" * 16), ("untagged", None)])
def test_without_a_model_it_is_the_version_with_the_alias(registry, alias, fingerprint):
    tags = {mlflow_registry.TAG_COMPARED_WITH: "models:/late/1"}
    if fingerprint:
        tags[mlflow_registry.TAG_MODEL_FINGERPRINT] = fingerprint
    version = registry.client.create_model_version("late", source="file:///nowhere", tags=tags).version
    registry.client.set_registered_model_alias("late", alias, version)
    assert find(None, registry.uri, alias=alias) == f"models:/late/{version}"


@pytest.mark.parametrize("arguments", [{"model_name": "other"}, {"model_name": "empty"}, {"alias": "nobody"}])
def test_where_there_is_no_champion_the_answer_is_empty(registry, model, arguments):
    assert find(model, registry.uri, **arguments) == ""


@pytest.mark.parametrize(
    ("compared_with", "expected"),
    [("models:/late/1", "models:/late/1"), ("", ""), (None, ""), ("models:/late/99", ""), ("models:/x", "")],
)
def test_for_the_champion_itself_it_is_what_that_was_compared_with(registry, tmp_path, compared_with, expected):
    client = registry.client
    version = client.create_model_version(
        "late", source="file:///nowhere", tags={mlflow_registry.TAG_MODEL_FINGERPRINT: "33" * 16}
    ).version
    if compared_with is not None:
        client.set_model_version_tag("late", version, mlflow_registry.TAG_COMPARED_WITH, compared_with)
    client.set_registered_model_alias("late", "same", version)
    same = write_model(tmp_path / "same", "33" * 16)
    assert find(same, registry.uri, alias="same") == expected


def test_a_registry_that_is_not_there_yet_is_not_made(tmp_path, model):
    file = tmp_path / "deep" / "mlflow.db"
    assert find(model, f"sqlite:///{file}") == ""
    assert not file.parent.exists()
    (tmp_path / "empty.db").touch()
    assert find(model, f"sqlite:///{tmp_path / 'empty.db'}") == ""
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_the_environment_names_the_registry(registry, model, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    registry.client.set_registered_model_alias("late", "champion", "1")
    assert find(model, "") == "models:/late/1"


def test_without_any_registry_the_error_lists_where_it_looked(model, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="no MLflow tracking URI is set") as error:
        find(model, "")
    assert "looked in: the parameter tracking_uri, the environment variable MLFLOW_TRACKING_URI" in str(error.value)


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("localhost:5000", "did you mean 'http://localhost:5000'?"),
        ("htps://host", "did you mean 'https'?"),
        ("http://", "the host is missing"),
        ("./mlruns", "hold no registry any more"),
        ("file:///x/mlruns", "hold no registry any more"),
        ("sqlite:/x.db", "four before an absolute one"),
        ("sqlite:///:memory:", "would be gone with this step"),
        ("sqlite:///a%20b.db", "the path without %"),
        ("postgresql+psycopg://me:secret@host/db", "mlflow server --backend-store-uri"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused(model, uri, text):
    with pytest.raises(InputError) as error:
        find(model, uri)
    assert text in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "it's", "..", "x" * 300])
def test_a_name_that_mlflow_refuses_is_refused(model, name):
    with pytest.raises(InputError, match="no registered model can have"):
        find(model, "sqlite:///x.db", model_name=name)


@pytest.mark.parametrize("alias", ["", "latest", "v3", "a b"])
def test_an_alias_that_mlflow_refuses_is_refused(model, alias):
    with pytest.raises(InputError, match="no alias can have"):
        find(model, "sqlite:///x.db", alias=alias)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ContractError, match="no model here"):
        find(tmp_path, "sqlite:///x.db")


@pytest.mark.parametrize(
    ("status", "body", "headline", "retryable"),
    [
        (401, "You are not authenticated", "wants a login", False),
        (401, '{"error_code": "UNAUTHENTICATED", "message": "who?"}', "wants a login", False),
        (403, "Permission denied", "does not permit this", False),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "not you"}', "does not permit this", False),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "under this host name", False),
        (404, "<html>not here</html>", "no MLflow server at this address", False),
        (404, '{"detail": "Not Found"}', "no MLflow server at this address", False),
        (200, "<html>hello</html>", "no MLflow server at this address", False),
        (200, "", "no MLflow server at this address", True),
        (500, "oops", "the MLflow server failed", True),
        (503, '{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}', "the MLflow server failed", True),
    ],
)
def test_a_server_that_refuses_is_explained(model, status, body, headline, retryable):
    with answering(status, body) as address, pytest.raises(ServiceError) as error:
        find(model, address.replace("://", "://me:secret@"))
    assert headline in error.value.headline
    assert error.value.retryable is retryable
    assert "secret" not in str(error.value)
    assert address in str(error.value)


def test_a_server_that_is_not_there_fails_in_seconds(model):
    started = time.monotonic()
    with pytest.raises(ServiceError, match="the MLflow server does not answer") as error:
        find(model, "http://127.0.0.1:1")
    assert "Connection refused" in str(error.value)
    assert error.value.retryable
    assert time.monotonic() - started < 15


@pytest.mark.slow
def test_a_server_that_is_silent_fails_within_20_seconds(model):
    with contextlib.closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        started = time.monotonic()
        with pytest.raises(ServiceError, match="the MLflow server does not answer"):
            find(model, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 25


@pytest.mark.parametrize(
    ("content", "headline"),
    [(b"no database, only text", "is no SQLite database"), (b"SQLite format 3\0" + b"\xff" * 5000, "is damaged")],
)
def test_a_file_that_is_no_database_is_refused(tmp_path, model, content, headline):
    (tmp_path / "bad.db").write_bytes(content)
    with pytest.raises((InputError, ServiceError), match=headline):
        find(model, f"sqlite:///{tmp_path / 'bad.db'}")


def test_a_truncated_database_is_refused(tmp_path, model, registry):
    (tmp_path / "cut.db").write_bytes(registry.database.read_bytes()[:30_000])
    with pytest.raises(ServiceError, match="is damaged"):
        find(model, f"sqlite:///{tmp_path / 'cut.db'}")


def test_a_folder_is_refused(tmp_path, model):
    with pytest.raises(InputError, match="cannot be read"):
        find(model, f"sqlite:///{tmp_path}")


def test_the_database_of_something_else_is_left_alone(tmp_path, model):
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("CREATE TABLE orders (id)")
    before = (tmp_path / "shop.db").read_bytes()
    with pytest.raises(InputError, match="the database of something else") as error:
        find(model, f"sqlite:///{tmp_path / 'shop.db'}")
    assert "orders" in str(error.value)
    assert (tmp_path / "shop.db").read_bytes() == before


@pytest.mark.slow
def test_two_processes_make_one_database_at_once(tmp_path):
    code = "from pipeparts.runtime.mlflow_registry import connect; import sys; connect(sys.argv[1], create=True)"
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code, f"sqlite:///{tmp_path}/new/mlflow.db"]
    processes = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        _, log = process.communicate(timeout=120)
        assert process.returncode == 0, log
        assert "alembic" not in log
    with contextlib.closing(sqlite3.connect(tmp_path / "new" / "mlflow.db")) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (1,)
