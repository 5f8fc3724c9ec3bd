"""The work of `ingest_sql`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Protocol

import pyarrow as pa

from pipeparts.components.ingestion.ingest_sql.parts import Part, make_parts
from pipeparts.components.ingestion.ingest_sql.statements import Statement, parse_statement
from pipeparts.components.ingestion.ingest_sql.values import parse_columns
from pipeparts.runtime.errors import InputError, PipepartsError, suggest
from pipeparts.runtime.tables import TableInfo, TableWriter

logger = logging.getLogger(__name__)

_MOST_PARTITIONS = 10_000
_QUERY_SHOWN = 1_000
_SOURCE_SHOWN = 200
_PROGRESS_ROWS = 1_000_000


class Reader(Protocol):
    """Reads a query's rows."""

    schema: pa.Schema

    def bounds(self, column: str) -> tuple[Any, Any]:
        """The lowest and highest value of a column."""

    def read(self, part: Part | None) -> Iterator[pa.RecordBatch]:
        """The rows, or those of one part."""


class Database(Protocol):
    """One kind of database, connected."""

    def table_sql(self, statement: Statement) -> str:
        """The SELECT for a whole table."""

    def tables(self, schema: str = "") -> list[str]:
        """The names of tables and views."""

    def reader(self, sql: str, statement: Statement, overrides: dict[str, pa.DataType]) -> Reader:
        """Prepares the reading of a query's rows."""

    def close(self) -> None:
        """Ends the connection."""


def ingest_sql(
    *,
    table_path: str | os.PathLike[str],
    url: str,
    query: str,
    partition_column: str = "",
    partitions: int = 1,
    columns: dict[str, str] | None = None,
    password_secret: str = "",
    source_version: str = "",
) -> TableInfo:
    """Reads a table or a query's rows from a database into a table.

    Args:
        table_path: The folder to make.
        url: SQLAlchemy's URL of the database, without a password.
        query: A table's name, or one SELECT.
        partition_column: The key whose ranges are read one after another.
        partitions: How many ranges.
        columns: Types for some of the columns, instead of the database's.
        password_secret: Where the password is: `env:NAME` or `file:/path`.
        source_version: Written into the table's description; another value makes the step run again.

    Returns:
        The table's description.

    Raises:
        InputError: For parameters that are wrong, and what the database refuses.
        DataError: For a value that does not fit its column, and what the database fails on.
        ServiceError: For a server that cannot be reached, or that goes away.
    """
    from pipeparts.components.ingestion.ingest_sql import connections

    _check_partitions(partition_column, partitions)
    statement = parse_statement(query)
    overrides = parse_columns(columns)
    address = connections.parse_url(url, password_secret)
    shown = connections.without_password(address)
    database = _open(address)
    try:
        with _explained(address, database):
            sql = database.table_sql(statement) if statement.table else statement.sql
            reader = database.reader(sql, statement, overrides)
            parts = _parts(reader, partition_column, partitions)
        with TableWriter(table_path, reader.schema, source=f"{shown}: {str(statement)[:_SOURCE_SHOWN]}") as writer:
            for number, part in enumerate(parts, start=1):
                if part is not None:
                    logger.info("reading part %d of %d: %s", number, len(parts), part)
                _copy(reader.read(part), writer, address, database)
            writer.extra = _extra(statement, partition_column, partitions, source_version)
    finally:
        with contextlib.suppress(Exception):  # the connection may be gone already
            database.close()
    logger.info("read %s rows from %s", f"{writer.rows:,}", shown)
    return writer.info


def _open(address: Any) -> Database:
    if address.get_backend_name() == "duckdb":
        from pipeparts.components.ingestion.ingest_sql.duck import DuckDatabase

        return DuckDatabase(address)
    from pipeparts.components.ingestion.ingest_sql.connections import SqlDatabase

    return SqlDatabase(address)


@contextlib.contextmanager
def _explained(address: Any, database: Database, rows: int | None = None) -> Iterator[None]:
    """Turns the driver's errors into ours."""
    from pipeparts.components.ingestion.ingest_sql.connections import explain

    try:
        yield
    except PipepartsError:
        raise
    except Exception as error:
        tables: list[str] = []
        with contextlib.suppress(Exception):  # only for a hint
            tables = database.tables()
        raise explain(error, address, tables, rows) from None


def _copy(batches: Iterator[pa.RecordBatch], writer: TableWriter, address: Any, database: Database) -> None:
    while True:
        with _explained(address, database, writer.rows):
            batch = next(batches, None)
        if batch is None:
            return
        before = writer.rows
        writer.write(batch)
        if writer.rows // _PROGRESS_ROWS > before // _PROGRESS_ROWS:
            logger.info("read %s rows", f"{writer.rows:,}")


def _parts(reader: Reader, column: str, count: int) -> list[Part | None]:
    if not column:
        return [None]
    names = reader.schema.names
    if column not in names:
        raise InputError(
            "the query gives no such column", parameter="partition_column", allowed=names, received=column,
            hint=suggest(column, names),
        )  # fmt: skip
    low, high = reader.bounds(column)
    return [*make_parts(column, low, high, count)]


def _check_partitions(column: str, count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST_PARTITIONS:
        raise InputError(
            "a number of partitions that is not allowed", parameter="partitions",
            allowed=f"a whole number from 1 to {_MOST_PARTITIONS:,}", received=count,
        )  # fmt: skip
    if count > 1 and not column:
        raise InputError(
            "partitions need a column to divide by", parameter="partition_column",
            allowed="the name of a column of numbers, dates or timestamps", received="nothing",
        )  # fmt: skip


def _extra(statement: Statement, column: str, count: int, source_version: str) -> dict[str, Any]:
    extra: dict[str, Any] = {"query": str(statement)[:_QUERY_SHOWN]}
    if column:
        extra |= {"partition_column": column, "partitions": count}
    if source_version:
        extra["source_version"] = source_version
    return extra
