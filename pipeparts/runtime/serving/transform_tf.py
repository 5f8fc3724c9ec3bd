"""The transform's interpreter in TensorFlow: traceable, without state, for a SavedModel that takes raw columns.

The raw form in a SavedModel, a vector for each column: numbers and bools as float64, NaN for missing; strings as
strings, "" for missing; dates and times as strings in ISO 8601, "" for missing, UTC where a `timestamp_utc` has no
offset. A text that is no time fails the call, as it does in the other interpreter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from . import times
from .features import LARGEST_EXACT, MISSING_ID, SEPARATOR, Category
from .siphash import KEY, siphash_values
from .transform import Transform
from .values import NUMBER_TYPES, SMALLEST, TIME_TYPES, TransformError

#: The most buckets that TensorFlow's hash gives; enough to find a text by it.
_MOST_BUCKETS = 2**63 - 1


def input_signature(transform: Transform) -> dict[str, Any]:
    """The raw columns as tensor specifications, by name."""
    return {
        name: tf.TensorSpec([None], tf.float64 if kind in NUMBER_TYPES else tf.string, name=name)
        for name, kind in transform.columns.items()
    }


def apply_tf(transform: Transform, inputs: Mapping[str, Any]) -> tuple[Any, Any]:
    """The features of n rows.

    Args:
        transform: The transform.
        inputs: Tensors of shape (n,) by name, of the types of `input_signature`.

    Returns:
        Numbers (float32 of shape (n, d)) and ids (int32 of shape (n, k)), as `Transform.apply` gives them.
    """
    raw = {name: _canonical(inputs[name], kind, name) for name, kind in transform.columns.items()}
    numeric: list[Any] = []
    ids: list[Any] = []
    for feature in transform.features:
        kinds = [transform.columns[name] for name in feature.columns]
        outputs = feature.evaluate(TENSORFLOW, [raw[name] for name in feature.columns], kinds)
        numeric += [tf.cast(x, tf.float32) for x in outputs.numeric]
        ids += [tf.cast(x, tf.int32) for x in outputs.ids]
    count = tf.shape(next(iter(raw.values())))[0] if raw else 0
    return (
        tf.stack(numeric, axis=1) if numeric else tf.zeros([count, 0], tf.float32),
        tf.stack(ids, axis=1) if ids else tf.zeros([count, 0], tf.int32),
    )


def _canonical(values: Any, kind: str, column: str) -> Any:
    if kind in NUMBER_TYPES:
        numbers = tf.cast(values, tf.float64)
        return tf.where(tf.abs(numbers) < SMALLEST, tf.zeros_like(numbers), numbers)
    if kind not in TIME_TYPES:
        return tf.convert_to_tensor(values, tf.string)
    found = _parse_iso(values, offset_allowed=kind == "timestamp_utc", column=f"{column!r} ({kind})")
    if kind != "date":
        return found
    midnight = found // times.MICROSECONDS_A_DAY * times.MICROSECONDS_A_DAY
    return tf.where(tf.equal(found, times.MISSING), found, midnight)


def _parse_iso(text: Any, *, offset_allowed: bool, column: str) -> Any:
    """`times.parse_iso`, over a vector of texts."""
    missing = tf.equal(text, "")
    form = tf.strings.regex_full_match(text, times.ISO_PATTERN)
    safe = tf.where(form, text, tf.fill(tf.shape(text), ""))

    def group(number: int, source: Any = safe, pattern: str = times.ISO_PATTERN) -> Any:
        return tf.strings.regex_replace(source, pattern, rf"\{number}")

    def integer(digits: Any) -> Any:
        return tf.strings.to_number(tf.strings.join(["0", digits]), tf.int64)

    year, month, day, hour, minute, second = (integer(group(number)) for number in range(1, 7))
    fraction = integer(tf.strings.substr(tf.strings.join([group(7), "000000"]), 0, 6))
    offset = group(8)
    offset_form = tf.strings.regex_full_match(offset, times.OFFSET_PATTERN)
    shift = tf.where(offset_form, offset, tf.fill(tf.shape(text), ""))
    sign = tf.where(tf.equal(group(1, shift, times.OFFSET_PATTERN), "-"), tf.constant(1, tf.int64), -1)
    offset_hour, offset_minute = (integer(group(number, shift, times.OFFSET_PATTERN)) for number in (2, 3))
    days = times.days_of(year, month, day)
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second + sign * (offset_hour * 3600 + offset_minute * 60)
    back = times.civil_of(days)
    valid = (
        form
        & (tf.maximum(hour, offset_hour) < 24)
        & (tf.maximum(tf.maximum(minute, second), offset_minute) < 60)
        & (back.year == year)
        & (back.month == month)
        & (back.day == day)
    )
    if not offset_allowed:
        valid &= tf.equal(offset, "")
    wrong = tf.boolean_mask(text, ~(valid | missing))
    allowed = times.ISO_ALLOWED_WITH_OFFSET if offset_allowed else times.ISO_ALLOWED
    message = f"a time that cannot be read: column {column}; allowed: {allowed}; received:"
    check = tf.debugging.Assert(tf.equal(tf.size(wrong), 0), [message, wrong], summarize=1)
    with tf.control_dependencies([check] if check is not None else []):
        return tf.where(missing, tf.constant(times.MISSING, tf.int64), seconds * 1_000_000 + fraction)


class _TensorFlow:
    """The operations of the formulas, in TensorFlow."""

    is_finite = staticmethod(tf.math.is_finite)
    sign = staticmethod(tf.sign)
    log1p = staticmethod(tf.math.log1p)
    sin = staticmethod(tf.sin)
    cos = staticmethod(tf.cos)

    @staticmethod
    def where(condition: Any, one: Any, other: Any) -> Any:
        if not tf.is_tensor(one) and not tf.is_tensor(other):
            one = tf.constant(one, tf.float64)
        if not tf.is_tensor(one):
            one = tf.constant(one, other.dtype)
        if not tf.is_tensor(other):
            other = tf.constant(other, one.dtype)
        return tf.where(condition, one, other)

    @staticmethod
    def clip(x: Any, low: float, high: float) -> Any:
        return tf.minimum(tf.maximum(x, tf.constant(low, x.dtype)), tf.constant(high, x.dtype))

    @staticmethod
    def to_float(x: Any) -> Any:
        return tf.cast(x, tf.float64)

    @staticmethod
    def place(sequence: Any, x: Any) -> Any:
        if len(sequence) == 0:
            return tf.zeros_like(x, tf.int64)
        return tf.searchsorted(tf.constant(sequence), x, side="right", out_type=tf.int64)

    @staticmethod
    def take(table: Any, index: Any) -> Any:
        return tf.gather(tf.constant(table), index)

    @staticmethod
    def one_hot(ids: Any, size: int) -> list[Any]:
        return list(tf.unstack(tf.one_hot(ids, size, dtype=tf.float64), axis=1))

    @staticmethod
    def category(feature: Category, raw: Sequence[Any], types: Sequence[str]) -> Any:
        text = category_text(raw)
        if len(raw) == 1 and raw[0].dtype != tf.string and feature.vocabulary:
            found = _number_places(feature, raw[0])
        elif feature.vocabulary:
            found = _text_places(feature, text)
        else:
            found = tf.fill(tf.shape(text), tf.constant(-1, tf.int64))
        buckets = tf.strings.to_hash_bucket_strong(text, feature.buckets, list(KEY))
        ids = tf.where(found < 0, buckets + 1 + len(feature.vocabulary), found)
        return tf.where(tf.equal(text, ""), tf.constant(MISSING_ID, tf.int64), ids)


TENSORFLOW = _TensorFlow()


def category_text(raw: Sequence[Any]) -> Any:
    """The text of a category, as `transform.category_text` gives it."""
    parts = [part if part.dtype == tf.string else _number_text(part) for part in raw]
    if len(parts) == 1:
        return parts[0]
    missing = tf.reduce_all(tf.stack([tf.equal(part, "") for part in parts]), axis=0)
    joined = tf.strings.join(parts, separator=SEPARATOR.decode())
    return tf.where(missing, tf.fill(tf.shape(joined), ""), joined)


def _number_text(numbers: Any) -> Any:
    whole = tf.equal(numbers, tf.floor(numbers)) & (tf.abs(numbers) <= LARGEST_EXACT)
    digits = tf.strings.as_string(tf.cast(tf.where(whole, numbers, tf.zeros_like(numbers)), tf.int64))
    bits = tf.strings.join(["b", tf.strings.as_string(tf.bitcast(numbers, tf.int64))])
    text = tf.where(whole, digits, bits)
    return tf.where(tf.math.is_finite(numbers), text, tf.fill(tf.shape(text), ""))


def _number_places(feature: Category, numbers: Any) -> Any:
    """The id of each number of the vocabulary, -1 for the others."""
    ordered, ids_of = (tf.constant(array) for array in feature.number_ids)
    place = tf.minimum(tf.searchsorted(ordered, numbers, out_type=tf.int64), len(feature.vocabulary) - 1)
    ids = tf.gather(ids_of, place)
    return tf.where(tf.equal(tf.gather(ordered, place), numbers), ids, tf.constant(-1, tf.int64))


def _text_places(feature: Category, text: Any) -> Any:
    """The id of each text of the vocabulary, -1 for the others: found by its hash, then compared whole.

    A lookup table would do the same, but is state that a SavedModel has to track.
    """
    vocabulary = list(feature.text_ids)
    hashes = (siphash_values(vocabulary) % np.uint64(_MOST_BUCKETS)).astype(np.int64)
    if len(set(hashes.tolist())) < len(hashes):  # one chance in 10**8 for a million values
        raise TransformError("two values of a vocabulary have the same hash", where=f"feature {feature.name!r}")
    order = np.argsort(hashes)
    ordered = tf.constant(hashes[order])
    wanted = tf.strings.to_hash_bucket_strong(text, _MOST_BUCKETS, list(KEY))
    place = tf.minimum(tf.searchsorted(ordered, wanted, out_type=tf.int64), len(vocabulary) - 1)
    same = tf.equal(tf.gather(tf.constant([vocabulary[i] for i in order]), place), text)
    return tf.where(same, tf.gather(tf.constant(order.astype(np.int64) + 1), place), tf.constant(-1, tf.int64))
