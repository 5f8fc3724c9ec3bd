"""The KFP interface of `split_table`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def split_table(
    table: dsl.Input[dsl.Dataset],
    train_table: dsl.Output[dsl.Dataset],
    validation_table: dsl.Output[dsl.Dataset],
    test_table: dsl.Output[dsl.Dataset],
    method: str = "hash",
    columns: Optional[list] = None,
    fractions: Optional[list] = None,
    boundaries: Optional[list] = None,
    stratify_by: str = "",
    salt: str = "",
) -> None:
    """Splits a table into train, validation and test: disjoint, complete, the same on every run.

    `hash` puts a row where the hash of its key says, so that a row stays in its split when others are
    added, and rows with equal keys stay together. `time` cuts at two times: train is the oldest; a
    third time, the end, leaves out what came later, for a training as of a past day.
    `stratified` gives each value of one column the same share in every split.

    Args:
        table: The table to split.
        method: hash, time or stratified.
        columns: hash: the key's columns (the whole row unless given). time: the one column of dates,
            timestamps or whole numbers; no nulls. stratified: columns of a key whose rows stay together
            within their value (the whole row unless given, with exact counts).
        fractions: The three shares, each from 0 to 1, together 1; 0.8, 0.1 and 0.1 unless given. time: the
            cuts fall where the counts come nearest to these shares; rows of the same time stay together.
        boundaries: time only, instead of fractions: the first time of validation and the first time of
            test, as ISO texts ('2013-09-01', '2013-09-01T06:00:00'; UTC) or whole numbers. A third is the
            end: rows from then on belong to none of the three tables (metadata: rows_after_the_end).
        stratify_by: stratified only: the column whose values are spread evenly; null counts as a value.
        salt: hash and stratified: any text; another text gives another, independent split.

    Returns:
        train_table: The rows to train on.
        validation_table: The rows to choose and to stop by.
        test_table: The rows that only the final judgement sees.

    Raises:
        InputError: For parameters that do not go together, a column that is not there, or boundaries that
            are out of order or not of the column's type.
        DataError: For null times, and where a split with a share comes out empty.
        ContractError: Where the input is no table, or is damaged.
    """
    from pipeparts.components.feature_engineering.split_table import logic

    splits = logic.split_table(
        table_path=table.path,
        train_table_path=train_table.path,
        validation_table_path=validation_table.path,
        test_table_path=test_table.path,
        method=method,
        columns=columns or None,  # a pipeline cannot pass None on: empty counts as not given
        fractions=fractions or None,
        boundaries=boundaries or None,
        stratify_by=stratify_by,
        salt=salt,
    )
    train_table.metadata.update(splits.train.metadata())
    validation_table.metadata.update(splits.validation.metadata())
    test_table.metadata.update(splits.test.metadata())
