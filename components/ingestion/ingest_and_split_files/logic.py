"""The work of `ingest_and_split_files`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeparts.runtime.file_ingestion.ingestion import ingest
from pipeparts.runtime.splits import HashRule, KeyHash, Splits, SplitWriter, check_fractions, check_names
from pipeparts.runtime.tables import TableInfo, require_columns


@dataclasses.dataclass(frozen=True)
class IngestedSplits:
    """What was written: the three tables, and the rows that could not be read."""

    splits: Splits
    quarantine: TableInfo


def ingest_and_split_files(
    *,
    source: str,
    train_table_path: str | os.PathLike[str],
    validation_table_path: str | os.PathLike[str],
    test_table_path: str | os.PathLike[str],
    quarantine_path: str | os.PathLike[str],
    columns: Mapping[str, str] | None = None,
    key_columns: list[str] | None = None,
    fractions: list[float] | None = None,
    salt: str = "",
    source_version: str = "",
    format: str = "auto",
    options: Mapping[str, Any] | None = None,
    max_bad_rows: int = 0,
) -> IngestedSplits:
    """Reads files into three disjoint tables that together hold each row that can be read once.

    Args:
        source: See `ingest`, as for the other arguments that are not here, and for how types are found.
        train_table_path: The folder to make.
        validation_table_path: The folder to make.
        test_table_path: The folder to make.
        quarantine_path: The folder of the quarantine table to make.
        columns: Column name to type name.
        key_columns: The key whose hash decides about a row's split; the whole row where None.
        fractions: Three shares that add to 1; 0.8, 0.1 and 0.1 where None.
        salt: Another salt gives another split.
        source_version: The source's version when the run was submitted.
        format: One of csv, tsv, jsonl, parquet, or "auto".
        options: How the files are written.
        max_bad_rows: The run fails with more bad rows than this.

    Returns:
        The descriptions of the four tables.

    Raises:
        InputError: For wrong parameters, a key column that is not there, or a source that is not there.
        DataError: For a file that cannot be read as a whole, too many rows that cannot, and where a split with a
            share comes out empty.
        ServiceError: Where a server does not answer.
    """
    shares = check_fractions(fractions)
    if key_columns is not None:
        check_names(key_columns, parameter="key_columns")

    def open_writer(schema: pa.Schema, name: str) -> SplitWriter:
        require_columns(schema.names, key_columns or [], parameter="key_columns", where=name)
        key = KeyHash(key_columns, salt, all_columns=schema.names)
        return SplitWriter(
            (train_table_path, validation_table_path, test_table_path),
            schema,
            HashRule(key, shares),
            method="hash",
            source=name,
            where=name,
            shares=shares,
        )

    writer, quarantine = ingest(
        source=source,
        open_writer=open_writer,
        quarantine_path=quarantine_path,
        columns=columns,
        source_version=source_version,
        format=format,
        options=options,
        max_bad_rows=max_bad_rows,
    )
    return IngestedSplits(writer.splits, quarantine)
