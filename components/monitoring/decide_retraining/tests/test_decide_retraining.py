"""Tests of the logic of `decide_retraining`."""

import contextlib
import datetime as dt
import itertools
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeparts.components.monitoring.decide_retraining import logic
from pipeparts.components.monitoring.decide_retraining.logic import decide_retraining
from pipeparts.components.monitoring.decide_retraining.policy import Evidence, Policy, speaks, streak
from pipeparts.errors import ContractError, DataError, InputError, ServiceError
from pipeparts.runtime import mlflow_registry
from pipeparts.runtime.monitoring import Decision, read_report
from pipeparts.runtime.state import State
from pipeparts.runtime.verdict import read_verdict
from tests.mlflow_services import write_model
from tests.monitoring_batches import fingerprint, make_drift, make_performance, write

ROOT = Path(__file__).parents[4]
SEPTEMBER = "2013-09-01"


class Desk:
    """A place where decisions are asked for, with a state of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.state = str(folder / "state")

    def ask(self, drift=None, performance=None, **arguments):
        paths = {
            "drift_path": write(self.folder, "drift", drift or make_drift()),
            "performance_path": write(self.folder, "performance", performance) if performance else None,
            "decision_path": self.folder / "decision.json",
            "verdict_path": self.folder / "verdict.json",
            "verdict_text_path": self.folder / "verdict.md",
        }
        return decide_retraining(**paths, **{"state": self.state, "as_of": SEPTEMBER} | arguments)

    @property
    def verdict(self):
        return read_verdict(self.folder / "verdict.json")

    def bytes(self):
        return [(self.folder / name).read_bytes() for name in ("decision.json", "verdict.json", "verdict.md")]

    def documents(self, folder):
        return State(self.state).names(f"retraining/late_flights/{folder}")


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def named(findings):
    return {finding.name: finding for finding in findings}


# ---- What speaks for a training ----------------------------------------------------------------------------------


def test_without_drift_the_model_stays(desk):
    decision = desk.ask(make_drift(share=0.1), make_performance())
    assert not decision.retrain
    assert decision.model == "models:/late_flights/1"
    assert decision.batch == fingerprint("2013-08")
    assert decision.as_of == "2013-09-01T00:00:00Z"
    assert decision.reasons == ("No limit was passed.", "ROC AUC is 0.71, -0.002 below the registered 0.708.")
    assert read_report(Decision, desk.folder / "decision.json") == decision
    assert desk.verdict.passed
    assert desk.verdict.subject.endswith("it may stay")
    assert [check.name for check in desk.verdict.checks] == ["drift", "performance", "rows"]
    assert desk.documents("trainings") == []


def test_drift_calls_for_a_training(desk):
    decision = desk.ask(make_drift(share=0.64))
    assert decision.retrain
    assert decision.reasons == ("64% of the columns drifted, the limit is 50%.",)
    drift = named(decision.triggers)["drift"]
    assert (drift.exceeded, drift.value, drift.limit) == (True, 0.64, 0.5)
    assert named(decision.triggers)["performance"].reason == "No labels have arrived yet for this batch."
    assert not desk.verdict.passed
    assert [check.name for check in desk.verdict.failures] == ["drift"]
    assert "to be trained again" in (desk.folder / "verdict.md").read_text()
    assert len(desk.documents("trainings")) == 1


def test_lost_performance_calls_for_a_training(desk):
    decision = desk.ask(performance=make_performance(0.65))
    assert decision.retrain
    assert decision.reasons == ("ROC AUC is 0.65, 0.058 below the registered 0.708.",)
    assert named(decision.triggers)["performance"].limit == 0.02


@pytest.mark.parametrize(
    ("policy", "share", "prediction_psi", "expected"),
    [
        ({}, 0.6, 0.0, True),
        ({}, 0.1, 0.3, True),  # the report as a whole
        ({"on_drift": ["prediction_drift"]}, 0.6, 0.0, False),
        ({"on_drift": ["prediction_drift"]}, 0.1, 0.3, True),
        ({"on_drift": ["prediction_drift"]}, 0.6, None, False),
        ({"on_drift": ["drift", "prediction_drift"]}, 0.6, 0.0, True),
        ({"on_drift": []}, 0.6, 0.3, False),
        ({"on_drift": [], "max_share_drifted": 0.2}, 0.3, 0.0, True),
        ({"on_drift": [], "max_share_drifted": 0.3}, 0.3, 0.3, False),
        ({"on_drift": ["prediction_drift"], "max_share_drifted": 0.2}, 0.3, 0.0, True),
    ],
)
def test_the_policy_says_what_of_the_drift_counts(desk, policy, share, prediction_psi, expected):
    decision = desk.ask(make_drift(share=share, prediction_psi=prediction_psi), policy=policy)
    assert decision.retrain is expected
    trigger = named(decision.triggers).get("drift")
    if trigger:
        assert trigger.exceeded is expected
        assert re.fullmatch(r"([A-Z0-9].+\.)", trigger.reason)
        if expected:
            assert trigger.value > trigger.limit
    else:
        assert not policy["on_drift"]


def test_a_share_over_the_policys_own_limit_is_said(desk):
    policy = {"on_drift": ["prediction_drift"], "max_share_drifted": 0.2}
    trigger = named(desk.ask(make_drift(share=0.3), policy=policy).triggers)["drift"]
    assert (trigger.value, trigger.limit) == (0.3, 0.2)
    assert trigger.reason.endswith("30% of the columns drifted, more than the 20% that the policy allows.")
    desk.ask(make_drift(prediction_psi=None), policy={"on_drift": ["prediction_drift"], "patience": 2})
    assert "The drift of the predictions was not measured." in (desk.folder / "verdict.md").read_text()


@pytest.mark.parametrize(
    ("share", "value", "expected"), [(0.6, 0.65, True), (0.6, 0.71, False), (0.1, 0.65, False), (0.1, 0.71, False)]
)
def test_both_may_be_required(desk, share, value, expected):
    decision = desk.ask(make_drift(share=share), make_performance(value), policy={"require": "all"})
    assert decision.retrain is expected
    alone = {(0.6, 0.71): "Drift alone speaks", (0.1, 0.65): "Performance alone speaks"}.get((share, value))
    assert any(reason.startswith(alone or "no") for reason in decision.reasons) is (alone is not None)
    assert desk.verdict.passed is not expected


def test_of_what_is_not_asked_all_is_not_required(desk):
    policy = {"require": "all", "on_performance": False}
    assert desk.ask(make_drift(share=0.6), make_performance(), policy=policy).retrain
    assert not desk.ask(make_drift(share=0.6), policy={"require": "all"}, as_of="2014-01-01").retrain


# ---- Volume -------------------------------------------------------------------------------------------------------


def test_too_few_rows_decide_nothing(desk):
    decision = desk.ask(make_drift(share=0.9, rows=999))
    assert not decision.retrain
    guard = named(decision.guards)["rows"]
    assert (guard.exceeded, guard.value, guard.limit) == (True, 999, 1000)
    assert decision.reasons[1] == "The batch has 999 rows, fewer than the 1,000 that the policy wants for a training."
    assert desk.verdict.checks[0].reason.endswith("Held back by: rows.")
    assert desk.ask(make_drift(share=0.9, rows=999), policy={"min_rows": 0}).retrain


def test_performance_on_too_few_labels_does_not_count(desk):
    decision = desk.ask(performance=make_performance(0.5, rows_labelled=500))
    assert not decision.retrain
    assert "measured on 500 labelled rows alone, and does not count below 1,000" in decision.reasons[1]


@pytest.mark.parametrize("labelled", [None, 0, 4_999, 5_000])
def test_a_training_may_wait_for_labels(desk, labelled):
    performance = None if labelled is None else make_performance(0.6, rows_labelled=labelled)
    decision = desk.ask(make_drift(share=0.9), performance, policy={"min_labelled_rows": 5_000})
    assert decision.retrain is (labelled == 5_000)
    guard = named(decision.guards)["labelled_rows"]
    assert guard.value == (labelled or 0)
    assert guard.reason.startswith("Labels have arrived for" if labelled else "No labels have arrived yet, fewer than")


# ---- Once, with the same answer -----------------------------------------------------------------------------------


def test_asked_again_the_answer_and_the_bytes_are_the_same(desk):
    for share in (0.1, 0.6):
        drift = make_drift(f"batch {share}", share=share)
        first = desk.ask(drift)
        written = desk.bytes()
        for as_of in (SEPTEMBER, "2013-09-03", "2020-01-01", ""):
            assert desk.ask(drift, as_of=as_of) == first
            assert desk.bytes() == written
    assert len(desk.documents("trainings")) == 1


def test_the_id_says_model_batch_and_policy(desk):
    ids = [
        desk.ask(make_drift(*batch, model=model), policy=policy, as_of=as_of).id
        for batch in ([], ["2013-09"])
        for model in ("models:/late_flights/1", "models:/late_flights/2")
        for policy in (None, {"patience": 2})
        for as_of in (SEPTEMBER, "2013-12-01")
    ]
    assert len(set(ids)) == 8
    assert ids[0::2] == ids[1::2]
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in ids)
    assert desk.ask(policy={"patience": 1, "min_rows": 1000.0}).id == desk.ask(policy={}).id


def test_labels_that_arrive_later_are_another_question_with_the_same_id(desk):
    early = desk.ask()
    assert not early.retrain
    late = desk.ask(performance=make_performance(0.6))
    assert late.retrain
    assert late.id == early.id
    assert desk.ask() == early
    more = desk.ask(performance=make_performance(0.61, rows_labelled=20_000), as_of="2013-09-20")
    assert more.retrain, "this batch has its training: it is the same one"
    assert more.id == early.id
    assert len(desk.documents("trainings")) == 1


def test_a_run_that_is_killed_after_the_decision_goes_on(desk, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    for step in ("write_report", "_held_apart"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(logic, step, killed)
            desk.ask(make_drift(step, share=0.6), as_of="2013-09-01", policy={"cool_down_days": 0})
        decision = desk.ask(make_drift(step, share=0.6), as_of="2013-09-02", policy={"cool_down_days": 0})
        assert decision.retrain
        assert decision.as_of == "2013-09-01T00:00:00Z"
    assert len(desk.documents("trainings")) == 2


# ---- Cool-down ------------------------------------------------------------------------------------------------------


def test_the_cool_down_holds_back_and_says_so(desk):
    assert desk.ask(make_drift("a", share=0.6), as_of="2013-09-01").retrain
    decision = desk.ask(make_drift("b", share=0.7), as_of="2013-09-04T12:00:00")
    assert not decision.retrain
    guard = named(decision.guards)["cool_down_days"]
    assert (guard.exceeded, guard.value, guard.limit) == (True, 3.5, 7)
    batch = fingerprint("a")[:12]
    assert decision.reasons == (
        "70% of the columns drifted, the limit is 50%.",
        f"A training was decided 3.5 days earlier, as of 2013-09-01 00:00 UTC (batch {batch});"
        " the policy keeps 7 days between two.",
    )
    assert desk.verdict.passed
    assert desk.verdict.checks[0].reason.endswith("Held back by: cool_down_days.")
    assert not desk.ask(make_drift("c", share=0.7), as_of="2013-09-07T23:59:59").retrain
    assert desk.ask(make_drift("d", share=0.7), as_of="2013-09-08").retrain
    assert len(desk.documents("trainings")) == 2


def test_a_replay_of_the_past_keeps_its_distance_to_the_future(desk):
    assert desk.ask(make_drift("a", share=0.6), as_of="2013-09-10").retrain
    decision = desk.ask(make_drift("b", share=0.6), as_of="2013-09-08")
    assert not decision.retrain
    assert "2 days later" in decision.reasons[-1]
    assert desk.ask(make_drift("c", share=0.6), as_of="2013-08-01").retrain


def test_the_cool_down_holds_across_versions_and_policies_but_not_models(desk):
    assert desk.ask(make_drift("a", share=0.6)).retrain
    assert not desk.ask(make_drift("b", share=0.6, model="models:/late_flights/2")).retrain
    assert not desk.ask(make_drift("b", share=0.6), policy={"min_rows": 1}).retrain
    assert desk.ask(make_drift("b", share=0.6, model="models:/other/1")).retrain
    assert desk.ask(make_drift("b", share=0.6, model="ab" * 16)).retrain
    assert desk.ask(make_drift("b", share=0.6, model="")).retrain
    assert desk.ask(make_drift("b", share=0.6), policy={"cool_down_days": 0}).retrain


def test_what_was_held_back_stays_held_back(desk):
    assert desk.ask(make_drift("a", share=0.6), as_of="2013-09-01").retrain
    held = desk.ask(make_drift("b", share=0.6), as_of="2013-09-05")
    assert desk.ask(make_drift("c", share=0.6), as_of="2013-09-10").retrain
    assert desk.ask(make_drift("b", share=0.6), as_of="2013-10-05") == held
    labelled = desk.ask(make_drift("b", share=0.6), make_performance(0.6), as_of="2013-11-01")
    assert (labelled.retrain, labelled.id) == (True, held.id)
    assert desk.ask(make_drift("b", share=0.6), as_of="2013-12-01") == held


# ---- Patience -------------------------------------------------------------------------------------------------------


def test_patience_waits_for_batches_in_a_row(desk):
    answers = []
    for day, share in enumerate((0.6, 0.1, 0.6, 0.6, 0.6), start=1):
        decision = desk.ask(
            make_drift(f"day {day}", share=share), as_of=f"2013-09-0{day}", policy={"patience": 3, "cool_down_days": 0}
        )
        answers.append((decision.retrain, named(decision.guards)["patience"].value))
    assert answers == [(False, 1), (False, 0), (False, 1), (False, 2), (True, 3)]
    assert "The last 3 batches speak for a training" in (desk.folder / "verdict.md").read_text()


def test_patience_begins_anew_with_a_new_version_and_passes_over_small_batches(desk):
    def ask(day, rows=29_000, version=1):
        drift = make_drift(f"{day}", share=0.6, rows=rows, model=f"models:/late_flights/{version}")
        return desk.ask(drift, as_of=f"2013-09-0{day}", policy={"patience": 2})

    assert not ask(1).retrain
    assert not ask(2, version=2).retrain
    assert not ask(3, rows=10).retrain
    assert ask(4, version=2).retrain
    assert ask(5, version=1).id != ask(4, version=2).id


def test_patience_counts_a_batch_once_whatever_the_policy_and_the_labels(desk):
    policy = {"patience": 2}
    assert not desk.ask(make_drift("a", share=0.1), as_of="2013-09-01", policy=policy).retrain
    assert not desk.ask(make_drift("a", share=0.1), make_performance(0.6), as_of="2013-09-02", policy=policy).retrain
    assert not desk.ask(make_drift("a", share=0.1), make_performance(0.6), policy=policy | {"min_rows": 1}).retrain
    decision = desk.ask(make_drift("b", share=0.6), as_of="2013-09-03", policy=policy)
    assert decision.retrain, "the labels of the first batch speak for it"


def test_a_later_batch_says_nothing_of_an_earlier_one(desk):
    policy = {"patience": 2}
    assert not desk.ask(make_drift("late", share=0.6), as_of="2013-12-01", policy=policy).retrain
    assert not desk.ask(make_drift("early", share=0.6), as_of="2013-11-01", policy=policy).retrain
    assert desk.ask(make_drift("last", share=0.6), as_of="2013-12-02", policy=policy).retrain


# ---- Properties -----------------------------------------------------------------------------------------------------

batches = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 12), st.sampled_from([0.1, 0.6]), st.sampled_from([10, 5_000])),
    min_size=1,
    max_size=12,
)


def ask_all(desk, asked, policy):
    """The decisions on batches (number, days since September began, share, rows), each asked twice."""
    decisions = {}
    for number, day, share, rows in asked:
        drift = make_drift(f"{number}", share=share, rows=rows)
        moment = (dt.datetime(2013, 9, 1) + dt.timedelta(days=day)).isoformat()
        decision = desk.ask(drift, as_of=moment, policy=policy)
        assert desk.ask(drift, as_of="2030-01-01", policy=policy) == decision
        decisions.setdefault((number, share, rows), decision)
        assert decisions[number, share, rows] == decision
    return list(decisions.values())


@settings(max_examples=40, deadline=None)
@given(asked=batches, cool_down=st.sampled_from([0.5, 1, 3, 7.25]))
def test_within_the_cool_down_there_is_one_training(asked, cool_down):
    with tempfile.TemporaryDirectory() as folder:
        decisions = ask_all(Desk(Path(folder)), asked, {"cool_down_days": cool_down})
    trainings = {d.id: dt.datetime.fromisoformat(d.as_of) for d in decisions if d.retrain}
    moments = sorted(trainings.values())
    for one, other in itertools.pairwise(moments):
        assert other - one >= dt.timedelta(days=cool_down)
    wanted = [d for d in decisions if named(d.triggers)["drift"].exceeded and not named(d.guards)["rows"].exceeded]
    assert bool(trainings) == bool(wanted), "what is wanted is held back by another training alone"


@settings(max_examples=20, deadline=None)
@given(asked=batches)
def test_deciding_is_deterministic(asked):
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        policy = {"cool_down_days": 2, "patience": 2}
        assert ask_all(Desk(Path(one)), asked, policy) == ask_all(Desk(Path(other)), asked, policy)


evidence = st.builds(
    Evidence,
    rows=st.sampled_from([10, 2_000]),
    drifted=st.booleans(),
    prediction_drift=st.sampled_from([None, True, False]),
    share_drifted=st.floats(0, 1),
    degraded=st.sampled_from([None, True, False]),
    rows_labelled=st.sampled_from([0, 2_000]),
)


@given(st.lists(evidence, max_size=8), st.sampled_from(["any", "all"]))
def test_a_streak_is_the_end_of_the_row_that_speaks(row, require):
    policy = Policy(require=require)
    answers = [answer for item in row if (answer := speaks(policy, item)) is not None]
    expected = 0
    while expected < len(answers) and answers[-1 - expected]:
        expected += 1
    assert streak(policy, row) == expected


# ---- Age ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry where version 1 of `late_flights` has a profile, version 2 none, and version 3 one without times."""
    import pyarrow as pa

    from pipeparts.runtime.profiles import write_profile
    from pipeparts.runtime.profiling import profile_of
    from pipeparts.runtime.tables import Table, write_table

    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    registry = mlflow_registry.connect(uri, create=True)
    registry.client.create_registered_model("late_flights")
    times = {
        "date": pa.array([dt.date(2013, 5, 30), dt.date(2013, 5, 31), None]),
        "time_hour": pa.array([dt.datetime(2013, 5, 31, 12, tzinfo=dt.UTC)] * 3, pa.timestamp("ns", "UTC")),
        "nothing": pa.array([None] * 3, pa.timestamp("s")),
        "year 30000": pa.array([884_541_340_800] * 3, pa.timestamp("s")),
        "carrier": pa.array(["AA", "UA", "AA"]),
    }
    for number, columns in enumerate((times, None, {"carrier": times["carrier"]})):
        model = write_model(folder / f"model{number}", f"{number}{number}" * 16)
        if columns:
            write_table(folder / f"table{number}", pa.table(columns), source="here")
            write_profile(model / "training_profile.json", profile_of(Table(folder / f"table{number}")))
        registry.client.create_model_version("late_flights", source=model.as_uri())
    return uri


