"""The work of `split_table`."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from pipeparts.components.feature_engineering.split_table.strata import StratifiedRule
from pipeparts.components.feature_engineering.split_table.times import TimeRule
from pipeparts.runtime.errors import DataError, InputError, suggest
from pipeparts.runtime.splits import (
    HashRule,
    KeyHash,
    Rule,
    Splits,
    SplitWriter,
    as_list,
    check_fractions,
    check_names,
    cuts,
)
from pipeparts.runtime.tables import Table

logger = logging.getLogger(__name__)

METHODS = ("hash", "time", "stratified")

_BATCH_ROWS = 65_536
_PROGRESS_ROWS = 5_000_000


def split_table(
    *,
    table_path: str | os.PathLike[str],
    train_table_path: str | os.PathLike[str],
    validation_table_path: str | os.PathLike[str],
    test_table_path: str | os.PathLike[str],
    method: str = "hash",
    columns: list[str] | None = None,
    fractions: list[float] | None = None,
    boundaries: list[Any] | None = None,
    stratify_by: str = "",
    salt: str = "",
) -> Splits:
    """Splits a table into three disjoint tables that together hold each row once, up to the end if there is one.

    Memory: a few batches for `hash`; for `time` with fractions also 16 bytes for each distinct time;
    for `stratified` 16 kB for each value, and on disk 10 bytes for each row while it works.

    Args:
        table_path: The table's folder.
        train_table_path: The folder to make.
        validation_table_path: The folder to make.
        test_table_path: The folder to make.
        method: One of `METHODS`.
        columns: The key's columns, or the time column.
        fractions: Three shares that add to 1; `DEFAULT_FRACTIONS` where None.
        boundaries: Two times, for the method `time`; a third is the end, from which on rows are left out.
        stratify_by: The column whose values are spread evenly, for the method `stratified`.
        salt: Another salt gives another split, for the methods `hash` and `stratified`.

    Returns:
        The three tables' descriptions.

    Raises:
        InputError: For parameters that are wrong or do not go together.
        DataError: For null times, and where a split with a share comes out empty.
        ContractError: Where the input is no table.
    """
    _check_method(method, columns, fractions, boundaries, stratify_by, salt)
    shares = check_fractions(fractions)
    table = Table(table_path)
    table.require(columns or [], parameter="columns")
    table.require([stratify_by] if stratify_by else [], parameter="stratify_by")
    if table.rows == 0:
        raise DataError("the table has no rows to split", where=str(table_path), allowed="one row or more", received=0)
    paths = (train_table_path, validation_table_path, test_table_path)
    with contextlib.ExitStack() as stack:
        rule = _make_rule(stack, table, method, columns, shares, boundaries, stratify_by, salt, train_table_path)
        writer = SplitWriter(
            paths,
            table.schema,
            rule,
            method=method,
            source=table.info.source,
            where=os.fspath(table_path),
            shares=shares if boundaries is None else None,
            fingerprint=table.info.fingerprint,
        )
        stack.enter_context(writer)
        _write(table, writer)
        if boundaries is not None and len(boundaries) > 2:
            writer.extra["rows_after_the_end"] = writer.left
    return writer.splits


def _make_rule(
    stack: contextlib.ExitStack,
    table: Table,
    method: str,
    columns: list[str] | None,
    shares: tuple[float, float, float],
    boundaries: list[Any] | None,
    stratify_by: str,
    salt: str,
    scratch_beside: str | os.PathLike[str],
) -> Rule:
    if method == "time":
        assert columns is not None
        return TimeRule.find(table, columns[0], boundaries, cuts(shares))
    key = KeyHash(columns, salt, all_columns=table.schema.names)
    if method == "stratified":
        return StratifiedRule.find(stack, table, stratify_by, key, cuts(shares), scratch_beside)
    return HashRule(key, shares)


def _write(table: Table, writer: SplitWriter) -> None:
    for batch in table.batches(batch_rows=_BATCH_ROWS, dictionaries=True):
        before = writer.rows
        writer.write(batch)
        if writer.rows // _PROGRESS_ROWS > before // _PROGRESS_ROWS:
            logger.info("split %s of %s rows", f"{writer.rows:,}", f"{table.rows:,}")
    logger.info("split %s rows: %s", f"{table.rows:,}", writer.said())


def _check_method(
    method: str,
    columns: list[str] | None,
    fractions: list[float] | None,
    boundaries: list[Any] | None,
    stratify_by: str,
    salt: str,
) -> None:
    if method not in METHODS:
        raise InputError(
            "no such way to split", parameter="method", allowed=METHODS, received=method,
            hint=suggest(str(method), METHODS),
        )  # fmt: skip
    _check_columns(method, columns)
    given = {"boundaries": boundaries is not None, "stratify_by": bool(stratify_by), "salt": bool(salt)}
    allowed = {"hash": {"salt"}, "time": {"boundaries"}, "stratified": {"stratify_by", "salt"}}[method]
    values = {"boundaries": boundaries, "stratify_by": stratify_by, "salt": salt}
    for name in given:
        if given[name] and name not in allowed:
            raise InputError(
                f"`{name}` means nothing to the method {method!r}",
                parameter=name,
                allowed=f"nothing, or method {_method_with(name)!r}",
                received=values[name],
            )
    if boundaries is not None and fractions is not None:
        raise InputError(
            "both `boundaries` and `fractions` are given",
            parameter="boundaries",
            allowed="one of the two: boundaries say where to cut, fractions how much goes where",
            received=f"boundaries {boundaries}, fractions {fractions}",
        )
    if method == "stratified" and not stratify_by:
        raise InputError(
            "the method 'stratified' needs a column to stratify by", parameter="stratify_by",
            allowed="a column's name", received="nothing",
        )  # fmt: skip


def _check_columns(method: str, columns: Any) -> None:
    if method == "time" and (columns is None or len(as_list(columns, "columns", "one column's name")) != 1):
        raise InputError(
            "the method 'time' needs exactly one column", parameter="columns",
            allowed="a list with the name of the one column of dates, timestamps or whole numbers",
            received="nothing" if columns is None else columns,
        )  # fmt: skip
    if columns is not None:
        check_names(columns, parameter="columns")


def _method_with(parameter: str) -> str:
    return {"boundaries": "time", "stratify_by": "stratified", "salt": "hash"}[parameter]
