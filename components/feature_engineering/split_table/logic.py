"""The work of `split_table`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import math
import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeparts.components.feature_engineering.split_table.keys import KeyHash
from pipeparts.components.feature_engineering.split_table.strata import StratifiedRule
from pipeparts.components.feature_engineering.split_table.times import TimeRule
from pipeparts.runtime.errors import DataError, InputError, suggest
from pipeparts.runtime.hashing import batch_hashes, hash_fractions
from pipeparts.runtime.tables import Table, TableInfo, TableWriter

logger = logging.getLogger(__name__)

METHODS = ("hash", "time", "stratified")
SPLITS = ("train", "validation", "test")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)

_BATCH_ROWS = 65_536
_PROGRESS_ROWS = 5_000_000


@dataclasses.dataclass(frozen=True)
class Splits:
    """What the three tables say of themselves."""

    train: TableInfo
    validation: TableInfo
    test: TableInfo


class Rule(Protocol):
    """Says of each row which split it belongs to."""

    def assign(self, batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
        """0, 1 or 2 for each row, 3 for one in no split; batches come in the table's order, each once."""

    def describe(self) -> list[str]:
        """A phrase for each of the three splits."""

    def why_empty(self) -> str:
        """What to do where a split comes out empty."""


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
    with contextlib.ExitStack() as stack:
        rule = _make_rule(stack, table, method, columns, shares, boundaries, stratify_by, salt, train_table_path)
        writers = [
            stack.enter_context(TableWriter(path, table.schema, source=table.info.source))
            for path in (train_table_path, validation_table_path, test_table_path)
        ]
        _write(table, rule, writers)
        _check_rows(table, rule, writers, [None, None, None] if boundaries is not None else list(shares))
        after_the_end = table.rows - sum(writer.rows for writer in writers)
        for name, writer, phrase in zip(SPLITS, writers, rule.describe(), strict=True):
            writer.extra = {
                "split": name,
                "method": method,
                "rule": phrase,
                "share": round(writer.rows / (table.rows - after_the_end), 6),
                "split_of_rows": table.rows,
                "split_of_fingerprint": table.info.fingerprint,
                **({"rows_after_the_end": after_the_end} if boundaries is not None and len(boundaries) > 2 else {}),
            }
    return Splits(*(writer.info for writer in writers))


def check_fractions(fractions: Sequence[Any] | None) -> tuple[float, float, float]:
    """Three shares from 0 to 1 that add to 1.

    Raises:
        InputError: For anything else.
    """
    allowed = "three numbers from 0 to 1 that add to 1, such as 0.8, 0.1, 0.1"
    values = list(DEFAULT_FRACTIONS if fractions is None else _as_list(fractions, "fractions", allowed))
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if not numbers or len(values) != 3:
        what = "are not three" if numbers else "are not all numbers"
        raise InputError(f"`fractions` {what}", parameter="fractions", allowed=allowed, received=values)
    if any(not 0 <= v <= 1 for v in values):  # also refuses NaN
        raise InputError("a fraction that is not from 0 to 1", parameter="fractions", allowed=allowed, received=values)
    total = math.fsum(values)
    if abs(total - 1) > 1e-9:
        received = f"{', '.join(str(v) for v in values)}: together {total:g}"
        raise InputError("the fractions do not add to 1", parameter="fractions", allowed=allowed, received=received)
    return float(values[0]), float(values[1]), float(values[2])


class HashRule:
    """The split that the hash of the row's key falls into."""

    def __init__(self, key: KeyHash, shares: tuple[float, float, float]) -> None:
        self._key = key
        first, second = cuts(shares)
        self._edges = np.array([first, second])

    def assign(self, batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
        """See `Rule`."""
        fractions = hash_fractions(self._key.of(batch))
        return np.searchsorted(self._edges, fractions, side="right").astype(np.uint8)

    def describe(self) -> list[str]:
        """See `Rule`."""
        edges = [0.0, *self._edges.tolist(), 1.0]
        return [f"{self._key} from {low:g} to below {high:g}" for low, high in itertools.pairwise(edges)]

    def why_empty(self) -> str:
        """See `Rule`."""
        return "the key has few values, or the table few rows: choose other columns, another salt or other fractions"


def cuts(shares: tuple[float, float, float]) -> tuple[float, float]:
    """Where, between 0 and 1, validation and test begin; exactly 1 where nothing is to follow."""
    second = 1.0 if shares[2] == 0 else round(shares[0] + shares[1], 12)
    first = second if shares[1] == 0 else shares[0]
    return first, second


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
    if method == "stratified":
        key = KeyHash(columns or table.schema.names, salt, whole_row=columns is None)
        return StratifiedRule.find(stack, table, stratify_by, key, cuts(shares), scratch_beside)
    return HashRule(KeyHash(columns or table.schema.names, salt, whole_row=columns is None), shares)


def _write(table: Table, rule: Rule, writers: list[TableWriter]) -> None:
    done = 0
    for batch in table.batches(batch_rows=_BATCH_ROWS, dictionaries=True):
        codes, hashes = rule.assign(batch), batch_hashes(batch)
        for code, writer in enumerate(writers):
            chosen = codes == code
            count = int(np.count_nonzero(chosen))
            if count == batch.num_rows:
                writer.write(batch, hashes=hashes)
            elif count:
                writer.write(batch.filter(pa.array(chosen)), hashes=hashes[chosen])
        before, done = done, done + batch.num_rows
        if done // _PROGRESS_ROWS > before // _PROGRESS_ROWS:
            logger.info("split %s of %s rows", f"{done:,}", f"{table.rows:,}")
    logger.info("split %s rows: %s", f"{table.rows:,}", _said(table, writers))


def _said(table: Table, writers: list[TableWriter]) -> str:
    counts = [f"{name} {writer.rows:,}" for name, writer in zip(SPLITS, writers, strict=True)]
    left = table.rows - sum(writer.rows for writer in writers)
    return ", ".join([*counts, *([f"after the end {left:,}"] if left else [])])


def _check_rows(table: Table, rule: Rule, writers: list[TableWriter], shares: list[float | None]) -> None:
    for name, writer, share in zip(SPLITS, writers, shares, strict=True):
        if writer.rows == 0 and share != 0:
            raise DataError(
                f"the {name} split has no rows",
                parameter="boundaries" if share is None else "fractions",
                where=str(table.path),
                allowed="one row or more in each split" + ("" if share is None else " whose fraction is not 0"),
                received=f"{_said(table, writers)} of {table.rows:,} rows",
                hint=rule.why_empty(),
            )


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
    if method == "time" and (columns is None or len(_as_list(columns, "columns", "one column's name")) != 1):
        raise InputError(
            "the method 'time' needs exactly one column", parameter="columns",
            allowed="a list with the name of the one column of dates, timestamps or whole numbers",
            received="nothing" if columns is None else columns,
        )  # fmt: skip
    if columns is None:
        return
    names = _as_list(columns, "columns", "a list of columns' names")
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise InputError(
            "`columns` is not a list of different names", parameter="columns",
            allowed="one or more columns of the table, each once", received=names,
        )  # fmt: skip


def _method_with(parameter: str) -> str:
    return {"boundaries": "time", "stratify_by": "stratified", "salt": "hash"}[parameter]


def _as_list(value: Any, parameter: str, allowed: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise InputError(
            f"`{parameter}` is not a list", parameter=parameter, allowed=allowed,
            received=f"{type(value).__name__}: {value!r}",
        )  # fmt: skip
    return list(value)
