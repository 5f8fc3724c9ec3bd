"""A schema as YAML that a person reads, edits and gives back."""

from __future__ import annotations

from typing import Any

import yaml

from pipeparts.components.data_validation.validate_table import schema as form
from pipeparts.components.data_validation.validate_table.schema import ColumnSchema, Schema
from pipeparts.runtime.profiles import ColumnProfile, Profile

_KEYS = """\
# The keys of a column; what is left out is not checked:
#   type                the type's name: string, int64, float64, bool, date, timestamp, timestamp_utc, binary, ...
#   required            whether the column has to be there (true unless said)
#   max_missing_share   the most of the rows where it may be missing, 0 to 1
#   max_nan_share       the most of the rows where it may be NaN, 0 to 1
#   min, max            the least and the greatest value: a number, or an ISO 8601 date or time in quotes
#   allowed, min_share  the values allowed, and the least share of the values that has to be among them
#   pattern             a regular expression (RE2) that the whole of each text has to match
#   unique              whether no value may occur twice
#   max_l_infinity      the greatest difference of one value's share from the reference profile, 0 to 1
#   max_jensen_shannon  the greatest Jensen-Shannon divergence from the reference profile, 0 to 1
# And of the table: min_rows, max_rows, extra_columns (allow or forbid), unique_key (a list of columns)."""

_MARGINS = f"""\
# What it allows beyond what was seen:
#   rows      {form.ROWS_MARGIN:.0%} of them
#   missing   {form.MISSING_MARGIN:.0%} of the rows more, or half as many again if that is more; none where none was
#   ranges    {form.RANGE_MARGIN:.0%} of their width on each side, rounded outwards; what was never negative stays so
#   texts     {1 - form.MIN_SHARE:.0%} outside those seen, for columns of up to {form.LARGEST_DOMAIN} different ones"""


def schema_yaml(schema: Schema, *, origin: str, inferred: bool, profile: Profile) -> str:
    """The YAML of a schema.

    Args:
        schema: The schema.
        origin: Where it comes from, in a sentence.
        inferred: Whether it was inferred: then the margins are said.
        profile: Of the table that it was inferred from or held against: what was seen stands beside each column.

    Returns:
        YAML that gives the same schema when read.
    """
    lines = [f"# {origin}", *([_MARGINS] if inferred else []), _KEYS, f"min_rows: {schema.min_rows}"]
    if schema.max_rows is not None:
        lines.append(f"max_rows: {schema.max_rows}")
    lines.append(f"extra_columns: {schema.extra_columns}")
    if schema.unique_key:
        lines.append(f"unique_key: {_scalar(list(schema.unique_key))}")
    seen = {column.name: column for column in profile.columns}
    lines.append("columns:" if schema.columns else "columns: {}")
    for name, column in schema.columns.items():
        if name in seen:
            lines.append(f"  # {_comment(seen[name], column)}")
        rules = _rules(column)
        lines.append(f"  {_scalar(name)}:" + ("" if rules else " {}"))
        lines += [f"    {key}: {_scalar(value)}" for key, value in rules.items()]
    return "\n".join(lines) + "\n"


def _rules(column: ColumnSchema) -> dict[str, Any]:
    given = column.model_dump(exclude_defaults=True)
    if "allowed" in given:
        given["allowed"] = list(given["allowed"])
    return given


def _comment(seen: ColumnProfile, column: ColumnSchema) -> str:
    parts = []
    if seen.distinct is not None:
        parts.append(f"{'' if seen.distinct.exact else 'about '}{seen.distinct.count:,} distinct")
    parts.append(f"{seen.missing_share:.2%} missing" if seen.missing else "none missing")
    span: Any = seen.numbers or seen.times
    if span is not None and span.minimum is not None:
        parts.append(f"{span.minimum} to {span.maximum}")
    may_be_key = seen.distinct is not None and not seen.distinct.exact and seen.kind in ("text", "number")
    if seen.distinct is not None and may_be_key and not column.unique and not seen.type.startswith("float"):
        most = seen.distinct.count * (1 + 3 * seen.distinct.standard_error)
        parts += ["may be a key: `unique: true` would hold it to that"] if most >= seen.count else []
    return "seen: " + ", ".join(parts)


def _scalar(value: Any) -> str:
    # In quotes, signs that end a line in YAML (there are five) are escaped.
    texts = value if isinstance(value, list) else [value]
    style = '"' if any(isinstance(text, str) and not text.isprintable() for text in texts) else None
    text: str = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=2**30, allow_unicode=True)
    return text.removesuffix("...\n").rstrip("\n")
