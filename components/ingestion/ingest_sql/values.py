"""Values from a database into Arrow columns, each held to its column's type."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from pipeparts.runtime.errors import DataError, InputError, suggest
from pipeparts.runtime.tables import TYPES, arrow_type, type_name

#: A time of day, which has no name among `runtime.tables.TYPES`.
TIME = pa.time64("us")

_EXACT = 2**53
_LONGEST_SHOWN = 100
_NATIVE: dict[pa.DataType, frozenset[type]] = {
    pa.int64(): frozenset({int, type(None)}),
    pa.float64(): frozenset({float, int, type(None)}),
    pa.string(): frozenset({str, type(None)}),
    pa.binary(): frozenset({bytes, type(None)}),
    pa.bool_(): frozenset({bool, type(None)}),
    pa.date32(): frozenset({dt.date, type(None)}),
}


def parse_columns(columns: Any) -> dict[str, pa.DataType]:
    """The parameter `columns`: a type for some of the columns.

    Raises:
        InputError: For what is not a dictionary of column names to names of plain types.
    """
    allowed = "a dictionary from columns' names to types' names"
    if columns is None:
        return {}
    if not isinstance(columns, dict) or not all(isinstance(v, str) for v in columns.values()):
        raise InputError("`columns` is no dictionary of types", parameter="columns", allowed=allowed, received=columns)
    kinds = {name: arrow_type(kind) for name, kind in columns.items()}
    for name, kind in kinds.items():
        if _converter(kind) is None:
            raise InputError(
                "a type that a database's column cannot be read as", parameter=f"columns.{name}",
                allowed=[*TYPES, "time64[us]", "decimal128(precision, scale)"], received=columns[name],
            )  # fmt: skip
    return kinds


def check_names(names: Sequence[str], overrides: dict[str, pa.DataType]) -> None:
    """Checks that the columns have different names, and that all overrides are of columns that are there.

    Raises:
        InputError: Naming the column.
    """
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled or not names:
        raise InputError(
            "the query gives two columns of the same name" if doubled else "the query gives no columns",
            parameter="query", allowed="one or more columns, each with a name of its own",
            received=doubled or "nothing", hint="name each column with AS, instead of *" if doubled else None,
        )  # fmt: skip
    for name in overrides:
        if name not in names:
            raise InputError(
                "`columns` names a column that the query does not give", parameter="columns", allowed=list(names),
                received=name, hint=suggest(name, names),
            )  # fmt: skip


def decimal_type(precision: int | None, scale: int | None) -> pa.DataType:
    """A decimal where precision and scale are declared and Arrow has them, else float64."""
    if precision is not None and scale is not None and 0 <= scale <= precision and 1 <= precision <= 38:
        return pa.decimal128(precision, scale)
    return pa.float64()


def to_array(values: Sequence[Any], kind: pa.DataType, *, column: str, first_row: int, lenient: bool) -> pa.Array:
    """A column from Python values.

    Args:
        values: What the driver gave.
        kind: The column's type.
        column: The column's name, for the message.
        first_row: The number of the first of these rows, for the message.
        lenient: Whether a person asked for this type, so that texts are read as numbers, and numbers as texts.

    Raises:
        DataError: Naming column, row and value, for a value that does not fit.
    """
    kinds = set(map(type, values))
    if kinds <= _NATIVE.get(kind, frozenset()):
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, OverflowError):
            pass  # one of them is out of range: found below
    convert = _converter(kind)
    assert convert is not None
    fitted = [_fit(convert, v, lenient, column, first_row + place, kind) for place, v in enumerate(values)]
    try:
        return pa.array(fitted, kind)
    except (pa.ArrowException, OverflowError):
        for place, value in enumerate(fitted):
            try:
                pa.array([value], kind)
            except (pa.ArrowException, OverflowError) as error:
                raise misfit(column, first_row + place, values[place], kind, str(error)) from None
        raise


def cast_array(array: pa.Array, kind: pa.DataType, *, column: str, first_row: int) -> pa.Array:
    """A column from another type, where no value changes by it.

    Raises:
        DataError: Naming column, row and value, for a value that does not fit.
    """
    if array.type == kind:
        return array
    try:
        return _cast(array, kind)
    except pa.ArrowNotImplementedError:
        raise InputError(
            "a column that cannot be read as this type", parameter=f"columns.{column}",
            allowed=f"a type near to {type_name(array.type)}, or string", received=type_name(kind),
        ) from None  # fmt: skip
    except pa.ArrowInvalid:
        for place in range(len(array)):
            try:
                _cast(array.slice(place, 1), kind)
            except pa.ArrowInvalid as error:
                raise misfit(column, first_row + place, array[place].as_py(), kind, str(error)) from None
        raise


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    result = array.cast(kind)
    if pa.types.is_timestamp(array.type) and pa.types.is_date(kind) and not result.cast(array.type).equals(array):
        raise pa.ArrowInvalid("a date with a time of day")  # which Arrow would cut off
    return result


def _fit(
    convert: Callable[[Any, bool], Any], value: Any, lenient: bool, column: str, row: int, kind: pa.DataType
) -> Any:
    try:
        return None if value is None else convert(value, lenient)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise misfit(column, row, value, kind, str(error)) from None


def misfit(column: str, row: int, value: Any, kind: pa.DataType, why: str = "") -> DataError:
    """The error for a value that does not fit its column."""
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}... ({len(shown):,} characters)"
    received = f"{type(value).__name__}: {shown}"
    return DataError(
        "a value that does not fit its column's type",
        parameter="columns",
        where=f"column {column!r}, row {row:,}",
        allowed=type_name(kind),
        received=f"{received} ({why})" if why else received,
        hint=f"give the column another type, such as columns={{{column!r}: 'string'}}, or mend or leave out the row",
    )


def exact_float(text: str) -> float:
    """A decimal's nearest float; a whole number must not change by it.

    Raises:
        ValueError: For a whole number that floats do not have, and for one beyond their range.
    """
    value = float(text)
    if abs(value) >= _EXACT and math.isfinite(value):
        number = decimal.Decimal(text)
        if number == number.to_integral_value() and number != decimal.Decimal(value):
            raise ValueError("a whole number that float64 would change")
    if math.isinf(value) and "inf" not in text.lower():
        raise ValueError("beyond the range of float64")
    return value


def _converter(kind: pa.DataType) -> Callable[[Any, bool], Any] | None:
    """From a driver's value to what Arrow takes for the type; None for a type that is not supported."""
    checks: list[tuple[Callable[[pa.DataType], bool], Callable[[Any, bool], Any]]] = [
        (pa.types.is_integer, _to_int),
        (pa.types.is_floating, _to_float),
        (pa.types.is_decimal, _to_decimal),
        (pa.types.is_boolean, _to_bool),
        (pa.types.is_string, _to_text),
        (pa.types.is_large_string, _to_text),
        (pa.types.is_binary, _to_bytes),
        (pa.types.is_large_binary, _to_bytes),
        (pa.types.is_date, _to_date),
        (pa.types.is_time, _to_time),
    ]
    if pa.types.is_timestamp(kind):
        return _to_timestamp if kind.tz is None else _to_utc
    return next((convert for fits, convert in checks if fits(kind)), None)


