"""The work of `validate_table`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from pipeparts.components.data_validation.validate_table.checks import Draft, column_drafts, key_draft, table_drafts
from pipeparts.components.data_validation.validate_table.page import build_page
from pipeparts.components.data_validation.validate_table.rows import Found, find_duplicates, find_rows
from pipeparts.components.data_validation.validate_table.schema import Schema, infer_schema, parse_schema
from pipeparts.components.data_validation.validate_table.schema_text import schema_yaml
from pipeparts.runtime.errors import ContractError
from pipeparts.runtime.files import write_text
from pipeparts.runtime.profiles import Profile, read_profile
from pipeparts.runtime.profiling import kind_of
from pipeparts.runtime.tables import Table, type_name
from pipeparts.runtime.verdict import Check, Verdict

logger = logging.getLogger(__name__)

_KEY_COLUMNS = 3


def validate_table(
    *,
    table_path: str | os.PathLike[str],
    profile_path: str | os.PathLike[str],
    verdict_path: str | os.PathLike[str],
    verdict_text_path: str | os.PathLike[str],
    schema_used_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    schema: Mapping[str, Any] | None,
    reference_profile_path: str | os.PathLike[str] | None,
) -> Verdict:
    """Holds a table against a schema.

    What the profile knows is taken from it; rows are read only for what it does not know, and only in the columns
    concerned.

    Args:
        table_path: The table's folder.
        profile_path: The table's own profile.
        verdict_path: Where the verdict (JSON) goes.
        verdict_text_path: Where the verdict (Markdown) goes.
        schema_used_path: Where the schema (YAML) goes.
        page_path: Where the HTML page goes.
        schema: The schema; None or empty to infer one, from the reference where there is one.
        reference_profile_path: The profile to compare with, if any.

    Returns:
        The verdict.

    Raises:
        InputError: For a schema that is not one, contradicts itself or does not go with the columns' types.
        ContractError: Where the profile is not this table's, or an input is damaged.
    """
    table = Table(table_path)
    profile = read_profile(profile_path)
    _require_same(table, profile, str(profile_path))
    reference = read_profile(reference_profile_path) if reference_profile_path is not None else None
    used, origin, inferred = _choose_schema(schema, table, profile, reference)
    drafts = list(table_drafts(used, profile))
    if not schema and reference is None:
        drafts.append(_holds_by_construction(used))
    else:
        types = {name: table.schema.field(name).type for name in table.schema.names}
        key = key_draft(used, profile)
        drafts += [key] if key is not None else []
        for name, column in used.columns.items():
            drafts += column_drafts(name, column, profile, types.get(name), reference)
    checks = _settle(table, drafts, _key_columns(used, table))
    subject = f"{profile.rows:,} rows of {len(profile.columns)} columns from {profile.source or 'an unnamed source'}"
    verdict = Verdict(gate="validate_table", subject=subject, checks=tuple(checks))
    text = schema_yaml(used, origin=origin, inferred=inferred, profile=profile)
    write_text(schema_used_path, text)
    build_page(verdict, origin=origin, schema_text=text).write(page_path)
    verdict.write(verdict_path, verdict_text_path)
    logger.info("%d of %d checks failed", len(verdict.failures), len(checks))
    return verdict


def _require_same(table: Table, profile: Profile, where: str) -> None:
    """Refuses the profile of another table."""
    columns = {column.name: column.type for column in profile.columns}
    # The types as they are read: Parquet gives some back as another than the one written (seconds as milliseconds).
    read = {field.name: type_name(field.type) for field in table.schema}
    if profile.fingerprint != table.info.fingerprint or profile.rows != table.rows or columns != read:
        raise ContractError(
            "the profile is of another table",
            where=where,
            allowed=f"the profile of the table with fingerprint {table.info.fingerprint}, {table.rows:,} rows",
            received=f"fingerprint {profile.fingerprint}, {profile.rows:,} rows",
            hint="run profile_table on this very table",
        )


def _choose_schema(
    schema: Mapping[str, Any] | None, table: Table, profile: Profile, reference: Profile | None
) -> tuple[Schema, str, bool]:
    """The schema, a sentence on where it comes from, and whether it was inferred."""
    if schema:
        types = {name: table.schema.field(name).type for name in table.schema.names}
        parsed = parse_schema(schema, types=types, has_reference=reference is not None)
        return parsed, "The schema was given.", False
    if reference is not None:
        origin = "No schema was given: this one was inferred from the reference profile, with the limits below."
        return infer_schema(reference, drift=True), origin, True
    origin = "No schema was given: this one was inferred from the table itself. Edit it, and give it as `schema`."
    return infer_schema(profile, drift=False), origin, True


def _holds_by_construction(schema: Schema) -> Draft:
    reason = (
        "no schema was given, and one inferred from the table itself holds by construction: only the checks beside "
        "this one were made; edit `schema_used` and give it as `schema`"
    )
    return Draft(lambda _: Check("schema", True, f"inferred, {len(schema.columns)} columns", None, reason))


def _key_columns(schema: Schema, table: Table) -> list[str]:
    """The columns that tell a person which row a sample is."""
    names = schema.unique_key or tuple(name for name, column in schema.columns.items() if column.unique)
    is_there = [n for n in names if n in table.schema.names and kind_of(table.schema.field(n).type) != "nested"]
    return is_there[:_KEY_COLUMNS]


def _settle(table: Table, drafts: list[Draft], key: list[str]) -> list[Check]:
    """Reads the rows that the drafts want, all in one pass but for repeated values, and settles them."""
    rules = {str(index): draft.rule for index, draft in enumerate(drafts) if draft.rule is not None}
    found: dict[str, Found] = find_rows(table, rules, key=key)
    for index, draft in enumerate(drafts):
        if draft.unique:
            found[str(index)] = find_duplicates(table, draft.unique, key=[n for n in key if n not in draft.unique])
    return [draft.settle(found.get(str(index))) for index, draft in enumerate(drafts)]
