"""Types of columns: found from every value, or given; and the conversion of values to them.

A type is found only where nothing is lost by it: turning the values back into text gives the same
meaning. So `00008` and `+49` stay text, and so do integers beyond 64 bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.runtime.errors import InputError
from pipeparts.runtime.tables import TYPES, type_name

Mask = npt.NDArray[np.bool_]

#: The types that are tried, the narrowest first; what fits none of them is text.
CANDIDATES = ("bool", "int64", "float64", "date", "timestamp", "timestamp_utc")

_BOOLEANS = pa.array(["true", "false", "True", "False", "TRUE", "FALSE"])
_BLANKS = " \t\r\n"
INT64 = range(-(2**63), 2**63)
_FEW = 256
_FLOAT_EXACT = 2**53


@dataclasses.dataclass
class Column:
    """What is known of a column's type so far.

    Attributes:
        name: The column's name.
        given: The type that the caller gave, or that the file itself states; None where it is to be found.
        possible: The candidates that fit every value seen so far, the narrowest first.
        seen: Whether a value that is not null was seen.
    """

    name: str
    given: pa.DataType | None = None
    possible: tuple[str, ...] = CANDIDATES
    seen: bool = False

    @property
    def kind(self) -> pa.DataType:
        """The type as far as it is known: text where nothing else fits, or nothing was seen."""
        if self.given is not None:
            return self.given
        return TYPES[self.possible[0]] if self.seen and self.possible else pa.string()

    def learn(self, texts: pa.Array) -> None:
        """Narrows the candidates to those that fit these texts too."""
        texts = texts.drop_null()
        # A few first: a cast that fails costs much more than one that does not.
        for some in (texts.slice(0, _FEW), texts.slice(_FEW)):
            if len(some):
                self.keep([name for name in self.possible if find(some, TYPES[name]) is not None])

    def keep(self, fitting: Iterable[str]) -> None:
        """Narrows the candidates to these."""
        allowed = set(fitting)
        self.seen = True
        self.possible = tuple(name for name in self.possible if name in allowed)


def find(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Converts text to a candidate type by the strict rules of inference.

    Args:
        values: n texts, or values that have the type already.
        kind: One of the candidates' types, or string.

    Returns:
        The n values, or None where one of them does not fit.
    """
    if values.type == kind:
        return values
    if pa.types.is_null(values.type):
        return values.cast(kind)
    if not pa.types.is_string(values.type):
        return None
    try:
        converted = values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
        trimmed = _trim(values)
        if trimmed is None:
            return None
        values = trimmed
        try:
            converted = values.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError):
            return None
    return converted if _is_exact(values, converted) else None


def convert(values: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Mask | None]:
    """Converts values to a type that was given.

    Args:
        values: n texts, or values that have a type already.
        kind: The type.

    Returns:
        The n values, null where one does not fit, and a mask of those; None where all fit.
    """
    if values.type == kind:
        return values, None
    for source in (values, _trim(values) if pa.types.is_string(values.type) else None):
        if source is None:
            continue
        try:
            return source.cast(kind), None
        except (pa.ArrowInvalid, ValueError):
            values = source
    bad = np.zeros(len(values), dtype=bool)
    parts = [pa.array([], kind), *_convert_part(values, kind, 0, bad)]
    return pa.concat_arrays(parts), bad


def check_castable(name: str, kind: pa.DataType) -> None:
    """Refuses a given type that text cannot be read as.

    Raises:
        InputError: For such a type.
    """
    try:
        pa.array([], pa.string()).cast(kind)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise InputError(
            "a column type that files cannot be read as",
            parameter=f"columns.{name}",
            allowed=list(TYPES),
            received=type_name(kind),
        ) from error


def normalize(kind: pa.DataType) -> pa.DataType:
    """The type in a table of a type in a Parquet file: encodings undone, nested values as JSON text."""
    if pa.types.is_dictionary(kind):
        return normalize(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind) and (kind.unit != "ns" or kind.tz):
        return pa.timestamp("ns" if kind.unit == "ns" else "us", tz="UTC" if kind.tz else None)
    if pa.types.is_date64(kind):
        return pa.date32()
    return pa.string() if pa.types.is_nested(kind) else kind


def _convert_part(values: pa.Array, kind: pa.DataType, start: int, bad: Mask) -> Iterable[pa.Array]:
    """Halves the values until each half fits, or is a single value that does not."""
    try:
        yield values.cast(kind)
        return
    except (pa.ArrowInvalid, ValueError):
        if len(values) == 1:
            bad[start] = True
            yield pa.nulls(1, kind)
            return
    middle = len(values) // 2
    yield from _convert_part(values.slice(0, middle), kind, start, bad)
    yield from _convert_part(values.slice(middle), kind, start + middle, bad)


def _trim(values: pa.Array) -> pa.Array | None:
    """The texts without blanks around, nothing left being null; None where there are no blanks."""
    trimmed = pc.ascii_trim(values, _BLANKS)
    if trimmed.equals(values):
        return None
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _is_exact(texts: pa.Array, values: pa.Array) -> bool:
    kind = values.type
    if pa.types.is_boolean(kind):
        return bool(pc.all(pc.is_in(texts.drop_null(), _BOOLEANS)).as_py() is not False)
    if pa.types.is_integer(kind):
        return not _looks_like_code(texts)
    if pa.types.is_floating(kind):
        return not _looks_like_code(texts) and _float_is_exact(texts, values)
    return True


def _looks_like_code(texts: pa.Array) -> bool:
    """Whether a text has leading zeros, a plus sign or 0x."""
    _, offset_buffer, data_buffer = texts.buffers()
    if len(texts) == texts.null_count or data_buffer is None or data_buffer.size == 0:
        return False
    offsets = np.frombuffer(offset_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(data_buffer, np.uint8)
    # A null has no bytes of its own, and one at the very end would be looked up beyond the last.
    starts = np.minimum(offsets[:-1], data.size - 1)
    first = data[starts]
    suspects = np.flatnonzero((first == ord("0")) | (first == ord("-")) | (first == ord("+")))
    if len(suspects) == 0:
        return False
    starts, ends = starts[suspects], offsets[1:][suspects]
    starts = starts + (data[starts] == ord("-"))
    follows = data[np.minimum(starts + 1, data.size - 1)]
    is_code = (data[np.minimum(starts, data.size - 1)] == ord("0")) & (starts + 1 < ends)
    is_code &= ((follows - np.uint8(ord("0"))) < 10) | ((follows | 0x20) == ord("x"))
    is_code |= (data[np.minimum(starts, data.size - 1)] == ord("+")) & (starts < ends)
    return bool(is_code.any())


def _float_is_exact(texts: pa.Array, values: pa.Array) -> bool:
    """Whether no whole number lost digits and no number became infinite as a float."""
    numbers = values.fill_null(0.0).to_numpy(zero_copy_only=False)
    large = np.flatnonzero(np.abs(numbers) >= _FLOAT_EXACT)
    for at in large:
        text = texts[int(at)].as_py()
        if np.isinf(numbers[at]):
            if any(character.isdigit() for character in text):
                return False
        elif not set(text) & set(".eE") and not (int(text) == int(numbers[at]) and int(text) in INT64):
            return False
    return True


def describe(value: Any) -> str:
    """A value as it is shown in a reason: short, in quotes."""
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "...")
