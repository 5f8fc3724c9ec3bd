"""The work of `decide_retraining`.

What is kept in `state`, in `retraining/<model>`, is only ever added, each document by an exclusive create:

- `batches/<decision id>-<evidence>`: what was found of a batch, and what the policy says of it but for the cool-down.
  It is written first, and read where it is there: who asks again, or starts again, goes on from the same moment.
- `trainings/000001` and so on: the trainings that were decided. Who wants one reads them all, the first number that is
  free last, and takes that number if none of them is too near. Whoever loses the number reads on. So of several at
  the same time, for different batches, one gets its training, and the others find it.

The answer is a function of these documents that does not change while more are added.
"""

from __future__ import annotations

import datetime as dt
import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pipeparts.components.monitoring.decide_retraining.policy import (
    Age,
    Evidence,
    Policy,
    cool_down,
    days,
    decision_id,
    evidence_of,
    guards,
    triggers,
)
from pipeparts.runtime.errors import ContractError, DataError, ServiceError, suggest
from pipeparts.runtime.monitoring import (
    Decision,
    Drift,
    Finding,
    Performance,
    history_name,
    moment_text,
    parse_moment,
    read_report,
    write_report,
)
from pipeparts.runtime.params import Params, parse_params
from pipeparts.runtime.state import State
from pipeparts.runtime.verdict import Check, Verdict

logger = logging.getLogger(__name__)

GATE = "decide_retraining"


class Judged(Params):
    """What is kept of a batch.

    Attributes:
        format: The contract's name and version.
        evidence: What was found.
        decision: What the policy says of it; `retrain` where only the cool-down can still hold it back.
    """

    format: Literal["pipeparts.judged_batch/1"] = "pipeparts.judged_batch/1"
    evidence: Evidence
    decision: Decision


class Training(Params):
    """What is kept of a training that was decided.

    Attributes:
        format: The contract's name and version.
        id: The decision's.
        as_of: The moment that it was decided for.
        model: The model that was looked at.
        batch: The batch that was looked at.
    """

    format: Literal["pipeparts.decided_training/1"] = "pipeparts.decided_training/1"
    id: str
    as_of: str
    model: str
    batch: str


def decide_retraining(
    *,
    drift_path: str | os.PathLike[str],
    decision_path: str | os.PathLike[str],
    verdict_path: str | os.PathLike[str],
    verdict_text_path: str | os.PathLike[str],
    performance_path: str | os.PathLike[str] | None = None,
    policy: Mapping[str, Any] | None = None,
    as_of: str = "",
    time_column: str = "",
    state: str = "",
    tracking_uri: str = "",
) -> Decision:
    """Decides whether a model is to be trained again, and keeps the decision.

    Args:
        drift_path: The drift report (JSON).
        decision_path: Where the decision (JSON) goes.
        verdict_path: Where the verdict (JSON) goes.
        verdict_text_path: Where the verdict for people goes.
        performance_path: The performance report (JSON), where labels have arrived.
        policy: See `Policy`.
        as_of: The moment to decide for; empty: now.
        time_column: The column whose latest value is the end of the training data; empty: the model's age counts
            from its registration.
        state: Where decisions are kept; empty: in the folder of local runs.
        tracking_uri: The registry, for the model's age; empty: the environment's MLFLOW_TRACKING_URI.

    Returns:
        The decision.

    Raises:
        InputError: For a policy, a moment or a state that is not one.
        DataError: Where the training data has no such column of times.
        ContractError: Where a report or what is kept is damaged, or the reports are of different models.
        ServiceError: Where the state or the registry does not answer.
    """
    rules = parse_params(Policy, policy, parameter="policy")
    moment = parse_moment(as_of)
    drift = read_report(Drift, drift_path)
    performance = read_report(Performance, performance_path) if performance_path is not None else None
    model = _model(drift, performance)
    kept = _Kept(State(state), history_name(model, drift.reference.fingerprint))
    evidence = evidence_of(drift, performance)
    identity = decision_id(model, drift.current.fingerprint, rules)
    judged = kept.judged(identity, evidence)
    if judged is None:
        judged = _judge(kept, rules, identity, moment, model, drift, performance, time_column, tracking_uri)
        judged = kept.keep(judged)
    else:
        logger.info("this batch was judged before, as of %s", judged.decision.as_of)
    decision = _held_apart(kept, rules, judged.decision)
    decided = verdict(decision)
    write_report(decision_path, decision)
    decided.write(verdict_path, verdict_text_path)
    logger.info("%s: %s", "train again" if decision.retrain else "the model stays", " ".join(decision.reasons))
    return decision


