"""The schema of `validate_table`: its form, its inference from a profile, and the YAML that a person edits."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pydantic

from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.profiles import ColumnProfile, Profile
from pipeparts.runtime.profiling import kind_of
from pipeparts.runtime.tables import arrow_type, type_name

#: What an inferred schema allows beyond what was seen.
MISSING_MARGIN = 0.01  # of the rows, or half of the share seen where that is more
RANGE_MARGIN = 0.5  # of the range seen, on each side
ROWS_MARGIN = 0.5  # of the rows seen
MIN_SHARE = 0.99  # of the values within those allowed
LARGEST_DOMAIN = 50  # texts with at most so many distinct values get a list of those allowed
KEY_ROWS = 100  # rows from which on a column of distinct values is taken for a key
L_INFINITY = 0.1
JENSEN_SHANNON = 0.1


class ColumnSchema(Params):
    """What a column has to be; what is not given is not checked.

    Attributes:
        type: The type's name in the table contract ("string", "int64", "float64", "bool", "date", "timestamp", ...).
        required: Whether the column has to be there.
        max_missing_share: The most of the rows where it may be missing, 0 to 1.
        max_nan_share: The most of the rows where it may be NaN, 0 to 1; for floating numbers.
        min: The least value allowed: a number, or an ISO 8601 date or timestamp.
        max: The greatest value allowed.
        allowed: The values allowed; missing values are counted apart.
        min_share: The least share of the values that has to be among those allowed, 0 to 1.
        pattern: A regular expression (RE2) that the whole of each text has to match.
        unique: Whether no value may occur twice; missing values are left out.
        max_l_infinity: The greatest difference between a value's shares here and in the reference profile, 0 to 1.
        max_jensen_shannon: The greatest Jensen-Shannon divergence from the reference profile, 0 to 1.
    """

    type: str | None = None
    required: bool = True
    max_missing_share: float | None = pydantic.Field(default=None, ge=0, le=1)
    max_nan_share: float | None = pydantic.Field(default=None, ge=0, le=1)
    min: int | float | str | None = None
    max: int | float | str | None = None
    allowed: tuple[bool | int | float | str, ...] | None = None
    min_share: float = pydantic.Field(default=1.0, ge=0, le=1)
    pattern: str | None = None
    unique: bool = False
    max_l_infinity: float | None = pydantic.Field(default=None, ge=0, le=1)
    max_jensen_shannon: float | None = pydantic.Field(default=None, ge=0, le=1)


class Schema(Params):
    """What a table has to be.

    Attributes:
        min_rows: The fewest rows.
        max_rows: The most rows.
        extra_columns: Whether columns that the schema does not name are allowed ("allow") or not ("forbid").
        unique_key: Columns whose values together may not occur twice; a missing value counts as a value.
        columns: Column name to what it has to be.
    """

    min_rows: int = pydantic.Field(default=1, ge=0)
    max_rows: int | None = pydantic.Field(default=None, ge=0)
    extra_columns: Literal["allow", "forbid"] = "allow"
    unique_key: tuple[str, ...] = ()
    columns: dict[str, ColumnSchema] = {}


def parse_schema(value: Mapping[str, Any], *, types: Mapping[str, pa.DataType], has_reference: bool) -> Schema:
    """Checks a schema: its keys, and that what it asks for makes sense for the columns' types.

    Args:
        value: The schema as it came in.
        types: The table's columns and their types.
        has_reference: Whether there is a profile to compare with.

    Raises:
        InputError: Naming the key, what is allowed there and what came.
    """
    schema = parse_params(Schema, value, parameter="schema")
    if schema.max_rows is not None and schema.min_rows > schema.max_rows:
        raise _contradiction("schema.min_rows", f"at most max_rows, {schema.max_rows}", schema.min_rows)
    for name in schema.unique_key:
        if name not in types and name not in schema.columns:
            raise InputError(
                "`schema.unique_key` names a column that neither the table nor the schema has",
                parameter="schema.unique_key", allowed=list(types), received=name, hint=suggest(name, types),
            )  # fmt: skip
        if name in types and kind_of(types[name]) == "nested":
            raise _wrong_for(f"schema.unique_key.{name}", types[name], "a column that is not nested")
    for name, column in schema.columns.items():
        kind = types.get(name)
        if column.type is not None and (kind is None or column.type != type_name(kind)):
            kind = _named_type(f"schema.columns.{name}.type", column.type)
        if kind is not None:
            _check_column(f"schema.columns.{name}", column, kind, has_reference=has_reference)
    return schema


def _named_type(place: str, name: str) -> pa.DataType | None:
    """The type of this name; None for one with parameters, "decimal128(9, 2)", of which Arrow reads no name."""
    try:
        return arrow_type(name, parameter=place)
    except InputError:
        if any(sign in name for sign in "([<"):
            return None
        raise


def bound(value: int | float | str, kind: pa.DataType) -> Any:
    """A bound of the schema as an Arrow scalar: of the column's type for times, a plain number else.

    Raises:
        ValueError: Where a text is no time of this type.
    """
    if kind_of(kind) != "time":
        is_small = isinstance(value, int) and -(2**63) <= value < 2**63
        return pa.scalar(value if is_small else float(value))
    if pa.types.is_date(kind):
        return pa.scalar(datetime.date.fromisoformat(str(value)), pa.date32()).cast(kind)
    if pa.types.is_timestamp(kind):
        moment = datetime.datetime.fromisoformat(str(value))
        if kind.tz is None and moment.tzinfo is not None:
            raise ValueError("the column has no time zone")
        if kind.tz is not None and moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return pa.scalar(moment, kind)
    return pa.scalar(datetime.time.fromisoformat(str(value)), kind)


def _check_column(place: str, column: ColumnSchema, kind: pa.DataType, *, has_reference: bool) -> None:
    """Refuses what contradicts itself, or has no meaning for the column's type."""
    of = kind_of(kind)
    if (column.min is not None or column.max is not None) and (of not in ("number", "time") or _is_duration(kind)):
        raise _wrong_for(f"{place}.min", kind, "numbers, dates, timestamps and times of day")
    for name, value in (("min", column.min), ("max", column.max)):
        if value is None:
            continue
        if of == "number" and (isinstance(value, str) or not math.isfinite(value)):
            raise InputError(
                "a bound that is no number", parameter=f"{place}.{name}",
                allowed="a finite number", received=repr(value),
            )  # fmt: skip
        try:
            bound(value, kind)
        except (ValueError, pa.ArrowException) as error:
            raise InputError(
                "a bound that is no time of the column's type", parameter=f"{place}.{name}",
                allowed=f"ISO 8601 for {type_name(kind)}", received=repr(value), hint=str(error),
            ) from None  # fmt: skip
    if column.min is not None and column.max is not None:
        least, most = bound(column.min, kind).as_py(), bound(column.max, kind).as_py()
        if least > most:
            raise _contradiction(f"{place}.min", f"at most max, {column.max}", column.min)
    if column.allowed is not None:
        _check_allowed(place, column.allowed, kind)
    if column.pattern is not None:
        if of != "text":
            raise _wrong_for(f"{place}.pattern", kind, "text columns")
        try:
            pc.match_substring_regex(pa.array([""]), whole_match(column.pattern))
        except pa.ArrowInvalid as error:
            raise InputError(
                "a pattern that is no regular expression", parameter=f"{place}.pattern",
                allowed="RE2 syntax", received=column.pattern, hint=str(error),
            ) from None  # fmt: skip
    if column.unique and of == "nested":
        raise _wrong_for(f"{place}.unique", kind, "columns that are not nested")
    if column.max_nan_share is not None and not pa.types.is_floating(kind):
        raise _wrong_for(f"{place}.max_nan_share", kind, "floating numbers")
    if column.max_l_infinity is not None and of not in ("text", "binary", "boolean", "number"):
        raise _wrong_for(f"{place}.max_l_infinity", kind, "texts, booleans and numbers")
    if column.max_jensen_shannon is not None and of not in ("number", "time"):
        raise _wrong_for(f"{place}.max_jensen_shannon", kind, "numbers and times")
    for name in ("max_l_infinity", "max_jensen_shannon"):
        if getattr(column, name) is not None and not has_reference:
            raise InputError(
                "the schema limits the distance to a reference, and none is given",
                parameter=f"{place}.{name}", allowed="with the input `reference_profile`",
                received=getattr(column, name), hint="give the profile to compare with, or take the limit out",
            )  # fmt: skip


