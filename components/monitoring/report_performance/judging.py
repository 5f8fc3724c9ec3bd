"""When a model counts as degraded: what was measured against what it was at registration, and against fixed bounds."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import pydantic

from pipeparts.runtime.metrics import METRICS, PRIMARY, Bounds, Kind, Values, require_metric
from pipeparts.runtime.monitoring import Finding
from pipeparts.runtime.params import Params
from pipeparts.runtime.verdict import format_value

# In the metric's unit, and as a share of the registered value for metrics in the label's unit.
_MAX_LOSS = {False: 0.02, True: 0.05}
_MAX_SLICE_LOSS = {False: 0.05, True: 0.10}


class FiniteBounds(Bounds):
    """Bounds that are finite."""

    min: float | None = pydantic.Field(default=None, allow_inf_nan=False)
    max: float | None = pydantic.Field(default=None, allow_inf_nan=False)


class Limits(Params):
    """From where on a model counts as degraded.

    The loss of a metric is its value at registration less the value now, turned round where less is better: more
    loss is always worse. A model is degraded where the loss is both material and no chance: its estimate is
    above the limit, and its interval leaves out zero. Either alone misleads: of millions of rows the smallest
    difference is no chance, of some hundred rows a large one can be (Wasserstein and Lazar, "The ASA Statement on
    p-Values", 2016, principle 5). The intervals take rows for independent. Where whole days are good or bad
    together, as with the weather, chance reaches further: then the limit is what counts, and the windows show how far.

    The default limit of 0.02 is twice what `validate_model` lets a challenger lose (0.01), so that a model that passed
    its gate is not degraded on the day after; on the flights of 2013 a model of the spring lost nothing of its ROC AUC
    in August, September and December, and 0.026 and 0.027 in October and November. Evidently's own tests (0.7.23) are
    wider: 20% of a metric of classes, which is 0.14 of a ROC AUC of 0.7, and 10% of one of a regression.

    Attributes:
        metric: The metric that the model is judged by; empty: roc_auc for two classes, roc_auc_ovr for more, rmse for
            a regression. These three do not move when the classes' shares alone do, or are in the label's unit.
        max_loss: The loss that is allowed, over all labelled rows; None: 0.02, or 0.05 where it is a share.
        relative: Whether losses are shares of the registered value (0.05 is 5%) and not in the metric's unit; None:
            shares for metrics in the label's unit (rmse, mae, median_absolute_error).
        bounds: Metric to fixed bounds, whatever it was at registration, {"roc_auc": {"min": 0.65}}. The value itself
            is held to them.
        min_rows: With fewer labelled rows nothing is judged.
        max_slice_loss: The loss that is allowed to a slice; None: 0.05, or 0.10 where it is a share.
        min_slice_rows: A slice with fewer rows, now or at registration, is not judged.
        judge_slices: Whether a slice can make the model degraded.
        max_window_loss: The loss that is allowed to each window of time; None: windows are shown and not judged.
        max_unpredicted_share: The share of labelled rows that may be without a usable prediction; None: they are
            counted and not judged.
        loss_bound: What of the loss is held to its limit: the "estimate", whose interval has to leave out zero; or the
            interval's "lower" end, which calls degraded only what is beyond the limit for sure.
        confidence: The probability of the intervals. Where many slices or windows are judged, each is held to the
            higher one at which they are all right together (Bonferroni's correction; Dunn, "Multiple Comparisons
            Among Means", 1961).
        bootstrap_samples: Replicates behind each interval.
        seed: Of the bootstrap.
    """

    metric: str = ""
    max_loss: float | None = pydantic.Field(default=None, ge=0.0, allow_inf_nan=False)
    relative: bool | None = None
    bounds: dict[str, FiniteBounds] = {}
    min_rows: int = pydantic.Field(default=500, ge=1)
    max_slice_loss: float | None = pydantic.Field(default=None, ge=0.0, allow_inf_nan=False)
    min_slice_rows: int = pydantic.Field(default=500, ge=1)
    judge_slices: bool = True
    max_window_loss: float | None = pydantic.Field(default=None, ge=0.0, allow_inf_nan=False)
    max_unpredicted_share: float | None = pydantic.Field(default=None, ge=0.0, le=1.0)
    loss_bound: Literal["estimate", "lower"] = "estimate"
    confidence: float = pydantic.Field(default=0.95, gt=0.0, lt=1.0)
    bootstrap_samples: int = pydantic.Field(default=200, ge=50, le=10_000)
    seed: int = pydantic.Field(default=0, ge=0)

    def of_kind(self, kind: Kind) -> Limits:
        """The limits for a kind of model, with the defaults that depend on it filled in.

        Raises:
            InputError: For a metric that models of this kind do not have.
        """
        metric = self.metric or PRIMARY[kind]
        require_metric(metric, kind, parameter="limits.metric", ranked=True)
        for name in self.bounds:
            require_metric(name, kind, parameter="limits.bounds")
        relative = METRICS[metric].relative if self.relative is None else self.relative
        return self.model_copy(
            update={
                "metric": metric,
                "relative": relative,
                "max_loss": _MAX_LOSS[relative] if self.max_loss is None else self.max_loss,
                "max_slice_loss": _MAX_SLICE_LOSS[relative] if self.max_slice_loss is None else self.max_slice_loss,
            }
        )


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a metric lost since registration, in its unit or as a share; more is worse.

    Attributes:
        estimate: The registered value less that of now, or the reverse where less is better.
        low: The lower end of its interval.
        high: The upper end.
        limit: What it was held to.
        exceeded: Whether it is beyond that, and no chance.
        value: The metric now.
        registered: At registration.
        worst: The metric's value at the limit.
    """

    estimate: float
    low: float
    high: float
    limit: float
    exceeded: bool
    value: float
    registered: float
    worst: float


@dataclasses.dataclass(frozen=True)
class Measured:
    """A group of rows: all, a slice or a window.

    Attributes:
        name: The slice's columns; "" for all rows.
        value: The slice's value.
        rows: Rows.
        metrics: What was measured on them.
        registered: The same at registration; empty where it is not known.
        registered_rows: Rows that this was measured on.
        error: The standard error of the metric that is judged; None where it has none.
    """

    name: str
    value: str
    rows: int
    metrics: Values
    registered: Values
    registered_rows: int
    error: float | None


def loss_of(part: Measured, limits: Limits, limit: float, *, parts: int = 1) -> Loss | None:
    """The loss of a group of rows, held to a limit.

    The registered value has its own chance, but its rows are not here. Where nothing changed, these rows vary as
    much as the ones that are here, so the variance of the difference is that of the value now times 1 + n / m for n
    rows now and m at registration. The interval is the normal one.

    Args:
        part: The rows.
        limits: The limits, of the model's kind.
        limit: The loss that is allowed.
        parts: How many groups are judged together.

    Returns:
        The loss; None where it is not defined: no registered value, or too few rows of a class.
    """
    value, registered = part.metrics.get(limits.metric), part.registered.get(limits.metric)
    if value is None or registered is None or part.error is None:
        return None
    sign = 1.0 if METRICS[limits.metric].better == "higher" else -1.0
    scale = 1.0 / abs(registered) if limits.relative and registered else 1.0
    estimate = sign * (registered - value) * scale
    chance = math.sqrt(1.0 + part.rows / part.registered_rows) if part.registered_rows else 1.0
    spread = _deviations(limits.confidence, parts) * part.error * chance * scale
    low, high = estimate - spread, estimate + spread
    exceeded = (estimate > limit and low > 0) if limits.loss_bound == "estimate" else low > limit
    return Loss(estimate, low, high, limit, exceeded, value, registered, registered - sign * limit / scale)


def interval_of(part: Measured, limits: Limits) -> tuple[float, float] | None:
    """The interval of the metric itself, of its own rows alone."""
    value = part.metrics.get(limits.metric)
    if value is None or part.error is None:
        return None
    spread = _deviations(limits.confidence, 1) * part.error
    return value - spread, value + spread


def judge(
    whole: Measured, slices: Sequence[Measured], windows: Sequence[Measured], limits: Limits, unpredicted: int
) -> Iterator[Finding]:
    """Holds what was measured to the limits.

    Args:
        whole: All labelled rows with a usable prediction.
        slices: Each slice.
        windows: Each window of time.
        limits: The limits, of the model's kind.
        unpredicted: Labelled rows without a usable prediction.

    Yields:
        Each finding.
    """
    few = whole.rows < limits.min_rows
    yield Finding(
        name="labelled_rows",
        exceeded=False,
        value=whole.rows,
        limit=limits.min_rows,
        reason=f"{_rows(whole.rows)} with a label and a prediction"
        + (f", fewer than the {limits.min_rows:,} from which the model is judged" if few else ""),
    )
    yield from _unpredicted(unpredicted, whole.rows, limits)
    if few:
        return
    yield _whole(whole, limits)
    for name, bounds in limits.bounds.items():
        yield _bound(name, whole.metrics.get(name), bounds)
    if slices and limits.judge_slices:
        assert limits.max_slice_loss is not None
        yield from _parts("slice", slices, limits, limits.max_slice_loss)
    if windows and limits.max_window_loss is not None:
        yield from _parts("window", windows, limits, limits.max_window_loss)


def judged_losses(parts: Sequence[Measured], limits: Limits, limit: float | None) -> dict[int, Loss]:
    """The losses of the groups that have enough rows, by their places, each held to the limit; without one none."""
    if limit is None:
        return {}
    enough = [
        place
        for place, part in enumerate(parts)
        if part.rows >= limits.min_slice_rows and part.registered_rows >= limits.min_slice_rows
    ]
    count = sum(1 for place in enough if loss_of(parts[place], limits, limit) is not None)
    losses = {place: loss_of(parts[place], limits, limit, parts=max(count, 1)) for place in enough}
    return {place: loss for place, loss in losses.items() if loss is not None}


def shown_loss(value: float, limits: Limits, *, sign: bool = False) -> str:
    """A loss as people read it: a share, or in the metric's unit."""
    if limits.relative:
        return f"{value:+.1%}" if sign else f"{value:.1%}"
    return f"{value:+.3g}" if sign else f"{value:.3g}"


def summary(
    findings: Sequence[Finding], limits: Limits, *, rows: int, labelled: int, predicted: int
) -> tuple[bool, str]:
    """Whether a model is degraded, and why, or why not, in one sentence.

    Args:
        findings: What was found.
        limits: The limits, of the model's kind.
        rows: Labelled rows with a usable prediction.
        labelled: Labelled rows.
        predicted: Rows.
    """
    exceeded = [finding for finding in findings if finding.exceeded]
    if exceeded:
        more = len(exceeded) - 1
        others = f"; and {more} other limit{'s' if more > 1 else ''} not kept" if more else ""
        return True, exceeded[0].reason + others
    if not labelled:
        return False, f"No label of the {predicted:,} predicted rows has arrived: nothing could be measured"
    if rows < limits.min_rows:
        return False, f"Not judged: {findings[0].reason}"
    return False, next(finding.reason for finding in findings if finding.name == limits.metric)


def _whole(whole: Measured, limits: Limits) -> Finding:
    assert limits.max_loss is not None
    title, value, registered = _title(limits), whole.metrics.get(limits.metric), whole.registered.get(limits.metric)
    loss = loss_of(whole, limits, limits.max_loss)
    if loss is not None:
        return Finding(
            name=limits.metric,
            exceeded=loss.exceeded,
            value=loss.value,
            limit=loss.worst,
            reason=_sentence(loss, limits, f"on {_rows(whole.rows)}"),
        )
    if value is None:
        reason = f"{title} is not defined on these rows: not judged"
    elif registered is None:
        reason = f"{title} is {format_value(value)}; what it was at registration is not known: not compared"
    else:
        reason = f"{title} varies too much on these {_rows(whole.rows)} to be judged"
    return Finding(name=limits.metric, exceeded=False, value=value, reason=reason)


def _sentence(loss: Loss, limits: Limits, where: str) -> str:
    interval = f"{shown_loss(loss.low, limits)} to {shown_loss(loss.high, limits)}"
    facts = f"{_title(limits)} {format_value(loss.value)} {where}, {format_value(loss.registered)} at registration"
    limit = shown_loss(loss.limit, limits)
    if loss.estimate <= 0:
        return f"{facts}: nothing lost"
    lost = f"{facts}: {shown_loss(loss.estimate, limits)} lost ({interval})"
    if loss.exceeded:
        return f"{lost}, more than the {limit} allowed"
    if loss.estimate <= loss.limit:
        return f"{lost}, within the {limit} allowed"
    return f"{lost}, more than the {limit} allowed, but it may be chance"


def _parts(what: str, parts: Sequence[Measured], limits: Limits, limit: float) -> Iterator[Finding]:
    losses = judged_losses(parts, limits, limit)
    worst = sorted((place for place in losses if losses[place].exceeded), key=lambda place: -losses[place].estimate)
    small = sum(1 for part in parts if part.rows < limits.min_slice_rows)
    skipped = f"; {small} with fewer than {limits.min_slice_rows:,} rows" if small else ""
    unknown = len(parts) - len(losses) - small
    skipped += f"; {unknown} without a value at registration on as many" if unknown else ""
    yield Finding(
        name=f"{what}s",
        exceeded=False,
        value=len(losses),
        reason=f"{len(losses)} of {len(parts)} {what}s judged, {len(worst)} beyond the limit{skipped}",
    )
    for place in worst:
        part, loss = parts[place], losses[place]
        yield Finding(
            name=f"{what}:{part.value}" if what == "window" else f"{what}:{part.name}={part.value}",
            exceeded=True,
            value=loss.value,
            limit=loss.worst,
            reason=f"{part.name} {part.value}: " + _sentence(loss, limits, f"on {_rows(part.rows)}"),
        )


def _bound(name: str, value: float | None, bounds: Bounds) -> Finding:
    said: Mapping[str, float] = bounds.model_dump(exclude_none=True)
    wanted = " and ".join(f"{'at least' if side == 'min' else 'at most'} {limit:g}" for side, limit in said.items())
    title = METRICS[name].title
    if value is None:
        return Finding(
            name=f"bound:{name}", exceeded=False, limit=wanted, reason=f"{title} is not defined on these rows"
        )
    below = bounds.min is not None and value < bounds.min
    above = bounds.max is not None and value > bounds.max
    return Finding(
        name=f"bound:{name}",
        exceeded=below or above,
        value=value,
        limit=bounds.max if above else bounds.min if below or bounds.max is None else wanted,
        reason=f"{title} {format_value(value)} is {'not ' if below or above else ''}{wanted}",
    )


def _unpredicted(unpredicted: int, rows: int, limits: Limits) -> Iterator[Finding]:
    allowed = limits.max_unpredicted_share
    if not unpredicted and allowed is None:
        return
    share = unpredicted / max(unpredicted + rows, 1)
    exceeded = allowed is not None and share > allowed
    more = f", more than the {allowed:.2%} allowed" if exceeded else ""
    yield Finding(
        name="rows_without_prediction",
        exceeded=exceeded,
        value=share,
        limit=allowed,
        reason=f"{_rows(unpredicted)} with a label without a usable prediction ({share:.2%}){more}",
    )


def _deviations(confidence: float, parts: int) -> float:
    """How many standard errors an interval goes to each side."""
    return statistics.NormalDist().inv_cdf(1.0 - (1.0 - confidence) / (2.0 * parts))


def _title(limits: Limits) -> str:
    return METRICS[limits.metric].title


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def means_of(kind: Kind) -> tuple[str, str]:
    """The names of what was predicted on average, and of what happened on average."""
    return {
        "binary": ("mean_probability", "base_rate"),
        "multiclass": ("mean_confidence", "accuracy"),
        "regression": ("mean_prediction", "mean_label"),
    }[kind]
