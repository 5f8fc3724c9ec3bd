"""The page of `infer_schema_tfdv`: each column with what it must be."""

from __future__ import annotations

import html
from typing import Any

from pipeparts.runtime.pages import Page
from pipeparts.runtime.tfdv import names
from pipeparts.runtime.verdict import format_value

_VALUES_SHOWN = 12


def build_page(schema: Any, *, origin: str, text: str) -> Page:
    """Draws the page.

    Args:
        schema: The schema.
        origin: Where it comes from, in a sentence or two.
        text: The same as text.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2

    page = Page("Schema of TensorFlow Data Validation", origin)
    environments = ", ".join(schema.default_environment) or "none"
    page.facts({"columns": len(schema.feature), "categories": len(schema.string_domain), "environments": environments})
    page.heading("Columns")
    page.table(
        [
            [
                name,
                schema_pb2.FeatureType.Name(feature.type),
                _presence(feature),
                _valency(feature),
                _domain(schema, feature),
                ", ".join(feature.not_in_environment),
                _comparators(feature),
            ]
            for name, feature in names(schema.feature).items()
        ],
        columns=["column", "type", "present", "values", "allowed", "not in", "drift and skew"],
    )
    page.heading("The schema")
    page.html(f"<details><summary>as text</summary><pre>{html.escape(text)}</pre></details>")
    return page


def _presence(feature: Any) -> str:
    share = feature.presence.min_fraction
    return "in every row" if share == 1 else f"in {share:.2%} of rows" if share else "may be missing"


def _valency(feature: Any) -> str:
    if feature.HasField("shape"):
        return "× ".join(str(dim.size) for dim in feature.shape.dim) or "1"
    if feature.HasField("value_count"):
        least, most = feature.value_count.min, feature.value_count.max
        return str(least) if least == most else f"{least} to {most}" if most else f"{least} or more"
    return ""


def _domain(schema: Any, feature: Any) -> str:
    kind = feature.WhichOneof("domain_info")
    if kind == "domain":
        domain = next((d for d in schema.string_domain if d.name == feature.domain), None)
        return _values(list(domain.value)) if domain else feature.domain
    if kind == "string_domain":
        return _values(list(feature.string_domain.value))
    if kind in ("int_domain", "float_domain"):
        domain = getattr(feature, kind)
        least = format_value(domain.min) if domain.HasField("min") else ""
        most = format_value(domain.max) if domain.HasField("max") else ""
        return (
            f"{least} to {most}"
            if least and most
            else f"{least} or more"
            if least
            else f"{most} at most"
            if most
            else ""
        )
    return "" if kind is None else kind.removesuffix("_domain")


def _values(values: list[str]) -> str:
    rest = len(values) - _VALUES_SHOWN
    return ", ".join(values[:_VALUES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _comparators(feature: Any) -> str:
    found = []
    for kind in ("drift", "skew"):
        comparator = getattr(feature, f"{kind}_comparator")
        if comparator.HasField("infinity_norm"):
            found.append(f"{kind}: L∞ {format_value(comparator.infinity_norm.threshold)}")
        if comparator.HasField("jensen_shannon_divergence"):
            found.append(f"{kind}: JS {format_value(comparator.jensen_shannon_divergence.threshold)}")
    return ", ".join(found)
