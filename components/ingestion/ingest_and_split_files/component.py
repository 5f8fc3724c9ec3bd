"""The KFP interface of `ingest_and_split_files`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def ingest_and_split_files(
    train_table: dsl.Output[dsl.Dataset],
    validation_table: dsl.Output[dsl.Dataset],
    test_table: dsl.Output[dsl.Dataset],
    quarantine: dsl.Output[dsl.Dataset],
    source: str,
    columns: Optional[dict] = None,
    key_columns: Optional[list] = None,
    fractions: Optional[list] = None,
    salt: str = "",
    source_version: str = "",
    format: str = "auto",
    options: Optional[dict] = None,
    max_bad_rows: int = 0,
) -> None:
    """Reads files straight into train, validation and test tables: one pass, each row written once.

    The same rows in the same tables as `ingest_files` and then `split_table` by hash, for about three quarters of their
    work, where nobody needs the table as a whole. A row goes where the hash of its key says, so that it stays in its
    split when others are added, and rows with equal keys stay together.

    Args:
        source: A path, a folder, a glob, or an address (gs://, s3://, https://).
        columns: Column name to type name (string, int64, float64, bool, date, timestamp, timestamp_utc),
            for some columns or all. A value that does not fit makes its row a bad row.
        key_columns: The columns whose values together decide about a row's split; all unless given.
        fractions: The shares of train, validation and test, each from 0 to 1, together 1; 0.8, 0.1 and 0.1
            unless given.
        salt: Any text; another text gives another, independent split.
        source_version: The version of the files when the run was submitted (etag, or size and time). It
            makes the cache notice files that changed under the same name.
        format: One of csv, tsv, jsonl, parquet; "auto" tells it by each file's name, else its content.
        options: How the files are written: delimiter, quote, encoding (utf-8), header, names, null_values,
            missing_columns ("error" or "null"), allow_empty (a file without rows is then left out).
        max_bad_rows: The run fails with more bad rows than this.

    Returns:
        train_table: The rows to train on.
        validation_table: The rows to choose and to stop by.
        test_table: The rows that only the final judgement sees.
        quarantine: The rows that cannot be read: file, line, reason, text.

    Raises:
        InputError: For wrong parameters, a key column that is not there, or a source that is not there.
        DataError: For a file that cannot be read as a whole, more bad rows than allowed, and where a split with a
            share comes out empty.
        ServiceError: Where a server does not answer.
    """
    from pipeparts.components.ingestion.ingest_and_split_files import logic

    done = logic.ingest_and_split_files(
        source=source,
        train_table_path=train_table.path,
        validation_table_path=validation_table.path,
        test_table_path=test_table.path,
        quarantine_path=quarantine.path,
        columns=columns,
        key_columns=key_columns or None,  # a pipeline cannot pass None on: empty counts as not given
        fractions=fractions or None,
        salt=salt,
        source_version=source_version,
        format=format,
        options=options,
        max_bad_rows=max_bad_rows,
    )
    train_table.metadata.update(done.splits.train.metadata())
    validation_table.metadata.update(done.splits.validation.metadata())
    test_table.metadata.update(done.splits.test.metadata())
    quarantine.metadata.update(done.quarantine.metadata())
