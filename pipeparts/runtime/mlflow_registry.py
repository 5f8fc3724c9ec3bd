"""A connection to an MLflow registry: errors that say what to do, the names of our tags, one registration at a time.

MLflow has no compare-and-set: an alias is simply overwritten. `Registry.turn` gives one at a time its turn to look
and then to write, with nothing but tags on the registered model, so that it holds between machines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import re
import time
import urllib.parse
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pipeparts.runtime.errors import InputError, PipepartsError, ServiceError, suggest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

logger = logging.getLogger(__name__)

#: The tags of a model version.
TAG_RUN = "pipeparts.run"
TAG_PIPELINE_HASH = "pipeparts.pipeline_hash"
TAG_PACKAGE_VERSION = "pipeparts.package_version"
TAG_DATA_FINGERPRINT = "pipeparts.data_fingerprint"
TAG_MODEL_FINGERPRINT = "pipeparts.model_fingerprint"
TAG_VERDICT = "pipeparts.verdict"
TAG_COMPARED_WITH = "pipeparts.compared_with"
TAG_FRAMEWORK = "pipeparts.framework"
TAG_TASK = "pipeparts.task"
TAG_LABEL = "pipeparts.label"

#: What `register_mlflow` puts on the registered model while it has its turn.
TURN_PREFIX = "pipeparts.turn."

_VARIABLE = "MLFLOW_TRACKING_URI"
_SCHEMES = ("http", "https", "sqlite")
_DATABASES = ("postgresql", "mysql", "mssql", "oracle")

# Steps run unattended, often without internet: no usage reports, no links on standard output.
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
# MLflow's own defaults wait for an unreachable server for minutes. With these it is about 20 s at worst.
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
}
_TALKATIVE = ("mlflow.store.db.utils", "mlflow.store.model_registry", "alembic")

_TURN_SECONDS = 60.0
_TURN_POLL_SECONDS = 0.05


@dataclasses.dataclass
class Turn:
    """The turn of one registration.

    Attributes:
        until: When, on this machine's monotonic clock, the turn should be over: others stop waiting some time after.
    """

    until: float

    def require_time(self) -> None:
        """Raises where the turn is over, before something is written that may be written over by the next."""
        if time.monotonic() > self.until:
            raise ServiceError(
                "the registry answered too slowly to register safely",
                allowed=f"{_TURN_SECONDS / 2:.0f} s for a registration's last step",
                received="more",
                hint="run this step again: it goes on where it stopped",
            )


@dataclasses.dataclass(frozen=True)
class Registry:
    """An MLflow server or database, as tracking store and as model registry.

    Attributes:
        uri: Its tracking URI.
        client: MLflow's client for it. Wrap the calls in `talking`.
    """

    uri: str
    client: MlflowClient

    @property
    def place(self) -> str:
        """The URI without its password, for messages and outputs."""
        return without_password(self.uri)

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for a server."""
        return _database_file(self.uri) if self.uri.startswith("sqlite:") else None

    @contextlib.contextmanager
    def talking(self, doing: str) -> Iterator[None]:
        """Turns what MLflow raises into an error of this library.

        Args:
            doing: What is being done, for the headline: "cannot <doing>".
        """
        with _explained(self.uri, doing):
            yield

    def registered_model(self, name: str) -> RegisteredModel | None:
        """The registered model with its aliases and tags, or None where there is none of that name."""
        with self.talking(f"look up the model {name!r}"):
            try:
                found = self.client.get_registered_model(name)
            except _mlflow_exception() as error:
                if _is_absent(error, self.uri):
                    return None
                raise
        if found.name != name:  # MLflow's client takes an empty answer for an empty model
            raise ServiceError(
                f"cannot look up the model {name!r}: no MLflow server at this address",
                where=self.place,
                allowed="a registered model of that name, or the answer that there is none",
                received="an empty answer",
            )
        return found

    def aliased_version(self, name: str, alias: str) -> str:
        """The number of the version that an alias points to, or "" where there is none."""
        found = self.registered_model(name)
        return "" if found is None else str(found.aliases.get(alias, ""))

    def version(self, name: str, version: str) -> ModelVersion | None:
        """A version, or None where there is none of that number."""
        with self.talking(f"look up version {version} of the model {name!r}"):
            try:
                return self.client.get_model_version(name, version)
            except _mlflow_exception() as error:
                if _is_absent(error, self.uri):
                    return None
                raise

    def versions_of(self, name: str, fingerprint: str) -> list[ModelVersion]:
        """The versions of a registered model with that model fingerprint, the oldest first."""
        with self.talking(f"look for versions of the model {name!r}"):
            found = self.client.search_model_versions(
                f"name = '{name}' and tags.`{TAG_MODEL_FINGERPRINT}` = '{fingerprint}'"
            )
        return sorted(found, key=lambda version: int(version.version))

    @contextlib.contextmanager
    def turn(self, name: str, who: str = "") -> Iterator[Turn]:
        """Waits until no one else is registering under a name, and keeps others waiting until the block ends.

        Lamport's one-bit algorithm (1986) over tags of the registered model: say that you want to, look who else
        does, give way to the smaller name. It needs no clock, and only that a tag once set is seen by all. Who died
        in its turn is passed over after a minute without a change.

        Args:
            name: A registered model that exists.
            who: What the tag says, for a person who looks.
        """
        key = f"{TURN_PREFIX}{uuid.uuid4().hex}"
        try:
            with self.talking(f"take a turn at the model {name!r}"):
                self._take_turn(name, key, who or "registering")
            yield Turn(until=time.monotonic() + _TURN_SECONDS / 2)
        finally:
            with contextlib.suppress(_mlflow_exception()):
                self.client.delete_registered_model_tag(name, key)

    def _take_turn(self, name: str, key: str, who: str) -> None:
        seen: dict[tuple[str, str], float] = {}
        said = 0
        said_at = 0.0  # 0: not said, or taken back
        while True:
            turns = self._turns(name)
            now = time.monotonic()
            seen = {turn: seen.get(turn, now) for turn in turns.items() if turn[0] != key}
            others = {other for other, _ in seen}
            for (other, value), since in seen.items():
                if now - since > _TURN_SECONDS:
                    logger.warning("passing over a registration of %s that stood still for a minute: %s", name, value)
                    self.client.delete_registered_model_tag(name, other)
                    others.discard(other)
            give_way = any(other < key for other in others)
            # Said again every few seconds, so that who only waits is not taken for dead.
            fresh = said_at > 0 and key in turns and now - said_at < _TURN_SECONDS / 6
            if fresh and not others:
                return
            if give_way:
                if said_at:
                    self.client.delete_registered_model_tag(name, key)
                    said_at = 0.0
            elif not fresh:
                said += 1
                said_at = time.monotonic()
                self.client.set_registered_model_tag(name, key, f"{who} ({said})")
                continue
            time.sleep(_TURN_POLL_SECONDS)

    def _turns(self, name: str) -> dict[str, str]:
        tags = self.client.get_registered_model(name).tags
        return {key: value for key, value in tags.items() if key.startswith(TURN_PREFIX)}


