"""The work of `transform_tft`."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from pipeparts.components.feature_engineering.transform_tft import analysis, graph
from pipeparts.components.feature_engineering.transform_tft.examples import write_transformed
from pipeparts.components.feature_engineering.transform_tft.graph import Graph
from pipeparts.components.feature_engineering.transform_tft.page import write_page
from pipeparts.components.feature_engineering.transform_tft.places import Places, open_places
from pipeparts.runtime.beam import pipeline_options, runner_of
from pipeparts.runtime.errors import DataError, InputError
from pipeparts.runtime.feature_fitting import declared
from pipeparts.runtime.feature_fitting.columns import raw_columns
from pipeparts.runtime.files import write_json
from pipeparts.runtime.tables import Table, TableInfo
from pipeparts.runtime.tfdv import read_schema

logger = logging.getLogger(__name__)

_SPLIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def transform_tft(
    *,
    table_path: str | os.PathLike[str],
    table_uri: str,
    transform_path: str | os.PathLike[str],
    transform_graph_path: str | os.PathLike[str],
    transformed_table_path: str | os.PathLike[str],
    transformed_examples_path: str | os.PathLike[str],
    page_path: str | os.PathLike[str],
    features: Mapping[str, Any] | None = None,
    preprocessing_fn: str = "",
    label: str = "",
    split: str = "train",
    beam_options: Mapping[str, Any] | None = None,
    schema_path: str | os.PathLike[str] | None = None,
    fitted_graph_path: str | os.PathLike[str] | None = None,
) -> tuple[dict[str, Any], TableInfo]:
    """Fits features on a table by TensorFlow Transform, or takes a graph that is fitted, and transforms the table.

    Args:
        table_path: The table's folder.
        table_uri: The same, as a runner elsewhere reads it.
        transform_path: Where the transform (JSON) for our trainers goes.
        transform_graph_path: Where TFT's output folder goes.
        transformed_table_path: Where the transformed table goes.
        transformed_examples_path: Where TFX's transformed examples go.
        page_path: Where the HTML page goes.
        features: A declared feature set; or:
        preprocessing_fn: A function's import path; or:
        label: The column to be predicted; empty: none.
        split: The split's name in the transformed examples.
        beam_options: Options of Beam.
        schema_path: A schema of TFDV, for what a preprocessing_fn gets.
        fitted_graph_path: A graph fitted before, to be applied only.

    Returns:
        The transform's metadata, and the transformed table's description.

    Raises:
        InputError: For none or several of features, preprocessing_fn and fitted graph, or one that is wrong.
        DataError: For a table without rows, or values that the graph cannot take.
        ContractError: Where an input is damaged, or the table is not what the graph takes.
    """
    _check_one(features, preprocessing_fn, fitted_graph_path)
    _check_split(split)
    if schema_path is not None and not preprocessing_fn:
        raise InputError(
            "a schema where none is read",
            parameter="schema",
            allowed="with preprocessing_fn only: declared features know their columns, a fitted graph its schema",
            received="a schema",
        )
    options = pipeline_options(beam_options)
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    table = Table(table_path)
    if table.rows == 0:
        raise DataError("no rows to transform", where=str(table_path), allowed="one row at least", received="0")
    temp_location = options.view_as(GoogleCloudOptions).temp_location
    with open_places(table_path, table_uri, beam_options, temp_location) as places:
        if fitted_graph_path is not None:
            fitted = graph.read_graph(fitted_graph_path, label=label)
            graph.copy_graph(fitted, transform_graph_path)
        elif preprocessing_fn:
            fitted = _from_function(preprocessing_fn, table, label, schema_path, places, options, transform_graph_path)
        else:
            fitted = _from_features(features or {}, table, label, places, options, transform_graph_path)
        transform = fitted.transform or graph.identity_transform(fitted)
        logger.info("transforming %s rows by Beam's %s", f"{table.rows:,}", runner_of(beam_options))
        info = write_transformed(
            fitted,
            table,
            places,
            options,
            split=split,
            table_path=transformed_table_path,
            examples_path=transformed_examples_path,
        )
    write_json(transform_path, transform.as_dict())
    write_page(page_path, fitted, transform, table, info)
    logger.info(
        "%d numbers and %d ids a row: the trainers take this transform with the %s table",
        len(transform.numeric_names),
        len(transform.category_names),
        "raw" if fitted.transform else "transformed",
    )
    return {
        "fingerprint": transform.fingerprint,
        "takes": "raw table" if fitted.transform else "transformed table",
        "origin": fitted.origin,
        "rows": table.rows,
        "table_fingerprint": table.info.fingerprint,
        "raw_columns": transform.columns,
        "numeric_features": len(transform.numeric_names),
        "category_features": dict(zip(transform.category_names, transform.category_sizes, strict=True)),
    }, info


def _from_features(
    features: Mapping[str, Any],
    table: Table,
    label: str,
    places: Places,
    options: Any,
    target: str | os.PathLike[str],
) -> Graph:
    wanted = declared.parse_features(features)
    columns = raw_columns(wanted, table, label)
    kinds = graph.table_columns(table)
    if label and label not in kinds:
        raise _label_type(table, label)
    transform = analysis.analyze(wanted, columns, places, options)
    if label in {*transform.numeric_names, *transform.category_names}:
        raise InputError(
            "a feature has the label's name",
            parameter="features",
            allowed=f"other names than {label!r}",
            received=label,
        )
    raw = {**columns, **({label: kinds[label]} if label else {})}
    return graph.write_graph(
        target,
        graph.declared_preprocess(transform, label),
        graph.raw_schema_of(raw, dict.fromkeys(raw, True)),
        places,
        options,
        reads=False,
        label=label,
        origin="declared",
        transform=transform,
    )


def _from_function(
    path: str,
    table: Table,
    label: str,
    schema_path: str | os.PathLike[str] | None,
    places: Places,
    options: Any,
    target: str | os.PathLike[str],
) -> Graph:
    function = graph.load_function(path)
    if label:
        table.require([label], parameter="label")
    if schema_path is not None:
        schema = read_schema(schema_path)
    else:
        kinds = graph.table_columns(table)
        if label and label not in kinds:
            raise _label_type(table, label)
        schema = graph.raw_schema_of(kinds, graph.columns_with_missing(table, list(kinds)))
    graph.raw_adapter(schema).check(table)
    return graph.write_graph(
        target, function, schema, places, options, reads=True, label=label, origin=path, transform=None
    )


def _check_one(features: Any, preprocessing_fn: str, fitted_graph: Any) -> None:
    given = {"features": features, "preprocessing_fn": preprocessing_fn, "fitted_graph": fitted_graph}
    names = [name for name, value in given.items() if value]
    if len(names) != 1:
        raise InputError(
            "more than one thing to transform by" if names else "nothing to transform by",
            parameter=", ".join(given),
            allowed="exactly one of them",
            received=names or "none",
        )


def _check_split(split: str) -> None:
    if not isinstance(split, str) or not _SPLIT.fullmatch(split):
        raise InputError(
            "not a name for a split",
            parameter="split",
            allowed="letters, digits, dots, dashes and underscores",
            received=repr(split),
        )


def _label_type(table: Table, label: str) -> InputError:
    return InputError(
        "a label of a type that a transform graph has not",
        parameter="label",
        allowed="numbers, texts, truth values and times",
        received=f"{label}: {table.schema.field(label).type}",
    )
