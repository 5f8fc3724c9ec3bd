"""A row's split: by the hash of its key, or another rule, into three tables written at once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import math
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.hashing import Fingerprint, Hashes, batch_hashes, hash_fractions, mix64, row_hashes
from pipeparts.runtime.tables import TableInfo, TableWriter

SPLITS = ("train", "validation", "test")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)

#: Three folders: of train, validation and test.
Paths = tuple[str | os.PathLike[str], str | os.PathLike[str], str | os.PathLike[str]]


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


class KeyHash:
    """One hash for each row, from some of its columns.

    Args:
        columns: The key's columns; their order does not count. None: the whole row.
        salt: Another salt gives independent hashes.
        all_columns: Those of the whole row.
    """

    def __init__(self, columns: Sequence[str] | None, salt: str, *, all_columns: Sequence[str] = ()) -> None:
        self.columns = list(all_columns if columns is None else columns)
        self.whole_row = columns is None
        self.salt = salt
        self._mask = np.uint64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "little"))

    def __str__(self) -> str:
        what = "the whole row" if self.whole_row else ", ".join(self.columns)
        return f"hash of {what}{' (salted)' if self.salt else ''}"

    def of(self, batch: pa.RecordBatch) -> Hashes:
        """The hashes of a batch's rows.

        Raises:
            InputError: For a column of a nested type.
        """
        for name in self.columns:
            kind = batch.schema.field(name).type
            if pa.types.is_nested(kind):
                raise InputError(
                    "a key cannot hold a nested column", parameter="columns", where=f"column {name!r}",
                    allowed="columns of plain values", received=str(kind),
                )  # fmt: skip
        hashes = row_hashes({name: batch.column(name) for name in self.columns})
        return mix64(hashes ^ self._mask) if self.salt else hashes


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


def check_fractions(fractions: Sequence[Any] | None) -> tuple[float, float, float]:
    """Three shares from 0 to 1 that add to 1.

    Raises:
        InputError: For anything else.
    """
    allowed = "three numbers from 0 to 1 that add to 1, such as 0.8, 0.1, 0.1"
    values = list(DEFAULT_FRACTIONS if fractions is None else as_list(fractions, "fractions", allowed))
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


def check_names(columns: Any, *, parameter: str) -> None:
    """Checks a list of columns' names, not whether a table has them.

    Raises:
        InputError: For anything but different texts, one or more.
    """
    names = as_list(columns, parameter, "a list of columns' names")
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise InputError(
            f"`{parameter}` is not a list of different names", parameter=parameter,
            allowed="one or more columns of the table, each once", received=names,
        )  # fmt: skip


def as_list(value: Any, parameter: str, allowed: str) -> list[Any]:
    """A parameter that has to be a list.

    Raises:
        InputError: Where it is none.
    """
    if not isinstance(value, (list, tuple)):
        raise InputError(
            f"`{parameter}` is not a list", parameter=parameter, allowed=allowed,
            received=f"{type(value).__name__}: {value!r}",
        )  # fmt: skip
    return list(value)


class SplitWriter:
    """Writes each row to the table of its split; the folders appear when the block ends well, and only then.

    Args:
        paths: The folders to make.
        schema: Columns and types.
        rule: Says which split a row belongs to.
        method: The rule's name, for the tables' descriptions.
        source: For the tables' descriptions.
        where: Where the rows come from, for what an error says.
        shares: The share of each split that the caller asked for; None: none was.
        fingerprint: Of all rows together, where it is known already.

    Use it as a context manager; `splits` is there once the block has ended.
    """

    def __init__(
        self,
        paths: Paths,
        schema: pa.Schema,
        rule: Rule,
        *,
        method: str,
        source: str,
        where: str,
        shares: tuple[float, float, float] | None,
        fingerprint: str | None = None,
    ) -> None:
        self.rows = 0
        self.extra: dict[str, Any] = {}
        self._rule = rule
        self._method = method
        self._where = where
        self._shares = shares
        self._known_fingerprint = fingerprint
        self._fingerprint = Fingerprint(schema) if fingerprint is None else None
        self._writers = [TableWriter(path, schema, source=source) for path in paths]
        self._stack = contextlib.ExitStack()

    @property
    def splits(self) -> Splits:
        """The written tables' descriptions."""
        return Splits(*(writer.info for writer in self._writers))

    @property
    def left(self) -> int:
        """How many rows belong to no split."""
        return self.rows - sum(writer.rows for writer in self._writers)

    def __enter__(self) -> SplitWriter:
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.enter_context(writer)
            self._stack = stack.pop_all()
        return self

    def write(self, rows: pa.RecordBatch) -> None:
        """Adds rows, of which a column of text may come as a dictionary; each belongs to one split, or to none."""
        codes, hashes = self._rule.assign(rows), batch_hashes(rows)
        self.rows += rows.num_rows
        if self._fingerprint is not None:
            self._fingerprint.update_hashes(hashes)
        for code, writer in enumerate(self._writers):
            chosen = codes == code
            count = int(np.count_nonzero(chosen))
            if count == rows.num_rows:
                writer.write(rows, hashes=hashes)
            elif count:
                writer.write(rows.filter(pa.array(chosen)), hashes=hashes[chosen])

    def said(self) -> str:
        """How many rows each split has, in words."""
        counts = [f"{name} {writer.rows:,}" for name, writer in zip(SPLITS, self._writers, strict=True)]
        return ", ".join([*counts, *([f"after the end {self.left:,}"] if self.left else [])])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self._check()
                self._describe()
            except BaseException:
                self._stack.__exit__(*sys.exc_info())
                raise
        self._stack.__exit__(kind, error, trace)

    def _check(self) -> None:
        for name, writer, share in zip(SPLITS, self._writers, self._shares or (None,) * 3, strict=True):
            if writer.rows == 0 and share != 0:
                raise DataError(
                    f"the {name} split has no rows",
                    parameter="boundaries" if share is None else "fractions",
                    where=self._where,
                    allowed="one row or more in each split" + ("" if share is None else " whose fraction is not 0"),
                    received=f"{self.said()} of {self.rows:,} rows",
                    hint=self._rule.why_empty(),
                )

    def _describe(self) -> None:
        fingerprint = self._known_fingerprint if self._fingerprint is None else self._fingerprint.hexdigest()
        for name, writer, phrase in zip(SPLITS, self._writers, self._rule.describe(), strict=True):
            writer.extra = {
                **self.extra,
                "split": name,
                "method": self._method,
                "rule": phrase,
                "share": round(writer.rows / (self.rows - self.left), 6),
                "split_of_rows": self.rows,
                "split_of_fingerprint": fingerprint,
            }