@overload
def connect(tracking_uri: str = "", *, create: Literal[True]) -> Registry: ...
@overload
def connect(tracking_uri: str = "", *, create: bool) -> Registry | None: ...
def connect(tracking_uri: str = "", *, create: bool) -> Registry | None:
    """Connects to the registry, once it has answered.

    Args:
        tracking_uri: `http(s)://...` or `sqlite:///...`; empty: that of the environment's MLFLOW_TRACKING_URI.
        create: Whether to make a SQLite database that is not there yet.

    Returns:
        The registry; None for a SQLite database that is not there, where it is not to be made.

    Raises:
        InputError: Where no URI is given, or it is none that can be used.
        ServiceError: Where it does not answer, or refuses.
    """
    uri = resolve_tracking_uri(tracking_uri)
    if uri.startswith("sqlite:"):
        file = _database_file(uri)
        return _open_database(file) if create or _begins_as_a_database(file) else None
    client = _client(uri)
    with patience_of_seconds(), _explained(uri, "connect"):
        client.search_registered_models(max_results=1)
    return Registry(uri, client)


def resolve_tracking_uri(tracking_uri: str) -> str:
    """The tracking URI to use: the parameter's, or else the environment's.

    Raises:
        InputError: Where there is neither, or it is none that can be used.
    """
    source, uri = "tracking_uri", tracking_uri.strip()
    if not uri:
        source, uri = _VARIABLE, os.environ.get(_VARIABLE, "").strip()
    if not uri:
        raise InputError(
            "no MLflow tracking URI is set",
            parameter="tracking_uri",
            allowed="http(s)://... of a server, or sqlite:///... of a file",
            received=f"nothing; looked in: the parameter tracking_uri, the environment variable {_VARIABLE}",
        )
    scheme, _, rest = uri.partition(":")
    scheme = scheme.lower()
    if scheme in ("http", "https") and urllib.parse.urlsplit(uri).hostname:
        return uri.rstrip("/")
    if scheme == "sqlite" and rest.startswith("///"):
        return f"sqlite:///{_database_file(uri)}"
    raise InputError(
        "a tracking URI that cannot be used",
        parameter=source,
        allowed="http://HOST:PORT, https://HOST, or sqlite:///FILE (four slashes before an absolute path)",
        received=without_password(uri),
        hint=_hint_for(uri, scheme),
    )


