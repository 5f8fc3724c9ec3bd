"""The declared feature set: what a person may write for each kind of feature."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, get_args

import pydantic

from pipeparts.runtime.errors import InputError, suggest
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.serving.features import CYCLES, LARGEST, PARTS

Encode = Literal["embedding", "one_hot"]

Part = Literal["quarter", "month", "day", "weekday", "hour", "minute"]
Cycle = Literal["hour_of_day", "day_of_week", "day_of_month", "day_of_year"]
assert get_args(Part) == tuple(PARTS)
assert get_args(Cycle) == CYCLES

#: One-hot features each take a column; more of them than this is a case for an embedding.
MOST_ONE_HOT = 1_000


class _Declared(Params):
    """What every kind has.

    Attributes:
        kind: The kind of feature.
        column: The raw column; the one of the feature's name where not said.
    """

    kind: str
    column: str | None = None

    def raw_columns(self, name: str) -> tuple[str, ...]:
        """The raw columns of the feature of this name."""
        return (self.column or name,)


class Numeric(_Declared):
    """A number: clipped, then its logarithm taken, then missing filled, then scaled. Infinities count as missing.

    Attributes:
        scale: "standardize": mean 0 and standard deviation 1; "quantile": the rank, from 0 to 1;
            "minmax": from 0 at the least to 1 at the greatest; "none": as it is.
        log: Whether sign(x) * log(1 + |x|) is taken.
        clip: Least and greatest value in the column's own unit; null for no bound.
        missing: What stands for missing values: "mean" or "median" of what is there (after clip and log), or a number
            in the column's own unit.
        indicator: Whether a second feature says that the value was missing; "auto": where the table has missing ones.
        quantiles: How many points the quantile scale keeps.
    """

    kind: Literal["numeric"] = "numeric"
    scale: Literal["standardize", "quantile", "minmax", "none"] = "standardize"
    log: bool = False
    clip: tuple[float | None, float | None] | None = None
    missing: str | float = "mean"
    indicator: Literal["auto"] | bool = "auto"
    quantiles: int = pydantic.Field(default=1_000, ge=2, le=10_000)

    @pydantic.field_validator("missing", mode="before")
    @classmethod
    def _check_missing(cls, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
        if value not in ("mean", "median") and not is_number:
            raise ValueError("mean, median or a number")
        return value

    @pydantic.field_validator("indicator", mode="before")
    @classmethod
    def _check_indicator(cls, value: Any) -> Any:
        if value != "auto" and not isinstance(value, bool):
            raise ValueError("auto, true or false")
        return value

    @pydantic.field_validator("clip", mode="before")
    @classmethod
    def _check_clip(cls, value: Any) -> Any:
        numbers = [None if bound is None else _number(bound) for bound in value] if _is_list(value) else []
        if value is not None and len(numbers) != 2:
            raise ValueError("a list of two numbers, the least and the greatest (null for no bound)")
        given = [bound for bound in numbers if bound is not None]
        if len(given) == 2 and not given[0] < given[1]:
            raise ValueError("the least below the greatest")
        return None if value is None else tuple(numbers)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest value."""
        low, high = self.clip or (None, None)
        return -LARGEST if low is None else low, LARGEST if high is None else high


class Bucketize(_Declared):
    """A number as the id of its bucket; a missing one has a bucket of its own.

    Attributes:
        boundaries: Rising numbers; a value on a boundary belongs to the bucket above. Or:
        buckets: So many buckets of about as many rows each (fewer where values repeat); 10 where neither is given.
        encode: "embedding": an id; "one_hot": a number for each bucket.
    """

    kind: Literal["bucketize"] = "bucketize"
    boundaries: tuple[float, ...] | None = None
    buckets: int | None = pydantic.Field(default=None, ge=2, le=1_000)
    encode: Encode = "embedding"

    @pydantic.field_validator("boundaries", mode="before")
    @classmethod
    def _check_boundaries(cls, value: Any) -> Any:
        if value is None:
            return None
        numbers = [_number(bound) for bound in value] if _is_list(value) else []
        if not 1 <= len(numbers) <= 1_000 or any(b <= a for a, b in itertools.pairwise(numbers)):
            raise ValueError("a list of 1 to 1,000 rising numbers")
        return tuple(numbers)

    @pydantic.model_validator(mode="after")
    def _check_one(self) -> Bucketize:
        if self.boundaries is not None and self.buckets is not None:
            raise ValueError("boundaries or buckets, not both")
        return self


