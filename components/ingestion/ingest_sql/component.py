"""The KFP interface of `ingest_sql`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def ingest_sql(
    table: dsl.Output[dsl.Dataset],
    url: str,
    query: str,
    partition_column: str = "",
    partitions: int = 1,
    columns: Optional[dict] = None,
    password_secret: str = "",
    source_version: str = "",
) -> None:
    """Reads a table or a query's rows from a database into a typed table.

    Streams, whatever the size, and only reads. PostgreSQL (through COPY), SQLite and DuckDB are read in one
    snapshot; any other database of SQLAlchemy through a server-side cursor in one transaction, which is as
    much of a snapshot as its isolation makes it: there, use an account that may only read.

    Types are the database's own: whole numbers int64, decimals with a declared precision exact, others
    float64 (a whole number that would change is an error), times with a zone timestamp_utc, dates, times,
    bytes; uuid, json, arrays, intervals and what else there is as text.

    Args:
        url: SQLAlchemy's URL, without a password: postgresql://reader@db.example.org:5432/flights,
            sqlite:////data/flights.db, duckdb:////data/flights.duckdb.
        query: A table's name (schema.table; in double quotes where it has capitals or signs), or one SELECT.
        partition_column: A column of numbers, dates or timestamps, to read its ranges one after another;
            rows where it is null come last.
        partitions: How many ranges, 1 to 10,000.
        columns: Types for some of the columns instead of the database's: string, int64, float64, bool, date,
            timestamp, timestamp_utc, binary, 'decimal128(12, 2)'.
        password_secret: Where the password is: 'env:NAME' for an environment variable, 'file:/path' for a
            mounted file.
        source_version: Any text that changes when the data has; another one makes a cached step run again.

    Returns:
        table: The rows, with types, source (never the password) and fingerprint.

    Raises:
        InputError: For parameters that are wrong, no such table or database, a wrong password, and a query
            that the database refuses.
        DataError: For a value that does not fit its column's type, with column and row.
        ServiceError: For a server that cannot be reached, or that goes away half-way.
    """
    from pipeparts.components.ingestion.ingest_sql import logic

    info = logic.ingest_sql(
        table_path=table.path,
        url=url,
        query=query,
        partition_column=partition_column,
        partitions=partitions,
        columns=columns,
        password_secret=password_secret,
        source_version=source_version,
    )
    table.metadata.update(info.metadata())
