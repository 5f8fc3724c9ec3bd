"""Reading from any database of SQLAlchemy: rows from a server-side cursor, some thousands at a time."""

from __future__ import annotations

import datetime as dt
import decimal
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from pipeparts.components.ingestion.ingest_sql.parts import Part
from pipeparts.components.ingestion.ingest_sql.statements import Statement
from pipeparts.components.ingestion.ingest_sql.values import TIME, check_names, decimal_type, to_array

logger = logging.getLogger(__name__)

_BATCH_ROWS = 16_384
_VIEW = "pipeparts_query"


class CursorReader:
    """Reads a query's rows.

    The types are those that the database declares. For columns without one (expressions in SQLite, queries
    in databases that are not known here) all rows are looked at once before.

    Args:
        connection: A connection; what it does is rolled back at the end.
        sql: The SELECT.
        statement: What was asked for.
        overrides: Types for some of the columns.
    """

    def __init__(
        self, connection: sa.Connection, sql: str, statement: Statement, overrides: dict[str, pa.DataType]
    ) -> None:
        self._sqlite = connection.dialect.name == "sqlite"
        declared = _declared(connection, sql, statement)
        connection.rollback()
        self._connection = connection.execution_options(stream_results=True, yield_per=_BATCH_ROWS)
        if self._sqlite:
            connection.exec_driver_sql("PRAGMA query_only = ON")
            connection.exec_driver_sql("BEGIN")  # one snapshot; the driver begins only before it writes
        self._text = _as_text(sql)
        with self._connection.execute(self._text) as result:
            self._names = list(result.keys())
        check_names(self._names, overrides)
        self._overrides = overrides
        kinds = {name: overrides.get(name, declared.get(name)) for name in self._names}
        unknown = [name for name, kind in kinds.items() if kind is None]
        if unknown:
            kinds.update(self._discover(unknown))
        self.schema = pa.schema(list(kinds.items()))
        self._rows = 0

    def bounds(self, column: str) -> tuple[Any, Any]:
        """The lowest and highest value of a column."""
        part = self._subquery(column)
        row = self._connection.execute(sa.select(sa.func.min(part.c[column]), sa.func.max(part.c[column]))).one()
        return row[0], row[1]

    def read(self, part: Part | None) -> Iterator[pa.RecordBatch]:
        """The rows, or those of one part.

        Raises:
            DataError: For a value that its column's type does not have.
        """
        for rows in self._rows_of(self._text if part is None else self._selected(part)):
            columns = list(zip(*rows, strict=True))
            arrays = [
                to_array(
                    values, field.type, column=field.name, first_row=self._rows + 1,
                    lenient=field.name in self._overrides,
                )
                for values, field in zip(columns, self.schema, strict=True)
            ]  # fmt: skip
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)
            self._rows += len(rows)

    def _rows_of(self, selected: Any) -> Iterator[Any]:
        with self._connection.execute(selected) as result:
            yield from result.partitions(_BATCH_ROWS)  # without a number SQLite's rows come one by one

    def _subquery(self, column: str) -> Any:
        return self._text.columns(sa.column(column)).subquery(_VIEW)

    def _selected(self, part: Part) -> Any:
        subquery = self._subquery(part.column)
        key = subquery.c[part.column]
        selected: Any = sa.select(sa.literal_column("*")).select_from(subquery)
        if part.nulls:
            return selected.where(key.is_(None))
        if part.low is None and part.high is None:
            return selected.where(key.is_not(None))
        if part.low is not None:
            selected = selected.where(key >= part.low)
        return selected if part.high is None else selected.where(key < part.high)

    def _discover(self, names: list[str]) -> dict[str, pa.DataType]:
        """The types that hold all values of the columns."""
        logger.info("looking at all rows for the types of %s", ", ".join(names))
        places = [self._names.index(name) for name in names]
        seen: dict[str, set[Any]] = {name: set() for name in names}
        for rows in self._rows_of(self._text):
            for name, place in zip(names, places, strict=True):
                seen[name].update(map(_kind_of, (row[place] for row in rows)))
        return {name: _type_for(kinds - {type(None)}) for name, kinds in seen.items()}


def _as_text(sql: str) -> sa.TextClause:
    # Every colon is escaped: to SQLAlchemy `:name` would be a parameter. A last comment ends with its line.
    return sa.text(sql.replace(":", r"\:") + "\n")


def _declared(connection: sa.Connection, sql: str, statement: Statement) -> dict[str, pa.DataType | None]:
    """The types that the database declares for the columns; None where it declares none."""
    inspector = sa.inspect(connection)
    if statement.table:
        columns = inspector.get_columns(statement.table, schema=statement.schema or None)
    elif connection.dialect.name == "sqlite":
        # SQLite tells the declared types of a query's columns only of a view; a temporary one changes no file.
        connection.exec_driver_sql(f"CREATE TEMP VIEW {_VIEW} AS {sql}\n")
        columns = inspector.get_columns(_VIEW)
        connection.exec_driver_sql(f"DROP VIEW temp.{_VIEW}")
    else:
        columns = []
    sqlite = connection.dialect.name == "sqlite"
    return {column["name"]: _from_declaration(column["type"], sqlite=sqlite) for column in columns}


def _from_declaration(kind: Any, *, sqlite: bool) -> pa.DataType | None:
    if isinstance(kind, (sa.Float, sa.Double)) or (isinstance(kind, sa.Numeric) and sqlite):
        return pa.float64()  # SQLite keeps what is declared numeric as floats
    if isinstance(kind, sa.Numeric):
        return decimal_type(kind.precision, kind.scale)
    if isinstance(kind, sa.DateTime):
        return pa.timestamp("us", "UTC") if kind.timezone else pa.timestamp("us")
    types: list[tuple[Any, pa.DataType]] = [
        (sa.Boolean, pa.bool_()), (sa.Integer, pa.int64()), (sa.Date, pa.date32()), (sa.Time, TIME),
        (sa.LargeBinary, pa.binary()), (sa.types.BINARY, pa.binary()), (sa.types.VARBINARY, pa.binary()),
        ((sa.String, sa.JSON, sa.Uuid), pa.string()),
    ]  # fmt: skip
    return next((arrow for declared, arrow in types if isinstance(kind, declared)), None)


def _kind_of(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return dt.datetime if value.tzinfo is None else dt.tzinfo
    return type(value)


def _type_for(kinds: set[Any]) -> pa.DataType:
    """The type for the Python types seen; where they do not go together, the first misfit is found on reading."""
    if not kinds:
        return pa.string()
    if kinds <= {bool}:
        return pa.bool_()
    if kinds <= {int, bool}:
        return pa.int64()
    if kinds <= {int, float, decimal.Decimal}:
        return pa.float64()
    single: dict[Any, pa.DataType] = {
        bytes: pa.binary(), dt.datetime: pa.timestamp("us"), dt.tzinfo: pa.timestamp("us", "UTC"),
        dt.date: pa.date32(), dt.time: TIME,
    }  # fmt: skip
    return single.get(next(iter(kinds)), pa.string()) if len(kinds) == 1 else pa.string()
