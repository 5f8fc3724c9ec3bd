"""Thresholds of drift and skew, as parameters, written into a schema's comparators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.tfdv import names

EVERY_COLUMN = "*"
Kind = Literal["drift", "skew"]


class Thresholds(Params):
    """The largest distances that a column may have.

    Attributes:
        l_infinity: Of a category's share.
        jensen_shannon: The Jensen-Shannon divergence, to the base of 2.
    """

    l_infinity: float | None = pydantic.Field(default=None, ge=0, le=1)
    jensen_shannon: float | None = pydantic.Field(default=None, ge=0, le=1)

    @pydantic.model_validator(mode="after")
    def _says_something(self) -> Thresholds:
        if self.l_infinity is None and self.jensen_shannon is None:
            raise ValueError("l_infinity or jensen_shannon, 0 to 1")
        return self


def set_thresholds(schema: Any, given: Mapping[str, Any] | None, *, kind: Kind, has_other: bool) -> None:
    """Writes thresholds into a schema, and sees to it that there is something to compare, and by.

    Args:
        schema: The schema, which is changed.
        given: Column to thresholds.
        kind: Drift or skew.
        has_other: Whether there are statistics to compare with.

    Raises:
        InputError: For thresholds without statistics to compare with or the other way round, and for a column or a
            distance that does not go with the schema.
    """
    parameter = f"{kind}_thresholds"
    other = {"drift": "previous_statistics", "skew": "serving_statistics"}[kind]
    if given is not None and not isinstance(given, Mapping):
        raise InputError(
            "thresholds that are no dictionary",
            parameter=parameter,
            allowed='column to thresholds: {"carrier": {"l_infinity": 0.01}}',
            received=repr(given),
        )
    if given and not has_other:
        raise InputError(
            f"thresholds of {kind}, and nothing to compare with", parameter=parameter, allowed=f"{other} with them",
            received=f"thresholds of {', '.join(map(str, given))}, no {other}",
        )  # fmt: skip
    features = names(schema.feature)
    parsed = {
        name: parse_params(Thresholds, value, parameter=f"{parameter}.{name}") for name, value in (given or {}).items()
    }
    for name, thresholds in sorted(parsed.items(), key=lambda item: item[0] != EVERY_COLUMN):
        if name == EVERY_COLUMN:
            for each, feature in features.items():
                if has_distribution(schema, feature):
                    _set(schema, feature, each, thresholds, kind=kind, everyone=True)
            continue
        if name not in features:
            raise InputError(
                "the schema has no such column",
                parameter=parameter,
                allowed=[EVERY_COLUMN, *features],
                received=name,
                hint=suggest(name, features),
            )
        _set(schema, features[name], name, thresholds, kind=kind, everyone=False)
    if has_other and not any(_compares(feature, kind) for feature in features.values()):
        raise InputError(
            f"{other}, and no threshold to compare by",
            parameter=parameter,
            allowed=f'thresholds here or in the schema: {{"*": {{"jensen_shannon": 0.1}}}}, or no {other}',
            received="none",
        )


def has_distribution(schema: Any, feature: Any) -> bool:
    """Whether a distance says something: of numbers and of categories, not of keys and free texts."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    if feature.lifecycle_stage == schema_pb2.DEPRECATED:
        return False
    return feature.type in (schema_pb2.INT, schema_pb2.FLOAT) or is_category(feature)


def is_category(feature: Any) -> bool:
    """Whether the schema says which values there are."""
    kind = feature.WhichOneof("domain_info")
    return kind in ("domain", "string_domain", "bool_domain") or (
        kind == "int_domain" and bool(feature.int_domain.is_categorical)
    )


def _set(schema: Any, feature: Any, name: str, thresholds: Thresholds, *, kind: Kind, everyone: bool) -> None:
    from tensorflow_metadata.proto.v0 import schema_pb2

    comparator = getattr(feature, f"{kind}_comparator")
    if thresholds.l_infinity is not None:
        if feature.type == schema_pb2.BYTES or is_category(feature):
            comparator.infinity_norm.threshold = thresholds.l_infinity
        elif not everyone:
            raise InputError(
                "a distance that does not go with the column's type",
                parameter=f"{kind}_thresholds.{name}",
                allowed="jensen_shannon for numbers; l_infinity is for categories",
                received=f"l_infinity for a column of type {schema_pb2.FeatureType.Name(feature.type)}",
            )
    if thresholds.jensen_shannon is not None:
        comparator.jensen_shannon_divergence.threshold = thresholds.jensen_shannon


def _compares(feature: Any, kind: Kind) -> bool:
    comparator = getattr(feature, f"{kind}_comparator")
    return bool(comparator.HasField("infinity_norm") or comparator.HasField("jensen_shannon_divergence"))