@pytest.mark.slow
@pytest.mark.parametrize(
    ("time_column", "as_of", "expected", "reason"),
    [
        ("date", "2013-07-30", False, "ends 2013-05-31, 60 days before 2013-07-30; the policy allows 60 days."),
        ("date", "2013-07-31", True, "ends 2013-05-31, 61 days before 2013-07-31; the policy allows 60 days."),
        ("time_hour", "2013-07-31", True, "ends 2013-05-31, 60.5 days before 2013-07-31; the policy allows 60 days."),
        ("date", "2013-05-01", False, "ends 2013-05-31, 30 days after 2013-05-01; the policy allows 60 days."),
    ],
)
def test_an_old_model_is_trained_again(desk, registry, time_column, as_of, expected, reason):
    decision = desk.ask(
        policy={"max_age_days": 60, "patience": 5, "require": "all"},
        time_column=time_column,
        as_of=as_of,
        tracking_uri=registry,
    )
    assert decision.retrain is expected, "age needs neither patience nor company"
    trigger = named(decision.triggers)["model_age_days"]
    assert trigger.exceeded is expected
    assert trigger.reason == f"The model's training data {reason}"
    assert trigger.limit == 60


@pytest.mark.slow
@pytest.mark.parametrize(("time_column", "version"), [("", 1), ("date", 2), ("nothing", 1), ("year 30000", 1)])
def test_otherwise_the_age_counts_from_the_registration(desk, registry, time_column, version):
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=10)
    decision = desk.ask(
        make_drift(model=f"models:/late_flights/{version}"),
        policy={"max_age_days": 9.5, "on_drift": [], "on_performance": False},
        time_column=time_column,
        as_of=later.isoformat(),
        tracking_uri=registry,
    )
    assert decision.retrain
    assert len(decision.triggers) == 1
    assert decision.triggers[0].reason.startswith("The model was registered 2")
    assert decision.triggers[0].value == pytest.approx(10, abs=0.1)