def verdict(decision: Decision) -> Verdict:
    """A decision as a verdict: passed where the model may stay."""
    holding = [guard.name for guard in decision.guards if guard.exceeded]
    checks = []
    for trigger in decision.triggers:
        reason = trigger.reason
        if trigger.exceeded and not decision.retrain:
            reason += f" Held back by: {', '.join(holding)}."
        passed = not (trigger.exceeded and decision.retrain)
        checks.append(Check(trigger.name, passed, trigger.value, trigger.limit, reason))
    checks += [Check(guard.name, True, guard.value, guard.limit, guard.reason) for guard in decision.guards]
    answer = "it is to be trained again" if decision.retrain else "it may stay"
    name = decision.model or "the model"
    return Verdict(
        gate=GATE, subject=f"{name} as of {decision.as_of}, batch {decision.batch[:12]}: {answer}", checks=tuple(checks)
    )


class _Kept:
    """What is kept of one model, all its versions together."""

    def __init__(self, state: State, name: str) -> None:
        self._state = state
        self._folder = f"retraining/{name}"

    def judged(self, identity: str, evidence: Evidence) -> Judged | None:
        """What was kept of this batch, policy and evidence."""
        return self._state.read_as(Judged, self._name(identity, evidence))

    def keep(self, judged: Judged) -> Judged:
        """Keeps it, unless another run that asks the same was faster: then it is what that one kept."""
        name = self._name(judged.decision.id, judged.evidence)
        if self._state.create(name, judged.model_dump(mode="json")):
            return judged
        return self._state.read_as(Judged, name) or judged

    def batches(self) -> list[Judged]:
        """All that was kept, in no order that means anything."""
        found = (self._state.read_as(Judged, name) for name in self._state.names(f"{self._folder}/batches"))
        return [judged for judged in found if judged is not None]

    def training(self, number: int) -> Training | None:
        """The training of this number, counted from 1."""
        return self._state.read_as(Training, self._training(number))

    def taken(self, number: int) -> Training:
        """The training of a number that somebody else was faster to take."""
        found = self.training(number)
        if found is None:
            raise ServiceError(
                "the state does not show what was written to it",
                parameter="state",
                where=self._state.place,
                allowed="storage that shows a document to every reader once it is written",
                received=f"{self._training(number)}: taken, and not there",
            )
        return found

    def take(self, number: int, training: Training) -> bool:
        """Takes a number, if it is still free."""
        return self._state.create(self._training(number), training.model_dump(mode="json"))

    def _name(self, identity: str, evidence: Evidence) -> str:
        return f"{self._folder}/batches/{identity}-{evidence.digest}"

    def _training(self, number: int) -> str:
        return f"{self._folder}/trainings/{number:06d}"


def _model(drift: Drift, performance: Performance | None) -> str:
    """The model that the reports are of."""
    if performance is None or not drift.model:
        return performance.model if performance and not drift.model else drift.model
    named = [model.startswith("models:/") for model in (drift.model, performance.model)]
    # A version and a fingerprint may be the same model.
    if drift.model != performance.model and named[0] == named[1]:
        raise ContractError(
            "the reports are of different models",
            parameter="performance",
            allowed=f"a report of {drift.model}, as the drift report is",
            received=performance.model,
        )
    return drift.model


def _judge(
    kept: _Kept,
    policy: Policy,
    identity: str,
    moment: dt.datetime,
    model: str,
    drift: Drift,
    performance: Performance | None,
    time_column: str,
    tracking_uri: str,
) -> Judged:
    """What the policy says of a batch, but for the cool-down."""
    evidence = evidence_of(drift, performance)
    batch = drift.current.fingerprint
    age = _age(model, moment, time_column, tracking_uri) if policy.max_age_days is not None else None
    asked = tuple(triggers(policy, drift, performance, age))
    by_age = any(trigger.exceeded and trigger.name == "model_age_days" for trigger in asked)
    recent = _recent(kept.batches(), model, batch, moment) if policy.patience > 1 else []
    holding = tuple(guards(policy, evidence, [*recent, evidence], by_age=by_age))
    retrain = any(trigger.exceeded for trigger in asked) and not any(guard.exceeded for guard in holding)
    decision = Decision(
        id=identity,
        retrain=retrain,
        as_of=moment_text(moment),
        model=model,
        batch=batch,
        reasons=_reasons(asked, holding),
        triggers=asked,
        guards=holding,
    )
    return Judged(evidence=evidence, decision=decision)


def _recent(judged: list[Judged], model: str, batch: str, moment: dt.datetime) -> list[Evidence]:
    """The evidence of this model version's other batches up to a moment, the latest last; of each the fullest."""
    latest: dict[str, tuple[str, int, str, Evidence]] = {}
    limit = moment_text(moment)
    for item in judged:
        decision, evidence = item.decision, item.evidence
        if decision.model != model or decision.batch == batch or decision.as_of > limit:
            continue
        # A batch is judged again when its labels arrive; its place is where it was judged first.
        known = latest.get(decision.batch)
        first = min(decision.as_of, known[0]) if known else decision.as_of
        fullest = max(
            [(evidence.rows_labelled, evidence.digest, evidence)] + ([known[1:]] if known else []),
            key=lambda entry: entry[:2],
        )
        latest[decision.batch] = (first, *fullest)
    return [entry[3] for _, entry in sorted(latest.items(), key=lambda entry: (entry[1][0], entry[0]))]