class Category(_Declared):
    """A value, or the values of several columns together, as an id. Missing has an id of its own.

    Attributes:
        columns: Several raw columns that make one category together, instead of `column`.
        encode: "embedding": an id; "one_hot": a number for each id; "hash": an id without a vocabulary.
        max_values: The most values in the vocabulary, the most frequent first (ties in the order of the values);
            10,000 where not said, 100 for one_hot.
        min_count: Values seen less often than this are not in the vocabulary.
        oov_buckets: How many ids the values outside the vocabulary share, by their hash.
        buckets: How many ids there are with encode: hash; with one_hot it asks for the hash as well.
    """

    kind: Literal["category"] = "category"
    columns: tuple[str, ...] | None = None
    encode: Literal["embedding", "one_hot", "hash"] = "embedding"
    max_values: int | None = pydantic.Field(default=None, ge=1, le=1_000_000)
    min_count: int = pydantic.Field(default=5, ge=1)
    oov_buckets: int = pydantic.Field(default=1, ge=1, le=100_000)
    buckets: int | None = pydantic.Field(default=None, ge=1, le=10_000_000)

    @pydantic.field_validator("columns", mode="before")
    @classmethod
    def _check_columns(cls, value: Any) -> Any:
        if value is None:
            return None
        if not _is_list(value) or not 2 <= len(value) <= 8 or len(set(map(str, value))) < len(value):
            raise ValueError("a list of 2 to 8 different columns")
        return tuple(value)

    @pydantic.model_validator(mode="after")
    def _check_together(self) -> Category:
        if self.column is not None and self.columns is not None:
            raise ValueError("column or columns, not both")
        if self.encode == "embedding" and self.buckets is not None:
            raise ValueError("buckets only with encode: hash or one_hot (for values outside a vocabulary: oov_buckets)")
        if self.hashed and {"max_values", "min_count", "oov_buckets"} & self.model_fields_set:
            raise ValueError("max_values, min_count and oov_buckets only with a vocabulary, not with a hash")
        if self.encode == "one_hot" and self.most_ids > MOST_ONE_HOT:
            raise ValueError(f"at most {MOST_ONE_HOT:,} ids with encode: one_hot")
        return self

    @property
    def hashed(self) -> bool:
        """Whether there is no vocabulary."""
        return self.encode == "hash" or self.buckets is not None

    @property
    def most_values(self) -> int:
        """The most values in the vocabulary."""
        return self.max_values or (100 if self.encode == "one_hot" else 10_000)

    @property
    def most_ids(self) -> int:
        """The most ids, but for the one of missing."""
        return (self.buckets or 64) if self.hashed else self.most_values + self.oov_buckets

    def raw_columns(self, name: str) -> tuple[str, ...]:
        """The raw columns of the feature of this name."""
        return self.columns or (self.column or name,)


class Time(_Declared):
    """A time as parts (ids) and as cycles (sine and cosine). With neither given, the cycles of the day, week and year.

    Attributes:
        parts: Of quarter, month, day, weekday, hour, minute.
        cycles: Of hour_of_day, day_of_week, day_of_month, day_of_year.
        encode: Of the parts: "embedding": ids; "one_hot": a number for each value.
        time_zone: Whose clock to read ("America/New_York"), for a column of UTC times.
    """

    kind: Literal["time"] = "time"
    parts: tuple[Part, ...] = ()
    cycles: tuple[Cycle, ...] = ()
    encode: Encode = "embedding"
    time_zone: str = ""


Declared = Numeric | Bucketize | Category | Time

KINDS: dict[str, type[Declared]] = {
    "numeric": Numeric, "bucketize": Bucketize, "category": Category, "time": Time,
}  # fmt: skip


def parse_features(features: Mapping[str, Any] | None) -> dict[str, Declared]:
    """The declared feature set, in the order of the names.

    A dictionary loses its order on the way through some of the platforms, so the order that was written does not count.

    Raises:
        InputError: Naming the feature, the key, what is allowed there and what was received.
    """
    if not isinstance(features, Mapping) or not features:
        raise InputError(
            "no features are declared",
            parameter="features",
            allowed="a dictionary: name of the feature to its declaration, such as {carrier: category}",
            received="nothing" if not features else f"{type(features).__name__}: {features!r}",
        )
    return {str(name): _parse_feature(str(name), features[name]) for name in sorted(features, key=str)}


def _parse_feature(name: str, declaration: Any) -> Declared:
    parameter = f"features.{name}"
    if not name:
        raise InputError("a feature without a name", parameter="features", allowed="a name", received="''")
    if isinstance(declaration, str):
        declaration = {"kind": declaration}
    if not isinstance(declaration, Mapping):
        raise InputError(
            "a feature's declaration is neither a kind nor a dictionary",
            parameter=parameter,
            allowed="category, or {kind: category, max_values: 50}",
            received=f"{type(declaration).__name__}: {declaration!r}",
        )
    kind = declaration.get("kind")
    if kind not in KINDS:
        raise InputError(
            "a feature of no known kind",
            parameter=f"{parameter}.kind",
            allowed=list(KINDS),
            received="nothing" if kind is None else kind,
            hint=suggest(str(kind), KINDS),
        )
    return parse_params(KINDS[kind], declaration, parameter=parameter)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise ValueError(f"numbers, where {value!r} is none")
    return float(value)