@pytest.mark.slow
def test_a_column_that_is_no_time_of_the_training_data_is_refused(desk, registry):
    arguments = {"policy": {"max_age_days": 9}, "tracking_uri": registry}
    with pytest.raises(DataError, match="not a column of times") as error:
        desk.ask(time_column="carrier", **arguments)
    assert error.value.facts["parameter"] == "time_column"
    assert error.value.facts["received"] == "carrier, of type string"
    assert error.value.facts["allowed"] == "date, nothing, time_hour, year 30000"
    with pytest.raises(DataError, match="not a column of the training data") as error:
        desk.ask(time_column="time_hours", **arguments)
    assert error.value.facts["hint"] == "did you mean 'time_hour'?"
    with pytest.raises(DataError, match="not a column of the training data") as error:
        desk.ask(make_drift(model="models:/late_flights/3"), time_column="date", **arguments)
    assert "no column of times" in error.value.facts["allowed"]
    assert not desk.documents("batches"), "nothing was decided"
    with pytest.raises(ContractError, match="no such version"):
        desk.ask(make_drift(model="models:/late_flights/9"), **arguments)


def test_a_model_from_no_registry_has_no_age(desk):
    decision = desk.ask(make_drift(model="ab" * 16), policy={"max_age_days": 1})
    assert not decision.retrain
    trigger = named(decision.triggers)["model_age_days"]
    assert (trigger.value, trigger.exceeded) == (None, False)
    assert trigger.reason == "The model's age is not known: it does not come from a registry."


