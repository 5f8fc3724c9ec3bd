"""The page of `transform_tft`."""

from __future__ import annotations

import os
from typing import Any

from pipeparts.components.feature_engineering.transform_tft.graph import Graph, transform_output
from pipeparts.runtime.feature_fitting.report import add_features
from pipeparts.runtime.pages import Page
from pipeparts.runtime.serving.transform import Transform
from pipeparts.runtime.tables import Table, TableInfo

_HOW_TO_SERVE = (
    "The models that our trainers make from the transformed table take transformed columns: whoever serves them runs "
    "this graph's transform_fn on the raw columns first, in TFX by tf_transform_output.transform_features_layer()."
)


def write_page(
    path: str | os.PathLike[str], graph: Graph, transform: Transform, table: Table, transformed: TableInfo
) -> None:
    """Writes the page, whole or not at all."""
    output = transform_output(graph.folder)
    raw, spec, domains = output.raw_feature_spec(), output.transformed_feature_spec(), output.transformed_domains()
    page = Page(
        "Features by TensorFlow Transform",
        f"{table.rows:,} rows" + (f", to predict {graph.label}" if graph.label else ""),
    )
    page.facts(
        {
            "made from": {"declared": "declared features", "TFX": "a graph of TFX"}.get(graph.origin, graph.origin),
            "raw columns": len(raw),
            "transformed features": len(spec),
            "our trainers take": "the raw table" if graph.transform else "the transformed table",
        }
    )
    if graph.transform is None:
        page.text(_HOW_TO_SERVE)
    elif transform.statistics:
        add_features(page, transform)
    page.heading("What goes into the graph")
    page.table(
        [_spec_row(name, feature) for name, feature in sorted(raw.items())], columns=["raw column", "type", "a row has"]
    )
    page.heading("What comes out")
    page.table(
        [[*_spec_row(name, feature), _domain(domains.get(name))] for name, feature in sorted(spec.items())],
        columns=["feature", "type", "a row has", "range"],
    )
    page.html(f'<p class="subtitle">transform {transform.fingerprint}, transformed table {transformed.fingerprint}</p>')
    page.write(path)


def _spec_row(name: str, feature: Any) -> list[str]:
    kinds = {"float32": "number", "int64": "integer", "string": "text"}
    shape = list(getattr(feature, "shape", None) or [])
    size = "one value" if shape in ([], [1]) else f"{' by '.join(map(str, shape))} values"
    how = {"VarLenFeature": "values, or none"}.get(type(feature).__name__, size)
    return [name, kinds[feature.dtype.name], how]


def _domain(domain: Any) -> str:
    if domain is None or not hasattr(domain, "min"):
        return ""
    return f"{domain.min:,} to {domain.max:,}" + (", ids" if getattr(domain, "is_categorical", False) else "")
