"""Reading from DuckDB: through its own Arrow reader, in one transaction.

Not through duckdb-engine: its rows are Python objects one by one, and times with a zone need pytz there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from sqlalchemy.engine import URL

from pipeparts.components.ingestion.ingest_sql.connections import explain_connect, no_table, require_file
from pipeparts.components.ingestion.ingest_sql.parts import Part
from pipeparts.components.ingestion.ingest_sql.statements import Statement, quote
from pipeparts.components.ingestion.ingest_sql.values import TIME, cast_array, check_names

_BATCH_ROWS = 65_536

# The types that become others; what is not here and not nested comes as the text DuckDB writes.
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT")
_TYPES = {
    **dict.fromkeys(_WHOLE, pa.int64()), "BOOLEAN": pa.bool_(), "FLOAT": pa.float64(), "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(), "JSON": pa.string(), "UUID": pa.string(), "BLOB": pa.binary(), "DATE": pa.date32(),
    "TIME": TIME, "TIMESTAMP": pa.timestamp("us"), "TIMESTAMP_S": pa.timestamp("us"),
    "TIMESTAMP_MS": pa.timestamp("us"), "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
}  # fmt: skip


class DuckReader:
    """Reads a query's rows.

    Args:
        connection: DuckDB's own connection, in a transaction.
        sql: The SELECT.
        overrides: Types for some of the columns.
    """

    def __init__(self, connection: Any, sql: str, overrides: dict[str, pa.DataType]) -> None:
        self._db = connection
        self._sql = sql
        check_names(self._db.sql(sql).columns, overrides)
        described = self._db.execute(f"DESCRIBE SELECT * FROM ({sql}\n) AS pipeparts_query").fetchall()
        self._types = {row[0]: row[1] for row in described}
        self.schema = pa.schema([(n, overrides.get(n) or _arrow_type(kind)) for n, kind in self._types.items()])
        self._rows = 0

    def bounds(self, column: str) -> tuple[Any, Any]:
        """The lowest and highest value of a column."""
        name = quote(column)
        if self._types[column] == "TIMESTAMP WITH TIME ZONE":  # without this DuckDB asks for pytz
            name = f"CAST({name} AS TIMESTAMP)"
        sql = f"SELECT min({name}), max({name}) FROM ({self._sql}\n) AS pipeparts_query"
        [(low, high)] = self._db.execute(sql).fetchall()
        return low, high

    def read(self, part: Part | None) -> Iterator[pa.RecordBatch]:
        """The rows, or those of one part.

        Raises:
            DataError: For a value that its column's type does not have.
        """
        selected = ", ".join(_selected(name, kind) for name, kind in self._types.items())
        sql = f"SELECT {selected} FROM ({self._sql}\n) AS pipeparts_query"
        if part is not None:
            sql += f" WHERE {part.condition(quote(part.column))}"
        for batch in self._db.sql(sql).to_arrow_reader(_BATCH_ROWS):
            arrays = [
                cast_array(values, field.type, column=field.name, first_row=self._rows + 1)
                for values, field in zip(batch.columns, self.schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)
            self._rows += batch.num_rows


class DuckDatabase:
    """A DuckDB file, opened for reading; or an empty database in memory, from which files can be read.

    Args:
        url: The database's URL.

    Raises:
        InputError: Where the file is not there, or is no database.
        ServiceError: Where another process has it open for writing.
    """

    def __init__(self, url: URL) -> None:
        import duckdb

        require_file(url)
        in_memory = not url.database or url.database == ":memory:"
        try:
            self._db = duckdb.connect(url.database or ":memory:", read_only=not in_memory, config=dict(url.query))
        except duckdb.Error as error:
            raise explain_connect(error, url) from None
        self._db.execute("SET enable_progress_bar = false")
        with contextlib.suppress(duckdb.Error):  # without its ICU extension there are no zones at all
            self._db.execute("SET TimeZone = 'UTC'")
        self._db.begin()

    def table_sql(self, statement: Statement) -> str:
        """See `logic.Database`."""
        parts = [*(statement.schema.split(".") if statement.schema else []), statement.table]
        if str(statement) not in self.tables(statement.schema) and len(parts) < 3:
            raise no_table(statement, self.tables(statement.schema))
        return f"SELECT * FROM {'.'.join(quote(part) for part in parts)}"

    def tables(self, schema: str = "") -> list[str]:
        """See `logic.Database`."""
        sql = (
            "SELECT schema_name, table_name FROM duckdb_tables() UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
        )
        found = sorted(self._db.execute(sql).fetchall())
        return [name if place == "main" and not schema else f"{place}.{name}" for place, name in found]

    def reader(self, sql: str, statement: Statement, overrides: dict[str, pa.DataType]) -> DuckReader:
        """See `logic.Database`."""
        return DuckReader(self._db, sql, overrides)

    def close(self) -> None:
        """See `logic.Database`."""
        self._db.close()


def _arrow_type(kind: str) -> pa.DataType:
    if kind.startswith("DECIMAL("):
        precision, scale = kind.removeprefix("DECIMAL(").rstrip(")").split(",")
        return pa.decimal128(int(precision), int(scale))
    return _TYPES.get(kind, pa.string())


def _selected(name: str, kind: str) -> str:
    column = quote(name)
    if kind in _TYPES or kind.startswith("DECIMAL("):
        return column
    nested = kind.startswith(("STRUCT", "MAP", "UNION")) or kind.endswith("]")
    return f"CAST({f'to_json({column})' if nested else column} AS VARCHAR) AS {column}"
