"""The KFP interface of `profile_table`."""

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def profile_table(
    table: dsl.Input[dsl.Dataset],
    profile: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    bins: int = 1024,
    top: int = 100,
) -> None:
    """Profiles a table of any size in one pass: what its columns hold, as JSON and as a page with plots.

    Up to 65,536 distinct values of a column everything is exact. Beyond them the number of distinct values is an
    estimate (standard error 0.8%), and quantiles of numbers come from buckets; the profile says which, and the error.

    Args:
        table: The table.
        bins: The most buckets of a column's histogram in the profile, 16 to 16,384. They are log-linear, so that an
            outlier takes one bucket and no precision.
        top: The most values of a column that are listed with their exact counts, 1 to 10,000.

    Returns:
        profile: JSON with the count, missing values, distinct values, moments, quantiles, histogram and most frequent
            values of each column.
        page: The profile as an HTML page, with what looks wrong at its top and a plot a column.

    Raises:
        InputError: Where `bins` or `top` is out of its range.
        ContractError: Where the table is damaged or not whole.
    """
    from pipeparts.components.data_validation.profile_table import logic

    found = logic.profile_table(
        table_path=table.path, profile_path=profile.path, page_path=page.path, bins=bins, top=top
    )
    profile.metadata.update(found.metadata())
