"""What is to be measured and how it is judged: checked, and as TFMA's EvalConfig."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeparts.components.validation.evaluate_tfma.rows import BASELINE, CANDIDATE, LABEL, SLICE_PREFIX
from pipeparts.runtime.errors import InputError, suggest

#: The usual metrics of each task, by TFMA's names.
METRICS = {
    "binary": (
        "ExampleCount", "AUC", "AUCPrecisionRecall", "BinaryAccuracy", "BinaryCrossEntropy", "Precision", "Recall",
        "Calibration", "MeanLabel", "MeanPrediction",
    ),
    "regression": (
        "ExampleCount", "MeanSquaredError", "MeanAbsoluteError", "SquaredPearsonCorrelation", "MeanLabel",
        "MeanPrediction",
    ),
}  # fmt: skip
COUNT = "ExampleCount"
_BOUNDS = ("min", "max", "min_change", "max_change")


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The bounds of one metric; None where there is none.

    Attributes:
        min: The least value.
        max: The greatest value.
        min_change: The least change from the baseline.
        max_change: The greatest change from the baseline.
    """

    min: float | None = None
    max: float | None = None
    min_change: float | None = None
    max_change: float | None = None


def name_of(metric: str) -> str:
    """The name of a metric in TFMA's results."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", metric).lower()


def parse_metrics(task: str, **thresholds: Mapping[str, Any] | None) -> list[str]:
    """The usual metrics of a task, and those that thresholds name.

    Raises:
        InputError: For thresholds that are no dictionary, or of a metric that TFMA does not have.
    """
    import tensorflow_model_analysis.metrics  # noqa: F401 (it registers them)
    from tensorflow_model_analysis.metrics import metric_types

    known = sorted(metric_types.registered_metrics())
    found = dict.fromkeys(METRICS[task])
    for parameter, given in thresholds.items():
        if given is not None and not isinstance(given, Mapping):
            raise InputError(
                "thresholds that are no dictionary",
                parameter=parameter,
                allowed='{"AUC": {"min": 0.7}}',
                received=repr(given),
            )
        for name in given or {}:
            if name not in known:
                raise InputError(
                    "a metric that TFMA does not know",
                    parameter=f"{parameter}.{name}",
                    allowed="a metric of tfma.metrics",
                    received=name,
                    hint=suggest(name, known),
                )
            found[name] = None
    return list(found)


def parse_slices(slices: Sequence[Any] | None) -> list[tuple[str, ...]]:
    """The groups of columns to slice by."""
    groups: list[tuple[str, ...]] = []
    for place, item in enumerate(slices or []):
        parts = tuple(item.split("+")) if isinstance(item, str) else ()
        if not parts or not all(parts) or len(set(parts)) < len(parts):
            raise InputError(
                "a slice that is not one",
                parameter=f"slices[{place}]",
                allowed="a column's name, or several with + between: origin+dest",
                received=repr(item),
            )
        groups.append(parts)
    return list(dict.fromkeys(groups))


def parse_thresholds(given: Mapping[str, Any] | None, *, parameter: str, has_baseline: bool) -> dict[str, Threshold]:
    """Thresholds by the metric's name.

    Raises:
        InputError: For a bound that is not known or no number, and for a change from no baseline.
    """
    found: dict[str, Threshold] = {}
    for metric, bounds in (given or {}).items():
        where = f"{parameter}.{metric}"
        if not isinstance(bounds, Mapping) or not all(_is_number(value) for value in bounds.values()):
            raise InputError(
                "not the bounds of a metric",
                parameter=where,
                allowed="a dictionary of min, max, min_change, max_change to numbers",
                received=repr(bounds),
            )
        for name in bounds:
            if name not in _BOUNDS:
                raise InputError(
                    "a bound that is not known",
                    parameter=where,
                    allowed=_BOUNDS,
                    received=repr(name),
                    hint=suggest(str(name), _BOUNDS),
                )
        if {"min_change", "max_change"} <= set(bounds):
            raise InputError(
                "a change with two bounds",
                parameter=where,
                allowed="min_change, or max_change: TFMA knows one direction",
                received="both",
            )
        if not has_baseline and {"min_change", "max_change"} & set(bounds):
            raise InputError(
                "a change from no baseline",
                parameter=where,
                allowed="bounds of the value: min, max",
                received="no baseline",
            )
        found[metric] = Threshold(**{name: float(value) for name, value in bounds.items()})
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def eval_config(
    metrics: Sequence[str],
    slices: Sequence[tuple[str, ...]],
    thresholds: Mapping[str, Threshold],
    slice_thresholds: Mapping[str, Threshold],
    *,
    has_baseline: bool,
) -> Any:
    """TFMA's EvalConfig."""
    from tensorflow_model_analysis.proto import config_pb2

    config = config_pb2.EvalConfig()
    for name in (CANDIDATE, BASELINE)[: 1 + has_baseline]:
        config.model_specs.add(
            name=name if has_baseline else "", label_key=LABEL, prediction_key=name, is_baseline=name == BASELINE
        )
    specification = config.metrics_specs.add()
    for metric in metrics:
        added = specification.metrics.add(class_name=metric, config=json.dumps({"name": name_of(metric)}))
        if metric in thresholds:
            _set(added.threshold, thresholds[metric])
        if metric in slice_thresholds and slices:
            per_slice = added.per_slice_thresholds.add()
            per_slice.slicing_specs.extend(_specifications(slices))
            _set(per_slice.threshold, slice_thresholds[metric])
    config.slicing_specs.add()
    config.slicing_specs.extend(_specifications(slices))
    return config


def _specifications(slices: Sequence[tuple[str, ...]]) -> list[Any]:
    from tensorflow_model_analysis.proto import config_pb2

    return [config_pb2.SlicingSpec(feature_keys=[f"{SLICE_PREFIX}{name}" for name in group]) for group in slices]


def _set(target: Any, threshold: Threshold) -> None:
    from tensorflow_model_analysis.proto import config_pb2

    if threshold.min is not None:
        target.value_threshold.lower_bound.value = threshold.min
    if threshold.max is not None:
        target.value_threshold.upper_bound.value = threshold.max
    if threshold.min_change is not None:
        target.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
        target.change_threshold.absolute.value = threshold.min_change
    if threshold.max_change is not None:
        target.change_threshold.direction = config_pb2.MetricDirection.LOWER_IS_BETTER
        target.change_threshold.absolute.value = threshold.max_change


def shown_slice(key: Sequence[tuple[str, Any]]) -> str:
    """A slice's name as people read it: origin=JFK, or nothing for all rows."""
    return ", ".join(f"{name.removeprefix(SLICE_PREFIX)}={_decoded(value)}" for name, value in key)


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
