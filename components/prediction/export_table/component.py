"""The KFP interface of `export_table`."""

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def export_table(
    table: dsl.Input[dsl.Dataset],
    receipt: dsl.Output[dsl.Artifact],
    destination: str,
    if_exists: str = "replace",
) -> str:
    """Puts a table's Parquet files where they are wanted: a folder or a bucket.

    The files are `part-*.parquet` and `_table.json`, which says what is in them and is written last: who reads only
    where it is there reads a whole table (a local folder is swapped in whole). Where the same rows are there already,
    nothing is written; what is left of an interrupted export is replaced. It acts on the outside, so it is never
    cached: set `.set_caching_options(False)` on it.

    Args:
        table: The table.
        destination: A folder, `gs://bucket/folder`, `s3://bucket/folder` or another address that fsspec can write to;
            it holds this table alone.
        if_exists: Where another table is there: "replace" it, "keep" it and write nothing, or "fail".

    Returns:
        receipt: JSON with destination, rows, bytes, fingerprint and columns.
        Output: The destination, without a password.

    Raises:
        InputError: Where the destination is none, or holds files that are no table's: they are not touched.
        DataError: Where another table is there, and `if_exists` is "fail".
        ServiceError: Where the storage does not answer.
        ContractError: Where the artifact is no table.
    """
    from pipeparts.components.prediction.export_table import logic

    written = logic.export_table(
        table_path=table.path, destination=destination, receipt_path=receipt.path, if_exists=if_exists
    )
    receipt.metadata.update(written)
    return str(written["destination"])
