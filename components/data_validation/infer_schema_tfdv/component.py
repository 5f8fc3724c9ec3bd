"""The KFP interface of `infer_schema_tfdv`."""

from typing import Optional

from kfp import dsl


@dsl.component(base_image="pipeparts-python-tfx", install_kfp_package=False)
def infer_schema_tfdv(
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    infer_feature_shape: bool = True,
    max_string_domain_size: int = 100,
    required_columns: Optional[list] = None,
    environments: Optional[list] = None,
    rules: Optional[dict] = None,
    given_schema: str = "",
    given_schema_version: str = "",
) -> int:
    """Infers a schema of TensorFlow Data Validation from statistics, and lays rules over it.

    What is inferred describes the data as it is. What it should be is for people to say: by `rules`, or by editing the
    schema and giving it back as `given_schema`.

    Args:
        statistics: Statistics of TFDV: of compute_statistics_tfdv, or of TFX's StatisticsGen.
        infer_feature_shape: Whether a column with one value in every row has that as its shape and may never miss.
        max_string_domain_size: Texts with at most this many values, 0 to 100000, are categories: no others are allowed.
        required_columns: Columns that need a value in every row.
        environments: Names of the environments, such as TRAINING and SERVING; `rules` says what is missing where.
        rules: Column to its rules: required, min_present_share, min, max, allowed, min_allowed_share, not_in (a list
            of environments), and the thresholds drift_l_infinity, drift_jensen_shannon, skew_l_infinity and
            skew_jensen_shannon.
        given_schema: Address of a schema.pbtxt to take in place of the inferred one; the rules go over it all the same.
        given_schema_version: The version of that file when the run was submitted. It makes the cache notice a file that
            changed under the same name.

    Returns:
        schema: A folder as TFX's SchemaGen writes it: schema.pbtxt, which tfdv.load_schema_text reads.
        page: The schema as an HTML page.
        Output: Number of columns in the schema.

    Raises:
        InputError: For rules that are not known, contradict each other or do not go with a column's type.
        ContractError: Where the statistics or the given schema are damaged.
        ServiceError: Where the given schema cannot be reached.
    """
    from pipeparts.components.data_validation.infer_schema_tfdv import logic

    found = logic.infer_schema(
        statistics_path=statistics.path,
        schema_path=schema.path,
        page_path=page.path,
        infer_feature_shape=infer_feature_shape,
        max_string_domain_size=max_string_domain_size,
        required_columns=required_columns,
        environments=environments,
        rules=rules,
        given_schema=given_schema,
    )
    schema.metadata.update(found)
    return int(found["columns"])
