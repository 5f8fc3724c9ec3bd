"""The KFP interface of `ingest_files`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def ingest_files(
    table: dsl.Output[dsl.Dataset],
    quarantine: dsl.Output[dsl.Dataset],
    source: str,
    columns: Optional[dict] = None,
    source_version: str = "",
    format: str = "auto",
    options: Optional[dict] = None,
    max_bad_rows: int = 0,
) -> None:
    """Reads CSV, TSV, JSON Lines or Parquet files into a typed table, in bounded memory.

    Types are found from every value of every file, or given. A type is found only where nothing is lost
    by it: `00008` stays text. Rows that cannot be read go to the quarantine table. Files may be plain,
    gzip, zstd or zip (each file in the archive), and follow by name.

    Args:
        source: A path, a folder, a glob, or an address (gs://, s3://, https://).
        columns: Column name to type name (string, int64, float64, bool, date, timestamp, timestamp_utc),
            for some columns or all. A value that does not fit makes its row a bad row.
        source_version: The version of the files when the run was submitted (etag, or size and time). It
            makes the cache notice files that changed under the same name.
        format: One of csv, tsv, jsonl, parquet; "auto" tells it by each file's name, else its content.
        options: How the files are written: delimiter, quote, encoding (utf-8), header, names, null_values,
            missing_columns ("error" or "null"), allow_empty.
        max_bad_rows: The run fails with more bad rows than this.

    Returns:
        table: The rows, typed; its metadata counts rows and bad rows, and names the types.
        quarantine: The rows that cannot be read: file, line, reason, text.

    Raises:
        InputError: For wrong parameters, or a source that is not there.
        DataError: For a file that cannot be read as a whole, or more bad rows than allowed.
        ServiceError: Where a server does not answer.
    """
    from pipeparts.components.ingestion.ingest_files import logic

    done = logic.ingest_files(
        source=source,
        table_path=table.path,
        quarantine_path=quarantine.path,
        columns=columns,
        source_version=source_version,
        format=format,
        options=options,
        max_bad_rows=max_bad_rows,
    )
    table.metadata.update(done.table.metadata())
    quarantine.metadata.update(done.quarantine.metadata())
