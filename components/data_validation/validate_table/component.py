"""The KFP interface of `validate_table`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def validate_table(
    table: dsl.Input[dsl.Dataset],
    profile: dsl.Input[dsl.Artifact],
    verdict: dsl.Output[dsl.Artifact],
    verdict_text: dsl.Output[dsl.Markdown],
    schema_used: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    schema: Optional[dict] = None,
    reference_profile: Optional[dsl.Input[dsl.Artifact]] = None,
) -> bool:
    """Holds a table against a schema, and writes a verdict with every violation and sample rows.

    What the profile knows is answered from it, whatever the table's size; rows are read only for patterns, for
    uniqueness beyond what the profile counts exactly, and for sample rows of violations.

    Args:
        table: The table.
        profile: The table's own profile, from profile_table.
        schema: Keys min_rows, max_rows, extra_columns (allow or forbid), unique_key (a list of columns) and columns: a
            dictionary of column to type, required, max_missing_share, max_nan_share, min, max, allowed, min_share,
            pattern, unique, max_l_infinity and max_jensen_shannon. Without it a schema is inferred, from the
            reference profile where there is one.
        reference_profile: The profile to compare with, of the training table for example.

    Returns:
        verdict: JSON with each check, its value, threshold and reason, and up to 5 sample rows of a violation.
        verdict_text: The verdict for people.
        schema_used: The schema as YAML, with comments, to be edited and given back as `schema`.
        page: The verdict as an HTML page, the violations with their sample rows first.
        Output: Whether every check passed.

    Raises:
        InputError: For a schema that is not one, contradicts itself or does not go with the columns' types.
        ContractError: Where the profile is not this table's, or an input is damaged.
    """
    from pipeparts.components.data_validation.validate_table import logic

    found = logic.validate_table(
        table_path=table.path,
        profile_path=profile.path,
        verdict_path=verdict.path,
        verdict_text_path=verdict_text.path,
        schema_used_path=schema_used.path,
        page_path=page.path,
        schema=schema,
        reference_profile_path=reference_profile.path if reference_profile else None,
    )
    verdict.metadata.update(found.metadata())
    return found.passed
