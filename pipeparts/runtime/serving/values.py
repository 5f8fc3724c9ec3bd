"""Raw columns, however they come (numpy, pandas, Arrow, lists), in the three forms that the formulas take.

Missing is the same everywhere: null, None, NaN, NaT, and the empty string, which is the only missing
string that a served TensorFlow model can be given.
"""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import times

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NUMBER_TYPES = ("int64", "float64", "bool")
TIME_TYPES = ("date", "timestamp", "timestamp_utc")
#: Numbers closer to zero count as zero: TensorFlow computes with zero for them, on some processors.
SMALLEST = 2.2250738585072014e-308

COLUMN_TYPES = ("string", *NUMBER_TYPES, *TIME_TYPES)

_EPOCH = datetime.datetime(1970, 1, 1)
_LONGEST_SHOWN = 80


class TransformError(ValueError):
    """What is wrong, where, what was allowed and what was received, as in the rest of pipeparts."""

    def __init__(self, headline: str, **facts: Any) -> None:
        self.headline = headline
        self.facts = {name: _shorten(value) for name, value in facts.items() if value is not None}
        super().__init__("\n".join([headline, *(f"  {name}: {text}" for name, text in self.facts.items())]))

    def __reduce__(self) -> Any:
        return _rebuild_error, (self.headline, self.facts)


class Strings(NamedTuple):
    """n strings as codes: value i is `distinct[codes[i]]`, as UTF-8. The empty string is the missing one."""

    codes: npt.NDArray[np.intp]
    distinct: list[bytes]


def canonical(values: Any, type_name: str, *, column: str) -> Any:
    """A raw column in the form for its type.

    Args:
        values: A numpy array, a pandas Series, an Arrow array, a list or a tuple, of n values.
        type_name: One of `COLUMN_TYPES`.
        column: Its name, for the message.

    Returns:
        Numbers and bools as n float64 with NaN for missing (integers beyond 2**53 lose digits); strings as
        `Strings`; times as n int64, microseconds since 1970, `times.MISSING` for missing.

    Raises:
        TransformError: For values that are not of the type.
    """
    if type_name == "string":
        return strings_of(values, column)
    if type_name in NUMBER_TYPES:
        return numbers_of(values, column)
    return times_of(values, type_name, column)


def numbers_of(values: Any, column: str) -> Floats:
    """Numbers as float64, NaN for missing."""
    numbers = _floats(values, column)
    if _holds_integers(values):
        return numbers
    with np.errstate(invalid="ignore"):
        tiny = np.abs(numbers) < SMALLEST
    return np.where(tiny, 0.0, numbers) if tiny.any() else numbers


def strings_of(values: Any, column: str) -> Strings:
    """Strings as codes and distinct values."""
    if _is_arrow(values):
        return _arrow_strings(_whole(values), column)
    array = _as_numpy(values)
    if array.dtype.kind == "S":
        array = array.astype(object)
    elif array.dtype.kind not in "UOT" and not (array.dtype.kind == "f" and np.isnan(array).all()):
        raise _wrong_type(column, "strings", str(array.dtype))
    places: dict[Any, int] = {}
    try:
        codes = np.fromiter((places.setdefault(v, len(places)) for v in array.tolist()), np.intp, len(array))
    except TypeError:  # lists and the like have no hash
        raise _wrong_type(column, "strings", "values that are no strings") from None
    return Strings(codes, [_utf8(value, column) for value in places])


def times_of(values: Any, type_name: str, column: str) -> Integers:
    """Times as microseconds since 1970; dates as their midnight."""
    if _is_arrow(values):
        found = _arrow_times(_whole(values), type_name, column)
    else:
        found = _numpy_times(values, type_name, column)
    missing = found == times.MISSING
    found = np.clip(found, -times.FURTHEST, times.FURTHEST)
    if type_name == "date":
        found = found // times.MICROSECONDS_A_DAY * times.MICROSECONDS_A_DAY
    found[missing] = times.MISSING
    return found


def closest(name: str, allowed: Iterable[str]) -> str | None:
    """Gives "did you mean ...?" for the closest allowed name, or None where nothing is close."""
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else None


