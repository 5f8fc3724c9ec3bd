"""The work of `infer_schema_tfdv`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pipeparts.components.data_validation.infer_schema_tfdv.page import build_page
from pipeparts.components.data_validation.infer_schema_tfdv.rules import apply_rules, parse_rules
from pipeparts.runtime.errors import ContractError, InputError
from pipeparts.runtime.sources import expand, public_name, service_errors
from pipeparts.runtime.tfdv import SCHEMA_FILE, all_rows, names, parse_schema, read_statistics, to_text, write_schema

logger = logging.getLogger(__name__)

_MOST_VALUES = 100_000


def infer_schema(
    *,
    statistics_path: str | os.PathLike[str],
    schema_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    infer_feature_shape: bool,
    max_string_domain_size: int,
    required_columns: Sequence[str] | None,
    environments: Sequence[str] | None,
    rules: Mapping[str, Any] | None,
    given_schema: str,
) -> dict[str, Any]:
    """Infers a schema, or takes the one given, and lays rules over it.

    Args:
        statistics_path: The statistics.
        schema_path: Where the schema's folder goes.
        page_path: Where the HTML page goes.
        infer_feature_shape: Whether columns with one value in every row get a shape.
        max_string_domain_size: How many texts make categories at most.
        required_columns: Columns that need a value in every row.
        environments: Names of the environments.
        rules: Column to its rules.
        given_schema: Address of a schema to take in place of an inferred one.

    Returns:
        What goes onto the artifact.

    Raises:
        InputError: For rules that are not known, contradict each other or do not go with a column's type.
        ContractError: Where the statistics or the given schema are damaged.
        ServiceError: Where the given schema cannot be reached.
    """
    if not 0 <= max_string_domain_size <= _MOST_VALUES:
        raise InputError(
            "a number out of range",
            parameter="max_string_domain_size",
            allowed=f"0 to {_MOST_VALUES:,}",
            received=max_string_domain_size,
        )
    statistics = read_statistics(statistics_path)
    all_rows(statistics, where=str(statistics_path))
    if given_schema:
        origin = f"The schema was given: {public_name(given_schema)}."
        schema = parse_schema(_read(given_schema), where=public_name(given_schema))
    else:
        from tensorflow_data_validation.api.validation_api import infer_schema as infer

        origin = "The schema was inferred from the statistics."
        schema = infer(statistics, infer_feature_shape, int(max_string_domain_size))
    known = list(names(schema.feature))
    laid = parse_rules(rules, required_columns, columns=known)
    apply_rules(schema, laid, list(environments or []))
    if laid:
        origin += f" Rules were laid over {', '.join(laid)}."
    write_schema(schema_path, schema)
    build_page(schema, origin=origin, text=to_text(schema)).write(page_path)
    logger.info("a schema of %d columns", len(known))
    return {"columns": len(known), "file": SCHEMA_FILE, "inferred": not given_schema}


def _read(address: str) -> str:
    """The text of a schema at an address: a path, or a URL that fsspec reads."""
    files = expand(address, parameter="given_schema")
    if len(files) != 1:
        raise InputError(
            "an address of several files",
            parameter="given_schema",
            allowed=f"one {SCHEMA_FILE}",
            received=f"{len(files)} files at {public_name(address)}",
        )
    with service_errors(address, parameter="given_schema"):
        content: bytes = files[0].fs.cat_file(files[0].path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ContractError(
            "a schema of TFDV that is no text",
            where=public_name(address),
            allowed=f"a {SCHEMA_FILE}",
            received=str(error),
        ) from None