def test_a_registry_is_looked_at_for_the_age_alone(desk, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    desk.ask(time_column="date", tracking_uri="nonsense")
    with pytest.raises(InputError):
        desk.ask(policy={"max_age_days": 1}, tracking_uri="nonsense")


# ---- What is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "place", "allowed", "received"),
    [
        ({"cooldown_days": 3}, "policy.cooldown_days", "cool_down_days", "cooldown_days"),
        ({"cool_down_days": -1}, "policy.cool_down_days", "greater than or equal to 0", "int: -1"),
        ({"cool_down_days": "a week"}, "policy.cool_down_days", "valid number", "str: 'a week'"),
        ({"cool_down_days": float("nan")}, "policy.cool_down_days", "", "float: nan"),
        ({"max_age_days": 0}, "policy.max_age_days", "greater than 0", "int: 0"),
        ({"max_age_days": float("inf")}, "policy.max_age_days", "", "float: inf"),
        ({"patience": 0}, "policy.patience", "greater than or equal to 1", "int: 0"),
        ({"patience": 1.5}, "policy.patience", "valid integer", "float: 1.5"),
        ({"min_rows": -5}, "policy.min_rows", "greater than or equal to 0", "int: -5"),
        ({"on_drift": ["drifts"]}, "policy.on_drift.0", "'drift' or 'prediction_drift'", "str: 'drifts'"),
        ({"on_drift": "drift"}, "policy.on_drift", "valid tuple", "str: 'drift'"),
        ({"max_share_drifted": 30}, "policy.max_share_drifted", "less than or equal to 1", "int: 30"),
        ({"require": "both"}, "policy.require", "'any' or 'all'", "str: 'both'"),
        ({"on_drift": [], "on_performance": False}, "policy", "at least one of on_drift", "dict"),
    ],
)
def test_a_policy_that_is_none_is_refused(desk, policy, place, allowed, received):
    with pytest.raises(InputError) as error:
        desk.ask(policy=policy)
    assert error.value.facts["parameter"] == place
    assert allowed in error.value.facts["allowed"]
    assert error.value.facts["received"].startswith(received)