def _check_allowed(place: str, allowed: tuple[Any, ...], kind: pa.DataType) -> None:
    wanted: dict[str, tuple[type, ...]] = {"text": (str,), "number": (int, float), "boolean": (bool,)}
    accepted = wanted.get(kind_of(kind))
    if accepted is None:
        raise _wrong_for(f"{place}.allowed", kind, "texts, numbers and booleans")
    if not allowed:
        raise InputError(
            "a list of allowed values without a value", parameter=f"{place}.allowed",
            allowed="one at least", received=[],
        )  # fmt: skip
    for value in allowed:
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise InputError(
                "an allowed value of another type than the column's", parameter=f"{place}.allowed",
                allowed=f"values of {type_name(kind)}", received=f"{type(value).__name__}: {value!r}",
            )  # fmt: skip


def whole_match(pattern: str) -> str:
    """The pattern, to match a text from its beginning to its end."""
    return rf"\A(?:{pattern})\z"


def infer_schema(profile: Profile, *, drift: bool) -> Schema:
    """The schema that a table's profile suggests, with the margins at the top of this module.

    Args:
        profile: The profile.
        drift: Whether it will be compared with this profile: then with limits on the distance.

    Returns:
        A schema that the profiled table itself meets.
    """
    return Schema(
        min_rows=max(1, math.floor(profile.rows * ROWS_MARGIN)),
        columns={column.name: _infer_column(column, drift=drift) for column in profile.columns},
    )


