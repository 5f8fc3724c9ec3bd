"""The method `stratified`: within each value of a column, rows by the rank of their key's hash."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.hashing import Hashes, hash_fractions
from pipeparts.runtime.splits import KeyHash
from pipeparts.runtime.tables import Table

_MOST_STRATA = 10_000
_BIN_BITS = 10
_BIN_SHIFT = np.uint64(64 - _BIN_BITS)
_CHUNK_ROWS = 1_000_000
_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)

Codes = npt.NDArray[np.uint16]


class StratifiedRule:
    """The lowest hashes of each stratum train, the next validate, the rest tests.

    Use `find`. A first pass over the needed columns keeps each row's hash and stratum in an unnamed
    file and counts the hashes in bins; the bins that hold a cut are then looked at closely.
    """

    def __init__(self, column: str, key: KeyHash, shares: tuple[float, float], scratch: _Scratch) -> None:
        self._column = column
        self._key = key
        self._shares = shares
        self._scratch = scratch
        self._thresholds: list[_Threshold] = []

    @classmethod
    def find(
        cls,
        stack: contextlib.ExitStack,
        table: Table,
        column: str,
        key: KeyHash,
        shares: tuple[float, float],
        scratch_beside: str | os.PathLike[str],
    ) -> StratifiedRule:
        """The rule for a table, after one pass over the columns needed.

        Raises:
            InputError: For a column with too many values, or of a nested type.
        """
        kind = table.schema.field(column).type
        if pa.types.is_nested(kind):
            raise InputError(
                "cannot stratify by a nested column", parameter="stratify_by", where=f"column {column!r}",
                allowed="a column of plain values", received=str(kind),
            )  # fmt: skip
        scratch = _Scratch(stack, Path(scratch_beside).parent)
        strata = _Strata(column, kind)
        bins = np.zeros((16, 1 << _BIN_BITS), dtype=np.int64)
        for batch in table.batches([column, *(name for name in key.columns if name != column)]):
            codes, hashes = strata.codes(batch.column(0)), key.of(batch)
            while len(strata) > len(bins):
                bins = np.concatenate([bins, np.zeros_like(bins)])
            np.add.at(bins, (codes, (hashes >> _BIN_SHIFT).astype(np.intp)), 1)
            scratch.add(codes, hashes)
        rule = cls(column, key, shares, scratch)
        rule._find_thresholds(bins[: len(strata)], strata.offsets(key))
        scratch.rewind()
        return rule

    def assign(self, batch: pa.RecordBatch) -> npt.NDArray[np.uint8]:
        """See `Rule`."""
        codes, hashes = self._scratch.next(batch.num_rows)
        found = np.zeros(len(codes), dtype=np.uint8)
        for threshold in self._thresholds:
            found += ~threshold.below(codes, hashes)
        return found

    def describe(self) -> list[str]:
        """See `Rule`."""
        edges = [0.0, *self._shares, 1.0]
        return [
            f"{high - low:g} of each value of {self._column}, by the rank of the {self._key}"
            for low, high in itertools.pairwise(edges)
        ]

    def why_empty(self) -> str:
        """See `Rule`."""
        return f"the values of {self._column!r} have too few rows, or too few keys, for these fractions"

    def _find_thresholds(self, bins: npt.NDArray[np.int64], offsets: npt.NDArray[np.float64]) -> None:
        rows = bins.sum(axis=1)
        before = np.cumsum(bins, axis=1) - bins
        wanted = [
            # A share that is no whole number of rows is rounded up or down by the stratum's own hash, so
            # that over many small strata the shares come out right, and none is off by a whole row.
            np.floor(np.round(share * rows, 9) + offsets).astype(np.int64).clip(0, rows)
            for share in self._shares
        ]
        places = [np.array([_bin_of(*pair) for pair in zip(before, ranks, strict=True)]) for ranks in wanted]
        close = [_CloseLook(self._scratch, place) for place in places]
        for ranks, place, look in zip(wanted, places, close, strict=True):
            within = ranks - before[np.arange(len(rows)), place]
            self._thresholds.append(look.threshold(within, ranks == rows, together=not self._key.whole_row))


def _bin_of(before: npt.NDArray[np.int64], rank: int) -> int:
    """The last bin that begins at or before the rank and is not empty, if any is not."""
    return int(np.searchsorted(before, rank, side="right")) - 1


class _Threshold:
    """For each stratum the hash below which rows lie, and how many rows of exactly this hash do as well."""

    def __init__(self, hashes: Hashes, ties: npt.NDArray[np.int64]) -> None:
        self._hashes = hashes
        self._ties = ties
        self._seen = np.zeros(len(hashes), dtype=np.int64)

    def below(self, codes: Codes, hashes: Hashes) -> npt.NDArray[np.bool_]:
        limits = self._hashes[codes]
        found: npt.NDArray[np.bool_] = hashes < limits
        equal = np.flatnonzero(hashes == limits)
        if len(equal):
            strata = codes[equal]
            found[equal] = self._seen[strata] + _rank_within(strata) < self._ties[strata]
            self._seen += np.bincount(strata, minlength=len(self._seen))
        return found


def _rank_within(strata: Codes) -> npt.NDArray[np.int64]:
    """How many of the same stratum come before each."""
    order = np.argsort(strata, kind="stable")
    ordered = strata[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(ordered)))
    ranks = np.empty(len(ordered), dtype=np.int64)
    ranks[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return ranks


class _CloseLook:
    """The hashes in one bin of each stratum."""

    def __init__(self, scratch: _Scratch, places: npt.NDArray[np.int64]) -> None:
        wanted = places.astype(np.uint64)
        parts: list[tuple[Codes, Hashes, npt.NDArray[np.int64]]] = []
        scratch.rewind()
        while True:
            codes, hashes = scratch.next(_CHUNK_ROWS)
            if not len(codes):
                break
            chosen = (hashes >> _BIN_SHIFT) == wanted[codes]
            parts.append(_count_pairs(codes[chosen], hashes[chosen]))
        codes, hashes, counts = (np.concatenate([part[i] for part in parts]) for i in range(3))
        order = np.lexsort((hashes, codes))
        self._codes, self._hashes, self._counts = codes[order], hashes[order], counts[order]

    def threshold(self, ranks: npt.NDArray[np.int64], whole: npt.NDArray[np.bool_], *, together: bool) -> _Threshold:
        """The threshold below which `ranks` rows of each bin lie, or the whole stratum."""
        hashes = np.full(len(ranks), _LAST, dtype=np.uint64)
        ties = np.full(len(ranks), np.iinfo(np.int64).max, dtype=np.int64)
        ends = np.cumsum(self._counts)
        for stratum in np.flatnonzero(~whole):
            start, stop = np.searchsorted(self._codes, [stratum, stratum + 1])
            base = int(ends[start] - self._counts[start])
            place = start + int(np.searchsorted(ends[start:stop] - base, ranks[stratum], side="right"))
            hashes[stratum] = self._hashes[place]
            limit = self._hashes[place]
            first = start + int(np.searchsorted(self._hashes[start:stop], limit, side="left"))
            last = start + int(np.searchsorted(self._hashes[start:stop], limit, side="right"))
            rows_below = int(ends[first] - self._counts[first]) - base
            rows_equal = int(self._counts[first:last].sum())
            extra = int(ranks[stratum]) - rows_below
            if together:
                extra = rows_equal if 2 * extra > rows_equal else 0
            ties[stratum] = extra
        return _Threshold(hashes, ties)


def _count_pairs(codes: Codes, hashes: Hashes) -> tuple[Codes, Hashes, npt.NDArray[np.int64]]:
    """Equal rows once with their count, so that a table of many equal rows needs little memory."""
    order = np.lexsort((hashes, codes))
    codes, hashes = codes[order], hashes[order]
    if not len(codes):
        return codes, hashes, np.zeros(0, dtype=np.int64)
    new = np.concatenate([[True], (codes[1:] != codes[:-1]) | (hashes[1:] != hashes[:-1])])
    starts = np.flatnonzero(new)
    return codes[starts], hashes[starts], np.diff(np.append(starts, len(codes)))


class _Strata:
    """A number for each value of a column."""

    def __init__(self, column: str, kind: pa.DataType) -> None:
        self._column = column
        self._kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        self._codes: dict[Any, int] = {}
        self._values: list[Any] = []

    def __len__(self) -> int:
        return len(self._values)

    def codes(self, array: pa.Array) -> Codes:
        encoded = array.cast(self._kind).dictionary_encode()
        numbers = [self._code(value) for value in encoded.dictionary.to_pylist()]
        if encoded.null_count:
            numbers.append(self._code(None))
        places = encoded.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)
        codes: Codes = np.array(numbers, dtype=np.uint16)[places]
        return codes

    def offsets(self, key: KeyHash) -> npt.NDArray[np.float64]:
        """A fraction of a row for each value, from its hash."""
        values = pa.RecordBatch.from_arrays([pa.array(self._values, self._kind)], [self._column])
        return hash_fractions(KeyHash([self._column], key.salt).of(values))

    def _code(self, value: Any) -> int:
        name = "NaN" if isinstance(value, float) and math.isnan(value) else value
        code = self._codes.setdefault(name, len(self._values))
        if code == len(self._values):
            self._values.append(value)
            if code == _MOST_STRATA:
                raise InputError(
                    "a column with too many values to stratify by",
                    parameter="stratify_by",
                    where=f"column {self._column!r}",
                    allowed=f"a column with {_MOST_STRATA:,} different values at most",
                    received=f"more than {_MOST_STRATA:,}",
                    hint="split by hash, or stratify by a coarser column",
                )
        return code


class _Scratch:
    """Each row's stratum and hash, in files that have no name and so leave nothing behind."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._codes, self._hashes = (self._open(stack, folder) for _ in range(2))

    def _open(self, stack: contextlib.ExitStack, folder: Path) -> IO[bytes]:
        return stack.enter_context(tempfile.TemporaryFile(dir=folder))

    def add(self, codes: Codes, hashes: Hashes) -> None:
        self._codes.write(codes.tobytes())
        self._hashes.write(hashes.tobytes())

    def rewind(self) -> None:
        self._codes.seek(0)
        self._hashes.seek(0)

    def next(self, rows: int) -> tuple[Codes, Hashes]:
        """Those of the next rows."""
        codes = np.frombuffer(self._codes.read(2 * rows), dtype=np.uint16)
        return codes, np.frombuffer(self._hashes.read(8 * rows), dtype=np.uint64)
