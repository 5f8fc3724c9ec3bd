"""The database's URL, its password, and errors that say what a person can do."""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url

from pipeparts.components.ingestion.ingest_sql.statements import Statement
from pipeparts.runtime.errors import DataError, InputError, PipepartsError, ServiceError, suggest
from pipeparts.runtime.secrets import FORMS, read_secret

# In a URL's options, also inside of ODBC's; `passfile` and `sslkey` only name files.
_SECRET_OPTION = re.compile(r"(?:pass(?!file)|pwd|secret|token|(?:api|access|private)_?key)\w*\s*=(?!=)", re.IGNORECASE)
_DRIVERS = {
    "postgresql": "psycopg[binary]", "mysql": "pymysql (URL mysql+pymysql://...)", "mariadb": "pymysql (URL "
    "mariadb+pymysql://...)", "mssql": "pyodbc, and Microsoft's ODBC driver", "oracle": "oracledb (URL "
    "oracle+oracledb://...)", "snowflake": "snowflake-sqlalchemy", "bigquery": "sqlalchemy-bigquery",
    "redshift": "sqlalchemy-redshift", "trino": "trino", "databricks": "databricks-sqlalchemy",
    "clickhouse": "clickhouse-sqlalchemy", "cockroachdb": "sqlalchemy-cockroachdb",
}  # fmt: skip
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521, "cockroachdb": 26257}
_FILES = ("sqlite", "duckdb")
_CONNECT_SECONDS = 15

_MISSING_TABLE = re.compile(r'relation "([^"]+)" does not exist|no such table: (\S+)|Table with name (\S+) does not')


def parse_url(url: str, password_secret: str) -> URL:
    """The URL with its password, which comes from where the reference says.

    Raises:
        InputError: For what is no URL, a URL that holds a password, and a secret that is not there.
    """
    shown = without_password(url)
    form = "dialect://user@host:port/database, such as postgresql://reader@db.example.org:5432/flights"
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise InputError("not a database's URL", parameter="url", allowed=form, received=shown or "nothing") from None
    if parsed.password is not None or _SECRET_OPTION.search(_options(url)):
        raise InputError(
            "the URL holds a password, which would be written into the pipeline and its runs",
            parameter="url",
            allowed="a URL without a password",
            received=shown,
            hint=f"give it as password_secret: {FORMS}",
        )
    if parsed.drivername == "postgres":
        raise InputError(
            "no such dialect", parameter="url", allowed=form, received=shown, hint="write postgresql:// instead"
        )
    if parsed.drivername == "postgresql":  # SQLAlchemy 2.0 would take psycopg2 here, 2.1 takes psycopg
        parsed = parsed.set(drivername="postgresql+psycopg")
    if not password_secret:
        return parsed
    if parsed.get_backend_name() in _FILES:
        raise InputError(
            "a file needs no password", parameter="password_secret", allowed=f"nothing, with {shown}",
            received="a reference to a secret",
        )  # fmt: skip
    return parsed.set(password=read_secret(password_secret, parameter="password_secret"))


def without_password(url: str | URL) -> str:
    """The URL as it may be shown and written down."""
    if isinstance(url, URL):
        # Made anew: `url.set(password=None)` leaves the password in.
        bare = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
        return bare.render_as_string(hide_password=True)
    text = re.sub(r"://.*@", "://***@", url, flags=re.DOTALL)
    return text.partition("?")[0] + "?***" if _SECRET_OPTION.search(_options(url)) else text


def _options(url: str) -> str:
    return urllib.parse.unquote_plus(url.partition("?")[2])


