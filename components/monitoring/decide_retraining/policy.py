"""The policy of `decide_retraining`, and what it says of the evidence alone: no clock, no storage, no registry."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import pydantic

from pipeparts.runtime.monitoring import Drift, Finding, Performance
from pipeparts.runtime.params import Params
from pipeparts.runtime.verdict import format_value

_LONGEST_DAYS = 36_500


class Policy(Params):
    """When a model is to be trained again.

    Attributes:
        on_drift: What of the drift report speaks for a training: "drift" (its answer as a whole), "prediction_drift"
            (that of the predictions alone); any of them. Empty: drift never does.
        max_share_drifted: A greater share of drifted columns speaks for it too, whatever the report's own limits.
        on_performance: Whether a loss of performance does. Labels may arrive later: without them it does not.
        require: "any" or "all" of drift and performance have to speak for it.
        max_age_days: An older model is trained again, whatever drift and performance say; None: never for its age.
        min_rows: A batch with fewer rows decides nothing, and performance on fewer labelled rows does not count. By
            chance alone the PSI of two samples is about (bins - 1)(1/n + 1/m) (Yurdakul, "Statistical Properties of
            Population Stability Index", 2018): for 1,000 rows and 10 bins 0.01, a tenth of the usual limit; and the
            standard error of a ROC AUC of 0.7 about 0.02 (Hanley and McNeil, 1982, with a fifth of positives).
        min_labelled_rows: No training before so many labelled rows have arrived: less is not worth training on.
        cool_down_days: Days from one training that was decided to the next, in terms of `as_of`. A week shows the
            new model on each day of the week.
        patience: How many batches in a row have to speak for it, this one included. One: each by itself.
    """

    on_drift: tuple[Literal["drift", "prediction_drift"], ...] = ("drift",)
    max_share_drifted: float | None = pydantic.Field(None, ge=0, le=1, allow_inf_nan=False)
    on_performance: bool = True
    require: Literal["any", "all"] = "any"
    max_age_days: float | None = pydantic.Field(None, gt=0, le=_LONGEST_DAYS, allow_inf_nan=False)
    min_rows: int = pydantic.Field(1000, ge=0)
    min_labelled_rows: int = pydantic.Field(0, ge=0)
    cool_down_days: float = pydantic.Field(7.0, ge=0, le=_LONGEST_DAYS, allow_inf_nan=False)
    patience: int = pydantic.Field(1, ge=1)

    @pydantic.model_validator(mode="after")
    def _can_retrain(self) -> Policy:
        if not (self.watches_drift or self.on_performance or self.max_age_days is not None):
            raise ValueError("at least one of on_drift, max_share_drifted, on_performance and max_age_days")
        return self

    @property
    def watches_drift(self) -> bool:
        """Whether drift can speak for a training."""
        return bool(self.on_drift) or self.max_share_drifted is not None


class Evidence(Params):
    """What was found of a batch, as far as a policy may ask for it.

    Attributes:
        rows: Of the batch.
        drifted: Whether it drifted as a whole.
        prediction_drift: Whether the predictions drifted; None where that was not measured.
        share_drifted: The share of drifted columns.
        degraded: Whether the performance is lost; None where no labels have arrived.
        rows_labelled: Rows whose label has arrived.
    """

    rows: int
    drifted: bool
    prediction_drift: bool | None
    share_drifted: float
    degraded: bool | None
    rows_labelled: int

    @property
    def digest(self) -> str:
        """Of the content: the same evidence is the same question."""
        return hash_of(self.model_dump(mode="json"))[:12]


class Age(NamedTuple):
    """How old a model is.

    Attributes:
        days: None where it cannot be known.
        reason: Since when, or why it cannot be known, in one sentence.
    """

    days: float | None
    reason: str


def evidence_of(drift: Drift, performance: Performance | None) -> Evidence:
    """What the two reports say."""
    prediction = next((finding for finding in drift.findings if finding.name == "prediction_drift"), None)
    measured = prediction is not None and (prediction.exceeded or prediction.value is not None)
    return Evidence(
        rows=drift.current.rows,
        drifted=drift.drifted,
        prediction_drift=prediction.exceeded if prediction and measured else None,
        share_drifted=drift.share_drifted,
        degraded=performance.degraded if performance else None,
        rows_labelled=performance.rows_labelled if performance else 0,
    )


def decision_id(model: str, batch: str, policy: Policy) -> str:
    """The same for the same model, batch and policy: 32 hexadecimal digits."""
    return hash_of(["pipeparts.decision/1", model, batch, policy.model_dump(mode="json")])[:32]


def hash_of(document: Any) -> str:
    """The SHA-256 of a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode()).hexdigest()


