"""The work of `ingest_files`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from pipeparts.runtime.file_ingestion.ingestion import ingest
from pipeparts.runtime.tables import TableInfo, TableWriter


@dataclasses.dataclass(frozen=True)
class Ingested:
    """What was written: the table, and the rows that could not be read."""

    table: TableInfo
    quarantine: TableInfo


def ingest_files(
    *,
    source: str,
    table_path: str | os.PathLike[str],
    quarantine_path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    source_version: str = "",
    format: str = "auto",
    options: Mapping[str, Any] | None = None,
    max_bad_rows: int = 0,
) -> Ingested:
    """Reads files into a typed table, and the rows that cannot be read into a quarantine table.

    Args:
        source: See `ingest`, as for the other arguments, and for how types are found.
        table_path: The folder of the table to write.
        quarantine_path: The folder of the quarantine table to write.
        columns: Column name to type name.
        source_version: The source's version when the run was submitted.
        format: One of csv, tsv, jsonl, parquet, or "auto".
        options: How the files are written.
        max_bad_rows: The run fails with more bad rows than this.

    Returns:
        The descriptions of both tables.

    Raises:
        InputError: For wrong parameters, or a source that is not there.
        DataError: For a file that cannot be read as a whole, or too many rows that cannot.
        ServiceError: Where a server does not answer.
    """
    writer, quarantine = ingest(
        source=source,
        open_writer=lambda schema, name: TableWriter(table_path, schema, source=name),
        quarantine_path=quarantine_path,
        columns=columns,
        source_version=source_version,
        format=format,
        options=options,
        max_bad_rows=max_bad_rows,
    )
    return Ingested(writer.info, quarantine)