def test_a_moment_or_a_state_that_is_none_is_refused(desk, monkeypatch):
    with pytest.raises(InputError, match="not a moment"):
        desk.ask(as_of="yesterday")
    monkeypatch.delenv("PIPEPARTS_ROOT", raising=False)
    with pytest.raises(InputError, match="nowhere to keep"):
        desk.ask(state="")
    (desk.folder / "file").touch()
    with pytest.raises(InputError, match="nothing can be kept there"):
        desk.ask(state=str(desk.folder / "file"))


def test_reports_of_different_models_are_refused(desk):
    with pytest.raises(ContractError, match="of different models") as error:
        desk.ask(performance=make_performance(model="models:/late_flights/2"))
    assert error.value.facts["received"] == "models:/late_flights/2"
    assert "models:/late_flights/1" in error.value.facts["allowed"]
    assert desk.ask(performance=make_performance(model="ab" * 16)).model == "models:/late_flights/1"
    assert desk.ask(make_drift(model=""), make_performance(model="ab" * 16)).model == "ab" * 16


def test_what_is_no_report_is_refused(desk):
    desk.ask()
    arguments = {
        "decision_path": desk.folder / "d", "verdict_path": desk.folder / "v", "verdict_text_path": desk.folder / "t",
        "state": desk.state,
    }  # fmt: skip
    with pytest.raises(ContractError, match="not a drift report"):
        decide_retraining(drift_path=desk.folder / "decision.json", **arguments)
    with pytest.raises(ContractError, match="cannot read a performance report"):
        decide_retraining(drift_path=desk.folder / "drift.json", performance_path=desk.folder / "none", **arguments)
    assert not (desk.folder / "d").exists()


