"""The checks of `validate_table`: from the profile where it knows the answer, from the rows where it does not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeparts.components.data_validation.validate_table.rows import Found, RowRule
from pipeparts.components.data_validation.validate_table.schema import ColumnSchema, Schema, bound, whole_match
from pipeparts.runtime.errors import DataError, suggest
from pipeparts.runtime.profiles import ColumnProfile, Profile, jensen_shannon, l_infinity
from pipeparts.runtime.profiling import kind_of
from pipeparts.runtime.tables import arrow_type, type_name
from pipeparts.runtime.verdict import Check, format_value

_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Draft:
    """A check on its way: what rows it needs, and how it is settled once they are there.

    Attributes:
        settle: Gives the check, from the rows found where there is a rule.
        rule: The rule whose rows are wanted.
        unique: The columns whose repeated values are wanted.
    """

    settle: Callable[[Found | None], Check]
    rule: RowRule | None = None
    unique: tuple[str, ...] = ()


def table_drafts(schema: Schema, profile: Profile) -> Iterator[Draft]:
    """The checks on the table as a whole."""
    most = f" to {schema.max_rows:,}" if schema.max_rows is not None else " or more"
    is_right = schema.min_rows <= profile.rows and (schema.max_rows is None or profile.rows <= schema.max_rows)
    yield _decided(
        "rows", is_right, profile.rows, f"{schema.min_rows:,}{most}",
        f"{profile.rows:,} rows, where {schema.min_rows:,}{most} are allowed",
    )  # fmt: skip
    may_be_empty = {name for name, column in schema.columns.items() if column.max_missing_share == 1}
    empty = [c.name for c in profile.columns if c.count == 0 and c.name not in may_be_empty] if profile.rows else []
    yield _decided(
        "all_missing", not empty, len(empty), 0,
        f"without any value: {_listed(empty)} (max_missing_share: 1 would allow it)"
        if empty else "every column has values",
    )  # fmt: skip
    if schema.extra_columns == "forbid":
        extra = [name for name in profile.names if name not in schema.columns]
        hints = [hint for name in extra[:_NAMED] if (hint := suggest(name, schema.columns))]
        yield _decided(
            "extra_columns", not extra, len(extra), 0,
            f"not in the schema: {_listed(extra)}" + (f" ({'; '.join(hints)})" if hints else "")
            if extra else "every column is in the schema",
        )  # fmt: skip


def key_draft(schema: Schema, profile: Profile) -> Draft | None:
    """The check on the key of several columns, or None where there is none."""
    key = schema.unique_key
    if not key:
        return None
    missing = [name for name in key if name not in profile.names]
    if missing:
        return _decided("unique_key", False, None, 0, f"the table has no column {_listed(missing)}")
    for name in key:
        column = profile.column(name)
        distinct = column.distinct
        if distinct is not None and distinct.exact and not column.missing and distinct.count == column.count:
            return _decided("unique_key", True, 0, 0, f"{name} alone has no value twice")
    return Draft(lambda found: _repeats("unique_key", found, " and ".join(key)), unique=key)


def column_drafts(
    name: str, schema: ColumnSchema, profile: Profile, kind: pa.DataType | None, reference: Profile | None
) -> Iterator[Draft]:
    """The checks on a column.

    Args:
        name: The column.
        schema: What it has to be.
        profile: The table's profile.
        kind: The column's type; None where the table does not have it.
        reference: The profile to compare with.
    """
    if kind is None:
        if schema.required:
            hint = suggest(name, profile.names)
            reason = f"the table has no column {name}" + (f"; {hint}" if hint else "")
            yield _decided(f"required:{name}", False, "absent", "present", reason)
        return
    if schema.required:
        yield _decided(f"required:{name}", True, "present", "present", "the column is there")
    column = profile.column(name)
    yield from _missing(column, schema, profile.rows)
    if schema.type is not None:
        wanted = schema.type
        if wanted != column.type and not any(sign in wanted for sign in "([<"):
            wanted = type_name(arrow_type(wanted))  # "int32" and "float" are Arrow's names too
        if wanted != column.type:
            reason = f"the type is {column.type}, not {wanted}; so the values were not checked"
            yield _decided(f"type:{name}", False, column.type, wanted, reason)
            return
        yield _decided(f"type:{name}", True, column.type, wanted, "the type is right")
    if schema.max_nan_share is not None and column.numbers is not None:
        yield _nan(column, schema.max_nan_share, profile.rows)
    if schema.min is not None or schema.max is not None:
        yield _range(column, schema, kind)
    if schema.allowed is not None:
        yield _allowed(column, schema, kind)
    if schema.pattern is not None:
        yield _pattern(column, schema.pattern)
    if schema.unique:
        yield _unique(column)
    if reference is not None:
        yield from _distances(column, schema, reference)


def _missing(column: ColumnProfile, schema: ColumnSchema, rows: int) -> Iterator[Draft]:
    most = schema.max_missing_share
    if most is None:
        return
    share = column.missing_share
    reason = f"{column.missing:,} of {rows:,} rows are missing, {share:.2%} where {most:.2%} is the most"
    name = f"missing:{column.name}"
    if share <= most:
        yield _decided(name, True, share, most, reason)
    else:
        yield Draft(
            lambda found: Check(name, False, share, most, reason, _samples(found)),
            RowRule(column.name, lambda values: values.is_null()),
        )


def _nan(column: ColumnProfile, most: float, rows: int) -> Draft:
    assert column.numbers is not None
    share = column.numbers.nan / rows if rows else 0.0
    reason = f"{column.numbers.nan:,} of {rows:,} rows are NaN, {share:.2%} where {most:.2%} is the most"
    name = f"nan:{column.name}"
    if share <= most:
        return _decided(name, True, share, most, reason)
    return Draft(
        lambda found: Check(name, False, share, most, reason, _samples(found)),
        RowRule(column.name, lambda values: pc.fill_null(pc.is_nan(values), False)),
    )


def _range(column: ColumnProfile, schema: ColumnSchema, kind: pa.DataType) -> Draft:
    name, least, most = f"range:{column.name}", schema.min, schema.max
    span = _span(least, most)
    low, high = _extremes(column)
    seen = f"the values go from {format_value(low)} to {format_value(high)}" if low is not None else "there is no value"
    if _is_within(column, schema, kind):
        return _decided(name, True, 0, span, seen)

    low_bound, high_bound = _row_bounds(schema, kind)

    def breaks(values: pa.Array) -> pa.Array:
        if kind_of(kind) == "number" and not _is_int64(kind):
            values = values.cast(pa.float64(), safe=False)
        below = pc.less(values, low_bound) if low_bound is not None else pa.scalar(False)
        above = pc.greater(values, high_bound) if high_bound is not None else pa.scalar(False)
        return pc.fill_null(pc.or_(below, above), False)

    def settle(found: Found | None) -> Check:
        count = found.count if found is not None else 0
        reason = f"{count:,} of {column.count:,} values are outside the range {span}; {seen}" if count else seen
        return Check(name, count == 0, count, span, reason, _samples(found))

    return Draft(settle, RowRule(column.name, breaks))


def _is_int64(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) and not pa.types.is_uint64(kind))


def _row_bounds(schema: ColumnSchema, kind: pa.DataType) -> tuple[Any, Any]:
    """The bounds as Arrow compares them with a column; integers with whole ones, since a float64 has too few digits."""
    bounds: list[pa.Scalar | None] = []
    for value, whole in ((schema.min, math.ceil), (schema.max, math.floor)):
        if value is None:
            bounds.append(None)
        elif _is_int64(kind) and not isinstance(value, str):
            bounds.append(pa.scalar(min(max(whole(value), -(2**63)), 2**63 - 1), pa.int64()))
        else:
            bounds.append(bound(value, kind))
    return bounds[0], bounds[1]


def _span(least: Any, most: Any) -> str:
    if most is None:
        return f"{format_value(least)} or more"
    return f"{format_value(most)} or less" if least is None else f"{format_value(least)} to {format_value(most)}"


def _extremes(column: ColumnProfile) -> tuple[Any, Any]:
    if column.numbers is not None:
        numbers = column.numbers
        low: Any = "-infinity" if numbers.negative_infinities else numbers.minimum
        high: Any = "infinity" if numbers.positive_infinities else numbers.maximum
        # With infinities alone there is no finite one: what there is of the other side then.
        return (low if low is not None else high), (high if high is not None else low)
    if column.times is None:
        return None, None
    return column.times.minimum, column.times.maximum


def _is_within(column: ColumnProfile, schema: ColumnSchema, kind: pa.DataType) -> bool:
    """Whether the profile says that all values are within the bounds."""
    low, high = _extremes(column)
    if low is None or high is None:
        return True
    if column.times is not None:
        try:
            low, high = bound(low, kind).as_py(), bound(high, kind).as_py()
        except (ValueError, pa.ArrowException):
            return False  # a year that ISO 8601 does not have: the rows will tell
    elif isinstance(low, str) or isinstance(high, str):
        return False
    within_min = schema.min is None or bound(schema.min, kind).as_py() <= low
    return within_min and (schema.max is None or high <= bound(schema.max, kind).as_py())


def _allowed(column: ColumnProfile, schema: ColumnSchema, kind: pa.DataType) -> Draft:
    assert schema.allowed is not None
    name, allowed, least = f"allowed:{column.name}", set(schema.allowed), schema.min_share

    def judge(outside: int, found: Found | None, named: list[Any]) -> Check:
        share = (column.count - outside) / column.count if column.count else 1.0
        passed = share >= least
        reason = f"{outside:,} of {column.count:,} values are not among the {len(allowed)} allowed"
        if named:
            reason += f": {_listed(named)}"
        if outside and least < 1:
            reason += f"; {share:.2%} are, where {least:.2%} is the least"
        return Check(name, passed, share, least, reason, () if passed else _samples(found))

    if _lists_every_value(column):
        assert column.top is not None
        within = sum(item.count for item in column.top.values if item.value in allowed)
        outside = column.count - within
        named = [item.value for item in column.top.values if item.value not in allowed]
        if judge(outside, None, []).passed:
            return Draft(lambda _: judge(outside, None, named))
        return Draft(lambda found: judge(outside, found, named), RowRule(column.name, _outside(schema.allowed, kind)))
    rule = RowRule(column.name, _outside(schema.allowed, kind))
    return Draft(lambda found: judge(found.count if found else 0, found, []), rule)


def _outside(allowed: tuple[Any, ...], kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    def breaks(values: pa.Array) -> pa.Array:
        if kind_of(kind) == "number":
            # JSON and KFP know one kind of number: 1.0 stands for 1.
            if pa.types.is_integer(values.type):
                wanted = pa.array([int(v) for v in allowed if float(v).is_integer()], pa.int64())
                values = values.cast(pa.int64(), safe=False)
            else:
                wanted = pa.array([float(v) for v in allowed], pa.float64())
                values = values.cast(pa.float64(), safe=False)
        else:
            wanted = pa.array(list(allowed), values.type)
        return pc.and_(values.is_valid(), pc.invert(pc.is_in(values, value_set=wanted)))

    return breaks


def _pattern(column: ColumnProfile, pattern: str) -> Draft:
    name = f"pattern:{column.name}"

    def breaks(values: pa.Array) -> pa.Array:
        return pc.fill_null(pc.invert(pc.match_substring_regex(values, whole_match(pattern))), False)

    def judge(count: int, found: Found | None) -> Check:
        reason = (
            f"{count:,} of {column.count:,} texts do not match {pattern}" if count else f"every text matches {pattern}"
        )
        return Check(name, count == 0, count, 0, reason, _samples(found))

    if _lists_every_value(column):
        assert column.top is not None
        texts = pa.array([str(item.value) for item in column.top.values], pa.string())
        wrong = breaks(texts).to_pylist()
        if not any(wrong):
            return Draft(lambda _: judge(0, None))
    return Draft(lambda found: judge(found.count if found else 0, found), RowRule(column.name, breaks))


def _unique(column: ColumnProfile) -> Draft:
    name, distinct = f"unique:{column.name}", column.distinct
    if distinct is not None and distinct.exact and distinct.count == column.count:
        return _decided(name, True, 0, 0, f"{column.count:,} values, all different")
    return Draft(lambda found: _repeats(name, found, column.name), unique=(column.name,))


def _repeats(name: str, found: Found | None, what: str) -> Check:
    count = found.count if found is not None else 0
    reason = f"{count:,} rows repeat an earlier value of {what}" if count else f"no value of {what} occurs twice"
    return Check(name, count == 0, count, 0, reason, _samples(found))


def _distances(column: ColumnProfile, schema: ColumnSchema, reference: Profile) -> Iterator[Draft]:
    for measure, most in (("l_infinity", schema.max_l_infinity), ("jensen_shannon", schema.max_jensen_shannon)):
        if most is None:
            continue
        name = f"{measure}:{column.name}"
        try:
            value, reason = _distance(measure, column, reference.column(column.name))
        except DataError as error:
            reason = f"cannot be compared with the reference: {error.headline}"
            yield _decided(name, False, None, most, reason)
            continue
        yield _decided(name, value <= most, value, most, reason)


def _distance(measure: str, column: ColumnProfile, other: ColumnProfile) -> tuple[float, str]:
    if column.kind != other.kind:
        raise DataError(f"there the column holds {other.kind} values, here {column.kind}")
    if measure == "l_infinity":
        value, worst = l_infinity(column, other)
        what = f"the share of {worst!r} differs by {value:.4f}" if worst is not None else "all shares are the same"
        return value, f"{what} from the reference's"
    if column.histogram is None or other.histogram is None:
        raise DataError("there is no histogram")
    if column.times is not None and other.times is not None and column.times.unit != other.times.unit:
        raise DataError(f"there the column counts in {other.times.unit}, here in {column.times.unit}")
    value = jensen_shannon(column.histogram, other.histogram)
    return value, f"the Jensen-Shannon divergence from the reference is {value:.4f}"


def _lists_every_value(column: ColumnProfile) -> bool:
    """Whether the profile has all the values in full; texts above 256 bytes stand in it cut."""
    if column.top is None or not column.top.complete:
        return False
    return column.texts is None or (column.kind == "text" and (column.texts.longest or 0) <= 64)


def _decided(name: str, passed: bool, value: Any, threshold: Any, reason: str) -> Draft:
    check = Check(name, passed, value, threshold, reason)
    return Draft(lambda _: check)


def _samples(found: Found | None) -> tuple[dict[str, Any], ...]:
    return found.samples if found is not None else ()


def _listed(names: list[Any]) -> str:
    shown = ", ".join(_cut(str(name)) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