def drift_speaks(policy: Policy, evidence: Evidence) -> bool:
    """Whether drift speaks for a training."""
    return (
        ("drift" in policy.on_drift and evidence.drifted)
        or ("prediction_drift" in policy.on_drift and evidence.prediction_drift is True)
        or (policy.max_share_drifted is not None and evidence.share_drifted > policy.max_share_drifted)
    )


def performance_speaks(policy: Policy, evidence: Evidence) -> bool:
    """Whether performance speaks for a training: measured on enough rows, that is."""
    return policy.on_performance and evidence.degraded is True and evidence.rows_labelled >= policy.min_rows


def speaks(policy: Policy, evidence: Evidence) -> bool | None:
    """Whether a batch speaks for a training; None where it has too few rows to say anything."""
    if evidence.rows < policy.min_rows:
        return None
    asked = [drift_speaks(policy, evidence)] if policy.watches_drift else []
    asked += [performance_speaks(policy, evidence)] if policy.on_performance else []
    return bool(asked) and (all(asked) if policy.require == "all" else any(asked))


def streak(policy: Policy, evidence: Sequence[Evidence]) -> int:
    """How many batches at the end of a row of batches, the latest last, speak for a training.

    Batches with too few rows to say anything are passed over.
    """
    length = 0
    for answer in (speaks(policy, item) for item in reversed(evidence)):
        if answer is False:
            break
        length += answer is True
    return length


def triggers(policy: Policy, drift: Drift, performance: Performance | None, age: Age | None) -> Iterator[Finding]:
    """What can call for a training, as far as the policy asks for it."""
    evidence = evidence_of(drift, performance)
    if policy.watches_drift:
        yield _drift_trigger(policy, drift, evidence)
    if policy.on_performance:
        yield _performance_trigger(policy, performance, evidence)
    if policy.max_age_days is not None and age is not None:
        exceeded = age.days is not None and age.days > policy.max_age_days
        rule = f"the policy allows {days(policy.max_age_days)}"
        yield Finding(
            name="model_age_days",
            exceeded=exceeded,
            value=None if age.days is None else round(age.days, 3),
            limit=policy.max_age_days,
            reason=sentence(age.reason if age.days is None else f"{age.reason}; {rule}"),
        )


def guards(policy: Policy, evidence: Evidence, recent: Sequence[Evidence], *, by_age: bool) -> Iterator[Finding]:
    """What can hold a training back, but for the cool-down.

    Args:
        policy: The policy.
        evidence: Of this batch.
        recent: Of the batches of this model version up to this one, which is the last.
        by_age: Whether the model's age calls for a training: that needs neither company nor patience.
    """
    if policy.min_rows:
        yield _volume("rows", evidence.rows, policy.min_rows, "The batch has {} rows")
    if policy.min_labelled_rows:
        text = "Labels have arrived for {} rows" if evidence.rows_labelled else "No labels have arrived yet"
        yield _volume("labelled_rows", evidence.rows_labelled, policy.min_labelled_rows, text)
    speaking = [drift_speaks(policy, evidence), performance_speaks(policy, evidence)]
    if policy.require == "all" and policy.watches_drift and policy.on_performance:
        alone = "Drift" if speaking[0] else "Performance"
        held = any(speaking) and not all(speaking) and not by_age
        both = "Both drift and performance speak" if all(speaking) else "Neither drift nor performance speaks"
        yield Finding(
            name="require",
            exceeded=held,
            value=sum(speaking),
            limit=2,
            reason=f"{alone} alone speaks for a training; the policy requires both drift and performance to."
            if any(speaking) and not all(speaking)
            else f"{both} for a training.",
        )
    if policy.patience > 1:
        length = streak(policy, recent)
        yield Finding(
            name="patience",
            exceeded=0 < length < policy.patience and not by_age,
            value=length,
            limit=policy.patience,
            reason=f"{_in_a_row(length)} for a training; the policy waits for {policy.patience:,} in a row.",
        )