@pytest.mark.parametrize("folder", ["batches", "trainings"])
def test_what_is_kept_in_another_version_or_damaged_is_refused(desk, folder):
    desk.ask(make_drift(share=0.6))
    name = desk.documents(folder)[0]
    state = State(desk.state)
    document = state.read(name)
    newer = document["format"][:-1] + "2"
    state.write(name, document | {"format": newer})
    with pytest.raises(ContractError, match="of another kind or version") as error:
        desk.ask(make_drift(share=0.6))
    assert error.value.facts["received"] == f"format {newer!r}"
    assert error.value.facts["where"].endswith(f"{name}.json")
    assert "a newer release" in error.value.facts["hint"]
    state.write(name, {"format": document["format"]})
    with pytest.raises(ContractError, match="a damaged document"):
        desk.ask(make_drift(share=0.6))
    (Path(desk.state) / f"{name}.json").write_text('{"form')
    with pytest.raises(ContractError, match="a damaged document") as error:
        desk.ask(make_drift(share=0.6))
    assert "8" in error.value.facts["received"] or "Unterminated" in error.value.facts["received"]


def test_storage_that_does_not_show_what_was_written_is_said(desk, monkeypatch):
    monkeypatch.setattr(State, "create", lambda *_: False)
    with pytest.raises(ServiceError, match="does not show what was written"):
        desk.ask(make_drift(share=0.6))