def _to_int(value: Any, lenient: bool) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (float, decimal.Decimal)) and value == int(value):
        return int(value)
    if isinstance(value, str) and lenient:
        return int(value)
    raise ValueError("not a whole number")


def _to_float(value: Any, lenient: bool) -> float:
    if isinstance(value, (float, int)) and not isinstance(value, bool):
        if isinstance(value, int) and int(float(value)) != value:
            raise ValueError("a whole number that float64 would change")
        return float(value)
    if isinstance(value, decimal.Decimal) or (isinstance(value, str) and lenient):
        return float(value) if lenient else exact_float(str(value))
    raise ValueError("not a number")


def _to_decimal(value: Any, lenient: bool) -> decimal.Decimal:
    if isinstance(value, decimal.Decimal):
        return value
    if (isinstance(value, (int, float)) and not isinstance(value, bool)) or (isinstance(value, str) and lenient):
        return decimal.Decimal(str(value))
    raise ValueError("not a number")


def _to_bool(value: Any, lenient: bool) -> bool:
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and lenient and value.lower() in ("true", "false", "t", "f", "1", "0"):
        return value.lower() in ("true", "t", "1")
    raise ValueError("neither true nor false, nor 1 nor 0")


def _to_text(value: Any, lenient: bool) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (uuid.UUID, dt.timedelta, dt.time)):
        return str(value)
    if lenient and isinstance(value, (dt.date, dt.datetime)):
        return value.isoformat()
    if lenient and not isinstance(value, (bytes, bytearray, memoryview)):
        return str(value)
    raise ValueError("not a text")


def _to_bytes(value: Any, lenient: bool) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str) and lenient:
        return value.encode()
    raise ValueError("not bytes")


# SQLite has no types for dates and times: what is declared as one is stored as an ISO text.


def _to_date(value: Any, lenient: bool) -> dt.date:
    if isinstance(value, dt.datetime):
        if value.time() != dt.time():
            raise ValueError("a date with a time of day")
        return value.date()
    return dt.date.fromisoformat(value) if isinstance(value, str) else _must_be(value, dt.date)


def _to_time(value: Any, lenient: bool) -> dt.time:
    return dt.time.fromisoformat(value) if isinstance(value, str) else _must_be(value, dt.time)


def _to_timestamp(value: Any, lenient: bool) -> dt.datetime:
    moment = _moment(value)
    if moment.tzinfo is not None:
        if not lenient:
            raise ValueError("a time with a zone")
        moment = moment.astimezone(dt.UTC).replace(tzinfo=None)
    return moment


def _to_utc(value: Any, lenient: bool) -> dt.datetime:
    moment = _moment(value)
    if moment.tzinfo is None:
        if not lenient:
            raise ValueError("a time without a zone")
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.astimezone(dt.UTC)


def _moment(value: Any) -> dt.datetime:
    if isinstance(value, str):
        return dt.datetime.fromisoformat(value)
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return dt.datetime(value.year, value.month, value.day)
    moment: dt.datetime = _must_be(value, dt.datetime)
    return moment


def _must_be(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"not a {kind.__name__}")
    return value
