"""The KFP interface of `fit_features`."""

from kfp import dsl


@dsl.component(base_image="pipeparts-python-data", install_kfp_package=False)
def fit_features(
    table: dsl.Input[dsl.Dataset],
    transform: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    features: dict,
    label: str = "",
) -> None:
    """Fits a declared feature set on a table in one pass, giving the transform that training and serving apply.

    Each feature has a name and a kind. `numeric`: scale (standardize, quantile, minmax, none), log, clip,
    missing, indicator. `bucketize`: boundaries or buckets. `category`: encode (embedding, one_hot, hash),
    max_values, min_count, oov_buckets, buckets; several columns together. `time`: parts, cycles, time_zone.
    The order of the features is that of their names.

    Args:
        table: The table to learn from: the training part only, so that nothing leaks from the others.
        features: Name of the feature to its declaration, a dictionary or just the kind. The raw column is
            the one of that name unless `column` says another.
        label: The column to be predicted. A feature that is made from it is refused. Empty: no check.

    Returns:
        transform: The fitted transform, one JSON file: raw columns in, features out.
        page: Raw columns and what becomes of them, vocabularies and their coverage, distributions.

    Raises:
        InputError: For a declaration that is not allowed, a column that is not there or does not fit the
            kind, a label among the features.
        DataError: For a table without rows, or a category with too many values to count.
    """
    from pipeparts.components.feature_engineering.fit_features import logic

    transform.metadata.update(
        logic.fit_features(
            table_path=table.path, transform_path=transform.path, page_path=page.path, features=features, label=label
        )
    )