def without_password(uri: str) -> str:
    """A URI that can be shown: without user, password and query."""
    parts = urllib.parse.urlsplit(uri)
    if not parts.netloc:
        return uri.partition("?")[0]
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def require_model_name(name: str) -> str:
    """Checks the name of a registered model.

    Raises:
        InputError: Where MLflow or its filters would refuse it.
    """
    if not name.strip() or re.search(r"""[/:'"`%\\\n]""", name) or name.strip(".") == "" or len(name) > 256:
        raise InputError(
            "a name that no registered model can have",
            parameter="model_name",
            allowed="1 to 256 characters without / : ' \" ` % \\",
            received=name or "an empty text",
        )
    return name


def require_alias(alias: str) -> str:
    """Checks the name of an alias.

    Raises:
        InputError: Where MLflow would refuse it.
    """
    reserved = alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", alias)
    if reserved or not re.fullmatch(r"[\w\-]{1,255}", alias):
        raise InputError(
            "a name that no alias can have",
            parameter="alias",
            allowed="letters, digits, - and _; not `latest` and not `v1`, which MLflow keeps for itself",
            received=alias or "an empty text",
        )
    return alias


def version_uri(name: str, version: str) -> str:
    """The URI of a model version: `models:/name/3`."""
    return f"models:/{name}/{version}"


