"""Hashes with a written specification, so that no library's next version moves a row.

Strings and bytes: SipHash-2-4 (Aumasson and Bernstein, 2012), which TensorFlow computes too
(`tf.strings.to_hash_bucket_strong`); beyond 1,024 bytes BLAKE2b (RFC 7693), keyed. Fixed-width values: the
splitmix64 finalizer (Steele, Lea and Flood, 2014) over their 64 bits. All of it vectorized over Arrow arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.errors import DataError
from pipeparts.runtime.serving.siphash import KEY, Hashes, siphash_buffer

__all__ = [
    "KEY",
    "Fingerprint",
    "Hashes",
    "batch_hashes",
    "combine",
    "hash_array",
    "hash_fractions",
    "mix64",
    "row_hashes",
    "siphash",
]

_NULL = np.uint64(0x9E3779B97F4A7C15)
#: Longer strings, in bytes, are hashed by BLAKE2b.
_LONG = 1024
#: Rows at a time: what is worked with in between stays in the processor's cache, and in memory that is there already.
#: Arrays of a megabyte are new memory each time, and cost three times as much.
_BLOCK = 16_384


def siphash(values: pa.Array, key: tuple[int, int] = KEY) -> Hashes:
    """SipHash-2-4 of each string's UTF-8 bytes (or each binary's bytes).

    Args:
        values: A string, large string or binary array without nulls, of n values.
        key: The two 64-bit halves of the key.

    Returns:
        n hashes.
    """
    values = values.cast(pa.large_binary())
    count = len(values)
    _, offset_buffer, data_buffer = values.buffers()
    if count == 0 or offset_buffer is None:
        return np.zeros(count, dtype=np.uint64)
    offsets = np.frombuffer(offset_buffer, dtype=np.int64)[values.offset : values.offset + count + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    return siphash_buffer(data, offsets, key)


def hash_array(values: pa.Array | pa.ChunkedArray, salt: int = 0) -> Hashes:
    """One 64-bit hash per value, null included; equal values of the same type have equal hashes.

    Args:
        values: An array of n values of any flat type.
        salt: Makes the hashes of one use independent of those of another.

    Returns:
        n hashes.

    Raises:
        DataError: For a nested type (list, struct, map).
    """
    return _add_up([_Column(values, salt)], len(values))


def row_hashes(columns: dict[str, pa.Array]) -> Hashes:
    """One 64-bit hash per row, whatever the order of the columns.

    Args:
        columns: Name to values, all of the same length n.

    Returns:
        n hashes.
    """
    if not columns:
        raise DataError("cannot hash rows without columns")
    salts = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in columns]
    found = [_Column(values, salt) for values, salt in zip(columns.values(), salts, strict=True)]
    return mix64(_add_up(found, len(next(iter(columns.values())))))


def batch_hashes(batch: pa.RecordBatch) -> Hashes:
    """One 64-bit hash per row of a batch, nested columns included, whatever the order of the columns."""
    names = batch.schema.names
    flat = {n: batch.column(i) for i, n in enumerate(names) if not pa.types.is_nested(batch.schema.field(i).type)}
    nested = {n: batch.column(i) for i, n in enumerate(names) if n not in flat}
    for name, values in nested.items():
        flat[name] = pa.array([repr(value) for value in values.to_pylist()], pa.string())
    return row_hashes(flat)


class Fingerprint:
    """The fingerprint of a table's content, whatever the order of its rows and columns.

    Two sums, modulo 2**64, over the row hashes and over a second mix of them, with the number of
    rows and the columns' types, through SHA-256.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._types = sorted(f"{field.name}:{field.type}" for field in schema)
        self._rows = 0
        self._first = 0
        self._second = 0

    def update(self, batch: pa.RecordBatch) -> None:
        """Adds a batch's rows."""
        if batch.num_rows:
            self.update_hashes(batch_hashes(batch))

    def update_hashes(self, hashes: Hashes) -> None:
        """Adds rows by their `batch_hashes`."""
        self._rows += len(hashes)
        self._first = (self._first + int(hashes.sum(dtype=np.uint64))) & 0xFFFFFFFFFFFFFFFF
        second = mix64(hashes ^ np.uint64(KEY[1]))
        self._second = (self._second + int(second.sum(dtype=np.uint64))) & 0xFFFFFFFFFFFFFFFF

    def hexdigest(self) -> str:
        """The fingerprint so far: 32 hexadecimal digits."""
        text = "\n".join([*self._types, str(self._rows), f"{self._first:016x}", f"{self._second:016x}"])
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def hash_fractions(hashes: Hashes) -> npt.NDArray[np.float64]:
    """Hashes as fractions in [0, 1), from their top 53 bits."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mix64(values: Hashes) -> Hashes:
    """The splitmix64 finalizer: every bit of the input moves every bit of the output."""
    mixed = np.empty(len(values), np.uint64)
    with np.errstate(over="ignore"):
        for start in range(0, len(values), _BLOCK):
            z = mixed[start : start + _BLOCK]
            np.add(values[start : start + _BLOCK], np.uint64(0x9E3779B97F4A7C15), out=z)
            z ^= z >> np.uint64(30)
            z *= np.uint64(0xBF58476D1CE4E5B9)
            z ^= z >> np.uint64(27)
            z *= np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
    return mixed


def combine(parts: Sequence[Hashes]) -> Hashes:
    """One hash from several, where the order of the parts counts."""
    total = np.zeros(len(parts[0]), dtype=np.uint64)
    for part in parts:
        total = mix64(total ^ part)
    return total


class _Column:
    """The values of a column, of which a block at a time is hashed."""

    def __init__(self, values: pa.Array | pa.ChunkedArray, salt: int) -> None:
        array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if isinstance(array, pa.ChunkedArray):  # combine_chunks gives a chunked array back when it has no chunk
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
        kind = array.type
        # A dictionary that holds more than the rows need, or nulls, is made anew.
        if pa.types.is_dictionary(kind) and (
            len(array.dictionary) > len(array) or array.dictionary.null_count or not _is_bytes(kind.value_type)
        ):
            array = array.cast(kind.value_type)
        if _is_bytes(array.type):
            array = array.dictionary_encode()
        self._salt = np.uint64(mix64(np.array([salt & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64))[0])
        self._distinct: Hashes | None = None
        if pa.types.is_dictionary(array.type):
            # A text is hashed once, however many rows have it.
            self._distinct = _hash_bytes(array.dictionary, int(self._salt))
            array = array.indices
        self._array = array

    def block(self, start: int, rows: int) -> Hashes:
        """The hashes of some rows."""
        array = self._array.slice(start, rows)
        if pa.types.is_null(array.type):
            return np.full(len(array), _NULL, dtype=np.uint64)
        if self._distinct is None:
            hashes = mix64(_bits(array) ^ self._salt)
        elif len(self._distinct):
            indices = array.fill_null(0) if array.null_count else array
            hashes = self._distinct[indices.to_numpy(zero_copy_only=False)]
        else:
            hashes = np.zeros(len(array), np.uint64)
        if array.null_count:
            hashes[pc.is_null(array).to_numpy(zero_copy_only=False)] = _NULL ^ self._salt
        return hashes


def _add_up(columns: Sequence[_Column], rows: int) -> Hashes:
    """The sum of the columns' hashes, for each row."""
    total = np.zeros(rows, np.uint64)
    for start in range(0, rows, _BLOCK):
        part = total[start : start + _BLOCK]
        for column in columns:
            part += column.block(start, _BLOCK)
    return total