class SqlDatabase:
    """A database, connected through SQLAlchemy.

    Args:
        url: Its URL, password included.

    Raises:
        InputError: For an unknown dialect, a driver that is not installed, a wrong password, no such database.
        ServiceError: Where the server cannot be reached, with host and port.
    """

    def __init__(self, url: URL) -> None:
        require_file(url)
        self._engine = _engine(url)
        try:
            self._connection = self._engine.connect()
        except Exception as error:
            self._engine.dispose()
            raise explain_connect(error, url) from None

    def table_sql(self, statement: Statement) -> str:
        """See `logic.Database`."""
        schema = statement.schema or None
        try:
            found = sa.inspect(self._connection).has_table(statement.table, schema=schema)
        except sa.exc.OperationalError as error:
            if "unknown database" not in str(error):  # what SQLite says of a schema that is not there
                raise
            found = False
        if not found:
            names: list[str] = []
            with contextlib.suppress(sa.exc.DBAPIError):
                names = self.tables(statement.schema)
            raise no_table(statement, names)
        dialect = self._connection.dialect
        name = dialect.identifier_preparer.format_table(sa.table(statement.table, schema=schema))
        # In names as well SQLAlchemy doubles the signs that the driver would take for parameters.
        return f"SELECT * FROM {name.replace('%%', '%') if dialect.paramstyle in ('format', 'pyformat') else name}"

    def tables(self, schema: str = "") -> list[str]:
        """See `logic.Database`."""
        self._connection.rollback()
        inspector = sa.inspect(self._connection)
        names = inspector.get_table_names(schema or None)
        names += inspector.get_view_names(schema or None)
        return sorted(f"{schema}.{name}" if schema else name for name in names)

    def reader(self, sql: str, statement: Statement, overrides: dict[str, pa.DataType]) -> Any:
        """See `logic.Database`."""
        self._connection.rollback()  # ends the transaction in which the tables were looked up
        dialect = self._connection.dialect
        if dialect.name == "postgresql" and dialect.driver == "psycopg":
            from pipeparts.components.ingestion.ingest_sql.postgres import PostgresReader

            return PostgresReader(self._connection, sql, overrides)
        from pipeparts.components.ingestion.ingest_sql.cursors import CursorReader

        return CursorReader(self._connection, sql, statement, overrides)

    def close(self) -> None:
        """See `logic.Database`."""
        self._connection.close()
        self._engine.dispose()


def no_table(statement: Statement, names: list[str]) -> InputError:
    """The error for a table that is not there."""
    return InputError(
        "no such table",
        parameter="query",
        allowed=names,
        received=str(statement),
        hint=suggest(str(statement), names) or "a table of another schema is written schema.table",
    )


def require_file(url: URL) -> None:
    """Checks that a file database is there: SQLite and DuckDB would make an empty one.

    Raises:
        InputError: Naming the files that are there.
    """
    database = url.database or ""
    if url.get_backend_name() not in _FILES or not database or database.startswith((":", "file:", "md:")):
        return
    path = Path(database)
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.iterdir() if p.is_file()) if path.parent.is_dir() else []
        raise InputError(
            "no such database",
            parameter="url",
            where=str(path.absolute()),
            allowed="a file that is there",
            received="a folder" if path.is_dir() else "nothing there",
            hint=suggest(path.name, beside) or "an absolute path has four slashes: sqlite:////data/flights.db",
        )


def explain(error: Exception, url: URL, tables: Iterable[str] = (), rows: int | None = None) -> PipepartsError:
    """What went wrong while reading, in the database's own words.

    Args:
        error: What SQLAlchemy or the driver raised.
        url: The database's URL.
        tables: The names that there are, for a hint.
        rows: How many rows had come, once rows were coming.
    """
    original = getattr(error, "orig", None) or error
    message = _message(original, url)
    where = without_password(url) + (f", after {rows:,} rows" if rows else "")
    kind = _kind(original, message)
    if kind == "query":
        missing = _MISSING_TABLE.search(message)
        name = next((group for group in missing.groups() if group), "").strip('"!') if missing else ""
        return InputError(
            "the database refuses the query", parameter="query", where=where, allowed="a query that it can run",
            received=message, hint=suggest(name, tables) if name else None,
        )  # fmt: skip
    if "not a database" in message:  # SQLite looks only when it reads
        return InputError("not a database", parameter="url", where=where, received=message)
    if kind == "write":
        return InputError(
            "the query writes, and only reading is allowed", parameter="query", where=where,
            allowed="a statement that only reads", received=message,
        )  # fmt: skip
    if kind == "data":
        return DataError("the database failed on its data", parameter="query", where=where, received=message)
    return ServiceError(
        "the database failed while reading" if rows is None else "the database went away while rows were coming",
        parameter="url", where=where, received=message, hint="try again; nothing was written",
    )  # fmt: skip


