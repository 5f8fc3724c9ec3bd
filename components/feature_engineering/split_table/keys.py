"""The hash of a row's key, as the methods `hash` and `stratified` use it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.hashing import Hashes, mix64, row_hashes


class KeyHash:
    """One hash for each row, from some of its columns.

    Args:
        columns: The key's columns; their order does not count.
        salt: Another salt gives independent hashes.
        whole_row: Whether the columns are all there are, for the words.
    """

    def __init__(self, columns: Sequence[str], salt: str, *, whole_row: bool) -> None:
        self.columns = list(columns)
        self.whole_row = whole_row
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