def _reasons(asked: tuple[Finding, ...], holding: tuple[Finding, ...]) -> tuple[str, ...]:
    """What speaks for it, then what holds it back; where nothing speaks for it, what was looked at."""
    speaking = [trigger.reason for trigger in asked if trigger.exceeded]
    if not speaking:
        return tuple(trigger.reason for trigger in asked)
    return (*speaking, *(guard.reason for guard in holding if guard.exceeded))


def _held_apart(kept: _Kept, policy: Policy, decision: Decision) -> Decision:
    """The decision, once the cool-down is looked at: a training that is wanted is taken, or too near to another."""
    if not decision.retrain:
        return decision
    near = _take_training(kept, policy, decision)
    if not policy.cool_down_days:
        return decision
    guard = cool_down(policy, _moment(decision), None if near is None else (_moment(near), near.batch))
    reasons = (*decision.reasons, guard.reason) if near else decision.reasons
    return decision.model_copy(
        update={"retrain": near is None, "guards": (*decision.guards, guard), "reasons": reasons}
    )


def _take_training(kept: _Kept, policy: Policy, decision: Decision) -> Training | None:
    """Takes the next training, unless this decision has one already; the first that is too near where there is one."""
    mine = Training(id=decision.id, as_of=decision.as_of, model=decision.model, batch=decision.batch)
    period = dt.timedelta(days=policy.cool_down_days)
    near: Training | None = None
    for number in itertools.count(1):
        other = kept.training(number)
        if other is None:
            if near is not None:
                return near
            if kept.take(number, mine):
                return None
            other = kept.taken(number)
        if other.id == decision.id:
            return near  # what was held back stays so, even if the same batch got its training by later evidence
        if near is None and abs(_moment(other) - _moment(decision)) < period:
            near = other
    raise AssertionError("counting does not end")


def _moment(record: Decision | Training) -> dt.datetime:
    return parse_moment(record.as_of)


def _age(model: str, moment: dt.datetime, time_column: str, tracking_uri: str) -> Age:
    """How old a model is: since the end of its training data, or since its registration."""
    if not model.startswith("models:/"):
        return Age(None, "The model's age is not known: it does not come from a registry")
    if time_column:
        end = _end_of_training_data(model, time_column, tracking_uri)
        if end is not None:
            return Age(_days_between(end, moment), f"The model's training data ends {_ago(end, moment)}")
    end = _registration(model, tracking_uri)
    return Age(_days_between(end, moment), f"The model was registered {_ago(end, moment)}")


def _end_of_training_data(model: str, time_column: str, tracking_uri: str) -> dt.datetime | None:
    """The latest time in the training data; None where the model brings no profile of it, or no time is in it."""
    from pipeparts.runtime.models import PROFILE_FILE
    from pipeparts.runtime.profiles import read_profile
    from pipeparts.runtime.registered_models import open_model

    with open_model(model, tracking_uri, files=[PROFILE_FILE], parameter="drift") as folder:
        if not (Path(folder) / PROFILE_FILE).is_file():
            logger.warning("%s brings no profile of its training data: its age counts from its registration", model)
            return None
        profile = read_profile(Path(folder) / PROFILE_FILE)
    columns = {
        column.name: column.times
        for column in profile.columns
        if column.times and column.times.form in ("date", "timestamp")
    }
    if time_column not in columns:
        there = time_column in profile.names
        raise DataError(
            f"not a column of {'times' if there else 'the training data'}",
            parameter="time_column",
            where=f"the training data of {model}",
            allowed=sorted(columns) or "an empty text: the training data has no column of times",
            received=f"{time_column}, of type {profile.column(time_column).type}" if there else time_column,
            hint=suggest(time_column, columns) or "leave it empty to count the model's age from its registration",
        )
    latest = columns[time_column].maximum
    try:
        return parse_moment(latest) if latest else None
    except ValueError:
        logger.warning(
            "the training data of %s ends at %s, which is no date: counting from registration", model, latest
        )
        return None


def _registration(model: str, tracking_uri: str) -> dt.datetime:
    """When a version was registered."""
    from pipeparts.runtime import mlflow_registry

    registry = mlflow_registry.connect(tracking_uri, create=False)
    name, number = model.removeprefix("models:/").rsplit("/", 1)
    version = registry.version(name, number) if registry else None
    if version is None:
        raise ContractError("the registry has no such version", parameter="drift", received=model)
    return dt.datetime.fromtimestamp(int(version.creation_timestamp) // 1000, dt.UTC)


def _days_between(begin: dt.datetime, end: dt.datetime) -> float:
    return (end - begin).total_seconds() / 86_400


def _ago(begin: dt.datetime, moment: dt.datetime) -> str:
    distance = _days_between(begin, moment)
    return f"{begin:%Y-%m-%d}, {days(abs(distance))} {'before' if distance >= 0 else 'after'} {moment:%Y-%m-%d}"