def _engine(url: URL) -> Engine:
    backend = url.get_backend_name()
    arguments: dict[str, Any] = {}
    if url.drivername.startswith("postgresql+psycopg"):
        # Without an encoding of its own (SQL_ASCII) a server's texts would come as bytes.
        defaults = {"connect_timeout": _CONNECT_SECONDS, "client_encoding": "utf8"}
        arguments = {name: value for name, value in defaults.items() if name not in url.query}
    try:
        return sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args=arguments)
    except (sa.exc.NoSuchModuleError, ImportError) as error:
        known = sorted({*_DRIVERS, *_FILES})
        install = _DRIVERS.get(backend)
        raise InputError(
            "no driver for this database is installed",
            parameter="url",
            where=without_password(url),
            allowed=f"one of {', '.join(known)}, or any other dialect of SQLAlchemy that is installed",
            received=f"{url.drivername} ({error})",
            hint=f"install {install} in the image" if install else suggest(backend, known),
        ) from None
    except (sa.exc.ArgumentError, TypeError, ValueError) as error:
        raise InputError(
            "the URL's options are wrong", parameter="url", where=without_password(url), received=_message(error, url)
        ) from None


def explain_connect(error: Exception, url: URL) -> PipepartsError:
    """What went wrong while connecting."""
    original = getattr(error, "orig", None) or error
    message = _message(original, url)
    if isinstance(error, (TypeError, sa.exc.ArgumentError)) or "invalid connection option" in message:
        return InputError("the URL's options are wrong", parameter="url", where=without_password(url), received=message)
    backend = url.get_backend_name()
    host, port = url.host, url.port or _PORTS.get(backend)
    if host and port and not _answers(host, port):
        return ServiceError(
            f"cannot reach the database at {host}:{port}", parameter="url", where=without_password(url),
            received=message, hint="is the server running, and may this machine reach it?",
        )  # fmt: skip
    lower = message.lower()
    if any(words in lower for words in ("password", "authentication", "access denied", "login failed", "ora-01017")):
        return InputError(
            f"the database does not accept user and password: user {url.username or '(none)'}",
            parameter="password_secret" if url.password is not None else "url",
            where=without_password(url), received=message,
            hint=None if url.password is not None else f"give the password as password_secret: {FORMS}",
        )  # fmt: skip
    if re.search(r"database .* does not exist|unknown database|cannot open database", lower):
        return InputError(
            f"no such database: {url.database or url.username}", parameter="url", where=without_password(url),
            received=message,
        )  # fmt: skip
    if "not a database" in lower or "not a valid" in lower:
        return InputError("not a database", parameter="url", where=without_password(url), received=message)
    return ServiceError("the database refused the connection", parameter="url", where=without_password(url),
                        received=message)  # fmt: skip


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _kind(error: Exception, message: str) -> str:
    """query, write, data or service."""
    state = getattr(error, "sqlstate", None)
    if state:
        if state == "25006":
            return "write"
        if state[:2] in ("42", "3F", "3D", "0A"):
            return "query"
        return "data" if state[:2] in ("22", "21") else "service"
    names = {kind.__name__ for kind in type(error).__mro__}
    lower = message.lower()
    if "readonly database" in lower or "read-only" in lower:
        return "write"
    if "could not decode" in lower or "malformed" in lower:
        return "data"
    if re.search(r"syntax error|no such|incomplete input|unrecognized token|ambiguous|misuse of|wrong num", lower):
        return "query"
    if names & {"ConversionException", "OutOfRangeException", "InvalidInputException", "DataError"}:
        return "data"
    if names & {"OperationalError", "InterfaceError", "IOException"}:
        return "service"
    return "query" if names & {"ProgrammingError", "BinderException", "CatalogException", "ParserException"} else "data"


def _message(error: Exception, url: URL) -> str:
    """The driver's message in one line, without the password."""
    diagnosis = getattr(error, "diag", None)
    if diagnosis is not None and diagnosis.message_primary:
        details = [diagnosis.message_detail and f"DETAIL: {diagnosis.message_detail}",
                   diagnosis.message_hint and f"HINT: {diagnosis.message_hint}"]  # fmt: skip
        text = " ".join([diagnosis.message_primary, *(part for part in details if part)])
    else:
        text = str(error)
    text = " ".join(text.split())
    password = url.password
    return text.replace(str(password), "***") if password else text
