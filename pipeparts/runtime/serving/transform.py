"""The transform: raw columns in, features out. This is its interpreter in numpy; `transform_tf` is the other one.

It is one JSON document, format "pipeparts.transform/1". Both interpreters run the same formulas
(`features.py`), so that training, batch prediction and the served model see the same features.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import values
from .features import (
    LARGEST_EXACT,
    MISSING_ID,
    SEPARATOR,
    Category,
    Feature,
    feature_as_dict,
    feature_from_dict,
)
from .siphash import siphash_values
from .values import Strings, TransformError

__all__ = ["FORMAT", "Features", "Transform", "TransformError"]

FORMAT = "pipeparts.transform/1"


class Features(NamedTuple):
    """The features of n rows.

    Attributes:
        numeric: float32 of shape (n, d), always finite; column by column in memory.
        categories: int32 ids of shape (n, k), each from 0 to its size less one.
    """

    numeric: npt.NDArray[np.float32]
    categories: npt.NDArray[np.int32]


class Transform:
    """A fitted transform.

    Args:
        columns: The raw columns that it takes, name to type name (string, int64, float64, bool, date,
            timestamp, timestamp_utc).
        features: The fitted features, in the order of their outputs.
        statistics: What was seen while fitting, for people; it changes no feature.

    Attributes:
        columns: As given.
        features: As given.
        statistics: As given.
        numeric_names: Names of the d numeric features.
        category_names: Names of the k category features.
        category_sizes: The number of ids of each category feature, those for missing and unseen included.
        fingerprint: 32 hexadecimal digits, of columns and features: equal for transforms that give equal features.
    """

    def __init__(
        self, columns: Mapping[str, str], features: Sequence[Feature], statistics: Mapping[str, Any] | None = None
    ) -> None:
        self.columns = dict(columns)
        self.features = tuple(features)
        self.statistics = dict(statistics or {})
        self.numeric_names = [name for feature in self.features for name in feature.numeric_names]
        embedded = [
            ids for feature in self.features for ids in feature.id_columns
            if getattr(feature, "encode", "") == "embedding"
        ]  # fmt: skip
        self.category_names = [ids.name for ids in embedded]
        self.category_sizes = [ids.size for ids in embedded]
        self.fingerprint = self._fingerprint()
        self._check()

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Transform:
        """A transform from its JSON form.

        Raises:
            TransformError: For a document that is no transform, or was changed by hand.
        """
        if not isinstance(document, Mapping) or document.get("format") != FORMAT:
            received = document.get("format") if isinstance(document, Mapping) else type(document).__name__
            raise TransformError("not a transform", allowed=f"format {FORMAT!r}", received=received)
        try:
            features = [feature_from_dict(feature) for feature in document["features"]]
            transform = cls(document["columns"], features, document.get("statistics"))
        except (KeyError, TypeError, AttributeError) as error:
            raise TransformError("a damaged transform", received=repr(error)) from None
        if document.get("fingerprint") != transform.fingerprint:
            raise TransformError(
                "a transform whose content is not what its fingerprint says",
                allowed=transform.fingerprint,
                received=document.get("fingerprint"),
            )
        return transform

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Transform:
        """A transform from its file.

        Raises:
            TransformError: For a file that cannot be read, or is no transform.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TransformError("cannot read a transform", where=str(path), received=str(error)) from error
        try:
            return cls.from_dict(document)
        except TransformError as error:
            where = ", ".join(part for part in (str(path), error.facts.get("where")) if part)
            raise TransformError(error.headline, **{**error.facts, "where": where}) from None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"format": FORMAT, "fingerprint": self.fingerprint, **self._content(), "statistics": self.statistics}

    def apply(self, columns: Any) -> Features:
        """The features of n rows.

        Args:
            columns: The raw columns by name, all of n values: a mapping of numpy arrays, pandas Series, Arrow arrays
                or lists; a pandas DataFrame; an Arrow table or record batch. Columns not needed are ignored.

        Raises:
            TransformError: For a column that is missing or of another type, or columns of different lengths.
        """
        raw = self._raw(columns)
        count = len(next(iter(raw.values()))) if raw else 0
        numeric = np.zeros((len(self.numeric_names), count), dtype=np.float32)
        categories = np.zeros((len(self.category_names), count), dtype=np.int32)
        numeric_place = category_place = 0
        with np.errstate(all="ignore"):
            for feature in self.features:
                outputs = feature.evaluate(
                    NUMPY, [raw[name].value for name in feature.columns],
                    [self.columns[name] for name in feature.columns],
                )  # fmt: skip
                for output in outputs.numeric:
                    if isinstance(output, _OneHot):
                        # Only where it is 1: the rest is 0 already.
                        numeric[numeric_place + output.ids, np.arange(count)] = 1.0
                        numeric_place += output.size
                        continue
                    numeric[numeric_place] = output
                    numeric_place += 1
                for output in outputs.ids:
                    categories[category_place] = output
                    category_place += 1
        return Features(numeric.T, categories.T)

    def _raw(self, columns: Any) -> dict[str, _Raw]:
        if hasattr(columns, "column_names") or hasattr(columns, "schema"):  # Arrow tables have no `in`
            columns = {name: columns.column(name) for name in columns.schema.names}
        raw = {}
        for name, type_name in self.columns.items():
            if name not in columns:
                raise TransformError(
                    "a raw column is missing",
                    where=f"column {name!r} ({type_name})",
                    allowed=list(self.columns),
                    received=[str(other) for other in columns],
                    hint=values.closest(name, [str(other) for other in columns]),
                )
            raw[name] = _Raw(values.canonical(columns[name], type_name, column=name))
        lengths = {name: len(value) for name, value in raw.items()}
        if len(set(lengths.values())) > 1:
            received = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise TransformError("columns of different lengths", allowed="as many values in each", received=received)
        return raw

    def _content(self) -> dict[str, Any]:
        return {"columns": self.columns, "features": [feature_as_dict(feature) for feature in self.features]}

    def _fingerprint(self) -> str:
        text = json.dumps(self._content(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(f"{FORMAT}\n{text}".encode()).hexdigest()[:32]

    def _check(self) -> None:
        names = [*self.numeric_names, *self.category_names]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise TransformError("two features of the same name", allowed="names that differ", received=twice)
        for feature in self.features:
            for column in feature.columns:
                if self.columns.get(column) not in values.COLUMN_TYPES:
                    raise TransformError(
                        "a damaged transform",
                        where=f"feature {feature.name!r}, column {column!r}",
                        allowed=list(values.COLUMN_TYPES),
                        received=self.columns.get(column),
                    )


class _Raw(NamedTuple):
    value: Any

    def __len__(self) -> int:
        return len(self.value.codes) if isinstance(self.value, Strings) else len(self.value)


class _OneHot(NamedTuple):
    """As many features as there are ids: each is 1 in the rows that have its id, and 0 in the others."""

    ids: npt.NDArray[np.int64]
    size: int


class Numpy:
    """The operations of the formulas, in numpy."""

    where = staticmethod(np.where)
    is_finite = staticmethod(np.isfinite)
    sign = staticmethod(np.sign)
    log1p = staticmethod(np.log1p)
    sin = staticmethod(np.sin)
    cos = staticmethod(np.cos)

    @staticmethod
    def clip(x: Any, low: float, high: float) -> Any:
        return np.minimum(np.maximum(x, low), high)

    @staticmethod
    def to_float(x: Any) -> Any:
        return x.astype(np.float64)

    @staticmethod
    def place(sequence: Any, x: Any) -> Any:
        return np.searchsorted(sequence, x, side="right")

    @staticmethod
    def take(table: Any, index: Any) -> Any:
        return table[index]

    @staticmethod
    def one_hot(ids: Any, size: int) -> list[Any]:
        return [_OneHot(ids, size)]

    @staticmethod
    def category(feature: Category, raw: Sequence[Any], types: Sequence[str]) -> Any:
        if len(raw) == 1 and not isinstance(raw[0], Strings) and feature.vocabulary:
            return _number_ids(feature, raw[0])
        text = category_text(raw)
        return _text_ids(feature, text.distinct)[text.codes]


NUMPY = Numpy()


def category_text(raw: Sequence[Any]) -> Strings:
    """The text of a category: of a string itself, of a number its digits, of several columns all of them."""
    parts = [part if isinstance(part, Strings) else _number_text(part) for part in raw]
    if len(parts) == 1:
        return parts[0]
    codes = parts[0].codes
    for part in parts[1:]:
        codes = codes * len(part.distinct) + part.codes
    pairs, codes = _distinct(codes, math.prod(len(part.distinct) for part in parts))
    columns = []
    for part in reversed(parts):
        pairs, places = np.divmod(pairs, max(len(part.distinct), 1))
        columns.append([part.distinct[place] for place in places])
    joined = [SEPARATOR.join(row) if any(row) else b"" for row in zip(*reversed(columns), strict=True)]
    return Strings(codes, joined)


def _distinct(codes: npt.NDArray[np.intp], size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The distinct codes, rising, and the place of each code among them; all codes are below `size`."""
    if size > 1_000_000:
        return np.unique(codes, return_inverse=True)
    present = np.zeros(size, dtype=np.bool_)
    present[codes] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[codes]


def number_text(value: float) -> bytes:
    """The text of a number as a category: the digits of a whole number, or else "b" and its 64 bits as an integer."""
    if not np.isfinite(value):
        return b""
    if value == np.floor(value) and abs(value) <= LARGEST_EXACT:
        return str(int(value)).encode()
    return b"b" + str(int(np.float64(value).view(np.int64))).encode()


def _number_text(numbers: npt.NDArray[np.float64]) -> Strings:
    distinct, codes = np.unique(numbers, return_inverse=True)
    return Strings(codes, [number_text(value) for value in distinct])


def _number_ids(feature: Category, numbers: npt.NDArray[np.float64]) -> Any:
    ordered, ids_of = feature.number_ids
    place = np.minimum(np.searchsorted(ordered, numbers), len(ordered) - 1)
    ids = ids_of[place]
    unseen = np.flatnonzero(ordered[place] != numbers)
    if len(unseen):
        text = _number_text(numbers[unseen])
        ids[unseen] = _text_ids(feature, text.distinct)[text.codes]
    return ids


def _text_ids(feature: Category, distinct: list[bytes]) -> Any:
    """The id of each distinct text."""
    ids = np.full(len(distinct), -1, dtype=np.int64)
    if feature.vocabulary and isinstance(feature.vocabulary[0], str):
        places = feature.text_ids
        ids = np.fromiter((places.get(text, -1) for text in distinct), dtype=np.int64, count=len(distinct))
    unseen = np.flatnonzero(ids < 0)
    if len(unseen):
        buckets = siphash_values([distinct[i] for i in unseen]) % np.uint64(feature.buckets)
        ids[unseen] = buckets.astype(np.int64) + 1 + len(feature.vocabulary)
    missing = [place for place, text in enumerate(distinct) if not text]
    ids[missing] = MISSING_ID
    return ids