@contextlib.contextmanager
def patience_of_seconds() -> Iterator[None]:
    """Lets MLflow's requests fail within about 20 s, where the environment does not say otherwise."""
    added = {name: value for name, value in _IMPATIENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _client(uri: str) -> MlflowClient:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _open_database(file: Path) -> Registry:
    """Opens a SQLite registry, and makes it where it is not there: one process at a time."""
    uri = f"sqlite:///{file}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(file.parent / f".{file.name}.lock", os.O_CREAT | os.O_RDWR, 0o644)
    except OSError as error:
        raise ServiceError(
            "cannot open the registry's database",
            where=str(file),
            received=str(error),
            hint="may this user write there?",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _begins_as_a_database(file):
            _require_mlflow_tables(file)
        else:
            logger.info("making a new MLflow registry in %s: this takes some seconds, once", file)
        with _explained(uri, "open the registry's database"), _quieter():
            return Registry(uri, _client(uri))
    finally:
        os.close(lock)


def _require_mlflow_tables(file: Path) -> None:
    """Raises where a database is full of something else: MLflow would add its tables to it."""
    import sqlite3

    uri = f"sqlite:///{file}"
    try:
        with contextlib.closing(sqlite3.connect(file, timeout=20)) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    except sqlite3.Error as error:
        raise _explain(f"{type(error).__name__}: {error}", uri, "open the registry's database") from error
    if tables and "experiments" not in tables:
        raise InputError(
            "the tracking URI names the database of something else",
            parameter="tracking_uri",
            where=str(file),
            allowed="a database of MLflow, or a place for a new one",
            received=f"a database with the tables {', '.join(sorted(tables))}",
        )


@contextlib.contextmanager
def _quieter() -> Iterator[None]:
    """Mutes the hundred lines that MLflow's migrations log."""
    levels = {name: logging.getLogger(name).level for name in _TALKATIVE}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _database_file(uri: str) -> Path:
    path = uri.removeprefix("sqlite:///")
    if not path or path.startswith(":memory:"):
        raise InputError(
            "a registry in memory would be gone with this step",
            parameter="tracking_uri",
            allowed="sqlite:///FILE",
            received=uri,
        )
    if re.search(r"[%?#]", path):
        raise InputError(
            "a SQLite registry with a path that MLflow reads differently in different places",
            parameter="tracking_uri",
            allowed="sqlite:///FILE, the path without % ? #",
            received=uri,
        )
    return Path(path).absolute()


def _begins_as_a_database(file: Path) -> bool:
    """Whether the file is there with something in it.

    Raises:
        InputError: Where it is there and is something else.
    """
    try:
        with file.open("rb") as handle:
            start = handle.read(16)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InputError(
            "the registry's database cannot be read",
            parameter="tracking_uri",
            where=str(file),
            allowed="a SQLite database file, or a place for a new one",
            received=str(error),
        ) from error
    if start and start != b"SQLite format 3\0":
        raise InputError(
            "the registry's database is no SQLite database",
            parameter="tracking_uri",
            where=str(file),
            allowed="a file that begins with 'SQLite format 3'",
            received=repr(start),
        )
    return bool(start)


def _hint_for(uri: str, scheme: str) -> str | None:
    if scheme.split("+")[0] in _DATABASES:
        return "start `mlflow server --backend-store-uri ...` on this database, and give the server's address"
    if scheme == "sqlite":
        return "three slashes before a relative path, four before an absolute one"
    if "://" not in uri and re.fullmatch(r"[\w.\-]+:\d+(/.*)?", uri):
        return f"did you mean 'http://{uri}'?"
    if scheme in ("http", "https"):
        return "the host is missing"
    if scheme == "file" or ("://" not in uri and re.search(r"[/.]|^mlruns$", uri)):
        return "did you mean sqlite:///FILE? Folders (`mlruns`) hold no registry any more in MLflow 3"
    return suggest(scheme, _SCHEMES)


def _mlflow_exception() -> type[Any]:
    from mlflow.exceptions import MlflowException

    exception: type[Any] = MlflowException
    return exception


def _is_absent(error: Any, uri: str) -> bool:
    """Whether MLflow itself says that there is no such thing: a 404 of any other web server does not count."""
    from mlflow.exceptions import RestException

    if error.error_code != "RESOURCE_DOES_NOT_EXIST":
        return False
    return uri.startswith("sqlite:") or isinstance(error, RestException)


@contextlib.contextmanager
def _explained(uri: str, doing: str) -> Iterator[None]:
    exception = _mlflow_exception()
    try:
        with warnings.catch_warnings():
            # What MLflow does that its own libraries call deprecated is nothing a user of this one can change.
            warnings.filterwarnings("ignore", module=r"mlflow|sqlalchemy|alembic")
            yield
    except PipepartsError:
        raise
    except exception as error:
        raise _explain(str(error), uri, doing) from error
    except Exception as error:
        # The SQL store lets some of SQLAlchemy's errors through; anything else is a fault of ours.
        if not type(error).__module__.startswith(("sqlalchemy", "sqlite3", "alembic", "requests", "urllib3")):
            raise
        raise _explain(f"{type(error).__name__}: {error}", uri, doing) from error


# What an answer contains, the headline that it gets, whether to try again, and what to do.
_ANSWERS: tuple[tuple[str, str, bool, str | None], ...] = (
    (
        r"error code 401\b|^UNAUTHENTICATED|You are not authenticated",
        "the MLflow server wants a login, or refuses this one",
        False,
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    (
        r"Invalid Host header",
        "the MLflow server does not answer under this host name",
        False,
        "start it with `mlflow server --allowed-hosts ...` naming this host",
    ),
    (
        r"error code 403\b|^PERMISSION_DENIED|^Permission denied",
        "the MLflow server does not permit this",
        False,
        "does this user have the right to read and edit registered models and runs?",
    ),
    (
        r"error code 40[45]\b|not in a valid JSON|ENDPOINT_NOT_FOUND|\"?detail\"?'?: '?\"?Not Found",
        "no MLflow server at this address",
        False,
        "something else answers here: is the port right, and the path where a proxy puts MLflow under one?",
    ),
    (r"too many 5\d\d error|error code 5\d\d", "the MLflow server failed", True, "look at the server's log"),
    (r"too many 429", "the MLflow server asks for fewer requests", True, None),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "the MLflow server's certificate is not trusted",
        False,
        "set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the authority that signed it",
    ),
    (
        r"Connection refused|Connection reset|Connection aborted|Name or service not known|getaddrinfo|name resolution|"
        r"NameResolutionError|unreachable|timed? ?out|timeout",
        "the MLflow server does not answer",
        True,
        "is it running, and can this machine reach it?",
    ),
    (r"IncompleteRead|Connection broken|incomplete message", "the MLflow server broke off its answer", True, None),
    (
        r"out-of-date database schema",
        "the registry's database belongs to another version of MLflow",
        False,
        "`mlflow db upgrade URI` brings it up to date; keep a copy of it first",
    ),
    (r"database is locked", "the registry's database is busy", True, "for many at once, run `mlflow server`"),
    (
        r"not a database|malformed|file is encrypted|unsupported file format|disk image",
        "the registry's database is damaged",
        False,
        "bring it back from a copy, or give another file",
    ),
    (
        r"readonly database|unable to open database|disk I/O|database or disk is full",
        "the registry's database cannot be written",
        True,
        "is there room on the disk, and may this user write there?",
    ),
)  # fmt: skip


def _explain(text: str, uri: str, doing: str) -> PipepartsError:
    text = re.sub(r"(://)[^/@\s]+@", r"\1", text)
    cause = re.search(r"Max retries exceeded .*\(Caused by (.+)\)$", text, re.DOTALL)
    if cause:  # without the request's long URL
        text = cause[1]
    found = next((answer for answer in _ANSWERS if re.search(answer[0], text, re.IGNORECASE)), None)
    headline, retryable, hint = found[1:] if found else ("MLflow refused the request", False, None)
    error = ServiceError(
        f"cannot {doing}: {headline}", where=without_password(uri), received=" ".join(text.split()), hint=hint
    )
    error.retryable = retryable
    return error