def cool_down(policy: Policy, as_of: dt.datetime, other: tuple[dt.datetime, str] | None) -> Finding:
    """The guard that keeps trainings apart.

    Args:
        policy: The policy.
        as_of: The moment that is decided for.
        other: The moment and the batch of a training that is too near, or None.
    """
    reason, distance = f"No other training was decided within {days(policy.cool_down_days)}.", None
    if other is not None:
        distance = abs((as_of - other[0]).total_seconds()) / 86_400
        when = (
            "at the same moment" if not distance else f"{days(distance)} {'earlier' if other[0] < as_of else 'later'}"
        )
        reason = (
            f"A training was decided {when}, as of {other[0]:%Y-%m-%d %H:%M} UTC (batch {other[1][:12]});"
            f" the policy keeps {days(policy.cool_down_days)} between two."
        )
    return Finding(
        name="cool_down_days",
        exceeded=other is not None,
        value=None if distance is None else round(distance, 3),
        limit=policy.cool_down_days,
        reason=reason,
    )


def _drift_trigger(policy: Policy, drift: Drift, evidence: Evidence) -> Finding:
    named = {finding.name: finding for finding in drift.findings}
    counted = [finding for finding in drift.findings if finding.exceeded] if "drift" in policy.on_drift else []
    prediction = named.get("prediction_drift")
    if "prediction_drift" in policy.on_drift and prediction and prediction.exceeded and prediction not in counted:
        counted.append(prediction)
    reasons = [drift.reason] if "drift" in policy.on_drift else []
    if not reasons and "prediction_drift" in policy.on_drift:
        reasons = [prediction.reason if prediction else "The drift of the predictions was not measured"]
    over = policy.max_share_drifted is not None and drift.share_drifted > policy.max_share_drifted
    if policy.max_share_drifted is not None and (over or not reasons):
        relation = "more than" if over else "not more than"
        limit = f"the {policy.max_share_drifted:.0%} that the policy allows"
        reasons.append(f"{drift.share_drifted:.0%} of the columns drifted, {relation} {limit}")
    shown = counted[0] if counted else named.get("share_drifted")
    if over and not counted:
        shown = None
    return Finding(
        name="drift",
        exceeded=drift_speaks(policy, evidence),
        value=shown.value if shown else drift.share_drifted,
        limit=shown.limit if shown else policy.max_share_drifted,
        reason=" ".join(sentence(reason) for reason in reasons if reason.strip()) or "The data has not drifted.",
    )


def _performance_trigger(policy: Policy, performance: Performance | None, evidence: Evidence) -> Finding:
    if performance is None:
        return Finding(name="performance", exceeded=False, reason="No labels have arrived yet for this batch.")
    exceeded = performance_speaks(policy, evidence)
    lost = [finding for finding in performance.findings if finding.exceeded]
    shown = next(
        iter([*lost, *(finding for finding in performance.findings if finding.name == performance.metric)]), None
    )
    reason = sentence(performance.reason or f"{performance.metric} is within its limits")
    if performance.degraded and not exceeded:
        reason += (
            f" It was measured on {performance.rows_labelled:,} labelled rows alone,"
            f" and does not count below {policy.min_rows:,}."
        )
    return Finding(
        name="performance",
        exceeded=exceeded,
        value=shown.value if shown else performance.metrics.get(performance.metric),
        limit=shown.limit if shown else performance.registered.get(performance.metric),
        reason=reason,
    )


def _volume(name: str, value: int, limit: int, text: str) -> Finding:
    relation = "fewer than" if value < limit else "not fewer than"
    reason = f"{text.format(f'{value:,}')}, {relation} the {limit:,} that the policy wants for a training."
    return Finding(name=name, exceeded=value < limit, value=value, limit=limit, reason=reason)


def days(number: float) -> str:
    """A number of days as people read it."""
    return f"{format_value(round(number, 1))} {'day' if number == 1 else 'days'}"


def sentence(text: str) -> str:
    """A text as one sentence: a capital first, a full stop last."""
    text = text.strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _in_a_row(length: int) -> str:
    if length == 0:
        return "No batch speaks"
    return "Only this batch speaks" if length == 1 else f"The last {length:,} batches speak"