def _infer_column(column: ColumnProfile, *, drift: bool) -> ColumnSchema:
    found: dict[str, Any] = {"type": column.type}
    if column.count and not column.missing:
        found["max_missing_share"] = 0.0
    elif column.count:
        share = column.missing_share
        found["max_missing_share"] = min(1.0, math.ceil((share + max(MISSING_MARGIN, share / 2)) * 1e4) / 1e4)
    distinct = column.distinct
    is_exact = distinct is not None and distinct.exact
    if is_exact and distinct is not None and column.kind in ("text", "number") and not column.type.startswith("float"):
        found["unique"] = distinct.count == column.count >= KEY_ROWS
    top = column.top
    is_domain = column.kind == "text" and top is not None and top.complete and 0 < len(top.values) <= LARGEST_DOMAIN
    if is_domain and top is not None and not found.get("unique") and len(top.values) * 2 <= column.count:
        found["allowed"] = tuple(sorted((item.value for item in top.values), key=str))
        found["min_share"] = MIN_SHARE
    numbers = column.numbers
    if numbers is not None:
        if not numbers.nan and column.type.startswith(("float", "double")):
            found["max_nan_share"] = 0.0
        no_infinities = not numbers.positive_infinities and not numbers.negative_infinities
        if numbers.minimum is not None and numbers.maximum is not None and no_infinities and not found.get("unique"):
            found["min"], found["max"] = _widened(numbers.minimum, numbers.maximum)
    if drift and column.count:
        if column.kind in ("number", "time") and not found.get("unique"):
            found["max_jensen_shannon"] = JENSEN_SHANNON
        elif column.kind in ("text", "boolean") and not found.get("unique"):
            found["max_l_infinity"] = L_INFINITY
    return ColumnSchema(**found)


def _widened(least: int | float, most: int | float) -> tuple[int | float, int | float]:
    """The range with its margin, on round numbers; what was never negative stays so."""
    margin = (float(most) - float(least)) * RANGE_MARGIN or max(abs(float(least)) * RANGE_MARGIN, 1.0)
    low, high = float(least) - margin, float(most) + margin
    if not math.isfinite(low) or not math.isfinite(high):
        return least, most
    step = 10.0 ** (math.floor(math.log10(margin)) - 1)
    if isinstance(least, int) and isinstance(most, int):
        step = max(1.0, step)
    # Rounded outwards; a range at the edge of what a float holds is left as it was seen.
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    if least >= 0 > low:
        low = 0.0
    if most <= 0 < high:
        high = 0.0
    low, high = float(f"{low:.12g}"), float(f"{high:.12g}")
    if low > least or high < most:
        return least, most
    if isinstance(least, int) and isinstance(most, int):
        return (int(low), int(high)) if max(-low, high) < 2**63 else (least, most)
    return low, high


def _is_duration(kind: pa.DataType) -> bool:
    return bool(pa.types.is_duration(kind))


def _contradiction(parameter: str, allowed: str, received: Any) -> InputError:
    return InputError("the schema contradicts itself", parameter=parameter, allowed=allowed, received=received)


def _wrong_for(parameter: str, kind: pa.DataType, allowed: str) -> InputError:
    return InputError(
        "the schema asks for what the column's type does not have",
        parameter=parameter,
        allowed=f"only for {allowed}",
        received=f"a column of type {type_name(kind)}",
    )