# ---- At the same time, and killed ------------------------------------------------------------------------------------

_RACE = """
import sys, time
from pathlib import Path
from pipeparts.components.monitoring.decide_retraining.logic import decide_retraining

folder, state, me, rounds = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
print("ready", flush=True)
begin = float(sys.stdin.readline())
for number in range(rounds):
    while time.time() < begin + number * 0.05:
        pass
    decided = decide_retraining(
        drift_path=folder / f"{number}-{me}.json",
        decision_path=folder / f"decision-{number}-{me}", verdict_path=folder / f"verdict-{me}",
        verdict_text_path=folder / f"text-{me}", as_of="2013-09-01", state=f"{state}/{number}",
    )
    if decided.retrain:
        print(number, flush=True)
"""


@pytest.mark.slow
def test_of_runs_at_the_same_time_one_gets_its_training(tmp_path):
    rounds, runs = 40, 3
    for number in range(rounds):
        for me in range(runs):
            write(tmp_path, f"{number}-{me}", make_drift(f"{number}-{me}", share=0.6))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(tmp_path), str(tmp_path / "state"), str(me), str(rounds)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for me in range(runs)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    begin = time.time() + 0.1
    for process in processes:
        process.stdin.write(f"{begin}\n")
        process.stdin.flush()
    won = []
    for process in processes:
        won += process.communicate(timeout=120)[0].split()
        assert process.returncode == 0
    assert sorted(won, key=int) == [str(number) for number in range(rounds)]


@pytest.mark.slow
def test_a_run_killed_anywhere_and_started_again_trains_once(tmp_path):
    write(tmp_path, "0-0", make_drift(share=0.6))
    for milliseconds in (0, 1, 2, 3, 5, 8, 13, 21):
        state = tmp_path / f"state-{milliseconds}"
        process = subprocess.Popen(
            [sys.executable, "-c", _RACE, str(tmp_path), str(state), "0", "1"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.stdout.readline()
        process.stdin.write("0\n")
        process.stdin.flush()
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):
            process.communicate(timeout=30)
        decision_path = tmp_path / f"again-{milliseconds}"
        decision = decide_retraining(
            drift_path=tmp_path / "0-0.json", decision_path=decision_path, verdict_path=tmp_path / "v",
            verdict_text_path=tmp_path / "t", as_of="2013-09-02", state=str(state / "0"),
        )  # fmt: skip
        assert decision.retrain
        assert json.loads(decision_path.read_text())["retrain"]
        assert State(str(state / "0")).names("retraining/late_flights/trainings") == [
            "retraining/late_flights/trainings/000001"
        ]
