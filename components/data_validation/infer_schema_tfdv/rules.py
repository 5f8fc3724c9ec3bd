"""Rules for the columns of a schema, in the words of this library, written into TFDV's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.tfdv import names

_MOST_INT = 2**63 - 1


class ColumnRules(Params):
    """What a column must be; each rule that is not given stays as it was inferred.

    Attributes:
        required: Whether every row needs a value.
        min_present_share: Least share of rows with a value.
        min: Smallest number.
        max: Largest number.
        allowed: The texts that may occur.
        min_allowed_share: Least share of values that are among those allowed.
        not_in: The environments in which the column is not expected.
        drift_l_infinity: Most difference of a category's share from the previous statistics.
        drift_jensen_shannon: Most Jensen-Shannon divergence from the previous statistics.
        skew_l_infinity: Most difference of a category's share from the statistics of serving.
        skew_jensen_shannon: Most Jensen-Shannon divergence from the statistics of serving.
    """

    required: bool | None = None
    min_present_share: float | None = pydantic.Field(default=None, ge=0, le=1)
    min: float | None = pydantic.Field(default=None, allow_inf_nan=False)
    max: float | None = pydantic.Field(default=None, allow_inf_nan=False)
    allowed: list[str] | None = pydantic.Field(default=None, min_length=1)
    min_allowed_share: float | None = pydantic.Field(default=None, gt=0, le=1)
    not_in: list[str] | None = None
    drift_l_infinity: float | None = pydantic.Field(default=None, ge=0, le=1)
    drift_jensen_shannon: float | None = pydantic.Field(default=None, ge=0, le=1)
    skew_l_infinity: float | None = pydantic.Field(default=None, ge=0, le=1)
    skew_jensen_shannon: float | None = pydantic.Field(default=None, ge=0, le=1)

    @pydantic.model_validator(mode="after")
    def _agrees(self) -> ColumnRules:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min is above max: {self.min} > {self.max}")
        if self.required and self.min_present_share is not None:
            raise ValueError("required or min_present_share, not both")
        return self


def parse_rules(
    rules: Mapping[str, Any] | None, required_columns: Sequence[str] | None, *, columns: Sequence[str]
) -> dict[str, ColumnRules]:
    """Checks the rules, and that their columns are in the schema.

    Raises:
        InputError: Naming the column and the rule.
    """
    if rules is not None and not isinstance(rules, Mapping):
        raise InputError(
            "rules that are no dictionary", parameter="rules", allowed="column to rules", received=repr(rules)
        )
    found = {name: parse_params(ColumnRules, given, parameter=f"rules.{name}") for name, given in (rules or {}).items()}
    for parameter, given in (("rules", list(found)), ("required_columns", list(required_columns or []))):
        for name in given:
            if name not in columns:
                raise InputError(
                    "the schema has no such column",
                    parameter=parameter,
                    allowed=list(columns),
                    received=name,
                    hint=suggest(str(name), columns),
                )
    for name in required_columns or []:
        before = found.get(name, ColumnRules())
        if before.required is False or before.min_present_share is not None:
            raise InputError(
                "a column that is required and is not",
                parameter="required_columns",
                where=name,
                allowed="required_columns, or a rule on it",
                received=f"rules.{name}: {before.model_dump(exclude_none=True)}",
            )
        found[name] = before.model_copy(update={"required": True})
    return found


def apply_rules(schema: Any, rules: Mapping[str, ColumnRules], environments: Sequence[str]) -> None:
    """Writes rules into a schema.

    Raises:
        InputError: Where a rule does not go with the column's type, or an environment is not known.
    """
    for name in environments:
        if not isinstance(name, str) or not name:
            raise InputError(
                "an environment without a name", parameter="environments", allowed="names", received=repr(name)
            )
        if name not in schema.default_environment:
            schema.default_environment.append(name)
    features = names(schema.feature)
    for name, rule in rules.items():
        _apply(schema, features[name], name, rule)


def _apply(schema: Any, feature: Any, name: str, rule: ColumnRules) -> None:
    share = {True: 1.0, False: 0.0, None: rule.min_present_share}[rule.required]
    if share is not None:
        # A shape says one value in every row, whatever the presence says.
        if share < 1:
            feature.ClearField("shape")
        feature.presence.min_fraction = share
        feature.presence.min_count = 1 if share else 0
    if rule.min is not None or rule.max is not None:
        _set_range(feature, name, rule)
    if rule.allowed is not None:
        _set_allowed(schema, feature, name, rule.allowed)
    if rule.min_allowed_share is not None:
        if feature.WhichOneof("domain_info") not in ("domain", "string_domain"):
            raise _does_not_go(feature, name, "min_allowed_share", "a column of texts with allowed values")
        feature.distribution_constraints.min_domain_mass = rule.min_allowed_share
    for environment in rule.not_in or []:
        if environment not in schema.default_environment:
            known = list(schema.default_environment)
            raise InputError(
                "an environment that the schema does not have",
                parameter=f"rules.{name}.not_in",
                allowed=known or "environments that are named by `environments`",
                received=environment,
                hint=suggest(environment, known),
            )
        if environment not in feature.not_in_environment:
            feature.not_in_environment.append(environment)
    for kind in ("drift", "skew"):
        comparator = getattr(feature, f"{kind}_comparator")
        infinity, divergence = getattr(rule, f"{kind}_l_infinity"), getattr(rule, f"{kind}_jensen_shannon")
        if infinity is not None:
            _require_categories(feature, name, f"{kind}_l_infinity")
            comparator.infinity_norm.threshold = infinity
        if divergence is not None:
            comparator.jensen_shannon_divergence.threshold = divergence


def _set_range(feature: Any, name: str, rule: ColumnRules) -> None:
    from tensorflow_metadata.proto.v0 import schema_pb2

    if feature.type == schema_pb2.INT:
        for bound in (rule.min, rule.max):
            if bound is not None and (not float(bound).is_integer() or abs(bound) > _MOST_INT):
                raise _does_not_go(feature, name, "min and max", "whole numbers, for a column of whole numbers", bound)
        domain = schema_pb2.IntDomain()
        number: type[int] | type[float] = int
    elif feature.type == schema_pb2.FLOAT:
        domain = schema_pb2.FloatDomain()
        number = float
    else:
        raise _does_not_go(feature, name, "min and max", "a column of numbers")
    for bound_name in ("min", "max"):
        bound = getattr(rule, bound_name)
        if bound is not None:
            setattr(domain, bound_name, number(bound))
    target = feature.int_domain if feature.type == schema_pb2.INT else feature.float_domain
    target.CopyFrom(domain)


def _set_allowed(schema: Any, feature: Any, name: str, allowed: list[str]) -> None:
    from tensorflow_metadata.proto.v0 import schema_pb2

    if feature.type != schema_pb2.BYTES:
        raise _does_not_go(feature, name, "allowed", "a column of texts")
    if feature.domain:
        # A domain may be another column's as well: this column gets its own.
        users = [other for other in schema.feature if other.domain == feature.domain]
        if len(users) == 1:
            kept = [domain for domain in schema.string_domain if domain.name != feature.domain]
            copies = [type(domain).FromString(domain.SerializeToString()) for domain in kept]
            del schema.string_domain[:]
            schema.string_domain.extend(copies)
    feature.string_domain.CopyFrom(schema_pb2.StringDomain(name=name, value=allowed))


def _require_categories(feature: Any, name: str, rule: str) -> None:
    from tensorflow_metadata.proto.v0 import schema_pb2

    if feature.type == schema_pb2.FLOAT:
        raise _does_not_go(feature, name, rule, "a column of categories; numbers have the Jensen-Shannon divergence")


def _does_not_go(feature: Any, name: str, rule: str, allowed: str, received: Any = None) -> InputError:
    from tensorflow_metadata.proto.v0 import schema_pb2

    return InputError(
        "a rule that does not go with the column's type",
        parameter=f"rules.{name}",
        where=rule,
        allowed=allowed,
        received=received if received is not None else f"a column of type {schema_pb2.FeatureType.Name(feature.type)}",
    )