def is_missing(value: Any) -> bool:
    """Whether one Python value is null: None, NaN, NaT or pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, (float, np.floating, np.datetime64)) and value != value


def _holds_integers(values: Any) -> bool:
    kind = str(getattr(values, "type", getattr(values, "dtype", "")))
    return kind.startswith(("int", "uint", "bool"))


def _floats(values: Any, column: str) -> Floats:
    if _is_arrow(values):
        import pyarrow as pa

        values = _decoded(_whole(values))
        kind = values.type
        if pa.types.is_boolean(kind):
            values = values.cast(pa.int8())
        elif not any(is_it(kind) for is_it in _number_checks()):
            raise _wrong_type(column, "numbers", str(kind))
        array = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return np.asarray(array, dtype=np.float64)
    array = _as_numpy(values)
    if array.dtype.kind in "fiub":
        return np.asarray(array, dtype=np.float64)
    if array.dtype.kind != "O":
        raise _wrong_type(column, "numbers", str(array.dtype))
    return np.fromiter((_number(value, column) for value in array), dtype=np.float64, count=len(array))


def _number_checks() -> Sequence[Any]:
    import pyarrow as pa

    return pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null


def _number(value: Any, column: str) -> float:
    if isinstance(value, (int, float, np.number, np.bool_)):  # bool is an int
        return float(value)
    if is_missing(value):
        return np.nan
    if type(value).__name__ == "Decimal":
        return float(value)
    raise _wrong_type(column, "numbers", f"{type(value).__name__}: {value!r}")


def _utf8(value: Any, column: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return value
    if is_missing(value):
        return b""
    raise _wrong_type(column, "strings", f"{type(value).__name__}: {value!r}")


def _as_numpy(values: Any) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray):
        array = values
    elif hasattr(values, "to_numpy"):  # a pandas Series, whatever its dtype
        kind = str(values.dtype)
        if values.dtype.kind in "fiub" and not isinstance(values.dtype, np.dtype):
            array = values.to_numpy(dtype=np.float64, na_value=np.nan)
        elif kind.startswith("datetime64") and not isinstance(values.dtype, np.dtype):
            array = values.to_numpy(dtype=f"datetime64[{values.dtype.unit}]")  # with a zone: as UTC
        else:
            array = np.asarray(values.to_numpy())
    else:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
    if array.ndim != 1:
        raise TransformError("a column that is not one-dimensional", allowed="n values", received=array.shape)
    return array


def _arrow_strings(array: Any, column: str) -> Strings:
    import pyarrow as pa

    if pa.types.is_null(array.type):
        return Strings(np.zeros(len(array), np.intp), [b""])
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    kind = encoded.type.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise _wrong_type(column, "strings", str(array.type))
    distinct = [b"" if value is None else value for value in encoded.dictionary.cast(pa.binary()).to_pylist()]
    indices = encoded.indices
    if indices.null_count:
        indices = indices.cast(pa.int64()).fill_null(len(distinct))
        distinct.append(b"")
    return Strings(indices.to_numpy(zero_copy_only=False).astype(np.intp, copy=False), distinct)


def _arrow_times(array: Any, type_name: str, column: str) -> Integers:
    import pyarrow as pa

    array = _decoded(array)
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), times.MISSING, dtype=np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return _parsed(strings_of(array, column), type_name, column)
    if pa.types.is_date32(kind):
        unit, array = "D", array.cast(pa.int32())
    elif pa.types.is_date64(kind):
        unit = "ms"
    elif pa.types.is_timestamp(kind):
        unit = kind.unit
        if kind.tz is not None and type_name != "timestamp_utc":
            raise _wrong_type(column, "times without a time zone", str(kind))
    else:
        raise _wrong_type(column, "times", str(kind))
    counts = array.cast(pa.int64()).fill_null(times.MISSING).to_numpy(zero_copy_only=False)
    return _microseconds(counts, unit, column)


def _numpy_times(values: Any, type_name: str, column: str) -> Integers:
    zone = getattr(getattr(values, "dtype", None), "tz", None)
    if zone is not None and type_name != "timestamp_utc":
        raise _wrong_type(column, "times without a time zone", str(values.dtype))
    array = _as_numpy(values)
    if array.dtype.kind == "M":
        return _microseconds(array.view(np.int64), np.datetime_data(array.dtype)[0], column)
    if array.dtype.kind in "UST":
        return _parsed(strings_of(array, column), type_name, column)
    if array.dtype.kind == "f" and np.isnan(array).all():
        return np.full(len(array), times.MISSING, dtype=np.int64)
    if array.dtype.kind != "O":
        raise _wrong_type(column, "times", str(array.dtype))
    return np.fromiter((_time(value, type_name, column) for value in array), dtype=np.int64, count=len(array))


def _time(value: Any, type_name: str, column: str) -> int:
    if is_missing(value) or value in ("", b""):
        return times.MISSING
    if isinstance(value, (str, bytes)):
        return _parsed_one(_utf8(value, column), type_name, column)
    if isinstance(value, np.datetime64):
        return int(_microseconds(np.array([value]).view(np.int64), np.datetime_data(value.dtype)[0], column)[0])
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            if type_name != "timestamp_utc":
                raise _wrong_type(column, "times without a time zone", repr(value))
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        since: datetime.timedelta = value - _EPOCH
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if isinstance(value, datetime.date):
        return (value - _EPOCH.date()).days * times.MICROSECONDS_A_DAY
    raise _wrong_type(column, "times", f"{type(value).__name__}: {value!r}")


def _parsed(values: Strings, type_name: str, column: str) -> Integers:
    distinct = [_parsed_one(text, type_name, column) for text in values.distinct]
    return np.array(distinct, dtype=np.int64)[values.codes] if distinct else np.zeros(0, np.int64)


def _parsed_one(text: bytes, type_name: str, column: str) -> int:
    if not text:
        return times.MISSING
    with_offset = type_name == "timestamp_utc"
    found = times.parse_iso(text, offset_allowed=with_offset)
    if found is None:
        raise TransformError(
            "a time that cannot be read",
            where=f"column {column!r} ({type_name})",
            allowed=times.ISO_ALLOWED_WITH_OFFSET if with_offset else times.ISO_ALLOWED,
            received=repr(text.decode("utf-8", "replace")),
        )
    return found


_UNITS = {"D": times.MICROSECONDS_A_DAY, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}


def _microseconds(counts: Integers, unit: str, column: str) -> Integers:
    """Counts of a unit as microseconds; what is finer is cut downwards, what is too far is the furthest."""
    missing = counts == times.MISSING
    if unit == "ns":
        found = counts // 1_000
    elif unit in _UNITS:
        most = times.FURTHEST // _UNITS[unit]
        found = np.clip(counts, -most, most) * _UNITS[unit]
    elif unit == "generic" and missing.all():
        found = counts.copy()
    else:
        raise _wrong_type(column, "times in days to nanoseconds", f"a time in units of {unit!r}")
    found[missing] = times.MISSING
    return found


def _is_arrow(values: Any) -> bool:
    return type(values).__module__.split(".")[0] == "pyarrow"


def _whole(values: Any) -> Any:
    """An Arrow array in one piece."""
    if not hasattr(values, "chunks"):
        return values
    import pyarrow as pa

    if values.num_chunks == 1:
        return values.chunk(0)
    return pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)


def _decoded(array: Any) -> Any:
    import pyarrow as pa

    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array


def _wrong_type(column: str, allowed: str, received: str) -> TransformError:
    return TransformError("a column of another type", where=f"column {column!r}", allowed=allowed, received=received)


def _shorten(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        text = str(value)
    else:
        text = ", ".join(str(item) for item in value) or "nothing"
    return text if len(text) <= 4 * _LONGEST_SHOWN else f"{text[: 4 * _LONGEST_SHOWN]}... ({len(text):,} characters)"


def _rebuild_error(headline: str, facts: dict[str, str]) -> TransformError:
    return TransformError(headline, **facts)