def _hash_bytes(values: pa.Array, salt: int) -> Hashes:
    """SipHash, and BLAKE2b for what is long: SipHash here takes a pass over the column for each 8 bytes."""
    key = (KEY[0] ^ salt, KEY[1])
    values = values.cast(pa.large_binary())
    lengths = pc.binary_length(values).to_numpy(zero_copy_only=False)
    if not len(lengths) or lengths.max() <= _LONG:
        return siphash(values, key)
    is_long = lengths > _LONG
    hashes = np.empty(len(values), dtype=np.uint64)
    hashes[~is_long] = siphash(values.filter(pa.array(~is_long)), key)
    for place in np.flatnonzero(is_long):
        value = memoryview(values[int(place)].as_buffer())
        digest = hashlib.blake2b(value, digest_size=8, key=salt.to_bytes(8, "little")).digest()
        hashes[place] = int.from_bytes(digest, "little")
    return hashes


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _bits(array: Any) -> Hashes:
    kind = array.type
    if pa.types.is_floating(kind):
        numbers = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False) + 0.0  # -0.0 becomes 0.0
        numbers = np.where(np.isnan(numbers), np.nan, numbers)
        return np.ascontiguousarray(numbers).view(np.uint64)
    if pa.types.is_decimal(kind):
        return siphash(array.cast(pa.string()).fill_null(""))
    if pa.types.is_unsigned_integer(kind):
        return np.asarray(array.cast(pa.uint64()).fill_null(0).to_numpy(zero_copy_only=False))
    if pa.types.is_boolean(kind):
        array = array.cast(pa.int8())
    elif pa.types.is_date32(kind) or pa.types.is_time32(kind):
        array = array.cast(pa.int32())
    elif pa.types.is_nested(kind):
        raise DataError("cannot hash a nested column", allowed="flat columns", received=str(kind))
    if kind.bit_width == 64 and (pa.types.is_integer(kind) or pa.types.is_timestamp(kind)):
        # As they lie in memory: what lies where a value is missing does not matter, and costs a pass to fill.
        return np.frombuffer(array.buffers()[1], np.uint64, len(array), array.offset * 8)
    return np.ascontiguousarray(array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)).view(np.uint64)
